//! Walking over the batches of one segment, and telling a torn tail from corruption.

use alloc::format;
use alloc::string::String;

use bytes::Bytes;

use crate::batch::{BATCH_ALIGN, BATCH_HEAD, BatchHead, Seal, batch_bytes};
use crate::disk::{Disk, DiskError};
use crate::error::{Corrupt, LogError};
use crate::identity::DirectoryId;
use crate::place::{EntryAt, Link};
use crate::record::{BadRecord, Records};
use crate::segment::FORMAT_VERSION;
use crate::window::Window;

/// A batch whose checksum and place in the chain are right.
pub(crate) struct Batch {
    /// Where it starts in its segment.
    pub(crate) offset: u32,
    pub(crate) head: BatchHead,
    /// All its bytes, header and padding included.
    pub(crate) bytes: Bytes,
}

impl Batch {
    pub(crate) fn records(&self) -> Records<'_> {
        Records::new(&self.bytes[BATCH_HEAD..BATCH_HEAD + self.head.length])
    }

    /// Where in the segment the byte stands that is the `nth` of the records.
    pub(crate) fn place(&self, nth: usize) -> u32 {
        self.offset + u32::try_from(BATCH_HEAD + nth).expect("a batch lies within its segment")
    }

    /// The error for a record of this batch that cannot be read although the checksum is right.
    pub(crate) fn bad_record(&self, file: &str, bad: BadRecord) -> LogError {
        match bad {
            BadRecord::Malformed => {
                let what = "a record of a checksummed batch is malformed";
                Corrupt::new(file, u64::from(self.offset), what).into()
            }
            BadRecord::Newer(format) => LogError::Newer {
                file: String::from(file),
                // An unknown kind of the known record format came with a later file format too.
                found: u32::from(format).max(FORMAT_VERSION + 1),
                known: FORMAT_VERSION,
            },
        }
    }
}

/// What stands where the next batch would.
pub(crate) enum Step {
    Batch(Batch),
    /// Nothing but zeros up to the segment's end.
    End,
    /// Bytes that are no batch, with no batch behind them in this segment.
    Torn {
        /// Behind the last of them that is not zero.
        nonzero_end: u32,
    },
}

/// Yields the batches of a segment in order.
pub(crate) struct Walk<'a, D> {
    window: Window<&'a D>,
    name: &'a str,
    seal: Seal,
    segment_bytes: u32,
    /// The end of the last batch yielded.
    pub(crate) link: Link,
}

impl<'a, D: Disk> Walk<'a, D> {
    /// Starts at `link`, in the segment file `name` of `segment_bytes` bytes.
    pub(crate) fn new(
        disk: &'a D,
        name: &'a str,
        directory: DirectoryId,
        segment_bytes: u32,
        link: Link,
    ) -> Self {
        let seal = Seal::new(directory, link.at.segment);
        Self {
            window: Window::new(disk, name, u64::from(segment_bytes)),
            name,
            seal,
            segment_bytes,
            link,
        }
    }

    /// The next batch, or what there is in its place.
    ///
    /// # Errors
    /// [`LogError::Corrupt`] for a bad batch that has a good one behind it, or that does not
    /// follow the batch before.
    pub(crate) fn step(&mut self) -> Result<Step, LogError> {
        let Some(batch) = self.batch_at(self.link.at.offset)? else {
            return self.tail();
        };
        if batch.head.previous != self.link.chain || batch.head.synced != self.link.synced {
            return Err(self.corrupt("the batch does not follow the one before it"));
        }
        self.link.advance(batch.bytes.len(), batch.head.crc);
        Ok(Step::Batch(batch))
    }

    /// What the first batch says it follows, as its checksum and its end; `None` without one.
    pub(crate) fn first_follows(mut self) -> Result<Option<(u32, EntryAt)>, DiskError> {
        let first = self.batch_at(self.link.at.offset)?;
        Ok(first.map(|batch| (batch.head.previous, batch.head.synced)))
    }

    /// The walker's place as an error.
    pub(crate) fn corrupt(&self, what: &str) -> LogError {
        Corrupt::new(self.name, u64::from(self.link.at.offset), what).into()
    }

    /// The batch at `offset`, if its checksum is right.
    fn batch_at(&mut self, offset: u32) -> Result<Option<Batch>, DiskError> {
        let Some(room) = self.segment_bytes.checked_sub(offset) else {
            return Ok(None);
        };
        if (room as usize) < BATCH_HEAD {
            return Ok(None);
        }
        let start = self.window.get(u64::from(offset), BATCH_HEAD)?;
        let Some(head) = self.seal.parse(&start) else {
            return Ok(None);
        };
        if head.length > room as usize || batch_bytes(head.length) > room as usize {
            return Ok(None);
        }
        let bytes = self
            .window
            .get(u64::from(offset), batch_bytes(head.length))?;
        let good = self.seal.verify(&bytes, offset, &head);
        Ok(good.then_some(Batch {
            offset,
            head,
            bytes,
        }))
    }

    /// Judges the bytes from a place on where there is no good batch.
    fn tail(&mut self) -> Result<Step, LogError> {
        let found = self.scan(self.link.at.offset)?;
        if let Some(good) = found.batch {
            let what = format!("a bad batch, but a good one follows at {good}");
            return Err(self.corrupt(&what));
        }
        Ok(match found.nonzero_end {
            Some(nonzero_end) => Step::Torn { nonzero_end },
            None => Step::End,
        })
    }

    /// Looks for any batch of this segment at or behind `from`, whatever it follows.
    pub(crate) fn scan(&mut self, from: u32) -> Result<Scan, DiskError> {
        const ZEROS: [u8; 4096] = [0; 4096];
        let mut scan = Scan::default();
        let mut at = from;
        while at < self.segment_bytes {
            let block = self.window.get(u64::from(at), ZEROS.len())?;
            if block.is_empty() {
                break;
            }
            if block != ZEROS[..block.len()] {
                if let Some(last) = block.iter().rposition(|byte| *byte != 0) {
                    scan.nonzero_end = Some(at + u32::try_from(last + 1).expect("4,096 at most"));
                }
                for start in (0..block.len()).step_by(BATCH_ALIGN) {
                    let offset = at + u32::try_from(start).expect("4,096 at most");
                    if self.seal.starts(&block[start..]) && self.batch_at(offset)?.is_some() {
                        scan.batch = Some(offset);
                        return Ok(scan);
                    }
                }
            }
            at += u32::try_from(block.len()).expect("4,096 at most");
        }
        Ok(scan)
    }
}

/// What [`Walk::scan`] found.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Scan {
    /// Where the first good batch starts.
    pub(crate) batch: Option<u32>,
    /// Behind the last byte that is not zero; `None` if all are.
    pub(crate) nonzero_end: Option<u32>,
}
