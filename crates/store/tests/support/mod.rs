//! A store with a log beside it, as a member has them, and all that it can be asked, as text.

#![allow(dead_code)] // Each test binary uses a part.

pub(crate) mod generate;
pub(crate) mod print;

use std::borrow::Cow;
use std::fmt::Write as _;

use bytes::Bytes;
use quorate_store::command::{Body, Draft, Range, RequestId};
use quorate_store::{
    ClusterTime, Command, KeyRange, Loader, Outcome, Place, Store, UnixMs, ValueAt, ValueError,
    Values,
};

/// Segments of the fake log are small, so that a test has many.
const SEGMENT_BYTES: usize = 1024;

/// A log that holds entries and nothing else. Segments are numbered from 1.
#[derive(Default)]
pub(crate) struct FakeLog {
    /// `None` is one that was freed.
    segments: Vec<Option<Vec<u8>>>,
}

impl FakeLog {
    pub(crate) fn append(&mut self, entry: &[u8]) -> Place {
        let is_full = |segment: &Option<Vec<u8>>| {
            segment
                .as_ref()
                .is_none_or(|bytes| bytes.len() >= SEGMENT_BYTES)
        };
        if self.segments.last().is_none_or(is_full) {
            self.segments.push(Some(b"head of a segment".to_vec()));
        }
        let number = self.segments.len() as u32;
        let segment = self.segments.last_mut().and_then(Option::as_mut);
        let segment = segment.expect("one was pushed if there was none");
        let place = Place {
            segment: number,
            offset: segment.len() as u32,
        };
        segment.extend_from_slice(entry);
        place
    }

    /// The numbers of all segments, freed ones too.
    pub(crate) fn numbers(&self) -> std::ops::RangeInclusive<u32> {
        1..=self.segments.len() as u32
    }

    /// Frees what `store` does not need; the last one still takes entries.
    pub(crate) fn free(&mut self, store: &Store) {
        let kept = self.segments.len().saturating_sub(1);
        for (segment, number) in self.segments[..kept].iter_mut().zip(1..) {
            if !store.needs_segment(number) {
                *segment = None;
            }
        }
    }
}

impl Values for FakeLog {
    fn read<'a>(&'a self, at: &ValueAt) -> Result<Cow<'a, [u8]>, ValueError> {
        let segment = (at.segment as usize).checked_sub(1);
        let segment = segment.and_then(|index| self.segments.get(index)?.as_deref());
        let start = at.offset as usize;
        segment
            .and_then(|bytes| bytes.get(start..start.checked_add(at.len as usize)?))
            .map(Cow::Borrowed)
            .ok_or(ValueError::Rotten(*at))
    }
}

/// A member without its machinery: commands go through their bytes into log and store.
#[derive(Default)]
pub(crate) struct World {
    pub(crate) store: Store,
    pub(crate) log: FakeLog,
    /// In milliseconds.
    pub(crate) time: ClusterTime,
    count: u64,
}

/// A command's bytes and their place, to be applied once more.
pub(crate) type Entry = (Place, Bytes);

impl World {
    /// Encodes, stamps, logs, decodes and applies.
    pub(crate) fn apply(&mut self, body: &Body) -> Outcome {
        let entry = self.append(body);
        apply(&mut self.store, &entry, &self.log)
    }

    pub(crate) fn append(&mut self, body: &Body) -> Entry {
        self.count += 1;
        let id = RequestId {
            member: 1,
            incarnation: 2,
            counter: self.count,
        };
        let wall = UnixMs(self.time.0.saturating_add(1_800_000_000_000));
        let entry = Draft::new(id, wall, body).stamp(self.time);
        assert_eq!(Command::stamp_of(&entry), Some(self.time));
        let command = Command::decode(&entry).expect("what was encoded is decoded");
        assert_eq!((command.id, command.wall), (id, wall));
        let again = Draft::new(id, wall, &command.body).stamp(command.time);
        assert_eq!(entry, again, "decoding loses nothing of {body:?}");
        (self.log.append(&entry), entry)
    }

    /// The store as it is after a restart.
    pub(crate) fn reloaded(&self, chunk: usize) -> Store {
        load(&rows(&self.store, chunk)).expect("a walk's rows")
    }
}

pub(crate) fn apply(store: &mut Store, (place, bytes): &Entry, values: &FakeLog) -> Outcome {
    let command = Command::decode(bytes).expect("it was decoded before");
    let before = store.revision();
    let outcome = store
        .apply(command, *place, values)
        .expect("values of the log");
    assert_eq!(outcome.revision, store.revision());
    assert!(outcome.result.is_ok() || before == store.revision(), "S5");
    outcome
}

/// All rows of a walk.
pub(crate) fn rows(store: &Store, chunk: usize) -> Vec<Bytes> {
    let mut cursor = store.begin_walk();
    let mut rows = Vec::new();
    let mut take = |row: &[u8]| rows.push(Bytes::copy_from_slice(row));
    while store.walk(&mut cursor, chunk, &mut take) {}
    rows
}

pub(crate) fn load(rows: &[Bytes]) -> Result<Store, quorate_store::command::DecodeError> {
    let mut loader = Loader::default();
    for row in rows {
        loader.row(row.clone())?;
    }
    loader.finish()
}

/// All that reads can see, as text: two stores that say the same here answer alike (S1).
pub(crate) fn everything(store: &Store, log: &FakeLog) -> String {
    let mut out = String::new();
    let (oldest, latest) = (store.oldest(), store.revision());
    let _ = writeln!(out, "revision {latest}, compacted {}", store.compacted());
    for revision in oldest.get().max(1)..=latest.get() {
        let asked = Range {
            revision: revision as i64,
            ..Range::all(KeyRange::from_parts(
                Bytes::new(),
                Bytes::from_static(b"\0"),
            ))
        };
        let found = store.range_reply(&asked, log).expect("a kept revision");
        let _ = writeln!(out, "at {revision}: {}", found.count);
        for kv in &found.kvs {
            let _ = writeln!(out, "  {}", print::key_value(kv));
        }
    }
    for change in store.changes(oldest) {
        let _ = writeln!(out, "{}", print::change(store, change, log));
        let _ = writeln!(out, "  {change:?}");
    }
    let _ = writeln!(out, "leases {:?}", store.leases());
    let _ = writeln!(out, "deadline {:?}", store.next_deadline());
    let _ = writeln!(out, "members {:?}", store.members());
    let _ = writeln!(out, "removed {:?}", store.removed());
    let _ = writeln!(out, "alarms {:?}", store.alarms());
    out
}

/// A small generator of chance: the same numbers for the same seed, everywhere.
pub(crate) struct Chance(pub(crate) u64);

impl Chance {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Less than `end`, which is not 0.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    pub(crate) fn one_in(&mut self, count: u64) -> bool {
        self.below(count) == 0
    }

    pub(crate) fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as u64) as usize]
    }
}
