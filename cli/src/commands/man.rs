//! `cellblock man`.

use std::path::PathBuf;

use crate::output::data;
use crate::report::CliError;

/// Print the manual page, or write one for each command
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  cellblock man | man -l -
  cellblock man --output ~/.local/share/man/man1")]
pub(crate) struct Args {
    /// Write a page for every command into this folder
    #[arg(short = 'o', long, value_name = "DIR")]
    output: Option<PathBuf>,
}

pub(crate) fn run(args: &Args) -> Result<i32, CliError> {
    let command = crate::app::command();
    if let Some(dir) = &args.output {
        let failed = |source| CliError::File { what: "cannot write", path: dir.clone(), source };
        std::fs::create_dir_all(dir).map_err(failed)?;
        clap_mangen::generate_to(command, dir).map_err(failed)?;
        return Ok(0);
    }
    let mut bytes = Vec::new();
    clap_mangen::Man::new(command).render(&mut bytes).map_err(CliError::Output)?;
    data(&String::from_utf8_lossy(&bytes))?;
    Ok(0)
}
