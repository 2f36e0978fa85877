//! `cellblock doctor`: what this host can do, found out by doing it, and how to mend what it cannot.

use std::path::Path;
use std::process::{Command, Stdio};

use serde::Serialize;

use crate::output::{Style, data, json};
use crate::place;
use crate::report::CliError;
use crate::resolve::HostFacts;

/// Say what this host can do, what it lacks, what that costs, and how to mend it
///
/// The checks try the real thing in throw-away processes and change nothing.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  cellblock doctor
  cellblock doctor --json | jq '.checks[] | select(.state != \"ok\")'
  cellblock doctor --fix-script | less")]
pub(crate) struct Args {
    /// Print the results as JSON
    #[arg(long)]
    json: bool,
    /// Print a shell script with what would mend this host; read it before you run it
    #[arg(long, conflicts_with = "json")]
    fix_script: bool,
}

/// How a check ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum State {
    /// Works.
    Ok,
    /// Does not; something is lost, but cells start.
    Degraded,
    /// Does not, and no cell can start.
    Missing,
}

/// One result.
#[derive(Clone, Debug, Serialize)]
struct Check {
    id: &'static str,
    title: &'static str,
    state: State,
    detail: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    cost: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fix: Option<String>,
}

impl Check {
    fn ok(id: &'static str, title: &'static str, detail: impl Into<String>) -> Self {
        Self { id, title, state: State::Ok, detail: detail.into(), cost: None, fix: None }
    }

    fn lacks(
        id: &'static str,
        title: &'static str,
        state: State,
        detail: impl Into<String>,
        cost: &'static str,
        fix: Option<String>,
    ) -> Self {
        Self { id, title, state, detail: detail.into(), cost: Some(cost), fix }
    }
}

#[derive(Serialize)]
struct Report {
    can_start: bool,
    mode: &'static str,
    checks: Vec<Check>,
}

pub(crate) fn run(args: &Args) -> Result<i32, CliError> {
    let host = place::host()?;
    let checks = vec![
        kernel(),
        user_namespaces(&host),
        subordinate_ids(&host),
        start(&host),
        overlay(&host),
        runtime_dir(&host),
        seccomp(),
        limits(),
        container(&host),
    ];
    let can_start = checks.iter().all(|c| c.state != State::Missing);
    let range = checks.iter().any(|c| c.id == "subordinate-ids" && c.state == State::Ok);
    let mode = if host.real_root {
        "root"
    } else if range {
        "rootless with an id range"
    } else {
        "rootless with a single id"
    };
    let report = Report { can_start, mode, checks };
    if args.json {
        json(&report)?;
    } else if args.fix_script {
        data(&script(&report))?;
    } else {
        data(&text(&report))?;
    }
    Ok(i32::from(!can_start))
}

fn text(report: &Report) -> String {
    let style = Style::stdout();
    let mut text = String::new();
    for check in &report.checks {
        let word = match check.state {
            State::Ok => "ok      ".to_owned(),
            State::Degraded => style.bold("degraded"),
            State::Missing => style.red("missing "),
        };
        text += &format!("{word}  {:<22} {}\n", check.title, check.detail);
        if let Some(cost) = check.cost {
            text += &format!("{:10}{:<22} costs: {cost}\n", "", "");
        }
        for line in check.fix.iter().flat_map(|f| f.lines()) {
            text += &format!("{:10}{:<22} mend:  {line}\n", "", "");
        }
    }
    let yes = if report.can_start { "yes" } else { "no" };
    text + &format!("\ncells can start: {yes} ({})\n", report.mode)
}

fn script(report: &Report) -> String {
    let mut text =
        "#!/bin/sh\n# What would mend this host for cellblock. Read it first; most lines need root.\nset -eu\n"
            .to_owned();
    for check in report.checks.iter().filter(|c| c.state != State::Ok) {
        if let Some(fix) = &check.fix {
            text += &format!("\n# {}: {}\n{fix}\n", check.title, check.detail);
        }
    }
    text
}

/// Version numbers of the running kernel.
fn kernel() -> Check {
    const TITLE: &str = "kernel";
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|n| n.parse::<u32>().unwrap_or(0));
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    if version < (5, 12) {
        let cost = "no cell can start: the mount interface it uses is newer (mount_setattr, Linux 5.12)";
        return Check::lacks("kernel", TITLE, State::Missing, release, cost, None);
    }
    if version < (6, 7) {
        let cost = "images of many layers need short paths (one option a layer came with Linux 6.7)";
        return Check::lacks("kernel", TITLE, State::Degraded, release, cost, None);
    }
    Check::ok("kernel", TITLE, release)
}

/// Tries `program` in a child, silently: whether it worked, and what it said.
fn try_out(program: &str, args: &[&str]) -> Result<(), String> {
    match Command::new(program).args(args).stdin(Stdio::null()).stdout(Stdio::null()).output() {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(String::from_utf8_lossy(&output.stderr).lines().last().unwrap_or("failed").trim().to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

fn setting(path: &str) -> Option<String> {
    std::fs::read_to_string(Path::new("/proc/sys").join(path)).ok().map(|t| t.trim().to_owned())
}

fn user_namespaces(host: &HostFacts) -> Check {
    const TITLE: &str = "user namespaces";
    let id = "user-namespaces";
    if setting("user/max_user_namespaces").as_deref() == Some("0") {
        let fix = "sudo sysctl -w user.max_user_namespaces=28633".into();
        return Check::lacks(
            id,
            TITLE,
            State::Missing,
            "user.max_user_namespaces is 0",
            "no cell can start",
            Some(fix),
        );
    }
    if !host.real_root && setting("kernel/unprivileged_userns_clone").as_deref() == Some("0") {
        let fix = "sudo sysctl -w kernel.unprivileged_userns_clone=1".into();
        return Check::lacks(
            id,
            TITLE,
            State::Missing,
            "kernel.unprivileged_userns_clone is 0",
            "no cell can start without root",
            Some(fix),
        );
    }
    if host.real_root || try_out("unshare", &["-Ur", "true"]).is_ok() {
        return Check::ok(id, TITLE, "can be made");
    }
    let restricted = setting("kernel/apparmor_restrict_unprivileged_userns").as_deref() == Some("1");
    let detail = if restricted {
        "AppArmor takes their capabilities away (Ubuntu 23.10 and later)"
    } else {
        "the kernel refuses them"
    };
    Check::lacks(id, TITLE, State::Missing, detail, "no cell can start without root", restricted.then(apparmor_profile))
}

/// A profile that lets this program, and only it, make user namespaces.
fn apparmor_profile() -> String {
    let program =
        std::env::current_exe().map_or_else(|_| "/usr/local/bin/cellblock".into(), |p| p.display().to_string());
    format!(
        "printf '%s\\n' 'abi <abi/4.0>,' 'include <tunables/global>' 'profile cellblock {program} flags=(unconfined) {{ userns, }}' | sudo tee /etc/apparmor.d/cellblock\nsudo apparmor_parser -r /etc/apparmor.d/cellblock"
    )
}

fn subordinate_ids(host: &HostFacts) -> Check {
    const TITLE: &str = "subordinate ids";
    let id = "subordinate-ids";
    const COST: &str = "images have one user only: no root inside beside you, and files of an image all belong to you";
    if host.real_root {
        return Check::ok(id, TITLE, "not needed by root");
    }
    if !host.newuidmap {
        let fix = "sudo apt-get install uidmap   # Debian, Ubuntu; Fedora: shadow-utils, Alpine: shadow-uidmap".into();
        return Check::lacks(id, TITLE, State::Degraded, "newuidmap and newgidmap are not installed", COST, Some(fix));
    }
    let largest = |ranges: &[(u32, u32)]| ranges.iter().copied().max_by_key(|(_, count)| *count);
    match (largest(&host.subuids), largest(&host.subgids)) {
        (Some((start, count)), Some((_, groups))) if count >= 65_536 && groups >= 65_536 => {
            // Done for real: the programs may lack their privilege.
            match try_out("unshare", &["--map-users=auto", "--map-groups=auto", "true"]) {
                Err(said) if said.contains("newuidmap") || said.contains("newgidmap") => {
                    let fix = "sudo setcap cap_setuid+ep \"$(command -v newuidmap)\"; sudo setcap cap_setgid+ep \"$(command -v newgidmap)\"".into();
                    Check::lacks(id, TITLE, State::Degraded, said, COST, Some(fix))
                }
                _ => Check::ok(id, TITLE, format!("{count} from {start}")),
            }
        }
        _ => {
            let fix = format!("sudo usermod --add-subuids 100000-165535 --add-subgids 100000-165535 {}", host.user);
            Check::lacks(
                id,
                TITLE,
                State::Degraded,
                format!("no range of 65536 for {} in /etc/subuid and /etc/subgid", host.user),
                COST,
                Some(fix),
            )
        }
    }
}

/// The whole way: a cell that runs `true`.
fn start(host: &HostFacts) -> Check {
    const TITLE: &str = "a cell";
    let program = std::env::current_exe().map_or_else(|_| "cellblock".into(), |p| p.display().to_string());
    let shell = format!(
        "cd / && exec '{program}' run --no-project --image host --name doctor-{} --rm -- true",
        rustix::process::getpid().as_raw_nonzero()
    );
    match try_out("sh", &["-c", &shell]) {
        Ok(()) => Check::ok("start", TITLE, "starts, runs `true`, is gone"),
        Err(said) => {
            let nested = host.env.contains_key("container") || Path::new("/.dockerenv").exists();
            let fix = nested.then(|| "# in a container, it needs: --security-opt seccomp=unconfined --security-opt systempaths=unconfined".to_owned());
            Check::lacks("start", TITLE, State::Missing, said, "see the checks above", fix)
        }
    }
}

fn overlay(host: &HostFacts) -> Check {
    const TITLE: &str = "overlay of images";
    let data = place::dirs(host).data;
    let base = data.ancestors().find(|p| p.is_dir()).unwrap_or(Path::new("/tmp")).to_owned();
    let dir = base.join(format!(".cellblock-doctor-{}", rustix::process::getpid().as_raw_nonzero()));
    let shell = format!(
        "mkdir -p '{0}/l' '{0}/u' '{0}/w' '{0}/m' && mount -t overlay -o userxattr,lowerdir='{0}/l',upperdir='{0}/u',workdir='{0}/w' overlay '{0}/m' && touch '{0}/m/x'; s=$?; umount '{0}/m' 2>/dev/null; exit $s",
        dir.display()
    );
    let result = try_out("unshare", &["-Urm", "sh", "-c", &shell]);
    let _ = crate::images::remove_folders(&[dir]);
    match result {
        Ok(()) => Check::ok("overlay", TITLE, format!("works on the file system of {}", base.display())),
        Err(said) => Check::lacks(
            "overlay",
            TITLE,
            State::Degraded,
            said,
            "cells cannot start if their data lies there",
            Some("# put the data on ext4, xfs, btrfs or tmpfs: export XDG_DATA_HOME=/path/on/such/a/disk".into()),
        ),
    }
}

fn runtime_dir(host: &HostFacts) -> Check {
    const TITLE: &str = "runtime folder";
    let dir = place::dirs(host).runtime;
    if dir.starts_with("/tmp") {
        let cost = "state lies in /tmp, which may be on disk and is shared (its owner is checked)";
        return Check::lacks(
            "runtime-dir",
            TITLE,
            State::Degraded,
            dir.display().to_string(),
            cost,
            Some("sudo loginctl enable-linger \"$USER\"".into()),
        );
    }
    Check::ok("runtime-dir", TITLE, dir.display().to_string())
}

fn seccomp() -> Check {
    const TITLE: &str = "seccomp";
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    if status.contains("Seccomp:") {
        return Check::ok("seccomp", TITLE, "filters can be loaded");
    }
    Check::lacks(
        "seccomp",
        TITLE,
        State::Missing,
        "the kernel has no CONFIG_SECCOMP_FILTER",
        "no cell can start without its filter",
        None,
    )
}

fn limits() -> Check {
    const TITLE: &str = "limits";
    let limits =
        cellblock_bundle::Limits { memory: Some(1 << 30), cpus: Some(1000), pids: Some(100), best_effort: false };
    let name = format!("doctor-{}", rustix::process::getpid().as_raw_nonzero());
    match cellblock_runtime::limits::for_limits(&limits, &name, &cellblock_runtime::limits::Places::here()) {
        Ok(_) => Check::ok("limits", TITLE, "memory, processors and processes can be limited"),
        Err(error) => Check::lacks(
            "limits",
            TITLE,
            State::Degraded,
            error.to_string(),
            "--memory, --cpus and --pids are refused, or ignored with --limits=best-effort",
            Some("# with systemd: systemd-run --user --scope -p Delegate=yes cellblock run …".into()),
        ),
    }
}

fn container(host: &HostFacts) -> Check {
    const TITLE: &str = "surroundings";
    let inside = host.env.contains_key("container")
        || Path::new("/.dockerenv").exists()
        || Path::new("/run/.containerenv").exists();
    Check::ok(
        "container",
        TITLE,
        if inside { "inside a container: what it forbids, cells cannot do either" } else { "no container around" },
    )
}
