//! Rules about single requests, and secrets that never enter the cell: both look into TLS, and only for the hosts they name.

use std::path::Path;

use cellblock_tests::internet::Internet;

/// Python that verifies what it is told to trust, as programs do.
const CLIENT: &str = "
import os, urllib.request, urllib.error
def fetch(url, method='GET', headers={}, data=None):
    request = urllib.request.Request(url, method=method, headers=headers, data=data)
    try:
        with urllib.request.urlopen(request, timeout=8) as answer:
            return f'{answer.status} {answer.read().decode()}'
    except urllib.error.HTTPError as error:
        return f'{error.code} {error.read().decode()}'
    except urllib.error.URLError as error:
        return f'{error.reason}'
";

/// A cell of the `host` image; the host trusts the test's authority.
fn run(internet: &Internet, flags: &str, script: &str) -> String {
    internet.world.write("home/demo/client.py", &format!("{}{CLIENT}{script}\n", include_str!("../data/client.py")));
    internet.world.write("home/ca.pem", include_str!("../data/ca.pem"));
    internet
        .cellblock(&format!("run --image host {flags} -- python3 client.py"))
        .env("SSL_CERT_FILE", internet.world.path("home/ca.pem").to_str().expect("utf-8"))
        .env("HOST_TOKEN", SECRET)
        .ok()
}

/// What must be found nowhere but at its server.
const SECRET: &str = "s3cr3t-value-of-the-person";

/// R18, R19.
#[test]
fn rules_about_requests_are_kept_inside_tls() {
    let internet = Internet::new();
    let flags = "--no-default-allow --allow 'GET,HEAD https://allowed.test/public/**' --allow other.test";
    let out = run(
        &internet,
        flags,
        "
print(fetch('https://allowed.test/public/a?x=1')[:60])
print(fetch('https://allowed.test/private')[:80])
print(fetch('https://allowed.test/public/a', 'POST', data=b'x')[:80])
print(fetch('https://allowed.test/public/%2e%2e/private')[:4])
print(fetch('https://allowed.test/public//a')[:4])
print(fetch('https://allowed.test/public/a', headers={'Host': 'other.test'})[:4])
print(fetch('https://other.test/anything')[:4])
print(tls('allowed.test', 'other.test'))
",
    );
    let lines: Vec<&str> = out.lines().filter(|line| !line.is_empty()).collect();
    assert!(lines[0].starts_with("200 {\"scheme\": \"https\", \"at\": \"93.184.216.34\""), "{out}");
    assert!(lines[1].starts_with("403 cellblock: denied: no rule allows this request to allowed.test"), "{out}");
    assert!(lines[2].starts_with("403 cellblock: denied: no rule allows this request"), "{out}");
    assert_eq!(&lines[3..7], ["403 ", "403 ", "403 ", "200 "], "{out}");
    assert_eq!(lines[7], "TLSV1_ALERT_ACCESS_DENIED");
    let reached = internet.reached();
    assert!(!reached.contains("private") && !reached.contains("POST"), "{reached}");
    let requests: Vec<String> = internet
        .audit()
        .iter()
        .filter(|l| l["event"] == "request")
        .map(|l| {
            format!(
                "{} {} {}",
                l["verdict"].as_str().unwrap_or(""),
                l["method"].as_str().unwrap_or(""),
                l["path"].as_str().unwrap_or("")
            )
        })
        .collect();
    assert!(requests.contains(&"allow GET /public/a".to_owned()), "{requests:?}");
    assert!(requests.contains(&"deny GET /private".to_owned()), "{requests:?}");
    assert!(requests.contains(&"deny POST /public/a".to_owned()), "{requests:?}");
}

/// Row C10: the usual tools trust what they have to, each by its own variable; nobody else is looked into.
#[test]
fn the_usual_tools_trust_the_cells_authority() {
    let internet = Internet::new();
    let flags = "--no-default-allow --allow 'https://allowed.test/**' --allow other.test";
    let out = run(
        &internet,
        flags,
        "
import subprocess
for url in ['https://allowed.test/x', 'https://other.test/x']:
    done = subprocess.run(['curl', '-sS', '-m', '8', '-o', '/dev/null', '-w', '%{http_code} %{http_version} %{ssl_verify_result}', url], capture_output=True, text=True)
    print(done.stdout, done.stderr.strip())
context = ssl.create_default_context()
for name in ['allowed.test', 'other.test']:
    with socket.create_connection((name, 443)) as plain, context.wrap_socket(plain, server_hostname=name) as stream:
        print([value for part in stream.getpeercert()['issuer'] for _, value in part])
print(os.environ['NODE_EXTRA_CA_CERTS'], os.environ['GIT_SSL_CAINFO'] == os.environ['PIP_CERT'])
",
    );
    let lines: Vec<&str> = out.lines().collect();
    assert!(lines[0].starts_with("200 2 0"), "HTTP/2 is spoken: {out}");
    assert!(lines[1].starts_with("200 1.1 0"), "passed untouched: {out}");
    assert!(lines[2].contains("cellblock: authority of one cell"), "{out}");
    assert!(lines[3].contains("cellblock test authority"), "{out}");
    assert_eq!(lines[4], "/etc/cellblock/ca-bundle.pem True");
}

/// R20, and the network's half of row E3.
#[test]
fn a_secret_reaches_its_host_and_nobody_else() {
    let internet = Internet::new();
    let flags =
        "--no-default-allow --allow allowed.test --allow other.test --secret API_TOKEN@allowed.test=env:HOST_TOKEN";
    let out = run(
        &internet,
        flags,
        "
token = os.environ['API_TOKEN']
print(token)
ask = lambda url, **h: json.loads(fetch(url, headers=h).split(' ', 1)[1])['headers'].get('authorization')
print(ask('https://allowed.test/', Authorization='Bearer ' + token))
print(ask('https://allowed.test/'))
print(ask('https://other.test/', Authorization='Bearer ' + token) == 'Bearer ' + token)
print(json.loads(fetch('http://allowed.test/', headers={'Authorization': 'Bearer ' + token}).split(' ', 1)[1])['headers']['authorization'] == 'Bearer ' + token)
print(token in fetch('https://allowed.test/' + token))
print('HOST_TOKEN' in os.environ)
",
    );
    let lines: Vec<&str> = out.lines().collect();
    assert!(lines[0].starts_with("cellblock-") && lines[0].len() == 42, "{out}");
    assert_eq!(&lines[1..], [&format!("Bearer {SECRET}"), "None", "True", "True", "True", "False"], "{out}");
    // In no file of ours: audit, state, logs.
    for folder in ["run", "home/.local"] {
        let found = internet
            .world
            .call(Path::new("grep"), &["-rl", SECRET, internet.world.path(folder).to_str().expect("utf-8")])
            .run();
        assert_eq!(found.stdout(), "", "{folder}");
    }
    assert!(internet.audit().iter().any(|l| l["why"] == "a secret went into the header authorization"));
}

#[test]
fn secrets_are_shown_nowhere_and_mistakes_in_them_are_told() {
    let internet = Internet::new();
    let world = &internet.world;
    world.write("home/.token", &format!("{SECRET}\n"));
    let file = format!("--secret T@allowed.test/x-api-key=file:{}", world.path("home/.token").display());
    for show in ["--dry-run", "--dry-run --json", "--dry-run --explain"] {
        let out = internet.cellblock(&format!("run {show} --image host {file} -- true")).ok();
        assert!(!out.contains(SECRET) && out.contains("allowed.test"), "{out}");
    }
    let out = internet
        .cellblock(&format!(
            "run -d --rm --name s --image host --no-default-allow --allow allowed.test {file} -- sleep 100"
        ))
        .ok();
    assert_eq!(out, "s\n");
    let shown = internet.cellblock("inspect s").ok() + &internet.cellblock("net show s").ok();
    assert!(!shown.contains(SECRET), "{shown}");
    let done = internet.cellblock("net allow 'GET https://other.test/x' s").run();
    assert_ne!(done.code(), Some(0));
    done.says("has to be started with a rule");
    internet.cellblock("stop -t 0 s").ok();
    for (secret, words) in [
        ("T@allowed.test=env:NOT_SET", "$NOT_SET is not set"),
        ("T@allowed.test=file:/nowhere", "/nowhere: No such file"),
        ("T@allowed.test=cmd:exit/3", "ended with exit status"),
        ("T@allowed.test=cmd:true", "it is empty"),
    ] {
        internet.cellblock(&format!("run --image host --secret {secret} -- true")).fails(125).says(words);
    }
    internet.cellblock("run --secret T@**=env:HOME -- true").fails(125).says("never to every name");
    assert!(world.leftovers().is_empty());
}

/// R11: a connection that was let through as a whole ends with the rule that did so, though requests are still allowed.
#[test]
fn a_tunnel_ends_with_the_rule_that_allowed_it() {
    let internet = Internet::new();
    let world = &internet.world;
    let script = "
context = ssl.create_default_context()
context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
def connect(): return context.wrap_socket(socket.create_connection(('allowed.test', 443), 8), server_hostname='allowed.test')
def ask(stream):
    try:
        stream.sendall(b'POST /private HTTP/1.1\\r\\nHost: allowed.test\\r\\nContent-Length: 0\\r\\n\\r\\n')
        return stream.recv(65536)[9:12].decode() or 'end'
    except OSError:
        return 'end'
stream = connect()
while ask(stream) != '200':
    open('state', 'w').write('begun')
    time.sleep(0.05)
    stream = connect()
# One that was made under the new rule.
stream = connect()
open('state', 'w').write('open ' + ask(stream))
while ask(stream) == '200':
    time.sleep(0.05)
print(ask(stream), ask(connect()))
";
    world.write("home/demo/client.py", &format!("{}{script}", include_str!("../data/client.py")));
    world.write("home/ca.pem", include_str!("../data/ca.pem"));
    let flags = "--name t --image host --no-default-allow --allow 'GET https://allowed.test/public/**'";
    let child = internet
        .cellblock(&format!("run --rm {flags} -- timeout 30 python3 client.py"))
        .env("SSL_CERT_FILE", world.path("home/ca.pem").to_str().expect("utf-8"))
        .start();
    let state = || std::fs::read_to_string(world.path("home/demo/state")).unwrap_or_default();
    world.wait("the client", || state() == "begun");
    internet.cellblock("net allow allowed.test t --for 2s").ok();
    world.wait("the tunnel", || state() == "open 200");
    let output = child.wait_with_output().expect("its output");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "end 403\n");
}
