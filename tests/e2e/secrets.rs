//! Secrets stay out (rows D2, D4, E3): paths that are covered. `secret_variables` has the rest.

use std::collections::BTreeMap;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use cellblock_tests::{World, cellblock, is_root};

/// A home with secrets in it, and things that are none.
fn world() -> World {
    let world = World::new();
    for (file, text) in [
        (".ssh/id_ed25519", "private key"),
        (".ssh/known_hosts", "github.com"),
        (".aws/credentials", "cloud key"),
        (".netrc", "password"),
        (".config/gh/hosts.yml", "gh token"),
        (".config/editor/settings", "tabs"),
        (".cargo/credentials.toml", "crates token"),
        (".cargo/config.toml", "[build]"),
        ("notes", "harmless"),
    ] {
        world.write(&format!("home/{file}"), text);
    }
    world
}

/// Everything at and below `path`, with what makes it different: for "nothing was made, nothing was changed".
fn tree(path: &Path) -> BTreeMap<PathBuf, String> {
    let mut all = BTreeMap::new();
    let mut rest = vec![path.to_owned()];
    while let Some(path) = rest.pop() {
        // Where cellblock itself keeps things.
        if path.ends_with(".local") {
            continue;
        }
        let Ok(metadata) = std::fs::symlink_metadata(&path) else { continue };
        let text = if metadata.is_file() { std::fs::read(&path).unwrap_or_default() } else { Vec::new() };
        if metadata.is_dir() {
            rest.extend(std::fs::read_dir(&path).into_iter().flatten().flatten().map(|entry| entry.path()));
        }
        all.insert(path, format!("{:o} {} {text:?}", metadata.mode(), metadata.uid()));
    }
    all
}

#[test]
fn what_is_secret_is_covered_below_a_mount() {
    let world = world();
    let look = |flags: &str, command: &str| {
        world.call(
            &cellblock(),
            &[&["run"], &*flags.split(' ').collect::<Vec<_>>(), &["--", "sh", "-c", command]].concat(),
        )
    };
    let before = tree(&world.path("home"));
    let all = "cd /x; cat notes .config/editor/settings .cargo/config.toml; ls -A .ssh .aws .config/gh; \
        cat .netrc .cargo/credentials.toml; find . -path ./demo -prune -o -type f -size +0 -print | sort";
    let out = look("-v ..:/x:ro", all).ok();
    for there in ["harmless", "tabs", "[build]", "./notes"] {
        assert!(out.contains(there), "{there} in {out}");
    }
    for gone in ["private key", "cloud key", "password", "token", "github", "id_ed25519", "credentials", "hosts.yml"] {
        let listed = out.lines().any(|line| line.contains(gone) && !line.starts_with("./"));
        assert!(!listed && !out.contains(&format!("/{gone}\n")), "{gone} in {out}");
    }
    // The twin: the same look finds them when they are excepted, and what is asked for by name.
    let out = look("--secret-path-except ../.ssh --secret-path-except ../.netrc -v ..:/x:ro", all).ok();
    assert!(out.contains("password") && out.contains("id_ed25519") && !out.contains("gh token"), "{out}");
    let named = look("-v ..:/x:ro -v ../.aws:/x/.aws:ro -v ../.ssh/known_hosts:/x/.ssh/known_hosts:ro", all).run();
    assert!(named.stdout().contains("known_hosts") && named.stdout().contains("credentials"), "{named}");
    assert!(!named.stdout().contains("id_ed25519"), "{named}");
    named.says("is mounted as asked, though").says("keys of Amazon's cloud").says("covered");
    let kept =
        look("-v ..:/x:ro -v ../.ssh/known_hosts:/x/.ssh/known_hosts", "cat /x/.ssh/known_hosts; touch /x/.ssh/x")
            .run();
    assert!(kept.stdout() == "github.com" && kept.stderr().contains("Read-only"), "{kept}");
    assert_eq!(tree(&world.path("home")), before, "nothing was made or changed on the host");
}

#[test]
fn a_cover_stays_whatever_the_cell_does() {
    let world = world();
    world.write("home/.gitignore", "");
    let before = tree(&world.path("home/.ssh"));
    let run = |command: &str| {
        let words = ["run", "--force-project", "--", "sh", "-c", command];
        world.call(&cellblock(), &words).dir(&world.path("home")).run()
    };
    let done = run(
        "rm -rf .ssh .netrc; mv .netrc x; mv .ssh y; ln .netrc z; echo a > .netrc; touch .ssh/a; umount .ssh; \
        unshare -Urm umount .ssh; mv .config moved; cat .config/gh/* .netrc .ssh/* x y z; ls -A .config/gh .ssh; echo b > mine",
    );
    assert_eq!(done.stdout(), ".config/gh:\n\n.ssh:\n", "{done}");
    assert!(done.stderr().contains("busy") && done.stderr().contains("Read-only"), "{done}");
    assert_eq!(tree(&world.path("home/.ssh")), before);
    assert_eq!(std::fs::read_to_string(world.path("home/.netrc")).expect("there"), "password");
    // The twin: it may write, and did.
    assert_eq!(std::fs::read_to_string(world.path("home/mine")).expect("there"), "b\n");
    assert_eq!(std::fs::read_to_string(world.path("home/.config/gh/hosts.yml")).expect("there"), "gh token");
}

#[test]
fn what_the_host_replaces_is_covered_again() {
    let world = world();
    world.write("home/demo/.env", "old");
    world.write("home/demo/plain", "old");
    world.cellblock("run -d --name cell -v ..:/x:ro --mask .env -- sleep 600").ok();
    let look = || world.cellblock("exec cell -- sh -c 'cat /x/.netrc .env plain; ls -A /x/.ssh /x/.aws'").ok();
    assert_eq!(look(), "old/x/.aws:\n\n/x/.ssh:\n");
    for round in 1..=3 {
        // As editors, password managers and `git checkout` do.
        for file in ["home/.netrc", "home/demo/plain"] {
            world.write("home/new", &format!("new{round}"));
            std::fs::rename(world.path("home/new"), world.path(file)).expect("rename");
        }
        std::fs::remove_file(world.project().join(".env")).expect("remove");
        std::thread::sleep(std::time::Duration::from_millis(50));
        world.write("home/demo/.env", "again");
        std::fs::rename(world.path("home/.aws"), world.path(&format!("home/aws{round}"))).expect("rename");
        world.write("home/.aws/credentials", "new key");
        std::fs::rename(world.path("home/.ssh"), world.path(&format!("home/ssh{round}"))).expect("rename");
        world.write("home/.ssh/id_new", "new key");
        let want = format!("new{round}/x/.aws:\n\n/x/.ssh:\n");
        world.wait("covers", || look() == want);
        std::thread::sleep(std::time::Duration::from_millis(300));
        assert_eq!(look(), want);
    }
    world.cellblock("stop cell -t 0").ok();
    assert_eq!(std::fs::read_to_string(world.path("home/.netrc")).expect("there"), "new3");
}

#[test]
fn a_link_on_the_way_to_a_cover_does_not_have_it_mounted_again_and_again() {
    let world = world();
    for file in ["a/.env", "b/private/key", "c/.env"] {
        world.write(&format!("home/demo/{file}"), "old");
    }
    world.cellblock("run -d --name cell --mask a/.env --mask b/private --mask c/.env -- sleep 600").ok();
    let look = |words: &str| world.cellblock(&format!("exec cell -- sh -c '{words}'")).ok();
    let mounts = || look("grep -c . /proc/self/mountinfo").trim().parse::<u32>().expect("a number");
    let most = mounts();
    look("mv a real-a; ln -s real-a a; mv b real-b; ln -s real-b b");
    // Something changes, and all of them are looked after.
    world.write("home/demo/new", "new");
    std::fs::rename(world.path("home/demo/new"), world.path("home/demo/c/.env")).expect("rename");
    world.wait("the cover", || look("cat c/.env").is_empty());
    std::thread::sleep(std::time::Duration::from_secs(1));
    assert!(mounts() <= most);
    assert_eq!(
        look("cat a/.env real-a/.env c/.env; ls -A b/private real-b/private"),
        "b/private:\n\nreal-b/private:\n"
    );
    // The twin: where the link is replaced by a folder, its file is covered.
    std::fs::remove_file(world.path("home/demo/a")).expect("remove");
    world.write("home/demo/a/.env", "new");
    world.wait("the cover", || look("cat a/.env").is_empty());
    world.cellblock("stop cell -t 0").ok();
}

#[test]
fn a_secret_is_covered_where_its_link_leads() {
    let world = world();
    world.write("home/demo/dotfiles/gnupg/key", "hush");
    world.write("home/demo/dotfiles/vimrc", "set");
    std::os::unix::fs::symlink("demo/dotfiles/gnupg", world.path("home/.gnupg")).expect("a link");
    let out = world.cellblock("run -- sh -c 'cat dotfiles/vimrc; ls -A dotfiles/gnupg'").ok();
    assert_eq!(out, "set");
    std::fs::remove_file(world.path("home/.gnupg")).expect("remove");
    assert_eq!(world.cellblock("run -- ls -A dotfiles/gnupg").ok(), "key\n");
}

#[test]
fn people_say_more_and_patterns_cover_files_of_the_project() {
    let world = world();
    for file in [".env", "web/.env.local", "web/readme", "private/a", "web/.env.d/b"] {
        world.write(&format!("home/demo/{file}"), file);
    }
    let look = "run -- sh -c 'cat .env web/.env.local web/readme; ls -A private web/.env.d'";
    let open = world.cellblock(look).ok();
    assert!(open.contains(".env.local") && open.contains("private:\na"), "{open}");
    world.configure("defaults:\n  mask: [.env, '.env.*']\n  secret_paths: [~/demo/private]\n");
    let shut = world.cellblock(look).run();
    assert_eq!(shut.stdout(), "web/readmeprivate:\n\nweb/.env.d:\n", "{shut}");
    shut.says("covered").says("/demo/web/.env.local");
    assert_eq!(std::fs::read_to_string(world.project().join(".env")).expect("there"), ".env");
    let plan = world.cellblock("run --explain -- true").ok();
    assert!(plan.contains("on your own list") && plan.contains("config.yaml:2"), "{plan}");
    // What is also kept from being changed is covered all the same.
    world.configure("");
    world.write("home/demo/.mcp.json", "token");
    assert_eq!(world.cellblock("run -- cat .mcp.json").ok(), "token");
    assert_eq!(world.cellblock("run --mask .mcp.json -- cat .mcp.json").ok(), "");
    world.configure("defaults: {mask: ['../x']}");
    world.cellblock("run -- true").fails(125).says("relative to the project");
}

#[test]
fn a_secret_folder_is_no_project() {
    let world = world();
    let dir = world.path("home/.ssh");
    world.cellblock("run -- true").dir(&dir).fails(125).says("is secret (private keys of SSH").says("--force-project");
    let forced = world.cellblock("run --force-project -- ls").dir(&dir).run();
    assert!(forced.stdout().contains("id_ed25519"), "{forced}");
}

#[test]
fn a_bundle_covers_the_same() {
    let world = world();
    let Some(runc) = ["/usr/sbin/runc", "/usr/bin/runc"].map(Path::new).into_iter().find(|path| path.exists()) else {
        println!("SKIP: a_bundle_covers_the_same: runc is not there");
        return;
    };
    let look =
        "run='cat /x/notes; ls -A /x/.ssh; cat /x/.netrc; touch /x/.ssh/a'; eval \"$run\"; echo; id -u >/dev/null";
    let words = ["-v", "..:/x:ro", "--image", "host", "-u", "root", "--", "sh", "-c", look];
    let own = world.call(&cellblock(), &[&["run", "--net", "none"], &words[..]].concat()).run();
    assert_eq!(own.stdout(), "harmless\n", "{own}");
    let made = world.call(&cellblock(), &[&["bundle", "--portable-overlay", "-o", "../b"], &words[..]].concat()).run();
    assert_eq!(made.code(), Some(0), "{made}");
    if is_root() {
        // Root's files are nobody's there (docs/guide.md): let anybody look.
        for path in ["home", "home/notes", "home/.netrc"] {
            std::fs::set_permissions(world.path(path), PermissionsExt::from_mode(0o755)).expect("chmod");
        }
    }
    let state = world.path("run/state").display().to_string();
    let bundle = world.path("home/b").display().to_string();
    let name = format!("cb{}-mask", std::process::id());
    let done = world.call(runc, &["--root", &state, "run", "--bundle", &bundle, &name]).run();
    assert_eq!(done.stdout(), own.stdout(), "{done}");
    assert!(done.stderr().contains("Read-only"), "{done}");
}

#[test]
fn what_a_cell_closes_is_not_open_to_the_next_one() {
    let world = World::new();
    world.write("home/demo/web/.env", "TOKEN=hush");
    world.write("home/.cargo/credentials.toml", "hush");
    world.write("home/.cargo/config.toml", "plain");
    let cargo = world.path("home/.cargo");
    let share = format!("-v {0}:{0}:rw", cargo.display());
    let cases = [("--mask .env", "web", ".env"), ("--mask web/.env", "web", ".env"), (&share, "", "credentials.toml")];
    for (flags, folder, file) in cases {
        let folder = if folder.is_empty() { cargo.clone() } else { world.project().join(folder) };
        let (place, flags) = (folder.display(), format!("--net none --image host {flags}"));
        let see = format!("cat {place}/{file} {place}/config.toml");
        world.cellblock(&format!("run {flags} -- chmod 000 {place}")).ok();
        // Nothing can stop root, for whom nothing is closed.
        let next = world.cellblock(&format!("run {flags} -- sh -c 'chmod 755 {place}; {see}'")).run();
        assert!(!next.stdout().contains("hush"), "{flags}: {next}");
        world.call(Path::new("chmod"), &["755", folder.to_str().expect("utf-8")]).ok();
    }
    let open = world.cellblock(&format!("run --net none --image host {share} -- cat {}/config.toml", cargo.display()));
    assert_eq!(open.ok(), "plain", "the probe works");
}

/// The list says where secrets are: in a folder with another name nobody would cover them.
#[test]
fn what_holds_a_secret_stays_where_it_is() {
    let world = World::new();
    world.write("home/.kde/share/apps/kwallet/wallet.kwl", "hush");
    world.write("home/.kde/share/config/plain", "plain");
    let kde = world.path("home/.kde");
    let kde = kde.display();
    for guard in ["", "--no-guard"] {
        let run = format!("run --net none --image host {guard} -v {kde}:{kde}:rw --");
        for folder in ["share/apps", "share"] {
            world.cellblock(&format!("{run} mv {kde}/{folder} {kde}/moved")).run().says("busy");
        }
        world.cellblock(&format!("{run} sh -c '! grep -r hush {kde}'")).ok();
        // Everything else there is the cell's to change.
        world
            .cellblock(&format!(
                "{run} sh -c 'mv {kde}/share/config {kde}/share/other && echo x >{kde}/share/apps/new'"
            ))
            .ok();
        world
            .cellblock(&format!("{run} sh -c 'mv {kde}/share/other {kde}/share/config && rm {kde}/share/apps/new'"))
            .ok();
    }
    assert!(world.path("home/.kde/share/apps/kwallet/wallet.kwl").exists());
    // A project that is itself such a folder, with a guard.
    world.write("home/.nuget/NuGet/NuGet.Config", "hush");
    world.write("home/.nuget/.git/HEAD", "ref: refs/heads/main");
    let nuget = world.path("home/.nuget");
    let run =
        |command: &str| world.cellblock(&format!("run --net none --image host -- sh -c '{command}'")).dir(&nuget).run();
    run("mv NuGet moved").says("busy");
    let done = run(
        "! grep -r hush . && echo more >NuGet/new && mkdir a && mv a b && mv NuGet/new NuGet/newer && rm -r b NuGet/newer && echo done",
    );
    assert_eq!(done.stdout(), "done\n", "{done}");
}

/// Keeping folders where they are shows nothing of what is covered as a whole.
#[test]
fn a_secret_within_a_secret_opens_neither() {
    let world = World::new();
    for file in [".kube/config", ".kube/cache/deep/one", "work/keys/deep/two", "work/keys/three"] {
        world.write(&format!("home/{file}"), "hush");
    }
    world.write("home/work/plain", "plain");
    world.configure("defaults: {secret_paths: [~/work/keys, ~/work/keys/deep/two, ~/.kube/cache/deep/one]}");
    let command = "grep -rs hush . ; ls -A .kube work/keys; mv work moved; cat work/plain";
    for flags in [&["--no-guard"][..], &[], &["--overlay", "/opt"]] {
        let words =
            [&["run", "--net", "none", "--image", "host", "--force-project"][..], flags, &["--", "sh", "-c", command]];
        let call = world.call(&cellblock(), &words.concat()).dir(&world.path("home"));
        let kube = world.path("home/.kube/config");
        let done = call.env("KUBECONFIG", kube.to_str().expect("utf-8")).run();
        assert_eq!(done.stdout(), ".kube:\n\nwork/keys:\nplain", "{flags:?}: {done}");
        done.says("busy");
    }
}
