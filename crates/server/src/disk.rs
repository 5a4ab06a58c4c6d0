//! The data directory on a real disk: files, the thread that writes the journal, and mappings
//! for readers.
//!
//! Owns system calls, threads and the directory's lock. What the bytes mean is `quorate_log`'s,
//! when to write them the replica's.

mod fs;
mod lock;
mod memory;
mod prepare;
mod segments;
mod sigbus;
mod sync_times;
mod thread;

pub use fs::FsDisk;
pub use lock::{DirLock, LockError};
pub(crate) use memory::available_bytes;
pub use segments::{Fetched, NoBytes, Reader, Segments, Span};
pub use sync_times::{SnapshotTimes, SyncTimes, Times};
pub use thread::{DiskFailure, DiskThread, KeepRoom, Mover, Persist, Persisted};
