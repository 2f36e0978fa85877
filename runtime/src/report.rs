//! What process 1 of a cell tells its supervisor: fixed-size messages on a `SOCK_SEQPACKET` socket.
//!
//! Process 1 is our own code, yet it lives in a hostile place: whatever arrives is checked, and the worst a forged message can do
//! is to misname why the cell ended.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::net::{RecvFlags, SendFlags};

/// How far the start inside had come when it failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Signals, descriptors, forking.
    Prepare = 1,
    /// Loading the seccomp filter.
    Seccomp = 2,
    /// `execve(2)` of the command.
    Exec = 3,
}

/// One message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Report {
    /// The command could not be started: where, and the errno.
    Failed(Stage, i32),
    /// The command was stopped by a signal (Ctrl-Z).
    Stopped,
}

impl Report {
    pub(crate) fn failed(stage: Stage, error: &io::Error) -> Self {
        Self::Failed(stage, error.raw_os_error().unwrap_or(0))
    }

    /// Best effort: if the supervisor is gone, the kernel ends the sender anyway.
    pub(crate) fn send(self, to: BorrowedFd<'_>) {
        let _ = rustix::net::send(to, &self.encode(), SendFlags::NOSIGNAL | SendFlags::DONTWAIT);
    }

    /// Whether nobody can send any more.
    pub(crate) fn is_closed(from: impl AsFd) -> bool {
        let mut byte = [0u8; 1];
        matches!(rustix::net::recv(from, &mut byte, RecvFlags::DONTWAIT | RecvFlags::PEEK), Ok((_, 0)))
    }

    /// The next message that is there, if any; ill-formed ones are passed over.
    pub(crate) fn receive(from: impl AsFd) -> Option<Self> {
        loop {
            let mut buffer = [0u8; 8];
            match rustix::net::recv(&from, &mut buffer, RecvFlags::DONTWAIT) {
                Ok((_, 0)) | Err(_) => return None,
                Ok((_, length)) => {
                    if let Some(report) = buffer.get(..length).and_then(Self::decode) {
                        return Some(report);
                    }
                }
            }
        }
    }

    fn encode(self) -> [u8; 5] {
        let (kind, errno) = match self {
            Self::Failed(stage, errno) => (stage as u8, errno),
            Self::Stopped => (0, 0),
        };
        let [a, b, c, d] = errno.to_le_bytes();
        [kind, a, b, c, d]
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let [kind, errno @ ..] = <[u8; 5]>::try_from(bytes).ok()?;
        let errno = i32::from_le_bytes(errno);
        match kind {
            0 => Some(Self::Stopped),
            1 => Some(Self::Failed(Stage::Prepare, errno)),
            2 => Some(Self::Failed(Stage::Seccomp, errno)),
            3 => Some(Self::Failed(Stage::Exec, errno)),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_survive_the_wire_and_nonsense_does_not() {
        for report in [Report::Stopped, Report::Failed(Stage::Exec, 2), Report::Failed(Stage::Seccomp, -1)] {
            assert_eq!(Report::decode(&report.encode()), Some(report));
        }
        for nonsense in [&b""[..], &[9, 0, 0, 0, 0], &[3, 0, 0], &[0; 8]] {
            assert_eq!(Report::decode(nonsense), None, "{nonsense:?}");
        }
    }
}
