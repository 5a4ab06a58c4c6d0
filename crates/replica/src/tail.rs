//! The end of the log in memory: what the Raft library reads, without I/O.
//!
//! Holds every entry that is not applied, and of the applied ones the newest few megabytes; more
//! while a member that is being sent the state must find its entries here afterwards.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use quorate_log::EntryAt;
use raft::eraftpb::{ConfState, Entry, HardState, Snapshot};
use raft::{GetEntriesContext, RaftState, Storage, StorageError};

/// Applied entries are kept up to this many bytes.
pub(crate) const KEPT_BYTES: usize = 16 << 20;
/// And up to this many while a member is sent the state.
const PINNED_BYTES: usize = 256 << 20;

#[derive(Debug)]
struct Slot {
    entry: Entry,
    /// Known once the entry is durable.
    place: Option<EntryAt>,
}

/// The log behind `start`, which stands where a snapshot would.
#[derive(Debug)]
pub(crate) struct Tail {
    hard: HardState,
    conf: ConfState,
    start: (u64, u64),
    slots: VecDeque<Slot>,
    bytes: usize,
    applied: u64,
    /// Members that are sent the state, and up to where they have the log.
    pins: BTreeMap<u64, u64>,
}

impl Tail {
    pub(crate) fn new(hard: HardState, conf: ConfState, start: (u64, u64), applied: u64) -> Self {
        Self {
            hard,
            conf,
            start,
            slots: VecDeque::new(),
            bytes: 0,
            applied,
            pins: BTreeMap::new(),
        }
    }

    /// Keeps what is behind `index` for a member that will need it.
    pub(crate) fn pin(&mut self, member: u64, index: u64) {
        self.pins.insert(member, index);
    }

    pub(crate) fn unpin(&mut self, member: u64) {
        self.pins.remove(&member);
    }

    pub(crate) fn pinned(&self) -> Vec<u64> {
        self.pins.keys().copied().collect()
    }

    /// Index and term of what stands before the first entry here.
    pub(crate) fn start(&self) -> (u64, u64) {
        self.start
    }

    /// Appends, cancelling what stood at the same index or after it.
    pub(crate) fn append(&mut self, entry: Entry, place: Option<EntryAt>) {
        let at = entry
            .index
            .checked_sub(self.start.0 + 1)
            .expect("only the tail is appended to");
        let at = usize::try_from(at).expect("the tail fits memory");
        assert!(at <= self.slots.len(), "no gap in the log");
        for gone in self.slots.drain(at..) {
            self.bytes -= gone.entry.data.len();
        }
        self.bytes += entry.data.len();
        self.slots.push_back(Slot { entry, place });
    }

    /// Notes where an entry came to stand.
    pub(crate) fn placed(&mut self, index: u64, place: EntryAt) {
        if let Some(slot) = self.slot_mut(index) {
            slot.place = Some(place);
        }
    }

    /// What is in the entries, from the last on.
    pub(crate) fn newest_first(&self) -> impl Iterator<Item = &Bytes> {
        self.slots.iter().rev().map(|slot| &slot.entry.data)
    }

    /// Where a durable entry stands.
    pub(crate) fn place(&self, index: u64) -> Option<EntryAt> {
        let at = index.checked_sub(self.start.0 + 1)?;
        self.slots.get(usize::try_from(at).ok()?)?.place
    }

    /// Notes what is applied and drops applied entries that are more than memory should hold: all,
    /// if no other member can be behind.
    pub(crate) fn trim(&mut self, applied: u64, is_alone: bool) {
        self.applied = applied;
        let pinned = self.pins.values().min().copied();
        while let Some(slot) = self.slots.front() {
            let most = match pinned {
                Some(pinned) if slot.entry.index > pinned => PINNED_BYTES,
                _ if is_alone => 0,
                _ => KEPT_BYTES,
            };
            if self.bytes <= most || slot.entry.index > applied {
                break;
            }
            self.bytes -= slot.entry.data.len();
            self.start = (slot.entry.index, slot.entry.term);
            self.slots.pop_front();
        }
    }

    fn slot_mut(&mut self, index: u64) -> Option<&mut Slot> {
        let at = index.checked_sub(self.start.0 + 1)?;
        self.slots.get_mut(usize::try_from(at).ok()?)
    }

    fn last(&self) -> u64 {
        self.start.0 + self.slots.len() as u64
    }
}

impl Storage for Tail {
    fn initial_state(&self) -> raft::Result<RaftState> {
        Ok(RaftState {
            hard_state: self.hard.clone(),
            conf_state: self.conf.clone(),
        })
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        _context: GetEntriesContext,
    ) -> raft::Result<Vec<Entry>> {
        if low <= self.start.0 {
            return Err(StorageError::Compacted.into());
        }
        if high > self.last() + 1 {
            return Err(StorageError::Unavailable.into());
        }
        let (from, to) = (
            (low - self.start.0 - 1) as usize,
            (high - self.start.0 - 1) as usize,
        );
        let max = max_size.into().unwrap_or(u64::MAX);
        let mut size = 0;
        let fitting = self.slots.range(from..to).take_while(|slot| {
            let first = size == 0;
            size += slot.entry.data.len() as u64 + 16;
            first || size <= max
        });
        Ok(fitting.map(|slot| slot.entry.clone()).collect())
    }

    fn term(&self, index: u64) -> raft::Result<u64> {
        if index == self.start.0 {
            return Ok(self.start.1);
        }
        let Some(at) = index.checked_sub(self.start.0 + 1) else {
            return Err(StorageError::Compacted.into());
        };
        let slot = self
            .slots
            .get(at as usize)
            .ok_or(StorageError::Unavailable)?;
        Ok(slot.entry.term)
    }

    fn first_index(&self) -> raft::Result<u64> {
        Ok(self.start.0 + 1)
    }

    fn last_index(&self) -> raft::Result<u64> {
        Ok(self.last())
    }

    /// Says what a member must hold before entries are of use to it. The state itself goes another
    /// way.
    fn snapshot(&self, _request_index: u64, _to: u64) -> raft::Result<Snapshot> {
        let mut snapshot = Snapshot::default();
        let metadata = snapshot.mut_metadata();
        metadata.index = self.applied;
        metadata.term = self.term(self.applied)?;
        Ok(snapshot)
    }
}
