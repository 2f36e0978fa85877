//! Reads the values of secrets on the host, at the start of a cell and no sooner: nothing that only shows a plan has them in memory.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use cellblock_egress::serve::Hidden;

use crate::args::values::Source;
use crate::report::CliError;
use crate::resolve::{HostFacts, SecretWanted, typed_path};

/// Longest value in bytes: servers take no longer header.
const MAX: usize = 8192;

/// Where hosts keep their root certificates in one file: Debian and Alpine, Fedora, SUSE, BSDs and others, NixOS.
const ROOTS: &[&str] = &[
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
];

/// The host's file of root certificates: what the person's tools use.
pub(crate) fn roots(host: &HostFacts) -> Option<PathBuf> {
    let said = host.env.get("SSL_CERT_FILE").filter(|path| !path.is_empty()).map(PathBuf::from);
    said.or_else(|| ROOTS.iter().map(PathBuf::from).find(|path| path.exists()))
}

/// The value of a secret.
pub(crate) fn read(wanted: &SecretWanted, host: &HostFacts) -> Result<Hidden, CliError> {
    let failed = |why: String| {
        CliError::plain(
            format!("{}: the secret {} cannot be read: {why}", wanted.origin, wanted.spec.variable),
            "the value is read on the host, from env:NAME, file:PATH or cmd:COMMAND",
        )
    };
    let text = match &wanted.spec.source {
        Source::Env(name) => host.env.get(name).cloned().ok_or_else(|| failed(format!("${name} is not set")))?,
        Source::File(path) => {
            let path = typed_path(path, host).map_err(|e| failed(e.to_string()))?;
            std::fs::read_to_string(host.cwd.join(&path)).map_err(|e| failed(format!("{path}: {e}")))?
        }
        Source::Command(words) => command(words).map_err(failed)?,
    };
    let value = text.trim_end_matches(['\n', '\r']);
    match value {
        "" => Err(failed("it is empty".to_owned())),
        long if long.len() > MAX => Err(failed(format!("it has more than {MAX} bytes"))),
        odd if odd.contains(|c: char| c.is_control()) => {
            Err(failed("it has line ends or control characters".to_owned()))
        }
        fine => Ok(Hidden(fine.to_owned())),
    }
}

/// What a command of the person's prints. Its own words go to the person; what it printed is in no message.
fn command(words: &str) -> Result<String, String> {
    let output = Command::new("/bin/sh").args(["-c", words]).stdin(Stdio::inherit()).stderr(Stdio::inherit()).output();
    let output = output.map_err(|e| format!("/bin/sh: {e}"))?;
    if !output.status.success() {
        return Err(format!("`{words}` ended with {}", output.status));
    }
    String::from_utf8(output.stdout).map_err(|_| format!("`{words}` printed something else than text"))
}
