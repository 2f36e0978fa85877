//! What is meant: one cell, as plain data.
//!
//! A [`Cell`] says everything about a container that a person could have asked for, after flags, configuration and defaults
//! have been brought together, and before anything is done. It can be printed, compared and stored; it holds no file
//! descriptor and touches no file. `spec` turns it into an OCI runtime specification.
//!
//! Text is UTF-8 throughout, because the OCI runtime specification is JSON: a path or an argument that is not UTF-8 is
//! refused where it is typed.

mod brokers;
mod ids;
mod state;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

pub use brokers::{BROKERS, Brokers, GitCredentials, GitRemote, SHIMS, SSH_AGENT, Signer, SshAgent};
pub use ids::{Extent, IdScheme, Ids};
pub use state::{Added, Edit, Seed, State, StateKind, StateMode};

use crate::protect::Protect;

/// One container, as it is meant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cell {
    /// Unique among the person's cells; `[a-z0-9][a-z0-9_.-]*`, at most [`MAX_NAME`] bytes.
    pub name: String,
    /// The project it was started for, if any.
    pub project: Option<Project>,
    /// The image as a person names it (`host`, `alpine:3.20.3`, `./rootfs.tar.gz`).
    pub image: String,
    /// How much the cell may do.
    pub profile: Profile,
    /// The host name inside (UTS namespace).
    pub hostname: String,
    /// Labels, for listing and for the exported bundle's annotations.
    pub labels: BTreeMap<String, String>,
    /// The program and its arguments; never empty.
    pub command: Vec<String>,
    /// The whole environment of the command, but for what is hidden: nothing else is inherited.
    pub env: BTreeMap<String, String>,
    /// Names of further variables of the command. Their values are nowhere but in memory: not here, and so in no record, no log and no bundle.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub hidden: BTreeSet<String>,
    /// Absolute working directory inside.
    pub workdir: PathBuf,
    /// Who the command runs as.
    pub user: User,
    /// Which ids of the host stand for which ids inside.
    pub ids: Ids,
    /// Mounts on top of the root file system, in order.
    pub mounts: Vec<Mount>,
    /// What it must not change in folders of the host that it may write.
    #[serde(default, skip_serializing_if = "Protect::is_empty")]
    pub protect: Protect,
    /// Whether a process of our own sees to `protect` by name; without it only mounts do, and only for what exists.
    #[serde(default)]
    pub guard: bool,
    /// A folder of the host whose files lie over those of the root.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overlay: Option<PathBuf>,
    /// Small files that are made in the command's home directory, by their path from there, as far as no mount stands over them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub home_files: BTreeMap<PathBuf, String>,
    /// The cell's own home, if the command's is another: what cellblock makes at home is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub own_home: Option<PathBuf>,
    /// Files and folders of its agent's that it sees in a way of their own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub state: Vec<State>,
    /// What is written into files below these at each start, for the cell only.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub seeds: Vec<Seed>,
    /// What the network namespace is.
    pub network: Network,
    /// What it may reach in the mode `names`, and what may reach it.
    pub reach: Reach,
    /// Resource limits.
    pub limits: Limits,
    /// Whether the command gets a pseudo-terminal of its own.
    pub terminal: bool,
    /// Whether a small init reaps orphans as process 1 (podman's `--init`).
    pub init: bool,
    /// Whether the root file system is read-only.
    pub read_only: bool,
    /// What answers the cell from outside of it.
    #[serde(default, skip_serializing_if = "Brokers::is_empty")]
    pub brokers: Brokers,
}

impl Cell {
    /// The home that is the cell's own, and the command's too unless that was said to be another.
    #[must_use]
    pub fn own_home(&self) -> &std::path::Path {
        self.own_home.as_deref().unwrap_or(&self.user.home)
    }
}

/// Longest cell name in bytes: it becomes a host name (`sethostname(2)` takes 64) and part of socket paths (`unix(7)`: 108).
pub const MAX_NAME: usize = 63;

/// The project a cell works on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Project {
    /// First 16 hex digits of the SHA-256 of the canonical git root: the same for all its worktrees.
    pub id: String,
    /// Short name: the last component of the canonical root.
    pub name: String,
    /// The folder the cell works in: the worktree's root, or the working directory outside git.
    pub root: PathBuf,
    /// The branch checked out there, if it is a git work tree on a branch.
    pub branch: Option<String>,
}

/// How much a cell may do. Each is a column in docs/threat-model.md.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Profile {
    /// For daily work: a small bounding set for root inside, none for anybody else; the `default` seccomp profile.
    #[default]
    Default,
    /// No capability at all, also for root inside; the `strict` seccomp profile.
    Strict,
}

/// Who the command runs as, in ids of the cell.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct User {
    /// User id inside.
    pub uid: u32,
    /// Primary group id inside.
    pub gid: u32,
    /// Supplementary group ids inside; must be mapped.
    pub groups: Vec<u32>,
    /// Login name, for the generated `/etc/passwd`.
    pub name: String,
    /// Primary group's name, for the generated `/etc/group`.
    pub group: String,
    /// Home directory inside.
    pub home: PathBuf,
    /// Login shell, for the generated `/etc/passwd`.
    pub shell: PathBuf,
}

/// A mount on top of the root file system.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Mount {
    /// A file or directory of the host, always `nosuid,nodev`, with the mounts below it.
    Bind {
        /// Absolute path on the host; must exist.
        source: PathBuf,
        /// Absolute path inside.
        target: PathBuf,
        /// Whether the cell may write.
        writable: bool,
    },
    /// An empty file system in memory, always `nosuid,nodev`.
    Tmpfs {
        /// Absolute path inside.
        target: PathBuf,
        /// Largest size in bytes.
        size: Option<u64>,
        /// Permission bits of its root, such as `0o1777`.
        mode: u32,
    },
    /// Folders of the host over each other, read-only, always `nosuid,nodev`.
    Layers {
        /// Absolute paths on the host, the topmost first; at least two.
        lowers: Vec<PathBuf>,
        /// Absolute path inside.
        target: PathBuf,
    },
    /// Nothing, over something of the host's that a bind has brought along and that the cell is not to see: an empty folder or an empty file,
    /// read-only.
    Mask {
        /// Absolute path inside, without links; nothing is made there if nothing is.
        target: PathBuf,
        /// Whether what is covered is a folder.
        directory: bool,
    },
}

impl Mount {
    /// Where it stands inside.
    #[must_use]
    pub fn target(&self) -> &std::path::Path {
        match self {
            Self::Bind { target, .. }
            | Self::Tmpfs { target, .. }
            | Self::Layers { target, .. }
            | Self::Mask { target, .. } => target,
        }
    }

    /// What of the host can be written through it.
    #[must_use]
    pub fn writable_source(&self) -> Option<&std::path::Path> {
        match self {
            Self::Bind { source, writable: true, .. } => Some(source),
            _ => None,
        }
    }
}

impl Cell {
    /// What of the host the cell can write: by its mounts, and as its agent's files that are shared with it.
    pub fn writable_sources(&self) -> impl Iterator<Item = &std::path::Path> {
        let shared = self.state.iter().filter(|state| state.mode == StateMode::Share).map(|state| state.host.as_path());
        self.mounts.iter().filter_map(Mount::writable_source).chain(shared)
    }
}

/// What the cell's network namespace is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Network {
    /// A namespace of its own with nothing but a loopback device.
    #[default]
    None,
    /// A namespace of its own from which only what [`Reach`] allows can be reached, by name.
    Names,
    /// A namespace of its own from which the internet can be reached, but neither this host nor private addresses, unless [`Reach`] allows them.
    Bridge,
    /// The host's namespace: no separation at all.
    Host,
}

/// What a cell may reach by name, and which ports of the host lead into it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Reach {
    /// What it may reach. Nothing, if nothing is said.
    pub allow: Vec<Said>,
    /// What it may not, whatever is allowed.
    pub deny: Vec<Said>,
    /// Published ports.
    pub publish: Vec<Publish>,
    /// Secrets that are put into requests outside; their values are not here.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub secrets: Vec<SecretUse>,
}

/// Where a secret goes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SecretUse {
    /// The variable that holds the placeholder inside.
    pub variable: String,
    /// The hosts that get the secret: a name, or `*.DOMAIN`.
    pub host: String,
    /// The header in which the placeholder is replaced.
    pub header: String,
    /// What stands for it inside.
    pub placeholder: String,
}

/// Where the cell finds what it has to trust when connections are looked into: the host's roots and an authority of its own.
pub const TRUST: &str = "/etc/cellblock/ca-bundle.pem";

/// A rule as it was written, and where.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Said {
    /// The rule, in the language of the crate `egress`.
    pub rule: String,
    /// Where it was written, for people: `--allow`, `config.yaml:12`.
    pub origin: String,
}

/// A port of the host that leads into the cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Publish {
    /// Where the host listens.
    pub host: std::net::SocketAddr,
    /// The port inside.
    pub port: u16,
}

impl std::fmt::Display for Publish {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

/// Resource limits; `None` means unlimited.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Bytes of memory; swap is not added on top.
    pub memory: Option<u64>,
    /// Processors, in thousandths: 1500 is one and a half.
    pub cpus: Option<u64>,
    /// Processes and threads.
    pub pids: Option<u64>,
    /// Go on without a limit that the host's cgroups cannot enforce (said aloud), instead of refusing to start.
    pub best_effort: bool,
}

impl Limits {
    /// Whether anything is limited.
    #[must_use]
    pub fn any(&self) -> bool {
        self.memory.is_some() || self.cpus.is_some() || self.pids.is_some()
    }
}

/// Where a cell's root file system comes from: what `rootfs` prepared.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RootFs {
    /// Read-only directories, the topmost first, as overlayfs orders `lowerdir`. Never empty.
    pub lowers: Vec<PathBuf>,
    /// Those of `lowers` whose files have the host's ids and not the cell's: under real root they are shown through id-mapped mounts.
    pub shared: Vec<PathBuf>,
    /// The writable layer is thrown away at the end, so overlayfs need not sync it.
    pub volatile: bool,
    /// The writable directory.
    pub upper: PathBuf,
    /// Overlayfs's own directory; same file system as `upper`.
    pub work: PathBuf,
    /// Mounts that belong to the image (the `host` image's `/usr` …); they come before the cell's own.
    pub mounts: Vec<Mount>,
}

/// An overlay that a bundle's specification mounts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Overlay {
    /// Where it stands inside.
    pub target: PathBuf,
    /// Read-only directories, the topmost first. Never empty.
    pub lowers: Vec<PathBuf>,
    /// As in [`RootFs::volatile`].
    pub volatile: bool,
    /// The writable directory.
    pub upper: PathBuf,
    /// Overlayfs's own directory; same file system as `upper`.
    pub work: PathBuf,
}
