//! The name in a TLS client's first bytes (RFC 8446, section 4.1.2; RFC 6066, section 3), read before anything is dialled.
//!
//! Strict on purpose: what two servers could read differently is refused, and so is whatever is not TLS on a port where TLS is expected.

use crate::name::{Name, NameError};

/// What the bytes so far say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hello {
    /// The hello is not complete yet.
    More,
    /// It is complete.
    Done {
        /// The server's name in it.
        name: Name,
        /// It carries an encrypted inner hello (RFC 9849), whose name nobody here can read; or the likeness of one, which browsers send to all.
        encrypted: bool,
    },
}

/// Why the bytes are refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HelloError {
    /// Not a TLS handshake.
    #[error("not TLS")]
    NotTls,
    /// It breaks the rules of its format.
    #[error("a malformed TLS hello")]
    Malformed,
    /// Longer than any hello is.
    #[error("a TLS hello of more than {MAX} bytes")]
    TooLong,
    /// No name in it: connections by address send none.
    #[error("a TLS hello without a server name")]
    NoName,
    /// Two names: which one the server takes is up to the server.
    #[error("a TLS hello with more than one server name")]
    TwoNames,
    /// The name is none.
    #[error("a TLS hello with a bad server name: {0}")]
    Name(#[from] NameError),
}

/// Longest hello in bytes, records included. Hybrid key shares are 1.2 kB, and browsers send several.
pub const MAX: usize = 64 << 10;

/// Longest content of a record (RFC 8446, section 5.1).
const MAX_RECORD: usize = 1 << 14;

const HANDSHAKE: u8 = 22;
const CLIENT_HELLO: u8 = 1;
const SERVER_NAME: u16 = 0;
const HOST_NAME: u8 = 0;
/// RFC 9849.
const ENCRYPTED_CLIENT_HELLO: u16 = 0xfe0d;

/// Looks at the first bytes of a connection.
///
/// # Errors
/// See [`HelloError`]; the connection is to be refused.
pub fn hello(bytes: &[u8]) -> Result<Hello, HelloError> {
    if bytes.len() > MAX {
        return Err(HelloError::TooLong);
    }
    let Some(message) = handshake(bytes)? else { return Ok(Hello::More) };
    let mut body = Cursor(message);
    // Version, random; session id; cipher suites; compression methods.
    body.take(2 + 32)?;
    let session = body.list8()?;
    let suites = body.list16()?;
    let compressions = body.list8()?;
    if session.len() > 32 || suites.is_empty() || suites.len() % 2 != 0 || compressions.is_empty() {
        return Err(HelloError::Malformed);
    }
    if body.0.is_empty() {
        return Err(HelloError::NoName);
    }
    let mut extensions = Cursor(body.list16()?);
    body.end()?;
    let (mut name, mut encrypted) = (None, false);
    while !extensions.0.is_empty() {
        let kind = extensions.u16()?;
        let content = extensions.list16()?;
        match kind {
            SERVER_NAME if name.is_some() => return Err(HelloError::TwoNames),
            SERVER_NAME => name = Some(server_name(content)?),
            ENCRYPTED_CLIENT_HELLO => encrypted = true,
            _ => {}
        }
    }
    name.map(|name| Hello::Done { name, encrypted }).ok_or(HelloError::NoName)
}

/// The content of the first handshake message; `None` while some of it is missing.
///
/// It has to fill exactly one record. The standard lets it be split over several, which real stacks only do above 16 kB; who splits a
/// shorter one wants a middlebox not to see the name.
fn handshake(bytes: &[u8]) -> Result<Option<&[u8]>, HelloError> {
    let [kind, rest @ ..] = bytes else { return Ok(None) };
    if *kind != HANDSHAKE {
        return Err(HelloError::NotTls);
    }
    let [major, rest @ ..] = rest else { return Ok(None) };
    if *major != 3 {
        return Err(HelloError::NotTls);
    }
    let [_minor, high, low, content @ ..] = rest else { return Ok(None) };
    let length = usize::from(u16::from_be_bytes([*high, *low]));
    if !(4..=MAX_RECORD).contains(&length) {
        return Err(HelloError::Malformed);
    }
    let [kind, rest @ ..] = content else { return Ok(None) };
    if *kind != CLIENT_HELLO {
        return Err(HelloError::NotTls);
    }
    let [a, b, c, _message @ ..] = rest else { return Ok(None) };
    let size = usize::try_from(u32::from_be_bytes([0, *a, *b, *c])).map_err(|_| HelloError::Malformed)?;
    if size + 4 != length {
        // Split over records, or with something behind it.
        return Err(HelloError::Malformed);
    }
    Ok(content.get(4..length))
}

/// The one host name of the extension's list.
fn server_name(content: &[u8]) -> Result<Name, HelloError> {
    let mut outer = Cursor(content);
    let mut list = Cursor(outer.list16()?);
    outer.end()?;
    let mut found = None;
    while !list.0.is_empty() {
        let kind = list.take(1)?;
        let text = list.list16()?;
        if kind != [HOST_NAME] {
            return Err(HelloError::Malformed);
        }
        let text = std::str::from_utf8(text).map_err(|_| HelloError::Malformed)?;
        // "Without a trailing dot" (RFC 6066): some servers see another name then.
        if text.ends_with('.') {
            return Err(HelloError::Malformed);
        }
        if found.replace(text.parse::<Name>()?).is_some() {
            return Err(HelloError::TwoNames);
        }
    }
    found.ok_or(HelloError::NoName)
}

/// Bytes that are read from the front; too few of them are an error.
struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], HelloError> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(HelloError::Malformed)?;
        self.0 = rest;
        Ok(taken)
    }

    fn u16(&mut self) -> Result<u16, HelloError> {
        let bytes = self.take(2)?.try_into().map_err(|_| HelloError::Malformed)?;
        Ok(u16::from_be_bytes(bytes))
    }

    fn list8(&mut self) -> Result<&'a [u8], HelloError> {
        let count = self.take(1)?.iter().copied().map(usize::from).sum();
        self.take(count)
    }

    fn list16(&mut self) -> Result<&'a [u8], HelloError> {
        let count = self.u16()?;
        self.take(usize::from(count))
    }

    fn end(&self) -> Result<(), HelloError> {
        if self.0.is_empty() { Ok(()) } else { Err(HelloError::Malformed) }
    }
}

#[cfg(test)]
#[path = "tls_tests.rs"]
mod tests;
