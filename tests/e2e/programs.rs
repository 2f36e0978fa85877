//! Programs that take the whole terminal, in tmux: on the host's own and on Alpine's. And terminals that are too small, or gone.

use std::path::Path;
use std::time::Duration;

use cellblock_tests::World;

use crate::terminal::{Tmux, script};

/// Lines of the screen that `vi` shows past the end of a file.
fn tildes(tmux: &Tmux<'_>) -> usize {
    tmux.screen().lines().filter(|l| l.trim_end() == "~").count()
}

#[test]
fn vi_edits_follows_the_window_and_saves() {
    let world = World::new();
    world.load_alpine();
    for image in ["host", "alpine"] {
        world.write("home/demo/edited", "content\n");
        let tmux = Tmux::new(&world);
        tmux.line(&world.shell_line(&format!("run --yes --image {image} -- vi edited")));
        world.wait("vi on the whole window", || tildes(&tmux) == 28);
        tmux.tmux(&["resize-window", "-x", "60", "-y", "12"]);
        // Alpine's redraws at the next key.
        tmux.keys(&["j"]);
        world.wait("vi on the smaller window", || tildes(&tmux) == 10);
        tmux.keys(&["i"]);
        tmux.tmux(&["send-keys", "-l", "some "]);
        tmux.see("some content");
        // Alpine's takes what follows at once for the rest of a function key.
        tmux.keys(&["Escape"]);
        tmux.pause();
        tmux.line(":wq");
        tmux.pause();
        tmux.line("echo ended-$?");
        tmux.see("ended-0");
        assert_eq!(
            std::fs::read_to_string(world.project().join("edited")).expect("there"),
            "some content\n",
            "{image}"
        );
    }
}

#[test]
fn top_shows_the_cell_and_quits_by_its_key() {
    let world = World::new();
    world.load_alpine();
    for (image, heading) in [("host", "Tasks:"), ("alpine", "Load average:")] {
        let tmux = Tmux::new(&world);
        tmux.line(&world.shell_line(&format!("run --yes --image {image} -- top")));
        tmux.see(heading);
        tmux.see("PID");
        tmux.keys(&["q"]);
        tmux.pause();
        tmux.line("echo ended-$?; stty -a | grep -o ' echo '");
        tmux.see("ended-0\n echo");
    }
}

#[test]
fn git_pages_its_log_and_opens_the_editor() {
    let world = World::new();
    let git = |args: &[&str]| world.call(Path::new("git"), args).ok();
    git(&["init", "-q", "-b", "main"]);
    git(&["config", "user.name", "A Person"]);
    git(&["config", "user.email", "person@example.org"]);
    let body: String = (1..100).map(|n| format!("line-{n}.\n")).collect();
    git(&["commit", "-q", "--allow-empty", "-m", "first", "-m", &body]);
    let tmux = Tmux::new(&world);
    tmux.line(&world.shell_line("run --yes --image host -- git log"));
    tmux.see("line-10.");
    assert!(!tmux.screen().contains("line-99."), "{}", tmux.screen());
    tmux.keys(&["G"]);
    tmux.see("line-99.");
    tmux.see("(END)");
    tmux.keys(&["q"]);
    tmux.pause();
    tmux.line("clear; echo ended-$?");
    tmux.see("ended-0");
    world.write("home/demo/new-file", "new\n");
    tmux.line(&world.shell_line("run --yes --image host -e EDITOR=vi -- sh -c 'git add new-file && git commit -e'"));
    tmux.see("# Please enter the commit message");
    tmux.keys(&["i"]);
    tmux.tmux(&["send-keys", "-l", "written inside"]);
    tmux.keys(&["Escape"]);
    tmux.see("written inside");
    tmux.line(":wq");
    world.wait("the commit", || git(&["log", "-1", "--format=%s"]) == "written inside\n");
    assert_eq!(git(&["show", "HEAD:new-file"]), "new\n");
}

#[test]
fn less_and_colours() {
    let world = World::new();
    world.load_alpine();
    std::fs::create_dir(world.project().join("painted")).expect("mkdir");
    let text: String = (1..100).map(|n| format!("line-{n}.\n")).collect();
    world.write("home/demo/long", &text);
    for image in ["host", "alpine"] {
        let tmux = Tmux::new(&world);
        tmux.line(&world.shell_line(&format!("run --yes --image {image} -- ls --color=auto")));
        tmux.see("painted");
        let coloured = tmux.tmux(&["capture-pane", "-p", "-e"]);
        assert!(
            coloured.lines().any(|l| l.contains("\u{1b}[") && l.contains("34m") && l.contains("painted")),
            "{coloured:?}"
        );
        tmux.pause();
        tmux.line("clear");
        tmux.line(&world.shell_line(&format!("run --yes --image {image} -- less long")));
        tmux.see("line-20.");
        tmux.keys(&["Space"]);
        tmux.see("line-50.");
        tmux.keys(&["q"]);
        tmux.pause();
        tmux.line("echo ended-$?");
        tmux.see("ended-0");
    }
}

#[test]
fn a_terminal_of_no_size_is_one_too() {
    let world = World::new();
    let sized = |rows: u32, columns: u32, line: &str| {
        let line = world.shell_line(line);
        let inner = format!("stty rows {rows} cols {columns}; {line}; echo code-$?");
        world.call(Path::new("script"), &["-qec", &inner, "/dev/null"]).run().stdout()
    };
    for (rows, columns) in [(0, 0), (1, 1), (1, 0), (0, 1), (2, 3), (65535, 65535)] {
        let seen = sized(rows, columns, "run --yes --image host -- stty size");
        // A terminal that does not know its size is taken for a usual one.
        let expected = if rows * columns == 0 { "24 80".into() } else { format!("{rows} {columns}") };
        assert!(seen.contains(&format!("{expected}\r\n")) && seen.contains("code-0"), "{rows} {columns}: {seen}");
        // Whatever draws tables or bars must cope.
        for line in ["status", "doctor", "image list", "run --help", "run --dry-run --explain -- true", "config show"] {
            let seen = sized(rows, columns, line);
            assert!(seen.contains("code-0"), "{rows} {columns}: {line}: {seen}");
        }
        let load = format!("image load {} --name alpine", cellblock_tests::alpine().display());
        assert!(sized(rows, columns, &load).contains("code-0"), "{rows} {columns}");
    }
    world.cellblock("run -d --image host --name c --rm -- sleep 60").ok();
    assert!(script(&world, "exec c -- stty size").contains("24 80"));
    assert!(sized(1, 1, "exec c -- stty size").contains("1 1\r\n"));
}

/// The terminal goes away at many moments of a start, and of a running cell.
#[test]
fn a_terminal_that_goes_at_any_moment_takes_the_cell_along() {
    let world = World::new();
    for delay in [0, 5, 10, 15, 20, 25, 30, 40, 50, 60, 80, 100, 150, 300] {
        let tmux = Tmux::new(&world);
        tmux.line(&world.shell_line("run --yes --name gone --rm -- sleep 1000"));
        std::thread::sleep(Duration::from_millis(delay));
        drop(tmux);
        // It may come up yet: the shell had the line before its terminal went.
        std::thread::sleep(Duration::from_millis(300));
        all_gone(&world);
    }
    // While it asks.
    let tmux = Tmux::new(&world);
    tmux.line(&world.shell_line("run --name asks --rm -- sleep 1000"));
    tmux.see("Start it?");
    drop(tmux);
    all_gone(&world);
}

fn all_gone(world: &World) {
    world
        .wait("the end of it", || world.cellblock("status --json").ok().trim() == "[]" && world.leftovers().is_empty());
}
