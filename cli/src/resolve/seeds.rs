//! What is written into an agent's own files before it starts: where it reads of its cell (row D10), and the answers to what it would ask at a first
//! start. Only into what is the project's or the cell's own; the host's files stay as they are.

use std::path::Path;

use cellblock_bundle::{Added, Edit, Seed, State, StateKind, StateMode};
use serde_json::Value;

use super::state::at_home;
use super::*;
use crate::args::values::SeedForm;
use crate::config::SeedSpec;
use crate::sandbox_md;

/// What the cell is, as far as seeds depend on it.
#[derive(Clone, Copy)]
pub(super) struct Ground<'a> {
    pub(super) state: &'a [State],
    pub(super) home: &'a Path,
    pub(super) workdir: &'a Path,
    pub(super) has: &'a dyn Fn(&str) -> bool,
}

/// The word for the folder in which the cell works, as a key.
const WORKDIR: &str = "{workdir}";

impl<'a> Inputs<'a> {
    /// All of it, in the order of the agent's data.
    pub(super) fn seeds(
        self,
        layers: Layers<'a>,
        ground: Ground<'_>,
        explain: &mut Explain,
    ) -> Result<Vec<Seed>, ResolveError> {
        let Some(agent) = self.agent.filter(|_| self.typed.cell.entrypoint.is_none()) else { return Ok(Vec::new()) };
        let mut seeds: Vec<Seed> = Vec::new();
        let mut add = |path: &str, edit: Edit, value: String, origin: &Origin| {
            let target = self.inside(path, ground);
            let key = format!("seed {path}");
            match whose(&target, ground.state) {
                Ok(()) => explain.add(&key, &value, origin),
                // To write nothing is no news.
                Err(_) if edit == nothing() => return,
                Err(why) => return explain.add(&key, &format!("left as it is: {why}"), origin),
            }
            match seeds.iter_mut().find(|seed| seed.target == target) {
                Some(seed) => join(&mut seed.edits, edit),
                None => seeds.push(Seed { target, edits: vec![edit] }),
            }
        };
        if let Some(path) = &agent.spec.instructions {
            let flag = self.typed.cell.no_sandbox_md.then_some((false, "--no-sandbox-md"));
            let said = layers.pick(Wanted { flag, variable: None, key: |s| &s.sandbox_md }, true)?;
            let imports = agent.spec.imports.as_ref().is_some_and(|said| said.value);
            if said.value {
                let part = Edit::Part { text: sandbox_md::pointer(imports) };
                add(&path.value, part, format!("points to {}", sandbox_md::PATH), &said.origin);
            } else {
                // What an earlier start has written goes.
                add(&path.value, nothing(), format!("says nothing of {}", sandbox_md::PATH), &said.origin);
            }
        }
        let flag = self.typed.cell.onboarding.then_some((true, "--onboarding"));
        let asked = layers.pick(Wanted { flag, variable: None, key: |s| &s.onboarding }, false)?;
        let unattended = !self.asks(agent).0 && agent.spec.unattended.as_ref().is_some_and(|flags| !flags.is_empty());
        for seed in agent.spec.seeds.iter().flatten().filter(|_| !asked.value) {
            let wanted = seed.variable.as_deref().is_none_or(ground.has) && (unattended || !seed.unattended);
            if wanted {
                add(&seed.path.value, edit(seed, ground.workdir), words(&seed.keys), &asked.origin);
            }
        }
        Ok(seeds)
    }

    /// Where a file of the person's home is inside; the agent may have been told of another place for it.
    fn inside(self, path: &str, ground: Ground<'_>) -> PathBuf {
        let host = at_home(path, &self.host.home);
        let own = ground.state.iter().find(|state| state.kind == StateKind::File && state.host == host);
        own.map_or_else(|| at_home(path, ground.home), |state| state.target.clone())
    }
}

/// Our part of a text, gone.
fn nothing() -> Edit {
    Edit::Part { text: String::new() }
}

/// Whether a file is the project's or the cell's own; if not, whose it is.
fn whose(target: &Path, state: &[State]) -> Result<(), &'static str> {
    let own = |state: &State| matches!(state.mode, StateMode::Private | StateMode::Copy);
    let folders = state.iter().filter(|state| state.kind == StateKind::Folder && target.starts_with(&state.target));
    let folder = folders.max_by_key(|state| state.target.components().count());
    let file = state.iter().find(|state| state.target == target);
    match (folder, file) {
        (_, Some(file)) if file.kind == StateKind::Login => Err("it is a login"),
        (Some(folder), None) if own(folder) => Ok(()),
        (Some(folder), Some(file)) if own(folder) && own(file) => Ok(()),
        (Some(_), _) => Err("it is the host's own"),
        (None, _) => Err("it is in no folder of the agent's that the cell has for itself"),
    }
}

fn edit(seed: &SeedSpec, workdir: &Path) -> Edit {
    let added = Added { keys: placed(&seed.keys, &workdir.to_string_lossy()), over_false: seed.over_false };
    match seed.form {
        SeedForm::Json => Edit::Json(added),
        SeedForm::Toml => Edit::Toml(added),
    }
}

/// Adds an edit, to the last one if that is of its kind: a file is read once for each.
fn join(edits: &mut Vec<Edit>, edit: Edit) {
    match (edits.last_mut(), &edit) {
        (Some(Edit::Json(last)), Edit::Json(new)) | (Some(Edit::Toml(last)), Edit::Toml(new))
            if last.over_false == new.over_false =>
        {
            both(&mut last.keys, &new.keys);
        }
        _ => edits.push(edit),
    }
}

/// The keys of both; of two values the first.
fn both(into: &mut Value, from: &Value) {
    if let (Value::Object(into), Value::Object(from)) = (into, from) {
        for (key, value) in from {
            both(into.entry(key).or_insert_with(|| value.clone()), value);
        }
    }
}

/// With the folder in the place of its word, where that is a key.
fn placed(value: &Value, workdir: &str) -> Value {
    match value {
        Value::Object(keys) => {
            let key = |key: &str| if key == WORKDIR { workdir.to_owned() } else { key.to_owned() };
            keys.iter().map(|(name, value)| (key(name), placed(value, workdir))).collect()
        }
        other => other.clone(),
    }
}

/// For people: the names of what is set, each with its way there.
fn words(keys: &Value) -> String {
    fn leaves(value: &Value, way: &str, found: &mut Vec<String>) {
        match value {
            Value::Object(keys) => {
                for (key, value) in keys {
                    leaves(value, &if way.is_empty() { key.clone() } else { format!("{way}.{key}") }, found);
                }
            }
            value => found.push(format!("{way}={}", value.as_str().map_or_else(|| value.to_string(), str::to_owned))),
        }
    }
    let mut found = Vec::new();
    leaves(keys, "", &mut found);
    format!("{}, unless something is said", found.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(target: &str, kind: StateKind, mode: StateMode) -> State {
        let (host, target) = (PathBuf::from(target), PathBuf::from(target));
        State { agent: "a".into(), host, target, kind, mode, hidden: Vec::new(), locks: Vec::new() }
    }

    #[test]
    fn only_what_is_the_cells_is_written() {
        use StateKind::{File, Folder, Login};
        use StateMode::{Copy, Private, Share, Sync};
        for (mode, ok) in [(Private, true), (Copy, true), (Share, false), (Sync, false)] {
            let all = [
                state("/h/.a", Folder, mode),
                state("/h/.a/login", Login, Private),
                state("/h/.a/shared", File, Share),
                state("/h/.loose", File, mode),
            ];
            assert_eq!(whose(Path::new("/h/.a/x/y"), &all).is_ok(), ok, "{mode:?}");
            for never in ["/h/.a/login", "/h/.a/shared", "/h/.loose", "/h/.b"] {
                assert!(whose(Path::new(never), &all).is_err(), "{never} {mode:?}");
            }
        }
        // The nearest folder counts.
        let all = [state("/h/.a", Folder, Share), state("/h/.a/b", Folder, Private)];
        assert!(whose(Path::new("/h/.a/b/c"), &all).is_ok() && whose(Path::new("/h/.a/c"), &all).is_err());
    }

    #[test]
    fn edits_of_a_kind_are_one() {
        let json = |keys, over_false| Edit::Json(Added { keys, over_false });
        let mut edits = Vec::new();
        for (keys, over_false) in [
            (serde_json::json!({"a": 1, "b": {"c": 1}}), true),
            (serde_json::json!({"a": 2, "b": {"d": 2}}), true),
            (serde_json::json!({"e": 1}), false),
        ] {
            join(&mut edits, json(keys, over_false));
        }
        let one = json(serde_json::json!({"a": 1, "b": {"c": 1, "d": 2}}), true);
        assert_eq!(edits, [one, json(serde_json::json!({"e": 1}), false)]);
    }

    #[test]
    fn the_folder_stands_for_its_word() {
        let keys = serde_json::json!({"projects": {"{workdir}": {"t": "{workdir}"}}});
        assert_eq!(placed(&keys, "/p q"), serde_json::json!({"projects": {"/p q": {"t": "{workdir}"}}}));
        assert_eq!(words(&keys), "projects.{workdir}.t={workdir}, unless something is said");
    }
}
