//! The state as rows: what a checkpoint holds, and later what a snapshot sends.
//!
//! A walk is of one revision, in chunks between which commands are applied: versions are never
//! changed in place, and [`Store::purge`] is not called while one is under way.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use bytes::Bytes;
use core::ops::Bound;

use crate::chain::{Chain, Versioned};
use crate::codec::{DecodeError, Read, Write};
use crate::command::Member;
use crate::{
    Action, Change, Class, ClusterTime, Deadline, DirVersion, FileVersion, Key, Lease, Limit, Mark,
    Revision, Store, UnixMs, Value, ValueAt,
};

const HEAD: u8 = 1;
const LEASE: u8 = 2;
const MEMBER: u8 = 3;
const FILE: u8 = 4;
const DIR: u8 = 5;

/// How far a walk has come.
#[derive(Debug)]
pub struct Cursor {
    revision: Revision,
    compacted: i64,
    /// What has no versions is copied when the walk begins.
    leases: Vec<(i64, i64)>,
    members: Vec<Member>,
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

fn decode_mark(read: &mut Read) -> Result<Mark, DecodeError> {
    let action = match read.u8()? {
        0 => Action::Set,
        1 => Action::Create,
        2 => Action::Update,
        3 => Action::CompareAndSwap,
        4 => Action::Delete,
        5 => Action::CompareAndDelete,
        6 => Action::Expire,
        _ => return Err(DecodeError::Bad("action")),
    };
    Ok(Mark {
        action,
        covered: read.bool()?,
        refresh: read.bool()?,
    })
}

fn decode_revision(read: &mut Read) -> Result<Revision, DecodeError> {
    let number = read.u64()?;
    if number > i64::MAX as u64 {
        return Err(DecodeError::Bad("revision"));
    }
    Ok(Revision::new(number))
}

fn decode_deadline(read: &mut Read) -> Result<Deadline, DecodeError> {
    Ok(Deadline {
        at: ClusterTime(read.u64()?),
        shown: UnixMs(read.u64()?),
    })
}

/// Builds a store from the rows of a walk.
///
/// What it accepts is a valid state: the head comes first, keys and directories in their order,
/// the versions of each in theirs.
#[derive(Debug, Default)]
pub struct Loader {
    store: Store,
    has_head: bool,
    files: Vec<(Key, Chain<FileVersion>)>,
    dirs: Vec<(Key, Chain<DirVersion>)>,
    history: Vec<Change>,
}

impl Loader {
    /// Takes the next row.
    ///
    /// # Errors
    /// [`DecodeError`] for bytes that no walk wrote.
    pub fn row(&mut self, row: Bytes) -> Result<(), DecodeError> {
        let mut read = Read::new(row);
        let kind = read.u8()?;
        if (kind == HEAD) == self.has_head {
            return Err(DecodeError::Bad("place of the head"));
        }
        let (store, history) = (&self.store, &mut self.history);
        match kind {
            HEAD => self.head(&mut read)?,
            LEASE => self.lease(&mut read)?,
            MEMBER => {
                let member = Member::decode(&mut read)?;
                self.store.members.insert(member.id, member);
            }
            FILE => versions(
                store,
                &mut self.files,
                history,
                &mut read,
                Class::File,
                decode_file,
            )?,
            DIR => versions(
                store,
                &mut self.dirs,
                history,
                &mut read,
                Class::Dir,
                decode_dir,
            )?,
            _ => return Err(DecodeError::Bad("row")),
        }
        read.finish()
    }

    /// The store, once every row was taken.
    ///
    /// # Errors
    /// [`DecodeError`] when the head or a lease is missing.
    pub fn finish(mut self) -> Result<Store, DecodeError> {
        if !self.has_head {
            return Err(DecodeError::Bad("checkpoint without a head"));
        }
        let mut history = self.history;
        history.sort_unstable_by_key(|change| (change.revision, change.sub));
        let store = &mut self.store;
        store.history = history.into();
        // What was not purged when the walk began is dropped now.
        let oldest = store.oldest();
        self.files
            .retain_mut(|(_, chain)| !chain.compact(oldest, |_| {}));
        self.dirs
            .retain_mut(|(_, chain)| !chain.compact(oldest, |_| {}));
        for (key, chain) in &self.files {
            for version in chain.iter() {
                store.count(key, version);
            }
            let Some(live) = chain.live() else { continue };
            if let Limit::Lease(id) = live.limit
                && !store.leases.contains_key(&id)
            {
                return Err(DecodeError::Bad("lease of a key"));
            }
            store.limit(key, &live.limit);
        }
        for (path, chain) in &self.dirs {
            if let Some(deadline) = chain.live().and_then(|dir| dir.deadline.as_ref()) {
                let due = (deadline.at, path.clone(), Class::Dir);
                store.deadlines.insert(due);
            }
        }
        store.files = self.files.into_iter().collect();
        store.dirs = self.dirs.into_iter().collect();
        Ok(self.store)
    }

    fn head(&mut self, read: &mut Read) -> Result<(), DecodeError> {
        let revision = decode_revision(read)?;
        let compacted = read.i64()?;
        // The last revision is left free: there is none after it.
        if revision < Revision::FIRST || revision.to_wire() == i64::MAX {
            return Err(DecodeError::Bad("revision"));
        }
        if !(-1..=revision.to_wire()).contains(&compacted) {
            return Err(DecodeError::Bad("compacted revision"));
        }
        (self.store.revision, self.store.compacted) = (revision, compacted);
        self.has_head = true;
        Ok(())
    }

    fn lease(&mut self, read: &mut Read) -> Result<(), DecodeError> {
        let id = read.i64()?;
        let lease = Lease {
            ttl_s: read.i64()?,
            keys: Default::default(),
        };
        match self.store.leases.insert(id, lease) {
            None => Ok(()),
            Some(_) => Err(DecodeError::Bad("lease given twice")),
        }
    }
}

/// Reads a key's row of versions: behind all keys so far, or more of the last one's.
fn versions<V: Versioned>(
    head: &Store,
    chains: &mut Vec<(Key, Chain<V>)>,
    history: &mut Vec<Change>,
    read: &mut Read,
    class: Class,
    decode: fn(&mut Read) -> Result<(V, UnixMs), DecodeError>,
) -> Result<(), DecodeError> {
    let key = Key::from(&read.bytes()?[..]);
    let last = chains.last().map(|(last, _)| last);
    let (mut more, key) = match last {
        Some(last) if *last > key => return Err(DecodeError::Bad("order of keys")),
        Some(last) if *last == key => (true, last.clone()),
        Some(_) | None => (false, key),
    };
    let count = read.count()?;
    if count == 0 {
        return Err(DecodeError::Bad("key without versions"));
    }
    for _ in 0..count {
        let (version, wall) = decode(read)?;
        let (revision, sub) = (version.revision(), version.sub());
        if revision > head.revision {
            return Err(DecodeError::Bad("revision of a version"));
        }
        if revision >= head.oldest() {
            history.push(Change {
                revision,
                sub,
                class,
                key: key.clone(),
                wall,
            });
        }
        match chains.last_mut().filter(|_| more) {
            None => chains.push((key.clone(), Chain::new(version))),
            Some((_, chain)) if chain.newest().revision() < revision => chain.push(version),
            Some(_) => return Err(DecodeError::Bad("order of versions")),
        }
        more = true;
    }
    Ok(())
}

fn decode_file(read: &mut Read) -> Result<(FileVersion, UnixMs), DecodeError> {
    let revision = decode_revision(read)?;
    let sub = read.u32()?;
    let wall = UnixMs(read.u64()?);
    let mark = decode_mark(read)?;
    let create = decode_revision(read)?;
    let count = read.u64()?;
    if count > revision.get() {
        return Err(DecodeError::Bad("version"));
    }
    let value = match read.u8()? {
        0 => Value::Inline(Box::from(&read.bytes()?[..])),
        1 => Value::Logged(ValueAt {
            segment: read.u32()?,
            offset: read.u32()?,
            len: read.u32()?,
            crc: read.u32()?,
        }),
        _ => return Err(DecodeError::Bad("value")),
    };
    if matches!(value, Value::Logged(at) if at.len == 0) {
        return Err(DecodeError::Bad("value"));
    }
    let limit = match read.u8()? {
        0 => Limit::None,
        1 => Limit::Lease(read.i64()?),
        2 => Limit::Deadline(Box::new(decode_deadline(read)?)),
        _ => return Err(DecodeError::Bad("limit")),
    };
    Ok((
        FileVersion {
            revision,
            create,
            count,
            sub,
            mark,
            value,
            limit,
        },
        wall,
    ))
}

fn decode_dir(read: &mut Read) -> Result<(DirVersion, UnixMs), DecodeError> {
    let revision = decode_revision(read)?;
    let sub = read.u32()?;
    let wall = UnixMs(read.u64()?);
    let mark = decode_mark(read)?;
    let tombstone = read.bool()?;
    let created = decode_revision(read)?;
    let modified = decode_revision(read)?;
    let deadline = if read.bool()? {
        Some(Box::new(decode_deadline(read)?))
    } else {
        None
    };
    let version = DirVersion {
        revision,
        sub,
        mark,
        tombstone,
        created,
        modified,
        deadline,
    };
    Ok((version, wall))
}
