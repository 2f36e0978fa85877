//! All ports: nf_tables sends connections to any port to one listener. For policies with more ports than there can be listeners, and where
//! listeners would be in the cell's way.

use std::io::{self, Write};
use std::process::{Command, Stdio};

use super::rung::{Rung, Way};
use super::sockets::DNS;
use super::uplink::{program, with_capabilities};
use super::{CELL, CELL_V6};

/// Has every TCP connection that reaches this thread's network namespace, or with a rung inside the cell starts there, handed to the listener
/// at `port`.
///
/// # Errors
/// Those of [`load`].
pub(super) fn everything(rung: Rung, port: u16, v6: bool) -> io::Result<()> {
    load(&rules(rung, port, v6))
}

/// Loads `rules` in this thread's network namespace.
///
/// # Errors
/// `NotFound` where there is no `nft`; else what it said.
pub(super) fn load(rules: &str) -> io::Result<()> {
    let program = program("nft").ok_or(io::ErrorKind::NotFound)?;
    let mut command = Command::new(program);
    command.args(["-f", "-"]).env_clear().stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = with_capabilities(|| command.spawn())??;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(rules.as_bytes())?;
    }
    let done = child.wait_with_output()?;
    if done.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&done.stderr);
    Err(io::Error::other(format!("nft: {}", said.lines().next().unwrap_or("failed").trim())))
}

/// Port 53 has its own sockets. What a cell says to itself is not caught, nor are answers to it. A table of a process that has died is
/// replaced, in one step.
fn rules(rung: Rung, port: u16, v6: bool) -> String {
    let (hook, verdict) = match (rung.way(), rung.is_in_cell()) {
        (Way::Redirect, false) => ("type nat hook prerouting priority -100", format!("redirect to :{port}")),
        (Way::Redirect, true) => ("type nat hook output priority -100", format!("redirect to :{port}")),
        // Behind loopback all packets come in again, and it is there that they can be handed over.
        _ => ("type filter hook prerouting priority mangle", format!("tproxy to :{port} accept")),
    };
    let own = [
        ("ip", format!("ip daddr != {{ 127.0.0.0/8, {CELL} }} ")),
        ("ip6", format!("ip6 daddr != {{ ::1, {CELL_V6} }} ")),
    ];
    own.iter()
        .take(if v6 { 2 } else { 1 })
        .map(|(family, own)| {
            let own = if rung.is_in_cell() { own } else { "" };
            format!(
                "table {family} cellblock\ndelete table {family} cellblock\ntable {family} cellblock {{\n chain capture {{\n  {hook}\n  \
                 {own}tcp dport != {DNS} {verdict}\n }}\n}}\n"
            )
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_cell_says_to_itself_is_caught_by_no_rung() {
        for rung in Rung::ALL {
            let text = rules(rung, 4711, true);
            assert_eq!(
                text.matches("!= { 127.0.0.0/8, 198.18.0.2 }").count(),
                usize::from(rung.is_in_cell()),
                "{text}"
            );
            assert_eq!(text.matches("!= { ::1, ").count(), usize::from(rung.is_in_cell()), "{text}");
            assert_eq!(text.matches("dport != 53").count(), 2, "{text}");
            assert_eq!(text.matches(":4711").count(), 2, "{text}");
            assert!(!rules(rung, 1, false).contains("ip6"), "a kernel without IPv6 has no such table");
        }
        assert!(rules(Rung::LoRedirect, 1, false).contains("nat hook output"));
        assert!(rules(Rung::VethRedirect, 1, false).contains("nat hook prerouting"));
        assert!(rules(Rung::LoTproxy, 1, false).contains("filter hook prerouting"));
    }
}
