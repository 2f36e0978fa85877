//! `config.yaml`: what a person has written down. Only read and checked here; `plan` makes sense of it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_saphyr::Spanned;

/// The whole file.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Settings {
    /// For every cell.
    pub(crate) defaults: Section,
    /// For the cells of single projects, by any name; each has a `path`.
    pub(crate) projects: BTreeMap<String, Section>,
}

/// A value with the line it stands in.
type At<T> = Option<Spanned<T>>;

/// What can be said about cells.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Section {
    /// The project's folder (only below `projects`); `~` and `$VAR` are expanded.
    #[schemars(with = "Option<String>")]
    pub(crate) path: At<String>,
    /// `auto`, `host`, the name of a stored image, or a path.
    #[schemars(with = "Option<String>")]
    pub(crate) image: At<String>,
    /// `default` or `strict`.
    #[schemars(with = "Option<String>")]
    pub(crate) profile: At<String>,
    /// `none` or `host`.
    #[schemars(with = "Option<String>")]
    pub(crate) network: At<String>,
    /// `NAME=value`, or `NAME` to pass the host's value through.
    #[schemars(with = "Vec<String>")]
    pub(crate) env: Vec<Spanned<String>>,
    /// `SOURCE[:TARGET][:ro]`.
    #[schemars(with = "Vec<String>")]
    pub(crate) mounts: Vec<Spanned<String>>,
    /// `root` or `UID[:GID]`.
    #[schemars(with = "Option<String>")]
    pub(crate) user: At<String>,
    /// The shell that `cellblock shell` starts.
    #[schemars(with = "Option<String>")]
    pub(crate) shell: At<String>,
    /// Most memory, such as `2G`.
    #[schemars(with = "Option<String>")]
    pub(crate) memory: At<String>,
    /// Most processors, such as `1.5`.
    #[schemars(with = "Option<f64>")]
    pub(crate) cpus: At<f64>,
    /// Most processes and threads.
    #[schemars(with = "Option<u64>")]
    pub(crate) pids: At<u64>,
    /// `enforce` or `best-effort`.
    #[schemars(with = "Option<String>")]
    pub(crate) limits: At<String>,
    /// Labels of the cell.
    pub(crate) labels: BTreeMap<String, String>,
    /// Make the root file system read-only.
    #[schemars(with = "Option<bool>")]
    pub(crate) read_only: At<bool>,
    /// Host name inside.
    #[schemars(with = "Option<String>")]
    pub(crate) hostname: At<String>,
    /// Have a small init as process 1.
    #[schemars(with = "Option<bool>")]
    pub(crate) init: At<bool>,
    /// `auto`, `single` or `keep-id`.
    #[schemars(with = "Option<String>")]
    pub(crate) userns: At<String>,
    /// Where Alpine releases come from, instead of Alpine's own servers.
    #[schemars(with = "Option<String>")]
    pub(crate) alpine_mirror: At<String>,
}

/// Keys of a section, for "did you mean" and for tests.
pub(crate) const KEYS: &[&str] = &[
    "path",
    "image",
    "profile",
    "network",
    "env",
    "mounts",
    "user",
    "shell",
    "memory",
    "cpus",
    "pids",
    "limits",
    "labels",
    "read_only",
    "hostname",
    "init",
    "userns",
    "alpine_mirror",
];

/// Keys that belong to cellblock but not to this version: refused with that answer, not as a spelling mistake.
const LATER: &[&str] = &["ssh_agent", "nix_provider", "claude_config"];

/// Why the file cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SettingsError {
    /// It exists but cannot be read.
    #[error("cannot read {path}: {source}", path = path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Something in it is wrong.
    #[error("{path}:{line}:{column}: {problem}", path = path.display())]
    Bad {
        /// Which file.
        path: PathBuf,
        /// Line from 1.
        line: u64,
        /// Column from 1.
        column: u64,
        /// What is wrong.
        problem: String,
        /// What may help.
        hint: Option<String>,
    },
}

/// Reads `path`; a file that does not exist is empty settings.
pub(crate) fn read(path: &Path) -> Result<Settings, SettingsError> {
    match std::fs::read_to_string(path) {
        Ok(text) => parse(&text, path),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Settings::default()),
        Err(source) => Err(SettingsError::Read { path: path.to_owned(), source }),
    }
}

/// Settings from the text of `path`.
pub(crate) fn parse(text: &str, path: &Path) -> Result<Settings, SettingsError> {
    if text.lines().all(|l| l.trim().is_empty() || l.trim_start().starts_with('#')) {
        return Ok(Settings::default());
    }
    let settings: Settings = serde_saphyr::from_str(text).map_err(|error| {
        let error = error.without_snippet();
        let (line, column) = error.location().map_or((1, 1), |l| (l.line(), l.column()));
        let (problem, hint) = words(&error.to_string());
        SettingsError::Bad { path: path.to_owned(), line, column, problem, hint }
    })?;
    check(&settings, path)?;
    Ok(settings)
}

/// What `serde` cannot check.
fn check(settings: &Settings, path: &Path) -> Result<(), SettingsError> {
    let bad =
        |line: u64, problem: String| SettingsError::Bad { path: path.to_owned(), line, column: 1, problem, hint: None };
    if let Some(at) = &settings.defaults.path {
        return Err(bad(at.referenced.line(), "`path` belongs to a project, not to `defaults`".into()));
    }
    for (name, section) in &settings.projects {
        if section.path.is_none() {
            return Err(SettingsError::Bad {
                path: path.to_owned(),
                line: 1,
                column: 1,
                problem: format!("the project `{name}` has no `path`"),
                hint: Some(format!("add `path: ~/…` below `projects: {name}:`")),
            });
        }
    }
    Ok(())
}

/// A YAML error in our words, and a hint where there is one.
fn words(message: &str) -> (String, Option<String>) {
    let first = message.lines().next().unwrap_or(message);
    let first = first.strip_prefix("error: ").unwrap_or(first);
    let Some(key) = first.split("unknown field `").nth(1).and_then(|rest| rest.split('`').next()) else {
        return (first.to_owned(), None);
    };
    if LATER.contains(&key) {
        return (
            format!("`{key}` is not supported by this version of cellblock"),
            Some("remove the key; what it asks for is not done".into()),
        );
    }
    let known = if message.contains("`defaults`") { &["defaults", "projects"][..] } else { KEYS };
    (format!("unknown key `{key}`"), similar(key, known).map(|k| format!("did you mean `{k}`?")))
}

/// The nearest of `known`, if one is near.
pub(crate) fn similar<'a>(word: &str, known: &[&'a str]) -> Option<&'a str> {
    known
        .iter()
        .map(|k| (strsim::damerau_levenshtein(word, k), *k))
        .filter(|(d, k)| *d <= 1 + k.len() / 4)
        .min()
        .map(|(_, k)| k)
}

/// The JSON schema of the file.
pub(crate) fn schema() -> serde_json::Value {
    schemars::schema_for!(Settings).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> String {
        match parse(text, Path::new("config.yaml")).expect_err(text) {
            SettingsError::Bad { hint: Some(hint), line, problem, .. } => format!("{line}: {problem} / {hint}"),
            SettingsError::Bad { line, problem, .. } => format!("{line}: {problem}"),
            other => other.to_string(),
        }
    }

    #[test]
    fn the_documented_forms_are_read() {
        let text = "defaults:\n  image: auto\n  env: [MIX_ENV=dev, DATABASE_URL]\nprojects:\n  web:\n    path: ~/web\n    mounts: [~/work/shared-libs:/shared-libs:ro]\n    network: host\n";
        let settings = parse(text, Path::new("c")).expect("valid");
        assert_eq!(settings.defaults.env.len(), 2);
        assert_eq!(settings.defaults.image.expect("image").referenced.line(), 2);
        assert_eq!(settings.projects["web"].mounts[0].value, "~/work/shared-libs:/shared-libs:ro");
        assert!(parse("# nothing\n\n", Path::new("c")).is_ok());
    }

    #[test]
    fn mistakes_are_named_with_their_line() {
        assert_eq!(error("defaults:\n  imgae: host\n"), "2: unknown key `imgae` / did you mean `image`?");
        assert_eq!(error("default:\n  image: host\n"), "1: unknown key `default` / did you mean `defaults`?");
        assert_eq!(
            error("defaults:\n  ssh_agent: true\n"),
            "2: `ssh_agent` is not supported by this version of cellblock / remove the key; what it asks for is not done"
        );
        assert!(error("projects:\n  web:\n    image: host\n").contains("has no `path`"));
        assert!(error("defaults: [1, 2\n").starts_with('2') || error("defaults: [1, 2\n").starts_with('1'));
    }

    #[test]
    fn every_key_is_in_the_schema_and_nowhere_else() {
        let schema = schema();
        let section = &schema["$defs"]["Section"]["properties"];
        let mut keys: Vec<_> = section.as_object().expect("properties").keys().map(String::as_str).collect();
        let mut known = KEYS.to_vec();
        keys.sort_unstable();
        known.sort_unstable();
        assert_eq!(keys, known);
    }
}
