//! What may be changed and what not, on a pretended tree.

use std::collections::BTreeSet;

use super::*;

/// What exists.
struct Tree(BTreeSet<Vec<u8>>);

impl Look for Tree {
    fn exists(&self, path: &[u8]) -> bool {
        self.0.contains(path)
    }
}

fn tree(paths: &[&str]) -> Tree {
    let mut all = BTreeSet::new();
    for path in paths {
        for (index, _) in path.match_indices('/').skip(1) {
            all.insert(path.as_bytes()[..index].to_vec());
        }
        all.insert(path.as_bytes().to_vec());
    }
    Tree(all)
}

const ALL: [Act; 7] = [Act::Make, Act::MakeDir, Act::Place, Act::PlaceDir, Act::Write, Act::Remove, Act::Away];

fn policy() -> Policy {
    let said = |list: &[&str]| list.iter().map(|name| ((*name).to_owned(), format!("why {name}"))).collect();
    Policy::new(&Protect {
        configs: BTreeSet::new(),
        roots: ["/p".into(), "/main/.git".into(), "/cache".into()].into(),
        trees: ["/p".into()].into(),
        names: said(&[".envrc", ".vscode", ".claude/settings*.json", ".claude/hooks", "**/.direnv"]),
        git_names: said(&[
            "hooks",
            "config",
            "config.worktree",
            "config.lock",
            "info/attributes",
            "commondir",
            "gitdir",
        ]),
        paths: [("/p/tools/hooks".into(), "core.hooksPath".to_owned())].into(),
        git_dirs: [("/main/.git".into(), ["HEAD".to_owned(), "index".to_owned()].into())].into(),
        links: std::collections::BTreeMap::new(),
        open: ["/p/.vscode/tasks.json".into()].into(),
    })
}

fn denied(path: &str, act: Act, look: &Tree) -> bool {
    policy().decide(path.as_bytes(), act, look).is_err()
}

fn always(path: &str, look: &Tree) -> bool {
    ALL.iter().all(|act| denied(path, *act, look))
}

fn never(path: &str, look: &Tree) -> bool {
    !ALL.iter().any(|act| *act != Act::PlaceDir && denied(path, *act, look))
}

#[test]
fn git_folders_are_closed_where_git_acts_on_them() {
    let look = tree(&["/p/.git/HEAD", "/p/.git/objects", "/p/.git/refs"]);
    for path in [
        "/p/.git",
        "/p/a/b/.git",
        "/p/.GIT",
        "/p/a/.giT/hooks/pre-commit",
        "/p/git~1",
        "/p/.git. .",
        "/p/.g\u{200c}it",
        "/p/.git::$INDEX_ALLOCATION",
        "/p/.git/hooks",
        "/p/.git/hooks/pre-commit",
        "/p/.git/hoo\u{212a}s/x",
        "/p/.git/Config",
        "/p/.git/config.worktree",
        "/p/.git/info/attributes",
        "/p/.git/commondir",
        "/p/x/.git/config",
        "/p/.git/modules/lib/config",
        "/p/.git/modules/a/b/hooks/post-checkout",
        "/p/.git/worktrees/w/gitdir",
        "/p/.git/worktrees/w/commondir",
        "/p/.git/worktrees/w/config.worktree",
        "/main/.git/hooks/x",
        "/main/.git/HEAD",
        "/main/.git/index",
    ] {
        assert!(always(path, &look), "{path}");
    }
    for path in [
        "/p/.gitignore",
        "/p/.github/hooks/x",
        "/p/hooks/use.ts",
        "/p/config",
        "/p/src/config/x",
        "/p/.git/HEAD",
        "/p/.git/index.lock",
        "/p/.git/refs/heads/config",
        "/p/.git/objects/aa/bb",
        "/p/.git/info/exclude",
        "/p/.git/modules/lib/HEAD",
        "/p/.git/modules/lib/refs/heads/hooks",
        "/p/.git/worktrees/w/HEAD",
        "/main/.git/refs/heads/x",
        "/main/.git/worktrees/w/index",
        "/tmp/.git/config",
        "/home/.git",
        "/px/.git",
    ] {
        assert!(never(path, &look), "{path}");
    }
}

#[test]
fn what_holds_a_protected_name_is_not_replaced_as_a_whole() {
    let look = tree(&[]);
    for path in ["/p/.claude", "/p/.git/info", "/p/.git/modules", "/p/.git/modules/x", "/p/.git/worktrees/x", "/main"] {
        let moves = path != "/main";
        assert_eq!(denied(path, Act::Place, &look), moves, "{path}");
        assert_eq!(denied(path, Act::Away, &look), moves, "{path}");
        assert!(!denied(path, Act::MakeDir, &look), "{path}");
        assert!(!denied(path, Act::Remove, &look), "{path}");
    }
}

#[test]
fn links_and_whole_folders_do_not_come_into_git_folders() {
    let look = tree(&[]);
    for path in ["/p/.git/logs", "/p/.git/logs/HEAD", "/main/.git/refs/x", "/p/s/.git/COMMIT_EDITMSG"] {
        assert!(denied(path, Act::Link, &look) && denied(path, Act::PlaceDir, &look), "{path}");
        assert!(!denied(path, Act::Place, &look) && !denied(path, Act::MakeDir, &look), "{path}");
    }
    for path in ["/p/link", "/p/src/logs", "/cache/x"] {
        assert!(!denied(path, Act::Link, &look) && !denied(path, Act::PlaceDir, &look), "{path}");
    }
    assert!(always("/p/tools/hooks/x", &look));
    assert!(denied("/p/tools", Act::Away, &look) && !denied("/p/tools/x", Act::Away, &look));
}

#[test]
fn tools_files_count_at_the_top_of_work_trees() {
    let look = tree(&["/p/sub/.git/HEAD", "/p/plain/x"]);
    for path in [
        "/p/.envrc",
        "/p/.ENVRC",
        "/p/.vscode",
        "/p/.vscode/settings.json",
        "/p/.claude/settings.json",
        "/p/.claude/settings.local.json",
        "/p/.claude/hooks/x",
        "/p/sub/.envrc",
        "/p/deep/er/.direnv/x",
    ] {
        assert!(always(path, &look), "{path}");
    }
    for path in ["/p/plain/.envrc", "/p/.claude/notes.md", "/p/.vscode/tasks.json", "/p/.vscodex", "/cache/.envrc"] {
        assert!(never(path, &look), "{path}");
    }
}

#[test]
fn no_folder_becomes_a_repository() {
    for (there, last) in [
        (&["/p/x/objects", "/p/x/refs"][..], "HEAD"),
        (&["/p/x/HEAD", "/p/x/refs"], "objects"),
        (&["/p/x/HEAD", "/p/x/objects"], "refs"),
        (&["/p/x/HEAD"], "commondir"),
        (&["/p/x/commondir"], "HEAD"),
        (&["/p/x/objects", "/p/x/refs"], "head"),
    ] {
        let look = tree(there);
        for act in [Act::Make, Act::MakeDir, Act::Place] {
            assert!(denied(&format!("/p/x/{last}"), act, &look), "{last} {act:?}");
            assert!(!denied(&format!("/p/y/{last}"), act, &look), "{last} {act:?}");
        }
    }
    // One that is there, made by the host, is used as before; its hooks and configuration stay.
    let bare = tree(&["/p/x.git/HEAD", "/p/x.git/objects", "/p/x.git/refs"]);
    assert!(never("/p/x.git/HEAD", &bare));
    assert!(always("/p/x.git/hooks/update", &bare));
    assert!(always("/p/x.git/config", &bare));
    assert!(never("/p/y.git/config", &bare));
    let root = tree(&["/cache/HEAD", "/cache/objects", "/cache/refs"]);
    assert!(always("/cache/hooks/update", &root));
}

#[test]
fn odd_paths_are_cleaned_and_harmless() {
    let look = tree(&[]);
    assert!(always("//p//.git/", &look));
    for path in ["", "/", "/p", "/p/", "/p/\u{200b}", "x"] {
        assert!(never(path, &look), "{path:?}");
    }
    assert!(policy().decide(b"/p/\xff\xfe", Act::Make, &look).is_ok());
    assert!(policy().decide(b"/p/.GIT\xff", Act::Make, &look).is_ok());
}

#[test]
fn patterns() {
    for (pattern, name, fits) in
        [("a*c", "abc", true), ("a*c", "ac", true), ("a*c", "ab", false), ("*", "", true), ("a", "aa", false)]
    {
        assert_eq!(glob(pattern.as_bytes(), name.as_bytes()), fits, "{pattern} {name}");
    }
}

#[test]
fn no_path_is_too_odd() {
    // Pieces of what matters, joined at random: nothing panics, and an entry called .git is refused wherever it stands below a root.
    let pieces: [&[u8]; 16] = [
        b"/",
        b"/p/",
        b".git",
        b"hooks",
        b"modules",
        b"worktrees",
        b"refs",
        b"HEAD",
        b"..",
        b"\xff",
        b" ",
        b".",
        b"~1",
        b":",
        b"\xe2\x80\x8c",
        b"*",
    ];
    let (policy, look) = (policy(), tree(&["/p/.git/HEAD", "/p/.git/commondir"]));
    let mut state = 1u64;
    for _ in 0..20_000 {
        let mut path = Vec::new();
        for _ in 0..12 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            path.extend_from_slice(pieces[usize::try_from(state >> 60).expect("four bits")]);
        }
        for act in ALL {
            let _ = policy.decide(&path, act, &look);
        }
        let inside = [b"/p/", path.as_slice(), b"/.GIT"].concat();
        assert!(policy.decide(&inside, Act::Make, &look).is_err(), "{inside:?}");
    }
}
