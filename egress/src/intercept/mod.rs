//! Looking into TLS, for hosts whose rules are about single requests or that get a secret, and for no others.
//!
//! ```text
//! client in the cell ──TLS, our leaf──▶ serve ──each request──▶ Owner::decide ──▶ secrets ──TLS, verified──▶ the host
//! ```
//!
//! Whoever accepted the connection calls [`Interceptor::serve`] with what it knows: the name (from the made-up address and the SNI check), the port, and
//! the bytes it has read. What has to be done outside, dialling and deciding, it does itself as an [`Owner`]. Nothing here knows cells, files or settings.
//!
//! - Each request is checked by itself: its host is the connection's (R18), its path has one reading (R19), the owner lets it pass.
//! - Nothing falls through: where anything fails, the client gets a 403 or 502 that says why, or no connection.
//! - Bodies are passed on as they come, in both directions, and are never held.
//! - Secrets go out only where the cell wrote their placeholder, and only over TLS that was verified for their host (R20).
//!
//! HTTP/1.1 and HTTP/2 are spoken on either side, each as ALPN finds. A request with `Expect: 100-continue` gets the 100 from us, after it was let pass.
//! WebSockets work over HTTP/1.1; over HTTP/2 (RFC 8441) they are not offered, and clients then use the former.

mod authority;
mod exchange;
mod head;
mod roots;
mod secret;
mod stall;
mod tasks;
mod upstream;

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use hyper::Method;
use hyper::body::Bytes;
use hyper::header::{HeaderMap, HeaderName};
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::{CryptoProvider, ring};
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{self, AlertDescription, ClientConfig};
use tokio_rustls::server::TlsStream;

pub use authority::{Authority, AuthorityError};
pub use head::Refusal;
pub use roots::{NoRoots, Roots, VARIABLES};
pub use secret::{Basic, Secret, SecretError};
pub use upstream::UpstreamError;

use crate::name::Name;
use exchange::Session;
use stall::Pulse;
use tasks::{Replay, Tasks};
use upstream::{Pool, State};

/// What one connection may take. Servers refuse heads of 8 to 64 KiB, so nothing real needs more.
mod limits {
    use std::time::Duration;

    /// For the client's handshake.
    pub(super) const HANDSHAKE: Duration = Duration::from_secs(15);
    /// For the head of a request; hyper also ends connections that were idle for so long.
    pub(super) const HEAD_TIME: Duration = Duration::from_secs(15);
    /// For dialling upstream and its handshake.
    pub(super) const CONNECT: Duration = Duration::from_secs(30);
    /// Without a byte either way while a request is not complete. Then only the client can go on, or an upstream that does not read.
    pub(super) const UPLOAD: Duration = Duration::from_secs(5 * 60);
    /// Without a byte either way otherwise. Answers may be long in coming, and their events far apart.
    pub(super) const SILENCE: Duration = Duration::from_secs(60 * 60);
    /// How often that is looked at.
    pub(super) const LOOK: Duration = Duration::from_secs(15);
    /// For closing the connections to upstream, when the client has gone.
    pub(super) const GOODBYE: Duration = Duration::from_secs(2);
    /// Between signs of life of an HTTP/2 upstream that owes an answer.
    pub(super) const PING: Duration = Duration::from_secs(30);
    /// Bytes of a head.
    pub(super) const HEAD: usize = 64 << 10;
    /// Headers of a head.
    pub(super) const HEADERS: usize = 128;
    /// Buffer of an HTTP/1.1 connection: room for a head and for some TLS records of a body.
    pub(super) const BUFFER: usize = 128 << 10;
    /// Requests at once over one HTTP/2 connection (RFC 9113, section 6.5.2, asks for 100 at least).
    pub(super) const STREAMS: u32 = 100;
    /// What one stream may send before it is passed on.
    pub(super) const STREAM_WINDOW: u32 = 1 << 20;
    /// What all streams of a connection may.
    pub(super) const CONNECTION_WINDOW: u32 = 2 << 20;
}

/// Protocols in the order in which we like them.
const ALPN: [&[u8]; 2] = [b"h2", b"http/1.1"];

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

/// What a connection is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The name.
    pub name: Name,
    /// The port.
    pub port: u16,
    /// What to do with paths.
    pub paths: Paths,
}

/// Which paths may pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Paths {
    /// Those of which there is one reading ([`crate::policy::path::segments`]): wherever rules are about paths.
    Normal,
    /// All; without a normal form the owner gets no segments, which no pattern matches. For hosts of which every request may pass, and that are looked
    /// into only for a secret.
    Any,
}

/// A request, as far as it is decided about.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// What the connection is about, and with it the request.
    pub origin: &'a Origin,
    /// The method, as the client wrote it.
    pub method: &'a str,
    /// [`crate::policy::path::segments`] of the path.
    pub path: &'a [String],
    /// It asks for a WebSocket: what is said afterwards is not looked at.
    pub websocket: bool,
}

/// Whether a request may pass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// It may.
    Pass,
    /// It may not, for this reason, which the cell gets to read.
    Deny(String),
}

/// What an owner may want to write down.
#[derive(Debug)]
pub enum Event<'a> {
    /// A request was refused before the owner was asked. Method and path are the cell's words: escape them.
    Refused {
        /// The method.
        method: &'a Method,
        /// The path.
        path: &'a str,
        /// Why.
        why: &'a Refusal,
    },
    /// A secret is about to go to the host in this header.
    SecretUsed {
        /// The header.
        header: &'a HeaderName,
    },
    /// A request that was let pass got no answer.
    Unanswered {
        /// Why.
        why: &'a UpstreamError,
    },
}

/// Who accepted the connection, and answers for it.
pub trait Owner: Send + Sync + 'static {
    /// A connection to the host.
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static;

    /// A new connection to the host, at an address that policy lets be dialled. Called when a request needs one, several times for some clients.
    fn dial(&self) -> impl Future<Output = io::Result<Self::Stream>> + Send;

    /// Whether a request may pass. Called for each, before anything of it leaves.
    fn decide(&self, asked: &Asked<'_>) -> Decision;

    /// Puts credentials into a request that may pass, where it holds a placeholder for them. `Err` is why there are none: the cell gets to read it.
    fn authorize(&self, asked: &Asked<'_>, headers: &mut HeaderMap) -> impl Future<Output = Result<(), String>> + Send {
        let _ = (asked, headers);
        async { Ok(()) }
    }

    /// Hears of what happened.
    fn note(&self, event: Event<'_>) {
        let _ = event;
    }
}

/// Why the connection of a client came to nothing, or ended.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// There is no certificate for the name.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    /// No handshake in time.
    #[error("the client did not finish its TLS handshake within {} seconds", limits::HANDSHAKE.as_secs())]
    Timeout,
    /// The client pins certificates, or has not been told of the bundle.
    #[error("the client does not trust the cell's authority ({0:?})")]
    NotTrusted(AlertDescription),
    /// The handshake failed otherwise.
    #[error("the TLS handshake with the client failed: {0}")]
    Tls(io::Error),
    /// The client's SNI is not the name of the connection.
    #[error("the client's TLS is for another name than {0}")]
    OtherName(Name),
    /// Nothing has moved for too long.
    #[error("nothing was sent for {} minutes", .0.as_secs() / 60)]
    Stalled(Duration),
    /// The client broke off or speaks no HTTP.
    #[error("the client's HTTP failed: {0}")]
    Http(hyper::Error),
}

/// Looks into the connections of one cell.
pub struct Interceptor {
    authority: Arc<Authority>,
    both: Arc<ClientConfig>,
    first: Arc<ClientConfig>,
    secrets: Vec<Arc<Secret>>,
}

impl Interceptor {
    /// One that shows certificates of `authority` to the cell and trusts `roots` outside.
    ///
    /// # Errors
    /// From TLS, if the provider of its ciphers is not complete.
    pub fn new(authority: Arc<Authority>, roots: &Roots, secrets: Vec<Secret>) -> Result<Self, rustls::Error> {
        let [h2, http1] = ALPN;
        Ok(Self {
            authority,
            both: roots.client(&[h2, http1])?,
            first: roots.client(&[http1])?,
            secrets: secrets.into_iter().map(Arc::new).collect(),
        })
    }

    /// Whether there is a secret for `name`, so that its connections have to be looked into.
    #[must_use]
    pub fn has_secret_for(&self, name: &Name) -> bool {
        self.secrets.iter().any(|secret| secret.is_for(name))
    }

    /// Serves a client that begins TLS; `first` is what was read of it. Returns when the connection is over. Dropping the future ends it, and its
    /// WebSockets, at once.
    ///
    /// A connection on which nothing moves ends after a time (`limits::UPLOAD`, `limits::SILENCE`), but for WebSockets, which are the caller's to limit.
    ///
    /// # Errors
    /// Why it came to nothing; a client that just goes away may be an error or none.
    pub async fn serve<C, O>(&self, client: C, first: Bytes, origin: Origin, owner: Arc<O>) -> Result<(), ServeError>
    where
        C: AsyncRead + AsyncWrite + Unpin + Send + 'static,
        O: Owner,
    {
        let name = ServerName::try_from(origin.name.to_string())
            .map_err(|_| AuthorityError::NotCovered(origin.name.clone()))?;
        let pulse = Pulse::default();
        let tls = self.handshake(Replay::new(first, client, pulse.clone()), &origin).await?;
        let h2 = tls.get_ref().1.alpn_protocol() == Some(b"h2");
        let (tasks, relays) = (Tasks::default(), Tasks::default());
        let _ending = (tasks.ending(), relays.ending());
        let pool = Pool {
            owner: Arc::clone(&owner),
            name,
            both: Arc::clone(&self.both),
            first: Arc::clone(&self.first),
            secrets: self.secrets.iter().filter(|secret| secret.is_for(&origin.name)).cloned().collect(),
            tasks: tasks.clone(),
            one_by_one: !h2,
            state: State::default().into(),
        };
        let session = Arc::new(Session { origin, owner, pool, relays: relays.clone(), pulse: pulse.clone() });
        let service = service_fn(move |request| exchange::exchange(Arc::clone(&session), request));
        let io = TokioIo::new(tls);
        let serving = async {
            if h2 {
                second(&tasks).serve_connection(io, service).await
            } else {
                first_version().serve_connection(io, service).with_upgrades().await
            }
        };
        let served = tokio::select! {
            served = serving => served,
            after = pulse.stopped() => return Err(ServeError::Stalled(after)),
        };
        relays.finished().await;
        // Time for a proper goodbye; an upstream that does not read would keep it for ever.
        let _ = timeout(limits::GOODBYE, tasks.finished()).await;
        served.map_err(ServeError::Http)
    }

    async fn handshake<C>(&self, client: Replay<C>, origin: &Origin) -> Result<TlsStream<Replay<C>>, ServeError>
    where
        C: AsyncRead + AsyncWrite + Unpin,
    {
        let config = self.authority.leaf(&origin.name)?;
        let done = timeout(limits::HANDSHAKE, TlsAcceptor::from(config).accept(client)).await;
        let tls = done.map_err(|_| ServeError::Timeout)?.map_err(handshake_error)?;
        // Checked before, by whoever called: but what this connection is about must not hang on one check.
        let said = tls.get_ref().1.server_name();
        if said.is_some_and(|said| said.eq_ignore_ascii_case(origin.name.as_str())) {
            return Ok(tls);
        }
        Err(ServeError::OtherName(origin.name.clone()))
    }
}

impl fmt::Debug for Interceptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Interceptor")
            .field("authority", &self.authority)
            .field("secrets", &self.secrets)
            .finish_non_exhaustive()
    }
}

fn first_version() -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(limits::HEAD_TIME)
        .max_headers(limits::HEADERS)
        .max_header_size(limits::HEAD)
        .max_buf_size(limits::BUFFER);
    builder
}

fn second(tasks: &Tasks) -> http2::Builder<Tasks> {
    let mut builder = http2::Builder::new(tasks.clone());
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits::STREAMS)
        .max_header_list_size(limits::HEAD as u32)
        .initial_stream_window_size(limits::STREAM_WINDOW)
        .initial_connection_window_size(limits::CONNECTION_WINDOW);
    builder
}

fn handshake_error(error: io::Error) -> ServeError {
    use AlertDescription::{BadCertificate, CertificateUnknown, UnknownCA};
    match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        Some(rustls::Error::AlertReceived(alert @ (BadCertificate | CertificateUnknown | UnknownCA))) => {
            ServeError::NotTrusted(*alert)
        }
        _ => ServeError::Tls(error),
    }
}

#[cfg(test)]
mod tests;
