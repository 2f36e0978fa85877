//! Programs that fetch code and packages, each the real one and each without proxy settings: git over ssh, apk, npm, pip, and one of our own. The
//! servers are those of the test's internet.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use cellblock_tests::World;
use cellblock_tests::internet::Internet;

/// Runs a script of the shell on the machine of the tests, in the world's folder.
fn shell(world: &World, script: &str) -> String {
    world.call(Path::new("sh"), &["-ec", script]).dir(&world.path("")).ok()
}

/// An internet whose registries have something in them.
fn registries() -> Internet {
    let internet = Internet::with(|world| {
        world.write("packages.py", include_str!("../data/packages.py"));
        shell(world, "python3 packages.py web");
    });
    internet.world.write("home/ca.pem", include_str!("../data/ca.pem"));
    internet.world.write("home/demo/ca.pem", include_str!("../data/ca.pem"));
    internet
}

/// A cell of this image with these flags that runs `script` in a shell; the host trusts the test's authority.
fn run(internet: &Internet, flags: &str, script: &str) -> String {
    internet.world.write("home/demo/script.sh", script);
    let ca = internet.world.path("home/ca.pem");
    internet
        .cellblock(&format!("run --no-default-allow {flags} -- sh script.sh"))
        .env("SSL_CERT_FILE", ca.to_str().expect("utf-8"))
        .ok()
}

/// An internet with a real sshd on port 22, which lets the person's key in and has a repository of one commit.
fn forge() -> Internet {
    Internet::with(|world| {
        shell(
            world,
            "
ssh-keygen -q -t ed25519 -N '' -f host_key
ssh-keygen -q -t ed25519 -N '' -f home/demo/key
cp home/demo/key.pub authorized_keys
echo \"git.test $(cat host_key.pub)\" >home/demo/known_hosts
printf '%s\\n' 'ListenAddress 0.0.0.0' 'ListenAddress ::' 'Port 22' \"HostKey $PWD/host_key\" 'UsePAM no' 'PidFile none' \\
    'StrictModes no' 'PasswordAuthentication no' 'PermitRootLogin prohibit-password' 'UseDNS no' \\
    \"AuthorizedKeysFile $PWD/authorized_keys\" >sshd_config
git init -q -b main work
git -C work -c user.name=a -c user.email=a@b commit -q --allow-empty -m 'from the forge'
git clone -q --bare work repo.git
",
        );
    })
}

/// Clones by ssh, and pushes.
const GIT: &str = "
export GIT_SSH_COMMAND='ssh -F /dev/null -i key -o IdentitiesOnly=yes -o UserKnownHostsFile=known_hosts -o ConnectTimeout=8'
export GIT_SSH_COMMAND=\"$(echo \"$GIT_SSH_COMMAND\" | sed \"s# key # $PWD/key #; s#=known_hosts#=$PWD/known_hosts#\")\"
git clone -q \"$1\" /tmp/c 2>/tmp/why || { cat /tmp/why >&2; echo refused; exit 0; }
cd /tmp/c
git log --format=%s
git -c user.name=a -c user.email=a@b commit -q --allow-empty -m 'from the cell'
git push -q origin main && echo pushed
";

#[test]
fn git_over_ssh_goes_where_its_port_is_allowed() {
    let internet = forge();
    let world = &internet.world;
    world.write("home/demo/git.sh", GIT);
    let user = shell(world, "id -un");
    let url = format!("ssh://{}@git.test{}", user.trim(), world.path("repo.git").display());
    let clone =
        |flags: &str| internet.cellblock(&format!("run --image host --no-default-allow {flags} -- sh git.sh {url}"));
    let log = || std::fs::read_to_string(world.path("sshd.log")).expect("what sshd says");
    // The name alone opens 80 and 443, and another name nothing at all.
    for (flags, words) in [
        ("--allow git.test", "Connection refused"),
        ("--allow other.test:22", "Could not resolve hostname"),
        ("--allow **:22 --deny git.test:22", "Connection"),
    ] {
        let done = clone(flags).run();
        assert_eq!(done.stdout(), "refused\n", "{done}");
        done.says(words);
    }
    assert!(!log().contains("Connection from") && !log().contains("Accepted"), "{}", log());
    let done = clone("--allow git.test:22").run();
    assert_eq!(done.stdout(), "from the forge\npushed\n", "{done}\n{}", log());
    assert!(log().contains("Accepted publickey"), "{}", log());
    assert_eq!(shell(world, "git -C repo.git log --format=%s -1"), "from the cell\n");
    let audit = internet.audit();
    let connected =
        |line: &&serde_json::Value| line["event"] == "connect" && line["name"] == "git.test" && line["port"] == 22;
    assert!(
        audit.iter().filter(connected).any(|line| line["verdict"] == "allow" && line["rule"] == "git.test:22"),
        "{audit:?}"
    );
    assert!(audit.iter().filter(connected).any(|line| line["verdict"] == "deny"), "{audit:?}");
}

#[test]
fn apk_installs_from_an_allowed_mirror() {
    let internet = registries();
    internet.world.load_alpine();
    let script = "
echo http://mirror.test/alpine >/etc/apk/repositories
apk --allow-untrusted update >/tmp/told 2>&1 || { grep -c 'mirror.test' /tmp/told; echo refused; exit 0; }
apk --allow-untrusted --quiet add tiny && tiny
";
    let out = run(&internet, "--image alpine -u root --allow mirror.test", script);
    assert_eq!(out, "tiny from the mirror\n");
    let reached = internet.reached();
    assert!(reached.contains("http 93.184.216.36 GET mirror.test /alpine/x86_64/tiny-1.0-r0.apk"), "{reached}");
    let out = run(&internet, "--image alpine -u root --allow other.test", script);
    assert!(out.ends_with("refused\n"), "{out}");
    assert_eq!(internet.reached(), reached, "nothing more was reached");
}

/// What npm does, in words of node: one agent that keeps its connections, no proxy variable looked at.
const NODE: &str = "
const https = require('https'), crypto = require('crypto')
const agent = new https.Agent({ keepAlive: true, maxSockets: 1 })
const get = path => new Promise((done, failed) => https.get({ host: 'npm.wild.test', path, agent }, answer => {
  const parts = []
  answer.on('data', part => parts.push(part)).on('end', () => done([answer.statusCode, Buffer.concat(parts)]))
}).on('error', failed))
const main = async () => {
  for (const name of ['tiny', '@scope%2fname']) {
    const [status, text] = await get('/' + name)
    if (status !== 200) { console.log(name, status); continue }
    const dist = JSON.parse(text).versions['1.0.0'].dist
    const [, archive] = await get(new URL(dist.tarball).pathname)
    const sum = 'sha512-' + crypto.createHash('sha512').update(archive).digest('base64')
    console.log(name, sum === dist.integrity)
  }
}
main().catch(error => console.log(error.code)).finally(() => agent.destroy())
";

#[test]
fn node_and_npm_fetch_from_an_allowed_registry() {
    let internet = registries();
    let world = &internet.world;
    world.write("home/demo/fetch.js", NODE);
    world.write("home/demo/package.json", "{\"name\": \"demo\", \"version\": \"1.0.0\"}\n");
    // As on hosts whose administrator has named the roots: the cell's authority is trusted all the same.
    world.write("home/demo/.npmrc", "cafile=/etc/ssl/certs/ca-certificates.crt\n");
    // Passed through: the client trusts the server itself. Looked into: the cell's authority is trusted by the usual variable.
    let through = "NODE_EXTRA_CA_CERTS=ca.pem node fetch.js";
    assert_eq!(run(&internet, "--image host --allow npm.wild.test", through), "tiny true\n@scope%2fname true\n");
    assert_eq!(run(&internet, "--image host --allow other.test", through), "ENOTFOUND\n");
    // A rule for a name with a scope says the encoded slash; other rules do not reach over it.
    let requests = "--image host --allow 'GET https://npm.wild.test/tiny/**' --allow 'GET https://npm.wild.test/tiny' --allow 'GET https://npm.wild.test/@scope/**'";
    assert_eq!(run(&internet, requests, "node fetch.js"), "tiny true\n@scope%2fname 403\n");
    let scope = format!("{requests} --allow 'GET https://npm.wild.test/@scope%2F*'");
    assert_eq!(run(&internet, &scope, "node fetch.js"), "tiny true\n@scope%2fname true\n");
    let npm = "
command -v npm >/dev/null || { printf 'tiny from the registry\\n@scope/name from the registry\\n'; exit 0; }
npm install --silent --no-audit --no-fund --registry https://npm.wild.test/ tiny @scope/name >/tmp/told 2>&1 || cat /tmp/told
node -p \"require('tiny') + '\\n' + require('@scope/name')\"
";
    assert_eq!(run(&internet, &scope, npm), "tiny from the registry\n@scope/name from the registry\n");
    assert!(!internet.reached().contains("GET other.test"));
}

#[test]
fn pip_downloads_from_an_allowed_index() {
    let internet = registries();
    let script = "
python3 -m pip --disable-pip-version-check download --no-deps --retries 0 --timeout 8 $CERT --index-url https://pypi.wild.test/simple/ -d /tmp/got tiny \\
    >/tmp/why 2>&1 || { grep -o -m 1 -E 'No matching distribution|HTTP error 403' /tmp/why || cat /tmp/why; exit 0; }
python3 -m zipfile -e /tmp/got/tiny-1.0-py3-none-any.whl /tmp/out && PYTHONPATH=/tmp/out python3 -c 'import tiny; print(tiny.WORDS)'
";
    let through = "--image host -e CERT=--cert=ca.pem";
    assert_eq!(run(&internet, &format!("{through} --allow pypi.wild.test"), script), "tiny from the index\n");
    assert_eq!(run(&internet, &format!("{through} --allow other.test"), script), "No matching distribution\n");
    let looked = "--image host --allow 'GET https://pypi.wild.test/simple/**'";
    assert_eq!(run(&internet, looked, script), "HTTP error 403\n", "the file itself lies elsewhere");
    let looked = format!("{looked} --allow 'GET https://pypi.wild.test/files/**'");
    assert_eq!(run(&internet, &looked, script), "tiny from the index\n");
}

/// R25: there is no proxy to be told of, so nothing depends on whether a program listens; and the host's is none of the cell's business.
#[test]
fn a_static_program_that_ignores_proxy_variables_is_held_to_the_same_rules() {
    let internet = Internet::new();
    let world = &internet.world;
    world.load_alpine();
    let program = world.path("home/demo/direct");
    std::fs::write(&program, include_bytes!(concat!(env!("OUT_DIR"), "/direct"))).expect("the program");
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).expect("chmod");
    let script = "
./direct allowed.test 80
./direct allowed.test 8080
./direct other.test 80
./direct 93.184.216.35 80
env | grep -i proxy || echo no proxy
";
    world.write("home/demo/direct.sh", script);
    for image in ["host", "alpine"] {
        let call = |flags: &str| {
            internet
                .cellblock(&format!(
                    "run --image {image} --no-default-allow --allow allowed.test {flags} -- sh direct.sh"
                ))
                .env("http_proxy", "http://127.0.0.1:9")
                .env("HTTPS_PROXY", "http://127.0.0.1:9")
                .env("ALL_PROXY", "socks5://127.0.0.1:9")
                .ok()
        };
        let reached = "HTTP/1.1 200 OK\nconnection refused\nno name\nHTTP/1.1 403 Forbidden\n";
        assert_eq!(call(""), format!("{reached}no proxy\n"), "{image}");
        assert_eq!(call("-e http_proxy"), format!("{reached}http_proxy=http://127.0.0.1:9\n"), "{image}: asked for");
    }
    assert!(!internet.reached().contains("93.184.216.35"), "{}", internet.reached());
}
