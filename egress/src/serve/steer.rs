//! The control socket of a running network: see [`crate::control`].

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, UnixListener, UnixStream};

use super::{Mode, Shared, connection, lock};
use crate::audit::{Event, Line, Verdict};
use crate::control::{MAX_MESSAGE, Reply, Request, Show, Shown};
use crate::gateway::Capture;
use crate::policy::{Policy, Sourced, Written};

/// How long a request may take to arrive.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long connections get to notice that they may not go on, before the answer counts them.
const CUT: Duration = Duration::from_millis(50);

pub(super) async fn serve(shared: Arc<Shared>, listener: UnixListener) -> io::Result<()> {
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        // The folder lets nobody else in; checked all the same.
        let me = rustix::process::geteuid().as_raw();
        if !stream.peer_cred().is_ok_and(|peer| peer.uid() == 0 || peer.uid() == me) {
            continue;
        }
        let shared = Arc::clone(&shared);
        tokio::spawn(async move {
            let _ = tokio::time::timeout(PATIENCE, one(&shared, stream)).await;
        });
    }
}

async fn one(shared: &Arc<Shared>, stream: UnixStream) -> io::Result<()> {
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    (&mut stream).take(MAX_MESSAGE).read_line(&mut line).await?;
    let reply = match serde_json::from_str(&line) {
        Ok(request) => answer(shared, request).await,
        Err(error) => Reply::Failed { why: error.to_string() },
    };
    let mut text = serde_json::to_vec(&reply)?;
    text.push(b'\n');
    stream.get_mut().write_all(&text).await
}

async fn answer(shared: &Arc<Shared>, request: Request) -> Reply {
    if shared.settings.mode == Mode::Bridge && !matches!(request, Request::Show) {
        return Reply::Failed { why: "the rules of a bridge are those of its start: start the cell anew".to_owned() };
    }
    let done = match request {
        Request::Show => return Reply::Show(Box::new(show(shared))),
        Request::Allow { entry, origin, seconds } => {
            allow(shared, Written { entry, origin }, seconds.map(Duration::from_secs))
        }
        Request::Deny { entry, origin } => deny(shared, Written { entry, origin }),
    };
    let before = shared.cut.load(Ordering::Relaxed);
    // Also after a failure: what is denied counts even where it cannot be written.
    shared.changed.send_modify(|count| *count += 1);
    if let Err(why) = done {
        return Reply::Failed { why };
    }
    tokio::time::sleep(CUT).await;
    Reply::Done { cut: shared.cut.load(Ordering::Relaxed) - before }
}

fn allow(shared: &Arc<Shared>, written: Written, life: Option<Duration>) -> Result<(), String> {
    let words = |error: &dyn std::fmt::Display| error.to_string();
    // On a copy: what cannot be had must not be promised.
    let alone = Policy::new(std::slice::from_ref(&written), &[]).map_err(|e| words(&e))?;
    let looked_into = |rule: &Sourced| rule.rule.http.as_ref().is_some_and(|http| http.tls);
    if let Some(rule) = alone.allow_rules().iter().find(|rule| looked_into(rule)) {
        let policy = shared.policy();
        if !policy.allow_rules().iter().any(|known| looked_into(known) && known.rule.target == rule.rule.target) {
            return Err(
                "the cell has to be started with a rule for single requests to this host: it would not trust us"
                    .to_owned(),
            );
        }
    }
    open_ports(shared, &alone)?;
    note(shared, Verdict::Allow, &written).map_err(|e| words(&e))?;
    lock(&shared.rules).allow(written, life).map_err(|e| words(&e))?;
    if let Some(life) = life {
        let shared = Arc::clone(shared);
        tokio::spawn(async move {
            tokio::time::sleep(life).await;
            if lock(&shared.rules).expire().is_ok_and(|any| any) {
                shared.changed.send_modify(|count| *count += 1);
            }
        });
    }
    Ok(())
}

/// Makes listeners for the ports of `policy` that have none.
fn open_ports(shared: &Arc<Shared>, policy: &Policy) -> Result<(), String> {
    let mut gateway = lock(&shared.gateway);
    if *gateway.capture() == Capture::Everything {
        return Ok(());
    }
    let Some(ports) = policy.ports(crate::gateway::MOST_PORTS) else {
        return Err("a rule for all ports needs a cell that was started with one: start the cell anew".to_owned());
    };
    for port in ports {
        let opened = gateway.open(port).map_err(|e| format!("port {port}: {e}"))?;
        if let Some(listener) = opened {
            let listener = TcpListener::from_std(listener).map_err(|e| e.to_string())?;
            tokio::spawn(connection::accept(Arc::clone(shared), listener));
        }
    }
    Ok(())
}

/// Denies first and writes then: a disk that the cell has filled must not keep anything open.
fn deny(shared: &Shared, written: Written) -> Result<(), String> {
    let kept = lock(&shared.rules).deny(written.clone()).map_err(|e| e.to_string());
    let noted = note(shared, Verdict::Deny, &written);
    kept.and(noted.map_err(|e| format!("it counts now, but the audit cannot be written: {e}")))
}

fn note(shared: &Shared, verdict: Verdict, written: &Written) -> io::Result<()> {
    let (rule, origin) = (Some(written.entry.to_string()), Some(written.origin.clone()));
    shared.write(Line { rule, origin, ..Line::new(Event::Policy, verdict) })
}

fn show(shared: &Shared) -> Show {
    let rules = lock(&shared.rules);
    let policy = rules.policy();
    let shown = |sourced: &Sourced| {
        let (rule, origin) = (sourced.rule.to_string(), sourced.origin.clone());
        let seconds = rules.seconds(&rule, &origin);
        Shown { rule, origin, seconds }
    };
    let busy = shared.settings.connections - shared.room.available_permits().min(shared.settings.connections);
    Show {
        capture: shared.capture.clone(),
        rung: shared.rung,
        allow: policy.allow_rules().iter().map(shown).collect(),
        deny: policy.deny_rules().iter().map(shown).collect(),
        publish: shared.settings.publish.iter().map(ToString::to_string).collect(),
        connections: u64::try_from(busy).unwrap_or(u64::MAX),
        names: u64::try_from(lock(&shared.table).len()).unwrap_or(u64::MAX),
        audit: shared.settings.audit.clone(),
    }
}
