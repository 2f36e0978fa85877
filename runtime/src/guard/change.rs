//! Changes of attributes, by path and by descriptor.

use std::os::fd::AsFd;

use cellblock_sys::notify::set_mode;
use rustix::fs::{AtFlags, CWD, FileType, Gid, Mode, Timespec, Timestamps, UTIME_NOW, Uid, XattrFlags};
use rustix::io::Errno;

use super::carry::{GO_ON, Step, Work};
use super::place::{Place, magic};
use super::policy::Act;
use super::request::{Address, Change, Clock, Target};

/// A change, with what of it lay in the caller's memory.
enum Told {
    Mode(Mode),
    Owner(Option<Uid>, Option<Gid>),
    Times(Timestamps),
    SetXattr { name: Vec<u8>, value: Vec<u8>, flags: XattrFlags },
    RemoveXattr { name: Vec<u8> },
}

impl Work<'_> {
    pub(super) fn change(&mut self, what: Target, how: Change) -> Step<()> {
        let place = match what {
            Target::Open(number) => self.open_place(number)?,
            Target::Path { at, follow, empty } => {
                let path = self.text(at.path)?;
                if path.is_empty() && empty && at.folder >= 0 {
                    self.open_place(at.folder)?
                } else if path.is_empty() {
                    return Err(GO_ON);
                } else {
                    self.find_text(at, &path, follow, None)?
                }
            }
        };
        self.pass_config(&place, how)?;
        if place.found.is_none() {
            return Err(Errno::NOENT.into());
        }
        if place.slash && place.kind() != Some(FileType::Directory) {
            return Err(Errno::NOTDIR.into());
        }
        let told = self.told(how)?;
        self.allowed(&place, Act::Write)?;
        if matches!(told, Told::Mode(_)) && place.kind() == Some(FileType::Symlink) {
            // The mode of a link does not exist.
            return Err(Errno::OPNOTSUPP.into());
        }
        Ok(apply(&place, told)?)
    }

    /// Reads what is left to be read.
    fn told(&mut self, how: Change) -> Step<Told> {
        Ok(match how {
            Change::Mode(mode) => Told::Mode(Mode::from_raw_mode(mode & 0o7777)),
            Change::Owner(uid, gid) => {
                let uid = (uid != u32::MAX).then(|| Uid::from_raw(uid));
                let gid = (gid != u32::MAX).then(|| Gid::from_raw(gid));
                Told::Owner(uid, gid)
            }
            Change::Times(address, clock) => Told::Times(self.times(address, clock)?),
            Change::SetXattr { name, value, size, flags } => {
                /// `XATTR_SIZE_MAX` (`<linux/limits.h>`).
                const MOST: u64 = 65_536;
                let name = self.text(name)?;
                let size = usize::try_from(size).ok().filter(|size| *size as u64 <= MOST).ok_or(Errno::TOOBIG)?;
                let value = self.bytes(value, size).ok_or(Errno::FAULT)?;
                Told::SetXattr { name, value, flags: XattrFlags::from_bits_retain(flags) }
            }
            Change::RemoveXattr { name } => Told::RemoveXattr { name: self.text(name)? },
        })
    }

    /// The place of an open file of the caller's that it cannot change itself.
    fn open_place(&mut self, number: i32) -> Step<Place> {
        let roots = &self.worker.roots;
        // What is on a writable mount the kernel changes. If it is a guarded one, it was handed over to be changed, when its name was looked at.
        if roots.known.is_writable(self.who.folder.as_fd(), format!("fd/{number}").as_bytes()) {
            return Err(GO_ON);
        }
        let grip = self.open_file(number)?;
        let roots = &self.worker.roots;
        if roots.known.learn_writable(&grip) {
            return Err(GO_ON);
        }
        // One that lies elsewhere, or that has no name any more, was not opened by its name on the read-only mount.
        roots.place_of(&grip).ok().flatten().ok_or(GO_ON)
    }

    fn times(&mut self, address: Address, clock: Clock) -> Step<Timestamps> {
        let now = Timespec { tv_sec: 0, tv_nsec: UTIME_NOW };
        if address == 0 {
            return Ok(Timestamps { last_access: now, last_modification: now });
        }
        let count = if clock.unit == 0 { 2 } else { 4 };
        let bytes = self.bytes(address, clock.width * count).ok_or(GO_ON)?;
        let number = |index: usize| -> i64 {
            let from = index * clock.width;
            match bytes.get(from..from + clock.width) {
                Some(&[a, b, c, d]) => i32::from_le_bytes([a, b, c, d]).into(),
                Some(&[a, b, c, d, e, f, g, h]) => i64::from_le_bytes([a, b, c, d, e, f, g, h]),
                _ => 0,
            }
        };
        let time = |index: usize| match clock.unit {
            0 => Timespec { tv_sec: number(index), tv_nsec: 0 },
            unit => Timespec { tv_sec: number(2 * index), tv_nsec: number(2 * index + 1).wrapping_mul(unit) },
        };
        Ok(Timestamps { last_access: time(0), last_modification: time(1) })
    }
}

/// Does it, to what has the name now, and never to what a link there leads to.
fn apply(place: &Place, told: Told) -> rustix::io::Result<()> {
    if !place.name.is_empty() {
        let (folder, name, itself) = (&place.folder, place.name.as_slice(), AtFlags::SYMLINK_NOFOLLOW);
        match &told {
            Told::Mode(mode) => {
                if let Some(done) = set_mode(folder.as_fd(), name, mode.as_raw_mode()) {
                    return done.map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO));
                }
            }
            Told::Owner(uid, gid) => return rustix::fs::chownat(folder, name, *uid, *gid, itself),
            Told::Times(times) => return rustix::fs::utimensat(folder, name, times, itself),
            Told::SetXattr { .. } | Told::RemoveXattr { .. } => {}
        }
    }
    let grip = place.grip()?;
    let path = magic(&grip);
    match told {
        Told::Mode(mode) => rustix::fs::chmodat(CWD, path.as_str(), mode, AtFlags::empty()),
        Told::Owner(uid, gid) => rustix::fs::chownat(CWD, path.as_str(), uid, gid, AtFlags::empty()),
        Told::Times(times) => rustix::fs::utimensat(CWD, path.as_str(), &times, AtFlags::empty()),
        Told::SetXattr { name, value, flags } => rustix::fs::setxattr(path.as_str(), name, &value, flags),
        Told::RemoveXattr { name } => rustix::fs::removexattr(path.as_str(), name),
    }
}
