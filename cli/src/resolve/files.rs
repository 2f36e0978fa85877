//! The few questions about the host's files that resolving asks. A trait, so that tests answer them from a table.

use std::ffi::OsString;
use std::fmt::Debug;
use std::io::{self, Read};
use std::mem::MaybeUninit;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, RawDir};

/// What a path leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    /// The path without links and dots.
    pub(crate) canonical: PathBuf,
    /// Whether it is a folder.
    pub(crate) is_dir: bool,
}

/// What stands at a path, links not followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A folder.
    Folder,
    /// A symbolic link.
    Link,
    /// A file of whatever sort.
    File,
}

/// Questions about files.
pub(crate) trait Files: Debug {
    /// Follows a path to its end.
    fn look(&self, path: &Path) -> io::Result<Seen>;
    /// The text of a small file.
    fn read(&self, path: &Path) -> io::Result<String>;
    /// At most `most` bytes of the beginning of a regular file.
    fn head(&self, path: &Path, most: usize) -> io::Result<Vec<u8>>;
    /// Whether the person may execute the file.
    fn executable(&self, path: &Path) -> bool;
    /// What stands at a path; `None` if nothing that can be seen.
    fn kind(&self, path: &Path) -> Option<Kind>;
    /// Gives each name in a folder to `each`, until that has enough. The quickest way for folders of which only a few names matter.
    fn names(&self, path: &Path, each: &mut dyn FnMut(&[u8]) -> ControlFlow<()>) -> io::Result<()>;
    /// The names in a folder; `None` if it cannot be read, or one of them is not UTF-8.
    fn list(&self, path: &Path) -> Option<Vec<String>> {
        let (mut names, mut odd) = (Vec::new(), false);
        let mut add = |name: &[u8]| {
            match std::str::from_utf8(name) {
                Ok(name) => names.push(name.to_owned()),
                Err(_) => odd = true,
            }
            ControlFlow::Continue(())
        };
        self.names(path, &mut add).ok()?;
        (!odd).then_some(names)
    }
    /// The text of a regular file that a repository may have put there; `None` if there is none. Never waits.
    fn text(&self, path: &Path) -> Option<String>;
    /// Whether there is anything at a path, a link to nowhere included: the quickest question, for those that are asked by the hundred.
    fn is_there(&self, path: &Path) -> bool;
    /// What is in a folder.
    fn items(&self, path: &Path) -> io::Result<Vec<Item>>;
}

/// Something in a folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Item {
    /// Its name.
    pub(crate) name: OsString,
    /// Whether it is a folder, and not a link to one.
    pub(crate) is_dir: bool,
}

/// The host's own files.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HostFiles;

/// Largest `--env-file`, in bytes: `execve(2)` takes no more than a quarter of the stack for arguments and environment, 2 MiB.
const LARGEST: u64 = 2 << 20;

impl Files for HostFiles {
    fn look(&self, path: &Path) -> io::Result<Seen> {
        let (canonical, is_dir) = crate::canonical::look(path)?;
        Ok(Seen { canonical, is_dir })
    }

    fn read(&self, path: &Path) -> io::Result<String> {
        let mut text = String::new();
        std::fs::File::open(path)?.take(LARGEST + 1).read_to_string(&mut text)?;
        if text.len() as u64 > LARGEST {
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, "it has more than 2 MiB"));
        }
        Ok(text)
    }

    fn head(&self, path: &Path, most: usize) -> io::Result<Vec<u8>> {
        let mut head = Vec::new();
        if std::fs::metadata(path)?.is_file() {
            std::fs::File::open(path)?.take(most as u64).read_to_end(&mut head)?;
        }
        Ok(head)
    }

    fn executable(&self, path: &Path) -> bool {
        rustix::fs::access(path, rustix::fs::Access::EXEC_OK).is_ok()
    }

    fn kind(&self, path: &Path) -> Option<Kind> {
        let kind = std::fs::symlink_metadata(path).ok()?.file_type();
        Some(match kind {
            _ if kind.is_dir() => Kind::Folder,
            _ if kind.is_symlink() => Kind::Link,
            _ => Kind::File,
        })
    }

    fn names(&self, path: &Path, each: &mut dyn FnMut(&[u8]) -> ControlFlow<()>) -> io::Result<()> {
        // As opendir(3), without the memory that its stream takes.
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let folder = rustix::fs::open(path, flags, Mode::empty())?;
        let mut room = [const { MaybeUninit::uninit() }; 8192];
        let mut entries = RawDir::new(&folder, &mut room);
        while let Some(entry) = entries.next() {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if name != b"." && name != b".." && each(name).is_break() {
                break;
            }
        }
        Ok(())
    }

    fn text(&self, path: &Path) -> Option<String> {
        crate::project::small_text(path)
    }

    fn is_there(&self, path: &Path) -> bool {
        // One that cannot be asked about is taken for one that is there: what comes next has the error.
        !std::fs::symlink_metadata(path)
            .is_err_and(|e| matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory))
    }

    fn items(&self, path: &Path) -> io::Result<Vec<Item>> {
        let item = |entry: std::fs::DirEntry| Ok(Item { name: entry.file_name(), is_dir: entry.file_type()?.is_dir() });
        std::fs::read_dir(path)?.map(|entry| entry.and_then(item)).collect()
    }
}
