//! A network tries itself before it serves, at a start before the cell's first instruction: a name that nobody allows, and an address. If either
//! gets further than it should, the cell does not start.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use hickory_proto::op::{Message, OpCode, Query, ResponseCode};
use hickory_proto::rr::{Name as WireName, RData, RecordType};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, UdpSocket};

use crate::gateway::{GATEWAY, Probes};
use crate::table;

/// Of a top-level domain that never exists (RFC 2606).
const NAME: &str = "self-check.cellblock.invalid.";

/// Of the gateway's own block, and given to nobody: no rule can allow it.
pub(super) const ADDRESS: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 3);

/// It takes a fraction of a millisecond; where a hundred start at once on two emulated processors it was more than ten seconds.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

/// Tries both, from inside the cell's namespace. `port` is one with a listener, if there is any.
pub(super) async fn check(probes: Probes, port: Option<u16>) -> io::Result<()> {
    let both = async { tokio::try_join!(look_up(probes.datagrams), connect(probes.stream, port)) };
    tokio::time::timeout(PATIENCE, both).await?.map(|_| ())
}

fn wrong(what: &str) -> io::Error {
    io::Error::other(what.to_owned())
}

async fn look_up(socket: std::net::UdpSocket) -> io::Result<()> {
    let socket = UdpSocket::from_std(socket)?;
    socket.connect((GATEWAY, 53)).await?;
    let name = WireName::from_ascii(NAME).map_err(|_| wrong("the self-check has no name"))?;
    let mut query = Message::query();
    query.metadata.id = 1;
    query.metadata.op_code = OpCode::Query;
    query.add_query(Query::query(name, RecordType::A));
    socket.send(&query.to_vec().map_err(|_| wrong("the self-check has no question"))?).await?;
    let mut buffer = vec![0u8; 512];
    let length = socket.recv(&mut buffer).await?;
    let answer = Message::from_vec(buffer.get(..length).unwrap_or_default()).map_err(|_| wrong("no answer of DNS"))?;
    let made_up = |data: &RData| matches!(data, RData::A(a) if table::is_made_up(a.0));
    // Where every name is allowed it is known too; never by an address of somebody.
    let fine = match answer.metadata.response_code {
        ResponseCode::NXDomain => answer.answers.is_empty(),
        _ => answer.answers.iter().all(|record| made_up(&record.data)),
    };
    if fine { Ok(()) } else { Err(wrong("a name that nobody allowed led somewhere")) }
}

async fn connect(socket: std::net::TcpStream, port: Option<u16>) -> io::Result<()> {
    let socket = TcpSocket::from_std_stream(socket);
    let mut stream = match socket.connect(SocketAddr::from((ADDRESS, port.unwrap_or(80)))).await {
        Ok(stream) => stream,
        // No listener: the kernel of the gateway has refused.
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused && port.is_none() => return Ok(()),
        Err(error) => return Err(error),
    };
    stream.write_all(b"GET / HTTP/1.1\r\nHost: 198.18.0.3\r\n\r\n").await?;
    let mut answer = [0u8; 12];
    stream.read_exact(&mut answer).await?;
    if answer == *b"HTTP/1.1 403" { Ok(()) } else { Err(wrong("an address that nobody allowed was reached")) }
}
