//! All ports: nf_tables sends connections to any port to one listener. Only for policies with more ports than there can be listeners.

use std::io::{self, Write};
use std::process::{Command, Stdio};

use super::sockets::CAPTURE;
use super::uplink::{program, with_capabilities};

/// Has every TCP connection that reaches this thread's network namespace handed to the listener at [`CAPTURE`], as it is: the listener's
/// sockets have the address and port that were asked for (`tproxy`).
///
/// # Errors
/// Those of [`load`].
pub(super) fn everything() -> io::Result<()> {
    load(&rules())
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
