//! A repository's files, as gitrepository-layout(5) and git-worktree(1) describe them.
//!
//! ```text
//! main worktree     ROOT/.git/            HEAD, objects/, refs/
//! linked worktree   ROOT/.git             "gitdir: COMMON/worktrees/NAME"
//!                   COMMON/worktrees/NAME/ HEAD, commondir ("../.."), gitdir (path of ROOT/.git: the back-pointer)
//! submodule         ROOT/.git             "gitdir: ELSEWHERE", no commondir: a repository of its own
//!                   ELSEWHERE/config      core.worktree, the path of ROOT: the back-pointer
//! --separate-git-dir ROOT/.git            the same without core.worktree: nothing confirms it
//! ```

use std::io::Read;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;

use super::git_config::{self, Entry};
use super::{Head, ProjectError};
use crate::canonical;

/// Longest file of git's that is read here, in bytes; a path has at most 4096.
const LARGEST: u64 = 8192;

/// Longest path that the kernel takes, in bytes (`PATH_MAX`).
const LONGEST_PATH: usize = 4096;

/// Longest configuration of a repository's that is read, in bytes. Each branch and remote adds a few lines.
const LARGEST_CONFIG: u64 = 4 << 20;

/// How much of a commit's id is shown, as `git rev-parse --short` does.
const SHORT: usize = 7;

/// What is known about a repository.
#[derive(Debug)]
pub(super) struct Repository {
    /// What is checked out in this worktree.
    pub(super) head: Head,
    /// Where its files are.
    pub(super) git: Git,
}

/// Where a repository's files are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Git {
    /// The folder of this worktree's own files: `HEAD`, `index`. Canonical.
    pub(crate) git_dir: PathBuf,
    /// The folder that all worktrees share. Canonical.
    pub(crate) common_dir: PathBuf,
    /// Whether this is a linked worktree that its repository knows.
    pub(crate) linked: bool,
    /// Whether the repository lies in the work tree, or names it in return: a pointer alone could have been planted, and grants nothing.
    pub(crate) confirmed: bool,
}

impl Git {
    fn own(root: &Path, dir: PathBuf) -> Self {
        let confirmed = dir.starts_with(root) || names_work_tree(&dir, root);
        Self { git_dir: dir.clone(), common_dir: dir, linked: false, confirmed }
    }
}

impl Repository {
    /// What stands for the repository as a whole: the folder around `.git` (or `.bare`, the usual name for a bare repository that only
    /// has linked worktrees), else the bare repository itself. A main worktree, a submodule and a separate git dir stand for themselves.
    pub(super) fn canonical_root(&self, root: &Path) -> PathBuf {
        let Git { linked, common_dir, .. } = &self.git;
        if !linked {
            return root.to_owned();
        }
        match (common_dir.file_name(), common_dir.parent()) {
            (Some(name), Some(parent)) if name == ".git" || name == ".bare" => parent.to_owned(),
            _ => common_dir.clone(),
        }
    }
}

/// The repository whose worktree begins at `root`, if there is one.
pub(super) fn open(root: &Path) -> Result<Option<Repository>, ProjectError> {
    let dot_git = root.join(".git");
    // `metadata` follows a link, as git does.
    let Ok(metadata) = std::fs::metadata(&dot_git) else {
        return Ok(None);
    };
    if metadata.is_dir() {
        // Without HEAD git does not take it for a repository and looks further up.
        let Some(head) = read_head(&dot_git)? else { return Ok(None) };
        let commondir = dot_git.join("commondir");
        if commondir.symlink_metadata().is_ok() {
            // git would take hooks and configuration from wherever it says, and only ever writes it for linked worktrees.
            return Err(ProjectError::Broken { path: commondir, problem: "it has no place in a main worktree" });
        }
        return Ok(Some(Repository { head, git: Git::own(root, canonical_path(&dot_git)?) }));
    }
    let git_dir = pointer(root, &dot_git)?;
    let Some(head) = read_head(&git_dir)? else {
        return Err(ProjectError::Broken { path: git_dir, problem: "it has no HEAD" });
    };
    match read_line(&git_dir.join("commondir"))? {
        None => Ok(Some(Repository { head, git: Git::own(root, git_dir) })),
        Some(text) => {
            let common_dir = canonical_path(&git_dir.join(text))?;
            confirm(&dot_git, &git_dir, &common_dir)?;
            Ok(Some(Repository { head, git: Git { git_dir, common_dir, linked: true, confirmed: true } }))
        }
    }
}

/// Whether `folder` itself is a repository's, outside any work tree. One named `.git` belongs to the folder around it.
pub(super) fn is_bare(folder: &Path) -> bool {
    let named_git = folder.file_name().is_some_and(|name| name == ".git");
    !named_git
        && folder.join("HEAD").is_file()
        && folder.join("objects").is_dir()
        && folder.join("refs").is_dir()
        && matches!(read_head(folder), Ok(Some(_)))
}

/// Where the file `.git` points.
fn pointer(root: &Path, dot_git: &Path) -> Result<PathBuf, ProjectError> {
    let broken = |problem| ProjectError::Broken { path: dot_git.to_owned(), problem };
    let text = read_line(dot_git)?.ok_or_else(|| broken("it is not a file"))?;
    let target = text.strip_prefix("gitdir: ").ok_or_else(|| broken("it does not begin with `gitdir: `"))?;
    if target.is_empty() {
        return Err(broken("it points nowhere"));
    }
    if target.len() > LONGEST_PATH {
        return Err(broken("what it points to is longer than a path can be"));
    }
    let target = root.join(target);
    canonical::path(&target).map_err(|_| ProjectError::Dangling { path: dot_git.to_owned(), target })
}

/// A linked worktree counts only if the repository lists it: its folder lies in `COMMON/worktrees`, and the back-pointer in
/// there names our `.git`. Otherwise any folder with a crafted `.git` would pass for a part of any project.
fn confirm(dot_git: &Path, git_dir: &Path, common_dir: &Path) -> Result<(), ProjectError> {
    let listed = git_dir.parent() == Some(&common_dir.join("worktrees"));
    let back = read_line(&git_dir.join("gitdir"))?;
    // Relative since git 2.48 with worktree.useRelativePaths, from the folder that holds it.
    let back = back.and_then(|text| canonical::path(&git_dir.join(text)).ok());
    if listed && back.is_some() && back == canonical::path(dot_git).ok() {
        Ok(())
    } else {
        Err(ProjectError::NotItsWorktree { path: dot_git.to_owned(), common: common_dir.to_owned() })
    }
}

/// Whether the repository `dir` names `root` as its work tree (`core.worktree`), as git writes it for each submodule.
fn names_work_tree(dir: &Path, root: &Path) -> bool {
    let named = ["config", "config.worktree"].into_iter().flat_map(|name| config(&dir.join(name)));
    // The last one counts, as for git.
    let named = named.fold(None, |known, entry| if entry.is("core", "worktree") { Some(entry) } else { known });
    named.is_some_and(|entry| canonical::path(&dir.join(entry.value)).is_ok_and(|tree| tree == root))
}

/// The values of a configuration file of git's; nothing if there is none that can be read.
fn config(path: &Path) -> Vec<Entry> {
    small_text(path).map(|text| git_config::parse(&text)).unwrap_or_default()
}

/// The text of a regular file of git's size; `None` if there is no such file. Never waits, whatever is there.
pub(crate) fn small_text(path: &Path) -> Option<String> {
    let bytes = read_regular(path, LARGEST_CONFIG).ok()??;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// What `HEAD` of a repository says; `None` if there is no such file.
fn read_head(git_dir: &Path) -> Result<Option<Head>, ProjectError> {
    let path = git_dir.join("HEAD");
    // Once a symbolic link, and git still reads those.
    if let Ok(target) = std::fs::read_link(&path) {
        return Ok(target.to_str().and_then(branch).map(Head::Branch));
    }
    let Some(text) = read_line(&path)? else { return Ok(None) };
    let head = match text.strip_prefix("ref:") {
        Some(name) => branch(name.trim_start()).map_or(Head::Unknown, Head::Branch),
        None if matches!(text.len(), 40 | 64) && text.bytes().all(|b| b.is_ascii_hexdigit()) => {
            Head::Detached(text[..SHORT].to_ascii_lowercase())
        }
        None => return Err(ProjectError::Broken { path, problem: "it names neither a branch nor a commit" }),
    };
    Ok(Some(head))
}

/// The branch of a reference. `.invalid` is what a repository with reftables writes there for old readers (git-init(1)).
fn branch(reference: &str) -> Option<String> {
    let name = reference.strip_prefix("refs/heads/")?;
    (!name.is_empty() && name != ".invalid" && !name.contains(char::is_control)).then(|| name.to_owned())
}

fn canonical_path(path: &Path) -> Result<PathBuf, ProjectError> {
    canonical::path(path).map_err(|source| ProjectError::Read { path: path.to_owned(), source })
}

/// The first line of a small regular file; `None` if there is none. Never waits, whatever a repository put there.
fn read_line(path: &Path) -> Result<Option<String>, ProjectError> {
    let Some(bytes) = read_regular(path, LARGEST)? else { return Ok(None) };
    let line = bytes.split(|b| *b == b'\n').next().unwrap_or_default();
    match std::str::from_utf8(line) {
        Ok(text) if !text.contains('\0') => Ok(Some(text.trim_end().to_owned())),
        _ => Err(ProjectError::Broken { path: path.to_owned(), problem: "it is not text" }),
    }
}

/// The first `most` bytes of a regular file; `None` if there is no such file.
fn read_regular(path: &Path, most: u64) -> Result<Option<Vec<u8>>, ProjectError> {
    let failed = |errno: Errno| ProjectError::Read { path: path.to_owned(), source: errno.into() };
    // Without NONBLOCK a FIFO would hold us for ever.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file: OwnedFd = match rustix::fs::open(path, flags, Mode::empty()) {
        Ok(file) => file,
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(None),
        Err(errno) => return Err(failed(errno)),
    };
    let stat = rustix::fs::fstat(&file).map_err(failed)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Ok(None);
    }
    // With room for one byte more, so that the first reading is the last with something in it.
    let size = u64::try_from(stat.st_size).unwrap_or_default().min(most);
    let mut bytes = Vec::with_capacity(usize::try_from(size).unwrap_or_default() + 1);
    let read = std::fs::File::from(file).take(most).read_to_end(&mut bytes);
    read.map_err(|source| ProjectError::Read { path: path.to_owned(), source })?;
    Ok(Some(bytes))
}
