//! What is taken over, what is left, and what a cell cannot bring about.

#![expect(clippy::disallowed_methods, reason = "a tree of the test's own")]

use std::fs;
use std::os::unix::fs::symlink;

use super::super::open_folder;
use super::*;

struct World {
    dir: tempfile::TempDir,
    links: Links,
    seen: Seen,
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let base = dir.path().canonicalize().expect("canonical");
        for folder in ["home/.agent", "home/dotfiles", "home/.ssh", "own", "outside"] {
            fs::create_dir_all(base.join(folder)).expect("mkdir");
        }
        let links = Links::new(vec![base.join("home")], vec![base.join("home/.ssh")]);
        Self { dir, links, seen: Seen::default() }
    }

    fn path(&self, path: &str) -> PathBuf {
        self.dir.path().canonicalize().expect("canonical").join(path)
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().expect("a parent")).expect("mkdir");
        // A new file, as most programs write: so that the clock's grain does not matter.
        let new = path.with_file_name("new");
        fs::write(&new, text).expect("write");
        fs::rename(new, path).expect("rename");
    }

    fn read(&self, path: &str) -> Option<String> {
        fs::read_to_string(self.path(path)).ok()
    }

    fn take(&mut self, follow: Follow) -> Vec<String> {
        let hidden = [PathBuf::from("projects"), "deep/history".into(), "*.sqlite-wal".into()];
        let taking = Taking { hidden: &hidden, owner: Owner(None), links: &self.links, follow };
        let (host, own) = (open_folder(&self.path("home/.agent")), open_folder(&self.path("own")));
        let (host, own) = (host.expect("host"), own.expect("own"));
        let top = self.path("home/.agent");
        let taken = take(host.as_fd(), &top, own.as_fd(), &self.seen, taking, false).expect("taken");
        self.seen = Seen::from_bytes(&taken.seen.to_bytes());
        assert_eq!(self.seen, taken.seen);
        taken.problems
    }
}

#[test]
fn everything_but_history_is_taken() {
    let mut world = World::new();
    world.write("home/.agent/settings.json", "1");
    world.write("home/.agent/skills/a/SKILL.md", "2");
    world.write("home/.agent/projects/other/secret.jsonl", "another project's");
    world.write("home/.agent/deep/history/x", "another project's");
    world.write("home/.agent/deep/keep", "3");
    world.write("home/.agent/state_5.sqlite-wal", "another project's");
    world.write("home/.agent/deep/x.sqlite-wal", "4");
    assert_eq!(world.take(Follow::Untouched), [""; 0]);
    assert!(!world.path("own/state_5.sqlite-wal").exists());
    for (path, text) in
        [("settings.json", "1"), ("skills/a/SKILL.md", "2"), ("deep/keep", "3"), ("deep/x.sqlite-wal", "4")]
    {
        assert_eq!(world.read(&format!("own/{path}")).as_deref(), Some(text));
    }
    assert!(!world.path("own/projects").exists() && !world.path("own/deep/history").exists());
}

#[test]
fn what_is_untouched_follows_and_what_was_changed_stays() {
    let mut world = World::new();
    for name in ["a", "b", "c", "d", "dir/e"] {
        world.write(&format!("home/.agent/{name}"), "old");
    }
    world.take(Follow::Untouched);
    world.write("own/b", "inside's");
    fs::remove_file(world.path("own/c")).expect("rm");
    world.write("own/own-only", "inside's");
    for name in ["a", "b", "c"] {
        world.write(&format!("home/.agent/{name}"), "new");
    }
    world.write("home/.agent/f", "new");
    fs::remove_file(world.path("home/.agent/d")).expect("rm");
    fs::remove_dir_all(world.path("home/.agent/dir")).expect("rm");
    for _ in 0..2 {
        world.take(Follow::Untouched);
        let read = |name: &str| world.read(&format!("own/{name}"));
        assert_eq!(read("a").as_deref(), Some("new"), "untouched: follows");
        assert_eq!(read("b").as_deref(), Some("inside's"), "changed inside: stays");
        assert_eq!(read("c"), None, "removed inside: stays so");
        assert_eq!(read("d"), None, "removed on the host");
        assert!(!world.path("own/dir").exists());
        assert_eq!(read("f").as_deref(), Some("new"));
        assert_eq!(read("own-only").as_deref(), Some("inside's"));
    }
}

#[test]
fn what_follows_always_is_the_hosts() {
    let mut world = World::new();
    world.write("home/.agent/a", "1");
    world.write("home/.agent/dir/b", "1");
    world.take(Follow::Always);
    world.write("own/a", "changed");
    fs::remove_dir_all(world.path("own/dir")).expect("rm");
    world.write("own/dir", "a file now");
    world.write("home/.agent/c", "1");
    world.take(Follow::Always);
    for name in ["a", "dir/b", "c"] {
        assert_eq!(world.read(&format!("own/{name}")).as_deref(), Some("1"), "{name}");
    }
    fs::remove_dir_all(world.path("home/.agent/dir")).expect("rm");
    world.take(Follow::Always);
    assert!(!world.path("own/dir").exists());
}

#[test]
fn links_of_the_host_are_followed_within_the_home() {
    let mut world = World::new();
    world.write("home/dotfiles/settings.json", "kept elsewhere");
    world.write("home/dotfiles/commands/x.md", "a command");
    world.write("home/.ssh/id", "a key");
    world.write("outside/file", "somebody's");
    world.write("home/.agent/real", "here");
    for (link, target) in [
        ("settings.json", world.path("home/dotfiles/settings.json")),
        ("commands", world.path("home/dotfiles/commands")),
        ("id", world.path("home/.ssh/id")),
        ("keys", world.path("home/.ssh")),
        ("out", world.path("outside/file")),
        ("home", world.path("home")),
        ("gone", world.path("nowhere")),
        ("near", "real".into()),
    ] {
        symlink(target, world.path("home/.agent").join(link)).expect("link");
    }
    let problems = world.take(Follow::Untouched);
    assert_eq!(world.read("own/settings.json").as_deref(), Some("kept elsewhere"));
    assert_eq!(world.read("own/commands/x.md").as_deref(), Some("a command"));
    assert!(world.path("own/near").is_symlink() && world.read("own/near").as_deref() == Some("here"));
    for name in ["id", "keys", "out", "home", "gone"] {
        assert!(!world.path("own").join(name).exists() && !world.path("own").join(name).is_symlink(), "{name}");
    }
    assert_eq!(problems.len(), 4, "{problems:?}");
    world.write("home/dotfiles/settings.json", "changed there");
    world.take(Follow::Untouched);
    assert_eq!(world.read("own/settings.json").as_deref(), Some("changed there"));
}

#[test]
fn links_of_a_cell_lead_nowhere() {
    let mut world = World::new();
    for name in ["a", "dir/b", "later/c"] {
        world.write(&format!("home/.agent/{name}"), "1");
    }
    world.take(Follow::Untouched);
    world.write("outside/victim", "safe");
    fs::create_dir(world.path("outside/folder")).expect("mkdir");
    for (name, target) in [("a", "outside/victim"), ("dir", "outside/folder"), ("later", "outside/folder")] {
        let link = world.path("own").join(name);
        fs::remove_file(&link).or_else(|_| fs::remove_dir_all(&link)).expect("rm");
        symlink(world.path(target), link).expect("link");
    }
    symlink(world.path("outside/victim"), world.path("own/.a.cellblock")).expect("link");
    for follow in [Follow::Untouched, Follow::Always] {
        for name in ["a", "dir/b", "later/c", "later/new"] {
            world.write(&format!("home/.agent/{name}"), "2");
        }
        world.take(follow);
        assert_eq!(world.read("outside/victim").as_deref(), Some("safe"), "{follow:?}");
        assert_eq!(fs::read_dir(world.path("outside/folder")).expect("list").count(), 0, "{follow:?}");
    }
    // The probe works: what always follows has the host's in their place now.
    assert_eq!(world.read("own/dir/b").as_deref(), Some("2"));
}

#[test]
fn pipes_and_loops_are_left_out() {
    let mut world = World::new();
    world.write("home/.agent/a", "1");
    let pipe = world.path("home/.agent/pipe");
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, FileType::Fifo, rustix::fs::Mode::RWXU, 0).expect("mkfifo");
    fs::create_dir(world.path("home/dotfiles/loop")).expect("mkdir");
    symlink(world.path("home/dotfiles/loop"), world.path("home/dotfiles/loop/again")).expect("link");
    symlink(world.path("home/dotfiles/loop"), world.path("home/.agent/loop")).expect("link");
    world.take(Follow::Untouched);
    assert_eq!(world.read("own/a").as_deref(), Some("1"));
    assert!(!world.path("own/pipe").exists());
}
