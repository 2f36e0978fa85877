//! What of a project a cell may change although the host's tools act on it.

use std::fmt;
use std::path::{Component, Path, PathBuf};
use std::str::FromStr;

use super::ValueError;

/// Whether files that the host's tools act on can be changed from inside.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Protection {
    /// They cannot.
    #[default]
    On,
    /// They can.
    Off,
}

/// A path in a work tree that is opened: `.vscode`, `.git/hooks`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Opened(pub(crate) PathBuf);

impl FromStr for Opened {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let path: PathBuf = Path::new(text).components().filter(|c| *c != Component::CurDir).collect();
        let plain = path.components().all(|part| matches!(part, Component::Normal(_)));
        if plain && path.components().next().is_some() && !text.contains('\0') {
            Ok(Self(path))
        } else {
            Err(ValueError::Opened(text.to_owned()))
        }
    }
}

impl fmt::Display for Opened {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.display().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_paths_in_the_project_are_opened() {
        for (text, want) in [(".vscode", ".vscode"), ("./.git/hooks/", ".git/hooks"), ("a//b", "a/b")] {
            assert_eq!(text.parse(), Ok(Opened(want.into())), "{text}");
        }
        for text in ["", ".", "./", "/etc", "..", "a/../../b", "a\0b"] {
            assert_eq!(text.parse::<Opened>(), Err(ValueError::Opened(text.to_owned())), "{text}");
        }
    }
}
