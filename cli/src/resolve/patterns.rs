//! `mask:` and `--mask`: files and folders of the project that are covered inside, by pattern, such as `.env`.
//!
//! Patterns are gitignore's: one without a slash means a name at any depth, one with a slash a path from the project's root; `*` and `?` stay
//! within a name, `**` crosses folders. Only a person asks for them, because finding them takes a walk through the project at each start.

use std::io;
use std::path::{Path, PathBuf};

use super::asked::Asked;
use super::error::ResolveError;
use super::files::Item;
use super::origin::Origin;
use super::secret_paths::end_of;
use crate::args::values::MaskPattern;

/// Most entries of folders that are looked at. A walk takes about a second for a million, and is done at each start.
const MOST: usize = 500_000;

/// A pattern and who asked for it.
struct Wanted<'a> {
    pattern: &'a MaskPattern,
    origin: Origin,
}

/// What the patterns find in the project: where it is without links, whether it is a folder, and who asked.
pub(super) fn found(asked: Asked<'_>) -> Result<Vec<(PathBuf, bool, Origin)>, ResolveError> {
    let Some(project) = asked.project else { return Ok(Vec::new()) };
    let mut wanted: Vec<Wanted<'_>> = Vec::new();
    for (settings, origin) in asked.layers.sections() {
        wanted.extend(settings.mask.iter().map(|said| Wanted { pattern: &said.value, origin: origin(said.at) }));
    }
    wanted.extend(asked.flags.mask.iter().map(|pattern| Wanted { pattern, origin: Origin::Flag("--mask") }));
    let mut all = Vec::new();
    // Those that say where it is need no walk.
    wanted.retain(|one| {
        let exact = one.pattern.exact();
        all.extend(exact.iter().map(|path| (project.root.join(path), one.origin.clone())));
        exact.is_none()
    });
    if !wanted.is_empty() {
        walk(asked, &project.root, &wanted, &mut all)?;
    }
    let mut found = Vec::new();
    for (path, origin) in all {
        if let Some((canonical, directory)) = end_of(asked, &path)? {
            found.push((canonical, directory, origin));
        }
    }
    Ok(found)
}

/// Looks at everything below `root`, but for what git keeps for itself. Links are matched by their names, and not followed.
fn walk(
    asked: Asked<'_>,
    root: &Path,
    wanted: &[Wanted<'_>],
    all: &mut Vec<(PathBuf, Origin)>,
) -> Result<(), ResolveError> {
    let mut left = MOST;
    let mut folders = vec![PathBuf::new()];
    while let Some(folder) = folders.pop() {
        let items = match asked.files.items(&root.join(&folder)) {
            Ok(items) => items,
            // What is in it nobody knows, and the cell may open it: it is covered as a whole.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                all.extend(wanted.first().map(|one| (root.join(&folder), one.origin.clone())));
                continue;
            }
            // Gone.
            Err(_) => continue,
        };
        for Item { name, is_dir } in items {
            left = left.checked_sub(1).ok_or_else(|| ResolveError::MaskTooMany {
                origin: wanted.first().map_or(Origin::Default, |one| one.origin.clone()),
                root: root.to_owned(),
                most: MOST,
            })?;
            let path = folder.join(&name);
            if let Some(one) = wanted.iter().find(|one| one.pattern.matches(&path)) {
                all.push((root.join(&path), one.origin.clone()));
            } else if is_dir && name != ".git" {
                folders.push(path);
            }
        }
    }
    Ok(())
}
