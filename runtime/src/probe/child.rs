//! Doing something in a child that may break whatever it likes of itself, and hearing how it went.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use cellblock_bundle::{Extent, IdScheme, Ids};
use cellblock_sys::namespace;
use cellblock_sys::process::{Fork, SingleThreaded, exit_now};
use rustix::event::{PollFd, PollFlags};
use rustix::fs::{Mode, OFlags};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Gid, Pid, Signal, Uid, WaitOptions};
use rustix::thread::UnshareFlags;
use serde::{Deserialize, Serialize};

use crate::outer::{self, OuterError, map_text};

/// What went wrong in a child.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Failure {
    /// What was tried.
    pub(super) what: String,
    /// The error number; 0 if there is none.
    pub(super) errno: i32,
    /// The error in words.
    pub(super) words: String,
}

impl Failure {
    pub(super) fn new(what: impl Into<String>, error: impl Into<io::Error>) -> Self {
        let error = error.into();
        Self { what: what.into(), errno: error.raw_os_error().unwrap_or(0), words: error.to_string() }
    }

    pub(super) fn is(&self, errno: rustix::io::Errno) -> bool {
        self.errno == errno.raw_os_error()
    }

    /// Permission was denied in one way or another.
    pub(super) fn denied(&self) -> bool {
        self.is(rustix::io::Errno::PERM) || self.is(rustix::io::Errno::ACCESS)
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.what, self.words)
    }
}

/// For `map_err`.
pub(super) fn failed<E: Into<io::Error>>(what: &str) -> impl FnOnce(E) -> Failure + '_ {
    move |error| Failure::new(what, error)
}

pub(super) type Outcome = Result<String, Failure>;

/// How long a probe may take.
pub(super) const PATIENCE: Duration = Duration::from_secs(15);

/// Ends the child where `work` would return or unwind into frames that are the parent's.
struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        exit_now(101)
    }
}

/// Does `work` in a child, which gets a process group of its own and is killed with all of it if it takes too long.
pub(super) fn in_child(alone: &SingleThreaded, work: impl FnOnce(&SingleThreaded) -> Outcome) -> Outcome {
    let (read, write) = pipe_with(PipeFlags::CLOEXEC).map_err(failed("pipe"))?;
    match alone.fork().map_err(failed("fork"))? {
        Fork::Child => {
            let _bomb = Bomb;
            drop(read);
            let _ = rustix::process::setpgid(None, None);
            let _ = rustix::process::set_parent_process_death_signal(Some(Signal::KILL));
            tell(write, &work(alone));
            exit_now(0)
        }
        Fork::Parent(child) => {
            drop(write);
            let outcome = hear(read);
            // The group first, while its leader still keeps the number from being used again.
            let _ = rustix::process::kill_process_group(child, Signal::KILL);
            let _ = rustix::process::kill_process(child, Signal::KILL);
            let _ = rustix::io::retry_on_intr(|| rustix::process::waitpid(Some(child), WaitOptions::empty()));
            outcome
        }
    }
}

fn tell(to: OwnedFd, outcome: &Outcome) {
    let mut line = serde_json::to_vec(outcome).unwrap_or_default();
    line.push(b'\n');
    let _ = File::from(to).write_all(&line);
}

/// One line: the end of the pipe would be when the last grandchild ends.
fn hear(from: OwnedFd) -> Outcome {
    let end = Instant::now() + PATIENCE;
    let mut text = Vec::new();
    let mut from = File::from(from);
    while text.last() != Some(&b'\n') {
        let left = end.saturating_duration_since(Instant::now());
        let timeout = rustix::time::Timespec { tv_sec: i64::try_from(left.as_secs()).unwrap_or(0), tv_nsec: 1_000_000 };
        let mut poll = [PollFd::new(&from, PollFlags::IN)];
        let ready = rustix::io::retry_on_intr(|| rustix::event::poll(&mut poll, Some(&timeout)));
        if ready.map_err(failed("poll"))? == 0 {
            if left.is_zero() {
                return Err(Failure::new("the probe took too long", rustix::io::Errno::TIMEDOUT));
            }
            continue;
        }
        let mut buffer = [0u8; 4096];
        match from.read(&mut buffer).map_err(failed("read"))? {
            0 => break,
            n => text.extend_from_slice(buffer.get(..n).unwrap_or_default()),
        }
    }
    serde_json::from_slice(&text)
        .unwrap_or_else(|_| Err(Failure { what: "the probe".into(), errno: 0, words: "died without a word".into() }))
}

/// Enters OUTER with `ids`, as a start does.
pub(super) fn enter(ids: &Ids, alone: &SingleThreaded) -> Result<(), Failure> {
    outer::enter(ids, alone).map_err(|error| match error {
        OuterError::Process(e) => Failure::new("processes", e),
        OuterError::Unshare(e) => Failure::new(UNSHARE, e),
        OuterError::NoCapabilities(e) => Failure::new(CAPABILITIES, e),
        OuterError::WriteMap { file, source } => Failure::new(format!("{MAP} {file}"), source),
        OuterError::MapRefused { program, detail } => {
            // They begin with their own name as well.
            let words = detail.strip_prefix(program).map_or(detail.as_str(), |d| d.trim_start_matches([':', ' ']));
            Failure { what: program.into(), errno: 0, words: words.to_owned() }
        }
        OuterError::Exec(e) => Failure::new("exec", e),
    })
}

/// What [`enter`] and [`in_cell`] may fail at.
pub(super) const UNSHARE: &str = "making a user namespace";
pub(super) const CAPABILITIES: &str = "mounting in it";
pub(super) const MAP: &str = "writing";

/// In OUTER, makes the CELL's user namespace as a builder does, with `more` namespaces, and does `work` in it.
pub(super) fn in_cell(
    alone: &SingleThreaded,
    ids: &Ids,
    more: UnshareFlags,
    work: impl FnOnce(&SingleThreaded) -> Outcome,
) -> Outcome {
    let cell = CellChild::start(alone, ids, more, work)?;
    hear(cell.from.try_clone().map_err(failed("pipe"))?)
}

/// A child in a CELL's user namespace. Dropping ends it.
pub(super) struct CellChild {
    pid: Pid,
    from: OwnedFd,
}

impl Drop for CellChild {
    fn drop(&mut self) {
        let _ = rustix::process::kill_process(self.pid, Signal::KILL);
        let _ = rustix::io::retry_on_intr(|| rustix::process::waitpid(Some(self.pid), WaitOptions::empty()));
    }
}

impl CellChild {
    pub(super) fn start(
        alone: &SingleThreaded,
        ids: &Ids,
        more: UnshareFlags,
        work: impl FnOnce(&SingleThreaded) -> Outcome,
    ) -> Result<Self, Failure> {
        let pipe = || pipe_with(PipeFlags::CLOEXEC).map_err(failed("pipe"));
        let ((wait, go), (from, to)) = (pipe()?, pipe()?);
        match alone.fork().map_err(failed("fork"))? {
            Fork::Child => {
                let _bomb = Bomb;
                drop((go, from));
                let _ = rustix::process::set_parent_process_death_signal(Some(Signal::KILL));
                let outcome = become_cell(ids, more, &mut File::from(wait), &to).and_then(|()| work(alone));
                tell(to, &outcome);
                exit_now(0)
            }
            Fork::Parent(pid) => {
                drop((wait, to));
                let child = Self { pid, from };
                child.map(ids, &mut File::from(go))?;
                Ok(child)
            }
        }
    }

    /// Its user namespace, as a descriptor.
    pub(super) fn user_namespace(&self) -> Result<OwnedFd, Failure> {
        let path = format!("/proc/{}/ns/user", self.pid.as_raw_nonzero());
        rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
            .map_err(failed("opening a user namespace"))
    }

    /// The parent's part: the maps, once the namespace exists.
    fn map(&self, ids: &Ids, go: &mut File) -> Result<(), Failure> {
        let mut byte = [0u8];
        let mut from = File::from(self.from.try_clone().map_err(failed("pipe"))?);
        // Anything but the mark is the beginning of a failure, told as JSON.
        let begun = from.read(&mut byte).map_err(failed("pipe"))?;
        if begun != 1 || byte != *b"m" {
            let mut text = byte.get(..begun).unwrap_or_default().to_vec();
            from.take(65_536).read_to_end(&mut text).map_err(failed("pipe"))?;
            let told: Option<Outcome> = serde_json::from_slice(&text).ok();
            return Err(told
                .and_then(Result::err)
                .unwrap_or_else(|| Failure::new(UNSHARE, io::ErrorKind::UnexpectedEof)));
        }
        for (file, extents) in [("uid_map", &ids.uids), ("gid_map", &ids.gids)] {
            let inner: Vec<Extent> = match ids.rootless() {
                true => extents.iter().map(|e| Extent { outside: e.inside, ..*e }).collect(),
                false => extents.clone(),
            };
            let path = format!("/proc/{}/{file}", self.pid.as_raw_nonzero());
            std::fs::write(path, map_text(&inner)).map_err(|e| Failure::new(format!("{MAP} the cell's {file}"), e))?;
        }
        go.write_all(b"g").map_err(failed("pipe"))
    }
}

fn become_cell(ids: &Ids, more: UnshareFlags, wait: &mut File, tell: &OwnedFd) -> Result<(), Failure> {
    namespace::unshare(UnshareFlags::NEWUSER).map_err(failed(UNSHARE))?;
    rustix::io::write(tell, b"m").map_err(failed("pipe"))?;
    wait.read_exact(&mut [0]).map_err(failed(MAP))?;
    if ids.scheme == IdScheme::Shifted {
        rustix::thread::set_thread_groups(&[]).map_err(failed("setgroups"))?;
        rustix::thread::set_thread_res_gid(Gid::ROOT, Gid::ROOT, Gid::ROOT).map_err(failed("setgid"))?;
        rustix::thread::set_thread_res_uid(Uid::ROOT, Uid::ROOT, Uid::ROOT).map_err(failed("setuid"))?;
    }
    if more.is_empty() { Ok(()) } else { namespace::unshare(more).map_err(failed("making its namespaces")) }
}
