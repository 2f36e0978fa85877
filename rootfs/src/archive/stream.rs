//! The uncompressed byte stream of an archive: finds out the compression, counts, hashes, and keeps the ratio in bounds.

use std::io::{self, BufRead, Read};

use flate2::bufread::GzDecoder;
use sha2::{Digest, Sha256};

use super::error::{ArchiveError, Fault, within};
use super::limits::Limits;
use super::source::Source;
use super::zstd::ZstdReader;

/// Uncompressed bytes are held in pieces of this size: within a core's level 2 cache.
const BUFFER: usize = 256 << 10;

/// How an archive is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// Not at all.
    Plain,
    /// gzip, RFC 1952, of one or more members.
    Gzip,
    /// zstd, RFC 8878, of one or more frames.
    Zstd,
}

/// Whether SHA-256 digests are computed on the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hashing {
    /// No digests.
    None,
    /// Of the bytes as they come in (OCI: the layer's digest) and of the uncompressed stream (OCI: the diff-id).
    Both,
}

enum Decoder<R: Read> {
    Plain(Source<R>),
    /// One member at a time: flate2's own multi-member reader cannot tell padding from garbage. Boxed for its size.
    Gzip(Box<GzDecoder<Source<R>>>),
    Zstd(Box<ZstdReader<Source<R>>>),
    /// Only for the moment in which one gzip member follows another.
    Between,
}

/// Uncompressed bytes, with a window to look at.
pub(super) struct Stream<R: Read> {
    decoder: Decoder<R>,
    compression: Compression,
    buffer: Box<[u8]>,
    start: usize,
    end: usize,
    /// Bytes of the stream before `buffer[start]`.
    offset: u64,
    hasher: Option<Sha256>,
    limits: Limits,
}

impl<R: Read> Stream<R> {
    /// Looks at the first bytes of `source` to find the compression.
    pub(super) fn new(source: R, limits: Limits, hashing: Hashing) -> Result<Self, ArchiveError> {
        let hash = hashing == Hashing::Both;
        let mut source = Source::new(source, hash);
        let compression = match source.peek(4) {
            Ok([0x1f, 0x8b, ..]) => Compression::Gzip,
            // A frame (RFC 8878, 3.1.1) or a skippable one (3.1.2).
            Ok([0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..]) => Compression::Zstd,
            Ok(_) => Compression::Plain,
            Err(error) => {
                let error = source.take_failure().unwrap_or(error);
                return Err(ArchiveError::Source { offset: source.count(), source: error });
            }
        };
        let decoder = match compression {
            Compression::Plain => Decoder::Plain(source),
            Compression::Gzip => Decoder::Gzip(Box::new(GzDecoder::new(source))),
            Compression::Zstd => Decoder::Zstd(Box::new(ZstdReader::new(source, limits.zstd_window))),
        };
        let hasher = (hash && compression != Compression::Plain).then(Sha256::new);
        let buffer = vec![0; BUFFER].into_boxed_slice();
        Ok(Self { decoder, compression, buffer, start: 0, end: 0, offset: 0, hasher, limits })
    }

    /// Where the next byte stands in the uncompressed stream.
    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    pub(super) fn compression(&self) -> Compression {
        self.compression
    }

    /// Bytes taken from the source.
    pub(super) fn source_bytes(&self) -> u64 {
        match &self.decoder {
            Decoder::Plain(source) => source.count(),
            Decoder::Gzip(gzip) => gzip.get_ref().count(),
            Decoder::Zstd(zstd) => zstd.get_ref().count(),
            Decoder::Between => 0,
        }
    }

    /// Digests of the source and of the uncompressed stream as far as they were read.
    pub(super) fn digests(&self) -> Option<([u8; 32], [u8; 32])> {
        let source = match &self.decoder {
            Decoder::Plain(source) => source.digest(),
            Decoder::Gzip(gzip) => gzip.get_ref().digest(),
            Decoder::Zstd(zstd) => zstd.get_ref().digest(),
            Decoder::Between => None,
        }?;
        let stream = self.hasher.clone().map_or(source, |hasher| hasher.finalize().into());
        Some((source, stream))
    }

    /// The next `length` bytes (at most a few KiB) and steps over them; `what` names them if the stream ends before.
    pub(super) fn exact(&mut self, length: usize, what: &'static str) -> Result<&[u8], ArchiveError> {
        while self.end - self.start < length {
            if !self.fill()? {
                return Err(Fault::Truncated(what).at(self.offset));
            }
        }
        let start = self.start;
        self.step(length);
        Ok(&self.buffer[start..start + length])
    }

    /// Between 1 and `most` bytes, as many as are at hand, and steps over them.
    pub(super) fn some(&mut self, most: u64, what: &'static str) -> Result<&[u8], ArchiveError> {
        if self.start == self.end && !self.fill()? {
            return Err(Fault::Truncated(what).at(self.offset));
        }
        let start = self.start;
        let length = usize::try_from(most).map_or(self.end - start, |most| most.min(self.end - start));
        self.step(length);
        Ok(&self.buffer[start..start + length])
    }

    /// The stream must hold nothing but zeros up to its end. Reads the source to its end, so the digests are complete.
    pub(super) fn only_zeros_left(&mut self, what: &'static str) -> Result<(), ArchiveError> {
        loop {
            let rest = &self.buffer[self.start..self.end];
            if let Some(place) = rest.iter().position(|byte| *byte != 0) {
                return Err(Fault::TrailingData(what).at(self.offset + place as u64));
            }
            self.step(self.end - self.start);
            if !self.fill()? {
                return Ok(());
            }
        }
    }

    fn step(&mut self, length: usize) {
        self.start += length;
        self.offset += length as u64;
    }

    /// Adds bytes behind what is there; false at the end of the stream.
    fn fill(&mut self) -> Result<bool, ArchiveError> {
        if self.start > 0 {
            self.buffer.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        let reached = self.offset + self.end as u64;
        let count = match self.decoder.read(&mut self.buffer[self.end..]) {
            Ok(count) => count,
            Err(error) => return Err(self.failure(error, reached)),
        };
        if let Some(hasher) = &mut self.hasher {
            hasher.update(&self.buffer[self.end..self.end + count]);
        }
        self.end += count;
        self.check_limits(reached + count as u64)?;
        Ok(count > 0)
    }

    fn check_limits(&self, produced: u64) -> Result<(), ArchiveError> {
        let taken = self.source_bytes();
        within(produced, "the bytes of the uncompressed stream", produced, self.limits.total_bytes)?;
        within(produced, "the bytes of the archive", taken, self.limits.total_bytes)?;
        if produced > self.limits.ratio_after {
            within(produced, "the compression ratio", produced / taken.max(1), self.limits.ratio)?;
        }
        Ok(())
    }

    fn failure(&mut self, error: io::Error, offset: u64) -> ArchiveError {
        let source = match &mut self.decoder {
            Decoder::Plain(source) => Some(source),
            Decoder::Gzip(gzip) => Some(gzip.get_mut()),
            Decoder::Zstd(zstd) => Some(zstd.get_mut()),
            Decoder::Between => None,
        };
        if let Some(source) = source
            && let Some(failure) = source.take_failure()
        {
            return ArchiveError::Source { offset: source.count(), source: failure };
        }
        if error.kind() == io::ErrorKind::UnexpectedEof {
            return Fault::Truncated("the compressed data").at(offset);
        }
        let format = match self.compression {
            Compression::Plain => "tar",
            Compression::Gzip => "gzip",
            Compression::Zstd => "zstd",
        };
        Fault::Compression { format, detail: with_causes(&error) }.at(offset)
    }
}

/// The whole chain in one line; ruzstd keeps the interesting part in the causes.
fn with_causes(error: &dyn std::error::Error) -> String {
    let mut detail = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let text = error.to_string();
        if !detail.contains(&text) {
            detail.push_str(": ");
            detail.push_str(&text);
        }
        cause = error.source();
    }
    detail
}

impl<R: Read> Read for Decoder<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self {
                Self::Plain(source) => return source.read(buffer),
                Self::Zstd(zstd) => return zstd.read(buffer),
                Self::Gzip(gzip) => {
                    let count = gzip.read(buffer)?;
                    if count > 0 || buffer.is_empty() {
                        return Ok(count);
                    }
                }
                Self::Between => return Ok(0),
            }
            // A gzip member ended: another one, padding, or the end follows.
            let Self::Gzip(gzip) = std::mem::replace(self, Self::Between) else { return Ok(0) };
            let mut source = gzip.into_inner();
            let another = another_member(&mut source);
            *self = match another {
                Ok(true) => Self::Gzip(Box::new(GzDecoder::new(source))),
                // Nothing is left in it, so as a plain source it says "end" from now on.
                _ => Self::Plain(source),
            };
            if !another? {
                return Ok(0);
            }
        }
    }
}

/// Does another gzip member follow? Zeros up to the end are padding, which some tools add and gzip(1) accepts.
fn another_member<R: Read>(source: &mut Source<R>) -> io::Result<bool> {
    if let [0x1f, 0x8b, ..] = source.peek(2)? {
        return Ok(true);
    }
    loop {
        let rest = source.fill_buf()?;
        if rest.is_empty() {
            return Ok(false);
        }
        if rest.iter().any(|byte| *byte != 0) {
            return Err(io::Error::other("garbage follows the last member"));
        }
        let length = rest.len();
        source.consume(length);
    }
}
