//! The person's configuration file: read strictly, with every problem at its line.
//!
//! Only the person's own file is read here, never one of a project's: a file that comes with a repository must not widen what a
//! cell may do. docs/config.md is the manual.

mod agent;
mod model;
mod problem;
mod read;
mod table;
mod tree;

use std::io::Read;
use std::path::Path;

pub(crate) use agent::{AgentSettings, AgentSpec, SeedSpec, StatePath};
pub(crate) use model::{Config, Located, ProjectSettings, Settings, schema};
pub(crate) use problem::{ConfigError, Place};
pub(crate) use table::{Row, rows};

/// Largest file that is read, in bytes: far beyond what a person writes, and small enough to hold.
const LARGEST: u64 = 1 << 20;

/// Reads the configuration at `path`. A file that does not exist is an empty configuration.
pub(crate) fn load(path: &Path) -> Result<Config, ConfigError> {
    let failed = |source| ConfigError::Read { path: path.to_owned(), source };
    let mut bytes = Vec::new();
    match std::fs::File::open(path) {
        Ok(file) => file.take(LARGEST + 1).read_to_end(&mut bytes).map_err(failed)?,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Ok(Config { file: path.to_owned(), ..Config::default() });
        }
        Err(error) => return Err(failed(error)),
    };
    if bytes.len() as u64 > LARGEST {
        return Err(ConfigError::TooLarge { path: path.to_owned() });
    }
    match std::str::from_utf8(&bytes) {
        Ok(text) => parse(path, text),
        Err(error) => {
            let line = bytes[..error.valid_up_to()].iter().filter(|b| **b == b'\n').count() + 1;
            Err(ConfigError::NotUtf8 { path: path.to_owned(), line })
        }
    }
}

/// Reads `text`, which came from `path`.
pub(crate) fn parse(path: &Path, text: &str) -> Result<Config, ConfigError> {
    let mut problems = Vec::new();
    let config = match tree::parse(text, &mut problems) {
        Ok(root) => read::config(root, &mut problems),
        Err(problem) => {
            problems.push(problem);
            Config::default()
        }
    };
    if problems.is_empty() {
        Ok(Config { file: path.to_owned(), ..config })
    } else {
        problems.sort_by_key(|problem| problem.at);
        Err(ConfigError::Problems { path: path.to_owned(), problems })
    }
}

/// Reads the text of one agent that is shipped with cellblock, under its name.
pub(crate) fn parse_agent(name: &str, text: &str) -> Result<AgentSettings, ConfigError> {
    let mut problems = Vec::new();
    let path = || format!("agents/{name}.yaml").into();
    match tree::parse(text, &mut problems) {
        Ok(root) => {
            let settings = read::shipped(name, root, &mut problems);
            if problems.is_empty() { Ok(settings) } else { Err(ConfigError::Problems { path: path(), problems }) }
        }
        Err(problem) => Err(ConfigError::Problems { path: path(), problems: vec![problem] }),
    }
}

#[cfg(test)]
mod tests;
