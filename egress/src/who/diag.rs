//! The number of a socket by its two ends: sock_diag(7), for one socket, which the kernel finds as it would for a packet.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;

use rustix::net::{RecvFlags, SendFlags};

use super::{Ends, Transport};

/// `SOCK_DIAG_BY_FAMILY` (linux/sock_diag.h).
const BY_FAMILY: u16 = 20;

/// Where in an answer `struct inet_diag_msg` (linux/inet_diag.h) begins, and how long it is.
const HEADER: usize = 16;
const MESSAGE: usize = 72;

/// The inode number of the cell's socket.
pub(super) fn socket(diag: &OwnedFd, ends: &Ends) -> Option<u32> {
    rustix::net::send(diag, &question(ends), SendFlags::DONTWAIT).ok()?;
    let mut buffer = [0u8; 512];
    // The kernel answers while it is asked.
    let (_, length) = rustix::net::recv(diag, &mut buffer, RecvFlags::DONTWAIT).ok()?;
    answer(buffer.get(..length)?, ends)
}

fn plain(address: SocketAddr) -> (IpAddr, u16) {
    (address.ip().to_canonical(), address.port())
}

/// `struct nlmsghdr`, `struct inet_diag_req_v2`.
fn question(ends: &Ends) -> Vec<u8> {
    let (cell, other) = (plain(ends.cell), plain(ends.other));
    let (protocol, source, destination) = match ends.transport {
        Transport::Tcp => (crate::packet::TCP, cell, other),
        // For UDP the kernel takes the ends as those of a packet that comes in.
        Transport::Udp => (crate::packet::UDP, other, cell),
    };
    let family = if cell.0.is_ipv4() { 2 } else { 10 };
    let mut bytes = Vec::with_capacity(72);
    bytes.extend(72u32.to_ne_bytes());
    bytes.extend(BY_FAMILY.to_ne_bytes());
    // NLM_F_REQUEST, a sequence number and a port that nobody looks at.
    bytes.extend(1u16.to_ne_bytes());
    bytes.extend([0; 8]);
    // In every state; no extensions.
    bytes.extend([family, protocol, 0, 0, 0xff, 0xff, 0xff, 0xff]);
    bytes.extend([source.1.to_be_bytes(), destination.1.to_be_bytes()].concat());
    for (address, _) in [source, destination] {
        let mut room = [0u8; 16];
        match address {
            IpAddr::V4(v4) => room[..4].copy_from_slice(&v4.octets()),
            IpAddr::V6(v6) => room = v6.octets(),
        }
        bytes.extend(room);
    }
    // Any interface; INET_DIAG_NOCOOKIE.
    bytes.extend([0; 4]);
    bytes.extend([0xff; 8]);
    bytes
}

/// The number in the kernel's answer, if that is about a socket with the cell's port, and of a connection with the other port too: the
/// kernel also finds who would take a new connection.
fn answer(bytes: &[u8], ends: &Ends) -> Option<u32> {
    let kind = u16::from_ne_bytes(*bytes.get(4..)?.first_chunk()?);
    let message = bytes.get(HEADER..HEADER + MESSAGE).filter(|_| kind == BY_FAMILY)?;
    let port = |at: usize| Some(u16::from_be_bytes(*message.get(at..)?.first_chunk()?));
    let same = port(4)? == ends.cell.port() && (ends.transport == Transport::Udp || port(6)? == ends.other.port());
    let number = u32::from_ne_bytes(*message.get(68..)?.first_chunk()?);
    // 0: it belongs to no file any more.
    Some(number).filter(|number| same && *number != 0)
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream, UdpSocket};
    use std::os::fd::AsFd;

    use super::*;

    fn number(socket: impl AsFd) -> u32 {
        u32::try_from(rustix::fs::fstat(socket).expect("an open file").st_ino).expect("a small number")
    }

    #[test]
    fn the_kernel_tells_the_number_of_a_socket() {
        let diag = super::super::open().expect("a socket");
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let listener = TcpListener::bind(address).expect("a port");
            let client = TcpStream::connect(listener.local_addr().expect("bound")).expect("connected");
            let (cell, other) = (client.local_addr().expect("bound"), client.peer_addr().expect("connected"));
            let tcp = |cell, other| socket(&diag, &Ends { transport: Transport::Tcp, cell, other });
            assert_eq!(tcp(cell, other), Some(number(&client)), "{address}");
            // A port that only a listener has is nobody's connection.
            assert_eq!(tcp(other, cell), None, "not accepted yet: it has no file");
            assert_eq!(tcp(other, SocketAddr::new(cell.ip(), 1)), None);
            let (one, two) = (UdpSocket::bind(address).expect("a port"), UdpSocket::bind(address).expect("a port"));
            let (cell, other) = (one.local_addr().expect("bound"), two.local_addr().expect("bound"));
            let udp = |cell, other| socket(&diag, &Ends { transport: Transport::Udp, cell, other });
            assert_eq!(udp(cell, other), Some(number(&one)));
            one.connect(other).expect("connected");
            assert_eq!(udp(cell, other), Some(number(&one)));
            drop(one);
            assert_eq!(udp(cell, other), None);
        }
    }

    #[test]
    fn addresses_of_ipv4_in_clothes_of_ipv6_are_understood() {
        let diag = super::super::open().expect("a socket");
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let mapped = |address: SocketAddr| match address.ip() {
            IpAddr::V4(v4) => SocketAddr::new(v4.to_ipv6_mapped().into(), address.port()),
            IpAddr::V6(_) => address,
        };
        let client = TcpStream::connect(mapped(listener.local_addr().expect("bound"))).expect("connected");
        let ends = Ends {
            transport: Transport::Tcp,
            cell: mapped(client.local_addr().expect("bound")),
            other: client.peer_addr().expect("connected"),
        };
        assert_eq!(socket(&diag, &ends), Some(number(&client)));
    }

    #[test]
    fn a_damaged_answer_is_none() {
        let any: SocketAddr = "127.0.0.1:1".parse().expect("an address");
        let ends = Ends { transport: Transport::Udp, cell: any, other: any };
        for length in 0..100 {
            let mut bytes = vec![0u8; length];
            if let Some(kind) = bytes.get_mut(4) {
                *kind = 20;
            }
            assert_eq!(answer(&bytes, &ends), None);
        }
    }
}
