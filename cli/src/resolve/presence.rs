//! Which of hundreds of paths are there, asked at each start.

use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use super::files::Files;

/// As many paths in one folder make it worth reading the folder. A `statx(2)` of what is not there takes about a microsecond, reading a home
/// directory about ten.
#[cfg(test)]
pub(super) const WORTH: usize = 8;

/// So many names the kernel gives in one or two calls.
const FEW: usize = 256;

/// Answers which of many paths below one folder are there. Most are not, and most are in one of a few folders.
#[derive(Debug)]
pub(super) struct Presence<'a> {
    files: &'a dyn Files,
    top: PathBuf,
    folders: Vec<(&'static str, Folder)>,
    most: usize,
}

/// A folder that many of them are in.
#[derive(Debug)]
enum Folder {
    /// Nobody has asked yet.
    Unread,
    /// The names in it.
    Names(Names),
    /// Not there, and nothing in it.
    Missing,
    /// It cannot be read, has too much in it, or a name in it is no text: each is asked for.
    Closed,
}

impl<'a> Presence<'a> {
    /// For questions about what is below `top`. The `folders` of it, the innermost first, are read when something in them is asked for.
    pub(super) fn below(files: &'a dyn Files, top: PathBuf, folders: &[&'static str]) -> Self {
        Self { files, top, folders: folders.iter().map(|folder| (*folder, Folder::Unread)).collect(), most: usize::MAX }
    }

    /// For questions about what is in the folder `top`, which anybody may have filled: if there is much in it, each is asked for.
    pub(super) fn inside(files: &'a dyn Files, top: &Path) -> Self {
        Self { most: FEW, ..Self::below(files, top.to_owned(), &[""]) }
    }

    /// The path of `key`.
    pub(super) fn path(&self, key: &str) -> PathBuf {
        self.top.join(key)
    }

    /// Whether there may be anything at `key`, a link to nowhere included. True wherever [`Files::is_there`] is.
    pub(super) fn has(&mut self, key: &str) -> bool {
        for (folder, state) in &mut self.folders {
            let Some(rest) = within(folder, key) else { continue };
            if let Folder::Unread = state {
                *state = Folder::read(self.files, &self.top.join(*folder), self.most);
            }
            // A searcher takes longer to make than such a name to search.
            let name = rest.bytes().position(|byte| byte == b'/').map_or(rest, |at| &rest[..at]);
            match state {
                Folder::Missing => return false,
                // What is in a folder that is not there is not there either.
                Folder::Names(names) if !names.contain(name) && !names.foreign => return false,
                Folder::Names(names) if name.len() == rest.len() && names.contain(name) => return true,
                Folder::Names(_) | Folder::Closed | Folder::Unread => break,
            }
        }
        self.files.is_there(&self.path(key))
    }
}

/// `key` from `folder` on, if it lies in there; from the top with an empty one.
pub(super) fn within<'k>(folder: &str, key: &'k str) -> Option<&'k str> {
    if folder.is_empty() { Some(key) } else { key.strip_prefix(folder)?.strip_prefix('/') }
}

impl Folder {
    fn read(files: &dyn Files, path: &Path, most: usize) -> Self {
        let (mut names, mut odd) = (Names::default(), false);
        let mut add = |name: &[u8]| match std::str::from_utf8(name) {
            Ok(name) if names.spans.len() < most => {
                names.add(name);
                ControlFlow::Continue(())
            }
            Ok(_) | Err(_) => {
                odd = true;
                ControlFlow::Break(())
            }
        };
        match files.names(path, &mut add) {
            Ok(()) if !odd => Self::Names(names),
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                Self::Missing
            }
            Ok(()) | Err(_) => Self::Closed,
        }
    }
}

/// Names in small letters, because folders may take both for one.
#[derive(Debug, Default)]
struct Names {
    text: String,
    /// Where each begins and ends in `text`.
    spans: Vec<(usize, usize)>,
    /// Whether there are names with other letters than ASCII's. Where folders take small and large letters for one, they do not have to look like what
    /// they are taken for: letters that show nothing do not count (`casefold` of ext4(5), utf8's `nfdicf`). Then the file system is asked.
    foreign: bool,
    /// One bit for each, by its letters: most of what is asked for is told by a bit that is not set.
    bits: [u64; Self::BITS / 64],
}

impl Names {
    const BITS: usize = 1024;

    fn add(&mut self, name: &str) {
        let begin = self.text.len();
        self.foreign |= !name.is_ascii();
        self.text.push_str(name);
        self.text[begin..].make_ascii_lowercase();
        self.spans.push((begin, self.text.len()));
        let bit = Self::bit(&self.text[begin..]);
        self.bits[bit / 64] |= 1 << (bit % 64);
    }

    /// Whether `name` is one of them, in whatever letters. It is of ASCII, as the list is.
    fn contain(&self, name: &str) -> bool {
        let bit = Self::bit(name);
        let text = self.text.as_bytes();
        self.bits[bit / 64] & (1 << (bit % 64)) != 0
            && self.spans.iter().any(|(begin, end)| text[*begin..*end].eq_ignore_ascii_case(name.as_bytes()))
    }

    /// The bit of a name, whatever the case of its letters of ASCII.
    fn bit(name: &str) -> usize {
        let add = |sum: usize, byte: u8| sum.wrapping_mul(31).wrapping_add(byte.to_ascii_lowercase().into());
        name.bytes().fold(0, add) % Self::BITS
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resolve::HostFiles;
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;

    const FOLDERS: &[&str] = &[".local/share", ".config", ""];
    const KEYS: &[&str] = &[
        ".netrc",
        ".ssh",
        ".Mixed",
        ".config",
        ".config/gh",
        ".config/git/credentials",
        ".local/share/a",
        ".local/share/b/c",
        ".local/state/x",
        ".docker/config.json",
        "snap/firefox",
        ".env",
    ];

    /// The same as asking for each path singly, and true of one that is there.
    fn compare(top: &Path) {
        let mut presence = Presence::below(&HostFiles, top.to_owned(), FOLDERS);
        for key in KEYS {
            assert_eq!(presence.has(key), HostFiles.is_there(&top.join(key)), "{key} in {}", top.display());
        }
    }

    #[test]
    fn answers_are_those_of_single_questions() {
        // Every third, half, … of the keys: all sorts of folders that are there, and are not.
        for step in 1..=KEYS.len() {
            for first in 0..step {
                let dir = tempfile::tempdir().expect("a folder");
                for (index, key) in KEYS.iter().enumerate().skip(first).step_by(step) {
                    let path = dir.path().join(key);
                    // Something of it may stand in the way, as a file where another one wants a folder.
                    let Ok(()) = std::fs::create_dir_all(path.parent().expect("a parent")) else { continue };
                    let _ = match index % 3 {
                        0 => std::fs::write(&path, ""),
                        1 => std::fs::create_dir(&path),
                        _ => std::os::unix::fs::symlink("nowhere", &path),
                    };
                }
                compare(dir.path());
            }
        }
    }

    #[test]
    fn odd_folders_are_asked_singly() {
        let dir = tempfile::tempdir().expect("a folder");
        compare(&dir.path().join("gone"));
        std::fs::write(dir.path().join("file"), "").expect("write");
        compare(&dir.path().join("file"));
        std::os::unix::fs::symlink("nowhere", dir.path().join(".config")).expect("symlink");
        std::fs::create_dir_all(dir.path().join("real/b")).expect("mkdir");
        std::fs::write(dir.path().join("real/b/c"), "").expect("write");
        std::fs::create_dir(dir.path().join(".local")).expect("mkdir");
        std::os::unix::fs::symlink("../real", dir.path().join(".local/share")).expect("symlink");
        compare(dir.path());
        std::fs::write(dir.path().join(OsStr::from_bytes(b"\xff")), "").expect("write");
        std::fs::write(dir.path().join(".netrc"), "").expect("write");
        compare(dir.path());
    }

    #[test]
    fn a_full_folder_is_asked_about_singly() {
        let dir = tempfile::tempdir().expect("a folder");
        for count in [FEW - 2, FEW, FEW + 40] {
            (0..count).for_each(|number| std::fs::write(dir.path().join(number.to_string()), "").expect("write"));
            std::fs::write(dir.path().join(".netrc"), "").expect("write");
            let mut presence = Presence::inside(&HostFiles, dir.path());
            assert!(presence.has(".netrc") && presence.has("7") && !presence.has(".ssh") && !presence.has(".ssh/x"));
            assert_eq!(matches!(presence.folders[0].1, Folder::Closed), count >= FEW, "{count}");
        }
    }

    #[test]
    fn names_are_found_in_whatever_letters() {
        let mut names = Names::default();
        for name in ["b", "ÄÖ", "a", "Monero", "\u{212a}ey", "monero-2", ""] {
            names.add(name);
        }
        assert!(names.foreign, "any of them may be \u{212a}ey");
        for there in ["a", "B", "monero", "MONERO", "Monero-2"] {
            assert!(names.contain(there), "{there}");
        }
        for gone in ["c", "key", "ab", "moner", "monero-", "monero-22"] {
            assert!(!names.contain(gone), "{gone}");
        }
    }
}
