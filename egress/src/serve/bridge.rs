//! What is served of a bridge: look-ups, which go on to the host's own name servers, and services of this machine. All else is forwarded as
//! packets by the gateway's kernel ([`crate::gateway`]) and never seen here.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::Interest;
use tokio::net::{TcpListener, TcpSocket, TcpStream, UdpSocket};
use tokio::sync::Semaphore;

use super::resolver::{self, IDLE, MAX};
use super::{ServeError, Shared, dial, lock, step};
use crate::audit::{Event, Line, Verdict};
use crate::gateway::{Capture, Probes, walls};
use crate::name::Name;
use crate::policy::{HOST_NAMES, Policy, Target};

/// Most look-ups under way.
const MOST: usize = 256;

/// How long a name server may take. Resolvers ask again after five seconds.
const PATIENCE: Duration = Duration::from_secs(5);

/// How often this machine's addresses are looked at.
const LOOK: Duration = Duration::from_secs(2);

/// An address that no rule can open, of the block of the gateway's own (RFC 2544), for the self-check.
const NOBODY: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 3);

/// What the gateway is to do.
pub(super) fn capture(policy: &Policy, own: &[IpAddr]) -> Result<Capture, ServeError> {
    // A name has no meaning for packets: to leave such a denial out would be to break it.
    if let Some(denied) = policy.deny_rules().iter().find(|d| matches!(d.rule.target, Target::Names(_))) {
        let why = format!("{}: the network `bridge` knows addresses and cannot deny {}", denied.origin, denied.rule);
        return Err(step("keep the rules")(io::Error::new(io::ErrorKind::Unsupported, why)));
    }
    Ok(Capture::Forward { rules: walls::text(policy, own), ports: walls::host_ports(policy) })
}

/// The name by which services of this machine are known in rules and in the audit.
pub(super) fn host_name() -> Option<Name> {
    HOST_NAMES.last().and_then(|name| name.parse().ok())
}

/// From inside the cell, before its first instruction: what nobody may reach is refused, and not by silence, which could be anything.
pub(super) async fn check(probes: Probes) -> io::Result<()> {
    let socket = TcpSocket::from_std_stream(probes.stream);
    let tried = socket.connect(SocketAddr::from((NOBODY, 80)));
    match tokio::time::timeout(PATIENCE, tried).await? {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(()),
        Err(error) => Err(error),
        Ok(_) => Err(io::Error::other("an address that nobody may reach was reached")),
    }
}

/// Ends this process when the uplink has ended, and when this machine gets an address that the gateway does not know of and might let through.
/// Its supervisor makes another network.
pub(super) async fn watch(shared: Arc<Shared>, known: Vec<IpAddr>) {
    loop {
        tokio::time::sleep(LOOK).await;
        if lock(&shared.gateway).has_lost_uplink() {
            let why = Some("the program that carries the packets has ended: the network is made again".to_owned());
            let _ = shared.write(Line { why, ..Line::new(Event::Start, Verdict::Deny) });
            cellblock_sys::process::exit_now(1);
        }
        let new = dial::own_addresses().map(|now| now.into_iter().find(|address| !known.contains(address)));
        let why = match new {
            Ok(None) => continue,
            Ok(Some(address)) => format!("this machine has a new address, {address}: the network is made again"),
            Err(error) => format!("this machine's addresses cannot be seen any more: {error}"),
        };
        let _ = shared.write(Line { why: Some(why), ..Line::new(Event::Start, Verdict::Deny) });
        cellblock_sys::process::exit_now(1);
    }
}

/// The host's name servers (resolv.conf(5)), as they are now.
fn servers(text: &str) -> Vec<SocketAddr> {
    let address = |line: &str| {
        let mut words = line.split_ascii_whitespace();
        let first = words.next();
        words.next().filter(|_| first == Some("nameserver"))?.parse::<IpAddr>().ok()
    };
    let found: Vec<SocketAddr> = text.lines().filter_map(address).map(|ip| SocketAddr::new(ip, 53)).take(3).collect();
    // What the C library does without any.
    if found.is_empty() { vec![SocketAddr::from((Ipv4Addr::LOCALHOST, 53))] } else { found }
}

fn host_servers() -> Vec<SocketAddr> {
    servers(&std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default())
}

/// Passes look-ups on, for as long as the runtime lives.
pub(super) async fn datagrams(socket: OwnedFd) -> io::Result<()> {
    let socket = Arc::new(UdpSocket::from_std(socket.into())?);
    let room = Arc::new(Semaphore::new(MOST));
    let mut buffer = vec![0u8; MAX];
    loop {
        let received = socket.async_io(Interest::READABLE, || resolver::receive(&socket, &mut buffer)).await;
        let Ok((length, packet)) = received else { continue };
        // One too many is a loss like any other: resolvers ask again.
        let Ok(permit) = Arc::clone(&room).try_acquire_owned() else { continue };
        let (query, socket) = (buffer.get(..length).unwrap_or_default().to_vec(), Arc::clone(&socket));
        tokio::spawn(async move {
            if let Ok(answer) = ask(&query).await {
                let _ = resolver::send(&socket, &packet, &answer);
            }
            drop(permit);
        });
    }
}

/// The answer of the first name server that gives one.
async fn ask(query: &[u8]) -> io::Result<Vec<u8>> {
    let mut last = io::Error::from(io::ErrorKind::NotFound);
    for server in host_servers() {
        let one = async {
            let any: SocketAddr = if server.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0u16; 8], 0).into() };
            let socket = UdpSocket::bind(any).await?;
            socket.connect(server).await?;
            socket.send(query).await?;
            let mut answer = vec![0u8; MAX];
            let length = socket.recv(&mut answer).await?;
            answer.truncate(length);
            Ok::<_, io::Error>(answer)
        };
        match tokio::time::timeout(PATIENCE, one).await {
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(error)) => last = error,
            Err(_) => last = io::ErrorKind::TimedOut.into(),
        }
    }
    Err(last)
}

/// The same over TCP: the connection goes on to the first name server that takes it.
pub(super) async fn streams(shared: Arc<Shared>, listener: TcpListener) -> io::Result<()> {
    loop {
        let Ok((mut client, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let Some(permit) = shared.admit() else { continue };
        tokio::spawn(async move {
            for server in host_servers() {
                if let Ok(Ok(mut server)) = tokio::time::timeout(PATIENCE, TcpStream::connect(server)).await {
                    let both = tokio::io::copy_bidirectional(&mut client, &mut server);
                    let _ = tokio::time::timeout(IDLE, both).await;
                    break;
                }
            }
            drop(permit);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_servers_are_read_as_the_c_library_does() {
        let text = "# nameserver 9.9.9.9\nsearch example.com\nnameserver 127.0.0.53\nnameserver\tfd00::53 \nnameserver x\noptions edns0\n";
        let found: Vec<String> = servers(text).iter().map(ToString::to_string).collect();
        assert_eq!(found, ["127.0.0.53:53", "[fd00::53]:53"]);
        assert_eq!(servers("").len(), 1);
    }
}
