//! `cellblock run`.

use std::ffi::OsString;

use crate::commands::start;
use crate::flags::{CellFlags, StartFlags};
use crate::report::CliError;

/// Run a command or an agent in a cell of its own
///
/// The project of the current folder is all that the cell can write: it stands inside at the same path. The name of the cell is
/// <project>-<branch>-<program>. The exit code is the command's own; 125 means that cellblock failed, 126 and 127 that the command could
/// not be executed or found, 128+n that signal n ended it.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  cellblock run -- make test                    any command, on this project
  cellblock run --image alpine -- sh            with another root file system
  cellblock run -v ~/data:/data:ro -- ls /data  show it one more folder
  cellblock run --net host -m 2G -- npm ci      with the network, and a limit
  cellblock run --dry-run --explain -- true     what would be, and why
  cellblock run claude-code --continue          an agent; flags after its name are its own")]
pub(crate) struct Args {
    #[command(flatten)]
    cell: CellFlags,
    #[command(flatten)]
    start: StartFlags,
    /// `-- COMMAND ARGS…`, or the name of an agent and its arguments
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "COMMAND")]
    command: Vec<String>,
}

pub(crate) fn run(args: Args, typed: &[OsString]) -> Result<i32, CliError> {
    let command = words(args.command, typed)?;
    if command.is_empty() && args.cell.entrypoint.is_none() {
        return Err(crate::plan::PlanError::NoCommand.into());
    }
    let ready = start::plan(&args.cell, &args.start, &command)?;
    if ready.show(&args.start)? {
        return Ok(0);
    }
    ready.start(&args.start)
}

/// Programs behind the names of agents.
const AGENTS: &[(&str, &str)] = &[("claude-code", "claude"), ("gemini-cli", "gemini"), ("copilot-cli", "copilot")];

/// After `--` the words are a command, as they are. Otherwise the first is an agent; the rest is the agent's, without the `--` that may
/// stand directly before its own arguments.
fn words(mut command: Vec<String>, typed: &[OsString]) -> Result<Vec<String>, CliError> {
    let plain = typed.len().checked_sub(command.len() + 1).and_then(|at| typed.get(at)).is_some_and(|w| w == "--");
    if plain {
        return Ok(command);
    }
    if let Some(flag) = command.first().filter(|w| w.starts_with('-')) {
        return Err(unknown(flag));
    }
    if let Some(at) = command.iter().position(|w| w == "--") {
        command.remove(at);
    }
    if let Some(first) = command.first_mut()
        && let Some((_, program)) = AGENTS.iter().find(|(name, _)| name == first)
    {
        *first = (*program).to_owned();
    }
    Ok(command)
}

/// A flag that cellblock does not have, before any agent's name: an agent's own flags come after it.
fn unknown(flag: &str) -> CliError {
    let name = flag.trim_start_matches('-').split('=').next().unwrap_or_default();
    let tree = crate::app::command();
    let known: Vec<&str> = tree
        .find_subcommand("run")
        .into_iter()
        .flat_map(clap::Command::get_arguments)
        .filter_map(clap::Arg::get_long)
        .collect();
    let hint = crate::settings::similar(name, &known).map_or_else(
        || "`cellblock run --help` lists the flags; a command goes after `--`".to_owned(),
        |k| format!("did you mean `--{k}`?"),
    );
    CliError::plain(format!("`{flag}` is no flag of `cellblock run`"), &hint)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Vec<String> {
        use clap::Parser;
        #[derive(Parser)]
        struct Line {
            #[command(flatten)]
            args: Args,
        }
        let typed: Vec<OsString> = line.split(' ').map(OsString::from).collect();
        words(Line::try_parse_from(&typed).expect(line).args.command, &typed).expect(line)
    }

    #[test]
    fn commands_are_taken_as_they_are_and_agents_by_their_names() {
        for (line, expected) in [
            ("run -- ls -l -- x", "ls -l -- x"),
            ("run --rm -- claude-code", "claude-code"),
            ("run claude-code", "claude"),
            ("run claude-code --continue", "claude --continue"),
            ("run --yes codex resume --last", "codex resume --last"),
            ("run codex --rm", "codex --rm"),
            ("run claude-code -- -p", "claude -p"),
            ("run gemini -i hello -- more", "gemini -i hello more"),
        ] {
            assert_eq!(parse(line).join(" "), expected, "{line}");
        }
    }
}
