//! git's configuration, where a cell may change what git remembers about branches ([`cellblock_bundle::branches`]).
//!
//! git writes a new file, `config.lock`, and renames it. Whoever has the file open could write to it after it was looked at, so the cell never has
//! one that becomes the configuration: what it gets for `config.lock` is memory, and nothing has that name. The rename is where it is
//! read, once, and held against what is there; then this process makes a `config.lock` of its own, which no cell may open or replace, and renames that.
//! git on the host and this process keep out of each other's way as two gits do, by that name.
//!
//! git on the host does not wait for that name. So it is there for as short as can be: what is written has no name until it is complete; and not
//! too often. When this process is killed meanwhile, whoever cleans up after the cell takes it away (`pledge`).

use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use cellblock_bundle::branches::{self, MOST};
use cellblock_bundle::{Mount, Protect};
use rustix::fs::{AtFlags, CWD, FileType, MemfdFlags, Mode, OFlags, RenameFlags};
use rustix::io::Errno;

use super::carry::{Outcome, Step, Stop, Work};
use super::place::{Place, magic};
use super::pledge::Pledges;
use super::request::Change;

/// The configuration's name in a git folder.
const CONFIG: &[u8] = b"config";
/// What git writes before.
pub(super) const LOCK: &[u8] = b"config.lock";

/// Most that are written at the same time. One that is never finished makes room for others.
const DRAFTS: usize = 8;

/// Least time between two replacements: git on the host gives up at once where it finds the lock.
const PACE: Duration = Duration::from_millis(50);

/// Whether `mount` is the cover of a configuration that is looked after here. A mount there would be in the way of the rename, and add nothing:
/// the folder is read-only for everybody but this process.
pub(crate) fn looks_after(protect: &Protect, mount: &Mount) -> bool {
    let Mount::Bind { target, writable: false, .. } = mount else { return false };
    target.file_name().is_some_and(|name| name.as_bytes() == CONFIG)
        && target.parent().is_some_and(|folder| protect.configs.contains(folder))
}

/// A new configuration in the making.
#[derive(Debug)]
struct Draft {
    /// The git folder.
    folder: Vec<u8>,
    /// Who writes it.
    thread: i32,
    text: File,
    /// The configuration when it was begun.
    old: Vec<u8>,
}

/// Those of a cell.
#[derive(Debug)]
pub(crate) struct Configs {
    /// The git folders, each with its path on the host.
    folders: BTreeMap<Vec<u8>, PathBuf>,
    drafts: VecDeque<Draft>,
    /// When the last one took the lock.
    last: Option<Instant>,
    pledges: Pledges,
}

impl Configs {
    pub(crate) fn new(protect: &Protect, mounts: &[Mount], pledges: Pledges) -> Self {
        let folder = |folder: &PathBuf| (folder.as_os_str().as_bytes().to_vec(), on_host(folder, mounts));
        Self { folders: protect.configs.iter().map(folder).collect(), drafts: VecDeque::new(), last: None, pledges }
    }

    /// Whether `place` is where git would write a new configuration.
    fn is_lock(&self, place: &Place) -> bool {
        place.name == LOCK && !place.slash && place.found.is_none() && self.folders.contains_key(folder(place))
    }

    /// What `thread` writes for `place`. Some programs finish in another thread than they begin in.
    fn position(&self, place: &Place, thread: i32) -> Option<usize> {
        if !self.is_lock(place) {
            return None;
        }
        let here = |draft: &Draft| draft.folder == folder(place);
        let own = self.drafts.iter().rposition(|draft| here(draft) && draft.thread == thread);
        own.or_else(|| self.drafts.iter().rposition(here))
    }
}

/// The call is answered.
const DONE: Stop = Stop::Outcome(Outcome::Done(Ok(())));

/// Each ends the call if it is about a configuration in the making, and otherwise does nothing.
impl Work<'_> {
    /// `place` is opened: a new configuration is begun, if git would write one there.
    pub(super) fn begin_config(&mut self, place: &Place, flags: OFlags) -> Step<()> {
        let begins = flags.contains(OFlags::CREATE | OFlags::EXCL) && flags.intersects(OFlags::WRONLY | OFlags::RDWR);
        if !begins || !self.worker.configs.is_lock(place) {
            return Ok(());
        }
        let Some((old, _)) = read(place)? else { return Ok(()) };
        let text = File::from(rustix::fs::memfd_create(c"config.lock", MemfdFlags::CLOEXEC)?);
        let theirs = text.try_clone()?;
        let drafts = &mut self.worker.configs.drafts;
        // One that was not finished is nobody's any more once its thread begins anew.
        drafts.retain(|draft| draft.thread != self.thread || draft.folder != folder(place));
        if drafts.len() == DRAFTS {
            drafts.pop_front();
        }
        drafts.push_back(Draft { folder: folder(place).to_vec(), thread: self.thread, text, old });
        Err(Stop::Outcome(Outcome::Opened(theirs.into())))
    }

    /// `place` gets another mode. One in the making has none: it will have the old one's.
    pub(super) fn pass_config(&self, place: &Place, how: Change) -> Step<()> {
        let passes = matches!(how, Change::Mode(_)) && self.worker.configs.position(place, self.thread).is_some();
        if passes { Err(DONE) } else { Ok(()) }
    }

    /// `place` is removed: it is given up.
    pub(super) fn drop_config(&mut self, place: &Place) -> Step<()> {
        let position = self.worker.configs.position(place, self.thread);
        let dropped = position.and_then(|at| self.worker.configs.drafts.remove(at));
        dropped.map_or(Ok(()), |_| Err(DONE))
    }

    /// `from` is renamed to `to`: the new configuration takes the place of the old one.
    pub(super) fn replace_config(&mut self, from: &Place, to: &Place, flags: RenameFlags) -> Step<()> {
        if to.name != CONFIG || to.slash || folder(to) != folder(from) || !flags.is_empty() {
            return Ok(());
        }
        let position = self.worker.configs.position(from, self.thread);
        let Some(draft) = position.and_then(|at| self.worker.configs.drafts.remove(at)) else { return Ok(()) };
        let mut new = vec![0; MOST + 1];
        let length = fill(&draft.text, &mut new)?;
        new.truncate(length);
        let (old, mode) = read(to)?.ok_or(Errno::NOENT)?;
        let denied = |why: branches::Refused| Outcome::Denied { path: to.path(), why: why.to_string() };
        branches::permits(&old, &new).map_err(|why| Stop::Outcome(denied(why)))?;
        // Somebody was faster, and what they changed would be lost.
        if old != draft.old {
            return Err(Errno::BUSY.into());
        }
        let last = &mut self.worker.configs.last;
        if let Some(rest) = last.and_then(|last| PACE.checked_sub(last.elapsed())) {
            std::thread::sleep(rest);
        }
        *last = Some(Instant::now());
        if !(self.waits)() {
            return Err(Errno::INTR.into());
        }
        // From here on git on the host waits, and so does another cell's guard. Where one of them is at it, the file is there already.
        let Configs { folders, pledges, .. } = &self.worker.configs;
        let at = folders.get(folder(to)).ok_or(Errno::NOENT)?;
        let replaced = lock(from.folder.as_fd(), &new, mode, &|file| pledges.make(at, file)).and_then(|()| {
            let replaced = replace(to, &old, mode);
            if replaced.is_err() {
                let _ = rustix::fs::unlinkat(&from.folder, LOCK, AtFlags::empty());
            }
            replaced
        });
        pledges.keep();
        replaced.and(Err(DONE))
    }
}

/// Puts the lock in the place of the configuration `to`, if that still is `old`.
fn replace(to: &Place, old: &[u8], mode: Mode) -> Step<()> {
    let is_as_it_was = read(to)?.is_some_and(|(now, its)| now == old && its == mode);
    if !is_as_it_was {
        return Err(Errno::BUSY.into());
    }
    Ok(rustix::fs::renameat(&to.folder, LOCK, &to.folder, CONFIG)?)
}

/// Where `folder` of the cell is on the host: below what the innermost of `mounts` shows.
fn on_host(folder: &Path, mounts: &[Mount]) -> PathBuf {
    let holder = |mount: &Mount| match mount {
        Mount::Bind { source, target, .. } => {
            Some((target.components().count(), source.join(folder.strip_prefix(target).ok()?)))
        }
        _ => None,
    };
    mounts.iter().filter_map(holder).max_by_key(|(depth, _)| *depth).map_or_else(|| folder.to_owned(), |(_, path)| path)
}

/// What is told of a file before it gets its name.
type Tell<'a> = &'a dyn Fn(BorrowedFd<'_>) -> std::io::Result<()>;

/// Makes the lock in `folder`, with `text` in it, if there is none.
fn lock(folder: BorrowedFd<'_>, text: &[u8], mode: Mode, tell: Tell<'_>) -> Step<()> {
    match lock_at_once(folder, text, mode, tell) {
        Err(Errno::EXIST) => return Err(Errno::EXIST.into()),
        // Not every file system has files without names.
        Err(_) => {}
        Ok(()) => return Ok(()),
    }
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let file = rustix::fs::openat(folder, LOCK, flags, Mode::RUSR | Mode::WUSR)?;
    let written = filled(file, text, mode, tell).map(drop);
    if written.is_err() {
        let _ = rustix::fs::unlinkat(folder, LOCK, AtFlags::empty());
    }
    Ok(written?)
}

/// Has it appear with all that is in it. By way of `/proc`, for a descriptor alone takes a power over all files before Linux 6.10 (open(2), `O_TMPFILE`).
fn lock_at_once(folder: BorrowedFd<'_>, text: &[u8], mode: Mode, tell: Tell<'_>) -> rustix::io::Result<()> {
    let flags = OFlags::WRONLY | OFlags::TMPFILE | OFlags::CLOEXEC;
    let file = rustix::fs::openat(folder, c".", flags, Mode::RUSR | Mode::WUSR)?;
    let file = filled(file, text, mode, tell)?;
    rustix::fs::linkat(CWD, magic(&file), folder, LOCK, AtFlags::SYMLINK_FOLLOW)
}

fn filled(file: OwnedFd, text: &[u8], mode: Mode, tell: Tell<'_>) -> rustix::io::Result<OwnedFd> {
    let mut file = File::from(file);
    let errno = |error: std::io::Error| Errno::from_io_error(&error).unwrap_or(Errno::IO);
    file.write_all(text).map_err(errno)?;
    rustix::fs::fchmod(&file, mode)?;
    tell(file.as_fd()).map_err(errno)?;
    Ok(file.into())
}

fn folder(place: &Place) -> &[u8] {
    &place.folder_path
}

/// The configuration beside `place`, and its mode. None if there is none that can be looked at.
fn read(place: &Place) -> Step<Option<(Vec<u8>, Mode)>> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = match rustix::fs::openat(&place.folder, CONFIG, flags, Mode::empty()) {
        Ok(file) => File::from(file),
        Err(Errno::NOENT | Errno::LOOP) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let stat = rustix::fs::fstat(&file)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Ok(None);
    }
    let mut text = Vec::new();
    file.take(MOST as u64 + 1).read_to_end(&mut text)?;
    Ok(Some((text, Mode::from_raw_mode(stat.st_mode & 0o777))))
}

/// Reads `file` from its beginning on: its place is the writer's.
fn fill(file: &File, buffer: &mut [u8]) -> std::io::Result<usize> {
    let mut length = 0;
    while let Some(rest) = buffer.get_mut(length..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, length as u64)? {
            0 => break,
            got => length += got,
        }
    }
    Ok(length)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_lock_is_made_whole_and_only_where_there_is_none() {
        let folder = tempfile::tempdir().expect("a folder");
        let open = File::open(folder.path()).expect("open");
        let text = || std::fs::read(folder.path().join("config.lock")).expect("the lock");
        let nothing: Tell<'_> = &|_| Ok(());
        assert!(lock(open.as_fd(), b"new", Mode::from_raw_mode(0o640), nothing).is_ok());
        assert_eq!(text(), b"new");
        let mode = std::fs::metadata(folder.path().join("config.lock")).expect("the lock").permissions().mode();
        assert_eq!(mode & 0o777, 0o640);
        assert!(matches!(lock(open.as_fd(), b"other", Mode::RUSR, nothing), Err(Stop::Errno(Errno::EXIST))));
        assert_eq!(text(), b"new");
        // Nor where nobody can be told of it.
        std::fs::remove_file(folder.path().join("config.lock")).expect("remove");
        let full: Tell<'_> = &|_| Err(std::io::ErrorKind::StorageFull.into());
        assert!(lock(open.as_fd(), b"new", Mode::RUSR, full).is_err() && !folder.path().join("config.lock").exists());
        assert!(lock(open.as_fd(), b"new", Mode::RUSR, nothing).is_ok());
        assert_eq!(std::fs::read_dir(folder.path()).expect("a folder").count(), 1);
    }

    #[test]
    fn where_a_folder_of_the_cell_is_on_the_host() {
        let bind =
            |source: &str, target: &str| Mount::Bind { source: source.into(), target: target.into(), writable: true };
        let mounts = [bind("/home/ada/web", "/work"), bind("/srv/git", "/work/store"), bind("/x", "/work/sto")];
        for (inside, host) in [
            ("/work/.git", "/home/ada/web/.git"),
            ("/work/store/a.git", "/srv/git/a.git"),
            ("/work/stores/.git", "/home/ada/web/stores/.git"),
            ("/else/.git", "/else/.git"),
        ] {
            assert_eq!(on_host(Path::new(inside), &mounts), Path::new(host));
        }
    }
}
