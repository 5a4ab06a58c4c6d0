//! Batches: what is written by one write and promised by one sync.
//!
//! The checksum of a batch is seeded with the directory's id, the segment's number and the
//! batch's own offset, and covers the checksum of the batch before it. So a batch verifies only
//! where it was written, and a chain of batches only in order.

use alloc::vec::Vec;

use crate::bytes::{Crc32c, Fields, crc32c};
use crate::identity::DirectoryId;
use crate::place::EntryAt;

/// Bytes before a batch's records.
pub(crate) const BATCH_HEAD: usize = 32;
/// Batches start at multiples of this; the bytes between are zero, and checksummed.
pub(crate) const BATCH_ALIGN: usize = 8;
/// The checksum stands here, and covers all from `CHECKED_FROM` on.
const CRC_AT: usize = 4;
const CHECKED_FROM: usize = 8;

/// What a batch's header says, verified.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BatchHead {
    /// This batch's checksum, the next one's `previous`.
    pub(crate) crc: u32,
    /// The checksum of the batch before it in the journal; 0 for the first.
    pub(crate) previous: u32,
    /// Bytes of records.
    pub(crate) length: usize,
    /// The highest index known to be committed when it was written.
    pub(crate) commit: u64,
    /// The end of all that was synced before it was written.
    pub(crate) synced: EntryAt,
}

/// Bytes from the start of a batch with `length` bytes of records to the start of the next.
pub(crate) fn batch_bytes(length: usize) -> usize {
    (BATCH_HEAD + length).next_multiple_of(BATCH_ALIGN)
}

/// What makes batches of one segment recognisable.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seal {
    directory: DirectoryId,
    segment: u32,
    magic: [u8; 4],
}

impl Seal {
    /// The mark that starts a batch comes from the directory's random id, so that no client can
    /// put it into a value on purpose and make the search for batches slow.
    pub(crate) fn new(directory: DirectoryId, segment: u32) -> Self {
        let magic = (crc32c(&directory.0) | 1).to_le_bytes();
        Self {
            directory,
            segment,
            magic,
        }
    }

    fn checksum(&self, offset: u32, checked: &[u8]) -> u32 {
        let mut seed = [0; 24];
        seed[..16].copy_from_slice(&self.directory.0);
        seed[16..20].copy_from_slice(&self.segment.to_le_bytes());
        seed[20..].copy_from_slice(&offset.to_le_bytes());
        let mut crc = Crc32c::new();
        crc.update(&seed);
        crc.update(checked);
        crc.finish()
    }

    /// Turns `batch`, whose first [`BATCH_HEAD`] bytes are free and whose rest are its records,
    /// into what is to be written at `offset`. Returns its checksum.
    pub(crate) fn close(
        &self,
        batch: &mut Vec<u8>,
        offset: u32,
        previous: u32,
        commit: u64,
        synced: EntryAt,
    ) -> u32 {
        let length = u32::try_from(batch.len() - BATCH_HEAD).expect("a batch fits its segment");
        batch.resize(batch.len().next_multiple_of(BATCH_ALIGN), 0);
        batch[..CRC_AT].copy_from_slice(&self.magic);
        batch[8..12].copy_from_slice(&previous.to_le_bytes());
        batch[12..16].copy_from_slice(&length.to_le_bytes());
        batch[16..24].copy_from_slice(&commit.to_le_bytes());
        batch[24..28].copy_from_slice(&synced.segment.to_le_bytes());
        batch[28..BATCH_HEAD].copy_from_slice(&synced.offset.to_le_bytes());
        let crc = self.checksum(offset, &batch[CHECKED_FROM..]);
        batch[CRC_AT..CHECKED_FROM].copy_from_slice(&crc.to_le_bytes());
        crc
    }

    /// Whether a batch may start with these bytes: the quick look before [`Seal::verify`].
    pub(crate) fn starts(&self, bytes: &[u8]) -> bool {
        bytes.starts_with(&self.magic)
    }

    /// Reads a header that is not verified yet, and says how long its batch would be.
    pub(crate) fn parse(&self, bytes: &[u8]) -> Option<BatchHead> {
        let mut fields = Fields(bytes);
        if fields.array()? != self.magic {
            return None;
        }
        Some(BatchHead {
            crc: fields.u32()?,
            previous: fields.u32()?,
            length: fields.u32()? as usize,
            commit: fields.u64()?,
            synced: EntryAt {
                segment: fields.u32()?,
                offset: fields.u32()?,
            },
        })
    }

    /// Whether `batch`, all bytes of one batch, is what was written at `offset`.
    pub(crate) fn verify(&self, batch: &[u8], offset: u32, head: &BatchHead) -> bool {
        batch.len() == batch_bytes(head.length)
            && self.checksum(offset, &batch[CHECKED_FROM..]) == head.crc
    }
}
