//! Creates one entry in the current directory. What stands there already is replaced, never followed or written through.

use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::error::{Refusal, UnpackError};
use super::{OverlayForm, Unpacker, join, split};
use crate::archive::{Chunk, Entry, Kind, Reader};

impl Unpacker<'_> {
    /// The root itself, or a directory that exists: its metadata is set at the end.
    pub(super) fn list_directory(&mut self, entry: &Entry) -> Result<(), UnpackError> {
        let metadata = self.metadata(entry)?;
        self.counts.directories += 1;
        self.directories.entry(entry.path.clone()).or_default().metadata = Some(metadata);
        Ok(())
    }

    pub(super) fn directory(&mut self, entry: &Entry, name: &[u8]) -> Result<(), UnpackError> {
        let make = |this: &Self| rustix::fs::mkdirat(this.parents.current(), name, Mode::RWXU);
        match make(self) {
            Ok(()) => {}
            Err(Errno::EXIST) => {
                let stat = rustix::fs::statat(self.parents.current(), name, AtFlags::SYMLINK_NOFOLLOW)
                    .map_err(|errno| UnpackError::os("look at", &entry.path, errno))?;
                if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
                    let was_whiteout = self.clear(name, &entry.path)?;
                    make(self).map_err(|errno| UnpackError::os("create the directory", &entry.path, errno))?;
                    if was_whiteout {
                        // Deleted and made anew: nothing of the lower one may shine through.
                        self.directories.entry(entry.path.clone()).or_default().opaque = true;
                    }
                } else if !self.directories.contains_key(&entry.path) {
                    // Of an earlier layer: possibly closed, and to be opened before this entry's mode is noted.
                    self.reenter(&entry.path)?;
                }
            }
            Err(errno) => return Err(UnpackError::os("create the directory", &entry.path, errno)),
        }
        self.list_directory(entry)
    }

    pub(super) fn file<R: Read>(
        &mut self,
        entry: &Entry,
        name: &[u8],
        reader: &mut Reader<R>,
        tell: &mut dyn FnMut(&Reader<R>),
    ) -> Result<(), UnpackError> {
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = Mode::RUSR | Mode::WUSR;
        let fd = self
            .fresh("create", name, &entry.path, |this| rustix::fs::openat(this.parents.current(), name, flags, mode))?;
        if entry.sparse {
            rustix::fs::ftruncate(&fd, entry.size).map_err(|errno| UnpackError::os("size", &entry.path, errno))?;
        }
        let mut first = true;
        while let Some(chunk) = reader.read_data()? {
            write(&fd, chunk, entry)?;
            self.counts.file_bytes += chunk.bytes.len() as u64;
            // Small files come in one piece, and were told of with their entry.
            if !std::mem::take(&mut first) {
                tell(reader);
            }
        }
        self.counts.files += 1;
        let metadata = self.metadata(entry)?;
        self.apply(fd.as_fd(), &metadata, &entry.path)
    }

    pub(super) fn symlink(&mut self, entry: &Entry, name: &[u8], target: &[u8]) -> Result<(), UnpackError> {
        self.fresh("create the link", name, &entry.path, |this| {
            rustix::fs::symlinkat(target, this.parents.current(), name)
        })?;
        self.counts.symlinks += 1;
        self.apply_by_name(entry, name, false)
    }

    pub(super) fn hard_link(&mut self, entry: &Entry, name: &[u8], target: &[u8]) -> Result<(), UnpackError> {
        if self.skipped.contains(target) {
            self.skipped.insert(entry.path.clone());
            self.counts.skipped_devices += 1;
            return Ok(());
        }
        let refuse = |refusal| UnpackError::refused(&entry.path, refusal);
        let (target_parent, target_name) = split(target);
        // A whiteout is no entry, although it is a file here.
        if self.directories.get(target_parent).is_some_and(|directory| directory.whiteouts.contains(target_name)) {
            return Err(refuse(Refusal::LinkTarget));
        }
        let (parent, _) = split(&entry.path);
        let here = self.parents.current().try_clone_to_owned().map_err(|source| UnpackError::Os {
            operation: "open the directory of",
            path: crate::archive::printable(&entry.path),
            source,
        })?;
        self.reenter(target_parent).map_err(|error| match error {
            UnpackError::Os { source, .. } if source.kind() == std::io::ErrorKind::NotFound => {
                refuse(Refusal::LinkTarget)
            }
            error => error,
        })?;
        let there = self.parents.current();
        let stat = rustix::fs::statat(there, target_name, AtFlags::SYMLINK_NOFOLLOW).map_err(|errno| match errno {
            Errno::NOENT => refuse(Refusal::LinkTarget),
            errno => UnpackError::os("look at the target of", &entry.path, errno),
        })?;
        if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            return Err(refuse(Refusal::LinkToDirectory));
        }
        // Without AT_SYMLINK_FOLLOW a link is linked itself, link(2).
        let link = || rustix::fs::linkat(there, target_name, &here, name, AtFlags::empty());
        let linked = match link() {
            Err(Errno::EXIST) => {
                let there = there.try_clone_to_owned().map_err(|source| UnpackError::Os {
                    operation: "open the directory of",
                    path: crate::archive::printable(target),
                    source,
                })?;
                self.reenter(parent)?;
                self.clear(name, &entry.path)?;
                rustix::fs::linkat(&there, target_name, &here, name, AtFlags::empty())
            }
            other => other,
        };
        linked.map_err(|errno| match errno {
            // It was below the directory that had to go.
            Errno::NOENT => refuse(Refusal::LinkTarget),
            errno => UnpackError::os("create the hard link", &entry.path, errno),
        })?;
        self.counts.hard_links += 1;
        Ok(())
    }

    /// Pipes and devices.
    pub(super) fn node(&mut self, entry: &Entry, name: &[u8]) -> Result<(), UnpackError> {
        let (file_type, device) = match entry.kind {
            Kind::CharDevice { major: 0, minor: 0 } => {
                return Err(UnpackError::refused(&entry.path, Refusal::OverlayDevice));
            }
            Kind::CharDevice { major, minor } => (FileType::CharacterDevice, rustix::fs::makedev(major, minor)),
            Kind::BlockDevice { major, minor } => (FileType::BlockDevice, rustix::fs::makedev(major, minor)),
            _ => (FileType::Fifo, 0),
        };
        if file_type != FileType::Fifo && !self.options.devices {
            // It still replaces what was there.
            self.clear(name, &entry.path)?;
            self.skipped.insert(entry.path.clone());
            self.counts.skipped_devices += 1;
            return Ok(());
        }
        self.fresh("create the node", name, &entry.path, |this| {
            rustix::fs::mknodat(this.parents.current(), name, file_type, Mode::RUSR | Mode::WUSR, device)
        })?;
        if file_type == FileType::Fifo {
            self.counts.fifos += 1;
        } else {
            self.counts.devices += 1;
        }
        self.apply_by_name(entry, name, true)
    }

    /// Creates something new by `make`, which must fail with `EEXIST` if the name is taken; then the old one is removed first.
    fn fresh<T>(
        &mut self,
        operation: &'static str,
        name: &[u8],
        path: &[u8],
        make: impl Fn(&Self) -> rustix::io::Result<T>,
    ) -> Result<T, UnpackError> {
        let made = match make(self) {
            Err(Errno::EXIST) => {
                self.clear(name, path)?;
                make(self)
            }
            other => other,
        };
        made.map_err(|errno| UnpackError::os(operation, path, errno))
    }

    /// Removes whatever `name` is in the current directory; true if it was a whiteout of this layer.
    pub(super) fn clear(&mut self, name: &[u8], path: &[u8]) -> Result<bool, UnpackError> {
        match rustix::fs::unlinkat(self.parents.current(), name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            // Linux says EISDIR, POSIX EPERM.
            Err(Errno::ISDIR | Errno::PERM) => {
                self.forget_below(path);
                cellblock_sys::tree::remove(self.parents.current(), std::os::unix::ffi::OsStrExt::from_bytes(name))
                    .map_err(|source| UnpackError::Os {
                        operation: "replace the directory",
                        path: crate::archive::printable(path),
                        source,
                    })?;
            }
            Err(errno) => return Err(UnpackError::os("replace", path, errno)),
        }
        let (parent, _) = split(path);
        Ok(self.directories.get_mut(parent).is_some_and(|directory| directory.whiteouts.remove(name)))
    }

    /// Drops what is known of a directory that is about to go, and of everything below it.
    pub(super) fn forget_below(&mut self, path: &[u8]) {
        self.directories.remove(path);
        let below = join(path, b"");
        while let Some(known) = self.directories.range(below.clone()..).next().map(|(known, _)| known.clone())
            && known.starts_with(&below)
        {
            self.directories.remove(&known);
        }
        self.skipped.retain(|known| !known.starts_with(&below));
        if self.options.overlay_form == OverlayForm::Flatten {
            self.present.retain(|known| !known.starts_with(&below));
        }
    }
}

/// Writes all of a chunk at its place.
fn write(fd: &OwnedFd, chunk: Chunk<'_>, entry: &Entry) -> Result<(), UnpackError> {
    let Chunk { mut offset, mut bytes } = chunk;
    while !bytes.is_empty() {
        // Without holes the place is where the file ends anyway.
        let written = if entry.sparse { rustix::io::pwrite(fd, bytes, offset) } else { rustix::io::write(fd, bytes) };
        match written {
            Ok(0) => return Err(UnpackError::os("write", &entry.path, Errno::NOSPC)),
            Ok(count) => {
                bytes = &bytes[count..];
                offset += count as u64;
            }
            Err(Errno::INTR) => {}
            Err(errno) => return Err(UnpackError::os("write", &entry.path, errno)),
        }
    }
    Ok(())
}
