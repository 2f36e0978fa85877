//! What git's configuration says: the person's, for the cell's own `~/.gitconfig`; the repository's, for the files that it names.
//!
//! Read by ourselves: git would take some milliseconds of every start, and is not there on every host.

use std::path::{Path, PathBuf};

use super::files::Files;
use super::host::HostFacts;
use crate::project::git_config::{Entry, parse};
use crate::project::{Git, Head, ProjectFacts};

/// Most files that includes may lead to; git itself goes ten deep.
const MOST_FILES: usize = 32;

/// What was read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Read {
    /// The values, in order: the last of a kind counts.
    pub(super) entries: Vec<Entry>,
    /// The files that were included or would be, whether they exist or not.
    pub(super) files: Vec<PathBuf>,
}

impl Read {
    fn last(&self, section: &str, key: &str) -> Option<&str> {
        let found = self.entries.iter().rev().find(|entry| entry.is(section, key) && entry.subsection.is_empty());
        found.map(|entry| entry.value.as_str())
    }
}

/// The person's configuration, as git reads it in `project` (git-config(1), "FILES").
pub(super) fn person(files: &dyn Files, host: &HostFacts, project: Option<&ProjectFacts>) -> Read {
    let named = |name: &str| host.env.get(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let config_home = named("XDG_CONFIG_HOME").unwrap_or_else(|| host.home.join(".config"));
    let own = match host.env.get("GIT_CONFIG_GLOBAL") {
        Some(path) => vec![PathBuf::from(path)],
        None => vec![config_home.join("git/config"), host.home.join(".gitconfig")],
    };
    let mut reader = Reader { files, host, project, every: false, read: Read::default() };
    for path in std::iter::once(PathBuf::from("/etc/gitconfig")).chain(own) {
        reader.file(&path, 0);
    }
    reader.read
}

/// A repository's own configuration, with every file that it could include, whatever the condition.
pub(super) fn repository(files: &dyn Files, host: &HostFacts, git: &Git) -> Read {
    let mut reader = Reader { files, host, project: None, every: true, read: Read::default() };
    reader.file(&git.common_dir.join("config"), 0);
    // With `extensions.worktreeConfig` only; without it nothing is lost by looking.
    reader.file(&git.git_dir.join("config.worktree"), 0);
    reader.read
}

struct Reader<'a> {
    files: &'a dyn Files,
    host: &'a HostFacts,
    project: Option<&'a ProjectFacts>,
    every: bool,
    read: Read,
}

impl Reader<'_> {
    fn file(&mut self, path: &Path, depth: usize) {
        /// git's own limit.
        const DEEP: usize = 10;
        let Some(text) = self.files.text(path) else { return };
        let base = path.parent().unwrap_or(path).to_owned();
        for entry in parse(&text) {
            let included = entry.is("include", "path")
                || (entry.is("includeif", "path") && (self.every || self.holds(&entry.subsection, &base)));
            if included && depth < DEEP && self.read.files.len() < MOST_FILES {
                let path = expand(&entry.value, &base, self.host);
                self.read.files.push(path.clone());
                self.file(&path, depth + 1);
            }
            self.read.entries.push(entry);
        }
    }

    /// Whether the condition of an `includeIf` holds in the project.
    fn holds(&self, condition: &str, base: &Path) -> bool {
        let Some(project) = self.project else { return false };
        let (kind, pattern) = condition.split_once(':').unwrap_or((condition, ""));
        let branch = match &project.head {
            Head::Branch(name) => Some(name.clone()),
            Head::Detached(_) | Head::Unknown => None,
        };
        let git_dir = project.git.as_ref().map(|git| git.git_dir.to_string_lossy().into_owned());
        match (kind, git_dir, branch) {
            ("gitdir", Some(dir), _) => glob(&self.folder(pattern, base), &dir),
            ("gitdir/i", Some(dir), _) => glob(&self.folder(pattern, base).to_lowercase(), &dir.to_lowercase()),
            ("onbranch", _, Some(branch)) => glob(&ended(pattern), &branch),
            _ => false,
        }
    }

    fn folder(&self, pattern: &str, base: &Path) -> String {
        let pattern = match pattern.split_at_checked(2) {
            Some(("~/", rest)) => self.host.home.join(rest).to_string_lossy().into_owned(),
            Some(("./", rest)) => base.join(rest).to_string_lossy().into_owned(),
            _ if pattern.starts_with('/') => pattern.to_owned(),
            _ => format!("**/{pattern}"),
        };
        ended(&pattern)
    }
}

/// A pattern that ends in a slash means everything below.
fn ended(pattern: &str) -> String {
    if pattern.ends_with('/') { format!("{pattern}**") } else { pattern.to_owned() }
}

/// A path of git's configuration: `~/` is the home directory, what is relative is so to `base`.
pub(super) fn expand(text: &str, base: &Path, host: &HostFacts) -> PathBuf {
    match text.strip_prefix("~/") {
        Some(rest) => host.home.join(rest),
        None => base.join(text),
    }
}

/// git's wildmatch(3) with WM_PATHNAME, without classes in brackets.
fn glob(pattern: &str, text: &str) -> bool {
    fn at(pattern: &[u8], text: &[u8], left: &mut u32) -> bool {
        // A pattern of many stars could take for ever. It is the person's own, so it is enough that it ends.
        let Some(fewer) = left.checked_sub(1) else { return false };
        *left = fewer;
        match pattern {
            [] => text.is_empty(),
            [b'*', b'*', b'/', rest @ ..] => {
                at(rest, text, left)
                    || text.iter().enumerate().any(|(i, b)| *b == b'/' && at(rest, &text[i + 1..], left))
            }
            [b'*', b'*'] => true,
            [b'*', rest @ ..] => {
                let end = text.iter().position(|b| *b == b'/').unwrap_or(text.len());
                (0..=end).any(|i| at(rest, &text[i..], left))
            }
            [b'?', rest @ ..] => text.first().is_some_and(|b| *b != b'/') && at(rest, &text[1..], left),
            [c, rest @ ..] => text.first() == Some(c) && at(rest, &text[1..], left),
        }
    }
    at(pattern.as_bytes(), text.as_bytes(), &mut 100_000)
}

/// Whether git might run a program that this value names. Told by what cannot: values with paths of other kinds would only cost time.
pub(super) fn may_run(entry: &Entry) -> bool {
    !matches!(entry.section.as_str(), "branch" | "remote" | "include" | "includeif" | "user" | "submodule" | "url")
        || matches!(entry.key.as_str(), "receivepack" | "uploadpack")
}

/// The cell's `~/.gitconfig`: who the person is, and that the mounted repositories are theirs whoever owns the files.
pub(super) fn generated(person: &Read) -> String {
    let mut text = String::from("# Written by cellblock for this cell.\n[safe]\n\tdirectory = *\n");
    let said: Vec<String> = ["name", "email"]
        .iter()
        .filter_map(|key| Some(format!("\t{key} = {}\n", quoted(person.last("user", key)?))))
        .collect();
    if !said.is_empty() {
        text += "[user]\n";
        text += &said.concat();
    }
    text
}

fn quoted(value: &str) -> String {
    let mut text = String::from("\"");
    for c in value.chars() {
        match c {
            '"' | '\\' => text.extend(['\\', c]),
            '\n' => text.push_str("\\n"),
            '\t' => text.push_str("\\t"),
            c if c.is_control() => {}
            c => text.push(c),
        }
    }
    text + "\""
}

/// Settings that keep git working where its configuration cannot be written, as variables (git-config(1), `GIT_CONFIG_COUNT`). It `remembers` what
/// branches follow where the guard or the person lets it.
pub(super) fn settings(person: &Read, remembers: bool) -> Vec<(&'static str, &'static str)> {
    // `git switch NAME` of a remote's branch would write what it follows, and fail before it switches.
    let mut settings: Vec<_> = (!remembers).then_some(("branch.autoSetupMerge", "false")).into_iter().collect();
    settings.extend([
        // So that `git push` needs no such entry.
        ("push.default", "current"),
        // `git gc` would lock and thin out the logs of the other worktrees, which it cannot, and take their folders for gone, which they are
        // not outside.
        ("gc.reflogExpire", "never"),
        ("gc.reflogExpireUnreachable", "never"),
        ("gc.worktreePruneExpire", "never"),
    ]);
    // Without its filters git would take the files themselves into commits. Always these words, whatever the host says; without git-lfs
    // inside, `required` makes git stop.
    if person.entries.iter().any(|entry| entry.section == "filter" && entry.subsection == "lfs") {
        settings.extend([
            ("filter.lfs.clean", "git-lfs clean -- %f"),
            ("filter.lfs.smudge", "git-lfs smudge -- %f"),
            ("filter.lfs.process", "git-lfs filter-process"),
            ("filter.lfs.required", "true"),
        ]);
    }
    settings
}

/// The settings as variables.
pub(super) fn variables(settings: &[(&str, &str)]) -> Vec<(String, String)> {
    if settings.is_empty() {
        return Vec::new();
    }
    let mut variables = vec![("GIT_CONFIG_COUNT".to_owned(), settings.len().to_string())];
    for (index, (key, value)) in settings.iter().enumerate() {
        variables.push((format!("GIT_CONFIG_KEY_{index}"), (*key).to_owned()));
        variables.push((format!("GIT_CONFIG_VALUE_{index}"), (*value).to_owned()));
    }
    variables
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globs_as_gits() {
        for (pattern, text, want) in [
            ("/home/ada/work/**", "/home/ada/work/x/.git", true),
            ("/home/ada/work/**", "/home/ada/workx/.git", false),
            ("**/x/.git", "/a/b/x/.git", true),
            ("**/x/**", "/a/x/b/.git", true),
            ("/a/*/.git", "/a/b/.git", true),
            ("/a/*/.git", "/a/b/c/.git", false),
            ("fea?ure/**", "feature/login", true),
            ("main", "main", true),
            ("main", "main2", false),
        ] {
            assert_eq!(glob(pattern, text), want, "{pattern} {text}");
        }
        assert!(!glob(&("**/*".repeat(40) + "x"), &"/a".repeat(400)), "it ends");
    }

    #[test]
    fn values_survive_being_written() {
        for value in ["Ada", "Ada \"L\" \\ B; # c", " x ", "é\tz"] {
            let read = Read {
                entries: vec![Entry {
                    section: "user".into(),
                    subsection: String::new(),
                    key: "name".into(),
                    value: value.into(),
                }],
                files: Vec::new(),
            };
            let again = Read { entries: parse(&generated(&read)), files: Vec::new() };
            assert_eq!(again.last("user", "name"), Some(value));
            assert_eq!(again.last("safe", "directory"), Some("*"));
        }
    }
}
