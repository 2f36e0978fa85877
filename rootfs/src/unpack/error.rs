//! Why an archive was not unpacked.

use std::io;

use rustix::io::Errno;

use crate::archive::{ArchiveError, printable};

/// Unpacking stopped. The destination holds a part of the archive and is good for nothing.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UnpackError {
    /// The archive itself: damaged, ambiguous, too large, or not readable.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// An entry that would do what no layer has to do.
    #[error("the archive's entry `{path}` is refused: {refusal}")]
    Refused {
        /// The entry, made printable.
        path: String,
        /// Why.
        refusal: Refusal,
    },
    /// The file system is full, or a quota is used up (`ENOSPC`, `EDQUOT`).
    #[error("no space left while unpacking `{path}`")]
    NoSpace {
        /// The entry, made printable.
        path: String,
        /// Which of the two.
        #[source]
        source: io::Error,
    },
    /// An owner that does not exist in this user namespace.
    #[error("`{path}` belongs to {which} {id}, which is not mapped in this user namespace")]
    UnmappedId {
        /// The entry, made printable.
        path: String,
        /// `user` or `group`.
        which: &'static str,
        /// The id.
        id: u32,
    },
    /// Any other system call that failed.
    #[error("cannot {operation} `{path}`")]
    Os {
        /// What was to be done.
        operation: &'static str,
        /// With which entry, made printable; empty for the destination itself.
        path: String,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// The reader stopped before the end without an error. Cannot happen; it is an error rather than a panic.
    #[error("the archive was not read to its end")]
    Incomplete,
}

/// What an entry may not do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// An attack, or a layer that relies on links of an earlier one.
    #[error("its path leads through a symbolic link")]
    ThroughLink,
    /// A file where a directory would have to be.
    #[error("its path leads through something that is no directory")]
    NotADirectory,
    /// Only entries of the same archive can be linked to.
    #[error("it is a hard link to something that is not in the archive before it")]
    LinkTarget,
    /// No file system has these.
    #[error("it is a hard link to a directory")]
    LinkToDirectory,
    /// Overlayfs's own marks would hide or redirect files.
    #[error("it carries an extended attribute that is reserved for overlayfs")]
    OverlayXattr,
    /// Overlayfs would take it for a deletion.
    #[error("it is the character device 0:0, which overlayfs takes for a whiteout")]
    OverlayDevice,
    /// A deletion mark with content, of another type, without a name, or for `.` and `..`.
    #[error("it is not a valid whiteout")]
    Whiteout,
    /// aufs's own bookkeeping, or a path through a deletion mark.
    #[error("names with the prefix `.wh.` are reserved")]
    ReservedName,
    /// [`super::Ownership::Shift`] has no room for it.
    #[error("its owner is outside of the range of ids")]
    Owner,
}

impl UnpackError {
    pub(super) fn os(operation: &'static str, path: &[u8], errno: Errno) -> Self {
        let path = printable(path);
        match errno {
            Errno::NOSPC | Errno::DQUOT => Self::NoSpace { path, source: errno.into() },
            _ => Self::Os { operation, path, source: errno.into() },
        }
    }

    pub(super) fn refused(path: &[u8], refusal: Refusal) -> Self {
        Self::Refused { path: printable(path), refusal }
    }
}
