//! How the host finds names: its resolver's settings, through whatever chain of links they are reached.

use std::path::{Path, PathBuf};

use super::{HostError, Root, read};

/// Bytes of `/etc/resolv.conf` that count: real ones have a few lines.
const MAX_RESOLV: u64 = 64 << 10;
/// Bytes of `/etc/hosts` that count.
const MAX_HOSTS: u64 = 1 << 20;

/// Where resolver settings are written by programs, for a host whose `/etc/resolv.conf` is a dangling link or missing. In the order of
/// how much they know: systemd-resolved's stub answers for VPNs too.
const FALLBACKS: [&str; 4] = [
    "/run/systemd/resolve/stub-resolv.conf",
    "/run/systemd/resolve/resolv.conf",
    "/run/NetworkManager/resolv.conf",
    "/run/resolvconf/resolv.conf",
];

/// The host's resolver settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dns {
    /// Their text.
    pub text: String,
    /// The file they are in, at the end of all links.
    pub file: PathBuf,
    /// Whether that is not where `/etc/resolv.conf` leads, because it leads nowhere.
    pub fallback: bool,
}

/// The resolver settings of the system below `root` (`/` but in tests); `None` if it has none that can be read. They are as they are
/// now: a cell that shares the host's network does not see later changes.
///
/// # Errors
/// If `root` itself cannot be opened.
pub fn dns(root: &Path) -> Result<Option<Dns>, HostError> {
    let root = Root::open(root)?;
    let at = |path: &str, fallback| {
        read(&root, Path::new(path), MAX_RESOLV).map(|(file, text)| Dns { text, file, fallback })
    };
    Ok(at("/etc/resolv.conf", false).or_else(|| FALLBACKS.iter().find_map(|path| at(path, true))))
}

/// The text of `/etc/hosts` of the system below `root`; `None` if it cannot be read.
///
/// # Errors
/// If `root` itself cannot be opened.
pub fn hosts(root: &Path) -> Result<Option<String>, HostError> {
    Ok(read(&Root::open(root)?, Path::new("/etc/hosts"), MAX_HOSTS).map(|(_, text)| text))
}
