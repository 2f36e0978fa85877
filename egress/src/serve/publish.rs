//! Published ports: connections to a port of the host go to a port of the cell, also where the server listens on the cell's 127.0.0.1 only.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustix::net::{AddressFamily, SocketFlags, SocketType};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::OwnedSemaphorePermit;

use super::{Publish, ServeError, Shared, relay};
use crate::audit::{Event, Line, Protocol, Verdict};
use crate::gateway::Gateway;
use crate::gateway::inside::Inside;

/// How long the server inside may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// Whether servers inside can have all these ports.
pub(super) fn possible(all: &[Publish], gateway: &Gateway) -> Result<(), ServeError> {
    let Some(publish) = all.iter().find(|publish| gateway.has_taken(publish.port)) else { return Ok(()) };
    let why = format!(
        "port {} inside is the network's own, for this host has no veth devices: a server cannot listen there",
        publish.port
    );
    Err(ServeError::Publish { publish: *publish, source: io::Error::other(why) })
}

/// A place among the connections to published ports; `None`, told in the audit, when there are too many.
fn admit(shared: &Shared) -> Option<OwnedSemaphorePermit> {
    let permit = Arc::clone(&shared.places).try_acquire_owned().ok();
    if permit.is_none() {
        let why = Some("too many connections to published ports at a time".to_owned());
        let _ = shared.write(Line { why, ..Line::new(Event::Publish, Verdict::Deny) });
    }
    permit
}

/// Takes connections of one published port and hands them to `port` of the cell.
pub(super) async fn serve(shared: Arc<Shared>, listener: TcpListener, cell: Inside, port: u16) -> io::Result<()> {
    loop {
        let Ok((client, from)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let Some(permit) = admit(&shared) else {
            relay::reset(client);
            continue;
        };
        let (shared, cell) = (Arc::clone(&shared), cell.clone());
        tokio::spawn(async move {
            hand_over(&shared, client, from, &cell, port).await;
            drop(permit);
        });
    }
}

async fn hand_over(shared: &Shared, client: TcpStream, from: SocketAddr, cell: &Inside, port: u16) {
    let started = Instant::now();
    let id = shared.next_id();
    let base =
        Line { id: Some(id), address: Some(from.ip()), port: Some(port), ..Line::new(Event::Publish, Verdict::Allow) };
    let base = Line { protocol: Some(Protocol::Tcp), ..base };
    let server = match connect(cell, port).await {
        Ok(server) => server,
        Err(error) => {
            let why = Some(format!("nothing in the cell answers on port {port}: {error}"));
            let _ = shared.write(Line { why, verdict: Verdict::Deny, ..base });
            return relay::reset(client);
        }
    };
    if shared.write(base.clone()).is_err() {
        return relay::reset(client);
    }
    // As for connections outwards (see `dial::connect`): small pieces do not wait for each other.
    for stream in [&client, &server] {
        let _ = stream.set_nodelay(true);
    }
    let (up, down) = (AtomicU64::new(0), AtomicU64::new(0));
    let done = tokio::try_join!(relay::pour(&client, &server, &down), relay::pour(&server, &client, &up));
    if done.is_err() {
        relay::reset(client);
        relay::reset(server);
    }
    let ms = Some(u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX));
    let (up, down) = (Some(up.load(Ordering::Relaxed)), Some(down.load(Ordering::Relaxed)));
    let _ = shared.write(Line { event: Event::End, up, down, ms, ..base });
}

/// 127.0.0.1 of the cell, else its ::1: development servers listen on either. A server on every address is at both.
async fn connect(cell: &Inside, port: u16) -> io::Result<TcpStream> {
    let mut last = None;
    for address in [SocketAddr::from((Ipv4Addr::LOCALHOST, port)), SocketAddr::from((Ipv6Addr::LOCALHOST, port))] {
        let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        // A system call; quicker than handing it to a thread that may block.
        let socket = cell.run(move || rustix::net::socket_with(family, SocketType::STREAM, flags, None))?;
        let socket = TcpSocket::from_std_stream(std::net::TcpStream::from(socket?));
        match tokio::time::timeout(PATIENCE, socket.connect(address)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => last = last.or(Some(error)),
            Err(_) => last = Some(io::ErrorKind::TimedOut.into()),
        }
    }
    Err(last.unwrap_or_else(|| io::ErrorKind::AddrNotAvailable.into()))
}
