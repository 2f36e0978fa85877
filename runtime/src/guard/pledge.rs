//! Who takes the guard's `config.lock` away when the guard is killed before it can rename it.
//!
//! git on the host gives up where it finds one, and takes none away. So the guard says which file its own will be before that has a name, in a file
//! of the cell's folder that was opened before anything was entered. Whoever cleans up after the cell, its supervisor or a later command, removes
//! exactly that one: a number of a file alone could be another one's by then, so the moment at which it was written to is said too.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Mode, OFlags, Stat};
use serde::{Deserialize, Serialize};

use super::config::LOCK;

/// Its name in the cell's folder.
const FILE: &str = "guard.lock";

/// A lock that is made, or about to be.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Pledge {
    /// The git folder on the host.
    folder: PathBuf,
    file: Identity,
}

/// Which file it is, and when it was last written to.
#[derive(PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Identity {
    device: u64,
    inode: u64,
    seconds: i64,
    nanoseconds: u64,
}

impl Identity {
    fn of(stat: &Stat) -> Self {
        Self { device: stat.st_dev, inode: stat.st_ino, seconds: stat.st_mtime, nanoseconds: stat.st_mtime_nsec }
    }
}

/// Where it is said.
#[derive(Debug)]
pub(super) struct Pledges(File);

impl Pledges {
    /// In the folder `cell`, in which what an earlier guard of it said is done with.
    pub(super) fn open(cell: &Path) -> io::Result<Self> {
        let mut options = File::options();
        options.create(true).write(true).truncate(true).mode(0o600);
        let flags = OFlags::NOFOLLOW.bits().cast_signed();
        Ok(Self(options.custom_flags(flags).open(cell.join(FILE))?))
    }

    /// `file`, written to for the last time, becomes the lock in `folder`.
    pub(super) fn make(&self, folder: &Path, file: BorrowedFd<'_>) -> io::Result<()> {
        let pledge = Pledge { folder: folder.to_owned(), file: Identity::of(&rustix::fs::fstat(file)?) };
        // One that was said before may have been longer.
        self.0.set_len(0)?;
        self.0.write_all_at(&serde_json::to_vec(&pledge)?, 0)
    }

    /// The lock is gone again.
    pub(super) fn keep(&self) {
        // If it cannot be said, no file is there that it could mean.
        let _ = rustix::fs::ftruncate(&self.0, 0);
    }
}

/// Removes the lock that the guard of the cell with the folder `cell` may have left. Best effort: what is in the file and makes no sense was
/// not finished, and then no lock was made.
pub(crate) fn redeem(cell: &Path) {
    // Nearly always nothing.
    let text = std::fs::read(cell.join(FILE)).ok().filter(|text| !text.is_empty());
    let pledged = text.and_then(|text| serde_json::from_slice::<Pledge>(&text).ok());
    let Some(Pledge { folder, file }) = pledged else { return };
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let Ok(folder) = rustix::fs::open(&folder, flags, Mode::empty()) else { return };
    let stat = rustix::fs::statat(folder.as_fd(), LOCK, AtFlags::SYMLINK_NOFOLLOW);
    if stat.is_ok_and(|stat| Identity::of(&stat) == file) {
        let _ = rustix::fs::unlinkat(&folder, LOCK, AtFlags::empty());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_pledged_is_removed_and_nothing_else() {
        let (cell, git) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
        let lock = git.path().join("config.lock");
        let pledges = Pledges::open(cell.path()).expect("open");
        let made = || {
            std::fs::write(&lock, "text").expect("write");
            let file = File::open(&lock).expect("open");
            pledges.make(git.path(), file.as_fd()).expect("said");
            file
        };
        let elsewhere = git.path().join("a-folder-with-a-longer-name");
        pledges.make(&elsewhere, File::open(git.path()).expect("open").as_fd()).expect("said");
        drop(made());
        redeem(cell.path());
        assert!(!lock.exists());
        // Written to since, as one of the host's that has got its number.
        let file = made();
        let later = file.metadata().and_then(|m| m.modified()).expect("a time") + std::time::Duration::from_millis(1);
        File::options().write(true).open(&lock).and_then(|file| file.set_modified(later)).expect("touch");
        redeem(cell.path());
        assert!(lock.exists());
        // Another one.
        let _still = made();
        std::fs::rename(&lock, git.path().join("config")).expect("rename");
        std::fs::write(&lock, "text").expect("write");
        redeem(cell.path());
        assert!(lock.exists() && git.path().join("config").exists());
        // Done with, said by half, never said.
        drop(made());
        pledges.keep();
        redeem(cell.path());
        std::fs::write(cell.path().join(FILE), r#"{"folder":"/"#).expect("write");
        redeem(cell.path());
        std::fs::remove_file(cell.path().join(FILE)).expect("remove");
        redeem(cell.path());
        assert!(lock.exists());
    }
}
