//! Honest archives come out as they are.

use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};

use super::*;
use crate::unpack::Progress;

#[test]
fn kinds_modes_times_and_content() {
    let scratch = Scratch::new("kinds");
    let summary = scratch
        .unpack(&[
            Member::directory("./").mode(0o750),
            Member::directory("closed/").mode(0o555),
            Member::directory("closed/shut").mode(0),
            Member::file("closed/shut/file", b"inside").mode(0o444),
            Member::file("closed/late", b"late").mode(0o6755).pax("mtime", b"100.25"),
            Member::hard_link("name", "closed/late"),
            Member::symlink("link", "../../nowhere"),
            Member::new(b"pipe", b'6', b"").mode(0o622),
            Member::file("implied/dir/file", b""),
            Member::new(b"\xff\xfe", b'0', b"bytes"),
        ])
        .expect("valid");
    let counts = summary.counts;
    assert_eq!((counts.files, counts.directories, counts.implied_directories), (4, 3, 2));
    assert_eq!((counts.symlinks, counts.hard_links, counts.fifos, counts.file_bytes), (1, 1, 1, 15));
    let mode = |name: &str| fs::symlink_metadata(scratch.at(name)).expect(name).mode() & 0o7777;
    assert_eq!((mode(""), mode("closed"), mode("closed/shut")), (0o750, 0o555, 0));
    assert_eq!((mode("closed/late"), mode("pipe"), mode("implied/dir")), (0o6755, 0o622, 0o755));
    for name in ["", "closed", "closed/shut", "link", "pipe"] {
        assert_eq!(fs::symlink_metadata(scratch.at(name)).expect(name).mtime(), 1_000_000_000, "{name}");
    }
    let late = fs::metadata(scratch.at("closed/late")).expect("late");
    assert_eq!((late.mtime(), late.mtime_nsec(), late.nlink()), (100, 250_000_000, 2));
    assert_eq!(late.ino(), fs::metadata(scratch.at("name")).expect("name").ino());
    assert_eq!(fs::read_link(scratch.at("link")).expect("link"), Path::new("../../nowhere"));
    assert!(fs::metadata(scratch.at("pipe")).expect("pipe").file_type().is_fifo());
    assert_eq!(fs::read(scratch.at(std::ffi::OsStr::from_bytes(b"\xff\xfe"))).expect("bytes"), b"bytes");
    fs::set_permissions(scratch.at("closed/shut"), fs::Permissions::from_mode(0o755)).expect("open");
    assert_eq!(fs::read(scratch.at("closed/shut/file")).expect("inside"), b"inside");
}

#[test]
fn later_entries_replace_earlier_ones_without_writing_through() {
    let scratch = Scratch::new("replace");
    fs::write(scratch.0.join("outside"), "untouched").expect("write");
    scratch
        .unpack(&[
            Member::file("file", b"old"),
            Member::hard_link("kept", "file"),
            Member::file("file", b"new"),
            Member::symlink("link", "../outside"),
            Member::file("link", b"a file now"),
            Member::directory("dir"),
            Member::file("dir/sub/file", b""),
            Member::file("dir", b"a file now"),
            Member::symlink("todir", ".."),
            Member::directory("todir").mode(0o700),
            Member::directory("again").mode(0o700),
            Member::file("again/file", b""),
            Member::directory("again").mode(0o711),
            Member::file("linked", b"x"),
            Member::hard_link("linked2", "linked"),
            Member::hard_link("linked2", "linked"),
        ])
        .expect("valid");
    let read = |name: &str| fs::read_to_string(scratch.at(name)).expect(name);
    assert_eq!((read("file"), read("kept")), ("new".into(), "old".into()));
    assert_eq!((read("link"), read("dir")), ("a file now".into(), "a file now".into()));
    assert!(fs::symlink_metadata(scratch.at("todir")).expect("todir").is_dir());
    assert_eq!(fs::metadata(scratch.at("again")).expect("again").mode() & 0o777, 0o711);
    assert!(scratch.at("again/file").exists());
    assert_eq!(fs::read_to_string(scratch.0.join("outside")).expect("outside"), "untouched");
}

#[test]
fn owners() {
    let scratch = Scratch::new("owners");
    let members = [
        Member::directory("d").owner(5, 6),
        Member::file("d/f", b"").owner(7, 8).mode(0o4755),
        Member::symlink("s", "x").owner(9, 10),
    ];
    let single = Options { ownership: Ownership::Single, ..options() };
    scratch.unpack_as(&archive(&members), &single).expect("anybody can");
    let owner = |name: &str| fs::symlink_metadata(scratch.at(name)).map(|m| (m.uid(), m.gid())).expect(name);
    let me = rustix::process::geteuid().as_raw();
    assert_eq!((owner("d").0, owner("d/f").0, owner("s").0), (me, me, me));

    let shift = |base, count| Options { ownership: Ownership::Shift { base, count }, ..options() };
    assert_eq!(refusal(scratch.unpack_as(&archive(&members), &shift(0, 5))), Some(Refusal::Owner));
    let keep = scratch.unpack_as(&archive(&members), &Options { ownership: Ownership::Keep, ..options() });
    if is_root() {
        keep.expect("root can");
        assert_eq!((owner("d"), owner("d/f"), owner("s")), ((5, 6), (7, 8), (9, 10)));
        assert_eq!(
            fs::metadata(scratch.at("d/f")).expect("f").mode() & 0o7777,
            0o4755,
            "chown must not cost the setuid bit"
        );
        scratch.unpack_as(&archive(&members), &shift(100_000, 11)).expect("root can");
        assert_eq!(
            (owner("d"), owner("d/f"), owner("s")),
            ((100_005, 100_006), (100_007, 100_008), (100_009, 100_010))
        );
        assert_eq!(refusal(scratch.unpack_as(&archive(&members), &shift(u32::MAX - 5, 100))), Some(Refusal::Owner));
    } else {
        assert!(matches!(keep, Err(UnpackError::Os { operation: "change the owner of", .. })), "{keep:?}");
    }
}

#[test]
fn devices_are_made_or_counted() {
    let scratch = Scratch::new("devices");
    let members = [
        Member::file("null", b"in the way"),
        Member::device("null", b'3', 1, 3),
        Member::device("loop", b'4', 7, 0),
        Member::hard_link("zero", "null"),
        Member::file("after", b""),
    ];
    let summary = scratch.unpack(&members).expect("without devices");
    assert_eq!((summary.counts.devices, summary.counts.skipped_devices), (0, 3));
    assert_eq!(scratch.names(), ["after"]);
    let made = scratch.unpack_as(&archive(&members), &Options { devices: true, ..options() });
    if is_root() {
        assert_eq!(made.expect("root can").counts.devices, 2);
        let null = fs::metadata(scratch.at("zero")).expect("zero");
        assert!(null.file_type().is_char_device() && null.rdev() == rustix::fs::makedev(1, 3));
    } else {
        assert!(matches!(made, Err(UnpackError::Os { operation: "create the node", .. })), "{made:?}");
    }
}

#[test]
fn attributes() {
    let scratch = Scratch::new("xattrs");
    // The attribute of `ping` in many images: version 2, cap_net_raw permitted and effective.
    let capability = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let member = |member: Member| {
        member
            .pax("SCHILY.xattr.user.note", b"value")
            .pax("SCHILY.xattr.security.selinux", b"x")
            .pax("SCHILY.xattr.trusted.a", b"x")
    };
    let summary = scratch
        .unpack(&[
            member(Member::directory("dir")).mode(0o555),
            member(Member::file("file", b"x"))
                .mode(0o444)
                .owner(1, 1)
                .pax("SCHILY.xattr.security.capability", &capability),
            member(Member::symlink("link", "file")),
        ])
        .expect("valid");
    assert_eq!(xattr(&scratch.at("dir"), "user.note").as_deref(), Some(&b"value"[..]));
    assert_eq!(xattr(&scratch.at("file"), "user.note").as_deref(), Some(&b"value"[..]));
    assert_eq!(xattr(&scratch.at("file"), "trusted.a"), None);
    if is_root() {
        assert_eq!(xattr(&scratch.at("file"), "security.capability").as_deref(), Some(&capability[..]));
        assert_eq!(summary.counts.skipped_xattrs, 7);
    } else {
        assert_eq!(summary.counts.skipped_xattrs, 8);
    }
}

#[test]
fn holes_stay_holes() {
    let scratch = Scratch::new("sparse");
    let mut data = b"2\n0\n512\n67108864\n4\n".to_vec();
    data.resize(512, 0);
    data.extend([1; 512]);
    data.extend(b"tail");
    let sparse = Member::file("made-up", &data)
        .pax("GNU.sparse.major", b"1")
        .pax("GNU.sparse.minor", b"0")
        .pax("GNU.sparse.name", b"sparse")
        .pax("GNU.sparse.realsize", b"134217728");
    let summary = scratch.unpack(&[sparse]).expect("valid");
    assert_eq!(summary.counts.file_bytes, 516);
    let file = fs::metadata(scratch.at("sparse")).expect("file");
    assert_eq!(file.len(), 128 << 20);
    assert!(file.blocks() * 512 < 1 << 20, "{} blocks", file.blocks());
    let content = fs::read(scratch.at("sparse")).expect("content");
    assert!(content[..512] == [1; 512] && &content[64 << 20..][..4] == b"tail");
    assert_eq!(content.iter().filter(|byte| **byte != 0).count(), 516);
}

#[test]
fn progress_and_digests() {
    let scratch = Scratch::new("progress");
    let mut noise = Vec::new();
    let mut state = 1u32;
    noise.resize_with(3 << 20, || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    });
    let plain = archive(&[Member::directory("d"), Member::file("d/noise", &noise)]);
    let bytes = gzip(&plain);
    let root = fs::File::open(scratch.root()).expect("root");
    let mut told: Vec<Progress> = Vec::new();
    let options = Options { hashing: Hashing::Both, ..options() };
    let summary = unpack(&bytes[..], root.as_fd(), &options, &mut |progress| told.push(progress)).expect("valid");
    assert!(told.len() > 5 && told.is_sorted_by_key(|told| (told.entries, told.archive_bytes, told.stream_bytes)));
    assert_eq!(told.last().expect("told").entries, 2);
    assert_eq!(summary.totals.source_bytes, bytes.len() as u64);
    use sha2::{Digest, Sha256};
    assert_eq!(summary.totals.source_digest, Some(Sha256::digest(&bytes).into()));
    assert_eq!(summary.totals.stream_digest, Some(Sha256::digest(&plain).into()));
    assert_eq!(fs::read(scratch.at("d/noise")).expect("noise"), noise);
}

#[test]
fn a_full_file_system_is_told_apart() {
    // Filling a disk needs a mount of its own; that the errno becomes the right kind does not.
    let full = UnpackError::os("write", b"a\x1b", rustix::io::Errno::NOSPC);
    assert_eq!(full.to_string(), "no space left while unpacking `a\\u{1b}`");
    assert!(matches!(UnpackError::os("write", b"a", rustix::io::Errno::DQUOT), UnpackError::NoSpace { .. }));
    assert!(matches!(UnpackError::os("write", b"a", rustix::io::Errno::IO), UnpackError::Os { .. }));
}
