//! git's configuration inside a cell: what git remembers about branches is kept, for the host too, and nothing else can be changed (row C6).

use cellblock_tests::is_root;
use cellblock_tests::tracer::Victim;

use crate::git_matrix::{Repository, git};

/// What agents do most, where the remote's branches are known.
const FOLLOWING: &str = r#"
set -e
git fetch -q origin '+refs/heads/*:refs/remotes/origin/*'
git switch -q -c 'topic/#1'; git commit -q --allow-empty -m topic
git push -q -u origin 'topic/#1' 2>&1
[ "$(git rev-parse --abbrev-ref @{u})" = 'origin/topic/#1' ]
git push -q
git switch -q feature 2>&1
[ "$(git config branch.feature.merge)" = refs/heads/feature ]
git branch -m feature renamed
[ "$(git config branch.renamed.merge)" = refs/heads/feature ]
[ -z "$(git config branch.feature.merge)" ]
git checkout -q -b gone origin/feature; git pull -q --rebase
git branch -q --set-upstream-to=renamed; git branch --unset-upstream; git branch -q -u origin/feature
git switch -q renamed; git branch -q -D gone 2>&1
[ -z "$(git config branch.gone.merge)" ]
git config branch.renamed.rebase true
git status -sb | head -n1
"#;

#[test]
fn what_branches_follow_is_remembered() {
    for layout in ["plain", "linked", "nested", "submodule", "separate", "linked-folder", "linked-worktree-config"] {
        let repository = Repository::new(layout);
        let before = git(&repository.world, &repository.root, "config --list --local").ok();
        let done = repository.inside("", FOLLOWING);
        assert_eq!(done.code(), Some(0), "{layout}: {done}");
        assert_eq!(done.stdout(), "## renamed...origin/feature\n", "{layout}");
        assert!(!done.stderr().contains("error: ") && !done.stderr().contains("fatal: "), "{layout}: {done}");
        // The host's git knows it, and there is nothing else that is new.
        let after = git(&repository.world, &repository.root, "config --list --local").ok();
        let new: Vec<&str> = after.lines().filter(|line| !before.lines().any(|known| known == *line)).collect();
        let wanted = [
            "branch.topic/#1.remote=origin",
            "branch.topic/#1.merge=refs/heads/topic/#1",
            "branch.renamed.remote=origin",
            "branch.renamed.merge=refs/heads/feature",
            "branch.renamed.rebase=true",
        ];
        assert_eq!(new, wanted, "{layout}");
        assert!(!repository.common.join("config.lock").exists());
        assert!(!repository.host_works(), "{layout}");
        // And it still can write it.
        git(&repository.world, &repository.root, "branch --unset-upstream").ok();
        git(&repository.world, &repository.root, "config core.pager cat").ok();
    }
}

#[test]
fn without_a_guard_nothing_is_remembered_and_branches_can_be_switched_to() {
    let repository = Repository::new("plain");
    let before = std::fs::read(repository.common.join("config")).expect("config");
    let done = repository
        .inside("--no-guard", "git switch -q feature; git push -q -u origin HEAD; git config branch.feature.rebase true || git branch --show-current");
    assert_eq!(done.stdout(), "feature\n", "{done}");
    assert_eq!(std::fs::read(repository.common.join("config")).expect("config"), before);
    // Nor has a bundle one.
    let words = ["bundle", "--image", "host", "-o", "../bundle", "--", "true"];
    let done = repository.world.call(&cellblock_tests::cellblock(), &words).dir(&repository.root).run();
    assert_eq!(done.code(), Some(0), "{done}");
    let text = std::fs::read_to_string(repository.world.path("home/bundle/config.json")).expect("a bundle");
    let config = format!("\"destination\": \"{}\"", repository.common.join("config").display());
    assert!(text.contains("branch.autoSetupMerge") && text.contains(&config), "{text}");
}

/// Commands that each would have the host's git run a program, or push somewhere else; all fail.
const WORDS: &[&str] = &[
    "git config core.fsmonitor 'touch $C; false'",
    "git config core.pager 'touch $C'",
    "git config alias.status '!touch $C'",
    "git config include.path $PWD/evil",
    "git config user.name Eve",
    "git config branch.main.remote $PWD/evil.git",
    "git config branch.main.remote evil",
    "git config branch.main.pushRemote origin",
    "git config branch.main.mergeOptions --no-verify",
    "git config remote.pushDefault evil",
    "git config remote.origin.uploadpack 'touch $C'",
    "git config branch.main.merge evil:evil",
    "git remote add evil $PWD/evil.git",
    "git remote set-url origin $PWD/evil.git",
    "git remote rename origin evil",
    "git config --remove-section core",
    "git config --rename-section branch.main core",
    "git config -f .git/config.worktree core.fsmonitor 'touch $C; false'",
    "mkdir -p .git/remotes; echo URL: $PWD/evil.git > .git/remotes/origin",
    "mkdir -p .git/branches; echo $PWD/evil.git > .git/branches/origin",
    "cp .git/config .git/config.lock && mv -f .git/config.lock .git/x",
    "cp .git/config .git/x; mv -f .git/x .git/config.lock",
    "cp .git/config .git/x; mv -f .git/x .git/config",
    "ln .git/config .git/y",
    "ln -s /tmp/x .git/config.lock",
    "mkdir .git/config.lock",
    "truncate -s 0 .git/config",
    "chmod 600 .git/config",
];

#[test]
fn nothing_else_of_the_configuration_is_changed() {
    let repository = Repository::new("plain");
    let config = || std::fs::read(repository.common.join("config")).expect("config");
    let before = config();
    let canary = repository.world.path("home/canary").display().to_string();
    let script: String =
        WORDS.iter().map(|words| format!("( {words} ) 2>/dev/null && echo \"done: {words}\"\n")).collect();
    let done = repository
        .inside(&format!("-e C={canary}"), &format!("{script}git config branch.main.rebase true && echo twin"));
    assert_eq!(done.stdout(), "twin\n", "{done}");
    assert_eq!(config(), [before.as_slice(), b"\trebase = true\n"].concat());
    for left in ["config.lock", "config.worktree", "remotes/origin", "branches/origin", "y"] {
        assert!(!repository.common.join(left).exists(), "{left}");
    }
    let _ = std::fs::remove_file(repository.common.join("x"));
    assert!(!repository.host_works(), "{done}");
    // A remote of the cell's own, and a name.
    let own = "git config --global remote.up.url $REMOTE; git config --global remote.up.fetch '+refs/heads/*:refs/remotes/up/*'; git fetch -q up; \
               git switch -q --no-track -c up up/feature && git config --global user.name Eve && git log -1 --format=%s up/feature; git -c user.name=E config user.name";
    let done = repository.inside("", own);
    assert_eq!(done.stdout(), "feature\nE\n", "{done}");
    // Opened by the person, all of it can.
    let done = repository
        .inside("--unprotect .git/config", "git config user.name Eve && git remote add evil https://evil.example/x");
    assert_eq!(done.code(), Some(0), "{done}");
    assert_eq!(git(&repository.world, &repository.root, "config user.name").ok(), "Eve\n");
}

/// A branch that the person pushes elsewhere than it follows, and one without such words.
const PUSHED: &str = r#"
git branch -q theirs; git branch -q plain; git branch -q -u origin/main plain 2>/dev/null
for step in 'git config --remove-section branch.theirs' 'git config --unset branch.theirs.pushRemote' \
    'git config --rename-section branch.theirs branch.other'; do $step 2>/dev/null && echo "done: $step"; done
# It goes, and comes back with what it had.
git branch -q -D theirs 2>/tmp/said || echo 'cannot be removed'
grep -qi 'update of config-file failed' /tmp/said || cat /tmp/said
git rev-parse -q --verify theirs && echo 'still there'
git switch -q -c theirs; git push -q -u origin theirs; git config branch.theirs.rebase true
git config branch.theirs.pushRemote; git config branch.theirs.merge
# The twin: what is remembered goes with its branch, and moves with it.
git branch -m plain moved && git config branch.moved.merge
git branch -q -D moved && git config branch.moved.merge || echo gone
"#;

#[test]
fn where_the_person_pushes_a_branch_outlasts_the_branch() {
    let repository = Repository::new("plain");
    for words in ["config branch.theirs.pushRemote fork", "config remote.fork.url ../fork.git"] {
        git(&repository.world, &repository.root, words).ok();
    }
    let done = repository.inside("", PUSHED);
    assert_eq!(done.stdout(), "fork\nrefs/heads/theirs\nrefs/heads/main\ngone\n", "{done}");
    assert_eq!(git(&repository.world, &repository.root, "config branch.theirs.pushRemote").ok(), "fork\n");
    let log = repository.world.cellblock("logs --guard demo-main-sh").ok();
    assert!(log.contains("its section cannot"), "{log}");
}

/// What `git config` does, and then everything that could change the file after it was looked at.
const HELD: &str = r#"
import os, sys, threading
git = sys.argv[1]
lock, config = git + '/config.lock', git + '/config'
old = open(config, 'rb').read()
good = old + b'[branch "held"]\n\tremote = origin\n'
evil = old + b'[core]\n\tfsmonitor = "touch %s; false"\n' % sys.argv[2].encode()
def begin(): return os.open(lock, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
def tries(call, *args):
    try: call(*args)
    except OSError as error: return error.errno
    return 0
# The twin.
fd = begin(); os.write(fd, good); os.rename(lock, config)
assert open(config, 'rb').read() == good
# Held open, written to after it has become the configuration.
os.pwrite(fd, evil, 0); os.ftruncate(fd, len(evil)); os.close(fd)
assert open(config, 'rb').read() == good
fd = begin(); os.write(fd, old); os.rename(lock, config); os.close(fd)
# Anything else.
fd = begin(); os.write(fd, evil)
assert tries(os.rename, lock, config) == 1
assert tries(os.link, '/proc/self/fd/%d' % fd, config) and tries(os.link, lock, git + '/x') and tries(os.unlink, lock) == 2
os.close(fd)
fd = begin(); os.write(fd, b'x' * (1 << 20)); assert tries(os.rename, lock, config) == 1; os.close(fd)
# Given up, and begun where somebody else has changed the file.
fd = begin(); os.unlink(lock); assert tries(os.rename, lock, config) == 2
one = begin(); os.write(one, old)
def other():
    fd = begin(); os.write(fd, good); os.rename(lock, config); os.close(fd)
thread = threading.Thread(target=other); thread.start(); thread.join()
assert tries(os.rename, lock, config) == 16
fd = begin(); os.write(fd, old); os.rename(lock, config); os.close(fd)
# Written all the time while it is looked at.
stop = []
def race(fd):
    while not stop:
        os.pwrite(fd, evil, 0); os.ftruncate(fd, len(evil)); os.ftruncate(fd, 0); os.pwrite(fd, old, 0)
seen = set()
for _ in range(300):
    fd = begin(); stop.clear()
    thread = threading.Thread(target=race, args=(fd,)); thread.start()
    seen.add(tries(os.rename, lock, config))
    stop.append(1); thread.join(); os.close(fd)
    assert b'fsmonitor' not in open(config, 'rb').read()
assert seen <= {0, 1}, seen
print('fine')
"#;

#[test]
fn what_was_looked_at_is_what_becomes_the_configuration() {
    for layout in ["plain", "linked"] {
        let repository = Repository::new(layout);
        let canary = repository.world.path("home/canary").display().to_string();
        std::fs::write(repository.root.join("t.py"), HELD).expect("write");
        let before = std::fs::metadata(repository.common.join("config")).expect("config").permissions();
        let done = repository.inside("", &format!("python3 t.py {} {canary}; rm t.py", repository.common.display()));
        assert_eq!(done.stdout(), "fine\n", "{layout}: {done}");
        assert_eq!(std::fs::metadata(repository.common.join("config")).expect("config").permissions(), before);
        assert!(!repository.common.join("config.lock").exists());
        assert!(!repository.host_works(), "{layout}");
    }
}

#[test]
fn what_git_on_the_host_is_writing_is_left_alone() {
    let repository = Repository::new("plain");
    for file in ["config.lock", "config.worktree.lock"] {
        let lock = repository.common.join(file);
        std::fs::write(&lock, "the host's\n").expect("write");
        let script = format!(
            "cd .git; f={file}; echo evil >> $f; echo evil > x; mv -f x $f; mv $f y; rm -f $f x; ln $f z; chmod 777 $f; truncate -s 0 $f; git config branch.main.rebase true"
        );
        let done = repository.inside("", &script);
        assert_eq!(std::fs::read_to_string(&lock).expect("there"), "the host's\n", "{done}");
        std::fs::remove_file(&lock).expect("still the host's");
        assert!(!repository.common.join("y").exists() && !repository.common.join("z").exists());
    }
    // The twin.
    assert_eq!(repository.inside("", "git config branch.main.rebase false").code(), Some(0));
}

/// Writes it all the time, as fast as it can.
const WRITING: &str = r#"
import os
lock, config = '.git/config.lock', '.git/config'
old = open(config, 'rb').read()
text = [old + b'[branch "x"]\n\trebase = %s\n' % value for value in (b'true', b'false')]
while True:
    text.reverse()
    try:
        fd = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666); os.write(fd, text[0]); os.close(fd)
        os.rename(lock, config)
    except OSError: text = [open(config, 'rb').read()] * 2
"#;

/// A repository with such a program in it.
fn written() -> Repository {
    let repository = Repository::new("plain");
    std::fs::write(repository.root.join("t.py"), WRITING).expect("write");
    repository
}

#[test]
fn a_cell_that_ends_while_it_writes_leaves_no_lock() {
    let repository = written();
    // It takes a while to look at.
    let config = repository.common.join("config");
    let text = std::fs::read_to_string(&config).expect("config") + &"\t# a comment\n".repeat(18_000);
    std::fs::write(&config, text).expect("write");
    for round in 0..15 {
        let done = repository.inside("", &format!("python3 t.py & sleep 0.{:03}", 200 + 7 * round));
        assert_eq!(done.code(), Some(0), "{done}");
        assert!(!repository.common.join("config.lock").exists(), "round {round}");
    }
    assert_eq!(repository.git("config branch.x.rebase").code(), Some(0), "the twin: it has written");
    assert_eq!(repository.git("config core.pager cat").code(), Some(0));
}

/// Killed when it has the lock and is about to rename it: alone, so that its supervisor takes the lock away, or with that, so that the next
/// command does.
#[test]
fn a_guard_that_is_killed_while_it_writes_leaves_no_lock() {
    let repository = written();
    let lock = repository.common.join("config.lock");
    let ids = if is_root() { "" } else { "--userns single" };
    let line = format!("run --net none --image host --project-path /work {ids} -- python3 t.py");
    for victim in [Victim::Caller, Victim::Both] {
        let cell = repository.world.cellblock(&line).dir(&repository.root);
        let traced = cell.killed_before("cellblock-guard", RENAMES, || lock.exists(), victim);
        assert_eq!(traced.killed.as_deref(), Some("cellblock-guard"));
        if victim == Victim::Both {
            assert!(lock.exists(), "the twin: nobody has taken it away yet");
            assert_eq!(repository.world.cellblock("status --json").ok().trim(), "[]");
        }
        assert!(!lock.exists(), "{victim:?}");
        assert_eq!(repository.git("config core.pager cat").code(), Some(0));
    }
    // The host's own stays.
    std::fs::write(&lock, "the host's\n").expect("write");
    assert_eq!(repository.inside("", "true").code(), Some(0));
    assert_eq!(std::fs::read_to_string(&lock).expect("there"), "the host's\n");
}

/// `renameat` and `renameat2` by their numbers.
#[cfg(target_arch = "x86_64")]
const RENAMES: &[u64] = &[264, 316];
#[cfg(target_arch = "aarch64")]
const RENAMES: &[u64] = &[38, 276];

#[test]
fn a_cell_that_writes_all_the_time_leaves_room_for_the_host() {
    let repository = written();
    std::thread::scope(|scope| {
        let cell = scope.spawn(|| repository.inside("", "python3 t.py & while [ ! -e enough ]; do sleep 0.1; done"));
        repository.world.wait("a change", || repository.git("config branch.x.rebase").code() == Some(0));
        let fails = |round: &usize| repository.git(&format!("config core.pager p{round}")).code() != Some(0);
        let failed = (0..50).filter(fails).count();
        assert!(!cell.is_finished(), "it was written at the same time");
        std::fs::write(repository.root.join("enough"), "").expect("write");
        assert!(failed <= 2, "{failed} of 50");
        assert_eq!(cell.join().expect("a cell").code(), Some(0));
    });
}
