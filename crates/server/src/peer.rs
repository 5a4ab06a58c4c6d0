//! The peer port: what it answers to HTTP. Members do not talk to one another yet.
//!
//! Source: spec/v3-api.md §3.4.

use axum::body::Body;
use axum::http::{Request, Response, StatusCode};

use crate::node::Node;
use crate::v2;

/// Answers one request.
pub(crate) fn handle(node: &Node, request: &Request<Body>) -> Response<Body> {
    match request.uri().path() {
        "/version" => v2::version(request.method()),
        "/members" => v2::peer_members(node, request.method()),
        path if path.starts_with("/raft") => v2::plain(
            StatusCode::NOT_IMPLEMENTED,
            "this is a Quorate member: it forms no cluster with members of etcd\n",
        ),
        _ => v2::not_found(),
    }
}
