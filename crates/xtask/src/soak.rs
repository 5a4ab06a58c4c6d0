//! `cargo xtask soak`: what `cargo xtask test` does for seconds, for hours.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;

use crate::cluster::{self, Program};
use crate::{bulk, fuzz, kill, rust_checks, sim};

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
    /// How many minutes to put faults on clusters; 0 for the suite's, once each.
    #[arg(long, default_value_t = 10)]
    minutes: u64,
    /// What the members of clusters are.
    #[arg(long, value_enum, default_value = "quorate")]
    peer: Program,
    /// How many gigabytes of values to put on one member; 0 for none. Twice as much disk is used.
    #[arg(long, default_value_t = 20)]
    gigabytes: u64,
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
    /// Clusters under load and faults.
    Cluster,
    /// A server with many gigabytes of values.
    Bulk,
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
        if self.wants(Part::Kill) {
            let server = self.server()?;
            println!("{}", kill::rounds(&server, self.kills, seed)?);
            for _ in 0..self.damages {
                println!("{}", kill::damage::check(&server)?);
            }
        }
        if self.wants(Part::Cluster) {
            let server = match self.peer {
                Program::Quorate => self.server()?,
                Program::Etcd => PathBuf::from("etcd"),
            };
            println!("{}", cluster::soak(self.peer, &server, self.minutes, seed)?);
        }
        if self.wants(Part::Bulk) && self.gigabytes > 0 {
            println!("{}", bulk::check(&self.server()?, self.gigabytes)?);
        }
        Ok(ExitCode::SUCCESS)
    }

    /// The server under test.
    fn server(&self) -> Result<PathBuf> {
        match &self.server {
            Some(path) => Ok(path.clone()),
            None => rust_checks::build_server(),
        }
    }
}
