//! The identity of a data directory. Its checksum is 0 here.
#![no_main]

use quorate_fuzz::Files;
use quorate_log::Identity;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let files = Files::default();
    files.put("identity", bytes);
    if let Ok(Some(mut identity)) = Identity::load(&files) {
        if identity.incarnation < u64::MAX {
            identity.raise(&files).expect("memory");
            assert_eq!(Identity::load(&files), Ok(Some(identity)));
        }
    }
});
