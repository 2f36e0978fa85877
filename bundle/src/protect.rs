//! What a cell must not change in folders of the host that it may write: names, and the reason for each.
//!
//! Whoever works on the host afterwards has git, an editor and a shell act on what lies in the project. What exists of it at the start is
//! covered by read-only mounts. What does not exist, or is in a repository that appears later, is refused by name: this is the list for both.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// What is protected, by name, whether it exists or not. Everything in it is a path as the cell sees it. Empty: nothing is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Protect {
    /// Folders of the host that the cell may write: the project, a linked worktree's repository, further mounts. All names below count only in
    /// there.
    pub roots: BTreeSet<PathBuf>,
    /// Folders in which `names` count: the tops of work trees, each one of `roots` or below one. A nested repository's top, which is not known
    /// here, counts as well.
    pub trees: BTreeSet<PathBuf>,
    /// Files and folders by their path from a work tree's top, each with the reason. With `**/` in front it counts in every folder below
    /// `roots`. A `*` stands for any letters within one component. Whatever is below a protected name is protected, and what holds one (`.claude`
    /// for `.claude/settings.json`) must not be replaced as a whole.
    pub names: BTreeMap<String, String>,
    /// Further files and folders, by their whole path: where links lead that stand at one of `names`, what git's configuration names. With everything
    /// below.
    pub paths: BTreeMap<PathBuf, String>,
    /// As `names`, from the top of any git folder: one that is called `.git`, one of `git_dirs`, and each below a git folder's `modules`, however
    /// deep. The innermost git folder around a path is the one that counts: `worktrees` is closed, and the cell's own folder in it is not.
    ///
    /// An entry called `.git` is never made, replaced, moved or removed, and a link is never made in a git folder: git writes through `logs/HEAD` and
    /// `COMMIT_EDITMSG` wherever they lead.
    pub git_names: BTreeMap<String, String>,
    /// Git folders known at the start, whatever they are called, each with names that are closed in addition: in the folder that worktrees share
    /// that are the main worktree's files.
    pub git_dirs: BTreeMap<PathBuf, BTreeSet<String>>,
    /// Those of them, by their path inside, in whose `config` the guard lets be changed what git remembers about branches. The mount that covers it is
    /// left out where a guard runs; without one it is closed as all else.
    pub configs: BTreeSet<PathBuf>,
    /// Links that stand at a protected name, by their path inside, each with its path on the host. They are mounted onto themselves, so that nothing
    /// can be put in their place. No bundle can express that: runtimes follow the link.
    pub links: BTreeMap<PathBuf, PathBuf>,
    /// What a person has opened: whole paths, with everything below. They win over everything here.
    pub open: BTreeSet<PathBuf>,
}

impl Protect {
    /// Whether nothing is protected.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.roots.is_empty()
    }
}

/// Whether one component of a row matches a name. A `*` stands for any letters, none included. Letters of ASCII match in either case: on a
/// file system that does not tell them apart `.GIT` is `.git`, and nobody needs `.VSCODE` for anything else.
#[must_use]
pub fn component_matches(pattern: &str, name: &[u8]) -> bool {
    let pattern = pattern.as_bytes();
    match pattern.iter().position(|b| *b == b'*') {
        None => pattern.eq_ignore_ascii_case(name),
        Some(star) => {
            let (before, after) = (&pattern[..star], &pattern[star + 1..]);
            // Rows have at most one star in a component; a test of the list holds them to it.
            name.len() >= before.len() + after.len()
                && name[..before.len()].eq_ignore_ascii_case(before)
                && name[name.len() - after.len()..].eq_ignore_ascii_case(after)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn components_match_in_either_case_and_with_a_star() {
        for (pattern, name, want) in [
            (".git", ".GIT", true),
            (".git", ".gitx", false),
            ("settings*.json", "settings.json", true),
            ("settings*.json", "Settings.local.JSON", true),
            ("settings*.json", "settings.jso", false),
            ("settings*.json", "xsettings.json", false),
            ("*.code-workspace", ".code-workspace", true),
            ("a*a", "a", false),
        ] {
            assert_eq!(component_matches(pattern, name.as_bytes()), want, "{pattern} {name}");
        }
    }
}
