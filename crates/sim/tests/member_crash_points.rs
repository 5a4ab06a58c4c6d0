//! The power fails at each effect of short scripts, and at each effect of the starts after that.

use quorate_sim::{Budget, Plan, crash_points};

#[test]
fn every_effect_of_a_script_and_every_effect_of_its_recovery() {
    let budget = Budget {
        every: 1,
        every_of_recovery: 1,
    };
    let tried = crash_points(&Plan::short(1, 14), budget);
    assert!(tried.effects > 20, "{tried:?}");
    assert!(tried.recoveries > 10 * tried.effects, "{tried:?}");
}

#[test]
fn every_effect_of_longer_scripts_with_checkpoints_and_freed_segments() {
    let budget = Budget {
        every: 1,
        every_of_recovery: 0,
    };
    for seed in 0..3 {
        let tried = crash_points(&Plan::short(seed, 120), budget);
        assert_eq!(tried.recoveries, 3 * tried.effects);
        assert!(tried.seen.checkpoints > 2, "{tried:?}");
    }
}

#[test]
fn some_effects_of_recoveries_from_checkpoints() {
    let budget = Budget {
        every: 6,
        every_of_recovery: 4,
    };
    for seed in 3..5 {
        let tried = crash_points(&Plan::short(seed, 120), budget);
        assert!(tried.cut_short > 20, "{tried:?}");
    }
}
