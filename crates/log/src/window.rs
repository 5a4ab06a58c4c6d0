//! Reading a file in chunks, so that a segment is never in memory as a whole.

use alloc::string::String;
use alloc::vec;

use bytes::Bytes;

use crate::disk::{Disk, DiskError};

const CHUNK_BYTES: usize = 1 << 20;

/// A moving window on one file. Slices share the window's memory.
#[derive(Debug)]
pub(crate) struct Window<D> {
    disk: D,
    name: String,
    /// The file's length, in bytes.
    length: u64,
    start: u64,
    chunk: Bytes,
}

impl<D: Disk> Window<D> {
    pub(crate) fn new(disk: D, name: &str, length: u64) -> Self {
        Self {
            disk,
            name: String::from(name),
            length,
            start: 0,
            chunk: Bytes::new(),
        }
    }

    /// `count` bytes at `offset`, fewer only at the file's end.
    pub(crate) fn get(&mut self, offset: u64, count: usize) -> Result<Bytes, DiskError> {
        let within = self.within(offset, count);
        let from = match within {
            Some(from) => from,
            None => {
                let left =
                    usize::try_from(self.length.saturating_sub(offset)).unwrap_or(usize::MAX);
                let mut chunk = vec![0; count.max(CHUNK_BYTES).min(left)];
                let read = self.disk.read_at(&self.name, offset, &mut chunk)?;
                chunk.truncate(read);
                (self.start, self.chunk) = (offset, chunk.into());
                0
            }
        };
        let to = self.chunk.len().min(from + count);
        Ok(self.chunk.slice(from..to))
    }

    fn within(&self, offset: u64, count: usize) -> Option<usize> {
        let from = usize::try_from(offset.checked_sub(self.start)?).ok()?;
        (from.checked_add(count)? <= self.chunk.len()).then_some(from)
    }
}
