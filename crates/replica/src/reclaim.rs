//! Which segments are worth emptying, and which of their values are still wanted.
//!
//! A segment that only holds values, and whose live share has fallen under half, has these copied
//! forward; two checkpoints later nothing needs it, and it is freed. One member's own affair: the
//! replicated state does not know where a value lies.
//!
//! L1. A value has its new place in the state only once its copy is durable. Until two checkpoints
//!     have been taken after that, the old copy is kept as well.

use std::collections::BTreeSet;

use quorate_store::{Key, Revision, Store, ValueAt};

/// A round of reclaiming: the segments that it empties, and how far it has come.
#[derive(Debug)]
pub struct Reclaim {
    segments: BTreeSet<u32>,
    after: Option<(Key, Revision)>,
    /// Bytes of wanted values that have not been met yet; less, if some were compacted.
    left: u64,
}

/// A value that is to be copied forward.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// The key.
    pub key: Key,
    /// The revision that wrote the version.
    pub revision: Revision,
    /// Where the value lies now.
    pub at: ValueAt,
}

impl Reclaim {
    /// Chooses among the segments that are `held` for their values alone, each of `segment_bytes`
    /// bytes: those with the least that is live, as long as not more than `least` bytes are to be
    /// copied. `None` if that frees less than `least` bytes.
    pub fn choose(
        store: &Store,
        held: impl Iterator<Item = u32>,
        segment_bytes: u32,
        least: u64,
    ) -> Option<Self> {
        let size = u64::from(segment_bytes);
        let live = held.map(|segment| (store.bytes_in_segment(segment), segment));
        let mut sparse: Vec<_> = live.filter(|(live, _)| *live < size / 2).collect();
        sparse.sort_unstable();
        let (mut left, mut freed) = (0, 0);
        let mut segments = BTreeSet::new();
        for (live, segment) in sparse {
            if left + live > least && !segments.is_empty() {
                break;
            }
            left += live;
            freed += size - live;
            segments.insert(segment);
        }
        (freed >= least).then_some(Self {
            segments,
            after: None,
            left,
        })
    }

    /// The segments that it empties.
    pub fn segments(&self) -> impl Iterator<Item = u32> {
        self.segments.iter().copied()
    }

    /// Finds what is wanted next: looks at up to `max_versions` versions and stops when the values
    /// have `max_bytes` bytes or more. Returns whether more may be left.
    pub fn gather(
        &mut self,
        store: &Store,
        (max_versions, max_bytes): (usize, u64),
        wanted: &mut Vec<Wanted>,
    ) -> bool {
        let mut bytes = 0;
        if self.left == 0 {
            return false;
        }
        let more =
            store.logged_versions(&mut self.after, max_versions, &mut |key, revision, at| {
                if self.segments.contains(&at.segment) {
                    bytes += u64::from(at.len);
                    wanted.push(Wanted {
                        key: key.clone(),
                        revision,
                        at,
                    });
                }
                bytes < max_bytes
            });
        self.left = self.left.saturating_sub(bytes);
        more && self.left > 0
    }
}
