//! `cellblock config`.

use crate::facts::Facts;
use crate::output::{data, json, say};
use crate::report::CliError;
use crate::settings;

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
  network: none
#  env: [MIX_ENV=dev, DATABASE_URL]
#projects:
#  web:
#    path: ~/work/web
#    mounts: [~/work/shared-libs:/shared-libs:ro]
";

pub(crate) fn run(args: &Args) -> Result<i32, CliError> {
    let facts = Facts::gather()?;
    let path = facts.config_file();
    match args.command {
        Command::Path => data(&format!("{}\n", path.display()))?,
        Command::Schema => json(&settings::schema())?,
        Command::Check => {
            settings::read(&path)?;
            say(&format!(
                "{} is {}.",
                path.display(),
                if path.exists() { "good" } else { "not there, which is good: the defaults hold" }
            ));
        }
        Command::Show { json: as_json } => {
            let settings = settings::read(&path)?;
            if as_json {
                json(&settings)?;
            } else {
                match std::fs::read_to_string(&path) {
                    Ok(text) => data(&text)?,
                    Err(_) => say(&format!("{} does not exist: the defaults hold.", path.display())),
                }
            }
        }
        Command::Edit => edit(&facts)?,
    }
    Ok(0)
}

fn edit(facts: &Facts) -> Result<(), CliError> {
    let path = facts.config_file();
    let failed = |source| CliError::File { what: "cannot write", path: path.clone(), source };
    if !path.exists() {
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).map_err(failed)?;
        }
        std::fs::write(&path, TEMPLATE).map_err(failed)?;
    }
    let editor = ["VISUAL", "EDITOR"].iter().find_map(|v| facts.env.get(*v)).map_or("vi", String::as_str);
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
    settings::read(&path)?;
    Ok(())
}
