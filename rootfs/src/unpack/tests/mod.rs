//! Unpacking into scratch directories, as whoever runs the tests: root keeps the archive's owners, others own everything.

mod alpine;
mod hostile;
mod layers;
mod plain;

use std::fs;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use super::{Options, OverlayForm, Ownership, Refusal, Summary, UnpackError, unpack};
use crate::archive::build::{Member, archive, gzip};
use crate::archive::{Hashing, Limits};

/// A directory `root` to unpack into, and its surroundings to look for what got out.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("cellblock-unpack-{name}-{}", std::process::id()));
        fs::create_dir_all(path.join("root")).expect("scratch directory");
        Self(path)
    }

    fn root(&self) -> PathBuf {
        self.0.join("root")
    }

    fn at(&self, path: impl AsRef<Path>) -> PathBuf {
        self.root().join(path)
    }

    fn unpack_as(&self, bytes: &[u8], options: &Options) -> Result<Summary, UnpackError> {
        let root = fs::File::open(self.root()).expect("the destination");
        unpack(bytes, root.as_fd(), options, &mut |_| {})
    }

    fn unpack(&self, members: &[Member]) -> Result<Summary, UnpackError> {
        self.unpack_as(&archive(members), &options())
    }

    fn layer(&self, form: OverlayForm, members: &[Member]) -> Result<Summary, UnpackError> {
        self.unpack_as(&archive(members), &Options { overlay_form: form, ..options() })
    }

    /// Everything in the destination, sorted.
    fn names(&self) -> Vec<String> {
        fn walk(directory: &Path, prefix: &str, names: &mut Vec<String>) {
            for entry in fs::read_dir(directory).expect("a readable directory") {
                let entry = entry.expect("an entry");
                let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
                if entry.file_type().expect("a type").is_dir() {
                    walk(&entry.path(), &format!("{name}/"), names);
                }
                names.push(name);
            }
        }
        let mut names = Vec::new();
        walk(&self.root(), "", &mut names);
        names.sort();
        names
    }

    /// Names beside the destination: nothing unless something got out.
    fn escaped(&self) -> Vec<String> {
        let names = fs::read_dir(&self.0).expect("the surroundings");
        let names = names.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned());
        names.filter(|name| name != "root").collect()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let (Ok(parent), Some(name)) = (fs::File::open(std::env::temp_dir()), self.0.file_name()) {
            let _ = cellblock_sys::tree::remove(parent.as_fd(), name);
        }
    }
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn options() -> Options {
    Options {
        ownership: if is_root() { Ownership::Keep } else { Ownership::Single },
        overlay_form: OverlayForm::Flatten,
        devices: false,
        limits: Limits::STANDARD,
        hashing: Hashing::None,
    }
}

fn refusal(result: Result<Summary, UnpackError>) -> Option<Refusal> {
    match result {
        Err(UnpackError::Refused { refusal, .. }) => Some(refusal),
        _ => None,
    }
}

/// Value of an extended attribute, without following links.
fn xattr(path: &Path, name: &str) -> Option<Vec<u8>> {
    let mut value = vec![0; 256];
    let length = rustix::fs::lgetxattr(path, name, &mut value[..]).ok()?;
    value.truncate(length);
    Some(value)
}
