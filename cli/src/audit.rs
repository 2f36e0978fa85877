//! The audit: what a cell will be able to see and do, said before it starts, and the question.

use std::collections::BTreeSet;
use std::io::{BufRead, IsTerminal};
use std::path::PathBuf;

use cellblock_bundle::cell::{Brokers, StateMode};
use cellblock_bundle::{Cell, IdScheme, Mount, Network, Reach, Said};
use sha2::{Digest, Sha256};

use crate::args::values::word;
use crate::brokers;
use crate::output::{Style, plain, say};
use crate::report::CliError;
use crate::resolve::HostFacts;

/// Says the facts on standard error.
pub(crate) fn print(cell: &Cell) {
    let style = Style::stderr();
    let line = |(key, text): (&str, String)| format!("{} {}", style.bold(&format!("{key:<8}")), plain(&text));
    say(&facts(cell).into_iter().map(line).collect::<Vec<_>>().join("\n"));
}

/// The facts in words.
fn facts(cell: &Cell) -> Vec<(&'static str, String)> {
    let list = |writable: bool| {
        let paths: Vec<String> = cell
            .mounts
            .iter()
            .filter(|m| !covers(m, &cell.mounts))
            .filter_map(|m| match m {
                Mount::Bind { source, writable: w, .. } if *w == writable => Some(source.display().to_string()),
                _ => None,
            })
            .collect();
        if paths.is_empty() { "nothing".to_owned() } else { paths.join(", ") }
    };
    let reads = if cell.image == "host" { "this host's system folders" } else { "" };
    let overlay = cell.overlay.as_ref().map_or_else(String::new, |path| format!("{} over its root", path.display()));
    let mut reads = vec![reads.to_owned(), overlay, list(false)];
    reads.retain(|r| !r.is_empty() && r != "nothing");
    let network = match cell.network {
        Network::None => "none".to_owned(),
        Network::Names => by_name(&cell.reach),
        Network::Bridge => bridge(&cell.reach),
        Network::Host => {
            "THE HOST'S, not separated: it reaches everything you reach, services on localhost included".to_owned()
        }
    };
    let ids = match cell.ids.scheme {
        IdScheme::KeepRoot => ", which is ROOT OF THIS HOST for the files it sees",
        _ => "",
    };
    let mut facts = vec![
        ("cell", format!("{} (image {}, profile {})", cell.name, cell.image, word(cell.profile))),
        ("writes", list(true)),
        ("reads", if reads.is_empty() { "nothing of this host".into() } else { reads.join(", ") }),
        ("network", network),
        ("user", format!("{} ({}){ids}", cell.user.name, cell.user.uid)),
    ];
    let covered: Vec<String> = cell
        .mounts
        .iter()
        .filter(|mount| matches!(mount, Mount::Mask { .. }))
        .map(|mount| mount.target().display().to_string())
        .collect();
    if !covered.is_empty() {
        facts.insert(3, ("covered", covered.join(", ")));
    }
    facts.extend(state(cell).map(|text| ("agent", text)));
    facts.extend(brokers::words(&cell.brokers).into_iter().map(|words| ("may", words)));
    facts.push(("command", cell.command.join(" ")));
    facts.extend(opened(cell).map(|text| ("protect", text)));
    if !cell.guard && !cell.protect.is_empty() {
        let text = "OFF: it can make hooks and settings that do not exist yet, which programs of this host then run";
        facts.push(("guard", text.to_owned()));
    }
    facts
}

/// Whether a mount shows a part of another one at its own place: then it takes something away and gives nothing.
pub(crate) fn covers(mount: &Mount, all: &[Mount]) -> bool {
    let Mount::Bind { source, target, .. } = mount else { return false };
    all.iter().any(|other| match other {
        Mount::Bind { source: wider, target: at, writable: true } => {
            target != at && target.strip_prefix(at).is_ok_and(|rest| wider.join(rest) == *source)
        }
        _ => false,
    })
}

/// What of its agent's files in the person's home it sees, and how; what it can change there comes first.
fn state(cell: &Cell) -> Option<String> {
    let of = |mode: StateMode, words: &str| {
        let paths: Vec<String> =
            cell.state.iter().filter(|one| one.mode == mode).map(|one| one.host.display().to_string()).collect();
        (!paths.is_empty()).then(|| format!("{words} {}", paths.join(", ")))
    };
    let said = [
        of(StateMode::Share, "reads and CHANGES"),
        of(StateMode::Sync, "reads"),
        of(StateMode::Private, "has the project's own copy of"),
        of(StateMode::Copy, "has a copy of"),
    ];
    let said: Vec<String> = said.into_iter().flatten().collect();
    (!said.is_empty()).then(|| said.join("; "))
}

/// What is not protected that usually is.
fn opened(cell: &Cell) -> Option<String> {
    let writes = cell.mounts.iter().any(|m| matches!(m, Mount::Bind { writable: true, .. }));
    if cell.protect.is_empty() {
        let text = "OFF: it can change git's hooks and what else programs of this host run from the project";
        return writes.then(|| text.to_owned());
    }
    let open: Vec<String> = cell.protect.open.iter().map(|path| path.display().to_string()).collect();
    (!open.is_empty()).then(|| format!("all but {}", open.join(", ")))
}

/// The first rules of a list.
fn few(list: &[Said]) -> String {
    /// More than that are counted.
    const SHOWN: usize = 6;
    let words: Vec<&str> = list.iter().take(SHOWN).map(|said| said.rule.as_str()).collect();
    let more = list.len().saturating_sub(SHOWN);
    words.join(", ") + &if more > 0 { format!(" and {more} more") } else { String::new() }
}

/// What can be reached by name, in a line.
fn by_name(reach: &Reach) -> String {
    let text = if reach.allow.is_empty() {
        "nothing can be reached".to_owned()
    } else {
        format!("only what is allowed by name: {}", few(&reach.allow))
    };
    text + &never_and_published(reach)
}

/// What can be reached through a bridge, in a line.
fn bridge(reach: &Reach) -> String {
    let mut text = "THE WHOLE INTERNET, but neither this host nor private addresses nor other cells".to_owned();
    if !reach.allow.is_empty() {
        text += &format!("; also: {}", few(&reach.allow));
    }
    text + &never_and_published(reach)
}

fn never_and_published(reach: &Reach) -> String {
    let mut text = String::new();
    if !reach.deny.is_empty() {
        text += &format!("; never: {}", few(&reach.deny));
    }
    if !reach.publish.is_empty() {
        let ports: Vec<String> = reach.publish.iter().map(ToString::to_string).collect();
        text += &format!("; published: {}", ports.join(", "));
    }
    text
}

/// Asks, unless told not to, there is nobody to ask, or the same exposure was approved before.
///
/// Approvals are stored outside every project, so nothing in a repository can give one.
pub(crate) fn ask(cell: &Cell, host: &HostFacts, yes: bool) -> Result<(), CliError> {
    let approvals = crate::place::dirs(host).state.join("approved");
    let approval = approvals.join(exposure(cell));
    if yes || approval.exists() || !(host.stdin_terminal && host.stdout_terminal) || !std::io::stderr().is_terminal() {
        return Ok(());
    }
    eprint_question();
    let mut answer = String::new();
    let _ = std::io::stdin().lock().read_line(&mut answer);
    // No answer at all (Ctrl-D) is no.
    let agreed = matches!(answer.trim_end_matches(['\n', '\r']), "" | "y" | "Y" | "yes") && answer.ends_with('\n');
    if !agreed {
        return Err(CliError::Declined);
    }
    remember(&approvals, &approval);
    Ok(())
}

#[expect(clippy::print_stderr, reason = "a prompt has no newline")]
fn eprint_question() {
    eprint!("Start it? It will not be asked again for the same exposure. [Y/n] ");
}

/// Best effort: if it cannot be stored, the question comes again.
fn remember(approvals: &PathBuf, approval: &PathBuf) {
    let _ = std::fs::create_dir_all(approvals).and_then(|()| std::fs::write(approval, ""));
}

/// A digest of everything that widens what a cell reaches; name, command and environment values are not in it.
fn exposure(cell: &Cell) -> String {
    let names: BTreeSet<&String> = cell.env.keys().chain(&cell.hidden).collect();
    let shown: Vec<&Mount> = cell.mounts.iter().filter(|m| !covers(m, &cell.mounts)).collect();
    let mut mounts = serde_json::to_string(&shown).unwrap_or_default();
    // The linked worktrees of a repository, which has confirmed them, are one exposure: else each `git worktree add` would bring the question back.
    if let Some(project) = cell.project.as_ref().filter(|project| crate::project::id(&project.root) != project.id) {
        let quoted = |text: &str| serde_json::to_string(text).unwrap_or_default();
        mounts = mounts.replace(&quoted(&project.root.to_string_lossy()), &quoted(&project.id));
    }
    let reach: Vec<&str> = cell.reach.allow.iter().map(|said| said.rule.as_str()).collect();
    let state: Vec<_> = cell.state.iter().map(|one| (&one.host, one.kind, one.mode)).collect();
    let overlay = cell.overlay.as_ref().map_or_else(String::new, |path| format!("\n{}", path.display()));
    let state = if state.is_empty() { String::new() } else { format!("\n{state:?}") };
    // A placeholder is another one at each start.
    let git: Vec<String> = cell.brokers.git.iter().flat_map(|git| &git.remotes).map(ToString::to_string).collect();
    // In tmux or not: the same cell.
    let without = Brokers { git: None, workmux: None, ..cell.brokers.clone() };
    let brokers = match (without.is_empty(), git.is_empty()) {
        (true, true) => String::new(),
        _ => format!("\n{without:?}\n{git:?}"),
    };
    // Covers take away. Which of them there are depends on what exists, and a new one is no new exposure.
    let text = format!(
        "{}\n{}\n{}\n{:?}\n{mounts}\n{names:?}\n{reach:?}\n{:?}\n{:?}\n{}{brokers}{state}{overlay}",
        cell.image,
        word(cell.profile),
        word(cell.network),
        cell.ids.scheme,
        cell.reach.publish,
        opened(cell),
        cell.guard
    );
    Sha256::digest(text).iter().take(16).map(|b| format!("{b:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cell() -> Cell {
        serde_json::from_str(include_str!("resolve/tests/golden/agent.json")).expect("a cell")
    }

    fn fact(cell: &Cell, key: &str) -> Option<String> {
        facts(cell).into_iter().find(|(known, _)| *known == key).map(|(_, text)| text)
    }

    #[test]
    fn an_agents_files_are_told_and_asked_about() {
        let cell = cell();
        let said = fact(&cell, "agent").expect("an agent's cell");
        assert!(said.starts_with("reads and CHANGES /home/ada/.claude/.credentials.json;"), "{said}");
        assert!(said.contains("the project's own copy of /home/ada/.claude"), "{said}");
        let without = Cell { state: Vec::new(), ..cell.clone() };
        assert_eq!(fact(&without, "agent"), None);
        assert_ne!(exposure(&cell), exposure(&without));
        let mut wider = cell.clone();
        wider.state[0].mode = StateMode::Share;
        assert_ne!(exposure(&cell), exposure(&wider), "more is shared: a new question");
        // The twin: what widens nothing brings no question back.
        let other = Cell { name: "other".into(), command: vec!["x".into()], ..cell.clone() };
        assert_eq!(exposure(&cell), exposure(&other));
    }

    #[test]
    fn linked_worktrees_of_a_repository_are_one_exposure_and_other_folders_are_not() {
        let at = |root: &str, id: &str| {
            let mut cell = cell();
            let project = cell.project.as_mut().expect("a project");
            (project.root, project.id) = (root.into(), id.into());
            cell.mounts = vec![Mount::Bind { source: root.into(), target: root.into(), writable: true }];
            exposure(&cell)
        };
        let id = crate::project::id(std::path::Path::new("/home/ada/web"));
        assert_eq!(at("/home/ada/web__worktrees/a", &id), at("/home/ada/web__worktrees/b", &id));
        assert_ne!(at("/home/ada/web__worktrees/a", &id), at("/home/ada/web", &id));
        let own = |root: &str| at(root, &crate::project::id(std::path::Path::new(root)));
        assert_ne!(own("/home/ada/a"), own("/home/ada/b"));
    }
}
