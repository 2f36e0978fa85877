//! The command line as a whole.

use std::ffi::OsString;

use clap::error::{ContextKind, ContextValue};
use clap::{FromArgMatches, Subcommand};

use crate::args::values::nearest;
use crate::commands;
use crate::invoked::{Invoked, invoked};
use crate::report::CliError;

#[derive(Subcommand, Debug)]
enum Command {
    Run(commands::run::Args),
    Shell(commands::shell::Args),
    Exec(commands::exec::Args),
    Stop(commands::stop::Args),
    Status(commands::status::Args),
    Remove(commands::remove::Args),
    Inspect(commands::inspect::Args),
    Logs(commands::logs::Args),
    Net(commands::net::Args),
    Agent(commands::agent::Args),
    Image(commands::image::Args),
    Bundle(commands::bundle::Args),
    Config(commands::config::Args),
    Doctor(commands::doctor::Args),
    Completions(commands::completions::Args),
    Man(commands::man::Args),
}

/// The command tree, for completions and the manual.
pub(crate) fn command() -> clap::Command {
    Command::augment_subcommands(root())
}

/// `cellblock` without its commands.
fn root() -> clap::Command {
    clap::Command::new("cellblock")
        .about("A cell of its own for every coding agent: daemonless, rootless, in milliseconds")
        .version(env!("CARGO_PKG_VERSION"))
        .max_term_width(110)
        .arg_required_else_help(true)
        .subcommand_required(true)
        .after_help(
            "Examples:
  cellblock run -- make test              run a command on the project of this folder
  cellblock run claude-code               run an agent
  cellblock shell                         look around inside
  cellblock status                        which cells run
  cellblock doctor                        what this host can do, and how to mend what it cannot",
        )
}

/// Parses what was typed.
fn parse(arguments: &[OsString]) -> Result<Command, clap::Error> {
    // Most starts of this program are one of these, and building all of the tree would take a tenth of the time that such a start may take.
    match arguments.get(1).and_then(|word| word.to_str()) {
        Some("run") => only("run", arguments).map(Command::Run),
        Some("shell") => only("shell", arguments).map(Command::Shell),
        Some("exec") => only("exec", arguments).map(Command::Exec),
        _ => {
            let mut tree = command();
            let matches = tree.try_get_matches_from_mut(arguments).map_err(|error| with_a_near_one(error, &tree))?;
            Command::from_arg_matches(&matches)
        }
    }
}

/// Says which command was meant by a short word with a slip in it, for which clap has no tip.
fn with_a_near_one(mut error: clap::Error, tree: &clap::Command) -> clap::Error {
    let names = tree.get_subcommands().map(clap::Command::get_name);
    if let Some(ContextValue::String(typed)) = error.get(ContextKind::InvalidSubcommand)
        && error.get(ContextKind::SuggestedSubcommand).is_none()
        && let Some(near) = nearest(typed, names)
    {
        error.insert(ContextKind::SuggestedSubcommand, ContextValue::Strings(vec![near]));
    }
    error
}

/// Parses the arguments of the command `name`, which is the first of them.
fn only<A: clap::Args>(name: &'static str, arguments: &[OsString]) -> Result<A, clap::Error> {
    let mut tree = root().subcommand(A::augment_args(clap::Command::new(name)));
    let mut matches = tree.try_get_matches_from_mut(arguments)?;
    let own = matches.remove_subcommand();
    let (_, mut own) = own.ok_or_else(|| tree.error(clap::error::ErrorKind::MissingSubcommand, ""))?;
    A::from_arg_matches_mut(&mut own).map_err(|error| error.format(&mut tree))
}

/// Parses `arguments` and does what they say; the exit code, or why not.
pub(crate) fn main(arguments: Vec<OsString>) -> Result<i32, CliError> {
    let Invoked { arguments, before } = invoked(arguments)?;
    let command = match parse(&arguments) {
        Ok(command) => command,
        Err(error) => {
            let _ = error.print();
            // Like podman and docker: a wrong command line is cellblock's own failure, never confused with a command's code.
            return Ok(if error.use_stderr() { cellblock_runtime::exit::OURS } else { 0 });
        }
    };
    match command {
        Command::Run(args) => commands::run::run(args, &arguments, before),
        Command::Shell(args) => commands::shell::run(args),
        Command::Exec(args) => commands::exec::run(&args),
        Command::Stop(args) => commands::stop::run(&args),
        Command::Status(args) => commands::status::run(&args),
        Command::Remove(args) => commands::remove::run(&args),
        Command::Inspect(args) => commands::inspect::run(&args),
        Command::Logs(args) => commands::logs::run(&args),
        Command::Net(args) => commands::net::run(&args, &arguments),
        Command::Agent(args) => commands::agent::run(&args),
        Command::Image(args) => commands::image::run(args),
        Command::Bundle(args) => commands::bundle::run(args),
        Command::Config(args) => commands::config::run(&args),
        Command::Doctor(args) => commands::doctor::run(&args),
        Command::Completions(args) => commands::completions::run(&args),
        Command::Man(args) => commands::man::run(&args),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<OsString> {
        line.split(' ').map(OsString::from).collect()
    }

    fn in_the_tree(arguments: &[OsString]) -> Result<Command, clap::Error> {
        let mut tree = command();
        let matches = tree.try_get_matches_from_mut(arguments)?;
        Command::from_arg_matches(&matches)
    }

    #[test]
    fn a_command_by_itself_is_the_one_of_the_tree() {
        for line in [
            "cellblock run --help",
            "cellblock run -h",
            "cellblock run --no-such-flag",
            "cellblock run --net nowhere -- true",
            "cellblock shell --help",
            "cellblock exec --help",
            "cellblock exec",
        ] {
            let (one, other) = (parse(&words(line)).expect_err(line), in_the_tree(&words(line)).expect_err(line));
            assert_eq!(one.render().ansi().to_string(), other.render().ansi().to_string(), "{line}");
            assert_eq!(one.exit_code(), other.exit_code(), "{line}");
        }
        for line in [
            "cellblock run -- true",
            "cellblock run --net none -v /a:/b -- make -j",
            "cellblock shell",
            "cellblock exec x -- ls -l",
        ] {
            let (one, other) = (parse(&words(line)).expect(line), in_the_tree(&words(line)).expect(line));
            assert_eq!(format!("{one:?}"), format!("{other:?}"), "{line}");
        }
    }

    #[test]
    fn the_tree_is_sound() {
        command().debug_assert();
    }
}
