//! What must be read, and how it comes out.

use sha2::{Digest, Sha256};

use super::super::{Compression, Kind, Timestamp, Xattr};
use super::*;

#[test]
fn all_kinds_of_entries() {
    let (entries, totals) = read(&sample()).expect("valid");
    let kinds: Vec<_> = entries.iter().map(|(entry, _)| (entry.path.as_slice(), &entry.kind)).collect();
    let long = "n/".repeat(90);
    assert_eq!(
        kinds,
        [
            (&b""[..], &Kind::Directory),
            (b"bin", &Kind::Directory),
            (b"bin/tool", &Kind::File),
            (b"bin/same", &Kind::HardLink { target: b"bin/tool".to_vec() }),
            (b"bin/link", &Kind::Symlink { target: b"/bin/tool".to_vec() }),
            (b"pipe", &Kind::Fifo),
            (b"null", &Kind::CharDevice { major: 1, minor: 3 }),
            (long.trim_end_matches('/').as_bytes(), &Kind::File),
            (b"sparse", &Kind::File),
        ]
    );
    let (tool, content) = &entries[2];
    assert_eq!((tool.mode, tool.uid, tool.gid, tool.size), (0o4755, 0, 0, 10));
    assert_eq!(tool.mtime, Timestamp { seconds: 12, nanoseconds: 500_000_000 });
    assert_eq!(tool.xattrs, [Xattr { name: b"user.note".to_vec(), value: b"x\0y".to_vec() }]);
    assert_eq!(content, &[(0, b"#!/bin/sh\n".to_vec())]);
    assert_eq!(entries[7].1, [(0, vec![7; 1300])]);
    assert_eq!((entries[8].0.size, &entries[8].1), (4096, &vec![(512, b"abc".to_vec())]));
    assert_eq!(totals.entries, 9);
}

#[test]
fn all_compressions_give_the_same_and_their_digests() {
    let plain = sample();
    let (entries, _) = read(&plain).expect("valid");
    let (first, second) = plain.split_at(700);
    let gzip_padded = [gzip(&plain), vec![0; 3000]].concat();
    // An empty skippable frame of two bytes, RFC 8878 3.1.2.
    let skippable = [&[0x51, 0x2a, 0x4d, 0x18, 2, 0, 0, 0, 9, 9][..]].concat();
    for (bytes, compression) in [
        (plain.clone(), Compression::Plain),
        (gzip(&plain), Compression::Gzip),
        ([gzip(first), gzip(b""), gzip(second)].concat(), Compression::Gzip),
        (gzip_padded, Compression::Gzip),
        (zstd(&plain), Compression::Zstd),
        ([skippable.clone(), zstd(first), skippable.clone(), zstd(second), skippable].concat(), Compression::Zstd),
    ] {
        let (same, totals) = read(&bytes).expect("valid");
        assert_eq!(same, entries);
        assert_eq!(totals.compression, compression);
        assert_eq!((totals.source_bytes, totals.stream_bytes), (bytes.len() as u64, plain.len() as u64));
        assert_eq!(totals.source_digest, Some(Sha256::digest(&bytes).into()));
        assert_eq!(totals.stream_digest, Some(Sha256::digest(&plain).into()));
    }
}

#[test]
fn a_source_may_come_in_single_bytes() {
    struct Slow<'a>(&'a [u8]);
    impl std::io::Read for Slow<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            let length = buffer.len().min(1);
            std::io::Read::read(&mut self.0, &mut buffer[..length])
        }
    }
    let plain = sample();
    for bytes in [plain.clone(), gzip(&plain), zstd(&plain)] {
        let mut reader = Reader::new(Slow(&bytes), Limits::STANDARD, Hashing::None).expect("magic");
        let mut count = 0;
        while reader.next_entry().expect("valid").is_some() {
            count += 1;
        }
        assert_eq!(count, 9);
    }
}

#[test]
fn a_failing_source_is_no_malformed_archive() {
    struct Broken(Vec<u8>);
    impl std::io::Read for Broken {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            if self.0.is_empty() {
                return Err(std::io::Error::other("the disk fell out"));
            }
            let length = buffer.len().min(self.0.len());
            buffer[..length].copy_from_slice(&self.0[..length]);
            self.0.drain(..length);
            Ok(length)
        }
    }
    let plain = sample();
    for mut bytes in [plain.clone(), gzip(&plain), zstd(&plain)] {
        bytes.truncate(bytes.len() / 2);
        let mut reader = Reader::new(Broken(bytes), Limits::STANDARD, Hashing::None).expect("magic");
        let error = loop {
            match reader.next_entry() {
                Ok(entry) => assert!(entry.is_some()),
                Err(error) => break error,
            }
        };
        assert!(
            matches!(&error, ArchiveError::Source { source, .. } if source.to_string() == "the disk fell out"),
            "{error:?}"
        );
    }
}

#[test]
fn gnu_long_names_and_their_nul() {
    let name = [&b"d/".repeat(120)[..], b"\xff"].concat();
    let target = vec![b't'; 300];
    let headers = [
        Member::new(b"././@LongLink", b'K', &[&target[..], b"\0"].concat()).gnu().to_bytes(),
        Member::new(b"././@LongLink", b'L', &name).gnu().to_bytes(),
    ];
    let (entries, _) =
        read(&archive(&[Member::symlink("short", "short").gnu().before(headers.concat())])).expect("valid");
    assert_eq!(entries[0].0.path, name);
    assert_eq!(entries[0].0.kind, Kind::Symlink { target });
}

#[test]
fn names_and_numbers_of_every_dialect() {
    let long = "p".repeat(120);
    let members = [
        Member::file("name", b"").bytes(345, long.as_bytes()),
        // star keeps times in the last 24 bytes of the prefix and says so at the end.
        Member::file("star", b"").bytes(345, b"dir").bytes(476, b"00000000001\x0000000000001 ").bytes(508, b"tar\0"),
        // v7: no magic; a slash makes a directory.
        Member::new(b"old/", 0, b"").bytes(257, &[0; 8]),
        Member::new(b"old/file", 0, b"x").bytes(257, &[0; 8]),
        Member::file("big", b"").gnu().bytes(108, b"\x80\0\0\0\xff\xff\xff\xfe").bytes(136, &[0xff; 12]),
        Member::file("pax", b"abc")
            .size(0)
            .pax("size", b"3")
            .pax("uid", b"4000000000")
            .pax("path", "\u{e9}\n".as_bytes()),
        // An empty value takes the override back.
        Member::file("kept", b"").pax("path", b""),
        Member::new(b"contiguous", b'7', b"x"),
    ];
    let (entries, _) = read(&archive(&members)).expect("valid");
    let paths: Vec<_> = entries.iter().map(|(entry, _)| String::from_utf8_lossy(&entry.path).into_owned()).collect();
    assert_eq!(
        paths,
        [format!("{long}/name").as_str(), "dir/star", "old", "old/file", "big", "\u{e9}\n", "kept", "contiguous"]
    );
    assert_eq!(entries[2].0.kind, Kind::Directory);
    assert_eq!((entries[4].0.uid, entries[4].0.mtime.seconds), (u32::MAX - 1, -1));
    assert_eq!((entries[5].0.uid, &entries[5].1), (4_000_000_000, &vec![(0, b"abc".to_vec())]));
}

#[test]
fn sparse_files_of_all_forms() {
    let data = [&[1u8; 512][..], &[2; 100]].concat();
    let segment = |offset: u64, length: u64| format!("{offset:011o}\0{length:011o}\0").into_bytes();
    // 5 segments: four in the header, one in an extension block, and an empty one for the end as GNU tar writes it.
    let mut extension = segment(8192, 100);
    extension.extend(segment(10000, 0));
    extension.resize(512, 0);
    let old = Member::new(b"old", b'S', &[extension, data.clone()].concat())
        .size(612)
        .gnu()
        .bytes(386, &[segment(0, 0), segment(512, 256), segment(768, 0), segment(2048, 256)].concat())
        .bytes(482, b"\x01")
        .bytes(483, b"00000023420\0");
    let in_pax = |member: Member| member.pax("GNU.sparse.size", b"10000").pax("GNU.sparse.numblocks", b"3");
    let pax_0_0 = [(512, 256), (2048, 256), (8192, 100)].iter().fold(
        in_pax(Member::file("p00", &data)),
        |member, (at, length)| {
            member
                .pax("GNU.sparse.offset", at.to_string().as_bytes())
                .pax("GNU.sparse.numbytes", length.to_string().as_bytes())
        },
    );
    let pax_0_1 = in_pax(Member::file("x/GNUSparseFile.1/p01", &data))
        .pax("GNU.sparse.name", b"p01")
        .pax("GNU.sparse.map", b"512,256,2048,256,8192,100");
    let pax_1_0 = Member::file("x/GNUSparseFile.1/p10", &sparse_data(&[(512, 256), (2048, 256), (8192, 100)], &data))
        .pax("GNU.sparse.major", b"1")
        .pax("GNU.sparse.minor", b"0")
        .pax("GNU.sparse.name", b"p10")
        .pax("GNU.sparse.realsize", b"10000");
    let (entries, _) = read(&archive(&[old, pax_0_0, pax_0_1, pax_1_0, Member::file("after", b"ok")])).expect("valid");
    let pieces = vec![(512, vec![1; 256]), (2048, vec![1; 256]), (8192, vec![2; 100])];
    for ((entry, content), name) in entries.iter().zip(["old", "p00", "p01", "p10"]) {
        assert_eq!((entry.path.as_slice(), entry.size, entry.sparse), (name.as_bytes(), 10000, true));
        assert_eq!(content, &pieces, "{name}");
    }
    assert_eq!(entries[4].1, [(0, b"ok".to_vec())]);
}

#[test]
fn harmless_headers_are_passed_over() {
    let global =
        Member::new(b"pax_global_header", b'g', &super::super::build::pax_record(b"comment", b"0123")).to_bytes();
    let member = Member::file("a", b"").before(global).pax("atime", b"1").pax("VENDOR.thing", b"\0\xff");
    assert_eq!(read(&archive(&[member])).expect("valid").0.len(), 1);
    // Any amount of zeros may follow the end mark.
    let padded = [archive(&[Member::file("a", b"")]), vec![0; 9001]].concat();
    assert_eq!(read(&padded).expect("valid").1.stream_bytes, padded.len() as u64);
}
