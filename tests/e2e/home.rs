//! What of the person's home a cell has, and what it takes for its own: shared folders, another home, other places (rows B5, C2, C3, C4).

use std::path::Path;

use cellblock_tests::{Done, World};

use crate::state::{agent, world as with_agent};

#[test]
fn state_folders_are_shared_one_to_one_and_their_secrets_are_not() {
    let world = World::new();
    world.write("home/.cargo/registry/index", "crates");
    world.write("home/.cargo/credentials.toml", "token = 'hunter2'");
    world.configure("defaults:\n  share: [~/.cargo, ~/.rustup]\n");
    let cargo = world.path("home/.cargo").display().to_string();
    let done = world.cellblock(&format!("run -- sh -c 'cat {cargo}/registry/index; echo new > {cargo}/made'"));
    let done = done.run();
    assert!(done.code() == Some(0) && done.stdout() == "crates", "{done}");
    done.says(".rustup is to be shared and is not there");
    assert!(!world.path("home/.rustup").exists(), "nothing is made on the host");
    assert_eq!(std::fs::read_to_string(world.path("home/.cargo/made")).expect("written through"), "new\n");
    let secret = format!("{cargo}/credentials.toml");
    assert_eq!(world.cellblock(&format!("run -- cat {secret}")).ok(), "");
    // The twin: it can be asked for.
    let open = world.cellblock(&format!("run --secret-path-except {secret} -- cat {secret}")).ok();
    assert_eq!(open, "token = 'hunter2'");
    // And without the word nothing of it is there.
    world.configure("");
    let _ = world.cellblock(&format!("run -- cat {cargo}/registry/index")).fails(1);
    assert_eq!(world.cellblock(&format!("run --share ../.cargo -- cat {cargo}/registry/index")).ok(), "crates");
    assert!(world.leftovers().is_empty());
}

#[test]
fn the_projects_folder_can_be_the_home() {
    let world = World::new();
    let home = |world: &World, flags: &str| {
        world
            .cellblock(&format!(
                "run {flags} -- sh -c 'cd; pwd; touch .made; echo $HOME; git config --global user.x 1; ls -A'"
            ))
            .ok()
    };
    let project = world.project().display().to_string();
    let private = home(&world, "");
    assert!(!private.contains(&project) && !world.project().join(".made").exists(), "{private}");
    let out = home(&world, "--home workspace");
    assert!(out.starts_with(&format!("{project}\n{project}\n")) && world.project().join(".made").exists(), "{out}");
    assert!(!world.project().join(".gitconfig").exists(), "what is made for the cell is not put into the project");
    let passwd = world.cellblock("run --home workspace -- sh -c 'grep ^$USER: /etc/passwd'").ok();
    assert!(passwd.contains(&format!(":{project}:")), "{passwd}");
    // The rest of the real home is as hidden as ever.
    world.write("home/.ssh/id", "private");
    let secret = world.path("home/.ssh/id").display().to_string();
    let _ = world.cellblock(&format!("run --home workspace -- cat {secret}")).fails(1);
    assert_eq!(world.cellblock(&format!("run -v {secret} --home workspace -- cat {secret}")).ok(), "private");
    world.cellblock("run --no-project --home workspace -- true").fails(125).says("there is none");
}

#[test]
fn a_folder_of_the_persons_can_be_the_home_and_theirs_is_not() {
    let world = World::new();
    world.write("home/cells/.profile", "export FROM=there");
    world.write("home/.netrc", "machine example.com password hunter2");
    world.configure("defaults:\n  home: ~/cells\n");
    let out = world.cellblock("run -- sh -c '. ~/.profile; echo $FROM; echo x > ~/made; pwd'").ok();
    assert_eq!(out, format!("there\n{}\n", world.project().display()));
    assert_eq!(std::fs::read_to_string(world.path("home/cells/made")).expect("it stays"), "x\n");
    let mut left: Vec<_> =
        std::fs::read_dir(world.path("home/cells")).expect("there").flatten().map(|e| e.file_name()).collect();
    left.sort();
    assert_eq!(left, [".profile", "made"], "cellblock makes nothing in it");
    assert_eq!(world.cellblock("run --home private -- sh -c 'ls ~'").ok(), "demo\n");
    let real = world.path("home").display().to_string();
    world
        .cellblock(&format!("run --home {real} -- true"))
        .fails(125)
        .says("your whole home directory")
        .says("--force-project");
    world.cellblock("run --home / -- true").fails(125).says("the whole machine");
    // Insisted on, it is there, but for secrets and cellblock's own files.
    let own = format!("run --force-project --home {real}");
    let out = world.cellblock(&format!("{own} -- sh -c 'cat ~/cells/made ~/.netrc; ls ~/.config/cellblock'")).ok();
    assert_eq!(out, "x\n");
    // What makes the host's tools act cannot be made there either.
    let done = world.cellblock(&format!("{own} -- sh -c 'echo evil > ~/.envrc'")).run();
    assert!(done.code() != Some(0) && !world.path("home/.envrc").exists(), "{done}");
    assert!(world.leftovers().is_empty());
}

#[test]
fn an_agent_keeps_its_login_and_history_at_another_home() {
    let world = with_agent();
    world.write("home/cells/keep", "");
    let script = "echo $CLAUDE_CONFIG_DIR; cat \"$CLAUDE_CONFIG_DIR/.credentials.json\"; echo talk >> \"$CLAUDE_CONFIG_DIR/history.jsonl\"; \
                  cat \"$CLAUDE_CONFIG_DIR/history.jsonl\"";
    let first = agent(&world, "", "echo talk >> ~/.claude/history.jsonl; cat ~/.claude/history.jsonl").ok();
    assert_eq!(first, "talk\n");
    for (flags, talk) in [("--home workspace", "talk\n"), ("--home ../cells", "talk\ntalk\n")] {
        let out = agent(&world, flags, script).ok();
        let at = world.path("home/.claude").display().to_string();
        assert_eq!(out, format!("{at}\n{{\"token\":1}}talk\n{talk}"), "one history, wherever the home is");
        let line = format!("run --image host --net none {flags} claude-code -- 'cat $CLAUDE_CONFIG_DIR/CLAUDE.md'");
        let path = format!("{}:/usr/bin:/bin", world.path("home/bin").display());
        let told = world.cellblock(&line).env("PATH", &path).ok();
        assert!(told.contains("SANDBOX.md"), "{told}");
    }
    assert!(!world.project().join(".claude").exists() && !world.path("home/cells/.claude").exists());
    // One that cannot be told where its files are has those of the home.
    world.configure("agents:\n  mine: {programs: [mine], unattended: [], state: [{path: ~/.mine}]}\n");
    let path = format!("{}:/usr/bin:/bin", world.path("home/bin").display());
    let run = |flags: &str, command: &str| {
        world.cellblock(&format!("run --image host {flags} mine -- '{command}'")).env("PATH", &path).run()
    };
    let done = run("--home ../cells", "mkdir ~/.mine && ls -A ~");
    assert!(done.code() == Some(0) && world.path("home/cells/.mine").is_dir(), "{done}");
    done.says("its files, login and history are those in");
    assert!(run("", "ls -A ~/.mine").code() == Some(0), "at the cell's own home it has a folder of its own");
}

/// git in `dir`, on the host.
fn git(world: &World, dir: &Path, line: &str) -> Done {
    world.call(Path::new("/usr/bin/git"), &line.split(' ').collect::<Vec<_>>()).dir(dir).run()
}

/// A repository with a commit, and a linked worktree beside it.
fn repository(world: &World) -> std::path::PathBuf {
    std::fs::rename(world.project().join(".git"), world.path("stand-in")).expect("the world's own");
    world.write("home/.gitconfig", "[user]\n\tname = Ada\n\temail = ada@example.com\n[init]\n\tdefaultBranch = main\n");
    let work = world.path("home/wt");
    for line in ["init -q", "add file", "commit -qm first", &format!("worktree add -q {} -b wt", work.display())] {
        assert_eq!(git(world, &world.project(), line).code(), Some(0), "{line}");
    }
    work
}

#[test]
fn the_project_can_stand_at_another_path() {
    let world = World::new();
    let work = repository(&world);
    std::fs::create_dir(world.project().join("sub")).expect("mkdir");
    let commit = "run --project-path /work -- sh -c 'pwd; echo more >> /work/file; git commit -qam inside; git status --porcelain; git log --format=%s -1'";
    let out = world.cellblock(commit).dir(&world.project().join("sub")).ok();
    assert_eq!(out, "/work/sub\ninside\n");
    assert_eq!(git(&world, &world.project(), "log --format=%an:%s -1").stdout(), "Ada:inside\n");
    let own = world.project().display().to_string();
    let _ = world.cellblock(&format!("run --project-path /work -- ls {own}")).fails(2);
    // A linked worktree: its pointer leads to the repository, which keeps its own path. What is lost is told.
    let done = world.cellblock(commit).dir(&work).run();
    assert!(done.code() == Some(0) && done.stdout() == "/work\ninside\n", "{done}");
    done.says("`git worktree list` shows it as missing");
    assert_eq!(git(&world, &work, "log --format=%s -1").stdout(), "inside\n");
    assert!(git(&world, &world.project(), "worktree list").stdout().contains(&work.display().to_string()));
    // Protected names hold at the other path; what is opened is open there.
    let hook = "run --project-path /work -- sh -c 'echo evil > /work/.git/hooks/pre-commit'";
    let done = world.cellblock(hook).run();
    assert!(done.code() != Some(0) && !world.project().join(".git/hooks/pre-commit").exists(), "{done}");
    world.cellblock(&hook.replace("--project", "--unprotect .git/hooks --project")).ok();
    assert!(world.project().join(".git/hooks/pre-commit").exists());
    world.configure("defaults: {project_path: /work, home: workspace}\n");
    assert_eq!(world.cellblock("run -- sh -c 'cd && pwd'").ok(), "/work\n");
    world.cellblock("run --project-path /proc/x -- true").fails(125).says("the kernel's file systems are there");
}

#[test]
fn where_git_could_not_find_its_way_the_project_stays() {
    let world = World::new();
    let work = repository(&world);
    let run = |dir: &Path| world.cellblock("run --project-path /work -- git status --porcelain").dir(dir).run();
    assert_eq!(run(&work).code(), Some(0), "the probe works");
    let pointer = work.join(".git");
    std::fs::write(&pointer, "gitdir: ../demo/.git/worktrees/wt\n").expect("a relative pointer");
    let done = run(&work);
    assert_eq!(done.code(), Some(125), "{done}");
    done.says("can only stand at its own path").says("../demo/.git/worktrees/wt");
    world.cellblock("run -- git status --porcelain").dir(&work).ok();
    let _ = git(&world, &world.project(), &format!("config core.worktree {}", world.project().display()));
    run(&world.project()).says("core.worktree");
}

#[test]
fn logs_can_go_to_a_folder_that_the_cell_cannot_write() {
    let world = World::new();
    std::fs::create_dir(world.path("home/logs")).expect("mkdir");
    let text = |inside: &str| std::fs::read_to_string(world.path(inside)).unwrap_or_default();
    world.cellblock("run -d --name one -- sh -c 'echo usual; sleep 60'").ok();
    world.wait("its log", || world.cellblock("logs one").run().stdout() == "usual\n");
    world.cellblock("stop -t 0 one").ok();
    let command = "run -d --name one --log-dir ../logs -- sh -c 'echo said; echo x > .git/hooks; wget -q http://denied.example/; sleep 60'";
    world.cellblock(command).ok();
    world.wait("the log there", || text("home/logs/one.log").starts_with("said\n"));
    assert!(world.cellblock("logs one").ok().starts_with("said\n"), "who reads finds it");
    world.wait("the network's audit", || text("home/logs/one.jsonl").contains("\"start\""));
    assert!(world.cellblock("net log one").run().code() == Some(0));
    world.wait("the guard's audit", || text("home/logs/one.guard.jsonl").contains(".git/hooks"));
    world.cellblock("stop -t 0 one").ok();
    assert!(world.cellblock("logs --guard one").ok().contains(".git/hooks"), "also when it has ended");
    // Without the word the next cell of the name writes to the usual place, and leaves those alone.
    world.cellblock("run -d --name one -- sh -c 'echo again; sleep 60'").ok();
    world.wait("its log", || world.cellblock("logs one").run().stdout() == "again\n");
    world.cellblock("stop -t 0 one").ok();
    assert!(text("home/logs/one.log").starts_with("said\n"));
    // What the cell can write is no place for what is said about it.
    world.cellblock("run --log-dir . -- true").fails(125).says("could change what its logs say");
    let shared = "run --share ../logs --log-dir ../logs -- true";
    world.cellblock(shared).fails(125).says("could change what its logs say");
    world.cellblock("run --log-dir ../nowhere -- true").fails(125).says("mkdir -p");
    assert!(!world.path("home/nowhere").exists());
}

#[test]
fn process_ids_of_two_cells_are_seldom_the_same() {
    if std::fs::OpenOptions::new().write(true).open("/proc/sys/kernel/ns_last_pid").is_err() {
        return; // A kernel without checkpoints: they begin at 2, as ever.
    }
    let world = World::new();
    let first = |name: &str, flags: &str| -> u32 {
        let out = world.cellblock(&format!("run --rm --name {name} {flags} -- sh -c 'echo $$; sh -c :; exit 0'")).ok();
        out.trim().parse().expect("a number")
    };
    let (one, two) = (first("one", ""), first("two", ""));
    assert!(one > 500 && two > 500 && one.abs_diff(two) > 100, "{one} {two}");
    assert_eq!(first("one", "--profile strict -u root"), one, "a name has its number");
    // Nobody inside moves it, root inside neither.
    let write = "run -u root -- sh -c 'echo 7 > /proc/sys/kernel/ns_last_pid'";
    assert_ne!(world.cellblock(write).run().code(), Some(0));
    assert_eq!(first("one", "--no-init"), 1, "process 1 is what it is");
}

#[test]
fn an_overlay_lies_over_the_root_and_below_what_is_made_for_the_cell() {
    let world = World::new();
    world.load_alpine();
    let program = |inside: &str| {
        world.write(inside, "#!/bin/sh\necho from the overlay\n");
        std::fs::set_permissions(world.path(inside), std::os::unix::fs::PermissionsExt::from_mode(0o755))
            .expect("chmod");
    };
    program("home/over/usr/bin/whoami");
    program("home/over/usr/local/bin/new-tool");
    world.write("home/over/etc/motd", "hello\n");
    for made in ["hosts", "passwd", "resolv.conf"] {
        world.write(&format!("home/over/etc/{made}"), "evil\n");
    }
    world.write("home/over/tmp/seed", "a seed\n");
    world.write("home/outside/secret", "private");
    std::os::unix::fs::symlink(world.path("home/outside"), world.path("home/over/opt-out")).expect("symlink");
    std::os::unix::fs::symlink("../../../../../../..", world.path("home/over/up")).expect("symlink");
    let before = tree(&world.path("home/over"));
    // Who knows podman's way finds this one.
    world.cellblock("run -v ../over/etc:/y:O -- true").fails(125).says("`--overlay DIR`");
    for image in ["host", "alpine"] {
        let run = |flags: &str, command: &str| {
            world.cellblock(&format!("run --image {image} {flags} -- sh -c '{command}'")).run()
        };
        let with = |command: &str| {
            let done = run("--overlay ../over", command);
            assert_eq!(done.code(), Some(0), "{image}: {command}: {done}");
            done.stdout()
        };
        assert_eq!(
            with("whoami; new-tool; cat /etc/motd /tmp/seed"),
            "from the overlay\nfrom the overlay\nhello\na seed\n"
        );
        assert!(
            !run("", "whoami").stdout().contains("overlay") && run("", "new-tool").code() == Some(127),
            "the probe"
        );
        assert_eq!(with("ls /usr/bin/env; touch /tmp/mine"), "/usr/bin/env\n", "the rest of the image is there");
        assert_eq!(with("cat /etc/hosts /etc/passwd /etc/resolv.conf | grep -c evil || :"), "0\n", "what is made wins");
        // Links lead nowhere but inside.
        assert!(!run("--overlay ../over", "cat /opt-out/secret").stdout().contains("private"), "{image}");
        assert_eq!(with("cd /up && pwd -P"), "/\n");
        assert!(
            run("-v ../outside --overlay ../over", "cat /opt-out/secret").stdout() == "private",
            "as it leads there: {image}"
        );
        // What is changed is the cell's, and the host's folder is as it was.
        let _ = run("--overlay ../over", "echo changed > /etc/motd; rm -f /tmp/seed /usr/bin/whoami; cat /etc/motd");
        assert_eq!(tree(&world.path("home/over")), before, "{image}");
    }
    assert!(world.leftovers().is_empty());
}

/// What is below a folder: links not followed.
fn tree(folder: &Path) -> std::collections::BTreeMap<std::path::PathBuf, String> {
    let mut all = std::collections::BTreeMap::new();
    let mut left = vec![folder.to_owned()];
    while let Some(folder) = left.pop() {
        for entry in std::fs::read_dir(folder).expect("a folder").flatten() {
            let metadata = entry.metadata().expect("metadata");
            let text = std::fs::read_to_string(entry.path()).unwrap_or_default();
            if metadata.is_dir() {
                left.push(entry.path());
            }
            let kept = (metadata.permissions(), metadata.modified().ok());
            all.insert(entry.path(), format!("{kept:?} {text}"));
        }
    }
    all
}

#[test]
fn an_overlay_shows_no_secret_and_nothing_that_the_cell_can_write() {
    let world = World::new();
    world.load_alpine();
    world.write("home/over/etc/motd", "hello\n");
    world.write("home/over/keys/deploy", "private");
    let run = |flags: &str, command: &str| world.cellblock(&format!("run --image alpine {flags} -- sh -c '{command}'"));
    assert_eq!(run("--overlay ../over", "cat /keys/deploy").ok(), "private", "the probe works");
    world.configure("defaults: {secret_paths: [~/over/keys], overlay: ~/over}\n");
    assert_eq!(run("", "cat /etc/motd; ls /keys").ok(), "hello\n");
    world.configure("");
    run("--overlay ../../home", "true").fails(125).says("your whole home directory");
    run("--overlay /usr", "true").fails(125).says("folder of the system");
    run("--overlay .", "true").fails(125).says("must not change while it is mounted");
    run("--overlay ../none", "true").fails(125).says("mkdir -p");
    std::os::unix::fs::symlink("/tmp", world.path("home/over/run")).expect("symlink");
    run("--overlay ../over", "true").fails(125).says("would hide the root's");
    std::fs::remove_file(world.path("home/over/run")).expect("unlink");
    // A device in it is none inside, and a whiteout hides what is below and no more.
    let over = world.path("home/over").display().to_string();
    let mknod = |line: &str| world.call(Path::new("/usr/bin/mknod"), &line.split(' ').collect::<Vec<_>>()).run().code();
    if mknod(&format!("{over}/etc/issue c 0 0")) == Some(0) {
        let _ = run("--overlay ../over", "cat /etc/issue").fails(1);
        run("", "cat /etc/issue").ok();
        assert_eq!(run("--overlay ../over", "cat /etc/motd").ok(), "hello\n");
    }
    if mknod(&format!("-m 666 {over}/null c 1 3")) == Some(0) {
        let done = run("--overlay ../over", "echo x > /null").run();
        assert_ne!(done.code(), Some(0), "{done}");
        run("", "echo x > /dev/null").ok();
    }
}

/// A link in a repository is made by whoever writes there, and decides nothing of what a cell gets.
#[test]
fn no_link_in_a_repository_leads_a_mount_out_of_it() {
    let world = World::new();
    world.write("home/.ssh/id", "a secret");
    world.write("home/p2/.git/HEAD", "ref: refs/heads/main\n");
    world.write("home/p2/data/x", "inner");
    let at = |path: &str| world.path(path).display().to_string();
    for (link, to) in [("home/demo/h", "../.ssh"), ("home/p2/h", "../.ssh"), ("home/p2/inner", "data")] {
        std::os::unix::fs::symlink(to, world.path(link)).expect("a link");
    }
    for (flag, path) in
        [("-v", "demo/h"), ("--home", "demo/h"), ("--share", "p2/h"), ("--log-dir", "p2/h"), ("--overlay", "p2/h")]
    {
        let line = format!("run --image host --net none {flag} {} -- ls", at(&format!("home/{path}")));
        world.cellblock(&line).fails(125).says("out of the project or repository it is in");
    }
    world.configure("defaults:\n  home: ./h\n  project_path: /w\n");
    world.cellblock("run --image host --net none -- ls").fails(125).says("out of the project or repository it is in");
    assert_eq!(std::fs::read_dir(world.path("home/.ssh")).expect("there").count(), 1);
    world.configure("");
    // The twin: within the repository it leads where it leads.
    let line = format!("run --image host --net none -v {}:/inner -- cat /inner/x", at("home/p2/inner"));
    assert_eq!(world.cellblock(&line).ok(), "inner");
}
