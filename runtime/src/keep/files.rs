//! Files of agents' in cells: beside others in a folder of the cell's, or loose in its own root; logins; and what cellblock itself writes there.

use super::*;

/// The host's side of a file: where a link that may be followed leads, if it is there, else the folder it would be in. What cannot be taken is told, and
/// the cell goes on without.
fn host_side(start: &Start, state: &State, notes: &mut Vec<String>) -> Option<Side> {
    let found = match start.links.end_of(&state.host) {
        Ok(path) => match std::fs::metadata(&path) {
            Ok(metadata) if !metadata.is_file() => Err(io::Error::other("it is no regular file")),
            Ok(_) | Err(_) => Ok(path),
        },
        Err(error) if tree::is_missing(&error) => {
            let above = state.host.parent()?.canonicalize().ok()?;
            Ok(above.join(state.host.file_name().unwrap_or_default()))
        }
        Err(error) => Err(error),
    };
    let side = found.and_then(|path| {
        let (above, name) = path.parent().zip(path.file_name()).ok_or(io::ErrorKind::InvalidInput)?;
        Ok(Side { folder: open_folder(above)?, name: name.into(), owner: Owner(None), acting: None })
    });
    side.map_err(|error| notes.extend(problems(state, vec![format!("{}: {error}", state.host.display())]))).ok()
}

/// A file in a folder of the cell's.
pub(super) fn lay_beside(start: &Start, state: &State, folder: &Kept<'_>, laid: &mut Laid) -> Result<(), KeepError> {
    let owner = owner(&start.cell);
    let inside = state.target.strip_prefix(&folder.state.target).unwrap_or(&state.target);
    let failed = |source| KeepError::Place { path: state.target.clone(), source };
    let (above, name) = (inside.parent().unwrap_or(Path::new("")), inside.file_name().unwrap_or_default());
    let top = open_folder(&folder.own).map_err(failed)?;
    let own = match place::make_path(top.as_fd(), above, owner) {
        Ok(own) => own,
        Err(error) => {
            laid.notes
                .push(format!("{} is left out: {error}; a cell has put something in its way", state.target.display()));
            return Ok(());
        }
    };
    let Some(host) = host_side(start, state, &mut laid.notes) else { return Ok(()) };
    let locks = state.locks.iter().map(PathBuf::from).collect();
    let own = Side { folder: own, name: name.into(), owner, acting: None };
    let flow = if state.mode == StateMode::Share { Flow::Both } else { Flow::In };
    if state.mode != StateMode::Share {
        pair::part(&host, &own).map_err(|source| take_error(state, source))?;
    }
    match state.mode {
        StateMode::Private if state.kind == StateKind::Login => {}
        StateMode::Private => lay_private_file(start, state, folder, &host, &own, laid)?,
        StateMode::Copy => {
            let pair = Pair { host, own, flow, gives_birth: false, locks, known: RefCell::default() };
            let done = if folder.project || start.fresh_layer() { pair.settle() } else { Ok(()) };
            done.map_err(|source| take_error(state, source))?;
        }
        StateMode::Share | StateMode::Sync => {
            laid.pairs.push(Pair { host, own, flow, gives_birth: false, locks, known: RefCell::default() });
        }
    }
    Ok(())
}

/// A file that is kept in a folder of the same agent's: it follows the host as long as no cell has changed it.
fn lay_private_file(
    start: &Start,
    state: &State,
    folder: &Kept<'_>,
    host: &Side,
    own: &Side,
    laid: &mut Laid,
) -> Result<(), KeepError> {
    let failed = |source| take_error(state, source);
    let above = open_folder(folder.own.parent().unwrap_or(Path::new("/"))).map_err(failed)?;
    let _turn = turn(&above).map_err(failed)?;
    let record = folder.own.with_file_name(format!("{}.seen", key(&state.host, start.cell.own_home())));
    let old = Seen::from_bytes(&std::fs::read(&record).unwrap_or_default());
    let taking = Taking { hidden: &[], owner: own.owner, links: &start.links, follow: Follow::Untouched };
    let taken = tree::take_file((host.folder.as_fd(), &host.name), (own.folder.as_fd(), &own.name), &old, taking)
        .map_err(failed)?;
    laid.notes.extend(problems(state, taken.problems));
    if taken.seen != old && !taken.seen.0.is_empty() {
        write_seen(&above, &record, &taken.seen).map_err(failed)?;
    }
    Ok(())
}

/// A file that stands in no folder of the cell's: it is put into the cell's own root, and kept in step with the project's, or the host's.
pub(super) fn lay_loose(start: &Start, state: &State, laid: &mut Laid) -> Result<(), KeepError> {
    let target = state.target.clone();
    let locks = state.locks.iter().map(PathBuf::from).collect();
    let host = host_side(start, state, &mut laid.notes);
    if state.mode != StateMode::Private {
        let Some(host) = host else { return Ok(()) };
        let flow = if state.mode == StateMode::Share { Flow::Both } else { Flow::In };
        let once = state.mode == StateMode::Copy;
        laid.loose.push(Loose { host, target, flow, once, gives_birth: false, locks });
        return Ok(());
    }
    let failed = |source| take_error(state, source);
    let (base, project) = base(start, state, laid)?;
    let above = open_folder(&base).map_err(failed)?;
    let name = key(&state.target, start.cell.own_home());
    let folder = place::make_folder(above.as_fd(), Path::new(&name), 0o700, Owner(None)).map_err(failed)?;
    let file = PathBuf::from(target.file_name().unwrap_or_default());
    let own = Side { folder, name: file, owner: Owner(None), acting: None };
    if let (StateKind::File, Some(host)) = (state.kind, &host) {
        let kept = Kept { state, own: base.join(&name), project };
        lay_private_file(start, state, &kept, host, &own, laid)?;
    }
    laid.loose.push(Loose { host: own, target, flow: Flow::Both, once: false, gives_birth: true, locks });
    Ok(())
}

/// Writes what cellblock has to say into a file of a folder of the cell's. One that follows the host goes on doing so.
pub(super) fn sow(start: &Start, seed: &Seed, folder: &Kept<'_>) -> io::Result<()> {
    let owner = owner(&start.cell);
    let inside = seed.target.strip_prefix(&folder.state.target).unwrap_or(&seed.target);
    let name = Path::new(inside.file_name().ok_or(io::ErrorKind::InvalidInput)?);
    let top = open_folder(&folder.own)?;
    let above = inside.parent().unwrap_or(Path::new(""));
    // At nearly every start everything is there, and nothing is made for what has nothing to say.
    let look = |above: BorrowedFd<'_>| {
        let (now, before) = match place::read(above, name, MOST_SOWN) {
            Ok((now, stat)) => {
                let before = Some((stat.st_mode, Sight::new(Stamp::of(&stat), &now)));
                (now, before)
            }
            Err(error) if tree::is_missing(&error) => (Vec::new(), None),
            Err(error) => return Err(error),
        };
        Ok((edit::edited(&now, &seed.edits).map_err(io::Error::other)?, before))
    };
    let new = match place::path(top.as_fd(), above) {
        Ok(above) => look(above.as_fd())?.0,
        Err(error) if tree::is_missing(&error) => edit::edited(b"", &seed.edits).map_err(io::Error::other)?,
        Err(error) => return Err(error),
    };
    if new.is_none() {
        return Ok(());
    }
    let base = open_folder(folder.own.parent().unwrap_or(Path::new("/")))?;
    let _turn = turn(&base)?;
    let above = place::make_path(top.as_fd(), above, owner)?;
    // Cells of the project may be at it: what one of them has just written is looked at again.
    for _ in 0..4 {
        let (Some(new), before) = look(above.as_fd())? else { return Ok(()) };
        let mode = before.map_or(0o600, |(mode, _)| mode);
        let before = before.map(|(_, sight)| sight);
        if let Some(after) = place::write_over(above.as_fd(), name, before, (&new, mode, owner))? {
            let remember = |before: Sight| remember(start, seed, folder, &base, (before.stamp, after.stamp));
            return before.map_or(Ok(()), remember);
        }
    }
    Err(io::Error::new(io::ErrorKind::ResourceBusy, "it changes all the time"))
}

/// Notes that what was taken from the host is what we made of it: it came with the folder, or by an entry of its own.
fn remember(
    start: &Start,
    seed: &Seed,
    folder: &Kept<'_>,
    base: &OwnedFd,
    (before, after): (Stamp, Stamp),
) -> io::Result<()> {
    let inside = seed.target.strip_prefix(&folder.state.target).unwrap_or(&seed.target);
    let name = Path::new(inside.file_name().unwrap_or_default());
    let beside = |host: &Path| folder.own.with_file_name(format!("{}.seen", key(host, start.cell.own_home())));
    let own =
        start.cell.state.iter().find(|state| state.target == seed.target).map(|state| (beside(&state.host), name));
    let with_folder = (beside(&folder.state.target), inside);
    for (record, path) in own.into_iter().chain([with_folder]) {
        let mut seen = Seen::from_bytes(&std::fs::read(&record).unwrap_or_default());
        if seen.moved(path, before, after) {
            write_seen(base, &record, &seen)?;
        }
    }
    Ok(())
}

/// Larger files than this are no settings of an agent's.
const MOST_SOWN: u64 = 16 << 20;
