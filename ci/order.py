"""Prints the functions that starts of a cell run, a symbol a line, in the order in which they are first called: for a linker to put them together,
so that a start touches few pages (docs/performance.md). Called by ci/linker: order.py PROGRAM, which needs its symbols and is static, for x86-64.

Each function of the program begins with a breakpoint, which the first process to come there takes away (ptrace(2)). To write into programs that have
become namespaces' own, an ordinary user traces from a user namespace.
"""
import ctypes
import os
import pwd
import shutil
import signal
import struct
import subprocess
import sys
import tempfile

# What people do; an empty script stands for the agent. Single ids, for a tracer takes newuidmap's privilege away.
STARTS = """
set -e
$1 run --yes --net none --image host -- true
$1 run --yes --image host -- true
$1 run --yes --image host claude-code
$1 run --yes --image host --detach --name order-$$ -- sleep 60
$1 exec order-$$ -- true
$1 stop order-$$
"""
PATIENCE = 120
libc = ctypes.CDLL(None, use_errno=True)
# The system call itself, which hands what is read over by a pointer, and not the C library's function.
SYS_PTRACE = 101
libc.syscall.restype = ctypes.c_long
libc.syscall.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
# linux/ptrace.h
PEEK, POKE, CONT, GETREGS, SETREGS, SEIZE = 2, 5, 7, 12, 13, 0x4206
FORK, VFORK, CLONE, EXEC = 1, 2, 3, 4
OPTIONS = 1 << FORK | 1 << VFORK | 1 << CLONE | 1 << EXEC | 1 << 20  # the last: killed with the tracer
RIP = 16 * 8  # in struct user_regs_struct
WALL = 0x40000000


def functions(path):
    """Offset in the file of each function -> (name, address)."""
    with open(path, "rb") as file:
        image = file.read()
    # ET_DYN, EM_X86_64
    if image[:6] != b"\x7fELF\x02\x01" or struct.unpack_from("<HH", image, 16) != (3, 62):
        sys.exit("no position-independent program for x86-64")
    offset, = struct.unpack_from("<Q", image, 40)
    size, count = struct.unpack_from("<HH", image, 58)
    sections = [struct.unpack_from("<IIQQQQIIQQ", image, offset + size * n) for n in range(count)]
    found = {}
    for section in sections:
        if section[1] != 2:  # SHT_SYMTAB
            continue
        strings = sections[section[6]][4]
        for at in range(section[4], section[4] + section[5], 24):
            name, info, _, home, address, length = struct.unpack_from("<IBBHQQ", image, at)
            if info & 15 != 2 or not length or home >= count or not sections[home][2] & 4:  # STT_FUNC, in a section that is executed
                continue
            start = strings + name
            name = image[start:image.index(b"\0", start)].decode()
            found.setdefault(address - sections[home][3] + sections[home][4], (name, address))
    return found, image


class Tracer:
    """A command and all that it starts."""

    def __init__(self, program):
        self.found, self.image = functions(program)
        self.file = os.stat(program)
        self.by_address = {address: (name, offset) for offset, (name, address) in self.found.items()}
        self.base = {}  # thread -> where the program lies in it, or None
        self.calls = {}  # process -> names, in order
        self.seen = set()

    def run(self, command, **options):
        child = subprocess.Popen(["sh", "-c", 'kill -STOP $$; exec "$@"', "sh", *command], **options)
        os.waitpid(child.pid, os.WUNTRACED)
        self.ptrace(SEIZE, child.pid, OPTIONS)
        os.kill(child.pid, signal.SIGCONT)
        status = None
        while True:
            try:
                pid, how = os.waitpid(-1, WALL)
            except ChildProcessError:
                break
            if os.WIFSTOPPED(how):
                try:
                    self.stopped(pid, how)
                except (ProcessLookupError, FileNotFoundError):
                    pass  # It has been killed meanwhile.
            else:
                self.base.pop(pid, None)
                if pid == child.pid:
                    status = os.waitstatus_to_exitcode(how)
        return status

    def ptrace(self, request, pid, data=None, address=None):
        if libc.syscall(SYS_PTRACE, request, pid, address, data) == -1:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))

    def stopped(self, pid, how):
        event, number, deliver = how >> 16, os.WSTOPSIG(how), 0
        if event == EXEC:
            self.base[pid] = self.plant(pid)
        elif not event and not (number == signal.SIGTRAP and self.met(pid)):
            deliver = number
        self.ptrace(CONT, pid, deliver)

    def parts(self, pid):
        """Where `pid` has the program's file: addresses, rights, and offset in the file."""
        running = os.stat(f"/proc/{pid}/exe")
        if (running.st_dev, running.st_ino) != (self.file.st_dev, self.file.st_ino):
            return
        with open(f"/proc/{pid}/maps") as maps:
            for line in maps:
                place, rights, offset, _, inode = line.split()[:5]
                if int(inode) == self.file.st_ino:
                    yield *(int(word, 16) for word in place.split("-")), rights, int(offset, 16)

    def lies(self, pid):
        return next((begin for begin, _, _, offset in self.parts(pid) if offset == 0), None)

    def plant(self, pid):
        """Breakpoints, if `pid` executes the program; returns where that lies."""
        for begin, end, rights, offset in self.parts(pid):
            if "x" not in rights:
                continue
            text = bytearray(self.image[offset:offset + end - begin])
            for at in self.found:
                if offset <= at < offset + len(text):
                    text[at - offset] = 0xCC
            with open(f"/proc/{pid}/mem", "r+b", buffering=0) as memory:
                memory.seek(begin)
                memory.write(text)
        return self.lies(pid)

    def met(self, pid):
        """Takes away the breakpoint that `pid` has met, if that is what has stopped it."""
        if pid not in self.base:
            self.base[pid] = self.lies(pid)
        registers = ctypes.create_string_buffer(27 * 8)
        self.ptrace(GETREGS, pid, ctypes.addressof(registers))
        here = struct.unpack_from("<Q", registers, RIP)[0] - 1
        name, offset = self.by_address.get(here - (self.base[pid] or 0), (None, None))
        if name is None:
            return False
        # Not by /proc/PID/mem: once a process has changed namespaces that is root's, also for a tracer who may do everything.
        word = ctypes.c_ulong()
        self.ptrace(PEEK, pid, ctypes.addressof(word), here)
        self.ptrace(POKE, pid, word.value & ~0xFF | self.image[offset], here)
        struct.pack_into("<Q", registers, RIP, here)
        self.ptrace(SETREGS, pid, ctypes.addressof(registers))
        if name not in self.seen:
            self.seen.add(name)
            self.calls.setdefault(pid, []).append(name)
        return True


def give_up(*_):
    # All that is traced ends with the tracer.
    sys.exit("no order: the starts took too long")


def trace(program, user):
    """All starts as `user`, or as who we are; the functions in the order of their processes."""
    base = tempfile.mkdtemp(prefix="cborder")
    try:
        folders = [os.path.join(base, *path) for path in (["home"], ["run"], ["home", "bin"], ["home", "demo"])]
        for folder in folders:
            # Root's cells are in the machine's own folders where others could not pass through these.
            os.mkdir(folder, 0o711 if os.geteuid() == 0 and not user else 0o700)
        copy = shutil.copy(program, os.path.join(base, "cellblock"))
        agent = os.path.join(folders[2], "claude")
        with open(agent, "w") as file:
            file.write("#!/bin/sh\n")
        os.chmod(agent, 0o755)
        if shutil.which("git"):
            subprocess.run(["git", "init", "--quiet", folders[3]], check=True, env={"PATH": os.environ["PATH"], "HOME": folders[0]})
        # While it is ours: in /tmp its owner could put something else in its place.
        os.chmod(base, 0o711)
        become = {}
        if user:
            subprocess.run(["chown", "-R", f"{user.pw_uid}:{user.pw_gid}", base], check=True)
            become = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
        environment = {"PATH": f"{folders[2]}:{os.environ['PATH']}", "HOME": folders[0], "XDG_RUNTIME_DIR": folders[1],
                       "XDG_DATA_HOME": os.path.join(base, "home", "data"), "XDG_STATE_HOME": os.path.join(base, "home", "state")}
        tracer = Tracer(copy)
        with tempfile.TemporaryFile() as said:
            status = tracer.run(["sh", "-c", STARTS, "sh", copy], cwd=folders[3], env=environment, stdin=subprocess.DEVNULL, stdout=said, stderr=said, **become)
            said.seek(0)
            if status != 0:
                sys.exit(f"no order: the starts ended with {status}: {said.read().decode(errors='replace').strip()}")
        return [name for pid in sorted(tracer.calls) for name in tracer.calls[pid]]
    finally:
        shutil.rmtree(base, ignore_errors=True)


signal.signal(signal.SIGALRM, give_up)
signal.alarm(PATIENCE)
names = trace(sys.argv[1], pwd.getpwnam("nobody") if os.geteuid() == 0 else None)
if os.geteuid() == 0:
    names += trace(sys.argv[1], None)
print("\n".join(dict.fromkeys(names)))
