//! The archive reader on arbitrary bytes: it must not panic, not spend more than its limits, and keep what its entries promise.
#![no_main]

use cellblock_rootfs::archive::{Entry, Hashing, Kind, Limits, Reader};
use libfuzzer_sys::fuzz_target;

/// Small, so that spending without bound shows as a slow or fat input.
const LIMITS: Limits = Limits {
    entries: 200,
    total_bytes: 4 << 20,
    file_bytes: 2 << 20,
    path_bytes: 512,
    path_depth: 32,
    pax_bytes: 8192,
    xattr_bytes: 4096,
    sparse_segments: 64,
    metadata_bytes: 1 << 16,
    ratio: 100,
    ratio_after: 1 << 18,
    zstd_window: 1 << 20,
};

fuzz_target!(|bytes: &[u8]| {
    read(bytes);
    // The same with right checksums, which mutation hardly ever finds: most of the parser is behind them.
    let mut mended = bytes.to_vec();
    for block in mended.chunks_exact_mut(512) {
        if &block[257..262] == b"ustar" {
            block[148..156].copy_from_slice(b"        ");
            let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
            block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        }
    }
    read(&mended);
});

fn read(bytes: &[u8]) {
    let Ok(mut reader) = Reader::new(bytes, LIMITS, Hashing::None) else { return };
    let (mut entries, mut total) = (0, 0);
    while let Ok(Some(entry)) = reader.next_entry() {
        entries += 1;
        check(&entry);
        let mut end = 0;
        // Every third entry's content is left for the reader to skip.
        while entries % 3 != 0
            && let Ok(Some(chunk)) = reader.read_data()
        {
            assert!(chunk.offset >= end && !chunk.bytes.is_empty());
            end = chunk.offset + chunk.bytes.len() as u64;
            assert!(end <= entry.size);
        }
        total += entry.size;
    }
    assert!(entries <= LIMITS.entries && total <= LIMITS.total_bytes);
    if let Some(totals) = reader.totals() {
        assert_eq!(totals.source_bytes, bytes.len() as u64);
        assert!(totals.stream_bytes <= LIMITS.total_bytes);
    }
}

fn check(entry: &Entry) {
    let safe = |path: &[u8]| {
        path.len() as u64 <= LIMITS.path_bytes
            && path.split(|byte| *byte == b'/').all(|part| !matches!(part, b"" | b"." | b"..") && !part.contains(&0))
    };
    assert!(safe(&entry.path) || (entry.path.is_empty() && entry.kind == Kind::Directory));
    match &entry.kind {
        Kind::HardLink { target } => assert!(safe(target)),
        Kind::Symlink { target } => assert!(!target.is_empty() && !target.contains(&0)),
        _ => {}
    }
    assert!(entry.mode <= 0o7777 && entry.uid != u32::MAX && entry.mtime.nanoseconds < 1_000_000_000);
    assert!(entry.size == 0 || entry.kind == Kind::File);
}
