//! Which of several places that speak about a value counts: default < what is shipped with the agent < `defaults:` < the agent in the
//! configuration < project < profiles < variable < flag.

use std::path::{Path, PathBuf};

use super::error::ResolveError;
use super::expand::config_path;
use super::files::Files;
use super::host::HostFacts;
use super::origin::{Origin, Sourced};
use crate::agents::Agent;
use crate::args::values::{MOST, ProfileSpec, ValueError, nearest};
use crate::config::{Config, Located, Place, ProjectSettings, Settings};
use crate::project::ProjectFacts;

/// The places that can speak about a value, but for the flags.
#[derive(Clone, Copy, Debug)]
pub(super) struct Layers<'a> {
    config: &'a Config,
    agent: Option<&'a Agent>,
    project: Option<(&'a str, &'a ProjectSettings)>,
    profiles: [Option<(&'a str, &'a Settings)>; MOST],
    host: &'a HostFacts,
}

/// A place that says something.
#[derive(Clone, Copy, Debug)]
enum Section<'a> {
    Shipped(&'a str),
    Defaults,
    Agent(&'a str),
    Project(&'a str),
    Profile(&'a str),
}

impl Section<'_> {
    fn origin(self, file: &Path, at: Place) -> Origin {
        let (file, line) = (file.to_owned(), at.line);
        match self {
            Self::Shipped(agent) => Origin::Shipped { agent: agent.to_owned() },
            Self::Defaults => Origin::Config { file, line },
            Self::Agent(name) => Origin::Section { of: format!("agent {name}"), file, line },
            Self::Profile(name) => Origin::Section { of: format!("profile {name}"), file, line },
            Self::Project(name) => Origin::Section { of: format!("project {name}"), file, line },
        }
    }
}

/// How a value is read from its text.
type Reader<T> = fn(&str) -> Result<T, ValueError>;

/// Where to look for one value.
pub(super) struct Wanted<'a, T> {
    /// What the flags say, and which flag.
    pub(super) flag: Option<(T, &'static str)>,
    /// The variable that may say it, and how its text is read.
    pub(super) variable: Option<(&'static str, Reader<T>)>,
    /// Where it stands in the configuration.
    pub(super) key: fn(&'a Settings) -> &'a Option<Located<T>>,
}

impl<'a> Layers<'a> {
    pub(super) fn new(
        config: &'a Config,
        agent: Option<&'a Agent>,
        project: Option<&ProjectFacts>,
        host: &'a HostFacts,
        files: &dyn Files,
    ) -> Result<Self, ResolveError> {
        let project = project.map(|facts| matching(config, facts, host, files)).transpose()?.flatten();
        Ok(Self { config, agent, project, profiles: [None; MOST], host })
    }

    /// With those of the configuration's profiles that count.
    pub(super) fn with_profiles(mut self, said: &Sourced<ProfileSpec>) -> Result<Self, ResolveError> {
        for (place, name) in self.profiles.iter_mut().zip(said.value.named()) {
            let Some((name, settings)) = self.config.profiles.get_key_value(name) else {
                let known = ["default", "strict"].into_iter().chain(self.config.profiles.keys().map(String::as_str));
                return Err(ResolveError::NoProfile {
                    origin: said.origin.clone(),
                    name: name.to_owned(),
                    near: nearest(name, known),
                });
            };
            *place = Some((name.as_str(), settings));
        }
        Ok(self)
    }

    /// The sections that count, the weaker first, with what makes an origin of a line.
    pub(super) fn sections(self) -> impl Iterator<Item = (&'a Settings, impl Fn(Place) -> Origin)> {
        let agent = self.agent;
        let shipped = agent.and_then(|agent| Some((agent.shipped.as_ref()?, Section::Shipped(&agent.name))));
        let defaults = Some((&self.config.defaults, Section::Defaults));
        let own = agent.and_then(|agent| Some((agent.own.as_ref()?, Section::Agent(&agent.name))));
        let project = self.project.map(|(name, project)| (&project.settings, Section::Project(name)));
        let profiles = self.profiles.map(|one| one.map(|(name, settings)| (settings, Section::Profile(name))));
        [shipped, defaults, own, project].into_iter().chain(profiles).flatten().map(move |(settings, section)| {
            let file = &self.config.file;
            (settings, move |at: Place| section.origin(file, at))
        })
    }

    /// Those that a person wrote.
    pub(super) fn written(self) -> impl Iterator<Item = (&'a Settings, impl Fn(Place) -> Origin)> {
        let shipped = self.agent.is_some_and(|agent| agent.shipped.is_some());
        self.sections().skip(usize::from(shipped))
    }

    /// The agent whose cell it is, if it is one that is known.
    pub(super) fn agent(self) -> Option<&'a Agent> {
        self.agent
    }

    /// The strongest word on a value, or `None` if nobody said anything.
    pub(super) fn find<T: Clone>(self, wanted: Wanted<'a, T>) -> Result<Option<Sourced<T>>, ResolveError> {
        if let Some((value, flag)) = wanted.flag {
            return Ok(Some(Sourced { value, origin: Origin::Flag(flag) }));
        }
        if let Some((name, read)) = wanted.variable
            && let Some(text) = self.host.env.get(name).filter(|text| !text.is_empty())
        {
            let value = read(text).map_err(|error| ResolveError::Variable { name, text: text.clone(), error })?;
            return Ok(Some(Sourced { value, origin: Origin::Env(name) }));
        }
        let said = self.sections().filter_map(|(settings, origin)| {
            (wanted.key)(settings).as_ref().map(|said| Sourced { value: said.value.clone(), origin: origin(said.at) })
        });
        Ok(said.last())
    }

    /// The same, with cellblock's own choice behind it.
    pub(super) fn pick<T: Clone>(self, wanted: Wanted<'a, T>, default: T) -> Result<Sourced<T>, ResolveError> {
        Ok(self.find(wanted)?.unwrap_or(Sourced { value: default, origin: Origin::Default }))
    }
}

/// The configuration's project that a folder belongs to: the one whose `path` is nearest above the folder or above the canonical root.
///
/// Never by name alone: any folder can be called `web`, and would get what was written down for the real one.
fn matching<'a>(
    config: &'a Config,
    facts: &ProjectFacts,
    host: &HostFacts,
    files: &dyn Files,
) -> Result<Option<(&'a str, &'a ProjectSettings)>, ResolveError> {
    let mut best: Option<(usize, &str, &ProjectSettings)> = None;
    for (name, project) in &config.projects {
        let path = project_path(config, project, host)?;
        // A project on a disk that is not there is no mistake.
        let Ok(seen) = files.look(&path) else { continue };
        if facts.cwd.starts_with(&seen.canonical) || facts.canonical_root.starts_with(&seen.canonical) {
            let depth = seen.canonical.components().count();
            match best {
                Some((known, other, _)) if known == depth => {
                    return Err(ResolveError::TwoProjects {
                        one: other.to_owned(),
                        two: name.clone(),
                        path: seen.canonical,
                    });
                }
                Some((known, ..)) if known > depth => {}
                _ => best = Some((depth, name, project)),
            }
        }
    }
    Ok(best.map(|(_, name, project)| (name, project)))
}

/// A configured project's folder, expanded; it must be absolute.
pub(crate) fn project_path(
    config: &Config,
    project: &ProjectSettings,
    host: &HostFacts,
) -> Result<PathBuf, ResolveError> {
    let Located { value, at } = &project.path;
    let origin = || Origin::Config { file: config.file.clone(), line: at.line };
    let path = config_path(value, host).map_err(|error| ResolveError::Expand {
        origin: origin(),
        text: value.clone(),
        error,
    })?;
    if Path::new(&path).is_absolute() {
        Ok(path.into())
    } else {
        Err(ResolveError::RelativeProject { origin: origin(), text: value.clone() })
    }
}
