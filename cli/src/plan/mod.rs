//! From what was typed and written down to what is meant: a [`Cell`] and how to start it, with where each value came from.
//!
//! Pure: everything it needs about the world is in [`Facts`], [`Settings`] and [`Sources`]. Precedence, weakest first: built-in default,
//! `defaults:` of the configuration, the project's section, flags. Lists (environment, mounts, labels) add up; a later entry
//! replaces an earlier one of the same name or target.

mod environment;
mod ids;
mod mounts;
mod values;

use std::path::{Path, PathBuf};

use cellblock_bundle::cell::MAX_NAME;
use cellblock_bundle::{Cell, Limits, Mount, Network, Profile, Project};
use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::facts::Facts;
use crate::flags::{CellFlags, Enforce, Tty, Userns};
use crate::settings::{Section, Settings, SettingsError};

pub(crate) use ids::{IdError, Person, ids};
pub(crate) use mounts::MountError;
pub(crate) use values::{ValueError, bytes, expand};

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Explained {
    /// What it is about.
    pub(crate) key: String,
    /// The value in words.
    pub(crate) value: String,
    /// `default`, `--flag`, `config.yaml:LINE`, `environment VARIABLE`.
    pub(crate) origin: String,
}

/// Why what was typed makes no cell.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PlanError {
    /// A value that is none.
    #[error(transparent)]
    Value(#[from] ValueError),
    /// A mount that cannot be.
    #[error(transparent)]
    Mount(#[from] MountError),
    /// Ids that cannot be.
    #[error(transparent)]
    Id(#[from] IdError),
    /// The configuration.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// A project that would hand over far too much.
    #[error("{path} as a project would show the cell {what}", path = path.display())]
    TooWide {
        /// The folder.
        path: PathBuf,
        /// What that means.
        what: &'static str,
    },
    /// The workspace cannot be read.
    #[error("the project folder {path} cannot be read: {source}", path = path.display())]
    Unreadable {
        /// The folder.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Nothing to run.
    #[error("no command given")]
    NoCommand,
}

/// Everything a plan is made from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sources<'a> {
    /// The flags.
    pub(crate) flags: &'a CellFlags,
    /// The words to run; empty for a shell.
    pub(crate) command: &'a [String],
    /// The configuration and its path.
    pub(crate) settings: &'a Settings,
    /// Where it was read from.
    pub(crate) settings_path: &'a Path,
    /// The host.
    pub(crate) facts: &'a Facts,
    /// The project, unless there is to be none.
    pub(crate) project: Option<&'a Project>,
}

/// What image is asked for, before the store has been looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// Its name.
    pub(crate) image: String,
    /// How ids are to be laid.
    pub(crate) userns: Userns,
    /// Alpine's mirror.
    pub(crate) alpine_mirror: Option<String>,
}

/// A finished plan.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// What is meant.
    pub(crate) cell: Cell,
    /// Keep the writable layer.
    pub(crate) keep: bool,
    /// The name was chosen by the person.
    pub(crate) named: bool,
    /// Where the values came from.
    pub(crate) explained: Vec<Explained>,
}

/// The image as it was found.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    /// Its name for people.
    pub(crate) name: String,
    /// It is the host itself.
    pub(crate) host: bool,
    /// What the image mounts (the `host` image's folders).
    pub(crate) mounts: Vec<Mount>,
}

/// One value with its origin, looked for from the strongest source down.
struct Chosen<T> {
    value: T,
    origin: String,
}

impl<'a> Sources<'a> {
    /// The project's section, if one of the configured paths is the project's root or a folder around the working one.
    fn section(&self) -> Result<Option<&'a Section>, PlanError> {
        let folder = self.project.map_or(self.facts.cwd.as_path(), |p| p.root.as_path());
        let mut best: Option<(usize, &Section)> = None;
        for section in self.settings.projects.values() {
            let Some(path) = &section.path else { continue };
            let path = PathBuf::from(expand(&path.value, self.facts)?);
            let path = path.canonicalize().unwrap_or(path);
            let depth = path.components().count();
            if folder.starts_with(&path) && best.is_none_or(|(d, _)| depth > d) {
                best = Some((depth, section));
            }
        }
        Ok(best.map(|(_, section)| section))
    }

    fn pick<T: Clone>(
        &self,
        flag: Option<T>,
        name: &str,
        of: impl Fn(&Section) -> Option<(T, u64)>,
        default: T,
    ) -> Result<Chosen<T>, PlanError> {
        if let Some(value) = flag {
            return Ok(Chosen { value, origin: format!("--{name}") });
        }
        for section in [self.section()?, Some(&self.settings.defaults)].into_iter().flatten() {
            if let Some((value, line)) = of(section) {
                return Ok(Chosen { value, origin: self.at(line) });
            }
        }
        Ok(Chosen { value: default, origin: "default".into() })
    }

    fn at(&self, line: u64) -> String {
        let name =
            self.settings_path.file_name().map_or_else(|| "config.yaml".into(), |n| n.to_string_lossy().into_owned());
        format!("{name}:{line}")
    }

    /// Sections from the weakest to the strongest.
    fn sections(&self) -> Result<Vec<&'a Section>, PlanError> {
        Ok([Some(&self.settings.defaults), self.section()?].into_iter().flatten().collect())
    }

    /// What image to look for.
    pub(crate) fn wanted(&self) -> Result<Wanted, PlanError> {
        let text = |s: &Section, f: fn(&Section) -> &Option<serde_saphyr::Spanned<String>>| {
            f(s).as_ref().map(|v| (v.value.clone(), v.referenced.line()))
        };
        let image = self.pick(self.flags.image.clone(), "image", |s| text(s, |s| &s.image), "auto".into())?;
        let userns = match self.flags.userns {
            Some(userns) => userns,
            None => {
                let chosen = self.pick(None, "userns", |s| text(s, |s| &s.userns), "auto".into())?;
                values::userns(&chosen.value, &chosen.origin)?
            }
        };
        let mirror = self.pick(None, "", |s| text(s, |s| &s.alpine_mirror), String::new())?.value;
        Ok(Wanted { image: image.value, userns, alpine_mirror: Some(mirror).filter(|m| !m.is_empty()) })
    }

    /// The plan with the image that was found.
    pub(crate) fn plan(&self, wanted: &Wanted, found: &Found) -> Result<Plan, PlanError> {
        let mut explained = Vec::new();
        let mut note = |key: &str, value: String, origin: &str| {
            explained.push(Explained { key: key.into(), value, origin: origin.into() });
        };
        let text = |f: fn(&Section) -> &Option<serde_saphyr::Spanned<String>>| {
            move |s: &Section| f(s).as_ref().map(|v| (v.value.clone(), v.referenced.line()))
        };
        let flags = self.flags;
        note(
            "image",
            found.name.clone(),
            &self.pick(flags.image.clone(), "image", text(|s| &s.image), String::new())?.origin,
        );

        let profile = self.pick(flags.profile.clone(), "profile", text(|s| &s.profile), "default".into())?;
        note("profile", profile.value.clone(), &profile.origin);
        let profile = values::profile(&profile.value, &profile.origin)?;
        let network = self.pick(flags.network.clone(), "network", text(|s| &s.network), "none".into())?;
        note("network", network.value.clone(), &network.origin);
        let network = values::network(&network.value, &network.origin)?;
        let user = self.pick(flags.user.clone(), "user", text(|s| &s.user), String::new())?;
        let person = Person::parse(&user.value, self.facts)?;
        let (ids, mut user_inside) = ids(&person, self.facts, wanted.userns, found.host)?;
        note(
            "user",
            format!("{} ({}:{}), ids {}", user_inside.name, user_inside.uid, user_inside.gid, ids.layer_key()),
            &user.origin,
        );

        let shell = self.pick(None, "", text(|s| &s.shell), self.shell(found).display().to_string())?;
        user_inside.shell = PathBuf::from(&shell.value);
        let command = self.command(&shell.value)?;
        note("command", command.join(" "), if self.command.is_empty() { &shell.origin } else { "command line" });

        let mut mounts = self.mounts(&mut explained)?;
        let workdir = self.workdir(&mut mounts, &mut explained, &user_inside)?;
        let name = self.name(&command);
        let named = flags.name.is_some();
        explained.push(Explained {
            key: "name".into(),
            value: name.clone(),
            origin: if named { "--name".into() } else { "default".into() },
        });
        let env = self.environment(&user_inside, &name, found, &mut explained)?;
        let limits = self.limits(&mut explained)?;
        let hostname = self.pick(flags.hostname.clone(), "hostname", text(|s| &s.hostname), name.clone())?;
        let read_only = self.pick(
            flags.read_only.then_some(true),
            "read-only",
            |s| s.read_only.as_ref().map(|v| (v.value, v.referenced.line())),
            false,
        )?;
        let init_flag = if flags.no_init { Some(false) } else { flags.init.then_some(true) };
        let init = self.pick(init_flag, "init", |s| s.init.as_ref().map(|v| (v.value, v.referenced.line())), true)?;
        for (key, value, origin) in [
            ("hostname", hostname.value.clone(), &hostname.origin),
            ("read-only", read_only.value.to_string(), &read_only.origin),
            ("init", init.value.to_string(), &init.origin),
        ] {
            explained.push(Explained { key: key.into(), value, origin: origin.clone() });
        }
        values::hostname(&hostname.value, &hostname.origin)?;
        let cell = Cell {
            name,
            project: self.project.cloned(),
            image: found.name.clone(),
            profile,
            hostname: hostname.value,
            labels: self.labels()?,
            command,
            env,
            workdir,
            user: user_inside,
            ids,
            mounts,
            network,
            limits,
            terminal: match flags.tty.unwrap_or(Tty::Auto) {
                Tty::Auto => self.facts.terminal,
                Tty::Always => true,
                Tty::Never => false,
            },
            init: init.value,
            read_only: read_only.value,
        };
        Ok(Plan { keep: flags.keep || (named && !flags.rm), named, cell, explained })
    }

    fn command(&self, shell: &str) -> Result<Vec<String>, PlanError> {
        let words = self.command.iter().cloned();
        let command: Vec<String> = match &self.flags.entrypoint {
            Some(program) => std::iter::once(program.clone()).chain(words).collect(),
            None if self.command.is_empty() => vec![shell.to_owned()],
            None => words.collect(),
        };
        match command.first() {
            Some(first) if first.is_empty() => Err(PlanError::NoCommand),
            Some(_) if command.iter().any(|w| w.contains('\0')) => {
                Err(ValueError::bad("the command", "a NUL byte", "no NUL bytes").into())
            }
            Some(_) => Ok(command),
            None => Err(PlanError::NoCommand),
        }
    }

    /// The person's shell where it exists inside, else what every image has.
    fn shell(&self, found: &Found) -> PathBuf {
        let shell = &self.facts.shell;
        if found.host && environment::visible(shell, &found.mounts) && shell.is_file() {
            shell.clone()
        } else {
            PathBuf::from("/bin/sh")
        }
    }

    fn labels(&self) -> Result<std::collections::BTreeMap<String, String>, PlanError> {
        let mut labels = std::collections::BTreeMap::new();
        if let Some(project) = self.project {
            labels.insert("cellblock.project".to_owned(), project.name.clone());
            labels.insert("cellblock.project.id".to_owned(), project.id.clone());
            if let Some(branch) = &project.branch {
                labels.insert("cellblock.branch".to_owned(), branch.clone());
            }
        }
        if let Some(agent) = self.command.first() {
            labels.insert("cellblock.agent".to_owned(), agent.clone());
        }
        for section in self.sections()? {
            labels.extend(section.labels.clone());
        }
        for label in &self.flags.labels {
            let (key, value) = label.split_once('=').unwrap_or((label, ""));
            if key.is_empty() {
                return Err(ValueError::bad("--label", label, "KEY=VALUE").into());
            }
            labels.insert(key.to_owned(), value.to_owned());
        }
        Ok(labels)
    }

    fn limits(&self, explained: &mut Vec<Explained>) -> Result<Limits, PlanError> {
        let flags = self.flags;
        let memory = self.pick(
            flags.memory.clone(),
            "memory",
            |s| s.memory.as_ref().map(|v| (v.value.clone(), v.referenced.line())),
            String::new(),
        )?;
        let cpus = self.pick(
            flags.cpus.clone(),
            "cpus",
            |s| s.cpus.as_ref().map(|v| (v.value.to_string(), v.referenced.line())),
            String::new(),
        )?;
        let pids = self.pick(flags.pids, "pids", |s| s.pids.as_ref().map(|v| (v.value, v.referenced.line())), 0)?;
        let how = self.pick(
            None,
            "limits",
            |s| s.limits.as_ref().map(|v| (v.value.clone(), v.referenced.line())),
            "enforce".to_owned(),
        )?;
        let how = match flags.limits {
            Some(how) => how,
            None => values::enforce(&how.value, &how.origin)?,
        };
        for (key, value, origin) in [
            ("memory", memory.value.clone(), &memory.origin),
            ("cpus", cpus.value.clone(), &cpus.origin),
            ("pids", pids.value.to_string(), &pids.origin),
        ] {
            if origin != "default" {
                explained.push(Explained { key: key.into(), value, origin: origin.clone() });
            }
        }
        Ok(Limits {
            memory: (!memory.value.is_empty()).then(|| bytes(&memory.value, &memory.origin)).transpose()?,
            cpus: (!cpus.value.is_empty()).then(|| values::cpus(&cpus.value, &cpus.origin)).transpose()?,
            pids: (pids.value > 0).then_some(pids.value),
            best_effort: how == Enforce::BestEffort,
        })
    }

    /// The given name, or `<project>-<branch>-<program>`.
    fn name(&self, command: &[String]) -> String {
        if let Some(name) = &self.flags.name {
            return name.clone();
        }
        let program = self.command.first().or(command.first()).map_or("cell", String::as_str);
        let program =
            Path::new(program).file_name().map_or_else(|| "cell".into(), |n| n.to_string_lossy().into_owned());
        let mut parts = Vec::new();
        if let Some(project) = self.project {
            parts.push(crate::git::plain(&project.name));
            parts.extend(project.branch.as_deref().map(crate::git::plain));
        }
        parts.push(crate::git::plain(&program));
        shorten(&parts.join("-"))
    }
}

/// Cuts a name to what fits, with a piece of its hash so that two long ones differ. Room is left for `-2` and so on.
fn shorten(name: &str) -> String {
    const ROOM: usize = MAX_NAME - 4;
    if name.len() <= ROOM {
        return name.to_owned();
    }
    let digest = Sha256::digest(name.as_bytes());
    let tail: String = digest.iter().take(4).map(|b| format!("{b:02x}")).collect();
    let head: String = name.chars().take(ROOM - 9).collect();
    format!("{head}-{tail}")
}

/// Whether `name` can name a cell.
pub(crate) fn check_name(name: &str) -> Result<(), ValueError> {
    let shape = name
        .bytes()
        .enumerate()
        .all(|(i, b)| b.is_ascii_lowercase() || b.is_ascii_digit() || (i > 0 && matches!(b, b'_' | b'.' | b'-')));
    if shape && !name.is_empty() && name.len() <= MAX_NAME {
        Ok(())
    } else {
        Err(ValueError::bad(
            "the cell's name",
            name,
            "lower-case letters, digits, `_`, `.`, `-`, at most 63 of them, starting with a letter or digit",
        ))
    }
}

/// Whether `folder` may be a project: not if that hands over everything.
pub(crate) fn check_project(folder: &Path, facts: &Facts) -> Result<(), PlanError> {
    let too_wide = |what| Err(PlanError::TooWide { path: folder.to_owned(), what });
    let home = facts.home.canonicalize().unwrap_or_else(|_| facts.home.clone());
    if folder == Path::new("/") {
        return too_wide("the whole machine");
    }
    if home.starts_with(folder) && home != Path::new("/") {
        return too_wide("your home folder, with every secret in it");
    }
    let dirs = facts.dirs();
    let config = facts.config_file();
    let own = [Some(dirs.runtime.as_path()), Some(&dirs.data), Some(&dirs.state), config.parent()];
    if own.into_iter().flatten().any(|own| own.starts_with(folder) || folder.starts_with(own)) {
        return too_wide("cellblock's own files, with which it could change its walls");
    }
    std::fs::read_dir(folder).map(drop).map_err(|source| PlanError::Unreadable { path: folder.to_owned(), source })
}

/// The name of a profile, for people.
pub(crate) fn profile_name(profile: Profile) -> &'static str {
    match profile {
        Profile::Default => "default",
        Profile::Strict => "strict",
    }
}

/// The name of a network mode, for people.
pub(crate) fn network_name(network: Network) -> &'static str {
    match network {
        Network::None => "none",
        Network::Host => "host",
    }
}

#[cfg(test)]
mod tests;
