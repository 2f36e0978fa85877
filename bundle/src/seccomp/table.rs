//! The seccomp policy as data: which system calls a cell may make, in groups with a reason each.
//!
//! Everything not named here answers `ENOSYS`, as if the kernel were older: C libraries and runtimes then fall back. What is
//! *denied* on purpose answers `EPERM` (or what its row says), so that programs report it instead of trying the next best thing.
//! Yardstick for what programs need: the profile that Docker and Podman share.
//!
//! Also compiled into the build script, so it knows nothing of the rest of the crate.

/// Which of the policies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// For daily work.
    Default,
    /// Less: no looking into other processes, no execution domains, none of the rarely used corners of memory management.
    Strict,
    /// `Default`, and namespaces and mounts inside the cell: for container tools and browsers that sandbox themselves.
    Nested,
}

/// What happens to a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It goes on to the kernel.
    Allow,
    /// It returns this errno.
    Errno(u16),
}

/// Not permitted. Errno values are the same on all of our architectures (`<asm-generic/errno.h>`).
pub const EPERM: u16 = 1;
/// No such system call.
pub const ENOSYS: u16 = 38;
/// No such address family.
pub const EAFNOSUPPORT: u16 = 97;

/// What a call that no row names gets.
pub const DEFAULT: Verdict = Verdict::Errno(ENOSYS);

/// What every call of the x32 ABI gets: nothing is shipped for it any more, most kernels are built without, and it has had holes of
/// its own (CVE-2014-0038). Its numbers answer as on a kernel without it.
pub const X32: Verdict = Verdict::Errno(ENOSYS);

/// One thing for each profile.
#[derive(Clone, Copy, Debug)]
pub struct Per<T> {
    default: T,
    strict: T,
    nested: T,
}

impl<T: Copy> Per<T> {
    /// That of `profile`.
    #[must_use]
    pub const fn of(&self, profile: Profile) -> T {
        match profile {
            Profile::Default => self.default,
            Profile::Strict => self.strict,
            Profile::Nested => self.nested,
        }
    }
}

/// System calls with the same verdict for the same reason.
#[derive(Clone, Copy, Debug)]
pub struct Group {
    /// Why.
    pub why: &'static str,
    verdict: Per<Verdict>,
    /// Which, by the kernel's names; those an ABI lacks do not count there.
    pub names: &'static [&'static str],
}

impl Group {
    /// The verdict under `profile`.
    #[must_use]
    pub const fn under(&self, profile: Profile) -> Verdict {
        self.verdict.of(profile)
    }
}

type Names = &'static [&'static str];

const fn group(why: &'static str, default: Verdict, strict: Verdict, nested: Verdict, names: Names) -> Group {
    Group { why, verdict: Per { default, strict, nested }, names }
}

const DENY: Verdict = Verdict::Errno(EPERM);

const fn allow(why: &'static str, names: Names) -> Group {
    group(why, Verdict::Allow, Verdict::Allow, Verdict::Allow, names)
}

const fn deny(why: &'static str, names: Names) -> Group {
    group(why, DENY, DENY, DENY, names)
}

/// Denied under `strict` only.
const fn unless_strict(why: &'static str, names: Names) -> Group {
    group(why, Verdict::Allow, DENY, Verdict::Allow, names)
}

/// Allowed under `nested` only.
const fn if_nested(why: &'static str, names: Names) -> Group {
    group(why, DENY, DENY, Verdict::Allow, names)
}

/// As on a kernel that lacks them. The same as not naming them, but decided on.
const fn absent(why: &'static str, names: Names) -> Group {
    group(why, DEFAULT, DEFAULT, DEFAULT, names)
}

/// Rows without conditions.
#[rustfmt::skip]
pub const GROUPS: &[Group] = &[
    allow("files and directories: the mount namespace decides what there is to see", &[
        "access", "chdir", "chmod", "chown", "chown32", "chroot", "close", "close_range", "creat", "dup", "dup2", "dup3", "faccessat",
        "faccessat2", "fallocate", "fchdir", "fchmod", "fchmodat", "fchmodat2", "fchown", "fchown32", "fchownat", "fcntl", "fcntl64",
        "fgetxattr", "file_getattr", "file_setattr", "flistxattr", "flock", "fremovexattr", "fsetxattr", "fstat", "fstat64",
        "fstatat64", "fstatfs", "fstatfs64", "ftruncate", "ftruncate64", "futimesat", "getcwd", "getdents", "getdents64", "getxattr",
        "getxattrat", "lchown", "lchown32", "lgetxattr", "link", "linkat", "listxattr", "listxattrat", "llistxattr", "lremovexattr",
        "lsetxattr", "lstat", "lstat64", "mkdir", "mkdirat", "mknod", "mknodat", "newfstatat", "oldfstat", "oldlstat", "oldstat", "open",
        "openat", "openat2", "readdir", "readlink", "readlinkat", "removexattr", "removexattrat", "rename", "renameat", "renameat2",
        "rmdir", "setxattr", "setxattrat", "stat", "stat64", "statfs", "statfs64", "statx", "symlink", "symlinkat", "truncate",
        "truncate64", "umask", "unlink", "unlinkat", "utime", "utimensat", "utimensat_time64", "utimes",
    ]),
    allow("reading and writing", &[
        "_llseek", "arm_fadvise64_64", "arm_sync_file_range", "cachestat", "copy_file_range", "fadvise64", "fadvise64_64", "fdatasync",
        "fsync", "lseek", "pipe", "pipe2", "pread64", "preadv", "preadv2", "pwrite64", "pwritev", "pwritev2", "read", "readahead",
        "readv", "sendfile", "sendfile64", "splice", "sync", "sync_file_range", "syncfs", "tee", "write", "writev",
    ]),
    allow("asynchronous I/O of the old kind (databases); io_uring is closed", &[
        "io_cancel", "io_destroy", "io_getevents", "io_pgetevents", "io_pgetevents_time64", "io_setup", "io_submit",
    ]),
    allow("waiting for events", &[
        "_newselect", "epoll_create", "epoll_create1", "epoll_ctl", "epoll_pwait", "epoll_pwait2", "epoll_wait", "eventfd", "eventfd2",
        "inotify_add_watch", "inotify_init", "inotify_init1", "inotify_rm_watch", "poll", "ppoll", "ppoll_time64", "pselect6",
        "pselect6_time64", "select", "signalfd", "signalfd4", "timerfd_create", "timerfd_gettime", "timerfd_gettime64",
        "timerfd_settime", "timerfd_settime64",
    ]),
    allow("memory of the process itself", &[
        "brk", "get_mempolicy", "madvise", "map_shadow_stack", "membarrier", "memfd_create", "mincore", "mlock", "mlock2", "mlockall",
        "mmap", "mmap2", "mprotect", "mremap", "mseal", "msync", "munlock", "munlockall", "munmap", "pkey_alloc", "pkey_free",
        "pkey_mprotect", "process_mrelease",
    ]),
    unless_strict("memory: corners that few programs use and that have had kernel bugs", &[
        "mbind", "memfd_secret", "remap_file_pages", "set_mempolicy", "set_mempolicy_home_node", "vmsplice",
    ]),
    unless_strict("segments of its own: Wine, DOS emulators and very old threads need them", &["modify_ldt"]),
    allow("processes and threads of the cell's own PID namespace", &[
        "arch_prctl", "breakpoint", "cacheflush", "capget", "capset", "execve", "execveat", "exit", "exit_group", "fork", "futex",
        "futex_requeue", "futex_time64", "futex_wait", "futex_waitv", "futex_wake", "get_robust_list", "get_thread_area", "get_tls",
        "getcpu", "getegid", "getegid32", "geteuid", "geteuid32", "getgid", "getgid32", "getgroups", "getgroups32", "getpgid",
        "getpgrp", "getpid", "getppid", "getpriority", "getresgid", "getresgid32", "getresuid", "getresuid32", "getrlimit", "getrusage",
        "getsid", "gettid", "getuid", "getuid32", "ioprio_get", "ioprio_set", "kill", "nice", "pause", "pidfd_open", "pidfd_send_signal",
        "prlimit64", "restart_syscall", "rseq", "sched_get_priority_max", "sched_get_priority_min", "sched_getaffinity",
        "sched_getattr", "sched_getparam", "sched_getscheduler", "sched_rr_get_interval", "sched_rr_get_interval_time64",
        "sched_setaffinity", "sched_setattr", "sched_setparam", "sched_setscheduler", "sched_yield", "set_robust_list",
        "set_thread_area", "set_tid_address", "set_tls", "setfsgid", "setfsgid32", "setfsuid", "setfsuid32", "setgid", "setgid32",
        "setgroups", "setgroups32", "setpgid", "setpriority", "setregid", "setregid32", "setresgid", "setresgid32", "setresuid",
        "setresuid32", "setreuid", "setreuid32", "setrlimit", "setsid", "setuid", "setuid32", "tgkill", "tkill", "ugetrlimit", "vfork",
        "wait4", "waitid", "waitpid",
    ]),
    allow("a hundred options of the process itself; those that matter outside it ask for capabilities", &["prctl"]),
    allow("signals and timers", &[
        "alarm", "getitimer", "rt_sigaction", "rt_sigpending", "rt_sigprocmask", "rt_sigqueueinfo", "rt_sigreturn", "rt_sigsuspend",
        "rt_sigtimedwait", "rt_sigtimedwait_time64", "rt_tgsigqueueinfo", "setitimer", "sigaction", "sigaltstack", "signal",
        "sigpending", "sigprocmask", "sigreturn", "sigsuspend", "timer_create", "timer_delete", "timer_getoverrun", "timer_gettime",
        "timer_gettime64", "timer_settime", "timer_settime64",
    ]),
    allow("made by the kernel's own code in a probed process, which dies without them (before Linux 6.14 and 6.18)", &[
        "uprobe", "uretprobe",
    ]),
    allow("reading clocks and facts about the machine", &[
        "clock_getres", "clock_getres_time64", "clock_gettime", "clock_gettime64", "clock_nanosleep", "clock_nanosleep_time64",
        "getrandom", "gettimeofday", "nanosleep", "oldolduname", "olduname", "sysinfo", "time", "times", "uname",
    ]),
    allow("System V and POSIX IPC, in the cell's own IPC namespace; `ipc` of the 32-bit ABIs is all of them in one", &[
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
    allow("reading what /proc/self/mountinfo and /proc/self/attr say as well", &[
        "listmount", "lsm_get_self_attr", "lsm_list_modules", "statmount",
    ]),
    unless_strict("debuggers and crash handlers; only within the cell (Linux 4.8 made them safe together with seccomp)", &[
        "pidfd_getfd", "process_madvise", "process_vm_readv", "process_vm_writev", "ptrace",
    ]),
    group("the C library falls back to clone, whose flags can be looked at; clone3's lie behind a pointer",
        DEFAULT, DEFAULT, Verdict::Allow, &["clone3"]),
    // EPERM although nobody tries it second: OCI runtimes leave out rows that equal the default action, and libseccomp, which takes
    // an allowed `socket` to mean an allowed socketcall(SYS_SOCKET), would then open every family to 32-bit programs.
    deny("a multiplexer that hides the address family behind a pointer. Since Linux 4.3 i386 has the calls directly; a glibc built \
        for older kernels (Debian's i386) does not use them, and has no sockets here", &["socketcall"]),
    if_nested("namespaces inside the cell: a large attack surface of the kernel", &[
        "setdomainname", "sethostname", "setns", "unshare",
    ]),
    if_nested("mounts inside the cell, old and new interface", &[
        "fsconfig", "fsmount", "fsopen", "fspick", "mount", "mount_setattr", "move_mount", "open_tree", "open_tree_attr", "pivot_root",
        "umount", "umount2",
    ]),
    deny("io_uring: bypasses seccomp for the operations it carries out, and was the kernel's richest source of escapes", &[
        "io_uring_enter", "io_uring_register", "io_uring_setup",
    ]),
    deny("kernel keyrings are not namespaced by container", &["add_key", "keyctl", "request_key"]),
    deny("programs in the kernel, and its performance counters", &["bpf", "perf_event_open"]),
    deny("page faults handled in user space make kernel races winnable", &["userfaultfd"]),
    deny("file handles open files by number, past every mount", &["name_to_handle_at", "open_by_handle_at"]),
    deny("tells where kernel objects lie in relation to each other", &["kcmp"]),
    deny("watching a whole file system; programs fall back to inotify", &["fanotify_init", "fanotify_mark"]),
    deny("where memory lies on the machine is the host's business", &["migrate_pages", "move_pages"]),
    deny("changing one's security label", &["lsm_set_self_attr"]),
    deny("the machine's clock", &[
        "adjtimex", "clock_adjtime", "clock_adjtime64", "clock_settime", "clock_settime64", "settimeofday", "stime",
    ]),
    deny("the machine itself: modules, power, swap, accounting, quotas, terminals of others, kernel log", &[
        "acct", "delete_module", "finit_module", "init_module", "kexec_file_load", "kexec_load", "quotactl", "quotactl_fd", "reboot",
        "swapoff", "swapon", "syslog", "vhangup",
    ]),
    deny("input and output of the hardware, and the 16-bit mode of the processor", &[
        "ioperm", "iopl", "pciconfig_iobase", "pciconfig_read", "pciconfig_write", "vm86", "vm86old",
    ]),
    absent("removed from the kernel, or never more than a number", &[
        "_sysctl", "afs_syscall", "bdflush", "break", "create_module", "epoll_ctl_old", "epoll_wait_old", "ftime", "get_kernel_syms",
        "getpmsg", "gtty", "idle", "lock", "lookup_dcookie", "mpx", "nfsservctl", "prof", "profil", "putpmsg", "query_module",
        "security", "stty", "tuxcall", "ulimit", "usr26", "usr32", "vserver",
    ]),
    absent("no program of the last twenty years makes them", &["sgetmask", "ssetmask", "sysfs", "uselib", "ustat"]),
];

/// A test of one argument, counted from 0: its low 32 bits, masked, are this value.
///
/// The low half is all that the kernel sees of every argument tested here (`int`, `unsigned int`, and the flags of `clone`, which it
/// cuts). A program may leave anything in the upper half, so looking at it would refuse honest calls and, where a value is denied,
/// let others past.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bits {
    /// Which argument.
    pub arg: u8,
    /// The bits looked at.
    pub mask: u32,
    /// What they must be.
    pub value: u32,
}

/// Alternatives, each with tests that must all hold: `&[&[]]` always holds.
pub type AnyOf = &'static [&'static [Bits]];

/// A call whose verdict depends on its arguments.
#[derive(Clone, Copy, Debug)]
pub struct Conditional {
    /// Why.
    pub why: &'static str,
    /// The call.
    pub name: &'static str,
    when: Per<AnyOf>,
    /// What happens if one of the alternatives holds.
    pub then: Verdict,
    /// What happens if none does.
    pub otherwise: Verdict,
}

impl Conditional {
    /// The alternatives under `profile`.
    #[must_use]
    pub const fn under(&self, profile: Profile) -> AnyOf {
        self.when.of(profile)
    }
}

/// `CLONE_NEWNS | CLONE_NEWCGROUP | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNET` (`<linux/sched.h>`);
/// `CLONE_NEWTIME` shares its bit with the exit signal in `clone` and cannot be asked for there.
const CLONE_NAMESPACES: u32 =
    0x0002_0000 | 0x0200_0000 | 0x0400_0000 | 0x0800_0000 | 0x1000_0000 | 0x2000_0000 | 0x4000_0000;

const fn is(arg: u8, value: u32) -> Bits {
    Bits { arg, mask: u32::MAX, value }
}

const fn everywhere(when: AnyOf) -> Per<AnyOf> {
    Per { default: when, strict: when, nested: when }
}

/// `AF_UNIX` (`<linux/socket.h>`).
const UNIX: Bits = is(0, 1);

const PERSONALITIES: AnyOf =
    &[&[is(0, 0)], &[is(0, 8)], &[is(0, 0x2_0000)], &[is(0, 0x2_0008)], &[is(0, 0x4_0000)], &[is(0, u32::MAX)]];

/// Rows with conditions.
pub const CONDITIONAL: &[Conditional] = &[
    Conditional {
        why: "threads and processes, but no namespaces",
        name: "clone",
        when: Per {
            default: &[&[Bits { arg: 0, mask: CLONE_NAMESPACES, value: 0 }]],
            strict: &[&[Bits { arg: 0, mask: CLONE_NAMESPACES, value: 0 }]],
            nested: &[&[]],
        },
        then: Verdict::Allow,
        otherwise: DENY,
    },
    Conditional {
        why: "Unix, IPv4, IPv6, and netlink for routes only: getifaddrs of every C library needs it, and it shows the cell's own \
            network. Not AF_ALG (CVE-2026-31431), AF_VSOCK (reaches the hypervisor), AF_PACKET and the rest",
        name: "socket",
        // AF_UNIX, AF_INET, AF_INET6, AF_NETLINK with NETLINK_ROUTE.
        when: everywhere(&[&[UNIX], &[is(0, 2)], &[is(0, 10)], &[is(0, 16), is(2, 0)]]),
        then: Verdict::Allow,
        otherwise: Verdict::Errno(EAFNOSUPPORT),
    },
    Conditional {
        why: "of the allowed families only Unix sockets come in pairs",
        name: "socketpair",
        when: everywhere(&[&[UNIX]]),
        then: Verdict::Allow,
        otherwise: Verdict::Errno(EAFNOSUPPORT),
    },
    Conditional {
        why: "no typing into a terminal (TIOCSTI), no selection of the console (TIOCLINUX), no line disciplines (TIOCSETD loads \
            modules: CVE-2023-6546)",
        name: "ioctl",
        when: everywhere(&[&[is(1, 0x5412)], &[is(1, 0x541C)], &[is(1, 0x5423)]]),
        then: DENY,
        otherwise: Verdict::Allow,
    },
    Conditional {
        // PER_LINUX, PER_LINUX32, UNAME26 and both; ADDR_NO_RANDOMIZE, for gdb and ThreadSanitizer; 0xffffffff only asks.
        why: "the usual execution domains; not READ_IMPLIES_EXEC, MMAP_PAGE_ZERO and foreign systems",
        name: "personality",
        when: Per { default: PERSONALITIES, strict: &[&[is(0, 0)], &[is(0, u32::MAX)]], nested: PERSONALITIES },
        then: Verdict::Allow,
        otherwise: DENY,
    },
];
