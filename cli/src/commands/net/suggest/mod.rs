//! `cellblock net suggest`: from what was decided to a list of rules that would have been enough.

mod collect;
mod propose;

use std::time::{Duration, SystemTime};

use super::read::{Entry, Tail};
use super::{duration, log, which};
use crate::output::{data, json};
use crate::place;
use crate::report::CliError;
use crate::resolve::HostFacts;

/// Propose the smallest rules that would have been enough for a cell
///
/// What was used is proposed by name and port, even where a whole set was allowed. What was refused stands there as comments, with how
/// often. Addresses, and names that look like data on its way out, are only warned of. Read it before you use it.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  cellblock net suggest > demo.rules
  cellblock net suggest --since 1h demo-main-claude
  cellblock net suggest --json | jq -r '.rules[].rule'")]
pub(crate) struct Args {
    /// Print it as JSON
    #[arg(long)]
    json: bool,
    /// Use only what is younger, such as 30m, 2h, 7d
    #[arg(long, value_name = "TIME", value_parser = duration)]
    since: Option<Duration>,
    /// The cell; it may have ended [default: the cell of this project that runs, or ran last]
    #[arg(value_name = "PROJECT|CELL")]
    cell: Option<String>,
}

pub(super) fn run(args: &Args, host: &HostFacts) -> Result<i32, CliError> {
    let name = which::audited(args.cell.as_deref(), host)?;
    let mut tail = Tail::from_start(&place::dirs(host).audit(&name))?;
    if !tail.is_there() {
        return Err(log::no_audit(&name));
    }
    let since = args.since.and_then(|age| SystemTime::now().checked_sub(age));
    let mut seen = collect::Seen::default();
    tail.more(|entry| {
        if let Entry::Line(line) = entry
            && log::is_since(&line, since)
        {
            seen.add(&line);
        }
        Ok(true)
    })?;
    let proposal = propose::propose(&name, &seen);
    if args.json {
        json(&proposal)?;
    } else {
        data(&propose::text(&proposal))?;
    }
    Ok(0)
}
