//! Secrets stay out: whatever of the list of secret paths a mount would bring along is covered inside.
//!
//! The list is data (`cli/data/secret-paths.yaml`), and people add to it and except from it. Only what exists is covered, where its links end,
//! at each place inside where it would be seen; nothing is made on the host. A mount of such a path itself, or of something in it, is what somebody
//! asked for: it stays, and is told.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use cellblock_bundle::cell::Mount;

use super::asked::Asked;
use super::error::ResolveError;
use super::mounts::Placed;
use super::origin::Origin;
use super::patterns;
use super::presence::{Presence, within};
use crate::config::{Row, rows};

/// The list.
const LIST: &str = include_str!("../../data/secret-paths.yaml");

/// Folders that XDG's variables move.
const XDG: &[(&str, &str)] =
    &[(".config", "XDG_CONFIG_HOME"), (".local/share", "XDG_DATA_HOME"), (".local/state", "XDG_STATE_HOME")];

/// Folders of the home directory, the innermost first, with so much of the list in them that they are read (`WORTH` of it).
const FOLDERS: &[&str] = &[".local/share", ".config", ""];

/// The same of the root directory.
const ROOT_FOLDERS: &[&str] = &["etc"];

/// Something that is to be covered, as an absolute path of the host.
#[derive(Clone, Debug)]
struct Secret {
    path: PathBuf,
    why: &'static str,
}

/// Covers what `placed` would show of secrets, and gives what the person should be told. Comes after everything else that mounts.
pub(super) fn cover(asked: Asked<'_>, placed: &mut Vec<Placed>) -> Result<Vec<String>, ResolveError> {
    let mut notes = Vec::new();
    if !placed.iter().any(|placed| matches!(placed.mount, Mount::Bind { .. })) {
        return Ok(notes);
    }
    let excepted = exceptions(asked)?;
    let mut masks: Vec<Placed> = Vec::new();
    for secret in &listed(asked, true)? {
        let Some((canonical, directory)) = end_of(asked, &secret.path)? else { continue };
        if excepted.contains(&secret.path) || excepted.contains(&canonical) {
            continue;
        }
        for bind in placed.iter() {
            // Nothing can be covered in a mount that is closed itself.
            if directory && shows(bind, &canonical) && closed(asked, &secret.path).as_ref() == Some(&canonical) {
                let source = io::ErrorKind::PermissionDenied.into();
                return Err(ResolveError::Source { origin: bind.origin.clone(), path: secret.path.clone(), source });
            }
            check(asked, bind, &canonical, secret, &mut notes)?;
        }
        let origin = Origin::Written(format!("secret: {}", secret.why));
        masks.extend(over(placed, &canonical, directory, &origin)?);
    }
    let listed = masks.clone();
    for (path, directory, origin) in patterns::found(asked)? {
        masks.extend(over(placed, &path, directory, &origin)?);
    }
    masks.sort_by_key(|mask| mask.mount.target().components().count());
    for mask in masks {
        let hidden = |placed: &Placed| match &placed.mount {
            Mount::Mask { target, directory } => {
                mask.mount.target() == target || (*directory && mask.mount.target().starts_with(target))
            }
            other => !is_fence(placed) && other.target() == mask.mount.target(),
        };
        if !placed.iter().any(hidden) {
            placed.push(mask);
        }
    }
    // Only now: what is covered is not to be seen by another way.
    let pins = pins(placed, &listed);
    placed.extend(pins);
    placed.sort_by_key(|placed| placed.mount.target().components().count());
    notes.dedup();
    Ok(notes)
}

/// Mounts of the folders above `masks` onto themselves, as far as the cell may write them: what is mounted cannot be renamed. From a folder with another name
/// the next cell would read what is in it, for the list says where secrets are. (Patterns are looked for anew at each start.)
fn pins(placed: &[Placed], masks: &[Placed]) -> Vec<Placed> {
    let mut pins: Vec<Placed> = Vec::new();
    for mask in masks {
        for above in mask.mount.target().ancestors().skip(1) {
            let outer = placed
                .iter()
                .filter(|other| above.starts_with(other.mount.target()))
                .max_by_key(|other| other.mount.target().components().count());
            let Some(Mount::Bind { source, target, writable: true }) = outer.map(|outer| &outer.mount) else {
                continue;
            };
            let Ok(rest) = above.strip_prefix(target) else { continue };
            if rest.as_os_str().is_empty() || pins.iter().any(|pin| pin.mount.target() == above) {
                continue;
            }
            let mount = Mount::Bind { source: source.join(rest), target: above.to_owned(), writable: true };
            pins.push(Placed { mount, origin: mask.origin.clone() });
        }
    }
    pins
}

/// Masks over each place inside at which the host's `path` would be seen.
fn over(placed: &[Placed], path: &Path, directory: bool, origin: &Origin) -> Result<Vec<Placed>, ResolveError> {
    let mut masks = Vec::new();
    for (index, outer) in placed.iter().enumerate() {
        let Mount::Bind { source, target: within, .. } = &outer.mount else { continue };
        let Ok(rest) = path.strip_prefix(source) else { continue };
        // Itself, which somebody has asked for; or which is only there to be kept from being changed.
        let itself = rest.as_os_str().is_empty();
        if itself && !is_fence(outer) {
            continue;
        }
        let target = if itself { within.clone() } else { within.join(rest) };
        // Behind another mount it is not seen, and what is there is something else.
        let nearest = placed
            .iter()
            .enumerate()
            .filter(|(_, other)| target.starts_with(other.mount.target()))
            .max_by_key(|(at, other)| (other.mount.target().components().count(), *at));
        if nearest.is_none_or(|(at, _)| at != index) {
            continue;
        }
        if target.to_str().is_none() {
            return Err(ResolveError::NotUtf8 { origin: origin.clone(), path: path.to_owned() });
        }
        masks.push(Placed { mount: Mount::Mask { target, directory }, origin: origin.clone() });
    }
    Ok(masks)
}

/// Whether it is a mount of what is there anyway, that keeps the cell from changing it: nobody has asked to see that.
fn is_fence(placed: &Placed) -> bool {
    matches!(placed.origin, Origin::Written(_)) && matches!(placed.mount, Mount::Bind { .. })
}

/// Where `path` ends when its links are followed, and whether that is a folder; `None` if there is nothing that a cell could see.
pub(super) fn end_of(asked: Asked<'_>, path: &Path) -> Result<Option<(PathBuf, bool)>, ResolveError> {
    match asked.files.look(path) {
        Ok(seen) => Ok(Some((seen.canonical, seen.is_dir))),
        Err(error) => match error.kind() {
            // Nothing, and links that lead nowhere.
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Ok(None),
            io::ErrorKind::PermissionDenied => Ok(closed(asked, path).map(|folder| (folder, true))),
            _ if error.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error()) => Ok(None),
            _ => Err(ResolveError::Source {
                origin: Origin::Written("the list of secret paths".to_owned()),
                path: path.to_owned(),
                source: error,
            }),
        },
    }
}

/// The folder on the way to `path` that nobody may enter, to be covered itself: one that belongs to the person is opened again by the cell, and closed by
/// an earlier one perhaps.
fn closed(asked: Asked<'_>, path: &Path) -> Option<PathBuf> {
    let seen = path.ancestors().skip(1).find_map(|above| asked.files.look(above).ok())?;
    (seen.is_dir && !asked.files.executable(&seen.canonical)).then_some(seen.canonical)
}

/// Whether it is a mount of `path`, or of something in it.
fn shows(bind: &Placed, path: &Path) -> bool {
    matches!(&bind.mount, Mount::Bind { source, .. } if source.starts_with(path))
}

/// A mount of a secret path itself: a project must be insisted on, anything else was asked for by name.
fn check(
    asked: Asked<'_>,
    bind: &Placed,
    path: &Path,
    secret: &Secret,
    notes: &mut Vec<String>,
) -> Result<(), ResolveError> {
    let Mount::Bind { source, .. } = &bind.mount else { return Ok(()) };
    if !shows(bind, path) {
        return Ok(());
    }
    let listed = secret.path.display();
    match &bind.origin {
        Origin::Found if !asked.flags.force_project => Err(ResolveError::SecretProject {
            project: source.clone(),
            path: secret.path.clone(),
            why: secret.why.to_owned(),
        }),
        Origin::Found | Origin::Config { .. } | Origin::Section { .. } | Origin::Flag(_) => {
            notes.push(format!(
                "{}: {} is mounted as asked, though {listed} is secret ({})",
                bind.origin,
                source.display(),
                secret.why
            ));
            Ok(())
        }
        // The agent's own, which has words of its own.
        _ => Ok(()),
    }
}

/// Everything that is on the list here: built in, cellblock's own folders, and what people add. Of what is only `there`, no path is made of the rest,
/// which is most of it.
fn listed(asked: Asked<'_>, there: bool) -> Result<Vec<Secret>, ResolveError> {
    let mut all = Vec::new();
    let homes: BTreeSet<&Path> = asked.host.homes.iter().chain([&asked.host.home]).map(PathBuf::as_path).collect();
    let below = |top: &Path, folders| Presence::below(asked.files, top.to_owned(), folders);
    let mut places: Vec<(&str, Presence<'_>)> = homes.iter().map(|home| ("", below(home, FOLDERS))).collect();
    places.extend(
        moved(asked).map(|(folder, base)| (folder, below(base, if FOLDERS.contains(&folder) { &[""] } else { &[] }))),
    );
    let mut root = below(Path::new("/"), ROOT_FOLDERS);
    let is_there = |path: &PathBuf| !there || asked.files.is_there(path);
    for Row { section, key, why } in rows(LIST) {
        match section {
            "home" => {
                for (folder, presence) in &mut places {
                    if let Some(key) = within(folder, key).filter(|key| !there || presence.has(key)) {
                        all.push(Secret { path: presence.path(key), why });
                    }
                }
            }
            "absolute" => {
                if !there || root.has(key.trim_start_matches('/')) {
                    all.push(Secret { path: key.into(), why });
                }
            }
            _ => {
                let value = asked.host.env.get(key).map_or("", String::as_str);
                // Kerberos has a word before its path.
                let parts = value.split(':').filter(|part| part.starts_with('/') && part.len() > 1);
                // A folder of everything is not meant, whatever the variable says.
                let narrow = |path: &PathBuf| !homes.iter().any(|home| home.starts_with(path));
                let paths = parts.map(PathBuf::from).filter(narrow).filter(is_there);
                all.extend(paths.map(|path| Secret { path, why }));
            }
        }
    }
    let own = asked.host.own.iter().filter(|path| is_there(path));
    all.extend(own.map(|path| Secret { path: path.clone(), why: "cellblock's own files" }));
    for (settings, origin) in asked.layers.sections() {
        for said in &settings.secret_paths {
            let path = expanded(asked, &said.value, &origin(said.at))?;
            if is_there(&path) {
                all.push(Secret { path, why: "on your own list" });
            }
        }
    }
    Ok(all)
}

/// The paths of all that is on the list and is not to stay visible.
pub(super) fn all(asked: Asked<'_>) -> Result<Vec<PathBuf>, ResolveError> {
    let excepted = exceptions(asked)?;
    Ok(listed(asked, false)?.into_iter().map(|secret| secret.path).filter(|path| !excepted.contains(path)).collect())
}

/// Where XDG's variables say that folders of the home directory are.
fn moved(asked: Asked<'_>) -> impl Iterator<Item = (&'static str, &Path)> {
    XDG.iter().filter_map(move |(folder, variable)| {
        let base = asked.host.env.get(*variable).map(Path::new).filter(|path| path.is_absolute())?;
        (base != asked.host.home.join(folder)).then_some((*folder, base))
    })
}

/// What is to stay visible, as written and where that ends.
fn exceptions(asked: Asked<'_>) -> Result<BTreeSet<PathBuf>, ResolveError> {
    let mut all = BTreeSet::new();
    for (settings, origin) in asked.layers.sections() {
        for said in &settings.secret_paths_except {
            all.insert(expanded(asked, &said.value, &origin(said.at))?);
        }
    }
    for text in &asked.flags.secret_path_except {
        let origin = Origin::Flag("--secret-path-except");
        all.insert(asked.host.cwd.join(asked.typed_path(text, &origin)?));
    }
    let ends: Vec<_> = all.iter().filter_map(|path| Some(asked.files.look(path).ok()?.canonical)).collect();
    all.extend(ends);
    Ok(all)
}

/// A path of the configuration, which does not depend on where one stands.
fn expanded(asked: Asked<'_>, text: &str, origin: &Origin) -> Result<PathBuf, ResolveError> {
    let path = asked.configured_path(text, origin)?;
    if path.is_absolute() {
        Ok(path)
    } else {
        Err(ResolveError::RelativeFilter { origin: origin.clone(), text: text.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::super::Inputs;
    use super::super::files::Files as _;
    use super::super::presence::WORTH;
    use super::super::tests::{World, typed};
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn every_row_of_the_list_is_one() {
        assert!(rows(LIST).count() > 200);
        let clean = |path: &str| !path.ends_with('/') && !path.contains("//") && !path.contains("..");
        for Row { section, key, why } in rows(LIST) {
            let fine = match section {
                "home" => !key.starts_with(['/', '~']) && clean(key),
                "absolute" => key.starts_with('/') && clean(key),
                "variables" => key.bytes().all(|b| b.is_ascii_alphabetic() || b == b'_' || b.is_ascii_digit()),
                _ => false,
            };
            assert!(fine && key.is_ascii() && why.len() > 2, "{section}: {key}: {why}");
        }
    }

    /// The paths of the list in `world`; what is only there, if asked.
    fn paths(world: &World, there: bool) -> Vec<PathBuf> {
        let config = crate::config::parse(Path::new("/c.yaml"), &world.config).expect("a configuration");
        let typed = typed("-- x");
        let (project, host, files) = (world.project.as_ref(), &world.host, &world.files);
        let inputs = Inputs { typed: &typed, config: &config, agent: None, project, host, files };
        let layers = inputs.layers().expect("layers");
        let asked = Asked { flags: &typed.cell, layers, project, host, files };
        listed(asked, there).expect("a list").into_iter().map(|secret| secret.path).collect()
    }

    #[test]
    fn what_is_there_is_what_single_questions_find() {
        let mut world = World::new()
            .env("XDG_CONFIG_HOME", "/srv/data/cfg")
            .env("XDG_STATE_HOME", "/srv/data/state")
            .env("KUBECONFIG", "/srv/data/k1:/srv/data/k2:/home")
            .config("defaults: {secret_paths: [~/web/private, /srv/data/gone]}");
        world.host.homes.push("/export/ada".into());
        let all = paths(&world, false);
        assert!(
            all.len() > 600 && all.contains(&"/srv/data/cfg/gh".into()) && all.contains(&"/export/ada/.ssh".into())
        );
        // Every one is there; every second; …; none.
        for step in [1, 2, 3, 5, 50, all.len() + 1] {
            for first in 0..step.min(5) {
                let mut world = world.clone();
                for path in all.iter().skip(first).step_by(step) {
                    path.ancestors().skip(1).for_each(|above| world.files.dir(above.to_str().expect("text")));
                    world.files.file(path.to_str().expect("text"));
                }
                let single: Vec<_> = all.iter().filter(|path| world.files.is_there(path)).cloned().collect();
                let mut found = paths(&world, true);
                // `.config/Claude` may be `claude`: such a one is looked for.
                assert!(found.len() <= single.len() + 10, "every {step} from {first}: {found:?}");
                found.retain(|path| world.files.is_there(path));
                assert!(found == single, "every {step} from {first}");
            }
        }
    }

    #[test]
    fn the_folders_that_are_read_are_those_with_many_of_the_list() {
        let counted = |wanted: &str| {
            let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
            for Row { key, .. } in rows(LIST).filter(|row| row.section == wanted) {
                *counts
                    .entry(key.trim_start_matches('/').rsplit_once('/').map_or("", |(above, _)| above))
                    .or_default() += 1;
            }
            let mut many: Vec<&str> =
                counts.into_iter().filter(|(_, count)| *count >= WORTH).map(|(at, _)| at).collect();
            many.sort_by_key(|at| std::cmp::Reverse(at.len()));
            many
        };
        assert_eq!(counted("home"), FOLDERS);
        assert_eq!(counted("absolute"), ROOT_FOLDERS);
        for (at, folder) in FOLDERS.iter().enumerate() {
            assert!(
                FOLDERS[..at].iter().all(|before| within(before, folder).is_none()),
                "{folder} is behind what holds it"
            );
        }
    }
}
