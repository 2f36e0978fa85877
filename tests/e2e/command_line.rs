//! Help, dry runs, configuration, bundles: everything that starts nothing (row D9).

use std::os::unix::fs::PermissionsExt;

use cellblock_tests::World;

#[test]
fn every_command_has_help_with_its_purpose() {
    let world = World::new();
    for command in [
        "run",
        "shell",
        "exec",
        "stop",
        "status",
        "remove",
        "inspect",
        "logs",
        "agent",
        "agent list",
        "agent show",
        "net",
        "net log",
        "net show",
        "net allow",
        "net deny",
        "net forget",
        "net watch",
        "net suggest",
        "image",
        "bundle",
        "config",
        "doctor",
        "completions",
        "man",
    ] {
        let help = world.cellblock(&format!("{command} --help")).ok();
        assert!(help.contains("Usage: cellblock"), "{help}");
    }
    assert!(world.cellblock("--version").ok().starts_with("cellblock "));
    let _ = world.cellblock("").fails(125);
    world.cellblock("frobnicate").fails(125).says("unrecognized subcommand");
    world.cellblock("rnu -- true").fails(125).says("a similar subcommand exists: 'run'");
    world.cellblock("run --imgae x -- true").fails(125).says("a similar argument exists: '--image'");
    world.cellblock("run").fails(125).says("no command given");
}

#[test]
fn a_dry_run_says_everything_and_starts_nothing() {
    let world = World::new();
    let plan = world.cellblock("run --dry-run -e A=b -v /usr:/u:ro --net host -- make test").ok();
    for part in ["demo-main-make", "make test", "host", "mount /u", "env A", &world.project().display().to_string()] {
        assert!(plan.contains(part), "{part} in {plan}");
    }
    let json: serde_json::Value =
        serde_json::from_str(&world.cellblock("run --dry-run --json -- true").ok()).expect("json");
    assert_eq!(json["cell"]["network"], "names");
    world.cellblock("run --json -- true").fails(125).says("--dry-run");
    assert_eq!(json["cell"]["command"][0], "true");
    assert!(world.leftovers().is_empty());
}

#[test]
fn explain_says_where_each_value_is_from() {
    let world = World::new();
    world.configure("defaults:\n  network: host\n  env: [X=1]\n");
    let text = world.cellblock("run --explain --read-only -- true").ok();
    let line = |word: &str| text.lines().find(|l| l.starts_with(word)).unwrap_or_default().to_owned();
    assert!(line("network").contains("config.yaml:2"), "{text}");
    assert!(line("env X").contains("config.yaml:3"), "{text}");
    assert!(line("read_only").contains("--read-only"), "{text}");
    assert!(line("profile").contains("default"), "{text}");
}

#[test]
fn a_broken_configuration_stops_everything_with_its_line() {
    let world = World::new();
    world.configure("defaults:\n  imgae: host\n");
    world
        .cellblock("run -- true")
        .fails(125)
        .says("config.yaml:2:")
        .says("unknown key `imgae`")
        .says("did you mean `image`?");
    let _ = world.cellblock("config check").fails(125);
    world.configure("defaults:\n  image: host\n");
    world.cellblock("config check").ok();
    assert!(world.cellblock("config path").ok().ends_with("/.config/cellblock/config.yaml\n"));
    assert!(world.cellblock("config show").ok().contains("image: host"));
    serde_json::from_str::<serde_json::Value>(&world.cellblock("config schema").ok()).expect("json");
}

#[test]
fn config_edit_opens_the_editor_and_checks() {
    let world = World::new();
    world.write("home/editor", "#!/bin/sh\necho 'defaults: {imgae: x}' > \"$1\"\n");
    let editor = world.path("home/editor");
    std::fs::set_permissions(&editor, PermissionsExt::from_mode(0o755)).expect("chmod");
    world.cellblock("config edit").env("EDITOR", &editor.display().to_string()).fails(125).says("unknown key `imgae`");
}

#[test]
fn completions_and_manual_pages() {
    let world = World::new();
    for shell in ["bash", "zsh", "fish"] {
        assert!(world.cellblock(&format!("completions {shell}")).ok().contains("cellblock"));
    }
    assert!(world.cellblock("man").ok().contains(".TH"));
    world.cellblock("man -o pages").ok();
    assert!(world.project().join("pages/cellblock-run.1").exists());
}

#[test]
fn doctor_answers() {
    let world = World::new();
    assert!(world.cellblock("doctor").ok().contains("cells can start"));
    let json: serde_json::Value = serde_json::from_str(&world.cellblock("doctor --json").ok()).expect("json");
    assert_eq!(json["can_start"], true);
}

#[test]
fn the_bundle_is_an_oci_bundle() {
    let world = World::new();
    world.cellblock("bundle -o b -- sh -c 'echo hello'").ok();
    let spec: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(world.project().join("b/config.json")).expect("there"))
            .expect("json");
    let mode = std::fs::metadata(world.project().join("b/config.json")).expect("there").permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "variables are often secrets");
    assert_eq!(spec["mounts"][0]["destination"], "/");
    assert_eq!(spec["process"]["noNewPrivileges"], true);
    assert!(spec["linux"]["namespaces"].as_array().expect("list").iter().any(|n| n["type"] == "user"));
    assert!(spec["linux"]["seccomp"]["syscalls"].is_array());
    world.cellblock("bundle -o b -- true").fails(125).says("cannot make");
}

#[test]
fn a_bundle_runs_unchanged_in_runc() {
    let world = World::new();
    let runc = ["/usr/sbin/runc", "/usr/bin/runc"].map(std::path::PathBuf::from).into_iter().find(|p| p.exists());
    let Some(runc) = runc else {
        println!("SKIP: a_bundle_runs_unchanged_in_runc: runc is not installed");
        return;
    };
    world.load_alpine();
    let state = world.path("run/runc").display().to_string();
    for (number, image) in ["host", "alpine"].iter().enumerate() {
        let script = "echo hello; cat file; grep -E Seccomp:.2 /proc/self/status; grep NoNewPrivs /proc/self/status";
        world.cellblock(&format!("bundle --image {image} -o b{number} -- sh -c '{script}'")).ok();
        let name = format!("cb{}-{number}", std::process::id());
        let done = world.call(&runc, &["--root", &state, "run", "--bundle", &format!("b{number}"), &name]).run();
        assert_eq!(done.code(), Some(0), "{image}: {done}");
        for part in ["hello", "content", "Seccomp:\t2", "NoNewPrivs:\t1"] {
            assert!(done.stdout().contains(part), "{image}: {part} in {done}");
        }
    }
}

/// Row B7.
#[test]
fn profiles_add_up_in_their_order() {
    let world = World::new();
    world.configure(
        "defaults: {profile: one, env: [A=defaults, B=defaults]}\n\
         profiles:\n  one: {env: [A=one], network: none}\n  two: {env: [A=two, C=two], mounts: ['/usr/share:/shared:ro']}\n",
    );
    let env = |flags: &str| {
        let out = world
            .cellblock(&format!(
                "run --image host {flags} -- sh -c 'echo $A $B $C; ls -d /shared; grep NoNew /proc/self/status'"
            ))
            .run();
        out.stdout().lines().next().unwrap_or_default().to_owned()
            + if out.stdout().contains("/shared") { " shared" } else { "" }
    };
    assert_eq!(env(""), "one defaults");
    assert_eq!(env("--profile two"), "two defaults two shared");
    assert_eq!(env("--profile two,one"), "one defaults two shared");
    assert_eq!(env("--profile two,strict -e A=flag"), "flag defaults two shared");
    let plan = world.cellblock("run --dry-run --explain --profile strict,two -- true").ok();
    assert!(plan.contains("strict,two") && plan.contains("(profile two)"), "{plan}");
    assert!(
        world.cellblock("run --dry-run --json --profile strict,two -- true").ok().contains("\"profile\": \"strict\"")
    );
    world
        .cellblock("run --profile strickt -- true")
        .fails(125)
        .says("there is no profile \"strickt\"")
        .says("did you mean `strict`?");
    world.cellblock("run --profile A -- true").fails(125).says("profiles are at most");
}
