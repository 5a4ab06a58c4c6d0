//! Values, and where they live.
//!
//! A value is written once, inside its log entry; the index holds its place. Small ones are held
//! in the index itself.

use alloc::borrow::Cow;
use alloc::boxed::Box;

/// Values up to this many bytes live in the index.
pub(crate) const INLINE_BYTES: usize = 32;

/// Where an entry's bytes begin in this member's log.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Place {
    /// Number of the segment.
    pub segment: u32,
    /// Bytes from the start of its file.
    pub offset: u32,
}

/// Where a value lies in this member's log, and what it must hash to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ValueAt {
    /// Number of the segment.
    pub segment: u32,
    /// Bytes from the start of its file.
    pub offset: u32,
    /// Length in bytes.
    pub len: u32,
    /// CRC32C of the bytes.
    pub crc: u32,
}

/// A value as a version holds it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Value {
    /// The bytes themselves, at most [`INLINE_BYTES`].
    Inline(Box<[u8]>),
    /// Their place in the log.
    Logged(ValueAt),
}

impl Value {
    /// The empty value.
    pub fn empty() -> Self {
        Self::Inline(Box::default())
    }

    /// Length in bytes.
    pub fn len(&self) -> usize {
        match self {
            Self::Inline(bytes) => bytes.len(),
            Self::Logged(at) => at.len as usize,
        }
    }

    /// Whether it has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Its bytes, checked against their CRC.
    ///
    /// # Errors
    /// As [`Values::read`]; [`ValueError::Rotten`] also for bytes that do not verify.
    pub fn read<'a>(&'a self, values: &'a dyn Values) -> Result<Cow<'a, [u8]>, ValueError> {
        match self {
            Self::Inline(bytes) => Ok(Cow::Borrowed(bytes)),
            Self::Logged(at) => {
                let bytes = values.read(at)?;
                if bytes.len() == at.len as usize && crc_fast::crc32_iscsi(&bytes) == at.crc {
                    Ok(bytes)
                } else {
                    Err(ValueError::Rotten(*at))
                }
            }
        }
    }
}

/// Reads values that live in the log.
pub trait Values {
    /// The bytes at `at`, unchecked.
    ///
    /// # Errors
    /// [`ValueError::Rotten`] when the place cannot be read at all.
    fn read<'a>(&'a self, at: &ValueAt) -> Result<Cow<'a, [u8]>, ValueError>;
}

/// Why a value could not be had. It is one member's trouble and never part of an answer.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum ValueError {
    /// The bytes do not match their checksum, or are not there.
    #[error("the value at offset {} of segment {} does not verify", .0.offset, .0.segment)]
    Rotten(ValueAt),
    /// They would have to be waited for, and whoever reads must not. Not of a patient reader.
    #[error("the value at offset {} of segment {} is not in memory", .0.offset, .0.segment)]
    NotResident(ValueAt),
}
