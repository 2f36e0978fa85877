//! The cell's mounts: the workspace, what the configuration and the flags ask for, and empty folders for a read-only root.

use std::path::{Path, PathBuf};

use cellblock_bundle::cell::Mount;

use super::asked::Asked;
use super::error::ResolveError;
use super::files::Seen;
use super::origin::Origin;
use crate::agents::Found;
use crate::args::values::MountSpec;

/// A mount with what it is explained by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Placed {
    /// The mount.
    pub(super) mount: Mount,
    /// Where it was asked for.
    pub(super) origin: Origin,
}

/// File systems of the kernel's: libcontainer mounts them itself.
const KERNEL: &[&str] = &["/proc", "/sys", "/dev"];

/// Files that cellblock writes for each cell, and the folder they are in; hiding one breaks names, users or the resolver.
const GENERATED: &[&str] = &[
    "/etc",
    "/etc/group",
    "/etc/hostname",
    "/etc/hosts",
    "/etc/machine-id",
    "/etc/nsswitch.conf",
    "/etc/passwd",
    "/etc/resolv.conf",
];

/// What programs expect to be writable when the root is not; podman's `--read-only-tmpfs`, and its modes.
const SCRATCH: &[(&str, u32)] = &[("/run", 0o755), ("/tmp", 0o1777), ("/var/tmp", 0o1777)];

/// All mounts, those nearer to the root first, so that none hides another. `found` is the agent's program, where it lies on the host.
pub(super) fn mounts(
    asked: Asked<'_>,
    found: Option<&Found>,
    read_only: Option<&Origin>,
) -> Result<Vec<Placed>, ResolveError> {
    let mut placed = Vec::new();
    if let Some(project) = asked.project {
        let root = project.root.clone();
        let mount = Mount::Bind { source: root.clone(), target: root, writable: true };
        placed.push(Placed { mount, origin: Origin::Found });
    }
    if let (Some(found), Some(agent)) = (found, asked.layers.agent()) {
        let hidden = |path: &&PathBuf| !placed.iter().any(|other: &Placed| path.starts_with(other.mount.target()));
        let program: Vec<Placed> = (found.mounts.iter().filter(hidden))
            .map(|path| Placed {
                mount: Mount::Bind { source: path.clone(), target: path.clone(), writable: false },
                origin: Origin::Shipped { agent: agent.name.clone() },
            })
            .collect();
        placed.extend(program);
    }
    // Each layer may replace what a weaker one said about a target, but not contradict itself.
    for (settings, origin) in asked.layers.sections() {
        let layer = settings
            .mounts
            .iter()
            .map(|m| configured_mount(asked, &m.value, origin(m.at)))
            .collect::<Result<Vec<_>, _>>()?;
        add(&mut placed, layer)?;
    }
    let typed = asked.flags.volume.iter().map(|spec| typed_mount(asked, spec));
    let memory = asked.flags.tmpfs.iter().map(|spec| {
        let mount = Mount::Tmpfs { target: spec.target.clone(), size: spec.size, mode: spec.mode };
        Ok(Placed { mount, origin: Origin::Flag("--tmpfs") })
    });
    add(&mut placed, typed.chain(memory).collect::<Result<Vec<_>, _>>()?)?;
    if let Some(origin) = read_only {
        for (target, mode) in SCRATCH {
            if !placed.iter().any(|other| other.mount.target() == Path::new(target)) {
                let mount = Mount::Tmpfs { target: target.into(), size: None, mode: *mode };
                placed.push(Placed { mount, origin: origin.clone() });
            }
        }
    }
    placed.sort_by_key(|placed| placed.mount.target().components().count());
    for (index, inner) in placed.iter().enumerate() {
        has_place(asked, inner, &placed[..index])?;
    }
    Ok(placed)
}

fn add(placed: &mut Vec<Placed>, layer: Vec<Placed>) -> Result<(), ResolveError> {
    for (index, new) in layer.iter().enumerate() {
        let target = new.mount.target();
        check_target(target, &new.origin)?;
        let workspace = placed.iter().filter(|other| other.origin == Origin::Found);
        if let Some(first) = layer[..index].iter().chain(workspace).find(|other| other.mount.target() == target) {
            return Err(ResolveError::TwoMounts {
                origin: new.origin.clone(),
                target: target.to_owned(),
                first: Box::new(first.origin.clone()),
            });
        }
    }
    placed.retain(|old| !layer.iter().any(|new| new.mount.target() == old.mount.target()));
    placed.extend(layer);
    Ok(())
}

fn check_target(target: &Path, origin: &Origin) -> Result<(), ResolveError> {
    let why = if target == Path::new("/") {
        "it is the image's place"
    } else if KERNEL.iter().any(|kernel| target.starts_with(kernel)) {
        "the kernel's file systems are there"
    } else if GENERATED.iter().any(|file| target == Path::new(file)) {
        "cellblock writes it for each cell"
    } else {
        return Ok(());
    };
    Err(ResolveError::Target { origin: origin.clone(), target: target.to_owned(), why })
}

/// A mount of the configuration: `~` and variables are expanded, and what is relative is so to the project.
fn configured_mount(asked: Asked<'_>, spec: &MountSpec, origin: Origin) -> Result<Placed, ResolveError> {
    let path = asked.configured_path(&spec.source, &origin)?;
    if path.is_absolute() {
        return bind(asked, spec, &path, origin);
    }
    let Some(project) = asked.project else {
        return Err(ResolveError::NoProject { origin, text: path.display().to_string() });
    };
    let placed = bind(asked, spec, &project.root.join(&path), origin.clone())?;
    // What is in a project is the project's to say, not where a link from there leads.
    match &placed.mount {
        Mount::Bind { source, .. } if !source.starts_with(&project.root) => {
            Err(ResolveError::LeadsOut { origin, text: path.display().to_string(), path: source.clone() })
        }
        _ => Ok(placed),
    }
}

/// A mount of the command line: relative to the working directory.
fn typed_mount(asked: Asked<'_>, spec: &MountSpec) -> Result<Placed, ResolveError> {
    let origin = Origin::Flag("--volume");
    let path = asked.typed_path(&spec.source, &origin)?;
    bind(asked, spec, &asked.host.cwd.join(path), origin)
}

fn bind(asked: Asked<'_>, spec: &MountSpec, path: &Path, origin: Origin) -> Result<Placed, ResolveError> {
    let Seen { canonical: source, .. } = asked.files.look(path).map_err(|source| ResolveError::Source {
        origin: origin.clone(),
        path: path.to_owned(),
        source,
    })?;
    if source.to_str().is_none() {
        return Err(ResolveError::NotUtf8 { origin, path: source });
    }
    let overlaps = |own: &&PathBuf| own.starts_with(&source) || source.starts_with(own);
    let own = if spec.writable { asked.host.own.as_slice() } else { &[] };
    let runtime = Some(&asked.host.runtime).filter(|path| !path.as_os_str().is_empty());
    // A cell's workspace may lie in a folder with cellblock's data only when forced; the same is not offered for mounts.
    if let Some(own) = runtime.into_iter().chain(own).find(overlaps) {
        return Err(ResolveError::OwnFiles { origin, path: source.clone(), own: own.clone() });
    }
    let target = match &spec.target {
        Some(target) => target.clone(),
        // As it is called, unless that goes up and down.
        None if path.components().any(|part| part == std::path::Component::ParentDir) => source.clone(),
        None => path.components().collect(),
    };
    Ok(Placed { mount: Mount::Bind { source, target, writable: spec.writable }, origin })
}

/// A mount point inside a mounted folder of the host must be there already: making it would leave something on the host. And it
/// must not be reached through a link, which the cell could turn elsewhere between two starts.
fn has_place(asked: Asked<'_>, inner: &Placed, outer: &[Placed]) -> Result<(), ResolveError> {
    let target = inner.mount.target();
    let nearest = outer.iter().rev().find(|other| target.starts_with(other.mount.target()));
    let Some(Placed { mount: Mount::Bind { source, target: within, .. }, .. }) = nearest else {
        return Ok(());
    };
    let Ok(rest) = target.strip_prefix(within) else { return Ok(()) };
    let place = source.join(rest);
    let is_dir = match &inner.mount {
        Mount::Bind { source, .. } => asked.files.look(source).is_ok_and(|seen| seen.is_dir),
        Mount::Tmpfs { .. } => true,
        Mount::Mask { directory, .. } => *directory,
    };
    match asked.files.look(&place) {
        Ok(seen) if seen.canonical == place && seen.is_dir == is_dir => Ok(()),
        _ => Err(ResolveError::NoPlace {
            origin: inner.origin.clone(),
            target: target.to_owned(),
            within: within.as_path().into(),
            place,
        }),
    }
}
