//! Clients and hosts that do not behave, and what waits for nothing.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use hyper::Request;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::time::timeout;
use tokio_rustls::rustls::pki_types::IpAddr;

use super::super::*;
use super::support::*;

fn inside() -> Inside {
    Inside::new(Outside::new("host.test", H1, echo()))
}

#[tokio::test]
async fn what_was_read_before_is_read_again() {
    let inside = inside();
    let (ours, mut theirs) = duplex(64 << 10);
    let (interceptor, origin, owner) =
        (Arc::clone(&inside.interceptor), inside.origin.clone(), Arc::clone(&inside.outside));
    tokio::spawn(async move {
        let mut first = vec![0; 100];
        theirs.read_exact(&mut first).await.expect("a hello");
        interceptor.serve(theirs, first.into(), origin, owner).await
    });
    let host = ServerName::try_from("host.test").expect("a name");
    let tls = inside.connector(H2).connect(host, ours).await.expect("a handshake");
    assert_eq!(Client::new(tls).await.get("https://host.test/").await.0, 200);
}

#[tokio::test]
async fn tls_for_another_name_is_over() {
    let inside = inside();
    let no_name = ServerName::IpAddress(IpAddr::from(std::net::Ipv4Addr::LOCALHOST));
    for host in [ServerName::try_from("other.test").expect("a name"), no_name] {
        let (plain, served) = inside.plain();
        assert!(inside.connector(H1).connect(host, plain).await.is_err(), "the leaf is for another name");
        assert!(matches!(served.await.expect("served"), Err(ServeError::NotTrusted(_))));
    }
    // A client that looks at no name at all, as `curl --insecure`.
    let (plain, served) = inside.plain();
    let mut tls = careless().connect(ServerName::try_from("other.test").expect("a name"), plain).await.expect("any");
    tls.write_all(b"GET / HTTP/1.1\r\nHost: host.test\r\n\r\n").await.expect("written");
    assert!(matches!(served.await.expect("served"), Err(ServeError::OtherName(_))));
    let _ = tls.read(&mut [0; 1]).await;
    assert_eq!(inside.outside.dials(), 0);
}

/// A client that believes every certificate.
fn careless() -> tokio_rustls::TlsConnector {
    use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
    use rustls::pki_types::{CertificateDer, UnixTime};
    #[derive(Debug)]
    struct Any;
    impl ServerCertVerifier for Any {
        fn verify_server_cert(
            &self,
            _: &CertificateDer<'_>,
            _: &[CertificateDer<'_>],
            _: &ServerName<'_>,
            _: &[u8],
            _: UnixTime,
        ) -> Result<ServerCertVerified, rustls::Error> {
            Ok(ServerCertVerified::assertion())
        }
        fn verify_tls12_signature(
            &self,
            _: &[u8],
            _: &CertificateDer<'_>,
            _: &rustls::DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, rustls::Error> {
            Ok(HandshakeSignatureValid::assertion())
        }
        fn verify_tls13_signature(
            &self,
            _: &[u8],
            _: &CertificateDer<'_>,
            _: &rustls::DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, rustls::Error> {
            Ok(HandshakeSignatureValid::assertion())
        }
        fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
            provider().signature_verification_algorithms.supported_schemes()
        }
    }
    let config = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions();
    let config = config.expect("versions").dangerous().with_custom_certificate_verifier(Arc::new(Any));
    tokio_rustls::TlsConnector::from(Arc::new(config.with_no_client_auth()))
}

#[tokio::test]
async fn a_name_without_certificate_is_not_served() {
    let mut inside = inside();
    inside.origin.name = name("other.test");
    let (_plain, served) = inside.plain();
    let error = served.await.expect("served").expect_err("not covered");
    assert!(matches!(error, ServeError::Authority(AuthorityError::NotCovered(_))), "{error}");
}

#[tokio::test]
async fn heads_have_limits() {
    let inside = inside();
    let ask = |count: usize, size: usize| {
        let mut request = "GET / HTTP/1.1\r\nHost: host.test\r\nConnection: close\r\n".to_owned();
        for number in 0..count {
            request.push_str(&format!("x-{number}: {}\r\n", "a".repeat(size)));
        }
        request + "\r\n"
    };
    assert!(inside.raw(&ask(90, 100)).await.starts_with("HTTP/1.1 200"), "the twin");
    assert!(inside.raw(&ask(200, 1)).await.starts_with("HTTP/1.1 431"));
    let answer = inside.raw(&ask(2, 40_000)).await;
    assert!(answer.starts_with("HTTP/1.1 431"), "{answer}");
    assert_eq!(inside.outside.dials(), 1);
    let mut client = inside.client(H2).await;
    let big = Request::get("https://host.test/").header("x", "a".repeat(70_000)).body(full("")).expect("a request");
    assert_eq!(client.text(big).await.0, 431);
    assert_eq!(client.get("https://host.test/").await.0, 200, "the twin");
}

#[tokio::test(start_paused = true)]
async fn silence_has_limits() {
    let inside = inside();
    let (plain, served) = inside.plain();
    assert!(matches!(served.await.expect("served"), Err(ServeError::Timeout)));
    drop(plain);
    // Half a head.
    let mut tls = inside.tls(H1).await;
    tls.write_all(b"GET / HTTP/1.1\r\nHost: host.test\r\n").await.expect("written");
    let mut out = Vec::new();
    let wait = limits::HEAD_TIME + Duration::from_secs(1);
    let _ = timeout(wait, tls.read_to_end(&mut out)).await.expect("closed");
    assert!(!String::from_utf8_lossy(&out).contains("200"), "{out:?}");
    assert_eq!(inside.outside.dials(), 0);
}

/// A server that answers when it has the whole request, after `wait`, with a body that comes half an hour later.
fn slow(wait: Duration) -> Site {
    site(move |request| async move {
        use http_body_util::BodyExt;
        // One whose client breaks off gets no answer.
        let Ok(body) = request.into_body().collect().await else { return std::future::pending().await };
        tokio::time::sleep(wait).await;
        let (sender, later) = Channel::open();
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_secs(30 * 60)).await;
            let text = Bytes::from(format!("{} bytes", body.to_bytes().len()));
            let _ = sender.send(hyper::body::Frame::data(text)).await;
        });
        hyper::Response::new(later)
    })
}

/// A connection to an upstream of that version, and how it ends.
async fn connected(
    upstream: &[&[u8]],
    wait: Duration,
) -> (tokio_rustls::client::TlsStream<DuplexStream>, tokio::task::JoinHandle<Result<(), ServeError>>) {
    let inside = Inside::new(Outside::new("host.test", upstream, slow(wait)));
    let (plain, served) = inside.plain();
    let host = ServerName::try_from("host.test").expect("a name");
    (inside.connector(H1).connect(host, plain).await.expect("a handshake"), served)
}

const HALF: &[u8] = b"POST / HTTP/1.1\r\nHost: host.test\r\nConnection: close\r\nContent-Length: 4\r\n\r\n";

#[tokio::test(start_paused = true)]
async fn an_upload_that_stalls_gives_its_place_up() {
    for upstream in [H1, H2] {
        let (mut tls, served) = connected(upstream, Duration::ZERO).await;
        tls.write_all(HALF).await.expect("written");
        tls.write_all(b"12").await.expect("written");
        let begun = tokio::time::Instant::now();
        let ended = served.await.expect("served");
        assert!(matches!(ended, Err(ServeError::Stalled(limits::UPLOAD))), "{ended:?}");
        assert!(begun.elapsed() >= limits::UPLOAD && begun.elapsed() < limits::UPLOAD + 2 * limits::LOOK);
        let mut out = Vec::new();
        let _ = tls.read_to_end(&mut out).await;
        assert!(out.is_empty(), "{out:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_upload_and_an_answer_may_be_slow() {
    for upstream in [H1, H2] {
        let (mut tls, _served) = connected(upstream, Duration::from_secs(30 * 60)).await;
        tls.write_all(HALF).await.expect("written");
        for byte in b"1234" {
            tokio::time::sleep(limits::UPLOAD - 2 * limits::LOOK).await;
            tls.write_all(&[*byte]).await.expect("written");
        }
        let mut out = Vec::new();
        let _ = tls.read_to_end(&mut out).await;
        let text = String::from_utf8_lossy(&out);
        assert!(text.starts_with("HTTP/1.1 200") && text.contains("4 bytes"), "{text}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_awaited_for_an_hour_does_not_come() {
    let (mut tls, served) = connected(H1, 2 * limits::SILENCE).await;
    tls.write_all(HALF).await.expect("written");
    tls.write_all(b"1234").await.expect("written");
    let begun = tokio::time::Instant::now();
    let ended = served.await.expect("served");
    assert!(matches!(ended, Err(ServeError::Stalled(limits::SILENCE))), "{ended:?}");
    assert!(begun.elapsed() >= limits::SILENCE);
    drop(tls);
}

#[tokio::test(start_paused = true)]
async fn an_upload_that_nobody_reads_gives_its_place_up() {
    let never = site(|request| async move {
        let _kept = request;
        std::future::pending().await
    });
    for (client, upstream) in PAIRS {
        let inside = Inside::new(Outside::new("host.test", upstream, Arc::clone(&never)));
        let (plain, served) = inside.plain();
        let host = ServerName::try_from("host.test").expect("a name");
        let mut client = Client::new(inside.connector(client).connect(host, plain).await.expect("a handshake")).await;
        let (body, _) = Channel::big(200);
        let request = Request::put("https://host.test/").body(body).expect("a request");
        let answer = tokio::spawn(async move { client.text(request).await });
        let ended = served.await.expect("served");
        assert!(matches!(ended, Err(ServeError::Stalled(limits::UPLOAD))), "{ended:?}");
        answer.abort();
    }
}

/// An owner whose dials lead to somebody who says nothing.
struct Silent(std::sync::Mutex<Vec<DuplexStream>>);

impl Owner for Silent {
    type Stream = DuplexStream;

    async fn dial(&self) -> io::Result<DuplexStream> {
        let (ours, theirs) = duplex(1 << 10);
        self.0.lock().expect("streams").push(theirs);
        Ok(ours)
    }

    fn decide(&self, _: &Asked<'_>) -> Decision {
        Decision::Pass
    }
}

#[tokio::test(start_paused = true)]
async fn a_silent_upstream_is_not_awaited_for_ever() {
    let inside = inside();
    let (ours, theirs) = duplex(64 << 10);
    let (interceptor, origin) = (Arc::clone(&inside.interceptor), inside.origin.clone());
    let owner = Arc::new(Silent(std::sync::Mutex::default()));
    tokio::spawn(async move { interceptor.serve(theirs, Bytes::new(), origin, owner).await });
    let host = ServerName::try_from("host.test").expect("a name");
    let tls = inside.connector(H2).connect(host, ours).await.expect("a handshake");
    let (status, _, text) = Client::new(tls).await.get("https://host.test/").await;
    assert!(status == 502 && text.contains("did not take the connection within 30 seconds"), "{text}");
}

#[tokio::test(start_paused = true)]
async fn requests_at_once_have_a_limit() {
    let never = site(|_| async {
        std::future::pending::<()>().await;
        hyper::Response::new(full(""))
    });
    let mut outside = Outside::new("host.test", H2, never);
    let count = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&count);
    outside.allow = Box::new(move |_| {
        counted.fetch_add(1, Ordering::SeqCst);
        Decision::Pass
    });
    let inside = Inside::new(outside);
    let Client::Many(client) = inside.client(H2).await else { panic!("HTTP/2") };
    for _ in 0..limits::STREAMS + 50 {
        let mut client = client.clone();
        tokio::spawn(async move { client.send_request(get("https://host.test/")).await });
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(count.load(Ordering::SeqCst), limits::STREAMS);
}
