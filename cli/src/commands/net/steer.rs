//! `cellblock net allow`, `net deny` and `net forget`.

use std::time::Duration;

use cellblock_egress::control::{Reply, Request, Show};
use cellblock_egress::name::Pattern;
use cellblock_egress::policy::{Entry, Policy, Rule, Target, Written};
use cellblock_runtime::state::Found;

use super::saved::{self, Kept, Kind};
use super::words::shown;
use super::{duration, which};
use crate::output::say;
use crate::report::CliError;
use crate::resolve::HostFacts;
use crate::{place, project};

/// Let a running cell reach more
///
/// It counts at once and for as long as the cell lives, unless `--for` or `--save` says otherwise. Rules that deny still beat it.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  cellblock net allow example.com                     ports 80 and 443
  cellblock net allow example.com:22 --for 10m
  cellblock net allow '*.example.com:all' --save      from now on, for every cell of this project
  cellblock net allow 'GET https://pypi.org/simple/**' demo-main-sh
  cellblock net allow host:3000                       a service of this machine
  cellblock net allow @npm                            a named set")]
pub(crate) struct AllowArgs {
    /// What: HOST[:PORTS], *.HOST, ADDRESS/BITS[:PORTS], host:PORT, 'GET https://HOST/PATH/**' or @SET
    #[arg(value_name = "RULE")]
    rule: String,
    /// The cell [default: the one of this project]
    #[arg(value_name = "PROJECT|CELL")]
    cell: Option<String>,
    /// Only for so long, such as 30s, 10m, 2h
    #[arg(long = "for", value_name = "TIME", value_parser = duration, conflicts_with = "save")]
    time: Option<Duration>,
    /// Keep it for every later cell of the project too
    #[arg(long)]
    save: bool,
}

/// Let a running cell reach less
///
/// It beats every rule that allows, and connections that go there now are cut. Without ports it is about all of them.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  cellblock net deny tracker.example
  cellblock net deny '*.tracker.example' --save
  cellblock net deny 203.0.113.0/24 demo-main-claude")]
pub(crate) struct DenyArgs {
    /// What not: HOST[:PORTS], *.HOST, ADDRESS/BITS[:PORTS], host:PORT or @SET
    #[arg(value_name = "RULE")]
    rule: String,
    /// The cell [default: the one of this project]
    #[arg(value_name = "PROJECT|CELL")]
    cell: Option<String>,
    /// Keep it for every later cell of the project too
    #[arg(long)]
    save: bool,
}

/// Remove a rule that was kept with `--save`
///
/// Cells that run keep what they have.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  cellblock net forget example.com
  cellblock net forget '*.tracker.example'")]
pub(crate) struct ForgetArgs {
    /// The rule, whether it allows or denies
    #[arg(value_name = "RULE")]
    rule: String,
}

/// A change that is to be made.
#[derive(Debug)]
pub(super) struct Change {
    pub(super) kind: Kind,
    pub(super) entry: Entry,
    pub(super) origin: &'static str,
    pub(super) time: Option<Duration>,
}

pub(super) fn allow(args: &AllowArgs, host: &HostFacts) -> Result<i32, CliError> {
    let entry = entry(&args.rule, Kind::Allow)?;
    let change = Change { kind: Kind::Allow, entry, origin: "net allow", time: args.time };
    steer(&change, args.cell.as_deref(), args.save, host)
}

pub(super) fn deny(args: &DenyArgs, host: &HostFacts) -> Result<i32, CliError> {
    let entry = entry(&args.rule, Kind::Deny)?;
    let change = Change { kind: Kind::Deny, entry, origin: "net deny", time: None };
    steer(&change, args.cell.as_deref(), args.save, host)
}

pub(super) fn forget(args: &ForgetArgs, host: &HostFacts) -> Result<i32, CliError> {
    let entry: Entry = args.rule.parse().map_err(|e| wrong_rule(&e))?;
    let path = place::rules_file(host, &project::find(&host.cwd, host.uid, false)?.id);
    if saved::forget(&path, &entry)? == 0 {
        return Err(CliError::plain(
            format!("the rule `{entry}` is not kept for this project"),
            &format!("the rules that are kept stand in {}", path.display()),
        ));
    }
    say(&format!("Forgotten for cells that start from now on: {entry}"));
    Ok(0)
}

/// Reads a rule. Whatever is wrong with it is an error before anything is sent or written.
fn entry(text: &str, kind: Kind) -> Result<Entry, CliError> {
    let entry: Entry = text.parse().map_err(|e| wrong_rule(&e))?;
    let (origin, allow) = match kind {
        Kind::Allow => ("net allow", true),
        Kind::Deny => ("net deny", false),
    };
    let written = [Written { entry: entry.clone(), origin: origin.to_owned() }];
    let checked = if allow { Policy::new(&written, &[]) } else { Policy::new(&[], &written) };
    checked.map_err(|e| wrong_rule(&e))?;
    Ok(entry)
}

fn wrong_rule(error: &dyn std::error::Error) -> CliError {
    CliError::plain(
        error.to_string(),
        "`cellblock net allow --help` shows rules; one with blanks or a `*` is put in quotes: 'GET https://example.com/**'",
    )
}

fn steer(change: &Change, cell: Option<&str>, save: bool, host: &HostFacts) -> Result<i32, CliError> {
    let found = which::running(cell, host)?;
    let Some(found) = found else {
        if !save || cell.is_some() {
            return Err(nowhere(change, cell));
        }
        let facts = project::find(&host.cwd, host.uid, false)?;
        keep(change, &facts.id, &facts.name, host)?;
        say("No cell of this project is running: it counts from the next start on.");
        return Ok(0);
    };
    let name = &found.record.cell.name;
    let project = found.record.cell.project.as_ref();
    if save && project.is_none() {
        return Err(CliError::plain(
            format!("the cell `{name}` has no project to keep a rule for"),
            "without `--save` the rule counts for as long as the cell lives",
        ));
    }
    // A cell that was started without such a network is no reason not to keep a rule.
    if save && !place::dirs(host).network_socket(name).exists() {
        say(&format!("The cell {name} has no network by names: it counts from the next start on."));
    } else {
        say(&send(change, &found, host)?);
    }
    if let Some(project) = project.filter(|_| save) {
        keep(change, &project.id, &project.name, host)?;
    }
    if change.kind == Kind::Allow {
        warn_of_denials(&change.entry, &found, host);
    }
    Ok(0)
}

/// That no cell can be steered, with what would help.
fn nowhere(change: &Change, cell: Option<&str>) -> CliError {
    match cell {
        Some(word) if word.parse::<Entry>().is_ok() && word.contains(['.', '@', ':', '/']) => CliError::plain(
            format!("no cell or project named `{word}` is running"),
            "one rule at a time: the word after it names a cell",
        ),
        Some(_) => which::not_running(cell),
        None => {
            let word = if change.kind == Kind::Allow { "allow" } else { "deny" };
            let entry = &change.entry;
            CliError::plain(
                "no cell of this project is running",
                &format!(
                    "`cellblock net {word} '{entry}' --save` keeps it for the next; `cellblock status` lists what runs"
                ),
            )
        }
    }
}

/// Sends a change to a running cell; what was done, in words.
pub(super) fn send(change: &Change, found: &Found, host: &HostFacts) -> Result<String, CliError> {
    let entry = change.entry.clone();
    let origin = change.origin.to_owned();
    let request = match change.kind {
        Kind::Allow => Request::Allow { entry, origin, seconds: change.time.map(|t| t.as_secs()) },
        Kind::Deny => Request::Deny { entry, origin },
    };
    let name = &found.record.cell.name;
    let cut = match which::ask_cell(found, &request, host)? {
        Reply::Done { cut } => cut,
        other => return Err(which::refused(name, &other)),
    };
    let entry = &change.entry;
    let time = change.time.map(|t| format!(" for {}", humantime::format_duration(t))).unwrap_or_default();
    Ok(match (change.kind, cut) {
        (Kind::Allow, _) => format!("The cell {name} may now reach {entry}{time}."),
        (Kind::Deny, 0) => format!("The cell {name} can no longer reach {entry}."),
        (Kind::Deny, 1) => format!("The cell {name} can no longer reach {entry}; a connection was cut."),
        (Kind::Deny, n) => format!("The cell {name} can no longer reach {entry}; {n} connections were cut."),
    })
}

/// Keeps a rule for a project, and says so.
pub(super) fn keep(change: &Change, project: &str, name: &str, host: &HostFacts) -> Result<(), CliError> {
    let path = place::rules_file(host, project);
    let kept = saved::keep(&path, change.kind, &change.entry)?;
    let entry = &change.entry;
    let other = if change.kind == Kind::Allow { "denied" } else { "allowed" };
    let path = path.display();
    say(&match kept {
        Kept::New => format!("Kept for the project {name}: {entry} (in {path})"),
        Kept::Already => format!("It was kept for the project {name} already: {entry} (in {path})"),
        Kept::Turned => format!("Kept for the project {name}, which {other} it until now: {entry} (in {path})"),
    });
    Ok(())
}

/// Says which rule still beats the one that was added: best effort, for the change has been made.
fn warn_of_denials(entry: &Entry, found: &Found, host: &HostFacts) {
    let Ok(Reply::Show(show)) = which::ask_cell(found, &Request::Show, host) else { return };
    for (rule, origin) in beaten_by(entry, &show) {
        say(&format!("cellblock: a rule that denies still beats it: {} ({})", shown(&rule), shown(&origin)));
    }
}

/// The rules that deny all or part of what a rule for one name allows.
fn beaten_by(entry: &Entry, show: &Show) -> Vec<(String, String)> {
    let Entry::Rule(Rule { target: Target::Names(Pattern::Exact(name)), .. }) = entry else { return Vec::new() };
    let about = |text: &str| matches!(text.parse(), Ok(Entry::Rule(rule)) if rule.is_about(name));
    show.deny.iter().filter(|d| about(&d.rule)).map(|d| (d.rule.clone(), d.origin.clone())).collect()
}

#[cfg(test)]
mod tests {
    use cellblock_egress::control::Shown;

    use super::*;

    #[test]
    fn wrong_rules_are_told_in_the_languages_words() {
        let message = |text, kind| entry(text, kind).expect_err(text).to_string();
        assert!(message("a b.com", Kind::Allow).contains("private"));
        assert!(message("@nowhere", Kind::Allow).contains("there is no set @nowhere"));
        assert!(message("GET https://example.com/x", Kind::Deny).contains("not about single requests"));
        assert!(entry("GET https://example.com/x", Kind::Allow).is_ok());
        assert!(entry("@npm", Kind::Deny).is_ok());
    }

    #[test]
    fn a_denial_that_beats_the_new_rule_is_found() {
        let shown = |rule: &str| Shown { rule: rule.into(), origin: "config.yaml:2".into(), seconds: None };
        let show = Show { deny: vec![shown("*.example.com"), shown("other.org")], ..Show::default() };
        let found = |rule: &str| beaten_by(&rule.parse().expect("a rule"), &show).len();
        assert_eq!(found("a.example.com:443"), 1);
        assert_eq!(found("example.com"), 0);
        assert_eq!(found("@npm"), 0);
    }
}
