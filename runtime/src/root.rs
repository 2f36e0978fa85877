//! The cell's root: its overlay, and what of the host and the image is bound into it.
//!
//! The builder mounts these in the CELL's user namespace before libcontainer sees the bundle, which then only adds `/proc`, `/dev` and
//! `/sys` ([`spec::in_kernel_tree`]). libcontainer could mount all of it, as every runtime does with the portable bundle; it spends
//! about 0.2 ms on each mount, most of it on looking at `/proc` again and again, and cannot take directories by descriptor.
//!
//! Everything is done by descriptor. Directories are handed to overlayfs as `/proc/self/fd/N`: no length limit, no characters with a
//! meaning, and no path of the host in the cell's `/proc/mounts`.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use cellblock_bundle::{Mount, RootFs};
use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags};

/// Why the root could not be mounted.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RootError {
    /// A directory of the overlay or the source of a bind cannot be opened.
    #[error("cannot open {path} to mount it: {source}", path = path.display())]
    Source { path: PathBuf, source: io::Error },
    /// The kernel refuses the overlay.
    #[error("cannot mount the overlay of the root: {0}")]
    Overlay(io::Error),
    /// A mount cannot be made or attached.
    #[error("cannot mount on {path}: {source}", path = path.display())]
    Mount { path: PathBuf, source: io::Error },
    /// The place for a mount can neither be found nor made.
    #[error("cannot make the mount point {path} in the image: {source}", path = path.display())]
    Target { path: PathBuf, source: io::Error },
    /// The place for a mount is a link that leads nowhere.
    #[error("the mount point {path} is, or lies behind, a symbolic link that leads nowhere in the image", path = path.display())]
    Dangling { path: PathBuf },
    /// A folder on a file, or the other way round.
    #[error("the mount point {path} is {is} in the image, which {what} cannot be mounted on", path = path.display())]
    Kind { path: PathBuf, is: &'static str, what: &'static str },
}

/// What will be mounted, opened while the opener may still reach it.
#[derive(Debug)]
pub(crate) struct Sources {
    lowers: Vec<OwnedFd>,
    upper: OwnedFd,
    work: OwnedFd,
    /// One for each mount; nothing for a new file system.
    binds: Vec<Option<OwnedFd>>,
}

impl Sources {
    /// Opens everything that `root` names. To be called in the mount namespace in which it will be mounted: the kernel takes no mount
    /// of another one.
    pub(crate) fn open(root: &RootFs) -> Result<Self, RootError> {
        let open = |path: &Path, flags: OFlags| {
            rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC | flags, Mode::empty())
                .map_err(|e| RootError::Source { path: path.to_owned(), source: e.into() })
        };
        let binds = root.mounts.iter().map(|mount| match mount {
            Mount::Bind { source, .. } => open(source, OFlags::empty()).map(Some),
            Mount::Tmpfs { .. } => Ok(None),
        });
        Ok(Self {
            binds: binds.collect::<Result<_, _>>()?,
            lowers: root.lowers.iter().map(|path| open(path, OFlags::DIRECTORY)).collect::<Result<_, _>>()?,
            upper: open(&root.upper, OFlags::DIRECTORY)?,
            work: open(&root.work, OFlags::DIRECTORY)?,
        })
    }

    /// Mounts `root` on the directory `at`, its mounts on top in their order.
    pub(crate) fn mount(&self, root: &RootFs, at: &Path) -> Result<(), RootError> {
        let top = self.overlay(root.volatile).map_err(|e| RootError::Overlay(e.into()))?;
        rustix::mount::move_mount(&top, c"", CWD, at, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
            .map_err(|e| RootError::Mount { path: "/".into(), source: e.into() })?;
        for (mount, source) in root.mounts.iter().zip(&self.binds) {
            let failed = |source: io::Error| RootError::Mount { path: mount.target().to_owned(), source };
            let (tree, directory) = match source {
                Some(source) => bound(source.as_fd(), mount).map_err(failed)?,
                None => (tmpfs(mount).map_err(|e| failed(e.into()))?, true),
            };
            let place = mount_point(top.as_fd(), mount.target(), directory)?;
            let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
            rustix::mount::move_mount(&tree, c"", &place, c"", flags).map_err(|e| failed(e.into()))?;
        }
        Ok(())
    }

    fn overlay(&self, volatile: bool) -> rustix::io::Result<OwnedFd> {
        use rustix::mount::{fsconfig_create, fsconfig_set_flag, fsconfig_set_string};
        let magic = |fd: &OwnedFd| format!("/proc/self/fd/{}", fd.as_raw_fd());
        let context = rustix::mount::fsopen(c"overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
        let joined = self.lowers.iter().map(magic).collect::<Vec<_>>().join(":");
        if joined.len() <= cellblock_bundle::spec::MAX_OPTION {
            fsconfig_set_string(&context, c"lowerdir", joined.as_str())?;
        } else {
            for lower in &self.lowers {
                // Linux 6.7.
                fsconfig_set_string(&context, c"lowerdir+", magic(lower).as_str())?;
            }
        }
        fsconfig_set_string(&context, c"upperdir", magic(&self.upper).as_str())?;
        fsconfig_set_string(&context, c"workdir", magic(&self.work).as_str())?;
        // The reasons for both are at the portable form, `cellblock_bundle::spec`.
        fsconfig_set_flag(&context, c"userxattr")?;
        if volatile {
            fsconfig_set_flag(&context, c"volatile")?;
        }
        fsconfig_create(&context)?;
        rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())
    }
}

/// A detached copy of the mount tree at `source`, restricted as `mount` says, and whether it is a directory.
fn bound(source: BorrowedFd<'_>, mount: &Mount) -> io::Result<(OwnedFd, bool)> {
    // Recursive, because a plain bind of a directory with mounts below it is refused in a user namespace: it would uncover what they
    // cover.
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH
        | OpenTreeFlags::AT_RECURSIVE;
    let tree = rustix::mount::open_tree(source, c"", flags)?;
    let mut attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
    if !matches!(mount, Mount::Bind { writable: true, .. }) {
        attributes |= MountAttrFlags::MOUNT_ATTR_RDONLY;
    }
    cellblock_sys::mount::restrict(tree.as_fd(), attributes)?;
    let directory = FileType::from_raw_mode(rustix::fs::fstat(&tree)?.st_mode).is_dir();
    Ok((tree, directory))
}

fn tmpfs(mount: &Mount) -> rustix::io::Result<OwnedFd> {
    let context = rustix::mount::fsopen(c"tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    if let Mount::Tmpfs { size, mode, .. } = mount {
        rustix::mount::fsconfig_set_string(&context, c"mode", format!("{mode:o}"))?;
        if let Some(bytes) = size {
            rustix::mount::fsconfig_set_string(&context, c"size", bytes.to_string())?;
        }
    }
    rustix::mount::fsconfig_create(&context)?;
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
    rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
}

/// Finds or makes the place `target` below `root`, where a directory or a file is to be mounted. Links are followed as the cell would
/// follow them, never out of `root`.
fn mount_point(root: BorrowedFd<'_>, target: &Path, directory: bool) -> Result<OwnedFd, RootError> {
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

fn beneath(root: BorrowedFd<'_>, path: &Path) -> rustix::io::Result<OwnedFd> {
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    rustix::fs::openat2(root, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), resolve)
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
    use super::*;

    fn scratch(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("cellblock-root-{name}-{}", std::process::id()));
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
