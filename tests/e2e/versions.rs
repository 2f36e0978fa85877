//! Cells that another version of cellblock has started: they go on while this one is put in its place.

use cellblock_tests::World;
use rustix::process::{Pid, Signal};

/// Has the record of the running cell `name` look like one of `version`, with something in it that this one does not know.
fn pretend(world: &World, name: &str, version: &str) {
    let path = world.path(&format!("run/cellblock/cells/{name}/cell.json"));
    let mut record: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).expect("a record")).expect("json");
    record["version"] = version.into();
    record["cell"]["colour"] = "red".into();
    std::fs::write(&path, record.to_string()).expect("write");
}

fn status(world: &World) -> serde_json::Value {
    serde_json::from_str(&world.cellblock("status --json").ok()).expect("json")
}

#[test]
fn a_cell_of_another_version_is_listed_stopped_and_not_entered() {
    let world = World::new();
    for name in ["old", "new"] {
        world.cellblock(&format!("run -d --name {name} --rm -- sleep 1000")).ok();
        world.cellblock(&format!("exec {name} -- true")).ok();
    }
    pretend(&world, "old", "9.1.0");
    for command in ["exec old -- true", "inspect old", "shell old", "net show old"] {
        world.cellblock(command).fails(125).says("another version of cellblock: by 9.1.0").says("cellblock stop old");
    }
    // Others are not touched by it.
    world.cellblock("exec new -- true").ok();
    world.cellblock("run --name old -- true").fails(125).says("a cell named `old` is running already");
    let table = world.cellblock("status").ok();
    assert!(table.contains("(started by cellblock 9.1.0)") && table.contains("sleep 1000"), "{table}");
    let rows = status(&world);
    assert_eq!(
        (&rows[0]["name"], &rows[0]["image"], &rows[0]["command"]),
        (&"new".into(), &"host".into(), &serde_json::json!(["sleep", "1000"]))
    );
    assert_eq!(
        (&rows[1]["name"], &rows[1]["state"], &rows[1]["version"]),
        (&"old".into(), &"running".into(), &"9.1.0".into())
    );
    assert!(rows[1]["image"].is_null() && rows[1]["project"]["name"] == "demo", "{rows}");
    let stopped: serde_json::Value = serde_json::from_str(&world.cellblock("stop --json -t 0 old").ok()).expect("json");
    assert_eq!(stopped, serde_json::json!([{ "name": "old", "exit_code": 137 }]));
    assert_eq!(world.cellblock("stop -t 0").ok(), "new\n");
    assert!(world.leftovers().is_empty(), "{:?}", world.leftovers());
}

/// A build of the same number, as between releases.
#[test]
fn the_same_number_with_another_record_is_another_version_too() {
    let world = World::new();
    world.cellblock("run -d --name c --rm -- sleep 1000").ok();
    let rows = status(&world);
    let version = rows[0]["version"].as_str().expect("a version");
    pretend(&world, "c", version);
    world.cellblock("exec c -- true").fails(125).says("started by another version of cellblock\n");
    assert_eq!(world.cellblock("stop --all -t 0").ok(), "c\n");
}

/// What it wrote is kept or not as was said when it was started.
#[test]
fn what_a_killed_cell_of_another_version_leaves_is_dealt_with_as_its_own_version_would() {
    let world = World::new();
    for (flag, kept) in [("", true), ("--rm", false)] {
        world.cellblock(&format!("run -d --name c {flag} -- sleep 1000")).ok();
        world.cellblock("exec c -- touch /tmp/seen").ok();
        let supervisor = status(&world)[0]["supervisor"].as_i64().expect("a pid");
        pretend(&world, "c", "9.1.0");
        let pid = Pid::from_raw(i32::try_from(supervisor).expect("a pid")).expect("a pid");
        rustix::process::kill_process(pid, Signal::KILL).expect("kill");
        world.wait("it to be gone", || status(&world) == serde_json::json!([]));
        assert_eq!(world.path("home/.local/share/cellblock/cells/c").exists(), kept);
        assert!(!world.path("run/cellblock/cells/c").exists());
    }
}

/// A supervisor that does not understand the request.
#[test]
fn a_cell_that_cannot_be_asked_is_not_said_to_have_ended() {
    let world = World::new();
    world.cellblock("run -d --name c --rm -- sleep 1000").ok();
    let socket = world.path("run/cellblock/cells/c/control.sock");
    let other = world.path("run/cellblock/cells/c/other.sock");
    std::fs::rename(&socket, &other).expect("rename");
    pretend(&world, "c", "9.1.0");
    world.cellblock("stop -t 0 c").fails(125).says("cannot ask to stop it").says("supervisor");
    assert_eq!(status(&world)[0]["name"], "c");
    std::fs::rename(&other, &socket).expect("rename");
    assert_eq!(world.cellblock("stop -t 0 c").ok(), "c\n");
}

/// What another cell's record says is nobody's business who starts a cell or enters one.
#[test]
fn the_damaged_record_of_one_cell_is_in_nobodys_way() {
    let world = World::new();
    for name in ["good", "bad"] {
        world.cellblock(&format!("run -d --name {name} --rm -- sleep 1000")).ok();
    }
    let record = world.path("run/cellblock/cells/bad/cell.json");
    let whole = std::fs::read(&record).expect("a record");
    std::fs::write(&record, "{").expect("write");
    world.cellblock("run --name third --rm -- true").ok();
    world.cellblock("run -- true").ok();
    world.cellblock("exec good -- true").ok();
    // It is damaged: who looks at it says so.
    world.cellblock("exec bad -- true").fails(125).says("cells/bad/cell.json is damaged");
    world.cellblock("status").fails(125).says("cells/bad/cell.json is damaged");
    std::fs::write(&record, whole).expect("write");
    world.cellblock("exec bad -- true").ok();
    world.cellblock("stop --all -t 0").ok();
    assert!(world.leftovers().is_empty(), "{:?}", world.leftovers());
}
