//! `cellblock net`: to see what a cell's network decides, and to steer it.
//!
//! What is seen comes from the audit's file, which outlives the cell; what is in force and what is changed goes through the socket of the
//! running cell.

mod keys;
mod log;
mod names;
mod pause;
pub(crate) mod probe;
mod questions;
mod read;
pub(crate) mod saved;
mod show;
mod steer;
mod suggest;
mod test;
mod watch;
mod which;
mod words;

use std::ffi::OsString;
use std::time::Duration;

use crate::place;
use crate::report::CliError;

/// See what a cell reaches over the network, and change what it may
#[derive(clap::Args, Debug)]
#[command(
    arg_required_else_help = true,
    after_help = "Examples:
  cellblock net log --denied           what was refused
  cellblock net allow example.com      let the running cell of this project reach it
  cellblock net watch                  be asked about each refusal
  cellblock net suggest                the rules that would have been enough
  cellblock net test                   prove that nothing else can be reached"
)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand, Debug)]
enum Command {
    Log(log::Args),
    Show(show::Args),
    Allow(steer::AllowArgs),
    Deny(steer::DenyArgs),
    Forget(steer::ForgetArgs),
    Watch(watch::Args),
    Suggest(suggest::Args),
    Test(Box<test::Args>),
}

/// `typed` is the whole command line.
pub(crate) fn run(args: &Args, typed: &[OsString]) -> Result<i32, CliError> {
    let host = place::host()?;
    match &args.command {
        Command::Log(args) => log::run(args, &host),
        Command::Show(args) => show::run(args, &host),
        Command::Allow(args) => steer::allow(args, &host),
        Command::Deny(args) => steer::deny(args, &host),
        Command::Forget(args) => steer::forget(args, &host),
        Command::Watch(args) => watch::run(args, &host),
        Command::Suggest(args) => suggest::run(args, &host),
        Command::Test(args) => test::run(args, typed),
    }
}

/// Reads a length of time such as `10m` or `1h30m`.
fn duration(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(time) if time >= Duration::from_secs(1) => Ok(time),
        _ => Err("a time is at least a second and written as 30s, 10m, 2h or 1d".to_owned()),
    }
}
