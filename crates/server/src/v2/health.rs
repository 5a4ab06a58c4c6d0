//! `/health`, `/livez` and `/readyz`, as etcd 3.7 answers them.
//!
//! Source: spec v3-api.md §3.4.

use std::fmt::Write as _;
use std::time::Duration;

use axum::body::Body;
use axum::http::header::{HeaderValue, X_CONTENT_TYPE_OPTIONS};
use axum::http::{Method, Response, StatusCode};
use quorate_store::{AlarmKind, KeyRange, command};

use super::form::Form;
use super::{json, method_not_allowed, not_found, plain};
use crate::metrics::CHECKS;
use crate::node::Node;

/// How long a linearizable read may take.
const READ_TIMEOUT: Duration = Duration::from_secs(1);

/// Answers `/health`. `?serializable=true` asks about this member alone; `?exclude=` names an
/// alarm to ignore, and may come again.
pub async fn health(node: &Node, method: &Method, query: Option<&str>) -> Response<Body> {
    if method != Method::GET {
        return method_not_allowed("GET");
    }
    let form = form(query);
    let sickness = match alarm(node, &form) {
        Some(alarm) => Err(format!("ALARM {alarm}")),
        None => sickness(node, form.get("serializable") == Some(b"true")).await,
    };
    match sickness {
        Ok(()) => {
            node.metrics().health_successes.one();
            let mut response = plain(StatusCode::OK, "");
            *response.body_mut() = Body::from("{\"health\":\"true\",\"reason\":\"\"}");
            response
        }
        Err(reason) => {
            node.metrics().health_failures.one();
            let mut body = b"{\"health\":\"false\",\"reason\":".to_vec();
            json::string(&mut body, reason.as_bytes());
            body.extend_from_slice(b"}\n");
            let mut response = plain(StatusCode::SERVICE_UNAVAILABLE, "");
            *response.body_mut() = Body::from(body);
            response
        }
    }
}

fn form(query: Option<&str>) -> Form {
    let mut form = Form::default();
    // As in etcd, what cannot be read of the query does not count.
    let _ = form.add(query.unwrap_or_default().as_bytes());
    form
}

/// The first alarm that is raised and not excluded.
fn alarm(node: &Node, form: &Form) -> Option<&'static str> {
    let machine = node.machine();
    let mut names = machine
        .store()
        .alarms()
        .keys()
        .map(|alarm| match alarm.kind {
            AlarmKind::NoSpace => "NOSPACE",
            AlarmKind::Corrupt => "CORRUPT",
        });
    names.find(|name| {
        !form
            .all("exclude")
            .any(|excluded| excluded == name.as_bytes())
    })
}

/// Whether this member, or also its cluster, answers reads.
async fn sickness(node: &Node, is_local: bool) -> Result<(), String> {
    let read = if is_local {
        local_read(node)
    } else if node.status().leader.is_none() {
        return Err("RAFT NO LEADER".to_owned());
    } else {
        linearizable_read(node).await
    };
    read.map_err(|why| format!("RANGE ERROR:{why}"))
}

fn local_read(node: &Node) -> Result<(), String> {
    let mut first = command::Range::all(KeyRange::point(Default::default()));
    (first.keys_only, first.limit) = (true, 1);
    let machine = node.machine();
    let read = machine.store().range(&first, &node.values());
    read.map(drop).map_err(|why| why.to_string())
}

async fn linearizable_read(node: &Node) -> Result<(), String> {
    match tokio::time::timeout(READ_TIMEOUT, node.read_index()).await {
        Ok(Ok(())) => local_read(node),
        Ok(Err(why)) => Err(format!("etcdserver: {why}")),
        Err(_) => Err("context deadline exceeded".to_owned()),
    }
}

/// Answers `/livez`, `/readyz` and what is below them: `path` names a probe and perhaps one check.
///
/// `?exclude=` names a check to leave out, and may come again; `?verbose` shows each check.
pub async fn probe(
    node: &Node,
    method: &Method,
    path: &str,
    query: Option<&str>,
) -> Response<Body> {
    let path = path.trim_start_matches('/');
    let (probe, only) = path
        .split_once('/')
        .map_or((path, None), |(probe, check)| (probe, Some(check)));
    let is_known =
        |(kind, check): &(&str, &str)| *kind == probe && only.is_none_or(|one| one == *check);
    if !CHECKS.iter().any(is_known) {
        return not_found();
    }
    if method != Method::GET {
        return method_not_allowed("GET");
    }
    let form = form(query);
    let excludes = |check: &str| {
        only.is_none()
            && form
                .all("exclude")
                .any(|excluded| excluded == check.as_bytes())
    };
    let (mut report, mut is_well) = (String::new(), true);
    for (at, known) in CHECKS.iter().enumerate() {
        let (_, check) = *known;
        if !is_known(known) || excludes(check) {
            continue;
        }
        let found = run(node, check).await;
        node.metrics().probed(at, found.is_ok());
        is_well &= found.is_ok();
        let written = match found {
            Ok(()) => writeln!(report, "[+]{check} ok"),
            Err(why) => writeln!(report, "[-]{check} failed: {why}"),
        };
        written.expect("writing to a String does not fail");
    }
    let status = if is_well {
        if form.get("verbose").is_none() {
            report.clear();
        }
        report.push_str("ok\n");
        StatusCode::OK
    } else {
        report.push('\n');
        StatusCode::SERVICE_UNAVAILABLE
    };
    let mut response = plain(status, "");
    let nosniff = HeaderValue::from_static("nosniff");
    response
        .headers_mut()
        .insert(X_CONTENT_TYPE_OPTIONS, nosniff);
    *response.body_mut() = Body::from(report);
    response
}

/// Makes one check.
async fn run(node: &Node, check: &str) -> Result<(), String> {
    match check {
        "data_corruption" => match node.machine().store().is_raised(AlarmKind::Corrupt) {
            true => Err("alarm activated: CORRUPT".to_owned()),
            false => Ok(()),
        },
        "serializable_read" => local_read(node),
        "linearizable_read" => linearizable_read(node).await,
        "non_learner" => match node.is_learner() {
            true => Err("not supported for learner".to_owned()),
            false => Ok(()),
        },
        other => unreachable!("{other} is none of the checks"),
    }
}
