//! `cellblock logs`.

use std::io::{Read, Seek};
use std::time::Duration;

use cellblock_runtime::state::{self, StateError};

use crate::output::data;
use crate::place;
use crate::report::CliError;

/// Print what a cell in the background has written
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  cellblock run -d --name build -- make
  cellblock logs -f build
  cellblock logs --guard build                  which files it was not allowed to make or change")]
pub(crate) struct Args {
    /// Print which changes of files its guard has refused instead
    #[arg(long)]
    guard: bool,
    /// Go on until the cell ends
    #[arg(short = 'f', long)]
    follow: bool,
    /// The cell; it may have ended
    #[arg(value_name = "CELL")]
    cell: String,
}

/// How often to look for more.
const PAUSE: Duration = Duration::from_millis(200);

pub(crate) fn run(args: &Args) -> Result<i32, CliError> {
    let dirs = place::dirs(&place::host()?);
    crate::args::values::cell_name(&args.cell)
        .map_err(|e| CliError::plain(e.to_string(), "`cellblock status` lists the cells that run"))?;
    let path = if args.guard { dirs.guard_audit(&args.cell) } else { dirs.log(&args.cell) };
    let mut file = std::fs::File::open(&path).map_err(|_| {
        let (what, hint) = if args.guard {
            ("no cell with a guard had the name", "only cells that may write a folder of the host have one")
        } else {
            ("there is no log of a cell named", "only cells started with `-d` have one")
        };
        CliError::plain(format!("{what} `{}`", args.cell), hint)
    })?;
    let failed = |source| CliError::File { what: "cannot read the log", path: path.clone(), source };
    loop {
        // Before reading: what is written until the end must still be seen.
        let found = || matches!(state::find(&dirs, &args.cell), Ok(_) | Err(StateError::OtherVersion { .. }));
        let running = args.follow && found();
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(failed)?;
        data(&String::from_utf8_lossy(&bytes))?;
        if !running {
            return Ok(0);
        }
        file.stream_position().map_err(failed)?;
        std::thread::sleep(PAUSE);
    }
}
