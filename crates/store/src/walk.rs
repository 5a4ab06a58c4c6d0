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
    /// Behind this key.
    Files(Option<Key>),
    Dirs(Option<Key>),
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

    /// Hands out the next rows, those of at most `max_keys` keys. Returns whether more are left.
    pub fn walk(&self, cursor: &mut Cursor, max_keys: usize, out: &mut dyn FnMut(&[u8])) -> bool {
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
                match walk_map(&self.files, after, revision, max_keys, out, row) {
                    Some(key) => Stage::Files(Some(key)),
                    None => Stage::Dirs(None),
                }
            }
            Stage::Dirs(after) => {
                let at = |change_of: &DirVersion| self.wall_of(change_of);
                let row = |key: &Key, versions: &[&DirVersion], out: &mut dyn FnMut(&[u8])| {
                    out(&dir_row(key, versions, &at));
                };
                match walk_map(&self.dirs, after, revision, max_keys, out, row) {
                    Some(key) => Stage::Dirs(Some(key)),
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

/// Rows of up to `max_keys` keys behind `after`; the last key when there may be more.
fn walk_map<V: Versioned>(
    map: &BTreeMap<Key, Chain<V>>,
    after: Option<Key>,
    revision: Revision,
    max_keys: usize,
    out: &mut dyn FnMut(&[u8]),
    row: impl Fn(&Key, &[&V], &mut dyn FnMut(&[u8])),
) -> Option<Key> {
    let start = after.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
    let mut last = None;
    for (key, chain) in map
        .range::<[u8], _>((start, Bound::Unbounded))
        .take(max_keys)
    {
        let versions: Vec<&V> = chain
            .iter()
            .take_while(|v| v.revision() <= revision)
            .collect();
        if !versions.is_empty() {
            row(key, &versions, out);
        }
        last = Some(key);
    }
    last.cloned()
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
/// What it accepts is a valid state: the head comes first, then leases and members, then keys and
/// directories, each in order and once.
#[derive(Debug, Default)]
pub struct Loader {
    store: Store,
    has_head: bool,
    files: Vec<(Key, Chain<FileVersion>)>,
    dirs: Vec<(Key, Chain<DirVersion>)>,
    /// The last row of a key or path: files stand before directories.
    last: Option<(u8, Key)>,
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
        match kind {
            HEAD => self.head(&mut read)?,
            LEASE => self.lease(&mut read)?,
            MEMBER => {
                let member = Member::decode(&mut read)?;
                self.store.members.insert(member.id, member);
            }
            FILE => self.file(&mut read)?,
            DIR => self.dir(&mut read)?,
            _ => return Err(DecodeError::Bad("row")),
        }
        read.finish()
    }

    /// The store, once every row was taken.
    ///
    /// # Errors
    /// [`DecodeError`] when the head is missing.
    pub fn finish(self) -> Result<Store, DecodeError> {
        let Self {
            mut store,
            has_head,
            files,
            dirs,
            last: _,
            mut history,
        } = self;
        if !has_head {
            return Err(DecodeError::Bad("checkpoint without a head"));
        }
        history.sort_unstable_by_key(|change| (change.revision, change.sub));
        store.history = history.into();
        store.files = files.into_iter().collect();
        store.dirs = dirs.into_iter().collect();
        Ok(store)
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

    fn file(&mut self, read: &mut Read) -> Result<(), DecodeError> {
        let key = self.key(FILE, read)?;
        let mut chain = self.chain(&key, Class::File, read, decode_file)?;
        if chain.compact(self.store.oldest(), |_| {}) {
            return Ok(());
        }
        for version in chain.iter() {
            self.store.count(&key, version);
        }
        if let Some(live) = chain.live() {
            if let Limit::Lease(id) = live.limit
                && !self.store.leases.contains_key(&id)
            {
                return Err(DecodeError::Bad("lease of a key"));
            }
            self.store.limit(&key, &live.limit);
        }
        self.files.push((key, chain));
        Ok(())
    }

    fn dir(&mut self, read: &mut Read) -> Result<(), DecodeError> {
        let path = self.key(DIR, read)?;
        let mut chain = self.chain(&path, Class::Dir, read, decode_dir)?;
        if chain.compact(self.store.oldest(), |_| {}) {
            return Ok(());
        }
        if let Some(deadline) = chain.live().and_then(|dir| dir.deadline.as_ref()) {
            self.store
                .deadlines
                .insert((deadline.at, path.clone(), Class::Dir));
        }
        self.dirs.push((path, chain));
        Ok(())
    }

    /// The key or path of a row, which stands behind all before it.
    fn key(&mut self, kind: u8, read: &mut Read) -> Result<Key, DecodeError> {
        let key = Key::from(&read.bytes()?[..]);
        let this = Some((kind, key.clone()));
        if self.last >= this {
            return Err(DecodeError::Bad("order of keys"));
        }
        self.last = this;
        Ok(key)
    }

    fn chain<V: Versioned>(
        &mut self,
        key: &Key,
        class: Class,
        read: &mut Read,
        decode: fn(&mut Read) -> Result<(V, UnixMs), DecodeError>,
    ) -> Result<Chain<V>, DecodeError> {
        let count = read.count()?;
        let mut chain: Option<Chain<V>> = None;
        for _ in 0..count {
            let (version, wall) = decode(read)?;
            let (revision, sub) = (version.revision(), version.sub());
            if revision > self.store.revision {
                return Err(DecodeError::Bad("revision of a version"));
            }
            if revision >= self.store.oldest() {
                self.history.push(Change {
                    revision,
                    sub,
                    class,
                    key: key.clone(),
                    wall,
                });
            }
            match &mut chain {
                Some(chain) if chain.newest().revision() < revision => chain.push(version),
                Some(_) => return Err(DecodeError::Bad("order of versions")),
                None => chain = Some(Chain::new(version)),
            }
        }
        chain.ok_or(DecodeError::Bad("key without versions"))
    }
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
