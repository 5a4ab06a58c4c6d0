//! An event as bytes, encoded once and shared by all who are sent it.
//!
//! E1. What is kept under an event's name are its bytes: history never changes (P3).
//! E2. Kept are at most [`KEPT_BYTES`] and one event more.

use bytes::{Bytes, BytesMut};
use quorate_proto::mvccpb::event::EventType;
use quorate_store::{Change, FileVersion, Key, Revision, Row, Store, ValueError, Values};

use crate::v3::rows::{self, bytes_len, nested_len, number_len, put_bytes, put_len, put_number};

/// `WatchResponse.events`.
const EVENTS: u32 = 11;
/// `Event.type`.
const TYPE: u32 = 1;
const KV: u32 = 2;
const PREV_KV: u32 = 3;
/// `KeyValue.key`.
const KEY: u32 = 1;
const MOD: u32 = 3;

/// Events kept at most; each has one place where it may be.
const PLACES: usize = 1 << 10;
/// With so many bytes kept, all is forgotten before more is.
const KEPT_BYTES: usize = 4 << 20;

/// An event.
#[derive(Clone, Debug)]
pub(super) struct Event {
    pub(super) is_delete: bool,
    /// As a field of a `WatchResponse`.
    pub(super) field: Bytes,
}

/// Events that were encoded lately: a change that many watch is encoded for the first of them.
#[derive(Debug, Default)]
pub(in crate::v3) struct Recent {
    places: Vec<Option<(Name, Event)>>,
    bytes: usize,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Name {
    revision: Revision,
    sub: u32,
    /// It tells what stood there before.
    has_prev: bool,
}

impl Recent {
    /// The event of a change of a key.
    ///
    /// # Errors
    /// As [`quorate_store::Value::read`].
    pub(super) fn event(
        &mut self,
        change: &Change,
        prev_kv: bool,
        store: &Store,
        values: &dyn Values,
    ) -> Result<Event, ValueError> {
        let before = change.revision.previous();
        let name = Name {
            revision: change.revision,
            sub: change.sub,
            has_prev: prev_kv && before >= store.oldest(),
        };
        // Neighbours stand apart, also those of one revision.
        let place = (change.revision.get() as usize)
            .wrapping_mul(31)
            .wrapping_add(change.sub as usize)
            .wrapping_mul(2)
            .wrapping_add(usize::from(name.has_prev))
            % PLACES;
        if let Some(Some((found, event))) = self.places.get(place)
            && *found == name
        {
            return Ok(event.clone());
        }
        let version = store
            .file_written_at(&change.key, change.revision)
            .expect("history names no version that is compacted (H2)");
        let prev = name.has_prev.then(|| store.file_at(&change.key, before));
        let event = encode(&change.key, version, prev.flatten(), values)?;
        self.keep(place, name, &event);
        Ok(event)
    }

    fn keep(&mut self, place: usize, name: Name, event: &Event) {
        // E2.
        if self.bytes >= KEPT_BYTES {
            *self = Self::default();
        }
        self.places.resize(PLACES, None);
        let previous = self.places[place].replace((name, event.clone()));
        self.bytes += event.field.len();
        self.bytes -= previous.map_or(0, |(_, event)| event.field.len());
    }
}

fn encode(
    key: &Key,
    version: &FileVersion,
    prev: Option<&FileVersion>,
    values: &dyn Values,
) -> Result<Event, ValueError> {
    let is_delete = version.count == 0;
    let kind = if is_delete {
        EventType::Delete
    } else {
        EventType::Put
    };
    let row = Row { key, version };
    let revision = version.revision.get();
    let kv_len = if is_delete {
        bytes_len(KEY, key.len()) + number_len(MOD, revision)
    } else {
        rows::row_len(&row, false)
    };
    let prev = prev.map(|version| Row { key, version });
    let prev_len = prev.as_ref().map(|prev| rows::row_len(prev, false));
    let len = number_len(TYPE, kind as u64)
        + nested_len(KV, kv_len)
        + prev_len.map_or(0, |len| nested_len(PREV_KV, len));

    let mut to = BytesMut::with_capacity(nested_len(EVENTS, len));
    put_len(&mut to, EVENTS, len);
    put_number(&mut to, TYPE, kind as u64);
    put_len(&mut to, KV, kv_len);
    if is_delete {
        put_bytes(&mut to, KEY, key);
        put_number(&mut to, MOD, revision);
    } else {
        rows::put_row(&mut to, &row, false, values)?;
    }
    if let (Some(prev), Some(len)) = (&prev, prev_len) {
        put_len(&mut to, PREV_KV, len);
        rows::put_row(&mut to, prev, false, values)?;
    }
    let field = to.freeze();
    Ok(Event { is_delete, field })
}
