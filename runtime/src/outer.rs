//! OUTER: the namespaces in which cellblock itself works, and the way into them.
//!
//! Rootless, OUTER is a user namespace in which the person's ids stand for themselves and all other ids come from the person's
//! subordinate ids; in it overlayfs can be mounted, files of foreign owners can be made and deleted, and the cell's own user
//! namespace can be a child. Started by real root, it is only a mount namespace.
//!
//! [`enter`] changes the calling process; [`exec_self`] then replaces it by a fresh image of this program, so that the memory of
//! whoever guards a cell belongs to OUTER (`mm->user_ns`, which `ptrace(2)` checks look at) and nothing of the command line's
//! life is left in it.

use std::ffi::{CString, OsStr};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::process::{Command, Stdio};

use cellblock_bundle::{Extent, IdScheme, Ids};
use cellblock_sys::process::{Fork, SingleThreaded, execve_fd, exit_now, inherited};
use cellblock_sys::{mount, namespace};
use rustix::fs::{CWD, MemfdFlags, Mode, OFlags, SealFlags};
use rustix::io::FdFlags;
use rustix::mount::{MountPropagationFlags, OpenTreeFlags};
use rustix::process::{Pid, WaitOptions};
use rustix::thread::{CapabilitySet, CapabilitySets, UnshareFlags};

/// Why OUTER cannot be entered.
#[derive(Debug, thiserror::Error)]
pub enum OuterError {
    /// The process is not fit for it.
    #[error(transparent)]
    Process(io::Error),
    /// `unshare(2)` failed: user namespaces are switched off, used up, or forbidden.
    #[error("the kernel does not let this user make a user namespace: {0}")]
    Unshare(io::Error),
    /// The namespace exists, but capabilities in it are denied (Ubuntu's AppArmor restriction does that).
    #[error(
        "the user namespace gives no capabilities (AppArmor's restriction of unprivileged user namespaces does that): {0}"
    )]
    NoCapabilities(io::Error),
    /// The id mapping was refused.
    #[error("{program} refused the id mapping: {detail}")]
    MapRefused {
        /// `newuidmap` or `newgidmap`.
        program: &'static str,
        /// What it said.
        detail: String,
    },
    /// Our own mapping line could not be written.
    #[error("cannot write {file}: {source}")]
    WriteMap {
        /// Which of `/proc/self/…`.
        file: &'static str,
        /// Why.
        source: io::Error,
    },
    /// This program's file could not be opened again for the fresh start.
    #[error("cannot start a fresh copy of this program: {0}")]
    Exec(io::Error),
}

/// Moves this process into OUTER. It must be single-threaded, and is changed for good.
///
/// # Errors
/// See [`OuterError`]; after one the process is in an undefined mixture of namespaces and must end.
pub fn enter(ids: &Ids, alone: &SingleThreaded) -> Result<(), OuterError> {
    begin(ids, alone)?.map_or(Ok(()), Maps::wait)
}

/// As [`enter`], but does not wait for programs that write OUTER's id mapping: until they have, nothing can be owned in OUTER, and no namespace made in
/// it. It takes them 2 ms, in which this process may execute another program.
///
/// # Errors
/// As [`enter`].
pub fn begin(ids: &Ids, alone: &SingleThreaded) -> Result<Option<Maps>, OuterError> {
    if !ids.rootless() {
        namespace::unshare(UnshareFlags::NEWNS).map_err(OuterError::Unshare)?;
        // What we mount must not reach the host; what the host unmounts must not stay pinned by us.
        settle_mounts()?;
        return Ok(None);
    }
    let flags = UnshareFlags::NEWUSER | UnshareFlags::NEWNS | UnshareFlags::NEWCGROUP;
    let maps = if ids.scheme == IdScheme::Range || ids.scheme == IdScheme::RangeRoot {
        let helper = MapHelper::start(ids, alone)?;
        namespace::unshare(flags).map_err(OuterError::Unshare)?;
        Some(helper.go()?)
    } else {
        namespace::unshare(flags).map_err(OuterError::Unshare)?;
        // Without privilege in the parent namespace gid_map may only be written once setgroups(2) is off (Linux 3.19).
        write_proc("/proc/self/setgroups", "deny")?;
        write_proc("/proc/self/uid_map", &map_text(&ids.uids))?;
        write_proc("/proc/self/gid_map", &map_text(&ids.gids))?;
        None
    };
    settle_mounts()?;
    Ok(maps)
}

fn settle_mounts() -> Result<(), OuterError> {
    rustix::mount::mount_change(c"/", MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC)
        .map_err(|e| OuterError::NoCapabilities(e.into()))
}

fn write_proc(file: &'static str, text: &str) -> Result<(), OuterError> {
    // One write(2): the kernel takes a map in a single one only.
    std::fs::OpenOptions::new()
        .write(true)
        .open(file)
        .and_then(|mut f| f.write_all(text.as_bytes()))
        .map_err(|source| OuterError::WriteMap { file, source })
}

/// The lines of `uid_map` or `gid_map`.
pub(crate) fn map_text(extents: &[Extent]) -> String {
    extents.iter().map(|e| format!("{} {} {}\n", e.inside, e.outside, e.size)).collect()
}

/// OUTER's id mapping, while it is being written.
#[derive(Debug)]
pub struct Maps {
    answer: OwnedFd,
    child: Pid,
}

impl Maps {
    /// What a program that this process executes next needs for [`Maps::inherited`]: a word, and a descriptor to keep open.
    #[must_use]
    pub fn hand_on(self) -> (String, OwnedFd) {
        (format!("{}:{}", self.answer.as_raw_fd(), self.child.as_raw_nonzero()), self.answer)
    }

    /// Takes over what the program that this process executed before has handed on.
    ///
    /// # Errors
    /// `InvalidInput` if that is no such word, and those of `fcntl(2)` on the descriptor.
    pub fn inherited(word: &str) -> io::Result<Self> {
        let (answer, child) = word.split_once(':').ok_or(io::ErrorKind::InvalidInput)?;
        let number = |text: &str| text.parse().map_err(|_| io::Error::from(io::ErrorKind::InvalidInput));
        let child = Pid::from_raw(number(child)?).ok_or(io::ErrorKind::InvalidInput)?;
        Ok(Self { answer: inherited(number(answer)?)?, child })
    }

    /// Waits until it is written.
    ///
    /// # Errors
    /// [`OuterError::MapRefused`], with what the program said.
    pub fn wait(self) -> Result<(), OuterError> {
        let mut verdict = String::new();
        std::fs::File::from(self.answer).read_to_string(&mut verdict).map_err(OuterError::Process)?;
        let _ = rustix::process::waitpid(Some(self.child), WaitOptions::empty());
        match verdict.split_once('\n') {
            Some(("ok", _)) => Ok(()),
            Some(("gid", detail)) => Err(OuterError::MapRefused { program: "newgidmap", detail: detail.trim().into() }),
            Some((_, detail)) => Err(OuterError::MapRefused { program: "newuidmap", detail: detail.trim().into() }),
            None => Err(OuterError::MapRefused { program: "newuidmap", detail: "it did not answer".into() }),
        }
    }
}

/// A child that stays behind in the person's namespaces: `newuidmap` works only from there.
struct MapHelper {
    go: OwnedFd,
    maps: Maps,
}

impl MapHelper {
    fn start(ids: &Ids, alone: &SingleThreaded) -> Result<Self, OuterError> {
        let target = rustix::process::getpid();
        let pipe =
            || rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).map_err(|e| OuterError::Process(e.into()));
        let (wait, go) = pipe()?;
        let (answer, tell) = pipe()?;
        match alone.fork().map_err(OuterError::Process)? {
            Fork::Parent(child) => Ok(Self { go, maps: Maps { answer, child } }),
            Fork::Child => {
                drop((go, answer));
                let mut byte = [0u8];
                if std::fs::File::from(wait).read(&mut byte).is_ok_and(|n| n == 1) {
                    let verdict = run_map_programs(target.as_raw_nonzero().get(), ids);
                    let _ = std::fs::File::from(tell).write_all(verdict.as_bytes());
                }
                exit_now(0)
            }
        }
    }

    /// Has it begin, now that there is a namespace.
    fn go(self) -> Result<Maps, OuterError> {
        std::fs::File::from(self.go).write_all(b"g").map_err(OuterError::Process)?;
        Ok(self.maps)
    }
}

/// Runs both programs at the same time and says `ok`, or which failed and what it printed.
fn run_map_programs(target: i32, ids: &Ids) -> String {
    let start = |program: &str, extents: &[Extent]| {
        let numbers = extents.iter().flat_map(|e| [e.inside, e.outside, e.size]).map(|n| n.to_string());
        Command::new(program)
            .arg(target.to_string())
            .args(numbers)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
    };
    let started = [("uid", start("newuidmap", &ids.uids)), ("gid", start("newgidmap", &ids.gids))];
    let mut verdict = "ok\n".to_owned();
    for (which, child) in started {
        match child.and_then(std::process::Child::wait_with_output) {
            Ok(output) if output.status.success() => {}
            Ok(output) => verdict = format!("{which}\n{}", String::from_utf8_lossy(&output.stderr)),
            Err(error) => verdict = format!("{which}\n{error}"),
        }
    }
    verdict
}

/// Replaces this process, which has entered OUTER, by a fresh image of this program with `arguments` after its own name.
///
/// `keep` stay open at their numbers, all other descriptors above 2 are closed; the environment is empty. Capabilities in
/// OUTER survive as ambient ones, for the person's id inside need not be 0.
///
/// The program is started through a read-only mount of its own, so that whoever gets hold of `/proc/PID/exe` from inside
/// cannot write to it (CVE-2019-5736). A descriptor of that mount stays open, and its number is the last argument: the kernel waits 0.3 ms
/// when the last one is closed, which is better done when nobody waits for us. Returns only on failure.
#[must_use]
pub fn exec_self(arguments: &[&OsStr], keep: &[OwnedFd]) -> OuterError {
    match prepare_exec(arguments, keep) {
        Ok((program, argv)) => OuterError::Exec(execve_fd(program.as_fd(), &argv, &[])),
        Err(error) => OuterError::Exec(error),
    }
}

fn prepare_exec(arguments: &[&OsStr], keep: &[OwnedFd]) -> io::Result<(OwnedFd, Vec<CString>)> {
    let program = own_program()?;
    let number = program.as_raw_fd().to_string();
    let name = std::env::args_os().next().unwrap_or_else(|| "cellblock".into());
    let argv = std::iter::once(name.as_os_str())
        .chain(arguments.iter().copied())
        .chain([OsStr::new(&number)])
        .map(|a| CString::new(a.as_bytes()))
        .collect::<Result<Vec<_>, _>>()?;
    cellblock_sys::process::cloexec_from(3)?;
    for fd in keep.iter().chain([&program]) {
        rustix::io::fcntl_setfd(fd, FdFlags::empty())?;
    }
    keep_capabilities()?;
    Ok((program, argv))
}

/// This program's file, in a form that cannot be written through.
fn own_program() -> io::Result<OwnedFd> {
    let running = rustix::fs::stat(c"/proc/self/exe")?;
    let path = rustix::fs::readlink(c"/proc/self/exe", Vec::new())?;
    // By its path, for the running image's mount belongs to the host's mount namespace, where it cannot be cloned.
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    if let Ok(tree) = rustix::mount::open_tree(CWD, path.as_c_str(), flags) {
        let found = rustix::fs::fstat(&tree)?;
        if (found.st_dev, found.st_ino) == (running.st_dev, running.st_ino) {
            mount::set_read_only(tree.as_fd())?;
            return Ok(tree);
        }
    }
    // Replaced or deleted while it runs: a sealed copy in memory.
    let mut copy =
        std::fs::File::from(rustix::fs::memfd_create(c"cellblock", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?);
    io::copy(&mut std::fs::File::open("/proc/self/exe")?, &mut copy)?;
    rustix::fs::fcntl_add_seals(&copy, SealFlags::WRITE | SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
    // A descriptor open for writing would make execve fail with ETXTBSY.
    let path = format!("/proc/self/fd/{}", copy.as_raw_fd());
    Ok(rustix::fs::open(path.as_str(), OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?)
}

fn keep_capabilities() -> io::Result<()> {
    let now = rustix::thread::capabilities(None)?;
    rustix::thread::set_capabilities(None, CapabilitySets { inheritable: now.permitted, ..now })?;
    for capability in now.permitted.iter() {
        rustix::thread::configure_capability_in_ambient_set(capability, true)?;
    }
    Ok(())
}

/// Undoes what [`exec_self`] did to carry the capabilities over: nothing started from here on inherits them by `exec`.
///
/// # Errors
/// Those of `capset(2)` and `prctl(2)`.
pub fn settle_capabilities() -> io::Result<()> {
    rustix::thread::clear_ambient_capability_set()?;
    let now = rustix::thread::capabilities(None)?;
    Ok(rustix::thread::set_capabilities(None, CapabilitySets { inheritable: CapabilitySet::empty(), ..now })?)
}
