//! `cellblock agent`: the agents that are known.

use serde::Serialize;

use crate::agents::{self, Agent, Search};
use crate::args::values::{nearest, word};
use crate::commands::agent_state;
use crate::config::{self, StatePath};
use crate::output::{data, json, plain, table};
use crate::place;
use crate::report::CliError;
use crate::resolve::{HostFacts, HostFiles, ImageFacts, Steady};

/// Show the agents that cellblock knows
///
/// Each is a file of data: its program, how it is installed, the flags that make it act without asking, its files at home and how a cell sees
/// them, the variables and hosts it needs. `agents:` in the configuration changes them and adds others.
#[derive(clap::Args, Debug)]
#[command(
    arg_required_else_help = true,
    subcommand_required = true,
    after_help = "Examples:
  cellblock agent list
  cellblock agent show claude-code
  cellblock agent reset claude --keep-history
  cellblock agent list --json | jq -r '.[] | select(.found) | .name'"
)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand, Debug)]
enum Command {
    /// List them, and where this host has each
    #[command(visible_alias = "ls")]
    List {
        /// Print them as JSON
        #[arg(long)]
        json: bool,
    },
    /// Show everything that is known about one
    Show {
        /// Its name, or its program's
        name: String,
        /// Print it as JSON
        #[arg(long)]
        json: bool,
    },
    /// List what cells of projects keep of agents' state
    State {
        /// The agent's name, or its program's; without it all
        name: Option<String>,
        /// Print it as JSON
        #[arg(long)]
        json: bool,
    },
    /// Drop what a project's cells keep of an agent's state
    ///
    /// The next cell begins with what the host has. Without --project the project of the current folder is meant.
    Reset {
        /// The agent's name, or its program's
        name: String,
        /// Another project: a folder in it, an id as `agent state` shows it, or `none`
        #[arg(long, value_name = "DIR|ID", conflicts_with = "all")]
        project: Option<String>,
        /// All projects
        #[arg(long)]
        all: bool,
        /// Leave transcripts and the like: only settings are taken from the host anew
        #[arg(long)]
        keep_history: bool,
        /// Print what was dropped as JSON
        #[arg(long)]
        json: bool,
    },
}

/// A row for programs.
#[derive(Serialize)]
struct Row {
    name: String,
    title: String,
    programs: Vec<String>,
    /// Where this host has it.
    found: Option<String>,
}

pub(crate) fn run(args: &Args) -> Result<i32, CliError> {
    let host = place::host()?;
    let config = config::load(&place::config_file(&host))?;
    match &args.command {
        Command::State { name, json } => return agent_state::list(name.as_deref(), *json, &host),
        Command::Reset { name, project, all, keep_history, json } => {
            let (project, all, keep_history) = (project.as_deref(), *all, *keep_history);
            return agent_state::reset(&agent_state::Which { agent: name, project, all, keep_history }, *json, &host);
        }
        Command::List { json: as_json } => {
            let rows: Vec<Row> = agents::all(&config)?.iter().map(|agent| row(agent, &host)).collect();
            if *as_json {
                json(&rows)?;
            } else {
                let text = |row: &Row| {
                    let found = row.found.clone().unwrap_or_else(|| "-".into());
                    vec![row.name.clone(), plain(&row.title), row.programs.join(", "), plain(&found)]
                };
                data(&table(&["NAME", "AGENT", "PROGRAM", "ON THIS HOST"], rows.iter().map(text).collect()))?;
            }
        }
        Command::Show { name, json: as_json } => {
            let Some(agent) = agents::find(name, &config)? else {
                let known: Vec<String> = agents::all(&config)?.into_iter().map(|agent| agent.name).collect();
                let hint = match nearest(name, known.iter().map(String::as_str)) {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => {
                        "`cellblock agent list` has those that are known; `agents:` in the configuration adds others"
                            .to_owned()
                    }
                };
                return Err(CliError::plain(format!("no agent is called {name:?}"), &hint));
            };
            show(&agent, &host, *as_json)?;
        }
    }
    Ok(0)
}

/// Where this host has the agent's program.
fn found(agent: &Agent, host: &HostFacts) -> Option<String> {
    let nothing = ImageFacts { name: String::new(), visible: None };
    let search = Search::on(&nothing, Steady { files: &HostFiles, host, project: None });
    search.find(&agent.programs()).map(|found| found.program)
}

fn row(agent: &Agent, host: &HostFacts) -> Row {
    Row {
        name: agent.name.clone(),
        title: agent.title().to_owned(),
        programs: agent.programs().into_iter().map(str::to_owned).collect(),
        found: found(agent, host),
    }
}

/// An agent for programs.
#[derive(Serialize)]
struct Document<'a> {
    #[serde(flatten)]
    row: Row,
    #[serde(flatten)]
    spec: &'a config::AgentSpec,
    #[serde(skip_serializing_if = "Option::is_none")]
    shipped: Option<&'a config::Settings>,
    #[serde(skip_serializing_if = "Option::is_none")]
    configured: Option<&'a config::Settings>,
}

fn show(agent: &Agent, host: &HostFacts, as_json: bool) -> Result<(), CliError> {
    if as_json {
        let spec = config::AgentSpec { title: None, programs: None, ..agent.spec.clone() };
        let (shipped, configured) = (agent.shipped.as_ref(), agent.own.as_ref());
        return json(&Document { row: row(agent, host), spec: &spec, shipped, configured });
    }
    let mut rows: Vec<(String, String)> = Vec::new();
    let mut add = |key: &str, value: String| rows.push((key.to_owned(), value));
    add("name", agent.name.clone());
    add("agent", agent.title().to_owned());
    add("program", agent.programs().join(", "));
    add("on this host", found(agent, host).unwrap_or_else(|| "not found".into()));
    for (way, text) in &agent.spec.install {
        add("install", format!("{way}: {}", text.value));
    }
    let words = |list: &Option<Vec<config::Located<String>>>| {
        list.iter().flatten().map(|said| said.value.clone()).collect::<Vec<_>>().join(" ")
    };
    add(
        "without asking",
        if agent.spec.asks.as_ref().is_some_and(|asks| asks.value) {
            "no".into()
        } else {
            words(&agent.spec.unattended)
        },
    );
    add("variables passed", words(&agent.spec.pass_env));
    for settings in [&agent.shipped, &agent.own].into_iter().flatten() {
        for entry in &settings.env {
            add("variable", entry.value.to_string());
        }
        for rule in settings.allow.iter().flatten() {
            add("may reach", rule.value.to_string());
        }
    }
    for one in &agent.spec.state {
        add("state", state(one));
    }
    for one in &agent.spec.login {
        add("login", state(one));
    }
    if let Some(path) = &agent.spec.instructions {
        add("instructions", path.value.clone());
    }
    for seed in agent.spec.seeds.iter().flatten() {
        add("says already", format!("{}: {}", seed.path.value, seed.keys));
    }
    let rows = rows.into_iter().filter(|(_, value)| !value.is_empty()).map(|(key, value)| vec![key, plain(&value)]);
    data(&table(&["WHAT", "VALUE"], rows.collect()))
}

fn state(one: &StatePath) -> String {
    one.mode
        .as_ref()
        .map_or_else(|| one.path.value.clone(), |mode| format!("{} ({})", one.path.value, word(mode.value)))
}
