//! Watches of both dialects, resumed after each crash from the last revision they showed.

use std::sync::{Arc, Mutex};

use anyhow::{Context, Result, bail, ensure};
use quorate_proto::etcdserverpb::watch_client::WatchClient;
use quorate_proto::etcdserverpb::{WatchCreateRequest, WatchRequest, watch_request};
use quorate_proto::mvccpb::event::EventType;
use serde_json::Value;

use super::ledger::{Change, Seen};
use super::writers::Shared;
use crate::http::Http;

/// Events that are kept across rounds.
pub(super) type Log = Arc<Mutex<Seen>>;

/// Where both dialects' keys lie, and where v3's range ends.
pub(super) const PREFIX: &str = "/kill/";
pub(super) const PREFIX_END: &str = "/kill0";

fn push(log: &Log, revision: i64, change: Change) -> Result<()> {
    log.lock()
        .expect("no task panics with a log")
        .push(revision, change)
}

fn last(log: &Log) -> i64 {
    log.lock().expect("no task panics with a log").last()
}

/// Notes v3's events until the server is gone. A revision's events come in one message, so the
/// watch is resumed behind the last one.
pub(super) async fn watch_v3(shared: Shared, log: Log) -> Result<()> {
    let from = last(&log).max(shared.ledger().checked()) + 1;
    let mut client = match super::channel(shared.port).await {
        Ok(channel) => WatchClient::new(channel).max_decoding_message_size(usize::MAX),
        Err(error) => return shared.excuse(error),
    };
    let create = WatchCreateRequest {
        key: PREFIX.into(),
        range_end: PREFIX_END.into(),
        start_revision: from,
        ..WatchCreateRequest::default()
    };
    let create = WatchRequest {
        request_union: Some(watch_request::RequestUnion::CreateRequest(create)),
    };
    // The stream of requests stays open, or the server might end the watch.
    let (requests, receiver) = tokio::sync::mpsc::channel(1);
    requests
        .send(create)
        .await
        .context("the receiver is here")?;
    let stream = tokio_stream::wrappers::ReceiverStream::new(receiver);
    let mut answers = match client.watch(stream).await {
        Ok(answers) => answers.into_inner(),
        Err(status) => return shared.excuse(status),
    };
    loop {
        let answer = match answers.message().await {
            Ok(Some(answer)) => answer,
            Ok(None) => return shared.excuse("v3's watch ended"),
            Err(status) => return shared.excuse(status),
        };
        ensure!(
            !answer.canceled,
            "v3's watch was cancelled: {}",
            answer.cancel_reason
        );
        for event in answer.events {
            let is_put = event.r#type() == EventType::Put;
            let kv = event.kv.context("an event without a key")?;
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            let value = is_put.then(|| text(&kv.value));
            push(
                &log,
                kv.mod_revision,
                Change {
                    key: text(&kv.key),
                    value,
                },
            )?;
        }
    }
}

/// Notes v2's events until the server is gone. A revision may have several, and the stream may end
/// between them, so the last revision is forgotten and told again.
pub(super) async fn watch_v2(shared: Shared, log: Log) -> Result<()> {
    let checked = shared.ledger().checked();
    let last = last(&log);
    let from = if last > checked { last } else { checked + 1 };
    log.lock().expect("no task panics with a log").forget(last);
    let path = format!("/v2/keys{PREFIX}?wait=true&stream=true&recursive=true&waitIndex={from}");
    let stream = match Http::connect(shared.port).await {
        Ok(http) => http.stream(&path).await,
        Err(error) => return shared.excuse(error),
    };
    let (head, mut lines) = match stream {
        Ok(stream) => stream,
        Err(error) => return shared.excuse(error),
    };
    ensure!(
        head.status == 200,
        "v2's watch from {from} got status {}",
        head.status
    );
    loop {
        let line = match lines.next().await {
            Ok(Some(line)) => line,
            Ok(None) => return shared.excuse("v2's stream ended"),
            Err(error) => return shared.excuse(error),
        };
        let (index, change) = v2_event(&serde_json::from_str(&line)?)?;
        push(&log, index, change)?;
    }
}

fn v2_event(event: &Value) -> Result<(i64, Change)> {
    let node = &event["node"];
    let key = node["key"]
        .as_str()
        .with_context(|| format!("no key in {event}"))?
        .to_owned();
    let index = node["modifiedIndex"]
        .as_i64()
        .with_context(|| format!("no index in {event}"))?;
    let value = match event["action"].as_str() {
        Some("delete" | "compareAndDelete") => None,
        Some("set" | "create" | "update" | "compareAndSwap") => {
            Some(node["value"].as_str().unwrap_or_default().to_owned())
        }
        _ => bail!("an event that nobody caused: {event}"),
    };
    Ok((index, Change { key, value }))
}
