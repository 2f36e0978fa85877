//! The small languages of single values: sizes, mounts, users, labels, environment entries.
//!
//! One reader serves flags, environment variables and the configuration file, so a value means the same wherever it is written.
//! All of it is pure: nothing is expanded and no file is looked at here.

mod amounts;
mod mounts;
mod pattern;
mod profile;
mod protect;
mod reach;
mod secret;
mod source;

use std::fmt;
use std::str::FromStr;

pub(crate) use cellblock_bundle::cell::StateMode;
use cellblock_bundle::cell::{MAX_NAME, Network, Profile};

pub(crate) use amounts::{Cpus, Pids, Size};
pub(crate) use mounts::{MountSpec, TmpfsSpec, inside_path};
pub(crate) use pattern::MaskPattern;
pub(crate) use profile::{MOST, ProfileSpec};
pub(crate) use protect::{Opened, Protection};
pub(crate) use reach::{PublishSpec, RuleSpec};
pub(crate) use secret::SecretSpec;
use source::env_name;
pub(crate) use source::{EnvEntry, Given, Source};

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
    #[error("a path below the folder, without `.` and `..`, or `*`")]
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
}

/// `; did you mean "x"?`, or nothing.
pub(crate) fn did_you_mean(near: Option<&str>) -> String {
    near.map(|word| format!("; did you mean {word:?}?")).unwrap_or_default()
}

/// The word of `known` closest to `typed`, if it is close enough to be what was meant.
pub(crate) fn nearest<'a>(typed: &str, known: impl IntoIterator<Item = &'a str>) -> Option<String> {
    // 0.8 finds a swapped or a missing letter in words of five and more, and keeps unrelated short words apart (as clap does).
    const CLOSE: f64 = 0.8;
    let typed = typed.to_lowercase();
    known
        .into_iter()
        .map(|word| (strsim::jaro_winkler(&typed, word), word))
        .filter(|(closeness, _)| *closeness >= CLOSE)
        .max_by(|(a, _), (b, _)| a.total_cmp(b))
        .map(|(_, word)| word.to_owned())
}

/// A word out of a fixed set, as it stands in flags, variables and the configuration.
pub(crate) trait Choice: Sized + Copy + 'static {
    /// Every word with its meaning.
    const TABLE: &'static [(&'static str, Self)];
    /// The words alone.
    const WORDS: &'static [&'static str];

    /// Reads one word.
    fn read(text: &str) -> Result<Self, ValueError> {
        Self::TABLE
            .iter()
            .find(|(word, _)| *word == text)
            .map(|(_, value)| *value)
            .ok_or_else(|| ValueError::Choice { words: Self::WORDS, near: nearest(text, Self::WORDS.iter().copied()) })
    }
}

/// A value out of a set, in its word.
pub(crate) fn word<T: Choice + PartialEq>(value: T) -> &'static str {
    T::TABLE.iter().find(|(_, known)| *known == value).map_or("", |(word, _)| word)
}

macro_rules! choice {
    ($type:ty { $($word:literal => $value:expr),+ $(,)? }) => {
        impl Choice for $type {
            const TABLE: &'static [(&'static str, Self)] = &[$(($word, $value)),+];
            const WORDS: &'static [&'static str] = &[$($word),+];
        }
    };
}

choice!(Network { "names" => Network::Names, "none" => Network::None, "bridge" => Network::Bridge, "host" => Network::Host });
choice!(Profile { "default" => Profile::Default, "strict" => Profile::Strict });
choice!(Userns { "auto" => Userns::Auto, "keep-id" => Userns::KeepId, "single" => Userns::Single });
choice!(LimitMode { "enforce" => LimitMode::Enforce, "best-effort" => LimitMode::BestEffort });
choice!(StateMode {
    "private" => StateMode::Private,
    "copy" => StateMode::Copy,
    "share" => StateMode::Share,
    "sync" => StateMode::Sync,
});
choice!(Bridge { "clipboard-image" => Bridge::ClipboardImage, "open-url" => Bridge::OpenUrl, "workmux-status" => Bridge::WorkmuxStatus });
choice!(Protection { "on" => Protection::On, "off" => Protection::Off });
choice!(Tty { "auto" => Tty::Auto, "always" => Tty::Always, "never" => Tty::Never });

/// How ids are to be laid over the host's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Userns {
    /// The best that the host and the image allow.
    #[default]
    Auto,
    /// The person's own ids as themselves and all others from a range; for real root, root stays root.
    KeepId,
    /// The person's own ids and nobody else's.
    Single,
}

/// What happens to a limit that the host cannot enforce.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum LimitMode {
    /// The cell does not start.
    #[default]
    Enforce,
    /// The cell starts without it, and says so.
    BestEffort,
}

/// What of the person's desktop a cell may ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bridge {
    /// The image in the clipboard.
    ClipboardImage,
    /// To open an address in the browser.
    OpenUrl,
    /// To tell workmux an agent's status.
    WorkmuxStatus,
}

impl FromStr for Bridge {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        Self::read(text)
    }
}

impl serde::Serialize for Bridge {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(word(*self))
    }
}

/// The name of a key in an ssh agent: a fingerprint, a comment, or the path of a file. Not empty, and one line.
pub(crate) fn agent_key(text: &str) -> Result<String, ValueError> {
    if text.trim().is_empty() || text.contains(char::is_control) {
        Err(ValueError::AgentKey)
    } else {
        Ok(text.to_owned())
    }
}

/// When the command gets a pseudo-terminal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Tty {
    /// When standard input and standard output are terminals.
    #[default]
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// Who the command is to run as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum UserSpec {
    /// `root`, `0`, `0:0`.
    Root,
    /// A login name; only the person's own is known outside an image.
    Name(String),
    /// Numbers; without a group, podman's: 0.
    Ids {
        /// User id inside.
        uid: u32,
        /// Group id inside.
        gid: Option<u32>,
    },
}

impl FromStr for UserSpec {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        // 2^32-1 is "no change" to chown(2) and setresuid(2).
        let id = |text: &str| match text.parse::<u32>() {
            Ok(id) if id != u32::MAX && text.bytes().all(|b| b.is_ascii_digit()) => Ok(id),
            _ => Err(ValueError::User),
        };
        match text.split_once(':') {
            _ if matches!(text, "root" | "0" | "0:0" | "root:root") => Ok(Self::Root),
            Some((uid, gid)) => Ok(Self::Ids { uid: id(uid)?, gid: Some(id(gid)?) }),
            None if text.starts_with(|c: char| c.is_ascii_digit()) => Ok(Self::Ids { uid: id(text)?, gid: None }),
            None if !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-@".contains(&b)) => {
                Ok(Self::Name(text.to_owned()))
            }
            None => Err(ValueError::User),
        }
    }
}

impl fmt::Display for UserSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Root => f.write_str("root"),
            Self::Name(name) => f.write_str(name),
            Self::Ids { uid, gid: Some(gid) } => write!(f, "{uid}:{gid}"),
            Self::Ids { uid, gid: None } => write!(f, "{uid}"),
        }
    }
}

/// `KEY=VALUE`, or `KEY` with an empty value, as podman's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Label {
    /// What is labelled.
    pub(crate) key: String,
    /// With what.
    pub(crate) value: String,
}

impl FromStr for Label {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let (key, value) = text.split_once('=').unwrap_or((text, ""));
        label_key(key)?;
        Ok(Self { key: key.to_owned(), value: value.to_owned() })
    }
}

/// Checks the key of a label.
pub(crate) fn label_key(key: &str) -> Result<(), ValueError> {
    if key.is_empty() || !key.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-/".contains(&b)) {
        Err(ValueError::Label)
    } else if key.starts_with("cellblock.") {
        Err(ValueError::LabelReserved)
    } else {
        Ok(())
    }
}

/// Checks a cell's name: `[a-z0-9][a-z0-9_.-]*`, at most [`MAX_NAME`] bytes.
pub(crate) fn cell_name(text: &str) -> Result<String, ValueError> {
    let good = text.len() <= MAX_NAME
        && text.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"_.-".contains(&b));
    if good { Ok(text.to_owned()) } else { Err(ValueError::Name) }
}

/// Checks a host name (hostname(7)).
pub(crate) fn hostname(text: &str) -> Result<String, ValueError> {
    let good = text.len() <= MAX_NAME
        && text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'.' || b == b'-');
    if good { Ok(text.to_owned()) } else { Err(ValueError::Hostname) }
}

/// Checks the address of an Alpine mirror; a trailing slash is dropped.
pub(crate) fn mirror(text: &str) -> Result<String, ValueError> {
    let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    match rest {
        Some(rest)
            if !rest.is_empty()
                && !rest.starts_with('/')
                && !text.contains(|c: char| c.is_whitespace() || c.is_control()) =>
        {
            Ok(text.trim_end_matches('/').to_owned())
        }
        _ => Err(ValueError::Url),
    }
}

/// Shown by `config show` as they are written.
macro_rules! shown {
    ($($type:ty => |$value:ident| $shown:expr),+ $(,)?) => {
        $(impl serde::Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                let $value = self;
                serde::Serialize::serialize(&$shown, serializer)
            }
        })+
    };
}

shown! {
    Size => |size| size.0,
    Cpus => |cpus| cpus.to_string(),
    Pids => |pids| pids.0,
    LimitMode => |mode| word(*mode),
    Userns => |mode| word(*mode),
    UserSpec => |user| user.to_string(),
    EnvEntry => |entry| entry.to_string(),
    MountSpec => |mount| mount.to_string(),
    Opened => |path| path.to_string(),
    Protection => |mode| word(*mode),
    MaskPattern => |pattern| pattern.to_string(),
}

#[cfg(test)]
#[path = "values_tests.rs"]
mod tests;
