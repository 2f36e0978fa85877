//! Waiting for more to show, for a key, for the end of whoever reads, or for a signal.

use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

use cellblock_sys::signal::{SignalFd, SignalSet};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::Signal;

use crate::report::CliError;

/// How often to look for more.
const PAUSE: Duration = Duration::from_millis(100);

/// What ended the waiting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Woken {
    /// Nothing: it is time to look again.
    Time,
    /// Something was typed, or standard input has ended.
    Input,
    /// Nobody reads standard output any more.
    Closed,
    /// A signal that ends, stops or continues this process.
    Signal(i32),
}

/// Signals as data from here on: a terminal has to be given back before they are obeyed.
#[derive(Debug)]
pub(super) struct Pause {
    signals: SignalFd,
}

impl Pause {
    /// `stops`: also those that stop and continue.
    pub(super) fn new(stops: bool) -> Result<Self, CliError> {
        let mut wanted = vec![Signal::INT, Signal::TERM, Signal::HUP, Signal::QUIT];
        if stops {
            wanted.extend([Signal::TSTP, Signal::CONT]);
        }
        let numbers: Vec<i32> = wanted.iter().map(|s| s.as_raw()).collect();
        let set = SignalSet::of(&numbers);
        let failed = |source| CliError::Process { what: "cannot wait for signals", source };
        set.block().map_err(failed)?;
        Ok(Self { signals: SignalFd::new(&set).map_err(failed)? })
    }

    /// Waits for a moment; with `input` for keys too.
    pub(super) fn next(&self, input: bool) -> Result<Woken, CliError> {
        let stdin = rustix::stdio::stdin();
        let stdout = rustix::stdio::stdout();
        let mut fds = vec![
            PollFd::from_borrowed_fd(self.signals.as_fd(), PollFlags::IN),
            // No event is asked for: an error, such as a pipe without a reader, is always told (poll(2)).
            PollFd::from_borrowed_fd(stdout, PollFlags::empty()),
        ];
        if input {
            fds.push(PollFd::from_borrowed_fd(stdin, PollFlags::IN));
        }
        let pause = Timespec::try_from(PAUSE).ok();
        match poll(&mut fds, pause.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(CliError::Process { what: "cannot wait", source: io::Error::from(error) }),
        }
        let happened: Vec<PollFlags> = fds.iter().map(PollFd::revents).collect();
        let failed = |source| CliError::Process { what: "cannot read signals", source };
        if let Some(received) = self.signals.read().map_err(failed)? {
            return Ok(Woken::Signal(received.signal));
        }
        if happened.get(1).is_some_and(|e| e.intersects(PollFlags::ERR | PollFlags::HUP | PollFlags::NVAL)) {
            return Ok(Woken::Closed);
        }
        Ok(if happened.get(2).is_some_and(|e| !e.is_empty()) { Woken::Input } else { Woken::Time })
    }
}
