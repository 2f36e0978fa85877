//! What is laid for a cell, from the data to the folders.

use std::collections::BTreeMap;
use std::fs;

use cellblock_bundle::{Added, Edit, Extent, Ids, Limits, Network, Profile, Project, Reach, RootFs, User};

use super::*;

struct World(tempfile::TempDir);

impl World {
    fn new() -> Self {
        let world = Self(tempfile::tempdir().expect("a folder"));
        for folder in ["home/.agent", "data", "cell"] {
            fs::create_dir_all(world.path(folder)).expect("mkdir");
        }
        world
    }

    fn path(&self, path: &str) -> PathBuf {
        self.0.path().canonicalize().expect("canonical").join(path)
    }

    fn write(&self, path: &str, text: &str) {
        let new = self.path("home/new");
        fs::write(&new, text).expect("write");
        fs::rename(new, self.path(path)).expect("mv");
    }

    /// A cell in which the home is `/h`, started by one who has but one id.
    fn start(&self, state: Vec<State>, seeds: Vec<Seed>) -> Start {
        let id = rustix::process::geteuid().as_raw();
        let extents = vec![Extent { inside: id, outside: id, size: 1 }];
        let user = User {
            uid: id,
            gid: id,
            groups: Vec::new(),
            name: "ada".into(),
            group: "ada".into(),
            home: "/h".into(),
            shell: "/bin/sh".into(),
        };
        let project = Project { id: "p1".into(), name: "demo".into(), root: "/h/demo".into(), branch: None };
        let cell = Cell {
            name: "demo".into(),
            project: Some(project),
            image: "host".into(),
            profile: Profile::Default,
            hostname: "demo".into(),
            labels: BTreeMap::new(),
            command: vec!["true".into()],
            env: BTreeMap::new(),
            hidden: Default::default(),
            workdir: "/".into(),
            user,
            ids: Ids { scheme: IdScheme::Single, uids: extents.clone(), gids: extents },
            mounts: Vec::new(),
            protect: Default::default(),
            guard: false,
            own_home: None,
            overlay: None,
            home_files: BTreeMap::new(),
            state,
            brokers: Default::default(),
            seeds,
            network: Network::None,
            reach: Reach::default(),
            limits: Limits::default(),
            terminal: false,
            init: true,
            read_only: false,
        };
        let root = RootFs {
            lowers: Vec::new(),
            shared: Vec::new(),
            volatile: true,
            upper: self.path("data/cells/demo/upper"),
            work: self.path("data/cells/demo/work"),
            mounts: Vec::new(),
        };
        let dirs = Dirs { runtime: self.path("run"), data: self.path("data"), state: self.path("state"), logs: None };
        let links = Links::new(vec![self.path("home")], Vec::new());
        Start {
            cell,
            root,
            limits: None,
            dirs,
            keep: false,
            detached: false,
            secrets: Vec::new(),
            hidden: BTreeMap::new(),
            roots: None,
            rungs: Vec::new(),
            links,
        }
    }

    fn state(&self, name: &str, kind: StateKind, mode: StateMode) -> State {
        let (host, target) = (self.path("home").join(name), Path::new("/h").join(name));
        State { agent: "a".into(), host, target, kind, mode, hidden: vec!["talk".into()], locks: Vec::new() }
    }
}

#[test]
fn nothing_is_made_for_a_cell_without_an_agent() {
    let world = World::new();
    let laid = lay(&world.start(Vec::new(), Vec::new())).expect("laid");
    assert!(!laid.has_files() && laid.mounts.is_empty());
    assert_eq!(fs::read_dir(world.path("data")).expect("list").count(), 0);
}

#[test]
fn each_mode_has_its_place() {
    let world = World::new();
    world.write("home/.agent/login", "token");
    for (mode, source, writable) in [
        (StateMode::Private, "data/projects/p1/state/a/.agent", true),
        (StateMode::Copy, "data/cells/demo/state/.agent", true),
        (StateMode::Share, "home/.agent", true),
        (StateMode::Sync, "data/cells/demo/state/.agent", false),
    ] {
        let state = world.state(".agent", StateKind::Folder, mode);
        let login = world.state(".agent/login", StateKind::Login, StateMode::Share);
        let laid = lay(&world.start(vec![state, login], Vec::new())).expect("laid");
        let source = world.path(source);
        assert_eq!(laid.mounts, [Mount::Bind { source: source.clone(), target: "/h/.agent".into(), writable }]);
        assert_eq!(laid.pairs.len(), usize::from(mode != StateMode::Share), "{mode:?}");
        assert_eq!(source.join("login").exists(), mode == StateMode::Share, "a login is never taken with its folder");
        cellblock_sys::tree::remove(open_folder(&world.path("")).expect("open").as_fd(), "data".as_ref()).expect("rm");
        fs::create_dir(world.path("data")).expect("mkdir");
    }
}

fn seed(target: &str, edit: Edit) -> Seed {
    Seed { target: target.into(), edits: vec![edit] }
}

#[test]
fn what_is_written_for_a_cell_stays_out_of_the_hosts_and_follows_it() {
    let world = World::new();
    world.write("home/.agent/MEMORY.md", "words\n");
    world.write("home/.agent.json", "{\"n\":1}");
    let line = |text: &str| Edit::Part { text: text.to_owned() };
    let keys = Edit::Json(Added { keys: serde_json::json!({"done": true}), over_false: false });
    let said = RefCell::new("@/etc/x.md");
    let start = || {
        let mut file = world.state(".agent.json", StateKind::File, StateMode::Private);
        file.target = "/h/.agent/.agent.json".into();
        let state = vec![world.state(".agent", StateKind::Folder, StateMode::Private), file];
        let seeds = vec![
            seed("/h/.agent/MEMORY.md", line(*said.borrow())),
            seed("/h/.agent/deep/new.md", line(*said.borrow())),
            seed("/h/.agent/.agent.json", keys.clone()),
        ];
        lay(&world.start(state, seeds)).expect("laid").notes
    };
    let layer =
        |name: &str| fs::read_to_string(world.path("data/projects/p1/state/a/.agent").join(name)).unwrap_or_default();
    for (words, number) in [("words\n", 1), ("words\n", 1), ("other words\n", 2), ("again\n", 3)] {
        world.write("home/.agent/MEMORY.md", words);
        world.write("home/.agent.json", &format!("{{\"n\":{number}}}"));
        assert_eq!(start(), [""; 0]);
        let (before, ours) =
            layer("MEMORY.md").split_once("<!--").map(|(a, b)| (a.to_owned(), b.to_owned())).expect("ours");
        assert_eq!((before.as_str(), ours.matches("\n@/etc/x.md\n").count()), (words, 1));
        assert!(layer("deep/new.md").contains("\n@/etc/x.md\n"));
        let json: serde_json::Value = serde_json::from_str(&layer(".agent.json")).expect("JSON");
        assert_eq!(json, serde_json::json!({"n": number, "done": true}));
        assert_eq!(fs::read_to_string(world.path("home/.agent/MEMORY.md")).expect("there"), words);
    }
    // What a cell has made of it stays, and ours comes to it.
    fs::write(world.path("data/projects/p1/state/a/.agent/MEMORY.md"), "inside").expect("write");
    world.write("home/.agent/MEMORY.md", "later");
    start();
    assert!(layer("MEMORY.md").starts_with("inside\n<!--") && layer("MEMORY.md").contains("@/etc/x.md"));
    // Where there is nothing to say any more, nothing of it is left.
    *said.borrow_mut() = "";
    start();
    assert_eq!((layer("MEMORY.md").as_str(), layer("deep/new.md").as_str()), ("inside\n", ""));
    *said.borrow_mut() = "@/etc/x.md";
    // A cell's link is not written through.
    world.write("home/victim", "safe");
    fs::remove_file(world.path("data/projects/p1/state/a/.agent/MEMORY.md")).expect("rm");
    std::os::unix::fs::symlink(world.path("home/victim"), world.path("data/projects/p1/state/a/.agent/MEMORY.md"))
        .expect("link");
    assert_eq!(start().len(), 1);
    assert_eq!(fs::read_to_string(world.path("home/victim")).expect("there"), "safe");
}

/// A login, and a file that both sides have, are the host's: what is written there would be written on the host.
#[test]
fn nothing_is_written_into_what_is_the_hosts() {
    let both = |mode| {
        let world = World::new();
        for name in ["login", "settings", "other"] {
            world.write(&format!("home/.agent/{name}"), "{}");
        }
        let state = vec![
            world.state(".agent", StateKind::Folder, mode),
            world.state(".agent/login", StateKind::Login, StateMode::Private),
            world.state(".agent/settings", StateKind::File, StateMode::Share),
        ];
        let edit = Edit::Json(Added { keys: serde_json::json!({"done": true}), over_false: false });
        let seeds =
            ["login", "settings", "other", "none/new"].map(|name| seed(&format!("/h/.agent/{name}"), edit.clone()));
        let laid = lay(&world.start(state, seeds.to_vec())).expect("laid");
        for pair in &laid.pairs {
            pair.settle().expect("settled");
        }
        assert_eq!(laid.notes, [""; 0]);
        for name in ["login", "settings", "other"] {
            assert_eq!(fs::read_to_string(world.path("home/.agent").join(name)).expect("there"), "{}", "{mode:?}");
        }
        assert!(!world.path("home/.agent/none").exists());
        let own = laid.mounts.iter().find_map(|mount| match mount {
            Mount::Bind { source, .. } => Some(source.clone()),
            _ => None,
        });
        let own = own.expect("its folder");
        ["settings", "other", "none/new"]
            .map(|name| fs::read_to_string(own.join(name)).unwrap_or_default().contains("done"))
    };
    assert_eq!(both(StateMode::Private), [false, true, true]);
    assert_eq!(both(StateMode::Copy), [false, true, true]);
    assert_eq!(both(StateMode::Share), [false; 3]);
    assert_eq!(both(StateMode::Sync), [false; 3]);
}

#[test]
fn what_was_shared_is_the_hosts_alone_when_it_is_shared_no_more() {
    for (kind, mode, there) in [
        (StateKind::Login, StateMode::Private, false),
        (StateKind::Login, StateMode::Copy, true),
        (StateKind::Login, StateMode::Sync, true),
        (StateKind::File, StateMode::Private, true),
    ] {
        let world = World::new();
        world.write("home/.agent/one", "the host's");
        let start = |mode| {
            let folder = world.state(".agent", StateKind::Folder, StateMode::Private);
            let laid = lay(&world.start(vec![folder, world.state(".agent/one", kind, mode)], Vec::new()));
            laid.expect("laid").pairs.iter().for_each(|pair| pair.settle().expect("settled"));
        };
        start(StateMode::Share);
        let own = world.path("data/projects/p1/state/a/.agent/one");
        fs::write(&own, "by the cell").expect("write");
        let on_host = || fs::read_to_string(world.path("home/.agent/one")).expect("there");
        assert_eq!(on_host(), "by the cell", "it is one file");
        start(mode);
        assert_eq!(own.exists(), there, "{mode:?}");
        fs::write(&own, "no more").expect("write");
        assert_eq!(on_host(), "by the cell", "{mode:?}");
        // What is its own by now stays.
        if mode == StateMode::Private {
            start(mode);
            assert_eq!(fs::read_to_string(&own).expect("there"), "no more");
        }
    }
}

#[test]
fn a_start_that_was_killed_is_done_again() {
    let world = World::new();
    world.write("home/.agent/a", "1");
    let base = world.path("data/projects/p1/state/a");
    fs::create_dir_all(base.join(".agent.new/half")).expect("mkdir");
    let state = || vec![world.state(".agent", StateKind::Folder, StateMode::Private)];
    lay(&world.start(state(), Vec::new())).expect("laid");
    assert_eq!(fs::read_to_string(base.join(".agent/a")).expect("taken"), "1");
    assert!(!base.join(".agent.new").exists() && !base.join(".agent/half").exists());
}

#[test]
fn a_layer_that_is_being_dropped_is_not_used() {
    let world = World::new();
    let state = || vec![world.state(".agent", StateKind::Folder, StateMode::Private)];
    let laid = lay(&world.start(state(), Vec::new())).expect("laid");
    let base = world.path("data/projects/p1/state/a");
    assert!(lock(&base, FlockOperation::NonBlockingLockExclusive).is_err(), "a cell has it");
    drop(laid);
    let _dropping = lock(&base, FlockOperation::NonBlockingLockExclusive).expect("nobody has it");
    assert!(matches!(lay(&world.start(state(), Vec::new())), Err(KeepError::Busy { .. })));
}

#[test]
fn names_of_places_are_told_apart() {
    let home = Path::new("/home/ada");
    for (path, want) in [
        ("/home/ada/.claude", ".claude"),
        ("/home/ada/.local/share/x", ".local%share%x"),
        ("/home/ada/a%b", "a%25b"),
        ("/etc/x", "%etc%x"),
    ] {
        assert_eq!(key(Path::new(path), home), want);
    }
}

#[test]
fn secrets_in_a_folder_are_not_taken_with_it() {
    let world = World::new();
    fs::create_dir_all(world.path("home/.agent/deep/keys")).expect("mkdir");
    world.write("home/.agent/deep/keys/id", "a key");
    world.write("home/.agent/deep/settings", "1");
    let mut start = world.start(vec![world.state(".agent", StateKind::Folder, StateMode::Private)], Vec::new());
    let layer = world.path("data/projects/p1/state/a/.agent/deep");
    start.links.never = vec![world.path("home/.agent/deep/keys")];
    lay(&start).expect("laid");
    assert!(layer.join("settings").exists() && !layer.join("keys").exists());
    // The probe works: without the list it is taken.
    start.links.never.clear();
    lay(&start).expect("laid");
    assert!(layer.join("keys/id").exists());
}
