//! Rows of a checkpoint: a store that can be read and changed, or refused.
#![no_main]

use bytes::Bytes;
use quorate_store::{Loader, Revision};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let mut loader = Loader::default();
    let mut rest = bytes;
    while let Some((&[low, high], after)) = rest.split_first_chunk::<2>() {
        let len = usize::from(u16::from_le_bytes([low, high])).min(after.len());
        let (row, after) = after.split_at(len);
        if loader.row(Bytes::copy_from_slice(row)).is_err() {
            return;
        }
        rest = after;
    }
    if let Ok(mut store) = loader.finish() {
        store.changes(Revision::ZERO).for_each(drop);
        while store.purge(100) {}
        let mut cursor = store.begin_walk();
        let mut rows = Vec::new();
        while store.walk(&mut cursor, 1 << 16, &mut |row: &[u8]| {
            rows.push(row.to_vec())
        }) {}
        let mut again = Loader::default();
        for row in rows {
            again
                .row(Bytes::from(row))
                .expect("what was walked is loaded");
        }
        again.finish().expect("what was walked is loaded");
    }
});
