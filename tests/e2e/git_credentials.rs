//! Git over https as the person, without their password inside.

use std::path::Path;

use cellblock_tests::internet::Internet;
use cellblock_tests::{Call, Done};

/// What must be found nowhere but at its server.
const TOKEN: &str = "t0ken-of-the-person";

/// Flags of every cell here.
const CELL: &str = "run --image host --no-default-allow --allow allowed.test --allow other.test";

/// An internet with a git server that wants the person's token, and a project with a remote there.
fn server() -> Internet {
    let internet = Internet::new();
    let world = &internet.world;
    world.write("home/ca.pem", include_str!("../data/ca.pem"));
    // `person:TOKEN`
    world.write("www/git/password", "cGVyc29uOnQwa2VuLW9mLXRoZS1wZXJzb24=\n");
    world.write("home/answers", &format!("username=person\npassword={TOKEN}\n"));
    let home = world.path("home");
    world.write(
        "home/.gitconfig",
        &format!(
            "[user]\n\tname = Ada\n\temail = ada@allowed.test\n[credential]\n\thelper = \"!f() {{ echo $1 >>{0}/asked; cat >>{0}/asked; cat {0}/answers; }}; f\"\n",
            home.display()
        ),
    );
    let script = "
set -e
for name in me/work.git me/other.git; do
    git init -q --bare -b main ../../www/git/$name
    git -C ../../www/git/$name config http.receivepack true
done
rm -r .git
git init -q -b main
git remote add origin https://allowed.test/git/me/work.git
git config user.name Ada
git config user.email ada@allowed.test
git commit -q --allow-empty -m first
git branch -q other
";
    world.call(Path::new("sh"), &["-c", script]).ok();
    internet
}

/// A cell that runs `script`.
fn cell(internet: &Internet, flags: &str, script: &str) -> Call {
    internet.world.write("home/demo/script", &format!("export GIT_TERMINAL_PROMPT=0\n{script}\n"));
    internet
        .cellblock(&format!("{CELL} {flags} -- sh script"))
        .env("SSL_CERT_FILE", internet.world.path("home/ca.pem").to_str().expect("utf-8"))
}

fn head(internet: &Internet, repository: &str) -> Done {
    let folder = internet.world.path(&format!("www/git/{repository}"));
    let folder = folder.to_str().expect("utf-8");
    internet.world.call(Path::new("git"), &["-c", "safe.directory=*", "-C", folder, "log", "--format=%s", "main"]).run()
}

#[test]
fn git_pushes_and_fetches_as_the_person_and_the_token_stays_outside() {
    let internet = server();
    let world = &internet.world;
    let without = cell(&internet, "", "git push -q origin main").run();
    assert_ne!(without.code(), Some(0), "{without}");
    assert_ne!(head(&internet, "me/work.git").code(), Some(0), "nothing has arrived");

    let script = "
git push -q origin main && echo pushed
git ls-remote -q origin | cut -f 2
git fetch -q origin && git rev-parse origin/main | wc -c
rm -rf /tmp/c && git clone -q https://allowed.test/git/me/work.git /tmp/c && git -C /tmp/c log --format=%s
printf 'protocol=https\\nhost=allowed.test\\npath=git/me/work.git\\n\\n' | git credential fill | grep -v =allowed.test
env
";
    let done = cell(&internet, "--git-credentials", script).run();
    let out = done.stdout();
    assert!(out.starts_with("pushed\nHEAD\nrefs/heads/main\n41\nfirst\n"), "{done}");
    assert!(out.contains("\nusername=cellblock\npassword=cellblock-"), "{out}");
    assert!(!out.contains(TOKEN), "{out}");
    done.says("fetch and push as you: https://allowed.test/git/me/work.git");
    assert_eq!(head(&internet, "me/work.git").stdout(), "first\n");
    let asked = std::fs::read_to_string(world.path("home/asked")).expect("the helper was asked");
    assert!(asked.contains("host=allowed.test\n") && asked.contains("get\n"), "{asked}");
    // In no file of ours: audit, state, logs.
    for folder in ["run", "home/.local"] {
        let found = world.call(Path::new("grep"), &["-rl", TOKEN, world.path(folder).to_str().expect("utf-8")]).run();
        assert_eq!(found.stdout(), "", "{folder}");
    }
    let used: Vec<_> = internet.audit().into_iter().filter(|line| line["event"] == "credentials").collect();
    assert!(used.iter().any(|l| l["verdict"] == "allow" && l["path"] == "/git/me/work.git"), "{used:?}");
    assert!(world.leftovers().is_empty());
}

#[test]
fn the_token_opens_nothing_but_the_projects_repositories() {
    let internet = server();
    let script = "
git push -q origin main && echo pushed
password=$(printf 'protocol=https\\nhost=allowed.test\\npath=git/me/work.git\\n\\n' | git credential fill | sed -n s/^password=//p)
git push -q https://me:$password@allowed.test/git/me/other.git main && echo other
for path in git/me/other.git/info/refs?service=git-receive-pack git/me/work.git/../other.git/info/refs \
    git/me/other.git/../work.git/info/refs git/me/work.git/%2e%2e/other.git/info/refs git/me/work.git/HEAD; do
    curl --path-as-is -sS -o /dev/null -w '%{http_code}\\n' -u me:$password https://allowed.test/$path
done
curl -sS -u me:$password https://allowed.test/ | grep -o 'Basic [^\"]*'
curl -sS -u me:$password https://other.test/ -k | grep -o 'Basic [^\"]*'
curl -sS -u me:$password https://allowed.test/git/me/work.git/info/refs?service=git-upload-pack | grep -a -o 'refs/heads/main$'
printf me:$password | base64 -w 0
";
    let done = cell(&internet, "--git-credentials", script).run();
    let out = done.stdout();
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!(lines[0], "pushed", "{done}");
    assert_eq!(lines[1..6], ["401"; 5], "{done}");
    let placeholder = format!("Basic {}", lines[9]);
    assert_eq!(lines[6..9], [placeholder.as_str(), &placeholder, "refs/heads/main"], "{done}");
    let reached = internet.reached();
    let token = "Basic cGVyc29uOnQwa2VuLW9mLXRoZS1wZXJzb24=";
    assert!(reached.contains(&format!("git /me/work.git/git-receive-pack {token}")), "{reached}");
    assert!(!reached.contains(&format!("git /me/other.git/info/refs {token}")), "{reached}");
    assert_ne!(head(&internet, "me/other.git").code(), Some(0), "nothing has arrived");
}

#[test]
fn what_is_missing_is_told_and_the_repository_has_no_say() {
    let internet = server();
    let world = &internet.world;
    // A helper that the repository names is a program: it must not run outside.
    let planted = format!("!touch {}/planted; f() {{ cat; }}; f", world.path("home").display());
    world.call(Path::new("git"), &["config", "credential.helper", &planted]).ok();
    world.write("home/answers", "");
    let done = cell(&internet, "--git-credentials", "git ls-remote origin").run();
    assert_ne!(done.code(), Some(0), "{done}");
    done.says("the host's git has no credentials for https://allowed.test/git/me/work.git");
    assert!(!world.path("home/planted").exists(), "a helper of the repository's ran outside");
    // The same helper does run where the repository's settings count: the probe works.
    let probe = "printf 'protocol=https\\nhost=x.test\\n\\n' | GIT_TERMINAL_PROMPT=0 GIT_ASKPASS= git credential fill";
    let _ = world.call(Path::new("sh"), &["-c", probe]).run();
    assert!(world.path("home/planted").exists());

    world.configure("defaults:\n  git_credentials: true\n");
    let fine = cell(&internet, "--dry-run", "true").ok();
    assert!(fine.contains("https://allowed.test/git/me/work.git"), "{fine}");
    let off = cell(&internet, "--dry-run --no-git-credentials", "true").ok();
    assert!(!off.contains("git_credentials"), "{off}");
    internet
        .cellblock("run --image host --net none -- true")
        .run()
        .says("git gets no credentials with the network `none`");
    internet
        .cellblock("run --image host --net none --git-credentials -- true")
        .fails(125)
        .says("no meaning with the network `none`");
    world.call(Path::new("git"), &["remote", "set-url", "origin", "https://me:word@allowed.test/git/me/work.git"]).ok();
    cell(&internet, "--dry-run", "true").run().says("holds a password, which the cell can read");
    world.call(Path::new("git"), &["remote", "set-url", "origin", "git@allowed.test:me/work.git"]).ok();
    cell(&internet, "--dry-run", "true").run().says("no remote with an https address");
}
