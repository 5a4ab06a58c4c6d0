//! Rows of a checkpoint, golden ones whose bytes were changed or others: a store that can be read and
//! changed, or refused.
#![no_main]

use std::sync::OnceLock;

use bytes::Bytes;
use quorate_store::{Loader, Revision};

/// One row a line: a name, then hex.
const GOLDEN: &str = include_str!("../../crates/store/testdata/golden_v1/state");

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    static WHOLE: OnceLock<Vec<u8>> = OnceLock::new();
    let Some((pick, bytes)) = bytes.split_first() else {
        return;
    };
    if pick % 2 == 0 {
        return rows(bytes);
    }
    let mut whole = WHOLE.get_or_init(golden).clone();
    quorate_fuzz::edit(&mut whole, bytes);
    rows(&whole);
});

/// The golden rows, each behind its length.
fn golden() -> Vec<u8> {
    let mut whole = Vec::new();
    for line in GOLDEN.lines() {
        let (_, hex) = line.split_once(": ").expect("a name and hex");
        let digits = hex.as_bytes().chunks(2);
        let row = digits.map(|digits| {
            let digits = std::str::from_utf8(digits).expect("hex");
            u8::from_str_radix(digits, 16).expect("hex")
        });
        let row: Vec<u8> = row.collect();
        let len = u16::try_from(row.len()).expect("a short row");
        whole.extend_from_slice(&len.to_le_bytes());
        whole.extend_from_slice(&row);
    }
    whole
}

fn rows(bytes: &[u8]) {
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
}
