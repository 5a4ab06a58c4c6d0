//! Measuring one case: a round on etcd, one on Quorate, and again, so that noise hits both.

use std::time::Duration;

use anyhow::Result;
use quorate_load::{Generator, Histogram, Keys, Pace, Report, Until, Work};

use super::cases::{Case, KEYS};
use super::pair::{Side, run};
use super::results::Figures;

/// Rounds on each server, and how long each is measured.
#[derive(Clone, Copy)]
pub(super) struct Length {
    pub(super) rounds: u32,
    pub(super) round: Duration,
}

impl Length {
    /// What runs before each round's figures are taken.
    pub(super) fn warm_up(self) -> Duration {
        self.round / 4
    }
}

/// What rounds have summed up to.
#[derive(Default)]
pub(super) struct Sums {
    done: u64,
    elapsed: Duration,
    server_cpu: Duration,
    own_cpu: Duration,
    latencies: Histogram,
    /// Server CPU per operation, µs, of each round.
    cpus: Vec<f64>,
}

impl Sums {
    pub(super) fn add(&mut self, report: &Report, server_cpu: Duration) {
        self.done += report.done;
        self.elapsed += report.elapsed;
        self.server_cpu += server_cpu;
        self.own_cpu += report.own_cpu;
        self.latencies.add(&report.latencies);
        self.cpus.push(micros(server_cpu) / report.done as f64);
    }

    pub(super) fn figures(&self) -> Figures {
        let done = self.done as f64;
        let millis = |nanos: u64| nanos as f64 / 1e6;
        let pairs = [
            ("per_second", done / self.elapsed.as_secs_f64()),
            ("p50_ms", millis(self.latencies.quantile(0.5))),
            ("p99_ms", millis(self.latencies.quantile(0.99))),
            ("max_ms", millis(self.latencies.max())),
            ("cpu_us", micros(self.server_cpu) / done),
            (
                "cpu_us_least",
                self.cpus.iter().copied().fold(f64::INFINITY, f64::min),
            ),
            ("cpu_us_most", self.cpus.iter().copied().fold(0.0, f64::max)),
            ("load_us", micros(self.own_cpu) / done),
        ];
        pairs.map(|(name, value)| (name.to_owned(), value)).into()
    }
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

/// Measures a case; the figures are in the order of the sides. `between` runs before each round.
pub(super) fn measure(
    sides: &[Side],
    case: &Case,
    length: Length,
    mut between: impl FnMut() -> Result<()>,
) -> Result<Vec<Figures>> {
    let templates = (case.templates)();
    let mut generators = Vec::new();
    for side in sides {
        generators.push(side.connect(case.spread, &templates[0].1)?);
    }
    let mut sums: Vec<_> = sides.iter().map(|_| Sums::default()).collect();
    let work = |time| Work {
        templates: templates.clone(),
        keys: Keys::Any(KEYS),
        pace: Pace::Closed,
        until: Until::Elapsed(time),
    };
    let (warm_up, round) = (work(length.warm_up()), work(length.round));
    for _ in 0..length.rounds {
        between()?;
        for ((side, generator), sums) in sides.iter().zip(&mut generators).zip(&mut sums) {
            run(side, generator, &warm_up)?;
            measured(side, generator, &round, sums)?;
        }
    }
    Ok(sums.iter().map(Sums::figures).collect())
}

/// Does work and sums up what it took.
pub(super) fn measured(
    side: &Side,
    generator: &mut Generator,
    work: &Work,
    sums: &mut Sums,
) -> Result<Report> {
    let before = side.cpu()?;
    let report = run(side, generator, work)?;
    sums.add(&report, side.cpu()? - before);
    Ok(report)
}
