//! What a kept layer lies over.

use std::path::Path;

use cellblock_bundle::Cell;
use serde::{Deserialize, Serialize};

use super::{Dirs, StateError, write_json};

/// What the cell was that a writable layer was first kept of: its files are changes of this image's, and belong to its ids.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// The image's name.
    pub image: String,
    /// Whether it had ids beyond the person's own.
    pub range: bool,
}

impl Kept {
    /// What is to be known of `cell`.
    #[must_use]
    pub fn of(cell: &Cell) -> Self {
        Self { image: cell.image.clone(), range: cell.ids.has_range() }
    }

    /// What the layer of the cell `name` lies over, if one was kept that says it: those of earlier versions do not.
    #[must_use]
    pub fn read(dirs: &Dirs, name: &str) -> Option<Self> {
        serde_json::from_slice(&std::fs::read(dirs.layer(name).join(FILE)).ok()?).ok()
    }

    /// Whether `cell` can go on with it.
    #[must_use]
    pub fn fits(&self, cell: &Cell) -> bool {
        self.image == cell.image && (cell.ids.has_range() || !self.range)
    }

    /// Writes it down in the folder `layer`.
    pub(crate) fn write(&self, layer: &Path) -> Result<(), StateError> {
        write_json(&layer.join(FILE), self)
    }
}

/// Beside the folders that overlayfs knows of.
const FILE: &str = "kept.json";
