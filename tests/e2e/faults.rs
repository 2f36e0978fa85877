//! What can be wrong with a host or an input: each is a clear error with the next step, and nothing is left behind.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use cellblock_tests::{Done, World, cellblock, has_range, is_root};

/// Runs a shell script in a user and a mount namespace of its own, as root there.
fn apart(world: &World, script: &str) -> Done {
    let flags = if is_root() { "-m" } else { "-Urm" };
    let script = format!("cellblock() {{ {} \"$@\"; }}\n{script}", cellblock().display());
    world.call(Path::new("unshare"), &[flags, "sh", "-c", &script]).run()
}

/// Runs `script` with a file system of `size` (and further options) at `dir` of the world, and lists afterwards what is on it, folders aside, once
/// what removes cells has had its time.
fn with_space(world: &World, dir: &str, size: &str, script: &str) -> (Done, Vec<String>) {
    let at = world.path(dir).display().to_string();
    std::fs::create_dir_all(&at).expect("a folder");
    let done = apart(
        world,
        &format!(
            "mount -t tmpfs -o size={size},mode=711 none {at} && {script}; echo code=$?
            for i in $(seq 100); do find {at} ! -type d | grep -q . || break; sleep 0.02; done; find {at} ! -type d"
        ),
    );
    let left = done.stdout().lines().filter(|l| l.starts_with(&at)).map(str::to_owned).collect();
    (done, left)
}

#[test]
fn no_space_for_what_runs_is_said_and_leaves_nothing() {
    let world = World::new();
    // A cell makes three folders, a lock, two files and a socket there: with each of these another step finds no room.
    for room in ["4k", "1m,nr_inodes=3", "1m,nr_inodes=5", "1m,nr_inodes=6", "1m,nr_inodes=7", "1m,nr_inodes=8"] {
        let (done, left) = with_space(&world, "run", room, "cellblock run --image host -- true");
        assert!(done.stdout().contains("code=125"), "{room}: {done}");
        done.says("No space left on device").says("hint:  make room");
        assert_eq!(left, Vec::<String>::new(), "{room}: {done}");
    }
    let (done, left) = with_space(&world, "run", "2m", "cellblock run --image host -- echo works");
    assert!(done.stdout().contains("works\ncode=0") && left.is_empty(), "{done}");
}

#[test]
fn a_refused_id_mapping_is_told_and_leaves_nothing() {
    if is_root() || !has_range() {
        return;
    }
    let world = World::new();
    world.load_alpine();
    let start = |script: &str| {
        for name in ["newuidmap", "newgidmap"] {
            let program = format!("bin/{name}");
            world.write(&program, &format!("#!/bin/sh\n{}\n", script.replace("NAME", name)));
            std::fs::set_permissions(world.path(&program), PermissionsExt::from_mode(0o755)).expect("executable");
        }
        let path = format!("{}:/usr/bin:/bin", world.path("bin").display());
        world.cellblock("run --net none --image alpine -- echo works").env("PATH", &path).run()
    };
    for (script, said) in [
        ("sleep 0.3; echo refused >&2; exit 1", "map refused the id mapping: refused"),
        ("exit 1", "map refused the id mapping"),
        // Nothing is written, and it says that something is.
        ("exit 0", "error:"),
    ] {
        let done = start(script);
        assert!(done.code() == Some(125) && done.stdout().is_empty(), "{script}: {done}");
        done.says(said);
        assert!(world.leftovers().is_empty(), "{script}: {done}");
    }
    let done = start("sleep 0.3; exec /usr/bin/NAME \"$@\"");
    assert_eq!(done.stdout(), "works\n", "the probe works, however long it takes: {done}");
}

#[test]
fn no_space_that_comes_back_is_used_again() {
    let world = World::new();
    let run = world.path("run").display().to_string();
    let script = format!(
        "head -c 9m /dev/zero >{run}/fill 2>/dev/null; cellblock run --image host -- true; echo first=$?; rm {run}/fill; cellblock run --image host -- echo works"
    );
    let (done, left) = with_space(&world, "run", "2m", &script);
    assert!(done.stdout().contains("first=125\nworks\ncode=0") && left.is_empty(), "{done}");
}

#[test]
fn no_space_for_images_is_said_and_leaves_nothing() {
    let world = World::new();
    let archive = cellblock_tests::alpine().display().to_string();
    let data = "home/.local/share/cellblock";
    let load = format!("cellblock image load {archive} --name alpine");
    for size in ["4k", "1m"] {
        let (done, left) =
            with_space(&world, data, size, &format!("{load}; echo load=$?; cellblock image list --json"));
        assert!(done.stdout().contains("load=125\n[]"), "{size}: {done}");
        done.says("no space left").says("hint:  make room");
        assert!(!left.iter().any(|path| path.contains("/.tmp")), "{size}: {left:?}");
    }
    // Enough to store it, not to unpack it.
    let (done, left) = with_space(&world, data, "6m", &format!("{load}; cellblock run --image alpine -- true"));
    assert!(done.stdout().contains("code=125"), "{done}");
    done.says("no space left on the device").says("hint:  make room");
    assert_eq!(done.stderr().matches("error:").count(), 1, "{done}");
    assert!(!left.iter().any(|path| path.contains("layers")), "{left:?}");
    let (done, _) = with_space(&world, data, "40m", &format!("{load}; cellblock run --image alpine -- true"));
    assert!(done.stdout().contains("code=0"), "{done}");
}

#[test]
fn no_space_for_the_writable_layer_is_the_commands_own_affair() {
    let world = World::new();
    let data = "home/.local/share/cellblock";
    let fill = "cellblock run --image host --rm -u root -- sh -c 'head -c 9000000 /dev/zero >/tmp/../root/x 2>/dev/null || echo full; exit 3'";
    let (done, left) = with_space(&world, data, "1m", fill);
    assert!(done.stdout().contains("full\ncode=3") && left.is_empty(), "{done}");
}

/// A program for RISC-V, as far as the kernel looks at it.
fn foreign_program() -> Vec<u8> {
    let mut bytes = b"\x7fELF\x02\x01\x01".to_vec();
    bytes.resize(16, 0);
    for (value, size) in [(2u64, 2usize), (243, 2), (1, 4), (0x1_0000, 8), (64, 8), (0, 8), (0, 4), (64, 2), (56, 2)] {
        bytes.extend_from_slice(value.to_le_bytes().get(..size).expect("at most eight"));
    }
    bytes.resize(256, 0);
    bytes
}

#[test]
fn what_cannot_be_a_program_here_is_said_so() {
    let world = World::new();
    std::fs::write(world.project().join("foreign"), foreign_program()).expect("write");
    world.write("home/demo/text", "echo works\n");
    world.write("home/demo/lost", "#!/no/such/interpreter\n");
    world.write("home/demo/plain", "no program");
    for file in ["foreign", "text", "lost"] {
        std::fs::set_permissions(world.project().join(file), PermissionsExt::from_mode(0o755)).expect("chmod");
    }
    for init in ["", "--no-init"] {
        let run = |command: &str| world.cellblock(&format!("run {init} -- {command}"));
        run("./foreign").fails(126).says("no program for this machine");
        run("./text").fails(126).says("a script without `#!`");
        run("./plain").fails(126).says("permission denied");
        run("/usr").fails(126).says("permission denied");
        run("./lost").fails(127).says("was not found in the cell").says("the interpreter of its first line");
        assert_eq!(run("sh ./text").ok(), "works\n");
    }
    assert!(world.leftovers().is_empty());
}

#[test]
fn a_project_that_is_gone_is_said_so() {
    let world = World::new();
    let gone = format!("mkdir gone && cd gone && rmdir ../gone && exec {} run -- true", cellblock().display());
    let done = world.call(Path::new("sh"), &["-c", &gone]).fails(125);
    done.says("go to a folder that exists");
    world.cellblock("run -C /nowhere -- true").fails(125).says("/nowhere cannot be entered").says("hint:");
    world.cellblock("run -C . -- true").ok();
}

#[test]
fn a_mount_onto_a_link_of_the_project_makes_nothing_on_the_host() {
    let world = World::new();
    std::fs::create_dir(world.project().join("source")).expect("mkdir");
    std::os::unix::fs::symlink(world.path("home/elsewhere"), world.project().join("dangling")).expect("symlink");
    std::fs::create_dir(world.path("home/there")).expect("mkdir");
    std::os::unix::fs::symlink(world.path("home/there"), world.project().join("link")).expect("symlink");
    for target in ["dangling", "link"] {
        let target = world.project().join(target).display().to_string();
        world.cellblock(&format!("run -v ./source:{target} -- true")).fails(125).says("no link").says("hint:");
    }
    assert!(!world.path("home/elsewhere").exists());
    world.cellblock("run -v ./dangling:/x -- true").fails(125).says("a mount's source must exist");
    std::fs::create_dir(world.project().join("real")).expect("mkdir");
    world.write("home/demo/source/file", "mounted");
    let real = world.project().join("real").display().to_string();
    assert_eq!(world.cellblock(&format!("run -v ./source:{real} -- cat real/file")).ok(), "mounted");
}

#[test]
fn a_host_without_user_namespaces_is_told_apart_from_a_full_disk() {
    let world = World::new();
    let script = "echo 0 >/proc/sys/user/max_user_namespaces && cellblock run -- true; echo code=$?; cellblock status";
    let script = format!("cellblock() {{ {} \"$@\"; }}\n{script}", cellblock().display());
    // As root in a user namespace of its own: the number is that namespace's.
    let call = |script: &str| world.call(Path::new("unshare"), &["-Ur", "sh", "-c", script]).run();
    let done = call(&script);
    assert!(done.stdout().contains("code=125"), "{done}");
    done.says("user.max_user_namespaces").says("cellblock doctor");
    assert!(!done.stderr().contains("No space"), "{done}");
    assert!(world.leftovers().is_empty());
    let done = call(&script.replace("echo 0 >", "test -e "));
    assert!(done.stdout().contains("code=0"), "the probe works: {done}");
}

#[test]
fn a_host_without_network_namespaces_is_said_so() {
    let world = World::new();
    // The number is that of the user namespace, and holds for those below it.
    let script =
        format!("echo 0 >/proc/sys/user/max_net_namespaces && {} run --image host -- true", cellblock().display());
    let call = |script: &str| world.call(Path::new("unshare"), &["-Ur", "sh", "-c", script]).run();
    let done = call(&script);
    assert_eq!(done.code(), Some(125), "{done}");
    done.says("network namespace").says("user.max_net_namespaces").says("cellblock doctor");
    assert!(world.leftovers().is_empty());
    let done = call(&script.replace("echo 0 >", "test -e "));
    assert_eq!(done.code(), Some(0), "the probe works: {done}");
}

#[test]
fn root_of_a_small_user_namespace_starts_cells_too() {
    let world = World::new();
    world.load_alpine();
    let script =
        format!("{0} run --image host -- id -u && {0} run --image alpine -u root -- id -u", cellblock().display());
    // With its own id only.
    let own = world.call(Path::new("unshare"), &["-Ur", "sh", "-c", &script]).run();
    assert_eq!((own.code(), own.stdout().as_str()), (Some(0), "0\n0\n"), "{own}");
    if !is_root() {
        return;
    }
    // With a thousand ids, as some containers have: the world belongs to their root.
    let chown = |ids: &str| {
        assert!(world.leftovers().is_empty());
        world.call(Path::new("chown"), &["-R", ids, &world.path("").display().to_string()]).ok();
    };
    chown("700000:700000");
    let few = "unshare -U sleep 1000 & sleep 0.3; echo 0 700000 1000 >/proc/$!/uid_map; echo 0 700000 1000 >/proc/$!/gid_map; nsenter -U -t $! sh -c \"$0\"; code=$?; kill $!; exit $code";
    let few = world.call(Path::new("sh"), &["-c", few, &script]).run();
    chown("0:0");
    assert_eq!((few.code(), few.stdout().as_str()), (Some(0), "0\n0\n"), "{few}");
}

#[test]
fn a_cell_in_a_cell_is_refused_with_a_reason() {
    let world = World::new();
    let binary = cellblock().display().to_string();
    for user in ["", "-u root"] {
        let inner = |command: &str| {
            world.cellblock(&format!("run --image host {user} -v {binary}:/cb:ro -- /cb {command}")).run()
        };
        let done = inner("run -- true");
        assert_eq!(done.code(), Some(125), "{done}");
        done.says("the kernel does not let this user make a user namespace").says("cellblock doctor");
        let doctor = inner("doctor");
        assert!(doctor.stdout().contains("seccomp filter around this process forbids them"), "{doctor}");
        assert!(inner("--version").stdout().starts_with("cellblock "), "the probe works");
    }
}

#[test]
fn a_host_that_lets_nobody_mount_proc_is_said_so() {
    let world = World::new();
    // A user namespace gets a /proc of its own only beside one of which nothing is covered.
    let run = "cellblock run --net none --image host -- touch ran";
    let done = apart(&world, &format!("mount -t tmpfs none /proc/fs && {run}; echo code=$?"));
    assert!(done.stdout().contains("code=125"), "{done}");
    done.says("cannot mount on /proc: Operation not permitted").says("hint:  `cellblock doctor`");
    assert!(!world.project().join("ran").exists() && world.leftovers().is_empty(), "{done}");
    let done = apart(&world, &format!("mount -t tmpfs none /mnt && {run}; echo code=$?"));
    assert!(done.stdout().contains("code=0") && world.project().join("ran").exists(), "the probe works: {done}");
}

#[test]
fn no_process_left_for_exec_is_told() {
    if is_root() {
        // Whose processes nobody counts.
        return;
    }
    let world = World::new();
    world.cellblock("run -d --name c --rm --net none -- sleep 1000").ok();
    let exec = |limit: &str| {
        let script = format!("ulimit -u {limit}; exec {} exec c -- true", cellblock().display());
        world.call(Path::new("bash"), &["-c", &script]).run()
    };
    let done = exec("1");
    assert_eq!(done.code(), Some(125), "{done}");
    done.says("cannot fork");
    assert_eq!(exec("hard").code(), Some(0), "the probe works");
    world.cellblock("stop c -t 0").ok();
}
