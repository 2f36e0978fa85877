# Small helpers for what a cell tries: each returns words, and never raises for what a network may do.
import http.client, json, socket, ssl, struct, sys, time

# Seconds to wait for an answer.
PATIENCE = 8


def names(name, family=0):
    try:
        return sorted({entry[4][0] for entry in socket.getaddrinfo(name, 80, family, socket.SOCK_STREAM)})
    except socket.gaierror as error:
        return "no name" if error.errno in (socket.EAI_NONAME, -5) else f"gaierror {error.errno}"


def get(host, path="/", port=80, headers={}, address=None, method="GET"):
    try:
        connection = http.client.HTTPConnection(address or host, port, timeout=PATIENCE)
        connection.request(method, path, headers={"Host": host, **headers})
        answer = connection.getresponse()
        return f"{answer.status} {answer.read().decode()}"
    except socket.gaierror:
        return "no name"
    except (OSError, http.client.HTTPException) as error:
        return type(error).__name__


def tls(address, sni, port=443, path="/", host=None):
    try:
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        with socket.create_connection((address, port), PATIENCE) as plain, context.wrap_socket(plain, server_hostname=sni) as stream:
            stream.sendall(f"GET {path} HTTP/1.1\r\nHost: {host or sni}\r\nConnection: close\r\n\r\n".encode())
            return stream.recv(65536).decode().splitlines()[0]
    except ssl.SSLError as error:
        return error.reason or "SSLError"
    except OSError as error:
        return type(error).__name__


def raw(address, port, data=b"", wait=True):
    """What comes back for `data`: bytes, or the name of the error."""
    try:
        with socket.create_connection((address, port), PATIENCE) as stream:
            stream.settimeout(PATIENCE)
            got = b""
            if data:
                stream.sendall(data)
            while wait and (piece := stream.recv(65536)):
                got += piece
                if len(got) >= len(data) and b"\n" in got:
                    break
            return got
    except OSError as error:
        return type(error).__name__


def ask(name, kind, server="198.18.0.1", tcp=False, more=b"", count=1):
    """A DNS query by hand: (rcode, number of answers) or the name of the error."""
    question = b"".join(bytes([len(label)]) + label.encode() for label in name.rstrip(".").split(".")) + b"\0"
    query = struct.pack(">HHHHHH", 7, 0x100, count, 0, 0, 0) + (question + struct.pack(">HH", kind, 1)) * count + more
    try:
        if tcp:
            with socket.create_connection((server, 53), 5) as stream:
                stream.sendall(struct.pack(">H", len(query)) + query)
                answer = stream.recv(65536)[2:]
        else:
            with socket.socket(socket.AF_INET6 if ":" in server else socket.AF_INET, socket.SOCK_DGRAM) as sock:
                sock.settimeout(5)
                sock.connect((server, 53))
                sock.send(query)
                answer = sock.recv(65536)
        return (answer[3] & 15, struct.unpack(">H", answer[6:8])[0])
    except OSError as error:
        return type(error).__name__


def datagram(address, port, data=b"hello", wait=3):
    """What comes back over UDP, or the name of the error."""
    try:
        with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.settimeout(wait)
            sock.connect((address, port))
            sock.send(data)
            return sock.recv(65536)
    except OSError as error:
        return type(error).__name__


def ping(address):
    """`answered`, or the name of the error: an echo request by a socket that needs no capability (icmp(7))."""
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_ICMP) as sock:
            sock.settimeout(3)
            sock.connect((address, 0))
            sock.send(b"\x08\0\0\0\0\0\0\1" + bytes(16))
            return "answered" if sock.recv(4096)[0] == 0 else "something else"
    except OSError as error:
        return type(error).__name__
