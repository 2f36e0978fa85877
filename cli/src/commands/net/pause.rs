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

/// Somebody who waits.
#[derive(Debug)]
pub(super) struct Pause {
    signals: Option<SignalFd>,
}

impl Pause {
    /// Signals do what they always do: they also end a write that nobody reads on.
    pub(super) fn new() -> Self {
        Self { signals: None }
    }

    /// Signals are data from here on: a terminal has to be given back before they are obeyed.
    pub(super) fn with_signals() -> Result<Self, CliError> {
        let wanted = [Signal::INT, Signal::TERM, Signal::HUP, Signal::QUIT, Signal::TSTP, Signal::CONT];
        let set = SignalSet::of(&wanted.map(Signal::as_raw));
        let failed = |source| CliError::Process { what: "cannot wait for signals", source };
        set.block().map_err(failed)?;
        Ok(Self { signals: Some(SignalFd::new(&set).map_err(failed)?) })
    }

    /// Waits for a moment; with `input` for keys too.
    pub(super) fn next(&self, input: bool) -> Result<Woken, CliError> {
        let stdin = rustix::stdio::stdin();
        let stdout = rustix::stdio::stdout();
        // No event is asked for: an error, such as a pipe without a reader, is always told (poll(2)).
        let mut fds = vec![PollFd::from_borrowed_fd(stdout, PollFlags::empty())];
        if input {
            fds.push(PollFd::from_borrowed_fd(stdin, PollFlags::IN));
        }
        fds.extend(self.signals.iter().map(|signals| PollFd::from_borrowed_fd(signals.as_fd(), PollFlags::IN)));
        let pause = Timespec::try_from(PAUSE).ok();
        match poll(&mut fds, pause.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(CliError::Process { what: "cannot wait", source: io::Error::from(error) }),
        }
        let happened: Vec<PollFlags> = fds.iter().map(PollFd::revents).collect();
        let failed = |source| CliError::Process { what: "cannot read signals", source };
        if let Some(received) = self.signals.as_ref().map_or(Ok(None), SignalFd::read).map_err(failed)? {
            return Ok(Woken::Signal(received.signal));
        }
        if happened.first().is_some_and(|e| e.intersects(PollFlags::ERR | PollFlags::HUP | PollFlags::NVAL)) {
            return Ok(Woken::Closed);
        }
        Ok(if input && happened.get(1).is_some_and(|e| !e.is_empty()) { Woken::Input } else { Woken::Time })
    }
}
