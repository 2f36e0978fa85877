//! What can be said about an agent, in the person's file and in those that are shipped (`agents/*.yaml`): one model, one reader.
#![allow(
    rustdoc::broken_intra_doc_links,
    reason = "these doc comments are shown to people, with brackets for what may be left out"
)]

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Serialize;

use super::model::{Located, Settings, words};
use super::problem::{Place, Problem};
use super::read::{KEYS, Reader, unknown};
use super::tree::{Key, Kind, Node};
use crate::args::values::{Choice, EnvEntry, Given, SeedForm, StateMode, ValueError};
use crate::project::sanitise;

/// An agent, or what is to be different for one that is known.
#[derive(Clone, Debug, Default, PartialEq, Eq, JsonSchema, Serialize)]
#[schemars(deny_unknown_fields)]
pub(crate) struct AgentSettings {
    /// Where its name stands.
    #[serde(skip)]
    #[schemars(skip)]
    pub(crate) at: Place,
    /// What it is.
    #[serde(flatten)]
    pub(crate) spec: AgentSpec,
    /// Everything that can stand under `defaults` too.
    #[serde(flatten)]
    pub(crate) settings: Settings,
}

/// What an agent is. Everything may be left out; for an agent that cellblock knows that means as it knows it.
#[derive(Clone, Debug, Default, PartialEq, Eq, JsonSchema, Serialize)]
pub(crate) struct AgentSpec {
    /// Its name for people.
    #[schemars(with = "Option<String>")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) title: Option<Located<String>>,
    /// Its program's name; of several the first that is found. An agent that is not known and says none is called as its program.
    #[schemars(with = "Option<Vec<String>>")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) programs: Option<Vec<Located<String>>>,
    /// How it is installed: npm, pip, nix name a package, host is a command.
    #[schemars(with = "Option<BTreeMap<String, String>>")]
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) install: BTreeMap<String, Located<String>>,
    /// The flags, or variables as NAME=VALUE, that make it act without asking; they are added, as the cell limits what it can do.
    #[schemars(with = "Option<Vec<String>>")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) unattended: Option<Vec<Located<String>>>,
    /// Words that, where its arguments begin with one, make it do something other than act: those flags are not put before them.
    #[schemars(with = "Option<Vec<String>>")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) subcommands: Option<Vec<Located<String>>>,
    /// Whether it is to ask before it acts, as it does without cellblock.
    #[schemars(with = "Option<bool>")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) asks: Option<Located<bool>>,
    /// Variables of the host that it gets where they are set.
    #[schemars(with = "Option<Vec<String>>")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) pass_env: Option<Vec<Located<String>>>,
    /// Its files and folders in your home directory, and how a cell sees each.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "Option<Vec<StatePath>>")]
    pub(crate) state: Vec<StatePath>,
    /// Its files with a login, and how a cell sees each.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "Option<Vec<StatePath>>")]
    pub(crate) login: Vec<StatePath>,
    /// The file in which it reads what a person wants in every project.
    #[schemars(with = "Option<String>")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) instructions: Option<Located<String>>,
    /// Whether a line `@PATH` in that file brings another file in, one of /etc too.
    #[schemars(with = "Option<bool>")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) imports: Option<Located<bool>>,
    /// What its files are to say already when it starts, so that it does not ask; only inside, and only where they say nothing.
    #[schemars(with = "Option<Vec<SeedSpec>>")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) seeds: Option<Vec<SeedSpec>>,
}

/// Keys of a file of an agent's.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema, Serialize)]
#[schemars(deny_unknown_fields)]
pub(crate) struct SeedSpec {
    /// The file: an absolute path, or one that begins with `~/`; it is in a folder of the agent's state, or is a file of it.
    #[schemars(with = "String")]
    pub(crate) path: Located<String>,
    /// How the file is written.
    #[schemars(default, schema_with = "words::<SeedForm>")]
    pub(crate) form: SeedForm,
    /// The keys, as a map; `{workdir}` as a key is the folder in which the cell works.
    #[schemars(with = "BTreeMap<String, serde_json::Value>")]
    pub(crate) keys: serde_json::Value,
    /// Whether `false` in the file counts as nothing said: some programs write it before they have asked.
    #[schemars(default)]
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(crate) over_false: bool,
    /// Whether this is only for an agent that acts without asking, as for questions about trust and danger.
    #[schemars(default)]
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(crate) unattended: bool,
    /// Only where the cell has this variable.
    #[schemars(with = "Option<String>")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) variable: Option<String>,
}

/// A file or folder of an agent's.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema, Serialize)]
#[schemars(deny_unknown_fields)]
pub(crate) struct StatePath {
    /// Where it is: an absolute path, or one that begins with `~/`.
    #[schemars(with = "String")]
    pub(crate) path: Located<String>,
    /// How a cell sees it: private has the host's below a layer of the project's own, copy is copied at start, share is the host's own, sync is kept in step and read-only.
    #[schemars(default, schema_with = "words::<StateMode>")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) mode: Option<Located<StateMode>>,
    /// Whether it is a file; else a folder. Logins always are files.
    #[schemars(default)]
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(crate) file: bool,
    /// What in it belongs to single projects, such as transcripts: names below it, or `*` for everything. The host's are not shown.
    #[schemars(with = "Option<Vec<String>>")]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) history: Vec<String>,
    /// Where a cell sees a file, if it can be told so: in a folder of the same agent's that is private or copied.
    #[schemars(with = "Option<String>")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) inside: Option<String>,
    /// The variable by which it is told so: NAME=VALUE.
    #[schemars(with = "Option<String>")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) inside_env: Option<String>,
    /// The variable by which its program is told where a folder is, if there is one, or NAME=PATH if it wants another path (such as `~`, the folder above); used where the home is a folder of the host's.
    #[schemars(with = "Option<String>")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) home_env: Option<String>,
    /// For a login: names of folders beside it that its program makes while it renews it.
    #[schemars(with = "Option<Vec<String>>")]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) locks: Vec<String>,
}

/// Keys of an agent beside those of every section.
pub(super) const AGENT_KEYS: &[&str] = &[
    "title",
    "programs",
    "install",
    "unattended",
    "subcommands",
    "asks",
    "pass_env",
    "state",
    "login",
    "instructions",
    "imports",
    "seeds",
];

/// Keys of a seed.
const SEED_KEYS: &[&str] = &["path", "form", "keys", "over_false", "unattended", "variable"];

/// Keys of a file or folder of an agent's.
const STATE_KEYS: &[&str] = &["path", "mode", "file", "history", "inside", "inside_env", "home_env", "locks"];

impl Reader<'_> {
    /// One agent.
    pub(super) fn agent(&mut self, name: &Key, node: Node) -> AgentSettings {
        if name.text.is_empty() || sanitise(&name.text) != name.text {
            let problem = Problem::new(name.at, format!("{:?} is not a name for an agent", name.text));
            self.problems.push(
                problem.hint("lower-case letters, digits and . _ -, beginning and ending with a letter or a digit"),
            );
        }
        let mut agent = AgentSettings { at: name.at, ..AgentSettings::default() };
        for (key, node) in self.map(node, &format!("the agent `{}`", name.text)) {
            if !self.agent_key(&key, node.clone(), &mut agent.spec) && !self.key(&key, node, &mut agent.settings) {
                let known: Vec<&str> = AGENT_KEYS.iter().chain(KEYS).copied().collect();
                self.problems.push(unknown(&key, &known));
            }
        }
        agent
    }

    fn agent_key(&mut self, key: &Key, node: Node, to: &mut AgentSpec) -> bool {
        match key.text.as_str() {
            "title" => to.title = self.scalar(key, node, text),
            "programs" => to.programs = Some(self.texts(key, node, program)),
            "install" => to.install = self.install(node),
            "unattended" => to.unattended = Some(self.texts(key, node, text)),
            "subcommands" => to.subcommands = Some(self.texts(key, node, text)),
            "asks" => to.asks = self.truth(key, node),
            "pass_env" => to.pass_env = Some(self.texts(key, node, variable)),
            "state" => to.state = self.state(key, node),
            "login" => {
                to.login = self.state(key, node).into_iter().map(|one| StatePath { file: true, ..one }).collect()
            }
            "instructions" => to.instructions = self.scalar(key, node, home_path),
            "imports" => to.imports = self.truth(key, node),
            "seeds" => to.seeds = Some(self.seeds(key, node)),
            _ => return false,
        }
        true
    }

    pub(super) fn texts(
        &mut self,
        key: &Key,
        node: Node,
        read: fn(&str) -> Result<String, ValueError>,
    ) -> Vec<Located<String>> {
        self.list(node, &key.text).into_iter().filter_map(|item| self.scalar(key, item, read)).collect()
    }

    fn install(&mut self, node: Node) -> BTreeMap<String, Located<String>> {
        let entries = self.map(node, "`install`");
        entries.into_iter().filter_map(|(key, node)| Some((key.text.clone(), self.scalar(&key, node, text)?))).collect()
    }

    fn state(&mut self, key: &Key, node: Node) -> Vec<StatePath> {
        let items = self.list(node, &key.text);
        items.into_iter().filter_map(|item| self.state_path(key, item)).collect()
    }

    fn state_path(&mut self, outer: &Key, node: Node) -> Option<StatePath> {
        let at = node.at;
        let mut path = None;
        let (mut mode, mut file, mut history) = (None, false, Vec::new());
        let (mut inside, mut inside_env, mut home_env, mut locks) = (None, None, None, Vec::new());
        for (key, node) in self.map(node, &format!("an entry of `{}`", outer.text)) {
            match key.text.as_str() {
                "path" => path = self.scalar(&key, node, home_path),
                "mode" => mode = self.scalar(&key, node, StateMode::read),
                "file" => file = self.truth(&key, node).is_some_and(|said| said.value),
                "history" => history = self.texts(&key, node, row).into_iter().map(|said| said.value).collect(),
                "inside" => inside = self.scalar(&key, node, home_path).map(|said| said.value),
                "inside_env" => inside_env = self.scalar(&key, node, assignment).map(|said| said.value),
                "home_env" => home_env = self.scalar(&key, node, place).map(|said| said.value),
                "locks" => locks = self.texts(&key, node, name).into_iter().map(|said| said.value).collect(),
                _ => self.problems.push(unknown(&key, STATE_KEYS)),
            }
        }
        if path.is_none() && !matches!(self.problems.last(), Some(problem) if problem.at >= at) {
            self.problems.push(Problem::new(at, format!("an entry of `{}` has no `path`", outer.text)));
        }
        Some(StatePath { path: path?, mode, file, history, inside, inside_env, home_env, locks })
    }
}

impl Reader<'_> {
    fn seeds(&mut self, key: &Key, node: Node) -> Vec<SeedSpec> {
        self.list(node, &key.text).into_iter().filter_map(|item| self.seed(item)).collect()
    }

    fn seed(&mut self, node: Node) -> Option<SeedSpec> {
        let (at, before) = (node.at, self.problems.len());
        let (mut path, mut form, mut keys) = (None, None, None);
        let (mut over_false, mut unattended, mut variable) = (false, false, None);
        for (key, node) in self.map(node, "an entry of `seeds`") {
            match key.text.as_str() {
                "path" => path = self.scalar(&key, node, home_path),
                "form" => form = self.scalar(&key, node, SeedForm::read).map(|said| said.value),
                "keys" => {
                    keys = Some(value(&Node { kind: Kind::Map(self.map(node, "`keys`")), at }));
                }
                "over_false" => over_false = self.truth(&key, node).is_some_and(|said| said.value),
                "unattended" => unattended = self.truth(&key, node).is_some_and(|said| said.value),
                "variable" => variable = self.scalar(&key, node, self::variable).map(|said| said.value),
                _ => self.problems.push(unknown(&key, SEED_KEYS)),
            }
        }
        if self.problems.len() == before && (path.is_none() || keys.is_none()) {
            self.problems.push(Problem::new(at, "an entry of `seeds` has a `path` and `keys`"));
        }
        let form = form.unwrap_or(SeedForm::Json);
        Some(SeedSpec { path: path?, form, keys: keys?, over_false, unattended, variable })
    }
}

/// A value as JSON has it: what is not in quotes may be a truth or a whole number.
fn value(node: &Node) -> serde_json::Value {
    match &node.kind {
        Kind::Null => serde_json::Value::Null,
        Kind::Scalar { text, plain: true } if matches!(text.as_str(), "true" | "false") => (text == "true").into(),
        Kind::Scalar { text, plain } => match text.parse::<i64>() {
            Ok(number) if *plain => number.into(),
            _ => text.as_str().into(),
        },
        Kind::List(items) => items.iter().map(value).collect(),
        Kind::Map(entries) => entries.iter().map(|(key, node)| (key.text.clone(), value(node))).collect(),
    }
}

fn text(text: &str) -> Result<String, ValueError> {
    if text.contains('\0') { Err(ValueError::Nul) } else { Ok(text.to_owned()) }
}

/// A program's name, which is looked for in the PATH.
fn program(text: &str) -> Result<String, ValueError> {
    if text.contains(['/', '\0']) { Err(ValueError::Program) } else { Ok(text.to_owned()) }
}

fn variable(text: &str) -> Result<String, ValueError> {
    let entry: EnvEntry = text.parse()?;
    if entry.value == Given::Host { Ok(entry.name) } else { Err(ValueError::EnvName(text.to_owned())) }
}

/// A variable's name, or `NAME=PATH`.
fn place(text: &str) -> Result<String, ValueError> {
    match text.split_once('=') {
        None => variable(text),
        Some((name, path)) => {
            variable(name)?;
            if path != "~" {
                home_path(path)?;
            }
            Ok(text.to_owned())
        }
    }
}

/// `~/…` or an absolute path, without `..`: what a shipped file names must not depend on where it is read.
fn home_path(text: &str) -> Result<String, ValueError> {
    let rest = text.strip_prefix("~/").or_else(|| text.strip_prefix('/'));
    match rest {
        Some(rest) if plain(rest) => Ok(text.to_owned()),
        _ => Err(ValueError::HomePath),
    }
}

/// A path below another, or `*`.
fn beneath(text: &str) -> Result<String, ValueError> {
    if plain(text) { Ok(text.to_owned()) } else { Err(ValueError::Beneath) }
}

/// The same, where a `*` may stand for any letters of a name: one in each.
fn row(text: &str) -> Result<String, ValueError> {
    let single = text.split('/').all(|part| part.matches('*').count() < 2);
    if single { beneath(text) } else { Err(ValueError::Beneath) }
}

/// `NAME=VALUE`.
fn assignment(text: &str) -> Result<String, ValueError> {
    let entry: EnvEntry = text.parse()?;
    if matches!(entry.value, Given::Value(_)) { Ok(text.to_owned()) } else { Err(ValueError::Assignment) }
}

/// A single name.
fn name(text: &str) -> Result<String, ValueError> {
    if plain(text) && !text.contains('/') { Ok(text.to_owned()) } else { Err(ValueError::Beneath) }
}

fn plain(path: &str) -> bool {
    !path.is_empty() && !path.contains('\0') && path.split('/').all(|part| !matches!(part, "" | "." | ".."))
}
