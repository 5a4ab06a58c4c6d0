//! Each violation, planted in a history that is otherwise good.

use super::super::history::{
    Answer, Call, Change, Event, Guard, History, Op, Outcome, Request, Shown, Txn, Version, Watch,
};
use super::super::model;
use super::{Kind, check};

const BASE: i64 = 10;
const SECOND: u64 = 1_000_000_000;

/// A store that does everything right, one call after the other, each taking 10 ns.
struct Maker {
    history: History,
    state: super::super::history::State,
    revision: i64,
    now: u64,
}

impl Maker {
    fn new() -> Self {
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
    fn call(&mut self, txn: Txn, is_local: bool) -> usize {
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

    fn change(&mut self, changes: &[model::Changed]) {
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

    fn note(&mut self, request: Request, outcome: Outcome) -> usize {
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

    fn put(&mut self, key: &str, value: &str) -> usize {
        self.call(put(key, value), false)
    }

    fn read(&mut self, is_local: bool) -> usize {
        self.call(range(None), is_local)
    }

    fn answer(&mut self, at: usize) -> &mut Answer {
        match &mut self.history.calls[at].outcome {
            Outcome::Ok(answer) => answer,
            other => panic!("{other:?}"),
        }
    }

    fn log_at(&mut self, revision: i64) -> Vec<&mut Event> {
        let logs = self
            .history
            .logs
            .iter_mut()
            .chain(&mut self.history.watches);
        logs.flat_map(|log| &mut log.events)
            .filter(|event| event.revision == revision)
            .collect()
    }

    fn forget(&mut self, revision: i64) {
        let history = &mut self.history;
        for log in history.logs.iter_mut().chain(&mut history.watches) {
            log.events.retain(|event| event.revision != revision);
        }
    }

    #[track_caller]
    fn finds(&self, kind: Kind) {
        let (found, _) = check(&self.history);
        let kinds: Vec<Kind> = found.iter().map(|violation| violation.kind).collect();
        assert!(kinds.contains(&kind), "{kind:?} is not in {found:?}");
    }

    #[track_caller]
    fn is_good(&self) {
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

fn put_op(key: &str, value: &str, lease: i64) -> Op {
    Op::Put {
        key: key.into(),
        value: value.into(),
        lease,
        fresh: false,
    }
}

fn put(key: &str, value: &str) -> Txn {
    only(put_op(key, value, 0))
}

fn only(op: Op) -> Txn {
    Txn {
        then: vec![op],
        ..Txn::default()
    }
}

fn range(at: Option<i64>) -> Txn {
    only(Op::Range {
        from: "a".into(),
        to: "z".into(),
        at,
    })
}

fn pair(before: &str) -> Txn {
    Txn {
        guards: vec![Guard::Value("k".into(), Some(before.into()))],
        then: vec![put_op("k", "k2", 0), put_op("l", "l2", 0)],
        otherwise: vec![Op::Delete { key: "m".into() }],
    }
}

/// A history with some of everything.
fn some() -> Maker {
    let mut maker = Maker::new();
    maker.put("k", "k1");
    maker.read(false);
    maker.call(pair("k1"), false);
    maker.call(pair("k1"), false);
    maker.call(range(Some(BASE + 1)), false);
    maker.call(only(Op::Delete { key: "l".into() }), false);
    maker.read(true);
    maker
}

#[test]
fn a_good_history_is_good() {
    some().is_good();
}

#[test]
fn an_answered_write_that_no_member_has_is_lost() {
    let mut maker = some();
    maker.put("k", "last");
    maker.forget(BASE + 4);
    maker.history.end_revision = BASE + 3;
    maker.finds(Kind::LostWrite);
}

#[test]
fn a_revision_without_an_event_is_a_hole() {
    let mut maker = some();
    maker.forget(BASE + 2);
    maker.finds(Kind::Hole);
}

#[test]
fn a_read_that_misses_an_earlier_answer_is_stale() {
    let mut maker = Maker::new();
    let old = maker.read(false);
    maker.put("k", "k1");
    let now = maker.now;
    let call = &mut maker.history.calls[old];
    (call.invoked, call.returned) = (now, now + 9);
    maker.finds(Kind::Stale);
}

#[test]
fn a_read_that_misses_what_a_watcher_was_told_is_stale() {
    let mut maker = Maker::new();
    let old = maker.read(false);
    let written = maker.put("k", "k1");
    let now = maker.now;
    maker.history.calls[written].returned = now + 1000;
    let call = &mut maker.history.calls[old];
    (call.invoked, call.returned) = (now, now + 9);
    maker.finds(Kind::Stale);
}

#[test]
fn a_write_at_a_revision_that_was_seen_before_it_began_is_stale() {
    let mut maker = Maker::new();
    let written = maker.put("k", "k1");
    maker.read(false);
    let now = maker.now;
    let call = &mut maker.history.calls[written];
    (call.invoked, call.returned) = (now, now + 9);
    maker.finds(Kind::Stale);
}

#[test]
fn a_local_read_may_be_old_but_not_older_than_the_last() {
    let mut maker = Maker::new();
    let old = maker.read(true);
    maker.put("k", "k1");
    maker.history.calls[1].member = 1;
    let now = maker.now;
    let call = &mut maker.history.calls[old];
    (call.invoked, call.returned) = (now, now + 9);
    maker.now += 10;
    maker.is_good();
    let new = maker.read(true);
    maker.history.calls.swap(old, new);
    let (first, second) = (now, now + 20);
    for (call, at) in [(old, first), (new, second)] {
        let call = &mut maker.history.calls[call];
        (call.invoked, call.returned) = (at, at + 9);
    }
    maker.finds(Kind::StepBack);
    // Another process of the same member has another memory.
    maker.history.calls[new].run = Some(1);
    maker.is_good();
}

#[test]
fn a_revision_is_given_once() {
    let mut maker = some();
    let written = maker.put("k", "k3");
    let mut twin = maker.history.calls[written].clone();
    twin.request = Request::Txn {
        txn: put("l", "other"),
        is_local: false,
    };
    maker.history.calls.push(twin);
    maker.finds(Kind::RevisionTwice);
}

#[test]
fn a_write_changes_what_it_asked_for() {
    let mut maker = some();
    for event in maker.log_at(BASE + 1) {
        event.key = "other".into();
    }
    maker.finds(Kind::WrongWrite);
}

#[test]
fn half_a_transaction_is_noticed() {
    let mut maker = some();
    let history = &mut maker.history;
    for log in history.logs.iter_mut().chain(&mut history.watches) {
        log.events
            .retain(|event| (event.revision, event.key.as_str()) != (BASE + 2, "l"));
    }
    maker.finds(Kind::WrongWrite);
}

#[test]
fn half_an_unanswered_transaction_is_noticed() {
    let mut maker = some();
    maker.history.calls[2].outcome = Outcome::Unknown("lost".into());
    maker.is_good();
    let history = &mut maker.history;
    for log in history.logs.iter_mut().chain(&mut history.watches) {
        log.events
            .retain(|event| (event.revision, event.key.as_str()) != (BASE + 2, "l"));
    }
    maker.finds(Kind::Unexplained);
}

#[test]
fn a_transaction_whose_guard_did_not_hold_is_noticed() {
    let mut maker = some();
    maker.answer(3).succeeded = true;
    maker.finds(Kind::RevisionTwice);
    let mut maker = some();
    if let Request::Txn { txn, .. } = &mut maker.history.calls[2].request {
        txn.guards = vec![Guard::Value("k".into(), Some("other".into()))];
    }
    maker.finds(Kind::WrongAnswer);
}

#[test]
fn what_a_write_says_was_there_before_was_there() {
    let mut maker = some();
    let written = maker.put("k", "k3");
    maker.answer(written).results[0] = Some(Vec::new());
    maker.finds(Kind::WrongAnswer);
}

#[test]
fn an_unanswered_write_may_be_there_once_or_not_at_all() {
    let mut maker = some();
    let unknown = maker.put("k", "k3");
    maker.history.calls[unknown].outcome = Outcome::Unknown("lost".into());
    maker.is_good();
    let request = Request::Txn {
        txn: put("k", "never"),
        is_local: false,
    };
    maker.note(request, Outcome::Unknown("lost".into()));
    maker.is_good();
    let held = maker.state["k"].clone();
    maker.change(&[(
        "k".into(),
        Some(Version {
            modified: maker.revision + 1,
            version: held.version + 1,
            ..held
        }),
    )]);
    maker.finds(Kind::Unexplained);
}

#[test]
fn an_unanswered_write_is_not_there_before_it_was_asked_for() {
    let mut maker = some();
    let unknown = maker.put("k", "k3");
    maker.read(false);
    let now = maker.now;
    let call = &mut maker.history.calls[unknown];
    (call.invoked, call.returned) = (now, now + 9);
    call.outcome = Outcome::Unknown("lost".into());
    maker.finds(Kind::Stale);
}

#[test]
fn an_unanswered_delete_may_be_there() {
    let mut maker = some();
    let unknown = maker.call(only(Op::Delete { key: "k".into() }), false);
    maker.history.calls[unknown].outcome = Outcome::Unknown("lost".into());
    maker.is_good();
    maker.history.calls.remove(unknown);
    maker.finds(Kind::Unexplained);
}

#[test]
fn what_was_refused_is_not_done() {
    let mut maker = some();
    let refused = maker.put("k", "k3");
    maker.history.calls[refused].outcome = Outcome::NotDone("no leader".into());
    maker.finds(Kind::DoneAllTheSame);
}

#[test]
fn a_read_shows_the_state_of_its_revision() {
    let mut maker = some();
    maker.answer(1).results[0] = Some(Vec::new());
    maker.finds(Kind::WrongAnswer);
    // A later state under an earlier revision.
    let mut maker = some();
    maker.answer(1).revision = BASE;
    maker.finds(Kind::WrongAnswer);
}

#[test]
fn a_read_of_the_past_shows_it_on_every_member() {
    let mut maker = some();
    let read = maker.call(range(Some(BASE + 1)), false);
    maker.answer(read).results = vec![Some(Vec::new())];
    maker.finds(Kind::WrongAnswer);
}

#[test]
fn members_tell_one_history() {
    let mut maker = some();
    let version = |change: &mut Change| match change {
        Change::Put(shown) => shown.value = "other".into(),
        Change::Delete => {}
    };
    version(&mut maker.history.logs[1].events[0].change);
    maker.finds(Kind::MembersDiffer);
    let mut maker = some();
    maker.history.logs[1].events.pop();
    maker.finds(Kind::MembersDiffer);
}

#[test]
fn a_watch_leaves_nothing_out() {
    let mut maker = some();
    maker.history.watches[0].events.remove(0);
    maker.finds(Kind::WatchGap);
    let mut maker = some();
    maker.history.watches[0].events.pop();
    maker.finds(Kind::WatchGap);
}

#[test]
fn a_watch_tells_nothing_twice_and_nothing_late() {
    let mut maker = some();
    let first = maker.history.watches[0].events[0].clone();
    maker.history.watches[0].events.insert(1, first);
    maker.finds(Kind::WatchAgain);
    let mut maker = some();
    maker.put("k", "k4");
    maker.history.watches[0].events.swap(3, 4);
    maker.finds(Kind::WatchGap);
}

#[test]
fn a_watch_tells_what_happened() {
    let mut maker = some();
    maker.history.watches[0].events[0].change = Change::Delete;
    maker.finds(Kind::WatchDiffers);
}

#[test]
fn a_revision_comes_in_one_message() {
    let mut maker = some();
    maker.history.watches[0].events[2].message = 99;
    maker.finds(Kind::WatchTorn);
    // v2 has a message for each event.
    maker.history.watches[0].is_whole = false;
    maker.is_good();
}

/// A lease of two seconds with one key, granted at once.
fn leased() -> Maker {
    let mut maker = Maker::new();
    let answer = Answer {
        revision: BASE,
        succeeded: true,
        results: Vec::new(),
    };
    maker.note(Request::Grant { lease: 7, ttl_s: 2 }, Outcome::Ok(answer));
    maker.call(only(put_op("k", "k1", 7)), false);
    maker
}

#[test]
fn a_lease_ends_in_its_time() {
    let mut maker = leased();
    maker.now = 2 * SECOND;
    maker.change(&[("k".into(), None)]);
    maker.is_good();
    let mut maker = leased();
    maker.now = SECOND;
    maker.change(&[("k".into(), None)]);
    maker.finds(Kind::EarlyEnd);
}

#[test]
fn a_lease_that_was_kept_alive_ends_later() {
    let mut maker = leased();
    maker.now = SECOND;
    maker.note(
        Request::KeepAlive { lease: 7, ttl_s: 2 },
        Outcome::Ok(Answer::default()),
    );
    maker.now = 2 * SECOND;
    maker.change(&[("k".into(), None)]);
    maker.finds(Kind::EarlyEnd);
}

#[test]
fn a_revoked_lease_takes_its_keys_along() {
    let mut maker = leased();
    maker.change(&[("k".into(), None)]);
    let answer = |revision| {
        Outcome::Ok(Answer {
            revision,
            succeeded: true,
            results: Vec::new(),
        })
    };
    let revoke = Request::Revoke { lease: 7 };
    maker.note(revoke.clone(), answer(BASE + 2));
    maker.is_good();
    let mut maker = leased();
    maker.note(revoke, answer(BASE + 1));
    maker.finds(Kind::WrongAnswer);
}
