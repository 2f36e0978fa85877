//! The resolver's sockets: packets from the cell to [`crate::dns`] and back, from the address that was asked.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use nix::libc;
use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, sendmsg};
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::{TcpListener, TcpStream, UdpSocket};

use super::{Shared, lock};
use crate::audit::{Event, Line, Protocol, Verdict};
use crate::dns::{self, Outcome};
use crate::gateway::Way;
use crate::gateway::sockets::DNS;
use crate::who::{Ends, Transport};

/// Longest query. Over UDP nobody has reason for more; over TCP the length has two bytes.
pub(super) const MAX: usize = 4096;

/// Queries answered a second; more are dropped, which resolvers take for a loss and ask again.
const RATE: u32 = 2000;

/// How long a connection may be silent.
pub(super) const IDLE: Duration = Duration::from_secs(10);

impl Shared {
    /// Answers a packet of the resolver's protocol that went between these ends.
    fn look_up(&self, query: &[u8], ends: Option<Ends>) -> Option<Vec<u8>> {
        let answer = {
            let mut table = lock(&self.table);
            let before = table.given();
            let answer = dns::answer(query, &self.policy(), &mut table, self.v6)?;
            let after = table.given();
            if after != before {
                // Before the cell learns of it.
                std::os::unix::fs::FileExt::write_all_at(&self.given, &after.to_le_bytes(), 0).ok()?;
            }
            answer
        };
        let (verdict, name, why) = match answer.outcome {
            Outcome::Known(name) | Outcome::Empty(name) => (Verdict::Allow, Some(name.as_str().to_owned()), None),
            Outcome::Unknown(text) => (Verdict::Deny, Some(text), Some("no rule allows this name")),
            Outcome::Full(name) => (Verdict::Deny, Some(name.as_str().to_owned()), Some("too many different names")),
            Outcome::Odd => (Verdict::Deny, None, Some("not a question of the usual kind")),
        };
        let line = Line {
            name,
            why: why.map(str::to_owned),
            protocol: Some(Protocol::Dns),
            method: answer.kind,
            ..Line::new(Event::Dns, verdict)
        };
        match verdict {
            Verdict::Allow => self.write(line).ok()?,
            Verdict::Deny => self.refuse(line, ends).ok()?,
        }
        Some(answer.packet)
    }
}

/// Answers over UDP for as long as the runtime lives.
pub(super) async fn datagrams(shared: Arc<Shared>, socket: OwnedFd) -> io::Result<()> {
    let socket = UdpSocket::from_std(socket.into())?;
    let mut buffer = vec![0u8; MAX];
    let mut second = (tokio::time::Instant::now(), 0);
    loop {
        let received = socket.async_io(Interest::READABLE, || receive(&socket, &mut buffer)).await;
        // Such as an ICMP error for an answer that nobody wanted any more.
        let Ok((length, packet)) = received else { continue };
        if second.0.elapsed() >= Duration::from_secs(1) {
            second = (tokio::time::Instant::now(), 0);
        }
        second.1 += 1;
        if second.1 > RATE {
            continue;
        }
        if let Some(answer) = shared.look_up(buffer.get(..length).unwrap_or_default(), packet.ends()) {
            // A full socket buffer is a loss like any other.
            let _ = send(&socket, &packet, &answer);
        }
    }
}

/// Where a packet came from, and the address it was sent to.
pub(super) struct Packet {
    from: SockaddrStorage,
    asked: Asked,
}

impl Packet {
    /// Both ends, as the cell sees them.
    fn ends(&self) -> Option<Ends> {
        let v4 = self.from.as_sockaddr_in().map(|a| SocketAddr::from((a.ip(), a.port())));
        let cell = v4.or_else(|| self.from.as_sockaddr_in6().map(|a| SocketAddr::from((a.ip(), a.port()))))?;
        let address = match self.asked {
            Asked::V4(address) => IpAddr::from(u32::from_be(address.s_addr).to_be_bytes()),
            Asked::V6(address) => IpAddr::from(address.s6_addr),
        };
        Some(Ends { transport: Transport::Udp, cell, other: (address, DNS).into() })
    }
}

enum Asked {
    V4(libc::in_addr),
    V6(libc::in6_addr),
}

pub(super) fn receive(socket: &UdpSocket, buffer: &mut [u8]) -> io::Result<(usize, Packet)> {
    let mut space = nix::cmsg_space!(libc::in_pktinfo, libc::in6_pktinfo);
    let mut parts = [io::IoSliceMut::new(buffer)];
    let message = recvmsg::<SockaddrStorage>(socket.as_raw_fd(), &mut parts, Some(&mut space), MsgFlags::empty())?;
    let asked = message.cmsgs()?.find_map(|control| match control {
        ControlMessageOwned::Ipv4PacketInfo(info) => Some(Asked::V4(info.ipi_addr)),
        ControlMessageOwned::Ipv6PacketInfo(info) => Some(Asked::V6(info.ipi6_addr)),
        _ => None,
    });
    match (message.address, asked) {
        (Some(from), Some(asked)) => Ok((message.bytes, Packet { from, asked })),
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

/// The source is the address that was asked: clients drop answers of others. Interface 0: any.
pub(super) fn send(socket: &UdpSocket, packet: &Packet, answer: &[u8]) -> io::Result<()> {
    let parts = [io::IoSlice::new(answer)];
    let out = |control: ControlMessage<'_>| {
        sendmsg(socket.as_raw_fd(), &parts, &[control], MsgFlags::MSG_DONTWAIT, Some(&packet.from))
    };
    match packet.asked {
        Asked::V4(address) => out(ControlMessage::Ipv4PacketInfo(&libc::in_pktinfo {
            ipi_ifindex: 0,
            ipi_spec_dst: address,
            ipi_addr: libc::in_addr { s_addr: 0 },
        }))?,
        Asked::V6(address) => {
            out(ControlMessage::Ipv6PacketInfo(&libc::in6_pktinfo { ipi6_addr: address, ipi6_ifindex: 0 }))?
        }
    };
    Ok(())
}

/// Answers over TCP (RFC 7766): a length of two bytes before each message.
pub(super) async fn streams(shared: Arc<Shared>, listener: TcpListener) -> io::Result<()> {
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let Some(permit) = shared.admit() else { continue };
        let shared = Arc::clone(&shared);
        tokio::spawn(async move {
            let _ = queries(&shared, stream).await;
            drop(permit);
        });
    }
}

async fn queries(shared: &Shared, mut stream: TcpStream) -> io::Result<()> {
    let mut buffer = vec![0u8; MAX];
    loop {
        let length = usize::from(tokio::time::timeout(IDLE, stream.read_u16()).await??);
        let room = buffer.get_mut(..length).ok_or(io::ErrorKind::InvalidData)?;
        tokio::time::timeout(IDLE, stream.read_exact(room)).await??;
        let Some(answer) = shared.look_up(room, Ends::of(&stream, Way::Bind)) else { return Ok(()) };
        let length = u16::try_from(answer.len()).map_err(|_| io::ErrorKind::InvalidData)?;
        tokio::time::timeout(IDLE, stream.write_all(&[&length.to_be_bytes(), answer.as_slice()].concat())).await??;
    }
}
