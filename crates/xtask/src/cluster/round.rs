//! One round: clients on all members, a fault, healing, and the check of all that was answered and seen.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use fastrand::Rng;
use quorate_proto::etcdserverpb::HashKvRequest;
use quorate_proto::etcdserverpb::maintenance_client::MaintenanceClient;
use tokio::sync::watch as signal;
use tokio::task::JoinSet;

use super::check::{self, Counts};
use super::clients::{Client, PREFIX, Shared};
use super::draw;
use super::fault::Fault;
use super::history::{Call, History, Op, Outcome, Request, State, Version, Watch};
use super::members::{Cluster, Program};
use super::watchers::{Dialect, LAST, Watcher};

/// How soon after healing every member must take writes again.
const RECOVERY: Duration = Duration::from_secs(30);
/// How long watches may take to catch up after the last write.
const CATCH_UP: Duration = Duration::from_secs(15);
/// Writes of a flood, and how many clients make them. Above the entries that a leader keeps for a
/// follower: 5,000 (DESIGN §5).
const FLOOD: usize = 6_000;
const WRITERS: usize = 64;
/// Violations that are printed.
const PRINTED: usize = 8;

/// What a round puts on the cluster beside its fault.
#[derive(Clone, Copy, Debug)]
pub(super) struct Load {
    /// v3 clients of each member; one of v2 comes to each.
    pub(super) clients: usize,
    /// Before the fault, and again after healing.
    pub(super) calm: Duration,
}

/// The clients and watchers of a round.
struct Busy {
    shared: Arc<Shared>,
    base: State,
    /// Whether the last write was made.
    end: signal::Sender<bool>,
    loads: JoinSet<Result<Vec<Call>>>,
    watchers: JoinSet<Result<Watch>>,
}

/// Runs a round and says what was checked.
pub(super) async fn run(
    cluster: &mut Cluster,
    fault: &Fault,
    load: Load,
    rng: &mut Rng,
) -> Result<Counts> {
    let started = Instant::now();
    let mut busy = Busy::start(cluster, started, load, rng).await?;
    tokio::time::sleep(load.calm).await;
    fault.strike(cluster, rng).await?;
    if *fault == Fault::Away {
        busy.flood(cluster).await?;
    }
    cluster.heal()?;
    await_writes(cluster, started).await?;
    tokio::time::sleep(load.calm).await;
    cluster.is_whole()?;
    let history = busy.finish(cluster, rng).await?;
    judge(&history, cluster)
}

/// etcd's v2 is a store of its own, and its streams fall silent when they are resumed: there is
/// nothing to learn from it.
fn dialects(program: Program) -> &'static [Dialect] {
    match program {
        Program::Quorate => &[Dialect::V3, Dialect::V2],
        Program::Etcd => &[Dialect::V3],
    }
}

impl Busy {
    async fn start(cluster: &Cluster, started: Instant, load: Load, rng: &mut Rng) -> Result<Self> {
        let shared = Shared::new(Arc::clone(&cluster.faces), 0, started);
        let (base, base_revision) = clear(&shared).await?;
        let mut busy = Self {
            shared: Shared::new(Arc::clone(&cluster.faces), base_revision, started),
            base,
            end: signal::Sender::new(false),
            loads: JoinSet::new(),
            watchers: JoinSet::new(),
        };
        for dialect in dialects(cluster.setup.program) {
            for member in 0..cluster.len() {
                busy.add(*dialect, member, load, rng)?;
            }
        }
        Ok(busy)
    }

    fn add(&mut self, dialect: Dialect, member: usize, load: Load, rng: &mut Rng) -> Result<()> {
        let clients = match dialect {
            Dialect::V3 => load.clients,
            Dialect::V2 => 1,
        };
        for at in 0..clients {
            let name = format!("{dialect:?}.{member}.{at}.{}", rng.u16(..)).to_lowercase();
            let client = match dialect {
                Dialect::V3 => Client::v3(&name, member, &self.shared)?,
                Dialect::V2 => Client::v2(&name, member, &self.shared),
            };
            self.loads.spawn(client.load(rng.fork()));
        }
        let watcher = self.watcher(dialect, format!("{dialect:?} watch {member}"), member, rng);
        self.watchers.spawn(watcher.run(CATCH_UP));
        Ok(())
    }

    /// Writes more than a member that is behind is served from the log, through one that runs.
    async fn flood(&mut self, cluster: &Cluster) -> Result<()> {
        let leader = cluster.leader().await?;
        let mut writers = JoinSet::new();
        for at in 0..WRITERS {
            let client = Client::v3(&format!("flood.{at}"), leader, &self.shared)?;
            writers.spawn(client.flood(FLOOD / WRITERS));
        }
        while let Some(calls) = writers.join_next().await {
            let calls = calls??;
            self.loads.spawn(async move { Ok(calls) });
        }
        Ok(())
    }

    fn watcher(&self, dialect: Dialect, name: String, member: usize, rng: &mut Rng) -> Watcher {
        let end = self.end.subscribe();
        Watcher::new(dialect, name, &self.shared, member, end, rng.fork())
    }

    /// Ends the clients, lets all watches come to the last write, and gathers everything.
    async fn finish(mut self, cluster: &Cluster, rng: &mut Rng) -> Result<History> {
        self.shared.stop();
        let mut history = History {
            base: std::mem::take(&mut self.base),
            base_revision: self.shared.base_revision,
            ..History::default()
        };
        while let Some(calls) = self.loads.join_next().await {
            history.calls.extend(calls??);
        }
        // Leases whose time is up must not end behind the last write.
        self.end_leases(&mut history).await?;
        history.end_revision = self.last_write(cluster, &mut history).await?;
        self.end.send_replace(true);
        while let Some(watch) = self.watchers.join_next().await {
            history.watches.push(watch??);
        }
        for member in 0..cluster.len() {
            let name = format!("log of member {member}");
            let mut watcher = self.watcher(Dialect::V3, name, member, rng);
            watcher.is_bound = true;
            history.logs.push(watcher.run(CATCH_UP).await?);
        }
        same_hash(cluster, history.end_revision).await?;
        Ok(history)
    }

    /// Revokes every lease that may still be there.
    async fn end_leases(&self, history: &mut History) -> Result<()> {
        let granted = |call: &Call| match (&call.request, &call.outcome) {
            (Request::Grant { lease, .. }, Outcome::Ok(_) | Outcome::Unknown(_)) => Some(*lease),
            _ => None,
        };
        let leases: Vec<i64> = history.calls.iter().filter_map(granted).collect();
        let mut client = Client::v3("revoker", 0, &self.shared)?;
        for lease in leases {
            client.call(Request::Revoke { lease }).await?;
        }
        history.calls.extend(client.into_calls());
        Ok(())
    }

    /// Writes once more and reads everything on every member, in each way.
    async fn last_write(&self, cluster: &Cluster, history: &mut History) -> Result<i64> {
        let mut client = Client::v3("last", 0, &self.shared)?;
        let op = Op::Put {
            key: LAST.into(),
            value: format!("last-{}", self.shared.now()),
            lease: 0,
            fresh: false,
        };
        let revision = match client.call(draw::only(op, false)).await? {
            Outcome::Ok(answer) => answer.revision,
            other => bail!("the last write failed: {other:?}"),
        };
        history.calls.extend(client.into_calls());
        for member in 0..cluster.len() {
            let mut client = Client::v3("last", member, &self.shared)?;
            for is_local in [false, true] {
                client.call(draw::only(draw::all(None), is_local)).await?;
            }
            history.calls.extend(client.into_calls());
        }
        Ok(revision)
    }
}

/// Removes what an earlier round left, and reads the base of the next.
async fn clear(shared: &Arc<Shared>) -> Result<(State, i64)> {
    let mut client = Client::v3("clear", 0, shared)?;
    let Outcome::Ok(answer) = client.call(draw::only(draw::all(None), false)).await? else {
        bail!("no read before the round");
    };
    for (key, _) in answer.results.into_iter().flatten().flatten() {
        client.call(draw::only(Op::Delete { key }, false)).await?;
    }
    // A write, so that there is a revision even before the first key.
    let op = Op::Put {
        key: format!("{PREFIX}start"),
        value: "start".into(),
        lease: 0,
        fresh: false,
    };
    client.call(draw::only(op, false)).await?;
    let Outcome::Ok(answer) = client.call(draw::only(draw::all(None), false)).await? else {
        bail!("no read before the round");
    };
    let mut base = State::new();
    for (key, shown) in answer.results.into_iter().flatten().flatten() {
        let version = Version {
            value: shown.value,
            created: shown.created,
            modified: shown.modified,
            version: shown.version.unwrap_or(1),
            lease: shown.lease.unwrap_or(0),
        };
        base.insert(key, version);
    }
    Ok((base, answer.revision))
}

/// Waits until a write at every member is accepted.
async fn await_writes(cluster: &mut Cluster, started: Instant) -> Result<()> {
    let since = Instant::now();
    let shared = Shared::new(Arc::clone(&cluster.faces), 0, started);
    for member in 0..cluster.len() {
        let mut client = Client::v3("probe", member, &shared)?;
        loop {
            cluster.is_whole()?;
            // Outside the test's keys and without a change: a read through the log.
            let op = Op::Delete {
                key: "chaos-probe".into(),
            };
            match client.call(draw::only(op, false)).await? {
                Outcome::Ok(_) => break,
                other => ensure!(
                    since.elapsed() < RECOVERY,
                    "member {member} takes no writes {RECOVERY:?} after all is well: {other:?}"
                ),
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    Ok(())
}

/// Compares the hash of every member's history at one revision.
async fn same_hash(cluster: &Cluster, revision: i64) -> Result<()> {
    let mut first = None;
    for (member, face) in cluster.faces.iter().enumerate() {
        let mut client = MaintenanceClient::new(super::v3::channel(face.client_port)?);
        let answer = client.hash_kv(HashKvRequest { revision }).await?;
        let answer = answer.into_inner();
        let hash = (answer.hash, answer.compact_revision);
        let wanted = *first.get_or_insert(hash);
        ensure!(
            hash == wanted,
            "HashKV at {revision}: member {member} {hash:?}, member 0 {wanted:?}"
        );
    }
    Ok(())
}

fn judge(history: &History, cluster: &Cluster) -> Result<Counts> {
    let (violations, counts) = check::check(history);
    if violations.is_empty() {
        return Ok(counts);
    }
    for violation in violations.iter().take(PRINTED) {
        println!("{violation}");
    }
    let path = cluster.setup.dir.join("history.txt");
    std::fs::write(&path, format!("{history:#?}"))?;
    bail!(
        "{} violations; the history is in {}, the members' logs beside it",
        violations.len(),
        path.display()
    )
}
