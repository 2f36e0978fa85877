//! The layers of an image as one read-only tree, without a cell.

use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen,
};

/// What a cell over `lowers` (the topmost first) sees: an overlay that is mounted nowhere, and gone with the descriptor. To be
/// called in OUTER, where overlays can be mounted.
///
/// # Errors
/// Those of the system calls; `InvalidInput` for no layer at all, or paths that need `lowerdir+` on a kernel before 6.8.
pub fn merged(lowers: &[PathBuf]) -> io::Result<OwnedFd> {
    if let [only] = lowers {
        // overlayfs.rst: without an upper layer there have to be two.
        return Ok(rustix::fs::open(only, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?);
    }
    let make = |one_by_one: bool| -> rustix::io::Result<OwnedFd> {
        let context = fsopen(c"overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
        // The layers' marks are in `user.*` attributes, as in the cells that use them.
        fsconfig_set_flag(&context, c"userxattr")?;
        if one_by_one {
            for lower in lowers {
                fsconfig_set_string(&context, c"lowerdir+", lower)?;
            }
        } else {
            let joined = lowers.iter().map(|p| p.as_os_str()).collect::<Vec<_>>().join(":".as_ref());
            fsconfig_set_string(&context, c"lowerdir", joined)?;
        }
        fsconfig_create(&context)?;
        fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::MOUNT_ATTR_RDONLY)
    };
    // `lowerdir+` takes a path as it is (Linux 6.8); the old form has marks of its own and at most 255 bytes.
    match make(true) {
        Err(Errno::INVAL) => Ok(make(false)?),
        other => Ok(other?),
    }
}
