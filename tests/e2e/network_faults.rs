//! The network under load, with its processes killed, with ports published: what must hold when things go wrong.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::path::Path;

use cellblock_tests::World;
use cellblock_tests::internet::Internet;

/// The id of the process that is the network of the running cell `name`.
pub(crate) fn network_process(world: &World, name: &str) -> Option<i32> {
    let text = std::fs::read_to_string(world.path(&format!("run/cellblock/cells/{name}/cell.json"))).ok()?;
    let record: serde_json::Value = serde_json::from_str(&text).ok()?;
    let supervisor = record["supervisor"].as_i64()?;
    let children = std::fs::read_to_string(format!("/proc/{supervisor}/task/{supervisor}/children")).ok()?;
    children
        .split_ascii_whitespace()
        .find(|pid| std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|c| c.trim() == "cellblock-net"))?
        .parse()
        .ok()
}

/// What a process holds in memory, in KiB.
fn memory(pid: i32) -> u32 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("its status");
    let size = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a size");
    size.trim().trim_end_matches(" kB").parse().expect("a number")
}

#[test]
fn a_published_port_is_free_when_its_cell_has_ended() {
    let internet = Internet::new();
    for _ in 0..6 {
        internet.cellblock("run --rm --image host -p 8080:80 -- true").ok();
    }
    internet.cellblock("run -d --rm --name s --image host -p 8080:80 -- sleep 100").ok();
    internet.cellblock("run --rm --image host -p 8080:80 -- true").fails(125).says("8080");
    internet.cellblock("stop -t 0 s").ok();
    internet.cellblock("run --rm --image host -p 8080:80 -- true").ok();
}

/// What reads the cell's bytes could do little more than that if it were taken over.
#[test]
fn the_network_has_a_sandbox_of_its_own() {
    let internet = Internet::new();
    let world = &internet.world;
    internet.cellblock("run -d --rm --name s --image host -p 8080:80 -- sleep 100").ok();
    let network = network_process(world, "s").expect("the process of the network");
    let children = std::fs::read_to_string(format!("/proc/{network}/task/{network}/children")).expect("children");
    let helper = children.split_ascii_whitespace().next().expect("the helper").to_owned();
    assert_eq!(std::fs::read_to_string(format!("/proc/{helper}/comm")).expect("a name"), "cellblock-who\n");
    for (process, threads) in [(network.to_string(), 5), (helper, 1)] {
        let tasks: Vec<_> = std::fs::read_dir(format!("/proc/{process}/task")).expect("threads").flatten().collect();
        assert!(tasks.len() >= threads, "{process}: {}", tasks.len());
        for task in tasks {
            let status = std::fs::read_to_string(task.path().join("status")).expect("its status");
            for line in ["Seccomp:\t2", "NoNewPrivs:\t1", "CapPrm:\t0000000000000000", "CapEff:\t0000000000000000"] {
                assert!(status.lines().any(|l| l == line), "{line}: {status}");
            }
        }
    }
    let start = internet.cellblock("net log s").ok();
    let landlock = internet
        .cellblock("doctor")
        .run()
        .stdout()
        .lines()
        .any(|l| l.starts_with('\u{2713}') && l.contains("Landlock"));
    assert_eq!(landlock, !start.contains("no Landlock"), "{start}");
    internet.cellblock("stop -t 0 s").ok();
    world.wait("their end", || !Path::new(&format!("/proc/{network}")).exists());
}

/// Also with the person's subordinate ids, where there are some: in the other tests' namespaces there are none.
#[test]
fn a_service_of_this_machine_is_reached_with_every_kind_of_ids() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("its number").port();
    let world = World::new();
    let script = format!(
        "import socket\nfor name in ['host.cellblock.internal', '127.0.0.1', 'example.com']:\n    try:\n        \
         print(socket.create_connection((name, {port}), 5).recv(100))\n    except OSError as error:\n        \
         print(type(error).__name__)\n"
    );
    world.write("home/demo/t.py", &script);
    let out = std::thread::scope(|scope| {
        scope.spawn(|| {
            let (mut stream, _) = listener.accept().expect("one connection");
            let _ = stream.write_all(b"hello from the host\n");
        });
        world.cellblock(&format!("run --image host --no-default-allow --allow host:{port} -- python3 t.py")).ok()
    });
    assert_eq!(out, "b'hello from the host\\n'\nConnectionRefusedError\ngaierror\n");
}

/// R22: nothing is left open when the network's process dies.
#[test]
fn a_dead_network_is_no_network() {
    let internet = Internet::new();
    let world = &internet.world;
    world.write("home/demo/t.py", &format!("{}\nwhile True:\n    open('state', 'w').write(get('allowed.test')[:3] + str(names('allowed.test')))\n    time.sleep(0.1)\n", include_str!("../data/client.py")));
    internet
        .cellblock("run -d --rm --name n --image host --no-default-allow --allow allowed.test -- python3 t.py")
        .ok();
    let state = || std::fs::read_to_string(world.path("home/demo/state")).unwrap_or_default();
    world.wait("the network", || state().starts_with("200"));
    let mut killed = Vec::new();
    for _ in 0..3 {
        let pid = network_process(world, "n").expect("the process of the network");
        assert!(!killed.contains(&pid));
        killed.push(pid);
        let pid = rustix::process::Pid::from_raw(pid).expect("an id");
        std::fs::write(world.path("home/demo/state"), "").expect("cleared");
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("killed");
        // The supervisor makes another, with the rules that the cell was started with.
        world.wait("the network again", || state().starts_with("200") && network_process(world, "n").is_some());
    }
    internet.cellblock("stop -t 0 n").ok();
    assert!(world.leftovers().is_empty());
}

/// R11: what was denied while the cell ran stays denied by the process that takes the place of a dead one.
#[test]
fn a_live_denial_outlives_the_process_of_the_network() {
    let internet = Internet::new();
    let world = &internet.world;
    let script = "\nwhile True:\n    open('state', 'w').write(get('allowed.test')[:3] + get('other.test')[:3])\n    time.sleep(0.1)\n";
    world.write("home/demo/t.py", &format!("{}{script}", include_str!("../data/client.py")));
    let flags = "--rm --name n --image host --no-default-allow --allow allowed.test --allow other.test";
    internet.cellblock(&format!("run -d {flags} -- python3 t.py")).ok();
    let state = || std::fs::read_to_string(world.path("home/demo/state")).unwrap_or_default();
    world.wait("the network", || state() == "200200");
    internet.cellblock("net deny other.test n").ok();
    world.wait("the denial", || state() == "200no ");
    // A time that no clock reaches is none; the process has to live through it.
    internet.cellblock("net allow wild.test n --for 18446744073709551615s").ok();
    let pid = network_process(world, "n").and_then(rustix::process::Pid::from_raw).expect("the process of the network");
    world.write("home/demo/state", "");
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("killed");
    world.wait("the network again", || network_process(world, "n").is_some() && state().starts_with("200"));
    assert_eq!(state(), "200no ");
    assert!(internet.cellblock("net show n").ok().contains("net deny"));
    internet.cellblock("stop -t 0 n").ok();
    assert!(world.leftovers().is_empty());
}

/// R23: a published port is on 127.0.0.1 and leads to the cell's own 127.0.0.1.
#[test]
fn a_published_port_leads_into_the_cell_and_nowhere_else() {
    let internet = Internet::new();
    let world = &internet.world;
    world.write("home/demo/index.html", "from the cell\n");
    let flags = "--image host -p 8080:8000 -p 8081:8001 -p 0.0.0.0:8082:8000 -p 8083:9";
    internet
        .cellblock(&format!(
            "run -d --rm --name web {flags} -- sh -c 'python3 -m http.server --bind ::1 8001 & exec python3 -m http.server --bind 127.0.0.1 8000'"
        ))
        .ok();
    let get = |url: &str| internet.call(Path::new("curl"), &["-sS", "-m", "5", url]).run();
    world.wait("the server", || get("http://127.0.0.1:8080/index.html").code() == Some(0));
    world.wait("the other server", || get("http://127.0.0.1:8081/index.html").code() == Some(0));
    assert_eq!(get("http://127.0.0.1:8080/index.html").stdout(), "from the cell\n");
    assert_eq!(get("http://127.0.0.1:8081/index.html").stdout(), "from the cell\n", "a server on ::1 inside");
    assert_eq!(get("http://172.20.0.1:8082/index.html").stdout(), "from the cell\n", "an address that was asked for");
    assert_eq!(get("http://172.20.0.1:8080/").code(), Some(7), "other addresses are not open");
    assert_ne!(get("http://127.0.0.1:8083/").code(), Some(0), "nobody listens there inside");
    let done = internet.cellblock("run --image host -p 8080:80 -- true").fails(125);
    done.says("cannot publish 127.0.0.1:8080:80").says("another program has that port");
    internet.cellblock("stop -t 0 web").ok();
    assert_eq!(get("http://127.0.0.1:8080/").code(), Some(7), "gone with the cell");
}

/// R21: whoever connects to published ports takes no places from the cell.
#[test]
fn connections_to_published_ports_have_places_of_their_own() {
    let internet = Internet::new();
    let world = &internet.world;
    let script = "
import threading
server = socket.create_server(('127.0.0.1', 8000), backlog=512)
def greet(held=[]):
    while True:
        held.append(server.accept()[0])
        held[-1].sendall(b'x')
threading.Thread(target=greet, daemon=True).start()
while True:
    open('state', 'w').write(get('allowed.test')[:3])
    time.sleep(0.1)
";
    world.write("home/demo/t.py", &format!("{}{script}", include_str!("../data/client.py")));
    let many = "
import socket, os, time
held, refused = [], 0
for number in range(560):
    try:
        stream = socket.create_connection(('127.0.0.1', 8080), 5)
        if not stream.recv(1):
            raise OSError
        held.append(stream)
    except OSError:
        refused += 1
print(len(held), refused, flush=True)
os.remove('state')
while not os.path.exists('state') or not open('state').read():
    time.sleep(0.05)
print(open('state').read())
";
    world.write("home/demo/many.py", many);
    let flags = "--rm --name web --image host --no-default-allow --allow allowed.test -p 8080:8000";
    internet.cellblock(&format!("run -d {flags} -- python3 t.py")).ok();
    world.wait("the network", || std::fs::read_to_string(world.path("home/demo/state")).is_ok_and(|s| s == "200"));
    assert_eq!(internet.call(Path::new("python3"), &["many.py"]).ok(), "512 48\n200\n");
    let told = |line: &serde_json::Value| line["why"] == "too many connections to published ports at a time";
    assert!(internet.audit().iter().any(told), "{:?}", internet.audit());
    internet.cellblock("stop -t 0 web").ok();
}

/// R24, R10: a cell that floods the resolver fills no disk, and others are still answered.
#[test]
fn a_flood_of_look_ups_is_counted_and_answered() {
    let internet = Internet::new();
    let script = "
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sock.connect(('198.18.0.1', 53))
sock.setblocking(False)
for number in range(100000):
    label = b'n%d' % number
    query = struct.pack('>HHHHHH', 7, 0x100, 1, 0, 0, 0) + bytes([len(label)]) + label + b'\\x04evil\\x07example\\0' + struct.pack('>HH', 1, 1)
    try:
        sock.send(query)
        sock.recv(1000)
    except OSError:
        pass
time.sleep(1.2)
open('state', 'w').write(get('allowed.test')[:3])
while not __import__('os').path.exists('enough'):
    time.sleep(0.05)
";
    let world = &internet.world;
    world.write("home/demo/t.py", &format!("{}{script}", include_str!("../data/client.py")));
    let flags = "--name flood --image host --no-default-allow --allow allowed.test";
    let child = internet.cellblock(&format!("run --rm {flags} -- python3 t.py")).start();
    let state = || std::fs::read_to_string(world.path("home/demo/state")).unwrap_or_default();
    world.wait("the end of the flood", || !state().is_empty());
    assert_eq!(state(), "200");
    let memory = memory(network_process(world, "flood").expect("the process of the network"));
    assert!(memory < 40 << 10, "{memory} kB");
    world.write("home/demo/enough", "");
    assert!(child.wait_with_output().expect("its end").status.success());
    let lines = internet.audit();
    assert!(lines.len() < 3000, "{} lines", lines.len());
    let names = lines.iter().filter(|l| l["name"].as_str().is_some_and(|n| n.ends_with("evil.example")));
    assert!(names.count() > 10, "some of them are named");
    assert!(lines.iter().any(|l| l["count"].as_u64() > Some(1000)), "the others are counted");
}

/// R21: there is an end to connections, and to the memory that silent ones take.
#[test]
fn silent_connections_are_limited_in_number_and_memory() {
    let internet = Internet::new();
    let world = &internet.world;
    let script = format!(
        "{}
import resource
resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
address = names('allowed.test', socket.AF_INET)[0]
held, refused = [], 0
for number in range(1100):
    try:
        stream = socket.create_connection((address, 9000), 5)
        stream.sendall(b'x')
        if not stream.recv(1):
            raise OSError
        held.append(stream)
    except OSError:
        refused += 1
open('state', 'w').write(f'{{len(held)}} {{refused}}')
while not __import__('os').path.exists('enough'):
    time.sleep(0.05)
for stream in held:
    stream.close()
time.sleep(0.5)
print(raw(address, 9000, b'again\\n'))
",
        include_str!("../data/client.py")
    );
    world.write("home/demo/t.py", &script);
    let mut child = internet
        .cellblock("run --rm --name many --image host --no-default-allow --allow allowed.test:9000 -- python3 t.py")
        .start();
    world.wait("the connections", || {
        world.path("home/demo/state").exists()
            && !std::fs::read_to_string(world.path("home/demo/state")).unwrap_or_default().is_empty()
    });
    let state = std::fs::read_to_string(world.path("home/demo/state")).expect("counts");
    let pid = network_process(world, "many").expect("the process of the network");
    let memory = memory(pid);
    world.write("home/demo/enough", "");
    let mut out = String::new();
    child.stdout.take().expect("a pipe").read_to_string(&mut out).expect("text");
    let _ = child.wait();
    let (held, refused) = state.split_once(' ').expect("two numbers");
    let limit: u32 = held.parse().expect("a number");
    assert!((900..=1024).contains(&limit), "{state}");
    assert!(refused.parse::<u32>().expect("a number") >= 76, "{state}");
    assert_eq!(out, "b'again\\n'\n", "there is room again once they have ended");
    assert!(memory < 40 << 10, "{memory} kB");
    assert!(internet.audit().iter().any(|l| l["why"].as_str().is_some_and(|w| w.starts_with("more than 1024"))));
}

/// A stalled client does not hold its place for ever, and a dead server is told from a denied one.
#[test]
fn a_server_that_is_not_there_is_no_denial() {
    let internet = Internet::new();
    let script = "
print(raw('nowhere.test', 9000, b'x'))
print(raw('allowed.test', 9001, b'x'))
";
    let flags = "--no-default-allow --allow nowhere.test:9000 --allow allowed.test:9001";
    assert_eq!(internet.python(flags, script), "ConnectionResetError\nConnectionResetError\n");
    let whys: Vec<String> = internet
        .audit()
        .iter()
        .filter(|l| l["event"] == "connect")
        .map(|l| format!("{} {}", l["verdict"], l["why"]))
        .collect();
    assert!(whys.iter().any(|w| w.contains("allow") && w.contains("cannot resolve")), "{whys:?}");
    assert!(whys.iter().any(|w| w.contains("allow") && w.contains("does not answer")), "{whys:?}");
}

/// The kernel takes the cell's interface away with the supervisor; the cell itself too.
#[test]
fn a_killed_supervisor_leaves_no_network() {
    let world = World::new();
    let mut child = world.cellblock("run --rm --image host --name gone -- sh -c 'echo up; sleep 100'").start();
    let mut line = String::new();
    BufReader::new(child.stdout.take().expect("a pipe")).read_line(&mut line).expect("a line");
    let pid = network_process(&world, "gone").expect("the process of the network");
    child.kill().expect("killed");
    let _ = child.wait();
    world.wait("the end of the network", || !Path::new(&format!("/proc/{pid}")).exists());
    world.wait("nothing left", || world.cellblock("status").run().code() == Some(0) && world.leftovers().is_empty());
}

/// R12: a resolver that has another answer each time; what it says is looked at each time, and nothing else is dialled.
#[test]
fn a_resolver_that_changes_its_answer_leads_nowhere_else() {
    let inwards = ["127.0.0.1", "10.1.2.3", "169.254.169.254", "172.20.0.1", "0.0.0.0", "198.18.0.1"];
    let turns = |(index, address): (usize, &&str)| {
        // First a good answer, then the bad one, then both of them, bad first, then the good one for ever.
        format!("turn{index}.test 93.184.216.34 {address} {address},93.184.216.34 93.184.216.34\n")
    };
    let internet =
        Internet::with(|world| world.write("turns", &inwards.iter().enumerate().map(turns).collect::<String>()));
    internet.ask_the_name_server();
    let script = format!(
        "
hosts = [f'turn{{number}}.test' for number in range({})]
print(len({{names(host)[0] for host in hosts for _ in range(3)}}))
for turn in range(4):
    # Longer than an answer is kept.
    time.sleep(5.2 if turn else 0)
    print([get(host).split(' ', 3) for host in hosts])
",
        inwards.len()
    );
    let out = internet.python("--no-default-allow --allow **", &script);
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!(lines[0], inwards.len().to_string(), "look-ups inside ask nobody and have one answer each: {out}");
    for (turn, line) in lines[1..].iter().enumerate() {
        let (reached, refused) = (line.matches("['200'").count(), line.matches("['403', 'cellblock:'").count());
        let want = if turn == 1 { (0, inwards.len()) } else { (inwards.len(), 0) };
        assert_eq!((reached, refused), want, "turn {turn}: {out}");
    }
    let reached = internet.reached();
    assert!(
        reached
            .lines()
            .all(|l| l.starts_with("http 93.184.216.34 GET turn") || l.starts_with("asked") || l.starts_with("udp 53")),
        "{reached}"
    );
    assert_eq!(reached.matches("http 93.184.216.34").count(), 3 * inwards.len(), "{reached}");
    let whys: Vec<String> = internet.audit().iter().filter_map(|l| l["why"].as_str().map(str::to_owned)).collect();
    for (index, address) in inwards.iter().enumerate() {
        assert!(
            whys.iter().any(|why| why.starts_with(&format!("turn{index}.test leads to {address}, which is"))),
            "{address}: {whys:?}"
        );
    }
}

/// Name servers that refuse to tell IPv6 addresses, or do not answer when they are asked for them: the others are found all the same.
#[test]
fn a_name_server_that_knows_nothing_of_ipv6_is_enough() {
    let names = "refused.test 93.184.216.34\nunanswered.test 93.184.216.34\n";
    let internet = Internet::with(|world| world.write("turns", names));
    internet.ask_the_name_server();
    let script = "
began = time.monotonic()
for name in ('refused.test', 'unanswered.test', 'gone.test'):
    print(get(name).split(' ', 3)[0])
print(time.monotonic() - began < 8)
";
    let flags = "--no-default-allow --allow refused.test --allow unanswered.test --allow gone.test";
    assert_eq!(internet.python(flags, script), "200\n200\nConnectionResetError\nTrue\n");
}

/// A resolver that is gone, one that is silent, a server that is silent: each fails in its time, is told, and hinders nothing else.
#[test]
fn what_does_not_answer_is_told_and_hinders_nobody() {
    let internet = Internet::new();
    let script = "
import threading
def ask_all():
    began = time.monotonic()
    print(raw('silent.test', 9000, b'x'), 4 < time.monotonic() - began < 8)
other = threading.Thread(target=ask_all)
other.start()
time.sleep(0.5)
began = time.monotonic()
print(get('allowed.test')[:3], time.monotonic() - began < 2)
other.join()
";
    let flags = "--no-default-allow --allow allowed.test --allow silent.test:9000 --allow unknown.test:9000";
    assert_eq!(internet.python(flags, script), "200 True\nConnectionResetError True\n");
    // Nobody is at this address: what is sent there is lost.
    internet.world.write("resolv.conf", "nameserver 93.184.216.250\noptions timeout:1 attempts:1\n");
    let script = "print(raw('unknown.test', 9000, b'x'), get('allowed.test')[:3])";
    assert_eq!(internet.python(flags, script), "ConnectionResetError 200\n");
    // A name server that refuses at once: nobody listens there.
    internet.world.write("resolv.conf", "nameserver 127.0.0.1\noptions timeout:1 attempts:1\n");
    assert_eq!(internet.python(flags, script), "ConnectionResetError 200\n");
    let whys: Vec<String> =
        internet.audit().iter().map(|l| format!("{} {} {}", l["name"], l["verdict"], l["why"])).collect();
    let told = |name: &str, words: &str| {
        whys.iter().filter(|w| w.contains(name) && w.contains("allow") && w.contains(words)).count()
    };
    assert!(told("silent.test", "the server does not answer: timed out") > 0, "{whys:?}");
    // A client that is told at once may try its other address too.
    assert!(told("unknown.test", "the host cannot resolve the name") > 1, "{whys:?}");
}

/// R21: who does not say what it wants gives its place up. Where the server may speak first there is nothing to be waited for.
#[test]
fn a_client_that_says_nothing_gives_its_place_up() {
    let internet = Internet::new();
    let script = r"
began = time.monotonic()
streams = []
for port, first in [(443, b''), (443, b'\x16\x03\x01\x02\0'), (80, b''), (80, b'GET / HTTP/1.1\r\nHo'), (9000, b'')]:
    streams.append(socket.create_connection((names('allowed.test')[0], port), 5))
    streams[-1].sendall(first)
open_still = streams.pop()
for stream in streams:
    stream.settimeout(25)
    try:
        while stream.recv(1000):
            pass
    except ConnectionResetError:
        pass
    print(14 < time.monotonic() - began < 20)
open_still.sendall(b'hello\n')
print(open_still.recv(100))
";
    let out = internet.python("--no-default-allow --allow allowed.test:80,443,9000", script);
    assert_eq!(out, "True\nTrue\nTrue\nTrue\nb'hello\\n'\n");
}
