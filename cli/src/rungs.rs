//! Which ways to catch a cell's connections are tried: all of them. Builds for tests can be told, so that what other hosts need is tried on one
//! that does not.

use std::collections::BTreeMap;

use cellblock_egress::gateway::Rung;

use crate::report::CliError;

/// Read by builds with debug assertions only: names of rungs, with commas between them.
#[cfg(debug_assertions)]
const VARIABLE: &str = "CELLBLOCK_NET_RUNGS";

/// The rungs to try, best first.
#[cfg(debug_assertions)]
pub(crate) fn to_try(env: &BTreeMap<String, String>) -> Result<Vec<Rung>, CliError> {
    let Some(text) = env.get(VARIABLE) else { return Ok(Rung::ALL.to_vec()) };
    let read = text.split(',').map(str::parse).collect::<Result<_, _>>();
    read.map_err(|error| CliError::Plain { message: format!("{VARIABLE}: {error}"), hint: None })
}

/// The rungs to try, best first.
#[cfg(not(debug_assertions))]
pub(crate) fn to_try(_: &BTreeMap<String, String>) -> Result<Vec<Rung>, CliError> {
    Ok(Rung::ALL.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(text: &str) -> Option<Vec<Rung>> {
        to_try(&[("CELLBLOCK_NET_RUNGS".to_owned(), text.to_owned())].into()).ok()
    }

    #[test]
    fn all_are_tried_unless_a_build_for_tests_is_told_otherwise() {
        assert_eq!(to_try(&BTreeMap::new()).ok(), Some(Rung::ALL.to_vec()));
        let test = cfg!(debug_assertions);
        assert_eq!(
            told("lo-bind,veth-bind"),
            Some(if test { vec![Rung::LoBind, Rung::VethBind] } else { Rung::ALL.to_vec() })
        );
        assert_eq!(told("nonsense").is_none(), test);
    }
}
