//! Why an archive was not read to its end.

use std::io;

use super::name::printable;

/// Reading stopped. After any of these the reader gives nothing more.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ArchiveError {
    /// The source itself failed; the archive may be fine.
    #[error("cannot read the archive after {offset} bytes of it")]
    Source {
        /// Bytes of the (compressed) source that had been read.
        offset: u64,
        /// What the source answered.
        #[source]
        source: io::Error,
    },
    /// The archive is damaged, or written to be read differently by different programs.
    #[error("malformed archive, at byte {offset} of the uncompressed stream: {fault}")]
    Malformed {
        /// Where in the uncompressed stream: the start of the header or record at fault as far as it is known.
        offset: u64,
        /// What is wrong.
        fault: Fault,
    },
    /// The archive asks for more than [`super::Limits`] grants.
    #[error(
        "the archive exceeds a limit, at byte {offset} of the uncompressed stream: {what} would be {value}, allowed are {allowed}"
    )]
    Limit {
        /// Where in the uncompressed stream.
        offset: u64,
        /// What there is too much of, with its unit.
        what: &'static str,
        /// How much there would be, as far as it is known.
        value: u64,
        /// How much the limits allow.
        allowed: u64,
    },
}

/// What is wrong with a malformed archive.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Fault {
    /// The stream ends too early.
    #[error("the archive ends in the middle of {0}")]
    Truncated(&'static str),
    /// The decompressor found a contradiction.
    #[error("the {format} data is damaged: {detail}")]
    Compression {
        /// `gzip` or `zstd`.
        format: &'static str,
        /// In the decompressor's words.
        detail: String,
    },
    /// Bytes after the end of the compressed data, or after the end mark of the archive, that are not zero.
    #[error("there is something else after the end of {0}")]
    TrailingData(&'static str),
    /// A header block whose sum is not what it says.
    #[error("the header's checksum is {stored}, its bytes give {computed}")]
    Checksum {
        /// From the header.
        stored: u64,
        /// From its bytes.
        computed: u64,
    },
    /// A header whose magic is neither ustar's, GNU's nor absent.
    #[error("the header's magic is unknown")]
    Magic,
    /// A number that is no number, negative or too large.
    #[error("the field {field} is {problem}")]
    Number {
        /// Field or pax key.
        field: &'static str,
        /// In what way.
        problem: &'static str,
    },
    /// A type of entry that no layer needs.
    #[error("entries of type {:?} are not supported", char::from(*.0))]
    Type(u8),
    /// A name that cannot stand.
    #[error("the name {:?} {problem}", printable(.name))]
    Name {
        /// As the archive has it.
        name: Vec<u8>,
        /// In what way.
        problem: &'static str,
    },
    /// A pax record that cannot be understood.
    #[error("pax header: {0}")]
    Pax(&'static str),
    /// A pax key with two values.
    #[error("pax header: the key {:?} stands twice with different values", printable(.0))]
    PaxConflict(Vec<u8>),
    /// An attribute that cannot stand.
    #[error("the extended attribute {:?} {problem}", printable(.name))]
    Xattr {
        /// Its name.
        name: Vec<u8>,
        /// In what way.
        problem: &'static str,
    },
    /// A sparse map that cannot be.
    #[error("sparse map: {0}")]
    Sparse(&'static str),
    /// Headers in an order or combination that programs read differently.
    #[error("{0}")]
    Ambiguous(&'static str),
    /// The reader was used on after an error.
    #[error("an earlier error ended the reading of this archive")]
    AfterError,
}

impl Fault {
    /// The error for this fault at `offset`.
    pub(super) fn at(self, offset: u64) -> ArchiveError {
        ArchiveError::Malformed { offset, fault: self }
    }
}

/// Refuses `value` above `allowed`.
pub(super) fn within(offset: u64, what: &'static str, value: u64, allowed: u64) -> Result<(), ArchiveError> {
    if value > allowed { Err(ArchiveError::Limit { offset, what, value, allowed }) } else { Ok(()) }
}
