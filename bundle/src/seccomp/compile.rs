//! From verdicts on system call numbers to classic BPF (seccomp(2), `<linux/bpf_common.h>`).
//!
//! The program tells the ABI by the architecture word, then finds the number by binary search over ranges with the same verdict, so a
//! call costs about ten instructions. Also compiled into the build script.

/// One instruction, as the kernel's `struct sock_filter`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Instruction {
    /// Operation.
    pub code: u16,
    /// Jump distance if true.
    pub jt: u8,
    /// Jump distance if false.
    pub jf: u8,
    /// Operand.
    pub k: u32,
}

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
/// `SECCOMP_RET_KILL_PROCESS`: for an ABI that should not exist at all.
pub(crate) const KILL: u32 = 0x8000_0000;

/// Offsets in `struct seccomp_data`.
const NR: u32 = 0;
const ARCH: u32 = 4;
const ARGS: u32 = 16;

use super::table::{CONDITIONAL, DEFAULT, GROUPS, Profile, Test, Verdict};

/// One ABI of an architecture.
#[derive(Debug)]
pub struct Abi {
    /// `AUDIT_ARCH_*` (`<linux/audit.h>`).
    pub audit: u32,
    /// Numbers with this bit belong to an ABI inside the ABI (x32) that a cell does not have.
    pub foreign_bit: Option<u32>,
    /// The number of a call, if the ABI has it.
    pub number: fn(&str) -> Option<u32>,
}

/// What a range of numbers gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Leaf {
    Fixed(Verdict),
    /// Index into [`CONDITIONAL`].
    Rule(usize),
}

/// The program for all `abis` together.
#[must_use]
pub fn program(profile: Profile, abis: &[Abi]) -> Vec<Instruction> {
    let mut code = vec![load(ARCH)];
    for abi in abis {
        let body = body(profile, abi);
        code.push(Instruction { code: JEQ, jt: 0, jf: 1, k: abi.audit });
        code.push(jump(1));
        code.push(jump(body.len()));
        code.extend(body);
    }
    code.push(ret(KILL));
    code
}

fn body(profile: Profile, abi: &Abi) -> Vec<Instruction> {
    let mut code = vec![load(NR)];
    if let Some(bit) = abi.foreign_bit {
        code.push(Instruction { code: JGE, jt: 0, jf: 1, k: bit });
        code.push(ret(value(DEFAULT)));
    }
    code.extend(search(profile, &ranges(profile, abi)));
    code
}

/// Where each run of numbers with one verdict begins; the first begins at 0.
fn ranges(profile: Profile, abi: &Abi) -> Vec<(u32, Leaf)> {
    let fixed = GROUPS.iter().flat_map(|g| g.names.iter().map(move |n| (*n, Leaf::Fixed(g.under(profile)))));
    let rules = CONDITIONAL.iter().enumerate().map(|(i, c)| (c.name, Leaf::Rule(i)));
    let mut known: Vec<(u32, Leaf)> = fixed.chain(rules).filter_map(|(name, leaf)| Some(((abi.number)(name)?, leaf))).collect();
    known.sort_unstable_by_key(|(number, _)| *number);
    let rest = Leaf::Fixed(DEFAULT);
    let mut ranges = vec![(0, rest)];
    let mut next = 0;
    let mut push = |start: u32, leaf: Leaf| match ranges.last_mut() {
        Some(last) if last.1 == leaf => {}
        Some(last) if last.0 == start => last.1 = leaf,
        _ => ranges.push((start, leaf)),
    };
    for (number, leaf) in known {
        if number > next {
            push(next, rest);
        }
        push(number, leaf);
        next = number + 1;
    }
    push(next, rest);
    ranges
}

fn search(profile: Profile, ranges: &[(u32, Leaf)]) -> Vec<Instruction> {
    match ranges {
        [] => vec![ret(value(DEFAULT))],
        [(_, Leaf::Fixed(verdict))] => vec![ret(value(*verdict))],
        [(_, Leaf::Rule(index))] => CONDITIONAL.get(*index).map_or_else(Vec::new, |c| {
            let mut code: Vec<_> = c.under(profile).iter().flat_map(test).collect();
            code.push(ret(value(Verdict::Errno(c.otherwise))));
            code
        }),
        _ => {
            let (low, high) = ranges.split_at(ranges.len() / 2);
            let middle = high.first().map_or(0, |(start, _)| *start);
            let (low, high) = (search(profile, low), search(profile, high));
            let mut code = match u8::try_from(low.len()) {
                Ok(distance) => vec![Instruction { code: JGE, jt: distance, jf: 0, k: middle }],
                // Conditional jumps reach 255 instructions; unconditional ones as far as it takes.
                Err(_) => vec![Instruction { code: JGE, jt: 0, jf: 1, k: middle }, jump(low.len())],
            };
            code.extend(low);
            code.extend(high);
            code
        }
    }
}

/// Returns "allow" if the test holds, else falls through.
fn test(test: &Test) -> Vec<Instruction> {
    match *test {
        Test::NoBits { arg, mask } => {
            vec![load(low(arg)), Instruction { code: AND, jt: 0, jf: 0, k: mask }, if_equal(0, 0, 1), ret(ALLOW)]
        }
        Test::Is { arg, value } => vec![load(high(arg)), if_equal(0, 0, 3), load(low(arg)), if_equal(value, 0, 1), ret(ALLOW)],
        Test::Both { first, second } => vec![
            load(high(first.0)),
            if_equal(0, 0, 7),
            load(low(first.0)),
            if_equal(first.1, 0, 5),
            load(high(second.0)),
            if_equal(0, 0, 3),
            load(low(second.0)),
            if_equal(second.1, 0, 1),
            ret(ALLOW),
        ],
        Test::NotLow { arg, values } => {
            let mut code = vec![load(low(arg))];
            for (index, value) in values.iter().enumerate() {
                let over = u8::try_from(values.len() - index).unwrap_or(u8::MAX);
                code.push(if_equal(*value, over, 0));
            }
            code.push(ret(ALLOW));
            code
        }
    }
}

/// The low half of an argument: both of our architectures are little-endian.
fn low(arg: u8) -> u32 {
    ARGS + 8 * u32::from(arg)
}

fn high(arg: u8) -> u32 {
    low(arg) + 4
}

fn load(offset: u32) -> Instruction {
    Instruction { code: LOAD, jt: 0, jf: 0, k: offset }
}

fn ret(k: u32) -> Instruction {
    Instruction { code: RET, jt: 0, jf: 0, k }
}

fn jump(distance: usize) -> Instruction {
    Instruction { code: JUMP, jt: 0, jf: 0, k: u32::try_from(distance).unwrap_or(u32::MAX) }
}

fn if_equal(k: u32, jt: u8, jf: u8) -> Instruction {
    Instruction { code: JEQ, jt, jf, k }
}

fn value(verdict: Verdict) -> u32 {
    match verdict {
        Verdict::Allow => ALLOW,
        Verdict::Errno(errno) => ERRNO | u32::from(errno),
    }
}
