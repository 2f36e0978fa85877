//! One file on two sides, kept the same while both are written: a login that the host and a cell renew, or a file of the host that
//! a cell sees follow.
//!
//! Where both sides may write and lie on one file system they have the very same file (a hard link): what is written in place on either side is
//! there on the other, with nothing in between. Only when a side puts a new file in its place is there something to do,
//! which happens here, under a lock of the host's folder that all cells' keepers take.

use std::cell::RefCell;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, FlockOperation, Mode, Stat};
use rustix::io::Errno;

use super::place::{self, MOST, MOST_TURNS, Owner, is_one_file};
use super::seen::{Sight, Stamp, Tick};

/// How long another keeper may have the lock: it is held for some system calls, and the reading of a file.
const PATIENCE: Duration = Duration::from_secs(2);

/// Which way changes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flow {
    /// Both ways.
    Both,
    /// From the host only.
    In,
}

/// One side: a folder and a name in it.
#[derive(Debug)]
pub(super) struct Side {
    pub(super) folder: OwnedFd,
    pub(super) name: PathBuf,
    pub(super) owner: Owner,
    /// Ids to make files with, where the folder's file system knows no others.
    pub(super) acting: Option<(u32, u32)>,
}

impl Side {
    fn stat(&self) -> io::Result<Option<Stat>> {
        Ok(place::look(self.folder.as_fd(), &self.name)?.filter(|stat| place::kind(stat).is_file()))
    }

    /// How it is; it was `known` to be so.
    fn look(&self, known: Option<Sight>) -> io::Result<Option<There>> {
        place::sight(self.folder.as_fd(), &self.name, known)
    }

    /// Puts these bytes there, if it is as `expected` still.
    fn write(&self, expected: Option<Sight>, bytes: &[u8], mode: u32) -> io::Result<Option<Sight>> {
        let folder = self.folder.as_fd();
        let Some((uid, gid)) = self.acting else {
            return place::write_over(folder, &self.name, expected, (bytes, mode, self.owner));
        };
        cellblock_sys::process::acting_on_files_as(uid, gid, || {
            place::write_over(folder, &self.name, expected, (bytes, mode, Owner(None)))
        })?
    }
}

/// A file on two sides.
#[derive(Debug)]
pub(super) struct Pair {
    pub(super) host: Side,
    pub(super) own: Side,
    pub(super) flow: Flow,
    /// The host's folder is cellblock's own: a file that only the cell has is brought there.
    pub(super) gives_birth: bool,
    /// Names of folders beside it by which programs lock it.
    pub(super) locks: Vec<PathBuf>,
    pub(super) known: RefCell<Known>,
}

/// How the two sides were when they were last the same, and which locks were made for the other side.
#[derive(Clone, Debug, Default)]
pub(super) struct Known {
    host: Option<Sight>,
    own: Option<Sight>,
    settled: bool,
    made: Vec<(bool, PathBuf)>,
}

/// A side that has its file.
type There = (Stat, Sight);

/// How both sides are, the host's first.
type Both = (Option<Sight>, Option<Sight>);

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Nothing,
    /// The host's to the cell.
    Give,
    /// The cell's to the host.
    Take,
}

impl Pair {
    /// Brings both sides in step.
    pub(super) fn settle(&self) -> io::Result<()> {
        self.settle_locks();
        let _turn = Turn::take(self.host.folder.as_fd())?;
        if !self.known.borrow().settled {
            // What a killed one has left.
            place::tidy(self.host.folder.as_fd(), &self.host.name)?;
            place::tidy(self.own.folder.as_fd(), &self.own.name)?;
        }
        for _ in 0..MOST_TURNS {
            let tick = Tick::now();
            let (host, own) = self.look()?;
            let now = (host.map(|(_, sight)| sight), own.map(|(_, sight)| sight));
            let step = self.step(host, own);
            let done = match step {
                Step::Nothing => Some(now),
                Step::Give => self.give(now.1)?,
                Step::Take => self.take(now.0)?,
            };
            // What was seen counts, and not what is there by now: that is the next round's.
            if let Some((host, own)) = done {
                {
                    let mut known = self.known.borrow_mut();
                    known.host = host.map(|host| host.remembered(tick));
                    known.own = own.map(|own| own.remembered(tick));
                    known.settled = true;
                }
                if step == Step::Nothing || self.is_as_known()? {
                    return Ok(());
                }
            }
        }
        Err(io::Error::new(io::ErrorKind::ResourceBusy, "it changes all the time"))
    }

    fn look(&self) -> io::Result<(Option<There>, Option<There>)> {
        if let (Some(host), Some(own)) = (self.host.stat()?, self.own.stat()?)
            && is_one_file(&host, &own)
        {
            // Nothing is to be done, whatever is in it.
            let there = |stat| Some((stat, Sight { stamp: Stamp::of(&stat), content: None }));
            return Ok((there(host), there(own)));
        }
        let known = self.known.borrow();
        Ok((self.host.look(known.host)?, self.own.look(known.own)?))
    }

    fn is_as_known(&self) -> io::Result<bool> {
        let (host, own) = self.look()?;
        let known = self.known.borrow();
        Ok(!has_changed(host, known.host) && !has_changed(own, known.own))
    }

    /// Whether the cell's side is not there yet.
    pub(super) fn is_new(&self) -> io::Result<bool> {
        Ok(place::look(self.own.folder.as_fd(), &self.own.name)?.is_none())
    }

    fn step(&self, host: Option<There>, own: Option<There>) -> Step {
        let known = self.known.borrow();
        let (host_changed, own_changed) = (has_changed(host, known.host), has_changed(own, known.own));
        match (host, own) {
            // What the host has no more stays inside, and nothing new comes about in the person's home.
            (None, Some(_)) if self.gives_birth && own_changed => Step::Take,
            (None, _) => Step::Nothing,
            // What was removed inside comes back with the host's next.
            (Some(_), None) if !known.settled || host_changed => Step::Give,
            (Some(_), None) => Step::Nothing,
            (Some((host, _)), Some((own, _))) if is_one_file(&host, &own) => Step::Nothing,
            (Some(_), Some(_)) if self.flow == Flow::In => {
                if host_changed || own_changed {
                    Step::Give
                } else {
                    Step::Nothing
                }
            }
            (Some((_, host)), Some((_, own))) if host_changed && own_changed => {
                // Without memory, or both at once: the later one is the one that lives. File systems tell times to some milliseconds only: of two
                // that are the same, the one that was put in the place of the file that both had came after what was written in that.
                let replaced = |now: Sight, known: Option<Sight>| Some(now.stamp.inode) != known.map(|s| s.stamp.inode);
                let only_own = replaced(own, known.own) && !replaced(host, known.host);
                let (own, host) = (own.stamp.modified, host.stamp.modified);
                if own > host || (own == host && only_own) { Step::Take } else { Step::Give }
            }
            (Some(_), Some(_)) if host_changed => Step::Give,
            (Some(_), Some(_)) if own_changed => Step::Take,
            _ => Step::Nothing,
        }
    }

    /// The host's to the cell, whose own is `expected`. What both are then; nothing if something has come in between.
    fn give(&self, expected: Option<Sight>) -> io::Result<Option<Both>> {
        let (host, own) = (&self.host, &self.own);
        let (bytes, stat) = place::read(host.folder.as_fd(), &host.name, MOST)?;
        if self.may_link(&stat) {
            let from = (host.folder.as_fd(), host.name.as_path());
            match place::link_over(from, (own.folder.as_fd(), &own.name), expected) {
                Ok(linked) => {
                    let both = |stamp| Some(Sight { stamp, content: None });
                    return Ok(linked.map(|stamp| (both(stamp), both(stamp))));
                }
                // Another file system, or one that has no links: two files then.
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
                Err(_) => {}
            }
        }
        let written = own.write(expected, &bytes, stat.st_mode)?;
        Ok(written.map(|own| (Some(Sight::new(Stamp::of(&stat), &bytes)), Some(own))))
    }

    /// Only where the cell is to write the host's, may do so by the file's own permissions, and sees no other owner.
    fn may_link(&self, host: &Stat) -> bool {
        self.flow == Flow::Both
            && !self.gives_birth
            && self.own.acting.is_none()
            && self.own.owner.0.is_none_or(|(uid, _)| uid == host.st_uid)
    }

    /// The cell's to the host, whose own is `expected`; the same.
    fn take(&self, expected: Option<Sight>) -> io::Result<Option<Both>> {
        let (host, own) = (&self.host, &self.own);
        let (bytes, stat) = place::read(own.folder.as_fd(), &own.name, MOST)?;
        let taken = Some(Sight::new(Stamp::of(&stat), &bytes));
        let old = match place::read(host.folder.as_fd(), &host.name, MOST) {
            Ok(old) => Some(old),
            Err(error) if super::tree::is_missing(&error) => None,
            Err(error) => return Err(error),
        };
        let written = match &old {
            // One that runs may be about to mend it; what an earlier one has left in pieces is of use to nobody.
            Some((old, _)) if !could_replace(&bytes, old) => {
                return if self.known.borrow().settled { Ok(Some((expected, taken))) } else { self.give(taken) };
            }
            Some((old, _)) if *old == bytes => expected,
            // Its permissions stay what the person made them.
            Some((_, old)) => host.write(expected, &bytes, old.st_mode)?,
            None => host.write(expected, &bytes, stat.st_mode & 0o700)?,
        };
        let Some(written) = written else { return Ok(None) };
        if self.flow == Flow::Both && !self.gives_birth {
            // One file again; if the cell has made another one in the meantime, that is the next to be taken.
            if let Some(both) = self.give(taken)? {
                return Ok(Some(both));
            }
        }
        Ok(Some((Some(written), taken)))
    }

    /// A lock that is there on one side is made on the other. Best effort: it narrows the time in which both renew one login, and the
    /// programs that use such locks look at the file again when they have one.
    fn settle_locks(&self) {
        let mut known = self.known.borrow_mut();
        for name in &self.locks {
            let is = |side: &Side| place::look(side.folder.as_fd(), name).is_ok_and(|stat| stat.is_some());
            let there = [is(&self.host), is(&self.own)];
            let sides = [&self.host, &self.own];
            for at in [0, 1] {
                let made = known.made.iter().position(|(of_own, made)| *of_own == (at == 1) && made == name);
                match (made, there[at], there[1 - at]) {
                    // Made by us for the other side, who has given its own back.
                    (Some(index), here, false) => {
                        if here {
                            let _ = rustix::fs::unlinkat(&sides[at].folder, name, AtFlags::REMOVEDIR);
                        }
                        known.made.remove(index);
                        // What was seen is no longer so.
                        break;
                    }
                    (None, false, true)
                        if !known.made.iter().any(|(_, made)| made == name)
                            && sides[at].acting.is_none()
                            && rustix::fs::mkdirat(&sides[at].folder, name, Mode::RWXU).is_ok() =>
                    {
                        known.made.push((at == 1, name.clone()));
                        break;
                    }
                    _ => {}
                }
            }
        }
    }

    /// Gives back what was made here.
    pub(super) fn leave(&self) {
        let mut known = self.known.borrow_mut();
        for (of_own, name) in known.made.drain(..) {
            let side = if of_own { &self.own } else { &self.host };
            let _ = rustix::fs::unlinkat(&side.folder, &name, AtFlags::REMOVEDIR);
        }
    }
}

/// Takes the host's file from the cell's side, which has it from a cell that shared it: whoever writes to it would write the host's.
pub(super) fn part(host: &Side, own: &Side) -> io::Result<()> {
    let _turn = Turn::take(host.folder.as_fd())?;
    match (host.stat()?, own.stat()?) {
        (Some(there), Some(here)) if is_one_file(&there, &here) => {
            Ok(rustix::fs::unlinkat(&own.folder, &own.name, AtFlags::empty())?)
        }
        _ => Ok(()),
    }
}

fn has_changed(now: Option<There>, known: Option<Sight>) -> bool {
    match (now, known) {
        (Some((_, now)), Some(known)) => !now.is(&known),
        (now, known) => now.is_some() != known.is_some(),
    }
}

/// Whether `new` may take the place of `old` on the host: nothing is no login, and half a JSON file is none.
fn could_replace(new: &[u8], old: &[u8]) -> bool {
    let json = |bytes: &[u8]| serde_json::from_slice::<serde::de::IgnoredAny>(bytes).is_ok();
    !new.iter().all(u8::is_ascii_whitespace) && (json(new) || !json(old))
}

/// The right to change a host's file: one keeper at a time. The lock is on the folder, and gone with its holder.
struct Turn(OwnedFd);

impl Turn {
    fn take(folder: BorrowedFd<'_>) -> io::Result<Self> {
        let file = super::reopen(folder)?;
        let end = Instant::now() + PATIENCE;
        loop {
            match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(Self(file)),
                Err(Errno::WOULDBLOCK | Errno::INTR) if Instant::now() < end => {
                    std::thread::sleep(Duration::from_millis(1));
                }
                Err(Errno::WOULDBLOCK | Errno::INTR) => {
                    let told = "another program holds a lock on its folder on the host";
                    return Err(io::Error::new(io::ErrorKind::WouldBlock, told));
                }
                Err(error) => return Err(error.into()),
            }
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let _ = rustix::fs::flock(&self.0, FlockOperation::Unlock);
    }
}

#[cfg(test)]
mod tests;
