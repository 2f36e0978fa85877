//! What keeps a cell in, looked at from outside: its gateway, the processes beside it, and what somebody with all power over its own namespace can do.

use std::path::Path;

use cellblock_tests::internet::Internet;
use serde_json::Value;

use crate::network_faults::network_process;

/// Runs Python on the world's host, which has more power over the cell's namespaces than anything in the cell can have.
fn outside(internet: &Internet, script: &str, args: &[&str]) -> String {
    internet.world.write("outside.py", &format!("{}\n{OUTSIDE}\n{script}\n", include_str!("../data/client.py")));
    let file = internet.world.path("outside.py");
    let mut all = vec![file.to_str().expect("utf-8")];
    all.extend(args);
    internet.call(Path::new("python3"), &all).ok()
}

const OUTSIDE: &str = "
import ctypes, fcntl, os, subprocess, sys
libc = ctypes.CDLL(None, use_errno=True)
def namespace(kind, pid, task=None):
    return f'/proc/{pid}/task/{task or pid}/ns/{kind}'
def owner(path):
    # NS_GET_USERNS, ioctl_ns(2)
    with open(path) as file:
        found = fcntl.ioctl(file, 0xb701)
        try:
            return os.readlink(f'/proc/self/fd/{found}')
        finally:
            os.close(found)
def enter(path):
    with open(path) as file:
        if libc.setns(file.fileno(), 0):
            raise OSError(ctypes.get_errno(), 'setns')
def capabilities(which):
    # capset(2): effective, permitted and inheritable ones, twice 32 bits
    sets = which & 0xffffffff, which >> 32
    header, data = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)(*[sets[0]] * 3, *[sets[1]] * 3)
    assert libc.capset(header, data) == 0
def power(pid):
    # That of whoever has made the cell, also for programs that are started. Root has it.
    if os.readlink(namespace('user', pid)) == os.readlink('/proc/self/ns/user'):
        return
    enter(namespace('user', pid))
    most = int(open('/proc/sys/kernel/cap_last_cap').read())
    capabilities((2 << most) - 1)
    for capability in range(most + 1):
        libc.prctl(47, 2, capability, 0, 0)
def run(*words):
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout
";

/// A cell that waits, named `n`; the ids of its first process and of the process of its network.
fn waiting(internet: &Internet, flags: &str) -> (String, String) {
    internet.cellblock(&format!("run -d --rm --name n --image host --no-default-allow {flags} -- sleep 100")).ok();
    let text = std::fs::read_to_string(internet.world.path("run/cellblock/cells/n/running.json")).expect("a record");
    let record: Value = serde_json::from_str(&text).expect("JSON");
    let network = network_process(&internet.world, "n").expect("the process of the network");
    (record["init"].to_string(), network.to_string())
}

/// R1, R3: what the gateway is made of, and who has power over it.
#[test]
fn the_gateway_has_no_way_out_and_is_not_the_cells() {
    let internet = Internet::new();
    let (init, network) = waiting(&internet, "--allow allowed.test");
    let script = "
init, network = sys.argv[1:]
own = os.readlink(namespace('net', network))
tasks = {os.readlink(namespace('net', network, task)): task for task in os.listdir(f'/proc/{network}/task')}
[gateway] = [namespace('net', network, task) for space, task in tasks.items() if space != own]
print('the cell has its own', owner(namespace('net', init)) == os.readlink(namespace('user', init)))
print('and not the gateway', owner(gateway) == os.readlink(namespace('user', network)) != owner(namespace('net', init)))
power(network)
enter(gateway)
print(sorted(line.split(': ')[1].split('@')[0] for line in run('ip', '-o', 'link').splitlines()))
print([run('cat', f'/proc/sys/net/{name}').strip() for name in ['ipv4/ip_forward', 'ipv6/conf/all/forwarding']])
";
    let out = outside(&internet, script, &[&init, &network]);
    assert_eq!(out, "the cell has its own True\nand not the gateway True\n['gw0', 'lo']\n['0', '0']\n");
    internet.cellblock("stop -t 0 n").ok();
}

/// R1, R2: a cell's root has no such power, and with it he would only cut himself off.
#[test]
fn all_power_over_the_cells_namespace_leads_nowhere() {
    let internet = Internet::new();
    let (init, network) = waiting(&internet, "--allow allowed.test");
    let script = r"
init, network = sys.argv[1:]
power(network)
enter(namespace('net', init))
def sum16(data):
    total = sum(struct.unpack(f'>{len(data) // 2}H', data))
    total = (total & 0xffff) + (total >> 16)
    return ~((total & 0xffff) + (total >> 16)) & 0xffff
def frame(source, target, protocol, rest):
    head = struct.pack('>BBHHHBBH4s4s', 0x45, 0, 20 + len(rest), 1, 0, 64, protocol, 0, socket.inet_aton(source), socket.inet_aton(target))
    return gateway + own + b'\x08\0' + head[:10] + struct.pack('>H', sum16(head)) + head[12:] + rest
def udp(port, data):
    return struct.pack('>HHHH', 5000, port, 8 + len(data), 0) + data
def syn(source, target, port):
    head = struct.pack('>HHIIBBHHH', 5000, port, 1, 0, 0x50, 2, 65535, 0, 0)
    whole = socket.inet_aton(source) + socket.inet_aton(target) + struct.pack('>HH', 6, len(head)) + head
    return head[:16] + struct.pack('>H', sum16(whole)) + head[18:]
print('asked', ask('allowed.test', 1))
print('allowed', get('allowed.test', address='198.18.1.0')[:3])
print('denied', get('other.test', address='93.184.216.35')[:3])
own, gateway = [bytes.fromhex(text.replace(':', '')) for text in
    [run('ip', '-o', 'link', 'show', 'eth0').split('link/ether ')[1].split()[0],
     run('ip', 'neigh', 'show', '198.18.0.1').split('lladdr ')[1].split()[0]]]
wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x800))
wire.bind(('eth0', 0x800))
wire.settimeout(5)
def answered(packet, port):
    wire.send(packet)
    while True:
        piece = wire.recv(4096)
        if piece[:6] == own and piece[34:36] == struct.pack('>H', port):
            return True
query = struct.pack('>HHHHHH', 7, 0x100, 1, 0, 0, 0) + b'\x07allowed\x04test\0\0\1\0\1'
print('frames are well made', answered(frame('198.18.0.2', '198.18.0.1', 17, udp(53, query)), 53))
for source in ['198.18.0.2', '172.20.0.1', '93.184.216.34', '127.0.0.1', '198.18.0.1']:
    for target in ['93.184.216.35', '172.20.0.1', '172.20.0.2', '10.1.2.3', '127.0.0.1']:
        wire.send(frame(source, target, 17, udp(9001, b'hello')))
        wire.send(frame(source, target, 17, udp(53, query)))
        wire.send(frame(source, target, 6, syn(source, target, 8000)))
for words in ['addr add 172.20.0.99/24 dev eth0', 'addr add 10.1.2.4/8 dev eth0', 'route add 93.184.216.0/24 via 198.18.0.1',
              'route add local 192.0.2.0/24 dev lo', 'link set eth0 promisc on']:
    run('ip', *words.split())
subprocess.run(['nft', 'flush', 'ruleset'])
print('still', [get('other.test', address=address)[:3] for address in ['93.184.216.35', '169.254.169.254']])
print('neighbours', [raw(address, 80) for address in ['172.20.0.1', '10.1.2.3']])
print('twin', get('allowed.test', address='198.18.1.0')[:3])
run('ip', 'link', 'del', 'eth0')
print('cut off', get('allowed.test', address='198.18.1.0'))
";
    let out = outside(&internet, script, &[&init, &network]);
    let want = "asked (0, 1)\nallowed 200\ndenied 403\nframes are well made True\nstill ['403', '403']\n";
    assert!(out.starts_with(want), "{out}");
    assert!(out.contains("twin 200\ncut off OSError\n"), "{out}");
    let neighbours = out.lines().find(|line| line.starts_with("neighbours")).expect("tried");
    assert!(!neighbours.contains("b'"), "{out}");
    let reached = internet.reached();
    assert_eq!(reached.lines().filter(|line| !line.contains("GET allowed.test")).count(), 0, "{reached}");
    assert_eq!(reached.lines().count(), 2, "the probe works: {reached}");
    internet.cellblock("stop -t 0 n").ok();
}

/// R5: there are families of sockets that know no network namespace.
#[test]
fn no_family_of_sockets_is_open_but_the_four() {
    let internet = Internet::new();
    let script = "
opened = set()
for family in range(1, 64):
    for kind in [socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_RAW, socket.SOCK_SEQPACKET]:
        for protocol in [0, 1, 16]:
            try:
                socket.socket(family, kind, protocol).close()
                opened.add((family, protocol if family == socket.AF_NETLINK else 0))
            except OSError:
                pass
print(sorted(opened))
";
    // AF_UNIX, AF_INET, AF_INET6, and AF_NETLINK for routes alone.
    let four = "[(1, 0), (2, 0), (10, 0), (16, 0)]\n";
    for user in ["", "-u root"] {
        assert_eq!(internet.python(&format!("--no-default-allow {user}"), script), four, "{user}");
    }
}

/// R7: sockets of the host's programs, by path and abstract.
#[test]
fn sockets_of_the_host_are_not_there() {
    let internet = Internet::new();
    let world = &internet.world;
    world.write(
        "server.py",
        "
import os, socket, sys, threading
def serve(address):
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(address)
    listener.listen()
    if not address.startswith('\\0'):
        os.chmod(address, 0o777)
    while True:
        listener.accept()[0].sendall(b'hello')
for address in sys.argv[2:] + ['\\0' + sys.argv[1]]:
    threading.Thread(target=serve, args=(address,)).start()
",
    );
    let paths = ["server.py", "home/demo/granted", "run/agent"].map(|path| world.path(path).display().to_string());
    let [program, granted, hidden] = &paths;
    let name = hidden.replace('/', "-");
    let mut server = internet.call(Path::new("python3"), &[program, &name, granted, hidden]).start();
    world.wait("the sockets", || world.path("home/demo/granted").exists() && world.path("run/agent").exists());
    let script = format!(
        "
for address in ['{granted}', '{hidden}', '\\0{name}']:
    try:
        with socket.socket(socket.AF_UNIX) as stream:
            stream.connect(address)
            print(stream.recv(10))
    except OSError as error:
        print(type(error).__name__)
"
    );
    assert_eq!(internet.python("", &script), "b'hello'\nFileNotFoundError\nConnectionRefusedError\n");
    assert_eq!(outside(&internet, &script, &[]), "b'hello'\nb'hello'\nb'hello'\n", "the probe works");
    let _ = server.kill();
    let _ = server.wait();
}

/// R8: what works for the cell is not seen by it, and nobody without privilege looks into it.
#[test]
fn the_networks_process_is_out_of_sight_and_of_reach() {
    let internet = Internet::new();
    let (_, network) = waiting(&internet, "--allow allowed.test");
    let seen = "
import os
print(sorted({open(f'/proc/{pid}/comm').read().strip() for pid in os.listdir('/proc') if pid.isdigit()} - {'python3'}))
print(any(word in open('/proc/self/mountinfo').read() for word in ['net.names', 'net.denied', 'audit']))
";
    internet.world.write("home/demo/seen.py", seen);
    let inside = internet.cellblock("exec n -- python3 seen.py").ok();
    assert_eq!(inside, "['cellblock-init', 'sleep']\nFalse\n", "its own first process and no other of ours");
    // In the same user namespace, as the same user, without a capability: the same as the process itself.
    let script = "
network = sys.argv[1]
power(network)
for capability in range(64):
    libc.prctl(24, capability, 0, 0, 0)
capabilities(0)
twin = subprocess.Popen(['sleep', '100'])
time.sleep(0.2)
for pid in [network, twin.pid]:
    for file in ['environ', 'maps', 'mem', 'ns/net', 'cwd']:
        try:
            (os.readlink if file in ('ns/net', 'cwd') else open)(f'/proc/{pid}/{file}')
            print(end='open ')
        except PermissionError:
            print(end='closed ')
    print()
twin.kill()
";
    let out = outside(&internet, script, &[&network]);
    assert_eq!(out, "closed closed closed closed closed \nopen open open open open \n");
    internet.cellblock("stop -t 0 n").ok();
}
