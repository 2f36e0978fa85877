//! What a cell sees of its agent's files and folders at home, and of its logins.

use std::path::{Component, Path, PathBuf};

use cellblock_bundle::{State, StateKind, StateMode};
use cellblock_runtime::keep::Links;

use super::expand::{ExpandError, config_path};
use super::mounts::Placed;
use super::place::Home;
use super::*;
use crate::args::values::word;
use crate::config::StatePath;

/// What was decided.
#[derive(Debug, Default)]
pub(super) struct Decided {
    pub(super) state: Vec<State>,
    /// Variables that tell the agent where its files are.
    pub(super) variables: Vec<(String, String)>,
    pub(super) explained: Vec<Explained>,
    pub(super) notes: Vec<String>,
}

/// What is taken over of agents' folders: links lead within the home, and secrets stay out, also those that lie in such a folder. What a cell may
/// write today, as in a folder that is shared, it could otherwise have copied into one tomorrow.
pub(crate) fn links(host: &HostFacts, secret: &[PathBuf]) -> Links {
    let never = secret.iter().cloned().chain(host.own.iter().cloned()).chain([host.runtime.clone()]);
    Links::new(host.homes.clone(), never.filter(|path| !path.as_os_str().is_empty()).collect())
}

/// What of the agent's is the host's own and can be written.
pub(super) fn shared(state: &[State]) -> impl Iterator<Item = &State> {
    state.iter().filter(|one| one.mode == StateMode::Share)
}

/// Covers what is secret in folders that are shared, but for what the agent has of them by an entry of its own, such as its login.
pub(super) fn cover_shared(asked: Asked<'_>, state: &[State], placed: &mut Vec<Placed>) -> Result<(), ResolveError> {
    let stand_in = |one: &State| {
        let source = asked.files.look(&one.host).map_or_else(|_| one.host.clone(), |seen| seen.canonical);
        let mount = Mount::Bind { source, target: one.target.clone(), writable: true };
        Placed { mount, origin: Origin::Shipped { agent: one.agent.clone() } }
    };
    let folders = shared(state).filter(|one| one.kind == StateKind::Folder);
    let stand_ins: Vec<Placed> = folders.map(stand_in).collect();
    if stand_ins.is_empty() {
        return Ok(());
    }
    placed.extend(stand_ins.iter().cloned());
    // What there is to say of mounts has been said.
    secret_paths::cover(asked, placed)?;
    placed.retain(|one| {
        let own = matches!(&one.mount, Mount::Mask { target, .. } if state.iter().any(|other| other.target == *target));
        !own && !stand_ins.contains(one)
    });
    Ok(())
}

/// The agent whose state `claude_config` is about.
const CLAUDE: &str = "claude-code";

impl Inputs<'_> {
    /// The state of the agent, if there is one. What the person has mounted is as the person wants it.
    pub(super) fn state(
        self,
        layers: Layers<'_>,
        user: &User,
        home: &Home,
        placed: &[Placed],
    ) -> Result<Decided, ResolveError> {
        let mut decided = Decided::default();
        let Some(agent) = self.agent.filter(|_| self.typed.cell.entrypoint.is_none()) else { return Ok(decided) };
        let said = layers.find(Wanted { flag: None, variable: None, key: |s| &s.claude_config })?;
        let said = said.filter(|_| agent.name == CLAUDE);
        let shipped = Origin::Shipped { agent: agent.name.clone() };
        let base = base(agent, user, home, &mut decided);
        let states =
            agent.spec.state.iter().map(|one| (one, if one.file { StateKind::File } else { StateKind::Folder }));
        let logins = agent.spec.login.iter().map(|one| (one, StateKind::Login));
        for (one, kind) in states.chain(logins) {
            let shipped_mode = one.mode.as_ref().map(|mode| mode.value);
            let host = at_home(&one.path.value, &self.host.home);
            let (mode, origin) = match (&said, self.shares(layers, &host)) {
                (_, Some(origin)) if kind == StateKind::Folder => (StateMode::Share, origin),
                (Some(said), _) if kind != StateKind::Login => (said.value, said.origin.clone()),
                _ => (shipped_mode.unwrap_or(default_mode(kind)), shipped.clone()),
            };
            let target = at_home(&one.path.value, &base);
            self.check_own(&host, &origin)?;
            let state = State {
                agent: agent.name.clone(),
                host,
                target,
                kind,
                mode,
                hidden: if mode == StateMode::Share { Vec::new() } else { one.history.clone() },
                locks: one.locks.clone(),
            };
            self.add(&mut decided, state, one, placed, &origin);
        }
        redirect(&mut decided, &agent.spec.state, &base);
        Ok(decided)
    }

    /// Who said that the host's `path` is shared, if somebody did.
    fn shares(self, layers: Layers<'_>, path: &Path) -> Option<Origin> {
        let same = |text: Result<String, ExpandError>| text.is_ok_and(|text| Path::new(&text) == path);
        if self.typed.cell.share.iter().any(|text| same(typed_path(text, self.host))) {
            return Some(Origin::Flag("--share"));
        }
        let mut said = layers
            .sections()
            .flat_map(|(settings, origin)| settings.share.iter().map(move |one| (&one.value, origin(one.at))));
        said.find(|(text, _)| same(config_path(text, self.host))).map(|(_, origin)| origin)
    }

    fn add(self, decided: &mut Decided, state: State, one: &StatePath, placed: &[Placed], origin: &Origin) {
        let key = format!("{} {}", if state.kind == StateKind::Login { "login" } else { "state" }, one.path.value);
        let covers = |placed: &&Placed| state.target.starts_with(placed.mount.target());
        if let Some(over) = placed.iter().find(covers) {
            let value = format!("as it is in the mount {}", over.mount.target().display());
            decided.explained.push(Explained { key, value, origin: over.origin.clone() });
            return;
        }
        if state.kind == StateKind::Folder && state.mode == StateMode::Share {
            match self.files.look(&state.host) {
                Ok(seen) if seen.is_dir => {}
                Ok(_) | Err(_) => {
                    decided.notes.push(format!(
                        "{} is to be shared and is no folder here; the cell has its own",
                        state.host.display()
                    ));
                    return;
                }
            }
        }
        decided.explained.push(Explained { key, value: words(&state), origin: origin.clone() });
        decided.state.push(state);
    }

    /// Where `path` ends, if it is there.
    pub(super) fn end_of(self, path: &Path) -> PathBuf {
        self.files.look(path).map_or_else(|_| path.to_owned(), |seen| seen.canonical)
    }

    /// Nothing of cellblock's own is an agent's.
    fn check_own(self, host: &Path, origin: &Origin) -> Result<(), ResolveError> {
        let path = self.files.look(host).map_or_else(|_| host.to_owned(), |seen| seen.canonical);
        let runtime = Some(&self.host.runtime).filter(|path| !path.as_os_str().is_empty());
        match runtime.into_iter().chain(&self.host.own).find(|own| own.starts_with(&path) || path.starts_with(own)) {
            Some(own) => {
                Err(ResolveError::OwnFiles { origin: origin.clone(), path, own: own.clone(), readable: false })
            }
            None => Ok(()),
        }
    }
}

/// Where the agent's files are laid: at home. Where that is a folder of the host's, in which nothing is made, they are at the cell's own home if the
/// agent's program can be told so; else they are what that folder has.
fn base(agent: &Agent, user: &User, home: &Home, decided: &mut Decided) -> PathBuf {
    let Some(own) = &home.own else { return user.home.clone() };
    let folders: Vec<&StatePath> = agent.spec.state.iter().filter(|one| !one.file).collect();
    if folders.is_empty() || folders.iter().any(|one| one.home_env.is_none()) {
        let at = user.home.display();
        let seen = if home.workspace { ", for git and everybody who reads the project" } else { "" };
        decided.notes.push(format!("{}: its files, login and history are those in {at}{seen}", agent.title()));
        return user.home.clone();
    }
    for one in folders {
        let Some(said) = &one.home_env else { continue };
        let (name, path) = said.split_once('=').unwrap_or((said, &one.path.value));
        decided.variables.push((name.to_owned(), at_home(path, own).display().to_string()));
    }
    own.clone()
}

/// A file that may stand in a folder of the same agent's does, where cells may write that: its program is told by a variable.
fn redirect(decided: &mut Decided, spec: &[StatePath], home: &Path) {
    for one in spec {
        let (Some(inside), Some(variable)) = (&one.inside, &one.inside_env) else { continue };
        let (old, new) = (at_home(&one.path.value, home), at_home(inside, home));
        let writable = |state: &State| matches!(state.mode, StateMode::Private | StateMode::Copy);
        let holds =
            |state: &State| state.kind == StateKind::Folder && writable(state) && new.starts_with(&state.target);
        let Some(folder) = decided.state.iter().find(|state| holds(state)).map(|folder| folder.mode) else { continue };
        let Some(file) = decided.state.iter_mut().find(|state| state.target == old) else { continue };
        if file.mode != folder {
            continue;
        }
        file.target.clone_from(&new);
        if let Some((name, value)) = variable.split_once('=') {
            decided.variables.push((name.to_owned(), at_home(value, home).display().to_string()));
        }
        decided.explained.push(Explained {
            key: format!("state {}", one.path.value),
            value: format!("inside it is {} ({variable})", new.display()),
            origin: Origin::Default,
        });
    }
}

/// `~` and `~/…` in a home; anything else as it is.
pub(super) fn at_home(path: &str, home: &Path) -> PathBuf {
    if path == "~" {
        return home.to_owned();
    }
    let path = path.strip_prefix("~/").map_or_else(|| PathBuf::from(path), |rest| home.join(rest));
    path.components().filter(|part| !matches!(part, Component::CurDir)).collect()
}

fn default_mode(kind: StateKind) -> StateMode {
    if kind == StateKind::Login { StateMode::Share } else { StateMode::Private }
}

fn words(state: &State) -> String {
    let host = state.host.display();
    let what = match (state.kind, state.mode) {
        (StateKind::Login, StateMode::Private) => "the project's own, never the host's".to_owned(),
        (_, StateMode::Private) => format!("the project's own, begun as {host}"),
        (_, StateMode::Copy) => format!("a copy of {host} that dies with the cell"),
        (_, StateMode::Share) => format!("{host} itself (rw)"),
        (_, StateMode::Sync) => format!("{host}, kept in step (ro)"),
    };
    format!("{}: {what}", word(state.mode))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_stay_out_of_secrets_and_of_cellblock() {
        let host = HostFacts {
            homes: vec!["/home/ada".into()],
            own: vec!["/home/ada/.local/share/cellblock".into()],
            ..HostFacts::default()
        };
        let links = links(&host, &["/home/ada/.ssh".into()]);
        assert_eq!(links.within, [PathBuf::from("/home/ada")]);
        assert!(links.never.contains(&"/home/ada/.ssh".into()));
        assert!(links.never.contains(&"/home/ada/.local/share/cellblock".into()));
    }

    #[test]
    fn paths_are_the_homes() {
        assert_eq!(at_home("~/.x/y", Path::new("/root")), Path::new("/root/.x/y"));
        assert_eq!(at_home("~", Path::new("/root")), Path::new("/root"));
        assert_eq!(at_home("/etc/x", Path::new("/root")), Path::new("/etc/x"));
    }
}
