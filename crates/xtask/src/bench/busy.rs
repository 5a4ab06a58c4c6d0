//! How long puts take at a steady rate while the server does its housework, against when it does none.
//!
//! Busy: a thread compacts and reads a snapshot every second, and so much is written that checkpoints
//! are due. Quiet: the same puts, on the same server, before, and between two checkpoints.

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use quorate_load::{Keys, Pace, Report, Template, Until, Work};
use quorate_proto::etcdserverpb::kv_client::KvClient;
use quorate_proto::etcdserverpb::maintenance_client::MaintenanceClient;
use quorate_proto::etcdserverpb::{CompactionRequest, SnapshotRequest, StatusRequest};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};

use super::cases::{KEYS, put_random};
use super::pair::{HUNDRED, Side, fill_all, run};
use super::results::Figures;
use crate::tools;

const PUTS_PER_SECOND: u32 = 5_000;
/// Large enough that a checkpoint is due every some six seconds; and no later than this.
const VALUE_BYTES: usize = 2_048;
const CHECKPOINT_S: u32 = 10;
/// How much history a compaction leaves.
const KEPT_REVISIONS: i64 = 1_000;
/// From the start of a compaction or a snapshot to that of the next.
const EVERY: Duration = Duration::from_secs(1);
const CHECKPOINTS: &str = "quorate_checkpoints_total";

/// What the housework came to.
#[derive(Default)]
struct Done {
    compactions: u32,
    snapshots: u32,
    snapshot_bytes: u64,
    has_snapshots: bool,
}

/// Measures a server: `time` quiet, three times as long busy.
pub(super) fn measure(side: &Side, time: Duration) -> Result<Figures> {
    let template = put_random(VALUE_BYTES);
    fill_all(side, template.clone())?;
    // Or the quiet puts would wait for what the disk still owes.
    tools::run(&mut Command::new("sync"))?;
    let mut generator = side.connect(HUNDRED, &template)?;
    let mut puts = |time| run(side, &mut generator, &work(&template, time));
    // The quiet time begins behind a checkpoint, and so ends before the next.
    let filled = side.metric(CHECKPOINTS)?;
    for _ in 0..CHECKPOINT_S {
        puts(Duration::from_secs(1))?;
        if side.metric(CHECKPOINTS)? > filled {
            break;
        }
    }
    let at_start = side.metric(CHECKPOINTS)?.unwrap_or(0.0);
    let quiet = puts(time)?;
    let between = side.metric(CHECKPOINTS)?.unwrap_or(0.0);
    let stop = Arc::new(AtomicBool::new(false));
    let (port, stopped) = (side.member.client_port, Arc::clone(&stop));
    let housework = thread::spawn(move || keep_busy(port, &stopped));
    let busy = puts(time * 3);
    stop.store(true, Ordering::Relaxed);
    let done = housework.join().expect("it does not panic")?;
    let at_end = side.metric(CHECKPOINTS)?.unwrap_or(0.0);
    Ok(figures(
        &quiet,
        &busy?,
        &done,
        [between - at_start, at_end - between],
    ))
}

fn work(template: &Template, time: Duration) -> Work {
    Work {
        templates: vec![(1, template.clone())],
        keys: Keys::Any(KEYS),
        pace: Pace::Open(PUTS_PER_SECOND),
        until: Until::Elapsed(time),
    }
}

fn figures(quiet: &Report, busy: &Report, done: &Done, checkpoints: [f64; 2]) -> Figures {
    let p99 = |report: &Report| report.latencies.quantile(0.99) as f64 / 1e6;
    let p50 = |report: &Report| report.latencies.quantile(0.5) as f64 / 1e6;
    let pairs = [
        ("quiet_p50_ms", p50(quiet)),
        ("quiet_p99_ms", p99(quiet)),
        ("busy_p50_ms", p50(busy)),
        ("busy_p99_ms", p99(busy)),
        ("busy_max_ms", busy.latencies.max() as f64 / 1e6),
        ("ratio", p99(busy) / p99(quiet)),
        ("checkpoints_quiet", checkpoints[0]),
        ("checkpoints_busy", checkpoints[1]),
        ("compactions", f64::from(done.compactions)),
        ("snapshots", f64::from(done.snapshots)),
        ("snapshot_mb", done.snapshot_bytes as f64 / 1e6),
        ("has_snapshots", f64::from(u8::from(done.has_snapshots))),
    ];
    pairs.map(|(name, value)| (name.to_owned(), value)).into()
}

/// Compacts and reads snapshots until told to stop.
fn keep_busy(port: u16, stop: &AtomicBool) -> Result<Done> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let endpoint = Endpoint::from_shared(format!("http://127.0.0.1:{port}"))?;
        let channel = endpoint.connect().await?;
        let (compactions, snapshots) =
            tokio::join!(compact(channel.clone(), stop), snapshots(channel, stop));
        let snapshots = snapshots.context("a snapshot failed")?;
        Ok(Done {
            compactions: compactions.context("a compaction failed")?,
            ..snapshots
        })
    })
}

async fn compact(channel: Channel, stop: &AtomicBool) -> Result<u32, Status> {
    let mut count = 0;
    while !stop.load(Ordering::Relaxed) {
        let start = Instant::now();
        let status = MaintenanceClient::new(channel.clone())
            .status(StatusRequest {})
            .await?;
        let latest = status
            .into_inner()
            .header
            .map_or(0, |header| header.revision);
        let request = CompactionRequest {
            revision: latest - KEPT_REVISIONS,
            physical: true,
        };
        KvClient::new(channel.clone()).compact(request).await?;
        count += 1;
        pause(start, stop).await;
    }
    Ok(count)
}

/// Reads snapshots to their ends; none from a server that has none.
async fn snapshots(channel: Channel, stop: &AtomicBool) -> Result<Done, Status> {
    let client = MaintenanceClient::new(channel);
    let mut client = client.max_decoding_message_size(usize::MAX);
    let mut done = Done {
        has_snapshots: true,
        ..Done::default()
    };
    while !stop.load(Ordering::Relaxed) {
        let start = Instant::now();
        let mut stream = match client.snapshot(SnapshotRequest {}).await {
            Ok(answer) => answer.into_inner(),
            Err(status) if status.code() == Code::Unimplemented => {
                done.has_snapshots = false;
                break;
            }
            Err(status) => return Err(status),
        };
        while let Some(piece) = stream.message().await? {
            done.snapshot_bytes += piece.blob.len() as u64;
            if stop.load(Ordering::Relaxed) {
                return Ok(done);
            }
        }
        done.snapshots += 1;
        pause(start, stop).await;
    }
    Ok(done)
}

/// Waits for what is left of [`EVERY`] since the start, if not told to stop.
async fn pause(start: Instant, stop: &AtomicBool) {
    while start.elapsed() < EVERY && !stop.load(Ordering::Relaxed) {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
