//! What a cell may reach: the configuration's list or the built-in one, and what the flags add.
//!
//! `allow` of a stronger layer replaces that of a weaker one, so that an empty list is nothing; the flags add to it. What is denied adds up:
//! no layer can take back what another denies.

use std::path::{Path, PathBuf};

use cellblock_bundle::cell::{Network, Reach, Said, SecretUse};
use cellblock_egress::policy::{Entry, Rule, Target, filter};

use super::asked::Asked;
use super::error::ResolveError;
use super::origin::Origin;
use crate::args::values::{RuleSpec, SecretSpec};

/// What a cell reaches if nobody said anything: what most work on code needs.
const DEFAULT: &str = "@dev";

/// The rules and published ports. None in modes that have no use for them, where typing one is a mistake.
pub(super) fn reach(asked: Asked<'_>, network: Network) -> Result<(Reach, Vec<SecretWanted>), ResolveError> {
    let flags = asked.flags;
    if !matches!(network, Network::Names | Network::Bridge) {
        let typed = [
            ("--allow", !flags.allow.is_empty()),
            ("--allow-file", !flags.allow_file.is_empty()),
            ("--deny", !flags.deny.is_empty()),
            ("--publish", !flags.publish.is_empty()),
            ("--secret", !flags.secret.is_empty()),
        ];
        return match typed.iter().find(|(_, typed)| *typed) {
            Some((flag, _)) => Err(ResolveError::NeedsNames { flag, mode: crate::args::values::word(network) }),
            None => Ok((Reach::default(), Vec::new())),
        };
    }
    let mut reach = Reach { allow: base(asked)?, ..Reach::default() };
    if network == Network::Bridge
        && let Some(rule) = flags.allow.iter().map(ToString::to_string).find(|rule| about_names(rule))
    {
        return Err(ResolveError::NameInBridge { flag: "--allow", rule });
    }
    reach.allow.extend(flags.allow.iter().map(|rule| said(rule, "--allow")));
    for file in &flags.allow_file {
        let path = asked.typed_path(&file.to_string_lossy(), &Origin::Flag("--allow-file"))?;
        reach.allow.extend(filter_file(asked, &asked.host.cwd.join(path), &Origin::Flag("--allow-file"))?);
    }
    for (settings, origin) in asked.layers.sections() {
        reach.deny.extend(settings.deny.iter().map(|rule| said(&rule.value, &origin(rule.at).to_string())));
        reach.publish.extend(settings.publish.iter().map(|port| port.value.0));
    }
    reach.deny.extend(flags.deny.iter().map(|rule| said(rule, "--deny")));
    reach.publish.extend(flags.publish.iter().map(|port| port.0));
    if network == Network::Bridge {
        keep_addresses(&mut reach)?;
        // They are put into requests to names. Those of the configuration stay on the host: without them a request is refused, and no more.
        return if flags.secret.is_empty() {
            Ok((reach, Vec::new()))
        } else {
            Err(ResolveError::NeedsNames { flag: "--secret", mode: crate::args::values::word(network) })
        };
    }
    let secrets = wanted_secrets(asked);
    for wanted in &secrets {
        let SecretSpec { variable, host, header, .. } = &wanted.spec;
        let placeholder = placeholder().map_err(ResolveError::Random)?;
        let (variable, host, header) = (variable.clone(), host.to_string(), header.clone());
        reach.secrets.push(SecretUse { variable, host, header, placeholder });
    }
    Ok((reach, secrets))
}

/// A secret whose value is still to be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SecretWanted {
    /// What was written.
    pub(crate) spec: SecretSpec,
    /// Where.
    pub(crate) origin: Origin,
}

/// What stands for a secret inside: nothing that could be guessed, or be part of anything else.
pub(super) fn placeholder() -> std::io::Result<String> {
    let mut random = [0u8; 16];
    rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty())?;
    Ok(format!("cellblock-{:032x}", u128::from_be_bytes(random)))
}

/// Keeps of `reach` what has a meaning for a bridge, whose packets have no names. What is allowed by name is on the internet, and that is open; what
/// such a rule would open beyond it stays closed. A denial by name could not be kept, and nothing may override a denial.
pub(crate) fn keep_addresses(reach: &mut Reach) -> Result<(), ResolveError> {
    reach.allow.retain(|said| !about_names(&said.rule));
    match reach.deny.iter().find(|said| about_names(&said.rule)) {
        Some(Said { rule, origin }) => {
            Err(ResolveError::DeniedNameInBridge { origin: origin.clone(), rule: rule.clone() })
        }
        None => Ok(()),
    }
}

/// Whether it is a rule about names, or a set of such.
fn about_names(rule: &str) -> bool {
    !matches!(rule.parse(), Ok(Entry::Rule(Rule { target: Target::Addresses(_) | Target::Host, .. })))
}

fn said(rule: &RuleSpec, origin: &str) -> Said {
    Said { rule: rule.to_string(), origin: origin.to_owned() }
}

/// The strongest list of the configuration, or the built-in one; with what is shipped for the agent, unless that list is empty or
/// the agent's own in the configuration.
fn base(asked: Asked<'_>) -> Result<Vec<Said>, ResolveError> {
    if asked.flags.no_default_allow {
        return Ok(Vec::new());
    }
    let mut list =
        written(asked)?.unwrap_or_else(|| vec![Said { rule: DEFAULT.to_owned(), origin: "default".to_owned() }]);
    let agent = asked.layers.agent().filter(|agent| {
        let own = agent.own.as_ref().is_some_and(|own| own.allow.is_some() || own.allow_file.is_some());
        !own && !list.is_empty()
    });
    if let Some((agent, shipped)) = agent.and_then(|agent| Some((agent, agent.shipped.as_ref()?))) {
        let origin = Origin::Shipped { agent: agent.name.clone() }.to_string();
        list.extend(shipped.allow.iter().flatten().map(|rule| said(&rule.value, &origin)));
    }
    Ok(list)
}

/// The strongest list that a person wrote.
fn written(asked: Asked<'_>) -> Result<Option<Vec<Said>>, ResolveError> {
    let mut found = None;
    for (settings, origin) in asked.layers.written() {
        if settings.allow.is_none() && settings.allow_file.is_none() {
            continue;
        }
        let mut list = Vec::new();
        for rule in settings.allow.iter().flatten() {
            list.push(said(&rule.value, &origin(rule.at).to_string()));
        }
        if let Some(file) = &settings.allow_file {
            let origin = origin(file.at);
            list.extend(filter_file(asked, &configured(asked, &file.value, &origin)?, &origin)?);
        }
        found = Some(list);
    }
    Ok(found)
}

/// The secrets, those of the flags last; of one variable the strongest word counts.
fn wanted_secrets(asked: Asked<'_>) -> Vec<SecretWanted> {
    let mut all: Vec<SecretWanted> = Vec::new();
    let mut add = |wanted: SecretWanted| {
        all.retain(|known| known.spec.variable != wanted.spec.variable);
        all.push(wanted);
    };
    for (settings, origin) in asked.layers.sections() {
        for secret in &settings.secrets {
            add(SecretWanted { spec: secret.value.clone(), origin: origin(secret.at) });
        }
    }
    for spec in &asked.flags.secret {
        add(SecretWanted { spec: spec.clone(), origin: Origin::Flag("--secret") });
    }
    all
}

/// A path of the configuration; a relative one is the project's.
fn configured(asked: Asked<'_>, text: &str, origin: &Origin) -> Result<PathBuf, ResolveError> {
    let path = asked.configured_path(text, origin)?;
    match asked.project {
        // From inside the project the cell itself could write what it may reach.
        _ if path.is_relative() => Err(ResolveError::RelativeFilter { origin: origin.clone(), text: text.to_owned() }),
        Some(project) if path.starts_with(&project.root) => {
            Err(ResolveError::FilterInProject { origin: origin.clone(), path })
        }
        _ => Ok(path),
    }
}

fn filter_file(asked: Asked<'_>, path: &Path, origin: &Origin) -> Result<Vec<Said>, ResolveError> {
    let failed = |source| ResolveError::FilterFile { origin: origin.clone(), path: path.to_owned(), source };
    let text = asked.files.read(path).map_err(failed)?;
    let written = filter::parse(text.as_bytes(), &path.to_string_lossy())
        .map_err(|error| ResolveError::Filter { path: path.to_owned(), error })?;
    Ok(written.into_iter().map(|w| Said { rule: w.entry.to_string(), origin: w.origin }).collect())
}
