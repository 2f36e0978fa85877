//! From what a cell did to rules, and to a text that is a file of rules.
//!
//! A cell chooses the names it asks for. So nothing that was refused is proposed but as a comment, and no text of the cell's begins a line.

use std::collections::BTreeMap;
use std::fmt::Write;

use cellblock_egress::name::Name;
use indicatif::HumanBytes;
use serde::Serialize;

use super::collect::{Seen, Uses};
use crate::commands::net::names::{is_shared, parent};
use crate::commands::net::words::shown;

/// How many names below one parent make a glob worth a thought.
const SIBLINGS: usize = 5;

/// How many different names of one owner, looked up and not connected to, are too many to be names.
const MANY: usize = 25;

/// A rule, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Proposed {
    pub(super) rule: String,
    times: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    note: Option<String>,
}

/// A rule for everything below a name, instead of many rules.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Glob {
    pub(super) rule: String,
    names: usize,
    /// Whether the names it stands for were refused.
    denied: bool,
    /// Strangers can have names below it.
    shared: bool,
}

/// Something that is not proposed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Warning {
    what: String,
    why: String,
    times: u64,
}

/// What is proposed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Proposal {
    cell: String,
    decisions: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    first: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last: Option<String>,
    pub(super) rules: Vec<Proposed>,
    pub(super) denied: Vec<Proposed>,
    pub(super) globs: Vec<Glob>,
    pub(super) warnings: Vec<Warning>,
}

/// Makes a proposal.
pub(super) fn propose(cell: &str, seen: &Seen) -> Proposal {
    let mut rules: Vec<Proposed> = seen.used.iter().map(|(name, uses)| of_name(name, uses)).collect();
    if !seen.host.ports.is_empty() {
        let rule = format!("host:{}", ports(&seen.host));
        rules.push(Proposed { rule, times: seen.host.times, note: Some("services of this machine".into()) });
    }
    rules.extend(seen.requests.iter().map(|(rule, times)| Proposed { rule: rule.clone(), times: *times, note: None }));
    let crowds = crowds(seen);
    let crowded = |name: &Name| crowds.values().any(|names| names.contains(&name));
    let quiet: BTreeMap<_, _> = seen.denied.iter().filter(|(name, _)| !crowded(name)).collect();
    let mut denied: Vec<Proposed> = quiet.iter().map(|(name, uses)| refused(of_name(name, uses), uses)).collect();
    denied.extend(
        seen.denied_rules
            .iter()
            .map(|(rule, uses)| refused(Proposed { rule: rule.clone(), times: uses.times, note: None }, uses)),
    );
    denied.sort_by_key(|d| std::cmp::Reverse(d.times));
    let mut globs = globs(seen.used.iter(), false);
    globs.extend(self::globs(quiet.into_iter(), true));
    let (first, last) = seen.times.clone().unzip();
    Proposal {
        cell: cell.to_owned(),
        decisions: seen.decisions,
        first,
        last,
        rules,
        denied,
        globs,
        warnings: warnings(seen, &crowds),
    }
}

/// Names by owner, where there are so many that were only looked up.
fn crowds(seen: &Seen) -> BTreeMap<&str, Vec<&Name>> {
    let unused = |name: &&Name| !seen.used.contains_key(*name);
    let all =
        seen.lookups.iter().map(|(owner, names)| (owner.as_str(), names.iter().filter(unused).collect::<Vec<_>>()));
    all.filter(|(_, names)| names.len() >= MANY).collect()
}

fn of_name(name: &Name, uses: &Uses) -> Proposed {
    let mut rule = name.to_string();
    if !uses.ports.is_empty() {
        let _ = write!(rule, ":{}", ports(uses));
    }
    rule += if uses.private { " private" } else { "" };
    rule += if uses.metadata { " metadata" } else { "" };
    let (up, down) = uses.bytes;
    let bytes = (up + down > 0).then(|| format!("{} up, {} down", HumanBytes(up), HumanBytes(down)));
    let note = bytes.or_else(|| uses.why.clone());
    Proposed { rule, times: uses.times, note }
}

/// With the programs that asked, and the reason, unless it is that there was no rule.
fn refused(proposed: Proposed, uses: &Uses) -> Proposed {
    let by = (!uses.by.is_empty()).then(|| format!("by {}", uses.by.iter().cloned().collect::<Vec<_>>().join(", ")));
    let why = uses.why.clone().filter(|why| !why.starts_with("no rule "));
    let both: Vec<String> = by.into_iter().chain(why).collect();
    Proposed { note: (!both.is_empty()).then(|| both.join(", ")), ..proposed }
}

fn ports(uses: &Uses) -> String {
    uses.ports.iter().map(u16::to_string).collect::<Vec<_>>().join(",")
}

fn globs<'a>(names: impl Iterator<Item = (&'a Name, &'a Uses)>, denied: bool) -> Vec<Glob> {
    let mut families: BTreeMap<&str, Vec<&Uses>> = BTreeMap::new();
    for (name, uses) in names {
        if let Some(parent) = parent(name.as_str()) {
            families.entry(parent).or_default().push(uses);
        }
    }
    families.retain(|_, members| members.len() >= SIBLINGS);
    let glob = |(parent, members): (&str, Vec<&Uses>)| {
        let mut all = Uses::default();
        for uses in &members {
            all.ports.extend(&uses.ports);
        }
        let ports = if all.ports.is_empty() { String::new() } else { format!(":{}", ports(&all)) };
        Glob { rule: format!("*.{parent}{ports}"), names: members.len(), denied, shared: is_shared(parent) }
    };
    families.into_iter().map(glob).collect()
}

fn warnings(seen: &Seen, crowds: &BTreeMap<&str, Vec<&Name>>) -> Vec<Warning> {
    let mut all = Vec::new();
    for (owner, odd) in &seen.odd {
        let sample = odd.names.first().map(|name| shown(name)).unwrap_or_default();
        let what = format!("{} of {}", counted(odd.names.len()), shown(owner));
        let why = format!("like a DNS tunnel: {}, such as {sample}", odd.why);
        all.push(Warning { what, why, times: odd.times });
    }
    for (owner, names) in crowds {
        let times = names.iter().filter_map(|name| seen.denied.get(*name)).map(|uses| uses.times).sum();
        let sample = names.first().map(|name| name.to_string()).unwrap_or_default();
        let why = format!("like a DNS tunnel: many names that were only looked up, such as {sample}");
        all.push(Warning { what: format!("{} of {owner}", counted(names.len())), why, times });
    }
    for ((allowed, rule), uses) in &seen.addresses {
        let done = if *allowed { "used" } else { "refused" };
        let why = format!("an address without a name, {done}: anybody may be behind it");
        all.push(Warning { what: rule.clone(), why, times: uses.times });
    }
    for ((place, why), times) in &seen.never {
        all.push(Warning { what: shown(place), why: (*why).to_owned(), times: *times });
    }
    all
}

fn counted(names: usize) -> String {
    if names == 1 { "1 name".to_owned() } else { format!("{names} names") }
}

/// The proposal as a file of rules: whatever is not plainly proposed is a comment.
pub(super) fn text(proposal: &Proposal) -> String {
    let mut lines = vec![head(proposal)];
    let mut part = |title: &str, part: Vec<String>| {
        if !part.is_empty() {
            lines.push(String::new());
            lines.push(format!("# {title}"));
            lines.extend(part);
        }
    };
    part("Used.", listed("", &proposal.rules));
    part("Instead of names above, if all that lies below may be reached:", globbed(&proposal.globs, false));
    part("Refused. Take the # away from what the cell should reach.", listed("# ", &proposal.denied));
    part("Instead of refused names above, if all that lies below may be reached:", globbed(&proposal.globs, true));
    let warned = proposal.warnings.iter().map(|w| format!("# WARNING: {}: {} ({})", w.what, w.why, times(w.times)));
    part("Not proposed. Find out what it was before you allow any of it.", warned.collect());
    if proposal.rules.is_empty() {
        lines.push(String::new());
        lines.push("# Nothing was used: no rule is needed.".to_owned());
    }
    lines.join("\n") + "\n"
}

fn head(proposal: &Proposal) -> String {
    let time = match (&proposal.first, &proposal.last) {
        (Some(first), Some(last)) => format!(", {} to {}", shown(first), shown(last)),
        _ => String::new(),
    };
    let cell = &proposal.cell;
    format!(
        "# Proposed rules for the cell {cell}, from {} decisions{time}. Read them before you use them.",
        proposal.decisions
    )
}

fn times(n: u64) -> String {
    if n == 1 { "once".to_owned() } else { format!("{n} times") }
}

fn listed(start: &str, rules: &[Proposed]) -> Vec<String> {
    let width = rules.iter().map(|r| r.rule.chars().count()).max().unwrap_or(0).min(50);
    let line = |p: &Proposed| {
        let note = p.note.as_ref().map(|note| format!(", {}", shown(note))).unwrap_or_default();
        format!("{start}{:width$}  # {}{note}", p.rule, times(p.times))
    };
    rules.iter().map(line).collect()
}

fn globbed(globs: &[Glob], denied: bool) -> Vec<String> {
    let line = |g: &Glob| {
        let shared = if g.shared { "; but STRANGERS CAN HAVE NAMES BELOW IT" } else { "" };
        format!("# {}  # {}{shared}", g.rule, counted(g.names))
    };
    globs.iter().filter(|g| g.denied == denied).map(line).collect()
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
