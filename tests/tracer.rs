//! `kill -9` at a chosen system call: a small tracer (`ptrace(2)`) that follows a command and everything it starts, counts their system
//! calls together, and kills at the n-th.
//!
//! Set-user-id helpers such as `newuidmap` lose their privilege under an ordinary user's tracer (`ptrace(2)`, "effect on execve"): trace
//! cells that need none.

use std::collections::BTreeSet;
use std::process::Command;
use std::time::Instant;

use nix::sys::ptrace::{self, Options};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::Call;

/// Who is killed when the n-th system call comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Victim {
    /// Whoever makes it.
    Caller,
    /// The command itself: the process that the person started, which becomes the supervisor.
    Command,
    /// Both of them.
    Both,
}

/// How a traced command went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Traced {
    /// System calls seen, entries only, until the kill.
    pub calls: usize,
    /// The name of the process that was killed (`/proc/PID/comm`), if the command came as far as the n-th call.
    pub killed: Option<String>,
}

/// When the kill is due, at the entry of a system call.
type Due<'a> = Box<dyn FnMut(Pid, usize) -> bool + 'a>;

impl Call {
    /// Runs it with its output thrown away, and kills `victim` at the entry of the `nth` system call (from 0) that it and its descendants make.
    /// Returns when all of them are gone.
    ///
    /// # Panics
    /// If the command cannot be traced, or processes of it stay.
    #[must_use]
    pub fn killed_at(self, nth: usize, victim: Victim) -> Traced {
        self.killed_when(Box::new(move |_, count| count == nth), victim)
    }

    /// The same, the first time that the process called `program` is about to make one of `calls` while `when` holds.
    ///
    /// # Panics
    /// As [`Call::killed_at`].
    #[must_use]
    pub fn killed_before(self, program: &str, calls: &[u64], when: impl Fn() -> bool, victim: Victim) -> Traced {
        let is_one = |pid| number(pid).is_some_and(|number| calls.contains(&number));
        self.killed_when(Box::new(|pid, _| is_one(pid) && name(pid) == program && when()), victim)
    }

    /// What is mapped into the first process of the program called `program` that is about to end: `/proc/PID/maps`.
    ///
    /// # Panics
    /// As [`Call::killed_at`].
    #[must_use]
    pub fn mapped_at_the_end(self, program: &str) -> String {
        let found = std::cell::RefCell::new(String::new());
        let ends = |pid| number(pid) == Some(u64::try_from(nix::libc::SYS_exit_group).unwrap_or_default());
        let due = |pid: Pid, _| {
            let is = ends(pid) && name(pid) == program;
            if is {
                *found.borrow_mut() = std::fs::read_to_string(format!("/proc/{pid}/maps")).expect("it stands still");
            }
            is
        };
        let _ = self.killed_when(Box::new(due), Victim::Caller);
        found.into_inner()
    }

    #[expect(clippy::zombie_processes, reason = "the tracer waits for it, as for all others")]
    fn killed_when(self, due: Due<'_>, victim: Victim) -> Traced {
        // It stops itself, so that it can be taken hold of before its first own instruction.
        let mut words =
            vec!["-c".into(), "kill -STOP $$; exec \"$0\" \"$@\"".into(), self.command.get_program().to_owned()];
        words.extend(self.command.get_args().map(ToOwned::to_owned));
        let mut shell = Command::new("/bin/sh");
        shell.args(words).env_clear().stdin(std::process::Stdio::null());
        shell.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
        shell.envs(self.command.get_envs().filter_map(|(k, v)| Some((k, v?))));
        shell.current_dir(self.command.get_current_dir().expect("a folder"));
        let child = shell.spawn().expect("the command starts");
        let command = Pid::from_raw(i32::try_from(child.id()).expect("a pid"));
        waitpid(command, Some(WaitPidFlag::WUNTRACED)).expect("it stops");
        Tracer { command, due, victim, left: BTreeSet::from([command]), inside: BTreeSet::new(), running: false }.run()
    }
}

struct Tracer<'a> {
    command: Pid,
    due: Due<'a>,
    victim: Victim,
    left: BTreeSet<Pid>,
    /// Processes whose next stop is the exit of a system call.
    inside: BTreeSet<Pid>,
    /// The shell has become the command.
    running: bool,
}

impl Tracer<'_> {
    fn run(mut self) -> Traced {
        let follow = Options::PTRACE_O_TRACEFORK | Options::PTRACE_O_TRACEVFORK | Options::PTRACE_O_TRACECLONE;
        let options =
            follow | Options::PTRACE_O_TRACESYSGOOD | Options::PTRACE_O_TRACEEXEC | Options::PTRACE_O_EXITKILL;
        ptrace::seize(self.command, options).expect("ptrace");
        kill(self.command, Signal::SIGCONT).expect("kill");
        let mut traced = Traced { calls: 0, killed: None };
        // Its processes have to be gone by then, too.
        let end = Instant::now() + crate::patience() / 2;
        // Only the children of this thread: other tests run beside.
        let flags = WaitPidFlag::__WALL | WaitPidFlag::__WNOTHREAD | WaitPidFlag::WNOHANG;
        loop {
            match waitpid(None, Some(flags)) {
                Ok(WaitStatus::StillAlive) => {
                    assert!(Instant::now() < end, "{traced:?}, and still there: {}", self.names());
                    std::thread::yield_now();
                }
                Ok(status) => self.step(status, &mut traced),
                Err(nix::errno::Errno::ECHILD) => return traced,
                Err(error) => panic!("waitpid: {error}"),
            }
        }
    }

    fn step(&mut self, status: WaitStatus, traced: &mut Traced) {
        let Some(pid) = status.pid() else { return };
        let mut signal = None;
        match status {
            WaitStatus::Exited(..) | WaitStatus::Signaled(..) => {
                self.left.remove(&pid);
                return;
            }
            WaitStatus::PtraceSyscall(_) => self.system_call(pid, traced),
            WaitStatus::PtraceEvent(_, _, event) if event == ptrace::Event::PTRACE_EVENT_EXEC as i32 => {
                self.running = true
            }
            WaitStatus::Stopped(_, number) => signal = Some(number),
            _ => {}
        }
        self.left.insert(pid);
        // Whoever has just been killed cannot be resumed; its end is on its way.
        let _ = if traced.killed.is_some() { ptrace::cont(pid, signal) } else { ptrace::syscall(pid, signal) };
    }

    fn system_call(&mut self, pid: Pid, traced: &mut Traced) {
        if self.inside.remove(&pid) {
            return;
        }
        self.inside.insert(pid);
        if !self.running || traced.killed.is_some() {
            return;
        }
        if (self.due)(pid, traced.calls) {
            // The caller stands still meanwhile.
            let victims = match self.victim {
                Victim::Caller => vec![pid],
                Victim::Command => vec![self.command],
                Victim::Both => vec![self.command, pid],
            };
            for victim in victims {
                traced.killed = Some(name(victim));
                match kill(victim, Signal::SIGKILL) {
                    // What comes after it has ended: what removes the cell's folders.
                    Err(nix::errno::Errno::ESRCH) if victim != pid => {
                        traced.killed = Some("nobody: it has ended".to_owned())
                    }
                    killed => killed.expect("kill"),
                }
            }
        }
        traced.calls += 1;
    }

    fn names(&self) -> String {
        self.left.iter().map(|pid| format!("{pid} {}; ", name(*pid))).collect()
    }
}

/// The number of the system call that is entered.
fn number(pid: Pid) -> Option<u64> {
    let registers = ptrace::getregs(pid).ok()?;
    #[cfg(target_arch = "x86_64")]
    return Some(registers.orig_rax);
    #[cfg(target_arch = "aarch64")]
    return Some(registers.regs[8]);
}

/// The name of a process.
fn name(pid: Pid) -> String {
    std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default().trim().to_owned()
}
