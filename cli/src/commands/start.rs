//! What `run`, `shell` and `bundle` have in common: from flags to a plan, and from a plan to a running cell.

use std::os::fd::OwnedFd;
use std::path::PathBuf;

use cellblock_bundle::{Project, RootFs};
use cellblock_rootfs::root::skeleton::Entry;
use cellblock_runtime::cleanup;
use cellblock_runtime::state::{self, Claim, StateError};
use cellblock_runtime::supervisor::Start;
use cellblock_sys::process::{Fork, SingleThreaded};
use rustix::fs::{Mode, OFlags};
use serde::Serialize;

use crate::facts::Facts;
use crate::flags::{CellFlags, StartFlags, Tty};
use crate::images::{self, Resolved};
use crate::job::{Job, become_job};
use crate::output::{self, data, json, say};
use crate::plan::{self, Plan, Sources};
use crate::report::CliError;
use crate::settings::{self, Settings};
use crate::{audit, git};

/// Everything known before a cell is started.
#[derive(Debug)]
pub(crate) struct Ready {
    /// The host.
    pub(crate) facts: Facts,
    /// What is meant.
    pub(crate) plan: Plan,
    /// The image.
    pub(crate) resolved: Resolved,
}

/// Makes the plan for `command` with `flags`.
pub(crate) fn plan(flags: &CellFlags, start: &StartFlags, command: &[String]) -> Result<Ready, CliError> {
    let mut facts = Facts::gather()?;
    if let Some(dir) = &flags.project_dir {
        facts.cwd = dir.canonicalize().map_err(|source| CliError::File {
            what: "cannot use the project folder",
            path: dir.clone(),
            source,
        })?;
    }
    if start.detach {
        facts.terminal = false;
    }
    let path = facts.config_file();
    let settings: Settings = settings::read(&path)?;
    let project = project(flags, &facts)?;
    if let Some(name) = &flags.name {
        plan::check_name(name).map_err(plan::PlanError::from)?;
    }
    let sources =
        Sources { flags, command, settings: &settings, settings_path: &path, facts: &facts, project: project.as_ref() };
    let wanted = sources.wanted()?;
    let (resolved, note) = images::resolve(&wanted, &facts)?;
    let mut plan = sources.plan(&wanted, &resolved.found())?;
    if flags.tty == Some(Tty::Always) && start.detach {
        return Err(CliError::plain("a cell in the background has no terminal", "leave out `-t`, or `-d`"));
    }
    if let Some(note) = note {
        say(&format!("cellblock: {note}"));
    }
    if let Some(first) = plan.explained.first_mut() {
        first.value.clone_from(&plan.cell.image);
    }
    Ok(Ready { facts, plan, resolved })
}

fn project(flags: &CellFlags, facts: &Facts) -> Result<Option<Project>, CliError> {
    if flags.no_project {
        return Ok(None);
    }
    let project = git::project(&facts.cwd)?;
    if !flags.force_project {
        plan::check_project(&project.root, facts)?;
    }
    Ok(Some(project))
}

/// The plan as JSON.
#[derive(Serialize)]
struct PlanDocument<'a> {
    cell: &'a cellblock_bundle::Cell,
    root: &'a RootFs,
    keep: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    explain: Option<&'a [plan::Explained]>,
}

impl Ready {
    /// Shows the plan instead of starting, if that was asked for.
    pub(crate) fn show(&self, start: &StartFlags) -> Result<bool, CliError> {
        if !start.dry_run && !start.explain {
            if start.json {
                return Err(CliError::plain("--json goes with --dry-run or --explain", "add one of them"));
            }
            return Ok(false);
        }
        let cell = &self.plan.cell;
        let dirs = self.facts.dirs();
        let root = match &self.resolved {
            Resolved::Host(image) => image.mounts.clone(),
            _ => Vec::new(),
        };
        let layer = dirs.layer(&cell.name);
        let root = RootFs {
            lowers: Vec::new(),
            shared: Vec::new(),
            upper: layer.join("upper"),
            work: layer.join("work"),
            mounts: root,
        };
        if start.json {
            let explain = start.explain.then_some(self.plan.explained.as_slice());
            json(&PlanDocument { cell, root: &root, keep: self.plan.keep, explain })?;
            return Ok(true);
        }
        let mut rows: Vec<Vec<String>> = self
            .plan
            .explained
            .iter()
            .map(|e| {
                let mut row = vec![e.key.clone(), output::plain(&e.value)];
                if start.explain {
                    row.push(e.origin.clone());
                }
                row
            })
            .collect();
        for mount in &root.mounts {
            let mut row = vec!["image mount".to_owned(), plan_mount(mount)];
            if start.explain {
                row.push("image".into());
            }
            rows.push(row);
        }
        let header: &[&str] = if start.explain { &["WHAT", "VALUE", "FROM"] } else { &["WHAT", "VALUE"] };
        data(&output::table(header, rows))?;
        Ok(true)
    }

    /// Starts the cell: this process becomes its supervisor. Returns only on failure, or at once with `detach`.
    pub(crate) fn start(mut self, flags: &StartFlags) -> Result<i32, CliError> {
        let dirs = self.facts.dirs();
        super::heal(&dirs)?;
        let claim = self.claim()?;
        audit::print(&self.plan.cell);
        let prepared = audit::ask(&self.plan.cell, &self.facts, flags.yes || flags.detach)
            .and_then(|()| self.resolved.prepare(&self.plan.cell, &self.facts));
        let (root, skeleton) = match prepared {
            Ok(prepared) => prepared,
            Err(error) => {
                cleanup::release(claim);
                return Err(error);
            }
        };
        let name = self.plan.cell.name.clone();
        let start = Start { cell: self.plan.cell, root, dirs, keep: self.plan.keep, detached: flags.detach };
        if flags.detach {
            detach(start, skeleton, claim, &name)
        } else {
            Err(become_supervisor(start, skeleton, claim, None))
        }
    }

    /// Takes the cell's name; one that was not chosen by the person gets a number if it is taken.
    fn claim(&mut self) -> Result<Claim, CliError> {
        let dirs = self.facts.dirs();
        let base = self.plan.cell.name.clone();
        let mut number = 1;
        loop {
            match state::claim(&dirs, &self.plan.cell.name) {
                Ok(claim) if claim.is_stale() => super::heal_one(&dirs, claim)?,
                Ok(claim) => return Ok(claim),
                Err(StateError::NameTaken(_)) if !self.plan.named && number < 1000 => {
                    number += 1;
                    let numbered = format!("{base}-{number}");
                    if self.plan.cell.hostname == self.plan.cell.name {
                        self.plan.cell.hostname.clone_from(&numbered);
                    }
                    self.plan.cell.env.insert("CELLBLOCK_NAME".into(), numbered.clone());
                    self.plan.cell.name = numbered;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }
}

fn plan_mount(mount: &cellblock_bundle::Mount) -> String {
    match mount {
        cellblock_bundle::Mount::Bind { source, .. } => format!("{} (ro)", source.display()),
        cellblock_bundle::Mount::Tmpfs { target, .. } => format!("tmpfs {}", target.display()),
    }
}

fn become_supervisor(start: Start, skeleton: Vec<Entry>, claim: Claim, ready: Option<OwnedFd>) -> CliError {
    let ids = start.cell.ids.clone();
    let Ok(lock) = state::share_lock(&claim) else {
        return CliError::plain("no file descriptor is left", "raise `ulimit -n`");
    };
    let descriptors = std::iter::once(lock).chain(ready).collect();
    let error = become_job(&Job::Supervise { start: Box::new(start), skeleton }, &ids, descriptors);
    cleanup::release(claim);
    error
}

/// Leaves a supervisor of its own session behind and prints the cell's name when the command has been started.
fn detach(start: Start, skeleton: Vec<Entry>, claim: Claim, name: &str) -> Result<i32, CliError> {
    let process = |what| move |source: std::io::Error| CliError::Process { what, source };
    let log = start.dirs.log(name);
    let file = log_file(&log)?;
    let (heard, ready) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)
        .map_err(|e| process("cannot make a pipe")(e.into()))?;
    let alone = SingleThreaded::prove().map_err(process("cannot go on"))?;
    match alone.fork().map_err(process("cannot fork"))? {
        Fork::Child => {
            drop(heard);
            let code = match settle(&file) {
                Ok(()) => crate::report::tell(&become_supervisor(start, skeleton, claim, Some(ready))),
                Err(error) => crate::report::tell(&process("cannot go to the background")(error)),
            };
            cellblock_sys::process::exit_now(code)
        }
        Fork::Parent(pid) => {
            drop((ready, claim));
            let mut word = String::new();
            let _ = std::io::Read::read_to_string(&mut std::fs::File::from(heard), &mut word);
            if word == "started" {
                data(&format!("{name}\n"))?;
                return Ok(0);
            }
            // What it had to say is in the log; here it is the answer.
            let _ = rustix::process::waitpid(Some(pid), rustix::process::WaitOptions::empty());
            let text = std::fs::read_to_string(&log).unwrap_or_default();
            say(text.trim_end());
            Ok(cellblock_runtime::exit::OURS)
        }
    }
}

fn log_file(path: &PathBuf) -> Result<OwnedFd, CliError> {
    let failed = |source| CliError::File { what: "cannot write the log", path: path.clone(), source };
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent).map_err(failed)?;
    }
    let flags = OFlags::CREATE | OFlags::TRUNC | OFlags::WRONLY | OFlags::APPEND | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    rustix::fs::open(path, flags, Mode::RUSR | Mode::WUSR).map_err(|e| failed(e.into()))
}

/// A session of its own, nothing to read, everything written to the log.
fn settle(log: &OwnedFd) -> std::io::Result<()> {
    rustix::process::setsid()?;
    let null = rustix::fs::open(c"/dev/null", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    rustix::stdio::dup2_stdin(&null)?;
    rustix::stdio::dup2_stdout(log)?;
    Ok(rustix::stdio::dup2_stderr(log)?)
}
