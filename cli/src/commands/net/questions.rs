//! Which refusals a person is asked about, each once: pure, without a terminal.

use std::collections::{HashMap, VecDeque};
use std::time::SystemTime;

use cellblock_egress::audit::{Event, Line, Verdict};
use cellblock_egress::control::{Show, Shown};
use cellblock_egress::name::Pattern;
use cellblock_egress::policy::{self, Entry, Policy, Ports, Rule, Target, Why, Written};

use super::names::{oddity, rule_for};

/// Most questions that wait. A cell that asks for thousands of names is not answered name by name.
const MOST: usize = 50;

/// Something that was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Question {
    /// The rule that would allow it.
    pub(super) entry: Entry,
    /// The same as text: what makes two questions one.
    pub(super) rule: String,
    /// How often it was refused.
    pub(super) times: u64,
    /// It is an address, behind which anybody may be.
    pub(super) address: bool,
    /// The program that asked first, if that is known.
    pub(super) by: Option<String>,
}

/// An answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// For 60 seconds.
    Once,
    /// As long as the cell lives.
    Cell,
    /// From now on.
    Always,
    /// Not.
    Leave,
}

impl Answer {
    /// The answer that a key stands for.
    pub(super) fn of(key: u8) -> Option<Self> {
        match key.to_ascii_lowercase() {
            b'o' => Some(Self::Once),
            b'c' => Some(Self::Cell),
            b'a' => Some(Self::Always),
            b'd' => Some(Self::Leave),
            _ => None,
        }
    }
}

/// The questions that wait, and what has been answered.
#[derive(Debug, Default)]
pub(super) struct Questions {
    waiting: VecDeque<Question>,
    answered: HashMap<String, (Answer, SystemTime)>,
}

impl Questions {
    /// Takes a line of the audit.
    pub(super) fn hear(&mut self, line: &Line) {
        let asked = matches!(line.event, Event::Dns | Event::Connect | Event::Request);
        // What a rule has refused, no further rule would allow.
        if !asked || line.verdict != Verdict::Deny || line.rule.is_some() {
            return;
        }
        if line.name.as_deref().is_some_and(|name| oddity(name).is_some()) {
            return;
        }
        let Some(entry) = rule_for(line) else { return };
        let rule = entry.to_string();
        let times = line.count.unwrap_or(1);
        if let Some(waiting) = self.waiting.iter_mut().find(|q| q.rule == rule) {
            waiting.times += times;
            return;
        }
        if self.answered.get(&rule).is_some_and(|(answer, at)| is_settled(line, *answer, *at)) {
            return;
        }
        if self.waiting.len() < MOST {
            let by = line.process.as_ref().map(super::words::by);
            self.waiting.push_back(Question { entry, rule, times, address: line.name.is_none(), by });
        }
    }

    /// What is asked now.
    pub(super) fn current(&self) -> Option<&Question> {
        self.waiting.front()
    }

    /// How many wait behind it.
    pub(super) fn others(&self) -> usize {
        self.waiting.len().saturating_sub(1)
    }

    /// Drops what would be asked now: an answer would change nothing.
    pub(super) fn drop_current(&mut self) {
        self.waiting.pop_front();
    }

    /// The person has answered what is asked now.
    pub(super) fn answer(&mut self, answer: Answer) -> Option<Question> {
        let question = self.waiting.pop_front()?;
        self.answered.insert(question.rule.clone(), (answer, SystemTime::now()));
        Some(question)
    }
}

/// Whether `rule` would change nothing of what is in force: it is allowed already, and was refused for another reason (a wrong name in the TLS
/// hello, a private address behind the name); or another rule denies it.
pub(super) fn is_pointless(rule: &Entry, show: &Show) -> bool {
    let written = |rules: &[Shown]| {
        let entry = |s: &Shown| Some(Written { entry: s.rule.parse().ok()?, origin: s.origin.clone() });
        rules.iter().filter_map(entry).collect::<Vec<_>>()
    };
    let text = rule.to_string();
    if show.allow.iter().any(|s| s.rule == text) {
        return true;
    }
    let Ok(policy) = Policy::new(&written(&show.allow), &written(&show.deny)) else { return false };
    match rule {
        Entry::Rule(Rule { target: Target::Names(Pattern::Exact(name)), listed, http: None, private, .. }) => {
            let ports = match listed {
                Some(Ports::List(ports)) => ports.iter().map(|range| *range.start()).collect(),
                // A look-up: whichever ports are open, the name is known then.
                _ if policy.knows(name) => return true,
                _ => vec![80, 443],
            };
            ports.iter().all(|port| match policy.name(name, *port) {
                policy::Verdict::Allow(_) => !private,
                policy::Verdict::Deny(why) => matches!(why, Why::Denied(_)),
            })
        }
        _ => false,
    }
}

/// Whether `line` is answered by what was said at the time `at`.
fn is_settled(line: &Line, answer: Answer, at: SystemTime) -> bool {
    // It was refused before the answer, and only told of afterwards: at once, or as a number.
    let earlier = humantime::parse_rfc3339(&line.time).is_ok_and(|time| time <= at) || line.count.is_some();
    answer != Answer::Once || earlier
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use cellblock_egress::audit::Protocol;

    use super::*;

    fn denied(name: &str, port: Option<u16>) -> Line {
        let event = if port.is_some() { Event::Connect } else { Event::Dns };
        Line { name: Some(name.into()), port, ..Line::new(event, Verdict::Deny) }
    }

    fn later(line: Line) -> Line {
        let time = SystemTime::now() + Duration::from_secs(70);
        Line { time: humantime::format_rfc3339_millis(time).to_string(), ..line }
    }

    #[test]
    fn the_same_refusal_is_one_question() {
        let mut questions = Questions::default();
        for _ in 0..3 {
            questions.hear(&denied("example.com", Some(443)));
        }
        questions.hear(&Line { count: Some(10), ..denied("example.com", Some(443)) });
        questions.hear(&denied("example.com", Some(22)));
        let current = questions.current().expect("a question");
        assert_eq!((current.rule.as_str(), current.times, questions.others()), ("example.com:443", 13, 1));
    }

    #[test]
    fn what_was_answered_is_not_asked_again() {
        let mut questions = Questions::default();
        for answer in [Answer::Leave, Answer::Cell, Answer::Always] {
            let line = denied("example.com", Some(443));
            questions.answered.clear();
            questions.hear(&line);
            assert!(questions.answer(answer).is_some());
            questions.hear(&later(line));
            assert_eq!(questions.current(), None, "{answer:?}");
        }
    }

    #[test]
    fn once_is_asked_again_when_it_is_over() {
        let mut questions = Questions::default();
        let line = denied("example.com", Some(443));
        questions.hear(&line);
        questions.answer(Answer::Once);
        questions.hear(&line);
        questions.hear(&later(Line { count: Some(4), ..line.clone() }));
        assert_eq!(questions.current(), None, "refused before the answer");
        questions.hear(&later(line));
        assert!(questions.current().is_some());
    }

    #[test]
    fn what_no_answer_could_change_is_not_asked() {
        let mut questions = Questions::default();
        questions.hear(&Line { rule: Some("example.com".into()), ..denied("example.com", Some(443)) });
        questions.hear(&denied("3a7bd3e2360a3d29eea436fcfb7e44c7.evil.com", None));
        questions.hear(&denied("a\u{1b}b", None));
        questions.hear(&Line::new(Event::Connect, Verdict::Deny));
        questions.hear(&Line { verdict: Verdict::Allow, ..denied("example.com", Some(443)) });
        questions.hear(&Line { protocol: Some(Protocol::Udp), ..denied("example.com", Some(443)) });
        assert_eq!(questions.current(), None);
        questions.hear(&denied("example.com", Some(443)));
        assert!(questions.current().is_some());
    }

    #[test]
    fn what_is_allowed_or_denied_by_a_rule_already_is_not_asked() {
        let shown = |rule: &str| Shown { rule: rule.into(), origin: String::new(), seconds: None };
        let show = Show {
            allow: vec![shown("*.example.com"), shown("GET https://a.org/x")],
            deny: vec![shown("evil.com"), shown("ports.com:22")],
            ..Show::default()
        };
        let pointless = |rule: &str| is_pointless(&rule.parse().expect("a rule"), &show);
        for rule in
            ["a.example.com:443", "a.example.com", "evil.com:443", "evil.com", "ports.com:22", "GET https://a.org/x"]
        {
            assert!(pointless(rule), "{rule}");
        }
        for rule in
            ["a.example.com:22", "example.com:443", "ports.com:443", "GET https://a.org/y", "a.example.com:443 private"]
        {
            assert!(!pointless(rule), "{rule}");
        }
    }

    #[test]
    fn a_flood_does_not_become_a_queue_without_end() {
        let mut questions = Questions::default();
        for n in 0..1000 {
            questions.hear(&denied(&format!("n{n}.example.com"), Some(443)));
        }
        assert_eq!(questions.others(), MOST - 1);
    }
}
