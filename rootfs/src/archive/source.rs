//! The compressed side of an archive: a buffered source that counts and hashes what it hands on.

use std::io::{self, BufRead, Read};

use sha2::{Digest, Sha256};

/// The source is read in pieces of this size.
const CAPACITY: usize = 128 << 10;

/// The source, counted and hashed as it is read.
pub(super) struct Source<R> {
    inner: R,
    buffer: Box<[u8]>,
    start: usize,
    end: usize,
    count: u64,
    hasher: Option<Sha256>,
    /// Why the source failed: decoders wrap errors, and a broken disk must not be reported as a damaged archive.
    failure: Option<io::Error>,
}

impl<R: Read> Source<R> {
    pub(super) fn new(inner: R, hash: bool) -> Self {
        let buffer = vec![0; CAPACITY].into_boxed_slice();
        Self { inner, buffer, start: 0, end: 0, count: 0, hasher: hash.then(Sha256::new), failure: None }
    }

    /// Bytes taken from the source so far, those in the buffer included.
    pub(super) fn count(&self) -> u64 {
        self.count
    }

    /// The error of the source itself, if that is what went wrong.
    pub(super) fn take_failure(&mut self) -> Option<io::Error> {
        self.failure.take()
    }

    /// SHA-256 of everything read so far.
    pub(super) fn digest(&self) -> Option<[u8; 32]> {
        self.hasher.clone().map(|hasher| hasher.finalize().into())
    }

    /// The next bytes, at least `wanted` (below [`CAPACITY`]) unless the source ends before.
    pub(super) fn peek(&mut self, wanted: usize) -> io::Result<&[u8]> {
        if self.end - self.start < wanted {
            self.buffer.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
            while self.end < wanted && self.read_more()? {}
        }
        Ok(&self.buffer[self.start..self.end])
    }

    /// Reads once behind what the buffer holds; false at the end of the source.
    fn read_more(&mut self) -> io::Result<bool> {
        loop {
            match self.inner.read(&mut self.buffer[self.end..]) {
                Ok(read) => {
                    if let Some(hasher) = &mut self.hasher {
                        hasher.update(&self.buffer[self.end..self.end + read]);
                    }
                    self.end += read;
                    self.count += read as u64;
                    return Ok(read > 0);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    let told = io::Error::new(error.kind(), "the source failed");
                    self.failure = Some(error);
                    return Err(told);
                }
            }
        }
    }
}

impl<R: Read> Read for Source<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let available = self.fill_buf()?;
        let count = available.len().min(buffer.len());
        buffer[..count].copy_from_slice(&available[..count]);
        self.consume(count);
        Ok(count)
    }
}

impl<R: Read> BufRead for Source<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.peek(1)
    }

    fn consume(&mut self, count: usize) {
        self.start = (self.start + count).min(self.end);
    }
}
