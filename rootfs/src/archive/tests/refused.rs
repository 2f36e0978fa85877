//! What must be refused, and with which words. The same archives without the fault are read in `accepted`.

use super::*;

/// Archives that must be refused, each with a part of the reason.
fn malformed() -> Vec<(&'static str, Vec<u8>, &'static str)> {
    let one = |member: Member| archive(&[member]);
    let file = || Member::file("a", b"x");
    let sparse = || file().pax("GNU.sparse.size", b"10");
    let long = |flag, name: &[u8]| Member::new(b"long", flag, name).gnu().to_bytes();
    let patched = |at: usize, value: u8| {
        let mut bytes = one(file());
        bytes[at] = value;
        bytes
    };
    vec![
        ("empty", Vec::new(), "without an end mark"),
        ("no end mark", file().to_bytes(), "without an end mark"),
        ("half an end mark", [file().to_bytes(), vec![0; 512]].concat(), "the end mark"),
        ("lone zero block", [vec![0; 512], one(file())].concat(), "single zero block"),
        ("second archive", [one(file()), one(file())].concat(), "after the end of the archive"),
        ("garbage after the end", [one(file()), vec![0; 700], vec![1]].concat(), "after the end of the archive"),
        ("no archive", vec![b'x'; 2048], "checksum"),
        ("checksum", patched(0, b'b'), "checksum"),
        ("magic", one(file().bytes(257, b"USTAR\x0000")), "magic"),
        ("dot dot", one(Member::file("a/../../b", b"")), "contains `..`"),
        ("dot dot in pax", one(file().pax("path", b"../a")), "contains `..`"),
        ("dot dot in GNU", one(file().before(long(b'L', b"../a\0"))), "contains `..`"),
        ("dot dot in prefix", one(file().bytes(345, b"..")), "contains `..`"),
        ("dot dot in a sparse name", one(sparse().pax("GNU.sparse.name", b"../a")), "contains `..`"),
        ("hard link above", one(Member::hard_link("a", "../b")), "contains `..`"),
        ("hard link above in pax", one(Member::hard_link("a", "b").pax("linkpath", b"../b")), "contains `..`"),
        ("hard link to the root", one(Member::hard_link("a", "/")), "no hard links"),
        ("hard link to itself", one(Member::hard_link("a", "./a")), "link to itself"),
        ("NUL in a name", one(file().pax("path", b"a\0b")), "NUL"),
        ("NUL in a long name", one(file().before(long(b'L', b"a\0b\0"))), "NUL"),
        ("NUL in a link", one(Member::symlink("a", "b").pax("linkpath", b"a\0b")), "NUL"),
        ("no name", one(Member::file("", b"")), "is empty"),
        ("no link target", one(Member::symlink("a", "")), "is empty"),
        ("file as root", one(Member::file(".", b"")), "means the root"),
        ("link as root", one(Member::symlink("/", "x")), "means the root"),
        ("slash after a file", one(Member::file("a/", b"x")), "ends in a slash"),
        ("size of a directory", one(Member::new(b"a", b'5', b"x")), "no file has a size"),
        ("size of a link", one(Member::symlink("a", "b").size(512)), "no file has a size"),
        ("negative size", one(file()).tap(|b| base256(b, 124, &[0xff; 12])), "negative"),
        (
            "overlong size",
            one(file()).tap(|b| base256(b, 124, &[0x80, 0, 0, 0, 0xff, 0, 0, 0, 0, 0, 0, 0])),
            "too large",
        ),
        ("huge pax size", one(file().pax("size", b"99999999999999999999")), "too large"),
        ("negative pax uid", one(file().pax("uid", b"-1")), "negative"),
        ("uid that means none", one(file().pax("uid", b"4294967295")), "too large"),
        ("gid beyond 32 bits", one(file().pax("gid", b"4294967296")), "too large"),
        ("mode", one(file().bytes(100, b"7777777\0")), "mode"),
        ("mode with letters", one(file().bytes(100, b"00rw000\0")), "not a number"),
        ("device number", one(Member::device("a", b'3', 4096, 0)), "device"),
        ("type", one(Member::new(b"a", b'M', b"")), "'M'"),
        ("Solaris pax", one(Member::new(b"a", b'X', b"")), "'X'"),
        (
            "two pax headers",
            one(file().pax("uid", b"1").before(Member::new(b"p", b'x', b"8 uid=1\n").to_bytes())),
            "two headers",
        ),
        ("two long names", one(file().before([long(b'L', b"a\0"), long(b'L', b"a\0")].concat())), "two headers"),
        ("names at odds", one(file().before(long(b'L', b"b\0")).pax("path", b"c")), "different names"),
        ("pax before the end", archive(&[Member::new(b"p", b'x', b"8 uid=1\n")]), "without an entry"),
        ("long name before the end", archive(&[Member::new(b"p", b'L', b"abc\0")]), "without an entry"),
        ("pax path twice", one(file().pax("path", b"b").pax("path", b"c")), "twice"),
        (
            "attribute twice",
            one(file().pax("SCHILY.xattr.user.a", b"b").pax("LIBARCHIVE.xattr.user.a", b"YQ")),
            "twice",
        ),
        ("global path", one(file().before(Member::new(b"g", b'g', b"10 path=a\n").to_bytes())), "global"),
        ("broken pax", one(file().before(Member::new(b"x", b'x', b"99 path=a\n").to_bytes())), "does not fit"),
        ("volume", one(file().pax("GNU.volume.label", b"a")), "unsupported"),
        ("sparse directory", one(Member::directory("a").pax("GNU.sparse.size", b"0")), "no file has a size"),
        ("sparse without count", one(sparse().pax("GNU.sparse.map", b"0,1")), "count of segments"),
        (
            "sparse wrong count",
            one(sparse().pax("GNU.sparse.map", b"0,1").pax("GNU.sparse.numblocks", b"2")),
            "count of segments",
        ),
        (
            "sparse overlap",
            one(Member::file("a", b"xy")
                .pax("GNU.sparse.size", b"9")
                .pax("GNU.sparse.map", b"1,1,0,1")
                .pax("GNU.sparse.numblocks", b"2")),
            "overlap",
        ),
        (
            "sparse beyond",
            one(sparse().pax("GNU.sparse.map", b"10,1").pax("GNU.sparse.numblocks", b"1")),
            "beyond the end",
        ),
        (
            "sparse wrap",
            one(sparse().pax("GNU.sparse.map", b"18446744073709551615,1").pax("GNU.sparse.numblocks", b"1")),
            "beyond all",
        ),
        ("sparse short", one(sparse().pax("GNU.sparse.map", b"0,2").pax("GNU.sparse.numblocks", b"1")), "not as long"),
        ("sparse odd", one(sparse().pax("GNU.sparse.map", b"0,1,2").pax("GNU.sparse.numblocks", b"1")), "odd"),
        (
            "sparse version",
            one(sparse().pax("GNU.sparse.major", b"2").pax("GNU.sparse.minor", b"0")),
            "unknown version",
        ),
        (
            "sparse without size",
            one(file().pax("GNU.sparse.major", b"1").pax("GNU.sparse.minor", b"0")),
            "size of the file is missing",
        ),
        ("sparse cut", one(sparse().pax("GNU.sparse.major", b"1").pax("GNU.sparse.minor", b"0")), "cut off"),
        ("sparse POSIX S", one(Member::new(b"a", b'S', b"")), "not in GNU's format"),
        ("sparse two maps", one(Member::new(b"a", b'S', b"").gnu().pax("GNU.sparse.size", b"0")), "two maps"),
    ]
}

/// Lets a table row change what it just built.
trait Tap: Sized {
    fn tap(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }
}
impl Tap for Vec<u8> {}

/// Overwrites a field of the first header and mends its checksum.
fn base256(bytes: &mut [u8], at: usize, field: &[u8]) {
    bytes[at..at + field.len()].copy_from_slice(field);
    bytes[148..156].copy_from_slice(b"        ");
    let sum: u32 = bytes[..512].iter().map(|byte| u32::from(*byte)).sum();
    bytes[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
}

#[test]
fn malformed_archives() {
    for (name, bytes, reason) in malformed() {
        for bytes in [bytes.clone(), gzip(&bytes)] {
            let error = read(&bytes).expect_err(name).to_string();
            assert!(error.contains(reason), "{name}: {error}");
            assert!(error.contains("byte "), "{name} does not say where: {error}");
        }
    }
}

#[test]
fn every_cut_is_noticed() {
    let plain = sample();
    for whole in [plain.clone(), gzip(&plain), zstd(&plain)] {
        read(&whole).expect("uncut");
        for length in 0..whole.len() {
            let error = read(&whole[..length]).expect_err("cut").to_string();
            // Below a magic's length it is taken for a plain archive.
            assert!(length < 4 || error.contains("end") || error.contains("damaged"), "at {length}: {error}");
        }
    }
}

#[test]
fn damaged_compression() {
    let plain = sample();
    let (gz, zst) = (gzip(&plain), zstd(&plain));
    let flip = |bytes: &[u8], from_end: usize| {
        let mut bytes = bytes.to_vec();
        let at = bytes.len() - from_end;
        bytes[at] ^= 1;
        bytes
    };
    for (name, bytes, reason) in [
        ("gzip checksum", flip(&gz, 8), "damaged"),
        ("gzip length", flip(&gz, 4), "damaged"),
        ("gzip trailer", [&gz[..], b"x"].concat(), "garbage"),
        ("gzip padding with a tail", [&gz[..], &[0; 1000], b"x"].concat(), "garbage"),
        ("gzip then plain", [&gz[..], &plain].concat(), "garbage"),
        ("gzip then nothing of a header", [&gz[..], &[0x1f, 0x8b]].concat(), "compressed data"),
        ("zstd trailer", [&zst[..], b"garbage"].concat(), "damaged"),
        ("zstd checksum", flip(&zst, 1), "damaged"),
        ("zstd skippable cut", [&zst[..], &[0x50, 0x2a, 0x4d, 0x18, 9, 0, 0, 0, 1]].concat(), "compressed data"),
    ] {
        let error = read(&bytes).expect_err(name).to_string();
        assert!(error.contains(reason), "{name}: {error}");
    }
}

#[test]
fn limits_hold() {
    let one = |member: Member| archive(&[member]);
    let many = |count| archive(&vec![Member::directory("d"); count]);
    let bomb = archive(&vec![Member::file("zeros", &vec![0; 1 << 20]); 3]);
    let small = Limits {
        entries: 3,
        total_bytes: 8 << 20,
        file_bytes: 1 << 20,
        path_bytes: 200,
        path_depth: 4,
        pax_bytes: 2048,
        xattr_bytes: 512,
        sparse_segments: 2,
        metadata_bytes: 1000,
        ratio: 10,
        ratio_after: 1 << 20,
        zstd_window: 1 << 20,
    };
    let file = || Member::file("a", b"");
    let cases = [
        ("entries", many(3), many(4)),
        ("bytes of a file", one(file().size(0)), one(file().size(u64::MAX >> 1))),
        ("bytes of a path", one(file().pax("path", &[b'a'; 200])), one(file().pax("path", &[b'a'; 201]))),
        ("parts of a path", one(file().pax("path", b"a/b/c/d")), one(file().pax("path", b"a/b/c/d/e"))),
        ("bytes of a pax header", one(file().pax("comment", &[b'a'; 2000])), one(file().pax("comment", &[b'a'; 2048]))),
        (
            "extended attributes",
            one(file().pax("SCHILY.xattr.user.a", &[0; 500])),
            one(file().pax("SCHILY.xattr.user.a", &[0; 510])),
        ),
        ("link target", one(Member::symlink("a", "b")), one(Member::symlink("a", "b").pax("linkpath", &[b'a'; 201]))),
        ("compression ratio", gzip(&one(Member::file("zeros", &vec![0; 1 << 19]))), gzip(&bomb)),
        ("compression ratio", zstd(&one(Member::file("zeros", &vec![0; 1 << 19]))), zstd(&bomb)),
        ("uncompressed stream", one(Member::file("a", &[0; 512])), [one(file()), vec![0; 9 << 20]].concat()),
        (
            "names and attributes",
            archive(&vec![file().pax("path", &[b'a'; 200]); 3]),
            archive(&vec![file().pax("path", &[b'a'; 200]).pax("SCHILY.xattr.user.a", &[0; 400]); 2]),
        ),
        (
            "segments",
            one(Member::file("a", &sparse_data(&[(0, 0)], b""))
                .pax("GNU.sparse.major", b"1")
                .pax("GNU.sparse.minor", b"0")
                .pax("GNU.sparse.realsize", b"1")),
            one(Member::file("a", &sparse_data(&[(0, 0); 3], b""))
                .pax("GNU.sparse.major", b"1")
                .pax("GNU.sparse.minor", b"0")
                .pax("GNU.sparse.realsize", b"1")),
        ),
    ];
    for (name, fits, exceeds) in cases {
        read_with(&fits, small).unwrap_or_else(|error| panic!("{name} must fit: {error}"));
        let error = read_with(&exceeds, small).expect_err(name);
        assert!(matches!(error, ArchiveError::Limit { .. }) && error.to_string().contains(name), "{name}: {error}");
    }
}

#[test]
fn a_hole_counts_as_size() {
    let huge = Member::file("a", &sparse_data(&[(0, 0)], b""))
        .pax("GNU.sparse.major", b"1")
        .pax("GNU.sparse.minor", b"0")
        .pax("GNU.sparse.realsize", b"9223372036854775807");
    assert!(matches!(read(&archive(&[huge])), Err(ArchiveError::Limit { .. })));
}

#[test]
fn nothing_comes_after_an_error() {
    let bytes = archive(&[Member::file("../a", b""), Member::file("b", b"")]);
    let mut reader = Reader::new(&bytes[..], Limits::STANDARD, Hashing::None).expect("plain");
    assert!(reader.next_entry().is_err());
    assert!(reader.next_entry().expect_err("still").to_string().contains("an earlier error"));
    assert!(reader.read_data().is_err());
    assert!(reader.totals().is_none());
}
