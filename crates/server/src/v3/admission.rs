//! What every v3 call passes, whatever its method: the checks of its metadata, and the wording of
//! errors that tonic makes before a method is reached.
//!
//! Source: spec/v3-api.md §1.3, §2.13.

use axum::Router;
use axum::extract::{Request, State};
use axum::http::HeaderMap;
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use tonic::Status;

use super::{limits, status};
use crate::node::Node;

/// Puts the checks before `routes`.
pub(super) fn guard(routes: Router, node: Node) -> Router {
    routes.layer(from_fn_with_state(node, admit))
}

async fn admit(State(node): State<Node>, request: Request, next: Next) -> Response {
    if let Err(status) = check(request.headers(), &node) {
        return status.into_http();
    }
    let response = next.run(request).await;
    match response
        .extensions()
        .get::<Status>()
        .and_then(limits::translate)
    {
        Some(status) => status.into_http(),
        None => response,
    }
}

fn check(headers: &HeaderMap, node: &Node) -> Result<(), Status> {
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
