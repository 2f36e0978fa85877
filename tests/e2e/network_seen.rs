//! What is seen of what a cell tries: also where the kernel refuses and nobody listens.

use cellblock_tests::internet::Internet;
use serde_json::Value;

use super::net_commands::answer;
use super::terminal::Tmux;

/// Flags of a cell that may reach one name, on its usual ports.
const ONE: &str = "--no-default-allow --allow allowed.test";

/// Lines about connections to `name`, or to the address of that text.
fn about(internet: &Internet, name: &str) -> Vec<Value> {
    let is = |line: &Value| line["event"] == "connect" && (line["name"] == name || line["address"] == name);
    internet.audit().into_iter().filter(is).collect()
}

fn only(lines: &[Value], protocol: &str, port: u16) -> Value {
    let found: Vec<&Value> = lines.iter().filter(|l| l["protocol"] == protocol && l["port"] == port).collect();
    assert_eq!(
        found.len(),
        1,
        "{protocol} {port}, of {} lines: {:?}",
        lines.len(),
        lines.iter().take(20).collect::<Vec<_>>()
    );
    found[0].clone()
}

#[test]
fn a_port_that_no_rule_opens_leaves_a_line() {
    let internet = Internet::new();
    let script = "
four, six = [names('allowed.test', family)[0] for family in (socket.AF_INET, socket.AF_INET6)]
print(get('allowed.test')[:3], raw(four, 8081), raw(six, 8082), raw('93.184.216.34', 8083), raw('198.18.77.77', 8084))
print(datagram(four, 9999), datagram(six, 9998), datagram('93.184.216.34', 9997), ping(four), ask('allowed.test', 1)[0])
";
    let refused = "ConnectionRefusedError";
    let out = internet.python(ONE, script);
    assert!(
        out.starts_with(&format!("200 {refused} {refused} {refused} {refused}\n{refused} {refused} {refused} ")),
        "{out}"
    );
    assert!(out.ends_with(" 0\n"), "{out}");
    let lines = about(&internet, "allowed.test");
    let closed = only(&lines, "tcp", 8081);
    assert_eq!(closed["why"], "no rule allows port 8081 of allowed.test");
    assert_eq!((&closed["verdict"], &closed["rule"], &closed["address"]), (&"deny".into(), &Value::Null, &Value::Null));
    assert_eq!(only(&lines, "tcp", 8082)["verdict"], "deny", "by IPv6");
    for port in [9999, 9998] {
        assert_eq!(only(&lines, "udp", port)["why"], "UDP goes nowhere but for look-ups");
    }
    let allowed: Vec<&Value> = lines.iter().filter(|line| line["port"] == 80).collect();
    assert_eq!(allowed.len(), 1, "what is allowed has one line: {lines:?}");
    assert_eq!((&allowed[0]["verdict"], &allowed[0]["protocol"]), (&"allow".into(), &"http".into()));
    let direct = about(&internet, "93.184.216.34");
    assert_eq!(only(&direct, "tcp", 8083)["why"], "no rule allows 93.184.216.34");
    only(&direct, "udp", 9997);
    only(&about(&internet, "198.18.77.77"), "tcp", 8084);
    // Look-ups and the network's own look from inside have none of these.
    let others: Vec<Value> = internet.audit().into_iter().filter(|line| line["port"] == 53).collect();
    assert!(others.is_empty() && about(&internet, "198.18.0.3").is_empty(), "{others:?}");
    assert_eq!(internet.reached().lines().count(), 1, "{}", internet.reached());

    let text = internet.cellblock("net suggest").ok();
    assert!(text.lines().any(|line| line.starts_with("# allowed.test:8081,8082 ")), "{text}");
    assert!(text.contains("WARNING: allowed.test:9999: UDP, which no rule opens"), "{text}");
    let log = internet.cellblock("net log --denied").ok();
    assert!(log.contains("allowed.test:8081 tcp  no rule allows port 8081"), "{log}");
}

/// Every connection is caught, and decided on where it is caught: nothing is told twice.
#[test]
fn where_all_ports_are_caught_no_line_is_written_twice() {
    let internet = Internet::new();
    let script = "
print(raw('allowed.test', 9000, b'hello\\n'), raw('allowed.test', 8081), raw('93.184.216.35', 8081), datagram('allowed.test', 9999))
";
    let out = internet.python("--no-default-allow --allow allowed.test:all --deny allowed.test:8081", script);
    assert_eq!(out, "b'hello\\n' ConnectionResetError ConnectionResetError ConnectionRefusedError\n");
    let lines = about(&internet, "allowed.test");
    for (port, verdict) in [(9000, "allow"), (8081, "deny"), (9999, "deny")] {
        let of: Vec<&Value> = lines.iter().filter(|line| line["port"] == port).collect();
        assert_eq!((of.len(), &of[0]["verdict"]), (1, &verdict.into()), "{lines:?}");
    }
    assert_eq!(about(&internet, "93.184.216.35").len(), 1);
}

#[test]
fn a_person_is_asked_about_a_port_that_nobody_listens_on() {
    let internet = Internet::new();
    let script = "
while True:
    open('state', 'w').write(str(raw('allowed.test', 9000, b'hello\\n')))
    time.sleep(0.3)
";
    internet.world.write("home/demo/t.py", &format!("{}{script}", include_str!("../data/client.py")));
    internet.cellblock(&format!("run -d --rm --name n --image host {ONE} -- python3 t.py")).ok();
    let state = || std::fs::read_to_string(internet.world.path("home/demo/state")).unwrap_or_default();
    internet.world.wait("the refusal", || state() == "ConnectionRefusedError");
    let tmux = Tmux::new(&internet.world);
    tmux.line(&internet.world.shell_line("net watch n"));
    tmux.see("Watching the cell n");
    answer(&tmux, "allowed.test:9000", "c");
    internet.world.wait("the answer to count", || state() == "b'hello\\n'");
    internet.cellblock("net deny allowed.test:9000 n").ok();
    internet.world.wait("the denial", || state() == "ConnectionResetError");
    internet.cellblock("stop -t 0 n").ok();
    let log = internet.cellblock("net log n").ok();
    assert!(log.contains("rule: allowed.test:9000, by net watch"), "{log}");
}

/// The program is told where it can be found: of what is refused, as long as its socket is there.
#[test]
fn the_program_that_asked_is_told() {
    for user in ["", "-u root"] {
        the_program_is_told_of(user);
    }
}

fn the_program_is_told_of(user: &str) {
    let internet = Internet::new();
    let script = "
import ctypes, os, subprocess
def hold(address, port):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.sendto(b'hello', (address, port))
        time.sleep(1)
print(os.getpid(), names('first.test'))
ctypes.CDLL(None).prctl(15, b'od\"d\\x1b[2J\\n\\xff', 0, 0, 0)
print(names('second.test'), ask('third.test', 1, tcp=True)[0], get('allowed.test', address='93.184.216.35')[:3], hold('93.184.216.35', 9999))
print(get('other.test', address='allowed.test')[:3])
print(subprocess.run(['curl', '-sS', 'http://fourth.test/'], capture_output=True).returncode)
print(get('allowed.test')[:3])
";
    let out = internet.python(&format!("{ONE} {user}"), script);
    let (pid, rest) = out.split_once(' ').expect("an id");
    assert_eq!(rest, "no name\nno name 3 403 None\n403\n6\n200\n");
    let lines = internet.audit();
    let of = |key: &str, value: &str, event: &str| {
        let line = lines.iter().find(|l| l[key] == value && l["event"] == event && l["verdict"] == "deny");
        line.unwrap_or_else(|| panic!("{value}: {lines:?}"))["process"].clone()
    };
    let pid: u64 = pid.parse().expect("a number");
    assert_eq!(of("name", "first.test", "dns"), serde_json::json!({"name": "python3", "pid": pid}));
    let odd = serde_json::json!({"name": "od\"d\u{1b}[2J\n\u{fffd}", "pid": pid});
    for (key, value, event) in [
        ("name", "second.test", "dns"),
        ("name", "third.test", "dns"),
        ("address", "93.184.216.35", "connect"),
        ("name", "allowed.test", "connect"),
    ] {
        assert_eq!(of(key, value, event), odd, "{value}");
    }
    let udp = lines.iter().find(|l| l["protocol"] == "udp" && l["port"] == 9999).expect("a line");
    assert_eq!(udp["process"], odd);
    assert_eq!(of("name", "fourth.test", "dns")["name"], "curl");
    let allowed = lines.iter().filter(|l| l["verdict"] == "allow");
    assert!(allowed.into_iter().all(|l| l["process"].is_null()), "only refusals are worth the time");
    let log = internet.cellblock("net log --denied").ok();
    assert!(log.contains("(by python3[") && log.contains("(by curl["), "{log}");
    assert!(log.contains("(by od\"d\\u{1b}[2J\\u{a}\u{fffd}["), "{log}");
    assert!(!log.contains('\u{1b}'), "{log:?}");
    let text = internet.cellblock("net suggest").ok();
    assert!(text.lines().any(|line| line.starts_with("# fourth.test ") && line.contains(", by curl")), "{text}");
}

/// R24: reading what is refused is limited, and a flood of it fills no disk and hides nothing that comes after.
#[test]
fn a_flood_to_closed_ports_is_counted() {
    let internet = Internet::new();
    let script = "
four = names('allowed.test', socket.AF_INET)[0]
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sock.setblocking(False)
for number in range(100000):
    try:
        sock.sendto(b'x', (four, 1024 + number % 60000))
    except OSError:
        pass
for number in range(100000):
    with socket.socket() as one:
        one.setblocking(False)
        one.connect_ex((four, 1024 + number % 60000))
time.sleep(4)
print(raw(four, 700), get('allowed.test')[:3])
";
    assert_eq!(internet.python(ONE, script), "ConnectionRefusedError 200\n");
    let lines = internet.audit();
    assert!(lines.len() < 3000, "{} lines", lines.len());
    let told =
        |protocol: &str| lines.iter().filter(|l| l["protocol"] == protocol && l["port"].as_u64() > Some(1023)).count();
    assert!(told("udp") > 10 && told("tcp") > 10, "some are told one by one");
    let sum: u64 = lines.iter().filter(|l| l["verdict"] == "deny").map(|l| l["count"].as_u64().unwrap_or(1)).sum();
    assert!(sum > 190_000, "and the others counted: {sum}");
    only(&about(&internet, "allowed.test"), "tcp", 700);
}
