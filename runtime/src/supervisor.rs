//! The guard of one cell: sets it up, hands signals and terminal bytes on, waits for its end, cleans up after it.
//!
//! Single-threaded, no async: a start that runs from top to bottom ([`supervise`]) and one poll loop (`watch`).

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use cellblock_bundle::{Cell, Mount, Network, RootFs, cell, seccomp, spec};
use cellblock_egress::gateway::Rung;
use cellblock_egress::serve::Hidden;
use cellblock_sys::process::SingleThreaded;
use cellblock_sys::signal::{SignalFd, SignalSet};
use rustix::fs::{Mode, OFlags};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags};
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use rustix::process::Pid;
use serde::{Deserialize, Serialize};

use crate::builder::{BuildError, Builder, Order};
use crate::cgroup::Cgroup;
use crate::cleanup;
use crate::covers::Covers;
use crate::guard::Guard;
use crate::keep::{self, KeepError, Keeper, Laid, Links};
use crate::network::Connected;
use crate::outer;
use crate::report::Stage;
use crate::root::Plan;
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
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// The command's exit code, or 128 + the signal that ended it.
    pub code: i32,
    /// What a person should know about it beyond the code, such as an out-of-memory kill.
    pub notes: Vec<String>,
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
    cleanup::sweep(&start.dirs, claim, keep);
    let ending = outcome.map_err(|error| match counted.out_of_memory() {
        Some(words) => RuntimeError::OutOfMemory { words, source: Box::new(error) },
        None => error,
    })?;
    match ending.failure {
        None => Ok(Ended { code: ending.code, notes: ending.notes.into_iter().chain(notes).collect() }),
        Some((Stage::Exec, errno)) => Err(RuntimeError::Exec {
            program: start.cell.command.first().cloned().unwrap_or_default(),
            source: io::Error::from_raw_os_error(errno),
        }),
        Some((Stage::Seccomp, errno)) => Err(RuntimeError::Seccomp(io::Error::from_raw_os_error(errno))),
        Some((Stage::Prepare, errno)) => {
            Err(os("cannot prepare the cell's first process")(io::Error::from_raw_os_error(errno)))
        }
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
    // Written down first, so that whoever comes after a kill of this process knows which groups and whose files are left.
    let planned = start.limits.as_ref().map(|plan| plan.paths(&cell.name)).unwrap_or_default();
    write_record(start, claim, planned)?;
    // Before the hierarchies are covered.
    if let Some(plan) = &start.limits {
        *cgroup = Some(plan.clone().create(&cell.name)?);
    }
    hide_cgroups(cell.ids.rootless())?;
    let stage = make_stage(start, claim)?;
    let mut stdio = Stdio::prepare(cell.terminal, &stage).map_err(os("cannot prepare the standard streams"))?;
    let (report, theirs) =
        rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
            .map_err(os("cannot make a socket"))?;
    let guarded = crate::guard::is_wanted(cell).then(|| Guard::start(start, &alone)).transpose()?;
    let (mut guard, sender) = guarded
        .map_or((None, None), |(guard, sender)| (Some(guard), Some((sender, crate::guard::word(cell, cell.user.uid)))));
    let order = Order {
        bundle: stage.clone(),
        state: stage.clone(),
        id: CONTAINER,
        name: &cell.name,
        ids: &cell.ids,
        program: seccomp::program(cell.profile.into()),
        network: cell.network != Network::Host,
        init: cell.init,
        hidden: &start.hidden,
        console: stdio.console_path(),
        streams: stdio.take_inner(),
        guard: sender,
        cgroup_procs: cgroup.as_ref().map(Cgroup::procs).transpose()?.unwrap_or_default(),
    };
    let mut builder = Builder::start(order, theirs, &alone)?;
    let mut egress = match cell.network {
        Network::Names | Network::Bridge => Some(Connected::start(start, &alone)?),
        Network::None | Network::Host => None,
    };
    // While it makes the namespaces. Agents' copies first: whether the layer is new counts.
    cleanup::set_discarded_aside(&start.dirs, claim);
    let held = cleanup::hold(&start.dirs, &cell.name)?;
    let mut laid = keep::lay(start)?;
    make_layer(start)?;
    let _held = held.map_or_else(|| cleanup::hold(&start.dirs, &cell.name), |held| Ok(Some(held)))?;
    prepare().map_err(|source| StateError::Io {
        what: "cannot write the cell's own files in",
        path: claim.dir.clone(),
        source,
    })?;
    if let Some(egress) = &mut egress
        && let Some(trust) = egress.prepared()?
    {
        write_trust(&start.dirs.skeleton(&cell.name), &trust)?;
    }
    if let Some(cgroup) = cgroup {
        write_record(start, claim, cgroup.paths())?;
    }
    let control =
        crate::control::listen(&claim.dir.join("control.sock")).map_err(os("cannot make the control socket"))?;
    builder.map(&cell.ids)?;
    if cell.network != Network::Host {
        builder.network()?;
    }
    if let Some(egress) = &mut egress {
        egress.join(builder.pid())?;
    }
    let plan = write_bundle(start, &stage, builder.pid(), &mut laid)?;
    protect_self()?;
    let init = builder.create(&plan)?;
    if let Some(guard) = &mut guard {
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
    let covers = Covers::new(&plan.mounts, &plan.empty, init).map_err(os("cannot watch over what is covered"))?;
    crate::builder::start(&stage, CONTAINER)?;
    tell(News::Started);
    Watch::new(init, signals, report, control, stdio)?
        .with_network(egress)
        .with_hidden(&start.hidden)
        .with_covers(covers)
        .with_guard(guard)
        .with_keeper(keeper)
        .run()
}

/// Puts a read-only cgroup2 over `/sys/fs/cgroup` of OUTER. libcontainer then takes the host for a pure v2 one on which it may not
/// make cgroups, and carries on without: on v1 and hybrid hosts it would fail rootless, and as root it would move the
/// cell into a dozen new groups, which costs milliseconds. Limits are ours ([`crate::cgroup`]).
fn hide_cgroups(rootless: bool) -> Result<(), RuntimeError> {
    let attributes = MountAttrFlags::MOUNT_ATTR_RDONLY
        | MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    // Under real root a mount that is there already, on pure v2 and on hybrid hosts: a new one may wait 15 ms for the kernel. Rootless a new
    // one is made at once, and shows no more than OUTER's cgroup namespace: a cell with the host's network sees it.
    let there: &[&str] = if rootless { &[] } else { &["/sys/fs/cgroup", "/sys/fs/cgroup/unified"] };
    let copied = there.iter().find_map(|path| {
        let is_v2 = rustix::fs::statfs(*path).is_ok_and(|s| s.f_type == CGROUP2_SUPER_MAGIC);
        let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        let tree = is_v2.then(|| rustix::mount::open_tree(rustix::fs::CWD, *path, flags).ok()).flatten()?;
        cellblock_sys::mount::restrict(tree.as_fd(), attributes).ok().map(|()| tree)
    });
    let fresh = || {
        let context = rustix::mount::fsopen(c"cgroup2", FsOpenFlags::FSOPEN_CLOEXEC)?;
        rustix::mount::fsconfig_create(&context)?;
        rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
    };
    let attach = |mount: OwnedFd| {
        let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
        rustix::mount::move_mount(&mount, c"", rustix::fs::CWD, c"/sys/fs/cgroup", flags)
    };
    copied.map_or_else(fresh, Ok).and_then(attach).map_err(os("cannot mount cgroup2"))
}

/// `statfs(2)`'s name for cgroup v2.
const CGROUP2_SUPER_MAGIC: rustix::fs::FsWord = 0x6367_7270;

/// Mounts the stage: a file system in memory that only OUTER sees, for what is made anew at each start (skeleton, bundle, mount points,
/// libcontainer's state). It costs no disk, and the kernel takes it away with OUTER, whatever happens to us.
fn make_stage(start: &Start, claim: &Claim) -> Result<PathBuf, RuntimeError> {
    let stage = claim.dir.join(state::STAGE);
    make_folder(&stage, 0o700)?;
    let mount = || -> rustix::io::Result<()> {
        let context = rustix::mount::fsopen(c"tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
        rustix::mount::fsconfig_set_string(&context, c"mode", c"0711")?;
        rustix::mount::fsconfig_create(&context)?;
        let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
        let mount = rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)?;
        let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
        rustix::mount::move_mount(&mount, c"", rustix::fs::CWD, &stage, flags)
    };
    mount().map_err(os("cannot mount a file system in memory for the start"))?;
    give_to_root_inside(start, &stage)?;
    let rootfs = stage.join("rootfs");
    make_folder(&rootfs, 0o700)?;
    give_to_root_inside(start, &rootfs)?;
    Ok(stage)
}

/// Writes what the cell has to trust into its skeleton.
fn write_trust(skeleton: &Path, trust: &str) -> Result<(), RuntimeError> {
    let path = skeleton.join(cell::TRUST.trim_start_matches('/'));
    let write = || -> io::Result<()> {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
            std::fs::set_permissions(folder, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
        }
        std::fs::write(&path, trust)?;
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o644))
    };
    write().map_err(os("cannot write what the cell is to trust"))
}

/// Makes the folders of the writable layer.
fn make_layer(start: &Start) -> Result<(), RuntimeError> {
    let parent = start.root.upper.parent().unwrap_or(Path::new("/"));
    for folder in [&start.dirs.data, &start.dirs.data.join("cells"), parent] {
        state::make_dir(folder)?;
    }
    for (folder, mode) in [(&start.root.upper, 0o755), (&start.root.work, 0o700)] {
        make_folder(folder, mode)?;
        give_to_root_inside(start, folder)?;
    }
    if start.cell.ids.rootless() && start.cell.ids.has_range() {
        // `/` belongs to root inside, as everywhere.
        std::os::unix::fs::chown(&start.root.upper, Some(0), Some(0))
            .map_err(os("cannot give a folder to the cell"))?;
    }
    Ok(())
}

/// Makes `folder` with exactly this mode: that of the upper directory is the mode of `/` inside, and the umask must have no say in it.
fn make_folder(folder: &Path, mode: u32) -> Result<(), RuntimeError> {
    match rustix::fs::mkdir(folder, Mode::from_raw_mode(mode)) {
        Ok(()) | Err(rustix::io::Errno::EXIST) => {}
        Err(error) => {
            return Err(StateError::Io { what: "cannot make", path: folder.to_owned(), source: error.into() }.into());
        }
    }
    rustix::fs::chmod(folder, Mode::from_raw_mode(mode)).map_err(os("cannot set the mode of a folder"))
}

/// Under real root `folder` has to belong to the cell's root, who mounts with it.
fn give_to_root_inside(start: &Start, folder: &Path) -> Result<(), RuntimeError> {
    if start.cell.ids.rootless() {
        return Ok(());
    }
    let (uid, gid) = (start.cell.ids.host_uid(0), start.cell.ids.host_gid(0));
    std::os::unix::fs::chown(folder, uid, gid).map_err(os("cannot give a folder to the cell"))
}

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
    let kernel = spec::early_mounts(&start.cell)?;
    Ok(Plan { root, kernel, mounts: cell.mounts, links: cell.protect.links, empty })
}

/// From here on nobody without privilege in OUTER may look at this process, whatever user they are.
fn protect_self() -> Result<(), RuntimeError> {
    rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable)
        .map_err(os("cannot protect the supervisor"))
}
