//! `cellblock stop`.

use cellblock_runtime::control::{Request, ask};
use serde::Serialize;

use crate::commands;
use crate::output::{data, json, say};
use crate::place;
use crate::report::CliError;

/// Stop running cells and wait until they are gone
///
/// The command gets SIGTERM, and SIGKILL when the time is over.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  cellblock stop                    the cells of this project
  cellblock stop web                the cells of the project `web`, or the cell of that name
  cellblock stop --all -t 0         all of them, at once")]
pub(crate) struct Args {
    /// Cells or projects [default: the current project]
    #[arg(value_name = "PROJECT|CELL")]
    of: Vec<String>,
    /// Stop every cell
    #[arg(short = 'a', long, conflicts_with = "of")]
    all: bool,
    /// Seconds until SIGKILL
    #[arg(short = 't', long, value_name = "SECONDS", default_value_t = 10)]
    time: u64,
    /// Print the stopped cells as JSON
    #[arg(long)]
    json: bool,
}

/// A cell that was stopped.
#[derive(Serialize)]
struct Stopped {
    name: String,
    exit_code: Option<i32>,
}

pub(crate) fn run(args: &Args) -> Result<i32, CliError> {
    let host = place::host()?;
    let dirs = place::dirs(&host);
    let cells = if args.all {
        commands::heal(&dirs)?
    } else if args.of.is_empty() {
        commands::cells_of(None, &host)?
    } else {
        let mut cells = Vec::new();
        for word in &args.of {
            let found = commands::cells_of(Some(word), &host)?;
            if found.is_empty() {
                return Err(CliError::plain(
                    format!("no cell or project named `{word}` is running"),
                    "`cellblock status` lists what runs",
                ));
            }
            cells.extend(found);
        }
        cells
    };
    if cells.is_empty() && !args.json {
        say(if args.all { "No cell is running." } else { "No cell of this project is running." });
    }
    let mut stopped = Vec::new();
    for cell in cells {
        let name = cell.record.cell.name;
        let socket = dirs.cell(&name).join("control.sock");
        let request = Request::Stop { signal: TERM, grace_ms: args.time.saturating_mul(1000) };
        // No answer: it ended by itself at the same moment, which is what was wanted.
        let code = match ask(&socket, &request) {
            Ok(cellblock_runtime::control::Answer::Stopped { code }) => Some(code),
            Err(_) => None,
        };
        if !args.json {
            data(&format!("{name}\n"))?;
        }
        stopped.push(Stopped { name, exit_code: code });
    }
    if args.json {
        json(&stopped)?;
    }
    Ok(0)
}

/// `SIGTERM`.
const TERM: i32 = rustix::process::Signal::TERM.as_raw();
