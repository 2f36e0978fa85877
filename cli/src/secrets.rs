//! Reads the values of secrets on the host, at the start of a cell and no sooner: nothing that only shows a plan has them in memory.
//!
//! One reader for `--secret` and for variables with a source. What is read is bounded in size and in time. Errors name the source and never
//! the value.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use cellblock_egress::serve::Hidden;
use rustix::event::{PollFd, PollFlags};
use rustix::fs::{Mode, OFlags};
use rustix::process::{Pid, PidfdFlags};
use rustix::time::Timespec;
use zeroize::Zeroizing;

use crate::args::values::{Given, Source};
use crate::report::CliError;
use crate::resolve::{HostFacts, Origin, SecretWanted, VariableWanted, typed_path};

/// Longest value in bytes that goes into a header: servers take no longer one.
const MAX_HEADER: usize = 8192;

/// Longest value in bytes of a variable: `execve(2)` takes 128 KiB for a string, and all of them together have to fit too.
const MAX_VARIABLE: usize = 64 << 10;

/// How long a source may take: somebody may have to type a passphrase.
const PATIENCE: Duration = Duration::from_secs(120);

/// Where hosts keep their root certificates in one file: Debian and Alpine, Fedora, SUSE, BSDs and others, NixOS.
const ROOTS: &[&str] = &[
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
];

/// The host's file of root certificates: what the person's tools use.
pub(crate) fn roots(host: &HostFacts) -> Option<PathBuf> {
    let said = host.env.get("SSL_CERT_FILE").filter(|path| !path.is_empty()).map(PathBuf::from);
    said.or_else(|| ROOTS.iter().map(PathBuf::from).find(|path| path.exists()))
}

/// The value of a secret that is put into requests.
pub(crate) fn read(wanted: &SecretWanted, host: &HostFacts) -> Result<Hidden, CliError> {
    let failed = |why| cannot(&wanted.origin, &wanted.spec.variable, why);
    let value = from_source(&wanted.spec.source, host, MAX_HEADER).map_err(failed)?;
    if value.0.contains(|c: char| c.is_control()) {
        return Err(failed("it has line ends or control characters".to_owned()));
    }
    Ok(value)
}

/// The value of a hidden variable.
pub(crate) fn variable(wanted: &VariableWanted, host: &HostFacts) -> Result<Hidden, CliError> {
    given(&wanted.name, &wanted.value, &wanted.origin, host)?
        .ok_or_else(|| cannot(&wanted.origin, &wanted.name, "it is not set".to_owned()))
}

/// What a variable `name` is to be; `None` if it is to be the host's, which has none.
pub(crate) fn given(name: &str, value: &Given, origin: &Origin, host: &HostFacts) -> Result<Option<Hidden>, CliError> {
    match value {
        Given::Value(value) => Ok(Some(Hidden(value.clone()))),
        Given::Host => Ok(host.env.get(name).cloned().map(Hidden)),
        Given::Source(source) => {
            let failed = |why| cannot(origin, name, why);
            let value = from_source(source, host, MAX_VARIABLE).map_err(failed)?;
            if value.0.contains('\0') {
                return Err(failed("it has a NUL character, which no variable can hold".to_owned()));
            }
            Ok(Some(value))
        }
    }
}

fn cannot(origin: &Origin, variable: &str, why: String) -> CliError {
    CliError::plain(
        format!("{origin}: the value of {variable} cannot be read: {why}"),
        "it is read on the host, from env:NAME, file:PATH, cmd:COMMAND, op://VAULT/ITEM/FIELD or pass:ENTRY",
    )
}

/// What is read from `source`, without line ends at its end.
fn from_source(source: &Source, host: &HostFacts, most: usize) -> Result<Hidden, String> {
    let until = Instant::now() + PATIENCE;
    let program = |name: &str, args: &[&str]| {
        let mut command = Command::new(name);
        command.args(args);
        command
    };
    let bytes = match source {
        Source::Env(name) => {
            let value = host.env.get(name).ok_or_else(|| format!("${name} is not set"))?;
            Zeroizing::new(value.clone().into_bytes())
        }
        Source::File(path) => {
            let path = typed_path(path, host).map_err(|e| e.to_string())?;
            file(&host.cwd.join(&path), until, most).map_err(|e| plainly(&path, &e, most))?
        }
        Source::Command(words) => printed(program("/bin/sh", &["-c", words]), until, most)?,
        Source::OnePassword(reference) => printed(program("op", &["read", reference]), until, most)?,
        Source::Pass(entry) => printed(program("pass", &["show", entry]), until, most)?,
    };
    let text = std::str::from_utf8(&bytes).map_err(|_| "it is something else than text".to_owned())?;
    // The rest of an entry of `pass` are notes.
    let text = if matches!(source, Source::Pass(_)) { text.lines().next().unwrap_or_default() } else { text };
    match text.trim_end_matches(['\n', '\r']) {
        "" => Err("it is empty".to_owned()),
        long if long.len() > most => Err(too_long(most)),
        fine => Ok(Hidden(fine.to_owned())),
    }
}

fn too_long(most: usize) -> String {
    format!("it has more than {most} bytes")
}

fn plainly(what: &str, error: &io::Error, most: usize) -> String {
    match error.kind() {
        io::ErrorKind::TimedOut => format!("{what} took more than {} seconds", PATIENCE.as_secs()),
        io::ErrorKind::FileTooLarge => too_long(most),
        _ => format!("{what}: {error}"),
    }
}

/// A file, or a pipe by its path, as shells make them for `<(…)`.
fn file(path: &std::path::Path, until: Instant, most: usize) -> io::Result<Zeroizing<Vec<u8>>> {
    // Not waiting for the other end of a pipe: that is done below, and not for ever.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOCTTY | OFlags::NONBLOCK;
    let file = rustix::fs::open(path, flags, Mode::empty())?;
    drain(file.as_fd(), until, most)
}

/// What `command` prints. Its own words go to the person; what it printed is in no message.
fn printed(mut command: Command, until: Instant, most: usize) -> Result<Zeroizing<Vec<u8>>, String> {
    let words: Vec<_> = std::iter::once(command.get_program()).chain(command.get_args()).collect();
    let words = words.join(" ".as_ref()).to_string_lossy().into_owned();
    let failed = |e: io::Error| match e.kind() {
        io::ErrorKind::NotFound => format!("`{words}`: the program is not installed"),
        _ => plainly(&format!("`{words}`"), &e, most),
    };
    let mut child =
        command.stdin(Stdio::inherit()).stderr(Stdio::inherit()).stdout(Stdio::piped()).spawn().map_err(failed)?;
    let output = child.stdout.take().ok_or(io::ErrorKind::BrokenPipe.into());
    let output = output.and_then(|pipe| drain(pipe.as_fd(), until, most)).and_then(|bytes| {
        wait(&child, until)?;
        Ok(bytes)
    });
    if output.is_err() {
        let _ = child.kill();
    }
    let status = child.wait();
    let bytes = output.map_err(failed)?;
    match status {
        Ok(status) if status.success() => Ok(bytes),
        Ok(status) => Err(format!("`{words}` ended with {status}")),
        Err(error) => Err(failed(error)),
    }
}

/// Waits for the end of `child`, which may have closed its output long before.
fn wait(child: &Child, until: Instant) -> io::Result<()> {
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).ok_or(io::ErrorKind::InvalidInput)?;
    let ended = rustix::process::pidfd_open(pid, PidfdFlags::empty())?;
    ready(ended.as_fd(), until)
}

/// Everything that comes from `from` until its end. Reads no more than one byte above `most` and a few line ends.
fn drain(from: BorrowedFd<'_>, until: Instant, most: usize) -> io::Result<Zeroizing<Vec<u8>>> {
    // Never grown, which would leave copies behind.
    let room = most + 16;
    let mut bytes = Zeroizing::new(vec![0u8; room]);
    let mut length = 0;
    loop {
        ready(from, until)?;
        match rustix::io::read(from, bytes.get_mut(length..).unwrap_or_default()) {
            Ok(0) if length == room => return Err(io::ErrorKind::FileTooLarge.into()),
            Ok(0) => break,
            Ok(n) => length += n,
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    bytes.truncate(length);
    Ok(bytes)
}

/// Waits until there is something to read, or an end.
fn ready(from: BorrowedFd<'_>, until: Instant) -> io::Result<()> {
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let left =
            Timespec { tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX), tv_nsec: left.subsec_nanos().into() };
        match rustix::event::poll(&mut [PollFd::from_borrowed_fd(from, PollFlags::IN)], Some(&left)) {
            Ok(0) => return Err(io::ErrorKind::TimedOut.into()),
            Ok(_) => return Ok(()),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host() -> HostFacts {
        let env = [("T".to_owned(), "from the host".to_owned())].into();
        HostFacts { home: "/".into(), cwd: "/".into(), env, ..HostFacts::default() }
    }

    fn told(source: &str, most: usize) -> Result<String, String> {
        from_source(&source.parse().expect(source), &host(), most).map(|hidden| hidden.0.clone())
    }

    #[test]
    fn every_source_gives_its_value_without_the_line_end() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        std::fs::write(&path, "one\ntwo\r\n\n").unwrap();
        assert_eq!(told(&format!("file:{}", path.display()), 99).as_deref(), Ok("one\ntwo"));
        assert_eq!(told("env:T", 99).as_deref(), Ok("from the host"));
        assert_eq!(told("cmd:printf 'a%s\\n' b", 99).as_deref(), Ok("ab"));
    }

    #[test]
    fn what_is_wrong_is_said_and_never_the_value() {
        for (source, why) in [
            ("env:GONE", "$GONE is not set"),
            ("file:/nowhere/at/all", "No such file"),
            ("file:/", "Is a directory"),
            ("file:/dev/null", "it is empty"),
            ("file:/dev/zero", "more than 20 bytes"),
            ("cmd:exit 3", "ended with exit status: 3"),
            ("cmd:echo value; exit 1", "ended with exit status: 1"),
            ("cmd:printf '\\377'", "something else than text"),
            ("cmd:yes value", "more than 20 bytes"),
            ("cmd:printf 'value%020d' 1", "more than 20 bytes"),
        ] {
            let error = told(source, 20).expect_err(source);
            assert!(error.contains(why), "{source}: {error}");
            assert!(!error.replace(&source[4..], "").contains("value"), "{source}: {error}");
        }
    }

    #[test]
    fn a_program_that_is_missing_is_named() {
        let error = printed(Command::new("/nowhere/op"), Instant::now() + PATIENCE, 9).expect_err("missing");
        assert_eq!(error, "`/nowhere/op`: the program is not installed");
    }

    #[test]
    fn nobody_is_waited_for_for_ever() {
        let soon = || Instant::now() + Duration::from_millis(200);
        let (started, mut slow) = (Instant::now(), Command::new("sleep"));
        slow.arg("60");
        assert!(printed(slow, soon(), 99).is_err_and(|e| e.contains("took more than")));
        // It has closed its output and goes on.
        let mut shut = Command::new("sh");
        shut.args(["-c", "exec >&-; sleep 60"]);
        assert!(printed(shut, soon(), 99).is_err_and(|e| e.contains("took more than")));
        let dir = tempfile::tempdir().unwrap();
        let pipe = dir.path().join("pipe");
        rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, Mode::RUSR | Mode::WUSR).unwrap();
        assert!(file(&pipe, soon(), 99).is_err_and(|e| e.kind() == io::ErrorKind::TimedOut));
        assert!(started.elapsed() < Duration::from_secs(20));
    }
}
