//! The ordered list of what happened, kept until compaction.
//!
//! H1. Ordered by (revision, sub), without a gap among the subs of a revision.
//! H2. Holds every change at or after the compacted revision, until [`crate::Store::purge`] catches
//!     up perhaps some before it.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use crate::{Key, Revision, UnixMs};

/// Changes of one piece: what grows is a piece, never the whole list at once.
const PIECE: usize = 1024;

/// The two kinds of entries in the key space.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Class {
    /// A directory entry: only v2 sees it.
    Dir,
    /// A key.
    File,
}

/// One change: which entry got a new version, and when.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Change {
    /// The revision that made it.
    pub revision: Revision,
    /// Its order among the changes of that revision, from 0.
    pub sub: u32,
    /// What kind of entry.
    pub class: Class,
    /// The entry's key or path.
    pub key: Key,
    /// The proposing member's wall clock, for shown TTLs.
    pub wall: UnixMs,
}

/// All changes that are kept, in order (H1).
#[derive(Debug, Default)]
pub(crate) struct History {
    /// Each full but the last; none empty. The first has lost what was dropped: see `gone`.
    pieces: VecDeque<Vec<Change>>,
    /// How many changes of the first piece are dropped.
    gone: usize,
    len: usize,
}

impl History {
    /// How many changes are kept.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Adds the newest change.
    pub(crate) fn push(&mut self, change: Change) {
        let last = self.pieces.back_mut().filter(|last| last.len() < PIECE);
        match last {
            Some(last) => last.push(change),
            None => {
                let mut piece = Vec::with_capacity(PIECE);
                piece.push(change);
                self.pieces.push_back(piece);
            }
        }
        self.len += 1;
    }

    /// Drops the oldest change, if it is before `oldest`.
    pub(crate) fn pop_before(&mut self, oldest: Revision) -> Option<Change> {
        let first = self.pieces.front()?.get(self.gone)?;
        if first.revision >= oldest {
            return None;
        }
        // Its key stays shared until the piece goes: some thousand at most.
        let change = first.clone();
        self.gone += 1;
        self.len -= 1;
        if self
            .pieces
            .front()
            .is_some_and(|piece| piece.len() == self.gone)
        {
            self.pieces.pop_front();
            self.gone = 0;
        }
        Some(change)
    }

    /// The change at `place`, counted from the oldest kept.
    pub(crate) fn get(&self, place: usize) -> Option<&Change> {
        let place = place + self.gone;
        self.pieces.get(place / PIECE)?.get(place % PIECE)
    }

    /// How many changes stand before the first for which `before` no longer holds.
    pub(crate) fn partition_point(&self, before: impl Fn(&Change) -> bool) -> usize {
        let piece = self
            .pieces
            .partition_point(|piece| piece.last().is_some_and(&before));
        let within = self
            .pieces
            .get(piece)
            .map_or(0, |piece| piece.partition_point(&before));
        (piece * PIECE + within).saturating_sub(self.gone)
    }

    /// The changes from `place` on.
    pub(crate) fn range(&self, place: usize) -> impl Iterator<Item = &Change> {
        let place = place + self.gone;
        let (piece, within) = (place / PIECE, place % PIECE);
        let first = self.pieces.get(piece).and_then(|piece| piece.get(within..));
        let rest = self.pieces.range((piece + 1).min(self.pieces.len())..);
        first.into_iter().chain(rest.map(Vec::as_slice)).flatten()
    }
}

impl FromIterator<Change> for History {
    fn from_iter<I: IntoIterator<Item = Change>>(changes: I) -> Self {
        let mut history = Self::default();
        changes.into_iter().for_each(|change| history.push(change));
        history
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    fn change(revision: u64) -> Change {
        Change {
            revision: Revision::new(revision),
            sub: 0,
            class: Class::File,
            key: Key::from(&b"k"[..]),
            wall: UnixMs(0),
        }
    }

    #[test]
    fn what_is_pushed_is_found_by_revision_until_it_is_dropped() {
        let mut history = History::default();
        let mut oldest = 1;
        for revision in 1..=5000 {
            history.push(change(revision));
            if revision % 3 > 0 {
                let dropped = history
                    .pop_before(Revision::new(revision))
                    .map(|c| c.revision);
                assert_eq!(dropped, (oldest < revision).then(|| Revision::new(oldest)));
                oldest += u64::from(dropped.is_some());
            }
            assert_eq!(history.len() as u64, revision + 1 - oldest);
            for wanted in [0, 1, oldest, oldest + 1000, revision, revision + 1] {
                let place = history.partition_point(|c| c.revision < Revision::new(wanted));
                let rest: Vec<u64> = history.range(place).map(|c| c.revision.get()).collect();
                assert!(rest.iter().copied().eq(wanted.max(oldest)..=revision));
                assert_eq!(
                    history.get(place).map(|c| c.revision.get()),
                    rest.first().copied()
                );
            }
        }
    }
}
