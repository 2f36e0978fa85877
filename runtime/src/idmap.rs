//! The host's files inside a cell that real root started.
//!
//! Such a cell's ids lie in a range that nobody on the host has, so what root or anybody owns would show as `nobody` and could not be
//! written. Id-mapped mounts (`mount_setattr(2)`, Linux 5.12) lay the cell's ids over the file's: id N on disk is id N inside.
//! libcontainer 0.7 refuses id-mapped mounts in a specification, so they are attached here, in OUTER, and bound from there.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags};
use rustix::mount::{MoveMountFlags, OpenTreeFlags};
use rustix::process::Pid;

/// Why a host path cannot be shown.
#[derive(Debug, thiserror::Error)]
pub enum IdMapError {
    /// The file system has no support for it.
    #[error("the file system of {path} cannot be shown with other ids: {source}", path = path.display())]
    Unsupported {
        /// The mount's source.
        path: PathBuf,
        /// What the kernel says.
        source: io::Error,
    },
    /// Another step failed.
    #[error("cannot prepare the mount of {path}: {source}", path = path.display())]
    Io {
        /// The mount's source.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Makes id-mapped views of files of the host, by the user namespace of one process.
#[derive(Debug)]
pub(crate) struct Views {
    folder: PathBuf,
    namespace: OwnedFd,
    next: std::cell::Cell<usize>,
}

impl Views {
    /// Views attached below `folder`; `holder` is a process in the user namespace that maps.
    pub(crate) fn new(folder: &Path, holder: Pid) -> Result<Self, IdMapError> {
        let path = PathBuf::from(format!("/proc/{}/ns/user", holder.as_raw_nonzero()));
        let namespace = rustix::fs::open(&path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
            .map_err(|e| IdMapError::Io { path, source: e.into() })?;
        Ok(Self { folder: folder.to_owned(), namespace, next: std::cell::Cell::new(0) })
    }

    /// Where `source` can be seen with the cell's ids.
    pub(crate) fn of(&self, source: &Path) -> Result<PathBuf, IdMapError> {
        let failed = |e: io::Error| IdMapError::Io { path: source.to_owned(), source: e };
        let flags = OpenTreeFlags::OPEN_TREE_CLONE
            | OpenTreeFlags::OPEN_TREE_CLOEXEC
            | OpenTreeFlags::AT_EMPTY_PATH
            | OpenTreeFlags::AT_RECURSIVE;
        let open = crate::root::open_resolved(source).map_err(|e| failed(e.into()))?;
        let tree = rustix::mount::open_tree(&open, c"", flags).map_err(|e| failed(e.into()))?;
        cellblock_sys::mount::set_id_map(tree.as_fd(), self.namespace.as_fd())
            .map_err(|e| IdMapError::Unsupported { path: source.to_owned(), source: e })?;
        let stat = rustix::fs::fstat(&tree).map_err(|e| failed(e.into()))?;
        let target = self.folder.join(self.next.get().to_string());
        self.next.set(self.next.get() + 1);
        let make = || -> io::Result<()> {
            std::fs::create_dir_all(&self.folder)?;
            let directory = rustix::fs::FileType::from_raw_mode(stat.st_mode).is_dir();
            if directory { std::fs::create_dir(&target) } else { std::fs::File::create_new(&target).map(drop) }
        };
        make().map_err(failed)?;
        // The way to the runtime directory may have links, and binds follow none.
        let target = target.canonicalize().map_err(failed)?;
        rustix::mount::move_mount(&tree, c"", CWD, &target, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
            .map_err(|e| failed(e.into()))?;
        Ok(target)
    }
}
