//! The person's ssh agent, asked from inside.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use cellblock_tests::internet::Internet;
use cellblock_tests::{Call, World, is_root};

/// An agent of this world's, with keys.
struct Agent {
    child: Child,
    socket: String,
}

impl Agent {
    /// Starts one with the keys `me@here` and `other@here`, whose files are in `keys`.
    fn new(world: &World) -> Self {
        let socket = world.path("agent").display().to_string();
        let child = Command::new("ssh-agent").args(["-D", "-a", &socket]).stdout(Stdio::null()).spawn();
        let agent = Self { child: child.expect("ssh-agent (openssh-client) starts"), socket };
        world.wait("the agent", || world.path("agent").exists());
        let script = "
umask 077; mkdir ../../keys; cd ../../keys
for name in me other; do ssh-keygen -q -t ed25519 -N '' -C $name@here -f $name; ssh-add -q $name; done
";
        world.call(Path::new("sh"), &["-c", script]).env("SSH_AUTH_SOCK", &agent.socket).ok();
        agent
    }

    /// Its keys, as it says itself.
    fn keys(&self, world: &World) -> String {
        world.call(Path::new("ssh-add"), &["-l"]).env("SSH_AUTH_SOCK", &self.socket).run().stdout()
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A cell without a network that runs `script`.
fn cell(world: &World, agent: &str, flags: &str, script: &str) -> Call {
    world.write("home/demo/script", script);
    world.cellblock(&format!("run --image host --net none {flags} -- sh script")).env("SSH_AUTH_SOCK", agent)
}

fn fingerprint(world: &World, key: &str) -> String {
    let file = world.path(&format!("keys/{key}.pub"));
    let out = world.call(Path::new("ssh-keygen"), &["-lf", file.to_str().expect("utf-8")]).ok();
    out.split(' ').nth(1).expect("a fingerprint").to_owned()
}

#[test]
fn the_agent_is_there_when_asked_for_and_only_to_be_asked() {
    let world = World::new();
    let agent = Agent::new(&world);
    let list = "ssh-add -l 2>&1 | cut -d ' ' -f 3-";
    let none = cell(&world, &agent.socket, "", &format!("echo \"[$SSH_AUTH_SOCK]\"; {list}")).ok();
    assert!(none.starts_with("[]\n") && !none.contains("@here"), "{none}");
    let all = cell(&world, &agent.socket, "--ssh-agent", list).ok();
    assert_eq!(all, "me@here (ED25519)\nother@here (ED25519)\n");
    // By comment, by fingerprint, by the file of the public half.
    let file = world.path("keys/me.pub").display().to_string();
    for key in ["me@here", &fingerprint(&world, "me"), &file] {
        let one = cell(&world, &agent.socket, &format!("--ssh-agent-key {key}"), list).ok();
        assert_eq!(one, "me@here (ED25519)\n", "{key}");
    }
    world.configure(&format!(
        "projects:\n  demo:\n    path: {}\n    ssh_agent: true\n    ssh_agent_keys: [other@here]\n",
        world.project().display()
    ));
    assert_eq!(cell(&world, &agent.socket, "", list).ok(), "other@here (ED25519)\n");
    let off = cell(&world, &agent.socket, "--no-ssh-agent", list).ok();
    assert!(!off.contains("@here"), "{off}");
    // Whoever the command is, wherever /run is, and for commands that come later.
    world.configure("defaults:\n  ssh_agent: true\n");
    assert_eq!(cell(&world, &agent.socket, "-u root", list).ok(), "me@here (ED25519)\nother@here (ED25519)\n");
    assert_eq!(cell(&world, &agent.socket, "--read-only", list).ok(), "me@here (ED25519)\nother@here (ED25519)\n");
    let child = cell(&world, &agent.socket, "--name later --rm", "touch ready; sleep 60").start();
    world.wait("the cell", || world.path("home/demo/ready").exists());
    assert_eq!(world.cellblock("exec later ssh-add -l").ok().lines().count(), 2);
    world.cellblock("stop -t 0 later").ok();
    let _ = child.wait_with_output();
    // Nothing is changed from inside; nobody's key is inside.
    let script = "
ssh-add -D; ssh-add -x </dev/null; ssh-keygen -q -t ed25519 -N '' -f /tmp/new; ssh-add -q /tmp/new; ssh-add -d /tmp/new.pub
ls -A ~/.ssh 2>/dev/null
tail -n 1 /etc/ssh/ssh_known_hosts2 | cut -d ' ' -f 1
";
    let done = cell(&world, &agent.socket, "--ssh-agent", script).run();
    assert_eq!(done.stdout(), "git.sr.ht\n", "{done}");
    assert_eq!(agent.keys(&world).lines().count(), 2, "{done}");
    assert!(world.leftovers().is_empty());
}

#[test]
fn files_are_signed_only_if_that_was_asked_for() {
    let world = World::new();
    let agent = Agent::new(&world);
    let public = std::fs::read_to_string(world.path("keys/me.pub")).expect("a key");
    world.write("home/demo/me.pub", &public);
    world.write("home/demo/text", "what is signed\n");
    let script = "rm -f text.sig; ssh-keygen -q -Y sign -f me.pub -n $NAMESPACE text 2>/dev/null; echo $?; ls text.sig 2>/dev/null || true";
    let sign = |namespace: &str| {
        cell(&world, &agent.socket, &format!("--name s --rm --ssh-agent -e NAMESPACE={namespace}"), script).ok()
    };
    assert_eq!(sign("git"), "255\n");
    world.configure("defaults:\n  commit_signing: true\n");
    assert_eq!(sign("git"), "0\ntext.sig\n");
    assert_eq!(sign("file"), "255\n");
    // As the person's own git has it: the cell has no file of a key.
    world.write(
        "home/.gitconfig",
        &format!(
            "[gpg]\n\tformat = ssh\n[user]\n\tsigningkey = {}\n[commit]\n\tgpgsign = true\n",
            world.path("keys/me").display()
        ),
    );
    world.call(Path::new("sh"), &["-c", "rm -r .git && git init -q -b main"]).ok();
    let commit = "
git -c user.name=a -c user.email=a@b commit -q --allow-empty -m signed && git cat-file commit HEAD | grep -c 'BEGIN SSH SIGNATURE'
";
    assert_eq!(cell(&world, &agent.socket, "--ssh-agent", commit).ok(), "1\n");
    let unsigned = cell(&world, &agent.socket, "", commit).run();
    assert_eq!(unsigned.stdout(), "0\n", "{unsigned}");
    world.write("home/.gitconfig", "");
    cell(&world, &agent.socket, "--ssh-agent", "true").run().says("neither user.signingkey nor user.name");
    let log = world.cellblock("net log s").ok();
    let key = fingerprint(&world, "me");
    assert!(
        log.contains(&format!("allow  ssh agent {key}  signed a commit or tag of git's, with the key me@here")),
        "{log}"
    );
    assert!(log.contains(&format!("deny   ssh agent {key}  a signature for file")), "{log}");
}

#[test]
fn a_dead_agent_is_told_and_a_missing_one_too() {
    let world = World::new();
    let mut agent = Agent::new(&world);
    let _ = agent.child.kill();
    let _ = agent.child.wait();
    let done = cell(&world, &agent.socket, "--name d --rm --ssh-agent", "ssh-add -l; echo $?").run();
    done.says("does not answer").says("the cell has no keys until it does");
    assert_ne!(done.stdout(), "0\n", "{done}");
    assert!(world.cellblock("net log d").ok().contains("does not answer"));
    cell(&world, "", "--ssh-agent", "true").fails(125).says("SSH_AUTH_SOCK is not set").says("ssh-add");
    world.configure("defaults:\n  ssh_agent: true\n");
    let done = cell(&world, "", "", "echo on").run();
    assert_eq!(done.stdout(), "on\n");
    done.says("there is no ssh agent here");
    cell(&world, "/nowhere", "--ssh-agent-key /nowhere.pub", "true").fails(125).says("/nowhere.pub").says("ssh-add -l");
    assert!(world.leftovers().is_empty());
}

/// Too much of everything: clients that say nothing, too much, half; ten thousand questions. The agent answers the next one, and the cell ends
/// as it would.
#[test]
fn clients_that_misbehave_hurt_only_themselves() {
    let world = World::new();
    let agent = Agent::new(&world);
    world.write(
        "home/demo/client.py",
        "
import socket, struct
def connect():
    client = socket.socket(socket.AF_UNIX)
    client.settimeout(20)
    client.connect('/run/cellblock/ssh-agent.sock')
    return client
def ask(client, message):
    client.sendall(struct.pack('>I', len(message)) + message)
    head = b''
    while len(head) < 4:
        piece = client.recv(4 - len(head))
        if not piece: return None
        head += piece
    left = struct.unpack('>I', head)[0]
    body = b''
    while len(body) < left: body += client.recv(left - len(body))
    return body
def closed(client):
    try:
        return client.recv(1) == b''
    except ConnectionResetError:
        return True
for announced in (0, 1 << 30, 0xffffffff):
    client = connect()
    client.sendall(struct.pack('>I', announced) + b'x')
    print('closed', closed(client))
client = connect()
client.sendall(b'\\0\\0\\0')
client.close()
client = connect()
print(all(ask(client, b'\\x0b')[0] == 12 for _ in range(2000)))
print(all(ask(client, bytes([n]))[0] == 5 for n in range(17, 28) for _ in range(800)))
print(ask(client, b'\\x0d\\0\\0'), closed(client))
def string(b): return struct.pack('>I', len(b)) + b
client = connect()
keys = ask(client, b'\\x0b')
key = keys[9:9 + struct.unpack('>I', keys[5:9])[0]]
for what in (b'', b'text', string(b'ssh-ed25519-cert-v01@openssh.com') + string(bytes(32)),
             string(bytes(32)) + b'\\x32' + string(b'me') + string(b'ssh-connection') + string(b'publickey') + b'\\1' + string(b'a') + string(b'another key')):
    print(ask(client, b'\\x0d' + string(key) + string(what) + b'\\0\\0\\0\\0') == b'\\5')
good = string(bytes(32)) + b'\\x32' + string(b'me') + string(b'ssh-connection') + string(b'publickey') + b'\\1' + string(b'ssh-ed25519') + string(key)
print(ask(client, b'\\x0d' + string(key) + string(good) + b'\\0\\0\\0\\0')[0] == 14)
client.close()
idle = [connect() for _ in range(31)]
print(ask(idle[0], b'\\x0b')[0])
more = [connect() for _ in range(300)]
print(sum(closed(client) for client in more[10:]) >= 290)
# One that asks and never reads.
slow = idle[1]
slow.setblocking(False)
try:
    while True: slow.sendall(struct.pack('>I', 1) + b'\\x0b')
except BlockingIOError:
    print('full')
print(ask(idle[2], b'\\x0b')[0])
",
    );
    let out = cell(&world, &agent.socket, "--ssh-agent", "python3 client.py; exit 7").fails(7).stdout();
    let want = "closed True\nclosed True\nclosed True\nTrue\nTrue\nb'\\x05' True\nTrue\nTrue\nTrue\nTrue\nTrue\n12\nTrue\nfull\n12\n";
    assert_eq!(out, want);
    assert_eq!(agent.keys(&world).lines().count(), 2);
    assert!(world.leftovers().is_empty());
}

/// When whoever guards the cell is killed, so is what answers it; nothing of it is visible inside.
#[test]
fn what_answers_is_not_in_the_cell_and_dies_with_it() {
    let world = World::new();
    let agent = Agent::new(&world);
    let script = "cat /proc/[0-9]*/comm | sort -u; touch ready; sleep 60";
    let mut child = cell(&world, &agent.socket, "--name k --rm --ssh-agent", script).start();
    world.wait("the cell", || world.path("home/demo/ready").exists());
    let folder = world.path("run/cellblock/cells/k");
    let _ = child.kill();
    let output = child.wait_with_output().expect("its output");
    let seen = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(!seen.contains("broke") && seen.contains("cat\n"), "{seen}");
    let socket = folder.join("broker/in/ssh-agent.sock");
    assert!(socket.exists(), "the supervisor had no time to clean up");
    world.wait("its end", || std::os::unix::net::UnixStream::connect(&socket).is_err());
    world.cellblock("status").ok();
    assert!(world.leftovers().is_empty());
}

/// If it is killed alone, nobody answers any more, in words; the cell goes on, and nothing takes its place.
#[test]
fn without_it_nobody_answers_and_the_cell_goes_on() {
    let world = World::new();
    let agent = Agent::new(&world);
    let name = format!("alone{}", std::process::id());
    let script = "
ssh-add -l | wc -l
/etc/cellblock/bin/xdg-open https://example.com 2>/dev/null; echo $?
touch ready; while ! [ -e go ]; do sleep 0.05; done
ssh-add -l; echo $?
";
    let flags = format!("--name {name} --rm --ssh-agent --bridge open-url");
    let child = cell(&world, &agent.socket, &flags, script).env("PATH", "/usr/bin:/bin").start();
    world.wait("the cell", || world.path("home/demo/ready").exists());
    let found: Vec<rustix::process::Pid> = std::fs::read_dir("/proc")
        .expect("/proc")
        .flatten()
        .filter(|entry| {
            let read = |file: &str| std::fs::read_to_string(entry.path().join(file)).unwrap_or_default();
            // The kernel keeps 15 letters.
            read("comm").trim() == "cellblock-broke" && read("cmdline").contains(&name)
        })
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok().and_then(rustix::process::Pid::from_raw))
        .collect();
    assert_eq!(found.len(), 1, "one process a cell");
    rustix::process::kill_process(found[0], rustix::process::Signal::KILL).expect("killed");
    world.write("home/demo/go", "");
    let output = child.wait_with_output().expect("its output");
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(out.starts_with("2\n") && out.ends_with("\n2\n"), "{out}{err}");
    assert!(err.contains("Error connecting to agent"), "{err}");
    assert_eq!(output.status.code(), Some(0));
    assert!(world.leftovers().is_empty());
}

/// Row A10: `ssh -T` against a server, as the person, by the agent; without it, or without the right key, it fails.
#[test]
fn ssh_logs_in_by_the_agent() {
    let internet = Internet::new();
    let world = &internet.world;
    let agent = Agent::new(world);
    let me = world.call(Path::new("id"), &["-un"]).ok().trim().to_owned();
    let root = world.path("").display().to_string();
    let root = root.trim_end_matches('/');
    let setup = "
umask 077; cd ../../keys
ssh-keygen -q -t ed25519 -N '' -f host
cp me.pub authorized
mkdir -p ../home/.ssh
{ printf '[host.cellblock.internal]:2222 '; cat host.pub; printf 'secret.test '; cat host.pub; } >../home/.ssh/known_hosts
";
    world.call(Path::new("sh"), &["-c", setup]).ok();
    world.write(
        "keys/config",
        &format!(
            "Port 2222\nListenAddress 127.0.0.1\nHostKey {root}/keys/host\nAuthorizedKeysFile {root}/keys/authorized\nStrictModes no\nUsePAM no\n\
             PasswordAuthentication no\nKbdInteractiveAuthentication no\nPermitRootLogin yes\nPidFile none\nForceCommand echo welcome $USER\n"
        ),
    );
    // A folder that sshd wants to see; the machine's own /run is left alone.
    let run = if is_root() { "mount -t tmpfs none /run && mkdir -m 755 /run/sshd && " } else { "" };
    let unshare: &[&str] = if is_root() { &["-m"] } else { &[] };
    let line = format!("{run} exec /usr/sbin/sshd -D -e -f {root}/keys/config");
    let mut server = internet
        .call(Path::new(if is_root() { "unshare" } else { "env" }), &[unshare, &["sh", "-c", &line]].concat())
        .start();
    world.wait("sshd", || {
        let up = "exec 3<>/dev/tcp/127.0.0.1/2222";
        internet.call(Path::new("bash"), &["-c", up]).run().code() == Some(0)
    });
    world.write(
        "home/demo/.git/config",
        &format!("[remote \"origin\"]\n\turl = ssh://{me}@host.cellblock.internal:2222/work.git\n"),
    );
    let login = |flags: &str| {
        let flags = format!("--name a --rm --image host --no-default-allow --allow host:2222 {flags}");
        let ssh = format!("ssh -T -o BatchMode=yes -o ConnectTimeout=20 -p 2222 {me}@host.cellblock.internal");
        internet.cellblock(&format!("run {flags} -- {ssh}")).env("SSH_AUTH_SOCK", &agent.socket).run()
    };
    let done = login("--ssh-agent");
    assert_eq!((done.code(), done.stdout()), (Some(0), format!("welcome {me}\n")), "{done}");
    let log = world.cellblock("net log a").ok();
    let said = format!("allow  ssh agent {}  signed a login as {me}, server key SHA256:", fingerprint(world, "me"));
    assert!(log.contains(&said) && log.contains("with the key me@here"), "{log}");
    let without = login("");
    assert_eq!(without.code(), Some(255), "{without}");
    without.says("Host key verification failed");
    let other = login("--ssh-agent --ssh-agent-key other@here");
    assert_eq!(other.code(), Some(255), "{other}");
    other.says("Permission denied");
    // Of the servers that the person knows only the project's are told.
    let known = internet
        .cellblock("run --image host --ssh-agent -- cat /etc/ssh/ssh_known_hosts2")
        .env("SSH_AUTH_SOCK", &agent.socket)
        .ok();
    assert!(known.contains("[host.cellblock.internal]:2222 ssh-ed25519") && !known.contains("secret.test"), "{known}");
    let _ = server.kill();
    let _ = server.wait();
}

#[test]
fn no_mount_point_is_made_in_a_folder_of_the_host() {
    let world = World::new();
    let agent = Agent::new(&world);
    std::fs::create_dir_all(world.path("home/run")).expect("mkdir");
    let mount = format!("-v {}:/run", world.path("home/run").display());
    cell(&world, &agent.socket, &format!("{mount} --ssh-agent"), "true")
        .fails(125)
        .says("is mounted on /run, and /run/cellblock");
    assert_eq!(std::fs::read_dir(world.path("home/run")).expect("there").count(), 0);
    // The twins: each of them alone.
    assert_eq!(cell(&world, &agent.socket, &mount, "echo on").ok(), "on\n");
    assert_eq!(cell(&world, &agent.socket, "--ssh-agent", "echo on").ok(), "on\n");
}
