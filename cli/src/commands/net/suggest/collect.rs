//! What a cell did and tried, added up by name.

use std::collections::{BTreeMap, BTreeSet};

use cellblock_egress::address::{Class, classify};
use cellblock_egress::audit::{Event, Line, Protocol, Verdict};
use cellblock_egress::name::{Name, Pattern};
use cellblock_egress::policy::{Entry, Rule, Target, is_host_name};

use crate::commands::net::names::{oddity, registered, rule_for};
use crate::commands::net::words::place;

/// Most programs that are named. One that changes its name would fill the line.
const MOST_PROGRAMS: usize = 4;

/// What is known of one name or address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Uses {
    /// Ports; none if it was only looked up.
    pub(super) ports: BTreeSet<u16>,
    /// How often.
    pub(super) times: u64,
    /// It led to a private address.
    pub(super) private: bool,
    /// It led to the cloud's metadata service.
    pub(super) metadata: bool,
    /// Bytes that went out and came in.
    pub(super) bytes: (u64, u64),
    /// The programs that asked, as far as they are known.
    pub(super) by: BTreeSet<String>,
    /// What the network said about it, in words.
    pub(super) why: Option<String>,
}

impl Uses {
    fn add(&mut self, line: &Line) {
        self.times += line.count.unwrap_or(1);
        self.ports.extend(line.port);
        let class = line.address.map(classify);
        self.private |= matches!(class, Some(Class::Private | Class::LinkLocal));
        self.metadata |= class == Some(Class::Metadata);
        if let Some(process) = line.process.as_ref().filter(|_| self.by.len() < MOST_PROGRAMS) {
            self.by.insert(process.name.clone());
        }
        // Such as a server that does not answer, or a private address: what a rule for the name alone would not change.
        if line.why.is_some() {
            self.why.clone_from(&line.why);
        }
    }
}

/// Names of one owner that look like data.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Odd {
    /// How many different ones.
    pub(super) names: BTreeSet<String>,
    /// How often.
    pub(super) times: u64,
    /// What is odd about the first.
    pub(super) why: &'static str,
}

/// Everything, added up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Seen {
    /// How many decisions.
    pub(super) decisions: u64,
    /// The first and the last time.
    pub(super) times: Option<(String, String)>,
    /// Names that were connected to.
    pub(super) used: BTreeMap<Name, Uses>,
    /// Services of this machine that were connected to.
    pub(super) host: Uses,
    /// Rules for single requests, with the name that was used, and how often each.
    pub(super) requests: BTreeMap<String, u64>,
    /// Names that were refused.
    pub(super) denied: BTreeMap<Name, Uses>,
    /// Requests and services of this machine that were refused, by the rule that would allow them.
    pub(super) denied_rules: BTreeMap<String, Uses>,
    /// Addresses without a name, as rules; whether they were allowed.
    pub(super) addresses: BTreeMap<(bool, String), Uses>,
    /// By owner.
    pub(super) odd: BTreeMap<String, Odd>,
    /// Different names that were looked up, by owner.
    pub(super) lookups: BTreeMap<String, BTreeSet<Name>>,
    /// What no rule is proposed for at all, and why.
    pub(super) never: BTreeMap<(String, &'static str), u64>,
}

impl Seen {
    /// Takes a line.
    pub(super) fn add(&mut self, line: &Line) {
        let time = &line.time;
        match &mut self.times {
            Some((_, last)) => last.clone_from(time),
            None => self.times = Some((time.clone(), time.clone())),
        }
        let name = line.name.as_deref().and_then(|text| text.parse::<Name>().ok());
        match line.event {
            Event::End => {
                if let Some(uses) = name.and_then(|name| self.used.get_mut(&name)) {
                    uses.bytes.0 += line.up.unwrap_or(0);
                    uses.bytes.1 += line.down.unwrap_or(0);
                }
                return;
            }
            // No rule is about these.
            Event::Start | Event::Publish | Event::Policy => return,
            Event::Agent | Event::Signature | Event::Credentials | Event::Clipboard | Event::Open => return,
            Event::Dns | Event::Connect | Event::Request => {}
        }
        self.decisions += line.count.unwrap_or(1);
        if let Some(text) = &line.name
            && let Some(why) = oddity(text)
        {
            let odd = self.odd.entry(registered(text).to_owned()).or_insert_with(|| Odd { why, ..Odd::default() });
            odd.names.insert(text.clone());
            odd.times += line.count.unwrap_or(1);
            return;
        }
        if let (Event::Dns, Some(name)) = (line.event, &name) {
            self.lookups.entry(registered(name.as_str()).to_owned()).or_default().insert(name.clone());
        }
        match line.verdict {
            Verdict::Allow => self.allowed(line, name),
            Verdict::Deny => self.refused(line, name),
        }
    }

    fn allowed(&mut self, line: &Line, name: Option<Name>) {
        // An answer to a look-up opens nothing: only what was connected to is needed.
        if line.event == Event::Dns {
            return;
        }
        let Some(name) = name else {
            return self.address(line, true);
        };
        if is_host_name(&name) {
            return self.host.add(line);
        }
        let request = line.event == Event::Request;
        if let Some(rule) = line.rule.as_deref().and_then(|rule| request_rule(rule, &name)) {
            *self.requests.entry(rule).or_default() += u64::from(request);
            return;
        }
        // The connection of a request has a line of its own.
        if !request {
            self.used.entry(name).or_default().add(line);
        }
    }

    fn refused(&mut self, line: &Line, name: Option<Name>) {
        // How many there were of what was not even told apart.
        if line.name.is_none() && line.address.is_none() {
            return;
        }
        let Some(entry) = rule_for(line) else {
            return self.never(line);
        };
        match name {
            None => self.address(line, false),
            Some(name) if line.event != Event::Request && !is_host_name(&name) => {
                self.denied.entry(name).or_default().add(line);
            }
            Some(_) => self.denied_rules.entry(entry.to_string()).or_default().add(line),
        }
    }

    fn address(&mut self, line: &Line, allowed: bool) {
        match rule_for(line) {
            Some(entry) => self.addresses.entry((allowed, entry.to_string())).or_default().add(line),
            None => self.never(line),
        }
    }

    fn never(&mut self, line: &Line) {
        let why = match line.protocol {
            Some(Protocol::Udp) => "UDP, which no rule opens: clients of QUIC go on with TCP",
            Some(Protocol::Icmp) => "an echo request, which no rule lets out",
            _ => "nothing that a rule should allow",
        };
        *self.never.entry((place(line), why)).or_default() += line.count.unwrap_or(1);
    }
}

/// `rule`, if it is for single requests, for the one `name` that was used.
fn request_rule(rule: &str, name: &Name) -> Option<String> {
    match rule.parse() {
        Ok(Entry::Rule(rule)) if rule.http.is_some() => {
            let target = Target::Names(Pattern::Exact(name.clone()));
            Some(Entry::Rule(Rule { target, ..rule }).to_string())
        }
        _ => None,
    }
}
