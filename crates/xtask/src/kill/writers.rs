//! The load: writers of both dialects, each with keys of its own.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use anyhow::{Context, Result, bail, ensure};
use fastrand::Rng;
use quorate_proto::etcdserverpb::kv_client::KvClient;
use quorate_proto::etcdserverpb::{Compare, DeleteRangeRequest, PutRequest, RequestOp, TxnRequest};
use quorate_proto::etcdserverpb::{compare, request_op};
use serde_json::Value;
use tonic::transport::Channel;
use tonic::{Code, Status};

use super::ledger::{Change, Ledger, Write};
use crate::http::{Answer, Http};

/// Keys of one writer, of one sort.
const KEYS: usize = 6;
/// Bytes of the longest values.
const LONGEST: usize = 192 << 10;

/// What the tasks of one round share.
#[derive(Clone)]
pub(super) struct Shared {
    ledger: Arc<Mutex<Ledger>>,
    killed: Arc<AtomicBool>,
    /// The client port.
    pub(super) port: u16,
}

impl Shared {
    pub(super) fn new(ledger: Arc<Mutex<Ledger>>, port: u16) -> Self {
        Self {
            ledger,
            killed: Arc::default(),
            port,
        }
    }

    /// Says that answers may fail from now on.
    pub(super) fn killing(&self) {
        self.killed.store(true, Ordering::SeqCst);
    }

    /// Turns the end of a connection into an error unless the server was killed.
    pub(super) fn excuse(&self, what: impl std::fmt::Display) -> Result<()> {
        ensure!(
            self.killed.load(Ordering::SeqCst),
            "before it was killed: {what}"
        );
        Ok(())
    }

    pub(super) fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().expect("no task panics with the ledger")
    }

    fn value(&self, key: &str) -> Option<String> {
        self.ledger().get(key).map(|held| held.value.clone())
    }

    fn settle(&self, write: Write, before: i64, answer: Result<i64, Lost>) -> Result<bool> {
        match answer {
            Ok(revision) => {
                self.ledger().answer(write, revision, before)?;
                Ok(true)
            }
            Err(lost) => {
                self.ledger().lose(write);
                self.excuse(lost.0)?;
                Ok(false)
            }
        }
    }
}

/// A request that got no answer: it may have been done.
struct Lost(String);

/// Makes v3 writes until the server is gone.
pub(super) async fn write_v3(shared: Shared, name: String, mut rng: Rng) -> Result<()> {
    let mut client = match super::channel(shared.port).await {
        Ok(channel) => KvClient::new(channel),
        Err(error) => return shared.excuse(error),
    };
    for count in 0_u64.. {
        let value = value(&name, count, &mut rng);
        let key = |at: usize| format!("/kill/{name}/{at}");
        let put = |at: usize| Change {
            key: key(at),
            value: Some(value.clone()),
        };
        let pick = rng.usize(..KEYS);
        let present = shared.value(&key(pick));
        let before = shared.ledger().highest();
        let (write, answer) = match (rng.u8(..4), present) {
            (0, Some(_)) => {
                let write = Write::of_keys(vec![Change {
                    key: key(pick),
                    value: None,
                }]);
                (write, delete(&mut client, &key(pick)).await?)
            }
            (1, present) => {
                let pair = [put(pick), put((pick + 1) % KEYS)];
                let answer = txn(&mut client, &key(pick), present, &pair).await?;
                (Write::of_keys(pair.to_vec()), answer)
            }
            _ => (
                Write::of_keys(vec![put(pick)]),
                self::put(&mut client, &put(pick)).await?,
            ),
        };
        if !shared.settle(write, before, answer)? {
            break;
        }
    }
    Ok(())
}

/// A value that no other write has. Some are long, so that a test of seconds fills segments and
/// brings checkpoints.
fn value(name: &str, count: u64, rng: &mut Rng) -> String {
    let padding = if rng.u8(..4) == 0 {
        rng.usize(..LONGEST)
    } else {
        0
    };
    format!("{name}-{:x}-{count}{}", rng.u32(..), "x".repeat(padding))
}

/// Tells a server that is gone from one that refuses.
fn lost<T>(result: Result<T, Status>) -> Result<Result<T, Lost>> {
    match result {
        Ok(answer) => Ok(Ok(answer)),
        Err(status)
            if matches!(
                status.code(),
                Code::Unavailable | Code::Unknown | Code::Cancelled
            ) =>
        {
            Ok(Err(Lost(status.to_string())))
        }
        // A connection that ends within an answer.
        Err(status) if status.code() == Code::Internal && status.message().contains("h2") => {
            Ok(Err(Lost(status.to_string())))
        }
        Err(status) => bail!("a write was refused: {status}"),
    }
}

async fn put(client: &mut KvClient<Channel>, change: &Change) -> Result<Result<i64, Lost>> {
    let answer = client.put(put_request(change)).await;
    let answer = lost(answer)?;
    Ok(answer.map(|answer| {
        answer
            .into_inner()
            .header
            .map_or(0, |header| header.revision)
    }))
}

fn put_request(change: &Change) -> PutRequest {
    let value = change.value.clone().unwrap_or_default();
    PutRequest {
        key: change.key.clone().into(),
        value: value.into(),
        ..PutRequest::default()
    }
}

async fn delete(client: &mut KvClient<Channel>, key: &str) -> Result<Result<i64, Lost>> {
    let request = DeleteRangeRequest {
        key: key.to_owned().into(),
        ..DeleteRangeRequest::default()
    };
    let answer = match lost(client.delete_range(request).await)? {
        Ok(answer) => answer.into_inner(),
        Err(lost) => return Ok(Err(lost)),
    };
    ensure!(
        answer.deleted == 1,
        "{key} was there, but its delete removed {}",
        answer.deleted
    );
    Ok(Ok(answer.header.map_or(0, |header| header.revision)))
}

/// Writes two keys if the first still holds what its writer knows.
async fn txn(
    client: &mut KvClient<Channel>,
    key: &str,
    present: Option<String>,
    pair: &[Change; 2],
) -> Result<Result<i64, Lost>> {
    let (target, union) = match present {
        Some(value) => (
            compare::CompareTarget::Value,
            compare::TargetUnion::Value(value.into()),
        ),
        None => (
            compare::CompareTarget::Version,
            compare::TargetUnion::Version(0),
        ),
    };
    let compare = Compare {
        key: key.to_owned().into(),
        target: target.into(),
        target_union: Some(union),
        ..Compare::default()
    };
    let operation = |change| RequestOp {
        request: Some(request_op::Request::RequestPut(put_request(change))),
    };
    let success = pair.iter().map(operation).collect();
    let request = TxnRequest {
        compare: vec![compare],
        success,
        failure: Vec::new(),
    };
    let answer = match lost(client.txn(request).await)? {
        Ok(answer) => answer.into_inner(),
        Err(lost) => return Ok(Err(lost)),
    };
    ensure!(
        answer.succeeded,
        "{key} does not hold what its only writer wrote"
    );
    Ok(Ok(answer.header.map_or(0, |header| header.revision)))
}

/// Makes v2 writes until the server is gone.
pub(super) async fn write_v2(shared: Shared, name: String, mut rng: Rng) -> Result<()> {
    let mut http = match Http::connect(shared.port).await {
        Ok(http) => http,
        Err(error) => return shared.excuse(error),
    };
    for count in 0_u64.. {
        let value = value(&name, count, &mut rng);
        let (write, method, form, flags) = v2_request(&shared, &name, value, &mut rng);
        let key = &write.v2[0].key;
        let before = shared.ledger().highest();
        let answer = http
            .request(method, &format!("/v2/keys{key}?{flags}"), &form)
            .await;
        let answer = match answer {
            Ok(answer) => {
                Ok(v2_revision(&answer).with_context(|| format!("{method} {key} {form}"))?)
            }
            Err(error) => Err(Lost(format!("{error:#}"))),
        };
        if !shared.settle(write, before, answer)? {
            break;
        }
    }
    Ok(())
}

/// Draws a v2 request: the write, its method, form and query.
fn v2_request(
    shared: &Shared,
    name: &str,
    value: String,
    rng: &mut Rng,
) -> (Write, &'static str, String, &'static str) {
    let key = format!("/kill/{name}/{}", rng.usize(..KEYS));
    let put = |key: &str| {
        Write::of_keys(vec![Change {
            key: key.into(),
            value: Some(value.clone()),
        }])
    };
    let gone = |key: &str| {
        Write::of_keys(vec![Change {
            key: key.into(),
            value: None,
        }])
    };
    match (rng.u8(..6), shared.value(&key)) {
        (0, None) => (
            put(&key),
            "PUT",
            format!("value={value}&prevExist=false"),
            "",
        ),
        (0, Some(old)) => (
            put(&key),
            "PUT",
            format!("value={value}&prevValue={old}"),
            "",
        ),
        (1, Some(_)) => (gone(&key), "DELETE", String::new(), ""),
        (2, _) => directory(shared, &format!("/kill/dirs-{name}/{}", rng.usize(..KEYS))),
        (3, _) => tree(shared, &format!("/kill/tree-{name}"), &value, rng),
        _ => (put(&key), "PUT", format!("value={value}"), ""),
    }
}

/// Makes a directory, or removes it if it is there.
fn directory(shared: &Shared, key: &str) -> (Write, &'static str, String, &'static str) {
    let there = shared.value(key).is_some();
    let value = (!there).then(String::new);
    let write = Write::of_dir(Change {
        key: key.into(),
        value,
    });
    if there {
        (write, "DELETE", String::new(), "dir=true")
    } else {
        (write, "PUT", "dir=true&prevExist=false".into(), "")
    }
}

/// Sets a key in a directory, or removes the directory with all its keys.
fn tree(
    shared: &Shared,
    dir: &str,
    value: &str,
    rng: &mut Rng,
) -> (Write, &'static str, String, &'static str) {
    let keys: Vec<_> = (0..3).map(|at| format!("{dir}/{at}")).collect();
    let present: Vec<_> = keys
        .iter()
        .filter(|key| shared.value(key).is_some())
        .collect();
    if present.len() < 2 || rng.bool() {
        let key = rng.choice(&keys).expect("three keys").clone();
        let write = Write::of_keys(vec![Change {
            key,
            value: Some(value.to_owned()),
        }]);
        return (write, "PUT", format!("value={value}"), "");
    }
    let keys = present
        .into_iter()
        .map(|key| Change {
            key: key.clone(),
            value: None,
        })
        .collect();
    let v2 = vec![Change {
        key: dir.into(),
        value: None,
    }];
    (
        Write {
            keys,
            dir: None,
            v2,
        },
        "DELETE",
        String::new(),
        "recursive=true",
    )
}

fn v2_revision(answer: &Answer) -> Result<i64> {
    ensure!(
        matches!(answer.status, 200 | 201),
        "{} {}",
        answer.status,
        answer.body
    );
    let body: Value = serde_json::from_str(&answer.body)?;
    body["node"]["modifiedIndex"]
        .as_i64()
        .with_context(|| format!("no modifiedIndex in {body}"))
}
