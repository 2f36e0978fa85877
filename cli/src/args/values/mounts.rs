//! Mounts as they are written in flags and in the configuration.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use super::{Size, ValueError};

/// A bind mount as written: `SOURCE:TARGET[:OPTIONS]`, or `SOURCE[:OPTIONS]` for the same path inside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MountSpec {
    /// The host's path, not yet expanded.
    pub(crate) source: String,
    /// The path inside; `None` is the same as the source.
    pub(crate) target: Option<PathBuf>,
    /// Whether the cell may write. Podman's default: yes.
    pub(crate) writable: bool,
}

impl FromStr for MountSpec {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        if text.contains('\0') {
            return Err(ValueError::Nul);
        }
        let parts: Vec<&str> = text.split(':').collect();
        let (source, target, options) = match parts[..] {
            [source] => (source, None, None),
            // As podman: what stands second is a target unless it can only be options.
            [source, second] if second.starts_with('/') => (source, Some(second), None),
            [source, second] if second.split(',').all(|word| mount_option(word).is_ok()) => {
                (source, None, Some(second))
            }
            [source, second] => (source, Some(second), None),
            [source, target, options] => (source, Some(target), Some(options)),
            _ => return Err(ValueError::Mount),
        };
        if source.is_empty() {
            return Err(ValueError::Mount);
        }
        let target = match target {
            Some(target) => Some(inside_path(target).map_err(|e| match mount_option(target) {
                // `src:r0`: the better complaint is about the option.
                Err(option) if !target.contains(['/', '.']) => option,
                _ => e,
            })?),
            None => None,
        };
        if !source.contains('/') && !source.starts_with(['.', '~', '$']) {
            return Err(ValueError::NamedVolume(source.to_owned()));
        }
        let mut writable = None;
        for option in options.into_iter().flat_map(|o| o.split(',')) {
            let value = mount_option(option)?;
            if writable.is_some_and(|before| before != value) {
                return Err(ValueError::MountModes);
            }
            writable = Some(value);
        }
        Ok(Self { source: source.to_owned(), target, writable: writable.unwrap_or(true) })
    }
}

impl fmt::Display for MountSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.source)?;
        if let Some(target) = &self.target {
            write!(f, ":{}", target.display())?;
        }
        f.write_str(if self.writable { ":rw" } else { ":ro" })
    }
}

/// Podman's mount options that exist, but not here.
const LATER_MOUNT_OPTIONS: &[(&str, &str)] = &[
    ("z", "relabelling for SELinux"),
    ("Z", "relabelling for SELinux"),
    ("U", "changing the owner of the host's files"),
    (
        "O",
        "an overlay over the source; with `--overlay DIR` what is in DIR/x is at /x inside, and what is written there is the cell's own",
    ),
    ("idmap", "id-mapped mounts"),
    ("copy", "volumes"),
    ("nocopy", "volumes"),
    ("exec", "mounts are always exec, nosuid and nodev"),
    ("noexec", "mounts are always exec, nosuid and nodev"),
    ("dev", "mounts are always nosuid and nodev"),
    ("suid", "mounts are always nosuid and nodev"),
    ("shared", "mounts never propagate"),
    ("rshared", "mounts never propagate"),
    ("slave", "mounts never propagate"),
    ("rslave", "mounts never propagate"),
];

fn mount_option(word: &str) -> Result<bool, ValueError> {
    match word {
        "rw" => Ok(true),
        "ro" => Ok(false),
        _ => Err(match LATER_MOUNT_OPTIONS.iter().find(|(option, _)| *option == word) {
            Some((_, what)) => ValueError::MountOptionLater(word.to_owned(), what),
            None => ValueError::MountOption(word.to_owned()),
        }),
    }
}

/// `TARGET[:size=SIZE,mode=OCTAL]`: an empty file system in memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TmpfsSpec {
    /// The path inside.
    pub(crate) target: PathBuf,
    /// Largest size in bytes.
    pub(crate) size: Option<u64>,
    /// Permission bits of its root.
    pub(crate) mode: u32,
}

impl FromStr for TmpfsSpec {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let (target, options) = text.split_once(':').unwrap_or((text, ""));
        // Sticky and open to all, as podman's.
        let mut spec = Self { target: inside_path(target)?, size: None, mode: 0o1777 };
        for option in options.split(',').filter(|o| !o.is_empty()) {
            let unknown = || ValueError::TmpfsOption(option.to_owned());
            match option.split_once('=') {
                Some(("size", value)) => spec.size = Some(value.parse::<Size>()?.0),
                Some(("mode", value)) => match u32::from_str_radix(value, 8) {
                    Ok(mode) if mode <= 0o1777 => spec.mode = mode,
                    _ => return Err(unknown()),
                },
                // Podman's usual `rw,nosuid,nodev` is what it is anyway.
                None if matches!(option, "rw" | "nosuid" | "nodev") => {}
                _ => return Err(unknown()),
            }
        }
        Ok(spec)
    }
}

/// An absolute path inside the cell, without `..`, `.` and doubled slashes.
pub(crate) fn inside_path(text: &str) -> Result<PathBuf, ValueError> {
    let wrong = || ValueError::Inside(text.to_owned());
    if !text.starts_with('/') || text.split('/').any(|part| part == "..") || text.contains('\0') {
        return Err(wrong());
    }
    let mut path = PathBuf::from("/");
    path.extend(text.split('/').filter(|part| !part.is_empty() && *part != "."));
    Ok(path)
}
