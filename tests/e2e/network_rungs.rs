//! The ladder of the network by name: each way to catch connections is tried on this host, and all of them have to keep in the same.
//!
//! Builds for tests take the ways that may be tried from `CELLBLOCK_NET_RUNGS`; with a release build these tests have nothing to try.

use std::path::Path;

use cellblock_tests::Call;
use cellblock_tests::internet::Internet;

const RUNGS: [&str; 6] = ["veth-bind", "veth-tproxy", "veth-redirect", "lo-tproxy", "lo-redirect", "lo-bind"];
const IN_CELL: [&str; 3] = ["lo-tproxy", "lo-redirect", "lo-bind"];

const VARIABLE: &str = "CELLBLOCK_NET_RUNGS";

/// `cellblock`, with the ways that may be tried.
fn cellblock(internet: &Internet, rungs: &str, line: &str) -> Call {
    internet.cellblock(line).env(VARIABLE, rungs)
}

/// Whether the command under test can be told.
fn choosable(internet: &Internet) -> bool {
    let done = cellblock(internet, "nonsense", "run --image host --net none -- true").run();
    let can = done.code() == Some(125);
    if can {
        done.says("no way to catch connections");
    }
    // What is tested is built as the tests are, in CI.
    assert!(can || !cfg!(debug_assertions), "the command cannot be told which rungs to try: {done}");
    can
}

/// What `script` says in a cell caught by `rung`, `WHAT = GOT` a line, must be what `want` says, in order.
fn check(internet: &Internet, rung: &str, flags: &str, script: &str, want: &[(&str, &str)]) {
    let script = format!(
        "{}\ndef say(what, got):\n    print(what, '=', got, flush=True)\n{script}\n",
        include_str!("../data/client.py")
    );
    internet.world.write("home/demo/client.py", &script);
    let out = cellblock(internet, rung, &format!("run --image host {flags} -- python3 client.py")).ok();
    compare(rung, &out, want);
}

fn compare(rung: &str, out: &str, want: &[(&str, &str)]) {
    let got: Vec<(&str, &str)> = out.lines().filter_map(|line| line.split_once(" = ")).collect();
    assert_eq!(got.len(), want.len(), "{rung}: {out}");
    for ((what, text), (said, value)) in want.iter().zip(got) {
        assert_eq!(said, *what, "{rung}: {out}");
        assert!(value.starts_with(text), "{rung}: {what}: expected «{text}», got «{value}»\nall: {out}");
    }
}

/// The reason in the line of the last start.
fn start(internet: &Internet) -> String {
    let lines = internet.audit();
    let starts = lines.iter().filter(|line| line["event"] == "start");
    let line = starts.max_by_key(|line| line["time"].as_str().map(str::to_owned)).expect("a start");
    line["why"].as_str().expect("words").to_owned()
}

fn in_words(rung: &str) -> &'static str {
    match rung {
        "veth-bind" => "a listener on each of 3 ports",
        "veth-tproxy" => "every port, by nf_tables",
        "veth-redirect" => "every port, by nf_tables (NAT)",
        "lo-tproxy" => "every port, by nf_tables, in the cell itself: this host has no veth devices",
        "lo-redirect" => "every port, by nf_tables (NAT), in the cell itself: this host has no veth devices",
        _ => "a listener on each of 3 ports, in the cell itself: this host has no veth devices",
    }
}

#[test]
fn every_rung_lets_through_what_is_allowed_and_nothing_else() {
    let internet = Internet::new();
    if !choosable(&internet) {
        return;
    }
    let script = r"
import os
say('links', sorted(os.listdir('/sys/class/net')))
say('http', get('allowed.test'))
say('http, v6', get('allowed.test', address=names('allowed.test', socket.AF_INET6)[0]))
say('tls', tls('allowed.test', 'allowed.test'))
say('raw', raw('allowed.test', 9000, b'hello\n'))
say('another name', names('other.test'))
say('direct', get('93.184.216.34'))
say('direct, v6', get('allowed.test', address='2606:2800:220:1:248:1893:25c8:1946'))
say('direct tls', tls('93.184.216.34', 'allowed.test'))
say('metadata', get('169.254.169.254'))
say('this host', get('172.20.0.1'))
say('unlisted port', raw('allowed.test', 8080))
say('unlisted port, direct', raw('93.184.216.34', 22))
say('same address, another name', get('www.wild.test', address='allowed.test'))
say('same address, another name, tls', tls('allowed.test', 'www.wild.test'))
say('look-up', ask('allowed.test', 1))
say('look-up, tcp', ask('allowed.test', 1, tcp=True))
say('look-up elsewhere', ask('allowed.test', 1, '8.8.8.8'))
say('look-up elsewhere, v6', ask('other.test', 1, '2001:4860:4860::8888'))
say('look-up elsewhere, tcp', ask('other.test', 1, '8.8.8.8', tcp=True))
say('udp', datagram(names('allowed.test', socket.AF_INET)[0], 443))
say('udp, direct', datagram('93.184.216.34', 9001))
say('own loopback', raw('127.0.0.1', 7777))
";
    for rung in RUNGS {
        let caught = if rung.ends_with("bind") { "ConnectionRefusedError" } else { "ConnectionResetError" };
        let links = if rung.starts_with("lo") { "['lo']" } else { "['eth0', 'lo']" };
        let want = [
            ("links", links),
            ("http", "200"),
            ("http, v6", "200"),
            ("tls", "HTTP/1.1 200"),
            ("raw", "b'hello"),
            ("another name", "no name"),
            ("direct", "403 cellblock: no rule allows 93.184.216.34"),
            ("direct, v6", "403"),
            ("direct tls", "TLSV1_ALERT_ACCESS_DENIED"),
            ("metadata", "403"),
            ("this host", "403"),
            ("unlisted port", caught),
            ("unlisted port, direct", caught),
            ("same address, another name", "403 cellblock: the request is for www.wild.test"),
            ("same address, another name, tls", "TLSV1_ALERT_ACCESS_DENIED"),
            ("look-up", "(0, 1)"),
            ("look-up, tcp", "(0, 1)"),
            ("look-up elsewhere", "(0, 1)"),
            ("look-up elsewhere, v6", "(3, 0)"),
            ("look-up elsewhere, tcp", "(3, 0)"),
            ("udp", "ConnectionRefusedError"),
            ("udp, direct", "ConnectionRefusedError"),
            ("own loopback", "ConnectionRefusedError"),
        ];
        check(&internet, rung, "--no-default-allow --allow allowed.test --allow allowed.test:9000", script, &want);
        assert_eq!(start(&internet), in_words(rung));
    }
    for line in internet.reached().lines() {
        let allowed = line.contains("allowed.test") || line == "tcp9000 93.184.216.34";
        assert!(allowed && !line.contains("udp"), "{line}");
    }
}

/// The person's own proof says the same on every rung.
#[test]
fn net_test_holds_on_every_rung() {
    let internet = Internet::new();
    if !choosable(&internet) {
        return;
    }
    for rung in RUNGS {
        let out = cellblock(&internet, rung, "net test --no-default-allow --allow allowed.test").ok();
        assert!(out.contains("✓ a name that is allowed (allowed.test:443) is reached"), "{rung}: {out}");
        assert!(out.contains("The network holds.") && !out.contains('✗'), "{rung}: {out}");
        assert_eq!(start(&internet), in_words(rung).replace("3 ports", "2 ports"));
    }
}

/// R2, R3: whoever has every power over the cell's network namespace gets nothing out of it. Nothing in a cell has that power: this is the
/// person, who enters the cell's namespaces.
#[test]
fn all_power_over_the_cells_network_opens_nothing() {
    let internet = Internet::new();
    if !choosable(&internet) {
        return;
    }
    let script = format!("{}\n{}", include_str!("../data/client.py"), include_str!("../data/netadmin.py"));
    internet.world.write("home/demo/admin.py", &script);
    for rung in RUNGS {
        let flags = "--rm --name n --image host --no-default-allow --allow allowed.test";
        cellblock(&internet, rung, &format!("run -d {flags} -- sleep 1000")).ok();
        let inspected: serde_json::Value = serde_json::from_str(&internet.cellblock("inspect n").ok()).expect("JSON");
        assert_eq!(inspected["network"]["rung"], rung, "{inspected}");
        let pid = inspected["running"]["init"].as_i64().expect("a process").to_string();
        let before = internet.reached();
        let project = internet.world.project().display().to_string();
        let out = internet.call(Path::new("python3"), &["admin.py", &pid, &project, rung]).ok();
        assert!(out.ends_with("all of it was tried\n"), "{rung}: {out}");
        let reached = internet.reached();
        let new = reached.strip_prefix(&before).expect("a log only grows");
        assert!(new.contains("GET allowed.test"), "{rung}: the probe works\n{out}\n{new}");
        assert!(new.lines().all(|line| line.contains("GET allowed.test")), "{rung}: {new}\n{out}");
        internet.cellblock("stop -t 0 n").ok();
    }
}

/// What listens for the network in the cell's namespace cannot be shared or replaced by the cell; what else it binds is its own.
#[test]
fn ports_in_the_cell_cannot_be_stolen() {
    let internet = Internet::new();
    if !choosable(&internet) {
        return;
    }
    let script = r"
made_up = names('allowed.test', socket.AF_INET)[0], names('allowed.test', socket.AF_INET6)[0]
def take(kind, port):
    taken = []
    for address in ['0.0.0.0', '127.0.0.1', '198.18.0.1', '198.18.0.2', '8.8.8.8', made_up[0], '::', '::1', made_up[1]]:
        for options in [(), (socket.SO_REUSEADDR,), (socket.SO_REUSEPORT,), (socket.SO_REUSEADDR, socket.SO_REUSEPORT)]:
            sock = socket.socket(socket.AF_INET6 if ':' in address else socket.AF_INET, kind)
            try:
                for option in options:
                    sock.setsockopt(socket.SOL_SOCKET, option, 1)
                sock.bind((address, port))
                if kind == socket.SOCK_STREAM:
                    sock.listen()
                taken.append((address, len(options)))
            except OSError:
                pass
            sock.close()
    return 'nothing' if not taken else 'everything' if len(taken) == 36 else taken
say('resolver', take(socket.SOCK_DGRAM, 53))
say('resolver, tcp', take(socket.SOCK_STREAM, 53))
say('http', take(socket.SOCK_STREAM, 80))
say('another', take(socket.SOCK_STREAM, 8123))
say('another, udp', take(socket.SOCK_DGRAM, 8123))
say('look-up', ask('allowed.test', 1))
server = socket.create_server(('0.0.0.0', 8000))
say('own server', socket.create_connection(('127.0.0.1', 8000)).getpeername()[1])
# Where every port is caught, a server of the cell on every address gets nothing that goes elsewhere.
try:
    wide = socket.create_server(('0.0.0.0', 80))
except OSError:
    wide = None
say('still', get('allowed.test'))
say('still no address', get('93.184.216.34'))
if wide:
    wide.settimeout(2)
    socket.create_connection(('127.0.0.1', 80)).sendall(b'mine')
    say('to itself', wide.accept()[0].recv(10))
else:
    say('to itself', get('127.0.0.1'))
";
    for rung in IN_CELL {
        for user in ["", "-u root"] {
            let bind = rung == "lo-bind";
            let want = [
                ("resolver", "nothing"),
                ("resolver, tcp", "nothing"),
                ("http", if bind { "nothing" } else { "everything" }),
                ("another", "everything"),
                ("another, udp", "everything"),
                ("look-up", "(0, 1)"),
                ("own server", "8000"),
                ("still", "200"),
                ("still no address", "403"),
                ("to itself", if bind { "403 cellblock: no rule allows 127.0.0.1" } else { "b'mine'" }),
            ];
            let flags = format!("--no-default-allow --allow allowed.test {user}");
            check(&internet, rung, &flags, script, &want);
        }
    }
}

#[test]
fn published_ports_and_later_rules_work_on_every_rung() {
    let internet = Internet::new();
    if !choosable(&internet) {
        return;
    }
    let world = &internet.world;
    world.write("home/demo/index.html", "from the cell\n");
    let script = "import subprocess\nsubprocess.Popen(['python3', '-m', 'http.server', '--bind', '127.0.0.1', '8000'])\nwhile True:\n    \
                  open('state', 'w').write(get('allowed.test')[:3] + raw('allowed.test', 9000, b'hi\\n')[:2].hex() if isinstance(raw('allowed.test', 9000, b'hi\\n'), bytes) else 'closed')\n    time.sleep(0.1)\n";
    world.write("home/demo/t.py", &format!("{}\n{script}", include_str!("../data/client.py")));
    let state = || std::fs::read_to_string(world.path("home/demo/state")).unwrap_or_default();
    let get = |url: &str| internet.call(Path::new("curl"), &["-sS", "-m", "5", url]).run();
    for rung in RUNGS {
        world.write("home/demo/state", "");
        let flags = "--rm --name n --image host --no-default-allow --allow allowed.test -p 8080:8000";
        cellblock(&internet, rung, &format!("run -d {flags} -- python3 t.py")).ok();
        world.wait("the server", || get("http://127.0.0.1:8080/index.html").stdout() == "from the cell\n");
        world.wait("the network", || state() == "closed");
        internet.cellblock("net allow allowed.test:9000 n").ok();
        world.wait("the later rule", || state() == "2006869");
        internet.cellblock("stop -t 0 n").ok();
    }
    assert!(world.leftovers().is_empty());
    // A server on such a port could never be: said before anything runs. Where all is caught it is like any other.
    let web = "run --image host --no-default-allow --allow allowed.test -p 8080:80 -- true";
    cellblock(&internet, "lo-bind", web).fails(125).says("cannot publish 127.0.0.1:8080:80").says("no veth devices");
    cellblock(&internet, "lo-tproxy", web).ok();
    cellblock(&internet, "lo-tproxy", &web.replace(":80 ", ":53 ")).fails(125).says("cannot publish 127.0.0.1:8080:53");
}

/// R22: what takes the place of a dead process goes on with what that has made in the cell's namespace.
#[test]
fn a_dead_network_is_made_again_in_the_cell() {
    let internet = Internet::new();
    if !choosable(&internet) {
        return;
    }
    let world = &internet.world;
    let script = "\nwhile True:\n    open('state', 'w').write(get('allowed.test')[:3] + get('93.184.216.34')[:3])\n    time.sleep(0.1)\n";
    world.write("home/demo/t.py", &format!("{}{script}", include_str!("../data/client.py")));
    let state = || std::fs::read_to_string(world.path("home/demo/state")).unwrap_or_default();
    for rung in IN_CELL {
        world.write("home/demo/state", "");
        let flags = "--rm --name n --image host --no-default-allow --allow allowed.test";
        // More may be tried than what works first: what is made again is what was there.
        let rungs = format!("{rung},lo-bind");
        cellblock(&internet, &rungs, &format!("run -d {flags} -- python3 t.py")).ok();
        world.wait("the network", || state() == "200403");
        for _ in 0..2 {
            let pid = crate::network_faults::network_process(world, "n").and_then(rustix::process::Pid::from_raw);
            rustix::process::kill_process(pid.expect("the network"), rustix::process::Signal::KILL).expect("killed");
            world.write("home/demo/state", "");
            world.wait("the network again", || state() == "200403");
        }
        let inspected: serde_json::Value = serde_json::from_str(&internet.cellblock("inspect n").ok()).expect("JSON");
        assert_eq!(inspected["network"]["rung"], rung, "{inspected}");
        internet.cellblock("stop -t 0 n").ok();
    }
    assert!(world.leftovers().is_empty());
}

#[test]
fn all_ports_are_caught_by_every_rung_that_can() {
    let internet = Internet::new();
    if !choosable(&internet) {
        return;
    }
    let script = r"
say('http', get('allowed.test'))
say('other port', get('allowed.test:8080', port=8080, address='allowed.test'))
say('greeting', raw('allowed.test', 22))
say('v6', raw(names('allowed.test', socket.AF_INET6)[0], 9000, b'hello\n'))
say('direct, other port', get('93.184.216.34', port=8080))
say('wrong host', get('other.test', address='allowed.test'))
";
    let want = [
        ("http", "200"),
        ("other port", "200"),
        ("greeting", "b'SSH-2.0-test"),
        ("v6", "b'hello"),
        ("direct, other port", "403"),
        ("wrong host", "403"),
    ];
    for rung in RUNGS {
        for allow in ["allowed.test:all", "allowed.test:1-10000"] {
            if rung.ends_with("bind") {
                let line = format!("run --image host --no-default-allow --allow {allow} -- true");
                cellblock(&internet, rung, &line).fails(125).says("needs nf_tables").says("list the ports");
            } else {
                check(&internet, rung, &format!("--no-default-allow --allow {allow}"), script, &want);
            }
        }
    }
}

/// What lacks is found out by trying, and the next best is taken.
#[test]
fn without_nft_the_ladder_ends_with_listeners_and_a_warning() {
    let internet = Internet::without("nft");
    if !choosable(&internet) {
        return;
    }
    let script = "say('allowed', get('allowed.test'))\nsay('direct', get('93.184.216.34'))\n";
    let want = [("allowed", "200"), ("direct", "403")];
    let flags = "--no-default-allow --allow allowed.test --allow allowed.test:9000";
    for (rungs, taken) in
        [("veth-tproxy,veth-redirect,veth-bind", "veth-bind"), ("lo-tproxy,lo-redirect,lo-bind", "lo-bind")]
    {
        check(&internet, rungs, flags, script, &want);
        assert_eq!(start(&internet), in_words(taken));
        let done = cellblock(&internet, rungs, &format!("run --image host {flags} -- true")).run();
        assert_eq!(done.code(), Some(0), "{done}");
        assert_eq!(
            done.stderr().contains("no program can use the ports 53, 80, 443, 9000"),
            taken == "lo-bind",
            "{done}"
        );
    }
    for rungs in ["veth-tproxy,veth-redirect", "lo-tproxy,lo-redirect"] {
        cellblock(&internet, rungs, &format!("run --image host {flags} -- true")).fails(125).says("nft");
    }
}
