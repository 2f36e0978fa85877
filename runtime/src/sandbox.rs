//! The sandbox of our own processes that read what a cell sends: the network's, and its helper.
//!
//! They have no capabilities by then. A filter of system calls takes what is left of ways to other processes and programs; Landlock, where
//! the kernel has it, takes the person's files. Both are for good.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cellblock_bundle::seccomp::{self, Program};
use cellblock_egress::serve::Ready;
use cellblock_sys::landlock::{Ruleset, access};
use rustix::fs::{CWD, Mode, OFlags};

/// What the host's resolver reads, and where its modules lie. What is not there is left out.
const READ: &[&str] = &[
    "/etc",
    "/gnu/store",
    "/lib",
    "/lib32",
    "/lib64",
    "/nix/store",
    "/run",
    "/sys/devices/system/cpu",
    "/usr",
    "/var/cache/nscd",
    "/var/db/nscd",
    "/var/lib/extrausers",
    "/var/lib/sss",
    "/dev/null",
    // Where `getrandom` cannot find the C library's function, as in a static program, it waits on the first for the second to be seeded.
    "/dev/random",
    "/dev/urandom",
];

/// Files of the resolver that may be links to somewhere else, and are replaced there.
const LINKS: &[&str] =
    &["/etc/gai.conf", "/etc/host.conf", "/etc/hosts", "/etc/nsswitch.conf", "/etc/resolv.conf", "/etc/services"];

/// Confines all threads of the network's process, and those that they start. `audit` is the file that it writes.
///
/// # Errors
/// If the filter cannot be loaded.
pub(crate) fn confine(ready: &mut Ready, audit: &Path) -> io::Result<()> {
    let files = audit.parent().ok_or(io::ErrorKind::InvalidInput.into()).and_then(files);
    if files.is_err() {
        ready.lacks("no Landlock");
    }
    let both = Arc::new((files.ok(), seccomp::network()));
    ready.on_every_thread(move || {
        let (files, program) = &*both;
        files.as_ref().map_or(Ok(()), Ruleset::restrict_this_thread)?;
        load(program)
    })
}

/// The same for the helper, which has to see other processes: with Landlock it would not.
///
/// # Errors
/// If the filter cannot be loaded.
pub(crate) fn confine_helper() -> io::Result<()> {
    load(&seccomp::who())
}

/// Loads a filter for this thread.
///
/// # Errors
/// Those of `seccomp(2)`.
pub(crate) fn load(program: &Program) -> io::Result<()> {
    cellblock_sys::seccomp::load(program.instructions().iter().map(|i| (i.code, i.jt, i.jf, i.k)))
}

/// The files that the network's process may open: to read what the resolver needs, and to write into the folder of audits.
fn files(audits: &Path) -> io::Result<Ruleset> {
    let rules = Ruleset::new()?;
    let folders = LINKS.iter().filter_map(|link| std::fs::canonicalize(link).ok()?.parent().map(Path::to_owned));
    // All of the file system, or somebody's home, would be too much for the sake of a link.
    let folders = folders.filter(|folder| folder.components().count() > 2);
    for path in READ.iter().map(PathBuf::from).chain(folders) {
        let Ok(beneath) = open(&path) else { continue };
        let folder = rustix::fs::fstat(&beneath).is_ok_and(|s| rustix::fs::FileType::from_raw_mode(s.st_mode).is_dir());
        rules.allow(&beneath, access::READ_FILE | if folder { access::READ_DIR } else { 0 })?;
    }
    let write = access::READ_FILE | access::WRITE_FILE | access::MAKE_REG | access::REMOVE_FILE;
    rules.allow(open(audits)?, write)?;
    Ok(rules)
}

fn open(path: &Path) -> io::Result<rustix::fd::OwnedFd> {
    Ok(rustix::fs::openat(CWD, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_confined_thread_has_the_files_that_it_needs_and_no_others() {
        let dir = tempfile::tempdir().expect("a folder");
        let (audits, other) = (dir.path().join("audits"), dir.path().join("other"));
        std::fs::create_dir_all(&audits).expect("a folder");
        std::fs::write(&other, "the person's").expect("a file");
        // A container's root may be without the one or the other.
        let needed = ["/etc/hosts", "/etc/nsswitch.conf", "/etc/passwd"].into_iter();
        let needed: Vec<_> = needed.filter(|file| std::fs::read(file).is_ok()).collect();
        assert!(!needed.is_empty(), "the probe works");
        let Ok(rules) = files(&audits) else {
            assert!(cellblock_sys::landlock::version().is_err(), "only a kernel without Landlock is an excuse");
            return;
        };
        let confined = || {
            rustix::thread::set_no_new_privs(true).expect("set");
            assert!(std::fs::read(&other).is_ok(), "the probe works");
            rules.restrict_this_thread().expect("restricted");
            let denied = |error: io::Error| error.kind() == io::ErrorKind::PermissionDenied;
            assert!(std::fs::read(&other).is_err_and(denied));
            assert!(std::fs::write(dir.path().join("new"), "").is_err_and(denied));
            assert!(std::fs::write("/etc/cellblock-test", "").is_err_and(denied));
            assert!(std::fs::read_dir("/").is_err_and(denied) && std::fs::read_dir("/root").is_err());
            assert!(needed.iter().all(|file| std::fs::read(file).is_ok()));
            assert!(std::fs::File::open("/dev/random").is_ok() && std::fs::File::open("/dev/urandom").is_ok());
            // As the audit does when its file is full.
            for _ in 0..2 {
                std::fs::write(audits.join("c.jsonl"), "x").expect("written");
                std::fs::rename(audits.join("c.jsonl"), audits.join("c.jsonl.1")).expect("renamed");
            }
        };
        std::thread::scope(|scope| scope.spawn(confined).join()).expect("all of it holds");
    }
}
