//! `cellblock status`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use cellblock_runtime::state::{Foreign, Found, Left, Running, THIS_VERSION, kept};
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
  cellblock status --all                  those too that have ended and whose files are kept
  cellblock status --json | jq -r '.[].name'"
)]
pub(crate) struct Args {
    /// List also the cells that have ended and whose files are kept
    #[arg(short = 'a', long)]
    all: bool,
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
    supervisor: Option<i32>,
    /// When it was started, or first kept, in seconds since 1970.
    started: u64,
    /// Of the cellblock that has started it.
    version: Option<String>,
    /// These four, and the labels, are `null` where another version has started it; of what is kept at most the image is known.
    image: Option<String>,
    profile: Option<cellblock_bundle::Profile>,
    network: Option<&'static str>,
    command: Option<Vec<String>>,
    project: Option<Project>,
    labels: Option<BTreeMap<String, String>>,
}

/// Where it works.
#[derive(Serialize)]
struct Project {
    id: String,
    name: String,
    root: PathBuf,
    branch: Option<String>,
}

impl From<Found> for Row {
    fn from(found: Found) -> Self {
        let (record, cell) = (&found.record, found.record.cell.clone());
        Self {
            name: cell.name,
            state: state(found.running),
            pid: found.running.map(|r| r.init),
            supervisor: Some(record.supervisor),
            started: record.started,
            version: Some(record.version.clone()),
            image: Some(cell.image),
            profile: Some(cell.profile),
            network: Some(word(cell.network)),
            command: Some(cell.command),
            project: cell.project.map(|p| Project { id: p.id, name: p.name, root: p.root, branch: p.branch }),
            labels: Some(cell.labels),
        }
    }
}

impl From<Foreign> for Row {
    fn from(found: Foreign) -> Self {
        let record = found.record;
        Self {
            name: found.name,
            state: state(found.running),
            pid: found.running.map(|r| r.init),
            supervisor: Some(record.supervisor),
            started: record.started,
            version: record.version,
            image: None,
            profile: None,
            network: None,
            command: None,
            project: record.cell.project.map(|p| Project { id: p.id, name: p.name, root: p.root, branch: None }),
            labels: None,
        }
    }
}

impl From<Left> for Row {
    fn from(left: Left) -> Self {
        Self {
            name: left.name,
            state: KEPT,
            pid: None,
            supervisor: None,
            started: left.since,
            version: None,
            image: left.over.map(|over| over.image),
            profile: None,
            network: None,
            command: None,
            project: None,
            labels: None,
        }
    }
}

const KEPT: &str = "kept";

fn state(running: Option<Running>) -> &'static str {
    if running.is_some() { "running" } else { "starting" }
}

impl Row {
    /// The same for people.
    fn words(&self) -> Vec<String> {
        let image = self.image.as_deref().unwrap_or("?");
        let project = self.project.as_ref().map(|p| p.name.clone()).unwrap_or_default();
        let command = match (&self.command, &self.version) {
            (Some(command), _) => command.join(" "),
            _ if self.state == KEPT => String::new(),
            (None, Some(version)) if version != THIS_VERSION => format!("(started by cellblock {version})"),
            (None, _) => "(started by another version of cellblock)".into(),
        };
        let network = self.network.unwrap_or(if self.state == KEPT { "" } else { "?" });
        vec![
            self.name.clone(),
            self.state.into(),
            commands::ago(self.started),
            image.into(),
            network.into(),
            project,
            plain(&command),
        ]
    }
}

pub(crate) fn run(args: &Args) -> Result<i32, CliError> {
    let host = place::host()?;
    let dirs = place::dirs(&host);
    let cells = commands::healed(&dirs)?;
    let foreign = cells.foreign.into_iter().map(Row::from);
    let mut rows: Vec<Row> = cells.alive.into_iter().map(Row::from).chain(foreign).collect();
    if args.all {
        rows.extend(kept(&dirs)?.into_iter().map(Row::from));
    }
    rows.sort_by(|a, b| a.name.cmp(&b.name));
    if args.json {
        json(&rows)?;
    } else if args.quiet {
        data(&rows.iter().map(|r| format!("{}\n", r.name)).collect::<String>())?;
    } else if rows.is_empty() {
        say(if args.all { "No cell is running, and nothing is kept of any." } else { "No cell is running." });
    } else {
        data(&table(
            &["NAME", "STATE", "AGE", "IMAGE", "NETWORK", "PROJECT", "COMMAND"],
            rows.iter().map(Row::words).collect(),
        ))?;
    }
    Ok(0)
}
