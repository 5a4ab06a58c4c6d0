//! A Watch stream: takes its client's requests, and is asked for the next response.
//!
//! It is pulled: hyper polls it when the connection has room, so a client that does not read
//! costs one step's responses and cursors that grow older. There is no queue of events (P4, P8).
//!
//! T1. Requests are handled in order, and a watcher's events come after its `created`.
//! T2. Between two responses at most one request and one watcher are worked on, so that neither
//!     a flood of requests nor a long history shuts the other out.
//!
//! Source: spec/v3-api.md §2.7.

use std::collections::{BTreeMap, VecDeque};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use prost::Message;
use quorate_proto::etcdserverpb::{
    ResponseHeader, WatchCancelRequest, WatchCreateRequest, WatchRequest, WatchResponse,
    watch_create_request::FilterType, watch_request::RequestUnion,
};
use quorate_replica::Machine;
use quorate_store::{KeyRange, Revision, Values};
use tokio::time::{Instant, Interval, MissedTickBehavior};
use tokio_stream::Stream;
use tonic::{Status, Streaming};

use super::watcher::{Batch, Step, Watcher};
use crate::metrics::Open;
use crate::node::Waits;
use crate::v3::{Api, limits, status};
use crate::watch::{Inbox, News};

/// Names no watcher: in answers to refused creations and to progress requests.
const NO_WATCHER: i64 = -1;
/// Steps that may find nothing before other tasks get their turn.
const STEPS_A_TURN: usize = 4;

/// The responses of one Watch call.
pub(in crate::v3) struct WatchStream {
    api: Api,
    /// `None` once the client has closed its side; its watchers live on.
    requests: Option<Streaming<WatchRequest>>,
    inbox: Arc<Inbox>,
    watchers: BTreeMap<i64, Watcher>,
    /// Watchers with history to read, each once: those whose `behind` is set.
    behind: VecDeque<i64>,
    ready: VecDeque<WatchResponse>,
    /// Where the search for a free id goes on.
    next_id: i64,
    ticker: Option<Pin<Box<Interval>>>,
    /// For values that are not in memory.
    waits: Waits,
    _open: Open,
    news: Vec<News>,
}

impl WatchStream {
    pub(super) fn new(api: Api, requests: Streaming<WatchRequest>) -> Self {
        Self {
            _open: api.node.metrics().open_watch_stream(),
            api,
            requests: Some(requests),
            inbox: Arc::default(),
            watchers: BTreeMap::new(),
            behind: VecDeque::new(),
            ready: VecDeque::new(),
            next_id: 0,
            ticker: None,
            waits: Waits::default(),
            news: Vec::new(),
        }
    }

    /// Takes one request, if there is one. Returns whether there was.
    fn poll_request(&mut self, context: &mut Context<'_>) -> Result<bool, Status> {
        let Some(requests) = &mut self.requests else {
            return Ok(false);
        };
        match Pin::new(requests).poll_next(context) {
            Poll::Pending => Ok(false),
            Poll::Ready(None) => {
                self.requests = None;
                Ok(false)
            }
            Poll::Ready(Some(request)) => {
                match request
                    .map_err(|error| limits::translate(&error).unwrap_or(error))?
                    .request_union
                {
                    Some(RequestUnion::CreateRequest(request)) => self.create(request),
                    Some(RequestUnion::CancelRequest(request)) => self.cancel(&request),
                    Some(RequestUnion::ProgressRequest(_)) => self.progress(context),
                    None => {}
                }
                Ok(true)
            }
        }
    }

    fn create(&mut self, request: WatchCreateRequest) {
        let range = watched(request.key.clone(), request.range_end.clone());
        if request.start_revision < 0 {
            return self.refuse(status::COMPACTED);
        }
        if range.is_empty() {
            return self.refuse("mvcc: watcher range is empty");
        }
        let id = match request.watch_id {
            0 => self.free_id(),
            id if self.watchers.contains_key(&id) => {
                return self.refuse("mvcc: duplicate watch ID provided on the WatchStream");
            }
            id => id,
        };
        // Registered first, so that nothing falls between this and the revision read below.
        let registration = self.api.node.watch_hub().register(&range, id, &self.inbox);
        let present = self.api.revision();
        let start = Revision::from_wire(request.start_revision);
        let live = start.is_none_or(|start| start > present);
        let filtered = |filter: FilterType| request.filters.contains(&filter.into());
        let watcher = Watcher {
            registration,
            next: start.unwrap_or(present.next()),
            start: start.unwrap_or(Revision::ZERO),
            live,
            behind: !live,
            puts: !filtered(FilterType::Noput),
            deletes: !filtered(FilterType::Nodelete),
            prev_kv: request.prev_kv,
            fragment: request.fragment,
            progress_notify: request.progress_notify,
            quiet: true,
        };
        if watcher.behind {
            self.behind.push_back(id);
        }
        if watcher.progress_notify && self.ticker.is_none() {
            self.ticker = Some(Box::pin(ticker(self.api.progress_interval)));
        }
        self.watchers.insert(id, watcher);
        self.respond(
            present,
            WatchResponse {
                watch_id: id,
                created: true,
                ..Default::default()
            },
        );
    }

    fn refuse(&mut self, reason: &str) {
        let response = WatchResponse {
            watch_id: NO_WATCHER,
            created: true,
            canceled: true,
            cancel_reason: reason.to_owned(),
            ..Default::default()
        };
        self.respond(self.api.revision(), response);
    }

    fn free_id(&mut self) -> i64 {
        while self.watchers.contains_key(&self.next_id) {
            self.next_id += 1;
        }
        self.next_id += 1;
        self.next_id - 1
    }

    fn cancel(&mut self, request: &WatchCancelRequest) {
        let id = request.watch_id;
        if self.remove(id) {
            let response = WatchResponse {
                watch_id: id,
                canceled: true,
                ..Default::default()
            };
            self.respond(self.api.revision(), response);
        }
    }

    fn remove(&mut self, id: i64) -> bool {
        let Some(watcher) = self.watchers.remove(&id) else {
            return false;
        };
        if watcher.behind {
            self.behind.retain(|&behind| behind != id);
        }
        true
    }

    /// Answers a progress request if all watchers have been sent everything, else not at all.
    fn progress(&mut self, context: &Context<'_>) {
        let present = self.present(context);
        let synced = self.behind.is_empty()
            && !self.watchers.is_empty()
            && self
                .watchers
                .values()
                .all(|watcher| watcher.start <= present);
        if synced {
            self.respond(
                present,
                WatchResponse {
                    watch_id: NO_WATCHER,
                    ..Default::default()
                },
            );
        }
    }

    /// Tells quiet watchers that asked for it how far they have been served.
    fn poll_ticker(&mut self, context: &mut Context<'_>) -> bool {
        let Some(ticker) = &mut self.ticker else {
            return false;
        };
        if ticker.as_mut().poll_tick(context).is_pending() {
            return false;
        }
        let present = self.present(context);
        let mut told = Vec::new();
        for (&id, watcher) in &mut self.watchers {
            let synced = watcher.start <= present && !watcher.behind;
            if watcher.progress_notify && watcher.quiet && synced {
                told.push(id);
            }
            watcher.quiet = true;
        }
        for watch_id in told {
            self.respond(
                present,
                WatchResponse {
                    watch_id,
                    ..Default::default()
                },
            );
        }
        true
    }

    /// The present revision, up to which `behind` then names every watcher that has news (W2).
    fn present(&mut self, context: &Context<'_>) -> Revision {
        let node = self.api.node.clone();
        let machine = node.machine();
        self.hear(context);
        machine.store().revision()
    }

    /// Takes the hub's news, and has this task woken for more.
    fn hear(&mut self, context: &Context<'_>) {
        self.inbox.take(context, &mut self.news);
        for news in self.news.drain(..) {
            let Some(watcher) = self.watchers.get_mut(&news.watcher) else {
                continue;
            };
            watcher.registration.listen();
            // A watcher that is behind reads all there is; one that is not has nothing before.
            if !watcher.behind {
                watcher.next = watcher.next.max(news.from);
                watcher.behind = true;
                self.behind.push_back(news.watcher);
            }
        }
    }

    /// Lets one watcher read on. Returns whether there was one.
    fn deliver(&mut self, context: &mut Context<'_>) -> Result<bool, Status> {
        let Some(&id) = self.behind.front() else {
            return Ok(false);
        };
        let watcher = self
            .watchers
            .get_mut(&id)
            .expect("what is behind is a watcher");
        let step = |machine: &Machine, values: &dyn Values| {
            let (step, batches) = watcher.step(machine.store(), values)?;
            Ok((step, batches, machine.store().compacted()))
        };
        let read = self.api.node.poll_read(context, &mut self.waits, step);
        let Poll::Ready(read) = read else {
            return Ok(false);
        };
        self.behind.pop_front();
        let (step, batches, compacted) = read.map_err(|error| status::value(&error))?;
        watcher.quiet &= batches.is_empty();
        let fragment = watcher.fragment;
        match step {
            Step::Reached => watcher.behind = false,
            Step::More => self.behind.push_back(id),
            Step::Compacted => {
                self.watchers.remove(&id);
                let response = WatchResponse {
                    watch_id: id,
                    canceled: true,
                    compact_revision: compacted,
                    ..Default::default()
                };
                self.respond(Revision::ZERO, response);
            }
        }
        for batch in batches {
            self.send(id, batch, fragment);
        }
        Ok(true)
    }

    fn send(&mut self, watch_id: i64, batch: Batch, fragment: bool) {
        let Batch { revision, events } = batch;
        self.api.node.metrics().events_sent.add(events.len() as u64);
        let whole = WatchResponse {
            header: Some(self.api.header(revision)),
            watch_id,
            events,
            ..Default::default()
        };
        let limit = limits::receive_bytes(self.api.node.config());
        if !fragment || whole.events.len() < 2 || whole.encoded_len() < limit {
            self.ready.push_back(whole);
        } else {
            self.ready.extend(pieces(whole, limit));
        }
    }

    fn respond(&mut self, revision: Revision, response: WatchResponse) {
        let header: ResponseHeader = self.api.header(revision);
        self.ready.push_back(WatchResponse {
            header: Some(header),
            ..response
        });
    }
}

impl Stream for WatchStream {
    type Item = Result<WatchResponse, Status>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        for _ in 0..STEPS_A_TURN {
            if let Some(response) = this.ready.pop_front() {
                return Poll::Ready(Some(Ok(response)));
            }
            this.hear(context);
            let mut busy = this.poll_ticker(context);
            match this
                .poll_request(context)
                .and_then(|asked| Ok(asked | this.deliver(context)?))
            {
                Ok(worked) => busy |= worked,
                Err(status) => return Poll::Ready(Some(Err(status))),
            }
            if !busy {
                return Poll::Pending;
            }
        }
        context.waker().wake_by_ref();
        Poll::Pending
    }
}

/// The range that a watch names: an empty key is the lowest one.
fn watched(key: Bytes, range_end: Bytes) -> KeyRange {
    let key = if key.is_empty() {
        Bytes::from_static(&[0])
    } else {
        key
    };
    KeyRange::from_parts(key, range_end)
}

/// Cuts a response into pieces under `limit` bytes, or of one event; all but the last say so.
fn pieces(whole: WatchResponse, limit: usize) -> Vec<WatchResponse> {
    let WatchResponse {
        header,
        watch_id,
        events,
        ..
    } = whole;
    let empty = WatchResponse {
        header,
        watch_id,
        fragment: true,
        ..Default::default()
    };
    let mut pieces: Vec<WatchResponse> = Vec::new();
    let mut bytes = 0;
    for event in events {
        let len = event.encoded_len();
        let len = EVENT_TAG_BYTES + prost::length_delimiter_len(len) + len;
        match pieces.last_mut() {
            Some(piece) if bytes + len < limit => {
                piece.events.push(event);
                bytes += len;
            }
            _ => {
                bytes = empty.encoded_len() + len;
                pieces.push(WatchResponse {
                    events: vec![event],
                    ..empty.clone()
                });
            }
        }
    }
    if let Some(last) = pieces.last_mut() {
        last.fragment = false;
    }
    pieces
}

/// What stands before an event and its length.
const EVENT_TAG_BYTES: usize = 1;

/// Ticks every `period` and up to a tenth more, so that streams do not all tick at once.
fn ticker(period: Duration) -> Interval {
    let chance = RandomState::new().build_hasher().finish() % 1_000;
    let period = period + period.mul_f64(chance as f64 / 10_000.0);
    let mut ticker = tokio::time::interval_at(Instant::now() + period, period);
    ticker.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticker
}
