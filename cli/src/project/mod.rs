//! Which project a folder belongs to, read from git's files without running git.
//!
//! What is found serves for names, for the project's id, under which its layers are kept, and for where a repository's own files are, which a
//! linked worktree's cell gets. A repository is hostile input: one that claimed to be a worktree of another would get that project's layers and
//! files. So a claim counts only when the other side confirms it ([`git`]).

mod git;
pub(crate) mod git_config;
mod refuse;
pub(crate) mod remotes;

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use cellblock_bundle::cell::Project;
use rustix::fs::{Mode, OFlags};
use sha2::{Digest, Sha256};

use crate::args::CellFlags;
use crate::canonical;
pub(crate) use git::{Git, small_text};
pub(crate) use refuse::{Refusal, refuse};

/// Why a folder's project cannot be told. Each names the path that is wrong.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProjectError {
    /// The folder is gone, or closed to the person.
    #[error("the folder {path} cannot be entered", path = .path.display())]
    Folder {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file of git's is there and cannot be read.
    #[error("cannot read {path}: {source}", path = .path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file of git's does not say what git writes there.
    #[error("{path} is not what git writes: {problem}", path = .path.display())]
    Broken {
        /// Which.
        path: PathBuf,
        /// In which way.
        problem: &'static str,
    },
    /// `.git` points to a folder that is not there.
    #[error("{path} points to {target}, which is not there", path = .path.display(), target = .target.display())]
    Dangling {
        /// The pointer file.
        path: PathBuf,
        /// Where it points.
        target: PathBuf,
    },
    /// `.git` claims a place among another repository's worktrees, and that repository does not know it.
    #[error("{path} claims to be a worktree of {common}, which names another folder for it", path = .path.display(), common = .common.display())]
    NotItsWorktree {
        /// The pointer file.
        path: PathBuf,
        /// The repository it claims.
        common: PathBuf,
    },
    /// A repository without a work tree.
    #[error("{path} is a bare repository: there are no files to work on", path = .path.display())]
    Bare {
        /// Which.
        path: PathBuf,
    },
    /// Somebody else put a repository around the folder: with it as the project, a cell would get the whole folder.
    #[error("the repository {path} belongs to another user (uid {owner})", path = .path.display())]
    Foreign {
        /// The folder with `.git`.
        path: PathBuf,
        /// Its owner.
        owner: u32,
    },
    /// A path that cannot stand in an OCI bundle.
    #[error("the path {path:?} is not UTF-8, which an OCI bundle cannot express")]
    NotUtf8 {
        /// Which.
        path: PathBuf,
    },
}

impl ProjectError {
    /// What would mend it.
    pub(crate) fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Folder { .. } => Some("go to a folder that exists and that you may read, or name one with -C DIR"),
            Self::Dangling { .. } | Self::NotItsWorktree { .. } => {
                Some("run `git worktree repair` in the main worktree if it was moved, or use --no-project")
            }
            Self::Bare { .. } => Some("run `git worktree add` and go there, or use --no-project"),
            Self::Foreign { .. } => Some("use --force-project if you trust it, or --no-project"),
            Self::Broken { .. } | Self::Read { .. } => Some("use --no-project to go on without"),
            Self::NotUtf8 { .. } => None,
        }
    }
}

/// What is checked out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Head {
    /// A branch, by its name.
    Branch(String),
    /// A commit, by the first digits of its id.
    Detached(String),
    /// Nothing that could be told, or no repository.
    Unknown,
}

/// A project as found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ProjectFacts {
    /// The folder a cell gets: the work tree's root, or the folder itself outside git. Canonical.
    pub(crate) root: PathBuf,
    /// Where that stands inside, if not at the same path.
    pub(crate) elsewhere: Option<PathBuf>,
    /// The root that all worktrees of one repository share. Canonical.
    pub(crate) canonical_root: PathBuf,
    /// The folder cellblock was started in, at or below `root`. Canonical.
    pub(crate) cwd: PathBuf,
    /// First 16 hex digits of the SHA-256 of the canonical root's bytes.
    pub(crate) id: String,
    /// Last component of the canonical root, in the letters of a cell's name.
    pub(crate) name: String,
    /// What is checked out.
    pub(crate) head: Head,
    /// Where the repository's files are, if there is a repository.
    pub(crate) git: Option<Git>,
}

impl ProjectFacts {
    /// Where the folder stands inside.
    pub(crate) fn at(&self) -> &Path {
        self.elsewhere.as_deref().unwrap_or(&self.root)
    }

    /// The path inside of what is at `path` in the project; of anything else, its own.
    pub(crate) fn inside(&self, path: &Path) -> PathBuf {
        match path.strip_prefix(&self.root) {
            Ok(rest) if rest.as_os_str().is_empty() => self.at().to_owned(),
            Ok(rest) => self.at().join(rest),
            Err(_) => path.to_owned(),
        }
    }

    /// As it stands in a cell.
    pub(crate) fn to_project(&self) -> Project {
        let branch = match &self.head {
            Head::Branch(name) => Some(name.clone()),
            Head::Detached(_) | Head::Unknown => None,
        };
        Project { id: self.id.clone(), name: self.name.clone(), root: self.root.clone(), branch }
    }

    fn new(root: &Path, canonical_root: &Path, cwd: &Path) -> Self {
        let name = canonical_root.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
        Self {
            root: root.to_owned(),
            elsewhere: None,
            canonical_root: canonical_root.to_owned(),
            cwd: cwd.to_owned(),
            id: id(canonical_root),
            name: sanitise(name.strip_suffix(".git").unwrap_or(&name)),
            head: Head::Unknown,
            git: None,
        }
    }
}

/// First 16 hex digits of the SHA-256 of a canonical root's bytes.
pub(crate) fn id(canonical_root: &Path) -> String {
    use std::fmt::Write;
    let digest = Sha256::digest(canonical_root.as_os_str().as_encoded_bytes());
    digest.iter().take(8).fold(String::with_capacity(16), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// `text` in the letters a cell's name may have: `[a-z0-9_.-]`, beginning and ending with a letter or a digit. May be empty.
pub(crate) fn sanitise(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars().map(|c| c.to_ascii_lowercase()) {
        match c {
            'a'..='z' | '0'..='9' | '_' | '.' => out.push(c),
            _ if out.ends_with('-') => {}
            _ => out.push('-'),
        }
    }
    out.trim_matches(|c: char| !c.is_ascii_alphanumeric()).to_owned()
}

/// The project of the folder `from`, as seen by the user `uid`. `trusted` takes a repository of somebody else's too.
pub(crate) fn find(from: &Path, uid: u32, trusted: bool) -> Result<ProjectFacts, ProjectError> {
    let folder = |source| ProjectError::Folder { path: from.to_owned(), source };
    let cwd = canonical::path(from).map_err(folder)?;
    // Opening the folder proves that it is one and that the person may look into it.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(&cwd, flags, Mode::empty()).map_err(|errno| folder(errno.into()))?;
    if cwd.to_str().is_none() {
        return Err(ProjectError::NotUtf8 { path: cwd });
    }
    for root in cwd.ancestors() {
        if let Some(repository) = git::open(root)? {
            // As git's safe.directory: a repository above us that another user made must not draw us in (CVE-2022-24765), nor may ours lead
            // into somebody else's. What root owns, root could change anyway.
            for path in [&root.join(".git"), &repository.git.git_dir, &repository.git.common_dir] {
                let owner = std::fs::symlink_metadata(path).map_or(uid, |metadata| metadata.uid());
                if !trusted && uid != 0 && owner != uid && owner != 0 {
                    let path = if path.starts_with(root) { root } else { path };
                    return Err(ProjectError::Foreign { path: path.to_owned(), owner });
                }
            }
            let canonical = repository.canonical_root(root);
            let facts = ProjectFacts::new(root, &canonical, &cwd);
            return Ok(ProjectFacts { head: repository.head, git: Some(repository.git), ..facts });
        }
        if git::is_bare(root) {
            return Err(ProjectError::Bare { path: root.to_owned() });
        }
    }
    Ok(ProjectFacts::new(&cwd, &cwd, &cwd))
}

/// The project that flags ask for: none, that of another folder, or that of the working directory `cwd`.
pub(crate) fn asked_for(flags: &CellFlags, cwd: &Path, uid: u32) -> Result<Option<ProjectFacts>, ProjectError> {
    if flags.no_project {
        return Ok(None);
    }
    let from = flags.project_dir.as_ref().map_or_else(|| cwd.to_owned(), |dir| cwd.join(dir));
    find(&from, uid, flags.force_project).map(Some)
}

#[cfg(test)]
mod tests;
