//! Writes a hostile archive below a directory descriptor.
//!
//! # What the archive cannot do
//! Every step acts on a descriptor of the parent directory, which is reached from the destination part by part with openat2(2) and
//! `RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS` (Linux 5.6). An entry's own name is a single part, and the call
//! that creates it fails if anything is there already (`O_EXCL`, mkdirat, symlinkat, linkat, mknodat all do, and none follows a link at
//! that place); what is there is unlinked first, never written through. So no order of links, directories and files leads outside.
//!
//! Directories get their final owner, mode and time at the very end, children first: until then they stay open to the unpacker, also
//! where the archive says 0555 or 0000.
//!
//! # Layers
//! `.wh.NAME` and `.wh..wh..opq` are OCI's marks for what a layer deletes (image-spec, layer.md, "Whiteouts"). They become overlayfs's
//! own, or take effect at once, as [`OverlayForm`] says. An archive cannot carry overlayfs's marks itself: its attributes and its 0:0
//! device are refused.
//!
//! Commit is the caller's: unpack into a temporary directory, compare [`Summary::totals`]' digests, sync, rename.

mod create;
mod error;
mod metadata;
mod parents;
mod whiteout;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::os::fd::BorrowedFd;

pub use error::{Refusal, UnpackError};

use crate::archive::{Entry, Hashing, Kind, Limits, Reader, Totals};
use metadata::Directory;
use parents::Parents;

/// Who owns what is unpacked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ownership {
    /// The archive's ids: for real root, and inside a user namespace that maps a whole range. An id that is not mapped is an error.
    Keep,
    /// Everything belongs to the caller; nothing is chowned. Modes stay as they are.
    Single,
    /// The archive's ids plus `base`, which must stay below `base + count`.
    Shift {
        /// What the archive's id 0 becomes.
        base: u32,
        /// How many ids there are.
        count: u32,
    },
}

/// What becomes of OCI whiteouts. See the kernel's `Documentation/filesystems/overlayfs.rst`, "whiteouts and opaque directories".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OverlayForm {
    /// They delete what earlier layers put into the same directory: no overlay, one merged tree.
    Flatten,
    /// For an overlay mounted with `userxattr`: empty files with `user.overlay.whiteout` in directories marked
    /// `user.overlay.opaque=x` (Linux 6.7), and `user.overlay.opaque=y`. Needs a file system with `user.*` attributes.
    User,
    /// For an overlay mounted by real root: 0:0 character devices, and `trusted.overlay.opaque=y`. Needs `CAP_SYS_ADMIN`.
    Trusted,
}

/// How to unpack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// Who owns the result.
    pub ownership: Ownership,
    /// What becomes of whiteouts.
    pub overlay_form: OverlayForm,
    /// Create device nodes. Without it they are counted and left out: a user namespace cannot create them.
    pub devices: bool,
    /// Bounds on the archive.
    pub limits: Limits,
    /// Compute the digests in [`Totals`].
    pub hashing: Hashing,
}

/// How far it is; told after each entry and each piece of a large file.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Progress {
    /// Entries begun.
    pub entries: u64,
    /// Bytes of the archive as it is stored: compare with its size.
    pub archive_bytes: u64,
    /// Uncompressed bytes.
    pub stream_bytes: u64,
}

/// What was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Summary {
    /// Sizes and digests of the archive.
    pub totals: Totals,
    /// Each kind of thing by its number.
    pub counts: Counts,
}

/// How many of each.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Regular files written.
    pub files: u64,
    /// Bytes of their content, without holes.
    pub file_bytes: u64,
    /// Directories that the archive lists.
    pub directories: u64,
    /// Directories that only a path implied: made with mode 0755 and owner 0 (or the caller).
    pub implied_directories: u64,
    /// Symbolic links.
    pub symlinks: u64,
    /// Further names of files.
    pub hard_links: u64,
    /// Named pipes.
    pub fifos: u64,
    /// Device nodes made.
    pub devices: u64,
    /// Device nodes (and hard links to them) left out.
    pub skipped_devices: u64,
    /// Extended attributes left out: of a namespace other than `user.*` and `security.capability`, or not permitted here.
    pub skipped_xattrs: u64,
    /// `.wh.NAME` entries.
    pub whiteouts: u64,
    /// `.wh..wh..opq` entries.
    pub opaque_directories: u64,
}

/// Unpacks `archive` into the directory `dest`, which the caller has made for it (or, with [`OverlayForm::Flatten`], filled with
/// earlier layers).
///
/// # Errors
/// See [`UnpackError`]. What was unpacked so far is left in `dest`: remove it with `cellblock_sys::tree::remove`.
pub fn unpack(
    archive: impl Read,
    dest: BorrowedFd<'_>,
    options: &Options,
    progress: &mut dyn FnMut(Progress),
) -> Result<Summary, UnpackError> {
    let mut reader = Reader::new(archive, options.limits, options.hashing)?;
    let mut unpacker = Unpacker::new(dest, options)?;
    let mut entries = 0;
    while let Some(entry) = reader.next_entry()? {
        entries += 1;
        let mut tell = |reader: &Reader<_>| {
            progress(Progress { entries, archive_bytes: reader.source_bytes(), stream_bytes: reader.stream_bytes() });
        };
        tell(&reader);
        unpacker.entry(&entry, &mut reader, &mut tell)?;
    }
    unpacker.finish()?;
    // `None` above means that the reader reached the end.
    let totals = reader.totals().ok_or(UnpackError::Incomplete)?;
    Ok(Summary { totals, counts: unpacker.counts })
}

/// The state of one unpacking.
struct Unpacker<'a> {
    options: &'a Options,
    parents: Parents,
    /// What is still to be done to directories, by path. Those of the archive and those that were opened up.
    directories: BTreeMap<Vec<u8>, Directory>,
    /// Paths of device nodes that were left out, for hard links to them.
    skipped: BTreeSet<Vec<u8>>,
    /// With [`OverlayForm::Flatten`]: all paths of this layer, which its own whiteouts do not delete.
    present: BTreeSet<Vec<u8>>,
    counts: Counts,
}

impl<'a> Unpacker<'a> {
    fn new(dest: BorrowedFd<'_>, options: &'a Options) -> Result<Self, UnpackError> {
        Ok(Self {
            options,
            parents: Parents::new(dest).map_err(|error| UnpackError::os("open", b"", error))?,
            directories: BTreeMap::new(),
            skipped: BTreeSet::new(),
            present: BTreeSet::new(),
            counts: Counts::default(),
        })
    }

    fn entry<R: Read>(
        &mut self,
        entry: &Entry,
        reader: &mut Reader<R>,
        tell: &mut dyn FnMut(&Reader<R>),
    ) -> Result<(), UnpackError> {
        metadata::check_xattrs(entry)?;
        let (parent, name) = split(&entry.path);
        if let Some(mark) = whiteout::mark(entry)? {
            return self.whiteout(parent, mark, entry, reader);
        }
        if entry.path.is_empty() {
            return self.list_directory(entry);
        }
        self.enter(parent, Some(reader))?;
        self.note_present(&entry.path);
        if !self.skipped.is_empty() {
            self.skipped.remove(&entry.path);
        }
        match &entry.kind {
            Kind::Directory => self.directory(entry, name),
            Kind::File => self.file(entry, name, reader, tell),
            Kind::Symlink { target } => self.symlink(entry, name, target),
            Kind::HardLink { target } => self.hard_link(entry, name, target),
            Kind::Fifo | Kind::CharDevice { .. } | Kind::BlockDevice { .. } => self.node(entry, name),
        }
    }
}

impl Unpacker<'_> {
    /// Notes that this layer has `path`, and with it all directories on the way.
    fn note_present(&mut self, mut path: &[u8]) {
        if self.options.overlay_form == OverlayForm::Flatten {
            while !path.is_empty() && self.present.insert(path.to_vec()) {
                path = split(path).0;
            }
        }
    }
}

/// Parent path and last part.
fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        None => (b"", path),
    }
}

/// Parent path and name joined.
fn join(parent: &[u8], name: &[u8]) -> Vec<u8> {
    if parent.is_empty() { name.to_vec() } else { [parent, b"/", name].concat() }
}
