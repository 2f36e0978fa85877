//! What a cell sees of the project's repository, and which of it, and of the files that the host's tools act on, it cannot change.
//!
//! ```text
//! main worktree     ROOT/.git is in the project. Closed: config*, hooks, info, worktrees, …; the same in modules/**
//! linked worktree   COMMON is added, at its own path. Closed: the same, and what is the main worktree's and the other worktrees'.
//!                   COMMON/worktrees/NAME is open again, but for what makes it a worktree. ROOT/.git, the pointer, is closed.
//! submodule         its repository in the superproject's is added if it names ROOT as its work tree
//! anything else     that a pointer leads to is not added, and the person is told
//! ```
//!
//! Only known places are looked at: `modules` is walked, a work tree never.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use cellblock_bundle::cell::Mount;
use cellblock_bundle::protect::Protect;

use super::asked::Asked;
use super::error::ResolveError;
use super::files::{Files, Kind};
use super::git_config::{self, Read};
use super::layers::Wanted;
use super::mounts::Placed;
use super::origin::{Origin, Sourced};
use super::protect::{Covers, List, Tree};
use crate::args::values::Protection;
use crate::project::{Git, ProjectFacts, refuse};

/// Most folders that are looked at in `modules`: with more, all of it is closed.
const MOST_MODULES: usize = 512;

/// Most words of git's configuration that are looked for in the project.
const MOST_WORDS: usize = 64;

/// What there is to mount in addition, and what else is known then.
#[derive(Debug, Default)]
pub(super) struct Fenced {
    /// The mounts, to be made after those they stand on.
    pub(super) mounts: Vec<Placed>,
    /// The names for the guard.
    pub(super) protect: Protect,
    /// Whether anything is protected at all, and who said so.
    pub(super) said: Option<Sourced<Protection>>,
    /// What the person should be told.
    pub(super) notes: Vec<String>,
    /// What git is told by variables, name and value.
    pub(super) settings: Vec<(&'static str, &'static str)>,
    /// What is said about the person in the cell's own `~/.gitconfig`.
    pub(super) person: String,
}

/// Fences in what `placed` lets the cell write. With a `guard` git can remember what branches follow.
pub(super) fn fence(asked: Asked<'_>, placed: &[Placed], guard: bool) -> Result<Fenced, ResolveError> {
    let trees = trees(placed, asked.files);
    let git = asked.project.and_then(|project| project.git.as_ref());
    let person = git_config::person(asked.files, asked.host, asked.project);
    let mut fenced = Fenced { person: git_config::generated(&person), ..Fenced::default() };
    if trees.is_empty() {
        return Ok(fenced);
    }
    let said = asked.layers.pick(
        Wanted { flag: asked.flags.protect.map(|said| (said, "--protect")), variable: None, key: |s| &s.protect },
        Protection::On,
    )?;
    let taken = placed.iter().map(|placed| placed.mount.target().to_owned()).collect();
    let mut fence = Fence {
        asked,
        list: List::read(),
        covers: Covers::new(asked.files, trees, taken, opened(asked)),
        git_dirs: BTreeMap::new(),
        configs: BTreeSet::new(),
        notes: Vec::new(),
        closed: said.value == Protection::On,
    };
    if let (Some(project), Some(git)) = (asked.project, git) {
        fence.repository(project, git)?;
        let local = git_config::repository(asked.files, asked.host, git);
        fence.named(project, [&local, &person]);
        let remembers = guard && fence.covers.place(&git.common_dir).is_some_and(|at| fence.configs.contains(&at));
        fenced.settings = git_config::settings(&person, remembers || !fence.closed);
    }
    fence.work_trees();
    let (list, closed) = (fence.list, fence.closed);
    let (mounts, protect) = fence.covers.finish(&list, fence.git_dirs, fence.configs);
    fenced.notes = fence.notes;
    fenced.mounts = mounts;
    fenced.protect = if closed { protect } else { Protect::default() };
    fenced.said = Some(said);
    Ok(fenced)
}

/// The folders of the host that the cell may write; the project's is the first.
fn trees(placed: &[Placed], files: &dyn Files) -> Vec<Tree> {
    let mut trees: Vec<(bool, Tree)> = Vec::new();
    for Placed { mount, origin } in placed {
        if let Mount::Bind { source, target, writable: true } = mount
            && files.kind(source) == Some(Kind::Folder)
        {
            let tree = Tree { source: source.clone(), target: target.clone() };
            trees.push((*origin != Origin::Found, tree));
        }
    }
    trees.sort_by_key(|(other, _)| *other);
    trees.into_iter().map(|(_, tree)| tree).collect()
}

/// What the configuration and the flags open, as paths inside. `.git` is wherever the repository is.
fn opened(asked: Asked<'_>) -> BTreeSet<PathBuf> {
    let Some(project) = asked.project else { return BTreeSet::new() };
    let configured = asked.layers.sections().flat_map(|(settings, _)| settings.protect_except.iter().map(|o| &o.value));
    let mut open = BTreeSet::new();
    for opened in configured.chain(&asked.flags.unprotect) {
        open.insert(project.at().join(&opened.0));
        if let (Ok(rest), Some(git)) = (opened.0.strip_prefix(".git"), &project.git)
            && rest.as_os_str() != ""
        {
            // git writes a file by another one, which takes its place.
            let mut lock = rest.as_os_str().to_owned();
            lock.push(".lock");
            for folder in [&project.root.join(".git"), &git.common_dir, &git.git_dir] {
                open.extend([folder.join(rest), folder.join(&lock)].map(|path| project.inside(&path)));
            }
        }
    }
    open
}

/// A fence in the making.
struct Fence<'a> {
    asked: Asked<'a>,
    list: List,
    covers: Covers<'a>,
    git_dirs: BTreeMap<PathBuf, BTreeSet<String>>,
    configs: BTreeSet<PathBuf>,
    notes: Vec<String>,
    closed: bool,
}

impl Fence<'_> {
    /// The project's repository: seen by the cell, as far as that is confirmed, and closed where it has to be.
    fn repository(&mut self, project: &ProjectFacts, git: &Git) -> Result<(), ResolveError> {
        let common = &git.common_dir;
        if self.covers.place(common).is_none() {
            if !git.confirmed {
                self.notes.push(format!(
                    "{}/.git leads to {common}, which does not name {} as its work tree: it is not mounted, and git does not work inside. If you \
                     mean it: git --git-dir={common} config core.worktree {}",
                    project.root.display(),
                    project.root.display(),
                    project.root.display(),
                    common = common.display()
                ));
                self.pointer(project);
                return Ok(());
            }
            self.check(common)?;
            self.covers.grant_tree(common, "the project's repository");
        }
        self.alternates(common);
        if !self.closed {
            return Ok(());
        }
        self.pointer(project);
        self.git_dir(common, git.linked);
        if git.linked {
            self.covers.close_rows(common, &self.list.main_worktree);
            self.covers.grant(&git.git_dir, "this worktree's own files");
            self.git_dir(&git.git_dir, false);
        }
        self.modules(&git.git_dir.join("modules"));
        Ok(())
    }

    /// What is no project must not become one by way of a repository.
    fn check(&self, common: &Path) -> Result<(), ResolveError> {
        let host = self.asked.host;
        let own: Vec<PathBuf> =
            host.own.iter().chain(Some(&host.runtime)).filter(|p| !p.as_os_str().is_empty()).cloned().collect();
        if common.to_str().is_none() {
            return Err(ResolveError::NotUtf8 { origin: Origin::Found, path: common.to_owned() });
        }
        match refuse(common, &host.homes, &own) {
            Some(refusal) => Err(refusal.into()),
            None => Ok(()),
        }
    }

    /// `.git` where it is a file: with another one in its place the host's git would be led elsewhere.
    fn pointer(&mut self, project: &ProjectFacts) {
        let dot_git = project.root.join(".git");
        match self.asked.files.kind(&dot_git) {
            Some(Kind::File) if self.closed => self.covers.close(&dot_git, "says where the repository is"),
            Some(Kind::Link) if self.closed => self.covers.hold(&dot_git),
            _ => {}
        }
    }

    /// Closes what is closed in every git folder. `shared` is one whose own worktree is another than the cell's.
    fn git_dir(&mut self, at: &Path, shared: bool) {
        self.covers.pin(at);
        self.covers.close_rows(at, &self.list.git);
        if let Some(target) = self.covers.place(at) {
            let more = if shared {
                self.list.main_worktree.iter().map(|(key, _)| (*key).to_owned()).collect()
            } else {
                BTreeSet::new()
            };
            if self.covers.closed(&at.join("config")).is_some() {
                self.configs.insert(target.clone());
            }
            self.git_dirs.insert(target, more);
        }
    }

    /// The repositories of submodules, below `modules` of the worktree's own folder.
    fn modules(&mut self, modules: &Path) {
        let mut found = Vec::new();
        let mut left = MOST_MODULES;
        if walk(self.asked.files, modules, &mut left, &mut found).is_some() {
            for module in found {
                self.git_dir(&module, false);
            }
        } else {
            self.notes.push(format!("{} is too large or too odd to look through: it is read-only", modules.display()));
            self.covers.close(modules, "cannot be looked through");
        }
    }

    /// Files in the project that git's configuration names: hooks, files it includes, programs.
    fn named(&mut self, project: &ProjectFacts, configs: [&Read; 2]) {
        if !self.closed {
            return;
        }
        for path in configs.iter().flat_map(|read| &read.files) {
            self.covers.close_named(path, "git's configuration includes it");
        }
        let entries = || configs.iter().flat_map(|read| &read.entries);
        for entry in entries().filter(|entry| entry.is("core", "hookspath")) {
            let path = git_config::expand(&entry.value, &project.root, self.asked.host);
            self.covers.close_named(&path, "core.hooksPath: the host's git runs what is in it");
        }
        let mut left = MOST_WORDS;
        for entry in entries().filter(|entry| git_config::may_run(entry)) {
            for word in entry.value.split_whitespace().map(|word| word.trim_matches(['!', '"', '\''])) {
                if !word.contains('/') || left == 0 {
                    continue;
                }
                left -= 1;
                let path = git_config::expand(word, &project.root, self.asked.host);
                let in_project = self.covers.tree(&path).is_some();
                if in_project && self.asked.files.look(&path).is_ok_and(|seen| !seen.is_dir) {
                    let why = format!("git's configuration names it ({}.{})", entry.section, entry.key);
                    self.covers.close_named(&path, &why);
                }
            }
        }
    }

    /// Files that tools act on, in each work tree, and the repository in those that are not the project.
    fn work_trees(&mut self) {
        if !self.closed {
            return;
        }
        let project = self.asked.project.map(|project| &project.root);
        for tree in self.covers.trees().to_vec() {
            if self.git_dirs.contains_key(&tree.target) {
                continue;
            }
            self.covers.close_rows(&tree.source, &self.list.tree);
            if project != Some(&tree.source) {
                let dot_git = tree.source.join(".git");
                match self.asked.files.kind(&dot_git) {
                    Some(Kind::Folder) => {
                        self.git_dir(&dot_git, false);
                        self.modules(&dot_git.join("modules"));
                    }
                    Some(Kind::File) => self.covers.close(&dot_git, "says where the repository is"),
                    Some(Kind::Link) => self.covers.hold(&dot_git),
                    None => {}
                }
            }
        }
    }

    /// Objects that the repository borrows from another one: what it says there can be written inside, and so grants nothing.
    fn alternates(&mut self, common: &Path) {
        let text = self.asked.files.text(&common.join("objects/info/alternates")).unwrap_or_default();
        for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
            let path = common.join("objects").join(line);
            if self.covers.tree(&path).is_none() {
                let path = path.display();
                self.notes.push(format!(
                    "the repository borrows objects from {path}, which git does not find inside without -v {path}:ro"
                ));
            }
        }
    }
}

/// The git folders below `at`, without entering them but for their own `modules`. `None` if there are too many, or something odd.
fn walk(files: &dyn Files, at: &Path, left: &mut usize, found: &mut Vec<PathBuf>) -> Option<()> {
    match files.kind(at) {
        None => return Some(()),
        Some(Kind::Folder) => {}
        Some(Kind::Link | Kind::File) => return None,
    }
    for name in files.list(at)? {
        *left = left.checked_sub(1)?;
        let path = at.join(name);
        match files.kind(&path) {
            Some(Kind::Folder) if files.kind(&path.join("HEAD")).is_some() => {
                walk(files, &path.join("modules"), left, found)?;
                found.push(path);
            }
            // A submodule's name may have slashes.
            Some(Kind::Folder) => walk(files, &path, left, found)?,
            Some(Kind::Link) => return None,
            Some(Kind::File) | None => {}
        }
    }
    Some(())
}
