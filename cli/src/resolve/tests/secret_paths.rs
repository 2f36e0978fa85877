//! What is covered where, and what stays because somebody asked for it.

use super::*;

/// `target kind`, in order.
fn masks(resolved: &Resolved) -> Vec<String> {
    let word = |mount: &Mount| match mount {
        Mount::Mask { target, directory } => {
            Some(format!("{} {}", target.display(), if *directory { "dir" } else { "file" }))
        }
        _ => None,
    };
    resolved.cell.mounts.iter().filter_map(word).collect()
}

/// Ada's world with secrets in it.
fn world() -> World {
    let mut world = World::new();
    for dir in ["/home/ada", "/home/ada/.ssh", "/home/ada/.aws", "/home/ada/.config", "/home/ada/.config/gh"] {
        world.files.dir(dir);
    }
    world.files.file("/home/ada/.netrc");
    world.files.file("/home/ada/.ssh/known_hosts");
    world
}

#[test]
fn what_lies_below_a_mount_is_covered_there() {
    assert_eq!(masks(&world().run("-- x")), [""; 0], "nothing of it is mounted");
    let got = world().run("-v ~/.config:/c:ro -v ~/:/x:ro -- x");
    let want = ["/c/gh dir", "/x/.netrc file", "/x/.npmrc file", "/x/.ssh dir", "/x/.aws dir", "/x/.config/gh dir"];
    let mut got_sorted = masks(&got);
    got_sorted.sort();
    let mut want_sorted = want.map(str::to_owned);
    want_sorted.sort();
    assert_eq!(got_sorted, want_sorted);
    assert_eq!(
        got.why("mount /x/.ssh"),
        "covered by an empty folder (secret: private keys of SSH, and where they lead)"
    );
    assert_eq!(got.notes, [""; 0]);
}

#[test]
fn a_secret_that_is_asked_for_by_name_stays_and_is_told() {
    let got = world().run("-v ~/.aws:/aws:ro -v ~/.ssh/known_hosts:/k:ro -- x");
    assert_eq!(masks(&got), [""; 0]);
    assert_eq!(
        got.notes,
        [
            "--volume: /home/ada/.ssh/known_hosts is mounted as asked, though /home/ada/.ssh is secret (private keys of SSH, and where they lead)",
            "--volume: /home/ada/.aws is mounted as asked, though /home/ada/.aws is secret (keys of Amazon's cloud)",
        ]
    );
    let both = world().run("-v ~/:/x:ro -v ~/.aws:/x/.aws:ro -v ~/.ssh/known_hosts:/x/.ssh/known_hosts:ro -- x");
    let covered = masks(&both);
    assert!(!covered.iter().any(|mask| mask.starts_with("/x/.aws")), "{covered:?}");
    assert!(covered.contains(&"/x/.ssh dir".to_owned()), "{covered:?}");
    let place = |target: &str| both.cell.mounts.iter().position(|m| m.target() == Path::new(target));
    assert!(place("/x/.ssh") < place("/x/.ssh/known_hosts"), "the exception lies on top");
}

#[test]
fn links_are_covered_where_they_lead() {
    let mut world = world();
    world.files.link("/home/ada/.gnupg", "/home/ada/web/keys", true);
    world.files.link("/home/ada/.pgpass", "/srv/data/pgpass", false);
    assert_eq!(masks(&world.run("-- x")), ["/home/ada/web/keys dir"]);
    assert_eq!(masks(&world.run("--no-project -v /srv/data:/d -- x")), ["/d/pgpass file"]);
}

#[test]
fn what_another_mount_hides_is_not_covered_in_its_place() {
    let got = world().run("-v ~/:/x:ro -v /srv/data:/x/.config -- x");
    assert!(!masks(&got).iter().any(|mask| mask.contains("gh")), "{:?}", masks(&got));
}

#[test]
fn people_add_and_except() {
    let mut world = world()
        .config("defaults:\n  secret_paths: [~/web/private]\n  secret_paths_except: [~/.aws]\n  mounts: [~/:/x:ro]\n");
    world.files.dir("/home/ada/web/private");
    let got = masks(&world.run("--secret-path-except /home/ada/.netrc -- x"));
    assert!(got.contains(&"/home/ada/web/private dir".to_owned()) && got.contains(&"/x/web/private dir".to_owned()));
    assert!(!got.iter().any(|mask| mask.contains(".aws") || mask.contains(".netrc")), "{got:?}");
    assert!(got.contains(&"/x/.ssh dir".to_owned()), "{got:?}");
    assert!(World::new().config("defaults: {secret_paths: [keys]}").told("-- x").contains("must be absolute"));
}

#[test]
fn variables_and_xdg_say_where_things_are() {
    let mut world = world().env("KUBECONFIG", "/srv/data/k1:/srv/data/k2").env("XDG_CONFIG_HOME", "/srv/data/cfg");
    world.files.file("/srv/data/k2");
    world.files.dir("/srv/data/cfg/gh");
    world = world.env("GNUPGHOME", "/home").env("HISTFILE", "");
    world.files.dir("/home");
    assert_eq!(masks(&world.run("-v /srv/data:/d -- x")), ["/d/k2 file", "/d/cfg/gh dir"]);
}

#[test]
fn a_secret_is_no_project_unless_insisted() {
    let mut world = world();
    world.files.dir("/home/ada/.ssh/work");
    let project = world.project.as_mut().unwrap();
    (project.root, project.cwd) = ("/home/ada/.ssh/work".into(), "/home/ada/.ssh/work".into());
    assert_eq!(
        world.told("-- x"),
        "/home/ada/.ssh/work cannot be a project: /home/ada/.ssh is secret (private keys of SSH, and where they lead)\n  \
         hint: use --force-project if you mean it, or --no-project"
    );
    assert_eq!(world.run("--force-project -- x").notes.len(), 1);
}

#[test]
fn patterns_are_looked_for_in_the_project_alone() {
    let mut world = world();
    for file in ["/home/ada/web/.env", "/home/ada/web/src/.env.local", "/home/ada/web/.git/.env", "/srv/data/.env"] {
        world.files.file(file);
    }
    world.files.dir("/home/ada/web/.git");
    world.files.link("/home/ada/web/src/.env", "/srv/data/.env", false);
    assert_eq!(masks(&world.run("-- x")), [""; 0]);
    assert_eq!(masks(&world.run("--mask .env -- x")), ["/home/ada/web/.env file"]);
    let got = world.clone().config("defaults: {mask: ['**/.env.*']}").run("--mask .env -v /srv/data:/d -- x");
    assert_eq!(masks(&got), ["/d/.env file", "/home/ada/web/.env file", "/home/ada/web/src/.env.local file"]);
    assert_eq!(got.why("mount /home/ada/web/.env"), "covered by an empty file (--mask)");
    assert_eq!(masks(&world.run("--mask src/.env.local --mask src/gone -- x")), ["/home/ada/web/src/.env.local file"]);
}
