//! How long a cluster accepts no writes when its leader ends.
//!
//! Writes go to the other members every few milliseconds, whether or not earlier ones were answered.
//! What counts is the longest time between two acceptances, since a leader that was asked to end may
//! still take some.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use quorate_proto::etcdserverpb::PutRequest;
use quorate_proto::etcdserverpb::kv_client::KvClient;
use tokio::task::JoinSet;
use tonic::transport::Channel;

use super::history::Member;
use super::members::Cluster;
use super::v3;

/// Between two writes.
const EVERY: Duration = Duration::from_millis(5);
/// Writes go on so long after the first that was accepted by a new leader, or after the old one ended.
const AFTER: Duration = Duration::from_millis(300);
/// How long a cluster may be without a leader that takes writes.
const LIMIT: Duration = Duration::from_secs(30);

/// How a leader ends.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum End {
    Kill,
    Terminate,
}

/// Ends the leader so many times and returns how long no write was accepted, sorted.
pub(super) async fn measure(cluster: &mut Cluster, end: End, times: u32) -> Result<Vec<Duration>> {
    let mut gaps = Vec::new();
    for _ in 0..times {
        let leader = cluster.leader().await?;
        gaps.push(once(cluster, leader, end).await?);
        cluster.start_member(leader)?;
        cluster.await_ready().await?;
        // A member that has just started waits for an election timeout before it takes part.
        tokio::time::sleep(cluster.setup.election).await;
    }
    gaps.sort();
    Ok(gaps)
}

async fn once(cluster: &mut Cluster, leader: Member, end: End) -> Result<Duration> {
    let mut clients = Vec::new();
    for (member, face) in cluster.faces.iter().enumerate() {
        if member != leader {
            clients.push(KvClient::new(v3::channel(face.client_port)?));
        }
    }
    // The connections are there before it begins.
    for client in &clients {
        ensure!(
            put(client.clone()).await,
            "no writes before the leader ends"
        );
    }
    let since = Instant::now();
    let mut ended = None;
    match end {
        End::Kill => {
            cluster.kill(leader)?;
            ended = Some(since);
        }
        End::Terminate => cluster.terminate(leader)?,
    }
    let (mut attempts, mut accepted) = (JoinSet::new(), vec![since]);
    for at in 0.. {
        let client = clients[at % clients.len()].clone();
        attempts.spawn(async move { (put(client).await, Instant::now()) });
        tokio::time::sleep(EVERY).await;
        while let Some(done) = attempts.try_join_next() {
            let (is_accepted, when) = done?;
            if is_accepted {
                accepted.push(when);
            }
        }
        if ended.is_none() && cluster.has_ended(leader)? {
            ended = Some(Instant::now());
        }
        let is_over =
            |when: Instant| when.elapsed() > AFTER && accepted.iter().any(|at| *at > when);
        if ended.is_some_and(is_over) {
            break;
        }
        ensure!(
            since.elapsed() < LIMIT,
            "no write was accepted for {LIMIT:?} after the leader ended"
        );
    }
    accepted.sort();
    let gaps = accepted.windows(2).map(|pair| pair[1] - pair[0]);
    Ok(gaps.max().unwrap_or_default())
}

async fn put(mut client: KvClient<Channel>) -> bool {
    let request = PutRequest {
        key: "chaos-failover".into(),
        value: "x".into(),
        ..PutRequest::default()
    };
    client.put(request).await.is_ok()
}

/// The middle one of sorted figures.
pub(super) fn median(sorted: &[Duration]) -> Duration {
    sorted.get(sorted.len() / 2).copied().unwrap_or_default()
}
