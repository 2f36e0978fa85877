//! What was refused: a line of JSON for each name, in a file that the cell cannot reach. Repetitions are counted and not written again.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use rustix::time::Timespec;
use serde::{Deserialize, Serialize};

/// One line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Denial {
    /// When, in seconds since 1970-01-01 UTC.
    pub time: u64,
    /// What was to be changed, as the cell sees it; bytes that are no text are replaced.
    pub path: String,
    /// Why it was refused.
    pub why: String,
    /// How many more times it was refused since the last line about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
}

/// How long repetitions are counted before their number is written.
const WINDOW: Duration = Duration::from_secs(5);
/// Most lines of one cell: what is refused that often says nothing new.
const MOST: u64 = 10_000;
/// Most names that are counted at a time.
const NAMES: usize = 512;

/// Where the lines go.
#[derive(Debug)]
pub(super) struct Audit {
    file: File,
    written: u64,
    counted: HashMap<(String, String), u64>,
    since: Instant,
}

impl Audit {
    /// Opens the file at `path`, whose folder exists; what another cell of this name left there is gone.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let mut options = File::options();
        options.create(true).write(true).truncate(true).mode(0o600);
        let flags = rustix::fs::OFlags::NOFOLLOW.bits().cast_signed();
        let file = options.custom_flags(flags).open(path)?;
        Ok(Self { file, written: 0, counted: HashMap::new(), since: Instant::now() })
    }

    /// `path` must not be changed.
    pub(super) fn denied(&mut self, path: &[u8], why: &str) {
        let key = (String::from_utf8_lossy(path).into_owned(), why.to_owned());
        if let Some(count) = self.counted.get_mut(&key) {
            *count += 1;
            return;
        }
        if self.counted.len() >= NAMES {
            self.finish();
        }
        if self.counted.is_empty() {
            self.since = Instant::now();
        }
        self.write(&key, None);
        self.counted.insert(key, 0);
    }

    /// When [`Audit::write_counts`] has something to do.
    pub(super) fn due(&self) -> Option<Timespec> {
        (!self.counted.is_empty()).then(|| {
            let left = WINDOW.saturating_sub(self.since.elapsed()) + Duration::from_millis(1);
            Timespec { tv_sec: left.as_secs().cast_signed(), tv_nsec: left.subsec_nanos().into() }
        })
    }

    /// Writes how often what is counted came again, if it is time.
    pub(super) fn write_counts(&mut self) {
        if !self.counted.is_empty() && self.since.elapsed() >= WINDOW {
            self.finish();
        }
    }

    /// Writes it now.
    pub(super) fn finish(&mut self) {
        for (key, count) in std::mem::take(&mut self.counted) {
            if count > 0 {
                self.write(&key, Some(count));
            }
        }
    }

    /// Best effort: a full disk must not let anything through, nor stop the cell.
    fn write(&mut self, (path, why): &(String, String), count: Option<u64>) {
        if self.written >= MOST {
            return;
        }
        self.written += 1;
        let time = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| d.as_secs());
        let line = Denial { time, path: path.clone(), why: why.clone(), count };
        if let Ok(mut text) = serde_json::to_string(&line) {
            text.push('\n');
            let _ = self.file.write_all(text.as_bytes());
        }
    }
}
