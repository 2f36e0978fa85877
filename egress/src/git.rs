//! Git over https: for which requests somebody outside is asked for credentials, and how.
//!
//! The cell holds a placeholder. Where it stands as the password of a request of git's protocol to one of its own repositories, the credentials
//! take its place; in no other request to the same host, whatever the credentials would open there.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::name::Name;
use crate::serve::Hidden;

/// A repository that is reached over https.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Remote {
    /// The server.
    pub host: Name,
    /// Its port.
    pub port: u16,
    /// The path, in normal form ([`crate::policy::path::segments`]), without a slash at either end.
    pub path: String,
    /// The user's name, if the repository's address has one.
    pub username: Option<String>,
}

impl Remote {
    /// Whether a request is one of git's, or of its large file storage, about this repository; `path` is
    /// [`segments`](crate::policy::path::segments) of its path.
    #[must_use]
    pub fn serves(&self, host: &Name, port: u16, path: &[String]) -> bool {
        let mut rest = path.iter().map(String::as_str);
        let below = self.path.split('/').all(|segment| rest.next() == Some(segment));
        let rest: Vec<&str> = rest.collect();
        // gitprotocol-http(5), and git-lfs's docs/api.
        let gits =
            matches!(rest[..], ["info", "refs"] | ["git-upload-pack" | "git-receive-pack"] | ["info", "lfs", _, ..]);
        below && gits && self.host == *host && self.port == port
    }
}

impl std::fmt::Display for Remote {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.port {
            443 => write!(f, "https://{}/{}", self.host, self.path),
            port => write!(f, "https://{}:{port}/{}", self.host, self.path),
        }
    }
}

/// Whose credentials there are, and who has them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Git {
    /// What stands for the password inside.
    pub placeholder: String,
    /// The repositories.
    pub remotes: Vec<Remote>,
    /// Where somebody waits for [`Query`], a line of JSON, and answers with a [`Reply`], another.
    pub socket: PathBuf,
}

/// Asks for the credentials of a repository.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Query {
    /// Which.
    pub remote: Remote,
}

/// The answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "reply", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Reply {
    /// These.
    Given {
        /// The user's name.
        username: String,
        /// The password, mostly a token.
        password: Hidden,
    },
    /// There are none.
    Failed {
        /// Why, in words.
        why: String,
    },
}

/// Longest query or reply in bytes.
pub const MAX_MESSAGE: usize = 64 << 10;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::path::segments;

    #[test]
    fn only_gits_own_requests_about_the_repository_count() {
        let name = |text: &str| text.parse::<Name>().expect("a name");
        let remote = Remote { host: name("git.test"), port: 443, path: "me/work.git".into(), username: None };
        let serves = |host: &str, port, path: &str| {
            segments(path.as_bytes()).is_ok_and(|path| remote.serves(&name(host), port, &path))
        };
        for path in ["info/refs", "git-upload-pack", "git-receive-pack", "info/lfs/objects/batch", "info/lfs/locks"] {
            let path = format!("/me/work.git/{path}");
            assert!(serves("git.test", 443, &path), "{path}");
            assert!(!serves("other.test", 443, &path) && !serves("git.test", 8443, &path), "{path}");
        }
        for path in [
            "/me/work.git",
            "/me/work.git/",
            "/me/work.git/info",
            "/me/work.git/info/refs/",
            "/me/work.git/info/lfs",
            "/me/work.git/settings/keys",
            "/me/work.git/x/info/refs",
            "/me/work.gitx/info/refs",
            "/me/work/info/refs",
            "/me/other.git/info/refs",
            "/you/work.git/info/refs",
            "/me/other.git/../work.git/info/refs",
            "/me/work.git%2finfo/refs",
            "/api/v4/user",
            "/",
        ] {
            assert!(!serves("git.test", 443, path), "{path}");
        }
        assert!(!remote.serves(&name("git.test"), 443, &[]));
    }
}
