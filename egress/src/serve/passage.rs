//! What of a connection goes on without being decided on again, so that a change of the rules can end it.

use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};

use super::dial::leads;
use crate::name::Name;
use crate::policy::{Policy, Sourced, Target, Verdict};

/// Where a connection leads, and what of it nobody reads any more.
#[derive(Debug, Default)]
pub(super) struct Passage(Mutex<(Vec<IpAddr>, Unread)>);

/// What goes on unread.
#[derive(Debug, Default)]
pub(super) enum Unread {
    /// Nothing: each request is decided on.
    #[default]
    Nothing,
    /// All of it: it was allowed as a whole.
    Everything,
    /// Another protocol, behind a request that asked for it.
    Behind { tls: bool, method: String, path: Vec<String> },
}

impl Passage {
    /// From here on this is not read.
    pub(super) fn unread(&self, what: Unread) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).1 = what;
    }

    /// A connection to this address was made.
    pub(super) fn dialled(&self, address: IpAddr) {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !inner.0.contains(&address) {
            inner.0.push(address);
        }
    }

    /// Whether `policy`, which allows connections to `port` of `name` by `rule`, would let it come this far; if not, why. `own` are the
    /// addresses of this machine.
    pub(super) fn still(
        &self,
        policy: &Policy,
        rule: &Sourced,
        (name, port): (&Name, u16),
        own: &[IpAddr],
    ) -> Result<(), String> {
        let inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (addresses, unread) = &*inner;
        for address in addresses.iter().filter(|_| !matches!(rule.rule.target, Target::Host)) {
            let may = policy.dial_name(name, *address, port, own);
            may.map_err(|why| format!("{name} led to {address}, {}", leads(&why)))?;
        }
        let fine = match unread {
            Unread::Nothing => true,
            Unread::Everything => !policy.looks_into(name, port),
            Unread::Behind { tls, method, path } => {
                matches!(policy.request(name, port, *tls, method, path), Verdict::Allow(_))
            }
        };
        if fine { Ok(()) } else { Err(requests_only(name)) }
    }
}

/// Why a connection ends that goes on unread.
pub(super) fn requests_only(name: &Name) -> String {
    format!("only single requests to {name} are allowed now, and this connection is not looked into")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Written;

    fn policy(allow: &[&str], deny: &[&str]) -> Policy {
        let written = |all: &[&str]| -> Vec<Written> {
            all.iter().map(|text| Written { entry: text.parse().expect("a rule"), origin: String::new() }).collect()
        };
        Policy::new(&written(allow), &written(deny)).expect("a policy")
    }

    #[test]
    fn what_goes_on_unread_hangs_on_the_rules_of_the_moment() {
        let name: Name = "a.example".parse().expect("a name");
        let passage = Passage::default();
        passage.dialled("10.0.0.1".parse().expect("an address"));
        let still = |allow: &[&str], deny: &[&str]| {
            let policy = policy(allow, deny);
            let Verdict::Allow(rule) = policy.name(&name, 443) else { panic!("a rule") };
            passage.still(&policy, rule, (&name, 443), &[]).is_ok()
        };
        let one = "GET https://a.example/x/**";
        assert!(still(&["a.example private"], &[]));
        assert!(!still(&["a.example"], &[]), "the word that opened the address is gone");
        assert!(!still(&["a.example private"], &["10.0.0.0/8"]), "the address is denied now");
        let passage = Passage::default();
        let still = |allow: &[&str]| {
            let policy = policy(allow, &[]);
            let Verdict::Allow(rule) = policy.name(&name, 443) else { panic!("a rule") };
            passage.still(&policy, rule, (&name, 443), &[]).is_ok()
        };
        assert!(still(&[one]), "each request is decided on");
        passage.unread(Unread::Everything);
        assert!(still(&["a.example", one]) && !still(&[one]));
        passage.unread(Unread::Behind { tls: true, method: "GET".into(), path: vec!["x".into(), "ws".into()] });
        assert!(still(&["a.example"]) && still(&[one]) && !still(&["GET https://a.example/y/**"]));
    }
}
