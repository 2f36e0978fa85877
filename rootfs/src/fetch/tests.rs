//! Against a small HTTP server on a loopback port of its own.

#![allow(clippy::disallowed_methods, reason = "tests may start threads: they start no container")]

use super::*;
use std::net::{TcpListener, TcpStream};

const BODY: &[u8] = b"the quick brown fox jumps over the lazy dog";

fn sum() -> String {
    Sha256::digest(BODY).iter().map(|b| format!("{b:02x}")).collect()
}

/// Answers each connection with `answer(number, request)`, then closes it.
fn serve(answer: impl Fn(usize, &str) -> Vec<u8> + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    let url = format!("http://{}/file.tar.gz", listener.local_addr().expect("address"));
    std::thread::spawn(move || {
        for (number, stream) in listener.incoming().take(16).flatten().enumerate() {
            let _ = reply(stream, number, &answer);
        }
    });
    url
}

fn reply(mut stream: TcpStream, number: usize, answer: &impl Fn(usize, &str) -> Vec<u8>) -> io::Result<()> {
    let mut request = vec![0u8; 4096];
    let length = stream.read(&mut request)?;
    stream.write_all(&answer(number, &String::from_utf8_lossy(&request[..length]).to_lowercase()))
}

fn response(status: &str, length: usize, body: &[u8]) -> Vec<u8> {
    [format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n").as_bytes(), body].concat()
}

struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("cellblock-fetch-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).expect("mkdir");
        Self(path)
    }

    fn get(&self, url: &str, expected: &str) -> Result<Vec<u8>, FetchError> {
        let file = self.0.join("file");
        Fetcher::new(None).file(url, &file, expected, &mut |_, _| {})?;
        Ok(std::fs::read(file).expect("the file is there"))
    }

    fn left(&self) -> usize {
        std::fs::read_dir(&self.0).expect("folder").count()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        use std::os::fd::AsFd;
        let _ = File::open(std::env::temp_dir())
            .and_then(|t| cellblock_sys::tree::remove(t.as_fd(), self.0.file_name().unwrap_or_default()));
    }
}

#[test]
fn a_whole_file() {
    let url = serve(|_, _| response("200 OK", BODY.len(), BODY));
    assert_eq!(Scratch::new("whole").get(&url, &sum()).expect("fetched"), BODY);
}

#[test]
fn a_cut_connection_is_resumed_where_it_broke() {
    let url = serve(|number, request| match number {
        0 => response("200 OK", BODY.len(), &BODY[..10]),
        _ => {
            assert!(request.contains("range: bytes=10-"), "{request}");
            response("206 Partial Content", BODY.len() - 10, &BODY[10..])
        }
    });
    assert_eq!(Scratch::new("cut").get(&url, &sum()).expect("fetched"), BODY);
}

#[test]
fn a_server_without_ranges_starts_again() {
    let url = serve(|number, _| {
        if number == 0 { response("200 OK", BODY.len(), &BODY[..10]) } else { response("200 OK", BODY.len(), BODY) }
    });
    assert_eq!(Scratch::new("again").get(&url, &sum()).expect("fetched"), BODY);
}

#[test]
fn a_wrong_checksum_leaves_nothing() {
    let scratch = Scratch::new("sum");
    let url = serve(|_, _| response("200 OK", BODY.len(), BODY));
    let error = scratch.get(&url, &"0".repeat(64)).expect_err("refused");
    assert!(matches!(error, FetchError::Checksum { .. }), "{error}");
    assert_eq!(scratch.left(), 0);
}

#[test]
fn missing_and_unreachable() {
    let scratch = Scratch::new("missing");
    let url = serve(|_, _| response("404 Not Found", 0, b""));
    assert!(matches!(scratch.get(&url, &sum()), Err(FetchError::Status { status: 404, .. })));
    let closed =
        TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a port nobody listens on any more");
    assert!(matches!(scratch.get(&format!("http://{closed}/x"), &sum()), Err(FetchError::Network { .. })));
}
