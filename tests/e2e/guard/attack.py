#!/usr/bin/python3
"""Tries to make or change what must not be made or changed, in every way there is, and the same with names that are free.

The working directory is a project with a repository, a nested one in `nested`, and a bare one in `bare`. Prints what was possible and must
not be, what was not and must be, and how much was tried.
"""

import ctypes
import errno
import mmap
import os
import platform
import socket
import sys
import threading
import time

libc = ctypes.CDLL(None, use_errno=True)
AT = -100
X86 = platform.machine() == "x86_64"

# Names, each with what must be there for it to be reached, and a free twin in the same folder.
PROTECTED = [
    (".git/hooks/post-checkout", None), (".git/hooks/pre-commit", None), ("nested/.git/hooks/pre-commit", "nested/.git/free"),
    ("nested/.git/config", "nested/.git/free"), ("nested/.git/config.worktree", "nested/.git/free"), ("nested/.git/commondir", "nested/.git/free"),
    ("plain/.git", "plain/free"), ("plain/.GIT", "plain/free"), ("plain/.gIt", "plain/free"), ("plain/git~1", "plain/free"),
    ("plain/.g\u200cit", "plain/free"), ("plain/.git.", "plain/free"), ("deep/er/and/deeper/.git", "deep/er/and/deeper/free"),
    (".envrc", "free"), ("plain/.envrc", "plain/free"), (".vscode", "free"), ("nested/.vscode", "nested/free"), (".claude/settings.json", ".claude/free"),
    (".claude/settings.local.json", ".claude/free"), ("bare/hooks/update", None), ("bare/config", "bare/free"), ("almost/HEAD", "almost/free"),
    ("nested/.git/modules/m/config", "nested/.git/modules/m/free"), ("nested/.git/modules/m/n/hooks/x", "nested/.git/modules/m/n/free"),
    (".git/config.worktree", None), (".git/commondir", None),
]

bad, lost, tried = [], [], 0


def native(nr, *args):
    given = [ctypes.c_char_p(a) if isinstance(a, bytes) else ctypes.c_long(a) for a in args]
    result = libc.syscall(ctypes.c_long(nr), *given)
    return -ctypes.get_errno() if result == -1 else result


def i386():
    """A way into the kernel by `int 0x80`, with strings where 32 bits reach; none where there is no such ABI."""
    if not X86:
        return None
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x40  # MAP_32BIT
    code = mmap.mmap(-1, 4096, flags=flags, prot=7)
    # push rbx; mov eax, edi; mov ebx, esi; xchg ecx, edx; int 0x80; pop rbx; ret
    # arguments: edi = nr, esi, edx -> ecx, ecx -> edx, r8 -> esi (after ebx), r9 -> edi
    code.write(bytes.fromhex("53 89f8 89f3 87d1 4489c6 4489cf cd80 5b c3".replace(" ", "")))
    enter = ctypes.CFUNCTYPE(ctypes.c_int32, *[ctypes.c_uint32] * 6)(ctypes.addressof(ctypes.c_char.from_buffer(code)))
    memory = mmap.mmap(-1, 65536, flags=flags, prot=3)
    base = ctypes.addressof(ctypes.c_char.from_buffer(memory))

    def call(nr, *args):
        at, given = 0, []
        assert code
        for a in args:
            if isinstance(a, bytes):
                memory[at:at + len(a) + 1] = a + b"\0"
                given.append(base + at)
                at += len(a) + 1
            else:
                given.append(a & 0xFFFFFFFF)
        return enter(nr, *(given + [0] * 5)[:5])

    pid = os.fork()
    if pid == 0:
        os._exit(0 if call(20) == os.getpid() else 1)
    return call if os.waitpid(pid, 0)[1] == 0 else None


def done(result):
    if isinstance(result, int) and result >= 3:
        try:
            os.fstat(result)
            os.close(result)
        except OSError:
            pass
    return result >= 0


CREAT = os.O_CREAT | os.O_WRONLY


def ways(enter32):
    """Every way to make a name, or to change what has it: (description, function of the path)."""
    src = b"source"
    out = []
    n = native
    if X86:
        out += [("open", lambda p: n(2, p, CREAT, 0o644)), ("creat", lambda p: n(85, p, 0o644)), ("mkdir", lambda p: n(83, p, 0o755)),
                ("mknod", lambda p: n(133, p, 0o100644, 0)), ("fifo", lambda p: n(133, p, 0o010644, 0)), ("rename", lambda p: n(82, src, p)),
                ("link", lambda p: n(86, src, p)), ("symlink", lambda p: n(88, b"x", p)), ("openat", lambda p: n(257, AT, p, CREAT, 0o644)),
                ("excl", lambda p: n(257, AT, p, CREAT | os.O_EXCL, 0o644)), ("rdonly", lambda p: n(257, AT, p, os.O_CREAT, 0o644)),
                ("mkdirat", lambda p: n(258, AT, p, 0o755)), ("mknodat", lambda p: n(259, AT, p, 0o100644, 0)),
                ("renameat", lambda p: n(264, AT, src, AT, p)), ("renameat2", lambda p: n(316, AT, src, AT, p, 1)),
                ("exchange", lambda p: n(316, AT, src, AT, p, 2)), ("linkat", lambda p: n(265, AT, src, AT, p, 0)),
                ("linkat follow", lambda p: n(265, AT, src, AT, p, 0x400)), ("symlinkat", lambda p: n(266, b"x", AT, p)),
                ("rename folder", lambda p: n(82, b"folder", p)), ("rename link", lambda p: n(82, b"alink", p)),
                ("truncate", lambda p: n(76, p, 0))]
    else:
        out += [("openat", lambda p: n(56, AT, p, CREAT, 0o644)), ("mkdirat", lambda p: n(34, AT, p, 0o755)),
                ("mknodat", lambda p: n(33, AT, p, 0o100644, 0)), ("renameat2", lambda p: n(276, AT, src, AT, p, 0)),
                ("linkat", lambda p: n(37, AT, src, AT, p, 0)), ("symlinkat", lambda p: n(36, b"x", AT, p))]
    out += [("relative", lambda p: relative(p)), ("tmpfile", lambda p: unnamed(p)), ("bind", lambda p: bind(p)),
            ("absolute", lambda p: os_open(os.path.abspath(p))), ("dots", lambda p: os_open(b"plain/../" + p)),
            ("cwd", lambda p: os_open(b"/proc/self/cwd/" + p)), ("root", lambda p: os_open(b"/proc/self/root" + os.path.abspath(p))),
            ("through a link", lambda p: through(p)), ("through a chain", lambda p: chain(p)), ("chroot", lambda p: chrooted(p))]
    if enter32:
        c = enter32
        out += [("i386 open", lambda p: c(5, p, CREAT, 0o644)), ("i386 creat", lambda p: c(8, p, 0o644)), ("i386 mkdir", lambda p: c(39, p, 0o755)),
                ("i386 rename", lambda p: c(38, src, p)), ("i386 link", lambda p: c(9, src, p)), ("i386 symlink", lambda p: c(83, b"x", p)),
                ("i386 mknod", lambda p: c(14, p, 0o100644, 0)), ("i386 openat", lambda p: c(295, AT, p, CREAT, 0o644)),
                ("i386 mkdirat", lambda p: c(296, AT, p, 0o755)), ("i386 renameat", lambda p: c(302, AT, src, AT, p)),
                ("i386 linkat", lambda p: c(303, AT, src, AT, p, 0)), ("i386 symlinkat", lambda p: c(304, b"x", AT, p)),
                ("i386 renameat2", lambda p: c(353, AT, src, AT, p, 0))]
    return out


def os_open(path):
    try:
        return os.open(path, CREAT, 0o644)
    except OSError as e:
        return -e.errno


def relative(path):
    try:
        folder = os.open(os.path.dirname(path) or b".", os.O_RDONLY)
    except OSError as e:
        return -e.errno
    try:
        return os.open(os.path.basename(path), CREAT, 0o644, dir_fd=folder)
    except OSError as e:
        return -e.errno
    finally:
        os.close(folder)


def unnamed(path):
    try:
        fd = os.open(".", os.O_TMPFILE | os.O_RDWR, 0o600)
    except OSError as e:
        return -e.errno
    try:
        return link_descriptor(fd, path)
    finally:
        os.close(fd)


def link_descriptor(fd, path):
    return native(265 if X86 else 37, AT, b"/proc/self/fd/%d" % fd, AT, path, 0x400)


def bind(path):
    try:
        with socket.socket(socket.AF_UNIX) as s:
            s.bind(path)
        return 0
    except OSError as e:
        return -e.errno


def through(path):
    try:
        os.symlink(os.path.abspath(path), "/tmp/through")
    except OSError as e:
        return -e.errno
    try:
        return os_open(b"/tmp/through")
    finally:
        os.unlink("/tmp/through")


def chain(path):
    os.symlink(os.path.abspath(os.path.dirname(path) or b"."), "/tmp/c1")
    os.symlink("c1", "/tmp/c2")
    try:
        return os_open(b"/tmp/c2/" + os.path.basename(path))
    finally:
        os.unlink("/tmp/c1")
        os.unlink("/tmp/c2")


def chrooted(path):
    pid = os.fork()
    if pid == 0:
        try:
            os.chroot(".")
        except OSError:
            # Not everybody may: the same without.
            os._exit(0 if os_open(path) >= 0 else 1)
        os._exit(0 if os_open(b"/" + path) >= 0 else 1)
    return 0 if os.waitpid(pid, 0)[1] == 0 else -1


def sources():
    for name in ("source", "alink"):
        if os.path.lexists(name):
            os.unlink(name)
    open("source", "w").close()
    os.symlink("source", "alink")
    if not os.path.isdir("folder"):
        os.mkdir("folder")


def clear(path):
    try:
        if os.path.isdir(path) and not os.path.islink(path):
            os.rmdir(path)
        elif os.path.lexists(path):
            os.unlink(path)
    except OSError:
        pass


def making():
    global tried
    # Out of place for the twins: a name that is there already.
    there = {"truncate", "exchange"}
    # Not in a git folder.
    not_in_git = {"symlink", "symlinkat", "i386 symlink", "i386 symlinkat", "rename folder", "rename link"}
    for name, way in ways(i386()):
        for path, free in PROTECTED:
            sources()
            existed = os.path.lexists(path)
            if done(way(path.encode())) and not (existed and name == "rdonly"):
                bad.append((name, path))
            if not existed and os.path.lexists(path):
                bad.append((name, path, "is there"))
                clear(path)
            tried += 1
            if free and not (name in not_in_git and ("/.git/" in free or free.startswith((".git/", "bare/")))):
                sources()
                clear(free)
                if name in there:
                    open(free, "w").close()
                if not done(way(free.encode())):
                    lost.append((name, free))
                clear(free)


def changing():
    """What is there already."""
    global tried
    files = ["nested/.git/config", "nested/.git/hooks/there", "nested/.envrc", "bare/config"]
    for path, free in [(p, False) for p in files] + [("plain/there", True)]:
        was = open(path).read()
        ways = {
            "write": lambda: os.close(os.open(path, os.O_WRONLY)),
            "rdwr": lambda: os.close(os.open(path, os.O_RDWR)),
            "trunc": lambda: os.close(os.open(path, os.O_RDONLY | os.O_TRUNC)),
            "append": lambda: os.close(os.open(path, os.O_WRONLY | os.O_APPEND)),
            "truncate": lambda: os.truncate(path, 0),
            "reopen": lambda: reopen(path),
            "chmod": lambda: os.chmod(path, 0o700),
            "fchmod": lambda: fchmod(path),
            "utime": lambda: os.utime(path, (1, 1)),
            "hard link": lambda: (os.link(path, "plain/second"), os.unlink("plain/second")),
            "hard link by descriptor": lambda: (by_descriptor(path), os.unlink("plain/second")),
            "rename": lambda: (os.rename(path, "plain/moved"), os.rename("plain/moved", path)),
            "exchange": lambda: exchange(path),
            "unlink": lambda: (os.unlink(path), open(path, "w").close()),
        }
        for name, way in ways.items():
            tried += 1
            try:
                way()
                if not free:
                    bad.append((name, path))
            except OSError as e:
                if free:
                    lost.append((name, path, str(e)))
                elif e.errno not in (errno.EPERM, errno.EROFS, errno.EBUSY, errno.EXDEV, errno.EACCES):
                    lost.append((name, path, "odd", str(e)))
        if not free and open(path).read() != was:
            bad.append(("changed", path))
        if os.access(path, os.W_OK) != free:
            bad.append(("access", path))
    for path in ("nested/.git", "nested/.git/hooks", ".claude", ".git", "nested/.git/modules"):
        for name, way in (("rename", lambda: os.rename(path, "plain/away")), ("rmdir", lambda: os.rmdir(path)),
                          ("over", lambda: os.rename("folder", path)), ("chmod", lambda: os.chmod(path, 0o700) if "hooks" in path else os.rmdir(path))):
            tried += 1
            sources()
            try:
                way()
                bad.append((name, path))
            except OSError:
                pass
    os.mkdir("plain/dir")
    os.rename("plain/dir", "plain/dir2")
    os.rmdir("plain/dir2")


def reopen(path):
    fd = os.open(path, os.O_RDONLY)
    try:
        os.close(os.open("/proc/self/fd/%d" % fd, os.O_RDWR))
    finally:
        os.close(fd)


def fchmod(path):
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fchmod(fd, 0o700)
    finally:
        os.close(fd)


def by_descriptor(path):
    fd = os.open(path, os.O_RDONLY)
    try:
        if link_descriptor(fd, b"plain/second") < 0:
            raise OSError(ctypes.get_errno(), "link")
    finally:
        os.close(fd)


def exchange(path):
    open("plain/x", "w").write("x")
    if native(316 if X86 else 276, AT, b"plain/x", AT, path.encode(), 2) < 0:
        raise OSError(ctypes.get_errno(), "exchange")
    native(316 if X86 else 276, AT, b"plain/x", AT, path.encode(), 2)


def racing(seconds):
    """Paths that change after they were looked at, in memory and on disk."""
    global tried
    end = time.time() + seconds
    stop = threading.Event()
    free, target = b"plain/race/free\0", b"plain/race/.git\0"
    assert len(free) == len(target)
    os.makedirs("plain/race", exist_ok=True)
    buffer = mmap.mmap(-1, 4096)
    buffer[:len(free)] = free
    address = ctypes.addressof(ctypes.c_char.from_buffer(buffer))
    # Another process, so that nothing of Python's stands between the two.
    swapper = os.fork()
    if swapper == 0:
        while time.time() < end + 1:
            for _ in range(1000):
                buffer[:len(free)] = target
                buffer[:len(free)] = free
        os._exit(0)
    turner = os.fork()
    if turner == 0:
        os.symlink("/tmp", "/tmp/swap-a")
        os.symlink(os.path.abspath("nested/.git"), "/tmp/swap-b")
        while time.time() < end + 1:
            try:
                os.rename("/tmp/swap-a", "/tmp/swap")
                os.symlink("/tmp", "/tmp/swap-a")
                os.rename("/tmp/swap-b", "/tmp/swap")
                os.symlink(os.path.abspath("nested/.git"), "/tmp/swap-b")
            except OSError:
                pass
        os._exit(0)
    won = refused = 0
    openat, mkdirat = (257, 258) if X86 else (56, 34)
    while time.time() < end:
        for nr, args in ((openat, (AT, address, CREAT, 0o644)), (mkdirat, (AT, address, 0o755)),
                         (openat, (AT, b"/tmp/swap/commondir", CREAT, 0o644)), (mkdirat, (AT, b"/tmp/swap/config.worktree", 0o755))):
            tried += 1
            result = native(nr, *args)
            if result >= 0:
                won += 1
                done(result)
            else:
                refused += 1
        for path in ("plain/race/.git", "nested/.git/commondir", "nested/.git/config.worktree"):
            if os.path.lexists(path):
                bad.append(("race", path))
        for path in ("plain/race/free", "/tmp/commondir", "/tmp/config.worktree"):
            clear(path)
    stop.set()
    for pid in (swapper, turner):
        os.kill(pid, 9)
        os.waitpid(pid, 0)
    if not won or not refused:
        lost.append(("race", won, refused))


def moving():
    """Folders that calls were about before, moved by others, exchanged, and replaced by links to where they went."""
    global tried
    os.makedirs("clean/objects")
    os.makedirs("clean/sub/deep")
    os.makedirs("almost/sub")
    almost, clean = (os.open(name, os.O_RDONLY | os.O_DIRECTORY) for name in ("almost", "clean"))
    os.mkdir("clean/other")
    exchange = 316 if X86 else 276
    openat = 257 if X86 else 56

    def make(folder, name):
        result = native(openat, folder, name, CREAT, 0o644)
        if result >= 0:
            os.close(result)
            os.unlink(name, dir_fd=folder)
        return result >= 0

    for turn in range(200):
        tried += 1
        # One of them would become a repository by HEAD, the other would not, whatever they are called now.
        if make(almost, b"HEAD"):
            bad.append(("moving", turn))
        if not make(almost, b"free") or not make(clean, b"HEAD") or not make(clean, b"free"):
            lost.append(("moving", turn))
        if native(exchange, AT, b"almost", AT, b"clean", 2) < 0:
            lost.append(("moving", "exchange", turn))
    for turn in range(50):
        tried += 1
        ways = (b"clean/sub/deep/x", b"moved/deep/x", b"clean/sub/deep/.git", b"moved/deep/.git")
        was = [make(AT, way) for way in ways]
        os.rename("clean/sub", "moved")
        then = [make(AT, way) for way in ways]
        os.symlink("../moved", "clean/sub")
        by_link = [make(AT, way) for way in ways]
        os.unlink("clean/sub")
        # Another one with the name it had.
        os.makedirs("clean/sub/deep")
        twice = [make(AT, way) for way in ways]
        os.rmdir("clean/sub/deep")
        os.rmdir("clean/sub")
        os.rename("moved", "clean/sub")
        free = ([True, False], [False, True], [True, True], [True, True])
        for result, expected in zip((was, then, by_link, twice), free):
            if result[:2] != expected:
                lost.append(("moved", turn, result))
            if any(result[2:]):
                bad.append(("moved", turn, result))
    # Removed, and its number perhaps given to the next.
    for turn in range(200):
        tried += 1
        os.mkdir("clean/n%d" % turn)
        if make(AT, b"clean/n%d/.envrc" % turn) or not make(AT, b"clean/n%d/x" % turn):
            lost.append(("number", turn))
        os.rmdir("clean/n%d" % turn)
    racing_links()
    for folder in (almost, clean):
        os.close(folder)
    for path in ("clean/objects", "clean/other", "clean/sub/deep", "clean/sub", "clean", "almost/sub"):
        os.rmdir(path)


def racing_links():
    """A folder that is now itself and now a link to a repository, while others make files through its name and in what it was."""
    global tried
    os.makedirs("plain/way")
    turner = os.fork()
    if turner == 0:
        os.symlink("../nested/.git", "plain/other")
        while True:
            native(316 if X86 else 276, AT, b"plain/way", AT, b"plain/other", 2)
    end = time.time() + 3
    won = refused = 0
    while time.time() < end:
        for name in (b"commondir", b"config.worktree", b"hooks/new"):
            tried += 1
            result = native(257 if X86 else 56, AT, b"plain/way/" + name, CREAT, 0o644)
            done(result)
            won, refused = won + (result >= 0), refused + (result < 0)
            if os.path.lexists(b"nested/.git/" + name):
                bad.append(("link", name))
            for folder in (b"plain/way/", b"plain/other/"):
                clear(folder + name)
    os.kill(turner, 9)
    os.waitpid(turner, 0)
    if not won or not refused:
        lost.append(("links", won, refused))
    for name in ("plain/way", "plain/other"):
        for folder in ("commondir", "config.worktree"):
            if not os.path.islink(name):
                clear(name + "/" + folder)
        clear(name)


def handed():
    """A number that is now a file that may be changed and now a protected one, while its attributes are changed by the number."""
    global tried
    path = "nested/.envrc"
    mode, time_of = os.stat(path).st_mode, os.stat(path).st_mtime_ns
    closed, free = os.open(path, os.O_RDONLY), os.open("plain/there", os.O_RDWR)
    number = os.dup(free)
    ready = threading.Event()

    def change():
        ready.set()
        while number is not None:
            os.dup2(closed, number)
            os.dup2(free, number)

    def attempt(call):
        try:
            call()
            return True
        except OSError as e:
            if e.errno not in (errno.EPERM, errno.EROFS):
                lost.append(("handed", str(e)))
            return False

    mine = number
    thread = threading.Thread(target=change)
    thread.start()
    ready.wait()
    end, answers = time.time() + 2, set()
    while time.time() < end:
        tried += 1
        answers.add(attempt(lambda: os.fchmod(mine, 0o777)))
        attempt(lambda: os.utime(mine, (1, 1)))
    number = None
    thread.join()
    if os.stat(path).st_mode != mode or os.stat(path).st_mtime_ns != time_of:
        bad.append(("handed", oct(os.stat(path).st_mode)))
    if answers != {True, False}:
        lost.append(("handed", answers))
    if attempt(lambda: os.fchmod(closed, 0o777)) or not attempt(lambda: os.fchmod(free, 0o644)):
        bad.append(("handed", "alone"))
    for fd in (closed, free, mine):
        os.close(fd)


for part in sys.argv[1:]:
    if part == "race":
        racing(5)
    else:
        globals()[part]()
print("bad", sorted(set(bad)))
print("lost", lost)
print("tried", tried > 20)
