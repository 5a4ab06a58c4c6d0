//! Values, and where they live.
//!
//! A value is written once, inside its log entry; the index holds its place. Small ones are held
//! in the index itself.

use alloc::borrow::Cow;
use core::fmt;
use core::ops::Deref;

/// Values up to this many bytes live in the index: as many as take no more room than a place.
pub(crate) const INLINE_BYTES: usize = 22;

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

/// A value of at most 22 bytes.
#[derive(Clone, Copy, Default, Eq, PartialEq)]
pub struct Short {
    len: u8,
    bytes: [u8; INLINE_BYTES],
}

impl Short {
    /// `None` for bytes that are too many.
    pub fn new(value: &[u8]) -> Option<Self> {
        let mut bytes = [0; INLINE_BYTES];
        bytes.get_mut(..value.len())?.copy_from_slice(value);
        let len = u8::try_from(value.len()).ok()?;
        Some(Self { len, bytes })
    }
}

impl Deref for Short {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

impl fmt::Debug for Short {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

/// A value as a version holds it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Value {
    /// The bytes themselves.
    Inline(Short),
    /// Their place in the log.
    Logged(ValueAt),
}

impl Value {
    /// Whether these are the bytes that lie at `at`.
    pub fn verifies(at: &ValueAt, bytes: &[u8]) -> bool {
        bytes.len() == at.len as usize && crc_fast::crc32_iscsi(bytes) == at.crc
    }

    /// The empty value.
    pub fn empty() -> Self {
        Self::Inline(Short::default())
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
                if Self::verifies(at, &bytes) {
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
