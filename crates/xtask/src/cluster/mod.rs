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
mod namespaces;
mod network;
mod owner;
mod proxy;
mod round;
mod v2;
mod v3;
mod watchers;

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use fastrand::Rng;

use crate::outcome::Outcome;
use crate::workspace;
use check::Counts;
use failover::End;
use fault::{Fault, Who};
pub(crate) use members::Program;
use members::{Cluster, Setup};
use network::Kind;
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
/// What is done with three members in namespaces of their own, where root allows.
const IN_NAMESPACES: [Fault; 3] = [
    Fault::CutOff(Who::Leader),
    Fault::Mute(Who::Leader),
    Fault::Deaf(Who::Follower),
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
/// Rounds on one cluster of a soak.
const ROUNDS: usize = 20;

/// The suite `cluster`.
pub(crate) fn suite(server: &Path) -> Result<Outcome> {
    let seed = fastrand::u64(..);
    Ok(Outcome::Passed(soak(Program::Quorate, server, 0, seed)?))
}

/// All of it once, within three minutes.
async fn short(program: Program, server: &Path, seed: u64) -> Result<String> {
    let mut rng = Rng::with_seed(seed);
    let mut counts = Counts::default();
    let mut cluster = Cluster::start(setup(program, server, 3, Kind::Proxies)?).await?;
    for fault in WITH_THREE {
        counts += one(&mut cluster, fault, &mut rng).await?;
    }
    let figures = failovers(&mut cluster).await?;
    let asked = cut_off(&mut cluster).await?;
    drop(cluster);
    let mut cluster = Cluster::start(setup(program, server, 5, Kind::Proxies)?).await?;
    for fault in WITH_FIVE {
        counts += one(&mut cluster, fault, &mut rng).await?;
    }
    drop(cluster);
    let mut faults = WITH_THREE.len() + WITH_FIVE.len();
    if kinds().contains(&Kind::Namespaces) {
        let mut cluster = Cluster::start(setup(program, server, 3, Kind::Namespaces)?).await?;
        for fault in IN_NAMESPACES {
            counts += one(&mut cluster, fault, &mut rng).await?;
        }
        faults += IN_NAMESPACES.len();
    }
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

/// Puts faults drawn from the seed on clusters of three and five, turn by turn, for so many minutes;
/// for none, does what the suite does. Says what was checked.
pub(crate) fn soak(program: Program, server: &Path, minutes: u64, seed: u64) -> Result<String> {
    println!("seed {seed}");
    let said = runtime()?.block_on(async {
        if minutes == 0 {
            return short(program, server, seed).await;
        }
        let until = Instant::now() + Duration::from_secs(minutes * 60);
        let mut rng = Rng::with_seed(seed);
        let mut counts = Counts::default();
        let kinds = kinds();
        for turn in 0.. {
            let (members, kind) = (3 + turn % 2 * 2, kinds[turn / 2 % kinds.len()]);
            let mut cluster = Cluster::start(setup(program, server, members, kind)?).await?;
            for _ in 0..ROUNDS {
                if Instant::now() >= until {
                    return Ok(format!("{counts:?}"));
                }
                let fault = Fault::ALL[rng.usize(..Fault::ALL.len())];
                counts += one(&mut cluster, fault, &mut rng).await?;
            }
        }
        unreachable!("the turns do not end by themselves")
    });
    said.with_context(|| format!("seed {seed}"))
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

/// The networks that can be had here.
fn kinds() -> Vec<Kind> {
    if rustix::process::geteuid().is_root() {
        vec![Kind::Proxies, Kind::Namespaces]
    } else {
        println!("not root: no namespaces");
        vec![Kind::Proxies]
    }
}

fn setup(program: Program, server: &Path, members: usize, network: Kind) -> Result<Setup> {
    Ok(Setup {
        program,
        server: server.to_owned(),
        network,
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
