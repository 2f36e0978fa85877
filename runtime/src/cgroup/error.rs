//! Why a limit cannot be enforced, in words that name the reason.

use std::io;
use std::path::PathBuf;

use rustix::io::Errno;

use super::hierarchy::NoPlace;

/// Why a limit cannot be enforced.
#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
    /// The controller's hierarchy is not there for this process.
    #[error("a {limit} limit cannot be enforced: cgroup controller {controller}: {why}")]
    NoPlace {
        /// `memory`, `cpus` or `pids`.
        limit: &'static str,
        /// The controller's name.
        controller: &'static str,
        /// Why not.
        why: NoPlace,
    },
    /// v2: the controller is not handed down to the group.
    #[error("a {limit} limit cannot be enforced: {path} has no {controller} controller (its parents do not hand it down)", path = path.display())]
    NotHandedDown {
        /// `memory`, `cpus` or `pids`.
        limit: &'static str,
        /// The controller's name.
        controller: &'static str,
        /// The group that lacks it.
        path: PathBuf,
    },
    /// The cgroup file system is mounted read-only.
    #[error("a {limit} limit cannot be enforced: {path} is read-only, as in an ordinary container", path = path.display())]
    ReadOnly {
        /// `memory`, `cpus` or `pids`.
        limit: &'static str,
        /// Where it is mounted.
        path: PathBuf,
    },
    /// The process may not make groups.
    #[error("a {limit} limit cannot be enforced: no cgroup may be made in {path}: {why}", path = path.display())]
    NotDelegated {
        /// `memory`, `cpus` or `pids`.
        limit: &'static str,
        /// Where it was tried.
        path: PathBuf,
        /// Why not.
        why: String,
    },
    /// A directory could not be made.
    #[error("cannot make the cgroup {path}: {source}", path = path.display())]
    Make {
        /// The group.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A file of a group could not be opened or written.
    #[error("cannot write {value} to {path}: {source}", path = path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What it was to be.
        value: String,
        /// Why not.
        source: io::Error,
    },
    /// systemd did not make a scope.
    #[error("systemd did not make a scope with limits: {0}")]
    Systemd(String),
}

impl CgroupError {
    /// The kernel has no such file, or was built without what it stands for.
    pub(super) fn is_absent(&self) -> bool {
        let absent = [Errno::NOENT, Errno::OPNOTSUPP].map(Errno::raw_os_error);
        matches!(self, Self::Write { source, .. } if source.raw_os_error().is_some_and(|e| absent.contains(&e)))
    }
}
