//! The gateway of a bridge: the same namespace and cable, but packets are forwarded to an uplink, as far as rules of nf_tables in the gateway
//! let them. Root of the cell has no power over these rules, as it has none over the gateway.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;

use rustix::thread::UnshareFlags;

use super::inside::Inside;
use super::uplink::{self, Kind};
use super::walls::UPLINK;
use super::{
    Capture, GatewayError, Sockets, Space, capture, enter, is_connected, only_devices, plumb_cell, plumb_gateway,
    probes, sockets, step,
};

/// The namespace, with its uplink.
pub(super) fn space() -> Result<Space, GatewayError> {
    match uplink::find()? {
        Kind::Pasta(path) => {
            let (uplink, space) = uplink::pasta(&path)?;
            let enter = move || enter(&space);
            let (inside, ()) =
                Inside::start("gateway", enter).map_err(step("enter the gateway's network namespace"))?;
            Ok(Space { inside, uplink: Some(uplink) })
        }
        Kind::Slirp(path) => {
            let make = || {
                cellblock_sys::namespace::unshare(UnshareFlags::NEWNET)?;
                File::open("/proc/thread-self/ns/net")
            };
            let (inside, space) =
                Inside::start("gateway", make).map_err(step("make the gateway's network namespace"))?;
            let uplink = uplink::slirp(&path, &space)?;
            Ok(Space { inside, uplink: Some(uplink) })
        }
    }
}

/// Joins this thread's namespace to the cell's. The rules come first: nothing is ever forwarded without them.
pub(super) fn join(cell: &OwnedFd, rules: &str, ports: &[u16]) -> Result<Sockets, GatewayError> {
    // The uplink may have only one family.
    let routes = std::fs::read_to_string("/proc/thread-self/net/ipv6_route").unwrap_or_default();
    let v6 = leads_out(&routes);
    let gateway = File::open("/proc/thread-self/ns/net").map_err(step("open the gateway's network namespace"))?;
    capture::load(rules).map_err(GatewayError::NoFilter)?;
    settle(v6).map_err(step("settle the gateway"))?;
    plumb_gateway(cell, &gateway, v6, false)?;
    enter(cell).map_err(step("enter the cell's network namespace"))?;
    plumb_cell(v6).map_err(step("set up the cell's interface"))?;
    // Best effort: without it `ping` does not work inside, and nothing else is lost.
    let _ = allow_ping();
    only_devices(&["lo", "eth0"])?;
    let probes = probes()?;
    enter(&gateway).map_err(step("enter the gateway's network namespace"))?;
    only_devices(&["lo", "gw0", UPLINK])?;
    is_connected()?;
    let listeners = ports.iter().map(|port| sockets::listener(*port, v6, false)).collect::<io::Result<_>>();
    Ok(Sockets {
        v6,
        datagrams: sockets::datagrams(sockets::DNS, v6).map_err(step("open the resolver's socket"))?,
        dns: sockets::listener(sockets::DNS, v6, false).map_err(step("open the resolver's socket"))?,
        listeners: listeners.map_err(step("listen in the gateway"))?,
        closed: None,
        probes,
        capture: Capture::Forward { rules: rules.to_owned(), ports: ports.to_vec() },
    })
}

fn settle(v6: bool) -> io::Result<()> {
    let sysctl = |name: &str, value: &str| std::fs::write(format!("/proc/sys/net/{name}"), value);
    sysctl("ipv4/ip_unprivileged_port_start", "0")?;
    // The sender of a redirect would tell the cell of ways around this gateway; there is none, but it would be noise.
    let _ = sysctl("ipv4/conf/all/send_redirects", "0");
    if v6 {
        sysctl("ipv6/conf/all/forwarding", "1")?;
    }
    sysctl("ipv4/ip_forward", "1")
}

/// Whether `/proc/net/ipv6_route` has a default route by the uplink: destination and prefix length of zeros, the device last.
fn leads_out(routes: &str) -> bool {
    let none = "0".repeat(32);
    routes.lines().any(|line| {
        let mut words = line.split_ascii_whitespace();
        words.next() == Some(&none) && words.next() == Some("00") && words.next_back() == Some(UPLINK)
    })
}

/// Lets everybody in the cell send echo requests (icmp(7)): `ping` has no capability there. The kernel takes ids of this process's user
/// namespace and compares them as its own, so the range is from its lowest to its highest.
fn allow_ping() -> io::Result<()> {
    let map = std::fs::read_to_string("/proc/self/gid_map")?;
    let extents: Vec<(u64, u64, u64)> = map
        .lines()
        .filter_map(|line| {
            let mut numbers = line.split_ascii_whitespace().filter_map(|word| word.parse().ok());
            Some((numbers.next()?, numbers.next()?, numbers.next()?))
        })
        .collect();
    let lowest = extents.iter().min_by_key(|(_, outside, _)| *outside).map(|(inside, ..)| *inside);
    let highest = extents.iter().max_by_key(|(_, outside, _)| *outside).map(|(inside, _, size)| inside + size - 1);
    // More the kernel does not take, where all ids are there.
    let most = u64::from(u32::MAX / 2);
    let (Some(lowest), Some(highest)) = (lowest, highest.map(|id| id.min(most))) else { return Ok(()) };
    std::fs::write("/proc/sys/net/ipv4/ping_group_range", format!("{lowest} {highest}"))
}

#[cfg(test)]
mod tests {
    use super::leads_out;

    #[test]
    fn a_way_out_is_told_from_the_one_that_every_namespace_has() {
        let zeros = "0".repeat(32);
        let line =
            |device: &str| format!("{zeros} 00 {zeros} 00 {zeros} ffffffff 00000001 00000000 00200200     {device}\n");
        assert!(!leads_out(&line("lo")));
        assert!(leads_out(&format!("{}{}", line("lo"), line("up0"))));
    }
}
