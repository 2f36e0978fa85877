//! Reading and writing the store's files.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use super::StoreError;
use crate::archive::{Hashing, Limits, Reader};
use crate::unpack::UnpackError;

pub(super) fn failed(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StoreError {
    move |source| match source.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => StoreError::NoSpace { path: path.to_owned() },
        _ => StoreError::Io { what, path: path.to_owned(), source },
    }
}

/// Copies a file of unknown origin; returns its size.
pub(super) fn copy(from: &Path, to: &Path, progress: &mut dyn FnMut(u64)) -> Result<u64, StoreError> {
    let mut input = File::open(from).map_err(failed("cannot open", from))?;
    if !input.metadata().is_ok_and(|m| m.is_file()) {
        return Err(failed("cannot read", from)(io::Error::from(io::ErrorKind::InvalidInput)));
    }
    // Nobody else has this name: we hold the store's lock. A dead process of our id may have had it.
    let mut output = File::create(to).map_err(failed("cannot write", to))?;
    let mut buffer = vec![0u8; 1 << 20];
    let mut done = 0;
    loop {
        let length = input.read(&mut buffer).map_err(failed("cannot read", from))?;
        if length == 0 {
            break;
        }
        output.write_all(buffer.get(..length).unwrap_or_default()).map_err(failed("cannot write", to))?;
        done += length as u64;
        progress(done);
    }
    output.sync_all().map_err(failed("cannot write", to))?;
    Ok(done)
}

/// Reads the whole archive with the strict reader, so that nothing malformed gets into the store.
pub(super) fn verify(file: File, progress: &mut dyn FnMut(u64)) -> Result<Option<crate::archive::Totals>, UnpackError> {
    let mut reader = Reader::new(file, Limits::STANDARD, Hashing::Both)?;
    while reader.next_entry()?.is_some() {
        progress(reader.source_bytes());
    }
    Ok(reader.totals())
}

pub(super) fn write_atomic(path: &Path, content: &[u8]) -> Result<(), StoreError> {
    let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    let temporary = path.with_file_name(format!(".tmp-{}-{name}", std::process::id()));
    let write = || -> io::Result<()> {
        let mut file = File::create(&temporary)?;
        file.write_all(content)?;
        file.sync_all()?;
        std::fs::rename(&temporary, path)
    };
    write().map_err(|error| {
        let _ = std::fs::remove_file(&temporary);
        failed("cannot write", path)(error)
    })
}

pub(super) fn entries(dir: &Path) -> Vec<PathBuf> {
    std::fs::read_dir(dir).into_iter().flatten().flatten().map(|e| e.path()).collect()
}

pub(super) fn remove(dir: &Path) {
    if let (Some(parent), Some(name)) = (dir.parent(), dir.file_name())
        && let Ok(parent) = File::open(parent)
    {
        let _ = cellblock_sys::tree::remove(parent.as_fd(), name);
    }
}

pub(super) fn hex_of(digest: &str) -> &str {
    digest.trim_start_matches("sha256:")
}

/// `sha256:` and the hex digits.
#[must_use]
pub fn digest_text(digest: &[u8; 32]) -> String {
    digest.iter().fold("sha256:".to_owned(), |text, b| text + &format!("{b:02x}"))
}

/// Different for each call in one process.
pub(super) fn unique() -> u64 {
    use std::sync::atomic::{AtomicU64, Ordering};
    static NEXT: AtomicU64 = AtomicU64::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}
