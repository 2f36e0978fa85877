//! The inside of `net test`: what a program tries that does not want to be kept in. Runs in a cell, as this same program.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream, ToSocketAddrs, UdpSocket};
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The hidden word that starts it.
pub(crate) const WORD: &str = "__net-probe";

/// How long each try may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// What is to be tried.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Tries {
    /// A name that is not allowed, if there is one.
    pub(super) denied: Option<String>,
    /// Addresses that are not allowed, with what they are.
    pub(super) addresses: Vec<(String, SocketAddr)>,
    /// A name and port that are allowed, and that the host reaches itself.
    pub(super) allowed: Option<(String, u16)>,
}

/// What came of one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Outcome {
    /// What was tried.
    pub(super) check: String,
    /// Whether it is as it has to be; `None` if it could not be tried.
    pub(super) holds: Option<bool>,
    /// What happened.
    pub(super) detail: String,
}

impl Outcome {
    pub(super) fn new(check: impl Into<String>, holds: impl Into<Option<bool>>, detail: impl Into<String>) -> Self {
        Self { check: check.into(), holds: holds.into(), detail: detail.into() }
    }
}

/// Tries everything and gives the outcomes as JSON.
pub(crate) fn main(tries: Option<&str>) -> Option<String> {
    let tries: Tries = serde_json::from_str(tries?).ok()?;
    let mut outcomes = Vec::new();
    match &tries.denied {
        Some(name) => outcomes.push(denied_name(name)),
        None => outcomes.push(Outcome::new("a name that is not allowed", None, "every name is allowed")),
    }
    outcomes.extend(tries.addresses.iter().map(|(what, address)| direct(what, *address)));
    outcomes.push(tunnel("its own resolver", Ipv4Addr::new(198, 18, 0, 1).into(), tries.denied.is_none()));
    outcomes.push(tunnel("a resolver outside (8.8.8.8)", Ipv4Addr::new(8, 8, 8, 8).into(), tries.denied.is_none()));
    outcomes.push(datagram());
    outcomes.push(match &tries.allowed {
        Some((name, port)) => allowed(name, *port),
        None => Outcome::new("a name that is allowed", None, "none of them is reached from the host itself"),
    });
    serde_json::to_string(&outcomes).ok()
}

fn denied_name(name: &str) -> Outcome {
    let check = format!("a name that is not allowed ({name}) does not resolve");
    match (name, 443).to_socket_addrs() {
        Ok(found) => Outcome::new(
            check,
            false,
            format!("it has {}", found.map(|a| a.ip().to_string()).collect::<Vec<_>>().join(", ")),
        ),
        Err(error) => Outcome::new(check, true, error.to_string()),
    }
}

/// What a program does that ignores proxies and names.
fn direct(what: &str, address: SocketAddr) -> Outcome {
    let check = format!("{what} ({address}) is not reached");
    let answer = || -> std::io::Result<Vec<u8>> {
        let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(b"GET / HTTP/1.1\r\nHost: cellblock.invalid\r\n\r\n")?;
        let mut got = vec![0u8; 4096];
        let length = stream.read(&mut got)?;
        got.truncate(length);
        Ok(got)
    };
    match answer() {
        Ok(got) if got.windows(19).any(|w| w == b"X-Cellblock: denied") => {
            Outcome::new(check, true, "refused by the gateway")
        }
        Ok(got) if got.is_empty() => Outcome::new(check, true, "closed without a word"),
        Ok(_) => Outcome::new(check, false, "something answered"),
        Err(error) => {
            use std::io::ErrorKind::{ConnectionRefused, ConnectionReset, HostUnreachable, NetworkUnreachable};
            let refused =
                matches!(error.kind(), ConnectionRefused | ConnectionReset | HostUnreachable | NetworkUnreachable);
            Outcome::new(check, refused, error.to_string())
        }
    }
}

/// A question with data in it, as tunnels send them: the answer must be ours, and say nothing.
fn tunnel(what: &str, server: IpAddr, all_known: bool) -> Outcome {
    let check = format!("data in a look-up to {what} goes nowhere");
    let ask = || -> std::io::Result<Vec<u8>> {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.connect((server, 53))?;
        let mut query = vec![0, 9, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        for label in ["c2VjcmV0LXRva2VuLW9mLXNvbWVib2R5", "tunnel", "example"] {
            query.push(u8::try_from(label.len()).unwrap_or(0));
            query.extend_from_slice(label.as_bytes());
        }
        // The root, TXT, IN.
        query.extend_from_slice(&[0, 0, 16, 0, 1]);
        socket.send(&query)?;
        let mut answer = vec![0u8; 1024];
        let length = socket.recv(&mut answer)?;
        answer.truncate(length);
        Ok(answer)
    };
    match ask() {
        Ok(answer) => {
            let code = answer.get(3).map(|b| b & 15);
            let records = answer.get(6..8).map(|b| u16::from(b[0]) << 8 | u16::from(b[1]));
            let ours = code == Some(3) || (all_known && code == Some(0));
            Outcome::new(
                check,
                ours && records == Some(0),
                format!("answered by the gateway: code {}, {} records", code.unwrap_or(0), records.unwrap_or(0)),
            )
        }
        Err(error) => Outcome::new(check, false, format!("no answer, though the gateway should give one: {error}")),
    }
}

/// QUIC goes over UDP.
fn datagram() -> Outcome {
    let check = "UDP (QUIC to 1.1.1.1:443) is refused";
    let send = || -> std::io::Result<usize> {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.connect((Ipv4Addr::new(1, 1, 1, 1), 443))?;
        socket.send(&[0xc0; 64])?;
        socket.recv(&mut [0u8; 64])
    };
    match send() {
        Ok(_) => Outcome::new(check, false, "something answered"),
        Err(error) => Outcome::new(check, error.kind() == std::io::ErrorKind::ConnectionRefused, error.to_string()),
    }
}

/// The positive twin: without it all the refusals would prove nothing.
fn allowed(name: &str, port: u16) -> Outcome {
    let check = format!("a name that is allowed ({name}:{port}) is reached");
    let connect = || -> std::io::Result<()> {
        let address = (name, port).to_socket_addrs()?.next().ok_or(std::io::ErrorKind::NotFound)?;
        let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        // A hello that no server accepts: its alert is an answer, and comes from it.
        stream.write_all(&hello(name))?;
        let mut first = [0u8; 2];
        stream.read_exact(&mut first)
    };
    match connect() {
        Ok(()) => Outcome::new(check, true, "its server answered"),
        Err(error) => Outcome::new(check, false, error.to_string()),
    }
}

/// A TLS hello with a server's name and nothing that could be agreed on: a server answers it with an alert, before any certificate.
pub(super) fn hello(name: &str) -> Vec<u8> {
    let list = |prefix: &[u8], content: &[u8]| {
        let mut out = prefix.to_vec();
        out.extend_from_slice(&u16::try_from(content.len()).unwrap_or(0).to_be_bytes());
        out.extend_from_slice(content);
        out
    };
    // server_name (RFC 6066, section 3): a list with one host name.
    let extension = list(&[0, 0], &list(&[], &list(&[0], name.as_bytes())));
    let mut body = vec![3, 3];
    body.extend_from_slice(&[7; 32]);
    body.push(0);
    // TLS_NULL_WITH_NULL_NULL, no compression.
    body.extend_from_slice(&[0, 2, 0, 0, 1, 0]);
    body.extend_from_slice(&list(&[], &extension));
    let mut message = vec![1, 0];
    message.extend_from_slice(&u16::try_from(body.len()).unwrap_or(0).to_be_bytes());
    message.extend_from_slice(&body);
    list(&[22, 3, 1], &message)
}
