//! Lines about what the gateway's kernel has refused: nobody listens there, so nothing else would tell of it. Nothing is decided here.

use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::net::RecvFlags;
use tokio::io::Interest;
use tokio::net::UdpSocket;

use super::connection::{Form, Stop, Target};
use super::{Shared, lock};
use crate::audit::{Event, Line, Protocol, Verdict as Said};
use crate::gateway::{Capture, Gateway};
use crate::packet::{Attempt, ENOUGH, Kind, attempt};
use crate::policy::Verdict;
use crate::who::{Ends, Transport};

/// How often packets are looked at while there are more of them, and how many at a time: at most 100 a second of each family, so that other
/// refusals are still written one by one. What the kernel has no room for meanwhile is counted. So a flood costs its sender more than us.
const TICK: Duration = Duration::from_millis(50);
const AT_A_TIME: usize = 5;

/// Most packets that are still looked at when the network ends.
const LAST: usize = 1000;

/// What the gateway's kernel refuses.
#[derive(Debug, Default)]
pub(super) struct Closed {
    /// Packet sockets: to tokio one socket of datagrams is like another, as long as only bytes are received from it.
    sockets: Vec<UdpSocket>,
    /// Held from the reading of a packet until it is written.
    reading: Mutex<()>,
}

impl Closed {
    /// What `gateway` has sockets for. To be called within the runtime.
    pub(super) fn new(gateway: &Gateway) -> io::Result<Self> {
        let sockets = gateway.closed.as_ref().map_or(Ok(Vec::new()), |closed| closed.sockets())?;
        let sockets =
            sockets.into_iter().map(|socket| UdpSocket::from_std(socket.into())).collect::<io::Result<_>>()?;
        Ok(Self { sockets, reading: Mutex::new(()) })
    }

    /// Whether there is anybody to tell of it.
    pub(super) fn is_seen(&self) -> bool {
        !self.sockets.is_empty()
    }

    /// Forgets what came until now: the network's own look from inside.
    pub(super) fn forget(&self) {
        let mut buffer = [0u8; 1];
        for socket in &self.sockets {
            while rustix::net::recv(socket, &mut buffer, RecvFlags::DONTWAIT).is_ok() {}
        }
    }
}

/// Writes of what is refused from now on.
pub(super) fn watch(shared: &Arc<Shared>) {
    for index in 0..shared.closed.sockets.len() {
        let shared = Arc::clone(shared);
        tokio::spawn(async move {
            while let Some(socket) = shared.closed.sockets.get(index) {
                if socket.readable().await.is_err() {
                    return;
                }
                let _ = socket.try_io(Interest::READABLE, || {
                    let all = shared.some(socket, AT_A_TIME) < AT_A_TIME;
                    if all { Err(io::Error::from(io::ErrorKind::WouldBlock)) } else { Ok(()) }
                });
                tokio::time::sleep(TICK).await;
            }
        });
    }
}

impl Shared {
    /// Writes of what was refused and not looked at yet, once nothing more comes.
    pub(super) fn last_refusals(&self) {
        for socket in &self.closed.sockets {
            self.some(socket, LAST);
        }
    }

    /// Looks at up to `most` packets; at how many.
    fn some(&self, socket: &UdpSocket, most: usize) -> usize {
        let _reading = lock(&self.closed.reading);
        let mut buffer = [0u8; ENOUGH as usize];
        let mut count = 0;
        while count < most
            && let Ok((_, length)) = rustix::net::recv(socket, &mut buffer, RecvFlags::DONTWAIT)
        {
            count += 1;
            let line = buffer.get(..length).and_then(attempt).and_then(|attempt| {
                // A connection that was refused has no socket any more.
                let ends = (attempt.kind == Kind::Udp).then(|| Ends {
                    transport: Transport::Udp,
                    cell: attempt.from.into(),
                    other: (attempt.to, attempt.port).into(),
                });
                Some((self.refusal(attempt)?, ends))
            });
            // It has been refused: there is nothing more to keep from happening where it cannot be written.
            let _ = line.map(|(line, ends)| self.refuse(line, ends));
        }
        let dropped = cellblock_sys::net::dropped_packets(socket).unwrap_or(0);
        lock(&self.audit).more(u64::from(dropped));
        count
    }

    /// The line about a refused attempt; `None` for one that was not refused, or whose refusal has a line elsewhere.
    fn refusal(&self, Attempt { kind, to, port, .. }: Attempt) -> Option<Line> {
        let name = lock(&self.table).name(to).cloned();
        let target = name.map_or(Target::Address(to), Target::Name);
        let (protocol, why, rule) = match kind {
            Kind::Tcp => {
                let Stop::Denied { why, rule, .. } = self.no_listener(&target, to, port)? else { return None };
                (Protocol::Tcp, why, rule)
            }
            Kind::Udp => (Protocol::Udp, "UDP goes nowhere but for look-ups".to_owned(), None),
            Kind::Icmp => (Protocol::Icmp, "ICMP goes nowhere".to_owned(), None),
        };
        let (name, address) = match target {
            Target::Name(name) => (Some(name.as_str().to_owned()), None),
            Target::Address(address) => (None, Some(address)),
        };
        let (rule, origin) = rule.map_or((None, None), |r| (Some(r.rule.to_string()), Some(r.origin)));
        let (port, protocol, why) = ((kind != Kind::Icmp).then_some(port), Some(protocol), Some(why));
        Some(Line { name, address, port, protocol, why, rule, origin, ..Line::new(Event::Connect, Said::Deny) })
    }

    /// Why nobody listens on this port.
    fn no_listener(&self, target: &Target, to: IpAddr, port: u16) -> Option<Stop> {
        match lock(&self.gateway).capture() {
            Capture::Ports(ports) if !ports.contains(&port) => {}
            // It is accepted and decided on.
            _ => return None,
        }
        let policy = self.policy();
        let own = self.dialer.own().ok()?;
        let verdict = match target {
            Target::Name(name) => policy.name(name, port),
            Target::Address(_) => policy.address(to, port, &own),
        };
        match verdict {
            // A rule that has come since.
            Verdict::Allow(_) => None,
            Verdict::Deny(why) => Some(Stop::by_policy(why, target, port, Form::Gone)),
        }
    }
}
