//! Probes of the host as a whole: kernel, filters, limits, folders, clock, and what is around us.

use std::os::fd::AsFd;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use cellblock_bundle::Limits;
use cellblock_sys::process::SingleThreaded;
use rustix::fs::CWD;
use rustix::io::Errno;
use rustix::mount::{OpenTreeFlags, open_tree};

use super::child::{Failure, Outcome, enter, failed, in_child};
use super::{Facts, Finding, State};
use crate::cgroup::{self, CgroupError, Hierarchy};

/// The first kernel with all of the mount interface that cells use (`mount_setattr(2)`).
const OLDEST: (u32, u32) = (5, 12);

pub(super) fn kernel(facts: &Facts, alone: &SingleThreaded) -> Finding {
    const ID: &str = "kernel";
    const TITLE: &str = "kernel";
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let needs = |detail: String| {
        let cost = "no cell can start: the mount interface it uses is newer (mount_setattr, Linux 5.12)";
        Finding::lacks(ID, TITLE, State::Missing, detail, cost).note("a kernel of 5.12 or later; 6.7 is better")
    };
    if version(&release) < OLDEST {
        return needs(release);
    }
    // A distribution's number says little about what it has or what a filter leaves of it.
    let tried = in_child(alone, |alone| {
        enter(&facts.single, alone)?;
        let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        let tree = open_tree(CWD, c"/", flags).map_err(failed("open_tree"))?;
        cellblock_sys::mount::set_read_only(tree.as_fd()).map(|()| String::new()).map_err(failed("mount_setattr"))
    });
    match tried {
        Err(failure) if failure.is(Errno::NOSYS) => needs(format!("{release}, but {failure}")),
        _ => Finding::ok(ID, TITLE, release),
    }
}

/// Major and minor number.
fn version(release: &str) -> (u32, u32) {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|n| n.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

/// `SECCOMP_RET_ALLOW` for everything: classic BPF, "return a constant" (seccomp(2)).
const ALLOW: (u16, u8, u8, u32) = (0x06, 0, 0, 0x7fff_0000);

pub(super) fn seccomp(alone: &SingleThreaded) -> Finding {
    const ID: &str = "seccomp";
    const TITLE: &str = "seccomp";
    let outcome = in_child(alone, |_| {
        rustix::thread::set_no_new_privs(true).map_err(failed("no_new_privs"))?;
        cellblock_sys::seccomp::load([ALLOW]).map(|()| String::new()).map_err(failed("loading a filter"))
    });
    match outcome {
        Ok(_) => Finding::ok(ID, TITLE, "filters can be loaded"),
        Err(failure) => {
            let cost = "no cell can start without its filter";
            Finding::lacks(ID, TITLE, State::Missing, failure.to_string(), cost)
                .note("a kernel with CONFIG_SECCOMP_FILTER")
        }
    }
}

/// The guard's filter: one with a listener. Somebody around us may have one already, and there can be one only.
pub(super) fn guard(alone: &SingleThreaded) -> Finding {
    const ID: &str = "guard";
    const TITLE: &str = "guarded names";
    let outcome = in_child(alone, |_| {
        rustix::thread::set_no_new_privs(true).map_err(failed("no_new_privs"))?;
        let listener = cellblock_sys::notify::load([ALLOW]).map_err(failed("loading a filter with a listener"))?;
        let waits = cellblock_sys::notify::waits_through_signals();
        cellblock_sys::notify::Listener::new(listener).map_err(failed("listening to it"))?;
        Ok(if waits { "" } else { "; signals may make a call happen twice (before Linux 5.19)" }.to_owned())
    });
    match outcome {
        Ok(note) => Finding::ok(ID, TITLE, format!("files are changed inside after a look at their names{note}")),
        Err(failure) => {
            let cost =
                "cells that may write a folder start with `--no-guard` only: what does not exist yet is not protected";
            Finding::lacks(ID, TITLE, State::Degraded, failure.to_string(), cost)
        }
    }
}

/// For the process of a cell's network only; cells have files of their own.
pub(super) fn landlock() -> Finding {
    const ID: &str = "landlock";
    const TITLE: &str = "Landlock";
    match cellblock_sys::landlock::version() {
        Ok(version) => Finding::ok(ID, TITLE, format!("version {version}")),
        Err(error) => {
            let cost =
                "a cell's network process is confined by seccomp only: it could open your files if it were taken over";
            Finding::lacks(ID, TITLE, State::Degraded, error.to_string(), cost).note(
                "a kernel with CONFIG_SECURITY_LANDLOCK, and `landlock` in its parameter `lsm=` (Linux 5.13 and later)",
            )
        }
    }
}

/// Each limit on its own, as for a cell: it is found out how, the group is made in OUTER, joined by a child there, and removed.
pub(super) fn limits(facts: &Facts, alone: &SingleThreaded) -> Vec<Finding> {
    let none = Limits::default();
    let all = [
        ("limit-memory", "--memory", Limits { memory: Some(1 << 30), ..none.clone() }),
        ("limit-cpus", "--cpus", Limits { cpus: Some(1000), ..none.clone() }),
        ("limit-pids", "--pids", Limits { pids: Some(1000), ..none }),
    ];
    let hierarchy = cgroup::hierarchy();
    all.into_iter()
        .map(|(id, title, limits)| match in_child(alone, |alone| enforce(facts, alone, &limits)) {
            Ok(_) => Finding::ok(id, title, format!("can be enforced (cgroup {hierarchy})")),
            Err(failure) => {
                let cost = "the flag is refused, or ignored with `--limits=best-effort`";
                mend_limits(Finding::lacks(id, title, State::Degraded, failure.words, cost), facts, hierarchy)
            }
        })
        .collect()
}

fn enforce(facts: &Facts, alone: &SingleThreaded, limits: &Limits) -> Outcome {
    const NAME: &str = "doctor";
    let words = |error: CgroupError| Failure { what: "limits".into(), errno: 0, words: error.to_string() };
    let plan = cgroup::prepare(limits, NAME, facts.real_root).map_err(words)?;
    enter(facts.ids(), alone)?;
    let Some(plan) = plan else { return Ok(String::new()) };
    let cgroup = plan.create(NAME).map_err(words)?;
    let procs = cgroup.procs().map_err(words)?;
    in_child(alone, |_| {
        for fd in &procs {
            rustix::io::write(fd, b"0").map_err(|e| {
                let words = format!("the cell's cgroup can be made, but no process moved into it ({e})");
                Failure { words, ..Failure::new("limits", e) }
            })?;
        }
        Ok(String::new())
    })
}

fn mend_limits(finding: Finding, facts: &Facts, hierarchy: Hierarchy) -> Finding {
    match hierarchy {
        Hierarchy::V1 | Hierarchy::Hybrid if !facts.real_root && booted() => finding.note(
            "on cgroup v1 only root can limit: start the machine with the kernel parameter systemd.unified_cgroup_hierarchy=1",
        ),
        Hierarchy::V1 | Hierarchy::Hybrid if !facts.real_root => finding.note("on cgroup v1 only root can limit"),
        // systemd hands memory and pids to people by itself, the others only if told to.
        Hierarchy::V2 if !facts.real_root && booted() && finding.detail.contains("do not hand it down") => {
            finding.note("and log in anew").script(
                "sudo mkdir -p /etc/systemd/system/user@.service.d\n\
                 printf '[Service]\\nDelegate=cpu cpuset io memory pids\\n' | sudo tee /etc/systemd/system/user@.service.d/delegate.conf\n\
                 sudo systemctl daemon-reload",
            )
        }
        Hierarchy::V2 if !facts.real_root && booted() => finding.note(
            "log in so that your own systemd runs (ssh, `machinectl shell`), with `busctl` installed: cellblock asks it for a scope",
        ),
        Hierarchy::V2 if !facts.real_root => finding.note(
            "without systemd, start cellblock as the only process of a cgroup that is yours, with the controllers memory, cpu and pids",
        ),
        _ => finding.note("/sys/fs/cgroup must be mounted, writable, and have the controller"),
    }
}

pub(super) fn runtime_folder(facts: &Facts) -> Finding {
    use std::os::unix::fs::MetadataExt;
    const ID: &str = "runtime-folder";
    const TITLE: &str = "runtime folder";
    let here = facts.runtime.display().to_string();
    let lacks = |detail: String| {
        let cost = "what runs is recorded in a folder that may be on disk, or be removed behind its back";
        let fix = format!("sudo loginctl enable-linger {}", super::fixes::quoted(&facts.user));
        let finding = Finding::lacks(ID, TITLE, State::Degraded, detail, cost);
        match booted() {
            true => finding.script(fix).note("and log in anew, so that XDG_RUNTIME_DIR is set"),
            false => finding.note("set XDG_RUNTIME_DIR to a folder of your own with mode 0700, best on a tmpfs"),
        }
    };
    match &facts.xdg_runtime {
        None if facts.runtime.starts_with("/tmp") => lacks(format!("{here}, for XDG_RUNTIME_DIR is not set")),
        None => Finding::ok(ID, TITLE, here),
        Some(dir) => match std::fs::metadata(dir) {
            Ok(m) if m.is_dir() && m.uid() == facts.uid && m.mode() & 0o077 == 0 => Finding::ok(ID, TITLE, here),
            Ok(m) if m.is_dir() && m.uid() == facts.uid => {
                lacks(format!("{} is open to others (mode {:o})", dir.display(), m.mode() & 0o777))
                    .script(format!("chmod 700 {}", super::fixes::quoted(&dir.display().to_string())))
            }
            Ok(_) => lacks(format!("{} is not a folder of {}", dir.display(), facts.user)),
            Err(error) => lacks(format!("XDG_RUNTIME_DIR is {}: {error}", dir.display())),
        },
    }
}

/// Before this no cellblock existed: 2025-01-01.
const PAST: Duration = Duration::from_secs(1_735_689_600);

pub(super) fn clock() -> Finding {
    const ID: &str = "clock";
    const TITLE: &str = "clock";
    if SystemTime::now().duration_since(UNIX_EPOCH).is_ok_and(|now| now >= PAST) {
        return Finding::ok(ID, TITLE, "plausible");
    }
    Finding::lacks(ID, TITLE, State::Degraded, "before 2025", "downloads fail: certificates seem not to be valid yet")
        .script("sudo timedatectl set-ntp true")
}

/// What is around us. Nothing of it is a fault in itself: what it forbids, the other probes find.
pub(super) fn container(facts: &Facts) -> Finding {
    const ID: &str = "container";
    const TITLE: &str = "surroundings";
    let marks = [("/.dockerenv", "docker"), ("/run/.containerenv", "podman")];
    let mark = marks.iter().find(|(path, _)| Path::new(path).exists()).map(|(_, name)| (*name).to_owned());
    let told = std::fs::read_to_string("/run/systemd/container").ok().map(|t| t.trim().to_owned());
    match facts.container.clone().or(mark).or(told).filter(|name| !name.is_empty()) {
        Some(name) => {
            Finding::ok(ID, TITLE, format!("inside a container ({name}): what it forbids, cells cannot do either"))
        }
        None => Finding::ok(ID, TITLE, "no container around"),
    }
}

pub(super) fn security_modules() -> Finding {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let detail = modules(
        &read("/sys/kernel/security/lsm"),
        &read("/proc/self/attr/current"),
        &read("/sys/fs/selinux/enforce"),
        Path::new("/sys/module/apparmor").exists(),
    );
    Finding::ok("security-modules", "security modules", detail)
}

/// In words: the list of modules, this process's label, and SELinux's and AppArmor's own signs, for the list is often closed to people.
fn modules(list: &str, label: &str, selinux: &str, apparmor: bool) -> String {
    let has = |name: &str| list.trim().split(',').any(|module| module == name);
    let label = label.trim_matches(['\0', '\n', ' ']);
    let mut words = Vec::new();
    match selinux.trim() {
        "1" => words.push(format!("SELinux enforcing ({label})")),
        "0" => words.push("SELinux permissive".to_owned()),
        _ if has("selinux") => words.push("SELinux".to_owned()),
        _ => {}
    }
    if has("apparmor") || apparmor {
        words.push(match label {
            "" => "AppArmor".to_owned(),
            label => format!("AppArmor ({label})"),
        });
    }
    words.extend(["landlock", "yama", "tomoyo", "smack"].iter().filter(|name| has(name)).map(|&name| name.to_owned()));
    if words.is_empty() { "none seen".into() } else { words.join(", ") }
}

/// Whether systemd runs this host (sd_booted(3)).
fn booted() -> bool {
    Path::new("/run/systemd/system").is_dir()
}

pub(super) fn systemd(facts: &Facts) -> Finding {
    const ID: &str = "systemd";
    const TITLE: &str = "systemd";
    match cgroup::systemd_answers(facts.real_root) {
        None => Finding::ok(ID, TITLE, "does not run this host; not needed"),
        Some(Ok(())) => Finding::ok(ID, TITLE, if facts.real_root { "answers (system)" } else { "answers (user)" }),
        Some(Err(said)) => {
            let cost = "limits need a group that was handed down in another way";
            Finding::lacks(ID, TITLE, State::Degraded, format!("runs this host, but does not answer: {said}"), cost)
                .script(format!("sudo loginctl enable-linger {}", super::fixes::quoted(&facts.user)))
                .note("a login by `su` or `sudo` has no session: log in by ssh or `machinectl shell`")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions() {
        for (release, numbers) in
            [("6.18.44-generic", (6, 18)), ("5.12", (5, 12)), ("4.18.0-553.el8_10.x86_64", (4, 18)), ("x", (0, 0))]
        {
            assert_eq!(version(release), numbers, "{release}");
        }
        assert!(version("5.4.0") < OLDEST && version("5.12.0") >= OLDEST && version("6.1.0") >= OLDEST);
    }

    #[test]
    fn modules_in_words() {
        for (list, label, selinux, apparmor, words) in [
            ("", "", "", false, "none seen"),
            ("capability,landlock,yama,apparmor", "unconfined\n", "", true, "AppArmor (unconfined), landlock, yama"),
            ("", "docker-default (enforce)\n", "", true, "AppArmor (docker-default (enforce))"),
            ("lockdown,selinux", "u:r:t:s0\0", "1", false, "SELinux enforcing (u:r:t:s0)"),
            ("selinux", "x", "0", false, "SELinux permissive"),
        ] {
            assert_eq!(modules(list, label, selinux, apparmor), words);
        }
    }
}
