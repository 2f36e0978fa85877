//! What is written down of a running cell, and how much of it another version of cellblock understands.
//!
//! Cells go on running while cellblock is upgraded. A record is taken for what it says only if all of it is understood: one with a field too many
//! may mean something else by the others. Of any other record no more is read than its [`Outline`].

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use cellblock_bundle::{Cell, Ids};
use serde::{Deserialize, Serialize};

use super::{Claim, StateError, io_error};

/// The version of this cellblock, as it writes it down.
pub const THIS_VERSION: &str = env!("CARGO_PKG_VERSION");

/// What was started, as `cell.json` says it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// Which cellblock has started it. For people: whether a record is understood shows when it is read.
    pub version: String,
    /// The cell.
    pub cell: Cell,
    /// The supervisor's process id as seen from the host.
    pub supervisor: i32,
    /// When, in seconds since 1970-01-01 UTC.
    pub started: u64,
    /// The writable layer outlives the cell.
    pub keep: bool,
    /// It has no terminal to talk to and logs to a file.
    pub detached: bool,
    /// Cgroup directories that were made for it.
    pub cgroups: Vec<PathBuf>,
}

/// What each version finds in the record of every other: enough to list a cell, to end it, and to clean up after it. These fields keep their names
/// and their meaning.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Outline {
    /// [`Record::version`].
    #[serde(default)]
    pub version: Option<String>,
    /// Of [`Record::cell`].
    pub cell: CellOutline,
    /// [`Record::supervisor`].
    pub supervisor: i32,
    /// [`Record::started`].
    pub started: u64,
    /// [`Record::keep`].
    pub keep: bool,
    /// [`Record::cgroups`].
    pub cgroups: Vec<PathBuf>,
}

/// What each version finds in the cell of every other's record.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct CellOutline {
    /// [`Cell::ids`].
    pub ids: Ids,
    /// Of [`Cell::project`].
    pub project: Option<ProjectOutline>,
}

/// Where a cell of another version works.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct ProjectOutline {
    /// [`cellblock_bundle::Project::id`].
    pub id: String,
    /// [`cellblock_bundle::Project::name`].
    pub name: String,
    /// [`cellblock_bundle::Project::root`].
    pub root: PathBuf,
}

/// The running process, as `running.json` says it. Every version writes it so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Running {
    /// Process id of the cell's init as seen from the host.
    pub init: i32,
    /// Its start time in clock ticks since boot (`/proc/PID/stat` field 22): tells it from a later process of the same id.
    pub start_time: u64,
}

/// A cell as another process finds it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Found {
    /// What was started.
    pub record: Record,
    /// Its process, unless it is just being started.
    pub running: Option<Running>,
    /// Where its guard lets in who enters.
    pub(crate) guard_socket: PathBuf,
}

/// A cell of which no more than the [`Outline`] can be said, whoever has started it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Foreign {
    /// Its name: that of its folder.
    pub name: String,
    /// What was started.
    pub record: Outline,
    /// Its process, unless it is just being started.
    pub running: Option<Running>,
}

impl From<Foreign> for StateError {
    fn from(found: Foreign) -> Self {
        Self::OtherVersion { name: found.name, version: found.record.version }
    }
}

/// What is said of a cell.
#[allow(clippy::large_enum_variant, reason = "taken apart at once")]
pub(super) enum Read {
    Ours(Found),
    Foreign(Foreign),
}

/// The record of an earlier cell in a folder we hold the lock of, if it got as far as writing one.
#[must_use]
pub fn stale_record(claim: &Claim) -> Option<Foreign> {
    let text = text(&claim.dir.join("cell.json")).ok()??;
    Some(Foreign {
        name: claim.name.clone(),
        record: serde_json::from_slice(&text).ok()?,
        running: running(&claim.dir).ok()?,
    })
}

/// What is said of the cell whose folder `dir` is, if there is something already.
pub(super) fn read(dir: &Path) -> Result<Option<Read>, StateError> {
    let path = dir.join("cell.json");
    let Some(text) = text(&path)? else { return Ok(None) };
    let running = running(dir)?;
    match serde_json::from_slice(&text) {
        Ok(record) => Ok(Some(Read::Ours(Found { record, running, guard_socket: dir.join("guard.sock") }))),
        Err(source) => {
            let record = serde_json::from_slice(&text).map_err(|_| StateError::Damaged { path, source })?;
            let name = dir.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            Ok(Some(Read::Foreign(Foreign { name, record, running })))
        }
    }
}

fn running(dir: &Path) -> Result<Option<Running>, StateError> {
    let path = dir.join("running.json");
    let parse = |text: Vec<u8>| {
        serde_json::from_slice(&text).map_err(|source| StateError::Damaged { path: path.clone(), source })
    };
    text(&path)?.map(parse).transpose()
}

fn text(path: &Path) -> Result<Option<Vec<u8>>, StateError> {
    match std::fs::read(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(io_error("cannot read", path)(error)),
    }
}

impl Running {
    /// The record of the process `pid`, which is alive.
    ///
    /// # Errors
    /// Those of reading `/proc/PID/stat`.
    pub fn of(pid: i32) -> io::Result<Self> {
        Ok(Self {
            init: pid,
            start_time: start_time(&std::fs::read_to_string(format!("/proc/{pid}/stat"))?)
                .ok_or(io::ErrorKind::InvalidData)?,
        })
    }

    /// A descriptor of the process, if it is still the same one.
    #[must_use]
    pub fn pidfd(&self) -> Option<OwnedFd> {
        let pid = rustix::process::Pid::from_raw(self.init)?;
        let pidfd = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).ok()?;
        // After the opening: from now on the id cannot pass to another process unnoticed.
        (Self::of(self.init).ok()? == *self).then_some(pidfd)
    }
}

/// Field 22 of `/proc/PID/stat`. The second field is a name in parentheses that may hold anything, also parentheses.
fn start_time(stat: &str) -> Option<u64> {
    stat.rsplit_once(')')?.1.split_ascii_whitespace().nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn start_time_survives_hostile_names() {
        let tail = "S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 424242 20";
        assert_eq!(start_time(&format!("7 (a) b) {tail}")), Some(424_242));
        assert_eq!(start_time("7 (a"), None);
    }

    #[test]
    fn this_process_is_itself_and_a_later_one_is_not() {
        let me = Running::of(rustix::process::getpid().as_raw_nonzero().get()).expect("own stat");
        assert!(me.pidfd().is_some());
        assert!(Running { start_time: me.start_time + 1, ..me }.pidfd().is_none());
    }

    /// If this fails, a field was renamed that other versions need: have the old name stay.
    #[test]
    fn what_other_versions_need_keeps_its_name() {
        let folder = tempfile::tempdir().expect("a folder");
        let write = |text: &str| std::fs::write(folder.path().join("cell.json"), text).expect("write");
        let project = r#"{"id":"0123456789abcdef","name":"web","root":"/web","branch":null,"colour":"red"}"#;
        let ids = r#"{"scheme":"single","uids":[{"inside":1,"outside":1,"size":1}],"gids":[]}"#;
        let rest = r#""supervisor":7,"started":8,"keep":true,"cgroups":["/sys/fs/cgroup/x"],"mood":"good""#;
        write(&format!(r#"{{"version":"9.1.0","cell":{{"ids":{ids},"project":{project},"shape":"round"}},{rest}}}"#));
        let Ok(Some(Read::Foreign(found))) = read(folder.path()) else { panic!("it is another version's") };
        assert_eq!(found.record.version.as_deref(), Some("9.1.0"));
        assert_eq!((found.record.supervisor, found.record.started, found.record.keep), (7, 8, true));
        assert_eq!(found.record.cgroups, [PathBuf::from("/sys/fs/cgroup/x")]);
        assert_eq!(found.record.cell.project.map(|project| project.name).as_deref(), Some("web"));
        for damaged in ["", "{", "{}", r#"{"version":"9.1.0"}"#] {
            write(damaged);
            assert!(matches!(read(folder.path()), Err(StateError::Damaged { .. })), "{damaged}");
        }
    }
}
