//! The load of `ci/bench --net`: a server, and a client that stays in the network that is measured and does what it is told.
//!
//! - `load serve ADDRESS…` answers `GET /COUNT` with so many bytes.
//! - `load work ADDRESS [PROXY] [--raw]` reads orders, one a line, and answers each with a line of JSON:
//!   `stream STREAMS SECONDS`, `requests COUNT CLIENTS SECONDS` (each request is a connection of its own), `hold COUNT` (connections that have
//!   answered once and stay until the next order). `--raw` asks in words that are not HTTP's, so that nobody on the way can take them for it.

use std::io::{self, BufRead, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

const PIECE: usize = 256 << 10;
static BYTES: [u8; PIECE] = [b'x'; PIECE];

/// Bytes of a small answer.
const SMALL: u64 = 64;

/// More than any stream moves before its time is over.
const ENDLESS: u64 = 1 << 50;

/// Longest head of a request or an answer.
const HEAD: usize = 8 << 10;

fn main() -> io::Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    match words.split_first() {
        Some((verb, addresses)) if verb == "serve" => runtime.block_on(serve(addresses)),
        Some((verb, rest)) if verb == "work" => {
            let to = Arc::new(runtime.block_on(To::new(rest))?);
            let mut held = Vec::new();
            for order in io::stdin().lock().lines() {
                held.clear();
                let done = runtime.block_on(obey(&to, &order?, &mut held))?;
                writeln!(io::stdout(), "{done}")?;
            }
            Ok(())
        }
        _ => Err(wrong("serve ADDRESS… | work ADDRESS [PROXY] [--raw]")),
    }
}

fn wrong(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, what)
}

async fn serve(addresses: &[String]) -> io::Result<()> {
    let mut listeners = JoinSet::new();
    for address in addresses {
        let listener = TcpListener::bind(address).await?;
        listeners.spawn(async move {
            loop {
                // Out of descriptors at worst, which is an error that the clients count.
                let Ok((stream, _)) = listener.accept().await else { continue };
                tokio::spawn(answer(stream));
            }
        });
    }
    writeln!(io::stdout(), "ready")?;
    listeners.join_next().await.transpose()?.unwrap_or(Ok(()))
}

/// Answers all requests of a connection.
async fn answer(mut stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    loop {
        let (head, _) = head(&mut stream).await?;
        let path = head.split(' ').nth(1).unwrap_or_default();
        // Through a proxy it comes with a scheme and a host.
        let count: u64 = path.rsplit('/').next().and_then(|count| count.parse().ok()).ok_or_else(|| wrong("a path"))?;
        let last = head.to_ascii_lowercase().contains("connection: close");
        let connection = if last { "Connection: close\r\n" } else { "" };
        let mut first = format!("HTTP/1.1 200 OK\r\nContent-Length: {count}\r\n{connection}\r\n").into_bytes();
        let mut left = count;
        if count == SMALL {
            first.extend(BYTES.iter().take(usize::try_from(count).unwrap_or(0)));
            left = 0;
        }
        stream.write_all(&first).await?;
        while left > 0 {
            let piece = usize::try_from(left).unwrap_or(PIECE).min(PIECE);
            left -= u64::try_from(stream.write(BYTES.get(..piece).unwrap_or_default()).await?).unwrap_or(left);
        }
        if last {
            return stream.shutdown().await;
        }
    }
}

/// Reads up to the empty line; also how many bytes came after it.
async fn head(stream: &mut TcpStream) -> io::Result<(String, u64)> {
    let mut bytes = Vec::with_capacity(HEAD);
    loop {
        if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            let rest = u64::try_from(bytes.len() - end - 4).unwrap_or(0);
            return Ok((String::from_utf8_lossy(bytes.get(..end).unwrap_or_default()).into_owned(), rest));
        }
        if stream.read_buf(&mut bytes).await? == 0 || bytes.len() > HEAD {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}

/// Where requests go.
struct To {
    address: SocketAddr,
    /// What stands before the path of a request: its method and, through a proxy, the server.
    before: String,
    host: String,
}

impl To {
    async fn new(words: &[String]) -> io::Result<Self> {
        let raw = words.iter().any(|word| word == "--raw");
        let mut places = words.iter().filter(|word| *word != "--raw");
        let host = places.next().ok_or_else(|| wrong("no address"))?.clone();
        let proxy = places.next();
        let target = proxy.unwrap_or(&host);
        // Once: it is connections that are measured.
        let address = tokio::net::lookup_host(target).await?.next().ok_or_else(|| wrong("no such host"))?;
        let scheme = if proxy.is_some() { format!("http://{host}") } else { String::new() };
        Ok(Self { address, before: format!("{} {scheme}", if raw { "FETCH" } else { "GET" }), host })
    }

    /// A connection on which an answer of `count` bytes has begun; how many of them are still to come.
    async fn ask(&self, count: u64, last: bool) -> io::Result<(TcpStream, u64)> {
        let mut stream = TcpStream::connect(self.address).await?;
        stream.set_nodelay(true)?;
        let (before, host) = (&self.before, &self.host);
        let close = if last { "Connection: close\r\n" } else { "" };
        stream.write_all(format!("{before}/{count} HTTP/1.1\r\nHost: {host}\r\n{close}\r\n").as_bytes()).await?;
        let (head, here) = head(&mut stream).await?;
        if !head.contains(" 200 ") {
            return Err(io::Error::other(head));
        }
        Ok((stream, count.saturating_sub(here)))
    }

    /// A whole small answer on a connection of its own.
    async fn small(&self, last: bool) -> io::Result<TcpStream> {
        let (mut stream, mut left) = self.ask(SMALL, last).await?;
        let mut room = [0; 64];
        while left > 0 {
            let got = stream.read(&mut room).await?;
            if got == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            left = left.saturating_sub(u64::try_from(got).unwrap_or(0));
        }
        Ok(stream)
    }
}

async fn obey(to: &Arc<To>, order: &str, held: &mut Vec<TcpStream>) -> io::Result<Value> {
    let mut words = order.split(' ');
    let verb = words.next().unwrap_or_default();
    let mut number =
        || words.next().and_then(|word| word.parse::<f64>().ok()).ok_or_else(|| wrong("an order's number"));
    match verb {
        "stream" => stream(to, number()?, Duration::from_secs_f64(number()?)).await,
        "requests" => requests(to, number()?, number()?, Duration::from_secs_f64(number()?)).await,
        "hold" => hold(to, number()?, held).await,
        _ => Err(wrong("an order")),
    }
}

/// Bits a second over so many connections at once, for so long.
async fn stream(to: &Arc<To>, streams: f64, time: Duration) -> io::Result<Value> {
    let begin = Instant::now();
    let end = begin + time;
    let mut all = JoinSet::new();
    for _ in 0..count(streams) {
        let to = Arc::clone(to);
        all.spawn(async move {
            let Ok((mut stream, left)) = to.ask(ENDLESS, true).await else { return (0, 1) };
            let mut moved = ENDLESS - left;
            let mut room = vec![0; PIECE];
            // An end before its time is an error.
            while let Ok(got) = timeout_at(end, stream.read(&mut room)).await {
                match got {
                    Ok(got) if got > 0 => moved += u64::try_from(got).unwrap_or(0),
                    _ => return (moved, 1),
                }
            }
            (moved, 0)
        });
    }
    let done = all.join_all().await;
    let (moved, errors) = done.iter().fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1));
    let gbps = Duration::from_nanos(moved * 8).as_secs_f64() / begin.elapsed().as_secs_f64();
    Ok(json!({ "gbps": gbps, "errors": errors }))
}

/// Small requests, each on its own connection: how long one takes, and how many there are in a second.
async fn requests(to: &Arc<To>, total: f64, clients: f64, time: Duration) -> io::Result<Value> {
    let begin = Instant::now();
    let mut all = JoinSet::new();
    for _ in 0..count(clients) {
        let to = Arc::clone(to);
        all.spawn(async move {
            let (mut took, mut errors) = (Vec::new(), 0);
            for _ in 0..count(total / clients) {
                let start = Instant::now();
                match timeout_at(begin + time, to.small(true)).await {
                    Ok(Ok(_)) => took.push(start.elapsed()),
                    Ok(Err(_)) => errors += 1,
                    Err(_) => break,
                }
            }
            (took, errors)
        });
    }
    let (mut took, mut errors) = (Vec::new(), 0);
    for (one, wrong) in all.join_all().await {
        took.extend(one);
        errors += wrong;
    }
    let rate =
        Duration::from_secs(u64::try_from(took.len()).unwrap_or(0)).as_secs_f64() / begin.elapsed().as_secs_f64();
    took.sort();
    let at = |percent| took.get(took.len() * percent / 100).map(|one: &Duration| one.as_micros());
    Ok(json!({ "rate": rate, "p50": at(50), "p99": at(99), "done": took.len(), "errors": errors }))
}

/// Connections that stay, silent, until the next order.
async fn hold(to: &To, total: f64, held: &mut Vec<TcpStream>) -> io::Result<Value> {
    for _ in 0..count(total) {
        held.push(to.small(false).await?);
    }
    Ok(json!({ "held": held.len() }))
}

/// A number of an order, which is small.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count")]
fn count(number: f64) -> usize {
    number as usize
}
