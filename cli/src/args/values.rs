//! The small languages of single values: sizes, mounts, users, labels, environment entries.
//!
//! One reader serves flags, environment variables and the configuration file, so a value means the same wherever it is written.
//! All of it is pure: nothing is expanded and no file is looked at here.

mod amounts;
mod error;
mod home;
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
pub(crate) use error::ValueError;
pub(crate) use home::HomeSpec;
pub(crate) use mounts::{MountSpec, TmpfsSpec, inside_path};
pub(crate) use pattern::MaskPattern;
pub(crate) use profile::{MOST, ProfileSpec};
pub(crate) use protect::{Opened, Protection};
pub(crate) use reach::{PublishSpec, RuleSpec};
pub(crate) use secret::SecretSpec;
use source::env_name;
pub(crate) use source::{EnvEntry, Given, Source};

/// `; did you mean "x"?`, or nothing.
pub(crate) fn did_you_mean(near: Option<&str>) -> String {
    near.map(|word| format!("; did you mean {word:?}?")).unwrap_or_default()
}

/// The word of `known` closest to `typed`, if it is close enough to be what was meant.
pub(crate) fn nearest<'a>(typed: &str, known: impl IntoIterator<Item = &'a str>) -> Option<String> {
    // 0.8 finds a swapped or a missing letter in words of five and more, and keeps unrelated short words apart (as clap does).
    const CLOSE: f64 = 0.8;
    let typed = typed.to_lowercase();
    // In words of three and four it takes a look at what was done: one letter changed, missing or too much, or two swapped.
    let is_slip = |word: &str| typed.len() >= 3 && strsim::osa_distance(&typed, word) == 1;
    known
        .into_iter()
        .map(|word| (strsim::jaro_winkler(&typed, word).max(if is_slip(word) { CLOSE } else { 0.0 }), word))
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
choice!(SeedForm { "json" => SeedForm::Json, "toml" => SeedForm::Toml });
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

/// How a file that keys are put into is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum SeedForm {
    /// As JSON.
    #[default]
    Json,
    /// As TOML.
    Toml,
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
