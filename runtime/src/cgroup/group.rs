//! One cgroup directory of ours: made, written and removed by descriptor, so that nothing but what this program has made is touched.

use std::ffi::CStr;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::error::CgroupError;

/// First part of the name of each of our groups: the only ones that are ever removed.
const PREFIX: &str = "cellblock-";

/// Name of the group that a supervisor steps aside to. No cell is called so: `=` is in no cell's name.
pub(super) const ASIDE: &str = "cellblock-=supervisor";

/// Name of the groups of the cell `cell`, with the supervisor's process id, which keeps apart cells of one name in different state directories.
pub(super) fn name_of(cell: &str) -> String {
    format!("{PREFIX}{cell}-{}", rustix::process::getpid().as_raw_nonzero())
}

const DIRECTORY: OFlags = OFlags::DIRECTORY.union(OFlags::RDONLY).union(OFlags::CLOEXEC).union(OFlags::NOFOLLOW);

/// `statfs(2)`: magic numbers of `cgroup` and `cgroup2`.
const MAGIC: [i64; 2] = [0x0027_e0eb, 0x6367_7270];

/// How often a busy group is tried again, and after how long: the kernel needs a moment after its last member's death.
const TRIES: (u32, Duration) = (100, Duration::from_millis(2));

/// A directory below one that existed before.
#[derive(Debug)]
pub(super) struct Group {
    parent: OwnedFd,
    name: String,
    pub(super) path: PathBuf,
    pub(super) dir: OwnedFd,
}

impl Group {
    /// Makes `parent/NAME`, a name of ours. An empty group that a killed supervisor has left there is replaced.
    pub(super) fn make(parent: &Path, name: &str) -> Result<Self, CgroupError> {
        let name = name.to_owned();
        let path = parent.join(&name);
        let failed = |error: Errno| CgroupError::Make { path: path.clone(), source: error.into() };
        let parent = rustix::fs::open(parent, DIRECTORY, Mode::empty()).map_err(failed)?;
        let make = || rustix::fs::mkdirat(&parent, &name, Mode::from_raw_mode(0o755));
        match make() {
            Err(Errno::EXIST) => {
                rustix::fs::unlinkat(&parent, &name, AtFlags::REMOVEDIR).and_then(|()| make()).map_err(failed)?;
            }
            other => other.map_err(failed)?,
        }
        let dir = rustix::fs::openat(&parent, &name, DIRECTORY, Mode::empty()).map_err(failed)?;
        Ok(Self { parent, name, path, dir })
    }

    /// Writes one of its files.
    pub(super) fn write(&self, file: &str, value: &str) -> Result<(), CgroupError> {
        write_at(&self.dir, file, value).map_err(|e| CgroupError::Write {
            path: self.path.join(file),
            value: value.to_owned(),
            source: e.into(),
        })
    }

    /// Where to write `0` to become a member.
    pub(super) fn procs(&self) -> Result<OwnedFd, CgroupError> {
        open_procs(&self.dir).map_err(|e| CgroupError::Write {
            path: self.path.join("cgroup.procs"),
            value: "0".into(),
            source: e.into(),
        })
    }

    /// The content of one of its files; empty if it is not there.
    pub(super) fn read(&self, file: &str) -> String {
        read_at(&self.dir, file)
    }

    /// Removes it. That it is gone is no error.
    pub(super) fn remove(&self) -> io::Result<()> {
        remove_at(self.parent.as_fd(), &self.name)
    }
}

/// Removes the group that a killed supervisor has left at `path`, if it is one of ours, on a cgroup file system, and without members.
pub(super) fn remove_stale(path: &Path) -> io::Result<()> {
    let name = path.file_name().and_then(|n| n.to_str()).filter(|n| n.starts_with(PREFIX));
    let (Some(name), Some(parent)) = (name, path.parent()) else { return Err(io::ErrorKind::InvalidInput.into()) };
    let parent = match rustix::fs::open(parent, DIRECTORY, Mode::empty()) {
        Err(Errno::NOENT) => return Ok(()),
        other => other?,
    };
    let magic = rustix::fs::fstatfs(&parent)?.f_type;
    #[allow(clippy::useless_conversion, reason = "the type differs between architectures")]
    let known = i64::try_from(magic).is_ok_and(|magic| MAGIC.contains(&magic));
    if !known {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    remove_at(parent.as_fd(), name)?;
    // It lies beside, and nobody else has one there: a supervisor steps aside only where it is alone.
    remove_at(parent.as_fd(), ASIDE)
}

/// How deep the groups that a cell has made in its own may lie. The kernel's own limit is none by default.
const MAX_DEPTH: u32 = 32;

fn remove_at(parent: impl AsFd, name: &str) -> io::Result<()> {
    let name = std::ffi::CString::new(name)?;
    for tried in 0..=TRIES.0 {
        match rustix::fs::unlinkat(&parent, name.as_c_str(), AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => return Ok(()),
            Err(Errno::BUSY) if tried < TRIES.0 => {
                // EBUSY stands for members and for children alike.
                if tried == 0 {
                    remove_children(parent.as_fd(), &name, MAX_DEPTH)?;
                } else {
                    std::thread::sleep(TRIES.1);
                }
            }
            Err(error) => return Err(error.into()),
        }
    }
    Err(Errno::BUSY.into())
}

/// Groups below, which only members of ours can have made. Those with members stay.
fn remove_children(parent: impl AsFd, name: &CStr, depth: u32) -> io::Result<()> {
    let Some(depth) = depth.checked_sub(1) else { return Ok(()) };
    let dir = rustix::fs::openat(parent, name, DIRECTORY, Mode::empty())?;
    for entry in Dir::read_from(&dir)? {
        let entry = entry?;
        let child = entry.file_name();
        if entry.file_type() != FileType::Directory || child == c"." || child == c".." {
            continue;
        }
        remove_children(dir.as_fd(), child, depth)?;
        let _ = rustix::fs::unlinkat(&dir, child, AtFlags::REMOVEDIR);
    }
    Ok(())
}

pub(super) fn open_procs(dir: impl AsFd) -> rustix::io::Result<OwnedFd> {
    rustix::fs::openat(dir, "cgroup.procs", OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())
}

pub(super) fn open_dir(path: &Path) -> rustix::io::Result<OwnedFd> {
    rustix::fs::open(path, DIRECTORY, Mode::empty())
}

pub(super) fn write_at(dir: impl AsFd, file: &str, value: &str) -> rustix::io::Result<()> {
    let fd = rustix::fs::openat(dir, file, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
    rustix::io::write(&fd, value.as_bytes()).map(drop)
}

pub(super) fn read_at(dir: impl AsFd, file: &str) -> String {
    let mut text = String::new();
    if let Ok(fd) = rustix::fs::openat(dir, file, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()) {
        let _ = std::fs::File::from(fd).read_to_string(&mut text);
    }
    text
}
