//! `Cell` + root file system → OCI runtime specification. Pure.
//!
//! There are two forms of one specification. The **portable** form ([`spec`]) is standard and complete: crun, runc, youki and
//! podman run it. The **run** form ([`run_form`]) is derived from it mechanically, for our own supervisor, which makes the user
//! and network namespaces itself, mounts everything itself, loads the seccomp filter itself and joins cgroups itself (docs/architecture.md says why).
//!
//! Every field is written out. The defaults of `oci-spec` are not used: they share the host's network, have no seccomp, or
//! fill in paths of their own.

use std::path::Path;

use oci_spec::runtime::{LinuxNamespaceType, Spec};
use serde_json::{Value, json};

use crate::cell::{Cell, Extent, Mount, Network, Overlay, Profile, RootFs};
use crate::{policy, seccomp};

/// Why a specification cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum SpecError {
    /// A path that has to stand in the specification, which is JSON, is not UTF-8.
    #[error("the path {0:?} is not UTF-8, which an OCI bundle cannot express")]
    NotUtf8(std::path::PathBuf),
    /// A directory that becomes an overlayfs option holds a character with a meaning there.
    #[error("the path {0:?} holds one of `:` `,` `\\`, which overlayfs options cannot carry")]
    OverlayPath(std::path::PathBuf),
    /// `fsconfig(2)` takes values of at most 255 bytes, and these two options cannot be split.
    #[error("the path {path:?} has {length} bytes; an overlay's directories may have at most {}", MAX_OPTION)]
    PathTooLong {
        /// Which.
        path: std::path::PathBuf,
        /// Its length in bytes.
        length: usize,
    },
    /// The cell has no command.
    #[error("the cell has no command")]
    NoCommand,
    /// The finished document is not what `oci-spec` takes for a specification: a defect of ours.
    #[error("the generated specification is not valid")]
    Invalid(#[from] serde_json::Error),
}

/// Longest value of a mount option: `fsconfig(2)` copies at most 256 bytes with the NUL (Linux, all versions).
pub const MAX_OPTION: usize = 255;

/// The portable specification of `cell` over `root`.
///
/// # Errors
/// See [`SpecError`].
pub fn spec(cell: &Cell, root: &RootFs) -> Result<Spec, SpecError> {
    let overlay = Overlay {
        target: "/".into(),
        lowers: root.lowers.clone(),
        volatile: root.volatile,
        upper: root.upper.clone(),
        work: root.work.clone(),
    };
    with_filter(cell, document(cell, mounts(cell, &[overlay], &root.mounts)?)?)
}

/// The portable specification of `cell` over the plain folder `rootfs` of the bundle, with `overlays` below `/` and then `image_mounts`:
/// for runtimes that cannot mount an overlay at `/` itself (crun before 1.22).
///
/// # Errors
/// See [`SpecError`].
pub fn spec_over_folder(cell: &Cell, overlays: &[Overlay], image_mounts: &[Mount]) -> Result<Spec, SpecError> {
    with_filter(cell, document(cell, mounts(cell, overlays, image_mounts)?)?)
}

fn with_filter(cell: &Cell, mut document: Value) -> Result<Spec, SpecError> {
    document["linux"]["seccomp"] = serde_json::to_value(seccomp::to_oci(cell.profile.into())?)?;
    Ok(serde_json::from_value(document)?)
}

/// The specification in the form our own supervisor needs: [`run_form`] of [`spec`], without the detour over the filter's 14 kB
/// and over a root that may be one which no bundle can express.
///
/// # Errors
/// See [`SpecError`].
pub fn run_spec(cell: &Cell, cgroups_path: &Path) -> Result<Spec, SpecError> {
    Ok(run_form(&serde_json::from_value(document(cell, Vec::new())?)?, cgroups_path))
}

/// Whether a mount on `target` is one that only the cell's first process can make, being in the cell's other namespaces, or comes on top
/// of one: proc belongs to a PID namespace, mqueue to an IPC namespace.
#[must_use]
pub fn mounted_late(target: &Path) -> bool {
    ["/proc", "/dev/mqueue"].iter().any(|tree| target.starts_with(tree))
}

/// The kernel's file systems, in order.
///
/// # Errors
/// [`SpecError::Invalid`]: a defect of ours.
pub fn kernel_mounts(cell: &Cell) -> Result<Vec<oci_spec::runtime::Mount>, SpecError> {
    Ok(serde_json::from_value(Value::Array(kernel_values(cell)))?)
}

/// Everything but the filter.
fn document(cell: &Cell, mounts: Vec<Value>) -> Result<Value, SpecError> {
    if cell.command.is_empty() {
        return Err(SpecError::NoCommand);
    }
    Ok(json!({
        "ociVersion": "1.0.2",
        "hostname": cell.hostname,
        "annotations": cell.labels,
        "root": { "path": "rootfs", "readonly": cell.read_only },
        "process": process(cell)?,
        "mounts": mounts,
        "linux": linux(cell),
    }))
}

/// The specification as our own supervisor feeds it to libcontainer: what the supervisor does itself is left out.
///
/// `cgroups_path` is absolute: an empty one means *our own* cgroup to libcontainer, which it would empty by `SIGKILL` at the end.
#[must_use]
pub fn run_form(portable: &Spec, cgroups_path: &Path) -> Spec {
    let mut spec = portable.clone();
    // All of it is mounted by our own supervisor, and by our own code in the cell's first process.
    spec.set_mounts(None);
    if let Some(linux) = spec.linux_mut() {
        let ours = [LinuxNamespaceType::User, LinuxNamespaceType::Network];
        let kept = linux.namespaces().iter().flatten().filter(|n| !ours.contains(&n.typ())).cloned().collect();
        linux
            .set_namespaces(Some(kept))
            .set_uid_mappings(None)
            .set_gid_mappings(None)
            .set_seccomp(None)
            .set_resources(None)
            .set_masked_paths(None)
            .set_readonly_paths(None)
            .set_cgroups_path(Some(cgroups_path.to_owned()));
    }
    spec
}

fn process(cell: &Cell) -> Result<Value, SpecError> {
    let capabilities = policy::capabilities(cell.profile, cell.user.uid);
    let env: Vec<String> = cell.env.iter().map(|(name, value)| format!("{name}={value}")).collect();
    Ok(json!({
        "terminal": cell.terminal,
        "user": { "uid": cell.user.uid, "gid": cell.user.gid, "additionalGids": cell.user.groups, "umask": 0o022 },
        "args": cell.command,
        "env": env,
        "cwd": text(&cell.workdir)?,
        // Explicit even when empty: libcontainer takes a missing set for "drop nothing" or "drop all" depending on its version.
        "capabilities": {
            "bounding": capabilities, "permitted": capabilities, "effective": capabilities,
            "inheritable": [], "ambient": [],
        },
        // Never `false`: with a filter libcontainer then loads it after the capabilities are gone, and fails.
        "noNewPrivileges": true,
    }))
}

fn linux(cell: &Cell) -> Value {
    let mut namespaces = vec!["user", "pid", "ipc", "uts", "mount", "cgroup"];
    if cell.network != Network::Host {
        namespaces.push("network");
    }
    let mut linux = json!({
        "namespaces": namespaces.iter().map(|t| json!({ "type": t })).collect::<Vec<_>>(),
        "uidMappings": mappings(&cell.ids.uids),
        "gidMappings": mappings(&cell.ids.gids),
        "maskedPaths": policy::MASKED_PATHS.iter().map(|r| r.what).collect::<Vec<_>>(),
        "readonlyPaths": policy::READONLY_PATHS.iter().map(|r| r.what).collect::<Vec<_>>(),
    });
    if cell.limits.any() {
        linux["resources"] = resources(cell);
    }
    linux
}

impl From<Profile> for seccomp::Profile {
    fn from(profile: Profile) -> Self {
        match profile {
            Profile::Default => Self::Default,
            Profile::Strict => Self::Strict,
        }
    }
}

fn resources(cell: &Cell) -> Value {
    let limits = &cell.limits;
    let mut resources = json!({});
    if let Some(bytes) = limits.memory {
        resources["memory"] = json!({ "limit": bytes, "swap": bytes });
    }
    if let Some(thousandths) = limits.cpus {
        resources["cpu"] = json!({ "period": 100_000, "quota": thousandths * 100 });
    }
    if let Some(count) = limits.pids {
        resources["pids"] = json!({ "limit": count });
    }
    resources
}

fn mappings(extents: &[Extent]) -> Vec<Value> {
    extents.iter().map(|e| json!({ "containerID": e.inside, "hostID": e.outside, "size": e.size })).collect()
}

/// All mounts in order: the root first, then the image's own, then the kernel's file systems, then what the person asked for.
fn mounts(cell: &Cell, overlays: &[Overlay], image_mounts: &[Mount]) -> Result<Vec<Value>, SpecError> {
    let mut mounts = overlays.iter().map(overlay).collect::<Result<Vec<_>, _>>()?;
    for mount in image_mounts {
        mounts.push(requested(mount)?);
    }
    mounts.extend(kernel_values(cell));
    for mount in &cell.mounts {
        mounts.push(requested(mount)?);
    }
    Ok(mounts)
}

/// One overlay. At `/` it is the root file system: runc and libcontainer take that, crun from 1.22 on.
fn overlay(root: &Overlay) -> Result<Value, SpecError> {
    let mut options = lower_options(&root.lowers)?;
    for (option, path) in [("upperdir", &root.upper), ("workdir", &root.work)] {
        let path = overlay_text(path)?;
        if path.len() > MAX_OPTION {
            return Err(SpecError::PathTooLong { path: path.into(), length: path.len() });
        }
        options.push(format!("{option}={path}"));
    }
    // Without it overlayfs keeps its marks in trusted.* attributes, which nobody can write in the cell's user namespace, under real
    // root neither (Linux 5.11).
    options.push("userxattr".into());
    if root.volatile {
        // At the end of every other overlay the kernel syncs the whole file system that holds the upper directory, whatever anybody
        // has written there: tens of milliseconds on a busy disk (Linux 5.10, overlayfs.rst "Volatile mount").
        options.push("volatile".into());
    }
    Ok(json!({ "destination": text(&root.target)?, "type": "overlay", "source": "overlay", "options": options }))
}

/// One `lowerdir=a:b` where it fits, which every kernel knows; else a `lowerdir+=` a layer (Linux 6.7).
fn lower_options(lowers: &[std::path::PathBuf]) -> Result<Vec<String>, SpecError> {
    let paths = lowers.iter().map(|p| overlay_text(p)).collect::<Result<Vec<_>, _>>()?;
    let joined = paths.join(":");
    if joined.len() <= MAX_OPTION {
        return Ok(vec![format!("lowerdir={joined}")]);
    }
    if let Some(path) = paths.iter().find(|p| p.len() > MAX_OPTION) {
        return Err(SpecError::PathTooLong { path: path.into(), length: path.len() });
    }
    Ok(paths.iter().map(|p| format!("lowerdir+={p}")).collect())
}

fn kernel_values(cell: &Cell) -> Vec<Value> {
    let mut pts = vec!["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"];
    if cell.ids.host_gid(5).is_some() {
        // Group `tty`, which exists inside only if gid 5 is mapped.
        pts.push("gid=5");
    }
    let sys = match cell.network {
        Network::None | Network::Names | Network::Bridge => {
            json!({ "type": "sysfs", "source": "sysfs", "options": ["nosuid", "noexec", "nodev", "ro"] })
        }
        // sysfs belongs to a network namespace and can only be mounted by its owner; `rro` covers the mounts below it too.
        Network::Host => {
            json!({ "type": "none", "source": "/sys", "options": ["rbind", "nosuid", "noexec", "nodev", "rro"] })
        }
    };
    let mut mounts = vec![
        json!({ "destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "noexec", "nodev"] }),
        // Always fresh: device nodes and links are made in it, and an image's own must never decide where they go.
        json!({ "destination": "/dev", "type": "tmpfs", "source": "tmpfs",
                "options": ["nosuid", "noexec", "strictatime", "mode=755", "size=64k"] }),
        json!({ "destination": "/dev/pts", "type": "devpts", "source": "devpts", "options": pts }),
        json!({ "destination": "/dev/shm", "type": "tmpfs", "source": "shm",
                "options": ["nosuid", "noexec", "nodev", "mode=1777"] }),
        json!({ "destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue", "options": ["nosuid", "noexec", "nodev"] }),
    ];
    let mut sys = sys;
    sys["destination"] = json!("/sys");
    mounts.push(sys);
    mounts
}

fn requested(mount: &Mount) -> Result<Value, SpecError> {
    Ok(match mount {
        Mount::Bind { source, target, writable } => {
            // `rbind`, because a plain bind of a directory with mounts below it is refused in a user namespace: it would uncover
            // what they cover. `rro` makes those below read-only as well, where `ro` stops at the top.
            let access = if *writable { "rw" } else { "rro" };
            json!({ "destination": text(target)?, "type": "bind", "source": text(source)?,
                    "options": ["rbind", "nosuid", "nodev", access] })
        }
        Mount::Tmpfs { target, size, mode } => {
            let mut options = vec!["nosuid".to_owned(), "nodev".to_owned(), format!("mode={mode:o}")];
            options.extend(size.map(|bytes| format!("size={bytes}")));
            json!({ "destination": text(target)?, "type": "tmpfs", "source": "tmpfs", "options": options })
        }
        Mount::Layers { lowers, target } => {
            let mut options = lower_options(lowers)?;
            options.extend(["userxattr", "nosuid", "nodev", "ro"].map(str::to_owned));
            json!({ "destination": text(target)?, "type": "overlay", "source": "overlay", "options": options })
        }
        Mount::Mask { target, directory: true } => {
            json!({ "destination": text(target)?, "type": "tmpfs", "source": "tmpfs",
                    "options": ["nosuid", "nodev", "noexec", "ro", "mode=555", "size=4k"] })
        }
        // What every runtime masks files with. Without `nodev`, under which it could not be read.
        Mount::Mask { target, directory: false } => {
            json!({ "destination": text(target)?, "type": "bind", "source": "/dev/null",
                    "options": ["bind", "nosuid", "noexec", "ro"] })
        }
    })
}

fn text(path: &Path) -> Result<&str, SpecError> {
    path.to_str().ok_or_else(|| SpecError::NotUtf8(path.to_owned()))
}

fn overlay_text(path: &Path) -> Result<&str, SpecError> {
    let path = text(path)?;
    if path.contains([':', ',', '\\']) { Err(SpecError::OverlayPath(path.into())) } else { Ok(path) }
}
