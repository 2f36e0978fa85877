//! The documents of an OCI image layout: `oci-layout`, `index.json`, manifests and configurations (image-spec 1.1).
//!
//! They are written by us, but a person may copy a layout in from elsewhere: sizes are bounded and digests compared before a document
//! is parsed.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use oci_spec::image::{
    ANNOTATION_REF_NAME, Arch, Descriptor, ImageConfiguration, ImageIndex, ImageManifest, MediaType, Os, RootFs,
    SCHEMA_VERSION,
};
use serde::de::DeserializeOwned;

use super::digest::Digest;
use super::error::{At, StoreError};
use super::name::ImageName;

/// The version of the layout, image-spec `image-layout.md`.
pub(super) const LAYOUT_VERSION: &str = "1.0.0";

/// Ours: where an image came from.
pub(super) const SOURCE: &str = "io.cellblock.source";
/// Ours: when it was stored, seconds since 1970. Not in the manifest, so that the same archive always gives the same image.
pub(super) const STORED: &str = "io.cellblock.stored";
/// Ours: the release, if it is a known one.
pub(super) const VERSION: &str = "org.opencontainers.image.version";

/// Bytes of a document: what registries accept for a manifest (distribution-spec, "Pushing Manifests").
const MAX_DOCUMENT: u64 = 4 << 20;

/// Where everything is below `images/`.
#[derive(Clone, Debug)]
pub(super) struct Layout {
    root: PathBuf,
}

impl Layout {
    pub(super) const fn new(root: PathBuf) -> Self {
        Self { root }
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    pub(super) fn blobs(&self) -> PathBuf {
        self.root.join("blobs/sha256")
    }

    pub(super) fn blob(&self, digest: &Digest) -> PathBuf {
        self.blobs().join(digest.hex())
    }

    pub(super) fn index_path(&self) -> PathBuf {
        self.root.join("index.json")
    }

    pub(super) fn marker(&self) -> PathBuf {
        self.root.join("oci-layout")
    }

    /// The index; an empty one if nothing was stored yet.
    pub(super) fn index(&self) -> Result<ImageIndex, StoreError> {
        let path = self.index_path();
        let Some(bytes) = read(&path)? else {
            let mut index = ImageIndex::default();
            index.set_schema_version(SCHEMA_VERSION).set_media_type(Some(MediaType::ImageIndex));
            return Ok(index);
        };
        parse(&path, &bytes)
    }

    /// A manifest with its configuration.
    pub(super) fn image(&self, manifest: &Descriptor) -> Result<(ImageManifest, ImageConfiguration), StoreError> {
        let path = self.index_path();
        let manifest: ImageManifest = self.document(&digest_of(&path, manifest)?)?;
        let config: ImageConfiguration = self.document(&digest_of(&path, manifest.config())?)?;
        Ok((manifest, config))
    }

    /// The document with this digest.
    pub(super) fn document<T: DeserializeOwned>(&self, digest: &Digest) -> Result<T, StoreError> {
        let path = self.blob(digest);
        let bytes =
            read(&path)?.ok_or_else(|| StoreError::Missing { path: path.clone(), image: digest.to_string() })?;
        let got = Digest::of(&bytes);
        if got != *digest {
            return Err(StoreError::Tampered { path, what: "digest", expected: *digest, got });
        }
        parse(&path, &bytes)
    }
}

/// The digest in a descriptor; `path` is the document it stands in.
pub(super) fn digest_of(path: &Path, descriptor: &Descriptor) -> Result<Digest, StoreError> {
    parse_digest(path, descriptor.digest().as_ref())
}

/// A digest as text; `path` is the document it stands in.
pub(super) fn parse_digest(path: &Path, text: &str) -> Result<Digest, StoreError> {
    text.parse().map_err(|source| StoreError::Digest { path: path.to_owned(), source })
}

/// An annotation of a descriptor.
pub(super) fn annotation<'a>(descriptor: &'a Descriptor, key: &str) -> Option<&'a str> {
    descriptor.annotations().as_ref()?.get(key).map(String::as_str)
}

/// The name of the image that a descriptor in the index stands for.
pub(super) fn ref_name(descriptor: &Descriptor) -> Option<&str> {
    annotation(descriptor, ANNOTATION_REF_NAME)
}

/// Takes `name` out of the index; whether it was in it.
pub(super) fn take_name(index: &mut ImageIndex, name: &ImageName) -> bool {
    let before = index.manifests().len();
    let others: Vec<Descriptor> =
        index.manifests().iter().filter(|d| ref_name(d) != Some(name.as_str())).cloned().collect();
    let found = others.len() < before;
    index.set_manifests(others);
    found
}

/// A descriptor of bytes.
pub(super) fn describe(media_type: MediaType, digest: &Digest, size: u64) -> Result<Descriptor, StoreError> {
    let text: oci_spec::image::Digest = digest.to_string().parse().map_err(|e| damaged(Path::new("descriptor"), &e))?;
    Ok(Descriptor::new(media_type, size, text))
}

/// The configuration of an image that is one archive: nothing is known but its layer.
pub(super) fn plain_config(diff_id: &Digest) -> ImageConfiguration {
    let mut rootfs = RootFs::default();
    rootfs.set_diff_ids(vec![diff_id.to_string()]);
    rootfs.set_typ("layers".to_owned());
    let mut config = ImageConfiguration::default();
    config.set_architecture(Arch::default()).set_os(Os::Linux).set_rootfs(rootfs);
    config
}

/// Puts `annotations` onto a descriptor.
pub(super) fn annotate(descriptor: &mut Descriptor, annotations: &[(&str, String)]) {
    let map: HashMap<String, String> = annotations.iter().map(|(k, v)| ((*k).to_owned(), v.clone())).collect();
    descriptor.set_annotations(Some(map));
}

pub(super) fn damaged(path: &Path, why: &dyn std::fmt::Display) -> StoreError {
    StoreError::Damaged { path: path.to_owned(), why: why.to_string() }
}

/// The bytes of a document, or `None` if there is none.
pub(super) fn read(path: &Path) -> Result<Option<Vec<u8>>, StoreError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).at("open", path),
    };
    let mut bytes = Vec::new();
    file.take(MAX_DOCUMENT + 1).read_to_end(&mut bytes).at("read", path)?;
    if bytes.len() as u64 > MAX_DOCUMENT {
        return Err(damaged(path, &format_args!("it has more than {MAX_DOCUMENT} bytes")));
    }
    Ok(Some(bytes))
}

pub(super) fn parse<T: DeserializeOwned>(path: &Path, bytes: &[u8]) -> Result<T, StoreError> {
    serde_json::from_slice(bytes).map_err(|error| damaged(path, &error))
}
