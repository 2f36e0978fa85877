//! The specification that a cell becomes: a golden document per profile, and properties that hold for every cell.
//!
//! `CELLBLOCK_BLESS=1 cargo test -p cellblock-bundle` writes the golden files anew; the difference is for review.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use cellblock_bundle::spec::{SpecError, run_form, run_spec, spec, spec_over_folder};
use cellblock_bundle::{
    Cell, Extent, IdScheme, Ids, Limits, Mount, Network, Overlay, Profile, Reach, RootFs, User, policy,
};
use serde_json::Value;

fn cell() -> Cell {
    let extent = |inside, outside, size| Extent { inside, outside, size };
    let map = vec![extent(0, 100_000, 1000), extent(1000, 1000, 1), extent(1001, 101_000, 64_535)];
    Cell {
        name: "demo-main-make".into(),
        project: None,
        image: "alpine".into(),
        profile: Profile::Default,
        hostname: "demo-main-make".into(),
        labels: BTreeMap::from([("cellblock.project".into(), "demo".into())]),
        command: vec!["make".into(), "test".into()],
        hidden: BTreeSet::from(["TOKEN".to_owned()]),
        env: BTreeMap::from([("HOME".into(), "/home/ada".into()), ("PATH".into(), "/bin".into())]),
        workdir: "/home/ada/demo".into(),
        user: User {
            uid: 1000,
            gid: 1000,
            groups: Vec::new(),
            name: "ada".into(),
            group: "ada".into(),
            home: "/home/ada".into(),
            shell: "/bin/sh".into(),
        },
        ids: Ids { scheme: IdScheme::Range, uids: map.clone(), gids: map },
        mounts: vec![
            Mount::Bind { source: "/home/ada/demo".into(), target: "/home/ada/demo".into(), writable: true },
            Mount::Bind { source: "/srv/libs".into(), target: "/libs".into(), writable: false },
            Mount::Tmpfs { target: "/scratch".into(), size: Some(1 << 20), mode: 0o1777 },
            Mount::Mask { target: "/home/ada/demo/.env".into(), directory: false },
            Mount::Mask { target: "/home/ada/demo/keys".into(), directory: true },
        ],
        state: Vec::new(),
        own_home: None,
        overlay: None,
        seeds: Vec::new(),
        network: Network::None,
        reach: Reach::default(),
        limits: Limits { memory: Some(1 << 30), cpus: Some(1500), pids: Some(100), best_effort: false },
        terminal: false,
        init: true,
        read_only: false,
        guard: false,
        brokers: cellblock_bundle::cell::Brokers::default(),
        protect: cellblock_bundle::Protect::default(),
        home_files: BTreeMap::new(),
    }
}

fn root() -> RootFs {
    RootFs {
        lowers: vec!["/run/top".into(), "/data/layer".into()],
        shared: Vec::new(),
        volatile: true,
        upper: "/data/upper".into(),
        work: "/data/work".into(),
        mounts: vec![Mount::Bind { source: "/usr".into(), target: "/usr".into(), writable: false }],
    }
}

/// Every cell that the properties are asked of.
fn cells() -> Vec<Cell> {
    let mut all = Vec::new();
    for profile in [Profile::Default, Profile::Strict] {
        for network in [Network::None, Network::Names, Network::Bridge, Network::Host] {
            for uid in [0, 1000] {
                for (terminal, read_only) in [(false, false), (true, true)] {
                    let mut cell = Cell { profile, network, terminal, read_only, ..cell() };
                    cell.user.uid = uid;
                    all.push(cell);
                }
            }
        }
    }
    all
}

fn document(cell: &Cell) -> Value {
    serde_json::to_value(spec(cell, &root()).expect("a specification")).expect("json")
}

#[test]
fn golden() {
    for (name, profile) in [("default", Profile::Default), ("strict", Profile::Strict)] {
        let mut document = document(&Cell { profile, ..cell() });
        // The filter has tests of its own; here its presence counts.
        document["linux"]["seccomp"]["syscalls"] = Value::from("…");
        let text = serde_json::to_string_pretty(&document).expect("json") + "\n";
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name).with_extension("json");
        if std::env::var_os("CELLBLOCK_BLESS").is_some() {
            std::fs::write(&path, &text).expect("write");
        }
        assert_eq!(text, std::fs::read_to_string(&path).expect("golden file"), "{}", path.display());
    }
}

#[test]
fn no_namespace_is_the_hosts_unless_said() {
    for cell in cells() {
        let document = document(&cell);
        let types: Vec<_> = document["linux"]["namespaces"]
            .as_array()
            .expect("list")
            .iter()
            .map(|n| n["type"].as_str().expect("text"))
            .collect();
        for kind in ["user", "pid", "mount", "ipc", "uts", "cgroup"] {
            assert!(types.contains(&kind), "{kind}");
        }
        assert_eq!(types.contains(&"network"), cell.network != Network::Host);
        assert!(
            document["linux"]["namespaces"].as_array().expect("list").iter().all(|n| n["path"].is_null()),
            "none is joined by path"
        );
    }
}

#[test]
fn every_mount_is_nosuid_and_every_bind_nodev() {
    for cell in cells() {
        for mount in document(&cell)["mounts"].as_array().expect("list").iter().skip(1) {
            let options: Vec<_> = mount["options"].as_array().expect("list").iter().filter_map(Value::as_str).collect();
            assert!(options.contains(&"nosuid"), "{mount}");
            if options.contains(&"rbind") {
                assert!(options.contains(&"nodev"), "{mount}");
                assert!(options.contains(&"rw") || options.contains(&"rro"), "{mount}");
            }
        }
    }
}

#[test]
fn the_bounding_set_only_shrinks_and_privilege_never_comes_back() {
    let most: Vec<_> = policy::ROOT_CAPABILITIES.iter().map(|r| r.what).collect();
    for cell in cells() {
        let process = &document(&cell)["process"];
        assert_eq!(process["noNewPrivileges"], true);
        for set in ["bounding", "permitted", "effective", "inheritable", "ambient"] {
            let set: Vec<_> = process["capabilities"][set]
                .as_array()
                .expect("never absent")
                .iter()
                .filter_map(Value::as_str)
                .collect();
            assert!(set.iter().all(|c| most.contains(c)), "{set:?}");
            assert!(set.is_empty() || (cell.user.uid == 0 && cell.profile == Profile::Default), "{set:?}");
        }
    }
}

#[test]
fn the_root_comes_first_and_dev_is_always_fresh() {
    for cell in cells() {
        let document = document(&cell);
        let at = |index: usize| document["mounts"][index].clone();
        assert_eq!((at(0)["destination"].as_str(), at(0)["type"].as_str()), (Some("/"), Some("overlay")));
        let dev =
            document["mounts"].as_array().expect("list").iter().find(|m| m["destination"] == "/dev").expect("a /dev");
        assert_eq!(dev["type"], "tmpfs");
    }
}

#[test]
fn the_run_form_leaves_out_what_we_do_ourselves_and_nothing_else() {
    for cell in cells() {
        let portable = spec(&cell, &root()).expect("a specification");
        let run = serde_json::to_value(run_form(&portable, Path::new("/cellblock/x"))).expect("json");
        let mut expected = serde_json::to_value(&portable).expect("json");
        let linux = expected["linux"].as_object_mut().expect("object");
        for gone in ["uidMappings", "gidMappings", "seccomp", "resources", "maskedPaths", "readonlyPaths"] {
            linux.remove(gone);
        }
        expected.as_object_mut().expect("object").remove("mounts");
        let linux = expected["linux"].as_object_mut().expect("object");
        linux["namespaces"].as_array_mut().expect("list").retain(|n| n["type"] != "user" && n["type"] != "network");
        linux.insert("cgroupsPath".into(), "/cellblock/x".into());
        assert_eq!(run, expected);
        let direct = run_spec(&cell, Path::new("/cellblock/x")).expect("a specification");
        assert_eq!(direct, run_form(&portable, Path::new("/cellblock/x")), "the short way leads to the same place");
    }
}

#[test]
fn over_a_folder_everything_but_the_root_is_the_same() {
    let overlay = Overlay {
        target: "/opt".into(),
        lowers: vec!["/data/layer/opt".into()],
        volatile: false,
        upper: "/data/upper/opt".into(),
        work: "/data/work/opt".into(),
    };
    for cell in cells() {
        let mut whole = document(&cell);
        let made = spec_over_folder(&cell, std::slice::from_ref(&overlay), &root().mounts).expect("a specification");
        let mut folder = serde_json::to_value(made).expect("json");
        let first = |document: &mut Value| document["mounts"].as_array_mut().expect("list").remove(0);
        let (at_root, below) = (first(&mut whole), first(&mut folder));
        for document in [&mut whole, &mut folder] {
            // Sets to oci-spec, in no order.
            for (_, set) in document["process"]["capabilities"].as_object_mut().expect("sets") {
                set.as_array_mut().expect("list").sort_by_key(Value::to_string);
            }
        }
        assert_eq!(whole, folder);
        assert_eq!((&at_root["destination"], &below["destination"]), (&"/".into(), &"/opt".into()));
        assert_eq!(below["options"][0], "lowerdir=/data/layer/opt");
        assert_eq!(folder["root"], serde_json::json!({ "path": "rootfs", "readonly": cell.read_only }));
    }
}

#[test]
fn long_and_odd_overlay_paths() {
    let with = |lowers: Vec<PathBuf>| RootFs { lowers, ..root() };
    let long = |c: char| PathBuf::from(format!("/{}", c.to_string().repeat(150)));
    let options = |root: &RootFs| {
        serde_json::to_value(spec(&cell(), root).expect("fits")).expect("json")["mounts"][0]["options"].to_string()
    };
    assert!(options(&root()).contains("lowerdir=/run/top:/data/layer"));
    let split = options(&with(vec![long('a'), long('b')]));
    assert_eq!(split.matches("lowerdir+=").count(), 2, "{split}");
    let far = PathBuf::from(format!("/{}", "x".repeat(300)));
    assert!(matches!(spec(&cell(), &with(vec![far.clone()])), Err(SpecError::PathTooLong { .. })));
    assert!(matches!(spec(&cell(), &RootFs { upper: far, ..root() }), Err(SpecError::PathTooLong { .. })));
    for odd in ["/a:b", "/a,b", "/a\\b"] {
        assert!(matches!(spec(&cell(), &with(vec![odd.into()])), Err(SpecError::OverlayPath(_))), "{odd}");
    }
    assert!(matches!(spec(&Cell { command: Vec::new(), ..cell() }, &root()), Err(SpecError::NoCommand)));
}
