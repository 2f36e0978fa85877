//! The seccomp policy as data: which system calls a cell may make, in groups with a reason each.
//!
//! Everything not named here answers `ENOSYS`, as if the kernel were older: C libraries and runtimes then fall back. What is
//! *denied* on purpose answers `EPERM` (or what its row says), so that programs report it instead of trying the next best thing.
//!
//! This file is also compiled into the build script, so it knows nothing of the rest of the crate.

/// Which of the two policies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// For daily work.
    Default,
    /// Less: no debugging of other processes, no netlink, no execution domains.
    Strict,
}

/// What happens to a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It goes on to the kernel.
    Allow,
    /// It returns this errno.
    Errno(u16),
}

/// Errno values used here; the same on every architecture of ours (`<asm-generic/errno-base.h>`, `<asm-generic/errno.h>`).
pub const EPERM: u16 = 1;
/// No such system call.
pub const ENOSYS: u16 = 38;
/// No such address family.
pub const EAFNOSUPPORT: u16 = 97;

/// What a call that no row names gets.
pub const DEFAULT: Verdict = Verdict::Errno(ENOSYS);

/// System calls with the same verdict for the same reason.
#[derive(Clone, Copy, Debug)]
pub struct Group {
    /// Why.
    pub why: &'static str,
    /// What.
    pub verdict: Verdict,
    /// What `strict` says instead, where it differs.
    pub strict: Option<Verdict>,
    /// Which, by the kernel's names; those an ABI lacks do not count there.
    pub names: &'static [&'static str],
}

impl Group {
    /// The verdict under `profile`.
    #[must_use]
    pub fn under(&self, profile: Profile) -> Verdict {
        match (profile, self.strict) {
            (Profile::Strict, Some(verdict)) => verdict,
            _ => self.verdict,
        }
    }
}

const fn allow(why: &'static str, names: &'static [&'static str]) -> Group {
    Group { why, verdict: Verdict::Allow, strict: None, names }
}

const fn deny(why: &'static str, names: &'static [&'static str]) -> Group {
    Group { why, verdict: Verdict::Errno(EPERM), strict: None, names }
}

/// Rows without conditions.
#[rustfmt::skip]
pub const GROUPS: &[Group] = &[
    allow("files and directories: the mount namespace decides what there is to see", &[
        "access", "chdir", "chmod", "chown", "chown32", "close", "close_range", "creat", "dup", "dup2", "dup3", "faccessat",
        "faccessat2", "fadvise64", "fadvise64_64", "fallocate", "fchdir", "fchmod", "fchmodat", "fchmodat2", "fchown", "fchown32",
        "fchownat", "fcntl", "fcntl64", "fdatasync", "fgetxattr", "flistxattr", "flock", "fremovexattr", "fsetxattr", "fstat",
        "fstat64", "fstatat64", "fstatfs", "fstatfs64", "fsync", "ftruncate", "ftruncate64", "futimesat", "getcwd", "getdents",
        "getdents64", "getxattr", "getxattrat", "lchown", "lchown32", "lgetxattr", "link", "linkat", "listxattr", "listxattrat",
        "llistxattr", "_llseek", "lremovexattr", "lseek", "lsetxattr", "lstat", "lstat64", "mkdir", "mkdirat", "mknod", "mknodat",
        "newfstatat", "oldfstat", "oldlstat", "oldstat", "open", "openat", "openat2", "readdir", "readlink", "readlinkat",
        "removexattr", "removexattrat", "rename", "renameat", "renameat2", "rmdir", "setxattr", "setxattrat", "stat", "stat64",
        "statfs", "statfs64", "statx", "symlink", "symlinkat", "sync", "sync_file_range", "sync_file_range2", "syncfs", "truncate",
        "truncate64", "umask", "unlink", "unlinkat", "utime", "utimensat", "utimensat_time64", "utimes", "chroot",
        "arm_fadvise64_64", "arm_sync_file_range", "file_getattr", "file_setattr",
    ]),
    allow("reading and writing", &[
        "copy_file_range", "pipe", "pipe2", "pread64", "preadv", "preadv2", "pwrite64", "pwritev", "pwritev2", "read", "readahead",
        "readv", "sendfile", "sendfile64", "splice", "tee", "vmsplice", "write", "writev", "cachestat",
    ]),
    allow("asynchronous I/O of the old kind (databases); io_uring is closed", &[
        "io_cancel", "io_destroy", "io_getevents", "io_pgetevents", "io_pgetevents_time64", "io_setup", "io_submit",
    ]),
    allow("waiting for events", &[
        "epoll_create", "epoll_create1", "epoll_ctl", "epoll_ctl_old", "epoll_pwait", "epoll_pwait2", "epoll_wait",
        "epoll_wait_old", "eventfd", "eventfd2", "inotify_add_watch", "inotify_init", "inotify_init1", "inotify_rm_watch", "_newselect",
        "poll", "ppoll", "ppoll_time64", "pselect6", "pselect6_time64", "select", "signalfd", "signalfd4", "timerfd_create",
        "timerfd_gettime", "timerfd_gettime64", "timerfd_settime", "timerfd_settime64", "fanotify_mark",
    ]),
    allow("memory", &[
        "brk", "get_mempolicy", "madvise", "mbind", "membarrier", "memfd_create", "memfd_secret", "migrate_pages", "mincore", "mlock",
        "mlock2", "mlockall", "mmap", "mmap2", "move_pages", "mprotect", "mremap", "mseal", "msync", "munlock", "munlockall", "munmap",
        "pkey_alloc", "pkey_free", "pkey_mprotect", "process_madvise", "process_mrelease", "remap_file_pages", "set_mempolicy",
        "set_mempolicy_home_node", "map_shadow_stack",
    ]),
    allow("processes and threads of the cell's own PID namespace", &[
        "arch_prctl", "capget", "capset", "execve", "execveat", "exit", "exit_group", "fork", "futex", "futex_requeue", "futex_time64",
        "futex_wait", "futex_waitv", "futex_wake", "get_robust_list", "get_thread_area", "getcpu", "getegid", "getegid32", "geteuid",
        "geteuid32", "getgid", "getgid32", "getgroups", "getgroups32", "getpgid", "getpgrp", "getpid", "getppid", "getpriority",
        "getresgid", "getresgid32", "getresuid", "getresuid32", "getrlimit", "getrusage", "getsid", "gettid", "getuid", "getuid32",
        "ioprio_get", "ioprio_set", "kill", "modify_ldt", "nice", "pause", "pidfd_getfd", "pidfd_open", "pidfd_send_signal", "prctl",
        "prlimit64", "restart_syscall", "riscv_flush_icache", "rseq", "sched_get_priority_max", "sched_get_priority_min",
        "sched_getaffinity", "sched_getattr", "sched_getparam", "sched_getscheduler", "sched_rr_get_interval",
        "sched_rr_get_interval_time64", "sched_setaffinity", "sched_setattr", "sched_setparam", "sched_setscheduler", "sched_yield",
        "set_robust_list", "set_thread_area", "set_tid_address", "setfsgid", "setfsgid32", "setfsuid", "setfsuid32", "setgid",
        "setgid32", "setgroups", "setgroups32", "setpgid", "setpriority", "setregid", "setregid32", "setresgid", "setresgid32",
        "setresuid", "setresuid32", "setreuid", "setreuid32", "setrlimit", "setsid", "setuid", "setuid32", "tgkill", "tkill",
        "ugetrlimit", "vfork", "wait4", "waitid", "waitpid", "cacheflush", "breakpoint", "set_tls", "get_tls",
    ]),
    allow("signals and timers", &[
        "alarm", "getitimer", "rt_sigaction", "rt_sigpending", "rt_sigprocmask", "rt_sigqueueinfo", "rt_sigreturn", "rt_sigsuspend",
        "rt_sigtimedwait", "rt_sigtimedwait_time64", "rt_tgsigqueueinfo", "setitimer", "sigaction", "sigaltstack", "signal",
        "sigpending", "sigprocmask", "sigreturn", "sigsuspend", "timer_create", "timer_delete", "timer_getoverrun", "timer_gettime",
        "timer_gettime64", "timer_settime", "timer_settime64", "uretprobe", "uprobe",
    ]),
    allow("reading clocks and facts about the machine", &[
        "clock_getres", "clock_getres_time64", "clock_gettime", "clock_gettime64", "clock_nanosleep", "clock_nanosleep_time64",
        "getrandom", "gettimeofday", "nanosleep", "sysinfo", "time", "times", "uname", "olduname", "oldolduname",
    ]),
    allow("System V and POSIX IPC, in the cell's own IPC namespace", &[
        "ipc", "mq_getsetattr", "mq_notify", "mq_open", "mq_timedreceive", "mq_timedreceive_time64", "mq_timedsend",
        "mq_timedsend_time64", "mq_unlink", "msgctl", "msgget", "msgrcv", "msgsnd", "semctl", "semget", "semop", "semtimedop",
        "semtimedop_time64", "shmat", "shmctl", "shmdt", "shmget",
    ]),
    allow("sockets, of the families that the rule of `socket` lets be made", &[
        "accept", "accept4", "bind", "connect", "getpeername", "getsockname", "getsockopt", "listen", "recv", "recvfrom", "recvmmsg",
        "recvmmsg_time64", "recvmsg", "send", "sendmmsg", "sendmsg", "sendto", "setsockopt", "shutdown",
    ]),
    allow("sandboxes that programs put around themselves", &[
        "landlock_add_rule", "landlock_create_ruleset", "landlock_restrict_self", "seccomp",
    ]),
    Group { why: "debuggers and crash handlers; only within the cell (Linux 4.8 made them safe together with seccomp)",
        verdict: Verdict::Allow, strict: Some(Verdict::Errno(EPERM)),
        names: &["ptrace", "process_vm_readv", "process_vm_writev"] },
    Group { why: "the C library falls back to clone, whose flags can be looked at; clone3's lie behind a pointer",
        verdict: Verdict::Errno(ENOSYS), strict: None, names: &["clone3"] },
    Group { why: "a multiplexer whose arguments lie behind a pointer; since Linux 4.3 i386 has every socket call directly",
        verdict: Verdict::Errno(ENOSYS), strict: None, names: &["socketcall"] },
    deny("namespaces inside the cell: a large attack surface of the kernel", &["setns", "unshare"]),
    deny("mounts inside the cell, old and new interface", &[
        "fsconfig", "fsmount", "fsopen", "fspick", "mount", "mount_setattr", "move_mount", "open_tree", "open_tree_attr", "pivot_root",
        "umount", "umount2", "statmount", "listmount",
    ]),
    deny("io_uring: bypasses seccomp for the operations it carries out, and was the kernel's richest source of escapes", &[
        "io_uring_enter", "io_uring_register", "io_uring_setup",
    ]),
    deny("kernel keyrings are not namespaced by container", &["add_key", "keyctl", "request_key"]),
    deny("programs in the kernel, and its performance counters", &["bpf", "perf_event_open"]),
    deny("page faults handled in user space make kernel races winnable", &["userfaultfd"]),
    deny("file handles open files by number, past every mount", &["name_to_handle_at", "open_by_handle_at"]),
    deny("comparing kernel objects of processes", &["kcmp"]),
    deny("watching a whole file system", &["fanotify_init"]),
    deny("the machine's clock", &[
        "adjtimex", "clock_adjtime", "clock_adjtime64", "clock_settime", "clock_settime64", "settimeofday", "stime",
    ]),
    deny("the machine itself: modules, power, swap, accounting, quotas, host name, log", &[
        "acct", "create_module", "delete_module", "finit_module", "init_module", "kexec_file_load", "kexec_load", "query_module",
        "quotactl", "quotactl_fd", "reboot", "setdomainname", "sethostname", "swapoff", "swapon", "syslog", "vhangup", "sysfs", "_sysctl",
        "uselib", "ustat", "bdflush", "nfsservctl", "lookup_dcookie", "get_kernel_syms",
    ]),
    deny("input and output ports of the hardware", &["ioperm", "iopl", "vm86", "vm86old"]),
    deny("stacking of security modules", &["lsm_get_self_attr", "lsm_list_modules", "lsm_set_self_attr"]),
];

/// How an argument is looked at. Arguments count from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Test {
    /// None of these bits is set in the low 32 bits. For flags the kernel itself cuts to 32 bits.
    NoBits {
        /// Which argument.
        arg: u8,
        /// The bits.
        mask: u32,
    },
    /// The whole 64-bit argument is this value.
    Is {
        /// Which argument.
        arg: u8,
        /// The value.
        value: u32,
    },
    /// Two arguments have these values.
    Both {
        /// The first argument and its value.
        first: (u8, u32),
        /// The second argument and its value.
        second: (u8, u32),
    },
    /// The low 32 bits are none of these. The kernel cuts `ioctl` numbers to 32 bits, so whoever compares 64 can be fooled.
    NotLow {
        /// Which argument.
        arg: u8,
        /// The values.
        values: &'static [u32],
    },
}

/// A call that is allowed if one of the tests holds.
#[derive(Clone, Copy, Debug)]
pub struct Conditional {
    /// Why.
    pub why: &'static str,
    /// The call.
    pub name: &'static str,
    /// Allowed if one of these holds.
    pub any: &'static [Test],
    /// What `strict` allows instead, where it differs.
    pub strict: Option<&'static [Test]>,
    /// What happens otherwise.
    pub otherwise: u16,
}

impl Conditional {
    /// The tests under `profile`.
    #[must_use]
    pub fn under(&self, profile: Profile) -> &'static [Test] {
        match (profile, self.strict) {
            (Profile::Strict, Some(tests)) => tests,
            _ => self.any,
        }
    }
}

/// `CLONE_NEWNS | CLONE_NEWCGROUP | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNET` (`<linux/sched.h>`);
/// `CLONE_NEWTIME` shares its bit with the exit signal in `clone` and cannot be asked for there.
pub const CLONE_NAMESPACES: u32 = 0x0002_0000 | 0x0200_0000 | 0x0400_0000 | 0x0800_0000 | 0x1000_0000 | 0x2000_0000 | 0x4000_0000;

/// `TIOCSTI`, `TIOCLINUX`, `TIOCSETD` (`<asm-generic/ioctls.h>`).
pub const TERMINAL_IOCTLS: &[u32] = &[0x5412, 0x541C, 0x5423];

const UNIX: Test = Test::Is { arg: 0, value: 1 };
const INET: Test = Test::Is { arg: 0, value: 2 };
const INET6: Test = Test::Is { arg: 0, value: 10 };
const NETLINK_ROUTE: Test = Test::Both { first: (0, 16), second: (2, 0) };

const fn domain(value: u32) -> Test {
    Test::Is { arg: 0, value }
}

/// Rows with conditions.
pub const CONDITIONAL: &[Conditional] = &[
    Conditional {
        why: "threads and processes, but no namespaces",
        name: "clone",
        any: &[Test::NoBits { arg: 0, mask: CLONE_NAMESPACES }],
        strict: None,
        otherwise: EPERM,
    },
    Conditional {
        why: "Unix, IPv4, IPv6, and netlink for routes only (getifaddrs needs it); not AF_ALG, AF_VSOCK (reaches the hypervisor), AF_PACKET and the rest",
        name: "socket",
        any: &[UNIX, INET, INET6, NETLINK_ROUTE],
        strict: Some(&[UNIX, INET, INET6]),
        otherwise: EAFNOSUPPORT,
    },
    Conditional {
        why: "pairs exist for Unix sockets only",
        name: "socketpair",
        any: &[UNIX],
        strict: None,
        otherwise: EAFNOSUPPORT,
    },
    Conditional {
        why: "everything but typing into a terminal (TIOCSTI), the console's selection (TIOCLINUX) and line disciplines (TIOCSETD)",
        name: "ioctl",
        any: &[Test::NotLow { arg: 1, values: TERMINAL_IOCTLS }],
        strict: None,
        otherwise: EPERM,
    },
    Conditional {
        why: "the usual execution domains, without READ_IMPLIES_EXEC; 0xffffffff only asks",
        name: "personality",
        any: &[domain(0), domain(8), domain(0x0002_0000), domain(0x0002_0008), domain(0xffff_ffff)],
        strict: Some(&[domain(0), domain(0xffff_ffff)]),
        otherwise: EPERM,
    },
];
