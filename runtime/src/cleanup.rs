//! Removing what a cell leaves on disk: at its end, and after a supervisor that was killed.
//!
//! At its end in two steps. `set_aside` gives everything another name, so that the cell is gone for everybody and its name is free;
//! `Sweep` then removes it, in a process for which nobody waits: mounts, namespaces and folders take the kernel milliseconds. If that process
//! is killed, what it has not removed is a stale cell like any other.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use cellblock_sys::process::{Fork, SingleThreaded, exit_now};
use rustix::event::{PollFd, PollFlags};
use rustix::fs::{CWD, FlockOperation, Mode, OFlags, RenameFlags};
use rustix::io::Errno;

use crate::state::{self, Claim, Dirs, StateError};

/// Gives the folders of the cell behind `claim` names under which nobody looks for cells. Where that is not possible they keep theirs, and are
/// removed all the same.
pub(crate) fn set_aside(dirs: &Dirs, claim: Claim, keep: bool) -> Claim {
    crate::guard::redeem(&claim.dir);
    // The layer first: once the other folder is renamed the name may be taken, and a cell that takes it must not find this layer.
    let aside = state::aside(&claim.name, rustix::process::getpid());
    let (layer, layer_aside) = (dirs.layer(&claim.name), dirs.layer(&aside));
    match if keep { Ok(()) } else { rename(&layer, &layer_aside) } {
        Ok(()) | Err(Errno::NOENT) => {}
        Err(_) => return claim,
    }
    rename_claim(claim, aside).unwrap_or_else(|claim| {
        let _ = rename(&layer_aside, &layer);
        claim
    })
}

fn rename(from: &Path, to: &Path) -> rustix::io::Result<()> {
    rustix::fs::renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE)
}

/// The claim's folder under the name `aside`, or the claim as it was.
fn rename_claim(claim: Claim, aside: String) -> Result<Claim, Claim> {
    let dir = claim.dir.with_file_name(&aside);
    match rename(&claim.dir, &dir) {
        Ok(()) => Ok(Claim { name: aside, dir, ..claim }),
        Err(_) => Err(claim),
    }
}

/// What is left to remove of a cell that has ended, under the name that [`set_aside`] gave it.
#[derive(Debug)]
pub(crate) struct Sweep {
    pub(crate) dirs: Dirs,
    pub(crate) claim: Claim,
    pub(crate) keep: bool,
}

impl Sweep {
    /// Removes it, in a process of its own. The caller is to end, and waits for nothing.
    ///
    /// It is left to whoever collects orphans; signals of a terminal do not reach it, for the supervisor takes none.
    pub(crate) fn start(self) {
        match SingleThreaded::prove().and_then(|alone| alone.fork()) {
            Ok(Fork::Parent(_)) => {}
            Ok(Fork::Child) => {
                self.run();
                exit_now(0)
            }
            Err(_) => remove(&self.dirs, self.claim, self.keep),
        }
    }

    /// As [`start`](Self::start), and ends this process with `code`.
    pub(crate) fn leave(self, code: i32) -> ! {
        match SingleThreaded::prove() {
            Ok(alone) => alone.leave_behind(code, Box::new(|| self.run())).0(),
            Err(_) => remove(&self.dirs, self.claim, self.keep),
        }
        exit_now(code)
    }

    fn run(self) {
        let _ = rustix::thread::set_name(c"cellblock-sweep");
        let _ = rustix::process::chdir(c"/");
        // Whoever waits for the end of the cell's output must not wait for this.
        let _ = crate::network::take_no_streams();
        remove(&self.dirs, self.claim, self.keep);
        collect(&self.dirs);
    }
}

/// Removes the folders of the cell behind `claim`; its writable layer only if it is not to be kept. To be called where the layer's
/// files can be deleted (in OUTER, if they have foreign owners). Best effort: what cannot be removed now is met again by the
/// next command as a stale cell.
pub fn remove(dirs: &Dirs, claim: Claim, keep: bool) {
    let name = claim.name.clone();
    let keep = keep || is_anothers(dirs, &claim);
    // Also so that nobody takes the name in a folder of which the lock is gone and the rest is not.
    let claim = if state::is_aside(&claim.name) { claim } else { set_aside(dirs, claim, keep) };
    // In OUTER the stage is mounted still, with all that is in it. After a supervisor that was killed it is gone.
    let _ = rustix::mount::unmount(
        claim.dir.join(state::STAGE),
        rustix::mount::UnmountFlags::DETACH | rustix::mount::UnmountFlags::NOFOLLOW,
    );
    if !keep {
        let layers = dirs.data.join("cells");
        remove_below(&layers, &claim.name);
        // Of a supervisor that was killed between the two steps of [`set_aside`].
        for aside in names_in(&layers).iter().filter(|aside| state::is_aside_of(aside, &name)) {
            remove_below(&layers, aside);
        }
    }
    // The record goes last but for the lock: as long as it is there, a later command knows what is left to do.
    for name in [
        state::STAGE,
        state::BROKER,
        "control.sock",
        "net.sock",
        "net.names",
        "net.denied",
        "running.json",
        "running.tmp",
        "cell.tmp",
        "cell.json",
    ] {
        remove_below(&claim.dir, name);
    }
    if let Some(cells) = claim.dir.parent() {
        remove_below(cells, &claim.name);
    }
    drop(claim.lock);
}

/// Sets the layer of an earlier cell of that name aside, if it was not to be kept and nothing else is left of it: the folder with its record is gone at
/// a reboot. The kernel marks what was mounted `volatile`, and mounts it so only once ("Volatile mount", overlayfs.rst). The end of a cell
/// [collects](collect) it.
pub(crate) fn set_discarded_aside(dirs: &Dirs, claim: &Claim) {
    if state::is_discarded(&dirs.layer(&claim.name)) {
        let _ = discard(dirs, claim);
    }
}

/// Sets the layer that is there for the claim's name aside, for the end of a cell to collect, and says where.
///
/// # Errors
/// [`StateError::NameTaken`] if a living cell has it; [`StateError::Io`].
pub fn discard(dirs: &Dirs, claim: &Claim) -> Result<PathBuf, StateError> {
    let layer = dirs.layer(&claim.name);
    let _held = hold(dirs, &claim.name)?;
    // Not the name that the layer of this cell will have.
    let aside = dirs.layer(&state::aside(&format!("{}.left", claim.name), rustix::process::getpid()));
    match rename(&layer, &aside) {
        Ok(()) => Ok(aside),
        Err(error) => Err(StateError::Io { what: "cannot set aside", path: layer, source: error.into() }),
    }
}

/// Locks the layer of the cell `name` for its life (flock(2)), if it has one. The lock of its runtime folder is not enough: a logout takes that folder away
/// from cells that go on, in tmux for one.
///
/// # Errors
/// [`StateError::NameTaken`] if a living cell has it; [`StateError::Io`].
pub(crate) fn hold(dirs: &Dirs, name: &str) -> Result<Option<OwnedFd>, StateError> {
    let layer = dirs.layer(name);
    let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let folder = match rustix::fs::open(&layer, flags, Mode::empty()) {
        Err(Errno::NOENT) => return Ok(None),
        opened => opened,
    };
    let locked = folder.and_then(|folder| {
        rustix::fs::flock(&folder, FlockOperation::NonBlockingLockExclusive)?;
        Ok(Some(folder))
    });
    locked.map_err(|error| match error {
        Errno::WOULDBLOCK => StateError::NameTaken(name.to_owned()),
        error => StateError::Io { what: "cannot lock", path: layer, source: error.into() },
    })
}

/// Whether a living cell has the layer of the claim's name: it is not to be removed with what is left of a start that found it so.
pub(crate) fn is_anothers(dirs: &Dirs, claim: &Claim) -> bool {
    hold(dirs, &claim.name).is_err()
}

/// Removes the layers of all cells of which a reboot has left nothing else and that were not to be kept, as far as their files can be removed here.
fn collect(dirs: &Dirs) {
    let layers = dirs.data.join("cells");
    let nobodys = |name: &String| !dirs.cell(name).exists();
    let discarded = |name: &String| !state::is_aside(name) && state::is_discarded(&dirs.layer(name));
    for name in names_in(&layers).into_iter().filter(nobodys).filter(discarded) {
        if let Ok(claim) = state::claim(dirs, &name) {
            set_discarded_aside(dirs, &claim);
            release(claim);
        }
    }
    for name in names_in(&layers).into_iter().filter(nobodys).filter(|name| state::is_aside(name)) {
        remove_below(&layers, &name);
    }
}

/// Gives a claim back whose cell was never begun.
pub fn release(claim: Claim) {
    let aside = state::aside(&claim.name, rustix::process::getpid());
    let claim = rename_claim(claim, aside).unwrap_or_else(|claim| claim);
    if let Some(cells) = claim.dir.parent() {
        remove_below(cells, &claim.name);
    }
    drop(claim.lock);
}

fn names_in(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

fn remove_below(folder: &Path, name: &str) {
    let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    if let Ok(folder) = rustix::fs::open(folder, flags, Mode::empty()) {
        let _ = cellblock_sys::tree::remove(folder.as_fd(), name.as_ref());
    }
}

/// How long the process of a stale cell may take to die.
const DEATH: Duration = Duration::from_secs(5);

/// What is to be known of a stale cell whose processes have been ended.
#[derive(Debug, Default)]
pub struct Ended {
    /// Its writable layer outlives it.
    pub keep: bool,
    /// Cgroups of it that could not be removed, and why.
    pub cgroups: Vec<(PathBuf, io::Error)>,
}

/// Ends what may still run of a stale cell, and removes its cgroups. Its folders are left for [`remove`].
///
/// The kernel has killed the cell's init with its supervisor; this waits for it, and covers the few instructions in which that was not yet
/// arranged.
#[must_use]
pub fn end_stale(claim: &Claim) -> Ended {
    let Some(found) = state::stale_record(claim) else {
        // A layer is made after the record: one that is there is of an earlier cell, which was to keep it.
        return Ended { keep: !claim.dir.join("cell.json").exists(), cgroups: Vec::new() };
    };
    if let Some(pidfd) = found.running.and_then(|r| r.pidfd()) {
        let _ = rustix::process::pidfd_send_signal(&pidfd, rustix::process::Signal::KILL);
        let mut poll = [PollFd::new(&pidfd, PollFlags::IN)];
        let limit = rustix::time::Timespec { tv_sec: i64::try_from(DEATH.as_secs()).unwrap_or(1), tv_nsec: 0 };
        let _ = rustix::event::poll(&mut poll, Some(&limit));
    }
    let cgroups = crate::cgroup::remove_stale(&found.record.cgroups);
    Ended { keep: found.record.keep, cgroups }
}
