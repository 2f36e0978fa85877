//! The tar state machine: merges the headers that describe one entry and hands out entries and their data in order.

use std::io::Read;

use super::error::{ArchiveError, Fault, within};
use super::header::{BLOCK, Header, gnu_sparse_extension};
use super::limits::Limits;
use super::name::{link_target, normalise};
use super::pax::{self, Pax};
use super::sparse::{InlineMap, PaxForm, Segments, pax_form};
use super::stream::{Compression, Hashing, Stream};
use super::{Entry, Kind, Timestamp};

/// Reads an archive entry by entry. See the [module](super) for what is accepted.
pub struct Reader<R: Read> {
    stream: Stream<R>,
    limits: Limits,
    entries: u64,
    metadata_bytes: u64,
    file_bytes: u64,
    /// Pieces of the current file that have not begun.
    segments: Segments,
    /// The piece that is being read: where its next byte belongs in the file, and how many are left.
    piece: (u64, u64),
    /// Bytes between the current file's data and the next header.
    padding: u64,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Reading,
    Ended,
    Failed,
}

/// Bytes of the current file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chunk<'a> {
    /// Where they belong in the file. Chunks come in rising order without overlap; gaps are holes.
    pub offset: u64,
    /// The bytes: at least one.
    pub bytes: &'a [u8],
}

/// What is known of an archive that was read to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Totals {
    /// How it was compressed.
    pub compression: Compression,
    /// Entries.
    pub entries: u64,
    /// Bytes of the source.
    pub source_bytes: u64,
    /// Bytes of the uncompressed stream.
    pub stream_bytes: u64,
    /// SHA-256 of the source with [`Hashing::Both`]: OCI's digest of the layer.
    pub source_digest: Option<[u8; 32]>,
    /// SHA-256 of the uncompressed stream with [`Hashing::Both`]: OCI's diff-id.
    pub stream_digest: Option<[u8; 32]>,
}

/// Headers that stand before the one they describe.
#[derive(Default)]
struct Pending {
    pax: Option<Pax>,
    long_name: Option<Vec<u8>>,
    long_link: Option<Vec<u8>>,
}

impl<R: Read> Reader<R> {
    /// Starts to read `source`, at once as far as its compression needs to be known.
    ///
    /// # Errors
    /// [`ArchiveError::Source`].
    pub fn new(source: R, limits: Limits, hashing: Hashing) -> Result<Self, ArchiveError> {
        Ok(Self {
            stream: Stream::new(source, limits, hashing)?,
            limits,
            entries: 0,
            metadata_bytes: 0,
            file_bytes: 0,
            segments: Segments::default(),
            piece: (0, 0),
            padding: 0,
            state: State::Reading,
        })
    }

    /// The next entry; what was not read of the last one's data is skipped. `None` at the end of a complete archive: then the source
    /// was read to its own end too.
    ///
    /// # Errors
    /// See [`ArchiveError`]; the reader is useless afterwards.
    pub fn next_entry(&mut self) -> Result<Option<Entry>, ArchiveError> {
        match self.state {
            State::Ended => return Ok(None),
            State::Failed => return Err(Fault::AfterError.at(self.stream.offset())),
            State::Reading => {}
        }
        // Until it went well.
        self.state = State::Failed;
        let entry = self.advance()?;
        self.state = if entry.is_some() { State::Reading } else { State::Ended };
        Ok(entry)
    }

    /// The next bytes of the current entry's content; `None` when there are no more, and for entries without content.
    ///
    /// # Errors
    /// See [`ArchiveError`]; the reader is useless afterwards.
    pub fn read_data(&mut self) -> Result<Option<Chunk<'_>>, ArchiveError> {
        if self.state == State::Failed {
            return Err(Fault::AfterError.at(self.stream.offset()));
        }
        if self.piece.1 == 0 {
            match self.segments.pop() {
                Some(piece) => self.piece = piece,
                None => return Ok(None),
            }
        }
        let (offset, left) = self.piece;
        match self.stream.some(left, "a file's content") {
            Ok(bytes) => {
                let length = bytes.len() as u64;
                self.piece = (offset + length, left - length);
                Ok(Some(Chunk { offset, bytes }))
            }
            Err(error) => {
                self.state = State::Failed;
                Err(error)
            }
        }
    }

    /// Counts something that the archive made its reader create beyond its entries, such as a directory that only a path implies,
    /// against [`Limits::entries`] and [`Limits::metadata_bytes`].
    ///
    /// # Errors
    /// [`ArchiveError::Limit`].
    pub fn charge(&mut self, path_bytes: u64) -> Result<(), ArchiveError> {
        let at = self.stream.offset();
        self.entries += 1;
        self.metadata_bytes += path_bytes;
        within(at, "the entries", self.entries, self.limits.entries)?;
        within(at, "the bytes of all names and attributes", self.metadata_bytes, self.limits.metadata_bytes)
    }

    /// Bytes taken from the source so far: for progress against its size.
    #[must_use]
    pub fn source_bytes(&self) -> u64 {
        self.stream.source_bytes()
    }

    /// Bytes of the uncompressed stream read so far.
    #[must_use]
    pub fn stream_bytes(&self) -> u64 {
        self.stream.offset()
    }

    /// Sizes and digests, once [`Reader::next_entry`] has answered `None`.
    #[must_use]
    pub fn totals(&self) -> Option<Totals> {
        let digests = self.stream.digests();
        (self.state == State::Ended).then(|| Totals {
            compression: self.stream.compression(),
            entries: self.entries,
            source_bytes: self.stream.source_bytes(),
            stream_bytes: self.stream.offset(),
            source_digest: digests.map(|(source, _)| source),
            stream_digest: digests.map(|(_, stream)| stream),
        })
    }

    fn advance(&mut self) -> Result<Option<Entry>, ArchiveError> {
        self.skip_data()?;
        let mut pending = Pending::default();
        loop {
            let at = self.stream.offset();
            let block = self.stream.exact(BLOCK, "the list of entries, without an end mark")?;
            if is_zero(block) {
                return self.end(&pending, at).map(|()| None);
            }
            let header = Header::parse(block).map_err(|fault| fault.at(at))?;
            let twice = match header.type_flag() {
                b'x' => {
                    let body = self.body(&header, "the bytes of a pax header", self.limits.pax_bytes, at)?;
                    pending.pax.replace(pax::parse(&body, &self.limits, at)?).is_some()
                }
                b'g' => {
                    let body = self.body(&header, "the bytes of a pax header", self.limits.pax_bytes, at)?;
                    pax::check_global(&body).map_err(|fault| fault.at(at))?;
                    false
                }
                b'L' => pending.long_name.replace(self.long_name(&header, at)?).is_some(),
                b'K' => pending.long_link.replace(self.long_name(&header, at)?).is_some(),
                _ => return self.entry(&header, pending, at).map(Some),
            };
            if twice {
                return Err(Fault::Ambiguous("two headers of one kind for one entry").at(at));
            }
        }
    }

    /// Skips what is left of the current entry, to the next header.
    fn skip_data(&mut self) -> Result<(), ArchiveError> {
        let mut left = self.piece.1;
        while let Some((_, length)) = self.segments.pop() {
            // No overflow: the pieces of one file are disjoint.
            left += length;
        }
        self.piece = (0, 0);
        self.skip(left, "a file's content")?;
        let padding = std::mem::take(&mut self.padding);
        self.skip(padding, "the padding after a file")
    }

    fn skip(&mut self, mut length: u64, what: &'static str) -> Result<(), ArchiveError> {
        while length > 0 {
            length -= self.stream.some(length, what)?.len() as u64;
        }
        Ok(())
    }

    /// The first of two zero blocks was read.
    fn end(&mut self, pending: &Pending, at: u64) -> Result<(), ArchiveError> {
        if pending.pax.is_some() || pending.long_name.is_some() || pending.long_link.is_some() {
            return Err(Fault::Ambiguous("extended headers without an entry").at(at));
        }
        // Programs differ on what a single one means.
        if !is_zero(self.stream.exact(BLOCK, "the end mark")?) {
            return Err(Fault::Ambiguous("a single zero block between entries").at(at));
        }
        self.stream.only_zeros_left("the archive")
    }

    /// The body of an extended header with its padding.
    fn body(&mut self, header: &Header, what: &'static str, allowed: u64, at: u64) -> Result<Vec<u8>, ArchiveError> {
        let size = header.size().map_err(|fault| fault.at(at))?;
        within(at, what, size, allowed)?;
        let mut body = Vec::new();
        let mut left = size;
        while left > 0 {
            let bytes = self.stream.some(left, "an extended header")?;
            body.extend_from_slice(bytes);
            left -= bytes.len() as u64;
        }
        self.skip(padding(size), "an extended header")?;
        Ok(body)
    }

    /// A GNU long name: usually, but not always, with a NUL at its end.
    fn long_name(&mut self, header: &Header, at: u64) -> Result<Vec<u8>, ArchiveError> {
        let mut name = self.body(header, "the bytes of a path", self.limits.path_bytes.saturating_add(1), at)?;
        if name.last() == Some(&0) {
            name.pop();
        }
        Ok(name)
    }

    fn entry(&mut self, header: &Header, pending: Pending, at: u64) -> Result<Entry, ArchiveError> {
        let fault = |fault: Fault| fault.at(at);
        let Pending { pax, long_name, long_link } = pending;
        let mut pax = pax.unwrap_or_default();
        let sparse = std::mem::take(&mut pax.sparse);
        let uses_pax_sparse = sparse.is_present();
        let override_name = one_of(pax.path.take(), long_name).map_err(fault)?;
        let raw_name = sparse.name.clone().or(override_name).unwrap_or_else(|| header.name());
        let raw_link = one_of(pax.link_path.take(), long_link).map_err(fault)?.unwrap_or_else(|| header.link_name());
        let path = normalise(&raw_name, &self.limits, at)?;
        let stored = pax.size.map_or_else(|| header.size(), Ok).map_err(fault)?;
        let kind = self.kind(header, &raw_name, raw_link, at)?;

        if path.is_empty() && kind != Kind::Directory {
            return Err(Fault::Name { name: raw_name, problem: "means the root, which can only be a directory" }.at(at));
        }
        if matches!(&kind, Kind::HardLink { target } if *target == path) {
            return Err(Fault::Name { name: raw_name, problem: "is a hard link to itself" }.at(at));
        }
        if kind != Kind::File && (stored != 0 || uses_pax_sparse) {
            return Err(Fault::Ambiguous("an entry that is no file has a size").at(at));
        }
        let is_sparse = uses_pax_sparse || header.type_flag() == b'S';
        let size = if is_sparse {
            let sparse = uses_pax_sparse.then_some(sparse);
            self.sparse(header, sparse, stored, at)?
        } else {
            self.segments = Segments::whole(stored);
            self.padding = padding(stored);
            stored
        };
        within(at, "the bytes of a file", size, self.limits.file_bytes)?;
        self.file_bytes = self.file_bytes.saturating_add(size);
        within(at, "the bytes of all files", self.file_bytes, self.limits.total_bytes)?;
        let mtime = || header.mtime().map(|seconds| Timestamp { seconds, nanoseconds: 0 });
        let entry = Entry {
            path,
            mode: header.mode().map_err(fault)?,
            uid: id("uid", pax.uid.map_or_else(|| header.uid(), Ok)).map_err(fault)?,
            gid: id("gid", pax.gid.map_or_else(|| header.gid(), Ok)).map_err(fault)?,
            mtime: pax.mtime.map_or_else(mtime, Ok).map_err(fault)?,
            xattrs: pax.xattrs,
            size,
            sparse: is_sparse,
            kind,
        };
        self.charge(metadata_bytes(&entry))?;
        Ok(entry)
    }

    fn kind(&self, header: &Header, name: &[u8], link: Vec<u8>, at: u64) -> Result<Kind, ArchiveError> {
        let device = || header.device().map_err(|fault| fault.at(at));
        let flag = header.type_flag();
        Ok(match flag {
            // v7 archives mark directories only by the slash. With ustar's explicit type programs disagree.
            0 if name.ends_with(b"/") => Kind::Directory,
            b'0' | b'7' | b'S' if name.ends_with(b"/") => {
                return Err(Fault::Ambiguous("a file whose name ends in a slash").at(at));
            }
            // `7` is a file on contiguous blocks, which Linux does not have.
            0 | b'0' | b'7' | b'S' => Kind::File,
            b'1' => {
                let target = normalise(&link, &self.limits, at)?;
                if target.is_empty() {
                    return Err(Fault::Name { name: link, problem: "means the root, which has no hard links" }.at(at));
                }
                Kind::HardLink { target }
            }
            b'2' => Kind::Symlink { target: link_target(link, &self.limits, at)? },
            b'3' => device().map(|(major, minor)| Kind::CharDevice { major, minor })?,
            b'4' => device().map(|(major, minor)| Kind::BlockDevice { major, minor })?,
            b'5' => Kind::Directory,
            b'6' => Kind::Fifo,
            flag => return Err(Fault::Type(flag).at(at)),
        })
    }

    /// Reads the map of a sparse file, of which the archive holds `stored` bytes, and gives the size with holes.
    fn sparse(
        &mut self,
        header: &Header,
        pax: Option<pax::PaxSparse>,
        mut stored: u64,
        at: u64,
    ) -> Result<u64, ArchiveError> {
        let fault = |fault: Fault| fault.at(at);
        let mut segments = Vec::new();
        let size;
        match pax {
            Some(_) if header.type_flag() == b'S' => return Err(Fault::Sparse("two maps for one file").at(at)),
            Some(pax) => {
                let form;
                (form, size) = pax_form(pax).map_err(fault)?;
                match form {
                    PaxForm::Map(map) => segments = map,
                    PaxForm::Inline => {
                        let mut map = InlineMap::new();
                        loop {
                            stored = stored.checked_sub(BLOCK as u64).ok_or(Fault::Sparse("it is cut off").at(at))?;
                            let block = self.stream.exact(BLOCK, "a sparse map")?;
                            if map.block(block, &self.limits, at)? {
                                break;
                            }
                        }
                        segments = map.into_segments();
                    }
                }
            }
            None => {
                size = header.gnu_real_size().map_err(fault)?;
                let mut more = header.gnu_sparse(&mut segments).map_err(fault)?;
                while more {
                    let block = self.stream.exact(BLOCK, "a sparse map")?;
                    more = gnu_sparse_extension(block, &mut segments).map_err(fault)?;
                    within(at, "the segments of a sparse file", segments.len() as u64, self.limits.sparse_segments)?;
                }
            }
        }
        self.segments = Segments::checked(segments, size, stored).map_err(fault)?;
        self.padding = padding(stored);
        Ok(size)
    }
}

impl<R: Read> std::fmt::Debug for Reader<R> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Reader")
            .field("stream_bytes", &self.stream_bytes())
            .field("entries", &self.entries)
            .finish_non_exhaustive()
    }
}

fn is_zero(block: &[u8]) -> bool {
    block.iter().all(|byte| *byte == 0)
}

/// Bytes from the end of data to the next block.
fn padding(size: u64) -> u64 {
    size.wrapping_neg() % BLOCK as u64
}

/// A value that pax and GNU headers may both state, if they agree.
fn one_of(pax: Option<Vec<u8>>, gnu: Option<Vec<u8>>) -> Result<Option<Vec<u8>>, Fault> {
    match (pax, gnu) {
        (Some(pax), Some(gnu)) if pax != gnu => Err(Fault::Ambiguous("pax and GNU headers give different names")),
        (pax, gnu) => Ok(pax.or(gnu)),
    }
}

/// An id that chown(2) can take: `u32::MAX` means "do not change" to it.
fn id(field: &'static str, id: Result<u64, Fault>) -> Result<u32, Fault> {
    match u32::try_from(id?) {
        Ok(id) if id != u32::MAX => Ok(id),
        _ => Err(Fault::Number { field, problem: "too large" }),
    }
}

fn metadata_bytes(entry: &Entry) -> u64 {
    let target = match &entry.kind {
        Kind::Symlink { target } | Kind::HardLink { target } => target.len(),
        _ => 0,
    };
    let xattrs: usize = entry.xattrs.iter().map(|xattr| xattr.name.len() + xattr.value.len()).sum();
    (entry.path.len() + target + xattrs) as u64
}
