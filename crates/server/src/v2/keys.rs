//! `/v2/keys`: from a request to an operation on the tree, and its answer.
//!
//! Source: spec v2-api.md §1.3 to §1.8.

use std::time::{SystemTime, UNIX_EPOCH};

use axum::body::Body;
use axum::http::header::{self, HeaderName, HeaderValue};
use axum::http::{Method, Request, Response};
use bytes::Bytes;
use quorate_store::command::{Blob, Body as Command};
use quorate_store::tree::{self, Condition, Event, Op, Path, View, Write};
use quorate_store::{Action, Outcome, Refusal, Reply, Revision, Store, UnixMs};

use super::error::{Code, Error};
use super::form::{Form, FormError, media_type};
use super::listing::Listing;
use super::params::Params;
use super::{discard, json_response, method_not_allowed, render, watch};
use crate::arrival::{self, Broken, Held};
use crate::metrics::WriteKind;
use crate::node::{Node, Unavailable};

const ETCD_INDEX: HeaderName = HeaderName::from_static("x-etcd-index");
const RAFT_INDEX: HeaderName = HeaderName::from_static("x-raft-index");
const RAFT_TERM: HeaderName = HeaderName::from_static("x-raft-term");

/// Escaped, a byte of a form is at most this many.
const ESCAPED_BYTES: u64 = 3;
/// How much of a body that is too large is read away: clients write all before they read why.
const HOPELESS_BYTES: usize = 16 << 20;
/// What a form may hold beside value and path.
const FORM_SLACK_BYTES: u64 = 64 << 10;

/// Answers a request for `key`, the decoded and clean path behind `/v2/keys`.
pub(super) async fn handle(node: &Node, key: &[u8], request: &mut Request<Body>) -> Response<Body> {
    let method = request.method().clone();
    let counts = &node.metrics().tree;
    if !matches!(
        method,
        Method::HEAD | Method::GET | Method::PUT | Method::POST | Method::DELETE
    ) {
        return method_not_allowed("HEAD,GET,PUT,POST,DELETE");
    }
    counts.received(method.as_str());
    match answer(node, key, method.clone(), request).await {
        Ok(response) => response,
        Err(error) => {
            let (status, _) = error.code.status_and_message();
            counts.failed(method.as_str(), status);
            let mut response = json_response(node, status, Body::from(error.body()));
            response
                .headers_mut()
                .insert(ETCD_INDEX, HeaderValue::from(error.index));
            response
        }
    }
}

async fn answer(
    node: &Node,
    key: &[u8],
    method: Method,
    request: &mut Request<Body>,
) -> Result<Response<Body>, Error> {
    let form = read_form(node, request).await;
    let form = form.map_err(|wrong| Error::of_request(Code::InvalidForm, wrong.to_string()))?;
    let params = Params::parse(form, method == Method::GET)?;
    let key = key.strip_suffix(b"/").unwrap_or(key);
    let path = Path::parse(Bytes::copy_from_slice(key));
    let path = path.map_err(|wrong| Error::of_request(Code::InvalidForm, wrong.to_string()))?;
    if method == Method::GET && params.quorum {
        node.read_index().await.map_err(|why| unavailable(&why))?;
        return get(node, &path, &params).await;
    }
    if method == Method::GET && params.wait {
        node.metrics().tree.watched();
        return watch::begin(node, path, &params);
    }
    let Some(op) = operation(&method, &params) else {
        return get(node, &path, &params).await;
    };
    write(node, tree::Request { path, op }, params.no_value_on_success).await
}

/// The parameters of body and query. The body counts for PUT and POST alone.
async fn read_form(node: &Node, request: &mut Request<Body>) -> Result<Form, FormError> {
    let mut form = Form::default();
    let mut wrong = Ok(());
    if matches!(*request.method(), Method::PUT | Method::POST) {
        let header = request.headers().get(header::CONTENT_TYPE);
        let header = header.map(|kind| String::from_utf8_lossy(kind.as_bytes()).into_owned());
        let header = header.filter(|kind| !kind.is_empty());
        let (kind, judged) = media_type(header.as_deref().unwrap_or("application/octet-stream"));
        wrong = judged;
        if kind == "application/x-www-form-urlencoded" {
            let limit = node.config().max_request_bytes * ESCAPED_BYTES + FORM_SLACK_BYTES;
            let body = std::mem::take(request.body_mut());
            let held = Held::new(node.metrics());
            let text = read_body(body, limit, held).await?;
            wrong = wrong.and(form.add(&text));
        }
    }
    let in_query = form.add(request.uri().query().unwrap_or_default().as_bytes());
    wrong.and(in_query).map(|()| form)
}

pub(super) async fn read_body(
    mut body: Body,
    limit: u64,
    mut held: Held,
) -> Result<Vec<u8>, FormError> {
    let mut text = Vec::new();
    while let Some(frame) = arrival::next(&mut body).await {
        let piece = match frame {
            Ok(frame) => frame.into_data().unwrap_or_default(),
            Err(late @ Broken::Late) => return Err(FormError::Late(late.to_string())),
            Err(Broken::Cut(_)) => return Err(FormError::CutShort),
        };
        if (text.len() + piece.len()) as u64 > limit {
            discard(&mut body, HOPELESS_BYTES).await;
            return Err(FormError::TooLarge);
        }
        if !held.grow(piece.len()) {
            return Err(FormError::TooMany);
        }
        text.extend_from_slice(&piece);
    }
    Ok(text)
}

/// Which write a request is; `None` for the methods that read.
fn operation(method: &Method, params: &Params) -> Option<Op> {
    let condition = || Condition {
        value: params
            .prev_value
            .as_ref()
            .map(|value| Bytes::copy_from_slice(value)),
        index: params.prev_index,
    };
    let has_condition = params.prev_value.is_some() || params.prev_index > 0;
    let write = || Write {
        value: Blob::new(Bytes::copy_from_slice(&params.value)),
        ttl_s: params.ttl_s,
        refresh: params.refresh,
    };
    let dir = params.dir;
    Some(match *method {
        Method::POST => Op::Create {
            dir,
            in_order: true,
            write: write(),
        },
        Method::PUT => match params.prev_exist {
            Some(false) => Op::Create {
                dir,
                in_order: false,
                write: write(),
            },
            _ if has_condition => Op::CompareAndSwap {
                condition: condition(),
                write: write(),
            },
            Some(true) => Op::Update { write: write() },
            None => Op::Set {
                dir,
                write: write(),
            },
        },
        Method::DELETE if has_condition => Op::CompareAndDelete {
            condition: condition(),
        },
        Method::DELETE => Op::Delete {
            dir,
            recursive: params.recursive,
        },
        _ => return None,
    })
}

async fn write(
    node: &Node,
    request: tree::Request,
    no_value: bool,
) -> Result<Response<Body>, Error> {
    if request.size_bytes() as u64 > node.config().max_request_bytes {
        return Err(Error::of_request(
            Code::InvalidForm,
            FormError::TooLarge.to_string(),
        ));
    }
    let kind = WriteKind::from(&request.op);
    let outcome = node
        .propose(Command::Tree(request))
        .await
        .map_err(|why| unavailable(&why))?;
    node.metrics().tree.wrote(kind, outcome.result.is_ok());
    let event = written(outcome)?;
    let is_new =
        event.action == Action::Create || (event.action == Action::Set && event.previous.is_none());
    let removed = matches!(event.action, Action::Delete | Action::CompareAndDelete);
    let mut body = Vec::with_capacity(256);
    if no_value && !removed {
        body = format!("{{\"action\":\"{}\"}}", render::action_name(event.action)).into_bytes();
    } else {
        render::event(&mut body, &event, 0);
    }
    body.push(b'\n');
    Ok(found(
        node,
        if is_new { 201 } else { 200 },
        event.revision,
        Body::from(body),
    ))
}

fn written(outcome: Outcome) -> Result<Event, Error> {
    match outcome.result {
        Ok(Reply::Tree(event)) => Ok(*event),
        Ok(other) => unreachable!("a write to the tree is answered by {other:?}"),
        Err(Refusal::Tree(refusal)) => Err(Error::of_store(&refusal, outcome.revision.get())),
        Err(refusal) => {
            let cause = match refusal {
                Refusal::NoSpace => "etcdserver: mvcc: database space exceeded".to_owned(),
                Refusal::Corrupt => "etcdserver: corrupt cluster".to_owned(),
                other => other.to_string(),
            };
            Err(Error {
                index: outcome.revision.get(),
                ..Error::of_request(Code::RaftInternal, cause)
            })
        }
    }
}

async fn get(node: &Node, path: &Path, params: &Params) -> Result<Response<Body>, Error> {
    let mut is_there = None;
    let read = node.read(|machine, values| {
        let store = machine.store();
        let current = store.revision();
        let at = revision_asked(store, params.revision)?;
        let there = View::new(store, at).find(path);
        is_there = Some(there.is_ok());
        let there = there.map_err(|refusal| Error::of_store(&refusal, current.get()))?;
        let mut body = Vec::with_capacity(256);
        let scope = (at, params.recursive);
        let mut listing = Listing::begin(&mut body, (path, there), scope, now(), values)
            .map_err(|why| broken(&why))?;
        listing
            .write(&mut body, store, values)
            .map_err(|why| broken(&why))?;
        Ok((current, listing, body))
    });
    let read = read.await;
    if let Some(is_there) = is_there {
        node.metrics().tree.read(params.recursive, is_there);
    }
    let (current, listing, body) = read?;
    Ok(found(node, 200, current, listing.into_body(node, body)))
}

/// The revision a get means; 0 is the latest.
fn revision_asked(store: &Store, asked: u64) -> Result<Revision, Error> {
    let current = store.revision();
    match asked {
        0 => Ok(current),
        asked if asked > current.get() => {
            let cause = "invalid value for \"revision\"";
            Err(Error::of_request(Code::IndexNotANumber, cause))
        }
        asked if asked < store.oldest().get() => {
            let outdated = tree::Refusal::Outdated {
                oldest: store.oldest(),
                wanted: asked,
            };
            Err(Error::of_store(&outdated, current.get()))
        }
        asked => Ok(Revision::new(asked)),
    }
}

fn broken(why: &dyn std::fmt::Display) -> Error {
    Error::of_request(Code::RaftInternal, format!("quorate: {why}"))
}

/// A success at `index`.
pub(super) fn found(node: &Node, status: u16, index: Revision, body: Body) -> Response<Body> {
    let mut response = json_response(node, status, body);
    let raft = node.status();
    let headers = response.headers_mut();
    headers.insert(ETCD_INDEX, HeaderValue::from(index.get()));
    headers.insert(RAFT_INDEX, HeaderValue::from(raft.committed));
    headers.insert(RAFT_TERM, HeaderValue::from(raft.term));
    response
}

fn unavailable(why: &Unavailable) -> Error {
    Error::of_request(Code::RaftInternal, format!("etcdserver: {why}"))
}

/// This member's wall clock, by which a get counts ttls.
fn now() -> UnixMs {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    UnixMs(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
