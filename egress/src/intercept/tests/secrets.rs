//! Secrets: where they go, and where they do not.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hyper::Request;
use hyper::header::{HeaderMap, HeaderValue};

use super::super::*;
use super::support::*;

const VALUE: &str = "sesame-1234567890";

fn secret(host: &str, header: &str) -> Secret {
    Secret::new(host.parse().expect("a pattern"), header, VALUE.into()).expect("a secret")
}

/// The cell, and the placeholder of its secret for `host`.
fn cell(outside: Outside, host: &str) -> (Inside, String) {
    let secret = secret(host, "authorization");
    let placeholder = secret.placeholder().to_owned();
    (Inside::with(outside, "host.test", vec![secret]), placeholder)
}

fn with(header: &str, value: &str) -> Request<AnyBody> {
    Request::get("https://host.test/").header(header, value).body(full("")).expect("a request")
}

#[tokio::test]
async fn the_placeholder_becomes_the_secret() {
    for version in [H1, H2] {
        let (inside, placeholder) = cell(Outside::new("host.test", version, echo()), "host.test");
        let mut client = inside.client(version).await;
        for form in ["{}", "Bearer {}", "token {} {}"] {
            let asked = with("authorization", &form.replace("{}", &placeholder));
            let (_, _, text) = client.text(asked).await;
            assert!(text.contains(&format!("\nauthorization: {}\n", form.replace("{}", VALUE))), "{text}");
            assert_eq!(text.matches("authorization").count(), 1, "replaced, not appended: {text}");
            assert!(!text.contains(&placeholder));
        }
        let basic = |password: &str| format!("Basic {}", STANDARD.encode(format!("user:{password}")));
        let (_, _, text) = client.text(with("authorization", &basic(&placeholder))).await;
        assert!(text.contains(&format!("authorization: {}\n", basic(VALUE))), "{text}");
    }
}

#[tokio::test]
async fn without_the_placeholder_nothing_is_added() {
    let (inside, placeholder) = cell(Outside::new("host.test", H1, echo()), "host.test");
    let mut client = inside.client(H1).await;
    let (_, _, text) = client.get("https://host.test/").await;
    assert!(!text.contains("authorization") && !text.contains(VALUE), "{text}");
    for own in ["Bearer own", "Basic eDp5", "Basic !!", "Basic", "cellblock-00000000000000000000000000000000"] {
        let (_, _, text) = client.text(with("authorization", own)).await;
        assert!(text.contains(&format!("authorization: {own}\n")) && !text.contains(VALUE), "{text}");
    }
    // In another header, in the query, in the body: it is only a text.
    let (_, _, text) = client.text(with("x-other", &placeholder)).await;
    assert!(text.contains(&format!("x-other: {placeholder}\n")) && !text.contains(VALUE), "{text}");
    let request = Request::post(format!("https://host.test/{placeholder}?q={placeholder}"));
    let (_, _, text) = client.text(request.body(full(placeholder.clone())).expect("a request")).await;
    assert_eq!(text.matches(&placeholder).count(), 3);
    assert!(!text.contains(VALUE), "{text}");
}

#[tokio::test]
async fn another_host_gets_the_placeholder() {
    for (host, goes) in [("other.test", false), ("*.host.test", false), ("host.test", true)] {
        let (inside, placeholder) = cell(Outside::new("host.test", H2, echo()), host);
        assert_eq!(inside.interceptor.has_secret_for(&name("host.test")), goes);
        let (_, _, text) = inside.client(H2).await.text(with("authorization", &placeholder)).await;
        assert_eq!((text.contains(VALUE), text.contains(&placeholder)), (goes, !goes), "{host}: {text}");
    }
}

#[tokio::test]
async fn nobody_unverified_and_nothing_refused_gets_it() {
    let mut denying = Outside::new("host.test", H1, echo());
    denying.allow = Box::new(|_| Decision::Deny("no".into()));
    let mut dead = Outside::new("host.test", H1, echo());
    dead.dead = true;
    for (outside, status) in [
        (Outside::new("other.test", H1, echo()), 502),
        (dead, 502),
        (denying, 403),
        (Outside::new("host.test", H1, echo()), 200),
    ] {
        let (inside, placeholder) = cell(outside, "host.test");
        let answer = inside.client(H1).await.text(with("authorization", &placeholder)).await;
        assert_eq!(answer.0, status);
        let used = inside.outside.events().iter().any(|e| e.contains("SecretUsed"));
        assert_eq!((answer.2.contains(VALUE), used), (status == 200, status == 200), "{answer:?}");
        let all = format!("{:?} {:?}", inside.outside.events(), inside.interceptor);
        assert!(!all.contains(VALUE) && all.contains("***"), "{all}");
    }
}

#[tokio::test]
async fn an_upstream_that_breaks_off_tells_nothing() {
    // Speaks no HTTP after the handshake: an answer that is none.
    let broken = site(|_| async { panic!("breaks off") });
    let (inside, placeholder) = cell(Outside::new("host.test", H1, broken), "host.test");
    let (status, mark, text) = inside.client(H1).await.text(with("authorization", &placeholder)).await;
    assert_eq!((status, mark.as_str()), (502, "unanswered"));
    assert!(!text.contains(VALUE) && text.contains("gave no proper answer"), "{text}");
    assert!(!format!("{:?}", inside.outside.events()).contains(VALUE));
}

#[tokio::test]
async fn trace_does_not_ask_for_it() {
    let (inside, placeholder) = cell(Outside::new("host.test", H1, echo()), "host.test");
    let trace = Request::builder().method("TRACE").uri("https://host.test/").header("authorization", &placeholder);
    let answer = inside.client(H1).await.text(trace.body(full("")).expect("a request")).await;
    assert!(answer.0 == 403 && inside.outside.dials() == 0, "{answer:?}");
}

#[test]
fn every_value_of_the_header_is_looked_at() {
    let secret = secret("host.test", "X-Api-Key");
    let mut headers = HeaderMap::new();
    assert!(!secret.replace(&mut headers) && headers.is_empty());
    for value in ["own", secret.placeholder(), "x\u{e9}y"] {
        headers.append("x-api-key", HeaderValue::from_bytes(value.as_bytes()).expect("a value"));
    }
    // Only `Authorization` has a scheme.
    let basic = format!("Basic {}", STANDARD.encode(secret.placeholder()));
    headers.append("x-api-key", basic.parse().expect("a value"));
    assert!(secret.replace(&mut headers));
    let values: Vec<_> = headers.get_all("x-api-key").iter().map(HeaderValue::as_bytes).collect();
    assert_eq!(values, [b"own", VALUE.as_bytes(), "x\u{e9}y".as_bytes(), basic.as_bytes()]);
    assert!(!format!("{headers:?}").contains(VALUE), "sensitive");
}

#[test]
fn what_is_no_secret() {
    let new = |header: &str, value: &[u8]| Secret::new("host.test".parse().expect("a pattern"), header, value.to_vec());
    assert!(new("authorization", VALUE.as_bytes()).is_ok());
    let long = vec![b'a'; Secret::MAX + 1];
    for (header, value, error) in [
        ("x y", &b"v"[..], SecretError::Header("x y".into())),
        ("", b"v", SecretError::Header(String::new())),
        ("Host", b"v", SecretError::NotForSecrets("host".parse().expect("a name"))),
        ("transfer-encoding", b"v", SecretError::NotForSecrets("transfer-encoding".parse().expect("a name"))),
        ("x", b"", SecretError::Empty),
        ("x", b"v\n", SecretError::Control),
        ("x", b"v\r\nHost: y", SecretError::Control),
        ("x", b"\0", SecretError::Control),
        ("x", &long, SecretError::TooLong),
    ] {
        assert_eq!(new(header, value).map(|_| ()), Err(error), "{header}");
    }
    let (a, b) = (secret("host.test", "x"), secret("host.test", "x"));
    assert!(a.placeholder() != b.placeholder() && a.placeholder().len() == "cellblock-".len() + 32);
    let shown = format!("{a:?}");
    assert!(shown.contains("***") && !shown.contains(VALUE), "{shown}");
}
