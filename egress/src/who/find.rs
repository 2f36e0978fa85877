//! The helper: which process of a network namespace holds a socket.
//!
//! It needs no capability. A cell's user namespace belongs to the person and lies below the one that the helper is in, which is what `ptrace(2)`
//! asks for; of other processes the kernel tells nothing. What it reads never waits for the process it is about. Descriptors are read from
//! `fdinfo`, for `fd` only the process's own user may open; their inode numbers are there since Linux 5.14.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::fs::{CWD, Dir, Mode, OFlags, openat, readlinkat};
use rustix::net::{RecvFlags, SendFlags};

use crate::audit::Process;

/// How much of a processor's time a search may take. A cell can have any number of processes and files.
const LIMIT: Duration = Duration::from_millis(10);

/// The time that this thread has worked.
fn worked() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::try_from(now).unwrap_or_default()
}

/// Bytes of a question.
const LENGTH: usize = 16;

/// Bytes of the longest answer: two numbers, and the name of a program, of which the kernel keeps 15 bytes.
pub(super) const LONGEST: usize = 8 + 16;

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Question {
    /// Comes back in the answer.
    pub(super) number: u32,
    /// The inode number of the network namespace.
    pub(super) space: u64,
    /// The inode number of the socket.
    pub(super) socket: u32,
}

impl Question {
    pub(super) fn to_bytes(self) -> [u8; LENGTH] {
        let mut bytes = [0; LENGTH];
        bytes[..4].copy_from_slice(&self.number.to_ne_bytes());
        bytes[4..12].copy_from_slice(&self.space.to_ne_bytes());
        bytes[12..].copy_from_slice(&self.socket.to_ne_bytes());
        bytes
    }

    fn from_bytes(bytes: &[u8; LENGTH]) -> Option<Self> {
        Some(Self {
            number: u32::from_ne_bytes(*bytes.first_chunk()?),
            space: u64::from_ne_bytes(*bytes.get(4..)?.first_chunk()?),
            socket: u32::from_ne_bytes(*bytes.get(12..)?.first_chunk()?),
        })
    }
}

/// A process, and its name.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Found {
    /// Its id here.
    pid: u32,
    /// Its id inside.
    inside: u32,
    name: Vec<u8>,
}

/// Answers questions until the other end of `line`, a socket of packets, is closed.
pub fn serve(line: &OwnedFd) {
    let Some(sockets) = mount(line) else { return };
    let mut last = None;
    let mut bytes = [0; LENGTH];
    while let Ok((_, length)) = rustix::io::retry_on_intr(|| rustix::net::recv(line, &mut bytes, RecvFlags::empty())) {
        if length == 0 {
            return;
        }
        let Some(question) = Question::from_bytes(&bytes) else { continue };
        let found = search(&question, &sockets, last, worked() + LIMIT);
        last = found.as_ref().map(|found| found.pid).or(last);
        let mut answer = question.number.to_ne_bytes().to_vec();
        answer.extend(found.as_ref().map_or(0, |found| found.inside).to_ne_bytes());
        answer.extend(found.iter().flat_map(|found| found.name.iter().take(LONGEST - 8)));
        let _ = rustix::net::send(line, &answer, SendFlags::NOSIGNAL | SendFlags::DONTWAIT);
    }
}

/// The line by which `fdinfo` says that a file is a socket: all of them lie on one mount of the kernel's own.
fn mount(socket: &OwnedFd) -> Option<String> {
    use std::os::fd::AsRawFd;
    let path = std::ffi::CString::new(format!("/proc/self/fdinfo/{}", socket.as_raw_fd())).ok()?;
    let info = String::from_utf8(read(CWD, &path)?).ok()?;
    info.lines().find(|line| line.starts_with("mnt_id:")).map(str::to_owned)
}

/// The number of the question and what was found.
pub(super) fn answer(bytes: &[u8]) -> Option<(u32, Option<Process>)> {
    let number = u32::from_ne_bytes(*bytes.first_chunk()?);
    let pid = u32::from_ne_bytes(*bytes.get(4..)?.first_chunk()?);
    let name = String::from_utf8_lossy(bytes.get(8..)?).into_owned();
    Some((number, (pid != 0).then_some(Process { name, pid })))
}

/// Looks through the processes: the one that was found last first, then the youngest.
fn search(question: &Question, sockets: &str, last: Option<u32>, end: Duration) -> Option<Found> {
    let space = format!("net:[{}]", question.space).into_bytes();
    let socket = [sockets.to_owned(), format!("ino:\t{}", question.socket)];
    let proc = openat(CWD, c"/proc", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).ok()?;
    if let Some(found) = last.and_then(|pid| held(proc.as_fd(), pid, &space, &socket, end)) {
        return Some(found);
    }
    let mut pids: Vec<u32> = Dir::read_from(&proc).ok()?.flatten().filter_map(|e| number(e.file_name())).collect();
    pids.sort_unstable_by(|a, b| b.cmp(a));
    pids.into_iter().take_while(|_| worked() < end).find_map(|pid| held(proc.as_fd(), pid, &space, &socket, end))
}

fn number(name: &std::ffi::CStr) -> Option<u32> {
    name.to_str().ok()?.parse().ok()
}

/// The process `pid`, if it is of the namespace and holds the socket. All of it is asked of one descriptor, so that it is one process.
fn held(proc: BorrowedFd<'_>, pid: u32, space: &[u8], socket: &[String; 2], end: Duration) -> Option<Found> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let process = openat(proc, pid.to_string(), OFlags::PATH | flags, Mode::empty()).ok()?;
    if readlinkat(&process, c"ns/net", [0; 32]).ok()?.as_bytes() != space {
        return None;
    }
    let files = openat(&process, c"fdinfo", flags, Mode::empty()).ok()?;
    let is = |entry: &rustix::fs::DirEntry| {
        let info = read(&files, entry.file_name()).unwrap_or_default();
        let info = String::from_utf8_lossy(&info);
        socket.iter().all(|wanted| info.lines().any(|line| line == wanted))
    };
    Dir::read_from(&files).ok()?.flatten().take_while(|_| worked() < end).find(is)?;
    let mut name = read(&process, c"comm")?;
    // The kernel's newline; one within the name is the program's.
    name.pop();
    let status = String::from_utf8_lossy(&read(&process, c"status")?).into_owned();
    let ids = status.lines().find_map(|line| line.strip_prefix("NSpid:"))?;
    // Here, in the cell, and in namespaces inside of it.
    let mut ids = ids.split_ascii_whitespace().filter_map(|id| id.parse().ok());
    let here = ids.next()?;
    Some(Found { pid, inside: ids.next().unwrap_or(here), name })
}

/// The beginning of a file, as far as it is needed. Not by the standard library, where the C library chooses the system call, and may choose one
/// that this process's filter does not have.
fn read(process: impl AsFd, name: &std::ffi::CStr) -> Option<Vec<u8>> {
    let file = openat(process, name, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).ok()?;
    let mut bytes = vec![0; 2048];
    let length = rustix::io::read(&file, &mut bytes).ok()?;
    bytes.truncate(length);
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use rustix::net::{AddressFamily, SocketFlags, SocketType};

    use super::super::{Ends, Transport, Who, open};
    use super::*;

    fn space() -> u64 {
        rustix::fs::stat(c"/proc/self/ns/net").expect("a namespace").st_ino
    }

    #[test]
    fn who_holds_a_socket_is_found() {
        let (ours, theirs) =
            rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
                .expect("sockets");
        std::thread::scope(|scope| {
            // It ends with the other end.
            scope.spawn(|| serve(&theirs));
            let who = Who::new(open().expect("a socket"), ours, space());
            let one = UdpSocket::bind("127.0.0.1:0").expect("a port");
            let ends = |one: &UdpSocket| Ends {
                transport: Transport::Udp,
                cell: one.local_addr().expect("bound"),
                other: "127.0.0.1:9".parse().expect("an address"),
            };
            let found = who.holds(&ends(&one)).expect("this process");
            assert_eq!(found.pid, std::process::id());
            let name = std::fs::read_to_string("/proc/self/comm").expect("a name");
            assert_eq!(found.name, name.trim_end());
            assert_eq!(who.holds(&ends(&one)), Some(found));
            let gone = ends(&one);
            drop(one);
            assert_eq!(who.holds(&gone), None);
            let other = Who::new(open().expect("a socket"), who.inner.into_inner().expect("whole").helper, space() + 1);
            assert_eq!(
                other.holds(&ends(&UdpSocket::bind("127.0.0.1:0").expect("a port"))),
                None,
                "of another namespace"
            );
            for _ in 0..super::super::RATE {
                let _ = other.holds(&gone);
            }
            drop(other);
        });
    }

    #[test]
    fn a_question_is_understood_and_an_answer_too() {
        let question = Question { number: 7, space: u64::MAX - 1, socket: 12 };
        assert_eq!(Question::from_bytes(&question.to_bytes()), Some(question));
        let bytes = [7u32.to_ne_bytes().as_slice(), &9u32.to_ne_bytes(), b"a\x1b\xffb"].concat();
        let (number, process) = answer(&bytes).expect("an answer");
        assert_eq!((number, process.expect("found")), (7, Process { name: "a\u{1b}\u{fffd}b".into(), pid: 9 }));
        assert_eq!(answer(&bytes[..3]), None);
        assert_eq!(answer(&[0; 8]), Some((0, None)));
    }
}
