//! The image store: an OCI image layout (image-spec 1.1, `image-layout.md`), and the layers unpacked from it.
//!
//! ```text
//! images/oci-layout, index.json, blobs/sha256/<hex>    content by digest; names are annotations in the index
//! images/.lock                                         flock(2): held while the index changes or a temporary file is made
//! layers/<key>/<diff-id>/                              an unpacked layer; <key> says who owns its files (Ids::layer_key)
//! layers/<key>/.lock-<diff-id>                         flock(2): exclusive while it is made or removed, shared while a cell stands on it
//! downloads/                                           what `download` is fetching
//! ```
//! Every write goes to a `.tmp-…`, is synced, and renamed. A process that is killed leaves at most such a name with a lock that is
//! free again; the next change removes it. Files of a layer can belong to ids that only exist in OUTER: what cannot be removed from
//! where the store was called is handed back, to be removed there.
//!
//! The same archive always gives the same image (digest): what depends on the day and the place is in annotations of the index.

mod digest;
mod error;
mod file;
mod layer;
mod layout;
mod load;
mod name;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use oci_spec::image::{Descriptor, ImageConfiguration, ImageIndex, ImageManifest, MediaType};
use serde::{Deserialize, Serialize};

pub use digest::{BadDigest, Digest, HashReader};
pub use error::StoreError;
pub use file::FileLock;
pub use layer::{Layer, LayerState};
pub use name::{BadName, ImageName, RESERVED};

use error::At;
use file::{make_private_dir, sweep_files, write_atomic};
use layout::{Layout, annotation, digest_of, parse_digest, ref_name};

/// The store below a data directory. Reading needs no lock: every document is replaced as a whole.
#[derive(Clone, Debug)]
pub struct Store {
    layout: Layout,
    layers: PathBuf,
    downloads: PathBuf,
}

/// A stored image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Image {
    /// Its name.
    pub name: ImageName,
    /// Digest of its manifest: the same wherever the same archive is stored.
    pub digest: Digest,
    /// Bytes of all its blobs; blobs shared with another image count for both.
    pub size: u64,
    /// Where it came from: a URL or a path, for people to read.
    pub source: String,
    /// When it was stored, in seconds since 1970.
    pub stored: u64,
    /// The release, if it is known.
    pub version: Option<String>,
    /// Go's name of the architecture (`amd64`), as the image's configuration says.
    pub architecture: String,
    /// Its layers, the lowest first, as in the manifest. Overlayfs wants them the other way round: see [`Store::layer_plan`].
    pub layers: Vec<ImageLayer>,
}

/// A layer of an image, as the manifest and the configuration describe it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImageLayer {
    /// Digest of the archive as it is stored.
    pub digest: Digest,
    /// Bytes of the archive as it is stored.
    pub size: u64,
    /// Its media type, which tells the compression.
    pub media_type: String,
    /// Digest of the archive uncompressed.
    pub diff_id: Digest,
}

/// Everything about an image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Inspection {
    /// The image itself.
    pub image: Image,
    /// The manifest as it is stored.
    pub manifest: ImageManifest,
    /// The configuration as it is stored.
    pub config: ImageConfiguration,
    /// Directories with unpacked layers.
    pub unpacked: Vec<PathBuf>,
}

/// A row of [`Store::list`].
#[derive(Debug)]
pub struct Listed {
    /// Its name.
    pub name: ImageName,
    /// The image, or why it cannot be read. One that is damaged neither hides the others nor itself.
    pub image: Result<Image, StoreError>,
}

/// What [`Store::remove`] and [`Store::sweep`] did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Removed {
    /// Bytes of blobs that were freed.
    pub bytes: u64,
    /// Directories that could not be removed from here, for ids that only exist in OUTER own what is in them. To be removed there with
    /// [`cellblock_sys::tree::remove`]. They have `.tmp-` names already: nothing uses them, and forgetting them does no harm.
    pub leftovers: Vec<PathBuf>,
    /// Unpacked layers that nothing refers to but a running cell stands on. The next [`Store::sweep`] takes them.
    pub in_use: Vec<PathBuf>,
}

impl Store {
    /// The store below `data`, which need not exist yet: nothing is made before something is stored.
    #[must_use]
    pub fn new(data: &Path) -> Self {
        Self {
            layout: Layout::new(data.join("images")),
            layers: data.join("layers"),
            downloads: data.join("downloads"),
        }
    }

    /// The directory for what is being fetched, made now.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub fn downloads(&self) -> Result<&Path, StoreError> {
        make_private_dir(&self.downloads)?;
        Ok(&self.downloads)
    }

    /// All images by name.
    ///
    /// # Errors
    /// If the index cannot be read.
    pub fn list(&self) -> Result<Vec<Listed>, StoreError> {
        let index = self.layout.index()?;
        let named = |d: &Descriptor| Some((ref_name(d)?.parse::<ImageName>().ok()?, d.clone()));
        let mut images: Vec<Listed> = index
            .manifests()
            .iter()
            .filter_map(named)
            .map(|(name, descriptor)| Listed { image: self.image(&name, &descriptor), name })
            .collect();
        images.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(images)
    }

    /// The image with this name. Without a tag it is also found if all that is stored are tagged ones: the one stored last.
    ///
    /// # Errors
    /// If the index or the image cannot be read. That there is none is `None`.
    pub fn find(&self, name: &ImageName) -> Result<Option<Image>, StoreError> {
        match self.descriptor(name)? {
            Some((name, descriptor)) => self.image(&name, &descriptor).map(Some),
            None => Ok(None),
        }
    }

    fn descriptor(&self, name: &ImageName) -> Result<Option<(ImageName, Descriptor)>, StoreError> {
        let index = self.layout.index()?;
        let exact = index.manifests().iter().find(|d| ref_name(d) == Some(name.as_str()));
        if let Some(descriptor) = exact {
            return Ok(Some((name.clone(), descriptor.clone())));
        }
        if name.tag().is_some() {
            return Ok(None);
        }
        let tagged = index.manifests().iter().filter_map(|d| Some((ref_name(d)?.parse::<ImageName>().ok()?, d)));
        let newest = tagged.filter(|(n, _)| n.repository() == name.as_str()).max_by_key(|(_, d)| stored(d));
        Ok(newest.map(|(name, descriptor)| (name, descriptor.clone())))
    }

    /// Everything about an image.
    ///
    /// # Errors
    /// [`StoreError::NoImage`], or if it cannot be read.
    pub fn inspect(&self, name: &ImageName) -> Result<Inspection, StoreError> {
        let (name, descriptor) = self.descriptor(name)?.ok_or_else(|| StoreError::NoImage(name.clone()))?;
        let image = self.image(&name, &descriptor)?;
        let (manifest, config) = self.layout.image(&descriptor)?;
        let unpacked = image.layers.iter().flat_map(|layer| self.unpacked(&layer.diff_id)).collect();
        Ok(Inspection { image, manifest, config, unpacked })
    }

    /// Reads every blob of every image again. Empty: all is well.
    ///
    /// # Errors
    /// If the index cannot be read.
    pub fn verify(&self, progress: &mut dyn FnMut(u64)) -> Result<Vec<StoreError>, StoreError> {
        let mut problems = Vec::new();
        let mut seen = BTreeSet::new();
        let mut done = 0;
        for listed in self.list()? {
            let image = match listed.image {
                Ok(image) => image,
                Err(problem) => {
                    problems.push(problem);
                    continue;
                }
            };
            for layer in image.layers.iter().filter(|layer| seen.insert(layer.digest)) {
                let checked = layer::verify_blob(&self.layout.blob(&layer.digest), layer, &image.name, &mut |n| {
                    progress(done + n)
                });
                problems.extend(checked.err());
                done += layer.size;
            }
        }
        Ok(problems)
    }

    /// Takes the name away, and with it the blobs and the unpacked layers that no other image uses.
    ///
    /// # Errors
    /// [`StoreError::NoImage`]; those of the file system.
    pub fn remove(&self, name: &ImageName) -> Result<Removed, StoreError> {
        let _lock = self.lock()?;
        let mut index = self.layout.index()?;
        if !layout::take_name(&mut index, name) {
            return Err(StoreError::NoImage(name.clone()));
        }
        self.write_index(&index)?;
        self.collect(&index)
    }

    /// Removes what no image uses, and what killed processes have left. Called in OUTER it can remove everything.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn sweep(&self) -> Result<Removed, StoreError> {
        if !self.layout.root().exists() {
            return Ok(Removed::default());
        }
        let _lock = self.lock()?;
        self.collect(&self.layout.index()?)
    }

    /// The layers of `image` in the form that cells with the id scheme `key` need ([`cellblock_bundle::Ids::layer_key`]), the topmost
    /// first, as overlayfs orders `lowerdir`.
    #[must_use]
    pub fn layer_plan(&self, image: &Image, key: &str) -> Vec<LayerState> {
        let layer = |layer: &ImageLayer| Layer {
            image: image.name.clone(),
            blob: self.layout.blob(&layer.digest),
            digest: layer.digest,
            diff_id: layer.diff_id,
            dir: self.layers.join(key).join(layer.diff_id.hex()),
        };
        image.layers.iter().rev().map(|l| LayerState::of(layer(l))).collect()
    }

    fn image(&self, name: &ImageName, descriptor: &Descriptor) -> Result<Image, StoreError> {
        let digest = digest_of(&self.layout.index_path(), descriptor)?;
        let path = self.layout.blob(&digest);
        if !matches!(descriptor.media_type(), MediaType::ImageManifest) {
            return Err(layout::damaged(&path, &"it is no image manifest"));
        }
        let (manifest, config) = self.layout.image(descriptor)?;
        let diff_ids = config.rootfs().diff_ids();
        if diff_ids.len() != manifest.layers().len() || diff_ids.is_empty() {
            return Err(layout::damaged(&path, &"its layers and its configuration's diff-ids differ in number"));
        }
        let layers = manifest.layers().iter().zip(diff_ids).map(|(layer, diff_id)| {
            Ok(ImageLayer {
                digest: digest_of(&path, layer)?,
                size: layer.size(),
                media_type: layer.media_type().to_string(),
                diff_id: parse_digest(&path, diff_id)?,
            })
        });
        let layers = layers.collect::<Result<Vec<_>, StoreError>>()?;
        Ok(Image {
            name: name.clone(),
            digest,
            size: layers.iter().map(|l| l.size).sum::<u64>() + manifest.config().size() + descriptor.size(),
            source: annotation(descriptor, layout::SOURCE).unwrap_or_default().to_owned(),
            stored: stored(descriptor),
            version: annotation(descriptor, layout::VERSION).map(str::to_owned),
            architecture: config.architecture().to_string(),
            layers,
        })
    }

    /// Makes the layout where it is missing, and locks it against other changes.
    fn lock(&self) -> Result<FileLock, StoreError> {
        let blobs = self.layout.blobs();
        make_private_dir(&blobs)?;
        let lock = FileLock::exclusive(&self.layout.root().join(".lock"))?;
        let marker = self.layout.marker();
        match layout::read(&marker)? {
            Some(bytes) => {
                let found: oci_spec::image::OciLayout = layout::parse(&marker, &bytes)?;
                let version = found.image_layout_version();
                if version != layout::LAYOUT_VERSION {
                    return Err(StoreError::Layout { path: marker, version: version.clone() });
                }
            }
            None => {
                let text = format!("{{\"imageLayoutVersion\":\"{}\"}}\n", layout::LAYOUT_VERSION);
                write_atomic(&marker, text.as_bytes())?;
            }
        }
        Ok(lock)
    }

    /// To be called under the lock.
    fn write_index(&self, index: &ImageIndex) -> Result<(), StoreError> {
        let path = self.layout.index_path();
        let mut text = serde_json::to_vec_pretty(index).map_err(|e| layout::damaged(&path, &e))?;
        text.push(b'\n');
        write_atomic(&path, &text)
    }

    /// Removes blobs and layers that `index` does not reach, and what killed processes have left. To be called under the lock.
    fn collect(&self, index: &ImageIndex) -> Result<Removed, StoreError> {
        sweep_files(self.layout.root())?;
        sweep_files(&self.layout.blobs())?;
        let mut removed = Removed::default();
        // While one image cannot be read, nobody knows what it needs: then everything stays.
        let Some(reached) = self.reached(index) else { return Ok(removed) };
        let blobs = self.layout.blobs();
        for entry in std::fs::read_dir(&blobs).at("list", &blobs)? {
            let entry = entry.at("list", &blobs)?;
            let Some(digest) = entry.file_name().to_str().and_then(|name| name.parse::<Digest>().ok()) else {
                continue;
            };
            if !reached.blobs.contains(&digest) {
                let path = entry.path();
                removed.bytes += entry.metadata().at("look at", &path)?.len();
                std::fs::remove_file(&path).at("remove", &path)?;
            }
        }
        layer::collect(&self.layers, &reached.diff_ids, &mut removed)?;
        Ok(removed)
    }

    fn reached(&self, index: &ImageIndex) -> Option<Reached> {
        let path = self.layout.index_path();
        let mut reached = Reached::default();
        for descriptor in index.manifests() {
            reached.blobs.insert(digest_of(&path, descriptor).ok()?);
            let (manifest, config) = self.layout.image(descriptor).ok()?;
            for part in manifest.layers().iter().chain([manifest.config()]) {
                reached.blobs.insert(digest_of(&path, part).ok()?);
            }
            for diff_id in config.rootfs().diff_ids() {
                reached.diff_ids.insert(diff_id.parse().ok()?);
            }
        }
        Some(reached)
    }

    /// Where a layer is unpacked, under all keys.
    fn unpacked(&self, diff_id: &Digest) -> Vec<PathBuf> {
        let keys = std::fs::read_dir(&self.layers).into_iter().flatten().flatten();
        keys.map(|key| key.path().join(diff_id.hex())).filter(|dir| dir.is_dir()).collect()
    }
}

/// What the images of an index need.
#[derive(Default)]
struct Reached {
    blobs: BTreeSet<Digest>,
    diff_ids: BTreeSet<Digest>,
}

fn stored(descriptor: &Descriptor) -> u64 {
    annotation(descriptor, layout::STORED).and_then(|text| text.parse().ok()).unwrap_or(0)
}
