//! A login on two sides, renewed from either, in place and by a new file.

use std::fs;
use std::path::Path;
use std::time::SystemTime;

use super::*;

/// Two folders on one file system.
struct Sides(tempfile::TempDir);

impl Sides {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        for side in ["host", "own"] {
            fs::create_dir(dir.path().join(side)).expect("mkdir");
        }
        Self(dir)
    }

    fn path(&self, path: &str) -> PathBuf {
        self.0.path().join(path)
    }

    fn write(&self, path: &str, text: &str) {
        fs::write(self.path(path), text).expect("write");
    }

    /// As programs do that never want half a file to be seen.
    fn rename(&self, path: &str, text: &str) {
        self.write("new", text);
        fs::rename(self.path("new"), self.path(path)).expect("rename");
    }

    fn read(&self, path: &str) -> String {
        fs::read_to_string(self.path(path)).expect("read")
    }

    fn pair(&self, flow: Flow) -> Pair {
        let side = |name: &str| Side {
            folder: super::super::open_folder(&self.path(name)).expect("open"),
            name: "login".into(),
            owner: Owner(None),
            acting: None,
        };
        let locks = vec![PathBuf::from(".lock")];
        Pair { host: side("host"), own: side("own"), flow, gives_birth: false, locks, known: RefCell::default() }
    }
}

fn inode(path: &Path) -> u64 {
    std::os::unix::fs::MetadataExt::ino(&fs::symlink_metadata(path).expect("there"))
}

#[test]
fn every_rotation_reaches_the_other_side() {
    let sides = Sides::new();
    sides.write("host/login", "{\"t\":0}");
    let pair = sides.pair(Flow::Both);
    pair.settle().expect("settle");
    for (round, (from, to)) in
        [("host", "own"), ("own", "host"), ("own", "host"), ("host", "own")].into_iter().enumerate()
    {
        let (new, renamed) = (format!("{{\"a\":{round}}}"), format!("{{\"b\":{round}}}"));
        sides.write(&format!("{from}/login"), &new);
        assert_eq!(sides.read(&format!("{to}/login")), new, "in place: at once, without anybody's work");
        sides.rename(&format!("{from}/login"), &renamed);
        assert_ne!(sides.read(&format!("{to}/login")), renamed, "the probe works: a new file is another one");
        pair.settle().expect("settle");
        assert_eq!(sides.read(&format!("{to}/login")), renamed);
        assert_eq!(inode(&sides.path("host/login")), inode(&sides.path("own/login")), "one file again");
    }
    assert_eq!(fs::read_dir(sides.path("host")).expect("list").count(), 1, "nothing is left beside it");
    assert_eq!(fs::read_dir(sides.path("own")).expect("list").count(), 1);
}

#[test]
fn what_happened_while_nobody_watched_is_told_by_time() {
    let sides = Sides::new();
    sides.write("host/login", "old");
    std::thread::sleep(Duration::from_millis(20));
    sides.write("own/login", "renewed by the cell, whose keeper was killed");
    sides.pair(Flow::Both).settle().expect("settle");
    assert_eq!(sides.read("host/login"), "renewed by the cell, whose keeper was killed");
    fs::remove_file(sides.path("own/login")).expect("rm");
    sides.write("own/login", "stale");
    std::thread::sleep(Duration::from_millis(20));
    sides.rename("host/login", "renewed by the host");
    sides.pair(Flow::Both).settle().expect("settle");
    assert_eq!(sides.read("own/login"), "renewed by the host");
}

#[test]
fn a_cell_cannot_harm_the_hosts_by_what_is_no_login() {
    let sides = Sides::new();
    let login = "{\"token\":1}";
    sides.write("host/login", login);
    sides.write("secret", "a secret of the host");
    let pair = sides.pair(Flow::Both);
    pair.settle().expect("settle");
    for bad in ["", " \n", "{\"tok"] {
        sides.rename("own/login", bad);
        pair.settle().expect("settle");
        assert_eq!(sides.read("host/login"), login, "{bad:?} is no login");
    }
    // It stays where it is as long as the cell runs, and gives way to the host's in the next one.
    assert_eq!(sides.read("own/login"), "{\"tok");
    sides.pair(Flow::Both).settle().expect("settle");
    assert_eq!(sides.read("own/login"), login);
    fs::remove_file(sides.path("own/login")).expect("rm");
    std::os::unix::fs::symlink(sides.path("secret"), sides.path("own/login")).expect("link");
    pair.settle().expect("a link is nothing");
    assert_eq!(sides.read("host/login"), login);
    fs::remove_file(sides.path("own/login")).expect("rm");
    pair.settle().expect("nothing is removed on the host");
    assert_eq!(sides.read("host/login"), login);
    // The probe works: a login is taken.
    sides.rename("own/login", "{\"token\":2}");
    pair.settle().expect("settle");
    assert_eq!(sides.read("host/login"), "{\"token\":2}");
}

/// As on another file system, or with another owner.
fn without_links(sides: &Sides) -> Pair {
    let mut pair = sides.pair(Flow::Both);
    pair.own.acting = None;
    pair.gives_birth = true;
    pair
}

#[test]
fn without_links_both_sides_are_copies() {
    let sides = Sides::new();
    sides.write("host/login", "1");
    let pair = without_links(&sides);
    pair.settle().expect("settle");
    assert_ne!(inode(&sides.path("host/login")), inode(&sides.path("own/login")));
    sides.write("own/login", "2");
    pair.settle().expect("settle");
    assert_eq!(sides.read("host/login"), "2");
    sides.rename("host/login", "3");
    pair.settle().expect("settle");
    assert_eq!(sides.read("own/login"), "3");
}

#[test]
fn what_has_the_stamp_of_what_was_expected_is_looked_at() {
    let sides = Sides::new();
    // As if the clock stood still.
    let tick = SystemTime::now() + Duration::from_millis(1900);
    let write = |text: &str| {
        sides.write("own/login", text);
        let file = fs::File::options().write(true).open(sides.path("own/login")).expect("open");
        file.set_modified(tick).expect("a time");
    };
    let own = &sides.pair(Flow::Both).own;
    write("1");
    let (_, one) = own.look(None).expect("look").expect("there");
    write("2");
    assert_eq!(own.look(None).expect("look").expect("there").1.stamp, one.stamp, "the probe works");
    assert!(own.write(Some(one), b"3", 0o600).expect("tried").is_none());
    assert_eq!(sides.read("own/login"), "2");
    // The twin.
    write("1");
    assert!(own.write(Some(one), b"3", 0o600).expect("written").is_some());
    assert_eq!(sides.read("own/login"), "3");
}

#[test]
fn what_is_written_twice_in_one_tick_of_the_clock_arrives() {
    let sides = Sides::new();
    let pair = without_links(&sides);
    // As if the clock stood still.
    let tick = SystemTime::now() + Duration::from_millis(1900);
    let write = |path: &str, text: &str| {
        sides.write(path, text);
        let file = fs::File::options().write(true).open(sides.path(path)).expect("open");
        file.set_modified(tick).expect("a time");
        pair.settle().expect("settle");
    };
    for (from, to) in [("own/login", "host/login"), ("host/login", "own/login")] {
        for text in ["1", "2", "3"] {
            write(from, text);
            assert_eq!(sides.read(to), text, "{from}");
        }
    }
    // What is older than the clock needs no second look.
    sides.write("own/login", "4");
    std::thread::sleep(Duration::from_millis(60));
    for _ in 0..2 {
        pair.settle().expect("settle");
    }
    assert_eq!(pair.known.borrow().own.expect("known").content, None);
}

#[test]
fn one_way_is_one_way() {
    let sides = Sides::new();
    sides.write("host/login", "1");
    let pair = sides.pair(Flow::In);
    pair.settle().expect("settle");
    assert_ne!(inode(&sides.path("host/login")), inode(&sides.path("own/login")));
    sides.write("own/login", "mine");
    pair.settle().expect("settle");
    assert_eq!((sides.read("host/login"), sides.read("own/login")), ("1".into(), "1".into()));
    sides.rename("host/login", "2");
    pair.settle().expect("settle");
    assert_eq!(sides.read("own/login"), "2");
}

#[test]
fn a_lock_is_seen_on_the_other_side_and_given_back() {
    let sides = Sides::new();
    sides.write("host/login", "1");
    let pair = sides.pair(Flow::Both);
    pair.settle().expect("settle");
    for (from, to) in [("host", "own"), ("own", "host")] {
        let (here, there) = (sides.path(&format!("{from}/.lock")), sides.path(&format!("{to}/.lock")));
        fs::create_dir(&here).expect("lock");
        pair.settle().expect("settle");
        assert!(there.is_dir(), "who wants it now finds it taken");
        pair.settle().expect("settle");
        assert!(here.is_dir() && there.is_dir());
        fs::remove_dir(&here).expect("unlock");
        pair.settle().expect("settle");
        assert!(!there.exists() && !here.exists());
    }
    fs::create_dir(sides.path("own/.lock")).expect("lock");
    pair.settle().expect("settle");
    pair.leave();
    assert!(!sides.path("host/.lock").exists(), "what was made for the host is gone with the cell");
}

#[test]
fn two_keepers_of_one_login_do_not_fight() {
    let sides = Sides::new();
    sides.write("host/login", "0");
    let (one, two) = (sides.pair(Flow::Both), sides.pair(Flow::Both));
    one.settle().expect("settle");
    two.settle().expect("settle");
    for round in 1..20 {
        let text = round.to_string();
        sides.rename(if round % 2 == 0 { "own/login" } else { "host/login" }, &text);
        let (first, second) = if round % 3 == 0 { (&one, &two) } else { (&two, &one) };
        first.settle().expect("settle");
        second.settle().expect("settle");
        assert_eq!((sides.read("own/login"), sides.read("host/login")), (text.clone(), text));
    }
}

#[test]
fn nothing_is_lost_while_both_sides_are_replaced_all_the_time() {
    let sides = Sides::new();
    sides.write("host/login", "0");
    let pair = sides.pair(Flow::Both);
    pair.settle().expect("settle");
    for (writer, reader) in [("host", "own"), ("own", "host")] {
        let rounds = 400;
        std::thread::scope(|scope| {
            let writing = scope.spawn(|| {
                for round in 0..rounds {
                    let text = format!("{writer} {round}");
                    fs::write(sides.path(&format!("{writer}.new")), &text).expect("write");
                    fs::rename(sides.path(&format!("{writer}.new")), sides.path(&format!("{writer}/login")))
                        .expect("mv");
                }
            });
            while !writing.is_finished() {
                // Too busy is no loss.
                let _ = pair.settle();
            }
        });
        pair.settle().expect("settle");
        let last = format!("{writer} {}", rounds - 1);
        assert_eq!(
            (sides.read(&format!("{writer}/login")), sides.read(&format!("{reader}/login"))),
            (last.clone(), last)
        );
    }
}
