//! Segment files in memory, for readers on any thread.
//!
//! A segment is mapped read-only when the registry is opened or the disk thread has it prepared,
//! and stays mapped until it is freed. Values are read through a [`Reader`], which holds the table
//! for one request or one chunk of work; the disk thread changes the table between readers.
//!
//! A page that is not in memory is read by the kernel while the thread waits. A patient reader
//! lets it; a prompt one names the [`Span`], so that a thread which may wait can fetch it. To ask
//! costs a system call a value, so it is asked only of what may have been pushed out: the log is
//! larger than a bound, and the segment is not one of the newest that fit into it.
//!
//! `unsafe` is here and in [`sigbus`]: slices of a file that the disk thread goes on writing.
//!
//! M1. A place that the disk thread has reported lies in a mapped segment, until it is freed.
//! M2. While a reader lives, nothing is mapped or unmapped: its slices stay.
//! M3. A thread has one reader at a time. A second one would wait for a writer that waits for the
//!     first.
//! M4. The machine's lock is taken before the reader, and a place is read under the hold of the
//!     machine under which it was found: later its segment may be gone.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fs::File;
use std::sync::{Arc, OnceLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use memmap2::{MmapOptions, MmapRaw};
use quorate_log::{Disk, DiskError, segment_name, segment_number};

use super::{FsDisk, sigbus};

/// What is read at least when a span is fetched: as much as a page fault brings in.
const FETCH_BYTES: usize = 128 << 10;

/// Segment number to the bytes of its file.
#[derive(Debug)]
pub struct Segments {
    disk: FsDisk,
    /// How much of the log the system can be trusted to keep in memory.
    resident_bytes: u64,
    table: RwLock<Table>,
}

#[derive(Debug, Default)]
struct Table {
    /// In the order of their numbers.
    mappings: Vec<Mapping>,
    /// Segments with smaller numbers may have been pushed out of memory.
    warm_from: u32,
}

#[derive(Debug)]
struct Mapping {
    number: u32,
    map: MmapRaw,
    _watched: Option<sigbus::Watched>,
}

/// Bytes of a segment.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Span {
    /// The segment's number.
    pub segment: u32,
    /// Bytes from the start of its file.
    pub offset: u32,
    /// Length in bytes.
    pub len: u32,
}

/// Spans that were read from the disk for a prompt reader.
pub type Fetched = BTreeMap<Span, Vec<u8>>;

/// Why a reader has no bytes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum NoBytes {
    /// The segment is missing or ends before.
    Missing,
    /// They would have to be waited for.
    NotResident,
}

impl Segments {
    /// Maps the segments that a data directory has. `resident_bytes` is how large a log may be
    /// for all of it to count as resident.
    ///
    /// # Errors
    /// Those of the system.
    pub fn open(disk: &FsDisk, resident_bytes: u64) -> Result<Arc<Self>, DiskError> {
        sigbus::install();
        let segments = Self {
            disk: disk.untimed(),
            resident_bytes,
            table: RwLock::default(),
        };
        for number in disk.list()?.iter().filter_map(|name| segment_number(name)) {
            segments.map(number);
        }
        Ok(Arc::new(segments))
    }

    /// A patient reader, for bounded work: the disk thread waits for its end (M2).
    ///
    /// # Panics
    /// If this thread has a reader already (M3).
    pub fn reader(&self) -> Reader<'_> {
        Reader {
            _only: Only::claim(),
            table: self.table.read().unwrap_or_else(PoisonError::into_inner),
            fetched: None,
            wanted: Cell::new(None),
        }
    }

    /// A prompt reader: of what may not be in memory it has only what was `fetched`.
    ///
    /// # Panics
    /// As [`Self::reader`].
    pub fn prompt_reader<'a>(&'a self, fetched: &'a Fetched) -> Reader<'a> {
        Reader {
            fetched: Some(fetched),
            ..self.reader()
        }
    }

    /// Reads from the disk what a prompt reader wanted, and brings what lies behind it into memory.
    /// What cannot be read is left out, and so will not verify.
    pub fn fetch(&self, wanted: Span) -> Vec<u8> {
        let name = segment_name(wanted.segment);
        let mut bytes = vec![0; FETCH_BYTES.max(wanted.len as usize)];
        let read = self.disk.read_at(&name, wanted.offset.into(), &mut bytes);
        let count = read.unwrap_or_else(|error| {
            tracing::error!(%error, "cannot read a value");
            0
        });
        bytes.truncate(count.min(wanted.len as usize));
        bytes.shrink_to_fit();
        bytes
    }

    /// Maps a segment whose file was made, in place of what was known under its number.
    pub(super) fn map(&self, number: u32) {
        let name = segment_name(number);
        let file = File::open(self.disk.path().join(&name));
        let map = match file.and_then(|file| MmapOptions::new().map_raw_read_only(&file)) {
            Ok(map) => map,
            Err(error) => {
                tracing::error!(file = name, %error, "cannot map a segment");
                return;
            }
        };
        let mapping = Mapping {
            number,
            _watched: sigbus::watch(map.as_ptr().addr(), map.len(), number),
            map,
        };
        let mut table = self.table_mut();
        match table.find(number) {
            // It was mapped when the registry was opened, but then made anew.
            Ok(at) => table.mappings[at] = mapping,
            Err(at) => table.mappings.insert(at, mapping),
        }
        table.warm(self.resident_bytes);
    }

    /// Maps a segment that the journal has made by itself, unless it is mapped.
    pub(super) fn ensure_mapped(&self, number: u32) {
        let is_mapped = self.reader().table.find(number).is_ok();
        if !is_mapped {
            self.map(number);
        }
    }

    /// Lets go of segments that were freed, once no reader is left that may hold a slice of them.
    pub(super) fn unmap(&self, freed: &[u32]) {
        let mut table = self.table_mut();
        let is_freed = |mapping: &mut Mapping| freed.contains(&mapping.number);
        let gone: Vec<Mapping> = table.mappings.extract_if(.., is_freed).collect();
        table.warm(self.resident_bytes);
        // Readers need not wait for the system to take the pages back.
        drop(table);
        drop(gone);
    }

    fn table_mut(&self) -> RwLockWriteGuard<'_, Table> {
        // The table is whole at every moment, whoever panicked.
        self.table.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    fn find(&self, number: u32) -> Result<usize, usize> {
        self.mappings
            .binary_search_by_key(&number, |mapping| mapping.number)
    }

    /// Looks which segments count as resident: the newest that fit into `resident_bytes`.
    fn warm(&mut self, resident_bytes: u64) {
        let mut bytes = 0;
        let cold = self.mappings.iter().rfind(|mapping| {
            bytes += mapping.map.len() as u64;
            bytes > resident_bytes
        });
        self.warm_from = cold.map_or(0, |mapping| mapping.number + 1);
    }
}

/// The segments as they are mapped now. Slices that it hands out live as long as it does.
#[derive(Debug)]
pub struct Reader<'a> {
    _only: Only,
    table: RwLockReadGuard<'a, Table>,
    /// Of a prompt reader: what need not be waited for.
    fetched: Option<&'a Fetched>,
    wanted: Cell<Option<Span>>,
}

impl Reader<'_> {
    /// The bytes of a span, not checked against any checksum.
    ///
    /// Only for places that the journal has returned, and that it reported as durable: those
    /// bytes are never written again while they can be referred to.
    ///
    /// # Errors
    /// [`NoBytes`]; a patient reader knows only [`NoBytes::Missing`].
    pub fn bytes(&self, span: Span) -> Result<&[u8], NoBytes> {
        let at = self.table.find(span.segment);
        let map = &self.table.mappings[at.map_err(|_| NoBytes::Missing)?].map;
        let (offset, len) = (span.offset as usize, span.len as usize);
        if offset + len > map.len() {
            return Err(NoBytes::Missing);
        }
        if let Some(fetched) = self.fetched.filter(|_| span.segment < self.table.warm_from) {
            if let Some(bytes) = fetched.get(&span) {
                return Ok(bytes);
            }
            if !is_resident(map, offset, len) {
                self.wanted.set(Some(span));
                return Err(NoBytes::NotResident);
            }
        }
        #[allow(unsafe_code)]
        // SAFETY: The range lies within the mapping, which lives as long as `self` holds the
        // table: `map` and `unmap` change it only under the write lock. A segment that is freed
        // and unmapped is one that two checkpoints no longer need, so no place in the store is in
        // it any more; whoever found a place before has read it under the same hold of the
        // machine's lock (M4), and its slice ended with its reader.
        // The file is never made shorter (it is filled in full before its first use), and used
        // again under another number only after it was unmapped here. The disk thread writes other bytes of the same file, but none of these: W2
        // of `quorate_log`, nothing is rewritten, and the caller asks only for durable places. The
        // repair of a torn tail and the second writing of the last batch happen in
        // `Journal::open`, before there is a reader, and the latter writes the same bytes.
        // Another process is kept out by the directory's lock.
        Ok(unsafe { std::slice::from_raw_parts(map.as_ptr().add(offset), len) })
    }

    /// The span that was last refused as [`NoBytes::NotResident`].
    pub fn wanted(&self) -> Option<Span> {
        self.wanted.get()
    }
}

/// Whether all pages of a range of a mapping are in memory. What the system does not know is taken
/// to be: then the thread waits.
fn is_resident(map: &MmapRaw, offset: usize, len: usize) -> bool {
    let (page, end) = (page_bytes(), offset + len);
    let mut start = offset / page * page;
    while start < end {
        let mut pages = [0_u8; 64];
        let asked = (end - start).min(pages.len() * page);
        #[allow(unsafe_code)]
        // SAFETY: The range lies within the mapping and begins on a page; `pages` has a byte for
        // each page of it. Nothing is written but `pages`.
        let answered = unsafe {
            let address = map.as_mut_ptr().add(start);
            libc::mincore(address.cast(), asked, pages.as_mut_ptr())
        };
        let pages = &pages[..asked.div_ceil(page)];
        if answered == 0 && pages.iter().any(|page| page & 1 == 0) {
            return false;
        }
        start += asked;
    }
    true
}

fn page_bytes() -> usize {
    static BYTES: OnceLock<usize> = OnceLock::new();
    #[allow(unsafe_code)]
    // SAFETY: It only asks for a number.
    *BYTES.get_or_init(|| {
        unsafe { libc::sysconf(libc::_SC_PAGESIZE) }
            .try_into()
            .unwrap_or(4096)
    })
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
    use std::path::{Path, PathBuf};

    use super::*;

    fn directory_with(number: u32) -> (tempfile::TempDir, PathBuf, Arc<Segments>) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(segment_name(number));
        std::fs::write(&path, [0; 8192]).unwrap();
        let disk = FsDisk::open(directory.path()).unwrap();
        let segments = Segments::open(&disk, u64::MAX).unwrap();
        (directory, path, segments)
    }

    fn span(segment: u32, offset: u32, len: u32) -> Span {
        Span {
            segment,
            offset,
            len,
        }
    }

    fn is_mapped(path: &Path) -> bool {
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        maps.contains(path.to_str().unwrap())
    }

    fn write(path: &Path, bytes: &[u8], offset: u64) {
        let file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
        std::os::unix::fs::FileExt::write_all_at(&file, bytes, offset).unwrap();
    }

    #[test]
    fn bytes_written_after_the_mapping_are_seen_and_no_others_exist() {
        let (_directory, path, segments) = directory_with(1025);
        assert_eq!(segments.reader().bytes(span(1025, 0, 3)), Ok(&[0; 3][..]));
        write(&path, b"value", 5000);
        std::fs::remove_file(&path).unwrap();
        let reader = segments.reader();
        assert_eq!(reader.bytes(span(1025, 5000, 5)), Ok(&b"value"[..]));
        for missing in [
            span(1025, 8190, 3),
            span(1025, u32::MAX, u32::MAX),
            span(7, 0, 1),
            span(u32::MAX, 0, 1),
        ] {
            assert_eq!(reader.bytes(missing), Err(NoBytes::Missing));
        }
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
            assert_eq!(reader.bytes(span(3, 5000, 5)), Ok(&b"value"[..]));
            drop(reader);
        });
        assert!(!is_mapped(&path));
        let gone = segments.reader().bytes(span(3, 5000, 5)).is_err();
        assert!(gone);
    }

    #[test]
    fn a_segment_that_is_made_anew_is_mapped_anew() {
        let (_directory, path, segments) = directory_with(3);
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, [7; 16_384]).unwrap();
        segments.ensure_mapped(3);
        assert_eq!(segments.reader().bytes(span(3, 0, 1)), Ok(&[0][..]));
        segments.map(3);
        assert_eq!(segments.reader().bytes(span(3, 16_383, 1)), Ok(&[7][..]));
    }

    #[test]
    #[should_panic(expected = "one reader at a time")]
    fn a_second_reader_on_a_thread_is_a_mistake() {
        let (_directory, _path, segments) = directory_with(3);
        let _first = segments.reader();
        let _second = segments.reader();
    }

    /// Three segments of 1 MiB, all holes: a hole that nobody has read is not in memory.
    fn cold(resident_bytes: u64) -> (tempfile::TempDir, Arc<Segments>) {
        let directory = tempfile::tempdir().unwrap();
        for number in 1..=3 {
            let path = directory.path().join(segment_name(number));
            let file = File::create(path).unwrap();
            file.set_len(1 << 20).unwrap();
        }
        let disk = FsDisk::open(directory.path()).unwrap();
        let segments = Segments::open(&disk, resident_bytes).unwrap();
        (directory, segments)
    }

    #[test]
    fn a_prompt_reader_names_what_it_would_wait_for_and_has_what_was_fetched() {
        let (directory, segments) = cold(0);
        // From the middle of a page over 65 whole ones to the start of the last.
        let first = directory.path().join(segment_name(1));
        write(&first, &[5; 70 * 4096], 0);
        let warm = span(1, 2048, 66 * 4096);
        let over_the_edge = span(1, 69 * 4096, 4097);
        let mut fetched = Fetched::new();
        {
            let reader = segments.prompt_reader(&fetched);
            assert_eq!(reader.bytes(warm).map(<[u8]>::len), Ok(66 * 4096));
            assert_eq!(reader.wanted(), None);
            assert_eq!(reader.bytes(over_the_edge), Err(NoBytes::NotResident));
            assert_eq!(reader.wanted(), Some(over_the_edge));
            assert_eq!(reader.bytes(span(1, 1 << 20, 1)), Err(NoBytes::Missing));
        }
        fetched.insert(over_the_edge, segments.fetch(over_the_edge));
        let expected = [&[5; 4096][..], &[0]].concat();
        let reader = segments.prompt_reader(&fetched);
        assert_eq!(reader.bytes(over_the_edge), Ok(&expected[..]));
        drop(reader);
        assert_eq!(segments.reader().bytes(span(3, 0, 1)), Ok(&[0][..]));
        assert!(segments.fetch(span(9, 0, 1)).is_empty());
    }

    #[test]
    fn only_what_the_bound_leaves_out_is_asked_for() {
        let (directory, segments) = cold(2 << 20);
        let fetched = Fetched::new();
        let cold_ones = |segments: &Segments| {
            let reader = segments.prompt_reader(&fetched);
            let cold = (1..=4)
                .filter(|number| reader.bytes(span(*number, 8192, 1)) == Err(NoBytes::NotResident));
            cold.collect::<Vec<u32>>()
        };
        assert_eq!(cold_ones(&segments), [1]);
        let path = directory.path().join(segment_name(4));
        File::create(path).unwrap().set_len(1 << 20).unwrap();
        segments.map(4);
        assert_eq!(cold_ones(&segments), [1, 2]);
        segments.unmap(&[4, 1]);
        assert_eq!(cold_ones(&segments), [0; 0]);
    }
}
