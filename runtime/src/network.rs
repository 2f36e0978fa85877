//! The process that is a cell's network: started by the supervisor, gone with it.
//!
//! It makes the gateway's namespace while the builder makes the cell's, joins the two once both are there, gives up its capabilities, and
//! serves what arrives ([`cellblock_egress::serve`]) from the host's network namespace, which it never left: only its threads do.

use std::io::{self, BufRead, BufReader, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use cellblock_bundle::cell::Said;
use cellblock_egress::gateway::{GatewayError, Rung, lay_down_capabilities};
use cellblock_egress::git::{Git, Remote};
use cellblock_egress::policy::{Entry, Written};
use cellblock_egress::serve::{self, Mode, Network, Ready, ServeError, Settings};
use cellblock_egress::who;
use cellblock_sys::fds;
use cellblock_sys::process::{Fork, SingleThreaded, exit_now, run_with_only};
use rustix::event::{PollFd, PollFlags};
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use rustix::process::{Pid, PidfdFlags, Signal};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::sandbox;
use crate::state::StateError;
use crate::supervisor::Start;

/// Why a cell has no network.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[serde(tag = "kind", content = "text", rename_all = "kebab-case")]
pub enum NetworkError {
    /// A rule is none.
    #[error("{0}")]
    Rule(String),
    /// The kernel has no veth devices.
    #[error("{0}")]
    NoVeth(String),
    /// All ports are to be caught, which needs nf_tables.
    #[error("{0}")]
    NoCapture(String),
    /// Nothing is there that carries the packets of a bridge.
    #[error("{0}")]
    NoUplink(String),
    /// The device for packets of user space cannot be opened.
    #[error("{0}")]
    NoTun(String),
    /// The rules of a bridge cannot be had.
    #[error("{0}")]
    NoFilter(String),
    /// What carries the packets of a bridge has failed.
    #[error("the cell's network could not be made: {0}")]
    Uplink(String),
    /// A port of the host is taken, or too low.
    #[error("{0}")]
    Publish(String),
    /// It was made, and lets through what it must not.
    #[error("{0}")]
    Check(String),
    /// There is no room for its files.
    #[error("{0}")]
    NoSpace(String),
    /// Anything else.
    #[error("the cell's network could not be made: {0}")]
    Other(String),
    /// The process died without a word.
    #[error("the process of the cell's network ended unexpectedly")]
    Gone,
}

impl From<ServeError> for NetworkError {
    fn from(error: ServeError) -> Self {
        let text = error.to_string();
        match error {
            ServeError::Policy(_) => Self::Rule(text),
            ServeError::Gateway(GatewayError::NoVeth(_)) => Self::NoVeth(text),
            ServeError::Gateway(GatewayError::NoCapture(_)) => Self::NoCapture(text),
            ServeError::Gateway(GatewayError::NoUplink) => Self::NoUplink(text),
            ServeError::Gateway(GatewayError::NoTun(_)) => Self::NoTun(text),
            ServeError::Gateway(GatewayError::NoFilter(_)) => Self::NoFilter(text),
            ServeError::Gateway(GatewayError::Uplink(_)) => Self::Uplink(text),
            ServeError::Publish { .. } => Self::Publish(text),
            ServeError::Check(_) => Self::Check(text),
            ServeError::Look(_) => Self::Rule(text),
            ServeError::Step { source, .. } if is_full(&source) => Self::NoSpace(text),
            ServeError::Gateway(_) | ServeError::Step { .. } => Self::Other(text),
        }
    }
}

pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

fn other(what: &str) -> impl FnOnce(io::Error) -> NetworkError {
    move |error| {
        let text = format!("{what}: {error}");
        if is_full(&error) { NetworkError::NoSpace(text) } else { NetworkError::Other(text) }
    }
}

/// The network of a cell: its rules from text to data, its files in place. Errors in rules come from here, before anything is started.
pub(crate) fn settings(start: &Start) -> Result<Settings, NetworkError> {
    let Start { cell, dirs, .. } = start;
    let written = |all: &[Said]| {
        all.iter()
            .map(|said| {
                let entry = said.rule.parse::<Entry>();
                let entry = entry.map_err(|e| NetworkError::Rule(format!("{}: {e}", said.origin)))?;
                Ok::<_, NetworkError>(Written { entry, origin: said.origin.clone() })
            })
            .collect::<Result<Vec<_>, _>>()
    };
    Ok(Settings {
        mode: if cell.network == cellblock_bundle::Network::Bridge { Mode::Bridge } else { Mode::Names },
        cell: cell.name.clone(),
        allow: written(&cell.reach.allow)?,
        deny: written(&cell.reach.deny)?,
        publish: cell.reach.publish.iter().map(|p| serve::Publish { host: p.host, port: p.port }).collect(),
        audit: dirs.audit(&cell.name),
        names: dirs.cell(&cell.name).join("net.names"),
        denied: dirs.cell(&cell.name).join("net.denied"),
        secrets: secrets(start)?,
        git: git(start)?,
        roots: start.roots.clone(),
        connections: serve::CONNECTIONS,
        rungs: start.rungs.clone(),
    })
}

/// The repositories for which somebody outside has credentials.
fn git(start: &Start) -> Result<Option<Git>, NetworkError> {
    let Some(git) = start.cell.brokers.git.as_ref().filter(|_| start.cell.network == cellblock_bundle::Network::Names)
    else {
        return Ok(None);
    };
    let remote = |one: &cellblock_bundle::cell::GitRemote| {
        let host = one.host.parse().map_err(|e| NetworkError::Rule(format!("{one}: {e}")))?;
        Ok(Remote { host, port: one.port, path: one.path.clone(), username: one.username.clone() })
    };
    let remotes = git.remotes.iter().map(remote).collect::<Result<_, NetworkError>>()?;
    let socket = start.dirs.broker(&start.cell.name).join(cellblock_broker::settings::CREDENTIALS);
    Ok(Some(Git { placeholder: git.placeholder.clone(), remotes, socket }))
}

/// The cell's secrets with their values.
fn secrets(start: &Start) -> Result<Vec<serve::Secret>, NetworkError> {
    let uses = &start.cell.reach.secrets;
    if uses.len() != start.secrets.len() {
        return Err(NetworkError::Rule("there are secrets without a value".to_owned()));
    }
    uses.iter()
        .zip(&start.secrets)
        .map(|(one, value)| {
            let host = one.host.parse().map_err(|e| NetworkError::Rule(format!("{}: {e}", one.variable)))?;
            Ok(serve::Secret {
                host,
                header: one.header.clone(),
                placeholder: one.placeholder.clone(),
                value: value.clone(),
            })
        })
        .collect()
}

/// How a network is that serves.
#[derive(Debug, Serialize, Deserialize)]
struct Up {
    /// By which rung connections are caught; `None` for a bridge.
    rung: Option<Rung>,
    /// What a person should know of it.
    warning: Option<String>,
}

/// The running process.
#[derive(Debug)]
pub(crate) struct Egress {
    /// By its process id somebody else could be meant once it has been collected.
    pidfd: OwnedFd,
    line: BufReader<UnixStream>,
}

impl Egress {
    /// Forks the process, which begins at once with what needs no cell. `control` is where requests to it come in.
    fn start(settings: Settings, control: &Path, alone: &SingleThreaded) -> Result<Self, NetworkError> {
        if let Some(folder) = settings.audit.parent() {
            crate::state::make_dir(folder).map_err(|e: StateError| NetworkError::Other(e.to_string()))?;
        }
        let control = UnixListener::bind(control).map_err(other("cannot make the network's socket"))?;
        let (ours, theirs) = UnixStream::pair().map_err(other("cannot make a socket"))?;
        match alone.fork().map_err(other("cannot start a process"))? {
            Fork::Child => {
                let (line, socket) = (&theirs, &control);
                run_with_only(&[line.as_fd(), socket.as_fd()], || child(settings, socket, line, alone))
            }
            Fork::Parent(pid) => {
                let pidfd = rustix::process::pidfd_open(pid, PidfdFlags::empty());
                let pidfd = pidfd.map_err(|e| other("cannot watch a process")(e.into()))?;
                Ok(Self { pidfd, line: BufReader::new(ours) })
            }
        }
    }

    /// Lets it join its gateway to the network namespace `space`.
    fn join(&mut self, space: BorrowedFd<'_>) {
        // One that has failed already reads no more: why, is in its answer.
        let _ = fds::send(self.line.get_ref(), b"n", &[space]);
    }

    /// Waits until it serves.
    fn ready(&mut self) -> Result<Up, NetworkError> {
        self.answer()
    }

    /// Waits until it needs the cell to go on; what the cell has to trust, if connections are looked into.
    fn prepared(&mut self) -> Result<Option<String>, NetworkError> {
        self.answer()
    }

    fn answer<T: DeserializeOwned>(&mut self) -> Result<T, NetworkError> {
        let mut answer = String::new();
        self.line.read_line(&mut answer).map_err(|_| NetworkError::Gone)?;
        serde_json::from_str::<Result<T, NetworkError>>(&answer).unwrap_or(Err(NetworkError::Gone))
    }
}

/// A cell's network as its supervisor has it: the process, and what another one takes to be made if it dies.
#[derive(Debug)]
pub(crate) struct Connected {
    egress: Option<Egress>,
    settings: Settings,
    control: PathBuf,
    alone: SingleThreaded,
    space: Option<OwnedFd>,
    restarts: u32,
}

/// Most processes for one cell: what dies that often is not helped by another.
const MOST_RESTARTS: u32 = 16;

impl Connected {
    /// Starts the process for `cell`.
    pub(crate) fn start(start: &Start, alone: &SingleThreaded) -> Result<Self, NetworkError> {
        let (settings, control) = (settings(start)?, start.dirs.network_socket(&start.cell.name));
        let egress = Some(Egress::start(settings.clone(), &control, alone)?);
        Ok(Self { egress, settings, control, alone: alone.clone(), space: None, restarts: 0 })
    }

    /// Lets it join its gateway to the network namespace of the builder, which has made one and ends soon: hence a descriptor and no path.
    pub(crate) fn join(&mut self, builder: Pid) -> Result<(), NetworkError> {
        let space = std::fs::File::open(format!("/proc/{}/ns/net", builder.as_raw_nonzero()))
            .map_err(other("cannot open the cell's network namespace"))?;
        let space = OwnedFd::from(space);
        if let Some(egress) = &mut self.egress {
            egress.join(space.as_fd());
        }
        self.space = Some(space);
        Ok(())
    }

    /// Waits until it needs the cell to go on; what the cell has to trust, if connections are looked into.
    pub(crate) fn prepared(&mut self) -> Result<Option<String>, NetworkError> {
        self.egress.as_mut().map_or(Ok(None), Egress::prepared)
    }

    /// Waits until it serves; what a person should know of it.
    pub(crate) fn ready(&mut self) -> Result<Option<String>, NetworkError> {
        let Some(egress) = &mut self.egress else { return Ok(None) };
        let Up { rung, warning } = egress.ready()?;
        // Another process goes on with what this one has made of the cell's namespace.
        if let Some(rung) = rung {
            self.settings.rungs = vec![rung];
        }
        Ok(warning)
    }

    /// Makes another process if the one there was has died. The cell has no network meanwhile, and none after if that fails. Rules that
    /// allowed more while the cell ran are gone, and so is the authority that the cell trusts: hosts that are looked into are not reached any more.
    pub(crate) fn mend(&mut self) {
        if !self.egress.as_ref().is_some_and(Egress::has_died) {
            return;
        }
        self.egress = None;
        self.restarts += 1;
        if let Some(space) = self.space.as_ref().filter(|_| self.restarts < MOST_RESTARTS) {
            let _ = std::fs::remove_file(&self.control);
            let again = || -> Result<Egress, NetworkError> {
                let mut egress = Egress::start(self.settings.clone(), &self.control, &self.alone)?;
                egress.prepared()?;
                egress.join(space.as_fd());
                egress.ready()?;
                Ok(egress)
            };
            self.egress = again().ok();
        }
    }
}

impl Egress {
    fn has_died(&self) -> bool {
        let now = rustix::time::Timespec { tv_sec: 0, tv_nsec: 0 };
        rustix::event::poll(&mut [PollFd::new(&self.pidfd, PollFlags::IN)], Some(&now)).is_ok_and(|count| count > 0)
    }
}

/// How long it may take to write down what it has counted.
const FAREWELL: Duration = Duration::from_millis(200);

impl Drop for Egress {
    /// Ends it, when it has written what it has counted.
    fn drop(&mut self) {
        crate::reap::farewell(self.line.get_ref(), FAREWELL);
    }
}

/// The life of the process.
fn child(settings: Settings, control: &UnixListener, line: &UnixStream, alone: &SingleThreaded) -> ! {
    let _ = rustix::thread::set_name(c"cellblock-net");
    let _ = rustix::process::set_parent_process_death_signal(Some(Signal::KILL));
    // Nobody else would hear of a defect, for its standard streams lead nowhere.
    if let Ok(line) = line.try_clone() {
        std::panic::set_hook(Box::new(move |defect| tell::<()>(&line, Err(NetworkError::Other(defect.to_string())))));
    }
    let code = match make(settings, control, line, alone) {
        Ok(ready) => {
            let is = Up { rung: ready.rung(), warning: ready.warning() };
            let up = |outcome: Result<(), ServeError>| tell(line, outcome.map(|()| is).map_err(NetworkError::from));
            i32::from(ready.serve(up, || wait_for_the_end(line), || crate::reap::done(line)).is_err())
        }
        Err(error) => {
            tell::<()>(line, Err(error));
            crate::exit::OURS
        }
    };
    exit_now(code)
}

fn make(
    settings: Settings,
    control: &UnixListener,
    line: &UnixStream,
    alone: &SingleThreaded,
) -> Result<Ready, NetworkError> {
    take_no_streams().map_err(other("cannot let go of the standard streams"))?;
    let control = control.try_clone().map_err(other("cannot keep the network's socket"))?;
    let audit = settings.audit.clone();
    // Before there are threads. Without it the audit does not say which program asked, and nothing else is lost.
    let helper = if settings.mode == Mode::Names { helper(alone).ok() } else { None };
    let network = Network::prepare(settings, Some(control), helper)?;
    tell(line, Ok(network.trust()));
    let mut ready = network.join(receive(line)?)?;
    // Parses what the cell sends: nobody without privilege is to look into it.
    rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable)
        .map_err(|e| other("cannot protect the network's process")(e.into()))?;
    sandbox::confine(&mut ready, &audit).map_err(other("cannot confine the network's process"))?;
    Ok(ready)
}

/// Starts the process that finds who in the cell holds a socket ([`who`]); our end of its line. It ends with this process.
fn helper(alone: &SingleThreaded) -> io::Result<OwnedFd> {
    let (ours, theirs) =
        rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    match alone.fork()? {
        Fork::Parent(_) => Ok(ours),
        Fork::Child => run_with_only(&[theirs.as_fd()], || {
            let _ = rustix::thread::set_name(c"cellblock-who");
            let _ = rustix::process::set_parent_process_death_signal(Some(Signal::KILL));
            let alone = rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable);
            if alone.is_ok() && lay_down_capabilities().is_ok() && sandbox::confine_helper().is_ok() {
                who::find::serve(&theirs);
            }
            exit_now(0)
        }),
    }
}

/// The cell's network namespace.
fn receive(line: &UnixStream) -> Result<OwnedFd, NetworkError> {
    let (_, fds) = fds::receive(line, &mut [0u8]).map_err(other("nobody told of the cell"))?;
    fds.into_iter().next().ok_or(NetworkError::Gone)
}

/// Whoever waits for the end of the cell's output must not wait for this process.
pub(crate) fn take_no_streams() -> io::Result<()> {
    let null = std::fs::OpenOptions::new().read(true).write(true).open("/dev/null")?;
    rustix::stdio::dup2_stdin(&null)?;
    rustix::stdio::dup2_stdout(&null)?;
    Ok(rustix::stdio::dup2_stderr(&null)?)
}

fn tell<T: Serialize>(mut line: &UnixStream, answer: Result<T, NetworkError>) {
    let text = serde_json::to_string(&answer).unwrap_or_default();
    let _ = writeln!(line, "{text}");
}

/// Returns when the supervisor has closed its end, or is gone.
fn wait_for_the_end(mut line: &UnixStream) {
    let mut byte = [0u8];
    while io::Read::read(&mut line, &mut byte).is_ok_and(|got| got > 0) {}
}
