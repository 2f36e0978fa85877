use super::head::tests::{named, refused, taken, with};
use super::*;

/// What a caller sees who gets the bytes in `pieces` and lets everything through; an upgrade is answered in HTTP.
fn steps<'b>(pieces: impl Iterator<Item = &'b [u8]>) -> (Vec<Result<Next, HttpError>>, usize, u64) {
    let (mut requests, mut steps, mut held, mut owed) = (Requests::default(), Vec::new(), Vec::new(), 0_u64);
    for piece in pieces {
        held.extend_from_slice(piece);
        loop {
            let gone = held.len().min(usize::try_from(owed).unwrap_or(usize::MAX));
            held.drain(..gone);
            owed -= gone as u64;
            if owed > 0 {
                break;
            }
            let next = requests.next(&held);
            match &next {
                Ok(Next::More) => break,
                Ok(Next::Head(head)) => owed = head.length as u64,
                Ok(Next::Body(length)) => owed = *length,
                Ok(Next::Upgrade) => requests.stays(),
                Err(error) => {
                    assert_eq!(requests.next(b""), Err(error.clone()), "no way on after an error");
                    steps.push(next);
                    return (steps, 0, 0);
                }
            }
            if let Ok(Next::Head(head)) = &next {
                assert!(head.length <= held.len() && head.length <= MAX);
            }
            steps.push(next);
        }
    }
    (steps, held.len(), owed)
}

fn all(bytes: &[u8]) -> Vec<Result<Next, HttpError>> {
    steps([bytes].into_iter()).0
}

fn lengths(bytes: &[u8]) -> Vec<u64> {
    let length = |step: Result<Next, HttpError>| match step.expect("a step") {
        Next::Head(head) => head.length as u64,
        Next::Body(length) => length,
        other => panic!("{other:?}"),
    };
    all(bytes).into_iter().map(length).collect()
}

#[test]
fn every_request_of_a_connection_is_seen() {
    let one = b"GET /1 HTTP/1.1\r\nHost: a.test\r\n\r\n";
    let two =
        b"POST /2 HTTP/1.1\r\nHost: b.test\r\nContent-Length: 39\r\n\r\nGET /body HTTP/1.1\r\nHost: evil.test\r\n\r\n";
    let three = b"PUT /3 HTTP/1.1\r\nHost: c.test\r\nTransfer-Encoding: chunked\r\n\r\n19;x=\"y\"\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n0\r\nDigest: x\r\n\r\n";
    let four = b"HEAD /4 HTTP/1.1\r\nHost: d.test\r\nContent-Length: 0\r\n\r\n";
    let bytes = [&one[..], two, three, four, b"GET /5"].concat();
    let (steps, held, owed) = steps([&bytes[..]].into_iter());
    let seen: Vec<_> = steps
        .into_iter()
        .map(|step| match step.expect("a step") {
            Next::Head(head) => format!("{} {:?}", head.method, head.host),
            Next::Body(length) => format!("{length}"),
            other => format!("{other:?}"),
        })
        .collect();
    let host = |method: &str, name: &str| format!("{method} {:?}", named(name));
    let expected = [
        host("GET", "a.test"),
        host("POST", "b.test"),
        "39".into(),
        host("PUT", "c.test"),
        "35".into(),
        "5".into(),
        "13".into(),
        host("HEAD", "d.test"),
    ];
    assert_eq!(seen, expected);
    assert_eq!((held, owed), (6, 0));
}

#[test]
fn bodies_go_on_unread() {
    let mut requests = Requests::default();
    let head = with("Content-Length: 5000000000\r\n\r\n");
    assert!(matches!(requests.next(head.as_bytes()), Ok(Next::Head(_))));
    assert_eq!(requests.next(b""), Ok(Next::Body(5_000_000_000)), "before any of it has come");
    assert_eq!(requests.next(b"GET / H"), Ok(Next::More));
    assert_eq!(requests.next(b"GET / HTTP/1.1\r\nHost: b.test\n"), Err(HttpError::LineEnd));
    assert_eq!(requests.next(b"GET / HTTP/1.1\r\nHost: b.test\r\n\r\n"), Err(HttpError::LineEnd), "for good");
}

#[test]
fn chunks() {
    let head = with("Transfer-Encoding: chunked\r\n\r\n");
    let length = head.len() as u64;
    let chunks = |body: &str| [head.as_bytes(), body.as_bytes()].concat();
    assert_eq!(lengths(&chunks("0\r\n\r\n")), [length, 3, 2]);
    assert_eq!(lengths(&chunks("5\r\nhello\r\n0005;x\r\nhello\r\n0\r\nA: b\r\nC: d\r\n\r\n")), [length, 8, 15, 5, 14]);
    assert_eq!(lengths(&chunks("7fffffffffffffff\r\n")), [length, i64::MAX as u64 + 18], "as much as is there goes on");
    assert_eq!(lengths(&chunks("aB\r\n")), [length, 0xab + 4]);
    let longest = format!("1;{}\r\nx\r\n", "e".repeat(255));
    assert_eq!(lengths(&chunks(&longest))[1], 260);

    let error = |body: &str| all(&chunks(body)).pop().expect("a step").expect_err(body);
    for line in [
        "\r\n",
        ";x\r\n",
        "g\r\n",
        "0x5\r\n",
        "+5\r\n",
        "-5\r\n",
        " 5\r\n",
        "5 \r\n",
        "5 ;x\r\n",
        "5\t\r\n",
        "5\n",
        "5\r",
        "5\rx",
        "5;\n",
        "5;x\nx\r\n",
        "5;x\rx\r\n",
        "5;x\0\r\n",
        "5;\u{e9}\r\n",
        "5,5\r\n",
        "8000000000000000\r\n",
        "ffffffffffffffff\r\n",
        "00000000000000005\r\n",
        "10000000000000005\r\n",
        "5\r\nhello0\r\n",
        "5\r\nhello\n0\r\n",
        "5\r\nhello\rx",
        "5\r\nhello!\r\n",
        "\u{665}\r\n",
    ] {
        if line == "5\r" {
            assert_eq!(lengths(&chunks(line)), [length], "not over yet");
        } else {
            assert_eq!(error(line), HttpError::Chunk, "{line:?}");
        }
    }
    assert_eq!(error(&format!("1;{}", "e".repeat(256))), HttpError::Chunk);
}

#[test]
fn trailers_are_fields() {
    let error = |trailers: &str| {
        all(format!("{}0\r\n{trailers}", with("Transfer-Encoding: chunked\r\n\r\n")).as_bytes())
            .pop()
            .expect("a step")
            .expect_err(trailers)
    };
    for name in ["Host", "content-length", "Transfer-Encoding", "Connection", "UPGRADE"] {
        assert_eq!(error(&format!("A: b\r\n{name}: x\r\n\r\n")), HttpError::Trailer, "{name}");
    }
    assert_eq!(error("Content_Length: 5\r\n\r\n"), HttpError::Lookalike("content-length"));
    assert_eq!(error("GET / HTTP/1.1\r\n"), HttpError::Field);
    for trailers in ["A : b\r\n\r\n", "A: b\r\n c\r\n\r\n", "A: \0\r\n\r\n", "A\r\n\r\n", "\0"] {
        assert_eq!(error(trailers), HttpError::Field, "{trailers:?}");
    }
    for trailers in ["\n", "\rx", "A: b\n\r\n", "A: b\r\n\n", "A: b\r\n\rx"] {
        assert_eq!(error(trailers), HttpError::LineEnd, "{trailers:?}");
    }
    assert_eq!(error(&"A: b\r\n".repeat(MAX_FIELDS + 1)), HttpError::TooMany);
    assert_eq!(error(&format!("A: {}", "b".repeat(MAX))), HttpError::TooLong);
}

const UPGRADE: &str = "GET /ws HTTP/1.1\r\nHost: a.test\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n";

#[test]
fn an_upgrade_waits_for_its_answer() {
    let mut requests = Requests::default();
    let bytes = format!("{UPGRADE}Content-Length: 2\r\n\r\n");
    assert!(matches!(requests.next(bytes.as_bytes()), Ok(Next::Head(Head { upgrade: true, .. }))));
    requests.stays();
    assert_eq!(requests.next(b"xx"), Ok(Next::Body(2)), "an early answer does not cut the body short");
    assert_eq!(requests.next(b"\x81\x05hello"), Ok(Next::Upgrade));
    assert_eq!(requests.next(b""), Ok(Next::Upgrade), "until there is an answer");
    requests.stays();
    assert_eq!(requests.next(b"\x81\x05hello"), Err(HttpError::RequestLine));

    let plain = "GET / HTTP/1.1\r\nHost: a.test\r\n\r\n";
    let mut requests = Requests::default();
    assert!(matches!(requests.next(plain.as_bytes()), Ok(Next::Head(Head { upgrade: false, .. }))));
    assert_eq!(requests.next(format!("{UPGRADE}\r\n").as_bytes()), Err(HttpError::LateUpgrade));

    let lines = |fields: &str| taken(&with(fields)).upgrade;
    assert!(lines("Upgrade: a, b/2\r\nConnection: x\r\nConnection: UPGRADE"));
    assert!(!lines("Upgrade: websocket"));
    assert!(!lines("Connection: upgrade"));
    assert!(!lines("Upgrade: websocket\r\nConnection: xupgrade"));
    for protocol in ["h2c", "H2C", "websocket, h2c", "h2", "HTTP/2.0", "http", "TLS/1.0", "tls/1.3, websocket"] {
        assert_eq!(refused(&with(&format!("Connection: upgrade\r\nUpgrade: {protocol}"))), HttpError::Upgrade);
    }
    assert_eq!(refused(&with("Connection: x\r\nUpgrade: websocket\r\nUpgrade: h2c")), HttpError::Upgrade);
}

#[test]
fn a_denial_is_a_whole_answer() {
    let bytes = denial("GET of evil\u{1b}[2J.test is not allowed", "cellblock net allow é");
    assert_eq!(answer(&bytes).expect("an answer").map(|a| a.kind), Some(Kind::Stays));
    let text = String::from_utf8(bytes).expect("text");
    let (head, body) = text.split_once("\r\n\r\n").expect("a head");
    assert!(
        head.starts_with("HTTP/1.1 403 Forbidden\r\n") && head.contains("\r\nConnection: close\r\nX-Cellblock: denied")
    );
    assert!(head.contains(&format!("\r\nContent-Length: {}\r\n", body.len())));
    assert_eq!(body, "GET of evil\\u{1b}[2J.test is not allowed\ncellblock net allow é\n");
}

/// Streams of every kind of step, good and bad.
fn streams() -> Vec<Vec<u8>> {
    let chunked = with("Transfer-Encoding: chunked\r\n\r\n");
    let mut streams: Vec<Vec<u8>> = [
        "GET / HTTP/1.1\r\nHost: a.test\r\n\r\nPOST /x HTTP/1.1\r\nHost: b.test\r\nContent-Length: 3\r\n\r\nabcGET /y",
        &format!(
            "{chunked}3;e=f\r\nabc\r\n10\r\n0123456789abcdef\r\n0\r\nA: b\r\n\r\nGET / HTTP/1.1\r\nHost: [::1]\r\n\r\n"
        ),
        &format!("{chunked}0\r\n\r\n{chunked}3\r\nabc\n"),
        &format!("{chunked}0\r\nA: b\r\nHost: x\r\n\r\n"),
        &format!("{chunked}3\r\nabc\r\n12345678901234567\r\n"),
        &format!("{UPGRADE}\r\nGET http://a.test/ HTTP/1.1\r\nHost: a.test:80\r\n\r\n{UPGRADE}\r\n"),
        "GET / HTTP/1.1\r\nHost: a.test\r\nX: a\rb\r\nY\0: \r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a.test\nX\0\r\n\r\n",
        "GE\rT\0 / HTTP/1.1\r\n\r\n",
        "\r\nGET / HTTP/1.1\r\n",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "GET / HTTP/1.1\r\r\n",
        "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 99999\r\n\r\nshort",
    ]
    .iter()
    .map(|text| text.as_bytes().to_vec())
    .collect();
    streams.push(format!("GET / HTTP/1.1\r\nHost: a.test\r\n{}", "X: a\r\n".repeat(130)).into_bytes());
    streams
}

#[test]
fn how_the_bytes_come_changes_nothing() {
    for mut stream in streams() {
        // So that whatever waits is looked at in the end.
        stream.push(b'\n');
        let whole = steps([&stream[..]].into_iter());
        for piece in 1..8 {
            assert_eq!(
                steps(stream.chunks(piece)),
                whole,
                "pieces of {piece}: {:?}",
                stream.escape_ascii().to_string()
            );
        }
        for at in 0..stream.len() {
            let (front, back) = stream.split_at(at);
            assert_eq!(
                steps([front, back].into_iter()),
                whole,
                "split at {at}: {:?}",
                stream.escape_ascii().to_string()
            );
        }
    }
    // The limits, a few bytes around them at a time.
    let giant = [with("X: ").as_bytes(), &[b'a'; MAX]].concat();
    for at in MAX - 3..MAX + 3 {
        let (front, back) = giant.split_at(at);
        assert_eq!(steps([front, back].into_iter()), steps([&giant[..]].into_iter()));
    }
}

/// Every stream with each byte replaced by those that matter to some parser: no panic, and no difference by how they come.
#[test]
fn damaged_streams_are_harmless() {
    for stream in streams() {
        for at in 0..stream.len().min(300) {
            for value in b"\0\t\n\x0b\r ,-/:;@09afgAZ_\x7f\x80\xff" {
                let mut bytes = stream.clone();
                bytes[at] = *value;
                bytes.push(b'\n');
                let whole = steps([&bytes[..]].into_iter());
                let (front, back) = bytes.split_at(at + 1);
                assert_eq!(steps([front, back].into_iter()), whole, "{:?}", bytes.escape_ascii().to_string());
            }
        }
    }
}

#[test]
fn single_bytes_cost_little() {
    let head = with(&format!("X: {}", "a".repeat(MAX - 100)));
    let mut requests = Requests::default();
    let parsed = (0..head.len()).filter(|length| requests.due(&head.as_bytes()[..*length])).count();
    assert!((16..24).contains(&parsed), "{parsed} times");
    assert_eq!(requests.next(format!("{head}\r\n\r\n").as_bytes()).map(|next| matches!(next, Next::Head(_))), Ok(true));
    // The next head begins anew: its line ends lie before the end of this one, and bytes without any behind it.
    let (one, two) = (with("X: 0123456789012345678\r\n\r\n"), with("Content-Length: 9\r\n\r\n") + "no lines");
    let mut requests = Requests::default();
    for bytes in [one.as_bytes(), two.as_bytes()] {
        assert!(matches!(requests.next(bytes), Ok(Next::Head(_))));
    }
}
