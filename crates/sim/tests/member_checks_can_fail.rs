//! Something is broken on purpose: the checks must say so, and say which promise.

use std::panic::{AssertUnwindSafe, catch_unwind};

use quorate_sim::{Fault, Plan, Trace, swarm};

/// What the checks say of some seeds, where they notice.
fn noticed(fault: Fault) -> Vec<String> {
    let run = |seed| {
        let run = || swarm(Plan::draw(seed).with(fault), Trace::Silent);
        let panic = catch_unwind(AssertUnwindSafe(run)).err()?;
        let text = panic.downcast_ref::<String>().cloned();
        text.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string))
    };
    (0..12).filter_map(run).collect()
}

#[track_caller]
fn assert_noticed(fault: Fault, promise: &str) {
    let said = noticed(fault);
    let by_promise = said.iter().any(|what| what.contains(promise));
    assert!(by_promise, "{promise} is not noticed: {said:?}");
}

#[test]
fn a_disk_that_acknowledges_without_syncing() {
    assert_noticed(Fault::LyingDisk, "P1");
}

#[test]
fn a_disk_thread_that_reports_before_it_syncs() {
    // Nobody may read what is not written yet.
    assert_noticed(Fault::EarlyReport, "P6");
}

#[test]
fn a_checkpoint_that_forgets_which_segments_its_values_need() {
    assert_noticed(Fault::ForgetsValues, "P6");
}

#[test]
fn a_clock_that_runs_fast() {
    assert_noticed(Fault::FastClock, "P5");
}

#[test]
fn a_watcher_that_comes_back_one_revision_late() {
    assert_noticed(Fault::SkipsRevision, "P4");
}
