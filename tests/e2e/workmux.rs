//! With the real workmux and tmux (row A15, docs/workmux.md): each window's agent sits in a cell of its own, on the window's worktree.
//!
//! Home, tmux's server and its socket are each test's own.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use cellblock_tests::{Call, World, cellblock};

use crate::agents_real::{Model, git, on_alpine, package, repository};

/// An agent that says how it was called and then does what is typed.
const AGENT: &str = "#!/bin/sh
printf '\\033]2;title of %s\\007' \"$CELLBLOCK_NAME\"
echo \"cell=${CELLBLOCK_NAME:-none} in=$(pwd) args=[$*]\"
while read -r line; do eval \"$line\"; done
";

/// A person who uses workmux.
struct Desk {
    world: World,
    workmux: PathBuf,
    socket: String,
    server: String,
}

impl Desk {
    /// Sits down, with `settings` for workmux; `None` where there is no workmux.
    fn new(test: &str, settings: &str) -> Option<Self> {
        let workmux = package(test, "workmux")?;
        let world = World::new();
        repository(&world);
        let bin = world.path("home/bin");
        world.write("home/bin/claude", AGENT);
        for folder in ["home/bin", "home/bin/claude"] {
            std::fs::set_permissions(world.path(folder), PermissionsExt::from_mode(0o755)).expect("chmod");
        }
        symlink(cellblock(), bin.join("cellblock")).expect("a link");
        symlink(&workmux, bin.join("workmux")).expect("a link");
        // Panes are login shells: what the person's profile says is what counts there.
        let path = format!("{}:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin", bin.display());
        world.write("home/.profile", &format!("PATH='{path}'\nPS1='host%% '\n"));
        world.write(
            "home/.config/workmux/config.yaml",
            &format!("nerdfont: false\nauto_update_check: false\n{settings}"),
        );
        world.write("home/demo/.workmux.yaml", "agent: cc\npanes: [{command: <agent>, focus: true}]\n");
        git(&world, "git add . && git commit -qm workmux");
        let socket = world.path("run/tmux").display().to_string();
        let mut desk = Self { world, workmux, socket, server: String::new() };
        desk.tmux(&["-f", "/dev/null", "new-session", "-d", "-x", "180", "-y", "50", "-s", "main"]);
        desk.server = desk.tmux(&["display-message", "-p", "#{pid}"]).trim().to_owned();
        Some(desk)
    }

    fn call(&self, program: &Path, args: &[&str]) -> Call {
        let path = format!("{}:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin", self.world.path("home/bin").display());
        self.world.call(program, args).env("PATH", &path).env("SHELL", "/bin/sh").env("LANG", "C.UTF-8")
    }

    fn tmux(&self, args: &[&str]) -> String {
        self.call(Path::new("tmux"), &[&["-S", &self.socket], args].concat()).run().stdout()
    }

    /// As typed into the first window.
    fn workmux(&self, args: &[&str]) -> Call {
        let tmux = format!("{},{},0", self.socket, self.server);
        self.call(&self.workmux, args).env("TMUX", &tmux).env("TMUX_PANE", "%0")
    }

    fn add(&self, args: &[&str]) {
        self.workmux(&[&["add", "--background"], args].concat()).ok();
    }

    /// What a window shows, lines joined as they were written.
    fn screen(&self, window: &str) -> String {
        self.tmux(&["capture-pane", "-p", "-J", "-S", "-200", "-t", &format!("main:{window}")])
    }

    fn see(&self, window: &str, text: &str) {
        let end = std::time::Instant::now() + std::time::Duration::from_secs(40);
        while !self.screen(window).contains(text) {
            assert!(std::time::Instant::now() < end, "«{text}» never showed in {window}:\n{}", self.screen(window));
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
    }

    fn line(&self, window: &str, text: &str) {
        let target = format!("main:{window}");
        self.tmux(&["send-keys", "-t", &target, "-l", text]);
        self.tmux(&["send-keys", "-t", &target, "Enter"]);
    }

    fn ask(&self, window: &str, format: &str) -> String {
        self.tmux(&["display-message", "-p", "-t", &format!("main:{window}"), format]).trim().to_owned()
    }

    /// The name of the pane's command. While the kernel puts one program in the place of another (execve(2)), the process has no command line, and tmux
    /// names the shell: what is said once is not believed.
    fn command(&self, window: &str) -> String {
        loop {
            let [first, second] = [(); 2].map(|()| self.ask(window, "#{pane_current_command}"));
            if first == second {
                return first;
            }
        }
    }

    fn windows(&self) -> String {
        self.tmux(&["list-windows", "-t", "main", "-F", "#{window_name}"])
    }

    /// Names and folders of the cells that run.
    fn cells(&self) -> Vec<(String, String)> {
        let text = self.world.cellblock("status --json").ok();
        let all: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
        let mut cells: Vec<_> = all
            .as_array()
            .into_iter()
            .flatten()
            .map(|cell| (text(&cell["name"]), text(&cell["project"]["root"])))
            .collect();
        cells.sort();
        cells
    }

    fn worktree(&self, name: &str) -> String {
        self.world.path(&format!("home/demo__worktrees/{name}")).display().to_string()
    }
}

impl Drop for Desk {
    fn drop(&mut self) {
        self.tmux(&["kill-server"]);
    }
}

/// An entry for the agent, as docs/workmux.md has it; the question before a start is answered beforehand.
const ENTRY: &str = "agents:\n  cc: {command: cellblock run --yes --image host claude-code, type: claude}\n";

#[test]
fn each_window_has_a_cell_of_its_own_that_goes_with_it() {
    let Some(desk) = Desk::new("each_window_has_a_cell_of_its_own_that_goes_with_it", ENTRY) else { return };
    desk.add(&["one", "--prompt=-say \"it\" $HOME\nand more"]);
    desk.add(&["two"]);
    desk.see("wm-one", "cell=demo-one-claude");
    desk.see("wm-two", "cell=demo-two-claude");
    let screen = desk.screen("wm-one");
    assert!(screen.contains(&format!("in={}", desk.worktree("one"))), "{screen}");
    assert!(screen.contains("args=[--dangerously-skip-permissions -say \"it\" $HOME"), "{screen}");
    assert!(desk.screen("wm-two").contains("args=[--dangerously-skip-permissions]"));
    let cells = desk.cells();
    assert_eq!(cells.len(), 2, "{cells:?}");
    assert_eq!((cells[0].1.as_str(), cells[1].1.as_str()), (&*desk.worktree("one"), &*desk.worktree("two")));
    // Each sees its own worktree's files and not the other's; what it changes is there at once.
    desk.line(
        "wm-one",
        &format!(
            "echo new >made; ls {0} >seen 2>&1; ls {1} >>seen 2>&1; echo fin''ished",
            desk.worktree("one"),
            desk.worktree("two")
        ),
    );
    desk.see("wm-one", "finished");
    let read = |file: &str| std::fs::read_to_string(Path::new(&desk.worktree("one")).join(file)).unwrap_or_default();
    assert_eq!(read("made"), "new\n");
    assert!(read("seen").starts_with("file\nmade\n") && read("seen").contains("No such file"), "{}", read("seen"));
    assert_eq!(desk.ask("wm-one", "#{pane_current_path}"), desk.worktree("one"));
    // The window's title is the agent's word.
    assert!(
        desk.ask("wm-one", "#{pane_title}").starts_with("title of demo-one-claude"),
        "{}",
        desk.ask("wm-one", "#{pane_title}")
    );
    // The agent's code is the command's, and the shell is back at once.
    desk.line("wm-two", "exit 7");
    desk.world.wait("the shell", || desk.ask("wm-two", "#{pane_current_command}") == "sh");
    desk.line("wm-two", "echo code=$?");
    desk.see("wm-two", "code=7");
    desk.world.wait("one cell", || desk.cells().len() == 1);
    // Without its window the cell is gone.
    desk.workmux(&["remove", "--force", "one"]).ok();
    assert_eq!(desk.windows(), "sh\nwm-two\n".replace("sh", desk.windows().lines().next().unwrap_or_default()));
    desk.world.wait("no cell", || desk.cells().is_empty());
    desk.world.wait("no trace", || desk.world.leftovers().is_empty());
    assert!(!Path::new(&desk.worktree("one")).exists());
}

/// workmux forgets an agent when its pane's command has another name than before.
#[test]
fn the_panes_command_has_one_name_from_begin_to_end() {
    let test = "the_panes_command_has_one_name_from_begin_to_end";
    let Some(desk) = Desk::new(test, "agents:\n  cc: {command: claude --image-of-mine, type: claude}\n") else {
        return;
    };
    // Once as itself and once by a link with the agent's name, the real one further along the PATH.
    std::fs::create_dir(desk.world.path("home/links")).expect("a folder");
    symlink(cellblock(), desk.world.path("home/links/claude")).expect("a link");
    let profile = std::fs::read_to_string(desk.world.path("home/.profile")).expect("a profile");
    desk.world.write(
        "home/.profile",
        &profile.replace("PATH='", &format!("PATH='{}:", desk.world.path("home/links").display())),
    );
    desk.world.configure("defaults: {image: host}\n");
    for (window, command, name) in [("wm-one", None, "claude"), ("wm-two", Some("cellblock run claude"), "cellblock")] {
        if let Some(command) = command {
            desk.world.write(
                "home/.config/workmux/config.yaml",
                &format!(
                    "nerdfont: false\nauto_update_check: false\nagents: {{cc: {{command: {command}, type: claude}}}}\n"
                ),
            );
        }
        desk.add(&[window.trim_start_matches("wm-")]);
        let mut names = Vec::new();
        let end = std::time::Instant::now() + std::time::Duration::from_secs(40);
        let mut sent = false;
        loop {
            let now = desk.command(window);
            if names.last() != Some(&now) {
                names.push(now);
            }
            let screen = desk.screen(window);
            // Once for all worktrees.
            if window == "wm-one" && screen.contains("Start it?") && !sent {
                desk.line(window, "y");
                sent = true;
            }
            if screen.contains("args=[") {
                desk.line(window, "sleep 1; exit");
                break;
            }
            assert!(std::time::Instant::now() < end, "{names:?}\n{screen}");
        }
        while names.last().is_none_or(|last| last != "sh") || names.len() < 2 {
            let now = desk.command(window);
            if names.last() != Some(&now) {
                names.push(now);
            }
            assert!(std::time::Instant::now() < end, "{names:?}");
        }
        let agent: Vec<&String> = names.iter().filter(|one| *one != "sh" && *one != "cat").collect();
        assert_eq!(agent, [name], "{window}: {names:?}");
    }
    assert!(desk.screen("wm-one").contains("--image-of-mine") && desk.screen("wm-one").contains("Start it?"));
    assert!(!desk.screen("wm-two").contains("Start it?"));
}

#[test]
fn a_branch_is_continued_merged_and_removed() {
    let Some(desk) = Desk::new("a_branch_is_continued_merged_and_removed", ENTRY) else { return };
    desk.add(&["feature"]);
    desk.see("wm-feature", "args=[--dangerously-skip-permissions]");
    desk.line("wm-feature", "echo more >>file; git commit -qam 'from the cell' && echo com''mitted");
    desk.see("wm-feature", "committed");
    desk.workmux(&["close", "feature"]).ok();
    desk.world.wait("no cell", || desk.cells().is_empty());
    desk.workmux(&["open", "--continue", "feature"]).ok();
    desk.see("wm-feature", "args=[--dangerously-skip-permissions --continue]");
    assert_eq!(desk.cells().len(), 1);
    desk.workmux(&["merge", "feature"]).ok();
    desk.world.wait("no window", || !desk.windows().contains("wm-feature"));
    desk.world.wait("no cell", || desk.cells().is_empty());
    let log = git(&desk.world, "git log --format=%s; git worktree list; git status --short");
    assert!(
        log.starts_with("from the cell\n") && log.lines().filter(|line| line.contains("/demo")).count() == 1,
        "{log}"
    );
    assert_eq!(std::fs::read_to_string(desk.world.path("home/demo/file")).expect("a file"), "one two\nmore\n");
}

/// The whole of it: the real agent in a window, told what to do by workmux; its hooks tell workmux; what it commits is merged.
#[test]
fn the_real_claude_code_works_in_a_window() {
    real_agent("the_real_claude_code_works_in_a_window", "claude", |_, _| "claude-code -p".to_owned());
}

#[test]
fn the_real_claude_code_works_on_alpine_in_a_window() {
    let test = "the_real_claude_code_works_on_alpine_in_a_window";
    let Some(musl) = package(test, "musl") else { return };
    real_agent(test, "claude", |world, _| format!("{} claude-code -p", on_alpine(world, &musl)));
}

#[test]
fn the_real_codex_works_in_a_window() {
    let command = |_: &World, port| {
        let provider = "-c model_providers.test";
        format!(
            "codex exec -c model_provider=test {provider}.name=test {provider}.base_url=http://host.docker.internal:{port}/v1 {provider}.env_key=OPENAI_API_KEY {provider}.wire_api=responses"
        )
    };
    real_agent("the_real_codex_works_in_a_window", "codex", command);
}

fn real_agent(test: &str, kind: &str, command: impl Fn(&World, u16) -> String) {
    let Some(glibc) = package(test, "glibc") else { return };
    let Some(desk) = Desk::new(test, "") else { return };
    let hook = |status: &str| {
        let command = format!("workmux set-window-status {status}");
        serde_json::json!([{"hooks": [{"type": "command", "command": command}]}])
    };
    let hooks = serde_json::json!({"hooks": {"UserPromptSubmit": hook("working"), "Stop": hook("done")}});
    desk.world.write("home/demo/.claude/settings.json", &hooks.to_string());
    git(&desk.world, "git add . && git commit -qm hooks");
    let model = Model::new(&desk.world, Path::new(&desk.worktree("real")), "git commit -qam 'by the agent'");
    let profile = std::fs::read_to_string(desk.world.path("home/.profile")).expect("a profile");
    let path = format!("PATH='{}:", glibc.join("bin").display());
    let exports = format!(
        "export OPENAI_API_KEY=k ANTHROPIC_API_KEY=k ANTHROPIC_BASE_URL=http://host.docker.internal:{}\n",
        model.port()
    );
    desk.world.write("home/.profile", &(profile.replace("PATH='", &path) + &exports));
    desk.world.configure("defaults: {image: host, bridges: [workmux-status]}\n");
    let settings = format!(
        "nerdfont: false\nagents:\n  cc: {{command: 'cellblock run --yes --allow host:{} {}', type: {kind}}}\n",
        model.port(),
        command(&desk.world, model.port())
    );
    desk.world.write("home/.config/workmux/config.yaml", &settings);
    desk.add(&["real", "--prompt=change the file"]);
    desk.see("wm-real", "All of it is done.");
    let told = || stored(&desk);
    if kind == "claude" {
        desk.world.wait("both hooks", || told().contains("\"set-window-status\", \"done\""));
        assert!(told().contains("\"set-window-status\", \"working\""), "{}", told());
    }
    desk.world.wait("no cell", || desk.cells().is_empty());
    desk.workmux(&["merge", "real"]).ok();
    let log = git(&desk.world, "git log -1 --format=%s; cat file; git status --short");
    assert_eq!(log, "by the agent\none three\n");
}

/// Status by hooks: what passes, and that nothing else does.
#[test]
fn workmux_is_told_the_status_and_nothing_else() {
    // Prompts are kept where they are shown.
    let settings = format!("{ENTRY}dashboard: {{agent_columns: [prompt]}}\n");
    let Some(desk) = Desk::new("workmux_is_told_the_status_and_nothing_else", &settings) else { return };
    // Without the bridge there is no workmux inside.
    desk.add(&["plain"]);
    desk.see("wm-plain", "args=[");
    desk.line("wm-plain", "command -v workmux || echo no''thing");
    desk.see("wm-plain", "nothing");
    desk.world.configure("defaults: {bridges: [workmux-status]}\n");
    desk.add(&["told"]);
    desk.see("wm-told", "args=[");
    let status = || desk.tmux(&["show-options", "-wqv", "-t", "main:wm-told", "@workmux_status"]).trim().to_owned();
    assert_eq!(status(), "");
    desk.line("wm-told", "echo '{\"session_id\":\"s-1\"}' | workmux register-agent; echo '{\"session_id\":\"s-1\",\"prompt\":\"what was asked\"}' | workmux set-window-status working; echo to''ld-$?");
    desk.see("wm-told", "told-0");
    desk.world.wait("a status", || !status().is_empty());
    let working = status();
    let known = || desk.workmux(&["status", "told", "--json"]).run().stdout();
    desk.world.wait("workmux to know", || known().contains("working"));
    assert!(stored(&desk).contains("what was asked"), "{}", stored(&desk));
    desk.line(
        "wm-told",
        "workmux set-window-status waiting </dev/null; workmux set-window-status done </dev/null; echo sec''ond-$?",
    );
    desk.see("wm-told", "second-0");
    desk.world.wait("done", || known().contains("done"));
    assert!(!status().is_empty() && status() != working);
    // Other verbs, and lines of the cell's own: the other worktree stays, no program runs, no other status shows.
    let planted = desk.world.path("home/planted").display().to_string();
    let lines = [
        "for verb in 'remove --force plain' 'merge plain' 'set-window-status working x' 'set-window-status --help' 'add x' 'run plain id' ''; do workmux $verb && echo WR''ONG; done".to_owned(),
        "pipe=/run/cellblock/requests".to_owned(),
        "say() { printf '%s\\n' \"$1\" 1<>$pipe; }".to_owned(),
        "say '00000000 workmux remove --force plain -'; say '00000000 workmux set-window-status #(id) -'".to_owned(),
        format!("say '00000000 workmux set-window-status;touch\t{planted} -'"),
        format!("hook=$(printf '{{\"session_id\":\"$(touch {planted})\",\"transcript_path\":\"/etc/passwd\",\"prompt\":\"#(touch {planted}) $(touch {planted})\"}}' | base64 | tr -d '\\n')"),
        "say \"00000000 workmux set-window-status working $hook\"; echo tri''ed".to_owned(),
    ];
    for line in &lines {
        desk.line("wm-told", line);
    }
    desk.see("wm-told", "tried");
    desk.world.wait("the last status", || status() == working);
    assert!(!desk.screen("wm-told").contains("WRONG"), "{}", desk.screen("wm-told"));
    assert!(desk.screen("wm-told").contains("in this cell only `register-agent`"));
    assert!(desk.windows().contains("wm-plain") && Path::new(&desk.worktree("plain")).exists());
    assert!(!desk.world.path("home/planted").exists());
    assert!(!stored(&desk).contains("passwd"));
    assert_eq!(desk.tmux(&["show-options", "-wqv", "-t", "main:wm-plain", "@workmux_status"]), "");
    // The settings of a worktree, which are the cell's to write, do not count.
    desk.line(
        "wm-told",
        "echo 'status_icons: {done: PLANTED}' >>.workmux.yaml; workmux set-window-status done </dev/null; echo la''st",
    );
    desk.see("wm-told", "last");
    desk.world.wait("done", || status() != working);
    assert!(!status().contains("PLANTED"), "{}", status());
    desk.line("wm-told", "workmux set-window-status clear </dev/null");
    desk.world.wait("no status", || status().is_empty());
}

/// What workmux has written down.
fn stored(desk: &Desk) -> String {
    let script = "cat $(find \"$HOME/.local/state/workmux\" -type f) 2>/dev/null";
    desk.call(Path::new("sh"), &["-c", script]).run().stdout()
}

/// A bridge to nobody: no pane, no workmux, or one that a cell could have written.
#[test]
fn a_workmux_that_a_cell_could_write_is_not_run() {
    let world = World::new();
    world.write("home/demo/bin/workmux", "#!/bin/sh\ntouch ../ran\n");
    std::fs::set_permissions(world.path("home/demo/bin/workmux"), PermissionsExt::from_mode(0o755)).expect("chmod");
    world.write("home/bin/workmux", &format!("#!/bin/sh\necho \"$*\" >>{}\n", world.path("home/ran").display()));
    std::fs::set_permissions(world.path("home/bin/workmux"), PermissionsExt::from_mode(0o755)).expect("chmod");
    let run = |path: &str, tmux: &str| {
        let path = format!("{}:/usr/bin:/bin", world.path(path).display());
        let line = "run --image host --net none --bridge workmux-status -- sh -c 'workmux set-window-status done; echo $?; sleep 0.5'";
        world.cellblock(line).env("PATH", &path).env("TMUX", tmux).env("TMUX_PANE", tmux).run()
    };
    run("home/bin", "").says("no pane of tmux");
    run("home/demo/bin", "x").says("no `workmux` in your PATH");
    assert!(!world.path("home/ran").exists());
    let done = run("home/bin", "x");
    assert_eq!(done.stdout(), "0\n", "{done}");
    world.wait("the twin", || {
        std::fs::read_to_string(world.path("home/ran")).is_ok_and(|text| text == "set-window-status done\n")
    });
}
