//! Ranges of keys, each with a value, found by a key that lies in them.
//!
//! A binary tree by (start, end) that chance balances (a treap: of two nodes the one with the
//! greater weight stands above). Each node knows how far what is below it reaches, so a search
//! skips what ends before the key: it looks at O(log n) nodes and as many more for each range found.
//!
//! G1. What is left of a node comes before it, what is right of it behind it.
//! G2. No node has a greater weight than the one above it.
//! G3. A node's reach is the greatest end among itself and all below it.

use std::cmp::Ordering;
use std::hash::{BuildHasher, RandomState};

use bytes::Bytes;

/// Where a range ends.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) enum End {
    /// Up to this key, which does not belong to the range.
    Before(Bytes),
    /// Nowhere.
    Open,
}

impl End {
    fn is_behind(&self, key: &[u8]) -> bool {
        match self {
            Self::Before(end) => key < &end[..],
            Self::Open => true,
        }
    }
}

/// The ranges, each once.
#[derive(Debug)]
pub(super) struct Ranges<T> {
    root: Link<T>,
    /// So that nobody can choose ranges that make the tree deep.
    chance: RandomState,
    inserted: u64,
}

type Link<T> = Option<Box<Node<T>>>;

#[derive(Debug)]
struct Node<T> {
    start: Bytes,
    end: End,
    value: T,
    weight: u64,
    reach: End,
    left: Link<T>,
    right: Link<T>,
}

impl<T> Default for Ranges<T> {
    fn default() -> Self {
        Self {
            root: None,
            chance: RandomState::new(),
            inserted: 0,
        }
    }
}

impl<T> Ranges<T> {
    pub(super) fn get_mut(&mut self, start: &[u8], end: &End) -> Option<&mut T> {
        let mut link = &mut self.root;
        while let Some(node) = link {
            link = match node.seen_from(start, end) {
                Ordering::Equal => return Some(&mut node.value),
                Ordering::Less => &mut node.left,
                Ordering::Greater => &mut node.right,
            };
        }
        None
    }

    /// Adds a range that is not there.
    pub(super) fn insert(&mut self, start: Bytes, end: End, value: T) {
        self.inserted += 1;
        let node = Node {
            weight: self.chance.hash_one(self.inserted),
            reach: end.clone(),
            start,
            end,
            value,
            left: None,
            right: None,
        };
        insert(&mut self.root, Box::new(node));
    }

    pub(super) fn remove(&mut self, start: &[u8], end: &End) -> Option<T> {
        remove(&mut self.root, start, end)
    }

    /// Shows `found` the value of each range that holds `key`, in order. Returns how many nodes
    /// were looked at.
    pub(super) fn find<'a>(&'a self, key: &[u8], found: &mut impl FnMut(&'a T)) -> usize {
        find(&self.root, key, found)
    }

    pub(super) fn for_each<'a>(&'a self, seen: &mut impl FnMut(&'a T)) {
        for_each(&self.root, seen);
    }
}

impl<T> Node<T> {
    /// Where a range stands to this node.
    fn seen_from(&self, start: &[u8], end: &End) -> Ordering {
        start.cmp(&self.start[..]).then_with(|| end.cmp(&self.end))
    }

    /// G3.
    fn measure(&mut self) {
        let below = [&self.left, &self.right].into_iter().flatten();
        let reach = below.map(|node| &node.reach).fold(&self.end, Ord::max);
        if *reach != self.reach {
            self.reach = reach.clone();
        }
    }
}

fn insert<T>(link: &mut Link<T>, mut new: Box<Node<T>>) {
    match link {
        // G2.
        Some(node) if node.weight >= new.weight => {
            let side = match node.seen_from(&new.start, &new.end) {
                Ordering::Less => &mut node.left,
                Ordering::Equal | Ordering::Greater => &mut node.right,
            };
            insert(side, new);
            node.measure();
        }
        _ => {
            (new.left, new.right) = split(link.take(), &new.start, &new.end);
            new.measure();
            *link = Some(new);
        }
    }
}

/// What comes before a range, and what behind it.
fn split<T>(link: Link<T>, start: &[u8], end: &End) -> (Link<T>, Link<T>) {
    let Some(mut node) = link else {
        return (None, None);
    };
    let (before, behind) = match node.seen_from(start, end) {
        Ordering::Less => {
            let (before, behind) = split(node.left.take(), start, end);
            node.left = behind;
            node.measure();
            (before, Some(node))
        }
        Ordering::Equal | Ordering::Greater => {
            let (before, behind) = split(node.right.take(), start, end);
            node.right = before;
            node.measure();
            (Some(node), behind)
        }
    };
    (before, behind)
}

fn remove<T>(link: &mut Link<T>, start: &[u8], end: &End) -> Option<T> {
    let node = link.as_mut()?;
    let side = match node.seen_from(start, end) {
        Ordering::Equal => {
            let node = *link.take()?;
            *link = join(node.left, node.right);
            return Some(node.value);
        }
        Ordering::Less => &mut node.left,
        Ordering::Greater => &mut node.right,
    };
    let removed = remove(side, start, end);
    node.measure();
    removed
}

/// One tree of two, the first of which comes before the second.
fn join<T>(before: Link<T>, behind: Link<T>) -> Link<T> {
    match (before, behind) {
        (None, one) | (one, None) => one,
        (Some(mut before), Some(mut behind)) => Some(if before.weight >= behind.weight {
            before.right = join(before.right.take(), Some(behind));
            before.measure();
            before
        } else {
            behind.left = join(Some(before), behind.left.take());
            behind.measure();
            behind
        }),
    }
}

fn find<'a, T>(link: &'a Link<T>, key: &[u8], found: &mut impl FnMut(&'a T)) -> usize {
    let Some(node) = link else { return 0 };
    if !node.reach.is_behind(key) {
        return 1;
    }
    let mut looked = 1 + find(&node.left, key, found);
    if node.start[..] <= *key {
        if node.end.is_behind(key) {
            found(&node.value);
        }
        looked += find(&node.right, key, found);
    }
    looked
}

fn for_each<'a, T>(link: &'a Link<T>, seen: &mut impl FnMut(&'a T)) {
    if let Some(node) = link {
        for_each(&node.left, seen);
        seen(&node.value);
        for_each(&node.right, seen);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    /// Numbers that look random and are the same in every run.
    struct Numbers(u64);

    impl Numbers {
        fn below(&mut self, bound: u64) -> u64 {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            self.0 % bound
        }

        /// Short keys of few letters, so that ranges overlap, nest and touch.
        fn key(&mut self) -> Bytes {
            let len = self.below(4);
            (0..len).map(|_| b'a' + self.below(4) as u8).collect()
        }

        fn range(&mut self) -> (Bytes, End) {
            let end = match self.below(8) {
                0 => End::Open,
                _ => End::Before(self.key()),
            };
            (self.key(), end)
        }
    }

    fn found(ranges: &Ranges<u64>, key: &[u8]) -> Vec<u64> {
        let mut values = Vec::new();
        ranges.find(key, &mut |value| values.push(*value));
        values
    }

    /// Panics unless G1 to G3 hold below here.
    fn check(link: &Link<u64>) {
        let Some(node) = link else { return };
        let mut reach = node.end.clone();
        for (side, order) in [
            (&node.left, Ordering::Less),
            (&node.right, Ordering::Greater),
        ] {
            if let Some(below) = side {
                assert_eq!(node.seen_from(&below.start, &below.end), order, "G1");
                assert!(below.weight <= node.weight, "G2");
                reach = reach.max(below.reach.clone());
            }
            check(side);
        }
        assert_eq!(node.reach, reach, "G3");
    }

    #[test]
    fn a_list_that_is_searched_from_end_to_end_finds_the_same() {
        let mut numbers = Numbers(0x5eed);
        let (mut ranges, mut list) = (Ranges::default(), BTreeMap::new());
        for step in 0..6_000 {
            let (start, end) = numbers.range();
            // Grows to some hundred, then shrinks to nothing, twice.
            if numbers.below(10) < if step % 3_000 < 1_500 { 7 } else { 2 } {
                match ranges.get_mut(&start, &end) {
                    Some(value) => *value = step,
                    None => ranges.insert(start.clone(), end.clone(), step),
                }
                list.insert((start, end), step);
            } else {
                let taken = list
                    .keys()
                    .nth(numbers.below(list.len() as u64 + 1) as usize);
                let (start, end) = taken.cloned().unwrap_or((start, end));
                let removed = ranges.remove(&start, &end);
                assert_eq!(removed, list.remove(&(start, end)));
            }
            check(&ranges.root);
            let key = numbers.key();
            let holds = |(start, end): &(Bytes, End)| *start <= key && end.is_behind(&key);
            let expected = list.iter().filter(|(range, _)| holds(range));
            let expected: Vec<u64> = expected.map(|(_, value)| *value).collect();
            assert_eq!(found(&ranges, &key), expected);
        }
        let mut all = Vec::new();
        ranges.for_each(&mut |value| all.push(*value));
        assert_eq!(all, list.into_values().collect::<Vec<_>>());
    }

    #[test]
    fn of_ten_thousand_ranges_tens_are_looked_at() {
        let mut ranges = Ranges::default();
        let prefix = |text: String| (Bytes::from(format!("{text}/")), format!("{text}0"));
        for number in 0..10_000 {
            let (start, end) = prefix(format!("/registry/{number:04}"));
            ranges.insert(start, End::Before(end.into()), number);
        }
        for (outer, number) in [("/registry", 10_000), ("/registry/4321/a", 10_001)] {
            let (start, end) = prefix(outer.to_owned());
            ranges.insert(start, End::Before(end.into()), number);
        }
        let mut values = Vec::new();
        let looked = ranges.find(b"/registry/4321/a/b", &mut |value| values.push(*value));
        assert_eq!(values, [10_000, 4_321, 10_001]);
        assert!(looked < 200, "{looked} nodes");
        assert!(ranges.find(b"/elsewhere", &mut |_| panic!("found")) < 200);
    }
}
