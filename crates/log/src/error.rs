//! Why durable bytes cannot be had. Each variant says what the caller does next.

use alloc::string::String;

use crate::disk::{DiskError, DiskErrorKind};

/// Bytes that are not what was written, and that are no torn tail.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{file} is corrupt at offset {offset}: {what}")]
pub struct Corrupt {
    /// The file's name within the data directory.
    pub file: String,
    /// Where the first bytes stand that cannot be believed, in bytes from the file's start.
    pub offset: u64,
    /// What is wrong with them.
    pub what: String,
}

impl Corrupt {
    pub(crate) fn new(file: impl Into<String>, offset: u64, what: impl Into<String>) -> Self {
        Self {
            file: file.into(),
            offset,
            what: what.into(),
        }
    }
}

/// Why a journal, checkpoint or identity could not be read or written.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum LogError {
    /// The disk refused. The journal is poisoned: halt, do not retry.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// There is no room for the next segment or the identity, nor any reserve. Halt and show the
    /// sentence.
    #[error(
        "the disk is full and its reserve used up ({0}): make room, then start this member again"
    )]
    Full(DiskError),
    /// A promise would be forgotten. Halt and show the sentence; nothing was changed.
    #[error(transparent)]
    Corrupt(#[from] Corrupt),
    /// Written by a later version of this program. Start that version instead.
    #[error("{file} has format version {found}, this program knows up to {known}: upgrade it")]
    Newer {
        /// The file's name within the data directory.
        file: String,
        /// The version found.
        found: u32,
        /// The newest version that this program reads.
        known: u32,
    },
    /// An earlier write or sync failed. Halt: what is on disk is no longer known.
    #[error("the journal is closed because an earlier write or sync failed")]
    Poisoned,
    /// An entry does not fit into an empty segment. Refuse such requests where they enter.
    #[error("an entry of {bytes} bytes does not fit a segment, at most {limit} do")]
    TooLarge {
        /// The entry's length.
        bytes: u64,
        /// The longest entry that fits.
        limit: u64,
    },
}

impl LogError {
    /// That there was no room, not even from the reserve.
    #[must_use]
    pub fn of_reserve(error: DiskError) -> Self {
        match error.kind {
            DiskErrorKind::Full => Self::Full(error),
            DiskErrorKind::NotFound | DiskErrorKind::Other => Self::Disk(error),
        }
    }
}
