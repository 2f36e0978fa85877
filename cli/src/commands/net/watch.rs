//! `cellblock net watch`.

use std::io::Write;
use std::time::{Duration, Instant};

use cellblock_egress::control::{Reply, Request};
use cellblock_runtime::state::{self, Found};
use rustix::process::Signal;

use super::keys::{Keys, Typed};
use super::pause::{Pause, Woken};
use super::questions::{Answer, Question, Questions, is_pointless};
use super::read::{Entry, Tail};
use super::saved::Kind;
use super::steer::{Change, keep, send};
use super::{log, which, words};
use crate::output::{Style, say};
use crate::place;
use crate::report::{self, CliError};
use crate::resolve::HostFacts;

/// Watch what a cell's network decides, and answer refusals with a key
///
/// Of each new refusal it is asked whether it is to be allowed: for 60 seconds, for this cell, or always, which keeps the rule for the
/// project. The refused attempt itself has failed by then; the next one gets through. Names that look like data on its way out are shown
/// and not asked about. Without a terminal it prints refusals, as `net log -f --denied` does.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  cellblock net watch                      in a second pane, beside the agent
  cellblock net watch demo-main-claude
  cellblock net watch > refused.txt        what is refused from now on")]
pub(crate) struct Args {
    /// The cell [default: the one of this project]
    #[arg(value_name = "PROJECT|CELL")]
    cell: Option<String>,
}

/// How long `once` lasts.
const ONCE: Duration = Duration::from_secs(60);

/// Keys that come sooner after a question were meant for something else.
const GRACE: Duration = Duration::from_millis(300);

/// How often to see whether the cell still runs.
const ALIVE: Duration = Duration::from_secs(1);

pub(super) fn run(args: &Args, host: &HostFacts) -> Result<i32, CliError> {
    if !(host.stdin_terminal && host.stdout_terminal) {
        return log::follow_denials(&which::audited(args.cell.as_deref(), host)?, host);
    }
    let found = which::must_run(args.cell.as_deref(), host)?;
    let tail = Tail::from_end(&place::dirs(host).audit(&found.record.cell.name))?;
    // Signals first: one that came between the two would leave the terminal changed.
    let pause = Pause::with_signals()?;
    let keys = Keys::enter()?;
    let mut session = Session {
        host,
        found: &found,
        keys,
        style: Style::stdout(),
        questions: Questions::default(),
        asked: None,
        erase: "",
    };
    session.print(&format!("Watching the cell {}; q ends it.", found.record.cell.name));
    session.watch(tail, &pause)
}

/// One person at one terminal.
#[derive(Debug)]
struct Session<'a> {
    host: &'a HostFacts,
    found: &'a Found,
    keys: Keys,
    style: Style,
    questions: Questions,
    /// Since when the question stands at the bottom of the screen.
    asked: Option<Instant>,
    /// What takes it off.
    erase: &'static str,
}

impl Session<'_> {
    fn watch(&mut self, mut tail: Tail, pause: &Pause) -> Result<i32, CliError> {
        let mut seen = Instant::now();
        loop {
            match pause.next(true)? {
                Woken::Signal(signal) if signal == Signal::TSTP.as_raw() => self.stop()?,
                Woken::Signal(signal) if signal == Signal::CONT.as_raw() => {
                    self.keys.again()?;
                    self.hide();
                }
                Woken::Signal(signal) => {
                    self.hide();
                    return Ok(128 + signal);
                }
                Woken::Closed => return Ok(0),
                Woken::Time => {}
                Woken::Input => match self.keys.read() {
                    Typed::End => return Ok(0),
                    Typed::Key(b'q') => {
                        self.hide();
                        return Ok(0);
                    }
                    Typed::Key(key) => self.key(key),
                    Typed::Nothing => {}
                },
            }
            // Before reading: what was decided until the end must still be shown.
            let over = seen.elapsed() >= ALIVE && {
                seen = Instant::now();
                state::find(&place::dirs(self.host), &self.found.record.cell.name).is_err()
            };
            tail.more(|entry| {
                self.hear(entry);
                Ok(true)
            })?;
            if over {
                self.hide();
                say(&format!("The cell {} has ended.", self.found.record.cell.name));
                return Ok(0);
            }
            self.ask();
        }
    }

    fn hear(&mut self, entry: Entry) {
        let Entry::Line(line) = entry else {
            self.print("(a damaged line of the audit is left out)");
            return;
        };
        let odd = line.name.as_deref().and_then(super::names::oddity);
        let warning = odd.map(|odd| self.style.red(&format!("  this name may be data on its way out: {odd}")));
        self.print(&format!("{}{}", words::line(&line, self.style), warning.unwrap_or_default()));
        self.questions.hear(&line);
    }

    /// Shows the question that is next, if it does not stand there already.
    fn ask(&mut self) {
        if self.asked.is_some() {
            return;
        }
        self.drop_pointless();
        let Some(question) = self.questions.current() else { return };
        let columns = rustix::termios::tcgetwinsize(rustix::stdio::stdout()).map_or(80, |s| usize::from(s.ws_col));
        let others = self.questions.others();
        let (head, choices) = prompt(question, others, self.found.record.cell.project.is_some(), columns);
        // What is broken over lines by the terminal is not taken back, and stays.
        let fits = |text: &str| text.chars().count() < columns;
        let one = fits(&format!("{head} {choices}"));
        out(&format!("{}{}{choices}", self.style.bold(&head), if one { " " } else { "\n" }));
        self.erase = if !one && fits(&head) { "\r\x1b[K\x1b[A\x1b[K" } else { "\r\x1b[K" };
        self.keys.flush();
        self.asked = Some(Instant::now());
    }

    /// Goes on to a question whose answer would change something.
    fn drop_pointless(&mut self) {
        while let Some(question) = self.questions.current() {
            match which::ask_cell(self.found, &Request::Show, self.host) {
                Ok(Reply::Show(show)) if is_pointless(&question.entry, &show) => self.questions.drop_current(),
                _ => return,
            }
        }
    }

    /// Takes the question off the screen; it comes back.
    fn hide(&mut self) {
        if self.asked.take().is_some() {
            out(self.erase);
        }
    }

    fn print(&mut self, line: &str) {
        self.hide();
        out(&format!("{line}\n"));
    }

    fn key(&mut self, key: u8) {
        if self.asked.is_none_or(|since| since.elapsed() < GRACE) {
            return;
        }
        let Some(answer) = Answer::of(key) else { return };
        let project = self.found.record.cell.project.as_ref();
        if answer == Answer::Always && project.is_none() {
            return;
        }
        self.hide();
        let Some(question) = self.questions.answer(answer) else { return };
        if answer == Answer::Leave {
            self.print(&format!("Left denied: {}", question.rule));
            return;
        }
        let time = (answer == Answer::Once).then_some(ONCE);
        let change = Change { kind: Kind::Allow, entry: question.entry, origin: "net watch", time };
        let kept = match (answer, project) {
            (Answer::Always, Some(project)) => keep(&change, &project.id, &project.name, self.host),
            _ => Ok(()),
        };
        let done = send(&change, self.found, self.host).map(|text| self.print(&text));
        for error in [kept.err(), done.err()].into_iter().flatten() {
            report::tell(&error);
        }
    }

    /// Ctrl-Z: the terminal is the shell's until `fg`.
    fn stop(&mut self) -> Result<(), CliError> {
        self.hide();
        self.keys.give_back();
        let _ = rustix::process::kill_process(rustix::process::getpid(), Signal::STOP);
        self.keys.again()
    }
}

/// What is asked, and what can be answered, in fewer words on a narrow screen.
fn prompt(question: &Question, others: usize, project: bool, columns: usize) -> (String, String) {
    let times = if question.times > 1 { format!(", {} times", question.times) } else { String::new() };
    let address = if question.address { " (an address, not a name: anybody may be behind it)" } else { "" };
    let waiting = if others > 0 { format!("({others} more) ") } else { String::new() };
    let always = if project { "[a]lways / " } else { "" };
    let long = format!("[o]nce (60 s) / this [c]ell / {always}leave it [d]enied {waiting}");
    let short = format!("[o]nce [c]ell {}[d]enied ", if project { "[a]lways " } else { "" });
    let choices = if long.chars().count() < columns { long } else { short };
    let by = question.by.as_ref().map(|by| format!(", by {by}")).unwrap_or_default();
    (format!("? Allow {}{address}{times}{by}:", question.rule), choices)
}

/// Writes to the terminal as it is; that it is gone is found out by waiting.
fn out(text: &str) {
    let _ = std::io::stdout().write_all(text.as_bytes()).and_then(|()| std::io::stdout().flush());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_says_all_there_is_to_know() {
        let question = |address| Question {
            entry: "example.com:443".parse().expect("a rule"),
            rule: "example.com:443".into(),
            times: 3,
            address,
            by: address.then(|| "curl[7]".to_owned()),
        };
        let (head, choices) = prompt(&question(false), 2, true, 80);
        assert_eq!(head, "? Allow example.com:443, 3 times:");
        assert_eq!(choices, "[o]nce (60 s) / this [c]ell / [a]lways / leave it [d]enied (2 more) ");
        let (head, choices) = prompt(&question(true), 0, false, 40);
        assert!(head.contains("an address") && head.ends_with(", by curl[7]:"), "{head}");
        assert_eq!(choices, "[o]nce [c]ell [d]enied ", "without a project there is nowhere to keep a rule");
    }
}
