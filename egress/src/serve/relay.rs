//! Bytes from one socket to another: copied at first, spliced through a pipe once it is a long transfer. Nothing is held for a connection
//! that is silent: a buffer is taken when the socket is readable.

use std::cell::RefCell;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::pipe::{PipeFlags, SpliceFlags};
use tokio::io::Interest;
use tokio::net::TcpStream;

/// After so many bytes in one direction a pipe (two descriptors, two system calls a turn, no copy) beats a buffer.
const LONG: u64 = 128 << 10;

const BUFFER: usize = 64 << 10;

/// Wished for size of the pipe; the kernel gives the usual 64 KiB where the person has used up their share.
const PIPE: usize = 512 << 10;

thread_local! {
    /// One a worker: it is only used between two waits, when what was read has been written.
    static SCRATCH: RefCell<Vec<u8>> = RefCell::new(vec![0; BUFFER]);
}

/// Moves bytes until `from` has no more, then tells `to` so. `moved` grows as it goes.
///
/// # Errors
/// Those of the sockets: the connection is broken then.
pub(super) async fn pour(from: &TcpStream, to: &TcpStream, moved: &AtomicU64) -> io::Result<()> {
    while moved.load(Ordering::Relaxed) < LONG {
        if !step(from, to, u64::MAX, moved).await? {
            return end(to);
        }
    }
    match rustix::pipe::pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK) {
        Ok((read, write)) => splice(from, to, &(read, write), moved).await?,
        // No descriptors left: slower then.
        Err(_) => while step(from, to, u64::MAX, moved).await? {},
    }
    end(to)
}

/// Moves exactly `count` bytes; fewer are an error.
pub(super) async fn pour_exactly(from: &TcpStream, to: &TcpStream, count: u64, moved: &AtomicU64) -> io::Result<()> {
    let last = moved.load(Ordering::Relaxed) + count;
    loop {
        let left = last - moved.load(Ordering::Relaxed);
        if left == 0 {
            return Ok(());
        }
        if !step(from, to, left, moved).await? {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}

/// Half of the connection is over.
pub(super) fn end(to: &TcpStream) -> io::Result<()> {
    match rustix::net::shutdown(to, rustix::net::Shutdown::Write) {
        // The other side has gone already.
        Ok(()) | Err(rustix::io::Errno::NOTCONN) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// One read and its writes, of at most `most` bytes; false at the end of `from`.
pub(super) async fn step(from: &TcpStream, to: &TcpStream, most: u64, moved: &AtomicU64) -> io::Result<bool> {
    from.readable().await?;
    let rest = SCRATCH.with_borrow_mut(|buffer| {
        let most = usize::try_from(most).unwrap_or(usize::MAX).min(buffer.len());
        let room = buffer.get_mut(..most).unwrap_or_default();
        let got = match from.try_read(room) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok((true, Vec::new())),
            other => other?,
        };
        if got == 0 {
            return Ok((false, Vec::new()));
        }
        let written = match to.try_write(room.get(..got).unwrap_or_default()) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
            other => other?,
        };
        moved.fetch_add(u64::try_from(written).unwrap_or(0), Ordering::Relaxed);
        Ok::<_, io::Error>((true, room.get(written..got).unwrap_or_default().to_vec()))
    });
    let (more, rest) = rest?;
    write_all(to, &rest, moved).await?;
    Ok(more)
}

/// Writes all of `bytes`.
pub(super) async fn write_all(to: &TcpStream, mut bytes: &[u8], moved: &AtomicU64) -> io::Result<()> {
    while !bytes.is_empty() {
        to.writable().await?;
        match to.try_write(bytes) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
            Ok(written) => {
                moved.fetch_add(u64::try_from(written).unwrap_or(0), Ordering::Relaxed);
                bytes = bytes.get(written..).unwrap_or_default();
            }
        }
    }
    Ok(())
}

async fn splice(from: &TcpStream, to: &TcpStream, pipe: &(OwnedFd, OwnedFd), moved: &AtomicU64) -> io::Result<()> {
    let _ = rustix::pipe::fcntl_setpipe_size(&pipe.1, PIPE);
    let flags = SpliceFlags::MOVE | SpliceFlags::NONBLOCK;
    let go = |a: &dyn AsFd, b: &dyn AsFd, count| {
        rustix::pipe::splice(a.as_fd(), None, b.as_fd(), None, count, flags).map_err(io::Error::from)
    };
    loop {
        // The pipe is empty here, so that only the sockets can make it wait.
        let got = from.async_io(Interest::READABLE, || go(&from, &pipe.1, PIPE)).await?;
        if got == 0 {
            return Ok(());
        }
        let mut left = got;
        while left > 0 {
            left -= to.async_io(Interest::WRITABLE, || go(&pipe.0, &to, left)).await?;
        }
        moved.fetch_add(u64::try_from(got).unwrap_or(0), Ordering::Relaxed);
    }
}

/// Ends the connection as refused: the other side sees a reset.
pub(super) fn reset(stream: TcpStream) {
    let _ = rustix::net::sockopt::set_socket_linger(&stream, Some(std::time::Duration::ZERO));
    drop(stream);
}

/// Says `words` and ends the connection so that they arrive: what the other side still sends is read for a while, for data that nobody
/// read would make the kernel answer with a reset, which throws away what was sent.
pub(super) async fn say_and_end(stream: &TcpStream, words: &[u8]) {
    let counter = AtomicU64::new(0);
    let farewell = async {
        write_all(stream, words, &counter).await?;
        rustix::net::shutdown(stream, rustix::net::Shutdown::Write)?;
        let mut left = 1 << 20;
        while left > 0 {
            stream.readable().await?;
            let got = SCRATCH.with_borrow_mut(|buffer| stream.try_read(buffer));
            match got {
                Ok(0) => break,
                Ok(got) => left -= i64::try_from(got).unwrap_or(left),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        Ok::<_, io::Error>(())
    };
    let _ = tokio::time::timeout(std::time::Duration::from_secs(2), farewell).await;
}
