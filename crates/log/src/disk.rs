//! The seam to files: one flat directory of named files.
//!
//! The server implements it with system calls, `sim` in memory with crashes. Every method that
//! takes effect is one effect to `sim`: it happens wholly, not at all, or (a write) torn.

use alloc::string::String;
use alloc::vec::Vec;

/// One flat directory of named files: the only way in which this crate reaches a disk.
///
/// Handles are shared: all methods take `&self`, and a clone of an implementation names the same
/// directory. A write is durable after [`Disk::sync`] of its file, a name after
/// [`Disk::sync_dir`]; before that either may vanish or survive a crash, in part.
///
/// # Errors
/// Every method fails with a [`DiskError`]; [`DiskErrorKind::NotFound`] if the name is absent.
pub trait Disk {
    /// The names of all files, in no order.
    fn list(&self) -> Result<Vec<String>, DiskError>;

    /// A file's length in bytes.
    fn len(&self, name: &str) -> Result<u64, DiskError>;

    /// Fills `into` from `offset` on and returns how many bytes there were: fewer than asked
    /// only at the file's end.
    fn read_at(&self, name: &str, offset: u64, into: &mut [u8]) -> Result<usize, DiskError>;

    /// Makes an empty file under `name`; one that had the name loses it.
    fn create(&self, name: &str) -> Result<(), DiskError>;

    /// Writes all of `bytes` at `offset`, making the file longer if need be.
    fn write_at(&self, name: &str, offset: u64, bytes: &[u8]) -> Result<(), DiskError>;

    /// Makes the file `bytes` long if it is shorter, of zeros, and takes the room for them: to write
    /// there needs no more, but on a file system that copies what it writes.
    fn allocate(&self, name: &str, bytes: u64) -> Result<(), DiskError>;

    /// Makes durable what was written to the file, and its length (fdatasync).
    fn sync(&self, name: &str) -> Result<(), DiskError>;

    /// Gives a file another name, taking it from whatever file had it.
    fn rename(&self, from: &str, to: &str) -> Result<(), DiskError>;

    /// Removes a name.
    fn remove(&self, name: &str) -> Result<(), DiskError>;

    /// Makes durable which names there are.
    fn sync_dir(&self) -> Result<(), DiskError>;
}

impl<D: Disk> Disk for &D {
    fn list(&self) -> Result<Vec<String>, DiskError> {
        (**self).list()
    }

    fn len(&self, name: &str) -> Result<u64, DiskError> {
        (**self).len(name)
    }

    fn read_at(&self, name: &str, offset: u64, into: &mut [u8]) -> Result<usize, DiskError> {
        (**self).read_at(name, offset, into)
    }

    fn create(&self, name: &str) -> Result<(), DiskError> {
        (**self).create(name)
    }

    fn write_at(&self, name: &str, offset: u64, bytes: &[u8]) -> Result<(), DiskError> {
        (**self).write_at(name, offset, bytes)
    }

    fn allocate(&self, name: &str, bytes: u64) -> Result<(), DiskError> {
        (**self).allocate(name, bytes)
    }

    fn sync(&self, name: &str) -> Result<(), DiskError> {
        (**self).sync(name)
    }

    fn rename(&self, from: &str, to: &str) -> Result<(), DiskError> {
        (**self).rename(from, to)
    }

    fn remove(&self, name: &str) -> Result<(), DiskError> {
        (**self).remove(name)
    }

    fn sync_dir(&self) -> Result<(), DiskError> {
        (**self).sync_dir()
    }
}

/// What kind of failure a [`DiskError`] is, for those who can act on it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum DiskErrorKind {
    /// No file has that name.
    NotFound,
    /// No space is left.
    Full,
    /// Anything else; the bytes on disk are unknown.
    Other,
}

/// The disk refused an operation.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("cannot {operation} {file}: {reason}")]
pub struct DiskError {
    /// What kind of failure it is.
    pub kind: DiskErrorKind,
    /// The verb that failed, as "write" or "sync".
    pub operation: &'static str,
    /// The file's name within the data directory, or the directory's.
    pub file: String,
    /// What the system said.
    pub reason: String,
}

/// Writes a whole small file so that its name shows the old or the new bytes, never a mixture.
///
/// Durable when it returns.
///
/// # Errors
/// Those of the disk; the file is then the old or the new one.
pub fn replace_file<D: Disk>(disk: &D, name: &str, bytes: &[u8]) -> Result<(), DiskError> {
    let mut temporary = String::from(name);
    temporary.push_str(TEMPORARY);
    disk.create(&temporary)?;
    disk.write_at(&temporary, 0, bytes)?;
    disk.sync(&temporary)?;
    disk.rename(&temporary, name)?;
    disk.sync_dir()
}

/// How the name of a file ends that is not finished. Such files mean nothing after a restart.
pub(crate) const TEMPORARY: &str = ".tmp";

/// A whole file in memory; only for files whose length was checked.
pub(crate) fn read_whole<D: Disk>(disk: &D, name: &str) -> Result<Vec<u8>, DiskError> {
    let mut bytes = alloc::vec![0; usize::try_from(disk.len(name)?).unwrap_or(usize::MAX)];
    let read = disk.read_at(name, 0, &mut bytes)?;
    bytes.truncate(read);
    Ok(bytes)
}
