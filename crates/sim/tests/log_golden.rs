//! The bytes of each format version, kept: what was written once is read for ever.
//!
//! `ACCEPT=1 cargo nextest run -p quorate-sim log_golden` writes the files of the present
//! version; those of a released version are never written again.

mod log_member;

use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;

use log_member::{Member, Model, Step, entry};
use quorate_log::{Config, Disk, HardState, Identity, Journal, Moved, newest_checkpoint, verify};
use quorate_sim::disk::SimDisk;

const CONFIG: Config = Config {
    segment_bytes: 2048,
};

/// Every kind of file and record: a rolled segment, an overwritten entry, both kinds of entries,
/// hard states, a moved value, a checkpoint, an idle mark, and a torn last batch.
fn write_present_version() -> SimDisk {
    let disk = SimDisk::new();
    let mut model = Model::default();
    let (mut member, _) = Member::open(&disk, CONFIG).expect("the disk works");
    let mut step = |step: Step| member.step(&step, &mut model).expect("the disk works");
    let append = |hard, first: u64, last: u64, term, commit| {
        let entries = (first..=last)
            .map(|index| entry(index, term, index * 40))
            .collect();
        Step::Append {
            hard,
            entries,
            commit,
        }
    };
    step(append(
        Some(HardState {
            term: 1,
            vote: 0x0102_0304_0506_0708,
            commit: 0,
        }),
        1,
        6,
        1,
        4,
    ));
    step(Step::Checkpoint);
    step(append(
        Some(HardState {
            term: 3,
            vote: 0,
            commit: 4,
        }),
        5,
        9,
        3,
        7,
    ));
    step(Step::Idle);
    step(Step::Move(Moved {
        key: b"key".as_slice().into(),
        revision: 0x0102_0304,
        data: b"value".as_slice().into(),
    }));
    step(append(None, 10, 11, 3, 9));
    step(Step::Sync);
    let last = "0000000003.segment";
    let mut content = disk.content(last).expect("it rolled twice");
    let end = content
        .iter()
        .rposition(|byte| *byte != 0)
        .expect("it is written");
    content[end] ^= 1;
    disk.place(last, content);
    disk
}

fn directory() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../log/testdata/format-1")
}

/// What a member makes of a directory, as text.
fn describe(disk: &SimDisk) -> String {
    let mut text = verify(disk).expect("the disk works").to_string();
    let identity = Identity::load(disk)
        .expect("it reads")
        .expect("it is there");
    writeln!(text, "{identity:?}").expect("strings grow");
    let mut reader = newest_checkpoint(disk, identity.directory)
        .expect("it reads")
        .reader
        .expect("there is a checkpoint");
    writeln!(text, "{:?}", reader.head()).expect("strings grow");
    while let Some(row) = reader.row().expect("it reads") {
        writeln!(text, "row {row:?}").expect("strings grow");
    }
    let head = reader.head().clone();
    let (_, recovered) =
        Journal::open(disk.clone(), identity.directory, CONFIG, Some(&head)).expect("it replays");
    writeln!(text, "{:?}, last {}", recovered.hard, recovered.last_index).expect("strings grow");
    writeln!(text, "{:?}", recovered.torn).expect("strings grow");
    for moved in recovered.moved {
        writeln!(text, "{moved:?}").expect("strings grow");
    }
    for (entry, at) in recovered.entries {
        writeln!(text, "{entry:?} at {at:?}").expect("strings grow");
    }
    text
}

#[test]
fn files_of_format_1_still_read() {
    if std::env::var_os("ACCEPT").is_some() {
        let disk = write_present_version();
        fs::create_dir_all(directory()).expect("it can be made");
        for name in disk.list().expect("the disk works") {
            let content = disk.content(&name).expect("it is listed");
            fs::write(directory().join(name), content).expect("it can be written");
        }
        fs::write(directory().join("read.txt"), describe(&disk)).expect("it can be written");
    }
    let disk = SimDisk::new();
    let mut expected = String::new();
    for file in fs::read_dir(directory()).expect("the files are there") {
        let file = file.expect("it is listed");
        let name = file.file_name().into_string().expect("names are plain");
        if name == "read.txt" {
            expected = fs::read_to_string(file.path()).expect("it is text");
        } else {
            disk.place(&name, fs::read(file.path()).expect("it reads"));
        }
    }
    assert_eq!(describe(&disk), expected);
}

#[test]
fn format_1_is_what_is_written() {
    let disk = write_present_version();
    for name in disk.list().expect("the disk works") {
        let golden = fs::read(directory().join(&name)).expect("the file is there");
        assert!(
            disk.content(&name) == Some(golden),
            "{name} is written in another way now"
        );
    }
}
