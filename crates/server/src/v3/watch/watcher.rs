//! One watcher: a cursor into history, and what its client wants of it.
//!
//! R1. Everything matching before `next` was handed out, once and in order; nothing from it on.
//! R2. A step ends between revisions, never inside one.
//!
//! Source: spec/v3-api.md §2.7.

use quorate_proto::etcdserverpb::{ResponseHeader, WatchResponse};
use quorate_store::{Change, Class, Revision, Store, ValueError, Values};
use tonic::Status;

use super::event::{Event, Recent};
use super::output::{Address, CHUNK_BYTES, Outgoing};
use crate::watch::Registration;

/// One response of a watcher that catches up tells of no more revisions.
const RESPONSE_REVISIONS: usize = 1_000;

/// A watcher of a stream.
pub(super) struct Watcher {
    pub(super) registration: Registration,
    /// Everything before it was handed out.
    pub(super) next: Revision,
    /// Where the client asked to start; zero for "from now on".
    pub(super) start: Revision,
    /// It has reached the present once: each revision is a response of its own.
    pub(super) live: bool,
    /// Its number in the queue of those for whom there may be something from `next` on.
    pub(super) behind: Option<u64>,
    /// Whether puts are wanted.
    pub(super) puts: bool,
    /// Whether deletes are wanted.
    pub(super) deletes: bool,
    /// Whether events tell what stood there before.
    pub(super) prev_kv: bool,
    /// Its responses' watch id, and whether they may be cut in pieces.
    pub(super) address: Address,
    /// Whether it is told regularly that nothing happened.
    pub(super) progress_notify: bool,
    /// Nothing was sent since the last tick of the progress timer.
    pub(super) quiet: bool,
}

/// How a step ended.
#[derive(Debug, Eq, PartialEq)]
pub(super) enum Step {
    /// Everything up to the present is handed out.
    Reached,
    /// There is more to read.
    More,
    /// History at the cursor is gone; the watcher must end.
    Compacted,
}

/// Why a step could not be made.
pub(super) enum StepError {
    /// A value cannot be read.
    Value(ValueError),
    /// The call must end.
    Status(Status),
}

/// What steps read from and write to, while the machine is held.
pub(super) struct Reading<'a> {
    pub(super) store: &'a Store,
    pub(super) values: &'a dyn Values,
    pub(super) recent: &'a mut Recent,
    /// With any revision.
    pub(super) header: ResponseHeader,
    pub(super) out: &'a mut Outgoing,
    /// Changes that may still be looked at, so that the machine is held briefly.
    pub(super) budget: usize,
    /// Events that were sent.
    pub(super) sent: usize,
}

/// What a step has found for its next response.
#[derive(Default)]
struct Found {
    events: Vec<Event>,
    bytes: usize,
    /// Those of revisions that were read to their end.
    whole: usize,
    revisions: usize,
}

impl Watcher {
    /// Reads on from the cursor, to the present or a bound, and sends what it found.
    ///
    /// # Errors
    /// As [`Reading::send`], and [`ValueError`] when the next event's value cannot be read; then
    /// nothing was sent.
    pub(super) fn step(&mut self, reading: &mut Reading<'_>) -> Result<Step, StepError> {
        let store = reading.store;
        if self.next < store.oldest() {
            return Ok(Step::Compacted);
        }
        let (present, sent) = (store.revision(), reading.sent);
        let (mut found, mut at) = (Found::default(), Revision::ZERO);
        for change in store.changes(self.next) {
            // R2.
            if change.revision != at {
                found.end_revision();
                if self.live {
                    self.send(&mut found, at, reading)?;
                }
                let full = reading.out.len() + found.bytes >= CHUNK_BYTES;
                if full || reading.budget == 0 || found.revisions >= RESPONSE_REVISIONS {
                    self.next = change.revision;
                    self.send(&mut found, present, reading)?;
                    return Ok(Step::More);
                }
                at = change.revision;
            }
            reading.budget = reading.budget.saturating_sub(1);
            match self.event(change, reading) {
                Ok(None) => {}
                Ok(Some(event)) => found.push(event),
                Err(error) if found.whole == 0 && reading.sent == sent => {
                    return Err(error.into());
                }
                // First what could be read.
                Err(_) => {
                    found.events.truncate(found.whole);
                    self.next = at;
                    self.send(&mut found, present, reading)?;
                    return Ok(Step::More);
                }
            }
        }
        let revision = if self.live { at } else { present };
        self.send(&mut found, revision, reading)?;
        self.next = self.next.max(present.next());
        self.live = true;
        Ok(Step::Reached)
    }

    /// Sends what was found in a response that shows `revision`, if there is something.
    fn send(
        &mut self,
        found: &mut Found,
        revision: Revision,
        reading: &mut Reading<'_>,
    ) -> Result<(), Status> {
        if found.events.is_empty() {
            return Ok(());
        }
        let header = ResponseHeader {
            revision: revision.to_wire(),
            ..reading.header
        };
        reading
            .out
            .add_events(&header, &self.address, &found.events)?;
        reading.sent += found.events.len();
        self.quiet = false;
        // The room for events stays.
        found.events.clear();
        (found.bytes, found.whole, found.revisions) = (0, 0, 0);
        Ok(())
    }

    /// What the client is told of a change; nothing of one it did not ask for.
    fn event(
        &self,
        change: &Change,
        reading: &mut Reading<'_>,
    ) -> Result<Option<Event>, ValueError> {
        match change.class {
            Class::File if self.registration.range().contains(&change.key) => {}
            Class::File | Class::Dir => return Ok(None),
        }
        let Reading {
            recent,
            store,
            values,
            ..
        } = reading;
        let event = recent.event(change, self.prev_kv, store, *values)?;
        let wanted = if event.is_delete {
            self.deletes
        } else {
            self.puts
        };
        Ok(wanted.then_some(event))
    }
}

impl Found {
    fn push(&mut self, event: Event) {
        self.bytes += event.field.len();
        self.events.push(event);
    }

    fn end_revision(&mut self) {
        self.revisions += usize::from(self.events.len() > self.whole);
        self.whole = self.events.len();
    }
}

impl Reading<'_> {
    /// Ends a watcher that compaction has overtaken.
    pub(super) fn overtaken(&mut self, watch_id: i64) {
        self.out.add(&WatchResponse {
            header: Some(self.header),
            watch_id,
            canceled: true,
            compact_revision: self.store.compacted(),
            ..WatchResponse::default()
        });
    }
}

impl From<ValueError> for StepError {
    fn from(error: ValueError) -> Self {
        Self::Value(error)
    }
}

impl From<Status> for StepError {
    fn from(status: Status) -> Self {
        Self::Status(status)
    }
}
