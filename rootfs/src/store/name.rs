//! Image names: `[a-z0-9][a-z0-9._/-]*` with an optional `:tag`.
//!
//! A subset of the distribution specification's references, so that a name that was given here can also be a registry's. Names are
//! never used as file names: they live in the annotations of `index.json`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Names that mean something that is never stored.
pub const RESERVED: [&str; 2] = ["host", "auto"];

/// Longest name without tag: the distribution specification's usual limit.
const MAX_REPOSITORY: usize = 255;

/// Longest tag: distribution specification, "Pulling manifests".
const MAX_TAG: usize = 128;

/// The name of a stored image.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ImageName(String);

/// Why a text is no image name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadName {
    /// It breaks the grammar.
    #[error("`{name}` is not an image name: {why}")]
    Grammar {
        /// What was given.
        name: String,
        /// Which rule it breaks.
        why: &'static str,
    },
    /// It is one of [`RESERVED`].
    #[error("`{0}` is a reserved name: no image can be stored under it")]
    Reserved(String),
}

impl ImageName {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The part before the `:`.
    #[must_use]
    pub fn repository(&self) -> &str {
        self.0.split_once(':').map_or(&*self.0, |(repository, _)| repository)
    }

    /// The part after the `:`.
    #[must_use]
    pub fn tag(&self) -> Option<&str> {
        self.0.split_once(':').map(|(_, tag)| tag)
    }
}

impl FromStr for ImageName {
    type Err = BadName;

    fn from_str(name: &str) -> Result<Self, BadName> {
        let bad = |why| Err(BadName::Grammar { name: name.chars().take(100).collect(), why });
        let (repository, tag) = name.split_once(':').map_or((name, None), |(r, t)| (r, Some(t)));
        let edge = |byte: Option<&u8>| byte.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        if repository.is_empty() {
            return bad("it is empty");
        }
        if repository.len() > MAX_REPOSITORY || tag.is_some_and(|t| t.len() > MAX_TAG) {
            return bad("it is too long (255 characters, and 128 for the tag)");
        }
        for part in repository.split('/') {
            let bytes = part.as_bytes();
            if !edge(bytes.first()) || !edge(bytes.last()) {
                return bad("each part between slashes starts and ends with a lower-case letter or a digit");
            }
            if !bytes.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(b)) {
                return bad("only lower-case letters, digits and . _ - / may be in it");
            }
        }
        if let Some(tag) = tag {
            let first = tag.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric() || b == b'_');
            if !first || !tag.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b)) {
                return bad("its tag (after the colon) has to be letters, digits and . _ -");
            }
        }
        if RESERVED.contains(&repository) {
            return Err(BadName::Reserved(name.to_owned()));
        }
        Ok(Self(name.to_owned()))
    }
}

impl TryFrom<String> for ImageName {
    type Error = BadName;

    fn try_from(name: String) -> Result<Self, BadName> {
        name.parse()
    }
}

impl From<ImageName> for String {
    fn from(name: ImageName) -> Self {
        name.0
    }
}

impl fmt::Display for ImageName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good_names() {
        for name in ["alpine", "alpine:3.20.3", "a", "ghcr.io/me/tools:v1_2-rc.1", "my_image", "3d"] {
            assert_eq!(name.parse::<ImageName>().unwrap().as_str(), name);
        }
        let name: ImageName = "a/b:T".parse().unwrap();
        assert_eq!((name.repository(), name.tag()), ("a/b", Some("T")));
    }

    #[test]
    fn bad_names() {
        let long = "a".repeat(256);
        for name in [
            "", ":", "A", "-a", "a-", "a//b", "/a", "a/", "../a", "a/../b", "a b", "a:", "a:b:c", "a:-", "ä", "a\n",
            &long,
        ] {
            assert!(matches!(name.parse::<ImageName>(), Err(BadName::Grammar { .. })), "{name:?}");
        }
    }

    #[test]
    fn reserved_names() {
        for name in ["host", "auto", "host:1"] {
            assert!(matches!(name.parse::<ImageName>(), Err(BadName::Reserved(_))), "{name:?}");
        }
        assert!("hosts".parse::<ImageName>().is_ok());
    }
}
