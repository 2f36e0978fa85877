//! Every scheme, from every starting point.

use super::*;

fn ada() -> HostFacts {
    HostFacts {
        uid: 1000,
        gid: 100,
        user: "ada".into(),
        group: "users".into(),
        home: "/home/ada".into(),
        subuids: vec![(90_000, 10), (100_000, 65_536)],
        subgids: vec![(200_000, 131_072)],
        newuidmap: true,
        ..HostFacts::default()
    }
}

fn bare() -> HostFacts {
    HostFacts { subuids: vec![], subgids: vec![], newuidmap: false, ..ada() }
}

fn root() -> HostFacts {
    HostFacts {
        uid: 0,
        gid: 0,
        user: "root".into(),
        group: "root".into(),
        home: "/root".into(),
        real_root: true,
        ..bare()
    }
}

const OTHER: UserSpec = UserSpec::Ids { uid: 33, gid: None };

#[test]
fn schemes() {
    use IdScheme::*;
    let nobody: Option<&UserSpec> = None;
    let cases = [
        ("the person on the host image", ada(), nobody, Userns::Auto, true, Ok(Single)),
        ("the person on another image", ada(), nobody, Userns::Auto, false, Ok(Range)),
        ("the person, keep-id on the host image", ada(), nobody, Userns::KeepId, true, Ok(Range)),
        ("the person, single", ada(), nobody, Userns::Single, false, Ok(Single)),
        ("root", ada(), Some(&UserSpec::Root), Userns::Auto, false, Ok(RangeRoot)),
        ("root, single", ada(), Some(&UserSpec::Root), Userns::Single, false, Ok(SingleRoot)),
        ("another", ada(), Some(&OTHER), Userns::Auto, true, Ok(Range)),
        ("another, single", ada(), Some(&OTHER), Userns::Single, false, Err(IdError::Single("33:0".into()))),
        ("no range", bare(), nobody, Userns::Auto, false, Ok(Single)),
        ("no range, root", bare(), Some(&UserSpec::Root), Userns::Auto, false, Ok(SingleRoot)),
        ("no range, keep-id", bare(), nobody, Userns::KeepId, false, Err(IdError::KeepIdNoRange(Lack::Programs))),
        (
            "no range, another",
            bare(),
            Some(&OTHER),
            Userns::Auto,
            false,
            Err(IdError::NoRange { user: "33:0".into(), lack: Lack::Programs }),
        ),
        ("real root", root(), nobody, Userns::Auto, false, Ok(Shifted)),
        ("real root, host image", root(), nobody, Userns::Auto, true, Ok(Shifted)),
        ("real root, another", root(), Some(&OTHER), Userns::Auto, true, Ok(Shifted)),
        ("real root, keep-id", root(), nobody, Userns::KeepId, false, Ok(KeepRoot)),
        (
            "real root, single",
            root(),
            nobody,
            Userns::Single,
            false,
            Err(IdError::Single("root, when root starts the cell".into())),
        ),
        ("a container's root", HostFacts { real_root: false, ..root() }, nobody, Userns::Auto, false, Ok(SingleRoot)),
    ];
    for (what, host, user, userns, image_is_host, want) in cases {
        let got = ids_for(user, &host, userns, image_is_host).map(|(ids, _)| ids.scheme);
        assert_eq!(got, want, "{what}");
    }
}

#[test]
fn layouts() {
    let layout = |user: Option<&UserSpec>, host: &HostFacts, userns| {
        let (ids, _) = ids_for(user, host, userns, false).unwrap();
        let lines = |extents: &[Extent]| extents.iter().map(|e| (e.inside, e.outside, e.size)).collect::<Vec<_>>();
        (lines(&ids.uids), lines(&ids.gids))
    };
    assert_eq!(
        layout(None, &ada(), Userns::Auto),
        (
            vec![(0, 100_000, 1000), (1000, 1000, 1), (1001, 101_000, 64_535)],
            vec![(0, 200_000, 100), (100, 100, 1), (101, 200_100, 65_435)]
        )
    );
    assert_eq!(
        layout(Some(&UserSpec::Root), &ada(), Userns::Auto),
        (vec![(0, 1000, 1), (1, 100_000, 65_535)], vec![(0, 100, 1), (1, 200_000, 65_535)])
    );
    assert_eq!(layout(None, &bare(), Userns::Auto), (vec![(1000, 1000, 1)], vec![(100, 100, 1)]));
    assert_eq!(layout(Some(&UserSpec::Root), &bare(), Userns::Auto), (vec![(0, 1000, 1)], vec![(0, 100, 1)]));
    let far = HostFacts { uid: 1_000_123, ..ada() };
    assert_eq!(layout(None, &far, Userns::Auto).0, [(0, 100_000, 65_536), (1_000_123, 1_000_123, 1)]);
    assert_eq!(layout(None, &root(), Userns::Auto).0, [(0, 1_879_048_192, 65_536)]);
    assert_eq!(layout(None, &root(), Userns::KeepId).0, [(0, 0, 1), (1, 1_879_048_193, 65_535)]);
}

#[test]
fn no_layout_overlaps_or_leaves_the_range() {
    for own in [1, 2, 100, 1000, 65_534, 65_535, 65_536, 4_000_000_000] {
        for extents in [keep_id(own, 100_000), as_root(own, 100_000)] {
            for pair in extents.windows(2) {
                assert!(pair[0].inside + pair[0].size <= pair[1].inside, "{own}: {extents:?}");
            }
            for part in extents.iter().filter(|part| part.outside != own) {
                assert!(
                    part.size > 0 && part.outside >= 100_000 && part.outside + part.size <= 165_536,
                    "{own}: {extents:?}"
                );
            }
        }
        assert!(keep_id(own, 100_000).contains(&extent(own, own, 1)));
        // 0 and nobody exist in every range, which package managers need.
        let kept = ids(IdScheme::Range, &keep_id(own, 100_000), &[]);
        assert!(kept.host_uid(0).is_some() && kept.host_uid(65_534).is_some(), "{own}");
    }
}

#[test]
fn users() {
    let user =
        |spec: Option<&UserSpec>, host: &HostFacts| ids_for(spec, host, Userns::Auto, false).map(|(_, user)| user);
    let me = user(None, &ada()).unwrap();
    assert_eq!((me.uid, me.gid, me.name.as_str(), me.group.as_str()), (1000, 100, "ada", "users"));
    assert_eq!((me.home, me.groups), ("/home/ada".into(), vec![]));
    for spec in [
        UserSpec::Name("ada".into()),
        UserSpec::Ids { uid: 1000, gid: None },
        UserSpec::Ids { uid: 1000, gid: Some(100) },
    ] {
        assert_eq!(user(Some(&spec), &bare()).unwrap().name, "ada", "{spec}");
    }
    let root = user(Some(&UserSpec::Root), &ada()).unwrap();
    assert_eq!((root.uid, root.gid, root.home), (0, 0, "/root".into()));
    let other = user(Some(&OTHER), &ada()).unwrap();
    assert_eq!((other.uid, other.gid, other.name.as_str(), other.group.as_str()), (33, 0, "u33", "root"));
    let group = user(Some(&UserSpec::Ids { uid: 1000, gid: Some(5) }), &ada()).unwrap();
    assert_eq!((group.uid, group.gid, group.group.as_str()), (1000, 5, "g5"));
}

#[test]
fn errors_say_what_is_missing() {
    let told = |spec: UserSpec, host: HostFacts| {
        let error = ids_for(Some(&spec), &host, Userns::Auto, false).unwrap_err();
        format!("{error} | {}", error.hint().unwrap_or("-"))
    };
    assert_eq!(
        told(OTHER, bare()),
        "running as user 33:0 needs more ids than your own, and newuidmap and newgidmap are not installed | \
         install the package uidmap (shadow-utils, shadow)"
    );
    assert_eq!(
        told(OTHER, HostFacts { subuids: vec![(100_000, 65_535)], ..ada() }),
        "running as user 33:0 needs more ids than your own, and /etc/subuid has no 65536 ids for you | \
         sudo usermod --add-subuids 100000-165535 --add-subgids 100000-165535 \"$USER\""
    );
    assert_eq!(
        told(UserSpec::Name("eve".into()), ada()),
        "the user \"eve\" is not known; a cell knows root, \"ada\" and numbers | -"
    );
    assert_eq!(
        told(UserSpec::Ids { uid: 70_000, gid: None }, ada()),
        "the user id 70000 does not exist inside: a cell has the ids below 65536 and your own | -"
    );
}
