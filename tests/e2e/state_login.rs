//! Logins whose tokens rotate: valid once, from either side, both sides running (rows E4, D8; a fake issuer).

use std::path::Path;
use std::time::{Duration, Instant};

use cellblock_tests::World;

use crate::state::{agent, world};

/// Renews the login: `rotate.sh place|rename`. The issuer takes a token once; who shows it an old one has killed the login.
const ROTATE: &str = r#"
set -e
login=$HOME/.claude/.credentials.json issuer=$(dirname "$0")/issuer
token=$(sed -n 's/.*:\([0-9]*\)}/\1/p' "$login")
if [ -e "$issuer/dead" ] || [ "$token" != "$(cat "$issuer/current")" ]; then
    echo "$1 with the token $token" >> "$issuer/dead"
    exit 7
fi
echo $((token + 1)) > "$issuer/current"
case $1 in
place) echo "{\"token\":$((token + 1))}" > "$login" ;;
rename) echo "{\"token\":$((token + 1))}" > "$login.new" && mv "$login.new" "$login" ;;
esac
"#;

/// The world with an issuer, and a cell that runs.
fn rotating(flags: &str) -> World {
    let world = world();
    world.write("home/demo/issuer/current", "1");
    world.write("home/demo/rotate.sh", ROTATE);
    agent(&world, &format!("-d --name it {flags}"), "sleep 300").ok();
    world
}

fn on_host(world: &World, how: &str) -> Option<i32> {
    let script = world.path("home/demo/rotate.sh").display().to_string();
    world.call(Path::new("/bin/sh"), &[script.as_str(), how]).run().code()
}

fn in_cell(world: &World, cell: &str, how: &str) -> Option<i32> {
    let script = world.path("home/demo/rotate.sh").display().to_string();
    world.cellblock(&format!("exec {cell} -- sh {script} {how}")).run().code()
}

fn host_login(world: &World) -> String {
    std::fs::read_to_string(world.path("home/.claude/.credentials.json")).expect("the host has a login")
}

fn cell_login(world: &World, cell: &str) -> String {
    world
        .cellblock(&format!("exec {cell} -- cat {}", world.path("home/.claude/.credentials.json").display()))
        .run()
        .stdout()
}

#[test]
fn rotations_on_both_sides_keep_both_alive() {
    let world = rotating("");
    // In place: nobody waits for anything.
    for round in 0..3 {
        assert_eq!(in_cell(&world, "it", "place"), Some(0), "round {round}");
        assert_eq!(on_host(&world, "place"), Some(0), "round {round}");
    }
    // By rename: the other side has it within a moment.
    for round in 0..3 {
        assert_eq!(in_cell(&world, "it", "rename"), Some(0), "round {round}");
        let want = cell_login(&world, "it");
        world.wait("the host's", || host_login(&world) == want);
        assert_eq!(on_host(&world, "rename"), Some(0), "round {round}");
        let want = host_login(&world);
        world.wait("the cell's", || cell_login(&world, "it") == want);
    }
    assert_eq!(in_cell(&world, "it", "place"), Some(0));
    assert_eq!(on_host(&world, "place"), Some(0), "and in place again");
    assert!(!world.project().join("issuer/dead").exists());
    // The probe works: an old token kills.
    world.write("home/.claude/.credentials.json", "{\"token\":1}");
    assert_eq!(on_host(&world, "place"), Some(7));
    assert!(world.project().join("issuer/dead").exists());
}

#[test]
fn a_login_made_anew_on_the_host_arrives_soon() {
    let world = rotating("");
    let mut worst = Duration::ZERO;
    for token in 100..110 {
        let text = format!("{{\"token\":{token}}}");
        world.write("home/new", &text);
        // What the project's folder has is what the cell reads.
        let layer = world.path("home/.local/share/cellblock/projects");
        let begin = Instant::now();
        std::fs::rename(world.path("home/new"), world.path("home/.claude/.credentials.json")).expect("mv");
        let project = std::fs::read_dir(&layer).expect("projects").flatten().next().expect("one").path();
        world.wait("it arrives", || {
            std::fs::read_to_string(project.join("state/claude-code/.claude/.credentials.json"))
                .is_ok_and(|t| t == text)
        });
        worst = worst.max(begin.elapsed());
    }
    eprintln!("the slowest of ten took {worst:?}");
    assert!(worst < Duration::from_secs(5), "{worst:?}");
}

#[test]
fn projects_side_by_side_share_one_login() {
    let world = rotating("");
    world.write("home/other/.git/HEAD", "ref: refs/heads/main\n");
    let project = world.project().display().to_string();
    agent(&world, &format!("-d --name else -v {project}"), "sleep 300").dir(&world.path("home/other")).ok();
    for how in ["place", "place", "rename", "rename", "place"] {
        for cell in ["it", "else"] {
            assert_eq!(in_cell(&world, cell, how), Some(0), "{cell} {how}");
            let want = cell_login(&world, cell);
            world.wait("everywhere", || {
                host_login(&world) == want && cell_login(&world, "it") == want && cell_login(&world, "else") == want
            });
        }
    }
    assert!(!world.project().join("issuer/dead").exists());
}

#[test]
fn renewing_is_locked_for_both_sides() {
    let world = rotating("");
    let lock = world.path("home/.claude/.oauth_refresh.lock");
    let inside = |command: &str| world.cellblock(&format!("exec it -- {command} {}", lock.display())).run().code();
    assert_eq!(inside("mkdir"), Some(0));
    world.wait("the host sees it", || lock.is_dir());
    assert_eq!(inside("rmdir"), Some(0));
    world.wait("it is given back", || !lock.exists());
    std::fs::create_dir(&lock).expect("the host's turn");
    world.wait("the cell sees it", || inside("test -d") == Some(0));
    std::fs::remove_dir(&lock).expect("given back");
    world.wait("the cell sees that too", || inside("test -d") == Some(1));
}

#[test]
fn what_a_kill_interrupts_is_brought_home() {
    let world = rotating("");
    assert_eq!(in_cell(&world, "it", "rename"), Some(0));
    let want = cell_login(&world, "it");
    let record = std::fs::read_to_string(world.path("run/cellblock/cells/it/cell.json")).expect("a record");
    let number =
        record.split("\"supervisor\":").nth(1).and_then(|rest| rest.split([',', '}']).next()).expect("its pid");
    let pid = rustix::process::Pid::from_raw(number.trim().parse().expect("a number")).expect("a pid");
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("kill");
    // By its keeper, or by the next start.
    let seen = agent(&world, "", "cat ~/.claude/.credentials.json").ok();
    assert_eq!((seen.as_str(), host_login(&world)), (want.as_str(), want.clone()));
    assert_eq!(on_host(&world, "place"), Some(0));
}

#[test]
fn another_process_takes_over_when_that_of_the_logins_dies() {
    let world = rotating("");
    let keeper = || {
        let mine = |pid: &String| {
            std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim() == "cellblock-keep")
                && std::fs::read_link(format!("/proc/{pid}/root")).is_ok()
                && descends_from_ours(pid, &world)
        };
        let pids = std::fs::read_dir("/proc").expect("proc").flatten().filter_map(|e| e.file_name().into_string().ok());
        pids.filter(|pid| pid.bytes().all(|b| b.is_ascii_digit())).find(mine)
    };
    let first = keeper().expect("it runs");
    let pid = rustix::process::Pid::from_raw(first.parse().expect("a number")).expect("a pid");
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("kill");
    world.wait("another one", || keeper().is_some_and(|pid| pid != first));
    assert_eq!(in_cell(&world, "it", "rename"), Some(0));
    let want = cell_login(&world, "it");
    world.wait("the host's", || host_login(&world) == want);
}

/// Whether the process's parent is the supervisor of this world's cell.
fn descends_from_ours(pid: &str, world: &World) -> bool {
    let record = std::fs::read_to_string(world.path("run/cellblock/cells/it/cell.json")).unwrap_or_default();
    let supervisor =
        record.split("\"supervisor\":").nth(1).and_then(|rest| rest.split([',', '}']).next()).map(str::trim);
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let parent = status.lines().find_map(|line| line.strip_prefix("PPid:")).map(str::trim);
    parent.is_some() && parent == supervisor
}

#[test]
fn a_synced_login_follows_and_is_never_written_back() {
    let world = world();
    world.configure("agents: {claude-code: {login: [{path: ~/.claude/.credentials.json, mode: sync}]}}\n");
    agent(&world, "-d --name it", "sleep 300").ok();
    for token in 5..8 {
        let text = format!("{{\"token\":{token}}}");
        world.write("home/new", &text);
        std::fs::rename(world.path("home/new"), world.path("home/.claude/.credentials.json")).expect("mv");
        world.wait("a rename", || cell_login(&world, "it") == text);
        let text = format!("{{\"token\":{}}}", token * 10);
        world.write("home/.claude/.credentials.json", &text);
        world.wait("in place", || cell_login(&world, "it") == text);
    }
    let path = world.path("home/.claude/.credentials.json").display().to_string();
    let write = world.cellblock(&format!("exec it -- sh -c 'echo mine > {path}.t && mv {path}.t {path}'"));
    write.ok();
    world.wait("the host's again", || cell_login(&world, "it") == "{\"token\":70}");
    assert_eq!(host_login(&world), "{\"token\":70}");
}

#[test]
fn a_login_of_the_projects_own_is_never_the_hosts() {
    let world = world();
    world.configure("agents: {claude-code: {login: [{path: ~/.claude/.credentials.json, mode: private}]}}\n");
    let _ = agent(&world, "", "test -e ~/.claude/.credentials.json").fails(1);
    agent(&world, "", "echo mine > ~/.claude/.credentials.json").ok();
    assert_eq!(agent(&world, "", "cat ~/.claude/.credentials.json").ok(), "mine\n");
    assert_eq!(host_login(&world), "{\"token\":1}");
}

#[test]
fn without_watches_it_looks_again_and_again_and_says_so() {
    let world = world();
    let mut held = Vec::new();
    // Others of this user's, who give some back at any time.
    world.wait("nothing is left to watch with", || {
        // Every instance that this user may have (fs.inotify.max_user_instances).
        while let Ok(one) = rustix::fs::inotify::init(rustix::fs::inotify::CreateFlags::CLOEXEC) {
            held.push(one);
            assert!(held.len() < 4000, "there is no limit here");
        }
        let started = agent(&world, "-d --name it", "sleep 300").run();
        let log = std::fs::read_to_string(world.path("home/.local/state/cellblock/logs/it.log")).unwrap_or_default();
        let told = log.contains("cannot be watched") && started.code() == Some(0);
        if !told {
            let _ = world.cellblock("stop it -t 0").run();
        }
        told
    });
    drop(held);
    let text = "{\"token\":9}";
    world.write("home/new", text);
    std::fs::rename(world.path("home/new"), world.path("home/.claude/.credentials.json")).expect("mv");
    world.wait("it arrives all the same", || cell_login(&world, "it") == text);
}
