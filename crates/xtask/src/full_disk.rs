//! A server on a small disk of its own: it is filled, killed while full, started while not a byte is
//! left, and must go on by itself once there is room. Nothing that was answered may be lost.
//!
//! The disk is a tmpfs in a mount namespace, so this needs root.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use quorate_proto::etcdserverpb::kv_client::KvClient;
use quorate_proto::etcdserverpb::{
    CompactionRequest, DeleteRangeRequest, PutRequest, RangeRequest,
};
use tokio::task::JoinSet;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};

use crate::http::Http;
use crate::member::{self, Config, Member};
use crate::outcome::Outcome;
use crate::{tools, workspace};

/// What the disk has at first, and later; in MiB.
const SIZE_MIB: u32 = 480;
const LARGER_MIB: u32 = 800;
const VALUE_BYTES: usize = 200_000;
const WRITERS: u32 = 4;
const NO_SPACE: &str = "etcdserver: mvcc: database space exceeded";
/// How long the server may take to find that there is room.
const LIMIT: Duration = Duration::from_secs(60);

/// A disk that stays full for so long has nothing more to free.
const SETTLED: Duration = Duration::from_secs(2);

/// Every key that was answered, and whether it is there; `None` where no answer came.
type Ledger = Arc<Mutex<BTreeMap<String, Option<bool>>>>;

pub(crate) fn suite(server: &Path) -> Result<Outcome> {
    if !tools::has_own_mounts() {
        return tools::with_own_mounts("full-disk", server);
    }
    let dir = workspace::empty_dir("full-disk")?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    refuses_to_begin(server, &dir.join("tiny"))?;
    let (filled, reclaimed) = runtime.block_on(async {
        let filled = run(server, &dir).await?;
        let sparse = dir.join("sparse");
        let reclaimed = reclaims(server, &sparse).await.context("reclaiming")?;
        anyhow::Ok((filled, reclaimed))
    })?;
    Ok(Outcome::Passed(format!("{filled}; {reclaimed}")))
}

async fn run(server: &Path, dir: &Path) -> Result<String> {
    let data = member::data_dir(dir);
    mount(&data, SIZE_MIB)?;
    let (flags, ports) = (&["--auto-compaction-retention=0"][..], member::free_ports());
    let config = Config { server, dir, flags };
    let mut member = Member::spawn(&config, ports)?;
    member.await_ready()?;
    let full = Full {
        port: ports.0,
        ledger: Ledger::default(),
    };

    let filled = full.fill("a").await.context("filling")?;
    full.check_full().await.context("on the full disk")?;

    // Not a byte is left, and it is killed in the midst of deletes.
    let ballast = data.join("ballast");
    take_all(&ballast)?;
    let mut deletes = full.start_deletes();
    tokio::time::sleep(Duration::from_millis(30)).await;
    member.kill()?;
    while let Some(ended) = deletes.join_next().await {
        ended?;
    }
    member = Member::spawn(&config, ports)?;
    full.await_listening(&mut member).await?;
    full.check_full()
        .await
        .context("started on the full disk")?;

    full.delete_all().await.context("making room")?;
    full.await_room("deleted").await?;
    fs::remove_file(&ballast)?;
    let again = full.fill("b").await.context("filling again")?;
    full.check_full()
        .await
        .context("on the disk that is full again")?;
    remount(&data, LARGER_MIB)?;
    full.await_room("larger").await?;
    full.check_all().await?;
    member.kill()?;
    Ok(format!(
        "full after {filled} and again after {again} puts, killed and started while full"
    ))
}

/// Segments in which every third value lives fill a disk; then a compaction, and nothing else: the
/// live values are copied forward, and there is room.
async fn reclaims(server: &Path, dir: &Path) -> Result<String> {
    let data = member::data_dir(dir);
    mount(&data, SIZE_MIB)?;
    let (flags, ports) = (&["--auto-compaction-retention=0"][..], member::free_ports());
    let mut member = Member::spawn(&Config { server, dir, flags }, ports)?;
    member.await_ready()?;
    let full = Full {
        port: ports.0,
        ledger: Ledger::default(),
    };
    let mut client = full.client().await?;
    let mut revision = 0;
    for number in 0.. {
        let key = match number % 3 {
            0 => format!("/full/live{number:05}"),
            _ => "/full/overwritten".to_owned(),
        };
        match put(&mut client, &key).await {
            Ok(at) => revision = at,
            Err(status) if is_no_space(&status) => break,
            Err(status) => return Err(status.into()),
        }
        note(&full.ledger, key, Some(true));
    }
    full.check_all().await.context("on the full disk")?;
    let request = CompactionRequest {
        revision,
        physical: true,
    };
    client.compact(request).await?;
    full.await_room("compacted").await?;
    // The last of its segments is freed by the second checkpoint behind the copies.
    let copied = || -> Result<bool> {
        let metrics = member::get(full.port, "/metrics")?;
        let moved = metrics
            .lines()
            .find_map(|line| line.strip_prefix("quorate_reclaim_copied_bytes_total "));
        Ok(moved.context("no quorate_reclaim_copied_bytes_total")? != "0")
    };
    let started = Instant::now();
    while !copied()? {
        ensure!(started.elapsed() < LIMIT, "no live value was copied");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    full.check_all().await.context("copied")?;
    let live = full.ledger.lock().expect("no panic").len();
    member.kill()?;
    member = Member::spawn(&Config { server, dir, flags }, ports)?;
    member.await_ready()?;
    full.check_all().await.context("started again")?;
    member.kill()?;
    Ok(format!("{live} live values copied out of sparse segments"))
}

/// A new directory is refused with a sentence where there is no room for it.
fn refuses_to_begin(server: &Path, dir: &Path) -> Result<()> {
    mount(dir, 16)?;
    let mut member = Member::spawn(
        &Config {
            server,
            dir,
            flags: &[],
        },
        member::free_ports(),
    )?;
    let Some(status) = member.await_end(LIMIT)? else {
        bail!("a server started where there is no room");
    };
    let log = member.log_tail();
    let sentence = "there is no room for a new data directory in";
    ensure!(
        !status.success() && log.contains(sentence),
        "{status}: {log}"
    );
    Ok(())
}

struct Full {
    port: u16,
    ledger: Ledger,
}

impl Full {
    /// Puts until there is no room, and what was written before has given back all it can. Returns
    /// how many puts were answered.
    async fn fill(&self, name: &str) -> Result<usize> {
        let (mut puts, mut client) = (0, self.client().await?);
        for round in 0.. {
            puts += self.fill_once(&format!("{name}{round}-")).await?;
            let refused = Instant::now();
            let mut stays_full = true;
            while stays_full && refused.elapsed() < SETTLED {
                tokio::time::sleep(Duration::from_millis(50)).await;
                let key = format!("/full/{name}{round}-probe");
                stays_full = put(&mut client, &key).await.is_err();
                if !stays_full {
                    note(&self.ledger, key, Some(true));
                }
            }
            if stays_full {
                break;
            }
        }
        Ok(puts)
    }

    async fn fill_once(&self, name: &str) -> Result<usize> {
        let mut writers = JoinSet::new();
        for writer in 0..WRITERS {
            let (ledger, mut client) = (self.ledger.clone(), self.client().await?);
            let name = format!("/full/{name}{writer}");
            writers.spawn(async move {
                for number in 0.. {
                    let key = format!("{name}/{number:05}");
                    match put(&mut client, &key).await {
                        Ok(_) => note(&ledger, key, Some(true)),
                        Err(status) if is_no_space(&status) => return Ok(number),
                        Err(status) => return Err(status),
                    }
                }
                Ok(0)
            });
        }
        let mut puts = 0;
        while let Some(ended) = writers.join_next().await {
            puts += ended??;
        }
        Ok(puts)
    }

    /// Reads and deletes go on, writes that grow are refused, and the server says why.
    async fn check_full(&self) -> Result<()> {
        let body = member::get(self.port, "/health")?;
        ensure!(body.contains("ALARM NOSPACE"), "health: {body}");
        let metrics = member::get(self.port, "/metrics")?;
        ensure!(
            metrics.contains("\nquorate_disk_short 1\n"),
            "the disk is not short"
        );
        let mut client = self.client().await?;
        let refused = put(&mut client, "/full/more").await;
        ensure!(refused.as_ref().is_err_and(is_no_space), "{refused:?}");
        let mut http = Http::connect(self.port).await?;
        let refused = http.request("PUT", "/v2/keys/full/more", "value=x").await?;
        ensure!(
            refused.status == 500 && refused.body.contains(NO_SPACE),
            "{refused:?}"
        );
        self.check_all().await?;
        let Some(key) = self.some_key() else {
            bail!("nothing was answered");
        };
        let deleted = http
            .request("DELETE", &format!("/v2/keys{key}"), "")
            .await?;
        ensure!(deleted.status == 200, "{deleted:?}");
        note(&self.ledger, key, Some(false));
        Ok(())
    }

    /// Every key that was answered is as it was answered, whole.
    async fn check_all(&self) -> Result<()> {
        let mut client = self.client().await?;
        let ledger = self.ledger.lock().expect("no panic").clone();
        for (key, there) in ledger {
            let range = RangeRequest {
                key: key.clone().into(),
                ..RangeRequest::default()
            };
            let found = client.range(range).await?.into_inner().kvs;
            let is_whole = found.first().is_some_and(|kv| kv.value == value(&key));
            match there {
                Some(true) => ensure!(is_whole, "{key} is lost"),
                Some(false) => ensure!(found.is_empty(), "{key} is back"),
                None => ensure!(found.is_empty() || is_whole, "{key} is not whole"),
            }
        }
        Ok(())
    }

    /// Deletes one key after the other until the server is gone.
    fn start_deletes(&self) -> JoinSet<()> {
        let (ledger, port) = (self.ledger.clone(), self.port);
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let Ok(mut client) = connect(port).await else {
                return;
            };
            let keys: Vec<String> = ledger.lock().expect("no panic").keys().cloned().collect();
            for key in keys {
                note(&ledger, key.clone(), None);
                let delete = DeleteRangeRequest {
                    key: key.clone().into(),
                    ..DeleteRangeRequest::default()
                };
                if client.delete_range(delete).await.is_err() {
                    return;
                }
                note(&ledger, key, Some(false));
            }
        });
        tasks
    }

    async fn delete_all(&self) -> Result<()> {
        let mut client = self.client().await?;
        let delete = DeleteRangeRequest {
            key: "/full/".into(),
            range_end: "/full0".into(),
            prev_kv: false,
        };
        let deleted = client.delete_range(delete).await?.into_inner();
        let revision = deleted.header.context("a header")?.revision;
        self.ledger.lock().expect("no panic").clear();
        let request = CompactionRequest {
            revision,
            physical: true,
        };
        client.compact(request).await?;
        Ok(())
    }

    /// Waits until a write goes through again, nobody having cleared the alarm.
    async fn await_room(&self, name: &str) -> Result<()> {
        let mut client = self.client().await?;
        let key = format!("/full/{name}");
        let started = Instant::now();
        while let Err(status) = put(&mut client, &key).await {
            ensure!(is_no_space(&status), "{status}");
            if started.elapsed() > LIMIT {
                bail!("{name}: no room after {LIMIT:?}");
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        println!("{name}: writes work again after {:?}", started.elapsed());
        note(&self.ledger, key, Some(true));
        let body = member::get(self.port, "/health")?;
        ensure!(body.contains("\"true\""), "health: {body}");
        Ok(())
    }

    /// A full server is not healthy, but it answers.
    async fn await_listening(&self, member: &mut Member) -> Result<()> {
        let started = Instant::now();
        while member::get(self.port, "/readyz").is_err() {
            if member.await_end(Duration::ZERO)?.is_some() || started.elapsed() > LIMIT {
                bail!("it does not start on a full disk: {}", member.log_tail());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        // What is kept is looked at behind the start.
        while !member::get(self.port, "/metrics")?.contains("\nquorate_disk_short 1\n") {
            ensure!(started.elapsed() < LIMIT, "the disk is not short");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    fn some_key(&self) -> Option<String> {
        let ledger = self.ledger.lock().expect("no panic");
        let mut there = ledger.iter().filter(|(_, there)| **there == Some(true));
        there.next().map(|(key, _)| key.clone())
    }

    async fn client(&self) -> Result<KvClient<Channel>> {
        connect(self.port).await
    }
}

async fn connect(port: u16) -> Result<KvClient<Channel>> {
    let endpoint = Endpoint::from_shared(format!("http://127.0.0.1:{port}"))?;
    Ok(KvClient::new(endpoint.connect().await?))
}

/// Puts a key; the revision of the answer.
async fn put(client: &mut KvClient<Channel>, key: &str) -> Result<i64, Status> {
    let request = PutRequest {
        key: key.to_owned().into(),
        value: value(key),
        ..PutRequest::default()
    };
    let answer = client.put(request).await?.into_inner();
    Ok(answer.header.map_or(0, |header| header.revision))
}

/// A value that no other key has.
fn value(key: &str) -> prost::bytes::Bytes {
    key.bytes().cycle().take(VALUE_BYTES).collect()
}

fn is_no_space(status: &Status) -> bool {
    status.code() == Code::ResourceExhausted && status.message() == NO_SPACE
}

fn note(ledger: &Ledger, key: String, there: Option<bool>) {
    ledger.lock().expect("no panic").insert(key, there);
}

/// Takes every byte that is left.
fn take_all(ballast: &Path) -> Result<()> {
    let mut file = File::create(ballast)?;
    for piece in [1 << 20, 1 << 12] {
        while file.write_all(&vec![1; piece]).is_ok() {}
    }
    Ok(())
}

fn mount(dir: &Path, mib: u32) -> Result<()> {
    fs::create_dir_all(dir)?;
    let size = format!("size={mib}m");
    tools::run(
        Command::new("mount")
            .args(["-t", "tmpfs", "-o", &size, "tmpfs"])
            .arg(dir),
    )
}

fn remount(dir: &Path, mib: u32) -> Result<()> {
    let size = format!("remount,size={mib}m");
    tools::run(Command::new("mount").args(["-o", &size]).arg(dir))
}
