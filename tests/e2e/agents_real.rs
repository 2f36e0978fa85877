//! The real Claude Code and Codex, as npm installs them, in cells: they start, and work against a model that follows a script
//! (tests/data/model.py). Of the others that are there: they start, and their files are where they belong. `ci/agents` gets them.

use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use cellblock_tests::{Call, World, has_range, is_root};

/// What `ci/agents` got, or a word that it did not.
#[expect(clippy::print_stdout, reason = "CI counts the lines that say SKIP")]
pub(super) fn package(test: &str, name: &str) -> Option<PathBuf> {
    let dir = std::env::var_os("CELLBLOCK_TEST_AGENTS").map(PathBuf::from).or_else(|| {
        let test = std::env::current_exe().ok()?;
        Some(test.ancestors().nth(3)?.join("agents"))
    });
    let found = dir.map(|dir| dir.join(name)).filter(|path| path.exists());
    // Half a gigabyte and a long compilation: `ci/test` says when nobody asked for them.
    let wanted = std::env::var_os("CELLBLOCK_TEST_AGENTS").is_none_or(|dir| dir != "left-out");
    if found.is_none() {
        println!("{}: {test}: no {name}; ci/agents gets it", if wanted { "SKIP" } else { "LEFT OUT" });
    }
    found
}

/// Makes the world's project a real repository with one commit.
pub(super) fn repository(world: &World) {
    world.write("home/demo/file", "one two\n");
    world.write("home/.gitconfig", "[user]\n\tname = Ada\n\temail = ada@example.com\n[init]\n\tdefaultBranch = main\n");
    git(world, "rm -rf .git && git init -q && git add . && git commit -qm first");
}

/// A script with git in the project, on the host.
pub(super) fn git(world: &World, script: &str) -> String {
    world.call(Path::new("sh"), &["-c", script]).ok()
}

/// A model that edits a file and commits.
pub(super) struct Model {
    child: Child,
    port: u16,
    log: PathBuf,
}

impl Model {
    pub(super) fn new(world: &World, folder: &Path, commit: &str) -> Self {
        let file = folder.join("file");
        let steps = serde_json::json!({
            "steps": [{"edit": [file, "one two", "one three"]}, {"run": commit}],
            "end": "All of it is done.",
            "look_for": ["# You are in a cell", "/etc/cellblock/SANDBOX.md says"],
        });
        world.write("home/model.json", &steps.to_string());
        world.write("home/model.py", include_str!("../data/model.py"));
        let log = world.path("home/model.log");
        let mut child = Command::new("python3")
            .arg(world.path("home/model.py"))
            .arg(world.path("home/model.json"))
            .arg(&log)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("python3");
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().expect("its output")).read_line(&mut line).expect("a port");
        Self { child, port: line.trim().parse().expect("a port"), log }
    }

    /// Its port on 127.0.0.1.
    pub(super) fn port(&self) -> u16 {
        self.port
    }

    /// What reaches the model from inside: the address, and a key.
    pub(super) fn env(&self, call: Call) -> Call {
        call.env("ANTHROPIC_BASE_URL", &format!("http://host.docker.internal:{}", self.port))
            .env("ANTHROPIC_API_KEY", "key-of-the-test")
            .env("OPENAI_API_KEY", "key-of-the-test")
    }

    /// The words for a session without a person.
    pub(super) fn session(&self, agent: &str) -> String {
        let port = self.port;
        match agent {
            "claude-code" => "claude-code -p 'change the file'".to_owned(),
            _ => format!(
                "codex exec -c model_provider=test -c model_providers.test={{name=\"test\",base_url=\"http://host.docker.internal:{port}/v1\",env_key=\"OPENAI_API_KEY\",wire_api=\"responses\"}} 'change the file'"
            ),
        }
    }

    pub(super) fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Model {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

/// A world with the packages in a prefix of the person's own home.
pub(super) fn at_home(test: &str) -> Option<World> {
    let glibc = package(test, "glibc")?;
    let world = World::new();
    std::fs::create_dir(world.path("home/npm")).expect("a folder");
    // The programs are large: they are the same files where this user may link them, else npm's prefix is a link to a folder elsewhere.
    let prefix = world.path("home/npm");
    let mut copy = Command::new("cp");
    copy.arg("-rPl").args([glibc.join("bin"), glibc.join("lib")]).arg(&prefix).stderr(Stdio::null());
    if copy.status().expect("cp").success() {
        std::fs::set_permissions(&prefix, PermissionsExt::from_mode(0o755)).expect("chmod");
    } else {
        world.call(Path::new("rm"), &["-rf".as_ref(), prefix.as_os_str()]).ok();
        std::os::unix::fs::symlink(&glibc, &prefix).expect("a link");
    }
    repository(&world);
    Some(world)
}

pub(super) fn with_path(world: &World, call: Call) -> Call {
    let path = format!("{}:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin", world.path("home/npm/bin").display());
    call.env("PATH", &path)
}

#[test]
fn they_start_on_the_hosts_tools() {
    let Some(world) = at_home("they_start_on_the_hosts_tools") else { return };
    for (agent, version, help) in
        [("claude-code", "(Claude Code)", "Usage: claude"), ("codex", "codex-cli ", "Usage: codex")]
    {
        let run = |line: &str| with_path(&world, world.cellblock(&format!("run --image host {agent} {line}")));
        assert!(run("--version").ok().contains(version), "{agent}");
        assert!(run("--help").ok().contains(help), "{agent}");
        // What it does not know is its own to say, with its own code.
        let wrong = run("--no-such-flag").run();
        assert!(wrong.code().is_some_and(|code| (1..=2).contains(&code)), "{wrong}");
        wrong.says("--no-such-flag");
    }
    assert!(world.leftovers().is_empty());
}

/// The session of each agent in a linked worktree: a file is edited, the commit is the host's to see, the key reached the model.
#[test]
fn they_work_and_commit_in_a_linked_worktree() {
    for agent in ["claude-code", "codex"] {
        let Some(world) = at_home("they_work_and_commit_in_a_linked_worktree") else { return };
        git(&world, "git worktree add -q ../linked -b side");
        let linked = world.path("home/linked");
        let model = Model::new(&world, &linked, "git commit -qam 'by the agent' && touch /committed");
        let line = format!("run --image host --allow host:{} {}", model.port, model.session(agent));
        let done = model.env(with_path(&world, world.cellblock(&line)).dir(&linked)).run();
        assert_eq!(done.code(), Some(0), "{done}\n{}", model.log());
        assert!(done.stdout().contains("All of it is done."), "{done}");
        let log = git(&world, "git log --format=%s side; git -C ../linked status --short; cat ../linked/file file");
        assert_eq!(log, "by the agent\nfirst\none three\none two\n", "{agent}: {done}\n{}", model.log());
        assert!(model.log().contains("key-of-the-test"));
        assert!(world.leftovers().is_empty());
        // The twin: not allowed, the model is not reached, and the agent says so with its own code.
        let before = model.log().lines().count();
        let line = format!("run --image host {}", model.session(agent));
        let call =
            with_path(&world, world.cellblock(&format!("{line} ")).dir(&linked)).env("CLAUDE_CODE_MAX_RETRIES", "0");
        let done = model.env(call.env("CELLBLOCK_EXTRA_ENV", "CLAUDE_CODE_MAX_RETRIES")).start();
        let output = ended(done);
        assert_ne!(output, Some(0), "{agent}");
        assert_eq!(model.log().lines().count(), before, "{agent}");
    }
}

/// Their history is the project's (row D8): a later cell goes on where an earlier one ended. Another project has none of it.
#[test]
fn they_go_on_where_an_earlier_cell_of_the_project_ended() {
    let test = "they_go_on_where_an_earlier_cell_of_the_project_ended";
    for (agent, again) in [("claude-code", "--continue -p 'go on'"), ("codex", "resume --last 'go on'")] {
        let Some(world) = at_home(test) else { return };
        git(&world, "git clone -q . ../other");
        let model = Model::new(&world, &world.project(), "git commit -qam 'by the agent'");
        let run = |folder: &str, what: &str| {
            let line = format!("run --image host --allow host:{} {what}", model.port);
            model.env(with_path(&world, world.cellblock(&line)).dir(&world.path(folder))).run()
        };
        let session = model.session(agent);
        let done = run("home/demo", &session);
        assert_eq!(done.code(), Some(0), "{done}\n{}", model.log());
        // The model has nothing to do but to say so: all that was done is in what it is told.
        let go_on = match agent {
            "claude-code" => format!("claude-code {again}"),
            _ => session.replace("'change the file'", again),
        };
        // Whether it had anything done since `before`: its log has what it was told last.
        let worked = |before: usize| {
            let log = model.log();
            assert!(log.lines().count() > before, "{agent}: {log}");
            log.lines().skip(before).any(|line| line.contains("tool_result") || line.contains("call_output"))
        };
        let before = model.log().lines().count();
        let done = run("home/demo", &go_on);
        assert_eq!(done.code(), Some(0), "{done}\n{}", model.log());
        assert!(done.stdout().contains("All of it is done.") && !worked(before), "{done}\n{}", model.log());
        assert_eq!(git(&world, "git log --format=%s"), "by the agent\nfirst\n", "{agent}: {done}");
        // The twin: to another project it is as if nothing had been.
        let before = model.log().lines().count();
        let done = run("home/other", &go_on);
        assert!(worked(before), "{agent}: {done}");
        let seen = git(&world, "grep -rl 'change the file' ../.claude ../.codex 2>/dev/null; true");
        assert_eq!(seen, "", "{agent}: the host's own history");
    }
}

/// Agents try again for long; that it never gets through is what counts.
fn ended(mut child: Child) -> Option<i32> {
    let end = std::time::Instant::now() + std::time::Duration::from_secs(10);
    loop {
        match child.try_wait().expect("its end") {
            Some(status) => return status.code(),
            None if std::time::Instant::now() > end => {
                let _ = rustix::process::kill_process(
                    rustix::process::Pid::from_child(&child),
                    rustix::process::Signal::TERM,
                );
                return child.wait().expect("its end").code();
            }
            None => std::thread::sleep(std::time::Duration::from_millis(50)),
        }
    }
}

/// On Alpine: the packages are mounted, with a node for musl; git, and the bash without which Claude Code runs no command, are the host's with
/// their own loader, for Alpine's would need its mirror. Codex runs commands in login shells, for which Alpine's `/etc/profile` sets the PATH.
pub(super) fn on_alpine(world: &World, musl: &Path) -> String {
    world.load_alpine();
    portable_git(world);
    format!(
        "--image alpine -v {0}:/opt/npm:ro -v {1}:/opt/git:ro -v {1}/git:/usr/local/bin/git:ro -e PATH=/opt/npm/bin:/usr/local/bin:/usr/bin:/bin -e SHELL=/opt/git/bash",
        musl.display(),
        world.path("home/git").display()
    )
}

#[test]
fn they_start_and_work_on_alpine() {
    let test = "they_start_and_work_on_alpine";
    let Some(musl) = package(test, "musl") else { return };
    let world = World::new();
    repository(&world);
    let flags = on_alpine(&world, &musl);
    git(&world, "git worktree add -q ../linked -b side");
    let linked = world.path("home/linked");
    for (agent, version) in [("claude-code", "(Claude Code)"), ("codex", "codex-cli ")] {
        let run = |line: &str| world.cellblock(&format!("run {flags} {agent} {line}")).ok();
        assert!(run("--version").contains(version), "{agent}");
        assert!(run("--help").contains("Usage: "), "{agent}");
        git(&world, "git -C ../linked reset -q --hard $(git rev-list --max-parents=0 HEAD)");
        let model = Model::new(&world, &linked, "git commit -qam 'by the agent on Alpine'");
        let line = format!("run {flags} --allow host:{} {}", model.port, model.session(agent));
        let done = model.env(world.cellblock(&line).dir(&linked)).run();
        assert_eq!(done.code(), Some(0), "{done}\n{}", model.log());
        let log = git(&world, "git log --format=%s side; git -C ../linked status --short; cat ../linked/file file");
        assert_eq!(log, "by the agent on Alpine\nfirst\none three\none two\n", "{agent}: {done}\n{}", model.log());
    }
    // Kept: installed once, there afterwards.
    let kept = "--name kept --image alpine";
    let root = if is_root() || has_range() { "-u root" } else { "-u root --userns single" };
    let install = format!(
        "run {kept} {root} -v {}:/opt/npm:ro -- sh -c 'cp -r /opt/npm/lib/node_modules/@anthropic-ai/claude-code /usr/lib/claude && ln -s ../lib/claude/bin/claude.exe /usr/bin/claude'",
        musl.display()
    );
    let done = world.cellblock(&install).run();
    assert_eq!(done.code(), Some(0), "{done}");
    assert!(world.cellblock(&format!("run {kept} {root} claude-code --version")).ok().contains("(Claude Code)"));
}

/// An agent that is tried as far as it goes without an account.
struct Other {
    agent: &'static str,
    /// Of what it says to `--version` and `--help`.
    words: [&'static str; 2],
    /// After this it has files of its own, whether or not it could do it.
    line: &'static str,
    /// One of them: the path from home to the folder of its state that it is in, and from there.
    file: [&'static str; 2],
    /// What it keeps in the project itself, with a cell or without one.
    in_project: &'static str,
}

const OTHERS: &[Other] = &[
    Other {
        agent: "aider",
        words: ["aider ", "usage: aider"],
        line: "--list-models gpt-4o-mini",
        file: [".aider", "installs.json"],
        in_project: "?? .gitignore\n",
    },
    Other {
        agent: "amp",
        words: ["0.0.", "Usage: amp"],
        line: "permissions list",
        file: [".local/share/amp", "device-id.json"],
        in_project: "",
    },
    Other {
        agent: "copilot",
        words: ["GitHub Copilot CLI", "Usage: copilot"],
        line: "-p hello",
        file: [".copilot", "config.json"],
        in_project: "",
    },
    Other {
        agent: "gemini",
        words: ["0.", "Usage: gemini"],
        line: "mcp list",
        file: [".gemini", "projects.json"],
        in_project: "",
    },
    Other {
        agent: "opencode",
        words: ["1.", "opencode run"],
        line: "session list",
        file: [".local/share/opencode", "opencode.db"],
        in_project: "",
    },
    Other {
        agent: "pi",
        words: ["0.", "pi - AI coding assistant"],
        line: "-p hello",
        file: [".pi/agent", "models-store.json"],
        in_project: "",
    },
    Other {
        agent: "qwen",
        words: ["0.", "Usage: qwen"],
        line: "mcp list",
        file: [".qwen", "extension-store/state.json"],
        in_project: "",
    },
];

/// `ci/agents` gets the small ones; whoever has installed more of them into the same prefix has them tried too.
#[test]
fn others_start_and_keep_their_files_to_the_project() {
    let test = "others_start_and_keep_their_files_to_the_project";
    let Some(more) = package(test, "more") else { return };
    for other in OTHERS {
        let agent = other.agent;
        if !more.join("bin").join(agent).exists() {
            println!("LEFT OUT: {test}: no {agent} in {}", more.display());
            continue;
        }
        let world = World::new();
        repository(&world);
        let path = format!("{}:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin", more.join("bin").display());
        let run = |line: &str| world.cellblock(&format!("run --image host {agent} {line}")).env("PATH", &path).run();
        let before = seen(&world);
        for (flag, words) in ["--version", "--help"].iter().zip(other.words) {
            let done = run(flag);
            assert_eq!(done.code(), Some(0), "{agent}: {done}");
            assert!(done.stdout().contains(words) || done.stderr().contains(words), "{agent}: {done}");
        }
        assert_eq!(seen(&world), before, "{agent}");
        assert_eq!(git(&world, "git status --short"), "", "{agent}");
        let done = run(other.line);
        assert_eq!(seen(&world), before, "{agent}: {done}");
        assert_eq!(git(&world, "git status --short"), other.in_project, "{agent}: {done}");
        let [folder, file] = other.file;
        let kept = format!("find .. -path '*/cellblock/projects/*/state/{agent}/{}/{file}'", folder.replace('/', "%"));
        assert!(world.leftovers().is_empty(), "{agent}");
        assert_eq!(git(&world, &kept).lines().count(), 1, "{agent}: {done}");
    }
}

/// Everything in the person's home but the project and what is cellblock's own.
fn seen(world: &World) -> String {
    git(
        world,
        "cd .. && find . \\( -path ./demo -o -path './.local/*/cellblock' \\) -prune -o ! -path './.local*' -print | sort",
    )
}

/// The host's git and bash in a folder that runs anywhere: their programs, libraries and loader.
fn portable_git(world: &World) {
    let script = "set -e
mkdir -p ../git/lib ../git/core
for name in git bash; do
real=$(readlink -f \"$(command -v $name)\")
cp \"$real\" ../git/$name.program
ldd \"$real\" | sed -n 's/.* => \\(\\/[^ ]*\\) .*/\\1/p; s/^[[:space:]]*\\(\\/[^ ]*\\) .*/\\1/p' | while read -r file; do cp -L \"$file\" ../git/lib; done
flags=; [ $name = bash ] || flags=--exec-path=/opt/git/core
printf '#!/bin/sh\\nexec /opt/git/lib/ld-linux-*.so.* --library-path /opt/git/lib /opt/git/%s.program %s \"$@\"\\n' $name $flags >../git/$name
done
chmod -R 755 ../git
cp ../git/git ../git/core/git
";
    git(world, script);
}
