//! The way out of a bridge's gateway: a program that carries its packets on by sockets of its own in the host's network namespace, without
//! privilege. pasta (package `passt`), or slirp4netns.
//!
//! pasta makes the namespace, for it insists on one of its own user namespace when started by root; that user namespace is a child of this
//! process's, so we have all power over it, and the cell, in another child, has none. It ends when the command that it runs in there ends,
//! which is a shell that waits for the end of a pipe of ours: whatever kills this process takes the uplink with it.
//!
//! Both are told to open nothing by themselves: by default pasta's gateway address is the host's loopback, ports bound on one side appear on
//! the other, and slirp4netns has both the host's loopback and a resolver at addresses of its own. What the options do not close (the host's
//! other addresses, its neighbours) the rules in the gateway do (`walls.rs`).

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};
use rustix::thread::{CapabilitySet, CapabilitySets};

use super::GatewayError;
use super::walls::UPLINK;

/// Where programs lie; the environment is empty here.
const FOLDERS: &[&str] = &["/usr/bin", "/bin", "/usr/sbin", "/sbin", "/usr/local/bin", "/run/current-system/sw/bin"];

/// What the kernel gives packets of user space by.
pub const TUN: &str = "/dev/net/tun";

/// How long an uplink may take to be there. It takes a tenth of a second.
const PATIENCE: Duration = Duration::from_secs(10);

/// The file of `program`, where packages put it.
#[must_use]
pub fn program(name: &str) -> Option<PathBuf> {
    let is_program = |path: &PathBuf| {
        std::fs::metadata(path)
            .is_ok_and(|m| m.is_file() && std::os::unix::fs::PermissionsExt::mode(&m.permissions()) & 0o111 != 0)
    };
    FOLDERS.iter().map(|folder| Path::new(folder).join(name)).find(is_program)
}

/// A program that can be an uplink.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// pasta, at this path.
    Pasta(PathBuf),
    /// slirp4netns, at this path.
    Slirp(PathBuf),
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Pasta(_) => "pasta",
            Self::Slirp(_) => "slirp4netns",
        })
    }
}

/// The best uplink that this host has, and that all else is there that a bridge needs.
///
/// # Errors
/// What is missing.
pub fn find() -> Result<Kind, GatewayError> {
    let pasta = program("pasta").map(Kind::Pasta);
    let kind = pasta.or_else(|| program("slirp4netns").map(Kind::Slirp)).ok_or(GatewayError::NoUplink)?;
    if program("nft").is_none() {
        return Err(GatewayError::NoFilter(io::ErrorKind::NotFound.into()));
    }
    std::fs::OpenOptions::new().read(true).write(true).open(TUN).map_err(GatewayError::NoTun)?;
    Ok(kind)
}

/// A running uplink. It ends with this.
#[derive(Debug)]
pub(crate) struct Uplink {
    child: Child,
    /// Its end is the program's.
    _line: Option<ChildStdin>,
    _exit: Option<OwnedFd>,
    pub(super) kind: Kind,
}

impl Uplink {
    pub(super) fn has_ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }
}

impl Drop for Uplink {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn failed(kind: &Kind, source: impl std::fmt::Display) -> GatewayError {
    GatewayError::Uplink(format!("{kind}: {source}"))
}

/// Starts pasta; returns the network namespace that it made.
pub(super) fn pasta(path: &Path) -> Result<(Uplink, File), GatewayError> {
    let kind = Kind::Pasta(path.to_owned());
    let mut command = Command::new(path);
    command.args(["--foreground", "--quiet", "--config-net", "--ns-ifname", UPLINK, "--no-map-gw"]);
    command.args(["--no-dhcp", "--no-dhcpv6", "--no-ra"]);
    command.args(["-t", "none", "-u", "none", "-T", "none", "-U", "none"]);
    command.args(["-a", "198.18.0.10", "-n", "30", "-g", "198.18.0.9"]);
    command.args(["-a", "fdce:11b1:cc0:fffe::2", "-g", "fdce:11b1:cc0:fffe::1"]);
    if rustix::process::geteuid().is_root() {
        // It would become `nobody`, who may not open the device where that is root's alone.
        command.args(["--runas", "0:0"]);
    }
    command.args(["--", "/bin/sh", "-c", "echo ready; read -r line"]);
    let (mut uplink, said) = start(kind, command, Stdio::piped())?;
    let line = wait_for_line(&said.stdout, &uplink.kind);
    if line.is_err() {
        let words = last_words(&mut uplink, said);
        return Err(failed(&uplink.kind, words));
    }
    let shell = shell_of(uplink.child.id()).map_err(|e| failed(&uplink.kind, e))?;
    let space = File::open(format!("/proc/{shell}/ns/net")).map_err(|e| failed(&uplink.kind, e))?;
    Ok((uplink, space))
}

/// Attaches slirp4netns to the network namespace `space`.
pub(super) fn slirp(path: &Path, space: &File) -> Result<Uplink, GatewayError> {
    let kind = Kind::Slirp(path.to_owned());
    let wrong = |e: io::Error| failed(&Kind::Slirp(path.to_owned()), e);
    let pipe = || rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).map_err(|e| wrong(e.into()));
    let ((ready, tell), (exit, hold)) = (pipe()?, pipe()?);
    let space = space.try_clone().map_err(wrong)?;
    let number = |fd: &dyn AsFd| -> Result<String, GatewayError> {
        rustix::io::fcntl_setfd(fd, rustix::io::FdFlags::empty()).map_err(|e| wrong(e.into()))?;
        Ok(std::os::fd::AsRawFd::as_raw_fd(&fd.as_fd()).to_string())
    };
    let mut command = Command::new(path);
    command.args(["--configure", "--mtu=65520", "--cidr=198.18.1.0/24", "--disable-host-loopback", "--disable-dns"]);
    command.args(["--ready-fd", &number(&tell)?, "--exit-fd", &number(&exit)?, "--netns-type=path"]);
    command.arg(format!("/proc/self/fd/{}", number(&space)?)).arg(UPLINK);
    let started = with_capabilities(|| start(kind, command, Stdio::null())).map_err(wrong)?;
    drop((tell, exit, space));
    let (mut uplink, said) = started?;
    uplink._exit = Some(hold);
    match wait_for_line(&ready, &uplink.kind) {
        Ok(()) => Ok(uplink),
        Err(_) => {
            let words = last_words(&mut uplink, said);
            Err(failed(&uplink.kind, words))
        }
    }
}

/// What a program says.
struct Said {
    stdout: OwnedFd,
    stderr: std::process::ChildStderr,
}

fn start(kind: Kind, mut command: Command, stdout: Stdio) -> Result<(Uplink, Said), GatewayError> {
    command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").current_dir("/");
    command.stdin(Stdio::piped()).stdout(stdout).stderr(Stdio::piped());
    cellblock_sys::process::dies_with_this_thread(&mut command);
    let mut child = command.spawn().map_err(|e| failed(&kind, e))?;
    let line = child.stdin.take();
    let stderr = child.stderr.take().ok_or_else(|| failed(&kind, "no pipe"))?;
    let stdout = match child.stdout.take() {
        Some(pipe) => pipe.into(),
        None => stderr.as_fd().try_clone_to_owned().map_err(|e| failed(&kind, e))?,
    };
    Ok((Uplink { child, _line: line, _exit: None, kind }, Said { stdout, stderr }))
}

/// Waits until something is said on `from`: that it is ready.
fn wait_for_line(from: &OwnedFd, kind: &Kind) -> Result<(), GatewayError> {
    let limit = rustix::time::Timespec { tv_sec: i64::try_from(PATIENCE.as_secs()).unwrap_or(1), tv_nsec: 0 };
    let mut poll = [PollFd::new(from, PollFlags::IN)];
    let spoken = rustix::io::retry_on_intr(|| rustix::event::poll(&mut poll, Some(&limit)));
    if !spoken.is_ok_and(|count| count > 0) {
        return Err(failed(kind, "it is not ready after 10 seconds"));
    }
    let mut byte = [0u8];
    match rustix::io::read(from, &mut byte) {
        Ok(1) => Ok(()),
        _ => Err(failed(kind, "it ended")),
    }
}

/// What it said before it ended, without what it says about the system's log, which it cannot reach from here.
fn last_words(uplink: &mut Uplink, said: Said) -> String {
    /// More is not for people.
    const MOST: u64 = 64 << 10;
    let _ = uplink.child.kill();
    let mut text = Vec::new();
    let _ = said.stderr.take(MOST).read_to_end(&mut text);
    let lines: Vec<String> = BufReader::new(text.as_slice())
        .lines()
        .map_while(Result::ok)
        .map(|line| line.trim().to_owned())
        .filter(|line| !line.is_empty() && !line.contains("to syslog"))
        .collect();
    match lines.as_slice() {
        [] => "it ended without a word".to_owned(),
        all => all.join("; "),
    }
}

/// The process id of the shell that pasta runs: its child in a network namespace of its own.
fn shell_of(pasta: u32) -> io::Result<u32> {
    let own = std::fs::read_link("/proc/self/ns/net")?;
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        let children = std::fs::read_to_string(format!("/proc/{pasta}/task/{pasta}/children"))?;
        let elsewhere = |pid: &u32| std::fs::read_link(format!("/proc/{pid}/ns/net")).is_ok_and(|space| space != own);
        if let Some(found) = children.split_ascii_whitespace().filter_map(|word| word.parse().ok()).find(elsewhere) {
            return Ok(found);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Err(io::Error::other("its network namespace was not found"))
}

/// Does `work` with what this thread may do passed on to programs, which would lose it where the person's id is not 0.
pub(super) fn with_capabilities<T>(work: impl FnOnce() -> T) -> io::Result<T> {
    let now = rustix::thread::capabilities(None)?;
    rustix::thread::set_capabilities(None, CapabilitySets { inheritable: now.permitted, ..now })?;
    for capability in now.permitted.iter() {
        rustix::thread::configure_capability_in_ambient_set(capability, true)?;
    }
    let done = work();
    rustix::thread::clear_ambient_capability_set()?;
    rustix::thread::set_capabilities(None, CapabilitySets { inheritable: CapabilitySet::empty(), ..now })?;
    Ok(done)
}
