//! Git's credentials for the cell's own repositories, from the person's git. The cell's network asks, and puts them into requests outside.

use std::collections::HashMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use cellblock_egress::git::{MAX_MESSAGE, Query, Remote, Reply};
use cellblock_egress::serve::Hidden;

use crate::child::{self, ChildError};
use crate::settings::Settings;

/// How long the network may take to say what it wants.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long the person's git may take: its helper may have to fetch a new token.
const FILLING: Duration = Duration::from_secs(60);

/// How long an answer is good for: one push is several requests. Short, so that a new token is soon used.
const FRESH: Duration = Duration::from_secs(30);

/// Answers that were given a moment ago.
#[derive(Debug, Default)]
pub(crate) struct Kept(Mutex<HashMap<String, (Instant, Reply)>>);

/// Answers one question.
pub(crate) fn serve(mut client: &UnixStream, settings: &Settings, kept: &Kept) -> io::Result<()> {
    client.set_read_timeout(Some(PATIENCE))?;
    client.set_write_timeout(Some(PATIENCE))?;
    let mut line = String::new();
    let limit = u64::try_from(MAX_MESSAGE).unwrap_or(0);
    BufReader::new(client.take(limit)).read_line(&mut line)?;
    let reply = match serde_json::from_str::<Query>(&line) {
        // Once more here: what may be asked was decided when the cell was started.
        Ok(Query { remote }) if settings.git.contains(&remote) => kept.fill(&remote, settings),
        _ => Reply::Failed { why: "this cell has no credentials for that repository".to_owned() },
    };
    let mut text = serde_json::to_vec(&reply)?;
    text.push(b'\n');
    client.write_all(&text)
}

impl Kept {
    fn fill(&self, remote: &Remote, settings: &Settings) -> Reply {
        let key = remote.to_string();
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.retain(|_, (since, _)| since.elapsed() < FRESH);
        if let Some((_, reply)) = kept.get(&key) {
            return reply.clone();
        }
        // With the lock held: many requests at once are one question.
        match fill(remote, settings) {
            Ok(reply) => {
                kept.insert(key, (Instant::now(), reply.clone()));
                reply
            }
            Err(why) => Reply::Failed { why },
        }
    }
}

/// Asks the person's git, which asks nobody. Settings of the repository itself do not count: the cell may have written them, and a helper is a
/// program.
fn fill(remote: &Remote, settings: &Settings) -> Result<Reply, String> {
    let mut command = child::command("git", settings);
    command.args(["-c", "core.askPass=", "credential", "fill"]);
    for name in ABOUT_A_REPOSITORY {
        command.env_remove(name);
    }
    command.envs([
        ("GIT_TERMINAL_PROMPT", "0"),
        ("GIT_ASKPASS", ""),
        ("SSH_ASKPASS", ""),
        ("GCM_INTERACTIVE", "never"),
        ("GIT_CEILING_DIRECTORIES", "/"),
    ]);
    let answer =
        child::run(command, question(remote).as_bytes(), MAX_MESSAGE / 2, FILLING).map_err(|error| match error {
            ChildError::Failed => format!("the host's git has no credentials for {remote}"),
            other => format!("the host's git {other}"),
        })?;
    let text = std::str::from_utf8(&answer).map_err(|_| "the host's git gave something else than text".to_owned())?;
    given(text).ok_or_else(|| format!("the host's git has no credentials for {remote}"))
}

/// Variables that would make git work on some repository.
const ABOUT_A_REPOSITORY: &[&str] =
    &["GIT_DIR", "GIT_WORK_TREE", "GIT_COMMON_DIR", "GIT_INDEX_FILE", "GIT_NAMESPACE", "GIT_OBJECT_DIRECTORY"];

/// git-credential(1), "input/output format".
fn question(remote: &Remote) -> String {
    let Remote { host, port, path, username } = remote;
    let port = if *port == 443 { String::new() } else { format!(":{port}") };
    let username = username.as_ref().map(|name| format!("username={name}\n")).unwrap_or_default();
    format!("protocol=https\nhost={host}{port}\npath={path}\n{username}\n")
}

/// What git answered.
fn given(text: &str) -> Option<Reply> {
    let value = |key: &str| text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
    let (username, password) = (value("username")?, value("password")?);
    // A name with a colon would be another name and password in the header (RFC 7617).
    let odd = |text: &str| text.contains(|c: char| c.is_control());
    if password.is_empty() || odd(username) || odd(password) || username.contains(':') {
        return None;
    }
    Some(Reply::Given { username: username.to_owned(), password: Hidden(password.to_owned()) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn git_is_asked_in_its_own_words() {
        let host = "git.test".parse().expect("a name");
        let mut remote = Remote { host, port: 443, path: "me/work.git".into(), username: None };
        assert_eq!(question(&remote), "protocol=https\nhost=git.test\npath=me/work.git\n\n");
        (remote.port, remote.username) = (8443, Some("me".into()));
        assert_eq!(question(&remote), "protocol=https\nhost=git.test:8443\npath=me/work.git\nusername=me\n\n");
    }

    #[test]
    fn answers_are_taken_as_git_gives_them() {
        let reply = Reply::Given { username: "me".into(), password: Hidden("a=b".into()) };
        assert_eq!(given("protocol=https\nhost=x\nusername=me\npassword=a=b\n"), Some(reply));
        for text in ["", "username=me\n", "password=x\n", "username=a:b\npassword=x\n", "username=me\npassword=\n"] {
            assert_eq!(given(text), None, "{text}");
        }
        let shown = format!("{:?}", given("username=me\npassword=hunter2\n"));
        assert!(!shown.contains("hunter2"), "{shown}");
    }
}
