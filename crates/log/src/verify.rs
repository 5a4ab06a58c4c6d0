//! Reads all bytes of a data directory and says what there is. Changes nothing.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use crate::checkpoint::{checkpoint_name, list_checkpoints};
use crate::disk::Disk;
use crate::error::{Corrupt, LogError};
use crate::identity::{DirectoryId, Identity};
use crate::place::{EntryAt, Link, Position};
use crate::read_checkpoint::verify_checkpoint;
use crate::record::Record;
use crate::replay::{Torn, replay, unsealed};
use crate::segment::{SEGMENT_HEAD, check_segment, list_segments, segment_name};
use crate::walk::{Step, Walk};

/// The first entry of a log that began empty; one of a restored member begins later.
const FIRST_INDEX: u64 = 2;

/// What a data directory holds. `Display` prints it for the operator.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Whose directory it is; `None` if it is fresh or the identity does not verify.
    pub identity: Option<Identity>,
    /// Every segment, in order.
    pub segments: Vec<SegmentReport>,
    /// Every checkpoint, newest first.
    pub checkpoints: Vec<CheckpointReport>,
    /// The index of the last entry that a member would start with; 0 if there is none.
    pub last_index: u64,
    /// The last batch, if it is torn. A start drops it.
    pub torn: Option<Torn>,
    /// All that makes a start refuse, or will make a read of a value fail.
    pub corrupt: Vec<LogError>,
}

/// What one segment holds.
#[derive(Clone, Debug)]
pub struct SegmentReport {
    /// The file's name.
    pub file: String,
    /// Batches that verify, empty ones included.
    pub batches: u64,
    /// Records in them.
    pub records: u64,
    /// Entries among them, cancelled ones included.
    pub entries: u64,
    /// The index of the last of them; 0 if there is none.
    pub last_index: u64,
}

/// What one checkpoint holds.
#[derive(Clone, Debug)]
pub struct CheckpointReport {
    /// The file's name.
    pub file: String,
    /// The index of the last entry applied to it.
    pub index: u64,
    /// Its rows, all verified.
    pub rows: u64,
}

/// Reads every record of every segment and checkpoint.
///
/// # Errors
/// Those of the disk. What does not verify is in the report.
pub fn verify<D: Disk>(disk: &D) -> Result<Report, LogError> {
    let mut report = Report::default();
    report.identity = report.keep(Identity::load(disk))?.flatten();
    let Some(directory) = report.identity.as_ref().map(|identity| identity.directory) else {
        return Ok(report);
    };
    let mut newest = None;
    for index in list_checkpoints(disk)? {
        if let Some((head, rows)) = report.keep(verify_checkpoint(disk, directory, index))? {
            report.checkpoints.push(CheckpointReport {
                file: checkpoint_name(index),
                index,
                rows,
            });
            newest.get_or_insert(head);
        }
    }
    // As a start would do it: this finds what is torn or missing at the end.
    let has_checkpoint = newest.is_some();
    let (from, applied) = match newest {
        Some(head) => (head.position, head.index),
        None => (Position::beginning(), 0),
    };
    if let Some(replayed) = report.keep(replay(disk, directory, &from, applied, None))? {
        report.last_index = replayed.recovered.last_index;
        let entries = &replayed.recovered.entries;
        let first = entries.first().map_or(0, |(entry, _)| entry.index);
        if first > FIRST_INDEX && !has_checkpoint {
            let what = format!("the log begins at entry {first}, and no checkpoint leads up to it");
            let error = Corrupt::new(segment_name(1), 0, what);
            report.corrupt.push(error.into());
        }
        report.torn = replayed.recovered.torn;
    }
    // And every segment by itself: those before the checkpoint are kept for their values.
    let segments = list_segments(disk)?;
    let beginning = Position::beginning().mark.link;
    let mut previous = (segments.first() == Some(&1)).then_some(beginning);
    for segment in segments.iter().copied() {
        // Behind a segment that was freed, nothing is known.
        let is_there = |link: &Link| segments.contains(&link.at.segment);
        previous = previous.filter(is_there);
        previous = verify_segment(disk, directory, segment, previous, &mut report)?;
    }
    Ok(report)
}

/// Reads one segment. `previous` is where the one before ended, if that is known; returns where
/// this one does.
fn verify_segment<D: Disk>(
    disk: &D,
    directory: DirectoryId,
    segment: u32,
    previous: Option<Link>,
    report: &mut Report,
) -> Result<Option<Link>, LogError> {
    let file = segment_name(segment);
    let unsealed_before = previous.filter(|link| segment == link.at.segment + 1);
    let segment_bytes = match check_segment(disk, directory, segment) {
        Ok(bytes) => bytes,
        // The segment behind the last one may be unfinished.
        Err(LogError::Corrupt(_)) if unsealed_before.is_some() => return Ok(previous),
        Err(other) => {
            report.keep(Err::<(), _>(other))?;
            return Ok(None);
        }
    };
    let at = EntryAt {
        segment,
        offset: SEGMENT_HEAD,
    };
    let mut link = match previous {
        Some(link) if link.at == at => link,
        _ => {
            // Believe its first batch about what it follows.
            let unknown = Link {
                at,
                chain: 0,
                synced: at,
            };
            let walk = Walk::new(disk, &file, directory, segment_bytes, unknown);
            match (walk.first_follows()?, unsealed_before) {
                (None, _) => unknown,
                (Some((chain, synced)), None) => Link { at, chain, synced },
                (Some((chain, synced)), Some(end)) => {
                    report.keep(Err::<(), _>(unsealed(end, segment, SEGMENT_HEAD)))?;
                    Link { at, chain, synced }
                }
            }
        }
    };
    let mut found = SegmentReport {
        file,
        batches: 0,
        records: 0,
        entries: 0,
        last_index: 0,
    };
    let read = count_segment(disk, directory, segment_bytes, &mut link, &mut found);
    let read = report.keep(read)?;
    report.segments.push(found);
    // One report of a segment is enough: behind a bad batch the next one starts anew.
    Ok(read.map(|()| link))
}

fn count_segment<D: Disk>(
    disk: &D,
    directory: DirectoryId,
    segment_bytes: u32,
    link: &mut Link,
    found: &mut SegmentReport,
) -> Result<(), LogError> {
    let mut walk = Walk::new(disk, &found.file, directory, segment_bytes, *link);
    while let Step::Batch(batch) = walk.step()? {
        found.batches += 1;
        *link = walk.link;
        for record in batch.records() {
            found.records += 1;
            match record.map_err(|bad| batch.bad_record(&found.file, bad))? {
                Record::Entry { index, .. } => {
                    found.entries += 1;
                    found.last_index = index;
                }
                Record::HardState(_) | Record::Moved { .. } => {}
                Record::Sealed => {
                    link.next_segment();
                    return Ok(());
                }
            }
        }
    }
    Ok(())
}

impl Report {
    /// Whether a member would start, with every value readable.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.corrupt.is_empty()
    }

    /// Notes what is not as it was written, and passes on what the disk refused.
    fn keep<T>(&mut self, result: Result<T, LogError>) -> Result<Option<T>, LogError> {
        match result {
            Ok(value) => Ok(Some(value)),
            Err(error @ (LogError::Corrupt(_) | LogError::Newer { .. })) => {
                if !self.corrupt.contains(&error) {
                    self.corrupt.push(error);
                }
                Ok(None)
            }
            Err(other) => Err(other),
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.identity {
            Some(identity) => writeln!(
                f,
                "identity: cluster {:x}, member {:x}, opened {} times",
                identity.cluster, identity.member, identity.incarnation
            )?,
            None => writeln!(f, "identity: none")?,
        }
        for CheckpointReport { file, index, rows } in &self.checkpoints {
            writeln!(f, "{file}: state at entry {index}, {rows} rows")?;
        }
        for SegmentReport {
            file,
            batches,
            records,
            entries,
            last_index,
        } in &self.segments
        {
            writeln!(
                f,
                "{file}: {batches} batches, {records} records, {entries} entries, last {last_index}"
            )?;
        }
        writeln!(f, "last entry: {}", self.last_index)?;
        if let Some(torn) = &self.torn {
            writeln!(f, "torn: {torn}; a start drops that batch")?;
        }
        for corrupt in &self.corrupt {
            writeln!(f, "CORRUPT: {corrupt}")?;
        }
        writeln!(
            f,
            "{}",
            if self.is_sound() {
                "sound"
            } else {
                "NOT SOUND"
            }
        )
    }
}
