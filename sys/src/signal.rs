//! Signals as data: blocking them and reading them from a descriptor (`signalfd(2)`), instead of handlers.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::ptr;

/// A set of signal numbers.
#[derive(Clone, Copy)]
pub struct SignalSet(libc::sigset_t);

impl std::fmt::Debug for SignalSet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SignalSet(..)")
    }
}

impl SignalSet {
    /// The set of `signals`; numbers that do not exist are left out.
    #[must_use]
    pub fn of(signals: &[i32]) -> Self {
        let mut set = MaybeUninit::uninit();
        // SAFETY: sigemptyset initialises the whole set it is given.
        unsafe { libc::sigemptyset(set.as_mut_ptr()) };
        // SAFETY: initialised by the call above.
        let mut set = unsafe { set.assume_init() };
        for signal in signals {
            // SAFETY: `set` is a valid set; an unknown number is answered with an error and changes nothing.
            unsafe { libc::sigaddset(&raw mut set, *signal) };
        }
        Self(set)
    }

    /// Every signal, but for those that the C library has uses of its own for (32, 33; musl: 34).
    #[must_use]
    pub fn all() -> Self {
        let mut set = MaybeUninit::uninit();
        // SAFETY: sigfillset initialises the whole set it is given.
        unsafe { libc::sigfillset(set.as_mut_ptr()) };
        // SAFETY: initialised by the call above.
        Self(unsafe { set.assume_init() })
    }

    /// Adds the set to what this thread blocks; returns what was blocked before.
    ///
    /// # Errors
    /// Those of `sigprocmask(2)`.
    pub fn block(&self) -> io::Result<Self> {
        self.mask(libc::SIG_BLOCK)
    }

    /// Takes the set from what this thread blocks; returns what was blocked before.
    ///
    /// # Errors
    /// Those of `sigprocmask(2)`.
    pub fn unblock(&self) -> io::Result<Self> {
        self.mask(libc::SIG_UNBLOCK)
    }

    /// Makes the set exactly what this thread blocks; returns what was blocked before.
    ///
    /// # Errors
    /// Those of `sigprocmask(2)`.
    pub fn replace(&self) -> io::Result<Self> {
        self.mask(libc::SIG_SETMASK)
    }

    fn mask(&self, how: libc::c_int) -> io::Result<Self> {
        let mut old = MaybeUninit::uninit();
        // SAFETY: `self.0` is an initialised set, `old` has room for one.
        let r = unsafe { libc::pthread_sigmask(how, &raw const self.0, old.as_mut_ptr()) };
        if r != 0 {
            return Err(io::Error::from_raw_os_error(r));
        }
        // SAFETY: pthread_sigmask succeeded and has filled it.
        Ok(Self(unsafe { old.assume_init() }))
    }
}

/// A descriptor that is readable when one of a set of blocked signals is pending.
#[derive(Debug)]
pub struct SignalFd(OwnedFd);

/// A signal as it was received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received {
    /// Its number.
    pub signal: i32,
    /// The sender's process id as seen here; 0 for the kernel or a process outside this PID namespace.
    pub sender: u32,
}

impl SignalFd {
    /// Opens one for `set`, whose signals the caller has blocked. Close-on-exec and non-blocking.
    ///
    /// # Errors
    /// Those of `signalfd(2)`.
    pub fn new(set: &SignalSet) -> io::Result<Self> {
        // SAFETY: -1 asks for a new descriptor; the set is initialised.
        let fd = unsafe { libc::signalfd(-1, &raw const set.0, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: a fresh descriptor that nobody else owns.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// The next pending signal, if any.
    ///
    /// # Errors
    /// Those of `read(2)`, but for `EAGAIN` and `EINTR`.
    pub fn read(&self) -> io::Result<Option<Received>> {
        let mut info = MaybeUninit::<libc::signalfd_siginfo>::zeroed();
        let size = size_of::<libc::signalfd_siginfo>();
        // SAFETY: the buffer has exactly the size that is read.
        let n = unsafe { libc::read(self.0.as_raw_fd(), info.as_mut_ptr().cast(), size) };
        if n < 0 {
            let error = io::Error::last_os_error();
            return match error.kind() {
                io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => Ok(None),
                _ => Err(error),
            };
        }
        // SAFETY: zeroed is a valid value of this plain C struct, and the kernel fills whole ones.
        let info = unsafe { info.assume_init() };
        Ok(Some(Received { signal: info.ssi_signo.cast_signed(), sender: info.ssi_pid }))
    }
}

impl std::os::fd::AsFd for SignalFd {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Gives every signal its default action, for a child about to `exec`: ignored ones would stay ignored (`execve(2)`).
pub fn reset_all() {
    (1..=MOST).for_each(reset);
}

/// The highest number of a signal (`_NSIG`, asm-generic/signal.h).
const MOST: i32 = 64;

/// Gives one signal its default action. Asked of the kernel, for the C library refuses the numbers that it has uses of its own for: 32 and 33, and musl
/// 34 too, which is glibc's first free one.
pub(crate) fn reset(signal: i32) {
    // `struct sigaction` of the kernel: SIG_DFL, no flags, no restorer, an empty set of 8 bytes.
    let default = [0_u64; 4];
    let nothing = ptr::null_mut::<libc::c_void>();
    // SAFETY: a structure of that size, and no place for the old one. Nothing is called that could be gone; for numbers that cannot be changed the call
    // fails and changes nothing.
    unsafe { libc::syscall(libc::SYS_rt_sigaction, signal, default.as_ptr(), nothing, 8_usize) };
}

/// Ignores one signal.
pub fn ignore(signal: i32) {
    // SAFETY: SIG_IGN installs no handler.
    unsafe { libc::signal(signal, libc::SIG_IGN) };
}

/// Sends a signal to a process by number, for signals that rustix has no name for.
///
/// # Errors
/// Those of `pidfd_send_signal(2)`.
pub fn send(pidfd: impl std::os::fd::AsFd, signal: i32) -> io::Result<()> {
    // SAFETY: an open pidfd, a null siginfo (the kernel fills it), no flags.
    let r = unsafe {
        libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_fd().as_raw_fd(), signal, ptr::null::<libc::c_void>(), 0)
    };
    if r == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
