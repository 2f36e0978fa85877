//! `cellblock net show`.

use cellblock_egress::control::{Reply, Request, Show, Shown};
use serde::Serialize;

use super::which;
use super::words::shown;
use crate::output::{Style, data, json, table};
use crate::report::CliError;
use crate::resolve::HostFacts;

/// Print what a running cell may reach, and where each rule comes from
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  cellblock net show
  cellblock net show --json demo-main-claude | jq -r '.allow[].rule'")]
pub(crate) struct Args {
    /// Print it as JSON
    #[arg(long)]
    json: bool,
    /// The cell [default: the one of this project]
    #[arg(value_name = "PROJECT|CELL")]
    cell: Option<String>,
}

/// The answer for programs.
#[derive(Serialize)]
struct Document<'a> {
    name: &'a str,
    #[serde(flatten)]
    show: &'a Show,
}

pub(super) fn run(args: &Args, host: &HostFacts) -> Result<i32, CliError> {
    let found = which::must_run(args.cell.as_deref(), host)?;
    let name = &found.record.cell.name;
    let show = match which::ask_cell(&found, &Request::Show, host)? {
        Reply::Show(show) => show,
        other => return Err(which::refused(name, &other)),
    };
    if args.json {
        json(&Document { name, show: &show })?;
    } else {
        data(&text(name, &show, Style::stdout()))?;
    }
    Ok(0)
}

fn text(name: &str, show: &Show, style: Style) -> String {
    let counted = |n: u64, one: &str, many: &str| format!("{n} {}", if n == 1 { one } else { many });
    let mut text = String::new();
    let mut fact = |key: &str, value: &str| text += &format!("{} {}\n", style.bold(&format!("{key:<9}")), shown(value));
    fact("cell", name);
    fact("capture", &show.capture);
    let connections = counted(show.connections, "open connection", "open connections");
    fact("now", &format!("{connections}, {}", counted(show.names, "name known", "names known")));
    fact("audit", &show.audit.display().to_string());
    if show.publish.is_empty() {
        fact("published", "nothing");
    }
    for port in &show.publish {
        fact("published", port);
    }
    text += "\n";
    text += &rules("ALLOWED", &show.allow).unwrap_or_else(|| "Nothing is allowed.\n".to_owned());
    if let Some(denied) = rules("DENIED", &show.deny) {
        text += &format!("\n{denied}");
    }
    text
}

/// `None` for no rules.
fn rules(title: &str, rules: &[Shown]) -> Option<String> {
    let rows = rules.iter().map(|rule| {
        let rest = rule.seconds.map_or_else(String::new, |s| format!("{s} s more"));
        vec![shown(&rule.rule), shown(&rule.origin), rest]
    });
    (!rules.is_empty()).then(|| table(&[title, "FROM", ""], rows.collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_in_force_is_shown_with_its_origin() {
        let rule = |rule: &str, origin: &str, seconds| Shown { rule: rule.into(), origin: origin.into(), seconds };
        let show = Show {
            capture: "a listener on each of 2 ports".into(),
            rung: None,
            allow: vec![rule("example.com", "config.yaml:3", None), rule("x.org:22", "net allow", Some(50))],
            deny: vec![rule("evil\u{1b}[2J", "net deny", None)],
            publish: vec!["127.0.0.1:8080:80".into()],
            connections: 1,
            names: 2,
            audit: "/a/c.jsonl".into(),
        };
        let text = text("c", &show, Style::plain());
        for part in [
            "config.yaml:3",
            "x.org:22",
            "50 s more",
            "evil\\u{1b}[2J",
            "8080:80",
            "1 open connection, 2 names",
            "/a/c.jsonl",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert!(!text.contains('\u{1b}'), "{text}");
    }

    #[test]
    fn an_empty_policy_is_said() {
        let text = text("c", &Show::default(), Style::plain());
        assert!(text.contains("Nothing is allowed") && !text.contains("DENIED"), "{text}");
    }
}
