//! Agents' state in cells: each file and folder as its [`cellblock_bundle::State`] says (docs/credentials.md).
//!
//! A folder is one of cellblock's own, bound into the cell: the project's (`private`), which all its cells share as programs of
//! one host share a folder, or the cell's (`copy`, `sync`). What it holds of the host's comes in by `tree`. Files of their own, and logins, which lie in
//! such folders, are pairs (`pair`): the host's and the cell's. What has to be kept in step while the cell runs is the work
//! of a process (`process`).
//!
//! Everything below a folder that a cell can write is hostile: it is reached by descriptor, and no link in it is followed.

pub mod edit;
mod files;
mod pair;
mod place;
mod process;
mod seen;
mod tree;

use std::cell::RefCell;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use cellblock_bundle::{Cell, IdScheme, Mount, Seed, State, StateKind, StateMode};
use rustix::fs::{CWD, FlockOperation, Mode, OFlags, ResolveFlags};
use rustix::process::Pid;

use crate::state::{self, Dirs, StateError};
use crate::supervisor::Start;
use files::{lay_beside, lay_loose, sow};
use pair::{Flow, Pair, Side};
use place::Owner;
pub(crate) use process::Keeper;
use seen::{Seen, Sight, Stamp};
pub use tree::Links;
use tree::{Follow, Taking};

/// Why an agent's state cannot be laid.
#[derive(Debug, thiserror::Error)]
pub enum KeepError {
    /// A folder of cellblock's cannot be made or read.
    #[error(transparent)]
    State(#[from] StateError),
    /// The host's cannot be taken over.
    #[error("cannot take {path} over for the cell: {source}", path = path.display())]
    Take {
        /// The host's.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A path inside is not what it has to be; cells make such things.
    #[error("cannot place {path} in the cell: {source}", path = path.display())]
    Place {
        /// Inside.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is being dropped, or something else has it.
    #[error("the state of {agent} is in use")]
    Busy {
        /// The agent.
        agent: String,
    },
    /// The process that keeps files in step did not begin.
    #[error("the process that keeps the agent's files in step did not start: {0}")]
    Process(io::Error),
}

/// What a cell gets.
#[derive(Debug, Default)]
pub(crate) struct Laid {
    /// The folders, to be bound.
    pub(crate) mounts: Vec<Mount>,
    /// Files in them.
    pairs: Vec<Pair>,
    /// Files that stand in the cell's own root: both sides are known only when it is there.
    loose: Vec<Loose>,
    /// Folders that follow the host while the cell runs.
    mirrors: Vec<Mirror>,
    /// Held while the cell lives: who wants to drop a layer asks for them.
    _locks: Vec<OwnedFd>,
    /// What the person should be told.
    pub(crate) notes: Vec<String>,
}

/// A file in the cell's own root.
#[derive(Debug)]
struct Loose {
    host: Side,
    target: PathBuf,
    flow: Flow,
    once: bool,
    gives_birth: bool,
    locks: Vec<PathBuf>,
}

/// A folder that is kept as the host's.
#[derive(Debug)]
struct Mirror {
    host: PathBuf,
    own: OwnedFd,
    hidden: Vec<PathBuf>,
    owner: Owner,
    links: Links,
    seen: RefCell<Seen>,
}

/// A folder of an agent's and where it is kept.
struct Kept<'a> {
    state: &'a State,
    own: PathBuf,
    project: bool,
}

/// Opens a folder that is the person's or cellblock's own, by path.
fn open_folder(path: &Path) -> io::Result<OwnedFd> {
    Ok(rustix::fs::open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?)
}

/// Another descriptor of the same folder, with an offset and locks of its own.
fn reopen(folder: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(cellblock_sys::scoped::openat2(folder, ".", flags, Mode::empty(), ResolveFlags::BENEATH)?)
}

/// The name under which what belongs at `target` is kept: one component, readable, the same for the same path.
#[must_use]
pub fn key(target: &Path, home: &Path) -> String {
    let path = target.strip_prefix(home).unwrap_or(target);
    path.to_string_lossy().replace('%', "%25").replace('/', "%")
}

/// Whose what is made is, as the supervisor sees ids.
fn owner(cell: &Cell) -> Owner {
    let (uid, gid) = (cell.user.uid, cell.user.gid);
    Owner(match cell.ids.scheme {
        IdScheme::Single | IdScheme::SingleRoot => None,
        // In OUTER ids are as inside; and so they are on disk, seen through an id-mapped mount.
        IdScheme::Range | IdScheme::RangeRoot | IdScheme::Shifted => Some((uid, gid)),
        IdScheme::KeepRoot => cell.ids.host_uid(uid).zip(cell.ids.host_gid(gid)),
    })
}

/// Makes, and fills with what the host has, everything that the cell gets of agents' state.
pub(crate) fn lay(start: &Start) -> Result<Laid, KeepError> {
    let mut laid = Laid::default();
    let cell = &start.cell;
    if cell.state.is_empty() {
        return Ok(laid);
    }
    let mut kept = Vec::new();
    for state in cell.state.iter().filter(|state| state.kind == StateKind::Folder) {
        if state.mode == StateMode::Share {
            let source = state.host.canonicalize().map_err(|source| take_error(state, source))?;
            laid.mounts.push(Mount::Bind { source, target: state.target.clone(), writable: true });
            kept.push(Kept { state, own: PathBuf::new(), project: false });
            continue;
        }
        let (base, project) = base(start, state, &mut laid)?;
        let one = Kept { state, own: base.join(key(&state.target, cell.own_home())), project };
        lay_folder(start, &one, &base, &mut laid)?;
        let writable = state.mode != StateMode::Sync;
        laid.mounts.push(Mount::Bind { source: one.own.clone(), target: state.target.clone(), writable });
        kept.push(one);
    }
    for state in cell.state.iter().filter(|state| state.kind != StateKind::Folder) {
        let folder = kept.iter().filter(|folder| state.target.starts_with(&folder.state.target));
        match folder.max_by_key(|folder| folder.state.target.components().count()) {
            // It is in it already, as the host's own.
            Some(folder) if folder.state.mode == StateMode::Share => {}
            Some(folder) => lay_beside(start, state, folder, &mut laid)?,
            None => lay_loose(start, state, &mut laid)?,
        }
    }
    sow_all(start, &kept, &mut laid.notes);
    Ok(laid)
}

/// Writes into files what cellblock has to say, where nothing of that can get to the host.
fn sow_all(start: &Start, kept: &[Kept<'_>], notes: &mut Vec<String>) {
    let state = &start.cell.state;
    for seed in &start.cell.seeds {
        let holds = |folder: &&Kept<'_>| seed.target.starts_with(&folder.state.target);
        let folder = kept.iter().filter(holds).max_by_key(|folder| folder.state.target.components().count());
        let own = |mode| matches!(mode, StateMode::Private | StateMode::Copy);
        // A login is the host's own file, and so is one that is kept in step.
        let hosts = |state: &State| state.kind == StateKind::Login || !own(state.mode);
        let shared = state.iter().any(|state| state.target == seed.target && hosts(state));
        if let Some(folder) = folder.filter(|folder| own(folder.state.mode) && !shared)
            && let Err(error) = sow(start, seed, folder)
        {
            notes.push(format!("{} is left as it is: {error}", seed.target.display()));
        }
    }
}

fn take_error(state: &State, source: io::Error) -> KeepError {
    KeepError::Take { path: state.host.clone(), source }
}

/// Where a state is kept: with the project, whose lock is then shared, or with the cell.
fn base(start: &Start, state: &State, laid: &mut Laid) -> Result<(PathBuf, bool), KeepError> {
    let Dirs { data, .. } = &start.dirs;
    if state.mode != StateMode::Private {
        let layer = start.dirs.layer(&start.cell.name);
        let base = layer.join("state");
        for folder in [data, &data.join("cells"), &layer, &base] {
            state::make_dir(folder)?;
        }
        return Ok((base, false));
    }
    let project = start.cell.project.as_ref();
    let base = start.dirs.agent_state(project.map(|project| project.id.as_str()), &state.agent);
    let above: Vec<&Path> = base.ancestors().take_while(|folder| folder.starts_with(data)).collect();
    for folder in above.into_iter().rev() {
        state::make_dir(folder)?;
    }
    if let (Some(project), Some(folder)) = (project, base.ancestors().nth(2)) {
        // For lists: nobody knows a project by its id. The canonical root is above or beside this one.
        let (file, root) = (folder.join("project"), project.root.as_os_str().as_encoded_bytes());
        // Written anew it would cost a block of the disk at each start.
        if std::fs::read(&file).map_or(true, |known| known != root) {
            let _ = std::fs::write(file, root);
        }
    }
    let lock = lock(&base, FlockOperation::NonBlockingLockShared)
        .map_err(|_| KeepError::Busy { agent: state.agent.clone() })?;
    laid._locks.push(lock);
    Ok((base, true))
}

/// Takes the lock of an agent's layer in a project: shared by its cells, alone by who drops it.
///
/// # Errors
/// Those of `flock(2)`: `WouldBlock` if somebody else has it.
pub fn lock(base: &Path, how: FlockOperation) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = rustix::fs::open(base.join("lock"), flags, Mode::RUSR | Mode::WUSR)?;
    rustix::fs::flock(&file, how)?;
    Ok(file)
}

/// Names of logins, of secrets and of what is hidden, below the folder `state`.
fn hidden(start: &Start, state: &State) -> Vec<PathBuf> {
    let cell = &start.cell;
    let others = cell.state.iter().filter(|other| *other != state);
    // What has an entry of its own comes by that; and locks are nobody's to take over.
    let below = others.flat_map(|other| {
        let beside = other.locks.iter().map(|lock| other.host.with_file_name(lock));
        std::iter::once(other.host.clone()).chain(beside)
    });
    let top = state.host.canonicalize().unwrap_or_else(|_| state.host.clone());
    // By either of the names that a folder has whose own is a link.
    let inside =
        |path: &PathBuf| path.strip_prefix(&top).or_else(|_| path.strip_prefix(&state.host)).ok().map(Path::to_owned);
    let secret = start.links.never.iter().filter_map(inside);
    let below = below.filter_map(|path| path.strip_prefix(&state.host).ok().map(Path::to_owned));
    state
        .hidden
        .iter()
        .map(PathBuf::from)
        .chain(below)
        .chain(secret)
        .filter(|path| !path.as_os_str().is_empty())
        .collect()
}

fn lay_folder(start: &Start, kept: &Kept<'_>, base: &Path, laid: &mut Laid) -> Result<(), KeepError> {
    let state = kept.state;
    let failed = |source| KeepError::Take { path: state.host.clone(), source };
    let hidden = hidden(start, state);
    let follow = if state.mode == StateMode::Sync { Follow::Always } else { Follow::Untouched };
    let taking = Taking { hidden: &hidden, owner: owner(&start.cell), links: &start.links, follow };
    let name = kept.own.file_name().map_or(Path::new(""), Path::new);
    let above = open_folder(base).map_err(failed)?;
    // One start at a time: the second finds everything done.
    let _turn = turn(&above).map_err(failed)?;
    let record = base.join(format!("{}.seen", name.display()));
    let there = place::look(above.as_fd(), name).map_err(failed)?.is_some();
    let old = if there { Seen::from_bytes(&std::fs::read(&record).unwrap_or_default()) } else { Seen::default() };
    let own_name = if there { name.to_owned() } else { format!("{}.new", name.display()).into() };
    if !there {
        // The rest of a start that was killed.
        cellblock_sys::tree::remove(above.as_fd(), own_name.as_os_str()).map_err(failed)?;
    }
    let own = place::make_folder(above.as_fd(), &own_name, 0o700, taking.owner).map_err(failed)?;
    give_all(own.as_fd(), taking.owner).map_err(failed)?;
    // A copy is made once: what a kept cell has made of it stays.
    let frozen = there && state.mode == StateMode::Copy;
    let mut seen = old.clone();
    match start.links.end_of(&state.host).and_then(|top| Ok((open_folder(&top)?, top))) {
        Ok(_) if frozen => {}
        Ok((host, top)) => {
            let taken = tree::take(host.as_fd(), &top, own.as_fd(), &old, taking, false).map_err(failed)?;
            laid.notes.extend(problems(state, taken.problems));
            seen = taken.seen;
        }
        Err(error) if tree::is_missing(&error) => {}
        Err(error) => laid.notes.push(format!("{} is not taken over: {error}", state.host.display())),
    }
    if seen != old || !there {
        write_seen(&above, &record, &seen).map_err(failed)?;
    }
    if !there {
        rustix::fs::renameat(&above, &own_name, &above, name).map_err(|e| failed(e.into()))?;
    }
    if state.mode == StateMode::Sync {
        let (host, links, owner) = (state.host.clone(), start.links.clone(), taking.owner);
        laid.mirrors.push(Mirror { host, own, hidden, owner, links, seen: RefCell::new(seen) });
    }
    Ok(())
}

/// At most a few lines on what was left out.
fn problems(state: &State, problems: Vec<String>) -> Vec<String> {
    const MOST: usize = 3;
    let more = problems.len().saturating_sub(MOST);
    let mut notes: Vec<String> = problems
        .into_iter()
        .take(MOST)
        .map(|problem| format!("not taken over for {}: {problem}", state.agent))
        .collect();
    if more > 0 {
        notes.push(format!("not taken over for {}: {more} more", state.agent));
    }
    notes
}

fn turn(folder: &OwnedFd) -> io::Result<OwnedFd> {
    let file = reopen(folder.as_fd())?;
    rustix::io::retry_on_intr(|| rustix::fs::flock(&file, FlockOperation::LockExclusive))?;
    Ok(file)
}

fn write_seen(above: &OwnedFd, record: &Path, seen: &Seen) -> io::Result<()> {
    let name = record.file_name().map_or(Path::new(""), Path::new);
    place::write(above.as_fd(), name, &seen.to_bytes(), 0o600, Owner(None)).map(drop)
}

/// A layer that was somebody else's, as when a cell with another user wrote it, is made the user's.
fn give_all(own: BorrowedFd<'_>, owner: Owner) -> io::Result<()> {
    let Owner(Some((uid, gid))) = owner else { return Ok(()) };
    if rustix::fs::fstat(own)?.st_uid == uid {
        return Ok(());
    }
    let ids = (Some(rustix::fs::Uid::from_raw(uid)), Some(rustix::fs::Gid::from_raw(gid)));
    for entry in rustix::fs::Dir::read_from(own)? {
        let entry = entry?;
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        let path = Path::new(std::ffi::OsStr::new(name.to_str().unwrap_or("")));
        match place::folder(own, path) {
            Ok(below) => give_all(below.as_fd(), owner)?,
            Err(_) => rustix::fs::chownat(own, name, ids.0, ids.1, rustix::fs::AtFlags::SYMLINK_NOFOLLOW)?,
        }
    }
    Ok(rustix::fs::fchown(own, ids.0, ids.1)?)
}

impl Laid {
    /// Whether there is anything to be done once the cell's root is there.
    pub(crate) fn has_files(&self) -> bool {
        !(self.pairs.is_empty() && self.loose.is_empty() && self.mirrors.is_empty())
    }

    /// Puts the mounts among the cell's own: what is nearer to the root first, so that none hides another.
    pub(crate) fn add_to(&mut self, mounts: &mut Vec<Mount>) {
        mounts.append(&mut self.mounts);
        mounts.sort_by_key(|mount| mount.target().components().count());
    }

    /// Opens the places of files in the root of the cell whose first process is `init`. Nothing of the cell has run yet, but a layer that was
    /// kept is what an earlier one made of it.
    fn open_root(&mut self, cell: &Cell, init: Pid) -> Result<(), KeepError> {
        if self.loose.is_empty() {
            return Ok(());
        }
        let path = PathBuf::from(format!("/proc/{}/root", init.as_raw_nonzero()));
        let root = rustix::fs::open(&path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
            .map_err(|source| KeepError::Place { path, source: source.into() })?;
        let shifted = cell.ids.scheme == IdScheme::Shifted;
        let acting =
            if shifted { cell.ids.host_uid(cell.user.uid).zip(cell.ids.host_gid(cell.user.gid)) } else { None };
        let owner = if shifted { Owner(None) } else { owner(cell) };
        for loose in self.loose.drain(..) {
            let above = loose.target.parent().unwrap_or(Path::new("/"));
            let make = || place::make_path(root.as_fd(), above, owner);
            let made = match acting {
                Some((uid, gid)) => cellblock_sys::process::acting_on_files_as(uid, gid, make).and_then(|made| made),
                None => make(),
            };
            let folder = match made {
                Ok(folder) => folder,
                Err(error) => {
                    self.notes.push(format!("{} is left out: {error}", loose.target.display()));
                    continue;
                }
            };
            let name = loose.target.file_name().unwrap_or_default().into();
            let own = Side { folder, name, owner, acting };
            let Loose { host, flow, gives_birth, locks, .. } = loose;
            let pair = Pair { host, own, flow, gives_birth, locks, known: RefCell::default() };
            if loose.once {
                if pair.is_new().unwrap_or(false) {
                    pair.settle().map_err(|source| KeepError::Place { path: loose.target, source })?;
                }
            } else {
                self.pairs.push(pair);
            }
        }
        Ok(())
    }
}

impl Start {
    /// Whether the cell's own layer was not there before: then copies are made in it.
    fn fresh_layer(&self) -> bool {
        rustix::fs::access(&self.root.upper, rustix::fs::Access::EXISTS).is_err()
    }
}

/// Whether `path` is there, for those who list layers.
#[must_use]
pub fn exists(path: &Path) -> bool {
    rustix::fs::statat(CWD, path, rustix::fs::AtFlags::SYMLINK_NOFOLLOW).is_ok()
}

/// For messages: the descriptor's number.
fn magic(fd: BorrowedFd<'_>) -> String {
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}

#[cfg(test)]
mod tests;
