//! What cells see of their agent's files at home: modes, projects, links, kills (rows A9, C4, D8, E2).

use std::collections::BTreeMap;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use cellblock_tests::{Call, World};

/// An agent that is a shell, with some state of the person's.
pub(crate) fn world() -> World {
    let world = World::new();
    let shell = "#!/bin/sh\n[ \"$1\" = --dangerously-skip-permissions ] && shift\nexec sh -c \"$1\"\n";
    for program in ["claude", "mine"] {
        world.write(&format!("home/bin/{program}"), shell);
        std::fs::set_permissions(world.path(&format!("home/bin/{program}")), PermissionsExt::from_mode(0o755))
            .expect("chmod");
    }
    world.write("home/.claude/settings.json", "{\"from\":\"host\"}");
    world.write("home/.claude/skills/one/SKILL.md", "a skill");
    world.write("home/.claude/projects/-other/talk.jsonl", "another project's talk");
    world.write("home/.claude/history.jsonl", "another project's words");
    world.write("home/.claude.json", "{\"from\":\"host\"}");
    world.write("home/.claude/.credentials.json", "{\"token\":1}");
    world
}

/// `cellblock` with the agent in the PATH; `{}` in `line` stands for the agent's own command.
pub(crate) fn agent(world: &World, flags: &str, command: &str) -> Call {
    // Without what cellblock itself writes there (seeds.rs): what is looked at here is what becomes of the person's.
    seeded(world, &format!("--onboarding --no-sandbox-md {flags}"), command)
}

/// The same as people have it.
pub(crate) fn seeded(world: &World, flags: &str, command: &str) -> Call {
    let path = format!("{}:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin", world.path("home/bin").display());
    world.cellblock(&format!("run --image host --net none {flags} claude-code -- '{command}'")).env("PATH", &path)
}

/// Every file below a folder with its content, links and modes.
pub(crate) fn tree(folder: &Path) -> BTreeMap<PathBuf, String> {
    let mut all = BTreeMap::new();
    let mut left = vec![folder.to_owned()];
    while let Some(folder) = left.pop() {
        for entry in std::fs::read_dir(folder).expect("a folder").flatten() {
            let metadata = entry.metadata().expect("metadata");
            let text = if metadata.is_dir() {
                left.push(entry.path());
                String::new()
            } else {
                std::fs::read_to_string(entry.path()).unwrap_or_default()
            };
            let text = format!("{:o} {} {} {text}", metadata.mode(), metadata.uid(), metadata.ino());
            all.insert(entry.path(), text);
        }
    }
    all
}

/// Another project of the same person.
fn other_project(world: &World) -> PathBuf {
    world.write("home/other/.git/HEAD", "ref: refs/heads/main\n");
    world.path("home/other")
}

#[test]
fn a_project_has_its_own_history_over_the_persons_settings() {
    let world = world();
    let other = other_project(&world);
    let before = tree(&world.path("home/.claude"));
    let seen = agent(&world, "", "cat ~/.claude/settings.json ~/.claude/skills/one/SKILL.md; ls -A ~/.claude").ok();
    assert!(seen.contains("{\"from\":\"host\"}a skill"), "{seen}");
    assert!(!seen.contains("projects") && !seen.contains("history.jsonl"), "{seen}");
    let change = "mkdir ~/.claude/projects && echo mine > ~/.claude/projects/talk && echo inside > ~/.claude/new && mv ~/.claude/new ~/.claude/settings.json && rm -r ~/.claude/skills";
    agent(&world, "", change).ok();
    let look = "cat ~/.claude/settings.json ~/.claude/projects/talk; ls ~/.claude/skills";
    let kept = agent(&world, "", look).run();
    assert_eq!(kept.stdout(), "inside\nmine\n", "{kept}");
    // Another project sees the host's, and nothing of the first.
    let elsewhere = agent(&world, "", look).dir(&other).run();
    assert_eq!(elsewhere.stdout(), "{\"from\":\"host\"}one\n", "{elsewhere}");
    assert_eq!(tree(&world.path("home/.claude")), before, "nothing of the host's has changed");
    // The probe works: what is shared shows the other project's talk, and is written.
    world.configure("defaults: {claude_config: share}\n");
    let shared = agent(&world, "--yes", "cat ~/.claude/projects/-other/talk.jsonl; echo x > ~/.claude/written").ok();
    assert_eq!(shared, "another project's talk");
    assert_eq!(std::fs::read_to_string(world.path("home/.claude/written")).expect("written"), "x\n");
}

#[test]
fn cells_of_one_project_share_its_state_at_the_same_time() {
    let world = world();
    agent(&world, "-d --name one", "sleep 300").ok();
    agent(&world, "-d --name two", "sleep 300").ok();
    let inside = |cell: &str, command: &str| world.cellblock(&format!("exec {cell} -- sh -c '{command}'"));
    inside("one", "mkdir ~/.claude/projects && echo words > ~/.claude/projects/talk").ok();
    assert_eq!(inside("two", "cat ~/.claude/projects/talk").ok(), "words\n");
    // A lock by a folder, and a file that is replaced: what agents do with the files they share.
    inside("two", "mkdir ~/.claude/.claude.json.lock").ok();
    let _ = inside("one", "mkdir ~/.claude/.claude.json.lock").fails(1);
    inside(
        "two",
        "echo two > ~/.claude/t && mv ~/.claude/t ~/.claude/.claude.json && rmdir ~/.claude/.claude.json.lock",
    )
    .ok();
    assert_eq!(inside("one", "mkdir ~/.claude/.claude.json.lock && cat ~/.claude/.claude.json").ok(), "two\n");
    // Twenty writers at once lose no line.
    let writers: Vec<_> = (0..20)
        .map(|n| {
            inside(if n % 2 == 0 { "one" } else { "two" }, &format!("echo {n} >> ~/.claude/projects/lines")).start()
        })
        .collect();
    for mut writer in writers {
        assert!(writer.wait().expect("its end").success());
    }
    assert_eq!(inside("one", "sort -u ~/.claude/projects/lines | wc -l").ok().trim(), "20");
    let busy = world.cellblock("agent reset claude").run();
    assert_eq!(busy.code(), Some(125), "{busy}");
    busy.says("is running");
}

#[test]
fn a_file_at_home_can_be_replaced_and_stays_with_the_project() {
    let world = world();
    let before = std::fs::read_to_string(world.path("home/.claude.json")).expect("there");
    let path = agent(&world, "", "echo $CLAUDE_CONFIG_DIR; cat $CLAUDE_CONFIG_DIR/.claude.json").ok();
    assert_eq!(path, format!("{}\n{{\"from\":\"host\"}}", world.path("home/.claude").display()));
    // It follows the host as long as no cell has changed it.
    world.write("home/new", "{\"from\":\"host again\"}");
    std::fs::rename(world.path("home/new"), world.path("home/.claude.json")).expect("mv");
    assert_eq!(agent(&world, "", "cat ~/.claude/.claude.json").ok(), "{\"from\":\"host again\"}");
    agent(&world, "", "cd ~/.claude && echo inside > t && mv t .claude.json").ok();
    std::fs::write(world.path("home/.claude.json"), &before).expect("write");
    assert_eq!(agent(&world, "", "cat ~/.claude/.claude.json").ok(), "inside\n");
    assert_eq!(std::fs::read_to_string(world.path("home/.claude.json")).expect("there"), before);
    world.cellblock("agent reset claude").ok();
    assert_eq!(agent(&world, "", "cat ~/.claude/.claude.json").ok(), before);
}

#[test]
fn any_file_at_home_can_be_replaced() {
    let world = world();
    world.configure("agents: {claude-code: {state: [{path: ~/.mine.conf, file: true}, {path: ~/.config/mine/x.conf, file: true}, {path: ~/.shared.conf, file: true, mode: share}]}}\n");
    world.write("home/.mine.conf", "host's");
    world.write("home/.shared.conf", "host's");
    let change = "cat ~/.mine.conf ~/.shared.conf; for f in .mine.conf .config/mine/x.conf .shared.conf; do echo inside > ~/t && mv ~/t ~/$f || exit; done";
    assert_eq!(agent(&world, "", change).ok(), "host'shost's");
    assert_eq!(agent(&world, "", "cat ~/.mine.conf ~/.config/mine/x.conf").ok(), "inside\ninside\n");
    let read = |path: &str| std::fs::read_to_string(world.path(path)).ok();
    assert_eq!(read("home/.mine.conf").as_deref(), Some("host's"));
    assert_eq!(read("home/.shared.conf").as_deref(), Some("inside\n"), "the probe works: what is shared is written");
    assert!(!world.path("home/.config/mine").exists());
}

#[test]
fn a_copy_dies_with_its_cell() {
    let world = world();
    world.configure("defaults: {claude_config: copy}\n");
    let before = tree(&world.path("home/.claude"));
    let change =
        "echo inside > ~/.claude/t && mv ~/.claude/t ~/.claude/settings.json && echo inside > ~/.claude/.claude.json";
    agent(&world, "", change).ok();
    let look = "cat ~/.claude/settings.json ~/.claude/.claude.json; ls -A ~/.claude";
    let seen = agent(&world, "", look).ok();
    assert!(seen.starts_with("{\"from\":\"host\"}{\"from\":\"host\"}") && !seen.contains("projects"), "{seen}");
    assert_eq!(tree(&world.path("home/.claude")), before);
    // A cell that is kept keeps its copy.
    agent(&world, "--name kept", change).ok();
    assert!(agent(&world, "--name kept", look).ok().starts_with("inside\ninside\n"));
    let _ = agent(&world, "--name kept --rm", "true").run();
    assert!(world.leftovers().is_empty());
}

#[test]
fn what_is_synced_follows_the_host_while_the_cell_runs_and_is_read_only() {
    let world = world();
    world.configure("defaults: {claude_config: sync}\n");
    agent(&world, "-d --name it", "sleep 300").ok();
    let inside = |command: &str| world.cellblock(&format!("exec it -- sh -c '{command}'"));
    let becomes = |what: &str, want: &str| {
        world.wait(what, || {
            inside("cat ~/.claude/settings.json ~/.claude/skills/*/SKILL.md ~/.claude.json").run().stdout() == want
        });
    };
    becomes("the start", "{\"from\":\"host\"}a skill{\"from\":\"host\"}");
    world.write("home/.claude/settings.json", "in place ");
    becomes("a change in place", "in place a skill{\"from\":\"host\"}");
    world.write("home/new", "renamed ");
    std::fs::rename(world.path("home/new"), world.path("home/.claude/settings.json")).expect("mv");
    becomes("a change by rename", "renamed a skill{\"from\":\"host\"}");
    world.write("home/.claude/skills/two/SKILL.md", ", another");
    becomes("a new folder", "renamed a skill, another{\"from\":\"host\"}");
    world.write("home/.claude/skills/two/SKILL.md", ", changed");
    becomes("a change in a new folder", "renamed a skill, changed{\"from\":\"host\"}");
    std::fs::remove_file(world.path("home/.claude/skills/two/SKILL.md")).expect("rm");
    becomes("a removal", "renamed a skill{\"from\":\"host\"}");
    world.write("home/new", "\nthe file");
    std::fs::rename(world.path("home/new"), world.path("home/.claude.json")).expect("mv");
    becomes("a file by rename", "renamed a skill\nthe file");
    inside("echo x > ~/.claude/settings.json").run().says("Read-only file system");
    inside("rm ~/.claude/skills/one/SKILL.md").run().says("Read-only file system");
    assert_eq!(std::fs::read_to_string(world.path("home/.claude/settings.json")).expect("there"), "renamed ");
}

#[test]
fn links_of_the_person_work_and_those_of_a_cell_lead_nowhere() {
    let world = world();
    std::fs::rename(world.path("home/.claude"), world.path("home/dotfiles")).expect("mv");
    symlink("dotfiles", world.path("home/.claude")).expect("link");
    world.write("home/elsewhere/CLAUDE.md", "words");
    world.write("home/.ssh/id", "key");
    symlink(world.path("home/elsewhere/CLAUDE.md"), world.path("home/.claude/CLAUDE.md")).expect("link");
    symlink(world.path("home/.ssh/id"), world.path("home/.claude/key")).expect("link");
    let seen = agent(&world, "", "cat ~/.claude/CLAUDE.md ~/.claude/settings.json; cat ~/.claude/key").run();
    assert_eq!(seen.stdout(), "words{\"from\":\"host\"}", "{seen}");
    seen.says("not taken over for claude-code").says("No such file");
    // A cell puts links where the next start will write.
    world.write("home/victim/file", "safe");
    let victim = world.path("home/victim").display().to_string();
    let plant = format!(
        "cd ~/.claude && rm -r skills && ln -s {victim} skills && ln -sf {victim}/file settings.json && ln -s {victim}/file .settings.json.cellblock && rm .credentials.json && ln -s {victim}/file .credentials.json"
    );
    agent(&world, "", &plant).ok();
    world.write("home/dotfiles/skills/three/SKILL.md", "new");
    world.write("home/new", "{\"from\":\"host, later\"}");
    std::fs::rename(world.path("home/new"), world.path("home/dotfiles/settings.json")).expect("mv");
    agent(&world, "", "true").ok();
    let listed: Vec<_> = std::fs::read_dir(world.path("home/victim")).expect("list").flatten().collect();
    assert_eq!(
        (listed.len(), std::fs::read_to_string(world.path("home/victim/file")).expect("there").as_str()),
        (1, "safe")
    );
    assert_eq!(std::fs::read_to_string(world.path("home/dotfiles/.credentials.json")).expect("there"), "{\"token\":1}");
    // The probe works: without the links the start writes there.
    world.cellblock("agent reset claude").ok();
    assert_eq!(agent(&world, "", "cat ~/.claude/skills/three/SKILL.md").ok(), "new");
}

#[test]
fn layers_are_listed_and_dropped() {
    let world = world();
    let other = other_project(&world);
    assert_eq!(world.cellblock("agent state --json").ok().trim(), "[]");
    let write =
        "mkdir -p ~/.claude/projects && echo mine > ~/.claude/projects/talk && echo mine > ~/.claude/settings.json";
    agent(&world, "", write).ok();
    agent(&world, "", write).dir(&other).ok();
    agent(&world, "--no-project", write).ok();
    let listed = world.cellblock("agent state claude").ok();
    assert_eq!(listed.lines().count(), 4, "{listed}");
    assert!(listed.contains(&world.project().display().to_string()) && listed.contains(&other.display().to_string()));
    world.cellblock("agent reset claude --keep-history").ok();
    let look = "cat ~/.claude/settings.json ~/.claude/projects/talk";
    assert_eq!(agent(&world, "", look).ok(), "{\"from\":\"host\"}mine\n");
    world.cellblock("agent reset claude").ok();
    assert_eq!(agent(&world, "", look).run().stdout(), "{\"from\":\"host\"}");
    assert_eq!(agent(&world, "", look).dir(&other).ok(), "mine\nmine\n", "another project's is not touched");
    world.cellblock(&format!("agent reset claude --project {}", other.display())).ok();
    assert_eq!(agent(&world, "", look).dir(&other).run().stdout(), "{\"from\":\"host\"}");
    assert_eq!(agent(&world, "--no-project", look).ok(), "mine\nmine\n");
    world.cellblock("agent reset claude --all").ok();
    assert_eq!(agent(&world, "--no-project", look).run().stdout(), "{\"from\":\"host\"}");
    world.cellblock("agent reset nobody").fails(125).says("no agent is called");
}

#[test]
fn the_home_inside_is_the_persons() {
    let world = world();
    world.configure("agents: {claude-code: {state: [{path: ~/.local/share/mine/deep}]}}\n");
    agent(
        &world,
        "",
        "mkdir ~/.local/state && touch ~/.local/share/x ~/.local/share/mine/y ~/.local/share/mine/deep/z",
    )
    .ok();
    let owners =
        agent(&world, "", "stat -c %u ~ ~/.local ~/.local/share/mine ~/.claude ~/.local/share/mine/deep/z; id -u").ok();
    let all: Vec<&str> = owners.lines().collect();
    assert!(all.len() == 6 && all.iter().all(|owner| *owner == all[5]), "{owners}");
    // Without an agent there is nothing of this.
    let names = world.cellblock("run --image host -- sh -c 'ls -A ~'").ok();
    assert!(names.contains("demo") && !names.contains(".claude") && !names.contains(".local"), "{names}");
}

#[test]
fn an_image_of_its_own_has_the_same() {
    let world = world();
    world.load_alpine();
    let program = world.path("home/bin/claude").display().to_string();
    let run = |user: &str, command: &str| {
        world.cellblock(&format!(
            "run --image alpine --net none {user} -v {program}:/usr/bin/claude:ro claude -- '{command}'"
        ))
    };
    run("", "cat ~/.claude/settings.json && cd ~/.claude && echo inside > t && mv t settings.json").ok();
    assert_eq!(run("", "cat ~/.claude/settings.json ~/.claude/.credentials.json").ok(), "inside\n{\"token\":1}");
    // Another user inside has the same layer.
    let root = run("-u root", "cat ~/.claude/settings.json; echo roots > ~/.claude/settings.json; id -u").ok();
    assert_eq!(root, "inside\n0\n");
    assert_eq!(run("", "cat ~/.claude/settings.json; echo more >> ~/.claude/settings.json").ok(), "roots\n");
}

#[test]
fn a_plan_says_what_is_seen() {
    let world = world();
    let plan = agent(&world, "--dry-run", "true").ok();
    for text in ["state ~/.claude", "the project's own, begun as", "login ~/.claude/.credentials.json", "itself (rw)"] {
        assert!(plan.contains(text), "{text}\n{plan}");
    }
    assert!(!world.path("home/.local/share/cellblock/projects").exists(), "a plan makes nothing");
    world.configure("agents: {claude-code: {state: [{path: ~/.local/share}]}}\n");
    agent(&world, "", "true").fails(125).says("cellblock");
}

#[test]
fn what_cannot_be_read_is_told_and_stands_in_nobodys_way() {
    let world = world();
    std::fs::remove_file(world.path("home/.claude/settings.json")).expect("rm");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        world.path("home/.claude/settings.json"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RWXU,
        0,
    )
    .expect("mkfifo");
    symlink("loop", world.path("home/.claude/loop")).expect("link");
    std::fs::remove_file(world.path("home/.claude/.credentials.json")).expect("rm");
    std::fs::create_dir(world.path("home/.claude/.credentials.json")).expect("mkdir");
    assert_eq!(agent(&world, "", "ls ~/.claude; cat ~/.claude/skills/one/SKILL.md").ok(), "skills\na skill");
    // Nothing at all on the host.
    let empty = self::world();
    std::fs::rename(empty.path("home/.claude"), empty.path("home/away")).expect("mv");
    std::fs::remove_file(empty.path("home/.claude.json")).expect("rm");
    agent(&empty, "", "echo token > ~/.claude/.credentials.json && echo x > ~/.claude/.claude.json").ok();
    assert_eq!(agent(&empty, "", "cat ~/.claude/.credentials.json ~/.claude/.claude.json").ok(), "token\nx\n");
    assert!(
        !empty.path("home/.claude").exists() && !empty.path("home/.claude.json").exists(),
        "nothing is made at home"
    );
}

#[test]
fn secrets_in_an_agents_folder_stay_out_however_it_is_seen() {
    let world = world();
    world.write("home/.claude/mine/key", "a secret");
    world.write("home/.claude/plain", "no secret");
    world.configure("defaults:\n  secret_paths: [~/.claude/mine]\n");
    let look = "cat ~/.claude/plain; cat ~/.claude/mine/key 2>/dev/null; echo; cat ~/.claude/.credentials.json";
    for flags in ["", "--share ~/.claude"] {
        assert_eq!(agent(&world, flags, look).ok(), "no secret\n{\"token\":1}", "{flags}");
    }
    // The twin: who takes it off the list sees it.
    let open = "--share ~/.claude --secret-path-except ~/.claude/mine";
    assert_eq!(agent(&world, open, look).ok(), "no secreta secret\n{\"token\":1}");
    agent(&world, "--share ~/.claude", "echo written > ~/.claude/plain").ok();
    assert_eq!(std::fs::read_to_string(world.path("home/.claude/plain")).expect("there"), "written\n");
    // It can be written: nothing that must not be changed lies in it.
    std::fs::create_dir(world.path("home/.claude/logs")).expect("mkdir");
    let _ = agent(&world, "--share ~/.claude --log-dir ~/.claude/logs", "true").fails(125);
}
