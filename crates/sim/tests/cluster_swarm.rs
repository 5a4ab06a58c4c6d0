//! Seeds of whole clusters: many for what is not known yet, and each that once found something.

use quorate_sim::{ClusterPlan, ClusterSeen, Trace, cluster};

fn run(plan: ClusterPlan) -> ClusterSeen {
    let seed = plan.seed;
    let (_, seen) = cluster(plan, Trace::Silent);
    assert!(seen.answered > 0, "seed {seed} did nothing");
    seen
}

#[test]
fn no_seed_breaks_a_promise() {
    let (mut installed, mut changes, mut not_done) = (0, 0, 0);
    for seed in 0..40 {
        let seen = run(ClusterPlan::draw(seed));
        installed += seen.installed;
        changes += seen.changes;
        not_done += seen.not_done;
    }
    assert!(installed > 15, "states are sent: {installed}");
    assert!(changes > 15, "members change: {changes}");
    assert!(not_done > 15, "requests are refused: {not_done}");
}

#[test]
fn no_seed_of_a_lone_voter_with_a_learner_breaks_a_promise() {
    for seed in 0..20 {
        run(ClusterPlan::lone_voter(seed));
    }
}

#[test]
fn no_seed_of_a_leader_that_is_stopped_and_cut_off_breaks_a_promise() {
    for seed in 0..12 {
        run(ClusterPlan::hunted(seed));
    }
}

#[test]
fn no_seed_of_restless_members_breaks_a_promise() {
    let changes: u64 = (0..15)
        .map(|seed| run(ClusterPlan::restless(seed)).changes)
        .sum();
    assert!(changes > 75, "members change: {changes}");
}

#[test]
fn one_seed_gives_one_trace() {
    let trace = |seed| match cluster(ClusterPlan::draw(seed), Trace::Kept(Vec::new())) {
        (Trace::Kept(lines), _) => lines,
        _ => unreachable!("it was to be kept"),
    };
    let first = trace(11);
    assert!(first.len() > 100, "a run has much to tell");
    assert_eq!(first, trace(11));
    assert_ne!(first, trace(12), "the trace tells seeds apart");
}
