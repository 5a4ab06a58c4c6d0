//! One watcher: a cursor into history, and what its client wants of it.
//!
//! R1. Everything matching before `next` was handed out, once and in order; nothing from it on.
//! R2. A step ends between revisions, never inside one.
//!
//! Source: spec/v3-api.md §2.7.

use bytes::Bytes;
use quorate_proto::mvccpb::{Event, KeyValue, event::EventType};
use quorate_store::{Change, Class, Revision, Store, ValueError, Values};

use crate::v3::encode;
use crate::watch::Registration;

/// A step stops after so many changes looked at, so that the machine's guard is held briefly.
const STEP_CHANGES: usize = 4_096;
/// A step stops after so many revisions with events; one response of a watcher that catches up
/// holds no more.
const STEP_REVISIONS: usize = 1_000;
/// A step stops once its events hold so many bytes of keys and values.
const STEP_BYTES: usize = 128 << 10;

/// A watcher of a stream.
pub(super) struct Watcher {
    pub(super) registration: Registration,
    /// Everything before it was handed out.
    pub(super) next: Revision,
    /// Where the client asked to start; zero for "from now on".
    pub(super) start: Revision,
    /// It has reached the present once: each revision is a response of its own.
    pub(super) live: bool,
    /// There may be something for it from `next` on.
    pub(super) behind: bool,
    /// Whether puts are wanted.
    pub(super) puts: bool,
    /// Whether deletes are wanted.
    pub(super) deletes: bool,
    /// Whether events tell what stood there before.
    pub(super) prev_kv: bool,
    /// Whether large responses may be cut in pieces.
    pub(super) fragment: bool,
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

/// Events of one response, and the revision its header shows.
#[derive(Debug, PartialEq)]
pub(super) struct Batch {
    pub(super) revision: Revision,
    pub(super) events: Vec<Event>,
}

/// What a step has found so far.
struct Found {
    /// Each revision is a batch of its own.
    apart: bool,
    present: Revision,
    batches: Vec<Batch>,
    last: Revision,
    revisions: usize,
    bytes: usize,
}

impl Watcher {
    /// Reads on from the cursor, to the present or a bound, and returns what it found.
    ///
    /// # Errors
    /// [`ValueError`] when a value cannot be read; the cursor then stands where it stood.
    pub(super) fn step(
        &mut self,
        store: &Store,
        values: &dyn Values,
    ) -> Result<(Step, Vec<Batch>), ValueError> {
        if self.next < store.oldest() {
            return Ok((Step::Compacted, Vec::new()));
        }
        let present = store.revision();
        let mut found = Found::new(self.live, present);
        let (mut scanned, mut at) = (0, Revision::ZERO);
        for change in store.changes(self.next) {
            // R2.
            if change.revision != at && (scanned >= STEP_CHANGES || found.is_full()) {
                self.next = change.revision;
                return Ok((Step::More, found.batches));
            }
            at = change.revision;
            scanned += 1;
            if let Some(event) = self.event(change, store, values)? {
                found.push(at, event);
            }
        }
        self.next = self.next.max(present.next());
        self.live = true;
        Ok((Step::Reached, found.batches))
    }

    /// What the client is told of a change; nothing of one it did not ask for.
    fn event(
        &self,
        change: &Change,
        store: &Store,
        values: &dyn Values,
    ) -> Result<Option<Event>, ValueError> {
        match change.class {
            Class::File if self.registration.range().contains(&change.key) => {}
            Class::File | Class::Dir => return Ok(None),
        }
        let (key, revision) = (&change.key, change.revision);
        let version = store
            .file_written_at(key, revision)
            .expect("history names no version that is compacted (H2)");
        let is_delete = version.count == 0;
        if !(if is_delete { self.deletes } else { self.puts }) {
            return Ok(None);
        }
        let before = revision.previous();
        let prev = (self.prev_kv && before >= store.oldest())
            .then(|| store.file_at(key, before))
            .flatten()
            .map(|prev| encode::version(key, prev, values))
            .transpose()?;
        let (kind, kv) = if is_delete {
            (EventType::Delete, deleted(key, revision))
        } else {
            (EventType::Put, encode::version(key, version, values)?)
        };
        Ok(Some(Event {
            r#type: kind.into(),
            kv: Some(kv),
            prev_kv: prev,
        }))
    }
}

impl Found {
    fn new(apart: bool, present: Revision) -> Self {
        let last = Revision::ZERO;
        Self {
            apart,
            present,
            batches: Vec::new(),
            last,
            revisions: 0,
            bytes: 0,
        }
    }

    fn is_full(&self) -> bool {
        self.revisions >= STEP_REVISIONS || self.bytes >= STEP_BYTES
    }

    fn push(&mut self, at: Revision, event: Event) {
        self.bytes += size(event.kv.as_ref()) + size(event.prev_kv.as_ref());
        let new = at != self.last;
        self.revisions += usize::from(new);
        self.last = at;
        match self.batches.last_mut() {
            Some(batch) if !(new && self.apart) => batch.events.push(event),
            _ => {
                let revision = if self.apart { at } else { self.present };
                self.batches.push(Batch {
                    revision,
                    events: vec![event],
                });
            }
        }
    }
}

fn deleted(key: &[u8], revision: Revision) -> KeyValue {
    KeyValue {
        key: Bytes::copy_from_slice(key),
        mod_revision: revision.to_wire(),
        ..KeyValue::default()
    }
}

fn size(kv: Option<&KeyValue>) -> usize {
    kv.map_or(0, |kv| kv.key.len() + kv.value.len())
}
