//! The policies of cellblock's own processes that read what a cell sends: what they need once they serve, and nothing else.
//!
//! Also compiled into the build script.

use super::table::{AnyOf, Bits};

/// The policy of one process. What it does not name answers `ENOSYS`; so does every call by another ABI than the machine's own.
#[derive(Debug)]
pub struct Own {
    /// Calls that are allowed, with the reason.
    pub allow: &'static [(&'static str, &'static [&'static str])],
    /// Calls that are allowed if one of the alternatives holds; else they answer `EPERM`.
    pub when: &'static [(&'static str, &'static str, AnyOf)],
}

const fn is(arg: u8, value: u32) -> Bits {
    Bits { arg, mask: u32::MAX, value }
}

const fn without(arg: u8, mask: u32) -> Bits {
    Bits { arg, mask, value: 0 }
}

/// `CLONE_NEW*` (`<linux/sched.h>`), as in the cell's table, and `CLONE_THREAD`.
const CLONE_NAMESPACES: u32 = 0x7e02_0000;
const CLONE_THREAD: Bits = Bits { arg: 0, mask: 0x0001_0000 | CLONE_NAMESPACES, value: 0x0001_0000 };

/// `PROT_WRITE` and `PROT_EXEC`.
const WRITE: u32 = 2;
const EXECUTE: u32 = 4;

/// `O_WRONLY`, `O_RDWR`, `O_CREAT`, `O_TRUNC` (asm-generic/fcntl.h), and what of `O_TMPFILE` is not `O_DIRECTORY`.
const CHANGING: u32 = 0o3 | 0o100 | 0o1000 | 0o20_000_000;

const MEMORY: &[&str] = &["brk", "madvise", "mremap", "munmap"];
const WAITING: &[&str] = &["clock_nanosleep", "futex", "nanosleep", "poll", "ppoll", "restart_syscall", "sched_yield"];
const CLOCKS: &[&str] = &["clock_getres", "clock_gettime", "gettimeofday", "time"];
const ENDING: &[&str] = &["exit", "exit_group", "rt_sigaction", "rt_sigprocmask", "rt_sigreturn", "sigaltstack"];

/// No memory that is written and executed, be it at a time or one after the other. Without `PROT_EXEC` no library could be loaded,
/// which the C library's resolver does.
const MMAP: &[&[Bits]] = &[&[without(2, WRITE)], &[without(2, EXECUTE)]];
const MPROTECT: &[&[Bits]] = &[&[without(2, EXECUTE)]];

/// `cellblock-net`, once it serves: sockets, the audit, the host's resolver with whatever modules it has, threads. No other program, no
/// process, no namespace, no mount; nothing that looks into other processes or ends them.
#[rustfmt::skip]
pub const NETWORK: Own = Own {
    allow: &[
        ("relaying, and the audit", &[
            "close", "fcntl", "lseek", "pipe2", "pread64", "pwrite64", "read", "readv", "splice", "write", "writev",
        ]),
        ("files: which, is for the kernel's Landlock to say", &[
            "access", "faccessat", "faccessat2", "fstat", "lstat", "newfstatat", "open", "openat", "readlink", "readlinkat", "stat", "statx",
        ]),
        ("a full audit makes way for a new one", &["rename", "renameat", "renameat2"]),
        ("connections", &[
            "accept", "accept4", "bind", "connect", "getpeername", "getsockname", "getsockopt", "listen", "recvfrom", "recvmmsg", "recvmsg",
            "sendmmsg", "sendmsg", "sendto", "setsockopt", "shutdown",
        ]),
        ("waiting", WAITING),
        ("waiting for many", &[
            "epoll_create1", "epoll_ctl", "epoll_pwait", "epoll_pwait2", "epoll_wait", "eventfd2", "pselect6", "select", "timerfd_create",
            "timerfd_settime",
        ]),
        ("whether what carries the packets of a bridge has ended", &["wait4", "waitid"]),
        ("memory", MEMORY),
        ("threads", &["membarrier", "rseq", "sched_getaffinity", "set_robust_list", "set_tid_address"]),
        ("clocks", CLOCKS),
        ("ending", ENDING),
        ("who and where it is", &[
            "getcpu", "getegid", "geteuid", "getgid", "getpid", "getrandom", "getresgid", "getresuid", "gettid", "getuid", "sysinfo", "uname",
        ]),
    ],
    when: &[
        ("threads, and neither processes nor namespaces", "clone", &[&[CLONE_THREAD]]),
        ("Unix for the host's resolver, IPv4, IPv6; netlink for this machine's addresses", "socket",
            &[&[is(0, 1)], &[is(0, 2)], &[is(0, 10)], &[is(0, 16), is(2, 0)]]),
        ("within the process", "socketpair", &[&[is(0, 1)]]),
        ("how much there is to read, not to wait, close-on-exec", "ioctl", &[&[is(1, 0x541B)], &[is(1, 0x5421)], &[is(1, 0x5451)]]),
        ("names of threads, and of memory", "prctl", &[&[is(0, 15)], &[is(0, 0x5356_4d41)]]),
        ("its own limits", "prlimit64", &[&[is(0, 0)]]),
        ("memory and libraries", "mmap", MMAP),
        ("memory", "mprotect", MPROTECT),
    ],
};

/// `cellblock-who`: reads `/proc`, and answers on the one socket that it has.
#[rustfmt::skip]
pub const WHO: Own = Own {
    allow: &[
        ("questions and answers", &["recvfrom", "sendto"]),
        ("what the kernel tells of processes", &[
            "close", "fcntl", "fstat", "getdents64", "lseek", "newfstatat", "read", "readlinkat", "statx",
        ]),
        ("waiting", WAITING),
        ("memory", MEMORY),
        ("clocks", CLOCKS),
        ("ending", ENDING),
    ],
    when: &[
        ("to read", "openat", &[&[without(2, CHANGING)]]),
        ("memory", "mmap", &[&[without(2, EXECUTE)]]),
        ("memory", "mprotect", MPROTECT),
    ],
};
