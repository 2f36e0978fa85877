//! Ending and collecting whatever children a failed or finished start has left.

use std::io;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};
use rustix::process::{Pid, Signal, WaitOptions};

/// Rounds in which new children may turn up: orphans of those just killed come to us, and their orphans after them.
const ROUNDS: usize = 16;

/// Has the process at the other end of `line` end by itself, which it does once it reads the end of it, and waits for at most `patience` until it is
/// done: until it has called [`done`], or is gone. Its last instructions are in the kernel, which may take long over what it held open.
pub(crate) fn farewell(line: &UnixStream, patience: Duration) {
    let _ = line.shutdown(Shutdown::Write);
    let end = Instant::now() + patience;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        let limit = rustix::time::Timespec {
            tv_sec: i64::try_from(left.as_secs()).unwrap_or(0),
            tv_nsec: left.subsec_nanos().into(),
        };
        match rustix::event::poll(&mut [PollFd::new(line, PollFlags::IN)], Some(&limit)) {
            Err(rustix::io::Errno::INTR) => {}
            // What it may have said before is of no interest any more.
            Ok(1..) if io::Read::read(&mut &*line, &mut [0u8; 512]).is_ok_and(|got| got > 0) => {}
            _ => return,
        }
    }
}

/// Tells who waits in [`farewell`] that nothing more will be done.
pub(crate) fn done(line: &UnixStream) {
    let _ = line.shutdown(Shutdown::Both);
}

/// Kills every child of this process, and waits for none: the kernel does no more of what they were about than it has begun.
pub(crate) fn kill_the_rest() {
    for child in children() {
        let _ = rustix::process::kill_process(child, Signal::KILL);
    }
}

/// Kills every child of this process and waits for it. As a subreaper this process inherits their orphans too.
pub(crate) fn kill_all_children() {
    for _ in 0..ROUNDS {
        let children = children();
        if children.is_empty() {
            return;
        }
        for child in &children {
            let _ = rustix::process::kill_process(*child, Signal::KILL);
        }
        for child in children {
            while rustix::process::waitpid(Some(child), WaitOptions::empty())
                .is_err_and(|e| e == rustix::io::Errno::INTR)
            {}
        }
    }
}

/// `/proc/self/task/TID/children` (proc(5), Linux 3.5 with `CONFIG_PROC_CHILDREN`).
fn children() -> Vec<Pid> {
    let me = rustix::process::getpid().as_raw_nonzero();
    std::fs::read_to_string(format!("/proc/self/task/{me}/children"))
        .unwrap_or_default()
        .split_ascii_whitespace()
        .filter_map(|word| word.parse().ok().and_then(Pid::from_raw))
        .collect()
}

/// Waits for the children called `name` (`/proc/PID/comm`) to end.
pub(crate) fn called(name: &str) {
    let is_called = |child: &Pid| {
        let comm = std::fs::read_to_string(format!("/proc/{}/comm", child.as_raw_nonzero()));
        comm.is_ok_and(|comm| comm.trim_end() == name)
    };
    for child in children().into_iter().filter(is_called) {
        let _ = rustix::io::retry_on_intr(|| rustix::process::waitpid(Some(child), WaitOptions::empty()));
    }
}

/// Collects the children that have ended, but for `but`, whose status somebody else wants.
pub(crate) fn others(but: Pid) {
    for child in children().into_iter().filter(|child| *child != but) {
        let _ = rustix::process::waitpid(Some(child), WaitOptions::NOHANG);
    }
}
