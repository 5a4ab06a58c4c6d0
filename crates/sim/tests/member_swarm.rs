//! Seeds: many for what is not known yet, and each that once found something.

use std::process::Command;

use quorate_sim::{Plan, Trace, swarm};

#[test]
fn no_seed_breaks_a_promise() {
    let mut reclaims = 0;
    for seed in 0..60 {
        let (_, seen) = swarm(Plan::draw(seed), Trace::Silent);
        reclaims += seen.reclaims;
        assert!(
            seen.applied > 0 && seen.watched > 0,
            "seed {seed} did nothing"
        );
    }
    assert!(reclaims > 5, "segments are emptied: {reclaims}");
}

#[test]
fn no_seed_of_large_values_breaks_a_promise() {
    for seed in 0..2 {
        let (_, seen) = swarm(Plan::large(seed), Trace::Silent);
        assert!(seen.checkpoints > 0, "seed {seed}: {seen:?}");
    }
}

#[test]
fn no_seed_that_found_something_finds_it_again() {
    let seeds = include_str!("../seeds.txt").lines();
    for line in seeds.filter(|line| !line.starts_with('#')) {
        let seed = line
            .split_whitespace()
            .next()
            .expect("a seed begins a line");
        let seed = seed.parse().expect("a seed is a number");
        let _ = swarm(Plan::draw(seed), Trace::Silent);
    }
}

#[test]
fn one_seed_gives_one_trace() {
    let trace = |seed| match swarm(Plan::draw(seed), Trace::Kept(Vec::new())) {
        (Trace::Kept(lines), _) => lines,
        _ => unreachable!("it was to be kept"),
    };
    let first = trace(11);
    assert!(first.len() > 100, "a run has much to tell");
    assert_eq!(first, trace(11));
    assert_ne!(first, trace(12), "the trace tells seeds apart");
}

#[test]
fn one_seed_gives_one_trace_in_two_processes() {
    let run = || {
        let sim = env!("CARGO_BIN_EXE_sim");
        let run = Command::new(sim).args(["--seed", "11", "--steps"]).output();
        let output = run.expect("the simulator starts");
        assert!(output.status.success());
        output.stdout
    };
    let first = run();
    assert!(first.len() > 10_000, "a run has much to tell");
    assert!(first == run(), "two processes tell different stories");
}
