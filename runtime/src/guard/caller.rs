//! Who makes a call: memory, folders, identity. Everything is read through the host's `/proc`, where this process sits ([`super::settle`]).

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::rc::Rc;

use cellblock_sys::notify::{read_memory, set_file_ids};
use rustix::fs::{Mode, OFlags};
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

/// Those who called last. What is open of one in `/proc` means this thread for ever, and finding it by its number costs more than what is
/// asked of it: the number is looked up, and leave to look is given, at each step of a path through `/proc`.
#[derive(Debug, Default)]
pub(crate) struct Threads {
    seen: VecDeque<Seen>,
    text: Vec<u8>,
}

#[derive(Debug)]
struct Seen {
    id: i32,
    folder: Rc<OwnedFd>,
    status: Option<File>,
}

impl Threads {
    /// `/proc/THREAD`. If it is one that was kept, the thread may have ended and another one have its number: then nothing is found in it any
    /// more, for which [`Threads::anew`] is the answer. What is found in it is of the thread that has the number.
    pub(crate) fn folder(&mut self, thread: i32) -> io::Result<Rc<OwnedFd>> {
        match self.seen.iter().find(|seen| seen.id == thread) {
            Some(seen) => Ok(Rc::clone(&seen.folder)),
            None => self.anew(thread),
        }
    }

    /// The same, of the thread that has the number now.
    pub(crate) fn anew(&mut self, thread: i32) -> io::Result<Rc<OwnedFd>> {
        /// How many are kept.
        const KEPT: usize = 32;
        self.seen.retain(|seen| seen.id != thread);
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let folder = Rc::new(rustix::fs::open(format!("{thread}"), flags, Mode::empty())?);
        self.seen.truncate(KEPT - 1);
        self.seen.push_front(Seen { id: thread, folder: Rc::clone(&folder), status: None });
        Ok(folder)
    }

    /// What `thread` is.
    pub(crate) fn status(&mut self, thread: i32) -> io::Result<Status> {
        self.read(thread)?;
        std::str::from_utf8(&self.text).ok().and_then(parse).ok_or_else(|| io::ErrorKind::InvalidData.into())
    }

    /// The umask of `thread`, which only stands there.
    pub(crate) fn umask(&mut self, thread: i32) -> io::Result<u32> {
        self.read(thread)?;
        // In one of the first lines.
        let mut lines = self.text.split(|byte| *byte == b'\n');
        let text = lines.find_map(|line| std::str::from_utf8(line.strip_prefix(b"Umask:")?).ok());
        text.and_then(|text| u32::from_str_radix(text.trim(), 8).ok()).ok_or_else(|| io::ErrorKind::InvalidData.into())
    }

    /// Reads the status of `thread`.
    fn read(&mut self, thread: i32) -> io::Result<()> {
        let Self { seen, text } = self;
        if let Some(Seen { status: Some(file), .. }) = seen.iter().find(|seen| seen.id == thread)
            && read_whole(file, text).is_ok()
        {
            return Ok(());
        }
        let folder = match seen.iter().find(|seen| seen.id == thread) {
            Some(Seen { folder, status: None, .. }) => Rc::clone(folder),
            _ => self.anew(thread)?,
        };
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let file = match rustix::fs::openat(&folder, c"status", flags, Mode::empty()) {
            Ok(file) => file,
            Err(_) => rustix::fs::openat(self.anew(thread)?, c"status", flags, Mode::empty())?,
        };
        let file = File::from(file);
        read_whole(&file, &mut self.text)?;
        if let Some(seen) = self.seen.iter_mut().find(|seen| seen.id == thread) {
            seen.status = Some(file);
        }
        Ok(())
    }
}

/// Reads `file` of `/proc` from its beginning.
fn read_whole(file: &File, text: &mut Vec<u8>) -> io::Result<()> {
    text.resize(8192, 0);
    let got = file.read_at(text, 0)?;
    text.truncate(got);
    if got == 0 { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(()) }
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
