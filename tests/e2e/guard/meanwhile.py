#!/usr/bin/python3
"""Two that change the same folders at once. Each call says what it says without a guard, and never that something is read-only.

Prints which errors there were that nobody else gets, and whether everything that may happen did.
"""

import errno
import mmap
import os
import sys
import time

CREAT = os.O_CREAT


def cleared(*paths):
    for path in paths:
        for remove in (os.unlink, os.rmdir):
            try:
                remove(path)
            except OSError:
                pass


def close(fd):
    os.close(fd)


# What is made and removed all the time.
def folder():
    os.mkdir("r")
    os.rmdir("r")


def deep():
    os.makedirs("s/t/u")
    for path in ("s/t/u", "s/t", "s"):
        os.rmdir(path)


def file():
    os.close(os.open("f", os.O_WRONLY | CREAT))
    os.unlink("f")


def kinds():
    os.mkdir("k")
    os.rmdir("k")
    os.close(os.open("k", os.O_WRONLY | CREAT))
    os.unlink("k")


# With which of these at work, what is tried, what may come of it but success, and what it makes.
MISSING = {errno.ENOENT, errno.EEXIST}
TRIES = [
    (folder, lambda: os.mkdir("r/a"), MISSING, ["r/a"]),
    (folder, lambda: os.mkdir(os.path.abspath("r/a")), MISSING, ["r/a"]),
    (folder, lambda: close(os.open("r/a", os.O_WRONLY | CREAT)), MISSING, ["r/a"]),
    (folder, lambda: os.symlink("x", "r/a"), MISSING, ["r/a"]),
    (folder, lambda: os.link("there", "r/a"), MISSING, ["r/a"]),
    (folder, lambda: os.chmod("r", 0o755), MISSING, []),
    (folder, lambda: os.rename("r", "q"), MISSING, ["q"]),
    (deep, lambda: os.mkdir("s/t/u/a"), MISSING, ["s/t/u/a"]),
    (deep, lambda: close(os.open("s/t/u/../a", os.O_WRONLY | CREAT)), MISSING, ["s/t/a"]),
    (file, lambda: close(os.open("f", os.O_RDONLY | CREAT)), set(), []),
    (file, lambda: close(os.open("f", os.O_RDWR)), MISSING, []),
    (file, lambda: os.truncate("f", 3), MISSING, []),
    (file, lambda: os.access("f", os.W_OK) or os.stat("f"), MISSING, []),
    (kinds, lambda: os.mkdir("k/a"), MISSING | {errno.ENOTDIR}, ["k/a"]),
]


def turn(work, stop):
    """In a process of its own: nothing of Python's keeps one from running while the other waits."""
    child = os.fork()
    if child:
        return child
    while not stop[0]:
        try:
            work()
        except OSError as e:
            if e.errno == errno.EROFS:
                os._exit(1)
            # What the other one left in it goes, and what was left half-way.
            cleared("r/a", "s/t/u/a", "s/t/a", "s/t/u", "s/t", "s", "r", "k/a", "k", "f")
    os._exit(0)


def main(seconds):
    open("there", "w").close()
    odd, dull = set(), []
    for index, (work, attempt, may, made) in enumerate(TRIES):
        stop = mmap.mmap(-1, 1)
        child = turn(work, stop)
        begun, done, failed = time.time(), 0, 0
        # On a busy machine it takes a while until they meet.
        while time.time() < begun + seconds or not (done and (failed or not may)) and time.time() < begun + 30:
            try:
                attempt()
                done += 1
            except OSError as e:
                failed += 1
                if e.errno not in may:
                    odd.add((index, errno.errorcode[e.errno]))
            cleared(*made)
        stop[0] = 1
        if os.waitpid(child, 0)[1] != 0:
            odd.add((index, "the other"))
        if not done or (may and not failed):
            dull.append((index, done, failed))
        cleared("r/a", "s/t/u/a", "s/t/a", "s/t/u", "s/t", "s", "r", "k/a", "k", "f", "q")
    os.unlink("there")
    print("odd", sorted(odd))
    print("dull", dull)


main(float(sys.argv[1]))
