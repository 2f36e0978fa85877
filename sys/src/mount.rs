//! `mount_setattr(2)` (Linux 5.12), which rustix has no wrapper for.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::mount::MountAttrFlags;

/// Makes the mount behind `mount` read-only (this mount only, not the file system).
///
/// # Errors
/// Those of `mount_setattr(2)`.
pub fn set_read_only(mount: BorrowedFd<'_>) -> io::Result<()> {
    set(mount, 0, libc::MOUNT_ATTR_RDONLY, 0)
}

/// Adds restrictions (`RDONLY`, `NOSUID`, `NODEV`, `NOEXEC`) to the mount behind `mount` and to all below it.
///
/// # Errors
/// Those of `mount_setattr(2)`.
pub fn restrict(mount: BorrowedFd<'_>, attributes: MountAttrFlags) -> io::Result<()> {
    set(mount, libc::AT_RECURSIVE, attributes.bits().into(), 0)
}

/// Id-maps a detached mount and those below it by `user_namespace`: a file that belongs to id N on disk shows as the id that N
/// has outside that namespace. Only for mounts not attached yet; the file systems must support it (`mount_setattr(2)`).
///
/// # Errors
/// Those of `mount_setattr(2)`: `EINVAL` where a file system cannot.
pub fn set_id_map(mount: BorrowedFd<'_>, user_namespace: BorrowedFd<'_>) -> io::Result<()> {
    let fd = u64::try_from(user_namespace.as_raw_fd()).map_err(|_| io::ErrorKind::InvalidInput)?;
    set(mount, libc::AT_RECURSIVE, libc::MOUNT_ATTR_IDMAP, fd)
}

fn set(mount: BorrowedFd<'_>, flags: libc::c_int, attributes: u64, user_namespace: u64) -> io::Result<()> {
    let attr = libc::mount_attr { attr_set: attributes, attr_clr: 0, propagation: 0, userns_fd: user_namespace };
    // SAFETY: an open descriptor, an empty NUL-terminated path, and a struct of the size that is passed.
    let r = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH | flags,
            &raw const attr,
            size_of::<libc::mount_attr>(),
        )
    };
    if r == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
