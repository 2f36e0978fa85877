//! Places in a cell's root, where something is to be mounted: found or made by descriptor, and never outside.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use crate::root::RootError;

/// Finds or makes the place `target` below `root`, where a directory or a file is to be mounted. Links are followed as the cell would
/// follow them, never out of `root`.
pub(crate) fn mount_point(root: BorrowedFd<'_>, target: &Path, directory: bool) -> Result<OwnedFd, RootError> {
    let failed = |e: Errno| RootError::Target { path: target.to_owned(), source: e.into() };
    let inside = target.strip_prefix("/").unwrap_or(target);
    let place = match beneath(root, inside) {
        Err(Errno::NOENT) => make(root, inside, directory).map_err(|e| match e {
            Errno::EXIST => RootError::Dangling { path: target.to_owned() },
            other => failed(other),
        })?,
        other => other.map_err(failed)?,
    };
    match (FileType::from_raw_mode(rustix::fs::fstat(&place).map_err(failed)?.st_mode).is_dir(), directory) {
        (true, false) => Err(RootError::Kind { path: target.to_owned(), is: "a folder", what: "a file" }),
        (false, true) => Err(RootError::Kind { path: target.to_owned(), is: "a file", what: "a folder" }),
        _ => Ok(place),
    }
}

/// What is at `path` below `root`, by links as the cell would follow them.
pub(crate) fn beneath(root: BorrowedFd<'_>, path: &Path) -> rustix::io::Result<OwnedFd> {
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    cellblock_sys::scoped::openat2(root, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), resolve)
}

/// Whether there is nothing at `target` below `root`.
pub(crate) fn is_missing(root: BorrowedFd<'_>, target: &Path) -> bool {
    beneath(root, target.strip_prefix("/").unwrap_or(target)).is_err_and(|e| e == Errno::NOENT)
}

/// Makes what is missing of `path`. `EXIST`: a component is there and leads nowhere.
fn make(root: BorrowedFd<'_>, path: &Path, directory: bool) -> rustix::io::Result<OwnedFd> {
    let mut parent = rustix::io::dup(root)?;
    let mut done = PathBuf::new();
    let mut components = path.components().peekable();
    while let Some(component) = components.next() {
        done.push(component);
        parent = match beneath(root, &done) {
            Ok(found) => found,
            Err(Errno::NOENT) => {
                let name = component.as_os_str();
                let mut flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                if directory || components.peek().is_some() {
                    rustix::fs::mkdirat(&parent, name, Mode::from_raw_mode(0o755))?;
                    flags |= OFlags::DIRECTORY;
                } else {
                    let create = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
                    rustix::fs::openat(&parent, name, create, Mode::from_raw_mode(0o644))?;
                }
                rustix::fs::openat(&parent, name, flags, Mode::empty())?
            }
            Err(error) => return Err(error),
        };
    }
    Ok(parent)
}

#[cfg(test)]
mod tests {
    use std::os::fd::{AsFd, AsRawFd};

    use super::*;

    fn scratch(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("cellblock-place-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).expect("mkdir");
        path
    }

    fn point(root: &Path, target: &str, directory: bool) -> Result<PathBuf, RootError> {
        let fd = rustix::fs::open(root, OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).expect("open");
        let place = mount_point(fd.as_fd(), Path::new(target), directory)?;
        let real = std::fs::read_link(format!("/proc/self/fd/{}", place.as_raw_fd())).expect("a path");
        Ok(real.strip_prefix(root.canonicalize().expect("canonical")).expect("below the root").to_owned())
    }

    #[test]
    fn places_are_found_or_made_and_never_outside() {
        let root = scratch("places");
        std::fs::create_dir_all(root.join("there/dir")).expect("mkdir");
        std::fs::write(root.join("there/file"), "").expect("write");
        for (link, target) in [("out", "/"), ("up", "../../../../etc"), ("nowhere", "/missing"), ("to", "there")] {
            std::os::unix::fs::symlink(target, root.join(link)).expect("symlink");
        }
        assert_eq!(point(&root, "/there/dir", true).expect("found"), Path::new("there/dir"));
        assert_eq!(point(&root, "/there/file", false).expect("found"), Path::new("there/file"));
        assert_eq!(point(&root, "/new/a/b", true).expect("made"), Path::new("new/a/b"));
        assert_eq!(point(&root, "/new/c/file", false).expect("made"), Path::new("new/c/file"));
        assert!(root.join("new/c/file").is_file() && root.join("new/a/b").is_dir());
        assert_eq!(point(&root, "/to/more", true).expect("made"), Path::new("there/more"));
        assert_eq!(point(&root, "/out/new", true).expect("made"), Path::new("new"), "`/` is the cell's");
        assert_eq!(point(&root, "/../../etcetera", true).expect("made"), Path::new("etcetera"));
        assert!(matches!(point(&root, "/up/x", true), Err(RootError::Dangling { .. })), "the cell has no /etc");
        assert!(matches!(point(&root, "/nowhere", true), Err(RootError::Dangling { .. })));
        assert!(matches!(point(&root, "/nowhere/x", false), Err(RootError::Dangling { .. })));
        assert!(matches!(point(&root, "/there/file", true), Err(RootError::Kind { .. })));
        assert!(matches!(point(&root, "/there/dir", false), Err(RootError::Kind { .. })));
        assert!(matches!(point(&root, "/there/file/x", true), Err(RootError::Target { .. })));
        let tmp = rustix::fs::open(std::env::temp_dir(), OFlags::PATH, Mode::empty()).expect("open");
        cellblock_sys::tree::remove(tmp.as_fd(), root.file_name().expect("a name")).expect("clean up");
    }
}
