//! The sockets of a gateway. One of IPv6 takes IPv4 as well (`IPV6_V6ONLY` off, RFC 3493 section 5.3), which halves their number.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::os::fd::OwnedFd;

use nix::sys::socket::{setsockopt, sockopt as nix_option};
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};

/// The port of name servers.
pub(crate) const DNS: u16 = 53;

/// Where captured connections go, whatever port they were made to.
pub(super) const CAPTURE: u16 = 15_001;

/// Connections that wait to be accepted.
const BACKLOG: i32 = 4096;

/// A listener for `port` of every address.
pub(crate) fn listener(port: u16, v6: bool, transparent: bool) -> io::Result<TcpListener> {
    let socket = socket(SocketType::STREAM, v6)?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    if transparent {
        // The same bit for both families.
        setsockopt(&socket, nix_option::IpTransparent, &true)?;
    }
    bind(&socket, port, v6)?;
    rustix::net::listen(&socket, BACKLOG)?;
    Ok(TcpListener::from(socket))
}

/// A UDP socket for `port` of every address that tells to which one a packet came.
pub(super) fn datagrams(port: u16, v6: bool) -> io::Result<OwnedFd> {
    let socket = socket(SocketType::DGRAM, v6)?;
    if v6 {
        setsockopt(&socket, nix_option::Ipv6RecvPacketInfo, &true)?;
    } else {
        setsockopt(&socket, nix_option::Ipv4PacketInfo, &true)?;
    }
    bind(&socket, port, v6)?;
    Ok(socket)
}

fn socket(kind: SocketType, v6: bool) -> io::Result<OwnedFd> {
    let family = if v6 { AddressFamily::INET6 } else { AddressFamily::INET };
    let socket = rustix::net::socket_with(family, kind, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None)?;
    if v6 {
        sockopt::set_ipv6_v6only(&socket, false)?;
    }
    Ok(socket)
}

fn bind(socket: &OwnedFd, port: u16, v6: bool) -> io::Result<()> {
    let any: SocketAddr = if v6 { (Ipv6Addr::UNSPECIFIED, port).into() } else { (Ipv4Addr::UNSPECIFIED, port).into() };
    Ok(rustix::net::bind(socket, &any)?)
}
