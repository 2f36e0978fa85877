//! Removing directory trees that somebody else has filled: by descriptor, never through a link, never into another mount.

use std::ffi::{CStr, OsStr};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{AtFlags, Dir, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

/// Levels that are descended into; deeper trees are first lifted to the top, so that descriptors stay bounded.
const MAX_DEPTH: usize = 64;

/// Removes the entry `name` of the directory `parent` with everything below it. That it is not there is no error.
///
/// Directories without permissions, such as overlayfs's `work/work` (mode 000), are opened up first. A mount below is not entered: it
/// makes the removal fail with `EXDEV` or `EBUSY`.
///
/// # Errors
/// `InvalidInput` if `name` is not a single plain name; else those of `openat2(2)` (Linux 5.6) and `unlinkat(2)`.
pub fn remove(parent: BorrowedFd<'_>, name: &OsStr) -> io::Result<()> {
    let bytes = name.as_bytes();
    if bytes.is_empty() || bytes == b"." || bytes == b".." || bytes.contains(&b'/') {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let name = std::ffi::CString::new(bytes)?;
    Ok(remove_entry(parent, &name, parent, 0)?)
}

/// `top` is where directories deeper than [`MAX_DEPTH`] are moved to.
fn remove_entry(parent: BorrowedFd<'_>, name: &CStr, top: BorrowedFd<'_>, depth: usize) -> rustix::io::Result<()> {
    match rustix::fs::unlinkat(parent, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        // POSIX says EPERM for a directory, Linux EISDIR.
        Err(Errno::ISDIR | Errno::PERM) => {}
        Err(error) => return Err(error),
    }
    let Some(directory) = open(parent, name)? else { return Ok(()) };
    empty(&directory, top, depth)?;
    match rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(error),
    }
}

fn open(parent: BorrowedFd<'_>, name: &CStr) -> rustix::io::Result<Option<OwnedFd>> {
    let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    let open = || rustix::fs::openat2(parent, name, flags, Mode::empty(), resolve);
    match open() {
        Ok(fd) => Ok(Some(fd)),
        Err(Errno::NOENT) => Ok(None),
        Err(Errno::ACCESS) => {
            // Not through a link: the flag is not known to older kernels for chmod, so the entry is pinned by a path descriptor.
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let pinned = rustix::fs::openat2(parent, name, flags, Mode::empty(), resolve)?;
            let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&pinned));
            rustix::fs::chmod(path.as_str(), Mode::RWXU)?;
            open().map(Some)
        }
        Err(error) => Err(error),
    }
}

fn empty(directory: &OwnedFd, top: BorrowedFd<'_>, depth: usize) -> rustix::io::Result<()> {
    // Until a pass finds nothing: removing while reading may skip entries (readdir(3)).
    loop {
        let mut found = false;
        let mut made_writable = false;
        for entry in Dir::read_from(directory)? {
            let entry = entry?;
            let name = entry.file_name();
            if name == c"." || name == c".." {
                continue;
            }
            found = true;
            let result = if depth < MAX_DEPTH {
                remove_entry(directory.as_fd(), name, top, depth + 1)
            } else {
                lift(directory.as_fd(), name, top)
            };
            match result {
                Err(Errno::ACCESS | Errno::PERM) if !made_writable => {
                    made_writable = true;
                    rustix::fs::fchmod(directory, Mode::RWXU)?;
                    remove_entry(directory.as_fd(), name, top, depth.min(MAX_DEPTH - 1) + 1)?;
                }
                other => other?,
            }
        }
        if !found {
            return Ok(());
        }
    }
}

/// Moves an entry that lies too deep up to `top` under a name of its own, and removes it from there.
fn lift(directory: BorrowedFd<'_>, name: &CStr, top: BorrowedFd<'_>) -> rustix::io::Result<()> {
    match rustix::fs::unlinkat(directory, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::ISDIR | Errno::PERM) => {}
        Err(error) => return Err(error),
    }
    let lifted = std::ffi::CString::new(format!(".removing-{}-{:?}", std::process::id(), std::time::Instant::now()))
        .map_err(|_| Errno::INVAL)?;
    rustix::fs::renameat(directory, name, top, lifted.as_c_str())?;
    remove_entry(top, &lifted, top, 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::path::PathBuf;

    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("cellblock-tree-{name}-{}", std::process::id()));
            fs::create_dir_all(&path).expect("scratch folder");
            Self(path)
        }

        fn remove(&self, name: &str) -> io::Result<()> {
            super::remove(fs::File::open(&self.0)?.as_fd(), name.as_ref())
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = fs::File::open(std::env::temp_dir())
                .and_then(|t| super::remove(t.as_fd(), self.0.file_name().unwrap_or_default()));
        }
    }

    #[test]
    fn links_are_removed_and_not_followed() {
        let scratch = Scratch::new("links");
        let outside = scratch.0.join("outside");
        fs::create_dir_all(scratch.0.join("tree/below")).expect("mkdir");
        fs::create_dir(&outside).expect("mkdir");
        fs::write(outside.join("kept"), "x").expect("write");
        symlink(&outside, scratch.0.join("tree/link")).expect("symlink");
        symlink(&outside, scratch.0.join("direct")).expect("symlink");
        scratch.remove("tree").expect("remove");
        scratch.remove("direct").expect("remove");
        assert!(!scratch.0.join("tree").exists());
        assert!(outside.join("kept").exists());
        scratch.remove("outside").expect("the probe works: the same call removes what is really below");
        assert!(!outside.exists());
    }

    #[test]
    fn closed_and_very_deep_directories_go_too() {
        let scratch = Scratch::new("deep");
        fs::create_dir_all(scratch.0.join("tree/work/work/inner")).expect("mkdir");
        fs::set_permissions(scratch.0.join("tree/work/work"), fs::Permissions::from_mode(0)).expect("chmod");
        let mut path = scratch.0.join("tree");
        for _ in 0..300 {
            path.push("d");
            fs::create_dir(&path).expect("mkdir");
        }
        scratch.remove("tree").expect("remove");
        assert!(!scratch.0.join("tree").exists());
    }

    #[test]
    fn what_is_not_there_and_what_is_no_name() {
        let scratch = Scratch::new("names");
        scratch.remove("nothing").expect("absence is fine");
        for bad in ["", ".", "..", "a/b"] {
            assert_eq!(scratch.remove(bad).expect_err(bad).kind(), io::ErrorKind::InvalidInput);
        }
    }
}
