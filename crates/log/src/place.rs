//! Places in the journal.

use alloc::vec::Vec;

use crate::bytes::Fields;
use crate::record::HardState;
use crate::segment::SEGMENT_HEAD;

/// Where the first byte of an entry's data stands: its home on disk.
///
/// Each member's own; no part of the replicated state. Segments are numbered from 1.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct EntryAt {
    /// The segment's number.
    pub segment: u32,
    /// Bytes from the segment file's start.
    pub offset: u32,
}

/// The end of a batch: all that the next one refers to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Link {
    /// Where the next batch starts.
    pub(crate) at: EntryAt,
    /// The checksum of the batch before; 0 if there is none.
    pub(crate) chain: u32,
    /// Where the batch before ends: `at`, unless it is the last of the segment before.
    pub(crate) synced: EntryAt,
}

impl Link {
    /// Steps over a batch of `bytes` bytes with the checksum `crc`.
    pub(crate) fn advance(&mut self, bytes: usize, crc: u32) {
        self.at.offset += u32::try_from(bytes).expect("a batch lies within its segment");
        self.synced = self.at;
        self.chain = crc;
    }

    /// Steps from a sealed segment to the next.
    pub(crate) fn next_segment(&mut self) {
        self.at = EntryAt {
            segment: self.at.segment + 1,
            offset: SEGMENT_HEAD,
        };
    }
}

/// What the journal says up to a [`Link`].
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Mark {
    pub(crate) link: Link,
    /// The index of the last entry before; 0 if there is none.
    pub(crate) last_index: u64,
    /// The hard state in force.
    pub(crate) hard: HardState,
}

impl Mark {
    /// The beginning of a journal.
    pub(crate) fn beginning() -> Self {
        let at = EntryAt {
            segment: 1,
            offset: SEGMENT_HEAD,
        };
        let link = Link {
            at,
            chain: 0,
            synced: at,
        };
        Self {
            link,
            last_index: 0,
            hard: HardState::default(),
        }
    }
}

/// The boundary between two batches from which the journal can be replayed on.
///
/// Got from [`crate::Journal::position_for`], kept in a checkpoint, given back to
/// [`crate::Journal::open`].
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Position {
    pub(crate) mark: Mark,
    /// The segments up to this place, in order, that must still be there.
    pub(crate) segments: Vec<u32>,
}

impl Position {
    /// The beginning of a journal.
    pub(crate) fn beginning() -> Self {
        Self {
            mark: Mark::beginning(),
            segments: Vec::new(),
        }
    }

    /// The beginning of a journal that goes on behind a state at `index`.
    #[must_use]
    pub fn behind(index: u64, hard: HardState) -> Self {
        let mut beginning = Self::beginning();
        (beginning.mark.last_index, beginning.mark.hard) = (index, hard);
        beginning
    }

    /// The number of the segment in which replay starts.
    #[must_use]
    pub fn segment(&self) -> u32 {
        self.mark.link.at.segment
    }

    /// The segments before [`Self::segment`] that must still be there, for what they hold.
    pub fn held(&self) -> impl Iterator<Item = u32> + '_ {
        let start = self.segment();
        self.segments
            .iter()
            .copied()
            .filter(move |segment| *segment < start)
    }

    /// Leaves out segments in which no value of the checkpoint lies, so that
    /// [`crate::Journal::free`] may remove them.
    pub fn retain(&mut self, mut needed: impl FnMut(u32) -> bool) {
        let start = self.segment();
        self.segments
            .retain(|segment| *segment >= start || needed(*segment));
    }

    pub(crate) fn encode(&self, into: &mut Vec<u8>) {
        let Mark {
            link,
            last_index,
            hard,
        } = self.mark;
        let Link { at, chain, synced } = link;
        for number in [at.segment, at.offset, chain, synced.segment, synced.offset] {
            into.extend_from_slice(&number.to_le_bytes());
        }
        for number in [last_index, hard.term, hard.vote, hard.commit] {
            into.extend_from_slice(&number.to_le_bytes());
        }
        let count = u32::try_from(self.segments.len()).expect("segments are numbered in 32 bits");
        into.extend_from_slice(&count.to_le_bytes());
        for number in &self.segments {
            into.extend_from_slice(&number.to_le_bytes());
        }
    }

    pub(crate) fn decode(fields: &mut Fields<'_>) -> Option<Self> {
        let link = Link {
            at: EntryAt {
                segment: fields.u32()?,
                offset: fields.u32()?,
            },
            chain: fields.u32()?,
            synced: EntryAt {
                segment: fields.u32()?,
                offset: fields.u32()?,
            },
        };
        let last_index = fields.u64()?;
        let hard = HardState {
            term: fields.u64()?,
            vote: fields.u64()?,
            commit: fields.u64()?,
        };
        let count = fields.u32()?;
        let segments = (0..count)
            .map(|_| fields.u32())
            .collect::<Option<Vec<_>>>()?;
        let aligned = link.at.offset >= SEGMENT_HEAD && link.at.offset.is_multiple_of(8);
        let mark = Mark {
            link,
            last_index,
            hard,
        };
        (aligned && link.at.segment > 0).then_some(Self { mark, segments })
    }
}

/// Some of the places where replay may start, in the order of the journal.
///
/// One is kept for every [`Marks::SPACING`] bytes or so, so that replay starts at most that far
/// before the first entry that it needs.
#[derive(Debug)]
pub(crate) struct Marks(Vec<Mark>);

impl Marks {
    const SPACING: u32 = 1 << 20;

    pub(crate) fn new(first: Mark) -> Self {
        Self(alloc::vec![first])
    }

    /// Keeps `mark` if it is far enough behind the last one.
    pub(crate) fn offer(&mut self, mark: Mark) {
        let (at, last) = (mark.link.at, self.last().link.at);
        if at.segment != last.segment || at.offset - last.offset >= Self::SPACING {
            self.0.push(mark);
        }
    }

    /// The newest mark with no entry behind `applied` before it; older ones are dropped.
    pub(crate) fn newest_for(&mut self, applied: u64) -> Mark {
        let fits = |mark: &Mark| mark.last_index <= applied;
        let newest = self.0.iter().rposition(fits).unwrap_or(0);
        self.0.drain(..newest);
        self.0[0]
    }

    fn last(&self) -> &Mark {
        self.0
            .last()
            .expect("the first mark is never dropped without a later one")
    }
}
