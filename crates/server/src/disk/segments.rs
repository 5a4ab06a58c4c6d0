//! Segment files in memory, for readers on any thread.
//!
//! A segment is mapped read-only when the registry is opened or the disk thread has it prepared,
//! and stays mapped until it is freed. Values are read through a [`Reader`], which holds the table
//! for one request or one chunk of work; the disk thread changes the table between readers.
//!
//! The one module of the server with `unsafe`: it hands out slices of a file that the disk
//! thread goes on writing.
//!
//! M1. A place that the disk thread has reported lies in a mapped segment, until it is freed.
//! M2. While a reader lives, nothing is mapped or unmapped: its slices stay.
//! M3. A thread has one reader at a time. A second one would wait for a writer that waits for the
//!     first.
//! M4. The machine's lock is taken before the reader, and a place is read under the hold of the
//!     machine under which it was found: later its segment may be gone.

use std::cell::Cell;
use std::fs::File;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use memmap2::{MmapOptions, MmapRaw};
use quorate_log::{Disk, DiskError, segment_name, segment_number};

use super::FsDisk;

/// Segment number to the bytes of its file.
#[derive(Debug)]
pub struct Segments {
    directory: PathBuf,
    table: RwLock<Table>,
}

/// In the order of their numbers.
type Table = Vec<(u32, MmapRaw)>;

impl Segments {
    /// Maps the segments that a data directory has.
    ///
    /// # Errors
    /// Those of the system.
    pub fn open(disk: &FsDisk) -> Result<Arc<Self>, DiskError> {
        let segments = Self {
            directory: disk.path().to_owned(),
            table: RwLock::default(),
        };
        for number in disk.list()?.iter().filter_map(|name| segment_number(name)) {
            segments.map(number);
        }
        Ok(Arc::new(segments))
    }

    /// A reader, for bounded work: the disk thread waits for its end (M2).
    ///
    /// # Panics
    /// If this thread has one already (M3).
    pub fn reader(&self) -> Reader<'_> {
        Reader {
            _only: Only::claim(),
            table: self.table.read().unwrap_or_else(PoisonError::into_inner),
        }
    }

    /// Maps a segment whose file was made, in place of what was known under its number.
    pub(super) fn map(&self, number: u32) {
        let name = segment_name(number);
        let file = File::open(self.directory.join(&name));
        let map = match file.and_then(|file| MmapOptions::new().map_raw_read_only(&file)) {
            Ok(map) => map,
            Err(error) => {
                tracing::error!(file = name, %error, "cannot map a segment");
                return;
            }
        };
        let mut table = self.table_mut();
        match find(&table, number) {
            // It was mapped when the registry was opened, but then made anew.
            Ok(at) => table[at].1 = map,
            Err(at) => table.insert(at, (number, map)),
        }
    }

    /// Maps a segment that the journal has made by itself, unless it is mapped.
    pub(super) fn ensure_mapped(&self, number: u32) {
        let is_mapped = find(&self.reader().table, number).is_ok();
        if !is_mapped {
            self.map(number);
        }
    }

    /// Lets go of segments that were freed, once no reader is left that may hold a slice of them.
    pub(super) fn unmap(&self, freed: &[u32]) {
        let gone: Table = self
            .table_mut()
            .extract_if(.., |(number, _)| freed.contains(number))
            .collect();
        // Readers need not wait for the system to take the pages back.
        drop(gone);
    }

    fn table_mut(&self) -> RwLockWriteGuard<'_, Table> {
        // The table is whole at every moment, whoever panicked.
        self.table.write().unwrap_or_else(PoisonError::into_inner)
    }
}

fn find(table: &Table, number: u32) -> Result<usize, usize> {
    table.binary_search_by_key(&number, |(number, _)| *number)
}

/// The segments as they are mapped now. Slices that it hands out live as long as it does.
#[derive(Debug)]
pub struct Reader<'a> {
    _only: Only,
    table: RwLockReadGuard<'a, Table>,
}

impl Reader<'_> {
    /// `len` bytes at `offset` of a segment, not checked against any checksum. `None` if the
    /// segment is missing or ends before.
    ///
    /// Only for places that the journal has returned, and that it reported as durable: those
    /// bytes are never written again while they can be referred to.
    #[must_use]
    pub fn bytes(&self, segment: u32, offset: u32, len: u32) -> Option<&[u8]> {
        let at = find(&self.table, segment).ok()?;
        let map = &self.table[at].1;
        let (offset, len) = (offset as usize, len as usize);
        if offset.checked_add(len)? > map.len() {
            return None;
        }
        #[allow(unsafe_code)]
        // SAFETY: The range lies within the mapping, which lives as long as `self` holds the
        // table: `map` and `unmap` change it only under the write lock. A segment that is freed
        // and unmapped is one that two checkpoints no longer need, so no place in the store is in
        // it any more; whoever found a place before has read it under the same hold of the
        // machine's lock (M4), and its slice ended with its reader.
        // The file is never made shorter (segments are zero-filled once, in full, before their
        // first use). The disk thread writes other bytes of the same file, but none of these: W2
        // of `quorate_log`, nothing is rewritten, and the caller asks only for durable places. The
        // repair of a torn tail and the second writing of the last batch happen in
        // `Journal::open`, before there is a reader, and the latter writes the same bytes.
        // Another process is kept out by the directory's lock.
        Some(unsafe { std::slice::from_raw_parts(map.as_ptr().add(offset), len) })
    }
}

thread_local! {
    static READS: Cell<bool> = const { Cell::new(false) };
}

/// That this thread has a reader (M3).
#[derive(Debug)]
struct Only;

impl Only {
    fn claim() -> Self {
        assert!(!READS.replace(true), "a thread has one reader at a time");
        Self
    }
}

impl Drop for Only {
    fn drop(&mut self) {
        READS.set(false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directory_with(number: u32) -> (tempfile::TempDir, PathBuf, Arc<Segments>) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(segment_name(number));
        std::fs::write(&path, [0; 8192]).unwrap();
        let segments = Segments::open(&FsDisk::open(directory.path()).unwrap()).unwrap();
        (directory, path, segments)
    }

    fn is_mapped(path: &std::path::Path) -> bool {
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        maps.contains(path.to_str().unwrap())
    }

    fn write(path: &std::path::Path, bytes: &[u8], offset: u64) {
        let file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
        std::os::unix::fs::FileExt::write_all_at(&file, bytes, offset).unwrap();
    }

    #[test]
    fn bytes_written_after_the_mapping_are_seen_and_no_others_exist() {
        let (_directory, path, segments) = directory_with(1025);
        assert_eq!(segments.reader().bytes(1025, 0, 3), Some(&[0; 3][..]));
        write(&path, b"value", 5000);
        std::fs::remove_file(&path).unwrap();
        let reader = segments.reader();
        assert_eq!(reader.bytes(1025, 5000, 5), Some(&b"value"[..]));
        assert_eq!(reader.bytes(1025, 8190, 3), None);
        assert_eq!(reader.bytes(1025, u32::MAX, u32::MAX), None);
        assert_eq!(reader.bytes(7, 0, 1), None);
        assert_eq!(reader.bytes(u32::MAX, 0, 1), None);
    }

    #[test]
    fn a_freed_segment_is_unmapped_once_its_last_reader_has_ended() {
        let (_directory, path, segments) = directory_with(3);
        write(&path, b"value", 5000);
        let reader = segments.reader();
        std::thread::scope(|scope| {
            let unmapping = scope.spawn(|| segments.unmap(&[3]));
            assert!(segments.table.try_write().is_err());
            assert!(!unmapping.is_finished() && is_mapped(&path));
            assert_eq!(reader.bytes(3, 5000, 5), Some(&b"value"[..]));
            drop(reader);
        });
        assert!(!is_mapped(&path));
        assert_eq!(segments.reader().bytes(3, 5000, 5), None);
    }

    #[test]
    fn a_segment_that_is_made_anew_is_mapped_anew() {
        let (_directory, path, segments) = directory_with(3);
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, [7; 16_384]).unwrap();
        segments.ensure_mapped(3);
        assert_eq!(segments.reader().bytes(3, 0, 1), Some(&[0][..]));
        segments.map(3);
        assert_eq!(segments.reader().bytes(3, 16_383, 1), Some(&[7][..]));
    }

    #[test]
    #[should_panic(expected = "one reader at a time")]
    fn a_second_reader_on_a_thread_is_a_mistake() {
        let (_directory, _path, segments) = directory_with(3);
        let _first = segments.reader();
        let _second = segments.reader();
    }
}
