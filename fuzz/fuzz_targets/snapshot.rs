//! An etcd's file whose bytes were changed: what makes a state, or a refusal.
#![no_main]

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::OnceLock;

const WHOLE: &[u8] = include_bytes!("../../crates/server/testdata/etcd-3.4.23.snapshot");

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    // One file for all inputs: they are of one length.
    static SCRATCH: OnceLock<File> = OnceLock::new();
    let mut whole = WHOLE.to_vec();
    quorate_fuzz::edit(&mut whole, bytes);
    let scratch = SCRATCH.get_or_init(|| quorate_fuzz::scratch().expect("a temporary file"));
    scratch.write_all_at(&whole, 0).expect("a temporary file");
    quorate::fuzz::snapshot(scratch.try_clone().expect("a descriptor"));
});
