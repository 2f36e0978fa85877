//! Removing what a cell leaves on disk: at its end, and after a supervisor that was killed.

use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags};
use rustix::fs::{Mode, OFlags};

use crate::state::{self, Claim, Dirs};

/// Removes the folders of the cell behind `claim`; its writable layer only if it is not to be kept. To be called where the layer's
/// files can be deleted (in OUTER, if they have foreign owners). Best effort: what cannot be removed now is met again by the
/// next command as a stale cell.
pub fn remove(dirs: &Dirs, claim: Claim, keep: bool) {
    // In OUTER the stage is mounted still, with all that is in it. After a supervisor that was killed it is gone.
    let _ = rustix::mount::unmount(
        claim.dir.join(state::STAGE),
        rustix::mount::UnmountFlags::DETACH | rustix::mount::UnmountFlags::NOFOLLOW,
    );
    if !keep {
        remove_below(&dirs.data.join("cells"), &claim.name);
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

/// Gives a claim back whose cell was never begun.
pub fn release(claim: Claim) {
    if let Some(cells) = claim.dir.parent() {
        remove_below(cells, &claim.name);
    }
    drop(claim.lock);
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
    let Some(found) = state::stale_record(claim) else { return Ended::default() };
    if let Some(pidfd) = found.running.and_then(|r| r.pidfd()) {
        let _ = rustix::process::pidfd_send_signal(&pidfd, rustix::process::Signal::KILL);
        let mut poll = [PollFd::new(&pidfd, PollFlags::IN)];
        let limit = rustix::time::Timespec { tv_sec: i64::try_from(DEATH.as_secs()).unwrap_or(1), tv_nsec: 0 };
        let _ = rustix::event::poll(&mut poll, Some(&limit));
    }
    let cgroups = crate::cgroup::remove_stale(&found.record.cgroups);
    Ended { keep: found.record.keep, cgroups }
}
