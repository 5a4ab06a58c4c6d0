//! The JSON gateway: v3's calls as POSTs of JSON, in the shape that etcd 3.7 gives them.
//!
//! Owns which path is which call, JSON to protobuf and back by the messages' descriptors, HTTP
//! statuses, and lines of JSON for streams. Never knows what a call means: each goes as gRPC
//! messages to the same [`Services`] that gRPC clients speak to.
//!
//! Source: spec/v3-api.md §1.1, §1.3, §1.4; recorded answers in testdata/conformance/v3.json.

mod call;
mod decode;
mod long;
mod scalar;
mod scan;

use std::collections::HashMap;
use std::pin::Pin;
use std::time::Duration;

use axum::body::Body;
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderName, HeaderValue};
use axum::http::{HeaderMap, Method, Request, Response, StatusCode};
use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream};
use http_body_util::BodyExt;
use prost::Message;
use prost_reflect::{
    DescriptorPool, DynamicMessage, MessageDescriptor, MethodDescriptor, SerializeOptions,
};
use tokio::time::Instant;
use tonic::{Code, Status};

use crate::arrival;
use crate::node::Unavailable;
use crate::v3::Services;
use call::Replies;
use scan::{Next, Reader};

/// Paths and the calls they are. Calls that are not built are not here: 404 says so.
const ROUTES: &[(&str, &str, &str)] = &[
    ("/v3/kv/range", "KV", "Range"),
    ("/v3/kv/put", "KV", "Put"),
    ("/v3/kv/deleterange", "KV", "DeleteRange"),
    ("/v3/kv/txn", "KV", "Txn"),
    ("/v3/kv/compaction", "KV", "Compact"),
    ("/v3/watch", "Watch", "Watch"),
    ("/v3/lease/grant", "Lease", "LeaseGrant"),
    ("/v3/lease/revoke", "Lease", "LeaseRevoke"),
    ("/v3/kv/lease/revoke", "Lease", "LeaseRevoke"),
    ("/v3/lease/keepalive", "Lease", "LeaseKeepAlive"),
    ("/v3/lease/timetolive", "Lease", "LeaseTimeToLive"),
    ("/v3/kv/lease/timetolive", "Lease", "LeaseTimeToLive"),
    ("/v3/lease/leases", "Lease", "LeaseLeases"),
    ("/v3/kv/lease/leases", "Lease", "LeaseLeases"),
    ("/v3/cluster/member/list", "Cluster", "MemberList"),
    ("/v3/cluster/member/add", "Cluster", "MemberAdd"),
    ("/v3/cluster/member/remove", "Cluster", "MemberRemove"),
    ("/v3/cluster/member/update", "Cluster", "MemberUpdate"),
    ("/v3/cluster/member/promote", "Cluster", "MemberPromote"),
    ("/v3/maintenance/alarm", "Maintenance", "Alarm"),
    ("/v3/maintenance/status", "Maintenance", "Status"),
    ("/v3/maintenance/defragment", "Maintenance", "Defragment"),
    ("/v3/maintenance/hash", "Maintenance", "Hash"),
    ("/v3/maintenance/hashkv", "Maintenance", "HashKV"),
    ("/v3/maintenance/downgrade", "Maintenance", "Downgrade"),
    ("/v3/maintenance/snapshot", "Maintenance", "Snapshot"),
    (
        "/v3/maintenance/transfer-leadership",
        "Maintenance",
        "MoveLeader",
    ),
];
/// JSON may be longer than the message it makes: base64 alone takes a third more.
const JSON_FACTOR: usize = 4;
/// A range's reply that is longer is not held whole.
const LONG_BYTES: usize = 256 << 10;
const METADATA: &str = "grpc-metadata-";

/// Reads JSON as the request of one of the routes, cut into pieces; what is a message for us must be
/// one for the services.
#[cfg(fuzzing)]
pub(crate) fn fuzz(pick: u8, piece: u8, text: &[u8]) {
    static POOL: std::sync::LazyLock<DescriptorPool> = std::sync::LazyLock::new(|| {
        DescriptorPool::decode(quorate_proto::DESCRIPTORS).expect("descriptors")
    });
    let (_, service, name) = ROUTES[usize::from(pick) % ROUTES.len()];
    let service = POOL.get_service_by_name(&format!("etcdserverpb.{service}"));
    let method = service.and_then(|found| found.methods().find(|m| m.name() == name));
    let method = method.expect("a method");
    let mut reader = Reader::default();
    let mut pieces = text.chunks(usize::from(piece).max(1));
    let mut ended = false;
    loop {
        match reader.next(ended) {
            Err(_) | Ok(Next::End) => return,
            Ok(Next::More) => match pieces.next() {
                Some(piece) => reader.push(piece),
                None => ended = true,
            },
            Ok(Next::Value(value)) => {
                let whole: Result<serde_json::Value, _> = serde_json::from_slice(&value);
                if let Err(error) = whole {
                    // It knows no such depths, no such numbers and no lone surrogates.
                    let text = error.to_string();
                    let known = [
                        "recursion",
                        "out of range",
                        "surrogate",
                        "escape",
                        "unicode",
                        "code point",
                    ];
                    assert!(known.iter().any(|word| text.contains(word)), "{text}");
                }
                if let Ok(framed) = decoded(&value, method.input()) {
                    DynamicMessage::decode(method.input(), &framed[5..]).expect("a message");
                }
            }
        }
    }
}

/// The gateway in front of a member's services.
pub(crate) struct Gateway {
    services: Services,
    routes: HashMap<&'static str, MethodDescriptor>,
}

impl Gateway {
    /// For all of `services` that has a path.
    pub(crate) fn new(services: Services) -> Self {
        let pool = DescriptorPool::decode(quorate_proto::DESCRIPTORS)
            .expect("the build wrote these descriptors");
        let routes = ROUTES.iter().map(|(path, service, name)| {
            let service = pool.get_service_by_name(&format!("etcdserverpb.{service}"));
            let method = service.and_then(|found| found.methods().find(|m| m.name() == *name));
            (*path, method.expect("a method of our own .proto files"))
        });
        Self {
            routes: routes.collect(),
            services,
        }
    }

    /// Whether a path is the gateway's to answer.
    pub(crate) fn takes(path: &[u8]) -> bool {
        path.starts_with(b"/v3/") || path.starts_with(b"/v3beta/")
    }

    /// Answers a request whose path it takes; `path` without escapes.
    pub(crate) async fn answer(&self, path: &[u8], request: &mut Request<Body>) -> Response<Body> {
        let path = String::from_utf8_lossy(path).replacen("/v3beta/", "/v3/", 1);
        let Some(method) = self.routes.get(path.as_str()) else {
            return refused(&Status::not_found("Not Found"));
        };
        if *request.method() != Method::POST {
            return refused(&Status::unimplemented("Method Not Allowed"));
        }
        let answer = if method.is_server_streaming() {
            self.stream(method, request).await
        } else {
            self.unary(method, request).await
        };
        answer.unwrap_or_else(|status| refused(&status))
    }

    async fn unary(
        &self,
        method: &MethodDescriptor,
        request: &mut Request<Body>,
    ) -> Result<Response<Body>, Status> {
        let deadline = deadline(request.headers())?;
        let message = self.single(method, request.body_mut()).await?;
        let mut replies = self
            .open(method, request.headers(), message.into(), deadline)
            .await?;
        if method.name() == "Range" && replies.is_longer_than(LONG_BYTES).await? {
            return Ok(json(StatusCode::OK, long::body(replies, method.output())));
        }
        let reply = replies.next().await.transpose()?;
        // What comes behind the message is whether it counts.
        replies.next().await.transpose()?;
        let reply = reply.ok_or_else(|| Status::internal("the call was answered by nothing"))?;
        Ok(json(
            StatusCode::OK,
            Body::from(encode(method.output(), reply)?),
        ))
    }

    /// No head is sent before there is a first reply.
    async fn stream(
        &self,
        method: &MethodDescriptor,
        request: &mut Request<Body>,
    ) -> Result<Response<Body>, Status> {
        let deadline = deadline(request.headers())?;
        let body = if method.is_client_streaming() {
            let body = std::mem::take(request.body_mut());
            Body::from_stream(requests(body, method.input(), self.json_bytes()))
        } else {
            self.single(method, request.body_mut()).await?.into()
        };
        let opened = self.open(method, request.headers(), body, deadline).await;
        let mut lines: Pin<Box<dyn Stream<Item = Line> + Send>> = match opened {
            Ok(replies) => Box::pin(lines(replies, method.output())),
            Err(status) => Box::pin(stream::iter([Line::of_error(&status)])),
        };
        let Some(first) = lines.next().await else {
            return Ok(json(StatusCode::OK, Body::empty()));
        };
        let status = first.status;
        let lines = stream::iter([first]).chain(lines);
        let bytes = lines.map(|line| Ok::<_, std::convert::Infallible>(line.text));
        Ok(json(status, Body::from_stream(bytes)))
    }

    async fn open(
        &self,
        method: &MethodDescriptor,
        headers: &HeaderMap,
        body: Body,
        deadline: Option<Instant>,
    ) -> Result<Replies, Status> {
        let service = method.parent_service().full_name();
        let path = format!("/{service}/{}", method.name());
        Replies::open(&self.services, &path, metadata(headers), body, deadline).await
    }

    /// The one message of a request, framed. What follows the first value is not looked at.
    async fn single(&self, method: &MethodDescriptor, body: &mut Body) -> Result<Bytes, Status> {
        let mut reader = Reader::default();
        let mut ended = false;
        let mut held = self.services.hold();
        loop {
            let next = reader.next(ended).map_err(Status::invalid_argument)?;
            match next {
                Next::Value(text) => return decoded(&text, method.input()),
                // No body is the empty message.
                Next::End => return Ok(call::framed(&[])),
                Next::More => match arrival::next(body).await {
                    Some(Ok(frame)) => {
                        let piece = frame.into_data().unwrap_or_default();
                        if !held.grow(piece.len()) {
                            return Err(Status::resource_exhausted(
                                Unavailable::TooManyRequests.to_string(),
                            ));
                        }
                        reader.push(&piece);
                    }
                    Some(Err(broken)) => return Err(Status::cancelled(broken.to_string())),
                    None => ended = true,
                },
            }
            let (len, limit) = (reader.len(), self.json_bytes());
            if len > limit {
                return Err(Status::resource_exhausted(format!(
                    "grpc: received message larger than max ({len} vs. {limit})"
                )));
            }
        }
    }

    /// The longest JSON text taken for one message.
    fn json_bytes(&self) -> usize {
        self.services.receive_bytes().saturating_mul(JSON_FACTOR)
    }
}

/// A client's messages, framed. As in etcd, what is no message closes the client's side in silence.
fn requests(
    body: Body,
    of: MessageDescriptor,
    limit: usize,
) -> impl Stream<Item = Result<Bytes, Status>> + Send {
    let start = (body, Reader::default(), false);
    stream::unfold(start, move |(mut body, mut reader, mut ended)| {
        let of = of.clone();
        async move {
            while reader.len() <= limit {
                match reader.next(ended).ok()? {
                    Next::Value(text) => {
                        let framed = decoded(&text, of).ok()?;
                        return Some((Ok(framed), (body, reader, ended)));
                    }
                    Next::End => return None,
                    Next::More => match body.frame().await {
                        Some(frame) => reader.push(&frame.ok()?.into_data().unwrap_or_default()),
                        None => ended = true,
                    },
                }
            }
            None
        }
    })
}

/// One line of a stream's answer, and the HTTP status if it is the first.
struct Line {
    status: StatusCode,
    text: Bytes,
}

impl Line {
    fn of_error(status: &Status) -> Self {
        let text = serde_json::json!({ "error": error(status) });
        Self {
            status: http_status(status.code()),
            text: format!("{text}\n").into(),
        }
    }

    fn of_result(of: MessageDescriptor, reply: Bytes) -> Result<Self, Status> {
        let mut text = b"{\"result\":".to_vec();
        text.extend(encode(of, reply)?);
        text.extend_from_slice(b"}\n");
        Ok(Self {
            status: StatusCode::OK,
            text: text.into(),
        })
    }
}

/// A line for each reply; an error is the last one.
fn lines(replies: Replies, of: MessageDescriptor) -> impl Stream<Item = Line> + Send {
    stream::unfold(Some(replies), move |replies| {
        let of = of.clone();
        async move {
            let mut replies = replies?;
            let reply = replies.next().await?;
            let line = reply.and_then(|reply| Line::of_result(of, reply));
            Some(match line {
                Ok(line) => (line, Some(replies)),
                Err(status) => (Line::of_error(&status), None),
            })
        }
    })
}

fn decoded(text: &[u8], of: MessageDescriptor) -> Result<Bytes, Status> {
    let message = decode::message(text, of).map_err(Status::invalid_argument)?;
    Ok(call::framed(&message.encode_to_vec()))
}

fn encode(of: MessageDescriptor, reply: Bytes) -> Result<Vec<u8>, Status> {
    let message = DynamicMessage::decode(of, reply);
    let message = message.map_err(|error| Status::internal(error.to_string()))?;
    let mut text = Vec::new();
    let options = SerializeOptions::new().use_proto_field_name(true);
    message
        .serialize_with_options(&mut serde_json::Serializer::new(&mut text), &options)
        .map_err(|error| Status::internal(error.to_string()))?;
    Ok(text)
}

/// What of a request's headers is the call's metadata. gRPC's own names are not for clients.
fn metadata(headers: &HeaderMap) -> HeaderMap {
    let mut metadata = HeaderMap::new();
    for (name, value) in headers {
        let inner = name.as_str().strip_prefix(METADATA);
        let inner = inner.filter(|name| !name.starts_with("grpc-"));
        if let Some(Ok(name)) = inner.map(|name| HeaderName::from_bytes(name.as_bytes())) {
            metadata.append(name, value.clone());
        }
    }
    if let Some(token) = headers.get(AUTHORIZATION) {
        metadata.insert(AUTHORIZATION, token.clone());
    }
    metadata
}

/// When the client no longer waits: `Grpc-Timeout`, a number and a unit.
fn deadline(headers: &HeaderMap) -> Result<Option<Instant>, Status> {
    let Some(value) = headers.get("grpc-timeout") else {
        return Ok(None);
    };
    let text = String::from_utf8_lossy(value.as_bytes());
    let timeout = text.char_indices().last().and_then(|(at, unit)| {
        let number: u64 = text[..at].parse().ok()?;
        Some(match unit {
            'H' => Duration::from_secs(number.checked_mul(3_600)?),
            'M' => Duration::from_secs(number.checked_mul(60)?),
            'S' => Duration::from_secs(number),
            'm' => Duration::from_millis(number),
            'u' => Duration::from_micros(number),
            'n' => Duration::from_nanos(number),
            _ => return None,
        })
    });
    match timeout {
        // One that no clock reaches is none.
        Some(timeout) => Ok(Instant::now().checked_add(timeout)),
        None => Err(Status::invalid_argument(format!(
            "invalid grpc-timeout: {text}"
        ))),
    }
}

fn json(status: StatusCode, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let kind = HeaderValue::from_static("application/json");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}

fn refused(status: &Status) -> Response<Body> {
    json(
        http_status(status.code()),
        Body::from(error(status).to_string()),
    )
}

fn error(status: &Status) -> serde_json::Value {
    serde_json::json!({ "code": i32::from(status.code()), "message": status.message() })
}

fn http_status(code: Code) -> StatusCode {
    match code {
        Code::Ok => StatusCode::OK,
        // "Client closed request", which has no name.
        Code::Cancelled => StatusCode::from_u16(499).expect("three digits"),
        Code::InvalidArgument | Code::FailedPrecondition | Code::OutOfRange => {
            StatusCode::BAD_REQUEST
        }
        Code::DeadlineExceeded => StatusCode::GATEWAY_TIMEOUT,
        Code::NotFound => StatusCode::NOT_FOUND,
        Code::AlreadyExists | Code::Aborted => StatusCode::CONFLICT,
        Code::PermissionDenied => StatusCode::FORBIDDEN,
        Code::Unauthenticated => StatusCode::UNAUTHORIZED,
        Code::ResourceExhausted => StatusCode::TOO_MANY_REQUESTS,
        Code::Unimplemented => StatusCode::NOT_IMPLEMENTED,
        Code::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        Code::Unknown | Code::Internal | Code::DataLoss => StatusCode::INTERNAL_SERVER_ERROR,
    }
}
