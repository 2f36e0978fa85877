//! What the filter of a cell whose folders have names that must not be changed does besides: which calls are handed to the guard.
//!
//! For whoever is behind it those folders are mounted read-only. What is listed here is what fails on a read-only mount; the guard
//! carries it out on a writable one after a look at the name. So a call that is missing here opens nothing: it fails.
//! Also compiled into the build script.

use super::compile::{ALLOW, AND, ARGS, Code, ERRNO, JEQ, Label};
use super::instruction::Instruction;
use super::table::ENOSYS;

/// `SECCOMP_RET_USER_NOTIF`.
pub(crate) const NOTIFY: u32 = 0x7fc0_0000;

/// When a call is handed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum When {
    /// Always.
    Always,
    /// If this argument has flags of `open(2)` that may change something.
    Opens(u8),
    /// If this argument asks for leave to write, as `access(2)` does.
    Asks(u8),
    /// Never: it answers `ENOSYS`, and programs fall back on a call that says the same in registers.
    Absent,
}

/// `O_WRONLY | O_RDWR | O_CREAT | O_TRUNC`; `O_TMPFILE` comes with one of the first two. The same on all of our ABIs.
pub(crate) const CHANGES: u32 = 0o1103;
/// `O_PATH`, with which the others mean nothing.
pub(crate) const PATH: u32 = 0o10_000_000;
/// `W_OK`.
pub(crate) const WRITE: u32 = 2;

/// The calls, by the kernel's names.
pub(crate) const CALLS: &[(&str, When)] = &[
    ("access", When::Asks(1)),
    ("bind", When::Always),
    ("chmod", When::Always),
    ("chown", When::Always),
    ("chown32", When::Always),
    ("creat", When::Always),
    ("faccessat", When::Asks(2)),
    ("faccessat2", When::Asks(2)),
    ("fchmod", When::Always),
    ("fchmodat", When::Always),
    ("fchmodat2", When::Always),
    ("fchown", When::Always),
    ("fchown32", When::Always),
    ("fchownat", When::Always),
    ("file_setattr", When::Absent),
    ("fremovexattr", When::Always),
    ("fsetxattr", When::Always),
    ("futimesat", When::Always),
    ("lchown", When::Always),
    ("lchown32", When::Always),
    ("link", When::Always),
    ("linkat", When::Always),
    ("lremovexattr", When::Always),
    ("lsetxattr", When::Always),
    ("mkdir", When::Always),
    ("mkdirat", When::Always),
    ("mknod", When::Always),
    ("mknodat", When::Always),
    ("open", When::Opens(1)),
    ("openat", When::Opens(2)),
    ("openat2", When::Absent),
    ("removexattr", When::Always),
    ("removexattrat", When::Absent),
    ("rename", When::Always),
    ("renameat", When::Always),
    ("renameat2", When::Always),
    ("rmdir", When::Always),
    ("setxattr", When::Always),
    ("setxattrat", When::Absent),
    ("symlink", When::Always),
    ("symlinkat", When::Always),
    ("truncate", When::Always),
    ("truncate64", When::Always),
    ("unlink", When::Always),
    ("unlinkat", When::Always),
    ("utime", When::Always),
    ("utimensat", When::Always),
    ("utimensat_time64", When::Always),
    ("utimes", When::Always),
];

/// When the call `name` is handed over, if ever.
pub(crate) fn when(name: &str) -> Option<When> {
    CALLS.iter().find(|(known, _)| *known == name).map(|(_, when)| *when)
}

/// What becomes of a call that is allowed otherwise.
pub(crate) fn hand_over(code: &mut Code, when: When) -> Label {
    match when {
        When::Absent => code.ret(ERRNO | u32::from(ENOSYS)),
        When::Always => code.ret(NOTIFY),
        When::Asks(arg) => {
            let (none, some) = (code.ret(ALLOW), code.ret(NOTIFY));
            masked(code, arg, WRITE, none, some)
        }
        When::Opens(arg) => {
            let (none, some) = (code.ret(ALLOW), code.ret(NOTIFY));
            let changes = masked(code, arg, CHANGES, none, some);
            let none = code.ret(ALLOW);
            masked(code, arg, PATH, changes, none)
        }
    }
}

/// `none` if the argument has none of the bits; its low half, as both machines are little-endian and the kernel looks at no more.
fn masked(code: &mut Code, arg: u8, bits: u32, none: Label, some: Label) -> Label {
    let branch = code.branch(JEQ, 0, none, some);
    let and = code.push(Instruction { code: AND, jt: 0, jf: 0, k: bits }, branch);
    code.load(ARGS + 8 * u32::from(arg), and)
}

#[cfg(test)]
mod tests {
    use super::super::compile::{self, Policy};
    use super::super::machine::{self, Action, Call};
    use super::super::numbers::NUMBERS;
    use super::super::tests::{ARCHES, PROFILES, arguments, expected, names, numbers};
    use super::*;

    /// What this list says, without the compiler's help.
    fn handed(name: &str, args: &[u64; 6]) -> Action {
        let low = |arg: u8| u32::try_from(args[usize::from(arg)] & 0xffff_ffff).unwrap();
        let handed = match when(name) {
            None => false,
            Some(When::Absent) => return Action::Errno(ENOSYS),
            Some(When::Always) => true,
            Some(When::Opens(arg)) => low(arg) & CHANGES != 0 && low(arg) & PATH == 0,
            Some(When::Asks(arg)) => low(arg) & WRITE != 0,
        };
        if handed { Action::Notify } else { Action::Allow }
    }

    #[test]
    fn what_a_cell_may_do_is_handed_over_as_the_list_says_and_nothing_else_changes() {
        let values =
            [0u64, 1, 2, 3, 4, 0o100, 0o1000, 0o2000, 0o10_000_001, 0o20_200_002, 7, 1 << 32, u64::MAX, 0o2_000_000];
        for (arch, profile) in ARCHES.into_iter().flat_map(|arch| PROFILES.map(|profile| (arch, profile))) {
            let plain = compile::program(profile, arch);
            let program = compile::program(Policy::Guarded(profile), arch);
            machine::check(&program);
            let mut counts = [0; 2];
            for abi in arch.abis() {
                let names = names(abi.column);
                for nr in numbers() {
                    let name = names.get(&nr).copied().unwrap_or_default();
                    for args in values.map(|value| [value; 6]).into_iter().chain(arguments(name)) {
                        let call = Call { audit: abi.audit, nr, args };
                        let said = machine::run(&program, &call);
                        let right = match machine::run(&plain, &call) {
                            Action::Allow => handed(name, &args),
                            refused => refused,
                        };
                        assert_eq!(said, right, "{:?} {nr} {args:?}", abi.column);
                        counts[usize::from(said == Action::Notify)] += 1;
                    }
                }
            }
            assert!(counts.iter().all(|count| *count > 1000), "the probe works: {counts:?}");
            let foreign = Call { audit: 0x1234, nr: 2, args: [1; 6] };
            assert_eq!(machine::run(&program, &foreign), machine::run(&plain, &foreign));
        }
    }

    #[test]
    fn the_listener_can_be_handed_on_behind_the_filter() {
        for profile in PROFILES {
            for name in ["sendmsg", "close", "write", "exit_group"] {
                assert_eq!(expected(profile, name, &[0; 6]), Action::Allow, "{name}");
                assert_eq!(handed(name, &[u64::MAX; 6]), Action::Allow, "{name}");
            }
        }
    }

    #[test]
    fn every_name_is_a_call() {
        assert!(CALLS.is_sorted_by(|a, b| a.0 < b.0));
        for (name, _) in CALLS {
            assert!(NUMBERS.iter().any(|(known, _)| known == name), "{name}");
        }
    }
}
