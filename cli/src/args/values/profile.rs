//! Which profiles a cell has: names, with commas between them.

use std::fmt;
use std::str::FromStr;

use cellblock_bundle::cell::Profile;

use super::{Choice, ValueError};

/// Most profiles of one cell.
pub(crate) const MOST: usize = 8;

/// Profiles in the order in which they count, the weaker first: `default` and `strict`, which say how much a cell may do, and the
/// configuration's own, which are looked up later.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ProfileSpec(Vec<String>);

impl ProfileSpec {
    /// How much the cell may do, if one of them says so; of several the last.
    pub(crate) fn security(&self) -> Option<Profile> {
        self.0.iter().rev().find_map(|name| Profile::read(name).ok())
    }

    /// Those of the configuration.
    pub(crate) fn named(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str).filter(|name| Profile::read(name).is_err())
    }
}

impl FromStr for ProfileSpec {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let names: Vec<String> = text.split(',').map(|name| name.trim().to_owned()).collect();
        let once = |name: &String| names.iter().filter(|other| *other == name).count() == 1;
        let good = |name: &String| !name.is_empty() && crate::project::sanitise(name) == *name && once(name);
        if names.len() <= MOST && names.iter().all(good) { Ok(Self(names)) } else { Err(ValueError::Profiles) }
    }
}

impl fmt::Display for ProfileSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join(","))
    }
}

impl serde::Serialize for ProfileSpec {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_with_commas() {
        let spec: ProfileSpec = "rust, strict,web".parse().expect("profiles");
        assert_eq!(spec.named().collect::<Vec<_>>(), ["rust", "web"]);
        assert_eq!(spec.security(), Some(Profile::Strict));
        assert_eq!("rust".parse::<ProfileSpec>().expect("one").security(), None);
        for wrong in ["", "a,,b", "A", "a b", "a,a", "a,b,c,d,e,f,g,h,i"] {
            assert!(wrong.parse::<ProfileSpec>().is_err(), "{wrong}");
        }
    }
}
