//! Files in folders that a cell can write: by descriptor, one name at a time, never through a link.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path};

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, RenameFlags, ResolveFlags, Stat, Uid};
use rustix::io::Errno;

use super::seen::{Sight, Stamp, Tick};

/// Who gets what is made; nobody where only one id exists.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Owner(pub(super) Option<(u32, u32)>);

impl Owner {
    fn give(self, fd: BorrowedFd<'_>) -> io::Result<()> {
        match self.0 {
            Some((uid, gid)) => Ok(rustix::fs::fchown(fd, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?),
            None => Ok(()),
        }
    }
}

/// No login and no settings file is larger.
pub(super) const MOST: u64 = 64 << 20;

/// How often it is tried again when a program comes in between: each time takes as long as the file takes to be read, microseconds for a login.
pub(super) const MOST_TURNS: u32 = 64;

/// How a folder of a name is opened for reading.
const FOLDER: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// What the entry `name` is, if it is there.
pub(super) fn look(folder: BorrowedFd<'_>, name: &Path) -> io::Result<Option<Stat>> {
    match rustix::fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(stat)),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// How the regular file `name` is, if it is one. Its content is looked at where the stamp alone would not show a change: it is too fresh, or was when
/// `known` was remembered.
pub(super) fn sight(folder: BorrowedFd<'_>, name: &Path, known: Option<Sight>) -> io::Result<Option<(Stat, Sight)>> {
    // Before the look: what is written from here on has a later time, or a stamp that does not tell.
    let tick = Tick::now();
    let Some(stat) = look(folder, name)?.filter(|stat| kind(stat).is_file()) else { return Ok(None) };
    let stamp = Stamp::of(&stat);
    let content = known.filter(|known| known.stamp == stamp).and_then(|known| known.content);
    if stamp.would_tell(tick) && content.is_none() {
        return Ok(Some((stat, Sight { stamp, content: None })));
    }
    match read(folder, name, MOST) {
        Ok((bytes, stat)) => Ok(Some((stat, Sight::new(Stamp::of(&stat), &bytes)))),
        Err(error) if super::tree::is_missing(&error) => Ok(None),
        // Too large, or not readable: whoever has to read it says so.
        Err(_) => Ok(Some((stat, Sight { stamp, content }))),
    }
}

/// The kind of what was looked at.
pub(super) fn kind(stat: &Stat) -> FileType {
    FileType::from_raw_mode(stat.st_mode)
}

/// The folder `name`, which must be one.
pub(super) fn folder(above: BorrowedFd<'_>, name: &Path) -> io::Result<OwnedFd> {
    Ok(rustix::fs::openat(above, name, FOLDER, Mode::empty())?)
}

/// The folder `name`, made if nothing is there.
pub(super) fn make_folder(above: BorrowedFd<'_>, name: &Path, mode: u32, owner: Owner) -> io::Result<OwnedFd> {
    match rustix::fs::mkdirat(above, name, Mode::from_raw_mode(mode)) {
        Ok(()) => {
            let made = folder(above, name)?;
            rustix::fs::fchmod(&made, Mode::from_raw_mode(mode))?;
            owner.give(made.as_fd())?;
            Ok(made)
        }
        Err(Errno::EXIST) => folder(above, name),
        Err(error) => Err(error.into()),
    }
}

/// The folder `path` below `top`, which must be one.
pub(super) fn path(top: BorrowedFd<'_>, path: &Path) -> io::Result<OwnedFd> {
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    Ok(cellblock_sys::scoped::openat2(top, path, FOLDER, Mode::empty(), resolve)?)
}

/// The folder `path` below `top`, with what is missing of it made.
pub(super) fn make_path(top: BorrowedFd<'_>, path: &Path, owner: Owner) -> io::Result<OwnedFd> {
    let mut here = rustix::io::fcntl_dupfd_cloexec(top, 0)?;
    for part in path.components() {
        match part {
            Component::Normal(name) => here = make_folder(here.as_fd(), name.as_ref(), 0o700, owner)?,
            Component::RootDir | Component::CurDir => {}
            _ => return Err(io::ErrorKind::InvalidInput.into()),
        }
    }
    // For entries to be read: what was opened above may be a path only.
    Ok(cellblock_sys::scoped::openat2(&here, ".", FOLDER, Mode::empty(), ResolveFlags::BENEATH)?)
}

/// The regular file `name` for reading, with its data.
pub(super) fn open(folder: BorrowedFd<'_>, name: &Path) -> io::Result<(std::fs::File, Stat)> {
    // Non-blocking: it might be a pipe.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let fd = rustix::fs::openat(folder, name, flags, Mode::empty())?;
    let stat = rustix::fs::fstat(&fd)?;
    if !kind(&stat).is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no regular file"));
    }
    Ok((fd.into(), stat))
}

/// The content of the regular file `name`, of at most `most` bytes.
pub(super) fn read(folder: BorrowedFd<'_>, name: &Path, most: u64) -> io::Result<(Vec<u8>, Stat)> {
    let (file, stat) = open(folder, name)?;
    let too_large = || io::Error::new(io::ErrorKind::FileTooLarge, "it is too large");
    if u64::try_from(stat.st_size).is_ok_and(|size| size > most) {
        return Err(too_large());
    }
    // All of it in one read, and one more that finds the end.
    let size = u64::try_from(stat.st_size).unwrap_or(0).min(most);
    let mut bytes = Vec::with_capacity(usize::try_from(size).unwrap_or(0) + 1);
    file.take(most + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > most {
        return Err(too_large());
    }
    Ok((bytes, stat))
}

/// The name under which a new content of `name` is prepared. Always the same: what a kill leaves is overwritten by the next.
fn temporary(name: &Path) -> std::path::PathBuf {
    let mut text = std::ffi::OsString::from(".");
    text.push(name.as_os_str());
    text.push(".cellblock");
    text.into()
}

/// Removes what a killed process has prepared for `name`.
pub(super) fn tidy(folder: BorrowedFd<'_>, name: &Path) -> io::Result<()> {
    cellblock_sys::tree::remove(folder, temporary(name).as_os_str())
}

/// Puts a file in the place of `name`, at once, whatever is there: `fill` writes it.
pub(super) fn replace(
    folder: BorrowedFd<'_>,
    name: &Path,
    mode: u32,
    owner: Owner,
    fill: impl FnOnce(&mut std::fs::File) -> io::Result<()>,
) -> io::Result<Stat> {
    let new = temporary(name);
    cellblock_sys::tree::remove(folder, new.as_os_str())?;
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut file = std::fs::File::from(rustix::fs::openat(folder, &new, flags, Mode::RUSR | Mode::WUSR)?);
    let done = fill(&mut file)
        .and_then(|()| Ok(rustix::fs::fchmod(&file, Mode::from_raw_mode(mode & 0o777 | 0o600))?))
        .and_then(|()| owner.give(file.as_fd()))
        .and_then(|()| Ok(rustix::fs::renameat(folder, &new, folder, name)?));
    match done {
        Ok(()) => Ok(rustix::fs::fstat(&file)?),
        Err(error) => {
            let _ = rustix::fs::unlinkat(folder, &new, AtFlags::empty());
            Err(error)
        }
    }
}

/// The same with these bytes.
pub(super) fn write(folder: BorrowedFd<'_>, name: &Path, bytes: &[u8], mode: u32, owner: Owner) -> io::Result<Stat> {
    replace(folder, name, mode, owner, |file| file.write_all(bytes))
}

/// Puts these bytes in the place of `name` if that is `expected` still, or is not there still; nothing if it is not.
pub(super) fn write_over(
    folder: BorrowedFd<'_>,
    name: &Path,
    expected: Option<Sight>,
    (bytes, mode, owner): (&[u8], u32, Owner),
) -> io::Result<Option<Sight>> {
    let new = temporary(name);
    let made = write(folder, &new, bytes, mode, owner)?;
    Ok(swap(folder, &new, name, expected)?.then(|| Sight::new(Stamp::of(&made), bytes)))
}

/// Makes `name` in `to` the very file that `from` has in `folder`, if it is `expected` still, or is not there still.
pub(super) fn link_over(
    (folder, from): (BorrowedFd<'_>, &Path),
    (to, name): (BorrowedFd<'_>, &Path),
    expected: Option<Sight>,
) -> io::Result<Option<Stamp>> {
    let new = temporary(name);
    cellblock_sys::tree::remove(to, new.as_os_str())?;
    rustix::fs::linkat(folder, from, to, &new, AtFlags::empty())?;
    let Some(linked) = look(to, &new)? else { return Ok(None) };
    Ok(swap(to, &new, name, expected)?.then(|| Stamp::of(&linked)))
}

/// Puts `new` in the place of `name`. Both change places first, so that what was there can be looked at: if a program has put something else there in
/// the meantime, that goes back, and nothing of it is lost. Its stamp may be the same: inodes are given out again at once, and file times stand still.
fn swap(folder: BorrowedFd<'_>, new: &Path, name: &Path, expected: Option<Sight>) -> io::Result<bool> {
    let flags = if expected.is_some() { RenameFlags::EXCHANGE } else { RenameFlags::NOREPLACE };
    let ours = hold(folder, new)?;
    let done = match (rustix::fs::renameat_with(folder, new, folder, name, flags), expected) {
        (Ok(()), None) => return Ok(true),
        (Ok(()), Some(expected)) => {
            let there = sight(folder, new, Some(expected))?;
            // Once more: it may have been written while it was read.
            let still =
                || look(folder, new).is_ok_and(|stat| stat.is_some_and(|stat| Stamp::of(&stat) == expected.stamp));
            let same = there.is_some_and(|(_, there)| there.is(&expected)) && still();
            if !same {
                give_back(folder, new, name, ours)?;
            }
            same
        }
        (Err(Errno::EXIST | Errno::NOENT), _) => false,
        // The file system cannot do it at once.
        (Err(Errno::INVAL), _) => {
            rustix::fs::renameat(folder, new, folder, name)?;
            return Ok(true);
        }
        (Err(error), _) => return Err(error.into()),
    };
    cellblock_sys::tree::remove(folder, new.as_os_str())?;
    Ok(done)
}

/// Makes `name` again what it was before it and `new` changed places, which put `ours` there. What a program puts there meanwhile came later, and
/// stays; of `new` nobody needs anything in the end.
fn give_back(folder: BorrowedFd<'_>, new: &Path, name: &Path, ours: OwnedFd) -> io::Result<()> {
    let mut put = ours;
    for _ in 0..MOST_TURNS {
        let back = hold(folder, new)?;
        match rustix::fs::renameat_with(folder, new, folder, name, RenameFlags::EXCHANGE) {
            // Removed: that was later, too.
            Err(Errno::NOENT) => return Ok(()),
            other => other?,
        }
        let got = hold(folder, new)?;
        if is_one_file(&rustix::fs::fstat(&got)?, &rustix::fs::fstat(&put)?) {
            return Ok(());
        }
        put = back;
    }
    Err(io::Error::new(io::ErrorKind::ResourceBusy, "it is replaced all the time"))
}

/// The entry `name`, whatever it is: as long as this is open nothing else has its inode.
fn hold(folder: BorrowedFd<'_>, name: &Path) -> io::Result<OwnedFd> {
    Ok(rustix::fs::openat(folder, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?)
}

/// Whether both are names of one file.
pub(super) fn is_one_file(one: &Stat, other: &Stat) -> bool {
    (one.st_dev, one.st_ino) == (other.st_dev, other.st_ino)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn what_was_put_in_between_stays() {
        let dir = tempfile::tempdir().expect("a folder");
        let folder = fs::File::open(dir.path()).expect("open");
        let path = |name: &str| dir.path().join(name);
        let write = |name: &str, text: &str| fs::write(path(name), text).expect("write");
        let run = |later: Option<&str>| {
            // As after the first exchange.
            write("login", "ours");
            write(".new", "the program's");
            let ours = hold(folder.as_fd(), Path::new("login")).expect("there");
            if let Some(later) = later {
                write("x", later);
                fs::rename(path("x"), path("login")).expect("mv");
            }
            give_back(folder.as_fd(), Path::new(".new"), Path::new("login"), ours).expect("given back");
            (fs::read_to_string(path("login")).expect("read"), fs::read_to_string(path(".new")).expect("read"))
        };
        assert_eq!(run(None), ("the program's".into(), "ours".into()));
        assert_eq!(run(Some("later")), ("later".into(), "the program's".into()));
    }
}
