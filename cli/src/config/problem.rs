//! What is wrong in a configuration file, and where.

use std::fmt;
use std::path::{Path, PathBuf};

/// A place in the file, as editors count: from 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    /// Line.
    pub(crate) line: usize,
    /// Column, in characters.
    pub(crate) column: usize,
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Problem {
    /// Where.
    pub(crate) at: Place,
    /// What.
    pub(crate) message: String,
    /// What would mend it, if that is known.
    pub(crate) hint: Option<String>,
}

impl Problem {
    pub(super) fn new(at: Place, message: impl Into<String>) -> Self {
        Self { at, message: message.into(), hint: None }
    }

    pub(super) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

/// Why there is no configuration. A broken file is never half used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfigError {
    /// The file is there and cannot be read.
    #[error("cannot read the configuration {path}", path = .path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is larger than any configuration.
    #[error("the configuration {path} has more than {} KiB", super::LARGEST / 1024, path = .path.display())]
    TooLarge {
        /// Which file.
        path: PathBuf,
    },
    /// Bytes that are not text.
    #[error("{path}:{line}: not UTF-8", path = .path.display())]
    NotUtf8 {
        /// Which file.
        path: PathBuf,
        /// The line that holds the first such byte.
        line: usize,
    },
    /// Everything that is wrong in it, in the order of the file.
    #[error("{}", Listing { path, problems })]
    Problems {
        /// Which file.
        path: PathBuf,
        /// At least one.
        problems: Vec<Problem>,
    },
}

/// `path:line:column: message`, a line each, the hint below it.
struct Listing<'a> {
    path: &'a Path,
    problems: &'a [Problem],
}

impl fmt::Display for Listing<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.problems.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            let Place { line, column } = problem.at;
            write!(f, "{}:{line}:{column}: {}", self.path.display(), problem.message)?;
            if let Some(hint) = &problem.hint {
                write!(f, "\n  hint: {hint}")?;
            }
        }
        Ok(())
    }
}
