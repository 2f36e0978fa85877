//! `cellblock bundle`.

use std::path::{Path, PathBuf};

use cellblock_bundle::{Cell, Extent, IdScheme, Ids, RootFs, spec};
use cellblock_rootfs::root::skeleton;

use crate::args::values::Tty;
use crate::args::{CellFlags, StartFlags, Typed, Words};
use crate::commands::start;
use crate::output::data;
use crate::report::CliError;

/// Write what `run` would start as an OCI bundle for crun, runc, youki or podman
///
/// The bundle's root is an overlay over the image in cellblock's store, mounted by the runtime itself (runc, youki, crun from 1.22
/// on). It is made for this host and user.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  cellblock bundle -o /tmp/b -- sh -c 'echo hello'
  runc run --bundle /tmp/b hello
  crun run --bundle /tmp/b hello")]
pub(crate) struct Args {
    #[command(flatten)]
    cell: CellFlags,
    /// The folder to make
    #[arg(short = 'o', long, value_name = "DIR")]
    output: PathBuf,
    /// The command and its arguments
    #[arg(trailing_var_arg = true, required = true, value_name = "COMMAND")]
    command: Vec<String>,
}

pub(crate) fn run(mut args: Args) -> Result<i32, CliError> {
    // Whether the runtime has a terminal is decided when the bundle is run.
    if args.cell.tty().is_none() {
        args.cell.tty = Some(Tty::Never);
    }
    let output = std::path::absolute(&args.output).map_err(|source| failed("cannot use", &args.output)(source))?;
    std::fs::create_dir(&output).map_err(failed("cannot make", &output))?;
    let result = write(&args, &output);
    if result.is_err() {
        let _ = crate::images::remove_folders(&[output]);
    }
    result
}

fn failed(what: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> CliError {
    move |source| CliError::File { what, path: path.to_owned(), source }
}

fn write(args: &Args, output: &Path) -> Result<i32, CliError> {
    let words = Words::Command(args.command.clone());
    let typed = Typed { cell: args.cell.clone(), start: StartFlags::default(), words };
    let ready = start::plan(&typed)?;
    let cell = with_root(ready.resolved.cell.clone());
    let (prepared, entries) = ready.image.prepare(&cell, &ready.host)?;
    let top = output.join("top");
    skeleton::write(&top, &entries, &own_ids(&cell.ids), &cell.user).map_err(failed("cannot write", &top))?;
    let lowers = std::iter::once(top).chain(prepared.lowers.into_iter().skip(1)).collect();
    let (upper, work) = (output.join("upper"), output.join("work"));
    let root = RootFs { lowers, shared: Vec::new(), volatile: false, upper, work, mounts: prepared.mounts };
    for folder in [&root.upper, &root.work, &output.join("rootfs")] {
        std::fs::create_dir(folder).map_err(failed("cannot make", folder))?;
        if !cell.ids.rootless() {
            // The runtime's container root, who is not root of the host, has to write here.
            std::os::unix::fs::chown(folder, cell.ids.host_uid(0), cell.ids.host_gid(0))
                .map_err(failed("cannot hand over", folder))?;
        }
    }
    let document = spec::spec(&cell, &root)?;
    let text = serde_json::to_string_pretty(&document).map_err(|e| CliError::Output(e.into()))?;
    let config = output.join("config.json");
    std::fs::write(&config, text + "\n").map_err(failed("cannot write", &config))?;
    data(&format!("{}\n", output.display()))?;
    Ok(0)
}

/// Other runtimes, started without root, want the person to be root inside: runc gives the standard streams to that one.
fn with_root(mut cell: Cell) -> Cell {
    let own = |extents: &[Extent], id: u32| extents.iter().find(|e| e.size == 1 && e.inside == id).map(|e| e.outside);
    let (scheme, uid, gid) = match cell.ids.scheme {
        IdScheme::Single => {
            (IdScheme::SingleRoot, own(&cell.ids.uids, cell.user.uid), own(&cell.ids.gids, cell.user.gid))
        }
        IdScheme::Range => {
            (IdScheme::RangeRoot, own(&cell.ids.uids, cell.user.uid), own(&cell.ids.gids, cell.user.gid))
        }
        _ => return cell,
    };
    let (Some(uid), Some(gid)) = (uid, gid) else { return cell };
    cell.ids = Ids { scheme, uids: rooted(&cell.ids.uids, uid), gids: rooted(&cell.ids.gids, gid) };
    (cell.user.uid, cell.user.gid) = (0, 0);
    cell
}

/// `own` as 0, and the other extents' ids after it.
fn rooted(extents: &[Extent], own: u32) -> Vec<Extent> {
    let mut all = vec![Extent { inside: 0, outside: own, size: 1 }];
    let mut next = 1;
    for extent in extents.iter().filter(|e| e.outside != own) {
        all.push(Extent { inside: next, ..*extent });
        next += extent.size;
    }
    all
}

/// Who owns the skeleton outside any user namespace: real root can give it to the cell's ids, anybody else only to themself.
fn own_ids(ids: &Ids) -> Ids {
    if ids.rootless() { Ids { scheme: IdScheme::Single, uids: Vec::new(), gids: Vec::new() } } else { ids.clone() }
}
