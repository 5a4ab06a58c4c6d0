//! Calls in the v2 dialect, over plain HTTP.
//!
//! Source: spec/v2-api.md §1.4 to §1.8 (requests), §1.13 (timeouts), §1.15 (error codes).

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::clients::PATIENCE;
use super::history::{Answer, Guard, Op, Outcome, Request, Shown, Txn};
use crate::http::{self, Http};

/// One client of one member.
pub(super) struct V2 {
    port: u16,
    connection: Option<Http>,
}

impl V2 {
    pub(super) fn new(port: u16) -> Self {
        Self {
            port,
            connection: None,
        }
    }

    /// Sends a request on keys and reads its answer.
    pub(super) async fn call(&mut self, request: &Request) -> Result<Outcome> {
        let Request::Txn { txn, is_local } = request else {
            bail!("v2 has no {request:?}");
        };
        let (method, path, form) = encode(txn, *is_local)?;
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => match tokio::time::timeout(PATIENCE, Http::connect(self.port)).await {
                Ok(Ok(connection)) => connection,
                Ok(Err(error)) => return Ok(Outcome::NotDone(format!("{error:#}"))),
                Err(error) => return Ok(Outcome::NotDone(error.to_string())),
            },
        };
        let answer = connection.request(method, &path, &form);
        match tokio::time::timeout(PATIENCE, answer).await {
            Ok(Ok(answer)) => {
                self.connection = Some(connection);
                decode(txn, &answer).with_context(|| format!("{method} {path} {form}: {answer:?}"))
            }
            Ok(Err(error)) => Ok(Outcome::Unknown(format!("{error:#}"))),
            Err(error) => Ok(Outcome::Unknown(error.to_string())),
        }
    }
}

fn encode(txn: &Txn, is_local: bool) -> Result<(&'static str, String, String)> {
    let [op] = &txn.then[..] else {
        bail!("v2 has one operation a request, not {txn:?}");
    };
    let mut form = Vec::new();
    for guard in &txn.guards {
        form.push(match (guard, op) {
            (Guard::Exists(_), Op::Delete { .. }) => continue,
            (Guard::Exists(_), _) => "prevExist=true".into(),
            (Guard::Value(_, None), _) => "prevExist=false".into(),
            (Guard::Value(_, Some(value)), _) => format!("prevValue={value}"),
            (Guard::Modified(_, index), _) => format!("prevIndex={index}"),
        });
    }
    let quorum = if is_local { "" } else { "quorum=true" };
    Ok(match op {
        Op::Put { key, value, .. } => {
            form.push(format!("value={value}"));
            ("PUT", format!("/v2/keys{key}"), form.join("&"))
        }
        Op::Delete { key } => ("DELETE", format!("/v2/keys{key}"), form.join("&")),
        Op::Range { from, to, .. } if to.ends_with('\0') => {
            ("GET", format!("/v2/keys{from}?{quorum}"), String::new())
        }
        Op::Range { from, .. } => {
            let directory = from.trim_end_matches('/');
            let path = format!("/v2/keys{directory}?recursive=true&{quorum}");
            ("GET", path, String::new())
        }
    })
}

fn decode(txn: &Txn, answer: &http::Answer) -> Result<Outcome> {
    let body: Value = serde_json::from_str(&answer.body).unwrap_or_default();
    let is_read = matches!(txn.then[..], [Op::Range { .. }]);
    if matches!(answer.status, 200 | 201) {
        let shown = if is_read {
            &body["node"]
        } else {
            &body["prevNode"]
        };
        let mut nodes = Vec::new();
        gather(shown, &mut nodes)?;
        nodes.sort_by(|(a, _), (b, _)| a.cmp(b));
        let revision = if is_read {
            answer.index
        } else {
            body["node"]["modifiedIndex"].as_i64().context("no index")?
        };
        return Ok(Outcome::Ok(Answer {
            revision,
            succeeded: true,
            results: vec![Some(nodes)],
        }));
    }
    let index = body["index"].as_i64().unwrap_or(0);
    let cause = body["cause"].as_str().unwrap_or_default();
    match body["errorCode"].as_i64() {
        Some(100) if is_read => Ok(Outcome::Ok(Answer {
            revision: index,
            succeeded: true,
            results: vec![Some(Vec::new())],
        })),
        // Not there, another value, there already.
        Some(100 | 101 | 105) => Ok(Outcome::Ok(Answer {
            revision: index,
            succeeded: false,
            results: Vec::new(),
        })),
        Some(300)
            if matches!(
                cause,
                "etcdserver: no leader" | "etcdserver: too many requests"
            ) =>
        {
            Ok(Outcome::NotDone(cause.to_owned()))
        }
        Some(300) => Ok(Outcome::Unknown(cause.to_owned())),
        _ => bail!("no answer of a v2 member"),
    }
}

/// The files of a node.
fn gather(node: &Value, into: &mut Vec<(String, Shown)>) -> Result<()> {
    if node.is_null() {
        return Ok(());
    }
    if node["dir"] == true {
        for node in node["nodes"].as_array().into_iter().flatten() {
            gather(node, into)?;
        }
        return Ok(());
    }
    into.push(file(node)?);
    Ok(())
}

/// A file as an answer or an event shows it.
pub(super) fn file(node: &Value) -> Result<(String, Shown)> {
    let key = node["key"].as_str().context("a node without a key")?;
    let index = |name: &str| {
        let index = node[name].as_i64();
        index.with_context(|| format!("no {name} in {node}"))
    };
    let shown = Shown {
        value: node["value"].as_str().unwrap_or_default().to_owned(),
        created: index("createdIndex")?,
        modified: index("modifiedIndex")?,
        version: None,
        lease: None,
    };
    Ok((key.to_owned(), shown))
}
