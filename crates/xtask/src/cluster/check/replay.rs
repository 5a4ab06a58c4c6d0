//! The log replayed beside the calls (C2, C3, C6).
//!
//! At each revision: whose write is it, does it change what that call asked for, and do the calls that
//! only read at it show the state it left? An unanswered write is known by its values, which no other
//! write has. An unanswered delete has none: the earliest that fits is taken, since it binds least.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::super::history::{
    Answer, Call, Change, Event, History, Nanos, Op, Outcome, Request, Shown, State, Txn, Version,
};
use super::super::model::{self, Changed};
use super::{Findings, Kind, Log};

/// Which calls made revisions.
#[derive(Default)]
pub(super) struct Replayed {
    /// Positions of calls in the history.
    pub(super) writers: HashSet<usize>,
    /// Unanswered calls that were carried out, and their revisions.
    pub(super) unknown_done: HashMap<usize, i64>,
}

/// Replays the log, and compares every answer with it.
pub(super) fn replay(history: &History, log: &Log<'_>, findings: &mut Findings) -> Replayed {
    let index = Index::new(history, log);
    let mut replay = Replay {
        history,
        index: &index,
        state: history.base.clone(),
        done: Replayed::default(),
        findings,
    };
    let last = index.answered.keys().next_back().copied().unwrap_or(0);
    replay.answers_at(history.base_revision);
    for revision in history.base_revision + 1..=last.max(history.end_revision) {
        let events = log.get(&revision).map_or(&[][..], Vec::as_slice);
        replay.write_at(revision, events);
        replay.answers_at(revision);
    }
    replay.done
}

/// The calls, by what they are looked for.
struct Index<'a> {
    /// By the revision of the answer.
    answered: BTreeMap<i64, Vec<usize>>,
    /// Reads at a revision: call and operation.
    past: HashMap<i64, Vec<(usize, usize)>>,
    /// Puts by their values.
    values: HashMap<&'a str, Vec<usize>>,
    /// Unanswered calls that delete nothing but one key.
    deletes: HashMap<&'a str, Vec<usize>>,
    /// The moment until which each lease was promised.
    leases: HashMap<i64, Nanos>,
    /// Leases that somebody asked to end.
    revoked: HashSet<i64>,
    /// The first moment at which a revision, or a later one, had been seen.
    seen: BTreeMap<i64, Nanos>,
}

impl<'a> Index<'a> {
    fn new(history: &'a History, log: &Log<'_>) -> Self {
        let mut index = Self {
            answered: BTreeMap::new(),
            past: HashMap::new(),
            values: HashMap::new(),
            deletes: HashMap::new(),
            leases: HashMap::new(),
            revoked: HashSet::new(),
            seen: BTreeMap::new(),
        };
        for (at, call) in history.calls.iter().enumerate() {
            index.add(at, call);
        }
        for event in history.watches.iter().flat_map(|watch| &watch.events) {
            index.note_seen(event.revision, event.at);
        }
        let mut first = Nanos::MAX;
        for revision in log.keys().rev().chain([&history.base_revision]) {
            let seen = index.seen.entry(*revision).or_insert(Nanos::MAX);
            first = first.min(*seen);
            *seen = first;
        }
        index
    }

    fn note_seen(&mut self, revision: i64, at: Nanos) {
        let seen = self.seen.entry(revision).or_insert(Nanos::MAX);
        *seen = at.min(*seen);
    }

    fn add(&mut self, at: usize, call: &'a Call) {
        let answer = call.answer();
        let keep_alive = matches!(call.request, Request::KeepAlive { .. });
        if let Some(answer) = answer.filter(|_| !keep_alive) {
            self.answered.entry(answer.revision).or_default().push(at);
            self.note_seen(answer.revision, call.returned);
        }
        match &call.request {
            Request::Txn { txn, .. } => self.add_txn(at, call, txn),
            Request::Revoke { lease } => {
                self.revoked.insert(*lease);
            }
            Request::Grant { lease, ttl_s } | Request::KeepAlive { lease, ttl_s } => {
                if answer.is_some() {
                    let until = call.invoked + ttl_s * 1_000_000_000;
                    let promised = self.leases.entry(*lease).or_default();
                    *promised = until.max(*promised);
                }
            }
        }
    }

    fn add_txn(&mut self, at: usize, call: &'a Call, txn: &'a Txn) {
        for op in txn.then.iter().chain(&txn.otherwise) {
            if let Op::Put { value, .. } = op {
                self.values.entry(value).or_default().push(at);
            }
        }
        if let (Outcome::Unknown(_), [Op::Delete { key }]) = (&call.outcome, &txn.then[..]) {
            self.deletes.entry(key).or_default().push(at);
        }
        let Some(answer) = call.answer() else { return };
        for (op_at, op) in branch(txn, answer).iter().enumerate() {
            if let Op::Range {
                at: Some(revision), ..
            } = op
            {
                self.past.entry(*revision).or_default().push((at, op_at));
            }
        }
    }
}

fn branch<'a>(txn: &'a Txn, answer: &Answer) -> &'a [Op] {
    if answer.succeeded {
        &txn.then
    } else {
        &txn.otherwise
    }
}

/// Whether a call's own answer says that it changed something.
fn says_it_wrote(call: &Call) -> bool {
    let (Request::Txn { txn, .. }, Some(answer)) = (&call.request, call.answer()) else {
        return false;
    };
    let wrote = |(at, op): (usize, &Op)| match op {
        Op::Put { .. } => true,
        Op::Delete { .. } => answer
            .results
            .get(at)
            .and_then(Option::as_ref)
            .is_none_or(|before| !before.is_empty()),
        Op::Range { .. } => false,
    };
    branch(txn, answer).iter().enumerate().any(wrote)
}

struct Replay<'a, 'f> {
    history: &'a History,
    index: &'a Index<'a>,
    /// At the revision that has just been replayed.
    state: State,
    done: Replayed,
    findings: &'f mut Findings,
}

impl Replay<'_, '_> {
    /// Finds the write that made a revision and carries it out.
    fn write_at(&mut self, revision: i64, events: &[&Event]) {
        let writers: Vec<usize> = self
            .answered_at(revision)
            .filter(|at| says_it_wrote(&self.history.calls[*at]))
            .collect();
        self.done.writers.extend(&writers);
        if events.is_empty() {
            for at in writers {
                let text = format!("not in the log: {}", self.history.calls[at]);
                self.findings.push(Kind::LostWrite, text);
            }
            return;
        }
        if let [first, second, ..] = writers[..] {
            let (first, second) = (&self.history.calls[first], &self.history.calls[second]);
            let text = format!("revision {revision}:\n    {first}\n    {second}");
            self.findings.push(Kind::RevisionTwice, text);
        }
        let changes = match writers.first() {
            Some(at) => self.answered_write(*at, revision, events),
            None => self.unanswered_write(revision, events),
        };
        model::apply(&mut self.state, &changes);
    }

    fn answered_at(&self, revision: i64) -> impl Iterator<Item = usize> + use<'_> {
        let calls = self.index.answered.get(&revision);
        calls.into_iter().flatten().copied()
    }

    fn answered_write(&mut self, at: usize, revision: i64, events: &[&Event]) -> Vec<Changed> {
        let call = &self.history.calls[at];
        let changes = changes_of(call, &self.state, revision);
        self.compare_answer(call, revision);
        if are(events, &changes) {
            return changes;
        }
        let text = format!("revision {revision} is {events:?}\n    asked for by {call}");
        self.findings.push(Kind::WrongWrite, text);
        as_told(events)
    }

    /// Changes that nobody was answered: a lease's end, or a call whose outcome is unknown.
    fn unanswered_write(&mut self, revision: i64, events: &[&Event]) -> Vec<Changed> {
        let revoke = self.answered_at(revision).find(|at| {
            let call = &self.history.calls[*at];
            matches!(call.request, Request::Revoke { .. })
                && are(events, &changes_of(call, &self.state, revision))
        });
        if let Some(at) = revoke {
            self.done.writers.insert(at);
            return as_told(events);
        }
        let lease = self.lease_of(events);
        if lease.is_some_and(|lease| self.may_have_ended(lease, revision)) {
            return as_told(events);
        }
        if let Some((at, changes)) = self.unknown(revision, events) {
            self.done.writers.insert(at);
            self.done.unknown_done.insert(at, revision);
            return changes;
        }
        let (kind, text) = self.blame(lease, revision, events);
        self.findings.push(kind, text);
        as_told(events)
    }

    /// The lease whose end would be these events.
    fn lease_of(&self, events: &[&Event]) -> Option<i64> {
        let lease = self.state.get(&events.first()?.key)?.lease;
        let is_end = lease != 0 && are(events, &model::end_of_lease(&self.state, lease));
        is_end.then_some(lease)
    }

    fn may_have_ended(&self, lease: i64, revision: i64) -> bool {
        let seen = self.index.seen.get(&revision).copied();
        let promised = self.index.leases.get(&lease).copied().unwrap_or(0);
        self.index.revoked.contains(&lease) || seen.unwrap_or(Nanos::MAX) >= promised
    }

    /// The unanswered call that would make these changes, and that has not made others.
    fn unknown(&self, revision: i64, events: &[&Event]) -> Option<(usize, Vec<Changed>)> {
        let candidates = events.iter().find_map(|event| match &event.change {
            Change::Put(shown) => self.index.values.get(shown.value.as_str()),
            Change::Delete => None,
        });
        let candidates =
            candidates.or_else(|| self.index.deletes.get(events.first()?.key.as_str()))?;
        let unused = candidates.iter().filter(|at| {
            matches!(self.history.calls[**at].outcome, Outcome::Unknown(_))
                && !self.done.unknown_done.contains_key(at)
        });
        let fitting = unused.filter_map(|at| {
            let changes = changes_of(&self.history.calls[*at], &self.state, revision);
            are(events, &changes).then_some((*at, changes))
        });
        fitting.min_by_key(|(at, _)| self.history.calls[*at].invoked)
    }

    /// What is wrong with a revision that nobody can have made.
    fn blame(&self, lease: Option<i64>, revision: i64, events: &[&Event]) -> (Kind, String) {
        let what = format!("revision {revision}: {events:?}");
        if let Some(lease) = lease {
            return (
                Kind::EarlyEnd,
                format!("lease {lease} ended early at {what}"),
            );
        }
        let owner = events.iter().find_map(|event| match &event.change {
            Change::Put(shown) => self.index.values.get(shown.value.as_str())?.first(),
            Change::Delete => None,
        });
        match owner.map(|at| &self.history.calls[*at]) {
            Some(call) if matches!(call.outcome, Outcome::NotDone(_)) => {
                (Kind::DoneAllTheSame, format!("{what}\n    {call}"))
            }
            Some(call) => (Kind::Unexplained, format!("{what}\n    a value of {call}")),
            None => (Kind::Unexplained, what),
        }
    }

    /// Compares what was answered at a revision, without changing anything, with the state.
    fn answers_at(&mut self, revision: i64) {
        let reads: Vec<usize> = self
            .answered_at(revision)
            .filter(|at| !self.done.writers.contains(at))
            .collect();
        for at in reads {
            self.compare_answer(&self.history.calls[at], revision);
        }
        for (at, op_at) in self.index.past.get(&revision).into_iter().flatten() {
            let call = &self.history.calls[*at];
            let (Request::Txn { txn, .. }, Some(answer)) = (&call.request, call.answer()) else {
                continue;
            };
            let Op::Range { from, to, .. } = &branch(txn, answer)[*op_at] else {
                continue;
            };
            let wanted = model::range(&self.state, from, to);
            let shown = answer.results.get(*op_at).and_then(Option::as_ref);
            if shown.is_some_and(|shown| !are_shown(shown, &wanted)) {
                let text = format!("at {revision} there is {wanted:?}\n    told {call}");
                self.findings.push(Kind::WrongAnswer, text);
            }
        }
    }

    /// Compares an answer with what the request answers on the state.
    fn compare_answer(&mut self, call: &Call, revision: i64) {
        let Some(answer) = call.answer() else { return };
        let wrong = match &call.request {
            Request::Grant { .. } | Request::KeepAlive { .. } => None,
            Request::Revoke { lease } => {
                let left = model::end_of_lease(&self.state, *lease);
                (!left.is_empty()).then(|| format!("{left:?} are left"))
            }
            Request::Txn { txn, .. } => {
                let wanted = model::evaluate(&self.state, revision, txn);
                let pairs = wanted.results.iter().zip(&answer.results);
                let differs = pairs.clone().any(|pair| match pair {
                    (Some(wanted), Some(shown)) => !are_shown(shown, wanted),
                    _ => false,
                });
                let is_wrong = wanted.succeeded != answer.succeeded || differs;
                is_wrong.then(|| format!("{:?} {:?}", wanted.succeeded, wanted.results))
            }
        };
        if let Some(wanted) = wrong {
            let text = format!("wanted at revision {revision}: {wanted}\n    told {call}");
            self.findings.push(Kind::WrongAnswer, text);
        }
    }
}

fn changes_of(call: &Call, state: &State, revision: i64) -> Vec<Changed> {
    match &call.request {
        Request::Txn { txn, .. } => model::evaluate(state, revision, txn).changes,
        Request::Revoke { lease } => model::end_of_lease(state, *lease),
        Request::Grant { .. } | Request::KeepAlive { .. } => Vec::new(),
    }
}

fn are_shown(shown: &[(String, Shown)], wanted: &[(String, Version)]) -> bool {
    let same = |((a, shown), (b, wanted)): (&(String, Shown), &(String, Version))| {
        a == b && shown.is(wanted)
    };
    shown.len() == wanted.len() && shown.iter().zip(wanted).all(same)
}

/// Whether events are these changes, in this order.
fn are(events: &[&Event], changes: &[Changed]) -> bool {
    let same = |(event, (key, held)): (&&Event, &Changed)| {
        event.key == *key
            && match (&event.change, held) {
                (Change::Put(shown), Some(held)) => shown.is(held),
                (Change::Delete, None) => true,
                _ => false,
            }
    };
    events.len() == changes.len() && events.iter().zip(changes).all(same)
}

/// The changes as the log tells them.
fn as_told(events: &[&Event]) -> Vec<Changed> {
    let held = |shown: &Shown| Version {
        value: shown.value.clone(),
        created: shown.created,
        modified: shown.modified,
        version: shown.version.unwrap_or(1),
        lease: shown.lease.unwrap_or(0),
    };
    let changed = |event: &&Event| {
        let held = match &event.change {
            Change::Put(shown) => Some(held(shown)),
            Change::Delete => None,
        };
        (event.key.clone(), held)
    };
    events.iter().map(changed).collect()
}

/// Whether a change as one dialect shows it is that which the log has.
pub(super) fn shows(got: &Change, log: &Change) -> bool {
    match (got, log) {
        (Change::Delete, Change::Delete) => true,
        (Change::Put(got), Change::Put(log)) => {
            got.value == log.value
                && got.created == log.created
                && got.modified == log.modified
                && (got.version.is_none() || got.version == log.version)
                && (got.lease.is_none() || got.lease == log.lease)
        }
        _ => false,
    }
}
