//! What peers and the log send to the state machine: a command that is valid, or refused.
#![no_main]

use bytes::Bytes;
use quorate_store::Command;
use quorate_store::command::{Draft, Limits};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Ok(command) = Command::decode(&Bytes::copy_from_slice(bytes)) else {
        return;
    };
    // To be a command is to be valid, and to be written as it was read.
    let limits = Limits {
        max_txn_ops: usize::MAX,
    };
    command.body.check(limits).expect("a valid request");
    let entry = Draft::new(command.id, command.wall, &command.body).stamp(command.time);
    let again = Command::decode(&entry).expect("what was written is read");
    let twice = Draft::new(again.id, again.wall, &again.body).stamp(again.time);
    assert_eq!(entry, twice);
});
