//! v2's watches: who waits for what, and the bodies that tell them.
//!
//! A watch is a place in history. The [`Hub`] only wakes those whom a change may concern; the
//! body's task then reads what happened from the store, by the same code whether it is long past or
//! new, so that no reader is too slow to be told (P4).
//!
//! W1. Whoever is registered is woken by every change that it may have to be told.
//! W2. A body that is idle has looked at all of history before the first change it is woken for.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::body::Body;
use axum::http::Response;
use bytes::Bytes;
use quorate_store::tree::{self, Event, Path, Position, Scan, Watch};
use quorate_store::{Change, Class, Revision, Store, ValueError, Values};
use tokio::sync::Notify;

use super::error::Error;
use super::params::Params;
use super::{keys, render};
use crate::node::Node;

/// How many changes are looked at before the machine's lock is given back.
const SCAN_CHANGES: usize = 2000;
/// About how many bytes of events are gathered before they are sent.
const PIECE_BYTES: usize = 64 << 10;

/// All v2 watches of this member.
#[derive(Debug, Default)]
pub struct Hub {
    waiting: Mutex<Waiting>,
    closed: AtomicBool,
}

#[derive(Debug, Default)]
struct Waiting {
    /// By path; the root's is empty. At one path, by number.
    paths: BTreeMap<Vec<u8>, Waiters>,
    /// How many have come since the start, which numbers them.
    joined: u64,
    watchers: usize,
}

type Waiters = BTreeMap<u64, Arc<Waiter>>;

#[derive(Debug, Default)]
struct Waiter {
    recursive: bool,
    /// The first revision that it was woken for; 0 for none.
    news: AtomicU64,
    wake: Notify,
}

/// A registration, which ends with it.
struct Registered {
    node: Node,
    path: Vec<u8>,
    number: u64,
    waiter: Arc<Waiter>,
}

impl Hub {
    /// Wakes those whom changes may concern: at each path, above it if they watch all below, and
    /// below it if it is a directory, which may be gone. A change costs a look-up for each part of
    /// its path, and those whom it wakes.
    pub fn publish<'a>(&self, changes: impl Iterator<Item = &'a Change>) {
        let waiting = self.lock();
        if waiting.watchers == 0 {
            return;
        }
        for change in changes {
            let key = &change.key[..];
            if change.class == Class::File && !tree::is_path(key) {
                continue;
            }
            if let Some(waiters) = waiting.paths.get(key) {
                wake(waiters, change.revision, false);
            }
            for above in std::iter::once(&b""[..]).chain(tree::ancestors(key)) {
                if let Some(waiters) = waiting.paths.get(above) {
                    wake(waiters, change.revision, true);
                }
            }
            if change.class == Class::Dir {
                let (start, end) = ([key, b"/"].concat(), [key, b"0"].concat());
                let below = (Bound::Included(&start[..]), Bound::Excluded(&end[..]));
                for (_, waiters) in waiting.paths.range::<[u8], _>(below) {
                    wake(waiters, change.revision, false);
                }
            }
        }
    }

    /// Has every watch look at history from `from` on: another state has taken this one's place.
    pub fn publish_all(&self, from: Revision) {
        let waiting = self.lock();
        for waiter in waiting.paths.values().flat_map(Waiters::values) {
            waiter.wake_for(from);
        }
    }

    /// Ends every watch, without a word: a client takes an empty body as "ask again".
    pub fn close(&self) {
        self.closed.store(true, Ordering::Release);
        for waiter in self.lock().paths.values().flat_map(Waiters::values) {
            waiter.wake.notify_one();
        }
    }

    /// How many watch.
    pub fn watchers(&self) -> usize {
        self.lock().watchers
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        // No code that holds it can leave it half changed.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn wake(waiters: &Waiters, revision: Revision, recursive_only: bool) {
    let concerned = waiters
        .values()
        .filter(|waiter| waiter.recursive || !recursive_only);
    concerned.for_each(|waiter| waiter.wake_for(revision));
}

impl Waiter {
    fn wake_for(&self, revision: Revision) {
        // The first one counts; a later one is found behind it.
        let first =
            self.news
                .compare_exchange(0, revision.get(), Ordering::AcqRel, Ordering::Acquire);
        if first.is_ok() {
            self.wake.notify_one();
        }
    }

    fn take_news(&self) -> Option<Revision> {
        Some(self.news.swap(0, Ordering::AcqRel))
            .filter(|&first| first > 0)
            .map(Revision::new)
    }
}

impl Registered {
    fn new(node: &Node, path: &Path, recursive: bool) -> Self {
        let waiter = Arc::new(Waiter {
            recursive,
            ..Waiter::default()
        });
        let path = path.as_bytes().to_vec();
        let number = {
            let mut waiting = node.tree_hub().lock();
            waiting.joined += 1;
            waiting.watchers += 1;
            let number = waiting.joined;
            let waiters = waiting.paths.entry(path.clone()).or_default();
            waiters.insert(number, Arc::clone(&waiter));
            number
        };
        Self {
            node: node.clone(),
            path,
            number,
            waiter,
        }
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        let mut waiting = self.node.tree_hub().lock();
        waiting.watchers -= 1;
        if let Some(waiters) = waiting.paths.get_mut(&self.path) {
            waiters.remove(&self.number);
            if waiters.is_empty() {
                waiting.paths.remove(&self.path);
            }
        }
    }
}

/// Accepts a watch: the headers go out at once, the body when there is something to tell.
pub(super) fn begin(node: &Node, path: Path, params: &Params) -> Result<Response<Body>, Error> {
    // Registered first, so that nothing falls between the index and the first news.
    let registered = Registered::new(node, &path, params.recursive);
    let machine = node.machine();
    let store = machine.store();
    let (accepted, compacted) = (store.revision(), store.oldest());
    let from = match params.wait_index {
        0 => accepted.next(),
        wanted if wanted <= compacted.get() => {
            let outdated = tree::Refusal::Outdated {
                oldest: compacted.next(),
                wanted,
            };
            return Err(Error::of_store(&outdated, accepted.get()));
        }
        wanted => Revision::new(wanted.min(i64::MAX as u64)),
    };
    drop(machine);
    let telling = Telling {
        registered,
        watch: Watch {
            path,
            recursive: params.recursive,
            accepted,
        },
        position: Position::start_of(from),
        is_stream: params.stream,
        idle: false,
        done: false,
    };
    let pieces = futures_util::stream::unfold(telling, |mut telling| async {
        telling.next_piece().await.map(|piece| (piece, telling))
    });
    Ok(keys::found(node, 200, accepted, Body::from_stream(pieces)))
}

/// A watch under way.
struct Telling {
    registered: Registered,
    watch: Watch,
    position: Position,
    is_stream: bool,
    /// W2.
    idle: bool,
    done: bool,
}

impl Telling {
    /// The next lines of the body, once there are any; `None` is its end.
    async fn next_piece(&mut self) -> Option<Result<Bytes, ValueError>> {
        loop {
            if self.done {
                return None;
            }
            let node = self.registered.node.clone();
            let read = node.read(|machine, values| self.look(machine.store(), values));
            let piece = match read.await {
                Ok(piece) => piece,
                Err(error) => {
                    self.done = true;
                    return Some(Err(error));
                }
            };
            if !piece.is_empty() {
                return Some(Ok(Bytes::from(piece)));
            }
            if self.idle && !self.done {
                self.registered.waiter.wake.notified().await;
            } else {
                tokio::task::yield_now().await;
            }
        }
    }

    /// What history tells from here on, some of it at a time. If a value cannot be read, the
    /// position stays.
    fn look(&mut self, store: &Store, values: &dyn Values) -> Result<Vec<u8>, ValueError> {
        let mut piece = Vec::new();
        let node = &self.registered.node;
        if node.tree_hub().closed.load(Ordering::Acquire) {
            self.done = true;
            return Ok(piece);
        }
        let news = self.registered.waiter.take_news();
        if let Some(first) = news.filter(|_| self.idle) {
            self.position = self.position.max(Position::start_of(first));
        }
        self.idle = false;
        if self.position.revision <= store.oldest() {
            // Overtaken by compaction: v2 has no frame to say so, the next request is told.
            self.done = true;
            return Ok(piece);
        }
        let mut position = self.position;
        let mut budget = SCAN_CHANGES;
        while !self.done && piece.len() < PIECE_BYTES {
            match self.watch.scan(store, &mut position, &mut budget) {
                Scan::Match(change) => {
                    let event = Event::of(store, change, values)?;
                    let event = event.expect("what matches has an event");
                    let mut siblings = 0;
                    if !self.is_stream {
                        siblings = self.watch.siblings(store, position);
                        self.done = true;
                    }
                    render::event(&mut piece, &event, siblings);
                    piece.push(b'\n');
                }
                Scan::Pause => break,
                Scan::End => {
                    self.idle = true;
                    break;
                }
            }
        }
        self.position = position;
        Ok(piece)
    }
}
