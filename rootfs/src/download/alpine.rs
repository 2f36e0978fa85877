//! Alpine Linux's mini root file systems: which release a name means, and which SHA-256 it has.
//!
//! Releases with a built-in checksum ("pins") can come from any mirror, and from a file. For others the mirror's own index is asked, and
//! then the connection to the mirror is all there is to trust: it has to be https.

use std::fmt;

use serde::Deserialize;

use super::FetchError;
use crate::store::Digest;

/// Alpine's own distribution network.
pub const MIRROR: &str = "https://dl-cdn.alpinelinux.org/alpine";

/// Bytes of an archive that are accepted: real ones have 4 MiB.
pub const MAX_ARCHIVE: u64 = 256 << 20;

/// A release whose checksum is known beforehand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pin {
    /// Its version: three numbers.
    pub version: &'static str,
    /// Alpine's name of its architecture.
    pub arch: &'static str,
    /// SHA-256 of `alpine-minirootfs-<version>-<arch>.tar.gz`, as published beside it.
    pub sha256: &'static str,
}

/// All pins, the newest first. To add one: take the checksum from the `.sha256` file beside the release.
pub const PINS: [Pin; 3] = [
    Pin {
        version: "3.23.2",
        arch: "x86_64",
        sha256: "b50bf42e519420ca2be48dd0efa22aa087c708d0602b67d413406533bef9dab5",
    },
    Pin {
        version: "3.23.2",
        arch: "aarch64",
        sha256: "0a6c278a906bb7dc1c14f3dae426b4494280cdc421697977459bd37f91287d09",
    },
    Pin {
        version: "3.20.3",
        arch: "x86_64",
        sha256: "d4e6fd67dcf75e40c451560ac7265166c2b72a0f38ddc9aae756a7de3d1efa0c",
    },
];

/// The release that an archive with this digest is, if it is a known one.
#[must_use]
pub fn pin_of(digest: &Digest) -> Option<Pin> {
    let hex = digest.hex();
    PINS.into_iter().find(|pin| pin.sha256 == hex)
}

/// Alpine's name of the architecture this program was built for, if Alpine has one.
#[must_use]
pub fn host_arch() -> Option<&'static str> {
    Some(match std::env::consts::ARCH {
        arch @ ("x86_64" | "aarch64" | "x86" | "riscv64" | "s390x" | "loongarch64") => arch,
        "arm" => "armv7",
        "powerpc64" if cfg!(target_endian = "little") => "ppc64le",
        _ => return None,
    })
}

/// Which release is asked for: none, one, two or three of its numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted(Vec<u32>);

impl Wanted {
    /// From the tag of an image name: none or `latest`, `3`, `3.20`, `3.20.3`, each also with a `v` before it.
    ///
    /// # Errors
    /// [`AlpineError::Version`], also for `edge`: it changes daily, so no checksum could be known.
    pub fn parse(tag: Option<&str>) -> Result<Self, AlpineError> {
        let text = match tag {
            None | Some("latest") => return Ok(Self(Vec::new())),
            Some(text) => text,
        };
        let bad = || AlpineError::Version(text.chars().take(40).collect());
        let number = |part: &str| {
            let plain =
                !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit()) && (part == "0" || !part.starts_with('0'));
            if plain { part.parse().map_err(|_| bad()) } else { Err(bad()) }
        };
        let numbers = text.strip_prefix('v').unwrap_or(text).split('.').map(number).collect::<Result<Vec<u32>, _>>()?;
        if numbers.len() > 3 { Err(bad()) } else { Ok(Self(numbers)) }
    }

    fn means(&self, version: &str) -> bool {
        Self::parse(Some(version)).is_ok_and(|full| full.0.len() == 3 && full.0.starts_with(&self.0))
    }

    /// The directory of the mirror: a release branch, or the newest one.
    fn branch(&self) -> String {
        match self.0.as_slice() {
            [major, minor, ..] => format!("v{major}.{minor}"),
            _ => "latest-stable".to_owned(),
        }
    }
}

impl fmt::Display for Wanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.as_slice() {
            [] => f.write_str("latest"),
            numbers => f.write_str(&numbers.iter().map(u32::to_string).collect::<Vec<_>>().join(".")),
        }
    }
}

/// A release that can be fetched and checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Release {
    /// All three numbers.
    pub version: String,
    /// Alpine's name of the architecture.
    pub arch: String,
    /// The archive at the mirror.
    pub url: String,
    /// What the archive must hash to.
    pub digest: Digest,
    /// Whether the checksum is built in; else it comes from the mirror.
    pub pinned: bool,
}

impl Release {
    /// File name of the archive.
    #[must_use]
    pub fn file_name(&self) -> String {
        file_name(&self.version, &self.arch)
    }
}

/// Why a name means no release.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AlpineError {
    /// Not a version of a release.
    #[error("`{0}` is no Alpine release: give none, or a version such as 3, 3.20 or 3.20.3")]
    Version(String),
    /// The mirror has no such release.
    #[error("{url} names no mini root file system of version {wanted} for {arch}")]
    NoRelease {
        /// The index that was read.
        url: String,
        /// What was asked for.
        wanted: String,
        /// Alpine's name of the architecture.
        arch: String,
    },
    /// The mirror is reached without encryption, and the release has no built-in checksum.
    #[error(
        "Alpine {wanted} has no built-in checksum, and {mirror} is not encrypted: whoever is on the way could replace it"
    )]
    Untrusted {
        /// What was asked for.
        wanted: String,
        /// The mirror.
        mirror: String,
    },
    /// The mirror's URL is none.
    #[error("`{0}` cannot be a mirror: its URL starts with https:// or http://")]
    Mirror(String),
    /// The mirror's index cannot be understood.
    #[error("{url} is damaged: {why}")]
    Index {
        /// The index.
        url: String,
        /// In what way.
        why: String,
    },
    /// The index could not be fetched.
    #[error(transparent)]
    Fetch(#[from] FetchError),
}

/// Finds the release that `wanted` means at `mirror`, for Alpine's architecture `arch`. `text` fetches a small file over https
/// ([`super::Fetcher::text`]); it is not called if a pin fits.
///
/// # Errors
/// See [`AlpineError`].
pub fn resolve(
    wanted: &Wanted,
    arch: &str,
    mirror: &str,
    text: &mut dyn FnMut(&str) -> Result<Vec<u8>, FetchError>,
) -> Result<Release, AlpineError> {
    let mirror = mirror.trim_end_matches('/');
    let secure = mirror.starts_with("https://");
    if !secure && !mirror.starts_with("http://") {
        return Err(AlpineError::Mirror(mirror.to_owned()));
    }
    let pin = PINS.iter().find(|pin| pin.arch == arch && wanted.means(pin.version));
    if let Some(pin) = pin {
        let digest = pin.sha256.parse().map_err(|error| index_error("the built-in pins", &error))?;
        return Ok(release(mirror, pin.version, arch, digest, true));
    }
    if !secure {
        return Err(AlpineError::Untrusted { wanted: wanted.to_string(), mirror: mirror.to_owned() });
    }
    let url = format!("{mirror}/{}/releases/{arch}/latest-releases.yaml", wanted.branch());
    // A branch that never was is a version that never was.
    let missing =
        |url: &str| AlpineError::NoRelease { url: url.to_owned(), wanted: wanted.to_string(), arch: arch.to_owned() };
    let bytes = text(&url).map_err(|error| if_missing(error, missing(&url)))?;
    let newest = newest(&url, &bytes, arch)?;
    if let Some((version, digest)) = newest.filter(|(version, _)| wanted.means(version)) {
        return Ok(release(mirror, &version, arch, digest, false));
    }
    if wanted.0.len() < 3 {
        return Err(missing(&url));
    }
    // The index only has a branch's newest release; an older one has its checksum beside it.
    let version = wanted.to_string();
    let sum_url = format!("{}.sha256", archive_url(mirror, &version, arch));
    let bytes = text(&sum_url).map_err(|error| if_missing(error, missing(&sum_url)))?;
    Ok(release(mirror, &version, arch, checksum(&sum_url, &bytes, &file_name(&version, arch))?, false))
}

fn if_missing(error: FetchError, missing: AlpineError) -> AlpineError {
    if matches!(error, FetchError::NotFound { .. }) { missing } else { error.into() }
}

fn release(mirror: &str, version: &str, arch: &str, digest: Digest, pinned: bool) -> Release {
    let url = archive_url(mirror, version, arch);
    Release { version: version.to_owned(), arch: arch.to_owned(), url, digest, pinned }
}

fn archive_url(mirror: &str, version: &str, arch: &str) -> String {
    let branch = version.rsplit_once('.').map_or(version, |(branch, _)| branch);
    format!("{mirror}/v{branch}/releases/{arch}/{}", file_name(version, arch))
}

fn file_name(version: &str, arch: &str) -> String {
    format!("alpine-minirootfs-{version}-{arch}.tar.gz")
}

/// What is used of an entry of `latest-releases.yaml`.
#[derive(Deserialize)]
struct Entry {
    flavor: Option<String>,
    version: Option<String>,
    arch: Option<String>,
    file: Option<String>,
    sha256: Option<String>,
}

/// The mini root file system in the bytes of a `latest-releases.yaml`, whoever wrote them. `url` is for messages.
///
/// # Errors
/// [`AlpineError::Index`] if it is no such document, or contradicts itself. That it has no such entry is `None`.
pub fn newest(url: &str, bytes: &[u8], arch: &str) -> Result<Option<(String, Digest)>, AlpineError> {
    if bytes.len() as u64 > super::MAX_TEXT {
        return Err(index_error(url, &"it is too large"));
    }
    let text = std::str::from_utf8(bytes).map_err(|error| index_error(url, &error))?;
    let entries: Vec<Entry> =
        serde_saphyr::from_str(text).map_err(|error| index_error(url, &first_line(&error.to_string())))?;
    let Some(entry) = entries.into_iter().find(|e| e.flavor.as_deref() == Some("alpine-minirootfs")) else {
        return Ok(None);
    };
    let field = |value: Option<String>, name| value.ok_or_else(|| index_error(url, &format_args!("it has no {name}")));
    let version = field(entry.version, "version")?;
    if Wanted::parse(Some(&version)).map_or(true, |v| v.0.len() != 3 || v.to_string() != version) {
        return Err(index_error(url, &format_args!("`{}` is no version", first_line(&version))));
    }
    // The name is not used, only compared: where to fetch from follows from the version.
    if field(entry.arch, "arch")? != arch || field(entry.file, "file")? != file_name(&version, arch) {
        return Err(index_error(url, &"it describes another file"));
    }
    let digest = field(entry.sha256, "sha256")?.parse().map_err(|error| index_error(url, &error))?;
    Ok(Some((version, digest)))
}

/// The digest in a file as `sha256sum` writes it: `<hex>  <name>`.
fn checksum(url: &str, bytes: &[u8], name: &str) -> Result<Digest, AlpineError> {
    let text = std::str::from_utf8(bytes).map_err(|error| index_error(url, &error))?;
    let mut words = text.split_ascii_whitespace();
    let digest = words.next().unwrap_or_default().parse().map_err(|error| index_error(url, &error))?;
    match words.next() {
        Some(word) if word.trim_start_matches('*') != name => Err(index_error(url, &"it is of another file")),
        _ => Ok(digest),
    }
}

fn index_error(url: &str, why: &dyn fmt::Display) -> AlpineError {
    AlpineError::Index { url: url.to_owned(), why: why.to_string() }
}

/// What a server sent is not spread over a person's terminal.
fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().chars().filter(|c| !c.is_control()).take(120).collect()
}

#[cfg(test)]
#[path = "alpine_tests.rs"]
mod tests;
