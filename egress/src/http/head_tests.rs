use super::*;
use crate::policy::path::PathError;

/// The error of a request with these lines before the empty one.
pub(in crate::http) fn refused(lines: &str) -> HttpError {
    let bytes = format!("{lines}\r\n\r\n");
    head(bytes.as_bytes()).expect_err(lines)
}

/// The head of a request with these lines before the empty one.
pub(in crate::http) fn taken(lines: &str) -> Head {
    let bytes = format!("{lines}\r\n\r\nrest");
    let head = head(bytes.as_bytes()).expect(lines).expect(lines);
    assert_eq!(head.length, bytes.len() - 4);
    head
}

/// With these lines behind a good request line and Host.
pub(in crate::http) fn with(fields: &str) -> String {
    format!("POST /a HTTP/1.1\r\nHost: a.test\r\n{fields}")
}

pub(in crate::http) fn named(name: &str) -> Host {
    Host::Name(name.parse().expect("a name"))
}

#[test]
fn a_request_says_for_whom_it_is() {
    let head =
        taken("GET /simple/pip/?x=/../y HTTP/1.1\r\nhOST: \t Pypi.Org:8080 \r\nAccept: */*\r\nExpect: 100-continue");
    assert_eq!((head.method.as_str(), head.host, head.port), ("GET", named("pypi.org"), Some(8080)));
    assert_eq!(head.path, Ok(vec!["simple".to_owned(), "pip".to_owned(), String::new()]));
    assert_eq!((head.upgrade, head.body), (false, Body::None));
    for (host, address, port) in [
        ("203.0.113.7", "203.0.113.7", None),
        ("203.0.113.7:80", "203.0.113.7", Some(80)),
        ("[2001:DB8::1]", "2001:db8::1", None),
        ("[::1]:65535", "::1", Some(65535)),
    ] {
        let head = taken(&format!("GET / HTTP/1.0\r\nHost: {host}"));
        assert_eq!((head.host, head.port), (Host::Address(address.parse().expect("an address")), port), "{host}");
    }
}

#[test]
fn hosts_that_could_be_two_are_refused() {
    assert_eq!(refused("GET / HTTP/1.1\r\nAccept: a"), HttpError::NoHost);
    assert_eq!(refused("GET / HTTP/1.0"), HttpError::NoHost);
    assert_eq!(refused("GET http://a.test/ HTTP/1.1"), HttpError::NoHost);
    for second in ["a.test", "b.test", ""] {
        assert_eq!(refused(&with(&format!("HOST: {second}"))), HttpError::TwoHosts);
    }
    for host in [
        "",
        ":80",
        "a.test:",
        "a.test:0",
        "a.test:080",
        "a.test:65536",
        "a.test:+80",
        "a.test:80:80",
        "a.test: 80",
        "a.test.",
        "[::1",
        "::1",
        "[::1]x",
        "[::1%25lo]",
        "[a.test]",
        "[1.2.3.4]",
        "1.2.3.4.",
    ] {
        assert_eq!(refused(&format!("GET / HTTP/1.1\r\nHost: {host}")), HttpError::HostForm, "{host}");
    }
    assert_eq!(head(b"GET / HTTP/1.1\r\nHost: a\xff.test\r\n\r\n"), Err(HttpError::HostForm));
    for host in [
        "me@a.test",
        "a.test#",
        "a.test/",
        "a.test, b.test",
        "a.test b.test",
        "http//a.test",
        "*.test",
        "a..test",
        "127.1",
        "0x7f000001",
        "0177.0.0.1",
        "2130706433",
        "a%2etest",
        "a.test\\",
        "a.test?",
        "p\u{430}ypal.com",
    ] {
        assert!(matches!(refused(&format!("GET / HTTP/1.1\r\nHost: {host}")), HttpError::HostName(_)), "{host}");
    }
    for host in ["a\0.test", "a\u{7f}.test", "a.test\u{1b}", "\u{b}a.test"] {
        assert_eq!(refused(&format!("GET / HTTP/1.1\r\nHost: {host}")), HttpError::Field, "{host:?}");
    }
}

#[test]
fn targets() {
    let line = |target: &str, host: &str| format!("GET {target} HTTP/1.1\r\nHost: {host}");
    for (target, host, path) in [
        ("/", "a.test", Ok("/")),
        ("/?", "a.test", Ok("/")),
        ("http://a.test", "a.test", Ok("/")),
        ("HTTP://A.test?/x", "a.test:80", Ok("/")),
        ("http://a.test:80/b", "a.test", Ok("/b")),
        ("http://[::1]:8/b", "[::1]:8", Ok("/b")),
        ("http://1.2.3.4/b", "1.2.3.4", Ok("/b")),
        ("//b.test/", "a.test", Err(PathError::Dots)),
        ("/../b", "a.test", Err(PathError::Dots)),
        ("/@scope%2fname", "a.test", Ok("/@scope%2Fname")),
        ("/@scope%2f..", "a.test", Err(PathError::Dots)),
        ("/@scope%5cname", "a.test", Err(PathError::Encoding)),
    ] {
        let found = taken(&line(target, host)).path.map(|segments| format!("/{}", segments.join("/")));
        assert_eq!(found, path.map(str::to_owned), "{target}");
    }
    for (target, host) in [
        ("http://b.test/", "a.test"),
        ("http://a.test:8080/", "a.test"),
        ("http://a.test/", "a.test:8080"),
        ("http://1.2.3.4/", "a.test"),
    ] {
        assert_eq!(refused(&line(target, host)), HttpError::OtherHost, "{target}");
    }
    for target in [
        "https://a.test/",
        "ftp://a.test/",
        "a.test",
        "a.test:80",
        "*",
        "a/b",
        "?",
        "/#",
        "/a#b",
        "http:/a.test",
        "/\u{e9}",
        "/\u{85}x",
    ] {
        assert_eq!(refused(&line(target, "a.test")), HttpError::Target, "{target}");
    }
    assert_eq!(refused(&line("http://me@a.test/", "a.test")), HttpError::HostName(NameError::Character('@')));
    assert!(matches!(refused(&line("http://a.test\\@b.test/", "a.test")), HttpError::HostName(_)));
    assert_eq!(refused(&line("http:///", "a.test")), HttpError::HostForm);
    assert_eq!(taken("OPTIONS * HTTP/1.1\r\nHost: a.test").path, Err(PathError::Form));
}

#[test]
fn methods_and_versions() {
    for method in ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND", "M-SEARCH"] {
        assert_eq!(taken(&format!("{method} / HTTP/1.1\r\nHost: a.test")).method, method);
    }
    for method in ["TRACE", "CONNECT", "get", "connect", "Trace", "GET1", "G.T"] {
        assert_eq!(refused(&format!("{method} / HTTP/1.1\r\nHost: a.test")), HttpError::Method, "{method}");
    }
    assert_eq!(refused("CONNECT a.test:443 HTTP/1.1\r\nHost: a.test:443"), HttpError::Method);
    assert_eq!(head(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), Err(HttpError::Version), "HTTP/2 without an upgrade");
    for version in ["HTTP/2", "HTTP/1.2", "HTTP/0.9", "http/1.1", "HTTP/1,1", "HTTPS/1.1", "XTTP/1.1"] {
        assert_eq!(refused(&format!("GET / {version}\r\nHost: a.test")), HttpError::Version, "{version}");
    }
    for version in ["HTTP/1.1 ", "HTTP/1.11", "HTTP/1.1\t"] {
        assert_eq!(refused(&format!("GET / {version}\r\nHost: a.test")), HttpError::LineEnd, "{version}");
    }
    for line in [
        "GET /",
        "GET",
        " GET / HTTP/1.1",
        "GET  / HTTP/1.1",
        "GET\t/ HTTP/1.1",
        "G\u{e9}T / HTTP/1.1",
        "",
        "\x16\x03\x01",
        "\0",
    ] {
        assert_eq!(refused(&format!("{line}\r\nHost: a.test")), HttpError::RequestLine, "{line:?}");
    }
    assert_eq!(refused("GET /  HTTP/1.1\r\nHost: a.test"), HttpError::Version);
    assert_eq!(refused("GET / x HTTP/1.1\r\nHost: a.test"), HttpError::Version);
    assert_eq!(head(b"\x16\x03\x01\x02\0\x01"), Err(HttpError::RequestLine), "TLS, before any line ends");
}

#[test]
fn lines_and_fields_have_one_form() {
    for bytes in [
        &b"GET / HTTP/1.1\nHost: a.test\r\n\r\n"[..],
        b"GET / HTTP/1.1\r\nHost: a.test\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a.test\r\n\n",
        b"GET / HTTP/1.1\r\nHost: a.test\n\n",
        b"GET / HTTP/1.1\r\nHost: a.test\r\nX: a\nY: b\r\n\r\n",
        b"GET / HTTP/1.1\r\rHost: a.test\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a.test\r\n\rX",
        b"GET / HTTP/1.1\r\nHost: a.test\r\nX: a\rY: b\r\n\r\n",
    ] {
        assert_eq!(head(bytes), Err(HttpError::LineEnd), "{:?}", bytes.escape_ascii().to_string());
    }
    for line in [
        "X : a",
        "X\t: a",
        " X: a",
        "\tX: a",
        "X",
        ": a",
        "X Y: a",
        "X\0: a",
        "X: a\0b",
        "X: \x0b",
        "X: a\x7f",
        "X: a\x1fb",
        "X\u{e9}: a",
        "(X): a",
        "X[]: a",
        "\"X\": a",
        "X: a\r\n b",
        "X:\r\n b",
    ] {
        assert_eq!(refused(&with(line)), HttpError::Field, "{line:?}");
    }
    for line in [
        "Host : b.test",
        "Content-Length : 5",
        "Transfer-Encoding : chunked",
        "Transfer-Encoding\t: chunked",
        " Host: b.test",
    ] {
        assert_eq!(refused(&with(line)), HttpError::Field, "{line:?}");
    }
    for line in ["X:", "X:a", "X: \t a \t", "x-y_z.0!#$%&'*+^`|~: \u{e9}", "X: a\tb"] {
        taken(&with(line));
    }
    assert_eq!(
        head(b"\r\nGET / HTTP/1.1\r\nHost: a.test\r\n\r\n"),
        Err(HttpError::RequestLine),
        "an empty line in front"
    );
    assert_eq!(head(b"\nGET / HTTP/1.1\r\nHost: a.test\r\n\r\n"), Err(HttpError::RequestLine));
}

#[test]
fn a_head_has_its_limits() {
    let fields = |count: usize| with(&vec!["X: a"; count - 1].join("\r\n"));
    taken(&fields(MAX_FIELDS));
    assert_eq!(refused(&fields(MAX_FIELDS + 1)), HttpError::TooMany);
    let long = |length: usize| {
        let empty = with("X: \r\n\r\n").len();
        with(&format!("X: {}\r\n\r\n", "a".repeat(length - empty)))
    };
    assert_eq!(head(long(MAX).as_bytes()).map(|head| head.map(|h| h.length)), Ok(Some(MAX)));
    assert_eq!(head(long(MAX + 1).as_bytes()), Err(HttpError::TooLong));
    assert_eq!(head(&long(MAX + 1).as_bytes()[..MAX]), Err(HttpError::TooLong), "nothing more is read");
    assert_eq!(head(&long(MAX).as_bytes()[..MAX - 1]), Ok(None));
    assert_eq!(head(&[b'G'; MAX]), Err(HttpError::TooLong));
}

#[test]
fn a_body_has_one_length() {
    for (fields, body) in [
        ("Content-Length: 5", Body::Length(5)),
        ("content-length:0", Body::Length(0)),
        ("Content-Length: 9223372036854775807", Body::Length(i64::MAX as u64)),
        ("Transfer-Encoding: chunked", Body::Chunked),
        ("transfer-encoding:\tCHUNKED ", Body::Chunked),
    ] {
        assert_eq!(taken(&with(fields)).body, body, "{fields}");
    }
    for value in [
        "",
        "+5",
        "-5",
        "5,5",
        "5, 5",
        "5 5",
        "0x5",
        "5a",
        "05",
        "00",
        "9223372036854775808",
        "18446744073709551616",
        "99999999999999999999999",
        "\u{665}",
        "5.0",
        "1e3",
        "5;",
    ] {
        assert_eq!(refused(&with(&format!("Content-Length: {value}"))), HttpError::Length, "{value:?}");
    }
    assert_eq!(refused(&with("Content-Length: 5\r\nContent-Length: 5")), HttpError::Length);
    assert_eq!(refused(&with("Content-Length: 5\r\nCONTENT-LENGTH: 6")), HttpError::Length);
    for value in [
        "",
        "identity",
        "gzip",
        "gzip, chunked",
        "chunked, gzip",
        "chunked, identity",
        "chunked,",
        ",chunked",
        "chunked, chunked",
        "\"chunked\"",
        "'chunked'",
        "xchunked",
        "chunkedx",
        "chunked;q=1",
        "chunked\u{a0}",
        "chun ked",
    ] {
        assert_eq!(refused(&with(&format!("Transfer-Encoding: {value}"))), HttpError::Encoding, "{value:?}");
    }
    for fields in [
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
        "Transfer-Encoding: x\r\ntransfer-encoding: chunked",
    ] {
        assert_eq!(refused(&with(fields)), HttpError::Encoding, "{fields}");
    }
    assert_eq!(refused("POST / HTTP/1.0\r\nHost: a.test\r\nTransfer-Encoding: chunked"), HttpError::Encoding);
}

/// Each of these has fooled a pair of servers (the tables of PortSwigger's "HTTP Desync Attacks" and of RFC 9112, section 11.2).
#[test]
fn known_ways_to_smuggle() {
    for fields in ["Content-Length: 6\r\nTransfer-Encoding: chunked", "Transfer-Encoding: chunked\r\nContent-Length: 4"]
    {
        assert_eq!(refused(&with(fields)), HttpError::LengthAndEncoding, "{fields}");
    }
    assert_eq!(refused(&with("Content-Length: 4\r\nTransfer-Encoding: xchunked")), HttpError::LengthAndEncoding);
    for (fields, error) in [
        ("Transfer-Encoding : chunked", HttpError::Field),
        ("Transfer-Encoding:\x0bchunked", HttpError::Field),
        ("Transfer-Encoding:\x0cchunked", HttpError::Field),
        ("Transfer-Encoding: chunked\0", HttpError::Field),
        ("Transfer-Encoding\x0b: chunked", HttpError::Field),
        ("Transfer-Encoding\r\n : chunked", HttpError::Field),
        ("Transfer-Encoding:\r\n chunked", HttpError::Field),
        ("X: x\r\n\tTransfer-Encoding: chunked", HttpError::Field),
        ("X: x\nTransfer-Encoding: chunked", HttpError::LineEnd),
        ("X: x\rTransfer-Encoding: chunked", HttpError::LineEnd),
        ("Transfer-Encoding: chunk\rTransfer-Encoding: ed", HttpError::LineEnd),
        ("Transfer-Encoding; chunked", HttpError::Field),
        ("Transfer-Encoding chunked", HttpError::Field),
        ("Transfer_Encoding: chunked", HttpError::Lookalike("transfer-encoding")),
        ("Transfer.Encoding: chunked", HttpError::Lookalike("transfer-encoding")),
        ("Content_Length: 5", HttpError::Lookalike("content-length")),
        ("content~length: 5", HttpError::Lookalike("content-length")),
        ("Connection: Host", HttpError::Removes("host")),
        ("Connection: close, Content-Length", HttpError::Removes("content-length")),
        ("Connection: close\r\nConnection: x ,\ttransfer-encoding", HttpError::Removes("transfer-encoding")),
    ] {
        assert_eq!(refused(&with(fields)), error, "{fields:?}");
    }
    taken(&with("Connection: close, TE\r\nTE: trailers\r\nContent_Type: x\r\nX-Content-Length: 5"));
}

#[test]
fn answers_say_whether_they_switch() {
    for (line, kind) in [
        ("HTTP/1.1 101 Switching Protocols", Kind::Switches),
        ("HTTP/1.1 101 ", Kind::Switches),
        ("HTTP/1.1 101", Kind::Switches),
        ("HTTP/1.1 100 Continue", Kind::Interim),
        ("HTTP/1.1 103 Early Hints", Kind::Interim),
        ("HTTP/1.1 200 OK", Kind::Stays),
        ("HTTP/1.0 404 ", Kind::Stays),
        ("HTTP/1.1 599 \u{e9}", Kind::Stays),
    ] {
        let bytes = format!("{line}\r\nUpgrade: websocket\r\n\r\n");
        let behind = format!("{bytes}HTTP/1.1 101 x\r\n\r\n");
        let found = Answer { kind, length: bytes.len() };
        assert_eq!(answer(behind.as_bytes()), Ok(Some(found)), "{line}");
        for length in 0..bytes.len() {
            assert_eq!(answer(&bytes.as_bytes()[..length]), Ok(None), "{line}");
        }
    }
    for line in
        ["", "HTTP/1.1 1010 x", "HTTP/1.1 10", "HTTP/1.1 099 x", "HTTP/1.1 600 x", "HTTP/1.1 1O1 x", "HTTP/1.1 101x"]
    {
        assert_eq!(answer(format!("{line}\r\n\r\n").as_bytes()), Err(HttpError::Answer), "{line}");
    }
    for line in ["HTTP/2 101 x", "ICY 101 x", "SSH-2.0-x"] {
        assert_eq!(answer(format!("{line}\r\n\r\n").as_bytes()), Err(HttpError::Version), "{line}");
    }
    assert_eq!(answer(b"HTTP/1.1 101 x\n\n"), Err(HttpError::LineEnd));
    assert_eq!(answer(&[b"HTTP/1.1 101 x\r\nX: ", &[b'a'; MAX][..]].concat()), Err(HttpError::TooLong));
}
