//! Path, query, form and media type of a v2 request.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| quorate::fuzz::v2_request(bytes));
