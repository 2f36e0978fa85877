//! Owners, modes, times and extended attributes: of files at once, of directories at the end.

use std::collections::BTreeSet;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, Gid, Mode, OFlags, RawMode, Timespec, Timestamps, UTIME_OMIT, Uid, XattrFlags};
use rustix::io::Errno;

use super::error::{Refusal, UnpackError};
use super::parents::RESOLVE;
use super::{OverlayForm, Ownership, Unpacker, split};
use crate::archive::{Entry, Reader, Timestamp, Xattr};

/// The attribute name spaces of overlayfs. `user.` is read by mounts with `userxattr`, `trusted.` by all others.
const OVERLAY_PREFIXES: [&[u8]; 2] = [b"user.overlay.", b"trusted.overlay."];

/// What is still to be done to a directory.
#[derive(Debug, Default)]
pub(super) struct Directory {
    /// Its final metadata; `None` if it was there before and stays as it is.
    pub(super) metadata: Option<Metadata>,
    /// It hides everything below it in lower layers.
    pub(super) opaque: bool,
    /// Names of the whiteouts that were made in it.
    pub(super) whiteouts: BTreeSet<Vec<u8>>,
}

/// Final metadata.
#[derive(Debug)]
pub(super) struct Metadata {
    pub(super) mode: RawMode,
    /// User and group; `None` leaves them.
    pub(super) owner: Option<(u32, u32)>,
    pub(super) mtime: Option<Timestamp>,
    pub(super) xattrs: Vec<Xattr>,
}

/// Refuses attributes with which an archive would speak to overlayfs.
pub(super) fn check_xattrs(entry: &Entry) -> Result<(), UnpackError> {
    let reserved = |xattr: &Xattr| OVERLAY_PREFIXES.iter().any(|prefix| xattr.name.starts_with(prefix));
    if entry.xattrs.iter().any(reserved) {
        return Err(UnpackError::refused(&entry.path, Refusal::OverlayXattr));
    }
    Ok(())
}

impl Unpacker<'_> {
    /// The owner on disk for the archive's ids; `None` leaves it to the caller's own.
    pub(super) fn owner(&self, uid: u32, gid: u32, path: &[u8]) -> Result<Option<(u32, u32)>, UnpackError> {
        match self.options.ownership {
            Ownership::Single => Ok(None),
            Ownership::Keep => Ok(Some((uid, gid))),
            Ownership::Shift { base, count } => {
                let shift = |id: u32| if id < count { base.checked_add(id).filter(|id| *id != u32::MAX) } else { None };
                match (shift(uid), shift(gid)) {
                    (Some(uid), Some(gid)) => Ok(Some((uid, gid))),
                    _ => Err(UnpackError::refused(path, Refusal::Owner)),
                }
            }
        }
    }

    /// The metadata an entry asks for.
    pub(super) fn metadata(&self, entry: &Entry) -> Result<Metadata, UnpackError> {
        Ok(Metadata {
            mode: entry.mode,
            owner: self.owner(entry.uid, entry.gid, &entry.path)?,
            mtime: Some(entry.mtime),
            xattrs: entry.xattrs.clone(),
        })
    }

    /// Gives an open file or directory its final metadata. In this order: chown(2) clears setuid bits and file capabilities, and
    /// setting `user.*` attributes needs write permission, which the mode may take away.
    pub(super) fn apply(&mut self, fd: BorrowedFd<'_>, metadata: &Metadata, path: &[u8]) -> Result<(), UnpackError> {
        if let Some(owner) = metadata.owner {
            let chown = |uid, gid| rustix::fs::fchown(fd, uid, gid);
            change_owner(chown, owner, path)?;
        }
        for xattr in &metadata.xattrs {
            self.set_xattr(fd, xattr, path)?;
        }
        rustix::fs::fchmod(fd, Mode::from_raw_mode(metadata.mode))
            .map_err(|errno| UnpackError::os("set the mode of", path, errno))?;
        if let Some(mtime) = metadata.mtime {
            rustix::fs::futimens(fd, &times(mtime)).map_err(|errno| UnpackError::os("set the time of", path, errno))?;
        }
        Ok(())
    }

    /// Like [`Self::apply`] for entries that cannot be opened: links, pipes, devices. `name` is in the current directory.
    pub(super) fn apply_by_name(&mut self, entry: &Entry, name: &[u8], mode: bool) -> Result<(), UnpackError> {
        let path = &entry.path;
        let parent = self.parents.current();
        if let Some(owner) = self.owner(entry.uid, entry.gid, path)? {
            let chown = |uid, gid| rustix::fs::chownat(parent, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW);
            change_owner(chown, owner, path)?;
        }
        if mode {
            // Made a moment ago by mknodat in our own directory: no link to follow.
            rustix::fs::chmodat(parent, name, Mode::from_raw_mode(entry.mode), AtFlags::empty())
                .map_err(|errno| UnpackError::os("set the mode of", path, errno))?;
        }
        rustix::fs::utimensat(parent, name, &times(entry.mtime), AtFlags::SYMLINK_NOFOLLOW)
            .map_err(|errno| UnpackError::os("set the time of", path, errno))?;
        // xattr(7): `user.*` is only for files and directories, and capabilities only for files.
        self.counts.skipped_xattrs += entry.xattrs.len() as u64;
        Ok(())
    }

    fn set_xattr(&mut self, fd: BorrowedFd<'_>, xattr: &Xattr, path: &[u8]) -> Result<(), UnpackError> {
        let wanted = xattr.name.starts_with(b"user.") || xattr.name == b"security.capability";
        let set = if wanted {
            rustix::fs::fsetxattr(fd, xattr.name.as_slice(), &xattr.value, XattrFlags::empty())
        } else {
            Err(Errno::OPNOTSUPP)
        };
        match set {
            Ok(()) => Ok(()),
            // No CAP_SETFCAP, or a file system without attributes.
            Err(Errno::OPNOTSUPP | Errno::PERM) => {
                self.counts.skipped_xattrs += 1;
                Ok(())
            }
            Err(errno) => Err(UnpackError::os("set an extended attribute of", path, errno)),
        }
    }

    /// Gives all directories their final metadata, children before parents: a parent's mode may close the way.
    pub(super) fn finish(&mut self) -> Result<(), UnpackError> {
        while let Some((path, directory)) = self.directories.pop_last() {
            if directory.metadata.is_none() && !directory.opaque && directory.whiteouts.is_empty() {
                continue;
            }
            let fd = self.open(&path)?;
            self.mark_for_overlay(fd.as_fd(), &directory, &path)?;
            if let Some(metadata) = &directory.metadata {
                self.apply(fd.as_fd(), metadata, &path)?;
            }
        }
        Ok(())
    }

    fn open(&mut self, path: &[u8]) -> Result<OwnedFd, UnpackError> {
        let (parent, name) = split(path);
        self.reenter(parent)?;
        let name = if name.is_empty() { b"." } else { name };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        cellblock_sys::scoped::openat2(self.parents.current(), name, flags, Mode::empty(), RESOLVE)
            .map_err(|errno| UnpackError::os("open the directory", path, errno))
    }

    /// Makes a directory that must be there the current one.
    pub(super) fn reenter(&mut self, path: &[u8]) -> Result<(), UnpackError> {
        self.enter::<std::io::Empty>(path, None::<&mut Reader<_>>)
    }

    fn mark_for_overlay(&self, fd: BorrowedFd<'_>, directory: &Directory, path: &[u8]) -> Result<(), UnpackError> {
        let (name, value) = match self.options.overlay_form {
            OverlayForm::User if directory.opaque => (c"user.overlay.opaque", b"y"),
            // "x": entries of this directory have to be looked at for the whiteout attribute.
            OverlayForm::User if !directory.whiteouts.is_empty() => (c"user.overlay.opaque", b"x"),
            OverlayForm::Trusted if directory.opaque => (c"trusted.overlay.opaque", b"y"),
            _ => return Ok(()),
        };
        rustix::fs::fsetxattr(fd, name, value, XattrFlags::empty())
            .map_err(|errno| UnpackError::os("mark for overlayfs the directory", path, errno))
    }
}

/// Changes the owner, and finds out which of the two ids is the one that is not mapped.
fn change_owner(
    chown: impl Fn(Option<Uid>, Option<Gid>) -> rustix::io::Result<()>,
    (uid, gid): (u32, u32),
    path: &[u8],
) -> Result<(), UnpackError> {
    let (user, group) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
    match chown(user, group) {
        Ok(()) => Ok(()),
        // user_namespaces(7): ids without a mapping are EINVAL.
        Err(Errno::INVAL) => {
            let (which, id) = if chown(user, None) == Err(Errno::INVAL) { ("user", uid) } else { ("group", gid) };
            Err(UnpackError::UnmappedId { path: crate::archive::printable(path), which, id })
        }
        Err(errno) => Err(UnpackError::os("change the owner of", path, errno)),
    }
}

fn times(mtime: Timestamp) -> Timestamps {
    Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        last_modification: Timespec { tv_sec: mtime.seconds, tv_nsec: mtime.nanoseconds.into() },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A user namespace in which only user 0 and group 0 to 9 are mapped, as the kernel answers for it.
    fn chown(user: Option<Uid>, group: Option<Gid>) -> rustix::io::Result<()> {
        let mapped = user.is_none_or(|user| user.as_raw() == 0) && group.is_none_or(|group| group.as_raw() < 10);
        if mapped { Ok(()) } else { Err(Errno::INVAL) }
    }

    #[test]
    fn the_id_that_is_not_mapped_is_named() {
        let error = |owner| change_owner(chown, owner, b"etc/shadow").map_err(|error| error.to_string());
        assert_eq!(error((0, 9)), Ok(()));
        let told = |what| Err(format!("`etc/shadow` belongs to {what}, which is not mapped in this user namespace"));
        assert_eq!(error((0, 42)), told("group 42"));
        assert_eq!(error((7, 0)), told("user 7"));
        assert_eq!(error((7, 42)), told("user 7"));
    }
}
