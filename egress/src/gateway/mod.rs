//! The gateway: an empty network namespace between the cell's and the host's, where the sockets are that a cell's connections end at.
//!
//! ```text
//!  cell                             gateway (no process, only a thread of ours)    host
//!  lo, eth0 198.18.0.2/32 ──veth──  gw0 198.18.0.1/32                              the egress process owns
//!  default via 198.18.0.1           every address is local (AnyIP), both families  all the sockets
//!  resolv.conf: 198.18.0.1          listeners: 53, and each port of the policy
//! ```
//!
//! Nothing in the cell's namespace enforces anything, and no device leads out of the gateway. It is owned by the user namespace of whoever
//! made it, the parent of the cell's: root of the cell has no power over it. It lives exactly as long as the process that has its
//! sockets; after that `eth0` is gone from the cell. Where the kernel has no veth, the same sockets stand in the cell's namespace (`lo.rs`); how
//! connections are caught, and what is tried first, says [`Rung`].
//!
//! `/32` and `/128` on both ends and a host route to the cell in table `local`: `local` and `main` are one trie while there are no custom
//! rules, so a connected network would beat `local 0.0.0.0/0`. No address but the gateway's is ever looked for on the cable.

use std::fs::File;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpListener};
use std::os::fd::{AsFd, OwnedFd};

use rustix::net::SocketType;
use rustix::thread::{LinkNameSpaceType, UnshareFlags};

mod bridge;
mod capture;
mod closed;
pub(crate) mod inside;
mod ladder;
mod lo;
mod netlink;
mod rung;
pub(crate) mod sockets;
pub mod uplink;
pub(crate) mod walls;

use closed::Closed;
use inside::Inside;
use netlink::{Kind, Netlink};
pub(crate) use rung::Way;
pub use rung::{NoRung, Rung};
use uplink::Uplink;

/// The cell's address. Of a block that is nobody's on the internet (RFC 2544), as the made-up ones ([`crate::table`]).
pub const CELL: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 2);
/// The gateway's address; the cell's resolver answers here, and everywhere else.
pub const GATEWAY: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 1);
/// The cell's IPv6 address, in a unique local prefix of our own (RFC 4193).
pub const CELL_V6: Ipv6Addr = Ipv6Addr::new(0xfdce, 0x11b1, 0x0cc0, 0xffff, 0, 0, 0, 2);
/// The gateway's IPv6 address.
pub const GATEWAY_V6: Ipv6Addr = Ipv6Addr::new(0xfdce, 0x11b1, 0x0cc0, 0xffff, 0, 0, 0, 1);

/// Most ports with a listener each. More are captured by nf_tables.
pub const MOST_PORTS: usize = 256;

/// As `lo` has it. 1500 costs a tenth of the throughput.
const MTU: u32 = 65_520;

/// How connections are caught.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Capture {
    /// A listener on each of these ports; the kernel refuses the others.
    Ports(Vec<u16>),
    /// Every port, by nf_tables.
    Everything,
    /// None: packets are forwarded, as far as these rules of nf_tables let them. The ports have a listener each, for services of this machine.
    Forward {
        /// For `nft`.
        rules: String,
        /// Ports of this machine.
        ports: Vec<u16>,
    },
}

/// Why there is no gateway.
#[derive(Debug, thiserror::Error)]
pub enum GatewayError {
    /// A step failed.
    #[error("cannot {what}: {source}")]
    Step {
        /// What was tried.
        what: &'static str,
        /// Why it failed.
        source: io::Error,
    },
    /// The kernel has no veth devices, or the person may not make them.
    #[error("the kernel makes no veth devices: {0}")]
    NoVeth(io::Error),
    /// The host allows no more of something.
    #[error("{0}")]
    Limit(&'static str),
    /// Something is in a namespace that would be a way around the gateway.
    #[error("the cell's network is not what it has to be: {0}")]
    Check(String),
    /// Listeners would not do, and `nft` cannot be used.
    #[error("the policy opens all ports, or more than {MOST_PORTS}, which needs nf_tables and the program nft: {0}")]
    NoCapture(io::Error),
    /// No program is there that could carry the packets of a bridge.
    #[error("the network `bridge` needs the program pasta, or slirp4netns")]
    NoUplink,
    /// The device by which such a program gets them cannot be used.
    #[error("the network `bridge` needs /dev/net/tun, which cannot be opened: {0}")]
    NoTun(io::Error),
    /// The rules of a bridge cannot be had.
    #[error("the network `bridge` needs nf_tables and the program nft: {0}")]
    NoFilter(io::Error),
    /// The program that carries the packets of a bridge has failed; its words.
    #[error("{0}")]
    Uplink(String),
}

fn step<E: Into<io::Error>>(what: &'static str) -> impl FnOnce(E) -> GatewayError {
    move |source| GatewayError::Step { what, source: source.into() }
}

/// A gateway and its sockets.
#[derive(Debug)]
pub struct Gateway {
    inside: Inside,
    uplink: Option<Uplink>,
    rung: Option<Rung>,
    v6: bool,
    capture: Capture,
    /// Answered by the resolver.
    pub(crate) datagrams: OwnedFd,
    /// The same over TCP.
    pub(crate) dns: TcpListener,
    /// Where the cell's connections arrive.
    pub(crate) listeners: Vec<TcpListener>,
    /// What of the cell's packets no socket takes, where that can be seen.
    pub(crate) closed: Option<Closed>,
    /// For a look from inside, before the cell runs.
    pub(crate) probes: Option<Probes>,
}

/// Sockets of the cell's namespace, not connected.
#[derive(Debug)]
pub(crate) struct Probes {
    pub(crate) datagrams: std::net::UdpSocket,
    pub(crate) stream: std::net::TcpStream,
    /// Tells about the cell's sockets, where the kernel does.
    pub(crate) diag: Option<OwnedFd>,
}

/// A network namespace for a gateway, not joined to anything yet: made ahead, for it is the slowest part.
#[derive(Debug)]
pub struct Space {
    inside: Inside,
    uplink: Option<Uplink>,
}

impl Space {
    /// Makes the namespace, owned by this process's user namespace.
    ///
    /// # Errors
    /// Those of `unshare(2)`.
    pub fn new() -> Result<Self, GatewayError> {
        let enter = || cellblock_sys::namespace::unshare(UnshareFlags::NEWNET);
        let (inside, ()) = Inside::start("gateway", enter).map_err(|error| match error.kind() {
            // namespaces(7): not a disk.
            io::ErrorKind::StorageFull => {
                GatewayError::Limit("the host allows no more network namespaces (user.max_net_namespaces)")
            }
            _ => step("make the gateway's network namespace")(error),
        })?;
        Ok(Self { inside, uplink: None })
    }

    /// Makes the namespace of a bridge's gateway, with a device that leads out of it.
    ///
    /// # Errors
    /// What this host lacks for it.
    pub fn with_uplink() -> Result<Self, GatewayError> {
        bridge::space()
    }

    /// Joins it to the network namespace `cell`, which has nothing but loopback yet, and opens its sockets: by the first of `rungs` that
    /// works, unless packets are only forwarded. After that its thread has no capability left. The caller has all of them over both
    /// namespaces.
    ///
    /// # Errors
    /// See [`GatewayError`].
    pub fn join(self, cell: &OwnedFd, wanted: Capture, rungs: &[Rung]) -> Result<Gateway, GatewayError> {
        let cell = cell.try_clone().map_err(step("keep the cell's network namespace"))?;
        let rungs = rungs.to_vec();
        let made = self.inside.run(move || {
            let (rung, sockets) = match &wanted {
                Capture::Forward { rules, ports } => (None, bridge::join(&cell, rules, ports)?),
                Capture::Ports(_) | Capture::Everything => {
                    ladder::climb(&cell, &wanted, &rungs).map(|(rung, sockets)| (Some(rung), sockets))?
                }
            };
            lay_down_capabilities().map_err(step("give up capabilities"))?;
            Ok((rung, sockets))
        });
        let (rung, sockets) = made.map_err(step("reach the gateway"))??;
        let Sockets { v6, datagrams, dns, listeners, closed, probes, capture } = sockets;
        Ok(Gateway {
            inside: self.inside,
            uplink: self.uplink,
            rung,
            v6,
            capture,
            datagrams,
            dns,
            listeners,
            closed,
            probes: Some(probes),
        })
    }
}

impl Gateway {
    /// How connections are caught.
    #[must_use]
    pub fn capture(&self) -> &Capture {
        &self.capture
    }

    /// By which rung they are caught; `None` for a bridge.
    #[must_use]
    pub fn rung(&self) -> Option<Rung> {
        self.rung
    }

    /// The ports inside that nothing of the cell can listen on.
    pub(crate) fn has_taken(&self, port: u16) -> bool {
        let listed = match &self.capture {
            Capture::Ports(ports) => ports.contains(&port),
            Capture::Everything | Capture::Forward { .. } => false,
        };
        self.rung.is_some_and(Rung::is_in_cell) && (listed || port == sockets::DNS)
    }

    /// What carries the packets of a bridge.
    #[must_use]
    pub fn uplink(&self) -> Option<&uplink::Kind> {
        self.uplink.as_ref().map(|uplink| &uplink.kind)
    }

    /// Whether what carries the packets of a bridge has ended.
    pub(crate) fn has_lost_uplink(&mut self) -> bool {
        self.uplink.as_mut().is_some_and(Uplink::has_ended)
    }

    /// The threads that stay in its namespace.
    pub(crate) fn threads(&self) -> impl Iterator<Item = &Inside> {
        std::iter::once(&self.inside)
    }

    /// Whether the cell has IPv6.
    #[must_use]
    pub fn has_v6(&self) -> bool {
        self.v6
    }

    /// Opens one more port, for a rule that came later.
    pub(crate) fn open(&mut self, port: u16) -> io::Result<Option<TcpListener>> {
        let Capture::Ports(ports) = &mut self.capture else { return Ok(None) };
        if ports.contains(&port) || port == sockets::DNS {
            return Ok(None);
        }
        if ports.len() >= MOST_PORTS {
            return Err(io::Error::other(format!("there are {MOST_PORTS} ports already; start the cell anew")));
        }
        let v6 = self.v6;
        let listener = self.inside.run(move || sockets::listener(port, v6, false))??;
        ports.push(port);
        if let Some(closed) = &self.closed {
            // What it tells too much is left out by its reader.
            let _ = closed.refilter(&self.capture);
        }
        Ok(Some(listener))
    }
}

struct Sockets {
    v6: bool,
    datagrams: OwnedFd,
    dns: TcpListener,
    listeners: Vec<TcpListener>,
    closed: Option<Closed>,
    probes: Probes,
    capture: Capture,
}

/// Where the sockets are to be made, and what was made on the way there.
struct Joined {
    v6: bool,
    probes: Probes,
}

/// For a look from the cell's namespace, which this thread is in.
fn probes() -> Result<Probes, GatewayError> {
    Ok(Probes {
        datagrams: sockets::probe(SocketType::DGRAM).map_err(step("open a socket in the cell"))?.into(),
        stream: sockets::probe(SocketType::STREAM).map_err(step("open a socket in the cell"))?.into(),
        diag: crate::who::open().ok(),
    })
}

/// Joins this thread's namespace, which is to be the gateway's, to the cell's by a cable.
fn join(cell: &OwnedFd) -> Result<Joined, GatewayError> {
    let v6 = std::path::Path::new("/proc/thread-self/net/if_inet6").exists();
    let gateway = File::open("/proc/thread-self/ns/net").map_err(step("open the gateway's network namespace"))?;
    settle(v6).map_err(step("settle the gateway"))?;
    plumb_gateway(cell, &gateway, v6, true)?;
    enter(cell).map_err(step("enter the cell's network namespace"))?;
    plumb_cell(v6).map_err(step("set up the cell's interface"))?;
    only_devices(&["lo", "eth0"])?;
    let probes = probes()?;
    enter(&gateway).map_err(step("enter the gateway's network namespace"))?;
    only_devices(&["lo", "gw0"])?;
    is_connected()?;
    if std::fs::read_to_string("/proc/sys/net/ipv4/ip_forward").map_err(step("look at the gateway"))?.trim() != "0" {
        return Err(GatewayError::Check("the gateway forwards packets".to_owned()));
    }
    Ok(Joined { v6, probes })
}

/// The gateway's end of the cable has a carrier. To ask makes it so: else the end that was brought up first drops packets for a while.
fn is_connected() -> Result<(), GatewayError> {
    if cellblock_sys::net::has_carrier("gw0").map_err(step("look at the gateway's interface"))? {
        return Ok(());
    }
    Err(GatewayError::Check("the cell's interface is not connected to the gateway's".to_owned()))
}

/// Devices that come with every namespace where the kernel has their modules (`net.core.fb_tunnels_only_for_init_net`). They are down, and
/// nobody in a cell can bring them up.
const FALLBACKS: &[&str] =
    &["tunl0", "gre0", "gretap0", "erspan0", "ip_vti0", "ip6_vti0", "sit0", "ip6tnl0", "ip6gre0", "pimreg"];

/// This thread's namespace has exactly these devices.
fn only_devices(expected: &[&str]) -> Result<(), GatewayError> {
    let text = std::fs::read_to_string("/proc/thread-self/net/dev").map_err(step("look at a namespace's devices"))?;
    let found: Vec<&str> = text
        .lines()
        .skip(2)
        .filter_map(|line| line.split(':').next())
        .map(str::trim)
        .filter(|name| !FALLBACKS.contains(name))
        .collect();
    let same = found.len() == expected.len() && expected.iter().all(|name| found.contains(name));
    if same { Ok(()) } else { Err(GatewayError::Check(format!("there are the devices {}", found.join(", ")))) }
}

/// What a new namespace may have from the host: forwarding is inherited (`net.core.devconf_inherit_init_net`). Low ports need no
/// capability, so that the thread can do without.
fn settle(v6: bool) -> io::Result<()> {
    let sysctl = |name: &str, value: &str| match std::fs::write(format!("/proc/sys/net/{name}"), value) {
        // A kernel without this one has nothing to be settled.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    };
    sysctl("ipv4/ip_forward", "0")?;
    sysctl("ipv4/icmp_echo_ignore_all", "1")?;
    sysctl("ipv4/ip_unprivileged_port_start", "0")?;
    if v6 {
        sysctl("ipv6/conf/all/forwarding", "0")?;
        sysctl("ipv6/conf/default/accept_ra", "0")?;
        sysctl("ipv6/icmp/echo_ignore_all", "1")?;
        // Answers of the resolver come from the address that was asked, which is local by route only.
        sysctl("ipv6/ip_nonlocal_bind", "1")?;
    }
    Ok(())
}

/// With `any`, every address is the gateway's own.
fn plumb_gateway(cell: &OwnedFd, gateway: &File, v6: bool, any: bool) -> Result<(), GatewayError> {
    let mut link = Netlink::new().map_err(step("talk to the gateway's network"))?;
    let mut veth = || link.veth("gw0", "eth0", cell.as_fd(), MTU);
    match veth() {
        // That of a gateway which has died: the kernel takes its time to take it away.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            remove_old(cell, gateway).map_err(step("remove the interface of the gateway before"))?;
            veth().map_err(GatewayError::NoVeth)?;
        }
        made => made.map_err(GatewayError::NoVeth)?,
    }
    let mut all = || -> io::Result<()> {
        let (lo, gw) = (netlink::index("lo")?, netlink::index("gw0")?);
        link.up(lo)?;
        link.address(gw, GATEWAY.into())?;
        if v6 {
            link.address(gw, GATEWAY_V6.into())?;
        }
        link.up(gw)?;
        link.route(Kind::UnicastFirst, CELL.into(), 32, None, gw)?;
        if any {
            link.route(Kind::Local, Ipv4Addr::UNSPECIFIED.into(), 0, None, lo)?;
        }
        if v6 {
            link.route(Kind::UnicastFirst, CELL_V6.into(), 128, None, gw)?;
        }
        if v6 && any {
            link.route(Kind::Local, Ipv6Addr::UNSPECIFIED.into(), 0, None, lo)?;
        }
        Ok(())
    };
    all().map_err(step("set up the gateway's interface"))
}

fn remove_old(cell: &OwnedFd, gateway: &File) -> io::Result<()> {
    enter(cell)?;
    let removed = netlink::index("eth0").and_then(|index| Netlink::new()?.remove(index));
    enter(gateway)?;
    match removed {
        // Gone meanwhile.
        Err(error) if error.raw_os_error() == Some(rustix::io::Errno::NODEV.raw_os_error()) => Ok(()),
        other => other,
    }
}

fn plumb_cell(v6: bool) -> io::Result<()> {
    let mut link = Netlink::new()?;
    let eth = netlink::index("eth0")?;
    link.address(eth, CELL.into())?;
    if v6 {
        link.address(eth, CELL_V6.into())?;
    }
    link.up(eth)?;
    let mut way = |gateway: IpAddr, any: IpAddr, bits: u8| {
        link.route(Kind::Unicast, gateway, bits, None, eth)?;
        link.route(Kind::Unicast, any, 0, Some(gateway), eth)
    };
    way(GATEWAY.into(), Ipv4Addr::UNSPECIFIED.into(), 32)?;
    if v6 {
        way(GATEWAY_V6.into(), Ipv6Addr::UNSPECIFIED.into(), 128)?;
    }
    Ok(())
}

/// Moves this thread to another network namespace.
pub(crate) fn enter(space: impl AsFd) -> io::Result<()> {
    Ok(rustix::thread::move_into_link_name_space(space.as_fd(), Some(LinkNameSpaceType::Network))?)
}

/// Takes every capability from this thread, for good.
///
/// # Errors
/// Those of `capset(2)`.
pub fn lay_down_capabilities() -> io::Result<()> {
    use rustix::thread::{CapabilitySet, CapabilitySets};
    rustix::thread::set_no_new_privs(true)?;
    rustix::thread::clear_ambient_capability_set()?;
    let none = CapabilitySet::empty();
    Ok(rustix::thread::set_capabilities(None, CapabilitySets { effective: none, permitted: none, inheritable: none })?)
}
