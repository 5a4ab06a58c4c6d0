//! Replays answers that were recorded from etcd 3.7.1's JSON gateway, over gRPC.

use std::collections::BTreeMap;

use prost_reflect::{DynamicMessage, MethodDescriptor, SerializeOptions};
use serde_json::{Value, json};
use tonic::Status;

use crate::member::{Member, block_on};
use crate::wire::{Wire, method};

/// What the gateway calls the methods that are built.
const METHODS: &[(&str, &str)] = &[
    ("/v3/kv/range", "KV/Range"),
    ("/v3/kv/put", "KV/Put"),
    ("/v3/kv/deleterange", "KV/DeleteRange"),
    ("/v3/kv/txn", "KV/Txn"),
    ("/v3/kv/compaction", "KV/Compact"),
    ("/v3/watch", "Watch/Watch"),
    ("/v3/lease/grant", "Lease/LeaseGrant"),
    ("/v3/lease/revoke", "Lease/LeaseRevoke"),
    ("/v3/kv/lease/revoke", "Lease/LeaseRevoke"),
    ("/v3/lease/keepalive", "Lease/LeaseKeepAlive"),
    ("/v3/lease/timetolive", "Lease/LeaseTimeToLive"),
    ("/v3/kv/lease/timetolive", "Lease/LeaseTimeToLive"),
    ("/v3/lease/leases", "Lease/LeaseLeases"),
    ("/v3/kv/lease/leases", "Lease/LeaseLeases"),
];
const REVISIONS: &[&str] = &[
    "revision",
    "create_revision",
    "mod_revision",
    "compact_revision",
];

/// One step names an order that only JSON can name.
#[test]
fn range_answers_as_recorded() {
    assert_eq!(block_on(replay("kv_range")), 50);
}

#[test]
fn txn_answers_as_recorded() {
    assert_eq!(block_on(replay("txn")), 77);
}

/// Three steps ask for HashKV, which has tests of its own.
#[test]
fn compaction_answers_as_recorded() {
    assert_eq!(block_on(replay("compaction")), 27);
}

#[test]
fn lease_answers_as_recorded() {
    assert_eq!(block_on(replay("lease")), 46);
}

/// Plays a scenario on a fresh member; how many steps it had for methods that are built.
async fn replay(name: &str) -> usize {
    let file = include_str!("../../../../testdata/conformance/v3.json");
    let file: Value = serde_json::from_str(file).expect("recorded scenarios");
    let scenarios = file["scenarios"].as_array().expect("scenarios");
    let scenario = scenarios
        .iter()
        .find(|each| each["name"] == name)
        .expect("the scenario");
    let member = Member::start().await;
    let mut replay = Replay {
        wire: Wire(member.channel().await),
        captured: BTreeMap::new(),
        wrong: Vec::new(),
    };
    let mut played = 0;
    for step in scenario["steps"].as_array().expect("steps") {
        let path = step["path"].as_str().expect("a path");
        if let Some((_, name)) = METHODS.iter().find(|(gateway, _)| *gateway == path) {
            played += usize::from(replay.step(step, &method(name)).await);
        }
    }
    member.stop().await;
    assert!(replay.wrong.is_empty(), "{}", replay.wrong.join("\n"));
    played
}

struct Replay {
    wire: Wire,
    captured: BTreeMap<String, String>,
    wrong: Vec<String>,
}

impl Replay {
    /// Plays a step; false if the request is one that only JSON can say.
    async fn step(&mut self, step: &Value, method: &MethodDescriptor) -> bool {
        if let Some(seconds) = step["sleep"].as_f64() {
            tokio::time::sleep(std::time::Duration::from_secs_f64(seconds)).await;
        }
        let body = match step["raw"].as_str() {
            Some(raw) => serde_json::from_str(raw).expect("a JSON request"),
            None => step["body"].clone(),
        };
        let request = self.request(body);
        let Ok(message) = DynamicMessage::deserialize(method.input(), &request) else {
            return false;
        };
        let (expected, mut printed) = if method.is_server_streaming() {
            let wanted = step["messages"].as_array().expect("messages");
            (
                Value::from(wanted.clone()),
                self.stream(method, &message, wanted.len()).await,
            )
        } else {
            let answer = self.wire.unary(method, &message, &[]).await;
            (step["json"].clone(), unary(answer))
        };
        for (name, path) in step["capture"].as_object().into_iter().flatten() {
            let value = path.as_str().map_or(&Value::Null, |path| &printed[path]);
            self.captured
                .insert(name.clone(), value.as_str().unwrap_or("missing").to_owned());
        }
        self.normalize(&mut printed, "");
        for path in step["ignore"].as_array().into_iter().flatten() {
            let pointer = format!("/{}", path.as_str().expect("a path").replace('.', "/"));
            if let Some(ignored) = printed.pointer_mut(&pointer) {
                *ignored = json!("{{any}}");
            }
        }
        if printed != expected {
            self.wrong.push(format!(
                "step {} {}\n  recorded: {expected}\n  answered: {printed}",
                step["n"], step["note"]
            ));
        }
        true
    }

    /// A recorded request with its placeholders filled: revisions count from 1.
    fn request(&self, value: Value) -> Value {
        match value {
            Value::String(text) => Value::String(self.fill(&text)),
            Value::Array(items) => items.into_iter().map(|item| self.request(item)).collect(),
            Value::Object(fields) => fields
                .into_iter()
                .map(|(name, value)| (name, self.request(value)))
                .collect(),
            other => other,
        }
    }

    fn fill(&self, text: &str) -> String {
        let Some(name) = text
            .strip_prefix("{{")
            .and_then(|rest| rest.strip_suffix("}}"))
        else {
            return text.to_owned();
        };
        if let Some(offset) = name.strip_prefix('R') {
            return (1 + offset.parse::<i64>().expect("a number")).to_string();
        }
        if let Some(count) = name.strip_prefix("b64zeros:") {
            let count: usize = count.parse().expect("a count");
            let padding = (3 - count % 3) % 3;
            let digits = (count + padding) / 3 * 4 - padding;
            return "A".repeat(digits) + &"=".repeat(padding);
        }
        self.captured[name].clone()
    }

    async fn stream(
        &self,
        method: &MethodDescriptor,
        request: &DynamicMessage,
        wanted: usize,
    ) -> Value {
        let mut stream = self.wire.open(method).await;
        stream.send(request).await;
        let mut messages = Vec::new();
        while messages.len() < wanted {
            match stream.next().await {
                Ok(Some(message)) => messages.push(json!({ "result": to_json(&message) })),
                Ok(None) => break,
                Err(status) => messages.push(json!({ "error": status.message() })),
            }
        }
        Value::from(messages)
    }

    /// Puts the recording's placeholders where an answer differs from run to run.
    fn normalize(&self, value: &mut Value, name: &str) {
        match value {
            Value::Object(fields) => {
                fields
                    .iter_mut()
                    .for_each(|(name, value)| self.normalize(value, name));
            }
            Value::Array(items) => items.iter_mut().for_each(|item| self.normalize(item, name)),
            Value::String(text) => {
                let captured = self
                    .captured
                    .iter()
                    .find(|(_, id)| *id == text && text.len() > 3);
                if let Some((name, _)) = captured {
                    *text = format!("{{{{{name}}}}}");
                } else if ["cluster_id", "member_id", "raft_term"].contains(&name) {
                    *text = "{{any}}".to_owned();
                } else if REVISIONS.contains(&name) {
                    let offset = text.parse::<i64>().expect("a revision") - 1;
                    *text = format!("{{{{R{offset:+}}}}}");
                }
            }
            _ => {}
        }
    }
}

fn unary(answer: Result<DynamicMessage, Status>) -> Value {
    match answer {
        Ok(message) => to_json(&message),
        Err(status) => json!({ "code": status.code() as i32, "message": status.message() }),
    }
}

fn to_json(message: &DynamicMessage) -> Value {
    let options = SerializeOptions::new().use_proto_field_name(true);
    message
        .serialize_with_options(serde_json::value::Serializer, &options)
        .expect("every message is JSON")
}
