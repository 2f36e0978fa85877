//! A host outside, a cell inside, and an interceptor between them, all in memory.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use http_body_util::{BodyExt, Full, combinators::BoxBody};
use hyper::body::{Body, Frame, Incoming};
use hyper::client::conn;
use hyper::{Request, Response};
use hyper_util::rt::TokioExecutor;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::PrivatePkcs8KeyDer;
use tokio_rustls::rustls::{RootCertStore, ServerConfig};

use super::super::*;
use crate::name::Pattern;

pub(super) const H1: &[&[u8]] = &[b"http/1.1"];
pub(super) const H2: &[&[u8]] = &[b"h2"];

/// Protocols that a client or a server offers.
pub(super) type Alpn = &'static [&'static [u8]];

/// Each version inside with each version outside.
pub(super) const PAIRS: [(Alpn, Alpn); 4] = [(H1, H1), (H1, H2), (H2, H1), (H2, H2)];

pub(super) type AnyBody = BoxBody<Bytes, Infallible>;
pub(super) type Answer = Pin<Box<dyn Future<Output = Response<AnyBody>> + Send>>;
pub(super) type Site = Arc<dyn Fn(Request<Incoming>) -> Answer + Send + Sync>;

pub(super) fn name(text: &str) -> Name {
    text.parse().expect("a name")
}

pub(super) fn full(text: impl Into<Bytes>) -> AnyBody {
    Full::new(text.into()).boxed()
}

/// A site that says what it was asked.
pub(super) fn echo() -> Site {
    site(|request: Request<Incoming>| async move {
        let (parts, body) = request.into_parts();
        let mut text = format!("{} {}\n", parts.method, parts.uri);
        for (name, value) in &parts.headers {
            text.push_str(&format!("{name}: {}\n", value.to_str().expect("text")));
        }
        let body = body.collect().await.map(|b| b.to_bytes()).unwrap_or_default();
        text.push_str(&format!("\n{}", String::from_utf8_lossy(&body)));
        Response::new(full(text))
    })
}

pub(super) fn site<F>(handle: impl Fn(Request<Incoming>) -> F + Send + Sync + 'static) -> Site
where
    F: Future<Output = Response<AnyBody>> + Send + 'static,
{
    Arc::new(move |request| Box::pin(handle(request)))
}

/// A body whose frames the test sends, and the count of bytes that were taken from it.
pub(super) struct Channel(mpsc::Receiver<Frame<Bytes>>, Arc<AtomicUsize>);

impl Channel {
    pub(super) fn open() -> (mpsc::Sender<Frame<Bytes>>, AnyBody) {
        let (sender, receiver) = mpsc::channel(1);
        (sender, Self(receiver, Arc::default()).boxed())
    }

    /// A body of `chunks` of 64 KiB, and the count.
    pub(super) fn big(chunks: usize) -> (AnyBody, Arc<AtomicUsize>) {
        let (sender, receiver) = mpsc::channel(1);
        let taken = Arc::new(AtomicUsize::new(0));
        tokio::spawn(async move {
            let chunk = Bytes::from(vec![7; 64 << 10]);
            for _ in 0..chunks {
                if sender.send(Frame::data(chunk.clone())).await.is_err() {
                    return;
                }
            }
        });
        (Self(receiver, Arc::clone(&taken)).boxed(), taken)
    }
}

impl Body for Channel {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let frame = std::task::ready!(self.0.poll_recv(cx));
        self.1.fetch_add(frame.as_ref().and_then(Frame::data_ref).map_or(0, Bytes::len), Ordering::SeqCst);
        Poll::Ready(frame.map(Ok))
    }
}

/// The host outside, with an authority of its own.
pub(super) struct Outside {
    pub(super) roots: Roots,
    pub(super) config: Arc<ServerConfig>,
    pub(super) site: Site,
    dials: AtomicUsize,
    pub(super) allow: Box<dyn Fn(&Asked<'_>) -> Decision + Send + Sync>,
    pub(super) events: Mutex<Vec<String>>,
    pub(super) dead: bool,
}

impl Outside {
    /// One with a certificate for `certified`, which speaks the protocols of `alpn`.
    pub(super) fn new(certified: &str, alpn: &[&[u8]], site: Site) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("an authority");
        let key = KeyPair::generate().expect("a key");
        let leaf =
            CertificateParams::new([certified.to_owned()]).expect("a name").signed_by(&key, &ca).expect("a leaf");
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(vec![leaf.der().clone()], PrivatePkcs8KeyDer::from(key.serialize_der()).into())
            .expect("a configuration");
        config.alpn_protocols = alpn.iter().map(|p| p.to_vec()).collect();
        Self {
            roots: Roots::from_pem(ca.pem().as_bytes()).expect("roots"),
            config: Arc::new(config),
            site,
            dials: AtomicUsize::new(0),
            allow: Box::new(|_| Decision::Pass),
            events: Mutex::default(),
            dead: false,
        }
    }

    pub(super) fn dials(&self) -> usize {
        self.dials.load(Ordering::SeqCst)
    }

    pub(super) fn events(&self) -> Vec<String> {
        self.events.lock().expect("events").clone()
    }
}

/// Serves `site` over TLS.
pub(super) async fn be_upstream<S>(io: S, config: Arc<ServerConfig>, site: Site)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let Ok(tls) = TlsAcceptor::from(config).accept(io).await else { return };
    let h2 = tls.get_ref().1.alpn_protocol() == Some(b"h2");
    let service = service_fn(move |request| {
        let answer = site(request);
        async move { Ok::<_, Infallible>(answer.await) }
    });
    let _ = if h2 {
        http2::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(tls), service).await
    } else {
        http1::Builder::new().serve_connection(TokioIo::new(tls), service).with_upgrades().await
    };
}

impl Owner for Outside {
    type Stream = DuplexStream;

    async fn dial(&self) -> io::Result<DuplexStream> {
        self.dials.fetch_add(1, Ordering::SeqCst);
        if self.dead {
            return Err(io::ErrorKind::ConnectionRefused.into());
        }
        let (ours, theirs) = duplex(64 << 10);
        tokio::spawn(be_upstream(theirs, Arc::clone(&self.config), Arc::clone(&self.site)));
        Ok(ours)
    }

    fn decide(&self, asked: &Asked<'_>) -> Decision {
        (self.allow)(asked)
    }

    fn note(&self, event: Event<'_>) {
        self.events.lock().expect("events").push(format!("{event:?}"));
    }
}

/// A cell whose connections to `host` are looked into.
pub(super) struct Inside {
    pub(super) outside: Arc<Outside>,
    pub(super) authority: Arc<Authority>,
    pub(super) interceptor: Arc<Interceptor>,
    pub(super) origin: Origin,
}

impl Inside {
    pub(super) fn new(outside: Outside) -> Self {
        Self::with(outside, "host.test", Vec::new())
    }

    pub(super) fn with(outside: Outside, host: &str, secrets: Vec<Secret>) -> Self {
        let authority = Arc::new(Authority::new(&[Pattern::Exact(name(host))]).expect("an authority"));
        let interceptor = Interceptor::new(Arc::clone(&authority), &outside.roots, secrets).expect("an interceptor");
        let origin = Origin { name: name(host), port: 443, paths: Paths::Normal };
        Self { outside: Arc::new(outside), authority, interceptor: Arc::new(interceptor), origin }
    }

    /// The plain end of a connection that is served.
    pub(super) fn plain(&self) -> (DuplexStream, JoinHandle<Result<(), ServeError>>) {
        let (ours, theirs) = duplex(64 << 10);
        let (interceptor, origin, owner) =
            (Arc::clone(&self.interceptor), self.origin.clone(), Arc::clone(&self.outside));
        let served = async move { interceptor.serve(theirs, Bytes::new(), origin, owner).await };
        (ours, tokio::spawn(served))
    }

    pub(super) fn connector(&self, alpn: &[&[u8]]) -> TlsConnector {
        trusting(&self.authority, alpn)
    }

    /// TLS as a client in the cell sees it.
    pub(super) async fn tls(&self, alpn: &[&[u8]]) -> tokio_rustls::client::TlsStream<DuplexStream> {
        let host = ServerName::try_from(self.origin.name.to_string()).expect("a name");
        self.connector(alpn).connect(host, self.plain().0).await.expect("a handshake")
    }

    pub(super) async fn client(&self, alpn: &[&[u8]]) -> Client {
        Client::new(self.tls(alpn).await).await
    }

    /// What a client reads after it wrote `request`; it must ask for the connection to be closed.
    pub(super) async fn raw(&self, request: &str) -> String {
        let mut tls = self.tls(H1).await;
        // A server may well close before it has read all.
        let _ = tls.write_all(request.as_bytes()).await;
        let _ = tls.flush().await;
        let mut out = Vec::new();
        // Some refusals come with a close that is not announced.
        let _ = tls.read_to_end(&mut out).await;
        String::from_utf8_lossy(&out).into_owned()
    }
}

pub(super) fn trusting(authority: &Authority, alpn: &[&[u8]]) -> TlsConnector {
    let mut store = RootCertStore::empty();
    store.add(authority.certificate_der().to_vec().into()).expect("a root");
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(store)
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|p| p.to_vec()).collect();
    TlsConnector::from(Arc::new(config))
}

/// A client of either version.
pub(super) enum Client {
    One(conn::http1::SendRequest<AnyBody>),
    Many(conn::http2::SendRequest<AnyBody>),
}

impl Client {
    pub(super) async fn new<S>(tls: tokio_rustls::client::TlsStream<S>) -> Self
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        if tls.get_ref().1.alpn_protocol() == Some(b"h2") {
            let (sender, connection) =
                conn::http2::handshake(TokioExecutor::new(), TokioIo::new(tls)).await.expect("HTTP/2");
            tokio::spawn(connection);
            return Self::Many(sender);
        }
        let (sender, connection) = conn::http1::handshake(TokioIo::new(tls)).await.expect("HTTP/1.1");
        tokio::spawn(connection.with_upgrades());
        Self::One(sender)
    }

    pub(super) async fn send(&mut self, request: Request<AnyBody>) -> Response<Incoming> {
        self.try_send(request).await.expect("an answer")
    }

    pub(super) async fn try_send(&mut self, mut request: Request<AnyBody>) -> hyper::Result<Response<Incoming>> {
        match self {
            Self::One(one) => {
                one.ready().await.expect("ready");
                let host = request.uri().authority().expect("a host").as_str().parse().expect("a value");
                request.headers_mut().entry("host").or_insert(host);
                *request.uri_mut() = request.uri().path_and_query().expect("a path").clone().into();
                one.send_request(request).await
            }
            Self::Many(many) => many.send_request(request).await,
        }
    }

    /// Status, mark and text of the answer.
    pub(super) async fn text(&mut self, request: Request<AnyBody>) -> (u16, String, String) {
        let answer = self.send(request).await;
        let mark = answer.headers().get("x-cellblock").map_or("", |v| v.to_str().expect("text")).to_owned();
        let status = answer.status().as_u16();
        let text = answer.into_body().collect().await.expect("a body").to_bytes();
        (status, mark, String::from_utf8_lossy(&text).into_owned())
    }

    pub(super) async fn get(&mut self, url: &str) -> (u16, String, String) {
        self.text(get(url)).await
    }
}

pub(super) fn get(url: &str) -> Request<AnyBody> {
    Request::get(url).body(full("")).expect("a request")
}
