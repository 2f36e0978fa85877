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
mod hierarchy;
mod plan;
mod systemd;

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use cellblock_bundle::Limits;

pub use error::CgroupError;
use group::{Group, write_at};
use hierarchy::Layout;
pub use hierarchy::{Hierarchy, NoPlace};
pub use plan::Plan;
use plan::{Decision, Host, Site, Way};
use systemd::Manager;

/// What a process can see of its cgroups.
struct Surroundings<'a> {
    mountinfo: &'a Path,
    cgroup: &'a Path,
    /// Whether systemd runs the host.
    booted: bool,
    /// Where the person's own systemd is asked if the environment does not say.
    bus: &'a Path,
}

impl Surroundings<'_> {
    fn layout(&self) -> Layout {
        let read = |path| std::fs::read(path).map(|b| String::from_utf8_lossy(&b).into_owned()).unwrap_or_default();
        Layout::parse(&read(self.mountinfo), &read(self.cgroup))
    }
}

fn surroundings(bus: &Path) -> Surroundings<'_> {
    let [mountinfo, cgroup] = ["/proc/self/mountinfo", "/proc/self/cgroup"].map(Path::new);
    Surroundings { mountinfo, cgroup, booted: systemd::booted(), bus }
}

/// Finds out how `limits` of the cell `cell` can be enforced, for the calling process. `None` if nothing is limited.
///
/// `root` is whether the supervisor stays in the host's user and cgroup namespaces. Where systemd has to be asked, this process is in a
/// scope of its own afterwards; it should be the one that becomes the supervisor.
///
/// # Errors
/// See [`CgroupError`]; none with [`Limits::best_effort`], where [`Plan::unenforced`] says what is not enforced.
pub fn prepare(limits: &Limits, cell: &str, root: bool) -> Result<Option<Plan>, CgroupError> {
    if limits.any() { prepare_in(limits, cell, root, &surroundings(&systemd::own_bus())).map(Some) } else { Ok(None) }
}

fn prepare_in(limits: &Limits, cell: &str, root: bool, seen: &Surroundings<'_>) -> Result<Plan, CgroupError> {
    let manager = if seen.booted { Ok(Manager::of(root)) } else { Err("") };
    let host = Host { root, booted: seen.booted, ours: false, manager };
    let manager = match plan::decide(limits, &seen.layout(), &host)? {
        Decision::Ready(plan) => return Ok(plan),
        Decision::Scope(manager) => manager,
    };
    let entered = manager.enter_scope(cell, seen.cgroup, seen.bus);
    // Without a scope there may be another way; if not, systemd's own words are the reason.
    let said = entered.as_ref().err().map(ToString::to_string).unwrap_or_default();
    let host = Host { ours: entered.is_ok(), manager: Err(&said), ..host };
    match plan::decide(limits, &seen.layout(), &host)? {
        Decision::Ready(plan) => Ok(plan),
        Decision::Scope(_) => Err(CgroupError::Systemd("it was asked, and its answer changed nothing".into())),
    }
}

/// How this host arranges its cgroups.
#[must_use]
pub fn hierarchy() -> Hierarchy {
    surroundings(Path::new("")).layout().hierarchy()
}

/// Whether the systemd that would be asked for a scope answers; its words if not. `None` if systemd does not run this host.
pub(crate) fn systemd_answers(root: bool) -> Option<Result<(), String>> {
    systemd::booted().then(|| Manager::of(root).answers(&systemd::own_bus()))
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

impl Plan {
    /// Makes the groups of the cell `cell` and sets their limits. Nobody is in them yet, but with systemd's scope this process moves to
    /// a group beside the cell's.
    ///
    /// # Errors
    /// See [`CgroupError`]; what was made until then is removed. None with [`Limits::best_effort`].
    pub fn create(mut self, cell: &str) -> Result<Cgroup, CgroupError> {
        let mut cgroup = Cgroup::default();
        cgroup.memory = self.memory;
        // What the plan says of itself has been told before the start.
        self.unenforced.clear();
        for site in std::mem::take(&mut self.sites) {
            if let Err(error) = cgroup.add(&site, cell, &mut |error| self.tolerate(error)) {
                self.tolerate(error)?;
            }
        }
        cgroup.unenforced = self.unenforced;
        Ok(cgroup)
    }
}

/// Gives an error back, or takes note of it where the cell may do without the limit.
type Tolerate<'a> = &'a mut dyn FnMut(CgroupError) -> Result<(), CgroupError>;

impl Cgroup {
    fn add(&mut self, site: &Site, cell: &str, tolerate: Tolerate<'_>) -> Result<(), CgroupError> {
        let missing = match site.way {
            Way::Own => Vec::new(),
            Way::Below => hand_down(&open(&site.parent)?, site, tolerate)?,
            Way::StepAside => self.step_aside(site, tolerate)?,
        };
        let group = Group::make(&site.parent, &group::name_of(cell))?;
        match configure(&group, site, missing, tolerate) {
            Ok(true) => self.groups.push(group),
            Ok(false) => drop(group.remove()),
            Err(error) => {
                let _ = group.remove();
                return Err(error);
            }
        }
        Ok(())
    }

    fn step_aside<'a>(&mut self, site: &'a Site, tolerate: Tolerate<'_>) -> Result<Vec<&'a str>, CgroupError> {
        let from = open(&site.parent)?;
        let to = Group::make(&site.parent, group::ASIDE)?;
        let moved = to.write("cgroup.procs", "0");
        // From here on dropping undoes it.
        let aside = self.aside.insert(Aside { from, to, controllers: site.controllers.clone() });
        moved?;
        hand_down(&aside.from, site, tolerate)
    }

    /// Descriptors to which a process writes `0` to be in the groups.
    ///
    /// # Errors
    /// [`CgroupError::Write`].
    pub fn procs(&self) -> Result<Vec<OwnedFd>, CgroupError> {
        self.groups.iter().map(Group::procs).collect()
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
        // A group that hands controllers down takes no members: first that is undone, for those that could be handed down.
        let there = group::read_at(&self.from, "cgroup.subtree_control");
        for controller in self.controllers.iter().filter(|c| there.split_ascii_whitespace().any(|t| t == *c)) {
            write_at(&self.from, "cgroup.subtree_control", &format!("-{controller}"))?;
        }
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

/// Hands the site's controllers down to the groups below `parent`, those that are not yet. One at a time, so that one that cannot be had does
/// not take the others with it; gives those.
fn hand_down<'a>(parent: &OwnedFd, site: &'a Site, tolerate: Tolerate<'_>) -> Result<Vec<&'a str>, CgroupError> {
    let there = group::read_at(parent, "cgroup.subtree_control");
    let mut missing = Vec::new();
    for controller in &site.controllers {
        if there.split_ascii_whitespace().any(|t| t == controller) {
            continue;
        }
        let value = format!("+{controller}");
        if let Err(error) = write_at(parent, "cgroup.subtree_control", &value) {
            let path = site.parent.join("cgroup.subtree_control");
            tolerate(CgroupError::Write { path, value, source: error.into() })?;
            missing.push(controller.as_str());
        }
    }
    Ok(missing)
}

/// Sets the limits but those of the controllers `missing`. Whether any could be set.
fn configure<'a>(
    group: &Group,
    site: &'a Site,
    mut missing: Vec<&'a str>,
    tolerate: Tolerate<'_>,
) -> Result<bool, CgroupError> {
    let mut any = false;
    for file in &site.files {
        if missing.contains(&file.controller.as_str()) {
            continue;
        }
        match group.write(&file.name, &file.value) {
            Ok(()) => any = true,
            Err(error) if file.optional && error.is_absent() => {}
            Err(error) => {
                tolerate(error)?;
                missing.push(&file.controller);
            }
        }
    }
    Ok(any)
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
    /// In words, if a process was killed because of the memory limit.
    #[must_use]
    pub fn out_of_memory(&self) -> Option<String> {
        let limit = self.memory_limit.filter(|_| self.oom_kills > 0)?;
        let size = if limit < 1 << 20 { format!("{} KiB", limit >> 10) } else { format!("{} MiB", limit >> 20) };
        let processes = if self.oom_kills == 1 { "process" } else { "processes" };
        let kills = self.oom_kills;
        Some(format!("killed: out of memory (the memory limit of {size} was reached, {kills} {processes} killed)"))
    }

    /// In words, one line a limit that was reached.
    #[must_use]
    pub fn words(&self) -> Vec<String> {
        let mut words: Vec<String> = self.out_of_memory().into_iter().collect();
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

/// Moves this process into the groups of a running cell: `procs` of [`procs_of`] for its `paths`. Where the kernel forbids it, from a login
/// session into a scope of the person's own, systemd is asked to do it.
///
/// # Errors
/// The kernel's, if systemd cannot help.
pub(crate) fn join(procs: &[OwnedFd], paths: &[PathBuf], root: bool) -> io::Result<()> {
    for (procs, path) in procs.iter().zip(paths) {
        let Err(error) = rustix::io::write(procs, b"0") else { continue };
        let moved = match systemd::scope_of(path) {
            Some((unit, inside)) if systemd::booted() => {
                Manager::of(root).attach(&unit, &inside, &systemd::own_bus()).is_ok()
            }
            _ => false,
        };
        if !moved {
            return Err(error.into());
        }
    }
    Ok(())
}

/// Removes groups that a killed supervisor has left, and gives those that could not be removed, with the reason. Paths that are no groups of
/// ours are left alone.
#[must_use]
pub fn remove_stale(paths: &[PathBuf]) -> Vec<(PathBuf, io::Error)> {
    paths.iter().filter_map(|path| Some((path.clone(), group::remove_stale(path).err()?))).collect()
}

#[cfg(test)]
mod systemd_tests;
#[cfg(test)]
mod tests;
