//! The cells on disk: one folder a cell, alive exactly as long as its lock is held.
//!
//! ```text
//! <runtime>/cells/<name>/   lock          flock(2) held by the supervisor: the only truth about life
//!                           cell.json     what was started ([`Record`]), written before the start
//!                           running.json  the init's process id ([`Running`]), written at the start
//!                           control.sock  requests to the supervisor
//!                           guard.sock    those who enter get behind its guard
//!                           guard.lock    which lock of git's its guard has, or last had
//!                           net.sock      requests to the network, in `names` mode
//!                           broker/       what answers the cell from outside, if something does; the cell sees its folder `in`
//!                           stage/        in OUTER a file system in memory: skeleton, bundle, libcontainer's state; empty on the host
//! <data>/cells/<name>/      upper, work   the writable layer; state: agents' files and folders that die with the cell
//! <data>/projects/<id>/     project       where it is; state/<agent>: what its cells keep of agents' state
//! <state>/logs/<name>.log, <state>/audit/<name>.jsonl: what a detached cell printed, what was decided about its network
//! <state>/audit/<name>.guard.jsonl: which changes of files were refused
//! ```
//!
//! A folder whose lock is free is stale: its supervisor was killed. Whoever meets it cleans it up, holding the lock.

mod kept;
mod record;

use std::collections::BTreeSet;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

pub(crate) use kept::is_discarded;
pub use kept::{Kept, Left, is_kept, kept};
pub use record::{Foreign, Found, Outline, Record, Running, THIS_VERSION, stale_record};
use record::{Read, read};
use rustix::fs::{AtFlags, CWD, FlockOperation, Mode, OFlags};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

/// Where cellblock keeps things; the cli decides, from the environment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dirs {
    /// `$XDG_RUNTIME_DIR/cellblock`, or `/run/cellblock` for root: gone after a reboot, on tmpfs.
    pub runtime: PathBuf,
    /// `$XDG_DATA_HOME/cellblock`, or `/var/lib/cellblock` for root.
    pub data: PathBuf,
    /// `$XDG_STATE_HOME/cellblock`, or `/var/log/cellblock` for root.
    pub state: PathBuf,
    /// Where logs and audits are written, if not below `state`: for the start of a cell. From `state` links lead there, for who reads them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub logs: Option<PathBuf>,
}

/// What stands for a project's id where there is none.
pub const NO_PROJECT: &str = "none";

/// The folder in a cell's runtime folder on which the stage is mounted.
pub(crate) const STAGE: &str = "stage";

/// The folder in a cell's runtime folder with the sockets of what answers it.
pub(crate) const BROKER: &str = "broker";

impl Dirs {
    /// Where the skeleton of the cell `name` is written, in OUTER.
    #[must_use]
    pub fn skeleton(&self, name: &str) -> PathBuf {
        self.cell(name).join(STAGE).join("top")
    }

    /// The folder of the cell `name` in the runtime directory.
    #[must_use]
    pub fn cell(&self, name: &str) -> PathBuf {
        self.runtime.join("cells").join(name)
    }

    /// The folder of the cell `name` in the data directory: its writable layer.
    #[must_use]
    pub fn layer(&self, name: &str) -> PathBuf {
        self.data.join("cells").join(name)
    }

    /// What cells of one project keep of the agent `agent`'s state; without a project, of all that have none.
    #[must_use]
    pub fn agent_state(&self, project: Option<&str>, agent: &str) -> PathBuf {
        self.data.join("projects").join(project.unwrap_or(NO_PROJECT)).join("state").join(agent)
    }

    /// The log of the detached cell `name`.
    #[must_use]
    pub fn log(&self, name: &str) -> PathBuf {
        self.logs_in("logs").join(format!("{name}.log"))
    }

    /// What was decided about the network of the cell `name`; outlives it.
    #[must_use]
    pub fn audit(&self, name: &str) -> PathBuf {
        self.logs_in("audit").join(format!("{name}.jsonl"))
    }

    /// What the guard of the cell `name` refused; outlives it.
    #[must_use]
    pub fn guard_audit(&self, name: &str) -> PathBuf {
        self.logs_in("audit").join(format!("{name}.guard.jsonl"))
    }

    fn logs_in(&self, usual: &str) -> PathBuf {
        self.logs.clone().unwrap_or_else(|| self.state.join(usual))
    }

    /// Lets the usual places of the logs of the cell `name` lead to where they are written from now on, or be that place again. To be called by
    /// who has claimed the name.
    ///
    /// # Errors
    /// Those of the system calls.
    pub fn lead_to_logs(&self, name: &str) -> io::Result<()> {
        let usual = Self { logs: None, ..self.clone() };
        let files = |dirs: &Self| [dirs.log(name), dirs.audit(name), dirs.guard_audit(name)];
        let is_link = |path: &Path| rustix::fs::readlink(path, Vec::new()).is_ok();
        if self.logs.is_none() {
            // All three are made together: one question is enough where there is none, as at nearly every start.
            let links = if is_link(&usual.audit(name)) { files(&usual).to_vec() } else { Vec::new() };
            return links.iter().filter(|path| is_link(path)).try_for_each(std::fs::remove_file);
        }
        for (from, to) in files(&usual).iter().zip(files(self)) {
            if let Some(folder) = from.parent() {
                make_dir(folder).map_err(io::Error::other)?;
            }
            match std::fs::symlink_metadata(from) {
                Ok(found) if found.is_symlink() => std::fs::remove_file(from)?,
                // What earlier cells of the name left there.
                Ok(_) => {
                    let mut old = from.clone().into_os_string();
                    old.push(".old");
                    std::fs::rename(from, old)?;
                }
                Err(_) => {}
            }
            std::os::unix::fs::symlink(to, from)?;
        }
        Ok(())
    }

    /// The socket by which commands that enter the running cell `name` get behind its guard.
    #[must_use]
    pub fn guard_socket(&self, name: &str) -> PathBuf {
        self.cell(name).join("guard.sock")
    }

    /// The folder of what answers the cell `name` from outside: sockets, answers.
    #[must_use]
    pub fn broker(&self, name: &str) -> PathBuf {
        self.cell(name).join(BROKER)
    }

    /// The socket by which the network of the running cell `name` is seen and steered.
    #[must_use]
    pub fn network_socket(&self, name: &str) -> PathBuf {
        self.cell(name).join("net.sock")
    }
}

/// Why a cell's state cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// A cell of that name is running.
    #[error("a cell named `{0}` is running already")]
    NameTaken(String),
    /// No cell of that name is running.
    #[error("no cell named `{0}` is running")]
    NotRunning(String),
    /// A file or folder could not be made, read or written.
    #[error("{what} {path}: {source}", path = path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The cell runs, and was started by a version of cellblock that writes other records.
    #[error("the cell `{name}` was started by another version of cellblock")]
    OtherVersion {
        /// The cell.
        name: String,
        /// Which one, if it says.
        version: Option<String>,
    },
    /// A state file holds something else than we write.
    #[error("{path} is damaged: {source}", path = path.display())]
    Damaged {
        /// Which.
        path: PathBuf,
        /// In what way.
        source: serde_json::Error,
    },
}

fn io_error(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StateError {
    move |source| StateError::Io { what, path: path.to_owned(), source }
}

/// A cell's folder whose lock we hold.
#[derive(Debug)]
pub struct Claim {
    /// The cell's name.
    pub name: String,
    /// `<runtime>/cells/<name>`.
    pub dir: PathBuf,
    /// The lock: given up when the last copy of this descriptor is closed.
    pub lock: OwnedFd,
}

/// Makes the folder of the cell `name` and takes its lock. A stale folder of that name is handed over as it is: see [`Claim::is_stale`].
///
/// # Errors
/// [`StateError::NameTaken`] if the lock is held.
pub fn claim(dirs: &Dirs, name: &str) -> Result<Claim, StateError> {
    claim_within(dirs, name, CLAIM_TRIES)
}

/// As [`claim`], for who may as well take another name: a lock that is held is looked at `patience` times more, 2 ms apart.
///
/// # Errors
/// As [`claim`].
pub fn claim_within(dirs: &Dirs, name: &str, mut patience: u32) -> Result<Claim, StateError> {
    let dir = dirs.cell(name);
    loop {
        make_dir(&dirs.runtime)?;
        make_dir(&dirs.runtime.join("cells"))?;
        make_dir(&dir)?;
        match lock(&dir)? {
            Lock::Taken(lock) => return Ok(Claim { name: name.to_owned(), dir, lock }),
            Lock::Held if patience == 0 || dir.join("cell.json").exists() => {
                return Err(StateError::NameTaken(name.to_owned()));
            }
            Lock::Held => {
                patience -= 1;
                std::thread::sleep(std::time::Duration::from_millis(2));
            }
            Lock::Gone => {}
        }
    }
}

impl Claim {
    /// Whether something of an earlier cell is left in the folder.
    #[must_use]
    pub fn is_stale(&self) -> bool {
        self.dir.join("cell.json").exists() || self.dir.join(STAGE).exists()
    }
}

/// What the folders of the cell `name` are called while its supervisor, the process `pid`, removes them: nothing that a cell can be called.
pub(crate) fn aside(name: &str, pid: rustix::process::Pid) -> String {
    format!("{ASIDE}{name}.{}", pid.as_raw_nonzero())
}

/// Whether `name` is a name by [`aside`].
pub(crate) fn is_aside(name: &str) -> bool {
    name.starts_with(ASIDE)
}

/// Whether `other` is what [`aside`] calls the folders of the cell `name`.
pub(crate) fn is_aside_of(other: &str, name: &str) -> bool {
    let pid = other.strip_prefix(ASIDE).and_then(|rest| rest.strip_prefix(name)?.strip_prefix('.'));
    pid.is_some_and(|pid| !pid.is_empty() && pid.bytes().all(|byte| byte.is_ascii_digit()))
}

/// With what the names of folders begin that are being removed.
const ASIDE: char = '.';

/// How often to look again at a held lock without a record beside it: somebody may be listing the cells, who takes the lock of a
/// folder that looks stale because we have only just made it.
const CLAIM_TRIES: u32 = 50;

enum Lock {
    Taken(OwnedFd),
    Held,
    /// The folder was removed between the opening and the locking.
    Gone,
}

fn lock(dir: &Path) -> Result<Lock, StateError> {
    let path = dir.join("lock");
    let flags = OFlags::CREATE | OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let fd = match rustix::fs::open(&path, flags, Mode::RUSR | Mode::WUSR) {
        Ok(fd) => fd,
        Err(Errno::NOENT) => return Ok(Lock::Gone),
        Err(error) => return Err(io_error("cannot open", &path)(error.into())),
    };
    match rustix::fs::flock(&fd, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(Errno::WOULDBLOCK) => return Ok(Lock::Held),
        Err(error) => return Err(io_error("cannot lock", &path)(error.into())),
    }
    let ours = rustix::fs::fstat(&fd).map_err(|e| io_error("cannot look at", &path)(e.into()))?;
    match rustix::fs::statat(CWD, &path, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(there) if (there.st_dev, there.st_ino) == (ours.st_dev, ours.st_ino) => Ok(Lock::Taken(fd)),
        _ => Ok(Lock::Gone),
    }
}

/// Makes one of our own directories, for us alone; under root others may pass through, as the cell's ids are not root's.
///
/// # Errors
/// [`StateError::Io`], also if something else than a directory of ours is there.
pub fn make_dir(path: &Path) -> Result<(), StateError> {
    let root = rustix::process::geteuid().is_root();
    let mode = if root { 0o711 } else { 0o700 };
    match rustix::fs::mkdir(path, Mode::from_raw_mode(mode)) {
        Ok(()) => Ok(()),
        Err(Errno::EXIST) => {
            let stat = match rustix::fs::statat(CWD, path, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => stat,
                // Its cell has just ended.
                Err(Errno::NOENT) => return make_dir(path),
                Err(error) => return Err(io_error("cannot look at", path)(error.into())),
            };
            let directory = rustix::fs::FileType::from_raw_mode(stat.st_mode).is_dir();
            if directory && stat.st_uid == rustix::process::geteuid().as_raw() {
                Ok(())
            } else {
                Err(io_error("not a directory of this user:", path)(io::ErrorKind::PermissionDenied.into()))
            }
        }
        Err(Errno::NOENT) => {
            let parent = path.parent().ok_or_else(|| io_error("cannot make", path)(io::ErrorKind::NotFound.into()))?;
            std::fs::create_dir_all(parent).map_err(io_error("cannot make", parent))?;
            // Another cell's start may have made it meanwhile: then it is looked at.
            match rustix::fs::mkdir(path, Mode::from_raw_mode(mode)) {
                Err(Errno::EXIST) => make_dir(path),
                made => made.map_err(|e| io_error("cannot make", path)(e.into())),
            }
        }
        Err(error) => Err(io_error("cannot make", path)(error.into())),
    }
}

/// Writes one of our state files: temporary name, rename. Only we can read it.
///
/// Not synced: the runtime directory is gone with the machine's next start, as are the cells it tells of, and where it is no tmpfs a
/// sync costs tens of milliseconds.
///
/// # Errors
/// [`StateError::Io`].
pub fn write_json(path: &Path, value: &impl Serialize) -> Result<(), StateError> {
    let text = serde_json::to_vec(value).map_err(|source| StateError::Damaged { path: path.to_owned(), source })?;
    let temporary = path.with_extension("tmp");
    let flags = OFlags::CREATE | OFlags::TRUNC | OFlags::WRONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let write = || -> io::Result<()> {
        let fd = rustix::fs::open(&temporary, flags, Mode::RUSR | Mode::WUSR)?;
        let mut file = std::fs::File::from(fd);
        io::Write::write_all(&mut file, &text)?;
        Ok(rustix::fs::rename(&temporary, path)?)
    };
    write().map_err(io_error("cannot write", path))
}

/// What is in the cells' folder.
#[derive(Debug, Default)]
pub struct Listing {
    /// Cells that run or are being started, by name.
    pub alive: Vec<Found>,
    /// Those among them that another version of cellblock has started.
    pub foreign: Vec<Foreign>,
    /// Folders whose supervisor is gone, with their locks held by us.
    pub stale: Vec<Claim>,
}

/// Looks at every cell. The locks of stale ones are held as long as the listing is.
///
/// # Errors
/// [`StateError::Io`]; a damaged record of a living cell is an error too.
pub fn list(dirs: &Dirs) -> Result<Listing, StateError> {
    let mut listing = Listing::default();
    for name in names(dirs)? {
        let dir = dirs.cell(&name);
        match lock(&dir)? {
            Lock::Taken(lock) => listing.stale.push(Claim { name, dir, lock }),
            Lock::Gone => {}
            // What is being removed is no cell any more.
            Lock::Held if is_aside(&name) => {}
            Lock::Held => match read(&dir)? {
                Some(Read::Ours(found)) => listing.alive.push(found),
                Some(Read::Foreign(found)) => listing.foreign.push(found),
                None => {}
            },
        }
    }
    Ok(listing)
}

/// Those of which the supervisor is gone, with their locks held by us. Of the others no record is read, and none has to be sound.
///
/// # Errors
/// [`StateError::Io`].
pub fn stale(dirs: &Dirs) -> Result<Vec<Claim>, StateError> {
    let mut claims = Vec::new();
    for name in names(dirs)? {
        let dir = dirs.cell(&name);
        if let Lock::Taken(lock) = lock(&dir)? {
            claims.push(Claim { name, dir, lock });
        }
    }
    Ok(claims)
}

/// The names of all folders of cells, in order: of living ones, of stale ones, and of some that are being made or removed.
///
/// # Errors
/// [`StateError::Io`].
pub fn names(dirs: &Dirs) -> Result<BTreeSet<String>, StateError> {
    let folder = dirs.runtime.join("cells");
    match std::fs::read_dir(&folder) {
        Ok(entries) => Ok(entries.flatten().filter_map(|e| e.file_name().into_string().ok()).collect()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(BTreeSet::new()),
        Err(error) => Err(io_error("cannot read", &folder)(error)),
    }
}

/// The living cell `name`.
///
/// # Errors
/// [`StateError::NotRunning`] if there is none, [`StateError::OtherVersion`] if there is no more to be said of it than [`list`] does.
pub fn find(dirs: &Dirs, name: &str) -> Result<Found, StateError> {
    let dir = dirs.cell(name);
    let gone = || StateError::NotRunning(name.to_owned());
    if !dir.join("lock").exists() {
        return Err(gone());
    }
    match lock(&dir)? {
        Lock::Held => match read(&dir)?.ok_or_else(gone)? {
            Read::Ours(found) => Ok(found),
            Read::Foreign(found) => Err(found.into()),
        },
        Lock::Taken(_) | Lock::Gone => Err(gone()),
    }
}

/// Gives the claim's lock to a copy of this program that is about to be started.
///
/// # Errors
/// Those of `dup(2)`.
pub fn share_lock(claim: &Claim) -> io::Result<OwnedFd> {
    claim.lock.as_fd().try_clone_to_owned()
}
