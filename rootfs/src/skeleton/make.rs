//! Planning a cell's skeleton.

use std::path::{Path, PathBuf};

use cellblock_bundle::{Mount, Network, User};
use rustix::fs::FileType;

use super::image::Layers;
use super::{Entry, Owner, Plan, SkeletonError, accounts, files};
use crate::host::HostImage;

/// What is below the skeleton.
#[derive(Clone, Copy, Debug)]
pub enum Base<'a> {
    /// The layers of an image, the topmost first; or a directory that is used as it is.
    Layers(&'a [PathBuf]),
    /// Nothing: the host's own directories are mounted over it.
    Host(&'a HostImage),
}

/// What a skeleton depends on besides.
#[derive(Clone, Copy, Debug)]
pub struct About<'a> {
    /// The cell's name; its machine id is derived from it.
    pub name: &'a str,
    /// Host name inside.
    pub hostname: &'a str,
    /// Who the command runs as.
    pub user: &'a User,
    /// What network there is.
    pub network: Network,
    /// The host's `/etc/resolv.conf` ([`crate::host::dns`]), for a cell with the host's network.
    pub resolv_conf: Option<&'a str>,
    /// The host's `/etc/hosts`, for a cell with the host's network.
    pub hosts: Option<&'a str>,
}

/// Directories that the runtime mounts on: real ones, whatever an image has there.
const MOUNT_POINTS: [&str; 3] = ["/dev", "/proc", "/sys"];

/// Plans the skeleton of a cell.
///
/// # Errors
/// See [`SkeletonError`].
pub fn plan(about: &About<'_>, base: Base<'_>) -> Result<Plan, SkeletonError> {
    let mut plan = Plan::default();
    for path in MOUNT_POINTS.into_iter().chain(["/etc", "/run"]) {
        plan.add(path, Entry::directory(0o755))?;
    }
    match base {
        Base::Layers(paths) => over_layers(&mut plan, about, &Layers::open(paths)?)?,
        Base::Host(host) => under_host(&mut plan, about, host)?,
    }
    plan.add("/etc/hosts", Entry::file(files::hosts(about.network, about.hostname, about.hosts)))?;
    plan.add("/etc/hostname", Entry::file(format!("{}\n", about.hostname)))?;
    plan.add("/etc/machine-id", Entry::file(format!("{}\n", files::machine_id(about.name))))?;
    plan.add("/etc/resolv.conf", Entry::file(files::resolv_conf(about.network, about.resolv_conf)))?;
    plan.add("/etc/mtab", Entry::link("../proc/self/mounts"))?;
    Ok(plan)
}

fn over_layers(plan: &mut Plan, about: &About<'_>, layers: &Layers<'_>) -> Result<(), SkeletonError> {
    let etc = Path::new("etc");
    match layers.find(etc)? {
        Some(found) if found.kind == FileType::Symlink => {
            let what = format!("a symbolic link to {}", found.target(etc)?.display());
            return Err(SkeletonError::EtcIsNoDirectory { what });
        }
        Some(found) if found.kind != FileType::Directory => {
            return Err(SkeletonError::EtcIsNoDirectory { what: "no directory".to_owned() });
        }
        _ => {}
    }
    let text = |path: &str, otherwise: &str| {
        layers.text(Path::new(path)).map(|text| text.unwrap_or_else(|| otherwise.to_owned()))
    };
    plan.add("/etc/passwd", Entry::file(accounts::passwd(&text("etc/passwd", accounts::PASSWD)?, about.user)?))?;
    plan.add("/etc/group", Entry::file(accounts::group(&text("etc/group", accounts::GROUP)?, about.user)?))?;
    if layers.find(Path::new("etc/nsswitch.conf"))?.is_none() {
        // Without it Go's resolver and glibc do not agree on whether /etc/hosts counts.
        plan.add("/etc/nsswitch.conf", Entry::file(files::NSSWITCH))?;
    }
    // An image's own stay as they are, links included.
    if layers.find(Path::new("tmp"))?.is_none() {
        plan.add("/tmp", Entry::directory(0o1777))?;
    }
    let var = layers.find(Path::new("var"))?;
    if var.is_none_or(|var| var.kind == FileType::Directory) && layers.find(Path::new("var/tmp"))?.is_none() {
        plan.add("/var/tmp", Entry::directory(0o1777))?;
    }
    if let Some(home) = home(about.user)?
        && layers.find(home.strip_prefix("/").unwrap_or(home))?.is_none()
    {
        plan.add(home, Entry::Directory { mode: 0o700, owner: Owner::Person })?;
    }
    Ok(())
}

fn under_host(plan: &mut Plan, about: &About<'_>, host: &HostImage) -> Result<(), SkeletonError> {
    for (path, entry) in &host.entries {
        plan.add(path, entry.clone())?;
    }
    plan.add("/etc/passwd", Entry::file(accounts::passwd(accounts::PASSWD, about.user)?))?;
    plan.add("/etc/group", Entry::file(accounts::group(accounts::GROUP, about.user)?))?;
    plan.add("/etc/nsswitch.conf", Entry::file(files::NSSWITCH))?;
    plan.add("/tmp", Entry::directory(0o1777))?;
    plan.add("/var/tmp", Entry::directory(0o1777))?;
    plan.add("/root", Entry::directory(0o700))?;
    let covered =
        |home: &Path| host.mounts.iter().map(Mount::target).any(|t| home.starts_with(t) || t.starts_with(home));
    if let Some(home) = home(about.user)?
        && !covered(home)
        && plan.get(home).is_none_or(|there| home == Path::new("/root") && matches!(there, Entry::Directory { .. }))
    {
        plan.add(home, Entry::Directory { mode: 0o700, owner: Owner::Person })?;
    }
    Ok(())
}

/// The home directory to make: none for those whose home is `/`, or lies in what is mounted over (`/dev/null` of system users).
fn home(user: &User) -> Result<Option<&Path>, SkeletonError> {
    let home = user.home.as_path();
    let makes_sense = home != Path::new("/") && !MOUNT_POINTS.iter().any(|point| home.starts_with(point));
    if makes_sense && super::plain(home).is_none() {
        return Err(SkeletonError::Path { path: home.to_owned() });
    }
    Ok(makes_sense.then_some(home))
}
