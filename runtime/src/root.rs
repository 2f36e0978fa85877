//! The cell's root: its overlay, and what of the host and the image is bound into it.
//!
//! The builder mounts these in the CELL's user namespace before libcontainer sees the bundle, which then only adds `/proc` and
//! `/dev/mqueue` ([`cellblock_bundle::spec::mounted_late`]) and fills `/dev`. libcontainer could mount all of it, as every runtime does with the portable bundle; it spends
//! about 0.2 ms on each mount, most of it on looking at `/proc` again and again, and cannot take directories by descriptor.
//!
//! Everything is done by descriptor. Directories are handed to overlayfs as `/proc/self/fd/N`: no length limit, no characters with a
//! meaning, and no path of the host in the cell's `/proc/mounts`.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use cellblock_bundle::spec::mounted_late;
use cellblock_bundle::{Mount, RootFs};
use libcontainer::oci_spec::runtime::Mount as KernelMount;
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, StatVfsMountFlags, StatxAttributes, StatxFlags};
use rustix::io::Errno;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags};
use serde::{Deserialize, Serialize};

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

/// What is to be mounted, as plain data.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Plan {
    /// The overlay, and the image's own mounts.
    pub(crate) root: RootFs,
    /// The kernel's file systems, as in the specification.
    pub(crate) kernel: Vec<KernelMount>,
    /// The cell's mounts, also those that libcontainer has to make.
    pub(crate) mounts: Vec<Mount>,
    /// Links that are mounted onto themselves after all that: where they stand inside, and on the host.
    pub(crate) links: BTreeMap<PathBuf, PathBuf>,
    /// An empty file, which covers files; there if one of the mounts does.
    pub(crate) empty: PathBuf,
}

impl Plan {
    /// Binds and new file systems, in two lots: before and after the kernel's.
    fn lots(&self) -> [Vec<&Mount>; 2] {
        let early = self.mounts.iter().filter(|m| !mounted_late(m.target()));
        [self.root.mounts.iter().collect(), early.collect()]
    }
}

/// What one mount is made of.
#[derive(Debug)]
enum Source {
    /// Nothing: it is a new file system.
    New,
    /// What is bound.
    Bound(OwnedFd),
    /// The folders of an overlay, the topmost first.
    Layers(Vec<OwnedFd>),
}

/// What will be mounted, opened while the opener may still reach it.
#[derive(Debug)]
pub(crate) struct Sources {
    lowers: Vec<OwnedFd>,
    upper: OwnedFd,
    work: OwnedFd,
    /// One for each mount of both lots.
    binds: [Vec<Source>; 2],
    /// One for each link.
    links: Vec<OwnedFd>,
}

impl Sources {
    /// Opens everything that `plan` names. To be called in the mount namespace in which it will be mounted: the kernel takes no mount
    /// of another one.
    pub(crate) fn open(plan: &Plan) -> Result<Self, RootError> {
        let open = |path: &Path, flags: OFlags| {
            rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC | flags, Mode::empty())
                .map_err(|e| RootError::Source { path: path.to_owned(), source: e.into() })
        };
        let lot = |mounts: &[&Mount]| {
            let source = |mount: &&Mount| match mount {
                Mount::Bind { source, .. } => resolved(source).map(Source::Bound),
                Mount::Mask { directory: false, .. } => open(&plan.empty, OFlags::empty()).map(Source::Bound),
                Mount::Layers { lowers, .. } => {
                    let opened = lowers.iter().map(|lower| resolved(lower)).collect::<Result<_, _>>();
                    opened.map(Source::Layers)
                }
                Mount::Tmpfs { .. } | Mount::Mask { directory: true, .. } => Ok(Source::New),
            };
            mounts.iter().map(source).collect::<Result<Vec<_>, _>>()
        };
        let [image, cell] = plan.lots();
        let root = &plan.root;
        Ok(Self {
            binds: [lot(&image)?, lot(&cell)?],
            links: plan.links.values().map(|path| resolved(path)).collect::<Result<_, _>>()?,
            lowers: root.lowers.iter().map(|path| open(path, OFlags::DIRECTORY)).collect::<Result<_, _>>()?,
            upper: open(&root.upper, OFlags::DIRECTORY)?,
            work: open(&root.work, OFlags::DIRECTORY)?,
        })
    }

    /// Mounts `plan` on the directory `at`.
    pub(crate) fn mount(&self, plan: &Plan, at: &Path) -> Result<(), RootError> {
        let top = self.overlay(plan.root.volatile).map_err(|e| RootError::Overlay(e.into()))?;
        rustix::mount::move_mount(&top, c"", CWD, at, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
            .map_err(|e| RootError::Mount { path: "/".into(), source: e.into() })?;
        let [image, cell] = plan.lots();
        let [image_sources, cell_sources] = &self.binds;
        requested(top.as_fd(), &image, image_sources)?;
        for mount in &plan.kernel {
            let failed = |source: io::Error| RootError::Mount { path: mount.destination().clone(), source };
            let tree = kernel(mount).map_err(failed)?;
            attach(top.as_fd(), tree.as_fd(), mount.destination(), true)?;
        }
        requested(top.as_fd(), &cell, cell_sources)?;
        plan.links.keys().zip(&self.links).try_for_each(|(target, source)| held(top.as_fd(), source.as_fd(), target))
    }

    fn overlay(&self, volatile: bool) -> rustix::io::Result<OwnedFd> {
        use rustix::mount::{fsconfig_create, fsconfig_set_flag, fsconfig_set_string};
        let context = over_each_other(&self.lowers)?;
        fsconfig_set_string(&context, c"upperdir", magic(&self.upper).as_str())?;
        fsconfig_set_string(&context, c"workdir", magic(&self.work).as_str())?;
        // The reason is at the portable form, `cellblock_bundle::spec`.
        if volatile {
            fsconfig_set_flag(&context, c"volatile")?;
        }
        fsconfig_create(&context)?;
        rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())
    }
}

fn magic(fd: &OwnedFd) -> String {
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}

/// The beginning of an overlay of `lowers`, the topmost first.
fn over_each_other(lowers: &[OwnedFd]) -> rustix::io::Result<OwnedFd> {
    use rustix::mount::{fsconfig_set_flag, fsconfig_set_string};
    let context = rustix::mount::fsopen(c"overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    let joined = lowers.iter().map(magic).collect::<Vec<_>>().join(":");
    if joined.len() <= cellblock_bundle::spec::MAX_OPTION {
        fsconfig_set_string(&context, c"lowerdir", joined.as_str())?;
    } else {
        for lower in lowers {
            // Linux 6.7.
            fsconfig_set_string(&context, c"lowerdir+", magic(lower).as_str())?;
        }
    }
    // The reason is at the portable form, `cellblock_bundle::spec`.
    fsconfig_set_flag(&context, c"userxattr")?;
    Ok(context)
}

/// An overlay of folders that nobody writes.
fn layers(lowers: &[OwnedFd]) -> rustix::io::Result<OwnedFd> {
    let context = over_each_other(lowers)?;
    rustix::mount::fsconfig_create(&context)?;
    let attributes =
        MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV | MountAttrFlags::MOUNT_ATTR_RDONLY;
    rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
}

/// Opens the source of a bind. Its path has no links, as whoever decided on it has followed them: a link that is there now was put there since, by
/// another cell of the same project perhaps, and leads where nobody decided.
pub(crate) fn open_resolved(path: &Path) -> rustix::io::Result<OwnedFd> {
    let resolve = ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    // A link at the end is opened itself (openat2(2), RESOLVE_NO_SYMLINKS).
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat2(CWD, path, flags, Mode::empty(), resolve)
}

fn resolved(path: &Path) -> Result<OwnedFd, RootError> {
    open_resolved(path).map_err(|e| RootError::Source { path: path.to_owned(), source: e.into() })
}

/// Mounts what was asked for below `top`, in order.
fn requested(top: BorrowedFd<'_>, mounts: &[&Mount], sources: &[Source]) -> Result<(), RootError> {
    let mut masks = Vec::new();
    for (mount, source) in mounts.iter().zip(sources) {
        let failed = |source: io::Error| RootError::Mount { path: mount.target().to_owned(), source };
        let mask = matches!(mount, Mount::Mask { .. });
        // What was to be covered may be gone by now; making something in its place would leave that on the host.
        if mask && is_missing(top, mount.target()) {
            continue;
        }
        let (tree, directory) = match source {
            Source::Bound(source) => bound(source.as_fd(), mount).map_err(failed)?,
            Source::Layers(lowers) => (layers(lowers).map_err(|e| failed(e.into()))?, true),
            Source::New => (tmpfs(mount).map_err(|e| failed(e.into()))?, true),
        };
        attach(top, tree.as_fd(), mount.target(), directory)?;
        if mask {
            masks.push((mount, tree));
        }
    }
    // Last, so that a mount below a covered folder that was asked for finds a place made for it there.
    for (mount, tree) in masks {
        cellblock_sys::mount::set_read_only(tree.as_fd())
            .map_err(|source| RootError::Mount { path: mount.target().to_owned(), source })?;
    }
    Ok(())
}

/// Mounts a link onto itself: it leads where it did, and can be neither removed nor replaced.
fn held(top: BorrowedFd<'_>, source: BorrowedFd<'_>, target: &Path) -> Result<(), RootError> {
    let failed = |e: Errno| RootError::Mount { path: target.to_owned(), source: e.into() };
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    let tree = rustix::mount::open_tree(source, c"", flags).map_err(failed)?;
    let inside = target.strip_prefix("/").unwrap_or(target);
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let open = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let place = rustix::fs::openat2(top, inside, open, Mode::empty(), resolve).map_err(failed)?;
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    rustix::mount::move_mount(&tree, c"", &place, c"", flags).map_err(failed)
}

/// Puts the mask `mount` back in its place below `top`: `tree` if that is an empty file, else a new empty folder. Nothing, if nothing is there, or one
/// already: where a link is on the way, it has another path than the mask's.
pub(crate) fn cover(top: BorrowedFd<'_>, mount: &Mount, tree: Option<OwnedFd>) -> Result<(), RootError> {
    let target = mount.target();
    match beneath(top, target.strip_prefix("/").unwrap_or(target)) {
        Err(Errno::NOENT) => return Ok(()),
        Ok(place) if is_mask(&place, tree.as_ref()).unwrap_or(false) => return Ok(()),
        _ => {}
    }
    let failed = |source: io::Error| RootError::Mount { path: mount.target().to_owned(), source };
    let (tree, directory) = match tree {
        Some(tree) => (tree, false),
        None => (tmpfs(mount).map_err(|e| failed(e.into()))?, true),
    };
    cellblock_sys::mount::set_read_only(tree.as_fd()).map_err(failed)?;
    attach(top, tree.as_fd(), mount.target(), directory)
}

/// Whether `place` is a mask already: the empty file `empty`, or a folder that nobody can put anything in.
fn is_mask(place: &OwnedFd, empty: Option<&OwnedFd>) -> rustix::io::Result<bool> {
    if let Some(empty) = empty {
        let (one, other) = (rustix::fs::fstat(place)?, rustix::fs::fstat(empty)?);
        return Ok((one.st_dev, one.st_ino) == (other.st_dev, other.st_ino));
    }
    let about = rustix::fs::statx(place, c"", AtFlags::EMPTY_PATH, StatxFlags::TYPE)?;
    Ok(about.stx_attributes.contains(StatxAttributes::MOUNT_ROOT)
        && rustix::fs::fstatfs(place)?.f_type == TMPFS_MAGIC
        && rustix::fs::fstatvfs(place)?.f_flag.contains(StatVfsMountFlags::RDONLY))
}

/// `statfs(2)`'s name for a file system in memory.
const TMPFS_MAGIC: rustix::fs::FsWord = 0x0102_1994;

/// Whether there is nothing at `target` below `root`.
fn is_missing(root: BorrowedFd<'_>, target: &Path) -> bool {
    beneath(root, target.strip_prefix("/").unwrap_or(target)).is_err_and(|e| e == Errno::NOENT)
}

fn attach(top: BorrowedFd<'_>, tree: BorrowedFd<'_>, target: &Path, directory: bool) -> Result<(), RootError> {
    let place = mount_point(top, target, directory)?;
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    rustix::mount::move_mount(tree, c"", &place, c"", flags)
        .map_err(|e| RootError::Mount { path: target.to_owned(), source: e.into() })
}

/// One of the kernel's file systems, detached, by the options of the specification (`mount(8)`'s names, OCI `config.md`).
fn kernel(mount: &KernelMount) -> io::Result<OwnedFd> {
    let mut attributes = MountAttrFlags::empty();
    let mut own = Vec::new();
    let mut copied = false;
    for option in mount.options().iter().flatten() {
        match option.as_str() {
            "nosuid" => attributes |= MountAttrFlags::MOUNT_ATTR_NOSUID,
            "nodev" => attributes |= MountAttrFlags::MOUNT_ATTR_NODEV,
            "noexec" => attributes |= MountAttrFlags::MOUNT_ATTR_NOEXEC,
            "ro" | "rro" => attributes |= MountAttrFlags::MOUNT_ATTR_RDONLY,
            "strictatime" => attributes |= MountAttrFlags::MOUNT_ATTR_STRICTATIME,
            "rbind" => copied = true,
            other => own.push(other),
        }
    }
    if copied {
        let source = mount.source().as_deref().ok_or(io::ErrorKind::InvalidInput)?;
        let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_RECURSIVE;
        let tree = rustix::mount::open_tree(CWD, source, flags)?;
        cellblock_sys::mount::restrict(tree.as_fd(), attributes)?;
        return Ok(tree);
    }
    let kind = mount.typ().as_deref().ok_or(io::ErrorKind::InvalidInput)?;
    let context = rustix::mount::fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
    for option in own {
        match option.split_once('=') {
            Some((key, value)) => rustix::mount::fsconfig_set_string(&context, key, value)?,
            None => rustix::mount::fsconfig_set_flag(&context, option)?,
        }
    }
    rustix::mount::fsconfig_create(&context)?;
    Ok(rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)?)
}

/// A detached copy of the mount tree at `source`, restricted as `mount` says, and whether it is a directory.
pub(crate) fn bound(source: BorrowedFd<'_>, mount: &Mount) -> io::Result<(OwnedFd, bool)> {
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
    if matches!(mount, Mount::Mask { .. }) {
        attributes |= MountAttrFlags::MOUNT_ATTR_NOEXEC;
    }
    cellblock_sys::mount::restrict(tree.as_fd(), attributes)?;
    let kind = FileType::from_raw_mode(rustix::fs::fstat(&tree)?.st_mode);
    if kind.is_symlink() {
        return Err(Errno::LOOP.into());
    }
    Ok((tree, kind.is_dir()))
}

fn tmpfs(mount: &Mount) -> rustix::io::Result<OwnedFd> {
    let context = rustix::mount::fsopen(c"tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    if let Mount::Tmpfs { size, mode, .. } = mount {
        rustix::mount::fsconfig_set_string(&context, c"mode", format!("{mode:o}"))?;
        if let Some(bytes) = size {
            rustix::mount::fsconfig_set_string(&context, c"size", bytes.to_string())?;
        }
    }
    let mut attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
    if let Mount::Mask { .. } = mount {
        rustix::mount::fsconfig_set_string(&context, c"mode", c"0555")?;
        attributes |= MountAttrFlags::MOUNT_ATTR_NOEXEC;
    }
    rustix::mount::fsconfig_create(&context)?;
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
