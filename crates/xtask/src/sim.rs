//! Simulated members: many seeds, and one of them in two processes.

use std::process::Command;

use anyhow::{Result, ensure};

use crate::outcome::Outcome;
use crate::rust_checks::cargo;
use crate::{tools, workspace};

/// Seeds of `cargo xtask test`. Unit tests run some of them unoptimised, too.
const SEEDS: u64 = 300;

/// The suite of `cargo xtask test`.
pub(crate) fn suite() -> Result<Outcome> {
    build()?;
    one_seed_has_one_trace(SEEDS)?;
    run(0, SEEDS)?;
    let seeds = format!("0..{SEEDS}");
    tools::run(simulator().args(["--cluster", "--seeds", &seeds]))?;
    Ok(Outcome::Passed(format!(
        "{SEEDS} seeds of a member, one of them in two processes, and {SEEDS} of a cluster"
    )))
}

/// Builds the simulator, optimised.
pub(crate) fn build() -> Result<()> {
    tools::run(&mut cargo(&[
        "build",
        "--release",
        "--package",
        "quorate-sim",
    ]))
}

/// Runs seeds; fails at the first that breaks a promise.
pub(crate) fn run(from: u64, count: u64) -> Result<()> {
    let seeds = format!("{from}..{}", from.saturating_add(count));
    tools::run(simulator().args(["--seeds", &seeds]))
}

/// What a seed does must not depend on addresses or on the order of a hash map.
fn one_seed_has_one_trace(seed: u64) -> Result<()> {
    let trace = || tools::output(simulator().args(["--seed", &seed.to_string(), "--steps"]));
    let (first, second) = (trace()?, trace()?);
    ensure!(
        first.lines().count() > 100,
        "seed {seed} has a trace of {} bytes",
        first.len()
    );
    let differing = first
        .lines()
        .zip(second.lines())
        .position(|(one, other)| one != other);
    ensure!(
        first == second,
        "two runs of seed {seed} part at line {differing:?}"
    );
    Ok(())
}

fn simulator() -> Command {
    Command::new(workspace::target().join("release/sim"))
}
