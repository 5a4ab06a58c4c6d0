//! A cluster of real processes under load and faults, and the check of everything it answered.
//!
//! Members talk through proxies of ours, which cut, delay and reset each direction of each link apart.
//! Clients of both dialects call all members, and watchers follow; a round's history is judged by
//! `check`, which is a pure function and proven on planted violations.

mod check;
mod clients;
mod draw;
mod fault;
mod history;
mod leader;
mod members;
mod model;
mod owner;
mod proxy;
mod round;
mod v2;
mod v3;
mod watchers;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use fastrand::Rng;

use crate::workspace;
use check::Counts;
use fault::Fault;
use members::{Cluster, Program, Setup};
use round::Load;

/// Puts faults, drawn from a seed, on a cluster under load, and checks everything it answers.
#[derive(clap::Args)]
pub(crate) struct Chaos {
    /// How long.
    #[arg(long, default_value_t = 10)]
    minutes: u64,
    /// What fixes load and faults; drawn if not given.
    #[arg(long)]
    seed: Option<u64>,
    /// What the members are.
    #[arg(long, value_enum, default_value = "quorate")]
    peer: Program,
    /// The program; Debian's, or the one that `cargo build --release` makes, if not given.
    #[arg(long)]
    server: Option<PathBuf>,
    /// How many members.
    #[arg(long, default_value_t = 3)]
    members: usize,
}

impl Chaos {
    pub(crate) fn run(self) -> Result<ExitCode> {
        let seed = self.seed.unwrap_or_else(|| fastrand::u64(..));
        println!("seed {seed}");
        let server = self.server.unwrap_or_else(|| match self.peer {
            Program::Quorate => workspace::release_server(),
            Program::Etcd => "/usr/bin/etcd".into(),
        });
        let setup = setup(self.peer, server, self.members)?;
        let until = Instant::now() + Duration::from_secs(self.minutes * 60);
        let mut rng = Rng::with_seed(seed);
        let counts = runtime()?.block_on(async {
            let mut cluster = Cluster::start(setup).await?;
            let mut counts = Counts::default();
            while Instant::now() < until {
                let fault = Fault::ALL[rng.usize(..Fault::ALL.len())];
                counts += one(&mut cluster, fault, &mut rng).await?;
            }
            anyhow::Ok(counts)
        });
        println!("{:?}", counts.with_context(|| format!("seed {seed}"))?);
        Ok(ExitCode::SUCCESS)
    }
}

async fn one(cluster: &mut Cluster, fault: Fault, rng: &mut Rng) -> Result<Counts> {
    let since = Instant::now();
    let load = Load {
        clients: 2,
        calm: Duration::from_millis(500),
    };
    let counts = round::run(cluster, &fault, load, rng).await;
    let counts = counts.with_context(|| format!("{} members, {fault:?}", cluster.len()))?;
    let took = since.elapsed().as_secs_f64();
    println!(
        "{} members, {fault:?}: {took:.1} s, {counts:?}",
        cluster.len()
    );
    Ok(counts)
}

fn setup(program: Program, server: PathBuf, members: usize) -> Result<Setup> {
    Ok(Setup {
        program,
        server,
        dir: workspace::empty_dir(&format!("cluster-{members}"))?,
        members,
        election: Duration::from_millis(500),
    })
}

fn runtime() -> Result<tokio::runtime::Runtime> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build();
    Ok(runtime?)
}
