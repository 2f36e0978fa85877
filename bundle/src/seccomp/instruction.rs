//! An instruction of classic BPF. Also compiled into the build script, which writes what the crate reads.

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

impl Instruction {
    /// As the kernel reads it on our architectures, all little-endian.
    #[must_use]
    pub const fn to_bytes(self) -> [u8; 8] {
        let [a, b] = self.code.to_le_bytes();
        let [c, d, e, f] = self.k.to_le_bytes();
        [a, b, self.jt, self.jf, c, d, e, f]
    }

    /// The inverse of [`Instruction::to_bytes`].
    #[must_use]
    pub const fn from_bytes(&[a, b, jt, jf, c, d, e, f]: &[u8; 8]) -> Self {
        Self { code: u16::from_le_bytes([a, b]), jt, jf, k: u32::from_le_bytes([c, d, e, f]) }
    }
}
