//! The network `bridge`: everything outside by any protocol, and neither this host nor what is private.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::Child;

use cellblock_tests::internet::Internet;

/// Whether a bridge can be made here: the device that carries packets to user space has to be open to this user. Where it is not, that is
/// what the error must say.
#[expect(clippy::print_stdout, reason = "CI counts the lines that say SKIP")]
fn possible(internet: &Internet) -> bool {
    if std::fs::OpenOptions::new().read(true).write(true).open("/dev/net/tun").is_ok() {
        return true;
    }
    let done = internet.cellblock("run --image host --net bridge -- true").fails(125);
    done.says("/dev/net/tun").says("hint:");
    println!("SKIP: this user may not open /dev/net/tun; that the error says so was tested");
    false
}

/// A world whose host asks a name server of its internet, where every address is served.
fn world() -> Internet {
    world_without("")
}

fn world_without(programs: &str) -> Internet {
    let internet = Internet::without(programs);
    internet.world.write("resolv.conf", "nameserver 9.9.9.9\n");
    internet
}

/// Runs `script`, whose lines `say(WHAT, GOT)` must be what `want` says, in order.
fn check(internet: &Internet, flags: &str, script: &str, want: &[(&str, &str)]) {
    let script = format!("def say(what, got):\n    print(what, '=', got, flush=True)\n{script}");
    let out = internet.python(&format!("--net bridge {flags}"), &script);
    let got: Vec<(&str, &str)> = out.lines().filter_map(|line| line.split_once(" = ")).collect();
    assert_eq!(got.len(), want.len(), "{out}\nreached: {}", internet.reached());
    for ((said, value), (what, text)) in got.iter().zip(want) {
        assert_eq!(said, what, "{out}");
        assert!(value.starts_with(text), "{what}: expected «{text}»\nall: {out}\nreached: {}", internet.reached());
    }
}

/// A server on this world's host, on all of its addresses, that greets. Ends with this.
struct Greeter(Child, String);

impl Greeter {
    fn new(internet: &Internet, address: &str) -> Self {
        let script = "
import socket, sys
family = socket.AF_INET6 if ':' in sys.argv[1] else socket.AF_INET
listener = socket.create_server((sys.argv[1], 0), family=family, dualstack_ipv6=sys.argv[1] == '::')
print(listener.getsockname()[1], flush=True)
while True:
    connection, _ = listener.accept()
    connection.sendall(b'from the host\\n')
    connection.close()
";
        let mut child = internet.call(Path::new("python3"), &["-c", script, address]).start();
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("a pipe")).read_line(&mut line).expect("a line");
        Self(child, line.trim().to_owned())
    }
}

impl Drop for Greeter {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn the_internet_is_reached_by_every_protocol_and_nothing_nearer_is() {
    let internet = world();
    if !possible(&internet) {
        return;
    }
    let greeter = Greeter::new(&internet, "::");
    let port = &greeter.1;
    let script = format!(
        "
say('name', get('allowed.test'))
say('unknown name', names('nowhere.test'))
say('address', get('93.184.216.35'))
say('tls', tls('allowed.test', 'allowed.test'))
say('greeting', raw('allowed.test', 22))
say('any port', raw('93.184.216.34', 9000, b'hello\\n'))
say('v6', get('six.test', address='2606:2800:220:1:248:1893:25c8:1946'))
say('udp', datagram('93.184.216.34', 9001))
say('resolver over udp', ask('allowed.test', 1))
say('another resolver', ask('allowed.test', 1, '8.8.8.8'))
say('ping', ping('93.184.216.34'))
for address in ['10.1.2.3', '192.168.1.1', '100.64.0.1', '169.254.169.254', '172.20.0.2', '198.18.5.5', '192.0.2.1', '240.0.0.1', 'fd20::2', '64:ff9b::5db8:d822']:
    say(address, raw(address, 80))
for address in ['172.20.0.1', 'fd20::1', '127.0.0.1', '198.18.0.1', '198.18.0.9', '198.18.0.10', '198.18.1.2', 'fdce:11b1:cc0:fffe::1', 'host.docker.internal']:
    say(address, raw(address, {port}))
say('udp to a private address', datagram('10.1.2.3', 9001))
say('udp to this host', datagram('172.20.0.1', 9001))
say('udp to the gateway', datagram('198.18.0.1', 9001))
say('ping to a private address', ping('10.1.2.3'))
say('ping to this host', ping('172.20.0.1'))
"
    );
    let mut want = vec![
        ("name", "200"),
        ("unknown name", "no name"),
        ("address", "200"),
        ("tls", "HTTP/1.1 200"),
        ("greeting", "b'SSH-2.0-test"),
        ("any port", "b'hello"),
        ("v6", "200"),
        ("udp", "b'HELLO"),
        ("resolver over udp", "(0, 1)"),
        ("another resolver", "(0, 1)"),
        ("ping", "answered"),
    ];
    for address in [
        "10.1.2.3",
        "192.168.1.1",
        "100.64.0.1",
        "169.254.169.254",
        "172.20.0.2",
        "198.18.5.5",
        "192.0.2.1",
        "240.0.0.1",
        "fd20::2",
        "64:ff9b::5db8:d822",
        "172.20.0.1",
        "fd20::1",
        "127.0.0.1",
        "198.18.0.1",
        "198.18.0.9",
        "198.18.0.10",
        "198.18.1.2",
        "fdce:11b1:cc0:fffe::1",
        "host.docker.internal",
    ] {
        want.push((address, "ConnectionRefusedError"));
    }
    want.extend([
        ("udp to a private address", "OSError"),
        ("udp to this host", "OSError"),
        ("udp to the gateway", "OSError"),
        ("ping to a private address", "OSError"),
        ("ping to this host", "OSError"),
    ]);
    check(&internet, "", &script, &want);
    let reached = internet.reached();
    for inside in ["10.1.2.3", "192.168", "169.254", "172.20.0.2", "fd20", "64:ff9b"] {
        assert!(!reached.contains(inside), "{inside}: {reached}");
    }
    let starts: Vec<_> = internet.audit().into_iter().filter(|line| line["event"] == "start").collect();
    assert!(
        starts.iter().all(|line| line["why"].as_str().is_some_and(|why| why.starts_with("a bridge by "))),
        "{starts:?}"
    );
    assert_eq!(starts.len(), 1, "{starts:?}");
}

#[test]
fn rules_open_private_blocks_and_ports_of_this_host_and_denials_close() {
    let internet = world();
    if !possible(&internet) {
        return;
    }
    let (open, closed) = (Greeter::new(&internet, "127.0.0.1"), Greeter::new(&internet, "127.0.0.1"));
    let script = format!(
        "
say('block', get('10.9.1.1'))
say('its port', raw('10.8.1.1', 9000, b'hello\\n'))
say('its other port', raw('10.8.1.1', 80))
say('outside the block', raw('10.10.1.1', 80))
say('denied within the block', raw('10.9.2.1', 80))
say('udp', datagram('10.9.1.1', 9001))
say('ping', ping('10.9.1.1'))
say('metadata', get('169.254.169.254'))
say('denied', raw('93.184.216.35', 80))
say('denied port', raw('93.184.216.34', 9000, b'hello\\n'))
say('its other port', get('93.184.216.34'))
for name in ['host.docker.internal', 'host.containers.internal', 'host.cellblock.internal']:
    say(name, raw(name, {}))
say('other port of the host', raw('host.docker.internal', {}))
say('own loopback', raw('127.0.0.1', {}))
",
        open.1, closed.1, open.1
    );
    let flags = format!(
        "--allow 10.9.0.0/16 --allow 10.8.0.0/16:9000 --deny 10.9.2.0/24 --deny 93.184.216.35 --deny 93.184.216.34:9000 \
         --allow '169.254.169.254 metadata' --allow host:{}",
        open.1
    );
    check(
        &internet,
        &flags,
        &script,
        &[
            ("block", "200"),
            ("its port", "b'hello"),
            ("its other port", "ConnectionRefusedError"),
            ("outside the block", "ConnectionRefusedError"),
            ("denied within the block", "ConnectionRefusedError"),
            ("udp", "b'HELLO"),
            ("ping", "answered"),
            ("metadata", "200"),
            ("denied", "ConnectionRefusedError"),
            ("denied port", "ConnectionRefusedError"),
            ("its other port", "200"),
            ("host.docker.internal", "b'from the host"),
            ("host.containers.internal", "b'from the host"),
            ("host.cellblock.internal", "b'from the host"),
            ("other port of the host", "ConnectionRefusedError"),
            ("own loopback", "ConnectionRefusedError"),
        ],
    );
    let port: u64 = open.1.parse().expect("a port");
    let seen = |line: &serde_json::Value| line["name"] == "host.cellblock.internal" && line["port"] == port;
    assert!(internet.audit().iter().any(seen), "services of this host are in the audit: {:?}", internet.audit());
}

/// A block that holds this host's address does not open it.
#[test]
fn a_rule_for_a_block_does_not_open_this_host() {
    let internet = world();
    if !possible(&internet) {
        return;
    }
    let greeter = Greeter::new(&internet, "0.0.0.0");
    let script = format!("say('neighbour', get('172.20.0.2'))\nsay('this host', raw('172.20.0.1', {}))\n", greeter.1);
    let want = [("neighbour", "200"), ("this host", "ConnectionRefusedError")];
    check(&internet, "--allow 172.16.0.0/12", &script, &want);
}

/// What a bridge cannot keep is refused before anything starts.
#[test]
fn rules_about_names_have_no_place_in_a_bridge() {
    let internet = Internet::new();
    let run = |flags: &str| internet.cellblock(&format!("run --image host --net bridge {flags} -- true"));
    run("--allow example.com").fails(125).says("addresses, not names");
    run("--deny example.com").fails(125).says("addresses, not names");
    run("--secret T@example.com=env:HOME").fails(125).says("no meaning with the network `bridge`");
    run("--deny @dev").fails(125).says("addresses, not names");
    run("--deny 10.0.0.0/8 --deny host:3000 --dry-run").ok();
    internet.world.configure("defaults:\n  allow: [good.example, 10.1.0.0/16]\n");
    let plan = run("--dry-run --json").ok();
    assert!(plan.contains("10.1.0.0/16") && !plan.contains("good.example"), "{plan}");
    internet.world.configure("defaults:\n  deny: [bad.example]\n");
    run("").fails(125).says("bad.example").says("addresses, not names");
}

/// The second choice: the same walls, without IPv6.
#[test]
fn slirp4netns_takes_the_place_of_pasta() {
    let internet = world_without("pasta");
    if !possible(&internet) {
        return;
    }
    let greeter = Greeter::new(&internet, "::");
    let script = format!(
        "
say('name', get('allowed.test'))
say('udp', datagram('93.184.216.34', 9001))
say('private', raw('10.1.2.3', 80))
say('block', get('10.9.1.1'))
say('metadata', raw('169.254.169.254', 80))
for address in ['172.20.0.1', '198.18.0.1', '198.18.1.2', '198.18.1.3', '10.0.2.2']:
    say(address, raw(address, {0}))
say('service', raw('host.docker.internal', {0}))
say('v6', raw('2606:2800:220:1:248:1893:25c8:1946', 80))
",
        greeter.1
    );
    let mut want =
        vec![("name", "200"), ("udp", "b'HELLO"), ("private", "Conn"), ("block", "200"), ("metadata", "Conn")];
    want.extend(
        ["172.20.0.1", "198.18.1.2", "198.18.1.3", "10.0.2.2"].map(|address| (address, "ConnectionRefusedError")),
    );
    want.insert(6, ("198.18.0.1", "b'from the host"));
    want.extend([("service", "b'from the host"), ("v6", "OSError")]);
    check(&internet, &format!("--allow 10.9.0.0/16 --allow host:{}", greeter.1), &script, &want);
    assert!(
        internet.audit().iter().any(|l| l["why"].as_str().is_some_and(|w| w.starts_with("a bridge by slirp4netns")))
    );
}

/// What is missing is named, and there is never a bridge with less walls instead.
#[test]
fn what_a_bridge_lacks_is_said_with_what_to_install() {
    for (missing, package) in [("pasta slirp4netns", "passt"), ("nft", "nftables")] {
        let internet = Internet::without(missing);
        let done = internet.cellblock("run --image host --net bridge -- true").fails(125);
        done.says(&format!("install the package `{package}`"));
        assert!(internet.world.leftovers().is_empty());
        internet.cellblock("run --image host -- true").ok();
    }
}

/// The ids of processes in this world's host namespace that carry the packets of a bridge.
fn uplinks(internet: &Internet) -> Vec<String> {
    let script = "for p in /proc/[0-9]*; do
        case $(cat $p/comm 2>/dev/null) in pass*|past*|slirp*)
            [ \"$(readlink $p/ns/net)\" != \"$(readlink /proc/self/ns/net)\" ] || echo ${p#/proc/};;
        esac
    done; true";
    internet.call(Path::new("sh"), &["-c", script]).ok().split_whitespace().map(str::to_owned).collect()
}

fn kill(pid: &str) {
    let pid = pid.parse().ok().and_then(rustix::process::Pid::from_raw).expect("an id");
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("killed");
}

/// Other cells are out of reach, also by what they publish; and a supervisor that is killed takes the uplink with it.
#[test]
fn cells_do_not_reach_each_other_and_leave_nothing_behind() {
    for missing in ["", "pasta"] {
        let internet = world_without(missing);
        if !possible(&internet) {
            return;
        }
        let world = &internet.world;
        world.write("home/demo/index.html", "from the cell\n");
        internet
            .cellblock("run -d --rm --name web --image host --net bridge -p 0.0.0.0:8080:8000 -- python3 -m http.server --bind 0.0.0.0 8000")
            .ok();
        let get = |url: &str| internet.call(Path::new("curl"), &["-sS", "-m", "5", url]).run();
        world.wait("the server", || get("http://172.20.0.1:8080/index.html").code() == Some(0));
        let script = "
say('outside', get('93.184.216.34'))
say('published on this host', raw('172.20.0.1', 8080))
say('by the gateway', raw('198.18.0.1', 8080))
say('as such', raw('198.18.0.2', 8000))
";
        let want = [
            ("outside", "200"),
            ("published on this host", "ConnectionRefusedError"),
            ("by the gateway", "ConnectionRefusedError"),
            ("as such", "ConnectionRefusedError"),
        ];
        check(&internet, "", script, &want);
        assert_eq!(uplinks(&internet).len(), 1, "that of the server");
        let record = std::fs::read_to_string(world.path("run/cellblock/cells/web/cell.json")).expect("a record");
        let record: serde_json::Value = serde_json::from_str(&record).expect("JSON");
        kill(&record["supervisor"].to_string());
        world.wait("the end of the uplink", || uplinks(&internet).is_empty());
        assert_ne!(get("http://172.20.0.1:8080/index.html").code(), Some(0));
        internet.cellblock("status").ok();
    }
}

/// A network whose processes are killed is made again, with the same walls.
#[test]
fn a_bridge_that_broke_is_made_again() {
    let internet = world();
    if !possible(&internet) {
        return;
    }
    let world = &internet.world;
    let script = "while True:\n    open('state', 'w').write(raw('93.184.216.34', 22)[:5].decode() + raw('10.1.2.3', 22))\n    time.sleep(0.1)\n";
    let script = script.replace("raw('93.184.216.34', 22)[:5].decode()", "str(raw('93.184.216.34', 22))[:6]");
    world.write("home/demo/t.py", &format!("{}\n{script}", include_str!("../data/client.py")));
    internet.cellblock("run -d --rm --name n --image host --net bridge -- python3 t.py").ok();
    let works = || {
        let state = std::fs::read_to_string(world.path("home/demo/state")).unwrap_or_default();
        state == "b'SSH-ConnectionRefusedError"
    };
    world.wait("the network", works);
    let before = uplinks(&internet);
    assert_eq!(before.len(), 1);
    for pid in &before {
        kill(pid);
    }
    std::fs::write(world.path("home/demo/state"), "").expect("cleared");
    world.wait("the network again", || works() && uplinks(&internet).len() == 1);
    assert_ne!(uplinks(&internet), before);
    internet.cellblock("stop -t 0 n").ok();
    assert!(uplinks(&internet).is_empty() && world.leftovers().is_empty());
}

/// An address that this host gets while the cell runs belongs to it too. Only as root: others cannot give the world's host one from outside.
#[test]
fn an_address_that_this_host_gets_later_is_closed_too() {
    let internet = world();
    if !cellblock_tests::is_root() || !possible(&internet) {
        return;
    }
    let world = &internet.world;
    let greeter = Greeter::new(&internet, "::");
    let script = format!(
        "while True:\n    open('state', 'w').write(str(raw('93.184.216.99', 22))[:6] + str(raw('93.184.216.99', {})))\n    time.sleep(0.1)\n",
        greeter.1
    );
    world.write("home/demo/t.py", &format!("{}\n{script}", include_str!("../data/client.py")));
    internet.cellblock("run -d --rm --name n --image host --net bridge -- python3 t.py").ok();
    let state = || std::fs::read_to_string(world.path("home/demo/state")).unwrap_or_default();
    world.wait("somebody else's address", || state().starts_with("b'SSH-"));
    let before = uplinks(&internet);
    internet.call(Path::new("ip"), &["addr", "add", "93.184.216.99/32", "dev", "up0"]).ok();
    world.wait("a network that knows it", || uplinks(&internet).len() == 1 && uplinks(&internet) != before);
    let url = format!("http://93.184.216.99:{}/", greeter.1);
    let host = internet.call(Path::new("curl"), &["-sS", "-m", "5", "--http0.9", &url]).run();
    assert_eq!(host.stdout(), "from the host\n", "the host itself reaches it");
    world.wait("the closed address", || state() == "ConnecConnectionRefusedError");
    internet.cellblock("stop -t 0 n").ok();
}
