//! The store behind the log: applies what is committed, in order.

use bytes::Bytes;
use quorate_log::{EntryAt, MovedTo};
use quorate_store::codec::{DecodeError, Read, Write};
use quorate_store::command::{Body, RequestId};
use quorate_store::{
    ClusterTime, Command, Cursor, Loader, Member, Outcome, Place, Reply, Revision, Store, ValueAt,
    Values,
};

use crate::Halt;
use crate::conf::Seat;
use crate::reclaim::Wanted;
use crate::replica::Committed;

/// The replicated state with its place in the log.
#[derive(Debug, Default)]
pub struct Machine {
    store: Store,
    /// Index and term of the last entry applied.
    applied: (u64, u64),
    /// The highest stamp applied.
    time: ClusterTime,
    /// Walks under way, while which versions must not be dropped.
    walks: usize,
}

/// What a batch of entries did.
#[derive(Debug)]
pub struct Applied {
    /// An answer for each command, in order.
    pub outcomes: Vec<(RequestId, Outcome)>,
    /// The first revision that may have changes of this batch.
    pub changes_from: Revision,
    /// What the replica must hear of it.
    pub notice: Notice,
}

/// What a replica must know of what its machine applied.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Notice {
    /// Up to where it has applied.
    pub index: u64,
    /// The last applied entry's term.
    pub term: u64,
    /// The highest stamp applied.
    pub time: ClusterTime,
    /// What the state came to after each entry; see [`Store::digest`].
    pub digests: Vec<u64>,
    /// The members, if they were changed.
    pub seats: Option<Vec<Seat>>,
    /// Leases that began or ended, in order.
    pub leases: Vec<LeaseEvent>,
    /// When the next v2 deadline ends.
    pub next_deadline: Option<ClusterTime>,
    /// Deadlines that were due have been ended, though perhaps not all.
    pub expired: bool,
}

/// What happened to a lease.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum LeaseEvent {
    /// It was granted.
    Granted {
        /// Which.
        id: i64,
        /// Its length in seconds.
        ttl_s: i64,
    },
    /// It ended.
    Ended {
        /// Which.
        id: i64,
    },
}

impl Machine {
    /// The key space.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Index and term of the last entry applied.
    pub fn applied(&self) -> (u64, u64) {
        self.applied
    }

    /// The highest cluster time applied.
    pub fn time(&self) -> ClusterTime {
        self.time
    }

    /// A fresh cluster's state: as if a snapshot had been taken at index 1, term 1.
    pub fn genesis(members: impl IntoIterator<Item = Member>) -> Self {
        Self {
            store: Store::with_members(members),
            applied: (1, 1),
            ..Self::default()
        }
    }

    /// The members, as a replica needs to know them.
    pub fn seats(&self) -> Vec<Seat> {
        self.store.members().values().map(Seat::of).collect()
    }

    /// Applies committed entries.
    ///
    /// # Errors
    /// [`Halt`]: this member must stop, for it cannot do what the others do.
    pub fn apply(&mut self, batch: &[Committed], values: &dyn Values) -> Result<Applied, Halt> {
        let changes_from = self.store.revision().next();
        let mut outcomes = Vec::with_capacity(batch.len());
        let mut notice = Notice::default();
        for entry in batch {
            if self.applied.0 >= batch[0].index {
                notice.digests.push(self.store.digest());
            }
            assert_eq!(
                entry.index,
                self.applied.0 + 1,
                "entries are applied one after another"
            );
            self.applied = (entry.index, entry.term);
            if entry.data.is_empty() {
                // A leader's first entry of its term.
                continue;
            }
            let command = Command::decode(&entry.data).map_err(|why| Halt::Entry {
                index: entry.index,
                why,
            })?;
            assert!(
                command.time >= self.time,
                "R2: cluster time never steps back"
            );
            self.time = command.time;
            let id = command.id;
            let ends = match &command.body {
                Body::LeaseRevoke { id } => Some(*id),
                _ => None,
            };
            notice.expired |= matches!(command.body, Body::Expire);
            let changes_members = matches!(command.body, Body::Member { .. });
            let place = Place {
                segment: entry.place.segment,
                offset: entry.place.offset,
            };
            let outcome = self
                .store
                .apply(command, place, values)
                .map_err(|why| Halt::Value {
                    index: entry.index,
                    why,
                })?;
            match (&outcome.result, ends) {
                (Ok(Reply::LeaseGranted { id, ttl_s }), _) => {
                    notice.leases.push(LeaseEvent::Granted {
                        id: *id,
                        ttl_s: *ttl_s,
                    });
                }
                (Ok(_), Some(id)) => notice.leases.push(LeaseEvent::Ended { id }),
                _ => {}
            }
            if changes_members && outcome.result.is_ok() {
                notice.seats = Some(self.seats());
            }
            outcomes.push((id, outcome));
        }
        notice.digests.push(self.store.digest());
        (notice.index, notice.term) = self.applied;
        notice.time = self.time;
        notice.next_deadline = self.store.next_deadline();
        Ok(Applied {
            outcomes,
            changes_from,
            notice,
        })
    }

    /// Notes where values were copied to, once the copies are durable (L1).
    pub fn moved(&mut self, moved: impl IntoIterator<Item = (Wanted, EntryAt)>) {
        for (wanted, to) in moved {
            let to = ValueAt {
                segment: to.segment,
                offset: to.offset,
                ..wanted.at
            };
            self.store.moved(&wanted.key, wanted.revision, to);
        }
    }

    /// Notes what the log says of values that were copied.
    pub(crate) fn replay_moved(&mut self, moved: &[MovedTo]) {
        for moved in moved {
            let to = ValueAt {
                segment: moved.at.segment,
                offset: moved.at.offset,
                len: moved.len,
                crc: moved.crc,
            };
            let revision = i64::try_from(moved.revision).ok();
            if let Some(revision) = revision.and_then(Revision::from_wire) {
                self.store.moved(&moved.key, revision, to);
            }
        }
    }

    /// Clears up to `max` changes that compaction left behind. Returns whether more are left.
    pub fn purge(&mut self, max: usize) -> bool {
        self.walks == 0 && self.store.purge(max)
    }

    /// Whether a walk is under way, so that [`Self::purge`] does nothing.
    pub fn is_walked(&self) -> bool {
        self.walks > 0
    }

    /// Begins a walk of the state as it is now; see [`Store::walk`]. Several may be under way. Until
    /// [`Self::end_walk`] was called for each, nothing is purged.
    pub fn begin_walk(&mut self) -> (Vec<u8>, Cursor) {
        self.walks += 1;
        (Self::meta(self.time), self.store.begin_walk())
    }

    /// What a checkpoint of a state at `time` says beside its rows.
    pub fn meta(time: ClusterTime) -> Vec<u8> {
        let mut meta = Vec::new();
        meta.u8(META_FORMAT);
        meta.u64(time.0);
        meta
    }

    /// Ends a walk.
    pub fn end_walk(&mut self) {
        assert!(self.walks > 0, "a walk that ends has begun");
        self.walks -= 1;
    }

    /// Rebuilds the state from what a walk gave.
    ///
    /// # Errors
    /// [`Halt::State`].
    pub fn load(applied: (u64, u64), meta: &[u8], loader: Loader) -> Result<Self, Halt> {
        let time = decode_meta(meta).map_err(Halt::State)?;
        let store = loader.finish().map_err(Halt::State)?;
        Ok(Self {
            store,
            applied,
            time,
            walks: 0,
        })
    }
}

const META_FORMAT: u8 = 1;

fn decode_meta(meta: &[u8]) -> Result<ClusterTime, DecodeError> {
    let mut read = Read::new(Bytes::copy_from_slice(meta));
    let format = read.u8()?;
    if format > META_FORMAT {
        return Err(DecodeError::Newer(format));
    }
    let time = ClusterTime(read.u64()?);
    read.finish()?;
    Ok(time)
}
