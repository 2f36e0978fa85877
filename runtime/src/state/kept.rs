//! What a kept layer lies over.

use std::io;
use std::path::Path;
use std::time::UNIX_EPOCH;

use cellblock_bundle::Cell;
use serde::{Deserialize, Serialize};

use super::{Dirs, StateError, io_error, is_aside, write_json};

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

/// A layer that is kept of a cell that does not run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Left {
    /// The cell's name.
    pub name: String,
    /// When it was first kept, in seconds since 1970.
    pub since: u64,
    /// What it lies over, if that can be read.
    pub over: Option<Kept>,
}

/// All layers that are kept of cells that do not run, by name.
///
/// # Errors
/// [`StateError::Io`].
pub fn kept(dirs: &Dirs) -> Result<Vec<Left>, StateError> {
    let folder = dirs.data.join("cells");
    let entries = match std::fs::read_dir(&folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(io_error("cannot read", &folder)(error)),
    };
    let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    let mut found: Vec<Left> = names
        .filter(|name| !is_aside(name) && !dirs.cell(name).exists() && is_kept(dirs, name))
        .map(|name| Left { since: since(dirs, &name), over: Kept::read(dirs, &name), name })
        .collect();
    found.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(found)
}

/// Whether the layer that the cell `name` had is kept. What was written down says so, for the mark of `is_discarded` lies in a folder that overlayfs
/// closes to everybody: outside of OUTER a layer that a reboot has left would pass for a kept one.
#[must_use]
pub fn is_kept(dirs: &Dirs, name: &str) -> bool {
    dirs.layer(name).join(FILE).exists()
}

/// Whether the layer is one that goes with its cell: overlayfs marks those it was told not to sync (`volatile`, Linux 5.10). For who may look into it:
/// in OUTER.
pub(crate) fn is_discarded(layer: &Path) -> bool {
    layer.join("work/work/incompat/volatile").exists()
}

fn since(dirs: &Dirs, name: &str) -> u64 {
    let time = std::fs::metadata(dirs.layer(name).join(FILE)).and_then(|metadata| metadata.modified());
    time.unwrap_or(UNIX_EPOCH).duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// Beside the folders that overlayfs knows of.
const FILE: &str = "kept.json";
