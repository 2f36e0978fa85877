//! What answers a cell from outside, and where it finds that.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// What answers a cell from outside of it, so that what it is about need not enter. Nothing, unless it was asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Brokers {
    /// The person's ssh agent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ssh_agent: Option<SshAgent>,
    /// The person's gpg, for commits and tags.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signer: Option<Signer>,
    /// The person's git credentials, for single repositories.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub git: Option<GitCredentials>,
    /// Images in the person's clipboard.
    pub clipboard_image: bool,
    /// The person's browser.
    pub open_url: bool,
    /// The host's workmux, which is told what agents say of their status.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workmux: Option<PathBuf>,
}

impl Brokers {
    /// Whether nothing answers.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Whether something of it is seen inside, in [`BROKERS`].
    #[must_use]
    pub fn is_inside(&self) -> bool {
        self.ssh_agent.is_some()
            || self.signer.is_some()
            || self.clipboard_image
            || self.open_url
            || self.workmux.is_some()
    }
}

/// Where the cell finds the sockets of what answers it.
pub const BROKERS: &str = "/run/cellblock";

/// The socket of the ssh agent inside.
pub const SSH_AGENT: &str = "/run/cellblock/ssh-agent.sock";

/// Where the cell finds the programs that stand for those of a desktop.
pub const SHIMS: &str = "/etc/cellblock/bin";

/// An ssh agent of the person's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SshAgent {
    /// Its socket on the host.
    pub socket: PathBuf,
    /// Which of its keys the cell may use: `SHA256:…`, or the comment. All, if there are none here.
    pub keys: Vec<String>,
    /// Whether commits and tags may be signed with them. Without it they are only good for logging in.
    pub commits: bool,
}

/// What signs commits and tags outside.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Signer {
    /// gpg as the person's git calls it: a name, or an absolute path.
    pub program: PathBuf,
    /// The key as gpg(1) takes it after `--local-user`.
    pub key: String,
}

/// The person's credentials for git over https, for single repositories.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GitCredentials {
    /// What stands for the password inside.
    pub placeholder: String,
    /// For which repositories.
    pub remotes: Vec<GitRemote>,
}

/// A repository that is reached over https.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GitRemote {
    /// The server's name.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// The path, without a slash at either end.
    pub path: String,
    /// The user's name, if the address has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
}

impl std::fmt::Display for GitRemote {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.port {
            443 => write!(f, "https://{}/{}", self.host, self.path),
            port => write!(f, "https://{}:{port}/{}", self.host, self.path),
        }
    }
}
