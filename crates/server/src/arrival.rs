//! Requests that are still arriving: how long they may take, and how much memory all of them.
//!
//! Owns the time limits of a request's head and body, and the count of connections and of bytes that
//! wait for the rest of their request. Never limits a connection that has asked and been answered:
//! as with etcd it may be silent for as long as its client lives.
//!
//! Source: spec/v3-api.md §2.13; etcd's bound on connections is its limit of open files less 150.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering::Relaxed};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use http_body_util::BodyExt;
use hyper::body::{Body as HttpBody, Frame};
use tokio::time::{Instant, Sleep};

use crate::metrics::Metrics;

/// How long a request's head may take, and the first words of a connection.
const HEAD_LIMIT: Duration = Duration::from_secs(20);
/// How long a body may pause.
const PAUSE_LIMIT: Duration = Duration::from_secs(20);
/// What all bodies together may hold that have not arrived whole.
pub(crate) const MAX_BYTES: u64 = 256 << 20;
/// How many TLS handshakes are under way at once; one more waits.
pub(crate) const HANDSHAKES: usize = 512;
/// How long a handshake may take, its wait included. etcd's.
pub(crate) const HANDSHAKE_LIMIT: Duration = Duration::from_secs(10);
/// Files that are no client's: those of the data directory, and connections of the other ports.
const RESERVED_FILES: u64 = 300;

/// Who is silent for this long is asked whether it is still there, and asked again: one that vanished
/// without a word would keep its connection, and its watches, for ever.
const KEEPALIVE: Duration = Duration::from_secs(30);

/// How a connection that has become silent is asked whether it is still there.
pub(crate) fn keepalive() -> socket2::TcpKeepalive {
    socket2::TcpKeepalive::new()
        .with_time(KEEPALIVE)
        .with_interval(KEEPALIVE)
}

/// How many connections the clients may have, if the process may open `files`.
pub(crate) fn client_connections(files: Option<u64>) -> usize {
    let files = files.unwrap_or(u64::MAX);
    let connections = files.saturating_sub(RESERVED_FILES).max(files / 2);
    usize::try_from(connections)
        .unwrap_or(usize::MAX)
        .min(tokio::sync::Semaphore::MAX_PERMITS)
}

/// Lets this process open as many files as the system allows, as Go's runtime does for etcd.
pub fn raise_file_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        ..limit
    };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::debug!(%error, "the limit of open files stays as it is");
    }
}

/// What a connection is waiting for.
#[derive(Debug)]
pub(crate) struct Stage {
    now: AtomicU8,
    /// Requests that were read so far; wraps.
    asked: AtomicU32,
}

/// The client has yet to say, or to finish, what it wants.
const HEAD: u8 = 0;
/// A request is being answered.
const ANSWER: u8 = 1;
/// All that was asked is answered.
const IDLE: u8 = 2;
/// HTTP/2 has begun: its streams look after themselves.
const STREAMS: u8 = 3;
/// It is TLS that is spoken, where none is.
const TLS: u8 = 4;

impl Stage {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            now: AtomicU8::new(HEAD),
            asked: AtomicU32::new(0),
        })
    }

    /// Bytes came in.
    pub(crate) fn received(&self) {
        let _ = self.now.compare_exchange(IDLE, HEAD, Relaxed, Relaxed);
    }

    /// The preface of HTTP/2 and its first frame came in.
    pub(crate) fn speaks_http2(&self) {
        self.now.store(STREAMS, Relaxed);
    }

    /// The first bytes are those of a TLS handshake.
    pub(crate) fn speaks_tls(&self) {
        self.now.store(TLS, Relaxed);
    }

    /// Whether TLS was spoken.
    pub(crate) fn is_tls(&self) -> bool {
        self.now.load(Relaxed) == TLS
    }

    /// A request's head is whole.
    pub(crate) fn asked(&self) {
        self.asked.fetch_add(1, Relaxed);
        let _ = self.now.compare_exchange(HEAD, ANSWER, Relaxed, Relaxed);
    }

    /// The request is answered, with a body that is whole.
    pub(crate) fn answered(&self) {
        let _ = self.now.compare_exchange(ANSWER, IDLE, Relaxed, Relaxed);
    }
}

/// How long a connection's task still waits for a head.
#[derive(Default)]
pub(crate) struct Patience {
    timer: Option<std::pin::Pin<Box<Sleep>>>,
    asked: u32,
}

impl Patience {
    /// Ready once a head has taken too long. To be called after each poll of the connection.
    pub(crate) fn poll_over(&mut self, stage: &Stage, context: &mut Context<'_>) -> Poll<()> {
        let asked = stage.asked.load(Relaxed);
        if stage.now.load(Relaxed) != HEAD || asked != self.asked {
            self.timer = None;
            self.asked = asked;
        }
        if stage.now.load(Relaxed) != HEAD {
            return Poll::Pending;
        }
        let timer = self
            .timer
            .get_or_insert_with(|| Box::pin(tokio::time::sleep(HEAD_LIMIT)));
        timer.as_mut().poll(context)
    }
}

/// Why the next piece of a body is not there.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Broken {
    /// The client paused for too long.
    #[error("the rest of the request did not come within {} seconds", PAUSE_LIMIT.as_secs())]
    Late,
    /// The connection broke off, or what came is no body.
    #[error("{0}")]
    Cut(axum::BoxError),
}

/// The next frame of a body, if it comes in time.
pub(crate) async fn next<B>(body: &mut B) -> Option<Result<Frame<Bytes>, Broken>>
where
    B: HttpBody<Data = Bytes> + Unpin,
    B::Error: Into<axum::BoxError>,
{
    // Nearly always it is there, and no timer is needed.
    let frame = match body.frame().now_or_never() {
        Some(frame) => frame,
        None => {
            let deadline = Instant::now() + PAUSE_LIMIT;
            match tokio::time::timeout_at(deadline, body.frame()).await {
                Ok(frame) => frame,
                Err(_) => return Some(Err(Broken::Late)),
            }
        }
    };
    frame.map(|frame| frame.map_err(|error| Broken::Cut(error.into())))
}

/// Bytes of a body that is not whole yet, counted until this is dropped.
pub(crate) struct Held {
    metrics: Arc<Metrics>,
    bytes: u64,
}

impl Held {
    pub(crate) fn new(metrics: &Arc<Metrics>) -> Self {
        Self {
            metrics: metrics.clone(),
            bytes: 0,
        }
    }

    /// Counts more; false if that is more than all bodies together may hold.
    pub(crate) fn grow(&mut self, bytes: usize) -> bool {
        let bytes = bytes as u64;
        if self.metrics.arriving_bytes.get().saturating_add(bytes) > MAX_BYTES {
            self.metrics.requests_refused.one();
            return false;
        }
        self.bytes += bytes;
        self.metrics.arriving_bytes.add(bytes);
        true
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.metrics.arriving_bytes.take(self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::task::Waker;

    #[test]
    fn files_are_left_for_the_log_however_few_there_are() {
        assert_eq!(client_connections(Some(65_536)), 65_236);
        assert_eq!(client_connections(Some(400)), 200);
        assert!(client_connections(None) > 1 << 20);
    }

    #[tokio::test]
    async fn only_a_head_that_is_awaited_runs_out_of_time() {
        let (stage, mut patience) = (Stage::new(), Patience::default());
        let mut is_timed = || {
            let mut context = Context::from_waker(Waker::noop());
            assert!(patience.poll_over(&stage, &mut context).is_pending());
            patience.timer.as_ref().map(|timer| timer.deadline())
        };
        let first = is_timed().expect("a first head is timed");
        assert_eq!(is_timed(), Some(first), "however many pieces it comes in");
        for _ in 0..3 {
            stage.received();
            stage.asked();
            assert_eq!(is_timed(), None, "an answer may take long");
            stage.received();
            assert_eq!(is_timed(), None, "so may the body");
            stage.answered();
            assert_eq!(is_timed(), None, "silence is allowed");
        }
        stage.received();
        let later = is_timed().expect("a later head is timed");
        assert!(later > first);
        stage.asked();
        stage.answered();
        stage.received();
        assert!(is_timed() > Some(later), "each for itself");
        stage.speaks_http2();
        stage.received();
        assert_eq!(is_timed(), None);
    }

    #[test]
    fn bodies_together_hold_no_more_than_the_bound() {
        let metrics = Arc::<Metrics>::default();
        let mut first = Held::new(&metrics);
        assert!(first.grow(MAX_BYTES as usize - 5));
        let mut second = Held::new(&metrics);
        assert!(!second.grow(6));
        assert!(second.grow(5));
        drop(first);
        assert_eq!(metrics.arriving_bytes.get(), 5);
    }
}
