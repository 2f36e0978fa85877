//! Where the process ids of a cell begin: at a number of the cell's own, so that two cells seldom have the same ones.
//!
//! Agents name files by their process id and take those of a living one for its own (claude-code issue 47128), and in a PID namespace everything begins
//! at 1. The kernel goes on from `/proc/sys/kernel/ns_last_pid`, which is that of the namespace of whoever writes it, and which `CAP_SYS_ADMIN` or
//! `CAP_CHECKPOINT_RESTORE` in the namespace's owner is needed for (proc(5), `kernel/pid_namespace.c`; both looked at when it is written).
//!
//! So only the cell's first process can write it, before it gives up its capabilities, and there is no hook of libcontainer's at that place:
//! its `sysctl` mounts a new proc for it, which costs from 0.1 to 10 ms. What there is, is the event it tells its subscriber of just before,
//! in that process ([`TARGET`]). Where anything of this is missing, ids begin at 2.

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{Mode, OFlags};

/// The module of libcontainer's whose events come when its init has its namespaces and still all of its capabilities (0.7.0, `reset_effective`,
/// `drop_privileges`).
pub(crate) const TARGET: &str = "libcontainer::capabilities";

/// Where they begin in one cell, to be said when its PID namespace exists.
#[derive(Debug)]
pub(crate) struct Pids {
    file: OwnedFd,
    name: String,
    tried: AtomicBool,
}

impl Pids {
    /// For the cell `name`. `None` where the kernel has no such file, or nobody may write it.
    pub(crate) fn of(name: &str) -> Option<Self> {
        let flags = OFlags::WRONLY | OFlags::CLOEXEC;
        let file = rustix::fs::open(c"/proc/sys/kernel/ns_last_pid", flags, Mode::empty()).ok()?;
        Some(Self { file, name: name.to_owned(), tried: AtomicBool::new(false) })
    }

    /// Says it, from within the namespace; the first time it is called.
    pub(crate) fn begin(&self) {
        if self.tried.swap(true, Ordering::Relaxed) {
            return;
        }
        for most in MOST {
            // A number that is too large for this host is refused (`kernel.pid_max`).
            if rustix::io::write(&self.file, last(&self.name, most).to_string().as_bytes()).is_ok() {
                return;
            }
        }
    }
}

/// How far numbers may go: the largest `kernel.pid_max` there is, which systemd sets, and the kernel's own choice.
const MOST: [u32; 2] = [1 << 22, 1 << 15];

/// The id after which those of the cell `name` come, with room for some thousand before the end.
fn last(name: &str, most: u32) -> u32 {
    /// The kernel gives no lower ones once it has begun anew (`RESERVED_PIDS`, 300).
    const FIRST: u32 = 512;
    let room = most - most / 8 - FIRST;
    // FNV-1a: a name of at most 63 letters, and nobody to defend against.
    let hash = name.bytes().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    FIRST + hash % room
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_numbers_of_their_own_and_keep_them() {
        let names: Vec<String> = (0..200).map(|n| format!("web-feature-{n}-claude-code")).collect();
        for most in MOST {
            let mut numbers: Vec<u32> = names.iter().map(|name| last(name, most)).collect();
            assert!(numbers.iter().all(|n| (512..most - most / 8).contains(n)));
            numbers.sort_unstable();
            let near = numbers.windows(2).filter(|pair| pair[1] - pair[0] < 4).count();
            assert!(near < names.len() / 8, "{near} of {} are neighbours", names.len());
        }
        assert_eq!(last("web-main-sh", MOST[0]), last("web-main-sh", MOST[0]));
    }
}
