//! A Watch stream: takes its client's requests, and is asked for the next response.
//!
//! It is pulled: hyper polls it when the connection has room, so a client that does not read
//! costs one chunk of responses and cursors that grow older. There is no queue of events, and
//! while a chunk waits no request is taken, so there is none of answers either (P4, P8).
//!
//! T1. Requests are handled in order, and a watcher's events come after its `created`.
//! T2. Between two chunks at least one request is taken if there is one, and watchers are served
//!     in turn, so that neither a flood of requests nor a long history shuts the other out.
//!
//! Source: spec/v3-api.md §2.7.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::ops::Bound;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body as HttpBody, Frame};
use quorate_proto::etcdserverpb::{
    WatchCancelRequest, WatchCreateRequest, WatchRequest, WatchResponse,
    watch_create_request::FilterType, watch_request::RequestUnion,
};
use quorate_replica::Machine;
use quorate_store::{KeyRange, Revision, Values};
use tokio::time::{Instant, Interval, MissedTickBehavior};
use tonic::Status;

use super::output::{Address, Outgoing};
use super::watcher::{Reading, Step, StepError, Watcher};
use crate::metrics::Open;
use crate::node::Waits;
use crate::v3::messages::Messages;
use crate::v3::{Api, limits, status, unary};
use crate::watch::{Inbox, News};

/// Names no watcher: in answers to refused creations and to progress requests.
const NO_WATCHER: i64 = -1;
/// Rounds before other tasks get their turn.
const ROUNDS: usize = 64;
/// Changes looked at before other tasks get their turn.
const MAX_CHANGES: usize = 4_096;

/// Becomes ready with the error that ends a stream.
pub(super) type Over = Pin<Box<dyn Future<Output = Status> + Send>>;

/// The answer to one Watch call.
pub(in crate::v3) struct WatchStream {
    api: Api,
    /// `None` once the client has closed its side; its watchers live on.
    requests: Option<Messages<WatchRequest>>,
    /// What ends it from this side.
    over: Over,
    inbox: Arc<Inbox>,
    watchers: BTreeMap<i64, Watcher>,
    /// Watchers with history to read, each once under its number: those whose `behind` is set.
    behind: BTreeMap<u64, i64>,
    /// The last number given to one that is behind.
    queued: u64,
    out: Outgoing,
    /// Where the search for a free id goes on.
    next_id: i64,
    ticker: Option<Pin<Box<Interval>>>,
    /// For values that are not in memory.
    waits: Waits,
    /// From where on watchers are still to be told of the last tick.
    ticked: Option<Bound<i64>>,
    /// What the call ends with, once what is ready has left.
    end: Option<Status>,
    ended: bool,
    _open: Open,
    news: Vec<News>,
}

impl WatchStream {
    pub(super) fn new(api: Api, requests: Messages<WatchRequest>, over: Over) -> Self {
        Self {
            _open: api.node.metrics().open_watch_stream(),
            over,
            api,
            requests: Some(requests),
            inbox: Arc::default(),
            watchers: BTreeMap::new(),
            behind: BTreeMap::new(),
            queued: 0,
            out: Outgoing::default(),
            next_id: 0,
            ticker: None,
            waits: Waits::default(),
            ticked: None,
            end: None,
            ended: false,
            news: Vec::new(),
        }
    }

    /// Does what there is to do until a chunk is full. Returns whether there may be more to do;
    /// if not, the task is woken when there is.
    fn work(&mut self, context: &mut Context<'_>) -> Result<bool, Status> {
        if let Poll::Ready(status) = self.over.as_mut().poll(context) {
            return Err(status);
        }
        let mut budget = MAX_CHANGES;
        for _ in 0..ROUNDS {
            if self.out.is_full() || budget == 0 {
                break;
            }
            self.hear(context);
            self.poll_ticker(context);
            let asked = self.poll_request(context)?;
            let waits = self.deliver(context, &mut budget)?;
            if !asked && (waits || self.behind.is_empty()) && self.ticked.is_none() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Takes one request, if there is one. Returns whether there was.
    fn poll_request(&mut self, context: &mut Context<'_>) -> Result<bool, Status> {
        let Some(requests) = &mut self.requests else {
            return Ok(false);
        };
        match requests.poll_next(context) {
            Poll::Pending => Ok(false),
            Poll::Ready(None) => {
                self.requests = None;
                Ok(false)
            }
            Poll::Ready(Some(request)) => {
                match request?.request_union {
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
        let limit = limits::receive_bytes(self.api.node.config());
        let mut watcher = Watcher {
            registration,
            next: start.unwrap_or(present.next()),
            start: start.unwrap_or(Revision::ZERO),
            live,
            behind: None,
            puts: !filtered(FilterType::Noput),
            deletes: !filtered(FilterType::Nodelete),
            prev_kv: request.prev_kv,
            address: Address {
                watch_id: id,
                limit: request.fragment.then_some(limit),
            },
            progress_notify: request.progress_notify,
            quiet: true,
        };
        if !live {
            watcher.behind = Some(queue(&mut self.behind, &mut self.queued, id));
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
        if let Some(number) = watcher.behind {
            self.behind.remove(&number);
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

    /// Tells quiet watchers that asked for it how far they have been served, a chunk at a time.
    fn poll_ticker(&mut self, context: &mut Context<'_>) {
        if let Some(ticker) = &mut self.ticker {
            // Until it waits, or nobody would be woken for the next one.
            while ticker.as_mut().poll_tick(context).is_ready() {
                self.ticked = Some(Bound::Unbounded);
            }
        }
        let Some(from) = self.ticked.take() else {
            return;
        };
        let present = self.present(context);
        let header = self.api.header(present);
        for (&watch_id, watcher) in self.watchers.range_mut((from, Bound::Unbounded)) {
            let synced = watcher.start <= present && watcher.behind.is_none();
            if watcher.progress_notify && watcher.quiet && synced {
                self.out.add(&WatchResponse {
                    header: Some(header),
                    watch_id,
                    ..WatchResponse::default()
                });
            }
            watcher.quiet = true;
            if self.out.is_full() {
                self.ticked = Some(Bound::Excluded(watch_id));
                return;
            }
        }
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
            if watcher.behind.is_none() {
                watcher.next = watcher.next.max(news.from);
                let number = queue(&mut self.behind, &mut self.queued, news.watcher);
                watcher.behind = Some(number);
            }
        }
    }

    /// Lets those that are behind read on, in turn. Returns whether one waits for a value; then the
    /// task is woken when it is there.
    fn deliver(&mut self, context: &mut Context<'_>, budget: &mut usize) -> Result<bool, Status> {
        if self.behind.is_empty() {
            return Ok(false);
        }
        let Self {
            api,
            watchers,
            behind,
            queued,
            out,
            waits,
            ..
        } = self;
        let header = api.header(Revision::ZERO);
        let serve = |machine: &Machine, values: &dyn Values| {
            let mut recent = api.recent();
            let mut reading = Reading {
                store: machine.store(),
                values,
                recent: &mut recent,
                header,
                out,
                budget: *budget,
                sent: 0,
            };
            let mut served = false;
            while !reading.out.is_full() && reading.budget > 0 {
                let Some((&number, &id)) = behind.first_key_value() else {
                    break;
                };
                let watcher = watchers.get_mut(&id);
                let watcher = watcher.expect("what is behind is a watcher");
                let step = match watcher.step(&mut reading) {
                    Ok(step) => step,
                    // What the others were sent is sent; it is the first one next time.
                    Err(_) if served => break,
                    Err(error) => return Err(error),
                };
                served = true;
                // One that finds nothing has cost something, too.
                reading.budget = reading.budget.saturating_sub(1);
                behind.remove(&number);
                match step {
                    Step::Reached => watcher.behind = None,
                    Step::More => watcher.behind = Some(queue(behind, queued, id)),
                    Step::Compacted => {
                        watchers.remove(&id);
                        reading.overtaken(id);
                    }
                }
            }
            Ok((reading.sent, reading.budget))
        };
        let Poll::Ready(read) = api.node.poll_read(context, waits, serve) else {
            return Ok(true);
        };
        let (sent, left) = read.map_err(|error| match error {
            StepError::Value(error) => status::value(&error),
            StepError::Status(status) => status,
        })?;
        *budget = left;
        api.node.metrics().events_sent.add(sent as u64);
        Ok(false)
    }

    fn respond(&mut self, revision: Revision, response: WatchResponse) {
        self.out.add(&WatchResponse {
            header: Some(self.api.header(revision)),
            ..response
        });
    }
}

impl HttpBody for WatchStream {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let this = self.get_mut();
        if this.ended {
            return Poll::Ready(None);
        }
        let mut more = false;
        if this.end.is_none() && this.out.is_empty() {
            match this.work(context) {
                Ok(goes_on) => more = goes_on,
                Err(status) => this.end = Some(status),
            }
        }
        if let Some(chunk) = this.out.take() {
            return Poll::Ready(Some(Ok(Frame::data(chunk))));
        }
        if let Some(status) = this.end.take() {
            this.ended = true;
            return Poll::Ready(Some(Ok(Frame::trailers(unary::trailers(&status)))));
        }
        if more {
            context.waker().wake_by_ref();
        }
        Poll::Pending
    }
}

/// Puts a watcher behind all that are behind. Returns its number.
fn queue(behind: &mut BTreeMap<u64, i64>, queued: &mut u64, id: i64) -> u64 {
    *queued += 1;
    behind.insert(*queued, id);
    *queued
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

/// Ticks every `period` and up to a tenth more, so that streams do not all tick at once.
fn ticker(period: Duration) -> Interval {
    let chance = RandomState::new().build_hasher().finish() % 1_000;
    let period = period + period.mul_f64(chance as f64 / 10_000.0);
    let mut ticker = tokio::time::interval_at(Instant::now() + period, period);
    ticker.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticker
}
