//! Probes of the file system that holds images, layers and the writable layers of cells.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use cellblock_sys::process::SingleThreaded;
use rustix::fs::{AtFlags, CWD, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, fsconfig_create, fsconfig_set_flag,
    fsconfig_set_string, fsmount, fsopen, move_mount, open_tree,
};
use rustix::thread::UnshareFlags;

use super::child::{CellChild, Failure, PATIENCE, enter, failed, in_child};
use super::{Facts, Finding, State};

/// A folder for trying things on the file system of the data, removed at the end.
struct Scratch {
    parent: OwnedFd,
    name: String,
    path: PathBuf,
}

impl Scratch {
    fn new(data: &Path) -> Result<Self, Failure> {
        let base = existing(data);
        let name = format!(".cellblock-doctor-{}", rustix::process::getpid().as_raw_nonzero());
        let make = || -> rustix::io::Result<OwnedFd> {
            let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
            let parent = rustix::fs::open(&base, flags, Mode::empty())?;
            rustix::fs::mkdirat(&parent, &name, Mode::from_raw_mode(0o700))?;
            Ok(parent)
        };
        let parent = make().map_err(|e| Failure::new(format!("making a folder in {}", base.display()), e))?;
        let scratch = Self { parent, path: base.join(&name), name };
        for folder in ["lower", "lower/folder", "upper", "work", "merged", "upper2", "work2", "merged2"] {
            std::fs::create_dir(scratch.path.join(folder)).map_err(failed("making a folder"))?;
        }
        std::fs::write(scratch.path.join("lower/file"), "below").map_err(failed("writing a file"))?;
        Ok(scratch)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = cellblock_sys::tree::remove(self.parent.as_fd(), self.name.as_ref());
    }
}

/// The nearest folder that exists: `path` itself or one above it.
fn existing(path: &Path) -> PathBuf {
    path.ancestors().find(|p| p.is_dir()).unwrap_or(Path::new("/")).to_owned()
}

/// The outcome of the overlay probe travels as words in this order, those that apply.
const EXDEV: &str = "exdev";
const OLD: &str = "old";
const NO_NEST: &str = "no-nest";

/// An overlay of the data's file system in OUTER, and one whose lower layer is that one, as in a cell inside a cell.
pub(super) fn overlay(facts: &Facts, alone: &SingleThreaded) -> Vec<Finding> {
    const ID: &str = "overlay";
    const TITLE: &str = "overlay of images";
    let base = existing(&facts.data);
    let lost = |failure: &Failure| {
        let note = match () {
            () if failure.is(Errno::ROFS) || failure.denied() => "make it writable for you",
            () if failure.is(Errno::NODEV) => "a kernel with CONFIG_OVERLAY_FS (`sudo modprobe overlay`)",
            () => {
                "the file system must do as an upper layer: ext4, xfs (ftype=1), btrfs, tmpfs; not NFS, vfat or another overlay"
            }
        };
        let detail = format!("{failure}, on the file system of {}", base.display());
        Finding::lacks(ID, TITLE, State::Missing, detail, "no cell can start while its data lies there")
            .note(format!("{note}; or keep the data elsewhere: XDG_DATA_HOME=/path/on/such/a/disk"))
    };
    let scratch = match Scratch::new(&facts.data) {
        Ok(scratch) => scratch,
        Err(failure) => return vec![lost(&failure)],
    };
    let ids = facts.ids();
    let path = &scratch.path;
    let outcome = in_child(alone, |alone| {
        enter(ids, alone)?;
        let (merged, old) = mount_overlay(&path.join("lower"), path, "", ids.rootless())?;
        let mut words = try_out(&merged)?;
        if old {
            words.push(OLD);
        }
        let nested = place(&merged, &path.join("merged"))
            .and_then(|()| mount_overlay(&path.join("merged"), path, "2", ids.rootless()));
        if nested.is_err() {
            words.push(NO_NEST);
        }
        Ok(words.join(" "))
    });
    let words = match outcome {
        Ok(words) => words,
        Err(failure) => return vec![lost(&failure)],
    };
    let has = |word: &str| words.split(' ').any(|w| w == word);
    let exdev = if has(EXDEV) { "; renaming an image's folder gives EXDEV, and programs copy instead" } else { "" };
    let detail = format!("works on the file system of {}{exdev}", base.display());
    let first = if has(OLD) {
        let cost = "images of many layers need short paths: `lowerdir+` came with Linux 6.7";
        Finding::lacks(ID, TITLE, State::Degraded, detail, cost)
    } else {
        Finding::ok(ID, TITLE, detail)
    };
    vec![first, nested_overlay(has(NO_NEST))]
}

fn nested_overlay(refused: bool) -> Finding {
    const ID: &str = "nested-overlay";
    const TITLE: &str = "overlay of an overlay";
    if refused {
        let cost = "a cell inside a cell cannot use the `host` image";
        return Finding::lacks(ID, TITLE, State::Degraded, "refused", cost).note(
            "overlays stack two deep (kernel, FILESYSTEM_MAX_STACK_DEPTH): the data or the system lies on one already",
        );
    }
    Finding::ok(ID, TITLE, "works, as a cell inside a cell needs")
}

/// The mount, not attached yet, and whether the kernel is too old for one option a layer.
fn mount_overlay(lower: &Path, dir: &Path, number: &str, rootless: bool) -> Result<(OwnedFd, bool), Failure> {
    let make = |key: &str| -> rustix::io::Result<OwnedFd> {
        let context = fsopen(c"overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
        if rootless {
            fsconfig_set_flag(&context, c"userxattr")?;
        }
        fsconfig_set_string(&context, key, lower)?;
        fsconfig_set_string(&context, c"upperdir", dir.join(format!("upper{number}")))?;
        fsconfig_set_string(&context, c"workdir", dir.join(format!("work{number}")))?;
        fsconfig_create(&context)?;
        fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())
    };
    match make("lowerdir+") {
        Ok(mount) => Ok((mount, false)),
        Err(_) => make("lowerdir").map(|mount| (mount, true)).map_err(failed("mounting an overlay")),
    }
}

/// Attaches a mount in this process's own mount namespace, so that it can be a layer.
fn place(mount: &OwnedFd, path: &Path) -> Result<(), Failure> {
    move_mount(mount, c"", CWD, path, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH).map_err(failed("attaching a mount"))
}

/// Writes, copies up, deletes and renames in an overlay.
fn try_out(merged: &OwnedFd) -> Result<Vec<&'static str>, Failure> {
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
    rustix::fs::openat(merged, c"new", flags, Mode::from_raw_mode(0o600)).map_err(failed("writing in an overlay"))?;
    rustix::fs::openat(merged, c"file", OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())
        .map_err(failed("copying a file up in an overlay"))?;
    rustix::fs::unlinkat(merged, c"file", AtFlags::empty()).map_err(failed("deleting in an overlay"))?;
    match rustix::fs::renameat(merged, c"folder", merged, c"renamed") {
        Err(Errno::XDEV) => Ok(vec![EXDEV]),
        Ok(()) => Ok(Vec::new()),
        Err(error) => Err(Failure::new("renaming in an overlay", error)),
    }
}

/// Showing the data with other ids, which cells that root starts need.
pub(super) fn id_mapped(facts: &Facts, alone: &SingleThreaded) -> Option<Finding> {
    const ID: &str = "id-mapped-mounts";
    const TITLE: &str = "id-mapped mounts";
    if !facts.real_root {
        return None;
    }
    let base = existing(&facts.data);
    let ids = facts.ids();
    let outcome = in_child(alone, |alone| {
        enter(ids, alone)?;
        let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        let tree = open_tree(CWD, &base, flags).map_err(failed("open_tree"))?;
        let holder = CellChild::start(alone, ids, UnshareFlags::empty(), |_| {
            std::thread::sleep(PATIENCE);
            Ok(String::new())
        })?;
        cellblock_sys::mount::set_id_map(tree.as_fd(), holder.user_namespace()?.as_fd())
            .map(|()| String::new())
            .map_err(failed("mount_setattr"))
    });
    Some(match outcome {
        Ok(_) => Finding::ok(ID, TITLE, format!("work on the file system of {}", base.display())),
        Err(failure) => {
            let detail = format!("{failure}, on the file system of {}", base.display());
            let cost = "cells that root starts cannot show files that lie there, unless with `--userns keep-id`";
            Finding::lacks(ID, TITLE, State::Degraded, detail, cost).note(
                "ext4, xfs, btrfs and tmpfs (Linux 6.3) can; overlay, NFS and FUSE cannot, or only on newer kernels",
            )
        }
    })
}

/// Free space for images and writable layers.
pub(super) fn space(facts: &Facts) -> Finding {
    const ID: &str = "space";
    const TITLE: &str = "space for data";
    let base = existing(&facts.data);
    let free = match rustix::fs::statvfs(&base) {
        Ok(stat) => stat.f_bavail.saturating_mul(stat.f_frsize),
        Err(error) => {
            let detail = format!("{}: {error}", base.display());
            return Finding::lacks(ID, TITLE, State::Unknown, detail, "images may not fit");
        }
    };
    let mib = free >> 20;
    let detail = if mib < 10_240 { format!("{mib} MiB") } else { format!("{} GiB", mib >> 10) };
    let detail = format!("{detail} free on the file system of {}", base.display());
    if mib < 512 {
        return Finding::lacks(
            ID,
            TITLE,
            State::Degraded,
            detail,
            "images may not fit, and cells have little room to write",
        )
        .note("`cellblock image list` shows what is stored; or keep the data elsewhere: XDG_DATA_HOME=/path");
    }
    Finding::ok(ID, TITLE, detail)
}
