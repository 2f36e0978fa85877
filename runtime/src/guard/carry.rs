//! Carries a request out, as its caller, on the writable mount: the same call on a folder that was walked to and a name that was looked at.

use std::os::fd::OwnedFd;

use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, RenameFlags, ResolveFlags, Timespec, Timestamps, UTIME_NOW, Uid, XattrFlags,
};
use rustix::io::Errno;

use super::caller::{self, Disguise, Identity, Statuses};
use super::config::Configs;
use super::place::{self, Place, Roots, Thread, magic, open_file};
use super::policy::{Act, Policy};
use super::request::{Address, At, Change, Clock, Request, Target};

/// What becomes of a call.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// The kernel does it: it is not about guarded places, or fails there in its own words.
    GoOn,
    /// It is done, or failed.
    Done(rustix::io::Result<()>),
    /// It opened this.
    Opened(OwnedFd),
    /// It must not be.
    Denied {
        /// What was to be changed.
        path: Vec<u8>,
        /// Why not.
        why: String,
    },
}

/// Ends the call early.
pub(super) enum Stop {
    Outcome(Outcome),
    Errno(Errno),
}

impl From<Errno> for Stop {
    fn from(errno: Errno) -> Self {
        Self::Errno(errno)
    }
}

impl From<std::io::Error> for Stop {
    fn from(error: std::io::Error) -> Self {
        Self::Errno(Errno::from_io_error(&error).unwrap_or(Errno::IO))
    }
}

pub(super) type Step<T> = Result<T, Stop>;

/// `__O_TMPFILE`, without the `O_DIRECTORY` that comes with it.
const UNNAMED: OFlags = OFlags::TMPFILE.difference(OFlags::DIRECTORY);
/// What `open(2)` knows; it passes over the rest, which `openat2(2)` does not.
const KNOWN: OFlags = OFlags::ACCMODE
    .union(OFlags::APPEND)
    .union(OFlags::CREATE)
    .union(OFlags::DIRECT)
    .union(OFlags::DIRECTORY)
    .union(OFlags::DSYNC)
    .union(OFlags::EXCL)
    .union(OFlags::NOATIME)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::NONBLOCK)
    .union(OFlags::SYNC)
    .union(OFlags::TMPFILE)
    .union(OFlags::TRUNC);

const GO_ON: Stop = Stop::Outcome(Outcome::GoOn);

/// Everything that is needed to carry requests out.
#[derive(Debug)]
pub(crate) struct Worker {
    pub(crate) roots: Roots,
    pub(crate) policy: Policy,
    pub(crate) statuses: Statuses,
    pub(crate) disguise: Disguise,
    pub(crate) configs: Configs,
}

/// Who calls.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Caller<'a> {
    pub(crate) thread: i32,
    /// Who it is, if it can be nobody else.
    pub(crate) always: Option<&'a Identity>,
}

impl Worker {
    /// Does what `request` says for `caller`; `waits` tells whether it still is the one who waits.
    pub(crate) fn carry_out(&mut self, caller: Caller<'_>, request: &Request, waits: &dyn Fn() -> bool) -> Outcome {
        let who = match caller.always {
            Some(who) => self.disguise.wear(who),
            None => self.statuses.of(caller.thread).and_then(|status| self.disguise.wear(&status.identity)),
        };
        if let Err(error) = who {
            return Outcome::Done(Err(Errno::from_io_error(&error).unwrap_or(Errno::PERM)));
        }
        let who = Thread { id: caller.thread, may_change_root: caller.always.is_none() };
        match (Work { worker: self, thread: caller.thread, who, waits }).run(request) {
            Ok(()) => Outcome::Done(Ok(())),
            Err(Stop::Outcome(outcome)) => outcome,
            Err(Stop::Errno(errno)) => Outcome::Done(Err(errno)),
        }
    }
}

/// One request.
pub(super) struct Work<'a> {
    pub(super) worker: &'a mut Worker,
    pub(super) thread: i32,
    who: Thread,
    pub(super) waits: &'a dyn Fn() -> bool,
}

impl Work<'_> {
    fn run(&mut self, request: &Request) -> Step<()> {
        match *request {
            Request::Open { at, flags, mode } => self.open(at, OFlags::from_bits_retain(flags), mode),
            Request::MakeDir { at, mode } => {
                let place = self.new_name(at)?;
                self.allowed(&place, Act::MakeDir)?;
                self.umask()?;
                Ok(rustix::fs::mkdirat(&place.folder, place.name.as_slice(), Mode::from_raw_mode(mode & 0o7777))?)
            }
            Request::MakeNode { at, mode, device } => self.node(at, mode, device),
            Request::Remove { at, folder } => {
                let place = self.named(at)?;
                self.drop_config(&place)?;
                match place.kind() {
                    None => return Err(Errno::NOENT.into()),
                    Some(FileType::Directory) => {}
                    Some(_) if place.slash => return Err(Errno::NOTDIR.into()),
                    Some(_) => {}
                }
                self.allowed(&place, Act::Remove)?;
                let flags = if folder { AtFlags::REMOVEDIR } else { AtFlags::empty() };
                Ok(rustix::fs::unlinkat(&place.folder, place.name.as_slice(), flags)?)
            }
            Request::Rename { from, to, flags } => self.rename(from, to, RenameFlags::from_bits_retain(flags)),
            Request::Link { from, to, flags } => self.link(from, to, flags),
            Request::Symlink { target, at } => {
                let place = self.new_name(at)?;
                if place.slash {
                    return Err(GO_ON);
                }
                let target = caller::text(self.thread, target).ok_or(GO_ON)?;
                self.allowed(&place, Act::Link)?;
                Ok(rustix::fs::symlinkat(target, &place.folder, place.name.as_slice())?)
            }
            Request::Truncate { at, length } => self.truncate(at, length),
            Request::Access { at, mode, flags } => self.access(at, mode, flags),
            Request::Change { what, how } => self.change(what, how),
            Request::Bind { socket, address, length } => self.bind(socket, address, length),
        }
    }

    /// The path at `address`.
    fn text(&self, address: Address) -> Step<Vec<u8>> {
        caller::text(self.thread, address).ok_or(GO_ON)
    }

    fn find(&self, at: At, follow: bool) -> Step<Place> {
        let path = self.text(at.path)?;
        self.find_text(at, &path, follow)
    }

    fn find_text(&self, at: At, path: &[u8], follow: bool) -> Step<Place> {
        self.worker.roots.find(self.who, at, path, follow)?.ok_or(GO_ON)
    }

    /// A place that is to be removed or renamed: one with a name of its own that exists.
    fn named(&self, at: At) -> Step<Place> {
        let place = self.find(at, false)?;
        if place.dots { Err(GO_ON) } else { Ok(place) }
    }

    /// A place for something new. If it is taken, the kernel says so.
    fn new_name(&self, at: At) -> Step<Place> {
        let place = self.named(at)?;
        if place.found.is_some() { Err(Errno::EXIST.into()) } else { Ok(place) }
    }

    /// Stops unless `act` may happen to the place, and to the one who asked.
    fn allowed(&self, place: &Place, act: Act) -> Step<()> {
        // What was read of the caller was its own only if it still waits.
        if !(self.waits)() {
            return Err(Errno::INTR.into());
        }
        let path = place.path();
        self.worker
            .policy
            .decide(&path, act, &self.worker.roots)
            .map_err(|why| Stop::Outcome(Outcome::Denied { path, why }))
    }

    /// Takes the caller's umask.
    fn umask(&mut self) -> Step<()> {
        let status = self.worker.statuses.of(self.thread)?;
        rustix::process::umask(Mode::from_raw_mode(status.umask));
        Ok(())
    }

    fn open(&mut self, at: At, flags: OFlags, mode: u32) -> Step<()> {
        let writes = flags.intersects(OFlags::WRONLY | OFlags::RDWR | OFlags::TRUNC);
        if flags.intersects(UNNAMED) {
            return self.open_unnamed(at, flags, mode);
        }
        let fresh = flags.contains(OFlags::CREATE | OFlags::EXCL);
        let path = self.text(at.path)?;
        if matches!(path.as_slice(), b"/dev/null" | b"/dev/tty") {
            // By far the most frequent ones that are not guarded. If a chroot has others there, it finds them read-only.
            return Err(GO_ON);
        }
        let place = self.find_text(at, &path, !fresh && !flags.contains(OFlags::NOFOLLOW))?;
        if place.dots || place.slash {
            return Err(GO_ON);
        }
        self.begin_config(&place, flags)?;
        match place.kind() {
            None if !flags.contains(OFlags::CREATE) => return Err(Errno::NOENT.into()),
            Some(_) if fresh => return Err(Errno::EXIST.into()),
            Some(FileType::Symlink) => return Err(Errno::LOOP.into()),
            Some(FileType::Directory) => return Err(Errno::ISDIR.into()),
            // Reading what is there works on the read-only mount.
            Some(FileType::RegularFile) if !writes => return Err(GO_ON),
            Some(FileType::RegularFile) => self.allowed(&place, Act::Write)?,
            // Pipes, sockets, devices: the mount does not matter to them, and opening may wait.
            Some(_) => return Err(GO_ON),
            None => {
                self.allowed(&place, Act::Make)?;
                self.umask()?;
            }
        }
        let name = place.name.as_slice();
        self.opened(&place.folder, name, flags, mode)
    }

    /// A file without a name, in a folder.
    fn open_unnamed(&mut self, at: At, flags: OFlags, mode: u32) -> Step<()> {
        let mut path = self.text(at.path)?;
        path.extend_from_slice(b"/.");
        let place = self.find_text(at, &path, true)?;
        let folder = place.grip()?;
        self.allowed(&place, Act::MakeDir)?;
        self.umask()?;
        self.opened(&folder, b".", flags, mode)
    }

    /// Opens and hands over. Only ever a regular file: from a folder on the writable mount its owner could go on without us.
    fn opened(&self, folder: &OwnedFd, name: &[u8], flags: OFlags, mode: u32) -> Step<()> {
        // Not waiting, should somebody outside have put a pipe there meanwhile.
        let ours = OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::LARGEFILE;
        let makes = flags.intersects(OFlags::CREATE | UNNAMED);
        let mode = if makes { Mode::from_raw_mode(mode & 0o7777) } else { Mode::empty() };
        // By this call and not O_NOFOLLOW: a file remembers how it was opened, and somebody may look.
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        let file = rustix::fs::openat2(folder, name, (flags & KNOWN) | ours, mode, resolve)?;
        if FileType::from_raw_mode(rustix::fs::fstat(&file)?.st_mode) != FileType::RegularFile {
            return Err(Errno::ISDIR.into());
        }
        if !flags.contains(OFlags::NONBLOCK) {
            let kept = OFlags::APPEND | OFlags::DIRECT | OFlags::NOATIME;
            rustix::fs::fcntl_setfl(&file, flags & kept)?;
        }
        Err(Stop::Outcome(Outcome::Opened(file)))
    }

    fn node(&mut self, at: At, mode: u32, device: u64) -> Step<()> {
        let place = self.new_name(at)?;
        let kind = match mode & 0o170_000 {
            0 => FileType::RegularFile,
            _ => FileType::from_raw_mode(mode),
        };
        if place.slash || matches!(kind, FileType::Directory | FileType::Symlink | FileType::Unknown) {
            return Err(GO_ON);
        }
        self.allowed(&place, Act::Make)?;
        self.umask()?;
        let mode = Mode::from_raw_mode(mode & 0o7777);
        Ok(rustix::fs::mknodat(&place.folder, place.name.as_slice(), kind, mode, device)?)
    }

    fn rename(&mut self, from: At, to: At, flags: RenameFlags) -> Step<()> {
        // One of them elsewhere, or both: the kernel says what it is.
        let (from, to) = (self.named(from)?, self.named(to)?);
        self.replace_config(&from, &to, flags)?;
        if from.found.is_none() {
            return Err(Errno::NOENT.into());
        }
        if (from.slash || to.slash) && from.kind() != Some(FileType::Directory) {
            return Err(Errno::NOTDIR.into());
        }
        self.allowed(&from, Act::Away)?;
        self.allowed(&to, arrives(&from))?;
        if to.found.is_some() {
            self.allowed(&to, Act::Away)?;
        }
        if flags.contains(RenameFlags::EXCHANGE) {
            self.allowed(&from, arrives(&to))?;
        }
        let (old, new) = (from.name.as_slice(), to.name.as_slice());
        Ok(rustix::fs::renameat_with(&from.folder, old, &to.folder, new, flags)?)
    }

    fn link(&mut self, from: At, to: At, flags: AtFlags) -> Step<()> {
        let to = self.new_name(to)?;
        if to.slash {
            return Err(GO_ON);
        }
        let path = self.text(from.path)?;
        let follow = flags.contains(AtFlags::SYMLINK_FOLLOW);
        let source = if path.is_empty() && flags.contains(AtFlags::EMPTY_PATH) {
            self.open_source(from.folder)?
        } else if let Some(number) = own_descriptor(&path).filter(|_| follow) {
            self.open_source(number)?
        } else {
            let place = self.find_text(from, &path, follow)?;
            self.allowed(&place, Act::Write)?;
            place.grip()?
        };
        self.allowed(&to, Act::Place)?;
        let name = to.name.as_slice();
        Ok(rustix::fs::linkat(rustix::fs::CWD, magic(&source).as_str(), &to.folder, name, AtFlags::SYMLINK_FOLLOW)?)
    }

    /// An open file of the caller's that is to get a name: by the writable mount, if it has a name already.
    fn open_source(&self, number: i32) -> Step<OwnedFd> {
        let grip = open_file(self.thread, number).map_err(|_| GO_ON)?;
        match self.worker.roots.place_of(&grip)? {
            Some(place) => {
                self.allowed(&place, Act::Write)?;
                Ok(place.grip()?)
            }
            None => Ok(grip),
        }
    }

    fn truncate(&mut self, at: At, length: i64) -> Step<()> {
        let place = self.find(at, true)?;
        let length = u64::try_from(length).map_err(|_| Errno::INVAL)?;
        match place.kind() {
            Some(FileType::RegularFile) if !place.slash => {}
            None => return Err(Errno::NOENT.into()),
            _ => return Err(GO_ON),
        }
        self.allowed(&place, Act::Write)?;
        let flags = OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&place.folder, place.name.as_slice(), flags, Mode::empty())?;
        Ok(rustix::fs::ftruncate(&file, length)?)
    }

    fn access(&mut self, at: At, mode: u32, flags: AtFlags) -> Step<()> {
        let path = self.text(at.path)?;
        if path.is_empty() {
            return Err(GO_ON);
        }
        let place = self.find_text(at, &path, !flags.contains(AtFlags::SYMLINK_NOFOLLOW))?;
        if place.found.is_none() || place.slash && place.kind() != Some(FileType::Directory) {
            return Err(GO_ON);
        }
        if !place.name.is_empty() && self.worker.policy.decide(&place.path(), Act::Write, &self.worker.roots).is_err() {
            return Err(Errno::ACCESS.into());
        }
        let access = rustix::fs::Access::from_bits_retain(mode);
        let grip = place.grip()?;
        Ok(rustix::fs::accessat(rustix::fs::CWD, magic(&grip).as_str(), access, AtFlags::EACCESS)?)
    }

    fn change(&mut self, what: Target, how: Change) -> Step<()> {
        let place = match what {
            Target::Open(number) => self.open_place(number)?,
            Target::Path { at, follow, empty } => {
                let path = self.text(at.path)?;
                if path.is_empty() && empty && at.folder >= 0 {
                    self.open_place(at.folder)?
                } else if path.is_empty() {
                    return Err(GO_ON);
                } else {
                    self.find_text(at, &path, follow)?
                }
            }
        };
        self.pass_config(&place, how)?;
        if place.found.is_none() {
            return Err(Errno::NOENT.into());
        }
        if place.slash && place.kind() != Some(FileType::Directory) {
            return Err(Errno::NOTDIR.into());
        }
        self.allowed(&place, Act::Write)?;
        let grip = place.grip()?;
        let path = magic(&grip);
        match how {
            // The mode of a link does not exist.
            Change::Mode(_) if place.kind() == Some(FileType::Symlink) => Err(Errno::OPNOTSUPP.into()),
            Change::Mode(mode) => {
                let mode = Mode::from_raw_mode(mode & 0o7777);
                Ok(rustix::fs::chmodat(rustix::fs::CWD, path.as_str(), mode, AtFlags::empty())?)
            }
            Change::Owner(uid, gid) => {
                let uid = (uid != u32::MAX).then(|| Uid::from_raw(uid));
                let gid = (gid != u32::MAX).then(|| Gid::from_raw(gid));
                Ok(rustix::fs::chownat(rustix::fs::CWD, path.as_str(), uid, gid, AtFlags::empty())?)
            }
            Change::Times(address, clock) => {
                let times = self.times(address, clock)?;
                Ok(rustix::fs::utimensat(rustix::fs::CWD, path.as_str(), &times, AtFlags::empty())?)
            }
            Change::SetXattr { name, value, size, flags } => {
                /// `XATTR_SIZE_MAX` (`<linux/limits.h>`).
                const MOST: u64 = 65_536;
                let name = self.text(name)?;
                let size = usize::try_from(size).ok().filter(|size| *size as u64 <= MOST).ok_or(Errno::TOOBIG)?;
                let value = caller::bytes(self.thread, value, size).ok_or(Errno::FAULT)?;
                let flags = XattrFlags::from_bits_retain(flags);
                Ok(rustix::fs::setxattr(path.as_str(), name, &value, flags)?)
            }
            Change::RemoveXattr { name } => Ok(rustix::fs::removexattr(path.as_str(), self.text(name)?)?),
        }
    }

    /// The place of an open file of the caller's.
    fn open_place(&self, number: i32) -> Step<Place> {
        let grip = open_file(self.thread, number).map_err(|_| GO_ON)?;
        // One that lies elsewhere, or that has no name any more, was not opened by its name on the read-only mount.
        self.worker.roots.place_of(&grip).ok().flatten().ok_or(GO_ON)
    }

    fn times(&self, address: Address, clock: Clock) -> Step<Timestamps> {
        let now = Timespec { tv_sec: 0, tv_nsec: UTIME_NOW };
        if address == 0 {
            return Ok(Timestamps { last_access: now, last_modification: now });
        }
        let count = if clock.unit == 0 { 2 } else { 4 };
        let bytes = caller::bytes(self.thread, address, clock.width * count).ok_or(GO_ON)?;
        let number = |index: usize| -> i64 {
            let from = index * clock.width;
            match bytes.get(from..from + clock.width) {
                Some(&[a, b, c, d]) => i32::from_le_bytes([a, b, c, d]).into(),
                Some(&[a, b, c, d, e, f, g, h]) => i64::from_le_bytes([a, b, c, d, e, f, g, h]),
                _ => 0,
            }
        };
        let time = |index: usize| match clock.unit {
            0 => Timespec { tv_sec: number(index), tv_nsec: 0 },
            unit => Timespec { tv_sec: number(2 * index), tv_nsec: number(2 * index + 1).wrapping_mul(unit) },
        };
        Ok(Timestamps { last_access: time(0), last_modification: time(1) })
    }

    fn bind(&mut self, socket: i32, address: Address, length: u32) -> Step<()> {
        /// `sizeof(struct sockaddr_un)`, and where its path begins.
        const WHOLE: usize = 110;
        const PATH: usize = 2;
        let length = usize::try_from(length).unwrap_or(0);
        if !(PATH + 1..=WHOLE).contains(&length) {
            return Err(GO_ON);
        }
        let bytes = caller::bytes(self.thread, address, length).ok_or(GO_ON)?;
        // AF_UNIX, with a name in the file system.
        let Some([1, 0, path @ ..]) = bytes.get(..).filter(|bytes| bytes.get(PATH) != Some(&0)) else {
            return Err(GO_ON);
        };
        let end = path.iter().position(|byte| *byte == 0).unwrap_or(path.len());
        let path = path.get(..end).unwrap_or_default();
        let place = self.find_text(At { folder: super::request::CWD, path: 0 }, path, false)?;
        if place.dots || place.slash || place.found.is_some() {
            return Err(GO_ON);
        }
        self.allowed(&place, Act::Make)?;
        let leader = self.worker.statuses.of(self.thread)?.group_leader;
        let leader = rustix::process::Pid::from_raw(leader).ok_or(Errno::SRCH)?;
        let process = rustix::process::pidfd_open(leader, rustix::process::PidfdFlags::empty())?;
        let flags = rustix::process::PidfdGetfdFlags::empty();
        let socket = rustix::process::pidfd_getfd(&process, socket, flags)?;
        self.umask()?;
        place::bind_in(&socket, &place)?;
        Ok(())
    }
}

/// What it is for another name to get what is here.
fn arrives(place: &Place) -> Act {
    match place.kind() {
        Some(FileType::Directory) => Act::PlaceDir,
        Some(FileType::Symlink) => Act::Link,
        _ => Act::Place,
    }
}

/// The number in `/proc/self/fd/N` and its like.
fn own_descriptor(path: &[u8]) -> Option<i32> {
    let rest =
        [&b"/proc/self/fd/"[..], b"/proc/thread-self/fd/", b"/dev/fd/"].iter().find_map(|p| path.strip_prefix(*p))?;
    std::str::from_utf8(rest).ok()?.parse().ok().filter(|number| *number >= 0)
}
