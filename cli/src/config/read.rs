//! From the tree to [`Config`]: every key is looked at, and everything that is wrong is told at once.

use std::collections::BTreeMap;
use std::str::FromStr;

use super::agent::AgentSettings;
use super::model::{Config, Located, ProjectSettings, Settings};
use super::problem::Problem;
use super::tree::{Key, Kind, Node};
use crate::args::values::{self, Choice, ValueError, nearest};

/// Keys at the top.
const TOP: &[&str] = &["agents", "defaults", "profiles", "projects"];

/// Keys of a section, besides a project's `path`. A test holds them against the schema.
pub(super) const KEYS: &[&str] = &[
    "image",
    "profile",
    "network",
    "allow",
    "allow_file",
    "deny",
    "publish",
    "secrets",
    "ssh_agent",
    "ssh_agent_keys",
    "commit_signing",
    "git_credentials",
    "bridges",
    "env",
    "mounts",
    "share",
    "home",
    "project_path",
    "log_dir",
    "overlay",
    "guard",
    "protect",
    "protect_except",
    "mask",
    "secret_paths",
    "secret_paths_except",
    "memory",
    "cpus",
    "pids",
    "limits",
    "labels",
    "read_only",
    "user",
    "shell",
    "workdir",
    "hostname",
    "init",
    "userns",
    "alpine_mirror",
    "claude_config",
    "sandbox_md",
    "onboarding",
];

/// Keys that cellblock's manual knows and this version does not act on. Ignoring one would mean less protection or less work done
/// than the person wrote down, so they are errors of their own kind.
const LATER: &[(&str, &str)] = &[("nix_provider", "the cell gets no nix store")];

/// Reads the tree of a whole file.
pub(super) fn config(root: Node, problems: &mut Vec<Problem>) -> Config {
    let mut reader = Reader { problems };
    let mut config = Config::default();
    for (key, node) in reader.map(root, "the configuration") {
        match key.text.as_str() {
            "agents" => {
                for (name, node) in reader.map(node, "agents") {
                    let settings = reader.agent(&name, node);
                    config.agents.insert(name.text, settings);
                }
            }
            "defaults" => config.defaults = reader.section(node, "defaults", None),
            "profiles" => {
                for (name, node) in reader.map(node, "profiles") {
                    let settings = reader.profile(&name, node);
                    config.profiles.insert(name.text, settings);
                }
            }
            "projects" => {
                for (name, node) in reader.map(node, "projects") {
                    if let Some(project) = reader.project(&name, node) {
                        config.projects.insert(name.text, project);
                    }
                }
            }
            other => {
                let mut problem = unknown(&key, TOP);
                if KEYS.contains(&other) {
                    problem = problem.hint(format!("put `{other}` under `defaults:` or under a project"));
                }
                reader.problems.push(problem);
            }
        }
    }
    config
}

/// Reads the tree of an agent that is shipped with cellblock.
pub(super) fn shipped(name: &str, root: Node, problems: &mut Vec<Problem>) -> AgentSettings {
    let key = Key { at: root.at, text: name.to_owned() };
    Reader { problems }.agent(&key, root)
}

pub(super) fn unknown(key: &Key, known: &[&str]) -> Problem {
    if let Some((name, what)) = LATER.iter().find(|(name, _)| *name == key.text) {
        return Problem::new(key.at, format!("this version of cellblock has no support for `{name}`: {what}"))
            .hint("take the line out");
    }
    let problem = Problem::new(key.at, format!("unknown key `{}`", key.text));
    match nearest(&key.text, known.iter().copied()) {
        Some(near) => problem.hint(format!("did you mean `{near}`?")),
        None => problem.hint(format!("the keys here are {}", known.join(", "))),
    }
}

pub(super) struct Reader<'p> {
    pub(super) problems: &'p mut Vec<Problem>,
}

impl Reader<'_> {
    pub(super) fn map(&mut self, node: Node, what: &str) -> Vec<(Key, Node)> {
        match node.kind {
            Kind::Map(entries) => entries,
            // A section whose lines are all commented out.
            Kind::Null => Vec::new(),
            other => {
                self.problems.push(Problem::new(node.at, format!("{what} must be a map, not {}", other.name())));
                Vec::new()
            }
        }
    }

    pub(super) fn list(&mut self, node: Node, key: &str) -> Vec<Node> {
        match node.kind {
            Kind::List(items) => items,
            Kind::Null => Vec::new(),
            other => {
                let problem = Problem::new(node.at, format!("`{key}` must be a list, not {}", other.name()));
                self.problems.push(problem.hint(format!("write {key}: [ITEM, ITEM], or an item a line after a dash")));
                Vec::new()
            }
        }
    }

    fn project(&mut self, name: &Key, node: Node) -> Option<ProjectSettings> {
        if name.text.is_empty() {
            self.problems.push(Problem::new(name.at, "a project needs a name"));
        }
        let mut path = None;
        let settings = self.section(node, &format!("the project `{}`", name.text), Some(&mut path));
        if path.is_none() {
            let problem = Problem::new(name.at, format!("the project `{}` has no `path`", name.text));
            self.problems.push(problem.hint("add path: and the project's folder"));
        }
        Some(ProjectSettings { path: path?, at: name.at, settings })
    }

    fn profile(&mut self, name: &Key, node: Node) -> Settings {
        if cellblock_bundle::Profile::read(&name.text).is_ok() {
            let problem = Problem::new(name.at, format!("`{}` is a profile of cellblock's own", name.text));
            self.problems
                .push(problem.hint("give this one another name; `--profile` takes several, with commas between them"));
        } else if name.text.parse::<values::ProfileSpec>().is_err() || name.text.contains(',') {
            let problem = Problem::new(name.at, format!("{:?} is not a name for a profile", name.text));
            self.problems.push(problem.hint("lower-case letters, digits and . _ -"));
        }
        let settings = self.section(node, &format!("the profile `{}`", name.text), None);
        if let Some(profile) = &settings.profile {
            self.problems.push(Problem::new(profile.at, "a profile names no other profiles"));
        }
        settings
    }

    /// One section; `path` is where a project's path goes, and `None` for the defaults.
    fn section(&mut self, node: Node, what: &str, mut path: Option<&mut Option<Located<String>>>) -> Settings {
        let mut settings = Settings::default();
        for (key, node) in self.map(node, what) {
            match (key.text.as_str(), &mut path) {
                ("path", Some(path)) => **path = self.scalar(&key, node, |text| Ok(text.to_owned())),
                ("path", None) => {
                    let problem = Problem::new(key.at, "`path` belongs to a project, not to the defaults");
                    self.problems.push(problem);
                }
                _ if self.key(&key, node, &mut settings) => {}
                (_, path) => {
                    let known: Vec<&str> = path.iter().map(|_| "path").chain(KEYS.iter().copied()).collect();
                    self.problems.push(unknown(&key, &known));
                }
            }
        }
        settings
    }

    /// Reads one key into `to`; false if there is no such key.
    pub(super) fn key(&mut self, key: &Key, node: Node, to: &mut Settings) -> bool {
        match key.text.as_str() {
            "image" => to.image = self.scalar(key, node, |text| Ok(text.to_owned())),
            "profile" => to.profile = self.scalar(key, node, str::parse),
            "network" => to.network = self.scalar(key, node, Choice::read),
            "allow" => to.allow = Some(self.items(key, node)),
            "allow_file" => to.allow_file = self.scalar(key, node, |text| Ok(text.to_owned())),
            "deny" => to.deny = self.items(key, node),
            "secrets" => to.secrets = self.items(key, node),
            "publish" => to.publish = self.items(key, node),
            "ssh_agent" => to.ssh_agent = self.truth(key, node),
            "ssh_agent_keys" => to.ssh_agent_keys = self.texts(key, node, values::agent_key),
            "commit_signing" => to.commit_signing = self.truth(key, node),
            "git_credentials" => to.git_credentials = self.truth(key, node),
            "bridges" => to.bridges = self.items(key, node),
            "env" => to.env = self.items(key, node),
            "mounts" => to.mounts = self.items(key, node),
            "share" => to.share = self.texts(key, node, path),
            "home" => to.home = self.scalar(key, node, str::parse),
            "project_path" => to.project_path = self.scalar(key, node, values::inside_path),
            "log_dir" => to.log_dir = self.scalar(key, node, path),
            "overlay" => to.overlay = self.scalar(key, node, path),
            "guard" => to.guard = self.truth(key, node),
            "protect" => to.protect = self.scalar(key, node, Choice::read),
            "protect_except" => to.protect_except = self.items(key, node),
            "mask" => to.mask = self.items(key, node),
            "secret_paths" => to.secret_paths = self.texts(key, node, path),
            "secret_paths_except" => to.secret_paths_except = self.texts(key, node, path),
            "memory" => to.memory = self.scalar(key, node, str::parse),
            "cpus" => to.cpus = self.scalar(key, node, str::parse),
            "pids" => to.pids = self.scalar(key, node, str::parse),
            "limits" => to.limits = self.scalar(key, node, Choice::read),
            "labels" => to.labels = self.labels(node),
            "read_only" => to.read_only = self.truth(key, node),
            "user" => to.user = self.scalar(key, node, str::parse),
            "shell" => to.shell = self.scalar(key, node, values::inside_path),
            "workdir" => to.workdir = self.scalar(key, node, values::inside_path),
            "hostname" => to.hostname = self.scalar(key, node, values::hostname),
            "init" => to.init = self.truth(key, node),
            "userns" => to.userns = self.scalar(key, node, Choice::read),
            "alpine_mirror" => to.alpine_mirror = self.scalar(key, node, values::mirror),
            "claude_config" => to.claude_config = self.scalar(key, node, Choice::read),
            "sandbox_md" => to.sandbox_md = self.truth(key, node),
            "onboarding" => to.onboarding = self.truth(key, node),
            _ => return false,
        }
        true
    }

    pub(super) fn scalar<T>(
        &mut self,
        key: &Key,
        node: Node,
        read: impl Fn(&str) -> Result<T, ValueError>,
    ) -> Option<Located<T>> {
        let at = node.at;
        let problem = match node.kind {
            Kind::Scalar { text, .. } if text.is_empty() => format!("`{}` is empty", key.text),
            Kind::Scalar { text, .. } => match read(&text) {
                Ok(value) => return Some(Located { value, at }),
                Err(error) => format!("invalid value {text:?} for `{}`: {error}", key.text),
            },
            Kind::Null => {
                let problem = Problem::new(at, format!("`{}` has no value", key.text));
                self.problems.push(
                    problem.hint("write one, or take the line out; a lone ~ means nothing in YAML unless it is quoted"),
                );
                return None;
            }
            other => format!("`{}` must be a single value, not {}", key.text, other.name()),
        };
        self.problems.push(Problem::new(at, problem));
        None
    }

    /// `true` or `false`, and nothing else: YAML 1.1's `yes` and `on` mean different things to different readers.
    pub(super) fn truth(&mut self, key: &Key, node: Node) -> Option<Located<bool>> {
        let at = node.at;
        match &node.kind {
            Kind::Scalar { text, plain: true } if text == "true" => Some(Located { value: true, at }),
            Kind::Scalar { text, plain: true } if text == "false" => Some(Located { value: false, at }),
            _ => {
                self.problems.push(Problem::new(at, format!("`{}` must be true or false", key.text)));
                None
            }
        }
    }

    pub(super) fn items<T: FromStr<Err = ValueError>>(&mut self, key: &Key, node: Node) -> Vec<Located<T>> {
        let items = self.list(node, &key.text);
        items.into_iter().filter_map(|item| self.scalar(key, item, str::parse)).collect()
    }

    fn labels(&mut self, node: Node) -> BTreeMap<String, Located<String>> {
        let mut labels = BTreeMap::new();
        for (key, node) in self.map(node, "`labels`") {
            if let Err(error) = values::label_key(&key.text) {
                self.problems.push(Problem::new(key.at, format!("invalid label {:?}: {error}", key.text)));
            } else if let Some(value) = self.scalar(&key, node, |text| Ok(text.to_owned())) {
                labels.insert(key.text, value);
            }
        }
        labels
    }
}

/// A path of the host; where it leads is found out when a cell is made.
fn path(text: &str) -> Result<String, ValueError> {
    if text.contains('\0') { Err(ValueError::Nul) } else { Ok(text.to_owned()) }
}
