//! What a cell may reach: plain data, and the decisions on it.
//!
//! Rules add up; a deny rule beats all of them. **An empty policy allows nothing.** A name is decided on when the cell asks for it and
//! again, with the port, when it connects; the addresses behind it are decided on before they are dialled.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::address::{Class, classify};
use crate::name::Name;

pub mod filter;
pub mod path;
mod rule;
pub mod sets;

pub use rule::{Entry, Http, Ports, Rule, RuleError, Target};

/// The names by which a cell reaches services of this machine: Docker's, podman's and ours.
pub const HOST_NAMES: [&str; 3] = ["host.docker.internal", "host.containers.internal", "host.cellblock.internal"];

/// Whether `name` is one of [`HOST_NAMES`].
#[must_use]
pub fn is_host_name(name: &Name) -> bool {
    HOST_NAMES.contains(&name.as_str())
}

/// A rule and who wrote it where, for people: `config.yaml:12`, `--allow`, `@npm`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sourced {
    /// The rule.
    pub rule: Rule,
    /// Where it comes from.
    pub origin: String,
}

/// An entry that is to become part of a policy, as it travels.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Written {
    /// The rule or set.
    pub entry: Entry,
    /// Where it was written.
    pub origin: String,
}

/// Why entries are no policy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// A set that does not exist.
    #[error("{origin}: there is no set @{name}; the sets are {known}")]
    NoSet {
        /// Where it was asked for.
        origin: String,
        /// Its name.
        name: String,
        /// Those there are.
        known: String,
    },
    /// A deny rule for single requests: without looking into TLS it would have to deny the whole host.
    #[error("{origin}: a deny rule is about names or addresses, not about single requests")]
    DenyRequests {
        /// Where it was written.
        origin: String,
    },
}

/// What a cell may reach.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    allow: Vec<Sourced>,
    deny: Vec<Sourced>,
}

/// A decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict<'a> {
    /// Yes, by this rule.
    Allow(&'a Sourced),
    /// No.
    Deny(Why<'a>),
}

/// Why not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why<'a> {
    /// No rule is about it.
    Unlisted,
    /// There are rules about it, none with this port.
    Port,
    /// There are rules about it and the port, none with this method and path.
    Request,
    /// A deny rule.
    Denied(&'a Sourced),
    /// The address is of a kind that the rule does not cover.
    Kind(Class),
    /// The address belongs to this machine.
    ThisHost,
}

impl<'a> Verdict<'a> {
    /// Whether it is a yes.
    #[must_use]
    pub fn is_allowed(&self) -> bool {
        matches!(self, Self::Allow(_))
    }
}

impl Policy {
    /// Makes a policy of entries, in which sets are replaced by their rules.
    ///
    /// # Errors
    /// See [`PolicyError`].
    pub fn new(allow: &[Written], deny: &[Written]) -> Result<Self, PolicyError> {
        let policy = Self { allow: expand(allow)?, deny: expand(deny)? };
        match policy.deny.iter().find(|d| d.rule.http.is_some()) {
            Some(denied) => Err(PolicyError::DenyRequests { origin: denied.origin.clone() }),
            None => Ok(policy),
        }
    }

    /// The rules that allow, in their order.
    #[must_use]
    pub fn allow_rules(&self) -> &[Sourced] {
        &self.allow
    }

    /// The rules that deny, in their order.
    #[must_use]
    pub fn deny_rules(&self) -> &[Sourced] {
        &self.deny
    }

    /// Whether the cell may learn an address for `name`: some port of it may be reached.
    #[must_use]
    pub fn knows(&self, name: &Name) -> bool {
        let denied = |d: &&Sourced| d.rule.is_about(name) && d.rule.denied_ports() == Ports::All;
        self.allow.iter().any(|a| a.rule.is_about(name)) && !self.deny.iter().any(|d| denied(&d))
    }

    /// Whether the cell may connect to `port` of `name`. Rules for single requests count: each request is then for [`Policy::request`].
    #[must_use]
    pub fn name(&self, name: &Name, port: u16) -> Verdict<'_> {
        if let Some(denied) = self.deny.iter().find(|d| d.rule.is_about(name) && d.rule.denied_ports().contains(port)) {
            return Verdict::Deny(Why::Denied(denied));
        }
        let mut about = self.allow.iter().filter(|a| a.rule.is_about(name)).peekable();
        if about.peek().is_none() {
            return Verdict::Deny(Why::Unlisted);
        }
        let mut open: Vec<_> = about.filter(|a| a.rule.ports().contains(port)).collect();
        // What is allowed without looking inside comes first.
        open.sort_by_key(|a| a.rule.http.is_some());
        open.first().map_or(Verdict::Deny(Why::Port), |rule| Verdict::Allow(rule))
    }

    /// Whether connections to `port` of `name` have to be looked into: only rules for single requests allow them.
    #[must_use]
    pub fn looks_into(&self, name: &Name, port: u16) -> bool {
        matches!(self.name(name, port), Verdict::Allow(found) if found.rule.http.is_some())
    }

    /// Whether one request may pass; `path` is [`path::segments`] of its path.
    #[must_use]
    pub fn request(&self, name: &Name, port: u16, tls: bool, method: &str, path: &[String]) -> Verdict<'_> {
        let found = match self.name(name, port) {
            Verdict::Allow(found) => found,
            denied @ Verdict::Deny(_) => return denied,
        };
        if found.rule.http.is_none() {
            return Verdict::Allow(found);
        }
        let passes = |http: &Http| {
            http.tls == tls
                && (http.methods.is_empty() || http.methods.iter().any(|m| m == method))
                && http.path.matches(path)
        };
        let about = |a: &&Sourced| a.rule.is_about(name) && a.rule.ports().contains(port);
        let rule = self.allow.iter().filter(about).find(|a| a.rule.http.as_ref().is_some_and(passes));
        rule.map_or(Verdict::Deny(Why::Request), Verdict::Allow)
    }

    /// Whether the cell may connect to an address as such. `own` are the addresses of this machine.
    #[must_use]
    pub fn address(&self, address: IpAddr, port: u16, own: &[IpAddr]) -> Verdict<'_> {
        if let Some(denied) = self.denied_address(address, port) {
            return Verdict::Deny(Why::Denied(denied));
        }
        let mut why = Why::Unlisted;
        for allow in &self.allow {
            let Target::Addresses(block) = &allow.rule.target else { continue };
            if !block.contains(address) {
                continue;
            }
            if !allow.rule.ports().contains(port) {
                why = Why::Port;
                continue;
            }
            match self.dial(allow, address, port, own) {
                Ok(()) => return Verdict::Allow(allow),
                Err(reason) => why = reason,
            }
        }
        Verdict::Deny(why)
    }

    /// Whether a connection to `port` of `name`, which is allowed, may be dialled at `address`, one of those the name resolved to: one of the
    /// rules that allow it has to cover addresses of that kind.
    ///
    /// # Errors
    /// Why not.
    pub fn dial_name(&self, name: &Name, address: IpAddr, port: u16, own: &[IpAddr]) -> Result<(), Why<'_>> {
        let mut outcome = Err(Why::Port);
        for allow in self.allow.iter().filter(|a| a.rule.is_about(name) && a.rule.ports().contains(port)) {
            outcome = self.dial(allow, address, port, own);
            if outcome.is_ok() {
                break;
            }
        }
        outcome
    }

    /// Whether a connection that `rule` has allowed may be dialled at `address`.
    ///
    /// # Errors
    /// Why not.
    pub fn dial<'a>(&'a self, rule: &Sourced, address: IpAddr, port: u16, own: &[IpAddr]) -> Result<(), Why<'a>> {
        if let Some(denied) = self.denied_address(address, port) {
            return Err(Why::Denied(denied));
        }
        let class = classify(address);
        if class == Class::ThisHost || own.contains(&address) {
            return Err(Why::ThisHost);
        }
        if rule.rule.may_dial(class) { Ok(()) } else { Err(Why::Kind(class)) }
    }

    fn denied_address(&self, address: IpAddr, port: u16) -> Option<&Sourced> {
        self.deny.iter().find(|d| {
            matches!(&d.rule.target, Target::Addresses(block) if block.contains(address))
                && d.rule.denied_ports().contains(port)
        })
    }

    /// Every port that some rule for names opens, ascending, or `None` if there are more than `most`. The gateway listens on these.
    #[must_use]
    pub fn ports(&self, most: usize) -> Option<Vec<u16>> {
        let mut all = std::collections::BTreeSet::new();
        for rule in &self.allow {
            let Ports::List(ranges) = rule.rule.ports() else { return None };
            for range in ranges {
                if range.len() > most {
                    return None;
                }
                all.extend(range);
            }
        }
        (all.len() <= most).then(|| all.into_iter().collect())
    }
}

fn expand(entries: &[Written]) -> Result<Vec<Sourced>, PolicyError> {
    let mut rules = Vec::new();
    for written in entries {
        match &written.entry {
            Entry::Rule(rule) => rules.push(Sourced { rule: rule.clone(), origin: written.origin.clone() }),
            Entry::Set(name) => {
                let found = sets::rules(name).ok_or_else(|| PolicyError::NoSet {
                    origin: written.origin.clone(),
                    name: name.clone(),
                    known: sets::names().map(|n| format!("@{n}")).collect::<Vec<_>>().join(", "),
                })?;
                rules.extend(
                    found.into_iter().map(|rule| Sourced { rule, origin: format!("{}: @{name}", written.origin) }),
                );
            }
        }
    }
    Ok(rules)
}

#[cfg(test)]
#[path = "policy_tests.rs"]
mod tests;
