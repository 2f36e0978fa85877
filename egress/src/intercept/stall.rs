//! Connections on which nothing moves any more: they would keep their place for as long as the cell lives.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};
use tokio::time::{Instant, sleep};

use super::limits;

/// What has moved on the connection of a client, and how many of its requests are not complete.
#[derive(Clone, Default)]
pub(super) struct Pulse(Arc<Counts>);

#[derive(Default)]
struct Counts {
    bytes: AtomicU64,
    uploads: AtomicUsize,
}

impl Pulse {
    /// So many bytes were read or written.
    pub(super) fn beat(&self, count: usize) {
        self.0.bytes.fetch_add(count as u64, Ordering::Relaxed);
    }

    /// The same for the outcome of a write.
    pub(super) fn beat_if(&self, written: &Poll<io::Result<usize>>) {
        if let Poll::Ready(Ok(count)) = written {
            self.beat(*count);
        }
    }

    /// Waits until nothing has moved for too long; for how long that was.
    pub(super) async fn stopped(&self) -> Duration {
        let (mut last, mut since) = (self.bytes(), Instant::now());
        loop {
            sleep(limits::LOOK).await;
            let now = self.bytes();
            if now != last {
                (last, since) = (now, Instant::now());
                continue;
            }
            let uploads = self.0.uploads.load(Ordering::Relaxed);
            let limit = if uploads > 0 { limits::UPLOAD } else { limits::SILENCE };
            if since.elapsed() >= limit {
                return limit;
            }
        }
    }

    fn bytes(&self) -> u64 {
        self.0.bytes.load(Ordering::Relaxed)
    }
}

/// The body of a request, counted until it is complete or nobody wants it any more.
pub(super) struct Upload {
    body: Incoming,
    counted: Option<Pulse>,
}

impl Upload {
    pub(super) fn new(body: Incoming, pulse: &Pulse) -> Self {
        let counted = (!body.is_end_stream()).then(|| pulse.clone());
        if let Some(pulse) = &counted {
            pulse.0.uploads.fetch_add(1, Ordering::Relaxed);
        }
        Self { body, counted }
    }

    fn complete(&mut self) {
        if let Some(pulse) = self.counted.take() {
            pulse.0.uploads.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        self.complete();
    }
}

impl Body for Upload {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<hyper::Result<Frame<Bytes>>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        if self.body.is_end_stream() || !matches!(frame, Some(Ok(_))) {
            self.complete();
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
