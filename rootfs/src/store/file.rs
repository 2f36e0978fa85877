//! Writing so that a kill or a power cut at any instruction leaves either the old or the new state: temporary name, fsync, rename.
//!
//! A temporary file is named `.tmp-*` and locked (flock) by its writer, so that whoever finds one with a free lock knows that its writer
//! is gone. Creating and sweeping both happen under the store's lock: a file cannot be swept between its creation and its lock.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::error::{At, StoreError};

/// What the names of all temporary files and directories start with.
pub(super) const TEMPORARY: &str = ".tmp-";

/// 16 random hexadecimal digits.
pub(crate) fn random() -> Result<String, StoreError> {
    let mut bytes = [0u8; 8];
    // getrandom(2): up to 256 bytes are never cut short.
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())
        .map_err(io::Error::from)
        .at("read random bytes for", Path::new(TEMPORARY))?;
    Ok(format!("{:016x}", u64::from_ne_bytes(bytes)))
}

/// Makes a directory and those above it that only the person may enter: an image's set-user-id files must not be reachable for others.
pub(super) fn make_private_dir(path: &Path) -> Result<(), StoreError> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path).at("create the directory", path)
}

/// Makes a directory's entries durable.
pub(super) fn sync_dir(path: &Path) -> Result<(), StoreError> {
    File::open(path).and_then(|dir| dir.sync_all()).at("flush the directory", path)
}

/// A flock(2) on a file that is only there to be locked; free when dropped or when the process dies.
#[derive(Debug)]
pub struct FileLock {
    file: File,
    path: PathBuf,
}

impl FileLock {
    /// Waits until nobody else holds the lock `path`.
    pub(super) fn exclusive(path: &Path) -> Result<Self, StoreError> {
        loop {
            // `None` cannot come from a lock that waits; if it did, trying again is right.
            if let Some(lock) = Self::acquire(path, |file| file.lock().map(|()| true))? {
                return Ok(lock);
            }
        }
    }

    /// Waits until nobody holds the lock `path` exclusively.
    pub(super) fn shared(path: &Path) -> Result<Self, StoreError> {
        loop {
            if let Some(lock) = Self::acquire(path, |file| file.lock_shared().map(|()| true))? {
                return Ok(lock);
            }
        }
    }

    /// The lock `path`, or `None` if somebody else holds it.
    pub(super) fn try_exclusive(path: &Path) -> Result<Option<Self>, StoreError> {
        Self::acquire(path, |file| match file.try_lock() {
            Ok(()) => Ok(true),
            Err(fs::TryLockError::WouldBlock) => Ok(false),
            Err(fs::TryLockError::Error(error)) => Err(error),
        })
    }

    /// Removes the file while the lock is held. Who waits for it notices, and locks a new one.
    pub(super) fn remove(self) -> Result<(), StoreError> {
        fs::remove_file(&self.path).at("remove the lock file", &self.path)
    }

    /// The open file, so that a process can hand the lock on to the program it becomes.
    #[must_use]
    pub const fn file(&self) -> &File {
        &self.file
    }

    fn acquire(path: &Path, lock: impl Fn(&File) -> io::Result<bool>) -> Result<Option<Self>, StoreError> {
        loop {
            let mut options = OpenOptions::new();
            options.read(true).write(true).create(true).truncate(false).mode(0o600).custom_flags(no_follow());
            let file = options.open(path).at("open the lock", path)?;
            if !lock(&file).at("lock", path)? {
                return Ok(None);
            }
            // The file may have been removed while we waited: then others lock another one.
            let ours = file.metadata().at("look at", path)?;
            match fs::symlink_metadata(path) {
                Ok(there) if there.ino() == ours.ino() && there.dev() == ours.dev() => {
                    return Ok(Some(Self { file, path: path.to_owned() }));
                }
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error).at("look at", path),
            }
        }
    }
}

/// `O_NOFOLLOW`, as the number that `custom_flags` wants.
fn no_follow() -> i32 {
    rustix::fs::OFlags::NOFOLLOW.bits().cast_signed()
}

/// A file under a temporary name; removed when dropped, unless it was [kept](Self::keep).
#[derive(Debug)]
pub(crate) struct TempFile {
    file: File,
    path: PathBuf,
    kept: bool,
}

impl TempFile {
    /// Creates it in `dir`. To be called under the store's lock if `dir` is ever swept.
    pub(super) fn create(dir: &Path) -> Result<Self, StoreError> {
        let path = dir.join(format!("{TEMPORARY}{}", random()?));
        let file =
            OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path).at("create", &path)?;
        let temp = Self { file, path, kept: false };
        temp.file.lock().at("lock", &temp.path)?;
        Ok(temp)
    }

    /// Where it is now.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Makes the content durable.
    pub(super) fn sync(&self) -> Result<(), StoreError> {
        self.file.sync_all().at("flush", &self.path)
    }

    /// Gives it its name, replacing what has that name. The content has to be [synced](Self::sync) before, the directory after.
    pub(super) fn keep(mut self, path: &Path) -> Result<(), StoreError> {
        fs::rename(&self.path, path).at("rename to", path)?;
        self.kept = true;
        Ok(())
    }
}

impl Write for TempFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Drop for TempFile {
    fn drop(&mut self) {
        if !self.kept {
            // Whatever fails here is found and removed by the next sweep.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Replaces the file `path` by `content`, as a whole or not at all. To be called under the store's lock.
pub(super) fn write_atomic(path: &Path, content: &[u8]) -> Result<(), StoreError> {
    let dir = path.parent().unwrap_or(Path::new("/"));
    let mut temp = TempFile::create(dir)?;
    temp.write_all(content).at("write", temp.path())?;
    temp.sync()?;
    temp.keep(path)?;
    sync_dir(dir)
}

/// Removes the temporary files in `dir` whose writers are gone. To be called under the store's lock.
pub(super) fn sweep_files(dir: &Path) -> Result<(), StoreError> {
    for entry in fs::read_dir(dir).at("list", dir)? {
        let entry = entry.at("list", dir)?;
        if !entry.file_name().as_encoded_bytes().starts_with(TEMPORARY.as_bytes()) {
            continue;
        }
        let path = entry.path();
        let file = match OpenOptions::new().read(true).custom_flags(no_follow()).open(&path) {
            Ok(file) => file,
            // Its writer has just finished with it.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error).at("open", &path),
        };
        if file.try_lock().is_ok() {
            fs::remove_file(&path).at("remove", &path)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dropped_temporary_file_is_gone_and_a_kept_one_is_whole() {
        let dir = tempfile::tempdir().unwrap();
        drop(TempFile::create(dir.path()).unwrap());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);

        write_atomic(&dir.path().join("a"), b"one").unwrap();
        write_atomic(&dir.path().join("a"), b"two").unwrap();
        assert_eq!(fs::read(dir.path().join("a")).unwrap(), b"two");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn sweeping_spares_the_living() {
        let dir = tempfile::tempdir().unwrap();
        let living = TempFile::create(dir.path()).unwrap();
        fs::write(dir.path().join(".tmp-dead"), b"").unwrap();
        fs::write(dir.path().join("other"), b"").unwrap();
        sweep_files(dir.path()).unwrap();
        assert!(living.path().exists());
        assert!(!dir.path().join(".tmp-dead").exists());
        assert!(dir.path().join("other").exists());
    }

    #[test]
    fn locks_exclude_each_other_and_survive_removal() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let held = FileLock::exclusive(&path).unwrap();
        assert!(FileLock::try_exclusive(&path).unwrap().is_none());
        held.remove().unwrap();
        let again = FileLock::try_exclusive(&path).unwrap().expect("a new file is locked");
        drop(again);
        let shared = FileLock::shared(&path).unwrap();
        let other = FileLock::shared(&path).unwrap();
        assert!(FileLock::try_exclusive(&path).unwrap().is_none());
        drop((shared, other));
        assert!(FileLock::try_exclusive(&path).unwrap().is_some());
    }
}
