//! Writing a bundle: what `cellblock bundle` does in OUTER, where files can be given to the cell's ids.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use cellblock_bundle::{Cell, Ids, Overlay, RootFs, spec};
use cellblock_rootfs::copy::{self, CopyError, Owners};
use cellblock_rootfs::root::skeleton::{self, Entry};
use cellblock_runtime::merged::merged;
use rustix::fs::{AtFlags, Mode, OFlags};
use serde::{Deserialize, Serialize};

use crate::images;
use crate::report::CliError;

/// What the bundle's root is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Form {
    /// An overlay at `/` over the store's layers.
    Overlay,
    /// A folder, with an overlay over the store's layers at each folder of `/` that is not empty.
    Overlays,
    /// A folder with a copy of everything.
    Folder,
}

/// A bundle to write.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Export {
    /// The cell.
    pub(crate) cell: Cell,
    /// Its root; the first of the lower folders is the skeleton's place and not there yet.
    pub(crate) root: RootFs,
    /// The skeleton's content.
    pub(crate) skeleton: Vec<Entry>,
    /// The bundle's folder, which is there and empty.
    pub(crate) output: PathBuf,
    /// What its root is.
    pub(crate) form: Form,
}

fn failed(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> CliError {
    move |source| CliError::File { what, path: path.to_owned(), source }
}

impl Export {
    /// Writes the bundle; on failure removes what was begun, the folder itself too.
    pub(crate) fn run(&self) -> Result<(), CliError> {
        let result = self.write();
        if result.is_err() {
            let _ = images::remove_folders(std::slice::from_ref(&self.output));
        }
        result
    }

    fn write(&self) -> Result<(), CliError> {
        // Without root the runtime's root is the person, so nobody else need pass: set-user-id files of an image are the person's here.
        // Under real root the runtime's root is an id of its own, which has to.
        let mode = if self.cell.ids.scheme == cellblock_bundle::IdScheme::Shifted { 0o711 } else { 0o700 };
        std::fs::set_permissions(&self.output, PermissionsExt::from_mode(mode))
            .map_err(failed("cannot change", &self.output))?;
        let top = self.output.join("top");
        skeleton::write(&top, &self.skeleton, &self.cell.ids, &self.cell.user).map_err(failed("cannot write", &top))?;
        let lowers: Vec<_> = std::iter::once(top.clone()).chain(self.root.lowers.iter().skip(1).cloned()).collect();
        let document = match self.form {
            Form::Overlay => spec::spec(&self.cell, &self.overlay_root(lowers)?)?,
            Form::Folder => {
                self.copy(&lowers, &BTreeSet::new())?;
                images::remove_folders(&[top])?;
                spec::spec_over_folder(&self.cell, &[], &self.root.mounts)?
            }
            Form::Overlays => {
                let overlays = self.overlays(&lowers)?;
                spec::spec_over_folder(&self.cell, &overlays, &self.root.mounts)?
            }
        };
        let text = serde_json::to_string_pretty(&document).map_err(|e| CliError::Output(e.into()))?;
        let config = self.output.join("config.json");
        // For its owner alone: variables are often secrets.
        let write = || -> io::Result<()> {
            let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&config)?;
            file.write_all(text.as_bytes())?;
            file.write_all(b"\n")
        };
        write().map_err(failed("cannot write", &config))
    }

    fn overlay_root(&self, lowers: Vec<PathBuf>) -> Result<RootFs, CliError> {
        let (upper, work) = (self.output.join("upper"), self.output.join("work"));
        for folder in [&upper, &work, &self.output.join("rootfs")] {
            self.make(folder)?;
        }
        Ok(RootFs { lowers, upper, work, shared: Vec::new(), volatile: false, mounts: self.root.mounts.clone() })
    }

    /// Makes a folder of the cell's root.
    fn make(&self, folder: &Path) -> Result<(), CliError> {
        let make = || -> io::Result<()> {
            std::fs::DirBuilder::new().mode(0o755).create(folder)?;
            std::fs::set_permissions(folder, PermissionsExt::from_mode(0o755))?;
            if let Some((uid, gid)) = root_of(&self.cell.ids) {
                std::os::unix::fs::chown(folder, Some(uid), Some(gid))?;
            }
            Ok(())
        };
        make().map_err(failed("cannot make", folder))
    }

    /// Fills `rootfs` with what a cell over `lowers` would see, but for the content of `bare` folders.
    fn copy(&self, lowers: &[PathBuf], bare: &BTreeSet<PathBuf>) -> Result<OwnedFd, CliError> {
        let target = self.output.join("rootfs");
        self.make(&target)?;
        let view = merged(lowers)
            .map_err(|source| CliError::Process { what: "cannot lay the layers over each other", source })?;
        let to = File::open(&target).map_err(failed("cannot open", &target))?;
        let total = if bare.is_empty() { copy::size(view.as_fd())? } else { 0 };
        let bar = images::bar("copying the root", Some(total));
        let copied = copy::copy(view.as_fd(), to.as_fd(), self.owners(), &|path| bare.contains(path), &mut |done| {
            bar.set_position(done);
        });
        bar.finish_and_clear();
        let left_out = copied?.left_out;
        if left_out > 0 {
            crate::output::say(&format!("cellblock: {left_out} device nodes and sockets of the image were left out"));
        }
        Ok(view)
    }

    /// Whose the copies are. Layers of the store have the right owners; a folder under real root has the host's.
    fn owners(&self) -> Owners<'_> {
        match (self.cell.ids.has_range(), self.root.shared.is_empty() || self.cell.ids.rootless()) {
            (false, _) => Owners::Caller,
            (true, true) => Owners::Keep,
            (true, false) => Owners::Mapped(&self.cell.ids),
        }
    }

    /// Fills `rootfs` but for the folders that hold something, and gives these an overlay each.
    fn overlays(&self, lowers: &[PathBuf]) -> Result<Vec<Overlay>, CliError> {
        let names = if lowers.len() > 1 { full_folders(lowers)? } else { BTreeSet::new() };
        let view = self.copy(lowers, &names)?;
        let (uppers, works) = (self.output.join("upper"), self.output.join("work"));
        self.make(&uppers)?;
        self.make(&works)?;
        let mut overlays = Vec::new();
        for name in &names {
            let (upper, work) = (uppers.join(name), works.join(name));
            self.make(&upper)?;
            self.make(&work)?;
            // The root of an overlay looks as its upper folder does.
            let look = || -> io::Result<()> {
                copy::metadata(open(view.as_fd(), name)?.as_fd(), File::open(&upper)?.as_fd(), self.owners())
            };
            look().map_err(failed("cannot change", &upper))?;
            let lowers =
                below(lowers, name).map_err(failed("cannot read the layers of", &Path::new("/").join(name)))?;
            overlays.push(Overlay { target: Path::new("/").join(name), lowers, volatile: false, upper, work });
        }
        Ok(overlays)
    }
}

/// The cell's root as OUTER sees it; `None` where there is no choice.
fn root_of(ids: &Ids) -> Option<(u32, u32)> {
    match (ids.has_range(), ids.rootless()) {
        (false, _) => None,
        (true, true) => Some((0, 0)),
        (true, false) => ids.host_uid(0).zip(ids.host_gid(0)),
    }
}

fn open(root: BorrowedFd<'_>, name: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(root, name, flags, Mode::empty())?)
}

/// Names of the folders of `/` that are not empty. Those that the kernel's file systems cover do not count.
fn full_folders(lowers: &[PathBuf]) -> Result<BTreeSet<PathBuf>, CliError> {
    let list = || -> io::Result<BTreeSet<PathBuf>> {
        let view = merged(lowers)?;
        // Opened anew: a mount's own descriptor is not for reading.
        let view = open(view.as_fd(), Path::new("."))?;
        let mut names = BTreeSet::new();
        for entry in rustix::fs::Dir::read_from(&view)? {
            let name = PathBuf::from(std::ffi::OsStr::from_bytes(entry?.file_name().to_bytes()));
            if [".", "..", "dev", "proc", "sys"].iter().any(|n| name == Path::new(n)) {
                continue;
            }
            let stat = rustix::fs::statat(&view, &name, AtFlags::SYMLINK_NOFOLLOW)?;
            if rustix::fs::FileType::from_raw_mode(stat.st_mode).is_dir() && !is_empty(&open(view.as_fd(), &name)?)? {
                names.insert(name);
            }
        }
        Ok(names)
    };
    list().map_err(|source| CliError::Process { what: "cannot lay the layers over each other", source })
}

fn is_empty(directory: &OwnedFd) -> io::Result<bool> {
    for entry in rustix::fs::Dir::read_from(directory)? {
        if !matches!(entry?.file_name().to_bytes(), b"." | b"..") {
            return Ok(false);
        }
    }
    Ok(true)
}

/// What the layers have at the folder `name` of `/`, down to the first that hides those below it: overlayfs looks for its marks inside
/// of its layers, not at their roots.
fn below(lowers: &[PathBuf], name: &Path) -> io::Result<Vec<PathBuf>> {
    let mut folders = Vec::new();
    for lower in lowers {
        let path = lower.join(name);
        match std::fs::symlink_metadata(&path) {
            Ok(found) if found.is_dir() => folders.push(path.clone()),
            // A file there is the mark of a deletion, or else hides a folder just as well.
            Ok(_) => break,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        }
        let mut value = [0u8; 1];
        if rustix::fs::lgetxattr(&path, c"user.overlay.opaque", &mut value).is_ok_and(|n| n == 1) && value == *b"y" {
            break;
        }
    }
    Ok(folders)
}

impl From<CopyError> for CliError {
    fn from(error: CopyError) -> Self {
        Self::Plain { message: error.to_string(), hint: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Scratch(PathBuf);

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = images::remove_folders(std::slice::from_ref(&self.0));
        }
    }

    #[test]
    fn a_layers_folder_reaches_down_to_what_hides_the_rest() {
        let scratch = Scratch(std::env::temp_dir().join(format!("cellblock-below-{}", std::process::id())));
        let layers: Vec<_> = ["top", "upper", "lower"].map(|n| scratch.0.join(n)).into();
        for layer in &layers {
            std::fs::create_dir_all(layer.join("usr")).expect("mkdir");
            std::fs::create_dir_all(layer.join("opt")).expect("mkdir");
        }
        std::fs::create_dir(layers[2].join("srv")).expect("mkdir");
        std::fs::write(layers[1].join("srv"), "").expect("a whiteout, or a file");
        std::fs::create_dir(layers[0].join("srv")).expect("mkdir");
        let opaque =
            rustix::fs::setxattr(layers[1].join("opt"), c"user.overlay.opaque", b"y", rustix::fs::XattrFlags::empty());
        let found = |name: &str| below(&layers, Path::new(name)).expect("read");
        assert_eq!(found("usr"), layers.iter().map(|l| l.join("usr")).collect::<Vec<_>>());
        assert_eq!(found("srv"), [layers[0].join("srv")]);
        assert_eq!(found("nothing"), Vec::<PathBuf>::new());
        // Not every file system has such attributes.
        if opaque.is_ok() {
            assert_eq!(found("opt"), [layers[0].join("opt"), layers[1].join("opt")]);
        }
    }
}
