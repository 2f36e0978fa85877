"""Times commands in turn, A B C A B C …, and prints medians and ratios. Called by ci/bench: bench.py STAGE RUNS USER."""
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


def work():
    """A worker: runs the commands it reads, a JSON list a line, as the user and in the mount namespace it was started in."""
    for line in sys.stdin:
        start = time.perf_counter()
        done = subprocess.run(json.loads(line), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        print(json.dumps([done.returncode, (time.perf_counter() - start) * 1000, (done.stdout + done.stderr).decode(errors="replace")]), flush=True)


if sys.argv[1] == "work":
    sys.exit(work())
stage, runs, user = sys.argv[1], int(sys.argv[2]), pwd.getpwnam(sys.argv[3])
rootless = user.pw_uid != 0
cellblock = os.path.join(stage, "cellblock")
base = tempfile.mkdtemp(prefix="cbbench", dir=os.environ.get("BENCH_TMP"))
# State of running cells lies on tmpfs on every usual machine; the root file systems and layers lie on disk.
shm = tempfile.mkdtemp(prefix="cbbench", dir="/dev/shm")
project = os.path.join(base, "home", "demo")
os.makedirs(project)
for folder in (base, shm, os.path.join(base, "home"), project):
    os.chmod(folder, 0o711)
    if os.geteuid() == 0:
        os.chown(folder, user.pw_uid, user.pw_gid)
env = {"PATH": os.environ["PATH"], "HOME": os.path.join(base, "home"), "XDG_RUNTIME_DIR": shm,
       "XDG_DATA_HOME": os.path.join(base, "home", "data"), "TERM": "xterm"}


class Worker:
    """A process that stays, so that what is timed starts with as little as possible."""

    def __init__(self, prefix=()):
        become = ["setpriv", "--reuid", user.pw_name, "--regid", str(user.pw_gid), "--init-groups"] if rootless and os.geteuid() == 0 else []
        self.process = subprocess.Popen([*prefix, *become, "python3", __file__, "work"], cwd=project, env=env, text=True,
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def run(self, command):
        print(json.dumps(command), file=self.process.stdin, flush=True)
        return json.loads(self.process.stdout.readline())

    def must(self, *command):
        code, _, text = self.run([cellblock, *command])
        if code != 0:
            sys.exit(f"{' '.join(command)}: {text}")


here = Worker()
# crun takes no hybrid cgroups; without the v2 mount it sees a v1 host.
hybrid = os.path.ismount("/sys/fs/cgroup/unified")
for_crun = Worker(("unshare", "-m", "sh", "-c", 'umount /sys/fs/cgroup/unified; exec "$@"', "-")) if hybrid and os.geteuid() == 0 else here
crun = [shutil.which("crun")] if shutil.which("crun") else None
for loader in glob.glob(os.path.join(stage, "crun.d/usr/lib/*-linux-gnu/ld-linux-*.so.*")):
    crun = [loader, "--library-path", os.path.dirname(loader), os.path.join(stage, "crun.d/usr/bin/crun")]


def versions():
    for tool in (["bwrap"], ["runc"], crun, ["podman"], ["srt"]):
        if tool and shutil.which(tool[0]):
            print("  " + here.run([*tool, "--version"])[2].split("\n")[0])


def candidates():
    """Every command that can be timed, by name, with its worker."""
    run = lambda *flags: [cellblock, "run", "--yes", "--net", "none", *flags, "--", "true"]
    yield "cellblock host", run("--image", "host"), here
    yield "cellblock alpine", run("--image", "alpine"), here
    if rootless:
        yield "cellblock host, single id", run("--image", "host", "--userns", "single"), here
        yield "cellblock alpine, single id", run("--image", "alpine", "--userns", "single"), here
    links = [w for d in ("bin", "sbin", "lib", "lib64") if os.path.islink("/" + d) for w in ("--symlink", os.readlink("/" + d), "/" + d)]
    yield "bwrap", ["bwrap", "--unshare-all", "--ro-bind", "/usr", "/usr", *links, "--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp",
                    "--ro-bind", "/etc/ssl", "/etc/ssl", "--bind", project, project, "--chdir", project, "true"], here
    for image in ("host", "alpine"):
        for kind, flags in (("", ()), (", single id", ("--userns", "single"))):
            if kind and not rootless:
                continue
            bundle = os.path.join(project, f"bundle-{image}{'-single' if kind else ''}")
            here.must("bundle", "--image", image, *flags, "-o", bundle, "--", "true")
            options = ["--root", os.path.join(shm, "oci"), "run", "--bundle", bundle, f"bench-{os.getpid()}"]
            if crun:
                yield f"crun {image}{kind}", [*crun, *options], for_crun
                # As cellblock without limits.
                yield f"crun {image}{kind}, no cgroups", [*crun, "--cgroup-manager=disabled", *options], for_crun
            if not kind:
                yield f"runc {image}", ["runc", *options], here
    archive = ["podman", "--root", os.path.join(shm, "pod"), "--runroot", os.path.join(shm, "podrun")]
    if shutil.which("podman") and for_crun.run([*archive, "import", os.path.join(stage, "alpine.tar.gz"), "bench"])[0] == 0:
        yield "podman alpine", [*archive, "run", "--rm", "--network", "none", "--cgroups", "disabled", "bench", "true"], for_crun
    yield "sandbox-runtime", ["srt", "true"], here
    yield "floor", [os.path.join(stage, "floor"), "/usr/bin/true"], here


def measure(commands, pause, count=runs):
    times = {name: [] for name in commands}
    for _ in range(count):
        for name, (command, worker) in commands.items():
            if pause:
                time.sleep(pause)
            times[name].append(worker.run(command)[1])
    return {name: statistics.median(t) for name, t in times.items()}


def main():
    print(f"\n== {'rootless, as ' + user.pw_name if rootless else 'as root'}")
    versions()
    here.must("image", "load", os.path.join(stage, "alpine.tar.gz"), "--name", "alpine")
    commands = {}
    for name, command, worker in candidates():
        code, _, text = worker.run(command) if shutil.which(command[0]) else (1, 0, "not installed")
        if code == 0:
            commands[name] = (command, worker)
        else:
            print(f"  left out: {name}: {text.strip().splitlines()[-1] if text.strip() else code}")
    warm, idle = measure(commands, 0), measure(commands, 0.12)
    marks = [name for name in ("bwrap", "crun host", "crun host, no cgroups", "crun host, single id") if name in commands]
    print(f"{'median of ' + str(runs):28} {'warm ms':>8} {'idle ms':>8}" + "".join(f" {'x ' + m:>22}" for m in marks))
    for name in commands:
        print(f"{name:28} {warm[name]:8.1f} {idle[name]:8.1f}" + "".join(f" {warm[name] / warm[m]:22.2f}" for m in marks))
    here.must("run", "-d", "--name", "x", "--rm", "--image", "host", "--", "sleep", "600")
    execs = {"cellblock exec": ([cellblock, "exec", "x", "--", "true"], here)}
    if "crun host" in commands:
        sleeper = os.path.join(project, "bundle-sleep")
        here.must("bundle", "--image", "host", "-o", sleeper, "--", "sleep", "600")
        options = [*crun, "--cgroup-manager=disabled", "--root", os.path.join(shm, "oci")]
        # Its output must not be a pipe that the worker waits for.
        for_crun.run(["sh", "-c", '"$@" >/dev/null 2>&1', "-", *options, "run", "--detach", "--bundle", sleeper, "bench-x"])
        execs["crun exec"] = ([*options, "exec", "bench-x", "true"], for_crun)
    warm, idle = measure(execs, 0), measure(execs, 0.12)
    for name in execs:
        print(f"{name:28} {warm[name]:8.1f} {idle[name]:8.1f}")
    if "crun exec" in execs:
        for_crun.run([*options, "delete", "--force", "bench-x"])
    many = ("import subprocess,sys; c=[subprocess.Popen([w.replace('{}',str(i)) for w in sys.argv[1:]],stdin=-3,stdout=-3,stderr=-3) for i in range(100)];"
            "print(sum(p.wait()==0 for p in c))")
    hundreds = {"cellblock host": ([cellblock, "run", "--yes", "--net", "none", "--image", "host", "--", "true"], here)}
    if "crun host" in commands:
        bundle = os.path.join(project, "bundle-host")
        hundreds["crun host, no cgroups"] = ([*options, "run", "--bundle", bundle, "bench-{}"], for_crun)
    for name, (command, worker) in hundreds.items():
        code, total, text = worker.run(["python3", "-c", many, *command])
        print(f"100 at once, {name}: {text.strip()} succeeded, {total * os.cpu_count() / 100:.1f} ms each per core")
    if shutil.which("podman"):
        # Ends the process that rootless podman leaves behind to hold its namespaces.
        for_crun.run(["podman", "--root", os.path.join(shm, "pod"), "--runroot", os.path.join(shm, "podrun"), "system", "migrate"])
    here.run([cellblock, "stop", "--all", "-t", "0"])
    here.run([cellblock, "image", "remove", "alpine"])


try:
    main()
finally:
    for worker in {here, for_crun}:
        worker.process.stdin.close()
        worker.process.wait()
    shutil.rmtree(base, ignore_errors=True)
    shutil.rmtree(shm, ignore_errors=True)
