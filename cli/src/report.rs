//! Every error that can reach a person: its words, its exit code, and what to do next. The one place that tells them.

use std::io;
use std::path::PathBuf;

use cellblock_bundle::spec::SpecError;
use cellblock_runtime::outer::OuterError;
use cellblock_runtime::state::{StateError, THIS_VERSION};
use cellblock_runtime::supervisor::RuntimeError;
use cellblock_runtime::{BuildError, GuardError, IdMapError, NetworkError, exit};

use crate::agents;
use crate::commands::net::saved::SavedError;
use crate::config::ConfigError;
use crate::images::ImageError;
use crate::output::{Style, plain, say};
use crate::project::ProjectError;
use crate::resolve::{HostError, ResolveError};

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CliError {
    #[error(transparent)]
    Host(#[from] HostError),
    #[error(transparent)]
    Project(#[from] ProjectError),
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Resolve(#[from] ResolveError),
    #[error(transparent)]
    Image(#[from] ImageError),
    #[error(transparent)]
    Saved(#[from] SavedError),
    #[error(transparent)]
    State(#[from] StateError),
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    #[error(transparent)]
    Broker(#[from] cellblock_broker::BrokerError),
    #[error(transparent)]
    Spec(#[from] SpecError),
    /// A process of ours failed, and has told why.
    #[error("a step in the user namespace failed")]
    Told,
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
            // As a shell says of a command that is not there.
            Self::Resolve(ResolveError::NoAgent(_)) => exit::NOT_FOUND,
            _ => exit::OURS,
        }
    }
}

/// Tells an error on standard error and gives the exit code for it.
pub(crate) fn tell(error: &CliError) -> i32 {
    if matches!(error, CliError::Told) {
        return error.code();
    }
    let style = Style::stderr();
    let message = words(error);
    // Several lines only from our own lists of problems; each is made fit for a terminal.
    let lines: Vec<String> = message.lines().map(plain).collect();
    say(&format!("{} {}", style.red("error:"), lines.join("\n  ")));
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
        // ENOSPC has its own meaning here, and its usual words mislead (unshare(2)).
        CliError::Runtime(RuntimeError::Outer(OuterError::Unshare(source))) if is_full(source) => {
            "this user may make no more user namespaces: the limit user.max_user_namespaces is reached".into()
        }
        CliError::State(StateError::OtherVersion { name, version: Some(version) }) if version != THIS_VERSION => {
            format!(
                "the cell `{name}` was started by another version of cellblock: by {version}, and this is {THIS_VERSION}"
            )
        }
        other => other.to_string(),
    }
}

fn hint(error: &CliError) -> Vec<String> {
    let one = |text: &str| vec![text.to_owned()];
    match error {
        CliError::Runtime(error) => runtime_hint(error),
        CliError::Config(_) => {
            one("`cellblock config edit` opens the file, `cellblock config schema` says what may stand in it")
        }
        CliError::Project(error) => error.hint().into_iter().map(str::to_owned).collect(),
        CliError::Resolve(ResolveError::NoAgent(missing)) => missing.hints.clone(),
        CliError::Resolve(error) => error.hint().into_iter().collect(),
        CliError::State(StateError::NameTaken(name)) => one(&format!(
            "`cellblock exec {name} -- CMD` runs in it, `cellblock stop {name}` ends it, `--name` starts another"
        )),
        CliError::State(StateError::OtherVersion { name, .. }) => one(&format!(
            "it goes on as it was started, and the cellblock that started it can enter it; `cellblock stop {name}` ends it"
        )),
        CliError::State(StateError::NotRunning(_)) => one("`cellblock status` lists the cells that run"),
        CliError::Image(error) => error.hint().into_iter().collect(),
        CliError::Saved(SavedError::Io { source, .. }) if is_full(source) => one(MAKE_ROOM),
        CliError::Saved(SavedError::Io { .. }) => Vec::new(),
        CliError::Saved(_) => {
            one("the file holds the rules that `cellblock net allow --save` has kept; mend the line, or remove it")
        }
        CliError::State(StateError::Io { source, .. }) | CliError::File { source, .. } if is_full(source) => {
            one(MAKE_ROOM)
        }
        CliError::Spec(SpecError::PathTooLong { .. } | SpecError::OverlayPath(_)) => {
            one("set XDG_DATA_HOME and XDG_RUNTIME_DIR to shorter, plain paths")
        }
        CliError::Declined => one("`--yes` starts without asking"),
        CliError::Plain { hint, .. } => hint.iter().cloned().collect(),
        _ => Vec::new(),
    }
}

const MAKE_ROOM: &str = "make room on that file system; what was begun has been removed";

/// Whether a file system is full, or a quota used up.
pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

fn runtime_hint(error: &RuntimeError) -> Vec<String> {
    let text = match error {
        RuntimeError::Exec { program, source }
            if source.kind() == io::ErrorKind::NotFound && !program.contains('/') =>
        {
            let usual = "`cellblock run --dry-run` shows the image and the PATH inside; the `host` image has the host's own tools";
            return agents::nearest_name(program)
                .map(|near| format!("did you mean the agent `{near}`?"))
                .into_iter()
                .chain(Some(usual.to_owned()))
                .collect();
        }
        RuntimeError::Exec { source, .. } if source.kind() == io::ErrorKind::NotFound => {
            "if the file is there, what it needs to start is not: the interpreter of its first line, or its dynamic loader".into()
        }
        RuntimeError::Outer(OuterError::MapRefused { .. }) => {
            "`cellblock doctor` looks at /etc/subuid and newuidmap; `--userns single` does without them".into()
        }
        // ENOSYS: the first of its system calls that an old kernel lacks (mount_setattr).
        RuntimeError::Outer(OuterError::Exec(source)) if source.kind() == io::ErrorKind::Unsupported => {
            "cells need Linux 5.12 or later; `cellblock doctor` says more".into()
        }
        RuntimeError::Outer(_) | RuntimeError::Build(BuildError::Unshare(_) | BuildError::Map(_)) => {
            "`cellblock doctor` says what this host lacks and how to mend it".into()
        }
        RuntimeError::Build(BuildError::Container(text)) if text.contains("chdir") => {
            "the working directory does not exist inside: see `--workdir` and `--volume`".into()
        }
        RuntimeError::Build(BuildError::Container(text))
            if text.contains("ENOSPC") || text.contains("No space left") =>
        {
            "make room where XDG_RUNTIME_DIR and XDG_DATA_HOME are".into()
        }
        RuntimeError::Os { source, .. } if is_full(source) => {
            "make room where XDG_RUNTIME_DIR and XDG_DATA_HOME are".into()
        }
        RuntimeError::State(StateError::Io { source, .. }) if is_full(source) => MAKE_ROOM.into(),
        RuntimeError::Build(BuildError::Container(_)) => "`cellblock doctor` says what this host lacks".into(),
        RuntimeError::Network(NetworkError::NoVeth(_)) => {
            "`--net none` starts it without a network; `cellblock doctor` says what this host lacks".into()
        }
        RuntimeError::Network(NetworkError::NoSpace(_)) => MAKE_ROOM.into(),
        RuntimeError::Network(NetworkError::Other(_)) => "`cellblock doctor` says what this host lacks".into(),
        RuntimeError::Network(NetworkError::NoCapture(_)) => {
            "list the ports in the rules (HOST:PORT), or install nftables".into()
        }
        RuntimeError::Network(NetworkError::NoUplink(_)) => {
            "install the package `passt` (or `slirp4netns`); `--net names` needs neither".into()
        }
        RuntimeError::Network(NetworkError::NoTun(_)) => {
            "let everybody open the device (`sudo chmod 0666 /dev/net/tun`, as distributions do), or load it (`sudo modprobe tun`); \
             `--net names` does without"
                .into()
        }
        RuntimeError::Network(NetworkError::NoFilter(_)) => {
            "install the package `nftables`, and see that the kernel has nf_tables, conntrack and NAT; `--net names` does without".into()
        }
        RuntimeError::Network(NetworkError::Uplink(_)) => {
            "this host may have no default route; `cellblock doctor` says what else it lacks".into()
        }
        RuntimeError::Network(NetworkError::Publish(text)) if text.contains("in use") => {
            "another program has that port: publish another one, such as -p 8081:80".into()
        }
        RuntimeError::Guard(GuardError::NoSpace(_)) => MAKE_ROOM.into(),
        RuntimeError::Guard(_) => {
            "`--no-guard` starts it with files unguarded that do not exist yet; `cellblock doctor` says what this host lacks".into()
        }
        RuntimeError::Limit(_) => {
            "`--limits=best-effort` goes on without the limit; `cellblock doctor` says what would mend it".into()
        }
        RuntimeError::OutOfMemory { .. } => "a cell needs some memory to start: raise `--memory`".into(),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_kernel_is_named_and_nothing_else_is_taken_for_one() {
        for (errno, old) in [(rustix::io::Errno::NOSYS, true), (rustix::io::Errno::PERM, false)] {
            let hints = runtime_hint(&RuntimeError::Outer(OuterError::Exec(errno.into())));
            assert_eq!(hints.concat().contains("Linux 5.12"), old, "{hints:?}");
            assert!(hints.concat().contains("cellblock doctor"), "{hints:?}");
        }
    }
}
