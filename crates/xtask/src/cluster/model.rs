//! What a store that does everything right would hold and answer.
//!
//! Pure. A revision is that of the one write that made it; [`evaluate`] says what a request would
//! answer and change if it were carried out on a state as the next revision.
//!
//! Source: spec/v3-api.md (KV), spec/v2-api.md, spec/one-store.md §2.

use super::history::{Guard, Op, State, Txn, Version};

/// A change of one key; `None` if it is deleted.
pub(crate) type Changed = (String, Option<Version>);

/// What a transaction answers and does.
#[derive(Debug, Default)]
pub(crate) struct Evaluation {
    pub(crate) succeeded: bool,
    /// Of each operation: what it shows. `None` for a read at another revision.
    pub(crate) results: Vec<Option<Vec<(String, Version)>>>,
    /// In the order in which a watch tells them.
    pub(crate) changes: Vec<Changed>,
}

/// Carries out a transaction on a state, as revision `revision` if it writes.
pub(crate) fn evaluate(state: &State, revision: i64, txn: &Txn) -> Evaluation {
    let succeeded = txn.guards.iter().all(|guard| holds(state, guard));
    let branch = if succeeded { &txn.then } else { &txn.otherwise };
    let mut evaluation = Evaluation {
        succeeded,
        ..Evaluation::default()
    };
    let mut overlay = Overlay {
        state,
        changes: Vec::new(),
    };
    for op in branch {
        let result = overlay.perform(op, revision);
        evaluation.results.push(result);
    }
    evaluation.changes = overlay.changes;
    evaluation
}

fn holds(state: &State, guard: &Guard) -> bool {
    match guard {
        Guard::Value(key, value) => state.get(key).map(|held| &held.value) == value.as_ref(),
        Guard::Exists(key) => state.contains_key(key),
        Guard::Modified(key, revision) => {
            state.get(key).map_or(0, |held| held.modified) == *revision
        }
    }
}

/// A state and what a transaction has changed of it so far.
struct Overlay<'a> {
    state: &'a State,
    changes: Vec<Changed>,
}

impl Overlay<'_> {
    fn get(&self, key: &str) -> Option<&Version> {
        let change = self.changes.iter().rev().find(|(at, _)| at == key);
        change.map_or_else(|| self.state.get(key), |(_, held)| held.as_ref())
    }

    fn perform(&mut self, op: &Op, revision: i64) -> Option<Vec<(String, Version)>> {
        match op {
            Op::Put {
                key,
                value,
                lease,
                fresh,
            } => {
                let before = self.get(key).cloned();
                let life = before.as_ref().filter(|_| !fresh);
                let version = Version {
                    value: value.clone(),
                    created: life.map_or(revision, |held| held.created),
                    modified: revision,
                    version: life.map_or(1, |held| held.version + 1),
                    lease: *lease,
                };
                self.changes.push((key.clone(), Some(version)));
                Some(before.map(|held| (key.clone(), held)).into_iter().collect())
            }
            Op::Delete { key } => {
                let before = self.get(key).cloned();
                if before.is_some() {
                    self.changes.push((key.clone(), None));
                }
                Some(before.map(|held| (key.clone(), held)).into_iter().collect())
            }
            Op::Range { at: Some(_), .. } => None,
            Op::Range { from, to, at: None } => {
                let mut state = self.state.clone();
                apply(&mut state, &self.changes);
                Some(range(&state, from, to))
            }
        }
    }
}

/// The keys in `[from, to)`, in order.
pub(crate) fn range(state: &State, from: &str, to: &str) -> Vec<(String, Version)> {
    let held = state.range::<str, _>((
        std::ops::Bound::Included(from),
        std::ops::Bound::Excluded(to),
    ));
    held.map(|(key, held)| (key.clone(), held.clone()))
        .collect()
}

/// What the end of a lease changes: its keys go, in order.
pub(crate) fn end_of_lease(state: &State, lease: i64) -> Vec<Changed> {
    let hangs = |held: &&Version| held.lease == lease;
    let keys = state.iter().filter(|(_, held)| hangs(held));
    keys.map(|(key, _)| (key.clone(), None)).collect()
}

/// Makes changes to a state.
pub(crate) fn apply(state: &mut State, changes: &[Changed]) {
    for (key, held) in changes {
        match held {
            Some(held) => state.insert(key.clone(), held.clone()),
            None => state.remove(key),
        };
    }
}
