//! The ladder: the ways to catch a cell's connections, best first. Which of them works is found out by trying. All of them enforce the same:
//! from none of them leads a device to anywhere, and every connection ends at a socket of ours. What gets worse is what is left for the cell.
//!
//! Where the sockets stand:
//!
//! - In a **gateway** ([`super`]), which takes a veth pair. The cell's own network is all its own.
//! - In the **cell's** network namespace, where the kernel has no veth (`lo.rs`): every address is local there, by routes on loopback.
//!
//! How connections get to them: a listener a port, which the kernel understands without any help; or one listener that nf_tables hands
//! everything to, as it is (`tproxy`) or by NAT (`redirect`).

use serde::{Deserialize, Serialize};

use super::Capture;

/// A way to catch a cell's connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rung {
    /// A gateway with a listener a port.
    VethBind,
    /// A gateway; every port, by nf_tables' `tproxy`.
    VethTproxy,
    /// A gateway; every port, by nf_tables' `redirect`.
    VethRedirect,
    /// In the cell's namespace; every port, by `tproxy`. The cell cannot use port 53 itself.
    LoTproxy,
    /// In the cell's namespace; every port, by `redirect`. The cell cannot use port 53 itself.
    LoRedirect,
    /// In the cell's namespace, a listener a port: none of these ports can be used by the cell itself.
    LoBind,
}

/// How connections get to our listeners.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// Each is at its port.
    Bind,
    /// One gets everything; its sockets have the address that was asked for.
    Tproxy,
    /// One gets everything; the kernel's connection tracking knows the address that was asked for.
    Redirect,
}

/// A word that names no rung.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is no way to catch connections; there are veth-bind, veth-tproxy, veth-redirect, lo-tproxy, lo-redirect, lo-bind"
)]
pub struct NoRung(String);

impl Rung {
    /// All of them, best first.
    pub const ALL: [Self; 6] =
        [Self::VethBind, Self::VethTproxy, Self::VethRedirect, Self::LoTproxy, Self::LoRedirect, Self::LoBind];

    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::VethBind => "veth-bind",
            Self::VethTproxy => "veth-tproxy",
            Self::VethRedirect => "veth-redirect",
            Self::LoTproxy => "lo-tproxy",
            Self::LoRedirect => "lo-redirect",
            Self::LoBind => "lo-bind",
        }
    }

    /// Whether the sockets stand in the cell's own network namespace.
    #[must_use]
    pub fn is_in_cell(self) -> bool {
        matches!(self, Self::LoTproxy | Self::LoRedirect | Self::LoBind)
    }

    pub(crate) fn way(self) -> Way {
        match self {
            Self::VethBind | Self::LoBind => Way::Bind,
            Self::VethTproxy | Self::LoTproxy => Way::Tproxy,
            Self::VethRedirect | Self::LoRedirect => Way::Redirect,
        }
    }

    /// Whether it can do what is wanted: listeners are for ports that are listed.
    fn fits(self, wanted: &Capture) -> bool {
        match wanted {
            Capture::Ports(_) => true,
            Capture::Everything => self.way() != Way::Bind,
            Capture::Forward { .. } => false,
        }
    }

    /// Those of `rungs` that can do what is wanted: in a gateway, and in the cell.
    pub(super) fn fitting(rungs: &[Self], wanted: &Capture) -> (Vec<Self>, Vec<Self>) {
        rungs.iter().filter(|rung| rung.fits(wanted)).partition(|rung| !rung.is_in_cell())
    }

    /// For people, of what is caught.
    pub(crate) fn words(self, caught: &Capture) -> String {
        let how = match (self.way(), caught) {
            (Way::Bind, Capture::Ports(ports)) => format!("a listener on each of {} ports", ports.len()),
            (Way::Redirect, _) => "every port, by nf_tables (NAT)".to_owned(),
            _ => "every port, by nf_tables".to_owned(),
        };
        if self.is_in_cell() { format!("{how}, in the cell itself: this host has no veth devices") } else { how }
    }

    /// What a person should know of it before the cell runs: which ports the cell's own programs can listen on no more.
    pub(crate) fn warning(self, caught: &Capture) -> Option<String> {
        let Capture::Ports(ports) = caught else { return None };
        if self != Self::LoBind {
            return None;
        }
        let ports: std::collections::BTreeSet<u16> =
            ports.iter().copied().chain(std::iter::once(super::sockets::DNS)).collect();
        let (few, more): (Vec<String>, usize) =
            (ports.iter().take(12).map(ToString::to_string).collect(), ports.len().saturating_sub(12));
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        Some(format!(
            "this host has neither veth devices nor nf_tables for it: the network by name listens in the cell itself, where no program can \
             use the ports {}{more}",
            few.join(", ")
        ))
    }
}

impl std::fmt::Display for Rung {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

impl std::str::FromStr for Rung {
    type Err = NoRung;

    fn from_str(text: &str) -> Result<Self, NoRung> {
        Self::ALL.into_iter().find(|rung| rung.name() == text).ok_or_else(|| NoRung(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_they_are_written() {
        for rung in Rung::ALL {
            assert_eq!(rung.name().parse(), Ok(rung));
            assert_eq!(serde_json::to_string(&rung).expect("JSON"), format!("\"{rung}\""));
        }
        for wrong in ["", "lo", "Lo-bind", "veth-bind "] {
            assert!(wrong.parse::<Rung>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn listeners_are_for_listed_ports_and_a_gateway_comes_first() {
        use Rung::{LoBind, LoRedirect, LoTproxy, VethBind, VethRedirect, VethTproxy};
        let all = |wanted: &Capture| Rung::fitting(&Rung::ALL, wanted);
        let listed = Capture::Ports(vec![80]);
        assert_eq!(all(&listed), (vec![VethBind, VethTproxy, VethRedirect], vec![LoTproxy, LoRedirect, LoBind]));
        assert_eq!(all(&Capture::Everything), (vec![VethTproxy, VethRedirect], vec![LoTproxy, LoRedirect]));
        assert_eq!(Rung::fitting(&[LoBind, VethBind], &Capture::Everything), (vec![], vec![]));
        assert_eq!(all(&Capture::Forward { rules: String::new(), ports: vec![] }), (vec![], vec![]));
    }

    #[test]
    fn only_what_takes_ports_from_the_cell_is_warned_of() {
        let ports = Capture::Ports(vec![443, 22]);
        for rung in Rung::ALL {
            assert_eq!(rung.warning(&ports).is_some(), rung == Rung::LoBind, "{rung}");
        }
        let words = Rung::LoBind.warning(&ports).expect("a warning");
        assert!(words.ends_with("the ports 22, 53, 443"), "{words}");
        let many = Rung::LoBind.warning(&Capture::Ports((1000..1200).collect())).expect("a warning");
        assert!(many.ends_with("1010 and 189 more"), "{many}");
    }
}
