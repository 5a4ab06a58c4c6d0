//! Values read from the mapped log.

use std::borrow::Cow;

use quorate_store::{ValueAt, ValueError, Values};

use crate::disk::Reader;

impl Values for Reader<'_> {
    fn read<'a>(&'a self, at: &ValueAt) -> Result<Cow<'a, [u8]>, ValueError> {
        let bytes = self.bytes(at.segment, at.offset, at.len);
        bytes.map(Cow::Borrowed).ok_or(ValueError::Rotten(*at))
    }
}
