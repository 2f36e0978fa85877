//! Covers for what exists of the files that the host's tools act on: read-only mounts of them onto themselves.
//!
//! A mount cannot be renamed or removed inside, but what holds it can. So every folder between a cover and the top of its tree is mounted
//! onto itself as well, a *pin*: else `.git` could be moved away with the covers in it and a new one made. Nothing is ever created for a cover: what
//! does not exist is refused by name, by the guard, which reads the same list ([`Protect`]).

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path, PathBuf};

use cellblock_bundle::cell::Mount;
use cellblock_bundle::protect::{Protect, component_matches};

use super::files::{Files, Kind};
use super::mounts::Placed;
use super::origin::Origin;
use super::presence::Presence;

/// The list, with the reasons.
const LIST: &str = include_str!("../../data/protected.yaml");

/// Rows of the list, in order: a name, the reason.
pub(super) type Rows = Vec<(&'static str, &'static str)>;

/// The list as data.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct List {
    /// From the top of a git folder.
    pub(super) git: Rows,
    /// In addition, the main worktree's own, for linked ones.
    pub(super) main_worktree: Rows,
    /// From the top of a work tree.
    pub(super) tree: Rows,
}

impl List {
    /// Reads the list that is part of the program.
    pub(super) fn read() -> Self {
        let mut list = Self::default();
        for row in crate::config::rows(LIST) {
            let section = match row.section {
                "git" => &mut list.git,
                "main_worktree" => &mut list.main_worktree,
                _ => &mut list.tree,
            };
            section.push((row.key, row.why));
        }
        // Those below one folder stand together then.
        [&mut list.git, &mut list.main_worktree, &mut list.tree].into_iter().for_each(|rows| rows.sort_unstable());
        list
    }
}

/// As the guard is given them.
fn owned(rows: &Rows) -> BTreeMap<String, String> {
    rows.iter().map(|(key, why)| ((*key).to_owned(), (*why).to_owned())).collect()
}

/// A folder of the host that the cell may write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Tree {
    /// On the host. Canonical.
    pub(super) source: PathBuf,
    /// Inside.
    pub(super) target: PathBuf,
}

impl Tree {
    fn inside(&self, path: &Path) -> Option<PathBuf> {
        let rest = path.strip_prefix(&self.source).ok()?;
        Some(if rest.as_os_str().is_empty() { self.target.clone() } else { self.target.join(rest) })
    }
}

/// What a mount here is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    /// Something that the cell may write where it could not otherwise.
    Grant,
    /// A folder that must stay where it is.
    Pin,
    /// Something that it may not write.
    Closed,
}

#[derive(Clone, Debug)]
struct Cover {
    source: PathBuf,
    role: Role,
    why: String,
}

/// Covers in the making.
#[derive(Debug)]
pub(super) struct Covers<'a> {
    files: &'a dyn Files,
    /// What the cell may write, the project first.
    trees: Vec<Tree>,
    /// Where other mounts stand that a person asked for: what they show is their business.
    taken: Vec<PathBuf>,
    /// What a person has opened, as paths inside.
    open: BTreeSet<PathBuf>,
    made: BTreeMap<PathBuf, Cover>,
    links: BTreeMap<PathBuf, PathBuf>,
    /// Closed paths that the list does not name, by their path inside: where links lead, what git's configuration names.
    pub(super) found: BTreeMap<PathBuf, String>,
}

impl<'a> Covers<'a> {
    pub(super) fn new(files: &'a dyn Files, trees: Vec<Tree>, taken: Vec<PathBuf>, open: BTreeSet<PathBuf>) -> Self {
        Self { files, trees, taken, open, made: BTreeMap::new(), links: BTreeMap::new(), found: BTreeMap::new() }
    }

    /// What the cell may write.
    pub(super) fn trees(&self) -> &[Tree] {
        &self.trees
    }

    /// Lets the cell have the folder `path` of the host at its own path, for writing.
    pub(super) fn grant_tree(&mut self, path: &Path, why: &str) {
        let tree = Tree { source: path.to_owned(), target: path.to_owned() };
        self.add(&tree, path.to_owned(), path, Role::Grant, why);
        self.trees.push(tree);
    }

    /// Opens `path` again, in something that was closed.
    pub(super) fn grant(&mut self, path: &Path, why: &str) {
        let Some(tree) = self.tree(path).cloned() else { return };
        if let Some(target) = tree.inside(path) {
            self.add(&tree, target, path, Role::Grant, why);
        }
    }

    /// Keeps the folder `path` where it is, and every folder between it and the top of its tree.
    pub(super) fn pin(&mut self, path: &Path) {
        let Some(tree) = self.tree(path).cloned() else { return };
        for folder in path.ancestors().take_while(|folder| *folder != tree.source) {
            let Some(target) = tree.inside(folder) else { continue };
            if !self.made.contains_key(&target) {
                self.add(&tree, target, folder, Role::Pin, "stays where it is, for what is in it");
            }
        }
    }

    /// Closes what stands at `path`, if it exists and the cell may write it. Where a link leads is closed, if that is in a tree too.
    pub(super) fn close(&mut self, path: &Path, why: &str) {
        let Some(tree) = self.tree(path).cloned() else { return };
        let Ok(rest) = path.strip_prefix(&tree.source) else { return };
        let mut at = tree.source.clone();
        for component in rest.components() {
            at.push(component);
            match self.files.kind(&at) {
                None => return,
                Some(Kind::Link) => {
                    self.hold(&at);
                    return self.close_link(path, why);
                }
                Some(Kind::File | Kind::Folder) => {}
            }
        }
        let Some(target) = tree.inside(path).filter(|target| !self.is_open(target)) else { return };
        // Nobody works in a tree that is protected as a whole.
        if target == tree.target {
            return;
        }
        if let Some(parent) = path.parent() {
            self.pin(parent);
        }
        self.add(&tree, target, path, Role::Closed, why);
    }

    /// Closes everything in `folder` that a row names. Rows for every folder are the guard's, but for the one in `folder` itself.
    pub(super) fn close_rows(&mut self, folder: &Path, rows: &Rows) {
        let plain = self.is_plain(folder);
        let mut there = Presence::inside(self.files, folder);
        for (row, why) in rows {
            let row = row.strip_prefix("**/").unwrap_or(row);
            let first = row.split_once('/').map_or(row, |(first, _)| first);
            // Most of it is not there.
            if plain && !first.contains('*') && !there.has(first) {
                continue;
            }
            match row.rsplit_once('/').unwrap_or(("", row)) {
                (above, last) if last.contains('*') => {
                    let above = folder.join(above);
                    match self.files.kind(&above).map(|_| self.files.list(&above)) {
                        Some(Some(names)) => {
                            let named = names.iter().filter(|name| component_matches(last, name.as_bytes()));
                            named.for_each(|name| self.close(&above.join(name), why));
                        }
                        // An earlier cell may have made it unreadable, or a name in it that is no text: which are there, nobody knows.
                        Some(None) if self.files.look(&above).is_ok_and(|seen| seen.is_dir) => self.close(&above, why),
                        Some(None) | None => {}
                    }
                }
                _ => self.close(&folder.join(row), why),
            }
        }
    }

    /// Whether `folder` is reached from the top of its tree without links. What is not there is not closed then, whatever is written of it.
    fn is_plain(&self, folder: &Path) -> bool {
        let Some(tree) = self.tree(folder) else { return true };
        let mut within = folder.ancestors().take_while(|above| *above != tree.source);
        within.all(|above| self.files.kind(above) == Some(Kind::Folder))
    }

    /// Where the cover of `path` stands inside, if it has one of ours.
    pub(super) fn closed(&self, path: &Path) -> Option<PathBuf> {
        let closed = |target: &PathBuf| self.made.get(target).is_some_and(|cover| cover.role == Role::Closed);
        self.place(path).filter(closed)
    }

    /// Keeps the link `path` where it is: in its place another one, or a folder, would be taken for what is closed.
    pub(super) fn hold(&mut self, path: &Path) {
        let Some(tree) = self.tree(path).cloned() else { return };
        let Some(target) = tree.inside(path).filter(|target| !self.is_open(target)) else { return };
        if !self.is_theirs(&tree, &target) {
            self.links.insert(target, path.to_owned());
            path.parent().into_iter().for_each(|parent| self.pin(parent));
        }
    }

    fn close_link(&mut self, path: &Path, why: &str) {
        let Ok(seen) = self.files.look(path) else { return };
        // Its end has no links on the way, so this comes here once.
        if let Some(target) = self.place(&seen.canonical) {
            self.found.insert(target, format!("a link leads here: {why}"));
            self.close(&seen.canonical, why);
        }
    }

    /// Closes what a configuration of git's names, and keeps the name for the guard, as it may be made later.
    pub(super) fn close_named(&mut self, path: &Path, why: &str) {
        let plain = path.components().all(|part| !matches!(part, Component::ParentDir | Component::CurDir));
        let path = match self.files.look(path) {
            Ok(seen) => seen.canonical,
            Err(_) if plain => path.to_owned(),
            Err(_) => return,
        };
        if let Some(target) = self.place(&path).filter(|target| self.trees.iter().all(|tree| tree.target != *target)) {
            self.found.insert(target, why.to_owned());
            self.close(&path, why);
        }
    }

    /// What there is to mount, and the list for the guard.
    pub(super) fn finish(
        mut self,
        list: &List,
        git_dirs: BTreeMap<PathBuf, BTreeSet<String>>,
        configs: BTreeSet<PathBuf>,
    ) -> (Vec<Placed>, Protect) {
        for target in self.open.clone() {
            let Some(tree) = self.trees.iter().find(|tree| target.starts_with(&tree.target)).cloned() else { continue };
            let Ok(rest) = target.strip_prefix(&tree.target) else { continue };
            let source = tree.source.join(rest);
            let closed = |above: &Path| self.made.get(above).is_some_and(|cover| cover.role == Role::Closed);
            let exists = self.files.look(&source).is_ok_and(|seen| seen.canonical == source);
            if exists && target.ancestors().skip(1).any(closed) {
                self.add(&tree, target, &source, Role::Grant, "opened");
            }
        }
        let protect = Protect {
            roots: self.trees.iter().map(|tree| tree.target.clone()).collect(),
            trees: self.trees.iter().map(|tree| tree.target.clone()).filter(|t| !git_dirs.contains_key(t)).collect(),
            names: owned(&list.tree),
            paths: self.found,
            links: held(self.links, &self.made),
            git_names: owned(&list.git),
            git_dirs,
            configs,
            open: self.open,
        };
        (mounts(&self.made), protect)
    }

    fn add(&mut self, tree: &Tree, target: PathBuf, source: &Path, role: Role, why: &str) {
        if !self.is_theirs(tree, &target) {
            self.made.insert(target, Cover { source: source.to_owned(), role, why: why.to_owned() });
        }
    }

    /// Whether a person mounted something at or above `target`, within the tree: a cover would show something else, or need a place that is
    /// not there.
    fn is_theirs(&self, tree: &Tree, target: &Path) -> bool {
        let theirs =
            |mount: &PathBuf| target.starts_with(mount) && *mount != tree.target && mount.starts_with(&tree.target);
        self.taken.iter().any(theirs)
    }

    fn is_open(&self, target: &Path) -> bool {
        target.ancestors().any(|above| self.open.contains(above))
    }

    /// The innermost tree that `path` lies in.
    pub(super) fn tree(&self, path: &Path) -> Option<&Tree> {
        let holding = self.trees.iter().filter(|tree| path.starts_with(&tree.source));
        holding.max_by_key(|tree| tree.source.components().count())
    }

    /// Where `path` of the host stands inside, if the cell may write there.
    pub(super) fn place(&self, path: &Path) -> Option<PathBuf> {
        self.tree(path)?.inside(path)
    }
}

/// The links that stand in nothing that is closed anyway.
fn held(links: BTreeMap<PathBuf, PathBuf>, made: &BTreeMap<PathBuf, Cover>) -> BTreeMap<PathBuf, PathBuf> {
    let closed = |above: &Path| made.get(above).is_some_and(|cover| cover.role == Role::Closed);
    links.into_iter().filter(|(target, _)| !target.ancestors().skip(1).any(closed)).collect()
}

/// The mounts that are needed of `made`: no pin in what is closed, nothing closed twice.
fn mounts(made: &BTreeMap<PathBuf, Cover>) -> Vec<Placed> {
    let above = |target: &Path| {
        let mut covers = target.ancestors().skip(1).filter_map(|above| made.get(above));
        covers.find(|cover| cover.role != Role::Pin).map(|cover| cover.role)
    };
    let needed = |(target, cover): &(&PathBuf, &Cover)| match (cover.role, above(target)) {
        (Role::Grant, _) => true,
        (Role::Pin | Role::Closed, above) => above != Some(Role::Closed),
    };
    let placed = |(target, cover): (&PathBuf, &Cover)| Placed {
        mount: Mount::Bind {
            source: cover.source.clone(),
            target: target.clone(),
            writable: cover.role != Role::Closed,
        },
        origin: Origin::Written(cover.why.clone()),
    };
    made.iter().filter(needed).map(placed).collect()
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;

    use super::*;
    use crate::resolve::HostFiles;

    /// What `close` makes of `folder` in the tree `top`, in words.
    fn made(top: &Path, close: impl FnOnce(&mut Covers<'_>)) -> String {
        let tree = Tree { source: top.to_owned(), target: "/inside".into() };
        let mut covers = Covers::new(&HostFiles, vec![tree], Vec::new(), BTreeSet::new());
        close(&mut covers);
        format!("{:#?} {:#?} {:#?}", covers.made, covers.links, covers.found)
    }

    /// Closes each row, without a thought of what is there.
    fn singly(covers: &mut Covers<'_>, folder: &Path, rows: &Rows) {
        for (row, why) in rows {
            let path = folder.join(row.trim_start_matches("**/"));
            match (path.parent(), row.rsplit('/').next()) {
                (Some(above), Some(last)) if last.contains('*') => {
                    let names = HostFiles.kind(above).and_then(|_| HostFiles.list(above)).unwrap_or_default();
                    let mut names = names.iter().filter(|name| component_matches(last, name.as_bytes()));
                    names.by_ref().for_each(|name| covers.close(&above.join(name), why));
                }
                _ => covers.close(&path, why),
            }
        }
    }

    #[test]
    fn rows_are_closed_as_if_each_were_asked_for() {
        let rows = List::read().tree;
        // Every row is there; every second; …; as files, folders and links, and below a link.
        for step in [1, 2, 3, 7, 60] {
            for first in 0..step.min(4) {
                let dir = tempfile::tempdir().expect("a folder");
                let top = dir.path().canonicalize().expect("canonical");
                std::fs::create_dir_all(top.join("below/work")).expect("mkdir");
                std::os::unix::fs::symlink("below", top.join("link")).expect("symlink");
                for folder in ["", "below/work"] {
                    for (index, (row, _)) in rows.iter().enumerate().skip(first).step_by(step) {
                        let path = top.join(folder).join(row.trim_start_matches("**/").replace('*', ".local"));
                        std::fs::create_dir_all(path.parent().expect("a parent")).expect("mkdir");
                        match index % 3 {
                            0 => std::fs::write(&path, ""),
                            1 => std::fs::create_dir(&path),
                            _ => std::os::unix::fs::symlink(top.join("below"), &path),
                        }
                        .expect("something new");
                    }
                }
                for folder in ["", "below/work", "link/work", "gone", "link"] {
                    let folder = if folder.is_empty() { top.clone() } else { top.join(folder) };
                    let want = made(&top, |covers| singly(covers, &folder, &rows));
                    assert_eq!(made(&top, |covers| covers.close_rows(&folder, &rows)), want, "{}", folder.display());
                    assert!(folder != top || want.contains("Closed"), "{want}");
                }
            }
        }
    }

    #[test]
    fn a_folder_whose_names_cannot_be_told_is_closed_as_a_whole() {
        let rows = vec![("tool/set*.json", "a pattern")];
        let dir = tempfile::tempdir().expect("a folder");
        let top = dir.path().canonicalize().expect("canonical");
        std::fs::create_dir(top.join("tool")).expect("mkdir");
        std::fs::write(top.join("tool/settings.json"), "").expect("write");
        let closed = |top: &Path| made(top, |covers| covers.close_rows(top, &rows));
        assert!(closed(&top).contains("\"/inside/tool/settings.json\": Cover"), "{}", closed(&top));
        std::fs::write(top.join("tool").join(OsStr::from_bytes(b"\xff")), "").expect("write");
        let whole = closed(&top);
        assert!(whole.contains("\"/inside/tool\": Cover") && whole.contains("Closed"), "{whole}");
        std::fs::create_dir(top.join("other")).expect("mkdir");
        std::fs::write(top.join("other/tool"), "").expect("write");
        assert!(!closed(&top.join("other")).contains("Cover"), "no folder");
    }

    #[test]
    fn the_list_is_well_formed() {
        let known = |row: crate::config::Row| matches!(row.section, "git" | "main_worktree" | "tree");
        assert!(crate::config::rows(LIST).all(known));
        let list = List::read();
        for rows in [&list.git, &list.main_worktree, &list.tree] {
            assert!(!rows.is_empty());
            for (row, why) in rows {
                let plain = row.strip_prefix("**/").unwrap_or(row);
                assert!(!plain.is_empty() && !plain.starts_with('/') && !plain.ends_with('/'), "{row}");
                for (index, part) in plain.split('/').enumerate() {
                    let stars = part.matches('*').count();
                    assert!(!matches!(part, "" | "." | ".."), "{row}");
                    // Only at the end, and never in a work tree's top folder, which may be large and would have to be read.
                    assert!(stars == 0 || (stars == 1 && index > 0 && plain.ends_with(part)), "{row}");
                }
                assert!(why.len() > 3 && !why.ends_with('.'), "{row}: {why}");
            }
        }
    }
}
