//! `/v2/stats`: who this member is, whom it follows, and what v2 clients did here.
//!
//! The counts of append requests are those of all frames between members, so a member alone shows zero.
//!
//! Source: spec v2-api.md §3.3.

use std::time::Duration;

use axum::body::Body;
use axum::http::header::{CONTENT_TYPE, HeaderValue};
use axum::http::{Method, Response, StatusCode};
use quorate_store::UnixMs;

use super::{json, method_not_allowed, not_found};
use crate::node::Node;

/// Answers below `/v2/stats`.
pub(super) fn stats(node: &Node, method: &Method, path: &[u8]) -> Response<Body> {
    let body: fn(&Node) -> Vec<u8> = match path {
        b"/v2/stats/self" => this_member,
        b"/v2/stats/leader" => leader,
        b"/v2/stats/store" => store,
        _ => return not_found(),
    };
    if method != Method::GET {
        return method_not_allowed("GET");
    }
    let leads = node.status().leader == Some(node.member_id());
    if path == b"/v2/stats/leader" && !leads {
        return not_leading();
    }
    let mut response = Response::new(Body::from(body(node)));
    let kind = HeaderValue::from_static("application/json");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}

/// Without a newline, and without the cluster's id.
fn not_leading() -> Response<Body> {
    let mut response = Response::new(Body::from("{\"message\":\"not current leader\"}"));
    *response.status_mut() = StatusCode::FORBIDDEN;
    let kind = HeaderValue::from_static("application/json");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}

fn this_member(node: &Node) -> Vec<u8> {
    let mut out = b"{\"name\":".to_vec();
    json::string(&mut out, node.config().name.as_bytes());
    let status = node.status();
    let leads = status.leader == Some(node.member_id());
    let state = if leads {
        "StateLeader"
    } else {
        "StateFollower"
    };
    let (started, uptime) = node.started();
    let known_for = node.leader_known_for().min(uptime);
    let found_ms = u64::try_from((uptime - known_for).as_millis()).unwrap_or(0);
    let found = json::rfc3339(UnixMs(started.0 + found_ms));
    let started = json::rfc3339(started);
    let (sent, received) = node.metrics().peers.frames();
    let rest = format!(
        ",\"id\":\"{:x}\",\"state\":\"{state}\",\"startTime\":\"{started}\",\"leaderInfo\":\
         {{\"leader\":\"{:x}\",\"uptime\":\"{}\",\"startTime\":\"{found}\"}},\
         \"recvAppendRequestCnt\":{received},\"sendAppendRequestCnt\":{sent}}}",
        node.member_id(),
        status.leader.unwrap_or(0),
        go_duration(known_for),
    );
    out.extend_from_slice(rest.as_bytes());
    out
}

fn leader(node: &Node) -> Vec<u8> {
    format!(
        "{{\"leader\":\"{:x}\",\"followers\":{}}}",
        node.member_id(),
        node.metrics().peers.stats(node)
    )
    .into_bytes()
}

fn store(node: &Node) -> Vec<u8> {
    let watchers = node.tree_hub().watchers();
    node.metrics().tree.stats(watchers).into_bytes()
}

/// As Go prints a duration: `2.87s`, `1h0m3.5s`.
fn go_duration(duration: Duration) -> String {
    let minutes = duration.as_secs() / 60;
    let seconds = duration.as_secs_f64() - (minutes * 60) as f64;
    let hours = minutes / 60;
    match (hours, minutes % 60) {
        (0, 0) => format!("{seconds}s"),
        (0, minutes) => format!("{minutes}m{seconds}s"),
        (hours, minutes) => format!("{hours}h{minutes}m{seconds}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_printed_as_go_does() {
        assert_eq!(go_duration(Duration::from_millis(2870)), "2.87s");
        assert_eq!(go_duration(Duration::from_millis(62_500)), "1m2.5s");
        assert_eq!(go_duration(Duration::from_secs(3603)), "1h0m3s");
    }
}
