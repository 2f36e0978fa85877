//! The sockets of a gateway. One of IPv6 takes IPv4 as well (`IPV6_V6ONLY` off, RFC 3493 section 5.3), which halves their number.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::os::fd::{AsFd, OwnedFd};

use nix::sys::socket::{SockaddrIn, SockaddrIn6, getsockopt, setsockopt, sockopt as nix_option};
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};

use super::rung::Way;

/// The port of name servers.
pub(crate) const DNS: u16 = 53;

/// Connections that wait to be accepted.
const BACKLOG: i32 = 4096;

/// A listener for `port` of every address, or for one that is free if that is 0.
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

/// The address and port that a connection caught by `way` was made to.
pub(crate) fn asked(client: &(impl AsFd + ?Sized), way: Way) -> io::Result<(IpAddr, u16)> {
    let own: SocketAddr =
        rustix::net::getsockname(client)?.try_into().map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
    // One of IPv4 that came through a socket of IPv6 is one of IPv4.
    let own = SocketAddr::new(own.ip().to_canonical(), own.port());
    let asked = match (way, own) {
        (Way::Bind | Way::Tproxy, own) => own,
        // Nothing else will do where it does not know: our own address would be taken for what was asked for.
        (Way::Redirect, SocketAddr::V4(_)) => {
            SocketAddr::V4(SockaddrIn::from(getsockopt(&client.as_fd(), nix_option::OriginalDst)?).into())
        }
        (Way::Redirect, SocketAddr::V6(_)) => {
            SocketAddr::V6(SockaddrIn6::from(getsockopt(&client.as_fd(), nix_option::Ip6tOriginalDst)?).into())
        }
    };
    Ok((asked.ip(), asked.port()))
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

/// An IPv4 socket that is connected later.
pub(super) fn probe(kind: SocketType) -> io::Result<OwnedFd> {
    socket(kind, false)
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
