//! System call numbers by ABI, from the `syscalls` crate, whose tables are generated from the kernel's own. Build and test time only.

use super::compile::Abi;

macro_rules! number_of {
    ($table:path) => {{
        use $table as table;
        |name: &str| name.parse::<table::Sysno>().ok().and_then(|n| u32::try_from(n.id()).ok())
    }};
}

/// `AUDIT_ARCH_X86_64`.
pub const X86_64: u32 = 0xc000_003e;
/// `AUDIT_ARCH_I386`.
pub const I386: u32 = 0x4000_0003;
/// `AUDIT_ARCH_AARCH64`.
pub const AARCH64: u32 = 0xc000_00b7;
/// `AUDIT_ARCH_ARM`.
pub const ARM: u32 = 0x4000_0028;
/// `__X32_SYSCALL_BIT`.
pub const X32_BIT: u32 = 0x4000_0000;

/// The ABIs of a machine: the native one first.
#[must_use]
pub fn abis(machine: &str) -> Vec<Abi> {
    match machine {
        "x86_64" => vec![
            // x32 shares the architecture word. Nothing is shipped for it any more, most kernels are built without, and it has had
            // holes of its own (CVE-2014-0038): its numbers answer as on a kernel without it.
            Abi { audit: X86_64, foreign_bit: Some(X32_BIT), number: number_of!(syscalls::x86_64) },
            Abi { audit: I386, foreign_bit: None, number: number_of!(syscalls::x86) },
        ],
        "aarch64" => vec![
            Abi { audit: AARCH64, foreign_bit: None, number: number_of!(syscalls::aarch64) },
            Abi { audit: ARM, foreign_bit: None, number: number_of!(syscalls::arm) },
        ],
        _ => Vec::new(),
    }
}
