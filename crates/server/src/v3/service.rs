//! Which code answers a v3 call.
//!
//! KV, Watch, and grant and revocation of leases are spoken by our own framing, all else by tonic.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use axum::http::{Request, Response};
use bytes::Bytes;
use hyper::body::Body as HttpBody;
use prost::Message;
use quorate_proto::etcdserverpb::{
    cluster_server::ClusterServer, lease_server::LeaseServer, maintenance_server::MaintenanceServer,
};
use quorate_proto::health::health_server::HealthServer;
use tonic::{Code, Status};
use tower::Service;

use super::unary::Answer;
use super::{Api, admission, kv, lease, limits, status, unary};
use crate::arrival::Held;
use crate::metrics::{self, Call, Calls, Counter, MethodId};
use crate::node::Node;

/// All v3 services, for a port that speaks HTTP/2.
///
/// `progress_interval` is etcd's `watch-progress-notify-interval`.
pub fn services(node: Node, progress_interval: Duration) -> Services {
    let receive_bytes = limits::receive_bytes(node.config());
    let lease_ids = Arc::new(lease::Ids::new(node.member_id()));
    let api = Api {
        node,
        lease_ids,
        progress_interval,
        whole: kv::Bounds::DEFAULT,
        recent: Arc::default(),
    };
    Services {
        lease: LeaseServer::new(api.clone()).max_decoding_message_size(receive_bytes),
        cluster: ClusterServer::new(api.clone()).max_decoding_message_size(receive_bytes),
        maintenance: MaintenanceServer::new(api.clone()).max_decoding_message_size(receive_bytes),
        health: HealthServer::new(api.clone()).max_decoding_message_size(receive_bytes),
        api,
        receive_bytes,
    }
}

/// Finds the code for a call by its path: no router, for this is on every call's way.
#[derive(Clone)]
pub struct Services {
    api: Api,
    receive_bytes: usize,
    lease: LeaseServer<Api>,
    cluster: ClusterServer<Api>,
    maintenance: MaintenanceServer<Api>,
    health: HealthServer<Api>,
}

impl Services {
    /// Answers ranges at once that have at most so many keys, and whose answers have at most so
    /// many bytes; longer ones in pieces.
    #[must_use]
    pub fn with_ranges_whole_up_to(mut self, keys: usize, bytes: usize) -> Self {
        self.api.whole = kv::Bounds { keys, bytes };
        self
    }

    /// The longest message taken, in bytes.
    pub(crate) fn receive_bytes(&self) -> usize {
        self.receive_bytes
    }

    /// Counts what a request holds while it arrives.
    pub(crate) fn hold(&self) -> Held {
        Held::new(self.api.node.metrics())
    }

    /// Answers a call.
    pub async fn answer<B>(&self, request: Request<B>) -> Response<Body>
    where
        B: HttpBody<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Into<axum::BoxError>,
    {
        if let Err(status) =
            admission::check(request.uri().path(), request.headers(), &self.api.node)
        {
            return status.into_http();
        }
        let api = &self.api;
        let (head, body) = request.into_parts();
        let answer = match head.uri.path() {
            "/etcdserverpb.KV/Range" => {
                self.unary(metrics::RANGE, body, |request| api.range(request))
                    .await
            }
            "/etcdserverpb.KV/Put" => {
                self.unary(metrics::PUT, body, |request| api.put(request))
                    .await
            }
            "/etcdserverpb.KV/DeleteRange" => {
                self.unary(metrics::DELETE_RANGE, body, |request| {
                    api.delete_range(request)
                })
                .await
            }
            "/etcdserverpb.KV/Txn" => {
                self.unary(metrics::TXN, body, |request| api.txn(request))
                    .await
            }
            "/etcdserverpb.KV/Compact" => {
                self.unary(metrics::COMPACT, body, |request| api.compact(request))
                    .await
            }
            "/etcdserverpb.Lease/LeaseGrant" => {
                let grant = |request| async move { Ok(unary::framed(&api.grant(request).await?)) };
                self.unary(metrics::LEASE_GRANT, body, grant).await
            }
            "/etcdserverpb.Lease/LeaseRevoke" => {
                let revoke =
                    |request| async move { Ok(unary::framed(&api.revoke(request).await?)) };
                self.unary(metrics::LEASE_REVOKE, body, revoke).await
            }
            // Boxed, or every call would carry the room for it.
            _ => return Box::pin(self.other(Request::from_parts(head, Body::new(body)))).await,
        };
        unary::respond(answer)
    }

    /// Reads the request, has it answered, and counts the call.
    async fn unary<B, Q, F, A>(
        &self,
        method: MethodId,
        body: B,
        answer: impl FnOnce(Q) -> F,
    ) -> Result<Body, Status>
    where
        B: HttpBody<Data = Bytes> + Unpin,
        B::Error: Into<axum::BoxError>,
        Q: Message + Default,
        F: Future<Output = Result<A, Status>>,
        A: Into<Answer>,
    {
        let metrics = self.api.node.metrics();
        let call = Call::begin(&**metrics, method);
        let read = unary::read(body, self.receive_bytes, metrics, &metrics.received_bytes).await;
        let answer = match read {
            Ok(request) => answer(request).await,
            Err(status) => Err(status),
        };
        match answer.map(Into::into) {
            Ok(Answer::Whole(message)) => {
                let bytes = message.len() - unary::PREFIX_BYTES;
                metrics.sent_bytes.add(bytes as u64);
                call.end(Code::Ok);
                Ok(unary::whole(message))
            }
            Ok(Answer::Pieces(listing)) => {
                Ok(listing.into_body(call.handed_to(self.api.node.metrics().clone())))
            }
            Err(status) => {
                call.end(status.code());
                Err(status)
            }
        }
    }

    /// The one streaming call of KV. Its bytes are counted by whoever handed it here.
    async fn range_stream(&self, body: Body) -> Response<Body> {
        let metrics = self.api.node.metrics();
        metrics.ranges.one();
        let read = unary::read(body, self.receive_bytes, metrics, &Counter::default()).await;
        let answer = match read {
            Ok(request) => self.api.range_stream(request).await,
            Err(status) => Err(status),
        };
        answer.unwrap_or_else(Status::into_http)
    }

    /// A call that tonic frames.
    async fn other(&self, mut request: Request<Body>) -> Response<Body> {
        let path = request.uri().path().to_owned();
        let metrics = self.api.node.metrics();
        let call = Calls::find(&path).map(|method| {
            let body = std::mem::take(request.body_mut());
            *request.body_mut() = metrics::count_request(body, metrics, method);
            Call::begin(metrics.clone(), method)
        });
        let service = path.rsplit_once('/').map_or("", |(service, _)| service);
        let Ok(response) = match service {
            "/etcdserverpb.Watch" if path.ends_with("/Watch") => {
                let needs_leader = admission::needs_leader(request.headers());
                let over = self.api.over(needs_leader);
                let answer = self
                    .api
                    .watch(request.into_body(), self.receive_bytes, over);
                Ok(answer.map(tonic::body::Body::new))
            }
            "/etcdserverpb.Lease" => self.lease.clone().call(request).await,
            "/etcdserverpb.Cluster" => self.cluster.clone().call(request).await,
            "/etcdserverpb.Maintenance" => self.maintenance.clone().call(request).await,
            "/grpc.health.v1.Health" => self.health.clone().call(request).await,
            "/etcdserverpb.KV" if path.ends_with("/RangeStream") => {
                let answer = self.range_stream(Body::new(request.into_body())).await;
                Ok(answer.map(tonic::body::Body::new))
            }
            "/etcdserverpb.KV" | "/etcdserverpb.Watch" => {
                Ok(status::unknown_method(&path).into_http())
            }
            _ => Ok(status::unknown_service(service).into_http()),
        };
        let response = admission::reworded(response.map(Body::new), &path);
        match call {
            Some(call) => metrics::count_response(response, call),
            None => response,
        }
    }
}

/// So that a client in the same process can be given it in place of a connection.
impl<B> Service<Request<B>> for Services
where
    B: HttpBody<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<axum::BoxError> + Send,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let services = self.clone();
        Box::pin(async move { Ok(services.answer(request).await) })
    }
}
