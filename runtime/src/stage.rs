//! The folders of one start: the stage in memory, and the writable layer on disk.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use cellblock_bundle::cell;
use rustix::fs::Mode;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags};

use crate::state::{self, Claim, Kept, StateError};
use crate::supervisor::{RuntimeError, Start, os};

/// Puts a read-only cgroup2 over `/sys/fs/cgroup` of OUTER. libcontainer then takes the host for a pure v2 one on which it may not
/// make cgroups, and carries on without: on v1 and hybrid hosts it would fail rootless, and as root it would move the
/// cell into a dozen new groups, which costs milliseconds. Limits are ours ([`crate::cgroup`]).
pub(crate) fn hide_cgroups(rootless: bool) -> Result<(), RuntimeError> {
    let attributes = MountAttrFlags::MOUNT_ATTR_RDONLY
        | MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    // Under real root a mount that is there already, on pure v2 and on hybrid hosts: a new one may wait 15 ms for the kernel. Rootless a new
    // one is made at once, and shows no more than OUTER's cgroup namespace: a cell with the host's network sees it.
    let there: &[&str] = if rootless { &[] } else { &["/sys/fs/cgroup", "/sys/fs/cgroup/unified"] };
    let copied = there.iter().find_map(|path| {
        let is_v2 = rustix::fs::statfs(*path).is_ok_and(|s| s.f_type == CGROUP2_SUPER_MAGIC);
        let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        let tree = is_v2.then(|| rustix::mount::open_tree(rustix::fs::CWD, *path, flags).ok()).flatten()?;
        cellblock_sys::mount::restrict(tree.as_fd(), attributes).ok().map(|()| tree)
    });
    let fresh = || {
        let context = rustix::mount::fsopen(c"cgroup2", FsOpenFlags::FSOPEN_CLOEXEC)?;
        rustix::mount::fsconfig_create(&context)?;
        rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
    };
    let attach = |mount: OwnedFd| {
        let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
        rustix::mount::move_mount(&mount, c"", rustix::fs::CWD, c"/sys/fs/cgroup", flags)
    };
    copied.map_or_else(fresh, Ok).and_then(attach).map_err(os("cannot mount cgroup2"))
}

/// `statfs(2)`'s name for cgroup v2.
const CGROUP2_SUPER_MAGIC: rustix::fs::FsWord = 0x6367_7270;

/// Mounts the stage: a file system in memory that only OUTER sees, for what is made anew at each start (skeleton, bundle, mount points,
/// libcontainer's state). It costs no disk, and the kernel takes it away with OUTER, whatever happens to us.
pub(crate) fn make_stage(start: &Start, claim: &Claim) -> Result<PathBuf, RuntimeError> {
    let stage = claim.dir.join(state::STAGE);
    make_folder(&stage, 0o700)?;
    let mount = || -> rustix::io::Result<()> {
        let context = rustix::mount::fsopen(c"tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
        rustix::mount::fsconfig_set_string(&context, c"mode", c"0711")?;
        rustix::mount::fsconfig_create(&context)?;
        let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
        let mount = rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)?;
        let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
        rustix::mount::move_mount(&mount, c"", rustix::fs::CWD, &stage, flags)
    };
    mount().map_err(os("cannot mount a file system in memory for the start"))?;
    give_to_root_inside(start, &stage)?;
    let rootfs = stage.join("rootfs");
    make_folder(&rootfs, 0o700)?;
    give_to_root_inside(start, &rootfs)?;
    Ok(stage)
}

/// Writes what the cell has to trust into its skeleton.
pub(crate) fn write_trust(skeleton: &Path, trust: &str) -> Result<(), RuntimeError> {
    let path = skeleton.join(cell::TRUST.trim_start_matches('/'));
    let write = || -> io::Result<()> {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
            std::fs::set_permissions(folder, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
        }
        std::fs::write(&path, trust)?;
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o644))
    };
    write().map_err(os("cannot write what the cell is to trust"))
}

/// Makes the folders of the writable layer.
pub(crate) fn make_layer(start: &Start) -> Result<(), RuntimeError> {
    let parent = start.root.upper.parent().unwrap_or(Path::new("/"));
    for folder in [&start.dirs.data, &start.dirs.data.join("cells"), parent] {
        state::make_dir(folder)?;
    }
    // Of one that is there it is not known what it lies over, if it does not say so itself.
    if start.keep && !start.root.upper.exists() {
        Kept::of(&start.cell).write(parent)?;
    }
    for (folder, mode) in [(&start.root.upper, 0o755), (&start.root.work, 0o700)] {
        make_folder(folder, mode)?;
        give_to_root_inside(start, folder)?;
    }
    if start.cell.ids.rootless() && start.cell.ids.has_range() {
        // `/` belongs to root inside, as everywhere.
        std::os::unix::fs::chown(&start.root.upper, Some(0), Some(0))
            .map_err(os("cannot give a folder to the cell"))?;
    }
    Ok(())
}

/// Makes `folder` with exactly this mode: that of the upper directory is the mode of `/` inside, and the umask must have no say in it.
fn make_folder(folder: &Path, mode: u32) -> Result<(), RuntimeError> {
    match rustix::fs::mkdir(folder, Mode::from_raw_mode(mode)) {
        Ok(()) | Err(rustix::io::Errno::EXIST) => {}
        Err(error) => {
            return Err(StateError::Io { what: "cannot make", path: folder.to_owned(), source: error.into() }.into());
        }
    }
    rustix::fs::chmod(folder, Mode::from_raw_mode(mode)).map_err(os("cannot set the mode of a folder"))
}

/// Under real root `folder` has to belong to the cell's root, who mounts with it.
fn give_to_root_inside(start: &Start, folder: &Path) -> Result<(), RuntimeError> {
    if start.cell.ids.rootless() {
        return Ok(());
    }
    let (uid, gid) = (start.cell.ids.host_uid(0), start.cell.ids.host_gid(0));
    std::os::unix::fs::chown(folder, uid, gid).map_err(os("cannot give a folder to the cell"))
}
