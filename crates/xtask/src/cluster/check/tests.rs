//! Each violation, planted in a history that is otherwise good.

use super::super::history::{Answer, Change, Guard, Op, Outcome, Request, Version};
use super::Kind;
use super::maker::{BASE, Maker, only, pair, put, put_op, range};

const SECOND: u64 = 1_000_000_000;

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
