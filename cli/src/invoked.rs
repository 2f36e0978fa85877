//! What the program was called as, before its command line is read.
//!
//! A link named `claude`, `codex` … makes it that agent: terminal managers know agents by the name of their program. And workmux puts some
//! agents' flags before the first word: `cellblock --no-daemon run codex`.

use std::ffi::{OsStr, OsString};
use std::path::Path;

use crate::report::CliError;
use crate::{agents, config, place};

/// A command line as it is to be read.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Invoked {
    /// With the program's name, as clap wants it.
    pub(crate) arguments: Vec<OsString>,
    /// Flags that stood before `run` and are the agent's.
    pub(crate) before: Vec<String>,
}

/// Looks at the name and at what stands before `run`.
pub(crate) fn invoked(arguments: Vec<OsString>) -> Result<Invoked, CliError> {
    let name = arguments.first().map(|name| Path::new(name).file_name().unwrap_or(name).to_owned());
    match name.as_deref().and_then(OsStr::to_str).filter(|name| *name != env!("CARGO_PKG_NAME")) {
        // The configuration is only read for a name that is not ours.
        Some(name) if is_agent(name)? => Ok(as_agent(name, arguments)),
        _ => Ok(sorted(arguments)),
    }
}

fn is_agent(name: &str) -> Result<bool, CliError> {
    let host = place::host()?;
    let config = config::load(&place::config_file(&host))?;
    Ok(agents::find(name, &config)?.is_some())
}

fn as_agent(name: &str, arguments: Vec<OsString>) -> Invoked {
    let front = [env!("CARGO_PKG_NAME"), "run", name].map(OsString::from);
    Invoked { arguments: front.into_iter().chain(arguments.into_iter().skip(1)).collect(), before: Vec::new() }
}

/// Takes out flags before `run` that are not ours.
fn sorted(mut arguments: Vec<OsString>) -> Invoked {
    const OURS: &[&str] = &["-h", "--help", "-V", "--version", "--"];
    let flag = |word: &OsString| {
        let text = word.to_str()?;
        (text.starts_with('-') && text.len() > 1 && !OURS.contains(&text)).then(|| text.to_owned())
    };
    let before: Vec<String> = arguments.iter().skip(1).map_while(flag).collect();
    if arguments.get(before.len() + 1).is_none_or(|word| word != "run") {
        return Invoked { arguments, before: Vec::new() };
    }
    arguments.drain(1..=before.len());
    Invoked { arguments, before }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<OsString> {
        line.split_whitespace().map(OsString::from).collect()
    }

    #[test]
    fn flags_before_run_are_the_agents() {
        let cases = [
            ("cellblock --no-daemon run codex -- P", "cellblock run codex -- P", "--no-daemon"),
            ("cellblock -a --b=c run -e A=1 codex", "cellblock run -e A=1 codex", "-a --b=c"),
            ("cellblock run codex", "cellblock run codex", ""),
            ("cellblock --no-daemon status", "cellblock --no-daemon status", ""),
            ("cellblock --help run", "cellblock --help run", ""),
            ("cellblock --no-daemon", "cellblock --no-daemon", ""),
            ("cellblock", "cellblock", ""),
        ];
        for (line, arguments, before) in cases {
            let got = sorted(words(line));
            assert_eq!((got.arguments, got.before.join(" ").as_str()), (words(arguments), before), "{line}");
        }
    }

    #[test]
    fn a_link_is_the_agent() {
        let got = as_agent("claude", words("claude -- prompt"));
        assert_eq!(got.arguments, words("cellblock run claude -- prompt"));
    }
}
