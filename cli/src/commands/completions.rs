//! `cellblock completions`.

use crate::output::data;
use crate::report::CliError;

/// Print a completion script for a shell
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  cellblock completions bash > ~/.local/share/bash-completion/completions/cellblock
  cellblock completions zsh > ~/.zfunc/_cellblock
  cellblock completions fish > ~/.config/fish/completions/cellblock.fish")]
pub(crate) struct Args {
    /// The shell
    shell: clap_complete::Shell,
}

pub(crate) fn run(args: &Args) -> Result<i32, CliError> {
    let mut bytes = Vec::new();
    clap_complete::generate(args.shell, &mut crate::app::command(), "cellblock", &mut bytes);
    data(&String::from_utf8_lossy(&bytes))?;
    Ok(0)
}
