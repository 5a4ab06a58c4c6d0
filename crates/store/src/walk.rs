//! The state as rows: what a checkpoint holds, and later what a snapshot sends.
//!
//! A walk is of one revision, in chunks between which commands are applied: versions are never
//! changed in place, and [`Store::purge`] is not called while one is under way.
//!
//! The bytes are in docs/formats/state.md.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::ops::Bound;

use crate::chain::{Chain, Versioned};
use crate::codec::Write;
use crate::command::Member;
use crate::{
    Alarm, AlarmBy, DirVersion, FileVersion, Key, Limit, Mark, Revision, Store, UnixMs, Value,
};

pub(crate) const HEAD: u8 = 1;
pub(crate) const LEASE: u8 = 2;
pub(crate) const MEMBER: u8 = 3;
pub(crate) const FILE: u8 = 4;
pub(crate) const DIR: u8 = 5;
pub(crate) const ALARM: u8 = 6;

/// How far a walk has come.
#[derive(Debug)]
pub struct Cursor {
    revision: Revision,
    compacted: i64,
    /// What has no versions is copied when the walk begins.
    leases: Vec<(i64, i64)>,
    members: Vec<Member>,
    alarms: Vec<(Alarm, AlarmBy)>,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    Head,
    /// Behind this version of this key.
    Files(Option<(Key, Revision)>),
    Dirs(Option<(Key, Revision)>),
    Done,
}

impl Store {
    /// Begins a walk of the state as it is now.
    pub fn begin_walk(&self) -> Cursor {
        Cursor {
            revision: self.revision,
            compacted: self.compacted,
            leases: self
                .leases
                .iter()
                .map(|(id, lease)| (*id, lease.ttl_s))
                .collect(),
            members: self.members.values().cloned().collect(),
            alarms: self
                .alarms
                .iter()
                .map(|(alarm, by)| (*alarm, *by))
                .collect(),
            stage: Stage::Head,
        }
    }

    /// Hands out the next rows: at most `max` versions (not 0), and no more keys than that.
    /// Returns whether more are left.
    pub fn walk(&self, cursor: &mut Cursor, max: usize, out: &mut dyn FnMut(&[u8])) -> bool {
        assert!(max > 0, "a step leads on");
        let revision = cursor.revision;
        cursor.stage = match core::mem::replace(&mut cursor.stage, Stage::Done) {
            Stage::Head => {
                cursor.head(out);
                Stage::Files(None)
            }
            Stage::Files(after) => {
                let at = |change_of: &FileVersion| self.wall_of(change_of);
                let row = |key: &Key, versions: &[&FileVersion], out: &mut dyn FnMut(&[u8])| {
                    out(&file_row(key, versions, &at));
                };
                match walk_map(&self.files, after, revision, max, out, row) {
                    Some(last) => Stage::Files(Some(last)),
                    None => Stage::Dirs(None),
                }
            }
            Stage::Dirs(after) => {
                let at = |change_of: &DirVersion| self.wall_of(change_of);
                let row = |key: &Key, versions: &[&DirVersion], out: &mut dyn FnMut(&[u8])| {
                    out(&dir_row(key, versions, &at));
                };
                match walk_map(&self.dirs, after, revision, max, out, row) {
                    Some(last) => Stage::Dirs(Some(last)),
                    None => Stage::Done,
                }
            }
            Stage::Done => Stage::Done,
        };
        !matches!(cursor.stage, Stage::Done)
    }

    /// The wall time of the change that wrote a version; 0 when history no longer holds it.
    fn wall_of(&self, version: &impl Versioned) -> UnixMs {
        let wanted = (version.revision(), version.sub());
        let found = self
            .history
            .binary_search_by_key(&wanted, |c| (c.revision, c.sub));
        found.map_or(UnixMs(0), |at| self.history[at].wall)
    }
}

/// Rows of up to `max` versions behind `after`; the last one when there may be more. A key whose
/// versions are many takes several rows.
fn walk_map<V: Versioned>(
    map: &BTreeMap<Key, Chain<V>>,
    after: Option<(Key, Revision)>,
    revision: Revision,
    max: usize,
    out: &mut dyn FnMut(&[u8]),
    row: impl Fn(&Key, &[&V], &mut dyn FnMut(&[u8])),
) -> Option<(Key, Revision)> {
    let (start, mut behind) = match &after {
        None => (Bound::Unbounded, Revision::ZERO),
        Some((key, behind)) => (Bound::Included(&key[..]), *behind),
    };
    let mut left = max;
    for (key, chain) in map.range::<[u8], _>((start, Bound::Unbounded)) {
        let goes_on = behind > Revision::ZERO;
        let versions: Vec<&V> = chain.between(behind, revision).take(left).collect();
        behind = Revision::ZERO;
        if !versions.is_empty() {
            row(key, &versions, out);
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
    /// The revision that the walk is of.
    pub fn revision(&self) -> Revision {
        self.revision
    }

    fn head(&self, out: &mut dyn FnMut(&[u8])) {
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
        for (alarm, by) in &self.alarms {
            row.clear();
            row.u8(ALARM);
            alarm.encode(&mut row);
            by.encode(&mut row);
            out(&row);
        }
    }
}

fn file_row(
    key: &Key,
    versions: &[&FileVersion],
    wall: &dyn Fn(&FileVersion) -> UnixMs,
) -> Vec<u8> {
    let mut row = Vec::with_capacity(96 + key.len());
    row.u8(FILE);
    row.bytes(key);
    row.u32(versions.len() as u32);
    for version in versions {
        row.u64(version.revision.get());
        row.u32(version.sub);
        row.u64(wall(version).0);
        encode_mark(version.mark, &mut row);
        row.u64(version.create.get());
        row.u64(version.count);
        match &version.value {
            Value::Inline(bytes) => {
                row.u8(0);
                row.bytes(bytes);
            }
            Value::Logged(at) => {
                row.u8(1);
                for number in [at.segment, at.offset, at.len, at.crc] {
                    row.u32(number);
                }
            }
        }
        match &version.limit {
            Limit::None => row.u8(0),
            Limit::Lease(id) => {
                row.u8(1);
                row.i64(*id);
            }
            Limit::Deadline(deadline) => {
                row.u8(2);
                row.u64(deadline.at.0);
                row.u64(deadline.shown.0);
            }
        }
    }
    row
}

fn dir_row(path: &Key, versions: &[&DirVersion], wall: &dyn Fn(&DirVersion) -> UnixMs) -> Vec<u8> {
    let mut row = Vec::with_capacity(64 + path.len());
    row.u8(DIR);
    row.bytes(path);
    row.u32(versions.len() as u32);
    for version in versions {
        row.u64(version.revision.get());
        row.u32(version.sub);
        row.u64(wall(version).0);
        encode_mark(version.mark, &mut row);
        row.bool(version.tombstone);
        row.u64(version.created.get());
        row.u64(version.modified.get());
        row.bool(version.deadline.is_some());
        if let Some(deadline) = &version.deadline {
            row.u64(deadline.at.0);
            row.u64(deadline.shown.0);
        }
    }
    row
}

fn encode_mark(mark: Mark, row: &mut Vec<u8>) {
    row.u8(mark.action as u8);
    row.bool(mark.covered);
    row.bool(mark.refresh);
}
