//! The image store: an OCI image layout (image-spec, `image-layout.md`) and the layers unpacked from it.
//!
//! ```text
//! images/oci-layout, index.json, blobs/sha256/<hex>     content by digest; names are annotations in the index
//! images/lock                                           flock(2) of whoever changes the index
//! layers/<key>/<diff-id>/                               an unpacked layer; key says who owns the files (Ids::layer_key)
//! ```
//! Every write goes to a temporary name, is synced, and renamed. What a killed process leaves is a `.tmp-…` that the next change
//! removes.

mod documents;
mod files;
mod temporary;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Seek};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

pub use documents::Descriptor;
use documents::{Config, Index, Layers, Manifest};
pub use files::digest_text;
use files::{copy, entries, failed, hex_of, remove, unique, verify, write_atomic};
use temporary::Temporary;

use crate::archive::{Compression, Hashing, Limits};
use crate::unpack::{Options, OverlayForm, Ownership, UnpackError, unpack};

/// Why the store cannot do something.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A file or folder of the store, or the archive to load.
    #[error("{what} {path}: {source}", path = path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The disk is full.
    #[error("no space left on the device of {path}", path = path.display())]
    NoSpace {
        /// What was being written.
        path: PathBuf,
    },
    /// A document of the store is not what we write.
    #[error("{path} is damaged: {source}", path = path.display())]
    Damaged {
        /// Which.
        path: PathBuf,
        /// In what way.
        source: serde_json::Error,
    },
    /// A blob's content is not what its name says: it was changed after it was stored.
    #[error("the layer {digest} of image `{image}` was changed on disk: its content has another checksum")]
    Tampered {
        /// The image.
        image: String,
        /// What it should be.
        digest: String,
    },
    /// The archive cannot be a layer.
    #[error("{path} cannot be used as a root file system: {source}", path = path.display())]
    Archive {
        /// The archive.
        path: PathBuf,
        /// Why.
        source: UnpackError,
    },
    /// Not a name.
    #[error("`{0}` cannot be the name of an image")]
    BadName(String),
    /// No such image.
    #[error("there is no image `{0}` in the store")]
    NoImage(String),
}

/// A stored image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Image {
    /// Its name.
    pub name: String,
    /// Digest of its manifest.
    pub digest: String,
    /// Bytes of its blobs.
    pub size: u64,
    /// Where it came from: a URL or a file's name.
    pub source: String,
    /// When it was stored, seconds since 1970.
    pub stored: u64,
    /// Its layers, the lowest first, each with the digest of its uncompressed form.
    pub layers: Vec<(Descriptor, String)>,
}

/// Names in the index (image-spec, `annotations.md`), and ours.
const NAME: &str = "org.opencontainers.image.ref.name";
const SOURCE: &str = "io.cellblock.source";
const STORED: &str = "io.cellblock.stored";

/// Names with a meaning of their own.
const RESERVED: &[&str] = &["host", "auto"];

/// The store below a data directory.
#[derive(Clone, Debug)]
pub struct Store {
    root: PathBuf,
}

/// A layer in the form that one kind of cell needs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layer {
    /// The image it belongs to, for messages.
    pub image: String,
    /// The archive.
    pub blob: PathBuf,
    /// Digest of the archive, `sha256:…`.
    pub digest: String,
    /// Digest of the archive uncompressed.
    pub diff_id: String,
    /// Where the unpacked layer is, or is to be.
    pub dir: PathBuf,
}

impl Layer {
    /// Whether it is unpacked.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.dir.is_dir()
    }

    /// Unpacks it, verifying both digests before it counts. Another process may do the same at the same time: the first wins.
    ///
    /// # Errors
    /// See [`StoreError`]; nothing is left behind.
    pub fn unpack(&self, ownership: Ownership, progress: &mut dyn FnMut(u64)) -> Result<(), StoreError> {
        let parent = self.dir.parent().unwrap_or(Path::new("/"));
        std::fs::create_dir_all(parent).map_err(failed("cannot make", parent))?;
        let temporary = Temporary::make(parent).map_err(failed("cannot make a folder in", parent))?;
        let temporary_path = &temporary.path;
        let result = self.unpack_to(temporary_path, ownership, progress);
        let result = result.and_then(|()| match std::fs::rename(temporary_path, &self.dir) {
            // Somebody else was faster; theirs has passed the same checks.
            Err(_) if self.is_ready() => {
                remove(temporary_path);
                Ok(())
            }
            other => other.map_err(failed("cannot rename", temporary_path)),
        });
        if result.is_err() {
            remove(temporary_path);
        }
        result
    }

    fn unpack_to(&self, dir: &Path, ownership: Ownership, progress: &mut dyn FnMut(u64)) -> Result<(), StoreError> {
        let blob = File::open(&self.blob).map_err(failed("cannot open", &self.blob))?;
        let dest = File::open(dir).map_err(failed("cannot open", dir))?;
        let options = Options {
            ownership,
            // Every cell's overlay is mounted in a user namespace, where the marks are user.* attributes.
            overlay_form: OverlayForm::User,
            devices: false,
            limits: Limits::STANDARD,
            hashing: Hashing::Both,
        };
        let summary =
            unpack(blob, dest.as_fd(), &options, &mut |p| progress(p.archive_bytes)).map_err(|error| match error {
                UnpackError::NoSpace { .. } => StoreError::NoSpace { path: dir.to_owned() },
                source => StoreError::Archive { path: self.blob.clone(), source },
            })?;
        let same = |found: Option<[u8; 32]>, wanted: &str| found.is_some_and(|d| digest_text(&d) == wanted);
        if !same(summary.totals.source_digest, &self.digest) || !same(summary.totals.stream_digest, &self.diff_id) {
            return Err(StoreError::Tampered { image: self.image.clone(), digest: self.digest.clone() });
        }
        // One for all: the rename must not become durable before what it names.
        rustix::fs::syncfs(&dest).map_err(|e| failed("cannot sync", dir)(e.into()))
    }
}

impl Store {
    /// The store below `data`, which need not exist yet.
    #[must_use]
    pub fn new(data: &Path) -> Self {
        Self { root: data.to_owned() }
    }

    fn images(&self) -> PathBuf {
        self.root.join("images")
    }

    fn blob(&self, digest: &str) -> PathBuf {
        self.images().join("blobs/sha256").join(digest.trim_start_matches("sha256:"))
    }

    /// All images by name.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn list(&self) -> Result<Vec<Image>, StoreError> {
        let mut images = self.index()?.manifests.iter().map(|d| self.image(d)).collect::<Result<Vec<_>, _>>()?;
        images.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(images)
    }

    /// The image `name`; a name without a tag also finds the only or newest image of that repository.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn find(&self, name: &str) -> Result<Option<Image>, StoreError> {
        let images = self.list()?;
        let exact = images.iter().find(|i| i.name == name);
        let prefix = format!("{name}:");
        let tagged = || images.iter().filter(|i| i.name.starts_with(&prefix)).max_by_key(|i| i.stored);
        Ok(exact.or_else(|| if name.contains(':') { None } else { tagged() }).cloned())
    }

    /// Stores the archive `path` as the image `name`; `progress` gets the bytes of the archive done so far, twice (copied, checked).
    ///
    /// # Errors
    /// See [`StoreError`]; the store is as before.
    pub fn load(
        &self,
        path: &Path,
        name: &str,
        source: &str,
        progress: &mut dyn FnMut(u64),
    ) -> Result<Image, StoreError> {
        check_name(name)?;
        let _lock = self.lock()?;
        let blobs = self.images().join("blobs/sha256");
        let temporary = blobs.join(format!(".tmp-{}-{}", std::process::id(), unique()));
        let result = self.store(path, &temporary, name, source, progress);
        if result.is_err() {
            let _ = std::fs::remove_file(&temporary);
        }
        result
    }

    fn store(
        &self,
        path: &Path,
        temporary: &Path,
        name: &str,
        source: &str,
        progress: &mut dyn FnMut(u64),
    ) -> Result<Image, StoreError> {
        let size = copy(path, temporary, progress)?;
        let mut file = File::open(temporary).map_err(failed("cannot open", temporary))?;
        file.rewind().map_err(failed("cannot read", temporary))?;
        let totals = verify(file, &mut |done| progress(size + done))
            .map_err(|source| StoreError::Archive { path: path.to_owned(), source })?;
        let digests = totals.and_then(|t| Some((t, t.source_digest?, t.stream_digest?)));
        let Some((totals, digest, diff_id)) = digests else {
            return Err(failed("cannot read", path)(io::ErrorKind::UnexpectedEof.into()));
        };
        let digest = digest_text(&digest);
        std::fs::rename(temporary, self.blob(&digest)).map_err(failed("cannot rename", temporary))?;
        let suffix = match totals.compression {
            Compression::Plain => "",
            Compression::Gzip => "+gzip",
            Compression::Zstd => "+zstd",
        };
        let layer = Descriptor {
            media_type: format!("application/vnd.oci.image.layer.v1.tar{suffix}"),
            digest,
            size: totals.source_bytes,
            annotations: BTreeMap::new(),
        };
        let config = Config {
            architecture: if cfg!(target_arch = "x86_64") { "amd64".into() } else { "arm64".into() },
            os: "linux".into(),
            rootfs: Layers { r#type: "layers".into(), diff_ids: vec![digest_text(&diff_id)] },
        };
        let config = self.write_blob("application/vnd.oci.image.config.v1+json", &config)?;
        let media_type = "application/vnd.oci.image.manifest.v1+json";
        let manifest = Manifest { schema_version: 2, media_type: media_type.into(), config, layers: vec![layer] };
        let mut manifest = self.write_blob(media_type, &manifest)?;
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |d| d.as_secs());
        manifest.annotations = [(NAME, name.to_owned()), (SOURCE, source.to_owned()), (STORED, now.to_string())]
            .map(|(k, v)| (k.to_owned(), v))
            .into();
        let mut index = self.index()?;
        index.manifests.retain(|d| d.annotations.get(NAME).map(String::as_str) != Some(name));
        index.manifests.push(manifest.clone());
        self.write_index(&index)?;
        self.collect(&index)?;
        self.image(&manifest)
    }

    /// Takes the name away, and the blobs nobody else uses. Returns the unpacked layers nobody uses any more: their files may belong to
    /// ids that only exist in a user namespace, so the caller removes them there.
    ///
    /// # Errors
    /// [`StoreError::NoImage`], and those of the file system.
    pub fn remove(&self, name: &str) -> Result<Vec<PathBuf>, StoreError> {
        let _lock = self.lock()?;
        let image = self.find(name)?.ok_or_else(|| StoreError::NoImage(name.into()))?;
        let mut index = self.index()?;
        index.manifests.retain(|d| d.annotations.get(NAME) != Some(&image.name));
        self.write_index(&index)?;
        self.collect(&index)?;
        self.unused_layers()
    }

    /// Unpacked layers that belong to no image.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn unused_layers(&self) -> Result<Vec<PathBuf>, StoreError> {
        let used: Vec<String> =
            self.list()?.into_iter().flat_map(|i| i.layers).map(|(_, diff_id)| hex_of(&diff_id).to_owned()).collect();
        let mut unused = Vec::new();
        for key in entries(&self.root.join("layers")) {
            unused.extend(
                entries(&key)
                    .into_iter()
                    .filter(|dir| !temporary::is_in_use(dir))
                    .filter(|dir| !used.iter().any(|u| dir.file_name().is_some_and(|n| n == u.as_str()))),
            );
        }
        Ok(unused)
    }

    /// The layers of `image`, the topmost first, in the form named `key`.
    #[must_use]
    pub fn layers(&self, image: &Image, key: &str) -> Vec<Layer> {
        let layer = |(descriptor, diff_id): &(Descriptor, String)| Layer {
            image: image.name.clone(),
            blob: self.blob(&descriptor.digest),
            digest: descriptor.digest.clone(),
            diff_id: diff_id.clone(),
            dir: self.root.join("layers").join(key).join(hex_of(diff_id)),
        };
        image.layers.iter().rev().map(layer).collect()
    }

    fn image(&self, descriptor: &Descriptor) -> Result<Image, StoreError> {
        let manifest: Manifest = self.read_blob(&descriptor.digest)?;
        let config: Config = self.read_blob(&manifest.config.digest)?;
        let note = |key: &str| descriptor.annotations.get(key).cloned().unwrap_or_default();
        Ok(Image {
            name: note(NAME),
            digest: descriptor.digest.clone(),
            size: manifest.layers.iter().map(|l| l.size).sum::<u64>() + manifest.config.size + descriptor.size,
            source: note(SOURCE),
            stored: note(STORED).parse().unwrap_or(0),
            layers: manifest.layers.into_iter().zip(config.rootfs.diff_ids).collect(),
        })
    }

    fn index(&self) -> Result<Index, StoreError> {
        let path = self.images().join("index.json");
        match std::fs::read(&path) {
            Ok(text) => serde_json::from_slice(&text).map_err(|source| StoreError::Damaged { path, source }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Ok(Index { schema_version: 2, manifests: Vec::new() })
            }
            Err(error) => Err(failed("cannot read", &path)(error)),
        }
    }

    fn write_index(&self, index: &Index) -> Result<(), StoreError> {
        let text =
            serde_json::to_vec_pretty(index).map_err(|source| StoreError::Damaged { path: self.images(), source })?;
        write_atomic(&self.images().join("index.json"), &text)
    }

    fn write_blob(&self, media_type: &str, value: &impl Serialize) -> Result<Descriptor, StoreError> {
        let text = serde_json::to_vec(value).map_err(|source| StoreError::Damaged { path: self.images(), source })?;
        let digest = digest_text(&Sha256::digest(&text).into());
        write_atomic(&self.blob(&digest), &text)?;
        Ok(Descriptor { media_type: media_type.into(), digest, size: text.len() as u64, annotations: BTreeMap::new() })
    }

    fn read_blob<T: for<'de> Deserialize<'de>>(&self, digest: &str) -> Result<T, StoreError> {
        let path = self.blob(digest);
        let text = std::fs::read(&path).map_err(failed("cannot read", &path))?;
        if digest_text(&Sha256::digest(&text).into()) != digest {
            return Err(StoreError::Tampered { image: path.display().to_string(), digest: digest.into() });
        }
        serde_json::from_slice(&text).map_err(|source| StoreError::Damaged { path, source })
    }

    /// Makes the layout where it is missing, and locks it against other changes.
    fn lock(&self) -> Result<File, StoreError> {
        let images = self.images();
        let blobs = images.join("blobs/sha256");
        std::fs::create_dir_all(&blobs).map_err(failed("cannot make", &blobs))?;
        let path = images.join("lock");
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .map_err(failed("cannot open", &path))?;
        rustix::fs::flock(&file, FlockOperation::LockExclusive).map_err(|e| failed("cannot lock", &path)(e.into()))?;
        // Nobody else writes here now: what is unfinished is a dead process's.
        for left in entries(&images).into_iter().filter(|path| temporary::is_unfinished(path)) {
            let _ = std::fs::remove_file(left);
        }
        let layout = images.join("oci-layout");
        if !layout.exists() {
            write_atomic(&layout, br#"{"imageLayoutVersion":"1.0.0"}"#)?;
        }
        Ok(file)
    }

    /// Removes blobs that no manifest of `index` reaches, and what killed processes left.
    fn collect(&self, index: &Index) -> Result<(), StoreError> {
        let mut used = Vec::new();
        for descriptor in &index.manifests {
            let manifest: Manifest = self.read_blob(&descriptor.digest)?;
            used.push(descriptor.digest.clone());
            used.push(manifest.config.digest);
            used.extend(manifest.layers.into_iter().map(|l| l.digest));
        }
        for path in entries(&self.images().join("blobs/sha256")) {
            let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
            if !used.iter().any(|digest| hex_of(digest) == name) {
                let _ = std::fs::remove_file(&path);
            }
        }
        Ok(())
    }
}

/// Whether `name` can name an image: `[a-z0-9]` first, then also `._/-`, and a tag after `:`.
///
/// # Errors
/// [`StoreError::BadName`].
pub fn check_name(name: &str) -> Result<(), StoreError> {
    let plain = |part: &str, more: &str| {
        part.starts_with(|c: char| c.is_ascii_alphanumeric())
            && part.chars().all(|c| c.is_ascii_alphanumeric() || more.contains(c))
    };
    let (repository, tag) = name.split_once(':').map_or((name, None), |(r, t)| (r, Some(t)));
    let lower = !repository.chars().any(|c| c.is_ascii_uppercase());
    let fine = plain(repository, "._/-") && lower && tag.is_none_or(|t| plain(t, "._-")) && name.len() <= 128;
    if fine && !RESERVED.contains(&name) { Ok(()) } else { Err(StoreError::BadName(name.into())) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for good in ["alpine", "alpine:3.20.3", "my/image-x", "a.b_c"] {
            assert!(check_name(good).is_ok(), "{good}");
        }
        for bad in ["", "host", "auto", "Alpine", "../x", "a:b:c", "-a", "a:", "a b", "/x"] {
            assert!(check_name(bad).is_err(), "{bad}");
        }
    }
}
