//! Asking systemd for a scope: the way to limits on a v2 host whose groups belong to it (systemd, CGROUP_DELEGATION.md).
//!
//! A program must not make groups in the parts of the tree that systemd manages: it would switch controllers off again. It asks for a
//! *scope* with `Delegate=yes` instead, which holds the asking process and in which it may do as it likes. An ordinary user's
//! own systemd gives one out, where the kernel would not even let them move a process out of a login session.
//!
//! `busctl` is part of systemd itself, so wherever there is somebody to ask there is the program to ask with. It costs about 10 ms, and
//! only a start with limits pays.

use std::io::Read;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::error::CgroupError;

/// Which systemd can be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Manager {
    /// The system's, by root.
    System,
    /// The person's own.
    User,
}

/// How long systemd may take for an answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// Whether systemd runs this host (sd_booted(3)).
pub(super) fn booted() -> bool {
    Path::new("/run/systemd/system").is_dir()
}

impl Manager {
    /// Who is to be asked by this process.
    pub(super) fn of(root: bool) -> Self {
        if root { Self::System } else { Self::User }
    }

    /// Has this very process, and nobody else, moved to a new delegated scope. `cgroup` is its `/proc/self/cgroup`, `bus` as for `call`.
    pub(super) fn enter_scope(self, cell: &str, cgroup: &Path, bus: &Path) -> Result<(), CgroupError> {
        let pid = rustix::process::getpid().as_raw_nonzero().get();
        let unit = unit_name(cell, pid);
        let arguments = scope_arguments(&unit, cell, pid);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        self.call(&arguments, bus).map_err(CgroupError::Systemd)?;
        // The answer comes when the job is queued, not when it is done.
        let end = Instant::now() + PATIENCE;
        while Instant::now() < end {
            let own = std::fs::read_to_string(cgroup).unwrap_or_default();
            if own.lines().any(|line| line.starts_with("0::") && line.ends_with(&unit)) {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Err(CgroupError::Systemd(format!("this process was not moved to {unit} within {} seconds", PATIENCE.as_secs())))
    }

    /// Has this process moved into the group `inside` (such as `/cellblock-x`) of the scope `unit`, where the kernel lets only systemd do
    /// that: between a login session and the person's own units. systemd 238.
    pub(super) fn attach(self, unit: &str, inside: &str, bus: &Path) -> Result<(), CgroupError> {
        let pid = rustix::process::getpid().as_raw_nonzero().get().to_string();
        self.call(&["call", NAME, PATH, INTERFACE, "AttachProcessesToUnit", "ssau", unit, inside, "1", &pid], bus)
            .map_err(CgroupError::Systemd)
    }

    /// Whether it answers at all; what was said if not.
    pub(super) fn answers(self, bus: &Path) -> Result<(), String> {
        self.call(&["get-property", NAME, PATH, INTERFACE, "Version"], bus)
    }

    /// Runs `busctl`, for a person's own systemd a second time with the address `bus` where the environment leads to none: after
    /// `sudo -u`, in a cron job, inside `dbus-run-session`, with another XDG_RUNTIME_DIR. What it said if it failed.
    fn call(self, arguments: &[&str], bus: &Path) -> Result<(), String> {
        let to = match self {
            Self::System => "--system",
            Self::User => "--user",
        };
        let said = match busctl(to, arguments) {
            Err(said) if self == Self::User && is_own_socket(bus) => said,
            other => return other,
        };
        busctl(&format!("--address=unix:path={}", bus.display()), arguments).map_err(|more| format!("{said}; {more}"))
    }
}

/// Where the bus of a person's own systemd always is (`dbus.socket` of the user's units), whatever the environment says.
pub(super) fn own_bus() -> PathBuf {
    PathBuf::from(format!("/run/user/{}/bus", rustix::process::geteuid().as_raw()))
}

fn is_own_socket(path: &Path) -> bool {
    let own =
        |about: std::fs::Metadata| about.file_type().is_socket() && about.uid() == rustix::process::geteuid().as_raw();
    std::fs::symlink_metadata(path).is_ok_and(own)
}

fn busctl(to: &str, arguments: &[&str]) -> Result<(), String> {
    let child = Command::new("busctl")
        .arg(to)
        .arg(format!("--timeout={}", PATIENCE.as_secs()))
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = child.map_err(|e| format!("busctl cannot be run: {e}"))?;
    let mut said = String::new();
    if let Some(stderr) = child.stderr.take() {
        let _ = stderr.take(4096).read_to_string(&mut said);
    }
    match child.wait() {
        Ok(status) if status.success() => Ok(()),
        Ok(_) => Err(said.trim().to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

const NAME: &str = "org.freedesktop.systemd1";
const PATH: &str = "/org/freedesktop/systemd1";
const INTERFACE: &str = "org.freedesktop.systemd1.Manager";

/// `StartTransientUnit(name, mode, properties, aux)`. `CollectMode`: a scope that ended badly does not stay behind as failed.
fn scope_arguments(unit: &str, cell: &str, pid: i32) -> Vec<String> {
    let properties = [
        vec!["Description".into(), "s".into(), format!("cellblock cell {cell}")],
        vec!["PIDs".into(), "au".into(), "1".into(), pid.to_string()],
        vec!["Delegate".into(), "b".into(), "true".into()],
        vec!["CollectMode".into(), "s".into(), "inactive-or-failed".into()],
    ];
    let mut arguments: Vec<String> =
        ["call", NAME, PATH, INTERFACE, "StartTransientUnit", "ssa(sv)a(sa(sv))", unit, "fail"].map(Into::into).into();
    arguments.push(properties.len().to_string());
    arguments.extend(properties.into_iter().flatten());
    arguments.push("0".into());
    arguments
}

/// A unit's name has 255 bytes at most, of letters, digits and `:-_.\` (systemd.unit(5)); others are written as `\xNN`, as
/// systemd-escape(1) does. The process id keeps apart cells of one name in different state directories.
fn unit_name(cell: &str, pid: i32) -> String {
    let mut name = String::from("cellblock-");
    for byte in cell.bytes() {
        if name.len() > 200 {
            break;
        }
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' => name.push(char::from(byte)),
            other => name.push_str(&format!("\\x{other:02x}")),
        }
    }
    format!("{name}-{pid}.scope")
}

/// The scope of ours that `path` lies in, and the rest of the path inside it.
pub(super) fn scope_of(path: &Path) -> Option<(String, String)> {
    let (scope, unit) = path.ancestors().skip(1).find_map(|above| {
        let name = above.file_name()?.to_str()?;
        (name.starts_with("cellblock-") && name.ends_with(".scope")).then(|| (above, name.to_owned()))
    })?;
    Some((unit, format!("/{}", path.strip_prefix(scope).ok()?.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unit_names_are_valid() {
        assert_eq!(unit_name("my-cell_1.x", 7), "cellblock-my-cell_1.x-7.scope");
        assert_eq!(unit_name("a+b/ö", 7), "cellblock-a\\x2bb\\x2f\\xc3\\xb6-7.scope");
        assert!(unit_name(&"ö".repeat(500), i32::MAX).len() < 255);
    }

    #[test]
    fn the_call_has_as_many_properties_as_it_says() {
        let arguments = scope_arguments("u.scope", "c", 42);
        assert_eq!(
            arguments.join(" "),
            "call org.freedesktop.systemd1 /org/freedesktop/systemd1 org.freedesktop.systemd1.Manager StartTransientUnit \
             ssa(sv)a(sa(sv)) u.scope fail 4 Description s cellblock cell c PIDs au 1 42 Delegate b true CollectMode s inactive-or-failed 0"
        );
    }

    #[test]
    fn a_cell_in_a_scope_is_known_by_its_path() {
        let path = Path::new("/sys/fs/cgroup/user.slice/u/app.slice/cellblock-x-5.scope/cellblock-x");
        assert_eq!(scope_of(path), Some(("cellblock-x-5.scope".into(), "/cellblock-x".into())));
        assert_eq!(scope_of(Path::new("/sys/fs/cgroup/cellblock-x")), None);
    }
}
