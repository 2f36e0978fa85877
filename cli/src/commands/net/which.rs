//! Which cell is meant.

use std::time::SystemTime;

use cellblock_egress::control::{Reply, Request, ask};
use cellblock_runtime::state::{Dirs, Found, StateError};

use crate::args::values::{cell_name, word};
use crate::commands::cells_of;
use crate::place;
use crate::project;
use crate::report::CliError;
use crate::resolve::{HostFacts, default_name};

/// The running cell that `word` means, or the one of this project; `None` if none runs.
pub(super) fn running(word: Option<&str>, host: &HostFacts) -> Result<Option<Found>, CliError> {
    let mut cells = cells_of(word, host)?;
    if cells.len() > 1 {
        let names: Vec<_> = cells.iter().map(|c| c.record.cell.name.as_str()).collect();
        let of = word.map_or("this project".to_owned(), |w| format!("the project `{w}`"));
        return Err(CliError::plain(
            format!("several cells of {of} are running: {}", names.join(", ")),
            "name the one that is meant",
        ));
    }
    Ok(cells.pop())
}

/// The same; none is an error.
pub(super) fn must_run(word: Option<&str>, host: &HostFacts) -> Result<Found, CliError> {
    running(word, host)?.ok_or_else(|| not_running(word))
}

/// That nothing runs which could be asked.
pub(super) fn not_running(word: Option<&str>) -> CliError {
    let hint =
        "`cellblock status` lists the cells that run; `cellblock net log` also shows what one decided that has ended";
    match word {
        Some(word) => CliError::plain(format!("no cell or project named `{word}` is running"), hint),
        None => CliError::plain("no cell of this project is running", hint),
    }
}

/// The name of the cell whose audit is meant: it may have ended, and with `word` it may be yet to come.
pub(super) fn audited(word: Option<&str>, host: &HostFacts) -> Result<String, CliError> {
    match running(word, host) {
        Ok(Some(found)) => return Ok(found.record.cell.name),
        // Its audit can be read all the same.
        Err(CliError::State(StateError::OtherVersion { name, .. })) => return Ok(name),
        Ok(None) => {}
        Err(error) => return Err(error),
    }
    let dirs = place::dirs(host);
    let ended = ended(&dirs);
    if let Some(word) = word {
        cell_name(word).map_err(|e| CliError::plain(e.to_string(), "`cellblock status` lists the cells that run"))?;
        if ended.iter().any(|name| name == word) {
            return Ok(word.to_owned());
        }
        return Ok(newest_of(&ended, word).unwrap_or(word).to_owned());
    }
    let project = project::find(&host.cwd, host.uid, false)?;
    // Of this worktree before others of the project: a cell's name begins with the project's and the branch's.
    [default_name(Some(&project), ""), project.name]
        .iter()
        .find_map(|start| newest_of(&ended, start))
        .map(str::to_owned)
        .ok_or_else(|| {
            CliError::plain(
                "no cell of this project runs, and none has left an audit",
                "only cells with a network of their own have one; name the cell if it was started with `--name`",
            )
        })
}

/// The first of `names` that is `start` or `start-…`.
fn newest_of<'a>(names: &'a [String], start: &str) -> Option<&'a str> {
    let named = |name: &&String| name.strip_prefix(start).is_some_and(|rest| rest.is_empty() || rest.starts_with('-'));
    names.iter().find(named).map(String::as_str)
}

/// Cells that have an audit, the one that was written to last first.
fn ended(dirs: &Dirs) -> Vec<String> {
    // The name does not matter: all audits lie in one folder.
    let folder = dirs.audit("x").with_file_name("");
    let mut found: Vec<(SystemTime, String)> = std::fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?.strip_suffix(".jsonl")?.to_owned();
            cell_name(&name).ok()?;
            Some((entry.metadata().and_then(|m| m.modified()).ok()?, name))
        })
        .collect();
    found.sort();
    found.into_iter().rev().map(|(_, name)| name).collect()
}

/// Asks the network of a running cell.
pub(super) fn ask_cell(found: &Found, request: &Request, host: &HostFacts) -> Result<Reply, CliError> {
    let cell = &found.record.cell;
    let path = place::dirs(host).network_socket(&cell.name);
    ask(&path, request).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound | std::io::ErrorKind::ConnectionRefused => CliError::plain(
            format!(
                "the cell `{}` has no network that could be asked: its network is `{}`",
                cell.name,
                word(cell.network)
            ),
            "only a cell with a network by names (`--net names`) has rules",
        ),
        _ => CliError::plain(
            format!("the network of the cell `{}` does not answer: {error}", cell.name),
            "`cellblock net log` shows what it decided until now",
        ),
    })
}

/// That the network answered with something else than asked for, in its words.
pub(super) fn refused(name: &str, reply: &Reply) -> CliError {
    let why = match reply {
        Reply::Failed { why } => why.as_str(),
        _ => "it gave an answer to another question",
    };
    CliError::plain(
        format!("the network of the cell `{name}` did not do it: {why}"),
        "`cellblock net show` prints what is in force",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_begins_with_whole_parts() {
        let names = ["demo-2-sh", "demoiselle", "demo-main-sh", "demo"].map(str::to_owned);
        assert_eq!(newest_of(&names, "demo"), Some("demo-2-sh"));
        assert_eq!(newest_of(&names, "demo-main"), Some("demo-main-sh"));
        assert_eq!(newest_of(&names, "dem"), None);
    }
}
