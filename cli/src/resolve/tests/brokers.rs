//! What answers a cell from outside: nothing unless it was asked for, by the person.

use cellblock_bundle::cell::{Brokers, GitRemote};

use super::*;

const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl ada\n";

fn world(remotes: &str) -> World {
    let mut world = World::new();
    world.files.texts.insert("/home/ada/web/.git/config".into(), remotes.to_owned());
    world.files.texts.insert("/home/ada/.ssh/id.pub".into(), KEY.to_owned());
    world.files.texts.insert("/home/ada/web/id.pub".into(), KEY.to_owned());
    world
}

const REMOTE: &str =
    "[remote \"origin\"]\n\turl = https://github.com/ada/web.git\n\tpushurl = git@github.com:ada/web.git\n";

#[test]
fn nothing_answers_by_itself() {
    let resolved = world(REMOTE).run("-- x");
    assert_eq!(resolved.cell.brokers, Brokers::default());
    assert!(!serde_json::to_string(&resolved.cell).expect("JSON").contains("brokers"));
}

#[test]
fn an_agent_is_asked_for_and_filtered() {
    let of = |config: &str, line: &str| world("").config(config).run(line).cell.brokers.ssh_agent;
    let agent = of("", "--ssh-agent -- x").expect("an agent");
    assert_eq!((agent.socket, agent.keys, agent.commits), ("/run/user/1000/agent".into(), Vec::new(), false));
    let config = "defaults:\n  ssh_agent: true\n  ssh_agent_keys: [work, ~/.ssh/id.pub]\n  commit_signing: true\n";
    let agent = of(config, "-- x").expect("an agent");
    assert_eq!(agent.keys, ["work", "SHA256:+DiY3wvvV6TuJJhbpZisF/zLDA0zPMSvHdkr4UvCOqU"]);
    assert!(agent.commits);
    assert_eq!(of(config, "--no-ssh-agent -- x"), None);
    assert_eq!(of(config, "--ssh-agent-key only -- x").map(|agent| agent.keys), Some(vec!["only".to_owned()]));
    // A list of keys alone asks for nothing.
    assert_eq!(of("defaults:\n  ssh_agent_keys: [work]\n", "-- x"), None);
    let project = "defaults:\n  ssh_agent: true\nprojects:\n  web:\n    path: ~/web\n    ssh_agent: false\n";
    assert_eq!(of(project, "-- x"), None);
    let none = world("").env("SSH_AUTH_SOCK", "");
    assert!(none.told("--ssh-agent -- x").contains("there is no ssh agent here"));
    let none = none.config("defaults:\n  ssh_agent: true\n").run("-- x");
    assert!(
        none.cell.brokers.is_empty() && none.notes.iter().any(|note| note.contains("no ssh agent")),
        "{:?}",
        none.notes
    );
    for key in ["/home/ada/web/id.pub", "id.pub", "~/missing.pub"] {
        assert!(world("").told(&format!("--ssh-agent-key {key} -- x")).contains("names no key"), "{key}");
    }
}

#[test]
fn git_gets_credentials_for_the_projects_https_remotes() {
    let resolved = world(REMOTE).run("--git-credentials -- x");
    let git = resolved.cell.brokers.git.as_ref().expect("git");
    let want = GitRemote { host: "github.com".into(), port: 443, path: "ada/web.git".into(), username: None };
    assert_eq!(git.remotes, [want]);
    assert!(git.placeholder.starts_with("cellblock-"));
    assert_eq!(resolved.why("git_credentials"), "https://github.com/ada/web.git (--git-credentials)");
    for remotes in ["", "[remote \"origin\"]\n\turl = git@github.com:ada/web.git\n"] {
        let resolved = world(remotes).run("--git-credentials -- x");
        assert!(
            resolved.cell.brokers.is_empty() && resolved.notes.iter().any(|n| n.contains("no remote with an https"))
        );
    }
    let open = world("[remote \"o\"]\n\turl = https://ada:word@github.com/ada/web\n").run("--git-credentials -- x");
    assert!(open.notes.iter().any(|note| note.contains("holds a password")) && !format!("{open:?}").contains("word@"));
    assert!(world(REMOTE).told("--git-credentials --net bridge -- x").contains("no meaning with the network `bridge`"));
}

#[test]
fn bridges_are_single_things() {
    let brokers = |config: &str, line: &str| world("").config(config).run(line).cell.brokers;
    assert_eq!(
        brokers("", "--bridge open-url,clipboard-image -- x"),
        Brokers { open_url: true, clipboard_image: true, ..Brokers::default() }
    );
    let config = "defaults:\n  bridges: [clipboard-image]\n";
    assert_eq!(brokers(config, "-- x"), Brokers { clipboard_image: true, ..Brokers::default() });
    assert_eq!(brokers(config, "--bridge open-url -- x"), Brokers { open_url: true, ..Brokers::default() });
}

#[test]
fn workmux_is_the_persons_own() {
    let mut world = world("");
    for place in ["/home/ada/web/bin/workmux", "/home/ada/.cargo/bin/workmux"] {
        world.files.seen.insert(place.into(), Seen { canonical: place.into(), is_dir: false });
    }
    let of = |path: &str, tmux: &str| {
        let world = world.clone().env("PATH", path).env("TMUX", tmux).env("TMUX_PANE", tmux);
        world.run("--bridge workmux-status -- x").cell.brokers.workmux
    };
    let both = ".:/home/ada/web/bin:/home/ada/.cargo/bin";
    assert_eq!(of(both, "%1"), Some("/home/ada/.cargo/bin/workmux".into()));
    assert_eq!(of(both, ""), None);
    assert_eq!(of("/home/ada/web/bin:/usr/bin", "%1"), None);
}
