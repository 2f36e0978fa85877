//! Creating and replacing processes: `fork(2)`, `clone(2)` with `CLONE_PARENT` and `CLONE_VM`, `execve(2)`, `execveat(2)`, `_exit(2)`.
//!
//! After a fork in a process with several threads, only async-signal-safe calls are sound in the child (POSIX `fork`). cellblock
//! runs ordinary Rust there (libcontainer does as well), so forking is only offered by [`SingleThreaded`], a proof that no
//! other thread exists.

use std::collections::BTreeSet;
use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;
use std::sync::Mutex;

use rustix::process::Pid;

/// Proof that this process has exactly one thread.
///
/// Nothing in cellblock's run path starts a thread, and the proof is taken there; it is not `Send`, so it cannot travel to a
/// thread started later by the same code. It holds in children too, which begin with the one thread that forked (fork(2)).
#[derive(Clone, Debug)]
pub struct SingleThreaded(std::marker::PhantomData<*const ()>);

/// Which side of a fork this is.
#[derive(Debug)]
pub enum Fork {
    /// The new process.
    Child,
    /// The old one, with the new one's id.
    Parent(Pid),
}

impl SingleThreaded {
    /// Counts the threads of this process, by the link count of `/proc/self/task` (`proc(5)`: one subdirectory a thread).
    ///
    /// # Errors
    /// `InvalidInput` if there is more than one thread; the error of `stat(2)` if `/proc` is not there.
    pub fn prove() -> io::Result<Self> {
        let links = rustix::fs::stat(c"/proc/self/task")?.st_nlink;
        if links == 3 {
            Ok(Self(std::marker::PhantomData))
        } else {
            Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!(
                    "a container can only be started from a single-threaded process; this one has {} threads",
                    links.saturating_sub(2)
                ),
            ))
        }
    }

    /// `fork(2)`.
    ///
    /// # Errors
    /// Those of `fork(2)`.
    pub fn fork(&self) -> io::Result<Fork> {
        // SAFETY: the process has one thread (`self` proves it), so the child is a complete copy and may run any code.
        let pid = unsafe { libc::fork() };
        Self::side(i64::from(pid))
    }

    /// Forks a *sibling*: the child's parent is the caller's parent (`CLONE_PARENT`), which also gets the `SIGCHLD`.
    ///
    /// # Errors
    /// Those of `clone(2)`.
    pub fn fork_sibling(&self) -> io::Result<Fork> {
        let flags = libc::CLONE_PARENT | libc::SIGCHLD;
        // SAFETY: as `fork`; no CLONE_VM and a null stack, so the child runs on its own copy of this stack. The C library's
        // cached thread id is stale in the child, which matters to pthread functions, of which single-threaded code calls none, and to musl's abort(3),
        // in the place of which there is `cellblock_abort`.
        let pid = unsafe { libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0) };
        Self::side(pid)
    }

    /// Ends this process at once with `code`, as [`exit_now`] does, and has a new one do `body`, which takes this one's memory over: nothing of it is copied
    /// or taken down meanwhile, which the end of a process otherwise has to wait for. Descriptors and signals are as after [`fork`](Self::fork).
    ///
    /// Returns what could not be done if there is no memory or process for it, with the reason.
    #[must_use]
    pub fn leave_behind(&self, code: i32, body: Box<dyn FnOnce()>) -> (Box<dyn FnOnce()>, io::Error) {
        extern "C" fn run(body: *mut libc::c_void) -> libc::c_int {
            // SAFETY: the pointer is the box that was let go of below, and only this process uses it: the other one is ending.
            let body = unsafe { Box::from_raw(body.cast::<Box<dyn FnOnce()>>()) };
            body();
            exit_now(0)
        }
        let top = match new_stack() {
            Ok(top) => top,
            Err(error) => return (body, error),
        };
        let body = Box::into_raw(Box::new(body));
        // SAFETY: `top` is the end of a fresh mapping. With CLONE_VM both processes have the same memory, but this one touches nothing of it
        // any more if the call succeeds: it has no other thread (`self` proves it), and what follows is `_exit`. Thread-local data of its thread,
        // which the new one takes over with the rest, is nobody else's from then on; the kernel clears its cached thread id at our end
        // (CLONE_CHILD_CLEARTID of set_tid_address(2)), which only pthread functions look at, that single-threaded code does not call, and
        // musl's abort(3), in the place of which there is `cellblock_abort`.
        let pid = unsafe { libc::clone(run, top, libc::CLONE_VM | libc::SIGCHLD, body.cast()) };
        if pid > 0 {
            exit_now(code);
        }
        let error = io::Error::last_os_error();
        // SAFETY: there is no new process, so the box is ours still.
        (*unsafe { Box::from_raw(body) }, error)
    }

    /// Has a child do `body` in the memory of this process, which waits until the child has ended (`CLONE_VM` and `CLONE_VFORK`, clone(2)), and gives its
    /// exit code. Nothing is copied for it: a fifth of a millisecond less than a fork. Its descriptors and signals are its own; what `body` forks is
    /// a full copy.
    ///
    /// A child that is killed takes this process along, which ends as a shell would say it of the child (128 + n): what it was at in their memory may be
    /// half done. It belongs where nobody but the person can kill it: in no cell's group.
    ///
    /// # Errors
    /// Those of `clone(2)`, of making its stack, and of `waitpid(2)`.
    pub fn lend(&self, body: impl FnOnce() -> std::convert::Infallible) -> io::Result<i32> {
        extern "C" fn run<F: FnOnce() -> std::convert::Infallible>(body: *mut libc::c_void) -> libc::c_int {
            // SAFETY: the pointer is to the local variable below, which nobody else uses while its owner waits.
            let body = unsafe { &mut *body.cast::<Option<F>>() }.take();
            let _never = body.map(|body| body());
            exit_now(1)
        }
        fn entry<F: FnOnce() -> std::convert::Infallible>(
            _: &Option<F>,
        ) -> extern "C" fn(*mut libc::c_void) -> libc::c_int {
            run::<F>
        }
        let top = new_stack()?;
        let mut body = Some(body);
        let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD;
        // SAFETY: `top` is the end of a fresh mapping. The kernel lets this thread, the only one (`self` proves it), go on when the child has ended or is
        // another program, so that no memory is used by two at once; the child never returns into this function. What it allocates and changes stays so,
        // as if `body` had been called: it has come to its own end, or this process ends below. Its thread-local data are this thread's; the cached
        // thread id there matters to pthread functions, which single-threaded code does not call, and to musl's abort(3), in the place of which there is `cellblock_abort`.
        let pid = unsafe { libc::clone(entry(&body), top, flags, (&raw mut body).cast()) };
        if pid < 0 {
            return Err(io::Error::last_os_error());
        }
        let status = rustix::io::retry_on_intr(|| {
            rustix::process::waitpid(Pid::from_raw(pid), rustix::process::WaitOptions::empty())
        })?;
        let status = status.map(|(_, status)| status);
        if let Some(signal) = status.and_then(|status| status.terminating_signal()) {
            exit_now(128 + signal);
        }
        status.and_then(|status| status.exit_status()).ok_or_else(|| io::ErrorKind::InvalidData.into())
    }

    fn side(pid: i64) -> io::Result<Fork> {
        match pid {
            0 => Ok(Fork::Child),
            n => i32::try_from(n)
                .ok()
                .filter(|n| *n > 0)
                .and_then(Pid::from_raw)
                .map_or_else(|| Err(io::Error::last_os_error()), |pid| Ok(Fork::Parent(pid))),
        }
    }
}

/// The upper end of a new stack, which has a page below it that nobody may touch.
fn new_stack() -> io::Result<*mut libc::c_void> {
    const SIZE: usize = 1 << 20;
    const PAGE: usize = 1 << 16;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_STACK | libc::MAP_NORESERVE;
    // SAFETY: a new mapping at an address of the kernel's choice touches no memory that is in use.
    let bottom = unsafe { libc::mmap(ptr::null_mut(), PAGE + SIZE, libc::PROT_NONE, flags, -1, 0) };
    if bottom == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    let usable = bottom.wrapping_byte_add(PAGE);
    // SAFETY: inside the mapping that was just made, which nobody else knows of.
    if unsafe { libc::mprotect(usable, SIZE, libc::PROT_READ | libc::PROT_WRITE) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(usable.wrapping_byte_add(SIZE))
}

/// Ends this process at once: no destructors, no `atexit` handlers, no flushing of buffers that a fork has doubled.
pub fn exit_now(code: i32) -> ! {
    // SAFETY: `_exit` has no preconditions.
    unsafe { libc::_exit(code) }
}

/// In the static program, `abort(3)` for all of it, that is for panics and for memory that is not there.
///
/// musl's sends the signal to the thread whose number it remembers, which in a child of [`SingleThreaded::fork_sibling`], `leave_behind` or `lend` is
/// another process's. `cli/build.rs` has the linker take this one for `abort`.
#[cfg(all(target_env = "musl", target_feature = "crt-static"))]
// SAFETY: nobody else has the name.
#[unsafe(no_mangle)]
extern "C" fn cellblock_abort() -> ! {
    crate::signal::reset(libc::SIGABRT);
    let _ = crate::signal::SignalSet::of(&[libc::SIGABRT]).unblock();
    let (process, thread) = (rustix::process::getpid(), rustix::thread::gettid());
    let [process, thread] = [process, thread].map(|id| id.as_raw_nonzero().get());
    // SAFETY: three numbers.
    unsafe { libc::syscall(libc::SYS_tgkill, process, thread, libc::SIGABRT) };
    // Where a filter of system calls does not allow it.
    exit_now(128 + libc::SIGABRT)
}

/// Replaces this process by the program at `path`. Returns only on failure.
#[must_use]
pub fn execve(path: &CStr, argv: &[CString], envp: &[CString]) -> io::Error {
    let (argv, envp) = (pointers(argv), pointers(envp));
    // SAFETY: `path` is NUL-terminated; both arrays are null-terminated and point to NUL-terminated strings that outlive the call.
    unsafe { libc::execve(path.as_ptr(), argv.as_ptr(), envp.as_ptr()) };
    io::Error::last_os_error()
}

/// Replaces this process by the program behind `program` (`execveat(2)` with `AT_EMPTY_PATH`). Returns only on failure.
#[must_use]
pub fn execve_fd(program: BorrowedFd<'_>, argv: &[CString], envp: &[CString]) -> io::Error {
    let (argv, envp) = (pointers(argv), pointers(envp));
    // SAFETY: the descriptor is open for the call; the empty path is NUL-terminated; the arrays are as in `execve`.
    unsafe {
        libc::syscall(
            libc::SYS_execveat,
            program.as_raw_fd(),
            c"".as_ptr(),
            argv.as_ptr(),
            envp.as_ptr(),
            libc::AT_EMPTY_PATH,
        )
    };
    io::Error::last_os_error()
}

fn pointers(strings: &[CString]) -> Vec<*const libc::c_char> {
    strings.iter().map(|s| s.as_ptr()).chain([ptr::null()]).collect()
}

/// Does `work` with other ids as far as files are concerned (`setfsuid(2)`, `setfsgid(2)`), and takes this thread's own again: what is
/// made meanwhile belongs to them. For a file system of a user namespace that knows them and not our own.
///
/// # Errors
/// `PermissionDenied` if the kernel does not let this thread have them; `work` is not called then.
pub fn acting_on_files_as<T>(uid: u32, gid: u32, work: impl FnOnce() -> T) -> io::Result<T> {
    // Dropped in the end, whatever happens.
    struct Back(u32, u32);
    impl Drop for Back {
        fn drop(&mut self) {
            set_file_ids(self.0, self.1);
        }
    }
    let back = set_file_ids(uid, gid);
    let back = Back(back.0, back.1);
    // An id that nobody has changes nothing, and tells what is in force.
    if set_file_ids(u32::MAX, u32::MAX) != (uid, gid) {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    let done = work();
    drop(back);
    Ok(done)
}

/// Sets the ids that count for files; returns those before.
fn set_file_ids(uid: u32, gid: u32) -> (u32, u32) {
    // SAFETY: setfsgid changes an id of this thread and nothing in memory.
    let group = unsafe { libc::setfsgid(gid) };
    // SAFETY: as above.
    let user = unsafe { libc::setfsuid(uid) };
    (user.cast_unsigned(), group.cast_unsigned())
}

/// Closes every descriptor from 3 up except `keep`, for a forked child that goes on without `exec`.
///
/// Owners of closed descriptors may still exist in memory; the child must not use or drop them, so it has to end by
/// [`exit_now`] or `exec` and never return into its caller's frames. Taking `!`-returning code as a closure enforces that.
pub fn run_with_only(keep: &[BorrowedFd<'_>], body: impl FnOnce() -> std::convert::Infallible) -> ! {
    let mut kept: Vec<u32> =
        keep.iter().filter_map(|fd| u32::try_from(fd.as_fd().as_raw_fd()).ok()).filter(|n| *n > 2).collect();
    kept.sort_unstable();
    let mut first = 3u32;
    for fd in kept.into_iter().chain([u32::MAX]) {
        if first < fd {
            let last = if fd == u32::MAX { fd } else { fd - 1 };
            // SAFETY: close_range touches no memory; that owners of the descriptors never run again is this function's
            // contract, held up by `body` not returning.
            unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
        }
        first = fd.saturating_add(1);
    }
    match body() {}
}

/// Takes over a descriptor that this process was started with, and marks it close-on-exec. To be called at the start of the
/// process, before it opens anything itself.
///
/// # Errors
/// `InvalidInput` for the standard streams and for a number taken before; `EBADF` if it is not open.
pub fn inherited(number: RawFd) -> io::Result<OwnedFd> {
    static TAKEN: Mutex<BTreeSet<RawFd>> = Mutex::new(BTreeSet::new());
    let fresh = TAKEN.lock().is_ok_and(|mut taken| number > 2 && taken.insert(number));
    if !fresh {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // SAFETY: F_SETFD only changes a flag, and answers EBADF for a number that is not open.
    if unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: it is open, was open before this program ran a line (the caller's promise), and has been taken only once: nobody
    // else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Marks every descriptor from `first` up close-on-exec (`close_range(2)` with `CLOSE_RANGE_CLOEXEC`, Linux 5.11).
///
/// # Errors
/// Those of `close_range(2)`.
pub fn cloexec_from(first: u32) -> io::Result<()> {
    // SAFETY: only sets a flag on descriptors; closes nothing now.
    let r = unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    if r == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Has the kernel kill what `command` starts when the thread that starts it ends (`PR_SET_PDEATHSIG`, `prctl(2)`). A program that changes its
/// ids shakes that off.
pub fn dies_with_this_thread(command: &mut std::process::Command) {
    use std::os::unix::process::CommandExt;
    let parent = rustix::process::getpid();
    let bind = move || {
        rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
        // It may have ended before.
        if rustix::process::getppid() == Some(parent) { Ok(()) } else { Err(io::ErrorKind::BrokenPipe.into()) }
    };
    // SAFETY: runs between fork and exec, where only async-signal-safe calls are sound: two system calls, and no allocation.
    unsafe { command.pre_exec(bind) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_thread_is_noticed() {
        // The test harness itself runs this on a thread of its own, beside the main thread.
        let error = SingleThreaded::prove().expect_err("cargo's test harness has several threads");
        assert!(error.to_string().contains("single-threaded"), "{error}");
    }
}
