//! `cellblock bundle`.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use cellblock_bundle::cell::Brokers;
use cellblock_bundle::{Cell, Extent, IdScheme, Ids, Network, Reach};

use crate::args::values::Tty;
use crate::args::{CellFlags, StartFlags, Typed, Words};
use crate::commands::start;
use crate::export::{Export, Form};
use crate::images;
use crate::job::{Job, run_in_outer};
use crate::output::{data, say};
use crate::report::CliError;
use crate::resolve::HostFacts;

/// Write what `run` would start as an OCI bundle for crun, runc, youki or podman
///
/// The bundle's root is an overlay over the image in cellblock's store, mounted by the runtime itself. It is made for this host and user;
/// without root you are root in it, for other runtimes want that. Runtimes that cannot mount an overlay at / take --portable-overlay;
/// --flatten makes a plain folder that needs no store and serves any program, `podman run --rootfs` too. A --read-only root is always such a
/// folder: not every runtime keeps an overlay read-only.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  cellblock bundle -o /tmp/b -- sh -c 'echo hello'
  runc run --bundle /tmp/b hello
  crun run --bundle /tmp/b hello                                1.22 or later

  cellblock bundle --portable-overlay -o /tmp/c -- make test
  crun run --bundle /tmp/c test                                 any version

  cellblock bundle --image alpine --flatten -o /tmp/d -- sh
  podman run --rm -it --rootfs /tmp/d/rootfs sh
  podman unshare rm -r /tmp/d                                   some files are not yours")]
pub(crate) struct Args {
    #[command(flatten)]
    cell: CellFlags,
    /// The folder to make
    #[arg(short = 'o', long, value_name = "DIR")]
    output: PathBuf,
    /// Mount an overlay at each folder of / instead of one at / itself, for crun before 1.22
    #[arg(long)]
    portable_overlay: bool,
    /// Copy the image into a plain folder, without any overlay
    #[arg(long, conflicts_with = "portable_overlay")]
    flatten: bool,
    /// The command and its arguments
    #[arg(trailing_var_arg = true, required = true, value_name = "COMMAND")]
    command: Vec<String>,
}

impl Args {
    fn form(&self, read_only: bool) -> Form {
        match (self.flatten, self.portable_overlay) {
            // With a mount as the root crun, also 1.28, forgets `root.readonly`; the overlays below / would need `readonlyPaths`, which youki
            // 0.7 makes noexec; and they cannot be read-only from the start, for runtimes make the targets of later mounts in them.
            _ if read_only => Form::Folder,
            (true, _) => Form::Folder,
            (false, true) => Form::Overlays,
            (false, false) => Form::Overlay,
        }
    }
}

pub(crate) fn run(mut args: Args) -> Result<i32, CliError> {
    // It is a process of ours, and has no part in a bundle: what it looks after is closed there.
    args.cell.no_guard = true;
    // Whether the runtime has a terminal is decided when the bundle is run.
    if args.cell.tty().is_none() {
        args.cell.tty = Some(Tty::Never);
    }
    let words = Words::Command(args.command.clone());
    let ready = start::plan(&Typed { cell: args.cell.clone(), start: StartFlags::default(), words })?;
    let form = args.form(ready.resolved.cell.read_only);
    let mut cell = for_runtimes(ready.resolved.cell, &ready.host);
    if !cell.brokers.is_empty() {
        say(
            "cellblock: the bundle has no ssh agent, git credentials or bridges: cellblock itself answers these, and has no part in a bundle",
        );
        cell.brokers = Brokers::default();
    }
    if matches!(cell.network, Network::Names | Network::Bridge) {
        if args.cell.network.is_some() {
            return Err(CliError::plain(
                "this network is made by cellblock itself, which has no part in a bundle",
                "without `--net` the bundle has no network; what runs it may add one",
            ));
        }
        (cell.network, cell.reach) = (Network::None, Reach::default());
    }
    if !cell.hidden.is_empty() {
        let names: Vec<&str> = cell.hidden.iter().map(String::as_str).collect();
        say(&format!(
            "cellblock: left out of the bundle, for their values are to be on no disk: {}; give them to what runs it",
            names.join(", ")
        ));
    }
    // The bundle may be run anywhere and at any time, and nobody would keep a login in step there.
    cell.state.clear();
    cell.seeds.clear();
    let (root, skeleton) = ready.image.prepare(&cell, &ready.host)?;
    if form != Form::Folder && !root.shared.is_empty() && !cell.ids.rootless() {
        return Err(CliError::plain(
            "a folder's files belong to ids that the cell does not have, and other runtimes cannot show them with the cell's",
            "`--flatten` copies them",
        ));
    }
    let output = make(&args.output)?;
    if cell.ids.scheme == IdScheme::Shifted {
        for closed in closed_to_others(&output) {
            say(&format!(
                "cellblock: {} is closed to the bundle's root, who is user {} here: runtimes will fail",
                closed.display(),
                cell.ids.host_uid(0).unwrap_or_default()
            ));
        }
    }
    let job = Export { cell, root, skeleton, output: output.clone(), form };
    if job.cell.ids.rootless() {
        let ids = job.cell.ids.clone();
        let done = run_in_outer(&Job::Export(Box::new(job)), &ids, Vec::new());
        if done.is_err() {
            // The job has removed what is in it; the folder itself it may never have reached.
            let _ = images::remove_folders(std::slice::from_ref(&output));
        }
        done?;
    } else {
        job.run()?;
    }
    data(&format!("{}\n", output.display()))?;
    Ok(0)
}

/// Makes the bundle's folder, and says where it is without links and dots.
fn make(output: &Path) -> Result<PathBuf, CliError> {
    let failed = |what| move |source| CliError::File { what, path: output.to_owned(), source };
    std::fs::create_dir(output).map_err(failed("cannot make"))?;
    output.canonicalize().map_err(failed("cannot use"))
}

/// The folders above `output` that somebody without any right to them cannot pass.
fn closed_to_others(output: &Path) -> Vec<PathBuf> {
    let closed = |path: &&Path| std::fs::metadata(path).is_ok_and(|m| m.permissions().mode() & 0o001 == 0);
    output.ancestors().skip(1).filter(closed).map(Path::to_owned).collect()
}

/// Other runtimes, started without root, want the person to be root inside: runc gives the standard streams to that one.
fn for_runtimes(mut cell: Cell, host: &HostFacts) -> Cell {
    let scheme = match cell.ids.scheme {
        IdScheme::Single => IdScheme::SingleRoot,
        IdScheme::Range => IdScheme::RangeRoot,
        IdScheme::Shifted | IdScheme::KeepRoot => {
            // youki 0.7 keeps the caller's groups if none are given. Without root they are nobody's inside, and cannot be given up.
            if cell.user.groups.is_empty() {
                cell.user.groups.push(cell.user.gid);
            }
            return cell;
        }
        _ => return cell,
    };
    cell.ids = Ids { scheme, uids: rooted(&cell.ids.uids, host.uid), gids: rooted(&cell.ids.gids, host.gid) };
    if cell.user.uid == host.uid {
        cell.user.uid = 0;
    }
    if cell.user.gid == host.gid {
        cell.user.gid = 0;
    }
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
