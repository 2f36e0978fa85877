//! The made-up addresses by which a cell knows names: one a name, never given to a second one while the cell lives.
//!
//! They lie in 198.18.0.0/15 (RFC 2544, benchmarks: nobody's on the internet) and in a unique local prefix of our own. What is behind
//! them is decided when the cell connects.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::name::Name;

/// 198.18.1.0: the first 256 addresses of the block are left for the gateway itself.
const FIRST_V4: u32 = 0xc612_0100;

/// `fdce:11b1:0cc0::`, a unique local prefix (RFC 4193).
const FIRST_V6: u128 = 0xfdce_11b1_0cc0_0000_0000_0000_0000_0000;

/// The names a cell has asked for.
#[derive(Debug, Default)]
pub struct Table {
    names: Vec<Name>,
    places: HashMap<Name, u32>,
}

impl Table {
    /// Most names a cell may know: a program that asks for more is looking for something else than a server.
    pub const MOST: usize = 65_536;

    /// The addresses of `name`, made up now if it has none yet. `None` once the table is full.
    pub fn give(&mut self, name: &Name) -> Option<(Ipv4Addr, Ipv6Addr)> {
        let place = match self.places.get(name) {
            Some(place) => *place,
            None if self.names.len() >= Self::MOST => return None,
            None => {
                let place = u32::try_from(self.names.len()).ok()?;
                self.names.push(name.clone());
                self.places.insert(name.clone(), place);
                place
            }
        };
        Some(((FIRST_V4 + place).into(), (FIRST_V6 + u128::from(place)).into()))
    }

    /// How many names have an address.
    #[must_use]
    pub fn len(&self) -> usize {
        self.names.len()
    }

    /// Whether no name has.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// The name that has `address`.
    #[must_use]
    pub fn name(&self, address: IpAddr) -> Option<&Name> {
        let place = match address {
            IpAddr::V4(address) => u32::from(address).checked_sub(FIRST_V4)?,
            IpAddr::V6(address) => u32::try_from(u128::from(address).checked_sub(FIRST_V6)?).ok()?,
        };
        self.names.get(usize::try_from(place).ok()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address::{Class, classify};

    #[test]
    fn an_address_belongs_to_one_name_for_ever() {
        let mut table = Table::default();
        let name = |text: String| text.parse::<Name>().expect("a name");
        let mut seen = std::collections::HashSet::new();
        for number in 0..Table::MOST {
            let (v4, v6) = table.give(&name(format!("n{number}.example"))).expect("room");
            assert!(seen.insert(v4));
            assert!(matches!(classify(v4.into()), Class::Unusable) && matches!(classify(v6.into()), Class::Private));
        }
        assert_eq!(table.give(&name("one.more.example".into())), None, "full");
        let (v4, v6) = table.give(&name("n7.example".into())).expect("known ones stay");
        assert_eq!(v4, Ipv4Addr::new(198, 18, 1, 7));
        assert_eq!(table.name(v4.into()).map(Name::as_str), Some("n7.example"));
        assert_eq!(table.name(v6.into()).map(Name::as_str), Some("n7.example"));
        for stranger in ["198.18.0.255", "1.1.1.1", "198.19.1.0", "::1", "fdce:11b1:cc0::1:0"] {
            assert_eq!(table.name(stranger.parse().expect("an address")), None, "{stranger}");
        }
    }
}
