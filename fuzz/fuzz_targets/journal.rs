//! Segments of the log: what was promised, or a refusal. Checksums are all 0 here, or no bytes but
//! the writer's own would be looked at.
#![no_main]

use quorate_fuzz::Files;
use quorate_log::{Config, DirectoryId, Entry, EntryKind, HardState, Journal};
use quorate_log::{prepare_segment, segment_name};

const DIRECTORY: DirectoryId = DirectoryId([7; 16]);
const SEGMENT_BYTES: u32 = 8 << 10;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let config = Config {
        segment_bytes: SEGMENT_BYTES,
    };
    let files = Files::default();
    for number in [1, 2] {
        prepare_segment(&files, DIRECTORY, number, SEGMENT_BYTES).expect("memory");
    }
    // Some batches of our own, and the input somewhere over them.
    let (mut journal, _) = Journal::open(files.clone(), DIRECTORY, config, None).expect("fresh");
    for index in 1..=3 {
        let entry = Entry {
            index,
            term: 1,
            kind: EntryKind::Normal,
            data: vec![b'x'; 20].into(),
        };
        let hard = HardState {
            term: 1,
            vote: 1,
            commit: index - 1,
        };
        let mut places = Vec::new();
        let appended = journal.append(Some(hard), &[entry], index - 1, &mut places);
        appended.expect("memory");
        journal.sync().expect("memory");
    }
    drop(journal);
    let Some((&[segment, low, high], bytes)) = bytes.split_first_chunk::<3>() else {
        return;
    };
    let name = segment_name(1 + u32::from(segment & 1));
    files.overwrite(&name, usize::from(u16::from_le_bytes([low, high])), bytes);
    let Ok((mut journal, recovered)) = Journal::open(files, DIRECTORY, config, None) else {
        return;
    };
    // What is accepted can be gone on with.
    let entry = Entry {
        index: recovered.last_index + 1,
        term: recovered.hard.term,
        kind: EntryKind::Normal,
        data: vec![b'y'; 20].into(),
    };
    if recovered.last_index < u64::MAX {
        let commit = recovered.hard.commit;
        let appended = journal.append(None, &[entry], commit, &mut Vec::new());
        let _ = appended.and_then(|()| journal.sync());
    }
});
