//! `cellblock remove`.

use std::collections::BTreeSet;

use cellblock_runtime::cleanup;
use cellblock_runtime::state;
use serde::Serialize;

use crate::output::{data, json, say};
use crate::report::CliError;
use crate::{commands, images, place};

/// Throw away the files that are kept of cells
///
/// A cell that was given a name, or `--keep`, leaves its changes of the root file system for the next one of that name. Files of the project, and what
/// agents keep, are not among them.
#[derive(clap::Args, Debug)]
#[command(
    visible_alias = "rm",
    after_help = "Examples:
  cellblock status --all            what is kept
  cellblock remove web              nothing of the cell `web` any more
  cellblock remove --all"
)]
pub(crate) struct Args {
    /// Cells that have ended
    #[arg(value_name = "CELL", required_unless_present = "all")]
    cells: Vec<String>,
    /// Of every cell that has ended
    #[arg(short = 'a', long, conflicts_with = "cells")]
    all: bool,
    /// Print what was removed as JSON
    #[arg(long)]
    json: bool,
}

/// A cell of which nothing is kept any more.
#[derive(Serialize)]
struct Removed {
    name: String,
}

pub(crate) fn run(args: &Args) -> Result<i32, CliError> {
    let host = place::host()?;
    let dirs = place::dirs(&host);
    let cells = commands::healed(&dirs)?;
    let kept: BTreeSet<String> = state::kept(&dirs)?.into_iter().map(|left| left.name).collect();
    let names = if args.all { kept.clone() } else { args.cells.iter().cloned().collect() };
    // All or none: a word that was mistyped is told before anything is gone.
    if let Some(unknown) = names.difference(&kept).next() {
        let mut runs =
            cells.alive.iter().map(|cell| &cell.record.cell.name).chain(cells.foreign.iter().map(|cell| &cell.name));
        return Err(if runs.any(|name| name == unknown) {
            CliError::plain(format!("the cell `{unknown}` is running"), &format!("`cellblock stop {unknown}` ends it"))
        } else {
            let message = format!("nothing is kept of a cell named `{unknown}`");
            CliError::plain(message, "`cellblock status --all` lists what is kept")
        });
    }
    if names.is_empty() && !args.json {
        say("Nothing is kept of any cell.");
    }
    for name in &names {
        let claim = state::claim(&dirs, name)?;
        let aside = cleanup::discard(&dirs, &claim);
        cleanup::release(claim);
        images::remove_foreign(vec![aside?], &host)?;
        if !args.json {
            data(&format!("{name}\n"))?;
        }
    }
    if args.json {
        json(&names.into_iter().map(|name| Removed { name }).collect::<Vec<_>>())?;
    }
    Ok(0)
}
