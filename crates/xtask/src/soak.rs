//! `cargo xtask soak`: what `cargo xtask test` does for seconds, for hours.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;

use crate::{kill, rust_checks, sim};

/// Runs the long forms of the tests; stops at the first failure.
#[derive(clap::Args)]
pub(crate) struct Soak {
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

impl Soak {
    pub(crate) fn run(self) -> Result<ExitCode> {
        let server = match self.server {
            Some(path) => path,
            None => rust_checks::build_server()?,
        };
        let seed = self.seed.unwrap_or_else(|| fastrand::u64(..));
        if self.seeds > 0 {
            println!("simulating {} seeds from {seed}", self.seeds);
            sim::build()?;
            sim::run(seed, self.seeds)?;
        }
        println!("{}", kill::rounds(&server, self.kills, seed)?);
        for _ in 0..self.damages {
            println!("{}", kill::damage::check(&server)?);
        }
        Ok(ExitCode::SUCCESS)
    }
}
