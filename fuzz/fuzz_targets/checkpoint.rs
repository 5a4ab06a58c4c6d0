//! A checkpoint file: a state that verifies, or one that is set aside. Checksums are all 0 here.
#![no_main]

use quorate_fuzz::Files;
use quorate_log::prepare_segment;
use quorate_log::{CheckpointWriter, Config, DirectoryId, Journal, newest_checkpoint};
use quorate_replica::Machine;
use quorate_store::Loader;

const DIRECTORY: DirectoryId = DirectoryId([7; 16]);
const INDEX: u64 = 1;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let files = Files::default();
    let config = Config {
        segment_bytes: 8 << 10,
    };
    prepare_segment(&files, DIRECTORY, 1, config.segment_bytes).expect("memory");
    let (mut journal, _) = Journal::open(files.clone(), DIRECTORY, config, None).expect("fresh");
    let position = journal.position_for(INDEX);
    let mut machine = Machine::genesis();
    let (meta, mut cursor) = machine.begin_walk();
    let mut writer = CheckpointWriter::begin(files.clone(), DIRECTORY, INDEX, 1, &position, &meta)
        .expect("memory");
    let mut rows = Vec::new();
    let mut take = |row: &[u8]| rows.push(row.to_vec());
    while machine.store().walk(&mut cursor, 1 << 10, &mut take) {}
    for row in &rows {
        writer.row(row).expect("memory");
    }
    writer.finish().expect("memory");
    let Some((&[low, high], bytes)) = bytes.split_first_chunk::<2>() else {
        return;
    };
    let name = "00000000000000000001.checkpoint";
    files.overwrite(
        name,
        usize::from(u16::from_le_bytes([low, high]) % 1024),
        bytes,
    );
    let Ok(newest) = newest_checkpoint(&files, DIRECTORY) else {
        return;
    };
    let Some(mut reader) = newest.reader else {
        return;
    };
    let head = reader.head().clone();
    let mut loader = Loader::default();
    while let Ok(Some(row)) = reader.row() {
        if loader.row(row).is_err() {
            return;
        }
    }
    let _ = Machine::load((head.index, head.term), &head.meta, loader);
    let _ = Journal::open(files, DIRECTORY, config, Some(&head));
});
