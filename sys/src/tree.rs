//! Removing directory trees that somebody else has filled: by descriptor, never through a link, never into another mount.

use std::ffi::{CStr, CString, OsStr};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

/// Levels that are descended into, with one descriptor each. What lies deeper is first moved up, so that neither descriptors nor the
/// stack grow with a tree that was made deep on purpose.
const MAX_DEPTH: usize = 64;

/// Never through a link, and not into a mount, of which the tree may contain one by accident: its content is not ours to remove.
const RESOLVE: ResolveFlags = ResolveFlags::BENEATH.union(ResolveFlags::NO_SYMLINKS).union(ResolveFlags::NO_XDEV);

/// Removes the entry `name` of the directory `parent` with everything below it. That it is not there is no error, nor is it when
/// another process removes parts of it at the same time.
///
/// Directories without permissions, such as overlayfs's `work/work` (mode 000), are opened up first. A mount below is not entered: it
/// makes the removal fail with `EXDEV` or `EBUSY`.
///
/// # Errors
/// `InvalidInput` if `name` is not a single plain name; else those of `openat2(2)` (Linux 5.6) and `unlinkat(2)`. What was removed
/// until then stays removed.
pub fn remove(parent: BorrowedFd<'_>, name: &OsStr) -> io::Result<()> {
    let bytes = name.as_bytes();
    if bytes.is_empty() || bytes == b"." || bytes == b".." || bytes.contains(&b'/') {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let name = CString::new(bytes)?;
    let Some(directory) = unlink_or_open(parent, &name, FileType::Unknown)? else { return Ok(()) };
    let top = rustix::io::fcntl_dupfd_cloexec(&directory, 0)?;
    Removal { top, lifted: 0 }.empty(directory, 0)?;
    Ok(remove_directory(parent, &name)?)
}

/// One removal.
struct Removal {
    /// The directory that is removed, as the place to move deep ones to: nothing is left elsewhere if we are interrupted.
    top: OwnedFd,
    /// How many were moved, for names that are not taken.
    lifted: u64,
}

impl Removal {
    /// Removes everything in a directory. At the top this includes what was moved there on the way.
    fn empty(&mut self, directory: OwnedFd, depth: usize) -> rustix::io::Result<()> {
        let mut directory = Dir::new(directory)?;
        // Until a pass finds nothing: removing while reading may skip entries, readdir(3).
        loop {
            let mut found = false;
            while let Some(entry) = directory.read() {
                let entry = entry?;
                let name = entry.file_name();
                if name == c"." || name == c".." {
                    continue;
                }
                found = true;
                let here = directory.fd()?;
                let Some(child) = unlink_or_open(here, name, entry.file_type())? else { continue };
                if depth < MAX_DEPTH {
                    self.empty(child, depth + 1)?;
                    remove_directory(here, name)?;
                } else {
                    self.lift(here, name)?;
                }
            }
            if !found {
                return Ok(());
            }
            directory.rewind();
        }
    }

    /// Moves a directory that lies too deep up to the top, where the next pass finds it.
    fn lift(&mut self, parent: BorrowedFd<'_>, name: &CStr) -> rustix::io::Result<()> {
        loop {
            self.lifted += 1;
            let place = format!(".removing-{}", self.lifted);
            let flags = rustix::fs::RenameFlags::NOREPLACE;
            match rustix::fs::renameat_with(parent, name, &self.top, place.as_str(), flags) {
                Ok(()) | Err(Errno::NOENT) => return Ok(()),
                Err(Errno::EXIST) => {}
                Err(error) => return Err(error),
            }
        }
    }
}

/// Removes an entry that is no directory; opens one that is, ready to be emptied. `None` if nothing is left to do.
fn unlink_or_open(parent: BorrowedFd<'_>, name: &CStr, kind: FileType) -> rustix::io::Result<Option<OwnedFd>> {
    let mut refusal = Errno::ISDIR;
    if kind != FileType::Directory {
        match rustix::fs::unlinkat(parent, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => return Ok(None),
            // Linux says EISDIR for a directory, POSIX EPERM, which also stands for immutable files.
            Err(error @ (Errno::ISDIR | Errno::PERM)) => refusal = error,
            Err(error) => return Err(error),
        }
    }
    match open(parent, name) {
        Ok(directory) => open_up(directory).map(Some),
        Err(Errno::NOENT) => Ok(None),
        Err(Errno::NOTDIR | Errno::LOOP) if refusal != Errno::ISDIR => Err(refusal),
        Err(error) => Err(error),
    }
}

fn open(parent: BorrowedFd<'_>, name: &CStr) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let open = |access| crate::scoped::openat2(parent, name, flags | access, Mode::empty(), RESOLVE);
    match open(OFlags::RDONLY) {
        Err(Errno::ACCESS) => {
            // chmod(2) cannot be told to stay off links before Linux 6.6, so the directory is pinned by a path descriptor.
            let pinned = open(OFlags::PATH)?;
            rustix::fs::chmod(format!("/proc/self/fd/{}", pinned.as_raw_fd()), Mode::RWXU)?;
            open(OFlags::RDONLY)
        }
        other => other,
    }
}

/// Lets the owner remove and move entries of a directory, and move the directory itself.
fn open_up(directory: OwnedFd) -> rustix::io::Result<OwnedFd> {
    let stat = rustix::fs::fstat(&directory)?;
    if stat.st_mode & 0o700 != 0o700 {
        match rustix::fs::fchmod(&directory, Mode::RWXU) {
            // Somebody else's: a privilege may do without, and if not, the removal of its entries says so.
            Ok(()) | Err(Errno::PERM) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(directory)
}

fn remove_directory(parent: BorrowedFd<'_>, name: &CStr) -> rustix::io::Result<()> {
    match rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::fd::AsFd;
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
            remove(fs::File::open(&self.0)?.as_fd(), name.as_ref())
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = fs::File::open(std::env::temp_dir())
                .and_then(|t| remove(t.as_fd(), self.0.file_name().unwrap_or_default()));
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
    fn closed_directories_go_too() {
        let scratch = Scratch::new("closed");
        for mode in [0o000, 0o100, 0o200, 0o300, 0o400, 0o500, 0o600] {
            fs::create_dir_all(scratch.0.join("tree/work/inner")).expect("mkdir");
            fs::write(scratch.0.join("tree/work/file"), "x").expect("write");
            fs::set_permissions(scratch.0.join("tree/work"), fs::Permissions::from_mode(mode)).expect("chmod");
            scratch.remove("tree").expect("remove");
            assert!(!scratch.0.join("tree").exists(), "{mode:o}");
        }
    }

    #[test]
    fn depth_does_not_count() {
        let scratch = Scratch::new("deep");
        let mut parent: OwnedFd = fs::File::open(&scratch.0).expect("open").into();
        rustix::fs::mkdirat(&parent, c"tree", Mode::RWXU).expect("mkdir");
        // A name that moving up would like to use.
        fs::write(scratch.0.join("tree/.removing-1"), "x").expect("write");
        parent = open(parent.as_fd(), c"tree").expect("open");
        // Deeper than PATH_MAX, and than descriptors and a stack would allow; some levels are closed.
        for level in 0..1500 {
            rustix::fs::mkdirat(&parent, c"d", Mode::RWXU).expect("mkdir");
            rustix::fs::mkdirat(&parent, c"other", Mode::RWXU).expect("mkdir");
            let child = open(parent.as_fd(), c"d").expect("open");
            if level % 65 == 3 {
                rustix::fs::fchmod(&parent, Mode::empty()).expect("chmod");
            }
            parent = child;
        }
        scratch.remove("tree").expect("remove");
        assert!(!scratch.0.join("tree").exists());
        assert_eq!(fs::read_dir(&scratch.0).expect("list").count(), 0, "nothing was left beside it");
    }

    #[test]
    fn other_mounts_are_not_entered() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_change, unmount};
        let scratch = Scratch::new("mounts");
        let (below, file) = (scratch.0.join("tree/mount"), scratch.0.join("tree/mount/kept"));
        fs::create_dir_all(&below).expect("mkdir");
        // A thread of its own, whose mount namespace goes with it.
        std::thread::scope(|scope| {
            let test = scope.spawn(|| {
                // SAFETY: no descriptor table is unshared; mount namespace and working directory concern this thread alone.
                if unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNS) }.is_err() {
                    return;
                }
                let private = MountPropagationFlags::REC | MountPropagationFlags::PRIVATE;
                mount_change("/", private).expect("private mounts");
                mount("none", &below, "tmpfs", MountFlags::empty(), None).expect("mount");
                fs::write(&file, "x").expect("write");
                let error = scratch.remove("tree").expect_err("a mount is in the way");
                assert!(matches!(Errno::from_io_error(&error), Some(Errno::XDEV | Errno::BUSY)), "{error}");
                assert!(file.exists());
                unmount(&below, UnmountFlags::empty()).expect("unmount");
                scratch.remove("tree").expect("the same tree without the mount");
            });
            test.join().expect("the test's thread");
        });
    }

    #[test]
    fn two_may_remove_the_same() {
        let scratch = Scratch::new("race");
        for _ in 0..20 {
            for index in 0..20 {
                fs::create_dir_all(scratch.0.join(format!("tree/{index}/a/b"))).expect("mkdir");
            }
            let results: Vec<_> = std::thread::scope(|scope| {
                let both: Vec<_> = (0..2).map(|_| scope.spawn(|| scratch.remove("tree"))).collect();
                both.into_iter().map(|one| one.join().expect("thread")).collect()
            });
            assert!(results.iter().all(Result::is_ok), "{results:?}");
            assert!(!scratch.0.join("tree").exists());
        }
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
