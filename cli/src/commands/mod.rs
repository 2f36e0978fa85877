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
pub(crate) mod run;
pub(crate) mod shell;
pub(crate) mod start;
pub(crate) mod status;
pub(crate) mod stop;

use cellblock_runtime::cleanup;
use cellblock_runtime::state::{self, Claim, Dirs, Found};

use crate::job::{Job, run_in_outer};
use crate::output::say;
use crate::report::CliError;
use crate::resolve::HostFacts;
use crate::{place, project};

/// Cleans up after supervisors that were killed. Every command that looks at cells does this first, so nothing has to be mended by hand.
pub(crate) fn heal(dirs: &Dirs) -> Result<Vec<Found>, CliError> {
    let listing = state::list(dirs)?;
    for claim in listing.stale {
        heal_one(dirs, claim)?;
    }
    Ok(listing.alive)
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

/// The cell that a person means by `word`: a cell's name, or a project's name; without a word the cells of the current project.
/// The newest first.
pub(crate) fn cells_of(word: Option<&str>, host: &HostFacts) -> Result<Vec<Found>, CliError> {
    let mut cells = heal(&place::dirs(host))?;
    cells.sort_by_key(|c| std::cmp::Reverse(c.record.started));
    let project = match word {
        None => project::find(&host.cwd, host.uid, false).ok().map(|p| (p.id, p.root)),
        Some(_) => None,
    };
    cells.retain(|cell| match (word, &cell.record.cell.project) {
        (Some(word), _) if cell.record.cell.name == word => true,
        (Some(word), Some(of)) => of.name == word || of.id == word,
        (None, Some(of)) => project.as_ref().is_some_and(|(id, root)| of.id == *id && of.root == *root),
        _ => false,
    });
    if let Some(word) = word
        && cells.iter().any(|c| c.record.cell.name == word)
    {
        cells.retain(|c| c.record.cell.name == word);
    }
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
