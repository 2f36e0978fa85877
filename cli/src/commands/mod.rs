//! The commands, one file each: what is typed, its help, and what it does.
#![allow(
    rustdoc::broken_intra_doc_links,
    rustdoc::invalid_html_tags,
    reason = "these doc comments are shown to people as help, with brackets for what may be left out"
)]

pub(crate) mod agent;
mod agent_state;
pub(crate) mod bundle;
pub(crate) mod check;
pub(crate) mod completions;
pub(crate) mod config;
pub(crate) mod doctor;
pub(crate) mod exec;
pub(crate) mod image;
pub(crate) mod inspect;
pub(crate) mod logs;
pub(crate) mod man;
pub(crate) mod net;
pub(crate) mod remove;
pub(crate) mod run;
pub(crate) mod shell;
pub(crate) mod start;
pub(crate) mod status;
pub(crate) mod stop;

use std::path::Path;

use cellblock_runtime::cleanup;
use cellblock_runtime::state::{self, Claim, Dirs, Found, Listing, StateError};

use crate::job::{Job, run_in_outer};
use crate::output::say;
use crate::report::CliError;
use crate::resolve::HostFacts;
use crate::{place, project};

/// Cleans up after supervisors that were killed. Every command that looks at cells does this first, so nothing has to be mended by hand.
pub(crate) fn heal(dirs: &Dirs) -> Result<(), CliError> {
    state::stale(dirs)?.into_iter().try_for_each(|claim| heal_one(dirs, claim))
}

/// As [`heal`]; returns the cells that run. Their records are read, which takes its time if they are many.
pub(crate) fn healed(dirs: &Dirs) -> Result<Listing, CliError> {
    let mut listing = state::list(dirs)?;
    for claim in listing.stale.drain(..) {
        heal_one(dirs, claim)?;
    }
    Ok(listing)
}

/// Cleans up after one.
pub(crate) fn heal_one(dirs: &Dirs, claim: Claim) -> Result<(), CliError> {
    let record = state::stale_record(&claim);
    let ended = cleanup::end_stale(&claim);
    for (path, error) in &ended.cgroups {
        say(&format!(
            "cellblock: a cgroup of the cell {} could not be removed: {}: {error}",
            claim.name,
            path.display()
        ));
    }
    match record {
        // Files of foreign owners can only be removed where these exist.
        Some(found) if found.record.cell.ids.rootless() => {
            let lock = state::share_lock(&claim)
                .map_err(|source| CliError::Process { what: "cannot share a lock", source })?;
            let job = Job::Remove { dirs: dirs.clone(), name: claim.name.clone(), keep: ended.keep };
            if let Err(error) = run_in_outer(&job, &found.record.cell.ids, vec![lock]) {
                say(&format!("cellblock: leftovers of the cell {} could not be removed: {error}", claim.name));
            }
        }
        _ => cleanup::remove(dirs, claim, ended.keep),
    }
    Ok(())
}

/// The cells that a person means by `word`: a cell's name, or a project's name; without a word those of the current project.
/// The newest first.
///
/// Fails if there are none but such that another version of cellblock has started: most commands can do nothing with them.
pub(crate) fn cells_of(word: Option<&str>, host: &HostFacts) -> Result<Vec<Found>, CliError> {
    let mut meant = all_of(word, host)?;
    match meant.foreign.pop() {
        Some(foreign) if meant.alive.is_empty() => Err(StateError::from(foreign).into()),
        _ => Ok(meant.alive),
    }
}

/// The same, with those of other versions.
pub(crate) fn all_of(word: Option<&str>, host: &HostFacts) -> Result<Listing, CliError> {
    let mut cells = healed(&place::dirs(host))?;
    cells.alive.sort_by_key(|c| std::cmp::Reverse(c.record.started));
    let project = match word {
        None => project::find(&host.cwd, host.uid, false).ok().map(|p| (p.id, p.root)),
        Some(_) => None,
    };
    let named = word.is_some_and(|word| {
        cells.alive.iter().any(|c| c.record.cell.name == word) || cells.foreign.iter().any(|c| c.name == word)
    });
    let is_meant = |name: &str, of: Option<(&str, &str, &Path)>| match (word, of) {
        (Some(word), _) if named => name == word,
        (Some(word), Some((id, project, _))) => project == word || id == word,
        (None, Some((id, _, root))) => project.as_ref().is_some_and(|(i, r)| (i.as_str(), r.as_path()) == (id, root)),
        _ => false,
    };
    cells.alive.retain(|found| {
        let cell = &found.record.cell;
        is_meant(&cell.name, cell.project.as_ref().map(|of| (of.id.as_str(), of.name.as_str(), of.root.as_path())))
    });
    cells.foreign.retain(|found| {
        let project = found.record.cell.project.as_ref();
        is_meant(&found.name, project.map(|of| (of.id.as_str(), of.name.as_str(), of.root.as_path())))
    });
    Ok(cells)
}

/// How long ago, in words.
pub(crate) fn ago(seconds: u64) -> String {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |d| d.as_secs());
    let age = now.saturating_sub(seconds);
    match age {
        0..60 => format!("{age}s"),
        60..3600 => format!("{}m", age / 60),
        3600..86_400 => format!("{}h", age / 3600),
        _ => format!("{}d", age / 86_400),
    }
}
