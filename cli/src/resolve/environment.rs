//! The command's environment: empty at first, then a short list of the host's variables, then what is true inside, then what was asked for.
//!
//! Variables with a source, and those whose names say that they hold secrets, are hidden: their values travel apart from the cell, in memory.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use cellblock_bundle::cell::User;

use super::asked::Asked;
use super::error::ResolveError;
use super::image::ImageFacts;
use super::origin::{Explained, Origin};
use crate::agents::{Agent, Found};
use crate::args::values::{EnvEntry, Given, Source, ValueError};

/// When a variable of the host passes by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Passes {
    /// Whenever it is set.
    Always,
    /// When it holds a path that exists inside.
    Path,
    /// Not: the reason says what stands in for it.
    Never,
}

/// The list: a name, or a beginning with `*`; when; why.
const LIST: &[(&str, Passes, &str)] = &[
    ("ANTHROPIC_API_KEY", Passes::Always, "the one secret on the list: agents of Anthropic's log in with it"),
    ("COLORTERM", Passes::Always, "says that the terminal shows true colour"),
    ("EDITOR", Passes::Always, "git and agents call it"),
    ("LANG", Passes::Always, "language and character set"),
    ("LANGUAGE", Passes::Always, "order of languages for messages (gettext)"),
    ("LC_*", Passes::Always, "single parts of the locale"),
    ("NIX_SSL_CERT_FILE", Passes::Path, "certificates for nix's programs"),
    ("NO_COLOR", Passes::Always, "no colours wanted (no-color.org)"),
    ("PAGER", Passes::Always, "git and man call it"),
    ("SSL_CERT_DIR", Passes::Path, "certificates for OpenSSL"),
    ("SSL_CERT_FILE", Passes::Path, "certificates for OpenSSL"),
    ("TERM", Passes::Always, "which terminal it is"),
    ("TERM_PROGRAM", Passes::Always, "which program draws it; agents choose key bindings by it"),
    ("TERM_PROGRAM_VERSION", Passes::Always, "the same"),
    ("TZ", Passes::Always, "time zone"),
    ("VISUAL", Passes::Always, "as EDITOR"),
    (
        "XDG_RUNTIME_DIR",
        Passes::Never,
        "the host's has sockets of the desktop's and does not exist inside; -e and a mount can say otherwise",
    ),
];

/// Adds names to the list for one start.
const EXTRA: &str = "CELLBLOCK_EXTRA_ENV";

/// What images have, and the order of Debian's and Alpine's login.
const USUAL_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The environment and what there is to say about it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Environment {
    /// The variables.
    pub(super) variables: BTreeMap<String, String>,
    /// Those whose values stay out of the cell.
    pub(super) hidden: Vec<VariableWanted>,
    /// Where each came from.
    pub(super) explained: Vec<Explained>,
    /// Things the person should know.
    pub(super) notes: Vec<String>,
}

/// A variable whose value is nowhere but in memory, or is still to be read.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct VariableWanted {
    /// The variable.
    pub(crate) name: String,
    /// Its value, or where it comes from.
    pub(crate) value: Given,
    /// Where it was asked for.
    pub(crate) origin: Origin,
}

impl std::fmt::Debug for VariableWanted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({})", self.name, self.origin)
    }
}

/// What is inside, as far as the environment tells it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Inside<'a> {
    pub(super) image: &'a ImageFacts,
    /// The agent's program, where it lies on the host.
    pub(super) found: Option<&'a Found>,
    pub(super) user: &'a User,
    /// The agent, if it is to act without asking.
    pub(super) unattended: Option<&'a Agent>,
    /// The cell's name.
    pub(super) name: &'a str,
}

/// The command's environment. Each step may replace what the one before said, and none may contradict itself.
pub(super) fn environment(asked: Asked<'_>, inside: Inside<'_>) -> Result<Environment, ResolveError> {
    let host = &asked.host.env;
    let visible = |path: &Path| inside.image.shows(path, asked.files);
    let mut made = Maker { host, made: BTreeMap::new(), notes: Vec::new() };
    for (name, value) in host.iter().filter(|(name, value)| listed(name, value, &visible)) {
        made.set(name, value, Origin::Host);
    }
    made.pass(asked.layers.agent());
    let path = match &inside.image.visible {
        Some(_) => path_inside(host.get("PATH").map_or("", String::as_str), &visible),
        None => USUAL_PATH.to_owned(),
    };
    let more = inside.found.iter().flat_map(|found| &found.path).map(|folder| folder.to_string_lossy().into_owned());
    let path = more.chain(Some(path)).collect::<Vec<_>>().join(":");
    let text = |path: &Path| path.to_string_lossy().into_owned();
    let told: [(&str, &str); 8] = [
        // systemd's and podman's way of saying that this is a container (systemd, CONTAINER_INTERFACE.md).
        ("container", "cellblock"),
        ("CELLBLOCK", "1"),
        ("CELLBLOCK_NAME", inside.name),
        ("HOME", &text(&inside.user.home)),
        ("LOGNAME", &inside.user.name),
        ("PATH", &path),
        ("SHELL", &text(&inside.user.shell)),
        ("USER", &inside.user.name),
    ];
    for (name, value) in told {
        made.set(name, value, Origin::Default);
    }
    made.keep_from_asking(inside.unattended);
    let extra = host.get(EXTRA).map_or("", String::as_str);
    for name in extra.split(',').map(str::trim).filter(|name| !name.is_empty()) {
        let wrong = |error| ResolveError::Entry { origin: Origin::Env(EXTRA), error };
        match name.parse::<EnvEntry>().map_err(wrong)? {
            entry if entry.value == Given::Host => made.entry(&entry, Origin::Env(EXTRA)),
            EnvEntry { name, value } => {
                let sign = if matches!(value, Given::Value(_)) { '=' } else { '@' };
                return Err(wrong(ValueError::EnvName(format!("{name}{sign}…"))));
            }
        }
    }
    for (settings, origin) in asked.layers.sections() {
        made.list(settings.env.iter().map(|entry| (entry.value.clone(), origin(entry.at))))?;
    }
    for file in &asked.flags.env_file {
        let path = asked.host.cwd.join(file);
        let failed = |source| ResolveError::Source { origin: Origin::Flag("--env-file"), path: path.clone(), source };
        made.list(env_file(&path, &asked.files.read(&path).map_err(failed)?)?)?;
    }
    // As podman: of two -e with one name the last counts.
    for entry in &asked.flags.env {
        made.entry(entry, Origin::Flag("--env"));
    }
    Ok(made.finish())
}

struct Maker<'a> {
    host: &'a BTreeMap<String, String>,
    made: BTreeMap<String, (Given, Origin)>,
    notes: Vec<String>,
}

impl Maker<'_> {
    fn set(&mut self, name: &str, value: &str, origin: Origin) {
        self.made.insert(name.to_owned(), (Given::Value(value.to_owned()), origin));
    }

    /// The host's variables that the agent gets.
    fn pass(&mut self, agent: Option<&Agent>) {
        let host = self.host;
        for name in agent.and_then(|agent| agent.spec.pass_env.as_ref()).into_iter().flatten() {
            if let Some(value) = host.get(&name.value) {
                self.set(&name.value, value, Origin::Host);
            }
        }
    }

    /// The variables with which the agent acts without asking.
    fn keep_from_asking(&mut self, agent: Option<&Agent>) {
        let Some(agent) = agent else { return };
        for (name, value) in agent.unattended_variables() {
            self.set(name, value, Origin::Shipped { agent: agent.name.clone() });
        }
    }

    fn entry(&mut self, entry: &EnvEntry, origin: Origin) {
        match (&entry.value, self.host.get(&entry.name)) {
            (Given::Value(value), _) | (Given::Host, Some(value)) => self.set(&entry.name, value, origin),
            (source @ Given::Source(_), _) => {
                self.made.insert(entry.name.clone(), (source.clone(), origin));
            }
            // As podman, but not silently.
            (Given::Host, None) => {
                self.notes.push(format!("{origin}: {} is not set here and so not passed on", entry.name));
            }
        }
    }

    fn list(&mut self, entries: impl IntoIterator<Item = (EnvEntry, Origin)>) -> Result<(), ResolveError> {
        let mut seen = BTreeSet::new();
        for (entry, origin) in entries {
            if !seen.insert(entry.name.clone()) {
                return Err(ResolveError::TwoVariables { origin, name: entry.name });
            }
            self.entry(&entry, origin);
        }
        Ok(())
    }

    fn finish(self) -> Environment {
        let mut environment = Environment { notes: self.notes, ..Environment::default() };
        for (name, (value, origin)) in self.made {
            let key = format!("env {name}");
            match value {
                Given::Value(value) if !secret(&name) => {
                    environment.explained.push(Explained { key, value: value.clone(), origin });
                    environment.variables.insert(name, value);
                }
                value => {
                    let shown = match &value {
                        // Where it comes from is no secret; a command may have one in its words.
                        Given::Source(source) if !matches!(source, Source::Command(_)) => format!("*** from {source}"),
                        Given::Source(_) => "*** from a command".to_owned(),
                        _ => "***".to_owned(),
                    };
                    environment.explained.push(Explained { key, value: shown, origin: origin.clone() });
                    environment.hidden.push(VariableWanted { name, value, origin });
                }
            }
        }
        environment
    }
}

fn listed(name: &str, value: &str, visible: &dyn Fn(&Path) -> bool) -> bool {
    let matches = |pattern: &str| match pattern.strip_suffix('*') {
        Some(beginning) => name.starts_with(beginning),
        None => name == pattern,
    };
    match LIST.iter().find(|(pattern, ..)| matches(pattern)) {
        Some((_, Passes::Always, _)) => true,
        Some((_, Passes::Path, _)) => visible(Path::new(value)),
        Some((_, Passes::Never, _)) | None => false,
    }
}

/// Whether a variable holds a secret, by its name.
pub(crate) fn secret(name: &str) -> bool {
    let name = name.to_ascii_uppercase();
    let within = [
        "TOKEN",
        "SECRET",
        "PASSWORD",
        "PASSWD",
        "PASSPHRASE",
        "CREDENTIAL",
        "AUTHORIZATION",
        "DATABASE_URL",
        "COOKIE",
    ];
    // As a word of their own: there are keyboards, authors, and sockets of agents.
    let last = name.rsplit('_').find(|word| !word.bytes().all(|b| b.is_ascii_digit())).unwrap_or_default();
    within.iter().any(|word| name.contains(word))
        || ["KEY", "KEYS", "AUTH", "PASS", "PWD", "PAT", "DSN"].contains(&last)
            && !["PWD", "OLDPWD"].contains(&name.as_str())
        || ["APIKEY", "ACCESSKEY", "PRIVATEKEY", "API_KEY", "ACCESS_KEY", "PRIVATE_KEY"]
            .iter()
            .any(|word| name.contains(word))
}

/// The folders of the host's `PATH` that exist inside, then the usual ones that do and are not among them.
pub(crate) fn path_inside(host: &str, visible: &dyn Fn(&Path) -> bool) -> String {
    let mut folders: Vec<&str> = Vec::new();
    // An empty or relative entry means the working directory, where whoever can write can replace any program.
    for folder in host.split(':').chain(USUAL_PATH.split(':')).filter(|folder| folder.starts_with('/')) {
        if !folders.contains(&folder) && visible(Path::new(folder)) {
            folders.push(folder);
        }
    }
    if folders.is_empty() { USUAL_PATH.to_owned() } else { folders.join(":") }
}

/// Podman's `--env-file`: a `NAME=VALUE` or a `NAME` a line, `#` at the beginning of a line, no quotes.
fn env_file(path: &Path, text: &str) -> Result<Vec<(EnvEntry, Origin)>, ResolveError> {
    let mut entries = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.trim_start();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let origin = Origin::EnvFile { file: path.to_owned(), line: index + 1 };
        match line.parse::<EnvEntry>() {
            // Such files come with repositories, and must not say what is read or run on the host.
            Ok(EnvEntry { name, value: Given::Source(_) }) => {
                return Err(ResolveError::Entry { origin, error: ValueError::EnvName(format!("{name}@…")) });
            }
            Ok(entry) => entries.push((entry, origin)),
            Err(error) => return Err(ResolveError::Entry { origin, error }),
        }
    }
    Ok(entries)
}
