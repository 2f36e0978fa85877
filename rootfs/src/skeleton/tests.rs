//! Tests of whole skeletons, over made-up images.

use std::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

use cellblock_bundle::{Extent, IdScheme, Ids, Mount, Network, User};

use super::*;
use crate::host::HostImage;

fn user() -> User {
    User {
        uid: 1000,
        gid: 1000,
        groups: vec![],
        name: "ada".into(),
        group: "ada".into(),
        home: "/home/ada".into(),
        shell: "/bin/sh".into(),
    }
}

fn about(user: &User) -> About<'_> {
    About { name: "cell", hostname: "cell", user, network: Network::None, resolv_conf: None, hosts: None }
}

struct Image(tempfile::TempDir);

impl Image {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, path: &str) -> PathBuf {
        self.0.path().join(path)
    }

    fn dir(self, path: &str) -> Self {
        fs::create_dir_all(self.path(path)).unwrap();
        self
    }

    fn file(self, path: &str, text: &str) -> Self {
        fs::create_dir_all(self.path(path).parent().unwrap()).unwrap();
        fs::write(self.path(path), text).unwrap();
        self
    }

    fn link(self, path: &str, target: &str) -> Self {
        fs::create_dir_all(self.path(path).parent().unwrap()).unwrap();
        symlink(target, self.path(path)).unwrap();
        self
    }

    /// A mark of overlayfs; `None` on a file system without such attributes.
    fn mark(self, path: &str, name: &str, value: &[u8]) -> Option<Self> {
        rustix::fs::setxattr(self.path(path), name, value, rustix::fs::XattrFlags::empty()).ok().map(|()| self)
    }
}

/// The plan over images, the topmost first.
fn over(images: &[&Image]) -> Result<Plan, SkeletonError> {
    let layers: Vec<PathBuf> = images.iter().map(|image| image.0.path().to_owned()).collect();
    plan(&about(&user()), Base::Layers(&layers))
}

fn text(plan: &Plan, path: &str) -> String {
    match plan.get(path) {
        Some(Entry::File { text }) => text.clone(),
        other => panic!("{path} is {other:?}"),
    }
}

const ADA: &str = "ada:x:1000:1000::/home/ada:/bin/sh\n";

#[test]
fn every_cell_has_the_places_and_files_it_needs() {
    let plan = over(&[&Image::new()]).unwrap();
    for path in ["/dev", "/proc", "/sys", "/etc", "/run"] {
        assert_eq!(plan.get(path), Some(&Entry::directory(0o755)), "{path}");
    }
    for path in ["/tmp", "/var/tmp"] {
        assert_eq!(plan.get(path), Some(&Entry::directory(0o1777)), "{path}");
    }
    assert_eq!(plan.get("/home/ada"), Some(&Entry::Directory { mode: 0o700, owner: Owner::Person }));
    assert!(text(&plan, "/etc/passwd").starts_with("root:x:0:0:") && text(&plan, "/etc/passwd").ends_with(ADA));
    assert_eq!(text(&plan, "/etc/hostname"), "cell\n");
    assert!(text(&plan, "/etc/hosts").contains("127.0.1.1\tcell\n"));
    assert!(text(&plan, "/etc/resolv.conf").starts_with('#'));
    assert!(text(&plan, "/etc/nsswitch.conf").contains("hosts: files dns\n"));
    assert_eq!(text(&plan, "/etc/machine-id"), format!("{}\n", machine_id("cell")));
    assert_eq!(plan.get("/etc/mtab"), Some(&Entry::link("../proc/self/mounts")));
}

#[test]
fn what_an_image_has_stays_its_own() {
    let image = Image::new()
        .file("etc/passwd", "root:x:0:0::/root:/bin/ash\n")
        .file("etc/nsswitch.conf", "hosts: files\n")
        .dir("tmp")
        .link("var", "srv")
        .dir("home/ada");
    let plan = over(&[&image]).unwrap();
    assert_eq!(text(&plan, "/etc/passwd"), format!("root:x:0:0::/root:/bin/ash\n{ADA}"));
    for path in ["/etc/nsswitch.conf", "/tmp", "/var", "/home/ada"] {
        assert_eq!(plan.get(path), None, "{path}");
    }
}

#[test]
fn links_where_the_runtime_mounts_are_replaced() {
    let image = Image::new().link("dev", "/somewhere").link("proc", "/somewhere").link("sys", "../..").dir("etc");
    let plan = over(&[&image]).unwrap();
    for path in ["/dev", "/proc", "/sys"] {
        assert_eq!(plan.get(path), Some(&Entry::directory(0o755)), "{path}");
    }
}

#[test]
fn an_etc_that_is_no_directory_is_refused_and_says_what_it_is() {
    let error = over(&[&Image::new().link("etc", "/somewhere")]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the image's /etc is a symbolic link to /somewhere: its files could not be seen behind the cell's own /etc"
    );
    let error = over(&[&Image::new().file("etc", "")]).unwrap_err();
    assert!(matches!(error, SkeletonError::EtcIsNoDirectory { .. }));
    // In a lower layer: the directory above hides it, as overlayfs would.
    over(&[&Image::new().dir("etc"), &Image::new().link("etc", "/somewhere")]).unwrap();
    let error = over(&[&Image::new(), &Image::new().link("etc", "/somewhere")]).unwrap_err();
    assert!(matches!(error, SkeletonError::EtcIsNoDirectory { .. }));
}

#[test]
fn the_topmost_layer_with_a_file_counts() {
    let top = Image::new().file("etc/passwd", "top:x:1:1::/:/\n");
    let base = Image::new().file("etc/passwd", "base:x:2:2::/:/\n").file("etc/group", "base:x:2:\n");
    let plan = over(&[&top, &base]).unwrap();
    assert_eq!(text(&plan, "/etc/passwd"), format!("top:x:1:1::/:/\n{ADA}"));
    assert_eq!(text(&plan, "/etc/group"), "base:x:2:\nada:x:1000:\n");
}

#[test]
fn whiteouts_and_opaque_directories_hide_what_is_below() {
    let base = || Image::new().file("etc/passwd", "base:x:2:2::/:/\n").dir("tmp");
    let opaque = Image::new().dir("etc").mark("etc", "user.overlay.opaque", b"y");
    let white = Image::new().file("etc/passwd", "").mark("etc/passwd", "user.overlay.whiteout", b"");
    // Positive twin: without the mark the file below shows.
    let plan = over(&[&Image::new().dir("etc"), &base()]).unwrap();
    assert!(text(&plan, "/etc/passwd").starts_with("base:"));
    for image in [opaque, white].into_iter().flatten() {
        let plan = over(&[&image, &base()]).unwrap();
        assert!(text(&plan, "/etc/passwd").starts_with("root:"), "{:?}", plan.get("/etc/passwd"));
    }
    // A file where a directory would have to be hides it too.
    let plan = over(&[&Image::new().file("tmp", ""), &base()]).unwrap();
    assert_eq!(plan.get("/tmp"), None);
    // A whiteout as real root's overlays have it; making one takes root.
    let device = Image::new().dir("etc");
    let made = rustix::fs::mknodat(
        rustix::fs::CWD,
        device.path("etc/passwd"),
        rustix::fs::FileType::CharacterDevice,
        rustix::fs::Mode::empty(),
        0,
    );
    if made.is_ok() {
        assert!(text(&over(&[&device, &base()]).unwrap(), "/etc/passwd").starts_with("root:"));
    }
}

#[test]
fn links_of_an_image_are_followed_within_it_only() {
    let outside = Image::new().file("passwd", "outside:x:9:9::/:/\n");
    let up = format!("{}{}", "../".repeat(30), outside.path("passwd").display());
    for target in [outside.path("passwd").display().to_string(), up] {
        let plan = over(&[&Image::new().link("etc/passwd", &target)]).unwrap();
        assert!(!text(&plan, "/etc/passwd").contains("outside"), "{target}");
    }
    // Positive twins: within the image and across its layers, absolute and not.
    for target in ["/usr/lib/passwd", "../usr/lib/passwd", "/../../usr/lib/passwd"] {
        let base = Image::new().file("usr/lib/passwd", "inside:x:9:9::/:/\n");
        let plan = over(&[&Image::new().link("etc/passwd", target), &base]).unwrap();
        assert!(text(&plan, "/etc/passwd").starts_with("inside:"), "{target}");
    }
    let linked =
        Image::new().link("usr/lib", "lib64").file("usr/lib64/p", "far:x:9:9::/:/\n").link("etc/passwd", "/usr/lib/p");
    assert!(text(&over(&[&linked]).unwrap(), "/etc/passwd").starts_with("far:"));
    let ring = Image::new().link("etc/passwd", "group").link("etc/group", "passwd");
    assert!(text(&over(&[&ring]).unwrap(), "/etc/passwd").starts_with("root:"));
}

#[test]
fn hostile_account_files_neither_block_nor_fill_memory() {
    let image = Image::new().dir("etc");
    let mode = rustix::fs::Mode::from_raw_mode(0o644);
    rustix::fs::mknodat(rustix::fs::CWD, image.path("etc/passwd"), rustix::fs::FileType::Fifo, mode, 0).unwrap();
    assert!(text(&over(&[&image]).unwrap(), "/etc/passwd").starts_with("root:"));
    let large = Image::new().file("etc/passwd", "");
    fs::File::options().write(true).open(large.path("etc/passwd")).unwrap().set_len(1 << 40).unwrap();
    assert!(matches!(over(&[&large]), Err(SkeletonError::TooLarge { .. })));
    let binary = Image::new().dir("etc");
    fs::write(binary.path("etc/passwd"), b"g\xe9:x:7:7:\xff:/:/\n").unwrap();
    assert!(text(&over(&[&binary]).unwrap(), "/etc/passwd").ends_with(ADA));
}

#[test]
fn odd_homes() {
    let with = |home: &str| {
        let user = User { home: home.into(), ..user() };
        plan(&about(&user), Base::Layers(&[Image::new().0.path().to_owned()]))
    };
    for home in ["/", "/dev/null", "/proc/1"] {
        let plan = with(home).unwrap();
        assert!(
            !plan.entries().any(|(_, entry)| matches!(entry, Entry::Directory { owner: Owner::Person, .. })),
            "{home}"
        );
    }
    for home in ["/home/../etc", "relative", ""] {
        assert!(with(home).is_err(), "{home}");
    }
    assert!(with("/root").unwrap().get("/root").is_some());
}

#[test]
fn under_the_host_image_only_the_person_and_roots_are_known() {
    let host = HostImage {
        mounts: vec![Mount::Bind { source: "/usr".into(), target: "/usr".into(), writable: false }],
        entries: vec![
            ("/usr".into(), Entry::directory(0o755)),
            ("/bin".into(), Entry::link("usr/bin")),
            ("/etc/services".into(), Entry::Copy { from: "/etc/services".into() }),
        ],
    };
    let planned = plan(&about(&user()), Base::Host(&host)).unwrap();
    let names: Vec<String> =
        text(&planned, "/etc/passwd").lines().map(|l| l.split(':').next().unwrap().to_owned()).collect();
    assert_eq!(names, ["root", "nobody", "ada"]);
    assert_eq!(planned.get("/bin"), Some(&Entry::link("usr/bin")));
    assert_eq!(planned.get("/tmp"), Some(&Entry::directory(0o1777)));
    for (home, made) in [("/home/ada", true), ("/usr/lib/ada", false), ("/root", true)] {
        let user = User { home: home.into(), ..user() };
        let planned = plan(&about(&user), Base::Host(&host)).unwrap();
        let persons = Some(&Entry::Directory { mode: 0o700, owner: Owner::Person });
        assert_eq!(planned.get(home) == persons, made, "{home}");
    }
    let inside_a_link = User { home: "/bin/ada".into(), ..user() };
    assert!(matches!(plan(&about(&inside_a_link), Base::Host(&host)), Err(SkeletonError::Clash { .. })));
}

#[test]
fn plans_cannot_contradict_themselves() {
    let mut plan = Plan::default();
    plan.add("/a/b", Entry::file("")).unwrap();
    assert_eq!(plan.get("/a"), Some(&Entry::directory(0o755)));
    assert!(matches!(plan.add("/a/b/c", Entry::file("")), Err(SkeletonError::Clash { .. })));
    assert!(matches!(plan.add("/a", Entry::link("b")), Err(SkeletonError::Clash { .. })));
    assert!(matches!(plan.add("/a/b", Entry::file("")), Err(SkeletonError::Clash { .. })));
    for bad in ["a", "/", "/a/../b", "", "../a"] {
        assert!(matches!(plan.add(bad, Entry::file("")), Err(SkeletonError::Path { .. })), "{bad:?}");
    }
    let json = serde_json::to_string(&plan).unwrap();
    assert_eq!(serde_json::from_str::<Plan>(&json).unwrap(), plan);
    let evil = r#"{"a":{"type":"link","target":"/"},"a/b":{"type":"file","text":""}}"#;
    assert!(serde_json::from_str::<Plan>(evil).is_err());
    assert!(serde_json::from_str::<Plan>(r#"{"../a":{"type":"file","text":""}}"#).is_err());
}

#[test]
fn a_written_skeleton_is_what_was_planned() {
    let host = Image::new().file("services", "ssh 22/tcp\n");
    let mut plan = over(&[&Image::new()]).unwrap();
    plan.add("/etc/services", Entry::Copy { from: host.path("services") }).unwrap();
    plan.add("/etc/gone", Entry::Copy { from: host.path("gone") }).unwrap();
    let dir = tempfile::tempdir().unwrap();
    plan.write(fs::File::open(dir.path()).unwrap().as_fd(), &Owners::caller()).unwrap();
    let mode = |path: &str| fs::symlink_metadata(dir.path().join(path)).unwrap().permissions().mode() & 0o7777;
    assert_eq!(mode(""), 0o755);
    assert_eq!((mode("tmp"), mode("etc"), mode("home"), mode("home/ada")), (0o1777, 0o755, 0o755, 0o700));
    assert_eq!(mode("etc/passwd"), 0o644);
    assert_eq!(fs::read_to_string(dir.path().join("etc/services")).unwrap(), "ssh 22/tcp\n");
    assert!(!dir.path().join("etc/gone").exists());
    assert_eq!(fs::read_link(dir.path().join("etc/mtab")).unwrap(), Path::new("../proc/self/mounts"));
    // A directory that is not empty is not written into.
    let error = plan.write(fs::File::open(dir.path()).unwrap().as_fd(), &Owners::caller()).unwrap_err();
    assert!(matches!(error, SkeletonError::Write { .. }), "{error}");
}

/// Needs root, as giving files away does.
#[test]
fn privileged_owners_follow_the_id_scheme() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let shifted = |inside, outside, size| vec![Extent { inside, outside, size }];
    let ids = Ids { scheme: IdScheme::Shifted, uids: shifted(0, 500_000, 65_536), gids: shifted(0, 600_000, 65_536) };
    let dir = tempfile::tempdir().unwrap();
    let plan = over(&[&Image::new()]).unwrap();
    plan.write(fs::File::open(dir.path()).unwrap().as_fd(), &Owners::of(&ids, &user())).unwrap();
    let owner = |path: &str| {
        let metadata = fs::symlink_metadata(dir.path().join(path)).unwrap();
        (metadata.uid(), metadata.gid())
    };
    for path in ["", "etc", "etc/passwd", "etc/mtab", "tmp", "home"] {
        assert_eq!(owner(path), (500_000, 600_000), "{path}");
    }
    assert_eq!(owner("home/ada"), (501_000, 601_000));
    let single = Ids { scheme: IdScheme::Single, uids: shifted(1000, 1000, 1), gids: shifted(1000, 1000, 1) };
    assert_eq!(Owners::of(&single, &user()), Owners::caller());
    let range = Ids { scheme: IdScheme::Range, ..ids };
    assert_ne!(Owners::of(&range, &user()), Owners::caller());
}
