//! Reading an audit's file while it is being written, renamed to `….1` and begun anew.

use std::fs::File;
use std::io::{ErrorKind, Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use cellblock_egress::audit::Line;

use crate::report::CliError;

/// One line of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Entry {
    /// As it was written.
    Line(Box<Line>),
    /// Half a line, from a supervisor that was killed or a disk that was full, or no line of ours.
    Unreadable,
}

/// A reader of the file at a path, whichever file that is at the time.
#[derive(Debug)]
pub(super) struct Tail {
    path: PathBuf,
    /// Files to be read to their ends, the last of which is still written to.
    files: Vec<File>,
    /// What stands after the last newline.
    pending: Vec<u8>,
}

/// Longest line that is taken for one; the network writes none nearly as long.
const MAX_LINE: usize = 1 << 20;

impl Tail {
    /// Reads all there is: of the older file first.
    pub(super) fn from_start(path: &Path) -> Result<Self, CliError> {
        let mut tail = Self::new(path);
        // In this order: if the file is renamed in between, it is found twice, and not missed.
        let current = tail.open(&tail.path)?;
        let older = tail.open(&older(&tail.path))?;
        let same = matches!((&older, &current), (Some(a), Some(b)) if is_same(a, b));
        tail.files.extend(older.filter(|_| !same));
        tail.files.extend(current);
        Ok(tail)
    }

    /// Reads only what is written from now on.
    pub(super) fn from_end(path: &Path) -> Result<Self, CliError> {
        let mut tail = Self::new(path);
        if let Some(mut file) = tail.open(&tail.path)? {
            file.seek(SeekFrom::End(0)).map_err(|source| tail.failed(source))?;
            tail.files.push(file);
        }
        Ok(tail)
    }

    fn new(path: &Path) -> Self {
        // A link leads to where the audit is written, and older parts of it are there.
        let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
        Self { path, files: Vec::new(), pending: Vec::new() }
    }

    /// Whether there is a file at all.
    pub(super) fn is_there(&self) -> bool {
        !self.files.is_empty()
    }

    /// Hands every line that is new to `each`, until that answers that it has enough: then the answer is `false`.
    pub(super) fn more(&mut self, mut each: impl FnMut(Entry) -> Result<bool, CliError>) -> Result<bool, CliError> {
        // Before reading: what the old file gets until the new one is there must still be seen.
        self.look_again()?;
        loop {
            let Some(file) = self.files.first_mut() else { return Ok(true) };
            let mut buffer = vec![0; 64 << 10];
            let length = match file.read(&mut buffer) {
                Ok(length) => length,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(self.failed(error)),
            };
            if length == 0 {
                if self.files.len() == 1 {
                    return Ok(true);
                }
                self.files.remove(0);
                // A file that was left for another gets no end to its last line any more.
                if !std::mem::take(&mut self.pending).is_empty() && !each(Entry::Unreadable)? {
                    return Ok(false);
                }
                continue;
            }
            self.pending.extend_from_slice(buffer.get(..length).unwrap_or_default());
            if !self.lines(&mut each)? {
                return Ok(false);
            }
        }
    }

    fn lines(&mut self, each: &mut impl FnMut(Entry) -> Result<bool, CliError>) -> Result<bool, CliError> {
        let bytes = std::mem::take(&mut self.pending);
        let mut rest = bytes.as_slice();
        while let Some(end) = rest.iter().position(|b| *b == b'\n') {
            let (line, after) = rest.split_at(end);
            rest = after.get(1..).unwrap_or_default();
            if !line.is_empty() && !each(parse(line))? {
                return Ok(false);
            }
        }
        if rest.len() > MAX_LINE {
            return each(Entry::Unreadable);
        }
        self.pending = rest.to_vec();
        Ok(true)
    }

    /// Finds out whether the path leads to another file by now, or the file was emptied.
    fn look_again(&mut self) -> Result<(), CliError> {
        let Some(now) = self.open(&self.path)? else { return Ok(()) };
        let Some(last) = self.files.last_mut() else {
            self.files.push(now);
            return Ok(());
        };
        if is_same(last, &now) {
            let length = now.metadata().map_or(0, |m| m.len());
            if last.stream_position().is_ok_and(|at| at > length) {
                let _ = last.rewind();
                self.pending.clear();
            }
            return Ok(());
        }
        // Two renamings since the last look: what was begun and ended in between is the older file now.
        let between = self.open(&older(&self.path))?;
        let missed = between.filter(|b| !is_same(b, &now) && !self.files.last().is_some_and(|last| is_same(last, b)));
        self.files.extend(missed);
        self.files.push(now);
        Ok(())
    }

    fn open(&self, path: &Path) -> Result<Option<File>, CliError> {
        match File::open(path) {
            Ok(file) => Ok(Some(file)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(self.failed(error)),
        }
    }

    fn failed(&self, source: std::io::Error) -> CliError {
        CliError::File { what: "cannot read the audit", path: self.path.clone(), source }
    }
}

/// Where `audit::Audit` moves a full file.
fn older(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".1");
    name.into()
}

fn is_same(a: &File, b: &File) -> bool {
    let id = |file: &File| file.metadata().ok().map(|m| (m.dev(), m.ino()));
    id(a).is_some_and(|a| Some(a) == id(b))
}

fn parse(bytes: &[u8]) -> Entry {
    let read = |bytes: &[u8]| serde_json::from_slice::<Line>(bytes).ok();
    // Behind half a line of a killed supervisor stands the next one's first. Within a line JSON escapes the quotes.
    let start: &[u8] = b"{\"time\":";
    let last = || bytes.windows(start.len()).rposition(|w| w == start).and_then(|at| read(bytes.get(at..)?));
    read(bytes).or_else(last).map_or(Entry::Unreadable, |line| Entry::Line(Box::new(line)))
}

#[cfg(test)]
#[path = "read_tests.rs"]
mod tests;
