//! What a cell tried by a packet that no socket of the gateway takes: TCP to a port without a listener, UDP that is no look-up, echo requests.
//!
//! Nothing is decided here. The kernel has refused the packet by then; this is only for the audit.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// How it was tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The first packet of a TCP connection.
    Tcp,
    /// A datagram.
    Udp,
    /// An echo request.
    Icmp,
}

/// Something that a cell tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// How.
    pub kind: Kind,
    /// Where from: the cell's address, or what it says to be.
    pub from: (IpAddr, u16),
    /// The address it went to.
    pub to: IpAddr,
    /// The port it went to; 0 for what has none.
    pub port: u16,
}

/// Bytes of a packet that are enough to tell: a header of IPv4 with all of its options, or of IPv6 with one more before TCP's.
pub const ENOUGH: u32 = 128;

/// The flags of TCP that make the first packet of a connection (RFC 9293, section 3.1): SYN and not ACK.
pub const SYN: u8 = 0x02;
/// See [`SYN`].
pub const SYN_ACK: u8 = 0x12;

/// Protocol numbers (IANA).
pub const TCP: u8 = 6;
/// See [`TCP`].
pub const UDP: u8 = 17;
/// See [`TCP`].
pub const ICMP: u8 = 1;
/// See [`TCP`].
pub const ICMP_V6: u8 = 58;

/// Types of echo requests (RFC 792, RFC 4443).
pub const ECHO: u8 = 8;
/// See [`ECHO`].
pub const ECHO_V6: u8 = 128;

/// Most headers of IPv6 that are looked behind.
const MOST_HEADERS: usize = 8;

/// What `packet`, which begins with the header of IPv4 or IPv6 and may be cut, tries; `None` for all that begins nothing.
#[must_use]
pub fn attempt(packet: &[u8]) -> Option<Attempt> {
    match packet.first()? >> 4 {
        4 => v4(packet),
        6 => v6(packet),
        _ => None,
    }
}

fn v4(packet: &[u8]) -> Option<Attempt> {
    let header = usize::from(packet.first()? & 0xf) * 4;
    // Of a later fragment the ports are elsewhere.
    if header < 20 || short(packet, 6)? & 0x1fff != 0 {
        return None;
    }
    let address = |at: usize| Some(IpAddr::from(Ipv4Addr::from(packet.get(at..at + 4)?.first_chunk::<4>().copied()?)));
    payload(*packet.get(9)?, packet.get(header..)?, address(12)?, address(16)?)
}

fn v6(packet: &[u8]) -> Option<Attempt> {
    let address =
        |at: usize| Some(IpAddr::from(Ipv6Addr::from(packet.get(at..at + 16)?.first_chunk::<16>().copied()?)));
    let (from, to) = (address(8)?, address(24)?);
    let (mut next, mut rest) = (*packet.get(6)?, packet.get(40..)?);
    for _ in 0..MOST_HEADERS {
        let length = match next {
            // Hop-by-hop and destination options, routing (RFC 8200, section 4): in units of 8 bytes, without the first.
            0 | 43 | 60 => 8 + usize::from(*rest.get(1)?) * 8,
            // A fragment; of a later one the ports are elsewhere.
            44 if short(rest, 2)? >> 3 == 0 => 8,
            _ => break,
        };
        (next, rest) = (*rest.first()?, rest.get(length..)?);
    }
    payload(next, rest, from, to)
}

fn payload(protocol: u8, bytes: &[u8], from: IpAddr, to: IpAddr) -> Option<Attempt> {
    let ports = |kind| Some(Attempt { kind, from: (from, short(bytes, 0)?), to, port: short(bytes, 2)? });
    let first = |wanted: u8| bytes.first().is_some_and(|kind| *kind == wanted);
    match protocol {
        TCP if *bytes.get(13)? & SYN_ACK == SYN => ports(Kind::Tcp),
        UDP => ports(Kind::Udp),
        ICMP if to.is_ipv4() && first(ECHO) => Some(Attempt { kind: Kind::Icmp, from: (from, 0), to, port: 0 }),
        ICMP_V6 if to.is_ipv6() && first(ECHO_V6) => Some(Attempt { kind: Kind::Icmp, from: (from, 0), to, port: 0 }),
        _ => None,
    }
}

fn short(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk::<2>().copied().map(u16::from_be_bytes)
}

#[cfg(test)]
#[path = "packet_tests.rs"]
pub(crate) mod tests;
