//! What of the host's environment passes, and what stands in for the rest.

use super::*;
use crate::resolve::environment::{path_inside, secret};

#[test]
fn only_the_list_passes() {
    let got = World::new().run("-- x");
    // What git is told is not the host's.
    let names = got.cell.env.keys().filter(|name| !name.starts_with("GIT_CONFIG_"));
    let names: Vec<&str> = names.map(String::as_str).collect();
    let want = [
        "CELLBLOCK",
        "CELLBLOCK_NAME",
        "EDITOR",
        "HOME",
        "LANG",
        "LC_TIME",
        "LOGNAME",
        "PATH",
        "SHELL",
        "TERM",
        "USER",
        "container",
    ];
    assert_eq!(names, want);
    assert_eq!(got.cell.env["PATH"], "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
    assert_eq!(got.why("env TERM"), "tmux-256color (the host's environment)");
    assert_eq!(got.why("env USER"), "ada (default)");
    // The probe would show the others: they are there, and pass when asked for.
    let asked = World::new().run("-e SSH_AUTH_SOCK -e GITHUB_TOKEN -e XDG_RUNTIME_DIR -- x");
    assert_eq!(asked.cell.env["SSH_AUTH_SOCK"], "/run/user/1000/agent");
    assert_eq!(asked.cell.env["GITHUB_TOKEN"], "ghp_secret");
    assert_eq!(asked.cell.env["XDG_RUNTIME_DIR"], "/run/user/1000");
    assert_eq!(asked.why("env GITHUB_TOKEN"), "(not shown) (--env)");
    let agent = World::new().env("ANTHROPIC_API_KEY", "sk-1").run("-- x");
    assert_eq!(agent.cell.env["ANTHROPIC_API_KEY"], "sk-1");
    assert_eq!(agent.why("env ANTHROPIC_API_KEY"), "(not shown) (the host's environment)");
}

#[test]
fn one_variable_adds_names_for_one_start() {
    let got = World::new().env("CELLBLOCK_EXTRA_ENV", "GITHUB_TOKEN, DATABASE_URL,,GONE").run("-- x");
    assert_eq!(got.cell.env["GITHUB_TOKEN"], "ghp_secret");
    assert_eq!(got.why("env DATABASE_URL"), "(not shown) ($CELLBLOCK_EXTRA_ENV)");
    assert_eq!(got.notes, ["$CELLBLOCK_EXTRA_ENV: GONE is not set here and so not passed on"]);
    assert_eq!(
        World::new().env("CELLBLOCK_EXTRA_ENV", "A=1").told("-- x"),
        "$CELLBLOCK_EXTRA_ENV: \"A=…\" is not a name for a variable: letters, digits and _ only, and no digit first"
    );
}

#[test]
fn layers_replace_each_other_and_must_not_contradict_themselves() {
    let config = "defaults:\n  env: [A=1, B=1, C=1, D=1]\nprojects:\n  w:\n    path: ~/web\n    env: [B=2, C=2, D=2]\n";
    let mut world = World::new().config(config);
    world.files.texts.insert("/home/ada/web/src/f.env".into(), "# a comment\n\nC=3 = x\n D=3\nDATABASE_URL\n".into());
    let got = world.run("--env-file f.env -e D=4 -e D=5 -- x");
    for (name, want) in [
        ("env A", "1 (/c.yaml:2)"),
        ("env B", "2 (/c.yaml:6 (project w))"),
        ("env C", "3 = x (/home/ada/web/src/f.env:3)"),
        ("env D", "5 (--env)"),
    ] {
        assert_eq!(got.why(name), want);
    }
    assert_eq!(got.cell.env["DATABASE_URL"], "postgres://localhost");
    assert_eq!(World::new().config("defaults: {env: [A=1, A=2]}").told("-- x"), "/c.yaml:1: A is set twice");
    world.files.texts.insert("/home/ada/web/src/bad.env".into(), "A=1\nexport B=1\n".into());
    assert_eq!(
        world.told("--env-file bad.env -- x"),
        "/home/ada/web/src/bad.env:2: \"export B\" is not a name for a variable: letters, digits and _ only, and no digit first"
    );
    assert!(
        world.told("--env-file gone.env -- x").starts_with("--env-file: /home/ada/web/src/gone.env cannot be used")
    );
    assert_eq!(world.run("-e HOME=/x -e PATH=/y -- x").cell.env["HOME"], "/x");
}

#[test]
fn the_path_holds_what_exists_inside() {
    let host = World { image: World::host_image(), ..World::new() };
    // ~/bin and /snap/bin are not shown, `.` is not absolute, /opt/gone does not exist; /bin leads to /usr/bin, which is shown.
    assert_eq!(host.run("-- x").cell.env["PATH"], "/usr/local/bin:/usr/bin:/bin");
    let mut linked = host.clone();
    linked.files.link("/usr/local/bin", "/home/ada/bin", true);
    assert_eq!(linked.run("-- x").cell.env["PATH"], "/usr/bin:/bin");
    let all = |_: &Path| true;
    assert_eq!(path_inside("/a::/a:b:/c", &all), "/a:/c:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
    assert_eq!(path_inside("/a", &|_| false), "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
}

#[test]
fn certificates_pass_where_they_exist() {
    let mut host = World { image: World::host_image(), ..World::new() }.env("SSL_CERT_FILE", "/usr/share/ca.pem");
    assert!(!host.run("-- x").cell.env.contains_key("SSL_CERT_FILE"));
    host.files.file("/usr/share/ca.pem");
    assert_eq!(host.run("-- x").cell.env["SSL_CERT_FILE"], "/usr/share/ca.pem");
    let alpine = World { image: World::alpine(), ..host };
    assert!(!alpine.run("-- x").cell.env.contains_key("SSL_CERT_FILE"));
}

#[test]
fn secrets_are_known_by_their_names() {
    for name in ["ANTHROPIC_API_KEY", "GITHUB_TOKEN", "db_password", "DATABASE_URL", "AWS_SECRET_ACCESS"] {
        assert!(secret(name), "{name}");
    }
    for name in ["TERM", "PATH", "MIX_ENV", "LANG"] {
        assert!(!secret(name), "{name}");
    }
}
