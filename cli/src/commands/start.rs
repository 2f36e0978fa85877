//! What `run`, `shell` and `bundle` have in common: from flags to a plan, and from a plan to a running cell.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use cellblock_bundle::{Cell, Mount, Network, RootFs};
use cellblock_rootfs::root::skeleton::Entry;
use cellblock_runtime::keep::Links;
use cellblock_runtime::state::{self, Claim, Dirs, Kept, StateError};
use cellblock_runtime::supervisor::{RuntimeError, Start};
use cellblock_runtime::{cgroup, cleanup};
use cellblock_sys::process::{Fork, SingleThreaded};
use rustix::fs::{Mode, OFlags};
use serde::Serialize;

use crate::agents::Agent;
use crate::args::values::Tty;
use crate::args::{StartFlags, Typed, Words};
use crate::commands::check;
use crate::commands::net::saved::saved_rules;
use crate::images::Image;
use crate::job::{Job, become_job};
use crate::output::{self, data, json, say};
use crate::project::remotes::Address;
use crate::report::CliError;
use crate::resolve::{
    self, AgentMissing, Explained, HostFacts, HostFiles, Inputs, ResolveError, Resolved, VariableWanted, numbered,
};
use crate::{agents, audit, brokers, config, images, login_shell, place, project, rungs, sandbox_md, secrets, signing};

/// Everything known before a cell is started.
#[derive(Debug)]
pub(crate) struct Ready {
    /// The host.
    pub(crate) host: HostFacts,
    /// What is meant.
    pub(crate) resolved: Resolved,
    /// The image.
    pub(crate) image: Image,
    /// The agent, if it is one that is known.
    pub(crate) agent: Option<Agent>,
    /// Where the project's remotes are, if somebody needs to know.
    pub(crate) remotes: Vec<Address>,
}

/// Does what `run` and `shell` do.
pub(crate) fn run(typed: &Typed) -> Result<i32, CliError> {
    // Not for clap to see: those two may stand behind an agent's name.
    if typed.start.json && !typed.start.dry_run && !typed.start.check {
        return Err(CliError::plain("`--json` prints a plan or a check", "use it with `--dry-run` or `--check`"));
    }
    let mut ready = plan(typed)?;
    if typed.start.check {
        return check::run(&ready);
    }
    brokers::tell(&ready.resolved.cell.brokers, &mut ready.resolved.cell.env);
    signing::arrange(&mut ready.resolved, &ready.host)?;
    brokers::make_room(&ready.resolved.cell)?;
    if ready.show(&typed.start)? {
        return Ok(0);
    }
    ready.start(&typed.start)
}

/// Makes the plan for what was typed.
pub(crate) fn plan(typed: &Typed) -> Result<Ready, CliError> {
    if matches!(&typed.words, Words::Command(words) if words.is_empty()) && typed.cell.entrypoint.is_none() {
        return Err(CliError::plain("no command given", "cellblock run -- COMMAND ARGS"));
    }
    let mut host = place::host()?;
    if typed.start.detach {
        if matches!(typed.cell.tty(), Some((Tty::Always, _))) {
            return Err(CliError::plain("a cell in the background has no terminal", "leave out `-t`, or `-d`"));
        }
        host.stdin_terminal = false;
    }
    let config = config::load(&place::config_file(&host))?;
    let agent = match &typed.words {
        Words::Agent { name, .. } => agents::find(name, &config)?,
        Words::Shell | Words::Command(_) => None,
    };
    let project = project::asked_for(&typed.cell, &host.cwd, host.uid)?;
    let inputs = Inputs {
        typed,
        config: &config,
        agent: agent.as_ref(),
        project: project.as_ref(),
        host: &host,
        files: &HostFiles,
    };
    let wanted = resolve::image(inputs)?;
    let installed = agent.as_ref().and_then(|agent| agents::installed(agent, &host));
    let (image, note) = Image::find(&wanted, &host, installed)?;
    let mut resolved = resolve::resolve(inputs, &wanted, &image.facts())?;
    if let (Network::Names | Network::Bridge, Some(project)) = (resolved.cell.network, &project) {
        let saved = saved_rules(&place::rules_file(&host, &project.id))?;
        saved.add_to(&mut resolved.cell.reach, !typed.cell.no_default_allow);
        resolve::add_trust(&resolved.cell.reach, &mut resolved.cell.env);
    }
    if resolved.cell.network == Network::Bridge {
        resolve::keep_addresses(&mut resolved.cell.reach)?;
    }
    for note in note.iter().chain(&resolved.notes) {
        say(&format!("cellblock: {note}"));
    }
    let remotes = match resolved.cell.brokers.ssh_agent {
        Some(_) => resolve::project_remotes(project.as_ref(), &HostFiles),
        None => Vec::new(),
    };
    Ok(Ready { host, resolved, image, agent, remotes })
}

/// The plan as JSON.
#[derive(Serialize)]
struct PlanDocument<'a> {
    cell: &'a Cell,
    image_mounts: &'a [Mount],
    keep: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    explain: Option<&'a [Explained]>,
}

impl Ready {
    /// Whether the writable layer outlives the cell: if that was asked for, or the person gave a name to come back to.
    fn keep(&self) -> bool {
        self.resolved.start.keep || (self.resolved.named && !self.resolved.start.rm)
    }

    /// Shows the plan instead of starting, if that was asked for.
    fn show(&self, start: &StartFlags) -> Result<bool, CliError> {
        if !start.dry_run && !start.explain {
            return Ok(false);
        }
        let mounts = self.image.mounts();
        if start.json {
            let explain = start.explain.then_some(self.resolved.explain.as_slice());
            json(&PlanDocument { cell: &self.resolved.cell, image_mounts: mounts, keep: self.keep(), explain })?;
            return Ok(true);
        }
        let row = |key: &str, value: &str, origin: String| {
            let mut row = vec![key.to_owned(), output::plain(value)];
            row.extend(start.explain.then_some(origin));
            row
        };
        let mut rows: Vec<_> =
            self.resolved.explain.iter().map(|e| row(&e.key, &e.value, e.origin.to_string())).collect();
        rows.extend(
            mounts.iter().map(|m| row("image mount", &format!("{} (ro)", m.target().display()), "image".into())),
        );
        let header: &[&str] = if start.explain { &["WHAT", "VALUE", "FROM"] } else { &["WHAT", "VALUE"] };
        data(&output::table(header, rows))?;
        Ok(true)
    }

    /// Starts the cell: this process becomes its supervisor. Returns only on failure, or at once with `detach`.
    fn start(mut self, flags: &StartFlags) -> Result<i32, CliError> {
        let dirs = Dirs { logs: self.resolved.log_dir.clone(), ..place::dirs(&self.host) };
        let rungs = rungs::to_try(&self.host.env)?;
        super::heal(&dirs)?;
        let claim = self.claim()?;
        let cell = &self.resolved.cell;
        let unfit = Kept::read(&dirs, &cell.name).filter(|kept| !kept.fits(cell));
        if let Some(kept) = unfit.as_ref().filter(|_| self.keep()) {
            let error = not_for(cell, kept);
            cleanup::release(claim);
            return Err(error);
        }
        audit::print(cell);
        for note in brokers::notes(&cell.brokers) {
            say(&format!("cellblock: {note}"));
        }
        let prepared =
            audit::ask(cell, &self.host, flags.yes || flags.detach).and_then(|()| self.image.prepare(cell, &self.host));
        let resolved = &self.resolved;
        let secrets = || resolved.secrets.iter().map(|s| secrets::read(s, &self.host)).collect::<Result<_, _>>();
        let variable = |v: &VariableWanted| Ok((v.name.clone(), secrets::variable(v, &self.host)?));
        let hidden = || resolved.hidden.iter().map(variable).collect::<Result<_, CliError>>();
        let prepared = prepared.and_then(|prepared| {
            self.check_agent(&prepared.0)?;
            let failed = |source| CliError::File { what: "cannot place the logs in", path: dirs.state.clone(), source };
            dirs.lead_to_logs(&cell.name).map_err(failed)?;
            let prepared = (prepared, secrets()?, hidden()?);
            // Only now that the cell is agreed to and nothing is missing: this cannot be undone.
            unfit.as_ref().map_or(Ok(()), |_| throw_away(&claim, &dirs, &self.host))?;
            Ok(prepared)
        });
        let ((mut root, mut skeleton), secrets, hidden) = match prepared {
            Ok(prepared) => prepared,
            Err(error) => {
                cleanup::release(claim);
                return Err(error);
            }
        };
        skeleton.extend(brokers::files(cell, &self.remotes, &self.host));
        let keep = self.keep();
        root.volatile = !keep;
        skeleton.push(sandbox_md::entry(&self.resolved.cell, keep));
        skeleton.extend(login_shell::entry(&self.resolved.cell));
        let cell = self.resolved.cell;
        let roots = secrets::roots(&self.host);
        let links =
            if cell.state.is_empty() { Links::default() } else { resolve::links(&self.host, &self.resolved.secret) };
        let start = Start {
            cell,
            root,
            limits: None,
            dirs,
            keep,
            detached: flags.detach,
            secrets,
            hidden,
            roots,
            rungs,
            links,
        };
        let env = &self.host.env;
        if flags.detach {
            detach(start, skeleton, claim, env)
        } else {
            Err(become_supervisor(start, skeleton, claim, env, None))
        }
    }

    /// Says that an agent is not there before anything is started, and how it gets there.
    pub(crate) fn check_agent(&self, root: &RootFs) -> Result<(), CliError> {
        match (&self.agent, self.resolved.cell.command.first()) {
            (Some(agent), Some(program)) if agents::missing(program, &self.resolved.cell, root) => {
                let missing = AgentMissing::new(agent, &self.resolved.cell.image);
                Err(ResolveError::NoAgent(Box::new(missing)).into())
            }
            _ => Ok(()),
        }
    }

    /// Takes the cell's name; one that was not chosen by the person gets a number if it is taken.
    fn claim(&mut self) -> Result<Claim, CliError> {
        /// A listing of the cells may have the lock for an instant.
        const PATIENCE: u32 = 2;
        let dirs = place::dirs(&self.host);
        let base = self.resolved.cell.name.clone();
        // A cell that nobody named and that keeps nothing would take what is kept of another for its own, and throw it away at its end.
        let goes_on = self.resolved.named || self.keep();
        let spares = |name: &str| goes_on || !state::is_kept(&dirs, name);
        for tries in 0..1000 {
            let name = &self.resolved.cell.name;
            let claimed = match (self.resolved.named, tries) {
                _ if !spares(name) => Err(StateError::NameTaken(name.clone())),
                (true, _) => state::claim(&dirs, name),
                (false, 0) => state::claim_within(&dirs, name, PATIENCE),
                (false, _) => state::claim_within(&dirs, name, 0),
            };
            match claimed {
                Ok(claim) if claim.is_stale() => super::heal_one(&dirs, claim)?,
                Ok(claim) => return Ok(claim),
                Err(StateError::NameTaken(_)) if !self.resolved.named => {
                    // The first that nobody has: with a number more at each try a hundred cells at once try five thousand times.
                    let taken = state::names(&dirs)?;
                    let free =
                        (2..).map(|number| numbered(&base, number)).find(|name| !taken.contains(name) && spares(name));
                    self.resolved.rename(&free.unwrap_or_default());
                }
                Err(error) => return Err(error.into()),
            }
        }
        Err(StateError::NameTaken(base).into())
    }
}

/// Throws away what is kept for the cell's name, which would be gone at its end.
fn throw_away(claim: &Claim, dirs: &Dirs, host: &HostFacts) -> Result<(), CliError> {
    let aside = cleanup::discard(dirs, claim)?;
    // What cannot be removed now is collected at the end of a cell that can.
    let _ = images::remove_foreign(vec![aside], host);
    Ok(())
}

/// Why a cell cannot have the layer that is kept for its name.
fn not_for(cell: &Cell, kept: &Kept) -> CliError {
    let (name, image) = (&cell.name, &kept.image);
    let (other, go_on) = if *image == cell.image {
        ("with ids that this one does not have".to_owned(), "the same `--userns`".to_owned())
    } else {
        (format!("on the image {image}, and this one would be on {}", cell.image), format!("`--image {image}`"))
    };
    CliError::plain(
        format!("what is kept of the cell `{name}` was made {other}"),
        &format!("{go_on} goes on with it; `cellblock remove {name}` throws it away"),
    )
}

/// `env` is the person's environment.
fn become_supervisor(
    mut start: Start,
    skeleton: Vec<Entry>,
    claim: Claim,
    env: &BTreeMap<String, String>,
    ready: Option<OwnedFd>,
) -> CliError {
    let ids = start.cell.ids.clone();
    // Before this process goes anywhere: what answers the cell stays in the person's namespaces and cgroup.
    let broker = match brokers::start(&start.cell, &start.dirs, env) {
        Ok(broker) => broker,
        Err(error) => {
            cleanup::release(claim);
            return error;
        }
    };
    // In this process: systemd may have to put it into a scope.
    start.limits = match cgroup::prepare(&start.cell.limits, &start.cell.name, !ids.rootless()) {
        Ok(plan) => plan,
        Err(error) => {
            cleanup::release(claim);
            return RuntimeError::from(error).into();
        }
    };
    for why in start.limits.iter().flat_map(cgroup::Plan::unenforced) {
        say(&format!("cellblock: {why}; it runs without"));
    }
    let Ok(lock) = state::share_lock(&claim) else {
        return CliError::plain("no file descriptor is left", "raise `ulimit -n`");
    };
    let descriptors = std::iter::once(lock).chain(broker).chain(ready).collect();
    let error = become_job(&Job::Supervise { start: Box::new(start), skeleton }, &ids, descriptors);
    cleanup::release(claim);
    error
}

/// Leaves a supervisor of its own session behind and prints the cell's name when the command has been started.
fn detach(start: Start, skeleton: Vec<Entry>, claim: Claim, env: &BTreeMap<String, String>) -> Result<i32, CliError> {
    let process = |what| move |source: std::io::Error| CliError::Process { what, source };
    let name = start.cell.name.clone();
    let log = start.dirs.log(&name);
    let file = log_file(&log)?;
    let (heard, ready) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)
        .map_err(|e| process("cannot make a pipe")(e.into()))?;
    let alone = SingleThreaded::prove().map_err(process("cannot go on"))?;
    match alone.fork().map_err(process("cannot fork"))? {
        Fork::Child => {
            drop(heard);
            let code = match settle(&file) {
                Ok(()) => crate::report::tell(&become_supervisor(start, skeleton, claim, env, Some(ready))),
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
