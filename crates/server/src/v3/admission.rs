//! What every v3 call passes, whatever its method: the checks of its metadata, and the wording of
//! errors that tonic makes before a method is reached.
//!
//! Source: spec/v3-api.md §1.3, §2.13.

use axum::body::Body;
use axum::http::{HeaderMap, Response};
use tonic::{Code, Status};

use super::{limits, status};
use crate::node::Node;

/// What a learner answers: serializable ranges, as [`super::kv`] judges, and these.
const LEARNERS: [&str; 3] = [
    "/etcdserverpb.KV/Range",
    "/etcdserverpb.Maintenance/Status",
    "/etcdserverpb.Maintenance/Snapshot",
];

/// Whether a call is to end when there is no leader.
pub(super) fn needs_leader(headers: &HeaderMap) -> bool {
    headers
        .get("hasleader")
        .is_some_and(|value| value == "true")
}

/// Checks a call's method and metadata.
pub(super) fn check(path: &str, headers: &HeaderMap, node: &Node) -> Result<(), Status> {
    if node.only_learns() && !LEARNERS.contains(&path) {
        return Err(status::not_for_learner());
    }
    if let Some(version) = headers.get("client-api-version")
        && std::str::from_utf8(version.as_bytes()).is_err()
    {
        return Err(status::invalid_client_api_version());
    }
    if needs_leader(headers) && node.status().leader.is_none() {
        return Err(status::no_leader());
    }
    Ok(())
}

/// Puts Go's words for tonic's, where clients compare them.
pub(super) fn reworded(response: Response<Body>, path: &str) -> Response<Body> {
    let Some(error) = Status::from_header_map(response.headers()) else {
        return response;
    };
    let unknown = error.code() == Code::Unimplemented && error.message().is_empty();
    let reworded = if unknown {
        Some(status::unknown_method(path))
    } else {
        limits::translate(&error)
    };
    reworded.map_or(response, Status::into_http)
}
