//! Plain HTTP/1.1 (RFC 9112) as a client sends it: where each request begins and ends, and for whom it is.
//!
//! For a filter that knows by name which server it has dialled. **Every** request of a connection is looked at, or the second one could be
//! for another host of the same server. Strict on purpose: what two servers could read differently is refused, for a client that frames
//! its requests ambiguously smuggles one past us. Answers are not looked at, but for [`answer`].
//!
//! What stays open by nature: a server that does not read the body of a request although it has one takes it for the next request.

use std::net::IpAddr;

use crate::name::{Name, NameError};
use crate::policy::path::PathError;

mod chunk;
mod head;

pub use head::{Answer, Kind, answer, head};

/// Longest head of a request or answer, and longest trailer section, in bytes. A caller's buffer has to hold as much.
pub const MAX: usize = 64 << 10;

/// Most fields of a head.
pub const MAX_FIELDS: usize = 128;

/// Why bytes are refused; the connection is to be closed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HttpError {
    /// No method, target and version in a line, with one space between each.
    #[error("not a request of HTTP/1.1")]
    RequestLine,
    /// HTTP/2 without TLS (RFC 9113, section 3.3), or another version.
    #[error("a version of HTTP other than 1.0 and 1.1")]
    Version,
    /// A carriage return or line feed alone, or something else where a line has to end.
    #[error("a line that does not end in CR LF")]
    LineEnd,
    /// A name or value with characters that have no place in it, white space before the colon, or a value over several lines.
    #[error("a malformed header field")]
    Field,
    /// Longer than any head is.
    #[error("a head of more than {MAX} bytes")]
    TooLong,
    /// More fields than any head has.
    #[error("more than {MAX_FIELDS} header fields")]
    TooMany,
    /// CONNECT and TRACE, and what is no method in capitals.
    #[error("a method that is not let through")]
    Method,
    /// Neither a path, nor an `http:` URL, nor `*` with OPTIONS.
    #[error("a malformed request target")]
    Target,
    /// Nobody could say for whom the request is.
    #[error("a request without a Host field")]
    NoHost,
    /// Which one the server takes is up to the server.
    #[error("a request with more than one Host field")]
    TwoHosts,
    /// Not `NAME`, `ADDRESS` or one of them with `:PORT`.
    #[error("a malformed host")]
    HostForm,
    /// The name in it is none.
    #[error("a bad host name: {0}")]
    HostName(#[from] NameError),
    /// A URL as target, of another host than the Host field's.
    #[error("a request target that is not of the host in the Host field")]
    OtherHost,
    /// More than one length, or one that is not plainly a number.
    #[error("a malformed Content-Length")]
    Length,
    /// Anything but one `chunked`, or in HTTP/1.0, which does not know it.
    #[error("a Transfer-Encoding other than chunked")]
    Encoding,
    /// RFC 9112, section 6.1: "ought to be handled as an error".
    #[error("a request with both Content-Length and Transfer-Encoding")]
    LengthAndEncoding,
    /// `Content_Length`: a server that hands fields on as variables (RFC 3875, section 4.1.18) takes it for `Content-Length`.
    #[error("a field whose name some servers take for {0}")]
    Lookalike(&'static str),
    /// `Connection: host`: a server in front of another takes the field out (RFC 9110, section 7.6.1).
    #[error("a Connection field that removes {0}")]
    Removes(&'static str),
    /// An upgrade to HTTP/2 or TLS: more requests would follow, and nobody could look at them.
    #[error("an upgrade to a protocol of requests nobody could check")]
    Upgrade,
    /// An upgrade after other requests: their answers come first, and a body in them could look like the answer that switches.
    #[error("an upgrade that is not the first request of its connection")]
    LateUpgrade,
    /// A chunk's first line, or what is behind the chunk.
    #[error("a malformed chunk")]
    Chunk,
    /// A field behind the last chunk that belongs into a head (RFC 9110, section 6.5.1).
    #[error("a trailer field that belongs into the head")]
    Trailer,
    /// The server's answer does not begin like one.
    #[error("not an answer of HTTP/1.1")]
    Answer,
}

/// For whom a request is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Host {
    /// A name.
    Name(Name),
    /// An address as such.
    Address(IpAddr),
}

/// What follows a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body {
    /// Nothing.
    None,
    /// So many bytes.
    Length(u64),
    /// Chunks.
    Chunked,
}

/// The head of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// The method, of `A-Z` and `-`.
    pub method: String,
    /// The host of the Host field, with which a URL as target agrees.
    pub host: Host,
    /// The port behind it.
    pub port: Option<u16>,
    /// The path in normal form, without the query. An error is no harm where all paths of the host are allowed (a double slash
    /// in a careless script's), and **must be a denial where a rule is about the path**. `*` of OPTIONS is an error as well.
    pub path: Result<Vec<String>, PathError>,
    /// It asks to go on in another protocol; see [`Next::Upgrade`].
    pub upgrade: bool,
    /// What follows it.
    pub body: Body,
    /// Its length in bytes, empty line included.
    pub length: usize,
}

/// What is next in the stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// More bytes are needed to say; those that are there must be kept.
    More,
    /// A request. Once the caller has allowed it, [`Head::length`] bytes go on.
    Head(Head),
    /// So many bytes go on unread: those at hand, and the rest as it comes.
    Body(u64),
    /// A request that asks for another protocol is over; what the client sends next waits for the server's answer. If that [`Kind::Switches`], the
    /// rest is not HTTP and goes on unread; otherwise see [`Requests::stays`]. Comes again until then.
    Upgrade,
}

/// Where in its requests a client's stream is.
///
/// The bytes of a [`Next::Head`] or [`Next::Body`] count as gone: the following call begins with the byte behind them.
#[derive(Debug, Default)]
pub struct Requests {
    state: State,
    /// There was a request before.
    asked: bool,
    /// The request that is under way asks for another protocol.
    upgrade: bool,
    /// How many of the bytes that wait were there at the last call, and when they were last parsed.
    seen: usize,
    parsed: usize,
    failed: Option<HttpError>,
}

#[derive(Clone, Copy, Debug, Default)]
enum State {
    #[default]
    Head,
    Length(u64),
    /// At a chunk, or at the line end behind one.
    Chunk {
        first: bool,
    },
    Trailers,
    Upgrade,
}

impl Requests {
    /// Says what is next. `bytes` are those that wait, from the first on. In which pieces they come changes nothing, except that a mistake may
    /// be told only when its line ends.
    ///
    /// # Errors
    /// See [`HttpError`]. There is no way on after one: it comes again at each call.
    pub fn next(&mut self, bytes: &[u8]) -> Result<Next, HttpError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        let next = self.step(bytes);
        match &next {
            Ok(Next::More) => {}
            Ok(_) => (self.seen, self.parsed) = (0, 0),
            Err(error) => self.failed = Some(error.clone()),
        }
        next
    }

    /// The server has answered a [`Next::Upgrade`] in HTTP: requests go on. Says nothing before that step: the body of the request may be under way.
    pub fn stays(&mut self) {
        if matches!(self.state, State::Upgrade) {
            self.upgrade = false;
            self.state = State::Head;
        }
    }

    fn step(&mut self, bytes: &[u8]) -> Result<Next, HttpError> {
        match self.state {
            State::Head => {
                let head = if self.due(bytes) { head(bytes)? } else { None };
                let Some(head) = head else { return Ok(Next::More) };
                if head.upgrade && self.asked {
                    return Err(HttpError::LateUpgrade);
                }
                (self.asked, self.upgrade) = (true, head.upgrade);
                self.state = match head.body {
                    Body::None | Body::Length(0) => self.behind(),
                    Body::Length(length) => State::Length(length),
                    Body::Chunked => State::Chunk { first: true },
                };
                Ok(Next::Head(head))
            }
            State::Length(length) => {
                self.state = self.behind();
                Ok(Next::Body(length))
            }
            State::Chunk { first } => {
                let Some((line, size)) = chunk::line(bytes, first)? else { return Ok(Next::More) };
                self.state = if size == 0 { State::Trailers } else { State::Chunk { first: false } };
                Ok(Next::Body(line + size))
            }
            State::Trailers => {
                let length = if self.due(bytes) { head::trailers(bytes)? } else { None };
                let Some(length) = length else { return Ok(Next::More) };
                self.state = self.behind();
                Ok(Next::Body(length))
            }
            State::Upgrade => Ok(Next::Upgrade),
        }
    }

    /// Whether to parse fields once more: a line has ended, or there is twice as much as the last time. A client that sends single bytes would
    /// otherwise have all of them parsed at each: two thousand million for one head.
    fn due(&mut self, bytes: &[u8]) -> bool {
        let line = bytes.get(self.seen..).is_none_or(|new| new.contains(&b'\n'));
        self.seen = bytes.len();
        let due = line || bytes.len() >= MAX || bytes.len() >= 2 * self.parsed;
        if due {
            self.parsed = bytes.len();
        }
        due
    }

    /// The state behind a request.
    fn behind(&self) -> State {
        if self.upgrade { State::Upgrade } else { State::Head }
    }
}

/// A complete answer that says why a request is not let through and what a person can do, and that the connection ends here. May be sent
/// where an answer is due: after all answers to earlier requests.
#[must_use]
pub fn denial(reason: &str, hint: &str) -> Vec<u8> {
    // A client shows it to a person: what came from the client must not command a terminal.
    let plain = |text: &str| {
        text.chars().flat_map(|c| if c.is_control() { c.escape_debug().collect() } else { vec![c] }).collect::<String>()
    };
    let body = format!("{}\n{}\n", plain(reason), plain(hint));
    format!(
        "HTTP/1.1 403 Forbidden\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {}\r\nCache-Control: no-store\r\n\
         Connection: close\r\nX-Cellblock: denied\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

#[cfg(test)]
#[path = "http_tests.rs"]
mod tests;
