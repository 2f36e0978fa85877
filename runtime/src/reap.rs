//! Ending and collecting whatever children a failed or finished start has left.

use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags};
use rustix::process::{Pid, Signal, WaitOptions};

/// Rounds in which new children may turn up: orphans of those just killed come to us, and their orphans after them.
const ROUNDS: usize = 16;

/// How long a process of ours may take to finish what it is doing.
const FAREWELL: Duration = Duration::from_millis(200);

/// Has the process behind `pidfd` end by itself, which it does once `line` is closed, and waits for it for a moment. That it is really gone
/// [`kill_all_children`] sees to.
pub(crate) fn farewell(line: &UnixStream, pidfd: &OwnedFd) {
    let _ = line.shutdown(Shutdown::Both);
    let limit = rustix::time::Timespec { tv_sec: 0, tv_nsec: FAREWELL.subsec_nanos().into() };
    let _ = rustix::event::poll(&mut [PollFd::new(pidfd, PollFlags::IN)], Some(&limit));
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

/// Collects the children that have ended, but for `but`, whose status somebody else wants.
pub(crate) fn others(but: Pid) {
    for child in children().into_iter().filter(|child| *child != but) {
        let _ = rustix::process::waitpid(Some(child), WaitOptions::NOHANG);
    }
}
