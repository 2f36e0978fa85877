//! Who the command runs as, and how the cell's ids are laid over the host's.

use std::path::PathBuf;

use cellblock_bundle::{Extent, IdScheme, Ids, User};

use crate::facts::Facts;
use crate::flags::Userns;

/// Ids of a cell that real root started: above what systemd hands to containers (UIDS-GIDS: 524288 to 1879048191), below 2³¹.
const SHIFTED_BASE: u32 = 0x7000_0000;
/// How many ids a cell has: everything that images use (65534 is `nobody`).
const COUNT: u32 = 65_536;

/// Who the command is to run as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Person {
    /// The one who started cellblock.
    Themself,
    /// Root inside.
    Root,
    /// Some other user and group.
    Other(u32, u32),
}

/// Why ids cannot be laid.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum IdError {
    /// Not a user.
    #[error("`{0}` is no user: give `root` or a number, with an optional group (1000:1000)")]
    NotAUser(String),
    /// Other ids than the person's own need a range.
    #[error("user {0} does not exist in a cell with your own id only")]
    NeedsRange(u32),
    /// More than there are.
    #[error("user {0} is beyond the {COUNT} ids of a cell")]
    TooLarge(u32),
}

impl Person {
    /// From what `--user` says; nothing means themself.
    pub(crate) fn parse(text: &str, facts: &Facts) -> Result<Self, IdError> {
        let bad = || IdError::NotAUser(text.to_owned());
        let (user, group) = text.split_once(':').map_or((text, None), |(u, g)| (u, Some(g)));
        let uid: u32 = match user {
            "" if group.is_none() => return Ok(Self::Themself),
            "root" => 0,
            name if name == facts.user => facts.uid,
            number => number.parse().map_err(|_| bad())?,
        };
        let gid: Option<u32> =
            group.map(|g| if g == "root" { Ok(0) } else { g.parse().map_err(|_| bad()) }).transpose()?;
        match (uid, gid) {
            (uid, None) if uid == facts.uid => Ok(Self::Themself),
            (uid, Some(gid)) if (uid, gid) == (facts.uid, facts.gid) => Ok(Self::Themself),
            (0, None | Some(0)) => Ok(Self::Root),
            (uid, gid) => Ok(Self::Other(uid, gid.unwrap_or(uid))),
        }
    }
}

/// The mapping and the user inside.
///
/// The `host` image needs no ids but the person's, and one id needs no `newuidmap`, which saves two milliseconds: so `auto` takes
/// a range only for other images.
pub(crate) fn ids(person: &Person, facts: &Facts, userns: Userns, host_image: bool) -> Result<(Ids, User), IdError> {
    if facts.is_root() {
        return Ok((as_root(userns), user(person, facts)));
    }
    let range = facts.subuid.zip(facts.subgid).filter(|(u, g)| facts.map_programs && u.1 >= COUNT && g.1 >= COUNT);
    let wants_range = match (userns, person) {
        (Userns::Single, _) => false,
        (_, Person::Other(..)) => true,
        _ => !host_image,
    };
    let user = user(person, facts);
    let ids = match (range.filter(|_| wants_range), person) {
        (Some((subuid, subgid)), Person::Root) => {
            let map = |own: u32, sub: u32| vec![extent(0, own, 1), extent(1, sub, COUNT - 1)];
            Ids { scheme: IdScheme::RangeRoot, uids: map(facts.uid, subuid.0), gids: map(facts.gid, subgid.0) }
        }
        (Some((subuid, subgid)), _) => {
            Ids { scheme: IdScheme::Range, uids: keep(facts.uid, subuid.0), gids: keep(facts.gid, subgid.0) }
        }
        (None, Person::Root) => single(IdScheme::SingleRoot, 0, facts.uid, 0, facts.gid),
        (None, Person::Themself) => single(IdScheme::Single, facts.uid, facts.uid, facts.gid, facts.gid),
        (None, Person::Other(uid, _)) => return Err(IdError::NeedsRange(*uid)),
    };
    if ids.host_uid(user.uid).is_none() || ids.host_gid(user.gid).is_none() {
        return Err(IdError::TooLarge(user.uid));
    }
    Ok((ids, user))
}

fn as_root(userns: Userns) -> Ids {
    if userns == Userns::KeepId {
        let map = vec![extent(0, 0, 1), extent(1, SHIFTED_BASE + 1, COUNT - 1)];
        return Ids { scheme: IdScheme::KeepRoot, uids: map.clone(), gids: map };
    }
    let map = vec![extent(0, SHIFTED_BASE, COUNT)];
    Ids { scheme: IdScheme::Shifted, uids: map.clone(), gids: map }
}

fn single(scheme: IdScheme, uid: u32, own_uid: u32, gid: u32, own_gid: u32) -> Ids {
    Ids { scheme, uids: vec![extent(uid, own_uid, 1)], gids: vec![extent(gid, own_gid, 1)] }
}

/// podman's keep-id: `own` stands for itself, all ids around it come from the subordinate range.
fn keep(own: u32, sub: u32) -> Vec<Extent> {
    if own >= COUNT {
        // A directory service's large id: it stands beside the range.
        return vec![extent(0, sub, COUNT), extent(own, own, 1)];
    }
    let parts = [extent(0, sub, own), extent(own, own, 1), extent(own + 1, sub + own, COUNT - own - 1)];
    parts.into_iter().filter(|e| e.size > 0).collect()
}

const fn extent(inside: u32, outside: u32, size: u32) -> Extent {
    Extent { inside, outside, size }
}

fn user(person: &Person, facts: &Facts) -> User {
    let shell = PathBuf::from("/bin/sh");
    match person {
        Person::Themself => User {
            uid: facts.uid,
            gid: facts.gid,
            groups: Vec::new(),
            name: facts.user.clone(),
            group: facts.group.clone(),
            home: facts.home.clone(),
            shell,
        },
        Person::Root => User {
            uid: 0,
            gid: 0,
            groups: Vec::new(),
            name: "root".into(),
            group: "root".into(),
            home: "/root".into(),
            shell,
        },
        Person::Other(uid, gid) => User {
            uid: *uid,
            gid: *gid,
            groups: Vec::new(),
            name: format!("u{uid}"),
            group: format!("g{gid}"),
            home: "/tmp".into(),
            shell,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ada() -> Facts {
        Facts {
            uid: 1000,
            gid: 100,
            user: "ada".into(),
            group: "users".into(),
            home: "/home/ada".into(),
            subuid: Some((100_000, 65_536)),
            subgid: Some((200_000, 65_536)),
            map_programs: true,
            ..Facts::default()
        }
    }

    fn scheme(person: &Person, facts: &Facts, userns: Userns, host: bool) -> IdScheme {
        ids(person, facts, userns, host).expect("ids").0.scheme
    }

    #[test]
    fn what_is_taken_when() {
        let (ada, bare) = (ada(), Facts { subuid: None, ..ada() });
        let root = Facts { uid: 0, ..ada.clone() };
        for (person, facts, userns, host, expected) in [
            (Person::Themself, &ada, Userns::Auto, true, IdScheme::Single),
            (Person::Themself, &ada, Userns::Auto, false, IdScheme::Range),
            (Person::Themself, &ada, Userns::Single, false, IdScheme::Single),
            (Person::Themself, &bare, Userns::Auto, false, IdScheme::Single),
            (Person::Root, &ada, Userns::Auto, false, IdScheme::RangeRoot),
            (Person::Root, &bare, Userns::Auto, false, IdScheme::SingleRoot),
            (Person::Other(33, 33), &ada, Userns::Auto, true, IdScheme::Range),
            (Person::Themself, &root, Userns::Auto, false, IdScheme::Shifted),
            (Person::Themself, &root, Userns::KeepId, false, IdScheme::KeepRoot),
        ] {
            assert_eq!(scheme(&person, facts, userns, host), expected, "{person:?} {userns:?} {host}");
        }
        assert_eq!(ids(&Person::Other(33, 33), &bare, Userns::Auto, true), Err(IdError::NeedsRange(33)));
        assert_eq!(ids(&Person::Other(70_000, 1), &ada, Userns::Auto, true), Err(IdError::TooLarge(70_000)));
    }

    #[test]
    fn the_person_keeps_their_ids_and_every_extent_is_apart() {
        let (ids, _) = ids(&Person::Themself, &ada(), Userns::Auto, false).expect("ids");
        assert_eq!(ids.host_uid(1000), Some(1000));
        assert_eq!(ids.host_gid(100), Some(100));
        assert_eq!(ids.host_uid(0), Some(100_000));
        assert_eq!(ids.host_uid(65_535), Some(165_534));
        assert_eq!(ids.uids.iter().map(|e| e.size).sum::<u32>(), 65_536);
    }

    #[test]
    fn users() {
        let ada = ada();
        for (text, person) in [
            ("", Person::Themself),
            ("ada", Person::Themself),
            ("1000:100", Person::Themself),
            ("root", Person::Root),
            ("0:0", Person::Root),
            ("33", Person::Other(33, 33)),
            ("1000:5", Person::Other(1000, 5)),
        ] {
            assert_eq!(Person::parse(text, &ada), Ok(person), "{text}");
        }
        for text in ["bob", "-1", ":", "1:x", "99999999999"] {
            assert!(Person::parse(text, &ada).is_err(), "{text}");
        }
    }
}
