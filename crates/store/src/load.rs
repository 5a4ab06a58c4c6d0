//! A store from the rows of a walk.
//!
//! Rows come from a disk, later from peers: what is no valid state is refused, never asserted.

use alloc::boxed::Box;
use alloc::vec::Vec;
use bytes::Bytes;

use crate::chain::{Chain, Versioned};
use crate::codec::{DecodeError, Read};
use crate::command::Member;
use crate::walk::{ALARM, DIR, FILE, HEAD, LEASE, MEMBER};
use crate::{
    Action, Alarm, AlarmBy, Change, Class, ClusterTime, Deadline, DirVersion, FileVersion, Key,
    Lease, Limit, Mark, Revision, Store, UnixMs, Value, ValueAt,
};

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
            ALARM => {
                let alarm = Alarm::decode(&mut read)?;
                self.store.alarms.insert(alarm, AlarmBy::decode(&mut read)?);
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
