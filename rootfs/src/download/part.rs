//! A file that is not all there yet, and what is known of where it comes from.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek, SeekFrom, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::error::{FetchError, write_error};
use super::{Expect, Fetched};
use crate::store::HashReader;

/// Bytes of the file beside a part.
const MAX_NOTE: u64 = 16 << 10;

/// What is kept beside a part.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Note {
    url: String,
    validator: Option<String>,
}

/// `<file>.part`, locked (flock) against others that fetch the same file. It ends at its write position.
#[derive(Debug)]
pub(super) struct Part {
    file: File,
    path: PathBuf,
    note_path: PathBuf,
    target: PathBuf,
    length: u64,
    validator: Option<String>,
}

impl Part {
    /// Opens or makes the part of `target`, and waits until nobody else works on it.
    pub(super) fn lock(target: &Path) -> Result<Self, FetchError> {
        let path = with_suffix(target, ".part");
        let failed = |what| {
            let path = path.clone();
            move |source| FetchError::Io { what, path, source }
        };
        loop {
            let mut options = OpenOptions::new();
            options.read(true).write(true).create(true).truncate(false).mode(0o600);
            let file = options.open(&path).map_err(|source| write_error(&path, source))?;
            file.lock().map_err(failed("lock"))?;
            let ours = file.metadata().map_err(failed("look at"))?;
            // Who had the lock before has moved or removed the file: then it is another one that counts.
            if fs::symlink_metadata(&path).is_ok_and(|there| there.ino() == ours.ino() && there.dev() == ours.dev()) {
                let note_path = with_suffix(target, ".part.json");
                return Ok(Self {
                    file,
                    note_path,
                    target: target.to_owned(),
                    length: ours.len(),
                    validator: None,
                    path,
                });
            }
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) const fn length(&self) -> u64 {
        self.length
    }

    /// The file, if it is there and is what is expected: then somebody else has fetched it, now or earlier.
    pub(super) fn finished_by_another(&mut self, expect: Expect) -> Result<Option<Fetched>, FetchError> {
        let Expect::Digest(expected) = expect else { return Ok(None) };
        let file = match File::open(&self.target) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(FetchError::Io { what: "open", path: self.target.clone(), source }),
        };
        let fetched =
            hash(file).map_err(|source| FetchError::Io { what: "read", path: self.target.clone(), source })?;
        if fetched.digest != expected {
            return Ok(None);
        }
        self.discard();
        Ok(Some(fetched))
    }

    /// Takes up what an earlier run has left, if it is of this URL; whether there is anything.
    pub(super) fn resume(&mut self, url: &str) -> Result<bool, FetchError> {
        if self.length == 0 {
            return Ok(false);
        }
        match self.note() {
            Some(note) if note.url == url => {
                self.validator = note.validator;
                self.file.seek(SeekFrom::End(0)).map_err(|source| write_error(&self.path, source))?;
                Ok(true)
            }
            _ => self.restart().map(|()| false),
        }
    }

    /// The headers `Range` and `If-Range` for what is missing.
    pub(super) fn range(&self) -> Option<(String, Option<String>)> {
        (self.length > 0).then(|| (format!("bytes={}-", self.length), self.validator.clone()))
    }

    /// The server sends the whole, in the version that `validator` names.
    pub(super) fn begin(&mut self, url: &str, validator: Option<String>) -> Result<(), FetchError> {
        self.restart()?;
        let note = Note { url: url.to_owned(), validator: validator.clone() };
        let text = serde_json::to_vec(&note).map_err(|error| write_error(&self.note_path, error.into()))?;
        fs::write(&self.note_path, text).map_err(|source| write_error(&self.note_path, source))?;
        self.validator = validator;
        Ok(())
    }

    /// Forgets what is here.
    pub(super) fn restart(&mut self) -> Result<(), FetchError> {
        self.file.set_len(0).and_then(|()| self.file.rewind()).map_err(|source| write_error(&self.path, source))?;
        self.length = 0;
        self.validator = None;
        Ok(())
    }

    /// Clears away if `error` makes what is here useless; hands the error on.
    pub(super) fn after<T>(&self, error: FetchError) -> Result<T, FetchError> {
        if error.spoils() || self.length == 0 {
            self.discard();
        }
        Err(error)
    }

    /// The digest of what is here.
    pub(super) fn digest(&mut self) -> Result<Fetched, FetchError> {
        let failed = |source| FetchError::Io { what: "read", path: self.path.clone(), source };
        self.file.rewind().map_err(failed)?;
        hash(&self.file).map_err(failed)
    }

    /// Removes the part. That it is gone already, or cannot go, changes nothing.
    pub(super) fn discard(&self) {
        let _ = fs::remove_file(&self.path);
        let _ = fs::remove_file(&self.note_path);
    }

    /// Gives the part its name.
    pub(super) fn commit(self, target: &Path) -> Result<(), FetchError> {
        self.file.sync_all().map_err(|source| write_error(&self.path, source))?;
        fs::rename(&self.path, target).map_err(|source| write_error(target, source))?;
        // The file is complete: what is left beside it is only untidy.
        let _ = fs::remove_file(&self.note_path);
        Ok(())
    }

    fn note(&self) -> Option<Note> {
        if fs::metadata(&self.note_path).ok()?.len() > MAX_NOTE {
            return None;
        }
        serde_json::from_slice(&fs::read(&self.note_path).ok()?).ok()
    }
}

impl Write for Part {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = self.file.write(bytes)?;
        self.length += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

fn hash(file: impl io::Read) -> io::Result<Fetched> {
    let mut reader = HashReader::new(file);
    io::copy(&mut reader, &mut io::sink())?;
    let (digest, size) = reader.finish();
    Ok(Fetched { digest, size })
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut text = path.as_os_str().to_owned();
    text.push(suffix);
    text.into()
}
