//! Paths that somebody names, and who decides where they lead.
//!
//! A link in a repository is made by whoever writes there: by who wrote what was cloned, or by an earlier cell. So a path that somebody names may not
//! lead out of a repository by a link in it. In full, by its own path, everything can be named.

use std::path::{Component, Path, PathBuf};

use super::error::ResolveError;
use super::files::Files;
use super::host::HostFacts;
use super::origin::Origin;
use crate::project::ProjectFacts;

/// The world as far as it matters here.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Steady<'a> {
    pub(crate) files: &'a dyn Files,
    pub(crate) host: &'a HostFacts,
    pub(crate) project: Option<&'a ProjectFacts>,
}

impl Steady<'_> {
    /// Refuses `named`, an absolute path that leads to `canonical`, if a link in the project or in another repository leads it out of there.
    pub(super) fn check(self, named: &Path, canonical: &Path, origin: &Origin) -> Result<(), ResolveError> {
        let named = plain(named);
        if self.stays(&named, canonical) {
            return Ok(());
        }
        let (origin, text) = (origin.clone(), named.display().to_string());
        Err(ResolveError::LeadsOut { origin, text, path: canonical.to_owned() })
    }

    /// Whether `named`, which leads to `canonical`, does not leave a repository on the way.
    pub(crate) fn stays(self, named: &Path, canonical: &Path) -> bool {
        for top in named.ancestors().skip(1) {
            let Ok(seen) = self.files.look(top) else { continue };
            let is_project = self.project.is_some_and(|project| project.root == seen.canonical);
            // A home with a repository of settings in it is the person's own all the same.
            if !is_project && (top == self.host.home || self.host.homes.iter().any(|home| home == top)) {
                return true;
            }
            let holds = is_project || self.files.is_there(&top.join(".git"));
            if holds && !canonical.starts_with(&seen.canonical) {
                return false;
            }
        }
        true
    }
}

/// Without `..`, by its letters: where a link stands before one, what it really leads to is another place, and is found out of the folder it seems in.
fn plain(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => {
                plain.pop();
            }
            Component::CurDir => {}
            other => plain.push(other),
        }
    }
    plain
}
