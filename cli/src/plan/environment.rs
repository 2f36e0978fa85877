//! The command's environment: empty, plus what is on a list.

use std::collections::BTreeMap;
use std::path::Path;

use cellblock_bundle::{Mount, User};

use super::{Explained, Found, PlanError, Sources, ValueError};

/// A variable of the host that passes.
struct Pass {
    /// Its name; with a `*` at the end every name that starts so.
    name: &'static str,
    /// It names a file of the host, which only the `host` image shows.
    file: bool,
    #[allow(dead_code, reason = "for the reader")]
    why: &'static str,
}

const fn pass(name: &'static str, why: &'static str) -> Pass {
    Pass { name, file: false, why }
}

const fn file(name: &'static str, why: &'static str) -> Pass {
    Pass { name, file: true, why }
}

/// What passes without being asked for. Not here: `XDG_RUNTIME_DIR` (its folder does not exist inside, and programs fail on that),
/// `DISPLAY`, `SSH_AUTH_SOCK`, `DBUS_*` (doors to the host), `*_PROXY` (may hold passwords).
const PASSED: &[Pass] = &[
    pass("ANTHROPIC_API_KEY", "the agent's own key"),
    pass("COLORTERM", "terminal"),
    pass("EDITOR", "taste"),
    pass("FORCE_COLOR", "terminal"),
    pass("LANG", "language"),
    pass("LANGUAGE", "language"),
    pass("LC_*", "language"),
    file("NIX_SSL_CERT_FILE", "certificates"),
    pass("NO_COLOR", "terminal"),
    pass("PAGER", "taste"),
    file("SSL_CERT_DIR", "certificates"),
    file("SSL_CERT_FILE", "certificates"),
    pass("TERM", "terminal"),
    pass("TERM_PROGRAM", "terminal"),
    pass("TZ", "time zone"),
    pass("VISUAL", "taste"),
];

/// Adds names to the list for one start.
const EXTRA: &str = "CELLBLOCK_EXTRA_ENV";

/// Where images have their programs.
const IMAGE_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The names in `CELLBLOCK_EXTRA_ENV`.
fn extra_names(env: &BTreeMap<String, String>) -> Vec<String> {
    env.get(EXTRA)
        .map(|text| text.split(',').map(str::trim).filter(|n| !n.is_empty()).map(str::to_owned).collect())
        .unwrap_or_default()
}

impl Sources<'_> {
    pub(super) fn environment(
        &self,
        user: &User,
        name: &str,
        found: &Found,
        explained: &mut Vec<Explained>,
    ) -> Result<BTreeMap<String, String>, PlanError> {
        let mut env = BTreeMap::new();
        let host = &self.facts.env;
        let mut set = |key: &str, value: String, origin: &str| {
            explained.retain(|e| e.key != format!("env {key}"));
            explained.push(Explained { key: format!("env {key}"), value: value.clone(), origin: origin.to_owned() });
            env.insert(key.to_owned(), value);
        };
        for (key, value) in host {
            let Some(row) = PASSED.iter().find(|p| matches(p.name, key)) else { continue };
            if !row.file || (found.host && visible(Path::new(value), &found.mounts)) {
                set(key, value.clone(), "the host's, by the list of harmless ones");
            }
        }
        for (key, value) in [
            ("HOME", user.home.display().to_string()),
            ("USER", user.name.clone()),
            ("LOGNAME", user.name.clone()),
            ("SHELL", user.shell.display().to_string()),
            ("PATH", self.path(found)),
            ("container", "cellblock".into()),
            ("CELLBLOCK_NAME", name.to_owned()),
        ] {
            set(key, value, "default");
        }
        for key in extra_names(host) {
            if let Some(value) = host.get(&key) {
                set(&key, value.clone(), EXTRA);
            }
        }
        for section in self.sections()? {
            for text in &section.env {
                let place = self.at(text.referenced.line());
                if let Some((key, value)) = entry(&text.value, &place, host)? {
                    set(&key, value, &place);
                }
            }
        }
        for path in &self.flags.env_files {
            let text = std::fs::read_to_string(path).map_err(|e| {
                ValueError::bad("--env-file", &path.display().to_string(), &format!("a readable file ({e})"))
            })?;
            for line in text.lines().map(str::trim).filter(|l| !l.is_empty() && !l.starts_with('#')) {
                if let Some((key, value)) = entry(line, "--env-file", host)? {
                    set(&key, value, "--env-file");
                }
            }
        }
        for text in &self.flags.env {
            if let Some((key, value)) = entry(text, "--env", host)? {
                set(&key, value, "--env");
            }
        }
        Ok(env)
    }

    /// The host's `PATH` as far as it exists inside, or the usual one.
    fn path(&self, found: &Found) -> String {
        if !found.host {
            return IMAGE_PATH.into();
        }
        let host = self.facts.env.get("PATH").map_or("", String::as_str);
        let dirs: Vec<&str> =
            host.split(':').filter(|dir| dir.starts_with('/') && visible(Path::new(dir), &found.mounts)).collect();
        let missing = IMAGE_PATH.split(':').filter(|dir| !dirs.contains(dir) && visible(Path::new(dir), &found.mounts));
        let all: Vec<&str> = dirs.iter().copied().chain(missing).collect();
        if all.is_empty() { IMAGE_PATH.into() } else { all.join(":") }
    }
}

/// Whether a path of the host exists inside the `host` image: below one of its mounts, also through the links `/bin` and so on.
pub(super) fn visible(path: &Path, mounts: &[Mount]) -> bool {
    path.canonicalize().is_ok_and(|real| mounts.iter().any(|m| real.starts_with(m.target())))
}

fn matches(pattern: &str, name: &str) -> bool {
    pattern.strip_suffix('*').map_or(pattern == name, |start| name.starts_with(start))
}

/// `NAME=value`, or `NAME` for the host's value; a name the host has not set is left out, as podman does.
fn entry(text: &str, place: &str, host: &BTreeMap<String, String>) -> Result<Option<(String, String)>, ValueError> {
    let (key, value) = text.split_once('=').map_or((text, None), |(k, v)| (k, Some(v)));
    let named = !key.is_empty() && !key.contains(char::is_whitespace);
    if !named || text.contains('\0') {
        return Err(ValueError::bad(place, text, "NAME=VALUE, or NAME to pass the host's value"));
    }
    Ok(value.map(str::to_owned).or_else(|| host.get(key).cloned()).map(|value| (key.to_owned(), value)))
}
