//! The words after the flags: a command, or an agent with its arguments.
//!
//! `run [FLAGS] -- CMD ARGS` runs exactly those words. `run [FLAGS] AGENT ARGS [-- ARGS]` is the agent form: everything after
//! the agent's name is the agent's, even what looks like a flag of ours, except that the first `--` is taken away; so a
//! prompt after it may begin with a dash, and a second `--` reaches the agent.

use std::ffi::OsString;

/// What is to run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Words {
    /// The person's shell, interactively.
    #[default]
    Shell,
    /// These words as they are.
    Command(Vec<String>),
    /// An agent.
    Agent {
        /// Its name as typed; [`agent_program`] says which program that is.
        name: String,
        /// Its arguments.
        args: Vec<String>,
    },
}

/// Agents whose program has another name than people call them by.
const AGENT_PROGRAMS: &[(&str, &str)] = &[
    // Anthropic's package is claude-code, its program `claude`.
    ("claude-code", "claude"),
];

/// The program of an agent.
pub(crate) fn agent_program(name: &str) -> &str {
    AGENT_PROGRAMS.iter().find(|(agent, _)| *agent == name).map_or(name, |(_, program)| program)
}

impl Words {
    /// Sorts the trailing words that clap collected. `argv` is the whole command line: clap takes away a `--` before the first
    /// word, and only there can be seen whether it stood there.
    pub(crate) fn from_trailing(argv: &[OsString], words: Vec<String>) -> Self {
        let before = argv.len().checked_sub(words.len() + 1).and_then(|at| argv.get(at));
        if words.is_empty() || before.is_some_and(|word| word == "--") {
            Self::Command(words)
        } else {
            let mut words = words.into_iter();
            let name = words.next().unwrap_or_default();
            let mut args: Vec<String> = words.collect();
            if let Some(at) = args.iter().position(|word| word == "--") {
                args.remove(at);
            }
            Self::Agent { name, args }
        }
    }

    /// The program and its arguments; `shell` stands for [`Words::Shell`].
    pub(crate) fn argv(&self, shell: &str) -> Vec<String> {
        match self {
            Self::Shell => vec![shell.to_owned()],
            Self::Command(words) => words.clone(),
            Self::Agent { name, args } => {
                std::iter::once(agent_program(name).to_owned()).chain(args.iter().cloned()).collect()
            }
        }
    }

    /// What the cell's name ends in: the agent, or the file name of the command.
    pub(crate) fn short_name(&self) -> &str {
        match self {
            Self::Shell => "shell",
            Self::Command(words) => words.first().map_or("", |word| word.rsplit('/').next().unwrap_or(word)),
            Self::Agent { name, .. } => name.rsplit('/').next().unwrap_or(name),
        }
    }
}
