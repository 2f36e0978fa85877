//! Folders that must not become a project by accident: the cell may write to all of it.

use std::path::{Path, PathBuf};

/// Why a folder is refused as a project. All but two yield to `--force-project`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    /// The root of the file system: nothing would be left outside.
    #[error("/ cannot be a project: the cell would get the whole machine")]
    Root,
    /// A kernel's file system.
    #[error("{path} cannot be a project: {base} belongs to the kernel", path = .path.display())]
    Kernel {
        /// The folder.
        path: PathBuf,
        /// The kernel's.
        base: &'static str,
    },
    /// The person's home directory or a folder around it.
    #[error("{path} as a project would give the cell your whole home directory, with keys and passwords", path = .path.display())]
    Home {
        /// The folder.
        path: PathBuf,
    },
    /// A folder of the system's, with files of others and of services.
    #[error("{path} as a project would give the cell a folder of the system", path = .path.display())]
    System {
        /// The folder.
        path: PathBuf,
    },
    /// A folder with cellblock's own files in it: the cell could change what other cells may do.
    #[error("{path} as a project would give the cell cellblock's own files in {own}", path = .path.display(), own = .own.display())]
    Own {
        /// The folder.
        path: PathBuf,
        /// Cellblock's.
        own: PathBuf,
    },
}

impl Refusal {
    /// Whether `--force-project` gets past it.
    pub(crate) fn can_be_forced(&self) -> bool {
        !matches!(self, Self::Root | Self::Kernel { .. })
    }

    /// What to do instead.
    pub(crate) fn hint(&self) -> &'static str {
        if self.can_be_forced() {
            "go to a project's folder, use --no-project, or insist with --force-project"
        } else {
            "go to a project's folder, or use --no-project"
        }
    }
}

/// File systems of the kernel's; nothing below them is a project.
const KERNEL: &[&str] = &["/proc", "/sys", "/dev"];

/// Folders that are nobody's project; those below them may be.
const SYSTEM: &[&str] = &[
    "/bin",
    "/boot",
    "/etc",
    "/home",
    "/lib",
    "/lib32",
    "/lib64",
    "/media",
    "/mnt",
    "/nix",
    "/nix/store",
    "/opt",
    "/root",
    "/run",
    "/run/user",
    "/sbin",
    "/srv",
    "/tmp",
    "/usr",
    "/usr/bin",
    "/usr/lib",
    "/usr/local",
    "/usr/sbin",
    "/usr/share",
    "/var",
    "/var/lib",
    "/var/log",
    "/var/run",
    "/var/tmp",
];

/// Whether `root` (canonical) must not be a project. `homes` are the home directories of the person, `own` the folders of cellblock.
pub(crate) fn refuse(root: &Path, homes: &[PathBuf], own: &[PathBuf]) -> Option<Refusal> {
    let path = root.to_owned();
    if root == Path::new("/") {
        return Some(Refusal::Root);
    }
    if let Some(base) = KERNEL.iter().find(|base| root.starts_with(base)) {
        return Some(Refusal::Kernel { path, base });
    }
    // The home directory before cellblock's folders, which lie in it: it is what the person will understand.
    if homes.iter().any(|home| home.starts_with(root)) {
        return Some(Refusal::Home { path });
    }
    if let Some(own) = own.iter().find(|own| own.starts_with(root) || root.starts_with(own)) {
        return Some(Refusal::Own { path, own: own.clone() });
    }
    SYSTEM.iter().any(|system| root == Path::new(system)).then_some(Refusal::System { path })
}
