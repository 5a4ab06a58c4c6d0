//! What a client can ask about the members: `/v2/members`, `/v2/machines`, `/version`.
//!
//! Source: spec v2-api.md §3.1, §3.2.

use std::collections::BTreeSet;

use axum::body::Body;
use axum::http::header::{CONTENT_TYPE, HeaderValue};
use axum::http::{Method, Response, StatusCode};
use quorate_store::{Member, Role};

use super::{CLUSTER_ID, cluster_id, json, json_response, method_not_allowed, plain};
use crate::config::version::{API_VERSION, CLUSTER_VERSION};
use crate::node::Node;

/// `/version`: what etcd we answer as.
pub(crate) fn version(method: &Method) -> Response<Body> {
    if method != Method::GET {
        return method_not_allowed("GET");
    }
    let text = format!(
        "{{\"etcdserver\":\"{API_VERSION}\",\"etcdcluster\":\"{CLUSTER_VERSION}\",\
         \"storage\":\"{CLUSTER_VERSION}\"}}"
    );
    let mut response = Response::new(Body::from(text));
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// `/v2/machines`: where clients reach the members.
pub(super) fn machines(node: &Node, method: &Method) -> Response<Body> {
    if !matches!(*method, Method::GET | Method::HEAD) {
        return method_not_allowed("GET,HEAD");
    }
    let machine = node.machine();
    let members = machine.store().members().values();
    let urls: BTreeSet<&str> = members
        .flat_map(|member| &member.client_urls)
        .map(String::as_str)
        .collect();
    let text = Vec::from_iter(urls).join(", ");
    let mut response = plain(StatusCode::OK, "");
    *response.body_mut() = Body::from(text);
    response
}

/// `/members` of the peer port: all members, without the envelope of `/v2/members`.
pub(crate) fn peer_members(node: &Node, method: &Method) -> Response<Body> {
    if method != Method::GET {
        return method_not_allowed("GET");
    }
    let mut body = Vec::new();
    list(
        &mut body,
        node.machine().store().members().values(),
        peer_member,
    );
    body.push(b'\n');
    json_response(node, 200, Body::from(body))
}

/// A member as members tell it to one another: the id is a number, and what has no value is left out.
fn peer_member(out: &mut Vec<u8>, member: &Member) {
    out.extend_from_slice(format!("{{\"id\":{}", member.id).as_bytes());
    urls(out, "peerURLs", &member.peer_urls);
    if member.role != Role::Voter {
        out.extend_from_slice(b",\"isLearner\":true");
    }
    if !member.name.is_empty() {
        out.extend_from_slice(b",\"name\":");
        json::string(out, member.name.as_bytes());
    }
    if !member.client_urls.is_empty() {
        urls(out, "clientURLs", &member.client_urls);
    }
    out.push(b'}');
}

/// `/v2/members` and what is below it. Membership cannot be changed yet.
pub(super) fn members(node: &Node, method: &Method, path: &[u8]) -> Response<Body> {
    let name = path
        .strip_prefix(b"/v2/members")
        .and_then(|rest| rest.strip_prefix(b"/"));
    let name = name.filter(|name| !name.is_empty());
    match *method {
        Method::GET => {}
        Method::POST => return not_yet(node),
        Method::PUT | Method::DELETE if name.is_some() => return not_yet(node),
        Method::PUT | Method::DELETE => {
            // Without `Allow`, as etcd answers.
            let mut response = plain(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed\n");
            response.headers_mut().insert(CLUSTER_ID, cluster_id(node));
            return response;
        }
        _ => return method_not_allowed("GET,POST,DELETE,PUT"),
    }
    let leader = node.status().leader;
    let machine = node.machine();
    let members = machine.store().members();
    let mut body = Vec::new();
    match name {
        None => {
            body.extend_from_slice(b"{\"members\":");
            list(&mut body, members.values(), member);
            body.extend_from_slice(b"}\n");
        }
        Some(b"leader") => {
            let Some(leader) = leader.and_then(|id| members.get(&id)) else {
                return message(node, 503, "During election");
            };
            member(&mut body, leader);
            body.push(b'\n');
        }
        Some(_) => return message(node, 404, "Not found"),
    }
    json_response(node, 200, Body::from(body))
}

fn not_yet(node: &Node) -> Response<Body> {
    message(
        node,
        501,
        "changing the members is not part of this version",
    )
}

/// These endpoints' errors end without a newline.
fn message(node: &Node, status: u16, text: &str) -> Response<Body> {
    let mut body = b"{\"message\":".to_vec();
    json::string(&mut body, text.as_bytes());
    body.push(b'}');
    json_response(node, status, Body::from(body))
}

fn list<'a>(
    out: &mut Vec<u8>,
    members: impl Iterator<Item = &'a Member>,
    write: fn(&mut Vec<u8>, &Member),
) {
    out.push(b'[');
    for (at, one) in members.enumerate() {
        if at > 0 {
            out.push(b',');
        }
        write(out, one);
    }
    out.push(b']');
}

fn member(out: &mut Vec<u8>, member: &Member) {
    out.extend_from_slice(format!("{{\"id\":\"{:x}\",\"name\":", member.id).as_bytes());
    json::string(out, member.name.as_bytes());
    urls(out, "peerURLs", &member.peer_urls);
    urls(out, "clientURLs", &member.client_urls);
    out.push(b'}');
}

fn urls(out: &mut Vec<u8>, field: &str, urls: &[String]) {
    out.extend_from_slice(format!(",\"{field}\":[").as_bytes());
    for (at, url) in urls.iter().enumerate() {
        if at > 0 {
            out.push(b',');
        }
        json::string(out, url.as_bytes());
    }
    out.push(b']');
}
