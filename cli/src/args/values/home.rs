//! Where a cell's home is, as it is written.

use std::fmt;
use std::str::FromStr;

use super::ValueError;

/// `private`, `workspace`, or a folder of the host, which begins with `/`, `./`, `../`, `~` or, in the configuration, `$`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum HomeSpec {
    /// The cell's own.
    Private,
    /// The project's folder.
    Workspace,
    /// A folder of the host, not yet expanded.
    Folder(String),
}

impl FromStr for HomeSpec {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let path = text.starts_with(['/', '~', '$']) || text.starts_with("./") || text.starts_with("../");
        match text {
            "private" => Ok(Self::Private),
            "workspace" => Ok(Self::Workspace),
            _ if text.contains('\0') => Err(ValueError::Nul),
            _ if path => Ok(Self::Folder(text.to_owned())),
            _ => Err(ValueError::Home),
        }
    }
}

impl fmt::Display for HomeSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Private => "private",
            Self::Workspace => "workspace",
            Self::Folder(path) => path,
        })
    }
}

impl serde::Serialize for HomeSpec {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_and_folders() {
        for text in ["private", "workspace", "~/cells/home", "/srv/home", "./home", "../home", "$CELLS/home"] {
            assert_eq!(text.parse::<HomeSpec>().map(|spec| spec.to_string()).as_deref(), Ok(text));
        }
        for text in ["", "home", "Private", "host"] {
            assert_eq!(text.parse::<HomeSpec>(), Err(ValueError::Home), "{text}");
        }
        assert_eq!("/a\0b".parse::<HomeSpec>(), Err(ValueError::Nul));
    }
}
