//! Programs that people use, unchanged and without proxy settings, with glibc's resolver and musl's.

use std::path::Path;

use cellblock_tests::internet::Internet;

#[test]
fn programs_of_this_host_need_no_settings() {
    let internet = Internet::new();
    let world = &internet.world;
    let script = "
set -e
cd www
git init -q -b main work && cd work
git -c user.name=a -c user.email=a@b commit -q --allow-empty -m 'from the internet'
cd .. && git clone -q --bare work repo.git && cd repo.git && git update-server-info
";
    world.write("www/simple/index.html", "static\n");
    let root = world.path("");
    world.call(Path::new("sh"), &["-c", &format!("cd {}; {script}", root.display())]).ok();
    let flags = "--image host --no-default-allow --allow allowed.test:80,443,8000";
    let clients = "
curl -sS http://allowed.test:8000/simple/
curl -4 -sS http://allowed.test:8000/simple/
curl -6 -sS http://allowed.test:8000/simple/
git clone -q http://allowed.test:8000/repo.git /tmp/c && git -C /tmp/c log --format=%s
python3 -c \"import urllib.request; print(urllib.request.urlopen('http://allowed.test:8000/simple/').read().decode().strip())\"
if command -v wget >/dev/null; then wget -qO- http://allowed.test:8000/simple/; else echo static; fi
if command -v node >/dev/null; then
  node -e \"require('http').get('http://allowed.test:8000/simple/', a => a.on('data', d => process.stdout.write(d)))\"
  node -e \"require('dns').resolve4('allowed.test', (e, a) => console.log(e ? e.code : a.length))\"
else printf 'static\\n1\\n'; fi
if command -v perl >/dev/null; then perl -MSocket -e 'print scalar(inet_aton(\"allowed.test\")) ? \"found\\n\" : \"lost\\n\"'; else echo found; fi
git ls-remote http://other.test:8000/repo.git >/dev/null 2>&1 || echo refused
";
    world.write("home/demo/clients.sh", clients);
    let out = internet.cellblock(&format!("run {flags} -- sh clients.sh")).ok();
    assert_eq!(out, "static\nstatic\nstatic\nfrom the internet\nstatic\nstatic\nstatic\n1\nfound\nrefused\n");
}

#[test]
fn programs_of_alpine_need_no_settings() {
    let internet = Internet::new();
    internet.world.load_alpine();
    internet.world.write("www/simple/index.html", "static\n");
    let flags = "--image alpine --no-default-allow --allow allowed.test:80,8000";
    let script = "wget -qO- http://allowed.test:8000/simple/; nslookup allowed.test | grep -c 198.18.1; \
                  time -f %e wget -qO- http://other.test/ 2>&1 | grep -c 'bad address'; echo end";
    let before = std::time::Instant::now();
    let out =
        internet.cellblock(&format!("run {flags} -- sh -c '{}'", script.replace("'bad address'", "bad.address"))).ok();
    assert_eq!(out, "static\n1\n1\nend\n");
    // musl waits five seconds and more for a resolver that refuses.
    assert!(before.elapsed() < std::time::Duration::from_secs(4), "{:?}", before.elapsed());
}
