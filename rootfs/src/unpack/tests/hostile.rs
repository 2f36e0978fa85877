//! Archives that try to get out of the destination. Each has a twin that does the same honestly and works.

use std::os::unix::fs::MetadataExt;

use super::*;

/// Hostile members, and what they are refused for.
fn attacks(outside: &str) -> Vec<(&'static str, Vec<Member>, Refusal)> {
    use Refusal::*;
    let d = Member::directory;
    let f = |name: &str| Member::file(name, b"evil");
    let s = Member::symlink;
    vec![
        ("write through a link up", vec![s("link", ".."), f("link/evil")], ThroughLink),
        ("write through an absolute link", vec![s("link", outside), f("link/evil")], ThroughLink),
        ("write through a link inside", vec![d("real"), s("link", "real"), f("link/evil")], ThroughLink),
        ("write through a chain", vec![s("a", "b"), s("b", ".."), f("a/evil")], ThroughLink),
        ("write through a later link", vec![d("dir"), f("dir/x"), s("dir", ".."), f("dir/evil")], ThroughLink),
        ("write through a link below", vec![d("a/b"), s("a/b/c", "../../.."), f("a/b/c/evil")], ThroughLink),
        ("directory through a link", vec![s("link", ".."), d("link/evil")], ThroughLink),
        ("link through a link", vec![s("link", ".."), s("link/evil", "x")], ThroughLink),
        ("pipe through a link", vec![s("link", ".."), Member::new(b"link/evil", b'6', b"")], ThroughLink),
        ("hard link through a link", vec![f("f"), s("link", ".."), Member::hard_link("link/evil", "f")], ThroughLink),
        ("whiteout through a link", vec![s("link", ".."), Member::file("link/.wh.victim", b"")], ThroughLink),
        ("opaque through a link", vec![s("link", ".."), Member::file("link/.wh..wh..opq", b"")], ThroughLink),
        (
            "hard link to what is behind a link",
            vec![s("link", ".."), Member::hard_link("evil", "link/victim")],
            ThroughLink,
        ),
        ("hard link to nothing", vec![Member::hard_link("evil", "etc/passwd")], LinkTarget),
        ("hard link to an absolute path", vec![Member::hard_link("evil", "/etc/passwd")], LinkTarget),
        ("hard link to a later entry", vec![Member::hard_link("evil", "f"), f("f")], LinkTarget),
        ("hard link below itself", vec![d("a"), f("a/b"), Member::hard_link("a", "a/b")], LinkTarget),
        ("hard link to a directory", vec![d("d"), Member::hard_link("evil", "d")], LinkToDirectory),
        ("path through a file", vec![f("file"), f("file/evil")], NotADirectory),
        ("path through a pipe", vec![Member::new(b"p", b'6', b""), f("p/evil")], NotADirectory),
        ("whiteout of the parent", vec![d("d"), Member::file("d/.wh...", b"")], Whiteout),
        ("whiteout of itself", vec![Member::file(".wh..", b"")], Whiteout),
        ("whiteout without a name", vec![Member::file(".wh.", b"")], Whiteout),
        ("whiteout with content", vec![f(".wh.a")], Whiteout),
        ("whiteout that is a link", vec![s(".wh.a", "x")], Whiteout),
        ("opaque that is a directory", vec![d(".wh..wh..opq")], Whiteout),
        ("aufs files", vec![Member::file(".wh..wh.plnk", b"")], ReservedName),
        ("path through a whiteout", vec![f(".wh.a/b")], ReservedName),
        ("hard link to a whiteout", vec![Member::file(".wh.a", b""), Member::hard_link("b", ".wh.a")], ReservedName),
        ("overlay whiteout device", vec![Member::device("a", b'3', 0, 0)], OverlayDevice),
        (
            "overlay whiteout attribute",
            vec![Member::file("a", b"").pax("SCHILY.xattr.user.overlay.whiteout", b"y")],
            OverlayXattr,
        ),
        ("overlay opaque attribute", vec![d("a").pax("SCHILY.xattr.trusted.overlay.opaque", b"y")], OverlayXattr),
        (
            "overlay redirect, other spelling",
            vec![d("a").pax("LIBARCHIVE.xattr.user.overlay.redirect", b"L2V0Yw")],
            OverlayXattr,
        ),
        ("overlay attribute on the root", vec![d("./").pax("SCHILY.xattr.user.overlay.opaque", b"y")], OverlayXattr),
    ]
}

#[test]
fn attacks_are_refused_and_nothing_gets_out() {
    let names = attacks("/").len();
    for index in 0..names {
        let scratch = Scratch::new(&format!("attack{index}"));
        let victim = scratch.0.join("victim");
        fs::write(&victim, "untouched").expect("write");
        let outside = scratch.0.to_string_lossy().into_owned();
        let (name, members, expected) = attacks(&outside).swap_remove(index);
        for form in [OverlayForm::Flatten, OverlayForm::User] {
            let result = scratch.layer(form, &members);
            assert_eq!(refusal(result), Some(expected), "{name}");
            assert_eq!(scratch.escaped(), ["victim"], "{name}");
            assert_eq!(fs::read_to_string(&victim).expect("victim"), "untouched", "{name}");
            assert_eq!(fs::metadata(&victim).expect("victim").nlink(), 1, "{name}");
            let root = fs::File::open(&scratch.0).expect("scratch");
            cellblock_sys::tree::remove(root.as_fd(), "root".as_ref()).expect("remove");
            fs::create_dir(scratch.root()).expect("mkdir");
        }
    }
}

/// The same shapes without the evil: the refusals above are not for other reasons.
#[test]
fn honest_twins_work() {
    let twins: Vec<(&str, Vec<Member>)> = vec![
        ("write beside a link", vec![Member::symlink("link", ".."), Member::file("real/good", b"")]),
        ("a link up, unused", vec![Member::symlink("link", "../../../etc"), Member::symlink("abs", "/etc/passwd")]),
        (
            "a directory in place of a link",
            vec![Member::symlink("dir", ".."), Member::directory("dir"), Member::file("dir/good", b"")],
        ),
        ("hard link to a file", vec![Member::file("d/f", b""), Member::hard_link("good", "./d/f")]),
        ("hard link, absolute spelling", vec![Member::file("f", b""), Member::hard_link("good", "/f")]),
        ("hard link to a link", vec![Member::symlink("l", "../victim"), Member::hard_link("good", "l")]),
        (
            "a real directory in place of a file",
            vec![Member::file("d", b""), Member::directory("d"), Member::file("d/good", b"")],
        ),
        ("whiteout of a name with dots", vec![Member::file("d/.wh....", b"")]),
        ("attributes of others", vec![Member::file("f", b"").pax("SCHILY.xattr.user.overlays", b"y")]),
        ("another device", vec![Member::device("null", b'3', 1, 3)]),
    ];
    for (index, (name, members)) in twins.into_iter().enumerate() {
        let scratch = Scratch::new(&format!("twin{index}"));
        scratch.unpack(&members).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(scratch.escaped().is_empty(), "{name}");
    }
}

#[test]
fn hard_links_to_links_are_not_followed() {
    let scratch = Scratch::new("hardlink-link");
    fs::write(scratch.0.join("victim"), "x").expect("write");
    scratch.unpack(&[Member::symlink("l", "../victim"), Member::hard_link("h", "l")]).expect("valid");
    assert!(fs::symlink_metadata(scratch.at("h")).expect("h").is_symlink());
    assert_eq!(fs::metadata(scratch.0.join("victim")).expect("victim").nlink(), 1);
}

#[test]
fn links_of_an_earlier_layer_are_not_followed_either() {
    let scratch = Scratch::new("earlier");
    std::os::unix::fs::symlink("..", scratch.at("lib")).expect("symlink");
    assert_eq!(refusal(scratch.unpack(&[Member::file("lib/evil", b"")])), Some(Refusal::ThroughLink));
    scratch.unpack(&[Member::file("lib", b"replaced")]).expect("the link itself can be replaced");
    assert!(scratch.escaped().is_empty());
}

#[test]
fn depth_is_bounded_and_bounded_depth_works() {
    let scratch = Scratch::new("depth");
    let deep = |depth| Member::file("f", b"deep").pax("path", &[b"d/".repeat(depth), b"f".to_vec()].concat());
    assert!(matches!(scratch.unpack(&[deep(256)]), Err(UnpackError::Archive(_))));
    scratch.unpack(&[deep(255), deep(3), deep(254)]).expect("deep enough for anybody");
    assert_eq!(fs::read(scratch.at(format!("{}f", "d/".repeat(255)))).expect("deep"), b"deep");
}

#[test]
fn implied_directories_count_against_the_limits() {
    let scratch = Scratch::new("implied");
    let members = [Member::file("a/b/c/d/e/f", b"")];
    let with = |entries| Options { limits: Limits { entries, ..Limits::STANDARD }, ..options() };
    assert!(matches!(scratch.unpack_as(&archive(&members), &with(5)), Err(UnpackError::Archive(_))));
    scratch.unpack_as(&archive(&members), &with(6)).expect("exactly enough");
}

#[test]
fn cut_archives_are_errors_wherever_they_are_cut() {
    let whole = archive(&[Member::directory("d"), Member::file("d/f", &[1; 600]), Member::symlink("l", "d")]);
    let scratch = Scratch::new("cut");
    for length in (0..whole.len()).step_by(64) {
        assert!(matches!(scratch.unpack_as(&whole[..length], &options()), Err(UnpackError::Archive(_))), "at {length}");
    }
    scratch.unpack_as(&whole, &options()).expect("uncut, over the remains of the others");
}
