//! What a cell is denied whatever it asks for, as tables with a reason a row.

use crate::cell::Profile;

/// A row of a policy table.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// What it is about: a capability, a path.
    pub what: &'static str,
    /// Why it stands here.
    pub why: &'static str,
}

const fn row(what: &'static str, why: &'static str) -> Row {
    Row { what, why }
}

/// What *root inside* may keep in the `default` profile. Anybody else has no capability, and `no_new_privs` sees that none is
/// gained. All of them count only in the cell's user namespace.
pub const ROOT_CAPABILITIES: &[Row] = &[
    row("CAP_CHOWN", "package managers set owners while they unpack"),
    row("CAP_DAC_OVERRIDE", "root expects to write files of the cell's other users"),
    row("CAP_FOWNER", "as CAP_CHOWN, for modes and times"),
    row("CAP_FSETID", "keeps setgid directories as they are"),
    row("CAP_KILL", "root ends its children that run as another user"),
    row("CAP_NET_BIND_SERVICE", "servers on ports below 1024, in the cell's own network namespace"),
    row("CAP_SETFCAP", "packages carry file capabilities, which stay bound to this user namespace"),
    row("CAP_SETGID", "apk, apt and su change groups"),
    row("CAP_SETPCAP", "lets a service drop its bounding set"),
    row("CAP_SETUID", "apk, apt and su change users"),
    row("CAP_SYS_CHROOT", "apk and debootstrap run scripts in a chroot"),
];

/// Paths that read as empty (OCI `maskedPaths`).
pub const MASKED_PATHS: &[Row] = &[
    row("/proc/acpi", "hardware of the host"),
    row("/proc/asound", "hardware of the host"),
    row("/proc/interrupts", "keystroke timing of the host"),
    row("/proc/kcore", "the kernel's memory"),
    row("/proc/keys", "names of the person's keyrings"),
    row("/proc/latency_stats", "scheduling of other processes"),
    row("/proc/sched_debug", "names of other processes"),
    row("/proc/scsi", "hardware of the host"),
    row("/proc/timer_list", "names and timers of other processes"),
    row("/proc/timer_stats", "names and timers of other processes"),
    row("/sys/devices/virtual/powercap", "power side channel (PLATYPUS, CVE-2020-8694)"),
    row("/sys/firmware", "boot data, serial numbers"),
];

/// Paths that cannot be written (OCI `readonlyPaths`). A user namespace already denies most of it; this holds for root inside too.
pub const READONLY_PATHS: &[Row] = &[
    row("/proc/bus", "device buses"),
    row("/proc/fs", "file system tunables"),
    row("/proc/irq", "interrupt routing"),
    row("/proc/sys", "kernel settings; those of the cell's own namespaces are fixed at start"),
    row("/proc/sysrq-trigger", "kernel commands"),
];

/// The capabilities that `uid` keeps inside under `profile`: bounding, permitted and effective set alike.
#[must_use]
pub fn capabilities(profile: Profile, uid: u32) -> Vec<&'static str> {
    match profile {
        Profile::Default if uid == 0 => ROOT_CAPABILITIES.iter().map(|r| r.what).collect(),
        Profile::Default | Profile::Strict => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_sorted_and_give_reasons() {
        for table in [ROOT_CAPABILITIES, MASKED_PATHS, READONLY_PATHS] {
            assert!(table.is_sorted_by(|a, b| a.what < b.what), "{table:?}");
            assert!(table.iter().all(|r| !r.why.is_empty()));
        }
    }

    #[test]
    fn strict_never_keeps_more_than_default() {
        for uid in [0, 1000] {
            let default = capabilities(Profile::Default, uid);
            assert!(capabilities(Profile::Strict, uid).iter().all(|c| default.contains(c)));
        }
    }

    #[test]
    fn capabilities_that_reach_beyond_a_cell_are_never_kept() {
        for forbidden in [
            "CAP_SYS_ADMIN",
            "CAP_SYS_PTRACE",
            "CAP_NET_ADMIN",
            "CAP_NET_RAW",
            "CAP_MKNOD",
            "CAP_SYS_MODULE",
            "CAP_BPF",
        ] {
            assert!(!capabilities(Profile::Default, 0).contains(&forbidden), "{forbidden}");
        }
    }
}
