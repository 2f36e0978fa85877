//! Alpine's mini root file systems: which releases there are, and what they must hash to.

use crate::fetch::{FetchError, Fetcher};

/// Where Alpine publishes.
pub const MIRROR: &str = "https://dl-cdn.alpinelinux.org/alpine";

/// A release whose checksum is built in: it can come over any mirror, or from a file, and is still Alpine's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pin {
    /// Release.
    pub version: &'static str,
    /// Alpine's name of the architecture.
    pub arch: &'static str,
    /// SHA-256 of the archive in hex.
    pub sha256: &'static str,
}

/// Pins, the newest first for each architecture. From the `.sha256` files beside the releases.
pub const PINS: &[Pin] = &[
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

/// Alpine's name of this machine's architecture.
pub const ARCH: &str = std::env::consts::ARCH;

/// A release to get.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Release {
    /// Full version.
    pub version: String,
    /// Where it is.
    pub url: String,
    /// SHA-256 of the archive in hex.
    pub sha256: String,
}

/// Why a release cannot be told.
#[derive(Debug, thiserror::Error)]
pub enum AlpineError {
    /// Not a version.
    #[error("`{0}` is no Alpine version: give none, 3, 3.20 or 3.20.3")]
    BadVersion(String),
    /// The index names no such release.
    #[error("the index at {url} has no mini root file system for version `{wanted}`")]
    NoRelease {
        /// The index.
        url: String,
        /// What was asked for.
        wanted: String,
    },
    /// Without a built-in checksum, an unencrypted mirror proves nothing.
    #[error(
        "version {wanted} has no built-in checksum, and {mirror} is not encrypted: whoever is on the way could replace it"
    )]
    Untrusted {
        /// What was asked for.
        wanted: String,
        /// The mirror.
        mirror: String,
    },
    /// The index could not be fetched.
    #[error(transparent)]
    Fetch(#[from] FetchError),
}

/// The pin that `version` (empty, `3`, `3.20`, `3.20.3`) means, if one is built in.
#[must_use]
pub fn pin(version: &str) -> Option<Pin> {
    PINS.iter().find(|p| p.arch == ARCH && matches_version(p.version, version)).copied()
}

/// The pin with this checksum: tells what release a file is.
#[must_use]
pub fn pin_of(sha256: &str) -> Option<Pin> {
    PINS.iter().find(|p| p.sha256 == sha256).copied()
}

fn matches_version(full: &str, wanted: &str) -> bool {
    wanted.is_empty() || full == wanted || full.strip_prefix(wanted).is_some_and(|rest| rest.starts_with('.'))
}

/// Finds the release for `version` at `mirror`: by a pin, else by the mirror's index.
///
/// # Errors
/// See [`AlpineError`].
pub fn release(version: &str, mirror: &str, fetcher: &Fetcher) -> Result<Release, AlpineError> {
    let mirror = mirror.trim_end_matches('/');
    if let Some(pin) = pin(version) {
        return Ok(Release { version: pin.version.into(), url: url(mirror, pin.version), sha256: pin.sha256.into() });
    }
    let numbers: Vec<&str> = version.split('.').collect();
    if numbers.len() > 3 || !numbers.iter().all(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit())) {
        return Err(AlpineError::BadVersion(version.into()));
    }
    if !mirror.starts_with("https://") {
        return Err(AlpineError::Untrusted { wanted: version.into(), mirror: mirror.into() });
    }
    let branch = match numbers.as_slice() {
        [major, minor, ..] => format!("v{major}.{minor}"),
        _ => "latest-stable".into(),
    };
    let index = format!("{mirror}/{branch}/releases/{ARCH}/latest-releases.yaml");
    let text = fetcher.text(&index)?;
    let (found, sha256) = minirootfs(&text).filter(|(v, _)| numbers.len() < 3 || v == version).map_or_else(
        // The index lists only a branch's newest; an older one has its checksum beside it.
        || {
            let sum = format!("{}.sha256", url(mirror, version));
            let text = if numbers.len() == 3 { fetcher.text(&sum)? } else { String::new() };
            let sha256 = text.split_ascii_whitespace().next().unwrap_or_default().to_owned();
            Ok::<_, FetchError>((version.to_owned(), sha256))
        },
        Ok,
    )?;
    if sha256.len() != 64 || !sha256.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Err(AlpineError::NoRelease { url: index, wanted: version.into() });
    }
    Ok(Release { url: url(mirror, &found), version: found, sha256: sha256.to_ascii_lowercase() })
}

fn url(mirror: &str, version: &str) -> String {
    let branch = version.rsplit_once('.').map_or(version, |(branch, _)| branch);
    format!("{mirror}/v{branch}/releases/{ARCH}/alpine-minirootfs-{version}-{ARCH}.tar.gz")
}

/// Version and checksum of the mini root file system in the text of `latest-releases.yaml`: a list of flat maps. Only lines of the
/// form `key: value` inside the entry count; a full YAML reader would see nothing more in it.
fn minirootfs(text: &str) -> Option<(String, String)> {
    text.split("\n-").find_map(|entry| {
        let field = |key: &str| {
            entry.lines().find_map(|line| {
                let (k, v) = line.trim().split_once(':')?;
                (k == key).then(|| v.trim().trim_matches(['"', '\'']).to_owned())
            })
        };
        (field("flavor")? == "alpine-minirootfs").then(|| Some((field("version")?, field("sha256")?)))?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_pin_is_the_default() {
        assert!(matches_version("3.20.3", "3.20"));
        assert!(!matches_version("3.20.3", "3.2"));
        if ARCH == "x86_64" {
            assert_eq!(pin("").expect("pin").version, "3.23.2");
            assert_eq!(pin("3.20").expect("pin").version, "3.20.3");
            assert_eq!(pin("3.19"), None);
        }
    }

    #[test]
    fn the_index_is_read() {
        let sum = "a".repeat(64);
        let text = format!(
            "---\n-\n  branch: v3.19\n  flavor: alpine-virt\n  version: 3.19.1\n  sha256: no\n-\n  flavor: alpine-minirootfs\n  version: 3.19.1\n  sha256: {sum}\n"
        );
        assert_eq!(minirootfs(&text), Some(("3.19.1".into(), sum)));
        assert_eq!(minirootfs("garbage"), None);
    }

    #[test]
    fn plain_http_without_a_pin_is_refused() {
        let fetcher = Fetcher::new(None);
        assert!(matches!(release("3.1.4", "http://mirror", &fetcher), Err(AlpineError::Untrusted { .. })));
        assert!(matches!(release("edge", "https://mirror", &fetcher), Err(AlpineError::BadVersion(_))));
    }
}
