//! The machines and the ABIs that a cell may have on them. Also compiled into the build script.

/// Where an ABI stands in a row of `NUMBERS`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Column {
    /// The 64-bit ABI of Intel and AMD machines.
    X86_64,
    /// Its 32-bit ABI.
    I386,
    /// The 64-bit ABI of ARM machines.
    Aarch64,
    /// Their 32-bit ABI.
    Arm,
}

/// One ABI of a machine.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Abi {
    /// `AUDIT_ARCH_*` (`<linux/audit.h>`).
    pub(crate) audit: u32,
    /// Its numbers.
    pub(crate) column: Column,
    /// Its name in an OCI specification.
    pub(crate) oci: &'static str,
}

/// A kind of machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Arch {
    /// Intel and AMD, 64 bits.
    X86_64,
    /// ARM, 64 bits.
    Aarch64,
}

impl Arch {
    /// Its ABIs, the native one first.
    #[must_use]
    pub(crate) const fn abis(self) -> [Abi; 2] {
        match self {
            Self::X86_64 => [
                Abi { audit: 0xc000_003e, column: Column::X86_64, oci: "SCMP_ARCH_X86_64" },
                Abi { audit: 0x4000_0003, column: Column::I386, oci: "SCMP_ARCH_X86" },
            ],
            Self::Aarch64 => [
                Abi { audit: 0xc000_00b7, column: Column::Aarch64, oci: "SCMP_ARCH_AARCH64" },
                Abi { audit: 0x4000_0028, column: Column::Arm, oci: "SCMP_ARCH_ARM" },
            ],
        }
    }
}
