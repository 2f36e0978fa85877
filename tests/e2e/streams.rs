//! Standard streams, exit codes and signals without a terminal (row D7).

use cellblock_tests::{World, cellblock};
use rustix::process::{Pid, Signal};

#[test]
fn exit_codes_are_the_commands_own() {
    let world = World::new();
    for code in [0, 1, 42, 255] {
        let _ = world.cellblock(&format!("run -- sh -c 'exit {code}'")).fails(code);
    }
    let _ = world.cellblock("run -- sh -c 'kill -9 $$'").fails(137);
    let _ = world.cellblock("run -- sh -c 'kill -TERM $$'").fails(143);
    let _ = world.cellblock("run --no-init -- sh -c 'exit 7'").fails(7);
}

#[test]
fn a_command_starts_with_all_signals_as_a_new_program_has_them() {
    let world = World::new();
    world.write("home/demo/see", "grep -E 'SigBlk:|SigIgn:' /proc/self/status; cut -d' ' -f5 /proc/$$/stat; echo $$");
    let call = |command: &str| {
        let script = format!("trap '' HUP USR1 TTOU 34; {command} ./see");
        world.call(std::path::Path::new("bash"), &["-c", &script]).ok()
    };
    for flags in ["", "--no-init"] {
        let seen = call(&format!("{} run --image host {flags} -- sh", cellblock().display()));
        let words: Vec<_> = seen.split_whitespace().collect();
        let ["SigBlk:", "0000000000000000", "SigIgn:", "0000000000000000", group, own] = words[..] else {
            panic!("{flags}: {seen}")
        };
        assert_eq!(group, own, "it has a process group of its own");
    }
    assert!(call("sh").contains("SigIgn:\t0000000200200201"), "the probe works");
}

#[test]
fn what_cannot_be_executed_is_said_so() {
    let world = World::new();
    world
        .cellblock("run -- no-such-command")
        .fails(127)
        .says("`no-such-command` was not found in the cell")
        .says("hint:");
    world.cellblock("run -- ./nothing").fails(127).says("was not found");
    world.cellblock("run -- ./file").fails(126).says("permission denied");
    world.write("home/demo/script", "\x7fELF but not really\n");
    std::fs::set_permissions(world.project().join("script"), std::os::unix::fs::PermissionsExt::from_mode(0o755))
        .expect("chmod");
    world.cellblock("run -- ./script").fails(126).says("no program for this machine");
    world.cellblock("run -w /nowhere/at/all -- true").fails(125).says("working directory");
    assert!(world.leftovers().is_empty());
}

#[test]
fn bytes_pass_unchanged() {
    let world = World::new();
    let bytes: Vec<u8> = (0..=255u8).cycle().take(300_000).collect();
    let done = world.cellblock("run -- cat").input(bytes.clone()).run();
    assert_eq!(done.bytes(), bytes);
    world.cellblock("run -d --name c -- sleep 60").ok();
    let done = world.cellblock("exec c -- cat").input(bytes.clone()).run();
    assert_eq!(done.bytes(), bytes);
    let both = world.cellblock("run -- sh -c 'echo out; echo err >&2'").run();
    assert_eq!(both.stdout(), "out\n");
    both.says("err");
}

#[test]
fn a_reader_that_goes_away_does_not_hang_the_cell() {
    let world = World::new();
    let line = format!("{} run -- yes | head -n 1", cellblock().display());
    assert_eq!(world.call(std::path::Path::new("sh"), &["-c", &line]).ok(), "y\n");
}

#[test]
fn signals_are_handed_on() {
    let world = World::new();
    for (signal, number) in
        [(Signal::TERM, 15), (Signal::INT, 2), (Signal::HUP, 1), (Signal::QUIT, 3), (Signal::USR1, 10)]
    {
        let script = format!("trap 'exit {}' {number}; echo ready; while :; do sleep 0.05; done", 40 + number);
        let mut child = world.call(&cellblock(), &["run", "--", "sh", "-c", &script]).start();
        let mut line = String::new();
        std::io::BufRead::read_line(&mut std::io::BufReader::new(child.stdout.as_mut().expect("piped")), &mut line)
            .expect("ready");
        assert_eq!(line, "ready\n");
        rustix::process::kill_process(Pid::from_child(&child), signal).expect("signal");
        assert_eq!(child.wait().expect("end").code(), Some(40 + number), "{signal:?}");
    }
}

#[test]
fn a_signal_without_a_handler_ends_the_command() {
    let world = World::new();
    let mut child = world.call(&cellblock(), &["run", "--", "sh", "-c", "echo ready; exec sleep 60"]).start();
    let mut line = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(child.stdout.as_mut().expect("piped")), &mut line)
        .expect("ready");
    rustix::process::kill_process(Pid::from_child(&child), Signal::TERM).expect("signal");
    assert_eq!(child.wait().expect("end").code(), Some(143));
    assert!(world.leftovers().is_empty());
}

#[test]
fn orphans_are_reaped_by_init() {
    let world = World::new();
    let zombies = "run -- sh -c 'for i in 1 2 3 4 5; do (sleep 0.05 &) ; done; sleep 0.4; grep -l \"^State:.Z\" /proc/[0-9]*/status 2>/dev/null | wc -l'";
    assert_eq!(world.cellblock(zombies).ok().trim(), "0");
    // The probe works: with the shell as process 1 there are some, or the shell reaps them itself; what counts is that init is there.
    assert_eq!(world.cellblock("run -- cat /proc/1/comm").ok().trim(), "cellblock-init");
    assert_eq!(world.cellblock("run --no-init -- cat /proc/1/comm").ok().trim(), "cat");
}
