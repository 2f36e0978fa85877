//! Folders that are being filled: locked as long as their maker lives, so that what a killed one has left is told from what is in use.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;

/// First part of the names of what is not finished.
pub(super) const PREFIX: &str = ".tmp-";

/// A folder with a lock on it (`flock(2)`).
#[derive(Debug)]
pub(super) struct Temporary {
    pub(super) path: PathBuf,
    _lock: File,
}

impl Temporary {
    /// Makes one in `parent`, after removing those of makers that are dead.
    ///
    /// # Errors
    /// Those of the file system.
    pub(super) fn make(parent: &Path) -> io::Result<Self> {
        for left in super::entries(parent) {
            if is_unfinished(&left)
                && let Ok(Some(_lock)) = lock(&left)
            {
                super::remove(&left);
            }
        }
        loop {
            let path = parent.join(format!("{PREFIX}{}-{}", std::process::id(), super::unique()));
            match std::fs::create_dir(&path) {
                // Of an earlier process with our id, or one in another process id namespace.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
                other => other?,
            }
            match lock(&path) {
                Ok(Some(lock)) => return Ok(Self { path, _lock: lock }),
                // Somebody took it for a dead one's in the moment before it was locked.
                Ok(None) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
    }
}

/// Whether the name says that it is not finished.
pub(super) fn is_unfinished(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(PREFIX.as_bytes()))
}

/// Whether somebody is filling the folder just now, or may be: one that belongs to an id from inside may be closed to us.
pub(super) fn is_in_use(path: &Path) -> bool {
    is_unfinished(path) && !matches!(lock(path), Ok(Some(_)))
}

/// The folder's lock, if nobody has it and the folder is still there.
fn lock(path: &Path) -> io::Result<Option<File>> {
    let folder = File::open(path)?;
    match rustix::fs::flock(&folder, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok((rustix::fs::fstat(&folder)?.st_nlink > 0).then_some(folder)),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_in_use_stays_and_what_was_left_goes() {
        let dir = std::env::temp_dir().join(format!("cellblock-temporary-{}", std::process::id()));
        let left = dir.join(".tmp-1-0");
        std::fs::create_dir_all(left.join("below")).expect("mkdir");
        std::fs::create_dir(dir.join("finished")).expect("mkdir");
        let first = Temporary::make(&dir).expect("made");
        assert!(!left.exists() && dir.join("finished").exists());
        assert!(is_in_use(&first.path));
        let second = Temporary::make(&dir).expect("made");
        assert!(first.path.exists() && first.path != second.path);
        let path = first.path.clone();
        drop(first);
        assert!(!is_in_use(&path));
        drop(Temporary::make(&dir).expect("made"));
        assert!(!path.exists() && second.path.exists());
        super::super::remove(&dir);
    }
}
