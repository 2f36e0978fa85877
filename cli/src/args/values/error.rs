//! Why a single value cannot be understood.

use super::{MAX_NAME, MOST, did_you_mean};

/// Why a single value cannot be understood. The text completes "invalid value 'X' for 'KEY': …".
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ValueError {
    /// Not a size.
    #[error("a size is a whole number of bytes, or one with a suffix: b, k, m, g, t (powers of 1024)")]
    Size,
    /// A size above 2^63 bytes or of nothing.
    #[error("a size must be above 0 and below 8 EiB")]
    SizeRange,
    /// Not a number of processors.
    #[error("a number of processors has at most three decimals and is at least 0.01, such as 2 or 1.5")]
    Cpus,
    /// Not a number of processes.
    #[error("the number of processes must be a whole number above 0")]
    Pids,
    /// A name no environment variable can have for every shell.
    #[error("{0:?} is not a name for a variable: letters, digits and _ only, and no digit first")]
    EnvName(String),
    /// Nothing, or several lines.
    #[error("a key is its fingerprint (SHA256:…), its comment, or the file of its public half")]
    AgentKey,
    /// Not a path in a work tree.
    #[error("{0:?} is not a path in the project, such as .vscode or .git/hooks")]
    Opened(String),
    /// A variable without a value, where one is needed.
    #[error("a variable with its value is NAME=VALUE")]
    Assignment,
    /// A NUL byte, which no process can be given.
    #[error("a NUL character cannot be passed to a program")]
    Nul,
    /// A mount of nothing.
    #[error("a mount is SOURCE:TARGET[:OPTIONS] or SOURCE[:OPTIONS]")]
    Mount,
    /// A target or another path inside the cell that is not absolute or holds `..`.
    #[error("{0:?} is a path inside the cell and must be absolute, without `..`")]
    Inside(String),
    /// An option of a mount that nobody knows.
    #[error("unknown mount option {0:?}; the options are ro and rw")]
    MountOption(String),
    /// An option of a tmpfs that nobody knows.
    #[error("unknown tmpfs option {0:?}; the options are size=SIZE and mode=OCTAL")]
    TmpfsOption(String),
    /// Podman's options for things this version does not do.
    #[error("this version does not support the mount option {0:?} ({1})")]
    MountOptionLater(String, &'static str),
    /// Options that contradict each other.
    #[error("a mount is either ro or rw, not both")]
    MountModes,
    /// `name:/target`: podman's named volumes.
    #[error(
        "{0:?} would be a named volume, which this version does not support; a folder is written ./{0} or as an absolute path"
    )]
    NamedVolume(String),
    /// Not a list of profiles.
    #[error(
        "profiles are at most {MOST} different names with commas between them; a name has lower-case letters, digits and . _ -"
    )]
    Profiles,
    /// A program with a path.
    #[error("a program is a name, without `/`: it is looked for in the PATH")]
    Program,
    /// Not a path of an agent's.
    #[error("a path begins with `~/` or `/`, without `.` and `..`")]
    HomePath,
    /// Not a path below another.
    #[error("a path below the folder, without `.` and `..`, and with one `*` in a name at most")]
    Beneath,
    /// Not a user.
    #[error("a user is UID, UID:GID, root, or your own login name")]
    User,
    /// Not a label.
    #[error("a label is KEY=VALUE or KEY; a key has letters, digits and . _ - /")]
    Label,
    /// A label under the prefix that cellblock writes itself.
    #[error("labels that begin with `cellblock.` are cellblock's own")]
    LabelReserved,
    /// Not a name for a cell or a host.
    #[error(
        "a name has lower-case letters, digits and . _ -, begins with a letter or a digit, and has at most {MAX_NAME} bytes"
    )]
    Name,
    /// A host name that is not one.
    #[error(
        "a host name has letters, digits, . and -, begins with a letter or a digit, and has at most {MAX_NAME} bytes"
    )]
    Hostname,
    /// Not one of a fixed set of words.
    #[error("it is one of {}{}", .words.join(", "), did_you_mean(.near.as_deref()))]
    Choice {
        /// The words there are.
        words: &'static [&'static str],
        /// The one closest to what was written.
        near: Option<String>,
    },
    /// Not a rule of the network; the language's own words.
    #[error("{0}")]
    Rule(String),
    /// A set of rules that does not exist.
    #[error("there is no such set{}; the sets are @{known}", did_you_mean(.near.as_deref()))]
    Set {
        /// Those there are.
        known: String,
        /// The one closest to what was written.
        near: Option<String>,
    },
    /// Not a secret.
    #[error(
        "a secret is VARIABLE@HOST[/HEADER]=SOURCE, with env:NAME, file:PATH, cmd:COMMAND, op://… or pass:ENTRY as source"
    )]
    Secret,
    /// Not a place where a value is read.
    #[error("after NAME@ comes env:NAME, file:PATH, cmd:COMMAND, op://VAULT/ITEM/FIELD or pass:ENTRY")]
    Source,
    /// A pattern that says nothing, or leads out of the project.
    #[error("a pattern is relative to the project, without `..` and `!`, such as .env, config/*.key or **/secrets")]
    Pattern,
    /// A secret for everybody.
    #[error("a secret goes to the hosts that it is for, never to every name")]
    SecretForAll,
    /// Not a published port.
    #[error("a published port is [ADDRESS:]HOSTPORT:PORT, or PORT for the same on both sides")]
    Publish,
    /// A protocol that is not passed on.
    #[error("only TCP ports can be published")]
    PublishProtocol,
    /// Not an address of a mirror.
    #[error("a mirror is an address that begins with https:// or http://")]
    Url,
    /// A home that is none.
    #[error("a home is private, workspace, or a folder (with /, ./, ../ or ~ in front)")]
    Home,
}
