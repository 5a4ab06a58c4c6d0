//! What a branch of a txn puts and deletes, and whether two writes of it meet.
//!
//! A request may hold a quarter of a million operations, so nothing here is done for each pair of
//! them: deletes are kept as intervals of which none touch, and the smaller side is held
//! against the larger one, then joined to it.
//!
//! Branches of a nested txn exclude one another, so their writes may repeat, but both count
//! against the parent. Two deletes may overlap.
//!
//! Source: spec/v3-api.md §2.5.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use bytes::Bytes;
use core::ops::Bound;

use super::Op;
use crate::{KeyEnd, KeyRange, Refusal};

/// What a branch writes.
#[derive(Default)]
pub(super) struct Writes {
    puts: BTreeSet<Bytes>,
    deletes: Deletes,
}

impl Writes {
    /// Those of a branch, with its nested txns.
    ///
    /// # Errors
    /// [`Refusal::DuplicateKey`] when a put meets another write.
    pub(super) fn of(branch: &[Op]) -> Result<Self, Refusal> {
        let mut all = Self::default();
        for op in branch {
            if let Op::DeleteRange(delete) = op {
                all.deletes.add(&delete.range);
            }
        }
        // A nested txn's two branches exclude one another: each is held against what stands
        // beside the txn, then both count for what follows.
        for op in branch {
            if let Op::Txn(txn) = op {
                let then = Self::of(&txn.success)?;
                let otherwise = Self::of(&txn.failure)?;
                then.refuse_overlap(&all)?;
                otherwise.refuse_overlap(&all)?;
                all.join(then);
                all.join(otherwise);
            }
        }
        for op in branch {
            if let Op::Put(put) = op
                && (all.deletes.contains(&put.key) || !all.puts.insert(put.key.clone()))
            {
                return Err(Refusal::DuplicateKey);
            }
        }
        Ok(all)
    }

    fn refuse_overlap(&self, beside: &Self) -> Result<(), Refusal> {
        let (few, many) = by_len(&self.puts, &beside.puts, BTreeSet::len);
        let repeated = few.iter().any(|key| many.contains(key));
        if repeated || self.deletes.meet(&beside.puts) || beside.deletes.meet(&self.puts) {
            Err(Refusal::DuplicateKey)
        } else {
            Ok(())
        }
    }

    fn join(&mut self, mut other: Self) {
        if self.puts.len() < other.puts.len() {
            core::mem::swap(&mut self.puts, &mut other.puts);
        }
        self.puts.extend(other.puts);
        if self.deletes.0.len() < other.deletes.0.len() {
            core::mem::swap(&mut self.deletes, &mut other.deletes);
        }
        for (start, end) in other.deletes.0 {
            self.deletes.add_interval(start, end);
        }
    }
}

/// Intervals of keys by their start, none touching another; an end is exclusive, `None` is open.
#[derive(Default)]
struct Deletes(BTreeMap<Bytes, Option<Bytes>>);

impl Deletes {
    fn add(&mut self, range: &KeyRange) {
        if range.is_empty() {
            return;
        }
        let end = match &range.end {
            KeyEnd::Point => Some(next(&range.start)),
            KeyEnd::Before(end) => Some(end.clone()),
            KeyEnd::Open => None,
        };
        self.add_interval(range.start.clone(), end);
    }

    fn add_interval(&mut self, mut start: Bytes, mut end: Option<Bytes>) {
        let before = self.0.range(..=start.clone()).next_back();
        if let Some((first, its_end)) = before
            && reaches(its_end.as_ref(), &start)
        {
            start = first.clone();
        }
        // Everything that begins within the new interval becomes part of it.
        while let Some((first, _)) = self
            .0
            .range::<Bytes, _>((Bound::Included(&start), Bound::Unbounded))
            .next()
            .filter(|(first, _)| reaches(end.as_ref(), first))
        {
            let first = first.clone();
            let its_end = self.0.remove(&first).expect("it was just found");
            end = end.zip(its_end).map(|(one, other)| one.max(other));
        }
        self.0.insert(start, end);
    }

    fn contains(&self, key: &[u8]) -> bool {
        let bounds = (Bound::Unbounded, Bound::Included(key));
        let before = self.0.range::<[u8], _>(bounds).next_back();
        before.is_some_and(|(_, end)| end.as_ref().is_none_or(|end| key < &end[..]))
    }

    /// Whether a key of `puts` is deleted.
    fn meet(&self, puts: &BTreeSet<Bytes>) -> bool {
        if puts.len() < self.0.len() {
            return puts.iter().any(|key| self.contains(key));
        }
        self.0.iter().any(|(start, end)| {
            let end = end.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
            let mut within = puts.range::<Bytes, _>((Bound::Included(start), end));
            within.next().is_some()
        })
    }
}

/// The lowest key above `key`.
fn next(key: &[u8]) -> Bytes {
    let mut next = Vec::with_capacity(key.len() + 1);
    next.extend_from_slice(key);
    next.push(0);
    Bytes::from(next)
}

/// Whether an interval up to `end` touches one that starts at `start`.
fn reaches(end: Option<&Bytes>, start: &Bytes) -> bool {
    end.is_none_or(|end| end >= start)
}

/// The two, the smaller one first.
fn by_len<'a, T>(one: &'a T, other: &'a T, len: fn(&T) -> usize) -> (&'a T, &'a T) {
    if len(one) <= len(other) {
        (one, other)
    } else {
        (other, one)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(start: &'static str, end: &'static str) -> KeyRange {
        KeyRange::from_parts(start.into(), end.into())
    }

    #[test]
    fn intervals_hold_what_their_ranges_hold() {
        let ranges = [
            range("b", ""),
            range("d", "f"),
            range("f", "g"),
            range("e", "ea"),
            range("k", "j"),
            range("m", "p"),
            range("a", "c"),
            range("n", "z"),
            range("x", "\0"),
            range("w", "\0"),
        ];
        let keys = "a b b\0 ba c d e f g h j k l m n o p w x y z z\0";
        // Any rotation, so that each comes first and last once.
        for turn in 0..ranges.len() {
            let mut deletes = Deletes::default();
            for count in 1..=ranges.len() {
                let added = || ranges.iter().cycle().skip(turn).take(count);
                deletes.add(added().last().expect("one was added"));
                for key in keys.split(' ') {
                    let held = added().any(|range| range.contains(key.as_bytes()));
                    let puts = BTreeSet::from([Bytes::from(key)]);
                    assert_eq!(deletes.contains(key.as_bytes()), held, "{key}");
                    assert_eq!(deletes.meet(&puts), held, "{key}");
                }
                let mut ends = deletes.0.iter().zip(deletes.0.keys().skip(1));
                assert!(ends.all(|((_, end), start)| !reaches(end.as_ref(), start)));
            }
        }
    }
}
