//! Replaying the journal from a position: what a member finds when it opens its directory.
//!
//! Reads only; the repair of a torn tail is the journal's.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use bytes::Bytes;

use crate::disk::{Disk, DiskErrorKind};
use crate::error::{Corrupt, LogError};
use crate::identity::DirectoryId;
use crate::place::{EntryAt, Link, Mark, Marks, Position};
use crate::record::{Entry, HardState, Record};
use crate::segment::{SEGMENT_HEAD, check_segment, list_segments, segment_name};
use crate::walk::{Batch, Step, Walk};

/// What the journal remembers behind a checkpoint.
#[derive(Clone, Debug)]
pub struct Recovered {
    /// The last hard state, its commit index raised to what later batches knew, and not above
    /// the last entry.
    pub hard: HardState,
    /// The index of the last entry, be it before or behind the checkpoint; 0 in a new directory.
    pub last_index: u64,
    /// The entries behind the checkpoint's index that were not handed over, without a gap, and
    /// where their data stand.
    pub entries: Vec<(Entry, EntryAt)>,
    /// The values that were copied forward behind the checkpoint, in order. Each concerns a version
    /// that some entry up to the commit index wrote, or that has gone since.
    pub moved: Vec<MovedTo>,
    /// The batch that was dropped because it was torn. Tell the operator.
    pub torn: Option<Torn>,
}

/// Where a value was copied to.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct MovedTo {
    /// The key whose value it is.
    pub key: Bytes,
    /// The revision that wrote the version.
    pub revision: u64,
    /// Where the value stands now.
    pub at: EntryAt,
    /// Its length in bytes.
    pub len: u32,
    /// CRC32C of it.
    pub crc: u32,
}

/// A last batch that did not verify: a write that no sync had finished.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{file}: the last batch, at offset {offset}, is torn; the last entry is {last_index}")]
pub struct Torn {
    /// The file's name within the data directory.
    pub file: String,
    /// Where the batch starts, in bytes from the file's start.
    pub offset: u64,
    /// The index of the last entry before it.
    pub last_index: u64,
}

/// The end of the journal as replay found it.
pub(crate) struct Replayed {
    pub(crate) recovered: Recovered,
    pub(crate) link: Link,
    /// The length of the last segment.
    pub(crate) segment_bytes: u32,
    /// All segments up to the last one in use.
    pub(crate) segments: Vec<u32>,
    /// Behind the last byte of a torn batch.
    pub(crate) torn_end: Option<u32>,
    /// The last batch, and where it stands; `None` if there is none behind the position.
    pub(crate) last: Option<(EntryAt, Bytes)>,
    /// Whether the last batch holds no promise.
    pub(crate) last_empty: bool,
    pub(crate) marks: Marks,
}

/// Takes entries that are known to be committed, in order.
pub(crate) type Committed<'a> = dyn FnMut(Vec<(Entry, EntryAt)>) + 'a;

/// Reads the journal from `from` to its end, keeping the entries behind `applied`, or handing them
/// over as soon as a later batch says that they are committed.
///
/// # Errors
/// [`LogError::Corrupt`] if anything but the last batch is not as it was written.
pub(crate) fn replay<D: Disk>(
    disk: &D,
    directory: DirectoryId,
    from: &Position,
    applied: u64,
    mut committed: Option<&mut Committed<'_>>,
) -> Result<Replayed, LogError> {
    let mut segments = list_segments(disk)?;
    for needed in &from.segments {
        if segments.binary_search(needed).is_err() {
            return Err(missing(*needed));
        }
    }
    for kept in segments.iter().filter(|kept| **kept < from.segment()) {
        check_segment(disk, directory, *kept)?;
    }
    let mut state = State::new(from.mark, applied);
    let mut link = from.mark.link;
    loop {
        let segment_bytes = match check_segment(disk, directory, link.at.segment) {
            Err(LogError::Disk(error)) if error.kind == DiskErrorKind::NotFound => {
                return Err(missing(link.at.segment));
            }
            other => other?,
        };
        let committed = committed.as_deref_mut();
        let end = state.read_segment(disk, directory, segment_bytes, &mut link, committed)?;
        let torn_end = match end {
            SegmentEnd::Sealed => {
                link.next_segment();
                continue;
            }
            SegmentEnd::Open => None,
            SegmentEnd::Torn { nonzero_end } => Some(nonzero_end),
        };
        check_behind(disk, directory, link, &segments)?;
        segments.retain(|segment| *segment <= link.at.segment);
        return state.finish(link, segment_bytes, segments, torn_end);
    }
}

fn missing(segment: u32) -> LogError {
    Corrupt::new(segment_name(segment), 0, "the segment is missing").into()
}

/// Sees to it that no promise stands behind the journal's end (W3, W4).
fn check_behind<D: Disk>(
    disk: &D,
    directory: DirectoryId,
    link: Link,
    segments: &[u32],
) -> Result<(), LogError> {
    for behind in segments
        .iter()
        .copied()
        .filter(|segment| *segment > link.at.segment)
    {
        if behind > link.at.segment + 1 {
            let what = format!("the journal ends in segment {} already", link.at.segment);
            return Err(Corrupt::new(segment_name(behind), 0, what).into());
        }
        let name = segment_name(behind);
        let length = u32::try_from(disk.len(&name)?).unwrap_or(u32::MAX);
        let mut next = link;
        next.next_segment();
        let scan = Walk::new(disk, &name, directory, length, next).scan(SEGMENT_HEAD)?;
        if let Some(good) = scan.batch {
            return Err(unsealed(link, behind, good));
        }
    }
    Ok(())
}

/// The error for a segment that just ends at `link` although `behind` has a batch at `good`.
pub(crate) fn unsealed(link: Link, behind: u32, good: u32) -> LogError {
    let what = format!(
        "no good batch here, but {} has one at {good}",
        segment_name(behind)
    );
    Corrupt::new(
        segment_name(link.at.segment),
        u64::from(link.at.offset),
        what,
    )
    .into()
}

enum SegmentEnd {
    Sealed,
    Open,
    Torn { nonzero_end: u32 },
}

/// What replay knows so far.
struct State {
    applied: u64,
    /// Up to which index entries were handed over.
    handed: u64,
    last_index: u64,
    hard: HardState,
    /// The highest commit index in a batch header.
    commit: u64,
    entries: Vec<(Entry, EntryAt)>,
    moved: Vec<MovedTo>,
    last: Option<(EntryAt, Bytes)>,
    last_empty: bool,
    marks: Marks,
}

impl State {
    fn new(from: Mark, applied: u64) -> Self {
        Self {
            applied,
            handed: 0,
            last_index: from.last_index,
            hard: from.hard,
            commit: from.hard.commit,
            entries: Vec::new(),
            moved: Vec::new(),
            last: None,
            // What lies before a position is durable and covered by a checkpoint.
            last_empty: true,
            marks: Marks::new(from),
        }
    }

    /// Reads one segment from `link` on, and leaves `link` behind its last good batch.
    fn read_segment<D: Disk>(
        &mut self,
        disk: &D,
        directory: DirectoryId,
        segment_bytes: u32,
        link: &mut Link,
        mut committed: Option<&mut Committed<'_>>,
    ) -> Result<SegmentEnd, LogError> {
        let segment = link.at.segment;
        let name = segment_name(segment);
        let mut walk = Walk::new(disk, &name, directory, segment_bytes, *link);
        loop {
            let mark = Mark {
                link: walk.link,
                last_index: self.last_index,
                hard: self.hard,
            };
            match walk.step()? {
                Step::Batch(batch) => {
                    self.marks.offer(mark);
                    let sealed = self.read_batch(&batch, segment, &name)?;
                    *link = walk.link;
                    if let Some(committed) = &mut committed {
                        self.hand_over(committed);
                    }
                    if sealed {
                        return Ok(SegmentEnd::Sealed);
                    }
                }
                Step::End => return Ok(SegmentEnd::Open),
                Step::Torn { nonzero_end } => return Ok(SegmentEnd::Torn { nonzero_end }),
            }
        }
    }

    /// Returns whether the batch seals its segment.
    fn read_batch(&mut self, batch: &Batch, segment: u32, file: &str) -> Result<bool, LogError> {
        self.commit = self.commit.max(batch.head.commit);
        self.last_empty = true;
        self.last = Some((
            EntryAt {
                segment,
                offset: batch.offset,
            },
            batch.bytes.clone(),
        ));
        for record in batch.records() {
            match record.map_err(|bad| batch.bad_record(file, bad))? {
                Record::Entry {
                    index,
                    term,
                    kind,
                    data,
                    data_offset,
                } => {
                    // Entries follow each other, or cancel; the first of all may have any index.
                    if self.last_index > 0 && index > self.last_index + 1 {
                        let what = format!("entry {index} follows entry {}", self.last_index);
                        let offset = u64::from(batch.place(data_offset));
                        return Err(Corrupt::new(file, offset, what).into());
                    }
                    if index <= self.handed {
                        let what = format!("entry {index} is written over, but is committed");
                        let offset = u64::from(batch.place(data_offset));
                        return Err(Corrupt::new(file, offset, what).into());
                    }
                    let at = EntryAt {
                        segment,
                        offset: batch.place(data_offset),
                    };
                    let data = batch.bytes.slice_ref(data);
                    self.take_entry(
                        Entry {
                            index,
                            term,
                            kind,
                            data,
                        },
                        at,
                    );
                    self.last_empty = false;
                }
                Record::HardState(hard) => {
                    self.hard = hard;
                    self.last_empty = false;
                }
                Record::Moved {
                    key,
                    revision,
                    data,
                    data_offset,
                } => {
                    let offset = batch.place(data_offset);
                    self.moved.push(MovedTo {
                        // A slice would keep the whole batch in memory.
                        key: Bytes::copy_from_slice(key),
                        revision,
                        at: EntryAt { segment, offset },
                        len: u32::try_from(data.len()).expect("it lies within its segment"),
                        crc: crc_fast::crc32_iscsi(data),
                    });
                    self.last_empty = false;
                }
                Record::Sealed => return Ok(true),
            }
        }
        Ok(false)
    }

    fn hand_over(&mut self, committed: &mut Committed<'_>) {
        let is_final = |(entry, _): &(Entry, EntryAt)| entry.index <= self.commit;
        let count = self.entries.partition_point(is_final);
        if count > 0 {
            let ready: Vec<_> = self.entries.drain(..count).collect();
            self.handed = ready[count - 1].0.index;
            committed(ready);
        }
    }

    /// W2: cancels what was recorded at the entry's index or behind it.
    fn take_entry(&mut self, entry: Entry, at: EntryAt) {
        if let Some((first, _)) = self.entries.first() {
            let kept = entry.index.saturating_sub(first.index);
            self.entries
                .truncate(usize::try_from(kept).unwrap_or(usize::MAX));
        }
        self.last_index = entry.index;
        if entry.index > self.applied {
            self.entries.push((entry, at));
        }
    }

    fn finish(
        mut self,
        link: Link,
        segment_bytes: u32,
        segments: Vec<u32>,
        torn_end: Option<u32>,
    ) -> Result<Replayed, LogError> {
        let file = segment_name(link.at.segment);
        let offset = u64::from(link.at.offset);
        if self.last_index < self.applied {
            let what = format!(
                "the journal ends at entry {}, before its checkpoint at entry {}",
                self.last_index, self.applied
            );
            return Err(Corrupt::new(file, offset, what).into());
        }
        // What was applied was committed. And a batch may know of a commit whose entries were in
        // the batch behind it.
        let commit = self.hard.commit.max(self.commit).max(self.applied);
        self.hard.commit = commit.min(self.last_index);
        let torn = torn_end.map(|_| Torn {
            file,
            offset,
            last_index: self.last_index,
        });
        Ok(Replayed {
            recovered: Recovered {
                hard: self.hard,
                last_index: self.last_index,
                entries: self.entries,
                moved: self.moved,
                torn,
            },
            link,
            segment_bytes,
            segments,
            torn_end,
            last: self.last,
            last_empty: self.last_empty,
            marks: self.marks,
        })
    }
}
