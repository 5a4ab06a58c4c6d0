//! The state as rows: what a checkpoint holds, and later what a snapshot sends.
//!
//! A walk is of one revision, in chunks between which commands are applied: versions are never
//! changed in place, and [`Store::purge`] is not called while one is under way.
//!
//! The bytes are in docs/formats/state.md.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::Bound;

use crate::chain::{Chain, Versioned};
use crate::codec::Write;
use crate::map::KeyMap;
use crate::{
    Alarm, AlarmBy, Deadline, DirVersion, Ends, FileVersion, Key, Mark, Member, Revision, Store,
    UnixMs, Value,
};

pub(crate) const HEAD: u8 = 1;
pub(crate) const LEASE: u8 = 2;
pub(crate) const MEMBER: u8 = 3;
pub(crate) const FILE: u8 = 4;
pub(crate) const DIR: u8 = 5;
pub(crate) const ALARM: u8 = 6;
pub(crate) const WALLS: u8 = 7;
pub(crate) const REMOVED: u8 = 8;

/// How far a walk has come.
#[derive(Clone, Debug)]
pub struct Cursor {
    head: Arc<Head>,
    stage: Stage,
    /// Ends with the stage that it began with.
    one_stage: bool,
}

/// What is not a key or a directory: copied when a walk begins, for it has no versions.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Head {
    /// The latest revision.
    pub revision: Revision,
    /// The revision of the last compaction; -1 before the first.
    pub compacted: i64,
    /// Leases: their ids and lengths in seconds.
    pub leases: Vec<(i64, i64)>,
    /// The members.
    pub members: Vec<Member>,
    /// Ids of members that left.
    pub removed: Vec<u64>,
    /// The alarms raised.
    pub alarms: Vec<(Alarm, AlarmBy)>,
}

#[derive(Clone, Debug)]
enum Stage {
    Head,
    /// Clock times of the revisions behind this one.
    Walls(Revision),
    /// Behind this version of this key.
    Files(Option<(Key, Revision)>),
    Dirs(Option<(Key, Revision)>),
    Done,
}

impl Store {
    /// Begins a walk of the state as it is now.
    pub fn begin_walk(&self) -> Cursor {
        let lengths = self.leases.iter().map(|(id, lease)| (*id, lease.ttl_s));
        let head = Head {
            revision: self.revision,
            compacted: self.compacted,
            leases: lengths.collect(),
            members: self.members.values().cloned().collect(),
            removed: self.removed.iter().copied().collect(),
            alarms: self
                .alarms
                .iter()
                .map(|(alarm, by)| (*alarm, *by))
                .collect(),
        };
        Cursor {
            head: Arc::new(head),
            stage: Stage::Head,
            one_stage: false,
        }
    }

    /// Hands out the next rows: at most `max` versions (not 0), and no more keys than that.
    /// Returns whether more are left.
    pub fn walk(&self, cursor: &mut Cursor, max: usize, out: &mut dyn FnMut(&[u8])) -> bool {
        assert!(max > 0, "a step leads on");
        let revision = cursor.head.revision;
        cursor.stage = match core::mem::replace(&mut cursor.stage, Stage::Done) {
            Stage::Head => {
                cursor.head.rows(out);
                Stage::Walls(Revision::ZERO)
            }
            Stage::Walls(behind) => match self.walls(behind, revision, max, out) {
                Some(last) => Stage::Walls(last),
                None if cursor.one_stage => Stage::Done,
                None => Stage::Files(None),
            },
            Stage::Files(after) => {
                match walk_map(&self.files, after, revision, max, out, file_row) {
                    Some(last) => Stage::Files(Some(last)),
                    None => Stage::Dirs(None),
                }
            }
            Stage::Dirs(after) => match walk_map(&self.dirs, after, revision, max, out, dir_row) {
                Some(last) => Stage::Dirs(Some(last)),
                None => Stage::Done,
            },
            Stage::Done => Stage::Done,
        };
        !matches!(cursor.stage, Stage::Done)
    }

    /// A row of the clock times of up to `max` revisions behind `behind`; the last of them when
    /// there may be more.
    fn walls(
        &self,
        behind: Revision,
        last: Revision,
        max: usize,
        out: &mut dyn FnMut(&[u8]),
    ) -> Option<Revision> {
        let changes = self.changes(behind.next());
        let mut left = max;
        let mut row = Vec::new();
        row.u8(WALLS);
        let mut before = (Revision::ZERO, UnixMs(0));
        for change in changes.take_while(|change| change.revision <= last) {
            if change.revision == before.0 {
                continue;
            }
            if left == 0 {
                break;
            }
            left -= 1;
            row.varint(change.revision.get() - before.0.get());
            row.varint(zigzag(before.1.0, change.wall.0));
            before = (change.revision, change.wall);
        }
        if left < max {
            out(&row);
        }
        (left == 0).then_some(before.0)
    }
}

/// Rows of up to `max` versions behind `after`; the last one when there may be more. A key whose
/// versions are many takes several rows.
fn walk_map<V: Versioned>(
    map: &KeyMap<Chain<V>>,
    after: Option<(Key, Revision)>,
    revision: Revision,
    max: usize,
    out: &mut dyn FnMut(&[u8]),
    encode: impl Fn(&Key, &[&V], &mut Vec<u8>),
) -> Option<(Key, Revision)> {
    let (start, mut behind) = match &after {
        None => (Bound::Unbounded, Revision::ZERO),
        Some((key, behind)) => (Bound::Included(&key[..]), *behind),
    };
    let mut left = max;
    let mut row = Vec::new();
    for (key, chain) in map.range((start, Bound::Unbounded)) {
        let goes_on = behind > Revision::ZERO;
        let versions: Vec<&V> = chain.between(behind, revision).take(left).collect();
        behind = Revision::ZERO;
        if !versions.is_empty() {
            encode(key, &versions, &mut row);
            out(&row);
        } else if goes_on {
            continue;
        }
        // A key without versions counts too: it takes time.
        left -= versions.len().max(1);
        if left == 0 {
            let last = versions.last().map_or(revision, |last| last.revision());
            return Some((key.clone(), last));
        }
    }
    None
}

impl Cursor {
    /// A walk of nothing but the clock times of the revisions up to this one.
    pub fn of_clock_times(revision: Revision) -> Self {
        Self::of(revision, Stage::Walls(Revision::ZERO))
    }

    /// A walk of nothing but the directories, as they stood at `revision`.
    pub fn of_directories(revision: Revision) -> Self {
        Self::of(revision, Stage::Dirs(None))
    }

    fn of(revision: Revision, stage: Stage) -> Self {
        let head = Head {
            revision,
            ..Head::default()
        };
        Self {
            head: Arc::new(head),
            stage,
            one_stage: true,
        }
    }

    /// The revision that the walk is of.
    pub fn revision(&self) -> Revision {
        self.head.revision
    }

    /// What was copied when the walk began.
    pub fn head(&self) -> &Head {
        &self.head
    }
}

impl Head {
    /// Hands out its rows, which come before all others.
    pub fn rows(&self, out: &mut dyn FnMut(&[u8])) {
        let mut row = Vec::new();
        row.u8(HEAD);
        row.u64(self.revision.get());
        row.i64(self.compacted);
        out(&row);
        for (id, ttl_s) in &self.leases {
            row.clear();
            row.u8(LEASE);
            row.i64(*id);
            row.i64(*ttl_s);
            out(&row);
        }
        for member in &self.members {
            row.clear();
            row.u8(MEMBER);
            member.encode(&mut row);
            out(&row);
        }
        for id in &self.removed {
            row.clear();
            row.u8(REMOVED);
            row.u64(*id);
            out(&row);
        }
        for (alarm, by) in &self.alarms {
            row.clear();
            row.u8(ALARM);
            alarm.encode(&mut row);
            by.encode(&mut row);
            out(&row);
        }
    }
}

/// The row of a key with some of its versions, oldest first.
pub fn file_row(key: &Key, versions: &[&FileVersion], row: &mut Vec<u8>) {
    begin_row(FILE, key, versions.len(), row);
    let mut before = Revision::ZERO;
    for version in versions {
        let (value, limit) = (&version.value, version.limit.ends());
        let logged = u8::from(matches!(value, Value::Logged(_)));
        let limited = match limit {
            None => 0,
            Some(Ends::Lease(_)) => 1,
            Some(Ends::Deadline(_)) => 2,
        };
        encode_stamp(*version, version.mark, &mut before, row);
        row.u8(logged | limited << 1);
        row.varint(version.revision.get() - version.create.get());
        row.varint(version.count);
        match value {
            Value::Inline(bytes) => {
                row.varint(bytes.len() as u64);
                row.extend_from_slice(bytes);
            }
            Value::Logged(at) => {
                for number in [at.segment, at.offset, at.len] {
                    row.varint(number.into());
                }
                row.u32(at.crc);
            }
        }
        match limit {
            None => {}
            Some(Ends::Lease(id)) => row.i64(*id),
            Some(Ends::Deadline(deadline)) => encode_deadline(deadline, row),
        }
    }
}

fn dir_row(path: &Key, versions: &[&DirVersion], row: &mut Vec<u8>) {
    begin_row(DIR, path, versions.len(), row);
    let mut before = Revision::ZERO;
    for version in versions {
        encode_stamp(*version, version.mark, &mut before, row);
        row.u8(u8::from(version.tombstone) | u8::from(version.deadline.is_some()) << 1);
        row.varint(version.created.get());
        row.varint(version.modified.get());
        if let Some(deadline) = &version.deadline {
            encode_deadline(deadline, row);
        }
    }
}

fn begin_row(kind: u8, key: &Key, versions: usize, row: &mut Vec<u8>) {
    row.clear();
    row.u8(kind);
    row.varint(key.len() as u64);
    row.extend_from_slice(key);
    row.varint(versions as u64);
}

/// What both classes have; the revision as its distance from the version before in the row.
fn encode_stamp(version: &impl Versioned, mark: Mark, before: &mut Revision, row: &mut Vec<u8>) {
    row.varint(version.revision().get() - before.get());
    *before = version.revision();
    row.varint(version.sub().into());
    row.u8(mark.action as u8 | u8::from(mark.covered) << 3 | u8::from(mark.refresh) << 4);
}

fn encode_deadline(deadline: &Deadline, row: &mut Vec<u8>) {
    row.varint(deadline.at.0);
    row.varint(deadline.shown.0);
}

/// The next number as its distance from the one before, near zero whichever way it went.
pub(crate) fn zigzag(before: u64, now: u64) -> u64 {
    let step = now.wrapping_sub(before) as i64;
    (step << 1 ^ step >> 63) as u64
}

/// What [`zigzag`] was told.
pub(crate) fn unzigzag(before: u64, step: u64) -> u64 {
    before.wrapping_add((step >> 1) ^ (step & 1).wrapping_neg())
}
