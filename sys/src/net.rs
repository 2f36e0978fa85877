//! Network interfaces (`netdevice(7)`), which rustix only names.

use std::ffi::{CStr, CString};
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::ptr;

use rustix::net::{AddressFamily, SocketFlags, SocketType};

use crate::seccomp::Instruction;

/// Brings the loopback interface of this network namespace up; it then has 127.0.0.1 and ::1. A new namespace has it down.
///
/// # Errors
/// Those of `socket(2)` and `ioctl(2)`; `CAP_NET_ADMIN` in the namespace's owner is needed.
pub fn loopback_up() -> io::Result<()> {
    let socket = rustix::net::socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    let mut request = request("lo");
    request.ifr_ifru.ifru_flags = libc::c_short::try_from(libc::IFF_UP).map_err(|_| io::ErrorKind::InvalidInput)?;
    // SAFETY: an open socket, and a request of the type that SIOCSIFFLAGS takes, alive during the call.
    let r = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS as libc::Ioctl, &raw const request) };
    if r == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// A request about the interface `name`.
fn request(name: &str) -> libc::ifreq {
    // SAFETY: all of it is integers and arrays of integers, for which zeros are valid.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    // The last byte stays zero.
    for (to, from) in request.ifr_name.iter_mut().take(libc::IFNAMSIZ - 1).zip(name.bytes()) {
        *to = libc::c_char::from_ne_bytes([from]);
    }
    request
}

/// Whether the interface `name` of this network namespace has a carrier.
///
/// Asking makes the kernel catch up with what it has put off (`linkwatch_sync_dev`): of a veth pair the end that was brought up first drops
/// every packet until a work queue comes to it, which on a busy machine takes seconds.
///
/// # Errors
/// Those of `socket(2)` and `ioctl(2)`.
pub fn has_carrier(name: &str) -> io::Result<bool> {
    /// `struct ethtool_value` and `ETHTOOL_GLINK` (linux/ethtool.h).
    #[repr(C)]
    struct Value {
        command: u32,
        data: u32,
    }
    const GET_LINK: u32 = 0x0a;
    let socket = rustix::net::socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    let mut value = Value { command: GET_LINK, data: 0 };
    let mut request = request(name);
    request.ifr_ifru.ifru_data = (&raw mut value).cast();
    // SAFETY: an open socket, and a request whose data points to the structure that this command fills; both outlive the call.
    let r = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCETHTOOL as libc::Ioctl, &raw mut request) };
    if r == 0 { Ok(value.data != 0) } else { Err(io::Error::last_os_error()) }
}

/// The IPv4 addresses of a host, by the host's resolver (getaddrinfo(3)), which is asked for nothing else. Waits as long as that does.
///
/// # Errors
/// `InvalidInput` for a name with a NUL; `NotFound`, with its words, for what the resolver says.
pub fn ipv4_of(name: &str) -> io::Result<Vec<Ipv4Addr>> {
    let name = CString::new(name)?;
    // SAFETY: integers and pointers, for which zeros are valid: no wish about the answer.
    let mut wish: libc::addrinfo = unsafe { std::mem::zeroed() };
    (wish.ai_family, wish.ai_socktype) = (libc::AF_INET, libc::SOCK_STREAM);
    let mut list = ptr::null_mut();
    // SAFETY: a NUL-terminated name, no service, a wish as it has to be, and a place for the answer.
    let failed = unsafe { libc::getaddrinfo(name.as_ptr(), ptr::null(), &raw const wish, &raw mut list) };
    if failed != 0 {
        // SAFETY: any number has words.
        let words = unsafe { libc::gai_strerror(failed) };
        // SAFETY: NUL-terminated, and constant.
        let why = unsafe { CStr::from_ptr(words) };
        return Err(io::Error::new(io::ErrorKind::NotFound, why.to_string_lossy()));
    }
    let mut found = Vec::new();
    let mut next = list;
    // SAFETY: null, or an entry of the list, which is there until it is given back below.
    while let Some(entry) = unsafe { next.as_ref() } {
        next = entry.ai_next;
        if entry.ai_family == libc::AF_INET && entry.ai_addrlen as usize >= size_of::<libc::sockaddr_in>() {
            // SAFETY: an address of this family and length.
            let address = unsafe { entry.ai_addr.cast::<libc::sockaddr_in>().read_unaligned() };
            found.push(Ipv4Addr::from(u32::from_be(address.sin_addr.s_addr)));
        }
    }
    // SAFETY: the list from above, of which nothing is used any more.
    unsafe { libc::freeaddrinfo(list) };
    Ok(found)
}

/// A socket that gets a copy of the packets of `protocol` (an Ethernet type) that come in by the interface `index` and pass `filter`, from
/// their network header on (`packet(7)`, `SOCK_DGRAM`). The filter is there before the first packet is.
///
/// # Errors
/// Those of `socket(2)`, `bind(2)` and [`attach_filter`]; `CAP_NET_RAW` in the namespace's owner is needed.
pub fn packets(index: u32, protocol: u16, filter: &[Instruction]) -> io::Result<OwnedFd> {
    let kind = libc::SOCK_DGRAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    // SAFETY: no pointers. Protocol 0: it gets nothing until it is bound.
    let fd = unsafe { libc::socket(libc::AF_PACKET, kind, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: just opened, and owned by nobody else.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    attach_filter(&socket, filter)?;
    // SAFETY: all of it is integers and arrays of integers, for which zeros are valid.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = u16::try_from(libc::AF_PACKET).map_err(|_| io::ErrorKind::InvalidInput)?;
    address.sll_protocol = protocol.to_be();
    address.sll_ifindex = i32::try_from(index).map_err(|_| io::ErrorKind::InvalidInput)?;
    let size = length_of::<libc::sockaddr_ll>()?;
    // SAFETY: an open socket, and an address of its family with its length, alive during the call.
    let r = unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), size) };
    if r == 0 { Ok(socket) } else { Err(io::Error::last_os_error()) }
}

/// Has `socket` get only what the program `filter` passes, and of that as many bytes as it returns; in place of a filter of before
/// (`SO_ATTACH_FILTER`, `socket(7)`).
///
/// # Errors
/// `InvalidInput` if the program is too long; those of `setsockopt(2)`.
pub fn attach_filter(socket: impl AsFd, filter: &[Instruction]) -> io::Result<()> {
    let filter: Vec<libc::sock_filter> =
        filter.iter().map(|&(code, jt, jf, k)| libc::sock_filter { code, jt, jf, k }).collect();
    let len = u16::try_from(filter.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let program = libc::sock_fprog { len, filter: filter.as_ptr().cast_mut() };
    let (fd, size) = (socket.as_fd().as_raw_fd(), length_of::<libc::sock_fprog>()?);
    // SAFETY: an open socket, and a program that points to `len` instructions, all alive during the call; the kernel copies and checks them.
    let r =
        unsafe { libc::setsockopt(fd, libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, (&raw const program).cast(), size) };
    if r == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// How many packets passed the filter of a socket of [`packets`] and found no room in it, since it was asked last (`PACKET_STATISTICS`).
///
/// # Errors
/// Those of `getsockopt(2)`.
pub fn dropped_packets(socket: impl AsFd) -> io::Result<u32> {
    /// `struct tpacket_stats` (linux/if_packet.h).
    #[repr(C)]
    struct Statistics {
        packets: u32,
        drops: u32,
    }
    /// Of the same header.
    const PACKET_STATISTICS: libc::c_int = 6;
    let mut statistics = Statistics { packets: 0, drops: 0 };
    let (fd, mut size) = (socket.as_fd().as_raw_fd(), length_of::<Statistics>()?);
    let into = (&raw mut statistics).cast();
    // SAFETY: an open socket, and room for the structure of this option with its length, alive during the call.
    let r = unsafe { libc::getsockopt(fd, libc::SOL_PACKET, PACKET_STATISTICS, into, &raw mut size) };
    if r == 0 { Ok(statistics.drops) } else { Err(io::Error::last_os_error()) }
}

fn length_of<T>() -> io::Result<libc::socklen_t> {
    libc::socklen_t::try_from(size_of::<T>()).map_err(|_| io::ErrorKind::InvalidInput.into())
}
