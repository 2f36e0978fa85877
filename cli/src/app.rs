//! The command line as a whole.

use std::ffi::OsString;

use clap::{CommandFactory, Parser, Subcommand};

use crate::commands;
use crate::invoked::{Invoked, invoked};
use crate::report::CliError;

/// A cell of its own for every coding agent: daemonless, rootless, in milliseconds
#[derive(Parser, Debug)]
#[command(name = "cellblock", version, max_term_width = 110, arg_required_else_help = true, subcommand_required = true)]
#[command(after_help = "Examples:
  cellblock run -- make test              run a command on the project of this folder
  cellblock run claude-code               run an agent
  cellblock shell                         look around inside
  cellblock status                        which cells run
  cellblock doctor                        what this host can do, and how to mend what it cannot")]
pub(crate) struct App {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    Run(commands::run::Args),
    Shell(commands::shell::Args),
    Exec(commands::exec::Args),
    Stop(commands::stop::Args),
    Status(commands::status::Args),
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
    App::command()
}

/// Parses `arguments` and does what they say; the exit code, or why not.
pub(crate) fn main(arguments: Vec<OsString>) -> Result<i32, CliError> {
    let Invoked { arguments, before } = invoked(arguments)?;
    let app = match App::try_parse_from(&arguments) {
        Ok(app) => app,
        Err(error) => {
            let _ = error.print();
            // Like podman and docker: a wrong command line is cellblock's own failure, never confused with a command's code.
            return Ok(if error.use_stderr() { cellblock_runtime::exit::OURS } else { 0 });
        }
    };
    match app.command {
        Command::Run(args) => commands::run::run(args, &arguments, before),
        Command::Shell(args) => commands::shell::run(args),
        Command::Exec(args) => commands::exec::run(&args),
        Command::Stop(args) => commands::stop::run(&args),
        Command::Status(args) => commands::status::run(&args),
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
