//! The cell's root: its overlay, and what of the host and the image is bound into it.
//!
//! The builder makes these in the CELL's user namespace before libcontainer sees the bundle, which then only fills `/dev`; they are put in their place in
//! the cell's own namespaces ([`crate::late`]). libcontainer could mount all of it, as every runtime does with the portable bundle; it spends
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

use crate::place::{beneath, is_missing, mount_point};

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
    /// A mount that one of the kernel's would cover. Nothing leads here: it is refused where it is asked for.
    #[error("nothing can be mounted on {path}: the kernel's file systems are there", path = path.display())]
    Kernels { path: PathBuf },
    /// A mount on the whole root or on `/dev`, by a link.
    #[error("nothing can be mounted on {path}: by a link in the image it leads to / or to /dev", path = path.display())]
    Taken { path: PathBuf },
}

/// What is to be mounted, as plain data.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Plan {
    /// The overlay, and the image's own mounts.
    pub(crate) root: RootFs,
    /// The kernel's file systems, as in the specification.
    pub(crate) kernel: Vec<KernelMount>,
    /// The cell's mounts.
    pub(crate) mounts: Vec<Mount>,
    /// Links that are mounted onto themselves after all that: where they stand inside, and on the host.
    pub(crate) links: BTreeMap<PathBuf, PathBuf>,
    /// An empty file, which covers files; there if one of the mounts does.
    pub(crate) empty: PathBuf,
}

impl Plan {
    /// Binds and new file systems, in two lots: before and after the kernel's.
    fn lots(&self) -> [&[Mount]; 2] {
        [&self.root.mounts, &self.mounts]
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
        let lot = |mounts: &[Mount]| {
            let source = |mount: &Mount| match mount {
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
        if let Some(hidden) = image.iter().chain(cell).find(|mount| mounted_late(mount.target())) {
            return Err(RootError::Kernels { path: hidden.target().to_owned() });
        }
        let root = &plan.root;
        Ok(Self {
            binds: [lot(image)?, lot(cell)?],
            links: plan.links.values().map(|path| resolved(path)).collect::<Result<_, _>>()?,
            lowers: root.lowers.iter().map(|path| open(path, OFlags::DIRECTORY)).collect::<Result<_, _>>()?,
            upper: open(&root.upper, OFlags::DIRECTORY)?,
            work: open(&root.work, OFlags::DIRECTORY)?,
        })
    }

    /// Mounts the overlay of `plan` on the directory `at`, with its `/dev`, and makes the rest, to be attached later ([`crate::late`]).
    pub(crate) fn mount(self, plan: &Plan, at: &Path) -> Result<Trees, RootError> {
        let top = self.overlay(plan.root.volatile).map_err(|e| RootError::Overlay(e.into()))?;
        rustix::mount::move_mount(&top, c"", CWD, at, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
            .map_err(|e| RootError::Mount { path: "/".into(), source: e.into() })?;
        for mount in plan.kernel.iter().filter(|mount| mounted_early(mount.destination())) {
            let failed = |source: io::Error| RootError::Mount { path: mount.destination().clone(), source };
            let tree = kernel(mount).map_err(failed)?;
            attach(top.as_fd(), tree.as_fd(), mount.destination(), true)?;
        }
        let [image, cell] = plan.lots();
        let [image_sources, cell_sources] = self.binds;
        let links = plan.links.keys().zip(&self.links).map(|(target, source)| held(source.as_fd(), target));
        Ok(Trees {
            image: image.iter().zip(image_sources).map(Tree::of).collect::<Result<_, _>>()?,
            cell: cell.iter().zip(cell_sources).map(Tree::of).collect::<Result<_, _>>()?,
            links: links.collect::<Result<_, _>>()?,
        })
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
    cellblock_sys::scoped::openat2(CWD, path, flags, Mode::empty(), resolve)
}

fn resolved(path: &Path) -> Result<OwnedFd, RootError> {
    open_resolved(path).map_err(|e| RootError::Source { path: path.to_owned(), source: e.into() })
}

/// Whether one of the kernel's file systems is there before libcontainer begins, which makes links and devices in `/dev`.
pub(crate) fn mounted_early(target: &Path) -> bool {
    target.starts_with("/dev") && !mounted_late(target)
}

/// A mount that is made, and not attached yet.
#[derive(Debug)]
struct Tree {
    target: PathBuf,
    tree: OwnedFd,
    directory: bool,
    mask: bool,
}

/// What is mounted on the root and waits for the cell's own mount namespace: each mount that is there before would be copied when that is made,
/// and when libcontainer binds the root onto itself, and taken down twice.
#[derive(Debug, Default)]
pub(crate) struct Trees {
    image: Vec<Tree>,
    cell: Vec<Tree>,
    links: Vec<Tree>,
}

impl Tree {
    fn of((mount, source): (&Mount, Source)) -> Result<Self, RootError> {
        let failed = |source: io::Error| RootError::Mount { path: mount.target().to_owned(), source };
        let (tree, directory) = match source {
            Source::Bound(source) => bound(source.as_fd(), mount).map_err(failed)?,
            Source::Layers(lowers) => (layers(&lowers).map_err(|e| failed(e.into()))?, true),
            Source::New => (tmpfs(mount).map_err(|e| failed(e.into()))?, true),
        };
        let mask = matches!(mount, Mount::Mask { .. });
        Ok(Self { target: mount.target().to_owned(), tree, directory, mask })
    }
}

impl Trees {
    /// Attaches the image's own mounts below `top`.
    pub(crate) fn attach_image(&self, top: BorrowedFd<'_>) -> Result<(), RootError> {
        requested(top, &self.image)
    }

    /// Attaches the cell's mounts, and the links that are held in their place.
    pub(crate) fn attach_cell(&self, top: BorrowedFd<'_>) -> Result<(), RootError> {
        requested(top, &self.cell)?;
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        let open = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        self.links.iter().try_for_each(|Tree { target, tree, .. }| {
            let failed = |e: Errno| RootError::Mount { path: target.clone(), source: e.into() };
            let inside = target.strip_prefix("/").unwrap_or(target);
            let place = cellblock_sys::scoped::openat2(top, inside, open, Mode::empty(), resolve).map_err(failed)?;
            put(tree.as_fd(), place.as_fd(), target)
        })
    }
}

/// Attaches what was asked for below `top`, in order.
fn requested(top: BorrowedFd<'_>, trees: &[Tree]) -> Result<(), RootError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |error: Errno| RootError::Target { path, source: error.into() }
    };
    let taken = taken(top).map_err(failed(Path::new("/dev")))?;
    let mut masks = Vec::new();
    for Tree { target, tree, directory, mask } in trees {
        // What was to be covered may be gone by now; making something in its place would leave that on the host.
        if *mask && is_missing(top, target) {
            continue;
        }
        let place = mount_point(top, target, *directory)?;
        if taken.contains(&identity(place.as_fd()).map_err(failed(target))?) {
            return Err(RootError::Taken { path: target.to_owned() });
        }
        put(tree.as_fd(), place.as_fd(), target)?;
        if *mask {
            masks.push((target, tree));
        }
    }
    // Last, so that a mount below a covered folder that was asked for finds a place made for it there.
    for (target, tree) in masks {
        cellblock_sys::mount::set_read_only(tree.as_fd())
            .map_err(|source| RootError::Mount { path: target.clone(), source })?;
    }
    Ok(())
}

/// A link that will be mounted onto itself: it leads where it did, and can be neither removed nor replaced.
fn held(source: BorrowedFd<'_>, target: &Path) -> Result<Tree, RootError> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    let tree = rustix::mount::open_tree(source, c"", flags)
        .map_err(|e| RootError::Mount { path: target.to_owned(), source: e.into() })?;
    Ok(Tree { target: target.to_owned(), tree, directory: false, mask: false })
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
        return Ok(identity(place.as_fd())? == identity(empty.as_fd())?);
    }
    let about = rustix::fs::statx(place, c"", AtFlags::EMPTY_PATH, StatxFlags::TYPE)?;
    Ok(about.stx_attributes.contains(StatxAttributes::MOUNT_ROOT)
        && rustix::fs::fstatfs(place)?.f_type == TMPFS_MAGIC
        && rustix::fs::fstatvfs(place)?.f_flag.contains(StatVfsMountFlags::RDONLY))
}

/// `statfs(2)`'s name for a file system in memory.
const TMPFS_MAGIC: rustix::fs::FsWord = 0x0102_1994;

fn attach(top: BorrowedFd<'_>, tree: BorrowedFd<'_>, target: &Path, directory: bool) -> Result<(), RootError> {
    put(tree, mount_point(top, target, directory)?.as_fd(), target)
}

/// Where a link may lead and nothing is to be mounted: the root at `top`, and its `/dev`. Devices are still to be made there, and would be made in a folder
/// of the host's.
fn taken(top: BorrowedFd<'_>) -> rustix::io::Result<Vec<(u64, u64)>> {
    let mut taken = vec![identity(top)?];
    match beneath(top, Path::new("dev")) {
        Ok(dev) => taken.push(identity(dev.as_fd())?),
        Err(Errno::NOENT) => {}
        Err(error) => return Err(error),
    }
    Ok(taken)
}

fn identity(fd: BorrowedFd<'_>) -> rustix::io::Result<(u64, u64)> {
    rustix::fs::fstat(fd).map(|stat| (stat.st_dev, stat.st_ino))
}

/// Attaches the detached `tree` on `place`, which is at `target` inside.
pub(crate) fn put(tree: BorrowedFd<'_>, place: BorrowedFd<'_>, target: &Path) -> Result<(), RootError> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    rustix::mount::move_mount(tree, c"", place, c"", flags)
        .map_err(|e| RootError::Mount { path: target.to_owned(), source: e.into() })
}

/// One of the kernel's file systems, detached, by the options of the specification (`mount(8)`'s names, OCI `config.md`).
pub(crate) fn kernel(mount: &KernelMount) -> io::Result<OwnedFd> {
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
    // Programs look for a line of /proc/mounts that begins with `proc`.
    if let Some(source) = mount.source().as_deref().filter(|_| mounted_late(mount.destination())) {
        rustix::mount::fsconfig_set_string(&context, c"source", source)?;
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_mounted_where_the_kernels_file_systems_will_be() {
        let folder = std::env::temp_dir();
        let plan = |target: &str| Plan {
            root: RootFs {
                lowers: vec![folder.clone()],
                shared: Vec::new(),
                volatile: true,
                upper: folder.clone(),
                work: folder.clone(),
                mounts: Vec::new(),
            },
            kernel: Vec::new(),
            mounts: vec![Mount::Tmpfs { target: target.into(), size: None, mode: 0o755 }],
            links: BTreeMap::new(),
            empty: PathBuf::new(),
        };
        for target in ["/proc", "/proc/sys", "/dev/mqueue"] {
            assert!(matches!(Sources::open(&plan(target)), Err(RootError::Kernels { .. })), "{target}");
        }
        Sources::open(&plan("/process")).expect("another folder");
    }
}
