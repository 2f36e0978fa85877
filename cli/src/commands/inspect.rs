//! `cellblock inspect`.

use cellblock_egress::control::{self, Reply, Request};
use cellblock_runtime::state;
use serde_json::json as document;

use crate::commands;
use crate::output::json;
use crate::place;
use crate::report::CliError;

/// Print everything about a running cell as JSON
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  cellblock inspect demo-main-claude
  cellblock inspect demo | jq .cell.mounts")]
pub(crate) struct Args {
    /// The cell
    #[arg(value_name = "CELL")]
    cell: String,
}

pub(crate) fn run(args: &Args) -> Result<i32, CliError> {
    let dirs = place::dirs(&place::host()?);
    commands::heal(&dirs)?;
    let found = state::find(&dirs, &args.cell)?;
    // Only a network of the cell's own can be asked, and one that has just ended does not answer.
    let network = match control::ask(&dirs.network_socket(&found.record.cell.name), &Request::Show) {
        Ok(Reply::Show(show)) => Some(document!({ "rung": show.rung, "capture": show.capture })),
        _ => None,
    };
    json(&document!({
        "name": found.record.cell.name,
        "cell": found.record.cell,
        "version": found.record.version,
        "supervisor": found.record.supervisor,
        "running": found.running,
        "started": found.record.started,
        "network": network,
        "keep": found.record.keep,
        "detached": found.record.detached,
        "cgroups": found.record.cgroups,
        "layer": dirs.layer(&args.cell),
        "guard_log": found.record.cell.guard.then(|| dirs.guard_audit(&args.cell)),
        "log": found.record.detached.then(|| dirs.log(&args.cell)),
    }))?;
    Ok(0)
}
