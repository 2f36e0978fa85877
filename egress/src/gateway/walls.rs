//! What the gateway of a bridge lets through: the rules as nf_tables has them.
//!
//! The order is that of [`Policy::address`]: what is denied stays denied, then come this machine and what is nobody's, which no rule opens,
//! then what rules open, then the rest of what is not public. What is left is the internet.

use std::fmt::Write;
use std::net::IpAddr;

use crate::address::{Class, blocks, metadata};
use crate::gateway::{GATEWAY, GATEWAY_V6};
use crate::policy::{Policy, Ports, Rule, Sourced, Target};

/// The device that leads out of the gateway.
pub(crate) const UPLINK: &str = "up0";

/// The text for `nft -f`. `own` are the addresses of this machine.
#[must_use]
pub(crate) fn text(policy: &Policy, own: &[IpAddr]) -> String {
    let (sets, forward) = (sets(own), forward(policy));
    let ports: Vec<String> =
        std::iter::once("53".to_owned()).chain(host_ports(policy).iter().map(ToString::to_string)).collect();
    format!(
        "table inet cellblock {{
{sets} chain refuse {{
  meta l4proto tcp reject with tcp reset
  reject with icmpx admin-prohibited
 }}
 chain forward {{
  type filter hook forward priority filter; policy drop;
  ct state established,related accept
  iifname != \"gw0\" drop
  oifname != \"{UPLINK}\" drop
  ct state invalid drop
{forward}  meta nfproto ipv6 ip6 daddr != 2000::/3 jump refuse
  accept
 }}
 chain input {{
  type filter hook input priority filter; policy drop;
  iifname \"lo\" accept
  ct state established,related accept
  icmpv6 type {{ nd-neighbor-solicit, nd-neighbor-advert }} accept
  iifname != \"gw0\" drop
  ip daddr {GATEWAY} udp dport 53 accept
  ip daddr {GATEWAY} tcp dport {{ {ports} }} accept
  ip6 daddr {GATEWAY_V6} udp dport 53 accept
  ip6 daddr {GATEWAY_V6} tcp dport {{ {ports} }} accept
  jump refuse
 }}
 chain leave {{
  type nat hook postrouting priority srcnat;
  oifname \"{UPLINK}\" masquerade
 }}
}}
",
        ports = ports.join(", "),
    )
}

/// The addresses that are not the internet, by kind.
fn sets(own: &[IpAddr]) -> String {
    let mut out = String::new();
    let never = |class: Class| matches!(class, Class::ThisHost | Class::Embedded | Class::Unusable);
    for v6 in [false, true] {
        let of = |wanted: &dyn Fn(Class) -> bool| {
            let found = blocks().filter(|(b, class)| b.is_v6() == v6 && wanted(*class)).map(|(b, _)| b.to_string());
            found.collect::<Vec<_>>()
        };
        let single = |all: &[IpAddr]| {
            let mut found: Vec<_> = all.iter().filter(|a| a.is_ipv6() == v6).map(ToString::to_string).collect();
            found.sort();
            found.dedup();
            found
        };
        set(&mut out, "own", v6, &single(own));
        set(&mut out, "never", v6, &of(&never));
        set(&mut out, "metadata", v6, &single(metadata()));
        set(&mut out, "private", v6, &of(&|class| matches!(class, Class::Private | Class::LinkLocal)));
    }
    out
}

/// What is decided by address, in its order.
fn forward(policy: &Policy) -> String {
    let mut out = String::new();
    let blocks = |rules: &'_ [Sourced]| {
        rules.iter().map(|s| s.rule.clone()).filter(|r| matches!(r.target, Target::Addresses(_))).collect::<Vec<_>>()
    };
    let (allow, deny) = (blocks(policy.allow_rules()), blocks(policy.deny_rules()));
    for rule in &deny {
        line(&mut out, rule, &rule.denied_ports(), "", "jump refuse");
    }
    to(&mut out, "own", "jump refuse");
    // Before what is nobody's: one of these services has such an address.
    for rule in allow.iter().filter(|rule| rule.metadata) {
        line(&mut out, rule, &rule.ports(), "metadata", "accept");
    }
    to(&mut out, "metadata", "jump refuse");
    to(&mut out, "never", "jump refuse");
    for rule in allow.iter().filter(|rule| rule.private) {
        line(&mut out, rule, &rule.ports(), "private", "accept");
    }
    to(&mut out, "private", "jump refuse");
    out
}

/// The ports of this machine that rules open, as far as they can be had: each needs a listener.
#[must_use]
pub(crate) fn host_ports(policy: &Policy) -> Vec<u16> {
    let mut found = std::collections::BTreeSet::new();
    for allowed in policy.allow_rules().iter().filter(|a| a.rule.target == Target::Host) {
        if let Ports::List(ranges) = allowed.rule.ports() {
            found.extend(ranges.into_iter().flatten());
        }
    }
    found.into_iter().filter(|port| *port != super::sockets::DNS).collect()
}

/// Defines a set; an empty one is one that nothing is in.
fn set(out: &mut String, name: &str, v6: bool, elements: &[String]) {
    let (kind, family) = if v6 { ("ipv6_addr", 6) } else { ("ipv4_addr", 4) };
    let _ = writeln!(out, " set {name}{family} {{");
    let _ = writeln!(out, "  type {kind}; flags interval; auto-merge;");
    if !elements.is_empty() {
        let _ = writeln!(out, "  elements = {{ {} }}", elements.join(", "));
    }
    let _ = writeln!(out, " }}");
}

/// A verdict on everything that goes to an address of the set.
fn to(out: &mut String, set: &str, verdict: &str) {
    let _ = writeln!(out, "  ip daddr @{set}4 {verdict}\n  ip6 daddr @{set}6 {verdict}");
}

/// A verdict on what a rule for addresses is about, within a set if one is named.
fn line(out: &mut String, rule: &Rule, ports: &Ports, within: &str, verdict: &str) {
    let Target::Addresses(block) = &rule.target else { return };
    let (family, number) = if block.is_v6() { ("ip6", 6) } else { ("ip", 4) };
    let _ = write!(out, "  {family} daddr {block} ");
    if !within.is_empty() {
        let _ = write!(out, "{family} daddr @{within}{number} ");
    }
    if let Ports::List(_) = ports {
        let _ = write!(out, "meta l4proto {{ tcp, udp }} th dport {{ {} }} ", ports.to_string().replace(',', ", "));
    }
    let _ = writeln!(out, "{verdict}");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::{Entry, Written};

    fn policy(allow: &[&str], deny: &[&str]) -> Policy {
        let written = |all: &[&str]| {
            let one = |text: &&str| Written { entry: text.parse::<Entry>().expect("a rule"), origin: "test".into() };
            all.iter().map(one).collect::<Vec<_>>()
        };
        Policy::new(&written(allow), &written(deny)).expect("a policy")
    }

    #[test]
    fn what_is_denied_comes_before_what_is_allowed() {
        let text = text(
            &policy(
                &["10.1.0.0/16:80,443", "host:3000", "169.254.169.254 metadata"],
                &["10.1.2.0/24", "[2600::]/12:25"],
            ),
            &["172.20.0.1".parse().expect("an address")],
        );
        let at = |part: &str| text.find(part).unwrap_or_else(|| panic!("{part}\n{text}"));
        let order = [
            "ip daddr 10.1.2.0/24 jump refuse",
            "ip6 daddr 2600::/12 meta l4proto { tcp, udp } th dport { 25 } jump refuse",
            "ip daddr @own4 jump refuse",
            "ip daddr 169.254.169.254/32 ip daddr @metadata4 accept",
            "ip daddr @metadata4 jump refuse",
            "ip daddr @never4 jump refuse",
            "ip daddr 10.1.0.0/16 ip daddr @private4 meta l4proto { tcp, udp } th dport { 80, 443 } accept",
            "ip daddr @private4 jump refuse",
        ];
        assert!(order.map(at).is_sorted(), "{text}");
        assert!(text.contains("elements = { 172.20.0.1 }"), "{text}");
        assert!(text.contains("tcp dport { 53, 3000 } accept"), "{text}");
    }

    #[test]
    fn names_open_nothing_and_a_block_of_everything_nothing_private() {
        let plain = text(&policy(&[], &[]), &[]);
        assert_eq!(text(&policy(&["example.com", "0.0.0.0/0"], &[]), &[]), plain);
        assert!(plain.contains("tcp dport { 53 } accept"), "{plain}");
    }
}
