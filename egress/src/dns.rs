//! The cell's resolver: one packet in, one packet out. Nothing is ever asked of anybody else.
//!
//! A name that the policy knows has one made-up address of each family; all else about it is an empty answer, so that no key, hint or text
//! can be learnt (HTTPS and SVCB records would bring ECH keys and addresses past the name check). Any other name does not exist.
//! NXDOMAIN and not REFUSED or SERVFAIL: with those musl waits five seconds and glibc speaks of a temporary failure.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::opt::EdnsOption;
use hickory_proto::rr::rdata::{A, AAAA, PTR};
use hickory_proto::rr::{DNSClass, Name as WireName, RData, Record, RecordType};

use crate::name::Name;
use crate::policy::Policy;
use crate::table::Table;

/// How long the cell may remember an answer, in seconds. The address stays the same; a change of the policy is noticed when it connects.
const TTL: u32 = 60;

/// "Prohibited" (RFC 8914, section 4.19), which some tools show.
const EDE_PROHIBITED: u16 = 18;

/// The option that carries it (RFC 8914, section 2).
const OPTION_EDE: u16 = 15;

/// Largest answer over UDP that we promise to take (DNS flag day 2020).
const PAYLOAD: u16 = 1232;

/// What happened, for the audit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// An address was given.
    Known(Name),
    /// The name is known, and there is nothing of the type asked for.
    Empty(Name),
    /// The policy does not know the name. As text, for it may be none; without control characters.
    Unknown(String),
    /// The cell has asked for too many names.
    Full(Name),
    /// Something else than a question of the usual kind.
    Odd,
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The packet.
    pub packet: Vec<u8>,
    /// What happened.
    pub outcome: Outcome,
    /// The type asked for, such as `AAAA`.
    pub kind: Option<String>,
}

/// Answers the packet `query`; `None` where nobody expects an answer: it is no question at all. Without `v6` in the cell names have no
/// IPv6 address.
#[must_use]
pub fn answer(query: &[u8], policy: &Policy, table: &mut Table, v6: bool) -> Option<Answer> {
    let message = Message::from_vec(query).ok()?;
    if message.metadata.message_type != MessageType::Query {
        return None;
    }
    let mut reply = Message::response(message.metadata.id, message.metadata.op_code);
    reply.metadata.recursion_desired = message.metadata.recursion_desired;
    reply.metadata.recursion_available = true;
    let mut prohibited = false;
    let outcome = match message.queries.as_slice() {
        [question] if message.metadata.op_code == OpCode::Query && question.query_class() == DNSClass::IN => {
            reply.add_query(question.clone());
            let outcome = decide(question, policy, (table, v6), &mut reply);
            prohibited = matches!(outcome, Outcome::Unknown(_));
            outcome
        }
        _ => {
            reply.metadata.response_code = ResponseCode::NotImp;
            Outcome::Odd
        }
    };
    if message.edns.is_some() {
        let mut edns = Edns::new();
        edns.set_max_payload(PAYLOAD);
        if prohibited {
            let mut option = EDE_PROHIBITED.to_be_bytes().to_vec();
            option.extend_from_slice(b"not in the policy of this cellblock cell");
            edns.options_mut().insert(EdnsOption::Unknown(OPTION_EDE, option));
        }
        reply.set_edns(edns);
    }
    let kind = message.queries.first().map(|question| question.query_type().to_string());
    Some(Answer { packet: reply.to_vec().ok()?, outcome, kind })
}

fn decide(question: &Query, policy: &Policy, (table, has_v6): (&mut Table, bool), reply: &mut Message) -> Outcome {
    let asked = question.name();
    let kind = question.query_type();
    let text = asked.to_ascii();
    let text = text.strip_suffix('.').unwrap_or(&text).to_owned();
    if kind == RecordType::PTR {
        let known = reverse(&text).and_then(|address| table.name(address)).cloned();
        if let Some((name, wire)) = known.and_then(|n| Some((n.clone(), WireName::from_ascii(n.as_str()).ok()?))) {
            let mut wire = wire;
            wire.set_fqdn(true);
            reply.add_answer(Record::from_rdata(asked.clone(), TTL, RData::PTR(PTR(wire))));
            return Outcome::Known(name);
        }
    }
    let name = match text.parse::<Name>() {
        Ok(name) if policy.knows(&name) => name,
        _ => {
            reply.metadata.response_code = ResponseCode::NXDomain;
            return Outcome::Unknown(text.chars().map(|c| if c.is_control() { '?' } else { c }).collect());
        }
    };
    let Some((v4, v6)) = table.give(&name) else {
        reply.metadata.response_code = ResponseCode::ServFail;
        return Outcome::Full(name);
    };
    let data = match kind {
        RecordType::A => RData::A(A(v4)),
        RecordType::AAAA if has_v6 => RData::AAAA(AAAA(v6)),
        _ => return Outcome::Empty(name),
    };
    reply.add_answer(Record::from_rdata(asked.clone(), TTL, data));
    Outcome::Known(name)
}

/// The address that a name below `in-addr.arpa` or `ip6.arpa` stands for (RFC 1035, section 3.5; RFC 3596, section 2.5).
fn reverse(text: &str) -> Option<IpAddr> {
    let text = text.trim_end_matches('.').to_ascii_lowercase();
    if let Some(digits) = text.strip_suffix(".in-addr.arpa") {
        let mut parts = digits.split('.').map(|part| part.parse::<u8>().ok());
        let mut next = || parts.next().flatten();
        let (d, c, b, a) = (next()?, next()?, next()?, next()?);
        return parts.next().is_none().then(|| Ipv4Addr::new(a, b, c, d).into());
    }
    let nibbles = text.strip_suffix(".ip6.arpa")?;
    let one = |part: &str| matches!(part.as_bytes(), [b] if b.is_ascii_hexdigit());
    if nibbles.split('.').count() != 32 || !nibbles.split('.').all(one) {
        return None;
    }
    let digits: String = nibbles.rsplit('.').collect();
    u128::from_str_radix(&digits, 16).ok().map(|bits| Ipv6Addr::from(bits).into())
}

#[cfg(test)]
#[path = "dns_tests.rs"]
mod tests;
