//! Which changes of a repository's configuration a cell may make: what git remembers about branches, and nothing else.
//!
//! The configuration names programs that the host's git runs, and where it pushes to, so it is closed. But `git push -u`, `git switch` of a
//! remote's branch and `git branch -m` write to it what they remember. [`permits`] says whether a new file is the old one but for that.
//!
//! It does not interpret: what it does not know stays as it was to the letter, and what is new stands in the form in which git itself writes it,
//! which every reader of such files takes for the same. No line can go on in the next one, so each means what it begins as.
//!
//! A branch's `pushRemote`, which it does not know, does not go with its branch either: the next change could have the branch back without it, and no memory
//! of it would outlast the cell. `git branch -d` removes the branch before its section, and only warns if that stays.
//!
//! What a branch follows decides where the person's next `git push` goes to. So it is a remote that a branch follows already, or `origin`, or the
//! only one there is: always one of the configuration's own, and never an address, which could be a repository in the project with hooks in it.

use std::collections::{BTreeMap, BTreeSet};

/// Largest file that is looked at, in bytes.
pub const MOST: usize = 256 * 1024;

/// Why a new configuration is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// One of the two is larger than [`MOST`].
    #[error("git's configuration is too large to be looked at")]
    Large,
    /// Something in one of the two may be read in more than one way.
    #[error("git's configuration has lines that go on in the next one, or letters that may mean their end")]
    Unclear,
    /// Another part of it differs.
    #[error(
        "of git's configuration only what it remembers about branches can be changed: the rest names programs that the host's git runs"
    )]
    Other,
    /// A branch would lose what the host wrote of it, or hand it on.
    #[error(
        "what the host's configuration says of a branch, as its pushRemote, stays there: the branch can be removed, its section cannot"
    )]
    Lost,
    /// A branch would follow something that no branch follows yet.
    #[error(
        "a branch can only be told to follow a remote that the host's configuration has a branch follow, or the only one, or origin"
    )]
    Remote,
    /// A value that is not what such a variable holds.
    #[error("that is no value for what git remembers about branches")]
    Value,
}

/// What git remembers about a branch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    Remote,
    Merge,
    Rebase,
    /// For people only.
    Description,
    /// What it was begun from, as GitHub's command and VS Code remember it.
    Base,
}

const KEYS: &[(&str, Key)] = &[
    ("remote", Key::Remote),
    ("merge", Key::Merge),
    ("rebase", Key::Rebase),
    ("description", Key::Description),
    ("gh-merge-base", Key::Base),
    ("vscode-merge-base", Key::Base),
];

/// Variables whose values may go with a branch to its new name, however they are written.
const MOVED: &[&str] = &[
    "description",
    "gh-merge-base",
    "github-pr-base-branch",
    "github-pr-owner-number",
    "merge",
    "rebase",
    "vscode-merge-base",
];

/// Whether `new` is `old` with nothing changed but what git remembers about branches.
///
/// # Errors
/// Why it is not.
pub fn permits(old: &[u8], new: &[u8]) -> Result<(), Refused> {
    let (old, new) = (File::read(old)?, File::read(new)?);
    if old.rest != new.rest {
        return Err(Refused::Other);
    }
    let (before, after) = (old.fixed(), new.fixed());
    if before != after {
        let adds =
            after.iter().any(|(branch, lines)| before.get(branch).is_none_or(|before| before.len() < lines.len()));
        return Err(if adds { Refused::Other } else { Refused::Lost });
    }
    let moved: BTreeSet<&str> = old.odd.iter().map(|(_, line)| *line).collect();
    if !new.odd.iter().all(|(_, line)| !is_moved(line) || moved.contains(line)) {
        return Err(Refused::Other);
    }
    let (before, followed) = (old.values(), old.followed());
    for ((branch, key), values) in new.values() {
        // Whatever it is, the host wrote it there.
        if before.get(&(branch, key)) == Some(&values) {
            continue;
        }
        values.into_iter().try_for_each(|value| fits(key, value, &followed))?;
    }
    Ok(())
}

/// Whether `value` may be written for `key`.
fn fits(key: Key, value: &str, followed: &BTreeSet<&str>) -> Result<(), Refused> {
    match key {
        Key::Remote if value == "." || followed.contains(value) => Ok(()),
        Key::Remote => Err(Refused::Remote),
        Key::Merge if value.starts_with("refs/") && is_ref(value) => Ok(()),
        Key::Rebase if matches!(value, "true" | "false" | "merges" | "interactive") => Ok(()),
        Key::Description => Ok(()),
        Key::Base if is_ref(value) => Ok(()),
        Key::Merge | Key::Rebase | Key::Base => Err(Refused::Value),
    }
}

/// Whether an odd line may go with its branch to another name.
fn is_moved(line: &str) -> bool {
    variable(line).is_some_and(|(key, _)| MOVED.contains(&key))
}

/// Where a line stands.
#[derive(Clone, Copy)]
enum Section<'a> {
    Branch(&'a str),
    /// The whole line of its header.
    Other(&'a str),
}

/// A file by its lines. Empty ones and comments are left out.
#[derive(Default)]
struct File<'a> {
    /// What git remembers about branches, each with the branch.
    known: Vec<(&'a str, Key, &'a str)>,
    /// Other lines about branches, each with the branch.
    odd: Vec<(&'a str, &'a str)>,
    /// Everything else in its order, headers included, each with the header it stands below.
    rest: Vec<(&'a str, &'a str)>,
}

impl<'a> File<'a> {
    fn read(bytes: &'a [u8]) -> Result<Self, Refused> {
        if bytes.len() > MOST {
            return Err(Refused::Large);
        }
        let text = std::str::from_utf8(bytes).map_err(|_| Refused::Unclear)?;
        let ends =
            |c: char| c.is_control() && !matches!(c, '\n' | '\t') || matches!(c, '\u{2028}' | '\u{2029}' | '\u{feff}');
        if text.contains(ends) || text.split('\n').any(|line| line.ends_with('\\')) {
            return Err(Refused::Unclear);
        }
        let mut file = Self::default();
        let mut section = Section::Other("");
        for line in text.split('\n') {
            match (line.trim_start_matches([' ', '\t']).chars().next(), section) {
                (None | Some('#' | ';'), _) => {}
                (Some('['), _) => match header(line, "branch") {
                    Some(name) => section = Section::Branch(name),
                    None => {
                        section = Section::Other(line);
                        file.rest.push((line, line));
                    }
                },
                (Some(_), Section::Other(header)) => file.rest.push((header, line)),
                (Some(_), Section::Branch(branch)) => match known(line) {
                    Some((key, value)) => file.known.push((branch, key, value)),
                    None => file.odd.push((branch, line)),
                },
            }
        }
        Ok(file)
    }

    /// The lines of each branch that are not understood and stay where they are, in their order: which of two counts, that decides.
    fn fixed(&self) -> BTreeMap<&'a str, Vec<&'a str>> {
        let mut fixed = BTreeMap::<_, Vec<_>>::new();
        for (branch, line) in self.odd.iter().filter(|(_, line)| !is_moved(line)) {
            fixed.entry(*branch).or_default().push(*line);
        }
        fixed
    }

    /// What is known of each branch, in its order.
    fn values(&self) -> BTreeMap<(&'a str, Key), Vec<&'a str>> {
        let mut values = BTreeMap::<_, Vec<_>>::new();
        for (branch, key, value) in &self.known {
            values.entry((*branch, *key)).or_default().push(*value);
        }
        values
    }

    /// The remotes that a branch may be told to follow.
    fn followed(&self) -> BTreeSet<&'a str> {
        let with_address = |(above, line): &(&'a str, &'a str)| {
            let name = header(above, "remote")?;
            variable(line).is_some_and(|(key, _)| key == "url").then_some(name)
        };
        let remotes: BTreeSet<&str> = self.rest.iter().filter_map(with_address).collect();
        let only = remotes.len() == 1;
        let known = |name: &&str| {
            only || *name == "origin" || self.known.iter().any(|(_, k, v)| *k == Key::Remote && v == name)
        };
        remotes.into_iter().filter(known).collect()
    }
}

/// The name in a header as git writes it.
fn header<'a>(line: &'a str, section: &str) -> Option<&'a str> {
    let name = line.strip_prefix('[')?.strip_prefix(section)?.strip_prefix(" \"")?.strip_suffix("\"]")?;
    (!name.is_empty() && !name.contains(['"', '\\'])).then_some(name)
}

/// The variable in a line as git writes it, and its value as it stands there.
fn variable(line: &str) -> Option<(&str, &str)> {
    let (key, value) = line.strip_prefix('\t')?.split_once(" = ")?;
    let plain = !key.is_empty() && key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    plain.then_some((key, value))
}

/// What a line remembers, if that is something known in the form in which git writes it.
fn known(line: &str) -> Option<(Key, &str)> {
    let (name, value) = variable(line)?;
    let (_, key) = KEYS.iter().find(|(known, _)| *known == name)?;
    // git puts it in quotes if it has a letter that begins a comment.
    let value = match value.strip_prefix('"') {
        Some(quoted) => quoted.strip_suffix('"')?,
        None if value.contains(['#', ';']) || value.trim() != value => return None,
        None => value,
    };
    (!value.is_empty() && !value.contains(['"', '\\'])).then_some((*key, value))
}

/// Whether it can be the name of a reference (git-check-ref-format(1)).
fn is_ref(name: &str) -> bool {
    let part = |part: &str| {
        !part.is_empty() && !part.starts_with(['.', '-']) && !part.ends_with('.') && !part.ends_with(".lock")
    };
    name.split('/').all(part)
        && !["..", "@{"].iter().any(|odd| name.contains(odd))
        && !name.contains([' ', '\t', '~', '^', ':', '?', '*', '[', '\\'])
}

#[cfg(test)]
mod tests;
