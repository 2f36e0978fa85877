//! What has to be known about the host and the person, as plain data; and the one function that goes and looks.

use std::collections::BTreeMap;
use std::io::{IsTerminal, Read};
use std::path::{Path, PathBuf};

use rustix::fs::Access;

use crate::canonical;

/// Facts about the host and the person who started cellblock.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct HostFacts {
    /// Effective user id.
    pub(crate) uid: u32,
    /// Effective group id.
    pub(crate) gid: u32,
    /// Login name.
    pub(crate) user: String,
    /// Primary group's name.
    pub(crate) group: String,
    /// Home directory: `$HOME`, or the user database's.
    pub(crate) home: PathBuf,
    /// Every folder that is the person's home: `$HOME`, the user database's, and where links there lead.
    pub(crate) homes: Vec<PathBuf>,
    /// Login shell.
    pub(crate) shell: PathBuf,
    /// The environment, as far as it is UTF-8.
    pub(crate) env: BTreeMap<String, String>,
    /// Working directory.
    pub(crate) cwd: PathBuf,
    /// Whether standard input is a terminal.
    pub(crate) stdin_terminal: bool,
    /// Whether standard output is a terminal.
    pub(crate) stdout_terminal: bool,
    /// The person's subordinate user ids: first id and how many.
    pub(crate) subuids: Vec<(u32, u32)>,
    /// The person's subordinate group ids.
    pub(crate) subgids: Vec<(u32, u32)>,
    /// Whether `newuidmap` and `newgidmap` are installed.
    pub(crate) newuidmap: bool,
    /// Real root: user id 0, with ids above those of every person at its disposal. Root of a container has not.
    pub(crate) real_root: bool,
    /// Folders of cellblock itself: data, state, configuration, without links. Never a project, never mounted for writing.
    pub(crate) own: Vec<PathBuf>,
    /// The program that is running, without links.
    pub(crate) program: Option<PathBuf>,
    /// Cellblock's folder of running cells, without links: it holds control sockets, which a read-only mount does not close. Never mounted.
    pub(crate) runtime: PathBuf,
}

/// Why the facts cannot be gathered.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HostError {
    /// The working directory was removed or is closed to the person.
    #[error("the working directory cannot be used; go to a folder that exists, or name one with -C DIR")]
    Cwd(#[source] std::io::Error),
    /// Neither `$HOME` nor the user database knows a home directory.
    #[error("there is no home directory for user id {0}; set HOME")]
    Home(u32),
}

impl HostFacts {
    /// Looks at the host. Cellblock's own folders are not known here: see [`Self::with_own`].
    pub(crate) fn gather() -> Result<Self, HostError> {
        let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        let env: BTreeMap<String, String> = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect();
        let entry = passwd_entry(&read("/etc/passwd"), uid).or_else(|| passwd_entry(&getent(uid), uid));
        let home = env.get("HOME").map(PathBuf::from).filter(|home| home.is_absolute());
        let listed = entry.as_ref().map(|entry| entry.home.clone()).filter(|home| home.is_absolute());
        let user = entry.as_ref().map_or_else(|| format!("u{uid}"), |entry| entry.user.clone());
        let shell = entry.map(|entry| entry.shell).filter(|shell| shell.is_absolute());
        Ok(Self {
            uid,
            gid,
            group: group_name(&read("/etc/group"), gid).unwrap_or_else(|| format!("g{gid}")),
            homes: home.iter().chain(&listed).flat_map(|home| [home.clone(), resolved(home)]).collect(),
            home: home.or(listed).ok_or(HostError::Home(uid))?,
            shell: shell.unwrap_or_else(|| "/bin/sh".into()),
            cwd: std::env::current_dir().map_err(HostError::Cwd)?,
            stdin_terminal: std::io::stdin().is_terminal(),
            stdout_terminal: std::io::stdout().is_terminal(),
            subuids: subordinate_ids(&read("/etc/subuid"), &user, uid),
            subgids: subordinate_ids(&read("/etc/subgid"), &user, uid),
            newuidmap: ["newuidmap", "newgidmap"].iter().all(|program| installed(program, env.get("PATH"))),
            real_root: uid == 0
                && [read("/proc/self/uid_map"), read("/proc/self/gid_map")].iter().all(|map| maps_shifted(map)),
            user,
            env,
            own: Vec::new(),
            program: std::env::current_exe().ok().and_then(|own| canonical::path(&own).ok()),
            runtime: PathBuf::new(),
        })
    }

    /// Says which folders are cellblock's: `own` hold what it knows and stores, `runtime` what runs.
    #[must_use]
    pub(crate) fn with_own(self, own: &[&Path], runtime: &Path) -> Self {
        Self { own: own.iter().map(|folder| resolved(folder)).collect(), runtime: resolved(runtime), ..self }
    }
}

/// The text of a file; empty if there is none.
fn read(path: &str) -> String {
    // Most of these fit, and a file that is read through `Take` is not asked for its size before.
    let mut text = String::with_capacity(4096);
    let read = std::fs::File::open(path).and_then(|file| file.take(u64::MAX).read_to_string(&mut text));
    read.map_or_else(|_| String::new(), |_| text)
}

/// `path` with the links in it followed, as far as it exists.
fn resolved(path: &Path) -> PathBuf {
    let end = |above: &Path| {
        let (end, rest) = (canonical::path(above).ok()?, path.strip_prefix(above).ok()?);
        // An empty rest would leave a slash at the end.
        Some(if rest.as_os_str().is_empty() { end } else { end.join(rest) })
    };
    path.ancestors().find_map(end).unwrap_or_else(|| path.to_owned())
}

/// What passwd(5) says about a user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PasswdEntry {
    /// Login name.
    pub(crate) user: String,
    /// Home directory.
    pub(crate) home: PathBuf,
    /// Login shell; empty means `/bin/sh`.
    pub(crate) shell: PathBuf,
}

/// The first line for `uid` in the text of a passwd(5) file.
pub(crate) fn passwd_entry(text: &str, uid: u32) -> Option<PasswdEntry> {
    let mut lines = text.lines().filter(|line| third(line).is_some_and(|id| id.parse() == Ok(uid)));
    lines.find_map(|line| match line.split(':').collect::<Vec<_>>()[..] {
        [user, _, _, _, _, home, shell] if !user.is_empty() => {
            Some(PasswdEntry { user: user.to_owned(), home: home.into(), shell: shell.into() })
        }
        _ => None,
    })
}

/// The id of a line in either: most lines are somebody else's, and are not taken apart.
fn third(line: &str) -> Option<&str> {
    line.split(':').nth(2)
}

/// The name of a group in the text of a group(5) file.
pub(crate) fn group_name(text: &str, gid: u32) -> Option<String> {
    let mut lines = text.lines().filter(|line| third(line).is_some_and(|id| id.parse() == Ok(gid)));
    lines.find_map(|line| match line.split(':').collect::<Vec<_>>()[..] {
        [name, ..] if !name.is_empty() => Some(name.to_owned()),
        _ => None,
    })
}

/// The ranges of a person, named by login name or by number, in the text of a subuid(5) or subgid(5) file.
pub(crate) fn subordinate_ids(text: &str, user: &str, uid: u32) -> Vec<(u32, u32)> {
    let range = |line: &str| match line.trim().split(':').collect::<Vec<_>>()[..] {
        [owner, start, count] if owner == user || owner.parse() == Ok(uid) => {
            let (start, count): (u32, u32) = (start.parse().ok()?, count.parse().ok()?);
            // A range of nothing or past the last id is a mistake in the file: newuidmap would refuse it.
            (count > 0 && start.checked_add(count).is_some()).then_some((start, count))
        }
        _ => None,
    };
    text.lines().filter_map(range).collect()
}

/// Whether the ids that real root's cells get exist in this user namespace, from the text of `/proc/self/uid_map`.
pub(crate) fn maps_shifted(map: &str) -> bool {
    map.lines().any(|line| match line.split_whitespace().map(str::parse::<u64>).collect::<Vec<_>>()[..] {
        [Ok(inside), Ok(_), Ok(size)] => {
            let (first, end) = (u64::from(super::ids::SHIFTED), u64::from(super::ids::SHIFTED + super::ids::RANGE));
            inside <= first && end <= inside + size
        }
        _ => false,
    })
}

/// People in LDAP and the like have no line in `/etc/passwd`. Only asked for them: it costs a process.
fn getent(uid: u32) -> String {
    let output = std::process::Command::new("getent").args(["passwd", &uid.to_string()]).output();
    output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default()
}

fn installed(program: &str, path: Option<&String>) -> bool {
    let listed = path.into_iter().flat_map(|path| path.split(':')).filter(|dir| dir.starts_with('/'));
    listed
        .chain(["/usr/bin", "/usr/local/bin", "/run/wrappers/bin"])
        .any(|dir| rustix::fs::access(Path::new(dir).join(program), Access::EXEC_OK).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwd_and_group_lines() {
        let text = "root:x:0:0:root:/root:/bin/bash\nbroken\nada:x:1000:100:Ada,,,:/home/ada:/bin/zsh\nada2:x:1000:100::/x:/bin/sh\n";
        let ada = PasswdEntry { user: "ada".into(), home: "/home/ada".into(), shell: "/bin/zsh".into() };
        assert_eq!(passwd_entry(text, 1000), Some(ada));
        assert_eq!(passwd_entry(text, 7), None);
        assert_eq!(group_name("root:x:0:\nusers:x:100:ada\n", 100), Some("users".into()));
        assert_eq!(group_name("users:x:100\n", 1), None);
    }

    #[test]
    fn subordinate_ids_by_name_and_number() {
        let text = "ada:100000:65536\nbob:165536:65536\n1000:300000:1000\nada:bad:1\nada:5:0\nada:4294967295:2\n";
        assert_eq!(subordinate_ids(text, "ada", 1000), [(100_000, 65_536), (300_000, 1000)]);
        assert_eq!(subordinate_ids(text, "eve", 7), []);
    }

    #[test]
    fn real_root_has_all_ids() {
        assert!(maps_shifted("         0          0 4294967295\n"));
        assert!(!maps_shifted("         0       1000          1\n         1     100000      65536\n"));
        assert!(!maps_shifted(""));
    }

    #[test]
    fn the_world_can_be_looked_at() {
        let facts = HostFacts::gather().unwrap();
        assert_eq!(facts.uid, rustix::process::geteuid().as_raw());
        assert!(facts.home.is_absolute() && facts.cwd.is_absolute() && facts.shell.is_absolute());
        assert!(!facts.user.is_empty() && !facts.group.is_empty());
        assert!(facts.homes.contains(&facts.home));
    }

    #[test]
    fn own_folders_are_known_by_where_they_are() {
        let dir = tempfile::tempdir().unwrap();
        let base = dir.path().canonicalize().unwrap();
        std::fs::create_dir(base.join("real")).unwrap();
        std::os::unix::fs::symlink(base.join("real"), base.join("link")).unwrap();
        let facts = HostFacts::default().with_own(&[&base.join("link/data/cellblock")], &base.join("real"));
        assert_eq!((facts.own, facts.runtime), (vec![base.join("real/data/cellblock")], base.join("real")));
    }
}
