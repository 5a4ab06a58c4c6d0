//! What the cluster has committed, as whoever applied it first told, and the checks of every member
//! against it.
//!
//! G1. Every member applies the same entry at an index, for ever, and to the same effect (P1, P3).
//! G2. What a request does is what a naive model says (P3), at no time before it may (P5).
//! G3. Members at one index have the same state, row by row, but for where values lie (S1).

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;
use quorate_log::EntryAt;
use quorate_replica::{Committed, Machine};
use quorate_store::command::{Body, RequestId};
use quorate_store::{
    Command, FileVersion, Member, Outcome, Store, Value, ValueAt, ValueError, Values, file_row,
    file_versions,
};

use crate::chance::Chance;
use crate::known::{Verdict, check_revision, check_state, rows};
use crate::member::SimMember;
use crate::model::{Model, Moment};

/// The first entry's index: a fresh cluster is at index 1.
const FIRST: u64 = 2;
/// What clocks that lose a hundredth come to while they do not hear of each other.
const SKEW_MS: u64 = 100;

#[derive(Debug)]
pub(crate) struct Ledger {
    pub(crate) model: Model,
    entries: Vec<Arc<Entry>>,
    /// Has applied all of them, with values from here.
    reference: Machine,
}

#[derive(Debug)]
struct Entry {
    entry: Committed,
    outcome: Option<(RequestId, Outcome)>,
}

/// What a first application of a command brought.
#[derive(Debug)]
pub(crate) struct New {
    pub(crate) index: u64,
    pub(crate) id: RequestId,
    pub(crate) body: Body,
    pub(crate) is_ok: bool,
}

impl Ledger {
    pub(crate) fn new(first: impl IntoIterator<Item = Member>) -> Self {
        Self {
            model: Model::default(),
            entries: Vec::new(),
            reference: Machine::genesis(first),
        }
    }

    pub(crate) fn last_index(&self) -> u64 {
        FIRST - 1 + self.entries.len() as u64
    }

    /// The members as of the last entry.
    pub(crate) fn store(&self) -> &Store {
        self.reference.store()
    }

    fn entry(&self, index: u64) -> Option<&Arc<Entry>> {
        self.entries
            .get(usize::try_from(index.checked_sub(FIRST)?).ok()?)
    }

    /// A member has applied an entry. What is new in it; `asked_ms` says when a request was made.
    pub(crate) fn applied(
        &mut self,
        who: u64,
        entry: &Committed,
        outcome: Option<&Outcome>,
        now_ms: u64,
        asked_ms: impl FnOnce(&Command) -> u64,
    ) -> Option<New> {
        let index = entry.index;
        let known = self.entry(index).cloned();
        let (known, new) = match known {
            Some(known) => (known, None),
            None => self.append(entry, now_ms, asked_ms),
        };
        let of = |entry: &Committed| (entry.index, entry.term, entry.data.clone());
        assert_eq!(
            of(&known.entry),
            of(entry),
            "P1: member {who} applies another entry {index} than others did"
        );
        if let (Some(outcome), Some((_, expected))) = (outcome, &known.outcome) {
            assert_eq!(
                outcome, expected,
                "P3: entry {index} has another effect on member {who}"
            );
        }
        new
    }

    fn append(
        &mut self,
        entry: &Committed,
        now_ms: u64,
        asked_ms: impl FnOnce(&Command) -> u64,
    ) -> (Arc<Entry>, Option<New>) {
        let index = entry.index;
        assert_eq!(index, self.last_index() + 1, "P1: a gap in the log");
        let entry = Committed {
            place: EntryAt {
                segment: u32::try_from(index).expect("small"),
                offset: 0,
            },
            ..entry.clone()
        };
        self.entries.push(Arc::new(Entry {
            entry: entry.clone(),
            outcome: None,
        }));
        let batch = [entry.clone()];
        let applied = self.reference.apply(&batch, &Archive(&self.entries));
        let mut outcomes = applied.expect("a committed entry can be applied").outcomes;
        let outcome = outcomes.pop();
        let known = Arc::new(Entry {
            entry: entry.clone(),
            outcome: outcome.clone(),
        });
        self.entries.pop();
        self.entries.push(known.clone());
        let Some((id, outcome)) = outcome else {
            return (known, None);
        };
        let command = Command::decode(&entry.data).expect("a committed entry is a command");
        let moment = Moment {
            asked: asked_ms(&command),
            now: now_ms,
            skew: SKEW_MS,
        };
        let answer = self.model.apply(&command, moment);
        let (body, revision) = (command.body, self.model.revision);
        let is_ok = outcome.result.is_ok();
        if !matches!(body, Body::Member { .. }) {
            let body = body.clone();
            let verdict = Verdict {
                body,
                answer,
                revision,
            };
            verdict.check(&outcome);
        }
        (
            known,
            Some(New {
                index,
                id,
                body,
                is_ok,
            }),
        )
    }

    /// What a member that starts has on disk and knows to be committed.
    pub(crate) fn reopened(&self, who: u64, entries: &[(quorate_log::Entry, EntryAt)], to: u64) {
        for (entry, _) in entries.iter().filter(|(entry, _)| entry.index <= to) {
            let known = self.entry(entry.index);
            // Nobody may have applied it yet.
            let Some(known) = known else { continue };
            let of = (known.entry.term, &known.entry.data);
            let found = (entry.term, &entry.data);
            let index = entry.index;
            assert_eq!(found, of, "P1: entry {index} has changed on member {who}");
        }
    }

    /// Compares what a member shows: all, if it has applied everything.
    pub(crate) fn check_reads(&self, member: &SimMember, chance: &mut Chance) {
        let store = member.machine.store();
        if member.machine.applied().0 == self.last_index() {
            check_state(&self.model, store, &member.values, chance);
        } else if store.revision().get() > 0 && !store.members().is_empty() {
            let oldest = store.oldest().get().max(1);
            let span = store.revision().get() - oldest + 1;
            let past = oldest + chance.below(span);
            for revision in [past, store.revision().get()] {
                check_revision(&self.model, store, &member.values, revision);
            }
        }
    }

    /// G3, of a member that has applied everything.
    pub(crate) fn check_whole(&mut self, member: &mut SimMember) {
        let who = member.id;
        assert_eq!(member.machine.applied(), self.reference.applied());
        while self.reference.purge(usize::MAX) {}
        while member.machine.purge(usize::MAX) {}
        let (found, expected) = (&member.machine, &self.reference);
        assert_eq!(found.time(), expected.time(), "cluster time of {who}");
        let (found, expected) = (found.store(), expected.store());
        assert_eq!(found.live_bytes(), expected.live_bytes(), "live bytes");
        assert_eq!(
            placeless(found),
            placeless(expected),
            "S1: the state of member {who}"
        );
    }
}

/// Rows as if every value stood at the same place.
fn placeless(store: &Store) -> Vec<Bytes> {
    let rows = rows(store).into_iter().map(Bytes::from);
    let placeless = rows.map(|row| {
        let Some((key, mut versions)) = file_versions(&row).expect("a walk's own row") else {
            return row;
        };
        for version in &mut versions {
            if let Value::Logged(at) = &mut version.value {
                (at.segment, at.offset) = (0, 0);
            }
        }
        let versions: Vec<&FileVersion> = versions.iter().collect();
        let mut row = Vec::new();
        file_row(&key, &versions, &mut row);
        row.into()
    });
    placeless.collect()
}

/// The values of all entries there ever were.
struct Archive<'a>(&'a [Arc<Entry>]);

impl Values for Archive<'_> {
    fn read<'a>(&'a self, at: &ValueAt) -> Result<Cow<'a, [u8]>, ValueError> {
        let index = u64::from(at.segment) - FIRST;
        let entry = self.0.get(usize::try_from(index).expect("small"));
        let from = at.offset as usize;
        let value = entry.and_then(|entry| entry.entry.data.get(from..from + at.len as usize));
        value.map(Cow::Borrowed).ok_or(ValueError::Rotten(*at))
    }
}
