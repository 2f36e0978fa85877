//! The guard of one cell: sets it up, hands signals and terminal bytes on, waits for its end, cleans up after it.
//!
//! Single-threaded, no async: a start that runs from top to bottom ([`supervise`]) and one poll loop (`watch`).

use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use cellblock_bundle::{Cell, Mount, Network, RootFs, cell, spec};
use cellblock_egress::gateway::Rung;
use cellblock_egress::serve::Hidden;
use cellblock_sys::process::SingleThreaded;
use cellblock_sys::signal::{SignalFd, SignalSet};
use rustix::fs::{Mode, OFlags};
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use rustix::process::Pid;
use serde::{Deserialize, Serialize};

use crate::builder::{BuildError, Builder, Handed, Order};
use crate::cgroup::Cgroup;
use crate::cleanup;
use crate::covers::Covers;
use crate::guard::Post;
use crate::keep::{self, KeepError, Keeper, Laid, Links};
use crate::network::Connected;
use crate::outer;
use crate::report::Stage;
use crate::root::Plan;
use crate::stage::{hide_cgroups, make_layer, make_stage, write_trust};
use crate::state::{self, Claim, Dirs, Record, Running, StateError};
use crate::stdio::Stdio;
use crate::watch::{Ending, Watch};
use crate::{cgroup, idmap, signals};

/// Everything a supervisor needs; travels to it as JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Start {
    /// The cell.
    pub cell: Cell,
    /// The root file system that was prepared for it.
    pub root: RootFs,
    /// How its limits are enforced, if it has any: [`cgroup::prepare`]d before OUTER was entered, whose cgroup namespace hides what that has to see.
    pub limits: Option<cgroup::Plan>,
    /// Where state is kept.
    pub dirs: Dirs,
    /// Keep the writable layer after the end.
    pub keep: bool,
    /// Started with `--detach`.
    pub detached: bool,
    /// The values of the cell's secrets, in the order of its `reach.secrets`. In memory only, wherever this is.
    pub secrets: Vec<Hidden>,
    /// The values of the cell's hidden variables. In memory only, too.
    pub hidden: BTreeMap<String, Hidden>,
    /// The host's root certificates, if there is a file of them.
    pub roots: Option<PathBuf>,
    /// The ways to catch a cell's connections by name that may be tried.
    pub rungs: Vec<Rung>,
    /// Where links in agents' folders of the host may lead.
    pub links: Links,
}

/// Why a cell did not start, or what went wrong around it.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    /// OUTER could not be entered.
    #[error(transparent)]
    Outer(#[from] outer::OuterError),
    /// State on disk.
    #[error(transparent)]
    State(#[from] StateError),
    /// The specification could not be made.
    #[error(transparent)]
    Spec(#[from] spec::SpecError),
    /// The builder or libcontainer failed.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// Limits cannot be enforced.
    #[error(transparent)]
    Limit(#[from] cgroup::CgroupError),
    /// The start failed after processes of it were killed because the memory limit was reached.
    #[error("{words}; the start failed: {source}")]
    OutOfMemory {
        /// The limit in words.
        words: String,
        /// How it failed.
        source: Box<RuntimeError>,
    },
    /// A file of the host cannot be shown inside under real root.
    #[error(transparent)]
    IdMap(#[from] idmap::IdMapError),
    /// A system call failed.
    #[error("{what}: {source}")]
    Os {
        /// What was tried.
        what: &'static str,
        /// Why it failed.
        source: io::Error,
    },
    /// The seccomp filter could not be loaded inside.
    #[error("the seccomp filter could not be loaded inside the cell: {0}")]
    Seccomp(io::Error),
    /// An agent's files and folders.
    #[error(transparent)]
    Keep(#[from] KeepError),
    /// The cell has no network, and was to have one.
    #[error(transparent)]
    Network(#[from] crate::NetworkError),
    /// The names in its folders cannot be guarded.
    #[error(transparent)]
    Guard(#[from] crate::GuardError),
    /// The command could not be executed.
    #[error("{program}: {source}")]
    Exec {
        /// The command's first word.
        program: String,
        /// Why not.
        source: io::Error,
    },
}

/// Shorthand for `map_err` on a system call.
pub(crate) fn os<E: Into<io::Error>>(what: &'static str) -> impl FnOnce(E) -> RuntimeError {
    move |source| RuntimeError::Os { what, source: source.into() }
}

/// How a cell ended.
#[derive(Debug)]
pub struct Ended {
    /// The command's exit code, or 128 + the signal that ended it.
    pub code: i32,
    /// What a person should know about it beyond the code, such as an out-of-memory kill.
    pub notes: Vec<String>,
    /// What is left of it.
    sweep: cleanup::Sweep,
}

impl Ended {
    /// Ends this process as the command ended. What is left of the cell is removed without anybody having to wait for it.
    pub fn leave(self) -> ! {
        self.sweep.leave(self.code)
    }
}

/// What happens to a cell that is being started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum News<'a> {
    /// Something that a person should know, before the command runs.
    Warning(&'a str),
    /// The command has been started.
    Started,
}

/// Runs `start` to its end. To be called in OUTER, in a fresh single-threaded process, which this takes over: its signals, its
/// standard streams, its children.
///
/// `prepare` is called once, before anything is mounted for the cell, to write what the caller wants in the root file system.
/// `tell` hears of what happens.
/// `broker` is what answers the cell from outside, if something does.
///
/// # Errors
/// See [`RuntimeError`]. Whatever happens, nothing of the cell is left behind, unless this very process is killed.
pub fn supervise(
    start: &Start,
    claim: Claim,
    broker: Option<&OwnedFd>,
    prepare: &mut dyn FnMut() -> io::Result<()>,
    tell: &mut dyn FnMut(News<'_>),
) -> Result<Ended, RuntimeError> {
    outer::settle_capabilities().map_err(os("cannot settle capabilities"))?;
    let here = std::env::current_dir();
    // libcontainer goes back to the working directory it came from, with the ids of the cell: it must be one anybody can enter.
    rustix::process::chdir("/").map_err(os("cannot change to /"))?;
    let set = SignalSet::of(signals::SUPERVISED);
    let signals = set.block().and_then(|_| SignalFd::new(&set)).map_err(os("cannot watch signals"))?;
    // Children of a builder that was killed come to us, so that none is left behind.
    rustix::process::set_child_subreaper(Some(rustix::process::getpid())).map_err(os("cannot adopt orphans"))?;

    let mut tell = |news: News<'_>| {
        // Terminal managers ask where a pane's program is, and open the next one there.
        if let (News::Started, false, Ok(here)) = (news, start.detached, &here) {
            let _ = rustix::process::chdir(here);
        }
        tell(news);
    };
    let mut cgroup = None;
    let outcome = run(start, &claim, signals, prepare, &mut tell, &mut cgroup);
    match &outcome {
        // The cell's processes ended with its first one. What is left are ours, which have said that they are done. But a layer that is kept may be
        // mounted again at once, which is not to be while it still is; and the uplink of a bridge holds ports of the host.
        Ok(_) if !start.keep && start.cell.network != Network::Bridge => crate::reap::kill_the_rest(),
        _ => crate::reap::kill_all_children(),
    }
    // Before what it has made is removed.
    if let Some(broker) = broker {
        cellblock_broker::end(broker);
    }
    let counted = cgroup.as_ref().map(Cgroup::report).unwrap_or_default();
    let notes = cgroup.as_ref().map(Cgroup::notes).unwrap_or_default();
    drop(cgroup);
    let (code, waiting) = match &outcome {
        Ok(ending) => (ending.code, ending.waiting.as_slice()),
        Err(_) => (crate::exit::OURS, [].as_slice()),
    };
    let keep = start.keep || cleanup::is_anothers(&start.dirs, &claim);
    let claim = cleanup::set_aside(&start.dirs, claim, keep);
    for client in waiting {
        crate::control::answer(client, &crate::control::Answer::Stopped { code });
    }
    let sweep = cleanup::Sweep { dirs: start.dirs.clone(), claim, keep };
    let failed = match outcome {
        Err(error) => match counted.out_of_memory() {
            Some(words) => RuntimeError::OutOfMemory { words, source: Box::new(error) },
            None => error,
        },
        Ok(Ending { failure: Some((stage, errno)), .. }) => {
            not_begun(start, stage, io::Error::from_raw_os_error(errno))
        }
        Ok(ending) => return Ok(Ended { code: ending.code, notes: [ending.notes, notes].concat(), sweep }),
    };
    sweep.start();
    Err(failed)
}

/// Why the command never ran, although the cell was there.
fn not_begun(start: &Start, stage: Stage, source: io::Error) -> RuntimeError {
    match stage {
        Stage::Exec => RuntimeError::Exec { program: start.cell.command.first().cloned().unwrap_or_default(), source },
        Stage::Seccomp => RuntimeError::Seccomp(source),
        Stage::Prepare => os("cannot prepare the cell's first process")(source),
    }
}

/// What libcontainer calls the cell; a supervisor has only one.
const CONTAINER: &str = "c";

fn run(
    start: &Start,
    claim: &Claim,
    signals: SignalFd,
    prepare: &mut dyn FnMut() -> io::Result<()>,
    tell: &mut dyn FnMut(News<'_>),
    cgroup: &mut Option<Cgroup>,
) -> Result<Ending, RuntimeError> {
    let alone = SingleThreaded::prove().map_err(os("cannot start a cell"))?;
    let cell = &start.cell;
    *cgroup = limited(start, claim)?;
    // It has namespaces to make meanwhile.
    let mut builder = Builder::start(cell.network != Network::Host, &alone)?;
    let mut site = Site::new(start, claim, (&mut builder, &alone), cgroup.as_ref())?;
    // While it reads its order.
    let _held = site.fill(start, claim, prepare)?;
    if let Some(cgroup) = cgroup {
        write_record(start, claim, cgroup.paths())?;
    }
    let Site { stage, mut stdio, report, post, laid, mut egress, plan, .. } = site;
    if cell.network != Network::Host {
        builder.network()?;
    }
    if let Some(egress) = &mut egress {
        egress.join(builder.pid())?;
    }
    builder.go();
    // While it builds.
    let control =
        crate::control::listen(&claim.dir.join("control.sock")).map_err(os("cannot make the control socket"))?;
    let mut guard = post.map(|post| post.man(start, &alone)).transpose()?;
    let init = builder.created()?;
    if let Some(guard) = &guard {
        guard.enter(init)?;
    }
    let keeper = Keeper::start(laid, cell, init, &alone, &mut |note| tell(News::Warning(note)))?;
    // Nothing of the cell runs before its network is there.
    if let Some(egress) = &mut egress
        && let Some(warning) = egress.ready()?
    {
        tell(News::Warning(&warning));
    }
    stdio.connect().map_err(os("cannot get the cell's terminal"))?;
    let running = Running::of(init.as_raw_nonzero().get()).map_err(os("cannot look at the cell's process"))?;
    state::write_json(&claim.dir.join("running.json"), &running)?;
    if let Some(guard) = &mut guard {
        guard.entered()?;
    }
    let covers = Covers::new(&plan.mounts, &plan.empty, init).map_err(os("cannot watch over what is covered"))?;
    // In the cell's group it would take a place of those that `--pids` counts.
    let builder = if cgroup.is_some() { builder.end().map(|()| None)? } else { Some(builder) };
    crate::builder::start(&stage, CONTAINER)?;
    tell(News::Started);
    drop(builder);
    Watch::new(init, signals, report, control, stdio)?
        .with_network(egress)
        .with_hidden(&start.hidden)
        .with_covers(covers)
        .with_guard(guard)
        .with_keeper(keeper)
        .run()
}

/// The groups of the cell, if anything is limited. Before the hierarchies are covered, and while this process is alone in its group: one with members
/// hands no controllers down (cgroup-v2, "No Internal Process Constraint"), and a child that is there by now would stay in it.
fn limited(start: &Start, claim: &Claim) -> Result<Option<Cgroup>, RuntimeError> {
    let Some(plan) = &start.limits else { return Ok(None) };
    // Before there are any.
    write_record(start, claim, plan.paths(&start.cell.name))?;
    Ok(Some(plan.clone().create(&start.cell.name)?))
}

/// What there is of a cell before its root is mounted.
struct Site {
    stage: PathBuf,
    stdio: Stdio,
    /// Where its first process reports to.
    report: OwnedFd,
    /// Its guard's.
    post: Option<Post>,
    egress: Option<Connected>,
    laid: Laid,
    /// The lock of a layer that was there.
    held: Option<OwnedFd>,
    plan: Plan,
}

impl Site {
    /// Makes what the builder has to know of, and tells it.
    fn new(
        start: &Start,
        claim: &Claim,
        (builder, alone): (&mut Builder, &SingleThreaded),
        cgroup: Option<&Cgroup>,
    ) -> Result<Self, RuntimeError> {
        let cell = &start.cell;
        if cgroup.is_none() {
            write_record(start, claim, Vec::new())?;
        }
        hide_cgroups(cell.ids.rootless())?;
        let stage = make_stage(start, claim)?;
        let mut stdio = Stdio::prepare(cell.terminal, &stage).map_err(os("cannot prepare the standard streams"))?;
        let (report, theirs) =
            rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
                .map_err(os("cannot make a socket"))?;
        let guarded = crate::guard::is_wanted(cell).then(|| Post::new(start)).transpose()?;
        let (post, sender) = guarded.unzip();
        let egress = match cell.network {
            Network::Names | Network::Bridge => Some(Connected::start(start, alone)?),
            Network::None | Network::Host => None,
        };
        // Agents' copies first: whether the layer is new counts.
        cleanup::set_discarded_aside(&start.dirs, claim);
        let held = cleanup::hold(&start.dirs, &cell.name)?;
        let mut laid = keep::lay(start)?;
        builder.map(&cell.ids)?;
        let plan = write_bundle(start, &stage, builder.pid(), &mut laid)?;
        protect_self()?;
        let order = order(start, &stage, stdio.console_path(), plan);
        let handed = Handed {
            report: theirs,
            streams: stdio.take_inner(),
            guard: sender,
            cgroup_procs: cgroup.map(Cgroup::procs).transpose()?.unwrap_or_default(),
        };
        builder.order(&order, handed)?;
        Ok(Self { stage, stdio, report, post, egress, laid, held, plan: order.root })
    }

    /// Makes what the root is mounted from; returns the lock of the cell's layer.
    fn fill(
        &mut self,
        start: &Start,
        claim: &Claim,
        prepare: &mut dyn FnMut() -> io::Result<()>,
    ) -> Result<Option<OwnedFd>, RuntimeError> {
        let Start { cell, dirs, .. } = start;
        make_layer(start)?;
        let held = self.held.take().map_or_else(|| cleanup::hold(dirs, &cell.name), |held| Ok(Some(held)))?;
        prepare().map_err(|source| StateError::Io {
            what: "cannot write the cell's own files in",
            path: claim.dir.clone(),
            source,
        })?;
        if let Some(egress) = &mut self.egress
            && let Some(trust) = egress.prepared()?
        {
            write_trust(&dirs.skeleton(&cell.name), &trust)?;
        }
        Ok(held)
    }
}

fn order(start: &Start, stage: &Path, console: Option<PathBuf>, root: Plan) -> Order {
    let cell = &start.cell;
    Order {
        bundle: stage.to_owned(),
        id: CONTAINER.to_owned(),
        name: cell.name.clone(),
        ids: cell.ids.clone(),
        profile: cell.profile,
        uid: cell.user.uid,
        init: cell.init,
        hidden: start.hidden.clone(),
        console,
        root,
    }
}

/// Writes down what whoever comes after a kill of this process has to know.
fn write_record(start: &Start, claim: &Claim, cgroups: Vec<PathBuf>) -> Result<(), RuntimeError> {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |d| d.as_secs());
    let record = Record {
        version: state::THIS_VERSION.into(),
        cell: start.cell.clone(),
        supervisor: rustix::process::getpid().as_raw_nonzero().get(),
        started: now,
        keep: start.keep,
        detached: start.detached,
        cgroups,
    };
    Ok(state::write_json(&claim.dir.join("cell.json"), &record)?)
}

/// Writes `config.json`, and says what root the builder is to mount. Only once the CELL's user namespace exists: under real root the
/// host's files are shown inside through id-mapped mounts, which need it.
fn write_bundle(start: &Start, stage: &Path, builder: Pid, laid: &mut Laid) -> Result<Plan, RuntimeError> {
    let mut cell = start.cell.clone();
    if crate::guard::is_wanted(&cell) {
        let protect = &cell.protect;
        cell.mounts.retain(|mount| !crate::guard::looks_after(protect, mount));
    }
    laid.add_to(&mut cell.mounts);
    let mut root = start.root.clone();
    if cell.ids.scheme == cellblock_bundle::IdScheme::Shifted {
        let views = idmap::Views::new(&stage.join("mounts"), builder)?;
        for mount in &mut cell.mounts {
            if let Mount::Bind { source, .. } = mount {
                *source = views.of(source)?;
            }
        }
        let layered = root.mounts.iter_mut().filter_map(|mount| match mount {
            Mount::Layers { lowers, .. } => Some(lowers.iter_mut()),
            _ => None,
        });
        let shared = |lower: &&mut PathBuf| start.root.shared.iter().any(|shared| lower.starts_with(shared));
        for lower in root.lowers.iter_mut().chain(layered.flatten()).filter(shared) {
            *lower = views.of(lower)?;
        }
    }
    if cell.brokers.is_inside() {
        // No view of it: everybody may use what is in there, and the file system of the runtime folder may have none. Last, over whatever is
        // mounted on /run.
        let source = start.dirs.broker(&cell.name).join(cellblock_broker::settings::INSIDE);
        cell.mounts.push(Mount::Bind { source, target: cell::BROKERS.into(), writable: false });
    }
    let run = spec::run_spec(&cell, &Path::new("/cellblock").join(&cell.name))?;
    let text = serde_json::to_vec(&run).map_err(|e| os("cannot write the bundle")(io::Error::from(e)))?;
    // Readable by the cell's root under real root; the folder above lets nobody else in.
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
    let config = stage.join("config.json");
    let fd = rustix::fs::open(&config, flags, Mode::from_raw_mode(0o644)).map_err(os("cannot write the bundle"))?;
    io::Write::write_all(&mut std::fs::File::from(fd), &text).map_err(os("cannot write the bundle"))?;
    let empty = stage.join("empty");
    if cell.mounts.iter().any(|m| matches!(m, Mount::Mask { directory: false, .. })) {
        rustix::fs::open(&empty, flags, Mode::from_raw_mode(0o444)).map_err(os("cannot make an empty file"))?;
    }
    let kernel = spec::kernel_mounts(&start.cell)?;
    Ok(Plan { root, kernel, mounts: cell.mounts, links: cell.protect.links, empty })
}

/// From here on nobody without privilege in OUTER may look at this process, whatever user they are.
fn protect_self() -> Result<(), RuntimeError> {
    rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable)
        .map_err(os("cannot protect the supervisor"))
}
