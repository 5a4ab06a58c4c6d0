//! The client of v3: commands proposed to the node, reads and events from its store.

use bytes::Bytes;
use quorate::node::Node;
use quorate_store::command::{Blob, Body, DeleteRange, Op, Put, Range, Txn};
use quorate_store::{Class, KeyRange, KeyValue, Outcome, Reply, Revision, Store};

use super::session::bytes;

pub(super) async fn answer(node: &Node, request: &str) -> String {
    let (verb, rest) = request.split_once(' ').unwrap_or((request, ""));
    let number = |word: &str| word.parse::<i64>().expect("a number");
    let body = match verb {
        "get" => return get(node, rest),
        "revision" => return format!("revision {}", node.machine().store().revision()),
        "events" => return events(node, number(rest)),
        "put" => Body::Put(put(rest)),
        "del" => Body::DeleteRange(delete(rest)),
        "txn" => Body::Txn(Box::new(txn(rest))),
        "compact" => Body::Compact {
            revision: number(rest),
        },
        "grant" => {
            let (id, ttl) = rest.split_once(' ').expect("an id and a ttl");
            Body::LeaseGrant {
                id: number(id),
                ttl_s: number(ttl),
            }
        }
        "revoke" => Body::LeaseRevoke { id: number(rest) },
        other => panic!("no v3 request {other}"),
    };
    outcome(&node.propose(body).await.expect("an answer"))
}

fn put(request: &str) -> Put {
    let words: Vec<&str> = request.split(' ').collect();
    let has = |flag: &str| words.contains(&flag);
    let lease = words.iter().find_map(|word| word.strip_prefix("lease="));
    let value = if has("ignore_value") { "" } else { words[1] };
    Put {
        key: bytes(words[0]).into(),
        value: Blob::new(bytes(value).into()),
        lease: lease.map_or(0, |id| id.parse().expect("a lease")),
        prev_kv: has("prev"),
        ignore_value: has("ignore_value"),
        ignore_lease: has("ignore_lease"),
    }
}

fn delete(request: &str) -> DeleteRange {
    DeleteRange {
        range: range(request),
        prev_kv: false,
    }
}

fn range(request: &str) -> KeyRange {
    let (key, end) = request.split_once(' ').unwrap_or((request, ""));
    KeyRange::from_wire(bytes(key).into(), bytes(end).into()).expect("a key")
}

fn txn(request: &str) -> Txn {
    let operation = |text: &str| match text.trim().split_once(' ').expect("an operation") {
        ("put", rest) => Op::Put(put(rest)),
        ("del", rest) => Op::DeleteRange(delete(rest)),
        (other, _) => panic!("no operation {other}"),
    };
    Txn {
        success: request.split(';').map(operation).collect(),
        ..Txn::default()
    }
}

fn get(node: &Node, request: &str) -> String {
    let (keys, revision) = request.split_once(" rev=").unwrap_or((request, "0"));
    let revision = revision.parse().expect("a revision");
    let asked = Range {
        revision,
        ..Range::all(range(keys))
    };
    let machine = node.machine();
    let found = match machine.store().range_reply(&asked, &node.values()) {
        Ok(found) => found,
        Err(error) => return format!("Error: {error}"),
    };
    let mut printed = format!("revision {}", machine.store().revision());
    if found.kvs.is_empty() {
        printed += ", no keys";
    }
    for kv in &found.kvs {
        printed += &format!("\n  {}", shown(kv));
    }
    printed
}

fn shown(kv: &KeyValue) -> String {
    let lease = if kv.lease == 0 {
        String::new()
    } else {
        format!("  lease {}", kv.lease)
    };
    format!(
        "{} = {}  create {}  mod {}  version {}{lease}",
        kv.key.escape_ascii(),
        kv.value.escape_ascii(),
        kv.create,
        kv.modified,
        kv.version
    )
}

fn outcome(outcome: &Outcome) -> String {
    let done = match &outcome.result {
        Err(refusal) => return format!("Error: {refusal}"),
        Ok(Reply::Put { prev }) => match prev {
            None => "put".to_owned(),
            Some(kv) => format!("put over {}", shown(kv)),
        },
        Ok(Reply::Deleted { count, .. }) => format!("deleted {count}"),
        Ok(Reply::Txn(_)) => "txn".to_owned(),
        Ok(Reply::Compacted) => "compacted".to_owned(),
        Ok(Reply::LeaseGranted { .. }) => "granted".to_owned(),
        Ok(Reply::LeaseRevoked) => "revoked".to_owned(),
        Ok(other) => panic!("unexpected {other:?}"),
    };
    format!("{done}, revision {}", outcome.revision)
}

/// What a v3 watch of all keys with `prev_kv` is told from a revision on.
fn events(node: &Node, from: i64) -> String {
    let from = Revision::from_wire(from).expect("a revision");
    let (machine, values) = (node.machine(), node.values());
    let store = machine.store();
    let mut printed = format!("revision {}", store.revision());
    for change in store
        .changes(from)
        .filter(|change| change.class == Class::File)
    {
        let version = store
            .file_written_at(&change.key, change.revision)
            .expect("its version");
        let kv = Store::key_value(&change.key, version, &values).expect("its value");
        let prev = store.file_at(&change.key, change.revision.previous());
        let prev = prev.map(|version| {
            let read = version.value.read(&values).expect("its value");
            Bytes::from(read.into_owned())
        });
        let kind = if version.count == 0 {
            format!("DELETE {}", change.key.escape_ascii())
        } else {
            format!("PUT {}", shown(&kv))
        };
        let prev = prev.map(|value| format!("  prev {}", value.escape_ascii()));
        printed += &format!("\n  {}.{} {kind}", change.revision, change.sub);
        printed += &prev.unwrap_or_default();
    }
    printed
}
