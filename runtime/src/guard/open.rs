//! Opening what may be changed, and making files.

use std::os::fd::OwnedFd;

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::carry::{GO_ON, Outcome, Step, Stop, Work};
use super::policy::Act;
use super::request::At;

/// `__O_TMPFILE`, without the `O_DIRECTORY` that comes with it.
const UNNAMED: OFlags = OFlags::TMPFILE.difference(OFlags::DIRECTORY);
/// What `open(2)` knows; it passes over the rest, which `openat2(2)` does not.
const KNOWN: OFlags = OFlags::ACCMODE
    .union(OFlags::APPEND)
    .union(OFlags::CREATE)
    .union(OFlags::DIRECT)
    .union(OFlags::DIRECTORY)
    .union(OFlags::DSYNC)
    .union(OFlags::EXCL)
    .union(OFlags::NOATIME)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::NONBLOCK)
    .union(OFlags::SYNC)
    .union(OFlags::TMPFILE)
    .union(OFlags::TRUNC);

impl Work<'_> {
    pub(super) fn open(&mut self, at: At, flags: OFlags, mode: u32) -> Step<()> {
        let writes = flags.intersects(OFlags::WRONLY | OFlags::RDWR | OFlags::TRUNC);
        if flags.intersects(UNNAMED) {
            return self.open_unnamed(at, flags, mode);
        }
        let fresh = flags.contains(OFlags::CREATE | OFlags::EXCL);
        let path = self.text(at.path)?;
        if matches!(path.as_slice(), b"/dev/null" | b"/dev/tty") {
            // By far the most frequent ones that are not guarded. If a chroot has others there, it finds them read-only.
            return Err(GO_ON);
        }
        let place = self.find_text(at, &path, !fresh && !flags.contains(OFlags::NOFOLLOW), None)?;
        if place.dots || place.slash {
            return Err(GO_ON);
        }
        self.begin_config(&place, flags)?;
        match place.kind() {
            None if !flags.contains(OFlags::CREATE) => return Err(Errno::NOENT.into()),
            Some(_) if fresh => return Err(Errno::EXIST.into()),
            Some(FileType::Symlink) => return Err(Errno::LOOP.into()),
            Some(FileType::Directory) => return Err(Errno::ISDIR.into()),
            // Reading what is there works on the read-only mount, but not if another thread removes it meanwhile: the kernel would have to make it.
            Some(FileType::RegularFile) if !writes => match self.allowed(&place, Act::Write) {
                // Not to be removed inside.
                Err(Stop::Outcome(Outcome::Denied { .. })) => return Err(GO_ON),
                other => other?,
            },
            Some(FileType::RegularFile) => self.allowed(&place, Act::Write)?,
            // Pipes, sockets, devices: the mount does not matter to them, and opening may wait.
            Some(_) => return Err(GO_ON),
            None => {
                self.take_umask()?;
                self.allowed(&place, Act::Make)?;
                // Of a file that nobody else can have made there is nothing to be found out. Not if somebody outside has made it meanwhile.
                let fresh = open_regular(&place.folder, &place.name, flags | OFlags::EXCL, mode);
                if let Some(made) = fresh.map(Some).or_else(|e| if e == Errno::EXIST { Ok(None) } else { Err(e) })? {
                    return Err(Stop::Outcome(Outcome::Opened(made)));
                }
            }
        }
        opened(&place.folder, &place.name, flags, mode)
    }

    /// A file without a name, in a folder.
    fn open_unnamed(&mut self, at: At, flags: OFlags, mode: u32) -> Step<()> {
        let mut path = self.text(at.path)?;
        path.extend_from_slice(b"/.");
        let place = self.find_text(at, &path, true, None)?;
        let folder = place.grip()?;
        self.take_umask()?;
        self.allowed(&place, Act::MakeDir)?;
        opened(&folder, b".", flags, mode)
    }
}

/// Opens a regular file that this makes or that is there, by this call and not `O_NOFOLLOW`: a file remembers how it was opened, and somebody
/// may look.
fn open_regular(folder: &OwnedFd, name: &[u8], flags: OFlags, mode: u32) -> rustix::io::Result<OwnedFd> {
    let makes = flags.intersects(OFlags::CREATE | UNNAMED);
    let mode = if makes { Mode::from_raw_mode(mode & 0o7777) } else { Mode::empty() };
    let ours = OFlags::CLOEXEC | OFlags::NOCTTY | OFlags::LARGEFILE;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    #[expect(
        clippy::disallowed_methods,
        reason = "a single name that is no link; EAGAIN is for the caller, of a file with a lease"
    )]
    rustix::fs::openat2(folder, name, (flags & KNOWN) | ours, mode, resolve)
}

/// Opens and hands over. Only ever a regular file: from a folder on the writable mount its owner could go on without us.
fn opened(folder: &OwnedFd, name: &[u8], flags: OFlags, mode: u32) -> Step<()> {
    // Not waiting, should somebody outside have put a pipe there meanwhile.
    let file = open_regular(folder, name, flags | OFlags::NONBLOCK, mode)?;
    if FileType::from_raw_mode(rustix::fs::fstat(&file)?.st_mode) != FileType::RegularFile {
        return Err(Errno::ISDIR.into());
    }
    if !flags.contains(OFlags::NONBLOCK) {
        let kept = OFlags::APPEND | OFlags::DIRECT | OFlags::NOATIME;
        rustix::fs::fcntl_setfl(&file, flags & kept)?;
    }
    Err(Stop::Outcome(Outcome::Opened(file)))
}
