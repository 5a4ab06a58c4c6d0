//! A v3 request of any kind, from bytes to a command or a read.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| quorate::fuzz::v3_request(bytes));
