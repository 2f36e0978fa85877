//! What can go wrong with the store.

use std::io;
use std::path::{Path, PathBuf};

use super::digest::{BadDigest, Digest};
use super::name::{BadName, ImageName};
use crate::unpack::UnpackError;

/// Why the store cannot do something. After any of these it is as it was before.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// A system call failed.
    #[error("cannot {what} {path}", path = path.display())]
    Io {
        /// What was to be done.
        what: &'static str,
        /// To which file or directory.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// The file system is full or a quota is used up (`ENOSPC`, `EDQUOT`). What was begun has been removed.
    #[error("no space left on the file system of {path}", path = path.display())]
    NoSpace {
        /// What was being written.
        path: PathBuf,
    },
    /// The name is none.
    #[error(transparent)]
    Name(#[from] BadName),
    /// No image has this name.
    #[error("there is no image `{0}`")]
    NoImage(ImageName),
    /// A directory was given where an archive has to be.
    #[error("{path} is a directory: only archives are stored; a directory is used where it is (`--image {path}`)", path = path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
    },
    /// Neither a regular file nor a directory.
    #[error("{path} is not a regular file", path = path.display())]
    NotAFile {
        /// What was given.
        path: PathBuf,
    },
    /// An archive of another kind than a root file system.
    #[error("{path} is no root file system but {kind}", path = path.display())]
    NotARoot {
        /// The archive.
        path: PathBuf,
        /// What it seems to be.
        kind: &'static str,
    },
    /// The archive cannot be read or unpacked.
    #[error("cannot use the archive {path}", path = path.display())]
    Archive {
        /// The archive, or the blob it was stored as.
        path: PathBuf,
        /// Why.
        #[source]
        source: UnpackError,
    },
    /// The content of a blob is not what its name says: it was damaged or changed after it was stored.
    #[error("{path} was changed or damaged: its {what} is {got}, expected {expected}", path = path.display())]
    Tampered {
        /// The blob.
        path: PathBuf,
        /// `digest`, or `uncompressed digest`.
        what: &'static str,
        /// As it was stored.
        expected: Digest,
        /// As it is.
        got: Digest,
    },
    /// A blob that an image needs is gone.
    #[error("{path} is missing: it belongs to the image {image}", path = path.display())]
    Missing {
        /// The blob.
        path: PathBuf,
        /// The image, or its manifest's digest.
        image: String,
    },
    /// A document that is not what the image specification says.
    #[error("{path} is damaged: {why}", path = path.display())]
    Damaged {
        /// The document.
        path: PathBuf,
        /// In what way.
        why: String,
    },
    /// A digest of another algorithm than SHA-256, or none at all.
    #[error("{path} is damaged", path = path.display())]
    Digest {
        /// The document it stands in.
        path: PathBuf,
        /// The digest.
        #[source]
        source: BadDigest,
    },
    /// The directory holds an image layout of another version than 1.0.0.
    #[error("{path} says version `{version}`, only 1.0.0 is understood: a newer cellblock may have written it", path = path.display())]
    Layout {
        /// The file `oci-layout`.
        path: PathBuf,
        /// What it says.
        version: String,
    },
}

/// Adds what was done and to what.
pub(super) trait At<T> {
    fn at(self, what: &'static str, path: &Path) -> Result<T, StoreError>;
}

impl<T> At<T> for io::Result<T> {
    fn at(self, what: &'static str, path: &Path) -> Result<T, StoreError> {
        self.map_err(|source| match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => StoreError::NoSpace { path: path.to_owned() },
            _ => StoreError::Io { what, path: path.to_owned(), source },
        })
    }
}
