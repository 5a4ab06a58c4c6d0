//! The kill test: a real server under load in both dialects is killed again and again, and must
//! keep its promises each time it starts.
//!
//! A round starts the server, compares what it holds with the [`ledger`], resumes the watches and
//! waits until they have told everything, lets the writers loose, and kills the server at a random
//! moment; now and then already while it starts. The seed is printed; it fixes what is asked for and
//! when, though not what the machine makes of it.

pub(crate) mod damage;
mod ledger;
mod watchers;
mod writers;

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use fastrand::Rng;
use quorate_proto::etcdserverpb::kv_client::KvClient;
use quorate_proto::etcdserverpb::{CompactionRequest, RangeRequest};
use serde_json::Value;
use tokio::task::JoinSet;
use tonic::transport::{Channel, Endpoint};

use crate::http::Http;
use crate::member::{self, Config, Member};
use crate::outcome::Outcome;
use crate::workspace;
use ledger::{Held, Ledger, Seen, State};
use watchers::{Log, PREFIX, PREFIX_END};
use writers::Shared;

/// Rounds in `cargo xtask test`.
const ROUNDS: u32 = 20;
/// Writers of each dialect.
const WRITERS: usize = 6;
/// The longest time of load in a round.
const LOAD_MS: u64 = 1000;
/// How long the watches may take to tell what they missed.
const CATCH_UP: Duration = Duration::from_secs(30);

/// The suite of `cargo xtask test`.
pub(crate) fn suite(server: &Path) -> Result<Outcome> {
    let killed = rounds(server, ROUNDS, fastrand::u64(..))?;
    let damaged = damage::check(server)?;
    Ok(Outcome::Passed(format!("{killed}; {damaged}")))
}

/// Kills the server so many times and says what was checked.
pub(crate) fn rounds(server: &Path, rounds: u32, seed: u64) -> Result<String> {
    println!("kill test: {rounds} rounds, --seed {seed}");
    let dir = workspace::empty_dir("kill")?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let result = runtime.block_on(run(server, &dir, rounds, Rng::with_seed(seed)));
    result.with_context(|| format!("with --seed {seed}; the data is in {}", dir.display()))
}

async fn run(server: &Path, dir: &Path, rounds: u32, mut rng: Rng) -> Result<String> {
    let config = Config {
        server,
        dir,
        flags: &[],
    };
    let ports = member::free_ports();
    let mut member = Member::spawn(&config, ports)?;
    member.await_ready()?;
    let (_, revision) = read_v3(ports.0).await?;
    let ledger = Arc::new(Mutex::new(Ledger::new(revision)));
    let logs = Logs::default();
    for round in 1..=rounds {
        let shared = Shared::new(Arc::clone(&ledger), ports.0);
        let context = || format!("in round {round}");
        let checked = one_round(&shared, &mut member, &logs, &mut rng)
            .await
            .with_context(context)?;
        println!("round {round}: all is well up to revision {checked}");
        if rng.u8(..8) == 0 {
            member = Member::spawn(&config, ports)?;
            tokio::time::sleep(Duration::from_millis(rng.u64(0..150))).await;
            member.kill()?;
            println!("round {round}: killed while it started, too");
        }
        member = Member::spawn(&config, ports)?;
        let ready = member.await_ready();
        ready.with_context(|| format!("after round {round}"))?;
    }
    let shared = Shared::new(ledger, ports.0);
    let mut tasks = JoinSet::new();
    let revision = check(&shared, &logs, &mut tasks)
        .await
        .context("after the last round")?;
    Ok(format!(
        "killed {rounds} times, {revision} revisions checked in both dialects"
    ))
}

/// What the watches of both dialects have shown and was not yet checked.
#[derive(Default)]
struct Logs {
    v3: Log,
    v2: Log,
}

/// Checks a server that has just started, puts load on it and kills it.
async fn one_round(
    shared: &Shared,
    member: &mut Member,
    logs: &Logs,
    rng: &mut Rng,
) -> Result<i64> {
    let mut tasks = JoinSet::new();
    let checked = check(shared, logs, &mut tasks).await?;
    if rng.u8(..8) == 0 {
        compact(shared.port, checked - 1).await?;
    }
    for at in 0..WRITERS {
        tasks.spawn(writers::write_v3(
            shared.clone(),
            format!("v3-{at}"),
            rng.fork(),
        ));
        tasks.spawn(writers::write_v2(
            shared.clone(),
            format!("v2-{at}"),
            rng.fork(),
        ));
    }
    let load = Duration::from_millis(rng.u64(20..LOAD_MS));
    // No task ends before the kill but by an error.
    if let Ok(Some(ended)) = tokio::time::timeout(load, tasks.join_next()).await {
        ended??;
        bail!("a task ended before the server was killed");
    }
    shared.killing();
    member.kill()?;
    while let Some(ended) = tasks.join_next().await {
        ended??;
    }
    Ok(checked)
}

/// Resumes the watches, waits for what they missed, and compares everything with the ledger.
/// Returns the revision up to which all has been checked.
async fn check(shared: &Shared, logs: &Logs, tasks: &mut JoinSet<Result<()>>) -> Result<i64> {
    let (mut found, revision) = read_v3(shared.port).await?;
    let directories = compare_v2(shared.port, &found, revision).await?;
    found.extend(directories);
    tasks.spawn(watchers::watch_v3(shared.clone(), Arc::clone(&logs.v3)));
    tasks.spawn(watchers::watch_v2(shared.clone(), Arc::clone(&logs.v2)));
    let started = Instant::now();
    while !has_caught_up(shared, logs, revision) {
        if let Some(ended) = tasks.try_join_next() {
            ended??;
        }
        ensure!(
            started.elapsed() < CATCH_UP,
            "the watches did not come up to revision {revision}"
        );
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let (mut v3, mut v2) = (lock(&logs.v3), lock(&logs.v2));
    shared.ledger().check(&found, revision, &mut v3, &mut v2)?;
    Ok(revision)
}

/// Every revision of the test has an event in v2; in v3 all have but those of directories. v2's
/// events of one revision come one by one, and each of v3's puts has one.
fn has_caught_up(shared: &Shared, logs: &Logs, revision: i64) -> bool {
    let (v3, v2) = (lock(&logs.v3), lock(&logs.v2));
    let checked = shared.ledger().checked();
    v2.last().max(checked) >= revision
        && v3.last() >= v2.last_where(|key| !is_directory(key))
        && v2.puts_at(revision) >= v3.puts_at(revision)
}

fn lock(log: &Log) -> std::sync::MutexGuard<'_, Seen> {
    log.lock().expect("no task panics with a log")
}

fn is_directory(key: &str) -> bool {
    key.starts_with("/kill/dirs-")
}

/// All keys of the test, and the revision at which they were read.
async fn read_v3(port: u16) -> Result<(State, i64)> {
    let mut client = KvClient::new(channel(port).await?).max_decoding_message_size(usize::MAX);
    let (key, range_end) = (PREFIX.into(), PREFIX_END.into());
    let answer = client
        .range(RangeRequest {
            key,
            range_end,
            ..RangeRequest::default()
        })
        .await?
        .into_inner();
    let revision = answer
        .header
        .context("an answer without a header")?
        .revision;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let held = |kv: &quorate_proto::mvccpb::KeyValue| Held {
        value: text(&kv.value),
        revision: kv.mod_revision,
    };
    Ok((
        answer
            .kvs
            .iter()
            .map(|kv| (text(&kv.key), held(kv)))
            .collect(),
        revision,
    ))
}

/// Compares v2's view of all keys with v3's, and returns the directories, which only v2 shows.
async fn compare_v2(port: u16, v3: &State, revision: i64) -> Result<State> {
    let path = format!("/v2/keys{PREFIX}?recursive=true&quorum=true");
    let answer = Http::connect(port).await?.request("GET", &path, "").await?;
    ensure!(
        answer.index == revision,
        "v2 is at index {}, v3 at revision {revision}",
        answer.index
    );
    let (mut keys, mut directories) = (State::new(), State::new());
    if answer.status != 404 {
        ensure!(answer.status == 200, "{} {}", answer.status, answer.body);
        let body: Value = serde_json::from_str(&answer.body)?;
        gather(&body["node"], &mut keys, &mut directories)?;
    }
    for (key, held) in v3 {
        ensure!(
            keys.get(key) == Some(held),
            "{key}: v3 {held:?}, v2 {:?}",
            keys.get(key)
        );
    }
    ensure!(
        keys.len() == v3.len(),
        "v2 shows {} keys, v3 {}",
        keys.len(),
        v3.len()
    );
    Ok(directories)
}

fn gather(node: &Value, keys: &mut State, directories: &mut State) -> Result<()> {
    let key = node["key"]
        .as_str()
        .with_context(|| format!("no key in {node}"))?;
    let index = |name: &str| {
        node[name]
            .as_i64()
            .with_context(|| format!("no {name} in {node}"))
    };
    if node["dir"] == true {
        if is_directory(key) && key.matches('/').count() == 3 {
            directories.insert(
                key.into(),
                Held {
                    value: String::new(),
                    revision: index("createdIndex")?,
                },
            );
        }
        for node in node["nodes"].as_array().into_iter().flatten() {
            gather(node, keys, directories)?;
        }
    } else {
        let value = node["value"]
            .as_str()
            .with_context(|| format!("no value in {node}"))?
            .to_owned();
        keys.insert(
            key.into(),
            Held {
                value,
                revision: index("modifiedIndex")?,
            },
        );
    }
    Ok(())
}

/// A gRPC connection to a server on this machine.
async fn channel(port: u16) -> Result<Channel, tonic::transport::Error> {
    let endpoint = Endpoint::from_shared(format!("http://127.0.0.1:{port}"))?;
    endpoint.connect().await
}

async fn compact(port: u16, revision: i64) -> Result<()> {
    let mut client = KvClient::new(channel(port).await?);
    match client
        .compact(CompactionRequest {
            revision,
            physical: false,
        })
        .await
    {
        // Compacted there already.
        Err(status) if status.code() == tonic::Code::OutOfRange => Ok(()),
        answer => Ok(answer.map(drop)?),
    }
}
