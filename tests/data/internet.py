"""A small internet in a network namespace of its own: every address is served. What is reached is written down, a line each.

internet.py LOG PEM: waits for the interface `eth0`, sets it up, serves, and says `ready` on standard output.
"""
import json, os, socket, ssl, subprocess, sys, threading, time

log_file = open(sys.argv[1], "a", buffering=1)
pem = sys.argv[2]
lock = threading.Lock()


def log(*words):
    with lock:
        log_file.write(" ".join(str(word) for word in words) + "\n")


def ip(*words):
    subprocess.run(["ip", *words], check=True)


def plumb():
    for _ in range(500):
        if subprocess.run(["ip", "link", "show", "eth0"], capture_output=True).returncode == 0:
            break
        time.sleep(0.01)
    ip("link", "set", "lo", "up")
    ip("addr", "add", "172.20.0.2/24", "dev", "eth0")
    ip("-6", "addr", "add", "fd20::2/64", "dev", "eth0", "nodad")
    ip("link", "set", "eth0", "up")
    ip("route", "add", "local", "0.0.0.0/0", "dev", "lo", "table", "local")
    ip("-6", "route", "add", "local", "::/0", "dev", "lo", "table", "local")
    # Before `local ::/0`, or answers to the host would stay here: unlike those of IPv4, the two tables are not one.
    ip("-6", "route", "add", "fd20::1/128", "dev", "eth0", "table", "local")


def local(connection):
    return connection.getsockname()[0].removeprefix("::ffff:")


def http(connection, scheme):
    """Answers each request with what was asked, until the client ends."""
    stream = connection.makefile("rwb")
    while True:
        line = stream.readline()
        if not line:
            return
        method, path, _ = line.decode("latin-1").split(" ", 2)
        headers = {}
        while (field := stream.readline().rstrip(b"\r\n")):
            name, value = field.decode("latin-1").split(":", 1)
            headers[name.lower()] = value.strip()
        if headers.get("transfer-encoding") == "chunked":
            body = b""
            while (size := int(stream.readline(), 16)):
                body += stream.read(size)
                stream.readline()
            stream.readline()
        else:
            body = stream.read(int(headers.get("content-length", 0)))
        log(scheme, local(connection), method, headers.get("host"), path)
        if path.startswith("/git/"):
            git(stream, method, path, headers, body)
            continue
        if headers.get("upgrade") == "echo":
            stream.write(b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n")
            stream.flush()
            while (piece := connection.recv(4096)):
                connection.sendall(piece.upper())
            return
        size = int(path.removeprefix("/bytes/")) if path.startswith("/bytes/") else None
        found = page(headers.get("host", ""), path)
        text = json.dumps({"scheme": scheme, "at": local(connection), "method": method, "path": path, "headers": headers,
                           "body": len(body)}).encode() if size is None else b"x" * size
        kind = b"text/html" if found and path.endswith("/") else b"application/json"
        text = text if found is None else found
        stream.write(b"HTTP/1.1 200 OK\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n" % (kind, len(text)))
        if method != "HEAD":
            stream.write(text)
        stream.flush()


def git(stream, method, path, headers, body):
    """The repositories in www/git, by git's own server, for whoever gives the password in www/git/password."""
    path, _, query = path.removeprefix("/git").partition("?")
    given = headers.get("authorization", "")
    log("git", path, given)
    if given != "Basic " + open("www/git/password").read().strip():
        stream.write(b"HTTP/1.1 401 Who is it\r\nWWW-Authenticate: Basic realm=git\r\nContent-Length: 0\r\n\r\n")
        return stream.flush()
    env = {"GIT_PROJECT_ROOT": os.path.abspath("www/git"), "GIT_HTTP_EXPORT_ALL": "1", "PATH_INFO": path, "QUERY_STRING": query,
           "REQUEST_METHOD": method, "CONTENT_TYPE": headers.get("content-type", ""), "REMOTE_USER": "person",
           "CONTENT_LENGTH": str(len(body)), "HTTP_CONTENT_ENCODING": headers.get("content-encoding", ""),
           "GIT_PROTOCOL": headers.get("git-protocol", ""), "PATH": os.environ["PATH"], "HOME": "/nowhere",
           "GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "safe.directory", "GIT_CONFIG_VALUE_0": "*"}
    done = subprocess.run(["git", "http-backend"], input=body, env=env, capture_output=True)
    head, _, rest = done.stdout.partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    status = next((line.removeprefix("Status: ") for line in lines if line.startswith("Status: ")), "200 OK")
    fields = "".join(line + "\r\n" for line in lines if not line.startswith("Status: "))
    stream.write(f"HTTP/1.1 {status}\r\n{fields}Content-Length: {len(rest)}\r\n\r\n".encode() + rest)
    stream.flush()


def page(host, path):
    """What lies in the folder of this name, under the path as it was written; for a folder its `index.html`."""
    try:
        file = os.path.join("web", host.split(":")[0], path.split("?")[0].lstrip("/"))
        with open(os.path.join(file, "index.html") if os.path.isdir(file) else file, "rb") as opened:
            return opened.read()
    except OSError:
        return None


def sshd():
    """The real one, by the `sshd_config` of the world. As root it wants a folder of its own, and that root's login is not locked."""
    words = ["/usr/sbin/sshd", "-D", "-e", "-f", "sshd_config"]
    if os.geteuid() == 0:
        with open("shadow", "w") as shadow:
            shadow.write("root:*:19000:0:99999:7:::\nsshd:!:19000::::::\n")
        script = "mount -t tmpfs none /run && mkdir -m 755 /run/sshd && mount --bind shadow /etc/shadow && exec \"$@\""
        words = ["unshare", "-m", "sh", "-c", script, "sh", *words]
    with open("sshd.log", "w") as told:
        subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=told, stderr=told)
    for _ in range(500):
        if "listening" in open("sshd.log").read():
            return
        time.sleep(0.01)
    sys.exit("sshd does not listen: " + open("sshd.log").read())


def greet(connection, _):
    """The server speaks first, as ssh's does."""
    log("tcp22", local(connection))
    connection.sendall(b"SSH-2.0-test\r\n")
    while (piece := connection.recv(4096)):
        connection.sendall(piece)


def echo(connection, _):
    log("tcp9000", local(connection))
    while (piece := connection.recv(65536)):
        connection.sendall(piece)


def any_port(connection, _):
    log("tcp", local(connection), connection.getsockname()[1])


def files(port, folder):
    """What is below `folder`, as a web server has it."""
    import functools, http.server

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    class Server(http.server.ThreadingHTTPServer):
        address_family = socket.AF_INET6

    server = Server(("::", port), functools.partial(Quiet, directory=folder))
    threading.Thread(target=server.serve_forever, daemon=True).start()


def serve(port, talk, word="", tls=None):
    listener = socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=512)

    def one(connection):
        try:
            with connection:
                if tls:
                    connection = tls.wrap_socket(connection, server_side=True)
                talk(connection, word)
        except (OSError, ValueError) as error:
            log("broken", port, type(error).__name__)

    def loop():
        while True:
            connection, _ = listener.accept()
            threading.Thread(target=one, args=(connection,), daemon=True).start()

    threading.Thread(target=loop, daemon=True).start()


def count_packets(port):
    """Datagrams of UDP. Port 53 is a name server for the names of the world's hosts file, port 9001 echoes, the others say nothing."""
    sock = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    # Answers have to come from the address that was asked.
    sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
    sock.bind(("::", port))
    while True:
        data, controls, _, sender = sock.recvmsg(65536, 256)
        log("udp", port)
        answer = name_server(data) if port == 53 else data.upper() if port == 9001 else None
        if answer:
            info = [(level, kind, value[:16] + bytes(4)) for level, kind, value in controls]
            sock.sendmsg([answer], info, 0, sender)


def name_server(query):
    """An answer with the address of `hosts`, in which the first line that has a name counts."""
    labels, at = [], 12
    while at < len(query) and query[at]:
        labels.append(query[at + 1:at + 1 + query[at]].decode("latin-1"))
        at += 1 + query[at]
    kind, name = query[at + 1:at + 3], ".".join(labels).lower()
    family = {b"\0\1": socket.AF_INET, b"\0\x1c": socket.AF_INET6}.get(kind)
    found = []
    for line in open("hosts"):
        address, *names = line.split()
        if name in names and family == (socket.AF_INET6 if ":" in address else socket.AF_INET):
            found.append(socket.inet_pton(family, address))
    known = any(name in line.split() for line in open("hosts"))
    refused = False
    if name in turns:
        known = True
        log("asked", name, "A" if family == socket.AF_INET else "other")
        if family == socket.AF_INET:
            # Several of one turn are joined by commas.
            turn = turns[name].pop(0) if len(turns[name]) > 1 else turns[name][0]
            found = [socket.inet_pton(family, address) for address in turn.split(",")]
        # As some name servers do, about whatever they have no answer of that kind for.
        refused = family != socket.AF_INET and name == "refused.test"
        if family != socket.AF_INET and name == "unanswered.test":
            return None
    head = query[:2] + bytes([0x81, 0x82 if refused else 0x80 if known else 0x83]) + b"\0\1" + len(found).to_bytes(2, "big") + bytes(4)
    records = b"".join(b"\xc0\x0c" + kind + b"\0\1\0\0\0\5" + len(a).to_bytes(2, "big") + a for a in found)
    return head + query[12:at + 5] + records


turns = {}
if os.path.exists("turns"):
    turns = {words[0]: words[1:] for words in map(str.split, open("turns"))}
plumb()
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(pem)
serve(80, http, "http")
serve(443, http, "https", context)
serve(8443, http, "https", context)
serve(8080, http, "http")
if os.path.exists("sshd_config"):
    sshd()
else:
    serve(22, greet)
serve(9000, echo)
serve(53, any_port)
serve(5432, any_port)
files(8000, "www")
for port in (53, 443, 9001):
    threading.Thread(target=count_packets, args=(port,), daemon=True).start()
print("ready", flush=True)
time.sleep(600)
