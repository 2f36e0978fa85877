//! Bodies and WebSockets: passed on as they come, and never held.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http_body_util::BodyExt;
use hyper::body::Frame;
use hyper::header::HeaderMap;
use hyper::{Request, Response};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};

use super::super::*;
use super::support::*;

const SOON: Duration = Duration::from_secs(10);
/// What may lie in buffers and windows between the two ends, those of the test's own client and server included.
const HELD: usize = 12 << 20;
const CHUNKS: usize = 640;

#[tokio::test]
async fn an_event_arrives_before_the_next_one_is_made() {
    for (client, upstream) in PAIRS {
        let (sender, body) = Channel::open();
        let body = std::sync::Mutex::new(Some(body));
        let events = site(move |_| {
            let body = body.lock().expect("a body").take().expect("one request");
            async move { Response::builder().header("content-type", "text/event-stream").body(body).expect("an answer") }
        });
        let inside = Inside::new(Outside::new("host.test", upstream, events));
        let mut answer = inside.client(client).await.send(get("https://host.test/")).await.into_body();
        for round in 0..3 {
            let event = Bytes::from(format!("data: {round}\n\n"));
            sender.send(Frame::data(event.clone())).await.expect("sent");
            let frame = timeout(SOON, answer.frame()).await.expect("at once").expect("a frame").expect("data");
            assert_eq!(frame.into_data().expect("data"), event);
        }
        drop(sender);
        let rest = timeout(SOON, answer.collect()).await.expect("the end").expect("no error");
        assert!(rest.to_bytes().is_empty());
    }
}

#[tokio::test]
async fn an_upload_arrives_before_its_end() {
    for (client, upstream) in PAIRS {
        let first = site(|request| async move {
            let frame = request.into_body().frame().await.expect("a frame").expect("data");
            Response::new(full(frame.into_data().expect("data")))
        });
        let inside = Inside::new(Outside::new("host.test", upstream, first));
        let (sender, body) = Channel::open();
        sender.send(Frame::data(Bytes::from("begin"))).await.expect("sent");
        let request = Request::post("https://host.test/").body(body).expect("a request");
        let mut client = inside.client(client).await;
        let answer = timeout(SOON, client.send(request)).await.expect("an answer before the end");
        assert_eq!(answer.into_body().collect().await.expect("a body").to_bytes(), "begin");
    }
}

/// Waits until a count stands still.
async fn still(count: &AtomicUsize) -> usize {
    loop {
        let before = count.load(Ordering::SeqCst);
        sleep(Duration::from_millis(200)).await;
        if count.load(Ordering::SeqCst) == before {
            return before;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_download_that_nobody_reads_is_not_held() {
    for (client, upstream) in PAIRS {
        let counts = Arc::new(std::sync::Mutex::new(Vec::new()));
        let counted = Arc::clone(&counts);
        let big = site(move |_| {
            let (body, count) = Channel::big(CHUNKS);
            counted.lock().expect("counts").push(count);
            async move { Response::new(body) }
        });
        let inside = Inside::new(Outside::new("host.test", upstream, big));
        let mut client = inside.client(client).await;
        let mut body = client.send(get("https://host.test/")).await.into_body();
        let count = Arc::clone(&counts.lock().expect("counts")[0]);
        let held = still(&count).await;
        assert!(held > 0 && held < HELD, "{held}");
        let mut read = 0;
        while let Some(frame) = body.frame().await {
            read += frame.expect("data").into_data().expect("data").len();
        }
        assert_eq!(read, CHUNKS << 16, "all of it comes to who reads");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upload_that_nobody_reads_is_not_held() {
    for (client, upstream) in PAIRS {
        let go = Arc::new(Notify::new());
        let wait = Arc::clone(&go);
        let slow = site(move |request| {
            let wait = Arc::clone(&wait);
            async move {
                wait.notified().await;
                let mut body = request.into_body();
                let mut read = 0;
                while let Some(frame) = body.frame().await {
                    read += frame.expect("data").into_data().expect("data").len();
                }
                Response::new(full(read.to_string()))
            }
        });
        let inside = Inside::new(Outside::new("host.test", upstream, slow));
        let (body, count) = Channel::big(CHUNKS);
        let mut client = inside.client(client).await;
        let request = Request::put("https://host.test/").body(body).expect("a request");
        let answer = tokio::spawn(async move { client.text(request).await });
        let held = still(&count).await;
        assert!(held > 0 && held < HELD, "{held}");
        go.notify_one();
        assert_eq!(answer.await.expect("an answer").2, (CHUNKS << 16).to_string());
    }
}

#[tokio::test]
async fn trailers_pass() {
    for (client, upstream) in PAIRS {
        let summed = site(|request| async move {
            assert_eq!(request.headers()["te"], "trailers");
            let body = request.into_body().collect().await.expect("a body");
            let sent = body.trailers().map_or("none", |t| t["x-sum"].to_str().expect("text")).to_owned();
            let (sender, body) = Channel::open();
            tokio::spawn(async move {
                sender.send(Frame::data(Bytes::from("text"))).await.expect("sent");
                let trailers: HeaderMap =
                    [("x-sum".parse().expect("a name"), sent.parse().expect("a value"))].into_iter().collect();
                sender.send(Frame::trailers(trailers)).await.expect("sent");
            });
            Response::builder().header("trailer", "x-sum").body(body).expect("an answer")
        });
        let inside = Inside::new(Outside::new("host.test", upstream, summed));
        let (sender, body) = Channel::open();
        tokio::spawn(async move {
            sender.send(Frame::data(Bytes::from("up"))).await.expect("sent");
            let trailers: HeaderMap =
                [("x-sum".parse().expect("a name"), "42".parse().expect("a value"))].into_iter().collect();
            sender.send(Frame::trailers(trailers)).await.expect("sent");
        });
        let mut request = Request::post("https://host.test/").header("te", "trailers").header("trailer", "x-sum");
        if client == H1 {
            request = request.header("connection", "te");
        }
        let mut client = inside.client(client).await;
        let answer = client.send(request.body(body).expect("a request")).await.into_body().collect().await;
        assert_eq!(answer.expect("a body").trailers().expect("trailers")["x-sum"], "42");
    }
}

/// Changes to the protocol that `x-to` names, whatever was asked for, and then gives back every byte it gets.
fn changing() -> Site {
    site(|mut request| async move {
        let Some(to) = request.headers().get("x-to").cloned() else { return Response::new(full("plain")) };
        assert!(to != "websocket" || request.headers()["sec-websocket-key"] == "k");
        tokio::spawn(async move {
            let Ok(upgraded) = hyper::upgrade::on(&mut request).await else { return };
            let (mut read, mut write) = tokio::io::split(TokioIo::new(upgraded));
            let _ = tokio::io::copy(&mut read, &mut write).await;
            let _ = write.shutdown().await;
        });
        let answer = Response::builder().status(101).header("connection", "upgrade").header("upgrade", to);
        answer.header("sec-websocket-accept", "a").body(full("")).expect("an answer")
    })
}

fn upgrade(to: &str, more: &str) -> String {
    format!(
        "GET /chat HTTP/1.1\r\nHost: host.test\r\nConnection: Upgrade\r\nUpgrade: {to}\r\nSec-WebSocket-Key: k\r\n\
         X-To: {to}\r\n{more}\r\n"
    )
}

async fn head(stream: &mut (impl AsyncRead + Unpin)) -> String {
    let mut out = Vec::new();
    while !out.ends_with(b"\r\n\r\n") {
        out.push(timeout(SOON, stream.read_u8()).await.expect("in time").expect("a byte"));
    }
    String::from_utf8(out).expect("text")
}

#[tokio::test]
async fn websockets_pass_both_ways() {
    // Upstream would take HTTP/2 too.
    for upstream in [H1, &ALPN] {
        let inside = Inside::new(Outside::new("host.test", upstream, changing()));
        let mut tls = inside.tls(H1).await;
        // After an ordinary request.
        tls.write_all(b"GET / HTTP/1.1\r\nHost: host.test\r\n\r\n").await.expect("written");
        assert!(head(&mut tls).await.starts_with("HTTP/1.1 200"));
        tls.read_exact(&mut [0; 5]).await.expect("the body");
        // What is sent right behind belongs to the WebSocket.
        tls.write_all(format!("{}early", upgrade("websocket", "")).as_bytes()).await.expect("written");
        let answer = head(&mut tls).await;
        assert!(answer.starts_with("HTTP/1.1 101"), "{answer}");
        for line in ["connection: upgrade\r\n", "upgrade: websocket\r\n", "sec-websocket-accept: a\r\n"] {
            assert!(answer.contains(line), "{answer}");
        }
        for text in ["early", "hello", "there"] {
            if text != "early" {
                tls.write_all(text.as_bytes()).await.expect("written");
            }
            let mut back = [0; 5];
            timeout(SOON, tls.read_exact(&mut back)).await.expect("in time").expect("read");
            assert_eq!(back, text.as_bytes());
        }
        tls.shutdown().await.expect("closed");
        assert_eq!(timeout(SOON, tls.read(&mut [0; 5])).await.expect("in time").expect("the end"), 0);
    }
}

#[tokio::test]
async fn only_websockets_change_the_protocol() {
    let mut outside = Outside::new("host.test", H1, changing());
    outside.allow = Box::new(|asked| match asked.path {
        [only] if only == "chat" => Decision::Pass,
        _ => Decision::Deny("no".into()),
    });
    let inside = Inside::new(outside);
    for (request, start) in [
        // Upstream is not told of the wish, and what it changes to nevertheless goes nowhere.
        (upgrade("h2c", ""), "HTTP/1.1 502"),
        (upgrade("websocket, h2c", ""), "HTTP/1.1 502"),
        (upgrade("websocket", "Upgrade: h2c\r\n"), "HTTP/1.1 502"),
        (upgrade("websocket", "Content-Length: 3\r\n") + "abc", "HTTP/1.1 502"),
        (upgrade("websocket", "").replace("/chat", "/other"), "HTTP/1.1 403"),
        (upgrade("websocket", "").replace("host.test", "other.test"), "HTTP/1.1 403"),
        (upgrade("websocket", "").replace("X-To: websocket", "X-To: h2c"), "HTTP/1.1 502"),
        (upgrade("websocket", "").replace("X-To", "X-Other"), "HTTP/1.1 200"),
        (upgrade("websocket", ""), "HTTP/1.1 101"),
    ] {
        let mut tls = inside.tls(H1).await;
        tls.write_all(request.as_bytes()).await.expect("written");
        let answer = head(&mut tls).await;
        assert!(answer.starts_with(start), "{request}: {answer}");
    }
}

#[tokio::test]
async fn what_was_begun_ends_with_the_connection() {
    let inside = Inside::new(Outside::new("host.test", H1, changing()));
    let (plain, served) = inside.plain();
    let host = ServerName::try_from("host.test").expect("a name");
    let mut tls = inside.connector(H1).connect(host, plain).await.expect("a handshake");
    tls.write_all(upgrade("websocket", "").as_bytes()).await.expect("written");
    assert!(head(&mut tls).await.starts_with("HTTP/1.1 101"));
    sleep(Duration::from_millis(50)).await;
    assert!(!served.is_finished(), "the WebSocket counts");
    served.abort();
    let end = timeout(SOON, tls.read(&mut [0; 5])).await.expect("in time");
    assert!(!matches!(end, Ok(1..)), "{end:?}");
}

#[tokio::test]
async fn requests_that_wait_end_with_the_connection() {
    for (client, upstream) in PAIRS {
        // Never answers; its half of the channel goes when the request is given up.
        let (begun, mut waiting) = tokio::sync::mpsc::unbounded_channel();
        let never = site(move |_| {
            let (ours, theirs) = tokio::sync::oneshot::channel::<()>();
            begun.send(theirs).expect("noted");
            async move {
                std::future::pending::<()>().await;
                drop(ours);
                Response::new(full(""))
            }
        });
        let inside = Inside::new(Outside::new("host.test", upstream, never));
        let (plain, served) = inside.plain();
        let host = ServerName::try_from("host.test").expect("a name");
        let mut client = Client::new(inside.connector(client).connect(host, plain).await.expect("a handshake")).await;
        let asking = tokio::spawn(async move { client.try_send(get("https://host.test/")).await });
        let given_up = waiting.recv().await.expect("a request");
        served.abort();
        assert!(timeout(SOON, given_up).await.expect("given up").is_err());
        assert!(timeout(SOON, asking).await.expect("in time").expect("asked").is_err());
    }
}
