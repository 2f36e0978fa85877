//! All ports: nf_tables sends connections to any port to one listener. Only for policies with more ports than there can be listeners.

use std::io::{self, Write};
use std::process::{Command, Stdio};

use rustix::thread::{CapabilitySet, CapabilitySets};

use super::sockets::CAPTURE;

/// Where the program lies; the environment is empty here.
const PROGRAMS: &[&str] = &["/usr/sbin/nft", "/sbin/nft", "/usr/bin/nft", "/run/current-system/sw/bin/nft"];

/// Has every TCP connection that reaches this thread's network namespace handed to the listener at [`CAPTURE`], as it is: the listener's
/// sockets have the address and port that were asked for (`tproxy`).
///
/// # Errors
/// `NotFound` where there is no `nft`; else what it said.
pub(super) fn everything() -> io::Result<()> {
    let program = PROGRAMS.iter().find(|p| std::path::Path::new(p).exists()).ok_or(io::ErrorKind::NotFound)?;
    hand_down(true)?;
    let mut child = Command::new(program)
        .args(["-f", "-"])
        .env_clear()
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()?;
    let rules = rules();
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(rules.as_bytes())?;
    }
    let done = child.wait_with_output()?;
    hand_down(false)?;
    if done.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&done.stderr);
    Err(io::Error::other(format!("nft: {}", said.lines().next().unwrap_or("failed").trim())))
}

/// Whether programs that this thread starts may change the network of its user namespace: without root inside, `exec` takes that from them.
fn hand_down(yes: bool) -> io::Result<()> {
    let now = rustix::thread::capabilities(None)?;
    let inheritable = if yes { CapabilitySet::NET_ADMIN } else { CapabilitySet::empty() };
    rustix::thread::set_capabilities(None, CapabilitySets { inheritable, ..now })?;
    Ok(rustix::thread::configure_capability_in_ambient_set(CapabilitySet::NET_ADMIN, yes)?)
}

/// Port 53 has its own sockets.
fn rules() -> String {
    ["ip", "ip6"]
        .map(|family| {
            format!(
                "table {family} cellblock {{\n chain capture {{\n  type filter hook prerouting priority mangle\n  \
                 tcp dport != 53 tproxy to :{CAPTURE} accept\n }}\n}}\n"
            )
        })
        .concat()
}
