//! Requests and answers: what passes, and what is refused.

use hyper::Request;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::super::*;
use super::support::*;

#[tokio::test]
async fn requests_pass_in_all_versions() {
    for (client, upstream) in PAIRS {
        let inside = Inside::new(Outside::new("host.test", upstream, echo()));
        let mut client = inside.client(client).await;
        for round in 0..3 {
            let request = Request::post(format!("https://host.test/a/b?q={round}")).header("x-own", "1");
            let request = request.body(full("the body")).expect("a request");
            let (status, mark, text) = client.text(request).await;
            assert_eq!((status, mark.as_str()), (200, ""), "{text}");
            let target = if upstream == H2 { "https://host.test/a/b" } else { "/a/b" };
            assert!(text.starts_with(&format!("POST {target}?q={round}\n")), "{text}");
            assert!(text.contains("\nx-own: 1\n") && text.ends_with("\n\nthe body"), "{text}");
            assert_eq!(text.contains("\nhost: host.test\n"), upstream == H1, "{text}");
        }
        assert_eq!(inside.outside.dials(), 1, "the connection is used again");
    }
}

#[tokio::test]
async fn requests_at_once_do_not_wait_for_each_other() {
    for upstream in [H1, H2] {
        // Answers only when three requests are there.
        let all = Arc::new(tokio::sync::Barrier::new(3));
        let site = site(move |_| {
            let all = Arc::clone(&all);
            async move {
                all.wait().await;
                hyper::Response::new(full("done"))
            }
        });
        let inside = Inside::new(Outside::new("host.test", upstream, site));
        let Client::Many(client) = inside.client(H2).await else { panic!("HTTP/2") };
        let one = |mut client: hyper::client::conn::http2::SendRequest<AnyBody>| async move {
            client.send_request(get("https://host.test/")).await.expect("an answer").status()
        };
        let (a, b, c) = tokio::join!(one(client.clone()), one(client.clone()), one(client.clone()));
        assert!([a, b, c].iter().all(|status| *status == 200));
        assert_eq!(inside.outside.dials(), if upstream == H1 { 3 } else { 1 });
    }
}

#[tokio::test]
async fn each_request_is_decided_about() {
    for version in [H1, H2] {
        let mut outside = Outside::new("host.test", H1, echo());
        outside.allow = Box::new(|asked| match (asked.method, asked.path) {
            ("GET", [first, ..]) if first == "simple" => Decision::Pass,
            _ => Decision::Deny(format!("{} of {} is not allowed", asked.method, asked.origin.name)),
        });
        let inside = Inside::new(outside);
        let mut client = inside.client(version).await;
        let (status, mark, text) = client.get("https://host.test/other").await;
        assert_eq!((status, mark.as_str()), (403, "denied"));
        assert_eq!(text, "cellblock: denied: GET of host.test is not allowed\n");
        assert_eq!(inside.outside.dials(), 0, "nothing left");
        assert_eq!(client.get("https://host.test/%73imple/pip").await.0, 200, "the twin, in normal form");
        let post = Request::post("https://host.test/simple/pip").body(full("x")).expect("a request");
        assert_eq!(client.text(post).await.0, 403);
        assert_eq!(client.get("https://host.test/simple/").await.0, 200, "the connection goes on");
    }
}

#[tokio::test]
async fn the_host_of_each_request_is_the_connections() {
    let inside = Inside::new(Outside::new("host.test", H1, echo()));
    let good = [
        "GET / HTTP/1.1\r\nHost: host.test\r\nConnection: close\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: HOST.test:443\r\nConnection: close\r\n\r\n",
        "GET https://host.test/ HTTP/1.1\r\nHost: host.test\r\nConnection: close\r\n\r\n",
    ];
    for request in good {
        assert!(inside.raw(request).await.starts_with("HTTP/1.1 200"), "{request}");
    }
    let dials = inside.outside.dials();
    let bad = [
        "GET / HTTP/1.1\r\nHost: other.test\r\nConnection: close\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a.host.test\r\nConnection: close\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: host.test:80\r\nConnection: close\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: host.test:443:443\r\nConnection: close\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: user@host.test\r\nConnection: close\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: host.test, other.test\r\nConnection: close\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: host.test\r\nHost: host.test\r\nConnection: close\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: host.test\r\nHost: other.test\r\nConnection: close\r\n\r\n",
        "GET / HTTP/1.1\r\nHost:\r\nConnection: close\r\n\r\n",
        "GET / HTTP/1.1\r\nConnection: close\r\n\r\n",
        "GET / HTTP/1.0\r\n\r\n",
        "GET https://other.test/ HTTP/1.1\r\nHost: host.test\r\nConnection: close\r\n\r\n",
        "GET https://host.test/ HTTP/1.1\r\nHost: other.test\r\nConnection: close\r\n\r\n",
        "GET http://host.test/ HTTP/1.1\r\nHost: host.test\r\nConnection: close\r\n\r\n",
    ];
    for request in bad {
        let answer = inside.raw(request).await;
        assert!(answer.starts_with("HTTP/1.") && answer.contains("403 Forbidden"), "{request}: {answer}");
        assert!(answer.contains("x-cellblock: denied\r\n"), "{request}: {answer}");
    }
    // A second request, after one that was fine.
    let both = format!("GET / HTTP/1.1\r\nHost: host.test\r\n\r\n{}", bad[0]);
    let answer = inside.raw(&both).await;
    assert!(answer.contains("HTTP/1.1 200 OK") && answer.contains("HTTP/1.1 403 Forbidden"), "{answer}");
    assert_eq!(inside.outside.dials(), dials + 1, "what was refused left nothing outside");
    assert!(inside.outside.events().iter().any(|e| e.contains("OtherHost")));
}

#[tokio::test]
async fn the_authority_of_http2_is_the_connections() {
    let inside = Inside::new(Outside::new("host.test", H2, echo()));
    let mut client = inside.client(H2).await;
    assert_eq!(client.get("https://other.test/").await.0, 403);
    assert_eq!(client.get("http://host.test/").await.0, 403);
    let two = Request::get("https://host.test/").header("host", "other.test").body(full("")).expect("a request");
    assert_eq!(client.text(two).await.0, 403);
    assert_eq!(client.get("https://host.test:8443/").await.0, 403);
    assert_eq!(inside.outside.dials(), 0);
    assert_eq!(client.get("https://host.test/").await.0, 200, "the twin");
}

#[tokio::test]
async fn what_has_two_readings_is_refused() {
    let mut inside = Inside::new(Outside::new("host.test", H1, echo()));
    let ask = |target: &str| format!("GET {target} HTTP/1.1\r\nHost: host.test\r\nConnection: close\r\n\r\n");
    for target in
        ["/a/../b", "/a/%2e%2e/b", "/a%2f..%2fb", "/a%2f%2Fb", "/a%5Cb", "//a", "/a;b", "/%", "*", "/./a", "/a%00"]
    {
        let answer = inside.raw(&ask(target)).await;
        assert!(answer.starts_with("HTTP/1.1 403"), "{target}: {answer}");
    }
    assert_eq!(inside.outside.dials(), 0);
    assert!(inside.raw(&ask("/a/b%20c?x=../y%2f")).await.starts_with("HTTP/1.1 200"), "the twin");
    // Where all requests may pass, nothing of a path is a trick.
    inside.origin.paths = Paths::Any;
    assert!(inside.raw(&ask("/a%2f..%5cname")).await.contains("GET /a%2f..%5cname\n"));
    assert!(inside.raw(&ask("*")).await.starts_with("HTTP/1.1 403"));
}

/// R19: an encoded slash is the owner's to decide about, and goes on as the client wrote it.
#[tokio::test]
async fn an_encoded_slash_is_told_to_the_owner() {
    let mut outside = Outside::new("host.test", H1, echo());
    outside.allow = Box::new(|asked| match asked.path {
        [one] if one == "@scope%2Fname" => Decision::Pass,
        other => Decision::Deny(format!("{other:?}")),
    });
    let inside = Inside::new(outside);
    let ask = |target: &str| format!("GET {target} HTTP/1.1\r\nHost: host.test\r\nConnection: close\r\n\r\n");
    assert!(inside.raw(&ask("/@scope%2fname")).await.contains("GET /@scope%2fname\n"));
    for target in ["/@scope/name", "/@scope%2fother", "/@scope%252fname"] {
        assert!(inside.raw(&ask(target)).await.starts_with("HTTP/1.1 403"), "{target}");
    }
    assert_eq!(inside.outside.dials(), 1);
}

#[tokio::test]
async fn methods_and_lengths_that_deceive_are_refused() {
    let inside = Inside::new(Outside::new("host.test", H1, echo()));
    for (head, fine) in [
        ("TRACE / HTTP/1.1\r\nHost: host.test", false),
        ("CONNECT host.test:443 HTTP/1.1\r\nHost: host.test:443", false),
        ("OPTIONS / HTTP/1.1\r\nHost: host.test", true),
        ("POST / HTTP/1.1\r\nHost: host.test\r\nContent-Length: 0\r\nContent-Length: 5", false),
        ("POST / HTTP/1.1\r\nHost: host.test\r\nTransfer-Encoding: chunked, identity", false),
        ("POST / HTTP/1.1\r\nHost: host.test\r\nContent-Length: +0", false),
        ("GET / HTTP/1.1\r\nHost : host.test", false),
        ("GET / HTTP/1.1\r\nHost: host.test\r\n folded: x", false),
        ("POST / HTTP/1.1\r\nHost: host.test\r\nContent-Length: 0", true),
    ] {
        let answer = inside.raw(&format!("{head}\r\nConnection: close\r\n\r\n")).await;
        assert_eq!(answer.starts_with("HTTP/1.1 200"), fine, "{head}: {answer}");
    }
    // Two lengths, and a request behind the shorter one: hyper goes by the chunks (RFC 9112, section 6.3), passes no length on, and reads no further.
    let smuggled = "GET /smuggled HTTP/1.1\r\nHost: host.test\r\nConnection: close\r\n\r\n";
    let both = format!(
        "POST /a HTTP/1.1\r\nHost: host.test\r\nContent-Length: {}\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{smuggled}",
        smuggled.len() + 5
    );
    let answer = inside.raw(&both).await;
    let (head, body) = answer.split_once("\r\n\r\n").expect("a body");
    assert!(head.contains("connection: close") && answer.matches("HTTP/1.1 ").count() == 1, "{answer}");
    assert!(body.starts_with("POST /a\n") && !body.contains("length") && !body.contains("smuggled"), "{answer}");
}

#[tokio::test]
async fn what_is_for_one_connection_is_not_passed_on() {
    let inside = Inside::new(Outside::new("host.test", H1, echo()));
    let request = "GET / HTTP/1.1\r\nHost: host.test\r\nConnection: close, X-Hop, Host\r\nX-Hop: 1\r\nKeep-Alive: 5\r\n\
                   Proxy-Connection: x\r\nUpgrade: h2c\r\nTE: gzip\r\nExpect: 100-continue\r\nX-End: 1\r\n\r\n";
    let answer = inside.raw(request).await;
    for gone in ["x-hop", "keep-alive", "proxy-connection", "upgrade", "te:", "expect", "connection:"] {
        let body = answer.split_once("\r\n\r\n").expect("a body").1;
        assert!(!body.contains(gone), "{gone}: {answer}");
    }
    assert!(answer.contains("x-end: 1\n") && answer.contains("host: host.test\n"), "{answer}");
}

#[tokio::test]
async fn the_client_is_asked_for_its_body_after_the_request_was_let_pass() {
    let mut outside = Outside::new("host.test", H1, echo());
    outside.allow = Box::new(|asked| match asked.path {
        [only] if only == "good" => Decision::Pass,
        _ => Decision::Deny("no".into()),
    });
    let inside = Inside::new(outside);
    for (path, first) in [("good", "HTTP/1.1 100 Continue"), ("bad", "HTTP/1.1 403 Forbidden")] {
        let mut tls = inside.tls(H1).await;
        let head = format!(
            "POST /{path} HTTP/1.1\r\nHost: host.test\r\nContent-Length: 5\r\nExpect: 100-continue\r\nConnection: close\r\n\r\n"
        );
        tls.write_all(head.as_bytes()).await.expect("written");
        let mut line = vec![0; first.len()];
        tls.read_exact(&mut line).await.expect("an answer");
        assert_eq!(String::from_utf8_lossy(&line), first);
        if path == "good" {
            tls.write_all(b"12345").await.expect("written");
            let mut rest = String::new();
            tls.read_to_string(&mut rest).await.expect("the rest");
            assert!(rest.contains("HTTP/1.1 200 OK") && rest.ends_with("12345"), "{rest}");
        }
    }
}

#[tokio::test]
async fn heads_alone_have_the_length_of_the_body() {
    for (client, upstream) in PAIRS {
        let inside = Inside::new(Outside::new(
            "host.test",
            upstream,
            site(|_| async {
                hyper::Response::builder().header("content-length", "12345").body(full("")).expect("an answer")
            }),
        ));
        let request = Request::head("https://host.test/").body(full("")).expect("a request");
        let answer = inside.client(client).await.send(request).await;
        assert_eq!(answer.headers()["content-length"], "12345");
        use http_body_util::BodyExt;
        assert!(answer.into_body().collect().await.expect("a body").to_bytes().is_empty());
    }
}

#[tokio::test]
async fn redirects_go_to_the_client_and_other_ways_to_nobody() {
    let redirect = site(|_| async {
        let answer = hyper::Response::builder().status(302).header("location", "https://other.test/x");
        answer.header("alt-svc", "h3=\":443\"").header("x-cellblock", "denied").body(full("")).expect("an answer")
    });
    let inside = Inside::new(Outside::new("host.test", H2, redirect));
    let answer = inside.client(H1).await.send(get("https://host.test/")).await;
    assert_eq!(
        (answer.status().as_u16(), &answer.headers()["location"]),
        (302, &"https://other.test/x".parse().expect("a value"))
    );
    assert!(!answer.headers().contains_key("alt-svc") && !answer.headers().contains_key("x-cellblock"));
    assert_eq!(inside.outside.dials(), 1);
}

#[tokio::test]
async fn upstream_has_to_prove_who_it_is() {
    for (certified, dead, words) in [
        ("host.test", false, None),
        ("other.test", false, Some("has no certificate for this name")),
        ("host.test", true, Some("cannot be reached: connection refused")),
    ] {
        let mut outside = Outside::new(certified, H2, echo());
        outside.dead = dead;
        let inside = Inside::new(outside);
        let (status, mark, text) = inside.client(H2).await.get("https://host.test/").await;
        let Some(words) = words else {
            assert_eq!((status, mark.as_str()), (200, ""), "the twin");
            continue;
        };
        assert_eq!((status, mark.as_str()), (502, "unanswered"));
        assert!(text.starts_with(&format!("cellblock: host.test {words}")), "{text}");
        assert!(inside.outside.events()[0].contains("Unanswered"));
    }
}

#[tokio::test]
async fn an_authority_that_the_host_does_not_trust_is_not_trusted() {
    let stranger = Outside::new("host.test", H1, echo());
    let mut outside = Outside::new("host.test", H1, echo());
    outside.roots = stranger.roots;
    let inside = Inside::new(outside);
    let (status, _, text) = inside.client(H1).await.get("https://host.test/").await;
    assert!(status == 502 && text.contains("has no certificate"), "{text}");
}

#[tokio::test]
async fn a_connection_that_upstream_closed_is_not_used_again() {
    let closing = site(|_| async {
        hyper::Response::builder().header("connection", "close").body(full("x")).expect("an answer")
    });
    let inside = Inside::new(Outside::new("host.test", H1, closing));
    let mut client = inside.client(H1).await;
    for _ in 0..3 {
        let (status, _, text) = client.get("https://host.test/").await;
        assert_eq!((status, text.as_str()), (200, "x"));
    }
    assert_eq!(inside.outside.dials(), 3);
}
