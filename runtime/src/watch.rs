//! The supervisor's poll loop: from the command's start to its end.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use cellblock_egress::serve::Hidden;
use cellblock_sys::signal::{self, SignalFd};
use rustix::event::{PollFd, PollFlags};
use rustix::process::{Pid, PidfdFlags, Signal, WaitId, WaitIdOptions};

use crate::control::{self, Request};
use crate::covers::Covers;
use crate::guard::Guard;
use crate::keep::Keeper;
use crate::network::Connected;
use crate::report::{Report, Stage};
use crate::stdio::Stdio;
use crate::supervisor::{RuntimeError, os};
use crate::{exit, signals};

/// How a command ended.
#[derive(Debug)]
pub(crate) struct Ending {
    /// Its exit code, or 128 + signal.
    pub(crate) code: i32,
    /// It never ran: where the start failed, and the errno.
    pub(crate) failure: Option<(Stage, i32)>,
    /// Who is waiting to hear of the end.
    pub(crate) waiting: Vec<OwnedFd>,
    /// What a person should know of it.
    pub(crate) notes: Vec<String>,
}

/// How long what is typed for somebody else is left to them.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// How long a command whose terminal is gone may take to end after `SIGHUP`.
const HANG_UP_GRACE: Duration = Duration::from_secs(5);

/// A running command and everything that may happen to it.
#[derive(Debug)]
pub(crate) struct Watch {
    init: Pid,
    pidfd: OwnedFd,
    signals: SignalFd,
    /// `None` once the other end is closed: a closed socket is readable for ever, and would keep the loop spinning.
    report: Option<OwnedFd>,
    control: Option<OwnedFd>,
    stdio: Stdio,
    kill_at: Option<Instant>,
    /// What is typed is somebody else's now; when to look again.
    look_again: Option<Instant>,
    hung_up: bool,
    failure: Option<(Stage, i32)>,
    waiting: Vec<OwnedFd>,
    network: Option<Connected>,
    hidden: BTreeMap<String, Hidden>,
    covers: Option<Covers>,
    guard: Option<Guard>,
    notes: Vec<String>,
    keeper: Option<Keeper>,
}

/// What a poll found, by place.
#[derive(Default)]
struct Ready {
    signal: bool,
    ended: bool,
    report: bool,
    control: bool,
    covers: bool,
    pumps: Vec<(usize, bool)>,
}

impl Watch {
    /// Watches over the child `init`; `control` is a listening control socket.
    pub(crate) fn new(
        init: Pid,
        signals: SignalFd,
        report: OwnedFd,
        control: impl Into<Option<OwnedFd>>,
        stdio: Stdio,
    ) -> Result<Self, RuntimeError> {
        let pidfd = rustix::process::pidfd_open(init, PidfdFlags::empty()).map_err(os("cannot watch the command"))?;
        Ok(Self {
            init,
            pidfd,
            signals,
            report: Some(report),
            control: control.into(),
            stdio,
            kill_at: None,
            hung_up: false,
            failure: None,
            waiting: Vec::new(),
            network: None,
            hidden: BTreeMap::new(),
            covers: None,
            guard: None,
            notes: Vec::new(),
            keeper: None,
            look_again: None,
        })
    }

    /// Watches over its network too.
    pub(crate) fn with_network(self, network: Option<Connected>) -> Self {
        Self { network, ..self }
    }

    /// Answers with these variables when another command is to run in the cell.
    pub(crate) fn with_hidden(self, hidden: &BTreeMap<String, Hidden>) -> Self {
        Self { hidden: hidden.clone(), ..self }
    }

    /// Keeps what is covered so.
    pub(crate) fn with_covers(self, covers: Option<Covers>) -> Self {
        Self { covers, ..self }
    }

    /// Watches over its guard too, and ends with it.
    pub(crate) fn with_guard(self, guard: Option<Guard>) -> Self {
        Self { guard, ..self }
    }

    /// Watches over what keeps its agent's files in step too.
    pub(crate) fn with_keeper(self, keeper: Keeper) -> Self {
        Self { keeper: Some(keeper), ..self }
    }

    /// Until the command has ended.
    pub(crate) fn run(mut self) -> Result<Ending, RuntimeError> {
        loop {
            let ready = self.poll().map_err(os("cannot wait for events"))?;
            self.look_again = None;
            for (index, output) in ready.pumps {
                if !output && self.stdio.is_anothers(index) {
                    self.look_again = Some(Instant::now() + LOOK_AGAIN);
                } else if let Some(pump) = self.stdio.pumps.get_mut(index) {
                    if output { pump.write() } else { pump.read() }
                }
            }
            if ready.report {
                self.take_reports();
            }
            if ready.signal {
                while let Some(received) = self.signals.read().map_err(os("cannot read signals"))? {
                    self.on_signal(received.signal);
                }
            }
            if ready.control {
                self.on_request();
            }
            if let Some(covers) = self.covers.as_mut().filter(|c| ready.covers || is_due(c.again())) {
                covers.mend();
            }
            if ready.ended {
                return self.end();
            }
            self.on_time();
        }
    }

    fn poll<'a>(&'a self) -> io::Result<Ready> {
        let mut fds = vec![PollFd::new(&self.signals, PollFlags::IN), PollFd::new(&self.pidfd, PollFlags::IN)];
        let mut place = |fd: &'a Option<OwnedFd>| {
            fd.as_ref().map(|fd| {
                fds.push(PollFd::new(fd, PollFlags::IN));
                fds.len() - 1
            })
        };
        let (report, control) = (place(&self.report), place(&self.control));
        let covers = self.covers.as_ref().map(|covers| {
            // The file itself can always be read; a change is something else.
            fds.push(PollFd::from_borrowed_fd(covers.changes(), PollFlags::PRI));
            fds.len() - 1
        });
        let fixed = fds.len();
        let mut places = Vec::new();
        for (index, pump) in self.stdio.pumps.iter().enumerate() {
            if pump.wants_output() {
                if let Some(to) = pump.to() {
                    fds.push(PollFd::from_borrowed_fd(to, PollFlags::OUT));
                    places.push((index, true));
                }
            } else if pump.wants_input() && !(self.look_again.is_some() && self.stdio.is_typed(index)) {
                fds.push(PollFd::from_borrowed_fd(pump.from(), PollFlags::IN));
                places.push((index, false));
            }
        }
        let again = self.covers.as_ref().and_then(Covers::again);
        let next = self.kill_at.into_iter().chain(again).chain(self.look_again).min();
        let timeout = next.map(|at| timespec(at.saturating_duration_since(Instant::now())));
        match rustix::event::poll(&mut fds, timeout.as_ref()) {
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => return Ok(Ready::default()),
            Err(error) => return Err(error.into()),
        }
        let hit = |index: usize| fds.get(index).is_some_and(|fd| !fd.revents().is_empty());
        let pumps = places.into_iter().enumerate().filter(|(at, _)| hit(fixed + at)).map(|(_, place)| place).collect();
        Ok(Ready {
            signal: hit(0),
            ended: hit(1),
            report: report.is_some_and(hit),
            control: control.is_some_and(hit),
            covers: covers.is_some_and(hit),
            pumps,
        })
    }

    fn on_signal(&mut self, number: i32) {
        match number {
            signals::WINCH => self.stdio.resize(),
            signals::CONT => {
                self.stdio.resume();
                self.send(signals::CONT);
            }
            signals::CHLD => {
                crate::reap::others(self.init);
                if let Some(network) = &mut self.network {
                    network.mend();
                }
                if self.guard.as_ref().is_some_and(Guard::has_died) {
                    self.guard = None;
                    self.notes
                        .push("the process that guards its folders ended unexpectedly, and it was ended".to_owned());
                    self.send(signals::KILL);
                }
                if let Some(keeper) = &mut self.keeper {
                    keeper.mend();
                }
            }
            _ => self.send(number),
        }
    }

    fn send(&self, number: i32) {
        // It may be gone already, which the pidfd tells.
        let _ = signal::send(&self.pidfd, number);
    }

    fn take_reports(&mut self) {
        let Some(socket) = self.report.take() else { return };
        while let Some(report) = Report::receive(&socket) {
            match report {
                Report::Failed(stage, errno) => self.failure = self.failure.or(Some((stage, errno))),
                Report::Stopped => self.stop_with_the_command(),
            }
        }
        if !Report::is_closed(&socket) {
            self.report = Some(socket);
        }
    }

    /// The command was stopped (Ctrl-Z): so are we, for the person's shell to take over. When it continues us, `SIGCONT` goes on to
    /// the command. Without a shell above there is nobody to continue us: then the command just goes on.
    fn stop_with_the_command(&mut self) {
        let me = rustix::process::getpid();
        if rustix::process::getsid(None).is_ok_and(|session| session == me) {
            self.send(signals::CONT);
            return;
        }
        self.stdio.suspend();
        let _ = rustix::process::kill_process(me, Signal::STOP);
    }

    fn on_request(&mut self) {
        let Some(client) = self.control.as_ref().and_then(control::accept) else { return };
        match control::receive(&client) {
            Some(Request::Stop { signal, grace_ms }) => {
                // Without a moment to answer in, the signal would only make it a matter of luck how the command ends.
                self.send(if grace_ms == 0 { signals::KILL } else { signal });
                // A stopped or frozen command could not take the signal.
                self.send(signals::CONT);
                let at = Instant::now() + Duration::from_millis(grace_ms);
                self.kill_at = Some(self.kill_at.map_or(at, |earlier| earlier.min(at)));
                self.waiting.push(client);
            }
            Some(Request::Variables) => control::hand_over(&client, &self.hidden),
            None => {}
        }
    }

    fn on_time(&mut self) {
        if !self.hung_up && self.stdio.hung_up() {
            self.hung_up = true;
            self.send(signals::HUP);
            self.send(signals::CONT);
            self.kill_at = self.kill_at.or(Some(Instant::now() + HANG_UP_GRACE));
        }
        if self.kill_at.is_some_and(|at| at <= Instant::now()) {
            self.send(signals::KILL);
            self.kill_at = None;
        }
    }

    fn end(mut self) -> Result<Ending, RuntimeError> {
        let code = loop {
            match rustix::process::waitid(WaitId::Pid(self.init), WaitIdOptions::EXITED) {
                Ok(Some(status)) => {
                    break status
                        .exit_status()
                        .or_else(|| status.terminating_signal().map(|n| 128 + n))
                        .unwrap_or(exit::OURS);
                }
                Ok(None) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(os("cannot learn how the command ended")(error)),
            }
        };
        self.take_reports();
        self.stdio.finish();
        Ok(Ending { code, failure: self.failure, waiting: self.waiting, notes: self.notes })
    }
}

fn is_due(at: Option<Instant>) -> bool {
    at.is_some_and(|at| at <= Instant::now())
}

fn timespec(duration: Duration) -> rustix::time::Timespec {
    rustix::time::Timespec {
        tv_sec: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: i64::from(duration.subsec_nanos()),
    }
}
