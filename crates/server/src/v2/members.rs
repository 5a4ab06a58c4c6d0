//! The members, as clients ask about them and change them: `/v2/members`, `/v2/machines`, `/version`.
//!
//! Source: spec v2-api.md §3.1, §3.2.

use std::collections::BTreeSet;

use axum::body::Body;
use axum::http::header::{CONTENT_TYPE, HeaderValue};
use axum::http::{Method, Request, Response, StatusCode};
use quorate_store::command::Body as Command;
use quorate_store::{Member, MemberChange, Refusal, Role};
use serde_json::Value;
use serde_json::error::Category;

use super::{CLUSTER_ID, cluster_id, json, json_response, method_not_allowed, plain};
use crate::arrival::Held;
use crate::config::Url;
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

/// `/v2/members` and what is below it.
pub(super) async fn members(
    node: &Node,
    path: &[u8],
    request: &mut Request<Body>,
) -> Response<Body> {
    let name = path
        .strip_prefix(b"/v2/members")
        .and_then(|rest| rest.strip_prefix(b"/"));
    let name = name.filter(|name| !name.is_empty());
    let answer = match (request.method().clone(), name) {
        (Method::GET, name) => return get(node, name),
        (Method::POST, _) => add(node, request).await,
        (Method::PUT, Some(name)) => update(node, name, request).await,
        (Method::DELETE, Some(name)) => remove(node, name).await,
        (Method::PUT | Method::DELETE, None) => {
            // Without `Allow`, as etcd answers.
            let mut response = plain(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed\n");
            response.headers_mut().insert(CLUSTER_ID, cluster_id(node));
            return response;
        }
        _ => return method_not_allowed("GET,POST,DELETE,PUT"),
    };
    answer.unwrap_or_else(|Refused(status, text)| message(node, status, &text))
}

fn get(node: &Node, name: Option<&[u8]>) -> Response<Body> {
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

/// A status, and what is said with it.
struct Refused(u16, String);

async fn add(node: &Node, request: &mut Request<Body>) -> Result<Response<Body>, Refused> {
    let urls = peer_urls(node, request).await?;
    let id = node.new_member_id(&urls);
    change(node, id, node.addition(&urls, false)).await?;
    // What was added, even if it is gone again.
    let added = Member {
        id,
        peer_urls: urls.iter().map(Url::to_string).collect(),
        ..Member::default()
    };
    let mut body = Vec::new();
    member(&mut body, &added);
    body.push(b'\n');
    Ok(json_response(node, 201, Body::from(body)))
}

async fn update(
    node: &Node,
    name: &[u8],
    request: &mut Request<Body>,
) -> Result<Response<Body>, Refused> {
    let id = parse_id(name)?;
    let urls = peer_urls(node, request).await?;
    let peer_urls = urls.iter().map(Url::to_string).collect();
    change(node, id, MemberChange::Update { peer_urls }).await?;
    Ok(done(node))
}

async fn remove(node: &Node, name: &[u8]) -> Result<Response<Body>, Refused> {
    let id = parse_id(name)?;
    change(node, id, MemberChange::Remove).await?;
    Ok(done(node))
}

fn done(node: &Node) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    response.headers_mut().insert(CLUSTER_ID, cluster_id(node));
    response
}

fn parse_id(name: &[u8]) -> Result<u64, Refused> {
    let text = String::from_utf8_lossy(name);
    let is_hex = text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let id = u64::from_str_radix(&text, 16).ok().filter(|_| is_hex);
    id.ok_or_else(|| Refused(404, format!("No such member: {text}")))
}

/// What a client is told of a change that was not made. etcd tells little.
async fn change(node: &Node, id: u64, change: MemberChange) -> Result<(), Refused> {
    let is_removal = change == MemberChange::Remove;
    let outcome = node.propose(Command::Member { id, change }).await;
    let refusal = match outcome.map(|outcome| outcome.result) {
        Ok(Ok(_)) => return Ok(()),
        Ok(Err(refusal)) => refusal,
        Err(error) => {
            tracing::warn!(%error, "a change of the members over v2 was not made");
            return Err(Refused(500, "Internal Server Error".to_owned()));
        }
    };
    Err(match refusal {
        Refusal::MemberExists => Refused(409, "membership: ID exists".to_owned()),
        Refusal::PeerUrlExists => Refused(409, "membership: peerURL exists".to_owned()),
        Refusal::MemberNotFound { id } => Refused(404, format!("No such member: {id:x}")),
        Refusal::MemberRemoved { id } if is_removal => {
            Refused(410, format!("Member permanently removed: {id:x}"))
        }
        _ => Refused(500, "Internal Server Error".to_owned()),
    })
}

/// The peer URLs in a request's body.
async fn peer_urls(node: &Node, request: &mut Request<Body>) -> Result<Vec<Url>, Refused> {
    let kind = request.headers().get(CONTENT_TYPE);
    let kind = kind.map_or_else(Default::default, |kind| {
        String::from_utf8_lossy(kind.as_bytes())
    });
    let kind = match kind.split_once(';') {
        Some((kind, _)) => kind.to_lowercase().trim().to_owned(),
        None => kind.into_owned(),
    };
    if kind != "application/json" {
        let text = format!("Bad Content-Type {kind}, accept application/json");
        return Err(Refused(415, text));
    }
    let body = std::mem::take(request.body_mut());
    let (limit, held) = (node.config().max_request_bytes, Held::new(node.metrics()));
    let body = super::keys::read_body(body, limit, held).await;
    let body = body.map_err(|wrong| Refused(400, wrong.to_string()))?;
    let texts = json_urls(&body).map_err(|wrong| Refused(400, wrong))?;
    Url::parse_all(&texts).map_err(|wrong| Refused(400, wrong))
}

/// What `{"peerURLs":[..]}` lists; with Go's errors, of which clients may look for the first.
fn json_urls(body: &[u8]) -> Result<Vec<String>, String> {
    let value = serde_json::from_slice::<Value>(body).map_err(|error| match error.classify() {
        Category::Eof => "unexpected end of JSON input".to_owned(),
        _ => error.to_string(),
    })?;
    let wrong = |value: &Value, place: &str| {
        let kind = match value {
            Value::Null => "null",
            Value::Bool(_) => "bool",
            Value::Number(_) => "number",
            Value::String(_) => "string",
            Value::Array(_) => "array",
            Value::Object(_) => "object",
        };
        format!("json: cannot unmarshal {kind} into Go {place}")
    };
    let fields = match value {
        Value::Object(fields) => fields,
        Value::Null => return Ok(Vec::new()),
        other => {
            let place = r#"value of type struct { PeerURLs []string "json:\"peerURLs\"" }"#;
            return Err(wrong(&other, place));
        }
    };
    let urls = fields
        .into_iter()
        .rfind(|(name, _)| name.eq_ignore_ascii_case("peerURLs"));
    let urls = match urls {
        Some((_, Value::Array(urls))) => urls,
        None | Some((_, Value::Null)) => return Ok(Vec::new()),
        Some((_, other)) => return Err(wrong(&other, "struct field .peerURLs of type []string")),
    };
    let texts = urls.into_iter().map(|url| match url {
        Value::String(text) => Ok(text),
        other => Err(wrong(&other, "struct field .peerURLs of type string")),
    });
    texts.collect()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_list_of_urls_is_told_in_gos_words() {
        let strct = r#"struct { PeerURLs []string "json:\"peerURLs\"" }"#;
        for (body, expected) in [
            (r#"{"peerURLs":["a","b"]}"#, Ok(vec!["a", "b"])),
            (r#"{"PEERurls":["a"]}"#, Ok(vec!["a"])),
            ("null", Ok(vec![])),
            ("{}", Ok(vec![])),
            ("{", Err("unexpected end of JSON input".to_owned())),
            ("", Err("unexpected end of JSON input".to_owned())),
            (
                "[]",
                Err(format!(
                    "json: cannot unmarshal array into Go value of type {strct}"
                )),
            ),
            (
                r#"{"peerURLs":5}"#,
                Err(
                    "json: cannot unmarshal number into Go struct field .peerURLs of type []string"
                        .to_owned(),
                ),
            ),
            (
                r#"{"peerURLs":[true]}"#,
                Err(
                    "json: cannot unmarshal bool into Go struct field .peerURLs of type string"
                        .to_owned(),
                ),
            ),
        ] {
            let expected = expected.map(|urls| urls.into_iter().map(String::from).collect());
            assert_eq!(json_urls(body.as_bytes()), expected, "{body}");
        }
    }

    #[test]
    fn an_id_is_hexadecimal_digits_and_nothing_else() {
        assert!(matches!(parse_id(b"00aB"), Ok(0xab)));
        for name in ["+1", "0x1", "a/b", "zz", "12345678901234567"] {
            let Err(Refused(404, text)) = parse_id(name.as_bytes()) else {
                panic!("{name} is an id");
            };
            assert_eq!(text, format!("No such member: {name}"));
        }
    }
}
