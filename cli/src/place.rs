//! Where cellblock keeps things (docs/guide.md, "Where things are").

use std::path::{Path, PathBuf};

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

/// Folders for state: XDG's, or the system's for root.
///
/// The cells of real root have ids of their own, which must be able to pass through these folders: XDG's count for root only where
/// everybody may (so `/run/user/0` and `/root/.local` do not, which a login as root sets or implies).
pub(crate) fn dirs(host: &HostFacts) -> Dirs {
    let chosen = |variable: &str| {
        absolute(host, variable).filter(|path| host.uid != 0 || passable(path)).map(|p| p.join("cellblock"))
    };
    if host.uid == 0 {
        return Dirs {
            runtime: chosen("XDG_RUNTIME_DIR").unwrap_or_else(|| "/run/cellblock".into()),
            data: chosen("XDG_DATA_HOME").unwrap_or_else(|| "/var/lib/cellblock".into()),
            state: chosen("XDG_STATE_HOME").unwrap_or_else(|| "/var/log/cellblock".into()),
            logs: None,
        };
    }
    let under =
        |variable, otherwise: &str| chosen(variable).unwrap_or_else(|| host.home.join(otherwise).join("cellblock"));
    Dirs {
        runtime: chosen("XDG_RUNTIME_DIR").unwrap_or_else(|| runtime(host)),
        data: under("XDG_DATA_HOME", ".local/share"),
        state: under("XDG_STATE_HOME", ".local/state"),
        logs: None,
    }
}

/// Whether everybody may pass through `path` and what it lies in, as far as that exists.
fn passable(path: &Path) -> bool {
    path.ancestors()
        .filter_map(|folder| std::fs::metadata(folder).ok())
        .all(|metadata| std::os::unix::fs::PermissionsExt::mode(&metadata.permissions()) & 0o001 != 0)
}

/// The configuration file.
pub(crate) fn config_file(host: &HostFacts) -> PathBuf {
    absolute(host, "XDG_CONFIG_HOME").unwrap_or_else(|| host.home.join(".config")).join("cellblock/config.yaml")
}

/// The rules that were kept for a project (`net allow --save`): beside the configuration, where no cell and no repository writes.
pub(crate) fn rules_file(host: &HostFacts, project: &str) -> PathBuf {
    config_file(host).with_file_name("rules").join(format!("{project}.rules"))
}

/// The place systemd would give, or a folder in `/tmp` that is checked to be ours when it is used.
fn runtime(host: &HostFacts) -> PathBuf {
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
