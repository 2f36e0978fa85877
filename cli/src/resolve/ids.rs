//! Which ids of the host stand for which ids inside, and who the command runs as.

use cellblock_bundle::cell::{Extent, IdScheme, Ids, User};

use super::host::HostFacts;
use crate::args::values::{UserSpec, Userns};

/// How many ids a cell has when it has a range: what images are made for (65534 is `nobody`).
pub(crate) const RANGE: u32 = 65_536;

/// First host id of cells that real root starts: 1879048192, the first one above the ranges that systemd hands out to containers,
/// 524288 to 1879048191 (systemd, UIDS-GIDS.md), and below 2^31, which some file systems take for negative.
pub(crate) const SHIFTED: u32 = 0x7000_0000;

/// Why the ids cannot be laid out as asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum IdError {
    /// Somebody else's login name.
    #[error("the user {name:?} is not known; a cell knows root, {own:?} and numbers")]
    UnknownName {
        /// As written.
        name: String,
        /// The person's.
        own: String,
    },
    /// Ids beyond the person's own are asked for, and there is no range to take them from.
    #[error("running as user {user} needs more ids than your own, and {}", .lack)]
    NoRange {
        /// The user asked for.
        user: String,
        /// What is missing.
        lack: Lack,
    },
    /// The same, asked for by `--userns keep-id`.
    #[error("`keep-id` needs more ids than your own, and {0}")]
    KeepIdNoRange(Lack),
    /// `--userns single` and another user or group than the person's.
    #[error("with `single` only you yourself and root exist inside, not {0}")]
    Single(String),
    /// An id that the range does not reach.
    #[error("the {kind} id {id} does not exist inside: a cell has the ids below {RANGE} and your own")]
    OutOfRange {
        /// `user` or `group`.
        kind: &'static str,
        /// The id.
        id: u32,
    },
}

/// What a range lacks on this host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Lack {
    /// No setuid helper.
    #[error("newuidmap and newgidmap are not installed")]
    Programs,
    /// No entry, or too small a one.
    #[error("/etc/subuid has no {RANGE} ids for you")]
    Users,
    /// The same for groups.
    #[error("/etc/subgid has no {RANGE} ids for you")]
    Groups,
    /// Asked not to use it.
    #[error("`single` was asked for")]
    Asked,
}

impl IdError {
    /// What would mend it.
    pub(crate) fn hint(&self) -> Option<&'static str> {
        match self {
            Self::NoRange { lack, .. } | Self::KeepIdNoRange(lack) => Some(match lack {
                Lack::Programs => "install the package uidmap (shadow-utils, shadow)",
                Lack::Users | Lack::Groups => {
                    "sudo usermod --add-subuids 100000-165535 --add-subgids 100000-165535 \"$USER\""
                }
                Lack::Asked => "leave out `single`",
            }),
            Self::Single(_) => Some("leave out `single`, or run as yourself or root"),
            Self::UnknownName { .. } | Self::OutOfRange { .. } => None,
        }
    }
}

/// Who is meant, once the login name is understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Who {
    Person,
    Root,
    Other { uid: u32, gid: u32 },
}

/// The ids and the user of a cell. `user` is `None` if nobody was asked for; `image_is_host` says that every file of the image belongs to ids
/// that the cell shows as they are, so that a range would only cost time.
pub(crate) fn ids_for(
    user: Option<&UserSpec>,
    host: &HostFacts,
    userns: Userns,
    image_is_host: bool,
) -> Result<(Ids, User), IdError> {
    let who = who(user, host)?;
    let ids =
        if host.real_root { real_root_ids(who, userns)? } else { rootless_ids(who, host, userns, image_is_host)? };
    let user = describe(who, host);
    for (kind, id, mapped) in [("user", user.uid, ids.host_uid(user.uid)), ("group", user.gid, ids.host_gid(user.gid))]
    {
        if mapped.is_none() {
            return Err(IdError::OutOfRange { kind, id });
        }
    }
    Ok((ids, user))
}

fn who(user: Option<&UserSpec>, host: &HostFacts) -> Result<Who, IdError> {
    let person = if host.uid == 0 { Who::Root } else { Who::Person };
    Ok(match user {
        None => person,
        Some(UserSpec::Root) => Who::Root,
        Some(UserSpec::Name(name)) if *name == host.user => person,
        Some(UserSpec::Name(name)) => {
            return Err(IdError::UnknownName { name: name.clone(), own: host.user.clone() });
        }
        Some(UserSpec::Ids { uid, gid }) if *uid == host.uid && gid.unwrap_or(host.gid) == host.gid => person,
        // Podman's choice of a group for a bare number; for the person's own number it is their group, above.
        Some(UserSpec::Ids { uid, gid }) => Who::Other { uid: *uid, gid: gid.unwrap_or(0) },
    })
}

fn real_root_ids(who: Who, userns: Userns) -> Result<Ids, IdError> {
    let shifted = extent(0, SHIFTED, RANGE);
    let keep = [extent(0, 0, 1), extent(1, SHIFTED + 1, RANGE - 1)];
    Ok(match (userns, who) {
        (Userns::Auto, _) => ids(IdScheme::Shifted, &[shifted], &[shifted]),
        (Userns::KeepId, _) => ids(IdScheme::KeepRoot, &keep, &keep),
        // One id, and it is root's own, would be root outside under a name that promises less.
        (Userns::Single, who) => return Err(IdError::Single(format!("{who}, when root starts the cell"))),
    })
}

fn rootless_ids(who: Who, host: &HostFacts, userns: Userns, image_is_host: bool) -> Result<Ids, IdError> {
    let lone = |scheme, uid, gid| ids(scheme, &[extent(uid, host.uid, 1)], &[extent(gid, host.gid, 1)]);
    let single = lone(IdScheme::Single, host.uid, host.gid);
    let single_root = lone(IdScheme::SingleRoot, 0, 0);
    let range = match userns {
        Userns::Single => Err(Lack::Asked),
        Userns::Auto | Userns::KeepId => range(host),
    };
    let kept = |(uids, gids)| ids(IdScheme::Range, &keep_id(host.uid, uids), &keep_id(host.gid, gids));
    let rooted = |(uids, gids)| ids(IdScheme::RangeRoot, &as_root(host.uid, uids), &as_root(host.gid, gids));
    match (who, userns, range) {
        (Who::Person, Userns::Auto, _) if image_is_host => Ok(single),
        (Who::Person, _, Ok(range)) => Ok(kept(range)),
        (Who::Root, _, Ok(range)) => Ok(rooted(range)),
        (Who::Other { .. }, _, Ok(range)) => Ok(kept(range)),
        (Who::Other { .. }, Userns::Single, Err(_)) => Err(IdError::Single(who.to_string())),
        (Who::Other { .. }, _, Err(lack)) => Err(IdError::NoRange { user: who.to_string(), lack }),
        (_, Userns::KeepId, Err(lack)) => Err(IdError::KeepIdNoRange(lack)),
        (Who::Person, _, Err(_)) => Ok(single),
        (Who::Root, _, Err(_)) => Ok(single_root),
    }
}

/// The first ids of the person's subordinate ranges, or what is missing. Only [`RANGE`] of them are used.
fn range(host: &HostFacts) -> Result<(u32, u32), Lack> {
    let enough = |ranges: &[(u32, u32)]| ranges.iter().find(|(_, count)| *count >= RANGE).map(|(start, _)| *start);
    if !host.newuidmap {
        return Err(Lack::Programs);
    }
    Ok((enough(&host.subuids).ok_or(Lack::Users)?, enough(&host.subgids).ok_or(Lack::Groups)?))
}

/// Podman's `keep-id`: `own` is itself, everything below [`RANGE`] around it comes from the range that begins at `sub`.
fn keep_id(own: u32, sub: u32) -> Vec<Extent> {
    if own >= RANGE {
        // As people of large directories have.
        return vec![extent(0, sub, RANGE), extent(own, own, 1)];
    }
    // The cell has RANGE ids in all, its own among them; what comes above goes on in the range where what comes below ended.
    let parts = [extent(0, sub, own), extent(own, own, 1), extent(own + 1, sub + own, RANGE - 1 - own)];
    parts.into_iter().filter(|part| part.size > 0).collect()
}

/// `own` is 0, the other ids come from the range.
fn as_root(own: u32, sub: u32) -> Vec<Extent> {
    vec![extent(0, own, 1), extent(1, sub, RANGE - 1)]
}

fn describe(who: Who, host: &HostFacts) -> User {
    let (uid, gid, name, group, home) = match who {
        Who::Person => (host.uid, host.gid, host.user.clone(), host.group.clone(), host.home.clone()),
        // Root who starts a cell is at home where root is at home on this host.
        Who::Root if host.uid == 0 => (0, 0, host.user.clone(), "root".to_owned(), host.home.clone()),
        Who::Root => (0, 0, "root".to_owned(), "root".to_owned(), "/root".into()),
        Who::Other { uid, gid } => {
            let group = if gid == 0 { "root".to_owned() } else { format!("g{gid}") };
            (uid, gid, format!("u{uid}"), group, format!("/home/u{uid}").into())
        }
    };
    // Supplementary groups stay outside: one id cannot map them, and a range has them only if /etc/subgid hands them out.
    User { uid, gid, groups: Vec::new(), name, group, home, shell: "/bin/sh".into() }
}

impl std::fmt::Display for Who {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Person => f.write_str("yourself"),
            Self::Root => f.write_str("root"),
            Self::Other { uid, gid } => write!(f, "{uid}:{gid}"),
        }
    }
}

fn extent(inside: u32, outside: u32, size: u32) -> Extent {
    Extent { inside, outside, size }
}

fn ids(scheme: IdScheme, uids: &[Extent], gids: &[Extent]) -> Ids {
    Ids { scheme, uids: uids.to_vec(), gids: gids.to_vec() }
}

#[cfg(test)]
#[path = "ids_tests.rs"]
mod tests;
