//! What the writers know, and whether what a restarted server shows agrees with it.
//!
//! Every key has one writer, and a writer has one write under way at a time. So after a crash each
//! key holds what its writer was last told, or what it asked for and got no answer to.
//!
//! L1. An answered write is there, at the revision that was answered.
//! L2. Of a write that was not answered, all changes are there or none.
//! L3. A write's revision is above every revision that was answered before it was sent.
//! L4. Each revision since the last check was made by one known write, and both dialects' watches
//!     showed exactly its changes, once, in order.
//!
//! Pure: no clock, no I/O.

use std::collections::{BTreeMap, HashMap};
use std::fmt;

use anyhow::{Result, bail, ensure};

/// One key or directory as a write leaves it, or as an event or a read shows it.
#[derive(Clone, Eq, PartialEq)]
pub(crate) struct Change {
    pub(crate) key: String,
    /// `None` if it is gone; empty for a directory.
    pub(crate) value: Option<String>,
}

impl fmt::Debug for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.value {
            Some(value) => write!(f, "{} = {}", self.key, brief(value)),
            None => write!(f, "{} gone", self.key),
        }
    }
}

/// The start of a value, which tells it from all others, and its length.
fn brief(value: &str) -> String {
    let start: String = value.chars().take(32).collect();
    format!("{start:?} of {} bytes", value.len())
}

/// One request that changes something.
#[derive(Clone, Debug)]
pub(crate) struct Write {
    /// Keys as v3 shows them, in order.
    pub(crate) keys: Vec<Change>,
    /// The directory that it makes or removes by name.
    pub(crate) dir: Option<Change>,
    /// v2's events: the same as `keys` unless a directory tells for them.
    pub(crate) v2: Vec<Change>,
}

impl Write {
    /// A write of keys, which both dialects show alike.
    pub(crate) fn of_keys(keys: Vec<Change>) -> Self {
        Self {
            v2: keys.clone(),
            keys,
            dir: None,
        }
    }

    /// A write of a directory, which v3 does not show.
    pub(crate) fn of_dir(dir: Change) -> Self {
        Self {
            keys: Vec::new(),
            v2: vec![dir.clone()],
            dir: Some(dir),
        }
    }

    fn changes(&self) -> impl Iterator<Item = &Change> {
        self.keys.iter().chain(&self.dir)
    }
}

/// A key or directory that exists.
#[derive(Clone, Eq, PartialEq)]
pub(crate) struct Held {
    pub(crate) value: String,
    /// A key's modification revision, a directory's creation.
    pub(crate) revision: i64,
}

impl fmt::Debug for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {}", brief(&self.value), self.revision)
    }
}

/// All keys and directories of the test that exist at one revision.
pub(crate) type State = HashMap<String, Held>;

/// A watch's events by revision.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    events: BTreeMap<i64, Vec<Change>>,
}

impl Seen {
    /// Notes an event.
    ///
    /// # Errors
    /// If it is older than one that was seen before it.
    pub(crate) fn push(&mut self, revision: i64, change: Change) -> Result<()> {
        let last = self.last();
        ensure!(
            revision >= last,
            "a watch went back from {last} to {revision}: {change:?}"
        );
        self.events.entry(revision).or_default().push(change);
        Ok(())
    }

    /// The newest revision that has events; 0 without any.
    pub(crate) fn last(&self) -> i64 {
        self.events
            .last_key_value()
            .map_or(0, |(revision, _)| *revision)
    }

    /// The newest revision that has an event on a key like that; 0 without any.
    pub(crate) fn last_where(&self, wanted: impl Fn(&str) -> bool) -> i64 {
        let has = |changes: &[Change]| changes.iter().any(|change| wanted(&change.key));
        self.events
            .iter()
            .rev()
            .find(|(_, changes)| has(changes))
            .map_or(0, |(at, _)| *at)
    }

    /// How many writes of one revision were seen, deletes left out.
    pub(crate) fn puts_at(&self, revision: i64) -> usize {
        let changes = self.events.get(&revision);
        changes.map_or(0, |changes| {
            changes
                .iter()
                .filter(|change| change.value.is_some())
                .count()
        })
    }

    /// Forgets the events of one revision, to be told again from its first.
    pub(crate) fn forget(&mut self, revision: i64) {
        self.events.remove(&revision);
    }

    fn take(&mut self, revision: i64) -> Vec<Change> {
        self.events.remove(&revision).unwrap_or_default()
    }
}

/// The writers' knowledge.
#[derive(Debug)]
pub(crate) struct Ledger {
    state: State,
    answered: BTreeMap<i64, Write>,
    unanswered: Vec<Write>,
    highest: i64,
    checked: i64,
}

impl Ledger {
    /// Of a server without any of the test's keys, at a revision.
    pub(crate) fn new(revision: i64) -> Self {
        let (answered, unanswered) = (BTreeMap::new(), Vec::new());
        Self {
            state: State::new(),
            answered,
            unanswered,
            highest: revision,
            checked: revision,
        }
    }

    /// What a key holds, as its writer knows.
    pub(crate) fn get(&self, key: &str) -> Option<&Held> {
        self.state.get(key)
    }

    /// The highest revision that anybody was answered.
    pub(crate) fn highest(&self) -> i64 {
        self.highest
    }

    /// The revision up to which everything has been checked.
    pub(crate) fn checked(&self) -> i64 {
        self.checked
    }

    /// Notes an answer to a write that was sent when [`Ledger::highest`] was `before`.
    ///
    /// # Errors
    /// L3; or if another write was answered the same revision.
    pub(crate) fn answer(&mut self, write: Write, revision: i64, before: i64) -> Result<()> {
        ensure!(
            revision > before,
            "{write:?} got revision {revision}; {before} was given before"
        );
        apply(&mut self.state, &write, revision);
        self.highest = self.highest.max(revision);
        if let Some(other) = self.answered.insert(revision, write) {
            bail!("two writes at revision {revision}; one is {other:?}");
        }
        Ok(())
    }

    /// Notes a write that got no answer.
    pub(crate) fn lose(&mut self, write: Write) {
        self.unanswered.push(write);
    }

    /// Compares with what a restarted server holds at `revision`, and with what the watches that
    /// were resumed on it have shown up to there.
    ///
    /// # Errors
    /// Where L1, L2, L3 or L4 does not hold.
    pub(crate) fn check(
        &mut self,
        found: &State,
        revision: i64,
        v3: &mut Seen,
        v2: &mut Seen,
    ) -> Result<()> {
        ensure!(
            revision >= self.highest,
            "at revision {revision} after answering {}",
            self.highest
        );
        let mut happened = Vec::new();
        for write in std::mem::take(&mut self.unanswered) {
            if self.has_happened(&write, found)? {
                for change in write.changes() {
                    set(
                        &mut self.state,
                        change,
                        found.get(&change.key).map_or(0, |held| held.revision),
                    );
                }
                happened.push(write);
            }
        }
        self.same_state(found)?;
        for at in self.checked + 1..=revision {
            self.explain(at, v3.take(at), v2.take(at), &mut happened)?;
        }
        ensure!(happened.is_empty(), "no revision shows {happened:?}");
        self.answered.clear();
        self.checked = revision;
        self.highest = revision;
        Ok(())
    }

    /// Whether a write that was not answered was done all the same.
    fn has_happened(&self, write: &Write, found: &State) -> Result<bool> {
        let value = |state: &State, key| state.get(key).map(|held| held.value.clone());
        let (mut done, mut undone) = (0, 0);
        for change in write.changes() {
            let (before, after) = (value(&self.state, &change.key), value(found, &change.key));
            if before == change.value {
                continue;
            }
            if after == change.value {
                done += 1;
            } else {
                ensure!(
                    after == before,
                    "{} holds {:?} after {:?}, then {write:?}",
                    change.key,
                    found.get(&change.key),
                    self.state.get(&change.key)
                );
                undone += 1;
            }
        }
        ensure!(done == 0 || undone == 0, "half of it is there: {write:?}");
        Ok(done > 0)
    }

    fn same_state(&self, found: &State) -> Result<()> {
        for (key, held) in &self.state {
            ensure!(
                found.get(key) == Some(held),
                "{key} is {:?}, not {held:?}",
                found.get(key)
            );
        }
        for (key, held) in found {
            ensure!(
                self.state.contains_key(key),
                "{key} should be gone, but is {held:?}"
            );
        }
        Ok(())
    }

    /// Finds the write that made a revision, and compares it with the events.
    fn explain(
        &self,
        at: i64,
        v3: Vec<Change>,
        v2: Vec<Change>,
        happened: &mut Vec<Write>,
    ) -> Result<()> {
        if let Some(write) = self.answered.get(&at) {
            ensure!(
                write.keys == v3,
                "revision {at}: v3's watch shows {v3:?} of {write:?}"
            );
            ensure!(
                write.v2 == v2,
                "revision {at}: v2's watch shows {v2:?} of {write:?}"
            );
            return Ok(());
        }
        match happened
            .iter()
            .position(|write| write.keys == v3 && write.v2 == v2)
        {
            Some(place) => happened.swap_remove(place),
            None => bail!("revision {at} is nobody's: v3's watch shows {v3:?}, v2's {v2:?}"),
        };
        Ok(())
    }
}

fn apply(state: &mut State, write: &Write, revision: i64) {
    for change in write.changes() {
        set(state, change, revision);
    }
}

fn set(state: &mut State, change: &Change, revision: i64) {
    match &change.value {
        Some(value) => state.insert(
            change.key.clone(),
            Held {
                value: value.clone(),
                revision,
            },
        ),
        None => state.remove(&change.key),
    };
}

#[cfg(test)]
mod tests {
    use super::{Change, Held, Ledger, Seen, State, Write};

    fn change(key: &str, value: &str) -> Change {
        Change {
            key: key.into(),
            value: (!value.is_empty()).then(|| value.to_owned()),
        }
    }

    fn write(changes: &[(&str, &str)]) -> Write {
        Write::of_keys(
            changes
                .iter()
                .map(|(key, value)| change(key, value))
                .collect(),
        )
    }

    fn state(rows: &[(&str, &str, i64)]) -> State {
        let held = |value: &str, revision| Held {
            value: value.into(),
            revision,
        };
        rows.iter()
            .map(|(key, value, at)| ((*key).to_owned(), held(value, *at)))
            .collect()
    }

    fn seen(rows: &[(i64, &str, &str)]) -> Seen {
        let mut seen = Seen::default();
        rows.iter()
            .for_each(|(at, key, value)| seen.push(*at, change(key, value)).unwrap());
        seen
    }

    /// A ledger with a = 1 answered at 2, and b and c = 2 asked for in vain.
    fn ledger() -> Ledger {
        let mut ledger = Ledger::new(1);
        ledger.answer(write(&[("a", "1")]), 2, 1).unwrap();
        ledger.lose(write(&[("b", "2"), ("c", "2")]));
        ledger
    }

    fn check(found: &State, revision: i64, events: &[(i64, &str, &str)]) -> Result<(), String> {
        let result = ledger().check(found, revision, &mut seen(events), &mut seen(events));
        result.map_err(|error| error.to_string())
    }

    #[test]
    fn an_unanswered_write_may_be_there_or_not() {
        check(&state(&[("a", "1", 2)]), 2, &[(2, "a", "1")]).unwrap();
        let found = state(&[("a", "1", 2), ("b", "2", 3), ("c", "2", 3)]);
        check(&found, 3, &[(2, "a", "1"), (3, "b", "2"), (3, "c", "2")]).unwrap();
    }

    #[test]
    fn a_lost_write_is_found() {
        assert!(
            check(&State::new(), 2, &[(2, "a", "1")])
                .unwrap_err()
                .contains("a is None")
        );
        assert!(
            check(&State::new(), 1, &[])
                .unwrap_err()
                .contains("after answering 2")
        );
    }

    #[test]
    fn half_a_txn_is_found() {
        let found = state(&[("a", "1", 2), ("b", "2", 3)]);
        let error = check(&found, 3, &[(2, "a", "1"), (3, "b", "2")]).unwrap_err();
        assert!(error.contains("half"), "{error}");
    }

    #[test]
    fn a_write_that_moved_is_found() {
        let error = check(&state(&[("a", "1", 3)]), 3, &[(3, "a", "1")]).unwrap_err();
        assert!(error.contains("a is Some"), "{error}");
    }

    #[test]
    fn events_that_are_missing_or_foreign_are_found() {
        let found = state(&[("a", "1", 2)]);
        assert!(
            check(&found, 2, &[])
                .unwrap_err()
                .contains("v3's watch shows []")
        );
        let error = check(&found, 3, &[(2, "a", "1")]).unwrap_err();
        assert!(error.contains("revision 3 is nobody's"), "{error}");
    }

    #[test]
    fn revisions_and_watches_never_step_back() {
        assert!(ledger().answer(write(&[("d", "1")]), 2, 2).is_err());
        assert!(ledger().answer(write(&[("d", "1")]), 2, 1).is_err());
        assert!(seen(&[(5, "a", "1")]).push(4, change("a", "2")).is_err());
    }
}
