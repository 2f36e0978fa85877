//! The cell's mounts: the workspace, what the configuration and the flags ask for, and empty folders for a read-only root.

use std::io;
use std::path::{Path, PathBuf};

use cellblock_bundle::cell::Mount;

use super::asked::Asked;
use super::error::ResolveError;
use super::files::{Files, Seen};
use super::origin::Origin;
use super::state::at_home;
use super::steady::Steady;
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

/// What is mounted beside what is said to be.
#[derive(Debug)]
pub(super) struct Wanted<'a> {
    /// The agent's program, where it lies on the host.
    pub(super) found: Option<&'a Found>,
    /// The home, if that is a folder of the host.
    pub(super) home: Option<Placed>,
}

/// All mounts, those nearer to the root first, so that none hides another, and what the person should be told.
pub(super) fn mounts(
    asked: Asked<'_>,
    wanted: Wanted<'_>,
    read_only: Option<&Origin>,
) -> Result<(Vec<Placed>, Vec<String>), ResolveError> {
    let (mut placed, mut notes) = (Vec::new(), Vec::new());
    if let Some(project) = asked.project {
        let mount = Mount::Bind { source: project.root.clone(), target: project.at().to_owned(), writable: true };
        placed.push(Placed { mount, origin: Origin::Found });
    }
    add(&mut placed, wanted.home.into_iter().collect())?;
    if let (Some(found), Some(agent)) = (wanted.found, asked.layers.agent()) {
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
        let mounted = settings.mounts.iter().map(|m| configured_mount(asked, &m.value, origin(m.at)));
        let mut layer = mounted.collect::<Result<Vec<_>, _>>()?;
        for one in &settings.share {
            let spec = shared_spec(&one.value);
            layer.extend(shared(asked, configured_mount(asked, &spec, origin(one.at)), &mut notes)?);
        }
        add(&mut placed, layer)?;
    }
    let typed = asked.flags.volume.iter().map(|spec| typed_mount(asked, spec, "--volume"));
    let memory = asked.flags.tmpfs.iter().map(|spec| {
        let mount = Mount::Tmpfs { target: spec.target.clone(), size: spec.size, mode: spec.mode };
        Ok(Placed { mount, origin: Origin::Flag("--tmpfs") })
    });
    let mut layer = typed.chain(memory).collect::<Result<Vec<_>, _>>()?;
    for one in &asked.flags.share {
        layer.extend(shared(asked, typed_mount(asked, &shared_spec(one), "--share"), &mut notes)?);
    }
    add(&mut placed, layer)?;
    if let Some(origin) = read_only {
        for (target, mode) in SCRATCH {
            if !placed.iter().any(|other| other.mount.target() == Path::new(target)) {
                let mount = Mount::Tmpfs { target: target.into(), size: None, mode: *mode };
                placed.push(Placed { mount, origin: origin.clone() });
            }
        }
    }
    placed.sort_by_key(|placed| placed.mount.target().components().count());
    check_places(asked.files, &placed)?;
    Ok((placed, notes))
}

/// A mount point inside a mounted folder of the host must be there already: making it would leave something on the host. `placed` is in order.
pub(super) fn check_places(files: &dyn Files, placed: &[Placed]) -> Result<(), ResolveError> {
    placed.iter().enumerate().try_for_each(|(index, inner)| has_place(files, inner, &placed[..index]))
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

pub(super) fn check_target(target: &Path, origin: &Origin) -> Result<(), ResolveError> {
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
    bind(asked, spec, &project.root.join(&path), origin)
}

fn shared_spec(text: &str) -> MountSpec {
    MountSpec { source: text.to_owned(), target: None, writable: true }
}

/// Something of the host that the cell shares at its own path. Nothing, with a note, if it is not there; and nothing if it is the agent's own folder,
/// which is laid with the login in it.
fn shared(
    asked: Asked<'_>,
    found: Result<Placed, ResolveError>,
    notes: &mut Vec<String>,
) -> Result<Option<Placed>, ResolveError> {
    match found {
        Ok(placed) if is_agents(asked, placed.mount.target()) => Ok(None),
        Ok(placed) => Ok(Some(placed)),
        Err(ResolveError::Source { origin, path, source }) if source.kind() == io::ErrorKind::NotFound => {
            if !is_agents(asked, &path) {
                let path = path.display();
                notes.push(format!("{origin}: {path} is to be shared and is not there: the cell does without"));
            }
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// Whether the host's `path` is a folder of the agent whose cell it is.
fn is_agents(asked: Asked<'_>, path: &Path) -> bool {
    let agent = asked.layers.agent().filter(|_| asked.flags.entrypoint.is_none());
    let mut folders = agent.iter().flat_map(|agent| &agent.spec.state).filter(|one| !one.file);
    folders.any(|one| at_home(&one.path.value, &asked.host.home) == path)
}

/// A mount of the command line: relative to the working directory.
fn typed_mount(asked: Asked<'_>, spec: &MountSpec, flag: &'static str) -> Result<Placed, ResolveError> {
    let origin = Origin::Flag(flag);
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
    Steady { files: asked.files, host: asked.host, project: asked.project }.check(path, &source, &origin)?;
    let overlaps = |own: &&PathBuf| own.starts_with(&source) || source.starts_with(own);
    let own = if spec.writable { asked.host.own.as_slice() } else { &[] };
    let runtime = Some(&asked.host.runtime).filter(|path| !path.as_os_str().is_empty());
    let readable = !runtime.is_some_and(|own| overlaps(&own));
    // A cell's workspace may lie in a folder with cellblock's data only when forced; the same is not offered for mounts.
    if let Some(own) = runtime.into_iter().chain(own).find(overlaps) {
        return Err(ResolveError::OwnFiles { origin, path: source.clone(), own: own.clone(), readable });
    }
    let target = match &spec.target {
        Some(target) => target.clone(),
        // As it is called, unless that goes up and down.
        None if path.components().any(|part| part == std::path::Component::ParentDir) => source.clone(),
        None => path.components().collect(),
    };
    Ok(Placed { mount: Mount::Bind { source, target, writable: spec.writable }, origin })
}

/// The place must not be reached through a link, which the cell could turn elsewhere between two starts.
fn has_place(files: &dyn Files, inner: &Placed, outer: &[Placed]) -> Result<(), ResolveError> {
    let target = inner.mount.target();
    let nearest = outer.iter().rev().find(|other| target.starts_with(other.mount.target()));
    let Some(Placed { mount: Mount::Bind { source, target: within, .. }, .. }) = nearest else {
        return Ok(());
    };
    let Ok(rest) = target.strip_prefix(within) else { return Ok(()) };
    let place = source.join(rest);
    let is_dir = match &inner.mount {
        Mount::Bind { source, .. } => files.look(source).is_ok_and(|seen| seen.is_dir),
        Mount::Tmpfs { .. } | Mount::Layers { .. } => true,
        Mount::Mask { directory, .. } => *directory,
    };
    match files.look(&place) {
        Ok(seen) if seen.canonical == place && seen.is_dir == is_dir => Ok(()),
        _ => Err(ResolveError::NoPlace {
            origin: inner.origin.clone(),
            target: target.to_owned(),
            within: within.as_path().into(),
            place,
        }),
    }
}
