//! The least that a rootless sandbox with an overlay root can cost on a machine: what `ci/bench` compares starts with.
//!
//! `floor COMMAND ARGS`: all namespaces, one id, an overlay of nothing over a file system in memory with the host's `/usr` bound into it, `/proc`,
//! one filter that allows everything. No checks, no state, no terminal, no cleaning up: nobody should use it for anything else.

use std::ffi::CString;
use std::io;
use std::os::unix::ffi::OsStrExt;

use cellblock_sys::namespace;
use cellblock_sys::process::{Fork, SingleThreaded, execve, exit_now};
use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags};
use rustix::process::WaitOptions;
use rustix::thread::UnshareFlags;

fn main() -> io::Result<()> {
    let argv: Vec<CString> =
        std::env::args_os().skip(1).map(|a| CString::new(a.as_bytes())).collect::<Result<_, _>>()?;
    let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
    let alone = SingleThreaded::prove()?;
    namespace::unshare(
        UnshareFlags::NEWUSER
            | UnshareFlags::NEWNS
            | UnshareFlags::NEWPID
            | UnshareFlags::NEWIPC
            | UnshareFlags::NEWUTS
            | UnshareFlags::NEWNET
            | UnshareFlags::NEWCGROUP,
    )?;
    std::fs::write("/proc/self/setgroups", "deny")?;
    std::fs::write("/proc/self/uid_map", format!("{uid} {uid} 1\n"))?;
    std::fs::write("/proc/self/gid_map", format!("{gid} {gid} 1\n"))?;
    match alone.fork()? {
        Fork::Child => {
            let error = inside(&argv).err();
            exit_now(error.and_then(|e| e.raw_os_error()).unwrap_or(1))
        }
        Fork::Parent(child) => {
            let status = rustix::process::waitpid(Some(child), WaitOptions::empty())?;
            exit_now(status.and_then(|(_, s)| s.exit_status()).unwrap_or(1))
        }
    }
}

fn inside(argv: &[CString]) -> io::Result<()> {
    use rustix::mount::{mount, mount_bind, mount_change};
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
    mount("floor", "/tmp", "tmpfs", MountFlags::NOSUID, None)?;
    for folder in ["lower", "upper", "work", "root"] {
        std::fs::create_dir(format!("/tmp/{folder}"))?;
    }
    for folder in ["usr", "proc", "old"] {
        std::fs::create_dir(format!("/tmp/lower/{folder}"))?;
    }
    for link in ["bin", "lib", "lib64"] {
        std::os::unix::fs::symlink(format!("usr/{link}"), format!("/tmp/lower/{link}"))?;
    }
    let options = c"lowerdir=/tmp/lower,upperdir=/tmp/upper,workdir=/tmp/work,userxattr,volatile";
    mount("overlay", "/tmp/root", "overlay", MountFlags::empty(), options)?;
    mount_bind("/usr", "/tmp/root/usr")?;
    mount("proc", "/tmp/root/proc", "proc", MountFlags::NOSUID, None)?;
    rustix::process::chdir("/tmp/root")?;
    rustix::process::pivot_root(".", "old")?;
    rustix::mount::unmount("/old", UnmountFlags::DETACH)?;
    rustix::thread::set_no_new_privs(true)?;
    cellblock_sys::seccomp::load([(0x06, 0, 0, 0x7fff_0000)])?;
    let program = argv.first().ok_or(io::ErrorKind::InvalidInput)?;
    Err(execve(program, argv, &[c"PATH=/usr/bin".to_owned()]))
}
