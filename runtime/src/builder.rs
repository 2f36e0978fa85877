//! The builder: a short-lived child of the supervisor that becomes the CELL's user namespace and has libcontainer create the
//! cell in it.
//!
//! libcontainer's init is cloned as a *sibling* of the builder, so that the supervisor is its parent: it gets the exit status,
//! and its death ends the cell.
//!
//! Traps of libcontainer 0.7 that this file stays clear of (numbers of the project's runtime notes):
//! 3, 4, 8, 15 no cgroup mount, an absolute cgroups path, no `kill`/`delete`, no user namespace in its specification: it never
//! manages a cgroup. 6 `panic = "abort"`, and no guard lives across `build`. 7 its error events are collected by [`crate::events`].
//! 10, 14 it writes no id mapping; one attempt a process; the supervisor reaps what a failure leaves. 16 our own executor.
//! 21 the supervisor holds the name's lock. 22 the bundle is private to the cell.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use cellblock_bundle::cell::Profile;
use cellblock_bundle::{IdScheme, Ids, seccomp};
use cellblock_egress::serve::Hidden;
use cellblock_sys::process::{Fork, SingleThreaded, exit_now};
use cellblock_sys::{fds, namespace};
use libcontainer::container::builder::ContainerBuilder;
use libcontainer::notify_socket::{NOTIFY_FILE, NotifySocket};
use libcontainer::syscall::syscall::SyscallType;
use rustix::event::{PollFd, PollFlags};
use rustix::fs::Mode;
use rustix::process::{Pid, PidfdFlags, Signal, WaitOptions};
use rustix::thread::UnshareFlags;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::events::{ErrorLog, Take as _};
use crate::init::Payload;
use crate::late::Late;
use crate::outer::map_text;
use crate::pids::Pids;
use crate::root::{Plan, Sources};

/// What the builder needs to know of the cell.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Order {
    /// The bundle, with `config.json`. libcontainer keeps its state there, too.
    pub(crate) bundle: PathBuf,
    /// The id it keeps it under.
    pub(crate) id: String,
    /// The cell's name: its process ids begin at a number that is made from it.
    pub(crate) name: String,
    /// The cell's id mappings.
    pub(crate) ids: Ids,
    /// Which seccomp filter.
    pub(crate) profile: Profile,
    /// Whether init is ours.
    pub(crate) init: bool,
    /// Variables of the command that are not in the bundle.
    pub(crate) hidden: BTreeMap<String, Hidden>,
    /// Where the pseudo-terminal's controlling side is to be sent (AF_UNIX path), if the cell has a terminal.
    pub(crate) console: Option<PathBuf>,
    /// Who the command runs as, inside.
    pub(crate) uid: u32,
    /// The root.
    pub(crate) root: Plan,
}

/// The descriptors that go with an [`Order`].
#[derive(Debug)]
pub(crate) struct Handed {
    /// The cell's end of the report socket.
    pub(crate) report: OwnedFd,
    /// What becomes standard input, output and error, where it is not the supervisor's own.
    pub(crate) streams: [Option<OwnedFd>; 3],
    /// Where the listener of the guard's filter is to be sent, if the cell has a guard.
    pub(crate) guard: Option<OwnedFd>,
    /// To write the builder's own id to, so that it and its children are in the cell's cgroup.
    pub(crate) cgroup_procs: Vec<OwnedFd>,
}

impl Handed {
    /// Which of those that may be missing are there, a bit each, and all that are.
    fn pack(&self) -> (u8, Vec<BorrowedFd<'_>>) {
        let [stdin, stdout, stderr] = &self.streams;
        let optional = [stdin, stdout, stderr, &self.guard];
        let there = optional.iter().enumerate().map(|(bit, fd)| u8::from(fd.is_some()) << bit).sum();
        let fds = optional.into_iter().flatten().chain([&self.report]).chain(&self.cgroup_procs);
        (there, fds.map(AsFd::as_fd).collect())
    }

    /// `None` if some are missing.
    fn unpack(there: u8, fds: Vec<OwnedFd>) -> Option<Self> {
        let mut fds = fds.into_iter();
        let mut optional = [None, None, None, None];
        for (bit, place) in optional.iter_mut().enumerate() {
            if there >> bit & 1 == 1 {
                *place = Some(fds.next()?);
            }
        }
        let [stdin, stdout, stderr, guard] = optional;
        Some(Self { streams: [stdin, stdout, stderr], guard, report: fds.next()?, cgroup_procs: fds.collect() })
    }
}

/// Why a cell could not be built.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// Making the builder or talking to it failed.
    #[error("cannot start the cell's builder: {0}")]
    Process(#[from] io::Error),
    /// The CELL's user namespace could not be made inside OUTER.
    #[error("the kernel does not let a user namespace be made inside another: {0}")]
    Unshare(String),
    /// The mapping of the CELL's user namespace was refused.
    #[error("cannot map the ids of the cell: {0}")]
    Map(io::Error),
    /// libcontainer refused or failed; its own words.
    #[error("the cell could not be set up: {0}")]
    Container(String),
    /// It died without a word.
    #[error("the cell's builder ended unexpectedly")]
    Gone,
}

/// A running builder.
#[derive(Debug)]
pub(crate) struct Builder {
    pid: Pid,
    /// Its end is seen here: the line stays open in the cell's init after the builder has been killed.
    pidfd: OwnedFd,
    line: UnixStream,
}

/// Messages of the builder: a byte for the kind, then text.
const READY: u8 = b'u';
const NETWORK: u8 = b'w';
const CREATED: u8 = b'c';
const FAILED_UNSHARE: u8 = b'n';
const FAILED: u8 = b'e';

/// What libcontainer calls the process that makes the cell's first one. It is the supervisor's child as well.
const INTERMEDIATE: &str = "youki:[1:INTER]";

/// To the builder: the folders of the root are there.
const GO: u8 = b'g';

/// Lets the init of the cell `id` that was created below `state` run the command.
///
/// This is what of libcontainer's `start` is needed: the rest keeps a state file up to date that nobody reads.
pub(crate) fn start(state: &Path, id: &str) -> Result<(), BuildError> {
    NotifySocket::new(state.join(id).join(NOTIFY_FILE))
        .notify_container_start()
        .map_err(|e| BuildError::Container(e.to_string()))
}

impl Builder {
    /// Forks the builder, which makes its namespaces at once; `network` is whether the cell has one of its own. That is all it has to know at first.
    pub(crate) fn start(network: bool, alone: &SingleThreaded) -> Result<Self, BuildError> {
        let (line, theirs) = UnixStream::pair()?;
        let supervisor =
            rustix::process::pidfd_open(rustix::process::getpid(), PidfdFlags::empty()).map_err(io::Error::from)?;
        match alone.fork()? {
            Fork::Child => {
                drop(line);
                child(network, supervisor, theirs)
            }
            Fork::Parent(pid) => {
                drop((theirs, supervisor));
                let pidfd = rustix::process::pidfd_open(pid, PidfdFlags::empty()).map_err(io::Error::from)?;
                Ok(Self { pid, pidfd, line })
            }
        }
    }

    /// The builder's process id.
    pub(crate) fn pid(&self) -> Pid {
        self.pid
    }

    /// Waits for its user namespace, the CELL's, and gives that its id mapping.
    pub(crate) fn map(&mut self, ids: &Ids) -> Result<(), BuildError> {
        match self.read()? {
            (READY, _) => {}
            (FAILED_UNSHARE, text) => return Err(BuildError::Unshare(text)),
            (_, text) => return Err(BuildError::Container(text)),
        }
        for (file, extents) in [("uid_map", &ids.uids), ("gid_map", &ids.gids)] {
            let text = map_text(extents);
            let text = if ids.rootless() { identity(&text) } else { text };
            if let Err(error) = std::fs::write(format!("/proc/{}/{file}", self.pid.as_raw_nonzero()), text) {
                return Err(self.last_words().unwrap_or(BuildError::Map(error)));
            }
        }
        Ok(())
    }

    /// Waits for its network namespace, the CELL's.
    pub(crate) fn network(&mut self) -> Result<(), BuildError> {
        match self.read()? {
            (NETWORK, _) => Ok(()),
            (_, text) => Err(BuildError::Container(text)),
        }
    }

    /// Tells it what the cell is to be. From here on it sees nothing of what is mounted in OUTER.
    pub(crate) fn order(&mut self, order: &Order, handed: Handed) -> Result<(), BuildError> {
        // It may hold secrets.
        let text = Zeroizing::new(serde_json::to_vec(order).map_err(io::Error::from)?);
        let (there, fds) = handed.pack();
        let [a, b, c, d] = u32::try_from(text.len()).unwrap_or(0).to_le_bytes();
        // One that has failed already reads no more: why, is in its answer.
        let _ = fds::send(&self.line, &[there, a, b, c, d], &fds).and_then(|()| self.line.write_all(&text));
        drop(handed);
        Ok(())
    }

    /// Lets it mount the root and create the cell, now that all is there.
    pub(crate) fn go(&mut self) {
        // One that has failed already reads no more: why, is in its answer.
        let _ = self.line.write_all(&[GO]);
    }

    /// Waits until it has; returns the process id of the cell's init. The builder ends when this is dropped: what goes with it, its mount namespace first
    /// of all, takes the kernel 0.25 ms, in which init had better run.
    pub(crate) fn created(&mut self) -> Result<Pid, BuildError> {
        match self.read()? {
            (CREATED, text) => text.parse().ok().and_then(Pid::from_raw).ok_or(BuildError::Gone),
            (_, text) => Err(BuildError::Container(text)),
        }
    }

    /// Has it end, and collects it and what it has left: until then the kernel counts them among the processes of the cell's group.
    pub(crate) fn end(self) -> Result<(), BuildError> {
        let Self { pid, line, .. } = self;
        drop(line);
        rustix::io::retry_on_intr(|| rustix::process::waitpid(Some(pid), WaitOptions::empty()))
            .map_err(io::Error::from)?;
        crate::reap::called(INTERMEDIATE);
        Ok(())
    }

    /// Why it has given up, if it has: what we do to one that is gone fails with reasons that say nothing.
    fn last_words(&mut self) -> Option<BuildError> {
        let mut poll = [PollFd::new(&self.line, PollFlags::IN)];
        let spoken = rustix::event::poll(&mut poll, Some(&rustix::time::Timespec { tv_sec: 0, tv_nsec: 0 }));
        if !spoken.is_ok_and(|count| count == 1) {
            return None;
        }
        self.read().ok().map(|(_, text)| BuildError::Container(text))
    }

    /// One message: kind, length, text.
    fn read(&mut self) -> Result<(u8, String), BuildError> {
        let mut poll = [PollFd::new(&self.line, PollFlags::IN), PollFd::new(&self.pidfd, PollFlags::IN)];
        while let Err(error) = rustix::event::poll(&mut poll, None) {
            if error != rustix::io::Errno::INTR {
                return Err(io::Error::from(error).into());
            }
        }
        if !poll[0].revents().contains(PollFlags::IN) {
            return Err(BuildError::Gone);
        }
        let mut head = [0u8; 5];
        self.line.read_exact(&mut head).map_err(|_| BuildError::Gone)?;
        let [kind, length @ ..] = head;
        let mut text = String::new();
        (&mut self.line).take(u32::from_le_bytes(length).into()).read_to_string(&mut text)?;
        Ok((kind, text))
    }
}

/// A map text with the outside ids replaced by the inside ones: OUTER has them as they are. The extents must stay the same, for
/// each has to lie inside one extent of the parent's map.
fn identity(map: &str) -> String {
    map.lines().fold(String::new(), |mut out, line| {
        let mut words = line.split(' ');
        if let (Some(inside), Some(_), Some(size)) = (words.next(), words.next(), words.next()) {
            let _ = writeln!(out, "{inside} {inside} {size}");
        }
        out
    })
}

fn tell(to: &mut UnixStream, kind: u8, text: &str) {
    let mut message = vec![kind];
    message.extend_from_slice(&u32::try_from(text.len()).unwrap_or(0).to_le_bytes());
    message.extend_from_slice(text.as_bytes());
    let _ = to.write_all(&message);
}

/// The builder's life. Never returns into the supervisor's frames. `supervisor` is its pidfd.
fn child(network: bool, supervisor: OwnedFd, mut line: UnixStream) -> ! {
    let _ = rustix::thread::set_name(c"cellblock-build");
    if let Err(error) = namespace::unshare(UnshareFlags::NEWUSER) {
        tell(&mut line, FAILED_UNSHARE, &error.to_string());
        exit_now(crate::exit::OURS);
    }
    let _ = rustix::process::set_parent_process_death_signal(Some(Signal::KILL));
    tell(&mut line, READY, "");
    // While others prepare the rest: this is the slowest of the namespaces, about 0.6 ms.
    if network
        && let Err(error) = namespace::unshare(UnshareFlags::NEWNET).and_then(|()| cellblock_sys::net::loopback_up())
    {
        let why = match error.kind() {
            // namespaces(7): not a disk.
            io::ErrorKind::StorageFull => "the host allows no more of them (user.max_net_namespaces)".to_owned(),
            _ => error.to_string(),
        };
        tell(&mut line, FAILED, &format!("cannot make a network namespace: {why}"));
        exit_now(crate::exit::OURS);
    }
    if network {
        tell(&mut line, NETWORK, "");
    }
    let Ok((order, handed)) = receive_order(&mut line) else { exit_now(crate::exit::OURS) };
    match build(order, handed, supervisor, &mut line) {
        Ok(pid) => tell(&mut line, CREATED, &pid.to_string()),
        Err(text) => tell(&mut line, FAILED, &text),
    }
    // Until it is wanted no more.
    let _ = line.read(&mut [0u8]);
    exit_now(0)
}

fn receive_order(line: &mut UnixStream) -> io::Result<(Order, Handed)> {
    let mut head = [0u8; 5];
    let (length, fds) = fds::receive(&*line, &mut head)?;
    line.read_exact(head.get_mut(length..).unwrap_or_default())?;
    let [there, length @ ..] = head;
    let mut text = Zeroizing::new(Vec::new());
    line.take(u32::from_le_bytes(length).into()).read_to_end(&mut text)?;
    let handed = Handed::unpack(there, fds).ok_or(io::ErrorKind::UnexpectedEof)?;
    Ok((serde_json::from_slice(&text)?, handed))
}

fn build(order: Order, handed: Handed, supervisor: OwnedFd, line: &mut UnixStream) -> Result<i32, String> {
    take_streams(&handed.streams).map_err(|error| format!("cannot set up the standard streams: {error}"))?;
    for fd in &handed.cgroup_procs {
        rustix::io::write(fd, b"0").map_err(|error| format!("cannot join the cell's cgroup: {error}"))?;
    }
    // Views of the host's files have been mounted in OUTER by now. The cell's init gets a copy of this namespace.
    namespace::unshare(UnshareFlags::NEWNS).map_err(|e| format!("cannot make a mount namespace: {e}"))?;
    let mut go = [0u8];
    // Whoever does not say it is gone.
    line.read_exact(&mut go).map_err(|error| format!("nobody waits for the cell: {error}"))?;
    let late = mount_root(&order)?;
    create(order, handed, supervisor, late)
}

/// Takes the cell's ids, mounts its root, and makes what is mounted on it later. The sources are opened first: under real root the cell's ids may not
/// reach them.
fn mount_root(order: &Order) -> Result<Late, String> {
    // Mount points that are missing are made as everybody's.
    rustix::process::umask(Mode::from_raw_mode(0o022));
    let sources = Sources::open(&order.root).map_err(|e| e.to_string())?;
    settle_ids(&order.ids).map_err(|e| format!("cannot take the cell's ids: {e}"))?;
    // A change of ids clears it (`PR_SET_PDEATHSIG(2const)`).
    let _ = rustix::process::set_parent_process_death_signal(Some(Signal::KILL));
    let at = order.bundle.join("rootfs");
    let trees = sources.mount(&order.root, &at).map_err(|e| e.to_string())?;
    Ok(Late::of(&order.root, trees, at))
}

fn take_streams(streams: &[Option<OwnedFd>; 3]) -> rustix::io::Result<()> {
    let [stdin, stdout, stderr] = streams;
    stdin.as_ref().map_or(Ok(()), rustix::stdio::dup2_stdin)?;
    stdout.as_ref().map_or(Ok(()), rustix::stdio::dup2_stdout)?;
    stderr.as_ref().map_or(Ok(()), rustix::stdio::dup2_stderr)
}

/// Under real root the builder's own ids are not mapped: it becomes root of the cell. Everywhere but with a single id (where
/// the kernel forbids it) the person's supplementary groups, such as `docker`, are dropped.
fn settle_ids(ids: &Ids) -> io::Result<()> {
    if ids.has_range() {
        rustix::thread::set_thread_groups(&[])?;
    }
    if ids.scheme == IdScheme::Shifted {
        use rustix::process::{Gid, Uid};
        rustix::thread::set_thread_res_gid(Gid::ROOT, Gid::ROOT, Gid::ROOT)?;
        rustix::thread::set_thread_res_uid(Uid::ROOT, Uid::ROOT, Uid::ROOT)?;
    }
    Ok(())
}

fn create(order: Order, handed: Handed, supervisor: OwnedFd, late: Late) -> Result<i32, String> {
    let alone = SingleThreaded::prove().map_err(|e| e.to_string())?;
    let mounted = late.mounted();
    let log = ErrorLog::install(Pids::of(&order.name), late);
    let guard = handed.guard.map(|to| (to, crate::guard::word(order.profile, order.uid)));
    let program = seccomp::program(order.profile.into(), guard.is_some());
    let built = ContainerBuilder::new(order.id, SyscallType::Linux)
        .with_root_path(order.bundle.clone())
        .and_then(ContainerBuilder::validate_id)
        .and_then(|builder| {
            // Its only effect is on the check of terminal against console socket.
            let detach = order.console.is_some();
            builder
                .with_console_socket(order.console)
                .with_executor(Payload::new(
                    program,
                    order.init,
                    order.hidden,
                    (handed.report, supervisor),
                    guard,
                    mounted,
                    alone,
                ))
                .as_init(&order.bundle)
                .as_sibling(true)
                .with_systemd(false)
                .with_detach(detach)
                .build()
        });
    let words = |error: String| match log.take() {
        causes if causes.is_empty() => error,
        causes => causes,
    };
    let container = built.map_err(|e| words(e.to_string()))?;
    let pid = container.pid().ok_or_else(|| words("libcontainer gave no process id".into()))?;
    Ok(pid.as_raw())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_inner_map_is_the_identity_with_the_same_extents() {
        assert_eq!(
            identity("0 100000 1000\n1000 1000 1\n1001 101000 64535\n"),
            "0 0 1000\n1000 1000 1\n1001 1001 64535\n"
        );
    }
}
