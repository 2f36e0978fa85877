//! The words after the flags: a command, or an agent with its arguments.
//!
//! `run [FLAGS] -- CMD ARGS` runs exactly those words. `run [FLAGS] AGENT ARGS [-- ARGS]` is the agent form: everything after
//! the agent's name is the agent's, even what looks like a flag of ours, but for [`OWN`], and except that the first `--` is taken away; so
//! a prompt after it may begin with a dash, and a second `--` reaches the agent.

use std::ffi::OsString;

use super::StartFlags;

/// What a flag does.
type Set = fn(&mut StartFlags);

/// Flags that are cellblock's wherever they stand before the first `--`.
const OWN: &[(&str, Set)] = &[
    ("--check", |start| start.check = true),
    ("--dry-run", |start| start.dry_run = true),
    ("--yes", |start| start.yes = true),
];

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
        /// Its name as typed.
        name: String,
        /// Its arguments.
        args: Vec<String>,
    },
}

impl Words {
    /// Sorts the trailing words of `run`: takes out the flags that are cellblock's, and puts `before`, which stood before `run`, in front of an
    /// agent's own arguments.
    pub(crate) fn for_run(argv: &[OsString], words: Vec<String>, before: Vec<String>, start: &mut StartFlags) -> Self {
        let own = words.iter().take_while(|word| *word != "--").count();
        let mut words = Self::from_trailing(argv, words);
        if let Self::Agent { args, .. } = &mut words {
            let mut at = 0;
            // The name is not among the arguments.
            let own = own.saturating_sub(1);
            args.retain(|arg| {
                let mine = OWN.iter().find(|(flag, _)| at < own && flag == arg);
                at += 1;
                mine.inspect(|(_, set)| set(start)).is_none()
            });
            args.splice(0..0, before);
        }
        words
    }

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
            Self::Agent { name, args } => std::iter::once(name).chain(args).cloned().collect(),
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
