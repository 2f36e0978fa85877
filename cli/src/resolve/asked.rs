//! What every part of the resolution asks. What only one of them needs comes beside it.

use std::path::PathBuf;

use super::error::ResolveError;
use super::expand::{ExpandError, config_path, typed_path};
use super::files::Files;
use super::host::HostFacts;
use super::layers::Layers;
use super::origin::Origin;
use crate::args::CellFlags;
use crate::project::ProjectFacts;

/// The flags, the configuration and the world.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked<'a> {
    /// What was typed about the cell.
    pub(super) flags: &'a CellFlags,
    /// The configuration.
    pub(super) layers: Layers<'a>,
    /// The project, unless there is none.
    pub(super) project: Option<&'a ProjectFacts>,
    /// The host and the person.
    pub(super) host: &'a HostFacts,
    /// The host's files.
    pub(super) files: &'a dyn Files,
}

impl Asked<'_> {
    /// A path as the configuration writes it, `~` and variables expanded. What a relative one is relative to is the caller's to say.
    pub(super) fn configured_path(self, text: &str, origin: &Origin) -> Result<PathBuf, ResolveError> {
        expanded(config_path(text, self.host), text, origin)
    }

    /// A path as it was typed, with a leading `~` expanded.
    pub(super) fn typed_path(self, text: &str, origin: &Origin) -> Result<PathBuf, ResolveError> {
        expanded(typed_path(text, self.host), text, origin)
    }
}

fn expanded(path: Result<String, ExpandError>, text: &str, origin: &Origin) -> Result<PathBuf, ResolveError> {
    path.map(PathBuf::from).map_err(|error| ResolveError::Expand {
        origin: origin.clone(),
        text: text.to_owned(),
        error,
    })
}
