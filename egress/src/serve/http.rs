//! Plain HTTP: each request of a connection is decided on, none but those goes on. Answers are not looked at.

use std::io;

use tokio::net::TcpStream;

use super::connection::{Connection, Form, Stop, Target};
use super::first::Buffer;
use super::passage::Unread;
use super::relay;
use crate::audit::{Event, Line, Protocol, Verdict as Said};
use crate::http::{Head, Host, Kind, MAX, Next, Requests, answer};
use crate::name::Name;
use crate::policy::{Sourced, Verdict};

/// Serves a connection that speaks HTTP. `buffer` has what was read already; `server` is dialled at the first request that is allowed.
pub(super) async fn serve(
    connection: &Connection,
    name: &Name,
    rule: &Sourced,
    buffer: Buffer,
    server: Option<TcpStream>,
) -> Result<(), Stop> {
    let mut requests = Requests::default();
    let mut buffer = buffer;
    let head = match next(connection, &mut requests, &mut buffer, true).await? {
        Some(Next::Head(head)) => head,
        // Ended without a request.
        _ => return Ok(()),
    };
    allowed(connection, name, &head)?;
    let server = match server {
        Some(server) => server,
        None => connection.dial(name, rule, Protocol::Http, Form::Answer).await?,
    };
    let mut stream = Stream { connection, server: &server, requests, buffer };
    stream.forward(head.length).await?;
    if head.upgrade {
        let path = head.path.unwrap_or_default();
        connection.passage.unread(Unread::Behind { tls: false, method: head.method, path });
        // The rules may have changed since it was allowed.
        connection.still()?;
        stream.body().await?;
        if stream.switched().await? {
            relay::write_all(&server, &stream.buffer.0, &connection.up).await?;
            drop(stream);
            return connection.relay(&server).await;
        }
        connection.passage.unread(Unread::Nothing);
        stream.requests.stays();
    }
    let up = stream.rest(name);
    let down = async { relay::pour(&server, &connection.client, &connection.down).await.map_err(Stop::from) };
    tokio::try_join!(up, down).map(|_| ())
}

/// What is next, read as far as it takes; `None` at an end between two requests.
async fn next(
    connection: &Connection,
    requests: &mut Requests,
    buffer: &mut Buffer,
    first: bool,
) -> Result<Option<Next>, Stop> {
    loop {
        match requests.next(&buffer.0) {
            Ok(Next::More) => {}
            Ok(next) => return Ok(Some(next)),
            Err(error) => return Err(Stop::denied(error.to_string(), Form::Answer)),
        }
        // Between two requests a connection may be silent as long as it likes; the first, and what has begun, has to come.
        let between = buffer.0.is_empty() && !first;
        let more =
            if between { buffer.more(&connection.client).await } else { buffer.more_soon(&connection.client).await };
        match more {
            Ok(true) => {}
            Ok(false) if buffer.0.is_empty() => return Ok(None),
            Ok(false) => return Err(Stop::Broken),
            Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                return Err(Stop::denied("no complete request in time", Form::Answer));
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// Decides on one request, by the rules of this moment.
fn allowed(connection: &Connection, name: &Name, head: &Head) -> Result<(), Stop> {
    let port = connection.port;
    let same = matches!(&head.host, Host::Name(host) if host == name) && head.port.is_none_or(|p| p == port);
    if !same {
        let host = match &head.host {
            Host::Name(host) => host.to_string(),
            Host::Address(address) => address.to_string(),
        };
        let about = head.port.map_or(host.clone(), |p| format!("{host}:{p}"));
        return Err(Stop::denied(
            format!("the request is for {about}, the address is that of {name}:{port}"),
            Form::Answer,
        ));
    }
    let policy = connection.shared.policy();
    let path = match &head.path {
        Ok(path) => path.as_slice(),
        // It matters where a rule is about paths, and nowhere else.
        Err(error) if policy.looks_into(name, port) => return Err(Stop::denied(error.to_string(), Form::Answer)),
        Err(_) => &[],
    };
    let line = Line {
        protocol: Some(Protocol::Http),
        method: Some(head.method.clone()),
        path: head.path.as_ref().ok().map(|path| format!("/{}", path.join("/"))),
        ..connection.line(Event::Request, Said::Allow)
    };
    match policy.request(name, port, false, &head.method, path) {
        Verdict::Allow(rule) => {
            let (rule, origin) = (Some(rule.rule.to_string()), Some(rule.origin.clone()));
            Ok(connection.shared.write(Line { rule, origin, ..line })?)
        }
        Verdict::Deny(why) => {
            let stop = Stop::by_policy(why, &Target::Name(name.clone()), port, Form::Answer);
            let why = if let Stop::Denied { why, .. } = &stop { Some(why.clone()) } else { None };
            let ends = connection.ends();
            connection.shared.refuse(Line { why, verdict: Said::Deny, ..line }, ends)?;
            Err(stop)
        }
    }
}

/// The client's half of a connection whose first request is under way.
struct Stream<'a> {
    connection: &'a Connection,
    server: &'a TcpStream,
    requests: Requests,
    buffer: Buffer,
}

impl Stream<'_> {
    /// So many bytes go on: those at hand, then the rest as it comes.
    async fn forward(&mut self, count: impl TryInto<u64>) -> Result<(), Stop> {
        let count: u64 = count.try_into().map_err(|_| Stop::Broken)?;
        let here = usize::try_from(count).unwrap_or(usize::MAX).min(self.buffer.0.len());
        relay::write_all(self.server, self.buffer.0.get(..here).unwrap_or_default(), &self.connection.up).await?;
        self.buffer.0.drain(..here);
        if self.buffer.0.is_empty() {
            // Kept-alive connections are mostly silent.
            self.buffer.0 = Vec::new();
        }
        let rest = count - u64::try_from(here).unwrap_or(count);
        Ok(relay::pour_exactly(&self.connection.client, self.server, rest, &self.connection.up).await?)
    }

    /// The body of a request that asks for another protocol.
    async fn body(&mut self) -> Result<(), Stop> {
        loop {
            match next(self.connection, &mut self.requests, &mut self.buffer, true).await? {
                Some(Next::Body(count)) => self.forward(count).await?,
                Some(Next::Upgrade) => return Ok(()),
                _ => return Err(Stop::Broken),
            }
        }
    }

    /// Passes the server's answer on to a request for another protocol; whether it agreed.
    async fn switched(&mut self) -> Result<bool, Stop> {
        let mut answers = Buffer::default();
        loop {
            match answer(&answers.0).map_err(|e| Stop::denied(format!("the server's answer: {e}"), Form::Look))? {
                Some(head) => {
                    relay::write_all(
                        &self.connection.client,
                        answers.0.get(..head.length).unwrap_or_default(),
                        &self.connection.down,
                    )
                    .await?;
                    answers.0.drain(..head.length);
                    if head.kind != Kind::Interim {
                        relay::write_all(&self.connection.client, &answers.0, &self.connection.down).await?;
                        return Ok(head.kind == Kind::Switches);
                    }
                }
                None if answers.0.len() > MAX || !answers.more(self.server).await? => return Err(Stop::Broken),
                None => {}
            }
        }
    }

    /// All further requests. Their end is told to the server.
    async fn rest(&mut self, name: &Name) -> Result<(), Stop> {
        loop {
            match next(self.connection, &mut self.requests, &mut self.buffer, false).await? {
                None => return Ok(relay::end(self.server)?),
                Some(Next::Body(count)) => self.forward(count).await?,
                Some(Next::Head(head)) => {
                    allowed(self.connection, name, &head)?;
                    self.forward(head.length).await?;
                }
                Some(Next::More | Next::Upgrade) => return Err(Stop::Broken),
            }
        }
    }
}
