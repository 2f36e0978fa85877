//! `cellblock doctor`: what this host can do, found out by doing it, and how to mend what it cannot.

use std::path::Path;
use std::process::{Command, Stdio};

use cellblock_runtime::probe::{self, Facts, Finding, State};
use cellblock_sys::process::SingleThreaded;
use serde::Serialize;

use crate::args::values::Userns;
use crate::output::{Style, data, json, plain};
use crate::place;
use crate::report::CliError;
use crate::resolve::{HostFacts, ids_for};

/// Say what this host can do, what it lacks, what that costs, and how to mend it
///
/// The checks try the real thing in throw-away processes and change nothing, but that cellblock's own folders may be made. The exit code is 0
/// if cells can start and 1 if not.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  cellblock doctor
  cellblock doctor --json | jq '.checks[] | select(.state != \"ok\")'
  cellblock doctor --fix-script | less")]
pub(crate) struct Args {
    /// Print the results as JSON
    #[arg(long)]
    json: bool,
    /// Print a shell script with what would mend this host; read it before you run it
    #[arg(long, conflicts_with = "json")]
    fix_script: bool,
}

/// The JSON document; docs/doctor.md describes it.
#[derive(Serialize)]
struct Report {
    /// Grows when something is renamed or removed.
    version: u32,
    can_start: bool,
    mode: &'static str,
    checks: Vec<Finding>,
}

/// Does what was typed; 0 if cells can start, else 1.
pub(crate) fn run(args: &Args) -> Result<i32, CliError> {
    let host = place::host()?;
    let facts = facts(&host)?;
    let alone = SingleThreaded::prove().map_err(|source| CliError::Process { what: "cannot try things", source })?;
    let mut checks = probe::run(&facts, &alone);
    // With the cause known, its consequence says nothing new.
    if can_start(&checks) {
        checks.push(start(&facts.program));
    }
    let report = Report { version: 1, can_start: can_start(&checks), mode: mode(&facts, &checks), checks };
    if args.json {
        json(&report)?;
    } else if args.fix_script {
        data(&script(&report))?;
    } else {
        data(&text(&report, Style::stdout()))?;
    }
    Ok(i32::from(!report.can_start))
}

fn can_start(checks: &[Finding]) -> bool {
    checks.iter().all(|check| check.state != State::Missing)
}

fn mode(facts: &Facts, checks: &[Finding]) -> &'static str {
    let range = checks.iter().any(|c| c.id == "subordinate-ids" && c.state == State::Ok);
    match (facts.real_root, range) {
        (true, _) => "root",
        (false, true) => "rootless with an id range",
        (false, false) => "rootless with a single id",
    }
}

/// What the probes have to know of the person and the environment.
fn facts(host: &HostFacts) -> Result<Facts, CliError> {
    let ids = |userns| ids_for(None, host, userns, false).map(|(ids, _)| ids);
    let problem = |error: &dyn std::fmt::Display| CliError::Plain { message: error.to_string(), hint: None };
    let best = ids(Userns::Auto).map_err(|e| problem(&e))?;
    let single = if host.real_root { best.clone() } else { ids(Userns::Single).map_err(|e| problem(&e))? };
    let dirs = place::dirs(host);
    let variable = |name: &str| host.env.get(name).filter(|value| !value.is_empty());
    Ok(Facts {
        uid: host.uid,
        user: host.user.clone(),
        real_root: host.real_root,
        range: (!host.real_root && best.has_range()).then_some(best),
        single,
        subuids: host.subuids.clone(),
        subgids: host.subgids.clone(),
        path: variable("PATH").into_iter().flat_map(|path| path.split(':')).map(Into::into).collect(),
        program: std::env::current_exe().unwrap_or_else(|_| "/usr/local/bin/cellblock".into()),
        data: dirs.data,
        runtime: dirs.runtime,
        xdg_runtime: variable("XDG_RUNTIME_DIR").map(Into::into),
        container: variable("container").cloned(),
    })
}

/// The whole way: a cell that runs `true`.
fn start(program: &Path) -> Finding {
    const ID: &str = "start";
    const TITLE: &str = "a cell";
    let name = format!("doctor-{}", rustix::process::getpid().as_raw_nonzero());
    let output = Command::new(program)
        .args(["run", "--no-project", "--image", "host", "--name", &name, "--rm", "--yes", "--", "true"])
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .output();
    let said = match output {
        Ok(output) if output.status.success() => return Finding::ok(ID, TITLE, "starts, runs `true`, is gone"),
        Ok(output) => String::from_utf8_lossy(&output.stderr).trim().replace('\n', "; "),
        Err(error) => error.to_string(),
    };
    Finding::lacks(ID, TITLE, State::Missing, said, "no cell can start, though each part of it works alone")
}

/// Width of the column of titles.
const TITLES: usize = 22;

fn text(report: &Report, style: Style) -> String {
    let mut text = String::new();
    for check in &report.checks {
        let mark = match check.state {
            State::Ok => "✓ ok      ".to_owned(),
            State::Degraded => style.bold("! degraded"),
            State::Missing => style.red("✗ missing "),
            State::Unknown => style.bold("? unknown "),
        };
        text += &format!("{mark}  {:<TITLES$}  {}\n", check.title, plain(&check.detail));
        let mut more = |what: &str, line: &str| {
            // Padded first: colour codes have a length but no width.
            let what = style.cyan(&format!("{what:>width$}", width = 12 + TITLES));
            text += &format!("{what}  {}\n", plain(line));
        };
        if let Some(cost) = check.cost {
            more("costs", cost);
        }
        let fix = check.fix.iter();
        for line in fix.clone().filter_map(|f| f.note.as_deref()) {
            more("mend", line);
        }
        for line in fix.filter_map(|f| f.script.as_deref()).flat_map(str::lines) {
            more("mend $", line);
        }
    }
    let yes = if report.can_start { "yes" } else { "no" };
    text + &format!("\ncells can start: {yes} ({})\n", report.mode)
}

/// The commands of all findings, each once, and what no command can do as comments.
fn script(report: &Report) -> String {
    let mut text = "#!/bin/sh\n\
        # What would mend this host for cellblock. Read it before you run it.\n\
        set -eu\n\
        sudo() { if [ \"$(id -u)\" = 0 ]; then \"$@\"; else command sudo \"$@\"; fi; }\n"
        .to_owned();
    let mut seen: Vec<&str> = Vec::new();
    for check in report.checks.iter().filter(|c| c.state != State::Ok) {
        let Some(fix) = &check.fix else { continue };
        text += &format!("\n# {}: {}\n", check.title, plain(&check.detail));
        for note in fix.note.iter().flat_map(|note| note.lines()) {
            text += &format!("# {}\n", plain(note));
        }
        if let Some(script) = fix.script.as_deref().filter(|script| !seen.contains(script)) {
            seen.push(script);
            text += script;
            text.push('\n');
        }
    }
    if seen.is_empty() {
        text += "\n# There is nothing to be done by commands.\n";
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        let degraded = |id| Finding::lacks(id, "a lack", State::Degraded, "not\nthere", "much");
        let checks = vec![
            Finding::ok("fine", "a thing", "works"),
            degraded("a").script("sudo make it\nagain").note("or move"),
            degraded("b").script("sudo make it\nagain"),
            degraded("c"),
        ];
        Report { version: 1, can_start: true, mode: "root", checks }
    }

    /// The tests may run on a terminal.
    fn without_colour(line: &str) -> String {
        let mut parts = line.split('\u{1b}');
        let first = parts.next().unwrap_or_default().to_owned();
        parts.fold(first, |text, part| text + part.split_once('m').map_or("", |(_, rest)| rest))
    }

    #[test]
    fn the_table_can_be_read_without_colour() {
        let text = text(&report(), Style::stdout());
        let lines: Vec<String> = text.lines().map(|l| without_colour(l).trim().to_owned()).collect();
        assert_eq!(
            lines[..6],
            [
                "✓ ok        a thing                 works",
                "! degraded  a lack                  not\\u{a}there",
                "costs  much",
                "mend  or move",
                "mend $  sudo make it",
                "mend $  again",
            ]
        );
        assert_eq!(lines.last().map(String::as_str), Some("cells can start: yes (root)"));
    }

    #[test]
    fn the_script_has_each_command_once_and_is_a_script() {
        let text = script(&report());
        assert_eq!(text.matches("\nsudo make it\nagain\n").count(), 1, "{text}");
        assert!(text.contains("# a lack: not\\u{a}there\n# or move\nsudo make it"), "{text}");
        let status = Command::new("sh").args(["-n", "-c", &text]).status().expect("sh");
        assert!(status.success(), "{text}");
        let nothing = Report { checks: vec![Finding::ok("a", "b", "c")], ..report() };
        assert!(script(&nothing).contains("nothing to be done"));
    }

    #[test]
    fn one_missing_part_is_enough() {
        let mut report = report();
        assert!(can_start(&report.checks));
        report.checks.push(Finding::lacks("x", "y", State::Missing, "z", "all"));
        assert!(!can_start(&report.checks));
    }

    #[test]
    fn the_json_has_stable_names() {
        let value = serde_json::to_value(report()).expect("json");
        assert_eq!(value["checks"][1]["fix"]["note"], "or move");
        assert_eq!(value["checks"][1]["state"], "degraded");
        assert!(value["checks"][0].get("cost").is_none() && value["checks"][0].get("fix").is_none());
        assert_eq!(value["version"], 1);
    }
}
