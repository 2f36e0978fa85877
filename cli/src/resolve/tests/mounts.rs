//! What is mounted, where, in which order, and what is refused.

use super::*;

fn binds(resolved: &Resolved) -> Vec<(String, String, &'static str)> {
    let text = |path: &Path| path.display().to_string();
    let words = |mount: &Mount| match mount {
        Mount::Bind { source, target, writable } => (text(source), text(target), if *writable { "rw" } else { "ro" }),
        Mount::Tmpfs { target, .. } => ("-".to_owned(), text(target), "tmpfs"),
        Mount::Layers { target, .. } => ("-".to_owned(), text(target), "layers"),
        Mount::Mask { target, .. } => ("-".to_owned(), text(target), "mask"),
    };
    resolved.cell.mounts.iter().map(words).collect()
}

fn list(line: &str, world: &World) -> Vec<String> {
    // What stands in the repository has tests of its own.
    let outside = |bind: &(String, String, &str)| !bind.1.contains("/.git");
    binds(&world.run(line))
        .into_iter()
        .filter(outside)
        .map(|(source, target, mode)| format!("{source} {target} {mode}"))
        .collect()
}

#[test]
fn the_workspace_stands_at_its_own_path() {
    assert_eq!(list("-- x", &World::new()), ["/home/ada/web /home/ada/web rw"]);
    assert_eq!(list("--no-project -- x", &World::new()), [""; 0]);
    assert_eq!(World::new().run("--no-project -- x").cell.workdir, Path::new("/home/ada"));
}

#[test]
fn sources_are_expanded_and_found() {
    let mut world =
        World::new().config("defaults:\n  mounts: [~/work/shared-libs:/shared-libs:ro, $HOME/libs, ./cache:/cache]\n");
    world.files.dir("/home/ada/web/cache");
    world.files.dir("/home/ada/web/src/here");
    world.files.link("/home/ada/web/up", "/srv/data", true);
    world.files.link("/home/ada/web/src/../../up", "/srv/data", true);
    world.files.link("/home/ada/link", "/srv/data", true);
    assert_eq!(
        list("-v ./here:/here -v ~/.npmrc:/home/ada/.npmrc:ro -v /home/ada/link:ro -v ../../up -- x", &world),
        [
            "/home/ada/work/shared-libs /shared-libs ro",
            "/home/ada/web/cache /cache rw",
            "/home/ada/web/src/here /here rw",
            // `..` is taken out with the links.
            "/srv/data /srv/data rw",
            "/home/ada/web /home/ada/web rw",
            "/home/ada/libs /home/ada/libs rw",
            "/home/ada/.npmrc /home/ada/.npmrc ro",
            "/srv/data /home/ada/link ro",
        ]
    );
}

#[test]
fn layers_replace_and_empty_folders_come_with_a_read_only_root() {
    let config =
        "defaults:\n  mounts: [/srv/data:/data]\nprojects:\n  w: {path: ~/web, mounts: [/home/ada/libs:/data:ro]}\n";
    let world = World::new().config(config);
    assert_eq!(list("-- x", &world)[0], "/home/ada/libs /data ro");
    assert_eq!(list("--tmpfs /data:size=1m -- x", &world)[0], "- /data tmpfs");
    assert_eq!(
        list("--read-only -v /srv/data:/run -- x", &World::new()),
        ["/srv/data /run rw", "- /tmp tmpfs", "- /var/tmp tmpfs", "/home/ada/web /home/ada/web rw"]
    );
}

#[test]
fn wrong_mounts_are_told() {
    let mut world = World::new();
    world.files.dir("/home/ada/.local");
    world.files.dir("/run/user/1000/cellblock/cells");
    world.files.dir("/run/user/1000");
    let cases = [
        (
            "-v /gone:/x -- x",
            "--volume: /gone cannot be used\n  hint: a mount's source must exist; for a new folder: mkdir -p /gone",
        ),
        ("-v /srv/data:/ -- x", "--volume: nothing can be mounted on /: it is the image's place"),
        (
            "-v /srv/data:/proc/sys -- x",
            "--volume: nothing can be mounted on /proc/sys: the kernel's file systems are there",
        ),
        ("--tmpfs /dev/shm -- x", "--tmpfs: nothing can be mounted on /dev/shm: the kernel's file systems are there"),
        (
            "-v /srv/data:/etc/passwd -- x",
            "--volume: nothing can be mounted on /etc/passwd: cellblock writes it for each cell",
        ),
        ("-v /srv/data:/etc -- x", "--volume: nothing can be mounted on /etc: cellblock writes it for each cell"),
        ("-v /srv/data:/d -v /home/ada/libs:/d -- x", "--volume: /d is mounted twice, first by --volume"),
        ("-v /srv/data:/d --tmpfs /d -- x", "--tmpfs: /d is mounted twice, first by --volume"),
        ("-v /srv/data:/home/ada/web -- x", "--volume: /home/ada/web is mounted twice, first by the project"),
        (
            "-v /srv/data:/home/ada/web/new -- x",
            "--volume: /home/ada/web/new lies in /home/ada/web, which is the host's, and is not there\n  \
             hint: create /home/ada/web/new on the host first: a folder for a folder, a file for a file, no link",
        ),
        (
            "-v /home/ada/.npmrc:/home/ada/web/src -- x",
            "--volume: /home/ada/web/src lies in /home/ada/web, which is the host's, and is not there\n  \
             hint: create /home/ada/web/src on the host first: a folder for a folder, a file for a file, no link",
        ),
        (
            "-v ~/.local:/l -- x",
            "--volume: /home/ada/.local holds cellblock's own files in /home/ada/.local/share/cellblock: a cell could change what cells may do\n  \
             hint: mount a narrower folder, or add :ro",
        ),
        (
            "-v ~eve/x:/x -- x",
            "--volume: cannot expand \"~eve/x\": `~` stands for your own home directory only; write another one's in full",
        ),
    ];
    for (line, want) in cases {
        assert_eq!(world.told(line), want, "{line}");
    }
    // Read-only is enough for what is only stored, not for control sockets.
    assert_eq!(list("-v ~/.local:/l:ro -- x", &world)[0], "/home/ada/.local /l ro");
    for line in ["-v /run/user/1000/cellblock/cells:/r:ro -- x", "-v /run/user/1000:/r:ro -- x"] {
        assert!(matches!(world.try_run(line), Err(ResolveError::OwnFiles { .. })), "{line}");
    }
    // The twin: with a place of the same kind it works.
    assert_eq!(list("-v /srv/data:/home/ada/web/src -- x", &world)[1], "/srv/data /home/ada/web/src rw");
}

#[test]
fn a_project_does_not_choose_what_is_mounted() {
    let mut world = World::new().config("defaults:\n  mounts: [./cache:/cache]\n");
    world.files.link("/home/ada/web/cache", "/home/ada/.ssh", true);
    assert_eq!(
        world.told("-- x"),
        "/c.yaml:2: a link leads \"/home/ada/web/cache\" out of the project or repository it is in, to /home/ada/.ssh\n  hint: if you mean it, write /home/ada/.ssh in full"
    );
    // By whatever words: on the command line, from another repository, as a home, for logs, below the root.
    world.config.clear();
    world.files.dir("/home/ada/p2/.git");
    world.files.dir("/home/ada/p2");
    world.files.link("/home/ada/p2/cache", "/home/ada/.ssh", true);
    for line in [
        "-v /home/ada/web/cache:/c:ro -- x",
        "--share /home/ada/p2/cache -- x",
        "--home /home/ada/web/cache -- x",
        "--log-dir /home/ada/p2/cache -- x",
        "--overlay /home/ada/p2/cache -- x",
    ] {
        assert!(matches!(world.try_run(line), Err(ResolveError::LeadsOut { .. })), "{line}");
    }
    // The twins: a link within the repository, and one that is the person's own.
    world.files.link("/home/ada/p2/inner", "/home/ada/p2/data", true);
    world.files.link("/home/ada/stuff", "/srv/data", true);
    assert_eq!(list("-v /home/ada/p2/inner:/i -v /home/ada/stuff:/s -- x", &world).len(), 3);
    // A mount point that is a link could be turned elsewhere from inside.
    world.config.clear();
    assert!(matches!(world.try_run("-v /srv/data:/home/ada/web/cache -- x"), Err(ResolveError::NoPlace { .. })));
    assert_eq!(
        World::new().config("defaults:\n  mounts: [./x:/x]\n").told("--no-project -- x"),
        "/c.yaml:2: \"./x\" is relative to the project, and there is none"
    );
    assert_eq!(
        World::new().config("defaults:\n  mounts: ['$GONE/x:/x']\n").told("-- x"),
        "/c.yaml:2: cannot expand \"$GONE/x\": $GONE is not set"
    );
}

#[test]
fn what_is_shared_stands_at_its_own_path_and_may_be_missing() {
    let mut world = World::new().config("defaults:\n  share: [~/.cargo, ~/.rustup]\n  mounts: [/srv/data:/data]\n");
    world.files.dir("/home/ada/.cargo");
    world.files.link("/home/ada/.tools", "/srv/data", true);
    let got = world.run("--share ~/.tools --share ../gone -- x");
    assert_eq!(
        list("--share ~/.tools -- x", &world),
        [
            "/srv/data /data rw",
            "/home/ada/web /home/ada/web rw",
            "/home/ada/.cargo /home/ada/.cargo rw",
            "/srv/data /home/ada/.tools rw",
        ]
    );
    assert_eq!(
        got.notes,
        [
            "/c.yaml:2: /home/ada/.rustup is to be shared and is not there: the cell does without",
            "--share: /home/ada/web/src/../gone is to be shared and is not there: the cell does without",
        ]
    );
    assert_eq!(got.why("mount /home/ada/.cargo"), "/home/ada/.cargo (rw) (/c.yaml:2)");
    // What is secret in it is covered, and cellblock's own files are nobody's.
    world.files.file("/home/ada/.cargo/credentials.toml");
    assert!(list("-- x", &world).contains(&"- /home/ada/.cargo/credentials.toml mask".to_owned()));
    world.files.dir("/home/ada/.local");
    assert!(world.told("--share ~/.local -- x").contains("holds cellblock's own files"));
}

#[test]
fn an_agents_own_folder_is_shared_with_its_login() {
    let mut world = World::new();
    world.files.dir("/home/ada/.claude");
    world.files.file("/home/ada/.claude/.credentials.json");
    let state = |world: &World, line: &str| {
        let cell = world.run(line).cell;
        let one = cell.state.iter().find(|one| one.host == Path::new("/home/ada/.claude")).map(|one| one.mode);
        (one, cell.mounts.iter().any(|mount| mount.target().starts_with("/home/ada/.claude")))
    };
    use cellblock_bundle::StateMode;
    assert_eq!(state(&world, "claude-code"), (Some(StateMode::Private), false));
    assert_eq!(state(&world, "--share ~/.claude claude-code"), (Some(StateMode::Share), false));
    // To anything else it is a folder like others, and the login in it is covered.
    assert_eq!(state(&world, "--share ~/.claude -- sh"), (None, true));
    assert!(list("--share ~/.claude -- sh", &world).contains(&"- /home/ada/.claude/.credentials.json mask".to_owned()));
}
