//! What this host can do for cells, found out by doing it.
//!
//! Each probe does the real thing in a forked child, with the real code where there is some ([`outer::enter`](crate::outer::enter)), so that
//! the caller's state is untouched and a kernel, a container around us or a security module is asked rather than guessed at. Settings
//! are only read to say *why* something failed. [`run`] needs a process with one thread, as all that forks here.

mod bridge;
mod child;
mod fixes;
mod host;
mod ids;
mod namespaces;
mod storage;

use std::path::PathBuf;

use cellblock_bundle::Ids;
use cellblock_sys::process::SingleThreaded;
use serde::Serialize;

pub use fixes::free_range;
pub use namespaces::{nested_user_namespaces, user_namespaces};

/// What the probes have to be told; libraries do not read the environment.
#[derive(Clone, Debug)]
pub struct Facts {
    /// The person's user id.
    pub uid: u32,
    /// Their login name.
    pub user: String,
    /// Real root, with all ids at its disposal.
    pub real_root: bool,
    /// The ids that a cell has without a range. For real root, what its cells have.
    pub single: Ids,
    /// The ids that a cell has with subordinate ids, if there seem to be any.
    pub range: Option<Ids>,
    /// Subordinate user ids of the person: first and how many.
    pub subuids: Vec<(u32, u32)>,
    /// Subordinate group ids.
    pub subgids: Vec<(u32, u32)>,
    /// Where programs are looked for.
    pub path: Vec<PathBuf>,
    /// This program's file, for what has to name it.
    pub program: PathBuf,
    /// Where images and layers are kept, existing or not.
    pub data: PathBuf,
    /// Where state of running cells is kept, existing or not.
    pub runtime: PathBuf,
    /// `$XDG_RUNTIME_DIR`.
    pub xdg_runtime: Option<PathBuf>,
    /// `$container`, which container engines set for what they run.
    pub container: Option<String>,
}

impl Facts {
    /// The best ids that there seem to be.
    #[must_use]
    pub fn ids(&self) -> &Ids {
        self.range.as_ref().unwrap_or(&self.single)
    }
}

/// How a probe ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// Works.
    Ok,
    /// Does not; something is lost, but cells start.
    Degraded,
    /// Does not, and no cell can start.
    Missing,
    /// Could not be found out.
    Unknown,
}

/// What would mend it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Fix {
    /// In words, for what no command of this host can do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// Shell commands; `sudo` stands before those that need root.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub script: Option<String>,
}

/// One result.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Stable name.
    pub id: &'static str,
    /// In a few words.
    pub title: &'static str,
    /// How it ended.
    pub state: State,
    /// What was seen.
    pub detail: String,
    /// What one loses.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cost: Option<&'static str>,
    /// What would mend it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fix: Option<Fix>,
}

impl Finding {
    /// Works.
    #[must_use]
    pub fn ok(id: &'static str, title: &'static str, detail: impl Into<String>) -> Self {
        Self { id, title, state: State::Ok, detail: detail.into(), cost: None, fix: None }
    }

    /// Anything else.
    #[must_use]
    pub fn lacks(
        id: &'static str,
        title: &'static str,
        state: State,
        detail: impl Into<String>,
        cost: &'static str,
    ) -> Self {
        Self { id, title, state, detail: detail.into(), cost: Some(cost), fix: None }
    }

    /// With commands that mend it.
    #[must_use]
    pub fn script(mut self, script: impl Into<String>) -> Self {
        self.fix.get_or_insert_default().script = Some(script.into());
        self
    }

    /// With words about how to mend it.
    #[must_use]
    pub fn note(mut self, note: impl Into<String>) -> Self {
        self.fix.get_or_insert_default().note = Some(note.into());
        self
    }
}

/// Runs all probes, those first that others depend on. Takes about 0.1 s.
#[must_use]
pub fn run(facts: &Facts, alone: &SingleThreaded) -> Vec<Finding> {
    let mut all = vec![host::kernel(facts, alone), user_namespaces(facts, alone)];
    let users = all.iter().all(|f| f.state != State::Missing);
    if users {
        all.push(nested_user_namespaces(facts, alone));
    }
    let ids = ids::subordinate_ids(facts, alone);
    // What comes next is tried with the ids that really work.
    let mut facts = facts.clone();
    if ids.state != State::Ok {
        facts.range = None;
    }
    let facts = &facts;
    all.push(ids);
    // Without user namespaces the rest would only fail with the same words.
    if users {
        all.extend(namespaces::inside(facts, alone));
        all.push(bridge::bridge());
        all.extend(storage::overlay(facts, alone));
        all.extend(storage::id_mapped(facts, alone));
        all.extend(host::limits(facts, alone));
    }
    all.push(storage::space(facts));
    all.push(host::seccomp(alone));
    all.push(host::guard(alone));
    all.push(host::landlock());
    all.push(host::runtime_folder(facts));
    all.push(host::clock());
    all.push(host::container(facts));
    all.push(host::security_modules());
    all.push(host::systemd(facts));
    all
}
