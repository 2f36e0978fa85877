//! Connections that are looked into: what the interceptor asks of us for each.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use hyper::HeaderMap;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;

use super::connection::{Stop, Target};
use super::credentials;
use super::passage::{Passage, Unread};
use super::{Settings, Shared};
use crate::audit::{Event, Line, Protocol, Verdict as Said};
use crate::intercept::{
    self, Asked, Authority, AuthorityError, Basic, Decision, Interceptor, NoRoots, Owner, Roots, Secret,
};
use crate::name::{Name, Pattern};
use crate::policy::{Policy, Target as RuleTarget, Verdict};
use crate::who::Ends;

/// Why connections cannot be looked into.
#[derive(Debug, thiserror::Error)]
pub enum LookError {
    /// No authority.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    /// Nobody outside could be verified.
    #[error("the host's root certificates cannot be read: {0}")]
    Read(io::Error),
    /// The same.
    #[error(transparent)]
    NoRoots(#[from] NoRoots),
    /// The host has no file of root certificates in any of the usual places.
    #[error("this host has no file of root certificates; SSL_CERT_FILE can name one")]
    NoFile,
    /// TLS as such.
    #[error("TLS cannot be set up: {0}")]
    Tls(String),
    /// A secret that cannot be one.
    #[error("the secret for {0}: {1}")]
    Secret(Pattern, intercept::SecretError),
}

/// The interceptor that this policy and these secrets need, and what the cell is to trust; `None` if nothing is looked into.
pub(super) fn interceptor(policy: &Policy, settings: &Settings) -> Result<Option<(Interceptor, String)>, LookError> {
    let Settings { secrets, git, roots, .. } = settings;
    let gits = git.iter().flat_map(|git| &git.remotes).map(|remote| Pattern::Exact(remote.host.clone()));
    let mut hosts: Vec<Pattern> = secrets.iter().map(|secret| secret.host.clone()).chain(gits).collect();
    for sourced in policy.allow_rules() {
        if let (Some(http), RuleTarget::Names(pattern)) = (&sourced.rule.http, &sourced.rule.target)
            && http.tls
            && !hosts.contains(pattern)
        {
            hosts.push(pattern.clone());
        }
    }
    if hosts.is_empty() {
        return Ok(None);
    }
    let roots = Roots::from_pem(&std::fs::read(roots.as_ref().ok_or(LookError::NoFile)?).map_err(LookError::Read)?)?;
    let authority = Arc::new(Authority::new(&hosts)?);
    let bundle = roots.bundle(&authority);
    let secrets = secrets
        .iter()
        .map(|wanted| {
            let value = wanted.value.0.clone().into_bytes();
            let secret = Secret::with_placeholder(wanted.host.clone(), &wanted.header, &wanted.placeholder, value);
            secret.map_err(|error| LookError::Secret(wanted.host.clone(), error))
        })
        .collect::<Result<_, _>>()?;
    let made = Interceptor::new(authority, &roots, secrets).map_err(|e| LookError::Tls(e.to_string()))?;
    Ok(Some((made, bundle)))
}

/// A connection to a server, and its place among them.
#[derive(Debug)]
pub(super) struct Upstream {
    stream: TcpStream,
    _room: OwnedSemaphorePermit,
}

impl AsyncRead for Upstream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Upstream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

/// One connection that is looked into.
#[derive(Debug)]
pub(super) struct Looking {
    pub(super) shared: Arc<Shared>,
    pub(super) name: Name,
    pub(super) port: u16,
    pub(super) id: u64,
    pub(super) passage: Arc<Passage>,
    pub(super) ends: Option<Ends>,
}

impl Looking {
    fn line(&self, event: Event, verdict: Said) -> Line {
        Line {
            id: Some(self.id),
            name: Some(self.name.as_str().to_owned()),
            port: Some(self.port),
            protocol: Some(Protocol::Https),
            ..Line::new(event, verdict)
        }
    }
}

impl Owner for Looking {
    type Stream = Upstream;

    async fn dial(&self) -> io::Result<Upstream> {
        // One client's connection may need a hundred of them (HTTP/2 here, HTTP/1.1 there).
        let room = Arc::clone(&self.shared.upstreams).try_acquire_owned();
        let room = room.map_err(|_| io::Error::other("there are too many connections to servers at a time"))?;
        let policy = self.shared.policy();
        let Verdict::Allow(rule) = policy.name(&self.name, self.port) else {
            return Err(io::ErrorKind::PermissionDenied.into());
        };
        let dialled = self.shared.dialer.name(&policy, rule, &self.name, self.port).await;
        let (server, address) = dialled.map_err(|error| io::Error::other(error.words()))?;
        let (rule, origin) = (Some(rule.rule.to_string()), Some(rule.origin.clone()));
        let line = self.line(Event::Connect, Said::Allow);
        self.passage.dialled(address);
        // The rules may have changed meanwhile.
        let policy = self.shared.policy();
        let Verdict::Allow(now) = policy.name(&self.name, self.port) else {
            return Err(io::ErrorKind::PermissionDenied.into());
        };
        let still = self.passage.still(&policy, now, (&self.name, self.port), &self.shared.dialer.own()?);
        still.map_err(io::Error::other)?;
        self.shared.write(Line { address: Some(address), rule, origin, ..line })?;
        Ok(Upstream { stream: server, _room: room })
    }

    fn decide(&self, asked: &Asked<'_>) -> Decision {
        let policy = self.shared.policy();
        let line = Line {
            method: Some(asked.method.to_owned()),
            path: Some(format!("/{}", asked.path.join("/"))),
            ..self.line(Event::Request, Said::Allow)
        };
        match policy.request(&self.name, self.port, true, asked.method, asked.path) {
            Verdict::Allow(rule) => {
                let (rule, origin) = (Some(rule.rule.to_string()), Some(rule.origin.clone()));
                if asked.websocket {
                    let (method, path) = (asked.method.to_owned(), asked.path.to_vec());
                    self.passage.unread(Unread::Behind { tls: true, method, path });
                }
                match self.shared.write(Line { rule, origin, ..line }) {
                    Ok(()) => Decision::Pass,
                    Err(_) => Decision::Deny("the audit cannot be written".to_owned()),
                }
            }
            Verdict::Deny(why) => {
                let why =
                    Stop::by_policy(why, &Target::Name(self.name.clone()), self.port, super::connection::Form::Answer)
                        .words();
                let _ = self.shared.refuse(Line { verdict: Said::Deny, why: Some(why.clone()), ..line }, self.ends);
                Decision::Deny(why)
            }
        }
    }

    async fn authorize(&self, asked: &Asked<'_>, headers: &mut HeaderMap) -> Result<(), String> {
        let Some(git) = &self.shared.settings.git else { return Ok(()) };
        if !Basic::has_password(headers, &git.placeholder) {
            return Ok(());
        }
        // Elsewhere it goes out as it is, and is worth nothing.
        let mut remotes = git.remotes.iter();
        let Some(remote) = remotes.find(|remote| remote.serves(&self.name, self.port, asked.path)) else {
            return Ok(());
        };
        let line = Line { path: Some(format!("/{}", remote.path)), ..self.line(Event::Credentials, Said::Allow) };
        let outcome = credentials::ask(git, remote).await.and_then(|(username, password)| {
            // Before they go out.
            self.shared.write(line.clone()).map_err(|_| "the audit cannot be written".to_owned())?;
            Basic::put(headers, &username, &password.0).map_err(|error| error.to_string())
        });
        outcome.inspect_err(|why| {
            let _ = self.shared.write(Line { verdict: Said::Deny, why: Some(why.clone()), ..line });
        })
    }

    fn note(&self, event: intercept::Event<'_>) {
        let line = match event {
            intercept::Event::Refused { method, path, why } => Line {
                method: Some(method.to_string()),
                path: Some(path.to_owned()),
                why: Some(why.to_string()),
                ..self.line(Event::Request, Said::Deny)
            },
            intercept::Event::SecretUsed { header } => {
                let why = Some(format!("a secret went into the header {header}"));
                Line { why, ..self.line(Event::Request, Said::Allow) }
            }
            intercept::Event::Unanswered { why } => {
                Line { why: Some(why.to_string()), ..self.line(Event::Request, Said::Allow) }
            }
        };
        let _ = match line.verdict {
            Said::Allow => self.shared.write(line),
            Said::Deny => self.shared.refuse(line, self.ends),
        };
    }
}
