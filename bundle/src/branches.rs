//! Which changes of a repository's configuration a cell may make: what git remembers about branches, and nothing else.
//!
//! The configuration names programs that the host's git runs, and where it pushes to, so it is closed. But `git push -u`, `git switch` of a
//! remote's branch and `git branch -m` write to it what they remember. [`permits`] says whether a new file is the old one but for that.
//!
//! It does not interpret: what it does not know stays as it was to the letter, and what is new stands in the form in which git itself writes it,
//! which every reader of such files takes for the same. No line can go on in the next one, so each means what it begins as.
//!
//! What a branch follows decides where the person's next `git push` goes to. So it is a remote that a branch follows already, or `origin`, or the
//! only one there is: always one of the configuration's own, and never an address, which could be a repository in the project with hooks in it.

use std::collections::BTreeSet;

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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
    let stays = |(branch, line): &(&str, &str)| {
        let moved = variable(line).is_some_and(|(key, _)| MOVED.contains(&key));
        old.odd.iter().any(|(of, known)| known == line && (moved || of == branch))
    };
    if !new.odd.iter().all(stays) {
        return Err(Refused::Other);
    }
    let followed = old.followed();
    for (key, value) in &new.known {
        match key {
            Key::Remote if *value == "." || followed.contains(value) => {}
            Key::Remote => return Err(Refused::Remote),
            Key::Merge if value.starts_with("refs/") && is_ref(value) => {}
            Key::Rebase if matches!(*value, "true" | "false" | "merges" | "interactive") => {}
            Key::Description => {}
            Key::Base if is_ref(value) => {}
            Key::Merge | Key::Rebase | Key::Base => return Err(Refused::Value),
        }
    }
    Ok(())
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
    /// What git remembers about branches.
    known: Vec<(Key, &'a str)>,
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
                    Some(known) => file.known.push(known),
                    None => file.odd.push((branch, line)),
                },
            }
        }
        Ok(file)
    }

    /// The remotes that a branch may be told to follow.
    fn followed(&self) -> BTreeSet<&'a str> {
        let with_address = |(above, line): &(&'a str, &'a str)| {
            let name = header(above, "remote")?;
            variable(line).is_some_and(|(key, _)| key == "url").then_some(name)
        };
        let remotes: BTreeSet<&str> = self.rest.iter().filter_map(with_address).collect();
        let only = remotes.len() == 1;
        let known =
            |name: &&str| only || *name == "origin" || self.known.iter().any(|(k, v)| *k == Key::Remote && v == name);
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
