//! Which image is asked for, and what has to be known about the one that was found.

use std::fmt;
use std::path::{Path, PathBuf};

use super::error::ResolveError;
use super::expand::{config_path, typed_path};
use super::files::Files;
use super::origin::{Origin, Sourced};

/// The image as asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ImageRequest {
    /// The best there is.
    Auto,
    /// The host's own folders.
    Host,
    /// An image of the store, or an Alpine release.
    Name(String),
    /// A folder or an archive, as an absolute path of the host; not looked at yet.
    Path(PathBuf),
}

impl fmt::Display for ImageRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Host => f.write_str("host"),
            Self::Name(name) => f.write_str(name),
            Self::Path(path) => path.display().fmt(f),
        }
    }
}

/// The image that was found for a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ImageFacts {
    /// As it stands in the cell.
    pub(crate) name: String,
    /// The `host` image's folders, which stand at the same path inside; `None` for an image that has nothing of the host's.
    pub(crate) visible: Option<Vec<PathBuf>>,
}

impl ImageFacts {
    /// Whether what is at `path` on the host is at `path` inside: it lies in a shown folder, and so does what it leads to.
    pub(crate) fn shows(&self, path: &Path, files: &dyn Files) -> bool {
        let shown = |path: &Path| self.visible.iter().flatten().any(|folder| path.starts_with(folder));
        // The root may be reached through links of the host's layout, `/bin` to `/usr/bin`: the end of the way is what counts.
        shown(path) && files.look(path).is_ok_and(|seen| shown(&seen.canonical))
    }
}

/// Reads an image's name. A path begins with `/`, `./`, `../` or `~`; a relative one of the configuration is relative to the project.
pub(super) fn request(
    said: &Sourced<String>,
    cwd: &Path,
    project: Option<&Path>,
    host: &super::host::HostFacts,
) -> Result<ImageRequest, ResolveError> {
    let text = said.value.as_str();
    match text {
        "auto" => return Ok(ImageRequest::Auto),
        "host" => return Ok(ImageRequest::Host),
        _ if !text.starts_with(['/', '~', '$']) && !text.starts_with("./") && !text.starts_with("../") => {
            return Ok(ImageRequest::Name(text.to_owned()));
        }
        _ => {}
    }
    let configured = matches!(said.origin, Origin::Config { .. } | Origin::Section { .. });
    let expand = if configured { config_path } else { typed_path };
    let path = expand(text, host).map_err(|error| ResolveError::Expand {
        origin: said.origin.clone(),
        text: text.to_owned(),
        error,
    })?;
    let base = if configured { project } else { Some(cwd) };
    match base {
        _ if Path::new(&path).is_absolute() => Ok(ImageRequest::Path(path.into())),
        Some(base) => Ok(ImageRequest::Path(base.join(path))),
        None => Err(ResolveError::NoProject { origin: said.origin.clone(), text: text.to_owned() }),
    }
}
