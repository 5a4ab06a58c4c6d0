//! Rot: whatever was synced and has a good batch behind it is noticed, by file and offset.

mod log_member;

use std::collections::BTreeSet;

use log_member::{Chance, Member, Model, Step, check, entry};
use quorate_log::{Config, Corrupt, Disk, Entry, HardState, LogError, segment_name, verify};
use quorate_sim::disk::{Crash, SimDisk};

const CONFIG: Config = Config {
    segment_bytes: 2048,
};
const SEGMENT_HEAD: usize = 64;

/// Three segments of batches of several sizes, ending in a batch with entries or an idle mark.
fn written(idle_mark: bool, checkpoints: bool) -> (SimDisk, Model) {
    let disk = SimDisk::new();
    let mut model = Model::default();
    let (mut member, _) = Member::open(&disk, CONFIG).expect("the disk works");
    let mut step = |step: Step| member.step(&step, &mut model).expect("the disk works");
    for index in 1..=24 {
        let hard = (index % 7 == 1).then_some(HardState {
            term: index,
            vote: 1,
            commit: 0,
        });
        let entries = vec![entry(index, index, index * 7)];
        step(Step::Append {
            hard,
            entries,
            commit: index - 1,
        });
        step(Step::Sync);
        if index % 8 == 0 {
            step(Step::Idle);
            if checkpoints {
                step(Step::Checkpoint);
            }
        }
    }
    step(Step::Append {
        hard: None,
        entries: vec![entry(25, 24, 300)],
        commit: 24,
    });
    step(if idle_mark { Step::Idle } else { Step::Sync });
    (disk.survivors(Crash::Lost), model)
}

/// Where the batches of a segment stand: start and end, by the lengths in their headers.
fn batches(segment: &[u8]) -> Vec<(usize, usize)> {
    let mut found = Vec::new();
    let mut start = SEGMENT_HEAD;
    while start + 32 <= segment.len() && segment[start..start + 4] != [0; 4] {
        let length = u32::from_le_bytes(segment[start + 12..start + 16].try_into().expect("four"));
        let end = start + (32 + length as usize).next_multiple_of(8);
        found.push((start, end));
        start = end;
    }
    found
}

fn segments(disk: &SimDisk) -> Vec<(String, Vec<u8>)> {
    (1..)
        .map_while(|number| {
            let name = segment_name(number);
            disk.content(&name).map(|content| (name, content))
        })
        .collect()
}

fn corrupt(disk: &SimDisk) -> Corrupt {
    match Member::open(disk, CONFIG) {
        Err(LogError::Corrupt(corrupt)) => corrupt,
        Err(other) => panic!("another failure: {other}"),
        Ok((_, found)) => panic!("it opened, {:?}", found.recovered),
    }
}

/// A copy of the disk with one bit of a file flipped.
fn flipped(disk: &SimDisk, file: &str, offset: usize, bit: u64) -> SimDisk {
    let rotten = disk.survivors(Crash::Lost);
    let mut content = disk.content(file).expect("the file is there");
    content[offset] ^= 1 << bit;
    rotten.place(file, content);
    rotten
}

#[test]
fn a_flipped_bit_in_any_batch_but_the_last_is_refused_by_file_and_offset() {
    let (disk, _) = written(true, false);
    let files = segments(&disk);
    assert!(files.len() >= 3);
    let mut chance = Chance(5);
    let mut flips = 0;
    for (nth, (file, content)) in files.iter().enumerate() {
        let mut batches = batches(content);
        if nth + 1 == files.len() {
            batches.pop();
        }
        for (start, end) in batches {
            for offset in start..end {
                let rotten = flipped(&disk, file, offset, chance.below(8));
                let Corrupt {
                    file: named,
                    offset: at,
                    ..
                } = corrupt(&rotten);
                assert_eq!((&named, at), (file, start as u64), "flipped at {offset}");
                let report = verify(&rotten).expect("the disk works");
                let says = |error: &LogError| match error {
                    LogError::Corrupt(corrupt) => corrupt.file == *file && corrupt.offset == at,
                    _ => false,
                };
                assert!(report.corrupt.iter().any(says), "{report}");
                flips += 1;
            }
        }
    }
    assert!(flips > 4000, "{flips}");
}

#[test]
fn a_flipped_bit_before_the_checkpoint_is_found_by_verify() {
    let (disk, _) = written(true, true);
    let mut chance = Chance(6);
    let (file, content) = &segments(&disk)[0];
    for (start, end) in batches(content) {
        for offset in (start..end).step_by(5) {
            let rotten = flipped(&disk, file, offset, chance.below(8));
            let report = verify(&rotten).expect("the disk works");
            assert!(!report.is_sound(), "flipped at {offset}: {report}");
            assert!(
                report
                    .to_string()
                    .contains(&format!("{file} is corrupt at offset {start}"))
            );
        }
    }
}

#[test]
fn a_flipped_bit_in_a_header_and_a_shortened_segment_are_refused() {
    for checkpoints in [false, true] {
        let (disk, _) = written(true, checkpoints);
        for (file, content) in segments(&disk) {
            for offset in 0..SEGMENT_HEAD {
                let found = corrupt(&flipped(&disk, &file, offset, offset as u64 % 8));
                assert_eq!(found.file, file, "flipped at {offset}");
            }
            for length in [0, 1, 63, 64, 1000, content.len() - 1] {
                let short = disk.survivors(Crash::Lost);
                short.place(&file, content[..length].to_vec());
                let found = corrupt(&short);
                assert_eq!((found.file, found.offset), (file.clone(), length as u64));
                assert!(!verify(&short).expect("the disk works").is_sound());
            }
            // No live value of the checkpoint lies in the first.
            if !checkpoints || file != segment_name(1) {
                let missing = disk.survivors(Crash::Lost);
                missing.remove(&file).expect("it is there");
                assert_eq!(corrupt(&missing).file, file);
            }
        }
    }
}

#[test]
fn a_last_batch_that_does_not_verify_is_dropped_and_told_with_the_index() {
    let (disk, model) = written(false, false);
    let (file, content) = segments(&disk).pop().expect("there are some");
    let (start, end) = *batches(&content).last().expect("there are some");
    let mut before = model.clone();
    before.possible[0].entries.remove(&25);
    before.possible[0].recorded_commit = 23;
    let kept = 24;
    for offset in start..end {
        let torn = flipped(&disk, &file, offset, offset as u64 % 8);
        let report = verify(&torn).expect("the disk works");
        let told = report.torn.clone().expect("it is told");
        assert!(report.is_sound() && report.last_index == kept, "{report}");
        let (mut member, found) = Member::open(&torn, CONFIG).expect("it starts");
        assert_eq!(found.recovered.torn, Some(told.clone()));
        assert_eq!(
            (told.file, told.offset, told.last_index),
            (file.clone(), start as u64, kept)
        );
        let mut model = Model {
            possible: vec![check(&torn, &found, &before)],
            ..before.clone()
        };
        // What is written next stands in its place.
        let entries = vec![entry(25, 30, 7)];
        let append = Step::Append {
            hard: None,
            entries,
            commit: 24,
        };
        member.step(&append, &mut model).expect("the disk works");
        member
            .step(&Step::Sync, &mut model)
            .expect("the disk works");
        let (_, found) = Member::open(&torn, CONFIG).expect("it starts");
        assert_eq!(found.recovered.torn, None);
        check(&torn, &found, &model);
    }
}

#[test]
fn a_rotten_checkpoint_gives_way_to_the_older_one_and_then_to_the_beginning() {
    let (disk, model) = written(true, true);
    let (newer, older) = (
        "00000000000000000023.checkpoint",
        "00000000000000000015.checkpoint",
    );
    let (_, found) = Member::open(&disk.survivors(Crash::Lost), CONFIG).expect("it starts");
    check(&disk, &found, &model);
    let mut model = Model {
        finished: Some(15),
        ..model
    };
    let length = disk.content(newer).expect("it is there").len();
    for offset in 0..length {
        let rotten = flipped(&disk, newer, offset, offset as u64 % 8);
        assert!(!verify(&rotten).expect("the disk works").is_sound());
        let (_, found) = Member::open(&rotten, CONFIG).expect("the older one is there");
        assert_eq!(found.rejected.len(), 1);
        assert_eq!(found.rejected[0].file, newer);
        check(&rotten, &found, &model);
        let (_, found) = Member::open(&rotten, CONFIG).expect("it was set aside");
        assert_eq!(found.rejected, []);
    }
    let both = flipped(&flipped(&disk, newer, 50, 1), older, 60, 1);
    let (_, found) = Member::open(&both, CONFIG).expect("the journal's beginning is there");
    assert_eq!(found.rejected.len(), 2);
    (model.finished, model.begun) = (None, None);
    check(&both, &found, &model);

    let none = flipped(&flipped(&disk, newer, 50, 1), older, 60, 1);
    none.remove(&segment_name(1)).expect("it is there");
    assert_eq!(corrupt(&none).file, newer);
}

#[test]
fn an_identity_that_is_rotten_missing_or_another_directorys_is_refused() {
    let (disk, _) = written(true, false);
    let length = disk.content("identity").expect("it is there").len();
    for offset in 0..length {
        assert_eq!(
            corrupt(&flipped(&disk, "identity", offset, 3)).file,
            "identity"
        );
    }
    let missing = disk.survivors(Crash::Lost);
    missing.remove("identity").expect("it is there");
    assert_eq!(corrupt(&missing).file, "identity");

    let (other, _) = written(true, false);
    let mut segment = other.content(&segment_name(2)).expect("it is there");
    segment[0] ^= 1;
    other.place(&segment_name(2), segment);
    assert_eq!(corrupt(&other).file, segment_name(2));
}

#[test]
fn nothing_is_freed_before_two_checkpoints_stand() {
    let (disk, mut model) = written(true, false);
    let (mut member, _) = Member::open(&disk, CONFIG).expect("it starts");
    for step in [Step::Checkpoint, Step::Free] {
        member.step(&step, &mut model).expect("the disk works");
    }
    let rotten = flipped(&disk, "00000000000000000024.checkpoint", 50, 1);
    let (_, found) = Member::open(&rotten, CONFIG).expect("the journal's beginning is there");
    (model.finished, model.begun) = (None, None);
    check(&rotten, &found, &model);
}

/// A value may hold anything, be it a copy of this very journal.
#[test]
fn bytes_of_a_journal_inside_a_value_are_not_taken_for_a_batch() {
    let (mut disk, _) = written(true, false);
    let (_, content) = segments(&disk).pop().expect("there are some");
    let (mut member, found) = Member::open(&disk, CONFIG).expect("it starts");
    let last = found.recovered.last_index;
    let mut value = entry(last + 1, 30, 0);
    // One byte makes it stand at a multiple of 8, where batches do: behind 32 bytes of the
    // batch's header and 23 of the record's.
    value.data = [&[0], &content[SEGMENT_HEAD..SEGMENT_HEAD + 400]]
        .concat()
        .into();
    let mut places = Vec::new();
    let journal = &mut member.journal;
    journal
        .append(None, &[value], 0, &mut places)
        .expect("the disk works");
    journal.sync().expect("the disk works");
    // Its batch is torn in its first bytes, so that the search goes over the value.
    let (file, content) = segments(&disk).pop().expect("there are some");
    let (start, _) = *batches(&content).last().expect("there are some");
    assert_eq!(places[0].1.offset as usize, start + 55);
    disk = flipped(&disk, &file, start + 9, 2);
    let (_, found) = Member::open(&disk, CONFIG).expect("no batch is behind it");
    assert_eq!(
        found.recovered.torn.map(|torn| torn.offset),
        Some(start as u64)
    );
    assert_eq!(found.recovered.last_index, last);
}

/// Replay starts near the first entry that it needs, not at the segment's start.
#[test]
fn a_checkpoint_in_a_large_segment_replays_only_what_is_behind_it() {
    let config = Config {
        segment_bytes: 16 << 20,
    };
    let disk = SimDisk::new();
    let (mut member, _) = Member::open(&disk, config).expect("the disk works");
    let entries: Vec<Entry> = (1..=100).map(|index| entry(index, 1, 100_000)).collect();
    for entry in &entries {
        let mut places = Vec::new();
        let entry = std::slice::from_ref(entry);
        member
            .journal
            .append(None, entry, 0, &mut places)
            .expect("the disk works");
        member.journal.sync().expect("the disk works");
    }
    let mut seen = BTreeSet::new();
    for applied in [1, 30, 31, 60, 99, 100] {
        let position = member.journal.position_for(applied);
        let directory = member.identity.directory;
        let writer = quorate_log::CheckpointWriter::begin(
            disk.clone(),
            directory,
            applied,
            1,
            &position,
            b"meta",
        );
        writer
            .and_then(quorate_log::CheckpointWriter::finish)
            .expect("the disk works");
        let copy = disk.survivors(Crash::Clean);
        // Rot long before the position is none of replay's business.
        let mut content = copy.content(&segment_name(1)).expect("it is there");
        if applied > 30 {
            content[1_000_000] ^= 1;
        }
        copy.place(&segment_name(1), content);
        let (_, found) = Member::open(&copy, config).expect("it starts");
        let behind: Vec<Entry> = found
            .recovered
            .entries
            .into_iter()
            .map(|(entry, _)| entry)
            .collect();
        assert_eq!(behind, entries[usize::try_from(applied).expect("small")..]);
        seen.insert(format!("{position:?}"));
    }
    assert!(seen.len() >= 5, "the positions move on: {seen:?}");
}
