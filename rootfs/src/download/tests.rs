//! Tests against a small HTTP server on a loopback port of its own, with a script of answers.
#![allow(clippy::disallowed_methods, reason = "tests may start threads: they start no container")]

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use super::*;

const BODY: &[u8] = b"the quick brown fox jumps over the lazy dog";

/// What the server does with a connection, after it has read the request.
type Answer = Box<dyn FnOnce(&mut TcpStream) -> io::Result<()> + Send>;

struct Server {
    url: String,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Server {
    /// Answers one connection after the other; then refuses.
    fn new(answers: Vec<Answer>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/file.tar.gz", listener.local_addr().unwrap());
        let requests = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&requests);
        std::thread::spawn(move || {
            for answer in answers {
                let Ok((mut stream, _)) = listener.accept() else { return };
                let mut request = String::new();
                let mut lines = BufReader::new(stream.try_clone().unwrap());
                while lines.read_line(&mut request).is_ok_and(|n| n > 2) {}
                log.lock().unwrap().push(request.to_ascii_lowercase());
                let _ = answer(&mut stream);
            }
        });
        Self { url, requests }
    }

    fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }
}

/// Sends the head of an answer and `body`, whatever length the head states.
fn answer(status: &str, headers: &str, body: &[u8]) -> Answer {
    let bytes = [format!("HTTP/1.1 {status}\r\nConnection: close\r\n{headers}\r\n").as_bytes(), body].concat();
    Box::new(move |stream| stream.write_all(&bytes))
}

fn whole(etag: &str) -> Answer {
    answer("200 OK", &format!("ETag: {etag}\r\nContent-Length: {}\r\n", BODY.len()), BODY)
}

fn cut(etag: &str, at: usize) -> Answer {
    answer("200 OK", &format!("ETag: {etag}\r\nContent-Length: {}\r\n", BODY.len()), &BODY[..at])
}

fn rest(etag: &str, from: usize) -> Answer {
    let range = format!("Content-Range: bytes {from}-{}/{}\r\n", BODY.len() - 1, BODY.len());
    let length = format!("Content-Length: {}\r\n", BODY.len() - from);
    answer("206 Partial Content", &format!("ETag: {etag}\r\n{range}{length}"), &BODY[from..])
}

struct World {
    dir: tempfile::TempDir,
    fetcher: Fetcher,
}

impl World {
    fn new(tries: u32) -> Self {
        let settings = Settings {
            connect: Duration::from_secs(5),
            silence: Duration::from_millis(300),
            tries,
            backoff: Duration::from_millis(5),
            ..Settings::standard()
        };
        Self { dir: tempfile::tempdir().unwrap(), fetcher: Fetcher::new(settings).unwrap() }
    }

    fn file(&self) -> PathBuf {
        self.dir.path().join("file")
    }

    fn fetch_as(&self, url: &str, expect: Expect, limit: u64) -> Result<Fetched, FetchError> {
        self.fetcher.fetch(url, &self.file(), expect, limit, &mut |_, _| {})
    }

    fn fetch(&self, url: &str) -> Result<Fetched, FetchError> {
        self.fetch_as(url, Expect::Digest(Digest::of(BODY)), 1000)
    }

    fn left(&self) -> Vec<String> {
        let names = fs::read_dir(self.dir.path()).unwrap();
        let mut names: Vec<_> = names.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    fn assert_fetched(&self) {
        assert_eq!(fs::read(self.file()).unwrap(), BODY);
        assert_eq!(self.left(), ["file"]);
    }
}

#[test]
fn a_whole_file_with_its_progress() {
    let world = World::new(1);
    let server = Server::new(vec![whole("\"1\"")]);
    let mut seen = Vec::new();
    let expect = Expect::Digest(Digest::of(BODY));
    let fetched = world
        .fetcher
        .fetch(&server.url, &world.file(), expect, 1000, &mut |done, total| seen.push((done, total)))
        .unwrap();
    assert_eq!(fetched, Fetched { digest: Digest::of(BODY), size: BODY.len() as u64 });
    assert_eq!(seen.first(), Some(&(0, Some(43))));
    assert_eq!(seen.last(), Some(&(43, Some(43))));
    world.assert_fetched();
    let requests = server.requests();
    assert!(requests[0].contains("accept-encoding: identity") && !requests[0].contains("range:"), "{requests:?}");
    // Nobody answers any more: what is there and right is not fetched again.
    world.fetch(&server.url).unwrap();
}

#[test]
fn a_cut_connection_goes_on_where_it_broke() {
    let world = World::new(2);
    let server = Server::new(vec![cut("\"1\"", 10), rest("\"1\"", 10)]);
    world.fetch(&server.url).unwrap();
    world.assert_fetched();
    let second = &server.requests()[1];
    assert!(second.contains("range: bytes=10-") && second.contains("if-range: \"1\""), "{second}");
}

#[test]
fn the_next_run_goes_on_where_the_last_one_stopped() {
    let world = World::new(1);
    let server = Server::new(vec![cut("\"1\"", 10), rest("\"1\"", 10)]);
    let error = world.fetch(&server.url).unwrap_err();
    assert!(matches!(error, FetchError::Cut { have: 10, total: Some(43), .. }), "{error:?}");
    assert_eq!(world.left(), ["file.part", "file.part.json"]);
    world.fetch(&server.url).unwrap();
    world.assert_fetched();
    assert!(server.requests()[1].contains("if-range: \"1\""));
}

#[test]
fn a_file_that_changed_in_between_comes_anew() {
    let world = World::new(2);
    let server =
        Server::new(vec![answer("200 OK", "ETag: \"old\"\r\nContent-Length: 9\r\n", b"OLD"), whole("\"new\"")]);
    world.fetch(&server.url).unwrap();
    world.assert_fetched();
    assert!(server.requests()[1].contains("if-range: \"old\""));
}

#[test]
fn a_server_that_mixes_two_versions_is_asked_for_the_whole() {
    let world = World::new(1);
    // What the first run left is of another version, and the server ignores If-Range.
    let server = Server::new(vec![
        answer("200 OK", "ETag: \"1\"\r\nContent-Length: 43\r\n", b"XXXXXXXXXX"),
        rest("\"2\"", 10),
        whole("\"2\""),
    ]);
    world.fetch(&server.url).unwrap_err();
    world.fetch(&server.url).unwrap();
    world.assert_fetched();
    assert!(!server.requests()[2].contains("range:"));
}

#[test]
fn answers_that_do_not_fit_what_is_here_are_not_appended() {
    for misfit in [rest("\"1\"", 20), answer("416 Range Not Satisfiable", "Content-Length: 0\r\n", b"")] {
        let world = World::new(2);
        let server = Server::new(vec![cut("\"1\"", 10), misfit, whole("\"1\"")]);
        world.fetch(&server.url).unwrap();
        world.assert_fetched();
    }
}

#[test]
fn a_part_of_another_url_is_not_continued() {
    let world = World::new(1);
    let server = Server::new(vec![cut("\"1\"", 10)]);
    world.fetch(&server.url).unwrap_err();
    let other = Server::new(vec![whole("\"1\"")]);
    world.fetch(&other.url).unwrap();
    assert!(!other.requests()[0].contains("range:"));
}

#[test]
fn a_wrong_checksum_leaves_nothing() {
    let world = World::new(3);
    let server = Server::new(vec![whole("\"1\"")]);
    let expected = Digest::of(b"something else");
    let error = world.fetch_as(&server.url, Expect::Digest(expected), 1000).unwrap_err();
    assert!(matches!(error, FetchError::Checksum { expected: e, got, .. } if e == expected && got == Digest::of(BODY)));
    assert!(world.left().is_empty(), "{:?}", world.left());
}

#[test]
fn what_is_not_there_is_told_at_once() {
    let world = World::new(3);
    let server = Server::new(vec![answer("404 Not Found", "Content-Length: 0\r\n", b"")]);
    assert!(matches!(world.fetch(&server.url), Err(FetchError::NotFound { .. })));
    assert!(world.left().is_empty());
    let forbidden = Server::new(vec![answer("403 Forbidden", "Content-Length: 0\r\n", b"")]);
    assert!(matches!(world.fetch(&forbidden.url), Err(FetchError::Status { status: 403, .. })));
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    assert!(matches!(world.fetch(&format!("http://{closed}/x")), Err(FetchError::Unreachable { .. })));
    assert!(matches!(world.fetch("http://name.invalid/x"), Err(FetchError::Unreachable { .. })));
}

#[test]
fn a_server_in_trouble_is_asked_again() {
    let world = World::new(2);
    let server = Server::new(vec![answer("503 Service Unavailable", "Content-Length: 0\r\n", b""), whole("\"1\"")]);
    world.fetch(&server.url).unwrap();
    world.assert_fetched();
}

#[test]
fn redirects_are_followed_but_not_to_plain_http_without_a_checksum() {
    let world = World::new(1);
    let target = Server::new(vec![whole("\"1\"")]);
    let first =
        Server::new(vec![answer("302 Found", &format!("Location: {}\r\nContent-Length: 0\r\n", target.url), b"")]);
    world.fetch(&first.url).unwrap();
    world.assert_fetched();
    let error = world.fetch_as(&target.url, Expect::Https, 1000).unwrap_err();
    assert!(matches!(error, FetchError::NotEncrypted { .. }), "{error:?}");
    assert!(matches!(world.fetcher.text(&target.url), Err(FetchError::NotEncrypted { .. })));
}

#[test]
fn a_silent_server_is_given_up() {
    let silent = || -> Answer {
        Box::new(|stream| {
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 43\r\n\r\nthe")?;
            std::thread::sleep(Duration::from_secs(2));
            Ok(())
        })
    };
    let mute = || -> Answer {
        Box::new(|_| {
            std::thread::sleep(Duration::from_secs(2));
            Ok(())
        })
    };
    for answer in [silent(), mute()] {
        let world = World::new(1);
        let server = Server::new(vec![answer]);
        let start = Instant::now();
        let error = world.fetch(&server.url).unwrap_err();
        assert!(matches!(error, FetchError::Silent { .. }), "{error:?}");
        assert!(start.elapsed() < Duration::from_millis(1500));
    }
}

#[test]
fn a_trickling_server_is_given_up() {
    let world = World::new(1);
    let server = Server::new(vec![Box::new(|stream| {
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 43\r\n\r\n")?;
        for byte in BODY {
            stream.write_all(&[*byte])?;
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    })]);
    let error = world.fetch(&server.url).unwrap_err();
    assert!(matches!(error, FetchError::Silent { .. }), "{error:?}");
}

#[test]
fn an_endless_body_ends_at_the_limit() {
    let endless = || -> Answer {
        Box::new(|stream| {
            stream.write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")?;
            loop {
                stream.write_all(&[0; 4096])?;
            }
        })
    };
    let stated = answer("200 OK", "Content-Length: 99999999\r\n", b"x");
    for answer in [endless(), stated] {
        let world = World::new(3);
        let server = Server::new(vec![answer]);
        let error = world.fetch(&server.url).unwrap_err();
        assert!(matches!(error, FetchError::TooLarge { limit: 1000, .. }), "{error:?}");
        assert!(world.left().is_empty(), "{:?}", world.left());
    }
}

#[test]
fn small_texts_are_bounded_too() {
    let world = World::new(1);
    let text = |body: &[u8]| {
        let server = Server::new(vec![answer("200 OK", "", body)]);
        world.fetcher.text_by(&server.url, Expect::Digest(Digest::of(b"")))
    };
    assert_eq!(text(b"hello").unwrap(), b"hello");
    assert!(matches!(text(&vec![0; 2 << 20]), Err(FetchError::TooLarge { .. })));
}

#[test]
fn two_fetchers_of_one_file_do_not_mix() {
    let world = World::new(1);
    let server = Server::new(vec![whole("\"1\"")]);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| world.fetch(&server.url).unwrap());
        }
    });
    world.assert_fetched();
    assert_eq!(server.requests().len(), 1);
}

#[test]
fn a_proxy_gets_the_requests_but_those_it_is_not_for() {
    // Plain http goes through a tunnel too (CONNECT): the request proper comes after it.
    let tunnel: Answer = Box::new(|stream| {
        stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n")?;
        let _ = stream.read(&mut [0; 4096])?;
        whole("\"1\"")(stream)
    });
    let proxy = Server::new(vec![tunnel]);
    let address = proxy.url.trim_end_matches("/file.tar.gz");
    let settings = |no_proxy: Option<&str>| Settings {
        proxy: Some(address.to_owned()),
        no_proxy: no_proxy.map(str::to_owned),
        ..Settings::standard()
    };
    let dir = tempfile::tempdir().unwrap();
    let get = |settings, url: &str, name: &str| {
        let expect = Expect::Digest(Digest::of(BODY));
        Fetcher::new(settings).unwrap().fetch(url, &dir.path().join(name), expect, 1000, &mut |_, _| {})
    };
    let direct = Server::new(vec![whole("\"1\"")]);
    get(settings(Some("example.org, 127.0.0.1")), &direct.url, "a").unwrap();
    assert_eq!((direct.requests().len(), proxy.requests().len()), (1, 0));
    get(settings(Some("example.org")), "http://name.invalid/x", "b").unwrap();
    assert!(proxy.requests()[0].starts_with("connect name.invalid:80 "), "{:?}", proxy.requests());
    let bad = Settings { proxy: Some("::".into()), ..Settings::standard() };
    assert!(matches!(Fetcher::new(bad), Err(FetchError::Proxy)));
}

#[test]
fn certificates_that_are_asked_for_must_be_there() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("ca.pem");
    let with = || Fetcher::new(Settings { certificates: Some(file.clone()), ..Settings::standard() });
    assert!(matches!(with(), Err(FetchError::Certificates { .. })));
    fs::write(&file, "no certificate").unwrap();
    assert!(matches!(with(), Err(FetchError::Certificates { .. })));
}
