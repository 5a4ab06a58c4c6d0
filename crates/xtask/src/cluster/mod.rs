//! A cluster of real processes under load and faults, and the check of everything it answered.
//!
//! Members talk through proxies of ours, which cut, delay and reset each direction of each link apart.
//! Clients of both dialects call all members, and watchers follow; a round's history is judged by
//! `check`, which is a pure function and proven on planted violations.

mod check;
mod clients;
mod cutoff;
mod draw;
mod failover;
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

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use fastrand::Rng;

use crate::outcome::Outcome;
use crate::workspace;
use check::Counts;
use failover::End;
use fault::{Fault, Who};
use members::{Cluster, Program, Setup};
use round::Load;

/// What a short run does with three members.
const WITH_THREE: [Fault; 10] = [
    Fault::Kill(Who::Leader),
    Fault::Kill(Who::Follower),
    Fault::Pause(Who::Leader),
    Fault::CutOff(Who::Leader),
    Fault::Reset(Who::Follower),
    Fault::Mute(Who::Leader),
    Fault::Deaf(Who::Leader),
    Fault::Bridge,
    Fault::Flap,
    Fault::Delay,
];
/// And with five.
const WITH_FIVE: [Fault; 5] = [
    Fault::Kill(Who::Minority),
    Fault::Pause(Who::Minority),
    Fault::CutOff(Who::Minority),
    Fault::Bridge,
    Fault::Flap,
];
/// How often the leader ends.
const KILLS: u32 = 20;
const TERMINATIONS: u32 = 5;

/// The suite `cluster`.
pub(crate) fn suite(server: &Path) -> Result<Outcome> {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let said = runtime()?.block_on(short(Program::Quorate, server, seed));
    Ok(Outcome::Passed(
        said.with_context(|| format!("seed {seed}"))?,
    ))
}

/// All of it once, within three minutes.
async fn short(program: Program, server: &Path, seed: u64) -> Result<String> {
    let mut rng = Rng::with_seed(seed);
    let mut counts = Counts::default();
    let mut cluster = Cluster::start(setup(program, server.to_owned(), 3)?).await?;
    for fault in WITH_THREE {
        counts += one(&mut cluster, fault, &mut rng).await?;
    }
    let asked = cut_off(&mut cluster).await?;
    let figures = failovers(&mut cluster).await?;
    drop(cluster);
    let mut cluster = Cluster::start(setup(program, server.to_owned(), 5)?).await?;
    for fault in WITH_FIVE {
        counts += one(&mut cluster, fault, &mut rng).await?;
    }
    let faults = WITH_THREE.len() + WITH_FIVE.len();
    Ok(format!(
        "{} answers under {faults} faults; {asked}; {figures}",
        counts.answered
    ))
}

/// Cuts the leader off, and then a follower, and asks it everything.
async fn cut_off(cluster: &mut Cluster) -> Result<String> {
    let leader = cluster.leader().await?;
    cutoff::check(cluster, leader)
        .await
        .context("a leader that is cut off")?;
    let follower = (cluster.leader().await? + 1) % cluster.len();
    cutoff::check(cluster, follower)
        .await
        .context("a follower that is cut off")
}

/// Ends the leader again and again, and says how long no write was accepted.
async fn failovers(cluster: &mut Cluster) -> Result<String> {
    let election = cluster.setup.election;
    let killed = failover::measure(cluster, End::Kill, KILLS).await?;
    println!("no writes after SIGKILL: {killed:?}");
    let terminated = failover::measure(cluster, End::Terminate, TERMINATIONS).await?;
    println!("no writes after SIGTERM: {terminated:?}");
    Ok(format!(
        "no writes for {:.0?} after a leader's SIGKILL (median of {KILLS}; 2 election timeouts are \
         {:.0?}), for {:.0?} after SIGTERM",
        failover::median(&killed),
        election * 2,
        failover::median(&terminated),
    ))
}

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
    /// Run what the suite runs, once.
    #[arg(long)]
    short: bool,
}

impl Chaos {
    pub(crate) fn run(self) -> Result<ExitCode> {
        let seed = self.seed.unwrap_or_else(|| fastrand::u64(..));
        println!("seed {seed}");
        let server = self.server.unwrap_or_else(|| match self.peer {
            Program::Quorate => workspace::release_server(),
            Program::Etcd => "/usr/bin/etcd".into(),
        });
        if self.short {
            println!("{}", runtime()?.block_on(short(self.peer, &server, seed))?);
            return Ok(ExitCode::SUCCESS);
        }
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
