//! Memory, processor and process limits: enforced where the host lets us, refused with a reason where not.

use cellblock_tests::{World, is_root};

/// Whether this user can make cgroups here: root can.
fn can_limit(world: &World) -> bool {
    world.cellblock("run --pids 50 -- true").run().code() == Some(0)
}

#[test]
fn limits_hold_or_the_cell_does_not_start() {
    let world = World::new();
    if !can_limit(&world) {
        assert!(!is_root(), "root can make cgroups");
        for flag in ["--memory 64M", "--pids 20", "--cpus 1"] {
            world.cellblock(&format!("run {flag} -- true")).fails(125).says("--limits=best-effort");
            world.cellblock(&format!("run {flag} --limits=best-effort -- true")).run().says("it ran without");
            world.cellblock(&format!("run {flag} --limits=best-effort -- true")).ok();
        }
        return;
    }
    let hog = "run --memory 48M -- sh -c 'head -c 200000000 /dev/zero | tail -c 150000000 | wc -c'";
    let done = world.cellblock(hog).run();
    assert!(!done.stdout().contains("150000000"), "{done}");
    done.says("memory limit of 48 MiB was reached");
    let free = world.cellblock("run -- sh -c 'head -c 200000000 /dev/zero | tail -c 150000000 | wc -c'").ok();
    assert_eq!(free.trim(), "150000000", "the probe works");
    let forks = |flags: &str| {
        world
            .cellblock(&format!(
                "run {flags} -- sh -c 'for i in 1 2 3 4 5 6 7 8 9 10 11 12; do sleep 1 & done; wait; echo all'"
            ))
            .run()
    };
    assert!(forks("--pids 6").stderr().to_lowercase().contains("fork") || forks("--pids 6").code() != Some(0));
    assert_eq!(forks("").stdout(), "all\n");
    world.cellblock("run -d --name c --rm --cpus 1.5 -- sleep 60").ok();
    let about: serde_json::Value = serde_json::from_str(&world.cellblock("inspect c").ok()).expect("json");
    let group = about["cgroups"][0].as_str().expect("a group").to_owned();
    let quota = std::fs::read_to_string(format!("{group}/cpu.cfs_quota_us"))
        .or_else(|_| std::fs::read_to_string(format!("{group}/cpu.max")))
        .expect("quota");
    assert!(quota.starts_with("150000"), "{quota}");
    // exec joins the same group.
    world.cellblock("exec c -- true").ok();
    world.cellblock("stop c -t 0").ok();
    assert!(!std::path::Path::new(&group).exists(), "the group goes with the cell");
}

#[test]
fn nonsense_limits_are_refused() {
    let world = World::new();
    for (flag, hint) in [
        ("--memory lots", "a size is a whole number"),
        ("--cpus many", "such as 2 or 1.5"),
        ("--memory 0", "a size must be above 0"),
    ] {
        world.cellblock(&format!("run {flag} -- true")).fails(125).says(hint);
    }
}
