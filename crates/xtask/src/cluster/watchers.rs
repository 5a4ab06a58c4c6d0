//! Watches of both dialects on all keys of the test, resumed on another member when they break.
//!
//! v3's messages hold whole revisions, so a watch is resumed behind the last one. v2's lines hold an
//! event each and a stream may end between two of one revision, so its last revision is told again.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use fastrand::Rng;
use quorate_proto::etcdserverpb::watch_client::WatchClient;
use quorate_proto::etcdserverpb::{WatchCreateRequest, WatchRequest, watch_request};
use quorate_proto::mvccpb::event::EventType;
use serde_json::Value;
use tokio::sync::watch as signal;

use super::clients::{PREFIX, PREFIX_END, Shared};
use super::history::{Change, Event, Member, Watch};
use super::{v2, v3};
use crate::http::Http;

/// How long a member may take to accept a watch before another one is asked.
const ACCEPTED: Duration = Duration::from_secs(2);
/// The longest life of a stream that is left without need.
const LONGEST_MS: u64 = 8_000;

/// Which dialect a watcher speaks.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Dialect {
    V2,
    V3,
}

/// Whether the last write has been made.
pub(super) type End = signal::Receiver<bool>;

/// The key of the last write: a watcher that has seen it has seen all.
pub(super) const LAST: &str = "/chaos/last";

/// One watcher, wherever its stream is.
pub(super) struct Watcher {
    pub(super) dialect: Dialect,
    pub(super) shared: Arc<Shared>,
    pub(super) member: Member,
    /// Stays with one member, whatever happens: its log is wanted.
    pub(super) is_bound: bool,
    pub(super) end: End,
    pub(super) rng: Rng,
    pub(super) watch: Watch,
    message: u64,
}

impl Watcher {
    pub(super) fn new(
        dialect: Dialect,
        name: String,
        shared: &Arc<Shared>,
        member: Member,
        end: End,
        rng: Rng,
    ) -> Self {
        let watch = Watch {
            name,
            from: shared.base_revision + 1,
            events: Vec::new(),
            is_whole: dialect == Dialect::V3,
        };
        Self {
            dialect,
            shared: Arc::clone(shared),
            member,
            is_bound: false,
            end,
            rng,
            watch,
            message: 0,
        }
    }

    /// Watches until the last write has come, or `patience` after it was made.
    pub(super) async fn run(mut self, patience: Duration) -> Result<Watch> {
        let mut end = self.end.clone();
        let too_late = async move {
            // Without a sender the round has failed, and nobody asks.
            let _ = end.wait_for(|is_made| *is_made).await;
            tokio::time::sleep(patience).await;
        };
        tokio::select! {
            done = self.follow() => done?,
            () = too_late => {}
        }
        Ok(self.watch)
    }

    async fn follow(&mut self) -> Result<()> {
        while !self.is_done() {
            let life = Duration::from_millis(self.rng.u64(200..LONGEST_MS));
            let stream = async {
                match self.dialect {
                    Dialect::V3 => self.follow_v3().await,
                    Dialect::V2 => self.follow_v2().await,
                }
            };
            // A stream that took too long is left; one that broke has said so.
            if let Ok(ended) = tokio::time::timeout(life, stream).await {
                ended.with_context(|| format!("{} on member {}", self.watch.name, self.member))?;
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            if !self.is_bound {
                self.member = self.rng.usize(..self.shared.faces.len());
            }
        }
        Ok(())
    }

    fn last(&self) -> i64 {
        let last = self.watch.events.last();
        last.map_or(self.watch.from - 1, |event| event.revision)
    }

    fn is_done(&self) -> bool {
        let last = self.watch.events.last();
        last.is_some_and(|event| event.key == LAST)
    }

    fn push(&mut self, revision: i64, key: String, change: Change) {
        self.watch.events.push(Event {
            at: self.shared.now(),
            message: self.message,
            revision,
            key,
            change,
        });
    }

    /// Follows one stream until it breaks or all has come.
    async fn follow_v3(&mut self) -> Result<()> {
        let port = self.shared.faces[self.member].client_port;
        let mut client = WatchClient::new(v3::channel(port)?).max_decoding_message_size(usize::MAX);
        let create = WatchCreateRequest {
            key: PREFIX.into(),
            range_end: PREFIX_END.into(),
            start_revision: self.last() + 1,
            ..WatchCreateRequest::default()
        };
        let create = WatchRequest {
            request_union: Some(watch_request::RequestUnion::CreateRequest(create)),
        };
        // The stream of requests stays open, or the server might end the watch.
        let (requests, receiver) = tokio::sync::mpsc::channel(1);
        let sent = requests.send(create).await;
        sent.context("the receiver is here")?;
        let stream = tokio_stream::wrappers::ReceiverStream::new(receiver);
        let Ok(Ok(answers)) = tokio::time::timeout(ACCEPTED, client.watch(stream)).await else {
            return Ok(());
        };
        let mut answers = answers.into_inner();
        let Ok(Ok(Some(created))) = tokio::time::timeout(ACCEPTED, answers.message()).await else {
            return Ok(());
        };
        ensure!(created.created, "not created: {created:?}");
        while !self.is_done() {
            let Ok(Some(answer)) = answers.message().await else {
                return Ok(());
            };
            ensure!(!answer.canceled, "cancelled: {}", answer.cancel_reason);
            self.message += 1;
            for event in answer.events {
                let is_put = event.r#type() == EventType::Put;
                let kv = event.kv.context("an event without a key")?;
                let (key, shown) = v3::shown(&kv);
                let change = if is_put {
                    Change::Put(shown)
                } else {
                    Change::Delete
                };
                self.push(kv.mod_revision, key, change);
            }
        }
        Ok(())
    }

    /// Follows one stream until it breaks or all has come.
    async fn follow_v2(&mut self) -> Result<()> {
        let from = self.last().max(self.watch.from);
        let directory = PREFIX.trim_end_matches('/');
        let path =
            format!("/v2/keys{directory}?wait=true&stream=true&recursive=true&waitIndex={from}");
        let port = self.shared.faces[self.member].client_port;
        let stream = async { Http::connect(port).await?.stream(&path).await };
        let (head, mut lines) = match tokio::time::timeout(ACCEPTED, stream).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) if format!("{error:#}").contains("is not streamed") => {
                return Err(error.context("the member's history is too short"));
            }
            Ok(Err(_)) | Err(_) => return Ok(()),
        };
        ensure!(head.status == 200, "status {} from {from}", head.status);
        // What is told again replaces what was told, once it comes.
        let mut again = true;
        while !self.is_done() {
            let Ok(Some(line)) = lines.next().await else {
                return Ok(());
            };
            let (revision, key, change) = v2_event(&serde_json::from_str(&line)?)?;
            if std::mem::take(&mut again) {
                self.watch.events.retain(|event| event.revision < from);
            }
            self.message += 1;
            self.push(revision, key, change);
        }
        Ok(())
    }
}

fn v2_event(event: &Value) -> Result<(i64, String, Change)> {
    let (key, shown) = v2::file(&event["node"])?;
    let revision = shown.modified;
    let change = match event["action"].as_str() {
        Some("delete" | "compareAndDelete" | "expire") => Change::Delete,
        Some("set" | "create" | "update" | "compareAndSwap") => Change::Put(shown),
        _ => bail!("an event that nobody caused: {event}"),
    };
    Ok((revision, key, change))
}
