//! kill -9 at any system call of any of our processes: the next command cleans up by itself.
//!
//! In the suite every process is killed at a spread of its system calls, for a few seconds a test. `CELLBLOCK_TEST_KILL=SECONDS` goes on
//! for longer, `CELLBLOCK_TEST_KILL=all` kills at every one, and `CELLBLOCK_TEST_KILL=FROM-TO` at those: the number is in the message of a
//! failure.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use cellblock_tests::tracer::Victim;
use cellblock_tests::{World, is_root};

/// How long one sweep may take in the suite.
const BUDGET: u64 = 8;

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
    let mut found: Vec<String> =
        mounts.lines().filter(|l| l.contains(root.trim_end_matches('/'))).map(str::to_owned).collect();
    let name = cell_name(world);
    for controller in std::fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten() {
        let mut groups = BTreeSet::new();
        // A scope of a person's own systemd lies six levels down.
        directories(&controller.path(), 8, &mut groups);
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

/// Its layer has another name already, and the rest has not.
#[test]
fn a_supervisor_killed_while_it_sets_things_aside() {
    let world = World::new();
    let layers = world.path("home/.local/share/cellblock/cells");
    let aside = || {
        let entries = std::fs::read_dir(&layers).into_iter().flatten().flatten();
        entries.into_iter().any(|entry| entry.file_name().to_string_lossy().starts_with('.'))
    };
    let line = format!("run --image host --name {} --rm {} -- true", cell_name(&world), ids());
    let calls = [u64::try_from(nix::libc::SYS_renameat2).expect("a number")];
    let traced = world.cellblock(&line).killed_before("cellblock", &calls, aside, Victim::Caller);
    assert_eq!(traced.killed.as_deref(), Some("cellblock"), "{traced:?}");
    assert!(aside(), "there is something to do");
    world.cellblock("status").ok();
    assert!(world.leftovers().is_empty(), "{:?}", world.leftovers());
}

/// A name that no other test has a cell or cgroup of.
fn cell_name(world: &World) -> String {
    let root = world.path("");
    format!("k-{}", root.file_name().expect("a name").to_string_lossy())
}

/// Which system calls to kill at, of `total`, and for how long. A step that has no factor in common with `total` goes through all of them
/// in an order that is spread out from the first on.
fn order(total: usize) -> (Vec<usize>, Duration) {
    let for_long = Duration::from_secs(86_400);
    let wanted = std::env::var("CELLBLOCK_TEST_KILL").unwrap_or_default();
    let number = |text: &str| text.parse::<usize>().expect("CELLBLOCK_TEST_KILL: SECONDS, all, or FROM-TO");
    if wanted == "all" {
        return ((0..total).collect(), for_long);
    }
    if let Some((from, to)) = wanted.split_once('-') {
        return ((number(from)..=number(to)).collect(), for_long);
    }
    let seconds = if wanted.is_empty() { BUDGET } else { number(&wanted) as u64 };
    let step = (total * 618 / 1000..).find(|step| common_factor(*step, total) == 1).unwrap_or(1);
    ((0..total).map(|i| i * step % total).collect(), Duration::from_secs(seconds))
}

fn common_factor(mut a: usize, mut b: usize) -> usize {
    while b > 0 {
        (a, b) = (b, a % b);
    }
    a
}

/// Kills `line` at its system calls, one run after the other. `before` is done first each time, `next` is the next command: after it nothing
/// may be left that is not left by runs that nobody kills.
#[expect(clippy::print_stdout, reason = "what was covered, for whoever looks")]
fn sweep(world: &World, line: &str, victim: Victim, before: &dyn Fn(), next: &dyn Fn(&str)) {
    let whole = || {
        before();
        let traced = world.cellblock(line).killed_at(usize::MAX, victim);
        assert!(traced.killed.is_none() && traced.calls > 50, "{traced:?}");
        next("not killed");
        traced.calls
    };
    // The first run may do more than all others.
    let total = whole().min(whole());
    let normal = own_files(world);
    let (calls, budget) = order(total);
    let end = Instant::now() + budget;
    let mut killed: BTreeMap<String, usize> = BTreeMap::new();
    for nth in calls {
        if Instant::now() > end {
            break;
        }
        before();
        let traced = world.cellblock(line).killed_at(nth, victim);
        *killed.entry(traced.killed.unwrap_or_else(|| "nobody".into())).or_default() += 1;
        let at = format!("{line}: killed {victim:?} at system call {nth} of {total}");
        next(&at);
        // Of the cell that the next command may have run, a process of its own takes away what is left.
        world.wait(&format!("{at}: files to go"), || own_files(world).is_subset(&normal));
        // systemd learns of a scope's end when it is told, and then takes it away.
        world.wait(&format!("{at}: traces to go"), || traces(world).is_empty());
    }
    println!("{line}: {total} system calls, killed {victim:?}: {killed:?}");
    before();
    world.cellblock(line).ok();
}

/// The next command, where no cell is to be left.
fn nothing_runs(world: &World) -> impl Fn(&str) {
    move |at| assert_eq!(world.cellblock("status --json").ok().trim(), "[]", "{at}")
}

/// Ids that need no set-user-id helper: those lose their privilege under a tracer.
fn ids() -> &'static str {
    if is_root() { "" } else { "--userns single" }
}

#[test]
fn a_start_killed_at_any_system_call() {
    let world = World::new();
    let limit = if world.can_limit() { "--pids 50" } else { "" };
    let line = format!("run --image host --name {} --rm {limit} {} -- true", cell_name(&world), ids());
    sweep(&world, &line, Victim::Caller, &|| (), &nothing_runs(&world));
}

#[test]
fn a_guard_killed_at_any_system_call_of_a_start() {
    let world = World::new();
    world.load_alpine();
    let line = format!("run --image alpine --name {} --rm {} -- true", cell_name(&world), ids());
    sweep(&world, &line, Victim::Command, &|| (), &nothing_runs(&world));
}

#[test]
fn a_start_in_the_background_killed_at_any_system_call() {
    let world = World::new();
    let line = format!("run -d --image host --name {} --rm {} -- true", cell_name(&world), ids());
    sweep(&world, &line, Victim::Caller, &|| (), &nothing_runs(&world));
}

#[test]
fn the_cleaning_up_killed_at_any_system_call() {
    let world = World::new();
    let name = cell_name(&world);
    let before = || {
        world.cellblock(&format!("run -d --image host --name {name} --rm {} -- sleep 1000", ids())).ok();
        let about: serde_json::Value =
            serde_json::from_str(&world.cellblock(&format!("inspect {name}")).ok()).expect("json");
        let pid = |value: &serde_json::Value| i32::try_from(value.as_i64().expect("a number")).expect("a pid");
        for pid in [pid(&about["supervisor"]), pid(&about["running"]["init"])] {
            let pid = rustix::process::Pid::from_raw(pid).expect("a pid");
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            world.wait("its end", || rustix::process::test_kill_process(pid).is_err());
        }
    };
    sweep(&world, "status", Victim::Caller, &before, &nothing_runs(&world));
}

#[test]
fn an_exec_killed_at_any_system_call() {
    let world = World::new();
    let name = cell_name(&world);
    world.cellblock(&format!("run -d --image host --name {name} --rm {} -- sleep 1000", ids())).ok();
    let alone = format!("exec {name} -- sh -c 'echo /proc/[0-9]*'");
    let next = |at: &str| {
        world.wait(at, || {
            // Init, the command, and the shell that looks.
            world.cellblock(&alone).ok().split_whitespace().count() == 3
        });
    };
    sweep(&world, &format!("exec {name} -- true"), Victim::Caller, &|| (), &next);
    // What was on its way in ends with who sent it. No system call of the caller's marks that moment, so that it has to be met.
    let begun = Instant::now();
    world.cellblock(&format!("exec {name} -- true")).ok();
    let whole = begun.elapsed();
    for part in 0..300 {
        let mut caller = world.cellblock(&format!("exec {name} -- sleep 1000")).start();
        std::thread::sleep(whole * (60 + part) / 400);
        caller.kill().expect("kill");
        caller.wait().expect("wait");
    }
    next("at any time");
    world.cellblock("stop --all -t 0").ok();
    nothing_runs(&world)("stop");
}

#[test]
fn storing_and_unpacking_an_image_killed_at_any_system_call() {
    let world = World::new();
    for dir in ["etc", "bin", "usr", "tmp"] {
        std::fs::create_dir_all(world.path(&format!("home/demo/tree/{dir}"))).expect("mkdir");
    }
    let archive = cellblock_tests::alpine();
    let parts = ["./bin/busybox", "./bin/true", "./lib"];
    world
        .call(Path::new("tar"), &[&["-xzf", archive.to_str().expect("utf-8"), "-C", "tree"], &parts[..]].concat())
        .ok();
    world.call(Path::new("tar"), &["-cf", "x.tar", "-C", "tree", "."]).ok();
    let load = "image load x.tar --name x";
    sweep(&world, load, Victim::Caller, &|| (), &|at| {
        assert!(world.cellblock(load).run().code() == Some(0), "{at}");
    });
    let run = format!("run --image x --name {} --rm {} -- true", cell_name(&world), ids());
    let before = || {
        world.cellblock("image remove x").ok();
        world.cellblock(load).ok();
    };
    sweep(&world, &run, Victim::Caller, &before, &|at| {
        let done = world.cellblock(&run).run();
        assert_eq!(done.code(), Some(0), "{at}: {done}");
        nothing_runs(&world)(at);
    });
}

#[test]
fn an_agents_start_killed_at_any_system_call() {
    let world = World::new();
    world.configure("agents: {sh: {state: [{path: ~/.agent}], login: [{path: ~/.agent/login}]}}\n");
    world.write("home/.agent/settings", "the person's");
    let home = world.path("home/.agent");
    let run = |command: &str| {
        let name = cell_name(&world);
        format!("run --image host --net none --name {name} --rm {} sh -c '{command}'", ids())
    };
    let before = || {
        world.cellblock("agent reset sh").ok();
        world.write("home/new", "first");
        std::fs::rename(world.path("home/new"), home.join("login")).expect("mv");
    };
    let next = |at: &str| {
        // Whole, whatever happened; and the next start has the same on both sides, and takes away what was begun.
        let login = std::fs::read_to_string(home.join("login")).expect("a login");
        assert!(["first", "renewed\n"].contains(&login.as_str()), "{at}: {login:?}");
        let inside = world.cellblock(&run("cat ~/.agent/login ~/.agent/settings")).ok();
        let login = std::fs::read_to_string(home.join("login")).expect("a login");
        let settings = inside.strip_prefix(&login).expect(at);
        // Nothing: the shell inside was killed between opening the project's file and writing it.
        assert!(["mine\n", "the person's", ""].contains(&settings), "{at}: {settings:?}");
        let mut names: Vec<_> = std::fs::read_dir(&home).expect("list").flatten().map(|e| e.file_name()).collect();
        names.sort();
        assert_eq!(names, ["login", "settings"], "{at}");
        assert_eq!(std::fs::read_to_string(home.join("settings")).expect("there"), "the person's", "{at}");
        nothing_runs(&world)(at);
        world.cellblock("agent reset sh").ok();
    };
    let line = run("cd ~/.agent && echo renewed > new && mv new login && echo mine > settings");
    sweep(&world, &line, Victim::Caller, &before, &next);
}
