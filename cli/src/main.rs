//! `cellblock`: a cell of its own for every coding agent.
//!
//! The program as a story: a hidden job of our own (the second life of a start, in OUTER) or a command line; the command does its
//! work and gives an exit code, or an error that is told once, here.

mod agents;
mod app;
mod args;
mod audit;
mod brokers;
mod canonical;
mod commands;
mod config;
mod export;
mod images;
mod invoked;
mod job;
mod login_shell;
mod output;
mod place;
mod project;
mod report;
mod resolve;
mod rungs;
mod sandbox_md;
mod secrets;
mod signing;

use crate::report::CliError;

/// In the program of `ci/dist`: musl's own is too slow for short lives.
#[cfg(target_env = "musl")]
#[global_allocator]
static HEAP: cellblock_sys::heap::Heap = cellblock_sys::heap::Heap::new();

#[expect(clippy::disallowed_methods, reason = "the one place where the process ends")]
fn main() {
    let sealed = cellblock_sys::start::seal();
    let sealed = sealed.map_err(|source| CliError::Process { what: "cannot protect the program's constants", source });
    std::process::exit(sealed.and_then(|()| run()).unwrap_or_else(|error| report::tell(&error)));
}

fn run() -> Result<i32, CliError> {
    let arguments: Vec<std::ffi::OsString> = std::env::args_os().collect();
    if arguments.get(1).is_some_and(|a| a == job::WORD) {
        job::main(arguments.get(2..).unwrap_or_default())
    } else if arguments.get(1).is_some_and(|a| a == commands::net::probe::WORD) {
        let tries = arguments.get(2).and_then(|tries| tries.to_str());
        commands::net::probe::main(tries).map_or(Ok(1), |found| output::data(&found).map(|()| 0))
    } else {
        app::main(arguments)
    }
}
