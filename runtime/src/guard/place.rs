//! Where a path of the caller's leads, and the same place on the writable mounts.
//!
//! Two steps. The first follows the path as the caller means it, through links and the read-only mounts that it sees. Nothing depends on its
//! answer being right: it only says where to look. The second goes there on the writable mount from its root on, through no link at all,
//! and what it finds is what the policy is asked about and what is changed.
//!
//! [`Roots::recall`] takes the first step in one call where it led before ([`super::known`]); [`Roots::find`] takes it whole.

use std::borrow::Cow;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::rc::Rc;

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;

use super::known::{Key, Known, Was};
use super::policy::{Look, below};
use super::request::{self, At};

/// A folder of the host that the cell may write through the guard.
#[derive(Debug)]
pub(crate) struct Root {
    /// Where it stands, for the cell and for us.
    pub(crate) path: Vec<u8>,
    /// Its root on the writable mount, which the cell's read-only one covers.
    pub(crate) folder: Rc<OwnedFd>,
}

/// All of them; none lies in another one.
#[derive(Debug, Default)]
pub(crate) struct Roots {
    pub(crate) all: Vec<Root>,
    pub(crate) known: Known,
}

/// A name in one of them.
#[derive(Debug)]
pub(crate) struct Place {
    /// The folder's path.
    pub(crate) folder_path: Rc<[u8]>,
    /// The folder, on the writable mount.
    pub(crate) folder: Rc<OwnedFd>,
    /// The folder as the caller sees it, where that is known.
    key: Option<Key>,
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
        if self.name.is_empty() { self.folder_path.to_vec() } else { join(&self.folder_path, &self.name) }
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
#[derive(Clone, Debug)]
pub(crate) struct Thread {
    /// Its folder in `/proc`.
    pub(crate) folder: Rc<OwnedFd>,
    /// Whether `/` may be another folder for it than for the cell.
    pub(crate) may_change_root: bool,
}

/// Where to go on from.
enum Base {
    Thread,
    Folder(OwnedFd),
}

/// Nothing is known of a path, or nothing that is still so.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Unknown {
    /// Whether the thread's folder in `/proc` led somewhere: then it is no other one's.
    pub(crate) is_its: bool,
}

const WALK: OFlags = OFlags::PATH.union(OFlags::CLOEXEC).union(OFlags::DIRECTORY);

impl Thread {
    /// Where the kernel goes on from if the thread gives it `path`, and what it is called there; none if that is not as simple.
    fn view(&self, at: At, path: &[u8]) -> Option<(BorrowedFd<'_>, Cow<'static, str>)> {
        if path.first() == Some(&b'/') {
            let its_own = [&b"/proc/"[..], b"/dev/fd/"].iter().any(|start| path.starts_with(start));
            let as_here =
                || rustix::fs::readlinkat(&self.folder, c"root", Vec::new()).is_ok_and(|root| root.as_bytes() == b"/");
            return (!its_own && (!self.may_change_root || as_here())).then_some((CWD, Cow::Borrowed("")));
        }
        let name = match at.folder {
            request::CWD => Cow::Borrowed("cwd/"),
            number @ 0.. => Cow::Owned(format!("fd/{number}/")),
            _ => return None,
        };
        Some((self.folder.as_fd(), name))
    }
}

impl Roots {
    /// As [`Roots::find`], if the folder is known. `near` is a place that the same call is about, and was found just now. Unless `contents` matter,
    /// something may be mounted over the place for the caller: the kernel neither removes nor moves what it is mounted on (EBUSY).
    pub(crate) fn recall(
        &self,
        thread: &Thread,
        at: At,
        path: &[u8],
        follow: bool,
        near: Option<&Place>,
        contents: bool,
    ) -> Result<Option<Place>, Unknown> {
        let nothing = Unknown { is_its: false };
        let step = Step::of(path).filter(|step| !step.dots).ok_or(nothing)?;
        let (base, start) = thread.view(at, path).ok_or(nothing)?;
        let view = [start.as_bytes(), step.folder, step.name].concat();
        let key = Key::of(base, view.get(..start.len() + step.folder.len()).unwrap_or_default()).ok_or(nothing)?;
        let unknown = Unknown { is_its: !start.is_empty() };
        let folder_path = match self.known.get(&key).ok_or(unknown)? {
            Was::Inside(path) => path,
            // A link may lead back.
            Was::Elsewhere if follow && rustix::fs::readlinkat(base, view, Vec::new()).is_ok() => return Err(unknown),
            Was::Elsewhere => return Ok(None),
        };
        let folder = match near {
            Some(near) if near.key == Some(key) && near.folder_path == folder_path => Rc::clone(&near.folder),
            _ => {
                let folder = self.root_of(&folder_path).and_then(|root| go(root, &folder_path).ok());
                let is_it = |folder: &Rc<OwnedFd>| rustix::fs::fstat(folder).is_ok_and(|stat| key.is(&stat));
                folder.filter(is_it).ok_or_else(|| {
                    self.known.forget(&key);
                    unknown
                })?
            }
        };
        let found = look(&folder, step.name).map_err(|_| unknown)?;
        let is_link = |stat: &Stat| FileType::from_raw_mode(stat.st_mode) == FileType::Symlink;
        match &found {
            Some(stat) if follow && is_link(stat) => return Err(unknown),
            // Nothing can be mounted over a name that is not there.
            None if step.name.ends_with(REMOVED) => return Err(unknown),
            None => {}
            Some(_) if !contents => {}
            Some(stat) => {
                let seen = rustix::fs::statat(base, view, AtFlags::SYMLINK_NOFOLLOW).ok();
                if !same(seen.as_ref(), Some(stat)) {
                    return Err(unknown);
                }
            }
        }
        let (name, slash) = (step.name.to_vec(), step.slash);
        Ok(Some(Place { folder_path, folder, key: Some(key), name, found, slash, dots: false }))
    }

    /// The guarded place that `path`, given by `thread`, means; the link at its end counts as what it leads to if `follow`. None if it leads
    /// somewhere else, or nowhere: the kernel may do what was asked for, and finds those places read-only.
    ///
    /// # Errors
    /// What the kernel would say.
    pub(crate) fn find(&self, thread: &Thread, at: At, path: &[u8], follow: bool) -> rustix::io::Result<Option<Place>> {
        let mut path = Cow::Borrowed(path);
        let mut base = Base::Thread;
        for _ in 0..=MOST_LINKS {
            let Some(step) = Step::of(&path) else { return Ok(None) };
            let hint = match base.walk(thread, at, step.folder) {
                Ok(hint) => hint,
                // Not for the kernel to say: if another thread makes the folder meanwhile, it would find it read-only.
                Err(error @ (Errno::NOENT | Errno::NOTDIR | Errno::ACCESS))
                    if self.ends_inside(&base, thread, at, step.folder) =>
                {
                    return Err(error);
                }
                Err(_) => return Ok(None),
            };
            let Ok(folder_path) = path_of(&hint) else { return Ok(None) };
            let place = self.agreed(&hint, &folder_path, &step)?;
            self.learn(&hint, &folder_path, place.as_ref());
            let link = match place {
                Some(place) if follow && !place.dots && place.kind() == Some(FileType::Symlink) => {
                    rustix::fs::readlinkat(&place.folder, place.name.as_slice(), Vec::new())?
                }
                // An open file that was removed: its descriptor leads to it, a name does not.
                Some(place) if place.found.is_none() && place.name.ends_with(REMOVED) => {
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

    /// Keeps where the folder `hint` is, if that is of use.
    fn learn(&self, hint: &OwnedFd, folder_path: &[u8], place: Option<&Place>) {
        match place {
            Some(place) if place.dots => {}
            Some(place) => self.known.learn(hint, Was::Inside(Rc::clone(&place.folder_path))),
            None => {
                // From one that holds a root, a name leads into it.
                let begins = |root: &Root| below(&root.path, folder_path).is_some();
                if self.root_of(folder_path).is_none() && !self.all.iter().any(begins) {
                    self.known.learn(hint, Was::Elsewhere);
                }
            }
        }
    }

    /// Whether what there is of the way to `folder` ends in a place that is guarded.
    fn ends_inside(&self, base: &Base, thread: &Thread, at: At, folder: &[u8]) -> bool {
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
                Err(Errno::NOENT | Errno::NOTDIR | Errno::ACCESS) if slash > 0 => {}
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
            root = self.all.iter().find(|root| root.path == whole);
            if root.is_some() {
                folder_path = whole;
                name.clear();
            }
        }
        let Some(root) = root else { return Ok(None) };
        let folder = go(root, &folder_path)?;
        let found = if name.is_empty() { Some(rustix::fs::fstat(&folder)?) } else { look(&folder, &name)? };
        let dots = step.dots || name.is_empty();
        Ok(Some(Place { folder_path: folder_path.into(), folder, key: None, name, found, slash: step.slash, dots }))
    }

    /// The place of the open file behind `grip`, if it lies in a root and has a name there.
    pub(crate) fn place_of(&self, grip: &OwnedFd) -> rustix::io::Result<Option<Place>> {
        let path = path_of(grip)?;
        if self.root_of(&path).is_none() {
            return Ok(None);
        }
        if let Some(root) = self.all.iter().find(|root| root.path == path) {
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
        self.all.iter().find(|root| below(path, &root.path).is_some())
    }
}

/// Goes to `path`, which is that of a folder in `root`, on the writable mount.
fn go(root: &Root, path: &[u8]) -> rustix::io::Result<Rc<OwnedFd>> {
    let rest = below(path, &root.path).unwrap_or_default();
    if rest.is_empty() {
        return Ok(Rc::clone(&root.folder));
    }
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    Ok(Rc::new(cellblock_sys::scoped::openat2(&root.folder, rest, WALK | OFlags::NOFOLLOW, Mode::empty(), resolve)?))
}

/// What has the name in `folder`.
fn look(folder: &OwnedFd, name: &[u8]) -> rustix::io::Result<Option<Stat>> {
    match rustix::fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(stat)),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(error),
    }
}

/// How the kernel's path of a removed file ends.
const REMOVED: &[u8] = b" (deleted)";

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
    fn walk(&self, thread: &Thread, at: At, path: &[u8]) -> rustix::io::Result<OwnedFd> {
        let open = |folder: BorrowedFd<'_>, path: &[u8]| rustix::fs::openat(folder, path, WALK, Mode::empty());
        let its = thread.folder.as_fd();
        if path.first() == Some(&b'/') {
            if let Some(own) = of_the_caller(path) {
                return open(its, &own);
            }
            if !thread.may_change_root {
                return open(CWD, path);
            }
            return match rustix::fs::readlinkat(its, c"root", Vec::new())?.as_bytes() {
                b"/" => open(CWD, path),
                // In a chroot of its own. A link that is absolute goes there too.
                _ => cellblock_sys::scoped::openat2(
                    open(its, b"root")?,
                    path,
                    WALK,
                    Mode::empty(),
                    ResolveFlags::IN_ROOT,
                ),
            };
        }
        let path = if path.is_empty() { b".".as_slice() } else { path };
        match self {
            Self::Folder(folder) => open(folder.as_fd(), path),
            Self::Thread => {
                let base = match at.folder {
                    request::CWD => "cwd/".to_owned(),
                    number @ 0.. => format!("fd/{number}/"),
                    _ => return Err(Errno::BADF),
                };
                open(its, &[base.as_bytes(), path].concat())
            }
        }
    }
}

/// `/proc/self` and what leads there mean the caller's, and are nobody's for us: where they lead from its folder in `/proc`.
fn of_the_caller(path: &[u8]) -> Option<Vec<u8>> {
    if path.split(|byte| *byte == b'/').any(|part| part == b"..") {
        // It would lead to processes of the host.
        return None;
    }
    let own = path.strip_prefix(b"/proc/self/").or_else(|| path.strip_prefix(b"/proc/thread-self/"));
    let own = own.or_else(|| path.strip_prefix(b"/dev/").filter(|rest| rest.starts_with(b"fd/")))?;
    // However many slashes it begins with.
    Some([b"./", own].concat())
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
pub(crate) fn open_file(thread: &Thread, number: i32) -> rustix::io::Result<OwnedFd> {
    let path = format!("fd/{number}");
    rustix::fs::openat(&thread.folder, path.as_str(), OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
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
