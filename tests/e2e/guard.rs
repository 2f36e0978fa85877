//! The guard: names that must not be made or changed in a cell's folders, whether they exist or not, and everything else as without it.

use std::collections::BTreeMap;
use std::path::Path;

use cellblock_tests::World;

const TWIN: &str = include_str!("guard/twin.py");
const ATTACK: &str = include_str!("guard/attack.py");
const MEANWHILE: &str = include_str!("guard/meanwhile.py");

/// A world whose project has a script in it.
fn world(script: &str) -> World {
    let world = World::new();
    world.write("home/demo/t.py", script);
    world
}

/// A project with repositories in it as a host would have them.
fn attacked() -> World {
    let world = world(ATTACK);
    for (path, text) in [
        (".git/hooks/pre-commit.sample", ""),
        (".git/config", "[core]\n"),
        ("nested/.git/HEAD", "ref: refs/heads/main\n"),
        ("nested/.git/config", "[core]\n"),
        ("nested/.git/objects/x", ""),
        ("nested/.git/refs/x", ""),
        ("nested/.git/hooks/there", "#!/bin/sh\n"),
        ("nested/.git/modules/m/n/HEAD", ""),
        ("nested/.envrc", "export A=1\n"),
        ("plain/there", "content\n"),
        ("deep/er/and/deeper/x", ""),
        (".claude/notes", ""),
        ("bare/HEAD", "ref: refs/heads/main\n"),
        ("bare/objects/x", ""),
        ("bare/refs/x", ""),
        ("bare/config", "[core]\n"),
        ("bare/hooks/update.sample", ""),
        ("almost/objects/x", ""),
        ("almost/refs/x", ""),
    ] {
        world.write(&format!("home/demo/{path}"), text);
    }
    // Under root the cell's ids are shown as those of the files' owner anyway.
    world
}

/// Every path below `folder` with its contents.
fn snapshot(folder: &Path) -> BTreeMap<std::path::PathBuf, Vec<u8>> {
    let mut all = BTreeMap::new();
    let mut left = vec![folder.to_owned()];
    while let Some(path) = left.pop() {
        for entry in std::fs::read_dir(&path).expect("readable").flatten() {
            let path = entry.path();
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                left.push(path.clone());
            }
            all.insert(path.clone(), std::fs::read(&path).unwrap_or_default());
        }
    }
    all
}

#[test]
fn behind_the_guard_calls_do_what_they_do_without_it() {
    let world = world(TWIN);
    let mut said = Vec::new();
    for flag in ["--no-guard", ""] {
        let line =
            format!("run {flag} --image host --net none -- sh -c 'mkdir w && python3 t.py w; r=$?; rm -rf w; exit $r'");
        said.push(world.cellblock(&line).ok());
    }
    let lines: Vec<Vec<&str>> = said.iter().map(|text| text.lines().collect()).collect();
    assert!(lines[0].len() > 500, "{}", said[0]);
    for (without, with) in lines[0].iter().zip(&lines[1]) {
        assert_eq!(without, with);
    }
    assert_eq!(lines[0].len(), lines[1].len());
}

#[test]
fn no_call_makes_or_changes_a_protected_name() {
    let world = attacked();
    let before = snapshot(&world.path("home/demo"));
    let out = world.cellblock("run --image host --net none -- python3 t.py making changing").ok();
    assert_eq!(out, "bad []\nlost []\ntried True\n");
    let mut after = snapshot(&world.path("home/demo"));
    for free in ["source", "alink", "folder", "plain/x"] {
        after.remove(&world.path("home/demo").join(free));
    }
    assert_eq!(before.keys().collect::<Vec<_>>(), after.keys().collect::<Vec<_>>());
    let changed: Vec<_> = before.iter().filter(|(path, text)| after.get(*path) != Some(text)).collect();
    let free: Vec<_> = changed.iter().filter(|(path, _)| !path.ends_with("plain/there")).collect();
    assert!(free.is_empty(), "{free:?}");
    // The same script has a lot to show where nothing is guarded.
    let out = world.cellblock("run --no-guard --image host --net none -- python3 t.py making").ok();
    for name in [
        "'openat', 'plain/.git'",
        "'rename', 'deep/er/and/deeper/.git'",
        "'mkdir', 'plain/.GIT'",
        "'creat', 'plain/.envrc'",
    ] {
        assert!(out.contains(name), "{name}: {out}");
    }
}

#[test]
fn a_path_that_changes_after_it_was_read_opens_nothing() {
    let world = attacked();
    let out = world.cellblock("run --image host --net none -- python3 t.py race").ok();
    assert_eq!(out, "bad []\nlost []\ntried True\n");
    for path in ["plain/race/.git", "nested/.git/commondir", "nested/.git/config.worktree"] {
        assert!(!world.path("home/demo").join(path).exists(), "{path}");
    }
}

#[test]
fn a_folder_that_another_moves_is_judged_by_where_it_is() {
    let world = attacked();
    let out = world.cellblock("run --image host --net none -- python3 t.py moving handed").ok();
    assert_eq!(out, "bad []\nlost []\ntried True\n");
    let mode = std::fs::metadata(world.path("home/demo/nested/.envrc")).expect("there").permissions();
    assert_eq!(std::os::unix::fs::PermissionsExt::mode(&mode) & 0o111, 0);
}

#[test]
fn what_others_make_and_remove_meanwhile_is_never_told_to_be_read_only() {
    let world = world(MEANWHILE);
    for flag in ["--no-guard", ""] {
        let out = world.cellblock(&format!("run {flag} --image host --net none -- python3 t.py 0.5")).ok();
        assert_eq!(out, "odd []\ndull []\n", "{flag}");
    }
}

#[test]
fn whoever_enters_is_behind_the_guard_too() {
    let world = World::new();
    world.cellblock("run -d --rm --name g --image host --net none -- sleep 60").ok();
    let out = world.cellblock("exec g -- sh -c 'mkdir x && mv x y && touch y/f && mkdir y/.git 2>&1; ls -A y'").ok();
    assert!(out.contains("Operation not permitted") && out.ends_with("f\n"), "{out}");
    world.cellblock("exec g -- sh -c 'echo x > .envrc'").fails(2).says("Operation not permitted");
    world.cellblock("stop g").ok();
    assert!(!world.path("home/demo/.envrc").exists() && world.path("home/demo/y/f").exists());
    let log = world.cellblock("logs --guard g").ok();
    assert!(log.contains("/y/.git\"") && log.contains("/.envrc\""), "{log}");
}

#[test]
fn nobody_inside_stands_on_the_writable_mount() {
    // Neither by a working directory nor by a descriptor of a folder: a look at the mount of each process's.
    let script = "import os\n\
        for pid in [p for p in os.listdir('/proc') if p.isdigit()]:\n\
        \x20   try: assert os.statvfs(f'/proc/{pid}/cwd').f_flag & os.ST_RDONLY, pid\n\
        \x20   except PermissionError: assert pid == '1'\n\
        f = open('w', 'w')\n\
        assert not os.fstatvfs(f.fileno()).f_flag & os.ST_RDONLY\n\
        for flags in (os.O_RDONLY, os.O_PATH, os.O_RDONLY | os.O_DIRECTORY):\n\
        \x20   assert os.fstatvfs(os.open('.', flags)).f_flag & os.ST_RDONLY\n\
        for flags in (os.O_CREAT, os.O_CREAT | os.O_DIRECTORY, os.O_TRUNC, os.O_TRUNC | os.O_DIRECTORY, os.O_WRONLY | os.O_DIRECTORY, os.O_RDWR, 3):\n\
        \x20   for name in ('.', 'd', 'd/', '/proc/self/cwd', '/proc/self/cwd/', '/proc/self/fd/%d' % os.open('.', os.O_PATH)):\n\
        \x20       try: assert os.fstatvfs(os.open(name, flags)).f_flag & os.ST_RDONLY, (name, flags)\n\
        \x20       except OSError: pass\n\
        print('fine')\n";
    for init in ["--init", "--no-init"] {
        let world = world(script);
        world.write("home/demo/d/x", "");
        let out = world.cellblock(&format!("run {init} --image host --net none -- python3 t.py")).ok();
        assert_eq!(out, "fine\n", "{init}");
    }
}

#[test]
fn the_cell_ends_with_its_guard() {
    let world = World::new();
    world
        .cellblock("run -d --rm --name g --image host --net none -- sh -c 'while sleep 0.1; do date > tick; done'")
        .ok();
    world.wait("the first tick", || world.path("home/demo/tick").exists());
    let inspect = world.cellblock("inspect g").ok();
    let supervisor = inspect.split("\"supervisor\":").nth(1).expect("its id");
    let supervisor: String = supervisor.chars().skip_while(|c| *c == ' ').take_while(char::is_ascii_digit).collect();
    let guard = std::fs::read_dir("/proc").expect("proc").flatten().find_map(|entry| {
        let stat = std::fs::read_to_string(entry.path().join("stat")).ok()?;
        let (head, rest) = stat.rsplit_once(')')?;
        let parent = rest.split_whitespace().nth(1)?;
        (head.ends_with("(cellblock-guard") && parent == supervisor).then(|| entry.file_name())
    });
    let guard: i32 = guard.expect("a guard").to_str().expect("a number").parse().expect("a number");
    let guard = rustix::process::Pid::from_raw(guard).expect("a process");
    rustix::process::kill_process(guard, rustix::process::Signal::KILL).expect("ours");
    world.wait("the end", || !world.cellblock("status").ok().contains("g "));
    assert_eq!(world.leftovers(), Vec::<std::path::PathBuf>::new());
}

#[test]
fn shells_and_tools_of_another_libc_work() {
    let world = World::new();
    world.load_alpine();
    let out = world
        .cellblock(
            "run --image alpine --net none -- sh -c 'set -e; mkdir -p a/b; echo one > a/b/f; echo two >> a/b/f; sed -i s/one/1/ a/b/f; \
             cp -a a c; ln -s b c/l; ln c/b/f c/hard; mv c d; tar cf t.tar d; rm -rf d; tar xf t.tar; cat d/l/f d/hard; touch -d 2001-02-03 d; \
             chmod 700 d; stat -c %a d; (echo out > /dev/null) ; mkfifo p; (cat p &) ; echo piped > p; rm p; dd if=/dev/zero of=z bs=1k count=3 2>/dev/null; \
             truncate -s 5 z; wc -c < z; test -w z; ! mkdir d/.git 2>/dev/null; ! ln -s /tmp .vscode 2>/dev/null; echo done'",
        )
        .ok();
    let mut words: Vec<&str> = out.split_whitespace().collect();
    words.retain(|word| *word != "piped");
    assert_eq!(words, ["1", "two", "1", "two", "700", "5", "done"], "{out}");
}

#[test]
fn git_works_and_a_clone_elsewhere_is_free() {
    let world = World::new();
    world.call(Path::new("rm"), &["-r", ".git"]).ok();
    let git = |args: &[&str]| world.call(Path::new("git"), args).ok();
    git(&["init", "-q", "-b", "main", "."]);
    git(&["add", "file"]);
    git(&["-c", "user.name=x", "-c", "user.email=x@x", "commit", "-qm", "one"]);
    let out = world
        .cellblock(
            "run --image host --net none -e GIT_AUTHOR_NAME=x -e GIT_AUTHOR_EMAIL=x@x -e GIT_COMMITTER_NAME=x -e GIT_COMMITTER_EMAIL=x@x \
             -e GIT_CONFIG_COUNT=1 -e GIT_CONFIG_KEY_0=safe.directory -e GIT_CONFIG_VALUE_0=* -- sh -c 'set -e; \
             for i in $(seq 200); do echo $i > n$i; done; git add .; git commit -qm two; git switch -q -c other; rm n1; git commit -qam three; \
             git switch -q main; git merge -q other; git stash list; echo x >> file; git stash -q; git stash pop -q; git checkout -q .; \
             git gc -q; git status --short; git log --format=%s; git clone -q . /tmp/clone; cd /tmp/clone; git config a.b c; \
             echo free > .git/hooks/pre-commit; git -C /tmp init -q fresh; echo done; cd -; ! git init -q inner 2>/dev/null; ! git config a.b c 2>/dev/null; \
             ! git clone -q . inner2 2>/dev/null; echo end'",
        )
        .ok();
    assert!(out.contains("three\ntwo\none\ndone\n") && out.ends_with("end\n"), "{out}");
    assert!(!world.path("home/demo/inner/.git").exists());
}

#[test]
fn it_can_be_switched_off_by_the_person_only() {
    let world = World::new();
    let make = |flags: &str| format!("run {flags} --image host --net none -- sh -c 'mkdir -p sub/.git && echo made'");
    world.cellblock(&make("")).fails(1).says("Operation not permitted");
    let done = world.cellblock(&make("--no-guard")).run();
    assert_eq!(done.stdout(), "made\n", "{done}");
    done.says("OFF: it can make hooks");
    world.call(Path::new("rm"), &["-r", "sub"]).ok();
    world.configure("projects:\n  demo:\n    path: ~/demo\n    guard: false\n");
    world.cellblock(&make("")).ok();
    let shown = world.cellblock("run --dry-run --explain --image host -- true").ok();
    assert!(
        shown.lines().any(|line| line.starts_with("guard") && line.contains("false") && line.contains("config.yaml:4")),
        "{shown}"
    );
}

/// The rows `tree` of the list, a path that each means.
fn rows() -> Vec<String> {
    let list = include_str!("../../cli/data/protected.yaml");
    let rows = list
        .lines()
        .skip_while(|line| *line != "tree:")
        .skip(1)
        .take_while(|line| !line.starts_with(|c: char| c.is_alphabetic()));
    let names = rows.filter_map(|line| line.trim().trim_start_matches('"').split_once(": "));
    let names = names.filter(|(name, _)| !name.starts_with('#'));
    names.map(|(name, _)| name.trim_end_matches('"').replace("**/", "").replace('*', ".any")).collect()
}

/// Each row, whether or not something is there already, in the project and in a repository in it.
#[test]
fn every_row_of_the_list_holds() {
    let rows = rows();
    for name in [
        ".envrc",
        ".vscode",
        ".idea",
        ".claude/settings.any.json",
        ".claude/commands",
        ".claude/agents",
        ".claude/hooks",
        ".mcp.json",
        ".cursor",
        ".codex",
        ".devcontainer",
        ".husky",
        ".pre-commit-config.yaml",
        ".gitmodules",
    ] {
        assert!(rows.iter().any(|row| row == name), "{name} in {rows:?}");
    }
    let script = format!(
        "for d in ./ nested/; do for row in {}; do p=$d$row; mkdir -p ${{p%/*}}; echo evil >$p; echo evil >$d/n; mv -f $d/n $p; rm -f $d/n; mkdir $p
         ln -s /tmp $p; rm -f $p; mv $p $d/away; [ -e $p ] || mkdir -p $p; done; done 2>/dev/null; true",
        rows.join(" ")
    );
    let world = |there: bool| {
        let world = World::new();
        world.write("home/demo/nested/.git/HEAD", "ref: refs/heads/main\n");
        for row in rows.iter().filter(|_| there) {
            for top in ["home/demo", "home/demo/nested"] {
                world.write(&format!("{top}/{row}"), "mine");
            }
        }
        world
    };
    let paths = || {
        ["home/demo", "home/demo/nested"].into_iter().flat_map(|top| rows.iter().map(move |row| format!("{top}/{row}")))
    };
    let run = |world: &World, flags: &str| {
        world.cellblock(&format!("run {flags} --image host --net none -- sh -c '{script}'")).ok();
    };
    let there = world(true);
    run(&there, "");
    for path in paths() {
        assert_eq!(std::fs::read_to_string(there.path(&path)).ok().as_deref(), Some("mine"), "{path}");
    }
    let absent = world(false);
    run(&absent, "");
    let made: Vec<String> = paths().filter(|path| absent.path(path).symlink_metadata().is_ok()).collect();
    assert!(made.is_empty(), "{made:?}");
    // The probe works: unprotected, each is made and replaced.
    for open in [there, absent] {
        run(&open, "--protect off");
        let left: Vec<String> =
            paths().filter(|path| std::fs::read_to_string(open.path(path)).is_ok_and(|text| text == "mine")).collect();
        assert!(left.is_empty(), "{left:?}");
        assert!(paths().all(|path| open.path(&path).exists()));
    }
}
