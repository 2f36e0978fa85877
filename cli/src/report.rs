//! Every error that can reach a person: its words, its exit code, and what to do next. The one place that tells them.

use std::io;
use std::path::PathBuf;

use cellblock_bundle::spec::SpecError;
use cellblock_runtime::outer::OuterError;
use cellblock_runtime::state::StateError;
use cellblock_runtime::supervisor::RuntimeError;
use cellblock_runtime::{BuildError, IdMapError, exit};

use crate::facts::FactsError;
use crate::git::GitError;
use crate::images::ImageError;
use crate::output::{Style, plain, say};
use crate::plan::{IdError, MountError, PlanError, ValueError};
use crate::settings::SettingsError;

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CliError {
    #[error(transparent)]
    Facts(#[from] FactsError),
    #[error(transparent)]
    Git(#[from] GitError),
    #[error(transparent)]
    Settings(#[from] SettingsError),
    #[error(transparent)]
    Plan(#[from] PlanError),
    #[error(transparent)]
    Image(#[from] ImageError),
    #[error(transparent)]
    State(#[from] StateError),
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    #[error(transparent)]
    Spec(#[from] SpecError),
    /// The person said no.
    #[error("not started")]
    Declined,
    /// Standard output could not be written.
    #[error("cannot write to standard output: {0}")]
    Output(io::Error),
    /// A file of ours could not be read or written.
    #[error("{what} {path}: {source}", path = path.display())]
    File { what: &'static str, path: PathBuf, source: io::Error },
    /// Our own second process could not be started or failed.
    #[error("{what}: {source}")]
    Process { what: &'static str, source: io::Error },
    /// Something is not there or not possible, with what to do.
    #[error("{message}")]
    Plain { message: String, hint: Option<String> },
}

impl CliError {
    pub(crate) fn plain(message: impl Into<String>, hint: &str) -> Self {
        Self::Plain { message: message.into(), hint: Some(hint.into()) }
    }

    fn code(&self) -> i32 {
        match self {
            Self::Runtime(RuntimeError::Exec { source, .. }) => exit::of_exec_error(source),
            _ => exit::OURS,
        }
    }
}

/// Tells an error on standard error and gives the exit code for it.
pub(crate) fn tell(error: &CliError) -> i32 {
    let style = Style::stderr();
    let message = words(error);
    say(&format!("{} {}", style.red("error:"), plain(&message)));
    for hint in hint(error) {
        say(&format!("{}  {hint}", style.cyan("hint:")));
    }
    error.code()
}

/// The message itself, where the library's own is not said in terms of what was typed.
fn words(error: &CliError) -> String {
    match error {
        CliError::Runtime(RuntimeError::Exec { program, source }) => match source.kind() {
            io::ErrorKind::NotFound => format!("`{program}` was not found in the cell"),
            io::ErrorKind::PermissionDenied => format!("`{program}` cannot be executed in the cell: permission denied"),
            _ if source.raw_os_error() == Some(rustix::io::Errno::NOEXEC.raw_os_error()) => {
                format!(
                    "`{program}` cannot be executed in the cell: it is no program for this machine, or a script without `#!`"
                )
            }
            _ => format!("`{program}` cannot be executed in the cell: {source}"),
        },
        other => other.to_string(),
    }
}

fn hint(error: &CliError) -> Vec<String> {
    let one = |text: &str| vec![text.to_owned()];
    match error {
        CliError::Runtime(error) => runtime_hint(error),
        CliError::Settings(error) | CliError::Plan(PlanError::Settings(error)) => match error {
            SettingsError::Bad { hint, .. } => {
                let mut hints: Vec<String> = hint.iter().cloned().collect();
                hints.push(
                    "`cellblock config edit` opens the file, `cellblock config schema` says what may stand in it"
                        .into(),
                );
                hints
            }
            SettingsError::Read { .. } => Vec::new(),
        },
        CliError::Plan(error) => plan_hint(error),
        CliError::State(StateError::NameTaken(name)) => one(&format!(
            "`cellblock exec {name} -- CMD` runs in it, `cellblock stop {name}` ends it, `--name` starts another"
        )),
        CliError::State(StateError::NotRunning(_)) => one("`cellblock status` lists the cells that run"),
        CliError::Git(GitError::Broken { .. }) => {
            one("mend it with `git worktree repair`, or go on without the project: `--no-project`")
        }
        CliError::Image(error) => error.hint().into_iter().collect(),
        CliError::Spec(SpecError::PathTooLong { .. } | SpecError::OverlayPath(_)) => {
            one("set XDG_DATA_HOME and XDG_RUNTIME_DIR to shorter, plain paths")
        }
        CliError::Declined => one("`--yes` starts without asking"),
        CliError::Plain { hint, .. } => hint.iter().cloned().collect(),
        _ => Vec::new(),
    }
}

fn plan_hint(error: &PlanError) -> Vec<String> {
    let text = match error {
        PlanError::Value(ValueError::Bad { hint, .. }) => hint.clone(),
        PlanError::Value(ValueError::Undefined { name, .. }) => format!("set {name}, or write `$$` for a dollar sign"),
        PlanError::Mount(MountError::Missing { path, .. }) => format!("make it first: mkdir -p '{}'", path.display()),
        PlanError::Mount(MountError::Workdir(_)) => "give a path that begins with `/`".into(),
        PlanError::Id(IdError::NeedsRange(_)) => {
            "other users need subordinate ids: `cellblock doctor` says how to get them, and leave out `--userns single`"
                .into()
        }
        PlanError::TooWide { .. } => {
            "change to a project's folder, or say `--no-project` (nothing) or `--force-project` (all of it)".into()
        }
        PlanError::NoCommand => "cellblock run -- CMD ARGS".into(),
        _ => return Vec::new(),
    };
    vec![text]
}

fn runtime_hint(error: &RuntimeError) -> Vec<String> {
    let text = match error {
        RuntimeError::Exec { program, source }
            if source.kind() == io::ErrorKind::NotFound && !program.contains('/') =>
        {
            "`cellblock run --dry-run` shows the image and the PATH inside; the `host` image has the host's own tools"
                .into()
        }
        RuntimeError::Outer(OuterError::MapRefused { .. }) => {
            "`cellblock doctor` looks at /etc/subuid and newuidmap; `--userns single` does without them".into()
        }
        RuntimeError::Outer(_) | RuntimeError::Build(BuildError::Unshare(_) | BuildError::Map(_)) => {
            "`cellblock doctor` says what this host lacks and how to mend it".into()
        }
        RuntimeError::Build(BuildError::Container(text)) if text.contains("chdir") => {
            "the working directory does not exist inside: see `--workdir` and `--volume`".into()
        }
        RuntimeError::Build(BuildError::Container(_)) => "`cellblock doctor` says what this host lacks".into(),
        RuntimeError::Limit(_) => "`--limits=best-effort` goes on without the limit".into(),
        RuntimeError::IdMap(IdMapError::Unsupported { .. }) => {
            "`--userns keep-id` shows files as they are: root inside is then root of the host for those files".into()
        }
        RuntimeError::State(error) => {
            return hint(&CliError::State(match error {
                StateError::NotRunning(name) => StateError::NotRunning(name.clone()),
                StateError::NameTaken(name) => StateError::NameTaken(name.clone()),
                _ => return Vec::new(),
            }));
        }
        _ => return Vec::new(),
    };
    vec![text]
}
