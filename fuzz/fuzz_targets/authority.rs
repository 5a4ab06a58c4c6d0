//! The mending of a connection's first frames, however they are cut.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| quorate::fuzz::authority(bytes));
