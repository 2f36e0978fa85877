//! Commits and tags that the person's gpg signs outside of the cell (docs/ssh.md).

use std::path::Path;

use cellblock_tests::{Call, World};

/// A key of OpenPGP in this world's home, and a git that signs with it.
struct Key<'a> {
    world: &'a World,
    id: String,
}

impl<'a> Key<'a> {
    fn new(world: &'a World) -> Self {
        let script = "
umask 077; mkdir -p ~/.gnupg
gpg --batch --quiet --pinentry-mode loopback --passphrase '' --quick-gen-key 'Ada <ada@x.test>' ed25519 sign never 2>/dev/null
gpg --batch --with-colons --list-secret-keys | awk -F: '/^fpr/ { print $10; exit }'
";
        let id = world.call(Path::new("sh"), &["-c", script]).ok().trim().to_owned();
        assert_eq!(id.len(), 40, "gpg made a key");
        let key = Self { world, id };
        key.git("[commit]\n\tgpgsign = true\n");
        world.call(Path::new("sh"), &["-c", "rm -rf .git && git init -q -b main"]).ok();
        key
    }

    fn git(&self, more: &str) {
        let text = format!("[user]\n\tname = Ada\n\temail = ada@x.test\n\tsigningkey = {}\n{more}", self.id);
        self.world.write("home/.gitconfig", &text);
    }

    /// On the host.
    fn host(&self, script: &str) -> Call {
        self.world.call(Path::new("sh"), &["-c", script])
    }
}

impl Drop for Key<'_> {
    fn drop(&mut self) {
        let _ = self.host("gpgconf --kill all").run();
    }
}

fn cell(world: &World, flags: &str, script: &str) -> Call {
    world.write("home/demo/script", script);
    world.cellblock(&format!("run --net none {flags} -- sh script"))
}

#[test]
fn the_persons_gpg_signs_commits_and_tags() {
    let world = World::new();
    let key = Key::new(&world);
    let flags = "--image host --name s --rm --commit-signing";
    let commit = "git commit -q --allow-empty -m \"$1\" && git cat-file commit HEAD | grep -c 'BEGIN PGP SIGNATURE'";
    let signed = format!("set -- 'First of all'; {commit}; git tag -s -m x v1 && git log --format=%s");
    assert_eq!(cell(&world, flags, &signed).ok(), "1\nFirst of all\n");
    key.host("git verify-commit HEAD && git verify-tag v1").run().says("Good signature from \"Ada <ada@x.test>\"");
    assert_eq!(key.host("git verify-commit HEAD && git verify-tag v1").run().code(), Some(0));
    // A rebase asks for one after the other; a message that is no line is no trouble.
    let many = "
for n in 1 2 3 4 5 6 7 8; do git commit -q --allow-empty -m \"$n\" -m \"$(seq 1 2000)\" || exit 1; done
git log --format=%B | wc -c
";
    assert_eq!(
        cell(&world, flags, many).ok().trim().parse::<usize>().ok().filter(|n| *n > 8 * 8000).map(|_| ()),
        Some(())
    );
    assert_eq!(
        key.host("for c in $(git rev-list HEAD); do git verify-commit $c 2>/dev/null || exit 1; done").run().code(),
        Some(0)
    );
    let log = world.cellblock("net log s").ok();
    assert!(log.contains(&format!("allow  signature {}  signed the commit \"First of all\"", key.id)), "{log}");
    assert!(log.contains("signed the tag v1"), "{log}");
    // No key, no way to the agent: nothing is known inside but how to ask.
    let inside = "gpg --batch --list-secret-keys 2>/dev/null | wc -l; ls -A ~/.gnupg 2>/dev/null | grep -c private; ls /run/cellblock";
    let seen = cell(&world, flags, inside).ok();
    assert!(seen.starts_with("0\n0\n") && seen.contains("requests"), "{seen}");
    // The twin: nobody asked for it.
    let plain = format!("set -- plain; {commit}; ls /run/cellblock /etc/cellblock/bin 2>/dev/null");
    assert_eq!(cell(&world, "--image host", &plain).run().stdout(), "0\n");
    assert_eq!(cell(&world, "--image host --commit-signing --no-commit-signing", &plain).run().stdout(), "0\n");
    world.configure("defaults:\n  commit_signing: true\n");
    assert_eq!(cell(&world, "--image host", &format!("set -- configured; {commit}")).ok(), "1\n");
}

#[test]
fn nothing_but_objects_of_gits_is_signed() {
    let world = World::new();
    world.load_alpine();
    let key = Key::new(&world);
    let object = "printf 'tree 4b825dc642cb6eb9a060e54bf8d69288fbee4904\\nauthor A <a@b> 1 +0000\\ncommitter A <a@b> 1 +0000\\n\\nx\\n'";
    let ask = "/etc/cellblock/bin/gpg-sign --status-fd=2 -bsau K";
    let script = format!(
        "
{object} | {ask} 2>status | sed -n 1p; cat status
echo 'I owe you everything' | {ask}; echo $?
printf '' | {ask}; echo $?
{{ {object}; head -c 100000 /dev/zero | tr '\\0' x; }} | {ask}; echo $?
echo x | /etc/cellblock/bin/gpg-sign --decrypt; echo $?
printf '0123456789abcdef sign\\n' 1<>/run/cellblock/requests
"
    );
    for image in ["host", "alpine"] {
        let done = cell(&world, &format!("--image {image} --name {image} --rm --commit-signing"), &script).run();
        let expected = "-----BEGIN PGP SIGNATURE-----\n[GNUPG:] SIG_CREATED D\n2\n2\n2\n2\n";
        assert_eq!(done.stdout(), expected, "{done}");
        let done =
            done.says("only commits and tags of git's are signed").says("of more than 61440 bytes is not signed");
        done.says("it signs commits and tags, and nothing else");
        let log = world.cellblock(&format!("net log {image}")).ok();
        assert!(log.contains("deny   signature") && log.contains("only commits and tags"), "{log}");
    }
    // What the person is told, and what cannot be.
    cell(&world, "--image host --commit-signing --yes", "true")
        .run()
        .says("have commits and tags signed by your gpg, with the key");
    key.git("[gpg]\n\tformat = x509\n");
    cell(&world, "--image host --commit-signing", "true")
        .fails(125)
        .says("--commit-signing: your git signs with `x509`");
    key.git("[gpg]\n\tformat = ssh\n");
    cell(&world, "--image host --commit-signing", "true").fails(125).says("--ssh-agent");
    key.git("[gpg]\n\tprogram = /nowhere/gpg\n");
    cell(&world, "--image host --commit-signing", "true").fails(125).says("/nowhere/gpg");
    world.configure("defaults:\n  commit_signing: true\n");
    cell(&world, "--image host", "echo on").run().says("commits are not signed").says("on");
}

/// What runs outside for a cell takes neither itself, nor its libraries, nor its settings from where the cell can write.
#[test]
fn programs_of_the_person_take_nothing_from_where_the_cell_writes() {
    let world = World::new();
    let key = Key::new(&world);
    let evil = format!("#!/bin/sh\ntouch {}\nexit 1\n", world.path("home/ran").display());
    for name in ["git", "gpg", "ssh-keygen"] {
        world.write(&format!("home/demo/bin/{name}"), &evil);
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(world.path(&format!("home/demo/bin/{name}")), mode).expect("chmod");
    }
    let inside = "PATH=/usr/local/bin:/usr/bin:/bin; mkdir -p .gnupg lib && echo 'keyserver evil' > .gnupg/gpg.conf; git commit -q --allow-empty -m x && git cat-file commit HEAD | grep -c 'BEGIN PGP'";
    let project = world.project().display().to_string();
    for (name, value) in [
        ("PATH", format!("{project}/bin:/usr/local/bin:/usr/bin:/bin")),
        ("GNUPGHOME", format!("{project}/.gnupg")),
        ("LD_LIBRARY_PATH", format!("{project}/lib")),
    ] {
        let done = cell(&world, "--image host --commit-signing", inside).env(name, &value).run();
        assert_eq!(done.stdout(), "1\n", "{name}: {done}");
        assert!(!world.path("home/ran").exists(), "{name}");
        key.host("rm -rf .gnupg").ok();
    }
    // The twin: the program is one that leaves a trace.
    let _ = key.host("bin/gpg").run();
    assert!(world.path("home/ran").exists());
}
