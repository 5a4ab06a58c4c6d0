//! What an operator asks of the process: `/debug/vars` and `/config/local/log`.
//!
//! Source: spec v2-api.md §3.2.

use std::os::unix::ffi::OsStringExt as _;

use axum::body::Body;
use axum::http::header::{CONTENT_TYPE, HeaderValue};
use axum::http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Limited};
use serde_json::Value;

use super::{json, method_not_allowed, plain};
use crate::config::LogLevel;
use crate::logging;
use crate::metrics::descriptor_limit;
use crate::node::Node;

/// A request to change the level holds a few bytes.
const MAX_BODY_BYTES: usize = 4 << 10;

/// `/debug/vars`: variables as Go shows them, but for the memory statistics of Go itself.
pub(super) fn vars(node: &Node) -> Response<Body> {
    let mut out = b"{\n\"cmdline\": [".to_vec();
    for (at, argument) in std::env::args_os().enumerate() {
        if at > 0 {
            out.push(b',');
        }
        json::string(&mut out, &argument.into_vec());
    }
    let status = node.status();
    let leads = status.leader == Some(node.member_id());
    let state = if leads {
        "StateLeader"
    } else {
        "StateFollower"
    };
    let rest = format!(
        "],\n\"file_descriptor_limit\": {},\n\"raft.status\": {{\"id\":\"{:x}\",\"term\":{},\
         \"commit\":{},\"lead\":\"{:x}\",\"raftState\":\"{state}\",\"applied\":{}}}\n}}\n",
        descriptor_limit().unwrap_or(0),
        node.member_id(),
        status.term,
        status.committed,
        status.leader.unwrap_or(0),
        status.applied,
    );
    out.extend_from_slice(rest.as_bytes());
    let mut response = Response::new(Body::from(out));
    let kind = HeaderValue::from_static("application/json; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}

/// `/config/local/log`: changes the level of the log, until it is changed again.
pub(super) async fn log_level(request: &mut Request<Body>) -> Response<Body> {
    if request.method() != Method::PUT {
        return method_not_allowed("PUT");
    }
    let body = std::mem::take(request.body_mut());
    let body = Limited::new(body, MAX_BODY_BYTES).collect().await;
    let Some(asked) = body.ok().and_then(|body| asked(&body.to_bytes())) else {
        return refusal("Invalid json body");
    };
    let Some(level) = level(&asked) else {
        return refusal(&format!("Invalid log level {asked}"));
    };
    logging::set_level(level);
    tracing::info!(level = asked, "changed the log level");
    let mut response = plain(StatusCode::NO_CONTENT, "");
    response.headers_mut().clear();
    response
}

/// What the first JSON value of a body says under `Level`, in any case; nothing is the empty name.
fn asked(body: &[u8]) -> Option<String> {
    let mut values = serde_json::Deserializer::from_slice(body).into_iter::<Value>();
    let Ok(Value::Object(fields)) = values.next()? else {
        return None;
    };
    let mut named = fields
        .into_iter()
        .filter(|(name, _)| name.eq_ignore_ascii_case("level"));
    match named.next().map(|(_, value)| value) {
        None | Some(Value::Null) => Some(String::new()),
        Some(Value::String(level)) => Some(level),
        Some(_) => None,
    }
}

/// The names and numbers that etcd 3.4 takes.
fn level(name: &str) -> Option<LogLevel> {
    Some(match &name.to_uppercase()[..] {
        "CRITICAL" | "C" | "ERROR" | "0" | "E" => LogLevel::Error,
        "WARNING" | "1" | "W" => LogLevel::Warn,
        "NOTICE" | "2" | "N" | "INFO" | "3" | "I" => LogLevel::Info,
        "DEBUG" | "4" | "D" | "TRACE" | "5" | "T" => LogLevel::Debug,
        _ => return None,
    })
}

fn refusal(message: &str) -> Response<Body> {
    let mut body = b"{\"message\":".to_vec();
    json::string(&mut body, message.as_bytes());
    body.push(b'}');
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = StatusCode::BAD_REQUEST;
    let kind = HeaderValue::from_static("application/json");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}
