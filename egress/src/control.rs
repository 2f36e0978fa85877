//! What other commands may ask the network of a running cell: a line of JSON there, a line of JSON back, over a Unix socket in a folder
//! that only its owner may enter.

use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::gateway::Rung;
use crate::policy::Entry;

/// What can be asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Request {
    /// What is in force. Answered with [`Reply::Show`].
    Show,
    /// Let the cell reach more. Answered with [`Reply::Done`].
    Allow {
        /// What.
        entry: Entry,
        /// Who says so, for people: `net allow`.
        origin: String,
        /// For how long; for as long as the cell lives if nothing is said.
        #[serde(default)]
        seconds: Option<u64>,
    },
    /// Let it reach less, whatever is allowed: connections that go there now are cut. Answered with [`Reply::Done`].
    Deny {
        /// What not.
        entry: Entry,
        /// Who says so.
        origin: String,
    },
}

/// The answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "reply", rename_all = "kebab-case")]
pub enum Reply {
    /// What is in force.
    Show(Box<Show>),
    /// It was done.
    Done {
        /// Connections that were cut.
        cut: u64,
    },
    /// It was not.
    Failed {
        /// Why, in words.
        why: String,
    },
}

/// What is in force.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Show {
    /// How connections are caught, in words: `a listener on each of 4 ports`.
    pub capture: String,
    /// The rung that this is; none for a bridge.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rung: Option<Rung>,
    /// The rules that allow, in their order, sets replaced by their rules.
    pub allow: Vec<Shown>,
    /// Those that deny; they beat the others.
    pub deny: Vec<Shown>,
    /// Published ports, as `127.0.0.1:8080:80`.
    pub publish: Vec<String>,
    /// Open connections.
    pub connections: u64,
    /// Names that the cell has been given an address for.
    pub names: u64,
    /// Where the audit is written.
    pub audit: std::path::PathBuf,
}

/// A rule in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shown {
    /// The rule, in its language.
    pub rule: String,
    /// Where it was written.
    pub origin: String,
    /// Seconds until it ends, if it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seconds: Option<u64>,
}

/// Longest request or reply in bytes.
pub const MAX_MESSAGE: u64 = 1 << 20;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Asks the network behind the socket at `path`.
///
/// # Errors
/// Those of `connect(2)`, `read(2)` and `write(2)`; `InvalidData` for an answer that is none.
pub fn ask(path: &Path, request: &Request) -> io::Result<Reply> {
    let mut stream = UnixStream::connect(path)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut text = serde_json::to_vec(request)?;
    text.push(b'\n');
    stream.write_all(&text)?;
    let mut line = String::new();
    io::Read::take(BufReader::new(stream), MAX_MESSAGE).read_line(&mut line)?;
    serde_json::from_str(&line).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))
}
