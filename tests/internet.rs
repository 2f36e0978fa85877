//! A world with an internet of its own: the network, the resolver and the servers are the test's, in namespaces that it makes. Nothing of it
//! needs the machine's network, and nothing reaches it.
//!
//! ```text
//!  "host" namespace (cellblock runs here)          "internet" namespace
//!  172.20.0.1, fd20::1, /etc/hosts of its own ──veth── 172.20.0.2, fd20::2, every other address too
//! ```

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::{Call, World, cellblock, is_root};

/// Names and where they lead.
const HOSTS: &str = "\
127.0.0.1 localhost loop.test
::1 localhost
93.184.216.34 allowed.test wild.test www.wild.test a.b.wild.test xwild.test
93.184.216.35 other.test
93.184.216.36 mirror.test
93.184.216.37 npm.wild.test
93.184.216.38 pypi.wild.test
93.184.216.39 git.test
93.184.216.250 silent.test
2606:2800:220:1:248:1893:25c8:1946 six.test
10.1.2.3 private.test
169.254.169.254 meta.test
172.20.0.1 own.test
::ffff:93.184.216.34 mapped.test
64:ff9b::5db8:d822 nat.test
2002:5db8:d822::1 sixtofour.test
0.0.0.0 zero.test
";

/// Makes the namespaces, then waits to be ended. `$1` is the world's folder, `$2` programs that are not to be there.
const SCRIPT: &str = "
set -e
cd \"$1\"
mount --bind hosts /etc/hosts
for program in $2; do
    mount --bind /dev/null \"$(readlink -f \"$(PATH=$PATH:/usr/sbin:/sbin command -v \"$program\")\")\"
done
mount --bind resolv.conf /etc/resolv.conf
ip link set lo up
unshare -n python3 internet.py reached test.pem >ready &
internet=$!
while ! [ \"$(readlink /proc/$internet/ns/net)\" != \"$(readlink /proc/self/ns/net)\" ]; do sleep 0.01; done
ip link add up0 type veth peer name eth0 netns $internet
ip addr add 172.20.0.1/24 dev up0
ip -6 addr add fd20::1/64 dev up0 nodad
ip link set up0 up
ip route add default via 172.20.0.2
ip -6 route add default via fd20::2
# Whatever goes to this address is lost on the way.
ip neigh add 93.184.216.250 lladdr 02:00:00:00:02:50 dev up0 nud permanent
ip route add 93.184.216.250/32 dev up0
# As systemd does for everybody, so that echo requests can be sent on.
echo \"$(id -g) $(id -g)\" >/proc/sys/net/ipv4/ping_group_range
while ! grep -q ready ready; do sleep 0.01; done
echo ready
read -r line || true
kill $internet
";

/// A world and its internet.
#[derive(Debug)]
pub struct Internet {
    /// The world: home, project.
    pub world: World,
    holder: Child,
}

impl Internet {
    /// Makes one.
    ///
    /// # Panics
    /// If the namespaces cannot be made.
    #[must_use]
    pub fn new() -> Self {
        Self::without("")
    }

    /// Makes one on a host that lacks these programs.
    ///
    /// # Panics
    /// If the namespaces cannot be made.
    #[must_use]
    pub fn without(programs: &str) -> Self {
        Self::made(programs, |_| {})
    }

    /// Makes one after `prepare` has put files where its servers look for them: `web/NAME/PATH` is what a name has at a path on the ports 80 and
    /// 443, `sshd_config` makes a real sshd listen on port 22, and `turns` has `NAME ADDRESS...`, of which each look-up gets the next.
    ///
    /// # Panics
    /// If the namespaces cannot be made.
    #[must_use]
    pub fn with(prepare: impl FnOnce(&World)) -> Self {
        Self::made("", prepare)
    }

    fn made(programs: &str, prepare: impl FnOnce(&World)) -> Self {
        let world = World::new();
        prepare(&world);
        world.write("internet.py", include_str!("data/internet.py"));
        world.write("test.pem", include_str!("data/test.pem"));
        world.write("hosts", HOSTS);
        world.write("www/index.html", "static\n");
        // Nobody there: it is refused at once.
        world.write("resolv.conf", "nameserver 127.0.0.1\n");
        let mut command = Command::new("unshare");
        if !is_root() {
            // Their own ids, and the capabilities that go with the namespace: for the script only.
            command.args(["-U", "--map-current-user", "--keep-caps"]);
        }
        let root = world.path("");
        command.args(["-n", "-m", "sh", "-c", SCRIPT, "sh"]).arg(&root).arg(programs);
        let mut holder =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("unshare (util-linux) starts");
        let mut line = String::new();
        BufReader::new(holder.stdout.take().expect("a pipe")).read_line(&mut line).expect("a line");
        assert_eq!(line, "ready\n", "the internet could not be made; see above");
        Self { world, holder }
    }

    /// `cellblock` on this world's host.
    #[must_use]
    pub fn cellblock(&self, line: &str) -> Call {
        self.call(&cellblock(), &crate::words(line))
    }

    /// From now on the host asks the name server of the internet, and no file.
    pub fn ask_the_name_server(&self) {
        // Written over, not replaced: the files of the host are these by a mount.
        self.world.write("hosts", "127.0.0.1 localhost\n");
        self.world.write("resolv.conf", "nameserver 172.20.0.2\noptions timeout:1 attempts:1\n");
    }

    /// Any program on this world's host.
    #[must_use]
    pub fn call<S: AsRef<std::ffi::OsStr>>(&self, program: &Path, args: &[S]) -> Call {
        let mut all: Vec<std::ffi::OsString> = vec!["-t".into(), self.holder.id().to_string().into()];
        if !is_root() {
            all.extend(["-U".into(), "--preserve-credentials".into()]);
        }
        // In the world's mounts: the folder of ours would be one that no path leads to.
        let mut wd = std::ffi::OsString::from("--wdns=");
        wd.push(self.world.project());
        all.extend(["-n".into(), "-m".into(), wd, "--".into(), program.into()]);
        all.extend(args.iter().map(|a| a.as_ref().to_owned()));
        // Subordinate ids are not to be had in a namespace that does not have them itself.
        let single = if is_root() { "auto" } else { "single" };
        self.world.call(Path::new("nsenter"), &all).env("CELLBLOCK_USERNS", single)
    }

    /// A cell of the `host` image with these flags that runs `script` in Python; its output.
    ///
    /// # Panics
    /// If it fails.
    #[must_use]
    pub fn python(&self, flags: &str, script: &str) -> String {
        self.world.write("home/demo/client.py", &format!("{}\n{script}\n", include_str!("data/client.py")));
        self.cellblock(&format!("run --image host {flags} -- python3 client.py")).ok()
    }

    /// What was reached so far, a line each.
    #[must_use]
    pub fn reached(&self) -> String {
        std::fs::read_to_string(self.world.path("reached")).unwrap_or_default()
    }

    /// The audit of all cells of this world.
    #[must_use]
    pub fn audit(&self) -> Vec<serde_json::Value> {
        let folder = self.world.path("home/.local/state/cellblock/audit");
        let files = std::fs::read_dir(folder).into_iter().flatten().flatten();
        let mut lines = Vec::new();
        for file in files {
            let text = std::fs::read_to_string(file.path()).unwrap_or_default();
            lines.extend(text.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")));
        }
        lines
    }
}

impl Default for Internet {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Internet {
    fn drop(&mut self) {
        // Its standard input ends, and with it the script; its children are killed by it.
        drop(self.holder.stdin.take());
        let _ = self.holder.wait();
    }
}
