//! What a layer deletes: OCI's marks in, overlayfs's marks out, or the deletion itself.

use std::io::Read;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, XattrFlags};
use rustix::io::Errno;

use super::error::{Refusal, UnpackError};
use super::parents::RESOLVE;
use super::{OverlayForm, Unpacker, join, split};
use crate::archive::{Entry, Kind, Reader, printable};

/// OCI image-spec, layer.md, "Whiteouts".
const PREFIX: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";

/// A deletion mark of a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mark<'a> {
    /// The name in the mark's directory is deleted.
    Name(&'a [u8]),
    /// Everything that lower layers have in the mark's directory is deleted.
    Opaque,
}

/// The mark that an entry is, if it is one.
pub(super) fn mark(entry: &Entry) -> Result<Option<Mark<'_>>, UnpackError> {
    let refuse = |refusal| Err(UnpackError::refused(&entry.path, refusal));
    let (parent, name) = split(&entry.path);
    let reserved = |path: &[u8]| path.split(|byte| *byte == b'/').any(|part| part.starts_with(PREFIX));
    if reserved(parent) {
        return refuse(Refusal::ReservedName);
    }
    if let Kind::HardLink { target } = &entry.kind
        && reserved(target)
    {
        return refuse(Refusal::ReservedName);
    }
    let Some(hidden) = name.strip_prefix(PREFIX) else { return Ok(None) };
    if entry.kind != Kind::File || entry.size != 0 {
        return refuse(Refusal::Whiteout);
    }
    match hidden {
        _ if name == OPAQUE => Ok(Some(Mark::Opaque)),
        // `.wh...` would delete the parent directory.
        b"" | b"." | b".." => refuse(Refusal::Whiteout),
        // aufs kept its own files under such names.
        hidden if hidden.starts_with(PREFIX) => refuse(Refusal::ReservedName),
        hidden => Ok(Some(Mark::Name(hidden))),
    }
}

impl Unpacker<'_> {
    pub(super) fn whiteout<R: Read>(
        &mut self,
        parent: &[u8],
        mark: Mark<'_>,
        entry: &Entry,
        reader: &mut Reader<R>,
    ) -> Result<(), UnpackError> {
        match mark {
            Mark::Name(_) => self.counts.whiteouts += 1,
            Mark::Opaque => self.counts.opaque_directories += 1,
        }
        self.enter(parent, Some(reader))?;
        match (self.options.overlay_form, mark) {
            (OverlayForm::Flatten, Mark::Opaque) => self.delete_lower(parent),
            (OverlayForm::Flatten, Mark::Name(name)) => {
                let path = join(parent, name);
                if self.present.contains(&path) { self.delete_lower(&path) } else { self.delete(name, &path) }
            }
            (_, Mark::Opaque) => self.make_opaque(parent),
            (_, Mark::Name(name)) => self.hide(parent, name, entry),
        }
    }

    /// Makes an overlayfs whiteout in the current directory, unless what this layer itself has there does the same.
    fn hide(&mut self, parent: &[u8], name: &[u8], entry: &Entry) -> Result<(), UnpackError> {
        let directory = self.directories.entry(parent.to_vec()).or_default();
        if directory.opaque || directory.whiteouts.contains(name) {
            return Ok(());
        }
        let here = self.parents.current();
        let made = if self.options.overlay_form == OverlayForm::User {
            let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            rustix::fs::openat(here, name, flags, Mode::RUSR | Mode::WUSR)
                .and_then(|fd| rustix::fs::fsetxattr(fd, c"user.overlay.whiteout", b"y", XattrFlags::empty()))
        } else {
            // Any user may create this one device, Linux 5.8.
            rustix::fs::mknodat(here, name, FileType::CharacterDevice, Mode::empty(), rustix::fs::makedev(0, 0))
        };
        match made {
            Ok(()) => {
                directory.whiteouts.insert(name.to_vec());
                Ok(())
            }
            // The layer's own entry hides the lower one, but a directory would be merged with it.
            Err(Errno::EXIST) => {
                let stat = rustix::fs::statat(here, name, AtFlags::SYMLINK_NOFOLLOW)
                    .map_err(|errno| UnpackError::os("look at", &entry.path, errno))?;
                if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
                    let path = join(parent, name);
                    self.reenter(&path)?;
                    self.make_opaque(&path)?;
                }
                Ok(())
            }
            Err(errno) => Err(UnpackError::os("create the whiteout", &entry.path, errno)),
        }
    }

    /// Marks the current directory as opaque. Whiteouts in it have nothing left to hide, and overlayfs would not look for them: they go.
    fn make_opaque(&mut self, path: &[u8]) -> Result<(), UnpackError> {
        let directory = self.directories.entry(path.to_vec()).or_default();
        directory.opaque = true;
        for name in std::mem::take(&mut directory.whiteouts) {
            rustix::fs::unlinkat(self.parents.current(), name.as_slice(), AtFlags::empty())
                .map_err(|errno| UnpackError::os("remove the whiteout", &join(path, &name), errno))?;
        }
        Ok(())
    }

    /// Deletes an entry of the current directory that lower layers put there.
    fn delete(&mut self, name: &[u8], path: &[u8]) -> Result<(), UnpackError> {
        self.forget_below(path);
        cellblock_sys::tree::remove(self.parents.current(), std::ffi::OsStr::from_bytes(name))
            .map_err(|source| UnpackError::Os { operation: "delete", path: printable(path), source })
    }

    /// Deletes everything below a directory that this layer has not put there. Its depth is bounded by
    /// [`crate::archive::Limits::path_depth`]: only this layer's own directories are descended into.
    fn delete_lower(&mut self, path: &[u8]) -> Result<(), UnpackError> {
        for name in self.names(path)? {
            let child = join(path, &name);
            if self.present.contains(&child) {
                self.delete_lower(&child)?;
            } else {
                self.reenter(path)?;
                self.delete(&name, &child)?;
            }
        }
        Ok(())
    }

    /// Names in a directory; none if it is something else.
    fn names(&mut self, path: &[u8]) -> Result<Vec<Vec<u8>>, UnpackError> {
        let (parent, name) = split(path);
        self.reenter(parent)?;
        let name = if name.is_empty() { b"." } else { name };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let error = |errno| UnpackError::os("list the directory", path, errno);
        let fd = match cellblock_sys::scoped::openat2(self.parents.current(), name, flags, Mode::empty(), RESOLVE) {
            Ok(fd) => fd,
            Err(Errno::NOTDIR | Errno::LOOP) => return Ok(Vec::new()),
            Err(errno) => return Err(error(errno)),
        };
        let mut names = Vec::new();
        for entry in Dir::read_from(fd.as_fd()).map_err(error)? {
            let entry = entry.map_err(error)?;
            match entry.file_name().to_bytes() {
                b"." | b".." => {}
                name => names.push(name.to_vec()),
            }
        }
        Ok(names)
    }
}
