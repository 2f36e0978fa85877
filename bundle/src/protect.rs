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
    /// The same from the top of any git folder: one that is called `.git`, one of `git_dirs`, and each below a git folder's `modules`, however deep.
    pub git_names: BTreeMap<String, String>,
    /// Git folders known at the start, whatever they are called, each with names that are closed in addition: in the folder that worktrees share
    /// that are the main worktree's files.
    pub git_dirs: BTreeMap<PathBuf, BTreeSet<String>>,
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
