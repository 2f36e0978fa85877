//! `cellblock exec`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use cellblock_egress::serve::Hidden;
use cellblock_runtime::control;
use cellblock_runtime::exec::{Exec, exec};
use cellblock_runtime::state::{self, Dirs, Found};

use crate::args::values::{EnvEntry, Tty};
use crate::commands;
use crate::place;
use crate::report::CliError;
use crate::resolve::Origin;
use crate::secrets;

/// Run another command in a running cell
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  cellblock exec demo-main-claude -- ps aux
  echo data | cellblock exec demo -- sh -c 'cat > file'
  cellblock exec -u root -w / demo -- apk add git")]
pub(crate) struct Args {
    /// Set an environment variable, or pass one through by its name
    #[arg(short = 'e', long = "env", value_name = "NAME[=VALUE|@SOURCE]")]
    env: Vec<EnvEntry>,
    /// Working directory inside [default: the cell's]
    #[arg(short = 'w', long, value_name = "DIR")]
    workdir: Option<PathBuf>,
    /// Run as `root` or UID[:GID] [default: the cell's user]
    #[arg(short = 'u', long, value_name = "USER")]
    user: Option<String>,
    /// Give the command a terminal of its own [default: if standard input and output are terminals]
    #[arg(short = 't', long)]
    tty: bool,
    /// Give the command no terminal
    #[arg(short = 'T', long, conflicts_with = "tty")]
    no_tty: bool,
    /// Keep standard input open; always so here, accepted for podman's sake
    #[arg(short = 'i', long)]
    interactive: bool,
    /// The cell
    #[arg(value_name = "CELL")]
    cell: String,
    /// The command and its arguments
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true, value_name = "COMMAND")]
    command: Vec<String>,
}

/// What may be different from the cell's own command.
#[derive(Debug, Default)]
pub(crate) struct Options {
    env: Vec<(String, Hidden)>,
    workdir: Option<PathBuf>,
    ids: Option<(u32, u32)>,
    tty: Tty,
}

pub(crate) fn run(args: &Args) -> Result<i32, CliError> {
    let host = place::host()?;
    let dirs = place::dirs(&host);
    commands::heal(&dirs)?;
    let found = state::find(&dirs, &args.cell)?;
    let mut env = Vec::new();
    for EnvEntry { name, value } in &args.env {
        let value = secrets::given(name, value, &Origin::Flag("--env"), &host)?;
        env.extend(value.map(|value| (name.clone(), value)));
    }
    let tty = if args.no_tty {
        Tty::Never
    } else if args.tty {
        Tty::Always
    } else {
        Tty::Auto
    };
    let ids = args.user.as_deref().map(|text| user(text, &found)).transpose()?;
    let mut command = args.command.clone();
    if command.first().is_some_and(|w| w == "--") {
        command.remove(0);
    }
    enter(&found, &dirs, command, &Options { env, workdir: args.workdir.clone(), ids, tty })
}

fn user(text: &str, found: &Found) -> Result<(u32, u32), CliError> {
    let cell = &found.record.cell;
    let bad =
        || CliError::plain(format!("`{text}` is no user of the cell"), "give `root`, the cell's user, or UID[:GID]");
    let number = |t: &str| if t == "root" { Some(0) } else { t.parse().ok() };
    let (uid, gid) = match text.split_once(':') {
        Some((u, g)) => (number(u).ok_or_else(bad)?, number(g).ok_or_else(bad)?),
        None if text == cell.user.name => (cell.user.uid, cell.user.gid),
        None => number(text).map(|n| (n, n)).ok_or_else(bad)?,
    };
    if cell.ids.host_uid(uid).is_none() || cell.ids.host_gid(gid).is_none() {
        return Err(CliError::plain(
            format!("user {uid}:{gid} does not exist in this cell, which has only the ids it was started with"),
            "start it with `-u root`, or with an image other than `host` and subordinate ids (`cellblock doctor`)",
        ));
    }
    Ok((uid, gid))
}

/// Runs `command` in the cell `found`; this process lives as long as the command.
pub(crate) fn enter(found: &Found, dirs: &Dirs, command: Vec<String>, options: &Options) -> Result<i32, CliError> {
    let cell = &found.record.cell;
    let mut env: BTreeMap<String, String> = cell.env.clone();
    let stdin = std::io::IsTerminal::is_terminal(&std::io::stdin());
    let stdout = std::io::IsTerminal::is_terminal(&std::io::stdout());
    if let Ok(term) = std::env::var("TERM") {
        env.insert("TERM".into(), term);
    }
    if !cell.hidden.is_empty() {
        let hidden = control::variables(&dirs.cell(&cell.name).join("control.sock")).map_err(|error| {
            let message =
                format!("the supervisor of {} does not hand over the cell's hidden variables: {error}", cell.name);
            CliError::plain(message, "is it stopped (Ctrl-Z)? `fg` in its shell lets it go on")
        })?;
        env.extend(hidden.iter().map(|(name, value)| (name.clone(), value.0.clone())));
    }
    env.extend(options.env.iter().map(|(name, value)| (name.clone(), value.0.clone())));
    let (uid, gid) = options.ids.unwrap_or((cell.user.uid, cell.user.gid));
    if uid == 0 && cell.user.uid != 0 {
        env.insert("HOME".into(), "/root".into());
        env.insert("USER".into(), "root".into());
        env.insert("LOGNAME".into(), "root".into());
    }
    let what = Exec {
        command,
        env: env.into_iter().map(|(name, value)| format!("{name}={value}")).collect(),
        workdir: options.workdir.clone().unwrap_or_else(|| cell.workdir.clone()),
        uid,
        gid,
        groups: cell.user.groups.clone(),
        terminal: match options.tty {
            Tty::Auto => stdin && stdout,
            Tty::Always => true,
            Tty::Never => false,
        },
    };
    Ok(exec(found, &what)?)
}
