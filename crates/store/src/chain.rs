//! The versions of one key or directory, oldest first, newest inline.
//!
//! C1. Revisions rise strictly along a chain: one class and key has one version a revision.

use alloc::boxed::Box;
use alloc::collections::VecDeque;

use crate::{ClusterTime, Revision, UnixMs, Value};

/// What a v2 client is told that happened.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u8)]
pub enum Action {
    /// v2 `set`.
    Set,
    /// v2 create, POST, or a v3 put of a new key.
    Create,
    /// v2 update, or a v3 put of an existing key.
    Update,
    /// v2 compare-and-swap.
    CompareAndSwap,
    /// A delete of either dialect.
    Delete,
    /// v2 compare-and-delete.
    CompareAndDelete,
    /// The end of a TTL or a lease.
    Expire,
}

impl Action {
    /// The action that is written as `number`.
    pub const fn from_number(number: u8) -> Option<Self> {
        Some(match number {
            0 => Self::Set,
            1 => Self::Create,
            2 => Self::Update,
            3 => Self::CompareAndSwap,
            4 => Self::Delete,
            5 => Self::CompareAndDelete,
            6 => Self::Expire,
            _ => return None,
        })
    }
}

/// How v2 sees a version (one-store.md M4).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Mark {
    /// The event's action.
    pub action: Action,
    /// v2 has no event for it: another record of the revision tells it.
    pub covered: bool,
    /// It was a refresh: v3 sees a put, v2 watchers nothing.
    pub refresh: bool,
}

impl Mark {
    /// An ordinary v2 event.
    pub const fn shown(action: Action) -> Self {
        Self {
            action,
            covered: false,
            refresh: false,
        }
    }

    /// No v2 event of its own.
    pub const fn covered(action: Action) -> Self {
        Self {
            action,
            covered: true,
            refresh: false,
        }
    }
}

/// A v2 time to live.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Deadline {
    /// When it ends, by cluster time.
    pub at: ClusterTime,
    /// The `expiration` shown: the proposing member's wall clock plus the ttl.
    pub shown: UnixMs,
}

/// What ends a key's life by itself, if anything does. Boxed: rare, and every version has one.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Limit(Option<Box<Ends>>);

/// What ends a key: never both (one-store.md M8).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Ends {
    /// A v3 lease.
    Lease(i64),
    /// A v2 TTL.
    Deadline(Deadline),
}

impl Limit {
    /// Nothing ends it.
    pub const NONE: Self = Self(None);

    /// What ends it.
    pub fn ends(&self) -> Option<&Ends> {
        self.0.as_deref()
    }

    /// The lease's id, 0 for none, as the wire wants it.
    pub fn lease(&self) -> i64 {
        match self.ends() {
            Some(Ends::Lease(id)) => *id,
            Some(Ends::Deadline(_)) | None => 0,
        }
    }

    /// The deadline, if there is one.
    pub fn deadline(&self) -> Option<&Deadline> {
        match self.ends() {
            Some(Ends::Deadline(deadline)) => Some(deadline),
            Some(Ends::Lease(_)) | None => None,
        }
    }

    /// From a lease's id, 0 for none.
    pub fn from_lease(id: i64) -> Self {
        Self((id != 0).then(|| Box::new(Ends::Lease(id))))
    }

    /// From a deadline or none.
    pub fn from_deadline(deadline: Option<Deadline>) -> Self {
        Self(deadline.map(|deadline| Box::new(Ends::Deadline(deadline))))
    }
}

/// A version of a v3 key, which is a v2 file if its name is a path.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct FileVersion {
    /// When it was written (v3 `mod_revision`, v2 `modifiedIndex`).
    pub revision: Revision,
    /// When this life of the key began; of a tombstone, of the life it ended.
    pub create: Revision,
    /// Writes in this life, from 1; 0 is a tombstone.
    pub count: u64,
    /// Its order among the writes of its revision.
    pub sub: u32,
    /// How v2 sees it.
    pub mark: Mark,
    /// The value; empty in a tombstone.
    pub value: Value,
    /// What ends it.
    pub limit: Limit,
}

/// A version of a directory entry, which only v2 sees (one-store.md M1).
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct DirVersion {
    /// When it was written.
    pub revision: Revision,
    /// Its order among the writes of its revision.
    pub sub: u32,
    /// How v2 sees it.
    pub mark: Mark,
    /// The directory is gone.
    pub tombstone: bool,
    /// v2 `createdIndex`.
    pub created: Revision,
    /// v2 `modifiedIndex`, which an update of a directory leaves alone.
    pub modified: Revision,
    /// Its time to live.
    pub deadline: Option<Box<Deadline>>,
}

/// What [`Chain`] asks of a version.
pub(crate) trait Versioned {
    /// When it was written.
    fn revision(&self) -> Revision;
    /// Its order among the writes of its revision.
    fn sub(&self) -> u32;
    /// Whether it says that the thing is gone.
    fn is_tombstone(&self) -> bool;
}

impl Versioned for FileVersion {
    fn revision(&self) -> Revision {
        self.revision
    }
    fn sub(&self) -> u32 {
        self.sub
    }
    fn is_tombstone(&self) -> bool {
        self.count == 0
    }
}

impl Versioned for DirVersion {
    fn revision(&self) -> Revision {
        self.revision
    }
    fn sub(&self) -> u32 {
        self.sub
    }
    fn is_tombstone(&self) -> bool {
        self.tombstone
    }
}

/// All versions of one key that are not compacted.
#[derive(Clone, Debug)]
pub(crate) struct Chain<V> {
    newest: V,
    /// Ascending; shortened at the front. Boxed so that a key of one version, the usual case, pays
    /// one word.
    #[allow(clippy::box_collection)]
    older: Option<Box<VecDeque<V>>>,
}

impl<V: Versioned> Chain<V> {
    /// A chain of one.
    pub(crate) fn new(version: V) -> Self {
        Self {
            newest: version,
            older: None,
        }
    }

    /// Adds a version.
    pub(crate) fn push(&mut self, version: V) {
        // C1.
        assert!(
            self.newest.revision() < version.revision(),
            "versions of a key rise"
        );
        let previous = core::mem::replace(&mut self.newest, version);
        self.older.get_or_insert_default().push_back(previous);
    }

    /// The newest version, a tombstone included.
    pub(crate) fn newest(&self) -> &V {
        &self.newest
    }

    /// The newest version if it is no tombstone.
    pub(crate) fn live(&self) -> Option<&V> {
        Some(&self.newest).filter(|version| !version.is_tombstone())
    }

    /// What stood at `revision`, a tombstone included.
    pub(crate) fn at(&self, revision: Revision) -> Option<&V> {
        if self.newest.revision() <= revision {
            return Some(&self.newest);
        }
        let older = self.older()?;
        let count = older.partition_point(|version| version.revision() <= revision);
        older.get(count.checked_sub(1)?)
    }

    /// What stood at `revision`, alive.
    pub(crate) fn live_at(&self, revision: Revision) -> Option<&V> {
        self.at(revision).filter(|version| !version.is_tombstone())
    }

    /// The version that was written at exactly `revision`.
    pub(crate) fn written_at(&self, revision: Revision) -> Option<&V> {
        self.at(revision)
            .filter(|version| version.revision() == revision)
    }

    /// The version that was written at exactly `revision`.
    pub(crate) fn written_at_mut(&mut self, revision: Revision) -> Option<&mut V> {
        if self.newest.revision() == revision {
            return Some(&mut self.newest);
        }
        let older = self.older.as_deref_mut()?;
        let at = older.binary_search_by_key(&revision, V::revision).ok()?;
        older.get_mut(at)
    }

    /// All versions, oldest first.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &V> {
        self.older()
            .into_iter()
            .flatten()
            .chain(core::iter::once(&self.newest))
    }

    /// The versions behind `after` and up to `last`, oldest first.
    pub(crate) fn between(&self, after: Revision, last: Revision) -> impl Iterator<Item = &V> {
        let older = self.older().map(|older| {
            let start = older.partition_point(|version| version.revision() <= after);
            older.range(start..)
        });
        let newest = core::iter::once(&self.newest).filter(move |v| v.revision() > after);
        let rest = older.into_iter().flatten().chain(newest);
        rest.take_while(move |version| version.revision() <= last)
    }

    /// Removes what no read at `compacted` or later can see; `dropped` is told each.
    ///
    /// Returns whether nothing is left. A tombstone exactly at `compacted` stays, for a watch
    /// may still start there.
    pub(crate) fn compact(&mut self, compacted: Revision, mut dropped: impl FnMut(&V)) -> bool {
        if let Some(older) = self.older.as_deref_mut() {
            let newest_counts = usize::from(self.newest.revision() <= compacted);
            let visible = older.partition_point(|version| version.revision() <= compacted);
            // Of those at or below, the last one stays, be it in `older` or the newest.
            let mut gone = (visible + newest_counts).saturating_sub(1).min(visible);
            let stays = older
                .get(gone)
                .filter(|_| newest_counts == 0 && gone < visible);
            gone += usize::from(
                stays.is_some_and(|last| last.is_tombstone() && last.revision() < compacted),
            );
            older.drain(..gone).for_each(|version| dropped(&version));
            if older.is_empty() {
                self.older = None;
            } else if older.capacity() > 4 * older.len() {
                older.shrink_to_fit();
            }
        }
        let gone = self.older.is_none()
            && self.newest.is_tombstone()
            && self.newest.revision() < compacted;
        if gone {
            dropped(&self.newest);
        }
        gone
    }

    fn older(&self) -> Option<&VecDeque<V>> {
        self.older.as_deref()
    }
}
