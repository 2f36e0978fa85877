//! The little of rtnetlink(7) that a gateway needs: a link up, a veth pair, an address, a route. Written by hand, for it runs in a
//! short-lived thread of a foreign network namespace, where a runtime and its connection task would only be in the way.

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

/// Numbers of `linux/rtnetlink.h`, `linux/if_link.h`, `linux/if_addr.h` and `linux/veth.h`.
mod number {
    pub(super) const RTM_NEWLINK: u16 = 16;
    pub(super) const RTM_DELLINK: u16 = 17;
    pub(super) const RTM_NEWADDR: u16 = 20;
    pub(super) const RTM_NEWROUTE: u16 = 24;
    pub(super) const NLMSG_ERROR: u16 = 2;
    pub(super) const NLM_F_REQUEST_ACK: u16 = 1 | 4;
    pub(super) const NLM_F_CREATE_EXCL: u16 = 0x400 | 0x200;
    pub(super) const NLA_F_NESTED: u16 = 0x8000;
    pub(super) const IFLA_IFNAME: u16 = 3;
    pub(super) const IFLA_MTU: u16 = 4;
    pub(super) const IFLA_LINKINFO: u16 = 18;
    pub(super) const IFLA_NET_NS_FD: u16 = 28;
    pub(super) const IFLA_INFO_KIND: u16 = 1;
    pub(super) const IFLA_INFO_DATA: u16 = 2;
    pub(super) const VETH_INFO_PEER: u16 = 1;
    pub(super) const IFF_UP: u32 = 1;
    pub(super) const IFA_ADDRESS: u16 = 1;
    pub(super) const IFA_LOCAL: u16 = 2;
    pub(super) const IFA_F_NODAD: u8 = 2;
    pub(super) const RTA_DST: u16 = 1;
    pub(super) const RTA_OIF: u16 = 4;
    pub(super) const RTA_GATEWAY: u16 = 5;
    pub(super) const RTA_PREFSRC: u16 = 7;
    pub(super) const RTPROT_STATIC: u8 = 4;
    pub(super) const AF_INET: u8 = 2;
    pub(super) const AF_INET6: u8 = 10;
}
use number::*;

/// Which table a route goes to and what it does.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    /// Out of the device, to a neighbour or `via` one: table `main`.
    Unicast,
    /// As `Unicast`, in table `local`, which is looked at first.
    UnicastFirst,
    /// To this namespace itself: AnyIP.
    Local,
}

/// A connection to the kernel, for the network namespace in which it was made.
#[derive(Debug)]
pub(super) struct Netlink {
    socket: OwnedFd,
    sequence: u32,
}

/// Appends an attribute, padded to four bytes.
fn attribute(to: &mut Vec<u8>, kind: u16, content: &[u8]) {
    let length = u16::try_from(content.len() + 4).unwrap_or(u16::MAX);
    to.extend_from_slice(&length.to_ne_bytes());
    to.extend_from_slice(&kind.to_ne_bytes());
    to.extend_from_slice(content);
    to.resize(to.len().next_multiple_of(4), 0);
}

fn nested(kind: u16, content: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    attribute(&mut out, kind | NLA_F_NESTED, content);
    out
}

fn family(address: IpAddr) -> u8 {
    if address.is_ipv4() { AF_INET } else { AF_INET6 }
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(a) => a.octets().to_vec(),
        IpAddr::V6(a) => a.octets().to_vec(),
    }
}

/// `struct ifinfomsg`.
fn link_header(index: u32, flags: u32) -> Vec<u8> {
    let mut body = vec![0; 4];
    body.extend_from_slice(&index.to_ne_bytes());
    body.extend_from_slice(&flags.to_ne_bytes());
    body.extend_from_slice(&flags.to_ne_bytes());
    body
}

impl Netlink {
    /// For the network namespace that this thread is in now.
    pub(super) fn new() -> io::Result<Self> {
        let socket = rustix::net::socket_with(
            AddressFamily::NETLINK,
            SocketType::RAW,
            SocketFlags::CLOEXEC,
            // NETLINK_ROUTE is number 0.
            None,
        )?;
        Ok(Self { socket, sequence: 0 })
    }

    fn request(&mut self, kind: u16, flags: u16, body: &[u8]) -> io::Result<()> {
        self.sequence += 1;
        let length = u32::try_from(16 + body.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
        let mut message = length.to_ne_bytes().to_vec();
        message.extend_from_slice(&kind.to_ne_bytes());
        message.extend_from_slice(&(flags | NLM_F_REQUEST_ACK).to_ne_bytes());
        message.extend_from_slice(&self.sequence.to_ne_bytes());
        message.extend_from_slice(&0u32.to_ne_bytes());
        message.extend_from_slice(body);
        rustix::net::send(&self.socket, &message, SendFlags::empty())?;
        let mut answer = [0u8; 4096];
        let (_, received) =
            rustix::io::retry_on_intr(|| rustix::net::recv(&self.socket, answer.as_mut_slice(), RecvFlags::empty()))?;
        // struct nlmsghdr, then struct nlmsgerr, which begins with the errno, negated; 0 is the acknowledgement.
        let answer = answer.get(..received).unwrap_or_default();
        match (answer.get(4..6), answer.get(16..20)) {
            (Some(kind), Some(code)) if kind == NLMSG_ERROR.to_ne_bytes() => {
                let code = i32::from_ne_bytes(code.try_into().map_err(|_| io::ErrorKind::InvalidData)?);
                if code == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(-code)) }
            }
            _ => Err(io::ErrorKind::InvalidData.into()),
        }
    }

    /// Brings the interface `index` up.
    pub(super) fn up(&mut self, index: u32) -> io::Result<()> {
        self.request(RTM_NEWLINK, 0, &link_header(index, IFF_UP))
    }

    /// Removes the interface `index`, and of a veth pair the other end too.
    pub(super) fn remove(&mut self, index: u32) -> io::Result<()> {
        self.request(RTM_DELLINK, 0, &link_header(index, 0))
    }

    /// Makes a veth pair: `name` here, `peer` in the network namespace `there`.
    pub(super) fn veth(&mut self, name: &str, peer: &str, there: BorrowedFd<'_>, mtu: u32) -> io::Result<()> {
        let text = |s: &str| [s.as_bytes(), &[0]].concat();
        let mut other = link_header(0, 0);
        attribute(&mut other, IFLA_IFNAME, &text(peer));
        attribute(&mut other, IFLA_MTU, &mtu.to_ne_bytes());
        attribute(&mut other, IFLA_NET_NS_FD, &there.as_raw_fd().to_ne_bytes());
        let mut info = Vec::new();
        attribute(&mut info, IFLA_INFO_KIND, b"veth\0");
        info.extend(nested(IFLA_INFO_DATA, &nested(VETH_INFO_PEER, &other)));
        let mut body = link_header(0, 0);
        attribute(&mut body, IFLA_IFNAME, &text(name));
        attribute(&mut body, IFLA_MTU, &mtu.to_ne_bytes());
        body.extend(nested(IFLA_LINKINFO, &info));
        self.request(RTM_NEWLINK, NLM_F_CREATE_EXCL, &body)
    }

    /// Gives the interface `index` an address, alone in its prefix. IPv6 ones without duplicate detection: the first seconds would fail.
    pub(super) fn address(&mut self, index: u32, address: IpAddr) -> io::Result<()> {
        let (prefix, flags) = if address.is_ipv4() { (32, 0) } else { (128, IFA_F_NODAD) };
        let mut body = vec![family(address), prefix, flags, 0];
        body.extend_from_slice(&index.to_ne_bytes());
        attribute(&mut body, IFA_LOCAL, &octets(address));
        attribute(&mut body, IFA_ADDRESS, &octets(address));
        self.request(RTM_NEWADDR, NLM_F_CREATE_EXCL, &body)
    }

    /// Adds a route to `to`/`prefix` through the interface `index`.
    pub(super) fn route(
        &mut self,
        kind: Kind,
        to: IpAddr,
        prefix: u8,
        via: Option<IpAddr>,
        index: u32,
    ) -> io::Result<()> {
        // Tables 254 main and 255 local; scopes 0 universe, 253 link, 254 host; types 1 unicast, 2 local.
        let (table, scope, action) = match kind {
            Kind::Unicast => (254, if via.is_some() { 0 } else { 253 }, 1),
            Kind::UnicastFirst => (255, 253, 1),
            Kind::Local => (255, 254, 2),
        };
        let mut body = vec![family(to), prefix, 0, 0, table, RTPROT_STATIC, scope, action, 0, 0, 0, 0];
        if prefix != 0 {
            attribute(&mut body, RTA_DST, &octets(to));
        }
        if let Some(via) = via {
            attribute(&mut body, RTA_GATEWAY, &octets(via));
        }
        attribute(&mut body, RTA_OIF, &index.to_ne_bytes());
        self.request(RTM_NEWROUTE, NLM_F_CREATE_EXCL, &body)
    }

    /// Makes every address of the family of `any` one of this namespace's own, by the loopback interface `index`. Connections to them come
    /// `from` one address: without it each would come from the one that it goes to.
    pub(super) fn all_local(&mut self, any: IpAddr, from: IpAddr, index: u32) -> io::Result<()> {
        let mut body = vec![family(any), 0, 0, 0, 255, RTPROT_STATIC, 254, 2, 0, 0, 0, 0];
        attribute(&mut body, RTA_PREFSRC, &octets(from));
        attribute(&mut body, RTA_OIF, &index.to_ne_bytes());
        self.request(RTM_NEWROUTE, NLM_F_CREATE_EXCL, &body)
    }
}

/// The index of the interface `name` in this thread's network namespace.
pub(super) fn index(name: &str) -> io::Result<u32> {
    let socket = rustix::net::socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    Ok(rustix::net::netdevice::name_to_index(socket.as_fd(), name)?)
}
