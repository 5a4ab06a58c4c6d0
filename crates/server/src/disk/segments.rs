//! Segment files in memory, for readers on any thread.
//!
//! A segment is mapped read-only when the registry is opened, or when it is prepared or first
//! read, and stays mapped as long as the registry lives, even after its file was removed.
//!
//! The one module of the server with `unsafe`: it hands out slices of a file that the disk
//! thread goes on writing.

use std::fs::File;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use memmap2::{MmapOptions, MmapRaw};
use quorate_log::{Disk, DiskError, segment_name, segment_number};

use super::FsDisk;

/// Segments in a page of the table, and pages.
const PAGE: usize = 1024;

type Page = [OnceLock<MmapRaw>; PAGE];

/// Segment number to the bytes of its file. No lock is taken to read.
#[derive(Debug)]
pub struct Segments {
    directory: PathBuf,
    pages: Box<[OnceLock<Box<Page>>]>,
}

impl Segments {
    /// Maps the segments that a data directory has.
    ///
    /// # Errors
    /// Those of the system.
    pub fn open(disk: &FsDisk) -> Result<Arc<Self>, DiskError> {
        let pages = std::iter::repeat_with(OnceLock::new).take(PAGE).collect();
        let segments = Self {
            directory: disk.path().to_owned(),
            pages,
        };
        for number in disk.list()?.iter().filter_map(|name| segment_number(name)) {
            segments.map(number);
        }
        Ok(Arc::new(segments))
    }

    /// `len` bytes at `offset` of a segment, not checked against any checksum. `None` if the
    /// segment is missing or ends before.
    ///
    /// Only for places that the journal has returned, and that it reported as durable: those
    /// bytes are never written again while they can be referred to.
    #[must_use]
    pub fn bytes(&self, segment: u32, offset: u32, len: u32) -> Option<&[u8]> {
        let map = self.map(segment)?;
        let (offset, len) = (offset as usize, len as usize);
        if offset.checked_add(len)? > map.len() {
            return None;
        }
        #[allow(unsafe_code)]
        // SAFETY: The range lies within the mapping, which lives as long as `self`. The file is
        // never made shorter (segments are zero-filled once, in full, before their first use).
        // The disk thread writes other bytes of the same file, but none of these: W2 of
        // `quorate_log`, nothing is rewritten, and the caller asks only for durable places. The
        // repair of a torn tail and the second writing of the last batch happen in
        // `Journal::open`, before there is a reader, and the latter writes the same bytes.
        // Another process is kept out by the directory's lock.
        Some(unsafe { std::slice::from_raw_parts(map.as_ptr().add(offset), len) })
    }

    /// The mapping of a segment, made if need be.
    /// The mapping of a segment, made if need be.
    pub(super) fn map(&self, segment: u32) -> Option<&MmapRaw> {
        let page = self.pages.get(segment as usize / PAGE)?;
        let page = page.get_or_init(|| Box::new([const { OnceLock::new() }; PAGE]));
        let slot = &page[segment as usize % PAGE];
        if let Some(map) = slot.get() {
            return Some(map);
        }
        let name = segment_name(segment);
        let file = File::open(self.directory.join(&name));
        match file.and_then(|file| MmapOptions::new().map_raw_read_only(&file)) {
            // When two readers come at once, one of the two mappings is dropped again.
            Ok(map) => Some(slot.get_or_init(|| map)),
            Err(error) => {
                tracing::error!(file = name, %error, "cannot map a segment");
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_written_after_the_mapping_are_seen_and_no_others_exist() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(segment_name(1025));
        std::fs::write(&path, [0; 8192]).unwrap();
        let segments = Segments::open(&FsDisk::open(directory.path()).unwrap()).unwrap();
        assert_eq!(segments.bytes(1025, 0, 3), Some(&[0; 3][..]));
        let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
        std::os::unix::fs::FileExt::write_all_at(&file, b"value", 5000).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert_eq!(segments.bytes(1025, 5000, 5), Some(&b"value"[..]));
        assert_eq!(segments.bytes(1025, 8190, 3), None);
        assert_eq!(segments.bytes(1025, u32::MAX, u32::MAX), None);
        assert_eq!(segments.bytes(7, 0, 1), None);
        assert_eq!(segments.bytes(u32::MAX, 0, 1), None);
    }
}
