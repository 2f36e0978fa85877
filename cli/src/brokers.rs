//! What answers a cell from outside of it: what the cell is told of it, and starting the process.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use cellblock_broker::{Agent, Settings, Signer};
use cellblock_bundle::cell::{BROKERS, Brokers, GitRemote, Network, SHIMS, SSH_AGENT, TRUST};
use cellblock_bundle::{Cell, Mount};
use cellblock_egress::git::Remote;
use cellblock_rootfs::root::skeleton::Entry;
use cellblock_runtime::state::{self, Dirs};
use cellblock_sys::process::SingleThreaded;

use crate::output::plain;
use crate::project::remotes::Address;
use crate::report::CliError;
use crate::resolve::HostFacts;

/// Host keys of the usual forges.
const KNOWN_HOSTS: &str = include_str!("../data/known_hosts");

/// OpenSSH reads this one besides `ssh_known_hosts`, which an image may have.
const KNOWN_HOSTS_FILE: &str = "/etc/ssh/ssh_known_hosts2";

/// The programs that stand for those of a desktop, by name.
const ASK: &str = include_str!("../data/shims/ask");
const XCLIP: &str = include_str!("../data/shims/xclip");
const WL_PASTE: &str = include_str!("../data/shims/wl-paste");
const XDG_OPEN: &str = include_str!("../data/shims/xdg-open");
const WORKMUX: &str = include_str!("../data/shims/workmux");
const GPG_SIGN: &str = include_str!("../data/shims/gpg-sign");

/// What stands for gpg where git signs, in [`SHIMS`].
pub(crate) const GPG: &str = "gpg-sign";

/// Tells the cell's programs by their usual variables.
pub(crate) fn tell(brokers: &Brokers, variables: &mut BTreeMap<String, String>) {
    let mut set = |name: &str, value: &str| variables.insert(name.to_owned(), value.to_owned());
    if brokers.ssh_agent.is_some() {
        set("SSH_AUTH_SOCK", SSH_AGENT);
    }
    if brokers.open_url {
        set("BROWSER", &format!("{SHIMS}/xdg-open"));
    }
    if brokers.clipboard_image || brokers.open_url || brokers.workmux.is_some() {
        let path = variables.get("PATH").map_or_else(|| SHIMS.to_owned(), |path| format!("{SHIMS}:{path}"));
        variables.insert("PATH".to_owned(), path);
    }
    let Some(git) = &brokers.git else { return };
    for variable in cellblock_egress::intercept::VARIABLES {
        variables.insert((*variable).to_owned(), TRUST.to_owned());
    }
    for remote in &git.remotes {
        let key = format!("credential.{}.helper", with_user(remote));
        let username = remote.username.as_deref().unwrap_or("cellblock");
        let words = format!("username={username}\\npassword={}\\n", git.placeholder);
        let helper = format!("!f() {{ test \"$1\" != get || printf '{words}'; }}; f");
        // An empty one forgets those that the image's configuration names.
        add_git_setting(variables, &key, "");
        add_git_setting(variables, &key, &helper);
    }
}

/// The address as git's settings know it (gitcredentials(7), "credential contexts").
fn with_user(remote: &GitRemote) -> String {
    let plain = remote.to_string();
    match (&remote.username, plain.strip_prefix("https://")) {
        (Some(user), Some(rest)) => format!("https://{user}@{rest}"),
        _ => plain,
    }
}

/// Adds a setting of git's to those in the environment (git(1), `GIT_CONFIG_COUNT`).
pub(crate) fn add_git_setting(variables: &mut BTreeMap<String, String>, key: &str, value: &str) {
    let count: u32 = variables.get("GIT_CONFIG_COUNT").and_then(|count| count.parse().ok()).unwrap_or(0);
    variables.insert(format!("GIT_CONFIG_KEY_{count}"), key.to_owned());
    variables.insert(format!("GIT_CONFIG_VALUE_{count}"), value.to_owned());
    variables.insert("GIT_CONFIG_COUNT".to_owned(), (count + 1).to_string());
}

/// What of it is in the cell's root. `remotes` are the project's.
pub(crate) fn files(cell: &Cell, remotes: &[Address], host: &HostFacts) -> Vec<Entry> {
    let brokers = &cell.brokers;
    let script =
        |name: &str, text: &str| Entry::Script { path: format!("{SHIMS}/{name}").into(), text: text.to_owned() };
    let mut entries = Vec::new();
    if brokers.ssh_agent.is_some() {
        let text = format!("{KNOWN_HOSTS}{}", own_known_hosts(remotes, host, &safe_environment(cell, &host.env)));
        entries.push(Entry::File { path: KNOWN_HOSTS_FILE.into(), text });
    }
    if brokers.clipboard_image || brokers.open_url {
        entries.push(script("ask", ASK));
    }
    if brokers.clipboard_image {
        entries.extend([script("xclip", XCLIP), script("wl-paste", WL_PASTE)]);
    }
    if brokers.open_url {
        let link = |name: &str| Entry::link(format!("{SHIMS}/{name}").into(), "xdg-open".into());
        entries.extend([script("xdg-open", XDG_OPEN), link("open"), link("sensible-browser"), link("www-browser")]);
    }
    if brokers.workmux.is_some() {
        entries.push(script("workmux", WORKMUX));
    }
    if brokers.signer.is_some() {
        entries.push(script(GPG, GPG_SIGN));
    }
    entries
}

/// What the person's `known_hosts` says about the servers of the project's remotes, and about no other: which servers they use is theirs to know.
/// Read by OpenSSH's own program, for names in there may be hashed.
fn own_known_hosts(remotes: &[Address], host: &HostFacts, env: &BTreeMap<String, String>) -> String {
    let mut text = String::new();
    let file = host.home.join(".ssh/known_hosts");
    for remote in remotes {
        let Address::Ssh { host: server, port } = remote else { continue };
        let name = if *port == 22 { server.clone() } else { format!("[{server}]:{port}") };
        let mut command = Command::new("ssh-keygen");
        command
            .env_clear()
            .envs(env)
            .arg("-F")
            .arg(&name)
            .arg("-f")
            .arg(&file)
            .stdin(Stdio::null())
            .stderr(Stdio::null());
        let Ok(output) = command.output() else { continue };
        let found = String::from_utf8_lossy(&output.stdout);
        for line in found.lines().filter(|line| !line.starts_with('#') && !line.trim().is_empty()) {
            text += line;
            text.push('\n');
        }
    }
    text
}

/// Starts the process, if anything answers the cell; it is known by what is returned. To be called before OUTER is entered: it stays where the person is.
pub(crate) fn start(cell: &Cell, dirs: &Dirs, env: &BTreeMap<String, String>) -> Result<Option<OwnedFd>, CliError> {
    if cell.brokers.is_empty() {
        return Ok(None);
    }
    let process = |what| move |source| CliError::Process { what, source };
    let alone = SingleThreaded::prove().map_err(process("cannot go on"))?;
    let settings = settings(cell, dirs, env)?;
    if let Some(folder) = settings.audit.parent() {
        state::make_dir(&dirs.state)?;
        state::make_dir(folder)?;
    }
    Ok(Some(cellblock_broker::start(&settings, &alone)?))
}

/// The person's environment for programs of theirs that the cell can cause to run. Nothing is looked for where the cell can write: a folder of the
/// project's in the `PATH` would let it choose what runs outside, one in any other variable what that loads or reads. Variables of the dynamic loader
/// (ld.so(8)) are left out whatever they say.
pub(crate) fn safe_environment(cell: &Cell, env: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let writable: Vec<PathBuf> = cell.writable_sources().flat_map(|path| [path.to_owned(), real(path)]).collect();
    // By its nearest parent that is there: what is not there yet, the cell can make.
    let reaches = |path: &Path| {
        let there = path.ancestors().find_map(|above| above.canonicalize().ok());
        writable.iter().any(|own| path.starts_with(own) || there.as_ref().is_some_and(|there| there.starts_with(own)))
    };
    let names_one = |value: &str| {
        let mut words = value.split([':', ',', ';', '=', ' ']).filter(|word| word.starts_with('/'));
        words.any(|word| reaches(Path::new(word)))
            || writable.iter().filter_map(|own| own.to_str()).any(|own| value.contains(own))
    };
    let mut safe = BTreeMap::new();
    for (name, value) in env {
        if name == "PATH" {
            let there =
                |folder: &&str| folder.starts_with('/') && Path::new(folder).is_dir() && !reaches(Path::new(folder));
            safe.insert(name.clone(), value.split(':').filter(there).collect::<Vec<_>>().join(":"));
        } else if !name.starts_with("LD_") && !names_one(value) {
            safe.insert(name.clone(), value.clone());
        }
    }
    safe
}

fn settings(cell: &Cell, dirs: &Dirs, env: &BTreeMap<String, String>) -> Result<Settings, CliError> {
    let Brokers { ssh_agent, signer, git, clipboard_image, open_url, workmux } = &cell.brokers;
    let remote = |one: &GitRemote| {
        let host = one.host.parse().map_err(|e| CliError::plain(format!("{one}: {e}"), "see `git remote -v`"))?;
        Ok::<_, CliError>(Remote { host, port: one.port, path: one.path.clone(), username: one.username.clone() })
    };
    let git = git.iter().filter(|_| cell.network == Network::Names).flat_map(|git| &git.remotes);
    Ok(Settings {
        folder: dirs.broker(&cell.name),
        audit: dirs.audit(&cell.name),
        peers: cell.ids.uids.iter().map(|extent| (extent.outside, extent.size)).collect(),
        agent: ssh_agent.as_ref().map(|agent| Agent {
            socket: agent.socket.clone(),
            keys: agent.keys.clone(),
            commits: agent.commits,
        }),
        git: git.map(remote).collect::<Result<_, _>>()?,
        signer: signer.as_ref().map(|signer| Signer { program: signer.program.clone(), key: signer.key.clone() }),
        env: safe_environment(cell, env),
        clipboard_image: *clipboard_image,
        open_url: *open_url,
        workmux: workmux.clone(),
        published: cell.reach.publish.iter().map(|port| port.host.port()).collect(),
    })
}

/// Refuses a folder of the host's that is mounted where the cell finds its answers: their mount point would be made in that folder, for the host to keep.
pub(crate) fn make_room(cell: &Cell) -> Result<(), CliError> {
    let taken = |mount: &&Mount| matches!(mount, Mount::Bind { .. }) && Path::new(BROKERS).starts_with(mount.target());
    match cell.mounts.iter().find(taken).filter(|_| cell.brokers.is_inside()) {
        Some(mount) => Err(CliError::plain(
            format!(
                "a folder of this host is mounted on {}, and {BROKERS} is where what answers the cell is found",
                mount.target().display()
            ),
            "mount it somewhere else, or leave out the ssh agent, signatures and bridges",
        )),
        None => Ok(()),
    }
}

/// What is asked for and will not work as things are, in words.
pub(crate) fn notes(brokers: &Brokers) -> Vec<String> {
    let mut notes = Vec::new();
    if let Some(agent) = &brokers.ssh_agent
        && let Err(error) = std::os::unix::net::UnixStream::connect(&agent.socket)
    {
        notes.push(format!(
            "your ssh agent at {} does not answer ({error}): the cell has no keys until it does",
            agent.socket.display()
        ));
    }
    notes
}

/// What the person is told before the cell starts, a line each.
pub(crate) fn words(brokers: &Brokers) -> Vec<String> {
    let mut lines = Vec::new();
    if let Some(agent) = &brokers.ssh_agent {
        let keys = if agent.keys.is_empty() { "EVERY KEY of your ssh agent".to_owned() } else { agent.keys.join(", ") };
        let what = if agent.commits { "log in as you and sign commits" } else { "log in as you" };
        lines.push(format!("{what}, wherever the network lets it, with {keys}"));
    }
    if let Some(signer) = &brokers.signer {
        lines.push(format!("have commits and tags signed by your gpg, with the key {}", signer.key));
    }
    if let Some(git) = &brokers.git {
        let list: Vec<String> = git.remotes.iter().map(ToString::to_string).collect();
        lines.push(format!("fetch and push as you: {}", list.join(", ")));
    }
    if brokers.clipboard_image {
        lines.push("read images from your clipboard".to_owned());
    }
    if brokers.open_url {
        lines.push("open addresses in your browser, also such as the network does not allow".to_owned());
    }
    if brokers.workmux.is_some() {
        lines.push("tell workmux the status of this window, and the prompt".to_owned());
    }
    lines
}

/// What an agent in the cell needs to know, a line each.
pub(crate) fn for_agents(brokers: &Brokers) -> Vec<String> {
    let mut lines = Vec::new();
    if let Some(agent) = &brokers.ssh_agent {
        let commits = if agent.commits { " and sign commits" } else { "" };
        lines.push(format!("ssh and git over ssh log in{commits} by an ssh agent outside; there are no keys here, and each use is logged."));
    }
    if brokers.signer.is_some() {
        lines.push(
            "git's commits and tags are signed by a gpg outside; there is no key here, and each signature is logged."
                .to_owned(),
        );
    }
    if let Some(git) = &brokers.git {
        let list: Vec<String> = git.remotes.iter().map(|remote| format!("`{}`", plain(&remote.to_string()))).collect();
        lines.push(format!(
            "git fetches from and pushes to {}; the password it is given here is worth nothing elsewhere.",
            list.join(", ")
        ));
    }
    if brokers.clipboard_image {
        lines.push(
            "`xclip` and `wl-paste` give an image from the person's clipboard, and nothing else of it.".to_owned(),
        );
    }
    if brokers.open_url {
        lines.push("`xdg-open` opens a web address in the person's browser.".to_owned());
    }
    lines
}

#[cfg(test)]
mod tests {
    use cellblock_broker::agent::wire;
    use cellblock_bundle::cell::GitCredentials;

    use super::*;

    #[test]
    fn nothing_is_looked_for_where_the_cell_can_write() {
        let project = tempfile::tempdir().expect("a folder");
        let root = project.path().canonicalize().expect("canonical");
        std::fs::create_dir(root.join("bin")).expect("a folder");
        let elsewhere = tempfile::tempdir().expect("a folder");
        let link = elsewhere.path().join("link");
        std::os::unix::fs::symlink(root.join("bin"), &link).expect("a link");
        let mut cell: Cell = serde_json::from_str(include_str!("resolve/tests/golden/command.json")).expect("a cell");
        cell.mounts = vec![Mount::Bind { source: root.clone(), target: root.clone(), writable: true }];
        let path = format!("{0}/bin:/usr/bin:relative::{1}:/nowhere:/bin", root.display(), link.display());
        let env = BTreeMap::from([("PATH".to_owned(), path), ("A".to_owned(), "b".to_owned())]);
        let loads = [("GNUPGHOME", "new/.gnupg"), ("NODE_OPTIONS", "x.js"), ("PYTHONPATH", "lib")];
        let mut env = env;
        env.extend(loads.map(|(name, path)| (name.to_owned(), format!("--at={}/{path}", root.display()))));
        env.insert("BY_A_LINK".to_owned(), format!("/nowhere:{}/x/y", link.display()));
        env.insert("LD_LIBRARY_PATH".to_owned(), "/usr/lib".to_owned());
        let safe = safe_environment(&cell, &env);
        assert_eq!(safe.keys().collect::<Vec<_>>(), ["A", "PATH"]);
        assert_eq!((safe["PATH"].as_str(), safe["A"].as_str()), ("/usr/bin:/bin", "b"));
        // The twin: what the cell cannot write to stays.
        cell.mounts = vec![Mount::Bind { source: root.clone(), target: root.clone(), writable: false }];
        assert!(safe_environment(&cell, &env)["PATH"].contains(root.to_str().expect("utf-8")));
    }

    #[test]
    fn the_forges_keys_have_the_published_fingerprints() {
        let comments: Vec<Vec<&str>> = KNOWN_HOSTS
            .lines()
            .filter_map(|line| line.strip_prefix("# "))
            .map(|line| line.split_whitespace().take(2).collect())
            .filter(|words: &Vec<&str>| words.get(1).is_some_and(|word| word.starts_with("SHA256:")))
            .collect();
        let keys: Vec<(&str, String)> = KNOWN_HOSTS
            .lines()
            .filter(|line| !line.starts_with('#'))
            .map(|line| {
                let (names, key) = line.split_once(' ').expect("names and a key");
                let key = wire::public_key(key).expect("a key");
                (names.split(',').next().expect("a name"), wire::fingerprint(&key))
            })
            .collect();
        assert_eq!(keys.len(), 5);
        for (name, fingerprint) in &keys {
            assert!(comments.contains(&vec![*name, fingerprint.as_str()]), "{name} {fingerprint}");
        }
        assert_eq!(keys.len(), comments.len());
    }

    #[test]
    fn git_is_told_by_its_variables_and_others_are_kept() {
        let remotes = vec![
            GitRemote { host: "git.test".into(), port: 443, path: "a/b.git".into(), username: None },
            GitRemote { host: "git.test".into(), port: 8443, path: "c".into(), username: Some("me".into()) },
        ];
        let git = Some(GitCredentials { placeholder: "PLACE".into(), remotes });
        let brokers = Brokers { git, ..Brokers::default() };
        let own = [("GIT_CONFIG_COUNT", "1"), ("GIT_CONFIG_KEY_0", "a.b"), ("GIT_CONFIG_VALUE_0", "c")];
        let mut variables: BTreeMap<String, String> = own.map(|(k, v)| (k.to_owned(), v.to_owned())).into();
        tell(&brokers, &mut variables);
        let get = |name: &str| variables.get(name).map(String::as_str);
        assert_eq!(get("GIT_CONFIG_COUNT"), Some("5"));
        assert_eq!((get("GIT_CONFIG_KEY_0"), get("GIT_CONFIG_VALUE_0")), (Some("a.b"), Some("c")));
        assert_eq!(
            (get("GIT_CONFIG_KEY_1"), get("GIT_CONFIG_VALUE_1")),
            (Some("credential.https://git.test/a/b.git.helper"), Some(""))
        );
        assert_eq!(get("GIT_CONFIG_KEY_4"), Some("credential.https://me@git.test:8443/c.helper"));
        let helper = "!f() { test \"$1\" != get || printf 'username=me\\npassword=PLACE\\n'; }; f";
        assert_eq!(get("GIT_CONFIG_VALUE_4"), Some(helper));
        assert_eq!(get("GIT_SSL_CAINFO"), Some(TRUST));
        assert_eq!(get("SSH_AUTH_SOCK"), None);
    }

    #[test]
    fn programs_are_told_by_their_usual_variables() {
        let brokers = Brokers { open_url: true, clipboard_image: true, ..Brokers::default() };
        let mut variables = BTreeMap::from([("PATH".to_owned(), "/bin".to_owned())]);
        tell(&brokers, &mut variables);
        assert_eq!(variables["PATH"], "/etc/cellblock/bin:/bin");
        assert_eq!(variables["BROWSER"], "/etc/cellblock/bin/xdg-open");
        let mut cell: Cell = serde_json::from_str(include_str!("resolve/tests/golden/command.json")).expect("a cell");
        assert_eq!(files(&cell, &[], &HostFacts::default()), []);
        cell.brokers = brokers;
        let names: Vec<PathBuf> = files(&cell, &[], &HostFacts::default())
            .iter()
            .map(|entry| match entry {
                Entry::Script { path, .. } | Entry::Link { path, .. } => path.clone(),
                other => panic!("{other:?}"),
            })
            .collect();
        assert!(names.contains(&"/etc/cellblock/bin/wl-paste".into()), "{names:?}");
    }
}
