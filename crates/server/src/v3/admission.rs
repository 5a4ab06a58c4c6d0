//! What every v3 call passes, whatever its method: the checks of its metadata, and the wording of
//! errors that tonic makes before a method is reached.
//!
//! Source: spec/v3-api.md §1.3, §2.13.

use axum::http::{HeaderMap, Response};
use tonic::Status;

use super::{limits, status};
use crate::node::Node;

/// Puts Go's words for tonic's, where clients compare them.
pub(super) fn reworded(response: Response<tonic::body::Body>) -> Response<tonic::body::Body> {
    let status = response.extensions().get::<Status>();
    match status.and_then(limits::translate) {
        Some(status) => status.into_http(),
        None => response,
    }
}

/// Checks a call's metadata.
pub(super) fn check(headers: &HeaderMap, node: &Node) -> Result<(), Status> {
    if let Some(version) = headers.get("client-api-version")
        && std::str::from_utf8(version.as_bytes()).is_err()
    {
        return Err(status::invalid_client_api_version());
    }
    let needs_leader = headers
        .get("hasleader")
        .is_some_and(|value| value == "true");
    if needs_leader && node.status().leader.is_none() {
        return Err(status::no_leader());
    }
    Ok(())
}
