//! `cellblock status`.

use serde::Serialize;

use crate::args::values::word;
use crate::commands;
use crate::output::{data, json, plain, say, table};
use crate::place;
use crate::report::CliError;

/// List the cells that run
#[derive(clap::Args, Debug)]
#[command(
    visible_alias = "ps",
    after_help = "Examples:
  cellblock status
  cellblock status --json | jq -r '.[].name'"
)]
pub(crate) struct Args {
    /// Print them as JSON
    #[arg(long)]
    json: bool,
    /// Print only the names
    #[arg(short = 'q', long, conflicts_with = "json")]
    quiet: bool,
}

/// A row for programs.
#[derive(Serialize)]
struct Row {
    name: String,
    state: &'static str,
    pid: Option<i32>,
    supervisor: i32,
    started: u64,
    image: String,
    profile: cellblock_bundle::Profile,
    network: &'static str,
    project: Option<cellblock_bundle::Project>,
    labels: std::collections::BTreeMap<String, String>,
    command: Vec<String>,
}

pub(crate) fn run(args: &Args) -> Result<i32, CliError> {
    let host = place::host()?;
    let rows: Vec<Row> = commands::heal(&place::dirs(&host))?
        .into_iter()
        .map(|found| Row {
            state: if found.running.is_some() { "running" } else { "starting" },
            pid: found.running.map(|r| r.init),
            supervisor: found.record.supervisor,
            started: found.record.started,
            name: found.record.cell.name,
            image: found.record.cell.image,
            profile: found.record.cell.profile,
            network: word(found.record.cell.network),
            project: found.record.cell.project,
            labels: found.record.cell.labels,
            command: found.record.cell.command,
        })
        .collect();
    if args.json {
        json(&rows)?;
    } else if args.quiet {
        data(&rows.iter().map(|r| format!("{}\n", r.name)).collect::<String>())?;
    } else if rows.is_empty() {
        say("No cell is running.");
    } else {
        let text = |r: &Row| {
            let project = r.project.as_ref().map(|p| p.name.clone()).unwrap_or_default();
            vec![
                r.name.clone(),
                r.state.into(),
                commands::ago(r.started),
                r.image.clone(),
                r.network.into(),
                project,
                plain(&r.command.join(" ")),
            ]
        };
        data(&table(
            &["NAME", "STATE", "AGE", "IMAGE", "NETWORK", "PROJECT", "COMMAND"],
            rows.iter().map(text).collect(),
        ))?;
    }
    Ok(0)
}
