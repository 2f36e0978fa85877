//! The process that changes what a cell may change of the host's folders, after a look at the name.
//!
//! Some names in a project make programs of the host act: git's hooks, an editor's settings. Those that exist can be covered by mounts; those that
//! do not exist cannot, without leaving something behind. So the cell has its writable folders *read-only*: two mounts stand over each other,
//! the writable one below, where no path leads, and a read-only copy of it on top. What fails on the latter is handed to this process
//! (seccomp_unotify(2)), which looks at the name and does the same on the former, as the caller.
//!
//! - The filter decides nothing. A call that it misses, a path that changes after it was read, a call that is let go on: each meets the
//!   read-only mount. What is refused is refused by the name that was used, on a path without links (`place`).
//! - Only regular files are handed over: from a folder on the writable mount its owner could go on alone.
//! - The process is a child of the supervisor, in the cell's user and mount namespaces: it can do no more than root inside can. If it ends, so
//!   does the cell.
//!
//! `policy` says what is refused, `request` reads registers, `caller` says who asks, `place` where it is, `known` what was found before, `carry`,
//! `open` and `change` do it, `config` what is done to git's configuration, `pledge` what is left of that.

mod audit;
mod caller;
mod carry;
mod change;
mod config;
mod known;
mod open;
mod place;
mod pledge;
mod policy;
mod request;

use std::collections::HashMap;
use std::io::{self, BufRead, BufReader, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use cellblock_bundle::seccomp::{GUARDED, Program};
use cellblock_bundle::{Cell, IdScheme, Mount, Profile, Protect, policy as powers};
use cellblock_sys::fds;
use cellblock_sys::notify::{Call, Listener};
use cellblock_sys::process::{Fork, SingleThreaded, exit_now, run_with_only};
use cellblock_sys::signal::SignalSet;
use rustix::event::{PollFd, PollFlags};
use rustix::fs::{Mode, OFlags};
use rustix::mount::{MountAttrFlags, MoveMountFlags, OpenTreeFlags};
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use rustix::process::{Gid, Pid, PidfdFlags, Signal, Uid};
use rustix::thread::ThreadNameSpaceType;
use serde::{Deserialize, Serialize};

use audit::Audit;
pub use audit::Denial;
use caller::{Disguise, Identity, Threads};
use carry::{Caller, Outcome, Worker};
use config::Configs;
pub(crate) use config::looks_after;
use known::Known;
use place::{Root, Roots};
use pledge::Pledges;
pub(crate) use pledge::redeem;
use policy::Policy;

use crate::supervisor::Start;

/// Why the names in a cell's folders cannot be guarded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum GuardError {
    /// There is no room for its files.
    #[error("the cell's folders cannot be guarded: {0}")]
    NoSpace(String),
    /// What was tried and why it failed.
    #[error("the cell's folders cannot be guarded: {0}")]
    Failed(String),
    /// It died without a word.
    #[error("the process that guards the cell's folders ended unexpectedly")]
    Gone,
}

fn failed(what: &str) -> impl FnOnce(io::Error) -> GuardError {
    move |error| {
        let text = format!("{what}: {error}");
        if crate::network::is_full(&error) { GuardError::NoSpace(text) } else { GuardError::Failed(text) }
    }
}

/// The guard of a cell, as its supervisor has it.
#[derive(Debug)]
pub(crate) struct Guard {
    /// By its process id somebody else could be meant once it has been collected.
    pidfd: OwnedFd,
    line: BufReader<UnixStream>,
}

/// Whether `cell` has one.
pub(crate) fn is_wanted(cell: &Cell) -> bool {
    cell.guard && !cell.protect.is_empty()
}

/// What the process needs.
#[derive(Debug)]
struct Setup<'a> {
    protect: &'a Protect,
    mounts: &'a [Mount],
    shifted: bool,
    audit: PathBuf,
    /// The cell's folder.
    cell: PathBuf,
}

impl<'a> Setup<'a> {
    fn of(Start { cell, dirs, .. }: &'a Start) -> Self {
        Self {
            protect: &cell.protect,
            mounts: &cell.mounts,
            shifted: cell.ids.scheme == IdScheme::Shifted,
            audit: dirs.guard_audit(&cell.name),
            cell: dirs.cell(&cell.name),
        }
    }
}

/// What is there of a guard before its process is.
#[derive(Debug)]
pub(crate) struct Post {
    door: UnixListener,
    gate: OwnedFd,
}

impl Post {
    /// Makes its sockets, and gives what the cell's first process is to send its [`Listener`] over.
    pub(crate) fn new(start: &Start) -> Result<(Self, OwnedFd), GuardError> {
        let Start { cell, dirs, .. } = start;
        if let Some(folder) = dirs.guard_audit(&cell.name).parent() {
            crate::state::make_dir(folder).map_err(|e| GuardError::Failed(e.to_string()))?;
        }
        let door = UnixListener::bind(dirs.guard_socket(&cell.name)).map_err(failed("cannot make its socket"))?;
        let (gate, sender) =
            rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
                .map_err(|e| failed("cannot make a socket")(e.into()))?;
        Ok((Self { door, gate }, sender))
    }

    /// Forks the process.
    pub(crate) fn man(self, start: &Start, alone: &SingleThreaded) -> Result<Guard, GuardError> {
        let Self { door, gate } = self;
        let (ours, theirs) = UnixStream::pair().map_err(failed("cannot make a socket"))?;
        match alone.fork().map_err(failed("cannot start a process"))? {
            Fork::Child => {
                let (line, door, gate) = (&theirs, &door, &gate);
                run_with_only(&[line.as_fd(), door.as_fd(), gate.as_fd()], || {
                    // Taken over: whoever held it does not run again.
                    match rustix::io::fcntl_dupfd_cloexec(gate, 3) {
                        Ok(gate) => child(&Setup::of(start), line, door, gate),
                        Err(_) => exit_now(crate::exit::OURS),
                    }
                })
            }
            Fork::Parent(pid) => {
                let pidfd = rustix::process::pidfd_open(pid, PidfdFlags::empty());
                let pidfd = pidfd.map_err(|e| failed("cannot watch a process")(e.into()))?;
                Ok(Guard { pidfd, line: BufReader::new(ours) })
            }
        }
    }
}

impl Guard {
    /// Has it enter the cell of `init`, in which nothing runs yet, and cover the folders.
    pub(crate) fn enter(&self, init: Pid) -> Result<(), GuardError> {
        let init = rustix::process::pidfd_open(init, PidfdFlags::empty());
        let init = init.map_err(|e| failed("cannot look at the cell's process")(e.into()))?;
        // One that has failed already reads no more: why, is in its answer.
        let _ = fds::send(self.line.get_ref(), b"i", &[init.as_fd()]);
        Ok(())
    }

    /// Waits until it has done that. Before, nothing may run in the cell.
    pub(crate) fn entered(&mut self) -> Result<(), GuardError> {
        let mut answer = String::new();
        self.line.read_line(&mut answer).map_err(|_| GuardError::Gone)?;
        serde_json::from_str::<Result<(), GuardError>>(&answer).unwrap_or(Err(GuardError::Gone))
    }

    /// Whether it has ended, which it does not do by itself.
    pub(crate) fn has_died(&self) -> bool {
        let now = rustix::time::Timespec { tv_sec: 0, tv_nsec: 0 };
        rustix::event::poll(&mut [PollFd::new(&self.pidfd, PollFlags::IN)], Some(&now)).is_ok_and(|count| count > 0)
    }
}

/// How long it may take over what it is at.
const FAREWELL: Duration = Duration::from_millis(200);

impl Drop for Guard {
    /// Ends it, when it has done what it is at: killed in the middle, it would leave things of its own in the host's folders.
    fn drop(&mut self) {
        crate::reap::farewell(self.line.get_ref(), FAREWELL);
    }
}

/// Whether a process that runs as `uid` inside can become somebody else, by the powers it begins with.
fn is_settled(profile: Profile, uid: u32) -> bool {
    powers::capabilities(profile, uid).is_empty()
}

/// What accompanies a listener: whether everybody behind it has one identity for ever.
pub(crate) fn word(profile: Profile, uid: u32) -> &'static [u8] {
    if is_settled(profile, uid) { b"one" } else { b"any" }
}

/// Puts the filter `program` into force for this process, and hands what it is decided by to the guard at the other end of `to`.
pub(crate) fn give_in(program: &Program, to: BorrowedFd<'_>, word: &[u8]) -> io::Result<()> {
    let listener = cellblock_sys::notify::load(program.instructions().iter().map(|i| (i.code, i.jt, i.jf, i.k)))?;
    fds::send(to, word, &[listener.as_fd()])
}

fn receive(from: BorrowedFd<'_>) -> io::Result<(OwnedFd, Vec<u8>)> {
    let mut word = [0u8; 8];
    let (length, fds) = fds::receive(from, &mut word)?;
    let fd = fds.into_iter().next().ok_or(io::ErrorKind::UnexpectedEof)?;
    Ok((fd, word.get(..length).unwrap_or_default().to_vec()))
}

/// The life of the process.
fn child(setup: &Setup<'_>, mut line: &UnixStream, door: &UnixListener, gate: OwnedFd) -> ! {
    let _ = rustix::thread::set_name(c"cellblock-guard");
    // Ctrl-C at the terminal is for the command. A file that is larger than somebody's limit must not end it either (SIGXFSZ).
    let _ = SignalSet::all().block();
    let settled = settle(setup, line.as_fd());
    let answer = settled.as_ref().map(drop).map_err(Clone::clone);
    let text = serde_json::to_string(&answer).unwrap_or_default() + "\n";
    let told = line.write_all(text.as_bytes());
    let code = match (settled, told) {
        (Ok((worker, audit)), Ok(())) => {
            let calls = GUARDED.iter().map(|(arch, number, name)| ((*arch, *number), *name)).collect();
            Serving { worker, audit, calls, listeners: Vec::new(), visitors: vec![gate] }.run(line.as_fd(), door)
        }
        _ => crate::exit::OURS,
    };
    crate::reap::done(line);
    exit_now(code)
}

fn settle(setup: &Setup<'_>, line: BorrowedFd<'_>) -> Result<(Worker, Audit), GuardError> {
    let os = |what: &'static str| move |error: rustix::io::Errno| failed(what)(error.into());
    let die = || rustix::process::set_parent_process_death_signal(Some(Signal::KILL));
    die().map_err(os("cannot be bound to the supervisor"))?;
    crate::network::take_no_streams().map_err(failed("cannot let go of the standard streams"))?;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let processes = rustix::fs::open(c"/proc", flags, Mode::empty()).map_err(os("cannot open /proc"))?;
    let audit = Audit::open(&setup.audit).map_err(failed("cannot open its audit"))?;
    let pledges = Pledges::open(&setup.cell).map_err(failed("cannot open a file of the cell's"))?;
    // While it waits anyhow.
    let policy = Policy::new(setup.protect);
    let configs = Configs::new(setup.protect, setup.mounts, pledges);
    // For somebody who goes in and is seen by nobody there.
    rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable)
        .map_err(os("cannot protect its process"))?;
    let (init, _) = receive(line).map_err(failed("nobody told of the cell"))?;
    let spaces = ThreadNameSpaceType::USER | ThreadNameSpaceType::MOUNT;
    rustix::thread::move_into_thread_name_spaces(init.as_fd(), spaces).map_err(os("cannot enter the cell"))?;
    if setup.shifted {
        let (uid, gid) = (Uid::ROOT, Gid::ROOT);
        rustix::thread::set_thread_groups(&[]).map_err(os("cannot take the cell's ids"))?;
        rustix::thread::set_thread_res_gid(gid, gid, gid).map_err(os("cannot take the cell's ids"))?;
        rustix::thread::set_thread_res_uid(uid, uid, uid).map_err(os("cannot take the cell's ids"))?;
    }
    // Both are undone by a change of identity.
    die().map_err(os("cannot be bound to the supervisor"))?;
    rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable)
        .map_err(os("cannot protect its process"))?;
    let roots = Roots { all: cover_all(setup)?, known: Known::default() };
    rustix::process::fchdir(&processes).map_err(os("cannot enter /proc"))?;
    Disguise::limit().map_err(failed("cannot give up its powers"))?;
    let (threads, disguise) = (Threads::default(), Disguise::default());
    Ok((Worker { roots, policy, threads, disguise, umask: None, configs }, audit))
}

/// Covers every folder that is protected and that the cell may write, the outermost only: a copy has what is mounted below.
fn cover_all(setup: &Setup<'_>) -> Result<Vec<Root>, GuardError> {
    let mut outermost: Vec<&PathBuf> = Vec::new();
    for root in &setup.protect.roots {
        let writable = |mount: &Mount| matches!(mount, Mount::Bind { target, writable: true, .. } if target == root);
        if !setup.mounts.iter().any(writable) {
            return Err(GuardError::Failed(format!(
                "{} is to be guarded and is no folder that it may write",
                root.display()
            )));
        }
        // They are in order: what holds one comes before it.
        if !outermost.iter().any(|outer| root.starts_with(outer)) {
            outermost.push(root);
        }
    }
    let covered = |root: &PathBuf| {
        let folder = cover(root).map_err(|e| failed(&format!("cannot cover {}", root.display()))(e.into()))?;
        Ok(Root { path: root.as_os_str().as_bytes().to_vec(), folder: Rc::new(folder) })
    };
    outermost.into_iter().map(covered).collect()
}

/// Mounts a read-only copy of what stands at `path` over it. What it covers is reached by the descriptor only.
fn cover(path: &PathBuf) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let below = rustix::fs::open(path, flags, Mode::empty())?;
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH
        | OpenTreeFlags::AT_RECURSIVE;
    let copy = rustix::mount::open_tree(&below, c"", flags)?;
    cellblock_sys::mount::restrict(copy.as_fd(), MountAttrFlags::MOUNT_ATTR_RDONLY)
        .map_err(|e| rustix::io::Errno::from_io_error(&e).unwrap_or(rustix::io::Errno::IO))?;
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    rustix::mount::move_mount(&copy, c"", &below, c"", flags)?;
    // Whoever goes there by its path now must find the copy, and find it read-only.
    let top = rustix::fs::statvfs(path)?;
    if !top.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY) {
        return Err(rustix::io::Errno::ROFS);
    }
    Ok(below)
}

/// Somebody who is behind the filter, with all that was started from there.
struct Behind {
    listener: Listener,
    /// Everybody there has this identity, once it is known.
    one: Option<Option<Identity>>,
}

/// The process at work.
struct Serving {
    worker: Worker,
    audit: Audit,
    calls: HashMap<(u32, u32), &'static str>,
    listeners: Vec<Behind>,
    /// Who is to send a listener.
    visitors: Vec<OwnedFd>,
}

impl Serving {
    /// Until the supervisor has closed its end.
    fn run(mut self, line: BorrowedFd<'_>, door: &UnixListener) -> i32 {
        loop {
            let mut polls = vec![PollFd::from_borrowed_fd(line, PollFlags::IN), PollFd::new(door, PollFlags::IN)];
            polls.extend(self.listeners.iter().map(|behind| PollFd::new(&behind.listener, PollFlags::IN)));
            polls.extend(self.visitors.iter().map(|visitor| PollFd::new(visitor, PollFlags::IN)));
            let timeout = self.audit.due();
            match rustix::event::poll(&mut polls, timeout.as_ref()) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(_) => return crate::exit::OURS,
            }
            let ready: Vec<PollFlags> = polls.iter().map(PollFd::revents).collect();
            drop(polls);
            self.audit.write_counts();
            let (fixed, rest) = ready.split_at(2);
            if fixed.first().is_some_and(|flags| !flags.is_empty()) {
                self.audit.finish();
                return 0;
            }
            let (listeners, visitors) = rest.split_at(self.listeners.len());
            for (index, flags) in listeners.iter().enumerate() {
                if flags.contains(PollFlags::IN) {
                    self.serve(index);
                }
            }
            // Those that nobody is behind any more.
            let mut flags = listeners.iter();
            self.listeners.retain(|_| flags.next().is_none_or(|flags| !flags.contains(PollFlags::HUP)));
            let mut flags = visitors.iter();
            let spoken = |_: &mut OwnedFd| flags.next().is_some_and(|flags| !flags.is_empty());
            let spoken: Vec<OwnedFd> = self.visitors.extract_if(.., spoken).collect();
            for visitor in spoken {
                self.listen(visitor.as_fd());
            }
            if fixed.get(1).is_some_and(|flags| !flags.is_empty())
                && let Ok((visitor, _)) = door.accept()
            {
                self.visitors.push(visitor.into());
            }
        }
    }

    fn listen(&mut self, from: BorrowedFd<'_>) {
        let Ok((fd, word)) = receive(from) else { return };
        if let Ok(listener) = Listener::new(fd) {
            self.listeners.push(Behind { listener, one: (word == b"one").then_some(None) });
        }
    }

    /// One call. What cannot be answered has gone away.
    fn serve(&mut self, index: usize) {
        let Some(behind) = self.listeners.get_mut(index) else { return };
        let Ok(call) = behind.listener.receive() else { return };
        let number = u32::try_from(call.number).unwrap_or(u32::MAX);
        let request =
            self.calls.get(&(call.arch, number)).and_then(|name| request::request(name, call.arch, &call.args));
        // A thread that cannot be seen is none of ours.
        let Some(request) = request.filter(|_| call.thread > 0) else {
            let _ = behind.listener.go_on(&call);
            return;
        };
        if behind.one == Some(None) {
            behind.one = self.worker.threads.status(call.thread).ok().map(|status| Some(status.identity));
        }
        let caller = Caller { thread: call.thread, always: behind.one.as_ref().and_then(Option::as_ref) };
        let listener = &behind.listener;
        let outcome = self.worker.carry_out(caller, &request, &|| listener.waits(&call));
        let close_on_exec = matches!(request, request::Request::Open { flags, .. }
            if OFlags::from_bits_retain(flags).contains(OFlags::CLOEXEC));
        reply(listener, &call, outcome, close_on_exec, &mut self.audit);
    }
}

fn reply(listener: &Listener, call: &Call, outcome: Outcome, close_on_exec: bool, audit: &mut Audit) {
    let errno = |errno: i32| listener.answer(call, Err(errno));
    let _ = match outcome {
        Outcome::GoOn => listener.go_on(call),
        Outcome::Done(Ok(())) => listener.answer(call, Ok(0)),
        Outcome::Done(Err(error)) => errno(error.raw_os_error()),
        Outcome::Opened(file) => match listener.hand(call, file.as_fd(), close_on_exec) {
            // No room among the caller's descriptors.
            Err(error) => errno(error.raw_os_error().unwrap_or(rustix::io::Errno::MFILE.raw_os_error())),
            done => done,
        },
        Outcome::Denied { path, why } => {
            audit.denied(&path, &why);
            errno(rustix::io::Errno::PERM.raw_os_error())
        }
    };
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};
    use std::time::Instant;

    use super::*;

    /// A guard that is a shell with `script`, whose standard input is the line.
    fn guard(script: &str) -> (Guard, std::process::Child) {
        let (ours, theirs) = UnixStream::pair().expect("a socket");
        let child = Command::new("sh").args(["-c", script]).stdin(Stdio::from(OwnedFd::from(theirs))).spawn();
        let child = child.expect("a shell");
        let pid = Pid::from_raw(child.id().cast_signed()).expect("an id");
        let pidfd = rustix::process::pidfd_open(pid, PidfdFlags::empty()).expect("a process");
        (Guard { pidfd, line: BufReader::new(ours) }, child)
    }

    #[test]
    fn one_that_is_let_go_finishes_what_it_is_at_and_is_not_waited_for_for_long() {
        let (done, mut child) = guard("cat; sleep 0.05; exit 7");
        drop(done);
        assert_eq!(child.wait().expect("a child").code(), Some(7));
        let (stuck, mut child) = guard("exec sleep 10");
        let begun = Instant::now();
        drop(stuck);
        assert!(begun.elapsed() < Duration::from_secs(5) && child.try_wait().expect("a child").is_none());
        child.kill().and_then(|()| child.wait()).expect("killed");
    }
}
