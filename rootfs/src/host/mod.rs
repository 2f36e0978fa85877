//! The `host` image: the host's own tools as the root. No image at all, programs as fresh as the host's.
//!
//! The host's system directories are bound read-only; as few as possible, because each mount costs about 0.2 ms at every start. Where
//! they are links (`/bin` to `usr/bin`) the links are made anew. A directory that holds next to nothing (NixOS's `/bin` with nothing
//! but `sh`) is made anew too. Of `/etc` there is a chosen part: see `table`.
//!
//! Chains of links are followed to their end within the host's root. If the end is in a directory that is shown anyway, it becomes a
//! link to there; else the file is copied or the directory bound. What only some may read on the host is left out, whoever asks.

mod dns;
mod table;
#[cfg(test)]
mod tests;

use std::cell::RefCell;
use std::collections::HashMap;
use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use cellblock_bundle::Mount;
use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags};
use serde::{Deserialize, Serialize};

use crate::skeleton::Entry;
pub use dns::{Dns, dns, hosts};

/// Why the host cannot be the image.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HostError {
    /// No directory with programs.
    #[error("{root} has neither /usr nor /bin nor a package store to take programs from", root = root.display())]
    NoSystem {
        /// Where the system was looked for.
        root: PathBuf,
    },
    /// The root cannot be read.
    #[error("cannot open {path}", path = path.display())]
    Io {
        /// What was to be opened.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
}

/// The host's tools, as plain data.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HostImage {
    /// Read-only binds; a directory comes before what is in it. Their targets are in `entries`.
    pub mounts: Vec<Mount>,
    /// Links, small files and mount points for the skeleton, by absolute path.
    pub entries: Vec<(PathBuf, Entry)>,
}

/// Directories at the top that hold programs, or what they need. The stores come first: what is in the others may lead into them.
const SYSTEM: [&str; 11] =
    ["nix/store", "gnu/store", "usr", "bin", "sbin", "lib", "lib32", "lib64", "libx32", "opt", "run/current-system"];

/// Links to programs in places that are not shown as a whole.
const PROGRAMS: [&str; 1] = ["nix/var/nix/profiles/default"];

/// Links inside a bound directory that may lead out of it: image-based systems keep `/usr/local` in `/var`.
const LEADING_OUT: [&str; 1] = ["usr/local"];

/// A directory with at most so many entries is made anew; each costs about a twentieth of a mount.
const SMALL: usize = 16;
/// Directories in directories that are made anew: `/usr` with `bin/env` on NixOS.
const DEPTH: usize = 2;
/// Bytes of a file that is copied; copying more takes longer than a mount.
const MAX_COPY: u64 = 512 << 10;

impl HostImage {
    /// Looks at the system below `root`, which is `/` but in tests.
    ///
    /// # Errors
    /// See [`HostError`]. What cannot be read is left out.
    pub fn detect(root: &Path) -> Result<Self, HostError> {
        let mut finder = Finder { root: Root::open(root)?, image: Self::default() };
        for name in SYSTEM.into_iter().chain(PROGRAMS) {
            finder.take(&Path::new("/").join(name), Files::Bind);
        }
        if finder.image.mounts.is_empty() {
            return Err(HostError::NoSystem { root: root.to_owned() });
        }
        for name in LEADING_OUT {
            finder.follow_out(&Path::new("/").join(name));
        }
        finder.take_etc();
        Ok(finder.image)
    }

    /// Whether the absolute path `path` is shown by one of the mounts.
    #[must_use]
    pub fn shows(&self, path: &Path) -> bool {
        self.mounts.iter().any(|mount| path.starts_with(mount.target()))
    }
}

/// The root that is looked at.
struct Root {
    fd: OwnedFd,
    /// Its real path: what descriptors below it are called.
    path: PathBuf,
    /// Where directories really are, if everybody may pass through to there: asked for once each, for every start pays for it.
    directories: RefCell<HashMap<PathBuf, Option<PathBuf>>>,
}

/// The end of a chain of links.
struct End {
    /// Absolute path within the root.
    path: PathBuf,
    kind: FileType,
    size: u64,
}

impl Root {
    fn open(path: &Path) -> Result<Self, HostError> {
        let failed = |source| HostError::Io { path: path.to_owned(), source };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = rustix::fs::open(path, flags, Mode::empty()).map_err(|e| failed(e.into()))?;
        let path = real_path(&fd).map_err(failed)?;
        Ok(Self { fd, path, directories: RefCell::default() })
    }

    /// Where `path` ends if every link is followed within the root; `None` if nowhere, or if not everybody may read it there.
    fn end(&self, path: &Path) -> Option<End> {
        let place = self.directory(path.parent()?)?.join(path.file_name()?);
        let stat = rustix::fs::statat(&self.fd, below(&place), AtFlags::SYMLINK_NOFOLLOW).ok()?;
        let (path, stat) = if FileType::from_raw_mode(stat.st_mode) == FileType::Symlink {
            let fd = self.descriptor(&place, OFlags::PATH)?;
            let end = self.inside(&fd)?;
            (self.passable(&end).then_some(end)?, rustix::fs::fstat(&fd).ok()?)
        } else {
            (place, stat)
        };
        let kind = FileType::from_raw_mode(stat.st_mode);
        let mode = Mode::from_raw_mode(stat.st_mode);
        let wanted = if kind == FileType::Directory { Mode::ROTH | Mode::XOTH } else { Mode::ROTH };
        let end = End { path, kind, size: u64::try_from(stat.st_size).ok()? };
        mode.contains(wanted).then_some(end)
    }

    /// The real path of a directory, if everybody may pass through all directories to it and through itself.
    fn directory(&self, path: &Path) -> Option<PathBuf> {
        if let Some(known) = self.directories.borrow().get(path) {
            return known.clone();
        }
        let find = || {
            let real = self.inside(&self.descriptor(path, OFlags::PATH | OFlags::DIRECTORY)?)?;
            self.passable(&real.join(".")).then_some(real)
        };
        let found = find();
        self.directories.borrow_mut().insert(path.to_owned(), found.clone());
        found
    }

    /// Opens with links resolved within the root.
    fn descriptor(&self, path: &Path, flags: OFlags) -> Option<OwnedFd> {
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        // With IN_ROOT the kernel may ask to try again if something is renamed meanwhile (openat2(2)).
        (0..8).find_map(|_| {
            match rustix::fs::openat2(&self.fd, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve) {
                Err(rustix::io::Errno::AGAIN) => None,
                result => Some(result.ok()),
            }
        })?
    }

    /// The path of what is open, as seen from the root.
    fn inside(&self, fd: &OwnedFd) -> Option<PathBuf> {
        Some(Path::new("/").join(real_path(fd).ok()?.strip_prefix(&self.path).ok()?))
    }

    /// Whether everybody may pass through all directories above `path`, which has no links in it.
    fn passable(&self, path: &Path) -> bool {
        let mut above = path.ancestors().skip(1).filter(|dir| *dir != Path::new("/"));
        above.all(|dir| {
            let stat = rustix::fs::statat(&self.fd, below(dir), AtFlags::SYMLINK_NOFOLLOW);
            stat.is_ok_and(|stat| Mode::from_raw_mode(stat.st_mode).contains(Mode::XOTH))
        })
    }

    /// The text of the link at `path`, if it is one.
    fn link(&self, path: &Path) -> Option<PathBuf> {
        use std::os::unix::ffi::OsStringExt;
        let target = rustix::fs::readlinkat(&self.fd, below(path), Vec::new()).ok()?;
        Some(OsString::from_vec(target.into_bytes()).into())
    }

    /// The path that is bound or copied from.
    fn source(&self, path: &Path) -> PathBuf {
        self.path.join(below(path))
    }
}

fn below(path: &Path) -> &Path {
    path.strip_prefix("/").unwrap_or(path)
}

fn real_path(fd: &OwnedFd) -> io::Result<PathBuf> {
    std::fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd()))
}

/// The names in a directory, at most `limit` of them; `None` if there are more, or one that is not UTF-8: the plan is text.
fn names(dir: OwnedFd, limit: usize) -> Option<Vec<String>> {
    let mut names = Vec::new();
    for entry in rustix::fs::Dir::new(dir).ok()? {
        let name = entry.ok()?.file_name().to_str().ok()?.to_owned();
        if name == "." || name == ".." {
            continue;
        }
        if names.len() == limit {
            return None;
        }
        names.push(name);
    }
    names.sort();
    Some(names)
}

/// What becomes of a directory with few entries if there are files among them.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Files {
    /// Settings: copied.
    Copy,
    /// Programs: copies would lose what makes them run, so the directory is bound.
    Bind,
}

struct Finder {
    root: Root,
    image: HostImage,
}

impl Finder {
    fn take_etc(&mut self) {
        // One look into the directory instead of one for each row.
        let etc = self.root.descriptor(Path::new("/etc"), OFlags::RDONLY | OFlags::DIRECTORY);
        let Some(there) = etc.and_then(|etc| names(etc, usize::MAX)) else { return };
        for row in table::ETC {
            debug_assert!(!row.why.is_empty(), "every row has its reason");
            let top = row.name.split('/').next().unwrap_or_default();
            let meant = |name: &&String| if row.prefix { name.starts_with(top) } else { *name == top };
            let found: Vec<&String> = there.iter().filter(meant).collect();
            for name in found {
                let name = if row.prefix { name } else { row.name };
                self.take(&Path::new("/etc").join(name), Files::Copy);
            }
        }
    }

    /// Shows what is at `path`, in the cheapest way there is. What is not there, or not for everybody, is left out.
    fn take(&mut self, path: &Path, files: Files) {
        let Some(end) = self.root.end(path) else { return };
        // A directory above may be a link that was made anew already: then this is there.
        if self.image.shows(path) {
            return;
        }
        if end.path != path && self.image.shows(&end.path) {
            // A link at the top stays as it is (`usr/bin`); of a chain, the end.
            let direct = self.root.link(path).filter(|target| Path::new("/").join(target) == end.path);
            self.image.entries.push((path.to_owned(), Entry::link(direct.unwrap_or(end.path))));
            return;
        }
        match end.kind {
            FileType::Directory => match self.small(path, &end, files, DEPTH) {
                Some(entries) => self.image.entries.extend(entries),
                None => self.bind(path, &end, Entry::directory(0o755)),
            },
            FileType::RegularFile if end.size <= MAX_COPY => {
                self.image.entries.push((path.to_owned(), Entry::Copy { from: self.root.source(&end.path) }));
            }
            FileType::RegularFile => self.bind(path, &end, Entry::file("")),
            _ => {}
        }
    }

    /// The entries of a directory that need not be bound: few, all of them links to what is shown or small files. Those that are not for
    /// everybody are left out. An empty directory is such a one.
    fn small(&self, path: &Path, end: &End, files: Files, depth: usize) -> Option<Vec<(PathBuf, Entry)>> {
        let mut entries = vec![(path.to_owned(), Entry::directory(0o755))];
        let mut bytes = 0;
        for name in names(self.root.descriptor(&end.path, OFlags::RDONLY | OFlags::DIRECTORY)?, SMALL)? {
            let place = path.join(&name);
            let Some(inner) = self.root.end(&end.path.join(&name)) else { continue };
            match inner.kind {
                _ if self.image.shows(&inner.path) => entries.push((place, Entry::link(inner.path))),
                // A link to another directory here and there: a bind of the whole shows it as it is.
                FileType::Directory if depth > 0 && inner.path == end.path.join(&name) => {
                    entries.extend(self.small(&place, &inner, files, depth - 1)?);
                }
                FileType::RegularFile if files == Files::Copy => {
                    bytes += inner.size;
                    entries.push((place, Entry::Copy { from: self.root.source(&inner.path) }));
                }
                _ => return None,
            }
        }
        (entries.len() <= SMALL && bytes <= MAX_COPY).then_some(entries)
    }

    fn bind(&mut self, path: &Path, end: &End, mount_point: Entry) {
        let source = self.root.source(&end.path);
        // What is not UTF-8 cannot stand in a cell.
        if source.to_str().is_none() {
            return;
        }
        self.image.entries.push((path.to_owned(), mount_point));
        self.image.mounts.push(Mount::Bind { source, target: path.to_owned(), writable: false });
    }

    /// Shows what a link in a bound directory leads to, where it leads to.
    fn follow_out(&mut self, path: &Path) {
        if self.root.link(path).is_none() || !self.image.shows(path) {
            return;
        }
        let Some(end) = self.root.end(path) else { return };
        if end.kind == FileType::Directory && !self.image.shows(&end.path) {
            let place = end.path.clone();
            self.bind(&place, &end, Entry::directory(0o755));
        }
    }
}

/// Reads at most `limit` bytes of a file below the root, if everybody may; bytes that are no UTF-8 are replaced.
fn read(root: &Root, path: &Path, limit: u64) -> Option<(PathBuf, String)> {
    use std::io::Read;
    let end = root.end(path).filter(|end| end.kind == FileType::RegularFile)?;
    let mut bytes = Vec::new();
    // Non-blocking: it may have become a pipe since.
    let file = File::from(root.descriptor(&end.path, OFlags::RDONLY | OFlags::NONBLOCK)?);
    file.take(limit).read_to_end(&mut bytes).ok()?;
    Some((end.path, String::from_utf8_lossy(&bytes).into_owned()))
}
