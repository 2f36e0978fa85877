//! placeholder
/// d
#[derive(clap::Args, Debug)]
pub(crate) struct Args {}
pub(crate) fn run(_: &Args) -> Result<i32, crate::report::CliError> { Ok(0) }
