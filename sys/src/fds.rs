//! Descriptors over a Unix socket (`SCM_RIGHTS`, unix(7)).

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags,
};

/// How many go with one message at most; the kernel takes 253 (`SCM_MAX_FD`).
pub const MOST: usize = 32;

/// Sends `bytes`, of which there must be one at least, and with their first one the descriptors `fds`.
///
/// # Errors
/// `InvalidInput` for more than [`MOST`]; `BrokenPipe`, and no signal, if nobody is at the other end; else those of `sendmsg(2)`.
pub fn send(to: impl AsFd, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    rustix::io::retry_on_intr(|| rustix::net::sendmsg(&to, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL))?;
    Ok(())
}

/// Receives into `bytes`: how many came, 0 at the end, and the descriptors that came with them, closed on `exec`.
///
/// # Errors
/// `InvalidData` if not all of them could be taken, for their number or this process's limit: what is missing might be a cgroup. Else those of
/// `recvmsg(2)`.
pub fn receive(from: impl AsFd, bytes: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = rustix::io::retry_on_intr(|| {
        rustix::net::recvmsg(&from, &mut [IoSliceMut::new(bytes)], &mut control, RecvFlags::CMSG_CLOEXEC)
    })?;
    if received.flags.contains(ReturnFlags::CTRUNC) {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let fds = control.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(fds) => Some(fds),
        _ => None,
    });
    let fds = fds.flatten().collect();
    Ok((received.bytes, fds))
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn descriptors_arrive_in_order_and_close_on_exec() {
        let (ours, theirs) = UnixStream::pair().expect("a pair");
        let files = [io::pipe().expect("a pipe"), io::pipe().expect("a pipe")];
        let fds: Vec<_> = files.iter().map(|(reader, _)| reader.as_fd()).collect();
        send(&ours, b"word", &fds).expect("sent");
        let mut bytes = [0u8; 8];
        let (length, received) = receive(&theirs, &mut bytes).expect("received");
        assert_eq!((bytes.get(..length), received.len()), (Some(&b"word"[..]), 2));
        for ((_, mut writer), (fd, letter)) in files.into_iter().zip(received.into_iter().zip(*b"ab")) {
            assert!(rustix::io::fcntl_getfd(&fd).expect("flags").contains(rustix::io::FdFlags::CLOEXEC));
            writer.write_all(&[letter]).expect("written");
            let mut byte = [0u8];
            std::fs::File::from(fd).read_exact(&mut byte).expect("read");
            assert_eq!(byte, [letter]);
        }
        drop(ours);
        assert_eq!(receive(&theirs, &mut bytes).expect("the end").0, 0);
        assert_eq!(send(&theirs, b"x", &[]).expect_err("nobody there").kind(), io::ErrorKind::BrokenPipe);
    }

    #[test]
    fn some_of_them_are_not_taken_for_all() {
        let (ours, theirs) = UnixStream::pair().expect("a pair");
        for (count, fits) in [(MOST, true), (MOST + 8, false)] {
            let fds = vec![ours.as_fd(); count];
            let mut space = vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST + 8))];
            let mut control = SendAncillaryBuffer::new(&mut space);
            assert!(control.push(SendAncillaryMessage::ScmRights(&fds)));
            rustix::net::sendmsg(&ours, &[IoSlice::new(b"x")], &mut control, SendFlags::empty()).expect("sent");
            match receive(&theirs, &mut [0u8; 8]) {
                Ok((1, received)) => assert!(fits && received.len() == count),
                other => assert!(!fits && other.is_err_and(|error| error.kind() == io::ErrorKind::InvalidData)),
            }
        }
    }
}
