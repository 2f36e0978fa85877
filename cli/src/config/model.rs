//! What a configuration can say. The doc comments here are the descriptions in the JSON schema.
#![allow(
    rustdoc::broken_intra_doc_links,
    reason = "these doc comments are shown to people, with brackets for what may be left out"
)]

use std::collections::BTreeMap;
use std::path::PathBuf;

use cellblock_bundle::cell::Network;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Serialize, Serializer};

use super::agent::AgentSettings;
use super::problem::Place;
use crate::args::values::{
    Bridge, Choice, Cpus, EnvEntry, HomeSpec, LimitMode, MaskPattern, MountSpec, Opened, Pids, ProfileSpec, Protection,
    PublishSpec, RuleSpec, SecretSpec, Size, StateMode, UserSpec, Userns,
};

/// A value and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Located<T> {
    /// The value.
    pub(crate) value: T,
    /// Its place in the file.
    pub(crate) at: Place,
}

/// Shown as the value alone.
impl<T: Serialize> Serialize for Located<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.value.serialize(serializer)
    }
}

/// The whole file: `~/.config/cellblock/config.yaml`.
#[derive(Clone, Debug, Default, PartialEq, Eq, JsonSchema, Serialize)]
#[schemars(title = "cellblock configuration", deny_unknown_fields)]
pub(crate) struct Config {
    /// The file it was read from.
    #[serde(skip)]
    #[schemars(skip)]
    pub(crate) file: PathBuf,
    /// Agents, by name: what is to be different for one that cellblock knows, or one that it does not know.
    #[schemars(default)]
    pub(crate) agents: BTreeMap<String, AgentSettings>,
    /// What counts for every cell that nothing else says otherwise.
    #[schemars(default)]
    pub(crate) defaults: Settings,
    /// Profiles: what counts for the cells that name them, in addition. They have every key of `defaults` but `profile`.
    #[schemars(default)]
    pub(crate) profiles: BTreeMap<String, Settings>,
    /// Projects, each under a name of your choice.
    #[schemars(default)]
    pub(crate) projects: BTreeMap<String, ProjectSettings>,
}

/// What counts for one project.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema, Serialize)]
#[schemars(deny_unknown_fields)]
pub(crate) struct ProjectSettings {
    /// The project's folder: its git root, or a folder that holds it. `~` and `$VARIABLE` are expanded.
    #[schemars(with = "String")]
    pub(crate) path: Located<String>,
    /// Where the project's name stands.
    #[serde(skip)]
    #[schemars(skip)]
    pub(crate) at: Place,
    /// Everything that can stand under `defaults` too.
    #[serde(flatten)]
    pub(crate) settings: Settings,
}

/// What can be said for all cells and for those of one project.
#[derive(Clone, Debug, Default, PartialEq, Eq, JsonSchema, Serialize)]
#[schemars(deny_unknown_fields)]
pub(crate) struct Settings {
    /// The root file system: auto, host, alpine[:VERSION], a stored image's name, a folder or a tar file.
    #[schemars(with = "Option<String>")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) image: Option<Located<String>>,
    /// How much the cell may do (default or strict), and profiles of this file, with commas between them.
    #[schemars(with = "Option<String>")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) profile: Option<Located<ProfileSpec>>,
    /// The network: names for what is allowed by name (the default), none, bridge for the whole internet but nothing nearer, or host for the
    /// host's own.
    #[schemars(default, schema_with = "words::<Network>")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) network: Option<Located<Network>>,
    /// What the cell may reach: HOST[:PORTS], *.DOMAIN, ADDRESS/BITS, host:PORT, or @SET. Replaces the built-in list, @dev; an empty list is nothing.
    #[schemars(with = "Option<Vec<String>>")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) allow: Option<Vec<Located<RuleSpec>>>,
    /// A file with more of it, a domain or rule in each line, outside the project. `~` and `$VARIABLE` are expanded.
    #[schemars(with = "Option<String>")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) allow_file: Option<Located<String>>,
    /// What the cell may never reach, whatever is allowed.
    #[schemars(with = "Option<Vec<String>>")]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) deny: Vec<Located<RuleSpec>>,
    /// Secrets that are put into requests outside: VARIABLE@HOST[/HEADER]=SOURCE, with env:NAME, file:PATH or cmd:COMMAND as source.
    #[schemars(with = "Option<Vec<String>>")]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) secrets: Vec<Located<SecretSpec>>,
    /// Ports of the cell on the host: [ADDRESS:]HOSTPORT:PORT, on 127.0.0.1 unless an address is given.
    #[schemars(with = "Option<Vec<String>>")]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) publish: Vec<Located<PublishSpec>>,
    /// Let the cell log in with the keys of your ssh agent; no key enters it.
    #[schemars(with = "Option<bool>")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) ssh_agent: Option<Located<bool>>,
    /// The only keys of the agent's that it may use: fingerprints (SHA256:…), comments, or files of public keys.
    #[schemars(with = "Option<Vec<String>>")]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) ssh_agent_keys: Vec<Located<String>>,
    /// Have git's commits and tags signed as you sign them: by your gpg, or with a key of the ssh agent; no key enters the cell.
    #[schemars(with = "Option<bool>")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) commit_signing: Option<Located<bool>>,
    /// Let git inside fetch from and push to the project's https remotes as you; no password or token enters the cell.
    #[schemars(with = "Option<bool>")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) git_credentials: Option<Located<bool>>,
    /// What the cell may ask of your desktop: clipboard-image, open-url; or tell: workmux-status.
    #[schemars(default, schema_with = "lists::<Bridge>")]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) bridges: Vec<Located<Bridge>>,
    /// Variables: NAME=VALUE sets one, NAME passes the host's value on, NAME@SOURCE reads it at each start, from env:NAME, file:PATH,
    /// cmd:COMMAND, op://VAULT/ITEM/FIELD or pass:ENTRY.
    #[schemars(with = "Option<Vec<String>>")]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) env: Vec<Located<EnvEntry>>,
    /// Bind mounts: SOURCE:TARGET[:ro|rw], or SOURCE[:ro|rw] for the same path inside. In a source `~` and `$VARIABLE` are expanded.
    #[schemars(with = "Option<Vec<String>>")]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) mounts: Vec<Located<MountSpec>>,
    /// Folders and files of the host that the cell shares, for reading and writing, at the same path; one that is not there is told and left out.
    /// `~` and `$VARIABLE` are expanded.
    #[schemars(with = "Option<Vec<String>>")]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) share: Vec<Located<String>>,
    /// The command's home: private for one of the cell's own (the default), workspace for the project's folder, or a folder of the host (with /, ./,
    /// ../, ~ or $VARIABLE in front).
    #[schemars(with = "Option<String>")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) home: Option<Located<HomeSpec>>,
    /// A folder whose files lie over those of the root: its etc/motd is /etc/motd inside. `~` and `$VARIABLE` are expanded.
    #[schemars(with = "Option<String>")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) overlay: Option<Located<String>>,
    /// The folder for the cell's logs: its output in the background, and the audits of its network and its guard. `~` and `$VARIABLE` are expanded.
    #[schemars(with = "Option<String>")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) log_dir: Option<Located<String>>,
    /// Where the project stands inside, if not at its own path.
    #[schemars(with = "Option<String>")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) project_path: Option<Located<PathBuf>>,
    /// Whether a process of cellblock's looks at the name of each file before it is changed inside (the default): only so is protected what does
    /// not exist when the cell starts.
    #[schemars(with = "Option<bool>")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) guard: Option<Located<bool>>,
    /// Whether files that the host's tools act on (git's hooks, .envrc, .vscode, …) are kept from being changed inside: on (the default) or off.
    #[schemars(default, schema_with = "words::<Protection>")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) protect: Option<Located<Protection>>,
    /// Those that may be changed all the same, by their path in the project.
    #[schemars(with = "Option<Vec<String>>")]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) protect_except: Vec<Located<Opened>>,
    /// Patterns for files of the project that are covered with nothing, such as .env; each start looks through the project for them.
    #[schemars(with = "Option<Vec<String>>")]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) mask: Vec<Located<MaskPattern>>,
    /// More paths that are covered wherever a mount would show them. `~` and `$VARIABLE` are expanded.
    #[schemars(with = "Option<Vec<String>>")]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) secret_paths: Vec<Located<String>>,
    /// Paths of that list that are not covered.
    #[schemars(with = "Option<Vec<String>>")]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) secret_paths_except: Vec<Located<String>>,
    /// Most memory, such as 512m or 2g; swap is not added on top.
    #[schemars(default, schema_with = "text_or_integer")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) memory: Option<Located<Size>>,
    /// Most processors, such as 1.5.
    #[schemars(default, schema_with = "text_or_number")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) cpus: Option<Located<Cpus>>,
    /// Most processes and threads.
    #[schemars(with = "Option<u32>")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) pids: Option<Located<Pids>>,
    /// What happens when the host cannot enforce a limit: the cell does not start, or goes on without it.
    #[schemars(default, schema_with = "words::<LimitMode>")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) limits: Option<Located<LimitMode>>,
    /// Labels for listing and for exported bundles.
    #[schemars(with = "Option<BTreeMap<String, String>>")]
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) labels: BTreeMap<String, Located<String>>,
    /// Mount the root file system read-only, with empty /tmp, /run and /var/tmp in memory.
    #[schemars(with = "Option<bool>")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) read_only: Option<Located<bool>>,
    /// Who the command runs as: UID[:GID], root, or your login name.
    #[schemars(default, schema_with = "text_or_integer")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) user: Option<Located<UserSpec>>,
    /// The shell that `cellblock shell` starts, as an absolute path inside.
    #[schemars(with = "Option<String>")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) shell: Option<Located<PathBuf>>,
    /// The working directory inside.
    #[schemars(with = "Option<String>")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) workdir: Option<Located<PathBuf>>,
    /// The host name inside; otherwise the cell's name.
    #[schemars(with = "Option<String>")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) hostname: Option<Located<String>>,
    /// Run a small init inside that forwards signals and reaps processes.
    #[schemars(with = "Option<bool>")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) init: Option<Located<bool>>,
    /// How the cell's user ids are laid over the host's.
    #[schemars(default, schema_with = "words::<Userns>")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) userns: Option<Located<Userns>>,
    /// Where Alpine's releases are fetched from, instead of Alpine's own servers.
    #[schemars(with = "Option<String>")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) alpine_mirror: Option<Located<String>>,
    /// How a cell sees Claude Code's configuration, ~/.claude and ~/.claude.json; the login is not meant (docs/credentials.md).
    #[schemars(default, schema_with = "words::<StateMode>")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) claude_config: Option<Located<StateMode>>,
    /// Whether the file in which an agent reads what you want in every project points to /etc/cellblock/SANDBOX.md, inside only (the default).
    #[schemars(with = "Option<bool>")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) sandbox_md: Option<Located<bool>>,
    /// Whether an agent asks what it asks at its first start: its looks, whether a folder is trusted, whether it may act without asking. By
    /// default that is answered in the cell's own files.
    #[schemars(with = "Option<bool>")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) onboarding: Option<Located<bool>>,
}

/// The JSON schema of the file, for editors.
pub(crate) fn schema() -> serde_json::Value {
    schemars::schema_for!(Config).into()
}

pub(super) fn words<T: Choice>(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "enum": T::WORDS })
}

fn lists<T: Choice>(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "array", "items": { "type": "string", "enum": T::WORDS } })
}

fn text_or_integer(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": ["string", "integer"] })
}

fn text_or_number(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": ["string", "number"] })
}
