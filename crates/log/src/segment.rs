//! Segment files: their names, their header, and how one comes to be.

use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

use crate::batch::{BATCH_HEAD, batch_bytes};
use crate::bytes::{Fields, crc32c};
use crate::disk::{Disk, DiskError};
use crate::error::{Corrupt, LogError};
use crate::identity::DirectoryId;
use crate::record::SEALED_BYTES;

/// The version of all files of a data directory that this program writes and reads.
pub const FORMAT_VERSION: u32 = 1;

const MAGIC: [u8; 8] = *b"QRTSEGM\0";
/// Where a segment's first batch starts.
pub(crate) const SEGMENT_HEAD: u32 = 64;
/// The header's checksum is its last field and covers all before it.
const CRC_AT: usize = 60;
const SUFFIX: &str = ".segment";
const ZEROS_PER_WRITE: usize = 1 << 20;
const SYNC_EVERY: u32 = 4 << 20;

/// The room that every segment keeps for the batch that seals it.
pub(crate) fn seal_bytes() -> u32 {
    u32::try_from(batch_bytes(SEALED_BYTES)).expect("a few bytes")
}

/// The longest records part of a batch in an empty segment.
pub(crate) fn longest_batch(segment_bytes: u32) -> usize {
    (segment_bytes as usize)
        .saturating_sub(SEGMENT_HEAD as usize + BATCH_HEAD + 8)
        .saturating_sub(seal_bytes() as usize)
}

/// The file name of a segment.
#[must_use]
pub fn segment_name(number: u32) -> String {
    format!("{number:010}{SUFFIX}")
}

/// The number of the segment with that file name; `None` if it is no segment's.
#[must_use]
pub fn segment_number(name: &str) -> Option<u32> {
    let number = name.strip_suffix(SUFFIX)?.parse().ok()?;
    (number > 0 && segment_name(number) == name).then_some(number)
}

/// The numbers of all segment files, in order.
pub(crate) fn list_segments<D: Disk>(disk: &D) -> Result<Vec<u32>, DiskError> {
    let names = disk.list()?;
    let mut numbers: Vec<u32> = names
        .iter()
        .filter_map(|name| segment_number(name))
        .collect();
    numbers.sort_unstable();
    Ok(numbers)
}

/// Makes the file `name`, whatever it holds, the empty segment `number`: zeros and a header,
/// durable.
///
/// # Errors
/// Those of the disk.
pub(crate) fn fill_segment<D: Disk>(
    disk: &D,
    name: &str,
    directory: DirectoryId,
    number: u32,
    segment_bytes: u32,
) -> Result<(), DiskError> {
    let mut zeros = vec![0; ZEROS_PER_WRITE.min(segment_bytes as usize)];
    let mut offset = 0;
    while offset < segment_bytes {
        let count = zeros.len().min((segment_bytes - offset) as usize);
        disk.write_at(name, u64::from(offset), &zeros[..count])?;
        offset += u32::try_from(count).expect("no longer than the segment");
        // In pieces, so that the journal's syncs do not queue behind one of 64 MiB.
        if offset.is_multiple_of(SYNC_EVERY) {
            disk.sync(name)?;
        }
    }
    zeros.truncate(SEGMENT_HEAD as usize);
    encode_header(&mut zeros, directory, number, segment_bytes);
    disk.write_at(name, 0, &zeros)?;
    disk.sync(name)
}

fn encode_header(into: &mut [u8], directory: DirectoryId, number: u32, segment_bytes: u32) {
    into[..8].copy_from_slice(&MAGIC);
    into[8..12].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
    into[12..16].copy_from_slice(&number.to_le_bytes());
    into[16..32].copy_from_slice(&directory.0);
    into[32..36].copy_from_slice(&segment_bytes.to_le_bytes());
    let crc = crc32c(&into[..CRC_AT]);
    into[CRC_AT..SEGMENT_HEAD as usize].copy_from_slice(&crc.to_le_bytes());
}

/// Checks a segment's header and length, and returns its length in bytes.
///
/// # Errors
/// [`LogError::Corrupt`] if it is short, long, or not this directory's segment `number`.
pub(crate) fn check_segment<D: Disk>(
    disk: &D,
    directory: DirectoryId,
    number: u32,
) -> Result<u32, LogError> {
    let name = segment_name(number);
    let length = disk.len(&name)?;
    let mut header = [0; SEGMENT_HEAD as usize];
    let read = disk.read_at(&name, 0, &mut header)?;
    let bad = |offset: u64, what: &str| LogError::Corrupt(Corrupt::new(&name[..], offset, what));
    if read < header.len() {
        return Err(bad(length, "the file is shorter than a segment's header"));
    }
    let mut fields = Fields(&header);
    if fields.array() != Some(MAGIC) {
        return Err(bad(0, "the header is not a segment's"));
    }
    // Every later version keeps the magic, the version and the checksum where they are.
    if crc32c(&header[..CRC_AT]).to_le_bytes() != header[CRC_AT..] {
        return Err(bad(0, "the header's checksum is wrong"));
    }
    match fields.u32().unwrap_or_default() {
        FORMAT_VERSION => {}
        0 => return Err(bad(8, "the header bears no format version")),
        found => {
            return Err(LogError::Newer {
                file: name,
                found,
                known: FORMAT_VERSION,
            });
        }
    }
    if fields.u32() != Some(number) {
        return Err(bad(12, "the header bears another segment's number"));
    }
    if fields.array() != Some(directory.0) {
        return Err(bad(16, "the segment belongs to another data directory"));
    }
    let expected = fields.u32().unwrap_or_default();
    if length != u64::from(expected) {
        let what = format!("the file has {length} bytes, its header says {expected}");
        return Err(bad(length.min(u64::from(expected)), &what));
    }
    Ok(expected)
}
