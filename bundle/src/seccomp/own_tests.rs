//! The policies of our own processes: what they say, and that the compiled programs say the same.

use super::abi::{Arch, Column};
use super::compile::{self, Policy};
use super::machine::{self, Action, Call};
use super::own::{NETWORK, Own, WHO};
use super::table::{ENOSYS, EPERM};
use super::tests::{holds, names, numbers};

const ALL: [&Own; 2] = [&NETWORK, &WHO];

/// What the table says.
fn expected(own: &Own, name: &str, args: &[u64; 6]) -> Action {
    match own.when.iter().find(|(_, call, _)| *call == name) {
        Some((_, _, when)) if holds(when, args) => Action::Allow,
        Some(_) => Action::Errno(EPERM),
        None if own.allow.iter().any(|(_, names)| names.contains(&name)) => Action::Allow,
        None => Action::Errno(ENOSYS),
    }
}

#[test]
fn the_program_says_what_the_table_says() {
    let arguments = [
        [0; 6],
        [1; 6],
        [2, 1, 2, 0, 0, 0],
        [16, 3, 0, 0, 0, 0],
        [0x0001_0f00, 0x5421, 4, 0, 0, 0],
        [15, 0x5412, 6, 0, 0, 0],
        [0x1001_0000, 0, 0o100, 0, 0, 0],
    ];
    for own in ALL {
        for arch in [Arch::X86_64, Arch::Aarch64] {
            let program = compile::program(Policy::Own(own), arch);
            machine::check(&program);
            let [native, compat] = arch.abis();
            let names = names(native.column);
            for nr in numbers() {
                let name = names.get(&nr).copied().unwrap_or("");
                for args in arguments {
                    let said = machine::run(&program, &Call { audit: native.audit, nr, args });
                    assert_eq!(said, expected(own, name, &args), "{name} {args:x?}");
                    let said = machine::run(&program, &Call { audit: compat.audit, nr, args });
                    assert_eq!(said, Action::Errno(ENOSYS), "by another ABI: {nr}");
                }
            }
        }
    }
    assert_eq!(super::network().instructions(), compile::program(Policy::Own(&NETWORK), super::NATIVE));
    assert_eq!(super::who().instructions(), compile::program(Policy::Own(&WHO), super::NATIVE));
}

#[test]
fn every_call_that_is_named_is_one() {
    let known: Vec<&str> = names(Column::X86_64).into_values().collect();
    for own in ALL {
        let mut all: Vec<&str> = own.allow.iter().flat_map(|(_, names)| names.iter().copied()).collect();
        all.extend(own.when.iter().map(|(_, name, _)| *name));
        let count = all.len();
        assert!(all.iter().all(|name| known.contains(name)), "{all:?}");
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), count, "each once");
    }
}

#[test]
fn what_would_be_a_way_out_is_closed() {
    for own in ALL {
        for name in [
            "execve",
            "execveat",
            "fork",
            "vfork",
            "clone3",
            "ptrace",
            "process_vm_readv",
            "process_vm_writev",
            "pidfd_getfd",
            "setns",
            "unshare",
            "mount",
            "umount2",
            "pivot_root",
            "chroot",
            "move_mount",
            "open_tree",
            "fsopen",
            "bpf",
            "io_uring_setup",
            "userfaultfd",
            "keyctl",
            "kill",
            "tkill",
            "tgkill",
            "pidfd_send_signal",
            "rt_sigqueueinfo",
            "setuid",
            "setresuid",
            "capset",
            "memfd_create",
            "unlink",
            "unlinkat",
            "mkdir",
            "mkdirat",
            "link",
            "linkat",
            "symlink",
            "symlinkat",
            "chmod",
            "fchmod",
            "open_by_handle_at",
        ] {
            assert_eq!(expected(own, name, &[0; 6]), Action::Errno(ENOSYS), "{name}");
        }
        // A process, a namespace for a thread, memory to write and execute.
        assert_eq!(expected(own, "mmap", &[0, 4096, 6, 0x22, 0, 0]), Action::Errno(EPERM));
        assert_eq!(expected(own, "mprotect", &[0, 4096, 5, 0, 0, 0]), Action::Errno(EPERM));
    }
    for flags in [17, 0x1000_0011, 0x1001_0f00, 0x4001_0f00] {
        assert_eq!(expected(&NETWORK, "clone", &[flags, 0, 0, 0, 0, 0]), Action::Errno(EPERM), "{flags:x}");
    }
    assert_eq!(expected(&NETWORK, "clone", &[0x003d_0f00, 0, 0, 0, 0, 0]), Action::Allow, "a thread of the C library");
    for family in [17, 40, 38] {
        assert_eq!(expected(&NETWORK, "socket", &[family, 3, 0, 0, 0, 0]), Action::Errno(EPERM));
    }
    for flags in [1, 2, 0o100, 0o1000, 0o20_200_002] {
        assert_eq!(expected(&WHO, "openat", &[0, 0, flags, 0, 0, 0]), Action::Errno(EPERM), "{flags:o}");
    }
    assert_eq!(expected(&WHO, "openat", &[0, 0, 0o12_200_000, 0, 0, 0]), Action::Allow);
    assert_eq!(expected(&WHO, "socket", &[1; 6]), Action::Errno(ENOSYS));
}
