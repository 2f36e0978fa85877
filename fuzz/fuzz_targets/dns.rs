//! The resolver: no packet makes it panic, or give an address to a name outside the policy.
#![no_main]

use cellblock_egress::dns::{Outcome, answer};
use cellblock_egress::policy::{Policy, Written};
use cellblock_egress::table::Table;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let rules = ["allowed.test", "*.wild.test"].map(|r| Written { entry: r.parse().expect("a rule"), origin: String::new() });
    let policy = Policy::new(&rules, &[]).expect("a policy");
    if let Some(found) = answer(bytes, &policy, &mut Table::default(), true)
        && let Outcome::Known(name) = found.outcome
    {
        assert!(name.as_str() == "allowed.test" || name.as_str().ends_with(".wild.test"));
    }
});
