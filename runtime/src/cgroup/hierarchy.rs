//! Where cgroups are on this host, read from the text of `/proc/self/mountinfo` and `/proc/self/cgroup` (proc(5), cgroups(7)).
//!
//! Three layouts are common. v1: one hierarchy a controller. v2: one for all. Hybrid: v1 for controllers, and a v2 tree beside them, in
//! which systemd keeps track of processes.

use std::path::{Component, Path, PathBuf};

/// How the host arranges its cgroups.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Hierarchy {
    /// Only v1 hierarchies.
    V1,
    /// Controllers on v1, and a v2 tree beside them.
    Hybrid,
    /// The unified hierarchy only.
    V2,
    /// No cgroup file system is mounted.
    None,
}

impl std::fmt::Display for Hierarchy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::V1 => "v1",
            Self::Hybrid => "v1 with a v2 tree beside it (hybrid)",
            Self::V2 => "v2",
            Self::None => "none",
        })
    }
}

/// One mounted hierarchy.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Mounted {
    /// `None` for v2; the super options for v1, among which are the controllers' names.
    v1: Option<Vec<String>>,
    /// Which cgroup the mount shows, as seen from the reader's cgroup namespace.
    root: PathBuf,
    point: PathBuf,
    read_only: bool,
    nsdelegate: bool,
}

/// What the two files say.
#[derive(Clone, Debug, Default)]
pub(super) struct Layout {
    mounts: Vec<Mounted>,
    /// v1: controllers and the process's group in their hierarchy.
    v1: Vec<(Vec<String>, PathBuf)>,
    /// v2: the process's group.
    v2: Option<PathBuf>,
}

/// Where the groups for one controller are, for the process whose files were read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// Whether this is the unified hierarchy.
    pub(super) v2: bool,
    /// The directory of the process's own group.
    pub(super) own: PathBuf,
    /// Where the hierarchy is mounted: nothing above it is to be looked at.
    pub(super) mount: PathBuf,
    /// Mounted read-only, as in an ordinary container.
    pub(super) read_only: bool,
    /// v2: namespaces are delegation boundaries, across which no process can be moved (cgroup-v2.rst, "nsdelegate").
    pub(super) nsdelegate: bool,
}

/// Why a controller has no place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoPlace {
    /// No hierarchy has the controller.
    #[error("the kernel has no such controller, or it is switched off")]
    NoHierarchy,
    /// It exists, but is not mounted.
    #[error("its hierarchy is not mounted here")]
    NotMounted,
    /// The mount shows other groups than the process's own.
    #[error("the mounted part of its hierarchy does not contain this process's group")]
    Elsewhere,
}

impl Layout {
    /// Reads the text of `/proc/self/mountinfo` and `/proc/self/cgroup`. Lines that make no sense are skipped.
    #[must_use]
    pub(super) fn parse(mountinfo: &str, cgroup: &str) -> Self {
        let all: Vec<_> = mountinfo.lines().filter_map(mount_line).collect();
        let hidden = |at: usize, point: &Path| {
            all.iter().skip(at + 1).any(|(_, over, _)| over != Path::new("/") && point.starts_with(over))
        };
        let mounts = all
            .iter()
            .enumerate()
            .filter(|(at, (_, point, _))| !hidden(*at, point))
            .filter_map(|(_, (_, _, mounted))| mounted.clone())
            .collect();
        let mut layout = Self { mounts, ..Self::default() };
        for line in cgroup.lines() {
            let mut fields = line.splitn(3, ':');
            let (Some(_), Some(names), Some(path)) = (fields.next(), fields.next(), fields.next()) else { continue };
            if names.is_empty() {
                layout.v2 = Some(path.into());
            } else {
                layout.v1.push((names.split(',').map(str::to_owned).collect(), path.into()));
            }
        }
        layout
    }

    /// How the host arranges its cgroups.
    #[must_use]
    pub(super) fn hierarchy(&self) -> Hierarchy {
        // A named hierarchy such as `name=systemd` has no controller, and does not make a host a v1 one.
        let v1 = self.mounts.iter().any(|m| {
            m.v1.as_ref().is_some_and(|options| {
                let named = options.iter().any(|o| o.starts_with("name="));
                !named && !options.is_empty()
            })
        });
        let v2 = self.mounts.iter().any(|m| m.v1.is_none());
        match (v1, v2) {
            (true, true) => Hierarchy::Hybrid,
            (true, false) => Hierarchy::V1,
            (false, true) => Hierarchy::V2,
            (false, false) => Hierarchy::None,
        }
    }

    /// Where `controller` is: its v1 hierarchy if there is one, else the v2 tree (which may lack the controller).
    ///
    /// # Errors
    /// See [`NoPlace`].
    pub(super) fn place(&self, controller: &str) -> Result<Place, NoPlace> {
        let v1 = self.v1.iter().find(|(names, _)| names.iter().any(|n| n == controller));
        let (path, v2) = match (v1, &self.v2) {
            (Some((_, path)), _) => (path, false),
            (None, Some(path)) => (path, true),
            (None, None) => return Err(NoPlace::NoHierarchy),
        };
        let fits = |m: &&Mounted| match &m.v1 {
            None => v2,
            Some(options) => !v2 && options.iter().any(|o| o == controller),
        };
        let mut why = NoPlace::NotMounted;
        for mount in self.mounts.iter().filter(fits) {
            match below(path, &mount.root) {
                Some(inside) => {
                    // Collected anew, so that an empty rest leaves no slash at the end.
                    let own = mount.point.join(inside).components().collect();
                    return Ok(Place {
                        v2,
                        own,
                        mount: mount.point.clone(),
                        read_only: mount.read_only,
                        nsdelegate: mount.nsdelegate,
                    });
                }
                None => why = NoPlace::Elsewhere,
            }
        }
        // On a v1 or hybrid host every controller that exists has its line; the v2 tree is not what lacks a mount.
        Err(if v2 && self.hierarchy() == Hierarchy::V1 { NoPlace::NoHierarchy } else { why })
    }
}

/// `path` as seen from `root`, both as seen from the root of the reader's cgroup namespace; both may start with `/..`, which are
/// groups above it whose names the kernel does not tell.
fn below(path: &Path, root: &Path) -> Option<PathBuf> {
    let rest = path.strip_prefix(root).ok()?;
    rest.components().all(|c| matches!(c, Component::Normal(_))).then(|| rest.to_owned())
}

type MountLine = (PathBuf, PathBuf, Option<Mounted>);

/// Root, mount point, and the hierarchy if it is one.
fn mount_line(line: &str) -> Option<MountLine> {
    let (before, after) = line.split_once(" - ")?;
    let mut fields = before.split(' ').skip(3);
    let (root, point, options) = (unescape(fields.next()?), unescape(fields.next()?), fields.next()?);
    let mut fields = after.split(' ');
    let (kind, _, super_options) = (fields.next()?, fields.next()?, fields.next().unwrap_or_default());
    let has = |list: &str, word: &str| list.split(',').any(|o| o == word);
    let v1 = match kind {
        "cgroup2" => Some(None),
        "cgroup" => Some(Some(
            super_options.split(',').filter(|o| !["rw", "ro", "xattr", ""].contains(o)).map(str::to_owned).collect(),
        )),
        _ => None,
    };
    let mounted = v1.map(|v1| Mounted {
        v1,
        root: root.clone(),
        point: point.clone(),
        read_only: has(options, "ro") || has(super_options, "ro"),
        nsdelegate: has(super_options, "nsdelegate"),
    });
    Some((root, point, mounted))
}

/// Undoes the kernel's `\040` for space, tab, newline and backslash.
fn unescape(text: &str) -> PathBuf {
    let mut out = Vec::with_capacity(text.len());
    let bytes = text.as_bytes();
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let code = bytes.get(at + 1..at + 4).filter(|_| byte == b'\\').and_then(|digits| {
            digits.iter().try_fold(0u8, |n, d| n.checked_mul(8)?.checked_add(d.checked_sub(b'0').filter(|d| *d < 8)?))
        });
        out.push(code.unwrap_or(byte));
        at += if code.is_some() { 4 } else { 1 };
    }
    use std::os::unix::ffi::OsStringExt;
    PathBuf::from(std::ffi::OsString::from_vec(out))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755\n\
        30 25 0:26 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
        32 25 0:27 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n\
        33 25 0:29 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd\n\
        34 25 0:28 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw,nsdelegate\n";
    const V2: &str =
        "30 25 0:26 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate,memory_recursiveprot\n";

    #[test]
    fn layouts_are_told_apart() {
        let of = |mountinfo: &str| Layout::parse(mountinfo, "").hierarchy();
        assert_eq!(of(HYBRID), Hierarchy::Hybrid);
        assert_eq!(of(V2), Hierarchy::V2);
        assert_eq!(of("30 25 0:26 / /c/memory rw - cgroup cgroup rw,memory\n"), Hierarchy::V1);
        // systemd's "legacy named" tree beside a unified one.
        assert_eq!(of(&format!("{V2}31 25 0:27 / /c/s rw - cgroup cgroup rw,name=systemd\n")), Hierarchy::V2);
        assert_eq!(of("22 1 8:1 / / rw - ext4 /dev/sda rw\n"), Hierarchy::None);
        assert_eq!(of("nonsense\n - \n1 2 3 4 5 - cgroup2\n"), Hierarchy::None);
    }

    #[test]
    fn each_controller_has_its_place() {
        let layout = Layout::parse(HYBRID, "5:memory:/a/b\n4:cpu,cpuacct:/\n1:name=systemd:/x\n0::/c:d\n");
        let own = |controller: &str| layout.place(controller).map(|p| (p.v2, p.own));
        assert_eq!(own("memory"), Ok((false, "/sys/fs/cgroup/memory/a/b".into())));
        assert_eq!(own("cpu"), Ok((false, "/sys/fs/cgroup/cpu,cpuacct".into())));
        assert_eq!(own("pids"), Ok((true, "/sys/fs/cgroup/unified/c:d".into())));
        assert!(layout.place("pids").is_ok_and(|p| p.nsdelegate && !p.read_only));
    }

    #[test]
    fn containers_show_a_part_or_a_namespace() {
        // (root field of the mount, the process's group, own directory)
        let table = [
            ("/", "/user.slice/session-3.scope", Ok("/g/user.slice/session-3.scope")),
            // docker with the host's cgroup namespace: only the container's part is mounted.
            ("/docker/abc", "/docker/abc", Ok("/g")),
            ("/docker/abc", "/docker/abc/sub", Ok("/g/sub")),
            ("/kubepods/pod1", "/kubepods/pod12", Err(NoPlace::Elsewhere)),
            // a private cgroup namespace
            ("/", "/", Ok("/g")),
            // a new cgroup namespace over the host's mounts: the names above the process are not told
            ("/../../..", "/", Err(NoPlace::Elsewhere)),
            ("/../..", "/../../other", Ok("/g/other")),
            // moved out of its namespace's root
            ("/", "/../other", Err(NoPlace::Elsewhere)),
        ];
        for (root, group, expected) in table {
            let layout =
                Layout::parse(&format!("1 2 0:3 {root} /g ro - cgroup2 cgroup rw\n"), &format!("0::{group}\n"));
            let place = layout.place("memory");
            assert!(place.as_ref().map_or(true, |p| p.read_only));
            assert_eq!(place.map(|p| p.own), expected.map(PathBuf::from), "{root} {group}");
        }
    }

    #[test]
    fn what_is_covered_is_not_used() {
        let covered = format!("{V2}40 30 0:40 / /sys/fs rw - tmpfs tmpfs rw\n");
        assert_eq!(Layout::parse(&covered, "0::/a\n").place("memory"), Err(NoPlace::NotMounted));
        // Positive twin: something beside it.
        let beside = format!("{V2}40 30 0:40 / /sys/fs/cgroup2 rw - tmpfs tmpfs rw\n");
        assert!(Layout::parse(&beside, "0::/a\n").place("memory").is_ok());
        assert_eq!(Layout::parse("", "").place("memory"), Err(NoPlace::NoHierarchy));
    }

    #[test]
    fn escapes_of_the_kernel() {
        for (text, path) in [("/a\\040b", "/a b"), ("/a\\134", "/a\\"), ("/a\\", "/a\\"), ("/\\09", "/\\09"), ("", "")]
        {
            assert_eq!(unescape(text), PathBuf::from(path), "{text}");
        }
    }
}
