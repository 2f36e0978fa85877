//! The skeleton: the topmost read-only layer of every cell, made anew at each start.
//!
//! It holds the files that describe *this* cell (`passwd`, `hosts`, `resolv.conf` …) and real directories for `/dev`, `/proc`, `/sys`
//! and `/etc`. As they lie above the image, an image in which one of them is a symbolic link cannot send the runtime elsewhere:
//! libcontainer and runc would follow such a link of `/dev` to the host (CVE-2026-41579).

use std::collections::BTreeSet;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};

use cellblock_bundle::{Ids, Network, State, StateKind, User};
use rustix::fs::{AtFlags, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// One thing to make in the skeleton. Missing parents are made too.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Entry {
    /// A directory.
    Directory {
        /// Absolute path inside.
        path: PathBuf,
        /// Permission bits.
        mode: u32,
        /// Whether the person owns it; else root does.
        person: bool,
    },
    /// A small text file, world-readable.
    File {
        /// Absolute path inside.
        path: PathBuf,
        /// Its content.
        text: String,
    },
    /// A small script, which everybody may run.
    Script {
        /// Absolute path inside.
        path: PathBuf,
        /// Its content.
        text: String,
    },
    /// A file of the host, copied, world-readable.
    Copy {
        /// Absolute path inside.
        path: PathBuf,
        /// Absolute path on the host.
        from: PathBuf,
    },
    /// A symbolic link.
    Link {
        /// Absolute path inside.
        path: PathBuf,
        /// Where it leads.
        target: PathBuf,
    },
}

impl Entry {
    /// A link at `path` to `target`.
    #[must_use]
    pub fn link(path: PathBuf, target: PathBuf) -> Self {
        Self::Link { path, target }
    }

    fn directory(path: impl Into<PathBuf>, mode: u32) -> Self {
        Self::Directory { path: path.into(), mode, person: false }
    }

    fn file(path: &str, text: impl Into<String>) -> Self {
        Self::File { path: path.into(), text: text.into() }
    }
}

/// Why a skeleton cannot be planned.
#[derive(Debug, thiserror::Error)]
pub enum SkeletonError {
    /// Its `/etc` is a link: the files below it would be out of reach behind the skeleton's own.
    #[error("the image's /etc is no directory")]
    EtcIsNoDirectory,
    /// A file of the image could not be read.
    #[error("cannot read {path} of the image: {source}")]
    Read {
        /// Path inside.
        path: &'static str,
        /// Why.
        source: io::Error,
    },
}

/// What a skeleton depends on.
#[derive(Clone, Copy, Debug)]
pub struct About<'a> {
    /// The cell's name; the machine id is derived from it.
    pub name: &'a str,
    /// Host name inside.
    pub hostname: &'a str,
    /// Who the command runs as.
    pub user: &'a User,
    /// What network there is.
    pub network: Network,
    /// The host's resolver settings, for a cell that shares the host's network.
    pub resolv_conf: Option<&'a str>,
}

/// The skeleton over an unpacked image; `lowers` are its layers, the topmost first.
///
/// # Errors
/// See [`SkeletonError`].
pub fn over_image(about: About<'_>, lowers: &[PathBuf]) -> Result<Vec<Entry>, SkeletonError> {
    for lower in lowers {
        if std::fs::symlink_metadata(lower.join("etc")).is_ok_and(|m| !m.is_dir()) {
            return Err(SkeletonError::EtcIsNoDirectory);
        }
    }
    let passwd =
        read_image(lowers, "etc/passwd").map_err(|source| SkeletonError::Read { path: "/etc/passwd", source })?;
    let group = read_image(lowers, "etc/group").map_err(|source| SkeletonError::Read { path: "/etc/group", source })?;
    let mut entries =
        common(about, &passwd.unwrap_or_else(|| ROOT_PASSWD.into()), &group.unwrap_or_else(|| ROOT_GROUP.into()));
    for (path, mode) in [("tmp", 0o1777), ("var/tmp", 0o1777), ("run", 0o755)] {
        if !lowers.iter().any(|lower| std::fs::symlink_metadata(lower.join(path)).is_ok()) {
            entries.push(Entry::directory(Path::new("/").join(path), mode));
        }
    }
    Ok(entries)
}

/// The skeleton under the `host` image's mounts; `entries` are that image's own.
#[must_use]
pub fn under_host(about: About<'_>, entries: &[Entry]) -> Vec<Entry> {
    let mut all = common(about, &format!("{ROOT_PASSWD}{NOBODY_PASSWD}"), &format!("{ROOT_GROUP}{NOBODY_GROUP}"));
    all.extend([
        Entry::directory("/tmp", 0o1777),
        Entry::directory("/var/tmp", 0o1777),
        Entry::directory("/run", 0o755),
        Entry::directory("/root", 0o700),
        // Names come from files, then from the resolver; no daemon of the host's is asked.
        Entry::file(
            "/etc/nsswitch.conf",
            "passwd: files\ngroup: files\nshadow: files\nhosts: files dns\nservices: files\nprotocols: files\n",
        ),
    ]);
    all.extend_from_slice(entries);
    all
}

/// Directories for those of `folders`, and empty files for those of `files`, that nothing in `entries` touches, so that they need not be made in the
/// writable layer, on disk, at every start. Only for a root without an image below, whose own these would hide.
#[must_use]
pub fn mount_points(entries: &[Entry], folders: &[PathBuf], files: &[PathBuf]) -> Vec<Entry> {
    let free = |target: &&PathBuf| {
        entries.iter().all(|entry| match entry {
            Entry::Directory { path, .. } => path != *target,
            Entry::File { path, .. }
            | Entry::Script { path, .. }
            | Entry::Copy { path, .. }
            | Entry::Link { path, .. } => !target.starts_with(path),
        })
    };
    let folders = folders.iter().filter(free).map(|target| Entry::directory(target, 0o755));
    folders
        .chain(files.iter().filter(free).map(|target| Entry::File { path: target.clone(), text: String::new() }))
        .collect()
}

/// The folders of agents' state at home, and those they are in: the person's, as at any home, and not root's as mount points are.
#[must_use]
pub fn homely(state: &[State], home: &Path) -> Vec<Entry> {
    let mut folders = BTreeSet::new();
    for one in state {
        let above = one.target.ancestors().skip(usize::from(one.kind != StateKind::Folder));
        folders.extend(above.take_while(|folder| folder.starts_with(home) && *folder != home));
    }
    let entry = |folder: &Path| Entry::Directory { path: folder.to_owned(), mode: 0o755, person: true };
    folders.into_iter().map(entry).collect()
}

const ROOT_PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\n";
const NOBODY_PASSWD: &str = "nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n";
const ROOT_GROUP: &str = "root:x:0:\n";
const NOBODY_GROUP: &str = "tty:x:5:\nnogroup:x:65534:\n";

fn common(about: About<'_>, passwd: &str, group: &str) -> Vec<Entry> {
    let user = about.user;
    let mut entries: Vec<Entry> = ["/dev", "/proc", "/sys", "/etc"].map(|path| Entry::directory(path, 0o755)).into();
    entries.extend(home(&user.home));
    entries.extend([
        Entry::file("/etc/passwd", with_user(passwd, user)),
        Entry::file("/etc/group", with_group(group, user)),
        Entry::file("/etc/hosts", hosts(about)),
        Entry::file("/etc/hostname", format!("{}\n", about.hostname)),
        Entry::file("/etc/machine-id", format!("{}\n", machine_id(about.name))),
        Entry::file("/etc/resolv.conf", resolv_conf(about)),
        Entry::link("/etc/mtab".into(), "../proc/self/mounts".into()),
    ]);
    entries
}

/// The folder `path` as the person's home; not `/`, and not root's usual one: an image has that.
#[must_use]
pub fn home(path: &Path) -> Option<Entry> {
    let made = path.components().count() > 1 && path != Path::new("/root");
    made.then(|| Entry::Directory { path: path.to_owned(), mode: 0o700, person: true })
}

fn hosts(about: About<'_>) -> String {
    let mut text = format!("127.0.0.1\tlocalhost\n::1\tlocalhost\n127.0.1.1\t{}\n", about.hostname);
    if about.network == Network::Bridge {
        // The gateway (egress), where the services of this machine are that rules open. With `names` its own resolver knows these.
        text += "198.18.0.1\thost.docker.internal host.containers.internal host.cellblock.internal\n";
    }
    text
}

fn resolv_conf(about: About<'_>) -> String {
    match (about.network, about.resolv_conf) {
        (Network::Host, Some(text)) => text.to_owned(),
        (Network::Host, None) => "# The host's /etc/resolv.conf could not be read.\n".into(),
        // The gateway's address (egress). Names with one label are asked for too: the policy may know them.
        (Network::Names | Network::Bridge, _) => "nameserver 198.18.0.1\noptions timeout:2 attempts:2\n".into(),
        (Network::None, _) => "# This cell has no network.\n".into(),
    }
}

/// A stable id for a cell of this name, in the form machine-id(5) asks for, that tells nothing about the host.
fn machine_id(name: &str) -> String {
    let digest = Sha256::digest(format!("cellblock machine-id {name}"));
    digest.iter().take(16).map(|b| format!("{b:02x}")).collect()
}

/// The image's users and the person, so that `getpwuid(3)` works. A line of the image with the person's uid gives way: home and shell
/// must be what the environment says.
fn with_user(passwd: &str, user: &User) -> String {
    let uid = user.uid.to_string();
    let keep = |line: &&str| {
        let mut fields = line.split(':');
        let name = fields.next();
        !line.trim().is_empty() && name != Some(&user.name) && fields.nth(1) != Some(&uid)
    };
    let mut text: String = passwd.lines().filter(keep).fold(String::new(), |all, line| all + line + "\n");
    text += &format!("{}:x:{}:{}::{}:{}\n", user.name, user.uid, user.gid, user.home.display(), user.shell.display());
    text
}

fn with_group(group: &str, user: &User) -> String {
    let gid = user.gid.to_string();
    let mut text: String =
        group.lines().filter(|l| !l.trim().is_empty()).fold(String::new(), |all, line| all + line + "\n");
    if !group.lines().any(|line| line.split(':').nth(2) == Some(&gid)) {
        text += &format!("{}:x:{}:\n", user.group, user.gid);
    }
    text
}

/// Larger files than this are no user databases.
const MAX_READ: u64 = 1 << 20;

/// A file of the image, from the topmost layer that has it, with links resolved inside that layer.
fn read_image(lowers: &[PathBuf], path: &str) -> io::Result<Option<String>> {
    for lower in lowers {
        let root = rustix::fs::open(lower, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        // Non-blocking: it might be a pipe.
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
        match cellblock_sys::scoped::openat2(&root, path, flags, Mode::empty(), resolve) {
            Ok(fd) => {
                if !rustix::fs::FileType::from_raw_mode(rustix::fs::fstat(&fd)?.st_mode).is_file() {
                    return Ok(None);
                }
                let mut bytes = Vec::new();
                std::fs::File::from(fd).take(MAX_READ).read_to_end(&mut bytes)?;
                return Ok(Some(String::from_utf8_lossy(&bytes).into_owned()));
            }
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(None)
}

/// Writes `entries` into the new directory `dir`, which nobody else can reach yet. To be called in OUTER.
///
/// # Errors
/// Those of the system calls.
pub fn write(dir: &Path, entries: &[Entry], ids: &Ids, user: &User) -> io::Result<()> {
    std::fs::create_dir(dir)?;
    // The umask has no say in what a cell sees.
    let umask = rustix::process::umask(Mode::empty());
    let result = fill(dir, entries, &Owners::new(ids, user));
    rustix::process::umask(umask);
    result
}

fn fill(dir: &Path, entries: &[Entry], owners: &Owners) -> io::Result<()> {
    let root = rustix::fs::open(dir, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    rustix::fs::chmodat(&root, ".", Mode::from_raw_mode(0o755), AtFlags::empty())?;
    owners.give(root.as_fd(), Path::new("."), false)?;
    let mut filling = Filling { root: root.as_fd(), owners, made: BTreeSet::new() };
    for entry in entries {
        match entry {
            Entry::Directory { path, mode, person } => filling.folder(path, Mode::from_raw_mode(*mode), *person)?,
            Entry::File { path, text } => filling.file(path, text.as_bytes(), 0o644)?,
            Entry::Script { path, text } => filling.file(path, text.as_bytes(), 0o755)?,
            Entry::Copy { path, from } => filling.copy(path, from)?,
            Entry::Link { path, target } => {
                let path = filling.parents(path)?;
                rustix::fs::symlinkat(target, filling.root, path)?;
                owners.give(filling.root, path, false)?;
            }
        }
    }
    Ok(())
}

/// More than most files of a host's `/etc` have.
const PIECE: usize = 1 << 20;

/// A skeleton that is being filled.
struct Filling<'a> {
    root: BorrowedFd<'a>,
    owners: &'a Owners,
    /// Folders that are there: most entries have one parent.
    made: BTreeSet<&'a Path>,
}

impl<'a> Filling<'a> {
    fn folder(&mut self, path: &'a Path, mode: Mode, person: bool) -> io::Result<()> {
        let path = self.parents(path)?;
        match rustix::fs::mkdirat(self.root, path, mode) {
            Ok(()) => {}
            // Made before as somebody's parent.
            Err(Errno::EXIST) => rustix::fs::chmodat(self.root, path, mode, AtFlags::empty())?,
            Err(error) => return Err(error.into()),
        }
        self.made.insert(path);
        self.owners.give(self.root, path, person)
    }

    fn file(&mut self, path: &'a Path, bytes: &[u8], mode: u32) -> io::Result<()> {
        let (path, mut file) = self.create(path, mode)?;
        file.write_all(bytes)?;
        self.owners.give(self.root, path, false)
    }

    /// A dozen at each start of the `host` image: by the kernel, which takes half the system calls.
    fn copy(&mut self, path: &'a Path, from: &Path) -> io::Result<()> {
        let mut source = std::fs::File::open(from)?;
        let (path, mut file) = self.create(path, 0o644)?;
        loop {
            match rustix::fs::sendfile(&file, &source, None, PIECE) {
                Ok(0) => break,
                Ok(_) => {}
                // Not from every file system (`sendfile(2)`).
                Err(Errno::INVAL | Errno::NOSYS) => {
                    io::copy(&mut source, &mut file)?;
                    break;
                }
                Err(error) => return Err(error.into()),
            }
        }
        self.owners.give(self.root, path, false)
    }

    /// The new file `path`, and that relative to the root.
    fn create(&mut self, path: &'a Path, mode: u32) -> io::Result<(&'a Path, std::fs::File)> {
        let path = self.parents(path)?;
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(self.root, path, flags, Mode::from_raw_mode(mode))?;
        Ok((path, fd.into()))
    }

    /// Makes the folders that `path` is in, and gives it relative to the root.
    fn parents(&mut self, path: &'a Path) -> io::Result<&'a Path> {
        let path = path.strip_prefix("/").unwrap_or(path);
        let parents: Vec<&Path> = path.ancestors().skip(1).take_while(|p| !p.as_os_str().is_empty()).collect();
        for parent in parents.into_iter().rev() {
            if !self.made.insert(parent) {
                continue;
            }
            // These lie above an image's own, whose mode they hide.
            let mode = if parent == Path::new("tmp") || parent == Path::new("var/tmp") { 0o1777 } else { 0o755 };
            match rustix::fs::mkdirat(self.root, parent, Mode::from_raw_mode(mode)) {
                Ok(()) => self.owners.give(self.root, parent, false)?,
                // A link to one.
                Err(Errno::EXIST) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(path)
    }
}

/// Root's and the person's ids as OUTER sees them; nothing where only one id exists.
struct Owners {
    root: Option<(u32, u32)>,
    person: Option<(u32, u32)>,
}

impl Owners {
    fn new(ids: &Ids, user: &User) -> Self {
        if !ids.has_range() {
            return Self { root: None, person: None };
        }
        let outer = |uid: u32, gid: u32| {
            if ids.rootless() { Some((uid, gid)) } else { Some((ids.host_uid(uid)?, ids.host_gid(gid)?)) }
        };
        Self { root: outer(0, 0), person: outer(user.uid, user.gid) }
    }

    fn give(&self, root: BorrowedFd<'_>, path: &Path, person: bool) -> io::Result<()> {
        let Some((uid, gid)) = (if person { self.person } else { self.root }) else { return Ok(()) };
        let (uid, gid) = (rustix::process::Uid::from_raw(uid), rustix::process::Gid::from_raw(gid));
        Ok(rustix::fs::chownat(root, path, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user() -> User {
        User {
            uid: 1000,
            gid: 1000,
            groups: vec![],
            name: "ada".into(),
            group: "ada".into(),
            home: "/home/ada".into(),
            shell: "/bin/sh".into(),
        }
    }

    #[test]
    fn the_person_is_in_passwd_exactly_once() {
        let text = with_user("root:x:0:0::/root:/bin/sh\nimg:x:1000:1000::/x:/x\nada:x:7:7::/y:/y\n", &user());
        assert_eq!(text, "root:x:0:0::/root:/bin/sh\nada:x:1000:1000::/home/ada:/bin/sh\n");
    }

    #[test]
    fn a_group_of_the_image_keeps_its_name() {
        assert_eq!(with_group("users:x:1000:\n", &user()), "users:x:1000:\n");
        assert_eq!(with_group("root:x:0:", &user()), "root:x:0:\nada:x:1000:\n");
    }

    #[test]
    fn mount_points_keep_clear_of_everything_else() {
        let entries = [
            Entry::directory("/tmp", 0o1777),
            Entry::file("/etc/hosts", ""),
            Entry::link("/bin".into(), "/nix/store/x/bin".into()),
        ];
        let folders = ["/usr", "/tmp", "/etc/hosts", "/bin/tool", "/home/ada/demo"].map(PathBuf::from);
        let files = ["/etc/hosts", "/bin/x", "/home/ada/bin/claude"].map(PathBuf::from);
        assert_eq!(
            mount_points(&entries, &folders, &files),
            [
                Entry::directory("/usr", 0o755),
                Entry::directory("/home/ada/demo", 0o755),
                Entry::file("/home/ada/bin/claude", "")
            ]
        );
    }

    #[test]
    fn machine_ids_are_stable_and_differ() {
        assert_eq!(machine_id("a"), machine_id("a"));
        assert_ne!(machine_id("a"), machine_id("b"));
        assert_eq!(machine_id("a").len(), 32);
    }
}
