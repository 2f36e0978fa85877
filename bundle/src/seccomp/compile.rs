//! From verdicts on system call numbers to classic BPF (seccomp(2), `<linux/bpf_common.h>`).
//!
//! The program tells the ABI by the architecture word, then finds the number by binary search over runs of numbers with the same
//! verdict. Its size and depth are paid for at *load*: since Linux 5.11 the kernel runs a filter over every number once, and
//! remembers which ones are allowed whatever their arguments; those calls never enter the filter again.
//!
//! Classic BPF only jumps forward, so code is laid down from its end: whatever a branch leads to stands already, at a known
//! distance, and equal endings are shared. Also compiled into the build script.

use super::abi::{Abi, Arch, Column};
use super::guard::{self, When};
use super::instruction::Instruction;
use super::numbers::NUMBERS;
use super::own::Own;
use super::table::{AnyOf, Bits, CONDITIONAL, DEFAULT, EPERM, GROUPS, Profile, Verdict, X32};

/// `BPF_LD | BPF_W | BPF_ABS`.
pub(crate) const LOAD: u16 = 0x20;
/// `BPF_ALU | BPF_AND | BPF_K`.
pub(crate) const AND: u16 = 0x54;
/// `BPF_JMP | BPF_JA`.
pub(crate) const JUMP: u16 = 0x05;
/// `BPF_JMP | BPF_JEQ | BPF_K`.
pub(crate) const JEQ: u16 = 0x15;
/// `BPF_JMP | BPF_JGE | BPF_K`.
pub(crate) const JGE: u16 = 0x35;
/// `BPF_RET | BPF_K`.
pub(crate) const RET: u16 = 0x06;

/// `SECCOMP_RET_ALLOW`.
pub(crate) const ALLOW: u32 = 0x7fff_0000;
/// `SECCOMP_RET_ERRNO`, to be or-ed with the errno.
pub(crate) const ERRNO: u32 = 0x0005_0000;
/// `SECCOMP_RET_KILL_PROCESS`: for an architecture word that this machine cannot produce.
pub(crate) const KILL: u32 = 0x8000_0000;

/// Offsets in `struct seccomp_data` (`<linux/seccomp.h>`).
pub(crate) const NR: u32 = 0;
pub(crate) const ARCH: u32 = 4;
pub(crate) const ARGS: u32 = 16;

/// `__X32_SYSCALL_BIT` (`<asm/unistd.h>`): x32 has the architecture word of x86-64 and numbers with this bit.
pub(crate) const X32_BIT: u32 = 0x4000_0000;

/// What a run of numbers gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Leaf {
    base: Base,
    /// What of it goes to the guard, if it is allowed.
    handed: Option<When>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Base {
    Fixed(Verdict),
    /// Index into the conditional rows of the policy.
    Rule(usize),
}

impl Base {
    fn may_allow(self) -> bool {
        matches!(self, Self::Rule(_) | Self::Fixed(Verdict::Allow))
    }
}

/// What is compiled.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Policy {
    /// That of a cell.
    Cell(Profile),
    /// That of a cell with a guard.
    Guarded(Profile),
    /// That of a process of ours.
    Own(&'static Own),
}

impl From<Profile> for Policy {
    fn from(profile: Profile) -> Self {
        Self::Cell(profile)
    }
}

impl Policy {
    fn leaf(self, name: &str) -> Leaf {
        let base = self.base(name);
        let handed = match self {
            Self::Guarded(_) if base.may_allow() => guard::when(name),
            _ => None,
        };
        Leaf { base, handed }
    }

    fn base(self, name: &str) -> Base {
        match self {
            Self::Cell(profile) | Self::Guarded(profile) => {
                if let Some(index) = CONDITIONAL.iter().position(|rule| rule.name == name) {
                    return Base::Rule(index);
                }
                let group = GROUPS.iter().find(|group| group.names.contains(&name));
                Base::Fixed(group.map_or(DEFAULT, |group| group.under(profile)))
            }
            Self::Own(own) => {
                if let Some(index) = own.when.iter().position(|(_, call, _)| *call == name) {
                    return Base::Rule(index);
                }
                let allowed = own.allow.iter().any(|(_, names)| names.contains(&name));
                Base::Fixed(if allowed { Verdict::Allow } else { DEFAULT })
            }
        }
    }

    /// A conditional row: its alternatives, what happens if one holds, and if none does.
    fn rule(self, index: usize) -> Option<(AnyOf, Verdict, Verdict)> {
        match self {
            Self::Cell(profile) | Self::Guarded(profile) => {
                CONDITIONAL.get(index).map(|rule| (rule.under(profile), rule.then, rule.otherwise))
            }
            Self::Own(own) => own.when.get(index).map(|(_, _, when)| (*when, Verdict::Allow, Verdict::Errno(EPERM))),
        }
    }
}

/// The program for all ABIs of `arch` together.
#[must_use]
pub(crate) fn program(policy: impl Into<Policy>, arch: Arch) -> Vec<Instruction> {
    let policy = policy.into();
    let [native, compat] = arch.abis();
    let mut code = Code::default();
    let kill = code.ret(KILL);
    let second = match policy {
        Policy::Cell(_) | Policy::Guarded(_) => body(&mut code, policy, compat),
        // We make no such call.
        Policy::Own(_) => code.ret(value(DEFAULT)),
    };
    let second = code.branch(JEQ, compat.audit, second, kill);
    let first = body(&mut code, policy, native);
    let start = code.branch(JEQ, native.audit, first, second);
    code.load(ARCH, start);
    code.finish()
}

/// The verdicts of one ABI.
fn body(code: &mut Code, policy: Policy, abi: Abi) -> Label {
    let mut root = search(code, policy, &runs(policy, abi.column));
    if abi.column == Column::X86_64 {
        let x32 = code.ret(value(X32));
        root = code.branch(JGE, X32_BIT, x32, root);
    }
    code.load(NR, root)
}

/// Where each run of numbers with one verdict begins; the first begins at 0.
fn runs(policy: Policy, column: Column) -> Vec<(u32, Leaf)> {
    let mut known: Vec<(u32, Leaf)> = NUMBERS
        .iter()
        .filter_map(|(name, numbers)| Some(((*numbers.get(column as usize)?)?, policy.leaf(name))))
        .collect();
    known.sort_unstable_by_key(|(number, _)| *number);
    let rest = Leaf { base: Base::Fixed(DEFAULT), handed: None };
    let mut runs: Vec<(u32, Leaf)> = Vec::new();
    let mut push = |start: u32, leaf: Leaf| {
        if runs.last().is_none_or(|(_, last)| *last != leaf) {
            runs.push((start, leaf));
        }
    };
    let mut next = 0;
    for (number, leaf) in known {
        if number > next {
            push(next, rest);
        }
        push(number, leaf);
        next = number + 1;
    }
    push(next, rest);
    runs
}

fn search(code: &mut Code, policy: Policy, runs: &[(u32, Leaf)]) -> Label {
    match *runs {
        [] => code.ret(value(DEFAULT)),
        [(_, Leaf { base: Base::Fixed(verdict), handed })] => end(code, verdict, handed),
        [(_, Leaf { base: Base::Rule(index), handed })] => rule(code, policy, index, handed),
        _ => {
            let (low, high) = runs.split_at(runs.len() / 2);
            let middle = high.first().map_or(0, |(start, _)| *start);
            let high = search(code, policy, high);
            let low = search(code, policy, low);
            code.branch(JGE, middle, high, low)
        }
    }
}

/// The alternatives one after the other, each a chain of tests that all have to hold.
fn rule(code: &mut Code, policy: Policy, index: usize, handed: Option<When>) -> Label {
    let Some((when, then, otherwise)) = policy.rule(index) else { return code.ret(value(DEFAULT)) };
    let mut next = end(code, otherwise, handed);
    for alternative in when.iter().rev() {
        let mut then = end(code, then, handed);
        for bits in alternative.iter().rev() {
            then = test(code, *bits, then, next);
        }
        next = then;
    }
    next
}

/// Looks at the low half of an argument only; see [`Bits`] for why.
fn test(code: &mut Code, bits: Bits, yes: Label, no: Label) -> Label {
    // Both of our architectures are little-endian.
    let offset = ARGS + 8 * u32::from(bits.arg);
    if bits.mask == u32::MAX {
        let no = code.past_load(offset, no);
        let branch = code.branch(JEQ, bits.value, yes, no);
        return code.load(offset, branch);
    }
    let branch = code.branch(JEQ, bits.value, yes, no);
    let and = code.push(Instruction { code: AND, jt: 0, jf: 0, k: bits.mask }, branch);
    code.load(offset, and)
}

/// A verdict, or the guard's part of what is allowed.
fn end(code: &mut Code, verdict: Verdict, handed: Option<When>) -> Label {
    match (verdict, handed) {
        (Verdict::Allow, Some(when)) => guard::hand_over(code, when),
        _ => code.ret(value(verdict)),
    }
}

fn value(verdict: Verdict) -> u32 {
    match verdict {
        Verdict::Allow => ALLOW,
        Verdict::Errno(errno) => ERRNO | u32::from(errno),
    }
}

/// An instruction's place, counted from the program's end.
pub(crate) type Label = usize;

/// Conditional jumps reach 255 instructions. Kept below that, as making one target near may move the other one away by one.
const REACH: usize = 250;

/// A program under construction, from its last instruction to its first.
#[derive(Default)]
pub(crate) struct Code {
    reversed: Vec<Instruction>,
    /// The latest place that returns each value.
    returns: Vec<(u32, Label)>,
}

impl Code {
    /// How far the next instruction would have to jump to get to `label`.
    fn distance(&self, label: Label) -> usize {
        self.reversed.len() - label - 1
    }

    fn add(&mut self, instruction: Instruction) -> Label {
        self.reversed.push(instruction);
        self.reversed.len() - 1
    }

    /// An instruction that goes on with `next`.
    pub(crate) fn push(&mut self, instruction: Instruction, next: Label) -> Label {
        if self.distance(next) != 0 {
            self.jump(next);
        }
        self.add(instruction)
    }

    /// An instruction that loads a word of `struct seccomp_data`.
    pub(crate) fn load(&mut self, offset: u32, next: Label) -> Label {
        self.push(Instruction { code: LOAD, jt: 0, jf: 0, k: offset }, next)
    }

    /// One that ends the program with `k`.
    pub(crate) fn ret(&mut self, k: u32) -> Label {
        let known = self.returns.iter().rev().find(|(value, _)| *value == k).map(|(_, label)| *label);
        if let Some(label) = known.filter(|label| self.distance(*label) < REACH) {
            return label;
        }
        let label = self.add(Instruction { code: RET, jt: 0, jf: 0, k });
        self.returns.push((k, label));
        label
    }

    /// One that goes on with `yes` or `no`.
    pub(crate) fn branch(&mut self, code: u16, k: u32, yes: Label, no: Label) -> Label {
        let yes = self.near(yes);
        let no = self.near(no);
        // `near` keeps both below 256.
        let [jt, jf] = [yes, no].map(|label| u8::try_from(self.distance(label)).unwrap_or(u8::MAX));
        self.add(Instruction { code, jt, jf, k })
    }

    /// A place within reach that leads to `label`: unconditional jumps go as far as it takes.
    fn near(&mut self, label: Label) -> Label {
        if self.distance(label) <= REACH { label } else { self.jump(label) }
    }

    fn jump(&mut self, label: Label) -> Label {
        // The kernel takes 4096 instructions: this always fits, and a test sees to the size.
        let k = u32::try_from(self.distance(label)).unwrap_or(u32::MAX);
        self.add(Instruction { code: JUMP, jt: 0, jf: 0, k })
    }

    /// What follows `label` if that only loads what is loaded already.
    fn past_load(&self, offset: u32, label: Label) -> Label {
        match self.reversed.get(label) {
            Some(Instruction { code: LOAD, k, .. }) if *k == offset && label > 0 => label - 1,
            _ => label,
        }
    }

    /// The program.
    pub(crate) fn finish(mut self) -> Vec<Instruction> {
        self.reversed.reverse();
        self.reversed
    }
}
