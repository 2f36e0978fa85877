//! `cellblock stop`.

use std::time::{Duration, Instant};

use cellblock_runtime::control::{Request, ask};
use cellblock_runtime::state::{self, Dirs, Listing, StateError};
use serde::Serialize;

use crate::commands;
use crate::output::{data, json, say};
use crate::place;
use crate::report::CliError;

/// Stop running cells and wait until they are gone
///
/// The command gets SIGTERM, and SIGKILL when the time is over; with `-t 0` nothing but SIGKILL.
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
    let cells: Vec<(String, i32)> = if args.all {
        named(commands::healed(&dirs)?)
    } else if args.of.is_empty() {
        named(commands::all_of(None, &host)?)
    } else {
        let mut cells = Vec::new();
        for word in &args.of {
            let found = named(commands::all_of(Some(word), &host)?);
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
    for (name, supervisor) in cells {
        let socket = dirs.cell(&name).join("control.sock");
        let request = Request::Stop { signal: TERM, grace_ms: args.time.saturating_mul(1000) };
        let code = match ask(&socket, &request, supervisor) {
            Ok(cellblock_runtime::control::Answer::Stopped { code }) => Some(code),
            // No answer: it ended by itself at the same moment, which is what was wanted.
            Err(_) => ended(&dirs, &name).map(|()| None)?,
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

/// The cells' names, with the process ids of their supervisors.
fn named(cells: Listing) -> Vec<(String, i32)> {
    let foreign = cells.foreign.into_iter().map(|cell| (cell.name, cell.record.supervisor));
    cells.alive.into_iter().map(|cell| (cell.record.cell.name, cell.record.supervisor)).chain(foreign).collect()
}

/// Fails if the cell `name`, which does not answer, goes on running because its supervisor is of another version and knows other words.
fn ended(dirs: &Dirs, name: &str) -> Result<(), CliError> {
    let end = Instant::now() + AT_ITS_END;
    loop {
        match state::find(dirs, name) {
            Err(StateError::OtherVersion { .. }) if Instant::now() < end => std::thread::sleep(AT_ITS_END / 50),
            Err(StateError::OtherVersion { .. }) => {
                return Err(CliError::plain(
                    format!(
                        "the cell `{name}` was started by another version of cellblock, which this one cannot ask to stop it"
                    ),
                    "stop it with the one that started it, or end the process that `cellblock status --json` calls its supervisor",
                ));
            }
            _ => return Ok(()),
        }
    }
}

/// How long a cell may be found after it has closed its socket.
const AT_ITS_END: Duration = Duration::from_secs(2);

/// `SIGTERM`.
const TERM: i32 = rustix::process::Signal::TERM.as_raw();
