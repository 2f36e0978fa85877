//! The probes of the host, for real: as root or as an ordinary user, and in surroundings that lack one thing each.
//!
//! A program of its own without cargo's test harness, because the harness has threads and the probes fork. Each surrounding is made in a child, in
//! namespaces of its own, so that the host stays as it is; each has a positive twin.
#![expect(clippy::print_stdout, reason = "it is its own test harness")]

use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use cellblock_bundle::{Extent, IdScheme, Ids};
use cellblock_runtime::outer;
use cellblock_runtime::probe::{self, Facts, Finding, State};
use cellblock_sys::process::{Fork, SingleThreaded, exit_now};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags};
use rustix::process::WaitOptions;

type Test = fn(&SingleThreaded);

fn main() {
    // cargo asks harnesses for their tests.
    if std::env::args().any(|a| a == "--list") {
        return;
    }
    let alone = SingleThreaded::prove().expect("one thread");
    let tests: [(&str, Test); 9] = [
        ("the_host_is_probed_and_left_alone", the_host_is_probed_and_left_alone),
        ("no_user_namespaces_left", no_user_namespaces_left),
        ("no_second_user_namespace", no_second_user_namespace),
        ("nested_too_deep", nested_too_deep),
        ("a_filter_forbids_user_namespaces", a_filter_forbids_user_namespaces),
        ("a_masked_proc", a_masked_proc),
        ("data_that_cannot_be_written", data_that_cannot_be_written),
        ("no_subordinate_ids", no_subordinate_ids),
        ("newuidmap_without_privilege", newuidmap_without_privilege),
    ];
    for (name, test) in tests {
        test(&alone);
        println!("test {name} ... ok");
    }
}

fn extents(inside: u32, outside: u32) -> Vec<Extent> {
    vec![Extent { inside, outside, size: 1 }]
}

/// What the command line would find out about this user.
fn facts(data: &Path) -> Facts {
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let user = passwd.lines().find_map(|l| {
        let fields: Vec<&str> = l.split(':').collect();
        (fields.get(2) == Some(&uid.to_string().as_str())).then(|| (*fields.first()?).to_owned().into()).flatten()
    });
    let user: String = user.unwrap_or_else(|| format!("u{uid}"));
    let ranges = |file: &str| -> Vec<(u32, u32)> {
        let text = std::fs::read_to_string(file).unwrap_or_default();
        let of = |l: &str| match l.split(':').collect::<Vec<_>>()[..] {
            [name, start, count] if name == user => Some((start.parse().ok()?, count.parse().ok()?)),
            _ => None,
        };
        text.lines().filter_map(of).collect()
    };
    let (subuids, subgids) = (ranges("/etc/subuid"), ranges("/etc/subgid"));
    let shifted = vec![Extent { inside: 0, outside: 0x7000_0000, size: 65_536 }];
    let single = match uid {
        0 => Ids { scheme: IdScheme::Shifted, uids: shifted.clone(), gids: shifted },
        _ => Ids { scheme: IdScheme::Single, uids: extents(uid, uid), gids: extents(gid, gid) },
    };
    let range = match (subuids.first(), subgids.first()) {
        (Some((uids, 65_536..)), Some((gids, 65_536..))) if uid != 0 => {
            let with = |own: u32, sub: u32| {
                vec![Extent { inside: 0, outside: own, size: 1 }, Extent { inside: 1, outside: sub, size: 65_535 }]
            };
            Some(Ids { scheme: IdScheme::RangeRoot, uids: with(uid, *uids), gids: with(gid, *gids) })
        }
        _ => None,
    };
    Facts {
        uid,
        user,
        real_root: uid == 0,
        single,
        range,
        subuids,
        subgids,
        path: vec![],
        program: "/usr/bin/cellblock".into(),
        data: data.join("not/there/yet"),
        runtime: "/run/cellblock".into(),
        xdg_runtime: None,
        container: None,
    }
}

/// A folder of ours, removed at the end.
struct Temp(PathBuf);

impl Temp {
    fn new() -> Self {
        static NEXT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let n = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("cellblock-probe-{}-{n}", std::process::id()));
        std::fs::create_dir(&path).expect("mkdir");
        Self(path)
    }
}

impl Drop for Temp {
    fn drop(&mut self) {
        let parent = std::fs::File::open(std::env::temp_dir()).expect("tmp");
        cellblock_sys::tree::remove(parent.as_fd(), self.0.file_name().expect("name")).expect("removed");
    }
}

fn find(all: &[Finding], id: &str) -> Finding {
    all.iter().find(|f| f.id == id).unwrap_or_else(|| panic!("{id} in {all:#?}")).clone()
}

/// Runs `test` in a child that is root of a user namespace of its own, and hands it the facts as they are there.
fn in_namespace(alone: &SingleThreaded, data: &Path, test: impl FnOnce(&SingleThreaded, &Facts)) {
    match alone.fork().expect("fork") {
        Fork::Child => {
            struct Bomb;
            impl Drop for Bomb {
                fn drop(&mut self) {
                    exit_now(101)
                }
            }
            let _bomb = Bomb;
            let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
            let ids = Ids { scheme: IdScheme::SingleRoot, uids: extents(0, uid), gids: extents(0, gid) };
            let outside = facts(data);
            outer::enter(&ids, alone).expect("a user namespace");
            let single = Ids { scheme: IdScheme::SingleRoot, uids: extents(0, 0), gids: extents(0, 0) };
            let inside = Facts { uid: 0, real_root: false, single, range: None, ..outside };
            test(alone, &inside);
            exit_now(0)
        }
        Fork::Parent(pid) => {
            let status = rustix::process::waitpid(Some(pid), WaitOptions::empty()).expect("wait").expect("ended").1;
            assert_eq!(status.exit_status(), Some(0), "see above");
        }
    }
}

fn namespaces() -> Vec<PathBuf> {
    ["user", "mnt", "pid", "net", "ipc", "uts", "cgroup"]
        .iter()
        .map(|name| std::fs::read_link(format!("/proc/self/ns/{name}")).expect("a namespace"))
        .collect()
}

fn the_host_is_probed_and_left_alone(alone: &SingleThreaded) {
    let temp = Temp::new();
    let facts = facts(&temp.0);
    let before = (namespaces(), std::fs::read_to_string("/proc/self/mountinfo").expect("mounts"));
    let start = std::time::Instant::now();
    let all = probe::run(&facts, alone);
    println!("{} probes in {:?}", all.len(), start.elapsed());
    for finding in &all {
        println!("  {:?} {}: {}", finding.state, finding.id, finding.detail);
        assert_eq!(finding.state == State::Ok, finding.cost.is_none(), "{finding:?}");
    }
    let mut ids: Vec<_> = all.iter().map(|f| f.id).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), all.len(), "each has a name of its own");
    for id in
        ["kernel", "user-namespaces", "nested-user-namespaces", "namespaces", "network-namespace", "proc", "cgroup2"]
            .into_iter()
            .chain(["terminals", "overlay", "seccomp", "clock"])
    {
        let finding = find(&all, id);
        assert_eq!(finding.state, State::Ok, "{finding:?}");
    }
    if facts.range.is_some() || facts.real_root {
        assert_eq!(find(&all, "subordinate-ids").state, State::Ok);
    }
    if facts.real_root {
        assert_eq!(find(&all, "id-mapped-mounts").state, State::Ok);
        assert_eq!(find(&all, "limit-pids").state, State::Ok);
    }
    assert_eq!(before, (namespaces(), std::fs::read_to_string("/proc/self/mountinfo").expect("mounts")));
    assert_eq!(std::fs::read_dir(&temp.0).expect("dir").count(), 0, "nothing stays on disk");
    assert_eq!(rustix::process::wait(WaitOptions::NOHANG).expect_err("no child"), rustix::io::Errno::CHILD);
}

const MAX: &str = "/proc/sys/user/max_user_namespaces";

fn no_user_namespaces_left(alone: &SingleThreaded) {
    in_namespace(alone, Path::new("/tmp"), |alone, facts| {
        assert_eq!(probe::user_namespaces(facts, alone).state, State::Ok);
        std::fs::write(MAX, "0").expect("root of this namespace may");
        let finding = probe::user_namespaces(facts, alone);
        assert_eq!(finding.state, State::Missing);
        assert_eq!(finding.detail, "none left: user.max_user_namespaces is 0");
        let script = finding.fix.and_then(|f| f.script).expect("a fix");
        assert!(script.contains("sudo sysctl -w user.max_user_namespaces=28633"), "{script}");
        // The rest is not tried, and nothing says that it would work.
        let all = probe::run(facts, alone);
        assert!(all.iter().all(|f| f.id != "overlay"), "{all:?}");
    });
}

fn no_second_user_namespace(alone: &SingleThreaded) {
    in_namespace(alone, Path::new("/tmp"), |alone, facts| {
        assert_eq!(probe::nested_user_namespaces(facts, alone).state, State::Ok);
        std::fs::write(MAX, "1").expect("root of this namespace may");
        // The kernel counts a namespace for some milliseconds after its last process.
        let one = (0..100).any(|_| {
            std::thread::sleep(std::time::Duration::from_millis(20));
            probe::user_namespaces(facts, alone).state == State::Ok
        });
        assert!(one, "one is allowed");
        std::thread::sleep(std::time::Duration::from_millis(200));
        let finding = probe::nested_user_namespaces(facts, alone);
        assert_eq!(finding.state, State::Missing);
        assert!(finding.detail.contains("user.max_user_namespaces is 1"), "{finding:?}");
    });
}

fn nested_too_deep(alone: &SingleThreaded) {
    in_namespace(alone, Path::new("/tmp"), |alone, facts| {
        let mut deeper = 0;
        while probe::user_namespaces(facts, alone).state == State::Ok {
            outer::enter(&facts.single, alone).expect("one more level");
            deeper += 1;
            assert!(deeper < 40, "the kernel has a limit");
        }
        let finding = probe::user_namespaces(facts, alone);
        assert_eq!(finding.state, State::Missing);
        assert!(deeper > 20 && finding.detail.contains("32 deep"), "{deeper} {finding:?}");
    });
}

/// The number of unshare(2).
const UNSHARE: u32 = if cfg!(target_arch = "x86_64") { 272 } else { 97 };

fn a_filter_forbids_user_namespaces(alone: &SingleThreaded) {
    in_namespace(alone, Path::new("/tmp"), |alone, facts| {
        assert_eq!(probe::user_namespaces(facts, alone).state, State::Ok);
        rustix::thread::set_no_new_privs(true).expect("no_new_privs");
        // Load the number; is it unshare: EPERM; else allow.
        let program = [(0x20, 0, 0, 0), (0x15, 0, 1, UNSHARE), (0x06, 0, 0, 0x0005_0001), (0x06, 0, 0, 0x7fff_0000)];
        cellblock_sys::seccomp::load(program).expect("a filter");
        let finding = probe::user_namespaces(facts, alone);
        assert_eq!(finding.state, State::Missing);
        assert!(finding.detail.contains("seccomp filter around this process"), "{finding:?}");
        assert!(finding.fix.and_then(|f| f.note).is_some_and(|n| n.contains("seccomp=unconfined")));
    });
}

/// A new file system of a kind, read-only or not, at `path`.
fn mount(kind: &str, path: &Path, attributes: MountAttrFlags) {
    let context = rustix::mount::fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC).expect("fsopen");
    rustix::mount::fsconfig_create(&context).expect("create");
    let mount = rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes).expect("fsmount");
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    rustix::mount::move_mount(&mount, "", rustix::fs::CWD, path, flags).expect("attach");
}

fn a_masked_proc(alone: &SingleThreaded) {
    let temp = Temp::new();
    in_namespace(alone, &temp.0, |alone, facts| {
        let all = probe::run(facts, alone);
        assert_eq!(find(&all, "proc").state, State::Ok);
        // As container engines do; the mount becomes a locked one in the next user namespace.
        mount("tmpfs", Path::new("/proc/sys"), MountAttrFlags::MOUNT_ATTR_RDONLY);
        let finding = find(&probe::run(facts, alone), "proc");
        assert_eq!(finding.state, State::Missing, "{finding:?}");
        assert!(finding.detail.contains("masked"), "{finding:?}");
        assert!(finding.fix.and_then(|f| f.note).is_some_and(|n| n.contains("systempaths=unconfined")));
    });
}

fn data_that_cannot_be_written(alone: &SingleThreaded) {
    let temp = Temp::new();
    in_namespace(alone, &temp.0, |alone, facts| {
        let finding = find(&probe::run(facts, alone), "overlay");
        assert_eq!(finding.state, State::Ok, "{finding:?}");
        mount("tmpfs", &temp.0, MountAttrFlags::MOUNT_ATTR_RDONLY);
        let finding = find(&probe::run(facts, alone), "overlay");
        assert_eq!(finding.state, State::Missing);
        assert!(finding.detail.contains("Read-only file system"), "{finding:?}");
    });
}

fn no_subordinate_ids(alone: &SingleThreaded) {
    let temp = Temp::new();
    let mut facts = facts(&temp.0);
    if facts.real_root {
        return;
    }
    (facts.subuids, facts.range, facts.user) = (vec![(100_000, 1000)], None, "somebody else".into());
    let finding = find(&probe::run(&facts, alone), "subordinate-ids");
    assert_eq!(finding.state, State::Degraded);
    assert!(finding.detail.contains("no range of 65536 ids for somebody else (1000 from 100000)"), "{finding:?}");
    let script = finding.fix.and_then(|f| f.script).expect("a fix");
    assert!(script.starts_with("sudo usermod --add-subuids ") && script.ends_with(" 'somebody else'"), "{script}");
}

/// `no_new_privs` takes the privilege of setuid programs away, as a broken installation does.
fn newuidmap_without_privilege(alone: &SingleThreaded) {
    let temp = Temp::new();
    let facts = facts(&temp.0);
    if facts.real_root || facts.range.is_none() {
        println!("SKIP newuidmap_without_privilege: this user needs subordinate ids");
        return;
    }
    assert_eq!(find(&probe::run(&facts, alone), "subordinate-ids").state, State::Ok);
    match alone.fork().expect("fork") {
        Fork::Child => {
            rustix::thread::set_no_new_privs(true).expect("no_new_privs");
            let all = probe::run(&facts, alone);
            let finding = find(&all, "subordinate-ids");
            // The rest is tried with the single id that works.
            let overlay = find(&all, "overlay");
            let fine = finding.state == State::Degraded
                && finding.fix.as_ref().is_some_and(|f| f.note.as_ref().is_some_and(|n| n.contains("no_new_privs")))
                && overlay.state == State::Ok;
            if !fine {
                println!("{finding:?} {overlay:?}");
            }
            exit_now(i32::from(!fine))
        }
        Fork::Parent(pid) => {
            let status = rustix::process::waitpid(Some(pid), WaitOptions::empty()).expect("wait").expect("ended").1;
            assert_eq!(status.exit_status(), Some(0));
        }
    }
}
