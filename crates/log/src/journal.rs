//! The write-ahead log: all that a member has promised to remember.
//!
//! [`Journal::append`] gathers records into a batch; only [`Journal::sync`] promises. One batch
//! is one write and one sync, and no batch is written before the last one's sync has finished.
//!
//! Owns where batches stand, when a segment is full, and the repair of a torn tail when opened.
//! Never decides what to log or when to sync.
//!
//! J1. All before `link` is durable; nothing but zeros stands behind it when no sync is running.
//! J2. After a failed write or sync nothing is written any more.
//! J3. A segment always has room for the batch that seals it.

use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

use crate::batch::{BATCH_HEAD, Seal, batch_bytes};
use crate::checkpoint::CheckpointHead;
use crate::disk::{Disk, DiskError};
use crate::error::LogError;
use crate::identity::DirectoryId;
use crate::place::{EntryAt, Link, Mark, Marks, Position};
use crate::record::{
    ENTRY_HEAD, Entry, HARD_STATE_BYTES, HardState, MOVED_HEAD, Moved, encode_entry,
    encode_hard_state, encode_moved, encode_sealed,
};
use crate::replay::{Committed, Recovered, Replayed, replay};
use crate::reserve::prepare_segment;
use crate::segment::{check_segment, list_segments, longest_batch, seal_bytes, segment_name};

/// A batch is written before it grows beyond this, unless one record alone is longer.
const BATCH_TARGET: usize = 4 << 20;
const ZEROS_PER_WRITE: u32 = 1 << 20;

/// How a journal is laid out.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// The length of new segment files, in bytes. At least 1,024.
    pub segment_bytes: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            segment_bytes: 64 << 20,
        }
    }
}

impl Config {
    /// The longest `data` of an entry that fits a segment, in bytes.
    #[must_use]
    pub fn longest_entry(&self) -> usize {
        longest_batch(self.segment_bytes).saturating_sub(ENTRY_HEAD)
    }
}

/// The write-ahead log of one member.
#[derive(Debug)]
pub struct Journal<D> {
    disk: D,
    directory: DirectoryId,
    config: Config,
    /// The segments up to the one being written, in order.
    segments: Vec<u32>,
    /// The file name and length of the segment being written.
    name: String,
    segment_bytes: u32,
    /// Where the gathered batch will stand: the end of what is durable.
    link: Link,
    /// The last index and hard state of what is durable, and of what is gathered behind it.
    durable: (u64, HardState),
    gathered: (u64, HardState),
    /// The highest commit index heard of.
    commit: u64,
    /// The gathered records, behind room for the batch's header.
    batch: Vec<u8>,
    /// Whether the last batch on disk holds no promise.
    last_empty: bool,
    /// Whether the segment behind this one is ready for use.
    next_prepared: bool,
    poisoned: bool,
    marks: Marks,
}

impl<D: Disk> Journal<D> {
    /// Opens the journal of `directory`, replays what stands behind `checkpoint`, and repairs
    /// the tail. All that is returned is durable.
    ///
    /// # Errors
    /// [`LogError::Corrupt`], before anything is changed, if a promise would be forgotten.
    pub fn open(
        disk: D,
        directory: DirectoryId,
        config: Config,
        checkpoint: Option<&CheckpointHead>,
    ) -> Result<(Self, Recovered), LogError> {
        Self::open_at(disk, directory, config, checkpoint, None)
    }

    /// The same, but hands the entries that are known to be committed to `committed` while it reads
    /// on, so that they need not all be in memory at once. After an error they mean nothing.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_with(
        disk: D,
        directory: DirectoryId,
        config: Config,
        checkpoint: Option<&CheckpointHead>,
        committed: &mut dyn FnMut(Vec<(Entry, EntryAt)>),
    ) -> Result<(Self, Recovered), LogError> {
        Self::open_at(disk, directory, config, checkpoint, Some(committed))
    }

    fn open_at(
        disk: D,
        directory: DirectoryId,
        config: Config,
        checkpoint: Option<&CheckpointHead>,
        committed: Option<&mut Committed<'_>>,
    ) -> Result<(Self, Recovered), LogError> {
        assert!(
            config.segment_bytes >= 1024,
            "a segment holds at least a header and a batch"
        );
        let beginning = Position::beginning();
        let (from, applied) = match checkpoint {
            Some(head) => (&head.position, head.index),
            None => (&beginning, 0),
        };
        let replayed = replay(&disk, directory, from, applied, committed)?;
        repair(&disk, &replayed)?;
        let next = replayed.link.at.segment + 1;
        let next_prepared = adopt_next(&disk, directory, next, config)?;
        let Replayed {
            recovered,
            link,
            segment_bytes,
            segments,
            last_empty,
            marks,
            ..
        } = replayed;
        let tail = (recovered.last_index, recovered.hard);
        let journal = Self {
            disk,
            directory,
            config,
            segments,
            name: segment_name(link.at.segment),
            segment_bytes,
            link,
            durable: tail,
            gathered: tail,
            commit: recovered.hard.commit,
            batch: vec![0; BATCH_HEAD],
            last_empty,
            next_prepared,
            poisoned: false,
            marks,
        };
        Ok((journal, recovered))
    }

    /// Gathers a hard state and entries, in this order, for the next [`Journal::sync`].
    ///
    /// Adds to `places` where each entry's data will stand. Writes and syncs by itself what is
    /// gathered when it gets long or a segment is full, so a part may be durable early.
    ///
    /// # Errors
    /// [`LogError::TooLarge`], and nothing is gathered; any other error poisons the journal.
    ///
    /// # Panics
    /// If an entry's index leaves a gap.
    pub fn append(
        &mut self,
        hard: Option<HardState>,
        entries: &[Entry],
        commit: u64,
        places: &mut Vec<(u64, EntryAt)>,
    ) -> Result<(), LogError> {
        self.check_alive()?;
        let limit = self.config.longest_entry();
        if let Some(entry) = entries.iter().find(|entry| entry.data.len() > limit) {
            let bytes = entry.data.len() as u64;
            return Err(LogError::TooLarge {
                bytes,
                limit: limit as u64,
            });
        }
        if let Some(hard) = hard {
            self.make_room(HARD_STATE_BYTES)?;
            encode_hard_state(hard, &mut self.batch);
            self.gathered.1 = hard;
        }
        for entry in entries {
            let last = self.gathered.0;
            assert!(
                last == 0 || entry.index <= last + 1,
                "entry {} after {last}",
                entry.index
            );
            self.make_room(ENTRY_HEAD + entry.data.len())?;
            encode_entry(entry, &mut self.batch);
            self.gathered.0 = entry.index;
            places.push((entry.index, self.place_of_last(entry.data.len())));
        }
        // Not before: a batch that is cut off above must not say it of an entry that is to be
        // cancelled by one behind the cut.
        self.commit = self.commit.max(commit);
        Ok(())
    }

    /// Gathers values that are copied forward, for the next [`Journal::sync`]. Adds to `places`
    /// where each will stand; until a sync covers it, the old place is the value's home.
    ///
    /// # Errors
    /// Any error poisons the journal.
    ///
    /// # Panics
    /// If one is longer than what fits a segment: its entry would not have fitted either.
    pub fn append_moved(
        &mut self,
        moved: &[Moved],
        places: &mut Vec<EntryAt>,
    ) -> Result<(), LogError> {
        self.check_alive()?;
        for moved in moved {
            self.make_room(MOVED_HEAD + moved.key.len() + moved.data.len())?;
            encode_moved(moved, &mut self.batch);
            places.push(self.place_of_last(moved.data.len()));
        }
        Ok(())
    }

    /// Where the last `bytes` bytes of the gathered batch will stand.
    fn place_of_last(&self, bytes: usize) -> EntryAt {
        let before = u32::try_from(self.batch.len() - bytes);
        let before = before.expect("make_room keeps batches in a segment");
        let EntryAt { segment, offset } = self.link.at;
        EntryAt {
            segment,
            offset: offset + before,
        }
    }

    /// Makes durable all that was appended: one write and one sync, or nothing if there is
    /// nothing gathered.
    ///
    /// # Errors
    /// Any error poisons the journal.
    pub fn sync(&mut self) -> Result<(), LogError> {
        self.check_alive()?;
        if self.batch.len() > BATCH_HEAD {
            self.write_batch(false)
        } else {
            Ok(())
        }
    }

    /// Makes durable all that was appended, and then an empty batch behind it, so that rot in
    /// the last promise can be told from a torn write. Does nothing if there is one already.
    ///
    /// # Errors
    /// Any error poisons the journal.
    pub fn idle_mark(&mut self) -> Result<(), LogError> {
        self.sync()?;
        if self.last_empty {
            Ok(())
        } else if self.fits(0) {
            self.write_batch(true)
        } else {
            self.roll()
        }
    }

    /// Bytes gathered and not yet written.
    #[must_use]
    pub fn gathered_bytes(&self) -> usize {
        self.batch.len() - BATCH_HEAD
    }

    /// Whether appending and syncing these may need the next segment.
    #[must_use]
    pub fn may_roll(&self, entries: &[Entry], moved: &[Moved]) -> bool {
        let entries = entries.iter().map(|entry| ENTRY_HEAD + entry.data.len());
        let moved = moved
            .iter()
            .map(|moved| MOVED_HEAD + moved.key.len() + moved.data.len());
        let data: usize = entries.chain(moved).sum();
        // Long batches are cut; the sixteenth part is far more than their headers take.
        !self.fits(HARD_STATE_BYTES + data + data / 16 + 2 * batch_bytes(0))
    }

    /// The number of the next segment if nobody has prepared it yet, once this one is a quarter
    /// full: a member that writes little does not pay for two.
    ///
    /// Whoever calls [`prepare_segment`] for it says so by [`Journal::set_prepared`]; until then
    /// the journal would prepare it by itself when it needs it, and must not be made to.
    #[must_use]
    pub fn wants_prepared(&self) -> Option<u32> {
        (!self.next_prepared && self.link.at.offset >= self.segment_bytes / 4)
            .then_some(self.link.at.segment + 1)
    }

    /// Takes note that segment `number` was prepared, with [`Journal::config`]'s length.
    pub fn set_prepared(&mut self, number: u32) {
        self.next_prepared |= number == self.link.at.segment + 1;
    }

    /// The disk that it writes to.
    #[must_use]
    pub fn disk(&self) -> &D {
        &self.disk
    }

    /// How new segments are laid out.
    #[must_use]
    pub fn config(&self) -> Config {
        self.config
    }

    /// The data directory's identity.
    #[must_use]
    pub fn directory(&self) -> DirectoryId {
        self.directory
    }

    /// Where replay must start for a checkpoint of the state at index `applied`, which must not
    /// step back from call to call.
    pub fn position_for(&mut self, applied: u64) -> Position {
        let (last_index, hard) = self.durable;
        let end = Mark {
            link: self.link,
            last_index,
            hard,
        };
        let mark = if last_index <= applied {
            end
        } else {
            self.marks.newest_for(applied)
        };
        let start = mark.link.at.segment;
        let segments = self
            .segments
            .iter()
            .copied()
            .filter(|segment| *segment <= start)
            .collect();
        Position { mark, segments }
    }

    /// Goes on behind a state that was received and ends with entry `index`: what stands before is
    /// of use for its values only. Returns where replay must start for it.
    ///
    /// Until that state's checkpoint is durable, nothing more may be appended: the journal would not
    /// fit the state that it replaces.
    ///
    /// # Errors
    /// Any error poisons the journal.
    pub fn install(&mut self, index: u64, hard: HardState) -> Result<Position, LogError> {
        self.idle_mark()?;
        self.durable = (index, hard);
        self.gathered = self.durable;
        self.commit = self.commit.max(hard.commit);
        let mark = Mark {
            link: self.link,
            last_index: index,
            hard,
        };
        self.marks = Marks::new(mark);
        let segments = self.segments.clone();
        Ok(Position { mark, segments })
    }

    /// Lets go of the segments that neither replay nor any value needs, and returns their numbers,
    /// for [`crate::Reserve::recycle`] once nobody reads in them.
    ///
    /// `kept` are the positions of the checkpoints that are kept. With fewer than two nothing is
    /// freed, for then the journal's beginning stands in for the older one.
    pub fn free(&mut self, kept: &[Position]) -> Vec<u32> {
        let start = kept.iter().map(Position::segment).min().unwrap_or_default();
        let is_needed = |segment: &u32| {
            kept.len() < 2
                || *segment >= start
                || kept
                    .iter()
                    .any(|position| position.segments.contains(segment))
        };
        self.segments
            .extract_if(.., |segment| !is_needed(segment))
            .collect()
    }

    fn check_alive(&self) -> Result<(), LogError> {
        if self.poisoned {
            Err(LogError::Poisoned)
        } else {
            Ok(())
        }
    }

    /// Whether the gathered batch fits this segment with `more` bytes of records (J3).
    fn fits(&self, more: usize) -> bool {
        let batch = batch_bytes(self.gathered_bytes() + more) + seal_bytes() as usize;
        self.link.at.offset as usize + batch <= self.segment_bytes as usize
    }

    /// Sees to it that a record of `bytes` bytes can be gathered.
    fn make_room(&mut self, bytes: usize) -> Result<(), LogError> {
        if self.batch.len() + bytes > BATCH_TARGET || !self.fits(bytes) {
            self.sync()?;
        }
        if !self.fits(bytes) {
            self.roll()?;
        }
        assert!(
            self.fits(bytes),
            "an entry that was let in fits an empty segment"
        );
        Ok(())
    }

    /// Seals this segment, durably, and goes on in the next (W4).
    fn roll(&mut self) -> Result<(), LogError> {
        assert!(
            self.gathered_bytes() == 0,
            "what is gathered belongs to the old segment"
        );
        let next = self.link.at.segment + 1;
        if !self.next_prepared {
            self.poisoned = true;
            prepare_segment(&self.disk, self.directory, next, self.config.segment_bytes)
                .map_err(LogError::of_reserve)?;
            self.poisoned = false;
        }
        encode_sealed(&mut self.batch);
        self.write_batch(true)?;
        self.link.next_segment();
        self.segments.push(next);
        self.name = segment_name(next);
        self.segment_bytes = self.config.segment_bytes;
        self.next_prepared = false;
        Ok(())
    }

    /// Writes and syncs what is gathered; `empty` says that it holds no promise.
    fn write_batch(&mut self, empty: bool) -> Result<(), LogError> {
        let (last_index, hard) = self.durable;
        self.marks.offer(Mark {
            link: self.link,
            last_index,
            hard,
        });
        let Link { at, chain, synced } = self.link;
        let seal = Seal::new(self.directory, at.segment);
        // The commit index may be ahead of entries that are still to be gathered.
        let commit = self.commit.min(self.gathered.0);
        let crc = seal.close(&mut self.batch, at.offset, chain, commit, synced);
        self.poisoned = true;
        self.disk
            .write_at(&self.name, u64::from(at.offset), &self.batch)?;
        self.disk.sync(&self.name)?;
        self.poisoned = false;
        self.link.advance(self.batch.len(), crc);
        self.durable = self.gathered;
        self.last_empty = empty;
        self.batch.truncate(BATCH_HEAD);
        self.batch.shrink_to(BATCH_TARGET);
        Ok(())
    }
}

/// Makes true and durable what replay found: zeros for a torn batch, else the last batch once
/// more. It may have been in memory only, and after a failed sync the system may hold unwritten
/// bytes to be written.
fn repair<D: Disk>(disk: &D, replayed: &Replayed) -> Result<(), DiskError> {
    let EntryAt { segment, offset } = replayed.link.at;
    if let Some(end) = replayed.torn_end {
        zero(disk, &segment_name(segment), offset, end)?;
    } else if let Some((at, bytes)) = &replayed.last {
        let name = segment_name(at.segment);
        disk.write_at(&name, u64::from(at.offset), bytes)?;
        disk.sync(&name)?;
    }
    Ok(())
}

fn zero<D: Disk>(disk: &D, name: &str, from: u32, to: u32) -> Result<(), DiskError> {
    let zeros = vec![0; ZEROS_PER_WRITE.min(to - from) as usize];
    let mut offset = from;
    while offset < to {
        let count = ZEROS_PER_WRITE.min(to - offset);
        disk.write_at(name, u64::from(offset), &zeros[..count as usize])?;
        offset += count;
    }
    disk.sync(name)
}

/// Whether segment `next` stands ready; makes sure of it if it looks so.
fn adopt_next<D: Disk>(
    disk: &D,
    directory: DirectoryId,
    next: u32,
    config: Config,
) -> Result<bool, LogError> {
    if !list_segments(disk)?.contains(&next) {
        return Ok(false);
    }
    // Replay found no batch in it. One that was not finished is made anew.
    match check_segment(disk, directory, next) {
        Ok(bytes) if bytes == config.segment_bytes => {
            disk.sync(&segment_name(next))?;
            disk.sync_dir()?;
            Ok(true)
        }
        Ok(_) | Err(LogError::Corrupt(_)) => Ok(false),
        Err(other) => Err(other),
    }
}
