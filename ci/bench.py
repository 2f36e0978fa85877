"""Times commands in turn, A B C A B C …, and prints medians and ratios. Called by ci/bench: bench.py STAGE RUNS."""
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

stage, runs = sys.argv[1], int(sys.argv[2])
cellblock = os.path.join(stage, "cellblock")
base = tempfile.mkdtemp(prefix="cbbench", dir=os.environ.get("BENCH_TMP"))
# State of running cells lies on tmpfs on every usual machine; the root file systems and layers lie on disk.
RUN = tempfile.mkdtemp(prefix="cbbench", dir="/dev/shm")
os.chmod(RUN, 0o711)
os.chmod(base, 0o711)
project = os.path.join(base, "home", "demo")
os.makedirs(project)
env = {"PATH": os.environ["PATH"], "HOME": os.path.join(base, "home"), "XDG_RUNTIME_DIR": RUN,
       "XDG_DATA_HOME": os.path.join(base, "home", "data"), "TERM": "xterm"}


def quiet(command, cwd=project):
    return subprocess.run(command, cwd=cwd, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode


subprocess.run([cellblock, "image", "load", os.path.join(stage, "alpine.tar.gz"), "--name", "alpine"], cwd=project, env=env, check=True, stdout=subprocess.DEVNULL)
rootless = os.geteuid() != 0
commands = {
    "cellblock host": [cellblock, "run", "--image", "host", "--", "true"],
    "cellblock alpine": [cellblock, "run", "--image", "alpine", "--", "true"],
}
if rootless:
    commands["cellblock alpine, single id"] = [cellblock, "run", "--image", "alpine", "--userns", "single", "--", "true"]
if shutil.which("bwrap"):
    links = [w for d in ("bin", "sbin", "lib", "lib64") if os.path.islink("/" + d) for w in ("--symlink", os.readlink("/" + d), "/" + d)]
    commands["bwrap"] = ["bwrap", "--unshare-all", "--ro-bind", "/usr", "/usr", *links, "--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp",
                         "--ro-bind", "/etc/ssl", "/etc/ssl", "--bind", project, project, "--chdir", project, "true"]
state = os.path.join(RUN, "oci")
for name, image in (("host", "host"), ("alpine", "alpine")):
    bundle = os.path.join(project, "bundle-" + name)
    subprocess.run([cellblock, "bundle", "--image", image, "-o", bundle, "--", "true"], cwd=project, env=env, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    for tool in ("runc", "crun"):
        if shutil.which(tool):
            commands[f"{tool} {name}"] = [tool, "--root", state, "run", "--bundle", bundle, f"bench-{tool}-{name}-{os.getpid()}"]
commands = {name: command for name, command in commands.items() if quiet(command) == 0 or print(f"(left out, does not run here: {name})")}


def measure(pause):
    times = {name: [] for name in commands}
    for _ in range(runs):
        for name, command in commands.items():
            if pause:
                time.sleep(pause)
            start = time.perf_counter()
            quiet(command)
            times[name].append((time.perf_counter() - start) * 1000)
    return {name: statistics.median(t) for name, t in times.items()}


warm, idle = measure(0), measure(0.12)
first = next(iter(commands))
print(f"{'median of ' + str(runs):30} {'warm ms':>9} {'ratio':>7} {'idle ms':>9} {'ratio':>7}   (ratio: to {first})")
for name in commands:
    print(f"{name:30} {warm[name]:9.1f} {warm[name] / warm[first]:7.2f} {idle[name]:9.1f} {idle[name] / idle[first]:7.2f}")

subprocess.run([cellblock, "run", "-d", "--name", "x", "--rm", "--image", "host", "--", "sleep", "600"], cwd=project, env=env, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
commands = {"cellblock exec": [cellblock, "exec", "x", "--", "true"]}
print(f"{'cellblock exec':30} {measure(0)['cellblock exec']:9.1f} {'':7} {measure(0.12)['cellblock exec']:9.1f}")
started = time.perf_counter()
children = [subprocess.Popen([cellblock, "run", "--image", "host", "--", "true"], cwd=project, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) for _ in range(100)]
codes = [child.wait() for child in children]
total = (time.perf_counter() - started) * 1000
print(f"100 at once: {codes.count(0)} succeeded, {total * os.cpu_count() / 100:.1f} ms each per core")
subprocess.run([cellblock, "stop", "--all", "-t", "0"], cwd=project, env=env, stdout=subprocess.DEVNULL)
subprocess.run([cellblock, "image", "remove", "alpine"], cwd=project, env=env, stdout=subprocess.DEVNULL)
shutil.rmtree(base, ignore_errors=True)
shutil.rmtree(RUN, ignore_errors=True)
