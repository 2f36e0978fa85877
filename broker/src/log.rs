//! What was asked and answered, in the cell's audit.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use cellblock_egress::audit::{Audit, Line};

/// The cell's audit, which the process of its network writes too.
#[derive(Debug)]
pub(crate) struct Log {
    path: PathBuf,
    open: Mutex<Option<(Audit, u64)>>,
}

impl Log {
    pub(crate) fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), open: Mutex::default() }
    }

    /// Writes a line; false if that failed, and what it says must not happen.
    pub(crate) fn line(&self, line: Line) -> bool {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        // A full file is renamed by whoever meets it: not the one we have open is read then, but the one that has its name.
        let named = std::fs::metadata(&self.path).map_or(0, |metadata| metadata.ino());
        if open.as_ref().is_none_or(|(_, inode)| *inode != named) {
            let Ok(audit) = Audit::open(&self.path) else { return false };
            let inode = std::fs::metadata(&self.path).map_or(0, |metadata| metadata.ino());
            *open = Some((audit, inode));
        }
        open.as_mut().is_some_and(|(audit, _)| audit.line(line).is_ok())
    }

    /// Writes what was only counted.
    pub(crate) fn flush(&self) {
        if let Some((audit, _)) = self.open.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
            let _ = audit.flush();
        }
    }
}
