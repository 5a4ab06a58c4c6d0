//! Which keys a request means.

use bytes::Bytes;
use core::ops::Bound;

use crate::Refusal;

/// A single key or a half-open interval of keys.
///
/// Source: etcd API v3, `RangeRequest.key`, `RangeRequest.range_end`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct KeyRange {
    /// The first key.
    pub start: Bytes,
    /// Where it ends.
    pub end: KeyEnd,
}

/// A range as an ordered map takes it.
pub(crate) type Bounds<'a> = (Bound<&'a [u8]>, Bound<&'a [u8]>);

/// The end of a [`KeyRange`].
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum KeyEnd {
    /// The start alone.
    Point,
    /// Up to this key, which does not belong to the range.
    Before(Bytes),
    /// All keys from the start on.
    Open,
}

impl KeyRange {
    /// Reads the wire's pair: an empty end is the single key, the one byte 0 is "from on".
    ///
    /// # Errors
    /// [`Refusal::EmptyKey`].
    pub fn from_wire(key: Bytes, range_end: Bytes) -> Result<Self, Refusal> {
        if key.is_empty() {
            return Err(Refusal::EmptyKey);
        }
        Ok(Self::from_parts(key, range_end))
    }

    /// As [`Self::from_wire`], with an empty start allowed.
    pub fn from_parts(start: Bytes, range_end: Bytes) -> Self {
        let end = match &range_end[..] {
            [] => KeyEnd::Point,
            [0] => KeyEnd::Open,
            _ => KeyEnd::Before(range_end),
        };
        Self { start, end }
    }

    /// The single key `key`.
    pub fn point(key: Bytes) -> Self {
        Self {
            start: key,
            end: KeyEnd::Point,
        }
    }

    /// Whether `key` belongs to it.
    pub fn contains(&self, key: &[u8]) -> bool {
        match &self.end {
            KeyEnd::Point => key == self.start,
            KeyEnd::Before(end) => key >= &self.start[..] && key < &end[..],
            KeyEnd::Open => key >= &self.start[..],
        }
    }

    /// Whether no key can belong to it.
    pub fn is_empty(&self) -> bool {
        matches!(&self.end, KeyEnd::Before(end) if *end <= self.start)
    }

    /// What of it comes after `key`.
    #[must_use]
    pub fn after(&self, key: &[u8]) -> Self {
        Self {
            start: [key, b"\0"].concat().into(),
            end: match &self.end {
                // Nothing: an end before its start.
                KeyEnd::Point => KeyEnd::Before(Bytes::new()),
                other => other.clone(),
            },
        }
    }

    /// As bounds of an ordered map. `None` when it is empty, for which a map would panic.
    pub(crate) fn bounds(&self) -> Option<Bounds<'_>> {
        if self.is_empty() {
            return None;
        }
        let start = Bound::Included(&self.start[..]);
        Some(match &self.end {
            KeyEnd::Point => (start, start),
            KeyEnd::Before(end) => (start, Bound::Excluded(&end[..])),
            KeyEnd::Open => (start, Bound::Unbounded),
        })
    }
}
