//! Why what was asked for makes no cell. Every error says where the word that is wrong stands.

use std::path::{Path, PathBuf};

use super::agent::AgentMissing;
use super::expand::ExpandError;
use super::ids::IdError;
use super::origin::Origin;
use crate::args::values::ValueError;
use crate::project::Refusal;

/// Why there is no cell.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ResolveError {
    /// Nothing to run.
    #[error("there is no command to run")]
    NoCommand,
    /// A profile that nobody has written.
    #[error("{origin}: there is no profile {name:?}")]
    NoProfile {
        /// Where it is named.
        origin: Origin,
        /// Its name.
        name: String,
        /// One that is nearly called so.
        near: Option<String>,
    },
    /// An agent that is not there.
    #[error("{0}")]
    NoAgent(Box<AgentMissing>),
    /// A program without a name.
    #[error("the program's name is empty")]
    EmptyProgram,
    /// A program with a NUL in it cannot come from a shell, but from a link or a test.
    #[error("a NUL character cannot be passed to a program")]
    Nul,
    /// A variable of cellblock's with a value that is none.
    #[error("invalid value {text:?} for ${name}: {error}")]
    Variable {
        /// The variable.
        name: &'static str,
        /// Its value.
        text: String,
        /// What is wrong with it.
        error: ValueError,
    },
    /// A path that cannot be expanded.
    #[error("{origin}: cannot expand {text:?}: {error}")]
    Expand {
        /// Where it stands.
        origin: Origin,
        /// As written.
        text: String,
        /// Why.
        error: ExpandError,
    },
    /// A project's path that depends on where one stands.
    #[error("{origin}: the project's path {text:?} must be absolute, or begin with ~ or a variable")]
    RelativeProject {
        /// Where it stands.
        origin: Origin,
        /// As written.
        text: String,
    },
    /// Two projects of the configuration with one folder.
    #[error("the projects `{one}` and `{two}` of the configuration have the same path {path}", path = .path.display())]
    TwoProjects {
        /// One.
        one: String,
        /// The other.
        two: String,
        /// Their path.
        path: PathBuf,
    },
    /// A folder that must not be a project.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// Ids.
    #[error(transparent)]
    Ids(#[from] IdError),
    /// A mount's source or another path of the host does not exist or is closed.
    #[error("{origin}: {path} cannot be used", path = .path.display())]
    Source {
        /// Where it stands.
        origin: Origin,
        /// The path.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A path that cannot stand in an OCI bundle.
    #[error("{origin}: the path {path:?} is not UTF-8, which an OCI bundle cannot express")]
    NotUtf8 {
        /// Where it stands.
        origin: Origin,
        /// The path.
        path: PathBuf,
    },
    /// A relative path of the configuration where there is no project.
    #[error("{origin}: {text:?} is relative to the project, and there is none")]
    NoProject {
        /// Where it stands.
        origin: Origin,
        /// As written.
        text: String,
    },
    /// A path that a link leads out of the project, or of another repository.
    #[error("{origin}: a link leads {text:?} out of the project or repository it is in, to {path}", path = .path.display())]
    LeadsOut {
        /// Where it stands.
        origin: Origin,
        /// As written.
        text: String,
        /// Where to.
        path: PathBuf,
    },
    /// A mount onto something that is the cell's own.
    #[error("{origin}: nothing can be mounted on {target}: {why}", target = .target.display())]
    Target {
        /// Where it stands.
        origin: Origin,
        /// The path inside.
        target: PathBuf,
        /// What is there.
        why: &'static str,
    },
    /// Two mounts on one path.
    #[error("{origin}: {target} is mounted twice, first by {first}", target = .target.display())]
    TwoMounts {
        /// The second.
        origin: Origin,
        /// The path inside.
        target: PathBuf,
        /// The first.
        first: Box<Origin>,
    },
    /// A mount inside a mounted folder in which there is no place for it: one would have to be made on the host.
    #[error("{origin}: {target} lies in {within}, which is the host's, and is not there", target = .target.display(), within = .within.display())]
    NoPlace {
        /// Where it stands.
        origin: Origin,
        /// The path inside.
        target: PathBuf,
        /// The mounted folder it lies in.
        within: Box<Path>,
        /// Where it would have to be on the host.
        place: PathBuf,
    },
    /// A mount that would hand cellblock's own files over.
    #[error("{origin}: {path} holds cellblock's own files in {own}: a cell could change what cells may do", path = .path.display(), own = .own.display())]
    OwnFiles {
        /// Where it stands.
        origin: Origin,
        /// The mount's source.
        path: PathBuf,
        /// Cellblock's folder.
        own: PathBuf,
        /// Whether it would be all right for reading only: not where control sockets are.
        readable: bool,
    },
    /// A folder that the cell must not write, and could.
    #[error("{origin}: {path} lies in {within}, which the cell may write: {why}", path = .path.display(), within = .within.display())]
    Within {
        /// Where it stands.
        origin: Origin,
        /// The folder.
        path: Box<Path>,
        /// What the cell may write.
        within: Box<Path>,
        /// What would be bad about it.
        why: &'static str,
    },
    /// An overlay that would take the place of folders which are the cell's own.
    #[error("{origin}: {path} is no folder, and would hide the root's", path = .path.display())]
    OverlayFolder {
        /// Where it stands.
        origin: Origin,
        /// What is there.
        path: PathBuf,
    },
    /// A home or an overlay that must not be one.
    #[error("{origin}: what is no project is no {what} either: {refusal}")]
    RefusedFolder {
        /// What it was to be.
        what: &'static str,
        /// Where it stands.
        origin: Origin,
        /// Why.
        refusal: Box<Refusal>,
    },
    /// A project at another path inside, where git would not find its way.
    #[error("{origin}: {root} can only stand at its own path inside: {why}", root = .root.display())]
    ProjectPath {
        /// Where it stands.
        origin: Origin,
        /// The project's folder.
        root: PathBuf,
        /// Why.
        why: Box<PathProblem>,
    },
    /// A project that is a secret, or lies in one.
    #[error("{project} cannot be a project: {path} is secret ({why})", project = .project.display(), path = .path.display())]
    SecretProject {
        /// The project's folder.
        project: PathBuf,
        /// What is on the list.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// A project too large to look for patterns in.
    #[error("{origin}: {root} has more than {most} files, too many to look for patterns at each start", root = .root.display())]
    MaskTooMany {
        /// Where the first pattern stands.
        origin: Origin,
        /// The project's folder.
        root: PathBuf,
        /// How many are looked at.
        most: usize,
    },
    /// A variable set twice by one list.
    #[error("{origin}: {name} is set twice")]
    TwoVariables {
        /// The second.
        origin: Origin,
        /// The variable.
        name: String,
    },
    /// A name in `CELLBLOCK_EXTRA_ENV` or a line of an `--env-file` that is none.
    #[error("{origin}: {error}")]
    Entry {
        /// Where it stands.
        origin: Origin,
        /// What is wrong with it.
        error: ValueError,
    },
    /// A flag about names where there are none.
    #[error("{flag} has no meaning with the network `{mode}`")]
    NeedsNames {
        /// The flag.
        flag: &'static str,
        /// The network's mode.
        mode: &'static str,
    },
    /// A bridge forwards packets, which have no names.
    #[error("{flag} {rule}: the network `bridge` knows addresses, not names")]
    NameInBridge {
        /// The flag.
        flag: &'static str,
        /// The rule.
        rule: String,
    },
    /// A denial that a bridge could not keep.
    #[error("{origin} denies {rule}, which the network `bridge` cannot: it knows addresses, not names")]
    DeniedNameInBridge {
        /// Where it is denied.
        origin: String,
        /// The rule.
        rule: String,
    },
    /// A list of what a cell may reach, at a path that depends on where one stands.
    #[error("{origin}: the path {text:?} must be absolute, or begin with ~ or a variable")]
    RelativeFilter {
        /// Where it stands.
        origin: Origin,
        /// As written.
        text: String,
    },
    /// A list of what a cell may reach, where the cell can write it.
    #[error("{origin}: {path} lies in the project: the cell could write itself what it may reach", path = .path.display())]
    FilterInProject {
        /// Where it stands.
        origin: Origin,
        /// The file.
        path: PathBuf,
    },
    /// Such a list that cannot be read.
    #[error("{origin}: {path} cannot be read: {source}", path = .path.display())]
    FilterFile {
        /// Where it stands.
        origin: Origin,
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A line of such a list that is none.
    #[error("{path}: {error}", path = .path.display())]
    Filter {
        /// The file.
        path: PathBuf,
        /// Which line, and why.
        error: cellblock_egress::policy::filter::FilterError,
    },
    /// The machine gives no random numbers, which placeholders are made of.
    #[error("no random numbers are to be had: {0}")]
    Random(std::io::Error),
    /// An ssh agent for the cell, and none on the host.
    #[error("--ssh-agent: there is no ssh agent here: SSH_AUTH_SOCK is not set, or not an absolute path")]
    NoSshAgent,
    /// A key of the agent's that cannot be told.
    #[error("{origin}: {path} names no key of the ssh agent: {why}", path = .path.display())]
    AgentKey {
        /// Where it stands.
        origin: Origin,
        /// The file of the public key.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// A terminal for a cell that nobody looks at.
    #[error("--tty=always cannot be used with --detach: there is no terminal to stand behind it")]
    TerminalInBackground,
}

/// Why git would not work at another path.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PathProblem {
    /// `.git` is a link.
    #[error("its .git is a symbolic link")]
    Link,
    /// `.git` is a file that names a folder which is elsewhere then.
    #[error("its .git leads to {path}, which is elsewhere from another place", path = .0.display())]
    Pointer(PathBuf),
    /// The repository says where its work tree is.
    #[error("its repository names its work tree (core.worktree = {path})", path = .0.display())]
    WorkTree(PathBuf),
}

impl ResolveError {
    /// What would mend it, if there is more to say than the error does.
    pub(crate) fn hint(&self) -> Option<String> {
        Some(match self {
            Self::NoCommand => {
                "`cellblock run -- COMMAND` runs a command, `cellblock run AGENT` an agent, `cellblock shell` a shell"
                    .to_owned()
            }
            Self::NoProfile { near: Some(near), .. } => format!("did you mean `{near}`?"),
            Self::NoProfile { .. } => {
                "`profiles:` in the configuration has yours; `default` and `strict` are cellblock's".to_owned()
            }
            Self::NoAgent(missing) => missing.hints.first()?.clone(),
            Self::RefusedFolder { refusal, .. } if refusal.can_be_forced() => {
                "make a folder for it (mkdir ~/cell-home), or insist with --force-project".to_owned()
            }
            Self::RefusedFolder { .. } => "make a folder for it (mkdir ~/cell-home)".to_owned(),
            Self::ProjectPath { .. } => "leave out the project's path inside; --no-project with -v mounts it without git".to_owned(),
            Self::Refused(refusal) => refusal.hint().to_owned(),
            Self::Ids(error) => error.hint()?.to_owned(),
            Self::Source { path, source, .. } if source.kind() == std::io::ErrorKind::NotFound => {
                format!("a mount's source must exist; for a new folder: mkdir -p {}", path.display())
            }
            Self::NameInBridge { .. } => {
                "the whole internet is open there; rules open private blocks (10.1.0.0/16) and ports of this host (host:3000)".to_owned()
            }
            Self::DeniedNameInBridge { .. } => "`--net names` decides by name".to_owned(),
            Self::FilterFile { .. } => {
                "it is a text file with a domain or rule in each line; docs/network.md has the rules".to_owned()
            }
            Self::NeedsNames { .. } => "it belongs to `--net names`, which is the default".to_owned(),
            Self::NoSshAgent => "`eval $(ssh-agent)` starts one, `ssh-add` gives it a key".to_owned(),
            Self::AgentKey { .. } => {
                "a key is named by its fingerprint (SHA256:…), its comment (both as `ssh-add -l` shows them), or the file of its public half".to_owned()
            }
            Self::LeadsOut { path, .. } => format!("if you mean it, write {} in full", path.display()),
            Self::NoPlace { place, .. } => format!(
                "create {} on the host first: a folder for a folder, a file for a file, no link",
                place.display()
            ),
            Self::SecretProject { .. } => "use --force-project if you mean it, or --no-project".to_owned(),
            Self::MaskTooMany { .. } => "patterns with a slash and without `*` name one file each, and need no looking: config/.env".to_owned(),
            Self::OwnFiles { readable: true, .. } => "mount a narrower folder, or add :ro".to_owned(),
            Self::OwnFiles { .. } => "mount a narrower folder".to_owned(),
            _ => return None,
        })
    }
}
