//! What may be asked of the process, as plain data.

use std::collections::BTreeMap;
use std::path::PathBuf;

use cellblock_egress::git::Remote;

/// What one cell may ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The cell's own folder for it, in which nobody else may be: made when the process is started. Its folder [`INSIDE`] is what the cell sees.
    pub folder: PathBuf,
    /// Where requests are written down; the folder exists.
    pub audit: PathBuf,
    /// The user ids of the cell, as the host counts them: first id and how many. Nobody else is answered.
    pub peers: Vec<(u32, u32)>,
    /// The ssh agent.
    pub agent: Option<Agent>,
    /// The repositories for which git gets credentials. Asked by the cell's network, not by the cell.
    pub git: Vec<Remote>,
    /// The person's environment, for their programs.
    pub env: BTreeMap<String, String>,
    /// What signs commits and tags.
    pub signer: Option<Signer>,
    /// Images in the clipboard may be read.
    pub clipboard_image: bool,
    /// Addresses may be opened in the browser.
    pub open_url: bool,
    /// The program that is told what agents say of their status.
    pub workmux: Option<PathBuf>,
    /// Ports of this machine that lead into the cell: addresses there may be opened too.
    pub published: Vec<u16>,
}

/// The folder in [`Settings::folder`] that the cell sees.
pub const INSIDE: &str = "in";

/// The agent's socket in [`INSIDE`].
pub const AGENT: &str = "ssh-agent.sock";

/// The pipe in [`INSIDE`] by which programs of the cell ask.
pub const REQUESTS: &str = "requests";

/// The folder in [`INSIDE`] in which they find the answers.
pub const ANSWERS: &str = "answers";

/// The socket in [`Settings::folder`] on which the cell's network asks for git's credentials.
pub const CREDENTIALS: &str = "git.sock";

impl Settings {
    /// Whether something is asked by lines in the pipe.
    #[must_use]
    pub fn has_requests(&self) -> bool {
        self.signer.is_some() || self.clipboard_image || self.open_url || self.workmux.is_some()
    }
}

/// An ssh agent, and what of it may be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Agent {
    /// Its socket.
    pub socket: PathBuf,
    /// Fingerprints (`SHA256:…`) or comments of the keys that may be used; all, if there are none here.
    pub keys: Vec<String>,
    /// Whether signatures for git are given, besides those for logging in.
    pub commits: bool,
}

/// The key with which commits are signed, and what signs with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signer {
    /// gpg, as the person's git calls it: a name, or an absolute path.
    pub program: PathBuf,
    /// The key as gpg(1) takes it after `--local-user`.
    pub key: String,
}
