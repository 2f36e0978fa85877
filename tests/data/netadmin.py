# In the namespaces of the cell whose first process is argv[1], with every capability there: changes whatever can be changed of its network,
# and tries after each change what must not be reached. Comes after client.py.
import concurrent.futures, ctypes, os, subprocess

# What nobody answers is denied as well; what is reached after all is seen in the internet's log.
PATIENCE = 1.5
os.environ["RES_OPTIONS"] = "timeout:1 attempts:1"
pid, project, rung = sys.argv[1:4]
libc = ctypes.CDLL(None, use_errno=True)


def must(result, what):
    if result < 0:
        raise OSError(ctypes.get_errno(), what)


spaces = [os.open(f"/proc/{pid}/ns/{kind}", os.O_RDONLY) for kind in ("user", "mnt", "net")]
for space in spaces:
    must(libc.setns(space, 0), "setns")
os.chdir(project)

# What this process may do has to be passed on to programs (capabilities(7)): inheritable, then ambient.
header = (ctypes.c_uint32 * 2)(0x20080522, 0)
sets = (ctypes.c_uint32 * 6)()
must(libc.capget(header, sets), "capget")
assert sets[1] & 1 << 12, "CAP_NET_ADMIN"
sets[2], sets[5] = sets[1], sets[4]
must(libc.capset(header, sets), "capset")
for number in range(64):
    libc.prctl(47, 2, number, 0, 0)


def run(words, fine=True, given=""):
    done = subprocess.run(words.split(), capture_output=True, text=True, input=given)
    assert not fine or done.returncode == 0, (words, done.stderr)
    return done.returncode == 0


def denied(after):
    """All of this has to fail, in whatever way."""
    tries = {
        "direct": lambda: get("93.184.216.34"),
        "direct, another": lambda: get("other.test", address="93.184.216.35"),
        "direct, v6": lambda: get("six.test", address="2606:2800:220:1:248:1893:25c8:1946"),
        "metadata": lambda: get("169.254.169.254"),
        "private": lambda: get("10.1.2.3"),
        "this host": lambda: get("172.20.0.1"),
        "its neighbour": lambda: get("172.20.0.2"),
        "another name": lambda: get("other.test", address=known),
        "another name, tls": lambda: tls(known, "other.test"),
        "unlisted port": lambda: raw(known, 9000, b"x\n"),
        "unlisted port, direct": lambda: raw("93.184.216.34", 22),
        "a name": lambda: str(names("other.test")),
        "udp": lambda: datagram("93.184.216.34", 9001, wait=0.3),
    }
    # At once: some of them wait for answers that nobody gives.
    with concurrent.futures.ThreadPoolExecutor(len(tries)) as pool:
        outcomes = {what: pool.submit(attempt) for what, attempt in tries.items()}
    for what, outcome in outcomes.items():
        got = outcome.result()
        assert what != "a name" or not got.startswith("["), (after, got)
        refused = got.startswith(b"HTTP/1.1 403") if isinstance(got, bytes) else not got.startswith(("200", "HTTP/1.1 200"))
        assert refused, (after, what, got)


known = names("allowed.test", socket.AF_INET)[0]
assert get("allowed.test").startswith("200"), get("allowed.test")
denied("nothing")

# Rules of its own, and none: where the sockets get everything by rules they get nothing then.
run("nft flush ruleset")
denied("nft flush ruleset")
sent = "tcp dport { 80, 443, 22, 9000 } ip daddr != 127.0.0.0/8 dnat to %s:80" % known
run("nft -f -", given="table ip x {\n chain out {\n  type nat hook output priority -150\n  %s\n }\n}\n" % sent)
denied("everything is sent to an allowed name")
run("nft flush ruleset")

# Addresses and routes, its own and wrong ones.
device = "lo" if rung.startswith("lo") else "eth0"
run("ip addr add 93.184.216.35/32 dev " + device)
run("ip addr add 172.20.0.9/24 dev " + device)
denied("foreign addresses")
run("ip link add d0 type dummy", fine=False)
if os.path.exists("/sys/class/net/d0"):
    run("ip link set d0 up")
    run("ip addr add 172.20.0.77/24 dev d0")
    run("ip route replace default via 172.20.0.2 dev d0", fine=False)
    denied("a device of its own")
run("ip route add local 10.0.0.0/8 dev lo", fine=False)
run("ip route replace 169.254.169.254/32 dev " + device, fine=False)
denied("foreign routes")
for family in "-4", "-6":
    for table in "main", "local":
        run(f"ip {family} route flush table {table}", fine=False)
denied("no routes")
run("ip route add local 127.0.0.0/8 dev lo", fine=False)
run("ip route add local 0.0.0.0/0 dev lo", fine=False)
run("ip route add default dev " + device, fine=False)
denied("one route for everything")
run("ss -K state listening", fine=False)
denied("listeners shot down")
if device == "eth0":
    run("ip link del eth0")
    denied("no device")
print("all of it was tried")
