use super::*;

#[path = "reference.rs"]
mod reference;

const OLD: &str = "[core]\n\trepositoryformatversion = 0\n\tbare = false\n[remote \"origin\"]\n\turl = https://example.com/x.git\n\tfetch = +refs/heads/*:refs/remotes/origin/*\n[branch \"main\"]\n\tremote = origin\n\tmerge = refs/heads/main\n[alias]\n\tst = status\n";

fn says(new: &str) -> Result<(), Refused> {
    let said = permits(OLD.as_bytes(), new.as_bytes());
    if said.is_ok() {
        reference::agrees(OLD.as_bytes(), new.as_bytes());
    }
    said
}

fn with(more: &str) -> Result<(), Refused> {
    says(&format!("{OLD}{more}"))
}

#[test]
fn what_git_remembers_about_branches() {
    assert_eq!(says(OLD), Ok(()));
    for more in [
        "[branch \"x\"]\n\tremote = origin\n\tmerge = refs/heads/x\n",
        "[branch \"fix/é-#1;\"]\n\tremote = origin\n\tmerge = \"refs/heads/fix/é-#1;\"\n\trebase = true\n",
        "[branch \"x\"]\n\tremote = .\n\tmerge = refs/heads/main\n\tdescription = what it's for\n\tgh-merge-base = main",
        "\n# a comment\n[branch \"x\"]\n",
    ] {
        assert_eq!(with(more), Ok(()), "{more}");
    }
    // Renamed, and removed.
    assert_eq!(says(&OLD.replace("[branch \"main\"]", "[branch \"trunk\"]")), Ok(()));
    assert_eq!(says(&OLD.replace("[branch \"main\"]\n\tremote = origin\n\tmerge = refs/heads/main\n", "")), Ok(()));
    // In the middle, where git puts a second variable.
    assert_eq!(
        says(&OLD.replace("\tmerge = refs/heads/main\n", "\tmerge = refs/heads/main\n\trebase = false\n")),
        Ok(())
    );
}

#[test]
fn nothing_else_is_changed_added_removed_or_moved() {
    for (from, to) in [
        ("bare = false", "bare = true"),
        ("[alias]\n\tst = status\n", ""),
        ("st = status", "st = !evil"),
        ("[core]\n", "[core]\n\tfsmonitor = evil\n"),
        ("https://example.com", "https://example.org"),
        ("\tbare", "[branch \"x\"]\n\tbare"),
        ("[alias]\n", "[branch \"x\"]\n"),
        ("[alias]\n\tst = status\n", "[alias]\n[branch \"x\"]\n\tst = status\n"),
        ("[remote \"origin\"]", "[remote \"other\"]"),
        ("[core]", "[Core]"),
        ("[branch \"main\"]", "[branch \"main\"] fsmonitor = x"),
        ("[branch \"main\"]", "[branch \"main\"][core]"),
        ("[branch \"main\"]", " [branch \"main\"]"),
        ("[branch \"main\"]", "[branch.main]"),
        ("[branch \"main\"]", "[branch \"ma\\in\"]"),
        ("[branch \"main\"]", "[branch \"\"]"),
    ] {
        assert!(OLD.contains(from), "{from}");
        assert_eq!(says(&OLD.replacen(from, to, 1)), Err(Refused::Other), "{from} -> {to}");
    }
    for more in [
        "[core]\n\tfsmonitor = evil\n",
        "[include]\n\tpath = x\n",
        "[branch \"x\"]\n\tpushRemote = origin\n",
        "[branch \"x\"]\n\tmergeOptions = -s evil\n",
        "[branch \"x\"]\n\tremote = origin # x\n",
        "[branch \"x\"]\n\tremote=origin\n",
        "[branch \"x\"]\n\tremote = \"ori\"gin\n",
        "[branch \"x\"]\n\tremote = \"\n",
        "[branch \"x\"]\n\tRemote = origin\n",
        "[branch \"x\"]\n\tremote\n",
        "[branch \"x\"]\n\tdescription = a\\nb\n",
    ] {
        assert_eq!(with(more), Err(Refused::Other), "{more}");
    }
}

#[test]
fn lines_that_could_go_on_are_not_read() {
    for more in ["\tx = \\\n", "# \\\n", "\r\n", "\0", "\u{85}", "\u{2028}", "\u{feff}"] {
        assert_eq!(with(more), Err(Refused::Unclear), "{more:?}");
    }
    assert_eq!(permits(OLD.as_bytes(), &[OLD.as_bytes(), b"#\xff\n"].concat()), Err(Refused::Unclear));
    // Nor in the host's own file, where the next line would not be a header.
    let old = format!("{OLD}\tx = !sh \\\n");
    assert_eq!(permits(old.as_bytes(), old.as_bytes()), Err(Refused::Unclear));
    assert_eq!(with(&"\n".repeat(MOST)), Err(Refused::Large));
}

#[test]
fn branches_follow_what_branches_followed() {
    let branch = |remote: &str| format!("[branch \"x\"]\n\tremote = {remote}\n\tmerge = refs/heads/x\n");
    for remote in
        ["evil", "/tmp/evil.git", "../evil", "https://evil.example/x", "ext::sh -c evil", "-x", "Origin", ".."]
    {
        assert_eq!(with(&branch(remote)), Err(Refused::Remote), "{remote}");
    }
    let three = "[remote \"origin\"]\n\turl = a\n[remote \"fork\"]\n\turl = b\n[remote \"live\"]\n\turl = c\n[remote \"none\"]\n\tfetch = x\n[branch \"x\"]\n\tremote = fork\n";
    let says = |remote: &str| permits(three.as_bytes(), format!("{three}{}", branch(remote)).as_bytes());
    assert_eq!((says("origin"), says("fork")), (Ok(()), Ok(())));
    assert_eq!((says("live"), says("none")), (Err(Refused::Remote), Err(Refused::Remote)));
    let one = "[remote \"live\"]\n\turl = c\n";
    assert_eq!(permits(one.as_bytes(), format!("{one}{}", branch("live")).as_bytes()), Ok(()));
    for merge in ["main", "refs/heads/a b", "refs/heads/../x", "refs/heads/x:y", "refs/heads/*", "refs/heads/"] {
        let more = format!("[branch \"x\"]\n\tmerge = {merge}\n");
        assert_eq!(with(&more), Err(Refused::Value), "{merge}");
    }
    assert_eq!(with("[branch \"x\"]\n\trebase = !evil\n"), Err(Refused::Value));
    assert_eq!(with("[branch \"x\"]\n\tgh-merge-base = -x\n"), Err(Refused::Value));
}

#[test]
fn what_the_host_wrote_about_a_branch_stays() {
    let old = format!(
        "{OLD}[branch \"x\"]\n\tremote = \"https://e.example/#\\\"\"\n\tmergeOptions = --no-ff\n\tgithub-pr-owner-number = \"a#b#1\"\n"
    );
    let says = |from: &str, to: &str| permits(old.as_bytes(), old.replacen(from, to, 1).as_bytes());
    assert_eq!(says("[branch \"x\"]", "[branch \"y\"]"), Err(Refused::Other), "an odd address stays where it is");
    assert_eq!(says("\tmergeOptions = --no-ff\n", ""), Err(Refused::Lost));
    let all = old.split_once("[branch \"x\"]").expect("the last section").1;
    // The branch could come back without it.
    assert_eq!(says(&format!("[branch \"x\"]{all}"), ""), Err(Refused::Lost), "with its branch");
    assert_eq!(says(all, "\n"), Err(Refused::Lost), "with its branch, of which the header is left");
    assert_eq!(says(all, "\n\tremote = origin\n"), Err(Refused::Lost));
    assert_eq!(says("\tgithub-pr-owner-number = \"a#b#1\"\n", ""), Ok(()), "for people only");
    assert_eq!(says("[branch \"main\"]", "[branch \"main\"]\n\tgithub-pr-owner-number = \"a#b#1\""), Ok(()));
    assert_eq!(says("[branch \"main\"]", "[branch \"main\"]\n\tmergeOptions = --no-ff"), Err(Refused::Other));
    assert_eq!(
        says("[branch \"main\"]", "[branch \"main\"]\n\tgithub-pr-owner-number = \"a#b#2\""),
        Err(Refused::Other)
    );
}

#[test]
fn where_the_host_has_a_branch_pushed_to_stays() {
    let old = format!(
        "{OLD}[branch \"x\"]\n\tpushRemote = fork\n\tpushRemote = own\n\tremote = https://e.example/x.git\n\tremote = origin\n"
    );
    let says = |from: &str, to: &str| {
        assert!(old.contains(from), "{from}");
        permits(old.as_bytes(), old.replacen(from, to, 1).as_bytes())
    };
    // The twin: an address that the host wrote is in nobody's way.
    assert_eq!(says("[branch \"x\"]\n", "[branch \"x\"]\n\trebase = true\n"), Ok(()));
    assert_eq!(says("[branch \"x\"]", "[branch \"y\"]\n\tremote = origin\n[branch \"x\"]"), Ok(()));
    assert_eq!(says("\tremote = https://e.example/x.git\n", ""), Ok(()));
    let section = old.split_once("[branch \"x\"]").expect("the last section").1;
    for (from, to, why) in [
        ("\tpushRemote = own\n", "", Refused::Lost),
        ("\tpushRemote = fork\n\tpushRemote = own\n", "\tpushRemote = own\n\tpushRemote = fork\n", Refused::Lost),
        ("\tpushRemote = own\n", "\tpushRemote = own\n\tpushRemote = fork\n", Refused::Other),
        ("\tpushRemote = fork\n\tpushRemote = own\n", "\tpushRemote = fork\n\tpushRemote = other\n", Refused::Lost),
        ("[branch \"x\"]", "[branch \"y\"]", Refused::Other),
        ("[branch \"x\"]", "[branch \"y\"]\n\tpushRemote = fork\n[branch \"x\"]", Refused::Other),
        // The first of two steps: the second would have the branch back without it.
        (&format!("[branch \"x\"]{section}"), "", Refused::Lost),
        (section, "\n\tremote = origin\n", Refused::Lost),
    ] {
        assert_eq!(says(from, to), Err(why), "{from} -> {to}");
    }
    // Nor does the other one of two count, or count for another branch.
    for (from, to) in [
        ("x.git\n\tremote = origin\n", "x.git\n"),
        ("https://e.example/x.git\n\tremote = origin\n", "origin\n\tremote = https://e.example/x.git\n"),
        ("[branch \"main\"]\n", "[branch \"main\"]\n\tremote = https://e.example/x.git\n"),
        ("https://e.example/x", "https://e.example/y"),
    ] {
        assert_eq!(says(from, to), Err(Refused::Remote), "{from} -> {to}");
    }
}

#[test]
fn git_reads_what_is_permitted_as_permitted() {
    // A small generator, so that the same inputs come every time.
    let mut state = 1_u64;
    let mut next = |most: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(state >> 40).unwrap_or_default() % most
    };
    let pieces = [
        "[branch \"x\"]\n",
        "[branch \"main\"]",
        "[core]\n",
        "[remote \"r\"]\n",
        "\turl = u\n",
        "\tremote = r\n",
        "\tremote = .\n",
        "\tmerge = refs/heads/x\n",
        "\tfsmonitor = evil\n",
        "\n",
        "\\\n",
        "\"",
        " ",
        "\t",
        "#",
        ";",
        "]",
        "[",
        "=",
        "\r",
        "\\",
        "x",
        "\tdescription = d",
    ];
    let (mut permitted, mut read) = (0, 0);
    for _ in 0..200_000 {
        let mut text = |count: usize| (0..next(count)).map(|_| pieces[next(pieces.len())]).collect::<String>();
        let (old, more) = (text(8), text(5));
        let at = next(old.len() + 1);
        let new = if old.is_char_boundary(at) { format!("{}{more}{}", &old[..at], &old[at..]) } else { more };
        if permits(old.as_bytes(), new.as_bytes()).is_ok() {
            permitted += 1;
            read += usize::from(reference::read(old.as_bytes()).is_some_and(|old| !old.is_empty()) && old != new);
            reference::agrees(old.as_bytes(), new.as_bytes());
        }
    }
    assert!(permitted > 1000 && read > 100, "{permitted} {read}");
}
