//! The same cell in cellblock and, as a bundle, in other runtimes: what a command sees must be the same (row F1).
//!
//! The differences that stay are in [`ALLOWED`]. Where the runtimes come from is told in `ci/runtimes`.

use std::collections::BTreeMap;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use cellblock_tests::{Done, World, cellblock, has_range, is_root};
use serde_json::Value;

const PROBE: &str = include_str!("compat/probe.sh");

/// What may differ from the cell's own start: in which runtime (`*`: in all), the beginning of the key, only as root, and why.
///
/// Besides: a mount may forbid more than ours, and `--portable-overlay` has more overlays.
const ALLOWED: &[(&str, &str, bool, &str)] = &[
    (
        "*",
        "write .",
        true,
        "ours shows the workspace through an id-mapped mount, which youki and runc before 1.2 do not know",
    ),
    ("crun", "dev core", false, "a link of its own to /proc/kcore, which is masked"),
    (OLD_CRUN, "dev core", false, "as crun"),
    ("runc", "dev core", false, "as crun, where the kernel has /proc/kcore"),
    // Of kernels with /proc/kcore.
    ("runc", "dev kcore", false, KCORE),
    ("crun", "dev kcore", false, KCORE),
    (OLD_CRUN, "dev kcore", false, KCORE),
    (
        OLD_CRUN,
        "mount /proc/",
        false,
        "before 1.9 it loses nosuid, nodev and noexec where it lays something over itself",
    ),
    (OLD_CRUN, "mount /tmp/cb", false, "the same for the workspace; no_new_privileges holds"),
];

const KCORE: &str = "libcontainer gives the link /dev/core this name (symlink.rs); it leads to the masked file";

const OLD_CRUN: &str = "the distribution's crun";

type Sight = BTreeMap<String, String>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Runtime {
    Runc,
    Crun,
    /// The distribution's, of any age.
    OldCrun,
    Youki,
}

impl Runtime {
    fn name(self) -> &'static str {
        match self {
            Self::Runc => "runc",
            Self::Crun => "crun",
            Self::OldCrun => OLD_CRUN,
            Self::Youki => "youki",
        }
    }

    fn program(self) -> Option<PathBuf> {
        match self {
            Self::Runc => installed("runc"),
            Self::OldCrun => installed("crun"),
            Self::Crun => made("crun"),
            Self::Youki => made("youki"),
        }
    }

    /// Runs the bundle at `dir`.
    fn run(self, program: &Path, world: &World, dir: &Path, id: &str) -> Done {
        let state = world.path("run/state").display().to_string();
        let text = |path: &Path| path.to_str().expect("utf-8").to_owned();
        let mut line = match (self, is_root()) {
            (Self::Crun | Self::OldCrun, _) if hybrid() => without_hybrid(),
            // Rootless youki has no way of doing without cgroups, unless it may not make them on a v2 host.
            (Self::Youki, false) => {
                change(&dir.join("config.json"), |spec| spec["linux"]["cgroupsPath"] = "/cellblock-test".into());
                without_hybrid()
            }
            _ => Vec::new(),
        };
        line.extend([text(program), "--root".into(), state, "run".into(), "--bundle".into(), text(dir), id.into()]);
        world.call(Path::new(&line[0]), &line[1..]).run()
    }
}

/// A program of the host.
fn installed(name: &str) -> Option<PathBuf> {
    ["/usr/sbin", "/usr/bin", "/usr/local/bin"].iter().map(|d| Path::new(d).join(name)).find(|p| p.exists())
}

/// A program that `ci/runtimes` has made.
fn made(name: &str) -> Option<PathBuf> {
    let dir = std::env::var_os("CELLBLOCK_TEST_RUNTIMES").map(PathBuf::from).or_else(|| {
        let test = std::env::current_exe().ok()?;
        Some(test.ancestors().nth(3)?.join("runtimes"))
    });
    dir.map(|d| d.join(name)).filter(|p| p.exists())
}

/// Whether cgroup v1 and v2 stand side by side here, which crun refuses.
fn hybrid() -> bool {
    Path::new("/sys/fs/cgroup/unified/cgroup.procs").exists()
}

/// The beginning of a command line that hides the hybrid layout from the command that follows. Without root this takes a user
/// namespace, in which every id stands for itself: the bundle means the same in it.
fn without_hybrid() -> Vec<String> {
    let line = |words: &[&str]| words.iter().map(|w| (*w).to_owned()).collect::<Vec<_>>();
    if is_root() {
        return line(&["/usr/bin/unshare", "-m", "sh", "-c", "umount /sys/fs/cgroup/unified; exec \"$@\"", "sh"]);
    }
    let mut all = line(&["/usr/bin/unshare", "-U", "-m", "-C", "--keep-caps"]);
    if has_range() {
        let (uid, gid) = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
        let [users, groups] =
            ["/etc/subuid", "/etc/subgid"].map(|f| cellblock_tests::subordinate(f).expect("has_range"));
        all.extend([format!("--map-user={uid}"), format!("--map-group={gid}")]);
        all.extend([format!("--map-users={users},{users},65536"), format!("--map-groups={groups},{groups},65536")]);
    } else {
        all.push("--map-current-user".into());
    }
    all.extend(line(&["sh", "-c", "mount -t cgroup2 cgroup2 /sys/fs/cgroup; exec \"$@\"", "sh"]));
    all
}

fn change(config: &Path, how: impl FnOnce(&mut Value)) {
    let mut spec = read(config);
    how(&mut spec);
    std::fs::write(config, spec.to_string()).expect("write");
}

fn read(config: &Path) -> Value {
    serde_json::from_str(&std::fs::read_to_string(config).expect("config.json")).expect("json")
}

/// The probe with the lists of paths that it looks at.
fn probe() -> String {
    let masked = "/proc/acpi /proc/interrupts /proc/kcore /proc/keys /proc/timer_list /sys/firmware";
    let closed = "/proc/bus /proc/fs /proc/irq /proc/sys /proc/sys/kernel/core_pattern /proc/sysrq-trigger";
    format!("MASKED='{masked}'; CLOSED='{closed}'\n{PROBE}")
}

fn sight(done: &Done) -> Sight {
    assert_eq!(done.code(), Some(0), "{done}");
    let mut sight = Sight::new();
    for (key, value) in done.stdout().lines().filter_map(|l| l.split_once('=')) {
        let value = match key.strip_prefix("ns ") {
            Some(kind) => {
                let host = std::fs::read_link(format!("/proc/self/ns/{kind}")).expect("own namespace");
                if Path::new(value) == host { "the host's" } else { "its own" }
            }
            None => value.trim(),
        };
        let value = if key.ends_with("id_map") { inside(value) } else { value.to_owned() };
        sight.insert(key.to_owned(), value);
    }
    assert!(sight.len() > 60, "the probe ran to its end: {done}");
    sight
}

/// Which ids there are: what they are outside depends on how many user namespaces lie between.
fn inside(map: &str) -> String {
    let numbers: Vec<&str> = map.split(' ').collect();
    numbers.chunks(3).map(|extent| format!("{}+{} ", extent[0], extent[2])).collect()
}

/// What is different, but for what may be.
fn differences(runtime: &str, own: &Sight, other: &Sight) -> Vec<String> {
    let keys: std::collections::BTreeSet<_> = own.keys().chain(other.keys()).collect();
    let may = |key: &str| {
        ALLOWED.iter().any(|(who, start, root, _)| {
            (*who == "*" || *who == runtime) && key.starts_with(start) && (!root || is_root())
        })
    };
    keys.into_iter()
        .filter(|key| own.get(*key) != other.get(*key) && !may(key) && !stricter(key, own.get(*key), other.get(*key)))
        .map(|key| format!("{runtime}: {key}: {:?} in cellblock, {:?} there", own.get(key), other.get(key)))
        .collect()
}

/// Whether `other` is a mount that forbids at least what `own` forbids.
fn stricter(key: &str, own: Option<&String>, other: Option<&String>) -> bool {
    let Some(target) = key.strip_prefix("mount ") else { return false };
    let words = |mount: &String| mount.split(' ').map(str::to_owned).collect::<Vec<_>>();
    match (own.map(words), other.map(words)) {
        // The type of the root is what the forms of a bundle differ in; and with what a path is masked does not matter.
        (Some(own), Some(other)) => {
            let any_type = target == "/" || target.starts_with("/proc/") || target.starts_with("/sys/");
            own.iter().skip(usize::from(any_type)).all(|word| other.contains(word))
        }
        (None, Some(other)) => other[0] == "overlay" && target.matches('/').count() == 1,
        _ => false,
    }
}

/// `cellblock VERB FLAGS… -- sh -c PROBE`.
fn call(world: &World, verb: &[&str]) -> Done {
    let mut words = verb.to_vec();
    let probe = probe();
    words.extend(["-u", "root", "--", "sh", "-c", &probe]);
    world.call(&cellblock(), &words).run()
}

#[expect(clippy::print_stdout, reason = "CI counts the lines that say SKIP")]
fn compare(test: &str, image: &str, flags: &[&str], runtimes: &[Runtime]) {
    let world = World::new();
    if image == "alpine" {
        world.load_alpine();
    }
    let base = ["--image", image, "--name", "cell"];
    let own = sight(&call(
        &world,
        &[&["run", "--rm", "--no-init", "--net", "none"], &base[..], flags_of_run(flags)].concat(),
    ));
    let mut problems = Vec::new();
    for (number, runtime) in runtimes.iter().enumerate() {
        let Some(program) = runtime.program() else {
            println!("SKIP: {test}: {} is not there; ci/runtimes gets crun and youki", runtime.name());
            continue;
        };
        let dir = world.path(&format!("home/b{number}"));
        let made = call(&world, &[&["bundle", "-o", dir.to_str().expect("utf-8")], &base[..], flags].concat());
        assert_eq!(made.code(), Some(0), "{made}");
        let id = format!("cb{}-{test}-{number}", std::process::id());
        let done = runtime.run(&program, &world, &dir, &id);
        problems.extend(differences(runtime.name(), &own, &sight(&done)));
    }
    assert!(problems.is_empty(), "{test}:\n{}", problems.join("\n"));
}

/// Without those that only bundles have.
fn flags_of_run<'a>(flags: &'a [&'a str]) -> &'a [&'a str] {
    match flags {
        ["--portable-overlay" | "--flatten", rest @ ..] => rest,
        all => all,
    }
}

const NEW: &[Runtime] = &[Runtime::Runc, Runtime::Crun, Runtime::Youki];
const ALL: &[Runtime] = &[Runtime::Runc, Runtime::Crun, Runtime::Youki, Runtime::OldCrun];

#[test]
fn the_host_image_looks_the_same_in_every_runtime() {
    compare("host", "host", &[], NEW);
}

#[test]
fn an_image_looks_the_same_in_every_runtime() {
    compare("alpine", "alpine", &[], NEW);
}

#[test]
fn the_strict_profile_looks_the_same_in_every_runtime() {
    compare("strict", "alpine", &["--profile", "strict"], NEW);
}

#[test]
fn a_portable_overlay_looks_the_same_in_every_runtime() {
    compare("portable", "alpine", &["--portable-overlay"], ALL);
}

#[test]
fn a_portable_overlay_of_the_host_looks_the_same_in_every_runtime() {
    compare("portable-host", "host", &["--portable-overlay"], ALL);
}

#[test]
fn a_flattened_image_looks_the_same_in_every_runtime() {
    compare("flat", "alpine", &["--flatten"], ALL);
}

#[test]
fn a_read_only_root_is_read_only_in_every_runtime() {
    compare("ro", "alpine", &["--read-only"], ALL);
    compare("ro-host", "host", &["--portable-overlay", "--read-only"], ALL);
}

#[test]
fn a_folder_of_the_hosts_becomes_a_bundle_with_the_cells_ids() {
    let world = World::new();
    let folder = world.path("home/image");
    world.write("home/image/etc/passwd", "root:x:0:0::/root:/bin/sh\n");
    let alpine = cellblock_tests::alpine();
    let words = ["-xzf", alpine.to_str().expect("utf-8"), "-C", folder.to_str().expect("utf-8"), "--no-same-owner"];
    world.call(Path::new("tar"), &words).ok();
    let line = format!("--image {} -u root -o b -- stat -c %u:%g /bin/busybox", folder.display());
    if is_root() {
        // Root's files are nobody's in such a cell, and only our own runtime shows them through id-mapped mounts.
        world.cellblock(&format!("bundle {line}")).fails(125).says("--flatten");
        assert!(!world.project().join("b").exists());
    }
    world.cellblock(&format!("bundle --flatten {line}")).ok();
    let Some(runc) = Runtime::Runc.program() else {
        println!("SKIP: a_folder_of_the_hosts_becomes_a_bundle_with_the_cells_ids: runc is not there");
        return;
    };
    let done =
        Runtime::Runc.run(&runc, &world, &world.project().join("b"), &format!("cb{}-folder", std::process::id()));
    assert_eq!(done.stdout(), "0:0\n", "{done}");
}

#[test]
fn a_bundle_that_cannot_be_made_leaves_nothing() {
    let world = World::new();
    // Not UTF-8, which JSON cannot say: as root a folder without overlays goes well.
    for (flags, bad) in [("--profile=default", b"b\xff"), ("--portable-overlay", b"c\xff"), ("--flatten", b"d\xff")] {
        let bad = std::ffi::OsStr::from_bytes(bad);
        let words = ["bundle", "--image", "host", flags, "-o"].map(std::ffi::OsStr::new);
        let code =
            world.call(&cellblock(), &[&words[..], &[bad, "--".as_ref(), "true".as_ref()]].concat()).run().code();
        assert_eq!(code == Some(0), world.project().join(bad).exists(), "{flags}: {code:?}");
    }
    world.cellblock("bundle --image host -o a:b -- true").fails(125).says("overlayfs options cannot carry");
    assert!(!world.project().join("a:b").exists());
    world.cellblock("bundle --image host --flatten -o a:b -- true").ok();
    world.cellblock("bundle --flatten --portable-overlay -o c -- true").fails(125).says("cannot be used with");
}

#[test]
fn the_comparison_notices_what_a_runtime_leaves_out() {
    let world = World::new();
    let Some(runc) = Runtime::Runc.program() else {
        println!("SKIP: the_comparison_notices_what_a_runtime_leaves_out: runc is not there");
        return;
    };
    let flags = ["--image", "host", "--name", "cell"];
    let own = sight(&call(&world, &[&["run", "--rm", "--no-init", "--net", "none"], &flags[..]].concat()));
    let dir = world.path("home/b");
    let _ = call(&world, &[&["bundle", "-o", dir.to_str().expect("utf-8")], &flags[..]].concat());
    change(&dir.join("config.json"), |spec| {
        spec["linux"]["seccomp"] = Value::Null;
        spec["linux"]["maskedPaths"] = Value::Null;
        spec["linux"]["readonlyPaths"] = Value::Null;
        spec["process"]["noNewPrivileges"] = false.into();
        spec["process"]["cwd"] = "/".into();
        spec["process"]["capabilities"]["bounding"].as_array_mut().expect("list").push("CAP_MKNOD".into());
        spec["linux"]["namespaces"].as_array_mut().expect("list").retain(|n| n["type"] != "cgroup");
        for mount in spec["mounts"].as_array_mut().expect("list") {
            if mount["destination"] == "/dev/shm" {
                mount["options"] = serde_json::json!(["nosuid"]);
            }
        }
    });
    let done = Runtime::Runc.run(&runc, &world, &dir, &format!("cb{}-notices", std::process::id()));
    let told = differences("runc", &own, &sight(&done)).join("\n");
    for key in
        ["Seccomp:", "NoNewPrivs:", "CapBnd:", "cwd:", "ns cgroup:", "mount /dev/shm:", "mount /proc/keys:", "unshare:"]
    {
        assert!(told.contains(&format!("runc: {key}")), "{key} in\n{told}");
    }
    assert!(told.contains("masked /proc/") && told.contains("mount /proc/sys"), "{told}");
}

/// What podman writes itself, whatever it is told.
const PODMANS_OWN: &[(&str, &str)] = &[
    ("mount /etc/", "its hosts, resolv.conf and hostname"),
    ("mount /run/", "its mark"),
    ("mount /sys/fs/cgroup", "read-only cgroups"),
    ("mount /sys/", "more masks"),
    ("mount /proc/", "more masks"),
    ("mount /dev", "sizes and options of its own"),
    ("dev holds", "64 MiB"),
    ("env HOSTNAME", "always set"),
    ("groups", "those that the image's /etc/group has for root"),
    ("chown", "its /etc/hostname is a mount"),
    ("uid_map", "all ids that the person has"),
    ("gid_map", "all ids that the person has"),
];

#[test]
fn a_flattened_root_looks_the_same_in_podman() {
    let world = World::new();
    let Some(podman) = installed("podman").filter(|_| installed("runc").is_some()) else {
        println!("SKIP: a_flattened_root_looks_the_same_in_podman: podman or runc is not there");
        return;
    };
    world.load_alpine();
    let flags = ["--image", "alpine", "--name", "cell"];
    let own = sight(&call(&world, &[&["run", "--rm", "--no-init", "--net", "none"], &flags[..]].concat()));
    let dir = world.path("home/b");
    let made = call(&world, &[&["bundle", "--flatten", "-o", dir.to_str().expect("utf-8")], &flags[..]].concat());
    assert_eq!(made.code(), Some(0), "{made}");
    let done = world.call(&podman, &podman_line(&world, &dir)).run();
    tidy(&world);
    let problems: Vec<_> = differences("podman", &own, &sight(&done))
        .into_iter()
        .filter(|line| !PODMANS_OWN.iter().any(|(key, _)| line.starts_with(&format!("podman: {key}"))))
        .collect();
    assert!(problems.is_empty(), "{}\n{done}", problems.join("\n"));
}

/// `podman run --rootfs` with what the bundle says, as the guide tells people.
fn podman_line(world: &World, dir: &Path) -> Vec<String> {
    let spec = read(&dir.join("config.json"));
    let list = |value: &Value| -> Vec<String> {
        value.as_array().expect("list").iter().map(|v| v.as_str().expect("text").to_owned()).collect()
    };
    let seccomp = dir.join("seccomp.json");
    std::fs::write(&seccomp, spec["linux"]["seccomp"].to_string()).expect("write");
    let at = |place: &str| world.path(place).display().to_string();
    let mut line: Vec<String> =
        ["--root", &at("home/podman"), "--runroot", &at("run/podman"), "--tmpdir", &at("run/tmp")]
            .iter()
            .chain(&[
                "--storage-driver",
                "vfs",
                "--cgroup-manager",
                "cgroupfs",
                "--events-backend",
                "file",
                "--runtime",
            ])
            .map(|w| (*w).to_owned())
            .collect();
    line.push(installed("runc").expect("checked").display().to_string());
    line.extend(
        ["run", "--rm", "--network=none", "--ulimit=nofile=512:512", "--ulimit=nproc=4096:4096"].map(String::from),
    );
    line.extend(
        ["--cap-drop=all", "--security-opt=no-new-privileges", "--cgroupns=private", "--unsetenv-all"]
            .map(String::from),
    );
    line.extend(list(&spec["process"]["capabilities"]["bounding"]).iter().map(|c| format!("--cap-add={c}")));
    line.extend(list(&spec["process"]["env"]).iter().map(|e| format!("--env={e}")));
    line.push(format!("--security-opt=mask={}", list(&spec["linux"]["maskedPaths"]).join(":")));
    line.push(format!("--security-opt=seccomp={}", seccomp.display()));
    line.push(format!("--hostname={}", spec["hostname"].as_str().expect("text")));
    // The workspace, and what of it is mounted onto itself: its git folder.
    for mount in spec["mounts"].as_array().expect("list").iter().filter(|mount| mount["type"] == "bind") {
        let mode = if list(&mount["options"]).contains(&"rro".to_owned()) { "ro" } else { "rw" };
        let at = |key: &str| mount[key].as_str().expect("text").to_owned();
        line.push(format!("--volume={}:{}:{mode},nosuid,nodev", at("source"), at("destination")));
    }
    line.push(format!("--workdir={}", world.project().display()));
    if is_root() {
        let map = &spec["linux"]["uidMappings"][0];
        let map = format!("{}:{}:{}", map["containerID"], map["hostID"], map["size"]);
        line.extend([format!("--uidmap={map}"), format!("--gidmap={map}"), format!("--cgroup-parent=/{}", parent())]);
    }
    line.extend(["--rootfs".into(), dir.join("rootfs").display().to_string(), "sh".into(), "-c".into(), probe()]);
    line
}

/// The cgroup that podman, as root, makes its own in and leaves behind.
fn parent() -> String {
    format!("cellblock-test-podman-{}", std::process::id())
}

/// Without root podman leaves a process behind that holds its user namespace; with it, empty cgroups.
fn tidy(world: &World) {
    let trees = std::fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten().map(|tree| tree.path());
    for group in trees.chain(["/sys/fs/cgroup".into()]).map(|tree| tree.join(parent())) {
        // conmon lives a little longer than its container.
        world.wait("podman's cgroups are empty", || {
            let _ = std::fs::remove_dir(group.join("conmon"));
            let _ = std::fs::remove_dir(&group);
            !group.exists()
        });
    }
    for place in ["run/libpod/tmp/pause.pid", "run/tmp/pause.pid"] {
        let pid = std::fs::read_to_string(world.path(place)).ok().and_then(|text| text.trim().parse().ok());
        if let Some(pid) = pid.and_then(rustix::process::Pid::from_raw) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
    }
}
