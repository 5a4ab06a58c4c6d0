//! etcd's v3 API over gRPC, on one store that v2 shares.
//!
//! Owns the way from a request on the wire to a command or a read, and from its answer back:
//! decoding, encoding, the error texts. What a command means is `quorate_store`'s, what it
//! takes to have it done is [`Node`]'s. Never keeps state of its own but that of open streams.
//! KV calls and Watch, the bulk, are framed here ([`unary`], [`watch`]); tonic frames the others.
//!
//! Source: spec/v3-api.md §1, §2.

mod admission;
mod cluster;
mod decode;
mod encode;
mod hash;
mod health;
mod kv;
mod lease;
mod limits;
mod listing;
mod maintenance;
mod messages;
mod range_stream;
mod rows;
mod service;
mod snapshot;
mod sorted;
mod status;
mod unary;
mod watch;

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::Poll;
use std::time::Duration;

use futures_util::{FutureExt, Stream, stream};
use quorate_proto::etcdserverpb::ResponseHeader;
use quorate_store::{Body, Outcome, Reply, Revision};
use tonic::Status;

use crate::node::{Node, Unavailable};

pub use service::{Services, services};
pub(crate) use watch::CHUNK_BYTES as WATCH_CHUNK_BYTES;

#[cfg(fuzzing)]
pub(crate) use decode::fuzz;

/// The responses of a streaming call.
type Responses<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// The implementation of every service.
#[derive(Clone)]
struct Api {
    node: Node,
    lease_ids: Arc<lease::Ids>,
    progress_interval: Duration,
    /// Longer ranges are answered in pieces.
    whole: kv::Bounds,
    recent: Arc<Mutex<watch::Recent>>,
}

impl Api {
    /// A header that shows `revision`, and the present term.
    fn header(&self, revision: Revision) -> ResponseHeader {
        ResponseHeader {
            cluster_id: self.node.cluster_id(),
            member_id: self.node.member_id(),
            revision: revision.to_wire(),
            raft_term: self.node.term(),
        }
    }

    /// Events that were encoded lately. Nothing is waited for while they are held.
    fn recent(&self) -> MutexGuard<'_, watch::Recent> {
        self.recent
            .lock()
            .expect("nothing panics while it holds the events")
    }

    /// The store's present revision.
    fn revision(&self) -> Revision {
        self.node.machine().store().revision()
    }

    /// Waits until this member has applied all that was answered anywhere before now.
    async fn linearize(&self) -> Result<(), Status> {
        self.node
            .read_index()
            .await
            .map_err(|error| status::unavailable(&error))
    }

    /// Waits for the error that ends a stream from this side: the member stops, or there has been
    /// no leader for long and the stream needs one.
    fn over(&self, needs_leader: bool) -> impl Future<Output = Status> + Send + 'static {
        let (closed, leader_lost) = (self.node.closed(), self.node.leader_lost());
        async move {
            tokio::select! {
                () = closed => status::unavailable(&Unavailable::Stopped),
                () = leader_lost, if needs_leader => status::no_leader(),
            }
        }
    }

    /// A call's responses, ended with an error when the member stops.
    fn until_closed<T: Send + 'static>(
        &self,
        responses: impl Stream<Item = Result<T, Status>> + Send + 'static,
    ) -> Responses<T> {
        self.until_over(responses, false)
    }

    /// A call's responses, ended as [`Api::over`] says.
    fn until_over<T: Send + 'static>(
        &self,
        responses: impl Stream<Item = Result<T, Status>> + Send + 'static,
        needs_leader: bool,
    ) -> Responses<T> {
        let mut over = Box::pin(self.over(needs_leader).fuse());
        let mut responses = Box::pin(responses);
        Box::pin(stream::poll_fn(move |context| {
            match over.as_mut().poll(context) {
                Poll::Ready(status) => Poll::Ready(Some(Err(status))),
                Poll::Pending => responses.as_mut().poll_next(context),
            }
        }))
    }

    /// Has a command done that came as `request`, if its size is in bounds.
    async fn propose(&self, request: usize, body: Body) -> Result<(ResponseHeader, Reply), Status> {
        limits::check_request(request, self.node.config()).map_err(|r| status::refused(&r))?;
        let proposed = self.node.propose(body).await;
        let Outcome { revision, result } = proposed.map_err(|error| status::unavailable(&error))?;
        let reply = result.map_err(|refusal| status::refused(&refusal))?;
        Ok((self.header(revision), reply))
    }
}
