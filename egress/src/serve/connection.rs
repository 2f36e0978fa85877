//! One connection of the cell: what it is about, whether it may be, and to whom it goes on.

use std::io;
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use hyper::body::Bytes;
use tokio::net::{TcpListener, TcpStream};

use super::dial::DialError;
use super::first::{self, Buffer, Speech};
use super::looking::Looking;
use super::passage::{self, Passage, Unread};
use super::{Mode, Shared, check, dial, http, lock, relay};
use crate::audit::{Event, Line, Protocol, Verdict as Said};
use crate::gateway::sockets;
use crate::git::Git;
use crate::http::denial;
use crate::intercept::{Origin, Paths, ServeError};
use crate::name::Name;
use crate::policy::{Sourced, Verdict, Why};
use crate::who::Ends;

/// The alert `access_denied` (RFC 8446, section 6.2), fatal, in a record of TLS 1.2: clients show its name.
const ACCESS_DENIED: [u8; 7] = [21, 3, 3, 0, 2, 2, 49];

/// How long a refused client of the cell gets to show what it speaks, so that it can be told in its own language.
const LOOK: Duration = Duration::from_millis(300);

/// Ports whose clients speak first, and a known protocol.
const HTTP: u16 = 80;
const HTTPS: u16 = 443;

/// Takes the connections of one listener.
pub(super) async fn accept(shared: Arc<Shared>, listener: TcpListener) {
    loop {
        let Ok((client, _)) = listener.accept().await else {
            // Out of descriptors, most likely: those that end give some back.
            tokio::time::sleep(Duration::from_millis(20)).await;
            continue;
        };
        let Some(permit) = shared.admit() else {
            relay::reset(client);
            continue;
        };
        let shared = Arc::clone(&shared);
        tokio::spawn(async move {
            handle(shared, client).await;
            drop(permit);
        });
    }
}

/// What the cell wants to reach.
#[derive(Clone, Debug)]
pub(super) enum Target {
    /// The name that a made-up address stands for.
    Name(Name),
    /// An address as such.
    Address(IpAddr),
}

/// Why a connection ends that is not over.
#[derive(Debug)]
pub(super) enum Stop {
    /// It may not be. `form` says how the client is told.
    Denied { why: String, rule: Option<Box<Sourced>>, form: Form, hint: Option<String> },
    /// It may be, but cannot: nobody answers.
    Failed(String),
    /// It broke, as connections do.
    Broken,
}

impl From<io::Error> for Stop {
    fn from(_: io::Error) -> Self {
        Self::Broken
    }
}

/// How a client is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// By what it shows to speak.
    Look,
    /// By an alert of TLS.
    Alert,
    /// By an answer of HTTP.
    Answer,
    /// It knows already.
    Gone,
}

impl Stop {
    /// Why, for people.
    pub(super) fn words(self) -> String {
        match self {
            Self::Denied { why, .. } | Self::Failed(why) => why,
            Self::Broken => "the connection broke".to_owned(),
        }
    }

    pub(super) fn denied(why: impl Into<String>, form: Form) -> Self {
        Self::Denied { why: why.into(), rule: None, form, hint: None }
    }

    pub(super) fn by_policy(why: Why<'_>, target: &Target, port: u16, form: Form) -> Self {
        let rule = if let Why::Denied(rule) = &why { Some(Box::new((*rule).clone())) } else { None };
        let about = match target {
            Target::Name(name) => name.to_string(),
            Target::Address(address) => address.to_string(),
        };
        // What a person could add; nothing for what a rule has decided.
        let web = matches!(port, HTTP | HTTPS) && matches!(target, Target::Name(_));
        let wanted = if web { about.clone() } else { format!("{about}:{port}") };
        let hint = matches!(why, Why::Unlisted | Why::Port | Why::Request).then_some(wanted);
        let why = match why {
            Why::Unlisted => format!("no rule allows {about}"),
            Why::Port => format!("no rule allows port {port} of {about}"),
            Why::Request => format!("no rule allows this request to {about}"),
            Why::Denied(rule) => format!("{} denies {about} ({})", rule.rule, rule.origin),
            Why::Kind(class) => format!("{about} is {}, which the rule does not cover", class.words()),
            Why::ThisHost => format!("{about} is this machine; its services are allowed as host:PORT"),
        };
        Self::Denied { why, rule, form, hint }
    }
}

/// A connection under way.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) shared: Arc<Shared>,
    pub(super) client: TcpStream,
    pub(super) target: Target,
    pub(super) port: u16,
    pub(super) id: u64,
    /// Bytes that the cell sent and got.
    pub(super) up: AtomicU64,
    pub(super) down: AtomicU64,
    /// What goes on without being decided on again.
    pub(super) passage: Arc<Passage>,
    started: Instant,
}

async fn handle(shared: Arc<Shared>, client: TcpStream) {
    let _ = client.set_nodelay(true);
    let Ok((address, port)) = sockets::asked(&client, shared.way()) else {
        let why = Some("where it was made to cannot be told".to_owned());
        let _ = shared.write(Line { why, ..Line::new(Event::Connect, Said::Deny) });
        return relay::reset(client);
    };
    let known = match shared.settings.mode {
        Mode::Names => lock(&shared.table).name(address).cloned(),
        // The only connections that end here: to services of this machine.
        Mode::Bridge => super::bridge::host_name(),
    };
    let target = known.map_or(Target::Address(address), Target::Name);
    let id = shared.next_id();
    let (up, down, started) = (AtomicU64::new(0), AtomicU64::new(0), Instant::now());
    let passage = Arc::default();
    let connection = Connection { shared, client, target, port, id, up, down, passage, started };
    let mut changes = connection.shared.changed.subscribe();
    let stop = tokio::select! {
        done = connection.run() => done.err(),
        stop = connection.revoked(&mut changes) => Some(stop),
    };
    connection.finish(stop).await;
}

impl Connection {
    async fn run(&self) -> Result<(), Stop> {
        match &self.target {
            Target::Name(name) => self.named(name).await,
            Target::Address(address) => self.direct(*address).await,
        }
    }

    /// To an address as such.
    async fn direct(&self, address: IpAddr) -> Result<(), Stop> {
        let rule = self.decide()?;
        let (server, address) =
            dial::connect(&[address], self.port).await.map_err(|e| self.not_dialled(e, Form::Look))?;
        self.allowed(&rule, address, Protocol::Tcp)?;
        self.relay(&server).await
    }

    /// To a name.
    async fn named(&self, name: &Name) -> Result<(), Stop> {
        let rule = self.decide()?;
        if self.shared.settings.mode == Mode::Bridge {
            let server = self.dial(name, &rule, Protocol::Tcp, Form::Look).await?;
            return self.relay(&server).await;
        }
        match self.port {
            HTTPS => self.tls(name, &rule, Buffer::default()).await,
            _ if self.is_looked_into(name) => self.requests(name, &rule).await,
            HTTP => http::serve(self, name, &rule, Buffer::default(), None).await,
            _ => self.any(name, &rule).await,
        }
    }

    /// For the name of the program.
    pub(super) fn ends(&self) -> Option<Ends> {
        Ends::of(&self.client, self.shared.way())
    }

    /// What the policy of this moment says.
    pub(super) fn decide(&self) -> Result<Sourced, Stop> {
        let policy = self.shared.policy();
        let denied = |why: Why<'_>| Stop::by_policy(why, &self.target, self.port, Form::Look);
        match &self.target {
            Target::Name(name) => match policy.name(name, self.port) {
                Verdict::Allow(rule) => Ok(rule.clone()),
                Verdict::Deny(why) => Err(denied(why)),
            },
            Target::Address(address) => {
                let own = self.shared.dialer.own()?;
                match policy.address(*address, self.port, &own) {
                    Verdict::Allow(rule) => Ok(rule.clone()),
                    Verdict::Deny(why) => Err(denied(why)),
                }
            }
        }
    }

    /// TLS, unread but for the server's name.
    async fn tls(&self, name: &Name, rule: &Sourced, mut buffer: Buffer) -> Result<(), Stop> {
        self.check_server_name(name, &mut buffer).await?;
        if self.is_looked_into(name) {
            return self.look_into(name, buffer).await;
        }
        self.passage.unread(Unread::Everything);
        let server = self.dial(name, rule, Protocol::Tls, Form::Alert).await?;
        relay::write_all(&server, &buffer.0, &self.up).await?;
        drop(buffer);
        self.relay(&server).await
    }

    /// Whether rules are about single requests here, or a secret waits to be put in.
    fn is_looked_into(&self, name: &Name) -> bool {
        let secret = self.shared.interceptor.as_ref().is_some_and(|i| i.has_secret_for(name));
        let git = |git: &Git| git.remotes.iter().any(|remote| remote.host == *name && remote.port == self.port);
        secret || self.shared.settings.git.as_ref().is_some_and(git) || self.shared.policy().looks_into(name, self.port)
    }

    /// HTTP or HTTPS, on whatever port.
    async fn requests(&self, name: &Name, rule: &Sourced) -> Result<(), Stop> {
        let mut buffer = Buffer::default();
        while first::speech(&buffer.0) == Speech::More {
            if !buffer.more_soon(&self.client).await? {
                return Err(Stop::Broken);
            }
        }
        match first::speech(&buffer.0) {
            Speech::Tls => self.tls(name, rule, buffer).await,
            _ => http::serve(self, name, rule, buffer, None).await,
        }
    }

    /// TLS whose requests are decided on one by one.
    async fn look_into(&self, name: &Name, buffer: Buffer) -> Result<(), Stop> {
        let shared = &self.shared;
        let Some(interceptor) = &shared.interceptor else {
            let why =
                format!("only single requests to {name} are allowed, and this cell was started without such rules");
            return Err(Stop::denied(why, Form::Alert));
        };
        let paths = if shared.policy().looks_into(name, self.port) { Paths::Normal } else { Paths::Any };
        let (passage, ends) = (Arc::clone(&self.passage), self.ends());
        let looking =
            Looking { shared: Arc::clone(shared), name: name.clone(), port: self.port, id: self.id, passage, ends };
        // The same connection, for a task of its own.
        let client = std::net::TcpStream::from(self.client.as_fd().try_clone_to_owned()?);
        let client = TcpStream::from_std(client)?;
        let origin = Origin { name: name.clone(), port: self.port, paths };
        let served = interceptor.serve(client, Bytes::from(buffer.0), origin, Arc::new(looking)).await;
        match served {
            Ok(()) | Err(ServeError::Http(_)) => Ok(()),
            Err(error) => Err(Stop::Denied { why: error.to_string(), rule: None, form: Form::Gone, hint: None }),
        }
    }

    async fn check_server_name(&self, name: &Name, buffer: &mut Buffer) -> Result<(), Stop> {
        let said = first::server_name(&self.client, buffer).await.map_err(|why| Stop::denied(why, Form::Alert))?;
        if said == *name {
            Ok(())
        } else {
            Err(Stop::denied(format!("the TLS hello names {said}, the address is that of {name}"), Form::Alert))
        }
    }

    /// Any protocol. The server may speak first, so it is dialled at once; the client's first bytes are looked at when they come.
    async fn any(&self, name: &Name, rule: &Sourced) -> Result<(), Stop> {
        let server = self.dial(name, rule, Protocol::Tcp, Form::Look).await?;
        let mut buffer = Buffer::default();
        match self.speech(&server, &mut buffer).await? {
            Speech::Tls => self.check_name_if_any(name, &mut buffer).await?,
            Speech::Http => return http::serve(self, name, rule, buffer, Some(server)).await,
            Speech::Other | Speech::More => {}
        }
        if self.is_looked_into(name) {
            // The rules have changed since it was dialled.
            return Err(Stop::denied(passage::requests_only(name), Form::Look));
        }
        self.passage.unread(Unread::Everything);
        relay::write_all(&server, &buffer.0, &self.up).await?;
        drop(buffer);
        self.relay(&server).await
    }

    /// Waits for what the client speaks; what the server says meanwhile goes on.
    async fn speech(&self, server: &TcpStream, buffer: &mut Buffer) -> Result<Speech, Stop> {
        let (mut answers, mut deadline) = (true, None);
        loop {
            let late = async {
                match deadline {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                more = buffer.more(&self.client) => {
                    let speech = if more? { first::speech(&buffer.0) } else { Speech::Other };
                    if speech != Speech::More {
                        return Ok(speech);
                    }
                    deadline = deadline.or(Some(tokio::time::Instant::now() + first::PATIENCE));
                }
                ready = server.readable(), if answers => {
                    ready?;
                    // Not one of the arms: what has been read must be written, whatever comes first.
                    answers = relay::step(server, &self.client, u64::MAX, &self.down).await?;
                    if !answers {
                        relay::end(&self.client)?;
                    }
                }
                // The beginning of a request, and then nothing: it must not be let through in pieces.
                () = late => return Err(Stop::denied("the first bytes look like a request and do not become one", Form::Look)),
            }
        }
    }

    /// On other ports than 443 a client without a name in its hello is like any other protocol; a wrong one is refused everywhere.
    async fn check_name_if_any(&self, name: &Name, buffer: &mut Buffer) -> Result<(), Stop> {
        match self.check_server_name(name, buffer).await {
            Err(Stop::Denied { why, .. }) if why == crate::tls::HelloError::NoName.to_string() => Ok(()),
            other => other,
        }
    }

    /// Dials `name` and writes that it was allowed.
    pub(super) async fn dial(
        &self,
        name: &Name,
        rule: &Sourced,
        protocol: Protocol,
        form: Form,
    ) -> Result<TcpStream, Stop> {
        let policy = self.shared.policy();
        let dialled = self.shared.dialer.name(&policy, rule, name, self.port).await;
        let (server, address) = dialled.map_err(|error| self.not_dialled(error, form))?;
        self.allowed(rule, address, protocol)?;
        Ok(server)
    }

    fn not_dialled(&self, error: DialError, form: Form) -> Stop {
        match error {
            DialError::Filtered(why) => Stop::denied(why, form),
            other => Stop::Failed(other.words()),
        }
    }

    /// A line about this connection.
    pub(super) fn line(&self, event: Event, verdict: Said) -> Line {
        let (name, address) = match &self.target {
            Target::Name(name) => (Some(name.as_str().to_owned()), None),
            Target::Address(address) => (None, Some(*address)),
        };
        Line { id: Some(self.id), name, address, port: Some(self.port), ..Line::new(event, verdict) }
    }

    fn allowed(&self, rule: &Sourced, address: IpAddr, protocol: Protocol) -> Result<(), Stop> {
        let (rule, origin) = (Some(rule.rule.to_string()), Some(rule.origin.clone()));
        let line = self.line(Event::Connect, Said::Allow);
        self.passage.dialled(address);
        // The rules may have changed meanwhile.
        self.still()?;
        // What cannot be written is not done.
        Ok(self.shared.write(Line { address: Some(address), protocol: Some(protocol), rule, origin, ..line })?)
    }

    /// Bytes both ways until both sides have ended.
    pub(super) async fn relay(&self, server: &TcpStream) -> Result<(), Stop> {
        let up = relay::pour(&self.client, server, &self.up);
        let down = relay::pour(server, &self.client, &self.down);
        match tokio::try_join!(up, down) {
            Ok(_) => Ok(()),
            Err(error) => {
                // The other side is to see that it broke, and not an orderly end.
                let _ = rustix::net::sockopt::set_socket_linger(server, Some(Duration::ZERO));
                Err(error.into())
            }
        }
    }

    /// Whether what goes on here without being decided on again may go on.
    pub(super) fn still(&self) -> Result<(), Stop> {
        let rule = self.decide()?;
        let Target::Name(name) = &self.target else { return Ok(()) };
        let own = self.shared.dialer.own()?;
        let still = self.passage.still(&self.shared.policy(), &rule, (name, self.port), &own);
        still.map_err(|why| Stop::denied(why, Form::Look))
    }

    /// Resolves when a change of the rules has made this connection one that may not be.
    async fn revoked(&self, changes: &mut tokio::sync::watch::Receiver<u64>) -> Stop {
        loop {
            if changes.changed().await.is_err() {
                return std::future::pending().await;
            }
            if let Err(stop) = self.still() {
                self.shared.cut.fetch_add(1, Ordering::Relaxed);
                return stop;
            }
        }
    }

    async fn finish(self, stop: Option<Stop>) {
        let moved = (self.up.load(Ordering::Relaxed), self.down.load(Ordering::Relaxed));
        match stop {
            Some(Stop::Denied { why, rule, form, hint }) => {
                let (rule, origin) = rule.map_or((None, None), |r| (Some(r.rule.to_string()), Some(r.origin)));
                let line = self.line(Event::Connect, Said::Deny);
                let _ = self.shared.refuse(Line { why: Some(why.clone()), rule, origin, ..line }, self.ends());
                if moved == (0, 0) || form == Form::Answer {
                    self.refuse(&why, hint.as_deref(), form).await;
                } else {
                    relay::reset(self.client);
                }
            }
            Some(Stop::Failed(why)) => {
                let _ = self.shared.write(Line { why: Some(why), ..self.line(Event::Connect, Said::Allow) });
                relay::reset(self.client);
            }
            ended => {
                let ms = Some(u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX));
                let line = self.line(Event::End, Said::Allow);
                let _ = self.shared.write(Line { up: Some(moved.0), down: Some(moved.1), ms, ..line });
                if ended.is_some() {
                    relay::reset(self.client);
                }
            }
        }
    }

    /// Tells the client in a form that it understands.
    async fn refuse(self, why: &str, hint: Option<&str>, form: Form) {
        let form = match form {
            Form::Look => {
                let mut start = [0u8; 16];
                // Our own speaks for sure, but on a busy machine it may be late.
                let is_check = matches!(self.target, Target::Address(IpAddr::V4(check::ADDRESS)));
                let patient = is_check && self.shared.checking.load(Ordering::Relaxed);
                let patience = if patient { check::PATIENCE } else { LOOK };
                let seen = tokio::time::timeout(patience, self.client.peek(&mut start)).await;
                let seen = seen.ok().and_then(Result::ok).and_then(|length| start.get(..length));
                match seen.map(first::speech) {
                    Some(Speech::Tls) => Form::Alert,
                    Some(Speech::Http) => Form::Answer,
                    _ => Form::Look,
                }
            }
            known => known,
        };
        match form {
            Form::Look | Form::Gone => relay::reset(self.client),
            Form::Alert => relay::say_and_end(&self.client, &ACCESS_DENIED).await,
            Form::Answer => {
                let cell = &self.shared.settings.cell;
                let hint = match hint {
                    Some(rule) => format!("On the host, `cellblock net allow {rule} {cell}` would allow it."),
                    None => format!("On the host, `cellblock net show {cell}` says what is allowed."),
                };
                relay::say_and_end(&self.client, &denial(&format!("cellblock: {why}"), &hint)).await;
            }
        }
    }
}
