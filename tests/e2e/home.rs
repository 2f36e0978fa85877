//! What of the person's home a cell has, and what it takes for its own: shared folders, another home, other places (rows B5, C2, C3, C4).

use cellblock_tests::World;

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
