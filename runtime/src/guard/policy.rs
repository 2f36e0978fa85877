//! Which names must not be changed: a pure function from a path and what is to happen to it to yes or no, with the reason.
//!
//! Paths are bytes, absolute as the cell sees them, without links: whoever asks has resolved them. Names are compared as the most lenient file
//! system would, for git itself does ([`plain`]).

use std::borrow::Cow;
use std::collections::HashMap;

use cellblock_bundle::Protect;

/// What is to happen to a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Act {
    /// A new file, pipe or socket.
    Make,
    /// A new folder.
    MakeDir,
    /// A file that is there already gets this name.
    Place,
    /// A folder gets it, with contents that nobody has looked at.
    PlaceDir,
    /// A symbolic link gets it.
    Link,
    /// Its contents or attributes are changed, or may be: it is opened for writing, or gets a second name.
    Write,
    /// It is removed.
    Remove,
    /// It is moved away, with all that it holds.
    Away,
}

/// What the policy asks about the files there are.
pub(crate) trait Look {
    /// Whether something has this path; links are not followed.
    fn exists(&self, path: &[u8]) -> bool;
}

/// A protected name from the top of something on.
#[derive(Clone, Debug)]
struct Row {
    parts: Vec<Vec<u8>>,
    why: String,
}

/// How a path lies to a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fit {
    /// It is what the row names, or below.
    Protected,
    /// It holds what the row names.
    Holds,
}

/// Rows by their first component.
#[derive(Clone, Debug, Default)]
struct Rows {
    by_name: HashMap<Vec<u8>, Vec<Row>>,
    /// Those whose first component has a `*`.
    odd: Vec<Row>,
}

impl Rows {
    fn add(&mut self, pattern: &str, why: &str) {
        let parts: Vec<Vec<u8>> = parts(pattern.as_bytes()).map(|part| plain(part).into_owned()).collect();
        let Some(first) = parts.first().cloned() else { return };
        let row = Row { parts, why: why.to_owned() };
        if first.contains(&b'*') { self.odd.push(row) } else { self.by_name.entry(first).or_default().push(row) }
    }

    fn first(&self, name: &[u8]) -> impl Iterator<Item = &Row> {
        let odd = self.odd.iter().filter(|row| row.parts.first().is_some_and(|first| glob(first, name)));
        self.by_name.get(name).into_iter().flatten().chain(odd)
    }

    /// How `path`, from the top of what these rows are about, fits one of them.
    fn fit<'a>(&'a self, path: &[Cow<'_, [u8]>]) -> Option<(Fit, &'a Row)> {
        let mut holds = None;
        for row in self.first(path.first()?) {
            if row.parts.iter().zip(path).all(|(pattern, part)| glob(pattern, part)) {
                if row.parts.len() <= path.len() {
                    return Some((Fit::Protected, row));
                }
                holds = Some((Fit::Holds, row));
            }
        }
        holds
    }
}

/// Names that together make a folder a repository to git (`is_git_directory` in its `setup.c`).
const MAKES_REPOSITORY: &[&[u8]] = &[b"head", b"objects", b"refs", b"commondir"];
/// In a linked worktree's folder below `worktrees`.
const WORKTREE: &[&[u8]] = &[b"gitdir", b"commondir", b"config.worktree"];
/// Below these a git folder has names that anybody chooses.
const FREE: &[&[u8]] = &[b"refs", b"logs", b"objects"];

/// Why something is refused.
pub(crate) type Denied = String;

/// The rules of one cell.
#[derive(Clone, Debug)]
pub(crate) struct Policy {
    roots: Vec<Vec<u8>>,
    trees: Vec<Vec<u8>>,
    open: Vec<Vec<u8>>,
    names: Rows,
    anywhere: Rows,
    git_names: Rows,
    git_dirs: Vec<(Vec<u8>, Rows)>,
    paths: Vec<(Vec<u8>, String)>,
}

impl Policy {
    /// The rules that `protect` says.
    pub(crate) fn new(protect: &Protect) -> Self {
        let bytes = |path: &std::path::PathBuf| clean(path.as_os_str().as_encoded_bytes());
        let (mut names, mut anywhere, mut git_names) = (Rows::default(), Rows::default(), Rows::default());
        for (pattern, why) in &protect.names {
            match pattern.strip_prefix("**/") {
                Some(rest) => anywhere.add(rest, why),
                None => names.add(pattern, why),
            }
        }
        for (pattern, why) in &protect.git_names {
            git_names.add(pattern, why);
        }
        let git_dir = |(path, closed): (&std::path::PathBuf, &std::collections::BTreeSet<String>)| {
            let mut rows = git_names.clone();
            for name in closed {
                rows.add(name, "it belongs to the main work tree");
            }
            (bytes(path), rows)
        };
        Self {
            roots: protect.roots.iter().map(bytes).collect(),
            trees: protect.trees.iter().map(bytes).collect(),
            open: protect.open.iter().map(bytes).collect(),
            git_dirs: protect.git_dirs.iter().map(git_dir).collect(),
            paths: protect.paths.iter().map(|(path, why)| (bytes(path), why.clone())).collect(),
            names,
            anywhere,
            git_names,
        }
    }

    /// Whether `act` may happen to `path`, which is below one of the roots or is one.
    ///
    /// # Errors
    /// Why not.
    pub(crate) fn decide(&self, path: &[u8], act: Act, look: &dyn Look) -> Result<(), Denied> {
        let path = clean(path);
        if self.open.iter().any(|open| below(&path, open).is_some()) {
            return Ok(());
        }
        // The outermost root: one that lies in another one opens nothing there.
        let root = self.roots.iter().filter(|root| below(&path, root).is_some()).min_by_key(|root| root.len());
        let Some(root) = root else { return Ok(()) };
        let raw: Vec<&[u8]> = parts(&path).collect();
        let parts = raw.iter().map(|part| plain(part)).collect();
        let at = At { policy: self, path: &path, start: self::parts(root).count(), raw: &raw, parts, act, look };
        at.decide()
    }
}

/// One question.
struct At<'a> {
    policy: &'a Policy,
    path: &'a [u8],
    /// How many components the root has.
    start: usize,
    raw: &'a [&'a [u8]],
    parts: Vec<Cow<'a, [u8]>>,
    act: Act,
    look: &'a dyn Look,
}

impl At<'_> {
    fn decide(&self) -> Result<(), Denied> {
        let Some(last) = self.parts.len().checked_sub(1).filter(|last| *last >= self.start) else { return Ok(()) };
        let known = self.known()?;
        for (index, part) in self.parts.iter().enumerate().skip(self.start) {
            let rest = self.parts.get(index..).unwrap_or_default();
            if is_dot_git(part) {
                if index == last {
                    return Err("git takes it for a repository, or for the way to one".to_owned());
                }
                // The innermost git folder counts.
                if index + 1 > known {
                    self.git(&self.policy.git_names, self.parts.get(index + 1..).unwrap_or_default(), index + 1)?;
                }
            }
            if let Some((fit, row)) = self.policy.anywhere.fit(rest) {
                self.judge(fit, row)?;
            }
            if let Some((fit, row)) = self.policy.names.fit(rest)
                && self.is_tree(index)
            {
                self.judge(fit, row)?;
            }
            // A repository without work tree, whatever it is called.
            let telling =
                self.policy.git_names.first(part).next().is_some() || matches!(&**part, b"modules" | b"worktrees");
            if telling && index > known && self.is_repository(index) {
                self.git(&self.policy.git_names, rest, index)?;
            }
        }
        self.whole()?;
        self.completes(last)
    }

    /// Whether it is replaced or moved as a whole.
    fn moves(&self) -> bool {
        matches!(self.act, Act::Place | Act::PlaceDir | Act::Link | Act::Away)
    }

    /// The git folders that are known by their path: where the innermost one ends that it lies in, 0 for none.
    fn known(&self) -> Result<usize, Denied> {
        let around = self.policy.git_dirs.iter().filter(|(folder, _)| below(self.path, folder).is_some());
        let Some((folder, rows)) = around.max_by_key(|(folder, _)| folder.len()) else { return Ok(0) };
        let from = parts(folder).count();
        let rest = self.parts.get(from..).unwrap_or_default();
        if rest.is_empty() && self.act != Act::Write {
            return Err("it is a repository".to_owned());
        }
        self.git(rows, rest, from)?;
        Ok(from)
    }

    /// What is protected by its whole path; and what holds that, or a known git folder, stays where it is.
    fn whole(&self) -> Result<(), Denied> {
        for (path, why) in &self.policy.paths {
            if below(self.path, path).is_some() || (self.moves() && below(path, self.path).is_some()) {
                return Err(why.clone());
            }
        }
        let holds = self
            .policy
            .git_dirs
            .iter()
            .any(|(folder, _)| below(folder, self.path).is_some_and(|rest| !rest.is_empty()));
        if holds && self.moves() { Err("it holds a repository".to_owned()) } else { Ok(()) }
    }

    /// `rest` is the path from the top of a git folder on, and begins at component `from` of ours.
    fn git(&self, rows: &Rows, rest: &[Cow<'_, [u8]>], from: usize) -> Result<(), Denied> {
        if let Some((fit, row)) = rows.fit(rest) {
            self.judge(fit, row)?;
        }
        let Some(first) = rest.first() else { return Ok(()) };
        match self.act {
            Act::Link => return Err("git writes through links in there, wherever they lead".to_owned()),
            Act::PlaceDir => return Err("git finds a folder in there that nobody has looked into".to_owned()),
            _ => {}
        }
        match &**first {
            b"modules" | b"worktrees" if rest.len() <= 2 && self.moves() => {
                Err("the repository of a submodule or work tree stays where it is".to_owned())
            }
            b"worktrees" => match rest.get(2) {
                Some(name) if WORKTREE.contains(&&**name) => {
                    Err("it says where a work tree and its repository are".to_owned())
                }
                Some(_) => self.fit_in(rest.get(2..).unwrap_or_default()),
                None => Ok(()),
            },
            b"modules" => {
                let mut free = false;
                for index in 2..rest.len() {
                    if !free || self.is_repository(from + index) {
                        self.fit_in(rest.get(index..).unwrap_or_default())?;
                    }
                    free |= rest.get(index).is_some_and(|part| FREE.contains(&&**part));
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// A git folder within one: what is closed in that one alone does not count there.
    fn fit_in(&self, rest: &[Cow<'_, [u8]>]) -> Result<(), Denied> {
        self.policy.git_names.fit(rest).map_or(Ok(()), |(fit, row)| self.judge(fit, row))
    }

    fn judge(&self, fit: Fit, row: &Row) -> Result<(), Denied> {
        match (fit, self.act) {
            (Fit::Protected, _) => Err(row.why.clone()),
            (Fit::Holds, _) if self.moves() => Err(row.why.clone()),
            (Fit::Holds, _) => Ok(()),
        }
    }

    /// The path of our first `count` components.
    fn upto(&self, count: usize) -> Vec<u8> {
        let mut path = Vec::with_capacity(self.path.len());
        for part in self.raw.iter().take(count) {
            path.push(b'/');
            path.extend_from_slice(part);
        }
        path
    }

    fn has(&self, count: usize, name: &str) -> bool {
        let mut path = self.upto(count);
        path.push(b'/');
        path.extend_from_slice(name.as_bytes());
        self.look.exists(&path)
    }

    /// Whether the folder of our first `count` components is the top of a work tree.
    fn is_tree(&self, count: usize) -> bool {
        let path = self.upto(count);
        self.policy.trees.contains(&path) || self.has(count, ".git")
    }

    /// Whether the folder of our first `count` components looks like a repository to git.
    fn is_repository(&self, count: usize) -> bool {
        self.has(count, "HEAD")
            && (self.has(count, "commondir") || self.has(count, "objects") && self.has(count, "refs"))
    }

    /// Whether what is made is the last thing that a folder lacks to be a repository.
    fn completes(&self, last: usize) -> Result<(), Denied> {
        let name = self.parts.get(last).map(|part| &**part).unwrap_or_default();
        let makes = !matches!(self.act, Act::Write | Act::Remove | Act::Away);
        if !makes || !MAKES_REPOSITORY.contains(&name) || self.look.exists(&self.upto(last + 1)) {
            return Ok(());
        }
        let has = |other: &str| other.as_bytes().eq_ignore_ascii_case(name) || self.has(last, other);
        if has("HEAD") && (has("commondir") || has("objects") && has("refs")) {
            return Err("the folder would become a repository".to_owned());
        }
        Ok(())
    }
}

/// `path` without doubled and trailing slashes.
fn clean(path: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(path.len());
    for part in parts(path) {
        out.push(b'/');
        out.extend_from_slice(part);
    }
    if out.is_empty() {
        out.push(b'/');
    }
    out
}

fn parts(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    path.split(|byte| *byte == b'/').filter(|part| !part.is_empty())
}

/// What of `path` is below `top`; empty if it is `top` itself.
pub(crate) fn below<'a>(path: &'a [u8], top: &[u8]) -> Option<&'a [u8]> {
    if top == b"/" {
        return path.strip_prefix(b"/");
    }
    match path.strip_prefix(top)? {
        [] => Some(&[]),
        [b'/', rest @ ..] => Some(rest),
        _ => None,
    }
}

/// Code points that HFS+ and folding file systems pass over in names (git's `next_hfs_char`, Unicode's Default_Ignorable_Code_Point).
fn is_ignored(c: char) -> bool {
    matches!(c, '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{e0000}'..='\u{e0fff}')
}

/// A name as the most lenient file system compares it: without case and without what is invisible.
fn plain(name: &[u8]) -> Cow<'_, [u8]> {
    if name.iter().all(|byte| byte.is_ascii() && !byte.is_ascii_uppercase()) {
        return Cow::Borrowed(name);
    }
    let Ok(text) = std::str::from_utf8(name) else { return Cow::Owned(name.to_ascii_lowercase()) };
    let lower = text.chars().filter(|c| !is_ignored(*c)).map(|c| match c {
        // They fold to letters of ASCII: KELVIN SIGN and LATIN SMALL LETTER LONG S; and the forms of full width.
        '\u{212a}' => 'k',
        '\u{17f}' => 's',
        other => other.to_ascii_lowercase(),
    });
    Cow::Owned(lower.collect::<String>().into_bytes())
}

/// Whether git, on any file system, takes a file of this [`plain`] name for `.git` (git's `is_ntfs_dotgit`, `is_hfs_dotgit`).
fn is_dot_git(name: &[u8]) -> bool {
    let name = name.split(|byte| *byte == b':' || *byte == b'\\').next().unwrap_or_default();
    let end = name.iter().rposition(|byte| !matches!(byte, b'.' | b' ')).map_or(0, |last| last + 1);
    matches!(name.get(..end), Some(b".git" | b"git~1"))
}

/// Whether `name` fits `pattern`, in which `*` stands for anything.
fn glob(pattern: &[u8], name: &[u8]) -> bool {
    match pattern.iter().position(|byte| *byte == b'*') {
        None => pattern == name,
        Some(star) => {
            let (head, tail) = (&pattern[..star], &pattern[star + 1..]);
            name.strip_prefix(head)
                .is_some_and(|rest| (0..=rest.len()).any(|from| rest.get(from..).is_some_and(|rest| glob(tail, rest))))
        }
    }
}

#[cfg(test)]
#[path = "policy_tests.rs"]
mod tests;
