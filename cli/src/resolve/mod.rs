//! From what was typed, configured and found to what is meant: a [`Cell`], with where each of its values came from.
//!
//! Everything here works on data: [`HostFacts`] is gathered once, the few questions about files go through [`Files`]. It takes two
//! steps, because `auto` needs the image store and the ids need to know the image: [`image()`], then [`resolve`].

mod agent;
mod asked;
mod brokers;
mod environment;
mod error;
mod expand;
mod files;
mod git;
mod git_config;
mod host;
mod ids;
mod image;
mod layers;
mod mounts;
mod names;
mod origin;
mod patterns;
mod place;
mod presence;
mod protect;
mod reach;
mod secret_paths;
mod seeds;
mod state;
mod steady;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use cellblock_bundle::cell::{Cell, Limits, Mount, Network, Profile, User};

pub(crate) use agent::AgentMissing;
pub(crate) use brokers::project_remotes;
pub(crate) use environment::VariableWanted;
pub(crate) use error::ResolveError;
pub(crate) use expand::typed_path;
pub(crate) use files::{Files, HostFiles};
pub(crate) use host::{HostError, HostFacts};
pub(crate) use ids::ids_for;
pub(crate) use image::{ImageFacts, ImageRequest};
pub(crate) use names::{default_name, numbered};
pub(crate) use origin::{Explained, Origin, Sourced};
pub(crate) use reach::{SecretWanted, keep_addresses};
pub(crate) use state::links;
pub(crate) use steady::Steady;

use cellblock_egress::policy::Entry;

use crate::agents::{Agent, Found};
use crate::args::values::{Choice, LimitMode, Tty, Userns, word};
use crate::args::{StartFlags, Typed, Words};
use crate::config::Config;
use crate::project::{ProjectFacts, Refusal, refuse};
use asked::Asked;
use environment::Inside;
use layers::{Layers, Wanted};

/// Everything that decides.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Inputs<'a> {
    /// The command line.
    pub(crate) typed: &'a Typed,
    /// The configuration.
    pub(crate) config: &'a Config,
    /// The agent that the words name, if it is one that is known.
    pub(crate) agent: Option<&'a Agent>,
    /// The project, unless there is to be none.
    pub(crate) project: Option<&'a ProjectFacts>,
    /// The host and the person.
    pub(crate) host: &'a HostFacts,
    /// The host's files.
    pub(crate) files: &'a dyn Files,
}

/// What the image store has to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ImageWanted {
    /// The image.
    pub(crate) request: Sourced<ImageRequest>,
    /// Where Alpine's releases come from, if not from Alpine.
    pub(crate) alpine_mirror: Option<Sourced<String>>,
}

/// What is meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Resolved {
    /// The cell.
    pub(crate) cell: Cell,
    /// Whether the person chose its name: a taken one is then an error, and not a reason for [`Resolved::rename`].
    pub(crate) named: bool,
    /// How it is started.
    pub(crate) start: StartFlags,
    /// Where every value came from.
    pub(crate) explain: Vec<Explained>,
    /// Things the person should be told, none of which stands in the way.
    pub(crate) notes: Vec<String>,
    /// The cell's secrets, to be read when it starts.
    pub(crate) secrets: Vec<SecretWanted>,
    /// Where its logs go, if not to the usual place.
    pub(crate) log_dir: Option<PathBuf>,
    /// Its hidden variables, likewise.
    pub(crate) hidden: Vec<VariableWanted>,
    /// Paths of the host that are secret, for a cell with files of an agent's.
    pub(crate) secret: Vec<PathBuf>,
    /// Whether its commits are to be signed, and who said so.
    pub(crate) signing: Option<Origin>,
}

impl Resolved {
    /// Gives the cell another name, as when its own is taken: everything that was made from the name follows.
    pub(crate) fn rename(&mut self, name: &str) {
        let old = std::mem::replace(&mut self.cell.name, name.to_owned());
        if self.cell.hostname == old {
            name.clone_into(&mut self.cell.hostname);
        }
        if let Some(value) = self.cell.env.get_mut("CELLBLOCK_NAME").filter(|value| **value == old) {
            name.clone_into(value);
        }
        for explained in &mut self.explain {
            let follows = matches!(explained.key.as_str(), "name" | "hostname" | "env CELLBLOCK_NAME");
            if follows && explained.value == old && explained.origin == Origin::Default {
                name.clone_into(&mut explained.value);
            }
        }
    }
}

/// The first step: which image is wanted.
///
/// # Errors
/// If a value cannot be understood.
pub(crate) fn image(inputs: Inputs<'_>) -> Result<ImageWanted, ResolveError> {
    let layers = inputs.layers()?;
    let flag = inputs.typed.cell.image.clone().map(|image| (image, "--image"));
    let text = |text: &str| Ok(text.to_owned());
    let wanted = Wanted { flag, variable: Some(("CELLBLOCK_IMAGE", text)), key: |s| &s.image };
    let said = layers.pick(wanted, "auto".to_owned())?;
    let value = image::request(&said, &inputs.host.cwd, inputs.project.map(|p| p.root.as_path()), inputs.host)?;
    let mirror = Wanted {
        flag: None,
        variable: Some(("CELLBLOCK_ALPINE_MIRROR", crate::args::values::mirror)),
        key: |s| &s.alpine_mirror,
    };
    Ok(ImageWanted { request: Sourced { value, origin: said.origin }, alpine_mirror: layers.find(mirror)? })
}

/// The second step: the cell, now that the image is known. `wanted` is what [`image()`] gave.
///
/// # Errors
/// If what is asked for contradicts itself, does not exist or must not be.
pub(crate) fn resolve(inputs: Inputs<'_>, wanted: &ImageWanted, image: &ImageFacts) -> Result<Resolved, ResolveError> {
    let layers = inputs.layers()?;
    let flags = &inputs.typed.cell;
    inputs.check_project()?;
    let mut explain = Explain::default();
    explain.add("image", &image.name, &wanted.request.origin);
    let mut user = inputs.user(layers, image, &mut explain)?;
    let moved = inputs.moved_project(layers)?;
    let inputs = Inputs { project: moved.as_ref().map(|(project, ..)| project).or(inputs.project), ..inputs };
    if let Some((project, origin, _)) = &moved {
        explain.add("project_path", &project.at().to_string_lossy(), origin);
    }
    let home = inputs.home(layers, &mut user.1, &mut explain)?;
    let found = inputs.program(image)?;
    let command = inputs.command(&user.1, found.as_ref(), &mut explain)?;
    let name = inputs.name(&mut explain);
    explain.add("command", &command.join(" "), &Origin::Words);
    let workdir = inputs.workdir(layers, &user.1, &mut explain)?;
    let read_only = layers.pick(
        Wanted { flag: flags.read_only.then_some((true, "--read-only")), variable: None, key: |s| &s.read_only },
        false,
    )?;
    explain.add("read_only", &read_only.value.to_string(), &read_only.origin);
    let asked = Asked { flags, layers, project: inputs.project, host: inputs.host, files: inputs.files };
    let wanted = mounts::Wanted { found: found.as_ref(), home: home.mount.clone() };
    let (mut placed, missing) = mounts::mounts(asked, wanted, read_only.value.then_some(&read_only.origin))?;
    let guard = inputs.guard(layers)?;
    let fenced = git::fence(asked, &placed, guard.value)?;
    placed.extend(fenced.mounts);
    // Stable: what stands at the same place as another comes after it.
    placed.sort_by_key(|placed| placed.mount.target().components().count());
    if moved.is_some() {
        // The repository stands at its own path, which may lie in the project now.
        mounts::check_places(inputs.files, &placed)?;
    }
    if let Some(said) = &fenced.said {
        explain.add("protect", word(said.value), &said.origin);
    }
    // After everything that mounts.
    let told = secret_paths::cover(asked, &mut placed)?;
    let state = inputs.state(layers, &user.1, &home, &placed)?;
    state::cover_shared(asked, &state.state, &mut placed)?;
    // A list is read for it, which others do without.
    let secret = if state.state.is_empty() { Vec::new() } else { secret_paths::all(asked)? };
    let shared: Vec<PathBuf> = state::shared(&state.state).map(|one| inputs.end_of(&one.host)).collect();
    let overlay = inputs.overlay(asked, &mut placed, &shared, &mut explain)?;
    let log_dir = inputs.log_dir(layers, &placed, &shared, &mut explain)?;
    for mount in &placed {
        explain.add(&format!("mount {}", mount.mount.target().display()), &mount_words(&mount.mount), &mount.origin);
    }
    explain.0.extend(state.explained);
    let unattended = inputs.agent.filter(|agent| !inputs.asks(agent).0);
    let inside = Inside { image, found: found.as_ref(), user: &user.1, unattended, name: &name };
    let environment = environment::environment(asked, inside)?;
    explain.0.extend(environment.explained);
    let network = inputs.network(layers, &mut explain)?;
    let (reach, secrets) = reach::reach(asked, network)?;
    let writable = placed.iter().filter_map(|placed| placed.mount.writable_source());
    let writable: Vec<_> = writable.chain(shared.iter().map(PathBuf::as_path)).collect();
    let answering = brokers::brokers(asked, network, &writable)?;
    let mut variables = environment.variables;
    for (name, value) in state.variables {
        variables.entry(name).or_insert(value);
    }
    if let Some(own) = home.own.as_ref().filter(|_| !home.has_git_config) {
        // Not among the person's files, where it would stay.
        let path = own.join(".gitconfig").to_string_lossy().into_owned();
        variables.entry("GIT_CONFIG_GLOBAL".into()).or_insert(path);
    }
    add_trust(&reach, &mut variables);
    if !variables.contains_key("GIT_CONFIG_COUNT") {
        for (name, value) in git_config::variables(&fenced.settings) {
            explain.add(&format!("env {name}"), &value, &Origin::Default);
            variables.insert(name, value);
        }
    }
    for (used, wanted) in reach.secrets.iter().zip(&secrets) {
        variables.insert(used.variable.clone(), used.placeholder.clone());
        let value = format!("into {} of requests to {}: ***", used.header, used.host);
        explain.0.push(Explained { key: format!("secret {}", used.variable), value, origin: wanted.origin.clone() });
    }
    // What stands for a secret stands before it.
    let mut hidden = environment.hidden;
    hidden.retain(|wanted| !variables.contains_key(&wanted.name));
    let has = |name: &str| variables.contains_key(name) || hidden.iter().any(|wanted| wanted.name == name);
    let ground = seeds::Ground { state: &state.state, workdir: &workdir, has: &has };
    let seeds = inputs.seeds(layers, ground, &mut explain)?;
    for (key, list) in [("allow", &reach.allow), ("deny", &reach.deny)] {
        explain.0.extend(list.iter().map(|said| Explained {
            key: key.to_owned(),
            value: said.rule.clone(),
            origin: Origin::Written(said.origin.clone()),
        }));
    }
    explain.0.extend(answering.explained);
    let cell = Cell {
        brokers: answering.brokers,
        project: inputs.project.map(ProjectFacts::to_project),
        image: image.name.clone(),
        profile: inputs.profile(layers, &mut explain)?,
        hostname: inputs.hostname(layers, &name, &mut explain)?,
        labels: inputs.labels(layers, &mut explain),
        command,
        env: variables,
        hidden: hidden.iter().map(|wanted| wanted.name.clone()).collect(),
        workdir,
        mounts: placed.into_iter().map(|placed| placed.mount).collect(),
        protect: fenced.protect,
        guard: {
            explain.add("guard", &guard.value.to_string(), &guard.origin);
            guard.value
        },
        home_files: BTreeMap::from([(".gitconfig".into(), fenced.person)]),
        state: state.state,
        own_home: home.own,
        overlay,
        seeds,
        network,
        reach,
        limits: inputs.limits(layers, &mut explain)?,
        terminal: inputs.terminal(&mut explain)?,
        init: inputs.init(layers, &mut explain)?,
        read_only: read_only.value,
        ids: user.0,
        user: user.1,
        name,
    };
    Ok(Resolved {
        cell,
        named: flags.name.is_some(),
        log_dir,
        start: inputs.typed.start.clone(),
        secrets,
        hidden,
        secret,
        signing: answering.signing,
        explain: explain.0,
        notes: [
            moved.map_or_else(Vec::new, |(.., notes)| notes),
            missing,
            told,
            environment.notes,
            fenced.notes,
            state.notes,
            answering.notes,
        ]
        .concat(),
    })
}

/// Tells the usual tools whom to trust, where connections are looked into.
pub(crate) fn add_trust(reach: &cellblock_bundle::Reach, variables: &mut BTreeMap<String, String>) {
    let looks = |said: &cellblock_bundle::Said| {
        said.rule
            .parse()
            .is_ok_and(|entry| matches!(entry, Entry::Rule(rule) if rule.http.as_ref().is_some_and(|http| http.tls)))
    };
    if !reach.secrets.is_empty() || reach.allow.iter().any(looks) {
        for variable in cellblock_egress::intercept::VARIABLES {
            variables.insert((*variable).to_owned(), cellblock_bundle::cell::TRUST.to_owned());
        }
    }
}

#[derive(Default)]
struct Explain(Vec<Explained>);

impl Explain {
    fn add(&mut self, key: &str, value: &str, origin: &Origin) {
        self.0.push(Explained { key: key.to_owned(), value: value.to_owned(), origin: origin.clone() });
    }
}

mod values;

fn mount_words(mount: &Mount) -> String {
    match mount {
        Mount::Bind { source, writable, .. } => {
            format!("{} ({})", source.display(), if *writable { "rw" } else { "ro" })
        }
        Mount::Tmpfs { size: Some(size), .. } => format!("in memory, at most {size} bytes"),
        Mount::Tmpfs { size: None, .. } => "in memory".to_owned(),
        Mount::Layers { lowers, .. } => {
            let lowers: Vec<_> = lowers.iter().map(|lower| lower.display().to_string()).collect();
            format!("{} (ro)", lowers.join(" over "))
        }
        Mount::Mask { directory: true, .. } => "covered by an empty folder".to_owned(),
        Mount::Mask { directory: false, .. } => "covered by an empty file".to_owned(),
    }
}

#[cfg(test)]
mod tests;
