//! What the cell's first process mounts: `/proc` and `/dev/mqueue`, which belong to its PID and IPC namespaces, what covers the kernel's files in them
//! and in `/sys` ([`policy::MASKED_PATHS`], [`policy::READONLY_PATHS`]), and what the builder has made for it ([`Trees`]).
//!
//! libcontainer could make it all from a specification, with twice the system calls: it looks at the host's `/proc` again and again. And what is mounted
//! before the cell's mount namespace is made is copied twice, by that and by a bind. So its specification says nothing of it, and we do it where
//! its init tells of an event ([`TARGET`]): with all its namespaces, all its capabilities and the root in place, the host's `/proc` still there (without one
//! that is fully visible the kernel makes none in a user namespace: `mount_too_revealing`, fs/namespace.c), and before it enters the root.
//!
//! An event cannot fail. What went wrong goes where libcontainer's own errors go, and the command is not started unless [`Mounted::yet`] says that
//! everything is in its place: not if the event never came either.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use cellblock_bundle::policy;
use cellblock_bundle::spec::mounted_late;
use libcontainer::oci_spec::runtime::Mount as KernelMount;
use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, OpenTreeFlags};

use crate::place::beneath;
use crate::root::{self, Plan, RootError, Trees, put};

/// The module of libcontainer's whose first event comes when its init has bound the root onto itself, and before it makes the first device (0.7.0,
/// `bind_dev`). What is mounted earlier would be copied by that bind.
pub(crate) const TARGET: &str = "libcontainer::rootfs::device";

/// What is still to be mounted in one cell.
#[derive(Debug)]
pub(crate) struct Late {
    kernel: Vec<KernelMount>,
    root: PathBuf,
    /// Nothing, once it has been tried.
    trees: Mutex<Option<Trees>>,
    mounted: Mounted,
}

/// Whether it is, as seen in the process that mounts it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Mounted(Arc<AtomicBool>);

impl Mounted {
    /// Whether everything is in its place.
    pub(crate) fn yet(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

impl Late {
    /// `trees`, and what else `plan` leaves for later, on the root at `root`.
    pub(crate) fn of(plan: &Plan, trees: Trees, root: PathBuf) -> Self {
        let kernel = plan.kernel.iter().filter(|mount| !root::mounted_early(mount.destination())).cloned().collect();
        Self { kernel, root, trees: Mutex::new(Some(trees)), mounted: Mounted::default() }
    }

    /// What will tell whether it is mounted.
    pub(crate) fn mounted(&self) -> Mounted {
        self.mounted.clone()
    }

    /// Mounts it, the first time it is called, in the namespaces of the caller.
    pub(crate) fn mount(&self) -> Result<(), RootError> {
        let Some(trees) = self.trees.lock().ok().and_then(|mut trees| trees.take()) else { return Ok(()) };
        // By its path: the kernel takes nothing that was opened in the builder's mount namespace, of which this one is a copy.
        let top = rustix::fs::open(&self.root, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
            .map_err(|e| RootError::Source { path: self.root.clone(), source: e.into() })?;
        trees.attach_image(top.as_fd())?;
        let kernel = |late: bool| {
            self.kernel.iter().filter(|mount| mounted_late(mount.destination()) == late).try_for_each(|mount| {
                let path = mount.destination();
                let tree = root::kernel(mount).map_err(failed(path))?;
                put(tree.as_fd(), own_folder(top.as_fd(), path)?.as_fd(), path)
            })
        };
        kernel(false)?;
        trees.attach_cell(top.as_fd())?;
        // Last, so that a mount of the cell's whose place is a link, by the image or by an earlier cell, lies below `/proc` and not over it: a
        // false one is believed by whatever reads it (CVE-2019-16884).
        kernel(true)?;
        for row in policy::READONLY_PATHS {
            make_read_only(top.as_fd(), Path::new(row.what))?;
        }
        let mut covers = Covers::default();
        for row in policy::MASKED_PATHS {
            covers.cover(top.as_fd(), Path::new(row.what))?;
        }
        self.mounted.0.store(true, Ordering::Relaxed);
        Ok(())
    }
}

fn failed<E: Into<std::io::Error>>(path: &Path) -> impl FnOnce(E) -> RootError {
    move |source| RootError::Mount { path: path.to_owned(), source: source.into() }
}

/// The folder `path` itself below `top`, made if only that is missing. Never by a link: wherever one leads, programs would find something else at the
/// path that they know (CVE-2019-19921).
fn own_folder(top: BorrowedFd<'_>, path: &Path) -> Result<OwnedFd, RootError> {
    let inside = path.strip_prefix("/").unwrap_or(path);
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let open = |path: &Path| cellblock_sys::scoped::openat2(top, path, flags, Mode::empty(), resolve);
    let made = |inside: &Path| {
        let (Some(parent), Some(name)) = (inside.parent(), inside.file_name()) else { return Err(Errno::NOENT) };
        let parent = if parent == Path::new("") { rustix::io::dup(top)? } else { open(parent)? };
        rustix::fs::mkdirat(&parent, name, Mode::from_raw_mode(0o755))?;
        rustix::fs::openat(&parent, name, flags | OFlags::NOFOLLOW, Mode::empty())
    };
    let found = match open(inside) {
        Err(Errno::NOENT) => made(inside),
        other => other,
    };
    let kind = |is| RootError::Kind { path: path.to_owned(), is, what: "one of the kernel's file systems" };
    found.map_err(|error| match error {
        Errno::LOOP => kind("a link"),
        Errno::NOTDIR => kind("a file"),
        other => RootError::Target { path: path.to_owned(), source: other.into() },
    })
}

/// What is at `path` below `top`, if anything is: not every kernel has each of these files.
fn there(top: BorrowedFd<'_>, path: &Path) -> Result<Option<OwnedFd>, RootError> {
    match beneath(top, path.strip_prefix("/").unwrap_or(path)) {
        Ok(place) => Ok(Some(place)),
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
        Err(other) => Err(RootError::Target { path: path.to_owned(), source: other.into() }),
    }
}

/// Mounts `path` onto itself so that nothing in it can be written.
fn make_read_only(top: BorrowedFd<'_>, path: &Path) -> Result<(), RootError> {
    let Some(place) = there(top, path)? else { return Ok(()) };
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH
        | OpenTreeFlags::AT_RECURSIVE;
    let tree = rustix::mount::open_tree(&place, c"", flags).map_err(failed(path))?;
    let attributes = MountAttrFlags::MOUNT_ATTR_RDONLY
        | MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    cellblock_sys::mount::restrict(tree.as_fd(), attributes).map_err(failed(path))?;
    put(tree.as_fd(), place.as_fd(), path)
}

/// What covers files and folders: made when the first one needs it, and mounted in as many places as there are.
#[derive(Default)]
struct Covers {
    file: Option<OwnedFd>,
    folder: Option<OwnedFd>,
}

impl Covers {
    /// Covers `path` below `top`, if it is there, by an empty file system or by `/dev/null`, as every runtime does.
    fn cover(&mut self, top: BorrowedFd<'_>, path: &Path) -> Result<(), RootError> {
        let Some(place) = there(top, path)? else { return Ok(()) };
        let folder = FileType::from_raw_mode(rustix::fs::fstat(&place).map_err(failed(path))?.st_mode).is_dir();
        let kept = if folder { &mut self.folder } else { &mut self.file };
        let tree = match kept {
            Some(attached) => copy(attached),
            None if folder => nothing(),
            None => null(),
        };
        let tree = tree.map_err(failed(path))?;
        put(tree.as_fd(), place.as_fd(), path)?;
        kept.get_or_insert(tree);
        Ok(())
    }
}

/// A detached copy of the mount `mount`, which is attached in this namespace.
fn copy(mount: &OwnedFd) -> rustix::io::Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    rustix::mount::open_tree(mount, c"", flags)
}

/// An empty folder that nobody can put anything in: both the mount and the file system are read-only.
fn nothing() -> rustix::io::Result<OwnedFd> {
    let context = rustix::mount::fsopen(c"tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    rustix::mount::fsconfig_set_string(&context, c"source", c"tmpfs")?;
    rustix::mount::fsconfig_set_flag(&context, c"ro")?;
    rustix::mount::fsconfig_create(&context)?;
    rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::MOUNT_ATTR_RDONLY)
}

/// The host's `/dev/null`, which is the cell's too.
fn null() -> rustix::io::Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let tree = rustix::mount::open_tree(CWD, c"/dev/null", flags)?;
    let about = rustix::fs::fstat(&tree)?;
    // A file in its place would be shown at all these paths.
    let device = (rustix::fs::major(about.st_rdev), rustix::fs::minor(about.st_rdev));
    if !FileType::from_raw_mode(about.st_mode).is_char_device() || device != (1, 3) {
        return Err(Errno::NODEV);
    }
    Ok(tree)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_file_systems_are_never_put_behind_a_link() {
        let root = std::env::temp_dir().join(format!("cellblock-late-{}", std::process::id()));
        std::fs::create_dir_all(root.join("victim/below")).expect("mkdir");
        std::fs::create_dir(root.join("dev")).expect("mkdir");
        std::fs::write(root.join("file"), "").expect("write");
        std::os::unix::fs::symlink("/victim", root.join("proc")).expect("symlink");
        let top = rustix::fs::open(&root, OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).expect("open");
        let at = |path: &str| own_folder(top.as_fd(), Path::new(path));
        for behind in ["/proc", "/proc/below", "/proc/new"] {
            assert!(matches!(at(behind), Err(RootError::Kind { is: "a link", .. })), "{behind}");
        }
        assert!(matches!(at("/file"), Err(RootError::Kind { is: "a file", .. })));
        assert!(matches!(at("/no/way"), Err(RootError::Target { .. })), "only the last is made");
        for found in ["/victim/below", "/dev/mqueue", "/new"] {
            at(found).expect("there, or made");
        }
        assert!(root.join("dev/mqueue").is_dir() && root.join("new").is_dir() && !root.join("victim/new").exists());
        for missing in ["/proc/none", "/file/none", "/none"] {
            assert!(there(top.as_fd(), Path::new(missing)).expect("no error").is_none(), "{missing}");
        }
        assert!(there(top.as_fd(), Path::new("/proc/below")).expect("no error").is_some());
        let tmp = rustix::fs::open(std::env::temp_dir(), OFlags::PATH, Mode::empty()).expect("open");
        cellblock_sys::tree::remove(tmp.as_fd(), root.file_name().expect("a name")).expect("clean up");
    }

    #[test]
    fn nothing_is_said_to_be_mounted_that_is_not() {
        let plan = Plan {
            root: cellblock_bundle::RootFs {
                lowers: Vec::new(),
                shared: Vec::new(),
                volatile: true,
                upper: PathBuf::new(),
                work: PathBuf::new(),
                mounts: Vec::new(),
            },
            kernel: Vec::new(),
            mounts: Vec::new(),
            links: std::collections::BTreeMap::new(),
            empty: PathBuf::new(),
        };
        let late = Late::of(&plan, Trees::default(), "/nowhere".into());
        let mounted = late.mounted();
        assert!(!mounted.yet(), "the event has not come");
        assert!(late.mount().is_err());
        assert!(!mounted.yet(), "it has, and in vain");
        late.mount().expect("once is enough");
        assert!(!mounted.yet());
    }
}
