//! kill -9 at any system call of any of our processes: the next command cleans up by itself.
//!
//! In the suite every process is killed at a spread of its system calls. `CELLBLOCK_TEST_KILL=all` kills at every one, and
//! `CELLBLOCK_TEST_KILL=FROM-TO` at those: the number is in the message of a failure.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use cellblock_tests::tracer::Victim;
use cellblock_tests::{World, is_root};

/// How long one sweep may take in the suite.
const BUDGET: Duration = Duration::from_secs(12);

/// Everything below the folders that are cellblock's own, but for the given ones.
fn own_files(world: &World) -> BTreeSet<PathBuf> {
    let mut all = BTreeSet::new();
    for dir in ["run/cellblock", "home/.local/share/cellblock", "home/.local/state/cellblock"] {
        collect(&world.path(dir), &mut all);
    }
    all
}

fn collect(dir: &Path, all: &mut BTreeSet<PathBuf>) {
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let unpacked = dir.parent().is_some_and(|p| p.ends_with("layers"));
        if entry.file_type().is_ok_and(|t| t.is_dir()) && !unpacked {
            collect(&entry.path(), all);
        }
        all.insert(entry.path());
    }
}

/// Mounts and cgroups of the host that have to do with this world.
fn traces(world: &World) -> Vec<String> {
    let root = world.path("").display().to_string();
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").expect("mountinfo");
    let mut found: Vec<String> = mounts.lines().filter(|l| l.contains(root.trim_end_matches('/'))).map(str::to_owned).collect();
    let name = cell_name(world);
    for controller in std::fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten() {
        let mut groups = BTreeSet::new();
        directories(&controller.path(), 3, &mut groups);
        found.extend(groups.iter().filter(|g| g.to_string_lossy().contains(&name)).map(|g| g.display().to_string()));
    }
    found
}

fn directories(dir: &Path, depth: u32, all: &mut BTreeSet<PathBuf>) {
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        if depth > 0 && entry.file_type().is_ok_and(|t| t.is_dir()) {
            directories(&entry.path(), depth - 1, all);
            all.insert(entry.path());
        }
    }
}

/// A name that no other test has a cell or cgroup of.
fn cell_name(world: &World) -> String {
    let root = world.path("");
    format!("k-{}", root.file_name().expect("a name").to_string_lossy())
}

/// Which system calls to kill at, of `total`: a number that has no factor in common with it steps through all of them in an order that is
/// spread out from the first on.
fn order(total: usize) -> Vec<usize> {
    match std::env::var("CELLBLOCK_TEST_KILL").as_deref() {
        Ok("all") => (0..total).collect(),
        Ok(range) => {
            let (from, to) = range.split_once('-').expect("FROM-TO");
            (from.parse().expect("a number")..=to.parse().expect("a number")).collect()
        }
        Err(_) => {
            let gcd = |mut a: usize, mut b: usize| { while b > 0 { (a, b) = (b, a % b); } a };
            let step = (total * 618 / 1000..).find(|s| gcd(*s, total) == 1).unwrap_or(1);
            (0..total).map(|i| i * step % total).collect()
        }
    }
}

/// Kills `line` at its system calls one after the other; `before` is done first each time. Nothing may be left that a whole run does not leave.
fn sweep(world: &World, line: &str, victim: Victim, before: &dyn Fn(), after: &dyn Fn(&str)) {
    before();
    let whole = world.cellblock(line).killed_at(usize::MAX, victim);
    assert!(whole.killed.is_none() && whole.calls > 100, "{whole:?}");
    after("whole");
    world.cellblock("status --json").ok();
    let normal = own_files(world);
    let end = Instant::now() + if std::env::var_os("CELLBLOCK_TEST_KILL").is_some() { Duration::from_secs(86_400) } else { BUDGET };
    let mut killed: BTreeMap<String, usize> = BTreeMap::new();
    for nth in order(whole.calls) {
        if Instant::now() > end {
            break;
        }
        before();
        let traced = world.cellblock(line).killed_at(nth, victim);
        *killed.entry(traced.killed.unwrap_or_else(|| "nobody".into())).or_default() += 1;
        let at = format!("{line}: killed {victim:?} at system call {nth} of {}", whole.calls);
        after(&at);
        assert_eq!(world.cellblock("status --json").ok().trim(), "[]", "{at}");
        let left: Vec<_> = own_files(world).difference(&normal).cloned().collect();
        assert!(left.is_empty(), "{at} left {left:?}");
        assert_eq!(traces(world), Vec::<String>::new(), "{at}");
    }
    println!("{line}: {} system calls, killed {victim:?}: {killed:?}", whole.calls);
    world.cellblock(line).ok();
}

/// Ids that need no set-user-id helper: those lose their privilege under a tracer.
fn ids() -> &'static str {
    if is_root() { "" } else { "--userns single" }
}

#[test]
fn a_start_on_the_host_image_killed_at_any_system_call() {
    let world = World::new();
    let limit = if is_root() { "--pids 50" } else { "" };
    let line = format!("run --image host --name {} --rm {limit} {} -- true", cell_name(&world), ids());
    sweep(&world, &line, Victim::Caller, &|| (), &|_| ());
}

#[test]
fn the_guard_of_a_start_killed_at_any_system_call() {
    let world = World::new();
    world.load_alpine();
    let line = format!("run --image alpine --name {} --rm {} -- true", cell_name(&world), ids());
    sweep(&world, &line, Victim::Command, &|| (), &|_| ());
}
