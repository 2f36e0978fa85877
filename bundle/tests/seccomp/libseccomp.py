#!/usr/bin/python3
"""Compiles the `linux.seccomp` section of an OCI specification with libseccomp, the way crun and runc do.

Standard input:  {"section": {...}, "names": [every call whose number is wanted]}
Standard output: {"bpf": hex, "unknown": [names libseccomp lacks], "numbers": {ABI: {name: number}}}
Needs libseccomp's own Python binding (Debian: python3-seccomp); exits with 77 without it.
"""

import json
import sys
import tempfile

try:
    import seccomp
except ImportError as error:
    print(error, file=sys.stderr)
    sys.exit(77)

ABIS = {
    "SCMP_ARCH_X86_64": seccomp.Arch.X86_64,
    "SCMP_ARCH_X86": seccomp.Arch.X86,
    "SCMP_ARCH_AARCH64": seccomp.Arch.AARCH64,
    "SCMP_ARCH_ARM": seccomp.Arch.ARM,
}


def action(row, errno):
    return {"SCMP_ACT_ALLOW": seccomp.ALLOW, "SCMP_ACT_ERRNO": seccomp.ERRNO(row.get(errno, 1))}[row["action"]]


def known(name):
    # -1 is "no such name"; other negative numbers stand for calls that this machine's ABI lacks.
    return seccomp.resolve_syscall(seccomp.Arch(), name) != -1


def main():
    question = json.load(sys.stdin)
    section = question["section"]
    default = {"action": section["defaultAction"], "errnoRet": section["defaultErrnoRet"]}
    filter_ = seccomp.SyscallFilter(action(default, "errnoRet"))
    abis = section["architectures"]
    for name in abis:
        if not filter_.exist_arch(ABIS[name]):
            filter_.add_arch(ABIS[name])
    for name, abi in ABIS.items():
        if name not in abis and filter_.exist_arch(abi):
            filter_.remove_arch(abi)
    unknown = set()
    for row in section["syscalls"]:
        args = []
        for arg in row.get("args") or []:
            assert arg["op"] == "SCMP_CMP_MASKED_EQ"
            args.append(seccomp.Arg(arg["index"], seccomp.MASKED_EQ, arg["value"], arg["valueTwo"]))
        for name in row["names"]:
            if known(name):
                filter_.add_rule(action(row, "errnoRet"), name, *args)
            else:
                unknown.add(name)
    with tempfile.TemporaryFile() as file:
        filter_.export_bpf(file)
        file.seek(0)
        bpf = file.read().hex()
    numbers = {abi: {n: seccomp.resolve_syscall(ABIS[abi], n) for n in question["names"] if known(n)} for abi in abis}
    json.dump({"bpf": bpf, "unknown": sorted(unknown), "numbers": numbers}, sys.stdout)


main()
