//! Rules that a person has kept for a project: `<config>/cellblock/rules/<project>.rules`.
//!
//! ```text
//! example.com:443     # 2026-01-02
//! deny tracker.example   # 2026-01-02
//! ```
//!
//! A rule of the language a line, `deny` before those that deny, comments behind `#`. The file is a person's: lines they have written are left
//! as they are. It is read strictly, for a rule that silently does not count may be one that denies.

use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use cellblock_bundle::{Reach, Said};
use cellblock_egress::policy::{Entry, Policy, PolicyError, RuleError, Written};
use rustix::fs::{FlockOperation, Mode, OFlags};

/// Rules as they were kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Saved {
    /// Those that allow.
    pub(crate) allow: Vec<Written>,
    /// Those that deny.
    pub(crate) deny: Vec<Written>,
}

/// Why kept rules cannot be read or changed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SavedError {
    /// The file or its folder.
    #[error("{what} {path}: {source}", path = path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A line is no rule.
    #[error("{path}:{line}: {source}", path = path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// Which line, from 1.
        line: usize,
        /// Why not.
        source: RuleError,
    },
    /// The rules make no policy; the message has the place.
    #[error(transparent)]
    Policy(#[from] PolicyError),
}

/// What a rule is kept as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A rule that allows.
    Allow,
    /// One that denies.
    Deny,
}

/// What keeping a rule has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kept {
    /// It is kept now.
    New,
    /// It was already.
    Already,
    /// It is kept now, and its opposite no longer.
    Turned,
}

impl Saved {
    /// Adds them to what a cell is started with. What denies always counts; what allows only with `allow`.
    pub(crate) fn add_to(self, reach: &mut Reach, allow: bool) {
        let said = |written: Written| Said { rule: written.entry.to_string(), origin: written.origin };
        if allow {
            reach.allow.extend(self.allow.into_iter().map(said));
        }
        reach.deny.extend(self.deny.into_iter().map(said));
    }
}

/// Reads the rules of the file at `path`, each with `FILE:LINE` as its origin. No file is no rules.
pub(crate) fn saved_rules(path: &Path) -> Result<Saved, SavedError> {
    let mut saved = Saved::default();
    for (number, line) in read(path)?.lines().enumerate() {
        let Some((kind, entry)) = parse(path, number, line)? else { continue };
        let written = Written { entry, origin: format!("{}:{}", path.display(), number + 1) };
        match kind {
            Kind::Allow => saved.allow.push(written),
            Kind::Deny => saved.deny.push(written),
        }
    }
    Policy::new(&saved.allow, &saved.deny)?;
    Ok(saved)
}

/// Keeps a rule.
pub(crate) fn keep(path: &Path, kind: Kind, entry: &Entry) -> Result<Kept, SavedError> {
    change(path, |text| {
        let mut lines = Vec::new();
        let mut kept = Kept::New;
        for (number, line) in text.lines().enumerate() {
            match parse(path, number, line)? {
                Some((known, other)) if other == *entry && known == kind => kept = Kept::Already,
                Some((_, other)) if other == *entry => {
                    kept = Kept::Turned;
                    continue;
                }
                _ => {}
            }
            lines.push(line.to_owned());
        }
        if kept != Kept::Already {
            lines.push(format!("{}  # {}", written(kind, entry), today()));
        }
        Ok((lines, kept))
    })
}

/// Removes a rule, whichever kind it is of; how many lines that were.
pub(crate) fn forget(path: &Path, entry: &Entry) -> Result<usize, SavedError> {
    change(path, |text| {
        let mut lines = Vec::new();
        let mut gone = 0;
        for (number, line) in text.lines().enumerate() {
            if parse(path, number, line)?.is_some_and(|(_, other)| other == *entry) {
                gone += 1;
            } else {
                lines.push(line.to_owned());
            }
        }
        Ok((lines, gone))
    })
}

/// One line; `None` for one that says nothing.
fn parse(path: &Path, number: usize, line: &str) -> Result<Option<(Kind, Entry)>, SavedError> {
    let text = line.split('#').next().unwrap_or(line).trim();
    if text.is_empty() {
        return Ok(None);
    }
    let (kind, rule) = match text.split_once(|c: char| c.is_ascii_whitespace()) {
        Some(("deny", rule)) => (Kind::Deny, rule),
        _ if text == "deny" => (Kind::Deny, ""),
        _ => (Kind::Allow, text),
    };
    let wrong = |source| SavedError::Line { path: path.to_owned(), line: number + 1, source };
    Ok(Some((kind, rule.parse().map_err(wrong)?)))
}

/// The line for a rule.
fn written(kind: Kind, entry: &Entry) -> String {
    let text = entry.to_string();
    match (kind, text.strip_prefix("deny")) {
        (Kind::Deny, _) => format!("deny {text}"),
        // A host of that name: with a dot it is the same name, and not the word.
        (Kind::Allow, Some(rest)) if rest.is_empty() || rest.starts_with(' ') => format!("deny.{rest}"),
        (Kind::Allow, _) => text,
    }
}

fn today() -> String {
    let now = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
    now.get(..10).unwrap_or(&now).to_owned()
}

fn failed(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> SavedError {
    move |source| SavedError::Io { what, path: path.to_owned(), source }
}

fn read(path: &Path) -> Result<String, SavedError> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(text),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(String::new()),
        Err(error) => Err(failed("cannot read", path)(error)),
    }
}

/// Replaces the file's lines, alone and in one step: whoever is killed here leaves the old file or the new one.
fn change<T: PartialEq>(
    path: &Path,
    edit: impl FnOnce(&str) -> Result<(Vec<String>, T), SavedError>,
) -> Result<T, SavedError> {
    let folder = path.parent().unwrap_or(path);
    std::fs::create_dir_all(folder).map_err(failed("cannot make", folder))?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let lock = rustix::fs::open(folder, flags, Mode::empty()).map_err(|e| failed("cannot open", folder)(e.into()))?;
    rustix::fs::flock(&lock, FlockOperation::LockExclusive).map_err(|e| failed("cannot lock", folder)(e.into()))?;
    let old = read(path)?;
    let (lines, result) = edit(&old)?;
    let new: String = lines.into_iter().map(|line| line + "\n").collect();
    if new != old {
        replace(path, &new).map_err(failed("cannot write", path))?;
    }
    Ok(result)
}

fn replace(path: &Path, text: &str) -> io::Result<()> {
    let temporary = path.with_extension("tmp");
    let flags = OFlags::CREATE | OFlags::TRUNC | OFlags::WRONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let mut file = File::from(rustix::fs::open(&temporary, flags, Mode::RUSR | Mode::WUSR)?);
    // On disk before it takes the old one's place: a file that is empty after a crash would have lost denials.
    let written = file.write_all(text.as_bytes()).and_then(|()| file.sync_all());
    if let Err(error) = written.and_then(|()| Ok(rustix::fs::rename(&temporary, path)?)) {
        let _ = std::fs::remove_file(&temporary);
        return Err(error);
    }
    Ok(())
}

#[cfg(test)]
#[path = "saved_tests.rs"]
mod tests;
