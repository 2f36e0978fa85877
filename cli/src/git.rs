//! Which project a folder belongs to, read from git's files without running git: a hostile repository must not get to run anything.
//!
//! Used for names and ids only; nothing is granted by what is found here.

use std::path::{Path, PathBuf};

use cellblock_bundle::Project;
use sha2::{Digest, Sha256};

/// Why a folder's project cannot be told.
#[derive(Debug, thiserror::Error)]
pub(crate) enum GitError {
    /// A file of git's says something that makes no sense.
    #[error("{path} is not what git writes: {problem}", path = path.display())]
    Broken {
        /// Which file.
        path: PathBuf,
        /// In what way.
        problem: &'static str,
    },
    /// The folder does not exist or cannot be entered.
    #[error("the folder {path} cannot be used: {source}", path = path.display())]
    Folder {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

/// The project of `folder`: the git work tree around it, else the folder itself.
pub(crate) fn project(folder: &Path) -> Result<Project, GitError> {
    let folder = folder.canonicalize().map_err(|source| GitError::Folder { path: folder.to_owned(), source })?;
    for root in folder.ancestors() {
        let dot = root.join(".git");
        let Ok(metadata) = std::fs::symlink_metadata(&dot) else { continue };
        let git_dir = if metadata.is_file() { pointer(&dot)? } else { dot };
        // A folder called .git that is none, as an empty one: git looks further up as well.
        let Some(head) = read(&git_dir.join("HEAD")) else { continue };
        let common = match read(&git_dir.join("commondir")) {
            Some(text) => git_dir.join(text.trim()),
            None => git_dir,
        };
        let common = common.canonicalize().unwrap_or(common);
        // The main work tree holds `.git`; a bare repository is its own.
        let canonical =
            if common.file_name().is_some_and(|n| n == ".git") { common.parent().unwrap_or(&common) } else { &common };
        return Ok(describe(canonical, root, branch(&head)));
    }
    Ok(describe(&folder, &folder, None))
}

fn describe(canonical: &Path, root: &Path, branch: Option<String>) -> Project {
    let name = canonical.file_name().map_or_else(|| "root".into(), |n| n.to_string_lossy().into_owned());
    Project {
        id: id(canonical),
        name: plain(name.strip_suffix(".git").unwrap_or(&name)),
        root: root.to_owned(),
        branch,
    }
}

/// First 16 hex digits of the SHA-256 of the canonical root's bytes.
fn id(canonical: &Path) -> String {
    let digest = Sha256::digest(canonical.as_os_str().as_encoded_bytes());
    digest.iter().take(8).map(|b| format!("{b:02x}")).collect()
}

/// `gitdir: PATH`, relative to the file's own folder (gitrepository-layout(5)).
fn pointer(file: &Path) -> Result<PathBuf, GitError> {
    let broken = |problem| GitError::Broken { path: file.to_owned(), problem };
    let text = read(file).ok_or_else(|| broken("it cannot be read"))?;
    let target =
        text.trim_end_matches(['\n', '\r']).strip_prefix("gitdir:").ok_or_else(|| broken("no `gitdir:` line"))?.trim();
    let path = file.parent().unwrap_or(Path::new("/")).join(target);
    if path.is_dir() { Ok(path) } else { Err(broken("it points to a folder that is not there")) }
}

/// A branch's name, or the start of a commit id.
fn branch(head: &str) -> Option<String> {
    let head = head.trim();
    match head.strip_prefix("ref: refs/heads/") {
        Some(name) => Some(name.to_owned()),
        None => head.get(..8).filter(|h| h.bytes().all(|b| b.is_ascii_hexdigit())).map(str::to_owned),
    }
}

fn read(path: &Path) -> Option<String> {
    use std::io::Read;
    let mut text = String::new();
    std::fs::File::open(path).ok()?.take(4096).read_to_string(&mut text).ok()?;
    Some(text)
}

/// Lower-case letters, digits, `_`, `.`, `-`; starts with a letter or digit; never empty.
pub(crate) fn plain(name: &str) -> String {
    let text: String = name
        .chars()
        .map(|c| match c.to_ascii_lowercase() {
            c if c.is_ascii_alphanumeric() || matches!(c, '_' | '.') => c,
            _ => '-',
        })
        .collect();
    let text = text.trim_matches(['-', '.', '_']);
    if text.is_empty() { "x".into() } else { text.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_made_plain() {
        for (from, to) in [
            ("My Project", "my-project"),
            ("feature/x#1", "feature-x-1"),
            ("...", "x"),
            ("ünï", "n"),
            ("a_b.c", "a_b.c"),
        ] {
            assert_eq!(plain(from), to, "{from}");
        }
    }

    #[test]
    fn heads() {
        assert_eq!(branch("ref: refs/heads/feature/x\n").as_deref(), Some("feature/x"));
        assert_eq!(branch("0123456789abcdef0123456789abcdef01234567\n").as_deref(), Some("01234567"));
        assert_eq!(branch("garbage"), None);
    }
}
