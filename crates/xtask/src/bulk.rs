//! Many gigabytes of values on one member: filled, started again, listed, half of them deleted and
//! their room given back, with its memory looked at all the while.
//!
//! Values are of 16 KiB and made from their key's number, so that each can be checked. Two thirds of
//! the first three quarters are deleted: those segments stay a third alive, so their values must be
//! copied forward before they can go.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use quorate_proto::etcdserverpb::kv_client::KvClient;
use quorate_proto::etcdserverpb::{
    CompactionRequest, DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest,
    request_op::Request as Op,
};
use tokio::task::JoinSet;
use tonic::transport::{Channel, Endpoint};

use crate::member::{self, Config, Member};
use crate::workspace;

const VALUE_BYTES: usize = 16 << 10;
const WRITERS: u32 = 16;
/// Keys deleted in one txn.
const TXN_DELETES: usize = 100;
/// Keys of a page of the listing.
const PAGE: i64 = 1_000;
/// What a member may hold in memory that no file is behind: the index, and what requests take.
const MEMORY_MIB: u64 = 160;
/// The index takes so many bytes a key; with the versions of a delete, twice.
const KEY_BYTES: u64 = 320;
/// How long a start may take, and the giving back of room.
const START_LIMIT: Duration = Duration::from_secs(60);
const ROOM_LIMIT: Duration = Duration::from_secs(1800);
/// Beside what lives: the reserve, segments ready or half full, checkpoints.
const SLACK_MIB: u64 = 768;
/// A segment is emptied once less than half of it lives, so so many hundredths of what lives may
/// stand on the disk.
const SPARSE_PERCENT: u64 = 130;

/// Runs the whole; what came of it.
pub(crate) fn check(server: &Path, gigabytes: u64) -> Result<String> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?;
    let keys = u32::try_from(gigabytes * 1_000_000_000 / VALUE_BYTES as u64)?;
    runtime.block_on(run(server, keys))
}

async fn run(server: &Path, keys: u32) -> Result<String> {
    let dir = workspace::empty_dir("bulk")?;
    let flags = &["--quota-backend-bytes=-1", "--auto-compaction-retention=0"][..];
    let config = Config {
        server,
        dir: &dir,
        flags,
    };
    let mut member = Member::start(&config)?;
    let mut told = Vec::new();
    let mut tell = |what: &str, began: Instant, detail: String| {
        let line = format!("{what} {:.1} s{detail}", began.elapsed().as_secs_f64());
        println!("{line}");
        told.push(line);
    };

    let (began, memory) = (Instant::now(), Memory::watch(&member));
    fill(member.client_port, keys).await.context("filling")?;
    let most = memory.most(keys)?;
    tell(
        "filled",
        began,
        format!(", {most} MiB, {} MB on disk", disk_mb(&dir)?),
    );

    member.kill()?;
    let began = Instant::now();
    member = Member::start(&config)?;
    ensure!(began.elapsed() < START_LIMIT, "it takes long to start");
    tell("started again", began, String::new());

    let (began, memory) = (Instant::now(), Memory::watch(&member));
    let all = |number: u32| number < keys;
    list(member.client_port, keys, all)
        .await
        .context("listing")?;
    tell("listed", began, format!(", {} MiB", memory.most(keys)?));

    let (began, memory) = (Instant::now(), Memory::watch(&member));
    let (before, goes) = (disk_mb(&dir)?, |number: u32| {
        !number.is_multiple_of(3) && number < keys / 4 * 3
    });
    let revision = delete(member.client_port, (0..keys).filter(|n| goes(*n))).await?;
    let request = CompactionRequest {
        revision,
        physical: true,
    };
    connect(member.client_port).await?.compact(request).await?;
    let left = u64::from((0..keys).filter(|n| !goes(*n)).count() as u32) * VALUE_BYTES as u64;
    let bound = left / 1_000_000 * SPARSE_PERCENT / 100 + (SLACK_MIB << 20) / 1_000_000;
    while disk_mb(&dir)? > bound {
        let now = disk_mb(&dir)?;
        ensure!(
            began.elapsed() < ROOM_LIMIT,
            "{now} of {before} MB are still there"
        );
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let detail = format!(
        ", {before} to {} MB, {} MiB",
        disk_mb(&dir)?,
        memory.most(keys)?
    );
    tell("half deleted and its room back after", began, detail);

    let began = Instant::now();
    let stays = |number: u32| number < keys && !goes(number);
    list(member.client_port, keys, stays)
        .await
        .context("listing what is left")?;
    tell("listed what is left", began, String::new());
    member.kill()?;
    std::fs::remove_dir_all(&dir)?;
    Ok(told.join("; "))
}

fn key(number: u32) -> String {
    format!("/bulk/{number:010}")
}

/// A value that no other key has.
fn value(number: u32) -> Vec<u8> {
    let mut value = Vec::with_capacity(VALUE_BYTES);
    let mut chance = fastrand::Rng::with_seed(number.into());
    while value.len() < VALUE_BYTES {
        value.extend_from_slice(&chance.u64(..).to_le_bytes());
    }
    value
}

async fn connect(port: u16) -> Result<KvClient<Channel>> {
    let endpoint = Endpoint::from_shared(format!("http://127.0.0.1:{port}"))?;
    let client = KvClient::new(endpoint.connect().await?);
    Ok(client.max_decoding_message_size(usize::MAX))
}

async fn fill(port: u16, keys: u32) -> Result<()> {
    let next = Arc::new(std::sync::atomic::AtomicU32::new(0));
    let mut writers = JoinSet::new();
    for _ in 0..WRITERS {
        let next = next.clone();
        writers.spawn(async move {
            let mut client = connect(port).await?;
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= keys {
                    return anyhow::Ok(());
                }
                let request = PutRequest {
                    key: key(number).into(),
                    value: value(number).into(),
                    ..PutRequest::default()
                };
                client.put(request).await?;
            }
        });
    }
    while let Some(ended) = writers.join_next().await {
        ended??;
    }
    Ok(())
}

/// Reads everything, a page at a time: what is there must be what `stays`, whole.
async fn list(port: u16, keys: u32, stays: impl Fn(u32) -> bool) -> Result<()> {
    let mut client = connect(port).await?;
    let mut expected = (0..keys).filter(|number| stays(*number));
    let mut from = key(0).into_bytes();
    loop {
        let request = RangeRequest {
            key: from.clone().into(),
            range_end: b"/bulk0".to_vec().into(),
            limit: PAGE,
            ..RangeRequest::default()
        };
        let answer = client.range(request).await?.into_inner();
        for kv in &answer.kvs {
            let number = expected.next().context("a key too many")?;
            let is_right = kv.key == key(number).as_bytes() && kv.value == value(number);
            ensure!(is_right, "{:?} where key {number} should be", kv.key);
        }
        let Some(last) = answer.kvs.last().filter(|_| answer.more) else {
            break;
        };
        from = [&last.key[..], &[0]].concat();
    }
    ensure!(expected.next().is_none(), "keys are missing");
    Ok(())
}

/// Deletes keys; the last revision.
async fn delete(port: u16, numbers: impl Iterator<Item = u32>) -> Result<i64> {
    let mut client = connect(port).await?;
    let numbers: Vec<u32> = numbers.collect();
    let mut revision = 0;
    for numbers in numbers.chunks(TXN_DELETES) {
        let deletes = numbers.iter().map(|number| RequestOp {
            request: Some(Op::RequestDeleteRange(DeleteRangeRequest {
                key: key(*number).into(),
                ..DeleteRangeRequest::default()
            })),
        });
        let txn = TxnRequest {
            success: deletes.collect(),
            ..TxnRequest::default()
        };
        let answer = client.txn(txn).await?.into_inner();
        revision = answer.header.context("a header")?.revision;
    }
    Ok(revision)
}

fn disk_mb(dir: &Path) -> Result<u64> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(member::data_dir(dir))? {
        // A file that goes meanwhile does not count.
        bytes += entry?.metadata().map_or(0, |metadata| metadata.len());
    }
    Ok(bytes / 1_000_000)
}

/// Looks at a member's memory until it is asked for the most that was seen.
struct Memory {
    most_kib: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
}

impl Memory {
    fn watch(member: &Member) -> Self {
        let pid = member.pid();
        let memory = Self {
            most_kib: Arc::default(),
            stop: Arc::default(),
        };
        let (most, stop) = (memory.most_kib.clone(), memory.stop.clone());
        std::thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                // Of a process that is gone there is nothing to see.
                most.fetch_max(member::anonymous_kib(pid).unwrap_or(0), Ordering::Relaxed);
                std::thread::sleep(Duration::from_millis(20));
            }
        });
        memory
    }

    /// The most seen, in MiB, which is within the bound.
    fn most(&self, keys: u32) -> Result<u64> {
        let most = self.most_kib.load(Ordering::Relaxed) >> 10;
        let bound = MEMORY_MIB + ((u64::from(keys) * KEY_BYTES) >> 20);
        ensure!(
            most > 0 && most <= bound,
            "{most} MiB of memory, more than {bound}"
        );
        Ok(most)
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}
