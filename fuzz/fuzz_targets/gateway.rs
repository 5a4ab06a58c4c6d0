//! JSON to the gateway, in pieces, to a message and on.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| quorate::fuzz::gateway(bytes));
