//! What was taken from the host, as it was then on both sides: by it the next start knows what has changed, and on which side.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::hash::{DefaultHasher, Hasher};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use rustix::fs::Stat;

/// A file as it was: any change by the usual means shows in one of these, if it [`Stamp::would_tell`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Stamp {
    pub(super) inode: u64,
    size: u64,
    /// Nanoseconds since the epoch.
    pub(super) modified: i128,
}

impl Stamp {
    pub(super) fn of(stat: &Stat) -> Self {
        let modified = i128::from(stat.st_mtime) * 1_000_000_000 + i128::from(stat.st_mtime_nsec);
        Self { inode: stat.st_ino, size: u64::try_from(stat.st_size).unwrap_or(0), modified }
    }

    /// Whether what is written in place from `tick` on shows even if the size stays. Before Linux 6.13 file times come from a clock that goes on
    /// once in 4 ms (or 1 to 10, by how the kernel was built); exFAT keeps 10 ms, some file systems whole seconds, FAT every other one. A time far ahead
    /// was set by somebody, and whatever is written brings it back.
    pub(super) fn would_tell(&self, tick: Tick) -> bool {
        const SECOND: i128 = 1_000_000_000;
        let grain = if self.modified % SECOND == 0 { 2 * SECOND } else { SECOND / 50 };
        self.modified + grain <= tick.0 || self.modified > tick.0 + 2 * SECOND
    }
}

/// A file as it was, and what was in it where that alone would show a change.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sight {
    pub(super) stamp: Stamp,
    /// The hash of its bytes. Nothing where it was not read: because the stamp would tell, or because it cannot be.
    pub(super) content: Option<u64>,
}

impl Sight {
    /// Of what was read, or written.
    pub(super) fn new(stamp: Stamp, bytes: &[u8]) -> Self {
        Self { stamp, content: Some(hash(bytes)) }
    }

    /// Whether it is what `earlier` was, as far as is known of both.
    pub(super) fn is(&self, earlier: &Self) -> bool {
        let differ = |(now, then)| now != then;
        self.stamp == earlier.stamp && !self.content.zip(earlier.content).is_some_and(differ)
    }

    /// What has to be remembered of it, for it was looked at after `tick`.
    pub(super) fn remembered(self, tick: Tick) -> Self {
        Self { content: self.content.filter(|_| !self.stamp.would_tell(tick)), ..self }
    }
}

fn hash(bytes: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(bytes);
    hasher.finish()
}

/// The clock that file times come from, in nanoseconds since the epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tick(i128);

impl Tick {
    pub(super) fn now() -> Self {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::RealtimeCoarse);
        Self(i128::from(now.tv_sec) * 1_000_000_000 + i128::from(now.tv_nsec))
    }
}

/// One file or folder that was taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Mark {
    /// The host's then.
    pub(super) host: Stamp,
    /// What was made of it. Nothing real for what was there already: such a file is never touched.
    pub(super) own: Stamp,
}

/// Everything that was taken, by its path below the folder.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Seen(pub(super) BTreeMap<PathBuf, Mark>);

impl Seen {
    /// What was taken as `path` and is `before` still, has become `after` by our own work; false if it was not so.
    pub(super) fn moved(&mut self, path: &Path, before: Stamp, after: Stamp) -> bool {
        match self.0.get_mut(path) {
            Some(mark) if mark.own == before => {
                mark.own = after;
                true
            }
            _ => false,
        }
    }

    /// A line each: six numbers and the path, ended by NUL, for names may hold everything else.
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (path, Mark { host, own }) in &self.0 {
            let numbers =
                format!("{} {} {} {} {} {} ", host.inode, host.size, host.modified, own.inode, own.size, own.modified);
            bytes.extend_from_slice(numbers.as_bytes());
            bytes.extend_from_slice(path.as_os_str().as_bytes());
            bytes.push(0);
        }
        bytes
    }

    /// The reverse. What cannot be read counts as not seen: then nothing that is there is changed.
    pub(super) fn from_bytes(bytes: &[u8]) -> Self {
        let record = |line: &[u8]| {
            let mut words = line.splitn(7, |byte| *byte == b' ');
            let mut number = || std::str::from_utf8(words.next()?).ok()?.parse::<i128>().ok();
            let mut stamp = || {
                let (inode, size, modified) = (number()?, number()?, number()?);
                Some(Stamp { inode: inode.try_into().ok()?, size: size.try_into().ok()?, modified })
            };
            let mark = Mark { host: stamp()?, own: stamp()? };
            let path = PathBuf::from(OsString::from_vec(words.next()?.to_vec()));
            plain(&path).then_some((path, mark))
        };
        Self(bytes.split(|byte| *byte == 0).filter_map(record).collect())
    }
}

fn plain(path: &Path) -> bool {
    path.components().all(|part| matches!(part, std::path::Component::Normal(_))) && path.components().next().is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_later_change_shows_when_the_clock_has_gone_on() {
        let second = 1_000_000_000;
        let tells = |modified, now| Stamp { modified, ..Stamp::default() }.would_tell(Tick(now));
        assert!(!tells(5 * second + 4, 5 * second + 4) && !tells(5 * second + 4, 5 * second));
        assert!(!tells(5 * second + 4, 5 * second + 15_000_000), "the file system's grain");
        assert!(tells(5 * second + 4, 5 * second + 20_000_004));
        // Whole seconds may be all that the file system knows.
        assert!(!tells(5 * second, 7 * second - 1));
        assert!(tells(5 * second, 7 * second));
        // Of a host's clock that is ahead a little, and of one that is not its clock.
        assert!(!tells(6 * second + 4, 5 * second));
        assert!(tells(9 * second + 4, 5 * second));
    }

    #[test]
    fn it_survives_being_written() {
        let stamp = |n: u64| Stamp { inode: n, size: n + 1, modified: -i128::from(n) };
        let odd = PathBuf::from(OsString::from_vec(b"a b/\n\xff".to_vec()));
        let seen = Seen(BTreeMap::from([
            (odd, Mark { host: stamp(1), own: stamp(u64::MAX - 1) }),
            ("settings.json".into(), Mark { host: stamp(3), own: Stamp::default() }),
        ]));
        assert_eq!(Seen::from_bytes(&seen.to_bytes()), seen);
        assert_eq!(Seen::from_bytes(b""), Seen::default());
    }

    #[test]
    fn what_is_damaged_is_not_seen() {
        for bytes in
            [&b"1 2 3"[..], b"1 2 3 4 5 6 ../up\0", b"1 2 3 4 5 6 /abs\0", b"x 2 3 4 5 6 a\0", b"-1 2 3 4 5 6 a\0"]
        {
            assert_eq!(Seen::from_bytes(bytes), Seen::default(), "{bytes:?}");
        }
    }
}
