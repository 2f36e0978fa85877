//! Heads: of requests, of answers, and the fields behind the last chunk.
//!
//! httparse 1.10 splits them. It takes more than we do: empty lines in front, line feeds without a carriage return, and any UTF-8 in the
//! target. It does refuse white space before a colon, folded values and control characters; the tests hold it to that.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use httparse::{EMPTY_HEADER, Header, Status};

use super::{Body, Head, Host, HttpError, MAX, MAX_FIELDS};
use crate::name::{Name, NameError};
use crate::policy::path::segments;

/// The fields that say for whom a request is and where it ends.
const HOST: &str = "host";
const LENGTH: &str = "content-length";
const ENCODING: &str = "transfer-encoding";
const CONNECTION: &str = "connection";
const UPGRADE: &str = "upgrade";
const FRAMING: [&str; 5] = [HOST, LENGTH, ENCODING, CONNECTION, UPGRADE];

/// The head of an answer, as much of it as matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// What it says.
    pub kind: Kind,
    /// Its length in bytes, empty line included.
    pub length: usize,
}

/// What an answer says about those to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// 100, 103: the answer proper has its own head, right behind.
    Interim,
    /// 101: the rest of the connection, in both directions, is another protocol's.
    Switches,
    /// The answer proper: the connection stays as it is.
    Stays,
}

/// Reads the head of a request; `None` while some of it is missing.
///
/// # Errors
/// See [`HttpError`]; how much is behind the mistake changes nothing.
pub fn head(bytes: &[u8]) -> Result<Option<Head>, HttpError> {
    if let Some(b'\r' | b'\n') = bytes.first() {
        return Err(HttpError::RequestLine);
    }
    let mut fields = [EMPTY_HEADER; MAX_FIELDS];
    let mut request = httparse::Request::new(&mut fields);
    let Some(length) = whole(bytes, |bytes| request.parse(bytes))? else { return Ok(None) };
    let (Some(method), Some(target), Some(minor)) = (request.method, request.path, request.version) else {
        return Err(HttpError::RequestLine);
    };
    if matches!(method, "CONNECT" | "TRACE") || !method.bytes().all(|b| b.is_ascii_uppercase() || b == b'-') {
        return Err(HttpError::Method);
    }
    let fields = Fields::new(request.headers)?;
    let (host, port) = match fields.all(HOST).collect::<Vec<_>>()[..] {
        [one] => authority(one)?,
        [] => return Err(HttpError::NoHost),
        _ => return Err(HttpError::TwoHosts),
    };
    let path = path(method, target, &host, port)?;
    let body = fields.body(minor)?;
    let upgrade = fields.upgrade()?;
    Ok(Some(Head { method: method.to_owned(), host, port, path: segments(path.as_bytes()), upgrade, body, length }))
}

/// Reads the head of an answer; `None` while some of it is missing. Needed after a request that asks for another protocol, for each answer
/// until one is not [`Kind::Interim`].
///
/// # Errors
/// See [`HttpError`]; the connection is to be closed.
pub fn answer(bytes: &[u8]) -> Result<Option<Answer>, HttpError> {
    if let Some(b'\r' | b'\n') = bytes.first() {
        return Err(HttpError::Answer);
    }
    let mut fields = [EMPTY_HEADER; MAX_FIELDS];
    let mut response = httparse::Response::new(&mut fields);
    let length = whole(bytes, |bytes| response.parse(bytes))?;
    Ok(match (length, response.code) {
        (Some(length), Some(101)) => Some(Answer { kind: Kind::Switches, length }),
        (Some(length), Some(100..200)) => Some(Answer { kind: Kind::Interim, length }),
        (Some(length), Some(200..600)) => Some(Answer { kind: Kind::Stays, length }),
        (Some(_), _) => return Err(HttpError::Answer),
        (None, _) => None,
    })
}

/// The length of the fields behind the last chunk, empty line included; `None` while some of them is missing.
pub(super) fn trailers(bytes: &[u8]) -> Result<Option<u64>, HttpError> {
    let mut fields = [EMPTY_HEADER; MAX_FIELDS];
    let room = &mut fields[..];
    let Some((length, found)) = whole(bytes, move |bytes| httparse::parse_headers(bytes, room))? else {
        return Ok(None);
    };
    let found = Fields::new(found)?;
    if FRAMING.iter().any(|name| found.all(name).next().is_some()) {
        return Err(HttpError::Trailer);
    }
    u64::try_from(length).map(Some).map_err(|_| HttpError::TooLong)
}

/// Parses what ends in an empty line. The parser sees no more than its lines that end as lines have to, so that the first mistake in the
/// bytes is the one that is told, however many of them are there.
fn whole<'b, T>(
    bytes: &'b [u8],
    parse: impl FnOnce(&'b [u8]) -> Result<Status<T>, httparse::Error>,
) -> Result<Option<T>, HttpError> {
    let bytes = bytes.split_at_checked(MAX).map_or(bytes, |(most, _)| most);
    let (good, broken) = lines(bytes);
    let parsed = parse(good).map_err(|error| match error {
        httparse::Error::Token => HttpError::RequestLine,
        httparse::Error::Version => HttpError::Version,
        httparse::Error::NewLine => HttpError::LineEnd,
        httparse::Error::HeaderName | httparse::Error::HeaderValue => HttpError::Field,
        httparse::Error::TooManyHeaders => HttpError::TooMany,
        httparse::Error::Status => HttpError::Answer,
    })?;
    match parsed {
        Status::Complete(found) => Ok(Some(found)),
        Status::Partial if broken => Err(HttpError::LineEnd),
        Status::Partial if bytes.len() == MAX => Err(HttpError::TooLong),
        Status::Partial => Ok(None),
    }
}

/// The bytes up to an empty line, or to the first line end that is not CR LF, and whether there is such a one.
fn lines(bytes: &[u8]) -> (&[u8], bool) {
    let mut start = 0;
    while let Some(at) = bytes[start..].iter().position(|b| matches!(b, b'\r' | b'\n')).map(|at| start + at) {
        match bytes[at..] {
            [b'\r', b'\n', ..] if at == start => return (&bytes[..at + 2], false),
            [b'\r', b'\n', ..] => start = at + 2,
            [b'\r'] => break,
            [b'\r', ..] => return (&bytes[..=at], true),
            _ => return (&bytes[..at], true),
        }
    }
    (bytes, false)
}

/// The path of a target, without the query.
fn path<'t>(method: &str, target: &'t str, host: &Host, port: Option<u16>) -> Result<&'t str, HttpError> {
    // Some servers split the line at white space beyond ASCII.
    if !target.is_ascii() || target.contains('#') {
        return Err(HttpError::Target);
    }
    let path = if target.starts_with('/') || (target == "*" && method == "OPTIONS") {
        target
    } else {
        let (scheme, rest) = target.split_once("://").ok_or(HttpError::Target)?;
        if !scheme.eq_ignore_ascii_case("http") {
            return Err(HttpError::Target);
        }
        let (own, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        let own = authority(own.as_bytes())?;
        // The default port may be written or not.
        if (own.0, own.1.unwrap_or(80)) != (host.clone(), port.unwrap_or(80)) {
            return Err(HttpError::OtherHost);
        }
        path
    };
    let path = path.split_once('?').map_or(path, |(path, _query)| path);
    Ok(if path.is_empty() { "/" } else { path })
}

/// `HOST` or `HOST:PORT` (RFC 9110, section 7.2).
fn authority(bytes: &[u8]) -> Result<(Host, Option<u16>), HttpError> {
    let text = std::str::from_utf8(bytes).map_err(|_| HttpError::HostForm)?;
    let (host, port) = if let Some(rest) = text.strip_prefix('[') {
        let (address, port) = rest.split_once(']').ok_or(HttpError::HostForm)?;
        let address: Ipv6Addr = address.parse().map_err(|_| HttpError::HostForm)?;
        (Host::Address(IpAddr::V6(address)), port)
    } else {
        let (host, port) = text.split_at(text.find(':').unwrap_or(text.len()));
        // Servers disagree whether it is the same name with a dot at the end.
        if host.is_empty() || host.ends_with('.') {
            return Err(HttpError::HostForm);
        }
        let host = match (host.parse::<Name>(), host.parse::<Ipv4Addr>()) {
            (Ok(name), _) => Host::Name(name),
            (Err(NameError::Address), Ok(address)) => Host::Address(IpAddr::V4(address)),
            (Err(error), _) => return Err(error.into()),
        };
        (host, port)
    };
    let port = match port.strip_prefix(':') {
        None if port.is_empty() => None,
        Some(digits) if digits.bytes().all(|b| b.is_ascii_digit()) && !digits.starts_with('0') => {
            Some(digits.parse().map_err(|_| HttpError::HostForm)?)
        }
        _ => return Err(HttpError::HostForm),
    };
    Ok((host, port))
}

/// Fields none of whose names passes for another.
struct Fields<'f>(&'f [Header<'f>]);

impl<'f> Fields<'f> {
    fn new(fields: &'f [Header<'f>]) -> Result<Self, HttpError> {
        let alike = |a: u8, b: u8| a.eq_ignore_ascii_case(&b) || (b == b'-' && !a.is_ascii_alphanumeric());
        for field in fields {
            for name in FRAMING {
                let like =
                    field.name.len() == name.len() && field.name.bytes().zip(name.bytes()).all(|(a, b)| alike(a, b));
                if like && !field.name.eq_ignore_ascii_case(name) {
                    return Err(HttpError::Lookalike(name));
                }
            }
        }
        Ok(Self(fields))
    }

    /// The values of the fields with this name.
    fn all(&self, name: &str) -> impl Iterator<Item = &'f [u8]> {
        self.0.iter().filter(move |field| field.name.eq_ignore_ascii_case(name)).map(|field| field.value)
    }

    /// The elements of the lists in the fields with this name.
    fn list(&self, name: &str) -> impl Iterator<Item = &'f [u8]> {
        self.all(name).flat_map(|value| value.split(|b| *b == b',')).map(<[u8]>::trim_ascii)
    }

    fn body(&self, minor: u8) -> Result<Body, HttpError> {
        let lengths: Vec<_> = self.all(LENGTH).collect();
        let encodings: Vec<_> = self.all(ENCODING).collect();
        match (&lengths[..], &encodings[..]) {
            ([], []) => Ok(Body::None),
            ([], [one]) if minor == 1 && one.eq_ignore_ascii_case(b"chunked") => Ok(Body::Chunked),
            ([], _) => Err(HttpError::Encoding),
            ([one], []) => length(one).map(Body::Length),
            (_, []) => Err(HttpError::Length),
            _ => Err(HttpError::LengthAndEncoding),
        }
    }

    /// Whether another protocol is asked for.
    fn upgrade(&self) -> Result<bool, HttpError> {
        for name in FRAMING {
            // "upgrade" has to be there.
            if name != UPGRADE && self.list(CONNECTION).any(|option| option.eq_ignore_ascii_case(name.as_bytes())) {
                return Err(HttpError::Removes(name));
            }
        }
        let mut asked = false;
        for protocol in self.list(UPGRADE) {
            let name = protocol.split(|b| *b == b'/').next().unwrap_or(protocol);
            if [&b"h2c"[..], b"h2", b"http", b"tls"].iter().any(|refused| name.eq_ignore_ascii_case(refused)) {
                return Err(HttpError::Upgrade);
            }
            asked = true;
        }
        Ok(asked && self.list(CONNECTION).any(|option| option.eq_ignore_ascii_case(UPGRADE.as_bytes())))
    }
}

/// A decimal number in its one form.
fn length(value: &[u8]) -> Result<u64, HttpError> {
    let plain = value.iter().all(u8::is_ascii_digit) && (value.len() == 1 || value.first() != Some(&b'0'));
    let text = std::str::from_utf8(value).ok().filter(|_| plain).ok_or(HttpError::Length)?;
    // Where lengths have a sign, more than that is a negative one.
    text.parse::<i64>().ok().and_then(|length| length.try_into().ok()).ok_or(HttpError::Length)
}

#[cfg(test)]
#[path = "head_tests.rs"]
pub(super) mod tests;
