//! Secrets stay out (rows D2, D4, E3): variables that are nowhere but in the command's environment.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use cellblock_tests::{World, cellblock, is_root};

/// What no file of a test holds: the command that prints it has it in two parts.
const TOKEN: &str = "stand-in-token-73b1";
const PRINT: &str = "TOKEN@cmd:printf '%s%s' stand-in- token-73b1";

/// Where `what` is found in all that is there of the world and of cellblock's own processes.
fn traces(world: &World, what: &str) -> Vec<String> {
    let has = |bytes: &[u8]| bytes.windows(what.len()).any(|part| part == what.as_bytes());
    let mut found = Vec::new();
    let mut folders = vec![world.path("")];
    let binary = std::fs::canonicalize(cellblock()).expect("the command");
    let mut own = 0;
    for pid in
        std::fs::read_dir("/proc").expect("/proc").flatten().filter_map(|e| e.file_name().to_str()?.parse::<u32>().ok())
    {
        let at = PathBuf::from(format!("/proc/{pid}"));
        let comm = std::fs::read_to_string(at.join("comm")).unwrap_or_default();
        let is_own = comm.starts_with("cellblock") || std::fs::read_link(at.join("exe")).is_ok_and(|exe| exe == binary);
        if !is_own {
            continue;
        }
        own += 1;
        for file in ["environ", "cmdline"] {
            if std::fs::read(at.join(file)).is_ok_and(|bytes| has(&bytes)) {
                found.push(format!("{comm} {file}"));
            }
        }
        // Open files that have no name: memory files, removed ones.
        for fd in std::fs::read_dir(at.join("fd")).into_iter().flatten().flatten() {
            let target = std::fs::read_link(fd.path()).unwrap_or_default();
            if target.to_string_lossy().starts_with("/memfd") && std::fs::read(fd.path()).is_ok_and(|bytes| has(&bytes))
            {
                found.push(format!("{comm} {}", target.display()));
            }
        }
        // The stage, in the supervisor's mount namespace; open to root alone.
        let stages = at.join("root").join(world.path("run/cellblock/cells").strip_prefix("/").expect("absolute"));
        folders.extend(std::fs::read_dir(stages).into_iter().flatten().flatten().map(|e| e.path()));
    }
    assert!(own >= 2, "there are processes to look at");
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
            let Ok(kind) = entry.file_type() else { continue };
            if kind.is_dir() {
                folders.push(entry.path());
            } else if kind.is_file() && std::fs::read(entry.path()).is_ok_and(|bytes| has(&bytes)) {
                found.push(entry.path().display().to_string());
            }
        }
    }
    found
}

/// The processes of a cell that are cellblock's write no core dump and may not be looked at by processes of the same user: the kernel then gives
/// their files in `/proc` to somebody else. For root there is no difference to see.
fn no_core_dumps(world: &World, cell: &str) {
    let text = world.cellblock(&format!("inspect {cell}")).ok();
    let inspect: serde_json::Value = serde_json::from_str(&text).expect("json");
    let supervisor = inspect["supervisor"].as_u64().expect("a number").to_string();
    let status = |pid: &str, key: &str| {
        let text = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        text.lines().find_map(|line| line.strip_prefix(key).map(|value| value.trim().to_owned())).unwrap_or_default()
    };
    let all = std::fs::read_dir("/proc").expect("/proc").flatten().filter_map(|e| e.file_name().into_string().ok());
    let own: Vec<String> = all
        .filter(|pid| *pid == supervisor || status(pid, "PPid:") == supervisor)
        .filter(|pid| status(pid, "Name:").starts_with("cellblock"))
        .collect();
    assert!(own.len() >= 2, "the supervisor and the network's: {own:?}");
    let me = rustix::process::geteuid().as_raw();
    let owner = |pid: &str| std::fs::metadata(format!("/proc/{pid}/environ")).expect("a process").uid();
    assert_eq!(owner("self"), me);
    for pid in own.iter().filter(|_| !is_root()) {
        assert_ne!(owner(pid), me, "{}", status(pid, "Name:"));
    }
}

#[test]
fn a_hidden_variable_is_in_the_commands_environment_and_nowhere_else() {
    let world = World::new();
    let run = [
        "run",
        "-d",
        "--name",
        "cell",
        "-e",
        PRINT,
        "-e",
        "PLAIN=plain-word-99",
        "-e",
        "API_KEY",
        "--",
        "tail",
        "-f",
        "/dev/null",
    ];
    world.call(&cellblock(), &run).env("API_KEY", "passed-key-55").ok();
    // The twins: the command and all that is run beside it have it.
    let read = "until pid=$(pgrep -x tail); do sleep 0.05; done; tr '\\0' '\\n' </proc/$pid/environ; echo exec $TOKEN";
    let out = world.call(&cellblock(), &["exec", "cell", "--", "sh", "-c", read]).ok();
    assert!(out.contains(&format!("TOKEN={TOKEN}\n")) && out.contains(&format!("exec {TOKEN}\n")), "{out}");
    assert!(out.contains("API_KEY=passed-key-55") && out.contains("PLAIN=plain-word-99"), "{out}");
    let over = world.call(
        &cellblock(),
        &["exec", "-e", "TOKEN=mine", "-e", "B@env:API_KEY", "cell", "--", "sh", "-c", "echo $TOKEN $B"],
    );
    assert_eq!(over.env("API_KEY", "b").ok(), "mine b\n");

    no_core_dumps(&world, "cell");
    for secret in [TOKEN, "passed-key-55"] {
        assert_eq!(traces(&world, secret), [""; 0]);
    }
    let traced = traces(&world, "plain-word-99");
    assert!(traced.iter().any(|path| path.ends_with("cell.json")), "the probe finds what is written: {traced:?}");
    assert!(!is_root() || traced.iter().any(|path| path.ends_with("config.json")), "and the bundle: {traced:?}");
    for line in ["inspect cell", "status --json", "logs cell", "net log cell", "net show cell"] {
        let done = world.cellblock(line).run();
        let text = done.stdout() + &done.stderr();
        assert!(!text.contains(TOKEN) && !text.contains("passed-key-55"), "{line}: {text}");
        assert!(line != "inspect cell" || (text.contains("plain-word-99") && text.contains("\"TOKEN\"")), "{text}");
    }
    world.cellblock("stop cell -t 0").ok();
    // The test's own files are what is left, and those of the log.
    let left = world.call(Path::new("grep"), &["-rl", TOKEN, world.path("").to_str().expect("utf-8")]).run();
    assert_eq!(left.stdout(), "", "{left}");
}

#[test]
fn a_plan_shows_stars_and_reads_nothing() {
    let world = World::new();
    let read = "TOKEN@cmd:touch was-read; echo hush-word";
    for flags in [&["--dry-run"][..], &["--dry-run", "--json"], &["--explain"]] {
        let words =
            [&["run"], flags, &["-e", read, "-e", "API_KEY=literal-55", "-e", "K@file:~/key", "--", "true"]].concat();
        let text = world.call(&cellblock(), &words).ok();
        assert!(!text.contains("hush") && !text.contains("literal-55"), "{text}");
        assert!(text.contains("TOKEN") && text.contains("API_KEY"), "{text}");
        assert!(flags.contains(&"--json") || (text.contains("***") && text.contains("file:~/key")), "{text}");
    }
    assert!(!world.project().join("was-read").exists());
    let done = world.call(&cellblock(), &["run", "-e", read, "--", "sh", "-c", "echo $TOKEN"]).run();
    assert!(done.stdout() == "hush-word\n" && world.project().join("was-read").exists(), "the twin: {done}");
    assert!(!done.stderr().contains("hush-word"), "{done}");
}

#[test]
fn values_come_from_every_source() {
    let world = World::new();
    world.write("home/key", "line one\nline two\n");
    for (name, text) in [
        ("op", "#!/bin/sh\n[ \"$1 $2\" = 'read op://vault/item/field' ] && echo from-op\n"),
        ("pass", "#!/bin/sh\n[ \"$1 $2\" = 'show web/token' ] && printf 'from-pass\\nuser: ada\\n'\n"),
    ] {
        world.write(&format!("home/bin/{name}"), text);
        std::fs::set_permissions(world.path(&format!("home/bin/{name}")), PermissionsExt::from_mode(0o755))
            .expect("chmod");
    }
    world.configure("defaults: {env: ['P@pass:web/token', 'O@op://vault/item/field']}\n");
    let path = format!("{}:/usr/bin:/bin", world.path("home/bin").display());
    let words = ["run", "-e", "F@file:~/key", "-e", "E@env:OUTSIDE", "-e", "C@cmd:echo a@b=c", "--", "sh", "-c"];
    let show = "echo \"$P|$O|$F|$E|$C\"";
    let out = world.call(&cellblock(), &[&words[..], &[show]].concat()).env("PATH", &path).env("OUTSIDE", "out").ok();
    assert_eq!(out, "from-pass|from-op|line one\nline two|out|a@b=c\n");
    // A literal value is never taken for a place.
    assert_eq!(world.cellblock("run -e P=file:~/key -e O=@cmd:id -- sh -c 'echo $P $O'").ok(), "file:~/key @cmd:id\n");
}

#[test]
fn a_value_that_cannot_be_read_starts_nothing_and_is_not_told() {
    let world = World::new();
    world.write("home/empty", "\n");
    world.write("home/large", &"large-word".repeat(20_000));
    for (source, why) in [
        ("A@env:NOT_SET", "$NOT_SET is not set"),
        ("A@file:~/gone", "No such file"),
        ("A@file:~/empty", "it is empty"),
        ("A@file:~/large", "more than 65536 bytes"),
        ("A@cmd:echo hush-word; exit 7", "ended with exit status: 7"),
        ("A@op://x/y/z", "the program is not installed"),
        ("A@nonsense", "after NAME@ comes"),
        ("A@cmd:", "after NAME@ comes"),
    ] {
        let done = world.call(&cellblock(), &["run", "-e", source, "--", "touch", "started"]).run();
        assert!(done.code().is_some_and(|code| code != 0), "{done}");
        done.says(why);
        assert!(!done.stderr().replace(source, "").replace(&source[6..], "").contains("-word"), "{done}");
    }
    assert!(!world.project().join("started").exists() && world.leftovers().is_empty());
    world.write("home/demo/f.env", "A@cmd:touch ran\n");
    world.cellblock("run --env-file f.env -- true").fails(125).says("f.env:1");
    assert!(!world.project().join("ran").exists());
}

#[test]
fn a_bundle_has_no_hidden_variable() {
    let world = World::new();
    let words = ["bundle", "--image", "host", "-o", "b", "-e", PRINT, "-e", "PLAIN=plain-word", "--", "true"];
    world.call(&cellblock(), &words).run().says("left out of the bundle").says("TOKEN");
    let text = std::fs::read_to_string(world.project().join("b/config.json")).expect("a bundle");
    assert!(text.contains("PLAIN=plain-word") && !text.contains("TOKEN"), "{text}");
}
