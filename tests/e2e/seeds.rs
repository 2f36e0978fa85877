//! What cellblock writes into an agent's files, inside only: where it reads of its cell (row D10), and what it would ask at a first start.

use std::os::unix::fs::symlink;

use cellblock_tests::World;

use crate::state::{seeded, tree, world};

const SANDBOX: &str = "@/etc/cellblock/SANDBOX.md";

/// The person's files that a start is about.
const SHOW: &str = "cat ~/.claude/CLAUDE.md; echo; cat ~/.claude/.claude.json ~/.claude/settings.json 2>/dev/null | tr -d \" \\n\"; echo";

fn show(world: &World, flags: &str) -> String {
    seeded(world, flags, SHOW).run().stdout()
}

#[test]
fn an_agent_is_pointed_to_its_cell_inside_only() {
    let world = world();
    world.write("home/.claude/CLAUDE.md", "Always say please.\n");
    let before = tree(&world.path("home/.claude"));
    for _ in 0..3 {
        let seen = show(&world, "");
        assert!(seen.starts_with("Always say please.\n<!--"), "{seen}");
        assert_eq!(seen.matches(SANDBOX).count(), 1, "{seen}");
    }
    // What it names is there, and the agent may add to the file: ours stays one part of it.
    seeded(&world, "", "head -1 /etc/cellblock/SANDBOX.md; echo Mine. >> ~/.claude/CLAUDE.md").ok();
    let seen = show(&world, "");
    assert!(seen.matches(SANDBOX).count() == 1 && seen.contains("\nMine.\n"), "{seen}");
    // Another project has the person's, and a file of its own.
    world.write("home/other/.git/HEAD", "ref: refs/heads/main\n");
    let other = seeded(&world, "", SHOW).dir(&world.path("home/other")).ok();
    assert!(other.starts_with("Always say please.\n<!--") && !other.contains("Mine."), "{other}");
    assert_eq!(tree(&world.path("home/.claude")), before, "nothing of the host's has changed");
    // Off: what earlier starts have written goes, and what the agent has written stays.
    for off in ["--no-sandbox-md", ""] {
        world.configure(if off.is_empty() { "agents: {claude-code: {sandbox_md: false}}\n" } else { "" });
        assert!(show(&world, off).starts_with("Always say please.\nMine.\n\n{"), "{off}: {}", show(&world, off));
        world.configure("");
        assert!(show(&world, "").contains(SANDBOX), "the probe works");
    }
    assert!(world.leftovers().is_empty());
}

#[test]
fn a_file_that_follows_the_host_goes_on_doing_so() {
    let world = world();
    for words in ["one", "two", "three"] {
        // As editors save: a new file in its place.
        world.write("home/new", words);
        std::fs::rename(world.path("home/new"), world.path("home/.claude/CLAUDE.md")).expect("mv");
        world.write("home/new", &format!("{{\"n\":\"{words}\"}}"));
        std::fs::rename(world.path("home/new"), world.path("home/.claude.json")).expect("mv");
        let seen = show(&world, "");
        assert!(seen.starts_with(&format!("{words}\n<!--")) && seen.contains(SANDBOX), "{seen}");
        assert!(
            seen.contains(&format!("\"n\":\"{words}\"")) && seen.contains("\"hasCompletedOnboarding\":true"),
            "{seen}"
        );
    }
    // As a link to where the dotfiles are.
    world.write("home/dotfiles/CLAUDE.md", "linked\n");
    std::fs::remove_file(world.path("home/.claude/CLAUDE.md")).expect("rm");
    symlink("../dotfiles/CLAUDE.md", world.path("home/.claude/CLAUDE.md")).expect("ln");
    world.cellblock("agent reset claude").ok();
    assert!(show(&world, "").starts_with("linked\n<!--"));
    assert_eq!(std::fs::read_to_string(world.path("home/dotfiles/CLAUDE.md")).expect("there"), "linked\n");
}

#[test]
fn what_an_agent_would_ask_is_answered_where_nobody_has() {
    let world = world();
    let before = tree(&world.path("home"));
    let project = world.project().display().to_string();
    let trusted = format!("\"{project}\":{{\"hasTrustDialogAccepted\":true}}");
    let seen = show(&world, "");
    for part in
        ["\"from\":\"host\"", "\"hasCompletedOnboarding\":true", &trusted, "\"skipDangerousModePermissionPrompt\":true"]
    {
        assert!(seen.contains(part), "{part}: {seen}");
    }
    // Folders of a cell that is going cannot be read.
    assert!(world.leftovers().is_empty());
    for name in [".claude", ".claude.json"] {
        let path = world.path("home").join(name);
        let now = tree(&world.path("home"));
        assert!(
            before.iter().filter(|(file, _)| file.starts_with(&path)).all(|(file, text)| now.get(file) == Some(text))
        );
    }
    // An agent that asks before it acts is asked about, and one that is to ask everything says nothing of its own.
    world.cellblock("agent reset claude").ok();
    let asks = show(&world, "--ask");
    assert!(
        asks.contains("hasCompletedOnboarding") && !asks.contains("Trust") && !asks.contains("Dangerous"),
        "{asks}"
    );
    world.cellblock("agent reset claude").ok();
    assert!(!show(&world, "--onboarding").contains("hasCompletedOnboarding"));
    world.configure("defaults: {onboarding: true}\n");
    assert!(!show(&world, "").contains("hasCompletedOnboarding"));
    world.configure("");
    assert!(show(&world, "").contains("hasCompletedOnboarding"), "the probe works");
    // What somebody has said stays; `false` of a program that has not asked yet is nothing said.
    world.write(
        "home/.claude.json",
        &format!("{{\"theme\":\"light\",\"projects\":{{\"{project}\":{{\"hasTrustDialogAccepted\":false,\"n\":1}}}}}}"),
    );
    world.write("home/.claude/settings.json", "{\"skipDangerousModePermissionPrompt\":false}");
    world.cellblock("agent reset claude").ok();
    let seen = show(&world, "");
    assert!(seen.contains("\"theme\":\"light\"") && seen.contains("\"hasTrustDialogAccepted\":true"), "{seen}");
    assert!(seen.contains("\"n\":1") && seen.contains("\"skipDangerousModePermissionPrompt\":false"), "{seen}");
}

#[test]
fn nothing_is_written_where_it_would_be_the_hosts() {
    let world = world();
    world.write("home/.claude/CLAUDE.md", "Always say please.\n");
    world.write("home/.codex/auth.json", "{\"token\":1}");
    for mode in ["private", "copy", "share", "sync"] {
        world.configure(&format!("defaults: {{claude_config: {mode}}}\n"));
        let before = [tree(&world.path("home/.claude")), tree(&world.path("home/.codex"))];
        let config = std::fs::read_to_string(world.path("home/.claude.json")).expect("there");
        let seen = seeded(&world, "--yes", "cat ~/.claude/CLAUDE.md").run();
        assert_eq!(seen.code(), Some(0), "{mode}: {seen}");
        assert_eq!(seen.stdout().contains(SANDBOX), ["private", "copy"].contains(&mode), "{mode}: {seen}");
        assert_eq!([tree(&world.path("home/.claude")), tree(&world.path("home/.codex"))], before, "{mode}");
        assert_eq!(std::fs::read_to_string(world.path("home/.claude.json")).expect("there"), config, "{mode}");
        let plan = seeded(&world, "--explain --dry-run", "true").ok();
        let said =
            if ["private", "copy"].contains(&mode) { "points to /etc/cellblock/SANDBOX.md" } else { "left as it is" };
        assert!(plan.lines().any(|line| line.contains("seed ~/.claude/CLAUDE.md") && line.contains(said)), "{plan}");
    }
    // With another home the agent is told where its folder is, and finds ours there.
    world.configure("");
    let seen = seeded(&world, "--yes --home workspace", "cat $CLAUDE_CONFIG_DIR/CLAUDE.md; ls -A ~/.claude").run();
    assert!(seen.stdout().contains(SANDBOX) && !world.project().join(".claude").exists(), "{seen}");
    // What the person mounts is as the person mounts it.
    world.configure("");
    let mount = format!("--yes -v {}", world.path("home/.claude").display());
    assert!(!show(&world, &mount).contains(SANDBOX));
    // A seed of the configuration's own does not get into a login.
    world.configure(
        "agents: {mine: {state: [{path: ~/.codex}], login: [{path: ~/.codex/auth.json}], unattended: [--dangerously-skip-permissions], seeds: \
         [{path: ~/.codex/auth.json, keys: {a: 1}}, {path: ~/.codex/config.toml, form: toml, keys: {projects: {'{workdir}': {t: x}}}}]}}\n",
    );
    let path = format!("{}:/usr/bin:/bin", world.path("home/bin").display());
    let call = world.cellblock("run --image host --net none mine 'cat ~/.codex/auth.json ~/.codex/config.toml'");
    let want = format!("{{\"token\":1}}[projects.\"{}\"]\nt = \"x\"\n", world.project().display());
    assert_eq!(call.env("PATH", &path).ok(), want);
    assert_eq!(std::fs::read_to_string(world.path("home/.codex/auth.json")).expect("there"), "{\"token\":1}");
}

/// What an earlier cell has made of its files is in nobody's way, and is not followed.
#[test]
fn what_a_cell_has_put_there_leads_nowhere() {
    let world = world();
    world.write("home/victim", "safe");
    let victim = world.path("home/victim");
    let spoil = format!(
        "cd ~/.claude && ln -sf {} CLAUDE.md && ln -sf {0} settings.json && echo [ > .claude.json && ln .credentials.json other",
        victim.display()
    );
    seeded(&world, "", &spoil).ok();
    let done = seeded(&world, "", "echo still here").run();
    assert_eq!((done.code(), done.stdout().as_str()), (Some(0), "still here\n"), "{done}");
    for file in ["CLAUDE.md", "settings.json", ".claude.json"] {
        done.says(&format!(".claude/{file} is left as it is"));
    }
    assert_eq!(std::fs::read_to_string(victim).expect("there"), "safe");
    // Another name of the login becomes a file of its own.
    seeded(&world, "", "cd ~/.claude && rm CLAUDE.md && mv other CLAUDE.md").ok();
    let seen = show(&world, "");
    assert!(seen.starts_with("{\"token\":1}\n<!--"), "{seen}");
    assert_eq!(std::fs::read_to_string(world.path("home/.claude/.credentials.json")).expect("there"), "{\"token\":1}");
    // A folder where a file should be, and a folder's name taken by a file.
    seeded(&world, "", "cd ~/.claude && rm CLAUDE.md && mkdir CLAUDE.md").ok();
    assert_eq!(seeded(&world, "", "echo still here").ok(), "still here\n");
}
