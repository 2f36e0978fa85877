//! Agents as data (rows A1, D1): found, called rightly, allowed what they need, and told about when they are not there.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use cellblock_tests::{Call, World, cellblock};

/// An agent's program in the world that tells what it was given.
fn install(world: &World, inside: &str, interpreter: &str) {
    world.write(
        inside,
        &format!("#!{interpreter}\necho \"args: $*\"; env | grep -E '^(IS_SANDBOX|ANTHROPIC|OPENAI)' | sort; exit 7\n"),
    );
    std::fs::set_permissions(world.path(inside), PermissionsExt::from_mode(0o755)).expect("chmod");
    // Each folder on the way has to let a cell of real root pass.
    for above in Path::new(inside).ancestors().skip(1).filter(|above| !above.as_os_str().is_empty()) {
        std::fs::set_permissions(world.path(&above.to_string_lossy()), PermissionsExt::from_mode(0o755))
            .expect("chmod");
    }
}

/// With one folder of the world at the front of the PATH.
fn with_path(world: &World, call: Call, folder: &str) -> Call {
    call.env("PATH", &format!("{}:/usr/local/bin:/usr/bin:/bin", world.path(folder).display()))
}

#[test]
fn an_agent_at_home_is_found_and_does_not_ask() {
    let world = World::new();
    install(&world, "home/.local/bin/claude", "/bin/sh");
    let run = |line: &str| with_path(&world, world.cellblock(line), "home/.local/bin").env("ANTHROPIC_API_KEY", "k1");
    let done = run("run claude-code --continue -- '-p hello'").fails(7);
    assert_eq!(
        done.stdout(),
        "args: --dangerously-skip-permissions --continue -p hello\nANTHROPIC_API_KEY=k1\nIS_SANDBOX=1\n",
        "{done}"
    );
    // By its program's name; its flags before `run`; asking after all; a variable that only another agent gets.
    assert_eq!(run("run claude x").env("OPENAI_API_KEY", "k2").fails(7).stdout().lines().count(), 3);
    assert!(
        run("--no-daemon run claude x")
            .fails(7)
            .stdout()
            .contains("args: --dangerously-skip-permissions --no-daemon x")
    );
    assert!(run("run --ask claude x").fails(7).stdout().contains("args: x\n"));
    world.configure("agents:\n  claude-code: {asks: true, env: [ANTHROPIC_MODEL=m]}\n  codex: {programs: [claude]}\n");
    let out = run("run claude-code x").fails(7).stdout();
    assert!(out.contains("args: x\n") && out.contains("ANTHROPIC_MODEL=m"), "{out}");
    let out = run("run codex x").env("OPENAI_API_KEY", "k2").fails(7).stdout();
    assert!(out.contains("bypass") && out.contains("OPENAI_API_KEY=k2") && !out.contains("ANTHROPIC_MODEL"), "{out}");
    // Only the program is shown of that folder.
    world.write("home/.local/bin/other", "secret");
    let plan = run("run claude-code --dry-run").ok();
    assert!(plan.contains(".local/bin/claude (ro)") && !plan.contains("other"), "{plan}");
    assert!(world.leftovers().is_empty());
}

#[test]
fn packages_at_home_come_with_what_they_need() {
    let world = World::new();
    // As npm lays it: a link in bin, the package below lib/node_modules, an interpreter of its own beside the link.
    let package = "home/.nvm/v1/lib/node_modules/@openai/codex/bin/codex.js";
    install(&world, package, "/usr/bin/env mynode");
    install(&world, "home/.nvm/v1/bin/mynode", "/bin/sh");
    world.write("home/.nvm/v1/bin/mynode", "#!/bin/sh\nexec /bin/sh \"$@\"\n");
    world.write("home/.nvm/v1/lib/node_modules/@openai/codex/data", "data");
    symlink("../lib/node_modules/@openai/codex/bin/codex.js", world.path("home/.nvm/v1/bin/codex")).expect("a link");
    let run = |line: &str| with_path(&world, world.cellblock(line), "home/.nvm/v1/bin");
    assert!(run("run codex hi").fails(7).stdout().contains("sandbox hi\n"));
    let list: serde_json::Value = serde_json::from_str(&run("agent list --json").ok()).expect("json");
    let codex = list.as_array().and_then(|all| all.iter().find(|one| one["name"] == "codex")).expect("codex");
    assert!(codex["found"].as_str().is_some_and(|path| path.ends_with("codex.js")), "{codex}");
}

#[test]
fn a_variable_may_keep_it_from_asking_and_commands_take_no_flag() {
    let world = World::new();
    install(&world, "home/bin/mine", "/bin/sh");
    world.configure("agents: {mine: {unattended: [--yes, OPENAI_MODE=auto], subcommands: [login]}}\n");
    let run = |line: &str| with_path(&world, world.cellblock(line), "home/bin").fails(7).stdout();
    assert_eq!(run("run mine x login"), "args: --yes x login\nOPENAI_MODE=auto\n");
    assert_eq!(run("run mine login x"), "args: login x\nOPENAI_MODE=auto\n");
    assert_eq!(run("run --ask mine x"), "args: x\n");
    assert_eq!(run("run -e OPENAI_MODE=mine mine x"), "args: --yes x\nOPENAI_MODE=mine\n");
    let explained = with_path(&world, world.cellblock("run --dry-run --explain mine x"), "home/bin").ok();
    assert!(
        explained.lines().any(|line| line.contains("OPENAI_MODE") && line.contains("the agent mine")),
        "{explained}"
    );
}

/// As uv and pipx lay it: a virtual environment whose interpreter is a link to a Python of the person's own, by a link for its version.
#[test]
fn virtual_environments_come_with_their_python() {
    let world = World::new();
    let python = "home/.uv/python/cpython-3.12.3/bin/python3.12";
    install(&world, python, "/bin/sh");
    world.write(python, "#!/bin/sh\nread -r word <\"${0%/tools/*}/python/cpython-3.12/lib/word\"\necho \"$word\"\n");
    world.write("home/.uv/python/cpython-3.12.3/lib/word", "of the standard library");
    symlink("cpython-3.12.3", world.path("home/.uv/python/cpython-3.12")).expect("a link");
    let venv = world.path("home/.uv/tools/aider-chat");
    install(&world, "home/.uv/tools/aider-chat/bin/aider", &venv.join("bin/python").display().to_string());
    let home = world.path("home/.uv/python/cpython-3.12/bin");
    symlink(home.join("python3.12"), venv.join("bin/python")).expect("a link");
    world.write("home/.uv/secret", "not its own");
    let configured = |home: &str| world.write("home/.uv/tools/aider-chat/pyvenv.cfg", home);
    let run = || with_path(&world, world.cellblock("run aider"), "home/.uv/tools/aider-chat/bin");
    configured("version = 3.12.3\nhome = /usr/bin\n");
    run().fails(127).says("interpreter of its first line");
    configured(&format!("home = {}\nversion = 3.12.3\n", home.display()));
    assert!(run().ok().contains("of the standard library"));
    let look = with_path(&world, world.cellblock("run --dry-run --json aider"), "home/.uv/tools/aider-chat/bin").ok();
    assert!(look.contains(".uv/python\"") && !look.contains(".uv\""), "{look}");
    // Never a whole home for it.
    configured(&format!("home = {}\n", world.path("home/bin").display()));
    let look = with_path(&world, world.cellblock("run --dry-run --json aider"), "home/.uv/tools/aider-chat/bin").ok();
    assert!(!look.contains(".uv/python\""), "{look}");
}

/// What the project says of an agent that is found in it, a link or an environment's file, was written by whoever writes there.
#[test]
fn a_project_shows_nothing_of_the_home_by_an_agent_in_it() {
    let world = World::new();
    let script = "#!/bin/sh\ncat \"$HOME\"/.ssh/key \"$HOME\"/notes/* 2>/dev/null\necho ran\n";
    let program = |inside: &str| {
        install(&world, inside, "/bin/sh");
        world.write(inside, script);
    };
    program("home/demo/.venv/bin/aider");
    program("home/tools/aider/bin/aider");
    program("home/notes/run");
    world.write("home/.ssh/key", "a key");
    world.write("home/notes/diary", "a diary");
    let run = |folder: &str| with_path(&world, world.cellblock("run aider"), folder);
    for environment in ["home/demo/.venv", "home/tools/aider"] {
        for shown in ["home/.ssh", "home/notes"] {
            let home = format!("home = {}\n", world.path(shown).join("bin").display());
            world.write(&format!("{environment}/pyvenv.cfg"), &home);
            let out = run(&format!("{environment}/bin")).ok();
            // The person's own environment, outside of any repository, is taken at its word.
            let own = environment == "home/tools/aider";
            assert!(out.ends_with("ran\n") && (out == "ran\n") != own, "{environment} {shown}: {out}");
        }
    }
    // A clone beside the project, in which another cell may have been.
    std::fs::create_dir(world.path("home/tools/.git")).expect("a folder");
    assert_eq!(run("home/tools/aider/bin").ok(), "ran\n");
    let link = world.path("home/demo/.venv/bin/aider");
    std::fs::remove_file(&link).expect("remove");
    symlink(world.path("home/notes/run"), &link).expect("a link");
    run("home/demo/.venv/bin").fails(127).says("aider");
    let asked = format!("run -v {}:ro aider", world.path("home/notes").display());
    assert!(with_path(&world, world.cellblock(&asked), "home/demo/.venv/bin").ok().ends_with("ran\n"));
}

#[test]
fn a_link_with_an_agents_name_is_that_agent() {
    let world = World::new();
    install(&world, "home/bin/claude", "/bin/sh");
    std::fs::create_dir(world.path("home/links")).expect("a folder");
    let link = world.path("home/links/claude");
    symlink(cellblock(), &link).expect("a link");
    let path = format!("{}:{}:/usr/bin:/bin", world.path("home/links").display(), world.path("home/bin").display());
    let done = world.call(&link, &["--", "-prompt"]).env("PATH", &path).fails(7);
    assert!(done.stdout().contains("--dangerously-skip-permissions -prompt\n"), "{done}");
    // What it says of itself is the agent's business; another name is cellblock itself.
    assert!(world.call(&link, &["--version"]).env("PATH", &path).fails(7).stdout().contains("--version"));
    let other = world.path("home/links/cb");
    symlink(cellblock(), &other).expect("a link");
    assert!(world.call(&other, &["--version"]).ok().starts_with("cellblock "));
}

#[test]
fn an_agent_that_is_not_there_says_how_to_get_it() {
    let world = World::new();
    let done = world.cellblock("run claude-code").fails(127);
    done.says("Claude Code is not installed").says("npm install -g @anthropic-ai/claude-code");
    world.load_alpine();
    let done = world.cellblock("run --image alpine codex --continue").fails(127);
    done.says("Codex is not in the image alpine").says("--image host").says("apk add");
    // The twin: with a program of that name there it starts.
    world.write("home/tools/codex", "#!/bin/sh\necho \"in $0 $*\"\n");
    std::fs::set_permissions(world.path("home/tools/codex"), PermissionsExt::from_mode(0o755)).expect("chmod");
    let mount = format!("run --image alpine -v {}:/usr/local/bin:ro codex", world.path("home/tools").display());
    assert!(world.cellblock(&mount).ok().starts_with("in /usr/local/bin/codex --dangerously"));
    assert!(world.leftovers().is_empty());
}

#[test]
fn a_check_starts_nothing() {
    let world = World::new();
    world.cellblock("run claude-code --check").fails(127).says("not installed");
    install(&world, "home/bin/claude", "/bin/sh");
    let check = || with_path(&world, world.cellblock("run claude-code --check"), "home/bin").ok();
    let out = check();
    assert!(out.contains("Claude Code") && out.contains("not there: log in first"), "{out}");
    world.write("home/.claude/.credentials.json", "{}");
    assert!(!check().contains("not there"), "{}", check());
    let json = with_path(&world, world.cellblock("run --json claude-code --check"), "home/bin").ok();
    assert!(json.starts_with('['), "{json}");
}

#[test]
fn what_an_agent_may_reach() {
    let world = World::new();
    install(&world, "home/bin/claude", "/bin/sh");
    let allowed = |flags: &str| {
        let call = world.cellblock(&format!("run --dry-run --json {flags} claude-code"));
        let plan: serde_json::Value = serde_json::from_str(&with_path(&world, call, "home/bin").ok()).expect("json");
        let rules = plan["cell"]["reach"]["allow"].as_array().cloned().unwrap_or_default();
        rules.iter().map(|rule| rule["rule"].as_str().unwrap_or_default().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(allowed(""), ["@dev", "@claude-code"]);
    assert_eq!(allowed("--allow a.example"), ["@dev", "@claude-code", "a.example"]);
    assert!(allowed("--no-default-allow").is_empty());
    world.configure("defaults: {allow: [b.example]}\n");
    assert_eq!(allowed(""), ["b.example", "@claude-code"]);
    world.configure("defaults: {allow: [b.example]}\nagents: {claude-code: {allow: [c.example]}}\n");
    assert_eq!(allowed(""), ["c.example"]);
    world.configure("defaults: {allow: []}\n");
    assert!(allowed("").is_empty(), "an empty list is nothing");
}

#[test]
fn agents_are_listed_and_shown() {
    let world = World::new();
    let list = world.cellblock("agent list").ok();
    for name in [
        "aider",
        "amp",
        "claude-code",
        "codex",
        "copilot",
        "crush",
        "cursor-agent",
        "gemini",
        "goose",
        "opencode",
        "pi",
        "qwen",
    ] {
        assert!(list.lines().any(|line| line.starts_with(name)), "{name} in {list}");
    }
    assert!(world.cellblock("agent show claude").ok().contains("--dangerously-skip-permissions"));
    world.cellblock("agent show clude").fails(125).says("did you mean `claude-code`?");
    world.configure("agents: {mine: {title: My Own, programs: [my-own]}}\n");
    assert!(world.cellblock("agent list").ok().contains("My Own"));
    let shown: serde_json::Value = serde_json::from_str(&world.cellblock("agent show mine --json").ok()).expect("json");
    assert_eq!(shown["programs"][0], "my-own");
    world.cellblock("run mine").fails(127).says("there is no `my-own`");
}
