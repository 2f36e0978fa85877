//! Where cellblock keeps things (docs/guide.md, "Where things are").

use std::path::PathBuf;

use cellblock_runtime::state::Dirs;

use crate::resolve::{HostError, HostFacts};

/// The host, with the folders that are cellblock's own known.
pub(crate) fn host() -> Result<HostFacts, HostError> {
    let host = HostFacts::gather()?;
    let dirs = dirs(&host);
    let config = config_file(&host);
    let own = [Some(dirs.data.as_path()), Some(dirs.state.as_path()), config.parent()];
    let own: Vec<_> = own.into_iter().flatten().collect();
    Ok(host.with_own(&own, &dirs.runtime))
}

/// Folders for state: XDG's, or the system's for root without any of those variables.
pub(crate) fn dirs(host: &HostFacts) -> Dirs {
    let variables = ["XDG_RUNTIME_DIR", "XDG_DATA_HOME", "XDG_STATE_HOME"];
    if host.uid == 0 && variables.iter().all(|v| absolute(host, v).is_none()) {
        return Dirs {
            runtime: "/run/cellblock".into(),
            data: "/var/lib/cellblock".into(),
            state: "/var/log/cellblock".into(),
        };
    }
    let under = |variable: &str, otherwise: &str| {
        absolute(host, variable).unwrap_or_else(|| host.home.join(otherwise)).join("cellblock")
    };
    Dirs {
        runtime: runtime(host),
        data: under("XDG_DATA_HOME", ".local/share"),
        state: under("XDG_STATE_HOME", ".local/state"),
    }
}

/// The configuration file.
pub(crate) fn config_file(host: &HostFacts) -> PathBuf {
    absolute(host, "XDG_CONFIG_HOME").unwrap_or_else(|| host.home.join(".config")).join("cellblock/config.yaml")
}

/// `$XDG_RUNTIME_DIR`, or the place systemd would give, or a folder in `/tmp` that is checked to be ours when it is used.
fn runtime(host: &HostFacts) -> PathBuf {
    if let Some(dir) = absolute(host, "XDG_RUNTIME_DIR") {
        return dir.join("cellblock");
    }
    let usual = PathBuf::from(format!("/run/user/{}", host.uid));
    match std::fs::metadata(&usual) {
        Ok(metadata) if std::os::unix::fs::MetadataExt::uid(&metadata) == host.uid => usual.join("cellblock"),
        _ => PathBuf::from(format!("/tmp/cellblock-{}", host.uid)),
    }
}

/// A folder named by the environment; a relative one is ignored (XDG Base Directory Specification).
fn absolute(host: &HostFacts, variable: &str) -> Option<PathBuf> {
    host.env.get(variable).map(PathBuf::from).filter(|p| p.is_absolute())
}
