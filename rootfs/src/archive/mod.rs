//! A strict, streaming reader of layer archives: bytes in, entries out, nothing written anywhere.
//!
//! It understands plain tar, gzip and zstd (told apart by their magic bytes, never by a name or media type) and the tar dialects
//! that image builders write: v7, ustar, pax, GNU long names, GNU sparse files of all four forms, base-256 numbers and extended
//! attributes in both spellings.
//!
//! An archive comes from a stranger. So the reader has one rule: **what two tar programs could read differently is refused**, with the
//! place and the reason, and every size that the archive states is checked against [`Limits`] before anything is allocated for it.
//! Names are bytes and need not be UTF-8; they come out normalised (no leading `/`, no `.` parts) and never contain `..` or NUL.
//!
//! Format references: POSIX.1-2017 `pax` (ustar and pax), the GNU tar manual, appendix "Tar Internals" (GNU long names, sparse
//! formats, base-256), RFC 1952 (gzip), RFC 8878 (zstd).
//!
//! ```
//! # fn archive() -> Vec<u8> { vec![0; 1024] }
//! use cellblock_rootfs::archive::{Hashing, Limits, Reader};
//! let archive: Vec<u8> = archive();
//! let mut reader = Reader::new(&archive[..], Limits::STANDARD, Hashing::None)?;
//! while let Some(entry) = reader.next_entry()? {
//!     while let Some(chunk) = reader.read_data()? {
//!         assert!(chunk.offset + chunk.bytes.len() as u64 <= entry.size);
//!     }
//! }
//! # Ok::<(), cellblock_rootfs::archive::ArchiveError>(())
//! ```

mod error;
mod header;
mod limits;
mod name;
mod pax;
mod reader;
mod source;
mod sparse;
mod stream;
mod zstd;

#[cfg(test)]
pub(crate) mod build;
#[cfg(test)]
mod tests;

pub use error::{ArchiveError, Fault};
pub use limits::Limits;
pub use name::printable;
pub use reader::{Chunk, Reader, Totals};
pub use stream::{Compression, Hashing};

/// One member of an archive, with every header that describes it already merged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Where it goes, relative to the root of the archive: parts joined by one `/`, empty for the root itself. Any bytes but NUL.
    pub path: Vec<u8>,
    /// What it is.
    pub kind: Kind,
    /// Permission bits with setuid, setgid and sticky: at most `0o7777`.
    pub mode: u32,
    /// Owner as the archive says; never `u32::MAX`, which chown(2) would take for "leave it".
    pub uid: u32,
    /// Group as the archive says; never `u32::MAX`.
    pub gid: u32,
    /// Time of last change.
    pub mtime: Timestamp,
    /// Extended attributes, at most one of each name, in the archive's order.
    pub xattrs: Vec<Xattr>,
    /// Length of the file in bytes, holes included; 0 for everything but files.
    pub size: u64,
    /// The file has holes: [`Reader::read_data`] hands out the parts between them.
    pub sparse: bool,
}

/// The kinds of entries that a layer can hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// A regular file; its content follows by [`Reader::read_data`].
    File,
    /// A directory.
    Directory,
    /// A symbolic link with its target as it stands in the archive: any bytes but NUL, not empty, possibly absolute or with `..`.
    Symlink {
        /// What the link says.
        target: Vec<u8>,
    },
    /// A further name of an earlier entry.
    HardLink {
        /// The earlier entry, normalised like [`Entry::path`] and never empty.
        target: Vec<u8>,
    },
    /// A named pipe.
    Fifo,
    /// A character device.
    CharDevice {
        /// Major number, at most 12 bits.
        major: u32,
        /// Minor number, at most 20 bits.
        minor: u32,
    },
    /// A block device.
    BlockDevice {
        /// Major number, at most 12 bits.
        major: u32,
        /// Minor number, at most 20 bits.
        minor: u32,
    },
}

/// A point in time relative to 1970-01-01 00:00:00 UTC.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Timestamp {
    /// Whole seconds, rounded down; negative before 1970.
    pub seconds: i64,
    /// Nanoseconds after `seconds`, below 1 000 000 000.
    pub nanoseconds: u32,
}

/// An extended attribute, xattr(7).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Xattr {
    /// Full name with its namespace such as `user.mime_type`: 1 to 255 bytes without NUL.
    pub name: Vec<u8>,
    /// Value, at most 64 KiB.
    pub value: Vec<u8>,
}
