//! A network without veth: our sockets stand in the cell's own network namespace, where every address is local (AnyIP, on loopback).
//!
//! ```text
//!  cell                                                host
//!  lo: 127.0.0.1, 198.18.0.2/32, every other address   the egress process owns the sockets
//!  resolv.conf: 198.18.0.1
//! ```
//!
//! That keeps as much in as a gateway does, for the same reason: the namespace has no device that leads anywhere, and the only way on is
//! through sockets of a process that the cell has no power over. Whatever address and port a connection claims to have been made to, the
//! policy decides on just that; somebody who may change routes and rules in here (`CAP_NET_ADMIN`, which no cell has by itself) can claim
//! whatever a client could have asked for, or cut the cell off.
//!
//! What the cell could spoil is the cell's alone, too: nobody can share our ports (none of our sockets has `SO_REUSEPORT`, and a listening
//! one excludes `SO_REUSEADDR`), but a port that we do not have can be taken by a program of the cell on every address, and other programs of
//! the cell then find it there.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::fd::OwnedFd;

use super::netlink::{self, Netlink};
use super::{CELL, CELL_V6, GatewayError, Joined, enter, only_devices, probes, settle, step};

/// Makes every address local in the network namespace `cell`, which this thread then is in. After the death of a process that had done so
/// already, what is there is as good.
pub(super) fn join(cell: &OwnedFd) -> Result<Joined, GatewayError> {
    enter(cell).map_err(step("enter the cell's network namespace"))?;
    let v6 = std::path::Path::new("/proc/thread-self/net/if_inet6").exists();
    settle(v6).map_err(step("settle the cell's network"))?;
    plumb(v6).map_err(step("set up the cell's loopback interface"))?;
    only_devices(&["lo"])?;
    Ok(Joined { v6, probes: probes()? })
}

fn plumb(v6: bool) -> io::Result<()> {
    let mut link = Netlink::new()?;
    let lo = netlink::index("lo")?;
    link.up(lo)?;
    // Clients look up only the families of which there is an address that is not loopback's (`AI_ADDRCONFIG`).
    there_is(link.address(lo, CELL.into()))?;
    there_is(link.all_local(Ipv4Addr::UNSPECIFIED.into(), CELL.into(), lo))?;
    if v6 {
        there_is(link.address(lo, CELL_V6.into()))?;
        there_is(link.all_local(Ipv6Addr::UNSPECIFIED.into(), CELL_V6.into(), lo))?;
    }
    Ok(())
}

fn there_is(done: io::Result<()>) -> io::Result<()> {
    match done {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other,
    }
}
