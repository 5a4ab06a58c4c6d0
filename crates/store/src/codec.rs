//! The byte codec of commands and checkpoint rows.
//!
//! Little-endian integers, byte strings behind a `u32` length. Bytes that come in are decoded into
//! valid types or refused; nothing here panics on them.

use alloc::string::String;
use alloc::vec::Vec;
use bytes::{Buf, Bytes};

/// Bytes that are not what they should be.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum DecodeError {
    /// They end too early.
    #[error("cut short")]
    Short,
    /// A tag, length or number that has no meaning here.
    #[error("bad {0}")]
    Bad(&'static str),
    /// Written by a newer version.
    #[error("format version {0} is newer than this program knows; upgrade this member")]
    Newer(u8),
}

/// Writes the codec's primitives.
pub trait Write {
    /// One byte.
    fn u8(&mut self, value: u8);
    /// A `u32`.
    fn u32(&mut self, value: u32);
    /// A `u64`.
    fn u64(&mut self, value: u64);
    /// An `i64`.
    fn i64(&mut self, value: i64);
    /// A truth value.
    fn bool(&mut self, value: bool);
    /// A byte string, at most `u32::MAX` long.
    fn bytes(&mut self, value: &[u8]);
    /// A `u64` in as few bytes as hold it: seven bits each, the lowest first, the highest bit set
    /// on all but the last.
    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.u8(value as u8 | 0x80);
            value >>= 7;
        }
        self.u8(value as u8);
    }
    /// A `u64` that may be absent.
    fn optional(&mut self, value: Option<u64>) {
        self.bool(value.is_some());
        if let Some(value) = value {
            self.u64(value);
        }
    }
}

impl Write for Vec<u8> {
    fn u8(&mut self, value: u8) {
        self.push(value);
    }
    fn u32(&mut self, value: u32) {
        self.extend_from_slice(&value.to_le_bytes());
    }
    fn u64(&mut self, value: u64) {
        self.extend_from_slice(&value.to_le_bytes());
    }
    fn i64(&mut self, value: i64) {
        self.extend_from_slice(&value.to_le_bytes());
    }
    fn bool(&mut self, value: bool) {
        self.push(u8::from(value));
    }
    fn bytes(&mut self, value: &[u8]) {
        let len = u32::try_from(value.len()).expect("a request limit keeps strings below 4 GiB");
        self.u32(len);
        self.extend_from_slice(value);
    }
}

/// Reads the codec's primitives from shared bytes; strings are slices of them, not copies.
pub struct Read {
    rest: Bytes,
    total: usize,
}

impl Read {
    /// From the start of `bytes`.
    pub fn new(bytes: Bytes) -> Self {
        Self {
            total: bytes.len(),
            rest: bytes,
        }
    }

    /// How many bytes were read.
    pub fn offset(&self) -> usize {
        self.total - self.rest.len()
    }

    fn need(&self, count: usize) -> Result<(), DecodeError> {
        if self.rest.len() < count {
            Err(DecodeError::Short)
        } else {
            Ok(())
        }
    }

    /// One byte.
    ///
    /// # Errors
    /// [`DecodeError::Short`], as for all readers here.
    pub fn u8(&mut self) -> Result<u8, DecodeError> {
        self.need(1)?;
        Ok(self.rest.get_u8())
    }

    /// A `u32`.
    ///
    /// # Errors
    /// [`DecodeError::Short`].
    pub fn u32(&mut self) -> Result<u32, DecodeError> {
        self.need(4)?;
        Ok(self.rest.get_u32_le())
    }

    /// A `u64`.
    ///
    /// # Errors
    /// [`DecodeError::Short`].
    pub fn u64(&mut self) -> Result<u64, DecodeError> {
        self.need(8)?;
        Ok(self.rest.get_u64_le())
    }

    /// An `i64`.
    ///
    /// # Errors
    /// [`DecodeError::Short`].
    pub fn i64(&mut self) -> Result<i64, DecodeError> {
        self.need(8)?;
        Ok(self.rest.get_i64_le())
    }

    /// A truth value: 0 or 1.
    ///
    /// # Errors
    /// [`DecodeError::Short`], [`DecodeError::Bad`].
    pub fn bool(&mut self) -> Result<bool, DecodeError> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(DecodeError::Bad("truth value")),
        }
    }

    /// A byte string.
    ///
    /// # Errors
    /// [`DecodeError::Short`].
    pub fn bytes(&mut self) -> Result<Bytes, DecodeError> {
        let len = self.u32()? as usize;
        self.need(len)?;
        Ok(self.rest.split_to(len))
    }

    /// A `u64` of up to ten bytes, in the fewest.
    ///
    /// # Errors
    /// [`DecodeError::Short`], [`DecodeError::Bad`].
    pub fn varint(&mut self) -> Result<u64, DecodeError> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.u8()?;
            let bits = u64::from(byte & 0x7f);
            if (bits << shift) >> shift != bits || (byte == 0 && shift > 0) {
                break;
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(DecodeError::Bad("number"))
    }

    /// A `u32` as [`Self::varint`].
    ///
    /// # Errors
    /// [`DecodeError::Short`], [`DecodeError::Bad`].
    pub fn varint32(&mut self) -> Result<u32, DecodeError> {
        u32::try_from(self.varint()?).map_err(|_| DecodeError::Bad("number"))
    }

    /// A byte string behind a [`Self::varint`].
    ///
    /// # Errors
    /// [`DecodeError::Short`], [`DecodeError::Bad`].
    pub fn short_bytes(&mut self) -> Result<Bytes, DecodeError> {
        let len = self.varint32()? as usize;
        self.need(len)?;
        Ok(self.rest.split_to(len))
    }

    /// A string of UTF-8.
    ///
    /// # Errors
    /// [`DecodeError::Short`], [`DecodeError::Bad`].
    pub fn string(&mut self) -> Result<String, DecodeError> {
        String::from_utf8(self.bytes()?.to_vec()).map_err(|_| DecodeError::Bad("text"))
    }

    /// A `u64` that may be absent.
    ///
    /// # Errors
    /// [`DecodeError::Short`], [`DecodeError::Bad`].
    pub fn optional(&mut self) -> Result<Option<u64>, DecodeError> {
        Ok(if self.bool()? {
            Some(self.u64()?)
        } else {
            None
        })
    }

    /// How many items follow, each at least one byte long, so that a hostile count cannot reserve
    /// more than was sent.
    ///
    /// # Errors
    /// [`DecodeError::Short`].
    pub fn count(&mut self) -> Result<usize, DecodeError> {
        let count = self.u32()? as usize;
        self.need(count)?;
        Ok(count)
    }

    /// All that is left.
    pub fn rest(self) -> Bytes {
        self.rest
    }

    /// Whether nothing is left.
    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// Ends the reading.
    ///
    /// # Errors
    /// [`DecodeError::Bad`] when bytes are left.
    pub fn finish(self) -> Result<(), DecodeError> {
        if self.rest.is_empty() {
            Ok(())
        } else {
            Err(DecodeError::Bad("trailing bytes"))
        }
    }
}
