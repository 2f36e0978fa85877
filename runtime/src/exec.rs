//! `exec`: another command in a running cell.
//!
//! libcontainer's own exec joins no user namespace and loads no seccomp filter, so this is ours: join every namespace of the
//! cell's init by its pidfd, take the cell's ids, drop every capability the cell does not have, load the filter, `execve`.
//! The calling process watches over the command like a supervisor over its cell; the cell's own supervisor has no part in it.
//!
//! The person needs no privilege for it: owning OUTER gives every capability in it and in the CELL's namespace below
//! (user_namespaces(7)).

use std::convert::Infallible;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

use cellblock_bundle::{Cell, policy, seccomp};
use cellblock_sys::process::{Fork, SingleThreaded, exit_now};
use cellblock_sys::signal::{SignalFd, SignalSet};
use rustix::event::{PollFd, PollFlags};
use rustix::fs::{Mode, OFlags};
use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType};
use rustix::process::{Gid, Pid, PidfdFlags, Signal, Uid, WaitOptions};
use rustix::thread::{CapabilitySet, CapabilitySets, ThreadNameSpaceType};

use crate::init::{Command, die_with_supervisor, finish};
use crate::report::{Report, Stage};
use crate::state::Found;
use crate::stdio::{Stdio, receive_descriptor, send_descriptor};
use crate::supervisor::{RuntimeError, os};
use crate::watch::Watch;
use crate::{cgroup, exit, signals};

/// What to run in a cell.
#[derive(Clone, Debug)]
pub struct Exec {
    /// The program and its arguments.
    pub command: Vec<String>,
    /// Its whole environment, `NAME=value` each.
    pub env: Vec<String>,
    /// Absolute working directory inside.
    pub workdir: PathBuf,
    /// User id inside.
    pub uid: u32,
    /// Group id inside.
    pub gid: u32,
    /// Supplementary group ids inside.
    pub groups: Vec<u32>,
    /// Whether it gets a pseudo-terminal.
    pub terminal: bool,
}

/// Runs `exec` in the cell `found` to its end, and gives its exit code, or 128 + the signal that ended it. Takes over this process's signals and standard streams.
///
/// # Errors
/// See [`RuntimeError`]; `NotRunning` as an [`crate::state::StateError`] if the cell has just ended.
pub fn exec(found: &Found, exec: &Exec) -> Result<i32, RuntimeError> {
    let alone = SingleThreaded::prove().map_err(os("cannot enter a cell"))?;
    let set = SignalSet::of(signals::SUPERVISED);
    let signals = set.block().and_then(|_| SignalFd::new(&set)).map_err(os("cannot watch signals"))?;
    // Processes of the cell may have our user id: they must not get at us while we are half inside.
    rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable)
        .map_err(os("cannot protect this process"))?;
    let gone = || RuntimeError::State(crate::state::StateError::NotRunning(found.record.cell.name.clone()));
    let target = found.running.and_then(|r| r.pidfd()).ok_or_else(gone)?;

    let mut stdio = if exec.terminal {
        Stdio::default()
    } else {
        Stdio::plain().map_err(os("cannot prepare the standard streams"))?
    };
    let socket = || rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None);
    let (report, theirs) = socket().map_err(os("cannot make a socket"))?;
    let (console, their_console) = socket().map_err(os("cannot make a socket"))?;
    let (told, tell) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).map_err(os("cannot make a pipe"))?;
    let guard = guard_of(found)?;
    let alive = rustix::process::pidfd_open(rustix::process::getpid(), PidfdFlags::empty());
    let alive = alive.map_err(os("cannot watch over this process"))?;
    let joiner = Joiner {
        cell: &found.record.cell,
        exec,
        command: Command::new(&exec.command, &exec.env).map_err(os("the command is not valid"))?,
        program: seccomp::program(found.record.cell.profile.into(), guard.is_some()),
        target,
        streams: stdio.take_inner(),
        cgroups: cgroup::procs_of(&found.record.cgroups)?,
        cgroup_paths: &found.record.cgroups,
        guard,
        report: theirs,
        console: their_console,
        alive,
        tell,
    };
    let code = joiner.send(&alone)?;
    drop(joiner);
    let pid = grandchild(code, told, &report)?;
    if exec.terminal {
        let master = terminal(&console, &signals, pid).map_err(|error| match Report::receive(&report) {
            Some(Report::Failed(_, errno)) => {
                os("cannot open a terminal in the cell")(io::Error::from_raw_os_error(errno))
            }
            _ => os("cannot get the command's terminal")(error),
        })?;
        stdio.attach(master).map_err(os("cannot use the terminal"))?;
        rustix::net::send(&console, b"g", SendFlags::NOSIGNAL).map_err(os("cannot start the command"))?;
    }
    let ending = Watch::new(pid, signals, report, None, stdio)?.run()?;
    match ending.failure {
        None => Ok(ending.code),
        Some((Stage::Exec, errno)) => Err(RuntimeError::Exec {
            program: exec.command.first().cloned().unwrap_or_default(),
            source: io::Error::from_raw_os_error(errno),
        }),
        Some((Stage::Seccomp, errno)) => Err(RuntimeError::Seccomp(io::Error::from_raw_os_error(errno))),
        Some((Stage::Prepare, errno)) => Err(os("cannot enter the cell")(io::Error::from_raw_os_error(errno))),
    }
}

/// A connection to the guard of the cell: whoever enters is behind it as everybody inside.
fn guard_of(found: &Found) -> Result<Option<OwnedFd>, RuntimeError> {
    if !crate::guard::is_wanted(&found.record.cell) {
        return Ok(None);
    }
    let path = &found.guard_socket;
    let socket = std::os::unix::net::UnixStream::connect(path).map_err(os("cannot get behind the cell's guard"))?;
    Ok(Some(socket.into()))
}

/// The controlling side of the command's terminal, or `Interrupted` if the person ends it before: something inside can keep it from coming.
fn terminal(console: &OwnedFd, signals: &SignalFd, child: Pid) -> io::Result<OwnedFd> {
    loop {
        let mut poll = [PollFd::new(console, PollFlags::IN), PollFd::new(signals, PollFlags::IN)];
        rustix::io::retry_on_intr(|| rustix::event::poll(&mut poll, None))?;
        if !poll[0].revents().is_empty() {
            return receive_descriptor(console.as_fd());
        }
        while let Some(received) = signals.read()? {
            if [signals::INT, signals::TERM, signals::HUP, signals::QUIT].contains(&received.signal) {
                rustix::process::kill_process(child, Signal::KILL)?;
                return Err(io::ErrorKind::Interrupted.into());
            }
        }
    }
}

/// Learns the id of the process that the first child, which has ended with `code`, has left behind in the cell's PID namespace.
fn grandchild(code: i32, told: OwnedFd, report: &OwnedFd) -> Result<Pid, RuntimeError> {
    if code == 0 {
        let mut bytes = [0u8; 4];
        let read =
            io::Read::read(&mut std::fs::File::from(told), &mut bytes).map_err(os("cannot learn the command's id"))?;
        if let Some(pid) = (read == 4).then(|| i32::from_ne_bytes(bytes)).and_then(Pid::from_raw) {
            return Ok(pid);
        }
    }
    match Report::receive(report) {
        Some(Report::Failed(_, errno)) => Err(os("cannot enter the cell")(io::Error::from_raw_os_error(errno))),
        _ => Err(os("cannot enter the cell")(io::Error::from(io::ErrorKind::UnexpectedEof))),
    }
}

/// Everything the children need, made before the first fork.
struct Joiner<'a> {
    cell: &'a Cell,
    exec: &'a Exec,
    command: Command,
    program: seccomp::Program,
    target: OwnedFd,
    streams: [Option<OwnedFd>; 3],
    cgroups: Vec<OwnedFd>,
    cgroup_paths: &'a [PathBuf],
    /// Leads to the cell's guard, if it has one.
    guard: Option<OwnedFd>,
    report: OwnedFd,
    console: OwnedFd,
    /// The parent's pidfd.
    alive: OwnedFd,
    /// For the command's id: not the report socket, on which the command itself may be faster.
    tell: OwnedFd,
}

impl Joiner<'_> {
    /// Has a child go in, and gives its exit code. It has our memory, but in a cell with groups of its own, where others may kill it.
    fn send(&self, alone: &SingleThreaded) -> Result<i32, RuntimeError> {
        if self.cgroups.is_empty() {
            return alone.lend(|| -> Infallible { self.join(alone) }).map_err(os("cannot fork"));
        }
        let child = match alone.fork().map_err(os("cannot fork"))? {
            Fork::Child => self.join(alone),
            Fork::Parent(pid) => pid,
        };
        let waited = rustix::io::retry_on_intr(|| rustix::process::waitpid(Some(child), WaitOptions::empty()))
            .map_err(os("cannot wait for the command"))?;
        Ok(waited.and_then(|(_, status)| status.exit_status()).unwrap_or(exit::OURS))
    }

    /// The first child: joins the namespaces, then leaves a sibling behind, for a PID namespace holds for children only.
    fn join(&self, alone: &SingleThreaded) -> ! {
        let joined = self.enter().and_then(|()| alone.fork_sibling());
        match joined {
            Ok(Fork::Child) => match self.settle() {
                Ok(()) => {
                    let word = crate::guard::word(self.cell.profile, self.exec.uid);
                    let guard = self.guard.as_ref().map(|to| (to.as_fd(), word));
                    finish((&self.program, guard), &self.command, |stage, error| {
                        Report::failed(stage, error).send(self.report.as_fd())
                    })
                }
                Err(error) => self.fail(&error),
            },
            Ok(Fork::Parent(pid)) => {
                let _ = rustix::io::write(&self.tell, &pid.as_raw_nonzero().get().to_ne_bytes());
                exit_now(0)
            }
            Err(error) => self.fail(&error),
        }
    }

    fn fail(&self, error: &io::Error) -> ! {
        Report::failed(Stage::Prepare, error).send(self.report.as_fd());
        exit_now(exit::OURS)
    }

    fn enter(&self) -> io::Result<()> {
        cgroup::join(&self.cgroups, self.cgroup_paths, !self.cell.ids.rootless())?;
        let all = ThreadNameSpaceType::USER
            | ThreadNameSpaceType::MOUNT
            | ThreadNameSpaceType::PROCESS_ID
            | ThreadNameSpaceType::HOST_NAME_AND_NIS_DOMAIN_NAME
            | ThreadNameSpaceType::INTER_PROCESS_COMMUNICATION
            | ThreadNameSpaceType::NETWORK
            | ThreadNameSpaceType::CONTROL_GROUP;
        Ok(rustix::thread::move_into_thread_name_spaces(self.target.as_fd(), all)?)
    }

    /// Inside: session, terminal, directory, ids, capabilities, in this order.
    fn settle(&self) -> io::Result<()> {
        die_with_supervisor(self.alive.as_fd())?;
        rustix::process::setsid()?;
        let [stdin, stdout, stderr] = &self.streams;
        stdin.as_ref().map_or(Ok(()), rustix::stdio::dup2_stdin)?;
        stdout.as_ref().map_or(Ok(()), rustix::stdio::dup2_stdout)?;
        stderr.as_ref().map_or(Ok(()), rustix::stdio::dup2_stderr)?;
        if self.cell.ids.has_range() {
            let groups: Vec<Gid> = self.exec.groups.iter().map(|g| Gid::from_raw(*g)).collect();
            rustix::thread::set_thread_groups(&groups)?;
        }
        self.drop_bounding()?;
        rustix::thread::set_keep_capabilities(true)?;
        let (uid, gid) = (Uid::from_raw(self.exec.uid), Gid::from_raw(self.exec.gid));
        rustix::thread::set_thread_res_gid(gid, gid, gid)?;
        rustix::thread::set_thread_res_uid(uid, uid, uid)?;
        rustix::thread::set_keep_capabilities(false)?;
        if self.exec.terminal {
            // With the ids of the cell: a terminal belongs to whoever opens it.
            self.open_terminal()?;
        }
        // After the change of ids: the directory must be open to the one who will work in it.
        rustix::process::chdir(&self.exec.workdir)?;
        let kept = self.kept();
        rustix::thread::set_no_new_privs(true)?;
        rustix::thread::clear_ambient_capability_set()?;
        let sets = CapabilitySets { effective: kept, permitted: kept, inheritable: CapabilitySet::empty() };
        rustix::thread::set_capabilities(None, sets)?;
        die_with_supervisor(self.alive.as_fd())?;
        let _ = rustix::process::umask(Mode::from_raw_mode(0o022));
        Ok(())
    }

    fn kept(&self) -> CapabilitySet {
        policy::capabilities(self.cell.profile, self.exec.uid)
            .into_iter()
            .filter_map(|name| CapabilitySet::from_name(name.trim_start_matches("CAP_")))
            .fold(CapabilitySet::empty(), |all, one| all | one)
    }

    fn drop_bounding(&self) -> io::Result<()> {
        let kept = self.kept();
        // All that the kernel may know, not only those with a name here.
        for capability in (0..u64::BITS).map(|n| CapabilitySet::from_bits_retain(1 << n)) {
            if kept.contains(capability) {
                continue;
            }
            match rustix::thread::remove_capability_from_bounding_set(capability) {
                Ok(()) => {}
                // This kernel knows neither this one nor any after it (`cap_valid`, `<linux/capability.h>`).
                Err(rustix::io::Errno::INVAL) => break,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// A pseudo-terminal of the cell's own devpts; its controlling side goes to the parent, which answers when it has set the size.
    fn open_terminal(&self) -> io::Result<()> {
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
        let master = rustix::fs::open(c"/dev/pts/ptmx", flags, Mode::empty())?;
        if rustix::fs::fstatfs(&master)?.f_type != DEVPTS_SUPER_MAGIC {
            return Err(io::Error::other("/dev/pts of the cell is no devpts"));
        }
        rustix::pty::unlockpt(&master)?;
        let side =
            rustix::pty::ioctl_tiocgptpeer(&master, rustix::pty::OpenptFlags::RDWR | rustix::pty::OpenptFlags::NOCTTY)?;
        send_descriptor(self.console.as_fd(), master.as_fd())?;
        let mut byte = [0u8];
        rustix::net::recv(&self.console, &mut byte, rustix::net::RecvFlags::empty())?;
        rustix::process::ioctl_tiocsctty(&side)?;
        rustix::stdio::dup2_stdin(&side)?;
        rustix::stdio::dup2_stdout(&side)?;
        Ok(rustix::stdio::dup2_stderr(&side)?)
    }
}

/// `<linux/magic.h>`.
const DEVPTS_SUPER_MAGIC: i64 = 0x1cd1;
