//! Resource limits by cgroups, on v1, hybrid and v2 hosts. libcontainer's own cgroup code is not used: it would move every cell into a
//! dozen groups, and fail without privilege on v1.
//!
//! Nothing is moved unless a limit asks for it: the write to `cgroup.procs` waits for an RCU grace period, 8 to 20 ms on an idle
//! machine. Two steps, because OUTER's cgroup namespace hides the names that the first one has to read:
//! [`prepare`], in the person's own namespaces and in the very process that becomes the supervisor, finds out where groups can be made
//! (and has systemd move this process into a scope where that is the way); [`Plan::create`], in OUTER and before `/sys/fs/cgroup` is
//! covered there, makes them. Everything after that goes by descriptor.

mod error;
mod group;
pub mod hierarchy;
mod plan;
mod systemd;

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use cellblock_bundle::Limits;

pub use error::CgroupError;
use group::{Group, write_at};
use hierarchy::{Hierarchy, Layout};
pub use plan::Plan;
use plan::{Decision, Host, Site, Way};
pub use systemd::{Manager, booted as systemd_booted};

/// Finds out how `limits` of the cell `cell` can be enforced, for the calling process. `None` if nothing is limited.
///
/// `root` is whether the supervisor stays in the host's user and cgroup namespaces. Where systemd has to be asked, this process is in a
/// scope of its own afterwards; it should be the one that becomes the supervisor.
///
/// # Errors
/// See [`CgroupError`]; none with [`Limits::best_effort`], where [`Plan::unenforced`] says what is not enforced.
pub fn prepare(limits: &Limits, cell: &str, root: bool) -> Result<Option<Plan>, CgroupError> {
    if !limits.any() {
        return Ok(None);
    }
    let manager = || Manager::reachable(root);
    let mut host = Host { root, booted: systemd::booted(), ours: false, manager: &manager };
    let decision = match plan::decide(limits, &layout(), &host)? {
        Decision::Scope(manager) => match manager.enter_scope(cell) {
            Ok(()) => {
                host.ours = true;
                plan::decide(limits, &layout(), &host)?
            }
            Err(error) => {
                let nobody = || None;
                let without = Host { manager: &nobody, ..host };
                // systemd said no: what else there is, and if there is nothing, its own words.
                match plan::decide(limits, &layout(), &without) {
                    Ok(Decision::Ready(plan)) if plan.unenforced().is_empty() => Decision::Ready(plan),
                    _ => {
                        let mut plan = Plan { best_effort: limits.best_effort, ..Plan::default() };
                        plan.tolerate(error)?;
                        Decision::Ready(plan)
                    }
                }
            }
        },
        ready => ready,
    };
    match decision {
        Decision::Ready(plan) => Ok(Some(plan)),
        // `ours` is set: not asked twice.
        Decision::Scope(_) => Err(CgroupError::Systemd("it was asked, and its answer changed nothing".into())),
    }
}

/// What `prepare` would say, without asking systemd for anything but its version.
///
/// # Errors
/// See [`CgroupError`].
pub fn check(limits: &Limits, root: bool) -> Result<Option<Manager>, CgroupError> {
    let manager = || Manager::reachable(root);
    let host = Host { root, booted: systemd::booted(), ours: false, manager: &manager };
    match plan::decide(limits, &layout(), &host)? {
        Decision::Ready(_) => Ok(None),
        Decision::Scope(manager) => Ok(Some(manager)),
    }
}

/// How this host arranges its cgroups.
#[must_use]
pub fn hierarchy() -> Hierarchy {
    layout().hierarchy()
}

fn layout() -> Layout {
    let read = |path: &str| std::fs::read(path).map(|b| String::from_utf8_lossy(&b).into_owned()).unwrap_or_default();
    Layout::parse(&read("/proc/self/mountinfo"), &read("/proc/self/cgroup"))
}

/// The groups of one cell. Dropping removes them.
#[derive(Debug, Default)]
pub struct Cgroup {
    groups: Vec<Group>,
    aside: Option<Aside>,
    memory: Option<u64>,
    unenforced: Vec<String>,
}

/// The group that this process has moved to, so that its old one can have controllers below.
#[derive(Debug)]
struct Aside {
    /// The old one.
    from: OwnedFd,
    to: Group,
    controllers: Vec<String>,
}

/// Name of the group of an [`Aside`]. No cell is called so: `=` is in no cell's name.
const ASIDE: &str = "=supervisor";

impl Plan {
    /// Makes the groups of the cell `cell` and sets their limits. Nobody is in them yet, but with systemd's scope this process moves to
    /// a group beside the cell's.
    ///
    /// # Errors
    /// See [`CgroupError`]; what was made until then is removed. None with [`Limits::best_effort`].
    pub fn create(mut self, cell: &str) -> Result<Cgroup, CgroupError> {
        let mut cgroup = Cgroup::default();
        cgroup.memory = self.memory;
        for site in std::mem::take(&mut self.sites) {
            if let Err(error) = cgroup.add(&site, cell) {
                self.tolerate(error)?;
            }
        }
        cgroup.unenforced = self.unenforced;
        Ok(cgroup)
    }
}

impl Cgroup {
    fn add(&mut self, site: &Site, cell: &str) -> Result<(), CgroupError> {
        if site.way == Way::StepAside {
            self.step_aside(site)?;
        } else if site.way == Way::Below {
            let parent = open(&site.parent)?;
            hand_down(&parent, &site.parent, &site.controllers)?;
        }
        let group = Group::make(&site.parent, cell)?;
        let set = configure(&group, site);
        match set {
            Ok(()) => self.groups.push(group),
            Err(_) => drop(group.remove()),
        }
        set
    }

    fn step_aside(&mut self, site: &Site) -> Result<(), CgroupError> {
        let from = open(&site.parent)?;
        let to = Group::make(&site.parent, ASIDE)?;
        let moved = to.write("cgroup.procs", "0");
        // From here on dropping undoes it.
        self.aside = Some(Aside { from, to, controllers: site.controllers.clone() });
        moved?;
        match &self.aside {
            Some(aside) => hand_down(&aside.from, &site.parent, &site.controllers),
            None => Ok(()),
        }
    }

    /// Descriptors to which a process writes `0` to be in the groups.
    ///
    /// # Errors
    /// [`CgroupError::Write`].
    pub fn procs(&self) -> Result<Vec<OwnedFd>, CgroupError> {
        self.groups.iter().map(Group::procs).collect()
    }

    /// Moves this process into the groups.
    ///
    /// # Errors
    /// [`CgroupError::Write`].
    pub fn join_self(&self) -> Result<(), CgroupError> {
        self.groups.iter().try_for_each(|group| group.write("cgroup.procs", "0"))
    }

    /// The v2 group's directory, for `clone3(2)` with `CLONE_INTO_CGROUP`, which does not wait for a grace period as a move does.
    /// `None` if any group is a v1 one.
    #[must_use]
    pub fn clone_target(&self) -> Option<BorrowedFd<'_>> {
        match self.groups.as_slice() {
            [group] if rustix::fs::statat(&group.dir, "cgroup.events", rustix::fs::AtFlags::empty()).is_ok() => {
                Some(group.dir.as_fd())
            }
            _ => None,
        }
    }

    /// The groups' directories, to be stored for whoever has to remove them after a crash.
    #[must_use]
    pub fn paths(&self) -> Vec<PathBuf> {
        self.groups.iter().map(|g| g.path.clone()).collect()
    }

    /// What the kernel counted.
    #[must_use]
    pub fn report(&self) -> Report {
        let number = |file: &str| self.groups.iter().find_map(|g| g.read(file).trim().parse().ok());
        let count = |file: &str, key: &str| self.groups.iter().map(|g| keyed(&g.read(file), key)).sum();
        let oom: u64 = count("memory.events", "oom_kill");
        let pids: u64 = count("pids.events", "max");
        Report {
            memory_limit: self.memory,
            memory_peak: number("memory.peak").or_else(|| number("memory.max_usage_in_bytes")),
            oom_kills: oom + count("memory.oom_control", "oom_kill"),
            forks_refused: pids,
        }
    }

    /// What a person should know at the end: limits that were not enforced, and those that were reached.
    #[must_use]
    pub fn notes(&self) -> Vec<String> {
        self.unenforced.iter().map(|why| format!("{why}; it ran without")).chain(self.report().words()).collect()
    }

    /// Removes the groups, which are empty by now; waits a moment for the kernel to notice.
    ///
    /// # Errors
    /// Those of `rmdir(2)`; the last one, after all were tried.
    pub fn remove(mut self) -> io::Result<()> {
        self.take_down()
    }

    fn take_down(&mut self) -> io::Result<()> {
        let mut result = Ok(());
        for group in self.groups.drain(..) {
            result = group.remove().and(result);
        }
        if let Some(aside) = self.aside.take() {
            result = aside.back().and(result);
        }
        result
    }
}

impl Aside {
    fn back(self) -> io::Result<()> {
        // A group that hands controllers down takes no members: first that is undone.
        let off: Vec<String> = self.controllers.iter().map(|c| format!("-{c}")).collect();
        write_at(&self.from, "cgroup.subtree_control", &off.join(" "))?;
        write_at(&self.from, "cgroup.procs", "0")?;
        self.to.remove()
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let _ = self.take_down();
    }
}

fn open(path: &Path) -> Result<OwnedFd, CgroupError> {
    group::open_dir(path).map_err(|e| CgroupError::Make { path: path.to_owned(), source: e.into() })
}

/// Hands controllers down to the groups below `parent`, those that are not yet.
fn hand_down(parent: &OwnedFd, path: &Path, controllers: &[String]) -> Result<(), CgroupError> {
    let there = group::read_at(parent, "cgroup.subtree_control");
    let missing: Vec<String> = controllers
        .iter()
        .filter(|c| !there.split_ascii_whitespace().any(|t| t == *c))
        .map(|c| format!("+{c}"))
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let value = missing.join(" ");
    write_at(parent, "cgroup.subtree_control", &value).map_err(|e| CgroupError::Write {
        path: path.join("cgroup.subtree_control"),
        value,
        source: e.into(),
    })
}

fn configure(group: &Group, site: &Site) -> Result<(), CgroupError> {
    for file in &site.files {
        match group.write(&file.name, &file.value) {
            Err(_) if file.optional => {}
            other => other?,
        }
    }
    Ok(())
}

/// What the kernel counted for a cell.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// The limit in bytes.
    pub memory_limit: Option<u64>,
    /// The most memory used at any time, in bytes. v2: Linux 5.19.
    pub memory_peak: Option<u64>,
    /// Processes killed because the memory limit was reached. v1: Linux 4.13.
    pub oom_kills: u64,
    /// Forks refused because of the limit of processes. Linux 4.5.
    pub forks_refused: u64,
}

impl Report {
    /// In words, one line a limit that was reached.
    #[must_use]
    pub fn words(&self) -> Vec<String> {
        let mut words = Vec::new();
        if let (Some(limit), true) = (self.memory_limit, self.oom_kills > 0) {
            let processes = if self.oom_kills == 1 { "process" } else { "processes" };
            words.push(format!(
                "killed: out of memory (the memory limit of {} MiB was reached, {} {processes} killed)",
                limit >> 20,
                self.oom_kills
            ));
        }
        if self.forks_refused > 0 {
            words.push(format!("the limit of processes was reached: {} more refused", self.forks_refused));
        }
        words
    }
}

/// The number in the line `KEY NUMBER`.
fn keyed(text: &str, key: &str) -> u64 {
    text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.trim().parse().ok()).unwrap_or(0)
}

/// Descriptors for another process that is to be in a running cell's groups; see [`Cgroup::procs`].
///
/// # Errors
/// [`CgroupError::Write`].
pub fn procs_of(paths: &[PathBuf]) -> Result<Vec<OwnedFd>, CgroupError> {
    paths
        .iter()
        .map(|path| {
            group::open_dir(path).and_then(group::open_procs).map_err(|e| CgroupError::Write {
                path: path.join("cgroup.procs"),
                value: "0".into(),
                source: e.into(),
            })
        })
        .collect()
}

/// Moves this process into the groups of a running cell, with systemd's help where the kernel does not let it (from a login session into
/// a scope of the person's own).
///
/// # Errors
/// [`CgroupError::Write`], [`CgroupError::Systemd`].
pub fn join(paths: &[PathBuf], root: bool) -> Result<(), CgroupError> {
    for path in paths {
        let direct = group::open_dir(path).and_then(|dir| write_at(dir, "cgroup.procs", "0"));
        let Err(error) = direct else { continue };
        let manager = if root { Manager::System } else { Manager::User };
        match systemd::scope_of(path) {
            Some((unit, inside)) if systemd::booted() => manager.attach(&unit, &inside)?,
            _ => {
                let path = path.join("cgroup.procs");
                return Err(CgroupError::Write { path, value: "0".into(), source: error.into() });
            }
        }
    }
    Ok(())
}

/// Removes groups that a killed supervisor has left. Paths that are no empty groups of ours are left alone.
pub fn remove_stale(paths: &[PathBuf]) {
    for path in paths {
        let _ = group::remove_stale(path);
    }
}

#[cfg(test)]
mod tests;
