//! Which of hundreds of paths are there, asked at each start.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use super::files::Files;

/// As many paths in one folder make it worth reading the folder. A `statx(2)` of what is not there takes about a microsecond, reading a home
/// directory about ten.
const WORTH: usize = 8;

/// Answers which of many paths are there. Most are not, and most have one of a few folders as parent.
#[derive(Debug)]
pub(super) struct Presence<'a> {
    files: &'a dyn Files,
    parents: HashMap<&'a Path, Parent>,
}

/// A folder that some of them are in.
#[derive(Debug)]
enum Parent {
    /// Not read; so many of them would be in it.
    Unread(usize),
    /// The names in it, in small letters, because folders may take all sorts for one (`casefold` of ext4(5)).
    Names(HashSet<String>),
    /// Not there, and nothing in it.
    Missing,
    /// It cannot be read, or a name in it is no text: each is asked for.
    Closed,
}

impl<'a> Presence<'a> {
    /// For questions about `paths`.
    pub(super) fn of(files: &'a dyn Files, paths: impl Iterator<Item = &'a Path>) -> Self {
        let mut parents = HashMap::new();
        for parent in paths.filter_map(Path::parent) {
            let Parent::Unread(count) = parents.entry(parent).or_insert(Parent::Unread(0)) else { continue };
            *count += 1;
        }
        Self { files, parents }
    }

    /// Whether there may be anything at one of the paths, a link to nowhere included. True wherever [`Files::is_there`] is.
    pub(super) fn has(&mut self, path: &Path) -> bool {
        let at = path.parent().and_then(|parent| Some((parent, self.parents.get_mut(parent)?)));
        let (Some((folder, parent)), Some(name)) = (at, path.file_name()) else { return self.files.is_there(path) };
        if let Parent::Unread(WORTH..) = parent {
            *parent = match self.files.list(folder) {
                Some(names) => Parent::Names(names.into_iter().map(|name| name.to_lowercase()).collect()),
                None if !self.files.is_there(folder) => Parent::Missing,
                None => Parent::Closed,
            };
        }
        match parent {
            Parent::Names(names) => name.to_str().is_none_or(|name| names.contains(&name.to_lowercase())),
            Parent::Missing => false,
            Parent::Unread(_) | Parent::Closed => self.files.is_there(path),
        }
    }
}
