//! The cell's seccomp filter: policy ([`table`]), compiler (`compile`, which works in the build script), and what both come to: a
//! [`Program`] for the kernel and a section for the exported OCI specification.
//!
//! The BPF is part of the binary: loading it is all that a start costs. libseccomp, which takes 13 to 25 ms for the same work, is
//! used by a test only.

#[cfg_attr(not(test), expect(dead_code, reason = "numbers are for the build script and tests"))]
mod abi;
#[cfg(test)]
mod compile;
#[cfg(test)]
mod guard;
mod instruction;
#[cfg(test)]
mod kernel_tests;
#[cfg(test)]
mod libseccomp_tests;
#[cfg(test)]
mod machine;
#[cfg(test)]
mod numbers;
mod oci;
pub mod own;
#[cfg(test)]
mod own_tests;
pub mod table;
#[cfg(test)]
mod tests;

use abi::Arch;
pub use instruction::Instruction;
pub use oci::to_oci;
pub use table::Profile;

/// The machine this was built for; the build script refuses any other.
const NATIVE: Arch = if cfg!(target_arch = "x86_64") { Arch::X86_64 } else { Arch::Aarch64 };

/// A compiled filter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program(Vec<Instruction>);

impl Program {
    /// Its instructions.
    #[must_use]
    pub fn instructions(&self) -> &[Instruction] {
        &self.0
    }
}

/// The filter for `profile` on the machine this was built for, with all of its ABIs. That of a cell with a guard hands over what changes files by
/// name (`SECCOMP_RET_USER_NOTIF`); loaded without a listener it answers `ENOSYS` there (seccomp(2)).
#[must_use]
pub fn program(profile: Profile, guarded: bool) -> Program {
    let bytes: &[u8] = match (profile, guarded) {
        (Profile::Default, false) => include_bytes!(concat!(env!("OUT_DIR"), "/default.bpf")),
        (Profile::Default, true) => include_bytes!(concat!(env!("OUT_DIR"), "/default-guarded.bpf")),
        (Profile::Strict, false) => include_bytes!(concat!(env!("OUT_DIR"), "/strict.bpf")),
        (Profile::Strict, true) => include_bytes!(concat!(env!("OUT_DIR"), "/strict-guarded.bpf")),
        (Profile::Nested, false) => include_bytes!(concat!(env!("OUT_DIR"), "/nested.bpf")),
        (Profile::Nested, true) => include_bytes!(concat!(env!("OUT_DIR"), "/nested-guarded.bpf")),
    };
    decode(bytes)
}

/// The filter of [`own::NETWORK`].
#[must_use]
pub fn network() -> Program {
    decode(include_bytes!(concat!(env!("OUT_DIR"), "/network.bpf")))
}

/// The filter of [`own::WHO`].
#[must_use]
pub fn who() -> Program {
    decode(include_bytes!(concat!(env!("OUT_DIR"), "/who.bpf")))
}

fn decode(bytes: &[u8]) -> Program {
    let (whole, _) = bytes.as_chunks::<8>();
    Program(whole.iter().map(Instruction::from_bytes).collect())
}

/// What the [`program`] of a cell with a guard hands over on the machine this was built for: the ABI (`AUDIT_ARCH_*`), the number there, and the kernel's name.
pub const GUARDED: &[(u32, u32, &str)] = include!(concat!(env!("OUT_DIR"), "/guard_calls.rs"));
