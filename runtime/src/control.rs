//! The control socket: what other commands may ask a running supervisor to do.
//!
//! One `SOCK_SEQPACKET` message a request and one an answer, in JSON. The socket lies in a folder that only its owner may enter, and
//! the peer's user id is checked all the same (`SO_PEERCRED`, unix(7)).

use std::collections::BTreeMap;
use std::io::{self, Read, Seek, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use cellblock_egress::serve::Hidden;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType};
use rustix::process::{Pid, Signal};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::stdio::{receive_descriptor, send_descriptor};

/// What can be asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Request {
    /// End the command: `signal` now, `SIGKILL` after `grace_ms` milliseconds; after none that only. Answered when the cell has been cleaned away.
    Stop {
        /// Signal number.
        signal: i32,
        /// Milliseconds until `SIGKILL`.
        grace_ms: u64,
    },
    /// Hand over the cell's hidden variables, for another command in it. Answered with a memory file.
    Variables,
}

/// The answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "kebab-case")]
pub enum Answer {
    /// The cell has ended with this exit code.
    Stopped {
        /// Exit code, 128 + n for a signal.
        code: i32,
    },
}

/// Longest message in bytes.
const MAX_MESSAGE: usize = 4096;

/// Makes the socket at `path` and listens.
pub(crate) fn listen(path: &Path) -> io::Result<OwnedFd> {
    let socket = socket(SocketFlags::CLOEXEC | SocketFlags::NONBLOCK)?;
    rustix::net::bind(&socket, &SocketAddrUnix::new(path)?)?;
    rustix::net::listen(&socket, 16)?;
    Ok(socket)
}

/// Lets the supervisor `pid` of a living cell go on if it was stopped (Ctrl-Z): it would answer nobody.
fn wake(pid: i32) {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // Field 3; the second one is a name in parentheses (proc_pid_stat(5)).
    let is_stopped = stat.rsplit_once(')').is_some_and(|(_, rest)| rest.trim_start().starts_with('T'));
    if let Some(pid) = Pid::from_raw(pid).filter(|_| is_stopped) {
        let _ = rustix::process::kill_process(pid, Signal::CONT);
    }
}

/// Asks the supervisor `pid` of a living cell, behind `path`, and waits for its answer. It is woken if it was stopped, also while it is asked: a stop
/// signal that was sent before need not have arrived.
///
/// # Errors
/// Those of `socket(2)`, `connect(2)`, `send(2)`; `ConnectionAborted` if the supervisor ends without an answer.
pub fn ask(path: &Path, request: &Request, pid: i32) -> io::Result<Answer> {
    const LOOK: Timespec = Timespec { tv_sec: 0, tv_nsec: 50_000_000 };
    let socket = socket(SocketFlags::CLOEXEC)?;
    rustix::net::connect(&socket, &SocketAddrUnix::new(path)?)?;
    rustix::net::send(&socket, &serde_json::to_vec(request)?, SendFlags::NOSIGNAL)?;
    loop {
        wake(pid);
        let mut answer = [PollFd::new(&socket, PollFlags::IN)];
        if rustix::io::retry_on_intr(|| rustix::event::poll(&mut answer, Some(&LOOK)))? > 0 {
            break;
        }
    }
    let mut buffer = vec![0u8; MAX_MESSAGE];
    let (_, length) =
        rustix::io::retry_on_intr(|| rustix::net::recv(&socket, buffer.as_mut_slice(), RecvFlags::empty()))?;
    if length == 0 {
        return Err(io::ErrorKind::ConnectionAborted.into());
    }
    Ok(serde_json::from_slice(buffer.get(..length).unwrap_or_default())?)
}

/// How long a supervisor may take to answer at once: one that was stopped with its command (Ctrl-Z) does not.
const PATIENCE: Duration = Duration::from_secs(5);

/// The values of the cell's hidden variables, from the supervisor behind `path`: they are nowhere else but in the command itself.
///
/// # Errors
/// As [`ask`]; `WouldBlock` if there is no answer for seconds.
pub fn variables(path: &Path) -> io::Result<BTreeMap<String, Hidden>> {
    let socket = socket(SocketFlags::CLOEXEC)?;
    rustix::net::sockopt::set_socket_timeout(&socket, rustix::net::sockopt::Timeout::Recv, Some(PATIENCE))?;
    rustix::net::connect(&socket, &SocketAddrUnix::new(path)?)?;
    rustix::net::send(&socket, &serde_json::to_vec(&Request::Variables)?, SendFlags::NOSIGNAL)?;
    let mut text = Zeroizing::new(Vec::new());
    std::fs::File::from(receive_descriptor(socket.as_fd())?).read_to_end(&mut text)?;
    Ok(serde_json::from_slice(&text)?)
}

/// Answers [`Request::Variables`], best effort. In a memory file, because a message has a largest size and variables have not.
pub(crate) fn hand_over(client: impl AsFd, hidden: &BTreeMap<String, Hidden>) {
    let hand = || -> io::Result<()> {
        let text = Zeroizing::new(serde_json::to_vec(hidden)?);
        let mut file = std::fs::File::from(rustix::fs::memfd_create(c"variables", rustix::fs::MemfdFlags::CLOEXEC)?);
        file.write_all(&text)?;
        file.rewind()?;
        send_descriptor(client.as_fd(), file.as_fd())
    };
    let _ = hand();
}

fn socket(flags: SocketFlags) -> io::Result<OwnedFd> {
    Ok(rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?)
}

/// Takes one connection from another process of the same user, or of root.
pub(crate) fn accept(listener: impl AsFd) -> Option<OwnedFd> {
    let client = rustix::net::accept_with(&listener, SocketFlags::CLOEXEC).ok()?;
    let peer = rustix::net::sockopt::socket_peercred(&client).ok()?;
    (peer.uid.is_root() || peer.uid == rustix::process::geteuid()).then_some(client)
}

/// Reads the request of a client; `None` if it sent nothing that makes sense.
pub(crate) fn receive(client: impl AsFd) -> Option<Request> {
    let mut buffer = vec![0u8; MAX_MESSAGE];
    let (_, length) = rustix::net::recv(&client, buffer.as_mut_slice(), RecvFlags::empty()).ok()?;
    decode(buffer.get(..length)?)
}

/// A request in its wire form.
fn decode(bytes: &[u8]) -> Option<Request> {
    serde_json::from_slice(bytes).ok()
}

/// Sends the answer, best effort: a client that has gone away does not matter.
pub(crate) fn answer(client: impl AsFd, answer: &Answer) {
    if let Ok(text) = serde_json::to_vec(answer) {
        let _ = rustix::net::send(client, &text, SendFlags::NOSIGNAL | SendFlags::DONTWAIT);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_requests_we_know_are_taken() {
        assert_eq!(
            decode(br#"{"request":"stop","signal":15,"grace_ms":10}"#),
            Some(Request::Stop { signal: 15, grace_ms: 10 })
        );
        for nonsense in
            [&b""[..], b"{}", br#"{"request":"stop"}"#, br#"{"request":"stop","signal":15,"grace_ms":10,"more":1}"#]
        {
            assert_eq!(decode(nonsense), None);
        }
    }
}
