//! Programs that take a process's place, and starting one without a copy of this process's memory.

use std::ffi::{CString, c_char, c_int, c_void};
use std::io;
use std::mem::MaybeUninit;
use std::ptr;
use std::sync::atomic::{AtomicI32, Ordering};

use rustix::process::Pid;

use crate::process::SingleThreaded;
use crate::signal::{self, SignalSet};

/// A program and what it is started with, as the kernel takes it: nothing has to be allocated any more to become it.
#[derive(Debug)]
pub struct Image<'a> {
    candidates: &'a [CString],
    argv: Vec<*const c_char>,
    envp: Vec<*const c_char>,
    /// What the pointers lead to.
    strings: std::marker::PhantomData<&'a [CString]>,
}

/// How a start ended.
#[derive(Debug)]
pub enum Spawned {
    /// It runs.
    Running(Pid),
    /// It could not be executed. What was to become it has ended.
    Failed(io::Error),
}

impl<'a> Image<'a> {
    /// The first of `candidates` (paths) that can be executed, with these arguments, its name among them, and this environment.
    #[must_use]
    pub fn new(candidates: &'a [CString], argv: &'a [CString], envp: &'a [CString]) -> Self {
        let pointers = |strings: &[CString]| strings.iter().map(|s| s.as_ptr()).chain([ptr::null()]).collect();
        Self { candidates, argv: pointers(argv), envp: pointers(envp), strings: std::marker::PhantomData }
    }

    /// Replaces this process by the program. Returns only on failure, with `execvpe(3)`'s choice of errors: `EACCES` is remembered over `ENOENT`, and
    /// any other ends the search. Makes system calls and nothing else.
    #[must_use]
    pub fn execute(&self) -> io::Error {
        let mut last = libc::ENOENT;
        for candidate in self.candidates {
            // SAFETY: `candidate` is NUL-terminated; both arrays are null-terminated and point to NUL-terminated strings that outlive `self`.
            unsafe { libc::execve(candidate.as_ptr(), self.argv.as_ptr(), self.envp.as_ptr()) };
            let error = io::Error::last_os_error();
            match error.raw_os_error() {
                Some(libc::ENOENT | libc::ENOTDIR) => {}
                Some(libc::EACCES) => last = libc::EACCES,
                _ => return error,
            }
        }
        io::Error::from_raw_os_error(last)
    }
}

/// What the new process finds on its way, in the memory that it shares with this one.
struct Shared<'a> {
    image: &'a Image<'a>,
    /// Error numbers; 0 for none.
    preparing: AtomicI32,
    executing: AtomicI32,
}

impl SingleThreaded {
    /// Starts `image` as a child with no descriptors but the standard streams, all signals with their default action and none blocked, in a process
    /// group of its own, which is the foreground one of its terminal, if one of the streams is one.
    ///
    /// The child is no copy: it runs in this process's memory, while this process waits, until it is the program (`CLONE_VM` and `CLONE_VFORK`,
    /// clone(2); posix_spawn(3) is made in the same way). A copy of the page tables, and then of each page that either writes to, is a
    /// quarter of a millisecond. A stop signal in the few microseconds in which it is not blocked any more, and the program not there yet,
    /// stops the wait as well; only deadly signals are stronger.
    ///
    /// # Errors
    /// Those of `clone(2)`, and of `close_range(2)` in the child.
    pub fn spawn(&self, image: &Image<'_>) -> io::Result<Spawned> {
        const STACK: usize = 16 << 10;
        // On this thread's own stack, where it has most likely been before: no page is new.
        let mut stack = [MaybeUninit::<u128>::uninit(); STACK / size_of::<u128>()];
        let top = stack.as_mut_ptr_range().end.cast::<c_void>();
        let shared = Shared { image, preparing: AtomicI32::new(0), executing: AtomicI32::new(0) };
        // A handler would run in this memory on behalf of the wrong process.
        let before = SignalSet::all().block()?;
        let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD;
        // SAFETY: the kernel lets this thread, the only one (`self` proves it), go on when the child has become another program or has ended. Until
        // then `stack`, of which `top` is the end, aligned to 16 bytes, and `shared`, which `become_it` takes, are borrowed by nobody else. The child
        // never returns from `become_it`, and only makes system calls there: no allocation, no lock, no destructor, nothing that its sudden end
        // could leave half done. What it changes in memory are the atomics, its stack, and `errno`.
        let pid = unsafe { libc::clone(become_it, top, flags, (&raw const shared).cast_mut().cast()) };
        let made = if pid < 0 { Err(io::Error::last_os_error()) } else { Ok(pid) };
        before.replace()?;
        let pid = made?;
        let error = |number: &AtomicI32| match number.load(Ordering::Relaxed) {
            0 => None,
            number => Some(io::Error::from_raw_os_error(number)),
        };
        if let Some(error) = error(&shared.preparing) {
            return Err(error);
        }
        match (error(&shared.executing), Pid::from_raw(pid)) {
            (Some(error), _) => Ok(Spawned::Failed(error)),
            (None, Some(pid)) => Ok(Spawned::Running(pid)),
            (None, None) => Err(io::ErrorKind::InvalidData.into()),
        }
    }
}

/// The life of a child of [`SingleThreaded::spawn`].
extern "C" fn become_it(shared: *mut c_void) -> c_int {
    // SAFETY: `spawn` passes its own `Shared`, which lives as long as it waits for this process, and which it does not touch meanwhile.
    let shared = unsafe { &*shared.cast::<Shared<'_>>() };
    // SAFETY: two numbers; changes the group of this process only.
    unsafe { libc::setpgid(0, 0) };
    let own = rustix::process::getpid().as_raw_nonzero().get();
    for stream in 0..3 {
        // SAFETY: asks a descriptor, which need not be open.
        if unsafe { libc::isatty(stream) } == 1 {
            // SAFETY: as above. SIGTTOU, which this would bring to a background process, is blocked.
            unsafe { libc::tcsetpgrp(stream, own) };
            break;
        }
    }
    signal::reset_all();
    let prepared = SignalSet::of(&[]).replace().and_then(|_| crate::process::cloexec_from(3));
    let (number, error) = match prepared {
        Ok(()) => (&shared.executing, shared.image.execute()),
        Err(error) => (&shared.preparing, error),
    };
    number.store(error.raw_os_error().unwrap_or(libc::EINVAL), Ordering::Relaxed);
    crate::process::exit_now(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_several_failures_the_one_that_says_most_is_told() {
        let paths = |paths: &[&str]| paths.iter().map(|p| CString::new(*p).expect("no NUL")).collect::<Vec<_>>();
        let error = |candidates: &[&str]| Image::new(&paths(candidates), &paths(&["x"]), &[]).execute().raw_os_error();
        assert_eq!(error(&[]), Some(libc::ENOENT));
        assert_eq!(error(&["/none", "/dev/null/none"]), Some(libc::ENOENT));
        assert_eq!(error(&["/none", "/", "/none"]), Some(libc::EACCES), "a folder cannot be executed");
        assert_eq!(
            error(&["/none", &"long/".repeat(1000), "/"]),
            Some(libc::ENAMETOOLONG),
            "no search goes on after that"
        );
    }
}
