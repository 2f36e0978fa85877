//! `cellblock agent state` and `agent reset`: what cells of projects keep of an agent's state.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use cellblock_bundle::protect::component_matches;
use cellblock_runtime::keep;
use cellblock_runtime::state::NO_PROJECT;
use rustix::fs::FlockOperation;
use serde::Serialize;

use crate::agents;
use crate::config;
use crate::images;
use crate::output::{data, json, plain, say, table};
use crate::report::CliError;
use crate::resolve::HostFacts;
use crate::{place, project};

/// What one project keeps of one agent.
#[derive(Debug, Serialize)]
struct Layer {
    /// The project's id; nothing for cells without a project.
    project: Option<String>,
    /// Where the project was last.
    root: Option<PathBuf>,
    agent: String,
    /// Bytes in its files.
    size: u64,
    path: PathBuf,
}

/// Lists the layers, of one agent or of all.
pub(super) fn list(agent: Option<&str>, as_json: bool, host: &HostFacts) -> Result<i32, CliError> {
    let agent = agent.map(|word| known(word, host)).transpose()?;
    let mut layers = layers(host)?;
    layers.retain(|layer| agent.as_ref().is_none_or(|agent| *agent == layer.agent));
    if as_json {
        json(&layers)?;
        return Ok(0);
    }
    let row = |layer: &Layer| {
        let root = layer.root.as_ref().map_or_else(|| "-".into(), |root| root.display().to_string());
        let project = layer.project.clone().unwrap_or_else(|| "-".into());
        vec![layer.agent.clone(), project, plain(&root), human(layer.size)]
    };
    data(&table(&["AGENT", "PROJECT", "FOLDER", "SIZE"], layers.iter().map(row).collect()))?;
    Ok(0)
}

/// Which layers are dropped.
#[derive(Debug)]
pub(super) struct Which<'a> {
    /// The agent.
    pub(super) agent: &'a str,
    /// A project's id or a folder in it; without it the current folder's.
    pub(super) project: Option<&'a str>,
    /// Those of all projects.
    pub(super) all: bool,
    /// Leave transcripts and the like.
    pub(super) keep_history: bool,
}

/// Drops layers: the next cell begins with what the host has.
pub(super) fn reset(which: &Which<'_>, as_json: bool, host: &HostFacts) -> Result<i32, CliError> {
    let agent = known(which.agent, host)?;
    let project = if which.all { None } else { Some(project_id(which.project, host)?) };
    let mut dropped = layers(host)?;
    dropped.retain(|layer| {
        layer.agent == agent && project.as_deref().is_none_or(|id| layer.project.as_deref().unwrap_or(NO_PROJECT) == id)
    });
    for layer in &dropped {
        drop_layer(layer, which.keep_history, host)?;
    }
    if as_json {
        json(&dropped)?;
    } else if dropped.is_empty() {
        say(&format!("cellblock: nothing is kept of {agent} there"));
    } else {
        for layer in &dropped {
            let root = layer.root.as_ref().map_or_else(|| "no project".into(), |root| root.display().to_string());
            data(&format!("{agent}: {} ({})\n", plain(&root), human(layer.size)))?;
        }
    }
    Ok(0)
}

fn drop_layer(layer: &Layer, keep_history: bool, host: &HostFacts) -> Result<(), CliError> {
    let failed = |source| CliError::File { what: "cannot drop", path: layer.path.clone(), source };
    let _lock = match keep::lock(&layer.path, FlockOperation::NonBlockingLockExclusive) {
        Ok(lock) => lock,
        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
            return Err(CliError::plain(
                format!("a cell that uses the state of {} is running", layer.agent),
                "`cellblock status` shows it and `cellblock stop` ends it",
            ));
        }
        Err(error) => return Err(failed(error)),
    };
    let history = if keep_history { history(&layer.agent, host)? } else { Vec::new() };
    let mut gone = Vec::new();
    for entry in std::fs::read_dir(&layer.path).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name();
        if name == "lock" {
            continue;
        }
        let kept: Vec<&(OsString, Vec<String>)> = history.iter().filter(|(folder, _)| *folder == name).collect();
        if kept.is_empty() || !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            gone.push(entry.path());
            continue;
        }
        let stays = |name: &str| {
            kept.iter().any(|(_, names)| names.iter().any(|n| component_matches(first(n), name.as_bytes())))
        };
        let below = std::fs::read_dir(entry.path()).map_err(failed)?;
        gone.extend(below.flatten().filter(|e| !e.file_name().to_str().is_some_and(stays)).map(|e| e.path()));
    }
    images::remove_foreign(gone, host)
}

/// The first name of a path below a folder.
fn first(path: &str) -> &str {
    path.split('/').next().unwrap_or(path)
}

/// What belongs to single projects, by the folder it is kept in.
fn history(agent: &str, host: &HostFacts) -> Result<Vec<(OsString, Vec<String>)>, CliError> {
    let config = config::load(&place::config_file(host))?;
    let spec = agents::find(agent, &config)?.map(|agent| agent.spec).unwrap_or_default();
    let key = |path: &str| keep::key(Path::new(path), Path::new("~"));
    Ok(spec.state.iter().map(|one| (key(&one.path.value).into(), one.history.clone())).collect())
}

/// The agent's name, of one that is known or of which something is kept.
fn known(word: &str, host: &HostFacts) -> Result<String, CliError> {
    let config = config::load(&place::config_file(host))?;
    if let Some(agent) = agents::find(word, &config)? {
        return Ok(agent.name);
    }
    if layers(host)?.iter().any(|layer| layer.agent == word) {
        return Ok(word.to_owned());
    }
    Err(CliError::plain(format!("no agent is called {word:?}"), "`cellblock agent list` has those that are known"))
}

/// The id that a person means: an id, or that of the project of a folder.
fn project_id(said: Option<&str>, host: &HostFacts) -> Result<String, CliError> {
    if let Some(word) = said
        && (word == NO_PROJECT || (word.len() == 16 && word.bytes().all(|b| b.is_ascii_hexdigit())))
    {
        return Ok(word.to_owned());
    }
    let from = said.map_or_else(|| host.cwd.clone(), |folder| host.cwd.join(folder));
    Ok(project::find(&from, host.uid, true)?.id)
}

fn layers(host: &HostFacts) -> Result<Vec<Layer>, CliError> {
    let projects = place::dirs(host).data.join("projects");
    let mut layers = Vec::new();
    for project in names(&projects)? {
        let folder = projects.join(&project);
        // Written by cellblock; it may be there no more.
        let root = std::fs::read(folder.join("project")).ok();
        let root = root.map(|bytes| PathBuf::from(OsString::from_vec(bytes)));
        for agent in names(&folder.join("state"))? {
            let path = folder.join("state").join(&agent);
            layers.push(Layer {
                project: (project != NO_PROJECT).then(|| project.clone()),
                root: root.clone(),
                agent,
                size: size(&path),
                path,
            });
        }
    }
    Ok(layers)
}

/// Names in a folder of ours, sorted; nothing if it is not there.
fn names(folder: &Path) -> Result<Vec<String>, CliError> {
    let failed = |source| CliError::File { what: "cannot read", path: folder.to_owned(), source };
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed(error)),
    };
    let mut names = Vec::new();
    for entry in entries {
        names.extend(entry.map_err(failed)?.file_name().into_string());
    }
    names.sort_unstable();
    Ok(names)
}

/// Bytes in the files below a folder that cells have written: no link is followed, and what is closed counts nothing.
fn size(folder: &Path) -> u64 {
    let mut total = 0;
    let mut left = vec![folder.to_owned()];
    while let Some(folder) = left.pop() {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            match entry.metadata() {
                Ok(metadata) if metadata.is_dir() => left.push(entry.path()),
                // A login that is the host's own file is not the layer's.
                Ok(metadata) if metadata.is_file() && metadata.nlink() == 1 => total += metadata.len(),
                _ => {}
            }
        }
    }
    total
}

fn human(bytes: u64) -> String {
    let mut value = bytes;
    let mut units = ["B", "KiB", "MiB", "GiB"].into_iter();
    let mut unit = units.next().unwrap_or_default();
    while value >= 1024
        && let Some(next) = units.next()
    {
        (value, unit) = (value / 1024, next);
    }
    format!("{value} {unit}")
}
