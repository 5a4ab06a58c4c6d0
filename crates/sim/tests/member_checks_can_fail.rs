//! Something is broken on purpose: the checks must say so, and say which promise.

use std::panic::{AssertUnwindSafe, catch_unwind};

use quorate_sim::{Fault, Plan, Trace, swarm};

/// What the checks say about the first of some seeds in which they notice.
fn noticed(fault: Fault) -> String {
    for seed in 0..20 {
        let run = || swarm(Plan::draw(seed).with(fault), Trace::Silent);
        if let Err(panic) = catch_unwind(AssertUnwindSafe(run)) {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string));
            return text.expect("a panic has a message");
        }
    }
    panic!("{fault:?} goes unnoticed");
}

#[test]
fn a_disk_that_acknowledges_without_syncing() {
    let what = noticed(Fault::LyingDisk);
    assert!(
        what.contains("P1") || what.contains("went down by itself"),
        "{what}"
    );
}

#[test]
fn a_disk_thread_that_reports_before_it_syncs() {
    let what = noticed(Fault::EarlyReport);
    assert!(what.contains("P1") || what.contains("P6"), "{what}");
}

#[test]
fn a_checkpoint_that_forgets_which_segments_its_values_need() {
    let what = noticed(Fault::ForgetsValues);
    assert!(what.contains("does not verify"), "{what}");
}

#[test]
fn a_clock_that_runs_fast() {
    let what = noticed(Fault::FastClock);
    assert!(what.contains("P5"), "{what}");
}

#[test]
fn a_watcher_that_comes_back_one_revision_late() {
    let what = noticed(Fault::SkipsRevision);
    assert!(what.contains("P4"), "{what}");
}
