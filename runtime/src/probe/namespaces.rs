//! Probes of namespaces: the two user namespaces, and what has to be made or mounted inside them.

use cellblock_egress::gateway::{Capture, GatewayError, Rung, Space};
use cellblock_sys::namespace;
use cellblock_sys::process::SingleThreaded;
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_flag, fsmount, fsopen};
use rustix::thread::UnshareFlags;

use super::child::{CAPABILITIES, Failure, MAP, Outcome, UNSHARE, enter, failed, in_cell, in_child};
use super::fixes::{apparmor_profile, sysctl};
use super::{Facts, Finding, State};

/// Makes a file system of a kind without attaching it anywhere: all checks of mount(2) but no place needed.
pub(super) fn mount(kind: &str, flags: &[&str]) -> Result<OwnedFd, Failure> {
    let make = || -> rustix::io::Result<OwnedFd> {
        let context = fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
        for flag in flags {
            fsconfig_set_flag(&context, *flag)?;
        }
        fsconfig_create(&context)?;
        fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())
    };
    make().map_err(|e| Failure::new(format!("mounting {kind}"), e))
}

fn setting(path: &str) -> Option<String> {
    std::fs::read_to_string(format!("/proc/sys/{path}")).ok().map(|t| t.trim().to_owned())
}

/// Whether a filter stands around this process, from the text of `/proc/self/status` (proc(5)).
fn filtered(status: &str) -> bool {
    status.lines().any(|line| line.strip_prefix("Seccomp:").is_some_and(|mode| mode.trim() == "2"))
}

const TITLE: &str = "user namespaces";
const NO_CELL: &str = "no cell can start";

/// Makes OUTER as a start does, with the person's own ids only, and mounts something in it. Real root has OUTER for the asking and makes
/// the cell's namespace instead.
#[must_use]
pub fn user_namespaces(facts: &Facts, alone: &SingleThreaded) -> Finding {
    const ID: &str = "user-namespaces";
    let ids = &facts.single;
    let outcome = in_child(alone, |alone| {
        enter(ids, alone)?;
        if ids.rootless() {
            // AppArmor's restriction lets the namespace be made and takes its capabilities away.
            mount("tmpfs", &[]).map_err(|e| Failure { what: CAPABILITIES.into(), ..e })?;
            return Ok(String::new());
        }
        in_cell(alone, ids, UnshareFlags::NEWNS, |_| mount("tmpfs", &[]).map(|_| String::new()))
    });
    match outcome {
        Ok(_) if facts.real_root => Finding::ok(ID, TITLE, "can be made, and mounted in"),
        Ok(_) => Finding::ok(ID, TITLE, "can be made without privilege, and mounted in"),
        Err(failure) => refused(ID, TITLE, &failure, facts),
    }
}

/// The cell's user namespace inside OUTER. Real root's cells have only one, which [`user_namespaces`] has tried.
#[must_use]
pub fn nested_user_namespaces(facts: &Facts, alone: &SingleThreaded) -> Finding {
    const ID: &str = "nested-user-namespaces";
    const TITLE: &str = "one inside another";
    let ids = &facts.single;
    if !ids.rootless() {
        return Finding::ok(ID, TITLE, "not needed by root");
    }
    let outcome = in_child(alone, |alone| {
        enter(ids, alone)?;
        in_cell(alone, ids, UnshareFlags::NEWNS, |_| mount("tmpfs", &[]).map(|_| String::new()))
    });
    match outcome {
        Ok(_) => Finding::ok(ID, TITLE, "can be made, and mounted in"),
        Err(failure) => refused(ID, TITLE, &failure, facts),
    }
}

/// Why a user namespace was refused, and what mends that.
fn refused(id: &'static str, title: &'static str, failure: &Failure, facts: &Facts) -> Finding {
    let missing = |detail: String| Finding::lacks(id, title, State::Missing, detail, NO_CELL);
    let restricted = setting("kernel/apparmor_restrict_unprivileged_userns").as_deref() == Some("1");
    if failure.denied() && restricted && failure.what != UNSHARE && !facts.real_root {
        return missing("AppArmor lets them be made but takes their capabilities away (Ubuntu 23.10 and later)".into())
            .script(apparmor_profile(&facts.program));
    }
    if failure.is(Errno::NOSPC) {
        let max = setting("user/max_user_namespaces").unwrap_or_else(|| "unknown".into());
        return match max.parse::<u32>() {
            Ok(n) if n < 1000 => missing(format!("none left: user.max_user_namespaces is {n}"))
                .script(sysctl("user.max_user_namespaces", "28633"))
                .note("inside a container or a user namespace, this is to be set on the host"),
            _ => missing(format!(
                "none left: nested more than 32 deep, which is the kernel's limit, or user.max_user_namespaces ({max}) used up"
            ))
            .note("start cellblock with fewer user namespaces around it"),
        };
    }
    if failure.is(Errno::PERM) && failure.what == UNSHARE {
        return forbidden(missing, facts);
    }
    if failure.is(Errno::INVAL) && !std::path::Path::new("/proc/self/ns/user").exists() {
        return missing("the kernel was built without them (CONFIG_USER_NS)".into());
    }
    if failure.denied() && failure.what.starts_with(MAP) {
        return missing(format!("the id mapping is refused ({failure})"))
            .note("root of a container without CAP_SETUID, or a security module, does this: start cellblock as an ordinary user");
    }
    missing(failure.to_string())
}

fn forbidden(missing: impl Fn(String) -> Finding, facts: &Facts) -> Finding {
    if !facts.real_root && setting("kernel/unprivileged_userns_clone").as_deref() == Some("0") {
        return missing("kernel.unprivileged_userns_clone is 0".into())
            .script(sysctl("kernel.unprivileged_userns_clone", "1"));
    }
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    if filtered(&status) {
        return missing("a seccomp filter around this process forbids them, as container engines' do".into()).note(
            "start the container with `--security-opt seccomp=unconfined` (podman, docker), or with a profile that allows \
             clone, clone3, unshare, setns and mount",
        );
    }
    missing("the kernel refuses them (EPERM)".into()).note(
        "a chroot(2), SELinux (`setsebool -P user_namespace 1`) or another security module does this; `dmesg` may tell which",
    )
}

/// What a cell makes and mounts in its own namespaces.
pub(super) fn inside(facts: &Facts, alone: &SingleThreaded) -> Vec<Finding> {
    vec![
        own_namespaces(facts, alone),
        network(facts, alone),
        network_by_name(facts, alone),
        network_of_all_ports(facts, alone),
        proc(facts, alone),
        cgroup2(facts, alone),
        terminals(facts, alone),
    ]
}

/// Does something in the cell's user namespace, with a mount namespace and `more`.
fn in_new_cell(
    facts: &Facts,
    alone: &SingleThreaded,
    more: UnshareFlags,
    work: impl FnOnce(&SingleThreaded) -> Outcome,
) -> Outcome {
    let ids = facts.ids();
    in_child(alone, |alone| {
        enter(ids, alone)?;
        in_cell(alone, ids, UnshareFlags::NEWNS | more, work)
    })
}

fn own_namespaces(facts: &Facts, alone: &SingleThreaded) -> Finding {
    const ID: &str = "namespaces";
    const TITLE: &str = "the cell's namespaces";
    let kinds = [
        ("pid", UnshareFlags::NEWPID),
        ("ipc", UnshareFlags::NEWIPC),
        ("uts", UnshareFlags::NEWUTS),
        ("cgroup", UnshareFlags::NEWCGROUP),
    ];
    let outcome = in_new_cell(facts, alone, UnshareFlags::empty(), |_| {
        for (name, flag) in kinds {
            namespace::unshare(flag).map_err(|e| Failure::new(format!("making a {name} namespace"), e))?;
        }
        Ok(String::new())
    });
    match outcome {
        Ok(_) => Finding::ok(ID, TITLE, "mount, pid, ipc, uts and cgroup can be made"),
        Err(failure) => Finding::lacks(ID, TITLE, State::Missing, failure.to_string(), NO_CELL)
            .note("a kernel with CONFIG_PID_NS, CONFIG_IPC_NS, CONFIG_UTS_NS and CONFIG_CGROUPS; or `user.max_*_namespaces` is 0"),
    }
}

fn network(facts: &Facts, alone: &SingleThreaded) -> Finding {
    const ID: &str = "network-namespace";
    const TITLE: &str = "a network of its own";
    match in_new_cell(facts, alone, UnshareFlags::NEWNET, |_| Ok(String::new())) {
        Ok(_) => Finding::ok(ID, TITLE, "can be made"),
        Err(failure) => Finding::lacks(
            ID,
            TITLE,
            State::Missing,
            failure.to_string(),
            "only cells that share the host's network (`--network host`) can start",
        )
        .note("a kernel with CONFIG_NET_NS, and `user.max_net_namespaces` above 0"),
    }
}

/// The rung by which this host can catch what is wanted, by making the network: in the namespaces of a cell, for here only the kernel is asked.
fn rung(facts: &Facts, alone: &SingleThreaded, wanted: Capture) -> Result<Rung, String> {
    let outcome = in_new_cell(facts, alone, UnshareFlags::NEWNET, |_| {
        cellblock_sys::net::loopback_up().map_err(|e| Failure::new("loopback", e))?;
        let made = std::fs::File::open("/proc/self/ns/net")
            .map_err(|e| GatewayError::Check(e.to_string()))
            .and_then(|cell| Space::new()?.join(&cell.into(), wanted, &Rung::ALL));
        // As words: what fails may be more than one system call.
        Ok(match made {
            Ok(gateway) => gateway.rung().map(Rung::name).unwrap_or_default().to_owned(),
            Err(error) => error.to_string(),
        })
    });
    let said = outcome.map_err(|failure| failure.to_string())?;
    said.parse().map_err(|_| said)
}

/// The network by name, for rules that list their ports.
fn network_by_name(facts: &Facts, alone: &SingleThreaded) -> Finding {
    const ID: &str = "network-names";
    const TITLE: &str = "network by name";
    const VETH: &str = "a kernel with CONFIG_VETH (`sudo modprobe veth`)";
    let lacks = |detail: String, cost| Finding::lacks(ID, TITLE, State::Degraded, detail, cost).note(VETH);
    match rung(facts, alone, Capture::Ports(vec![443])) {
        Ok(rung @ Rung::LoBind) => lacks(
            format!("neither veth devices nor nf_tables for it: the network listens in the cell itself ({rung})"),
            "programs in a cell cannot listen on the ports that its rules open, nor on 53",
        ),
        Ok(rung) if rung.is_in_cell() => lacks(
            format!("no veth devices: the network listens in the cell itself ({rung})"),
            "programs in a cell cannot listen on port 53",
        ),
        Ok(rung) => Finding::ok(ID, TITLE, format!("a gateway can be made ({rung})")),
        Err(why) => lacks(why, "cells have no network (`--net none`), or share the host's (`--net host`)"),
    }
}

/// The same for rules that open all ports.
fn network_of_all_ports(facts: &Facts, alone: &SingleThreaded) -> Finding {
    const ID: &str = "network-all-ports";
    const TITLE: &str = "rules for all ports";
    match rung(facts, alone, Capture::Everything) {
        Ok(rung) => Finding::ok(ID, TITLE, format!("all ports can be caught ({rung})")),
        Err(why) => {
            let cost = "cells whose rules open all ports of a name, or more than 256, do not start";
            Finding::lacks(ID, TITLE, State::Degraded, why, cost)
                .note("install the package nftables; a kernel with nf_tables and CONFIG_NFT_TPROXY, or CONFIG_NFT_REDIR and CONFIG_NF_NAT")
        }
    }
}

fn proc(facts: &Facts, alone: &SingleThreaded) -> Finding {
    const ID: &str = "proc";
    const TITLE: &str = "/proc of its own";
    let outcome = in_new_cell(facts, alone, UnshareFlags::NEWPID, |alone| {
        // The namespace holds those born after it was made.
        in_child(alone, |_| mount("proc", &[]).map(|_| String::new()))
    });
    match outcome {
        Ok(_) => Finding::ok(ID, TITLE, "can be mounted in a pid namespace"),
        Err(failure) if failure.is(Errno::PERM) => Finding::lacks(
            ID,
            TITLE,
            State::Missing,
            "parts of /proc are masked around this process, as container engines do: the kernel then refuses another one",
            NO_CELL,
        )
        .note("start the container with `--security-opt systempaths=unconfined` (docker) or `--security-opt unmask=ALL` (podman)"),
        Err(failure) => Finding::lacks(ID, TITLE, State::Missing, failure.to_string(), NO_CELL),
    }
}

fn cgroup2(facts: &Facts, alone: &SingleThreaded) -> Finding {
    const ID: &str = "cgroup2";
    const TITLE: &str = "cgroup2 inside";
    let ids = facts.ids();
    let outcome = in_child(alone, |alone| {
        enter(ids, alone)?;
        mount("cgroup2", &[]).map(|_| String::new())
    });
    match outcome {
        Ok(_) => Finding::ok(ID, TITLE, "can be mounted"),
        Err(failure) => Finding::lacks(ID, TITLE, State::Missing, failure.to_string(), NO_CELL)
            .note("a kernel with CONFIG_CGROUPS; in a container, /sys/fs/cgroup must not be masked"),
    }
}

fn terminals(facts: &Facts, alone: &SingleThreaded) -> Finding {
    const ID: &str = "terminals";
    const TITLE: &str = "terminals";
    let outcome = in_new_cell(facts, alone, UnshareFlags::empty(), |_| {
        let devpts = mount("devpts", &["newinstance"])?;
        let flags = rustix::fs::OFlags::RDWR | rustix::fs::OFlags::NOCTTY | rustix::fs::OFlags::CLOEXEC;
        rustix::fs::openat(&devpts, c"ptmx", flags, rustix::fs::Mode::empty())
            .map(|_| String::new())
            .or_else(|e| if e == Errno::ACCESS { Ok(String::new()) } else { Err(e) })
            .map_err(failed("opening a terminal"))
    });
    match outcome {
        Ok(_) => Finding::ok(ID, TITLE, "devpts of its own can be mounted"),
        Err(failure) => Finding::lacks(ID, TITLE, State::Missing, failure.to_string(), NO_CELL)
            .note("a kernel with CONFIG_UNIX98_PTYS"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_is_seen_in_the_status() {
        for (text, yes) in [
            ("Name:\tx\nSeccomp:\t2\nSeccomp_filters:\t1\n", true),
            ("Seccomp:\t0\n", false),
            ("Seccomp:\t1\n", false),
            ("", false),
        ] {
            assert_eq!(filtered(text), yes, "{text}");
        }
    }
}
