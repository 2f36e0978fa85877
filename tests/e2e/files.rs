//! What of the host a cell sees and can change (rows A7, A8, A14, C1).

use cellblock_tests::{World, is_root};

#[test]
fn the_workspace_stands_at_the_same_path() {
    let world = World::new();
    assert_eq!(world.cellblock("run -- pwd").ok().trim(), world.project().display().to_string());
    assert_eq!(world.cellblock("run -- cat file").ok(), "content\n");
    std::fs::create_dir(world.project().join("sub")).expect("mkdir");
    let below = world.cellblock("run -- pwd").dir(&world.project().join("sub")).ok();
    assert_eq!(below.trim(), world.project().join("sub").display().to_string());
}

#[test]
fn the_rest_of_the_home_is_hidden() {
    let world = World::new();
    world.write("home/.ssh/id_ed25519", "private");
    let home = world.cellblock("run -- sh -c 'ls -A ~'").ok();
    assert_eq!(home.trim(), ".gitconfig\ndemo", "only what is made for the cell, and the way to the project");
    let secret = world.path("home/.ssh/id_ed25519").display().to_string();
    let _ = world.cellblock(&format!("run -- cat {secret}")).fails(1);
    // The probe works: with a mount it is there.
    assert_eq!(world.cellblock(&format!("run -v {secret} -- cat {secret}")).ok(), "private");
}

#[test]
fn mounts_are_read_only_on_request_and_writable_without() {
    let world = World::new();
    world.write("home/data/file", "before");
    let file = world.path("home/data/file");
    world.cellblock("run -v ../data:/data:ro -- sh -c 'echo after > /data/file'").run().says("Read-only file system");
    assert_eq!(std::fs::read_to_string(&file).expect("there"), "before");
    world.cellblock("run -v ../data:/data -- sh -c 'echo after > /data/file'").ok();
    assert_eq!(std::fs::read_to_string(&file).expect("there"), "after\n");
}

#[test]
fn the_root_is_discarded_kept_or_read_only() {
    let world = World::new();
    world.load_alpine();
    let run = |flags: &str, command: &str| world.cellblock(&format!("run --image alpine -u root {flags} -- {command}"));
    run("", "touch /mark").ok();
    let _ = run("", "test -e /mark").fails(1);
    run("--name kept", "touch /mark").ok();
    run("--name kept", "test -e /mark").ok();
    let _ = run("--name kept --rm", "test -e /mark2").fails(1);
    let _ = run("--name kept --rm", "test -e /mark").fails(1);
    run("--read-only", "touch /mark").run().says("Read-only file system");
    run("--read-only --tmpfs /scratch", "touch /scratch/mark").ok();
}

#[test]
fn the_hosts_folders_are_read_only() {
    let world = World::new();
    let probe = world.cellblock("run -u root --image host -- sh -c 'touch /usr/bin/cellblock-test-probe'").run();
    assert_ne!(probe.code(), Some(0), "{probe}");
    assert!(!std::path::Path::new("/usr/bin/cellblock-test-probe").exists());
}

#[test]
fn odd_mounts_are_refused_with_a_reason() {
    let world = World::new();
    for (mount, reason) in [
        ("/nowhere-at-all:/x", "a mount's source must exist"),
        ("/usr:relative:ro", "unknown mount option"),
        ("/usr:/", "/"),
        ("/usr:/proc/x", "/proc"),
        ("/usr:/a/../../b", "must be absolute, without `..`"),
        ("/usr:/x:rw,what", "unknown mount option \"what\""),
        ("/usr:/x:z", "does not support"),
    ] {
        world.cellblock(&format!("run -v {mount} -- true")).fails(125).says(reason);
    }
    assert!(world.leftovers().is_empty());
}

#[test]
fn folders_that_are_too_wide_are_no_projects() {
    let world = World::new();
    let home = world.path("home");
    world
        .cellblock("run -- true")
        .dir(&home)
        .fails(125)
        .says("your whole home directory, with keys and passwords")
        .says("--no-project");
    world.cellblock("run -- true").dir(std::path::Path::new("/")).fails(125).says("the whole machine");
    world.cellblock("run --no-project -- true").dir(&home).ok();
}

#[test]
fn an_unreadable_project_is_said_so() {
    use std::os::unix::fs::PermissionsExt;
    if is_root() {
        return; // Root reads everything.
    }
    let world = World::new();
    std::fs::set_permissions(world.project(), PermissionsExt::from_mode(0o300)).expect("chmod");
    let done = world.cellblock("run -- true").run();
    std::fs::set_permissions(world.project(), PermissionsExt::from_mode(0o755)).expect("chmod");
    assert_eq!(done.code(), Some(125), "{done}");
    done.says("cannot be entered");
}

#[test]
fn a_mount_target_that_is_a_link_in_the_image_stays_inside() {
    let world = World::new();
    world.write("home/rootfs/etc/keep", "");
    for dir in ["bin", "lib", "usr", "tmp"] {
        std::fs::create_dir_all(world.path(&format!("home/rootfs/{dir}"))).expect("mkdir");
    }
    world.write("home/outside/victim", "untouched");
    std::os::unix::fs::symlink(world.path("home/outside"), world.path("home/rootfs/data")).expect("symlink");
    world.write("home/payload/file", "payload");
    let done = world
        .cellblock(&format!("run --image {} -v ../payload:/data -- /nothing", world.path("home/rootfs").display()))
        .run();
    // The command does not exist; what counts is that the host's folder is as it was.
    assert_ne!(done.code(), Some(0));
    let left: Vec<_> =
        std::fs::read_dir(world.path("home/outside")).expect("there").flatten().map(|e| e.file_name()).collect();
    assert_eq!(left, ["victim"]);
    assert_eq!(std::fs::read_to_string(world.path("home/outside/victim")).expect("there"), "untouched");
}
