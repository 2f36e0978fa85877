//! What was typed: the flags that `run`, `shell` and `bundle` share, and the words after them.
//!
//! Flags are podman's where podman has them. Their doc comments are the help text. Nothing is looked up here: a flag that was
//! not typed is `None`, and `resolve` decides what then counts.
#![allow(
    rustdoc::broken_intra_doc_links,
    reason = "these doc comments are shown to people, with brackets for what may be left out"
)]

pub(crate) mod values;
pub(crate) mod words;

use std::path::PathBuf;

use cellblock_bundle::cell::Network;
use clap::builder::{PossibleValuesParser, TypedValueParser};

use values::{
    Bridge, Choice, Cpus, EnvEntry, HomeSpec, Label, LimitMode, MaskPattern, MountSpec, Opened, Pids, ProfileSpec,
    Protection, PublishSpec, RuleSpec, SecretSpec, Size, TmpfsSpec, Tty, UserSpec, Userns,
};
pub(crate) use words::Words;

/// Everything a person typed that says which cell is meant.
#[derive(Clone, Debug, Default)]
pub(crate) struct Typed {
    /// What the cell is.
    pub(crate) cell: CellFlags,
    /// How it is started.
    pub(crate) start: StartFlags,
    /// What runs in it.
    pub(crate) words: Words,
}

/// Flags that say what a cell is.
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct CellFlags {
    /// Give the cell a name
    #[arg(long, value_name = "NAME", value_parser = values::cell_name, help_heading = "Cell")]
    pub(crate) name: Option<String>,
    /// Use this root file system: auto, host, alpine[:VERSION], a stored image's name, a folder or a tar file
    #[arg(long, value_name = "IMAGE", help_heading = "Cell")]
    pub(crate) image: Option<String>,
    /// Choose how much the cell may do (default or strict), and profiles of the configuration: strict,rust
    #[arg(long, value_name = "PROFILE,…", help_heading = "Cell")]
    pub(crate) profile: Option<ProfileSpec>,
    /// Set the host name inside
    #[arg(long, value_name = "NAME", value_parser = values::hostname, help_heading = "Cell")]
    pub(crate) hostname: Option<String>,
    /// Add a label to the cell
    #[arg(short, long, value_name = "KEY=VALUE", help_heading = "Cell")]
    pub(crate) label: Vec<Label>,
    /// Mount the root file system read-only, with empty /tmp, /run and /var/tmp in memory
    #[arg(long, help_heading = "Cell")]
    pub(crate) read_only: bool,

    /// Set a variable in the cell; NAME alone passes the host's value, NAME@SOURCE reads it when the cell starts: env:NAME, file:PATH,
    /// cmd:COMMAND, op://VAULT/ITEM/FIELD or pass:ENTRY
    #[arg(short, long, value_name = "NAME[=VALUE|@SOURCE]", help_heading = "Process")]
    pub(crate) env: Vec<EnvEntry>,
    /// Read variables from a file, a NAME=VALUE or a NAME in each line
    #[arg(long, value_name = "FILE", help_heading = "Process")]
    pub(crate) env_file: Vec<PathBuf>,
    /// Set the working directory inside
    #[arg(short, long, value_name = "DIR", value_parser = values::inside_path, help_heading = "Process")]
    pub(crate) workdir: Option<PathBuf>,
    /// Run as this user: UID[:GID], root, or your login name (the default)
    #[arg(short, long, value_name = "USER", help_heading = "Process")]
    pub(crate) user: Option<UserSpec>,
    /// Run this program, with the command's words as its arguments
    #[arg(long, value_name = "PROGRAM", help_heading = "Process")]
    pub(crate) entrypoint: Option<String>,
    /// Let an agent ask before it acts, as it does without cellblock
    #[arg(long, help_heading = "Process")]
    pub(crate) ask: bool,
    /// Let an agent ask what it asks at its first start, such as whether it may trust the folder
    #[arg(long, help_heading = "Process")]
    pub(crate) onboarding: bool,
    /// Do not point the agent to /etc/cellblock/SANDBOX.md in the file that it reads at each start
    #[arg(long, help_heading = "Process")]
    pub(crate) no_sandbox_md: bool,
    /// Allocate a pseudo-terminal, the same as --tty=always
    #[arg(short = 't', conflicts_with = "tty", help_heading = "Process")]
    pub(crate) tty_short: bool,
    /// Allocate a pseudo-terminal; auto does so when standard input and output are terminals
    #[arg(
        long,
        value_name = "WHEN",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "always",
        value_parser = choice::<Tty>(),
        help_heading = "Process"
    )]
    pub(crate) tty: Option<Tty>,
    /// Keep standard input open; it always is, the flag is for podman's sake
    #[arg(short, long, help_heading = "Process")]
    pub(crate) interactive: bool,
    /// Run a small init inside that forwards signals and reaps processes (the default)
    #[arg(long, overrides_with = "no_init", help_heading = "Process")]
    pub(crate) init: bool,
    /// Run the command itself as process 1
    #[arg(long, overrides_with = "init", help_heading = "Process")]
    pub(crate) no_init: bool,

    /// Bind mount a host path: SOURCE:TARGET[:ro|rw], or SOURCE[:ro|rw] for the same path inside
    #[arg(short, long, value_name = "SOURCE:TARGET[:OPTIONS]", help_heading = "Files")]
    pub(crate) volume: Vec<MountSpec>,
    /// Share a folder or file of the host with the cell, for reading and writing, at the same path; nothing, if there is none
    #[arg(long, value_name = "PATH", help_heading = "Files")]
    pub(crate) share: Vec<String>,
    /// Let this be the command's home: private for one of the cell's own (the default), workspace for the project's folder, or a folder of the host
    #[arg(long, value_name = "private|workspace|PATH", help_heading = "Files")]
    pub(crate) home: Option<HomeSpec>,
    /// Lay the files of this folder over those of the root: its etc/motd is /etc/motd inside; nothing in it is changed
    #[arg(long, value_name = "DIR", help_heading = "Files")]
    pub(crate) overlay: Option<String>,
    /// Write the cell's logs into this folder: its output in the background, and the audits of its network and its guard
    #[arg(long, value_name = "DIR", help_heading = "Files")]
    pub(crate) log_dir: Option<String>,
    /// Mount an empty file system in memory
    #[arg(long, value_name = "TARGET[:OPTIONS]", help_heading = "Files")]
    pub(crate) tmpfs: Vec<TmpfsSpec>,
    /// Refuse nothing by name: what the host's tools act on and does not exist yet (a hook, an .envrc) can be made inside
    #[arg(long, help_heading = "Files")]
    pub(crate) no_guard: bool,
    /// Keep files that the host's tools act on (git's hooks, .envrc, .vscode, …) from being changed inside, or do not
    #[arg(long, value_name = "on|off", value_parser = choice::<Protection>(), help_heading = "Files")]
    pub(crate) protect: Option<Protection>,
    /// Let one of these be changed, such as .vscode
    #[arg(long, value_name = "PATH", help_heading = "Files")]
    pub(crate) unprotect: Vec<Opened>,
    /// Cover files of the project that match a pattern, such as .env, with nothing
    #[arg(long, value_name = "PATTERN", help_heading = "Files")]
    pub(crate) mask: Vec<MaskPattern>,
    /// Do not cover this path of the list of secrets where a mount shows it
    #[arg(long, value_name = "PATH", help_heading = "Files")]
    pub(crate) secret_path_except: Vec<String>,
    /// Lay the cell's user ids over the host's in this way
    #[arg(long, value_name = "MODE", value_parser = choice::<Userns>(), help_heading = "Files")]
    pub(crate) userns: Option<Userns>,

    /// Connect the cell: names for what is allowed by name (the default), none, bridge for the whole internet but nothing
    /// nearer, or host for the host's own network
    #[arg(long, visible_alias = "net", value_name = "MODE", value_parser = choice::<Network>(), help_heading = "Network")]
    pub(crate) network: Option<Network>,
    /// Let the cell reach this: HOST[:PORTS], *.DOMAIN, ADDRESS/BITS, host:PORT for a service of this machine, or @SET
    #[arg(long, value_name = "RULE", help_heading = "Network")]
    pub(crate) allow: Vec<RuleSpec>,
    /// Let the cell reach what a file says, a domain or rule in each line
    #[arg(long, value_name = "FILE", help_heading = "Network")]
    pub(crate) allow_file: Vec<PathBuf>,
    /// Forget what the configuration and the built-in list (@dev) allow
    #[arg(long, help_heading = "Network")]
    pub(crate) no_default_allow: bool,
    /// Never let the cell reach this, whatever is allowed
    #[arg(long, value_name = "RULE", help_heading = "Network")]
    pub(crate) deny: Vec<RuleSpec>,
    /// Put a secret into requests to a host; the cell only sees a placeholder in the variable. SOURCE is env:NAME, file:PATH or cmd:COMMAND
    #[arg(long, value_name = "VARIABLE@HOST[/HEADER]=SOURCE", help_heading = "Network")]
    pub(crate) secret: Vec<SecretSpec>,
    /// Publish a port of the cell on the host, on 127.0.0.1 unless an address is given
    #[arg(short, long, value_name = "[ADDRESS:]HOSTPORT:PORT", help_heading = "Network")]
    pub(crate) publish: Vec<PublishSpec>,

    /// Let the cell log in with the keys of your ssh agent; no key enters it
    #[arg(long, overrides_with = "no_ssh_agent", help_heading = "Your accounts and desktop")]
    pub(crate) ssh_agent: bool,
    /// Give the cell no ssh agent (the default)
    #[arg(
        long,
        overrides_with = "ssh_agent",
        conflicts_with = "ssh_agent_key",
        help_heading = "Your accounts and desktop"
    )]
    pub(crate) no_ssh_agent: bool,
    /// Let it use only this key of the agent's: a fingerprint, a comment, or the file of its public half
    #[arg(long, value_name = "KEY", value_parser = values::agent_key, help_heading = "Your accounts and desktop")]
    pub(crate) ssh_agent_key: Vec<String>,
    /// Have git's commits and tags signed as you sign them: by your gpg, or with a key of the ssh agent; no key enters the cell
    #[arg(long, overrides_with = "no_commit_signing", help_heading = "Your accounts and desktop")]
    pub(crate) commit_signing: bool,
    /// Sign nothing (the default)
    #[arg(long, overrides_with = "commit_signing", help_heading = "Your accounts and desktop")]
    pub(crate) no_commit_signing: bool,
    /// Let git inside fetch from and push to this project's https remotes as you; no password or token enters the cell
    #[arg(long, overrides_with = "no_git_credentials", help_heading = "Your accounts and desktop")]
    pub(crate) git_credentials: bool,
    /// Give git inside no credentials (the default)
    #[arg(long, overrides_with = "git_credentials", help_heading = "Your accounts and desktop")]
    pub(crate) no_git_credentials: bool,
    /// Let the cell ask your desktop: for the image in the clipboard, or to open an address; or tell workmux what its agent does
    #[arg(long, value_name = "WHAT", value_delimiter = ',', value_parser = choice::<Bridge>(), help_heading = "Your accounts and desktop")]
    pub(crate) bridge: Vec<Bridge>,

    /// Limit memory, such as 512m or 2g; swap is not added on top
    #[arg(short, long, value_name = "SIZE", help_heading = "Limits")]
    pub(crate) memory: Option<Size>,
    /// Limit the number of processors, such as 1.5
    #[arg(long, value_name = "NUMBER", help_heading = "Limits")]
    pub(crate) cpus: Option<Cpus>,
    /// Limit the number of processes and threads
    #[arg(long = "pids-limit", visible_alias = "pids", value_name = "NUMBER", help_heading = "Limits")]
    pub(crate) pids: Option<Pids>,
    /// Choose what happens when the host cannot enforce a limit: do not start, or go on without it
    #[arg(long, value_name = "MODE", value_parser = choice::<LimitMode>(), help_heading = "Limits")]
    pub(crate) limits: Option<LimitMode>,

    /// Work on the project of DIR instead of the working directory's
    #[arg(short = 'C', long, value_name = "DIR", help_heading = "Project")]
    pub(crate) project_dir: Option<PathBuf>,
    /// Let the project stand at this path inside, instead of its own
    #[arg(long, value_name = "PATH", value_parser = values::inside_path, conflicts_with = "no_project", help_heading = "Project")]
    pub(crate) project_path: Option<PathBuf>,
    /// Give the cell no project: nothing of the host's files is mounted
    #[arg(long, conflicts_with_all = ["project_dir", "force_project"], help_heading = "Project")]
    pub(crate) no_project: bool,
    /// Accept a project folder that is refused otherwise, such as your home directory
    #[arg(long, help_heading = "Project")]
    pub(crate) force_project: bool,
}

impl CellFlags {
    /// When the command is to get a terminal, if that was said.
    pub(crate) fn tty(&self) -> Option<(Tty, &'static str)> {
        if self.tty_short { Some((Tty::Always, "-t")) } else { self.tty.map(|when| (when, "--tty")) }
    }

    /// Whether process 1 is an init, if that was said.
    pub(crate) fn init(&self) -> Option<(bool, &'static str)> {
        match (self.init, self.no_init) {
            (_, true) => Some((false, "--no-init")),
            (true, false) => Some((true, "--init")),
            (false, false) => None,
        }
    }
}

/// Flags that say how a cell is started, without changing what it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, clap::Args)]
pub(crate) struct StartFlags {
    /// Start in the background and print the cell's name
    #[arg(short, long, conflicts_with_all = ["tty_short"], help_heading = "Start")]
    pub(crate) detach: bool,
    /// Remove the cell's files when it ends (the default)
    #[arg(long, conflicts_with = "keep", help_heading = "Start")]
    pub(crate) rm: bool,
    /// Keep the cell's files when it ends
    #[arg(long, help_heading = "Start")]
    pub(crate) keep: bool,
    /// Answer yes to every question
    #[arg(short, long, help_heading = "Start")]
    pub(crate) yes: bool,
    /// Print what would be started, and start nothing
    #[arg(long, help_heading = "Start")]
    pub(crate) dry_run: bool,
    /// Look whether it could start, and start nothing: the image, the program, an agent's login
    #[arg(long, conflicts_with = "dry_run", help_heading = "Start")]
    pub(crate) check: bool,
    /// Print where each value comes from
    #[arg(long, help_heading = "Start")]
    pub(crate) explain: bool,
    /// Print the plan as JSON
    #[arg(long, help_heading = "Start")]
    pub(crate) json: bool,
}

/// A clap parser of one of a fixed set of words: clap shows them in the help and in completions.
fn choice<T: Choice + Send + Sync>() -> impl TypedValueParser<Value = T> {
    PossibleValuesParser::new(T::WORDS).try_map(|word| T::read(&word))
}

#[cfg(test)]
mod tests;
