//! What runs as process 1 of a cell: libcontainer's last step, and our init.
//!
//! libcontainer calls [`Payload::validate`] when namespaces, mounts, ids and capabilities of the cell are in place, and
//! [`Payload::exec`] when the cell is started. From there on this code is alone in the cell, without privilege, as a copy of
//! the builder's memory that nobody inside may look at: it is not dumpable, and its memory belongs to OUTER.
//!
//! What it has to tell goes over a socket to the supervisor, as [`Report`]s.

use std::collections::{BTreeMap, HashMap};
use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::rc::Rc;

use cellblock_bundle::seccomp::Program;
use cellblock_egress::serve::Hidden;
use cellblock_sys::process::{SingleThreaded, exit_now, run_with_only};
use cellblock_sys::signal::{self, SignalFd, SignalSet};
use cellblock_sys::spawn::{Image, Spawned};
use libcontainer::oci_spec::runtime::Spec;
use libcontainer::workload::{Executor, ExecutorError, ExecutorSetEnvsError, ExecutorValidationError};
use rustix::event::{PollFd, PollFlags};
use rustix::process::{Pid, Signal, WaitOptions};

use crate::late::Mounted;
use crate::report::{Report, Stage};

/// The command of a cell, ready to be started inside.
#[derive(Clone, Debug)]
pub(crate) struct Payload {
    inner: Rc<Inner>,
}

/// Where the listener of the guard's filter goes and with which words, if there is a guard.
pub(crate) type Sender = Option<(OwnedFd, &'static [u8])>;

#[derive(Debug)]
struct Inner {
    program: Program,
    init: bool,
    /// Variables that are in no file: they go from the supervisor's memory into `execve`.
    hidden: BTreeMap<String, Hidden>,
    /// To the supervisor.
    supervisor: OwnedFd,
    /// The supervisor's pidfd, which tells when it is gone. The socket does not yet: this copy of the supervisor holds both ends of it.
    alive: OwnedFd,
    /// Where the filter's listener goes, and with which words.
    guard: Sender,
    /// Whether the kernel's file systems are there, and covered.
    mounted: Mounted,
    alone: SingleThreaded,
}

impl Payload {
    /// A payload that reports to `supervisor`, whose pidfd is `alive`, behind the seccomp filter `program`. It refuses to start anything before
    /// `mounted` says that it may. It is called in a child of this process, which `alone` proves to have one thread.
    pub(crate) fn new(
        program: Program,
        init: bool,
        hidden: BTreeMap<String, Hidden>,
        (supervisor, alive): (OwnedFd, OwnedFd),
        guard: Sender,
        mounted: Mounted,
        alone: SingleThreaded,
    ) -> Self {
        Self { inner: Rc::new(Inner { program, init, hidden, supervisor, alive, guard, mounted, alone }) }
    }
}

/// Why a command is not started that would see the kernel's files, or find none.
const NOT_MOUNTED: &str = "the kernel's file systems are not mounted";

impl Executor for Payload {
    fn validate(&self, _spec: &Spec) -> Result<(), ExecutorValidationError> {
        if !self.inner.mounted.yet() {
            return Err(ExecutorValidationError::ArgValidationError(NOT_MOUNTED.into()));
        }
        die_with_supervisor(self.inner.alive.as_fd())
            .map_err(|e| ExecutorValidationError::ArgValidationError(e.to_string()))
    }

    fn setup_envs(&self, _environment: HashMap<String, String>) -> Result<(), ExecutorSetEnvsError> {
        // The environment goes straight into execve: changing this process's own would take a lock that a thread of the
        // original process might have held (and would put secrets where /proc/1/environ shows them).
        Ok(())
    }

    fn exec(&self, spec: &Spec) -> Result<(), ExecutorError> {
        // libcontainer has called `validate` before. Here is the last place where anything can be refused.
        if !self.inner.mounted.yet() {
            return Err(ExecutorError::Other(NOT_MOUNTED.into()));
        }
        let command = Command::of(spec, &self.inner.hidden)
            .and_then(|c| die_with_supervisor(self.inner.alive.as_fd()).map(|()| c))
            .map_err(|e| ExecutorError::Other(e.to_string()))?;
        let supervisor = self.inner.supervisor.as_fd();
        if self.inner.guard.is_some() {
            // The way here was gone before the guard covered the cell's folders: from what it covers nobody may start.
            let folder = spec.process().as_ref().map_or(Path::new("/"), |process| process.cwd());
            if let Err(error) = rustix::process::chdir(folder) {
                Report::failed(Stage::Prepare, &error.into()).send(supervisor);
                exit_now(crate::exit::OURS);
            }
        }
        if self.inner.init {
            let kept: Vec<_> =
                std::iter::once(supervisor).chain(self.inner.guard.as_ref().map(|(to, _)| to.as_fd())).collect();
            run_with_only(&kept, || start_init(&self.inner, &command))
        }
        start_command(&self.inner, &command, supervisor)
    }
}

/// Has the kernel kill this process when its parent, of which `alive` is the pidfd, ends, and ends it if that has happened already.
///
/// Twice on the way to the payload, because a change of ids or capabilities clears the setting (`PR_SET_PDEATHSIG(2const)`).
pub(crate) fn die_with_supervisor(alive: BorrowedFd<'_>) -> io::Result<()> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    let mut poll = [PollFd::from_borrowed_fd(alive, PollFlags::IN)];
    rustix::event::poll(&mut poll, Some(&rustix::time::Timespec { tv_sec: 0, tv_nsec: 0 }))?;
    if !poll[0].revents().is_empty() {
        exit_now(crate::exit::OURS);
    }
    Ok(())
}

/// Everything `execve` needs, allocated before the filter is in force.
#[derive(Debug)]
pub(crate) struct Command {
    argv: Vec<CString>,
    envp: Vec<CString>,
    candidates: Vec<CString>,
}

impl Command {
    fn of(spec: &Spec, hidden: &BTreeMap<String, Hidden>) -> io::Result<Self> {
        let process = spec.process().as_ref().ok_or(io::ErrorKind::InvalidInput)?;
        let mut env = process.env().clone().unwrap_or_default();
        env.extend(hidden.iter().map(|(name, value)| format!("{name}={}", value.0)));
        Self::new(process.args().as_deref().unwrap_or_default(), &env)
    }

    /// A command of `args` with the environment `env` (`NAME=value` each), looked up along its own `PATH`.
    pub(crate) fn new(args: &[String], env: &[String]) -> io::Result<Self> {
        let text = |s: &String| CString::new(s.as_bytes()).map_err(io::Error::from);
        let program = args.first().ok_or(io::ErrorKind::InvalidInput)?;
        let path = env.iter().find_map(|e| e.strip_prefix("PATH=")).unwrap_or(DEFAULT_PATH);
        let candidates = if program.contains('/') {
            vec![text(program)?]
        } else {
            path.split(':')
                .map(|dir| text(&format!("{}/{program}", if dir.is_empty() { "." } else { dir })))
                .collect::<Result<_, _>>()?
        };
        Ok(Self {
            argv: args.iter().map(text).collect::<Result<_, _>>()?,
            envp: env.iter().map(text).collect::<Result<_, _>>()?,
            candidates,
        })
    }

    /// It in the kernel's form.
    fn image(&self) -> Image<'_> {
        Image::new(&self.candidates, &self.argv, &self.envp)
    }
}

/// Where a command is looked for when its environment has no `PATH` (`execvp(3)`).
const DEFAULT_PATH: &str = "/bin:/usr/bin";

/// The last steps before the command: signals as a new program expects them, the filter, `execve`. Reports and ends on failure.
fn start_command(inner: &Inner, command: &Command, supervisor: BorrowedFd<'_>) -> ! {
    let guard = inner.guard.as_ref().map(|(to, words)| (to.as_fd(), *words));
    finish((&inner.program, guard), command, |stage, error| Report::failed(stage, error).send(supervisor))
}

/// The filter that is loaded before a command, and where its listener goes if there is a guard.
pub(crate) type Filter<'a> = (&'a Program, Option<(BorrowedFd<'a>, &'a [u8])>);

/// As [`start_command`], for any caller that is about to become the command. Never returns.
pub(crate) fn finish(filter: Filter<'_>, command: &Command, report: impl Fn(Stage, &io::Error)) -> ! {
    signal::reset_all();
    let _ = SignalSet::of(&[]).replace();
    if let Err(error) = cellblock_sys::process::cloexec_from(3) {
        report(Stage::Prepare, &error);
        exit_now(crate::exit::OURS);
    }
    if let Err(error) = load(filter) {
        report(Stage::Seccomp, &error);
        exit_now(crate::exit::OURS);
    }
    let error = command.image().execute();
    report(Stage::Exec, &error);
    exit_now(crate::exit::of_exec_error(&error))
}

/// Process 1 with `--init`: starts the command as its child, hands signals on, reaps, and ends as the command ended. The command has a process group of
/// its own, in the foreground of its terminal: so that Ctrl-C reaches it and not init, and a shell finds itself where it expects to be.
fn start_init(inner: &Inner, command: &Command) -> std::convert::Infallible {
    let supervisor = inner.supervisor.as_fd();
    let fail = |stage, error: &io::Error| -> ! {
        Report::failed(stage, error).send(supervisor);
        exit_now(crate::exit::OURS)
    };
    let _ = rustix::thread::set_name(c"cellblock-init");
    let signals = SignalSet::all();
    let fd = match signals.block().and_then(|_| SignalFd::new(&signals)) {
        Ok(fd) => fd,
        Err(error) => fail(Stage::Prepare, &error),
    };
    let image = command.image();
    // The filter holds for init as well: it parses nothing, yet it is process 1 of a hostile place. The command inherits it.
    let guard = inner.guard.as_ref().map(|(to, words)| (to.as_fd(), *words));
    if let Err(error) = load((&inner.program, guard)) {
        fail(Stage::Seccomp, &error);
    }
    match inner.alone.spawn(&image) {
        Ok(Spawned::Running(child)) => Init { child, signals: fd, supervisor }.run(),
        Ok(Spawned::Failed(error)) => {
            Report::failed(Stage::Exec, &error).send(supervisor);
            exit_now(crate::exit::of_exec_error(&error))
        }
        Err(error) => fail(Stage::Prepare, &error),
    }
}

/// With a guard, it has a say in all that is done after it.
fn load((program, guard): Filter<'_>) -> io::Result<()> {
    match guard {
        Some((to, words)) => crate::guard::give_in(program, to, words),
        None => crate::sandbox::load(program),
    }
}

/// Init's state.
struct Init<'a> {
    child: Pid,
    signals: SignalFd,
    supervisor: BorrowedFd<'a>,
}

impl Init<'_> {
    fn run(&self) -> ! {
        loop {
            let mut poll = [PollFd::new(&self.signals, PollFlags::IN)];
            if let Err(error) = rustix::event::poll(&mut poll, None)
                && error != rustix::io::Errno::INTR
            {
                exit_now(crate::exit::OURS);
            }
            while let Ok(Some(received)) = self.signals.read() {
                match received.signal {
                    crate::signals::CHLD => self.reap(),
                    number => self.hand_on(number),
                }
            }
        }
    }

    /// A signal that the supervisor (or somebody inside) sent to process 1 is meant for the command: for all of its group if a
    /// terminal would send it to the group, so that `sh -c 'sleep 9'` ends at Ctrl-C without a terminal too.
    fn hand_on(&self, number: i32) {
        use crate::signals::{CONT, HUP, INT, QUIT, TSTP};
        let Some(signal) = Signal::from_named_raw(number) else { return };
        let _ = match number {
            HUP | INT | QUIT | TSTP | CONT => rustix::process::kill_process_group(self.child, signal),
            _ => rustix::process::kill_process(self.child, signal),
        };
    }

    /// Collects every child that has changed. The command's end is our end: the kernel then kills what is left.
    fn reap(&self) {
        loop {
            let Ok(Some((pid, status))) = rustix::process::wait(WaitOptions::NOHANG | WaitOptions::UNTRACED) else {
                return;
            };
            if pid != self.child {
                continue;
            }
            if let Some(code) = crate::exit::of_wait_status(status) {
                exit_now(code);
            }
            if status.stopped() {
                Report::Stopped.send(self.supervisor);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strings(words: &[&str]) -> Vec<String> {
        words.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_bare_name_is_looked_up_along_the_commands_own_path() {
        let command = Command::new(&strings(&["ls", "-l"]), &strings(&["A=1", "PATH=/one::/two"])).expect("valid");
        let found: Vec<_> = command.candidates.iter().map(|c| c.to_str().expect("utf-8")).collect();
        assert_eq!(found, ["/one/ls", "./ls", "/two/ls"]);
    }

    #[test]
    fn a_name_with_a_slash_is_taken_as_it_is() {
        let command = Command::new(&strings(&["./x"]), &[]).expect("valid");
        assert_eq!(command.candidates, [c"./x".to_owned()]);
    }

    #[test]
    fn nul_and_nothing_are_refused() {
        assert!(Command::new(&strings(&["a\0b"]), &[]).is_err());
        assert!(Command::new(&[], &[]).is_err());
    }
}
