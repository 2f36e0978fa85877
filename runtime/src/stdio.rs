//! Where a cell's standard streams go.
//!
//! With a terminal, the cell has a pseudo-terminal of its own and bytes are copied between it and the person's. Without, files and
//! pipes are handed over as they are, byte-exact and without a copy; but a *terminal* of the host is never handed over: who
//! holds it can read what the person types elsewhere in it. Such a stream becomes a pipe.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use cellblock_sys::fds;
use rustix::fs::Mode;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use crate::terminal::{self, Pump, RawMode};

/// The streams of one command.
#[derive(Debug, Default)]
pub(crate) struct Stdio {
    inner: [Option<OwnedFd>; 3],
    console: Option<Console>,
    /// Copies under way.
    pub(crate) pumps: Vec<Pump>,
    master: Option<OwnedFd>,
    raw: Option<RawMode>,
    /// The person types at a terminal: the end of its input is a hang-up, also if it is gone before raw mode could be entered.
    typed: bool,
}

/// The socket over which a pseudo-terminal's controlling side arrives.
#[derive(Debug)]
struct Console {
    listener: OwnedFd,
    path: PathBuf,
}

impl Stdio {
    /// Streams for a command that libcontainer starts; with a terminal, it will be sent to a socket in `folder`.
    pub(crate) fn prepare(terminal: bool, folder: &Path) -> io::Result<Self> {
        let mut stdio = Self::default();
        if terminal {
            stdio.typed = rustix::termios::isatty(rustix::stdio::stdin());
            stdio.console = Some(Console::listen(folder.join("console.sock"))?);
        } else {
            stdio.replace_terminals()?;
        }
        Ok(stdio)
    }

    /// Streams for a command without a terminal that starts by itself.
    pub(crate) fn plain() -> io::Result<Self> {
        let mut stdio = Self::default();
        stdio.replace_terminals()?;
        Ok(stdio)
    }

    /// Where the console socket is, if there is one.
    pub(crate) fn console_path(&self) -> Option<PathBuf> {
        self.console.as_ref().map(|c| c.path.clone())
    }

    /// What the command gets for its streams, where it is not ours.
    pub(crate) fn take_inner(&mut self) -> [Option<OwnedFd>; 3] {
        std::mem::take(&mut self.inner)
    }

    /// Takes the pseudo-terminal that libcontainer has sent, if there is to be one.
    pub(crate) fn connect(&mut self) -> io::Result<()> {
        let Some(console) = self.console.take() else { return Ok(()) };
        let master = console.receive()?;
        let _ = std::fs::remove_file(&console.path);
        self.attach(master)
    }

    /// Joins `master` with the person's terminal.
    pub(crate) fn attach(&mut self, master: OwnedFd) -> io::Result<()> {
        terminal::copy_size(master.as_fd());
        self.typed |= rustix::termios::isatty(rustix::stdio::stdin());
        // A terminal that has gone away in the meantime cannot be switched; the end of its input tells.
        self.raw = RawMode::enter().ok().flatten();
        let stdout = terminal::writable_terminal(rustix::stdio::stdout())?;
        self.pumps.push(Pump::new(duplicate(&master)?, stdout));
        self.pumps.push(Pump::new(duplicate(rustix::stdio::stdin())?, duplicate(&master)?));
        self.master = Some(master);
        Ok(())
    }

    /// The person's window has another size.
    pub(crate) fn resize(&self) {
        if let Some(master) = &self.master {
            terminal::copy_size(master.as_fd());
        }
    }

    /// Gives the terminal back, before the person's shell takes over for a while.
    pub(crate) fn suspend(&mut self) {
        self.raw = None;
    }

    /// Takes it again, if it was given back: what a terminal in raw mode is to be set to at the end must not be asked of itself.
    pub(crate) fn resume(&mut self) {
        if self.master.is_some() && self.raw.is_none() {
            self.raw = RawMode::enter().ok().flatten();
            self.resize();
        }
    }

    /// Whether this pump reads what the person types, if it reads a terminal at all.
    pub(crate) fn is_typed(&self, pump: usize) -> bool {
        pump == usize::from(self.master.is_some())
    }

    /// Whether what this pump would read is typed for somebody else: who reads a terminal from its background is stopped (SIGTTIN), though the line may be
    /// gone before.
    pub(crate) fn is_anothers(&self, pump: usize) -> bool {
        self.is_typed(pump) && terminal::is_anothers(rustix::stdio::stdin())
    }

    /// Whether the person's terminal has gone away: its input has ended, which a terminal's only does at a hang-up.
    pub(crate) fn hung_up(&self) -> bool {
        self.typed && self.pumps.get(1).is_some_and(Pump::is_done)
    }

    /// Copies what the command has left behind, and gives the terminal back.
    pub(crate) fn finish(&mut self) {
        let ours = self.master.is_some();
        for (index, pump) in self.pumps.iter_mut().enumerate() {
            // Not what the person has typed ahead: that belongs to their shell.
            if !(ours && index == 1) {
                pump.drain();
            }
        }
        self.pumps.clear();
        self.raw = None;
    }

    fn replace_terminals(&mut self) -> io::Result<()> {
        let pipe = || rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC);
        let is_terminal = |fd: BorrowedFd<'_>| rustix::termios::isatty(fd);
        if is_terminal(rustix::stdio::stdin()) {
            let (read, write) = pipe()?;
            self.inner[0] = Some(read);
            self.pumps.push(Pump::new(duplicate(rustix::stdio::stdin())?, write));
        }
        for (index, fd) in [(1, rustix::stdio::stdout()), (2, rustix::stdio::stderr())] {
            if is_terminal(fd) {
                let (read, write) = pipe()?;
                self.inner[index] = Some(write);
                self.pumps.push(Pump::new(read, terminal::writable_terminal(fd)?));
            }
        }
        Ok(())
    }
}

impl Console {
    fn listen(path: PathBuf) -> io::Result<Self> {
        let listener = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
        rustix::net::bind(&listener, &SocketAddrUnix::new(&path)?)?;
        // Under real root it is the cell's root who connects; the folder above lets only that one in.
        rustix::fs::chmod(&path, Mode::from_raw_mode(0o666))?;
        rustix::net::listen(&listener, 1)?;
        Ok(Self { listener, path })
    }

    fn receive(&self) -> io::Result<OwnedFd> {
        let peer = rustix::net::accept_with(&self.listener, SocketFlags::CLOEXEC)?;
        receive_descriptor(peer.as_fd())
    }
}

/// Takes one descriptor from a socket.
pub(crate) fn receive_descriptor(socket: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let (_, fds) = fds::receive(socket, &mut [0u8; 256])?;
    fds.into_iter().next().ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
}

/// Sends a descriptor over `socket`.
pub(crate) fn send_descriptor(socket: BorrowedFd<'_>, fd: BorrowedFd<'_>) -> io::Result<()> {
    fds::send(socket, b"t", &[fd])
}

/// A close-on-exec duplicate above the standard streams.
pub(crate) fn duplicate(fd: impl AsFd) -> io::Result<OwnedFd> {
    Ok(rustix::io::fcntl_dupfd_cloexec(fd, 3)?)
}
