//! Runs seeds until one breaks a promise: `cargo run -p quorate-sim --release -- --seeds 0..1000`.

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;

use quorate_sim::{Budget, ClusterPlan, Plan, Trace, cluster, crash_points, swarm};

const USAGE: &str = "\
Usage: sim [--cluster] [--seeds FROM..TO | --seed N] [--steps]

  --cluster         members of one cluster, not one member alone
  --seeds FROM..TO  run these seeds; without any of the two, 0..100
  --seed N          run one seed
  --steps           print what happens, step by step
";

/// Every so manieth seed also has its crash points tried one by one.
const CRASH_POINTS_EVERY: u64 = 10;

/// And so manieth one a run of large values.
const LARGE_EVERY: u64 = 20;

struct Arguments {
    seeds: Range<u64>,
    steps: bool,
    cluster: bool,
}

fn main() -> ExitCode {
    let arguments = match parse(std::env::args().skip(1)) {
        Ok(arguments) => arguments,
        Err(what) => {
            eprint!("sim: {what}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    let count = arguments.seeds.end - arguments.seeds.start;
    for seed in arguments.seeds {
        // The panic's own message is on standard error already.
        let (run, kind): (fn(u64, bool), _) = match arguments.cluster {
            true => (run_cluster, "--cluster "),
            false => (run, ""),
        };
        if catch_unwind(AssertUnwindSafe(|| run(seed, arguments.steps))).is_err() {
            println!("seed {seed} broke a promise; to see how:");
            println!("  cargo run -p quorate-sim --release -- {kind}--seed {seed} --steps");
            println!("then add it to crates/sim/seeds.txt");
            return ExitCode::FAILURE;
        }
    }
    println!("{count} seeds, no promise broken");
    ExitCode::SUCCESS
}

fn run(seed: u64, steps: bool) {
    let trace = if steps { Trace::Printed } else { Trace::Silent };
    let (_, seen) = swarm(Plan::draw(seed), trace);
    if steps {
        println!("{seen:?}");
    }
    if seed % LARGE_EVERY == 1 {
        let (_, seen) = swarm(Plan::large(seed), Trace::Silent);
        if steps {
            println!("{seen:?}");
        }
    }
    if seed.is_multiple_of(CRASH_POINTS_EVERY) {
        let budget = Budget {
            every: 3,
            every_of_recovery: 10,
        };
        let tried = crash_points(&Plan::short(seed, 60), budget);
        if steps {
            println!("{tried:?}");
        }
    }
}

fn run_cluster(seed: u64, steps: bool) {
    let trace = if steps { Trace::Printed } else { Trace::Silent };
    let plan = match seed % 5 {
        2 if seed.is_multiple_of(2) => ClusterPlan::hunted(seed),
        3 => ClusterPlan::lone_voter(seed),
        4 => ClusterPlan::restless(seed),
        _ => ClusterPlan::draw(seed),
    };
    let (_, seen) = cluster(plan, trace);
    if steps {
        println!("{seen:?}");
    }
}

fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Arguments, String> {
    let mut parsed = Arguments {
        seeds: 0..100,
        steps: false,
        cluster: false,
    };
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().ok_or(format!("{argument} needs a value"));
        match argument.as_str() {
            "--steps" => parsed.steps = true,
            "--cluster" => parsed.cluster = true,
            "--seed" => {
                let seed = number(&value()?)?;
                parsed.seeds = seed..seed.checked_add(1).ok_or("that seed is too large")?;
            }
            "--seeds" => {
                let range = value()?;
                let (from, to) = range.split_once("..").ok_or("seeds are FROM..TO")?;
                parsed.seeds = number(from)?..number(to)?;
            }
            other => return Err(format!("no such option: {other}")),
        }
    }
    if parsed.seeds.is_empty() {
        return Err("no seeds".to_owned());
    }
    Ok(parsed)
}

fn number(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| format!("{text} is no number"))
}
