//! `cellblock run`.

use std::ffi::OsString;

use crate::args::{CellFlags, StartFlags, Typed, Words};
use crate::commands::start;
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
  cellblock run --allow api.example.com -- ./job   let it reach one more name
  cellblock run -m 2G -p 8080:3000 -- npm start    a limit, and a port for your browser
  cellblock run --dry-run --explain -- true     what would be, and why
  cellblock run claude-code --continue          an agent; flags after its name are its own
  cellblock run codex --check                   whether it could start, and whether it is logged in")]
pub(crate) struct Args {
    #[command(flatten)]
    cell: CellFlags,
    #[command(flatten)]
    start: StartFlags,
    /// `-- COMMAND ARGS…`, or the name of an agent and its arguments
    #[arg(trailing_var_arg = true, value_name = "COMMAND")]
    command: Vec<String>,
}

/// `before` are flags that stood before `run`, which are the agent's.
pub(crate) fn run(args: Args, typed: &[OsString], before: Vec<String>) -> Result<i32, CliError> {
    let mut start = args.start;
    let words = Words::for_run(typed, args.command, before, &mut start);
    start::run(&Typed { cell: args.cell, start, words })
}
