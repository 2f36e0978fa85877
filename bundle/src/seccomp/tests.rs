//! Is the policy what it claims to be: complete, free of repetition, with reasons; and does the program say the same?

use std::collections::{BTreeMap, BTreeSet};

use sha2::{Digest, Sha256};

use super::abi::{Arch, Column};
use super::compile::{self, X32_BIT};
use super::machine::{self, Action, Call};
use super::numbers::NUMBERS;
use super::table::{AnyOf, Bits, CONDITIONAL, DEFAULT, EAFNOSUPPORT, ENOSYS, EPERM, GROUPS, Profile, Verdict};

pub(super) const PROFILES: [Profile; 3] = [Profile::Default, Profile::Strict, Profile::Nested];
pub(super) const ARCHES: [Arch; 2] = [Arch::X86_64, Arch::Aarch64];

/// Whether one of the alternatives holds.
pub(super) fn holds(when: AnyOf, args: &[u64; 6]) -> bool {
    let holds = |b: &Bits| args[usize::from(b.arg)] & u64::from(b.mask) == u64::from(b.value);
    when.iter().any(|tests| tests.iter().all(holds))
}

/// What the table says, without the compiler's help.
pub(super) fn expected(profile: Profile, name: &str, args: &[u64; 6]) -> Action {
    let verdict = match CONDITIONAL.iter().find(|rule| rule.name == name) {
        Some(rule) => {
            if holds(rule.under(profile), args) {
                rule.then
            } else {
                rule.otherwise
            }
        }
        None => GROUPS.iter().find(|g| g.names.contains(&name)).map_or(DEFAULT, |g| g.under(profile)),
    };
    match verdict {
        Verdict::Allow => Action::Allow,
        Verdict::Errno(errno) => Action::Errno(errno),
    }
}

/// The calls of an ABI by number.
pub(super) fn names(column: Column) -> BTreeMap<u32, &'static str> {
    NUMBERS.iter().filter_map(|(name, numbers)| Some((numbers[column as usize]?, *name))).collect()
}

/// Every number below 1101, and around ARM's private ones.
pub(super) fn numbers() -> impl Iterator<Item = u32> {
    (0..=1100).chain(0x000f_0000..=0x000f_0010)
}

/// Arguments at which the verdict on `name` may turn: the values asked for, each with one bit changed, and with a stray upper half.
pub(super) fn arguments(name: &str) -> Vec<[u64; 6]> {
    let mut all = vec![[0; 6], [u64::MAX; 6]];
    let Some(rule) = CONDITIONAL.iter().find(|rule| rule.name == name) else { return all };
    let tests: Vec<Bits> = PROFILES.iter().flat_map(|p| rule.under(*p)).copied().flatten().copied().collect();
    let mut some = vec![[0; 6]];
    for arg in tests.iter().map(|b| b.arg).collect::<BTreeSet<_>>() {
        let values: BTreeSet<u64> = tests
            .iter()
            .filter(|b| b.arg == arg)
            .flat_map(|b| (0..32).map(|bit| b.value ^ (1 << bit)).chain([b.value, b.mask, !b.mask, 17, 99]))
            .flat_map(|low| [0, 1 << 32, 0xffff_ffff << 32].map(|high| u64::from(low) | high))
            .collect();
        some = some
            .iter()
            .flat_map(|args| {
                values.iter().map(move |value| {
                    let mut args = *args;
                    args[usize::from(arg)] = *value;
                    args
                })
            })
            .collect();
    }
    all.append(&mut some);
    all
}

#[test]
fn every_known_call_is_decided_on_exactly_once() {
    let groups = GROUPS.iter().flat_map(|g| g.names).copied();
    let mut rows: BTreeMap<&str, usize> = BTreeMap::new();
    groups.chain(CONDITIONAL.iter().map(|c| c.name)).for_each(|name| *rows.entry(name).or_default() += 1);
    let twice: Vec<_> = rows.iter().filter(|(_, count)| **count > 1).collect();
    assert!(twice.is_empty(), "named in two rows: {twice:?}");
    let known: BTreeSet<&str> = NUMBERS.iter().map(|(name, _)| *name).collect();
    let named: BTreeSet<&str> = rows.into_keys().collect();
    assert_eq!(known.difference(&named).collect::<Vec<_>>(), [] as [&&str; 0], "not decided on");
    assert_eq!(named.difference(&known).collect::<Vec<_>>(), [] as [&&str; 0], "no ABI has them");
}

#[test]
fn every_row_has_a_reason_of_its_own() {
    let reasons: Vec<&str> = GROUPS.iter().map(|g| g.why).chain(CONDITIONAL.iter().map(|c| c.why)).collect();
    assert!(reasons.iter().all(|why| why.len() > 10));
    assert_eq!(reasons.iter().collect::<BTreeSet<_>>().len(), reasons.len());
}

#[test]
fn rows_are_in_order_so_that_they_can_be_found() {
    assert!(NUMBERS.is_sorted_by_key(|(name, _)| name));
    for group in GROUPS {
        assert!(group.names.is_sorted(), "{}", group.why);
    }
}

#[test]
fn no_number_has_two_names() {
    for arch in ARCHES {
        for abi in arch.abis() {
            let count = NUMBERS.iter().filter(|(_, numbers)| numbers[abi.column as usize].is_some()).count();
            assert_eq!(count, names(abi.column).len(), "{abi:?}");
        }
    }
}

#[test]
fn the_kernel_would_take_every_program() {
    for (profile, arch) in all() {
        machine::check(&compile::program(profile, arch));
    }
}

#[test]
fn the_embedded_programs_are_those_of_this_machine() {
    for profile in PROFILES {
        assert_eq!(super::program(profile, false).instructions(), compile::program(profile, super::NATIVE));
        let guarded = compile::program(compile::Policy::Guarded(profile), super::NATIVE);
        assert_eq!(super::program(profile, true).instructions(), guarded);
    }
}

#[test]
fn the_program_says_what_the_table_says() {
    for (profile, arch) in all() {
        let program = compile::program(profile, arch);
        for abi in arch.abis() {
            let names = names(abi.column);
            for nr in numbers() {
                let name = names.get(&nr).copied().unwrap_or("");
                for args in arguments(name) {
                    let said = machine::run(&program, &Call { audit: abi.audit, nr, args });
                    assert_eq!(said, expected(profile, name, &args), "{profile:?} {abi:?} {nr} {name} {args:x?}");
                }
            }
        }
    }
}

#[test]
fn no_x32_call_is_there() {
    for profile in PROFILES {
        let program = compile::program(profile, Arch::X86_64);
        let audit = Arch::X86_64.abis()[0].audit;
        // All bits set is what a tracer puts in the place of a call to be skipped.
        for nr in numbers().map(|nr| nr | X32_BIT).chain([u32::MAX]) {
            let said = machine::run(&program, &Call { audit, nr, args: [1; 6] });
            assert_eq!(said, Action::Errno(ENOSYS), "{nr:#x}");
        }
    }
}

#[test]
fn a_foreign_architecture_ends_the_process() {
    for (profile, arch) in all() {
        let program = compile::program(profile, arch);
        let native = arch.abis().map(|abi| abi.audit);
        let foreign =
            ARCHES.iter().flat_map(|arch| arch.abis()).map(|abi| abi.audit).filter(|audit| !native.contains(audit));
        for audit in foreign.chain([0, u32::MAX]) {
            for nr in 0..600 {
                assert_eq!(machine::run(&program, &Call { audit, nr, args: [0; 6] }), Action::Kill);
            }
        }
    }
}

/// What the threat model promises, call by call, so that no edit of the table loses it by accident.
#[test]
fn promises() {
    const NONE: [u64; 6] = [0; 6];
    let first = |value: u64| [value, 0, 0, 0, 0, 0];
    let second = |value: u64| [0, value, 0, 0, 0, 0];
    let denied = [
        "add_key",
        "bpf",
        "fsopen",
        "init_module",
        "io_uring_setup",
        "kexec_load",
        "keyctl",
        "mount",
        "move_mount",
        "open_by_handle_at",
        "open_tree",
        "perf_event_open",
        "pivot_root",
        "reboot",
        "request_key",
        "setns",
        "socketcall",
        "unshare",
        "userfaultfd",
    ];
    for profile in [Profile::Default, Profile::Strict] {
        for name in denied {
            assert_eq!(expected(profile, name, &NONE), Action::Errno(EPERM), "{name}");
        }
        assert_eq!(expected(profile, "clone3", &NONE), Action::Errno(ENOSYS));
        assert_eq!(expected(profile, "clone", &first(0x1000_0011)), Action::Errno(EPERM), "CLONE_NEWUSER");
        assert_eq!(expected(profile, "clone", &first(0x003d_0f00)), Action::Allow, "pthread_create");
        for family in [3, 4, 5, 15, 17, 21, 29, 30, 31, 38, 40, 43, 44] {
            assert_eq!(expected(profile, "socket", &first(family)), Action::Errno(EAFNOSUPPORT), "{family}");
        }
        for family in [1, 2, 10, 16] {
            assert_eq!(expected(profile, "socket", &first(family)), Action::Allow, "{family}");
        }
        assert_eq!(expected(profile, "socket", &[16, 3, 12, 0, 0, 0]), Action::Errno(EAFNOSUPPORT), "netfilter");
        for cmd in [0x5412, 0x1_0000_5412, 0x541c, 0x5423] {
            assert_eq!(expected(profile, "ioctl", &second(cmd)), Action::Errno(EPERM), "{cmd:#x}");
        }
        assert_eq!(expected(profile, "ioctl", &second(0x5413)), Action::Allow, "TIOCGWINSZ");
    }
    assert_eq!(expected(Profile::Default, "ptrace", &NONE), Action::Allow);
    assert_eq!(expected(Profile::Strict, "ptrace", &NONE), Action::Errno(EPERM));
    assert_eq!(expected(Profile::Nested, "unshare", &NONE), Action::Allow);
    assert_eq!(expected(Profile::Nested, "keyctl", &NONE), Action::Errno(EPERM));
}

#[test]
fn a_profile_differs_from_default_only_where_it_says_so() {
    for (name, _) in NUMBERS {
        for args in arguments(name) {
            let [default, strict, nested] = PROFILES.map(|profile| expected(profile, name, &args));
            assert!(strict == default || strict == Action::Errno(EPERM), "strict grants {name}");
            assert!(nested == default || nested == Action::Allow, "nested takes {name}");
        }
    }
}

/// A change of what a cell may do shows up here. If it is meant: copy the new figures.
#[test]
fn golden() {
    let found: Vec<_> = all()
        .map(|(profile, arch)| {
            let program = compile::program(profile, arch);
            let bytes: Vec<u8> = program.iter().flat_map(|i| i.to_bytes()).collect();
            let digest: String = Sha256::digest(bytes).iter().take(8).map(|byte| format!("{byte:02x}")).collect();
            format!("{profile:?} {arch:?}: {} instructions, sha256 {digest}", program.len())
        })
        .collect();
    assert_eq!(found, GOLDEN);
}

const GOLDEN: [&str; 6] = [
    "Default X86_64: 276 instructions, sha256 42d440a429b2f324",
    "Default Aarch64: 293 instructions, sha256 1359b86d7543dad6",
    "Strict X86_64: 282 instructions, sha256 f98419da473c0d3d",
    "Strict Aarch64: 298 instructions, sha256 bc16c8312c300273",
    "Nested X86_64: 248 instructions, sha256 cf9dc061d4843bb0",
    "Nested Aarch64: 260 instructions, sha256 f2494b57c523f131",
];

fn all() -> impl Iterator<Item = (Profile, Arch)> {
    PROFILES.into_iter().flat_map(|profile| ARCHES.map(|arch| (profile, arch)))
}
