//! Storing an archive as an image: one pass that copies, hashes and checks it, then one commit under the lock.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use oci_spec::image::{ANNOTATION_REF_NAME, Descriptor, ImageManifestBuilder, MediaType, SCHEMA_VERSION};

use super::digest::Digest;
use super::error::{At, StoreError};
use super::file::{TempFile, sync_dir};
use super::layout::{self, annotate, describe, plain_config};
use super::name::ImageName;
use super::{Image, Store};
use crate::archive::{ArchiveError, Compression, Hashing, Limits, Reader, Totals};
use crate::download::alpine;

/// A blob that is written but not yet part of the store.
struct Pending {
    temp: TempFile,
    digest: Digest,
}

impl Store {
    /// Stores the archive `path` (tar, alone or with gzip or zstd) as the image `name`, replacing one of that name. `source` is kept for
    /// people to read. `progress` gets the bytes of the archive done so far.
    ///
    /// The archive is copied, hashed and read from end to end with the strict reader in one pass; what it would refuse to unpack never
    /// gets a name. If its digest is that of a known Alpine release, the version is recorded.
    ///
    /// # Errors
    /// [`StoreError::Archive`] if it is malformed, [`StoreError::Directory`], [`StoreError::NotARoot`], [`StoreError::NoSpace`] and
    /// those of the file system. The store is as before.
    pub fn load(
        &self,
        path: &Path,
        name: &ImageName,
        source: &str,
        progress: &mut dyn FnMut(u64),
    ) -> Result<Image, StoreError> {
        let input = open_archive(path)?;
        let mut temp = self.temporary()?;
        let totals = copy_checked(path, input, &mut temp, progress)?;
        temp.sync()?;
        let missing = || layout::damaged(path, &"its digest is not known");
        let digest = totals.source_digest.map(Digest::from_bytes).ok_or_else(missing)?;
        let diff_id = totals.stream_digest.map(Digest::from_bytes).ok_or_else(missing)?;
        let media_type = match totals.compression {
            Compression::Plain => MediaType::ImageLayer,
            Compression::Gzip => MediaType::ImageLayerGzip,
            Compression::Zstd => MediaType::ImageLayerZstd,
        };
        let layer = describe(media_type, &digest, totals.source_bytes)?;
        let (config, config_blob) = self.document(MediaType::ImageConfig, &plain_config(&diff_id))?;
        let manifest = ImageManifestBuilder::default()
            .schema_version(SCHEMA_VERSION)
            .media_type(MediaType::ImageManifest)
            .config(config)
            .layers(vec![layer])
            .build()
            .map_err(|error| layout::damaged(path, &error))?;
        let (mut descriptor, manifest_blob) = self.document(MediaType::ImageManifest, &manifest)?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_secs());
        let mut notes = vec![
            (ANNOTATION_REF_NAME, name.to_string()),
            (layout::SOURCE, source.to_owned()),
            (layout::STORED, now.to_string()),
        ];
        notes.extend(alpine::pin_of(&digest).map(|pin| (layout::VERSION, pin.version.to_owned())));
        annotate(&mut descriptor, &notes);
        self.commit(name, descriptor, [Pending { temp, digest }, config_blob, manifest_blob])
    }

    /// A temporary file among the blobs.
    fn temporary(&self) -> Result<TempFile, StoreError> {
        let _lock = self.lock()?;
        TempFile::create(&self.layout.blobs())
    }

    fn document(
        &self,
        media_type: MediaType,
        value: &impl serde::Serialize,
    ) -> Result<(Descriptor, Pending), StoreError> {
        let text = serde_json::to_vec(value).map_err(|error| layout::damaged(&self.layout.index_path(), &error))?;
        let digest = Digest::of(&text);
        let mut temp = self.temporary()?;
        temp.write_all(&text).at("write", temp.path())?;
        temp.sync()?;
        Ok((describe(media_type, &digest, text.len() as u64)?, Pending { temp, digest }))
    }

    /// Gives the blobs their names, then the image its own. Between the two a kill leaves blobs that nothing refers to: the next change
    /// removes them.
    fn commit<const N: usize>(
        &self,
        name: &ImageName,
        descriptor: Descriptor,
        blobs: [Pending; N],
    ) -> Result<Image, StoreError> {
        let _lock = self.lock()?;
        for blob in blobs {
            // Also over one that is there: it may have been damaged since.
            blob.temp.keep(&self.layout.blob(&blob.digest))?;
        }
        sync_dir(&self.layout.blobs())?;
        let mut index = self.layout.index()?;
        layout::take_name(&mut index, name);
        index.set_manifests([index.manifests().as_slice(), std::slice::from_ref(&descriptor)].concat());
        self.write_index(&index)?;
        // The image is stored: that what it replaced could not be cleared away is no failure of it.
        let _ = self.collect(&index);
        self.image(name, &descriptor)
    }
}

fn open_archive(path: &Path) -> Result<File, StoreError> {
    // A named pipe would block in open(2).
    let metadata = std::fs::metadata(path).at("open", path)?;
    if metadata.is_dir() {
        return Err(StoreError::Directory { path: path.to_owned() });
    }
    if !metadata.is_file() {
        return Err(StoreError::NotAFile { path: path.to_owned() });
    }
    File::open(path).at("open", path)
}

fn copy_checked(
    path: &Path,
    input: File,
    temp: &mut TempFile,
    progress: &mut dyn FnMut(u64),
) -> Result<Totals, StoreError> {
    let temp_path = temp.path().to_owned();
    let mut write_error = None;
    let read = scan(Tee { input, output: temp, error: &mut write_error }, progress);
    // The reader only sees that its source failed; on which side is known here.
    if let Some(error) = write_error {
        return Err(error).at("write", &temp_path);
    }
    let (totals, contents) =
        read.map_err(|source| StoreError::Archive { path: path.to_owned(), source: source.into() })?;
    match contents.foreign() {
        Some(kind) => Err(StoreError::NotARoot { path: path.to_owned(), kind }),
        None => totals.ok_or_else(|| layout::damaged(path, &"it has no end")),
    }
}

fn scan(tee: Tee<'_>, progress: &mut dyn FnMut(u64)) -> Result<(Option<Totals>, Contents), ArchiveError> {
    let mut contents = Contents::default();
    let mut reader = Reader::new(tee, Limits::STANDARD, Hashing::Both)?;
    while let Some(entry) = reader.next_entry()? {
        contents.note(&entry.path);
        progress(reader.source_bytes());
    }
    Ok((reader.totals(), contents))
}

/// What an archive seems to be, by the names at its top. Images in other archive formats look like a root file system without programs:
/// the first start would fail with "command not found", far from the cause.
#[derive(Default)]
struct Contents {
    oci_layout: bool,
    docker_manifest: bool,
    programs: bool,
}

impl Contents {
    fn note(&mut self, path: &[u8]) {
        let top = path.split(|b| *b == b'/').next().unwrap_or_default();
        match path {
            b"oci-layout" => self.oci_layout = true,
            b"manifest.json" => self.docker_manifest = true,
            _ => self.programs |= matches!(top, b"bin" | b"usr" | b"etc" | b"nix" | b"gnu"),
        }
    }

    fn foreign(&self) -> Option<&'static str> {
        match self {
            Self { programs: true, .. } => None,
            Self { oci_layout: true, .. } => {
                Some("an OCI image archive, which cannot be loaded yet: export a container's file system instead")
            }
            Self { docker_manifest: true, .. } => {
                Some("the output of `docker save`, which cannot be loaded yet: use that of `docker export`")
            }
            Self { .. } => None,
        }
    }
}

/// Hands on what is read, and writes it away.
struct Tee<'a> {
    input: File,
    output: &'a mut TempFile,
    error: &'a mut Option<io::Error>,
}

impl Read for Tee<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.input.read(buffer)?;
        if let Err(error) = self.output.write_all(&buffer[..n]) {
            *self.error = Some(error);
            return Err(io::Error::other("the copy could not be written"));
        }
        Ok(n)
    }
}
