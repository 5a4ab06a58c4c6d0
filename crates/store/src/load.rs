//! A store from the rows of a walk.
//!
//! Rows come from a disk, later from peers: what is no valid state is refused, never asserted.

use alloc::boxed::Box;
use alloc::vec::Vec;
use bytes::Bytes;

use crate::chain::{Chain, Versioned};
use crate::codec::{DecodeError, Read};
use crate::store::digest_of;
use crate::walk::{ALARM, DIR, FILE, HEAD, LEASE, MEMBER, REMOVED, WALLS, unzigzag};
use crate::{
    Action, Alarm, AlarmBy, Change, Class, ClusterTime, Deadline, DirVersion, FileVersion, Key,
    Lease, Limit, Mark, Member, Revision, Short, Store, UnixMs, Value, ValueAt,
};

/// Builds a store from the rows of a walk.
///
/// What it accepts is a valid state: the head comes first, keys and directories in their order,
/// the versions of each in theirs.
#[derive(Debug, Default)]
pub struct Loader {
    store: Store,
    has_head: bool,
    /// The last key and directory: more of their versions may follow.
    file: Option<(Key, Chain<FileVersion>)>,
    dir: Option<(Key, Chain<DirVersion>)>,
    history: Vec<Change>,
    /// Clock times by revision, rising.
    walls: Vec<(Revision, UnixMs)>,
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
            REMOVED => {
                self.store.removed.insert(read.u64()?);
            }
            ALARM => {
                let alarm = Alarm::decode(&mut read)?;
                self.store.alarms.insert(alarm, AlarmBy::decode(&mut read)?);
            }
            WALLS => return self.walls(read),
            FILE => {
                let (last, history) = (&mut self.file, &mut self.history);
                let store = &self.store;
                let done = versions(store, last, history, &mut read, Class::File, decode_file)?;
                self.take_file(done)?;
            }
            DIR => {
                let (last, history) = (&mut self.dir, &mut self.history);
                let store = &self.store;
                let done = versions(store, last, history, &mut read, Class::Dir, decode_dir)?;
                self.take_dir(done);
            }
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
        let (file, dir) = (self.file.take(), self.dir.take());
        self.take_file(file)?;
        self.take_dir(dir);
        let mut history = self.history;
        history.sort_unstable_by_key(|change| (change.revision, change.sub));
        let mut walls = self.walls.into_iter().peekable();
        let timed = history.into_iter().map(|mut change| {
            while walls.next_if(|(at, _)| *at < change.revision).is_some() {}
            let wall = walls.peek().filter(|(at, _)| *at == change.revision);
            change.wall = wall.map_or(UnixMs(0), |(_, wall)| *wall);
            change
        });
        self.store.history = timed.collect();
        Ok(self.store)
    }

    /// Takes a key whose versions are complete. What was not purged when the walk began is dropped
    /// now.
    fn take_file(&mut self, done: Option<(Key, Chain<FileVersion>)>) -> Result<(), DecodeError> {
        let Some((key, mut chain)) = done else {
            return Ok(());
        };
        let store = &mut self.store;
        if chain.compact(store.oldest(), |_| {}) {
            return Ok(());
        }
        for version in chain.iter() {
            store.count(&key, version);
        }
        if let Some(live) = chain.live() {
            let lease = live.limit.lease();
            if lease != 0 && !store.leases.contains_key(&lease) {
                return Err(DecodeError::Bad("lease of a key"));
            }
            store.limit(&key, &live.limit);
            store.digest = store.digest.wrapping_add(digest_of(&key, live));
        }
        store.files.push(key, chain);
        Ok(())
    }

    fn take_dir(&mut self, done: Option<(Key, Chain<DirVersion>)>) {
        let Some((path, mut chain)) = done else {
            return;
        };
        let store = &mut self.store;
        if chain.compact(store.oldest(), |_| {}) {
            return;
        }
        if let Some(deadline) = chain.live().and_then(|dir| dir.deadline.as_ref()) {
            let due = (deadline.at, path.clone(), Class::Dir);
            store.deadlines.insert(due);
        }
        store.dirs.push(path, chain);
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

    fn walls(&mut self, mut read: Read) -> Result<(), DecodeError> {
        let mut before = (Revision::ZERO, UnixMs(0));
        while !read.is_empty() {
            let at = decode_step(&mut read, before.0)?;
            let last = self.walls.last().map_or(Revision::ZERO, |(last, _)| *last);
            if at <= last || at > self.store.revision {
                return Err(DecodeError::Bad("order of clock times"));
            }
            before = (at, UnixMs(unzigzag(before.1.0, read.varint()?)));
            self.walls.push(before);
        }
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

/// Reads a key's row of versions: behind all keys so far, or more of the last one's. Returns the
/// key before, once its versions are complete.
fn versions<V: Versioned>(
    head: &Store,
    last: &mut Option<(Key, Chain<V>)>,
    history: &mut Vec<Change>,
    read: &mut Read,
    class: Class,
    decode: fn(&mut Read, Revision) -> Result<V, DecodeError>,
) -> Result<Option<(Key, Chain<V>)>, DecodeError> {
    let bytes = read.short_bytes()?;
    let before = match last {
        Some((last, _)) if last[..] > bytes[..] => return Err(DecodeError::Bad("order of keys")),
        Some((last, _)) if last[..] == bytes[..] => None,
        Some(_) | None => last.take(),
    };
    let key = match last {
        Some((last, _)) => last.clone(),
        None => Key::from(&bytes[..]),
    };
    let count = read.varint()?;
    if count == 0 {
        return Err(DecodeError::Bad("key without versions"));
    }
    let mut revision = Revision::ZERO;
    for _ in 0..count {
        let version = decode(read, revision)?;
        let sub = version.sub();
        revision = version.revision();
        if revision > head.revision {
            return Err(DecodeError::Bad("revision of a version"));
        }
        if revision >= head.oldest() {
            history.push(Change {
                revision,
                sub,
                class,
                key: key.clone(),
                wall: UnixMs(0),
            });
        }
        match last {
            None => *last = Some((key.clone(), Chain::new(version))),
            Some((_, chain)) if chain.newest().revision() < revision => chain.push(version),
            Some(_) => return Err(DecodeError::Bad("order of versions")),
        }
    }
    Ok(before)
}

/// The key and versions of a row that [`crate::file_row`] wrote; `None` for another kind of row.
///
/// # Errors
/// [`DecodeError`].
pub fn file_versions(row: &Bytes) -> Result<Option<(Key, Vec<FileVersion>)>, DecodeError> {
    let mut read = Read::new(row.clone());
    if read.u8()? != FILE {
        return Ok(None);
    }
    let key = Key::from(&read.short_bytes()?[..]);
    let count = read.varint()?;
    let mut versions: Vec<FileVersion> = Vec::new();
    for _ in 0..count {
        let before = versions.last().map_or(Revision::ZERO, |last| last.revision);
        versions.push(decode_file(&mut read, before)?);
    }
    read.finish()?;
    Ok(Some((key, versions)))
}

fn decode_file(read: &mut Read, before: Revision) -> Result<FileVersion, DecodeError> {
    let (revision, sub, mark) = decode_stamp(read, before)?;
    let flags = read.u8()?;
    let age = read.varint()?;
    let create = revision.get().checked_sub(age);
    let create = Revision::new(create.ok_or(DecodeError::Bad("revision"))?);
    let count = read.varint()?;
    if count > revision.get() {
        return Err(DecodeError::Bad("version"));
    }
    let value = if flags & 1 == 0 {
        Value::Inline(Short::new(&read.short_bytes()?).ok_or(DecodeError::Bad("value"))?)
    } else {
        Value::Logged(ValueAt {
            segment: read.varint32()?,
            offset: read.varint32()?,
            len: read.varint32()?,
            crc: read.u32()?,
        })
    };
    if matches!(value, Value::Logged(at) if at.len == 0) {
        return Err(DecodeError::Bad("value"));
    }
    let limit = match flags >> 1 {
        0 => Limit::NONE,
        1 => Limit::from_lease(read.i64()?),
        2 => Limit::from_deadline(Some(decode_deadline(read)?)),
        _ => return Err(DecodeError::Bad("limit")),
    };
    Ok(FileVersion {
        revision,
        create,
        count,
        sub,
        mark,
        value,
        limit,
    })
}

fn decode_dir(read: &mut Read, before: Revision) -> Result<DirVersion, DecodeError> {
    let (revision, sub, mark) = decode_stamp(read, before)?;
    let flags = read.u8()?;
    if flags > 3 {
        return Err(DecodeError::Bad("directory"));
    }
    Ok(DirVersion {
        revision,
        sub,
        mark,
        tombstone: flags & 1 == 1,
        created: decode_step(read, Revision::ZERO)?,
        modified: decode_step(read, Revision::ZERO)?,
        deadline: match flags >> 1 {
            0 => None,
            _ => Some(Box::new(decode_deadline(read)?)),
        },
    })
}

fn decode_stamp(read: &mut Read, before: Revision) -> Result<(Revision, u32, Mark), DecodeError> {
    let revision = decode_step(read, before)?;
    let sub = read.varint32()?;
    let bits = read.u8()?;
    let action = Action::from_number(bits & 7).ok_or(DecodeError::Bad("action"))?;
    let mark = match bits >> 3 {
        bits @ 0..=3 => Mark {
            action,
            covered: bits & 1 == 1,
            refresh: bits & 2 == 2,
        },
        _ => return Err(DecodeError::Bad("mark")),
    };
    Ok((revision, sub, mark))
}

/// A revision as its distance from the one before.
fn decode_step(read: &mut Read, before: Revision) -> Result<Revision, DecodeError> {
    let number = before.get().checked_add(read.varint()?);
    let number = number.filter(|&number| number <= i64::MAX as u64);
    number
        .map(Revision::new)
        .ok_or(DecodeError::Bad("revision"))
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
        at: ClusterTime(read.varint()?),
        shown: UnixMs(read.varint()?),
    })
}
