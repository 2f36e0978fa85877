//! Whether a program is in a cell's root, before anything is started.

use std::path::{Path, PathBuf};

use cellblock_bundle::{Cell, Mount, RootFs};

/// Whether `program` is surely not where the cell's `PATH` leads. What cannot be seen counts as there: the start itself will tell.
pub(crate) fn missing(program: &str, cell: &Cell, root: &RootFs) -> bool {
    if program.contains('/') {
        return false;
    }
    let path = cell.env.get("PATH").map_or("", String::as_str);
    let folders = path.split(':').filter(|folder| folder.starts_with('/'));
    !folders.map(|folder| Path::new(folder).join(program)).any(|place| maybe_there(&place, cell, root))
}

fn maybe_there(place: &Path, cell: &Cell, root: &RootFs) -> bool {
    let mounts = cell.mounts.iter().chain(&root.mounts).filter(|mount| place.starts_with(mount.target()));
    match mounts.max_by_key(|mount| mount.target().components().count()) {
        Some(Mount::Bind { source, target, .. }) => exists(&join(source, place.strip_prefix(target).unwrap_or(place))),
        Some(Mount::Layers { lowers, target }) => {
            let rest = place.strip_prefix(target).unwrap_or(place);
            lowers.iter().any(|lower| exists(&join(lower, rest)))
        }
        Some(Mount::Tmpfs { .. } | Mount::Mask { .. }) => false,
        None => {
            let place = place.strip_prefix("/").unwrap_or(place);
            std::iter::once(&root.upper)
                .chain(&root.lowers)
                .any(|layer| exists(&join(layer, place)) || linked(layer, place))
        }
    }
}

/// Whether a folder on the way is a link, as `/bin` in many images: where it leads is for the start to find out.
fn linked(layer: &Path, place: &Path) -> bool {
    let parents: Vec<&Path> = place.ancestors().skip(1).filter(|part| !part.as_os_str().is_empty()).collect();
    parents.iter().any(|part| {
        layer.join(part).symlink_metadata().is_ok_and(|found| found.is_symlink())
            // `/bin` to `usr/bin`, the usual one, is in the PATH itself.
            && !matches!(std::fs::read_link(layer.join(part)), Ok(to) if to == Path::new("usr").join(part))
    })
}

/// Whether something is there, or it cannot be told.
fn exists(path: &Path) -> bool {
    match path.symlink_metadata() {
        Ok(_) => true,
        Err(error) => !matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory),
    }
}

fn join(base: &Path, rest: &Path) -> PathBuf {
    if rest.as_os_str().is_empty() { base.to_owned() } else { base.join(rest) }
}
