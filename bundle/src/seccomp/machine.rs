//! The kernel's view of a filter, for tests: checks a program as `seccomp(2)` does, and runs it on a call.

use super::compile::{ALLOW, AND, ARCH, ARGS, ERRNO, JEQ, JGE, JUMP, LOAD, NR, RET};
use super::instruction::Instruction;

/// `BPF_JMP | BPF_JGT | BPF_K`, which only libseccomp uses.
const JGT: u16 = 0x25;

/// What a filter says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    Allow,
    Errno(u16),
    /// Hands the call to another process.
    Notify,
    /// Ends the thread (libseccomp, for ABIs it was not told of) or the process (ours).
    Kill,
}

/// A system call as a filter sees it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Call {
    pub(super) audit: u32,
    pub(super) nr: u32,
    pub(super) args: [u64; 6],
}

impl Call {
    /// The word at `offset` of `struct seccomp_data`.
    fn word(&self, offset: u32) -> u32 {
        match offset {
            NR => self.nr,
            ARCH => self.audit,
            _ => {
                let arg = self.args[((offset - ARGS) / 8) as usize];
                let [low, high] = [arg & 0xffff_ffff, arg >> 32].map(|half| u32::try_from(half).unwrap());
                if offset.is_multiple_of(8) { low } else { high }
            }
        }
    }
}

/// What `program` says to `call`. Panics where the kernel would have refused the program.
pub(super) fn run(program: &[Instruction], call: &Call) -> Action {
    let (mut at, mut a) = (0, 0);
    loop {
        let Instruction { code, jt, jf, k } = program[at];
        at += 1;
        let holds = match code {
            LOAD => {
                a = call.word(k);
                continue;
            }
            AND => {
                a &= k;
                continue;
            }
            JUMP => {
                at += k as usize;
                continue;
            }
            RET => return action(k),
            JEQ => a == k,
            JGE => a >= k,
            JGT => a > k,
            _ => panic!("operation {code:#x} at {at}"),
        };
        at += usize::from(if holds { jt } else { jf });
    }
}

fn action(k: u32) -> Action {
    match k & 0xffff_0000 {
        ALLOW => Action::Allow,
        ERRNO => Action::Errno(u16::try_from(k & 0xffff).unwrap()),
        0x7fc0_0000 => Action::Notify,
        0 | 0x8000_0000 => Action::Kill,
        other => panic!("action {other:#x}"),
    }
}

/// What the kernel checks when it takes a program (`bpf_check_classic`, `seccomp_check_filter`): known operations, loads of whole
/// words inside of `struct seccomp_data`, jumps inside of the program, a return at its end.
pub(super) fn check(program: &[Instruction]) {
    assert!(program.len() <= 4096, "BPF_MAXINSNS");
    assert_eq!(program.last().map(|i| i.code), Some(RET));
    for (at, i) in program.iter().enumerate() {
        let inside = |distance: usize| assert!(at + 1 + distance < program.len(), "jump out of the program at {at}");
        match i.code {
            LOAD => assert!(i.k < 64 && i.k % 4 == 0, "load of {} at {at}", i.k),
            JUMP => inside(i.k as usize),
            JEQ | JGE => [i.jt, i.jf].map(usize::from).into_iter().for_each(inside),
            AND | RET => {}
            other => panic!("operation {other:#x} at {at}"),
        }
    }
}
