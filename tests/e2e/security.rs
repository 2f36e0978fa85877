//! What a cell cannot do; each with a twin that shows the probe works.

use cellblock_tests::World;

/// A root file system with a static shell of its own: Alpine's busybox, unpacked.
fn rootfs(world: &World) -> std::path::PathBuf {
    let dir = world.path("home/rootfs");
    std::fs::create_dir(&dir).expect("mkdir");
    let alpine = cellblock_tests::alpine();
    let args = ["-xzf", alpine.to_str().expect("utf-8"), "-C", dir.to_str().expect("utf-8"), "--no-same-owner"];
    world.call(std::path::Path::new("tar"), &args).ok();
    dir
}

#[test]
fn links_in_an_image_do_not_lead_the_runtime_to_the_host() {
    // With /dev a link, libcontainer and runc make links on the host and delete a file called ptmx there (CVE-2026-41579).
    let world = World::new();
    let rootfs = rootfs(&world);
    for name in ["dev", "proc", "sys"] {
        let victim = world.path(&format!("home/victim-{name}"));
        std::fs::create_dir(&victim).expect("mkdir");
        std::fs::write(victim.join("ptmx"), "untouched").expect("write");
        let inside = rootfs.join(name);
        std::fs::rename(&inside, rootfs.join(format!("old-{name}"))).expect("rename");
        // The same path exists inside too, which is what makes the attack work.
        std::fs::create_dir_all(rootfs.join(victim.strip_prefix("/").expect("absolute"))).expect("mkdir");
        std::os::unix::fs::symlink(&victim, &inside).expect("symlink");
    }
    let out = world
        .cellblock(&format!(
            "run --image {} -- sh -c 'test ! -L /dev && test -c /dev/null && test -d /proc/1 && echo fine'",
            rootfs.display()
        ))
        .ok();
    assert_eq!(out, "fine\n");
    for name in ["dev", "proc", "sys"] {
        let victim = world.path(&format!("home/victim-{name}"));
        let names: Vec<_> = std::fs::read_dir(&victim).expect("there").flatten().map(|e| e.file_name()).collect();
        assert_eq!(names, ["ptmx"], "{name}");
        assert_eq!(std::fs::read_to_string(victim.join("ptmx")).expect("there"), "untouched");
    }
}

#[test]
fn an_image_whose_etc_is_a_link_is_refused() {
    let world = World::new();
    let rootfs = rootfs(&world);
    let line = format!("run --image {} -- true", rootfs.display());
    world.cellblock(&line).ok();
    std::fs::rename(rootfs.join("etc"), rootfs.join("etc2")).expect("rename");
    std::os::unix::fs::symlink("/etc", rootfs.join("etc")).expect("symlink");
    world.cellblock(&line).fails(125).says("/etc is no directory");
}

#[test]
fn descriptors_of_the_caller_do_not_come_along() {
    let world = World::new();
    world.write("home/secret", "s3cret");
    // The shell opens descriptor 9 and starts cellblock with it.
    let probe = format!(
        "exec 9<{}; cat <&9 >/dev/null; exec {} run -- ls /proc/self/fd",
        world.path("home/secret").display(),
        cellblock_tests::cellblock().display()
    );
    let open = world.call(std::path::Path::new("sh"), &["-c", &probe]).ok();
    assert!(!open.contains('9'), "{open}");
    assert!(open.contains('0') && open.contains('1') && open.contains('2'), "the probe works: {open}");
}

/// Constants with addresses in them are where somebody who can write anywhere would begin.
#[test]
fn the_programs_constants_are_read_only_once_it_runs() {
    let world = World::new();
    let maps = world.cellblock("config show").mapped_at_the_end("cellblock");
    let program = cellblock_tests::cellblock();
    let program = program.to_str().expect("UTF-8");
    let own = maps.lines().filter(|line| line.ends_with(program));
    let leave: Vec<_> = own.filter_map(|line| line.split(' ').nth(1)).collect();
    // Constants as they are, code (some linkers: more constants), constants that were relocated, data.
    assert!(leave.starts_with(&["r--p", "r-xp"]) && leave.ends_with(&["r--p", "rw-p"]), "{maps}");
    assert_eq!(leave.iter().filter(|leave| leave.contains('w')).count(), 1, "{maps}");
}

#[test]
fn process_one_and_the_program_file_are_out_of_reach() {
    let world = World::new();
    // /proc/1/exe is cellblock itself: reading, let alone writing it from inside must fail (CVE-2019-5736).
    for probe in [
        "readlink /proc/1/exe",
        "cat /proc/1/exe",
        "sh -c ': > /proc/1/exe'",
        "cat /proc/1/environ",
        "readlink /proc/1/fd/0",
        "cat /proc/1/maps",
    ] {
        for user in ["", "-u root"] {
            let done = world.cellblock(&format!("run {user} -- {probe}")).run();
            assert_ne!(done.code(), Some(0), "{done}");
        }
    }
    world.cellblock("run -- readlink /proc/self/exe").ok();
}

#[test]
fn a_script_cannot_get_at_the_program_through_its_interpreter() {
    let world = World::new();
    // The kernel runs cellblock itself as the script's interpreter, inside: its file must not be writable from there.
    world.write("home/demo/evil", "#!/proc/self/exe __job\n");
    let script = world.project().join("evil");
    std::fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("chmod");
    let before = std::fs::metadata(cellblock_tests::cellblock()).expect("there").modified().expect("time");
    let _ = world.cellblock("run -- ./evil").run();
    assert_eq!(std::fs::metadata(cellblock_tests::cellblock()).expect("there").modified().expect("time"), before);
}

#[test]
fn privilege_is_gone_and_cannot_come_back() {
    let world = World::new();
    let status = world.cellblock("run -- cat /proc/self/status").ok();
    let field = |name: &str| status.lines().find_map(|l| l.strip_prefix(name)).unwrap_or_default().trim().to_owned();
    assert_eq!(field("NoNewPrivs:"), "1");
    assert_eq!(field("Seccomp:"), "2");
    if !cellblock_tests::is_root() {
        for set in ["CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:"] {
            assert_eq!(field(set), "0000000000000000", "{set}");
        }
    }
    let strict = world.cellblock("run -u root --profile strict -- grep CapBnd /proc/self/status").ok();
    assert!(strict.contains("0000000000000000"), "{strict}");
    let root = world.cellblock("run -u root -- grep CapBnd /proc/self/status").ok();
    assert!(root.contains("800405fb"), "the probe works: {root}");
}

#[test]
fn exec_is_as_confined_as_the_cell() {
    let world = World::new();
    // An exec may be quicker than the cell's own command, and get the second process id.
    world.cellblock("run -d --name c -- sh -c 'echo $$ >pid; exec sleep 100'").ok();
    let pid = || std::fs::read_to_string(world.project().join("pid")).unwrap_or_default().trim().to_owned();
    world.wait("the command itself", || !pid().is_empty());
    let pid = pid();
    let inside = |word: &str| world.cellblock(&format!("exec c -- sh -c 'grep {word} /proc/self/status'")).ok();
    let first = |word: &str| world.cellblock(&format!("exec c -- sh -c 'grep {word} /proc/{pid}/status'")).ok();
    for word in ["CapBnd", "CapPrm", "CapEff", "NoNewPrivs", "Seccomp:"] {
        assert_eq!(inside(word), first(word), "{word}");
    }
    for kind in ["user", "pid", "mnt", "ipc", "uts", "net", "cgroup"] {
        let own = world.cellblock(&format!("exec c -- readlink /proc/self/ns/{kind}")).ok();
        assert_eq!(own, world.cellblock(&format!("exec c -- readlink /proc/{pid}/ns/{kind}")).ok(), "{kind}");
    }
    assert_eq!(world.cellblock("exec c -- id -u").ok(), world.cellblock("run -- id -u").ok());
}

#[test]
fn system_calls_that_reach_the_kernel_too_far_are_closed() {
    let world = World::new();
    for (probe, twin) in [
        ("mount -t tmpfs none /tmp", "test -d /tmp"),
        ("unshare -U true", "true"),
        ("chroot / unshare -m true", "chroot / true"),
    ] {
        let done = world.cellblock(&format!("run -u root --image host -- {probe}")).run();
        assert_ne!(done.code(), Some(0), "{probe}: {done}");
        world.cellblock(&format!("run -u root --image host -- {twin}")).ok();
    }
}

#[test]
fn the_kernels_own_files_are_masked_or_read_only() {
    let world = World::new();
    for file in ["/proc/kcore", "/proc/keys", "/proc/timer_list"] {
        let done = world
            .cellblock(&format!(
                "run -u root -- sh -c 'test ! -e {file} || test -z \"$(head -c 1 {file} 2>/dev/null)\"'"
            ))
            .run();
        assert_eq!(done.code(), Some(0), "{file}: {done}");
    }
    for file in ["/proc/sys/kernel/hostname", "/proc/sysrq-trigger", "/proc/sys/kernel/core_pattern"] {
        let done = world.cellblock(&format!("run -u root -- sh -c 'echo x > {file}'")).run();
        assert_ne!(done.code(), Some(0), "{file}: {done}");
    }
    world.cellblock("run -- cat /proc/sys/kernel/hostname").ok();
}

#[test]
fn what_covers_the_kernels_files_is_the_same_in_every_cell() {
    let world = World::new();
    let sight = "cut -d\" \" -f4- /proc/self/mountinfo; echo; cd /proc; cat interrupts keys timer_list kcore 2>/dev/null; ls -A acpi scsi /sys/firmware \
                 2>/dev/null | grep -v :; true";
    for flags in [
        "",
        "-u root",
        "--read-only",
        "--no-init",
        "--net host",
        "--image host",
        "--image host -u root",
        "--profile strict",
    ] {
        let net = if flags.contains("--net") { "" } else { "--net none" };
        let done = world.cellblock(&format!("run {net} {flags} -- sh -c '{sight}'")).run();
        let text = done.stdout();
        let (mounts, read) = text.split_once("\n\n").unwrap_or((&text, ""));
        assert_eq!(read.trim(), "", "{flags}: {done}");
        // Root, path, options, the file system's type, source and options.
        let mounted = |path: &str| {
            let words = |line: &str| line.split(' ').map(str::to_owned).collect::<Vec<_>>();
            mounts.lines().map(words).rfind(|w| w.get(1).is_some_and(|at| at == path))
        };
        let is = |path: &str, root: &str, options: &str, kind: &str| {
            let found = mounted(path).unwrap_or_else(|| panic!("{flags}: nothing at {path}: {done}"));
            let options = options.split(',').all(|option| found[2].split(',').any(|o| o == option));
            assert!(
                found[0] == root && options && (kind.is_empty() || found.iter().any(|w| w == kind)),
                "{flags}: {path}: {found:?}"
            );
        };
        is("/proc", "/", "rw,nosuid,nodev,noexec", "proc");
        is("/dev/mqueue", "/", "rw,nosuid,nodev,noexec", "mqueue");
        let there = |path: &str| std::fs::symlink_metadata(path).ok();
        for path in ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"] {
            if there(path).is_some() {
                is(path, path.trim_start_matches("/proc"), "ro,nosuid,nodev,noexec", "proc");
            }
        }
        let masked =
            ["acpi", "asound", "interrupts", "kcore", "keys", "latency_stats", "sched_debug", "scsi", "timer_list"];
        let masked = masked.map(|name| format!("/proc/{name}"));
        let masked = masked.iter().map(String::as_str);
        for path in masked.chain(["/sys/devices/virtual/powercap", "/sys/firmware"]) {
            match there(path) {
                Some(about) if about.is_dir() => is(path, "/", "ro", "tmpfs"),
                Some(_) => is(path, "/null", "rw", ""),
                None => assert!(mounted(path).is_none(), "{flags}: {path}"),
            }
        }
        assert!(["/proc/meminfo", "/proc/self", "/sys/class"].iter().all(|path| mounted(path).is_none()), "{done}");
    }
    world
        .cellblock(
            "run -- sh -c 'grep -q MemTotal /proc/meminfo && test -d /sys/class && grep -q Seccomp /proc/self/status'",
        )
        .ok();
}

#[test]
fn a_link_in_an_image_puts_nothing_over_the_kernels_files() {
    let world = World::new();
    let rootfs = rootfs(&world);
    for (name, target) in [("data", "/proc"), ("own", "/proc/self"), ("settings", "/proc/sys"), ("plain", "/srv")] {
        std::os::unix::fs::symlink(target, rootfs.join(name)).expect("symlink");
    }
    world.write("home/false/version", "false");
    let run = |place: &str, mount: &str, see: &str| {
        world.cellblock(&format!("run --net none --image {} {mount}/{place} -- sh -c '{see}'", rootfs.display())).run()
    };
    let bind = format!("-v {}:", world.path("home/false").display());
    for place in ["data", "own", "settings"] {
        for mount in ["--tmpfs ", "--no-guard --tmpfs ", &bind, &format!("--no-guard {bind}")] {
            let done = run(place, mount, "stat -f -c %t /proc /proc/self /proc/sys; cat /proc/version");
            // PROC_SUPER_MAGIC. It is hidden, or refused.
            let text = done.stdout();
            let real = text.starts_with("9fa0\n9fa0\n9fa0\nLinux version");
            assert!(if done.code() == Some(0) { real } else { text.is_empty() }, "{place}, {mount}: {done}");
        }
    }
    let done = run("plain", &format!("--no-guard {bind}"), "cat /srv/version");
    assert!(done.stdout() == "false", "the probe works: {done}");
}

#[test]
fn a_link_in_an_image_has_no_devices_made_in_a_folder_of_the_hosts() {
    let world = World::new();
    let rootfs = rootfs(&world);
    for (name, target) in [("devices", "/dev"), ("whole", "/"), ("round", "/dev/../dev/."), ("plain", "/srv")] {
        std::os::unix::fs::symlink(target, rootfs.join(name)).expect("symlink");
    }
    world.write("home/data/mine", "mine");
    let data = world.path("home/data");
    let names = || {
        let entries = std::fs::read_dir(&data).expect("a folder");
        entries.map(|entry| entry.expect("an entry").file_name().into_string().expect("a name")).collect::<Vec<_>>()
    };
    let run = |place: &str, flags: &str| {
        let mount = format!("{flags} -v {}:/{place}:rw", data.display());
        world.cellblock(&format!("run --net none --image {} {mount} -- true", rootfs.display())).run()
    };
    for place in ["devices", "whole", "round"] {
        for flags in ["", "--no-guard"] {
            let done = run(place, flags);
            assert!(done.code() == Some(125) && done.stderr().contains("leads to / or to /dev"), "{place}: {done}");
            assert_eq!(names(), ["mine"], "{place}");
        }
    }
    let done = run("plain", "--no-guard");
    assert!(done.code() == Some(0) && names() == ["mine"], "the probe works: {done}");
}
