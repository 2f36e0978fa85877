//! `cellblock shell`.

use crate::args::{CellFlags, StartFlags, Typed, Words};
use crate::commands::{self, exec, start};
use crate::place;
use crate::report::CliError;

/// Open a shell: in the running cell of the project if there is one, else in a new cell
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  cellblock shell                   in the newest cell of this project, or a new one
  cellblock shell web               in the newest cell of the project `web`, or the cell of that name
  cellblock shell --image alpine    a new cell with this image, if none runs")]
pub(crate) struct Args {
    /// A running cell's name, or a project's [default: the current project]
    #[arg(value_name = "PROJECT|CELL")]
    of: Option<String>,
    /// Open a new cell even if one runs
    #[arg(long)]
    new: bool,
    #[command(flatten)]
    cell: CellFlags,
    #[command(flatten)]
    start: StartFlags,
}

pub(crate) fn run(args: Args) -> Result<i32, CliError> {
    let host = place::host()?;
    if !args.new && !args.start.dry_run && !args.start.explain {
        let cells = commands::cells_of(args.of.as_deref(), &host)?;
        if let Some(found) = cells.into_iter().find(|c| c.running.is_some()) {
            let shell = found.record.cell.user.shell.display().to_string();
            return exec::enter(&found, &place::dirs(&host), vec![shell], &exec::Options::default());
        }
    }
    if let Some(word) = &args.of {
        return Err(CliError::plain(
            format!("no cell or project named `{word}` is running"),
            "`cellblock status` lists what runs; without a name, `cellblock shell` opens a new cell for this folder",
        ));
    }
    start::run(&Typed { cell: args.cell, start: args.start, words: Words::Shell })
}
