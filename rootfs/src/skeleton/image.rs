//! Looking into an image's layers before they are mounted: hostile, so everything is resolved beneath a layer's descriptor and no
//! link is ever followed by the kernel.
//!
//! Layers are looked through from the topmost down as overlayfs would, in the simple sense: a whiteout ends the search, and so do an
//! opaque directory and anything that is no directory where a directory has to be. A link is followed by its text, within the image.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::SkeletonError;

/// Bytes of a file that is read: the largest real `/etc/passwd` files have some ten thousand lines.
pub(super) const MAX_FILE: u64 = 1 << 20;

/// Links in a row that are followed, as the kernel's `MAXSYMLINKS`.
const MAX_LINKS: usize = 40;

const BENEATH: ResolveFlags = ResolveFlags::BENEATH.union(ResolveFlags::NO_SYMLINKS).union(ResolveFlags::NO_MAGICLINKS);

/// The layers of an image, the topmost first.
#[derive(Debug)]
pub(super) struct Layers<'a> {
    layers: Vec<(&'a Path, OwnedFd)>,
}

/// Something in an image.
#[derive(Debug)]
pub(super) struct Found<'a> {
    pub(super) kind: FileType,
    layer: &'a Path,
    fd: OwnedFd,
}

/// What one layer says about a path.
enum Seen {
    /// It is there.
    There { kind: FileType, fd: OwnedFd },
    /// It is not, and layers below count.
    Below,
    /// It is not, and what is below does not show.
    Nothing,
}

impl<'a> Layers<'a> {
    pub(super) fn open(paths: &'a [PathBuf]) -> Result<Self, SkeletonError> {
        let open = |path: &'a PathBuf| {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            match rustix::fs::open(path, flags, Mode::empty()) {
                Ok(fd) => Ok((path.as_path(), fd)),
                Err(error) => Err(error_at(Path::new("/"), path, error)),
            }
        };
        Ok(Self { layers: paths.iter().map(open).collect::<Result<_, _>>()? })
    }

    /// What is at `path`, relative to the root; a link is not followed, also not on the way.
    pub(super) fn find(&self, path: &Path) -> Result<Option<Found<'a>>, SkeletonError> {
        for (i, (layer, root)) in self.layers.iter().enumerate() {
            let last = i + 1 == self.layers.len();
            match look(root, path, last).map_err(|error| error_at(path, layer, error))? {
                Seen::There { kind, fd } => return Ok(Some(Found { kind, layer, fd })),
                Seen::Below => {}
                Seen::Nothing => return Ok(None),
            }
        }
        Ok(None)
    }

    /// The text of the file at `path`, following links within the image; `None` if there is none. Bytes that are no UTF-8 are replaced:
    /// they can only stand in comment fields.
    pub(super) fn text(&self, path: &Path) -> Result<Option<String>, SkeletonError> {
        let mut links = 0;
        let mut done = PathBuf::new();
        let mut rest: VecDeque<OsString> = names(path);
        while let Some(name) = rest.pop_front() {
            if name == ".." {
                done.pop();
                continue;
            }
            let here = done.join(&name);
            let Some(found) = self.find(&here)? else { return Ok(None) };
            match found.kind {
                FileType::Symlink if links < MAX_LINKS => {
                    links += 1;
                    let target = found.target(&here)?;
                    if target.is_absolute() {
                        done = PathBuf::new();
                    }
                    for name in names(&target).into_iter().rev() {
                        rest.push_front(name);
                    }
                }
                FileType::Directory => done = here,
                FileType::RegularFile if rest.is_empty() => return found.read(&here).map(Some),
                _ => return Ok(None),
            }
        }
        Ok(None)
    }
}

impl Found<'_> {
    /// What a link says.
    pub(super) fn target(&self, path: &Path) -> Result<PathBuf, SkeletonError> {
        let target = rustix::fs::readlinkat(&self.fd, "", Vec::new()).map_err(|e| error_at(path, self.layer, e))?;
        Ok(OsString::from_vec(target.into_bytes()).into())
    }

    fn read(&self, path: &Path) -> Result<String, SkeletonError> {
        let failed = |error: io::Error| SkeletonError::Image {
            path: Path::new("/").join(path),
            layer: self.layer.to_owned(),
            source: error,
        };
        // The very file that was looked at, and known to be a regular one: opening cannot block.
        let mut bytes = Vec::new();
        let file = File::open(proc_path(&self.fd)).map_err(failed)?;
        file.take(MAX_FILE + 1).read_to_end(&mut bytes).map_err(failed)?;
        if bytes.len() as u64 > MAX_FILE {
            return Err(SkeletonError::TooLarge { path: Path::new("/").join(path), limit: MAX_FILE });
        }
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }
}

/// Looks for `path` in one layer. In the last one marks for layers below need not be looked for.
fn look(root: &OwnedFd, path: &Path, last: bool) -> rustix::io::Result<Seen> {
    let mut merged = true;
    let depth = path.components().count();
    for i in 1..=depth {
        let prefix: PathBuf = path.components().take(i).collect();
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = match rustix::fs::openat2(root, &prefix, flags, Mode::empty(), BENEATH) {
            Ok(fd) => fd,
            Err(Errno::NOENT) if merged => return Ok(Seen::Below),
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::NAMETOOLONG) => return Ok(Seen::Nothing),
            Err(error) => return Err(error),
        };
        let stat = rustix::fs::fstat(&fd)?;
        let kind = FileType::from_raw_mode(stat.st_mode);
        let whiteout = (kind == FileType::CharacterDevice && stat.st_rdev == 0)
            || (!last && kind == FileType::RegularFile && stat.st_size == 0 && has_mark(&fd, "whiteout", None));
        if whiteout {
            return Ok(Seen::Nothing);
        }
        if kind == FileType::Directory && !last && has_mark(&fd, "opaque", Some(b"y")) {
            merged = false;
        }
        if i == depth {
            return Ok(Seen::There { kind, fd });
        }
        if kind != FileType::Directory {
            return Ok(Seen::Nothing);
        }
    }
    Ok(Seen::Nothing)
}

/// Whether a file has one of overlayfs's marks, in the form for user namespaces or in that for real root.
fn has_mark(fd: &OwnedFd, mark: &str, value: Option<&[u8]>) -> bool {
    ["user", "trusted"].iter().any(|namespace| {
        let mut buffer = [0; 16];
        let name = format!("{namespace}.overlay.{mark}");
        // Descriptors of O_PATH have no attributes of their own (xattr(7)); the way through /proc does not resolve a name again.
        match rustix::fs::getxattr(proc_path(fd), name, &mut buffer) {
            Ok(n) => value.is_none_or(|value| buffer.get(..n) == Some(value)),
            Err(_) => false,
        }
    })
}

fn proc_path(fd: &OwnedFd) -> PathBuf {
    format!("/proc/self/fd/{}", fd.as_raw_fd()).into()
}

fn names(path: &Path) -> VecDeque<OsString> {
    path.components()
        .filter_map(|component| match component {
            Component::Normal(name) => Some(name.to_owned()),
            Component::ParentDir => Some(OsStr::new("..").to_owned()),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
        })
        .collect()
}

fn error_at(path: &Path, layer: &Path, error: Errno) -> SkeletonError {
    SkeletonError::Image { path: Path::new("/").join(path), layer: layer.to_owned(), source: error.into() }
}
