//! What every v3 call passes, whatever its method: the checks of its metadata, and the wording of
//! errors that tonic makes before a method is reached.
//!
//! Source: spec/v3-api.md §1.3, §2.13.

use axum::body::Body;
use axum::http::{HeaderMap, Response};
use tonic::{Code, Status};

use super::{limits, status};
use crate::node::Node;

/// Checks a call's metadata.
pub(super) fn check(headers: &HeaderMap, node: &Node) -> Result<(), Status> {
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

/// Whether a call, and a stream as long as it lives, is to be refused without a leader.
pub(super) fn needs_leader(headers: &HeaderMap) -> bool {
    headers
        .get("hasleader")
        .is_some_and(|value| value == "true")
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
