#!/usr/bin/python3
"""Makes every call that changes files by name, in the folder given, and says what came of each.

The output is the same behind a guard and without one: it names nothing that differs from run to run.
"""

import ctypes
import errno
import fcntl
import mmap
import os
import platform
import signal
import socket
import stat
import sys
import threading
import time

libc = ctypes.CDLL(None, use_errno=True)
AT = -100
NR = {
    "x86_64": dict(open=2, creat=85, mkdir=83, rmdir=84, unlink=87, rename=82, link=86, symlink=88, mknod=133, chmod=90, chown=92,
                   lchown=94, truncate=76, utime=132, utimes=235, futimesat=261, access=21, openat=257, mkdirat=258, mknodat=259,
                   unlinkat=263, renameat=264, renameat2=316, linkat=265, symlinkat=266, fchmodat=268, fchownat=260, utimensat=280,
                   faccessat=269, faccessat2=439, fchmodat2=452, openat2=437, fchmod=91, fchown=93, setxattr=188, lsetxattr=189,
                   fsetxattr=190, removexattr=197, lremovexattr=198, fremovexattr=199),
    "aarch64": dict(openat=56, mkdirat=34, mknodat=33, unlinkat=35, renameat2=276, linkat=37, symlinkat=36, fchmodat=53, fchownat=54,
                    utimensat=88, faccessat=48, faccessat2=439, truncate=45, fchmod=52, fchown=55, setxattr=5, fsetxattr=7),
}[platform.machine()]


def call(name, *args):
    if name not in NR:
        return None
    given = [ctypes.c_char_p(a) if isinstance(a, bytes) else a if isinstance(a, ctypes.Array) else ctypes.c_long(a) for a in args]
    result = libc.syscall(ctypes.c_long(NR[name]), *given)
    return errno.errorcode[ctypes.get_errno()] if result == -1 else result


def say(what, value=""):
    print(what, value, flush=True)


def mode(path):
    s = os.lstat(path)
    return "%o %d %s%s" % (s.st_mode, s.st_nlink, "me" if s.st_uid == os.geteuid() else "other", " gid" if s.st_gid == os.getegid() else "")


def plain(name, *args):
    """A call that returns no descriptor."""
    result = call(name, *args)
    if result is not None:
        say(name + " " + " ".join(repr(a) if isinstance(a, bytes) else "%x" % a for a in args if not isinstance(a, ctypes.Array)), result)


def opens(name, *args):
    result = call(name, *args)
    if result is None:
        return
    if isinstance(result, str):
        say("%s %r" % (name, args), result)
        return
    flags = fcntl.fcntl(result, fcntl.F_GETFL)
    close = fcntl.fcntl(result, fcntl.F_GETFD)
    say("%s %r" % (name, args), "fd flags %o cloexec %d %o" % (flags, close, os.fstat(result).st_mode))
    os.close(result)


W, RW, CREAT, EXCL, TRUNC, APPEND, NONBLOCK, DIR, NOFOLLOW, CLO = (
    os.O_WRONLY, os.O_RDWR, os.O_CREAT, os.O_EXCL, os.O_TRUNC, os.O_APPEND, os.O_NONBLOCK, os.O_DIRECTORY, os.O_NOFOLLOW, os.O_CLOEXEC)


def opening():
    for umask in (0o022, 0o077, 0):
        os.umask(umask)
        for wanted in (0o666, 0o777, 0o4755):
            name = b"m%o-%o" % (umask, wanted)
            opens("openat", AT, name, W | CREAT | CLO, wanted)
            opens("creat", b"c" + name, wanted)
            plain("mkdirat", AT, b"d" + name, wanted)
            plain("mkdir", b"D" + name, wanted)
            plain("mknod", b"p" + name, stat.S_IFIFO | wanted, 0)
            plain("mknodat", AT, b"r" + name, stat.S_IFREG | wanted, 0)
            plain("mknodat", AT, b"z" + name, wanted & 0o777, 0)
            for kind in (b"", b"c", b"d", b"D", b"p", b"r", b"z"):
                if os.path.lexists(kind + name):
                    say(kind + name, mode(kind + name))
    os.umask(0o022)
    os.mkdir("dir")
    os.symlink("m22-666", "link")
    os.symlink("nowhere", "dangling")
    os.symlink("loop", "loop")
    os.symlink("dir", "todir")
    for flags in (W, RW, W | CREAT, W | CREAT | EXCL, W | TRUNC, os.O_RDONLY | TRUNC, os.O_RDONLY | CREAT, RW | APPEND, W | NONBLOCK,
                  W | NOFOLLOW, W | CREAT | NOFOLLOW, W | DIR, 3, W | CREAT | APPEND | CLO, W | os.O_SYNC, RW | os.O_NOATIME,
                  os.O_PATH | W, W | CREAT | EXCL | NOFOLLOW):
        for name in (b"m22-666", b"dir", b"link", b"loop", b"todir", b"none/x", b"m22-666/x", b".", b"..", b"", b"dir/", b"m22-666/",
                     b"todir/", b"dir/.", b"./m22-666", b"dir/../m22-666", b"todir/../m22-666", b"//.//m22-666"):
            opens("openat", AT, name, flags, 0o600)
            opens("open", name, flags, 0o600)
    for flags in (W, W | CREAT | NOFOLLOW, W | CREAT | EXCL, W | CREAT):
        opens("openat", AT, b"dangling", flags, 0o640)
    say("nowhere", mode("nowhere"))
    opens("openat", AT, b"x" * 255, W | CREAT, 0o600)
    opens("openat", AT, b"x" * 256, W | CREAT, 0o600)
    opens("openat", AT, b"./" * 2040 + b"deep", W | CREAT, 0o600)
    opens("openat", AT, b"./" * 2100 + b"deep", W | CREAT, 0o600)
    say("EFAULT", call("openat", AT, 8, W | CREAT, 0o600))
    say("EBADF", call("openat", 999, b"x", W | CREAT, 0o600))
    fd = os.open("dir", os.O_RDONLY)
    opens("openat", fd, b"in", W | CREAT, 0o644)
    opens("openat", fd, b"../up", W | CREAT, 0o644)
    other = os.open("m22-666", os.O_RDONLY)
    opens("openat", other, b"in", W | CREAT, 0o644)
    path = os.open("dir", os.O_PATH)
    opens("openat", path, b"in2", W | CREAT, 0o644)
    os.mkdir("locked", 0o500)
    opens("openat", AT, b"locked/x", W | CREAT, 0o644) if os.geteuid() else None
    os.chmod("m22-666", 0o400)
    opens("openat", AT, b"m22-666", W, 0) if os.geteuid() else None
    os.chmod("m22-666", 0o644)


def appending():
    for flags in (APPEND, 0):
        with open("log", "wb") as f:
            f.write(b"12345")
        fd = os.open("log", W | flags)
        os.write(fd, b"ab")
        os.lseek(fd, 0, 0)
        os.write(fd, b"cd")
        os.close(fd)
        say("append", open("log", "rb").read())
    fd = os.open("log", RW | TRUNC)
    os.ftruncate(fd, 8192)
    with mmap.mmap(fd, 8192) as memory:
        memory[4096] = 7
    say("mmap", os.pread(fd, 2, 4096))
    say("readlink", os.readlink("/proc/self/fd/%d" % fd) == os.path.realpath("log"))
    fcntl.flock(fd, fcntl.LOCK_EX)
    reading = os.open("log", os.O_RDONLY)
    try:
        fcntl.flock(reading, fcntl.LOCK_SH | fcntl.LOCK_NB)
        say("flock", "shared")
    except OSError as e:
        say("flock", errno.errorcode[e.errno])
    os.close(fd)
    again = os.open("/proc/self/fd/%d" % reading, RW)
    os.write(again, b"again")
    say("reopened", os.pread(reading, 5, 0))
    through = os.open("/dev/fd/%d" % reading, W | TRUNC)
    say("truncated", os.fstat(reading).st_size)
    os.dup2(through, 1 + 40)
    numbered = os.open("/proc/%d/fd/%d" % (os.getpid(), 41), W | APPEND)
    os.write(numbered, b"n")
    say("by number", os.fstat(reading).st_size)
    for fd in (again, through, numbered, 41, reading):
        os.close(fd)
    gone = os.open("gone", RW | CREAT)
    os.unlink("gone")
    back = os.open("/proc/self/fd/%d" % gone, RW)
    os.write(back, b"still")
    say("removed", os.pread(gone, 5, 0))


def streams():
    child = os.fork()
    if child == 0:
        os.dup2(os.open("out", W | CREAT | TRUNC), 1)
        os.execvp("sh", ["sh", "-c", "echo one; echo two > /dev/stdout; echo three >> /proc/self/fd/1; echo four > /dev/fd/1"])
    os.waitpid(child, 0)
    say("streams", open("out").read().split())
    for name in ("/dev/null", "/dev/zero", "/dev/full"):
        try:
            fd = os.open(name, W)
            say(name, os.fstat(fd).st_mode)
            os.close(fd)
        except OSError as e:
            say(name, errno.errorcode[e.errno])


def unnamed():
    try:
        fd = os.open("dir", os.O_TMPFILE | RW, 0o640)
    except OSError as e:
        say("O_TMPFILE", errno.errorcode[e.errno])
        return
    os.write(fd, b"tmp")
    say("O_TMPFILE", "%o" % os.fstat(fd).st_mode)
    plain("linkat", AT, b"/proc/self/fd/%d" % fd, AT, b"fromtmp", 0x400)
    say("linked", open("fromtmp").read() + " " + mode("fromtmp"))
    again = os.open("/proc/self/fd/%d" % fd, RW)
    os.close(again)
    os.close(fd)
    fd = os.open(".", os.O_TMPFILE | W | EXCL, 0o600)
    plain("linkat", AT, b"/proc/self/fd/%d" % fd, AT, b"never", 0x400)
    os.close(fd)


def names():
    for name in ("a", "b"):
        with open(name, "w") as f:
            f.write(name)
    os.mkdir("full")
    open("full/x", "w").close()
    os.mkdir("empty")
    for args in ((b"a", b"a2"), (b"a2", b"a"), (b"none", b"x"), (b"a", b"none/x"), (b"a", b"dir"), (b"dir", b"a"), (b"empty", b"full"),
                 (b"full", b"empty"), (b"empty", b"full"), (b"full", b"full/in"), (b".", b"x"), (b"a", b"."), (b"a/", b"x"), (b"a", b"x/"),
                 (b"empty/", b"empty3"), (b"empty", b"empty2/"), (b"link", b"link2"), (b"a", b"a")):
        plain("rename", *args)
        plain("renameat", AT, args[0], AT, args[1])
        plain("renameat2", AT, args[0], AT, args[1], 0)
    plain("renameat2", AT, b"a", AT, b"b", 1)
    plain("renameat2", AT, b"a", AT, b"b", 2)
    plain("renameat2", AT, b"a", AT, b"b", 3)
    say("exchanged", open("a").read() + open("b").read())
    plain("renameat2", AT, b"a", AT, b"full", 2)
    plain("renameat2", AT, b"a", AT, b"full", 2)
    for args in ((b"a", b"hard"), (b"a", b"hard"), (b"none", b"x"), (b"dir", b"x"), (b"a", b"none/x"), (b"link2", b"hardlink"), (b"a", b"x/")):
        plain("link", *args)
        plain("linkat", AT, args[0], AT, args[1] + b"at", 0)
        plain("linkat", AT, args[0], AT, args[1] + b"to", 0x400)
    for name in ("hard", "hardat", "hardto", "hardlinkat", "hardlinkto"):
        say(name, mode(name) if os.path.lexists(name) else None)
    for target, name in ((b"x", b"s1"), (b"x", b"s1"), (b"", b"s2"), (b"y" * 4095, b"s3"), (b"x", b"none/s"), (b"x", b"s4/"), (b"/abs", b"s5"), (b"a", b".")):
        plain("symlink", target, name)
        plain("symlinkat", target, AT, name + b"at")
    say("s5", os.readlink("s5at"))
    for args in ((b"s1at",), (b"dir",), (b"none",), (b"a/",), (b"full",), (b".",), (b"link2/",)):
        plain("unlink", *args)
        plain("unlinkat", AT, args[0], 0)
    for args in ((b"full",), (b"a",), (b"none",), (b"empty3",), (b".",), (b"full/.",), (b"todir",), (b"dir/..",)):
        plain("rmdir", *args)
        plain("unlinkat", AT, args[0], 0x200)
    say("invalid", call("unlinkat", AT, b"x", 0x1000))
    plain("mkdir", b"new/", 0o755)
    plain("mkdir", b"new", 0o755)
    plain("mkdir", b"dangling", 0o755)
    plain("mkdir", b".", 0o755)
    plain("mkdir", b"", 0o755)
    plain("mkdir", b"/", 0o755)
    plain("mkdir", b"none/x", 0o755)
    plain("mknod", b"a", stat.S_IFREG | 0o600, 0)
    plain("mknod", b"device", stat.S_IFBLK | 0o600, 0x801)
    plain("mknod", b"folder", stat.S_IFDIR | 0o600, 0)


def attributes():
    plain("chmod", b"a", 0o640)
    plain("chmod", b"link2", 0o600)
    plain("fchmodat", AT, b"none", 0o600)
    plain("chmod", b"dir", 0o2755)
    plain("chmod", b".", 0o755)
    for name in ("a", "dir", "."):
        say(name, mode(name).split()[0])
    reading = os.open("a", os.O_RDONLY)
    plain("fchmod", reading, 0o604)
    say("fchmod", mode("a"))
    folder = os.open("dir", os.O_RDONLY)
    plain("fchmod", folder, 0o711)
    say("fchmod", mode("dir").split()[0])
    plain("fchown", reading, os.getuid(), os.getgid())
    for name in ("chown", "lchown"):
        plain(name, b"a", -1, -1)
        plain(name, b"link2", os.getuid(), os.getgid())
        plain(name, b"none", -1, -1)
    plain("fchownat", AT, b"link2", -1, -1, 0x100)
    plain("fchownat", reading, b"", -1, -1, 0x1000)
    if os.geteuid():
        plain("chown", b"a", 12345, -1)
    times = (ctypes.c_long * 4)(1000, 5000, 2000, 7000)
    for name, args in (("utimes", (b"a", times)), ("utime", (b"a", times)), ("futimesat", (AT, b"a", times)), ("utimensat", (AT, b"a", times, 0)),
                       ("utimensat", (AT, b"link2", times, 0x100)), ("utimensat", (reading, 0, times, 0)), ("utimensat", (folder, 0, times, 0)),
                       ("utimensat", (AT, b"dir", times, 0)), ("utimensat", (AT, b"none", times, 0)), ("utimensat", (AT, b"a", (ctypes.c_long * 4)(9, (1 << 30) - 2, 8, 77), 0))):
        plain(name, *args)
        for path in ("a", "dir", "link2"):
            if os.path.lexists(path):
                s = os.lstat(path)
                if s.st_mtime < 10000:
                    say("  " + path, (s.st_atime_ns if path != "link2" else 0, s.st_mtime_ns))
    plain("utimensat", AT, b"a", 0, 0)
    say("now", abs(os.stat("a").st_mtime - time.time()) < 100)
    for name, args in (("setxattr", (b"a", b"user.t", b"value", 5, 0)), ("lsetxattr", (b"a", b"user.u", b"", 0, 1)), ("setxattr", (b"a", b"user.u", b"v", 1, 1)),
                       ("fsetxattr", (reading, b"user.f", b"v", 1, 0)), ("removexattr", (b"a", b"user.t")), ("lremovexattr", (b"a", b"user.none")),
                       ("fremovexattr", (reading, b"user.f")), ("setxattr", (b"a", b"trusted.x", b"v", 1, 0))):
        plain(name, *args)
    try:
        say("xattrs", sorted(os.listxattr("a")))
    except OSError:
        pass
    for length in (0, 10, -1):
        plain("truncate", b"a", length)
        plain("truncate", b"link2", length)
        plain("truncate", b"dir", length)
        plain("truncate", b"none", length)
    say("size", os.stat("a").st_size)
    for name in (b"a", b"dir", b"none", b"link2", b"dangling", b".", b"a/", b"dir/", b"/proc/version", b"/dev/null"):
        for wanted in (2, 6, 7):
            plain("access", name, wanted)
            plain("faccessat", AT, name, wanted)
            plain("faccessat2", AT, name, wanted, 0x200)
    os.chmod("a", 0o400)
    say("not writable", os.access("a", os.W_OK) if os.geteuid() else None)
    os.chmod("a", 0o644)


def waiting():
    """A pipe that is opened for writing waits for a reader, and others go on meanwhile."""
    os.mkfifo("pipe")
    order = []
    def writer():
        fd = os.open("pipe", W)
        order.append("opened")
        os.write(fd, b"through")
        os.close(fd)
    thread = threading.Thread(target=writer)
    thread.start()
    for index in range(50):
        with open("meanwhile%d" % index, "w") as f:
            f.write("x")
    order.append("files")
    time.sleep(0.1)
    fd = os.open("pipe", os.O_RDONLY)
    say("pipe", os.read(fd, 10))
    thread.join()
    say("order", order)
    opens("openat", AT, b"pipe", W | NONBLOCK, 0)
    opens("openat", AT, b"pipe", RW | CREAT, 0)
    server = socket.socket(socket.AF_UNIX)
    server.bind("sock")
    server.listen(1)
    client = socket.socket(socket.AF_UNIX)
    client.connect("sock")
    say("socket", (server.getsockname(), "%o" % os.stat("sock").st_mode))
    opens("openat", AT, b"sock", W, 0)
    try:
        socket.socket(socket.AF_UNIX).bind("sock")
    except OSError as e:
        say("bind", errno.errorcode[e.errno])


def signals():
    """Signals do not make a call happen twice. One that comes before the guard has seen the call may interrupt it."""
    hits, failed, interrupted = [], [], 0
    signal.signal(signal.SIGALRM, lambda *_: hits.append(1))
    for restart in (True, False):
        signal.siginterrupt(signal.SIGALRM, not restart)
        signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
        for index in range(1000):
            for work in (lambda: os.close(os.open("sig%d" % index, W | CREAT | EXCL)), lambda: os.mkdir("sigd"),
                         lambda: os.rename("sig%d" % index, "sigr"), lambda: os.rmdir("sigd")):
                while True:
                    try:
                        work()
                        break
                    except InterruptedError:
                        if restart:
                            failed.append("EINTR")
                    except OSError as e:
                        failed.append(errno.errorcode[e.errno])
                        break
        signal.setitimer(signal.ITIMER_REAL, 0)
    say("signals", (sorted(set(failed)), len(failed), len(hits) > 5))


def threads():
    failed = []
    def work(number):
        try:
            for index in range(100):
                with open("t%d-%d" % (number, index), "x") as f:
                    f.write(str(index))
                os.rename("t%d-%d" % (number, index), "u%d-%d" % (number, index))
        except OSError as e:
            failed.append(e)
    several = [threading.Thread(target=work, args=(n,)) for n in range(8)]
    for thread in several:
        thread.start()
    for thread in several:
        thread.join()
    say("threads", (failed, len([n for n in os.listdir() if n.startswith("u")])))


def rooted():
    """In a chroot of its own, paths begin there."""
    if os.geteuid() != 0:
        return
    os.makedirs("jail/in")
    os.symlink("/in/target", "jail/absolute")
    child = os.fork()
    if child == 0:
        os.chroot("jail")
        os.chdir("/")
        open("/in/one", "w").close()
        open("in/two", "w").close()
        open("/absolute", "w").close()
        os.mkdir("/../three")
        os._exit(0)
    os.waitpid(child, 0)
    say("chroot", sorted(os.listdir("jail/in") + os.listdir("jail")))


def limits():
    import resource
    # Behind a guard the file is there already when there is no room for its descriptor.
    child = os.fork()
    if child == 0:
        resource.setrlimit(resource.RLIMIT_NOFILE, (8, 8))
        try:
            kept = [os.open("limit%d" % n, W | CREAT) for n in range(20)]
        except OSError as e:
            say("files", errno.errorcode[e.errno])
        os._exit(0)
    os.waitpid(child, 0)
    for name in os.listdir():
        if name.startswith("limit"):
            os.unlink(name)


os.chdir(sys.argv[1])
parts = [opening, appending, streams, unnamed, names, attributes, waiting, signals, threads, rooted, limits]
for part in parts:
    say("== " + part.__name__)
    part()
for where, folders, files in sorted(os.walk(".")):
    if not where.startswith("./t"):
        say(where, (sorted(folders), len(files)))
