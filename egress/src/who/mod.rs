//! Which program of a cell a decision was about: told in the audit, and never part of a decision, for a program chooses its name itself.
//!
//! The kernel tells the number of the cell's socket (sock_diag(7)), and a helper finds who holds it ([`find`]). The helper is a process of its own
//! because it has to see the cell's processes, which whoever parses what a cell sends should not: it takes sixteen bytes, and reads `/proc`.

use std::io;
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};
use rustix::net::{RecvFlags, SendFlags};
use rustix::time::Timespec;

use crate::audit::Process;
use crate::gateway::{Way, sockets};

pub(crate) mod diag;
pub mod find;

/// Most questions a second. What is refused more often is told without a program.
const RATE: u32 = 10;

/// How long an answer may take. It takes a millisecond or two, and longer on a machine that has much to do.
const PATIENCE: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };

/// How the cell spoke.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Transport {
    /// By a connection.
    Tcp,
    /// By a datagram.
    Udp,
}

/// The two ends of what a cell sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ends {
    /// How it was sent.
    pub(crate) transport: Transport,
    /// The cell's.
    pub(crate) cell: SocketAddr,
    /// The other one, as the cell sees it.
    pub(crate) other: SocketAddr,
}

impl Ends {
    /// Those of a connection from the cell that was caught by `way`.
    pub(crate) fn of(client: &tokio::net::TcpStream, way: Way) -> Option<Self> {
        let (cell, other) = (client.peer_addr().ok()?, sockets::asked(client, way).ok()?);
        Some(Self { transport: Transport::Tcp, cell, other: other.into() })
    }
}

/// Who is asked.
#[derive(Debug)]
pub(crate) struct Who {
    inner: Mutex<Inner>,
    /// The number of the cell's network namespace.
    space: u64,
}

#[derive(Debug)]
struct Inner {
    /// Of the cell's network namespace.
    diag: OwnedFd,
    helper: OwnedFd,
    asked: u32,
    second: (Instant, u32),
}

impl Who {
    /// Asks `helper`, the other end of which is that of [`find::serve`], about sockets that `diag` sees.
    pub(crate) fn new(diag: OwnedFd, helper: OwnedFd, space: u64) -> Self {
        let inner = Inner { diag, helper, asked: 0, second: (Instant::now(), 0) };
        Self { inner: Mutex::new(inner), space }
    }

    /// The program that holds the cell's end, if that can be told in time. One at a time: nobody waits for somebody else's answer.
    pub(crate) fn holds(&self, ends: &Ends) -> Option<Process> {
        let mut inner = self.inner.try_lock().ok()?;
        if inner.second.0.elapsed() >= Duration::from_secs(1) {
            inner.second = (Instant::now(), 0);
        }
        inner.second.1 += 1;
        if inner.second.1 > RATE {
            return None;
        }
        let socket = diag::socket(&inner.diag, ends)?;
        inner.ask(find::Question { number: 0, space: self.space, socket })
    }
}

impl Inner {
    fn ask(&mut self, question: find::Question) -> Option<Process> {
        self.asked = self.asked.wrapping_add(1);
        let question = find::Question { number: self.asked, ..question };
        rustix::net::send(&self.helper, &question.to_bytes(), SendFlags::NOSIGNAL | SendFlags::DONTWAIT).ok()?;
        loop {
            let ready = rustix::event::poll(&mut [PollFd::new(&self.helper, PollFlags::IN)], Some(&PATIENCE)).ok()?;
            if ready == 0 {
                return None;
            }
            let mut buffer = [MaybeUninit::uninit(); find::LONGEST];
            let ((bytes, _), _) = rustix::net::recv(&self.helper, &mut buffer, RecvFlags::DONTWAIT).ok()?;
            if bytes.is_empty() {
                return None;
            }
            // Else the late answer to an earlier question.
            if let Some((number, process)) = find::answer(bytes)
                && number == self.asked
            {
                return process;
            }
        }
    }
}

/// A socket through which the kernel tells about those of the network namespace that this thread is in.
///
/// # Errors
/// Those of `socket(2)`.
pub(crate) fn open() -> io::Result<OwnedFd> {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, netlink};
    let (kind, flags) = (SocketType::RAW, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK);
    Ok(rustix::net::socket_with(AddressFamily::NETLINK, kind, flags, Some(netlink::SOCK_DIAG))?)
}
