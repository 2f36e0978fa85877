//! Opening what is at a path, and nothing outside of a folder.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use rustix::path::Arg;

/// How often the kernel is asked again. Beside two programs that do nothing but rename, one answer in seventy is [`Errno::AGAIN`].
const TRIES: usize = 1000;

/// `openat2(2)` (Linux 5.6), asked again where the kernel could not tell whether a `..` led out of `folder`: whatever is renamed or mounted
/// meanwhile, by anybody on the machine, makes it give up with [`Errno::AGAIN`] (its RESOLVE_BENEATH and RESOLVE_IN_ROOT). With `O_NONBLOCK` a file with
/// a lease has that answer too (fcntl(2)), and then in the end.
pub fn openat2(
    folder: impl AsFd,
    path: impl Arg + Copy,
    flags: OFlags,
    mode: Mode,
    resolve: ResolveFlags,
) -> rustix::io::Result<OwnedFd> {
    for _ in 1..TRIES {
        match ask(folder.as_fd(), path, flags, mode, resolve) {
            Err(Errno::AGAIN) => {}
            answer => return answer,
        }
    }
    ask(folder.as_fd(), path, flags, mode, resolve)
}

#[expect(clippy::disallowed_methods, reason = "this is the loop around it")]
fn ask(
    folder: impl AsFd,
    path: impl Arg,
    flags: OFlags,
    mode: Mode,
    resolve: ResolveFlags,
) -> rustix::io::Result<OwnedFd> {
    rustix::fs::openat2(folder, path, flags, mode, resolve)
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::atomic::{AtomicBool, Ordering};

    use rustix::fs::CWD;

    use super::*;

    #[test]
    fn a_parent_folder_is_found_while_others_rename() {
        let top = std::env::temp_dir().join(format!("cellblock-scoped-{}", std::process::id()));
        std::fs::create_dir_all(top.join("a/b/c")).expect("mkdir");
        let folder = rustix::fs::open(&top, OFlags::PATH, Mode::empty()).expect("open");
        let path = Path::new("a/b/c/../../b/c/../../../a/b/c/../..");
        let (flags, resolve) = (OFlags::PATH | OFlags::CLOEXEC, ResolveFlags::IN_ROOT);
        let done = AtomicBool::new(false);
        let (mut again, mut failed) = (0, 0);
        std::thread::scope(|scope| {
            for name in ["one", "other"] {
                let (done, from, to) = (&done, top.join(name), top.join(name).with_extension("new"));
                std::fs::create_dir(&from).expect("mkdir");
                scope.spawn(move || {
                    while !done.load(Ordering::Relaxed) {
                        rustix::fs::renameat(CWD, &from, CWD, &to).expect("rename");
                        rustix::fs::renameat(CWD, &to, CWD, &from).expect("rename");
                    }
                });
            }
            let begun = std::time::Instant::now();
            while again < 20 && begun.elapsed().as_secs() < 30 {
                again +=
                    usize::from(ask(&folder, path, flags, Mode::empty(), resolve).is_err_and(|e| e == Errno::AGAIN));
                failed += usize::from(openat2(&folder, path, flags, Mode::empty(), resolve).is_err());
            }
            done.store(true, Ordering::Relaxed);
        });
        assert_eq!(failed, 0);
        assert_eq!(again, 20, "the probe works: alone, it gives up");
        let parent = rustix::fs::open(std::env::temp_dir(), OFlags::PATH, Mode::empty()).expect("open");
        crate::tree::remove(parent.as_fd(), top.file_name().expect("a name")).expect("clean up");
    }
}
