//! Where paths lead: `realpath(3)`, which asks for each folder on the way once in a run and not once for each path.
//!
//! Most paths that a start asks about begin with the same few folders. What is remembered is which of them are folders and no links; what is not
//! there, and what is wrong, is asked for each time. An answer decides what is meant, it guarantees nothing: whatever is mounted or written is
//! opened again, without following links.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::FileType;

thread_local! {
    /// Folders that stand at the end of no link, by their whole path.
    static KNOWN: RefCell<BTreeSet<OsString>> = const { RefCell::new(BTreeSet::new()) };
}

/// `path` without links and dots.
pub(crate) fn path(path: &Path) -> io::Result<PathBuf> {
    look(path).map(|(canonical, _)| canonical)
}

/// `path` without links and dots, and whether that is a folder. Errors are those of [`Path::canonicalize`].
pub(crate) fn look(path: &Path) -> io::Result<(PathBuf, bool)> {
    if let Some(is_dir) = plain(path)? {
        return Ok((path.to_owned(), is_dir));
    }
    let canonical = path.canonicalize()?;
    let is_dir = std::fs::metadata(&canonical)?.is_dir();
    Ok((canonical, is_dir))
}

/// Whether a folder is at `path`, if there are no links and dots in it; `None` if there may be.
fn plain(path: &Path) -> io::Result<Option<bool>> {
    let bytes = path.as_os_str().as_bytes();
    let mut parts = bytes.split(|byte| *byte == b'/');
    if parts.next() != Some(b"") || parts.any(|part| matches!(part, b"" | b"." | b"..")) {
        return Ok(None);
    }
    let mut at = known(bytes);
    while at < bytes.len() {
        let end = bytes[at + 1..].iter().position(|byte| *byte == b'/').map_or(bytes.len(), |length| at + 1 + length);
        let here = OsStr::from_bytes(&bytes[..end]);
        match FileType::from_raw_mode(rustix::fs::lstat(here)?.st_mode) {
            FileType::Symlink => return Ok(None),
            FileType::Directory => drop(KNOWN.with_borrow_mut(|known| known.insert(here.to_owned()))),
            _ if end == bytes.len() => return Ok(Some(false)),
            _ => return Err(rustix::io::Errno::NOTDIR.into()),
        }
        at = end;
    }
    Ok(Some(true))
}

/// How much of the beginning of `path` is a known folder.
fn known(path: &[u8]) -> usize {
    KNOWN.with_borrow(|known| {
        let mut end = path.len();
        while end > 0 && !known.contains(OsStr::from_bytes(&path[..end])) {
            end = path[..end].iter().rposition(|byte| *byte == b'/').unwrap_or_default();
        }
        end
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    /// What there is to ask about, and whatever the standard library says of it.
    #[test]
    fn answers_are_those_of_realpath() {
        let dir = tempfile::tempdir().expect("a folder");
        let top = dir.path().canonicalize().expect("canonical");
        std::fs::create_dir_all(top.join("a/b/c")).expect("mkdir");
        std::fs::write(top.join("a/file"), "").expect("write");
        for (at, to) in [("link", "a/b"), ("a/up", ".."), ("ring", "ring"), ("gone", "a/none"), ("a/to-file", "file")] {
            symlink(to, top.join(at)).expect("symlink");
        }
        let names = ["a", "b", "c", "file", "link", "up", "ring", "gone", "to-file", "none", "..", ".", ""];
        let mut paths: Vec<String> =
            ["", "x", "a", "a/", "./a", "a//b", "a/b/c/", "a/b/.", "link/c", "a/file/x"].map(Into::into).into();
        for one in names {
            for two in names {
                paths.extend(names.iter().map(|three| [one, two, three].join("/")));
            }
        }
        paths.push("n".repeat(300));
        // Twice, for what was remembered must not change an answer.
        for _ in 0..2 {
            for relative in &paths {
                let path = top.join(relative);
                let want = path.canonicalize();
                let got = look(&path);
                match (&got, &want) {
                    (Ok((canonical, is_dir)), Ok(want)) => {
                        assert_eq!(canonical, want, "{relative}");
                        assert_eq!(*is_dir, want.is_dir(), "{relative}");
                        assert_eq!(canonical.as_os_str(), want.as_os_str(), "{relative}");
                    }
                    (Err(got), Err(want)) => assert_eq!(got.kind(), want.kind(), "{relative}"),
                    _ => panic!("{relative}: {got:?} for {want:?}"),
                }
            }
        }
    }

    #[test]
    fn what_is_wrong_is_not_remembered() {
        let dir = tempfile::tempdir().expect("a folder");
        let top = dir.path().canonicalize().expect("canonical");
        assert_eq!(look(&top.join("new/x")).expect_err("none").kind(), io::ErrorKind::NotFound);
        std::fs::create_dir_all(top.join("new/x")).expect("mkdir");
        assert_eq!(look(&top.join("new/x")).expect("there"), (top.join("new/x"), true));
        std::fs::write(top.join("new/file"), "").expect("write");
        assert_eq!(look(&top.join("new/file")).expect("there"), (top.join("new/file"), false));
        std::fs::remove_file(top.join("new/file")).expect("remove");
        assert_eq!(path(&top.join("new/file")).expect_err("gone").kind(), io::ErrorKind::NotFound);
    }
}
