//! What is to be done for a cell's limits, as data, decided by looking and without changing anything.
//!
//! On v1 each controller's group is made below the process's own, so that limits around it still hold. On v2 a group with members cannot
//! hand controllers down ("no internal processes", cgroup-v2.rst), so the process must not stay in the parent of the cell's group.
//! In this order:
//! 1. Its own group is delegated and holds nobody else (`systemd-run --scope -p Delegate=yes`, a container of its own): the
//!    supervisor steps aside into a group below, the cell gets another beside it.
//! 2. systemd answers: it is asked for such a scope, and then 1.
//! 3. The nearest group above that the process may write, without members, and that hands the controllers down or may be told to. Where
//!    systemd runs the tree it is never told to: systemd would switch the controllers, and with them the limits, off again.

use std::path::{Path, PathBuf};

use cellblock_bundle::Limits;
use rustix::fs::{Access, AtFlags, CWD};
use serde::{Deserialize, Serialize};

use super::error::CgroupError;
use super::group;
use super::hierarchy::{Layout, NoPlace, Place};
use super::systemd::Manager;

/// How a group comes to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Way {
    /// v1: below the process's own.
    Own,
    /// v2: below a group without members.
    Below,
    /// v2: below the process's own, from which it first moves to another group below.
    StepAside,
}

/// One group to be made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Site {
    pub(super) parent: PathBuf,
    pub(super) way: Way,
    /// v2: what the parent must hand down.
    pub(super) controllers: Vec<String>,
    pub(super) files: Vec<File>,
}

/// A file of a group and what to write to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct File {
    pub(super) controller: String,
    pub(super) name: String,
    pub(super) value: String,
    /// The kernel may be without it.
    pub(super) optional: bool,
}

/// What is to be done. Travels to the supervisor as JSON.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    pub(super) sites: Vec<Site>,
    /// The memory limit in bytes, for the report at the end.
    pub(super) memory: Option<u64>,
    /// With `best_effort`: what is not enforced, and why.
    pub(super) unenforced: Vec<String>,
    pub(super) best_effort: bool,
}

impl Plan {
    /// The groups that [`Plan::create`] makes for the cell `cell`, in this very process: to be written down before, so that none stays if the
    /// process is killed.
    #[must_use]
    pub fn paths(&self, cell: &str) -> Vec<PathBuf> {
        self.sites.iter().map(|site| site.parent.join(group::name_of(cell))).collect()
    }

    /// With [`Limits::best_effort`]: which limits are not going to be enforced, and why.
    #[must_use]
    pub fn unenforced(&self) -> &[String] {
        &self.unenforced
    }
}

/// What the decision depends on besides the layout.
pub(super) struct Host<'a> {
    /// Real root: no cgroup namespace will be between the supervisor and the host.
    pub(super) root: bool,
    /// systemd manages the tree.
    pub(super) booted: bool,
    /// The process's own group is a scope that was made for it a moment ago.
    pub(super) ours: bool,
    /// Which systemd can be asked for a scope, or why none can.
    pub(super) manager: Result<Manager, &'a str>,
}

/// A decision.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Decision {
    Ready(Plan),
    /// Ask this systemd for a scope, then decide again.
    Scope(Manager),
}

/// A limit in terms of cgroups.
struct Setting {
    limit: &'static str,
    controller: &'static str,
    v1: Vec<File>,
    v2: Vec<File>,
}

/// The controller is the first part of the file's name.
fn file(name: &str, value: impl ToString, optional: bool) -> File {
    let controller = name.split('.').next().unwrap_or_default().to_owned();
    File { controller, name: name.into(), value: value.to_string(), optional }
}

/// Length of a period of the cpu controller in microseconds, the kernel's own default.
const PERIOD: u64 = 100_000;

fn settings(limits: &Limits) -> Vec<Setting> {
    let mut all = Vec::new();
    if let Some(bytes) = limits.memory {
        all.push(Setting {
            limit: "memory",
            controller: "memory",
            // memsw counts memory and swap together and must not be below the first; absent without swap accounting.
            v1: vec![
                file("memory.limit_in_bytes", bytes, false),
                file("memory.memsw.limit_in_bytes", bytes, true),
                file("memory.swappiness", 0, true),
            ],
            v2: vec![file("memory.max", bytes, false), file("memory.swap.max", 0, true)],
        });
    }
    if let Some(thousandths) = limits.cpus {
        let quota = thousandths.saturating_mul(PERIOD / 1000);
        all.push(Setting {
            limit: "cpus",
            controller: "cpu",
            v1: vec![file("cpu.cfs_period_us", PERIOD, false), file("cpu.cfs_quota_us", quota, false)],
            v2: vec![file("cpu.max", format!("{quota} {PERIOD}"), false)],
        });
    }
    if let Some(count) = limits.pids {
        let files = vec![file("pids.max", count, false)];
        all.push(Setting { limit: "pids", controller: "pids", v1: files.clone(), v2: files });
    }
    all
}

/// Decides for `limits` on a host with this `layout`.
pub(super) fn decide(limits: &Limits, layout: &Layout, host: &Host<'_>) -> Result<Decision, CgroupError> {
    let mut plan = Plan { memory: limits.memory, best_effort: limits.best_effort, ..Plan::default() };
    let mut unified: Vec<(Setting, Place)> = Vec::new();
    for setting in settings(limits) {
        match place(&setting, layout) {
            Ok(place) if place.v2 => unified.push((setting, place)),
            Ok(place) => plan.add(&place.own, Way::Own, &[], setting.v1),
            Err(error) => plan.tolerate(error)?,
        }
    }
    let Some(place) = unified.first().map(|(_, place)| place.clone()) else { return Ok(Decision::Ready(plan)) };
    if limits.best_effort {
        // One controller that cannot be had must not take the others with it.
        unified.retain(|(setting, _)| match unified_site(&place, &[setting], host) {
            Ok(_) => true,
            Err(error) => {
                plan.unenforced.push(error.to_string());
                false
            }
        });
    }
    let all: Vec<&Setting> = unified.iter().map(|(setting, _)| setting).collect();
    if all.is_empty() {
        return Ok(Decision::Ready(plan));
    }
    match unified_site(&place, &all, host) {
        Ok(Found::Scope(manager)) => return Ok(Decision::Scope(manager)),
        Ok(Found::Group(parent, way)) => {
            let controllers: Vec<&str> = all.iter().map(|s| s.controller).collect();
            plan.add(&parent, way, &controllers, unified.into_iter().flat_map(|(s, _)| s.v2).collect());
        }
        Err(error) => plan.tolerate(error)?,
    }
    Ok(Decision::Ready(plan))
}

impl Plan {
    /// Co-mounted v1 controllers share a group, as all share the one of v2.
    fn add(&mut self, parent: &Path, way: Way, controllers: &[&str], files: Vec<File>) {
        match self.sites.iter_mut().find(|site| site.parent == parent) {
            Some(site) => site.files.extend(files),
            None => {
                let controllers = controllers.iter().map(|&c| c.to_owned()).collect();
                self.sites.push(Site { parent: parent.to_owned(), way, controllers, files });
            }
        }
    }

    pub(super) fn tolerate(&mut self, error: CgroupError) -> Result<(), CgroupError> {
        if !self.best_effort {
            return Err(error);
        }
        self.unenforced.push(error.to_string());
        Ok(())
    }
}

/// Where the controller of a limit is; on v1 also whether a group can be made there.
fn place(setting: &Setting, layout: &Layout) -> Result<Place, CgroupError> {
    let &Setting { limit, controller, .. } = setting;
    let place = layout.place(controller).map_err(|why| CgroupError::NoPlace { limit, controller, why })?;
    if place.read_only {
        return Err(CgroupError::ReadOnly { limit, path: place.mount });
    }
    if !place.v2 && !writable(&place.own) {
        let why = "permission denied; on cgroup v1 only root may limit".into();
        return Err(CgroupError::NotDelegated { limit, path: place.own, why });
    }
    Ok(place)
}

enum Found {
    Group(PathBuf, Way),
    Scope(Manager),
}

/// The three ways of the module's comment.
fn unified_site(place: &Place, settings: &[&Setting], host: &Host<'_>) -> Result<Found, CgroupError> {
    let own = View::of(&place.own);
    let needs = |list: &[String]| settings.iter().find(|s| !list.iter().any(|c| c == s.controller)).copied();
    let managed = host.booted && !host.ours && !own.delegated();
    let missing = |setting: &Setting, path: &Path| {
        let &Setting { limit, controller, .. } = setting;
        CgroupError::NotHandedDown { limit, controller, path: path.to_owned() }
    };
    let in_own = needs(&own.controllers);
    if own.writable && !managed && in_own.is_none() && own.only_member_is_this_process() {
        return Ok(Found::Group(place.own.clone(), if own.top { Way::Below } else { Way::StepAside }));
    }
    let top = View::of(&place.mount);
    match (needs(&top.controllers), in_own) {
        (Some(&Setting { limit, controller, .. }), _) if top.top => {
            return Err(CgroupError::NoPlace { limit, controller, why: NoPlace::NoHierarchy });
        }
        (Some(setting), _) => return Err(missing(setting, &place.mount)),
        // A scope has what systemd itself was given.
        (None, Some(setting)) if host.ours => return Err(missing(setting, &place.own)),
        _ => {}
    }
    let said = match host.manager {
        Ok(manager) if !host.ours => return Ok(Found::Scope(manager)),
        Ok(_) => "",
        Err(said) => said,
    };
    let mut why = (place.own.clone(), "permission denied");
    for path in place.own.ancestors().take_while(|path| path.starts_with(&place.mount)) {
        let view = View::of(path);
        if !view.writable {
            break;
        }
        let crosses = !host.root && place.nsdelegate && path != place.own;
        why = match () {
            () if !view.top && !view.members.is_empty() => {
                (path.to_owned(), "it has members, and a cgroup with members cannot hand controllers down")
            }
            () if crosses => (path.to_owned(), "no process may be moved there across a cgroup namespace"),
            () if needs(&view.handed_down).is_none() => return Ok(Found::Group(path.to_owned(), Way::Below)),
            () if host.booted => (path.to_owned(), "systemd manages it and hands no controllers down"),
            () if needs(&view.controllers).is_none() => return Ok(Found::Group(path.to_owned(), Way::Below)),
            () => (path.to_owned(), "its parents do not hand the controllers down"),
        };
    }
    let limit = settings.first().map_or("resource", |s| s.limit);
    let (path, why) = why;
    let why = if said.is_empty() { why.to_owned() } else { format!("{why}; {said}") };
    Err(CgroupError::NotDelegated { limit, path, why })
}

/// What can be seen of a v2 group.
struct View {
    path: PathBuf,
    writable: bool,
    /// The top of the whole hierarchy, to which the rule of internal processes does not apply. It alone has no `cgroup.type`.
    top: bool,
    members: Vec<String>,
    controllers: Vec<String>,
    handed_down: Vec<String>,
}

impl View {
    fn of(path: &Path) -> Self {
        let words = |file: &str| -> Vec<String> {
            let text = std::fs::read_to_string(path.join(file)).unwrap_or_default();
            text.split_ascii_whitespace().map(str::to_owned).collect()
        };
        Self {
            path: path.to_owned(),
            writable: ["", "cgroup.procs", "cgroup.subtree_control"].iter().all(|file| writable(&path.join(file))),
            top: !path.join("cgroup.type").exists(),
            members: words("cgroup.procs"),
            controllers: words("cgroup.controllers"),
            handed_down: words("cgroup.subtree_control"),
        }
    }

    fn only_member_is_this_process(&self) -> bool {
        let own = rustix::process::getpid().as_raw_nonzero().to_string();
        self.top || self.members.iter().all(|member| *member == own)
    }

    /// systemd marks what it leaves to others (systemd 251; as root also on older ones).
    fn delegated(&self) -> bool {
        ["user.delegate", "trusted.delegate"].iter().any(|name| {
            let mut value = [0u8; 8];
            rustix::fs::getxattr(&self.path, *name, &mut value).is_ok_and(|length| value.get(..length) == Some(b"1"))
        })
    }
}

fn writable(path: &Path) -> bool {
    rustix::fs::accessat(CWD, path, Access::WRITE_OK, AtFlags::EACCESS).is_ok()
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
