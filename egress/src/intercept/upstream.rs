//! The other side: verified connections to the one host, made when they are needed.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper::header::HeaderValue;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::sync::Mutex;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{self, ClientConfig};

use super::stall::Upload;
use super::tasks::Tasks;
use super::{Event, Owner, Secret, head, limits};

/// Why upstream gave no answer. Shown to the cell: nothing of the request is in it.
#[derive(Debug, thiserror::Error)]
pub enum UpstreamError {
    /// No connection.
    #[error("cannot be reached: {0}")]
    Dial(io::Error),
    /// No connection in time.
    #[error("did not take the connection within {} seconds", limits::CONNECT.as_secs())]
    Timeout,
    /// It could not prove who it is.
    #[error("has no certificate for this name that this machine trusts: {0}")]
    Certificate(rustls::Error),
    /// It does not speak TLS as we do.
    #[error("failed the TLS handshake: {0}")]
    Tls(io::Error),
    /// It broke off, or speaks no HTTP that we know.
    #[error("gave no proper answer: {0}")]
    Http(hyper::Error),
    /// It changes to a protocol nobody asked for.
    #[error("changed to another protocol than the one asked for")]
    Protocol,
}

/// How long a connection that has just answered may take to be ready for the next request, before another one is made.
const SETTLE: Duration = Duration::from_millis(50);

/// Connections to upstream on behalf of one client connection. Never shared between two: what was said on one tells nothing about another.
pub(super) struct Pool<O> {
    pub(super) owner: Arc<O>,
    pub(super) name: ServerName<'static>,
    /// Offers HTTP/2 and HTTP/1.1.
    pub(super) both: Arc<ClientConfig>,
    /// Offers HTTP/1.1 alone, for WebSockets.
    pub(super) first: Arc<ClientConfig>,
    /// The secrets for this name.
    pub(super) secrets: Vec<Arc<Secret>>,
    pub(super) tasks: Tasks,
    /// The client asks one thing after the other.
    pub(super) one_by_one: bool,
    pub(super) state: Mutex<State>,
}

#[derive(Default)]
pub(super) struct State {
    many: Option<http2::SendRequest<Upload>>,
    idle: Vec<http1::SendRequest<Upload>>,
    /// Upstream has chosen HTTP/1.1 before.
    speaks_first: bool,
}

enum Sender {
    One(http1::SendRequest<Upload>),
    Many(http2::SendRequest<Upload>),
}

impl<O: Owner> Pool<O> {
    /// Passes a request on, over a connection whose other end is verified; the secrets come in here and nowhere else.
    pub(super) async fn send(
        &self,
        mut request: Request<Upload>,
        host: &HeaderValue,
    ) -> Result<Response<Incoming>, UpstreamError> {
        let mut sender = self.checkout(false).await?;
        self.inject(&mut request);
        let mut again = true;
        loop {
            head::address(&mut request, host, matches!(sender, Sender::Many(_)));
            let unsent = match &mut sender {
                Sender::One(one) => one.try_send_request(request).await,
                Sender::Many(many) => many.try_send_request(request).await,
            };
            let mut error = match unsent {
                Ok(response) => {
                    self.checkin(sender).await;
                    return Ok(response);
                }
                Err(error) => error,
            };
            // Upstream had closed the connection before anything of this was sent: then, and only then, once more.
            match error.take_message() {
                Some(unsent) if again => request = unsent,
                _ => return Err(UpstreamError::Http(error.into_error())),
            }
            again = false;
            sender = self.checkout(true).await?;
        }
    }

    /// The same for a request that becomes a WebSocket: HTTP/1.1, a connection of its own.
    pub(super) async fn send_upgrade(
        &self,
        mut request: Request<Upload>,
        host: &HeaderValue,
    ) -> Result<Response<Incoming>, UpstreamError> {
        let io = self.connect(&self.first).await?;
        let (mut sender, connection) = first().handshake(TokioIo::new(io)).await.map_err(UpstreamError::Http)?;
        let connection = connection.with_upgrades();
        self.tasks.spawn(async move { drop(connection.await) });
        self.inject(&mut request);
        head::address(&mut request, host, false);
        head::say_websocket(request.headers_mut());
        sender.send_request(request).await.map_err(UpstreamError::Http)
    }

    fn inject(&self, request: &mut Request<Upload>) {
        for secret in &self.secrets {
            if secret.replace(request.headers_mut()) {
                self.owner.note(Event::SecretUsed { header: secret.header() });
            }
        }
    }

    async fn checkout(&self, fresh: bool) -> Result<Sender, UpstreamError> {
        let mut state = self.state.lock().await;
        if fresh {
            state.many = None;
            state.idle.clear();
        }
        if let Some(many) = state.many.take_if(|many| !many.is_closed()) {
            state.many = Some(many.clone());
            return Ok(Sender::Many(many));
        }
        state.idle.retain(|one| !one.is_closed());
        if let Some(at) = state.idle.iter().position(http1::SendRequest::is_ready) {
            return Ok(Sender::One(state.idle.swap_remove(at)));
        }
        // It has given its answer to the end, or the client would not ask again; its task only has to notice.
        if self.one_by_one
            && let Some(mut last) = state.idle.pop()
            && matches!(timeout(SETTLE, last.ready()).await, Ok(Ok(())))
        {
            return Ok(Sender::One(last));
        }
        if state.speaks_first {
            drop(state);
            return self.open().await;
        }
        // The first connection tells whether more are needed: until then, everybody waits for it.
        let sender = self.open().await?;
        match &sender {
            Sender::One(_) => state.speaks_first = true,
            Sender::Many(many) => state.many = Some(many.clone()),
        }
        Ok(sender)
    }

    async fn checkin(&self, sender: Sender) {
        if let Sender::One(one) = sender
            && !one.is_closed()
        {
            self.state.lock().await.idle.push(one);
        }
    }

    async fn open(&self) -> Result<Sender, UpstreamError> {
        let io = self.connect(&self.both).await?;
        let h2 = io.get_ref().1.alpn_protocol() == Some(b"h2");
        if h2 {
            let mut builder = http2::Builder::new(self.tasks.clone());
            builder
                .timer(TokioTimer::new())
                .initial_stream_window_size(limits::STREAM_WINDOW)
                .initial_connection_window_size(limits::CONNECTION_WINDOW)
                .max_header_list_size(limits::HEAD as u32)
                // Finds out about a dead upstream while something is awaited of it.
                .keep_alive_interval(limits::PING)
                .keep_alive_timeout(limits::PING);
            let (sender, connection) = builder.handshake(TokioIo::new(io)).await.map_err(UpstreamError::Http)?;
            self.tasks.spawn(async move { drop(connection.await) });
            return Ok(Sender::Many(sender));
        }
        let (sender, connection) = first().handshake(TokioIo::new(io)).await.map_err(UpstreamError::Http)?;
        self.tasks.spawn(async move { drop(connection.await) });
        Ok(Sender::One(sender))
    }

    /// The one way to a stream: dialled by the owner, verified for the name.
    async fn connect(&self, config: &Arc<ClientConfig>) -> Result<TlsStream<O::Stream>, UpstreamError> {
        let work = async {
            let io = self.owner.dial().await.map_err(UpstreamError::Dial)?;
            TlsConnector::from(Arc::clone(config)).connect(self.name.clone(), io).await.map_err(handshake_error)
        };
        timeout(limits::CONNECT, work).await.unwrap_or(Err(UpstreamError::Timeout))
    }
}

fn first() -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder.max_headers(limits::HEADERS).max_buf_size(limits::BUFFER).max_header_size(limits::HEAD);
    builder
}

fn handshake_error(error: io::Error) -> UpstreamError {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        Some(inner @ (rustls::Error::InvalidCertificate(_) | rustls::Error::NoCertificatesPresented)) => {
            UpstreamError::Certificate(inner.clone())
        }
        _ => UpstreamError::Tls(error),
    }
}
