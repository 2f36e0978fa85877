//! Unpacked layers: made once for each id scheme, verified, committed by rename, shared by all cells.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use rustix::fs::RenameFlags;
use serde::{Deserialize, Serialize};

use super::digest::Digest;
use super::error::{At, StoreError};
use super::file::{FileLock, TEMPORARY, make_private_dir, random, sync_dir};
use super::name::ImageName;
use super::{ImageLayer, Removed};
use crate::archive::{Hashing, Limits, Reader, Totals};
use crate::unpack::{Options, OverlayForm, Ownership, Progress, UnpackError, unpack};

/// What the names of the lock files start with.
const LOCK: &str = ".lock-";

/// A layer in the form that one id scheme needs. Plain data: it travels to the process that unpacks it in OUTER.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Layer {
    /// The image it is unpacked for, for messages.
    pub image: ImageName,
    /// The archive.
    pub blob: PathBuf,
    /// Digest of the archive.
    pub digest: Digest,
    /// Digest of the archive uncompressed.
    pub diff_id: Digest,
    /// Where the unpacked layer is, or is to be.
    pub dir: PathBuf,
}

/// Whether a layer is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LayerState {
    /// It is unpacked and was verified.
    Ready(Layer),
    /// It has to be [unpacked](Layer::unpack) first.
    Missing(Layer),
}

impl LayerState {
    pub(super) fn of(layer: Layer) -> Self {
        if layer.is_ready() { Self::Ready(layer) } else { Self::Missing(layer) }
    }

    /// The layer, ready or not.
    #[must_use]
    pub const fn layer(&self) -> &Layer {
        match self {
            Self::Ready(layer) | Self::Missing(layer) => layer,
        }
    }
}

impl Layer {
    /// Whether it is unpacked. It only gets its name when it is whole and was verified.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.dir.is_dir()
    }

    /// Keeps the layer from being removed while the lock is held: a running cell stands on it. `None` if it is not unpacked (any more).
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub fn hold(&self) -> Result<Option<FileLock>, StoreError> {
        if !self.is_ready() {
            return Ok(None);
        }
        let lock = FileLock::shared(&lock_path(self.parent(), &self.diff_id.hex()))?;
        Ok(self.is_ready().then_some(lock))
    }

    /// Unpacks it, and checks both digests before it counts. To be called where the owners of its files exist (OUTER). If others do
    /// the same at the same time, they wait and then find it ready.
    ///
    /// # Errors
    /// [`StoreError::Tampered`] if the blob is not what was stored, [`StoreError::NoSpace`], [`StoreError::Archive`]; nothing is
    /// committed then, and what was begun is removed.
    pub fn unpack(
        &self,
        ownership: Ownership,
        form: OverlayForm,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<(), StoreError> {
        let parent = self.parent();
        make_private_dir(parent)?;
        let hex = self.diff_id.hex();
        let _lock = FileLock::exclusive(&lock_path(parent, &hex))?;
        if self.is_ready() {
            return Ok(());
        }
        // Best effort: what cannot be removed here is handed out by the next `sweep`.
        let _ = sweep(parent);
        remove_temporary(parent, &hex)?;
        let temporary = TempDir::create(parent, &hex)?;
        self.unpack_into(&temporary.path, ownership, form, progress)?;
        temporary.keep(&self.dir)?;
        sync_dir(parent)
    }

    fn unpack_into(
        &self,
        dir: &Path,
        ownership: Ownership,
        form: OverlayForm,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<(), StoreError> {
        let blob = open_blob(&self.blob, &self.image)?;
        let dest = File::open(dir).at("open", dir)?;
        // A user namespace cannot make device nodes, and a cell has those it needs in its /dev.
        let options =
            Options { ownership, overlay_form: form, devices: false, limits: Limits::STANDARD, hashing: Hashing::Both };
        let summary = unpack(blob, dest.as_fd(), &options, progress).map_err(|source| match source {
            UnpackError::NoSpace { .. } => StoreError::NoSpace { path: dir.to_owned() },
            // A damaged blob is told as such, whatever the reader stumbled on.
            UnpackError::Archive(_) => match blob_digest(&self.blob) {
                Ok(got) if got != self.digest => self.tampered("digest", self.digest, got),
                _ => StoreError::Archive { path: self.blob.clone(), source },
            },
            _ => StoreError::Archive { path: self.blob.clone(), source },
        })?;
        check(&self.blob, &summary.totals, &self.digest, &self.diff_id)?;
        // One call for all the files: the name must not become durable before what it names.
        rustix::fs::syncfs(&dest).map_err(io::Error::from).at("flush", dir)
    }

    fn tampered(&self, what: &'static str, expected: Digest, got: Digest) -> StoreError {
        StoreError::Tampered { path: self.blob.clone(), what, expected, got }
    }

    fn parent(&self) -> &Path {
        self.dir.parent().unwrap_or(Path::new("/"))
    }
}

fn check(blob: &Path, totals: &Totals, digest: &Digest, diff_id: &Digest) -> Result<(), StoreError> {
    let pairs = [("digest", totals.source_digest, digest), ("uncompressed digest", totals.stream_digest, diff_id)];
    for (what, got, expected) in pairs {
        let got =
            got.map(Digest::from_bytes).ok_or_else(|| super::layout::damaged(blob, &"its digest is not known"))?;
        if got != *expected {
            return Err(StoreError::Tampered { path: blob.to_owned(), what, expected: *expected, got });
        }
    }
    Ok(())
}

fn open_blob(path: &Path, image: &ImageName) -> Result<File, StoreError> {
    match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Err(StoreError::Missing { path: path.to_owned(), image: image.to_string() })
        }
        opened => opened.at("open", path),
    }
}

fn blob_digest(path: &Path) -> io::Result<Digest> {
    let mut reader = super::HashReader::new(File::open(path)?);
    io::copy(&mut reader, &mut io::sink())?;
    Ok(reader.finish().0)
}

/// Reads a stored layer again from end to end.
pub(super) fn verify_blob(
    path: &Path,
    layer: &ImageLayer,
    image: &ImageName,
    progress: &mut dyn FnMut(u64),
) -> Result<(), StoreError> {
    let bad = |source: crate::archive::ArchiveError| match blob_digest(path) {
        Ok(got) if got != layer.digest => {
            StoreError::Tampered { path: path.to_owned(), what: "digest", expected: layer.digest, got }
        }
        _ => StoreError::Archive { path: path.to_owned(), source: source.into() },
    };
    let blob = open_blob(path, image)?;
    let mut reader = Reader::new(blob, Limits::STANDARD, Hashing::Both).map_err(bad)?;
    while reader.next_entry().map_err(bad)?.is_some() {
        progress(reader.source_bytes());
    }
    let totals = reader.totals().ok_or_else(|| super::layout::damaged(path, &"it has no end"))?;
    check(path, &totals, &layer.digest, &layer.diff_id)
}

/// Removes the unpacked layers that are not in `keep`, and what killed unpackers have left.
pub(super) fn collect(layers: &Path, keep: &BTreeSet<Digest>, removed: &mut Removed) -> Result<(), StoreError> {
    for key in entries(layers)? {
        for path in entries(&key)? {
            let Some(diff_id) = path.file_name().and_then(|n| n.to_str()).and_then(|n| n.parse::<Digest>().ok()) else {
                continue;
            };
            if keep.contains(&diff_id) {
                continue;
            }
            let hex = diff_id.hex();
            let Some(lock) = FileLock::try_exclusive(&lock_path(&key, &hex))? else {
                removed.in_use.push(path);
                continue;
            };
            // At once no layer any more; this needs no right to what is in it.
            let gone = key.join(format!("{TEMPORARY}{hex}-{}", random()?));
            fs::rename(&path, &gone).at("rename", &path)?;
            lock.remove()?;
        }
        removed.leftovers.extend(sweep(&key)?);
    }
    Ok(())
}

/// Removes temporary directories whose makers are gone; returns those that cannot be removed from here.
fn sweep(key: &Path) -> Result<Vec<PathBuf>, StoreError> {
    let mut left = Vec::new();
    for path in entries(key)? {
        let Some(hex) = path.file_name().and_then(|n| n.to_str()).and_then(maker) else { continue };
        let lock = lock_path(key, hex);
        let Some(lock) = FileLock::try_exclusive(&lock)? else { continue };
        match remove_dir(&path) {
            Ok(()) => {}
            Err(error) if matches!(error.kind(), io::ErrorKind::PermissionDenied) => left.push(path.clone()),
            Err(error) => return Err(error).at("remove", &path),
        }
        if !key.join(hex).exists() {
            lock.remove()?;
        }
    }
    Ok(left)
}

/// Removes what earlier unpackers of this layer have left; its lock is held. What cannot be removed stays, under its temporary name.
fn remove_temporary(key: &Path, hex: &str) -> Result<(), StoreError> {
    for path in entries(key)? {
        if path.file_name().and_then(|n| n.to_str()).and_then(maker) == Some(hex) {
            let _ = remove_dir(&path);
        }
    }
    Ok(())
}

/// The diff-id in the name of a temporary directory.
fn maker(name: &str) -> Option<&str> {
    let (hex, _) = name.strip_prefix(TEMPORARY)?.split_once('-')?;
    hex.parse::<Digest>().ok().map(|_| hex)
}

fn lock_path(key: &Path, hex: &str) -> PathBuf {
    key.join(format!("{LOCK}{hex}"))
}

/// The entries of a directory; none if it is not there.
fn entries(dir: &Path) -> Result<Vec<PathBuf>, StoreError> {
    match fs::read_dir(dir) {
        Ok(entries) => entries.map(|e| e.map(|e| e.path())).collect::<io::Result<_>>().at("list", dir),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(Vec::new()),
        Err(error) => Err(error).at("list", dir),
    }
}

/// Removes by descriptor: an image's links lead nowhere.
fn remove_dir(path: &Path) -> io::Result<()> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    cellblock_sys::tree::remove(File::open(parent)?.as_fd(), name)
}

/// A directory under a temporary name; removed when dropped, unless it was kept. The layer's lock is held all the time.
struct TempDir {
    path: PathBuf,
    kept: bool,
}

impl TempDir {
    fn create(parent: &Path, hex: &str) -> Result<Self, StoreError> {
        let path = parent.join(format!("{TEMPORARY}{hex}-{}", random()?));
        // The cell's root must be open to all its users; the directory above keeps the host's other users out.
        fs::DirBuilder::new().mode(0o755).create(&path).at("create the directory", &path)?;
        Ok(Self { path, kept: false })
    }

    fn keep(mut self, dir: &Path) -> Result<(), StoreError> {
        let renamed =
            rustix::fs::renameat_with(rustix::fs::CWD, &self.path, rustix::fs::CWD, dir, RenameFlags::NOREPLACE);
        match renamed {
            Ok(()) => self.kept = true,
            // Made by somebody without our lock; it went through the same checks. Ours is dropped.
            Err(rustix::io::Errno::EXIST) => {}
            Err(error) => return Err(io::Error::from(error)).at("rename to", dir),
        }
        Ok(())
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        if !self.kept {
            // Whatever fails here is found and removed by the next sweep.
            let _ = remove_dir(&self.path);
        }
    }
}
