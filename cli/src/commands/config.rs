//! `cellblock config`.

use crate::output::{data, json, say};
use crate::report::CliError;
use crate::resolve::HostFacts;
use crate::{config, place};

/// Look at, check and edit the configuration
#[derive(clap::Args, Debug)]
#[command(arg_required_else_help = true)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand, Debug)]
enum Command {
    /// Print what the configuration says, as it was understood
    Show {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Check the configuration; exit code 0 if it is good
    Check,
    /// Print the path of the configuration file
    Path,
    /// Open it in $VISUAL or $EDITOR, and check it afterwards
    Edit,
    /// Print the JSON schema, for editors
    Schema,
}

/// What a new file starts with.
const TEMPLATE: &str = "# cellblock configuration; `cellblock config schema` says what may stand here.
defaults:
  image: auto
  network: names
#  allow: ['@dev', '*.example.com:443']
#  env: [MIX_ENV=dev, DATABASE_URL]
#projects:
#  web:
#    path: ~/work/web
#    mounts: [~/work/shared-libs:/shared-libs:ro]
";

pub(crate) fn run(args: &Args) -> Result<i32, CliError> {
    let host = place::host()?;
    let path = place::config_file(&host);
    match args.command {
        Command::Path => data(&format!("{}\n", path.display()))?,
        Command::Schema => json(&config::schema())?,
        Command::Check => {
            config::load(&path)?;
            say(&format!(
                "{} is {}.",
                path.display(),
                if path.exists() { "good" } else { "not there, which is good: the defaults hold" }
            ));
        }
        Command::Show { json: as_json } => {
            let config = config::load(&path)?;
            if as_json {
                json(&config)?;
            } else {
                match std::fs::read_to_string(&path) {
                    Ok(text) => data(&text)?,
                    Err(_) => say(&format!("{} does not exist: the defaults hold.", path.display())),
                }
            }
        }
        Command::Edit => edit(&host)?,
    }
    Ok(0)
}

fn edit(host: &HostFacts) -> Result<(), CliError> {
    let path = place::config_file(host);
    let failed = |source| CliError::File { what: "cannot write", path: path.clone(), source };
    if !path.exists() {
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).map_err(failed)?;
        }
        std::fs::write(&path, TEMPLATE).map_err(failed)?;
    }
    let editor = ["VISUAL", "EDITOR"].iter().find_map(|v| host.env.get(*v)).map_or("vi", String::as_str);
    // An editor is often given with arguments ("code --wait"), as git allows.
    let mut words = editor.split_whitespace();
    let status = std::process::Command::new(words.next().unwrap_or("vi"))
        .args(words)
        .arg(&path)
        .status()
        .map_err(|source| CliError::Process { what: "cannot start the editor", source })?;
    if !status.success() {
        return Err(CliError::plain("the editor failed", "set EDITOR to the one you use"));
    }
    config::load(&path)?;
    Ok(())
}
