//! Command lines as they are typed.

use std::ffi::OsString;

use clap::Parser;

use super::*;

/// `run` as the command will have it: the shared flags and the trailing words.
#[derive(Debug, Parser)]
#[command(name = "run", term_width = 0)]
struct Run {
    #[command(flatten)]
    cell: CellFlags,
    #[command(flatten)]
    start: StartFlags,
    #[arg(trailing_var_arg = true)]
    words: Vec<String>,
}

fn run(line: &str) -> Result<Typed, String> {
    let argv: Vec<OsString> = std::iter::once("run").chain(line.split_whitespace()).map(OsString::from).collect();
    let run = Run::try_parse_from(&argv).map_err(|e| e.to_string())?;
    let mut start = run.start;
    let words = Words::for_run(&argv, run.words, vec![], &mut start);
    Ok(Typed { cell: run.cell, start, words })
}

fn argv(line: &str) -> Vec<String> {
    run(line).unwrap_or_else(|e| panic!("{line}: {e}")).words.argv("/bin/sh")
}

#[test]
fn the_definition_is_sound() {
    use clap::CommandFactory;
    Run::command().debug_assert();
}

#[test]
fn an_agents_words_are_its_own() {
    let cases: &[(&str, &[&str])] = &[
        ("claude-code --continue", &["claude-code", "--continue"]),
        ("claude-code -- prompt", &["claude-code", "prompt"]),
        ("claude-code -- -dash --", &["claude-code", "-dash", "--"]),
        ("codex resume --last", &["codex", "resume", "--last"]),
        ("gemini -i prompt -e x", &["gemini", "-i", "prompt", "-e", "x"]),
        ("-e A=1 codex -- --yes", &["codex", "--yes"]),
        ("codex a -- b -- c", &["codex", "a", "b", "--", "c"]),
        ("codex --help", &["codex", "--help"]),
    ];
    for (line, want) in cases {
        assert_eq!(argv(line), *want, "{line}");
    }
}

#[test]
fn three_flags_are_cellblocks_also_after_an_agents_name() {
    let start = |line: &str| run(line).unwrap_or_else(|e| panic!("{line}: {e}")).start;
    assert_eq!(
        argv("codex --yes resume --check --last -- --dry-run --yes"),
        ["codex", "resume", "--last", "--dry-run", "--yes"]
    );
    let typed = start("codex --yes resume --check --last -- --dry-run");
    assert!(typed.yes && typed.check && !typed.dry_run, "{typed:?}");
    assert!(start("codex --dry-run").dry_run);
    // A command's words are not ours to look at.
    assert!(!start("-- codex --yes").yes);
    let mut own = StartFlags::default();
    let argv: Vec<OsString> = ["run", "codex", "resume"].map(OsString::from).into();
    let words = Words::for_run(&argv, vec!["codex".into(), "resume".into()], vec!["--no-daemon".into()], &mut own);
    assert_eq!(words.argv("sh"), ["codex", "--no-daemon", "resume"]);
}

#[test]
fn a_commands_words_are_untouched() {
    let cases: &[(&str, &[&str])] = &[
        ("-- sh -c true -- x", &["sh", "-c", "true", "--", "x"]),
        ("-it -- claude-code -- x", &["claude-code", "--", "x"]),
        ("--name a -- -dash", &["-dash"]),
        ("-- -- a", &["--", "a"]),
    ];
    for (line, want) in cases {
        assert_eq!(argv(line), *want, "{line}");
        assert!(matches!(run(line), Ok(Typed { words: Words::Command(_), .. })), "{line}");
    }
}

#[test]
fn nothing_typed_is_an_empty_command() {
    for line in ["", "--", "-e A=1", "-e A=1 --"] {
        assert_eq!(run(line).unwrap().words, Words::Command(vec![]), "{line}");
    }
}

#[test]
fn flags_are_podmans() {
    let typed =
        run("-it --rm -e A=1 -e B -v /a:/b:ro -w /x -u 1000:1000 --net host -m 2g --cpus 1.5 --pids 100 -l k=v \
                     --tmpfs /t:size=1m,mode=700 --read-only --no-init -C /src -y -- true")
        .unwrap();
    let cell = &typed.cell;
    assert_eq!(cell.tty(), Some((Tty::Always, "-t")));
    assert!(cell.interactive && typed.start.rm && cell.read_only && typed.start.yes);
    assert_eq!(cell.env, ["A=1".parse().unwrap(), "B".parse().unwrap()]);
    assert_eq!(cell.volume, ["/a:/b:ro".parse().unwrap()]);
    assert_eq!(cell.workdir, Some("/x".into()));
    assert_eq!(cell.user, Some(UserSpec::Ids { uid: 1000, gid: Some(1000) }));
    assert_eq!(cell.network, Some(Network::Host));
    assert_eq!((cell.memory, cell.cpus, cell.pids), (Some(Size(2 << 30)), Some(Cpus(1500)), Some(Pids(100))));
    assert_eq!(cell.tmpfs, [TmpfsSpec { target: "/t".into(), size: Some(1 << 20), mode: 0o700 }]);
    assert_eq!(cell.init(), Some((false, "--no-init")));
    assert_eq!(cell.project_dir, Some("/src".into()));
    assert_eq!(run("-ti -- true").unwrap().cell.tty(), Some((Tty::Always, "-t")));
    assert_eq!(run("--tty -- true").unwrap().cell.tty(), Some((Tty::Always, "--tty")));
    assert_eq!(run("--tty=never -- true").unwrap().cell.tty(), Some((Tty::Never, "--tty")));
    assert_eq!(run("--no-init --init -- true").unwrap().cell.init(), Some((true, "--init")));
}

#[test]
fn wrong_flags_are_told() {
    let cases: &[(&str, &str)] = &[
        ("--rm --keep -- x", "error: the argument '--rm' cannot be used with '--keep'"),
        ("--memroy 1g -- x", "error: unexpected argument '--memroy' found"),
        (
            "-m 1x -- x",
            "error: invalid value '1x' for '--memory <SIZE>': a size is a whole number of bytes, or one with a suffix: b, k, m, g, t (powers of 1024)",
        ),
        ("--net nat -- x", "error: invalid value 'nat' for '--network <MODE>'"),
        (
            "-w src -- x",
            "error: invalid value 'src' for '--workdir <DIR>': \"src\" is a path inside the cell and must be absolute, without `..`",
        ),
        ("--check --dry-run -- x", "error: the argument '--check' cannot be used with '--dry-run'"),
        ("--no-project -C / -- x", "error: the argument '--no-project' cannot be used with '--project-dir <DIR>'"),
        ("-d -t -- x", "error: the argument '--detach' cannot be used with '-t'"),
    ];
    for (line, want) in cases {
        let error = run(line).expect_err(line);
        assert_eq!(error.lines().next(), Some(*want), "{line}");
    }
}
