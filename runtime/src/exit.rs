//! Exit codes, as podman, docker and the shells use them.

use std::io;

use rustix::process::WaitStatus;

/// cellblock itself failed; the command was not started.
pub const OURS: i32 = 125;
/// The command was found but cannot be executed.
pub const CANNOT_EXECUTE: i32 = 126;
/// The command was not found.
pub const NOT_FOUND: i32 = 127;

/// The code for a failed `execve(2)`.
#[must_use]
pub fn of_exec_error(error: &io::Error) -> i32 {
    if error.kind() == io::ErrorKind::NotFound { NOT_FOUND } else { CANNOT_EXECUTE }
}

/// The code a shell would give for how a process ended: its own, or 128 + the signal. `None` if it has not ended.
#[must_use]
pub fn of_wait_status(status: WaitStatus) -> Option<i32> {
    status.exit_status().or_else(|| status.terminating_signal().map(|n| 128 + n))
}
