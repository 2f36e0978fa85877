//! One rule, and the language it is written in: the same in flags, in the configuration, in files and in live changes.
//!
//! ```text
//! example.com                    ports 80 and 443
//! example.com:22,8000-8100       these ports
//! *.example.com:all              every name below it, every TCP port
//! db.corp.example private        also where it resolves to a private address
//! 203.0.113.0/24:5432            addresses
//! [2001:db8::]/32:443            IPv6 with ports stands in brackets
//! host:3000                      a port of this machine, as host.cellblock.internal
//! GET,HEAD https://pypi.org/simple/**     requests; cellblock then has to look into TLS for this host
//! @dev                           a named set
//! ```

use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::path::{PathError, PathPattern};
use crate::address::{Block, BlockError, Class};
use crate::name::{Name, Pattern, PatternError};

/// What a rule is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// Names.
    Names(Pattern),
    /// Addresses.
    Addresses(Block),
    /// Services of this machine, reached by `host.docker.internal` and its sisters.
    Host,
}

/// Ports of a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ports {
    /// Every port.
    All,
    /// These, each range not empty.
    List(Vec<RangeInclusive<u16>>),
}

impl Ports {
    /// 80 and 443: what a rule for a name means that says nothing of ports.
    #[must_use]
    pub fn web() -> Self {
        Self::List(vec![80..=80, 443..=443])
    }

    /// Whether `port` is among them.
    #[must_use]
    pub fn contains(&self, port: u16) -> bool {
        match self {
            Self::All => true,
            Self::List(ranges) => ranges.iter().any(|range| range.contains(&port)),
        }
    }
}

/// Requests that a rule allows, seen by interception.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Http {
    /// Methods in capitals; empty for all.
    pub methods: Vec<String>,
    /// Paths.
    pub path: PathPattern,
    /// Whether it is about `https`.
    pub tls: bool,
}

/// One rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// What it is about.
    pub target: Target,
    /// Which ports; `None` where nothing was said, which [`Rule::ports`] resolves.
    pub listed: Option<Ports>,
    /// A private or link-local address behind the name is fine.
    pub private: bool,
    /// The cloud's metadata service is fine.
    pub metadata: bool,
    /// Only these requests.
    pub http: Option<Http>,
}

/// What a text stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// A rule.
    Rule(Rule),
    /// A named set, without its `@`.
    Set(String),
}

/// Why a text is no rule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RuleError {
    /// Nothing.
    #[error("a rule is missing")]
    Empty,
    /// The name.
    #[error("{0:?}: {1}")]
    Name(String, PatternError),
    /// The addresses.
    #[error("{0:?}: {1}")]
    Block(String, BlockError),
    /// Not ports.
    #[error("{0:?}: ports are numbers from 1 to 65535, ranges of them, or `all`: example.com:443,8000-8100")]
    Ports(String),
    /// Something after the target that is no word of the language.
    #[error("{0:?} is none of the words `private`, `metadata`")]
    Word(String),
    /// Addresses and requests say themselves what they are about.
    #[error("`{0}` has no meaning for this rule")]
    Meaningless(&'static str),
    /// `host` without ports.
    #[error("services of this machine are allowed port by port: host:3000")]
    HostPorts,
    /// A method that is none.
    #[error("{0:?} is no list of HTTP methods, such as GET,HEAD")]
    Method(String),
    /// Methods before something that is no URL.
    #[error("methods go with a URL: GET https://example.com/path/**")]
    MethodsWithoutUrl,
    /// The URL.
    #[error("{0:?} is no URL rule: https://HOST[:PORT]/PATH, without user, query and fragment")]
    Url(String),
    /// The path of the URL.
    #[error("{0:?}: {1}")]
    Path(String, PathError),
    /// Not the name of a set.
    #[error("{0:?} is no name of a set")]
    SetName(String),
}

impl Rule {
    /// A rule for `target` with nothing special.
    #[must_use]
    pub fn new(target: Target) -> Self {
        Self { target, listed: None, private: false, metadata: false, http: None }
    }

    /// The ports it allows: for names without ports 80 and 443, for addresses all.
    #[must_use]
    pub fn ports(&self) -> Ports {
        match (&self.listed, &self.target) {
            (Some(ports), _) => ports.clone(),
            (None, Target::Names(_)) => Ports::web(),
            (None, Target::Addresses(_) | Target::Host) => Ports::All,
        }
    }

    /// The ports it covers as a *deny* rule: all, if nothing was said.
    #[must_use]
    pub fn denied_ports(&self) -> Ports {
        self.listed.clone().unwrap_or(Ports::All)
    }

    /// Whether it is about `name`, on whatever port.
    #[must_use]
    pub fn is_about(&self, name: &Name) -> bool {
        match &self.target {
            Target::Names(pattern) => pattern.matches(name),
            Target::Host => super::is_host_name(name),
            Target::Addresses(_) => false,
        }
    }

    /// Whether a connection that this rule allows may go to an address of `class`.
    #[must_use]
    pub fn may_dial(&self, class: Class) -> bool {
        match class {
            Class::Public => true,
            Class::Private | Class::LinkLocal => self.private,
            Class::Metadata => self.metadata,
            Class::ThisHost | Class::Embedded | Class::Unusable => false,
        }
    }
}

impl FromStr for Entry {
    type Err = RuleError;

    fn from_str(text: &str) -> Result<Self, RuleError> {
        let mut words = text.split_ascii_whitespace();
        let first = words.next().ok_or(RuleError::Empty)?;
        if let Some(name) = first.strip_prefix('@') {
            let fine =
                !name.is_empty() && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-');
            return match (fine, words.next()) {
                (true, None) => Ok(Self::Set(name.to_owned())),
                (true, Some(word)) => Err(RuleError::Word(word.to_owned())),
                (false, _) => Err(RuleError::SetName(first.to_owned())),
            };
        }
        let capitals = first.bytes().all(|b| b.is_ascii_uppercase() || b == b',');
        let methods = (capitals || (first == "*" && text.contains("://"))).then_some(first);
        let target = if methods.is_some() { words.next().ok_or(RuleError::MethodsWithoutUrl)? } else { first };
        let mut rule = if target.contains("://") {
            url(target, methods)?
        } else if methods.is_some() {
            return Err(RuleError::MethodsWithoutUrl);
        } else {
            plain(target)?
        };
        for word in words {
            match word {
                "private" => rule.private = true,
                "metadata" => rule.metadata = true,
                other => return Err(RuleError::Word(other.to_owned())),
            }
        }
        match (&rule.target, rule.private) {
            (Target::Host, true) => Err(RuleError::Meaningless("private")),
            _ => Ok(Self::Rule(rule)),
        }
    }
}

/// `HOST[:PORTS]`, `BLOCK[:PORTS]`, `host:PORTS`.
fn plain(text: &str) -> Result<Rule, RuleError> {
    if text.contains('/') || text.starts_with('[') || text.parse::<std::net::IpAddr>().is_ok() {
        return block(text);
    }
    let (host, listed) = match text.split_once(':') {
        Some((host, listed)) => (host, Some(ports(listed)?)),
        None => (text, None),
    };
    if host.trim_end_matches('.').eq_ignore_ascii_case("host") {
        let Some(ports @ Ports::List(_)) = listed else { return Err(RuleError::HostPorts) };
        return Ok(Rule { listed: Some(ports), ..Rule::new(Target::Host) });
    }
    // `1.2.3.4:80`: an address after all.
    if host.parse::<std::net::IpAddr>().is_ok() {
        return block(text);
    }
    let pattern = host.parse().map_err(|e| RuleError::Name(host.to_owned(), e))?;
    Ok(Rule { listed, ..Rule::new(Target::Names(pattern)) })
}

/// `A.B.C.D[/BITS][:PORTS]`, `[V6][/BITS][:PORTS]`, `V6[/BITS]`.
fn block(text: &str) -> Result<Rule, RuleError> {
    let wrong = |e| RuleError::Block(text.to_owned(), e);
    let (address, listed) = if let Some(rest) = text.strip_prefix('[') {
        let (inner, rest) = rest.split_once(']').ok_or(wrong(BlockError::Syntax))?;
        let (bits, listed) = rest.split_once(':').map_or((rest, None), |(b, p)| (b, Some(p)));
        (format!("{inner}{bits}"), listed)
    } else if text.matches(':').count() == 1 {
        let (address, listed) = text.split_once(':').unwrap_or((text, ""));
        (address.to_owned(), Some(listed))
    } else {
        (text.to_owned(), None)
    };
    let block: Block = address.parse().map_err(wrong)?;
    let listed = listed.map(ports).transpose()?;
    // Written out, a private block is meant.
    let private = block.is_within_one();
    Ok(Rule { listed, private, ..Rule::new(Target::Addresses(block)) })
}

/// `443`, `80,443`, `8000-8100`, `all`.
fn ports(text: &str) -> Result<Ports, RuleError> {
    if text == "all" {
        return Ok(Ports::All);
    }
    let wrong = || RuleError::Ports(text.to_owned());
    let number = |digits: &str| {
        let plain = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
        plain.then(|| digits.parse::<u16>().ok()).flatten().filter(|port| *port > 0).ok_or_else(wrong)
    };
    let range = |part: &str| match part.split_once('-') {
        Some((first, last)) => {
            let range = number(first)?..=number(last)?;
            if range.is_empty() { Err(wrong()) } else { Ok(range) }
        }
        None => number(part).map(|port| port..=port),
    };
    text.split(',').map(range).collect::<Result<_, _>>().map(Ports::List)
}

fn url(text: &str, methods: Option<&str>) -> Result<Rule, RuleError> {
    let wrong = || RuleError::Url(text.to_owned());
    let (tls, rest) = match text.split_once("://") {
        Some(("https", rest)) => (true, rest),
        Some(("http", rest)) => (false, rest),
        _ => return Err(wrong()),
    };
    let (authority, path) = rest.split_once('/').map_or((rest, ""), |(a, p)| (a, p));
    if authority.contains('@') || path.contains(['?', '#']) {
        return Err(wrong());
    }
    let (host, port) = authority.split_once(':').map_or((authority, None), |(h, p)| (h, Some(p)));
    let pattern = host.parse().map_err(|e| RuleError::Name(host.to_owned(), e))?;
    let port = match port.map(ports).transpose()? {
        Some(Ports::List(list)) if list.len() == 1 && list.iter().all(|r| r.start() == r.end()) => Ports::List(list),
        Some(_) => return Err(wrong()),
        None => Ports::List(vec![if tls { 443..=443 } else { 80..=80 }]),
    };
    let path = PathPattern::new(&format!("/{path}")).map_err(|e| RuleError::Path(text.to_owned(), e))?;
    let methods = match methods {
        None | Some("*") => Vec::new(),
        Some(list) => list
            .split(',')
            .map(|m| {
                if m.is_empty() || m.contains('*') { Err(RuleError::Method(list.to_owned())) } else { Ok(m.to_owned()) }
            })
            .collect::<Result<_, _>>()?,
    };
    let http = Some(Http { methods, path, tls });
    Ok(Rule { listed: Some(port), http, ..Rule::new(Target::Names(pattern)) })
}

impl fmt::Display for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("all"),
            Self::List(ranges) => {
                for (index, range) in ranges.iter().enumerate() {
                    let comma = if index > 0 { "," } else { "" };
                    if range.start() == range.end() {
                        write!(f, "{comma}{}", range.start())?;
                    } else {
                        write!(f, "{comma}{}-{}", range.start(), range.end())?;
                    }
                }
                Ok(())
            }
        }
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let (Some(http), Target::Names(pattern)) = (&self.http, &self.target) {
            let methods = if http.methods.is_empty() { "*".to_owned() } else { http.methods.join(",") };
            let (scheme, usual) = if http.tls { ("https", 443) } else { ("http", 80) };
            write!(f, "{methods} {scheme}://{pattern}")?;
            if let Some(ports) = self.listed.as_ref().filter(|p| **p != Ports::List(vec![usual..=usual])) {
                write!(f, ":{ports}")?;
            }
            write!(f, "{}", http.path)?;
        } else {
            match &self.target {
                Target::Names(pattern) => write!(f, "{pattern}")?,
                Target::Addresses(block) if self.listed.is_some() && block.is_v6() => {
                    write!(f, "{}", block.bracketed())?
                }
                Target::Addresses(block) => write!(f, "{block}")?,
                Target::Host => f.write_str("host")?,
            }
            if let Some(ports) = &self.listed {
                write!(f, ":{ports}")?;
            }
        }
        let implied = matches!(&self.target, Target::Addresses(block) if block.is_within_one());
        f.write_str(if self.private && !implied { " private" } else { "" })?;
        f.write_str(if self.metadata { " metadata" } else { "" })
    }
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rule(rule) => rule.fmt(f),
            Self::Set(name) => write!(f, "@{name}"),
        }
    }
}

impl Serialize for Entry {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Entry {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
#[path = "rule_tests.rs"]
mod tests;
