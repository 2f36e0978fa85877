//! Programs of the host that are asked something: with an end to their time and to their words.

use std::io::{self, Read, Write};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use cellblock_sys::process::dies_with_this_thread;
use rustix::event::{PollFd, PollFlags, Timespec};
use zeroize::Zeroizing;

use crate::settings::Settings;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ChildError {
    /// There is no such program, or it cannot be started.
    #[error("cannot be started: {0}")]
    Start(io::Error),
    /// It ended with something else than 0.
    #[error("has no answer")]
    Failed,
    /// It did not end.
    #[error("did not answer in time")]
    Late,
    /// It said more than it may.
    #[error("answered with more than {0} bytes")]
    Long(usize),
}

/// A program of the host's, found and run as the person would.
pub(crate) fn command(program: &str, settings: &Settings) -> Command {
    let mut command = Command::new(program);
    command.env_clear().envs(&settings.env).current_dir("/");
    command
}

/// Runs `command` with `input`, which must be short; what it prints, at most `most` bytes, within `patience`.
pub(crate) fn run(
    mut command: Command,
    input: &[u8],
    most: usize,
    patience: Duration,
) -> Result<Zeroizing<Vec<u8>>, ChildError> {
    let end = Instant::now() + patience;
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    dies_with_this_thread(&mut command);
    let mut child = command.spawn().map_err(ChildError::Start)?;
    if let Some(mut stdin) = child.stdin.take() {
        // Shorter than a pipe; who does not read it does not want it.
        let _ = stdin.write_all(input);
    }
    let outcome = listen(&mut child, most, end);
    if outcome.is_err() {
        let _ = child.kill();
    }
    // One that was killed ends; one that has closed its output is given the rest of its time.
    let succeeded = loop {
        match child.try_wait() {
            Ok(Some(status)) => break status.success(),
            Ok(None) if Instant::now() < end => std::thread::sleep(Duration::from_millis(5)),
            Ok(None) => {
                let _ = child.kill();
                let _ = child.wait();
                return outcome.and(Err(ChildError::Late));
            }
            Err(_) => break false,
        }
    };
    outcome.and_then(|text| if succeeded { Ok(text) } else { Err(ChildError::Failed) })
}

fn listen(child: &mut Child, most: usize, end: Instant) -> Result<Zeroizing<Vec<u8>>, ChildError> {
    let Some(mut stdout) = child.stdout.take() else { return Err(ChildError::Failed) };
    let mut said = Zeroizing::new(Vec::new());
    let mut buffer = Zeroizing::new(vec![0u8; 64 << 10]);
    loop {
        let left = end.saturating_duration_since(Instant::now());
        let limit = Timespec {
            tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(left.subsec_nanos()),
        };
        match rustix::event::poll(&mut [PollFd::new(&stdout, PollFlags::IN)], Some(&limit)) {
            Ok(0) => return Err(ChildError::Late),
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => continue,
            Err(_) => return Err(ChildError::Failed),
        }
        let length = match stdout.read(&mut buffer) {
            Ok(0) => return Ok(said),
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(_) => return Err(ChildError::Failed),
        };
        if said.len() + length > most {
            return Err(ChildError::Long(most));
        }
        said.extend_from_slice(buffer.get(..length).unwrap_or_default());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str) -> Command {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn what_is_said_has_an_end() {
        let run = |script, most, ms| run(sh(script), b"input\n", most, Duration::from_millis(ms));
        assert_eq!(run("cat", 6, 5000).map(|text| text.to_vec()).ok().as_deref(), Some(&b"input\n"[..]));
        assert!(matches!(run("cat", 5, 5000), Err(ChildError::Long(5))));
        assert!(matches!(run("cat /dev/zero", 1 << 20, 5000), Err(ChildError::Long(_))));
        assert!(matches!(run("exit 1", 5, 5000), Err(ChildError::Failed)));
        let begun = Instant::now();
        assert!(matches!(run("exec sleep 10", 5, 100), Err(ChildError::Late)));
        assert!(matches!(run("exec >&-; exec sleep 10", 5, 100), Err(ChildError::Late)));
        assert!(begun.elapsed() < Duration::from_secs(5));
        let none = super::run(Command::new("/nowhere"), b"", 1, Duration::from_secs(1));
        assert!(matches!(none, Err(ChildError::Start(_))));
    }
}
