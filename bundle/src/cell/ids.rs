//! Which ids of the host stand for which ids inside.

use serde::{Deserialize, Serialize};

/// How the cell's ids are laid over the host's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum IdScheme {
    /// Only the person's own ids exist inside, as themselves (no `newuidmap` needed).
    Single,
    /// Only the person's own ids exist inside, as 0 (no `newuidmap` needed).
    SingleRoot,
    /// The person's ids as themselves, all others from the person's subordinate ids (podman's `keep-id`).
    Range,
    /// The person's ids as 0, all others from the person's subordinate ids.
    RangeRoot,
    /// Started by real root: every id from a range that nobody on the host has.
    Shifted,
    /// Started by real root, on explicit request: root inside is root outside, all others from that range.
    KeepRoot,
}

/// The cell's id mappings, host side as seen from where cellblock was started.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ids {
    /// How the extents came about.
    pub scheme: IdScheme,
    /// User ids, ordered by `inside`.
    pub uids: Vec<Extent>,
    /// Group ids, ordered by `inside`.
    pub gids: Vec<Extent>,
}

/// One extent of an id mapping, as a line of `/proc/PID/uid_map` (user_namespaces(7)).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Extent {
    /// First id inside the cell.
    pub inside: u32,
    /// First id on the host.
    pub outside: u32,
    /// How many ids.
    pub size: u32,
}

impl Ids {
    /// The host's user id for `inside`, if it is mapped.
    #[must_use]
    pub fn host_uid(&self, inside: u32) -> Option<u32> {
        lookup(&self.uids, inside)
    }

    /// The host's group id for `inside`, if it is mapped.
    #[must_use]
    pub fn host_gid(&self, inside: u32) -> Option<u32> {
        lookup(&self.gids, inside)
    }

    /// Whether OUTER is a user namespace of its own. Real root works in the initial one.
    #[must_use]
    pub fn rootless(&self) -> bool {
        !matches!(self.scheme, IdScheme::Shifted | IdScheme::KeepRoot)
    }

    /// Whether ids other than the person's own exist inside.
    #[must_use]
    pub fn has_range(&self) -> bool {
        !matches!(self.scheme, IdScheme::Single | IdScheme::SingleRoot)
    }

    /// Names the unpacked form of an image: layers unpacked for one key cannot serve another, for the files' owners differ.
    #[must_use]
    pub fn layer_key(&self) -> &'static str {
        match self.scheme {
            IdScheme::Single | IdScheme::SingleRoot => "single",
            IdScheme::Range => "range",
            IdScheme::RangeRoot => "range-root",
            IdScheme::Shifted => "shifted",
            IdScheme::KeepRoot => "keep-root",
        }
    }
}

fn lookup(extents: &[Extent], inside: u32) -> Option<u32> {
    extents
        .iter()
        .find(|e| inside.checked_sub(e.inside).is_some_and(|offset| offset < e.size))
        .map(|e| e.outside + (inside - e.inside))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_ids_are_looked_up_across_extents() {
        let ids = Ids {
            scheme: IdScheme::Range,
            uids: vec![
                Extent { inside: 0, outside: 100_000, size: 1000 },
                Extent { inside: 1000, outside: 1000, size: 1 },
                Extent { inside: 1001, outside: 101_000, size: 64_535 },
            ],
            gids: vec![Extent { inside: 5, outside: 7, size: 1 }],
        };
        assert_eq!(ids.host_uid(0), Some(100_000));
        assert_eq!(ids.host_uid(999), Some(100_999));
        assert_eq!(ids.host_uid(1000), Some(1000));
        assert_eq!(ids.host_uid(1001), Some(101_000));
        assert_eq!(ids.host_uid(65_536), None);
        assert_eq!(ids.host_gid(5), Some(7));
        assert_eq!(ids.host_gid(4), None);
    }
}
