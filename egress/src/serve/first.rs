//! The first bytes of a client: collected until they say what it speaks.

use std::io;
use std::time::Duration;

use tokio::net::TcpStream;

use crate::name::Name;
use crate::tls::{self, Hello, HelloError};

/// How long a client may take to say what it speaks (half-open connections are cheap to make).
pub(super) const PATIENCE: Duration = Duration::from_secs(15);

/// Bytes read at a time.
const PIECE: usize = 16 << 10;

/// Bytes that have arrived and not gone on.
#[derive(Debug, Default)]
pub(super) struct Buffer(pub(super) Vec<u8>);

impl Buffer {
    /// Waits for more; false at the end of the stream.
    pub(super) async fn more(&mut self, client: &TcpStream) -> io::Result<bool> {
        loop {
            client.readable().await?;
            // Reserved only now: a silent connection costs no memory.
            self.0.reserve(PIECE);
            match client.try_read_buf(&mut self.0) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                got => return Ok(got? > 0),
            }
        }
    }

    /// As [`Buffer::more`], for those who have something to say now.
    pub(super) async fn more_soon(&mut self, client: &TcpStream) -> io::Result<bool> {
        tokio::time::timeout(PATIENCE, self.more(client)).await?
    }
}

/// What a client on a port of no particular protocol seems to speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Speech {
    /// Not enough bytes to say.
    More,
    /// TLS.
    Tls,
    /// HTTP/1.
    Http,
    /// Something else.
    Other,
}

/// Methods that a request of HTTP/1 begins with.
const METHODS: &[&[u8]] = &[
    b"GET ",
    b"POST ",
    b"PUT ",
    b"HEAD ",
    b"DELETE ",
    b"OPTIONS ",
    b"PATCH ",
    b"CONNECT ",
    b"TRACE ",
    // WebDAV and its relatives (RFC 4918, RFC 3253, RFC 5323, RFC 4791).
    b"PROPFIND ",
    b"PROPPATCH ",
    b"MKCOL ",
    b"COPY ",
    b"MOVE ",
    b"LOCK ",
    b"UNLOCK ",
    b"REPORT ",
    b"SEARCH ",
    b"MKCALENDAR ",
    b"VERSION-CONTROL ",
    b"CHECKOUT ",
    b"CHECKIN ",
    b"MERGE ",
    b"BIND ",
    b"PURGE ",
];

/// Looks at the first bytes.
pub(super) fn speech(bytes: &[u8]) -> Speech {
    match bytes {
        [] | [22] => Speech::More,
        [22, 3, ..] => Speech::Tls,
        _ if METHODS.iter().any(|method| bytes.starts_with(method)) => Speech::Http,
        _ if METHODS.iter().any(|method| method.starts_with(bytes)) => Speech::More,
        _ => Speech::Other,
    }
}

/// The server's name in a TLS client's hello, which is left in the buffer.
pub(super) async fn server_name(client: &TcpStream, buffer: &mut Buffer) -> Result<Name, String> {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        match tls::hello(&buffer.0) {
            Ok(Hello::Done { name, .. }) => return Ok(name),
            Ok(Hello::More) => {}
            Err(error) => return Err(said(&error)),
        }
        match tokio::time::timeout_at(deadline, buffer.more(client)).await {
            Ok(Ok(true)) => {}
            Ok(_) => return Err("the client ended before its TLS hello was complete".to_owned()),
            Err(_) => return Err("no TLS hello in time".to_owned()),
        }
    }
}

fn said(error: &HelloError) -> String {
    match error {
        HelloError::NotTls => "not TLS, on a port for TLS".to_owned(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn speech_is_told_by_the_first_bytes_and_never_guessed() {
        for (bytes, speech_of) in [
            (&b""[..], Speech::More),
            (b"G", Speech::More),
            (b"GET", Speech::More),
            (b"GET ", Speech::Http),
            (b"GETX", Speech::Other),
            (b"OPTIONS * HTTP/1.1", Speech::Http),
            (b"\x16", Speech::More),
            (b"\x16\x03", Speech::Tls),
            (b"\x16\x04", Speech::Other),
            (b"SSH-2.0-", Speech::Other),
            (b"PRI * HTTP/2.0\r\n", Speech::Other),
            (b"\0\0\0\x08\x04\xd2\x16\x2f", Speech::Other),
        ] {
            assert_eq!(speech(bytes), speech_of, "{bytes:?}");
        }
    }
}
