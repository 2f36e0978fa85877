//! How the person signs commits, made fit for a cell, which has neither their keys nor a way to their gpg agent.
//!
//! Their global configuration says it: with a key of the ssh agent, which the cell's ssh signs with by the agent's socket; or with OpenPGP, where what
//! stands for gpg inside has the person's gpg sign outside. Only their own git is asked, where no repository has a say.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};

use cellblock_broker::agent::wire;
use cellblock_bundle::Cell;
use cellblock_bundle::cell::{SHIMS, Signer};

use crate::brokers::{GPG, add_git_setting, safe_environment};
use crate::output::say;
use crate::report::CliError;
use crate::resolve::{HostFacts, Origin, Resolved, typed_path};

/// Settings that are taken over as they are.
const SWITCHES: &[&str] = &["commit.gpgsign", "tag.gpgsign"];

/// The person's global configuration of git, `KEY\nVALUE` between zero bytes.
struct Global(String);

impl Global {
    /// By a git that the cell cannot have put there.
    fn read(env: &BTreeMap<String, String>) -> Result<Self, String> {
        let mut command = Command::new("git");
        command.env_clear().envs(env).args(["config", "--global", "--includes", "--null", "--list"]);
        let output = command.stdin(Stdio::null()).stderr(Stdio::null()).current_dir("/").output();
        let output = output.map_err(|error| format!("git: {error}"))?;
        Ok(Self(String::from_utf8_lossy(&output.stdout).into_owned()))
    }

    fn value(&self, key: &str) -> Option<&str> {
        // Of several the last counts.
        let mut all = self.0.split('\0').filter_map(|entry| entry.split_once('\n'));
        all.rfind(|(name, _)| *name == key).map(|(_, value)| value)
    }
}

/// Arranges it, if the cell is to sign. What is impossible is an error where a flag asks for it, else something to be told.
pub(crate) fn arrange(resolved: &mut Resolved, host: &HostFacts) -> Result<(), CliError> {
    let Some(origin) = resolved.signing.clone() else { return Ok(()) };
    let settings = Global::read(&safe_environment(&resolved.cell, &host.env)).and_then(|global| {
        let (mut settings, signer) = match global.value("gpg.format").unwrap_or("openpgp") {
            "ssh" if resolved.cell.brokers.ssh_agent.is_none() => {
                return Err(
                    "your git signs with ssh keys, for which the cell needs `--ssh-agent`, or `ssh_agent: true`"
                        .to_owned(),
                );
            }
            "ssh" => (by_ssh(&global, host)?, None),
            "openpgp" => {
                let signer = by_gpg(&global, &resolved.cell)?;
                (gpg_settings(&signer), Some(signer))
            }
            other => {
                return Err(format!("your git signs with `{other}` (gpg.format), which is not possible in a cell"));
            }
        };
        let switches = SWITCHES.iter().filter_map(|name| Some((*name, global.value(name)?.to_owned())));
        settings.extend(switches);
        resolved.cell.brokers.signer = signer;
        Ok(settings)
    });
    match settings {
        Ok(settings) => {
            settings.iter().for_each(|(key, value)| add_git_setting(&mut resolved.cell.env, key, value));
            Ok(())
        }
        Err(why) if matches!(origin, Origin::Flag(_)) => Err(CliError::plain(
            format!("{origin}: {why}"),
            "docs/ssh.md says what is needed; without the flag commits are not signed",
        )),
        Err(why) => {
            say(&format!("cellblock: commit_signing: {why}; commits are not signed"));
            Ok(())
        }
    }
}

/// The key by its public half, for the cell has no file of it.
fn by_ssh(global: &Global, host: &HostFacts) -> Result<Vec<(&'static str, String)>, String> {
    let key = global.value("user.signingkey").ok_or("your git has no user.signingkey")?;
    let key = match key.strip_prefix("key::") {
        Some(literal) => literal.to_owned(),
        None if key.starts_with("ssh-") => key.to_owned(),
        None => {
            let path = typed_path(key, host).map_err(|error| format!("user.signingkey {key}: {error}"))?;
            let public = if path.ends_with(".pub") { path } else { format!("{path}.pub") };
            std::fs::read_to_string(&public).map_err(|error| format!("user.signingkey: {public}: {error}"))?
        }
    };
    let key = key.trim();
    wire::public_key(key).ok_or_else(|| format!("user.signingkey is no public key: {key}"))?;
    Ok(vec![("gpg.format", "ssh".to_owned()), ("user.signingkey", format!("key::{key}"))])
}

/// What the person's git would call. Nothing is run from where the cell can write.
fn by_gpg(global: &Global, cell: &Cell) -> Result<Signer, String> {
    let program = global.value("gpg.openpgp.program").or_else(|| global.value("gpg.program")).unwrap_or("gpg");
    if program.contains('/') {
        let real = Path::new(program).canonicalize().map_err(|error| format!("gpg.program {program}: {error}"))?;
        let mut writable = cell.writable_sources();
        if !program.starts_with('/') || writable.any(|own| real.starts_with(own) || Path::new(program).starts_with(own))
        {
            return Err(format!("gpg.program {program} is no program outside of what the cell can change"));
        }
    }
    // As git does without user.signingkey.
    let person = || Some(format!("{} <{}>", global.value("user.name")?, global.value("user.email")?));
    let key = global.value("user.signingkey").map(str::to_owned).or_else(person);
    let key = key.ok_or("your git has neither user.signingkey nor user.name and user.email")?;
    Ok(Signer { program: program.into(), key })
}

fn gpg_settings(signer: &Signer) -> Vec<(&'static str, String)> {
    vec![
        ("gpg.format", "openpgp".to_owned()),
        ("gpg.program", format!("{SHIMS}/{GPG}")),
        ("user.signingkey", signer.key.clone()),
    ]
}

#[cfg(test)]
mod tests {
    use cellblock_bundle::Mount;

    use super::*;

    fn global(pairs: &[(&str, &str)]) -> Global {
        Global(pairs.iter().map(|(key, value)| format!("{key}\n{value}\0")).collect())
    }

    #[test]
    fn gpg_is_the_one_that_git_would_call_unless_the_cell_could_change_it() {
        let mut cell: Cell = serde_json::from_str(include_str!("resolve/tests/golden/command.json")).expect("a cell");
        let of = |pairs: &[(&str, &str)], cell: &Cell| by_gpg(&global(pairs), cell).map(|s| (s.program, s.key));
        let name = [("user.name", "Ada"), ("user.email", "a@b")];
        assert_eq!(of(&name, &cell), Ok(("gpg".into(), "Ada <a@b>".to_owned())));
        assert_eq!(
            of(&[("user.signingkey", "A1"), ("user.signingkey", "B2")], &cell),
            Ok(("gpg".into(), "B2".to_owned()))
        );
        assert!(of(&[], &cell).is_err());
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().canonicalize().expect("canonical").join("gpg2");
        std::fs::write(&path, "").expect("written");
        let own = [("user.signingkey", "A1"), ("gpg.program", path.to_str().expect("UTF-8"))];
        assert_eq!(of(&own, &cell), Ok((path.clone(), "A1".to_owned())));
        let root = path.parent().expect("a folder").to_owned();
        cell.mounts = vec![Mount::Bind { source: root.clone(), target: root, writable: true }];
        assert!(of(&own, &cell).is_err_and(|why| why.contains("the cell can change")));
        assert!(of(&[("user.signingkey", "A1"), ("gpg.program", "./gpg")], &cell).is_err());
    }
}
