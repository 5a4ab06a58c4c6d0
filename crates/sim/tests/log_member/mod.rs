//! A member's use of the log, and a model of what it may and must remember.
//!
//! The model knows nothing of bytes on disk. It keeps the states that a member may wake up in:
//! the promised one, and those after each record that was handed over since.

#![allow(dead_code, reason = "each test file uses a part")]

use std::collections::BTreeMap;

use bytes::Bytes;
use quorate_log::{
    CheckpointWriter, Config, Corrupt, Disk, Entry, EntryAt, EntryKind, HardState, Identity,
    Journal, LogError, Moved, Position, Recovered, Reserve, newest_checkpoint, segment_name,
};
use quorate_sim::disk::SimDisk;

/// Values of entries this far behind the last applied one are dead.
const LIVE_ENTRIES: u64 = 5;

/// One thing that a member does with its log.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    Append {
        hard: Option<HardState>,
        entries: Vec<Entry>,
        commit: u64,
    },
    /// The copy of a value; it promises nothing by itself.
    Move(Moved),
    Sync,
    Idle,
    Checkpoint,
    Free,
}

/// What a member remembers, as far as its log says.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Memory {
    pub(crate) term: u64,
    pub(crate) vote: u64,
    pub(crate) commit: u64,
    /// What of `commit` was told together with a record, and so is as durable as that.
    pub(crate) recorded_commit: u64,
    pub(crate) entries: BTreeMap<u64, Entry>,
}

impl Memory {
    pub(crate) fn last_index(&self) -> u64 {
        self.entries.keys().next_back().copied().unwrap_or(0)
    }

    fn take(&mut self, entry: &Entry) {
        self.entries.split_off(&entry.index);
        self.entries.insert(entry.index, entry.clone());
    }
}

/// All that a crash may leave behind, and what it must.
#[derive(Clone, Debug)]
pub(crate) struct Model {
    /// The promised state first, then the state after each record since.
    pub(crate) possible: Vec<Memory>,
    /// Where the journal said that entries' data stand.
    pub(crate) places: BTreeMap<u64, EntryAt>,
    /// The index of the newest finished checkpoint, and of one that may be finished.
    pub(crate) finished: Option<u64>,
    pub(crate) begun: Option<u64>,
}

impl Default for Model {
    fn default() -> Self {
        let (possible, places) = (vec![Memory::default()], BTreeMap::new());
        Self {
            possible,
            places,
            finished: None,
            begun: None,
        }
    }
}

impl Model {
    pub(crate) fn latest(&self) -> &Memory {
        self.possible
            .last()
            .expect("there is always the promised state")
    }

    fn promise(&mut self) {
        self.possible = vec![self.latest().clone()];
    }

    fn append(&mut self, hard: Option<HardState>, entries: &[Entry], commit: u64) {
        let mut memory = self.latest().clone();
        memory.commit = memory.commit.max(commit);
        self.possible.push(memory.clone());
        if hard.is_some() || !entries.is_empty() {
            memory.recorded_commit = memory.commit;
        }
        if let Some(hard) = hard {
            (memory.term, memory.vote) = (hard.term, hard.vote);
            self.possible.push(memory.clone());
        }
        for entry in entries {
            memory.take(entry);
            self.possible.push(memory.clone());
        }
    }
}

/// A member's journal while it runs.
pub(crate) struct Member {
    pub(crate) disk: SimDisk,
    pub(crate) identity: Identity,
    pub(crate) journal: Journal<SimDisk>,
    pub(crate) reserve: Reserve<SimDisk>,
    kept: Vec<Position>,
}

/// What a member found when it started.
pub(crate) struct Found {
    pub(crate) recovered: Recovered,
    pub(crate) checkpoint: Option<(u64, Vec<Bytes>)>,
    pub(crate) rejected: Vec<Corrupt>,
}

impl Member {
    /// Starts as the server does.
    pub(crate) fn open(disk: &SimDisk, config: Config) -> Result<(Self, Found), LogError> {
        let identity = match Identity::load(disk)? {
            Some(mut identity) => {
                identity.raise(disk)?;
                identity
            }
            None => Identity::create(disk, config, *b"directory is one", 3, 4)?,
        };
        let newest = newest_checkpoint(disk, identity.directory)?;
        let mut checkpoint = None;
        let mut head = None;
        if let Some(mut reader) = newest.reader {
            assert_eq!(&reader.head().meta[..], b"meta");
            let mut rows = Vec::new();
            while let Some(row) = reader.row()? {
                rows.push(row);
            }
            checkpoint = Some((reader.head().index, rows));
            head = Some(reader.head().clone());
        }
        let (journal, recovered) =
            Journal::open(disk.clone(), identity.directory, config, head.as_ref())?;
        let bytes = config.segment_bytes;
        let reserve = Reserve::new(disk.clone(), identity.directory, bytes, 700, false);
        let kept = head.into_iter().map(|head| head.position).collect();
        let member = Self {
            disk: disk.clone(),
            identity,
            journal,
            reserve,
            kept,
        };
        Ok((
            member,
            Found {
                recovered,
                checkpoint,
                rejected: newest.rejected,
            },
        ))
    }

    /// Does one step, and lets the model know before (it may happen) and after (it has).
    pub(crate) fn step(&mut self, step: &Step, model: &mut Model) -> Result<(), LogError> {
        match step {
            Step::Append {
                hard,
                entries,
                commit,
            } => {
                model.append(*hard, entries, *commit);
                let mut places = Vec::new();
                self.journal.append(*hard, entries, *commit, &mut places)?;
                model.places.extend(places);
            }
            Step::Move(moved) => {
                let mut places = Vec::new();
                self.journal
                    .append_moved(std::slice::from_ref(moved), &mut places)?;
            }
            Step::Sync => {
                self.journal.sync()?;
                model.promise();
            }
            Step::Idle => {
                self.journal.idle_mark()?;
                model.promise();
            }
            Step::Checkpoint => self.checkpoint(model)?,
            Step::Free => {
                let freed = self.journal.free(&self.kept);
                self.reserve.recycle(&freed)?;
                self.reserve.fill()?;
            }
        }
        Ok(())
    }

    fn checkpoint(&mut self, model: &mut Model) -> Result<(), LogError> {
        self.step(&Step::Sync, model)?;
        let applied = model.latest().commit.min(model.latest().last_index());
        let mut position = self.journal.position_for(applied);
        let live: Vec<u32> = live_entries(model, applied)
            .map(|(_, place)| place.segment)
            .collect();
        position.retain(|segment| live.contains(&segment));
        model.begun = Some(applied);
        let disk = self.disk.clone();
        let directory = self.identity.directory;
        let mut writer = CheckpointWriter::begin(disk, directory, applied, 7, &position, b"meta")?;
        for row in rows(model, applied) {
            writer.row(&row)?;
        }
        writer.finish()?;
        model.finished = Some(applied);
        self.kept.push(position);
        if self.kept.len() > 2 {
            self.kept.remove(0);
        }
        Ok(())
    }
}

/// The state of the machine at `applied`: every entry and its place.
fn rows(model: &Model, applied: u64) -> Vec<Bytes> {
    let entries = model.latest().entries.range(..=applied);
    let row = |(index, entry): (&u64, &Entry)| {
        Bytes::from(format!(
            "{index} {:?} {:?}",
            entry.data, model.places[index]
        ))
    };
    entries.map(row).collect()
}

fn live_entries(model: &Model, applied: u64) -> impl Iterator<Item = (&Entry, EntryAt)> {
    let live = applied.saturating_sub(LIVE_ENTRIES) + 1..applied + 1;
    model
        .latest()
        .entries
        .range(live)
        .map(|(index, entry)| (entry, model.places[index]))
}

/// Checks what a member found against what it may and must remember, and returns the one of the
/// possible states that it is in.
pub(crate) fn check(disk: &SimDisk, found: &Found, model: &Model) -> Memory {
    let Recovered {
        hard,
        last_index,
        entries,
        ..
    } = &found.recovered;
    let start = check_checkpoint(disk, found, model);
    for (nth, (entry, at)) in entries.iter().enumerate() {
        assert_eq!(
            entry.index,
            start + 1 + nth as u64,
            "entries behind the checkpoint, no gap"
        );
        assert_eq!(
            value(disk, *at, entry.data.len()).as_deref(),
            Some(&entry.data[..])
        );
    }
    let matches = |memory: &&Memory| {
        let behind = memory.entries.range(start + 1..).map(|(_, entry)| entry);
        (memory.term, memory.vote) == (hard.term, hard.vote)
            && memory.last_index() == *last_index
            && behind.eq(entries.iter().map(|(entry, _)| entry))
    };
    let Some(memory) = model.possible.iter().find(matches) else {
        let promised = &model.possible[0];
        let indexes: Vec<_> = entries
            .iter()
            .map(|(entry, _)| (entry.index, entry.term))
            .collect();
        panic!(
            "no such state: {hard:?}, last {last_index}, entries {indexes:?}; \
             promised: term {}, last {}; torn: {:?}",
            promised.term,
            promised.last_index(),
            found.recovered.torn
        );
    };
    let promised = &model.possible[0];
    assert!(
        hard.commit >= promised.recorded_commit.min(promised.last_index()),
        "commit went back"
    );
    assert!(
        hard.commit <= model.latest().commit.min(*last_index),
        "commit was never told"
    );
    Memory {
        commit: hard.commit,
        recorded_commit: hard.commit,
        ..memory.clone()
    }
}

/// Returns the index that the journal goes on from.
fn check_checkpoint(disk: &SimDisk, found: &Found, model: &Model) -> u64 {
    let Some((index, found_rows)) = &found.checkpoint else {
        assert_eq!(model.finished, None, "a finished checkpoint is gone");
        return 0;
    };
    assert!(
        [model.finished, model.begun].contains(&Some(*index)),
        "checkpoint {index}"
    );
    assert_eq!(*found_rows, rows(model, *index));
    for (entry, place) in live_entries(model, *index) {
        let found = value(disk, place, entry.data.len());
        assert_eq!(
            found.as_deref(),
            Some(&entry.data[..]),
            "a live value is gone"
        );
    }
    *index
}

/// An entry's data, read from its place as the server does.
fn value(disk: &SimDisk, at: EntryAt, length: usize) -> Option<Vec<u8>> {
    let mut bytes = vec![0; length];
    let read = disk
        .read_at(&segment_name(at.segment), u64::from(at.offset), &mut bytes)
        .ok()?;
    (read == length).then_some(bytes)
}

/// A run of `length` steps drawn from a seed: appends of several sizes, new terms that overwrite
/// what is not committed, commits, idle marks, checkpoints and frees.
pub(crate) fn script(seed: u64, length: usize, longest_value: u64) -> Vec<Step> {
    let mut chance = Chance(seed);
    let (mut term, mut last, mut commit) = (1, 0, 0);
    let mut steps = Vec::new();
    while steps.len() < length {
        match chance.below(18) {
            0..=8 => {
                let mut hard = None;
                if chance.below(4) == 0 {
                    // A new term overwrites some of what is not committed.
                    term += 1;
                    last -= chance.below(last - commit + 1);
                    hard = Some(HardState {
                        term,
                        vote: chance.below(3),
                        commit,
                    });
                }
                let count = chance.below(5);
                let entries: Vec<Entry> = (0..count)
                    .map(|nth| entry(last + 1 + nth, term, chance.below(longest_value)))
                    .collect();
                last += count;
                if chance.below(2) == 0 {
                    commit += chance.below(last - commit + 1);
                }
                steps.push(Step::Append {
                    hard,
                    entries,
                    commit,
                });
                if chance.below(3) > 0 {
                    steps.push(Step::Sync);
                }
            }
            9..=10 => steps.push(Step::Sync),
            11..=12 => steps.push(Step::Idle),
            13..=14 => steps.push(Step::Checkpoint),
            16 => steps.push(Step::Move(Moved {
                key: b"key".as_slice().into(),
                revision: chance.below(9),
                data: vec![b'm'; chance.below(longest_value) as usize].into(),
            })),
            _ => steps.push(Step::Free),
        }
    }
    steps
}

/// An entry whose data tell it from every other one.
pub(crate) fn entry(index: u64, term: u64, length: u64) -> Entry {
    let mut data = format!("entry {index} of term {term} ").into_bytes();
    let length = data.len() as u64 + length;
    data.resize(usize::try_from(length).expect("values are small"), b'.');
    let kind = if index.is_multiple_of(5) {
        EntryKind::Conf
    } else {
        EntryKind::Normal
    };
    Entry {
        index,
        term,
        kind,
        data: data.into(),
    }
}

/// SplitMix64.
pub(crate) struct Chance(pub(crate) u64);

impl Chance {
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }
}
