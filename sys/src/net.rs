//! Network interfaces (`netdevice(7)`), which rustix only names.

use std::io;
use std::os::fd::AsRawFd;

use rustix::net::{AddressFamily, SocketFlags, SocketType};

/// Brings the loopback interface of this network namespace up; it then has 127.0.0.1 and ::1. A new namespace has it down.
///
/// # Errors
/// Those of `socket(2)` and `ioctl(2)`; `CAP_NET_ADMIN` in the namespace's owner is needed.
pub fn loopback_up() -> io::Result<()> {
    let socket = rustix::net::socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    let mut request = request("lo");
    request.ifr_ifru.ifru_flags = libc::c_short::try_from(libc::IFF_UP).map_err(|_| io::ErrorKind::InvalidInput)?;
    // SAFETY: an open socket, and a request of the type that SIOCSIFFLAGS takes, alive during the call.
    let r = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request) };
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
    let r = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCETHTOOL, &raw mut request) };
    if r == 0 { Ok(value.data != 0) } else { Err(io::Error::last_os_error()) }
}
