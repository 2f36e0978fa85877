//! System calls that a filter hands to another process to decide on (`seccomp_unotify(2)`), and what that process needs to carry them out:
//! a look into the caller's memory and the caller's identity for files.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use crate::seccomp::Instruction;

/// Puts a filter into force as [`crate::seccomp::load`] does, and returns the descriptor by which the calls it hands over are received.
/// Once received, a call waits for its answer through every signal but a deadly one, where the kernel offers that (Linux 5.19).
///
/// # Errors
/// `EBUSY` if a filter with a listener is in force already; those of `seccomp(2)`.
pub fn load(program: impl IntoIterator<Item = Instruction>) -> io::Result<OwnedFd> {
    let filter: Vec<libc::sock_filter> =
        program.into_iter().map(|(code, jt, jf, k)| libc::sock_filter { code, jt, jf, k }).collect();
    let len = u16::try_from(filter.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let program = libc::sock_fprog { len, filter: filter.as_ptr().cast_mut() };
    let load = |flags: libc::c_ulong| {
        // SAFETY: the program points to `len` instructions that outlive the call; the kernel copies and checks them.
        unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &raw const program) }
    };
    let new = libc::SECCOMP_FILTER_FLAG_NEW_LISTENER;
    let mut fd = load(new | libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV);
    if fd < 0 && io::Error::last_os_error().raw_os_error() == Some(libc::EINVAL) {
        fd = load(new);
    }
    match i32::try_from(fd) {
        // SAFETY: the kernel has just made it for us.
        Ok(fd) if fd >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Whether this kernel knows how to let a received call wait through signals. Asked with a program that cannot be, so that nothing is loaded.
#[must_use]
pub fn waits_through_signals() -> bool {
    let flags = libc::SECCOMP_FILTER_FLAG_NEW_LISTENER | libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV;
    let nothing = std::ptr::null::<libc::sock_fprog>();
    // SAFETY: the kernel refuses flags it does not know before it looks at the program (EINVAL), and cannot read this one (EFAULT).
    unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, nothing) };
    io::Error::last_os_error().raw_os_error() == Some(libc::EFAULT)
}

/// A call that waits for an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Call {
    /// Names it until it is answered.
    pub id: u64,
    /// The thread that makes it, as seen from this process; 0 if it cannot be seen.
    pub thread: i32,
    /// Its ABI (`AUDIT_ARCH_*`).
    pub arch: u32,
    /// Its number there.
    pub number: i32,
    /// Its arguments.
    pub args: [u64; 6],
}

/// Where calls arrive.
#[derive(Debug)]
pub struct Listener(OwnedFd);

/// Room for what the kernel says of a call, which may get longer in later ones.
#[repr(C, align(8))]
struct Room([u8; 512]);

impl Listener {
    /// Takes over what [`load`] gave, perhaps in another process.
    ///
    /// # Errors
    /// `Unsupported` if this kernel says more of a call than there is room for.
    pub fn new(fd: OwnedFd) -> io::Result<Self> {
        let mut sizes = libc::seccomp_notif_sizes { seccomp_notif: 0, seccomp_notif_resp: 0, seccomp_data: 0 };
        // SAFETY: writes a struct of this type.
        let r = unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_GET_NOTIF_SIZES, 0, &raw mut sizes) };
        if r != 0 {
            return Err(io::Error::last_os_error());
        }
        if usize::from(sizes.seccomp_notif.max(sizes.seccomp_notif_resp)) > size_of::<Room>() {
            return Err(io::ErrorKind::Unsupported.into());
        }
        // Linux 6.6: whoever waits is woken on the processor of the one it waits for. Only faster, so best effort.
        // SAFETY: takes a number.
        unsafe { libc::ioctl(fd.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_SET_FLAGS, 1u64) };
        Ok(Self(fd))
    }

    /// The next call. Waits for one.
    ///
    /// # Errors
    /// `NotFound` if the call has gone away meanwhile; `Interrupted`.
    pub fn receive(&self) -> io::Result<Call> {
        let mut room = Room([0; 512]);
        // SAFETY: the room is zeroed, as the kernel asks, aligned, and large enough: `new` has checked.
        let r = unsafe { libc::ioctl(self.0.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_RECV, &raw mut room) };
        if r != 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel has filled in at least this struct, which is plain numbers.
        let notif = unsafe { (&raw const room).cast::<libc::seccomp_notif>().read() };
        Ok(Call {
            id: notif.id,
            thread: i32::try_from(notif.pid).unwrap_or(0),
            arch: notif.data.arch,
            number: notif.data.nr,
            args: notif.data.args,
        })
    }

    /// Whether the call still waits: what was read of its process before belongs to it then.
    #[must_use]
    pub fn waits(&self, call: &Call) -> bool {
        // SAFETY: reads a number.
        unsafe { libc::ioctl(self.0.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_ID_VALID, &raw const call.id) == 0 }
    }

    /// Ends the call: it returns `Ok(value)` or fails with an errno.
    ///
    /// # Errors
    /// `NotFound` if it waits no more.
    pub fn answer(&self, call: &Call, answer: Result<i64, i32>) -> io::Result<()> {
        self.send(call, answer.unwrap_or(0), answer.err().map_or(0, |errno| -errno), 0)
    }

    /// Lets the kernel carry the call out, with whatever its pointers point to then.
    ///
    /// # Errors
    /// `NotFound` if it waits no more.
    pub fn go_on(&self, call: &Call) -> io::Result<()> {
        self.send(call, 0, 0, 1)
    }

    fn send(&self, call: &Call, val: i64, error: i32, flags: u32) -> io::Result<()> {
        let mut room = Room([0; 512]);
        let answer = libc::seccomp_notif_resp { id: call.id, val, error, flags };
        // SAFETY: the room is aligned and larger than the struct.
        unsafe { (&raw mut room).cast::<libc::seccomp_notif_resp>().write(answer) };
        // SAFETY: the room is as large as the kernel asks: `new` has checked.
        let r = unsafe { libc::ioctl(self.0.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_SEND, &raw mut room) };
        if r == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    /// Ends the call with a duplicate of `fd`, which its process gets.
    ///
    /// # Errors
    /// `NotFound` if it waits no more; `EMFILE` and such of that process.
    pub fn hand(&self, call: &Call, fd: BorrowedFd<'_>, close_on_exec: bool) -> io::Result<()> {
        let flags = |send: u32| libc::seccomp_notif_addfd {
            id: call.id,
            flags: send,
            srcfd: u32::try_from(fd.as_raw_fd()).unwrap_or(u32::MAX),
            newfd: 0,
            newfd_flags: if close_on_exec { u32::try_from(libc::O_CLOEXEC).unwrap_or(0) } else { 0 },
        };
        let add = |addfd: libc::seccomp_notif_addfd| {
            // SAFETY: reads a struct of this type; the descriptor is open for the call.
            let r = unsafe { libc::ioctl(self.0.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_ADDFD, &raw const addfd) };
            if r >= 0 { Ok(r) } else { Err(io::Error::last_os_error()) }
        };
        // Linux 5.14: both steps at once.
        match add(flags(2)) {
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
                let number = add(flags(0))?;
                self.answer(call, Ok(i64::from(number)))
            }
            other => other.map(drop),
        }
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Reads the memory of `thread` from `address` on (`process_vm_readv(2)`): up to the end of `to`, or to where nothing is mapped.
///
/// # Errors
/// `EFAULT` if nothing is there, `EPERM` if it is not ours to read.
pub fn read_memory(thread: i32, address: u64, to: &mut [u8]) -> io::Result<usize> {
    /// Smallest pages there are: what is read before the first that is not mapped counts.
    const PAGE: usize = 4096;
    let start = usize::try_from(address).map_err(|_| io::Error::from_raw_os_error(libc::EFAULT))?;
    let mut pieces = Vec::with_capacity(to.len() / PAGE + 2);
    let mut done = 0;
    while done < to.len() {
        let at = start.wrapping_add(done);
        let len = (PAGE - at % PAGE).min(to.len() - done);
        pieces.push(libc::iovec { iov_base: at as *mut libc::c_void, iov_len: len });
        done += len;
    }
    let local = libc::iovec { iov_base: to.as_mut_ptr().cast(), iov_len: to.len() };
    // SAFETY: writes at most `to.len()` bytes to `to`; the other addresses are of the other process, and checked by the kernel.
    let r = unsafe {
        libc::process_vm_readv(thread, &raw const local, 1, pieces.as_ptr(), pieces.len().try_into().unwrap_or(0), 0)
    };
    usize::try_from(r).map_err(|_| io::Error::last_os_error())
}

/// Whose files this thread's are to be from now on (`setfsuid(2)`); ids of the user namespace that it is in.
///
/// # Errors
/// `PermissionDenied` if the ids were not taken.
pub fn set_file_ids(uid: u32, gid: u32) -> io::Result<()> {
    let set = |number: libc::c_long, id: u32| {
        // SAFETY: takes a number.
        unsafe { libc::syscall(number, id) };
        // The call says nothing about its success; one with an impossible id changes nothing and tells the id in force.
        // SAFETY: as above.
        unsafe { libc::syscall(number, u32::MAX) }
    };
    let taken = set(libc::SYS_setfsgid, gid) == i64::from(gid) && set(libc::SYS_setfsuid, uid) == i64::from(uid);
    if taken { Ok(()) } else { Err(io::ErrorKind::PermissionDenied.into()) }
}

/// Sets the mode of what has the name `name` in `folder`, and never that of what a link leads to (`fchmodat2(2)`, Linux 6.6). None if this
/// kernel cannot, or what stands between us and it does not know the call.
#[must_use]
pub fn set_mode(folder: BorrowedFd<'_>, name: &[u8], mode: u32) -> Option<io::Result<()>> {
    /// The same on every machine, as all numbers since Linux 5.1; the C library's crate does not know it on all of them.
    const FCHMODAT2: libc::c_long = 452;
    let Ok(name) = std::ffi::CString::new(name) else { return Some(Err(io::ErrorKind::InvalidInput.into())) };
    let (folder, flags) = (folder.as_raw_fd(), libc::AT_SYMLINK_NOFOLLOW);
    // SAFETY: reads a string that ends, and outlives the call.
    if unsafe { libc::syscall(FCHMODAT2, folder, name.as_ptr(), mode, flags) } == 0 {
        return Some(Ok(()));
    }
    let error = io::Error::last_os_error();
    (!matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EPERM))).then_some(Err(error))
}
