//! Taking a folder of the host over: everything but what is hidden, at first; later what has changed.
//!
//! The host's side is the person's: links there lead on, as files that are kept elsewhere in a home do, but only within the
//! home. The other side is what cells write: nothing there is followed.

use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use cellblock_bundle::protect::component_matches;
use rustix::fs::{AtFlags, Dir, FileType, Stat};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::place::{self, Owner};
use super::seen::{Mark, Seen, Stamp};

/// Levels below a folder that are taken: deeper there are loops of links, or no settings.
const MOST_LEVELS: usize = 32;

/// Files and folders that are taken: more is no agent's settings, and would make every start slow.
const MOST_ENTRIES: usize = 100_000;

/// Where links of the host may lead.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Links {
    /// Folders in which what they lead to must be: the person's home.
    pub within: Vec<PathBuf>,
    /// Folders in which it must not be: cellblock's own, and those with secrets.
    pub never: Vec<PathBuf>,
    /// Those of `never` that lead elsewhere themselves, with where; looked for when the first link is met.
    #[serde(skip)]
    ends: OnceCell<Vec<(PathBuf, PathBuf)>>,
}

impl Links {
    /// Within these folders, and in none of those.
    #[must_use]
    pub fn new(within: Vec<PathBuf>, never: Vec<PathBuf>) -> Self {
        Self { within, never, ends: OnceCell::new() }
    }

    fn is_within(&self, end: &Path) -> bool {
        self.within.iter().any(|folder| end.starts_with(folder))
    }

    /// The folders in which nothing may be, by each of their names; but for what is known as `own`.
    fn never<'a>(&'a self, own: Option<&'a Path>) -> impl Iterator<Item = &'a PathBuf> {
        let ends = self.ends.get_or_init(|| {
            let end =
                |path: &PathBuf| path.canonicalize().ok().filter(|end| end != path).map(|end| (path.clone(), end));
            self.never.iter().filter_map(end).collect()
        });
        let ends = ends.iter().filter(move |(path, _)| Some(path.as_path()) != own).map(|(_, end)| end);
        self.never.iter().chain(ends)
    }

    fn lets(&self, path: &Path) -> bool {
        self.is_within(path) && !self.never(None).any(|folder| path.starts_with(folder) || folder.starts_with(path))
    }

    /// Where `path`, which is a file's or folder's own, ends. Links on its way in the home lead where links may; what is secret below a folder is left
    /// out by name.
    pub(super) fn end_of(&self, path: &Path) -> io::Result<PathBuf> {
        let end = path.canonicalize()?;
        // The home has two names where it is reached by a link itself.
        let mut below = self.within.iter().filter_map(|home| path.strip_prefix(home).ok()).peekable();
        let plain = if below.peek().is_some() {
            below.any(|below| self.within.iter().any(|home| home.join(below) == end))
        } else {
            !std::fs::symlink_metadata(path)?.is_symlink()
        };
        let lets = || self.is_within(&end) && !self.never(Some(path)).any(|folder| end.starts_with(folder));
        if plain || lets() { Ok(end) } else { Err(leads_to(&end)) }
    }
}

fn leads_to(end: &Path) -> io::Error {
    io::Error::new(io::ErrorKind::PermissionDenied, format!("it leads to {}", end.display()))
}

/// What is done with what cells have changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Follow {
    /// It stays; only what is untouched follows the host.
    Untouched,
    /// The host's comes in its place.
    Always,
}

/// How a folder is taken over.
#[derive(Clone, Copy, Debug)]
pub(super) struct Taking<'a> {
    /// Names that are not taken; `*` for all.
    pub(super) hidden: &'a [PathBuf],
    /// Who gets what is made.
    pub(super) owner: Owner,
    /// Where links may lead.
    pub(super) links: &'a Links,
    /// What comes first.
    pub(super) follow: Follow,
}

/// What came of it.
#[derive(Debug, Default)]
pub(super) struct Taken {
    /// What was seen, for the next time.
    pub(super) seen: Seen,
    /// What could not be taken, and why.
    pub(super) problems: Vec<String>,
    /// Folders of the host that were read, for those who want to watch them.
    pub(super) folders: Vec<std::os::fd::OwnedFd>,
}

/// One thing of the host's, and where it goes.
#[derive(Clone, Copy)]
struct Item<'a> {
    /// Its folder on the host, and its name there: where a link leads, those of its end.
    host: (BorrowedFd<'a>, &'a Path),
    /// What it is there.
    stat: &'a Stat,
    /// Its folder on the other side, and its name there.
    own: (BorrowedFd<'a>, &'a Path),
    /// Where it is below the folders that are brought in step.
    path: &'a Path,
    /// How deep that is.
    level: usize,
}

struct Visit<'a> {
    taking: Taking<'a>,
    /// Where the folder is on the host, without links.
    top: &'a Path,
    old: &'a BTreeMap<PathBuf, Mark>,
    taken: Taken,
    /// A part of the host's could not be read: what is missing then may be there.
    partial: bool,
    watch: bool,
}

/// Brings `own` in step with `host`, which is at `top`; `old` is what was seen the last time. With `watch` the folders that were
/// read are kept open.
///
/// # Errors
/// Only if `own` cannot be written at all, as when the disk is full. Single files are told in [`Taken`].
pub(super) fn take(
    host: BorrowedFd<'_>,
    top: &Path,
    own: BorrowedFd<'_>,
    old: &Seen,
    taking: Taking<'_>,
    watch: bool,
) -> io::Result<Taken> {
    let mut visit = Visit { taking, top, old: &old.0, taken: Taken::default(), partial: false, watch };
    visit.folder(host, own, Path::new(""), 0)?;
    if !visit.partial {
        visit.forget(own);
    }
    Ok(visit.taken)
}

/// Takes the file `from` of the folder `host` as `path` below `own`.
pub(super) fn take_file(
    (host, from): (BorrowedFd<'_>, &Path),
    (own, path): (BorrowedFd<'_>, &Path),
    old: &Seen,
    taking: Taking<'_>,
) -> io::Result<Taken> {
    let mut visit =
        Visit { taking, top: Path::new("/"), old: &old.0, taken: Taken::default(), partial: true, watch: false };
    if let Some(stat) = place::look(host, from)?
        && place::kind(&stat).is_file()
    {
        let name = path.file_name().map_or(path, Path::new);
        visit.file(Item { host: (host, from), stat: &stat, own: (own, name), path, level: 0 })?;
    }
    Ok(visit.taken)
}

/// Whether a row, in which a `*` stands for any letters of a name, means `path`.
fn matches(row: &Path, path: &Path) -> bool {
    let bytes = |part: std::path::Component<'_>| part.as_os_str().as_bytes().to_vec();
    let mut names = path.components();
    let fits = row.components().all(|part| {
        let name = names.next().map(bytes);
        name.is_some_and(|name| match part.as_os_str().to_str() {
            Some(pattern) if pattern.contains('*') => component_matches(pattern, &name),
            _ => bytes(part) == name,
        })
    });
    fits && names.next().is_none()
}

impl Visit<'_> {
    fn hides(&self, path: &Path) -> bool {
        self.taking.hidden.iter().any(|hidden| matches(hidden, path))
    }

    fn problem(&mut self, path: &Path, error: &io::Error) -> io::Result<()> {
        if matches!(
            error.kind(),
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::ReadOnlyFilesystem
        ) {
            return Err(io::Error::new(error.kind(), format!("{}: {error}", path.display())));
        }
        self.taken.problems.push(format!("{}: {error}", self.top.join(path).display()));
        self.partial = true;
        Ok(())
    }

    fn folder(&mut self, host: BorrowedFd<'_>, own: BorrowedFd<'_>, path: &Path, level: usize) -> io::Result<()> {
        if self.watch
            && let Ok(kept) = rustix::io::fcntl_dupfd_cloexec(host, 0)
        {
            self.taken.folders.push(kept);
        }
        let entries = match Dir::read_from(host) {
            Ok(entries) => entries,
            Err(error) => return self.problem(path, &error.into()),
        };
        for entry in entries {
            let name = match &entry {
                Ok(entry) => Path::new(OsStr::from_bytes(entry.file_name().to_bytes())),
                Err(error) => return self.problem(path, &(*error).into()),
            };
            let below = path.join(name);
            if matches!(name.as_os_str().as_bytes(), b"." | b"..") || self.hides(&below) {
                continue;
            }
            if level > MOST_LEVELS || self.taken.seen.0.len() > MOST_ENTRIES {
                let error = io::Error::new(io::ErrorKind::QuotaExceeded, "more is in it than an agent's settings");
                self.taken.problems.push(format!("{}: {error}", self.top.join(path).display()));
                self.partial = true;
                return Ok(());
            }
            let taken = place::look(host, name).and_then(|stat| match stat {
                Some(stat) => {
                    self.item(Item { host: (host, name), stat: &stat, own: (own, name), path: &below, level })
                }
                None => Ok(()),
            });
            if let Err(error) = taken {
                self.problem(&below, &error)?;
            }
        }
        Ok(())
    }

    fn item(&mut self, item: Item<'_>) -> io::Result<()> {
        match place::kind(item.stat) {
            FileType::Directory => self.below(item),
            FileType::RegularFile => self.file(item),
            FileType::Symlink => self.link(item),
            _ => Ok(()),
        }
    }

    fn below(&mut self, Item { host, stat, own: (own, name), path, level }: Item<'_>) -> io::Result<()> {
        let host = place::folder(host.0, host.1)?;
        let is = place::look(own, name)?.map(|stat| place::kind(&stat));
        let follows = self.taking.follow == Follow::Always;
        match is {
            // Removed inside: it stays so.
            None if !follows && self.old.contains_key(path) => return self.remember(path),
            Some(FileType::Directory) | None => {}
            // Something else was put there inside.
            Some(_) if !follows => return self.remember(path),
            Some(_) => cellblock_sys::tree::remove(own, name.as_os_str())?,
        }
        let child = match is {
            Some(FileType::Directory) => place::folder(own, name)?,
            _ => place::make_folder(own, name, stat.st_mode & 0o777 | 0o700, self.taking.owner)?,
        };
        self.taken.seen.0.insert(path.to_owned(), Mark::default());
        self.folder(host.as_fd(), child.as_fd(), path, level + 1)
    }

    /// Keeps what is known of `path` and everything below.
    fn remember(&mut self, path: &Path) -> io::Result<()> {
        let known = self.old.range(path.to_owned()..).take_while(|(known, _)| known.starts_with(path));
        self.taken.seen.0.extend(known.map(|(path, mark)| (path.clone(), *mark)));
        self.taken.seen.0.entry(path.to_owned()).or_default();
        Ok(())
    }

    /// Whether `path`, which is `host` there and `own` here, is to be taken.
    fn wants(&self, path: &Path, host: &Stat, own: Option<&Stat>) -> bool {
        let old = self.old.get(path);
        let untouched = match (own, old) {
            (None, None) => true,
            (Some(own), Some(old)) => Stamp::of(own) == old.own,
            _ => false,
        };
        let changed = old.is_none_or(|old| old.host != Stamp::of(host));
        match self.taking.follow {
            Follow::Untouched => untouched && changed,
            Follow::Always => !untouched || changed,
        }
    }

    /// What is remembered of something that is not taken. What was there before us stays as never taken, so that it is never touched.
    fn left(&self, path: &Path, host: &Stat) -> Mark {
        Mark { host: Stamp::of(host), own: self.old.get(path).map(|old| old.own).unwrap_or_default() }
    }

    fn file(&mut self, Item { host, stat, own: (own, name), path, .. }: Item<'_>) -> io::Result<()> {
        let is = place::look(own, name)?;
        let mark = if self.wants(path, stat, is.as_ref()) {
            if is.as_ref().is_some_and(|is| place::kind(is).is_dir()) {
                cellblock_sys::tree::remove(own, name.as_os_str())?;
            }
            self.copy(host, (own, name))?
        } else {
            self.left(path, stat)
        };
        self.taken.seen.0.insert(path.to_owned(), mark);
        Ok(())
    }

    /// A file that is being written meanwhile is taken again, a few times.
    fn copy(&self, (host, from): (BorrowedFd<'_>, &Path), (own, name): (BorrowedFd<'_>, &Path)) -> io::Result<Mark> {
        for _ in 0..4 {
            let (mut source, before) = place::open(host, from)?;
            let made = place::replace(own, name, before.st_mode, self.taking.owner, |file| {
                // Where the file system can, both share their blocks until one is written.
                if rustix::fs::ioctl_ficlone(&*file, &source).is_err() {
                    io::copy(&mut source, file)?;
                }
                Ok(())
            })?;
            let after = rustix::fs::fstat(&source)?;
            if Stamp::of(&after) == Stamp::of(&before) {
                return Ok(Mark { host: Stamp::of(&after), own: Stamp::of(&made) });
            }
        }
        Err(io::Error::new(io::ErrorKind::ResourceBusy, "it changes all the time"))
    }

    /// A link within the folder stays one; another is followed to what it leads to.
    fn link(&mut self, item: Item<'_>) -> io::Result<()> {
        let (host, name) = item.host;
        let here = std::fs::read_link(format!("/proc/self/fd/{}", host.as_raw_fd()))?;
        // One that leads nowhere is nothing.
        let Ok(end) = here.join(name).canonicalize() else { return Ok(()) };
        if end.starts_with(self.top) {
            return self.same_link(item);
        }
        if !self.taking.links.lets(&end) {
            self.taken.problems.push(format!("{}: {}", self.top.join(item.path).display(), leads_to(&end)));
            return Ok(());
        }
        let (Some(above), Some(last)) = (end.parent(), end.file_name().map(Path::new)) else { return Ok(()) };
        let above = super::open_folder(above)?;
        let Some(stat) = place::look(above.as_fd(), last)? else { return Ok(()) };
        match place::kind(&stat) {
            // Put there since it was looked at.
            FileType::Symlink => Ok(()),
            _ => self.item(Item { host: (above.as_fd(), last), stat: &stat, ..item }),
        }
    }

    fn same_link(&mut self, Item { host, stat, own: (own, name), path, .. }: Item<'_>) -> io::Result<()> {
        let target = rustix::fs::readlinkat(host.0, host.1, Vec::new())?;
        let mut mark = self.left(path, stat);
        if self.wants(path, stat, place::look(own, name)?.as_ref()) {
            cellblock_sys::tree::remove(own, name.as_os_str())?;
            rustix::fs::symlinkat(&target, own, name)?;
            if let Owner(Some((uid, gid))) = self.taking.owner {
                let (uid, gid) = (rustix::fs::Uid::from_raw(uid), rustix::fs::Gid::from_raw(gid));
                rustix::fs::chownat(own, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
            }
            mark.own = place::look(own, name)?.map(|stat| Stamp::of(&stat)).unwrap_or_default();
        }
        self.taken.seen.0.insert(path.to_owned(), mark);
        Ok(())
    }

    /// Removes what the host has no more, if it is as it was taken.
    fn forget(&mut self, own: BorrowedFd<'_>) {
        let gone: Vec<_> = self.old.iter().filter(|(path, _)| !self.taken.seen.0.contains_key(*path)).collect();
        // What is below a folder comes after it.
        for (path, mark) in gone.into_iter().rev() {
            let Some((above, name)) = reach(own, path) else { continue };
            let Ok(Some(is)) = place::look(above.as_fd(), name) else { continue };
            let _ = match place::kind(&is) {
                FileType::Directory if *mark == Mark::default() => {
                    rustix::fs::unlinkat(&above, name, AtFlags::REMOVEDIR).map_err(io::Error::from)
                }
                _ if self.taking.follow == Follow::Always => {
                    cellblock_sys::tree::remove(above.as_fd(), name.as_os_str())
                }
                _ if Stamp::of(&is) == mark.own => {
                    rustix::fs::unlinkat(&above, name, AtFlags::empty()).map_err(io::Error::from)
                }
                _ => Ok(()),
            };
        }
    }
}

/// The folder of `path` below `top`, and its last name.
fn reach<'a>(top: BorrowedFd<'_>, path: &'a Path) -> Option<(std::os::fd::OwnedFd, &'a Path)> {
    let mut here = rustix::io::fcntl_dupfd_cloexec(top, 0).ok()?;
    for part in path.parent()?.components() {
        here = match place::folder(here.as_fd(), part.as_ref()) {
            Ok(found) => found,
            Err(_) => return None,
        };
    }
    Some((here, Path::new(path.file_name()?)))
}

/// Whether an error says that something is not there.
pub(super) fn is_missing(error: &io::Error) -> bool {
    [Errno::NOENT, Errno::NOTDIR].iter().any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}

#[cfg(test)]
mod tests;
