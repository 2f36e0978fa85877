//! Carrying out a plan.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::BorrowedFd;
use std::path::Path;

use cellblock_bundle::{Ids, User};
use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Uid};
use rustix::io::Errno;

use super::{Entry, Owner, Plan, SkeletonError};

/// Bytes of a file of the host that is copied at most; `/etc/ld.so.cache` of a large desktop has half a megabyte.
const MAX_COPY: usize = 4 << 20;

/// The ids that root and the person have where the skeleton is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owners {
    /// User and group of root and of the person; `None` where only the person's own ids exist, so that all is theirs anyway.
    ids: Option<[(u32, u32); 2]>,
}

impl Owners {
    /// For a cell with these ids whose skeleton is written in OUTER: there a rootless cell's ids are those it has inside, and under real
    /// root those of the host.
    #[must_use]
    pub fn of(ids: &Ids, user: &User) -> Self {
        if !ids.has_range() {
            return Self::caller();
        }
        let outer = |uid, gid| {
            if ids.rootless() { Some((uid, gid)) } else { Some((ids.host_uid(uid)?, ids.host_gid(gid)?)) }
        };
        Self { ids: outer(0, 0).zip(outer(user.uid, user.gid)).map(|(root, person)| [root, person]) }
    }

    /// Whoever writes it owns it all.
    #[must_use]
    pub const fn caller() -> Self {
        Self { ids: None }
    }

    fn get(&self, owner: Owner) -> Option<(Uid, Gid)> {
        let [root, person] = self.ids?;
        let (uid, gid) = match owner {
            Owner::Root => root,
            Owner::Person => person,
        };
        Some((Uid::from_raw(uid), Gid::from_raw(gid)))
    }
}

impl Plan {
    /// Makes everything in the empty directory `dir`, which nobody else can write to: then each path leads through directories that
    /// were made here. The umask has no say. Nothing is synced: after a power cut there is no cell.
    ///
    /// Every start waits for this, so each entry takes as few system calls as it can; `dir` should be in memory (tmpfs).
    ///
    /// # Errors
    /// [`SkeletonError::Write`]; what was made so far stays.
    pub fn write(&self, dir: BorrowedFd<'_>, owners: &Owners) -> Result<(), SkeletonError> {
        let failed = |path: &Path| {
            let path = Path::new("/").join(path);
            |source| SkeletonError::Write { path, source }
        };
        let mut writer =
            Writer { dir, owners, masked: masked(dir).map_err(failed(Path::new("")))?, buffer: Vec::new() };
        writer.own(Path::new("."), Owner::Root).map_err(failed(Path::new("")))?;
        for (path, entry) in self.entries() {
            writer.make(path, entry).map_err(failed(path))?;
        }
        Ok(())
    }
}

/// The bits that the umask takes away, found out on `dir`'s own mode, which ends as 0755. umask(2) itself cannot be asked without being
/// changed, for all threads.
fn masked(dir: BorrowedFd<'_>) -> io::Result<u32> {
    const PROBE: &str = ".umask";
    rustix::fs::mkdirat(dir, PROBE, Mode::from_raw_mode(0o777))?;
    let stat = rustix::fs::statat(dir, PROBE, AtFlags::SYMLINK_NOFOLLOW)?;
    rustix::fs::unlinkat(dir, PROBE, AtFlags::REMOVEDIR)?;
    rustix::fs::chmodat(dir, ".", Mode::from_raw_mode(0o755), AtFlags::empty())?;
    Ok(0o777 & !stat.st_mode)
}

struct Writer<'a> {
    dir: BorrowedFd<'a>,
    owners: &'a Owners,
    masked: u32,
    buffer: Vec<u8>,
}

impl Writer<'_> {
    fn make(&mut self, path: &Path, entry: &Entry) -> io::Result<()> {
        match entry {
            Entry::Directory { mode, owner } => {
                rustix::fs::mkdirat(self.dir, path, Mode::from_raw_mode(*mode))?;
                self.own(path, *owner)?;
                self.unmask(path, *mode)
            }
            Entry::File { text } => self.make_file(path, text.as_bytes()),
            Entry::Copy { from } => {
                let mut bytes = std::mem::take(&mut self.buffer);
                bytes.clear();
                if read_public(from, &mut bytes)? {
                    self.make_file(path, &bytes)?;
                }
                self.buffer = bytes;
                Ok(())
            }
            Entry::Link { target } => {
                rustix::fs::symlinkat(target, self.dir, path)?;
                self.own(path, Owner::Root)
            }
        }
    }

    fn make_file(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        const MODE: u32 = 0o644;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut file = File::from(rustix::fs::openat(self.dir, path, flags, Mode::from_raw_mode(MODE))?);
        file.write_all(bytes)?;
        drop(file);
        self.own(path, Owner::Root)?;
        self.unmask(path, MODE)
    }

    fn own(&self, path: &Path, owner: Owner) -> io::Result<()> {
        let Some((uid, gid)) = self.owners.get(owner) else { return Ok(()) };
        Ok(rustix::fs::chownat(self.dir, path, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?)
    }

    /// Gives back what the umask took.
    fn unmask(&self, path: &Path, mode: u32) -> io::Result<()> {
        if mode & self.masked == 0 {
            return Ok(());
        }
        Ok(rustix::fs::chmodat(self.dir, path, Mode::from_raw_mode(mode), AtFlags::empty())?)
    }
}

/// Reads a file of the host, if it is still there and still for everybody to read: real root could read others too.
fn read_public(from: &Path, bytes: &mut Vec<u8>) -> io::Result<bool> {
    // Non-blocking: what was a file when the plan was made may be a pipe now.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let source = match rustix::fs::open(from, flags, Mode::empty()) {
        Ok(fd) => fd,
        Err(Errno::NOENT | Errno::ACCESS) => return Ok(false),
        Err(error) => return Err(error.into()),
    };
    let stat = rustix::fs::fstat(&source)?;
    let public = Mode::from_raw_mode(stat.st_mode).contains(Mode::ROTH);
    if !public || FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Ok(false);
    }
    // One read for all of it: the size is known, if it has not changed.
    bytes.reserve(usize::try_from(stat.st_size).unwrap_or(0).min(MAX_COPY) + 1);
    File::from(source).take(MAX_COPY as u64).read_to_end(bytes)?;
    Ok(true)
}
