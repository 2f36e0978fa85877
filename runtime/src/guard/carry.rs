//! Carries a request out, as its caller, on the writable mount: the same call on a folder that was walked to and a name that was looked at.

use std::os::fd::OwnedFd;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, RenameFlags};
use rustix::io::Errno;

use super::caller::{self, Disguise, Identity, Threads};
use super::config::Configs;
use super::place::{self, Place, Roots, Thread, magic, open_file};
use super::policy::{Act, Policy};
use super::request::{Address, At, Request};

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

pub(super) const GO_ON: Stop = Stop::Outcome(Outcome::GoOn);

/// Everything that is needed to carry requests out.
#[derive(Debug)]
pub(crate) struct Worker {
    pub(crate) roots: Roots,
    pub(crate) policy: Policy,
    pub(crate) threads: Threads,
    pub(crate) disguise: Disguise,
    /// The umask in force.
    pub(crate) umask: Option<u32>,
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
        let known = match caller.always {
            Some(who) => self.disguise.wear(who).map(|()| None),
            None => {
                let status = self.threads.status(caller.thread);
                status.and_then(|status| self.disguise.wear(&status.identity).map(|()| Some(status)))
            }
        };
        let (status, folder) = match known.and_then(|status| Ok((status, self.threads.folder(caller.thread)?))) {
            Ok(known) => known,
            Err(error) => return Outcome::Done(Err(Errno::from_io_error(&error).unwrap_or(Errno::PERM))),
        };
        let who = Thread { folder, may_change_root: caller.always.is_none() };
        let umask = status.map(|status| status.umask);
        let (thread, is_new, is_sure) = (caller.thread, false, false);
        match (Work { worker: self, thread, who, is_new, umask, waits, is_sure }).run(request) {
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
    pub(super) who: Thread,
    /// Whether [`Work::who`] was looked for by this request.
    is_new: bool,
    /// The caller's, if it is known.
    umask: Option<u32>,
    pub(super) waits: &'a dyn Fn() -> bool,
    /// Whether what was read of the caller was its own.
    is_sure: bool,
}

impl Work<'_> {
    fn run(&mut self, request: &Request) -> Step<()> {
        match *request {
            Request::Open { at, flags, mode } => self.open(at, OFlags::from_bits_retain(flags), mode),
            Request::MakeDir { at, mode } => {
                let place = self.new_name(at)?;
                self.take_umask()?;
                self.allowed(&place, Act::MakeDir)?;
                Ok(rustix::fs::mkdirat(&place.folder, place.name.as_slice(), Mode::from_raw_mode(mode & 0o7777))?)
            }
            Request::MakeNode { at, mode, device } => self.node(at, mode, device),
            Request::Remove { at, folder } => {
                let place = self.named(at, None)?;
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
                let target = self.text(target)?;
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
    pub(super) fn text(&mut self, address: Address) -> Step<Vec<u8>> {
        self.is_sure = false;
        caller::text(self.thread, address).ok_or(GO_ON)
    }

    /// `count` bytes at `address`.
    pub(super) fn bytes(&mut self, address: Address, count: usize) -> Option<Vec<u8>> {
        self.is_sure = false;
        caller::bytes(self.thread, address, count)
    }

    fn find(&mut self, at: At, follow: bool) -> Step<Place> {
        let path = self.text(at.path)?;
        self.find_text(at, &path, follow, None)
    }

    /// The place that `path` means; `near` is another one of the same request.
    pub(super) fn find_text(&mut self, at: At, path: &[u8], follow: bool, near: Option<&Place>) -> Step<Place> {
        self.find_as(at, path, follow, near, true)
    }

    fn find_as(&mut self, at: At, path: &[u8], follow: bool, near: Option<&Place>, contents: bool) -> Step<Place> {
        self.is_sure = false;
        match self.worker.roots.recall(&self.who, at, path, follow, near, contents) {
            Ok(place) => place.ok_or(GO_ON),
            Err(unknown) => {
                if !unknown.is_its {
                    self.renew()?;
                }
                self.worker.roots.find(&self.who, at, path, follow)?.ok_or(GO_ON)
            }
        }
    }

    /// An open file of the caller's.
    pub(super) fn open_file(&mut self, number: i32) -> Step<OwnedFd> {
        self.is_sure = false;
        if let Ok(file) = open_file(&self.who, number) {
            return Ok(file);
        }
        self.renew()?;
        open_file(&self.who, number).map_err(|_| GO_ON)
    }

    /// What was not found may only not be found because what is kept of the caller is another thread's.
    fn renew(&mut self) -> Step<()> {
        if !self.is_new {
            self.who.folder = self.worker.threads.anew(self.thread).map_err(|_| GO_ON)?;
            self.is_new = true;
        }
        Ok(())
    }

    /// A place that is to be removed or renamed: one with a name of its own that exists.
    fn named(&mut self, at: At, near: Option<&Place>) -> Step<Place> {
        let path = self.text(at.path)?;
        let place = self.find_as(at, &path, false, near, false)?;
        if place.dots { Err(GO_ON) } else { Ok(place) }
    }

    /// A place for something new. If it is taken, the kernel says so.
    fn new_name(&mut self, at: At) -> Step<Place> {
        let place = self.named(at, None)?;
        if place.found.is_some() { Err(Errno::EXIST.into()) } else { Ok(place) }
    }

    /// Stops unless `act` may happen to the place, and to the one who asked.
    pub(super) fn allowed(&mut self, place: &Place, act: Act) -> Step<()> {
        // What was read of the caller was its own only if it still waits: asked once more whenever something was read since.
        if !self.is_sure && !(self.waits)() {
            return Err(Errno::INTR.into());
        }
        self.is_sure = true;
        let path = place.path();
        self.worker
            .policy
            .decide(&path, act, &self.worker.roots)
            .map_err(|why| Stop::Outcome(Outcome::Denied { path, why }))
    }

    /// Takes the caller's umask.
    pub(super) fn take_umask(&mut self) -> Step<()> {
        let umask = match self.umask {
            Some(umask) => umask,
            None => {
                self.is_sure = false;
                self.worker.threads.umask(self.thread)?
            }
        };
        if self.worker.umask != Some(umask) {
            rustix::process::umask(Mode::from_raw_mode(umask));
            self.worker.umask = Some(umask);
        }
        Ok(())
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
        self.take_umask()?;
        self.allowed(&place, Act::Make)?;
        let mode = Mode::from_raw_mode(mode & 0o7777);
        Ok(rustix::fs::mknodat(&place.folder, place.name.as_slice(), kind, mode, device)?)
    }

    fn rename(&mut self, from: At, to: At, flags: RenameFlags) -> Step<()> {
        // One of them elsewhere, or both: the kernel says what it is.
        let from = self.named(from, None)?;
        let to = self.named(to, Some(&from))?;
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
            let place = self.find_text(from, &path, follow, Some(&to))?;
            self.allowed(&place, Act::Write)?;
            place.grip()?
        };
        self.allowed(&to, Act::Place)?;
        let name = to.name.as_slice();
        Ok(rustix::fs::linkat(rustix::fs::CWD, magic(&source).as_str(), &to.folder, name, AtFlags::SYMLINK_FOLLOW)?)
    }

    /// An open file of the caller's that is to get a name: by the writable mount, if it has a name already.
    fn open_source(&mut self, number: i32) -> Step<OwnedFd> {
        let grip = self.open_file(number)?;
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
        let place = self.find_text(at, &path, !flags.contains(AtFlags::SYMLINK_NOFOLLOW), None)?;
        match place.kind() {
            None => return Err(Errno::NOENT.into()),
            Some(FileType::Directory) => {}
            Some(_) if place.slash => return Err(Errno::NOTDIR.into()),
            Some(_) => {}
        }
        if !place.name.is_empty() && self.worker.policy.decide(&place.path(), Act::Write, &self.worker.roots).is_err() {
            return Err(Errno::ACCESS.into());
        }
        let access = rustix::fs::Access::from_bits_retain(mode);
        if !place.name.is_empty() {
            let flags = AtFlags::EACCESS | AtFlags::SYMLINK_NOFOLLOW;
            match rustix::fs::accessat(&place.folder, place.name.as_slice(), access, flags) {
                // Linux 5.8.
                Err(Errno::NOSYS | Errno::OPNOTSUPP | Errno::INVAL) => {}
                answer => return Ok(answer?),
            }
        }
        let grip = place.grip()?;
        Ok(rustix::fs::accessat(rustix::fs::CWD, magic(&grip).as_str(), access, AtFlags::EACCESS)?)
    }

    fn bind(&mut self, socket: i32, address: Address, length: u32) -> Step<()> {
        /// `sizeof(struct sockaddr_un)`, and where its path begins.
        const WHOLE: usize = 110;
        const PATH: usize = 2;
        let length = usize::try_from(length).unwrap_or(0);
        if !(PATH + 1..=WHOLE).contains(&length) {
            return Err(GO_ON);
        }
        let bytes = self.bytes(address, length).ok_or(GO_ON)?;
        // AF_UNIX, with a name in the file system.
        let Some([1, 0, path @ ..]) = bytes.get(..).filter(|bytes| bytes.get(PATH) != Some(&0)) else {
            return Err(GO_ON);
        };
        let end = path.iter().position(|byte| *byte == 0).unwrap_or(path.len());
        let path = path.get(..end).unwrap_or_default();
        let place = self.find_text(At { folder: super::request::CWD, path: 0 }, path, false, None)?;
        if place.dots || place.slash {
            return Err(GO_ON);
        }
        if place.found.is_some() {
            return Err(Errno::ADDRINUSE.into());
        }
        let leader = self.worker.threads.status(self.thread)?.group_leader;
        let leader = rustix::process::Pid::from_raw(leader).ok_or(Errno::SRCH)?;
        let process = rustix::process::pidfd_open(leader, rustix::process::PidfdFlags::empty())?;
        let flags = rustix::process::PidfdGetfdFlags::empty();
        let socket = rustix::process::pidfd_getfd(&process, socket, flags)?;
        self.take_umask()?;
        self.allowed(&place, Act::Make)?;
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
