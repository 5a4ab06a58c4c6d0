//! The peer port: what members say to one another, and what it answers to HTTP.
//!
//! Each member dials each other one ([`links`]) and sends its frames there; what they mean is the
//! replica's business, but for questions that only the leader can answer ([`crate::node`]'s asks).
//! A state is sent on a connection of its own ([`state`]).
//!
//! Source: spec/v3-api.md §3.4.

mod connect;
mod hello;
mod links;
mod state;
mod wire;

use axum::body::Body;
use axum::http::header::{CONNECTION, HeaderValue, UPGRADE};
use axum::http::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;

pub(crate) use connect::Connected;
pub(crate) use hello::{Hello, Refused};
pub(crate) use links::Links;
pub(crate) use state::send as send_state;

use crate::node::Node;
use crate::v2;

/// Frames for the replica.
pub(crate) const REPLICA: u8 = 0;
/// Questions to the leader.
pub(crate) const ASK: u8 = 1;
/// Its answers.
pub(crate) const ANSWER: u8 = 2;
/// Measures the way there and back: what comes is sent back.
pub(crate) const PING: u8 = 3;
/// It has come back.
pub(crate) const PONG: u8 = 4;

/// Answers one request.
pub(crate) fn handle(node: &Node, request: Request<Body>) -> Response<Body> {
    match request.uri().path() {
        "/version" => v2::version(request.method()),
        "/members" => v2::peer_members(node, request.method()),
        hello::LINK | hello::STATE => upgrade(node, request),
        path if path.starts_with("/raft") => refuse(&Refused::Garbled, StatusCode::NOT_IMPLEMENTED),
        _ => v2::not_found(),
    }
}

fn refuse(why: &Refused, status: StatusCode) -> Response<Body> {
    let mut response = v2::plain(status, "");
    *response.body_mut() = Body::from(format!("{why}\n"));
    response
}

/// Another member begins a connection.
fn upgrade(node: &Node, mut request: Request<Body>) -> Response<Body> {
    let is_ours = request
        .headers()
        .get(UPGRADE)
        .is_some_and(|wanted| wanted == hello::PROTOCOL);
    let theirs = Hello::read(request.headers()).filter(|_| is_ours);
    let checked = theirs.ok_or(Refused::Garbled).and_then(|theirs| {
        node.check_hello(&theirs)?;
        Ok(theirs)
    });
    let theirs = match checked {
        Ok(theirs) => theirs,
        Err(why) => {
            tracing::warn!(%why, peer = theirs.map(|t| format!("{:x}", t.member)), "refused a peer");
            let status = StatusCode::from_u16(why.status());
            return refuse(&why, status.unwrap_or(StatusCode::BAD_REQUEST));
        }
    };
    let is_state = request.uri().path() == hello::STATE;
    let upgraded = hyper::upgrade::on(&mut request);
    let serving = node.clone();
    tokio::spawn(async move {
        let Ok(upgraded) = upgraded.await else {
            return;
        };
        let connected = TokioIo::new(upgraded);
        if is_state {
            state::receive(&serving, theirs.member, connected).await;
        } else {
            take_frames(&serving, theirs.member, connected).await;
        }
    });
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    node.hello().write(headers);
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static(hello::PROTOCOL));
    response
}

/// Reads what a member sends until its connection ends, or a newer one of its takes the place.
async fn take_frames(node: &Node, member: u64, connected: Connected) {
    let turn = node.begin_connection(member);
    let mut frames = wire::Frames::new(connected);
    let mut closed = std::pin::pin!(node.closed());
    loop {
        let frame = tokio::select! {
            frame = frames.next() => frame,
            () = &mut closed => return,
        };
        match frame {
            Ok(Some(frame)) if node.is_connection(member, turn) => {
                node.metrics().peers.received(member, frame.len() as u64);
                node.peer_frame(member, frame).await;
            }
            Ok(_) => return,
            Err(error) => {
                tracing::warn!(peer = format!("{member:x}"), %error, "a peer's connection broke");
                return;
            }
        }
    }
}
