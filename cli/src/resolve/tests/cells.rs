//! Whole cells, precedence, names and refusals.

use super::*;

/// Compares with `golden/NAME.json`, so that any change of what a command line means shows in review. `CELLBLOCK_BLESS=1` writes it anew.
fn golden(name: &str, resolved: &Resolved) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/resolve/tests/golden").join(name).with_extension("json");
    let mut cell = resolved.cell.clone();
    if name != "command" {
        // The same list in each.
        cell.protect.names.clear();
        cell.protect.git_names.clear();
    }
    let got = serde_json::to_string_pretty(&cell).unwrap() + "\n";
    if std::env::var_os("CELLBLOCK_BLESS").is_some() {
        std::fs::write(&path, &got).unwrap();
    }
    let want = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    assert_eq!(got, want, "{name}");
}

#[test]
fn typical_command_lines() {
    let world = World::new();
    golden("command", &world.run("-- make test"));
    golden("agent", &world.run("claude-code -- --help"));
    let host = World { image: World::host_image(), ..world.clone() };
    golden("host-image", &host.run("--image host -- ls"));
    golden("root", &world.run("-u root --read-only --no-project -m 512m --cpus 1.5 --pids 64 -- apk add git"));
    let real_root = HostFacts {
        uid: 0,
        gid: 0,
        user: "root".into(),
        group: "root".into(),
        home: "/root".into(),
        real_root: true,
        ..world.host.clone()
    };
    golden("real-root", &World { host: real_root, ..world.clone() }.run("-- id"));
    let config = "defaults:\n  env: [MIX_ENV=dev, DATABASE_URL]\nprojects:\n  web:\n    path: ~/web\n    network: host\n    mounts: [~/work/shared-libs:/shared-libs:ro]\n";
    golden("configured", &world.config(config).run("-- mix test"));
}

#[test]
fn another_home_and_another_place() {
    let mut world = World::new();
    world.files.dir("/home/ada/.claude");
    world.files.dir("/home/ada/cells");
    world.files.dir("/home/ada");
    world.files.dir("/home/ada/logs");
    world.files.dir("/home/ada/web/.git");
    golden(
        "placed",
        &world.run("--home workspace --project-path /work --unprotect .vscode --log-dir ~/logs claude-code"),
    );
    let got = world.run("--home ~/cells -- sh");
    assert_eq!(
        (got.cell.user.home.as_path(), got.cell.own_home()),
        (Path::new("/home/ada/cells"), Path::new("/home/ada"))
    );
    assert_eq!(got.why("home"), "/home/ada/cells (--home)");
    assert_eq!(got.cell.env["GIT_CONFIG_GLOBAL"], "/home/ada/.gitconfig");
    // A home with settings of git's has those.
    world.files.file("/home/ada/cells/.gitconfig");
    assert!(!world.run("--home ~/cells -- sh").cell.env.contains_key("GIT_CONFIG_GLOBAL"));
    assert_eq!(world.run("-- sh").cell.own_home, None, "as ever");
    let told = world.told("--home ~ -- sh");
    assert!(told.contains("whole home directory") && told.contains("--force-project"), "{told}");
    assert!(world.told("--force-project --home /proc/1 -- sh").contains("cannot be used"));
    assert!(world.told("--no-project --home workspace -- sh").contains("there is none"));
    assert!(world.told("--log-dir /home/ada/web -- sh").contains("could change what its logs say"));
    let configured = world.clone().config("defaults: {project_path: /work, home: ~/cells}\n");
    let got = configured.run("--no-project -- sh");
    assert_eq!(got.cell.workdir, Path::new("/home/ada/cells"), "without a project the word means nothing");
    assert_eq!(configured.run("-- sh").cell.workdir, Path::new("/work/src"));
}

#[test]
fn an_overlay_is_apart_from_what_can_be_written_and_its_secrets_are_covered() {
    let mut world = World::new().config("defaults: {overlay: ~/over, secret_paths: [~/over/keys]}\n");
    world.files.dir("/home/ada/over");
    world.files.dir("/home/ada/over/keys");
    world.files.dir("/home/ada/over/home/ada/web/x");
    let got = world.run("-- sh");
    assert_eq!(got.cell.overlay.as_deref(), Some(Path::new("/home/ada/over")));
    assert_eq!(got.why("overlay"), "/home/ada/over (/c.yaml:1)");
    let mask = Mount::Mask { target: "/keys".into(), directory: true };
    assert!(got.cell.mounts.contains(&mask), "{:?}", got.cell.mounts);
    assert!(got.cell.mounts.iter().all(|mount| mount.target() != Path::new("/")), "the stand-in is gone");
    world.files.file("/home/ada/over/etc");
    assert!(world.told("-- sh").contains("would hide the root's"));
    let mut world = World::new();
    world.files.dir("/home/ada");
    world.files.dir("/usr");
    for (dir, want) in [
        ("/home/ada/web/src", "must not change while it is mounted"),
        ("~", "whole home directory"),
        ("/usr", "folder of the system"),
        ("/home/ada/.npmrc", "cannot be used"),
        ("/gone", "cannot be used"),
    ] {
        let told = world.told(&format!("--overlay {dir} -- sh"));
        assert!(told.contains(want), "{dir}: {told}");
    }
}

#[test]
fn what_may_be_reached_is_the_nearest_list_and_what_the_flags_add() {
    let rules = |world: &World, line: &str| {
        let cell = world.run(line).cell;
        let words = |list: &[cellblock_bundle::Said]| list.iter().map(|s| s.rule.clone()).collect::<Vec<_>>().join(" ");
        format!("{} | {}", words(&cell.reach.allow), words(&cell.reach.deny))
    };
    let world = World::new();
    assert_eq!(rules(&world, "-- true"), "@dev | ");
    assert_eq!(rules(&world, "--allow a.example:22 --deny b.example -- true"), "@dev a.example:22 | b.example");
    assert_eq!(rules(&world, "--no-default-allow --allow a.example -- true"), "a.example | ");
    assert_eq!(rules(&world, "--net none -- true"), " | ");
    let config = "defaults:\n  allow: [a.example]\n  deny: [x.example]\nprojects:\n  web:\n    path: ~/web\n    allow: []\n    deny: [y.example]\n";
    let world = World::new().config(config);
    assert_eq!(rules(&world, "-- true"), " | x.example y.example", "an empty list is nothing; denials add up");
    assert_eq!(rules(&world, "--no-project -- true"), "a.example | x.example");
    assert_eq!(rules(&world, "--allow c.example -- true"), "c.example | x.example y.example");
    let told = World::new().told("--net host --allow a.example -- true");
    assert!(told.starts_with("--allow has no meaning with the network `host`"), "{told}");
    let config = "defaults:\n  allow_file: ~/web/allowed\n";
    let told = World::new().config(config).told("-- true");
    assert!(told.contains("lies in the project"), "{told}");
}

#[test]
fn the_stronger_word_counts() {
    let config = "defaults:\n  profile: strict\n  network: host\n  pids: 10\n  read_only: true\nprojects:\n  site:\n    path: $HOME/web\n    network: none\n    hostname: box\n";
    let world = World::new().config(config).env("CELLBLOCK_PROFILE", "default").env("CELLBLOCK_MEMORY", "1g");
    let got = world.run("--pids 20 -- true");
    let cases = [
        ("profile", "default ($CELLBLOCK_PROFILE)"),
        ("network", "none (/c.yaml:9 (project site))"),
        ("hostname", "box (/c.yaml:10 (project site))"),
        ("pids", "20 (--pids-limit)"),
        ("memory", "1073741824 bytes ($CELLBLOCK_MEMORY)"),
        ("read_only", "true (/c.yaml:5)"),
        ("init", "true (default)"),
        ("image", "alpine:3.20.3 (default)"),
        ("workdir", "/home/ada/web/src (the project)"),
        ("userns", "range (default)"),
        ("user", "ada (1000:1000) (default)"),
        ("command", "true (the command line)"),
    ];
    for (key, want) in cases {
        assert_eq!(got.why(key), want, "{key}");
    }
    assert_eq!(world.run("--profile strict -- true").why("profile"), "strict (--profile)");
    assert_eq!(
        world.env("CELLBLOCK_NETWORK", "nat").told("-- true"),
        "invalid value \"nat\" for $CELLBLOCK_NETWORK: it is one of names, none, bridge, host"
    );
}

#[test]
fn a_project_of_the_configuration_is_found_by_its_path_only() {
    let network = |world: &World| world.run("-- true").cell.network;
    let near = "projects:\n  all: {path: '~', network: none}\n  web: {path: ~/web, network: host}\n";
    let mut world = World::new().config(near);
    world.files.dir("/home/ada");
    assert_eq!(network(&world), Network::Host, "the nearest path counts");
    let named = World::new().config("projects:\n  web: {path: /srv/data, network: host}\n");
    assert_eq!(network(&named), Network::Names, "the name alone does not count");
    let gone = World::new().config("projects:\n  web: {path: /gone, network: host}\n");
    assert_eq!(network(&gone), Network::Names, "a path that is not there is not this folder");
    // A worktree elsewhere belongs to its repository's project.
    let mut linked = World::new().config(near);
    let project = linked.project.as_mut().unwrap();
    project.root = "/srv/data/x".into();
    project.cwd = "/srv/data/x".into();
    assert_eq!(network(&linked), Network::Host);
    assert_eq!(
        World::new().config("projects:\n  a: {path: ~/web}\n  b: {path: /home/ada/web/.}\n").told("-- true"),
        "the projects `a` and `b` of the configuration have the same path /home/ada/web"
    );
    assert_eq!(
        World::new().config("projects:\n  a: {path: web}\n").told("-- true"),
        "/c.yaml:2: the project's path \"web\" must be absolute, or begin with ~ or a variable"
    );
    assert_eq!(
        World::new().config("projects:\n  a: {path: $NOWHERE/web}\n").told("-- true"),
        "/c.yaml:2: cannot expand \"$NOWHERE/web\": $NOWHERE is not set"
    );
}

#[test]
fn images_as_asked_for() {
    let world = World::new();
    let request = |world: &World, line: &str| {
        let config = crate::config::parse(Path::new("/c.yaml"), &world.config).unwrap();
        let typed = typed(line);
        let project = world.project.as_ref().filter(|_| !typed.cell.no_project);
        let inputs =
            Inputs { typed: &typed, config: &config, agent: None, project, host: &world.host, files: &world.files };
        image(inputs).map(|wanted| (wanted.request.value.to_string(), wanted.request.origin.to_string()))
    };
    let cases = [
        ("-- x", "auto", "default"),
        ("--image host -- x", "host", "--image"),
        ("--image alpine:3.20 -- x", "alpine:3.20", "--image"),
        ("--image ./r.tar.gz -- x", "/home/ada/web/src/./r.tar.gz", "--image"),
        ("--image ~/r -- x", "/home/ada/r", "--image"),
        ("--image /a$b -- x", "/a$b", "--image"),
    ];
    for (line, want, origin) in cases {
        assert_eq!(request(&world, line).unwrap(), (want.to_owned(), origin.to_owned()), "{line}");
    }
    let configured = world.clone().config("defaults: {image: ./r, alpine_mirror: 'https://m/'}");
    assert_eq!(request(&configured, "-- x").unwrap().0, "/home/ada/web/./r");
    assert_eq!(
        request(&configured, "--no-project -- x").unwrap_err().to_string(),
        "/c.yaml:1: \"./r\" is relative to the project, and there is none"
    );
    assert_eq!(
        request(&world.env("CELLBLOCK_IMAGE", "host"), "-- x").unwrap(),
        ("host".into(), "$CELLBLOCK_IMAGE".into())
    );
}

#[test]
fn names_follow_the_words_and_can_be_changed() {
    let world = World::new();
    for (line, want) in [
        ("-- /usr/bin/make", "web-main-make"),
        ("claude-code -- x", "web-main-claude-code"),
        ("--no-project -- sh", "sh"),
        ("--entrypoint /bin/cat -- x", "web-main-cat"),
        ("--name mine -- sh", "mine"),
    ] {
        let got = world.run(line);
        assert_eq!((got.cell.name.as_str(), got.named), (want, line.contains("--name")), "{line}");
    }
    let mut got = world.run("-- sh");
    got.rename("web-main-sh-2");
    assert_eq!((got.cell.name.as_str(), got.cell.hostname.as_str()), ("web-main-sh-2", "web-main-sh-2"));
    assert_eq!(got.cell.env["CELLBLOCK_NAME"], "web-main-sh-2");
    assert_eq!(got.why("env CELLBLOCK_NAME"), "web-main-sh-2 (default)");
    let mut got = world.run("--hostname box -e CELLBLOCK_NAME=mine -- sh");
    got.rename("other");
    assert_eq!((got.cell.hostname.as_str(), got.cell.env["CELLBLOCK_NAME"].as_str()), ("box", "mine"));
}

#[test]
fn commands() {
    let world = World::new();
    let command = |line: &str| world.run(line).cell.command;
    assert_eq!(command("--entrypoint cat -- a b"), ["cat", "a", "b"]);
    assert_eq!(command("--entrypoint cat claude-code a"), ["cat", "a"]);
    assert_eq!(command("--entrypoint cat"), ["cat"]);
    let shell = |image: ImageFacts, config: &str| {
        let world = World { image, ..World::new() }.config(config);
        let config = crate::config::parse(Path::new("/c.yaml"), &world.config).unwrap();
        let typed = Typed::default();
        let inputs = Inputs {
            typed: &typed,
            config: &config,
            agent: None,
            project: None,
            host: &world.host,
            files: &world.files,
        };
        let resolved = resolve(inputs, &image_wanted(), &world.image).unwrap();
        assert_eq!(resolved.cell.env["SHELL"], resolved.cell.command[0]);
        resolved.cell.command
    };
    assert_eq!(shell(World::host_image(), ""), ["/usr/bin/zsh"]);
    assert_eq!(shell(World::alpine(), ""), ["/bin/sh"]);
    assert_eq!(shell(World::alpine(), "defaults: {shell: /bin/ash}"), ["/bin/ash"]);
    assert_eq!(
        world.told(""),
        "there is no command to run\n  hint: `cellblock run -- COMMAND` runs a command, `cellblock run AGENT` an agent, `cellblock shell` a shell"
    );
    assert_eq!(world.told("--entrypoint= -- x"), "the program's name is empty");
}

fn image_wanted() -> ImageWanted {
    ImageWanted { request: Sourced { value: ImageRequest::Auto, origin: Origin::Default }, alpine_mirror: None }
}

#[test]
fn terminals() {
    let world = World::new();
    let piped = World { host: HostFacts { stdout_terminal: false, ..world.host.clone() }, ..world.clone() };
    for (world, line, want) in [
        (&world, "-- x", true),
        (&piped, "-- x", false),
        (&piped, "-t -- x", true),
        (&world, "--tty=never -- x", false),
        (&world, "-d -- x", false),
        (&world, "-d --tty=auto -- x", false),
    ] {
        assert_eq!(world.run(line).cell.terminal, want, "{line}");
    }
    assert_eq!(
        world.told("-d --tty -- x"),
        "--tty=always cannot be used with --detach: there is no terminal to stand behind it"
    );
}

#[test]
fn labels_add_up() {
    let world = World::new()
        .config("defaults:\n  labels: {a: '1', b: '1'}\nprojects:\n  w: {path: ~/web, labels: {b: '2', c: '2'}}\n");
    let got = world.run("-l c=3 codex");
    let want = [
        ("a", "1"),
        ("b", "2"),
        ("c", "3"),
        ("cellblock.agent", "codex"),
        ("cellblock.branch", "main"),
        ("cellblock.project", "web"),
        ("cellblock.project.id", &world.project.as_ref().unwrap().id),
        ("cellblock.project.root", "/home/ada/web"),
    ];
    assert_eq!(got.cell.labels, want.map(|(k, v)| (k.to_owned(), v.to_owned())).into());
    assert_eq!(got.why("label b"), "2 (/c.yaml:4 (project w))");
}

#[test]
fn folders_that_are_no_project_are_refused_here_too() {
    let at = |path: &str| {
        let mut world = World::new();
        let project = world.project.as_mut().unwrap();
        project.root = path.into();
        project.cwd = path.into();
        world.files.dir(path);
        world
    };
    assert_eq!(
        at("/home/ada").told("-- x"),
        "/home/ada as a project would give the cell your whole home directory, with keys and passwords\n  \
         hint: go to a project's folder, use --no-project, or insist with --force-project"
    );
    assert_eq!(at("/home/ada").run("--force-project -- x").cell.workdir, Path::new("/home/ada"));
    assert_eq!(
        at("/").told("--force-project -- x"),
        "/ cannot be a project: the cell would get the whole machine\n  hint: go to a project's folder, or use --no-project"
    );
    assert_eq!(
        at("/home/ada/.config").told("-- x"),
        "/home/ada/.config as a project would give the cell cellblock's own files in /home/ada/.config/cellblock\n  \
         hint: go to a project's folder, use --no-project, or insist with --force-project"
    );
    assert!(at("/home/ada").run("--no-project -- x").cell.project.is_none());
}

#[test]
fn how_it_is_started_is_handed_on() {
    let got = World::new().run("-d --keep -y --dry-run --explain --json -- x").start;
    let want = StartFlags {
        detach: true,
        rm: false,
        keep: true,
        yes: true,
        dry_run: true,
        check: false,
        explain: true,
        json: true,
    };
    assert_eq!(got, want);
    assert_eq!(World::new().run("-- x").start, StartFlags::default());
}
