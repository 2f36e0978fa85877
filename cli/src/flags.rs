//! The flags that say what a cell is to be: shared by `run`, `shell` and `bundle`. Only what was typed; `plan` makes sense of it.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

/// Whether the command gets a pseudo-terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Tty {
    /// If standard input and output are terminals.
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// What to do about a limit that cannot be enforced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Enforce {
    /// Refuse to start.
    Enforce,
    /// Go on without it, and say so.
    BestEffort,
}

/// How ids are laid over the host's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Userns {
    /// As many ids as the host gives, and as few as the image needs.
    Auto,
    /// Only your own id, even if you have subordinate ones.
    Single,
    /// As real root: root inside is root outside. Without it, root inside is nobody outside.
    KeepId,
}

/// What a cell is to be.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct CellFlags {
    /// Root file system: `host`, `auto`, an image of the store (`alpine`), `./DIR` or `./FILE.tar.gz`
    #[arg(long, value_name = "IMAGE", help_heading = "Cell")]
    pub(crate) image: Option<String>,
    /// How much the cell may do: `default` or `strict`
    #[arg(long, value_name = "PROFILE", help_heading = "Cell")]
    pub(crate) profile: Option<String>,
    /// Name of the cell [default: <project>-<branch>-<program>]; its writable layer is kept under it, unless --rm
    #[arg(long, value_name = "NAME", help_heading = "Cell")]
    pub(crate) name: Option<String>,
    /// Discard the writable layer at the end, also with --name
    #[arg(long, conflicts_with = "keep", help_heading = "Cell")]
    pub(crate) rm: bool,
    /// Keep the writable layer for the next cell of the same name
    #[arg(long, help_heading = "Cell")]
    pub(crate) keep: bool,
    /// Make the root file system read-only
    #[arg(long, help_heading = "Cell")]
    pub(crate) read_only: bool,
    /// Host name inside [default: the cell's name]
    #[arg(long, value_name = "NAME", help_heading = "Cell")]
    pub(crate) hostname: Option<String>,
    /// Add a label to the cell
    #[arg(short = 'l', long = "label", value_name = "KEY=VALUE", help_heading = "Cell")]
    pub(crate) labels: Vec<String>,
    /// Network: `none`, or `host` for no separation at all
    #[arg(long = "network", visible_alias = "net", value_name = "MODE", help_heading = "Cell")]
    pub(crate) network: Option<String>,

    /// Set an environment variable, or pass one through by its name
    #[arg(short = 'e', long = "env", value_name = "NAME[=VALUE]", help_heading = "Command")]
    pub(crate) env: Vec<String>,
    /// Read environment variables from a file, one NAME[=VALUE] a line
    #[arg(long = "env-file", value_name = "FILE", help_heading = "Command")]
    pub(crate) env_files: Vec<PathBuf>,
    /// Working directory inside [default: the current one]
    #[arg(short = 'w', long, value_name = "DIR", help_heading = "Command")]
    pub(crate) workdir: Option<String>,
    /// Run as `root` or UID[:GID] [default: yourself]
    #[arg(short = 'u', long, value_name = "USER", help_heading = "Command")]
    pub(crate) user: Option<String>,
    /// Run this program, with the words on the command line as its arguments
    #[arg(long, value_name = "PROGRAM", help_heading = "Command")]
    pub(crate) entrypoint: Option<String>,
    /// Give the command a terminal of its own
    #[arg(short = 't', long, value_enum, value_name = "WHEN", num_args = 0..=1, require_equals = true, default_missing_value = "always", help_heading = "Command")]
    pub(crate) tty: Option<Tty>,
    /// Keep standard input open; always so here, accepted for podman's sake
    #[arg(short = 'i', long, help_heading = "Command")]
    pub(crate) interactive: bool,
    /// Run the command as process 1 itself, without the small init that reaps orphans
    #[arg(long, help_heading = "Command")]
    pub(crate) no_init: bool,
    /// Have a small init as process 1 (the default)
    #[arg(long, conflicts_with = "no_init", help_heading = "Command")]
    pub(crate) init: bool,

    /// Mount a file or folder of the host: SOURCE[:TARGET][:ro|:rw]
    #[arg(short = 'v', long = "volume", value_name = "MOUNT", help_heading = "Files")]
    pub(crate) volumes: Vec<String>,
    /// Mount an empty file system in memory: TARGET[:size=BYTES,mode=OCTAL]
    #[arg(long, value_name = "MOUNT", help_heading = "Files")]
    pub(crate) tmpfs: Vec<String>,
    /// Work on the project of this folder [default: the current one]
    #[arg(short = 'C', long = "project-dir", value_name = "DIR", help_heading = "Files")]
    pub(crate) project_dir: Option<PathBuf>,
    /// Show no project inside at all
    #[arg(long, conflicts_with = "project_dir", help_heading = "Files")]
    pub(crate) no_project: bool,
    /// Take `/`, your home or cellblock's own folders as a project, which hands all of it to the cell
    #[arg(long, help_heading = "Files")]
    pub(crate) force_project: bool,
    /// How ids inside are laid over the host's
    #[arg(long, value_enum, value_name = "HOW", help_heading = "Files")]
    pub(crate) userns: Option<Userns>,

    /// Most memory, such as 512M or 2G
    #[arg(short = 'm', long, value_name = "BYTES", help_heading = "Limits")]
    pub(crate) memory: Option<String>,
    /// Most processors, such as 1.5
    #[arg(long, value_name = "NUMBER", help_heading = "Limits")]
    pub(crate) cpus: Option<String>,
    /// Most processes and threads
    #[arg(long, visible_alias = "pids-limit", value_name = "NUMBER", help_heading = "Limits")]
    pub(crate) pids: Option<u64>,
    /// What to do if a limit cannot be enforced here
    #[arg(long, value_enum, value_name = "WHAT", help_heading = "Limits")]
    pub(crate) limits: Option<Enforce>,
}

/// How to go about a start.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct StartFlags {
    /// Do not ask; the audit is still printed
    #[arg(short = 'y', long, help_heading = "Start")]
    pub(crate) yes: bool,
    /// Print the whole plan and start nothing
    #[arg(long, visible_alias = "check", help_heading = "Start")]
    pub(crate) dry_run: bool,
    /// Say where each value of the plan comes from; implies --dry-run
    #[arg(long, help_heading = "Start")]
    pub(crate) explain: bool,
    /// Print the plan as JSON (with --dry-run or --explain)
    #[arg(long, help_heading = "Start")]
    pub(crate) json: bool,
    /// Run in the background and print the cell's name
    #[arg(short = 'd', long, help_heading = "Start")]
    pub(crate) detach: bool,
}
