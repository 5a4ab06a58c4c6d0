//! A bbolt file whose bytes were changed: its items, or a refusal. Its checksum counts for nothing here.
#![no_main]

use std::sync::OnceLock;

use quorate::bolt::{Bucket, Database, FileShape, Shape, Writer};

/// Every bucket may be every other's, so a walk of all has no end.
const MOST_ITEMS: u32 = 10_000;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    static WHOLE: OnceLock<Vec<u8>> = OnceLock::new();
    let mut file = WHOLE.get_or_init(whole).clone();
    quorate_fuzz::edit(&mut file, bytes);
    let Ok(database) = Database::open(file) else {
        return;
    };
    let _ = database.bucket(b"deep");
    let (mut buckets, mut left) = (vec![database.root()], MOST_ITEMS);
    while let Some(bucket) = buckets.pop() {
        walk(&database, &bucket, &mut buckets, &mut left);
    }
});

/// Hands out a bucket's items, and gathers the buckets among them.
fn walk(database: &Database<Vec<u8>>, bucket: &Bucket, found: &mut Vec<Bucket>, left: &mut u32) {
    let Ok(mut items) = database.items(bucket) else {
        return;
    };
    let mut last = None;
    while let Ok(Some(item)) = items.next() {
        assert!(last.as_deref() < Some(item.key), "keys rise");
        last = Some(item.key.to_vec());
        let Some(rest) = left.checked_sub(1) else {
            return;
        };
        *left = rest;
        if item.is_bucket && found.len() < 100 {
            found.extend(database.bucket_of(&item));
        }
    }
}

/// A file with a tree of three levels, a value of many pages, and a bucket without items.
fn whole() -> Vec<u8> {
    let key = |number: u32| [&number.to_be_bytes()[..], &[7; 1000]].concat();
    let deep = (0..20).map(|number| (key(number), vec![1; 10]));
    let large = (0..2_u8).map(|number| (vec![number], vec![2; 9_000]));
    let buckets = [
        (&b"deep"[..], deep.collect()),
        (b"empty", Vec::new()),
        (b"large", large.collect()),
    ];
    let shapes = buckets.iter().map(|(name, items)| {
        let mut shape = Shape::default();
        for (key, value) in items {
            shape.add(key.len(), value.len());
        }
        (name.to_vec(), shape)
    });
    let shape = FileShape::new(shapes.collect());
    let mut writer = Writer::begin(&shape, Vec::new()).expect("memory");
    for (number, (_, items)) in buckets.iter().enumerate() {
        let mut bucket = writer.bucket(&shape, number);
        for (key, value) in items {
            bucket.item(key, value).expect("memory");
        }
        bucket.finish().expect("memory");
    }
    writer.finish(&shape).expect("memory")
}
