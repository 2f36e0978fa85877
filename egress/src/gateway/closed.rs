//! What the kernel of a gateway refuses by itself: a look at the packets that no socket takes, for the audit.
//!
//! A filter in the kernel passes only what begins something (a TCP connection to a port without a listener, a datagram that is no look-up,
//! an echo request). So what is allowed costs nothing more, and a flood only fills a small buffer, behind which the kernel drops and counts.
//! The sockets get copies: nothing that is done with them changes what becomes of a packet.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use cellblock_sys::net::{attach_filter, packets};
use cellblock_sys::seccomp::Instruction;
use rustix::net::sockopt;

use super::sockets::DNS;
use super::{Capture, netlink};
use crate::packet::{ECHO, ECHO_V6, ENOUGH, ICMP, ICMP_V6, SYN, SYN_ACK, TCP, UDP};

/// Ethernet types (IANA).
const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;

/// Some hundred small packets (the kernel takes it twice): more than a burst of an honest program. What comes beyond is a flood, and counted.
const ROOM: usize = 64 << 10;

/// Sockets that get what is refused.
#[derive(Debug)]
pub(crate) struct Closed {
    v4: OwnedFd,
    v6: Option<OwnedFd>,
}

impl Closed {
    /// Opens them on the interface `device` of this thread's network namespace.
    pub(super) fn new(device: &str, v6: bool, capture: &Capture) -> io::Result<Self> {
        let index = netlink::index(device)?;
        let ports = ports(capture);
        let open = |protocol, filter: Vec<Instruction>| {
            let socket = packets(index, protocol, &filter)?;
            sockopt::set_socket_recv_buffer_size(&socket, ROOM)?;
            Ok::<_, io::Error>(socket)
        };
        let v6 = if v6 { Some(open(IPV6, filter_v6(ports))?) } else { None };
        Ok(Self { v4: open(IPV4, filter_v4(ports))?, v6 })
    }

    /// Leaves out what goes to the ports of `capture`, which may have more of them by now.
    pub(super) fn refilter(&self, capture: &Capture) -> io::Result<()> {
        let ports = ports(capture);
        attach_filter(&self.v4, &filter_v4(ports))?;
        self.v6.as_ref().map_or(Ok(()), |v6| attach_filter(v6, &filter_v6(ports)))
    }

    /// The same sockets, for whoever reads them.
    pub(crate) fn sockets(&self) -> io::Result<Vec<OwnedFd>> {
        [Some(&self.v4), self.v6.as_ref()].into_iter().flatten().map(|s| s.as_fd().try_clone_to_owned()).collect()
    }
}

/// Ports with a listener; `None` if all are caught.
fn ports(capture: &Capture) -> Option<&[u16]> {
    match capture {
        Capture::Ports(ports) | Capture::Forward { ports, .. } => Some(ports),
        Capture::Everything => None,
    }
}

/// Operations of classic BPF (`<linux/bpf_common.h>`): loads of a byte and of two, at a place and behind register X; X itself.
const BYTE: u16 = 0x30;
const SHORT: u16 = 0x28;
const BYTE_AT_X: u16 = 0x50;
const SHORT_AT_X: u16 = 0x48;
const X_HEADER: u16 = 0xb1;
const X: u16 = 0x01;
const AND: u16 = 0x54;
const IF_EQUAL: u16 = 0x15;
const IF_SET: u16 = 0x45;
const RETURN: u16 = 0x06;

const DROP: Instruction = (RETURN, 0, 0, 0);
const PASS: Instruction = (RETURN, 0, 0, ENOUGH);

fn filter_v4(ports: Option<&[u16]>) -> Vec<Instruction> {
    // Later fragments have no ports. The header's length is in its first byte.
    let mut code = vec![(SHORT, 0, 0, 6), (IF_SET, 0, 1, 0x1fff), DROP, (X_HEADER, 0, 0, 0), (BYTE, 0, 0, 9)];
    code.extend(payload(ICMP, ECHO, ports));
    code
}

fn filter_v6(ports: Option<&[u16]>) -> Vec<Instruction> {
    let mut code = vec![(X, 0, 0, 40), (BYTE, 0, 0, 6)];
    // A fragment: passed if it is the first.
    code.extend([(IF_EQUAL, 0, 4, 44), (SHORT, 0, 0, 42), (IF_SET, 0, 1, 0xfff8), DROP, PASS]);
    // Other headers before that of the protocol are rare, and for the reader to walk along.
    code.extend([0, 43, 60].into_iter().flat_map(|header| [(IF_EQUAL, 0, 1, header), PASS]));
    code.extend(payload(ICMP_V6, ECHO_V6, ports));
    code
}

/// Decides by the protocol, which is loaded, and by what X points to.
fn payload(icmp: u8, echo: u8, ports: Option<&[u16]>) -> Vec<Instruction> {
    let equal = |value: u8, yes, no| (IF_EQUAL, yes, no, u32::from(value));
    let port = |port: u16| [(IF_EQUAL, 0, 1, u32::from(port)), DROP];
    let mut code = vec![equal(UDP, 0, 4), (SHORT_AT_X, 0, 0, 2)];
    code.extend(port(DNS));
    code.push(PASS);
    code.extend([equal(icmp, 0, 4), (BYTE_AT_X, 0, 0, 0), equal(echo, 1, 0), DROP, PASS]);
    let Some(ports) = ports else {
        code.push(DROP);
        return code;
    };
    code.extend([equal(TCP, 1, 0), DROP]);
    code.extend([
        (BYTE_AT_X, 0, 0, 13),
        (AND, 0, 0, u32::from(SYN_ACK)),
        equal(SYN, 1, 0),
        DROP,
        (SHORT_AT_X, 0, 0, 2),
    ]);
    code.extend(ports.iter().copied().filter(|p| *p != DNS).chain([DNS]).flat_map(port));
    code.push(PASS);
    code
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixDatagram;

    use super::*;
    use crate::gateway::MOST_PORTS;
    use crate::packet::attempt;
    use crate::packet::tests::{packet, tcp, udp};

    /// What the kernel says, which runs the filter over datagrams of any family.
    struct Passed(UnixDatagram, UnixDatagram);

    impl Passed {
        fn new(filter: &[Instruction]) -> Self {
            let (ours, theirs) = UnixDatagram::pair().expect("sockets");
            theirs.set_nonblocking(true).expect("set");
            attach_filter(&theirs, filter).expect("the kernel takes the filter");
            Self(ours, theirs)
        }

        fn passes(&self, bytes: &[u8]) -> bool {
            // What is not passed is an error for this family.
            let _ = self.0.send(bytes);
            let mut buffer = [0; 2000];
            let got = self.1.recv(&mut buffer).ok();
            assert!(got.is_none_or(|length| length == bytes.len().min(ENOUGH as usize)));
            got.is_some()
        }
    }

    const CELLS: [&str; 2] = ["198.18.0.2", "fdce:11b1:cc0:ffff::2"];
    const OTHERS: [&str; 2] = ["198.18.1.7", "fdce:11b1:cc0::7"];

    fn filters(ports: Option<&[u16]>) -> [Passed; 2] {
        [Passed::new(&filter_v4(ports)), Passed::new(&filter_v6(ports))]
    }

    #[test]
    fn only_what_is_refused_passes_the_filter() {
        let echo = [(ICMP, ECHO), (ICMP_V6, ECHO_V6)];
        for (index, filter) in filters(Some(&[80, 443])).iter().enumerate() {
            let of = |protocol, payload: &[u8]| packet(CELLS[index], OTHERS[index], protocol, payload);
            for port in [1, 22, 54, 81, 442, 8081, 65535] {
                assert!(filter.passes(&of(TCP, &tcp(port, SYN))), "{port}");
                assert!(filter.passes(&of(UDP, &udp(port))), "{port}");
            }
            assert!(filter.passes(&of(UDP, &udp(80))), "a listener is for TCP");
            assert!(filter.passes(&of(echo[index].0, &[echo[index].1, 0, 0, 0])));
            for port in [80, 443, 53] {
                assert!(!filter.passes(&of(TCP, &tcp(port, SYN))), "{port}");
            }
            assert!(!filter.passes(&of(UDP, &udp(53))), "a look-up");
            for flags in [SYN_ACK, 0x10, 0x04, 0] {
                assert!(!filter.passes(&of(TCP, &tcp(8081, flags))), "{flags:#x}");
            }
            assert!(!filter.passes(&of(echo[index].0, &[3, 0, 0, 0])));
            assert!(!filter.passes(&of(47, &[0; 40])));
            assert!(!filter.passes(&[]));
        }
    }

    #[test]
    fn where_all_ports_are_caught_no_connection_passes() {
        for (index, filter) in filters(None).iter().enumerate() {
            assert!(!filter.passes(&packet(CELLS[index], OTHERS[index], TCP, &tcp(8081, SYN))));
            assert!(filter.passes(&packet(CELLS[index], OTHERS[index], UDP, &udp(8081))));
        }
    }

    #[test]
    fn the_kernel_takes_as_many_ports_as_there_can_be() {
        let ports: Vec<u16> = (1000..).take(MOST_PORTS).collect();
        for (index, filter) in filters(Some(&ports)).iter().enumerate() {
            let of = |port| packet(CELLS[index], OTHERS[index], TCP, &tcp(port, SYN));
            assert!(ports.iter().all(|port| !filter.passes(&of(*port))));
            assert!(filter.passes(&of(999)) && filter.passes(&of(1000 + 256)));
        }
    }

    #[test]
    fn what_passes_is_what_is_read() {
        // Every beginning of headers that differ in a byte: where the reader finds something, the filter has passed it.
        for (index, filter) in filters(Some(&[80])).iter().enumerate() {
            for protocol in [0, ICMP, TCP, UDP, 43, 44, ICMP_V6, 60] {
                let whole = packet(CELLS[index], OTHERS[index], protocol, &tcp(8081, SYN));
                for at in 0..whole.len() {
                    for value in [0, 1, 2, 8, 43, 0x45, 0x46, 0x60, 128, 255] {
                        let mut bytes = whole.clone();
                        bytes[at] = value;
                        let version = [0x40, 0x60][index];
                        if bytes[0] & 0xf0 == version
                            && let Some(found) = attempt(&bytes)
                            && found.port != 53
                            && found.port != 80
                        {
                            assert!(filter.passes(&bytes), "{bytes:02x?}");
                        }
                    }
                }
            }
        }
    }
}
