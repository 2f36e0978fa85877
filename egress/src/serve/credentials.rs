//! Asks whoever has git's credentials.

use std::io;
use std::os::fd::AsRawFd;
use std::time::Duration;

use rustix::fs::{Mode, OFlags};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::timeout;
use zeroize::Zeroizing;

use super::Hidden;
use crate::git::{Git, MAX_MESSAGE, Query, Remote, Reply};

/// How long an answer may take: longer than the other side gives the person's git.
const PATIENCE: Duration = Duration::from_secs(70);

/// The credentials of a repository: name and password.
pub(super) async fn ask(git: &Git, remote: &Remote) -> Result<(String, Hidden), String> {
    let reply = match timeout(PATIENCE, exchange(git, remote)).await {
        Ok(Ok(reply)) => reply,
        Ok(Err(error)) => return Err(format!("the process that asks for git's credentials does not answer: {error}")),
        Err(_) => return Err("the host's git did not answer in time".to_owned()),
    };
    match reply {
        Reply::Given { username, password } => Ok((username, password)),
        Reply::Failed { why } => Err(why),
    }
}

async fn exchange(git: &Git, remote: &Remote) -> io::Result<Reply> {
    let mut stream = connect(git).await?;
    let mut line = serde_json::to_vec(&Query { remote: remote.clone() })?;
    line.push(b'\n');
    stream.write_all(&line).await?;
    let mut answer = Zeroizing::new(Vec::with_capacity(MAX_MESSAGE));
    let most = u64::try_from(MAX_MESSAGE).unwrap_or(0);
    stream.take(most).read_to_end(&mut answer).await?;
    Ok(serde_json::from_slice(&answer)?)
}

/// By the folder's descriptor: a socket's path has at most 107 bytes (unix(7)).
async fn connect(git: &Git) -> io::Result<UnixStream> {
    let (Some(folder), Some(name)) = (git.socket.parent(), git.socket.file_name()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let folder = rustix::fs::open(folder, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let path = std::path::Path::new("/proc/self/fd").join(folder.as_raw_fd().to_string()).join(name);
    UnixStream::connect(path).await
}
