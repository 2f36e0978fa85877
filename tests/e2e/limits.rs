//! Memory, processor and process limits: enforced where the host lets us, refused with a reason where not.

use std::path::{Path, PathBuf};

use cellblock_tests::{World, cellblock};
use rustix::process::{Pid, Signal};

/// Uses 150 MB of memory for a moment and prints how much that was.
const HOG: &str = "-- sh -c 'head -c 200000000 /dev/zero | tail -c 150000000 | wc -c'";

fn inspect(world: &World, name: &str) -> serde_json::Value {
    serde_json::from_str(&world.cellblock(&format!("inspect {name}")).ok()).expect("json")
}

fn groups(world: &World, name: &str) -> Vec<PathBuf> {
    let about = inspect(world, name);
    about["cgroups"].as_array().expect("a list").iter().map(|g| g.as_str().expect("a path").into()).collect()
}

fn read(path: &Path, names: &[&str]) -> String {
    names.iter().find_map(|name| std::fs::read_to_string(path.join(name)).ok()).expect("one of these files")
}

/// Every group of ours for a cell `name` on this host, and every scope of systemd's.
fn on_the_host(name: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![PathBuf::from("/sys/fs/cgroup")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|t| t.is_dir()) {
                if entry.file_name().to_string_lossy().starts_with(&format!("cellblock-{name}")) {
                    found.push(entry.path());
                }
                folders.push(entry.path());
            }
        }
    }
    found
}

#[test]
fn the_limit_of_processes_counts_the_cells_own_and_nobody_else() {
    let world = World::new();
    if !world.can_limit() {
        return;
    }
    // Its first process, a shell, and two at once.
    let line =
        |pids: u32| format!("run --image host --net none --pids {pids} -- sh -c '/bin/true | /bin/true; echo $?'");
    for _ in 0..30 {
        assert_eq!(world.cellblock(&line(4)).ok(), "0\n");
    }
    let done = world.cellblock(&line(3)).run();
    assert!(done.stderr().contains("the limit of processes was reached"), "the probe works: {done}");
}

#[test]
fn without_a_usable_cgroup_the_reason_is_named_and_best_effort_goes_on() {
    let world = World::new();
    if world.can_limit() {
        world.cellblock("run --pids 50 --limits=best-effort -- true").ok();
        assert_eq!(world.cellblock("run --pids 50 --limits=best-effort -- true").run().stderr().find("without"), None);
        return;
    }
    for (flag, limit) in
        [("--memory 64M", "a memory limit"), ("--pids 20", "a pids limit"), ("--cpus 1", "a cpus limit")]
    {
        let refused = world.cellblock(&format!("run {flag} -- true")).fails(125);
        refused.says(limit).says("cannot be enforced: ").says("--limits=best-effort");
        let said = world.cellblock(&format!("run {flag} --limits=best-effort -- echo ran")).run();
        assert_eq!((said.code(), said.stdout().as_str()), (Some(0), "ran\n"), "{said}");
        let lines: Vec<_> =
            said.stderr().lines().filter(|l| l.contains("it runs without")).map(str::to_owned).collect();
        assert!(lines.len() == 1 && lines[0].contains(limit), "{said}");
    }
    world.cellblock("run -d --pids 20 -- true").fails(125).says("cannot be enforced: ").says("--limits=best-effort");
    let all = world.cellblock("run --memory 64M --pids 20 --cpus 1 --limits=best-effort -- true").run();
    assert_eq!(all.stderr().matches("it runs without").count(), 3, "{all}");
    assert!(world.leftovers().is_empty(), "{:?}", world.leftovers());
}

#[test]
fn a_cell_beyond_its_memory_is_killed_and_that_is_said() {
    let world = World::new();
    if !world.can_limit() {
        return;
    }
    let killed = world
        .cellblock("run --memory 48M -- sh -c 'head -c 200000000 /dev/zero | tail -c 150000000 >/dev/null'")
        .fails(137);
    killed.says("out of memory").says("the memory limit of 48 MiB was reached, 1 process killed");
    assert!(!world.cellblock(&format!("run --memory 48M {HOG}")).run().stdout().contains("150000000"));
    // Positive twins: without a limit, and below it.
    assert_eq!(world.cellblock(&format!("run {HOG}")).ok().trim(), "150000000", "the probe works");
    let fits = world.cellblock(&format!("run --memory 400M {HOG}")).run();
    assert_eq!((fits.stdout().trim(), fits.stderr().contains("memory")), ("150000000", false), "{fits}");
    // Too little to start with.
    world.cellblock("run --memory 256K -- true").fails(125).says("out of memory").says("raise `--memory`");
    assert!(world.leftovers().is_empty(), "{:?}", world.leftovers());
}

#[test]
fn forks_stop_at_the_limit() {
    let world = World::new();
    if !world.can_limit() {
        return;
    }
    let forks = |flags: &str| {
        let script = "for i in 1 2 3 4 5 6 7 8 9 10 11 12; do sleep 1 & done; wait; echo all";
        world.cellblock(&format!("run {flags} -- sh -c '{script}'")).run()
    };
    let few = forks("--pids 6");
    assert_ne!(few.stdout(), "all\n", "{few}");
    few.says("the limit of processes was reached");
    for enough in ["", "--pids 60"] {
        assert_eq!(forks(enough).stdout(), "all\n");
    }
}

#[test]
fn the_group_has_the_limits_holds_the_cell_and_goes_with_it() {
    let world = World::new();
    if !world.can_limit() {
        return;
    }
    let name = format!("quota{}", std::process::id());
    world.cellblock(&format!("run -d --name {name} --rm --cpus 1.5 --pids 77 -- sleep 60")).ok();
    let made = groups(&world, &name);
    let cpu = made.iter().find(|g| g.join("cpu.stat").exists()).expect("a cpu group");
    assert!(read(cpu, &["cpu.cfs_quota_us", "cpu.max"]).starts_with("150000"));
    let pids = made.iter().find(|g| g.join("pids.max").exists()).expect("a pids group");
    assert_eq!(read(pids, &["pids.max"]), "77\n");
    let about = inspect(&world, &name);
    let members = || read(pids, &["cgroup.procs"]);
    let is_member = |pid: &serde_json::Value| members().lines().any(|l| l.parse() == Ok(pid.as_i64().expect("a pid")));
    assert!(is_member(&about["running"]["init"]), "{}", members());
    assert!(!is_member(&about["supervisor"]), "the supervisor is not limited");
    // exec joins the same groups.
    let before = members().lines().count();
    let mut exec = world.call(&cellblock(), &["exec", &name, "--", "sleep", "60"]).start();
    world.wait("the command to be in the group", || members().lines().count() > before);
    exec.kill().and_then(|()| exec.wait()).expect("end");
    let scopes =
        |all: Vec<PathBuf>| all.into_iter().partition::<Vec<_>, _>(|g| g.extension().is_some_and(|e| e == "scope"));
    let (scope, found) = scopes(on_the_host(&name));
    assert_eq!((found.len(), scope.len() <= 1), (made.len(), true), "{scope:?} {found:?}");
    world.cellblock(&format!("stop {name} -t 0")).ok();
    let (_, found) = scopes(on_the_host(&name));
    assert!(found.is_empty(), "the groups go with the cell: {found:?}");
    // systemd is told of the end of a scope's last process, and then takes it away.
    world.wait("the scope to go", || on_the_host(&name).is_empty());
}

/// kill -9 in the middle, and at many moments of a start.
#[test]
fn no_group_outlives_a_killed_supervisor() {
    let world = World::new();
    if !world.can_limit() {
        return;
    }
    let name = format!("killed{}", std::process::id());
    let limited = ["--name", name.as_str(), "--rm", "--memory", "200M", "--pids", "50", "--cpus", "1"];
    let clean = || world.cellblock("status --json").ok().trim() == "[]" && world.leftovers().is_empty();
    world.call(&cellblock(), &[&["run", "-d"], &limited[..], &["--", "sleep", "1000"]].concat()).ok();
    assert!(!on_the_host(&name).is_empty(), "the probe works");
    let supervisor = inspect(&world, &name)["supervisor"].as_i64().and_then(|p| Pid::from_raw(i32::try_from(p).ok()?));
    rustix::process::kill_process(supervisor.expect("a pid"), Signal::KILL).expect("kill");
    world.wait("nothing to be left", clean);
    world.wait("no group to be left", || on_the_host(&name).is_empty());
    for delay in 0..20 {
        let mut child = world.call(&cellblock(), &[&["run"], &limited[..], &["--", "sleep", "1000"]].concat()).start();
        std::thread::sleep(std::time::Duration::from_micros(delay * 2500));
        child.kill().and_then(|()| child.wait()).expect("kill");
        world.wait("nothing to be left", clean);
        world.wait(&format!("no group to be left after {delay}"), || on_the_host(&name).is_empty());
    }
}

#[test]
fn nothing_is_moved_without_a_limit() {
    let world = World::new();
    let own = |text: String| text.lines().map(str::to_owned).collect::<Vec<_>>();
    world.cellblock("run -d --name c --rm -- sleep 60").ok();
    assert!(groups(&world, "c").is_empty());
    let init = inspect(&world, "c")["running"]["init"].to_string();
    let ours = own(std::fs::read_to_string("/proc/self/cgroup").expect("own"));
    assert_eq!(own(std::fs::read_to_string(format!("/proc/{init}/cgroup")).expect("the cell's")), ours);
}

#[test]
fn nonsense_limits_are_refused() {
    let world = World::new();
    for (flag, hint) in [
        ("--memory lots", "a size is a whole number"),
        ("--cpus many", "such as 2 or 1.5"),
        ("--memory 0", "a size must be above 0"),
    ] {
        world.cellblock(&format!("run {flag} -- true")).fails(125).says(hint);
    }
}
