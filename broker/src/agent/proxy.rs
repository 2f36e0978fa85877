//! One connection of the cell's to the agent.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use cellblock_egress::audit::{Event, Line, Verdict};

use super::wire::{self, FAILURE, Identity, Malformed, Purpose, REQUEST_IDENTITIES, Request, Sign};
use crate::log::Log;
use crate::settings::Agent;

/// How long a client may be silent between requests: one that keeps its connection open takes a place.
const IDLE: Duration = Duration::from_secs(600);

/// How long it may take to finish a message, or to take one.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long the person's agent may take: they may have to touch a device or answer a question.
const SIGNING: Duration = Duration::from_secs(120);

/// Answers a client until it goes.
pub(crate) fn serve(client: &UnixStream, agent: &Agent, log: &Log) -> io::Result<()> {
    client.set_write_timeout(Some(PATIENCE))?;
    loop {
        client.set_read_timeout(Some(IDLE))?;
        let Some(message) = receive(client)? else { return Ok(()) };
        let answer = match wire::request(&message) {
            Ok(request) => answer(request, agent, log),
            // What follows cannot be told from the rest of it.
            Err(Malformed) => return send(client, FAILURE),
        };
        send(client, &answer)?;
    }
}

fn answer(request: Request<'_>, agent: &Agent, log: &Log) -> Vec<u8> {
    let outcome = match request {
        Request::Identities => allowed(agent).map(|all| wire::list(&all)),
        Request::Sign(sign) => self::sign(sign, agent, log),
        // Asked by every client (extensions), to find out what there is: no news.
        Request::Other(27) => return FAILURE.to_vec(),
        Request::Other(number) => Err(format!("request {number} is none that a cell may make")),
    };
    outcome.unwrap_or_else(|why| {
        log.line(Line { why: Some(why), ..Line::new(Event::Agent, Verdict::Deny) });
        FAILURE.to_vec()
    })
}

/// The keys that the cell may use.
fn allowed(agent: &Agent) -> Result<Vec<Identity>, String> {
    let mut all = ask(&agent.socket, &[REQUEST_IDENTITIES], PATIENCE)
        .and_then(|answer| wire::identities(&answer).map_err(io::Error::other))
        .map_err(|error| unreachable_agent(&agent.socket, &error))?;
    all.retain(|identity| agent.keys.is_empty() || agent.keys.iter().any(|wanted| is(identity, wanted)));
    Ok(all)
}

/// Whether a key is meant by a fingerprint or a comment.
fn is(identity: &Identity, wanted: &str) -> bool {
    wanted == wire::fingerprint(&identity.key) || wanted.as_bytes() == identity.comment
}

fn unreachable_agent(socket: &Path, error: &io::Error) -> String {
    format!("your ssh agent at {} does not answer: {error}", socket.display())
}

fn sign(sign: Sign<'_>, agent: &Agent, log: &Log) -> Result<Vec<u8>, String> {
    let fingerprint = wire::fingerprint(sign.key);
    let identity = allowed(agent)?.into_iter().find(|identity| identity.key == sign.key);
    let refused = |why: String| {
        log.line(Line { name: Some(fingerprint.clone()), why: Some(why), ..Line::new(Event::Agent, Verdict::Deny) });
        Ok(FAILURE.to_vec())
    };
    let Some(identity) = identity else {
        return refused("a signature with a key that the cell may not use, or that is not in the agent".to_owned());
    };
    let what = match wire::purpose(sign.data) {
        Purpose::Login { user, key, server } if key == sign.key => {
            let server = server.map(|key| format!(", server key {}", wire::fingerprint(key))).unwrap_or_default();
            format!("a login as {}{server}", text(user))
        }
        Purpose::File { namespace: b"git" } if agent.commits => "a commit or tag of git's".to_owned(),
        Purpose::File { namespace: b"git" } => {
            return refused("a signature for git, which is given with `commit_signing: true` only".to_owned());
        }
        Purpose::File { namespace } => return refused(format!("a signature for {}", text(namespace))),
        Purpose::Login { .. } | Purpose::Unknown => {
            return refused("a signature for something that is no login".to_owned());
        }
    };
    let why = Some(format!("signed {what}, with the key {}", text(&identity.comment)));
    // Before it is given: what cannot be written must not happen.
    if !log.line(Line { name: Some(fingerprint), why, ..Line::new(Event::Agent, Verdict::Allow) }) {
        return Ok(FAILURE.to_vec());
    }
    let answer = ask(&agent.socket, &sign.message(), SIGNING).map_err(|e| unreachable_agent(&agent.socket, &e))?;
    if wire::is_signature(&answer) { Ok(answer) } else { Err("your ssh agent refused to sign".to_owned()) }
}

/// What a cell or an agent says, for people.
fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes.get(..256).unwrap_or(bytes)).into_owned()
}

/// One question to the person's agent.
fn ask(socket: &Path, message: &[u8], patience: Duration) -> io::Result<Vec<u8>> {
    let stream = UnixStream::connect(socket)?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.set_read_timeout(Some(patience))?;
    send(&stream, message)?;
    receive(&stream)?.ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
}

/// A message; `None` at the end of the stream.
fn receive(mut stream: &UnixStream) -> io::Result<Option<Vec<u8>>> {
    let mut first = [0u8];
    if stream.read(&mut first)? == 0 {
        return Ok(None);
    }
    stream.set_read_timeout(Some(PATIENCE))?;
    let [a] = first;
    let mut rest = [0u8; 3];
    stream.read_exact(&mut rest)?;
    let [b, c, d] = rest;
    let length = usize::try_from(u32::from_be_bytes([a, b, c, d])).unwrap_or(usize::MAX);
    if length == 0 || length > wire::MAX {
        return Err(io::ErrorKind::InvalidData.into());
    }
    // Memory grows with what comes, not with what is announced.
    let mut message = Vec::new();
    let limit = u64::try_from(length).unwrap_or(0);
    if stream.take(limit).read_to_end(&mut message)? < length {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(Some(message))
}

fn send(mut stream: &UnixStream, message: &[u8]) -> io::Result<()> {
    let length = u32::try_from(message.len()).map_err(io::Error::other)?;
    stream.write_all(&[&length.to_be_bytes(), message].concat())
}
