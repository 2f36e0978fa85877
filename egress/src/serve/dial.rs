//! From a name to a connection: the host's own resolver, the filter on what it says, and then exactly those addresses.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use tokio::net::TcpStream;

use crate::name::Name;
use crate::policy::{Policy, Sourced, Target, Why};

/// Asks the host's resolver.
///
/// musl's asks for addresses of both kinds at once, and fails if there is no good answer about one of them, as when a name server refuses questions
/// about IPv6, or does not answer them. Then IPv4 is asked for alone. glibc's does as much by itself.
async fn look_up(name: &str) -> io::Result<Vec<IpAddr>> {
    /// A name server that answers at all does so in less.
    const SOON: Duration = Duration::from_secs(1);
    let both = async {
        let found = tokio::net::lookup_host((name, 0)).await?;
        Ok(found.map(|address| address.ip()).collect())
    };
    if !cfg!(target_env = "musl") {
        return both.await;
    }
    let mut both = std::pin::pin!(both);
    match tokio::time::timeout(SOON, &mut both).await {
        Ok(Ok(found)) => Ok(found),
        Ok(Err(error)) => match tokio::time::timeout(SOON, ipv4_of(name)).await {
            Ok(Ok(found)) => Ok(found),
            _ => Err(error),
        },
        Err(_) => {
            let found_only = async {
                match ipv4_of(name).await {
                    Ok(found) => found,
                    Err(_) => std::future::pending().await,
                }
            };
            let mut alone = std::pin::pin!(found_only);
            let error = tokio::select! {
                found = &mut alone => return Ok(found),
                found = &mut both => match found {
                    Ok(found) => return Ok(found),
                    Err(error) => error,
                },
            };
            tokio::time::timeout(SOON, alone).await.map_err(|_| error)
        }
    }
}

async fn ipv4_of(name: &str) -> io::Result<Vec<IpAddr>> {
    let name = name.to_owned();
    let found = tokio::task::spawn_blocking(move || cellblock_sys::net::ipv4_of(&name)).await??;
    Ok(found.into_iter().map(IpAddr::from).collect())
}

/// How long an answer of the host's resolver is good. `getaddrinfo(3)` does not tell; it is for bursts of connections.
const FRESH: Duration = Duration::from_secs(5);

/// Most answers kept.
const MOST: usize = 1024;

/// How long one address may take to answer, and all of them.
const ONE: Duration = Duration::from_secs(5);
const ALL: Duration = Duration::from_secs(20);

/// Why there is no connection.
#[derive(Debug)]
pub(super) enum DialError {
    /// The name leads nowhere.
    Resolve(io::Error),
    /// It leads only where the rule does not go.
    Filtered(String),
    /// Nobody answers.
    Connect(io::Error),
}

impl DialError {
    /// For people.
    pub(super) fn words(&self) -> String {
        match self {
            Self::Filtered(why) => why.clone(),
            Self::Resolve(error) => format!("the host cannot resolve the name: {error}"),
            Self::Connect(error) => format!("the server does not answer: {error}"),
        }
    }
}

/// The host's resolver and what is known of the host.
#[derive(Debug, Default)]
pub(super) struct Dialer {
    answers: Mutex<HashMap<Name, (Instant, Vec<IpAddr>)>>,
    own: Mutex<Option<(Instant, Vec<IpAddr>)>>,
}

impl Dialer {
    /// Connects to `port` of `name` as `rule` allows it. Returns the address too.
    pub(super) async fn name(
        &self,
        policy: &Policy,
        rule: &Sourced,
        name: &Name,
        port: u16,
    ) -> Result<(TcpStream, IpAddr), DialError> {
        if matches!(rule.rule.target, Target::Host) {
            return connect(&[Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()], port).await;
        }
        let found = self.resolve(name).await.map_err(DialError::Resolve)?;
        let own = self.own().map_err(DialError::Resolve)?;
        let (mut fine, mut why) = (Vec::new(), None);
        for address in found {
            match policy.dial_name(name, address, port, &own) {
                Ok(()) => fine.push(address),
                Err(reason) => why = why.or(Some(format!("{name} leads to {address}, {}", leads(&reason)))),
            }
        }
        if fine.is_empty() {
            return Err(DialError::Filtered(why.unwrap_or_else(|| format!("{name} has no address"))));
        }
        connect(&fine, port).await
    }

    async fn resolve(&self, name: &Name) -> io::Result<Vec<IpAddr>> {
        if let Ok(answers) = self.answers.lock()
            && let Some((when, found)) = answers.get(name)
            && when.elapsed() < FRESH
        {
            return Ok(found.clone());
        }
        let mut found: Vec<IpAddr> = Vec::new();
        for address in look_up(name.as_str()).await? {
            if !found.contains(&address) {
                found.push(address);
            }
        }
        if let Ok(mut answers) = self.answers.lock() {
            if answers.len() >= MOST {
                answers.clear();
            }
            answers.insert(name.clone(), (Instant::now(), found.clone()));
        }
        Ok(found)
    }

    /// The addresses of this machine. Not to know them is an error: the filter would let one through.
    pub(super) fn own(&self) -> io::Result<Vec<IpAddr>> {
        let mut own = self.own.lock().map_err(|_| io::ErrorKind::Other)?;
        if let Some((when, addresses)) = own.as_ref()
            && when.elapsed() < FRESH
        {
            return Ok(addresses.clone());
        }
        let addresses = own_addresses()?;
        *own = Some((Instant::now(), addresses.clone()));
        Ok(addresses)
    }
}

/// The addresses of all interfaces of this process's network namespace.
pub(super) fn own_addresses() -> io::Result<Vec<IpAddr>> {
    Ok(nix::ifaddrs::getifaddrs()?
        .filter_map(|interface| {
            let address = interface.address?;
            let v4 = address.as_sockaddr_in().map(|a| IpAddr::V4(a.ip()));
            v4.or_else(|| address.as_sockaddr_in6().map(|a| IpAddr::V6(a.ip())))
        })
        .collect())
}

/// The rest of a sentence about an address.
pub(super) fn leads(why: &Why<'_>) -> String {
    match why {
        Why::Kind(class) => match class.word() {
            Some(word) => format!("which is {} (the rule would need the word `{word}`)", class.words()),
            None => format!("which is {}", class.words()),
        },
        Why::ThisHost => "which is this machine (services of this machine are allowed as host:PORT)".to_owned(),
        Why::Denied(rule) => format!("which {} denies", rule.rule),
        _ => "which no rule allows".to_owned(),
    }
}

/// Connects to `port` of the first address that answers.
pub(super) async fn connect(addresses: &[IpAddr], port: u16) -> Result<(TcpStream, IpAddr), DialError> {
    let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
    let deadline = tokio::time::Instant::now() + ALL;
    for address in addresses {
        let until = deadline.min(tokio::time::Instant::now() + ONE);
        match tokio::time::timeout_at(until, TcpStream::connect(SocketAddr::new(*address, port))).await {
            Ok(Ok(stream)) => {
                // What the cell sent in pieces goes on in pieces. Nagle would hold the second back until the server has acknowledged the first,
                // which it puts off for 40 ms.
                let _ = stream.set_nodelay(true);
                return Ok((stream, *address));
            }
            Ok(Err(error)) => last = error,
            Err(_) => last = io::ErrorKind::TimedOut.into(),
        }
    }
    Err(DialError::Connect(last))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn small_pieces_do_not_wait_for_each_other() {
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
        let server = listener.local_addr().expect("an address");
        let (stream, address) = connect(&[server.ip()], server.port()).await.expect("connected");
        assert_eq!(address, server.ip());
        assert!(
            stream.nodelay().expect("asked"),
            "a body sent behind its head would wait 40 ms for an acknowledgement"
        );
    }
}
