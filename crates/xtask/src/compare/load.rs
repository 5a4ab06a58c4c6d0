//! The operations that are measured, and one run of one of them.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use quorate_proto::etcdserverpb::{PutRequest, RangeRequest};
use tokio::task::{JoinSet, LocalSet};

use super::grpc::Grpc;
use crate::http::Http;
use crate::member::Member;

/// Keys that are written and read, in each dialect.
const KEYS: u32 = 100_000;
const VALUE_BYTES: usize = 256;
/// What runs before the figures are taken.
const WARM_UP: Duration = Duration::from_secs(1);
/// The kernel's unit in `/proc/PID/stat`, fixed for user space on Linux.
const TICKS_PER_SECOND: f64 = 100.0;

/// One thing that clients do.
pub(super) struct Operation {
    pub(super) name: &'static str,
    pub(super) about: &'static str,
    kind: Kind,
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Put,
    Range,
    V2Put,
    V2Get,
}

/// In order; reads come after the writes whose keys they read.
pub(super) const OPERATIONS: &[Operation] = &[
    Operation {
        name: "put",
        about: "v3 put",
        kind: Kind::Put,
    },
    Operation {
        name: "range",
        about: "v3 range of one key, linearizable",
        kind: Kind::Range,
    },
    Operation {
        name: "v2-put",
        about: "v2 put",
        kind: Kind::V2Put,
    },
    Operation {
        name: "v2-get",
        about: "v2 get",
        kind: Kind::V2Get,
    },
];

/// What one run measured.
pub(super) struct Figures {
    pub(super) per_second: f64,
    pub(super) p50_ms: f64,
    pub(super) p99_ms: f64,
    /// User and system time of the server's process per operation.
    pub(super) cpu_us: f64,
}

enum Client {
    Grpc(Grpc),
    Http(Http),
}

/// Fills the keys, warms up, and measures for `length`.
pub(super) async fn run(
    member: &Member,
    op: &Operation,
    clients: usize,
    length: Duration,
) -> Result<Figures> {
    let mut pool = Vec::new();
    for _ in 0..clients {
        pool.push(match op.kind {
            Kind::Put | Kind::Range => Client::Grpc(Grpc::connect(member.client_port).await?),
            Kind::V2Put | Kind::V2Get => Client::Http(Http::connect(member.client_port).await?),
        });
    }
    LocalSet::new()
        .run_until(measure(member, op.kind, pool, length))
        .await
}

async fn measure(
    member: &Member,
    kind: Kind,
    pool: Vec<Client>,
    length: Duration,
) -> Result<Figures> {
    let filled = matches!(kind, Kind::Range | Kind::V2Get);
    let writes = if kind == Kind::V2Get {
        Kind::V2Put
    } else {
        Kind::Put
    };
    let pool = if filled {
        fill(writes, pool).await?
    } else {
        pool
    };
    let latencies = Rc::new(RefCell::new(Vec::<u32>::new()));
    let start = Instant::now() + WARM_UP;
    let end = start + length;
    let mut tasks = JoinSet::new();
    for mut client in pool {
        let latencies = Rc::clone(&latencies);
        tasks.spawn_local(async move {
            loop {
                let sent = Instant::now();
                if sent >= end {
                    return anyhow::Ok(());
                }
                client.one(kind, fastrand::u32(..KEYS)).await?;
                if sent >= start {
                    let micros = u32::try_from(sent.elapsed().as_micros())?;
                    latencies.borrow_mut().push(micros);
                }
            }
        });
    }
    tokio::time::sleep_until(start.into()).await;
    let cpu_before = cpu_seconds(member)?;
    tokio::time::sleep_until(end.into()).await;
    let cpu = cpu_seconds(member)? - cpu_before;
    while let Some(ended) = tasks.join_next().await {
        ended??;
    }
    let mut latencies = latencies.take();
    latencies.sort_unstable();
    ensure!(!latencies.is_empty(), "nothing was answered");
    let count = latencies.len();
    let at = |share: f64| f64::from(latencies[((count - 1) as f64 * share) as usize]) / 1000.0;
    Ok(Figures {
        per_second: count as f64 / length.as_secs_f64(),
        p50_ms: at(0.5),
        p99_ms: at(0.99),
        cpu_us: cpu * 1e6 / count as f64,
    })
}

/// Writes each key once, so that every read finds one.
async fn fill(kind: Kind, pool: Vec<Client>) -> Result<Vec<Client>> {
    let clients = u32::try_from(pool.len())?;
    let mut tasks = JoinSet::new();
    for (first, mut client) in (0..).zip(pool) {
        tasks.spawn_local(async move {
            for key in (first..KEYS).step_by(clients as usize) {
                client.one(kind, key).await?;
            }
            anyhow::Ok(client)
        });
    }
    let mut pool = Vec::new();
    while let Some(client) = tasks.join_next().await {
        pool.push(client??);
    }
    Ok(pool)
}

impl Client {
    /// Does one operation on a key and checks that it was done.
    async fn one(&mut self, kind: Kind, key: u32) -> Result<()> {
        let path = format!("/bench/{key:017}");
        match self {
            Self::Grpc(grpc) if kind == Kind::Put => {
                let value = vec![b'v'; VALUE_BYTES].into();
                let put = PutRequest {
                    key: path.into(),
                    value,
                    ..PutRequest::default()
                };
                grpc.call("/etcdserverpb.KV/Put", &put).await?;
            }
            Self::Grpc(grpc) => {
                let range = RangeRequest {
                    key: path.into(),
                    ..RangeRequest::default()
                };
                let length = grpc.call("/etcdserverpb.KV/Range", &range).await?;
                ensure!(length > VALUE_BYTES, "a key was not found");
            }
            Self::Http(http) => {
                let path = format!("/v2/keys{path}");
                let answer = if kind == Kind::V2Put {
                    http.request("PUT", &path, &format!("value={}", "v".repeat(VALUE_BYTES)))
                        .await?
                } else {
                    http.request("GET", &path, "").await?
                };
                ensure!(
                    matches!(answer.status, 200 | 201),
                    "{} {}",
                    answer.status,
                    answer.body
                );
            }
        }
        Ok(())
    }
}

/// User and system time that the server's process has used.
fn cpu_seconds(member: &Member) -> Result<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", member.pid()))?;
    // The second field is the program's name, which may contain anything but is in brackets.
    let (_, rest) = stat.rsplit_once(')').context("no program name")?;
    let fields: Vec<_> = rest.split_whitespace().collect();
    let ticks = |at: usize| -> Result<f64> { Ok(fields.get(at).context("a short line")?.parse()?) };
    Ok((ticks(11)? + ticks(12)?) / TICKS_PER_SECOND)
}
