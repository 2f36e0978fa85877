//! `cellblock image`.

use std::path::{Path, PathBuf};

use cellblock_bundle::{IdScheme, Ids};
use cellblock_rootfs::images::Store;

use crate::args::values::Userns;
use crate::commands::ago;
use crate::images::{self, ImageError};
use crate::job::{Job, run_in_outer};
use crate::output::{data, json, say, table};
use crate::project::sanitise;
use crate::report::CliError;
use crate::resolve::{HostFacts, ids_for};
use crate::{config, place};

/// Work with stored images
#[derive(clap::Args, Debug)]
#[command(
    arg_required_else_help = true,
    after_help = "Examples:
  cellblock image pull alpine
  cellblock image load alpine-minirootfs-3.20.3-x86_64.tar.gz --name alpine
  cellblock image list"
)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand, Debug)]
enum Command {
    /// Fetch an Alpine release: `alpine`, `alpine:3.20`, `alpine:3.20.3`
    ///
    /// Checksums of some releases are built in; others are taken from Alpine's index, over HTTPS only. A fetch that was cut goes
    /// on where it stopped.
    Pull {
        /// The release
        #[arg(value_name = "alpine[:VERSION]")]
        name: String,
    },
    /// Store a root file system from an archive (.tar, .tar.gz, .tar.zst)
    Load {
        /// The archive
        file: PathBuf,
        /// Name to store it under [default: from the file's name]
        #[arg(long)]
        name: Option<String>,
    },
    /// List the stored images
    #[command(visible_alias = "ls")]
    List {
        /// Print them as JSON
        #[arg(long)]
        json: bool,
    },
    /// Remove stored images
    #[command(visible_alias = "rm")]
    Remove {
        /// Their names
        #[arg(required = true)]
        names: Vec<String>,
    },
    /// Print everything about a stored image as JSON
    Inspect {
        /// Its name
        name: String,
    },
}

pub(crate) fn run(args: Args) -> Result<i32, CliError> {
    let host = place::host()?;
    let store = Store::new(&place::dirs(&host).data);
    match args.command {
        Command::Pull { name } => {
            let (repository, version) = name.split_once(':').unwrap_or((&name, ""));
            if repository != "alpine" {
                return Err(CliError::plain(
                    format!("`{name}` cannot be pulled: this version knows Alpine only"),
                    "`cellblock image load FILE --name NAME` stores any root file system archive",
                ));
            }
            let mirror = config::load(&place::config_file(&host))?.defaults.alpine_mirror.map(|m| m.value);
            data(&format!("{}\n", images::pull_alpine(version, mirror.as_deref(), &host)?.name))?;
        }
        Command::Load { file, name } => {
            check_archive(&file)?;
            let name = name.unwrap_or_else(|| default_name(&file));
            data(&format!("{}\n", images::load(&store, &file, &name)?.name))?;
        }
        Command::List { json: false } => {
            let images = store.list().map_err(ImageError::from)?;
            if images.is_empty() {
                say("No image is stored. `cellblock image pull alpine` gets one; the image `host` is always there.");
                return Ok(0);
            }
            let rows = images.iter().map(|i| {
                let size = indicatif::HumanBytes(i.size).to_string();
                vec![
                    i.name.clone(),
                    i.digest.get(7..19).unwrap_or_default().to_owned(),
                    size,
                    ago(i.stored),
                    i.source.clone(),
                ]
            });
            data(&table(&["NAME", "DIGEST", "SIZE", "AGE", "SOURCE"], rows.collect()))?;
        }
        Command::List { json: true } => json(&store.list().map_err(ImageError::from)?)?,
        Command::Remove { names } => {
            for name in names {
                let folders = store.remove(&name).map_err(ImageError::from)?;
                remove(folders, &host)?;
                data(&format!("{name}\n"))?;
            }
        }
        Command::Inspect { name } => {
            let image = store.find(&name).map_err(ImageError::from)?.ok_or(ImageError::Unknown(name))?;
            json(&image)?;
        }
    }
    Ok(0)
}

/// Says before anything is begun what to do about a file that is not there, or a folder.
fn check_archive(file: &Path) -> Result<(), CliError> {
    match std::fs::metadata(file) {
        Ok(found) if found.is_dir() => Err(CliError::plain(
            format!("{} is a folder, not an archive", file.display()),
            "`cellblock run --image FOLDER` uses a folder as it is; `tar -czf FILE -C FOLDER .` makes an archive of it",
        )),
        Ok(_) => Ok(()),
        Err(source) => Err(CliError::plain(
            format!("cannot open {}: {source}", file.display()),
            "FILE is an archive of a root file system (.tar, .tar.gz, .tar.zst) on this machine; `cellblock image pull alpine` fetches one",
        )),
    }
}

/// `alpine-minirootfs-3.20.3-x86_64.tar.gz` becomes `alpine-minirootfs-3.20.3-x86_64`.
fn default_name(file: &Path) -> String {
    let name = file.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    let stem = [".tar.gz", ".tgz", ".tar.zst", ".tar"].iter().find_map(|e| name.strip_suffix(e)).unwrap_or(&name);
    sanitise(stem)
}

/// Removes unpacked layers, in OUTER if their files have owners that exist only there.
fn remove(folders: Vec<PathBuf>, host: &HostFacts) -> Result<(), CliError> {
    let (foreign, own): (Vec<_>, Vec<_>) = folders
        .into_iter()
        .partition(|f| f.parent().is_some_and(|p| p.ends_with("range") || p.ends_with("range-root")));
    images::remove_folders(&own)?;
    if foreign.is_empty() {
        return Ok(());
    }
    let (mapping, _): (Ids, _) =
        ids_for(None, host, Userns::Auto, false).map_err(crate::resolve::ResolveError::from)?;
    if mapping.scheme != IdScheme::Range {
        return Err(CliError::plain(
            "the unpacked image belongs to subordinate ids that are not there any more",
            "`cellblock doctor` looks at /etc/subuid and newuidmap",
        ));
    }
    run_in_outer(&Job::RemoveFolders { folders: foreign }, &mapping, Vec::new())
}
