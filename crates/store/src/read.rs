//! What a range returns.
//!
//! Source: spec/v3-api.md §2.2.

use alloc::borrow::Cow;
use alloc::vec::Vec;
use core::cmp::Ordering;
use core::ops::Bound;

use crate::command::{Range, SortTarget};
use crate::{
    FileVersion, Key, KeyEnd, KeyRange, Refusal, Revision, Store, Value, ValueAt, ValueError,
    Values,
};

/// One key of an answer; its value is read by whoever encodes it.
#[derive(Clone, Copy, Debug)]
pub struct Row<'a> {
    /// The key.
    pub key: &'a Key,
    /// Its version at the revision asked for.
    pub version: &'a FileVersion,
}

/// What a range found.
#[derive(Debug)]
pub struct RangeAnswer<'a> {
    /// Sorted and cut to the limit.
    pub rows: Vec<Row<'a>>,
    /// The limit cut something off.
    pub more: bool,
    /// Keys in the range at that revision, whatever the limit and the filters.
    pub count: u64,
}

/// Why a read failed.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum ReadError {
    /// The client's doing.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// This member's disk's doing.
    #[error(transparent)]
    Value(#[from] ValueError),
}

impl Store {
    /// The revision a read means: `asked` as on the wire, 0 and less for the latest.
    ///
    /// # Errors
    /// [`Refusal::Future`], [`Refusal::Compacted`].
    pub fn revision_asked(&self, asked: i64) -> Result<Revision, Refusal> {
        let Some(revision) = Revision::from_wire(asked) else {
            return Ok(self.revision);
        };
        if revision > self.revision {
            Err(Refusal::Future {
                asked,
                latest: self.revision,
            })
        } else if asked < self.compacted {
            Err(Refusal::Compacted {
                asked,
                oldest: self.oldest(),
            })
        } else {
            Ok(revision)
        }
    }

    /// The keys of `range` as they stood at `revision`, in order.
    ///
    /// `revision` is one that [`Self::revision_asked`] gave, with the store unchanged since.
    pub fn scan<'a>(
        &'a self,
        range: &KeyRange,
        revision: Revision,
    ) -> impl Iterator<Item = Row<'a>> + use<'a> {
        let visited = self.visit(range, revision);
        visited.filter_map(|(key, version)| {
            Some(Row {
                key,
                version: version?,
            })
        })
    }

    /// As [`Self::scan`], but with the keys that did not stand there: whoever bounds a step of a
    /// walk must count them, for they take time too.
    pub fn visit<'a>(
        &'a self,
        range: &KeyRange,
        revision: Revision,
    ) -> impl Iterator<Item = (&'a Key, Option<&'a FileVersion>)> + use<'a> {
        // One key is found in half the steps of a range's two ends.
        let (one, many) = match range.end {
            KeyEnd::Point => (self.files.get_key_value(&range.start), None),
            KeyEnd::Before(_) | KeyEnd::Open => {
                (None, range.bounds().map(|bounds| self.files.range(bounds)))
            }
        };
        let chains = one.into_iter().chain(many.into_iter().flatten());
        chains.map(move |(key, chain)| (key, chain.live_at(revision)))
    }

    /// Hands out versions of keys that a compaction at `oldest` leaves, up to revision `last`.
    ///
    /// Behind `after`, which is moved; at most `max` versions, and no more keys than that. Returns
    /// whether more may be left. What [`Self::purge`] has not dropped yet is left out all the same,
    /// and so is a tombstone exactly at the compaction: some etcds keep it and some do not. `out` is
    /// also told whether the version is the one that stands at `last`.
    pub fn kept_versions(
        &self,
        after: &mut Option<(Key, Revision)>,
        (oldest, last): (Revision, Revision),
        max: usize,
        out: &mut dyn FnMut(&Key, &FileVersion, bool),
    ) -> bool {
        let (start, mut behind) = self.resume(after.as_ref());
        let start = start.as_ref().map(|key| &key[..]);
        let mut left = max;
        for (key, chain) in self.files.range((start, Bound::Unbounded)) {
            let first = chain
                .live_at(oldest)
                .filter(|first| first.revision > behind);
            let rest = chain.between(oldest.max(behind), last);
            for version in first.into_iter().chain(rest) {
                if left == 0 {
                    return true;
                }
                let stands = chain.at(last).map(|newest| newest.revision);
                out(key, version, stands == Some(version.revision));
                *after = Some((key.clone(), version.revision));
                left -= 1;
            }
            if left == 0 {
                return true;
            }
            // A key without versions counts too: it takes time.
            *after = Some((key.clone(), last));
            left -= usize::from(behind == Revision::ZERO);
            behind = Revision::ZERO;
        }
        false
    }

    /// Hands out the versions whose values lie in the log, with their places.
    ///
    /// Behind `after`, which is moved; at most `max` versions, and no more keys than that; ends when
    /// `out` says that it has enough. Returns whether more may be left.
    pub fn logged_versions(
        &self,
        after: &mut Option<(Key, Revision)>,
        max: usize,
        out: &mut dyn FnMut(&Key, Revision, ValueAt) -> bool,
    ) -> bool {
        let (start, mut behind) = self.resume(after.as_ref());
        let start = start.as_ref().map(|key| &key[..]);
        let mut left = max;
        for (key, chain) in self.files.range((start, Bound::Unbounded)) {
            for version in chain.between(behind, self.revision) {
                left = left.saturating_sub(1);
                let goes_on = match &version.value {
                    Value::Logged(at) => out(key, version.revision, *at),
                    Value::Inline(_) => true,
                };
                if !goes_on || left == 0 {
                    *after = Some((key.clone(), version.revision));
                    return true;
                }
            }
            behind = Revision::ZERO;
        }
        false
    }

    /// Where a walk goes on. If its key was purged meanwhile, the next one begins at its first version.
    fn resume(&self, after: Option<&(Key, Revision)>) -> (Bound<Key>, Revision) {
        match after {
            None => (Bound::Unbounded, Revision::ZERO),
            Some((key, behind)) if self.files.get(key).is_some() => {
                (Bound::Included(key.clone()), *behind)
            }
            Some((key, _)) => (Bound::Excluded(key.clone()), Revision::ZERO),
        }
    }

    /// Reads a range. `values` is asked only when the order is by value.
    ///
    /// # Errors
    /// [`ReadError`]; a refusal only for the revision.
    pub fn range<'a>(
        &'a self,
        asked: &Range,
        values: &dyn Values,
    ) -> Result<RangeAnswer<'a>, ReadError> {
        let answer = self.range_within(asked, values, usize::MAX)?;
        Ok(answer.expect("no range has so many keys"))
    }

    /// As [`Self::range`], if no more than `max_keys` keys are or were in the range; else `None`,
    /// after as many steps.
    ///
    /// # Errors
    /// As [`Self::range`].
    pub fn range_within<'a>(
        &'a self,
        asked: &Range,
        values: &dyn Values,
        max_keys: usize,
    ) -> Result<Option<RangeAnswer<'a>>, ReadError> {
        let revision = self.revision_asked(asked.revision)?;
        let limit = usize::try_from(asked.limit).unwrap_or(0);
        let by_key = asked.sort.target == SortTarget::Key && !asked.sort.descending;
        // One more than the limit shows that there is more; other orders need all rows first.
        let needed = if limit == 0 || !by_key {
            usize::MAX
        } else {
            limit + 1
        };
        let mut rows = Vec::new();
        let mut count = 0;
        for (visited, (key, version)) in self.visit(&asked.range, revision).enumerate() {
            if visited == max_keys {
                return Ok(None);
            }
            let Some(version) = version else { continue };
            count += 1;
            if !asked.count_only && rows.len() < needed && asked.admits(version) {
                rows.push(Row { key, version });
            }
        }
        sort(&mut rows, asked, values)?;
        let more = limit > 0 && rows.len() > limit;
        if more {
            rows.truncate(limit);
        }
        Ok(Some(RangeAnswer { rows, more, count }))
    }
}

impl Range {
    /// Whether its bounds on revisions let a version through.
    pub fn admits(&self, version: &FileVersion) -> bool {
        within(version.revision, self.min_mod, self.max_mod)
            && within(version.create, self.min_create, self.max_create)
    }
}

/// Bounds are inclusive; 0 is none.
fn within(revision: Revision, min: i64, max: i64) -> bool {
    let revision = revision.to_wire();
    (min == 0 || revision >= min) && (max == 0 || revision <= max)
}

fn sort(rows: &mut [Row<'_>], asked: &Range, values: &dyn Values) -> Result<(), ValueError> {
    let descending = asked.sort.descending;
    // Stable, so that ties stay in key order in both directions.
    let order = |ordering: Ordering| {
        if descending {
            ordering.reverse()
        } else {
            ordering
        }
    };
    match asked.sort.target {
        SortTarget::Key if descending => rows.reverse(),
        SortTarget::Key => {}
        SortTarget::Version => rows.sort_by(|a, b| order(a.version.count.cmp(&b.version.count))),
        SortTarget::Create => rows.sort_by(|a, b| order(a.version.create.cmp(&b.version.create))),
        SortTarget::Mod => rows.sort_by(|a, b| order(a.version.revision.cmp(&b.version.revision))),
        SortTarget::Value => {
            let mut keyed = Vec::with_capacity(rows.len());
            for row in rows.iter() {
                let value: Cow<'_, [u8]> = row.version.value.read(values)?;
                keyed.push((value, *row));
            }
            keyed.sort_by(|(a, _), (b, _)| order(a.cmp(b)));
            for (slot, (_, row)) in rows.iter_mut().zip(keyed) {
                *slot = row;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::NewFile;
    use crate::{Action, ClusterTime, Limit, Mark, Place, UnixMs};

    /// `a` lives for revision 2, `b` from revision 4 on; then all before revision 5 is compacted.
    fn store() -> Store {
        let mut store = Store::default();
        for (key, alive) in [("a", true), ("a", false), ("b", true), ("c", true)] {
            let mut writing = store.begin(UnixMs(0), ClusterTime(0), Place::default());
            let key = Key::from(key.as_bytes());
            let at = ValueAt {
                segment: 1,
                offset: 0,
                len: 100,
                crc: 0,
            };
            let new = NewFile {
                value: Value::Logged(at),
                limit: Limit::NONE,
                mark: Mark::shown(Action::Set),
                new_life: false,
            };
            if alive {
                store.put_file(&mut writing, &key, new);
            } else {
                store.delete_file(&mut writing, &key, Mark::shown(Action::Delete));
            }
            store.finish(&writing);
        }
        store
    }

    #[test]
    fn a_walk_whose_key_is_purged_goes_on_with_all_of_the_next_one() {
        let names = |keys: Vec<Key>| keys.iter().map(|key| key[0]).collect::<Vec<u8>>();
        let mut store = store();
        store.compacted = 5;
        let (mut kept, mut after) = (Vec::new(), None);
        let bounds = (Revision::new(5), Revision::new(5));
        let mut step = |store: &Store| {
            store.kept_versions(&mut after, bounds, 1, &mut |key, _, _| {
                kept.push(key.clone());
            })
        };
        assert!(step(&store));
        while store.purge(10) {}
        assert!(store.file(b"b").is_some() && store.files.get(b"a").is_none());
        while step(&store) {}
        assert_eq!(names(kept), b"bc");
    }

    #[test]
    fn a_walk_of_logged_values_whose_key_is_purged_misses_none() {
        let mut store = store();
        let (mut found, mut after) = (Vec::new(), Some((Key::from(&b"a"[..]), Revision::new(9))));
        store.compacted = 5;
        while store.purge(10) {}
        while store.logged_versions(&mut after, 1, &mut |key, _, _| {
            found.push(key[0]);
            true
        }) {}
        assert_eq!(found, b"bc");
    }
}
