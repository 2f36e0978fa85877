//! Landlock (landlock(7)): a thread gives up access to files, for itself and for what it starts.

use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

/// Rights to files and folders (`LANDLOCK_ACCESS_FS_*`, linux/landlock.h).
pub mod access {
    /// To write into a file.
    pub const WRITE_FILE: u64 = 1 << 1;
    /// To read a file.
    pub const READ_FILE: u64 = 1 << 2;
    /// To list a folder.
    pub const READ_DIR: u64 = 1 << 3;
    /// To remove a file, also by renaming another to its name.
    pub const REMOVE_FILE: u64 = 1 << 5;
    /// To make a file.
    pub const MAKE_REG: u64 = 1 << 8;
}

/// The version of the running kernel's Landlock; an error where there is none, or it is switched off.
///
/// # Errors
/// Those of `landlock_create_ruleset(2)`.
pub fn version() -> io::Result<u32> {
    const VERSION: u32 = 1;
    // SAFETY: with this flag there is no structure, and nothing is made.
    let r = unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, std::ptr::null::<u8>(), 0usize, VERSION) };
    u32::try_from(r).map_err(|_| io::Error::last_os_error())
}

/// What is still allowed of all that this kernel can take away.
#[derive(Debug)]
pub struct Ruleset {
    fd: OwnedFd,
    handled: u64,
}

impl Ruleset {
    /// One that allows nothing: no file can be opened, changed, made or removed. It says nothing of signals (`LANDLOCK_SCOPE_SIGNAL`): the
    /// kernel would not send those of `PR_SET_PDEATHSIG` to the children of a confined process either.
    ///
    /// # Errors
    /// Those of `landlock_create_ruleset(2)`.
    pub fn new() -> io::Result<Self> {
        /// The beginning of `struct landlock_ruleset_attr`, which is all that the first kernels have.
        #[repr(C)]
        struct Attributes {
            files: u64,
        }
        let version = version()?;
        // Rights that came with each version: moving, truncating, commands for devices.
        let rights = match version {
            0 | 1 => 13,
            2 => 14,
            3 | 4 => 15,
            _ => 16,
        };
        let handled = (1 << rights) - 1;
        let attributes = Attributes { files: handled };
        let size = size_of::<Attributes>();
        // SAFETY: a structure of this call with its size, alive during it.
        let r = unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, &raw const attributes, size, 0) };
        let fd = i32::try_from(r).ok().filter(|fd| *fd >= 0).ok_or_else(io::Error::last_os_error)?;
        // SAFETY: just opened, and owned by nobody else.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        Ok(Self { fd, handled })
    }

    /// Allows `rights` to what `beneath` is, and if it is a folder to all that lies in it.
    ///
    /// # Errors
    /// Those of `landlock_add_rule(2)`, such as `EINVAL` for rights that a file has not.
    pub fn allow(&self, beneath: impl AsFd, rights: u64) -> io::Result<()> {
        /// `struct landlock_path_beneath_attr`.
        #[repr(C, packed)]
        struct Beneath {
            rights: u64,
            fd: i32,
        }
        const PATH_BENEATH: u32 = 1;
        let rule = Beneath { rights: rights & self.handled, fd: beneath.as_fd().as_raw_fd() };
        let set = self.fd.as_raw_fd();
        // SAFETY: an open ruleset, and a structure of this kind of rule, alive during the call.
        let r = unsafe { libc::syscall(libc::SYS_landlock_add_rule, set, PATH_BENEATH, &raw const rule, 0) };
        if r == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    /// Takes everything else from this thread, and from what it starts from now on. It must have `no_new_privs` set.
    ///
    /// # Errors
    /// Those of `landlock_restrict_self(2)`.
    pub fn restrict_this_thread(&self) -> io::Result<()> {
        // SAFETY: an open ruleset; no pointers.
        let r = unsafe { libc::syscall(libc::SYS_landlock_restrict_self, self.fd.as_raw_fd(), 0) };
        if r == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }
}
