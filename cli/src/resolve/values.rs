//! One function for each value of a cell: where it is looked for and what counts if nobody said anything.

use super::*;
use crate::args::values::ProfileSpec;

impl<'a> Inputs<'a> {
    pub(super) fn layers(self) -> Result<Layers<'a>, ResolveError> {
        let layers = Layers::new(self.config, self.agent, self.project, self.host, self.files)?;
        match self.profiles(layers)? {
            Some(said) => layers.with_profiles(&said),
            None => Ok(layers),
        }
    }

    /// The strongest word on profiles: how much the cell may do, and which of the configuration's count.
    fn profiles(self, layers: Layers<'a>) -> Result<Option<Sourced<ProfileSpec>>, ResolveError> {
        layers.find(Wanted {
            flag: self.typed.cell.profile.clone().map(|profile| (profile, "--profile")),
            variable: Some(("CELLBLOCK_PROFILE", str::parse)),
            key: |s| &s.profile,
        })
    }

    /// A folder that must not be a project is refused here, where nobody can forget to ask.
    pub(super) fn check_project(self) -> Result<(), ResolveError> {
        let Some(project) = self.project else { return Ok(()) };
        self.refused(&project.root).map_or(Ok(()), |refusal| Err(refusal.into()))
    }

    /// Why a cell must not have all of the host's folder `path`, if nobody insists.
    pub(super) fn refused(self, path: &Path) -> Option<Refusal> {
        let own = self.host.own.iter().chain(Some(&self.host.runtime)).filter(|p| !p.as_os_str().is_empty());
        let own: Vec<PathBuf> = own.cloned().collect();
        let refusal = refuse(path, &self.host.homes, &own);
        refusal.filter(|refusal| !(self.typed.cell.force_project && refusal.can_be_forced()))
    }

    pub(super) fn user(
        self,
        layers: Layers<'a>,
        image: &ImageFacts,
        explain: &mut Explain,
    ) -> Result<(cellblock_bundle::cell::Ids, User), ResolveError> {
        let flags = &self.typed.cell;
        let flag = flags.user.clone().map(|user| (user, "--user"));
        let said = layers.find(Wanted { flag, variable: None, key: |s| &s.user })?;
        let userns = layers.pick(
            Wanted {
                flag: flags.userns.map(|mode| (mode, "--userns")),
                variable: Some(("CELLBLOCK_USERNS", Userns::read)),
                key: |s| &s.userns,
            },
            Userns::Auto,
        )?;
        let (ids, mut user) =
            ids_for(said.as_ref().map(|said| &said.value), self.host, userns.value, image.visible.is_some())?;
        let shell = layers.pick(Wanted { flag: None, variable: None, key: |s| &s.shell }, self.shell(image))?;
        user.shell = shell.value;
        let origin = said.map_or(Origin::Default, |said| said.origin);
        explain.add("user", &format!("{} ({}:{})", user.name, user.uid, user.gid), &origin);
        explain.add("userns", ids.layer_key(), &userns.origin);
        explain.add("shell", &user.shell.to_string_lossy(), &shell.origin);
        Ok((ids, user))
    }

    /// The person's login shell if the image has it, else the one that every image has.
    fn shell(self, image: &ImageFacts) -> PathBuf {
        let own = &self.host.shell;
        if image.shows(own, self.files) { own.clone() } else { "/bin/sh".into() }
    }

    pub(super) fn command(
        self,
        user: &User,
        found: Option<&Found>,
        explain: &mut Explain,
    ) -> Result<Vec<String>, ResolveError> {
        let shell = user.shell.to_string_lossy();
        let words = &self.typed.words;
        let command = match (&self.typed.cell.entrypoint, words) {
            (Some(program), Words::Shell) => vec![program.clone()],
            (Some(program), Words::Command(args)) => std::iter::once(program).chain(args).cloned().collect(),
            (Some(program), Words::Agent { args, .. }) => std::iter::once(program).chain(args).cloned().collect(),
            (None, Words::Agent { args, .. }) if self.agent.is_some() => self.agents_command(args, found, explain),
            (None, words) => words.argv(&shell),
        };
        match command.first() {
            None => Err(ResolveError::NoCommand),
            Some(program) if program.is_empty() => Err(ResolveError::EmptyProgram),
            Some(_) if command.iter().any(|word| word.contains('\0')) => Err(ResolveError::Nul),
            Some(_) => Ok(command),
        }
    }

    pub(super) fn name(self, explain: &mut Explain) -> String {
        let (name, origin) = match &self.typed.cell.name {
            Some(name) => (name.clone(), Origin::Flag("--name")),
            None => {
                let word = match (&self.typed.cell.entrypoint, &self.typed.words) {
                    (Some(program), Words::Command(_) | Words::Shell) => program.rsplit('/').next().unwrap_or(program),
                    (_, Words::Agent { .. }) if self.agent.is_some() => self.agent.map_or("", |agent| &agent.name),
                    (_, words) => words.short_name(),
                };
                (default_name(self.project, word), Origin::Default)
            }
        };
        explain.add("name", &name, &origin);
        name
    }

    pub(super) fn workdir(
        self,
        layers: Layers<'a>,
        user: &User,
        explain: &mut Explain,
    ) -> Result<PathBuf, ResolveError> {
        let flag = self.typed.cell.workdir.clone().map(|dir| (dir, "--workdir"));
        let said = layers.find(Wanted { flag, variable: None, key: |s| &s.workdir })?;
        let Sourced { value, origin } = said.unwrap_or_else(|| match self.project {
            Some(project) => Sourced { value: project.inside(&project.cwd), origin: Origin::Found },
            None => Sourced { value: user.home.clone(), origin: Origin::Default },
        });
        explain.add("workdir", &value.to_string_lossy(), &origin);
        Ok(value)
    }

    pub(super) fn profile(self, layers: Layers<'a>, explain: &mut Explain) -> Result<Profile, ResolveError> {
        let said = self.profiles(layers)?;
        let (text, origin) =
            said.as_ref().map_or((String::new(), &Origin::Default), |s| (s.value.to_string(), &s.origin));
        let profile = said.as_ref().and_then(|said| said.value.security()).unwrap_or_default();
        explain.add("profile", if text.is_empty() { word(profile) } else { &text }, origin);
        Ok(profile)
    }

    pub(super) fn guard(self, layers: Layers<'a>) -> Result<Sourced<bool>, ResolveError> {
        let flag = self.typed.cell.no_guard.then_some((false, "--no-guard"));
        layers.pick(Wanted { flag, variable: None, key: |s| &s.guard }, true)
    }

    pub(super) fn network(self, layers: Layers<'a>, explain: &mut Explain) -> Result<Network, ResolveError> {
        let wanted = Wanted {
            flag: self.typed.cell.network.map(|network| (network, "--network")),
            variable: Some(("CELLBLOCK_NETWORK", Network::read)),
            key: |s| &s.network,
        };
        let said = layers.pick(wanted, Network::Names)?;
        explain.add("network", word(said.value), &said.origin);
        Ok(said.value)
    }

    pub(super) fn hostname(
        self,
        layers: Layers<'a>,
        name: &str,
        explain: &mut Explain,
    ) -> Result<String, ResolveError> {
        let flag = self.typed.cell.hostname.clone().map(|name| (name, "--hostname"));
        let said = layers.pick(Wanted { flag, variable: None, key: |s| &s.hostname }, name.to_owned())?;
        explain.add("hostname", &said.value, &said.origin);
        Ok(said.value)
    }

    pub(super) fn init(self, layers: Layers<'a>, explain: &mut Explain) -> Result<bool, ResolveError> {
        let said = layers.pick(Wanted { flag: self.typed.cell.init(), variable: None, key: |s| &s.init }, true)?;
        explain.add("init", &said.value.to_string(), &said.origin);
        Ok(said.value)
    }

    pub(super) fn terminal(self, explain: &mut Explain) -> Result<bool, ResolveError> {
        let (when, origin) = match self.typed.cell.tty() {
            Some((when, flag)) => (when, Origin::Flag(flag)),
            None => (Tty::Auto, Origin::Default),
        };
        let detach = self.typed.start.detach;
        let terminal = match when {
            Tty::Always if detach => return Err(ResolveError::TerminalInBackground),
            Tty::Always => true,
            Tty::Never => false,
            Tty::Auto => self.host.stdin_terminal && self.host.stdout_terminal && !detach,
        };
        explain.add("tty", &terminal.to_string(), &origin);
        Ok(terminal)
    }

    pub(super) fn limits(self, layers: Layers<'a>, explain: &mut Explain) -> Result<Limits, ResolveError> {
        let flags = &self.typed.cell;
        let memory = Wanted {
            flag: flags.memory.map(|size| (size, "--memory")),
            variable: Some(("CELLBLOCK_MEMORY", str::parse)),
            key: |s| &s.memory,
        };
        let cpus = Wanted {
            flag: flags.cpus.map(|cpus| (cpus, "--cpus")),
            variable: Some(("CELLBLOCK_CPUS", str::parse)),
            key: |s| &s.cpus,
        };
        let pids = Wanted {
            flag: flags.pids.map(|pids| (pids, "--pids-limit")),
            variable: Some(("CELLBLOCK_PIDS", str::parse)),
            key: |s| &s.pids,
        };
        let mode = Wanted {
            flag: flags.limits.map(|mode| (mode, "--limits")),
            variable: Some(("CELLBLOCK_LIMITS", LimitMode::read)),
            key: |s| &s.limits,
        };
        let (memory, cpus, pids) = (layers.find(memory)?, layers.find(cpus)?, layers.find(pids)?);
        let mode = layers.pick(mode, LimitMode::Enforce)?;
        let mut note = |key: &str, said: Option<(String, &Origin)>| {
            if let Some((value, origin)) = said {
                explain.add(key, &value, origin);
            }
        };
        note("memory", memory.as_ref().map(|said| (format!("{} bytes", said.value.0), &said.origin)));
        note("cpus", cpus.as_ref().map(|said| (said.value.to_string(), &said.origin)));
        note("pids", pids.as_ref().map(|said| (said.value.0.to_string(), &said.origin)));
        note("limits", Some((word(mode.value).to_owned(), &mode.origin)));
        Ok(Limits {
            memory: memory.map(|said| said.value.0),
            cpus: cpus.map(|said| said.value.0),
            pids: pids.map(|said| said.value.0),
            best_effort: mode.value == LimitMode::BestEffort,
        })
    }

    pub(super) fn labels(self, layers: Layers<'a>, explain: &mut Explain) -> BTreeMap<String, String> {
        let mut labels: BTreeMap<String, (String, Origin)> = BTreeMap::new();
        if let Some(project) = self.project {
            labels.insert("cellblock.project".into(), (project.name.clone(), Origin::Found));
            labels.insert("cellblock.project.id".into(), (project.id.clone(), Origin::Found));
            labels
                .insert("cellblock.project.root".into(), (project.root.to_string_lossy().into_owned(), Origin::Found));
            if let Some(branch) = project.to_project().branch {
                labels.insert("cellblock.branch".into(), (branch, Origin::Found));
            }
        }
        if let Words::Agent { name, .. } = &self.typed.words {
            let name = self.agent.map_or(name, |agent| &agent.name);
            labels.insert("cellblock.agent".into(), (name.clone(), Origin::Words));
        }
        for (settings, origin) in layers.sections() {
            let said = settings.labels.iter();
            labels.extend(said.map(|(key, label)| (key.clone(), (label.value.clone(), origin(label.at)))));
        }
        let typed = self.typed.cell.label.iter();
        labels.extend(typed.map(|label| (label.key.clone(), (label.value.clone(), Origin::Flag("--label")))));
        for (key, (value, origin)) in &labels {
            explain.add(&format!("label {key}"), value, origin);
        }
        labels.into_iter().map(|(key, (value, _))| (key, value)).collect()
    }
}
