//! A small tar writer for tests. It writes what it is told, sense or not.

use std::io::Write;

/// One member: a header block with its data, and what stands before it.
#[derive(Clone)]
pub(crate) struct Member {
    block: [u8; 512],
    pax: Vec<u8>,
    before: Vec<u8>,
    data: Vec<u8>,
    size: u64,
}

impl Member {
    /// A POSIX member of `type_flag` with mode 0644, owner 0, and a time of 1 000 000 000.
    pub(crate) fn new(name: &[u8], type_flag: u8, data: &[u8]) -> Self {
        let mut block = [0; 512];
        block[..name.len().min(100)].copy_from_slice(&name[..name.len().min(100)]);
        block[156] = type_flag;
        block[257..265].copy_from_slice(b"ustar\x0000");
        let member = Self { block, pax: Vec::new(), before: Vec::new(), data: data.to_vec(), size: data.len() as u64 };
        member.octal(100, 8, 0o644).octal(108, 8, 0).octal(116, 8, 0).octal(136, 12, 1_000_000_000)
    }

    pub(crate) fn file(name: &str, data: &[u8]) -> Self {
        Self::new(name.as_bytes(), b'0', data)
    }

    pub(crate) fn directory(name: &str) -> Self {
        Self::new(name.as_bytes(), b'5', b"").mode(0o755)
    }

    pub(crate) fn symlink(name: &str, target: &str) -> Self {
        Self::new(name.as_bytes(), b'2', b"").bytes(157, target.as_bytes())
    }

    pub(crate) fn hard_link(name: &str, target: &str) -> Self {
        Self::new(name.as_bytes(), b'1', b"").bytes(157, target.as_bytes())
    }

    pub(crate) fn device(name: &str, type_flag: u8, major: u64, minor: u64) -> Self {
        Self::new(name.as_bytes(), type_flag, b"").octal(329, 8, major).octal(337, 8, minor)
    }

    pub(crate) fn bytes(mut self, at: usize, bytes: &[u8]) -> Self {
        self.block[at..at + bytes.len()].copy_from_slice(bytes);
        self
    }

    pub(crate) fn octal(self, at: usize, width: usize, value: u64) -> Self {
        self.bytes(at, format!("{value:0width$o}\0", width = width - 1).as_bytes())
    }

    pub(crate) fn mode(self, mode: u32) -> Self {
        self.octal(100, 8, mode.into())
    }

    pub(crate) fn owner(self, uid: u64, gid: u64) -> Self {
        self.octal(108, 8, uid).octal(116, 8, gid)
    }

    /// What the header states as size, whatever the data.
    pub(crate) fn size(mut self, size: u64) -> Self {
        self.size = size;
        self
    }

    pub(crate) fn gnu(self) -> Self {
        self.bytes(257, b"ustar  \0")
    }

    pub(crate) fn pax(mut self, key: &str, value: &[u8]) -> Self {
        self.pax.extend(pax_record(key.as_bytes(), value));
        self
    }

    /// Raw blocks before the header.
    pub(crate) fn before(mut self, blocks: Vec<u8>) -> Self {
        self.before = blocks;
        self
    }

    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = self.before.clone();
        if !self.pax.is_empty() {
            bytes.extend(Self::new(b"pax", b'x', &self.pax).to_bytes());
        }
        let mut block = self.block;
        block[124..136].copy_from_slice(&if self.size < 1 << 33 {
            let mut field = [0; 12];
            field[..11].copy_from_slice(format!("{:011o}", self.size).as_bytes());
            field
        } else {
            let mut field = [0; 12];
            field[0] = 0x80;
            field[4..].copy_from_slice(&self.size.to_be_bytes());
            field
        });
        block[148..156].copy_from_slice(b"        ");
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        bytes.extend(block);
        bytes.extend(&self.data);
        bytes.resize(bytes.len().next_multiple_of(512), 0);
        bytes
    }
}

pub(crate) fn pax_record(key: &[u8], value: &[u8]) -> Vec<u8> {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    [length.to_string().as_bytes(), b" ", key, b"=", value, b"\n"].concat()
}

/// All members and the end mark.
pub(crate) fn archive(members: &[Member]) -> Vec<u8> {
    let mut bytes: Vec<u8> = members.iter().flat_map(Member::to_bytes).collect();
    bytes.extend([0; 1024]);
    bytes
}

pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(bytes).expect("memory");
    encoder.finish().expect("memory")
}

pub(crate) fn zstd(bytes: &[u8]) -> Vec<u8> {
    ruzstd::encoding::compress_to_vec(bytes, ruzstd::encoding::CompressionLevel::Fastest)
}
