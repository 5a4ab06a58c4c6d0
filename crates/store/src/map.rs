//! The ordered map of keys: blocks of neighbours, found through a small tree.
//!
//! A listing reads whole blocks, one behind the other; a key costs little more than its entry,
//! also where keys come in order, which leaves the nodes of a B-tree half empty. Measured with
//! 1 M keys: docs/decisions/004-key-map.md.
//!
//! B1. The block under fence f holds the keys from f up to the next fence, in order. The first
//!     fence is empty, and only its block may be.

use alloc::collections::{BTreeMap, btree_map};
use alloc::vec::Vec;
use core::mem;
use core::ops::Bound;
use core::slice;

use crate::Key;

/// Entries of a full block.
const FULL: usize = 128;
/// A block that shrinks below this joins its neighbour, if both fit.
const SMALL: usize = 32;
/// By how many entries a block grows.
const STEP: usize = 16;

/// A map from keys to `V`.
#[derive(Debug)]
pub(crate) struct KeyMap<V> {
    blocks: BTreeMap<Key, Vec<(Key, V)>>,
    len: usize,
}

impl<V> Default for KeyMap<V> {
    fn default() -> Self {
        Self {
            blocks: BTreeMap::new(),
            len: 0,
        }
    }
}

impl<V> KeyMap<V> {
    /// How many keys there are.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// What stands under `key`.
    pub(crate) fn get(&self, key: &[u8]) -> Option<&V> {
        Some(self.get_key_value(key)?.1)
    }

    /// What stands under `key`, with the key as it is shared.
    pub(crate) fn get_key_value(&self, key: &[u8]) -> Option<(&Key, &V)> {
        let (_, block) = self.block(key)?;
        let at = place(block, key).ok()?;
        Some((&block[at].0, &block[at].1))
    }

    /// What stands under `key`, to be changed.
    pub(crate) fn get_mut(&mut self, key: &[u8]) -> Option<&mut V> {
        let block = self.block_mut(key)?;
        let at = place(block, key).ok()?;
        Some(&mut block[at].1)
    }

    /// Adds a key that is not there.
    ///
    /// # Panics
    /// If it is.
    pub(crate) fn insert(&mut self, key: Key, value: V) {
        if self.blocks.is_empty() {
            return self.push(key, value);
        }
        self.len += 1;
        let block = self.block_mut(&key).expect("there is a block");
        let at = place(block, &key).expect_err("the key is new");
        if block.len() < FULL {
            push(block, at, (key, value));
            return;
        }
        // Keys that come in order leave full blocks behind.
        let split = if at == FULL { FULL } else { FULL / 2 };
        let mut behind = Vec::with_capacity((FULL - split).next_multiple_of(STEP) + STEP);
        behind.extend(block.drain(split..));
        block.shrink_to(split + STEP);
        if at > split || split == FULL {
            push(&mut behind, at - split, (key, value));
        } else {
            push(block, at, (key, value));
        }
        self.blocks.insert(behind[0].0.clone(), behind);
    }

    /// Adds a key behind all others.
    ///
    /// # Panics
    /// If it is not.
    pub(crate) fn push(&mut self, key: Key, value: V) {
        let last = self.blocks.last_entry().map(|last| last.into_mut());
        assert!(
            last.as_ref()
                .and_then(|block| block.last())
                .is_none_or(|(last, _)| *last < key),
            "keys come in order"
        );
        self.len += 1;
        match last.filter(|block| block.len() < FULL) {
            Some(block) => {
                let end = block.len();
                push(block, end, (key, value));
            }
            None => {
                let first = self.blocks.is_empty();
                let fence = if first {
                    Key::from(&[][..])
                } else {
                    key.clone()
                };
                let mut block = Vec::new();
                push(&mut block, 0, (key, value));
                self.blocks.insert(fence, block);
            }
        }
    }

    /// Removes a key; what stood there.
    pub(crate) fn remove(&mut self, key: &[u8]) -> Option<V> {
        let fence = self.block(key)?.0.clone();
        let block = self.blocks.get_mut(&fence).expect("just found");
        let at = place(block, key).ok()?;
        let (_, value) = block.remove(at);
        self.len -= 1;
        if block.is_empty() && !fence.is_empty() {
            self.blocks.remove(&fence);
        } else if block.len() < SMALL {
            self.join(&fence);
        } else if block.capacity() > block.len() + 2 * STEP {
            block.shrink_to(block.len() + STEP);
        }
        Some(value)
    }

    /// Takes the next block into the one under `fence`, if they fit together.
    fn join(&mut self, fence: &Key) {
        let behind = (Bound::Excluded(&fence[..]), Bound::Unbounded);
        let next = self.blocks.range::<[u8], _>(behind).next();
        let Some((next, count)) = next.map(|(next, block)| (next.clone(), block.len())) else {
            return;
        };
        if SMALL + count > FULL / 2 {
            return;
        }
        let mut moved = self.blocks.remove(&next).expect("just found");
        let block = self.blocks.get_mut(fence).expect("the caller found it");
        block.reserve_exact(count);
        block.append(&mut moved);
    }

    /// The entries from one bound to the other, in order. The first must not lie behind the last.
    pub(crate) fn range(&self, (start, end): (Bound<&[u8]>, Bound<&[u8]>)) -> Range<'_, V> {
        let first = match start {
            Bound::Included(key) | Bound::Excluded(key) => self.block(key),
            Bound::Unbounded => self.blocks.first_key_value(),
        };
        let last = match end {
            Bound::Included(key) | Bound::Excluded(key) => self.block(key),
            Bound::Unbounded => self.blocks.last_key_value(),
        };
        let (Some((first, front)), Some((last, back))) = (first, last) else {
            return Range::default();
        };
        let from = match start {
            Bound::Included(key) => place(front, key).unwrap_or_else(|at| at),
            Bound::Excluded(key) => place(front, key).map_or_else(|at| at, |at| at + 1),
            Bound::Unbounded => 0,
        };
        let to = match end {
            Bound::Included(key) => place(back, key).map_or_else(|at| at, |at| at + 1),
            Bound::Excluded(key) => place(back, key).unwrap_or_else(|at| at),
            Bound::Unbounded => back.len(),
        };
        if first == last {
            return Range {
                front: front[from..to.max(from)].iter(),
                ..Range::default()
            };
        }
        let between = (Bound::Excluded(&first[..]), Bound::Excluded(&last[..]));
        Range {
            front: front[from..].iter(),
            middle: self.blocks.range::<[u8], _>(between),
            back: back[..to].iter(),
        }
    }

    #[cfg(test)]
    fn iter(&self) -> Range<'_, V> {
        self.range((Bound::Unbounded, Bound::Unbounded))
    }

    /// B1: the block in which `key` is, if it is anywhere.
    fn block(&self, key: &[u8]) -> Option<(&Key, &Vec<(Key, V)>)> {
        let up_to = (Bound::Unbounded, Bound::Included(key));
        self.blocks.range::<[u8], _>(up_to).next_back()
    }

    fn block_mut(&mut self, key: &[u8]) -> Option<&mut Vec<(Key, V)>> {
        let up_to = (Bound::Unbounded, Bound::Included(key));
        let before = self.blocks.range_mut::<[u8], _>(up_to).next_back();
        before.map(|(_, block)| block)
    }
}

/// Entries of a [`KeyMap`] in order.
#[derive(Debug)]
pub(crate) struct Range<'a, V> {
    front: slice::Iter<'a, (Key, V)>,
    middle: btree_map::Range<'a, Key, Vec<(Key, V)>>,
    back: slice::Iter<'a, (Key, V)>,
}

impl<V> Default for Range<'_, V> {
    fn default() -> Self {
        Self {
            front: [].iter(),
            middle: btree_map::Range::default(),
            back: [].iter(),
        }
    }
}

impl<'a, V> Iterator for Range<'a, V> {
    type Item = (&'a Key, &'a V);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some((key, value)) = self.front.next() {
                return Some((key, value));
            }
            self.front = match self.middle.next() {
                Some((_, block)) => block.iter(),
                None => mem::replace(&mut self.back, [].iter()),
            };
            if self.front.as_slice().is_empty() {
                return None;
            }
        }
    }
}

fn place<V>(block: &[(Key, V)], key: &[u8]) -> Result<usize, usize> {
    block.binary_search_by(|(each, _)| each[..].cmp(key))
}

fn push<V>(block: &mut Vec<(Key, V)>, at: usize, entry: (Key, V)) {
    if block.len() == block.capacity() {
        block.reserve_exact(STEP);
    }
    block.insert(at, entry);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ops::Bound::{Excluded, Included, Unbounded};

    struct Chance(u64);

    impl Chance {
        fn below(&mut self, bound: u64) -> u64 {
            self.0 = self
                .0
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (self.0 >> 33) % bound
        }

        fn key(&mut self, keys: u64) -> Key {
            Key::from(std::format!("{:05}", self.below(keys)).as_bytes())
        }
    }

    fn bounds(kind: u64, key: &[u8]) -> Bound<&[u8]> {
        match kind {
            0 => Unbounded,
            1 => Included(key),
            _ => Excluded(key),
        }
    }

    fn check(map: &KeyMap<u64>, model: &BTreeMap<Key, u64>) {
        assert_eq!(map.len(), model.len());
        assert!(map.iter().eq(model.iter()));
        // B1.
        let mut fences = map.blocks.iter().peekable();
        while let Some((fence, block)) = fences.next() {
            assert!(block.len() <= FULL && block.is_empty() <= fence.is_empty());
            assert!(block.first().is_none_or(|(key, _)| fence <= key));
            let next = fences.peek();
            assert!(next.is_none_or(|(next, _)| block.last().is_none_or(|(key, _)| key < next)));
        }
    }

    #[test]
    fn it_is_a_map_in_order_whatever_comes_and_goes() {
        for seed in 0..20 {
            let mut chance = Chance(seed);
            let keys = [20, 300, 5000][seed as usize % 3];
            let (mut map, mut model) = (KeyMap::default(), BTreeMap::new());
            for step in 0..6000_u64 {
                let key = chance.key(keys);
                // It grows, shrinks to little, and grows again.
                if chance.below(10) < if step / 2000 == 1 { 2 } else { 7 } {
                    if model.insert(key.clone(), step).is_none() {
                        map.insert(key, step);
                    } else {
                        *map.get_mut(&key).unwrap() = step;
                    }
                } else {
                    assert_eq!(map.remove(&key), model.remove(&key));
                }
                let wanted = chance.key(keys);
                assert_eq!(map.get(&wanted), model.get(&wanted));
                if step % 50 == 0 {
                    let (a, b) = (chance.key(keys), chance.key(keys));
                    let (a, b) = if a < b { (a, b) } else { (b, a) };
                    let range = (bounds(chance.below(3), &a), bounds(chance.below(3), &b));
                    if a < b {
                        assert!(map.range(range).eq(model.range::<[u8], _>(range)));
                    }
                }
                if step % 500 == 0 {
                    check(&map, &model);
                }
            }
        }
    }

    #[test]
    fn keys_in_order_leave_full_blocks_and_keys_in_disorder_leave_them_two_thirds_full() {
        let mut map = KeyMap::default();
        for number in 0..6400_u64 {
            map.insert(Key::from(std::format!("{number:05}").as_bytes()), ());
        }
        assert_eq!(map.blocks.len(), 6400 / FULL);
        let mut map = KeyMap::default();
        for number in 0..6400_u64 {
            let number = number * 2_654_435_761 % 100_000_007;
            map.insert(Key::from(std::format!("{number:09}").as_bytes()), ());
        }
        assert!(map.blocks.len() < 85, "{}", map.blocks.len());
        let slots: usize = map.blocks.values().map(Vec::capacity).sum();
        assert!(slots < 7500, "{slots}");
    }
}
