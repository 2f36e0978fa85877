//! What a cell's network is to do, as plain data.

use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::gateway::Rung;
use crate::git::Git;
use crate::name::Pattern;
use crate::policy::Written;

/// What a cell's network is to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// How it reaches the outside.
    pub mode: Mode,
    /// The cell's name, for the hints in denials.
    pub cell: String,
    /// What it may reach.
    pub allow: Vec<Written>,
    /// What it may not, whatever is allowed.
    pub deny: Vec<Written>,
    /// Ports of the host that lead into the cell.
    pub publish: Vec<Publish>,
    /// Where decisions are written; the folder exists.
    pub audit: PathBuf,
    /// Where it is kept how many made-up addresses the cell has been given: a network that takes the place of one that died gives none again.
    pub names: PathBuf,
    /// Where it is kept what was denied while the cell ran: a network that takes the place of one that died denies it still.
    pub denied: PathBuf,
    /// What is put into requests outside.
    pub secrets: Vec<Secret>,
    /// Git's credentials for single repositories, which somebody else has.
    pub git: Option<Git>,
    /// The host's root certificates (PEM), where connections are looked into.
    pub roots: Option<PathBuf>,
    /// Most connections at a time.
    pub connections: usize,
    /// The ways to catch connections by name that may be tried; [`Rung::ALL`] unless there is a reason.
    pub rungs: Vec<Rung>,
}

/// A secret: what the cell has of it, and what the host gets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Secret {
    /// The hosts that get it.
    pub host: Pattern,
    /// The header in which it is put.
    pub header: String,
    /// What stands for it inside.
    pub placeholder: String,
    /// The secret itself.
    pub value: Hidden,
}

/// A text that is never shown, and is wiped when it is dropped.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hidden(pub String);

impl Drop for Hidden {
    fn drop(&mut self) {
        zeroize::Zeroize::zeroize(&mut self.0);
    }
}

impl std::fmt::Debug for Hidden {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("***")
    }
}

/// How a cell reaches the outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// By name: each connection ends in the gateway and is decided on.
    Names,
    /// By address: packets are forwarded, but to this machine and to what is not public.
    Bridge,
}

/// Most connections at a time, unless said otherwise.
pub const CONNECTIONS: usize = 1024;

/// Most connections to published ports at a time. Theirs alone: whoever may connect from outside cannot take the cell's places, nor it theirs.
pub const PUBLISHED: usize = 512;

/// A published port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Publish {
    /// Where the host listens.
    pub host: SocketAddr,
    /// The port inside.
    pub port: u16,
}

impl std::fmt::Display for Publish {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}
