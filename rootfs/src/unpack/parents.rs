//! Descriptors of the directories on the way to the current entry.
//!
//! Archives list a directory's entries one after the other, so the descriptors of the last path are kept and only what differs is
//! opened. They are `O_PATH`: enough to create and rename below, and no permission to read is needed.

use std::io::Read;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{FileType, Mode, OFlags, RawMode, ResolveFlags};
use rustix::io::Errno;

use super::Unpacker;
use super::error::{Refusal, UnpackError};
use super::metadata::{Directory, Metadata};
use crate::archive::{Reader, Timestamp};

/// How every directory is opened.
pub(super) const RESOLVE: ResolveFlags =
    ResolveFlags::BENEATH.union(ResolveFlags::NO_SYMLINKS).union(ResolveFlags::NO_MAGICLINKS);

/// The destination and the directories from there to the current one.
pub(super) struct Parents {
    root: OwnedFd,
    path: Vec<u8>,
    levels: Vec<Level>,
}

struct Level {
    /// Where its path ends in [`Parents::path`].
    end: usize,
    fd: OwnedFd,
}

impl Parents {
    pub(super) fn new(dest: BorrowedFd<'_>) -> rustix::io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::openat(dest, c".", flags, Mode::empty())?;
        Ok(Self { root, path: Vec::new(), levels: Vec::new() })
    }

    /// The directory that was entered last.
    pub(super) fn current(&self) -> BorrowedFd<'_> {
        self.levels.last().map_or(self.root.as_fd(), |level| level.fd.as_fd())
    }

    /// Goes back to the last directory that is also on the way to `path`; answers how much of `path` that is.
    fn rewind(&mut self, path: &[u8]) -> usize {
        let shared = |level: &Level| {
            path.get(..level.end) == Some(&self.path[..level.end]) && matches!(path.get(level.end), None | Some(b'/'))
        };
        let keep = self.levels.iter().take_while(|level| shared(level)).count();
        self.levels.truncate(keep);
        self.path.clear();
        self.path.extend_from_slice(path);
        self.levels.last().map_or(0, |level| (level.end + 1).min(path.len()))
    }

    fn push(&mut self, end: usize, fd: OwnedFd) {
        self.levels.push(Level { end, fd });
    }
}

/// Opens the directory `name` of `parent` for what comes below it.
fn open_directory(parent: BorrowedFd<'_>, name: &[u8]) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    cellblock_sys::scoped::openat2(parent, name, flags, Mode::empty(), RESOLVE)
}

impl Unpacker<'_> {
    /// Makes the directory `path` the current one. Missing directories are made and charged to `charge`; without it they are
    /// an error ([`Errno::NOENT`] inside [`UnpackError::Os`]).
    pub(super) fn enter<R: Read>(
        &mut self,
        path: &[u8],
        mut charge: Option<&mut Reader<R>>,
    ) -> Result<(), UnpackError> {
        let mut start = self.parents.rewind(path);
        while start < path.len() {
            let end = path[start..].iter().position(|byte| *byte == b'/').map_or(path.len(), |slash| start + slash);
            let (name, here) = (&path[start..end], &path[..end]);
            let opened = match open_directory(self.parents.current(), name) {
                Err(Errno::NOENT) if charge.is_some() => {
                    if let Some(reader) = charge.as_deref_mut() {
                        reader.charge(here.len() as u64)?;
                    }
                    self.imply_directory(name, here)?;
                    open_directory(self.parents.current(), name)
                }
                other => other,
            };
            let fd = opened.map_err(|errno| match errno {
                Errno::LOOP => UnpackError::refused(path, Refusal::ThroughLink),
                Errno::NOTDIR => self.not_a_directory(path, name),
                errno => UnpackError::os("open the directory", here, errno),
            })?;
            self.open_up(&fd, here)?;
            self.parents.push(end, fd);
            start = end + 1;
        }
        Ok(())
    }

    /// `O_DIRECTORY | O_NOFOLLOW` answers `ENOTDIR` for a symbolic link too; which it is makes the difference between an attack
    /// and a mistake.
    fn not_a_directory(&self, path: &[u8], name: &[u8]) -> UnpackError {
        let is_link = rustix::fs::statat(self.parents.current(), name, rustix::fs::AtFlags::SYMLINK_NOFOLLOW)
            .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Symlink);
        UnpackError::refused(path, if is_link { Refusal::ThroughLink } else { Refusal::NotADirectory })
    }

    /// Makes a directory that the archive does not list (yet).
    fn imply_directory(&mut self, name: &[u8], path: &[u8]) -> Result<(), UnpackError> {
        rustix::fs::mkdirat(self.parents.current(), name, Mode::RWXU)
            .map_err(|errno| UnpackError::os("create the directory", path, errno))?;
        self.counts.implied_directories += 1;
        let metadata = Metadata { mode: 0o755, owner: self.owner(0, 0, path)?, mtime: None, xattrs: Vec::new() };
        self.directories.insert(path.to_vec(), Directory { metadata: Some(metadata), ..Directory::default() });
        Ok(())
    }

    /// Lets the owner write into and pass through a directory that an earlier layer closed; its mode comes back at the end.
    fn open_up(&mut self, fd: &OwnedFd, path: &[u8]) -> Result<(), UnpackError> {
        if self.directories.contains_key(path) {
            return Ok(());
        }
        let error = |errno| UnpackError::os("open the directory", path, errno);
        let stat = rustix::fs::fstat(fd).map_err(error)?;
        let mut directory = Directory::default();
        if stat.st_mode & 0o700 != 0o700 {
            let mode = Mode::from_raw_mode((stat.st_mode & 0o7777) | 0o700);
            chmod(fd, mode).map_err(error)?;
            directory.metadata = Some(Metadata {
                mode: (stat.st_mode & 0o7777) as RawMode,
                owner: None,
                mtime: Some(Timestamp { seconds: stat.st_mtime, nanoseconds: stat.st_mtime_nsec as u32 }),
                xattrs: Vec::new(),
            });
        }
        self.directories.insert(path.to_vec(), directory);
        Ok(())
    }
}

/// fchmod(2) refuses `O_PATH` descriptors before Linux 6.6; their entry in /proc does not, and cannot be exchanged.
fn chmod(fd: &OwnedFd, mode: Mode) -> rustix::io::Result<()> {
    rustix::fs::chmod(format!("/proc/self/fd/{}", fd.as_raw_fd()), mode)
}
