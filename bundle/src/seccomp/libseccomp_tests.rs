//! Does the exported section mean what our own filter does? libseccomp compiles it, and both programs are asked about every number
//! of every ABI. The same run compares our table of numbers with libseccomp's.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::process::{Command, Stdio};

use serde::Deserialize;
use serde_json::json;

use super::abi::Arch;
use super::compile::{self, X32_BIT};
use super::instruction::Instruction;
use super::machine::{self, Action, Call};
use super::numbers::NUMBERS;
use super::table::{CONDITIONAL, ENOSYS, Profile};
use super::tests::{ARCHES, PROFILES, arguments, holds, names, numbers};

/// Calls newer than the tables of libseccomp 2.5.4 (Linux 5.17), which may have no name for them. For these the exported section can only come
/// to the default action; what our own filter says of them, `the_program_says_what_the_table_says` compares with the table.
const NEWER_THAN_LIBSECCOMP: &[&str] = &[
    "cachestat",
    "fchmodat2",
    "file_getattr",
    "file_setattr",
    "futex_requeue",
    "futex_wait",
    "futex_wake",
    "getxattrat",
    "listmount",
    "listxattrat",
    "lsm_get_self_attr",
    "lsm_list_modules",
    "lsm_set_self_attr",
    "map_shadow_stack",
    "mseal",
    "open_tree_attr",
    "removexattrat",
    "setxattrat",
    "statmount",
    "uprobe",
    "uretprobe",
];

#[derive(Deserialize)]
struct Answer {
    bpf: String,
    unknown: Vec<String>,
    numbers: BTreeMap<String, BTreeMap<String, i64>>,
}

/// None, having said so, where libseccomp's Python binding is missing; in CI that is a failure.
fn libseccomp(profile: Profile, arch: Arch) -> Option<Answer> {
    let question = json!({
        "section": super::oci::section(profile, arch),
        "names": NUMBERS.iter().map(|(name, _)| *name).collect::<Vec<_>>(),
    });
    // Debian's package is for the system's own Python, which need not be the first one in PATH.
    let child = Command::new("/usr/bin/python3")
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/seccomp/libseccomp.py"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn();
    let mut child = match child {
        Ok(child) => child,
        Err(error) => return skip(&error.to_string()),
    };
    child.stdin.take().unwrap().write_all(question.to_string().as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    if output.status.code() == Some(77) {
        return skip("no Python module seccomp (Debian: python3-seccomp)");
    }
    assert!(output.status.success(), "libseccomp.py: {}", output.status);
    Some(serde_json::from_slice(&output.stdout).unwrap())
}

fn skip<T>(why: &str) -> Option<T> {
    assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "in CI this must run: {why}");
    println!("SKIP: not compared with libseccomp: {why}");
    None
}

fn program(hex: &str) -> Vec<Instruction> {
    let bytes: Vec<u8> =
        (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect();
    let (whole, rest) = bytes.as_chunks::<8>();
    assert!(rest.is_empty());
    whole.iter().map(Instruction::from_bytes).collect()
}

/// Whether no alternative of a conditional row holds, which OCI cannot give an errno of its own.
fn is_otherwise(profile: Profile, name: &str, args: &[u64; 6]) -> bool {
    CONDITIONAL.iter().find(|rule| rule.name == name).is_some_and(|rule| !holds(rule.under(profile), args))
}

#[test]
fn the_exported_section_means_the_same() {
    for (profile, arch) in PROFILES.into_iter().flat_map(|profile| ARCHES.map(|arch| (profile, arch))) {
        let Some(answer) = libseccomp(profile, arch) else { return };
        let surprising: Vec<_> =
            answer.unknown.iter().filter(|n| !NEWER_THAN_LIBSECCOMP.contains(&n.as_str())).collect();
        assert!(surprising.is_empty(), "libseccomp does not know {surprising:?}");
        let ours = compile::program(profile, arch);
        let theirs = program(&answer.bpf);
        for abi in arch.abis() {
            let names = names(abi.column);
            for nr in numbers() {
                let name = names.get(&nr).copied().unwrap_or("");
                let unknown = answer.unknown.iter().any(|n| n == name);
                for args in arguments(name) {
                    let call = Call { audit: abi.audit, nr, args };
                    let [ours, theirs] = [&ours, &theirs].map(|program| machine::run(program, &call));
                    let left_out = ours != Action::Allow && is_otherwise(profile, name, &args);
                    let ours = if unknown || left_out { Action::Errno(ENOSYS) } else { ours };
                    assert_eq!(ours, theirs, "{profile:?} {abi:?} {nr} {name} {args:x?}");
                }
            }
        }
    }
}

/// The one difference that is left: OCI cannot give an ABI that is not listed an errno.
#[test]
fn the_exported_section_ends_x32_processes() {
    let Some(answer) = libseccomp(Profile::Default, Arch::X86_64) else { return };
    let theirs = program(&answer.bpf);
    let audit = Arch::X86_64.abis()[0].audit;
    for nr in numbers().map(|nr| nr | X32_BIT) {
        assert_eq!(machine::run(&theirs, &Call { audit, nr, args: [0; 6] }), Action::Kill);
    }
}

#[test]
fn our_numbers_are_those_of_libseccomp() {
    for arch in ARCHES {
        let Some(answer) = libseccomp(Profile::Default, arch) else { return };
        for abi in arch.abis() {
            let theirs = &answer.numbers[abi.oci];
            assert!(theirs.len() > 400, "the comparison is empty");
            for (name, numbers) in NUMBERS {
                let Some(number) = theirs.get(*name) else { continue };
                let ours = numbers[abi.column as usize].map(i64::from);
                // libseccomp gives the calls that a multiplexer of i386 carries out the number of the multiplexer.
                let multiplexer = ["socketcall", "ipc"].iter().find(|name| theirs.get(**name) == Some(number));
                if abi.oci == "SCMP_ARCH_X86" && multiplexer.is_some_and(|multiplexer| multiplexer != name) {
                    continue;
                }
                // Negative: libseccomp's way to say that the ABI lacks it.
                assert_eq!(ours, Some(*number).filter(|number| *number >= 0), "{} {name}", abi.oci);
            }
        }
    }
}
