//! Folders that calls were about before, so that the way to them need not be asked for again: most calls are about a few folders.
//!
//! Asking is dear: a descriptor of the folder, the path that `/proc` tells of it, and the same path once more on the writable mount. What is kept
//! is the second of these, by the identity of the folder on its mount. It is a guess as before: the third step is taken at every call, and
//! what it leads to must be the folder that the caller's path leads to. So a folder that was moved meanwhile, by whomever, or whose number
//! another one has, is not found where it was, and asked for anew. Nothing else is kept: no descriptor, nor whether a name is there.

use std::cell::RefCell;
use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;

use rustix::fs::{AtFlags, FileType, Stat, StatVfsMountFlags, Statx, StatxFlags};

/// A folder as the caller sees it: also on which mount, for what lies below a root may be seen elsewhere in the cell too, by other rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    mount: u64,
    device: (u32, u32),
    inode: u64,
}

/// `STATX_MNT_ID_UNIQUE` (Linux 6.8): ids of mounts that are never given again. Those before it are given again when a mount has gone; none but
/// the covers of single files comes and goes in a cell, on file systems of their own.
const UNIQUE: StatxFlags = StatxFlags::from_bits_retain(0x4000);

impl Key {
    /// That of what `path` leads to; none if that cannot be seen, or this kernel tells no mounts (before 5.8).
    pub(crate) fn of(base: BorrowedFd<'_>, path: &[u8]) -> Option<Self> {
        Self::told(&look(base, path, AtFlags::empty())?)
    }

    /// That of an open file.
    pub(crate) fn of_open(file: &OwnedFd) -> Option<Self> {
        Self::told(&look(file.as_fd(), b"", AtFlags::EMPTY_PATH)?)
    }

    fn told(seen: &Statx) -> Option<Self> {
        let told = StatxFlags::from_bits_retain(seen.stx_mask);
        let device = (seen.stx_dev_major, seen.stx_dev_minor);
        told.intersects(StatxFlags::MNT_ID | UNIQUE).then_some(Self {
            mount: seen.stx_mnt_id,
            device,
            inode: seen.stx_ino,
        })
    }

    /// Whether `stat`, perhaps by another mount, is of the same folder.
    pub(crate) fn is(&self, stat: &Stat) -> bool {
        let device = (rustix::fs::major(stat.st_dev), rustix::fs::minor(stat.st_dev));
        (self.device, self.inode) == (device, stat.st_ino)
            && FileType::from_raw_mode(stat.st_mode) == FileType::Directory
    }
}

fn look(base: BorrowedFd<'_>, path: &[u8], flags: AtFlags) -> Option<Statx> {
    rustix::fs::statx(base, path, flags, StatxFlags::TYPE | StatxFlags::INO | StatxFlags::MNT_ID | UNIQUE).ok()
}

/// Where a folder was.
#[derive(Clone, Debug)]
pub(crate) enum Was {
    /// At this path, in a root.
    Inside(Rc<[u8]>),
    /// In none, and none begins in it.
    Elsewhere,
}

/// What was found out.
#[derive(Debug, Default)]
pub(crate) struct Known {
    folders: RefCell<HashMap<Key, Was>>,
    writable: RefCell<HashMap<u64, bool>>,
}

impl Known {
    /// Where the folder was.
    pub(crate) fn get(&self, key: &Key) -> Option<Was> {
        self.folders.borrow().get(key).cloned()
    }

    /// It was there.
    pub(crate) fn learn(&self, folder: &OwnedFd, was: Was) {
        /// How many are kept.
        const KEPT: usize = 1024;
        let Some(key) = Key::of_open(folder) else { return };
        let mut folders = self.folders.borrow_mut();
        if folders.len() >= KEPT {
            folders.clear();
        }
        folders.insert(key, was);
    }

    /// It is there no more.
    pub(crate) fn forget(&self, key: &Key) {
        self.folders.borrow_mut().remove(key);
    }

    /// Whether the open file `path` is on a mount that is known to be writable.
    pub(crate) fn is_writable(&self, base: BorrowedFd<'_>, path: &[u8]) -> bool {
        Key::of(base, path).is_some_and(|key| self.writable.borrow().get(&key.mount) == Some(&true))
    }

    /// Looks whether the open file is on a writable mount.
    pub(crate) fn learn_writable(&self, file: &OwnedFd) -> bool {
        let writable = rustix::fs::fstatvfs(file).is_ok_and(|of| !of.f_flag.contains(StatVfsMountFlags::RDONLY));
        if let Some(key) = Key::of_open(file) {
            let mut all = self.writable.borrow_mut();
            if all.len() >= 256 {
                all.clear();
            }
            all.insert(key.mount, writable);
        }
        writable
    }
}

#[cfg(test)]
mod tests {
    use rustix::fs::{CWD, Mode, OFlags};

    use super::*;

    fn open(path: &str) -> OwnedFd {
        rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).expect("it is there")
    }

    #[test]
    fn a_folder_has_one_key_and_another_mount_another() {
        let (root, by_dots) = (open("/"), Key::of(CWD.as_fd(), b"/proc/.."));
        let key = Key::of_open(&root).expect("a kernel that tells mounts");
        assert_eq!(by_dots, Some(key));
        assert!(key.is(&rustix::fs::fstat(&root).expect("open")));
        let other = Key::of(CWD.as_fd(), b"/proc/").expect("it is there");
        assert_ne!(other, key);
        assert!(!key.is(&rustix::fs::stat("/proc").expect("it is there")));
        // A file is no folder, whatever its number.
        let file = open("/proc/version");
        assert!(!Key::of_open(&file).expect("open").is(&rustix::fs::fstat(&file).expect("open")));
        assert_eq!(Key::of(CWD.as_fd(), b"/nowhere/"), None);
    }

    #[test]
    fn what_was_learned_is_forgotten() {
        let (known, root) = (Known::default(), open("/"));
        let key = Key::of_open(&root).expect("a kernel that tells mounts");
        assert!(known.get(&key).is_none());
        known.learn(&root, Was::Inside(Rc::from(&b"/x"[..])));
        assert!(matches!(known.get(&key), Some(Was::Inside(path)) if *path == *b"/x"));
        known.forget(&key);
        assert!(known.get(&key).is_none());
        // Of `/proc` the kernel says that it may be written, whatever becomes of it.
        assert!(!known.is_writable(CWD.as_fd(), b"/proc"));
        let writable = known.learn_writable(&open("/proc"));
        assert_eq!(known.is_writable(CWD.as_fd(), b"/proc"), writable);
    }
}
