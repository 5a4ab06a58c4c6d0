//! etcd's v3 API over gRPC, on one store that v2 shares.
//!
//! Owns the way from a request on the wire to a command or a read, and from its answer back:
//! decoding, encoding, the error texts. What a command means is `quorate_store`'s, what it
//! takes to have it done is [`Node`]'s. Never keeps state of its own but that of open streams.
//!
//! Source: spec/v3-api.md §1, §2.

mod admission;
mod cluster;
mod decode;
mod encode;
mod health;
mod kv;
mod lease;
mod limits;
mod maintenance;
mod status;
mod watch;

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::http::{Request, Response};
use bytes::Bytes;
use futures_util::{Stream, StreamExt, future, stream};
use quorate_proto::etcdserverpb::{
    ResponseHeader, cluster_server::ClusterServer, kv_server::KvServer, lease_server::LeaseServer,
    maintenance_server::MaintenanceServer, watch_server::WatchServer,
};
use quorate_proto::health::health_server::HealthServer;
use quorate_store::{Body, Outcome, Reply, Revision};
use tonic::Status;
use tower::Service;

use crate::node::{Node, Unavailable};

/// How often a watcher that asked for it is told that nothing happened, unless configured.
pub const PROGRESS_INTERVAL: Duration = Duration::from_secs(600);

/// All v3 services, to be mounted on a client port that speaks HTTP/2.
///
/// `progress_interval` is etcd's `watch-progress-notify-interval`.
pub fn services(node: Node, progress_interval: Duration) -> Services {
    let limit = limits::receive_bytes(node.config());
    let lease_ids = Arc::new(lease::Ids::new(node.member_id()));
    let api = Api { node, lease_ids, progress_interval };
    Services {
        kv: KvServer::new(api.clone()).max_decoding_message_size(limit),
        watch: WatchServer::new(api.clone()).max_decoding_message_size(limit),
        lease: LeaseServer::new(api.clone()).max_decoding_message_size(limit),
        cluster: ClusterServer::new(api.clone()).max_decoding_message_size(limit),
        maintenance: MaintenanceServer::new(api.clone()).max_decoding_message_size(limit),
        health: HealthServer::new(api.clone()).max_decoding_message_size(limit),
        api,
    }
}

/// Finds a call's service by its path: no router, for this is on every call's way.
#[derive(Clone)]
pub struct Services {
    api: Api,
    kv: KvServer<Api>,
    watch: WatchServer<Api>,
    lease: LeaseServer<Api>,
    cluster: ClusterServer<Api>,
    maintenance: MaintenanceServer<Api>,
    health: HealthServer<Api>,
}

type Answer = Pin<Box<dyn Future<Output = Result<Response<tonic::body::Body>, Infallible>> + Send>>;

impl<B> Service<Request<B>> for Services
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>> + Send,
{
    type Response = Response<tonic::body::Body>;
    type Error = Infallible;
    type Future = Answer;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Answer {
        self.answer(request)
    }
}

impl Services {
    /// Answers one call.
    pub fn answer<B>(&self, request: Request<B>) -> Answer
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>> + Send,
    {
        if let Err(status) = admission::check(request.headers(), &self.api.node) {
            return Box::pin(future::ready(Ok(status.into_http())));
        }
        let answered = match request.uri().path().rsplit_once('/').map(|(service, _)| service) {
            Some("/etcdserverpb.KV") => self.kv.clone().call(request),
            Some("/etcdserverpb.Watch") => self.watch.clone().call(request),
            Some("/etcdserverpb.Lease") => self.lease.clone().call(request),
            Some("/etcdserverpb.Cluster") => self.cluster.clone().call(request),
            Some("/etcdserverpb.Maintenance") => self.maintenance.clone().call(request),
            Some("/grpc.health.v1.Health") => self.health.clone().call(request),
            _ => {
                let unknown = status::unknown_service(request.uri().path());
                return Box::pin(future::ready(Ok(unknown.into_http())));
            }
        };
        Box::pin(async move { Ok(admission::reworded(answered.await?)) })
    }
}

/// The responses of a streaming call.
type Responses<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// The implementation of every service.
#[derive(Clone)]
struct Api {
    node: Node,
    lease_ids: Arc<lease::Ids>,
    progress_interval: Duration,
}

impl Api {
    /// A header that shows `revision`, and the present term. Not while the machine is held.
    fn header(&self, revision: Revision) -> ResponseHeader {
        ResponseHeader {
            cluster_id: self.node.cluster_id(),
            member_id: self.node.member_id(),
            revision: revision.to_wire(),
            raft_term: self.node.status().term,
        }
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

    /// A call's responses, ended with an error when the member stops.
    fn until_closed<T: Send + 'static>(
        &self,
        responses: impl Stream<Item = Result<T, Status>> + Send + 'static,
    ) -> Responses<T> {
        let stopped = Err(status::unavailable(&Unavailable::Stopped));
        let ended = responses.take_until(self.node.closed());
        Box::pin(ended.chain(stream::once(future::ready(stopped))))
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
