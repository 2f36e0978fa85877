//! What the host is, as plain data: gathered once, so that everything that decides can be tested without a host.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use cellblock_runtime::state::Dirs;

/// Who started cellblock, where, and what that person may do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Facts {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) user: String,
    pub(crate) group: String,
    pub(crate) home: PathBuf,
    pub(crate) shell: PathBuf,
    pub(crate) env: BTreeMap<String, String>,
    pub(crate) cwd: PathBuf,
    /// Standard input and output are terminals.
    pub(crate) terminal: bool,
    /// First subordinate id and their number, of the largest entry for this person.
    pub(crate) subuid: Option<(u32, u32)>,
    pub(crate) subgid: Option<(u32, u32)>,
    /// `newuidmap` and `newgidmap` are installed.
    pub(crate) map_programs: bool,
}

impl Facts {
    /// Reads them from this process, `/etc/passwd`, `/etc/subuid` and `/etc/subgid`.
    pub(crate) fn gather() -> Result<Self, FactsError> {
        let uid = rustix::process::geteuid().as_raw();
        let gid = rustix::process::getegid().as_raw();
        let env: BTreeMap<String, String> =
            std::env::vars_os().filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?))).collect();
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let entry = passwd_entry(&read("/etc/passwd"), uid).or_else(|| getent(uid));
        let (user, home, shell) = entry.unwrap_or_else(|| {
            (format!("u{uid}"), PathBuf::from(env.get("HOME").map_or("/", String::as_str)), PathBuf::from("/bin/sh"))
        });
        let home = env.get("HOME").map(PathBuf::from).filter(|h| h.is_absolute()).unwrap_or(home);
        let group = group_name(&read("/etc/group"), gid).unwrap_or_else(|| user.clone());
        let stdin = std::io::IsTerminal::is_terminal(&std::io::stdin());
        let stdout = std::io::IsTerminal::is_terminal(&std::io::stdout());
        Ok(Self {
            uid,
            gid,
            subuid: subordinate(&read("/etc/subuid"), &user, uid),
            subgid: subordinate(&read("/etc/subgid"), &user, uid),
            map_programs: ["newuidmap", "newgidmap"].iter().all(|p| on_path(p, env.get("PATH"))),
            user,
            group,
            home,
            shell,
            cwd: std::env::current_dir().map_err(FactsError::Cwd)?,
            terminal: stdin && stdout,
            env,
        })
    }

    /// Whether this is real root.
    pub(crate) fn is_root(&self) -> bool {
        self.uid == 0
    }

    /// Where cellblock keeps things (docs/guide.md, "Where things are").
    pub(crate) fn dirs(&self) -> Dirs {
        if self.is_root()
            && !["XDG_RUNTIME_DIR", "XDG_DATA_HOME", "XDG_STATE_HOME"].iter().any(|v| self.absolute(v).is_some())
        {
            return Dirs {
                runtime: "/run/cellblock".into(),
                data: "/var/lib/cellblock".into(),
                state: "/var/log/cellblock".into(),
            };
        }
        let under = |variable: &str, otherwise: &str| {
            self.absolute(variable).unwrap_or_else(|| self.home.join(otherwise)).join("cellblock")
        };
        Dirs {
            runtime: self.runtime_dir(),
            data: under("XDG_DATA_HOME", ".local/share"),
            state: under("XDG_STATE_HOME", ".local/state"),
        }
    }

    /// The configuration file.
    pub(crate) fn config_file(&self) -> PathBuf {
        self.absolute("XDG_CONFIG_HOME").unwrap_or_else(|| self.home.join(".config")).join("cellblock/config.yaml")
    }

    /// `$XDG_RUNTIME_DIR`, or the place systemd would give, or a folder in `/tmp` that is checked to be ours when it is used.
    fn runtime_dir(&self) -> PathBuf {
        if let Some(dir) = self.absolute("XDG_RUNTIME_DIR") {
            return dir.join("cellblock");
        }
        let usual = PathBuf::from(format!("/run/user/{}", self.uid));
        match std::fs::metadata(&usual) {
            Ok(metadata) if std::os::unix::fs::MetadataExt::uid(&metadata) == self.uid => usual.join("cellblock"),
            _ => PathBuf::from(format!("/tmp/cellblock-{}", self.uid)),
        }
    }

    fn absolute(&self, variable: &str) -> Option<PathBuf> {
        self.env.get(variable).map(PathBuf::from).filter(|p| p.is_absolute())
    }
}

/// Why the facts cannot be gathered.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FactsError {
    /// The working directory is gone or closed.
    #[error("the current directory cannot be used: {0}")]
    Cwd(std::io::Error),
}

fn on_path(program: &str, path: Option<&String>) -> bool {
    let path = path.map_or("/usr/bin:/bin", String::as_str);
    path.split(':').any(|dir| Path::new(dir).join(program).is_file())
}

type Entry = (String, PathBuf, PathBuf);

/// Name, home and shell of `uid` in the text of a passwd(5) file.
fn passwd_entry(text: &str, uid: u32) -> Option<Entry> {
    text.lines().find_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        let [name, _, id, _, _, home, shell] = fields.as_slice() else { return None };
        (id.parse() == Ok(uid)).then(|| ((*name).to_owned(), PathBuf::from(home), PathBuf::from(shell)))
    })
}

/// People of a directory service are not in the file.
fn getent(uid: u32) -> Option<Entry> {
    let output = std::process::Command::new("getent").args(["passwd", &uid.to_string()]).output().ok()?;
    passwd_entry(std::str::from_utf8(&output.stdout).ok()?, uid)
}

fn group_name(text: &str, gid: u32) -> Option<String> {
    text.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(gid)).then(|| name.to_owned())
    })
}

/// The largest range for a person in the text of a subuid(5) file, which names people by name or number.
fn subordinate(text: &str, user: &str, uid: u32) -> Option<(u32, u32)> {
    let number = uid.to_string();
    text.lines()
        .filter_map(|line| {
            let mut fields = line.trim().split(':');
            let who = fields.next()?;
            let (start, count) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
            (who == user || who == number).then_some((start, count))
        })
        .max_by_key(|(_, count)| *count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_range_of_the_person_counts() {
        let text = "other:1:99\nada:100000:10\n1000:200000:65536\n# x\nada:bad:1\n";
        assert_eq!(subordinate(text, "ada", 1000), Some((200_000, 65_536)));
        assert_eq!(subordinate(text, "bob", 7), None);
    }

    #[test]
    fn passwd_lines() {
        let text = "root:x:0:0:root:/root:/bin/bash\nada:x:1000:1000:Ada,,,:/home/ada:/bin/zsh\n";
        assert_eq!(passwd_entry(text, 1000), Some(("ada".into(), "/home/ada".into(), "/bin/zsh".into())));
        assert_eq!(passwd_entry(text, 1), None);
    }

    #[test]
    fn directories_follow_xdg_and_root_has_its_own() {
        let mut facts = Facts { uid: 1000, home: "/home/ada".into(), ..Facts::default() };
        facts.env.insert("XDG_RUNTIME_DIR".into(), "/run/user/1000".into());
        facts.env.insert("XDG_DATA_HOME".into(), "relative/is/ignored".into());
        let dirs = facts.dirs();
        assert_eq!(dirs.runtime, Path::new("/run/user/1000/cellblock"));
        assert_eq!(dirs.data, Path::new("/home/ada/.local/share/cellblock"));
        let root = Facts { uid: 0, home: "/root".into(), ..Facts::default() };
        assert_eq!(root.dirs().data, Path::new("/var/lib/cellblock"));
    }
}
