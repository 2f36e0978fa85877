//! `cellblock net log`.

use std::collections::VecDeque;
use std::time::{Duration, SystemTime};

use cellblock_egress::audit::{Line, Verdict};

use super::pause::{Pause, Woken};
use super::read::{Entry, Tail};
use super::{duration, which, words};
use crate::output::{Style, data_while_read, say};
use crate::place;
use crate::report::CliError;
use crate::resolve::HostFacts;

/// Print what a cell's network has decided
///
/// Times are in UTC. Repeated refusals are counted: `(12 more)` says how many there were since the first.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  cellblock net log                            all that the cell of this project decided
  cellblock net log -f --denied                refusals as they happen
  cellblock net log --since 10m demo-main-claude
  cellblock net log --json | jq -r 'select(.verdict == \"deny\").name' | sort | uniq -c")]
pub(crate) struct Args {
    /// Go on with what is decided from now on, until Ctrl-C
    #[arg(short = 'f', long)]
    pub(super) follow: bool,
    /// Print JSON, a line for each decision
    #[arg(long)]
    pub(super) json: bool,
    /// Print only what was refused
    #[arg(long)]
    pub(super) denied: bool,
    /// Print only what is younger, such as 30s, 10m, 2h
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub(super) since: Option<Duration>,
    /// Print only the last ones of what there is
    #[arg(short = 'n', long = "lines", value_name = "NUMBER")]
    pub(super) lines: Option<usize>,
    /// The cell; it may have ended [default: the cell of this project that runs, or ran last]
    #[arg(value_name = "PROJECT|CELL")]
    pub(super) cell: Option<String>,
}

/// Which lines are printed, and how.
#[derive(Debug)]
pub(super) struct Printer {
    json: bool,
    style: Style,
    denied: bool,
    since: Option<SystemTime>,
    unreadable: u64,
}

impl Printer {
    fn new(args: &Args) -> Self {
        let since = args.since.and_then(|age| SystemTime::now().checked_sub(age));
        Self { json: args.json, style: Style::stdout(), denied: args.denied, since, unreadable: 0 }
    }

    /// What is to be printed for an entry.
    fn text(&mut self, entry: Entry) -> Option<String> {
        let Entry::Line(line) = entry else {
            self.unreadable += 1;
            return None;
        };
        if self.denied && line.verdict != Verdict::Deny || !is_since(&line, self.since) {
            return None;
        }
        Some(if self.json { words::json(&line) } else { words::line(&line, self.style) + "\n" })
    }

    /// Says once what could not be read.
    fn tell_unreadable(&mut self) {
        match std::mem::take(&mut self.unreadable) {
            0 => {}
            1 => say("cellblock: a line of the audit is damaged and left out"),
            n => say(&format!("cellblock: {n} lines of the audit are damaged and left out")),
        }
    }
}

/// Whether a line is young enough. One whose time cannot be read is not held back.
pub(super) fn is_since(line: &Line, since: Option<SystemTime>) -> bool {
    since.is_none_or(|since| humantime::parse_rfc3339(&line.time).map_or(true, |time| time >= since))
}

pub(super) fn run(args: &Args, host: &HostFacts) -> Result<i32, CliError> {
    let name = which::audited(args.cell.as_deref(), host)?;
    let path = place::dirs(host).audit(&name);
    let mut tail = Tail::from_start(&path)?;
    if !tail.is_there() && !args.follow {
        return Err(no_audit(&name));
    }
    let mut printer = Printer::new(args);
    let goes_on = match args.lines {
        None => print(&mut tail, &mut printer)?,
        Some(most) => data_while_read(&last(&mut tail, &mut printer, most)?)?,
    };
    printer.tell_unreadable();
    if !goes_on || !args.follow {
        return Ok(0);
    }
    if !tail.is_there() {
        say(&format!("cellblock: nothing is written about the cell {name} yet; waiting"));
    }
    follow(&mut tail, &mut printer)
}

/// How much text is written at a time.
const PIECE: usize = 64 << 10;

/// Prints what there is to read; whether anybody still reads what is printed.
fn print(tail: &mut Tail, printer: &mut Printer) -> Result<bool, CliError> {
    let mut piece = String::new();
    let goes_on = tail.more(|entry| {
        piece.extend(printer.text(entry));
        Ok(piece.len() < PIECE || data_while_read(&std::mem::take(&mut piece))?)
    })?;
    Ok(goes_on && data_while_read(&piece)?)
}

/// The last lines of what there is to read.
fn last(tail: &mut Tail, printer: &mut Printer, most: usize) -> Result<String, CliError> {
    let mut kept = VecDeque::new();
    tail.more(|entry| {
        kept.extend(printer.text(entry));
        if kept.len() > most {
            kept.pop_front();
        }
        Ok(true)
    })?;
    Ok(kept.into_iter().collect())
}

/// That there is nothing to read.
pub(super) fn no_audit(name: &str) -> CliError {
    CliError::plain(
        format!("there is no audit of a cell named `{name}`"),
        "only a cell with a network by names (`--net names`) has one; `-f` waits for it",
    )
}

/// Prints what comes until somebody ends it.
fn follow(tail: &mut Tail, printer: &mut Printer) -> Result<i32, CliError> {
    let pause = Pause::new();
    loop {
        if pause.next(false)? == Woken::Closed {
            return Ok(0);
        }
        let goes_on = print(tail, printer)?;
        printer.tell_unreadable();
        if !goes_on {
            return Ok(0);
        }
    }
}

/// What `net watch` is where nobody can answer: refusals from now on.
pub(super) fn follow_denials(name: &str, host: &HostFacts) -> Result<i32, CliError> {
    let mut tail = Tail::from_end(&place::dirs(host).audit(name))?;
    let mut printer = Printer { json: false, style: Style::stdout(), denied: true, since: None, unreadable: 0 };
    follow(&mut tail, &mut printer)
}
