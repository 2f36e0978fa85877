"""Registries as packages' programs know them, one tiny package in each: packages.py FOLDER makes them below FOLDER, a folder for each server's name.

`mirror.test`: a repository of Alpine, unsigned. `npm.wild.test`: a package and one with a scope. `pypi.wild.test`: a simple index.
"""
import base64, gzip, hashlib, io, json, os, sys, tarfile, zipfile

web = sys.argv[1]


def put(path, data):
    path = os.path.join(web, path)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as file:
        file.write(data if isinstance(data, bytes) else data.encode())


def tar(entries, end=True, sums=False):
    """A compressed archive; without its end another one may follow. apk wants a sum of each file."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, text, mode in entries:
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(text), mode
            entry.type = tarfile.DIRTYPE if name.endswith("/") else tarfile.REGTYPE
            if sums and entry.isreg():
                entry.pax_headers = {"APK-TOOLS.checksum.SHA1": hashlib.sha1(text.encode()).hexdigest()}
            archive.addfile(entry, io.BytesIO(text.encode()))
        size = archive.offset
    return gzip.compress(out.getvalue() if end else out.getvalue()[:size], mtime=0)


# https://wiki.alpinelinux.org/wiki/Apk_spec
program = tar([("usr/", "", 0o755), ("usr/bin/", "", 0o755), ("usr/bin/tiny", "#!/bin/sh\necho tiny from the mirror\n", 0o755)], sums=True)
info = ["pkgname = tiny", "pkgver = 1.0-r0", "pkgdesc = tiny", "url = http://mirror.test", "size = 100", "arch = x86_64",
        "license = MIT", "datahash = " + hashlib.sha256(program).hexdigest()]
control = tar([(".PKGINFO", "\n".join(info) + "\n", 0o644)], end=False)
put("mirror.test/alpine/x86_64/tiny-1.0-r0.apk", control + program)
sum1 = "Q1" + base64.b64encode(hashlib.sha1(control).digest()).decode()
index = [f"C:{sum1}", "P:tiny", "V:1.0-r0", "A:x86_64", f"S:{len(control + program)}", "I:100", "T:tiny", "U:http://mirror.test", "L:MIT"]
put("mirror.test/alpine/x86_64/APKINDEX.tar.gz", tar([("DESCRIPTION", "test", 0o644), ("APKINDEX", "\n".join(index) + "\n\n", 0o644)]))

# https://github.com/npm/registry/blob/main/docs/responses/package-metadata.md
for name, folder in [("tiny", "tiny"), ("@scope/name", "@scope/name")]:
    package = tar([("package/package.json", json.dumps({"name": name, "version": "1.0.0", "main": "index.js"}), 0o644),
                   ("package/index.js", f"module.exports = '{name} from the registry';\n", 0o644)])
    file = f"{folder}/-/{folder.split('/')[-1]}-1.0.0.tgz"
    integrity = "sha512-" + base64.b64encode(hashlib.sha512(package).digest()).decode()
    version = {"name": name, "version": "1.0.0", "main": "index.js",
               "dist": {"tarball": f"https://npm.wild.test/{file}", "integrity": integrity, "shasum": hashlib.sha1(package).hexdigest()}}
    put("npm.wild.test/" + file, package)
    # npm asks for a name with a scope as for one segment of the path.
    put("npm.wild.test/" + (name.replace("/", "%2f") if "/" in name else name + "/index.html"),
        json.dumps({"name": name, "dist-tags": {"latest": "1.0.0"}, "versions": {"1.0.0": version}}))

# PEP 503, PEP 427
wheel = io.BytesIO()
with zipfile.ZipFile(wheel, "w") as archive:
    archive.writestr("tiny.py", "WORDS = 'tiny from the index'\n")
    archive.writestr("tiny-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\n")
    archive.writestr("tiny-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
    archive.writestr("tiny-1.0.dist-info/RECORD", "tiny.py,,\ntiny-1.0.dist-info/METADATA,,\ntiny-1.0.dist-info/WHEEL,,\ntiny-1.0.dist-info/RECORD,,\n")
put("pypi.wild.test/files/tiny-1.0-py3-none-any.whl", wheel.getvalue())
sum256 = hashlib.sha256(wheel.getvalue()).hexdigest()
put("pypi.wild.test/simple/tiny/index.html", f'<!DOCTYPE html><a href="/files/tiny-1.0-py3-none-any.whl#sha256={sum256}">tiny-1.0-py3-none-any.whl</a>\n')
