//! What a command finds inside: user, environment, names, namespaces (rows A7, A12, A13, C1, C7, D2, D5, D6, D11).

use cellblock_tests::{World, has_range, is_root};

fn own(flag: &str) -> String {
    let output = std::process::Command::new("id").arg(flag).output().expect("id");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

#[test]
fn the_same_user_inside_as_outside() {
    let world = World::new();
    assert_eq!(world.cellblock("run -- id -u").ok().trim(), own("-u"));
    assert_eq!(world.cellblock("run -- id -un").ok().trim(), own("-un"));
    world.load_alpine();
    assert_eq!(world.cellblock("run --image alpine -- id -u").ok().trim(), own("-u"));
    let single = world.cellblock("run --image alpine --userns single -- id -u");
    if is_root() {
        // Root alone, as itself, would be root of the host: that has another name.
        let _ = single.fails(125);
    } else {
        assert_eq!(single.ok().trim(), own("-u"));
    }
}

#[test]
fn files_made_in_the_workspace_belong_to_the_person() {
    use std::os::unix::fs::MetadataExt;
    let world = World::new();
    world.load_alpine();
    for (number, flags) in ["", "--image alpine", "--image alpine -u root", "--image host -u root"].iter().enumerate() {
        world.cellblock(&format!("run {flags} -- sh -c 'echo made > made{number}'")).ok();
        let made = std::fs::metadata(world.project().join(format!("made{number}"))).expect("made inside");
        assert_eq!(made.uid().to_string(), own("-u"), "{flags}");
        assert_eq!(made.gid().to_string(), own("-g"), "{flags}");
    }
}

#[test]
fn root_inside_is_nobody_special_outside() {
    let world = World::new();
    assert_eq!(world.cellblock("run -u root -- id -u").ok().trim(), "0");
    let map = world.cellblock("run -u root -- cat /proc/self/uid_map").ok();
    let outside = map.split_whitespace().nth(1).expect("a map");
    assert_ne!(outside, if is_root() { "0" } else { "-" }, "root inside must not be root of the host");
}

#[test]
fn other_users_need_a_range() {
    let world = World::new();
    world.load_alpine();
    let call = world.cellblock("run --image alpine -u 33:33 -- id");
    if has_range() || is_root() {
        assert!(call.ok().starts_with("uid=33"));
    } else {
        call.fails(125).says("needs more ids than your own").says("hint:");
    }
}

#[test]
fn the_environment_is_a_list_and_nothing_else() {
    let world = World::new();
    let env =
        |line: &str| world.cellblock(line).env("SECRET", "s3cret").env("LANG", "C.UTF-8").env("WANTED", "yes").ok();
    let plain = env("run -- env");
    assert!(plain.contains("LANG=C.UTF-8"), "{plain}");
    assert!(!plain.contains("s3cret") && !plain.contains("WANTED"), "{plain}");
    for name in ["HOME=", "USER=", "PATH=", "SHELL=", "TERM=", "container=cellblock", "CELLBLOCK_NAME=demo-main-env"] {
        assert!(plain.contains(name), "{name} in {plain}");
    }
    assert!(env("run -e WANTED -e A=b=c -- env").contains("WANTED=yes"));
    assert!(env("run -e WANTED -e A=b=c -- env").contains("A=b=c"));
    let extra = world.cellblock("run -- env").env("CELLBLOCK_EXTRA_ENV", "WANTED,OTHER").env("WANTED", "yes").ok();
    assert!(extra.contains("WANTED=yes"), "{extra}");
}

#[test]
fn the_path_holds_only_what_exists_inside() {
    let world = World::new();
    world.write("home/bin/tool", "#!/bin/sh\n");
    let path = world
        .cellblock("run -- sh -c 'echo $PATH'")
        .env("PATH", &format!("{}:/usr/bin:/nowhere:/bin", world.path("home/bin").display()))
        .ok();
    for dir in path.trim().split(':') {
        let there = world.cellblock(&format!("run -- test -d {dir}")).run();
        assert_eq!(there.code(), Some(0), "{dir} of {path}");
    }
    assert!(!path.contains("nowhere") && !path.contains("home/bin"), "{path}");
}

#[test]
fn the_usual_places_are_there_in_every_image() {
    let world = World::new();
    world.load_alpine();
    for image in ["host", "alpine"] {
        for check in [
            "test -x /usr/bin/env",
            "test -x /bin/sh",
            "test -w /tmp",
            "test -c /dev/null",
            "test -c /dev/urandom",
            "test -e /dev/stdin",
            "test -d /proc/self",
            "test -r /etc/passwd",
            "test -r /etc/hosts",
            "test -r /etc/resolv.conf",
            "test -s /etc/machine-id",
            "test -w /dev/shm",
            "test -e /dev/ptmx",
        ] {
            world.cellblock(&format!("run --image {image} -- {check}")).ok();
        }
        let hosts = world.cellblock(&format!("run --image {image} -- cat /etc/hosts")).ok();
        assert!(hosts.contains("127.0.0.1\tlocalhost"), "{hosts}");
        assert!(
            !world.cellblock(&format!("run --image {image} -- sh -c 'grep ^$(id -un): /etc/passwd'")).ok().is_empty()
        );
        // A home of one's own, empty, writable.
        world.cellblock(&format!("run --image {image} -- sh -c 'touch ~/x'")).ok();
    }
}

#[test]
fn certificates_are_in_place_on_the_host_image() {
    let world = World::new();
    if std::path::Path::new("/etc/ssl/certs/ca-certificates.crt").exists() {
        world.cellblock("run --image host -- test -s /etc/ssl/certs/ca-certificates.crt").ok();
    }
}

#[test]
fn the_network_is_the_cells_own_none_or_the_hosts() {
    let world = World::new();
    let interfaces = |flags: &str| {
        world
            .cellblock(&format!("run {flags} -- sh -c 'tail -n +3 /proc/net/dev | cut -d: -f1'"))
            .ok()
            .split_whitespace()
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    assert_eq!(interfaces("--net none"), ["lo"]);
    assert_eq!(interfaces(""), ["lo", "eth0"]);
    // IFF_UP | IFF_LOOPBACK: servers and tests inside find each other at 127.0.0.1.
    assert_eq!(world.cellblock("run -- cat /sys/class/net/lo/flags").ok(), "0x9\n");
    let namespace = |flags: &str| world.cellblock(&format!("run {flags} -- readlink /proc/self/ns/net")).ok();
    let host = std::fs::read_link("/proc/self/ns/net").expect("namespace").display().to_string();
    assert_ne!(namespace("").trim(), host);
    assert_eq!(namespace("--net host").trim(), host);
    world.cellblock("run --net host -- true").run().says("THE HOST'S");
}

#[test]
fn every_namespace_is_its_own() {
    let world = World::new();
    for kind in ["user", "pid", "mnt", "ipc", "uts", "net", "cgroup"] {
        let host = std::fs::read_link(format!("/proc/self/ns/{kind}")).expect("namespace").display().to_string();
        assert_ne!(world.cellblock(&format!("run -- readlink /proc/self/ns/{kind}")).ok().trim(), host, "{kind}");
    }
}

#[test]
fn the_configuration_is_applied_and_flags_win() {
    let world = World::new();
    let project = world.project().display().to_string();
    world.write("home/libs/a", "shared");
    world.configure(&format!("defaults:\n  env: [MIX_ENV=dev, DATABASE_URL]\nprojects:\n  demo:\n    path: {project}\n    mounts: [~/libs:/shared-libs:ro]\n    env: [FROM=project]\n"));
    let env = world.cellblock("run -e FROM=flag -- env").env("DATABASE_URL", "pg://x").ok();
    for expected in ["MIX_ENV=dev", "DATABASE_URL=pg://x", "FROM=flag"] {
        assert!(env.contains(expected), "{expected} in {env}");
    }
    assert_eq!(world.cellblock("run -- cat /shared-libs/a").ok(), "shared");
    world.cellblock("run -- sh -c 'echo x > /shared-libs/a'").run().says("Read-only file system");
    assert_eq!(std::fs::read_to_string(world.path("home/libs/a")).expect("there"), "shared");
}

/// Row D3: who the person is for git in this project, and nothing that their own configuration has besides.
#[test]
fn the_gitconfig_says_who_the_person_is_and_nothing_else() {
    let world = World::new();
    let seen = || {
        let done = world.cellblock("run --image host --net none -- sh -c 'cat ~/.gitconfig; git config --global user.name Else; git config user.name'").run();
        assert_eq!(done.code(), Some(0), "{done}");
        done.stdout()
    };
    let safe = "# Written by cellblock for this cell.\n[safe]\n\tdirectory = *\n";
    world.call(std::path::Path::new("rm"), &["-r", ".git"]).ok();
    world.call(std::path::Path::new("git"), &["init", "-q"]).ok();
    assert_eq!(seen(), format!("{safe}Else\n"), "nobody is known");
    let demo = world.project().display().to_string();
    world.write(
        "home/.gitconfig",
        &format!(
            "[user]\n\tname = Ada \\\"L\\\"\n\temail = ada@home\n\tsigningKey = K\n[alias]\n\tst = !touch x\n[credential]\n\thelper = store\n\
             [core]\n\thooksPath = ~/hooks\n\tpager = evil\n[url \"git@x:\"]\n\tinsteadOf = https://x/\n[includeIf \"gitdir:{demo}/\"]\n\tpath = ~/work.inc\n"
        ),
    );
    world.write("home/work.inc", "[user]\n\temail = ada@work\n[http]\n\tproxy = http://evil\n");
    let before = std::fs::read_to_string(world.path("home/.gitconfig")).expect("there");
    assert_eq!(seen(), format!("{safe}[user]\n\tname = \"Ada \\\"L\\\"\"\n\temail = \"ada@work\"\nElse\n"));
    assert_eq!(
        std::fs::read_to_string(world.path("home/.gitconfig")).expect("there"),
        before,
        "the person's is theirs"
    );
}

/// Row D10.
#[test]
fn an_agent_is_told_where_it_is() {
    let world = World::new();
    world.load_alpine();
    for image in ["host", "alpine"] {
        let text = world.cellblock(&format!("run --image {image} -- cat /etc/cellblock/SANDBOX.md")).ok();
        let project = format!("- `{}`: the person's own files.", world.project().display());
        for part in
            ["# You are in a cell", &project, "cellblock net allow HOST demo-main-cat", "gone when the cell ends"]
        {
            assert!(text.contains(part), "{part} in {text}");
        }
    }
    let text = world.cellblock("run --net none --name kept -- cat /etc/cellblock/SANDBOX.md").ok();
    assert!(text.contains("None, but 127.0.0.1") && text.contains("is kept for the next cell"), "{text}");
    // It is no place to write to.
    let _ = world.cellblock("run --image host -- sh -c 'echo x > /etc/cellblock/SANDBOX.md'").run();
    assert!(world.cellblock("run --image host -- cat /etc/cellblock/SANDBOX.md").ok().starts_with("# You are"));
}

/// `/etc/profile` of an image sets a `PATH` of its own; the cell's is what was said.
#[test]
fn login_shells_have_the_cells_path() {
    let world = World::new();
    world.load_alpine();
    for image in ["host", "alpine"] {
        let said =
            world.cellblock(&format!("run --image {image} -e PATH=/x/$(y):/usr/bin:/bin -- sh -lc 'echo $PATH'")).ok();
        assert_eq!(said, "/x/$(y):/usr/bin:/bin\n", "{image}");
    }
    // The twin: without the file a login shell has Alpine's.
    let root = if is_root() || has_range() { "-u root" } else { "-u root --userns single" };
    let without = "rm /etc/profile.d/zz-cellblock.sh; sh -lc \"printenv PATH\"";
    let said = world.cellblock(&format!("run --image alpine {root} -e PATH=/x:/bin -- sh -c '{without}'")).ok();
    assert!(!said.contains("/x"), "{said}");
}
