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
    // SAFETY: all of it is integers and arrays of integers, for which zeros are valid.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
        *to = libc::c_char::from_ne_bytes([*from]);
    }
    request.ifr_ifru.ifru_flags = libc::c_short::try_from(libc::IFF_UP).map_err(|_| io::ErrorKind::InvalidInput)?;
    // SAFETY: an open socket, and a request of the type that SIOCSIFFLAGS takes, alive during the call.
    let r = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request) };
    if r == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
