//! Names, status, stop, exec, and what is left when something is killed (rows A1, A2, A3, A4).

use std::path::Path;

use cellblock_tests::{World, cellblock, is_root};
use rustix::process::{Pid, Signal};

#[test]
fn names_come_from_project_branch_and_program() {
    let world = World::new();
    world.cellblock("run -d -- sleep 60").ok();
    assert_eq!(world.cellblock("status -q").ok(), "demo-main-sleep\n");
    world.cellblock("run -d -- sleep 60").ok();
    assert_eq!(world.cellblock("status -q").ok(), "demo-main-sleep\ndemo-main-sleep-2\n");
    world
        .cellblock("run -d --name demo-main-sleep -- true")
        .fails(125)
        .says("a cell named `demo-main-sleep` is running already")
        .says("cellblock exec");
    let rows: serde_json::Value = serde_json::from_str(&world.cellblock("status --json").ok()).expect("json");
    assert_eq!(rows[0]["labels"]["cellblock.project"], "demo");
    assert_eq!(rows[0]["labels"]["cellblock.branch"], "main");
    assert_eq!(world.cellblock("stop -t 0").ok().lines().count(), 2);
    assert!(world.leftovers().is_empty(), "{:?}", world.leftovers());
}

#[test]
fn stop_waits_asks_nicely_and_then_does_not() {
    let world = World::new();
    world.cellblock("run -d --name nice --rm -- sh -c 'trap \"exit 9\" TERM; while :; do sleep 0.05; done'").ok();
    world.cellblock("run -d --name deaf --rm -- sh -c 'trap \"\" TERM; echo up; while :; do sleep 0.05; done'").ok();
    world.wait("the shells to be up", || world.cellblock("logs deaf").ok().contains("up"));
    std::thread::sleep(std::time::Duration::from_millis(200));
    let stopped: serde_json::Value = serde_json::from_str(&world.cellblock("stop --json nice").ok()).expect("json");
    assert_eq!(stopped[0]["exit_code"], 9);
    let stopped: serde_json::Value =
        serde_json::from_str(&world.cellblock("stop --json -t 1 deaf").ok()).expect("json");
    assert_eq!(stopped[0]["exit_code"], 137);
    world.cellblock("stop nobody").fails(125).says("no cell or project named `nobody`");
    assert!(world.leftovers().is_empty());
}

/// At a reboot the runtime folder goes, and with it what is known of the cells that ran.
#[test]
fn a_reboot_costs_a_kept_cell_nothing_and_another_its_layer() {
    let world = World::new();
    let write = "-- sh -c 'echo old >/var/tmp/old; sync /var/tmp/old; sleep 1000'";
    for (flags, expected) in [("--name kept", "old\n"), ("--name gone --rm", "none\n"), ("--image host", "none\n")] {
        world.cellblock(&format!("run -d {flags} {write}")).ok();
        let cells: serde_json::Value = serde_json::from_str(&world.cellblock("status --json").ok()).expect("json");
        let name = cells[0]["name"].as_str().expect("a name").to_owned();
        world.wait("the file", || {
            world.cellblock(&format!("exec {name} -- test -e /var/tmp/old")).run().code() == Some(0)
        });
        let about = inspect(&world, &name);
        rustix::process::kill_process(pid(&about["supervisor"]), Signal::KILL).expect("kill");
        world.wait("its end", || gone(pid(&about["running"]["init"])));
        // What a reboot does.
        world.call(Path::new("rm"), &["-rf", &world.path("run/cellblock/cells").display().to_string()]).ok();
        let read = "-- sh -c 'cat /var/tmp/old 2>/dev/null || echo none'";
        assert_eq!(world.cellblock(&format!("run {flags} {read}")).ok(), expected, "{flags}");
    }
    // Nobody comes again by this name: whoever ends next takes it away.
    world.cellblock("run -d --name alone --rm -- sleep 1000").ok();
    world.wait("its process", || !inspect(&world, "alone")["running"].is_null());
    let about = inspect(&world, "alone");
    rustix::process::kill_process(pid(&about["supervisor"]), Signal::KILL).expect("kill");
    world.wait("its end", || gone(pid(&about["running"]["init"])));
    world.call(Path::new("rm"), &["-rf", &world.path("run/cellblock/cells").display().to_string()]).ok();
    assert_eq!(layers(&world).len(), 2);
    assert_eq!(world.cellblock("status --all -q").ok(), "kept\n", "the other one was not to be kept");
    world.cellblock("remove alone").fails(125).says("nothing is kept");
    world.cellblock("run --name other --rm -- true").ok();
    world.wait("one layer", || layers(&world) == ["kept"]);
    world.cellblock("run --name kept --rm -- true").ok();
    assert!(world.leftovers().is_empty(), "{:?}", world.leftovers());
}

/// As a logout does to cells in tmux.
#[test]
fn a_runtime_folder_that_is_gone_costs_a_running_cell_nothing() {
    let world = World::new();
    world.cellblock("run -d --name on --rm -- sh -c 'echo old >/var/tmp/old; sleep 1000'").ok();
    world.wait("the file", || world.cellblock("exec on -- test -e /var/tmp/old").run().code() == Some(0));
    let (there, away) = (world.path("run/cellblock"), world.path("run/away"));
    std::fs::rename(&there, &away).expect("a rename");
    world.cellblock("run --name other --rm -- true").ok();
    world.wait("the other's end", || layers(&world) == ["on"]);
    world.cellblock("run --name on --rm -- true").fails(125).says("a cell named `on` is running already");
    world
        .wait("the end of that", || std::fs::read_dir(there.join("cells")).is_ok_and(|mut left| left.next().is_none()));
    // Nor what is left of a start that was killed there.
    std::fs::create_dir(there.join("cells/on")).expect("a folder");
    std::fs::copy(away.join("cells/on/cell.json"), there.join("cells/on/cell.json")).expect("a record");
    assert_eq!(world.cellblock("status --json").ok().trim(), "[]");
    assert!(!there.join("cells/on").exists(), "it was cleaned up");
    assert!(world.path("home/.local/share/cellblock/cells/on/upper").exists());
    world.call(Path::new("rm"), &["-rf", &there.display().to_string()]).ok();
    std::fs::rename(&away, &there).expect("a rename");
    world.cellblock("exec on -- test -e /var/tmp/old").ok();
    world.cellblock("stop -t 0 on").ok();
    assert!(world.leftovers().is_empty(), "{:?}", world.leftovers());
}

fn layers(world: &World) -> Vec<String> {
    let entries = std::fs::read_dir(world.path("home/.local/share/cellblock/cells")).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

/// As by Ctrl-Z, which a person may have forgotten.
#[test]
fn stop_ends_a_cell_whose_supervisor_was_stopped() {
    let world = World::new();
    let child = world.call(&cellblock(), &["run", "--name", "z", "--rm", "--", "sleep", "1000"]).start();
    world.wait("the cell", || world.cellblock("status -q").ok().contains('z'));
    world.wait("its process", || !inspect(&world, "z")["running"].is_null());
    rustix::process::kill_process(pid(&inspect(&world, "z")["supervisor"]), Signal::STOP).expect("kill");
    let started = std::time::Instant::now();
    world.cellblock("stop -t 1 z").ok();
    assert!(started.elapsed() < std::time::Duration::from_secs(30), "it was woken");
    assert_eq!(child.wait_with_output().expect("end").status.code(), Some(143));
    assert!(world.leftovers().is_empty());
}

#[test]
fn exec_and_shell_join_the_running_cell() {
    let world = World::new();
    world.cellblock("run -d --name c --rm -e MARK=1 -- sleep 60").ok();
    world.cellblock("exec c -- touch /tmp/seen").ok();
    world.cellblock("exec c -- test -e /tmp/seen").ok();
    assert_eq!(world.cellblock("exec -e X=y c -- sh -c 'echo $MARK$X'").ok(), "1y\n");
    assert_eq!(world.cellblock("exec -w / c -- pwd").ok(), "/\n");
    let _ = world.cellblock("exec c -- sh -c 'exit 5'").fails(5);
    let _ = world.cellblock("exec c -- sh -c 'kill -9 $$'").fails(137);
    world.cellblock("exec c -- nothing").fails(127).says("was not found in the cell");
    world.cellblock("exec gone -- true").fails(125).says("no cell named `gone` is running");
    assert_eq!(world.cellblock("shell c").input("echo from-$CELLBLOCK_NAME\n").ok(), "from-c\n");
    assert_eq!(world.cellblock("shell").input("echo again-$CELLBLOCK_NAME\n").ok(), "again-c\n");
    world.cellblock("stop c -t 0").ok();
    assert!(world.cellblock("shell").input("echo new-$CELLBLOCK_NAME\n").ok().starts_with("new-demo-main-"));
}

#[test]
fn a_background_cell_that_cannot_start_says_why_at_once() {
    let world = World::new();
    world.cellblock("run -d -w /nowhere -- true").fails(125).says("working directory");
    world.cellblock("run -d -- sh -c 'echo to the log'").ok();
    world.wait("the log", || world.cellblock("logs demo-main-sh").run().stdout().contains("to the log"));
}

#[test]
fn two_starts_at_once_get_one_name_between_them() {
    let world = World::new();
    let starts: Vec<_> = (0..8)
        .map(|_| world.call(&cellblock(), &["run", "-d", "--name", "one", "--", "sleep", "60"]).start())
        .collect();
    let codes: Vec<_> = starts.into_iter().map(|c| c.wait_with_output().expect("end").status.code()).collect();
    assert_eq!(codes.iter().filter(|c| **c == Some(0)).count(), 1, "{codes:?}");
    assert_eq!(codes.iter().filter(|c| **c == Some(125)).count(), 7, "{codes:?}");
}

#[test]
fn a_hundred_cells_at_once() {
    let world = World::new();
    let started = std::time::Instant::now();
    let starts: Vec<_> = (0..100).map(|_| world.call(&cellblock(), &["run", "--", "true"]).start()).collect();
    for child in starts {
        let output = child.wait_with_output().expect("end");
        assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    }
    println!("100 cells in {:?}", started.elapsed());
    assert!(world.leftovers().is_empty(), "{:?}", world.leftovers());
}

/// What takes the kernel long goes on behind the end of a command; nothing that the next one needs.
#[test]
fn what_a_cell_had_is_free_when_it_has_ended() {
    let world = World::new();
    for round in 0..6 {
        world.cellblock("run --name again --rm -- true").ok();
        assert_eq!(world.cellblock("status --json").ok().trim(), "[]");
        let count = format!(
            "run --name kept --net none -- sh -c 'test $(cat ~/n || echo 0) = {round} && echo {} >~/n && sync ~/n'",
            round + 1
        );
        world.cellblock(&count).ok();
    }
    let end = world.cellblock("run --name again --rm -- sh -c 'echo last; sleep 0.1'").ok();
    assert_eq!(end, "last\n");
    world.cellblock("run --name kept --rm -- true").ok();
    assert!(world.leftovers().is_empty(), "{:?}", world.leftovers());
}

/// As after Ctrl-C at the question whether to start it: the name is taken, and nothing else has been done.
#[test]
fn a_start_that_was_broken_off_costs_a_kept_cell_nothing() {
    let world = World::new();
    world.cellblock("run --name kept -- sh -c 'echo mine >/mine'").ok();
    world.write("run/cellblock/cells/kept/lock", "");
    assert_eq!(world.cellblock("status -q").ok(), "");
    assert!(!world.path("run/cellblock/cells/kept").exists());
    assert_eq!(world.cellblock("run --name kept --rm -- cat /mine").ok(), "mine\n");
    assert!(world.leftovers().is_empty(), "{:?}", world.leftovers());
}

fn inspect(world: &World, name: &str) -> serde_json::Value {
    serde_json::from_str(&world.cellblock(&format!("inspect {name}")).ok()).expect("json")
}

fn pid(value: &serde_json::Value) -> Pid {
    Pid::from_raw(i32::try_from(value.as_i64().expect("a number")).expect("a pid")).expect("a pid")
}

fn gone(pid: Pid) -> bool {
    rustix::process::test_kill_process(pid).is_err()
}

#[test]
fn a_killed_supervisor_takes_its_cell_along_and_the_next_command_cleans_up() {
    let world = World::new();
    world.load_alpine();
    for image in ["host", "alpine"] {
        world.cellblock(&format!("run -d --name c --rm --image {image} -- sleep 1000")).ok();
        let _ = world.cellblock("exec -u root c -- sh -c 'mkdir -p /var/x/y; touch /var/x/y/z'").run();
        let about = inspect(&world, "c");
        let (supervisor, init) = (pid(&about["supervisor"]), pid(&about["running"]["init"]));
        rustix::process::kill_process(supervisor, Signal::KILL).expect("kill");
        world.wait("the cell to die", || gone(init));
        world.wait("nothing to be left", || {
            world.cellblock("status --json").ok().trim() == "[]" && world.leftovers().is_empty()
        });
    }
}

#[test]
fn a_killed_init_is_an_exit_code() {
    let world = World::new();
    let child = world.call(&cellblock(), &["run", "--name", "c", "--rm", "--", "sleep", "1000"]).start();
    world.wait("the cell", || world.cellblock("status -q").ok().contains('c'));
    world.wait("its process", || !inspect(&world, "c")["running"].is_null());
    rustix::process::kill_process(pid(&inspect(&world, "c")["running"]["init"]), Signal::KILL).expect("kill");
    assert_eq!(child.wait_with_output().expect("end").status.code(), Some(137));
    assert!(world.leftovers().is_empty());
}

/// kill -9 at many moments of a start: whatever had been reached, the next command leaves nothing.
#[test]
fn a_start_killed_at_any_moment_leaves_nothing() {
    let world = World::new();
    world.load_alpine();
    for delay in 0..40 {
        let mut child = world
            .call(&cellblock(), &["run", "--image", "alpine", "--name", "c", "--rm", "--", "sleep", "1000"])
            .start();
        std::thread::sleep(std::time::Duration::from_micros(delay * 700));
        child.kill().expect("kill");
        let _ = child.wait();
        world.wait("nothing to be left", || {
            world.cellblock("status --json").ok().trim() == "[]" && world.leftovers().is_empty()
        });
    }
    world.cellblock("run -- true").ok();
}

#[test]
fn the_supervisor_is_small() {
    let world = World::new();
    world.cellblock("run -d --name c --rm -- sleep 60").ok();
    let pid = inspect(&world, "c")["supervisor"].as_i64().expect("pid");
    if !is_root() {
        return; // The supervisor hides its memory map from its own user; root measures for both.
    }
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).expect("root reads it");
    let private: u64 = text
        .lines()
        .filter(|l| l.starts_with("Private_Dirty"))
        .filter_map(|l| l.split_whitespace().nth(1)?.parse::<u64>().ok())
        .sum();
    println!("supervisor: {private} KiB private");
    assert!(private <= 1536, "{text}");
}

#[test]
fn waiting_costs_no_processor_time() {
    let world = World::new();
    let ticks = |pid: u32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("stat");
        let fields: Vec<u64> = stat
            .rsplit_once(')')
            .expect("name")
            .1
            .split_whitespace()
            .skip(11)
            .take(2)
            .map(|n| n.parse().expect("ticks"))
            .collect();
        fields.iter().sum::<u64>()
    };
    world.cellblock("run -d --name c --rm -- sleep 60").ok();
    for args in [
        &["exec", "c", "--", "sleep", "60"][..],
        &["run", "--no-init", "--", "sleep", "60"],
        &["run", "--", "sleep", "60"],
    ] {
        let mut child = world.call(&cellblock(), args).start();
        let spent = || {
            let before = ticks(child.id());
            std::thread::sleep(std::time::Duration::from_millis(700));
            ticks(child.id()) - before
        };
        // Once it has started, which is not soon everywhere.
        let waits = (0..20).any(|_| spent() <= 5);
        rustix::process::kill_process(Pid::from_child(&child), Signal::KILL).expect("signal");
        let _ = child.wait();
        assert!(waits, "{args:?} spends more than 5 ticks of 10 ms in 0.7 s of waiting");
    }
}
