//! Unpacks one archive into a new directory, for measuring against `tar -xzf`: `unpack ARCHIVE DIRECTORY [--hash]`.

use std::os::fd::AsFd;

use cellblock_rootfs::archive::{Hashing, Limits};
use cellblock_rootfs::unpack::{Options, OverlayForm, Ownership, unpack};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args_os().skip(1);
    let (Some(archive), Some(directory)) = (arguments.next(), arguments.next()) else {
        return Err("usage: unpack ARCHIVE DIRECTORY [--hash]".into());
    };
    let hashing = if arguments.next().is_some() { Hashing::Both } else { Hashing::None };
    std::fs::create_dir(&directory)?;
    let ownership = if rustix::process::geteuid().is_root() { Ownership::Keep } else { Ownership::Single };
    let options =
        Options { ownership, overlay_form: OverlayForm::Flatten, devices: false, limits: Limits::STANDARD, hashing };
    unpack(std::fs::File::open(archive)?, std::fs::File::open(directory)?.as_fd(), &options, &mut |_| {})?;
    Ok(())
}
