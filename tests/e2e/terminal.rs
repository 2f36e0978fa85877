//! With a terminal, as a person has it: through `script(1)` and tmux (row D7, "feel native in tmux").

use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use cellblock_tests::World;

/// Runs a command line on a fresh terminal and gives what it showed.
pub(super) fn script(world: &World, line: &str) -> String {
    let full = world.shell_line(line);
    world.call(Path::new("script"), &["-qec", &full, "/dev/null"]).run().stdout()
}

#[test]
fn a_terminal_is_given_when_there_is_one() {
    let world = World::new();
    assert!(script(&world, "run --yes -- tty").contains("/dev/pts/0"), "the cell's own devpts");
    assert!(script(&world, "run --yes --tty=never -- tty").contains("not a tty"));
    assert_eq!(world.cellblock("run -- tty").run().stdout(), "not a tty\n");
    assert!(script(&world, "run --yes -- sh -c 'exit 3'; echo code $?").contains("code 3"));
}

#[test]
fn a_hosts_terminal_is_never_handed_over() {
    let world = World::new();
    // Standard error is the terminal, standard output is not: no terminal of its own, and not the host's either.
    let seen = script(&world, "run --yes -- sh -c 'readlink /proc/self/fd/2; readlink /proc/self/fd/0' | cat");
    assert!(seen.contains("pipe:"), "{seen}");
    assert!(!seen.contains("/dev/pts"), "{seen}");
}

/// A tmux server of this test alone.
pub(super) struct Tmux<'a> {
    world: &'a World,
    socket: String,
}

impl<'a> Tmux<'a> {
    pub(super) fn new(world: &'a World) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let socket = world.path(&format!("run/tmux{number}")).display().to_string();
        let tmux = Self { world, socket };
        tmux.tmux(&[
            "-f",
            "/dev/null",
            "new-session",
            "-d",
            "-x",
            "100",
            "-y",
            "30",
            "env -i PATH=/usr/bin:/bin TERM=screen PS1=host%  sh",
        ]);
        tmux
    }

    pub(super) fn tmux(&self, args: &[&str]) -> String {
        let output = Command::new("tmux").args(["-S", &self.socket]).args(args).output().expect("tmux");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    pub(super) fn keys(&self, keys: &[&str]) {
        self.tmux(&[&["send-keys"], keys].concat());
    }

    pub(super) fn line(&self, text: &str) {
        self.tmux(&["send-keys", "-l", text]);
        self.keys(&["Enter"]);
    }

    pub(super) fn screen(&self) -> String {
        self.tmux(&["capture-pane", "-p"])
    }

    /// Long enough for a program to end: what is typed before that goes to it and not to the shell.
    pub(super) fn pause(&self) {
        std::thread::sleep(std::time::Duration::from_millis(800));
    }

    pub(super) fn see(&self, text: &str) {
        let end = std::time::Instant::now() + std::time::Duration::from_secs(20);
        while !self.screen().contains(text) {
            assert!(std::time::Instant::now() < end, "«{text}» never showed:\n{}", self.screen());
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
    }
}

impl Drop for Tmux<'_> {
    fn drop(&mut self) {
        self.tmux(&["kill-server"]);
        let _ = self.world;
    }
}

#[test]
fn an_interactive_shell_feels_native() {
    let world = World::new();
    interactive_shell(&world, "host");
    world.load_alpine();
    interactive_shell(&world, "alpine");
}

fn interactive_shell(world: &World, image: &str) {
    let tmux = Tmux::new(world);
    tmux.line(&world.shell_line(&format!("run --yes --image {image} -- sh")));
    tmux.see("command  sh");
    tmux.line("echo in-$CELLBLOCK_NAME");
    tmux.see("in-demo-main-sh");
    // Ctrl-C ends the program, not the shell.
    tmux.line("sleep 1000");
    std::thread::sleep(std::time::Duration::from_millis(300));
    tmux.keys(&["C-c"]);
    tmux.line("echo after-$((40+2))");
    tmux.see("after-42");
    // The window's size is known, and follows.
    tmux.line("stty size");
    tmux.see("30 100");
    tmux.tmux(&["resize-window", "-x", "77", "-y", "25"]);
    std::thread::sleep(std::time::Duration::from_millis(300));
    tmux.line("stty size");
    tmux.see("25 77");
    // Job control.
    tmux.line("sleep 1000");
    std::thread::sleep(std::time::Duration::from_millis(300));
    tmux.keys(&["C-z"]);
    tmux.line("jobs");
    tmux.see("Stopped");
    tmux.line("kill -9 %1; wait; echo ended-$((6*7))");
    tmux.see("ended-42");
    // dash counts it as stopped until it has told of its end.
    tmux.line("jobs");
    tmux.pause();
    tmux.line("exit 4");
    tmux.pause();
    tmux.line("echo host-$?");
    tmux.see("host-4");
    // The terminal is back as it was: echo is on.
    tmux.line("stty -a | grep -c ' echo '");
    tmux.see("1");
}

#[test]
fn ctrl_z_stops_the_cell_and_fg_brings_it_back() {
    let world = World::new();
    let tmux = Tmux::new(&world);
    tmux.line("set -m");
    tmux.line(
        &world.shell_line("run --yes -- cat").replace("&& env", "&& exec env").replacen("cd ", "(cd ", 1).add(")"),
    );
    tmux.see("command  cat");
    tmux.line("hello");
    tmux.see("hello\nhello");
    tmux.keys(&["C-z"]);
    tmux.see("Stopped");
    tmux.line("echo back-$((1+1))");
    tmux.see("back-2");
    // In the background it leaves the terminal as the shell has it.
    tmux.line("bg");
    tmux.pause();
    tmux.line("echo there-$((2+2))");
    tmux.see("there-4");
    tmux.line("fg");
    std::thread::sleep(std::time::Duration::from_millis(300));
    tmux.line("again");
    tmux.see("again\nagain");
    tmux.keys(&["C-d"]);
    tmux.pause();
    tmux.line("echo over-$?");
    tmux.see("over-0");
}

trait Add {
    fn add(self, tail: &str) -> String;
}

impl Add for String {
    fn add(mut self, tail: &str) -> String {
        self.push_str(tail);
        self
    }
}

#[test]
fn the_cell_is_gone_when_the_window_is() {
    let world = World::new();
    let tmux = Tmux::new(&world);
    tmux.line(&world.shell_line("run --yes --name gone --rm -- sleep 1000"));
    world.wait("the cell", || world.cellblock("status -q").ok().contains("gone"));
    tmux.tmux(&["kill-server"]);
    world.wait("its end", || world.cellblock("status --json").ok().trim() == "[]");
    world.wait("nothing to be left", || world.leftovers().is_empty());
}

#[test]
fn an_interactive_start_asks_once() {
    let world = World::new();
    let tmux = Tmux::new(&world);
    let line = world.shell_line("run -- sh -c 'echo started-$((50+5))'");
    tmux.line(&line);
    tmux.see("Start it?");
    tmux.line("n");
    tmux.see("not started");
    tmux.pause();
    tmux.line("clear");
    tmux.line(&line);
    tmux.see("Start it?");
    tmux.line("y");
    tmux.see("started-55");
    tmux.pause();
    tmux.line("clear");
    tmux.pause();
    tmux.line(&line);
    tmux.see("started-55");
    assert!(!tmux.screen().contains("Start it?"), "{}", tmux.screen());
}

#[test]
fn exec_has_a_terminal_of_its_own_too() {
    let world = World::new();
    world.cellblock("run -d --name c --rm -- sleep 60").ok();
    let seen = script(&world, "exec c -- sh -c 'tty; stty size; exit 6'; echo code $?");
    assert!(seen.contains("/dev/pts/0") && seen.contains("code 6"), "{seen}");
}
