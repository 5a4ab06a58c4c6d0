//! What clients asked and were told.
//!
//! Q1. A request is in the log at most once, as it was asked; one that is reported not done, never.
//! Q2. What is answered stands behind everything that was answered before it was asked (P2).

use std::collections::BTreeMap;

use bytes::Bytes;
use quorate_store::command::{Draft, RequestId};
use quorate_store::{ClusterTime, Command};

/// A member, its start, and a number.
pub(crate) type ReadKey = (u64, u64, u64);

#[derive(Debug, Default)]
pub(crate) struct Requests {
    asked: BTreeMap<RequestId, Asked>,
    reads: BTreeMap<ReadKey, u64>,
    /// What anybody has been told of so far.
    seen_to: u64,
    pub(crate) answered: u64,
    pub(crate) not_done: u64,
    pub(crate) reads_answered: u64,
}

#[derive(Debug)]
struct Asked {
    /// The command, stamped with 0.
    entry: Bytes,
    at_ms: u64,
    floor: u64,
    told: Told,
    index: Option<u64>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Told {
    Nothing,
    Done,
    NotDone,
    /// It may have happened.
    Unknown,
}

impl Requests {
    pub(crate) fn ask(&mut self, id: RequestId, draft: Draft, at_ms: u64) {
        let asked = Asked {
            entry: draft.stamp(ClusterTime(0)),
            at_ms,
            floor: self.seen_to,
            told: Told::Nothing,
            index: None,
        };
        let before = self.asked.insert(id, asked);
        assert!(before.is_none(), "ids are used once");
    }

    /// A command is in the log for the first time. Returns when it was asked.
    pub(crate) fn committed(&mut self, command: &Command, index: u64, now_ms: u64) -> u64 {
        let id = command.id;
        if id.counter == 0 {
            return now_ms;
        }
        let asked = self.asked.get_mut(&id);
        let asked = asked.unwrap_or_else(|| panic!("Q1: nobody asked for {id:?}"));
        let before = asked.index.replace(index);
        assert_eq!(
            before, None,
            "Q1: {id:?} is applied twice, again at {index}"
        );
        assert!(
            asked.told != Told::NotDone,
            "Q1: {id:?} was reported as not done, and is entry {index}"
        );
        let entry = Draft::new(id, command.wall, &command.body).stamp(ClusterTime(0));
        assert_eq!(entry, asked.entry, "Q1: {id:?} is not as it was asked");
        asked.at_ms
    }

    /// The member that was asked has applied it.
    pub(crate) fn applied(&mut self, id: RequestId, index: u64) {
        let Some(asked) = self.asked.get_mut(&id) else {
            return;
        };
        if asked.told == Told::Nothing {
            asked.told = Told::Done;
            assert!(
                index > asked.floor,
                "P2: {id:?} is entry {index}, but {} was seen before it was asked",
                asked.floor
            );
            self.answered += 1;
            self.seen_to = self.seen_to.max(index);
        }
    }

    /// What a start of a member was asked did not happen.
    pub(crate) fn not_done(&mut self, (member, incarnation): (u64, u64), first: u64, last: u64) {
        let id = |counter| RequestId {
            member,
            incarnation,
            counter,
        };
        for (id, asked) in self.asked.range_mut(id(first)..=id(last)) {
            if asked.told == Told::Nothing {
                asked.told = Told::NotDone;
                self.not_done += 1;
                let index = asked.index;
                assert_eq!(index, None, "Q1: {id:?} is reported as not done");
            }
        }
    }

    /// Nobody waits any more for what a start of a member was asked.
    pub(crate) fn give_up(&mut self, (member, incarnation): (u64, u64)) {
        let id = |counter| RequestId {
            member,
            incarnation,
            counter,
        };
        for (_, asked) in self.asked.range_mut(id(0)..=id(u64::MAX)) {
            if asked.told == Told::Nothing {
                asked.told = Told::Unknown;
            }
        }
    }

    /// And what it was to read. Returns the numbers.
    pub(crate) fn give_up_reads(&mut self, (member, incarnation): (u64, u64)) -> Vec<u64> {
        let all = (member, incarnation, 0)..=(member, incarnation, u64::MAX);
        let keys: Vec<ReadKey> = self.reads.range(all.clone()).map(|(key, _)| *key).collect();
        let numbers = keys.iter().map(|key| key.2);
        let numbers = numbers.collect();
        self.reads.retain(|key, _| !all.contains(key));
        numbers
    }

    pub(crate) fn ask_read(&mut self, key: ReadKey) {
        self.reads.insert(key, self.seen_to);
    }

    /// A read is answered with what stands at `shown`, since that is not before `index`.
    pub(crate) fn read(&mut self, key: ReadKey, index: u64, shown: u64) {
        let floor = self.reads.remove(&key);
        let floor = floor.expect("a read is answered once");
        assert!(
            index >= floor,
            "P2: a read on member {} holds at {index}, but {floor} was seen before it was asked",
            key.0
        );
        self.reads_answered += 1;
        self.seen_to = self.seen_to.max(shown);
    }

    pub(crate) fn open_reads(&self) -> usize {
        self.reads.len()
    }

    /// Whether a request is answered with success or refusal.
    pub(crate) fn is_answered(&self, id: &RequestId) -> bool {
        self.asked
            .get(id)
            .is_some_and(|asked| asked.told == Told::Done)
    }
}
