//! Random damage to valid archives, the same in every run: the reader must neither panic nor spend without bound.

use super::super::build::{gzip, zstd};
use super::*;

/// xorshift64*: no dependency, and the same sequence everywhere.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % bound
    }
}

const SMALL: Limits = Limits {
    entries: 100,
    total_bytes: 1 << 20,
    file_bytes: 1 << 20,
    path_bytes: 1024,
    path_depth: 100,
    pax_bytes: 4096,
    xattr_bytes: 4096,
    sparse_segments: 64,
    metadata_bytes: 1 << 16,
    ratio: 100,
    ratio_after: 1 << 16,
    zstd_window: 1 << 20,
};

fn mutate(bytes: &mut Vec<u8>, random: &mut Random) {
    const INTERESTING: &[u8] = &[0, 1, b' ', b'/', b'.', b'0', b'7', b'9', b'=', b'\n', 0x7f, 0x80, 0xff];
    for _ in 0..=random.below(4) {
        if bytes.is_empty() {
            return;
        }
        let at = random.below(bytes.len());
        match random.below(6) {
            0 => bytes[at] ^= 1 << random.below(8),
            1 => bytes[at] = INTERESTING[random.below(INTERESTING.len())],
            2 => bytes.truncate(at),
            3 => drop(bytes.drain(at..bytes.len().min(at + 1 + random.below(600)))),
            4 => {
                let piece = bytes[at..bytes.len().min(at + 512)].to_vec();
                let to = random.below(bytes.len());
                bytes.splice(to..to, piece);
            }
            _ => {
                let to = random.below(bytes.len());
                bytes.swap(at, to);
            }
        }
    }
}

/// Mends the checksums of all headers, so that damage reaches the code behind them.
fn mend(bytes: &mut [u8]) {
    for block in bytes.chunks_exact_mut(512) {
        if &block[257..262] == b"ustar" {
            block[148..156].copy_from_slice(b"        ");
            let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
            block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        }
    }
}

#[test]
fn damage_is_survived() {
    let plain = sample();
    let sources = [plain.clone(), gzip(&plain), zstd(&plain)];
    let mut random = Random(0x5eed_0000_0000_0001);
    let (mut read_well, mut refused) = (0, 0);
    for round in 0..6000 {
        let mut bytes = sources[if round % 3 == 2 { 1 + random.below(2) } else { 0 }].clone();
        mutate(&mut bytes, &mut random);
        if round % 3 == 1 {
            mend(&mut bytes);
        }
        match read_with(&bytes, SMALL) {
            Ok((entries, totals)) => {
                read_well += 1;
                assert!(
                    entries.iter().all(|(entry, _)| !entry.path.split(|byte| *byte == b'/').any(|part| part == b".."))
                );
                assert!(totals.stream_bytes <= SMALL.total_bytes);
            }
            Err(error) => {
                refused += 1;
                assert!(!error.to_string().is_empty());
            }
        }
    }
    // Both happen often, or the test tests nothing.
    assert!(read_well > 100 && refused > 1000, "{read_well} read, {refused} refused");
}
