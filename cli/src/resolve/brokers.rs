//! What answers a cell from outside of it: the ssh agent, git's credentials, the clipboard, the browser. Nothing, unless the person asked for it,
//! in their configuration or by a flag: each of them acts in the person's name.

use std::path::{Path, PathBuf};

use cellblock_broker::agent::wire;
use cellblock_bundle::cell::{Brokers, GitCredentials, GitRemote, Network, SshAgent};

use super::asked::Asked;
use super::error::ResolveError;
use super::files::Files;
use super::layers::Wanted;
use super::origin::{Explained, Origin, Sourced};
use crate::args::CellFlags;
use crate::args::values::{Bridge, word};
use crate::project::ProjectFacts;
use crate::project::remotes::{Address, remotes};

/// Why nobody is told a status.
const NO_WORKMUX: &str = "--bridge workmux-status: this is no pane of tmux, or there is no `workmux` in your PATH; the cell tells nobody its status";

/// What was found.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// What answers.
    pub(super) brokers: Brokers,
    /// Whether commits are to be signed, and who said so.
    pub(super) signing: Option<Origin>,
    /// Where each came from.
    pub(super) explained: Vec<Explained>,
    /// Things the person should know.
    pub(super) notes: Vec<String>,
}

impl Found {
    fn explain(&mut self, key: &str, value: String, origin: &Origin) {
        self.explained.push(Explained { key: key.to_owned(), value, origin: origin.clone() });
    }
}

/// What answers the cell. No program is run from the folders that are `writable` to it.
pub(super) fn brokers(asked: Asked<'_>, network: Network, writable: &[&Path]) -> Result<Found, ResolveError> {
    let mut found = Found { signing: signing(asked)?, ..Found::default() };
    if let Some(origin) = found.signing.clone() {
        found.explain("commit_signing", "true".to_owned(), &origin);
    }
    ssh_agent(asked, &mut found)?;
    git_credentials(asked, network, &mut found)?;
    let flag = Some((asked.flags.bridge.clone(), "--bridge")).filter(|(bridges, _)| !bridges.is_empty());
    let said = match flag {
        Some((value, flag)) => vec![Sourced { value, origin: Origin::Flag(flag) }],
        None => asked
            .layers
            .sections()
            .filter_map(|(settings, origin)| {
                let at = settings.bridges.first()?.at;
                let value = settings.bridges.iter().map(|bridge| bridge.value).collect();
                Some(Sourced { value, origin: origin(at) })
            })
            .collect(),
    };
    // Those of the configuration add up, as mounts do; flags say it all.
    for Sourced { value, origin } in said {
        for bridge in value {
            match bridge {
                Bridge::ClipboardImage => found.brokers.clipboard_image = true,
                Bridge::OpenUrl => found.brokers.open_url = true,
                Bridge::WorkmuxStatus => match workmux(asked, writable) {
                    Some(program) => found.brokers.workmux = Some(program),
                    None => {
                        // In the configuration it speaks of panes to come, too.
                        if matches!(origin, Origin::Flag(_)) {
                            found.notes.push(NO_WORKMUX.to_owned());
                        }
                        continue;
                    }
                },
            }
            found.explain("bridge", word(bridge).to_owned(), &origin);
        }
    }
    Ok(found)
}

/// The addresses of the project's remotes; none if there is no repository.
pub(crate) fn project_remotes(project: Option<&ProjectFacts>, files: &dyn Files) -> Vec<Address> {
    // A repository that does not know this work tree has no say in it.
    let git = project.and_then(|project| project.git.as_ref()).filter(|git| git.confirmed);
    let config = git.map(|git| git.common_dir.join("config"));
    config.and_then(|file| files.read(&file).ok()).map_or_else(Vec::new, |text| remotes(&text))
}

/// The host's workmux, if this is a pane of tmux.
fn workmux(asked: Asked<'_>, writable: &[&Path]) -> Option<PathBuf> {
    let env = |name: &str| asked.host.env.get(name).map(String::as_str).filter(|value| !value.is_empty());
    env("TMUX").and(env("TMUX_PANE"))?;
    let own = |path: &Path| writable.iter().any(|folder| path.starts_with(folder));
    env("PATH")?.split(':').filter(|folder| folder.starts_with('/')).find_map(|folder| {
        let place = Path::new(folder).join("workmux");
        let seen = asked.files.look(&place).ok()?;
        let usable = !seen.is_dir && !own(&place) && !own(&seen.canonical) && asked.files.executable(&seen.canonical);
        usable.then_some(seen.canonical)
    })
}

fn signing(asked: Asked<'_>) -> Result<Option<Origin>, ResolveError> {
    let flag = match (asked.flags.commit_signing, asked.flags.no_commit_signing) {
        (_, true) => Some((false, "--no-commit-signing")),
        (true, _) => Some((true, "--commit-signing")),
        _ => None,
    };
    let wanted = asked.layers.find(Wanted { flag, variable: None, key: |s| &s.commit_signing })?;
    Ok(wanted.filter(|said| said.value).map(|said| said.origin))
}

fn ssh_agent(asked: Asked<'_>, found: &mut Found) -> Result<(), ResolveError> {
    let CellFlags { ssh_agent, no_ssh_agent, ssh_agent_key, .. } = asked.flags;
    let flag = match (*ssh_agent || !ssh_agent_key.is_empty(), *no_ssh_agent) {
        (_, true) => Some((false, "--no-ssh-agent")),
        (true, _) => Some((true, "--ssh-agent")),
        _ => None,
    };
    let wanted = asked.layers.find(Wanted { flag, variable: None, key: |s| &s.ssh_agent })?;
    let Some(Sourced { value: true, origin }) = wanted else { return Ok(()) };
    let socket = asked.host.env.get("SSH_AUTH_SOCK").filter(|path| !path.is_empty()).map(PathBuf::from);
    let Some(socket) = socket.filter(|path| path.is_absolute()) else {
        if matches!(origin, Origin::Flag(_)) {
            return Err(ResolveError::NoSshAgent);
        }
        found
            .notes
            .push(format!("{origin}: there is no ssh agent here (SSH_AUTH_SOCK is not set), so the cell gets none"));
        return Ok(());
    };
    let mut keys = Vec::new();
    if ssh_agent_key.is_empty() {
        for (settings, origin) in asked.layers.sections() {
            for key in &settings.ssh_agent_keys {
                keys.push(agent_key(asked, &key.value, &origin(key.at), Asked::configured_path)?);
            }
        }
    }
    for key in ssh_agent_key {
        keys.push(agent_key(asked, key, &Origin::Flag("--ssh-agent-key"), Asked::typed_path)?);
    }
    let commits = found.signing.is_some();
    let which = if keys.is_empty() { "all its keys".to_owned() } else { keys.join(", ") };
    let what = if commits { "logins, commits and tags" } else { "logins" };
    found.explain("ssh_agent", format!("{} ({which}; for {what})", socket.display()), &origin);
    found.brokers.ssh_agent = Some(SshAgent { socket, keys, commits });
    Ok(())
}

/// One key: its fingerprint, its comment, or the file of its public half, which stands for its fingerprint.
fn agent_key<'a>(
    asked: Asked<'a>,
    text: &str,
    origin: &Origin,
    expand: fn(Asked<'a>, &str, &Origin) -> Result<PathBuf, ResolveError>,
) -> Result<String, ResolveError> {
    if text.starts_with("SHA256:") || !(text.starts_with(['/', '~', '$']) || text.ends_with(".pub")) {
        return Ok(text.to_owned());
    }
    let path = expand(asked, text, origin)?;
    let failed = |why: String| ResolveError::AgentKey { origin: origin.clone(), path: path.clone(), why };
    // From inside the project the cell itself could say which key it gets.
    if path.is_relative() || asked.project.is_some_and(|project| path.starts_with(&project.root)) {
        return Err(failed("the path must be absolute, and lead out of the project".to_owned()));
    }
    let text = asked.files.read(&path).map_err(|error| failed(error.to_string()))?;
    let key = text.lines().find_map(wire::public_key);
    key.map(|key| wire::fingerprint(&key)).ok_or_else(|| failed("there is no public key in it".to_owned()))
}

fn git_credentials(asked: Asked<'_>, network: Network, found: &mut Found) -> Result<(), ResolveError> {
    let flag = match (asked.flags.git_credentials, asked.flags.no_git_credentials) {
        (_, true) => Some((false, "--no-git-credentials")),
        (true, _) => Some((true, "--git-credentials")),
        _ => None,
    };
    let wanted = asked.layers.find(Wanted { flag, variable: None, key: |s| &s.git_credentials })?;
    let Some(Sourced { value: true, origin }) = wanted else { return Ok(()) };
    if network != Network::Names {
        let mode = word(network);
        if matches!(origin, Origin::Flag(_)) {
            return Err(ResolveError::NeedsNames { flag: "--git-credentials", mode });
        }
        found
            .notes
            .push(format!("{origin}: git gets no credentials with the network `{mode}`: they are put in by `names`"));
        return Ok(());
    }
    let mut repositories = Vec::new();
    for address in project_remotes(asked.project, asked.files) {
        let Address::Https { host, port, path, username, password } = address else { continue };
        let remote = GitRemote { host: host.to_string(), port, path, username };
        if password {
            found.notes.push(format!(
                "the address of the remote {remote} holds a password, which the cell can read: take it out with `git remote set-url`"
            ));
        }
        found.explain("git_credentials", remote.to_string(), &origin);
        repositories.push(remote);
    }
    if repositories.is_empty() {
        found
            .notes
            .push(format!("{origin}: this project has no remote with an https address, so git needs no credentials"));
        return Ok(());
    }
    let placeholder = super::reach::placeholder().map_err(ResolveError::Random)?;
    found.brokers.git = Some(GitCredentials { placeholder, remotes: repositories });
    Ok(())
}
