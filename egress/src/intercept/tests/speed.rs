//! How fast it is. `cargo test --release -p cellblock-egress speed -- --ignored --nocapture`

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use http_body_util::BodyExt;
use hyper::Response;
use tokio::net::{TcpListener, TcpStream};

use super::super::*;
use super::support::*;

const CHUNKS: usize = 16 << 10;
const ROUNDS: usize = 1000;

/// Connections go through the kernel, as they do in earnest.
struct Loopback(SocketAddr);

impl Owner for Loopback {
    type Stream = TcpStream;

    async fn dial(&self) -> io::Result<TcpStream> {
        connect(self.0).await
    }

    fn decide(&self, _: &Asked<'_>) -> Decision {
        Decision::Pass
    }
}

async fn connect(to: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(to).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

async fn listen<F: Future<Output = ()> + Send + 'static>(
    serve: impl Fn(TcpStream) -> F + Send + 'static,
) -> SocketAddr {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            stream.set_nodelay(true).expect("set");
            tokio::spawn(serve(stream));
        }
    });
    address
}

/// Processor seconds of this process: the better measure where others use the processors too.
fn used() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").expect("stat");
    let fields: Vec<&str> = stat.rsplit(") ").next().expect("fields").split(' ').collect();
    // utime and stime in ticks of 10 ms: proc_pid_stat(5).
    fields[11..13].iter().map(|ticks| ticks.parse::<f64>().expect("a number") / 100.0).sum()
}

/// MB/s, and MB for each second of processor that client, interceptor and upstream used together.
async fn download(client: &mut Client) -> (f64, f64) {
    let (begin, before) = (Instant::now(), used());
    let mut body = client.send(get("https://host.test/big")).await.into_body();
    let mut read = 0;
    while let Some(frame) = body.frame().await {
        read += frame.expect("data").into_data().expect("data").len();
    }
    assert_eq!(read, CHUNKS << 16);
    let megabytes = read as f64 / 1e6;
    (megabytes / begin.elapsed().as_secs_f64(), megabytes / (used() - before))
}

/// Median and 99th percentile of the time until the first byte of an answer is there.
async fn first_byte(client: &mut Client) -> (Duration, Duration) {
    let mut all = Vec::with_capacity(ROUNDS);
    for _ in 0..ROUNDS {
        let begin = Instant::now();
        let mut body = client.send(get("https://host.test/small")).await.into_body();
        body.frame().await.expect("a frame").expect("data");
        all.push(begin.elapsed());
        body.collect().await.expect("the rest");
    }
    all.sort();
    (all[ROUNDS / 2], all[ROUNDS * 99 / 100])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "measures"]
async fn speed() {
    for version in [H1, H2] {
        let both = site(|request| async move {
            Response::new(if request.uri().path() == "/big" { Channel::big(CHUNKS).0 } else { full("data: x\n\n") })
        });
        let outside = Arc::new(Outside::new("host.test", version, both));
        let upstream = Arc::clone(&outside);
        let address =
            listen(move |stream| be_upstream(stream, Arc::clone(&upstream.config), Arc::clone(&upstream.site)));
        let address = address.await;
        let authority = Arc::new(Authority::new(&["host.test".parse().expect("a pattern")]).expect("an authority"));
        let interceptor = Interceptor::new(Arc::clone(&authority), &outside.roots, Vec::new()).expect("an interceptor");
        let (interceptor, owner) = (Arc::new(interceptor), Arc::new(Loopback(address)));
        let through = listen(move |stream| {
            let (interceptor, owner) = (Arc::clone(&interceptor), Arc::clone(&owner));
            let origin = Origin { name: name("host.test"), port: 443, paths: Paths::Normal };
            async move { interceptor.serve(stream, Bytes::new(), origin, owner).await.expect("served") }
        })
        .await;
        let host = ServerName::try_from("host.test").expect("a name");
        let mut clients = Vec::new();
        for (what, connector, to) in [
            ("direct", outside.roots.client(version).expect("a configuration").into(), address),
            ("through", trusting(&authority, version), through),
        ] {
            let begin = Instant::now();
            let tls = connector.connect(host.clone(), connect(to).await.expect("TCP")).await.expect("TLS");
            let mut client = Client::new(tls).await;
            client.get("https://host.test/small").await;
            clients.push((what, client, begin.elapsed()));
        }
        let protocol = String::from_utf8_lossy(version[0]);
        for round in 0..3 {
            for (what, client, connected) in &mut clients {
                let ((rate, each), (median, worst)) = (download(client).await, first_byte(client).await);
                println!(
                    "{protocol} {what} {round}: {rate:.0} MB/s, {each:.0} MB/CPU s, first byte {median:?}, p99 {worst:?}, first answer {connected:?}"
                );
            }
        }
    }
}
