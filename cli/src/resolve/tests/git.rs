//! Which of a repository is seen, and what of it is closed.

use super::*;
use crate::project::Git;

const WEB: &str = "/home/ada/web";

fn plain() -> World {
    let mut world = World::new();
    for dir in [
        ".git",
        ".git/hooks",
        ".git/info",
        ".git/objects",
        ".git/modules",
        ".git/modules/lib",
        ".git/modules/lib/hooks",
    ] {
        world.files.dir(&format!("{WEB}/{dir}"));
    }
    for dir in [".git/modules/a", ".git/modules/a/b", ".vscode", ".claude"] {
        world.files.dir(&format!("{WEB}/{dir}"));
    }
    for file in ["HEAD", "config", "index", "modules/lib/HEAD", "modules/lib/config", "modules/a/b/HEAD"] {
        world.files.file(&format!("{WEB}/.git/{file}"));
    }
    for file in [".envrc", ".claude/settings.json", ".claude/settings.local.json", ".claude/notes.md"] {
        world.files.file(&format!("{WEB}/{file}"));
    }
    world
}

fn linked() -> World {
    let mut world = plain();
    for dir in [
        "/home/ada/wt",
        "/home/ada/web/.git/worktrees",
        "/home/ada/web/.git/worktrees/wt",
        "/home/ada/web/.git/worktrees/b",
    ] {
        world.files.dir(dir);
    }
    for file in
        ["/home/ada/wt/.git", "/home/ada/web/.git/worktrees/wt/gitdir", "/home/ada/web/.git/worktrees/wt/commondir"]
    {
        world.files.file(file);
    }
    let facts = world.project.take().unwrap();
    world.project = Some(ProjectFacts {
        root: "/home/ada/wt".into(),
        cwd: "/home/ada/wt".into(),
        git: Some(Git {
            git_dir: "/home/ada/web/.git/worktrees/wt".into(),
            common_dir: "/home/ada/web/.git".into(),
            linked: true,
            confirmed: true,
        }),
        ..facts
    });
    world
}

/// `MODE PATH` of each mount, without the way to the project.
fn list(line: &str, world: &World) -> Vec<String> {
    let words = |mount: &Mount| match mount {
        Mount::Bind { source, target, writable } => {
            let to = if source == target { String::new() } else { format!(" -> {}", target.display()) };
            format!("{} {}{to}", if *writable { "rw" } else { "ro" }, source.display()).replace("/home/ada/", "")
        }
        Mount::Tmpfs { target, .. } => format!("tmpfs {}", target.display()),
        Mount::Layers { target, .. } => format!("layers {}", target.display()),
        Mount::Mask { target, .. } => format!("mask {}", target.display()),
    };
    world.run(line).cell.mounts.iter().map(words).collect()
}

#[test]
fn a_plain_clone_keeps_its_hooks_and_settings() {
    assert_eq!(
        list("-- x", &plain()),
        [
            "rw web",
            "rw web/.claude",
            "ro web/.envrc",
            "rw web/.git",
            "ro web/.vscode",
            "ro web/.claude/settings.json",
            "ro web/.claude/settings.local.json",
            "ro web/.git/config",
            "ro web/.git/hooks",
            "ro web/.git/info",
            "rw web/.git/modules",
            "rw web/.git/modules/a",
            "rw web/.git/modules/lib",
            "rw web/.git/modules/a/b",
            "ro web/.git/modules/lib/config",
            "ro web/.git/modules/lib/hooks",
        ]
    );
    let protect = plain().run("-- x").cell.protect;
    assert_eq!(protect.roots, [WEB.into()].into());
    let dirs: Vec<String> = protect.git_dirs.keys().map(|path| path.display().to_string()).collect();
    assert_eq!(dirs, [".git", ".git/modules/a/b", ".git/modules/lib"].map(|dir| format!("{WEB}/{dir}")));
    assert!(protect.names.contains_key("**/.envrc") && protect.git_names.contains_key("hooks"));
}

#[test]
fn a_linked_worktree_gets_its_repository_and_not_the_other_worktrees() {
    let world = linked();
    assert_eq!(
        list("-- x", &world),
        [
            "rw wt",
            "rw web/.git",
            "ro wt/.git",
            "ro web/.git/HEAD",
            "ro web/.git/config",
            "ro web/.git/hooks",
            "ro web/.git/index",
            "ro web/.git/info",
            "ro web/.git/modules",
            "ro web/.git/worktrees",
            "rw web/.git/worktrees/wt",
            "ro web/.git/worktrees/wt/commondir",
            "ro web/.git/worktrees/wt/gitdir",
        ]
    );
    let protect = world.run("-- x").cell.protect;
    assert!(protect.git_dirs[Path::new("/home/ada/web/.git")].contains("rebase-merge"));
    assert!(protect.git_dirs[Path::new("/home/ada/web/.git/worktrees/wt")].is_empty());
    assert_eq!(protect.trees, ["/home/ada/wt".into()].into());
}

#[test]
fn what_nobody_confirms_is_not_mounted() {
    let mut world = linked();
    world.files.file("/home/ada/wt/.git");
    let project = world.project.as_mut().unwrap();
    let elsewhere = PathBuf::from("/home/ada/other/.git");
    let git = Git { git_dir: elsewhere.clone(), common_dir: elsewhere, linked: false, confirmed: false };
    project.git = Some(git.clone());
    assert_eq!(list("-- x", &world), ["rw wt", "ro wt/.git"]);
    let notes = world.run("-- x").notes;
    assert!(notes[0].contains("/home/ada/wt/.git leads to /home/ada/other/.git"), "{notes:?}");
    // The twin: confirmed, or mounted by the person.
    world.project.as_mut().unwrap().git = Some(Git { confirmed: true, ..git });
    assert_eq!(list("-- x", &world), ["rw wt", "rw other/.git", "ro wt/.git"]);
    world.project.as_mut().unwrap().git.as_mut().unwrap().confirmed = false;
    world.files.dir("/home/ada/other/.git");
    world.files.dir("/home/ada/other/.git/hooks");
    assert_eq!(
        list("-v /home/ada/other/.git -- x", &world),
        ["rw wt", "rw other/.git", "ro wt/.git", "ro other/.git/hooks"]
    );
    // Never a folder that is no project.
    let home = Git { git_dir: "/home/ada".into(), common_dir: "/home/ada".into(), linked: false, confirmed: true };
    world.project.as_mut().unwrap().git = Some(home);
    assert!(matches!(world.try_run("-- x"), Err(ResolveError::Refused(_))));
}

#[test]
fn a_person_opens_single_entries_or_all() {
    let world = plain();
    let has = |line: &str, want: &str, world: &World| list(line, world).iter().any(|mount| mount == want);
    assert!(has("-- x", "ro web/.vscode", &world));
    assert!(!has("--unprotect .vscode -- x", "ro web/.vscode", &world));
    let configured = plain().config("projects:\n  w: {path: ~/web, protect_except: [.vscode, .git/hooks]}\n");
    assert!(!has("-- x", "ro web/.vscode", &configured) && !has("-- x", "ro web/.git/hooks", &configured));
    assert!(has("-- x", "ro web/.git/config", &configured));
    let mut inner = plain();
    inner.files.file("/home/ada/web/.vscode/notes");
    assert!(has("--unprotect .vscode/notes -- x", "rw web/.vscode/notes", &inner));
    assert_eq!(
        inner.run("--unprotect .vscode/notes -- x").cell.protect.open,
        ["/home/ada/web/.vscode/notes".into()].into()
    );
    assert_eq!(list("--protect off -- x", &world), ["rw web"]);
    assert!(world.run("--protect off -- x").cell.protect.is_empty());
    // A linked worktree still needs its repository.
    assert_eq!(list("--protect off -- x", &linked()), ["rw wt", "rw web/.git"]);
}

#[test]
fn what_configurations_name_and_links_lead_to_is_closed() {
    let mut world = plain();
    world.files.texts.insert(
        "/home/ada/web/.git/config".into(),
        "[core]\nhooksPath = tools/hooks\n[include]\npath = ../.gitshared\n[filter \"x\"]\nclean = ./tools/clean.py %f\n".into(),
    );
    for dir in ["tools", "tools/hooks", "agents"] {
        world.files.dir(&format!("{WEB}/{dir}"));
    }
    for file in ["tools/clean.py", ".gitshared"] {
        world.files.file(&format!("{WEB}/{file}"));
    }
    world.files.link("/home/ada/web/.git/../.gitshared", "/home/ada/web/.gitshared", false);
    world.files.link("/home/ada/web/.cursor", "/home/ada/web/agents", true);
    world.files.link("/home/ada/web/.idea", "/home/ada/.ssh", true);
    let got = list("-- x", &world);
    for want in ["rw web/tools", "ro web/tools/hooks", "ro web/tools/clean.py", "ro web/.gitshared", "ro web/agents"] {
        assert!(got.iter().any(|mount| mount == want), "{want}: {got:?}");
    }
    assert!(!got.iter().any(|mount| mount.contains(".ssh") || mount.contains(".idea")), "{got:?}");
    // The links stay where they are, wherever they lead.
    let links: Vec<PathBuf> = world.run("-- x").cell.protect.links.into_keys().collect();
    assert_eq!(links, [".cursor", ".idea"].map(|name| Path::new(WEB).join(name)));
    assert!(world.run("--unprotect .cursor -- x").cell.protect.links.len() == 1);
    let paths = world.run("-- x").cell.protect.paths;
    assert!(paths.contains_key(Path::new("/home/ada/web/tools/hooks")), "{paths:?}");
}

#[test]
fn git_remembers_what_branches_follow_where_a_guard_looks_after_it() {
    let keys = |world: &World, line: &str| world.run(line).cell.env["GIT_CONFIG_KEY_0"].clone();
    let configs = |world: &World, line: &str| world.run(line).cell.protect.configs;
    let (plain, linked) = (plain(), linked());
    let own = PathBuf::from(WEB).join(".git");
    let all = [own.clone(), own.join("modules/lib")];
    assert_eq!(configs(&plain, "-- x"), all.into());
    assert_eq!(configs(&linked, "-- x"), [own].into());
    for world in [&plain, &linked] {
        assert_eq!(keys(world, "-- x"), "push.default");
        assert_eq!(keys(world, "--protect off -- x"), "push.default");
        // The mount is in what is exported, and where there is no guard; git must not try.
        assert!(list("-- x", world).contains(&"ro web/.git/config".to_owned()));
        assert_eq!(keys(world, "--no-guard -- x"), "branch.autoSetupMerge");
    }
    // What a person opens is open, with what git writes before; what a person mounts is as mounted.
    let opened = plain.run("--unprotect .git/config -- x").cell.protect;
    assert!(!opened.configs.contains(&PathBuf::from(WEB).join(".git")));
    assert!(opened.open.contains(&PathBuf::from(WEB).join(".git/config.lock")));
    assert!(!configs(&plain, "-v ~/web/.git/config:ro -- x").contains(&PathBuf::from(WEB).join(".git")));
    // A link leads elsewhere.
    let mut world = plain.clone();
    world.files.link(&format!("{WEB}/.git/config"), &format!("{WEB}/.git/modules/lib/config"), false);
    assert!(!configs(&world, "-- x").contains(&PathBuf::from(WEB).join(".git")));
    assert_eq!(keys(&world, "-- x"), "branch.autoSetupMerge");
}

#[test]
fn what_a_person_mounts_is_not_covered() {
    let mut world = plain();
    world.files.dir("/home/ada/web/.git/modules/lib");
    // Theirs stands where the cover would.
    let got = list("-v /srv/data:/home/ada/web/.vscode -- x", &world);
    assert!(got.contains(&"rw /srv/data -> /home/ada/web/.vscode".replace("/home/ada/", "")), "{got:?}");
    assert!(!got.contains(&"ro web/.vscode".to_owned()), "{got:?}");
    // A second repository that they let the cell write is closed as well.
    world.files.dir("/home/ada/libs/.git");
    world.files.dir("/home/ada/libs/.git/hooks");
    world.files.file("/home/ada/libs/.mcp.json");
    let got = list("-v ~/libs:/libs -- x", &world);
    for want in ["rw libs -> /libs", "ro libs/.mcp.json -> /libs/.mcp.json", "ro libs/.git/hooks -> /libs/.git/hooks"] {
        assert!(got.iter().any(|mount| mount == want), "{want}: {got:?}");
    }
}

#[test]
fn odd_modules_are_closed_as_a_whole() {
    let mut world = plain();
    world.files.link("/home/ada/web/.git/modules/evil", "/home/ada/.ssh", true);
    let got = list("-- x", &world);
    assert!(got.contains(&"ro web/.git/modules".to_owned()), "{got:?}");
    assert!(!got.iter().any(|mount| mount.contains("modules/lib")), "{got:?}");
    let mut world = plain();
    for n in 0..600 {
        world.files.dir(&format!("/home/ada/web/.git/modules/m{n}"));
    }
    assert!(list("-- x", &world).contains(&"ro web/.git/modules".to_owned()));
}

#[test]
fn git_knows_who_the_person_is() {
    let mut world = plain();
    world.files.texts.insert(
        "/home/ada/.gitconfig".into(),
        "[user]\nname = Ada \"L\" # c\nemail = a@home\n[includeIf \"gitdir:~/web/\"]\npath = work\n[alias]\nx = !rm\n"
            .into(),
    );
    world.files.texts.insert("/home/ada/work".into(), "[user]\nemail = a@work\n".into());
    assert_eq!(
        world.run("-- x").cell.home_files[Path::new(".gitconfig")],
        "# Written by cellblock for this cell.\n[safe]\n\tdirectory = *\n[user]\n\tname = \"Ada L\"\n\temail = \"a@work\"\n"
    );
    world.project.as_mut().unwrap().git.as_mut().unwrap().git_dir = "/home/ada/libs/.git".into();
    assert!(world.run("-- x").cell.home_files[Path::new(".gitconfig")].contains("a@home"));
    assert_eq!(world.run("-e GIT_CONFIG_COUNT=0 -- x").cell.env["GIT_CONFIG_COUNT"], "0");
}
