//! From an image to a cell's root file system: which directories are laid over each other, what is mounted on them, and what the
//! topmost of them holds.

use std::path::PathBuf;

use cellblock_bundle::{Mount, Network};
use cellblock_bundle::{RootFs, User};

use crate::host::{Dns, HostImage};
use crate::skeleton::{self, About, Base, Plan, SkeletonError};

/// Where the root file system comes from, found and unpacked.
#[derive(Clone, Debug)]
pub enum Source {
    /// The host's own directories.
    Host(HostImage),
    /// The unpacked layers of a stored image, the topmost first ([`crate::store::Store::layer_plan`]).
    Layers(Vec<PathBuf>),
    /// A directory that is used as it is, never written to.
    Directory(PathBuf),
}

/// Directories of the one cell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Places {
    /// Where the skeleton will be written.
    pub skeleton: PathBuf,
    /// The writable layer.
    pub upper: PathBuf,
    /// Overlayfs's own directory; same file system as `upper`.
    pub work: PathBuf,
}

/// What the root file system depends on besides.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// The cell's name.
    pub name: &'a str,
    /// Host name inside.
    pub hostname: &'a str,
    /// Who the command runs as.
    pub user: &'a User,
    /// What network there is.
    pub network: Network,
    /// The host's resolver settings ([`crate::host::dns`]); only used with the host's network.
    pub dns: Option<&'a Dns>,
    /// The host's `/etc/hosts` ([`crate::host::hosts`]); only used with the host's network.
    pub hosts: Option<&'a str>,
}

/// A root file system as it is meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prepared {
    /// Its directories and mounts.
    pub rootfs: RootFs,
    /// What has to be written into [`Places::skeleton`] before the start ([`Plan::write`], in OUTER).
    pub skeleton: Plan,
}

/// Says how the root file system of a cell is laid. Files of the image are read (`/etc/passwd`, `/etc/group`), nothing is written.
///
/// # Errors
/// See [`SkeletonError`].
pub fn prepare(source: &Source, places: &Places, request: &Request<'_>) -> Result<Prepared, SkeletonError> {
    let about = About {
        name: request.name,
        hostname: request.hostname,
        user: request.user,
        network: request.network,
        resolv_conf: request.dns.map(|dns| dns.text.as_str()),
        hosts: request.hosts,
    };
    let (below, mounts): (&[PathBuf], Vec<Mount>) = match source {
        Source::Host(image) => (&[], image.mounts.clone()),
        Source::Layers(layers) => (layers, Vec::new()),
        Source::Directory(directory) => (std::slice::from_ref(directory), Vec::new()),
    };
    let base = match source {
        Source::Host(image) => Base::Host(image),
        Source::Layers(_) | Source::Directory(_) => Base::Layers(below),
    };
    let skeleton = skeleton::plan(&about, base)?;
    let mut lowers = vec![places.skeleton.clone()];
    lowers.extend_from_slice(below);
    let shared = match source {
        Source::Directory(directory) => vec![directory.clone()],
        Source::Host(_) | Source::Layers(_) => Vec::new(),
    };
    let rootfs = RootFs { lowers, shared, upper: places.upper.clone(), work: places.work.clone(), mounts };
    Ok(Prepared { rootfs, skeleton })
}
