//! Keeps covers in their place ([`cellblock_bundle::Mount::Mask`]).
//!
//! A mount on something that the *host* replaces (an editor's rename, `git checkout`) is taken away by the kernel in every other mount namespace,
//! and what is new would be seen inside. The kernel tells of any change in a namespace's mounts, and nobody inside may make one: so a change means
//! that a cover is gone, and it is put back, by a process of its own that joins the cell. For a moment, some milliseconds, it is not there.

use std::fs::File;
use std::io::{self, Read, Seek};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use cellblock_bundle::Mount;
use cellblock_sys::process::{Fork, SingleThreaded, exit_now};
use rustix::fs::{Mode, OFlags};
use rustix::process::{Pid, PidfdFlags};
use rustix::thread::ThreadNameSpaceType;

use crate::root;

/// How long until another look when there is nothing at a cover's place: it may come back without the kernel telling of it.
const AGAIN: Duration = Duration::from_millis(250);

/// The covers of a running cell.
#[derive(Debug)]
pub(crate) struct Covers {
    masks: Vec<Mount>,
    /// The empty file that covers files.
    empty: Option<OwnedFd>,
    /// The cell's mounts: readable when they have changed.
    mounts: File,
    init: OwnedFd,
    again: Option<Instant>,
}

impl Covers {
    /// Those among `mounts` of the cell whose process 1 is `init`; `None` if there are none. `empty` is an empty file.
    pub(crate) fn new(mounts: &[Mount], empty: &Path, init: Pid) -> io::Result<Option<Self>> {
        let masks: Vec<_> = mounts.iter().filter(|m| matches!(m, Mount::Mask { .. })).cloned().collect();
        if masks.is_empty() {
            return Ok(None);
        }
        let file = masks.iter().any(|m| matches!(m, Mount::Mask { directory: false, .. }));
        let open = || rustix::fs::open(empty, OFlags::PATH | OFlags::CLOEXEC, Mode::empty());
        Ok(Some(Self {
            masks,
            empty: file.then(open).transpose()?,
            mounts: File::open(format!("/proc/{}/mountinfo", init.as_raw_nonzero()))?,
            init: rustix::process::pidfd_open(init, PidfdFlags::empty())?,
            again: None,
        }))
    }

    /// What to poll for `PRI`.
    pub(crate) fn changes(&self) -> BorrowedFd<'_> {
        self.mounts.as_fd()
    }

    /// When to look again.
    pub(crate) fn again(&self) -> Option<Instant> {
        self.again
    }

    /// Puts back what is missing. Does not wait until that is done: the change that it makes is seen as any other.
    pub(crate) fn mend(&mut self) {
        let missing = match self.missing() {
            Ok(missing) if missing.is_empty() => {
                self.again = None;
                return;
            }
            Ok(missing) => missing,
            // Cannot be told: all of them, once more on top.
            Err(_) => self.masks.clone(),
        };
        self.again = Some(Instant::now() + AGAIN);
        let Ok(Fork::Child) = SingleThreaded::prove().and_then(|alone| alone.fork()) else { return };
        let code = match put(&missing, self.empty.as_ref(), self.init.as_fd()) {
            Ok(()) => 0,
            Err(_) => crate::exit::OURS,
        };
        exit_now(code)
    }

    fn missing(&mut self) -> io::Result<Vec<Mount>> {
        let mut text = Vec::new();
        self.mounts.rewind()?;
        self.mounts.read_to_end(&mut text)?;
        let there = mount_points(&text);
        Ok(self.masks.iter().filter(|mask| !there.contains(&escaped(mask.target()).as_slice())).cloned().collect())
    }
}

/// The mount points in the text of `/proc/PID/mountinfo`, as they stand there (proc(5)).
fn mount_points(text: &[u8]) -> Vec<&[u8]> {
    text.split(|b| *b == b'\n').filter_map(|line| line.split(|b| *b == b' ').nth(4)).collect()
}

/// A path as `/proc/PID/mountinfo` writes it.
fn escaped(path: &Path) -> Vec<u8> {
    let mut out = Vec::new();
    for byte in path.as_os_str().as_encoded_bytes() {
        match byte {
            b' ' | b'\t' | b'\n' | b'\\' => out.extend_from_slice(format!("\\{byte:03o}").as_bytes()),
            other => out.push(*other),
        }
    }
    out
}

/// In a process of its own: makes covers, joins the cell whose process 1 is behind `init`, and attaches them.
fn put(masks: &[Mount], empty: Option<&OwnedFd>, init: BorrowedFd<'_>) -> io::Result<()> {
    // The empty file is to be had outside only, and may be copied only from the own mount namespace.
    let source = |mask: &Mount| match mask {
        Mount::Mask { directory: false, .. } => {
            let empty = empty.ok_or(io::ErrorKind::NotFound)?;
            root::bound(empty.as_fd(), mask).map(|(tree, _)| Some(tree))
        }
        _ => Ok(None),
    };
    let sources = masks.iter().map(source).collect::<io::Result<Vec<_>>>()?;
    rustix::thread::move_into_thread_name_spaces(init, ThreadNameSpaceType::USER | ThreadNameSpaceType::MOUNT)?;
    let top = rustix::fs::open(PathBuf::from("/"), OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let mut last = Ok(());
    for (mask, tree) in masks.iter().zip(sources) {
        // One that cannot be put back is no reason to leave out the others.
        if let Err(error) = root::cover(top.as_fd(), mask, tree) {
            last = Err(io::Error::other(error.to_string()));
        }
    }
    last
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_points_are_found_as_the_kernel_writes_them() {
        let text = b"36 35 98:0 /mnt1 /a\\040b\\134c rw,noatime master:1 - ext3 /dev/root rw\n37 36 0:5 / /x ro - tmpfs none rw\n";
        let points = mount_points(text);
        assert_eq!(points, [&b"/a\\040b\\134c"[..], b"/x"]);
        assert!(points.contains(&escaped(Path::new("/a b\\c")).as_slice()));
        assert_eq!(mount_points(b"\nshort line\n"), [&b""[..]; 0]);
    }
}
