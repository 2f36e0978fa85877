#!/usr/bin/python3
"""Makes system calls and says what came of them.

Argument: [{"compat": bool, "nr": number, "args": [...]}, ...]
Standard output: for each, the negative errno, 0 for success, or null where the machine has no such ABI.
`compat` is the i386 ABI, entered by `int 0x80` from this 64-bit process.
"""

import ctypes
import json
import mmap
import os
import platform
import sys

# push rbx; mov eax, edi; mov ebx, esi; xchg ecx, edx; int 0x80; pop rbx; ret
INT_0X80 = bytes.fromhex("53 89f8 89f3 87d1 cd80 5b c3")


def native(nr, args):
    libc = ctypes.CDLL(None, use_errno=True)
    result = libc.syscall(ctypes.c_long(nr), *(ctypes.c_ulong(arg) for arg in args))
    return -ctypes.get_errno() if result == -1 else 0


def compat(nr, args):
    memory = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    memory.write(INT_0X80)
    code = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    call = ctypes.CFUNCTYPE(ctypes.c_int32, *[ctypes.c_uint32] * 4)(code)
    return min(0, call(nr, *[arg & 0xFFFFFFFF for arg in (args + [0] * 3)[:3]]))


def in_child(probe):
    """A kernel without the i386 ABI kills who enters it."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        result = (compat if probe["compat"] else native)(probe["nr"], probe["args"])
        os.write(writer, str(result).encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as file:
        said = file.read()
    os.waitpid(child, 0)
    return int(said) if said else None


def main():
    probes = json.loads(sys.argv[1])
    machine = platform.machine()
    json.dump([None if p["compat"] and machine != "x86_64" else in_child(p) for p in probes], sys.stdout)


main()
