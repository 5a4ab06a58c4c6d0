//! `cargo xtask listing`: one long range beside a writer, on one server.
//!
//! It prints what a range over all keys costs in memory (anonymous pages, the most seen while it
//! lasts against before) and how long the longest put took meanwhile.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use prost::Message;
use quorate_proto::etcdserverpb::{
    PutRequest, RangeRequest, RequestOp, TxnRequest, kv_client::KvClient, request_op::Request as Op,
};
use tokio::task::JoinSet;
use tonic::transport::{Channel, Endpoint};

use crate::member::{Config, Member, anonymous_kib};
use crate::{rust_checks, workspace};

const VALUE_BYTES: usize = 256;
/// Puts of one txn while keys are filled in; etcd takes 128.
const TXN_PUTS: u32 = 100;
const FILLERS: u32 = 16;
/// How often memory is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// Lists all keys while a writer puts; prints extra memory and the longest put.
#[derive(clap::Args)]
pub(crate) struct Listing {
    /// Keys, of 24 bytes with values of 256.
    #[arg(long, default_value_t = 1_000_000)]
    keys: u32,
    /// Measure this server instead of building ours.
    #[arg(long)]
    server: Option<PathBuf>,
}

impl Listing {
    pub(crate) fn run(self) -> Result<ExitCode> {
        let server = match &self.server {
            Some(path) => path.clone(),
            None => rust_checks::build_server()?,
        };
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()?;
        runtime.block_on(self.measure(&server))?;
        Ok(ExitCode::SUCCESS)
    }

    async fn measure(&self, server: &Path) -> Result<()> {
        let dir = workspace::empty_dir("listing")?;
        let flags = &[
            "--quota-backend-bytes=8589934592",
            "--auto-compaction-retention=1h",
        ];
        let member = Member::start(&Config {
            server,
            dir: &dir,
            flags,
        })?;
        let port = member.client_port;
        let began = Instant::now();
        fill(port, self.keys).await?;
        println!(
            "filled {} keys in {:.1} s",
            self.keys,
            began.elapsed().as_secs_f64()
        );
        // Checkpoints and the allocator come to rest.
        tokio::time::sleep(Duration::from_secs(5)).await;
        let all = RangeRequest {
            key: b"/listing/".to_vec().into(),
            range_end: b"/listing0".to_vec().into(),
            ..RangeRequest::default()
        };
        let variants = [
            ("no range at all", None),
            ("all keys", Some(all.clone())),
            ("all keys, again", Some(all.clone())),
            (
                "count only",
                Some(RangeRequest {
                    count_only: true,
                    ..all.clone()
                }),
            ),
            (
                "limit 1,000",
                Some(RangeRequest {
                    limit: 1_000,
                    ..all.clone()
                }),
            ),
            (
                "keys only",
                Some(RangeRequest {
                    keys_only: true,
                    ..all.clone()
                }),
            ),
            (
                "descending",
                Some(RangeRequest {
                    sort_order: 2,
                    ..all.clone()
                }),
            ),
            (
                "newest first",
                Some(RangeRequest {
                    sort_order: 2,
                    sort_target: 3,
                    ..all
                }),
            ),
        ];
        println!("| range | s | MB | extra MiB | longest put ms | p99 ms | puts |");
        println!("|---|---:|---:|---:|---:|---:|---:|");
        for (name, request) in variants {
            let line = beside_a_writer(&member, self.keys, request).await;
            println!("| {name} | {} |", line.with_context(|| name.to_owned())?);
        }
        Ok(())
    }
}

async fn fill(port: u16, keys: u32) -> Result<()> {
    let mut tasks = JoinSet::new();
    for first in 0..FILLERS {
        tasks.spawn(async move {
            let mut client = connect(port).await?;
            for start in (first * TXN_PUTS..keys).step_by((FILLERS * TXN_PUTS) as usize) {
                let puts = (start..keys.min(start + TXN_PUTS)).map(|number| RequestOp {
                    request: Some(Op::RequestPut(put(number))),
                });
                let txn = TxnRequest {
                    success: puts.collect(),
                    ..TxnRequest::default()
                };
                client.txn(txn).await?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(ended) = tasks.join_next().await {
        ended??;
    }
    Ok(())
}

async fn connect(port: u16) -> Result<KvClient<Channel>> {
    let endpoint = Endpoint::from_shared(format!("http://127.0.0.1:{port}"))?;
    let client = KvClient::new(endpoint.connect().await?);
    Ok(client.max_decoding_message_size(usize::MAX))
}

fn put(number: u32) -> PutRequest {
    PutRequest {
        key: format!("/listing/{number:015}").into(),
        value: vec![b'v'; VALUE_BYTES].into(),
        ..PutRequest::default()
    }
}

/// One range, or a second without one, beside a client that puts.
async fn beside_a_writer(
    member: &Member,
    keys: u32,
    request: Option<RangeRequest>,
) -> Result<String> {
    let (port, pid) = (member.client_port, member.pid());
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let writer = tokio::spawn(async move {
        let mut client = connect(port).await?;
        let mut latencies = Vec::new();
        while !*stopped.borrow() {
            let sent = Instant::now();
            client.put(put(fastrand::u32(..keys))).await?;
            latencies.push(sent.elapsed());
        }
        anyhow::Ok(latencies)
    });
    let before = anonymous_kib(pid)?;
    let mut looking = stop.subscribe();
    let memory = std::thread::spawn(move || {
        let mut most = before;
        while !*looking.borrow_and_update() {
            most = most.max(anonymous_kib(pid).unwrap_or(0));
            std::thread::sleep(LOOK_EVERY);
        }
        most
    });
    let began = Instant::now();
    let bytes = match request {
        None => {
            tokio::time::sleep(Duration::from_secs(1)).await;
            0
        }
        Some(request) => {
            let mut client = connect(port).await?;
            let answer = client.range(request).await?.into_inner();
            ensure!(answer.count == i64::from(keys), "keys are missing");
            answer.encoded_len()
        }
    };
    let took = began.elapsed();
    stop.send_replace(true);
    let mut latencies = writer.await??;
    let most = memory.join().expect("it only looks");
    latencies.sort_unstable();
    let last = latencies.last().context("no put was made")?;
    let p99 = latencies[(latencies.len() - 1) * 99 / 100];
    let ms = |time: Duration| time.as_secs_f64() * 1e3;
    Ok(format!(
        "{:.2} | {:.1} | {:.1} | {:.1} | {:.2} | {}",
        took.as_secs_f64(),
        bytes as f64 / 1e6,
        (most - before) as f64 / 1024.0,
        ms(*last),
        ms(p99),
        latencies.len()
    ))
}
