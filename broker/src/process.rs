//! How the process begins and ends.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use cellblock_sys::fds;
use cellblock_sys::process::{Fork, SingleThreaded, exit_now, run_with_only};
use rustix::event::{PollFd, PollFlags};
use rustix::fs::{CWD, FileType, Mode, OFlags};
use rustix::process::{DumpableBehavior, Pid, PidfdFlags, Signal, WaitOptions};

use crate::serve::serve;
use crate::settings::{AGENT, ANSWERS, CREDENTIALS, INSIDE, REQUESTS, Settings};

/// Why there is no such process.
#[derive(Debug, thiserror::Error)]
pub enum BrokerError {
    /// A file of its could not be made.
    #[error("cannot make {path}: {source}", path = path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// It could not be started.
    #[error("cannot start the process that answers the cell: {0}")]
    Process(#[from] io::Error),
}

/// Where it is asked.
#[derive(Debug)]
pub(crate) struct Doors {
    /// The calling process, in whose life it lives.
    pub(crate) guard: OwnedFd,
    pub(crate) agent: Option<UnixListener>,
    pub(crate) credentials: Option<UnixListener>,
    pub(crate) requests: Option<OwnedFd>,
}

/// Starts the process for a cell; it is known by what is returned. It lives as long as the calling process, whatever becomes of that one by
/// `execve(2)`, or until it is ended ([`end`]).
///
/// # Errors
/// See [`BrokerError`]; then nothing runs.
pub fn start(settings: &Settings, alone: &SingleThreaded) -> Result<OwnedFd, BrokerError> {
    let doors = doors(settings)?;
    let (ours, theirs) = UnixStream::pair()?;
    match alone.fork()? {
        Fork::Child => {
            // A session of its own: no key of the person's terminal ends it, and no program of theirs finds a terminal to ask on.
            let _ = rustix::process::setsid();
            // No child of the supervisor's: that one ends all of its children with the cell, and their children, such as a browser.
            match alone.fork() {
                Ok(Fork::Child) => child(settings, doors),
                Ok(Fork::Parent(pid)) => exit_now(i32::from(introduce(pid, &theirs).is_err())),
                Err(_) => exit_now(1),
            }
        }
        Fork::Parent(pid) => {
            drop(theirs);
            let ended = rustix::io::retry_on_intr(|| rustix::process::waitpid(Some(pid), WaitOptions::empty()));
            match ended.map_err(io::Error::from)?.and_then(|(_, status)| status.exit_status()) {
                Some(0) => Ok(meet(&ours)?),
                _ => Err(io::Error::other("it could not be forked").into()),
            }
        }
    }
}

/// Ends the process and waits until it is gone: it leaves no more files behind.
pub fn end(process: &OwnedFd) {
    let _ = rustix::process::pidfd_send_signal(process, Signal::KILL);
    let limit = rustix::time::Timespec { tv_sec: 1, tv_nsec: 0 };
    let _ = rustix::event::poll(&mut [PollFd::new(process, PollFlags::IN)], Some(&limit));
}

/// Hands over a descriptor of the child `pid`, which cannot be somebody else as long as nobody has collected it.
fn introduce(pid: Pid, to: &UnixStream) -> io::Result<()> {
    let pidfd = rustix::process::pidfd_open(pid, PidfdFlags::empty())?;
    fds::send(to, b"p", &[pidfd.as_fd()])
}

fn meet(from: &UnixStream) -> io::Result<OwnedFd> {
    let (_, fds) = fds::receive(from, &mut [0u8])?;
    fds.into_iter().next().ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
}

/// Makes the folder and what is in it. Everybody may write to what the cell sees, for its ids may be others than ours: who else could is kept out by
/// the folder around it.
fn doors(settings: &Settings) -> Result<Doors, BrokerError> {
    let inside = settings.folder.join(INSIDE);
    for (folder, mode) in [(&settings.folder, 0o700), (&inside, 0o755)] {
        make(folder, mode)?;
    }
    let guard = rustix::process::pidfd_open(rustix::process::getpid(), PidfdFlags::empty());
    let guard = guard.map_err(io::Error::from)?;
    let agent = settings.agent.is_some().then(|| listen(&inside, AGENT)).transpose()?;
    let credentials = (!settings.git.is_empty()).then(|| listen(&settings.folder, CREDENTIALS)).transpose()?;
    let requests = if settings.has_requests() {
        make(&inside.join(ANSWERS), 0o755)?;
        Some(pipe(&inside.join(REQUESTS))?)
    } else {
        None
    };
    Ok(Doors { guard, agent, credentials, requests })
}

fn failed<E: Into<io::Error>>(path: &Path) -> impl FnOnce(E) -> BrokerError {
    move |source| BrokerError::File { path: path.to_owned(), source: source.into() }
}

/// A folder with exactly this mode, whatever the umask is.
fn make(folder: &Path, mode: u32) -> Result<(), BrokerError> {
    rustix::fs::mkdir(folder, Mode::from_raw_mode(mode)).map_err(failed(folder))?;
    std::fs::set_permissions(folder, PermissionsExt::from_mode(mode)).map_err(failed(folder))
}

/// A listening socket; by descriptor, for a socket's path has at most 107 bytes (unix(7)).
fn listen(folder: &Path, name: &str) -> Result<UnixListener, BrokerError> {
    let path = folder.join(name);
    let at = rustix::fs::open(folder, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
    let at = at.map_err(failed(&path))?;
    let short = format!("/proc/self/fd/{}/{name}", std::os::fd::AsRawFd::as_raw_fd(&at));
    let listener = UnixListener::bind(&short).map_err(failed(&path))?;
    listener.set_nonblocking(true).map_err(failed(&path))?;
    std::fs::set_permissions(&short, PermissionsExt::from_mode(0o666)).map_err(failed(&path))?;
    Ok(listener)
}

/// A named pipe, open for reading and writing: so it never ends, and nobody who opens it waits.
fn pipe(path: &Path) -> Result<OwnedFd, BrokerError> {
    let mode = Mode::from_raw_mode(0o666);
    rustix::fs::mknodat(CWD, path, FileType::Fifo, mode, 0).map_err(failed(path))?;
    std::fs::set_permissions(path, PermissionsExt::from_mode(0o666)).map_err(failed(path))?;
    let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    rustix::fs::open(path, flags, Mode::empty()).map_err(failed(path))
}

/// The life of the process.
fn child(settings: &Settings, doors: Doors) -> ! {
    let Doors { guard, agent, credentials, requests } = &doors;
    let kept: Vec<_> = [
        Some(guard.as_fd()),
        agent.as_ref().map(AsFd::as_fd),
        credentials.as_ref().map(AsFd::as_fd),
        requests.as_ref().map(AsFd::as_fd),
    ]
    .into_iter()
    .flatten()
    .collect();
    run_with_only(&kept, || {
        let _ = rustix::thread::set_name(c"cellblock-broker");
        // It may hold a password for a moment: nobody without privilege is to look into it.
        let _ = rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable);
        let _ = rustix::process::chdir("/");
        rustix::process::umask(Mode::from_raw_mode(0o022));
        let code = take_no_streams().and_then(|()| serve(settings, &doors));
        exit_now(i32::from(code.is_err()))
    })
}

/// Whoever waits for the end of the cell's output must not wait for this process.
fn take_no_streams() -> io::Result<()> {
    let null = std::fs::OpenOptions::new().read(true).write(true).open("/dev/null")?;
    rustix::stdio::dup2_stdin(&null)?;
    rustix::stdio::dup2_stdout(&null)?;
    Ok(rustix::stdio::dup2_stderr(&null)?)
}
