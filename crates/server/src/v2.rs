//! etcd's v2 API over HTTP: the tree of keys and the small endpoints beside it.
//!
//! Owns what a v2 client sees of a request: which paths exist, which methods they take, redirects,
//! parameters, headers, status codes, JSON, and how watches and long listings are sent.
//! Never decides what a command does: that is `quorate_store::tree`.
//!
//! Paths are handled as bytes and not by a router of patterns, since keys may hold any byte and an
//! escaped slash is a slash.
//!
//! Source: spec v2-api.md §1 to §3.2, one-store.md.

mod debug;
mod error;
mod form;
mod health;
mod json;
mod keys;
mod listing;
mod members;
mod params;
mod path;
mod render;
mod stats;
pub mod watch;

use axum::body::Body;
use axum::http::header::{self, HeaderName, HeaderValue};
use axum::http::{Method, Request, Response, StatusCode, Uri};
use bytes::Bytes;

use crate::arrival;
use crate::config::Config;
use crate::gateway::Gateway;
use crate::metrics;
use crate::node::Node;

pub use health::{health, probe};
pub(crate) use members::{peer_members, version};

/// Reads the parts of a request as the handlers do.
#[cfg(fuzzing)]
pub(crate) fn fuzz(bytes: &[u8]) {
    let mut parts = bytes.splitn(4, |byte| *byte == b'\n');
    let mut part = || parts.next().unwrap_or_default();
    if let Ok(path) = path::unescape(part(), false) {
        let clean = path::clean(&path);
        assert_eq!(path::clean(&clean), clean, "clean is clean");
        let escaped = path::escape(&clean);
        assert_eq!(
            path::unescape(escaped.as_bytes(), false).as_ref(),
            Ok(&clean)
        );
        let key = clean.strip_suffix(b"/").unwrap_or(&clean);
        drop(quorate_store::tree::Path::parse(Bytes::copy_from_slice(
            key,
        )));
    }
    let mut form = form::Form::default();
    let query = part();
    drop(form::media_type(&String::from_utf8_lossy(part())));
    if form.add(part()).and(form.add(query)).is_ok() {
        if let Err(error) = params::Params::parse(form, query.len() % 2 == 0) {
            let body: Result<serde_json::Value, _> = serde_json::from_slice(error.body().as_ref());
            body.expect("an error is JSON");
        }
    }
}

/// How much of a body that nobody wanted is read away; the connection ends behind a larger one.
const UNWANTED_BYTES: usize = 256 << 10;

/// Answers one request.
pub async fn handle(node: Node, request: Request<Body>) -> Response<Body> {
    handle_with(node, None, request).await
}

/// Answers one request, for v3's JSON through the gateway if there is one.
pub(crate) async fn handle_with(
    node: Node,
    gateway: Option<&Gateway>,
    mut request: Request<Body>,
) -> Response<Body> {
    let Ok(path) = path::unescape(request.uri().path().as_bytes(), false) else {
        return bad_request();
    };
    if !is_host_allowed(node.config(), &request) {
        let text = "this server is not known under the host name of the request: \
                    add it to --host-whitelist\n";
        return plain(StatusCode::MISDIRECTED_REQUEST, text);
    }
    let origin = allowed_origin(node.config(), &request);
    let is_options = request.method() == Method::OPTIONS;
    let mut response = if is_options {
        Response::new(Body::empty())
    } else {
        dispatch(&node, gateway, &path, &mut request).await
    };
    // A client that waits to be asked for the body is not asked for what nobody wants.
    if !request.headers().contains_key(header::EXPECT) {
        discard(request.body_mut(), UNWANTED_BYTES).await;
    }
    if let Some(origin) = origin.filter(|_| !(is_options && path == b"*")) {
        let headers = response.headers_mut();
        let fixed = HeaderValue::from_static;
        let methods = fixed("POST, GET, OPTIONS, PUT, DELETE");
        let names = fixed("accept, content-type, authorization");
        headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, methods);
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, names);
    }
    response
}

async fn dispatch(
    node: &Node,
    gateway: Option<&Gateway>,
    path: &[u8],
    request: &mut Request<Body>,
) -> Response<Body> {
    match path {
        b"" => return not_found(),
        b"*" => return closing(StatusCode::BAD_REQUEST, Body::empty()),
        _ => {}
    }
    let clean = path::clean(path);
    if clean != path {
        return redirect(&clean, request);
    }
    if let Some(gateway) = gateway.filter(|_| Gateway::takes(path)) {
        return gateway.answer(path, request).await;
    }
    let is_v2 = path.starts_with(b"/v2/");
    if is_v2 && !node.config().enable_v2 {
        return not_found();
    }
    if let Some(response) = observe(node, request.method(), request.uri()).await {
        return response;
    }
    match path {
        b"/version" => version(request.method()),
        b"/debug/vars" if request.method() != Method::GET => method_not_allowed("GET"),
        b"/debug/vars" => debug::vars(node),
        b"/config/local/log" => debug::log_level(request).await,
        b"/v2/machines" => members::machines(node, request.method()),
        _ if below(path, b"/v2/members").is_some() => members::members(node, path, request).await,
        _ if path.starts_with(b"/v2/stats/") => stats::stats(node, request.method(), path),
        _ => match below(path, b"/v2/keys") {
            Some(key) => keys::handle(node, key, request).await,
            None => not_found(),
        },
    }
}

/// Answers the paths by which a member is watched, which the metrics URLs have too.
pub(crate) async fn observe(node: &Node, method: &Method, uri: &Uri) -> Option<Response<Body>> {
    Some(match uri.path() {
        "/metrics" => metrics::respond(node).await,
        "/health" => health(node, method, uri.query()).await,
        path if path.starts_with("/livez") || path.starts_with("/readyz") => {
            probe(node, method, path, uri.query()).await
        }
        _ => return None,
    })
}

/// What of `path` follows `prefix`: nothing, or a slash and more.
fn below<'a>(path: &'a [u8], prefix: &[u8]) -> Option<&'a [u8]> {
    path.strip_prefix(prefix)
        .filter(|rest| rest.is_empty() || rest.starts_with(b"/"))
}

/// Reads away what is left of a body up to about `limit` bytes, so that the next request of the
/// connection can be read. What cannot be read away ends the connection, no more.
async fn discard(body: &mut Body, limit: usize) {
    let mut left = limit;
    while left > 0
        && let Some(Ok(frame)) = arrival::next(body).await
    {
        left = left.saturating_sub(frame.data_ref().map_or(0, Bytes::len));
    }
}

fn is_host_allowed(config: &Config, request: &Request<Body>) -> bool {
    let header = || request.headers().get(header::HOST)?.to_str().ok();
    // The URL's own host comes first, as RFC 9112 §3.2.2 wants it.
    let in_url = request.uri().authority().map(|name| name.as_str());
    let host = in_url.or_else(header).unwrap_or_default();
    let without_port = host
        .rsplit_once(':')
        .filter(|(_, port)| !port.ends_with(']'));
    let name = without_port.map_or(host, |(name, _)| name);
    config
        .host_whitelist
        .allows(name.trim_start_matches('[').trim_end_matches(']'))
}

/// What `Access-Control-Allow-Origin` says, if the origin may be told anything.
fn allowed_origin(config: &Config, request: &Request<Body>) -> Option<HeaderValue> {
    if config.cors.allows("*") {
        return Some(HeaderValue::from_static("*"));
    }
    let origin = request.headers().get(header::ORIGIN)?;
    origin
        .to_str()
        .is_ok_and(|name| config.cors.allows(name))
        .then(|| origin.clone())
}

/// 301 to the clean path. As from Go, only a GET has a body and only GET and HEAD a type.
fn redirect(clean: &[u8], request: &Request<Body>) -> Response<Body> {
    let query = request.uri().query().filter(|query| !query.is_empty());
    let query = query.map(|query| format!("?{query}")).unwrap_or_default();
    let target = path::escape(clean) + &query;
    let mut body = Body::empty();
    if request.method() == Method::GET {
        let shown = target
            .replace('&', "&amp;")
            .replace('<', "&lt;")
            .replace('>', "&gt;");
        let shown = shown.replace('"', "&#34;").replace('\'', "&#39;");
        body = Body::from(format!("<a href=\"{shown}\">Moved Permanently</a>.\n\n"));
    }
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::MOVED_PERMANENTLY;
    let location = HeaderValue::from_str(&path::escape_non_ascii(&target));
    let location = location.expect("an escaped path and a query are visible ASCII then");
    response.headers_mut().insert(header::LOCATION, location);
    if matches!(*request.method(), Method::GET | Method::HEAD) {
        let html = HeaderValue::from_static("text/html; charset=utf-8");
        response.headers_mut().insert(header::CONTENT_TYPE, html);
    }
    response
}

/// An answer of text, which browsers are told not to take for anything else if it is an error.
pub(crate) fn plain(status: StatusCode, text: &'static str) -> Response<Body> {
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = status;
    let kind = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    if status.is_client_error() {
        let nosniff = HeaderValue::from_static("nosniff");
        response
            .headers_mut()
            .insert(header::X_CONTENT_TYPE_OPTIONS, nosniff);
    }
    response
}

/// What Go answers where nothing is.
pub(crate) fn not_found() -> Response<Body> {
    plain(StatusCode::NOT_FOUND, "404 page not found\n")
}

/// A refusal of what is no request, behind which the connection ends.
fn bad_request() -> Response<Body> {
    let mut response = closing(StatusCode::BAD_REQUEST, Body::from("400 Bad Request"));
    let kind = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

fn closing(status: StatusCode, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let close = HeaderValue::from_static("close");
    response.headers_mut().insert(header::CONNECTION, close);
    response
}

fn method_not_allowed(allow: &'static str) -> Response<Body> {
    let mut response = plain(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed\n");
    response
        .headers_mut()
        .insert(header::ALLOW, HeaderValue::from_static(allow));
    response
}

const CLUSTER_ID: HeaderName = HeaderName::from_static("x-etcd-cluster-id");

/// A JSON answer that names the cluster.
fn json_response(node: &Node, status: u16, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::from_u16(status).expect("a constant of this module");
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/json"),
    );
    headers.insert(CLUSTER_ID, cluster_id(node));
    response
}

fn cluster_id(node: &Node) -> HeaderValue {
    let digits = HeaderValue::from_str(&format!("{:x}", node.cluster_id()));
    digits.expect("hexadecimal digits")
}
