//! What was decided: a line of JSON for each decision, in a file that the cell cannot reach.
//!
//! A line is written before its answer goes out. Repeated decisions are counted instead of written again, so that a cell cannot fill the
//! disk: the first is written at once, the count after [`WINDOW`]. JSON escapes control characters, so a line is always one line.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Write};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use serde::{Deserialize, Serialize};

/// Control and format characters (Unicode categories Cc and, of Cf, those that change how other text is read): nobody is shown those of a cell.
#[must_use]
pub fn is_hidden(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}')
        || matches!(c, '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// What a line is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Event {
    /// The network of the cell began; `why` says how it is made.
    Start,
    /// A name was asked for.
    Dns,
    /// A connection was asked for.
    Connect,
    /// One HTTP request within a connection.
    Request,
    /// A connection that was allowed has ended: `up`, `down`, `ms`.
    End,
    /// A connection came in on a published port.
    Publish,
    /// The policy of the running cell was changed.
    Policy,
    /// The ssh agent was asked; `name` is the key's fingerprint.
    Agent,
    /// A commit or tag was to be signed; `name` is the key.
    Signature,
    /// Git's credentials were asked for; `path` is the repository's.
    Credentials,
    /// The clipboard was asked for an image.
    Clipboard,
    /// The person's browser was to open an address, `path`.
    Open,
}

/// Yes or no.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// Yes.
    Allow,
    /// No.
    Deny,
}

/// How it was or would have been spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Protocol {
    /// A look-up.
    Dns,
    /// TLS, passed on unread after a look at the server's name.
    Tls,
    /// TLS that was looked into.
    Https,
    /// Plain HTTP, request by request.
    Http,
    /// Anything else over TCP.
    Tcp,
    /// A datagram that is no look-up.
    Udp,
    /// An echo request.
    Icmp,
}

/// A program inside a cell. It chooses its name itself.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Process {
    /// What the kernel calls it: the first 15 bytes of its file's name, or whatever it has named itself.
    pub name: String,
    /// Its id inside.
    pub pid: u32,
}

/// One line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// When, in UTC (RFC 3339 with milliseconds).
    pub time: String,
    /// What it is about.
    pub event: Event,
    /// The decision.
    pub verdict: Verdict,
    /// Connects the lines of one connection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<u64>,
    /// The name that was meant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The address: the one that was dialled, or that the cell asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<IpAddr>,
    /// The port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// The protocol.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<Protocol>,
    /// The method of a request, or the type of a look-up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    /// The path of a request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// The rule that decided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// Where that rule was written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<String>,
    /// Why not, or what went wrong, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// The program that asked, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub process: Option<Process>,
    /// Bytes that the cell sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub up: Option<u64>,
    /// Bytes that it got.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub down: Option<u64>,
    /// How long it took, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ms: Option<u64>,
    /// How many more decisions of this kind there were since the last line about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
}

impl Line {
    /// A line of now, with nothing else.
    #[must_use]
    pub fn new(event: Event, verdict: Verdict) -> Self {
        Self {
            time: humantime::format_rfc3339_millis(SystemTime::now()).to_string(),
            event,
            verdict,
            id: None,
            name: None,
            address: None,
            port: None,
            protocol: None,
            method: None,
            path: None,
            rule: None,
            origin: None,
            why: None,
            process: None,
            up: None,
            down: None,
            ms: None,
            count: None,
        }
    }

    /// What makes two lines the same decision.
    fn key(&self) -> Key {
        (self.event, self.verdict, self.protocol, self.name.clone(), self.address, self.port, self.path.clone())
    }
}

/// Where to: event, name, port.
type Place = (Event, Option<String>, Option<u16>);

type Key = (Event, Verdict, Option<Protocol>, Option<String>, Option<IpAddr>, Option<u16>, Option<String>);

/// How long repeated decisions are counted before their number is written.
pub const WINDOW: Duration = Duration::from_secs(10);

/// Most different decisions that are counted at a time; one more makes those counted so far be written.
const MOST: usize = 1024;

/// Most denials and look-ups written a second; the others are only counted, all in one line.
const RATE: u32 = 200;

/// Longest text that a cell has a say in, in bytes. Much longer ones would push what else it did out of the files in seconds.
const MAX_TEXT: usize = 1024;

/// Most connections or requests to one place that are written in a [`WINDOW`]; the others are counted. A cell that is allowed to ask often must
/// not be able to push what it asked before out of the files.
const EACH: u32 = 200;

/// Largest file in bytes. A full one is renamed to `….1`, in place of an older one.
pub const MAX_FILE: u64 = 16 << 20;

/// Where the lines go.
#[derive(Debug)]
pub struct Audit {
    path: PathBuf,
    file: File,
    written: u64,
    counted: HashMap<Key, (Line, u64)>,
    /// What was allowed, by event, name and port: the last one, how many were written in this window, and how many were not.
    busy: HashMap<Place, (Line, u32, u64)>,
    /// Those that were not even counted one by one.
    flood: u64,
    second: (Instant, u32),
    since: Instant,
}

impl Audit {
    /// Opens the file at `path`, whose folder exists, to append to it.
    ///
    /// # Errors
    /// Those of `open(2)`.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = open(path)?;
        let written = file.metadata()?.len();
        let now = Instant::now();
        Ok(Self {
            path: path.to_owned(),
            file,
            written,
            counted: HashMap::new(),
            busy: HashMap::new(),
            flood: 0,
            second: (now, 0),
            since: now,
        })
    }

    /// Writes or counts a line.
    ///
    /// # Errors
    /// Those of `write(2)`: the decision has then not been written, and what was allowed must not happen.
    pub fn line(&mut self, mut line: Line) -> io::Result<()> {
        for text in [&mut line.method, &mut line.path, &mut line.why].into_iter().flatten() {
            shorten(text);
        }
        if matches!(line.event, Event::Start | Event::Policy) {
            return self.write(&line);
        }
        if self.since.elapsed() >= WINDOW || self.counted.len() >= MOST || self.busy.len() >= MOST {
            self.flush()?;
        }
        if !matches!(line.event, Event::Dns) && line.verdict == Verdict::Allow {
            let place = (line.event, line.name.clone(), line.port);
            let (last, written, more) = self.busy.entry(place).or_insert_with(|| (line.clone(), 0, 0));
            if *written >= EACH {
                (*last, *more) = (line, *more + 1);
                return Ok(());
            }
            *written += 1;
            return self.write(&line);
        }
        let key = line.key();
        if let Some((_, count)) = self.counted.get_mut(&key) {
            *count += 1;
            return Ok(());
        }
        if self.second.0.elapsed() >= Duration::from_secs(1) {
            self.second = (Instant::now(), 0);
        }
        if self.second.1 >= RATE {
            self.flood += 1;
            return Ok(());
        }
        self.second.1 += 1;
        self.write(&line)?;
        self.counted.insert(key, (line, 0));
        Ok(())
    }

    /// Whether this denial would be written, and not only counted.
    #[must_use]
    pub fn is_news(&self, line: &Line) -> bool {
        let full = self.second.0.elapsed() < Duration::from_secs(1) && self.second.1 >= RATE;
        !full && (self.since.elapsed() >= WINDOW || !self.counted.contains_key(&line.key()))
    }

    /// Counts decisions that nobody looked at one by one.
    pub fn more(&mut self, decisions: u64) {
        self.flood += decisions;
    }

    /// Writes what has been counted.
    ///
    /// # Errors
    /// Those of `write(2)`.
    pub fn flush(&mut self) -> io::Result<()> {
        self.since = Instant::now();
        let time = humantime::format_rfc3339_millis(SystemTime::now()).to_string();
        for (_, (line, count)) in std::mem::take(&mut self.counted) {
            if count > 0 {
                // Others may have asked the same.
                self.write(&Line { time: time.clone(), count: Some(count), process: None, ..line })?;
            }
        }
        for (_, (line, _, more)) in std::mem::take(&mut self.busy) {
            if more > 0 {
                // Of many different ones, so that only their place and number are said.
                let line = Line { id: None, method: None, path: None, up: None, down: None, ms: None, ..line };
                self.write(&Line { time: time.clone(), count: Some(more), ..line })?;
            }
        }
        if self.flood > 0 {
            let mut line = Line::new(Event::Connect, Verdict::Deny);
            line.why = Some("too many different look-ups and refused connections to write each".to_owned());
            line.count = Some(std::mem::take(&mut self.flood));
            self.write(&line)?;
        }
        Ok(())
    }

    fn write(&mut self, line: &Line) -> io::Result<()> {
        let mut text = serde_json::to_vec(line)?;
        text.push(b'\n');
        let length = u64::try_from(text.len()).unwrap_or(u64::MAX);
        if self.written + length > MAX_FILE {
            let mut old = self.path.clone().into_os_string();
            old.push(".1");
            std::fs::rename(&self.path, old)?;
            self.file = open(&self.path)?;
            self.written = 0;
        }
        self.file.write_all(&text)?;
        self.written += length;
        Ok(())
    }
}

impl Drop for Audit {
    fn drop(&mut self) {
        let _ = self.flush();
    }
}

/// Cuts what is too long, and says how long it was.
fn shorten(text: &mut String) {
    let length = text.len();
    if length > MAX_TEXT {
        let end = (0..=MAX_TEXT).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        text.truncate(end);
        text.push_str(&format!("… ({length} bytes)"));
    }
}

fn open(path: &Path) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;
    std::fs::OpenOptions::new().append(true).create(true).mode(0o600).open(path)
}

#[cfg(test)]
#[path = "audit_tests.rs"]
mod tests;
