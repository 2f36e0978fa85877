//! The process that keeps files in step while a cell runs (`cellblock-keep`): it watches both sides' folders, and settles what has changed.
//!
//! Which file an event was about does not matter: everything is looked at, which is a few system calls (and a file that was just written is read), and
//! nothing is lost when the kernel's queue is full. Where nothing can be watched it looks four times a second.

use std::io::{self, BufRead, BufReader, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use cellblock_bundle::Cell;
use cellblock_sys::process::{Fork, SingleThreaded, exit_now, run_with_only};
use rustix::event::{PollFd, PollFlags};
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use rustix::process::{Pid, PidfdFlags};

use super::pair::Pair;
use super::tree::{Follow, Taking};
use super::{KeepError, Laid, Mirror, magic, open_folder, tree};

/// How often it looks where it cannot watch.
const PERIOD: Duration = Duration::from_millis(250);

/// How long it may take to bring the last changes home.
const FAREWELL: Duration = Duration::from_millis(500);

/// Most processes for one cell: what dies that often is not helped by another.
const MOST_RESTARTS: u32 = 16;

/// What changes a name in a folder, or has changed a file in it.
const CHANGES: WatchFlags = WatchFlags::CLOSE_WRITE
    .union(WatchFlags::MOVED_TO)
    .union(WatchFlags::MOVED_FROM)
    .union(WatchFlags::CREATE)
    .union(WatchFlags::DELETE)
    .union(WatchFlags::ONLYDIR);

/// The process of one cell, and what another one takes to be made if it dies.
#[derive(Debug)]
pub(crate) struct Keeper {
    laid: Laid,
    alone: SingleThreaded,
    process: Option<Process>,
    restarts: u32,
}

#[derive(Debug)]
struct Process {
    pidfd: OwnedFd,
    line: BufReader<UnixStream>,
}

impl Keeper {
    /// Starts it for the cell whose first process is `init`, if there is anything to do, and waits until both sides are in step.
    pub(crate) fn start(
        mut laid: Laid,
        cell: &Cell,
        init: Pid,
        alone: &SingleThreaded,
        tell: &mut dyn FnMut(&str),
    ) -> Result<Self, KeepError> {
        laid.open_root(cell, init)?;
        let mut keeper = Self { laid, alone: alone.clone(), process: None, restarts: 0 };
        let mut notes = std::mem::take(&mut keeper.laid.notes);
        if keeper.laid.has_files() {
            let (process, more) = Process::start(&keeper.laid, alone).map_err(KeepError::Process)?;
            keeper.process = Some(process);
            notes.extend(more);
        }
        for note in notes {
            tell(&note);
        }
        Ok(keeper)
    }

    /// Makes another process if the one there was has died.
    pub(crate) fn mend(&mut self) {
        if self.process.as_ref().is_some_and(Process::has_died) {
            self.process = None;
            self.restarts += 1;
            if self.restarts < MOST_RESTARTS {
                self.process = Process::start(&self.laid, &self.alone).ok().map(|(process, _)| process);
            }
        }
    }
}

impl Process {
    fn start(laid: &Laid, alone: &SingleThreaded) -> io::Result<(Self, Vec<String>)> {
        let (ours, theirs) = UnixStream::pair()?;
        match alone.fork()? {
            Fork::Child => {
                let mut kept = vec![theirs.as_fd()];
                for pair in &laid.pairs {
                    kept.extend([pair.host.folder.as_fd(), pair.own.folder.as_fd()]);
                }
                kept.extend(laid.mirrors.iter().map(|mirror| mirror.own.as_fd()));
                run_with_only(&kept, || child(laid, &theirs))
            }
            Fork::Parent(pid) => {
                drop(theirs);
                let pidfd = rustix::process::pidfd_open(pid, PidfdFlags::empty())?;
                let mut process = Self { pidfd, line: BufReader::new(ours) };
                let mut answer = String::new();
                process.line.read_line(&mut answer)?;
                let notes = serde_json::from_str(&answer).map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
                Ok((process, notes))
            }
        }
    }

    fn has_died(&self) -> bool {
        let now = rustix::time::Timespec { tv_sec: 0, tv_nsec: 0 };
        rustix::event::poll(&mut [PollFd::new(&self.pidfd, PollFlags::IN)], Some(&now)).is_ok_and(|count| count > 0)
    }
}

impl Drop for Process {
    /// Ends it once it has brought the last changes home. Its watches, over whose end the kernel takes milliseconds, nobody waits for.
    fn drop(&mut self) {
        crate::reap::farewell(self.line.get_ref(), FAREWELL);
    }
}

/// The life of the process. It ends when the supervisor closes its end or is gone, and looks once more then: no signal is to keep it from that.
fn child(laid: &Laid, line: &UnixStream) -> ! {
    let _ = rustix::thread::set_name(c"cellblock-keep");
    let code = match run(laid, line) {
        Ok(()) => 0,
        Err(_) => crate::exit::OURS,
    };
    exit_now(code)
}

fn run(laid: &Laid, mut line: &UnixStream) -> io::Result<()> {
    crate::network::take_no_streams()?;
    let mut watch = Watch::new(&laid.pairs);
    let (mut notes, mut again) = settle(laid, watch.as_mut().ok());
    if let Err(error) = &watch {
        notes.push(format!(
            "changes of the agent's files cannot be watched ({error}); they are looked for every {} ms; `sysctl fs.inotify` has the limits",
            PERIOD.as_millis()
        ));
    }
    let text = serde_json::to_string(&notes)?;
    line.write_all(text.as_bytes())?;
    line.write_all(b"\n")?;
    loop {
        let period = rustix::time::Timespec { tv_sec: 0, tv_nsec: i64::try_from(PERIOD.as_nanos()).unwrap_or(0) };
        let over = match &watch {
            Ok(watch) => wait(line, Some(&watch.inotify), again.then_some(&period))?,
            Err(_) => wait(line, None, Some(&period))?,
        };
        if let Ok(watch) = &watch {
            watch.drain();
        }
        (_, again) = settle(laid, watch.as_mut().ok());
        if over {
            laid.pairs.iter().for_each(Pair::leave);
            crate::reap::done(line);
            return Ok(());
        }
    }
}

/// Waits for a change; true when the supervisor is gone.
fn wait(line: &UnixStream, inotify: Option<&OwnedFd>, limit: Option<&rustix::time::Timespec>) -> io::Result<bool> {
    let mut fds = vec![PollFd::new(line, PollFlags::IN)];
    fds.extend(inotify.map(|inotify| PollFd::new(inotify, PollFlags::IN)));
    match rustix::event::poll(&mut fds, limit) {
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(!fds[0].revents().is_empty()),
        Err(error) => Err(error.into()),
    }
}

/// Brings everything in step; what could not be, in words, and whether that may be otherwise in a moment without an event that tells so.
fn settle(laid: &Laid, mut watch: Option<&mut Watch>) -> (Vec<String>, bool) {
    let (mut notes, mut again) = (Vec::new(), false);
    for pair in &laid.pairs {
        if let Err(error) = pair.settle() {
            again |= matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::ResourceBusy);
            notes.push(format!("{} is not kept in step: {error}", pair.own.name.display()));
        }
    }
    for mirror in &laid.mirrors {
        if let Err(error) = mirror.settle(watch.as_deref_mut()) {
            notes.push(format!("{} is not kept in step: {error}", mirror.host.display()));
        }
    }
    (notes, again)
}

impl Mirror {
    fn settle(&self, watch: Option<&mut Watch>) -> io::Result<()> {
        // By its path, each time: the folder itself may be replaced.
        let top = self.links.end_of(&self.host)?;
        let host = open_folder(&top)?;
        let taking = Taking { hidden: &self.hidden, owner: self.owner, links: &self.links, follow: Follow::Always };
        let again = watch.is_some();
        let mut seen = self.seen.borrow_mut();
        let taken = tree::take(host.as_fd(), &top, self.own.as_fd(), &seen, taking, again)?;
        *seen = taken.seen;
        if let Some(watch) = watch {
            for folder in &taken.folders {
                watch.add(folder)?;
            }
            if let Some(above) = top.parent() {
                watch.add(&open_folder(above)?)?;
            }
        }
        Ok(())
    }
}

struct Watch {
    inotify: OwnedFd,
}

impl Watch {
    /// Watches the folders of both sides.
    fn new(pairs: &[Pair]) -> io::Result<Self> {
        let mut watch = Self { inotify: inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)? };
        for pair in pairs {
            watch.add(&pair.host.folder)?;
            watch.add(&pair.own.folder)?;
        }
        Ok(watch)
    }

    /// Watches a folder too; one that is watched already stays so.
    fn add(&mut self, folder: &OwnedFd) -> io::Result<()> {
        let path = magic(folder.as_fd());
        inotify::add_watch(&self.inotify, Path::new(&path), CHANGES).map(drop).map_err(io::Error::from)
    }

    fn drain(&self) {
        let mut buffer = [0u8; 4096];
        while rustix::io::read(&self.inotify, &mut buffer).is_ok_and(|got| got > 0) {}
    }
}
