//! The skeleton: the topmost read-only layer of every cell, made anew at each start.
//!
//! It holds what describes *this* cell (`passwd`, `hosts`, `resolv.conf` …), and real directories for `/dev`, `/proc`, `/sys` and
//! `/etc`. In an overlay a directory hides what is no directory in the layers below. So an image in which one of them is a symbolic
//! link cannot send a runtime elsewhere: libcontainer follows such links to the host.
//!
//! What becomes of such an image: a link at `/dev`, `/proc` or `/sys` is silently replaced, for these are mounted over anyway. A link
//! at `/etc` is refused ([`SkeletonError::EtcIsNoDirectory`]): its files would silently disappear.
//!
//! First there is a [`Plan`], plain data; [`Plan::write`] carries it out.

mod accounts;
mod files;
mod image;
mod make;
#[cfg(test)]
mod tests;
mod write;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::path::{Component, Path, PathBuf};

use serde::{Deserialize, Serialize};

pub use files::machine_id;
pub use make::{About, Base, plan};
pub use write::Owners;

/// One thing in the skeleton. Everything but the person's home belongs to root inside.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Entry {
    /// A directory.
    Directory {
        /// Permission bits, such as `0o755`.
        mode: u32,
        /// Who owns it.
        owner: Owner,
    },
    /// A text file that everybody may read (0644).
    File {
        /// What is in it.
        text: String,
    },
    /// A file of the host, copied when the skeleton is written, that everybody may read (0644). Left out if it is gone by then.
    Copy {
        /// Absolute path on the host.
        from: PathBuf,
    },
    /// A symbolic link.
    Link {
        /// Where it leads.
        target: PathBuf,
    },
}

/// Who owns something, in words that hold for every id scheme.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Owner {
    /// Root inside; where only the person's id exists, the person.
    Root,
    /// The person.
    Person,
}

impl Entry {
    /// A directory of root's.
    #[must_use]
    pub const fn directory(mode: u32) -> Self {
        Self::Directory { mode, owner: Owner::Root }
    }

    /// A text file.
    #[must_use]
    pub fn file(text: impl Into<String>) -> Self {
        Self::File { text: text.into() }
    }

    /// A symbolic link.
    #[must_use]
    pub fn link(target: impl Into<PathBuf>) -> Self {
        Self::Link { target: target.into() }
    }
}

/// A skeleton as it is meant. Parents come before what is in them, each is a directory, and nothing is in it twice.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "BTreeMap<PathBuf, Entry>", into = "BTreeMap<PathBuf, Entry>")]
pub struct Plan {
    /// By path relative to the root.
    entries: BTreeMap<PathBuf, Entry>,
}

/// Why there is no skeleton.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SkeletonError {
    /// The image's `/etc` is a link or a file.
    #[error("the image's /etc is {what}: its files could not be seen behind the cell's own /etc")]
    EtcIsNoDirectory {
        /// What it is, with its target if it is a link.
        what: String,
    },
    /// Part of an image cannot be read.
    #[error("cannot read {path} of the image layer {layer}", path = path.display(), layer = layer.display())]
    Image {
        /// Path inside.
        path: PathBuf,
        /// The layer's directory.
        layer: PathBuf,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// A file of the image is larger than anything that makes sense.
    #[error("{path} of the image has more than {limit} bytes", path = path.display())]
    TooLarge {
        /// Path inside.
        path: PathBuf,
        /// Most bytes.
        limit: u64,
    },
    /// The person cannot be written into `/etc/passwd` or `/etc/group` like this.
    #[error("the {field} {value:?} cannot stand in /etc/passwd: {why}")]
    User {
        /// Which part of the person's entry.
        field: &'static str,
        /// Its value.
        value: OsString,
        /// Which rule it breaks.
        why: &'static str,
    },
    /// Two entries exclude each other.
    #[error("{path} cannot be made: something else has to be there", path = path.display())]
    Clash {
        /// Path inside.
        path: PathBuf,
    },
    /// A path that is not absolute, or leads upwards.
    #[error("{path} is not a plain absolute path", path = path.display())]
    Path {
        /// The path.
        path: PathBuf,
    },
    /// A system call failed while the skeleton was written.
    #[error("cannot make {path} of the cell's top layer", path = path.display())]
    Write {
        /// Path inside.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
}

impl Plan {
    /// What is planned, parents first; paths are relative to the root.
    pub fn entries(&self) -> impl Iterator<Item = (&Path, &Entry)> {
        self.entries.iter().map(|(path, entry)| (path.as_path(), entry))
    }

    /// What is planned at the absolute path `path`.
    #[must_use]
    pub fn get(&self, path: impl AsRef<Path>) -> Option<&Entry> {
        self.entries.get(path.as_ref().strip_prefix("/").ok()?)
    }

    /// Adds `entry` at the absolute path `path`, and directories (0755, root) above it where nothing is planned yet. A directory replaces
    /// a planned directory.
    ///
    /// # Errors
    /// [`SkeletonError::Clash`] if something else is planned there, or what is planned above is no directory; [`SkeletonError::Path`].
    pub fn add(&mut self, path: impl AsRef<Path>, entry: Entry) -> Result<(), SkeletonError> {
        let path = path.as_ref();
        let relative = plain(path).ok_or_else(|| SkeletonError::Path { path: path.to_owned() })?;
        let clash = |path: &Path| SkeletonError::Clash { path: Path::new("/").join(path) };
        for parent in relative.ancestors().skip(1).filter(|p| !p.as_os_str().is_empty()) {
            let planned = self.entries.entry(parent.to_owned()).or_insert(Entry::directory(0o755));
            if !matches!(planned, Entry::Directory { .. }) {
                return Err(clash(parent));
            }
        }
        match (self.entries.get(&relative), &entry) {
            (None, _) | (Some(Entry::Directory { .. }), Entry::Directory { .. }) => {
                self.entries.insert(relative, entry);
                Ok(())
            }
            (Some(_), _) => Err(clash(&relative)),
        }
    }
}

/// `path` without the first slash, if it consists of names only.
fn plain(path: &Path) -> Option<PathBuf> {
    let relative = path.strip_prefix("/").ok()?;
    let names = relative.components().all(|c| matches!(c, Component::Normal(_)));
    // `components` would hide a `.` or a doubled slash; rebuilding the path makes one spelling of each.
    (names && !relative.as_os_str().is_empty()).then(|| relative.components().collect())
}

impl TryFrom<BTreeMap<PathBuf, Entry>> for Plan {
    type Error = SkeletonError;

    fn try_from(entries: BTreeMap<PathBuf, Entry>) -> Result<Self, SkeletonError> {
        let mut plan = Self::default();
        for (path, entry) in entries {
            plan.add(Path::new("/").join(path), entry)?;
        }
        Ok(plan)
    }
}

impl From<Plan> for BTreeMap<PathBuf, Entry> {
    fn from(plan: Plan) -> Self {
        plan.entries
    }
}
