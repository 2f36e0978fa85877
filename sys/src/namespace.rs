//! Entering and making namespaces (namespaces(7)).

use std::io;

use rustix::thread::UnshareFlags;

/// Moves this process into new namespaces (`unshare(2)`).
///
/// # Errors
/// `InvalidInput` for anything but `CLONE_NEW*` flags; those of `unshare(2)`, such as `EPERM` where user namespaces are
/// switched off, `ENOSPC` where their number or depth is used up, `EINVAL` for a user namespace asked for by a process with
/// several threads.
pub fn unshare(namespaces: UnshareFlags) -> io::Result<()> {
    if namespaces.intersects(UnshareFlags::FILES | UnshareFlags::FS | UnshareFlags::SYSVSEM) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // SAFETY: the only flag that could break I/O safety is CLONE_FILES, which is refused above.
    unsafe { rustix::thread::unshare_unsafe(namespaces) }.map_err(Into::into)
}
