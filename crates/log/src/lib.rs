//! Durable bytes: all that a member has promised to remember.
//!
//! A data directory is one flat directory of files: an [`Identity`], the [`Journal`]'s segments
//! and up to two checkpoints. The journal is a row of segment files of checksummed batches; a
//! value's bytes inside a segment are its home on disk, so segments are kept for their values
//! after their records are no longer needed. A checkpoint is the state machine at one index,
//! and says where in the journal to replay on from.
//!
//! Owns framing, checksums, file names, and the repair of a torn tail when opened.
//! Never decides what to log or when to sync (that is `replica` and the disk thread), and reaches
//! files only through [`Disk`], so that `sim` can tear them. Knows no clock and no chance: the
//! random bytes of a new directory are an argument.
//!
//! W1. What a finished [`Journal::sync`] covered is replayed, whole and in order, or opening fails.
//! W2. An entry at index i cancels every earlier record with index ≥ i; nothing is rewritten.
//! W3. Only the last batch may be torn, and is then dropped. Any other bad batch is corruption:
//!     opening fails rather than forget a promise.
//! W4. A segment is used only once it stands whole under its final name, durably; the next one
//!     only once the one before ends in a durable `Sealed` record.
//! W5. A checkpoint is seen under its final name only when all its bytes are durable.
//!
//! The bytes are in docs/formats/log.md, the files in docs/formats/data-dir.md.
#![no_std]

extern crate alloc;
#[cfg(test)]
extern crate std;

mod batch;
mod bytes;
mod checkpoint;
mod disk;
mod error;
mod identity;
mod journal;
mod place;
mod read_checkpoint;
mod record;
mod replay;
mod reserve;
mod segment;
mod verify;
mod walk;
mod window;

pub use checkpoint::{CheckpointHead, CheckpointWriter};
pub use disk::{Disk, DiskError, DiskErrorKind, replace_file};
pub use error::{Corrupt, LogError};
pub use identity::{DirectoryId, Identity};
pub use journal::{Config, Journal};
pub use place::{EntryAt, Position};
pub use read_checkpoint::{CheckpointReader, NewestCheckpoint, newest_checkpoint};
pub use record::{Entry, EntryKind, HardState, Moved};
pub use replay::{MovedTo, Recovered, Torn};
pub use reserve::{Kept, RESERVE_SEGMENTS, Reserve, prepare_segment};
pub use segment::{FORMAT_VERSION, segment_name, segment_number};
pub use verify::{CheckpointReport, Report, SegmentReport, verify};
