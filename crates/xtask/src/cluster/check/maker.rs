//! Histories for the checker's tests: made by a store that does everything right, to be spoilt.

use super::super::history::{
    Answer, Call, Change, Event, Guard, History, Op, Outcome, Request, Shown, State, Txn, Version,
    Watch,
};
use super::super::model;
use super::{Kind, check};

pub(super) const BASE: i64 = 10;

/// A store that does everything right, one call after the other, each taking 10 ns.
pub(super) struct Maker {
    pub(super) history: History,
    pub(super) state: State,
    pub(super) revision: i64,
    pub(super) now: u64,
}

impl Maker {
    pub(super) fn new() -> Self {
        let history = History {
            base_revision: BASE,
            logs: vec![log("log of 0"), log("log of 1")],
            watches: vec![log("watch")],
            ..History::default()
        };
        let state = Default::default();
        Self {
            history,
            state,
            revision: BASE,
            now: 0,
        }
    }

    /// Carries out a transaction and notes its call; `at` is the call's position.
    pub(super) fn call(&mut self, txn: Txn, is_local: bool) -> usize {
        let evaluation = model::evaluate(&self.state, self.revision + 1, &txn);
        self.change(&evaluation.changes);
        let results = evaluation.results.into_iter().map(|result| {
            let show = |(key, held): (String, Version)| (key, shown(&held));
            result.map(|held| held.into_iter().map(show).collect())
        });
        let answer = Answer {
            revision: self.revision,
            succeeded: evaluation.succeeded,
            results: results.collect(),
        };
        self.note(Request::Txn { txn, is_local }, Outcome::Ok(answer))
    }

    pub(super) fn change(&mut self, changes: &[model::Changed]) {
        if changes.is_empty() {
            return;
        }
        self.revision += 1;
        for (key, held) in changes {
            let event = Event {
                at: self.now + 9,
                message: self.revision as u64,
                revision: self.revision,
                key: key.clone(),
                change: held
                    .as_ref()
                    .map_or(Change::Delete, |held| Change::Put(shown(held))),
            };
            let history = &mut self.history;
            for watch in history.logs.iter_mut().chain(&mut history.watches) {
                watch.events.push(event.clone());
            }
        }
        model::apply(&mut self.state, changes);
        self.history.end_revision = self.revision;
    }

    pub(super) fn note(&mut self, request: Request, outcome: Outcome) -> usize {
        self.now += 10;
        self.history.calls.push(Call {
            client: "c".into(),
            member: 0,
            run: Some(0),
            invoked: self.now - 10,
            returned: self.now - 1,
            request,
            outcome,
        });
        self.history.calls.len() - 1
    }

    pub(super) fn put(&mut self, key: &str, value: &str) -> usize {
        self.call(put(key, value), false)
    }

    pub(super) fn read(&mut self, is_local: bool) -> usize {
        self.call(range(None), is_local)
    }

    pub(super) fn answer(&mut self, at: usize) -> &mut Answer {
        match &mut self.history.calls[at].outcome {
            Outcome::Ok(answer) => answer,
            other => panic!("{other:?}"),
        }
    }

    pub(super) fn log_at(&mut self, revision: i64) -> Vec<&mut Event> {
        let logs = self
            .history
            .logs
            .iter_mut()
            .chain(&mut self.history.watches);
        logs.flat_map(|log| &mut log.events)
            .filter(|event| event.revision == revision)
            .collect()
    }

    pub(super) fn forget(&mut self, revision: i64) {
        let history = &mut self.history;
        for log in history.logs.iter_mut().chain(&mut history.watches) {
            log.events.retain(|event| event.revision != revision);
        }
    }

    #[track_caller]
    pub(super) fn finds(&self, kind: Kind) {
        let (found, _) = check(&self.history);
        let kinds: Vec<Kind> = found.iter().map(|violation| violation.kind).collect();
        assert!(kinds.contains(&kind), "{kind:?} is not in {found:?}");
    }

    #[track_caller]
    pub(super) fn is_good(&self) {
        let (found, _) = check(&self.history);
        assert!(found.is_empty(), "{found:?}");
    }
}

fn log(name: &str) -> Watch {
    Watch {
        name: name.into(),
        from: BASE + 1,
        events: Vec::new(),
        is_whole: true,
    }
}

fn shown(held: &Version) -> Shown {
    Shown {
        value: held.value.clone(),
        created: held.created,
        modified: held.modified,
        version: Some(held.version),
        lease: Some(held.lease),
    }
}

pub(super) fn put_op(key: &str, value: &str, lease: i64) -> Op {
    Op::Put {
        key: key.into(),
        value: value.into(),
        lease,
        fresh: false,
    }
}

pub(super) fn put(key: &str, value: &str) -> Txn {
    only(put_op(key, value, 0))
}

pub(super) fn only(op: Op) -> Txn {
    Txn {
        then: vec![op],
        ..Txn::default()
    }
}

pub(super) fn range(at: Option<i64>) -> Txn {
    only(Op::Range {
        from: "a".into(),
        to: "z".into(),
        at,
    })
}

pub(super) fn pair(before: &str) -> Txn {
    Txn {
        guards: vec![Guard::Value("k".into(), Some(before.into()))],
        then: vec![put_op("k", "k2", 0), put_op("l", "l2", 0)],
        otherwise: vec![Op::Delete { key: "m".into() }],
    }
}
