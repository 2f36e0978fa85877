//! The second filter, of cells whose folders have names that must not be changed: which calls are handed to the guard.
//!
//! For whoever is behind this filter those folders are mounted read-only. What is listed here is what fails on a read-only mount; the guard
//! carries it out on a writable one after a look at the name. So a call that is missing here opens nothing: it fails.
//! Also compiled into the build script.

use super::abi::{Abi, Arch, Column};
use super::compile::{ALLOW, AND, ARCH, ARGS, Code, ERRNO, JEQ, JGE, Label, NR, X32_BIT};
use super::instruction::Instruction;
use super::numbers::NUMBERS;
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

/// The program for all ABIs of `arch` together. What the other filter refuses stays refused: of two answers the stricter one counts.
#[must_use]
pub(crate) fn program(arch: Arch) -> Vec<Instruction> {
    let [native, compat] = arch.abis();
    let mut code = Code::default();
    let other = code.ret(ALLOW);
    let second = body(&mut code, compat);
    let second = code.branch(JEQ, compat.audit, second, other);
    let first = body(&mut code, native);
    let start = code.branch(JEQ, native.audit, first, second);
    code.load(ARCH, start);
    code.finish()
}

fn body(code: &mut Code, abi: Abi) -> Label {
    let mut known: Vec<(u32, Option<When>)> = Vec::new();
    for (name, when) in CALLS {
        let row = NUMBERS.iter().find(|(known, _)| known == name);
        if let Some(number) = row.and_then(|(_, numbers)| *numbers.get(abi.column as usize)?) {
            known.push((number, Some(*when)));
        }
    }
    known.sort_unstable_by_key(|(number, _)| *number);
    let mut runs: Vec<(u32, Option<When>)> = vec![(0, None)];
    for (number, when) in known {
        if runs.last().is_some_and(|(_, last)| *last != when) {
            runs.push((number, when));
        }
        // Until the next of them.
        runs.push((number + 1, None));
    }
    // Where one follows directly on another, the gap between them is empty.
    let starts: Vec<u32> = runs.iter().skip(1).map(|(start, _)| *start).chain([u32::MAX]).collect();
    let mut runs: Vec<_> =
        runs.into_iter().zip(starts).filter(|((start, _), next)| start != next).map(|(r, _)| r).collect();
    runs.dedup_by_key(|(_, when)| *when);
    let mut root = search(code, &runs);
    if abi.column == Column::X86_64 {
        let x32 = code.ret(ALLOW);
        root = code.branch(JGE, X32_BIT, x32, root);
    }
    code.load(NR, root)
}

fn search(code: &mut Code, runs: &[(u32, Option<When>)]) -> Label {
    match *runs {
        [] => code.ret(ALLOW),
        [(_, when)] => leaf(code, when),
        _ => {
            let (low, high) = runs.split_at(runs.len() / 2);
            let middle = high.first().map_or(0, |(start, _)| *start);
            let high = search(code, high);
            let low = search(code, low);
            code.branch(JGE, middle, high, low)
        }
    }
}

fn leaf(code: &mut Code, when: Option<When>) -> Label {
    match when {
        None => code.ret(ALLOW),
        Some(When::Absent) => code.ret(ERRNO | u32::from(ENOSYS)),
        Some(When::Always) => code.ret(NOTIFY),
        Some(When::Asks(arg)) => {
            let (none, some) = (code.ret(ALLOW), code.ret(NOTIFY));
            masked(code, arg, WRITE, none, some)
        }
        Some(When::Opens(arg)) => {
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
    use super::super::machine::{self, Action, Call};
    use super::super::tests::{ARCHES, names, numbers};
    use super::*;

    /// What the list says, without the compiler's help.
    fn expected(name: Option<&&str>, args: &[u64; 6]) -> Action {
        let when = name.and_then(|name| CALLS.iter().find(|(known, _)| known == name)).map(|(_, when)| *when);
        let low = |arg: u8| u32::try_from(args[usize::from(arg)] & 0xffff_ffff).unwrap();
        let handed = match when {
            None => false,
            Some(When::Absent) => return Action::Errno(ENOSYS),
            Some(When::Always) => true,
            Some(When::Opens(arg)) => low(arg) & CHANGES != 0 && low(arg) & PATH == 0,
            Some(When::Asks(arg)) => low(arg) & WRITE != 0,
        };
        if handed { Action::Notify } else { Action::Allow }
    }

    #[test]
    fn the_program_says_what_the_list_says() {
        let values =
            [0u64, 1, 2, 3, 4, 0o100, 0o1000, 0o2000, 0o10_000_001, 0o20_200_002, 7, 1 << 32, u64::MAX, 0o2_000_000];
        for arch in ARCHES {
            let program = program(arch);
            machine::check(&program);
            for abi in arch.abis() {
                let names = names(abi.column);
                for nr in numbers() {
                    for value in values {
                        let call = Call { audit: abi.audit, nr, args: [value; 6] };
                        let said = machine::run(&program, &call);
                        assert_eq!(said, expected(names.get(&nr), &call.args), "{:?} {nr} {value:#o}", abi.column);
                    }
                }
            }
            let foreign = Call { audit: 0x1234, nr: 2, args: [1; 6] };
            assert_eq!(machine::run(&program, &foreign), Action::Allow, "the other filter's business");
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
