//! The running network of a cell: everything that arrives in the gateway is decided on here, and what is allowed is dialled from the host.
//!
//! One process a cell, started by its supervisor, gone with it. It holds the gateway's sockets; what it needs no more, it has given up
//! before the first byte of the cell is read.

use std::io;
use std::net::TcpListener as StdListener;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener as StdUnixListener;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use crate::audit::{Audit, Event, Line, Verdict};
use crate::gateway::inside::Inside;
use crate::gateway::{self, Capture, Gateway, Rung, Way};
use crate::intercept::Interceptor;
use crate::policy::{Policy, PolicyError};
use crate::table::Table;
use crate::who::{Ends, Who};

mod bridge;
mod check;
mod closed;
mod connection;
mod credentials;
mod dial;
mod first;
mod http;
mod kept;
mod looking;
mod passage;
mod publish;
mod relay;
mod resolver;
mod rules;
mod settings;
mod steer;

use closed::Closed;
use dial::Dialer;
pub use looking::LookError;
use rules::Rules;
pub use settings::{CONNECTIONS, Hidden, Mode, PUBLISHED, Publish, Secret, Settings};

/// Why a cell has no network.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The rules are none.
    #[error(transparent)]
    Policy(#[from] PolicyError),
    /// The gateway could not be made.
    #[error(transparent)]
    Gateway(#[from] gateway::GatewayError),
    /// A port of the host cannot be had.
    #[error("cannot publish {publish}: {source}")]
    Publish {
        /// Which.
        publish: Publish,
        /// Why not.
        source: io::Error,
    },
    /// TLS cannot be looked into, as the rules or secrets ask for.
    #[error("connections cannot be looked into: {0}")]
    Look(#[from] LookError),
    /// It does not hold what it has to hold.
    #[error("the network's self-check failed, so the cell does not start: {0}")]
    Check(io::Error),
    /// Something else.
    #[error("cannot {what}: {source}")]
    Step {
        /// What was tried.
        what: &'static str,
        /// Why it failed.
        source: io::Error,
    },
}

fn step<E: Into<io::Error>>(what: &'static str) -> impl FnOnce(E) -> ServeError {
    move |source| ServeError::Step { what, source: source.into() }
}

/// A network that is ready to be served. Made in steps, for the first ones can run while the cell is still being made.
#[derive(Debug)]
pub struct Network {
    equipment: Equipment,
    /// What the cell has to trust.
    bundle: Option<String>,
    space: gateway::Space,
    /// Where it is asked who holds a socket.
    helper: Option<OwnedFd>,
}

/// What a network has before it has a gateway.
#[derive(Debug)]
struct Equipment {
    rules: Rules,
    settings: Settings,
    audit: Audit,
    names: (std::fs::File, Table),
    published: Vec<(StdListener, u16)>,
    control: Option<StdUnixListener>,
    interceptor: Option<Interceptor>,
    own: Vec<std::net::IpAddr>,
}

impl Network {
    /// Does all that needs no cell: reads the rules, takes the published ports, opens the audit, makes the gateway's namespace. `control` is
    /// where requests come in ([`crate::control`]), `helper` where it is asked who holds a socket ([`crate::who`]).
    ///
    /// # Errors
    /// See [`ServeError`].
    pub fn prepare(
        settings: Settings,
        control: Option<StdUnixListener>,
        helper: Option<OwnedFd>,
    ) -> Result<Self, ServeError> {
        let space = match settings.mode {
            Mode::Names => gateway::Space::new()?,
            Mode::Bridge => gateway::Space::with_uplink()?,
        };
        let (denied, later) = kept::denied_later(&settings.denied).map_err(step("open the list of what was denied"))?;
        let deny = settings.deny.iter().cloned().chain(later).collect();
        let rules = Rules::new(settings.allow.clone(), deny, denied)?;
        let interceptor = looking::interceptor(&rules.policy(), &settings)?;
        let audit = Audit::open(&settings.audit).map_err(step("open the audit"))?;
        let names = kept::names_given(&settings.names).map_err(step("open the list of names"))?;
        let published = settings
            .publish
            .iter()
            .map(|publish| {
                let listener = StdListener::bind(publish.host)
                    .and_then(|listener| listener.set_nonblocking(true).map(|()| listener))
                    .map_err(|source| ServeError::Publish { publish: *publish, source })?;
                Ok((listener, publish.port))
            })
            .collect::<Result<_, ServeError>>()?;
        // By name they are looked at when something is dialled.
        let own = match settings.mode {
            Mode::Names => Vec::new(),
            Mode::Bridge => dial::own_addresses().map_err(step("look at this machine's addresses"))?,
        };
        let (interceptor, bundle) = interceptor.unzip();
        let equipment = Equipment { rules, settings, audit, names, published, control, interceptor, own };
        Ok(Self { equipment, bundle, space, helper })
    }

    /// What the cell has to trust, as a PEM file: the host's roots and the cell's own authority. `None` if nothing is looked into.
    #[must_use]
    pub fn trust(&self) -> Option<&str> {
        self.bundle.as_deref()
    }

    /// Joins the gateway to the cell's network namespace. After that this thread has no capability left.
    ///
    /// # Errors
    /// See [`ServeError`].
    pub fn join(self, cell: OwnedFd) -> Result<Ready, ServeError> {
        let mut equipment = self.equipment;
        let policy = equipment.rules.policy();
        let capture = match equipment.settings.mode {
            Mode::Names => policy.ports(gateway::MOST_PORTS).map_or(Capture::Everything, Capture::Ports),
            Mode::Bridge => bridge::capture(&policy, &equipment.own)?,
        };
        let number = rustix::fs::fstat(&cell).map_err(step("look at the cell's network namespace"))?.st_ino;
        let mut gateway = self.space.join(&cell, capture, &equipment.settings.rungs)?;
        publish::possible(&equipment.settings.publish, &gateway)?;
        let diag = gateway.probes.as_mut().and_then(|probes| probes.diag.take());
        let who = diag.zip(self.helper).map(|(diag, helper)| Who::new(diag, helper, number));
        let inside = if equipment.published.is_empty() {
            None
        } else {
            let enter = move || gateway::enter(&cell).and_then(|()| gateway::lay_down_capabilities());
            Some(Inside::start("published", enter).map_err(step("enter the cell's network namespace"))?.0)
        };
        gateway::lay_down_capabilities().map_err(step("give up capabilities"))?;
        let room = raise_descriptor_limit();
        let places = if equipment.published.is_empty() { 0 } else { PUBLISHED.min(room / 3) };
        equipment.settings.connections = equipment.settings.connections.min(room - places);
        Ok(Ready { equipment, gateway, who, inside, places, lacks: Vec::new() })
    }
}

/// A network that only has to be served.
#[derive(Debug)]
pub struct Ready {
    equipment: Equipment,
    gateway: Gateway,
    who: Option<Who>,
    inside: Option<Inside>,
    /// For connections to published ports.
    places: usize,
    /// What is missing on this host, for the line of the start.
    lacks: Vec<&'static str>,
}

/// Descriptors of a connection: two sockets, and two pipes when it is a long transfer; and one to a server, for those that are looked into.
const DESCRIPTORS: u64 = 7;

/// Lets this process have as many descriptors as it may; returns for how many connections they are enough.
fn raise_descriptor_limit() -> usize {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    let have = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    // The listeners and what the process has besides.
    let room = have.saturating_sub(2 * u64::try_from(gateway::MOST_PORTS).unwrap_or(0)) / DESCRIPTORS;
    usize::try_from(room).unwrap_or(usize::MAX).max(16)
}

/// What all connections share.
#[derive(Debug)]
struct Shared {
    settings: Settings,
    v6: bool,
    capture: String,
    rung: Option<Rung>,
    rules: Mutex<Rules>,
    /// Counts changes of the rules, so that connections look again whether they may go on.
    changed: watch::Sender<u64>,
    table: Mutex<Table>,
    given: std::fs::File,
    audit: Mutex<Audit>,
    dialer: Dialer,
    interceptor: Option<Interceptor>,
    room: Arc<Semaphore>,
    /// For connections to published ports.
    places: Arc<Semaphore>,
    /// For connections to servers, where the cell's are looked into.
    upstreams: Arc<Semaphore>,
    last_id: AtomicU64,
    /// While the self-check runs: what it is refused is no news.
    checking: AtomicBool,
    cut: AtomicU64,
    closed: Closed,
    /// Who listens on ports of the host.
    published: Mutex<Vec<tokio::task::JoinHandle<()>>>,
    who: Option<Who>,
    gateway: Mutex<Gateway>,
}

/// Nothing panics while it holds a lock, and the process would end if something did.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    fn policy(&self) -> Arc<Policy> {
        lock(&self.rules).policy()
    }

    /// Writes a decision. One that cannot be written must not be carried out.
    fn write(&self, line: Line) -> io::Result<()> {
        if self.checking.load(Ordering::Relaxed) {
            return Ok(());
        }
        lock(&self.audit).line(line)
    }

    /// Writes a refusal, with the program that asked: only of those that are written one by one, for it takes a millisecond or two.
    fn refuse(&self, mut line: Line, ends: Option<Ends>) -> io::Result<()> {
        if let (Some(who), Some(ends)) = (&self.who, ends)
            && !self.checking.load(Ordering::Relaxed)
            && lock(&self.audit).is_news(&line)
        {
            // Others go on meanwhile.
            line.process = tokio::task::block_in_place(|| who.holds(&ends));
        }
        self.write(line)
    }

    fn next_id(&self) -> u64 {
        self.last_id.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// A place among the connections; `None`, told in the audit, when there are too many.
    fn admit(&self) -> Option<OwnedSemaphorePermit> {
        let permit = Arc::clone(&self.room).try_acquire_owned().ok();
        if permit.is_none() {
            let why = Some(format!("more than {} connections at a time", self.settings.connections));
            let _ = self.write(Line { why, ..Line::new(Event::Connect, Verdict::Deny) });
        }
        permit
    }

    /// How connections come to the listeners.
    fn way(&self) -> Way {
        self.rung.map_or(Way::Bind, Rung::way)
    }
}

impl Ready {
    /// By which rung connections are caught; `None` for a bridge.
    #[must_use]
    pub fn rung(&self) -> Option<Rung> {
        self.gateway.rung()
    }

    /// What a person should know before the cell runs: that the network takes something from it.
    #[must_use]
    pub fn warning(&self) -> Option<String> {
        self.gateway.rung()?.warning(self.gateway.capture())
    }

    /// Does `job` on each thread that there is: such as giving up what only counts for the thread that does it. Those that come later are
    /// started by this one.
    ///
    /// # Errors
    /// Those of `job`.
    pub fn on_every_thread(&self, job: impl Fn() -> io::Result<()> + Clone + Send + 'static) -> io::Result<()> {
        for thread in self.gateway.threads().chain(&self.inside) {
            thread.run(job.clone())??;
        }
        job()
    }

    /// Something that is missing on this host, for the line of the start.
    pub fn lacks(&mut self, what: &'static str) {
        self.lacks.push(what);
    }

    /// Starts to serve, and tries itself; `up` is called with the outcome. Then serves until `done`, which may block, returns. `over` is called
    /// when the audit is complete and no port of the host is taken any more: the rest takes up to 25 ms, for the kernel waits when a socket of packets
    /// is closed.
    ///
    /// # Errors
    /// Those that `up` has been told of, as words.
    pub fn serve(
        self,
        up: impl FnOnce(Result<(), ServeError>),
        done: impl FnOnce(),
        over: impl FnOnce(),
    ) -> io::Result<()> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            // One connection cannot use more, and many share two well (docs/performance.md).
            .worker_threads(2)
            .max_blocking_threads(8)
            .thread_stack_size(512 << 10)
            .thread_keep_alive(Duration::from_secs(2))
            .enable_all()
            .build();
        let begun = runtime.map_err(step("start the network's runtime")).and_then(|runtime| {
            let shared = runtime.block_on(self.begin())?;
            Ok((runtime, shared))
        });
        let (runtime, shared) = match begun {
            Ok(begun) => {
                up(Ok(()));
                begun
            }
            Err(error) => {
                let words = error.to_string();
                up(Err(error));
                return Err(io::Error::other(words));
            }
        };
        done();
        shared.last_refusals();
        let flushed = lock(&shared.audit).flush();
        // The next cell may want the same ports at once.
        let published = std::mem::take(&mut *lock(&shared.published));
        runtime.block_on(async {
            for task in published {
                task.abort();
                let _ = task.await;
            }
        });
        over();
        // What still runs ends with the process: nobody waits for it here.
        flushed
    }

    async fn begin(mut self) -> Result<Arc<Shared>, ServeError> {
        let probes = self.gateway.probes.take();
        let port = match self.gateway.capture() {
            Capture::Ports(ports) => ports.iter().copied().find(|port| *port != gateway::sockets::DNS),
            Capture::Everything | Capture::Forward { .. } => Some(80),
        };
        let mode = self.equipment.settings.mode;
        let mut lacks = std::mem::take(&mut self.lacks);
        let shared = self.spawn().map_err(step("serve"))?;
        match (probes, mode) {
            (Some(probes), Mode::Names) => check::check(probes, port).await.map_err(ServeError::Check)?,
            (Some(probes), Mode::Bridge) => bridge::check(probes).await.map_err(ServeError::Check)?,
            (None, _) => {}
        }
        shared.closed.forget();
        shared.checking.store(false, Ordering::Relaxed);
        closed::watch(&shared);
        // In the cell they never are.
        if shared.rung.is_some_and(|rung| !rung.is_in_cell()) && !shared.closed.is_seen() {
            lacks.push("refusals by the kernel not seen");
        }
        if !shared.v6 {
            lacks.push("no IPv6");
        }
        let why = Some(std::iter::once(shared.capture.as_str()).chain(lacks).collect::<Vec<_>>().join(", "));
        shared.write(Line { why, ..Line::new(Event::Start, Verdict::Allow) }).map_err(step("write the audit"))?;
        Ok(shared)
    }

    fn spawn(self) -> io::Result<Arc<Shared>> {
        let Self { equipment, mut gateway, who, inside, places, lacks: _ } = self;
        let Equipment { rules, settings, audit, names: (given, table), published, control, interceptor, own } =
            equipment;
        let listeners = std::mem::take(&mut gateway.listeners);
        let datagrams = gateway.datagrams.try_clone()?;
        let dns = TcpListener::from_std(gateway.dns.try_clone()?)?;
        let capture = gateway.rung().map_or_else(
            || {
                let by = gateway.uplink().map(ToString::to_string).unwrap_or_default();
                format!("a bridge by {by}: packets are forwarded, connections not seen one by one")
            },
            |rung| rung.words(gateway.capture()),
        );
        let shared = Arc::new(Shared {
            room: Arc::new(Semaphore::new(settings.connections)),
            places: Arc::new(Semaphore::new(places)),
            upstreams: Arc::new(Semaphore::new(settings.connections)),
            settings,
            v6: gateway.has_v6(),
            capture,
            rung: gateway.rung(),
            rules: Mutex::new(rules),
            changed: watch::Sender::new(0),
            table: Mutex::new(table),
            given,
            audit: Mutex::new(audit),
            dialer: Dialer::default(),
            interceptor,
            last_id: AtomicU64::new(0),
            checking: AtomicBool::new(true),
            cut: AtomicU64::new(0),
            closed: Closed::new(&gateway)?,
            published: Mutex::new(Vec::new()),
            who,
            gateway: Mutex::new(gateway),
        });
        match shared.settings.mode {
            Mode::Names => {
                tokio::spawn(resolver::datagrams(Arc::clone(&shared), datagrams));
                tokio::spawn(resolver::streams(Arc::clone(&shared), dns));
            }
            Mode::Bridge => {
                tokio::spawn(bridge::datagrams(datagrams));
                tokio::spawn(bridge::streams(Arc::clone(&shared), dns));
                tokio::spawn(bridge::watch(Arc::clone(&shared), own));
            }
        }
        for listener in listeners {
            tokio::spawn(connection::accept(Arc::clone(&shared), TcpListener::from_std(listener)?));
        }
        for (listener, port) in published {
            let Some(inside) = inside.clone() else { continue };
            let listener = TcpListener::from_std(listener)?;
            let serving = publish::serve(Arc::clone(&shared), listener, inside, port);
            lock(&shared.published).push(tokio::spawn(async move { drop(serving.await) }));
        }
        if let Some(control) = control {
            control.set_nonblocking(true)?;
            tokio::spawn(steer::serve(Arc::clone(&shared), tokio::net::UnixListener::from_std(control)?));
        }
        tokio::spawn(count(Arc::clone(&shared)));
        Ok(shared)
    }
}

/// Writes the counts of repeated decisions while nothing else makes them be written.
async fn count(shared: Arc<Shared>) {
    loop {
        tokio::time::sleep(crate::audit::WINDOW).await;
        let _ = lock(&shared.audit).flush();
    }
}
