//! A long range in another order than its keys'.
//!
//! All its rows must be known before the first one is, but not what is in them: of each row its key
//! and a number by which it is sorted are kept. Made on a thread beside the connections', with the
//! machine held for a chunk of keys at a time.
//!
//! Values are compared by a few bytes at a time: those that agree so far are ranked again by the
//! next few. On this thread reading one may wait for the disk.

use std::cmp::Reverse;
use std::ops::Range as Places;

use quorate_store::command::SortTarget;
use quorate_store::{FileVersion, Key, ReadError, Row, Values};
use tokio::task::spawn_blocking;

use super::listing::{Found, MEASURE_KEYS, Pinned};
use super::rows;

/// Bytes of a value in one rank; the rank's last byte says how many there are.
const RANK_BYTES: usize = 7;
/// A rank of a value that goes on behind its bytes.
const GOES_ON: u64 = RANK_BYTES as u64 + 1;

struct Ranked {
    rank: u64,
    key: Key,
    /// What the row takes of the message. A message is shorter than 4 GiB.
    bytes: u32,
}

/// Finds the rows and brings them into order; `count` is how many keys there are.
///
/// # Errors
/// [`ReadError`], also when the revision is compacted meanwhile.
pub(super) async fn read(
    pinned: Pinned,
    count: u64,
) -> Result<(Pinned, Found, Vec<Key>), ReadError> {
    let sorting = spawn_blocking(move || {
        // Grown under the machine's lock it would be copied there, and take twice the memory.
        let mut ranked = Vec::with_capacity(count as usize);
        collect(&pinned, &mut ranked)?;
        order(&pinned, &mut ranked)?;
        let limit = usize::try_from(pinned.asked.limit).unwrap_or(0);
        let more = limit > 0 && ranked.len() > limit;
        if more {
            ranked.truncate(limit);
        }
        let found = Found {
            count,
            rows: ranked.len() as u64,
            bytes: ranked.iter().map(|row| row.bytes as usize).sum(),
            more,
        };
        let keys = ranked.into_iter().map(|row| row.key).collect();
        Ok((pinned, found, keys))
    });
    // It is cancelled only with the runtime, and this task then too.
    sorting.await.expect("sorting does not panic")
}

/// Finds all rows of the answer but for its limit, in the order of the keys.
fn collect(pinned: &Pinned, ranked: &mut Vec<Ranked>) -> Result<(), ReadError> {
    let asked = &pinned.asked;
    let mut range = asked.range.clone();
    loop {
        let (machine, values) = (pinned.node.machine(), pinned.node.values());
        pinned.check(machine.store())?;
        let mut last = None;
        let visited = machine.store().visit(&range, pinned.revision);
        for (key, version) in visited.take(MEASURE_KEYS) {
            last = Some(key);
            if let Some(version) = version.filter(|version| asked.admits(version)) {
                let row = Row { key, version };
                let bytes = rows::entry_len(&row, asked.keys_only);
                ranked.push(Ranked {
                    rank: rank(asked.sort.target, version, 0, &values)?,
                    key: key.clone(),
                    bytes: u32::try_from(bytes).unwrap_or(u32::MAX),
                });
            }
        }
        let Some(last) = last else {
            return Ok(());
        };
        range = range.after(last);
    }
}

/// What a version is sorted by; of a value the bytes from `skipped` ranks on.
fn rank(
    target: SortTarget,
    version: &FileVersion,
    skipped: usize,
    values: &dyn Values,
) -> Result<u64, ReadError> {
    Ok(match target {
        SortTarget::Key => 0,
        SortTarget::Version => version.count,
        SortTarget::Create => version.create.get(),
        SortTarget::Mod => version.revision.get(),
        SortTarget::Value => rank_of(&version.value.read(values)?, skipped),
    })
}

fn rank_of(value: &[u8], skipped: usize) -> u64 {
    let rest = value.get(skipped * RANK_BYTES..).unwrap_or_default();
    let mut bytes = [0; 8];
    let len = rest.len().min(RANK_BYTES);
    bytes[..len].copy_from_slice(&rest[..len]);
    bytes[RANK_BYTES] = rest.len().min(GOES_ON as usize) as u8;
    u64::from_be_bytes(bytes)
}

/// Sorts rows that are in the order of their keys, in which ties stay whatever the direction.
fn order(pinned: &Pinned, ranked: &mut [Ranked]) -> Result<(), ReadError> {
    let sort = pinned.asked.sort;
    if sort.target == SortTarget::Key {
        // This order is asked for only when it is the keys' reversed.
        ranked.reverse();
        return Ok(());
    }
    let mut unsorted = vec![(0..ranked.len(), 0)];
    while let Some((places, skipped)) = unsorted.pop() {
        let rows = &mut ranked[places.clone()];
        if skipped > 0 {
            rank_again(pinned, rows, skipped)?;
        }
        if sort.descending {
            rows.sort_by_key(|row| Reverse(row.rank));
        } else {
            rows.sort_by_key(|row| row.rank);
        }
        if sort.target == SortTarget::Value {
            let ties = ties(rows).map(|tie| places.start + tie.start..places.start + tie.end);
            unsorted.extend(ties.map(|tie| (tie, skipped + 1)));
        }
    }
    Ok(())
}

/// Where rows agree that may differ further on.
fn ties(rows: &[Ranked]) -> impl Iterator<Item = Places<usize>> {
    let mut start = 0;
    let groups = rows.chunk_by(|a, b| a.rank == b.rank);
    groups.filter_map(move |group| {
        let places = start..start + group.len();
        start = places.end;
        let goes_on = group[0].rank & 0xff == GOES_ON;
        (goes_on && group.len() > 1).then_some(places)
    })
}

fn rank_again(pinned: &Pinned, rows: &mut [Ranked], skipped: usize) -> Result<(), ReadError> {
    for chunk in rows.chunks_mut(MEASURE_KEYS) {
        let (machine, values) = (pinned.node.machine(), pinned.node.values());
        pinned.check(machine.store())?;
        for row in chunk {
            let version = machine.store().file_at(&row.key, pinned.revision);
            let version = version.expect("it stood there when it was found");
            row.rank = rank(pinned.asked.sort.target, version, skipped, &values)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_stand_in_the_order_of_the_values() {
        let values: [&[u8]; 10] = [
            b"",
            b"\0",
            b"\0\0",
            b"\0\0\0\0\0\0\0",
            b"\0\0\0\0\0\0\0\0",
            b"a",
            b"a\0",
            b"aaaaaaa",
            b"aaaaaaaa",
            b"b",
        ];
        let ranks = values.map(|value| rank_of(value, 0));
        assert!(ranks.is_sorted_by(|a, b| a < b), "{ranks:x?}");
        // What is behind the rank does not count, and is what the next one is made of.
        assert_eq!(rank_of(b"aaaaaaab", 0), rank_of(b"aaaaaaacc", 0));
        assert!(rank_of(b"aaaaaaab", 1) < rank_of(b"aaaaaaacc", 1));
        assert_eq!(rank_of(b"aaaaaaa", 1), 0);
    }

    #[test]
    fn only_what_goes_on_alike_is_a_tie() {
        let values: [&[u8]; 6] = [b"a", b"a", b"bbbbbbb", b"bbbbbbbb", b"bbbbbbbc", b"c"];
        let rows = values.map(|value| Ranked {
            rank: rank_of(value, 0),
            key: value.into(),
            bytes: 0,
        });
        let ties: Vec<_> = ties(&rows).map(|tie| (tie.start, tie.end)).collect();
        assert_eq!(ties, [(3, 5)]);
    }
}
