//! Where a path of the caller's leads, and the same place on the writable mounts.
//!
//! Two steps. The first follows the path as the caller means it, through links and the read-only mounts that it sees. Nothing depends on its
//! answer being right: it only says where to look. The second goes there on the writable mount from its root on, through no link at all,
//! and what it finds is what the policy is asked about and what is changed.

use std::borrow::Cow;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;

use super::policy::{Look, below};
use super::request::{self, At};

/// A folder of the host that the cell may write through the guard.
#[derive(Debug)]
pub(crate) struct Root {
    /// Where it stands, for the cell and for us.
    pub(crate) path: Vec<u8>,
    /// Its root on the writable mount, which the cell's read-only one covers.
    pub(crate) folder: OwnedFd,
}

/// All of them; none lies in another one.
#[derive(Debug, Default)]
pub(crate) struct Roots(pub(crate) Vec<Root>);

/// A name in one of them.
#[derive(Debug)]
pub(crate) struct Place {
    /// The folder's path.
    pub(crate) folder_path: Vec<u8>,
    /// The folder, on the writable mount.
    pub(crate) folder: OwnedFd,
    /// The name in there; empty if the place is a root itself.
    pub(crate) name: Vec<u8>,
    /// What has the name now.
    pub(crate) found: Option<Stat>,
    /// Whether the path ended with a slash.
    pub(crate) slash: bool,
    /// Whether the path ended with no name, but `.` or `..`.
    pub(crate) dots: bool,
}

impl Place {
    /// Its whole path.
    pub(crate) fn path(&self) -> Vec<u8> {
        if self.name.is_empty() { self.folder_path.clone() } else { join(&self.folder_path, &self.name) }
    }

    /// What kind of file it is, if there is one.
    pub(crate) fn kind(&self) -> Option<FileType> {
        self.found.as_ref().map(|stat| FileType::from_raw_mode(stat.st_mode))
    }

    /// The file itself, whatever it is, without opening it.
    pub(crate) fn grip(&self) -> rustix::io::Result<OwnedFd> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        if self.name.is_empty() {
            return rustix::io::fcntl_dupfd_cloexec(&self.folder, 3);
        }
        rustix::fs::openat(&self.folder, self.name.as_slice(), flags, Mode::empty())
    }
}

/// Most links on the way, as in the kernel (`MAXSYMLINKS`).
const MOST_LINKS: u32 = 40;

/// Who gave a path.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Thread {
    /// As seen from here.
    pub(crate) id: i32,
    /// Whether `/` may be another folder for it than for the cell.
    pub(crate) may_change_root: bool,
}

/// Where to go on from.
enum Base {
    Thread,
    Folder(OwnedFd),
}

const WALK: OFlags = OFlags::PATH.union(OFlags::CLOEXEC).union(OFlags::DIRECTORY);

impl Roots {
    /// The guarded place that `path`, given by `thread`, means; the link at its end counts as what it leads to if `follow`. None if it leads
    /// somewhere else, or nowhere: the kernel may do what was asked for, and finds those places read-only.
    ///
    /// # Errors
    /// What the kernel would say.
    pub(crate) fn find(&self, thread: Thread, at: At, path: &[u8], follow: bool) -> rustix::io::Result<Option<Place>> {
        let mut path = Cow::Borrowed(path);
        let mut base = Base::Thread;
        for _ in 0..=MOST_LINKS {
            let Some(step) = Step::of(&path) else { return Ok(None) };
            let hint = match base.walk(thread, at, step.folder) {
                Ok(hint) => hint,
                // Not for the kernel to say: if another thread makes the folder meanwhile, it would find it read-only.
                Err(Errno::NOENT) if self.ends_inside(&base, thread, at, step.folder) => return Err(Errno::NOENT),
                Err(_) => return Ok(None),
            };
            let Ok(folder_path) = path_of(&hint) else { return Ok(None) };
            let link = match self.agreed(&hint, &folder_path, &step)? {
                Some(place) if follow && !place.dots && place.kind() == Some(FileType::Symlink) => {
                    rustix::fs::readlinkat(&place.folder, place.name.as_slice(), Vec::new())?
                }
                // An open file that was removed: its descriptor leads to it, a name does not.
                Some(place) if place.found.is_none() && place.name.ends_with(b" (deleted)") => {
                    return Ok(None);
                }
                Some(place) => return Ok(Some(place)),
                None if !follow || step.name.is_empty() => return Ok(None),
                None => match rustix::fs::readlinkat(&hint, step.name, Vec::new()) {
                    Ok(link) => link,
                    Err(_) => return Ok(None),
                },
            };
            let mut link = link.into_bytes();
            if step.slash {
                link.push(b'/');
            }
            path = Cow::Owned(link);
            base = Base::Folder(hint);
        }
        Err(Errno::LOOP)
    }

    /// Whether what there is of the way to `folder` ends in a place that is guarded.
    fn ends_inside(&self, base: &Base, thread: Thread, at: At, folder: &[u8]) -> bool {
        let mut folder = folder;
        loop {
            let end = folder.iter().rposition(|byte| *byte != b'/').map_or(0, |last| last + 1);
            let Some(slash) = folder.get(..end).and_then(|rest| rest.iter().rposition(|byte| *byte == b'/')) else {
                // Nothing is left but where the thread stands.
                let hint = base.walk(thread, at, b"").and_then(|hint| path_of(&hint));
                return hint.is_ok_and(|path| self.root_of(&path).is_some());
            };
            folder = folder.get(..=slash).unwrap_or_default();
            match base.walk(thread, at, folder) {
                Ok(hint) => return path_of(&hint).is_ok_and(|path| self.root_of(&path).is_some()),
                Err(Errno::NOENT) if slash > 0 => {}
                Err(_) => return false,
            }
        }
    }

    /// The place of `step` in the folder `hint`, if that is guarded and the cell sees there what we do: something may be mounted on the read-only
    /// copy alone, to hide a file that the host has replaced since.
    fn agreed(&self, hint: &OwnedFd, folder_path: &[u8], step: &Step<'_>) -> rustix::io::Result<Option<Place>> {
        /// Looks, should the host change something between two of them.
        const LOOKS: u32 = 3;
        for _ in 0..LOOKS {
            let Some(place) = self.place(folder_path, step)? else { return Ok(None) };
            let inside = !step.dots && !place.name.is_empty();
            let folder = !inside || same(Some(&rustix::fs::fstat(hint)?), Some(&rustix::fs::fstat(&place.folder)?));
            let seen = match step.dots {
                true => Some(rustix::fs::fstat(hint)?),
                false => rustix::fs::statat(hint, step.name, AtFlags::SYMLINK_NOFOLLOW).ok(),
            };
            if folder && same(seen.as_ref(), place.found.as_ref()) {
                return Ok(Some(place));
            }
        }
        Ok(None)
    }

    /// The place of `step` in the folder `folder_path`, if that is guarded.
    fn place(&self, folder_path: &[u8], step: &Step<'_>) -> rustix::io::Result<Option<Place>> {
        let mut folder_path = folder_path.to_vec();
        let mut name = step.name.to_vec();
        let mut root = self.root_of(&folder_path);
        if step.dots && root.is_some_and(|root| root.path != folder_path) {
            // What was walked to is the thing itself.
            let slash = folder_path.iter().rposition(|byte| *byte == b'/').unwrap_or(0);
            name = folder_path.split_off(slash + 1);
            folder_path.pop();
        } else if root.is_none() && !step.dots {
            // A root is the thing itself, seen from outside.
            let whole = join(&folder_path, &name);
            root = self.0.iter().find(|root| root.path == whole);
            if root.is_some() {
                folder_path = whole;
                name.clear();
            }
        }
        let Some(root) = root else { return Ok(None) };
        let rest = below(&folder_path, &root.path).unwrap_or_default();
        let folder = if rest.is_empty() {
            rustix::io::fcntl_dupfd_cloexec(&root.folder, 3)?
        } else {
            let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
            rustix::fs::openat2(&root.folder, rest, WALK | OFlags::NOFOLLOW, Mode::empty(), resolve)?
        };
        let found = if name.is_empty() {
            Some(rustix::fs::fstat(&folder)?)
        } else {
            match rustix::fs::statat(&folder, name.as_slice(), AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => Some(stat),
                Err(Errno::NOENT) => None,
                Err(error) => return Err(error),
            }
        };
        let dots = step.dots || name.is_empty();
        Ok(Some(Place { folder_path, folder, name, found, slash: step.slash, dots }))
    }

    /// The place of the open file behind `grip`, if it lies in a root and has a name there.
    pub(crate) fn place_of(&self, grip: &OwnedFd) -> rustix::io::Result<Option<Place>> {
        let path = path_of(grip)?;
        if self.root_of(&path).is_none() {
            return Ok(None);
        }
        if let Some(root) = self.0.iter().find(|root| root.path == path) {
            return self.place(&root.path, &Step { folder: b"", name: b"", slash: false, dots: true });
        }
        let slash = path.iter().rposition(|byte| *byte == b'/').unwrap_or(0);
        let (folder, name) = path.split_at(slash);
        let step = Step { folder: b"", name: name.get(1..).unwrap_or_default(), slash: false, dots: false };
        let Some(place) = self.place(folder, &step)? else { return Ok(None) };
        // One that was removed has a name that may mean another file by now.
        let there = rustix::fs::fstat(grip)?;
        Ok(same(Some(&there), place.found.as_ref()).then_some(place))
    }

    fn root_of(&self, path: &[u8]) -> Option<&Root> {
        self.0.iter().find(|root| below(path, &root.path).is_some())
    }
}

impl Look for Roots {
    fn exists(&self, path: &[u8]) -> bool {
        let Some(root) = self.root_of(path) else { return false };
        let rest = below(path, &root.path).unwrap_or_default();
        let found = rustix::fs::statat(&root.folder, rest, AtFlags::SYMLINK_NOFOLLOW);
        // What cannot be seen may be there.
        !matches!(found, Err(Errno::NOENT | Errno::NOTDIR))
    }
}

/// A path taken apart at its end.
struct Step<'a> {
    /// Up to the last name.
    folder: &'a [u8],
    /// The last name; empty if there is none.
    name: &'a [u8],
    slash: bool,
    dots: bool,
}

impl<'a> Step<'a> {
    fn of(path: &'a [u8]) -> Option<Self> {
        let end = path.iter().rposition(|byte| *byte != b'/').map_or(0, |last| last + 1);
        let trimmed = path.get(..end)?;
        let slash = end < path.len();
        if path.is_empty() {
            return None;
        }
        let from = trimmed.iter().rposition(|byte| *byte == b'/').map_or(0, |at| at + 1);
        let (folder, name) = trimmed.split_at(from);
        if matches!(name, b"" | b"." | b"..") {
            let folder = if trimmed.is_empty() { b"/" } else { trimmed };
            return Some(Self { folder, name: b"", slash, dots: true });
        }
        Some(Self { folder, name, slash, dots: false })
    }
}

impl Base {
    /// Goes to the folder `path`, for `thread`.
    fn walk(&self, thread: Thread, at: At, path: &[u8]) -> rustix::io::Result<OwnedFd> {
        let id = thread.id;
        let open = |folder: BorrowedFd<'_>, path: &[u8]| rustix::fs::openat(folder, path, WALK, Mode::empty());
        if path.first() == Some(&b'/') {
            if let Some(own) = of_the_caller(id, path) {
                return open(CWD, &own);
            }
            if !thread.may_change_root {
                return open(CWD, path);
            }
            let root = format!("{id}/root");
            return match rustix::fs::readlinkat(CWD, root.as_str(), Vec::new())?.as_bytes() {
                b"/" => open(CWD, path),
                // In a chroot of its own. A link that is absolute goes there too.
                _ => {
                    let root = rustix::fs::openat(CWD, root.as_str(), WALK, Mode::empty())?;
                    rustix::fs::openat2(&root, path, WALK, Mode::empty(), ResolveFlags::IN_ROOT)
                }
            };
        }
        let path = if path.is_empty() { b".".as_slice() } else { path };
        match self {
            Self::Folder(folder) => rustix::fs::openat(folder, path, WALK, Mode::empty()),
            Self::Thread => {
                let base = match at.folder {
                    request::CWD => format!("{id}/cwd/"),
                    number @ 0.. => format!("{id}/fd/{number}/"),
                    _ => return Err(Errno::BADF),
                };
                open(CWD, &[base.as_bytes(), path].concat())
            }
        }
    }
}

/// `/proc/self` and what leads there mean the caller's, and are nobody's for us. The host's `/proc` is our working directory.
fn of_the_caller(thread: i32, path: &[u8]) -> Option<Vec<u8>> {
    if path.split(|byte| *byte == b'/').any(|part| part == b"..") {
        // It would lead to processes of the host.
        return None;
    }
    let own = |rest: &[u8], middle: &str| Some([format!("{thread}/{middle}").as_bytes(), rest].concat());
    if let Some(rest) = path.strip_prefix(b"/proc/self/").or_else(|| path.strip_prefix(b"/proc/thread-self/")) {
        return own(rest, "");
    }
    path.strip_prefix(b"/dev/fd/").and_then(|rest| own(rest, "fd/"))
}

/// Whether both are the same file, or nothing.
fn same(one: Option<&Stat>, other: Option<&Stat>) -> bool {
    match (one, other) {
        (Some(one), Some(other)) => (one.st_dev, one.st_ino) == (other.st_dev, other.st_ino),
        (one, other) => one.is_none() && other.is_none(),
    }
}

fn join(folder: &[u8], name: &[u8]) -> Vec<u8> {
    [folder, b"/", name].concat().split_off(usize::from(folder == b"/"))
}

/// The path of an open file, as the kernel tells it.
pub(crate) fn path_of(fd: &OwnedFd) -> rustix::io::Result<Vec<u8>> {
    let link = rustix::fs::readlinkat(CWD, magic(fd).as_str(), Vec::with_capacity(256))?;
    Ok(link.into_bytes())
}

/// The path from our working directory that means the open file itself.
pub(crate) fn magic(fd: &OwnedFd) -> String {
    format!("self/fd/{}", fd.as_raw_fd())
}

/// An open file of `thread`, whatever it is.
pub(crate) fn open_file(thread: i32, number: i32) -> io::Result<OwnedFd> {
    let path = format!("{thread}/fd/{number}");
    Ok(rustix::fs::openat(CWD, path.as_str(), OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?)
}

/// Gives a socket the name of `place`. It keeps the last component as its address.
pub(crate) fn bind_in(socket: &OwnedFd, place: &Place) -> rustix::io::Result<()> {
    let home = rustix::fs::openat(CWD, ".", WALK, Mode::empty())?;
    rustix::process::fchdir(&place.folder)?;
    let bound =
        rustix::net::SocketAddrUnix::new(place.name.as_slice()).and_then(|name| rustix::net::bind(socket, &name));
    // Everything else is looked for from there.
    if rustix::process::fchdir(&home).is_err() {
        cellblock_sys::process::exit_now(crate::exit::OURS);
    }
    bound
}
