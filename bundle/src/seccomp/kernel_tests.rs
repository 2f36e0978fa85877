//! Does the kernel of this machine take the filters and act on them? A program is run with and without each filter and makes the
//! same calls, chosen so that the kernel by itself would answer otherwise: that shows that the probe works and the filter decides.

use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::time::Instant;

use serde_json::{Value, json};

use super::machine::Action;
use super::numbers::NUMBERS;
use super::table::Profile;
use super::tests::{PROFILES, expected};

/// The first asks `behind_a_filter` to act; the second is for the program it turns into.
const PROFILE: &str = "CELLBLOCK_TEST_PROFILE";
const PROBES: &str = "CELLBLOCK_TEST_PROBES";
const PYTHON: &str = "/usr/bin/python3";

/// No descriptor, no flags the kernel knows.
const BAD: u64 = u32::MAX as u64;

/// Native calls, each failing harmlessly or having no effect.
const NATIVE: &[(&str, &[u64])] = &[
    ("getpid", &[]),
    ("clone3", &[0, 0]),
    // CLONE_NEWUSER | CLONE_FS, which the kernel refuses as a contradiction.
    ("clone", &[0x1000_0200]),
    ("io_uring_setup", &[0, 0]),
    ("ioctl", &[BAD, 0x5412]),
    ("ioctl", &[BAD, 0x1_0000_5412]),
    ("ioctl", &[BAD, 0x5423]),
    ("ioctl", &[BAD, 0x5413]),
    ("keyctl", &[BAD]),
    ("pidfd_getfd", &[BAD, 0, 0]),
    ("process_vm_readv", &[0, 0, 0, 0, 0, BAD]),
    ("setns", &[BAD, 0]),
    ("socket", &[1, 1, 0]),
    ("socket", &[0xdead_0000_0001, 1, 0]),
    ("socket", &[2, 1, 0]),
    ("socket", &[16, 3, 0]),
    // AF_NETLINK with NETLINK_GENERIC, AF_PACKET; AF_ALG and AF_VSOCK with an impossible type.
    ("socket", &[16, 3, 16]),
    ("socket", &[17, BAD, 0]),
    ("socket", &[38, BAD, 0]),
    ("socket", &[40, BAD, 0]),
    ("unshare", &[BAD]),
    ("userfaultfd", &[BAD]),
];

/// The same by the 32-bit ABI.
const COMPAT: &[(&str, &[u64])] = &[
    ("getpid", &[]),
    ("clone3", &[0, 0]),
    ("io_uring_setup", &[0, 0]),
    ("ioctl", &[BAD, 0x5412]),
    ("ioctl", &[BAD, 0x5413]),
    ("keyctl", &[BAD]),
    ("socket", &[1, 1, 0]),
    ("socket", &[38, BAD, 0]),
    ("socketcall", &[1, 0]),
    ("unshare", &[BAD]),
];

/// Numbers of no call: one that Linux has not given out, and `getpid` of x32.
const NOBODY: &[u32] = &[1000, 0x4000_0027];

/// What the program that makes `probes` has to say, in the filter of `profile` or in none.
fn ask(profile: Option<Profile>, probes: &Value) -> Vec<Option<i64>> {
    let mut command = match profile {
        None => probe(&probes.to_string()),
        Some(profile) => {
            let mut command = Command::new(std::env::current_exe().unwrap());
            command.args(["--exact", "seccomp::kernel_tests::behind_a_filter", "--ignored", "--nocapture"]);
            command.env(PROFILE, format!("{profile:?}")).env(PROBES, probes.to_string());
            command
        }
    };
    let output = command.output().unwrap();
    assert!(output.status.success(), "{profile:?}: {output:?}");
    let stdout = String::from_utf8(output.stdout).unwrap();
    println!("{profile:?}: {}", String::from_utf8_lossy(&output.stderr).trim());
    // libtest has said its part before.
    let (_, answer) = stdout.rsplit_once('\n').unwrap_or(("", &stdout));
    serde_json::from_str(answer).unwrap_or_else(|error| panic!("{error}: {stdout}"))
}

fn probe(probes: &str) -> Command {
    let mut command = Command::new(PYTHON);
    command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/seccomp/probe.py")).arg(probes);
    command
}

/// Not a test: loads a filter and becomes the program that makes the calls. Filters belong to the thread that loads them, and the one
/// that execs is the one that stays.
#[test]
#[ignore = "a part of `the_kernel_acts_on_the_filters`"]
fn behind_a_filter() {
    let Some(profile) = std::env::var(PROFILE).ok().and_then(|n| PROFILES.into_iter().find(|p| format!("{p:?}") == n))
    else {
        return;
    };
    let mut command = probe(&std::env::var(PROBES).unwrap());
    rustix::thread::set_no_new_privs(true).unwrap();
    let start = Instant::now();
    let program = super::program(profile, false);
    cellblock_sys::seccomp::load(program.instructions().iter().map(|i| (i.code, i.jt, i.jf, i.k))).unwrap();
    eprintln!("loaded {} instructions in {:?}", program.instructions().len(), start.elapsed());
    panic!("{PYTHON}: {}", command.exec());
}

#[test]
fn the_kernel_acts_on_the_filters() {
    if !std::path::Path::new(PYTHON).exists() {
        assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "in CI this must run: no {PYTHON}");
        println!("SKIP: filters not loaded: no {PYTHON}");
        return;
    }
    let [native, compat] = super::NATIVE.abis();
    let mut calls: Vec<(&str, u32, bool, [u64; 6])> = Vec::new();
    for (compat, column, list) in [(false, native.column, NATIVE), (true, compat.column, COMPAT)] {
        for (name, args) in list {
            let (_, numbers) = NUMBERS.iter().find(|(known, _)| known == name).unwrap();
            let mut six = [0; 6];
            six[..args.len()].copy_from_slice(args);
            calls.extend(numbers[column as usize].map(|nr| (*name, nr, compat, six)));
        }
    }
    let probes: Vec<Value> =
        calls.iter().map(|(_, nr, compat, args)| json!({"nr": nr, "compat": compat, "args": args})).collect();
    let nobody = NOBODY.iter().map(|nr| json!({"nr": nr, "compat": false, "args": []}));
    let probes: Value = probes.into_iter().chain(nobody).collect();

    let bare = ask(None, &probes);
    for profile in PROFILES {
        let filtered = ask(Some(profile), &probes);
        for (index, (name, _, compat, args)) in calls.iter().enumerate() {
            let (Some(bare), Some(said)) = (bare[index], filtered[index]) else {
                assert!(*compat, "{name} said nothing");
                println!("SKIP: {name}: this kernel has no 32-bit ABI");
                continue;
            };
            match expected(profile, name, args) {
                Action::Errno(errno) => {
                    assert_eq!(said, -i64::from(errno), "{profile:?} compat: {compat} {name} {args:x?}");
                    // Where the kernel refuses in the same way (no keyrings, io_uring or such family in it), the probe shows nothing.
                    if bare == said {
                        println!("NOTE: {name} {args:x?} fails the same without a filter here");
                    }
                }
                _ => assert_eq!(said, bare, "{profile:?} compat: {compat} {name} {args:x?}"),
            }
        }
        assert_eq!(filtered[calls.len()..], [Some(-38), Some(-38)], "calls that nobody has");
    }
    let shown = calls.iter().zip(&bare).filter(|((name, _, compat, args), bare)| {
        let verdict = expected(Profile::Default, name, args);
        !compat && matches!(verdict, Action::Errno(errno) if **bare != Some(-i64::from(errno)))
    });
    assert!(shown.count() >= 8, "too few calls where the filter makes the difference");
}
