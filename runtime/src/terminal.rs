//! The person's terminal: raw mode that is undone on every way out, window size, and copying to and from a cell's own terminal.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Mutex;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::termios::{OptionalActions, Termios, Winsize};

/// The settings to go back to, also from a panic: with `panic = "abort"` no destructor runs.
static SAVED: Mutex<Option<Termios>> = Mutex::new(None);

/// The person's terminal on standard input, in raw mode while this lives.
#[derive(Debug)]
pub(crate) struct RawMode(());

impl RawMode {
    /// Switches standard input to raw mode. `None` if it is no terminal, or one in whose foreground somebody else is, such as the person's shell.
    pub(crate) fn enter() -> io::Result<Option<Self>> {
        let stdin = rustix::stdio::stdin();
        if !rustix::termios::isatty(stdin) || is_anothers(stdin) {
            return Ok(None);
        }
        let saved = rustix::termios::tcgetattr(stdin)?;
        let mut raw = saved.clone();
        raw.make_raw();
        if let Ok(mut slot) = SAVED.lock() {
            if slot.is_none() {
                restore_on_panic();
            }
            *slot = Some(saved);
        }
        rustix::termios::tcsetattr(stdin, OptionalActions::Drain, &raw)?;
        Ok(Some(Self(())))
    }
}

/// Whether somebody else is in the foreground of our terminal, such as the person's shell.
pub(crate) fn is_anothers(terminal: BorrowedFd<'_>) -> bool {
    rustix::termios::tcgetpgrp(terminal).is_ok_and(|group| group != rustix::process::getpgrp())
}

impl Drop for RawMode {
    fn drop(&mut self) {
        restore();
    }
}

fn restore() {
    if let Ok(slot) = SAVED.try_lock()
        && let Some(saved) = slot.as_ref()
    {
        // From a background group this would stop us (SIGTTOU); blocked, the kernel lets it through.
        let _ = cellblock_sys::signal::SignalSet::of(&[crate::signals::TTOU]).block();
        let _ = rustix::termios::tcsetattr(rustix::stdio::stdin(), OptionalActions::Drain, saved);
    }
}

fn restore_on_panic() {
    let previous = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        restore();
        previous(info);
    }));
}

/// Gives a cell's terminal the size of the person's.
pub(crate) fn copy_size(to: BorrowedFd<'_>) {
    let size = [rustix::stdio::stdin(), rustix::stdio::stdout(), rustix::stdio::stderr()]
        .into_iter()
        .find_map(|fd| rustix::termios::tcgetwinsize(fd).ok())
        .filter(|size| size.ws_row > 0 && size.ws_col > 0)
        // What a terminal says that knows no size; programs divide by it.
        .unwrap_or(Winsize { ws_row: 24, ws_col: 80, ws_xpixel: 0, ws_ypixel: 0 });
    let _ = rustix::termios::tcsetwinsize(to, size);
}

/// Copies bytes one way, never blocking on the reading side and never holding more than one buffer.
///
/// The ends may be open file descriptions shared with other processes, whose flags must not be touched: so `O_NONBLOCK` is not
/// set, and a write happens only after `poll(2)` says it can, in pieces that a pipe takes whole ([`PIECE`]).
#[derive(Debug)]
pub(crate) struct Pump {
    from: OwnedFd,
    to: Option<OwnedFd>,
    buffer: Vec<u8>,
    done: usize,
    ended: bool,
}

/// At most `PIPE_BUF` bytes: when `poll(2)` says a pipe is writable, that much fits (pipe(7)).
const PIECE: usize = 4096;

impl Pump {
    pub(crate) fn new(from: OwnedFd, to: OwnedFd) -> Self {
        Self { from, to: Some(to), buffer: Vec::new(), done: 0, ended: false }
    }

    /// Whether it waits to read.
    pub(crate) fn wants_input(&self) -> bool {
        !self.ended && self.done == self.buffer.len()
    }

    /// Whether it waits to write.
    pub(crate) fn wants_output(&self) -> bool {
        self.done < self.buffer.len()
    }

    /// Where it reads.
    pub(crate) fn from(&self) -> BorrowedFd<'_> {
        self.from.as_fd()
    }

    /// Where it writes.
    pub(crate) fn to(&self) -> Option<BorrowedFd<'_>> {
        self.to.as_ref().map(AsFd::as_fd)
    }

    /// Whether nothing more will come.
    pub(crate) fn is_done(&self) -> bool {
        self.ended && !self.wants_output()
    }

    /// Reads once; at the end of the input the output is closed as soon as everything is written.
    pub(crate) fn read(&mut self) {
        self.buffer.resize(PIECE, 0);
        self.done = 0;
        match rustix::io::read(&self.from, &mut self.buffer) {
            Ok(length) if length > 0 => self.buffer.truncate(length),
            Err(Errno::INTR | Errno::AGAIN) => self.buffer.clear(),
            // EIO: the last holder of a terminal's other side has closed it, or the person's terminal is gone.
            Ok(_) | Err(_) => self.end(),
        }
    }

    /// Writes once.
    pub(crate) fn write(&mut self) {
        let Some(to) = &self.to else { return };
        match rustix::io::write(to, self.buffer.get(self.done..).unwrap_or_default()) {
            Ok(length) => self.done += length,
            Err(Errno::INTR | Errno::AGAIN) => {}
            Err(_) => self.end(),
        }
    }

    fn end(&mut self) {
        self.ended = true;
        self.buffer.clear();
        self.done = 0;
        self.to = None;
    }

    /// Copies what is still there, once the writer is known to be gone.
    pub(crate) fn drain(&mut self) {
        use rustix::event::{PollFd, PollFlags, poll};
        let now = rustix::time::Timespec { tv_sec: 0, tv_nsec: 0 };
        while !self.is_done() {
            if self.wants_output() {
                self.write();
                continue;
            }
            let mut fds = [PollFd::new(&self.from, PollFlags::IN)];
            match poll(&mut fds, Some(&now)) {
                Ok(n) if n > 0 => self.read(),
                _ => return,
            }
        }
    }
}

/// Another open file description of the same terminal, non-blocking, so that a stopped terminal (Ctrl-S) cannot stop the
/// supervisor; or a duplicate where that is not permitted.
pub(crate) fn writable_terminal(fd: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&fd));
    let flags = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    rustix::fs::open(path.as_str(), flags, Mode::empty()).or_else(|_| Ok(rustix::io::dup(fd)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pump_copies_everything_and_closes_behind_itself() {
        let (input, writer) = rustix::pipe::pipe().expect("pipe");
        let (reader, output) = rustix::pipe::pipe().expect("pipe");
        let sent: Vec<u8> = (0..=255u8).cycle().take(10_000).collect();
        rustix::io::write(&writer, &sent).expect("write");
        drop(writer);
        let mut pump = Pump::new(input, output);
        while !pump.is_done() {
            if pump.wants_output() { pump.write() } else { pump.read() }
        }
        let mut got = Vec::new();
        io::Read::read_to_end(&mut std::fs::File::from(reader), &mut got).expect("read");
        assert_eq!(got, sent);
    }
}
