//! Whiteouts and opaque directories, in each form.

use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};

use super::*;

fn whiteout(name: &str) -> Member {
    Member::file(name, b"")
}

#[test]
fn user_form_marks_as_overlayfs_reads_it() {
    let scratch = Scratch::new("user-form");
    let summary = scratch
        .layer(
            OverlayForm::User,
            &[
                Member::directory("etc").mode(0o555),
                whiteout("etc/.wh.gone"),
                whiteout("etc/.wh.gone"),
                Member::directory("opt"),
                whiteout("opt/.wh..wh..opq"),
                whiteout("opt/.wh.needless"),
                Member::file("opt/new", b""),
                Member::directory("var"),
                whiteout("var/.wh.old"),
                whiteout("var/.wh..wh..opq"),
                whiteout("deep/er/.wh.x"),
            ],
        )
        .expect("valid");
    assert_eq!((summary.counts.whiteouts, summary.counts.opaque_directories), (5, 2));
    assert_eq!(scratch.names(), ["deep", "deep/er", "deep/er/x", "etc", "etc/gone", "opt", "opt/new", "var"]);
    assert_eq!(xattr(&scratch.at("etc"), "user.overlay.opaque").as_deref(), Some(&b"x"[..]));
    assert_eq!(xattr(&scratch.at("deep/er"), "user.overlay.opaque").as_deref(), Some(&b"x"[..]));
    assert_eq!(xattr(&scratch.at("deep"), "user.overlay.opaque"), None);
    assert_eq!(xattr(&scratch.at("opt"), "user.overlay.opaque").as_deref(), Some(&b"y"[..]));
    assert_eq!(xattr(&scratch.at("var"), "user.overlay.opaque").as_deref(), Some(&b"y"[..]));
    assert!(xattr(&scratch.at("etc/gone"), "user.overlay.whiteout").is_some());
    assert_eq!(fs::metadata(scratch.at("etc/gone")).expect("gone").len(), 0);
    assert_eq!(fs::metadata(scratch.at("etc")).expect("etc").mode() & 0o777, 0o555);
}

#[test]
fn trusted_form_needs_root() {
    let scratch = Scratch::new("trusted-form");
    let members = [Member::directory("d"), whiteout("d/.wh.gone"), Member::directory("o"), whiteout("o/.wh..wh..opq")];
    let result = scratch.layer(OverlayForm::Trusted, &members);
    if is_root() {
        result.expect("valid");
        let gone = fs::metadata(scratch.at("d/gone")).expect("gone");
        assert!(gone.file_type().is_char_device() && gone.rdev() == 0);
        assert_eq!(xattr(&scratch.at("o"), "trusted.overlay.opaque").as_deref(), Some(&b"y"[..]));
        assert_eq!(xattr(&scratch.at("d"), "trusted.overlay.opaque"), None);
    } else {
        assert!(
            matches!(result, Err(UnpackError::Os { operation: "mark for overlayfs the directory", .. })),
            "{result:?}"
        );
    }
}

/// A name that a layer both deletes and has: the layer's own stays, and the lower one does not shine through.
#[test]
fn deleted_and_made_anew() {
    let anew = [Member::directory("d"), Member::file("d/new", b"")];
    for (name, members) in [
        ("first", [&[whiteout(".wh.d")][..], &anew].concat()),
        ("last", [&anew[..], &[whiteout(".wh.d")]].concat()),
        ("between", [&anew[..1], &[whiteout("d/.wh.x"), whiteout(".wh.d")], &anew[1..]].concat()),
    ] {
        let scratch = Scratch::new(&format!("anew-{name}"));
        scratch.layer(OverlayForm::User, &members).expect("valid");
        assert_eq!(scratch.names(), ["d", "d/new"], "{name}");
        assert_eq!(xattr(&scratch.at("d"), "user.overlay.opaque").as_deref(), Some(&b"y"[..]), "{name}");
    }
    let scratch = Scratch::new("anew-file");
    let members = [whiteout(".wh.f"), Member::file("f", b"new"), Member::file("g", b"new"), whiteout(".wh.g")];
    scratch.layer(OverlayForm::User, &members).expect("valid");
    assert_eq!(fs::read(scratch.at("f")).expect("f"), b"new");
    assert_eq!(fs::read(scratch.at("g")).expect("g"), b"new");
    assert_eq!(xattr(&scratch.at("f"), "user.overlay.whiteout"), None);
}

#[test]
fn a_whiteout_is_no_target() {
    let scratch = Scratch::new("whiteout-target");
    let link = |target| [Member::file("real", b""), whiteout(".wh.gone"), Member::hard_link("link", target)];
    assert_eq!(refusal(scratch.layer(OverlayForm::User, &link("gone"))), Some(Refusal::LinkTarget));
    scratch.layer(OverlayForm::User, &link("real")).expect("the probe works");
}

#[test]
fn flattening_deletes_what_earlier_layers_left_and_only_that() {
    let scratch = Scratch::new("flatten");
    let lower = [
        Member::directory("etc"),
        Member::file("etc/gone", b""),
        Member::file("etc/stays", b"lower"),
        Member::file("opt/a/b/old", b""),
        Member::file("opt/a/kept-by-upper", b"lower"),
        Member::file("tree/x/y/z", b""),
        Member::directory("closed").mode(0o555),
        Member::file("closed/gone", b""),
        Member::symlink("link", "etc"),
        Member::file("both/lower", b""),
    ];
    scratch.unpack(&lower).expect("lower");
    let upper = [
        whiteout("etc/.wh.gone"),
        whiteout("etc/.wh.never-there"),
        Member::directory("opt/a"),
        Member::file("opt/a/kept-by-upper", b"upper"),
        whiteout("opt/.wh..wh..opq"),
        whiteout(".wh.tree"),
        whiteout("closed/.wh.gone"),
        whiteout(".wh.link"),
        Member::file("both/upper", b""),
        whiteout(".wh.both"),
    ];
    scratch.unpack(&upper).expect("upper");
    assert_eq!(
        scratch.names(),
        ["both", "both/upper", "closed", "etc", "etc/stays", "opt", "opt/a", "opt/a/kept-by-upper"]
    );
    assert_eq!(fs::read(scratch.at("opt/a/kept-by-upper")).expect("kept"), b"upper");
    assert_eq!(fs::metadata(scratch.at("closed")).expect("closed").mode() & 0o777, 0o555, "closed again");
}

#[test]
fn flattening_into_closed_directories() {
    let scratch = Scratch::new("flatten-closed");
    scratch.unpack(&[Member::directory("a").mode(0o500), Member::directory("a/b").mode(0)]).expect("lower");
    scratch.unpack(&[Member::file("a/b/c", b"x"), Member::directory("a/b").mode(0o111)]).expect("upper");
    let mode = |name: &str| fs::metadata(scratch.at(name)).expect(name).mode() & 0o777;
    assert_eq!((mode("a"), mode("a/b")), (0o500, 0o111));
    fs::set_permissions(scratch.at("a/b"), fs::Permissions::from_mode(0o700)).expect("chmod");
    assert_eq!(fs::read(scratch.at("a/b/c")).expect("c"), b"x");
}
