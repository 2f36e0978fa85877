//! Where each value came from, for `--explain` and for errors.

use std::fmt;
use std::path::PathBuf;

use serde::{Serialize, Serializer};

/// Where a value came from, the weakest first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// Cellblock's own choice.
    Default,
    /// The host's environment, by cellblock's list of what passes.
    Host,
    /// `defaults:` in the configuration.
    Config {
        /// The file.
        file: PathBuf,
        /// The line.
        line: usize,
    },
    /// A project or an agent in the configuration.
    Section {
        /// Which, such as `project web`.
        of: String,
        /// The file.
        file: PathBuf,
        /// The line.
        line: usize,
    },
    /// What is shipped for an agent.
    Shipped {
        /// The agent.
        agent: String,
    },
    /// An environment variable of cellblock's.
    Env(&'static str),
    /// A line of an `--env-file`.
    EnvFile {
        /// The file.
        file: PathBuf,
        /// The line.
        line: usize,
    },
    /// A flag.
    Flag(&'static str),
    /// The words on the command line.
    Words,
    /// The project that was found.
    Found,
    /// A place that another crate has put in words.
    Written(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::Host => f.write_str("the host's environment"),
            Self::Config { file, line } | Self::EnvFile { file, line } => write!(f, "{}:{line}", file.display()),
            Self::Section { of, file, line } => write!(f, "{}:{line} ({of})", file.display()),
            Self::Shipped { agent } => write!(f, "the agent {agent}"),
            Self::Env(name) => write!(f, "${name}"),
            Self::Flag(name) => f.write_str(name),
            Self::Words => f.write_str("the command line"),
            Self::Found => f.write_str("the project"),
            Self::Written(text) => f.write_str(text),
        }
    }
}

impl Serialize for Origin {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A value that knows where it came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Sourced<T> {
    /// The value.
    pub(crate) value: T,
    /// Where it came from.
    pub(crate) origin: Origin,
}

/// One line of `--explain`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Explained {
    /// What is explained, as the key of the configuration; single variables and mounts after a space.
    pub(crate) key: String,
    /// The value as a person would write it; secrets are not shown.
    pub(crate) value: String,
    /// Where it came from.
    pub(crate) origin: Origin,
}
