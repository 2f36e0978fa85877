//! One request and its answer.

use std::convert::Infallible;
use std::sync::Arc;

use http_body_util::{Either, Full};
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::upgrade::OnUpgrade;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;

use super::head::{self, Head};
use super::stall::{Pulse, Upload};
use super::tasks::Tasks;
use super::upstream::Pool;
use super::{Asked, Decision, Event, Origin, Owner, Refusal, UpstreamError};

/// Bytes that are copied at once in a WebSocket.
const COPY: usize = 16 << 10;

/// What the requests of one connection share.
pub(super) struct Session<O> {
    pub(super) origin: Origin,
    pub(super) owner: Arc<O>,
    pub(super) pool: Pool<O>,
    /// Its WebSockets.
    pub(super) relays: Tasks,
    /// What moves.
    pub(super) pulse: Pulse,
}

/// The body of an answer: upstream's, or ours.
pub(super) type Body = Either<Incoming, Full<Bytes>>;

/// Serves a request: refuses it, or passes it on and its answer back.
pub(super) async fn exchange<O: Owner>(
    session: Arc<Session<O>>,
    request: Request<Incoming>,
) -> Result<Response<Body>, Infallible> {
    let (mut parts, body) = request.into_parts();
    let head = match head::check(&parts, &session.origin) {
        Ok(head) => head,
        Err(why) => {
            let event = Event::Refused { method: &parts.method, path: parts.uri.path(), why: &why };
            session.owner.note(event);
            return Ok(denied(&why));
        }
    };
    let method = parts.method.clone();
    let asked = Asked { origin: &session.origin, method: method.as_str(), path: &head.path, websocket: head.websocket };
    if let Decision::Deny(reason) = session.owner.decide(&asked) {
        return Ok(denied(&Refusal::Rules(reason)));
    }
    if let Err(reason) = session.owner.authorize(&asked, &mut parts.headers).await {
        return Ok(denied(&Refusal::Rules(reason)));
    }
    let request = Request::from_parts(parts, Upload::new(body, &session.pulse));
    let answer =
        if head.websocket { session.websocket(request, &head).await } else { session.pass(request, &head).await };
    Ok(answer.unwrap_or_else(|why| {
        session.owner.note(Event::Unanswered { why: &why });
        ours(StatusCode::BAD_GATEWAY, "unanswered", &format!("{} {why}", session.origin.name))
    }))
}

impl<O: Owner> Session<O> {
    async fn pass(&self, mut request: Request<Upload>, head: &Head) -> Result<Response<Body>, UpstreamError> {
        request.extensions_mut().clear();
        head::outgoing(request.headers_mut());
        let answer = self.pool.send(request, &head.host).await?;
        if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
            return Err(UpstreamError::Protocol);
        }
        Ok(passed_back(answer))
    }

    async fn websocket(&self, mut request: Request<Upload>, head: &Head) -> Result<Response<Body>, UpstreamError> {
        let client = hyper::upgrade::on(&mut request);
        request.extensions_mut().clear();
        head::outgoing(request.headers_mut());
        let mut answer = self.pool.send_upgrade(request, &head.host).await?;
        if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
            return Ok(passed_back(answer));
        }
        if !head::says_websocket(answer.headers()) {
            return Err(UpstreamError::Protocol);
        }
        let upstream = hyper::upgrade::on(&mut answer);
        self.relays.spawn(relay(client, upstream));
        head::incoming(answer.headers_mut());
        head::say_websocket(answer.headers_mut());
        answer.extensions_mut().clear();
        Ok(answer.map(|_| Either::Right(Full::default())))
    }
}

/// Copies both ways until both have ended; whatever goes wrong ends it.
async fn relay(client: OnUpgrade, upstream: OnUpgrade) {
    let (Ok(upstream), Ok(client)) = (upstream.await, client.await) else { return };
    let (mut upstream, mut client) = (TokioIo::new(upstream), TokioIo::new(client));
    drop(tokio::io::copy_bidirectional_with_sizes(&mut client, &mut upstream, COPY, COPY).await);
}

fn passed_back(mut answer: Response<Incoming>) -> Response<Body> {
    head::incoming(answer.headers_mut());
    answer.extensions_mut().clear();
    answer.map(Either::Left)
}

fn denied(why: &Refusal) -> Response<Body> {
    ours(StatusCode::FORBIDDEN, "denied", &format!("denied: {why}"))
}

fn ours(status: StatusCode, mark: &'static str, text: &str) -> Response<Body> {
    let mut answer = Response::new(Either::Right(Full::from(format!("cellblock: {text}\n"))));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    answer.headers_mut().insert("x-cellblock", HeaderValue::from_static(mark));
    answer
}
