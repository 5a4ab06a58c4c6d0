//! `/health`, as etcd 3.7 answers it.
//!
//! Source: spec v3-api.md §3.4.

use std::time::Duration;

use axum::body::Body;
use axum::http::{Method, Response, StatusCode};

use super::form::Form;
use super::{json, method_not_allowed, plain};
use crate::node::Node;

/// How long a linearizable read may take.
const READ_TIMEOUT: Duration = Duration::from_secs(1);

/// Answers `/health`. `?serializable=true` asks about this member alone; `?exclude=` names alarms
/// to ignore, of which there are none to raise yet.
pub async fn health(node: &Node, method: &Method, query: Option<&str>) -> Response<Body> {
    if method != Method::GET {
        return method_not_allowed("GET");
    }
    let mut form = Form::default();
    // As in etcd, what cannot be read of the query does not count.
    let _ = form.add(query.unwrap_or_default().as_bytes());
    match sickness(node, form.get("serializable") == Some(b"true")).await {
        None => {
            let mut response = plain(StatusCode::OK, "");
            *response.body_mut() = Body::from("{\"health\":\"true\",\"reason\":\"\"}");
            response
        }
        Some(reason) => {
            let mut body = b"{\"health\":\"false\",\"reason\":".to_vec();
            json::string(&mut body, reason.as_bytes());
            body.extend_from_slice(b"}\n");
            let mut response = plain(StatusCode::SERVICE_UNAVAILABLE, "");
            *response.body_mut() = Body::from(body);
            response
        }
    }
}

/// What is wrong, if anything is.
async fn sickness(node: &Node, local: bool) -> Option<String> {
    if local {
        return None;
    }
    if node.status().leader.is_none() {
        return Some("RAFT NO LEADER".to_owned());
    }
    match tokio::time::timeout(READ_TIMEOUT, node.read_index()).await {
        Ok(Ok(())) => None,
        Ok(Err(why)) => Some(format!("RANGE ERROR:etcdserver: {why}")),
        Err(_) => Some("RANGE ERROR:context deadline exceeded".to_owned()),
    }
}
