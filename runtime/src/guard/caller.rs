//! Who makes a call: memory, folders, identity. Everything is read through the host's `/proc`, where this process sits ([`super::settle`]).

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use cellblock_sys::notify::{read_memory, set_file_ids};
use rustix::process::Gid;
use rustix::thread::{CapabilitySet, CapabilitySets};

/// Longest path the kernel takes, with its NUL (`PATH_MAX`).
const PATH_MAX: usize = 4096;

/// A string in the memory of `thread`; none if there is none, or none that ends in time.
pub(crate) fn text(thread: i32, address: u64) -> Option<Vec<u8>> {
    // Most are short.
    let mut bytes = vec![0u8; 256];
    for _ in 0..2 {
        let got = read_memory(thread, address, &mut bytes).ok()?;
        let read = bytes.get(..got)?;
        if let Some(end) = read.iter().position(|byte| *byte == 0) {
            bytes.truncate(end);
            return Some(bytes);
        }
        if got < bytes.len() {
            return None;
        }
        bytes.resize(PATH_MAX, 0);
    }
    None
}

/// `count` bytes of its memory.
pub(crate) fn bytes(thread: i32, address: u64, count: usize) -> Option<Vec<u8>> {
    let mut bytes = vec![0u8; count];
    (read_memory(thread, address, &mut bytes).ok()? == count).then_some(bytes)
}

/// Whose files somebody makes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    uid: u32,
    gid: u32,
    groups: Vec<u32>,
    capabilities: CapabilitySet,
}

/// What `/proc/THREAD/status` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Status {
    pub(crate) umask: u32,
    pub(crate) group_leader: i32,
    pub(crate) identity: Identity,
}

/// Capabilities that have a say in what may be done to files.
const FOR_FILES: CapabilitySet = CapabilitySet::CHOWN
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::DAC_READ_SEARCH)
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::FSETID)
    .union(CapabilitySet::SETFCAP);
/// What the guard keeps for itself: they do not change what it may do to files.
pub(super) const OWN: CapabilitySet =
    CapabilitySet::SYS_PTRACE.union(CapabilitySet::SETUID).union(CapabilitySet::SETGID);

/// Reads `/proc/THREAD/status` (proc(5)).
fn parse(text: &str) -> Option<Status> {
    let field = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.map(str::trim)
    };
    // Real, effective, saved, for files.
    let last = |name: &str| field(name)?.split_whitespace().nth(3)?.parse().ok();
    let bits = u64::from_str_radix(field("CapEff")?, 16).ok()?;
    Some(Status {
        umask: u32::from_str_radix(field("Umask")?, 8).ok()?,
        group_leader: field("Tgid")?.parse().ok()?,
        identity: Identity {
            uid: last("Uid")?,
            gid: last("Gid")?,
            groups: field("Groups")?.split_whitespace().map(str::parse).collect::<Result<_, _>>().ok()?,
            capabilities: CapabilitySet::from_bits_retain(bits) & FOR_FILES,
        },
    })
}

/// The status of those who called last. The file stays open: it means this thread for ever, and opening costs more than reading.
#[derive(Debug, Default)]
pub(crate) struct Statuses {
    open: VecDeque<(i32, File)>,
    text: Vec<u8>,
}

impl Statuses {
    /// That of `thread`.
    pub(crate) fn of(&mut self, thread: i32) -> io::Result<Status> {
        /// How many are kept.
        const KEPT: usize = 32;
        self.text.resize(8192, 0);
        if let Some(index) = self.open.iter().position(|(known, _)| *known == thread) {
            if let Some((_, file)) = self.open.get(index)
                && let Ok(got @ 1..) = file.read_at(&mut self.text, 0)
            {
                return self.parsed(got);
            }
            // The thread has ended, and another one has its number.
            self.open.remove(index);
        }
        let file = File::open(format!("{thread}/status"))?;
        let got = file.read_at(&mut self.text, 0)?;
        self.open.truncate(KEPT - 1);
        self.open.push_front((thread, file));
        self.parsed(got)
    }

    fn parsed(&self, got: usize) -> io::Result<Status> {
        let text = self.text.get(..got).and_then(|text| std::str::from_utf8(text).ok());
        text.and_then(parse).ok_or_else(|| io::ErrorKind::InvalidData.into())
    }
}

/// This process's identity for files.
#[derive(Debug, Default)]
pub(crate) struct Disguise {
    now: Option<Identity>,
}

impl Disguise {
    /// Makes it that of `who`. After a failure it is nobody's that is known.
    pub(crate) fn wear(&mut self, who: &Identity) -> io::Result<()> {
        if self.now.as_ref() == Some(who) {
            return Ok(());
        }
        let before = self.now.take();
        if before.as_ref().is_none_or(|before| before.groups != who.groups) {
            let now: Vec<u32> = rustix::process::getgroups()?.iter().map(|gid| gid.as_raw()).collect();
            // Where only single ids are mapped nobody can change them, and the caller has ours.
            if now != who.groups {
                let groups: Vec<Gid> = who.groups.iter().map(|gid| Gid::from_raw(*gid)).collect();
                rustix::thread::set_thread_groups(&groups)?;
            }
        }
        set_file_ids(who.uid, who.gid)?;
        // The last: a change of ids changes them too.
        let now = rustix::thread::capabilities(None)?;
        let effective = (who.capabilities | OWN) & now.permitted;
        rustix::thread::set_capabilities(None, CapabilitySets { effective, ..now })?;
        self.now = Some(who.clone());
        Ok(())
    }

    /// Limits for good what it can ever have.
    pub(crate) fn limit() -> io::Result<()> {
        let now = rustix::thread::capabilities(None)?;
        let kept = (FOR_FILES | OWN) & now.permitted;
        let sets = CapabilitySets { effective: kept, permitted: kept, inheritable: CapabilitySet::empty() };
        Ok(rustix::thread::set_capabilities(None, sets)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_read() {
        let text = "Name:\tx\nUmask:\t0027\nState:\tS\nTgid:\t77\nUid:\t1\t2\t3\t4\nGid:\t5\t6\t7\t8\nGroups:\t9 10 \nCapEff:\t0000000000000003\n";
        let status = parse(text).expect("well-formed");
        assert_eq!((status.umask, status.group_leader), (0o27, 77));
        let Identity { uid, gid, groups, capabilities } = status.identity;
        assert_eq!((uid, gid, groups.as_slice()), (4, 8, [9, 10].as_slice()));
        assert_eq!(capabilities, CapabilitySet::CHOWN | CapabilitySet::DAC_OVERRIDE);
        assert_eq!(parse("Umask:\t0022\n"), None);
        assert_eq!(parse(""), None);
    }

    #[test]
    fn strings_are_read_up_to_where_memory_ends() {
        let me = rustix::process::getpid().as_raw_nonzero().get();
        let read = |text: &std::ffi::CStr| super::text(me, text.as_ptr() as u64);
        assert_eq!(read(c"abc").as_deref(), Some(&b"abc"[..]));
        assert_eq!(read(c"").as_deref(), Some(&b""[..]));
        let long = std::ffi::CString::new(vec![b'x'; 4095]).expect("no NUL");
        assert_eq!(read(&long).map(|text| text.len()), Some(4095));
        let longer = std::ffi::CString::new(vec![b'x'; 4096]).expect("no NUL");
        assert_eq!(read(&longer), None);
        assert_eq!(text(me, 8), None);
    }
}
