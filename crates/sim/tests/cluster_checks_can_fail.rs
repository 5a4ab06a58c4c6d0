//! A guard of a replica, or of whoever wires it, is taken away: the checks must notice.

use std::panic::{AssertUnwindSafe, catch_unwind};

use quorate_replica::Planted;
use quorate_sim::{ClusterPlan, Fault, Trace, cluster, rolled_back};

/// How many seeds a guard's absence may hide from.
const SEEDS: u64 = 300;

/// Runs seeds until one says that `promise` is broken.
#[track_caller]
fn assert_noticed(plan: fn(u64) -> ClusterPlan, fault: Fault, promise: &str) {
    let mut said = Vec::new();
    for seed in 0..SEEDS {
        let run = || drop(cluster(plan(seed).with(fault), Trace::Silent));
        let Err(panic) = catch_unwind(AssertUnwindSafe(run)) else {
            continue;
        };
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string));
        let text = text.unwrap_or_default();
        if text.contains(promise) {
            return;
        }
        said.push(text);
    }
    panic!("{promise} is not noticed: {said:?}");
}

#[test]
fn messages_before_their_ready_is_durable() {
    let fault = Fault::Replica(Planted::SendsEarly);
    assert_noticed(ClusterPlan::draw, fault, "P1");
}

#[test]
fn a_read_before_the_leader_has_committed_in_its_term() {
    let fault = Fault::Replica(Planted::ReadsBeforeCommit);
    assert_noticed(ClusterPlan::draw, fault, "P2");
}

#[test]
fn a_read_by_a_leader_that_is_not_confirmed() {
    let fault = Fault::Replica(Planted::ReadsUnconfirmed);
    assert_noticed(ClusterPlan::draw, fault, "P2");
}

#[test]
fn a_command_that_was_meant_for_the_leader_of_another_term() {
    let fault = Fault::Replica(Planted::TakesOldForwards);
    assert_noticed(ClusterPlan::draw, fault, "Q1");
}

#[test]
fn two_changes_of_the_members_in_flight() {
    let fault = Fault::Replica(Planted::ChangesTogether);
    assert_noticed(ClusterPlan::restless, fault, "does not come to");
}

#[test]
fn an_end_of_a_lease_that_the_leader_before_still_renewed() {
    let fault = Fault::Replica(Planted::EndsAtOnce);
    assert_noticed(ClusterPlan::hunted, fault, "P5");
}

#[test]
fn a_disk_from_before_what_its_member_acknowledged() {
    // Only if the leader still knows what was acknowledged to it is there something to notice.
    let noticed = (0..20).any(|seed| {
        let run = || rolled_back(ClusterPlan::draw(seed));
        let Err(panic) = catch_unwind(AssertUnwindSafe(run)) else {
            return false;
        };
        let text = panic.downcast_ref::<String>().expect("it says why");
        assert!(text.contains("its data directory is older"), "{text}");
        true
    });
    assert!(noticed, "no member of 20 stops");
}

#[test]
fn a_state_without_its_place_in_the_log() {
    assert_noticed(ClusterPlan::draw, Fault::InstallsInPlace, "entry");
}
