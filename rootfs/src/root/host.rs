//! The `host` image: the host's own system folders, read-only, and a chosen part of `/etc`.
//!
//! No image at all, tools as fresh as the host's. What is taken is a list with reasons, never "all but": a new file with a secret
//! in `/etc` must not show up in every cell. Works on merged and separate `/usr`, and where `/etc` is links into a store (NixOS).

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::fs::Metadata;
use std::mem::MaybeUninit;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use cellblock_bundle::Mount;
use rustix::fs::{Access, Mode, OFlags, RawDir};

use super::skeleton::Entry;

/// Why the host cannot serve as an image.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// Neither `/usr` nor `/bin` nor a store.
    #[error("{0} has no /usr, /bin, /nix/store or /gnu/store to take tools from")]
    NoSystem(PathBuf),
}

/// The host's tools as plain data.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostImage {
    /// Read-only binds; few, for each costs a fraction of a millisecond at every start.
    pub mounts: Vec<Mount>,
    /// Links and small files for the skeleton.
    pub entries: Vec<Entry>,
}

/// Folders at the top that hold programs and what they need.
const SYSTEM: &[&str] = &["usr", "bin", "sbin", "lib", "lib32", "lib64", "libx32", "opt", "nix/store", "gnu/store"];

/// A row of the list for `/etc`.
struct Row {
    name: &'static str,
    /// Take every entry that starts with the name.
    prefix: bool,
    #[allow(dead_code, reason = "for the reader")]
    why: &'static str,
}

impl Row {
    fn takes(&self, name: &[u8]) -> bool {
        let row = self.name.as_bytes();
        // The first letter tells most of them apart.
        row.first() == name.first() && if self.prefix { name.starts_with(row) } else { name == row }
    }
}

const fn row(name: &'static str, why: &'static str) -> Row {
    Row { name, prefix: false, why }
}

const fn all(name: &'static str, why: &'static str) -> Row {
    Row { name, prefix: true, why }
}

/// What of `/etc` is harmless and needed. Not here, on purpose: shadow, sudoers, ssh, machine-id, gitconfig (credential helpers), nix
/// (access tokens), wgetrc and environment (proxy passwords), krb5, NetworkManager; passwd, group, hosts and resolv.conf are made.
const ETC: &[Row] = &[
    row("alternatives", "links in /usr/bin lead through it (Debian, Fedora)"),
    row("bash.bashrc", "interactive bash (Debian)"),
    row("crypto-policies", "TLS settings (Fedora)"),
    row("debian_version", "what system this is"),
    row("fonts", "fontconfig"),
    row("gai.conf", "address selection"),
    row("inputrc", "readline keys"),
    all("java", "Java's settings lie here (Debian)"),
    row("ld.so.cache", "without it the dynamic linker searches"),
    row("ld.so.conf", "the dynamic linker"),
    row("localtime", "time zone"),
    row("lsb-release", "what system this is"),
    row("magic", "file(1)"),
    row("mime.types", "types by ending"),
    row("os-release", "what system this is"),
    row("pki", "certificates (Fedora)"),
    row("protocols", "getprotobyname"),
    all("python3", "Debian's Python reads its settings here"),
    row("services", "getservbyname"),
    row("shells", "which shells are login shells"),
    row("ssl", "certificates (Debian, Alpine, NixOS)"),
    row("terminfo", "terminal descriptions"),
    row("timezone", "time zone"),
    row("vim", "the editor's defaults (Debian)"),
];

/// Larger files than this are not settings.
const MAX_COPY: u64 = 4 << 20;

/// Looks at the system below `root` (which is `/` but in tests).
///
/// # Errors
/// [`HostError::NoSystem`].
pub fn detect(root: &Path) -> Result<HostImage, HostError> {
    let mut image = HostImage::default();
    for name in SYSTEM {
        let inside = Path::new("/").join(name);
        let Ok(metadata) = std::fs::symlink_metadata(root.join(name)) else { continue };
        if metadata.is_symlink() {
            if let Ok(target) = std::fs::read_link(root.join(name)) {
                image.entries.push(Entry::link(inside, target));
            }
        } else if metadata.is_dir() {
            image.mounts.push(Mount::Bind { source: root.join(name), target: inside, writable: false });
        }
    }
    if image.mounts.is_empty() {
        return Err(HostError::NoSystem(root.to_owned()));
    }
    let mut chase = Chase::below(root);
    // NixOS: programs are found through this link.
    image.take(&mut chase, Path::new("/run/current-system"));
    for name in etc_names(root) {
        image.take(&mut chase, &Path::new("/etc").join(name));
    }
    Ok(image)
}

fn etc_names(root: &Path) -> Vec<OsString> {
    let mut names = Vec::new();
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let Ok(folder) = rustix::fs::open(root.join("etc"), flags, Mode::empty()) else { return names };
    let mut room = [const { MaybeUninit::uninit() }; 8192];
    let mut entries = RawDir::new(&folder, &mut room);
    while let Some(Ok(entry)) = entries.next() {
        let name = entry.file_name().to_bytes();
        if ETC.iter().any(|row| row.takes(name)) {
            names.push(OsStr::from_bytes(name).to_owned());
        }
    }
    names.sort();
    names
}

impl HostImage {
    /// Takes the file or folder `path` in, by what its chain of links ends at: a link if that is visible inside anyway, else a bind of a
    /// folder or a copy of a file. What is not there, or not for the person to read, is left out.
    fn take(&mut self, chase: &mut Chase<'_>, path: &Path) {
        let Some((end, metadata)) = chase.follow(path) else { return };
        let direct = end == path;
        if !direct && self.mounts.iter().any(|m| end.starts_with(m.target())) {
            self.entries.push(Entry::link(path.to_owned(), end));
            return;
        }
        let source = chase.real(&end);
        if metadata.is_dir() {
            self.mounts.push(Mount::Bind { source, target: path.to_owned(), writable: false });
        } else if metadata.is_file() && metadata.len() <= MAX_COPY && readable(&source) {
            self.entries.push(Entry::Copy { path: path.to_owned(), from: source });
        }
    }
}

fn readable(path: &Path) -> bool {
    rustix::fs::access(path, Access::READ_OK).is_ok()
}

/// Follows links within a root, and remembers which folders on the way are none: most of what is asked for lies in one folder.
struct Chase<'a> {
    root: &'a Path,
    folders: Vec<PathBuf>,
}

impl<'a> Chase<'a> {
    fn below(root: &'a Path) -> Self {
        Self { root, folders: Vec::new() }
    }

    /// Where `path` of the root is really.
    fn real(&self, path: &Path) -> PathBuf {
        self.root.join(path.strip_prefix("/").unwrap_or(path))
    }

    /// Where `path` leads to, and what is there; `None` if nowhere.
    fn follow(&mut self, path: &Path) -> Option<(PathBuf, Metadata)> {
        /// As the kernel's `MAXSYMLINKS`.
        const MOST: usize = 40;
        if path.parent().is_some_and(|parent| self.folders.iter().any(|folder| folder == parent)) {
            let metadata = std::fs::symlink_metadata(self.real(path)).ok()?;
            if !metadata.is_symlink() {
                return Some((path.to_owned(), metadata));
            }
        }
        let mut links = 0;
        let mut done = PathBuf::from("/");
        let mut last = None;
        let mut rest: VecDeque<PathBuf> = components(path);
        while let Some(next) = rest.pop_front() {
            last = None;
            if next == Path::new("..") {
                done.pop();
                continue;
            }
            done.push(&next);
            if !rest.is_empty() && self.folders.contains(&done) {
                continue;
            }
            let real = self.real(&done);
            let metadata = std::fs::symlink_metadata(&real).ok()?;
            if metadata.is_symlink() {
                links += 1;
                if links > MOST {
                    return None;
                }
                let target = std::fs::read_link(&real).ok()?;
                done.pop();
                if target.is_absolute() {
                    done = PathBuf::from("/");
                }
                for component in components(&target).into_iter().rev() {
                    rest.push_front(component);
                }
                continue;
            }
            if metadata.is_dir() && !rest.is_empty() {
                self.folders.push(done.clone());
            }
            last = Some(metadata);
        }
        let metadata = match last {
            Some(metadata) => metadata,
            // It ended in `..`, or at the root itself.
            None => std::fs::metadata(self.real(&done)).ok()?,
        };
        Some((done, metadata))
    }
}

/// Where `path` leads to when every link is followed within `root`; `None` if nowhere.
#[must_use]
pub fn chase(root: &Path, path: &Path) -> Option<PathBuf> {
    Chase::below(root).follow(path).map(|(end, _)| end)
}

fn components(path: &Path) -> VecDeque<PathBuf> {
    path.components()
        .filter_map(|c| match c {
            Component::Normal(name) => Some(PathBuf::from(name)),
            Component::ParentDir => Some(PathBuf::from("..")),
            _ => None,
        })
        .collect()
}

/// The text of the host's `/etc/resolv.conf`, through whatever chain of links it is reached.
#[must_use]
pub fn resolv_conf(root: &Path) -> Option<String> {
    let end = chase(root, Path::new("/etc/resolv.conf"))?;
    std::fs::read_to_string(root.join(end.strip_prefix("/").ok()?)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    struct Root(PathBuf);

    impl Root {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("cellblock-host-{name}-{}", std::process::id()));
            std::fs::create_dir_all(&path).expect("mkdir");
            Self(path)
        }

        fn dir(&self, path: &str) -> &Self {
            std::fs::create_dir_all(self.0.join(path)).expect("mkdir");
            self
        }

        fn file(&self, path: &str, text: &str) -> &Self {
            std::fs::write(self.0.join(path), text).expect("write");
            self
        }

        fn link(&self, path: &str, target: &str) -> &Self {
            symlink(target, self.0.join(path)).expect("symlink");
            self
        }

        fn targets(&self) -> Vec<String> {
            detect(&self.0).expect("a system").mounts.iter().map(|m| m.target().display().to_string()).collect()
        }
    }

    impl Drop for Root {
        fn drop(&mut self) {
            use std::os::fd::AsFd;
            let _ = std::fs::File::open(std::env::temp_dir())
                .and_then(|t| cellblock_sys::tree::remove(t.as_fd(), self.0.file_name().unwrap_or_default()));
        }
    }

    #[test]
    fn merged_usr_keeps_its_links() {
        let root = Root::new("merged");
        root.dir("usr/bin")
            .link("bin", "usr/bin")
            .dir("etc/ssl/certs")
            .file("etc/services", "x")
            .file("etc/shadow", "secret");
        assert_eq!(root.targets(), ["/usr", "/etc/ssl"]);
        let image = detect(&root.0).expect("a system");
        assert!(image.entries.contains(&Entry::link("/bin".into(), "usr/bin".into())));
        assert!(
            image.entries.contains(&Entry::Copy { path: "/etc/services".into(), from: root.0.join("etc/services") })
        );
        assert!(!format!("{image:?}").contains("shadow"));
    }

    #[test]
    fn separate_folders_are_each_bound() {
        let root = Root::new("separate");
        root.dir("usr").dir("bin").dir("lib").dir("sbin");
        assert_eq!(root.targets(), ["/usr", "/bin", "/sbin", "/lib"]);
    }

    #[test]
    fn chains_into_a_store_become_links() {
        let root = Root::new("nixos");
        root.dir("nix/store/abc-etc/ssl")
            .file("nix/store/abc-etc/os-release", "ID=nixos")
            .dir("etc")
            .dir("bin")
            .dir("run");
        root.link("etc/static", "/nix/store/abc-etc")
            .link("etc/ssl", "static/ssl")
            .link("etc/os-release", "/etc/static/os-release");
        root.link("run/current-system", "/nix/store/abc-etc");
        let image = detect(&root.0).expect("a system");
        assert_eq!(root.targets(), ["/bin", "/nix/store"]);
        for (from, to) in [
            ("/etc/ssl", "/nix/store/abc-etc/ssl"),
            ("/etc/os-release", "/nix/store/abc-etc/os-release"),
            ("/run/current-system", "/nix/store/abc-etc"),
        ] {
            assert!(image.entries.contains(&Entry::link(from.into(), to.into())), "{from}: {:?}", image.entries);
        }
    }

    #[test]
    fn resolv_conf_is_found_through_systemd_resolved() {
        let root = Root::new("resolved");
        root.dir("etc")
            .dir("run/systemd/resolve")
            .file("run/systemd/resolve/stub-resolv.conf", "nameserver 127.0.0.53\n");
        root.link("etc/resolv.conf", "../run/systemd/resolve/stub-resolv.conf");
        assert_eq!(resolv_conf(&root.0).as_deref(), Some("nameserver 127.0.0.53\n"));
        let dangling = Root::new("dangling");
        dangling.dir("etc").link("etc/resolv.conf", "/run/nowhere");
        assert_eq!(resolv_conf(&dangling.0), None);
    }

    #[test]
    fn a_ring_of_links_leads_nowhere() {
        let root = Root::new("ring");
        root.link("a", "b").link("b", "a");
        assert_eq!(chase(&root.0, Path::new("/a")), None);
    }

    #[test]
    fn an_empty_root_is_no_image() {
        let root = Root::new("empty");
        assert!(matches!(detect(&root.0), Err(HostError::NoSystem(_))));
    }
}
