//! A configuration file.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    let args = ["--config-file".into(), "f".into()];
    let _ = quorate::config::parse(args, [], |_| Ok(text.to_owned()));
});
