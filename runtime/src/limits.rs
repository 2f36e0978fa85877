//! Resource limits by cgroups, on v1, hybrid and v2 hosts. libcontainer's own cgroup code is not used: it would move every cell into a
//! dozen groups, and fail without privilege on v1.
//!
//! Nothing is moved unless a limit asks for it: the write to `cgroup.procs` waits for an RCU grace period, 8 to 20 ms on an idle
//! machine. The groups are made below the caller's own, so that limits of the session around it still hold; on v2, where a group
//! with members cannot have controllers for its children ("no internal processes", cgroup-v2.rst), below the nearest ancestor that the
//! caller may write, which is what systemd delegates to a user's manager.
//!
//! All directories are opened before the supervisor covers `/sys/fs/cgroup`, and used by descriptor.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use cellblock_bundle::Limits;
use rustix::fs::{AtFlags, CWD, Mode, OFlags};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

/// Why a limit cannot be enforced.
#[derive(Debug, thiserror::Error)]
pub enum LimitError {
    /// The host has no such controller, or does not hand it down to the caller.
    #[error("a {limit} limit cannot be enforced: the {controller} controller is not available here")]
    NoController {
        /// Which limit.
        limit: &'static str,
        /// Which controller.
        controller: &'static str,
    },
    /// The caller may not make cgroups.
    #[error("limits cannot be enforced: no cgroup may be made in {path} ({source})", path = path.display())]
    NotDelegated {
        /// Where it was tried.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A limit was refused.
    #[error("cannot set {file} to {value}: {source}")]
    Refused {
        /// Which file of the group.
        file: &'static str,
        /// What it was to be.
        value: String,
        /// Why not.
        source: io::Error,
    },
}

/// The groups of one cell.
#[derive(Debug, Default)]
pub struct Cgroup {
    groups: Vec<Group>,
    memory: Option<u64>,
    /// Why limits are not enforced, if that was allowed.
    unenforced: Option<String>,
}

/// One directory: a v1 controller's, or the only one on v2.
#[derive(Debug)]
struct Group {
    parent: OwnedFd,
    name: String,
    path: PathBuf,
    dir: OwnedFd,
}

/// Where groups can be made, as a process in the host's cgroup namespace sees it. In OUTER, which has one of its own, a process no longer
/// learns the names of the groups it is in, so this is found out before, and travels.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Places(Vec<Place>);

impl Places {
    /// For the calling process.
    #[must_use]
    pub fn here() -> Self {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let (mountinfo, own) = (read("/proc/self/mountinfo"), read("/proc/self/cgroup"));
        Self(["memory", "cpu", "pids"].iter().filter_map(|c| place(c, &mountinfo, &own)).collect())
    }
}

/// Where one controller's groups are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Place {
    controller: String,
    v2: bool,
    /// The caller's own group.
    own: PathBuf,
    /// Where the hierarchy is mounted: nothing above it is ours to look at.
    mount: PathBuf,
}

/// Makes the groups that `limits` need, for the cell `name`. `None` if there is no limit.
///
/// # Errors
/// See [`LimitError`]; with `best_effort` there are none, and [`Cgroup::notes`] says what is not enforced.
pub fn for_limits(limits: &Limits, name: &str, places: &Places) -> Result<Option<Cgroup>, LimitError> {
    if !limits.any() {
        return Ok(None);
    }
    match make(limits, name, places) {
        Ok(cgroup) => Ok(Some(cgroup)),
        Err(error) if limits.best_effort => {
            Ok(Some(Cgroup { unenforced: Some(error.to_string()), ..Cgroup::default() }))
        }
        Err(error) => Err(error),
    }
}

/// A setting: the limit's name, its controller, and the file and value on v1 and on v2.
struct Setting {
    limit: &'static str,
    controller: &'static str,
    v1: Vec<(&'static str, String, bool)>,
    v2: Vec<(&'static str, String, bool)>,
}

/// The third value of a file says whether the kernel may lack it (swap accounting can be switched off).
fn settings(limits: &Limits) -> Vec<Setting> {
    let mut all = Vec::new();
    if let Some(bytes) = limits.memory {
        let bytes = bytes.to_string();
        all.push(Setting {
            limit: "memory",
            controller: "memory",
            v1: vec![
                ("memory.limit_in_bytes", bytes.clone(), false),
                ("memory.memsw.limit_in_bytes", bytes.clone(), true),
            ],
            v2: vec![("memory.max", bytes, false), ("memory.swap.max", "0".into(), true)],
        });
    }
    if let Some(thousandths) = limits.cpus {
        let quota = (thousandths * 100).to_string();
        all.push(Setting {
            limit: "cpu",
            controller: "cpu",
            v1: vec![("cpu.cfs_period_us", "100000".into(), false), ("cpu.cfs_quota_us", quota.clone(), false)],
            v2: vec![("cpu.max", format!("{quota} 100000"), false)],
        });
    }
    if let Some(count) = limits.pids {
        let count = count.to_string();
        all.push(Setting {
            limit: "pids",
            controller: "pids",
            v1: vec![("pids.max", count.clone(), false)],
            v2: vec![("pids.max", count, false)],
        });
    }
    all
}

fn make(limits: &Limits, name: &str, places: &Places) -> Result<Cgroup, LimitError> {
    let mut cgroup = Cgroup { memory: limits.memory, ..Cgroup::default() };
    for setting in settings(limits) {
        let Setting { limit, controller, .. } = setting;
        let place = places
            .0
            .iter()
            .find(|p| p.controller == controller)
            .ok_or(LimitError::NoController { limit, controller })?;
        let name = format!("{PREFIX}{name}");
        let group = match cgroup
            .groups
            .iter()
            .position(|g| g.path.parent() == Some(&place.own) || (place.v2 && g.path.starts_with(&place.mount)))
        {
            Some(at) => at,
            None => {
                let group = if place.v2 { Group::v2(place, &name)? } else { Group::make(&place.own, &name)? };
                cgroup.groups.push(group);
                cgroup.groups.len() - 1
            }
        };
        let Some(group) = cgroup.groups.get(group) else { continue };
        if place.v2 {
            group.enable(controller).map_err(|_| LimitError::NoController { limit, controller })?;
        }
        for (file, value, optional) in if place.v2 { setting.v2 } else { setting.v1 } {
            match write(&group.dir, file, &value) {
                Err(Errno::NOENT) if optional => {}
                Err(error) => return Err(LimitError::Refused { file, value, source: error.into() }),
                Ok(()) => {}
            }
        }
    }
    Ok(cgroup)
}

/// First part of the name of each of our groups: the only ones that are ever removed.
const PREFIX: &str = "cellblock-";

impl Group {
    fn make(parent: &Path, name: &str) -> Result<Self, LimitError> {
        let failed = |error: Errno| LimitError::NotDelegated { path: parent.to_owned(), source: error.into() };
        let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let fd = rustix::fs::open(parent, flags, Mode::empty()).map_err(failed)?;
        match rustix::fs::mkdirat(&fd, name, Mode::from_raw_mode(0o755)) {
            // Left by a cell of this name that was killed; it is empty, or the removal fails and so does this.
            Err(Errno::EXIST) => rustix::fs::unlinkat(&fd, name, AtFlags::REMOVEDIR)
                .and_then(|()| rustix::fs::mkdirat(&fd, name, Mode::from_raw_mode(0o755)))
                .map_err(failed)?,
            other => other.map_err(failed)?,
        }
        let dir = rustix::fs::openat(&fd, name, flags, Mode::empty()).map_err(failed)?;
        Ok(Self { parent: fd, name: name.to_owned(), path: parent.join(name), dir })
    }

    /// Below the highest ancestor of the caller's own group that the caller may write.
    fn v2(place: &Place, name: &str) -> Result<Self, LimitError> {
        let writable =
            |path: &Path| rustix::fs::accessat(CWD, path, rustix::fs::Access::WRITE_OK, AtFlags::EACCESS).is_ok();
        let parent = place
            .own
            .ancestors()
            .take_while(|path| path.starts_with(&place.mount))
            .take_while(|path| writable(path) && writable(&path.join("cgroup.procs")))
            .last();
        match parent {
            Some(parent) => Self::make(parent, name),
            None => Err(LimitError::NotDelegated {
                path: place.own.clone(),
                source: io::ErrorKind::PermissionDenied.into(),
            }),
        }
    }

    /// Hands a v2 controller down to the group, unless it is there already.
    fn enable(&self, controller: &str) -> rustix::io::Result<()> {
        let there = |dir: &OwnedFd, file: &str| read(dir, file).split_ascii_whitespace().any(|c| c == controller);
        if there(&self.dir, "cgroup.controllers") {
            return Ok(());
        }
        write(&self.parent, "cgroup.subtree_control", &format!("+{controller}"))?;
        if there(&self.dir, "cgroup.controllers") { Ok(()) } else { Err(Errno::NOENT) }
    }
}

impl Drop for Group {
    /// The kernel needs a moment after the last member's death.
    fn drop(&mut self) {
        for _ in 0..50 {
            match rustix::fs::unlinkat(&self.parent, &self.name, AtFlags::REMOVEDIR) {
                Err(Errno::BUSY) => std::thread::sleep(std::time::Duration::from_millis(2)),
                _ => return,
            }
        }
    }
}

impl Cgroup {
    /// Where to write one's own process id to be in the groups.
    ///
    /// # Errors
    /// [`LimitError::NotDelegated`].
    pub(crate) fn procs(&self) -> Result<Vec<OwnedFd>, LimitError> {
        self.groups
            .iter()
            .map(|g| {
                open_procs(&g.dir).map_err(|e| LimitError::NotDelegated { path: g.path.clone(), source: e.into() })
            })
            .collect()
    }

    /// The groups' directories, to be stored for whoever has to remove them.
    #[must_use]
    pub fn paths(&self) -> Vec<PathBuf> {
        self.groups.iter().map(|g| g.path.clone()).collect()
    }

    /// What a person should know after the end.
    #[must_use]
    pub fn notes(&self) -> Vec<String> {
        let mut notes: Vec<String> = self.unenforced.iter().map(|why| format!("{why}; it ran without")).collect();
        let kills: u64 = self
            .groups
            .iter()
            .map(|g| oom_kills(&read(&g.dir, "memory.oom_control")) + oom_kills(&read(&g.dir, "memory.events")))
            .sum();
        if let (Some(limit), true) = (self.memory, kills > 0) {
            notes.push(format!("the memory limit of {} MiB was reached: {kills} process(es) killed", limit >> 20));
        }
        notes
    }
}

/// The line `oom_kill N` of `memory.events` (v2) or `memory.oom_control` (v1, Linux 4.13).
fn oom_kills(text: &str) -> u64 {
    text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok()).unwrap_or(0)
}

/// Descriptors for another process that is to be in a running cell's groups.
///
/// # Errors
/// [`LimitError::NotDelegated`].
pub(crate) fn procs_of(paths: &[PathBuf]) -> Result<Vec<OwnedFd>, LimitError> {
    let open = |path: &PathBuf| {
        let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
        rustix::fs::open(path, flags, Mode::empty()).and_then(|dir| open_procs(&dir))
    };
    paths.iter().map(|p| open(p).map_err(|e| LimitError::NotDelegated { path: p.clone(), source: e.into() })).collect()
}

/// Removes groups that a killed supervisor has left; nothing but empty groups of ours.
pub(crate) fn remove_stale(paths: &[PathBuf]) {
    for path in paths {
        let ours = path.starts_with("/sys/fs/cgroup")
            && path.file_name().is_some_and(|n| n.as_encoded_bytes().starts_with(PREFIX.as_bytes()));
        if ours {
            let _ = rustix::fs::unlinkat(CWD, path, AtFlags::REMOVEDIR);
        }
    }
}

fn open_procs(dir: impl AsFd) -> rustix::io::Result<OwnedFd> {
    rustix::fs::openat(dir, "cgroup.procs", OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())
}

fn write(dir: &OwnedFd, file: &str, value: &str) -> rustix::io::Result<()> {
    let fd = rustix::fs::openat(dir, file, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
    rustix::io::write(&fd, value.as_bytes()).map(drop)
}

fn read(dir: &OwnedFd, file: &str) -> String {
    let mut text = String::new();
    if let Ok(fd) = rustix::fs::openat(dir, file, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()) {
        let _ = io::Read::read_to_string(&mut std::fs::File::from(fd), &mut text);
    }
    text
}

/// Where `controller` is for a process with these `/proc/self/mountinfo` and `/proc/self/cgroup`: its v1 hierarchy if there is one,
/// else the v2 one.
fn place(controller: &str, mountinfo: &str, own: &str) -> Option<Place> {
    let v1 = own.lines().find_map(|line| {
        let mut fields = line.splitn(3, ':');
        let (_, names, path) = (fields.next()?, fields.next()?, fields.next()?);
        names.split(',').any(|n| n == controller).then_some(path)
    });
    let (path, v2) = match v1 {
        Some(path) => (path, false),
        None => (own.lines().find_map(|line| line.strip_prefix("0::"))?, true),
    };
    let (root, mount) = mountinfo.lines().find_map(|line| {
        let (before, after) = line.split_once(" - ")?;
        let fields: Vec<&str> = before.split(' ').collect();
        let mut kind = after.split(' ');
        let fits = match kind.next()? {
            "cgroup2" => v2,
            "cgroup" => !v2 && kind.nth(1)?.split(',').any(|option| option == controller),
            _ => false,
        };
        fits.then_some((*fields.get(3)?, *fields.get(4)?))
    })?;
    // In a container the mount shows only a part of the hierarchy, named by its root field.
    let inside = Path::new(path).strip_prefix(root).ok()?;
    let own = Path::new(mount).join(inside);
    Some(Place { controller: controller.to_owned(), v2, own: own.components().collect(), mount: PathBuf::from(mount) })
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "30 25 0:26 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n31 25 0:27 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu,cpuacct\n32 25 0:28 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";

    #[test]
    fn hierarchies_are_told_apart() {
        let own = "5:memory:/a/b\n4:cpu,cpuacct:/\n0::/c\n";
        let memory = place("memory", HYBRID, own).expect("v1");
        assert_eq!((memory.v2, memory.own.as_path()), (false, Path::new("/sys/fs/cgroup/memory/a/b")));
        assert_eq!(place("cpu", HYBRID, own).expect("v1").own, Path::new("/sys/fs/cgroup/cpu"));
        let pids = place("pids", HYBRID, own).expect("falls to v2");
        assert_eq!((pids.v2, pids.own.as_path()), (true, Path::new("/sys/fs/cgroup/unified/c")));
    }

    #[test]
    fn a_container_sees_a_part_of_the_hierarchy() {
        let mountinfo = "30 25 0:26 /docker/abc /sys/fs/cgroup ro - cgroup2 cgroup rw\n";
        assert_eq!(place("memory", mountinfo, "0::/docker/abc/x\n").expect("v2").own, Path::new("/sys/fs/cgroup/x"));
        assert_eq!(place("memory", mountinfo, "0::/elsewhere\n"), None);
        assert_eq!(place("memory", "", ""), None);
    }

    #[test]
    fn kills_are_counted() {
        assert_eq!(oom_kills("low 0\noom 1\noom_kill 3\n"), 3);
        assert_eq!(oom_kills("oom_kill_disable 0\nunder_oom 0\noom_kill 2\n"), 2);
        assert_eq!(oom_kills(""), 0);
    }

    #[test]
    fn no_limit_makes_no_group() {
        assert!(for_limits(&Limits::default(), "x", &Places::default()).expect("nothing to do").is_none());
    }
}
