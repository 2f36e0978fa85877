//! Copies a whole root file system from one directory descriptor to another: what a bundle without an overlay has as its root.
//!
//! The source may hold what a hostile image put there: each step acts on the descriptor of a directory that was reached without
//! following a link or leaving the mount. The destination is a fresh directory that nobody else can reach.
//!
//! Owners, modes, times, hard links, holes, `user.*` attributes and file capabilities come along; device nodes and sockets do not.
//! Directories get their metadata at the very end, children first, so that their modes do not close the way.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, Dir, FileType, Gid, Mode, OFlags, ResolveFlags, Stat, Timespec, Timestamps, Uid, XattrFlags,
};
use rustix::io::Errno;

/// What could not be copied.
#[derive(Debug, thiserror::Error)]
#[error("cannot copy {path}: {source}", path = path.display())]
pub struct CopyError {
    /// Path inside.
    path: PathBuf,
    /// Why.
    source: io::Error,
}

/// Who owns the copies.
#[derive(Debug, Clone, Copy)]
pub enum Owners<'a> {
    /// The caller; nothing is chowned.
    Caller,
    /// As [`cellblock_bundle::Ids`] map the original's; what they do not map stays as it is.
    Mapped(&'a cellblock_bundle::Ids),
    /// The original's.
    Keep,
}

impl Owners<'_> {
    fn of(self, stat: &Stat) -> Option<(Uid, Gid)> {
        let (uid, gid) = match self {
            Self::Caller => return None,
            Self::Keep => (stat.st_uid, stat.st_gid),
            Self::Mapped(ids) => {
                (ids.host_uid(stat.st_uid).unwrap_or(stat.st_uid), ids.host_gid(stat.st_gid).unwrap_or(stat.st_gid))
            }
        };
        Some((Uid::from_raw(uid), Gid::from_raw(gid)))
    }
}

/// What was done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Copied {
    /// Bytes of regular files.
    pub bytes: u64,
    /// Device nodes and sockets that were left out.
    pub left_out: u64,
}

/// Bytes of all regular files below `from`, each name counted: an upper bound, for a progress bar.
///
/// # Errors
/// See [`CopyError`].
pub fn size(from: BorrowedFd<'_>) -> Result<u64, CopyError> {
    let mut sum = 0;
    let mut directories = vec![PathBuf::new()];
    while let Some(path) = directories.pop() {
        let directory = open_directory(from, &path)?;
        for name in names(&directory, &path)? {
            let stat = stat(directory.as_fd(), &name, &path)?;
            match FileType::from_raw_mode(stat.st_mode) {
                FileType::Directory => directories.push(path.join(&name)),
                FileType::RegularFile => sum += u64::try_from(stat.st_size).unwrap_or(0),
                _ => {}
            }
        }
    }
    Ok(sum)
}

/// Copies everything below `from`, and its own metadata, to the empty directory `to`. Of directories for which `bare` holds, only the
/// directory itself is made.
///
/// # Errors
/// See [`CopyError`]. What was copied until then is left.
pub fn copy(
    from: BorrowedFd<'_>,
    to: BorrowedFd<'_>,
    owners: Owners<'_>,
    bare: &dyn Fn(&Path) -> bool,
    progress: &mut dyn FnMut(u64),
) -> Result<Copied, CopyError> {
    let mut copying = Copying { from, to, owners, progress, links: HashMap::new(), done: Copied::default() };
    let mut directories = vec![PathBuf::new()];
    let mut next = 0;
    while let Some(path) = directories.get(next).cloned() {
        if !bare(&path) {
            copying.directory(&path, &mut directories)?;
        }
        next += 1;
    }
    for path in directories.iter().rev() {
        let (source, target) = (open_directory(from, path)?, open_directory(to, path)?);
        metadata(source.as_fd(), target.as_fd(), owners).map_err(at(path))?;
    }
    Ok(copying.done)
}

/// Gives the directory or file `to` the owner, mode, times and attributes of `from`.
///
/// # Errors
/// Those of the system calls.
pub fn metadata(from: BorrowedFd<'_>, to: BorrowedFd<'_>, owners: Owners<'_>) -> io::Result<()> {
    let stat = rustix::fs::fstat(from)?;
    // In this order: chown(2) clears setuid bits and capabilities, and `user.*` attributes need write permission.
    if let Some((uid, gid)) = owners.of(&stat) {
        rustix::fs::fchown(to, Some(uid), Some(gid))?;
    }
    attributes(from, to)?;
    rustix::fs::fchmod(to, Mode::from_raw_mode(stat.st_mode))?;
    Ok(rustix::fs::futimens(to, &times(&stat))?)
}

struct Copying<'a> {
    from: BorrowedFd<'a>,
    to: BorrowedFd<'a>,
    owners: Owners<'a>,
    progress: &'a mut dyn FnMut(u64),
    /// The first name of each file that has several.
    links: HashMap<(u64, u64), PathBuf>,
    done: Copied,
}

impl Copying<'_> {
    fn directory(&mut self, path: &Path, directories: &mut Vec<PathBuf>) -> Result<(), CopyError> {
        let source = open_directory(self.from, path)?;
        let target = open_directory(self.to, path)?;
        for name in names(&source, path)? {
            let full = path.join(&name);
            let stat = stat(source.as_fd(), &name, path)?;
            match FileType::from_raw_mode(stat.st_mode) {
                FileType::Directory => {
                    rustix::fs::mkdirat(&target, &name, Mode::RWXU).map_err(at(&full))?;
                    directories.push(full);
                }
                FileType::RegularFile => {
                    self.file(source.as_fd(), target.as_fd(), &name, &stat, &full).map_err(at(&full))?;
                }
                FileType::Symlink => self.link(source.as_fd(), target.as_fd(), &name, &stat).map_err(at(&full))?,
                FileType::Fifo => self.fifo(target.as_fd(), &name, &stat).map_err(at(&full))?,
                _ => self.done.left_out += 1,
            }
        }
        Ok(())
    }

    fn file(
        &mut self,
        source: BorrowedFd<'_>,
        target: BorrowedFd<'_>,
        name: &Path,
        stat: &Stat,
        full: &Path,
    ) -> io::Result<()> {
        if stat.st_nlink > 1 {
            match self.links.entry((stat.st_dev, stat.st_ino)) {
                std::collections::hash_map::Entry::Occupied(first) => {
                    return Ok(rustix::fs::linkat(self.to, first.get(), target, name, AtFlags::empty())?);
                }
                std::collections::hash_map::Entry::Vacant(free) => {
                    free.insert(full.to_owned());
                }
            }
        }
        // Non-blocking: it may have become a pipe, where the source is a folder that somebody works in.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let from = File::from(cellblock_sys::scoped::openat2(source, name, flags, Mode::empty(), RESOLVE)?);
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let to = File::from(rustix::fs::openat(target, name, flags, Mode::RUSR | Mode::WUSR)?);
        let length = content(&from, &to)?;
        metadata(from.as_fd(), to.as_fd(), self.owners)?;
        self.done.bytes += length;
        (self.progress)(self.done.bytes);
        Ok(())
    }

    fn link(&self, source: BorrowedFd<'_>, target: BorrowedFd<'_>, name: &Path, stat: &Stat) -> io::Result<()> {
        let leads = rustix::fs::readlinkat(source, name, Vec::new())?;
        rustix::fs::symlinkat(leads, target, name)?;
        self.finish_by_name(target, name, stat)
    }

    fn fifo(&self, target: BorrowedFd<'_>, name: &Path, stat: &Stat) -> io::Result<()> {
        rustix::fs::mknodat(target, name, FileType::Fifo, Mode::RUSR, 0)?;
        self.finish_by_name(target, name, stat)?;
        Ok(rustix::fs::chmodat(target, name, Mode::from_raw_mode(stat.st_mode), AtFlags::empty())?)
    }

    fn finish_by_name(&self, target: BorrowedFd<'_>, name: &Path, stat: &Stat) -> io::Result<()> {
        if let Some((uid, gid)) = self.owners.of(stat) {
            rustix::fs::chownat(target, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
        }
        Ok(rustix::fs::utimensat(target, name, &times(stat), AtFlags::SYMLINK_NOFOLLOW)?)
    }
}

/// Copies the content, by sharing blocks where the file system can (btrfs, XFS), else what lies between the holes.
fn content(from: &File, to: &File) -> io::Result<u64> {
    let length = from.metadata()?.len();
    if length == 0 || rustix::fs::ioctl_ficlone(to, from).is_ok() {
        return Ok(length);
    }
    to.set_len(length)?;
    let (mut from, mut to) = (from, to);
    let mut position = 0;
    loop {
        match rustix::fs::seek(from, rustix::fs::SeekFrom::Data(position)) {
            Ok(start) => position = start,
            // lseek(2): nothing but a hole is left.
            Err(Errno::NXIO) => return Ok(length),
            Err(error) => return Err(error.into()),
        }
        let end = rustix::fs::seek(from, rustix::fs::SeekFrom::Hole(position))?;
        from.seek(SeekFrom::Start(position))?;
        to.seek(SeekFrom::Start(position))?;
        // It grows shorter under our hands: as when a folder is copied that somebody works in.
        if io::copy(&mut from.take(end - position), &mut to)? < end - position {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        position = end;
    }
}

/// Attributes that mean something outside of one mount: not overlayfs's marks, and no access control lists, as in an unpacked layer.
fn attributes(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> io::Result<()> {
    let mut list = vec![0u8; 65_536];
    let used = match rustix::fs::flistxattr(from, &mut list) {
        Ok(used) => used,
        Err(Errno::OPNOTSUPP) => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    for name in list.get(..used).unwrap_or_default().split(|byte| *byte == 0) {
        let wanted = name.starts_with(b"user.") && !name.starts_with(b"user.overlay.");
        if !wanted && name != b"security.capability" {
            continue;
        }
        // XATTR_SIZE_MAX of xattr(7).
        let mut value = vec![0u8; 65_536];
        let used = rustix::fs::fgetxattr(from, name, &mut value)?;
        match rustix::fs::fsetxattr(to, name, value.get(..used).unwrap_or_default(), XattrFlags::empty()) {
            // No CAP_SETFCAP, or a file system without attributes: as when a layer is unpacked.
            Ok(()) | Err(Errno::OPNOTSUPP | Errno::PERM) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Never through a link and never into another mount.
const RESOLVE: ResolveFlags = ResolveFlags::BENEATH
    .union(ResolveFlags::NO_SYMLINKS)
    .union(ResolveFlags::NO_MAGICLINKS)
    .union(ResolveFlags::NO_XDEV);

fn open_directory(root: BorrowedFd<'_>, path: &Path) -> Result<OwnedFd, CopyError> {
    let name = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    cellblock_sys::scoped::openat2(root, name, flags, Mode::empty(), RESOLVE).map_err(at(path))
}

fn names(directory: &OwnedFd, path: &Path) -> Result<Vec<PathBuf>, CopyError> {
    let list = || -> rustix::io::Result<Vec<PathBuf>> {
        let mut names = Vec::new();
        for entry in Dir::read_from(directory)? {
            let entry = entry?;
            let name = entry.file_name();
            if name != c"." && name != c".." {
                names.push(PathBuf::from(std::ffi::OsStr::from_bytes(name.to_bytes())));
            }
        }
        Ok(names)
    };
    list().map_err(at(path))
}

fn stat(directory: BorrowedFd<'_>, name: &Path, path: &Path) -> Result<Stat, CopyError> {
    rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW).map_err(at(&path.join(name)))
}

fn times(stat: &Stat) -> Timestamps {
    let time = |seconds, nanoseconds| Timespec { tv_sec: seconds, tv_nsec: i64::try_from(nanoseconds).unwrap_or(0) };
    Timestamps {
        last_access: time(stat.st_atime, stat.st_atime_nsec),
        last_modification: time(stat.st_mtime, stat.st_mtime_nsec),
    }
}

fn at<E: Into<io::Error>>(path: &Path) -> impl FnOnce(E) -> CopyError {
    let path = Path::new("/").join(path);
    move |source| CopyError { path, source: source.into() }
}

#[cfg(test)]
mod tests;
