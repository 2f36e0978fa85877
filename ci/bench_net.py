"""What a network costs, by each way into it, in turn in one run: medians, and ratios to the host's loopback. Called by ci/bench --net:
bench_net.py STAGE ROUNDS USER. As root it makes a network namespace of its own first, with an internet behind a veth pair, so that a
name can be reached as in earnest and nothing of the machine's network takes part."""
import glob
import json
import os
import pwd
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

stage, rounds, user = sys.argv[1], int(sys.argv[2]), pwd.getpwnam(sys.argv[3])
world = os.geteuid() == 0
if world and len(sys.argv) == 4:
    os.execvp("unshare", ["unshare", "-n", "-m", "python3", *sys.argv, "inside"])
become = ["setpriv", "--reuid", user.pw_name, "--regid", str(user.pw_gid), "--init-groups"] if world and user.pw_uid != 0 else []
cellblock, load = os.path.join(stage, "cellblock"), os.path.join(stage, "load")
base = tempfile.mkdtemp(prefix="cbnet", dir=os.environ.get("BENCH_TMP"))
project = os.path.join(base, "demo")
run_dir = os.path.join(base, "run")
for folder in (base, project, run_dir):
    os.makedirs(folder, exist_ok=True)
    os.chmod(folder, 0o711)
    if world:
        os.chown(folder, user.pw_uid, user.pw_gid)
env = {"PATH": os.environ["PATH"], "HOME": base, "XDG_RUNTIME_DIR": run_dir, "XDG_DATA_HOME": os.path.join(base, "data"), "TERM": "xterm"}
PORT, PROXY = 18080, 18888
# Names and addresses of the world made as root. A public address, for others are refused without a word in the rule.
NAME, ADDRESS, WORLD, BEYOND = "bench.test", "93.184.216.34", "172.20.0.1", "172.20.0.2"
# Below cellblock's limit of connections at a time, 1024.
HELD = 1000
SECONDS = float(os.environ.get("BENCH_SECONDS", "1"))
started = []


def start(command, **options):
    """Starts what finish() ends."""
    process = subprocess.Popen(command, env=env, cwd=project, text=True, **options)
    started.append(process)
    return process


def finish():
    for process in reversed(started):
        if process.stdin:
            process.stdin.close()
        else:
            process.terminate()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()


def must(*command):
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=env, cwd=project)
    if done.returncode:
        raise OSError(f"{' '.join(command)}: {done.stdout.strip()}")
    return done.stdout


def serve(where, prefix=()):
    process = start([*prefix, load, "serve", where], stdout=subprocess.PIPE)
    process.stdout.readline()
    return process


def make_world():
    """The network namespace this runs in gets an internet; the tun device, which some machines keep from their users, is opened to all in
    this mount namespace only."""
    must("ip", "link", "set", "lo", "up")
    beyond = serve("0.0.0.0:80", ("unshare", "-n"))
    inside = lambda *command: must("nsenter", "-t", str(beyond.pid), "-n", *command)
    must("ip", "link", "add", "up0", "type", "veth", "peer", "name", "eth0", "netns", str(beyond.pid))
    must("ip", "addr", "add", WORLD + "/24", "dev", "up0")
    must("ip", "link", "set", "up0", "up")
    must("ip", "route", "add", "default", "via", BEYOND)
    inside("ip", "addr", "add", BEYOND + "/24", "dev", "eth0")
    inside("ip", "link", "set", "lo", "up")
    inside("ip", "addr", "add", ADDRESS + "/32", "dev", "lo")
    inside("ip", "link", "set", "eth0", "up")
    for path, text in (("/etc/hosts", f"127.0.0.1 localhost\n{ADDRESS} {NAME}\n"), ("/etc/resolv.conf", "nameserver 127.0.0.1\n")):
        ours = os.path.join(base, os.path.basename(path))
        with open(ours, "w") as file:
            file.write(text)
        os.chmod(ours, 0o644)
        must("mount", "--bind", ours, path)
    must("mount", "-t", "tmpfs", "tmpfs", "/mnt")
    must("mknod", "-m", "666", "/mnt/tun", "c", "10", "200")
    must("mount", "--bind", "/mnt/tun", "/dev/net/tun")


def ended_with(process):
    process.kill()
    return OSError((process.stderr.read() or "no word of why").strip().splitlines()[-1])


class Variant:
    """A way to a server, with the client that stays at its near end."""

    def __init__(self, name, command, relay=None):
        self.name, self.results, self.memory, self.used = name, [], {}, []
        self.client = start([*become, *command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.relay = relay(self) if relay else None
        answer = self.order("requests 20 1 5")
        if not answer["done"]:
            raise OSError("its requests get no answer")
        self.weigh("idle")

    def order(self, text):
        try:
            print(text, file=self.client.stdin, flush=True)
            return json.loads(self.client.stdout.readline())
        except (BrokenPipeError, json.JSONDecodeError):
            raise ended_with(self.client) from None

    def processor(self):
        """Seconds of processor that the relay has used: the better measure where others use the processors too."""
        if not self.relay:
            return 0
        with open(f"/proc/{self.relay}/stat") as file:
            return sum(map(int, file.read().rsplit(") ", 1)[1].split()[11:13])) / os.sysconf("SC_CLK_TCK")

    def weigh(self, when):
        if self.relay:
            time.sleep(0.3)
            self.memory[when] = memory(self.relay)

    def round(self):
        before = self.processor()
        one, eight = self.order(f"stream 1 {SECONDS}"), self.order(f"stream 8 {SECONDS}")
        between = self.processor()
        single, many = self.order("requests 1500 1 2"), self.order("requests 6000 16 3")
        gibibytes = (one["gbps"] + eight["gbps"]) * SECONDS * 1e9 / 8 / 2**30
        self.used.append((between - before, gibibytes, self.processor() - between, single["done"] + many["done"]))
        errors = sum(part["errors"] for part in (one, eight, single, many))
        self.results.append((one["gbps"], eight["gbps"], single["p50"], single["p99"], many["rate"], errors))


def memory(pid):
    """Resident and private dirty MiB of a process."""
    fields = {"Rss:": 0, "Private_Dirty:": 0}
    with open(f"/proc/{pid}/smaps_rollup") as file:
        for line in file:
            words = line.split()
            if words[0] in fields:
                fields[words[0]] += int(words[1])
    return [field / 1024 for field in fields.values()]


def descendants(pid):
    for path in glob.glob(f"/proc/{pid}/task/*/children"):
        with open(path) as file:
            for child in file.read().split():
                yield int(child)
                yield from descendants(int(child))


def named(name):
    """Finds the process of that name in the client's tree."""
    def find(variant):
        end = time.monotonic() + 5
        while time.monotonic() < end:
            for pid in [variant.client.pid, *descendants(variant.client.pid)]:
                try:
                    with open(f"/proc/{pid}/comm") as file:
                        if file.read().strip().startswith(name[:15]):
                            return pid
                except OSError:
                    continue
            time.sleep(0.05)
        raise OSError(f"no process {name}")
    return find


def cell(rule, *target):
    return [cellblock, "run", "--yes", "--image", "host", "--net", "names", "--no-default-allow", "--allow", rule,
            "-v", f"{load}:/load:ro", "--", "/load", "work", *target]


def slirp(variant):
    """Attaches slirp4netns to the namespaces of the waiting client."""
    end = time.monotonic() + 5
    own = os.readlink("/proc/self/ns/net")
    while time.monotonic() < end and os.readlink(f"/proc/{variant.client.pid}/ns/net") == own:
        time.sleep(0.02)
    time.sleep(0.1)
    ready, write = os.pipe()
    process = start([*become, "slirp4netns", "--configure", "--mtu=65520", f"--ready-fd={write}", str(variant.client.pid), "tap0"],
                    pass_fds=[write], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    os.close(write)
    if os.read(ready, 1) != b"1":
        raise ended_with(process)
    # The client waits for this line; it resolves its address only then.
    print("go", file=variant.client.stdin, flush=True)
    return process.pid


def tinyproxy(_):
    config = os.path.join(base, "tinyproxy.conf")
    with open(config, "w") as file:
        file.write(f"Port {PROXY}\nListen 127.0.0.1\nTimeout 60\nMaxClients 2000\nLogLevel Error\nLogFile \"{base}/tinyproxy.log\"\n")
    os.chmod(config, 0o644)
    return start([*become, "tinyproxy", "-d", "-c", config], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).pid


def candidates():
    """Name, the program it needs, and how to make it."""
    local = f"127.0.0.1:{PORT}"
    host = f"host.cellblock.internal:{PORT}"
    yield "host loopback", load, lambda: Variant("host loopback", [load, "work", local])
    yield "cellblock names", load, lambda: Variant("cellblock names", cell(f"host:{PORT}", host), named("cellblock-net"))
    yield "cellblock names, not HTTP", load, lambda: Variant(
        "cellblock names, not HTTP", cell(f"host:{PORT}", host, "--raw"), named("cellblock-net"))
    if world:
        yield "veth, no cell", load, lambda: Variant("veth, no cell", [load, "work", f"{ADDRESS}:80"])
        yield "cellblock names, over that veth", load, lambda: Variant(
            "cellblock names, over that veth", cell(NAME, f"{NAME}:80"), named("cellblock-net"))
    gateway = BEYOND if world else default_gateway()
    pasta = ["pasta", "--config-net", "--quiet", "-t", "none", "-u", "none", "-T", "none", "-U", "none", "-f"]
    yield "pasta", "pasta", lambda: Variant("pasta", [*pasta, "--", load, "work", f"{gateway}:{PORT}"], named("passt"))
    yield "slirp4netns", "slirp4netns", lambda: Variant(
        "slirp4netns", ["unshare", "-r", "-n", "sh", "-c", f"read line; exec {load} work 10.0.2.2:{PORT}"], slirp)
    yield "tinyproxy", "tinyproxy", lambda: started_proxy(local)


def started_proxy(local):
    pid = tinyproxy(None)
    time.sleep(0.5)
    return Variant("tinyproxy", [load, "work", local, f"127.0.0.1:{PROXY}"], lambda _: pid)


def default_gateway():
    words = must("ip", "-4", "route", "show", "default").split()
    return words[words.index("via") + 1] if "via" in words else "127.0.0.1"


def starts(count=40):
    """Added milliseconds of a start: differences of pairs, in turn which comes first."""
    took = {"none": [], "names": []}
    command = lambda net: [*become, cellblock, "run", "--yes", "--image", "host", "--net", net, "--", "true"]
    for number in range(count + 2):
        for net in ("none", "names") if number % 2 else ("names", "none"):
            begin = time.perf_counter()
            must(*command(net))
            if number >= 2:
                took[net].append((time.perf_counter() - begin) * 1000)
    added = sorted(names - none for names, none in zip(took["names"], took["none"]))
    quarters = (added[len(added) // 4], added[len(added) * 3 // 4])
    print(f"\nstart, {count} pairs: --net none {statistics.median(took['none']):.1f} ms, --net names {statistics.median(took['names']):.1f} ms, "
          f"added {statistics.median(added):.1f} ms (middle half {quarters[0]:.1f} to {quarters[1]:.1f})")


def table(variants):
    print("\nGbit/s; requests that are each a connection of their own, one after the other (p50, p99) and of 16 clients (a second)")
    print(f"{'median of ' + str(rounds):32} {'1 stream':>8} {'ratio':>6} {'8':>6} {'ratio':>6} {'p50 µs':>7} {'p99':>6} {'req/s':>7} {'ratio':>6} errors")
    medians = {v.name: [statistics.median(column) for column in zip(*v.results)] for v in variants}
    first = medians["host loopback"]
    for name, (one, eight, p50, p99, rate, _) in medians.items():
        errors = sum(result[5] for v in variants if v.name == name for result in v.results)
        print(f"{name:32} {one:8.1f} {one / first[0]:6.2f} {eight:6.1f} {eight / first[1]:6.2f} {p50:7.0f} {p99:6.0f} "
              f"{rate:7.0f} {rate / first[4]:6.2f} {errors:6}")
    if "pasta" in medians:
        pasta = medians["pasta"]
        for name in medians:
            if name.startswith("cellblock"):
                ratios = [mine / theirs for mine, theirs in zip(medians[name], pasta[:5])]
                print(f"{name} to pasta: 1 stream {ratios[0]:.2f}, 8 streams {ratios[1]:.2f}, p50 {ratios[2]:.2f}, requests/s {ratios[4]:.2f}")
    columns = "".join(f" {one:>14}" for one in ("idle", "after load", f"{HELD} held"))
    print(f"\n{'the relay: MiB resident (private)':36}{columns} {'CPU ms/GiB':>11} {'CPU µs/request':>15}")
    for variant in variants:
        if variant.relay:
            cells = [f"{variant.memory[when][0]:.1f} ({variant.memory[when][1]:.1f})" if when in variant.memory else "-"
                     for when in ("idle", "loaded", "held")]
            streams, moved, asking, asked = map(sum, zip(*variant.used))
            print(f"{variant.name:36}" + "".join(f" {one:>14}" for one in cells)
                  + f" {streams * 1e3 / moved:11.0f} {asking * 1e6 / max(asked, 1):15.0f}")


def main():
    print(f"\n== network, as {user.pw_name}, {'in a namespace with an internet of its own' if world else 'on this network'}")
    if world:
        make_world()
    serve(f"127.0.0.1:{PORT}")
    starts()
    variants = []
    for name, program, make in candidates():
        try:
            if not shutil.which(program):
                raise OSError("not installed")
            variants.append(make())
        except OSError as error:
            print(f"  not measured: {name}: {error}")
    for number in range(rounds):
        turn = number % len(variants)
        for variant in variants[turn:] + variants[:turn]:
            variant.round()
    for variant in variants:
        variant.weigh("loaded")
        # tinyproxy keeps no connection after its answer.
        if variant.relay and variant.name != "tinyproxy":
            try:
                variant.order(f"hold {HELD}")
                variant.weigh("held")
                variant.order("requests 1 1 1")
            except OSError as error:
                print(f"  not measured: {HELD} connections held through {variant.name}: {error}")
    table(variants)


try:
    main()
finally:
    finish()
    shutil.rmtree(base, ignore_errors=True)
    print(f"load at the end: {' '.join(map(str, os.getloadavg()))}")
