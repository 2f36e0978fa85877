//! The heads of requests and answers: what is refused, what is not passed on.

use hyper::header::{
    CONNECTION, CONTENT_LENGTH, COOKIE, EXPECT, HOST, HeaderMap, HeaderName, HeaderValue, TE, TRAILER,
    TRANSFER_ENCODING, UPGRADE,
};
use hyper::http::request::Parts;
use hyper::http::uri::{PathAndQuery, Scheme, Uri};
use hyper::{Method, Request, Version};

use super::{Origin, Paths};
use crate::name::Name;
use crate::policy::path::{self, PathError};

/// Why a request is refused. Shown to the cell, so what came from it comes out escaped.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// TRACE would answer with the headers it got, secrets included; CONNECT would be a tunnel.
    #[error("the method {0} is not passed on")]
    Method(Method),
    /// No `Host` or `:authority`, or several.
    #[error("a request has to name one host")]
    NoHost,
    /// It is about another host than the connection ("domain fronting").
    #[error("the request names the host {asked:?}, but the connection is to {name}")]
    OtherHost {
        /// What it named.
        asked: String,
        /// What the connection is about.
        name: Name,
    },
    /// The target is no path, or one that is read in more than one way.
    #[error("{0}")]
    Path(#[from] PathError),
    /// Two statements about where the request ends (RFC 9112, section 6.3).
    #[error("the request says in two ways how long it is")]
    Length,
    /// No rule allows it, in the words of the owner.
    #[error("{0}")]
    Rules(String),
}

/// What was found in a good head.
#[derive(Debug)]
pub(super) struct Head {
    /// Segments of the path, empty if it has no normal form (only with [`Paths::Any`]).
    pub(super) path: Vec<String>,
    /// `Host` as it is passed on: the name as we know it, with the port if the client wrote one.
    pub(super) host: HeaderValue,
    /// The client wants to go on with the WebSocket protocol.
    pub(super) websocket: bool,
}

/// Looks at the head of a request.
pub(super) fn check(request: &Parts, origin: &Origin) -> Result<Head, Refusal> {
    if matches!(request.method, Method::TRACE | Method::CONNECT) {
        return Err(Refusal::Method(request.method.clone()));
    }
    let with_port = check_host(request, origin)?;
    let lengths = request.headers.get_all(CONTENT_LENGTH).iter().count();
    if lengths > 1 || (lengths == 1 && request.headers.contains_key(TRANSFER_ENCODING)) {
        return Err(Refusal::Length);
    }
    let path = match path::segments(request.uri.path().as_bytes()) {
        Ok(path) => path,
        Err(_) if origin.paths == Paths::Any && request.uri.path().starts_with('/') => Vec::new(),
        Err(error) => return Err(error.into()),
    };
    let text = if with_port { format!("{}:{}", origin.name, origin.port) } else { origin.name.to_string() };
    // Names are ASCII.
    let host = HeaderValue::try_from(text).map_err(|_| Refusal::NoHost)?;
    Ok(Head { path, host, websocket: is_websocket(request) })
}

/// Every place where a request can name a host has to name ours; whether the port stands there.
fn check_host(request: &Parts, origin: &Origin) -> Result<bool, Refusal> {
    let hosts = request.headers.get_all(HOST);
    let (count, authority) = (hosts.iter().count(), request.uri.authority());
    // RFC 9112, section 3.2: exactly one. RFC 9113, section 8.3.1: `:authority` stands for it.
    let fine = if request.version == Version::HTTP_2 { count <= 1 } else { count == 1 };
    if !fine || (count == 0 && authority.is_none()) {
        return Err(Refusal::NoHost);
    }
    let places = hosts.iter().map(HeaderValue::as_bytes).chain(authority.map(|a| a.as_str().as_bytes()));
    let mut with_port = false;
    for place in places {
        let other =
            || Refusal::OtherHost { asked: String::from_utf8_lossy(place).into_owned(), name: origin.name.clone() };
        with_port |= names(place, origin).ok_or_else(other)?;
    }
    if request.uri.scheme().is_some_and(|scheme| *scheme != Scheme::HTTPS) {
        let asked = request.uri.to_string();
        return Err(Refusal::OtherHost { asked, name: origin.name.clone() });
    }
    Ok(with_port)
}

/// Whether `NAME` or `NAME:PORT` is about `origin`; if so, whether the port was there.
fn names(place: &[u8], origin: &Origin) -> Option<bool> {
    let text = str::from_utf8(place).ok()?;
    let (name, port) = text.split_once(':').map_or((text, None), |(name, port)| (name, Some(port)));
    if name.parse::<Name>().ok()? != origin.name {
        return None;
    }
    match port {
        None => Some(false),
        Some(port) => (port == origin.port.to_string()).then_some(true),
    }
}

fn is_websocket(request: &Parts) -> bool {
    request.version == Version::HTTP_11
        && request.method == Method::GET
        && has_word(&request.headers, &CONNECTION, "upgrade")
        && says_websocket(&request.headers)
        && !request.headers.contains_key(CONTENT_LENGTH)
        && !request.headers.contains_key(TRANSFER_ENCODING)
}

/// Whether `Upgrade` has that value and no other: after any other protocol we could not read on.
pub(super) fn says_websocket(headers: &HeaderMap) -> bool {
    let mut all = headers.get_all(UPGRADE).iter();
    all.next().is_some_and(|v| v.as_bytes().eq_ignore_ascii_case(b"websocket")) && all.next().is_none()
}

fn has_word(headers: &HeaderMap, name: &HeaderName, word: &str) -> bool {
    words(headers, name).any(|found| found.eq_ignore_ascii_case(word))
}

fn words<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    let all = headers.get_all(name).into_iter();
    all.filter_map(|v| v.to_str().ok()).flat_map(|v| v.split(',')).map(str::trim).filter(|word| !word.is_empty())
}

/// Headers that say where a message goes or ends.
pub(super) fn is_framing(name: &HeaderName) -> bool {
    let known = [HOST, CONTENT_LENGTH, TRANSFER_ENCODING, CONNECTION, UPGRADE, TE, TRAILER, EXPECT];
    known.contains(name) || matches!(name.as_str(), "keep-alive" | "proxy-connection")
}

/// Removes what is meant for this connection only (RFC 9110, section 7.6.1), `te: trailers` excepted: gRPC servers ask for it. `Trailer` stays, it
/// belongs to the message.
fn strip(headers: &mut HeaderMap) {
    let trailers = has_word(headers, &TE, "trailers");
    let listed: Vec<HeaderName> = words(headers, &CONNECTION).filter_map(|word| word.parse().ok()).collect();
    for name in listed.iter().filter(|name| !is_framing(name)) {
        headers.remove(name);
    }
    for name in [CONNECTION, TRANSFER_ENCODING, UPGRADE, TE] {
        headers.remove(name);
    }
    headers.remove("keep-alive");
    headers.remove("proxy-connection");
    if trailers {
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
}

/// Makes the head of a request ready to be passed on, but for what [`address`] does.
pub(super) fn outgoing(headers: &mut HeaderMap) {
    strip(headers);
    // The body is asked of the client when upstream takes it, which is what sends the 100 to it; upstream is not asked.
    headers.remove(EXPECT);
    headers.remove("proxy-authorization");
    // RFC 9113, section 8.2.3: HTTP/2 may cut this header into pieces that others take for several.
    if headers.get_all(COOKIE).iter().count() > 1 {
        let pieces: Vec<&[u8]> = headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes).collect();
        if let Ok(whole) = HeaderValue::from_bytes(&pieces.join(&b"; "[..])) {
            headers.insert(COOKIE, whole);
        }
    }
}

/// Makes the head of an answer ready to be passed on.
pub(super) fn incoming(headers: &mut HeaderMap) {
    strip(headers);
    headers.remove(TE);
    // Offers of other ways to the host: HTTP/3, other ports. The cell has none of them.
    headers.remove("alt-svc");
    // Says that an answer is ours.
    headers.remove("x-cellblock");
}

/// Puts the target where the version of the protocol has it.
pub(super) fn address<B>(request: &mut Request<B>, host: &HeaderValue, h2: bool) {
    let path = request.uri().path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
    let headers = request.headers_mut();
    headers.remove(HOST);
    if h2 {
        headers.remove(CONNECTION);
        let whole = Uri::builder().scheme(Scheme::HTTPS).authority(host.as_bytes()).path_and_query(path);
        // A name, a port and a path that were parsed before: this does not fail.
        *request.uri_mut() = whole.build().unwrap_or_default();
        *request.version_mut() = Version::HTTP_2;
        return;
    }
    headers.insert(HOST, host.clone());
    if headers.contains_key(TE) {
        headers.insert(CONNECTION, HeaderValue::from_static("te"));
    }
    *request.uri_mut() = Uri::from(path);
    *request.version_mut() = Version::HTTP_11;
}

/// What asks for a WebSocket, or grants one; both ends would miss it after [`outgoing`] or [`incoming`].
pub(super) fn say_websocket(headers: &mut HeaderMap) {
    headers.remove(TE);
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
}

#[cfg(test)]
#[path = "head_tests.rs"]
mod tests;
