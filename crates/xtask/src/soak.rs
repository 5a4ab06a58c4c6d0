//! `cargo xtask soak`: what `cargo xtask test` does for seconds, for hours.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;

use crate::{fuzz, kill, rust_checks, sim};

/// Runs the long forms of the tests; stops at the first failure.
#[derive(clap::Args)]
pub(crate) struct Soak {
    /// Run only this part.
    #[arg(long)]
    only: Option<Part>,
    /// How many seconds to fuzz each decoder; 0 for none.
    #[arg(long, default_value_t = 60)]
    fuzz_seconds: u64,
    /// How many times to kill the server under load.
    #[arg(long, default_value_t = 1000)]
    kills: u32,
    /// How many killed servers' logs to damage, each in some ten ways.
    #[arg(long, default_value_t = 50)]
    damages: u32,
    /// How many seeds to simulate; 0 for none.
    #[arg(long, default_value_t = 20_000)]
    seeds: u64,
    /// What fixes the load and the moments of the kills, and the first seed; drawn if not given.
    #[arg(long)]
    seed: Option<u64>,
    /// Test this server instead of building ours.
    #[arg(long)]
    server: Option<PathBuf>,
}

/// What a soak is made of.
#[derive(Clone, Copy, PartialEq, clap::ValueEnum)]
enum Part {
    /// Simulated members.
    Sim,
    /// Decoders of foreign bytes.
    Fuzz,
    /// A server that is killed, and its log damaged.
    Kill,
}

impl Soak {
    fn wants(&self, part: Part) -> bool {
        self.only.is_none_or(|only| only == part)
    }

    pub(crate) fn run(self) -> Result<ExitCode> {
        let seed = self.seed.unwrap_or_else(|| fastrand::u64(..));
        if self.wants(Part::Sim) && self.seeds > 0 {
            println!("simulating {} seeds from {seed}", self.seeds);
            sim::build()?;
            sim::run(seed, self.seeds)?;
        }
        if self.wants(Part::Fuzz) && self.fuzz_seconds > 0 {
            fuzz::run(self.fuzz_seconds)?;
        }
        if !self.wants(Part::Kill) {
            return Ok(ExitCode::SUCCESS);
        }
        let server = match self.server {
            Some(path) => path,
            None => rust_checks::build_server()?,
        };
        println!("{}", kill::rounds(&server, self.kills, seed)?);
        for _ in 0..self.damages {
            println!("{}", kill::damage::check(&server)?);
        }
        Ok(ExitCode::SUCCESS)
    }
}
