//! What people and repositories bring along in no order at all: a clear message, nothing lost, nothing widened (rows C6, D8, E4).

use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::time::{Duration, Instant};

use cellblock_tests::{Done, World, cellblock, is_root};

use crate::git_matrix::git;
use crate::state::{agent, world};

/// Claude Code's login in a world's home.
const LOGIN: &str = "home/.claude/.credentials.json";

fn host_login(world: &World) -> String {
    std::fs::read_to_string(world.path(LOGIN)).expect("the host has a login")
}

/// Puts a file in the place of the login inside, as agents do, and waits until that has been seen.
fn renewing(text: &str) -> String {
    format!("cd ~/.claude && echo \"{text}\" >new && mv -f new .credentials.json; sleep 0.3")
}

#[test]
fn pointers_that_are_broken_start_nothing_and_say_why() {
    let world = World::new();
    let long = format!("gitdir: /{}\n", "a/".repeat(3000));
    for (name, text, told) in [
        ("empty", "", "does not begin with `gitdir: `"),
        ("other", "something else\n", "does not begin with `gitdir: `"),
        ("gone", "gitdir: ../nowhere/.git\n", "which is not there"),
        ("no-repository", "gitdir: /etc\n", "it has no HEAD"),
        ("itself", "gitdir: .\n", "it has no HEAD"),
        ("zero", "gitdir: a\0b\n", "it is not text"),
        ("long", &long, "longer than a path can be"),
    ] {
        world.write(&format!("home/{name}/.git"), text);
        let cell = |flags: &str| {
            let line = format!("run --image host --net none {flags} -- touch made");
            world.cellblock(&line).dir(&world.path("home").join(name)).run()
        };
        let done = cell("");
        assert_eq!(done.code(), Some(125), "{name}: {done}");
        done.says(told).says("--no-project");
        assert!(done.stderr().len() < 1000, "{name}: {done}");
        // The twin: what it says to do works, and mounts nothing.
        let done = cell("--no-project");
        assert_eq!(done.code(), Some(0), "{name}: {done}");
        assert_eq!(std::fs::read_dir(world.path("home").join(name)).expect("a folder").count(), 1, "{name}");
    }
    assert!(world.leftovers().is_empty());
}

#[test]
fn what_may_not_be_read_of_a_repository_is_told() {
    if is_root() {
        // Root may read everything.
        return;
    }
    let world = World::new();
    let close = |mode| {
        std::fs::set_permissions(world.path("home/demo/.git"), PermissionsExt::from_mode(mode)).expect("chmod");
    };
    close(0o000);
    let done = world.cellblock("run --image host --net none -- true").fails(125);
    done.says(".git/HEAD: Permission denied").says("--no-project");
    close(0o755);
    world.cellblock("run --image host --net none -- true").ok();
}

/// A repository of somebody else's around the folder, and a pointer of our own into one.
#[test]
fn the_repository_of_another_user_is_not_taken() {
    if !is_root() {
        // Only root can make one.
        return;
    }
    let world = World::new();
    let path = |inside: &str| world.path("home").join(inside);
    let sh = |script: &str| world.call(Path::new("sh"), &["-c", script]).dir(&path("")).ok();
    sh("rm -rf demo; git init -q demo; cd demo; git -c user.name=A -c user.email=a@b commit -q --allow-empty -m x
        git worktree add -q ../wt; mkdir sub; chown -R 12345:12345 . ; chown -R 23456:23456 ../wt; chmod -R a+rX . ../wt");
    // As somebody who is neither root nor its owner.
    let plan = |dir: &str, flags: &str| -> Done {
        let line = format!(
            "--reuid 23456 --regid 23456 --clear-groups {} run --dry-run {flags} -- true",
            cellblock().display()
        );
        let words: Vec<&str> = line.split_whitespace().collect();
        world.call(Path::new("setpriv"), &words).dir(&path(dir)).run()
    };
    for dir in ["demo", "demo/sub", "wt"] {
        let done = plan(dir, "--net none");
        assert_eq!(done.code(), Some(125), "{dir}: {done}");
        done.says("belongs to another user (uid 12345)").says("--force-project");
        // The twin: who trusts it gets it.
        let done = plan(dir, "--net none --force-project");
        assert_eq!(done.code(), Some(0), "{dir}: {done}");
    }
}

#[test]
fn a_login_in_pieces_does_no_harm_and_gives_way() {
    let world = world();
    let login = host_login(&world);
    // In pieces inside: the host's stays, and the next cell has that again.
    for bad in ["", "{'tok"] {
        agent(&world, "", &format!("{}; cat .credentials.json", renewing(&bad.replace('\'', "\\\"")))).ok();
        assert_eq!(host_login(&world), login, "{bad:?}");
        assert_eq!(agent(&world, "", "cat ~/.claude/.credentials.json").ok(), login, "{bad:?}");
    }
    // In pieces on the host: the agent sees what there is, and one that is made inside mends both.
    world.write(LOGIN, "{\"tok");
    assert_eq!(agent(&world, "", "cat ~/.claude/.credentials.json").ok(), "{\"tok");
    agent(&world, "", &renewing("{\\\"token\\\":2}")).ok();
    assert_eq!(host_login(&world), "{\"token\":2}\n");
}

#[test]
fn a_login_that_is_a_link_is_followed_where_links_may_lead() {
    let world = world();
    let link = world.path(LOGIN);
    let put = |target: &Path| {
        let _ = std::fs::remove_file(&link);
        symlink(target, &link).expect("a link");
    };
    let look = "cat ~/.claude/.credentials.json";
    // Where a dotfile manager keeps it: the same file on both sides, and the link stays.
    world.write("home/dotfiles/login", "{\"token\":1}");
    put(Path::new("../dotfiles/login"));
    assert_eq!(agent(&world, "", look).ok(), "{\"token\":1}");
    agent(&world, "", &renewing("{\\\"token\\\":2}")).ok();
    assert_eq!(std::fs::read_to_string(world.path("home/dotfiles/login")).expect("there"), "{\"token\":2}\n");
    assert!(std::fs::symlink_metadata(&link).expect("there").is_symlink());
    // To a secret, out of the home, to a folder: told, and neither read nor written. A cell that shares the folder could have made such a link.
    world.write("home/.ssh/id", "a key");
    world.write("outside", "not of this home");
    for (target, content) in [(world.path("home/.ssh/id"), "a key"), (world.path("outside"), "not of this home")] {
        put(&target);
        for (mode, flags) in [("share", ""), ("sync", ""), ("copy", ""), ("share", "--name kept")] {
            world.configure(&format!(
                "agents: {{claude-code: {{login: [{{path: ~/.claude/.credentials.json, mode: {mode}}}]}}}}\n"
            ));
            world.cellblock("agent reset claude").ok();
            let done = agent(&world, flags, &format!("{look}; {}", renewing("{\\\"token\\\":3}"))).run();
            assert!(!done.stdout().contains(content), "{mode}: {done}");
            done.says("not taken over for claude-code").says(&format!("it leads to {}", target.display()));
            assert_eq!(std::fs::read_to_string(&target).expect("there"), content, "{mode}: {done}");
        }
    }
    // The same by a folder on the way, to another agent's login.
    world.write("home/.codex/auth.json", "another login");
    world.configure("agents: {claude-code: {login: [{path: ~/.claude/deep/auth.json}]}}\n");
    symlink("../.codex", world.path("home/.claude/deep")).expect("a link");
    let done = agent(
        &world,
        "",
        "cat ~/.claude/deep/auth.json; mkdir -p ~/.claude/deep && echo mine >~/.claude/deep/auth.json; sleep 0.3",
    )
    .run();
    assert_eq!(done.stdout(), "", "{done}");
    done.says("deep/auth.json: it leads to");
    assert_eq!(std::fs::read_to_string(world.path("home/.codex/auth.json")).expect("there"), "another login");
    std::fs::remove_file(world.path("home/.claude/deep")).expect("rm");
    world.write("home/.claude/deep/auth.json", "its own");
    world.cellblock("agent reset claude").ok();
    assert_eq!(agent(&world, "", "cat ~/.claude/deep/auth.json").ok(), "its own");
    world.configure("");
    world.cellblock("agent reset claude").ok();
    put(&world.path("home/dotfiles"));
    agent(&world, "", "true").run().says("it is no regular file");
    // To nothing: as if there were none, and none is made.
    put(Path::new("nowhere"));
    agent(&world, "", &renewing("{\\\"token\\\":4}")).ok();
    assert!(!world.path("home/.claude/nowhere").exists());
}

/// The folder itself as a link, which somebody who may write the home could have made.
#[test]
fn a_folder_that_is_a_link_is_followed_where_links_may_lead() {
    let world = world();
    std::fs::rename(world.path("home/.claude"), world.path("home/mine")).expect("mv");
    world.write("home/.ssh/id", "a key");
    world.write("outside/id", "not of this home");
    let put = |target: &Path| {
        let _ = std::fs::remove_file(world.path("home/.claude"));
        symlink(target, world.path("home/.claude")).expect("a link");
    };
    for target in [world.path("home/.ssh"), world.path("outside")] {
        put(&target);
        let done = agent(&world, "", "ls ~/.claude; cat ~/.claude/id").fails(1);
        assert_eq!(done.stdout().replace(".claude.json\n", ""), "", "{done}");
        done.says("is not taken over").says("it leads to");
        world.cellblock("agent reset claude").ok();
    }
    put(&world.path("home/mine"));
    assert_eq!(agent(&world, "", "cat ~/.claude/skills/one/SKILL.md").ok(), "a skill");
    // What is secret in it is so by both names; and so is what a secret folder that is a link leads to.
    std::fs::rename(world.path("home/.ssh"), world.path("home/keys")).expect("mv");
    symlink("keys", world.path("home/.ssh")).expect("a link");
    symlink("../keys/id", world.path("home/mine/words")).expect("a link");
    world.write("home/mine/key", "a key");
    let look = "cat ~/.claude/words ~/.claude/key 2>/dev/null; echo";
    let seen = |yaml: &str| {
        world.configure(yaml);
        world.cellblock("agent reset claude").ok();
        agent(&world, "", look).ok()
    };
    assert_eq!(seen("defaults: {secret_paths: [~/.claude/key]}"), "\n");
    assert_eq!(seen("defaults: {secret_paths_except: [~/.ssh]}"), "a keya key\n", "the twin");
}

#[test]
fn a_login_that_is_locked_or_closed_is_told_and_kept() {
    let world = world();
    let hold = || {
        let folder = std::fs::File::open(world.path("home/.claude")).expect("a folder");
        rustix::fs::flock(&folder, rustix::fs::FlockOperation::LockExclusive).expect("a lock");
        folder
    };
    // Somebody holds the folder of the login for longer than a start waits: it says so, and the login comes when it is free.
    let lock = hold();
    let begin = Instant::now();
    agent(&world, "-d --name it", "sleep 300").ok();
    assert!(begin.elapsed() < Duration::from_secs(30), "it does not wait for ever");
    let log = std::fs::read_to_string(world.path("home/.local/state/cellblock/logs/it.log")).unwrap_or_default();
    assert!(log.contains("another program holds a lock"), "{log}");
    let inside = |script: &str| world.cellblock(&format!("exec it -- sh -c '{script}'")).run();
    assert_eq!(inside("test -e ~/.claude/.credentials.json").code(), Some(1));
    drop(lock);
    world.wait("the login", || inside("cat ~/.claude/.credentials.json").stdout() == "{\"token\":1}");
    // What is renewed while it is held is the host's when it is free.
    let lock = hold();
    let done = inside(&renewing("{\\\"token\\\":2}"));
    assert_eq!(done.code(), Some(0), "{done}");
    assert_eq!(host_login(&world), "{\"token\":1}");
    drop(lock);
    world.wait("the host's", || host_login(&world) == "{\"token\":2}\n");
    world.cellblock("stop it -t 0").ok();
    if is_root() {
        return;
    }
    // Closed to the person: to the agent as well, and it stays as it is.
    let close = |mode| std::fs::set_permissions(world.path(LOGIN), PermissionsExt::from_mode(mode)).expect("chmod");
    close(0o000);
    let _ = agent(&world, "", "cat ~/.claude/.credentials.json").fails(1).says("Permission denied");
    close(0o600);
    assert_eq!(agent(&world, "", "cat ~/.claude/.credentials.json").ok(), host_login(&world));
}

/// Both sides write as fast as they can: whoever reads sees a whole login, and at the end it is one again.
#[test]
fn what_the_host_replaces_while_the_cell_writes_is_whole() {
    let world = world();
    agent(&world, "-d --name it", "sleep 300").ok();
    let writer = |side: &str| {
        // Long enough that half of one would be seen.
        format!(
            "cd ~/.claude; long=$(head -c 20000 /dev/zero | tr \"\\\\0\" x); i=0
             while [ $i -lt 200 ]; do i=$((i+1)); echo \"{{\\\"{side}\\\":\\\"$i $long\\\"}}\" >new-{side}; mv -f new-{side} .credentials.json; cat .credentials.json >seen-{side}
             [ \"$(tail -c 3 seen-{side})\" = \"\\\"}}\" ] || echo torn; done"
        )
    };
    let script = writer("host");
    let host = world.call(Path::new("sh"), &["-c", &script]).start();
    let inside = world.cellblock(&format!("exec it -- sh -c '{}'", writer("cell"))).run();
    let host = host.wait_with_output().expect("its end");
    assert_eq!((inside.code(), inside.stdout().as_str()), (Some(0), ""), "{inside}");
    assert_eq!((host.status.code(), String::from_utf8_lossy(&host.stdout).as_ref()), (Some(0), ""));
    let cell_login = || world.cellblock("exec it -- sh -c 'cat ~/.claude/.credentials.json'").run().stdout();
    world.wait("one login", || host_login(&world) == cell_login());
    // And it is in step still.
    world.write("home/.claude/new", "{\"last\":1}");
    std::fs::rename(world.path("home/.claude/new"), world.path(LOGIN)).expect("mv");
    world.wait("the last", || cell_login() == "{\"last\":1}");
}

/// All worktrees of a repository are one project for an agent's history; another clone is another one.
#[test]
fn worktrees_share_an_agents_history_and_clones_do_not() {
    let world = world();
    let (project, linked, clone) = (world.project(), world.path("home/linked"), world.path("home/clone"));
    world.call(Path::new("rm"), &["-rf", ".git"]).ok();
    for line in
        ["init -q", "-c user.name=A -c user.email=a@b commit -q --allow-empty -m x", "worktree add -q ../linked"]
    {
        git(&world, &project, line).ok();
    }
    git(&world, &project, "clone -q . ../clone").ok();
    let write = "mkdir -p ~/.claude/projects && echo mine >~/.claude/projects/talk";
    agent(&world, "", write).ok();
    let look = "cat ~/.claude/projects/talk";
    assert_eq!(agent(&world, "", look).dir(&linked).ok(), "mine\n");
    let _ = agent(&world, "", look).dir(&clone).fails(1);
    // Below its root it is the same project; elsewhere none is.
    std::fs::create_dir(linked.join("below")).expect("mkdir");
    assert_eq!(agent(&world, "", look).dir(&linked.join("below")).ok(), "mine\n");
    let _ = agent(&world, "--no-project", look).fails(1);
}
