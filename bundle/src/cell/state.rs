//! What a cell sees of its agent's files at home, and what is written into them.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// A file or folder of an agent's in the person's home, and how a cell sees it. It is laid at each start (docs/credentials.md).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct State {
    /// The agent, by name: its layers are kept under it.
    pub agent: String,
    /// Absolute path on the host, as written: links there are followed. It need not exist.
    pub host: PathBuf,
    /// Absolute path inside.
    pub target: PathBuf,
    /// What it is.
    pub kind: StateKind,
    /// How it is seen.
    pub mode: StateMode,
    /// Names below it that are not taken from the host; `*` for all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hidden: Vec<String>,
    /// For a login: folders beside it whose being there means that somebody is renewing it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub locks: Vec<String>,
}

/// What an agent's state is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StateKind {
    /// A folder.
    Folder,
    /// A file.
    File,
    /// A file with a login: never taken over with the folder it is in.
    Login,
}

/// How an agent's file or folder of the host is seen by a cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StateMode {
    /// The project's own, which begins as the host's and follows it where the project's cells have changed nothing.
    Private,
    /// Copied at start; what the cell makes of it dies with it.
    Copy,
    /// The host's own, for reading and writing.
    Share,
    /// The host's, kept in step while the cell runs and never written back.
    Sync,
}

/// Something that cellblock writes into a file of an agent's, in a folder that is private or copied; never into the host's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Seed {
    /// Absolute path inside, below a folder of [`Cell::state`](super::Cell::state).
    pub target: PathBuf,
    /// What, one after the other.
    pub edits: Vec<Edit>,
}

/// A change of a file that can be made again and again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Edit {
    /// A part of a text between two lines that mark it as cellblock's; the rest is somebody else's.
    Part {
        /// Its lines; if there are none, there is no such part.
        text: String,
    },
    /// Keys of a JSON object.
    Json(Added),
    /// Keys of a TOML document.
    Toml(Added),
}

/// Keys that a file is to have. What it says of them already stays.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Added {
    /// An object; objects in it are gone through key by key, everything else is put where nothing is.
    pub keys: serde_json::Value,
    /// Whether `false` counts as nothing: some programs write it before they have asked.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub over_false: bool,
}
